//! Targeted fields (RFC 9213 §2.1): used where they are a Dictionary of Structured Fields, and ignored where they aren't, in the eyes of
//! another parser; and one more line never makes a cache less careful.

use std::time::Duration;

use http::header::CACHE_CONTROL;
use http::{HeaderName, HeaderValue};
use larder::rfc9111::list::trim;
use larder::rfc9111::targeted::directives;

const CDN: HeaderName = HeaderName::from_static("cdn-cache-control");
const FIVE: Duration = Duration::from_secs(5);

pub fn check(data: &[u8]) {
    let lines = super::values(data);
    let mut headers = super::field(&CDN, &lines);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let targets = [CDN];
    if data.contains(&b'%') {
        return; // Whether a Display String is UTF-8 once decoded is not looked into, since none is of use here.
    }
    let (said, used) = directives(&headers, &targets);
    assert_eq!(used.is_some(), !lines.is_empty() && is_dictionary(&lines), "{lines:?}");
    if used.is_none() {
        assert!(said.no_store, "without it, Cache-Control counts");
        return;
    }
    let with = |extra: &'static str| {
        let mut headers = headers.clone();
        headers.append(CDN, HeaderValue::from_static(extra));
        directives(&headers, &targets).0
    };
    assert_eq!(with("some-extension=(1 2);a=b"), said, "an unknown member means nothing");
    let forbidden = with("no-store");
    assert!(forbidden.no_store && forbidden.max_age == said.max_age, "one that forbids does");
    assert_eq!(with("max-age=\"x\"").max_age, Some(Duration::ZERO), "the wrong type is the strictest value");
    assert_eq!(
        with("max-age=5").max_age,
        Some(said.max_age.map_or(FIVE, |before| before.min(FIVE))),
        "the shortest counts"
    );
}

/// Whether the lines, joined, are a Dictionary with a member, as RFC 9651 has it.
fn is_dictionary(lines: &[HeaderValue]) -> bool {
    // White space around a line is no part of its value (RFC 9110 §5.5), so none arrives here from a connection.
    let text = lines.iter().map(|line| trim(line.as_bytes())).collect::<Vec<_>>().join(&b", "[..]);
    sfv::Parser::new(&text).parse::<sfv::Dictionary>().is_ok_and(|found| !found.is_empty())
}
