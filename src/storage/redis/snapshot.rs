//! The snapshot of the purge log: the newest purges of each thing, read in steps, and what came while they were read.

use std::sync::Arc;

use super::connection::Connection;
use super::entries;
use super::failure::Failure;
use super::hello;
use super::link::Link;
use super::replies;
use super::server::Server;
use crate::purge_message::PurgeMessage;
use crate::record::ClockShift;
use crate::storage::{PurgeNews, PurgeSnapshot};

/// About how many things are read at a time.
const STEP: u32 = 1000;

/// How often it is tried where the log begins anew, or runs away, while it is read.
const TRIES: usize = 3;

/// The field that isn't a thing.
const HEAD: &[u8] = b"head";

type Purge = (u64, PurgeMessage);

pub(super) async fn load(server: &Arc<Server>, data: &Arc<Link>) -> Result<PurgeSnapshot, Failure> {
    for _ in 0..TRIES {
        if let Some(snapshot) = data.run(|at| load_at(at, server)).await? {
            return Ok(snapshot);
        }
    }
    Err(Failure::new("its purge log changes faster than it can be read"))
}

/// `None` if the log began anew meanwhile, or more came than it keeps.
async fn load_at(at: Arc<Connection>, server: &Arc<Server>) -> Result<Option<PurgeSnapshot>, Failure> {
    let keyspace = &server.settings.keyspace;
    let before = hello::say(&at, server).await?;
    let things = things(&at, &keyspace.purges(), server.shift()).await?;
    let after = hello::say(&at, server).await?;
    if after.start != before.start {
        return Ok(None);
    }
    // A thing whose field was replaced before it was read has a number that is too new, and one whose field was dropped for that may have none: the stream has both.
    let missed = entries::between(&at, &keyspace.log(), before.number(), after.number()).await?;
    let count = missed.len() as u64;
    match entries::news(before.number(), missed, after.floor(), server.shift())? {
        PurgeNews::Since { purges: missed, floor } if before.number() + count == after.number() => {
            let current = after.number();
            let known = |(number, _): &Purge| (after.start..=current).contains(number);
            let things = things.into_iter().map(|thing| thing.filter(known));
            let things = things.map(|thing| thing.unwrap_or_else(|| (current, entries::everything())));
            Ok(Some(PurgeSnapshot { current, floor, purges: things.chain(missed).collect() }))
        }
        _ => Ok(None),
    }
}

/// The newest purges of each thing; `None` for one that can't be read, and so may have been anything.
async fn things(at: &Connection, purges: &str, shift: ClockShift) -> Result<Vec<Option<Purge>>, Failure> {
    let mut found = Vec::new();
    let mut cursor = 0;
    loop {
        let mut scan = redis::cmd("HSCAN");
        scan.arg(purges).arg(cursor).arg("COUNT").arg(STEP);
        let [next, page] = replies::list(at.ask(&scan).await?)?;
        let page = replies::values(page)?.into_iter().map(replies::bytes).collect::<Result<Vec<_>, _>>()?;
        let things = page.chunks_exact(2).filter(|pair| pair[0] != HEAD);
        found.extend(things.map(|pair| thing(&pair[1], shift)));
        cursor = replies::number::<u64>(&next)?;
        if cursor == 0 {
            return Ok(found);
        }
    }
}

/// A number, the time of the purge, and its message.
fn thing(value: &[u8], shift: ClockShift) -> Option<Purge> {
    let (number, rest) = value.split_first_chunk()?;
    let (_when, message) = rest.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*number), entries::message(message, shift)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::purge_message::PurgedThings;

    #[test]
    fn a_thing_is_read_or_refused() {
        let value = |number: u64, message: &[u8]| [&number.to_be_bytes()[..], &[0; 8], message].concat();
        let glob = PurgeMessage { what: PurgedThings::Glob("/a".into()), soft: None };
        let bytes = glob.to_bytes(ClockShift::NONE);
        let number = hello::purge_number(7, 3);
        assert_eq!(thing(&value(number, &bytes), ClockShift::NONE), Some((number, glob)));
        assert_eq!(thing(&value(number, b"x"), ClockShift::NONE), Some((number, entries::everything())));
        for junk in [value(number, &bytes)[..15].to_vec(), Vec::new()] {
            assert_eq!(thing(&junk, ClockShift::NONE), None);
        }
    }
}
