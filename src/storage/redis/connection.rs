//! [`Connection`]: one connection over which many ask at a time. Its client gives each its own answer, and reads past those that nobody waits for any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, Value};

use super::failure::Failure;
use super::hello;
use super::server::Server;
use super::settings::LONGEST_ANSWER;

/// When answers that were given up haven't come for so long, none will: the other end is gone without a word, or stands still. A new connection tells.
const LONGEST_SILENCE: Duration = Duration::from_secs(1);

pub(super) struct Connection {
    client: MultiplexedConnection,
    server: Arc<Server>,
    /// Which of the servers at its address it is connected to, as [`Server`] counts them.
    generation: u64,
    began: Instant,
    /// When the oldest question was asked whose answer was given up without anything having been heard since, in milliseconds after `began`, plus one; or zero.
    silent_since: AtomicU64,
    is_broken: AtomicBool,
}

impl Connection {
    /// Connects, says who we are, and asks where the purge log stands; nothing else that the server answers is believed before.
    pub(super) async fn open(server: &Arc<Server>) -> Result<Self, Failure> {
        let late = |_| {
            let address = server.settings.address();
            Failure::unanswered(format!("no connection to {address} in {:?}", server.settings.longest_connecting))
        };
        tokio::time::timeout(server.settings.longest_connecting, Self::open_at_leisure(server)).await.map_err(late)?
    }

    async fn open_at_leisure(server: &Arc<Server>) -> Result<Self, Failure> {
        let client = connect(&server.client).await?;
        let mut connection = Self {
            client,
            server: server.clone(),
            generation: 0,
            began: Instant::now(),
            silent_since: AtomicU64::new(0),
            is_broken: AtomicBool::new(false),
        };
        let mut naming = redis::cmd("CLIENT");
        naming.arg("SETNAME").arg(&server.settings.client_name);
        match connection.ask(&naming).await {
            Err(failure) if failure.is_final => return Err(failure),
            // A name is only for people; not every user may have one.
            _ => {}
        }
        connection.generation = hello::say(&connection, server).await?.generation;
        server.connected();
        Ok(connection)
    }

    /// Sends a command, and waits for its answer. Whoever stops waiting leaves the connection as it was for the others.
    pub(super) async fn ask(&self, command: &Cmd) -> Result<Value, Failure> {
        let mut waiting = Waiting { connection: self, since: self.milliseconds(), was_answered: false };
        let mut client = self.client.clone();
        let answer = client.send_packed_command(command).await.and_then(Value::extract_error).map_err(Failure::of);
        waiting.was_answered = answer.as_ref().err().is_none_or(|failure| !failure.was_unanswered);
        if answer.as_ref().is_err_and(|failure| failure.is_final) {
            self.give_up();
        }
        answer
    }

    /// Whether it may be asked: it isn't broken, something was heard lately, and no newer connection found another server.
    pub(super) fn is_usable(&self) -> bool {
        let silent_since = self.silent_since.load(Ordering::Relaxed);
        let silence = Duration::from_millis(self.milliseconds().saturating_sub(silent_since));
        let is_silent = silent_since > 0 && silence > LONGEST_SILENCE;
        !is_silent && !self.is_broken.load(Ordering::Relaxed) && self.is_current()
    }

    /// Whether the server at its other end hasn't said yet which one it is.
    pub(super) fn is_new(&self) -> bool {
        self.generation == 0
    }

    /// Whether it is the same server that the newest connection found: only then do its answers count.
    pub(super) fn is_current(&self) -> bool {
        self.generation == self.server.generation()
    }

    /// Isn't asked again. It ends when the last who waits for it does.
    pub(super) fn give_up(&self) {
        self.is_broken.store(true, Ordering::Relaxed);
    }

    fn milliseconds(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }
}

async fn connect(client: &Client) -> Result<MultiplexedConnection, Failure> {
    // It is opened within a time of its own.
    let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(Some(LONGEST_ANSWER));
    client.get_multiplexed_async_connection_with_config(&config).await.map_err(Failure::of)
}

/// One who waits for an answer.
struct Waiting<'a> {
    connection: &'a Connection,
    since: u64,
    was_answered: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let silent_since = &self.connection.silent_since;
        if self.was_answered {
            silent_since.store(0, Ordering::Relaxed);
        } else {
            // The oldest counts.
            let _is_oldest = silent_since.compare_exchange(0, self.since, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}
