//! The head of a response as a section of its record: first what it shares with others of its route, as one block that is recognised when it comes
//! again, then the values of its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use super::wire::{Reader, put_bytes, put_number};
use crate::head::{OFTEN, OWN, StoredHead, lasting};
use crate::outcome::OWN_FIELDS;
use crate::shared_head::SharedHead;

/// The most fields of a head: no server sends as many, and a map that holds no more can't become too large for its own kind.
const MOST_FIELDS: usize = 4096;

/// Writes a head: the block behind its length, and the own values.
pub(super) fn put(out: &mut Vec<u8>, head: &StoredHead) {
    let mut block = Vec::with_capacity(256);
    put_block(&mut block, head);
    put_bytes(out, &block);
    head.own().iter().for_each(|value| put_value(out, value));
}

/// The places, by bit, and behind them the fields that others have alike.
fn put_block(out: &mut Vec<u8>, head: &StoredHead) {
    let (shared, has_own) = (head.shared(), head.has_own());
    let place = |name: &HeaderName| OWN_FIELDS.iter().position(|own| own == name);
    let reserved = shared.iter().map_while(|(name, value)| place(name).filter(|_| value.is_empty()));
    let reserved: SmallVec<[usize; 4]> = reserved.collect();
    out.extend_from_slice(&[reserved.iter().fold(0, |bits, place| bits | 1 << place), has_own]);
    let places = reserved.len() + has_own.count_ones() as usize;
    put_fields(out, shared.iter().skip(places), shared.len() - places);
}

/// Fields behind their number.
pub(super) fn put_fields<'a>(
    out: &mut Vec<u8>,
    fields: impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)>,
    count: usize,
) {
    put_number(out, count as u64);
    for (name, value) in fields {
        put_bytes(out, name.as_str().as_bytes());
        put_value(out, value);
    }
}

/// A value behind its length, of which the lowest bit tells whether it is sensitive.
fn put_value(out: &mut Vec<u8>, value: &HeaderValue) {
    put_number(out, (value.len() as u64) << 1 | u64::from(value.is_sensitive()));
    out.extend_from_slice(value.as_bytes());
}

/// Reads fields whose values are slices of `memory`, in which the reader reads.
pub(super) fn fields(
    reader: &mut Reader<'_>,
    memory: &Bytes,
    map: &mut HeaderMap,
    may_be: impl Fn(&HeaderName) -> bool,
) -> Option<()> {
    let count = reader.count(2).filter(|count| *count <= MOST_FIELDS)?;
    map.try_reserve(count).ok()?;
    for _ in 0..count {
        let name = HeaderName::from_lowercase(reader.bytes()?).ok().filter(&may_be)?;
        map.try_append(name, value(reader, memory)?).ok()?;
    }
    Some(())
}

fn value(reader: &mut Reader<'_>, memory: &Bytes) -> Option<HeaderValue> {
    let number = reader.number()?;
    let bytes = reader.take(usize::try_from(number >> 1).ok()?)?;
    let mut value = HeaderValue::from_maybe_shared(memory.slice_ref(bytes)).ok()?;
    value.set_sensitive(number & 1 == 1);
    Some(value)
}

/// The blocks that were read before. Most records of a route have the same one, and needn't be taken apart again.
#[derive(Debug, Default)]
pub(super) struct KnownHeads(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    heads: HashMap<Bytes, Seen, ahash::RandomState>,
    /// Bytes given away for the life of the process, as [`SharedHeads`](crate::head::SharedHeads) does.
    leaked: usize,
}

#[derive(Debug)]
struct Seen {
    head: Arc<SharedHead>,
    times: u32,
}

/// The most blocks that are remembered.
const MOST: usize = 1024;

/// The longest block that is; together they take 4 MiB at most.
const LONGEST: usize = 4 << 10;

/// The most bytes that are given away, so that handing out values that come often touches no counter that all cores contend for.
const MOST_LEAKED: usize = 64 << 10;

impl KnownHeads {
    /// Reads a section; own values are slices of the record.
    pub(super) fn read(&self, section: &[u8], record: &Bytes) -> Option<StoredHead> {
        let mut reader = Reader::new(section);
        let block = reader.bytes()?;
        let has_own = *block.get(1)?;
        let shared = self.shared(block)?;
        let mut own = SmallVec::new();
        for _ in 0..has_own.count_ones() {
            own.push(value(&mut reader, record)?);
        }
        reader.end()?;
        Some(StoredHead::of_parts(shared, own, has_own))
    }

    #[cfg(all(test, feature = "gzip", feature = "brotli", feature = "zstd"))]
    pub(super) fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).heads.len()
    }

    fn shared(&self, block: &[u8]) -> Option<Arc<SharedHead>> {
        if let Some(known) = self.recall(block) {
            return Some(known);
        }
        // Of its own: what is remembered must not keep the whole record in memory.
        let block = Bytes::copy_from_slice(block);
        let head = built(&block)?;
        if block.len() > LONGEST {
            return Some(SharedHead::of_one(head));
        }
        let head = SharedHead::of_many(head);
        self.remember(block, head.clone());
        Some(head)
    }

    fn recall(&self, block: &[u8]) -> Option<Arc<SharedHead>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Known { heads, leaked } = &mut *known;
        let seen = heads.get_mut(block)?;
        seen.times = seen.times.saturating_add(1);
        if seen.times == OFTEN
            && let Some(lasting) = lasting(seen.head.map(), leaked, MOST_LEAKED)
        {
            seen.head = SharedHead::of_many(lasting);
        }
        Some(seen.head.clone())
    }

    fn remember(&self, block: Bytes, head: Arc<SharedHead>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.heads.len() >= MOST {
            known.heads.retain(|_, seen| seen.times >= OFTEN);
        }
        if known.heads.len() >= MOST {
            known.heads.clear();
        }
        known.heads.insert(block, Seen { head, times: 1 });
    }
}

/// The shared part of a head: places for what the cache says itself, then for the own fields, then the rest. What has a place stands nowhere else.
fn built(block: &Bytes) -> Option<HeaderMap> {
    let mut reader = Reader::new(block);
    let [reserved, has_own] = reader.array()?;
    let mut map = HeaderMap::new();
    for name in chosen(OWN_FIELDS, reserved)?.chain(chosen(OWN.clone(), has_own)?) {
        map.insert(name, HeaderValue::from_static(""));
    }
    let places: SmallVec<[HeaderName; 8]> = map.keys().cloned().chain(OWN_FIELDS).collect();
    fields(&mut reader, block, &mut map, |name| !places.contains(name))?;
    reader.end()?;
    Some(map)
}

/// The names whose bits are set.
fn chosen<const N: usize>(names: [HeaderName; N], bits: u8) -> Option<impl Iterator<Item = HeaderName>> {
    let all = names.into_iter().enumerate().filter(move |(place, _)| bits & (1 << place) != 0);
    (u32::from(bits) >> N == 0).then(|| all.map(|(_, name)| name))
}
