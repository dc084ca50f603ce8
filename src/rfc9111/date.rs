//! HTTP dates (RFC 9110 §5.6.7): the three forms in, IMF-fixdate out. Anything else is no date at all.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

/// The latest time that IMF-fixdate can write: 9999-12-31 23:59:59.
const LAST_SECOND: u64 = 253_402_300_799;

/// The date that a field value spells, in any of the three forms; `None` if it spells none.
pub fn parse(value: &[u8]) -> Option<SystemTime> {
    httpdate::parse_http_date(std::str::from_utf8(value).ok()?).ok()
}

/// The date of a field that must occur once; `None` if it is missing, repeated or malformed.
pub fn field(headers: &HeaderMap, name: HeaderName) -> Option<SystemTime> {
    let mut lines = headers.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (Some(only), None) => parse(only.as_bytes()),
        _ => None,
    }
}

/// `time` as IMF-fixdate, its fraction of a second cut off. Times that the form can't write are moved to the nearest that it can.
pub fn format(time: SystemTime) -> HeaderValue {
    let seconds = unix_seconds(time).min(LAST_SECOND);
    let date = httpdate::HttpDate::from(UNIX_EPOCH + Duration::from_secs(seconds));
    let mut text = Text::default();
    let written = write!(text, "{date}").ok().and_then(|()| HeaderValue::from_bytes(&text.0).ok());
    written.unwrap_or(HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"))
}

/// A text that is written without memory of its own.
#[derive(Default)]
struct Text(SmallVec<[u8; 32]>);

impl Write for Text {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// Whole seconds since 1970; what lies before counts as 1970.
pub fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_forms_name_the_same_second() {
        // RFC 9110 §5.6.7
        let expected = UNIX_EPOCH + Duration::from_secs(784_111_777);
        for text in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(parse(text.as_bytes()), Some(expected), "{text}");
        }
        assert_eq!(format(expected), "Sun, 06 Nov 1994 08:49:37 GMT");
    }

    #[test]
    fn anything_else_is_no_date() {
        for text in [
            "",
            "0",
            "-1",
            "foo",
            "Thu, 18 Aug 2050 02:01:18 UTC",
            "Thu, 18 Aug 2050 02:01:18 GMT junk",
            "Sun, 06 Nov 99999999 08:49:37 GMT",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(parse(b"\xff\xfe"), None);
    }

    #[test]
    fn times_out_of_range_are_written_as_the_nearest() {
        assert_eq!(format(UNIX_EPOCH - Duration::from_secs(5)), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(format(UNIX_EPOCH + Duration::from_secs(LAST_SECOND * 2)), "Fri, 31 Dec 9999 23:59:59 GMT");
    }
}
