//! Targeted cache control (RFC 9213): fields such as `CDN-Cache-Control` that speak to some caches only, and then
//! replace `Cache-Control` and `Expires` for them.
//!
//! Such a field is a Dictionary of Structured Fields (RFC 8941 §3.2). One that is empty or can't be parsed is ignored, as
//! §2.1 wants it; of a known directive with a value of the wrong type the strictest reading is taken.

use http::{HeaderMap, HeaderName};

use super::directives::{ResponseDirectives, Value};
use super::structured::{self, Item};

/// The directives that are meant for this cache, and the field that gave them: the first of `targets` that is present and well-formed,
/// else `Cache-Control` (and then `None`).
///
/// ```
/// use larder::rfc9111::targeted;
/// let mut headers = http::HeaderMap::new();
/// headers.insert("cache-control", "no-store".parse().unwrap());
/// headers.insert("cdn-cache-control", "max-age=60".parse().unwrap());
/// let targets = [http::HeaderName::from_static("cdn-cache-control")];
/// let (said, field) = targeted::directives(&headers, &targets);
/// assert!(!said.no_store && field == Some(&targets[0]));
/// ```
pub fn directives<'t>(headers: &HeaderMap, targets: &'t [HeaderName]) -> (ResponseDirectives, Option<&'t HeaderName>) {
    for target in targets {
        if let Some(said) = parse(headers, target) {
            return (said, Some(target));
        }
    }
    (ResponseDirectives::parse(headers), None)
}

fn parse(headers: &HeaderMap, target: &HeaderName) -> Option<ResponseDirectives> {
    // The common case first: no allocation where the field is absent.
    headers.get(target)?;
    let text = structured::joined(headers, target);
    let mut said = ResponseDirectives::default();
    for (key, value) in structured::dictionary(&text)? {
        match value {
            Item::Boolean(false) => {}
            Item::Boolean(true) => said.take(key, Value::None),
            Item::Integer(digits) => said.take(key, Value::Text(digits)),
            Item::String(_) | Item::InnerList(_) | Item::Other => said.take(key, Value::Text(b"?")),
        }
    }
    Some(said)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderValue;

    use super::*;

    const CDN: HeaderName = HeaderName::from_static("cdn-cache-control");

    fn cdn(value: &str) -> (ResponseDirectives, bool) {
        let mut headers = HeaderMap::new();
        headers.insert("cache-control", HeaderValue::from_static("max-age=7"));
        headers.insert(CDN, HeaderValue::from_str(value).unwrap());
        let targets = [CDN];
        let (said, field) = directives(&headers, &targets);
        (said, field.is_some())
    }

    #[test]
    fn a_targeted_field_replaces_cache_control() {
        // RFC 9213 §2.1, §2.2
        for (value, seconds) in [
            ("max-age=60", 60),
            ("max-age=60;ext=1", 60),
            ("a=(1 \"x\");q=2.5, max-age=60, b=:aGk=:", 60),
            ("a=::, b=:aGk:, c=:aG=:, d=:aGkx:, max-age=60", 60),
            ("a=*tok/en:1, b=\"x\\\"y\\\\\", max-age=60", 60),
            ("a=-1, b=-1.5, c=?0, d=(), max-age=60 \t,\te", 60),
            ("max-age=5, max-age=60", 5),
        ] {
            let (said, used) = cdn(value);
            assert!(used, "{value}");
            assert_eq!(said.max_age, Some(Duration::from_secs(seconds)), "{value}");
        }
        assert!(cdn("no-store").0.no_store && cdn("no-store=?1").0.no_store);
        let (said, used) = cdn("max-age=1, no-store=?0");
        assert!(used && !said.no_store);
    }

    #[test]
    fn one_that_is_no_dictionary_is_ignored() {
        for value in [
            "",
            "  ",
            "MaX-aGe=60",
            "max-age=60,",
            "max-age=60 no-store",
            "max-age=\"60",
            "max-age=1234567890123456",
            "=",
            "a=((1))",
            "a=(1\"x\")",
            "a=(1 2;b=?0x)",
            "a=?2",
            "a=, b",
            "a=;b",
            "a=b c",
            "a=b\"c",
            "a=\"x\\y\"",
            "a=1.2345",
            "a=1234567890123.1",
            "a=1.",
            "a=-",
            "a=:aGk=a:",
            "a=:a:",
            "a=:aGk==:",
            "a=:aG===:",
            "a=:aGkx=:",
        ] {
            let (said, used) = cdn(value);
            assert!(!used, "{value}");
            assert_eq!(said.max_age, Some(Duration::from_secs(7)), "{value}");
        }
    }

    #[test]
    fn a_value_of_the_wrong_type_is_read_strictly() {
        for value in ["max-age=60.5", "max-age=\"60\"", "max-age=-60", "max-age=abc", "max-age"] {
            assert_eq!(cdn(value).0.max_age, Some(Duration::ZERO), "{value}");
        }
    }

    #[test]
    fn the_first_target_present_wins() {
        let mut headers = HeaderMap::new();
        headers.insert(CDN, HeaderValue::from_static("max-age=60"));
        headers.insert("larder-cache-control", HeaderValue::from_static("max-age=90"));
        let own = HeaderName::from_static("larder-cache-control");
        assert_eq!(directives(&headers, &[own.clone(), CDN]).0.max_age, Some(Duration::from_secs(90)));
        assert_eq!(directives(&headers, &[CDN, own]).0.max_age, Some(Duration::from_secs(60)));
    }
}
