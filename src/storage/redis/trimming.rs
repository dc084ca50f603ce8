//! Trimming: purges from before the oldest record that there can be are forgotten, a few at a time, and the floor rises above them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::hello;
use super::link::Link;
use super::replies;
use super::script::TRIM;
use super::server::Server;

/// About how many things are looked at in a step.
const STEP: u32 = 500;

/// How often each instance goes through all of them, if records live long.
const EVERY: Duration = Duration::from_secs(600);

pub(super) struct Trimming {
    every: Duration,
    next: Mutex<Next>,
}

struct Next {
    due: Instant,
    /// Where to go on.
    cursor: u64,
}

impl Trimming {
    /// For records that live so long at most.
    pub(super) fn new(longest: Duration) -> Self {
        let every = EVERY.min(longest / 4);
        Self { every, next: Mutex::new(Next { due: Instant::now() + every, cursor: 0 }) }
    }

    /// A step, if it is time for one. What goes wrong is tried again at the next time.
    pub(super) async fn step_if_due(&self, server: &Arc<Server>, data: &Arc<Link>) {
        let Some(cursor) = self.take() else { return };
        let step = |at| async move {
            let at: Arc<super::connection::Connection> = at;
            let told = hello::ask(&TRIM, server, server.known(), &at, |call| call.number(cursor).number(STEP)).await?;
            replies::number::<u64>(&told.more)
        };
        if let Ok(cursor @ 1..) = data.run(step).await {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            *next = Next { due: Instant::now(), cursor };
        }
    }

    /// Where to go on, if it is time. Until the step has been made, nobody makes another.
    fn take(&self) -> Option<u64> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if Instant::now() < next.due {
            return None;
        }
        next.due = Instant::now() + self.every;
        Some(std::mem::take(&mut next.cursor))
    }
}
