//! Ranges (RFC 9110 §14): parts always lie within the content, are never empty, never hold a byte twice, and are few; plain numbers mean
//! what they say, and a part that contradicts itself says nothing about its whole.

use http::{HeaderMap, HeaderValue};
use larder::rfc9111::range::{MOST, RangeRequest, parse, size_of_whole};

pub fn check(data: &[u8]) {
    let own = super::number(data);
    for length in [0, 1, 10, own, own % 1000, u64::MAX - 1, u64::MAX] {
        any_value(data, length);
        any_value(&[b"bytes=", data].concat(), length);
    }
    any_content_range(data);
    any_content_range(&[b"bytes ", data].concat());
    if data.len() >= 24 {
        let (first, last, length) = (own, super::number(&data[8..]), super::number(&data[16..]));
        for (first, last, length) in [(first, last, length), (first % 50, last % 50, length % 50)] {
            numbers(first, last, length);
            several(first, last, length);
        }
    }
}

fn any_value(value: &[u8], length: u64) {
    let answer = parse(value, length);
    let parts = match &answer {
        RangeRequest::Whole | RangeRequest::Unsatisfiable => &[][..],
        RangeRequest::Part(part) => std::slice::from_ref(part),
        RangeRequest::Parts(parts) => {
            assert!(parts.len() > 1, "one part isn't several");
            parts
        }
    };
    assert!(parts.len() <= MOST, "few");
    assert!(parts.iter().all(|part| part.start < part.end && part.end <= length), "{parts:?} lie in {length}");
    for (n, one) in parts.iter().enumerate() {
        let apart = parts[..n].iter().all(|other| one.end < other.start || other.end < one.start);
        assert!(apart, "no byte is in two parts: {parts:?}");
    }
    if answer != RangeRequest::Whole {
        let padded = [b"\t ", value, b" \t,"].concat();
        assert_eq!(parse(&padded, length), answer, "white space and empty members mean nothing");
        let dashes = value.iter().filter(|b| **b == b'-').count();
        let commas = value.iter().filter(|b| **b == b',').count();
        assert!((1..=MOST).contains(&dashes) && dashes <= commas + 1, "a dash for each range, and no negative number");
    }
}

fn any_content_range(value: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(value) else { return };
    let mut head = HeaderMap::new();
    head.insert("content-range", value);
    let Some(size) = size_of_whole(&head) else { return };
    assert!(size > 0, "nothing has no part");
    head.insert("content-length", HeaderValue::from_static("0"));
    assert_eq!(size_of_whole(&head), None, "no part is empty");
}

fn numbers(first: u64, last: u64, length: u64) {
    let ask = |text: String| parse(text.as_bytes(), length);
    let or_none = |from: u64, to: u64| {
        if from < length { RangeRequest::Part(from..to.min(length)) } else { RangeRequest::Unsatisfiable }
    };
    let closed = if first > last { RangeRequest::Whole } else { or_none(first, last.saturating_add(1)) };
    assert_eq!(ask(format!("bytes={first}-{last}")), closed, "{first}-{last} of {length}");
    assert_eq!(ask(format!("bytes={first}-")), or_none(first, length), "{first}- of {length}");
    let suffix = if first == 0 || length == 0 {
        RangeRequest::Unsatisfiable
    } else {
        RangeRequest::Part(length.saturating_sub(first)..length)
    };
    assert_eq!(ask(format!("bytes=-{first}")), suffix, "-{first} of {length}");
}

/// What was asked for alone is there among others as well.
fn several(first: u64, last: u64, length: u64) {
    let specs = [format!("{first}-"), format!("-{last}"), format!("{last}-{last}")];
    let together = match parse(format!("bytes={}", specs.join(", ")).as_bytes(), length) {
        RangeRequest::Whole => panic!("three valid ranges are served"),
        RangeRequest::Part(part) => vec![part],
        RangeRequest::Parts(parts) => parts,
        RangeRequest::Unsatisfiable => Vec::new(),
    };
    for spec in &specs {
        if let RangeRequest::Part(alone) = parse(format!("bytes={spec}").as_bytes(), length) {
            let holds = together.iter().any(|part| part.start <= alone.start && alone.end <= part.end);
            assert!(holds, "{spec} of {length} in {together:?}");
        }
    }
}
