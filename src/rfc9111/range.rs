//! Which parts of a stored whole were asked for (RFC 9110 §14), and which part a 206 says it is (§14.4).

use std::ops::Range;

use http::{HeaderMap, header};

use super::list::{digits, trim};

/// The answer of [`parse`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RangeRequest {
    /// No range that larder serves: another unit, more than [`MOST`] ranges, or junk. Send the whole.
    Whole,
    /// These bytes.
    Part(Range<u64>),
    /// These bytes, in this order: two parts or more, none of which touch or lie close to each other.
    Parts(Vec<Range<u64>>),
    /// Well-formed, but no byte of the content lies in it: 416.
    Unsatisfiable,
}

/// The most ranges that one request may ask for; who asks for more gets the whole. "A server that supports range requests MAY ignore or reject
/// a Range header field that contains ... many small ranges" (§14.2, §17.15).
pub const MOST: usize = 16;

/// Ranges with fewer bytes between them become one: what stands before a part takes about as many (§15.3.7.2, "a gap that is smaller than the overhead").
pub const NEAR: u64 = 128;

/// What a `Range` field value asks of content that is `length` bytes long.
///
/// Ranges that overlap or are [near](NEAR) to each other become one, at the place of the first of them; those in which no byte lies are left out
/// (§14.2). So no byte is sent twice, and all parts together are never more than the whole.
///
/// ```
/// use larder::rfc9111::range::{parse, RangeRequest};
/// assert_eq!(parse(b"bytes=-3", 10), RangeRequest::Part(7..10));
/// assert_eq!(parse(b"bytes=-3, 0-99, 50-149", 1000), RangeRequest::Parts(vec![997..1000, 0..150]));
/// ```
pub fn parse(value: &[u8], length: u64) -> RangeRequest {
    let Some(equals) = value.iter().position(|b| *b == b'=') else { return RangeRequest::Whole };
    if !trim(&value[..equals]).eq_ignore_ascii_case(b"bytes") {
        return RangeRequest::Whole;
    }
    // RFC 9110 §5.6.1: empty members of a list mean nothing.
    let mut specs = value[equals + 1..].split(|b| *b == b',').map(trim).filter(|spec| !spec.is_empty());
    let Some(first) = specs.next() else { return RangeRequest::Whole };
    let first = one(first, length);
    let Some(second) = specs.next() else { return first };
    let mut parts = Vec::with_capacity(2);
    for (n, spec) in [first, one(second, length)].into_iter().chain(specs.map(|spec| one(spec, length))).enumerate() {
        match spec {
            RangeRequest::Part(part) if n < MOST => join(&mut parts, part),
            RangeRequest::Unsatisfiable if n < MOST => {}
            // §14.1.1: one invalid range makes the field invalid.
            _ => return RangeRequest::Whole,
        }
    }
    match (parts.pop(), parts.is_empty()) {
        (None, _) => RangeRequest::Unsatisfiable,
        (Some(only), true) => RangeRequest::Part(only),
        (Some(last), false) => {
            parts.push(last);
            RangeRequest::Parts(parts)
        }
    }
}

/// Adds a part to those before it, together with those of them that it touches.
fn join(parts: &mut Vec<Range<u64>>, mut part: Range<u64>) {
    let mut place = parts.len();
    let is_near = |one: &Range<u64>, other: &Range<u64>| {
        one.start <= other.end.saturating_add(NEAR) && other.start <= one.end.saturating_add(NEAR)
    };
    while let Some(at) = parts.iter().position(|other| is_near(other, &part)) {
        let other = parts.remove(at);
        part = part.start.min(other.start)..part.end.max(other.end);
        place = place.min(at);
    }
    parts.insert(place.min(parts.len()), part);
}

/// What one range of the list asks.
fn one(spec: &[u8], length: u64) -> RangeRequest {
    let Some(dash) = spec.iter().position(|b| *b == b'-') else { return RangeRequest::Whole };
    match (&spec[..dash], &spec[dash + 1..]) {
        (b"", suffix) => match digits(suffix) {
            None => RangeRequest::Whole,
            Some(0) => RangeRequest::Unsatisfiable,
            // "If the selected representation is shorter than the specified suffix-length, the entire representation is used."
            Some(_) if length == 0 => RangeRequest::Unsatisfiable,
            Some(wanted) => RangeRequest::Part(length.saturating_sub(wanted)..length),
        },
        (first, last) => match (digits(first), last.is_empty(), digits(last)) {
            (Some(first), true, _) => part(first, u64::MAX, length),
            (Some(first), false, Some(last)) if first <= last => part(first, last, length),
            _ => RangeRequest::Whole,
        },
    }
}

