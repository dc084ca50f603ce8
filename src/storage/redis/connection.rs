//! [`Connection`]: one connection over which many ask at a time, and what is known of the server at its other end.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use redis::{Cmd, RedisConnectionInfo, Value};

use super::failure::Failure;
use super::hello;
use super::pipe::{Asked, Pipe};
use super::server::Server;
use super::wire::Contents;
use super::{socket, wire};

/// When answers that were given up haven't come for so long, none will: the other end is gone without a word, or stands still. A new connection tells.
const LONGEST_SILENCE: Duration = Duration::from_secs(1);

pub(super) struct Connection {
    pipe: Pipe,
    server: Arc<Server>,
    /// Which of the servers at its address it is connected to, as [`Server`] counts them.
    generation: u64,
    began: Instant,
    /// When the first answer was given up after the last that came then, in milliseconds after `began`, plus one; or zero.
    silent_since: AtomicU64,
    /// How many answers had come then. Where there are more, it isn't silent.
    heard_before: AtomicU64,
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
        let socket = socket::connect(&server.settings).await.map_err(|error| Failure::of(error.into()))?;
        let mut connection = Self {
            pipe: Pipe::new(socket),
            server: server.clone(),
            generation: 0,
            began: Instant::now(),
            silent_since: AtomicU64::new(0),
            heard_before: AtomicU64::new(0),
            is_broken: AtomicBool::new(false),
        };
        connection.log_in(server.settings.info.redis_settings()).await?;
        connection.take_name(&server.settings.client_name).await?;
        connection.generation = hello::say(&connection, server).await?.generation;
        server.connected();
        Ok(connection)
    }

    /// Says who we are, and to which database.
    async fn log_in(&self, who: &RedisConnectionInfo) -> Result<(), Failure> {
        // A user without a password has an empty one.
        if let Some(password) = who.password().or(who.username().map(|_| "")) {
            let words = ["AUTH"].into_iter().chain(who.username()).chain([password]).map(str::as_bytes);
            self.ask_packed(wire::command(&words.collect::<Vec<_>>())).await.map_err(Failure::of_who_we_are)?;
        }
        if who.db() != 0 {
            self.ask(redis::cmd("SELECT").arg(who.db())).await.map_err(Failure::of_who_we_are)?;
        }
        Ok(())
    }

    /// A name is only for people; not every user may have one.
    async fn take_name(&self, name: &str) -> Result<(), Failure> {
        let answer = self.ask(redis::cmd("CLIENT").arg("SETNAME").arg(name)).await;
        answer.map(drop).or_else(|failure| if failure.is_final { Err(failure) } else { Ok(()) })
    }

    /// Sends a command, and waits for its answer. Whoever stops waiting leaves the connection as it was for the others.
    pub(super) async fn ask(&self, command: &Cmd) -> Result<Value, Failure> {
        self.ask_packed(command.get_packed_command()).await
    }

    /// The same with a [command](wire::command) as it goes over the wire.
    pub(super) async fn ask_packed(&self, command: Vec<u8>) -> Result<Value, Failure> {
        self.heard(self.answer(command).await.and_then(|answer| wire::value(&answer)))
    }

    /// The same for a command that asks what is at one place.
    pub(super) async fn ask_for_content(&self, command: Vec<u8>) -> Result<Option<Bytes>, Failure> {
        self.heard(self.answer(command).await.and_then(wire::content))
    }

    /// The same for a command that asks for contents.
    pub(super) async fn ask_for_contents(&self, command: Vec<u8>) -> Result<Contents, Failure> {
        self.heard(self.answer(command).await.and_then(|answer| wire::contents(&answer)))
    }

    fn answer(&self, command: Vec<u8>) -> Waiting<'_> {
        Waiting { connection: self, asked: self.pipe.ask(command), was_answered: false }
    }

    /// An answer after which it mustn't be used again gives it up.
    fn heard<T>(&self, answer: Result<T, Failure>) -> Result<T, Failure> {
        answer.inspect_err(|failure| {
            if failure.is_final {
                self.give_up();
            }
        })
    }

    /// Whether it may be asked: it isn't broken, something was heard lately, and no newer connection found another server.
    pub(super) fn is_usable(&self) -> bool {
        let is_silent = self
            .silent_since()
            .is_some_and(|since| Duration::from_millis(self.milliseconds().saturating_sub(since)) > LONGEST_SILENCE);
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

    /// When an answer was given up, if none has come since: not to those either who had left.
    fn silent_since(&self) -> Option<u64> {
        let heard_before = self.heard_before.load(Ordering::Acquire);
        let since = self.silent_since.load(Ordering::Relaxed);
        (since > 0 && heard_before == self.pipe.heard()).then_some(since)
    }

    fn note_silence(&self) {
        // The first counts.
        if self.silent_since().is_none() {
            let heard = self.pipe.heard();
            self.silent_since.store(self.milliseconds(), Ordering::Relaxed);
            self.heard_before.store(heard, Ordering::Release);
        }
    }

    fn milliseconds(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }
}

/// One who waits for an answer.
struct Waiting<'a> {
    connection: &'a Connection,
    asked: Asked,
    was_answered: bool,
}

impl Future for Waiting<'_> {
    type Output = Result<Bytes, Failure>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.asked).poll(context));
        self.was_answered = answer.as_ref().err().is_none_or(|failure| !failure.was_unanswered);
        Poll::Ready(answer)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.was_answered {
            self.connection.note_silence();
        }
    }
}
