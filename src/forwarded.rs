//! What a proxy in front says about how the client addressed it. A handler may build links from it, so it belongs to the key whenever it is
//! present: an honest proxy always says the same, and a forged field poisons only its own key.

use http::HeaderMap;

use crate::key::{CacheKey, Part};
use crate::rfc9111::list::{members, trim};

/// Fields that are keyed as they are. `X-Forwarded-For` and `X-Real-IP` differ for each client and are no business of a link.
const PLAIN: [&str; 4] = ["x-forwarded-host", "x-forwarded-proto", "x-forwarded-port", "x-forwarded-prefix"];

pub(crate) fn extend_key(key: &mut CacheKey, headers: &HeaderMap) {
    for name in PLAIN {
        for line in headers.get_all(name) {
            key.push(Part::FieldName, name.as_bytes());
            key.push(Part::FieldLine, line.as_bytes());
        }
    }
    for line in headers.get_all(http::header::FORWARDED) {
        for element in members(line.as_bytes()) {
            push_forwarded(key, element);
        }
    }
}

/// The `host` and `proto` of an element of `Forwarded` (RFC 7239 §4); the others name clients and proxies.
fn push_forwarded(key: &mut CacheKey, element: &[u8]) {
    for pair in element.split(|b| *b == b';').map(trim) {
        let name = pair.split(|b| *b == b'=').next().unwrap_or_default();
        if name.eq_ignore_ascii_case(b"host") || name.eq_ignore_ascii_case(b"proto") {
            key.push(Part::Forwarded, pair);
        }
    }
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
        extend_key(&mut key, &headers);
        key
    }

    #[test]
    fn addresses_of_clients_dont_count() {
        let one = key(&[("forwarded", "for=1.2.3.4; proto=https;host=a, for=9.9.9.9")]);
        assert_eq!(one, key(&[("forwarded", "for=5.6.7.8;proto=https; host=a")]));
        assert_eq!(key(&[("x-forwarded-for", "1.2.3.4")]), key(&[]));
    }

    #[test]
    fn names_of_hosts_do() {
        let keys = [
            key(&[]),
            key(&[("forwarded", "host=a")]),
            key(&[("forwarded", "host=b")]),
            key(&[("x-forwarded-host", "a")]),
            key(&[("x-forwarded-prefix", "a")]),
            key(&[("x-forwarded-host", "a"), ("x-forwarded-host", "b")]),
            key(&[("x-forwarded-host", "a, b")]),
        ];
        for (n, one) in keys.iter().enumerate() {
            assert!(keys[n + 1..].iter().all(|other| one != other), "{one:?}");
        }
    }
}
