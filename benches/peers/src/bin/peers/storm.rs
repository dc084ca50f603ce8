//! Purges of one key after another, each followed by a look whether it has taken effect.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

use larder_peers::content;
use larder_peers::handler::milliseconds;

use crate::check::made;
use crate::client::Client;
use crate::servers::{Purger, Server};

pub struct Storm {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<Purged>,
}

#[derive(Default)]
pub struct Purged {
    pub purges: u64,
    pub wrong: Vec<String>,
}

const PAUSE: Duration = Duration::from_micros(500);

impl Storm {
    pub fn start(server: &Server, keys: u64) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let (stop, mut purger, mut client) = (ended.clone(), server.purger(), Client::new(server.address));
        let thread = spawn(move || {
            let mut purged = Purged::default();
            let mut random = 2;
            while !stop.load(Ordering::Relaxed) {
                random = content::mixed(random);
                purged.wrong.extend(purge(&mut purger, &mut client, random % keys).err());
                purged.purges += 1;
                sleep(PAUSE);
            }
            purged
        });
        Self { ended, thread }
    }

    pub fn stop(self) -> Purged {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.join().expect("a storm doesn't panic")
    }
}

/// What is asked for after a purge must have been made after it began.
fn purge(purger: &mut Purger, client: &mut Client, key: u64) -> Result<(), String> {
    let began = milliseconds();
    purger.purge(key)?;
    let answer = client.get(&format!("/item/{key}"), &[])?;
    match made(&answer.headers) {
        Some(made) if made >= began => Ok(()),
        Some(made) => Err(format!("/item/{key} was made {} ms before it was purged", began - made)),
        None => Err(format!("/item/{key} says not when it was made: {}", answer.status)),
    }
}
