//! Records and purge messages: they are refused or can be used, and what can be used is written again as it was read.
//!
//! A record or a message without its seal. As a record it is sealed, after the length of its content was made that of what is there, so that it has a chance.

use std::time::{Duration, UNIX_EPOCH};

use larder::record::{ClockShift, RecordError, RecordFormat};
use larder::{CacheKey, Moment, PurgeMessage, StoredResponse};
use twox_hash::XxHash3_128;

/// Where a record's header ends.
const HEADER: usize = 48;

pub fn check(data: &[u8]) {
    assert!(read(data.to_vec()).is_err(), "without a seal");
    record(data);
    message(data);
}

fn format() -> RecordFormat {
    RecordFormat::default()
}

/// That of the seeds.
fn key() -> CacheKey {
    CacheKey::new(b"shop.example", "/products/1", Some("lang=de"))
}

/// Later than anything that the seeds say.
fn now() -> Moment {
    let monotonic = Duration::from_secs(3_000_000_000);
    Moment { wall: UNIX_EPOCH + monotonic, monotonic }
}

fn read(record: Vec<u8>) -> Result<StoredResponse, RecordError> {
    format().decode(record.into(), &key(), now(), ClockShift::NONE)
}

fn written(response: &StoredResponse) -> Vec<u8> {
    format().encode(response, &key(), ClockShift::NONE)
}

fn record(data: &[u8]) {
    let record = sealed(data);
    let response = match read(record.clone()) {
        Ok(response) => response,
        Err(RecordError::Seal | RecordError::SealKind) if data.get(7) == Some(&0) => panic!("the seal is whole"),
        Err(_) => return,
    };
    let once = written(&response);
    let again = read(once.clone()).expect("it was written just now");
    assert_eq!((again.status(), again.headers()), (response.status(), response.headers()));
    assert_eq!((again.body(), again.keep()), (response.body(), response.keep()));
    assert!(again.tags().eq(response.tags()) && again.same_variant(&response) && again.size() == response.size());
    assert_eq!(written(&again), once, "there is one way to write it");
    let keyed = format().mac([7; 32]).decode(record.clone().into(), &key(), now(), ClockShift::NONE);
    assert_eq!(keyed.err(), Some(RecordError::SealKind), "anybody can make such a seal");
    let mut damaged = record;
    let place = usize::try_from(super::number(data)).unwrap_or_default() % damaged.len();
    damaged[place] ^= 1 << (data.len() % 8);
    assert!(read(damaged).is_err(), "a bit was changed");
}

fn sealed(data: &[u8]) -> Vec<u8> {
    let mut record = data.to_vec();
    let length = |at: usize| record.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes);
    let sections = [28, 32, 36].map(length).into_iter().map(|length| length.unwrap_or_default() as usize);
    let content = record.len().saturating_sub(HEADER + sections.sum::<usize>()) as u64;
    if let Some(place) = record.get_mut(40..HEADER) {
        place.copy_from_slice(&content.to_be_bytes());
    }
    let seal = XxHash3_128::oneshot(&record);
    record.extend_from_slice(&seal.to_be_bytes());
    record
}

fn message(data: &[u8]) {
    let shift = ClockShift::NONE;
    let check = XxHash3_128::oneshot(data).to_be_bytes();
    let bytes = [data, &check[..8]].concat();
    let Ok(message) = PurgeMessage::from_bytes(&bytes, shift) else { return };
    assert_eq!(message.to_bytes(shift), bytes, "there is one way to write it");
    for (name, part) in message.parts() {
        assert_eq!(PurgeMessage::from_bytes(&part.to_bytes(shift), shift).as_ref(), Ok(&part));
        assert_eq!(part.parts(), [(name, part)], "a part is one thing");
    }
    let mut damaged = bytes;
    let place = usize::try_from(super::number(data)).unwrap_or_default() % damaged.len();
    damaged[place] ^= 1 << (data.len() % 8);
    assert!(PurgeMessage::from_bytes(&damaged, shift).is_err(), "a bit was changed");
}
