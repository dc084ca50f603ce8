mod arbitrary;
mod fixtures;

use std::time::UNIX_EPOCH;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use proptest::prelude::*;
use smallvec::SmallVec;

use self::arbitrary::responses;
use super::*;
use crate::cached::Cached;
use crate::head::SharedHeads;
use crate::outcome::OWN_FIELDS;
use crate::purge_message::PurgeMessage;
use crate::regime::Regime;
use crate::response::{Origin, Stamp};
use crate::rfc9111::reuse::Terms;
use crate::rfc9111::vary::Matching;
use crate::tags::Tags;
use crate::upkeep::{Upkeep, Wanted};
use crate::variance::Variance;

fn key() -> CacheKey {
    CacheKey::new(b"shop.example", "/products/1", Some("lang=de"))
}

fn moment(nanoseconds: u64) -> Moment {
    let monotonic = Duration::from_nanos(nanoseconds);
    Moment { wall: UNIX_EPOCH + Duration::from_secs(1_767_225_600) + monotonic, monotonic }
}

/// All of a response that its record has to say, as one text.
fn said(response: &StoredResponse) -> String {
    let StoredResponse {
        status,
        head,
        body,
        form,
        terms,
        received,
        variance,
        origin,
        downstream,
        stamp,
        regime,
        keep,
        charge: _,
        upkeep,
        route: _,
    } = response;
    let upkeep = upkeep.as_deref().map(Upkeep::wanted);
    format!(
        "{status:?} {head:#?} {:?} {body:?} {form:?} {terms:?} {received:?} {variance:?} {origin:?} {downstream:?} {stamp:?} {regime:?} {keep:?} {upkeep:?}",
        response.headers()
    )
}

fn keyed() -> RecordFormat {
    RecordFormat::default().mac([7; 32])
}

/// A usual response.
fn usual() -> StoredResponse {
    let mut map = HeaderMap::new();
    for (name, value) in [
        ("content-type", "application/json"),
        ("cache-control", "max-age=60"),
        ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("etag", "\"a\""),
        ("vary", "accept-language"),
    ] {
        map.append(name, HeaderValue::from_static(value));
    }
    let (head, body) = SharedHeads::default().store(&map, &OWN_FIELDS, Bytes::from_static(b"{\"id\": 1}"));
    let mut stamp = Stamp::new(5, 1, 2).in_partition(Some(3));
    stamp.tags = Some(Arc::new(Tags::of_parts([1, 2].into(), "a:b", false)));
    StoredResponse {
        status: StatusCode::OK,
        head,
        body,
        form: Form::Settled,
        terms: Terms { lifetime: Duration::from_secs(60), ..Terms::default() },
        received: moment(1_000_000_001),
        variance: Arc::new(Variance::of(
            SmallVec::from_iter([header::ACCEPT_LANGUAGE]),
            &HeaderMap::new(),
            Matching::Careful,
        )),
        origin: Origin { handler: Some(Arc::new(Cached::by_rule().tag("a:b"))), ..Origin::default() },
        downstream: None,
        stamp,
        regime: Regime { whole: 1, audience: 2 },
        keep: Duration::from_secs(3600),
        charge: None,
        upkeep: Upkeep::begun(
            Wanted { sliding: Some(Duration::from_secs(9)), beta: Some(1.0), within: None, cost: 5 },
            7,
        ),
        route: Arc::default(),
    }
}

fn later(response: &StoredResponse, by: Duration) -> Moment {
    let Moment { wall, monotonic } = response.received;
    Moment { wall: wall + by, monotonic: monotonic + by }
}

