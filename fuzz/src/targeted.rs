//! Targeted fields (RFC 9213 §2.1): used where they are a Dictionary of Structured Fields, and ignored where they aren't, in the eyes of
//! another parser; and one more line never makes a cache less careful.

use http::header::CACHE_CONTROL;
use http::{HeaderName, HeaderValue};
use larder::rfc9111::directives::ResponseDirectives;
use larder::rfc9111::targeted::directives;
use sfv::visitor::Ignored;

const CDN: HeaderName = HeaderName::from_static("cdn-cache-control");

pub fn check(data: &[u8]) {
    let lines = super::values(data);
    let mut headers = super::field(&CDN, &lines);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let targets = [CDN];
    let (said, used) = directives(&headers, &targets);
    assert_eq!(used.is_some(), !lines.is_empty() && is_dictionary(&lines), "{lines:?}");
    if used.is_none() {
        assert!(said.no_store, "without it, Cache-Control counts");
        return;
    }
    // A member that is no directive changes nothing; one that forbids does.
    let with = |extra: &'static str| {
        let mut headers = headers.clone();
        headers.append(CDN, HeaderValue::from_static(extra));
        directives(&headers, &targets).0
    };
    assert_eq!(with("some-extension=(1 2);a=b"), said, "an unknown member means nothing");
    assert_eq!(with("no-store"), { let mut more = said.clone(); more.no_store = true; more });
    assert_eq!(with("max-age=\"x\"").max_age, Some(std::time::Duration::ZERO), "the wrong type is the strictest value");
    assert_ne!(said, { let mut other = ResponseDirectives::default(); other.max_age = Some(std::time::Duration::MAX); other });
}

/// Whether the lines, joined, are a Dictionary with a member, as RFC 8941 has it.
fn is_dictionary(lines: &[HeaderValue]) -> bool {
    let text = lines.iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b", "[..]);
    let _ = Ignored;
    sfv::Parser::new(&text).with_version(sfv::Version::Rfc8941).parse::<sfv::Dictionary>().is_ok_and(|found| !found.is_empty())
}
