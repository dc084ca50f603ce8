//! The purge log over Redis: a stream of the newest purges, and a hash of what is remembered of each thing, both behind one head that every script checks first.

use std::sync::Arc;
use std::time::Duration;

use redis::Value;

use super::connection::Connection;
use super::entries;
use super::failure::Failure;
use super::hello::{self, Told};
use super::link::Link;
use super::script::{APPEND, Call, HELLO};
use super::server::Server;
use super::snapshot;
use super::trimming::Trimming;
use crate::purge_message::{PurgeMessage, PurgedThings};
use crate::storage::{LogFuture, PurgeLog, PurgeNews, PurgeSnapshot};

/// How many entries the stream keeps, about; who lags behind further loads the snapshot.
const MOST_ENTRIES: u32 = 10_000;

/// How many things are remembered one by one; beyond, everything counts as purged.
const MOST_THINGS: u32 = 1 << 18;

/// How many purges are told at once.
const MOST_NEWS: u32 = 1000;

/// How much longer than asked for an answer may take before the connection counts as gone.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) struct RedisLog {
    server: Arc<Server>,
    /// For what is answered at once.
    data: Arc<Link>,
    /// For who waits for news; one at a time.
    waiting: Arc<Link>,
    turn: tokio::sync::Mutex<()>,
    trimming: Trimming,
}

impl RedisLog {
    pub(super) fn new(server: Arc<Server>, data: Arc<Link>) -> Self {
        let (waiting, trimming) = (Link::new(server.clone()), Trimming::new(server.settings.longest));
        Self { server, data, waiting, turn: tokio::sync::Mutex::default(), trimming }
    }

    async fn append_now(&self, purge: &PurgeMessage, known: u64) -> Result<PurgeNews, Failure> {
        let told = self.data.run(|at| self.append_at(at, purge, known)).await?;
        let (number, floor) = (told.number(), told.floor());
        let Value::Array(entries) = told.more else { return Ok(PurgeNews::Gap) };
        let news = entries::news(known, entries, floor, self.server.shift())?;
        let is_last = |purges: &[(u64, PurgeMessage)]| purges.last().is_some_and(|(last, _)| *last == number);
        Ok(match news {
            PurgeNews::Since { ref purges, .. } if is_last(purges) => news,
            _ => PurgeNews::Gap,
        })
    }

    async fn append_at(&self, at: Arc<Connection>, purge: &PurgeMessage, known: u64) -> Result<Told, Failure> {
        let shift = self.server.shift();
        let is_everything = purge.what == PurgedThings::Everything && purge.soft.is_none();
        let arguments = |call: Call| {
            let call = call.bytes(purge.to_bytes(shift)).number(u8::from(is_everything));
            let call = call.number(MOST_NEWS).number(MOST_ENTRIES).number(MOST_THINGS);
            let parts = purge.parts().into_iter();
            parts.fold(call, |call, (thing, part)| call.bytes(thing).bytes(part.to_bytes(shift)))
        };
        hello::ask(&APPEND, &self.server, known, &at, arguments).await
    }

    async fn follow_now(&self, known: u64, wait: Duration) -> Result<PurgeNews, Failure> {
        let _turn = self.turn.lock().await;
        self.trimming.step_if_due(&self.server, &self.data).await;
        let late = |_| Failure::unanswered("it doesn't answer who follows the purge log");
        let follow = |at| async move {
            let at: Arc<Connection> = at;
            let busy = Busy { connection: &at, is_over: false };
            let news = tokio::time::timeout(wait.saturating_add(PATIENCE), self.follow_at(&at, known, wait)).await;
            busy.over(news.map_err(late)??)
        };
        self.waiting.run(follow).await
    }

    /// First where the log stands, then what came. In this order nothing that came is ever taken for nothing: the stream is read later than the head.
    async fn follow_at(&self, at: &Connection, known: u64, wait: Duration) -> Result<PurgeNews, Failure> {
        let told = hello::ask(&HELLO, &self.server, known, at, |call| call).await?;
        if known < told.start || told.number().saturating_sub(known) > MOST_NEWS.into() {
            return Ok(PurgeNews::Gap);
        }
        let has_come = told.number() > known;
        let wait = if has_come { Duration::ZERO } else { wait };
        let found = entries::since(at, &self.server.settings.keyspace.log(), known, wait, MOST_NEWS).await?;
        if has_come && found.is_empty() {
            return Ok(PurgeNews::Gap);
        }
        entries::news(known, found, told.floor(), self.server.shift())
    }
}

impl PurgeLog for RedisLog {
    fn append<'a>(&'a self, purge: &'a PurgeMessage, known: u64) -> LogFuture<'a, PurgeNews> {
        Box::pin(async move { Ok(self.append_now(purge, known).await?) })
    }

    fn follow(&self, known: u64, wait: Duration) -> LogFuture<'_, PurgeNews> {
        Box::pin(async move { Ok(self.follow_now(known, wait).await?) })
    }

    fn snapshot(&self) -> LogFuture<'_, PurgeSnapshot> {
        Box::pin(async move { Ok(snapshot::load(&self.server, &self.data).await?) })
    }

    fn newest(&self) -> LogFuture<'_, u64> {
        Box::pin(async move {
            let ask = |at: Arc<Connection>| async move { hello::say(&at, &self.server).await };
            Ok(self.data.run(ask).await?.number())
        })
    }
}

/// A connection on which the server may be waiting for news. Who stops following leaves it waiting, so it is used no more.
struct Busy<'a> {
    connection: &'a Connection,
    is_over: bool,
}

impl Busy<'_> {
    fn over<T>(mut self, news: T) -> Result<T, Failure> {
        self.is_over = true;
        Ok(news)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.connection.give_up();
        }
    }
}
