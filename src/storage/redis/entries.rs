//! The entries of the log's stream. Their ids are the numbers of the purges, in two halves.

use std::time::Duration;

use redis::{Cmd, Value};

use super::connection::Connection;
use super::failure::Failure;
use super::hello::purge_number;
use super::replies;
use crate::purge_message::{PurgeMessage, PurgedThings};
use crate::record::ClockShift;
use crate::storage::PurgeNews;

/// What came since `known`; waits for it if there is nothing.
pub(super) async fn since(
    connection: &Connection,
    stream: &str,
    known: u64,
    wait: Duration,
    most: u32,
) -> Result<Vec<Value>, Failure> {
    let mut read = redis::cmd("XREAD");
    read.arg("COUNT").arg(most);
    let milliseconds = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    // To wait for no milliseconds would be to wait for ever.
    if milliseconds > 0 {
        read.arg("BLOCK").arg(milliseconds);
    }
    read.arg("STREAMS").arg(stream).arg(id(known));
    match connection.ask(&read).await? {
        Value::Nil => Ok(Vec::new()),
        streams => {
            let [of_the_log] = replies::list(streams)?;
            let [_name, entries] = replies::list(of_the_log)?;
            replies::values(entries)
        }
    }
}

/// All between two numbers, the last included.
pub(super) async fn between(
    connection: &Connection,
    stream: &str,
    known: u64,
    last: u64,
) -> Result<Vec<Value>, Failure> {
    let range = [format!("({}", id(known)), id(last)];
    replies::values(connection.ask(Cmd::new().arg("XRANGE").arg(stream).arg(&range)).await?)
}

/// News of entries, if nothing is missing between them.
pub(super) fn news(known: u64, entries: Vec<Value>, floor: u64, shift: ClockShift) -> Result<PurgeNews, Failure> {
    let purges = entries.into_iter().map(|entry| purge(entry, shift)).collect::<Result<Vec<_>, _>>()?;
    let is_dense = purges.iter().zip(1..).all(|((number, _), nth)| known.checked_add(nth) == Some(*number));
    Ok(if is_dense { PurgeNews::Since { purges, floor } } else { PurgeNews::Gap })
}

/// The message of a purge. What can't be read (a newer release may have written it) may have been anything, and so counts as everything.
pub(super) fn message(bytes: &[u8], shift: ClockShift) -> PurgeMessage {
    PurgeMessage::from_bytes(bytes, shift).unwrap_or_else(|error| {
        tracing::warn!(%error, "a purge in Redis can't be read: everything counts as purged");
        everything()
    })
}

/// A hard purge of everything.
pub(super) fn everything() -> PurgeMessage {
    PurgeMessage { what: PurgedThings::Everything, soft: None }
}

fn purge(entry: Value, shift: ClockShift) -> Result<(u64, PurgeMessage), Failure> {
    let [id, fields] = replies::list(entry)?;
    let id = replies::bytes(id)?;
    let number = number(&id).ok_or_else(|| Failure::nonsense("an entry of the purge log without a number"))?;
    // What somebody else wrote has other fields.
    let message = match replies::values(fields)?.as_slice() {
        [Value::BulkString(name), Value::BulkString(bytes)] if name == b"m" => message(bytes, shift),
        _ => everything(),
    };
    Ok((number, message))
}

fn id(number: u64) -> String {
    format!("{}-{}", number >> 32, number & u64::from(u32::MAX))
}

fn number(id: &[u8]) -> Option<u64> {
    let (high, low) = std::str::from_utf8(id).ok()?.split_once('-')?;
    Some(purge_number(high.parse().ok()?, low.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str, name: &str, bytes: &[u8]) -> Value {
        let bulk = |bytes: &[u8]| Value::BulkString(bytes.to_vec());
        Value::Array(vec![bulk(id.as_bytes()), Value::Array(vec![bulk(name.as_bytes()), bulk(bytes)])])
    }

    #[test]
    fn entries_are_news_if_none_is_missing() {
        let bytes = everything().to_bytes(ClockShift::NONE);
        let told = |ids: &[&str]| {
            let entries = ids.iter().map(|id| entry(id, "m", &bytes)).collect();
            match news(purge_number(5, 1), entries, 3, ClockShift::NONE) {
                Ok(PurgeNews::Since { purges, floor: 3 }) => Some(purges.len()),
                Ok(_) => None,
                Err(_) => Some(usize::MAX),
            }
        };
        let rows: [(&[&str], _); 7] = [
            (&[], Some(0)),
            (&["5-2", "5-3"], Some(2)),
            (&["5-3"], None),
            (&["5-2", "5-4"], None),
            (&["6-2"], None),
            (&["5-1"], None),
            (&["5"], Some(usize::MAX)),
        ];
        for (ids, expected) in rows {
            assert_eq!(told(ids), expected, "{ids:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_counts_as_everything() {
        let whole = PurgeMessage { what: PurgedThings::Glob("/a/*".into()), soft: None };
        let bytes = whole.to_bytes(ClockShift::NONE);
        assert_eq!(purge(entry("5-2", "m", &bytes), ClockShift::NONE).unwrap(), (purge_number(5, 2), whole));
        for (name, bytes) in [("m", &bytes[1..]), ("m", b""), ("x", &bytes)] {
            assert_eq!(purge(entry("5-2", name, bytes), ClockShift::NONE).unwrap().1, everything());
        }
    }
}