proptest! {
    #[test]
    fn a_response_is_read_as_it_was_written(
        response in responses(), age in 0..u64::MAX / 4, keyed_too: bool, ahead in 0..1_000_000_000_000_u64, is_behind: bool,
    ) {
        let format = if keyed_too { keyed() } else { RecordFormat::default() };
        let (own, theirs) = (moment(ahead).wall, moment(0).wall);
        let shift = if is_behind { ClockShift::between(own, theirs) } else { ClockShift::between(theirs, own) };
        let record = format.encode(&response, &key(), shift);
        let now = later(&response, Duration::from_nanos(age));
        // Twice: the second time its head is known.
        for _ in 0..2 {
            let read = format.decode(record.clone().into(), &key(), now, shift).expect("it is whole");
            prop_assert_eq!(said(&read), said(&response));
            prop_assert_eq!(read.age(now), response.age(now));
            prop_assert!(read.same_variant(&response));
            prop_assert_eq!(format.encode(&read, &key(), shift), &record[..]);
        }
    }

    /// As a bug of the writer, or somebody without a key to forge, would make them.
    #[test]
    fn a_record_that_says_anything_under_a_whole_seal_is_refused_or_can_be_used(
        response in responses(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let format = RecordFormat::default();
        let mut record = format.encode(&response, &key(), ClockShift::NONE);
        record.truncate(record.len() - SEAL);
        for (place, byte) in changes {
            let place = HEADER + key().as_bytes().len() + place.index(record.len() - HEADER - key().as_bytes().len());
            record[place] = byte;
        }
        let seal = Seal::Checksum.of(&record);
        record.extend_from_slice(&seal);
        let now = later(&response, Duration::from_secs(1));
        if let Ok(read) = format.decode(record.into(), &key(), now, ClockShift::NONE) {
            let _ = (read.headers(), read.origin_head(), read.size(), read.age(now), read.lifetime_if_used(now), read.validators());
            let again = format.encode(&read, &key(), ClockShift::NONE);
            let read_again = format.decode(again.into(), &key(), now, ClockShift::NONE).expect("it was written just now");
            prop_assert_eq!(read_again.headers(), read.headers());
        }
    }

    #[test]
    fn junk_is_no_record(junk: Vec<u8>) {
        for format in [RecordFormat::default(), keyed()] {
            prop_assert!(format.decode(junk.clone().into(), &key(), moment(0), ClockShift::NONE).is_err());
        }
        prop_assert!(PurgeMessage::from_bytes(&junk, ClockShift::NONE).is_err());
    }
}

#[test]
fn a_record_in_which_anything_was_changed_is_refused() {
    let response = usual();
    let now = later(&response, Duration::from_secs(1));
    for format in [RecordFormat::default(), keyed()] {
        let record = format.encode(&response, &key(), ClockShift::NONE);
        let read = |record: Vec<u8>| format.decode(record.into(), &key(), now, ClockShift::NONE);
        assert!(read(record.clone()).is_ok());
        for place in 0..record.len() {
            let bits = (0..8).map(|bit| record[place] ^ 1 << bit);
            for byte in bits.chain([!record[place], record[place].wrapping_add(1), record[place].wrapping_sub(1)]) {
                let mut damaged = record.clone();
                damaged[place] = byte;
                assert!(read(damaged).is_err(), "{byte} at {place}");
            }
            assert!(read(record[..place].to_vec()).is_err(), "cut off at {place}");
            assert!(read(record[place + 1..].to_vec()).is_err(), "without its beginning up to {place}");
        }
        for junk in [&b"\0"[..], b"LRDR", &record] {
            assert_eq!(read([&record, junk].concat()).err(), Some(RecordError::Length), "{junk:?}");
        }
    }
}

#[test]
fn why_a_record_is_refused() {
    let response = usual();
    let format = RecordFormat::default();
    let record = format.encode(&response, &key(), ClockShift::NONE);
    let now = later(&response, Duration::ZERO);
    let with = |place: usize, byte: u8| {
        let mut record = record.clone();
        record[place] = byte;
        record
    };
    let rows = [
        (vec![], RecordError::Foreign),
        (b"<html>".to_vec(), RecordError::Foreign),
        (b"LRDR".to_vec(), RecordError::Length),
        (with(4, 2), RecordError::Version(2)),
        (with(4, 0), RecordError::Version(0)),
        (with(5, 2), RecordError::Kind(2)),
        (with(6, 0x80), RecordError::Flags(0x8000)),
        (with(7, 2), RecordError::Flags(2)),
        (with(7, 1), RecordError::SealKind),
        (with(28, 0xff), RecordError::Length),
        (with(40, 0xff), RecordError::Length),
        (with(HEADER, 9), RecordError::Seal),
        (keyed().encode(&response, &key(), ClockShift::NONE), RecordError::SealKind),
    ];
    for (record, expected) in rows {
        let refused = format.decode(record.clone().into(), &key(), now, ClockShift::NONE);
        assert_eq!(refused.err(), Some(expected), "{record:?}");
        assert!(!expected.as_str().is_empty());
    }
    let other = RecordFormat::default().mac([8; 32]).encode(&response, &key(), ClockShift::NONE);
    assert_eq!(keyed().decode(other.into(), &key(), now, ClockShift::NONE).err(), Some(RecordError::Seal));
    assert_eq!(keyed().decode(record.into(), &key(), now, ClockShift::NONE).err(), Some(RecordError::SealKind));
}

#[test]
fn a_record_under_the_key_of_another_is_refused() {
    let mut others = [key(), key(), CacheKey::new(b"shop.example", "/products/2", Some("lang=de")), key()];
    others[1].push(crate::key::Part::Partition, &[8; 16]);
    others[3].push(crate::key::Part::Partition, &[9; 16]);
    let response = usual();
    let now = later(&response, Duration::ZERO);
    for format in [RecordFormat::default(), keyed()] {
        for written in &others {
            for asked in &others {
                let record = format.encode(&response, written, ClockShift::NONE);
                let read = format.decode(record.into(), asked, now, ClockShift::NONE);
                assert_eq!(read.err(), (written != asked).then_some(RecordError::Key), "{written:?} {asked:?}");
            }
        }
    }
}

#[test]
fn what_began_later_is_larger_where_scripts_look() {
    let order = |number: u64, nanoseconds: u64| {
        let mut response = usual();
        (response.stamp, response.received) = (Stamp::new(number, 0, 0), moment(nanoseconds));
        let record = RecordFormat::default().encode(&response, &key(), ClockShift::NONE);
        record[RecordFormat::NUMBER.start..RecordFormat::RECEIVED.end].to_vec()
    };
    let millisecond = 1_000_000;
    let ascending = [(0, 9 * millisecond), (1, 0), (1, millisecond), (1, 300 * millisecond), (256, 0), (1 << 32, 0)];
    let orders: Vec<_> = ascending.into_iter().map(|(number, at)| order(number, at)).collect();
    assert!(orders.is_sorted() && orders[0] < orders[1], "{orders:?}");
    const { assert!(RecordFormat::RECEIVED.end <= 32) };
}

#[test]
fn soft_marks_and_looks_at_purges_are_not_believed() {
    let response = usual();
    response.stamp.hold(Some(Duration::from_secs(3)), 99);
    let record = RecordFormat::default().encode(&response, &key(), ClockShift::NONE);
    let read = RecordFormat::default().decode(record.into(), &key(), response.received, ClockShift::NONE).unwrap();
    assert_eq!((read.stamp.number, read.stamp.verified(), read.stamp.stale_from()), (5, 5, None));
}

#[test]
fn use_of_one_copy_is_not_use_of_another() {
    let response = usual();
    response.upkeep.as_ref().unwrap().touch(Duration::from_secs(30));
    let record = RecordFormat::default().encode(&response, &key(), ClockShift::NONE);
    let read = RecordFormat::default().decode(record.into(), &key(), response.received, ClockShift::NONE).unwrap();
    assert_eq!(read.upkeep.unwrap().idle_end(), Some(Duration::from_secs(9)));
}

#[test]
fn machines_whose_clocks_disagree_agree_on_ages() {
    let minutes = |n: u64| Duration::from_secs(60 * n);
    let response = usual();
    let store = response.received.wall + minutes(60);
    let record = RecordFormat::default().encode(&response, &key(), ClockShift::between(response.received.wall, store));
    for (own, monotonic) in [(minutes(55), 5), (minutes(65), 1_000_000), (minutes(60), 0)] {
        // Ten seconds later, by the clock of another machine.
        let wall = response.received.wall + own;
        let shift = ClockShift::between(wall, store + Duration::from_secs(10));
        let now = Moment { wall, monotonic: Duration::from_secs(monotonic) };
        let read = RecordFormat::default().decode(record.clone().into(), &key(), now, shift).unwrap();
        assert_eq!(read.age(now), Duration::from_secs(10), "{own:?}");
        let set_back = Moment { wall: UNIX_EPOCH, monotonic: now.monotonic + minutes(1) };
        assert!(read.age(set_back) >= minutes(1), "it ages though the clock was set back");
    }
}

#[test]
fn what_comes_from_the_future_is_of_no_known_age() {
    let response = usual();
    let record = Bytes::from(RecordFormat::default().encode(&response, &key(), ClockShift::NONE));
    let early = |by| Moment { wall: response.received.wall - by, monotonic: Duration::from_secs(9) };
    let read = |now| RecordFormat::default().decode(record.clone(), &key(), now, ClockShift::NONE);
    let nearly = early(MOST_AHEAD);
    let young = read(nearly).unwrap();
    assert_eq!(young.age(nearly), Duration::ZERO);
    assert_eq!(young.age(Moment { monotonic: Duration::from_secs(12), ..nearly }), Duration::from_secs(3));
    assert_eq!(read(early(MOST_AHEAD + Duration::from_nanos(1))).err(), Some(RecordError::Future));
}

#[test]
fn content_is_a_slice_of_its_record_and_the_rest_is_shared() {
    let format = RecordFormat::default();
    let response = usual();
    let record = Bytes::from(format.encode(&response, &key(), ClockShift::NONE));
    let read = || format.decode(record.clone(), &key(), response.received, ClockShift::NONE).unwrap();
    let (one, other) = (read(), read());
    let within = record.as_ptr_range();
    assert!(within.contains(&one.body.as_ptr()), "not copied");
    assert!(std::ptr::eq(one.head.shared(), other.head.shared()) && Arc::ptr_eq(&one.variance, &other.variance));
    drop((one, other));
    assert!(record.is_unique(), "what was learned keeps no record in memory");
}

#[test]
fn a_copy_in_memory_of_its_own_keeps_no_record_in_memory() {
    let mut response = usual();
    let said = (header::CACHE_CONTROL, HeaderValue::from_static("max-age=5"));
    response.origin.replaced = Some(Arc::new(HeaderMap::from_iter([said])));
    let record = Bytes::from(RecordFormat::default().encode(&response, &key(), ClockShift::NONE));
    let read = RecordFormat::default().decode(record.clone(), &key(), response.received, ClockShift::NONE).unwrap();
    let copy = read.in_memory_of_its_own(&SharedHeads::default());
    assert_eq!((copy.origin_head(), &copy.body), (read.origin_head(), &read.body));
    drop(read);
    assert!(record.is_unique());
}

#[test]
fn what_is_learned_is_bounded() {
    let format = RecordFormat::default();
    for n in 0..3000 {
        let mut response = usual();
        let mut head = response.headers();
        head.insert("x-number", HeaderValue::from(n));
        (response.head, _) = SharedHeads::default().store(&head, &OWN_FIELDS, Bytes::new());
        let record = Bytes::from(format.encode(&response, &key(), ClockShift::NONE));
        for _ in 0..=n % 5 {
            let read = format.decode(record.clone(), &key(), response.received, ClockShift::NONE).unwrap();
            assert_eq!(read.headers(), head);
        }
    }
    assert!(format.learned.heads.len() <= 1024);
}

#[test]
fn the_key_of_a_seal_is_not_shown() {
    let text = format!("{:?}", RecordFormat::default().mac(*b"a secret of 32 bytes, as you see"));
    assert!(!text.contains("secret") && !text.contains("97, 32, 115"), "{text}");
}

/// RFC 4231 §4.2 and §4.3, cut to 128 bits; §4.6 is such a one itself.
#[test]
fn seals_under_a_key_are_those_of_rfc_4231() {
    let rows: [(&[u8], &[u8], u128); 3] = [
        (&[0x0b; 20], b"Hi There", 0xb034_4c61_d8db_3853_5ca8_afce_af0b_f12b),
        (b"Jefe", b"what do ya want for nothing?", 0x5bdc_c146_bf60_754e_6a04_2426_0895_75c7),
        (&[0x0c; 20], b"Test With Truncation", 0xa3b6_1674_7310_0ee0_6e0c_796c_2955_552b),
    ];
    for (key, text, expected) in rows {
        let seal = Seal::keyed(key);
        assert_eq!(seal.of(text), expected.to_be_bytes());
        assert!(seal.fits(text, &expected.to_be_bytes()) && !seal.fits(text, &expected.to_be_bytes()[..15]));
    }
}
