//! What a proxy in front says about how the client addressed it. A handler may build links from it, so it belongs to the key whenever it is
//! present: an honest proxy always says the same, and a forged field poisons only its own key.

use http::HeaderMap;
use smallvec::SmallVec;

use crate::key::{CacheKey, Part};
use crate::rfc9111::list::trim;

/// Fields that are keyed as they are. `X-Forwarded-For` and `X-Real-IP` differ for each client and are no business of a link.
const PLAIN: [&str; 4] = ["x-forwarded-host", "x-forwarded-proto", "x-forwarded-port", "x-forwarded-prefix"];

/// Likewise, but so seldom that nobody looks for them unless one is there.
const RARE: [&str; 13] = [
    "front-end-https",
    "x-envoy-original-path",
    "x-forwarded-path",
    "x-forwarded-protocol",
    "x-forwarded-scheme",
    "x-forwarded-server",
    "x-forwarded-ssl",
    "x-host",
    "x-http-host-override",
    "x-original-host",
    "x-scheme",
    "x-script-name",
    "x-url-scheme",
];

/// Adds what is there to the key; `rare` if one of the [rare](RARE) fields is.
pub(crate) fn extend_key(key: &mut CacheKey, headers: &HeaderMap, rare: bool) {
    for name in PLAIN.into_iter().chain(RARE.into_iter().filter(|_| rare)) {
        for line in headers.get_all(name) {
            key.push(Part::FieldName, name.as_bytes());
            key.push(Part::FieldLine, line.as_bytes());
        }
    }
    for line in headers.get_all(http::header::FORWARDED) {
        key.push(Part::FieldName, b"forwarded");
        // Every comma and semicolon counts, in quotes or not, since not every handler minds quotes.
        for element in line.as_bytes().split(|b| *b == b',') {
            push_element(key, element);
        }
    }
}

/// An element of `Forwarded` without the addresses of clients and proxies (RFC 7239 §4). An element that held nothing else still counts:
/// a handler that reads the first element, or the last, finds no host there.
fn push_element(key: &mut CacheKey, element: &[u8]) {
    let mut kept: SmallVec<[u8; 64]> = SmallVec::new();
    for pair in element.split(|b| *b == b';').filter(|pair| !is_address(pair)) {
        kept.extend_from_slice(pair);
        kept.push(b';');
    }
    key.push(Part::Forwarded, &kept);
}

/// `for` or `by`, unless a quote is left open, in which the rest of the element may lie.
fn is_address(pair: &[u8]) -> bool {
    let name = trim(pair.split(|b| *b == b'=').next().unwrap_or_default());
    let quotes = pair.iter().filter(|b| **b == b'"').count();
    (name.eq_ignore_ascii_case(b"for") || name.eq_ignore_ascii_case(b"by")) && quotes % 2 == 0
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn key(fields: &[(&'static str, &'static str)]) -> CacheKey {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let mut key = CacheKey::new(b"h", "/", None);
        let facts = crate::request::RequestFacts::read(&headers);
        extend_key(&mut key, &headers, facts.forwarded_rarely);
        key
    }

    #[test]
    fn addresses_of_clients_dont_count() {
        let one = key(&[("forwarded", "for=1.2.3.4;proto=https;host=a, for=9.9.9.9;by=_x")]);
        assert_eq!(one, key(&[("forwarded", "For=\"[::1]:80\";proto=https;host=a,for=5.6.7.8")]));
        assert_eq!(key(&[("x-forwarded-for", "1.2.3.4")]), key(&[]));
    }

    #[test]
    fn names_of_hosts_do() {
        let keys = [
            key(&[]),
            key(&[("forwarded", "host=a")]),
            key(&[("forwarded", "host=b")]),
            key(&[("forwarded", "host =b")]),
            key(&[("forwarded", "for=x, host=b")]),
            key(&[("forwarded", "host=b, for=x")]),
            key(&[("forwarded", "for=\",\";host=b")]),
            key(&[("forwarded", "host=a;proto=b")]),
            key(&[("forwarded", "host=a, proto=b")]),
            key(&[("forwarded", "host=a"), ("forwarded", "proto=b")]),
            key(&[("x-forwarded-host", "a")]),
            key(&[("x-forwarded-prefix", "a")]),
            key(&[("x-forwarded-host", "a"), ("x-forwarded-host", "b")]),
            key(&[("x-forwarded-host", "a, b")]),
        ];
        let rare = RARE.map(|name| key(&[(name, "a")]));
        let keys = [&keys[..], &rare].concat();
        for (n, one) in keys.iter().enumerate() {
            assert!(keys[n + 1..].iter().all(|other| one != other), "{one:?}");
        }
    }
}
