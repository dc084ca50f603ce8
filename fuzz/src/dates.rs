//! Dates (RFC 9110 §5.6.7): what is written is read again, in each of the three forms, and what is read can be written.

use std::time::{Duration, UNIX_EPOCH};

use larder::rfc9111::date;

/// 9999-12-31 23:59:59, the last that can be written.
const LAST_SECOND: u64 = 253_402_300_799;

/// The first and the last second that two digits of a year name without a doubt: 1970 and 2069.
const TWO_DIGITS: std::ops::Range<u64> = 0..3_155_760_000;

pub fn check(data: &[u8]) {
    a_number(seconds_of(data));
    a_number(seconds_of(data) % (LAST_SECOND + 1));
    a_text(data);
}

fn seconds_of(data: &[u8]) -> u64 {
    // A text of digits is that number, so that seeds can be read.
    std::str::from_utf8(data).ok().and_then(|text| text.trim().parse().ok()).unwrap_or_else(|| super::number(data))
}

fn a_number(seconds: u64) {
    let seconds = seconds.min(i64::MAX as u64 / 2);
    let time = UNIX_EPOCH + Duration::from_secs(seconds);
    let written = date::format(time);
    let expected = UNIX_EPOCH + Duration::from_secs(seconds.min(LAST_SECOND));
    assert_eq!(date::parse(written.as_bytes()), Some(expected), "{written:?} is read as it was written");
    assert_eq!(written.len(), 29, "IMF-fixdate has one length");
    let fraction = date::format(time + Duration::from_millis(999));
    assert_eq!(fraction, written, "a fraction of a second is cut off");
    if TWO_DIGITS.contains(&seconds) {
        let text = written.to_str().expect("dates are text");
        for other in [rfc850(text), asctime(text)] {
            assert_eq!(date::parse(other.as_bytes()), Some(time), "{other:?} is {text:?}");
        }
    }
}

fn a_text(text: &[u8]) {
    let Some(time) = date::parse(text) else { return };
    let written = date::format(time);
    let seconds = date::unix_seconds(time).min(LAST_SECOND);
    assert_eq!(date::parse(written.as_bytes()), Some(UNIX_EPOCH + Duration::from_secs(seconds)), "{written:?}");
    assert!(text.iter().any(u8::is_ascii_digit), "a date has digits");
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` as `Sunday, 06-Nov-94 08:49:37 GMT`.
fn rfc850(text: &str) -> String {
    let day = match &text[..3] {
        "Mon" => "Monday",
        "Tue" => "Tuesday",
        "Wed" => "Wednesday",
        "Thu" => "Thursday",
        "Fri" => "Friday",
        "Sat" => "Saturday",
        _ => "Sunday",
    };
    format!("{day}, {}-{}-{} {}", &text[5..7], &text[8..11], &text[14..16], &text[17..])
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` as `Sun Nov  6 08:49:37 1994`.
fn asctime(text: &str) -> String {
    let day = text[5..7].trim_start_matches('0');
    format!("{} {} {day:>2} {} {}", &text[..3], &text[8..11], &text[17..25], &text[12..16])
}
