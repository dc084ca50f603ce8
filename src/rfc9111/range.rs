//! Which part of a stored whole was asked for (RFC 9110 §14). One range, with a first byte or as a suffix; a request for several
//! is answered with the whole, as §14.2 allows.

use std::ops::Range;

use super::list::{digits, trim};

/// The answer of [`parse`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RangeRequest {
    /// No range that larder serves: another unit, several ranges, or junk. Send the whole.
    Whole,
    /// These bytes.
    Part(Range<u64>),
    /// Well-formed, but no byte of the content lies in it: 416.
    Unsatisfiable,
}

/// What a `Range` field value asks of content that is `length` bytes long.
///
/// ```
/// use larder::rfc9111::range::{parse, RangeRequest};
/// assert_eq!(parse(b"bytes=-3", 10), RangeRequest::Part(7..10));
/// ```
pub fn parse(value: &[u8], length: u64) -> RangeRequest {
    let Some(equals) = value.iter().position(|b| *b == b'=') else { return RangeRequest::Whole };
    if !trim(&value[..equals]).eq_ignore_ascii_case(b"bytes") {
        return RangeRequest::Whole;
    }
    let spec = trim(&value[equals + 1..]);
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

#[cfg(test)]
mod tests {
    use super::RangeRequest::{Part, Unsatisfiable, Whole};
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
            ("bytes=0-1,3-4", Whole),
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
}
