//! The first question on every connection, and the pulse of the log: which server is it, is its purge log still the one that was known, and what time is it there?

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::Value;

use super::connection::Connection;
use super::failure::Failure;
use super::replies;
use super::script::{Call, HELLO, Script};
use super::server::Server;

/// What the scripts of the log answer.
pub(super) struct Told {
    /// The number with which the epoch begins. It is larger than any of an earlier epoch, and is no purge's.
    pub(super) start: u64,
    /// How many purges there were since.
    counter: u64,
    /// Up to which of them purges are forgotten.
    floor: u64,
    pub(super) time: SystemTime,
    pub(super) run: Box<[u8]>,
    /// What the script found beyond.
    pub(super) more: Value,
    /// Of the server, as [`Server`] counts them.
    pub(super) generation: u64,
}

/// Asks where the log stands. It begins a new epoch where the log isn't the one that was known.
pub(super) async fn say(connection: &Connection, server: &Arc<Server>) -> Result<Told, Failure> {
    ask(&HELLO, server, server.known(), connection, |call| call).await
}

/// Runs a script of the log for somebody who knows it up to `known`, with further arguments.
pub(super) async fn ask(
    script: &'static Script,
    server: &Arc<Server>,
    known: u64,
    connection: &Connection,
    further: impl FnOnce(Call) -> Call + Send,
) -> Result<Told, Failure> {
    let keyspace = &server.settings.keyspace;
    let (purges, log) = (keyspace.purges(), keyspace.log());
    let call = script.call(&[&purges, &log]).number(known >> 32).number(known & u64::from(u32::MAX));
    let call = further(call.number(server.settings.longest.as_millis()));
    let asked = server.now();
    let mut told = Told::read(call.run(connection).await?)?;
    // On a connection that another server has superseded, the old one doesn't get the word again.
    if !connection.is_new() && !connection.is_current() {
        return Err(Failure::of_connection("another server has taken over at its address"));
    }
    told.generation = server.heard(&told, asked);
    Ok(told)
}

impl Told {
    fn read(answer: Value) -> Result<Self, Failure> {
        let [high, low, counter, floor, seconds, microseconds, run, more] = replies::list(answer)?;
        let since_1970 =
            Duration::from_secs(replies::number(&seconds)?) + Duration::from_micros(replies::number(&microseconds)?);
        Ok(Self {
            start: purge_number(replies::number(&high)?, replies::number(&low)?),
            counter: replies::number(&counter)?,
            floor: replies::number(&floor)?,
            time: UNIX_EPOCH.checked_add(since_1970).ok_or_else(|| Failure::nonsense("no time"))?,
            run: replies::bytes(run)?.into(),
            more,
            generation: 0,
        })
    }

    /// The number of the newest purge.
    pub(super) fn number(&self) -> u64 {
        self.start.saturating_add(self.counter)
    }

    /// The number up to which purges are forgotten.
    pub(super) fn floor(&self) -> u64 {
        self.start.saturating_add(self.floor)
    }
}

/// A purge number, of its halves. Scripts and the ids of the stream have it so.
pub(super) fn purge_number(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}