fn part(first: u64, last: u64, length: u64) -> RangeRequest {
    if first >= length {
        return RangeRequest::Unsatisfiable;
    }
    RangeRequest::Part(first..last.saturating_add(1).min(length))
}

/// How long the whole is that a 206 is a part of, if it says so and doesn't contradict itself (§14.4): one `Content-Range`, of bytes, that lies
/// within the size that it names and is as long as `Content-Length` says, where that is there.
///
/// ```
/// use larder::rfc9111::range::size_of_whole;
/// let mut head = http::HeaderMap::new();
/// head.insert("content-range", "bytes 0-4/10".parse().unwrap());
/// assert_eq!(size_of_whole(&head), Some(10));
/// head.insert("content-length", "6".parse().unwrap());
/// assert_eq!(size_of_whole(&head), None);
/// ```
pub fn size_of_whole(head: &HeaderMap) -> Option<u64> {
    let mut lines = head.get_all(header::CONTENT_RANGE).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return None };
    let (unit, range) = line.as_bytes().split_at_checked("bytes ".len())?;
    if !unit.eq_ignore_ascii_case(b"bytes ") {
        return None;
    }
    let mut ends = range.split(|b| *b == b'/');
    let (Some(range), Some(size), None) = (ends.next(), ends.next(), ends.next()) else { return None };
    let size = digits(size)?;
    let mut ends = range.split(|b| *b == b'-');
    let (Some(first), Some(last), None) = (ends.next(), ends.next(), ends.next()) else { return None };
    let (first, last) = (digits(first)?, digits(last)?);
    let announced = head.get_all(header::CONTENT_LENGTH).iter();
    let agrees = first <= last
        && last < size
        && announced.map(|line| digits(line.as_bytes())).all(|length| length == Some(last - first + 1));
    agrees.then_some(size)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::RangeRequest::{Part, Parts, Unsatisfiable, Whole};
    use super::*;

    #[test]
    fn of_ten_bytes() {
        // RFC 9110 §14.1.2, §14.2
        let rows = [
            ("bytes=0-1", Part(0..2)),
            ("bytes=1-", Part(1..10)),
            ("bytes=-1", Part(9..10)),
            ("bytes=-100", Part(0..10)),
            ("bytes=0-99999999999999999999999", Part(0..10)),
            ("Bytes = 2-3 ", Part(2..4)),
            ("bytes=10-", Unsatisfiable),
            ("bytes=99999999999999999999999-", Unsatisfiable),
            ("bytes=-0", Unsatisfiable),
            ("bytes=3-2", Whole),
            ("bytes=0-1,", Part(0..2)),
            ("bytes=,, 0-1 ,", Part(0..2)),
            ("bytes=,", Whole),
            // §15.3.7.2: one part for what is close together
            ("bytes=0-1,3-4", Part(0..5)),
            ("bytes=8-,0-0", Part(0..10)),
            // §14.1.1: one that is junk, and the field is
            ("bytes=0-1,3-2", Whole),
            ("bytes=0-1,x", Whole),
            // §14.2: what lies outside is left out
            ("bytes=0-1,10-", Part(0..2)),
            ("bytes=10-,-0,99-100", Unsatisfiable),
            ("bytes=a-b", Whole),
            ("bytes=-", Whole),
            ("bytes=--1", Whole),
            ("bytes=5", Whole),
            ("bytes=", Whole),
            ("items=0-1", Whole),
            ("", Whole),
        ];
        for (value, expected) in rows {
            assert_eq!(parse(value.as_bytes(), 10), expected, "{value}");
        }
    }

    #[test]
    fn of_nothing() {
        assert_eq!(parse(b"bytes=-5", 0), Unsatisfiable);
        assert_eq!(parse(b"bytes=0-", 0), Unsatisfiable);
    }

    #[test]
    fn several_of_a_thousand_bytes() {
        // RFC 9110 §14.1.2, §14.2, §15.3.7.2
        let rows = [
            ("bytes=0-99,500-599", Parts(vec![0..100, 500..600])),
            ("bytes=500-599,0-99", Parts(vec![500..600, 0..100])),
            ("bytes=-1, 0-0", Parts(vec![999..1000, 0..1])),
            ("bytes=0-0,300-300,600-600", Parts(vec![0..1, 300..301, 600..601])),
            ("bytes=900-,0-0,2000-", Parts(vec![900..1000, 0..1])),
            ("bytes=0-99,50-149", Part(0..150)),
            ("bytes=0-0,129-129", Part(0..130)),
            ("bytes=0-0,130-130", Parts(vec![0..1, 130..131])),
            // the third closes the gap between the others
            ("bytes=0-99,800-899,90-810", Part(0..900)),
            ("bytes=900-,0-99,400-499,80-410", Parts(vec![900..1000, 0..500])),
            ("bytes=0-,0-,0-", Part(0..1000)),
        ];
        for (value, expected) in rows {
            assert_eq!(parse(value.as_bytes(), 1000), expected, "{value}");
        }
    }

    #[test]
    fn more_than_a_few_get_the_whole() {
        // RFC 9110 §17.15
        let many =
            |n: u64| format!("bytes={}", (0..n).map(|i| format!("{0}-{0}", i * 1000)).collect::<Vec<_>>().join(","));
        let RangeRequest::Parts(parts) = parse(many(16).as_bytes(), 1 << 20) else { panic!("sixteen are served") };
        assert_eq!((parts.len(), &parts[15]), (16, &(15_000..15_001)));
        assert_eq!(parse(many(17).as_bytes(), 1 << 20), Whole);
        assert_eq!(parse(many(17).as_bytes(), 1), Whole, "those outside count as well");
        assert_eq!(parse("bytes=0-,".repeat(9).replace(",bytes=", ",").as_bytes(), 10), Part(0..10));
    }

    proptest! {
        #[test]
        fn no_byte_outside_none_twice_and_all_that_were_asked_for(
            specs in prop::collection::vec((0..5000u64, prop::option::of(0..2000u64), any::<bool>()), 1..20),
            length in 0..5000u64,
        ) {
            let text = |(first, more, suffix): &(u64, Option<u64>, bool)| match (suffix, more) {
                (true, _) => format!("-{first}"),
                (false, Some(more)) => format!("{first}-{}", first + more),
                (false, None) => format!("{first}-"),
            };
            let asked: Vec<_> = specs.iter().map(text).collect();
            let single = |spec: &String| match parse(format!("bytes={spec}").as_bytes(), length) {
                Part(part) => Some(part),
                _ => None,
            };
            let satisfiable: Vec<_> = asked.iter().filter_map(single).collect();
            let parts = match parse(format!("bytes={}", asked.join(",")).as_bytes(), length) {
                Whole => {
                    prop_assert!(specs.len() > MOST);
                    return Ok(());
                }
                Unsatisfiable => Vec::new(),
                Part(part) => vec![part],
                Parts(parts) => {
                    prop_assert!(parts.len() > 1);
                    parts
                }
            };
            prop_assert!(specs.len() <= MOST && parts.len() <= satisfiable.len());
            prop_assert!(parts.iter().all(|part| part.start < part.end && part.end <= length));
            prop_assert!(parts.iter().map(|part| part.end - part.start).sum::<u64>() <= length);
            let place = |asked: &Range<u64>| parts.iter().position(|part| part.start <= asked.start && asked.end <= part.end);
            let places: Vec<_> = satisfiable.iter().map(place).collect();
            prop_assert!(places.iter().all(Option::is_some), "{asked:?} in {parts:?}");
            // As asked: the parts stand in the order in which the first range of each was named.
            let mut firsts = Vec::new();
            places.iter().flatten().for_each(|place| if !firsts.contains(place) { firsts.push(*place) });
            prop_assert!(firsts.is_sorted(), "{asked:?} in {parts:?}");
        }
    }

    #[test]
    fn what_a_part_says_of_its_whole() {
        // RFC 9110 §14.4
        type Fields = &'static [(&'static str, &'static str)];
        let rows: &[(Fields, Option<u64>)] = &[
            (&[("content-range", "bytes 0-4/10")], Some(10)),
            (&[("content-range", "Bytes 9-9/10"), ("content-length", "1")], Some(10)),
            (&[("content-range", "bytes 0-4/10"), ("content-length", "6")], None),
            (&[("content-range", "bytes 0-4/10"), ("content-length", "x")], None),
            (&[("content-range", "bytes 0-10/10")], None),
            (&[("content-range", "bytes 4-3/10")], None),
            (&[("content-range", "bytes 0-4/*")], None),
            (&[("content-range", "bytes */10")], None),
            (&[("content-range", "bytes 0-4")], None),
            (&[("content-range", "bytes 0-4/10/10")], None),
            (&[("content-range", "lines 0-4/10")], None),
            (&[("content-range", "bytes")], None),
            (&[("content-range", "bytes 0-4/10"), ("content-range", "bytes 0-4/10")], None),
            (&[], None),
        ];
        for (fields, expected) in rows {
            let mut head = HeaderMap::new();
            for (name, value) in *fields {
                head.append(*name, HeaderValue::from_static(value));
            }
            assert_eq!(size_of_whole(&head), *expected, "{fields:?}");
        }
    }
}
