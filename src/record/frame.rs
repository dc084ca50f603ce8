//! The frame of a record: a header of fixed length that says how long each section is, the sections, and a seal over all of it.

use std::ops::Range;
use std::time::SystemTime;

use super::error::RecordError;
use super::seal::{SEAL, Seal};
use super::wire::{Reader, joined_time, split_time};

/// What each record begins with.
const MAGIC: [u8; 4] = *b"LRDR";

/// The version of the format that is written, and the only one that is read.
const VERSION: u8 = 1;

/// The kind of a record that holds a response.
const RESPONSE: u8 = 1;

/// It is sealed under a key.
const KEYED: u16 = 1;

/// The length of the header.
pub(super) const HEADER: usize = 48;

/// Where the number of the newest purge stands from before the response was asked for.
pub(super) const NUMBER: Range<usize> = 8..16;

/// Where the time stands at which the response arrived, in milliseconds.
pub(super) const RECEIVED: Range<usize> = 16..24;

/// What a header says beside the lengths.
pub(super) struct Header {
    pub(super) number: u64,
    /// By the store's clock.
    pub(super) received: SystemTime,
}

/// The ends of the sections of a record that is being written: each begins where the one before ends.
pub(super) struct Ends {
    pub(super) key: usize,
    pub(super) head: usize,
    pub(super) terms: usize,
}

/// A record whose frame is whole.
pub(super) struct Frame<'a> {
    pub(super) header: Header,
    pub(super) key: &'a [u8],
    pub(super) head: &'a [u8],
    pub(super) terms: &'a [u8],
    /// Where the content is in the whole.
    pub(super) body: Range<usize>,
    pub(super) seal: [u8; SEAL],
}

/// Writes the header into the place that was left for it in front of the sections, and the seal behind them.
pub(super) fn close(record: &mut Vec<u8>, header: &Header, ends: &Ends, seal: &Seal) {
    // A section of 4 GiB is none that a cache stores. Its length would be wrong here, and the record a miss.
    let length = |from: usize, to: usize| u32::try_from(to - from).unwrap_or(u32::MAX).to_be_bytes();
    let (milliseconds, nanoseconds) = split_time(header.received);
    let flags = if seal.is_keyed() { KEYED } else { 0 };
    let body = (record.len() - ends.terms) as u64;
    let parts: [&[u8]; 10] = [
        &MAGIC,
        &[VERSION, RESPONSE],
        &flags.to_be_bytes(),
        &header.number.to_be_bytes(),
        &milliseconds.to_be_bytes(),
        &nanoseconds.to_be_bytes(),
        &length(HEADER, ends.key),
        &length(ends.key, ends.head),
        &length(ends.head, ends.terms),
        &body.to_be_bytes(),
    ];
    let places = record.iter_mut().zip(parts.into_iter().flatten());
    places.for_each(|(place, byte)| *place = *byte);
    let seal = seal.of(record);
    record.extend_from_slice(&seal);
}

/// Reads a frame, in this order: is it a record, of a version, kind and flags that are known here; do its lengths add up; is its seal whole.
pub(super) fn open<'a>(record: &'a [u8], seal: &Seal) -> Result<Frame<'a>, RecordError> {
    let mut reader = Reader::new(record);
    if reader.array() != Some(MAGIC) {
        return Err(RecordError::Foreign);
    }
    let [version, kind] = reader.array().ok_or(RecordError::Length)?;
    if version != VERSION {
        return Err(RecordError::Version(version));
    }
    if kind != RESPONSE {
        return Err(RecordError::Kind(kind));
    }
    let flags = reader.array().map(u16::from_be_bytes).ok_or(RecordError::Length)?;
    if flags & !KEYED != 0 {
        return Err(RecordError::Flags(flags));
    }
    if (flags & KEYED != 0) != seal.is_keyed() {
        return Err(RecordError::SealKind);
    }
    sections(record, reader, seal)
}

fn sections<'a>(record: &'a [u8], mut reader: Reader<'a>, seal: &Seal) -> Result<Frame<'a>, RecordError> {
    let Lengths { number, milliseconds, nanoseconds, key, head, terms, body } =
        Lengths::read(&mut reader).ok_or(RecordError::Length)?;
    let mut section = |length: usize| reader.take(length).ok_or(RecordError::Length);
    let (key, head, terms) = (section(key)?, section(head)?, section(terms)?);
    let start = HEADER + key.len() + head.len() + terms.len();
    section(body)?;
    let found = reader.array().ok_or(RecordError::Length)?;
    reader.end().ok_or(RecordError::Length)?;
    let end = start + body;
    if !record.get(..end).is_some_and(|sealed| seal.fits(sealed, &found)) {
        return Err(RecordError::Seal);
    }
    let received = joined_time(milliseconds, nanoseconds).ok_or(RecordError::Malformed)?;
    Ok(Frame { header: Header { number, received }, key, head, terms, body: start..end, seal: found })
}

/// The rest of the header, as it stands there.
struct Lengths {
    number: u64,
    milliseconds: u64,
    nanoseconds: u32,
    key: usize,
    head: usize,
    terms: usize,
    body: usize,
}

impl Lengths {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let (number, milliseconds) = (reader.fixed()?, reader.fixed()?);
        let mut small = || reader.array().map(u32::from_be_bytes);
        let nanoseconds = small()?;
        let mut length = || usize::try_from(small()?).ok();
        let (key, head, terms) = (length()?, length()?, length()?);
        let body = usize::try_from(reader.fixed()?).ok()?;
        Some(Self { number, milliseconds, nanoseconds, key, head, terms, body })
    }
}
