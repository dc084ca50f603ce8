//! Ranges (RFC 9110 §14): a part always lies within the content and is never empty, and plain numbers mean what they say.

use larder::rfc9111::range::{RangeRequest, parse};

pub fn check(data: &[u8]) {
    let own = super::number(data);
    for length in [0, 1, 10, own, own % 1000, u64::MAX - 1, u64::MAX] {
        any_value(data, length);
        any_value(&[b"bytes=", data].concat(), length);
    }
    if data.len() >= 24 {
        let (first, last, length) = (own, super::number(&data[8..]), super::number(&data[16..]));
        for (first, last, length) in [(first, last, length), (first % 50, last % 50, length % 50)] {
            numbers(first, last, length);
        }
    }
}

fn any_value(value: &[u8], length: u64) {
    let answer = parse(value, length);
    if let RangeRequest::Part(part) = &answer {
        assert!(part.start < part.end && part.end <= length, "{part:?} lies in {length}");
    }
    if length == 0 {
        assert!(!matches!(answer, RangeRequest::Part(_)), "nothing has no part");
    }
    if answer != RangeRequest::Whole {
        let padded = [b"\t ", value, b" \t"].concat();
        assert_eq!(parse(&padded, length), answer, "white space around a value means nothing");
        assert_eq!(value.iter().filter(|b| **b == b'-').count(), 1, "one range, and no negative number");
        assert!(!value.contains(&b','), "several ranges get the whole");
    }
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
