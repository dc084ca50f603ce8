//! What of a key and a head is shown. Values that may be credentials are not, also to who has the token: what is shown gets into logs, tickets and
//! screenshots.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde::Serialize;

use crate::key::{CacheKey, Part};

/// What stands in place of a value.
pub(super) const REDACTED: &str = "(redacted)";

/// Such a part of a key begins with the digest of the rule that was learned; behind it is what the rule leaves of the query.
const SEARCH_RULE: usize = 32;

/// A key in parts.
#[derive(Debug, Serialize)]
pub(super) struct ShownKey {
    host: String,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<String>,
    /// The digest of a principal's name, under a key that each process makes anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<String>,
    /// What the rule and the request add.
    additions: Vec<Addition>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Addition {
    kind: &'static str,
    value: String,
}

impl ShownKey {
    pub(super) fn of(key: &CacheKey) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut shown =
            Self { host: String::new(), path: text(key.path()), query: None, partition: None, additions: Vec::new() };
        for (kind, value) in key.parts() {
            let (kind, value) = match kind {
                Part::Path => continue,
                Part::Authority => {
                    shown.host = text(value);
                    continue;
                }
                Part::Query => {
                    shown.query = Some(query(&text(value)));
                    continue;
                }
                Part::Partition => {
                    shown.partition = Some(hex(value));
                    continue;
                }
                Part::FieldName => ("field", text(value)),
                Part::FieldLine => ("field-line", REDACTED.into()),
                Part::CookieName => ("cookie", text(value)),
                Part::Cookie => ("cookie-value", REDACTED.into()),
                Part::Forwarded => ("forwarded", text(value)),
                Part::Scheme => ("scheme", text(value)),
                Part::Rewritten => ("rewritten", target(&text(value))),
                Part::Search => ("no-vary-search", hex(value.get(..SEARCH_RULE).unwrap_or_default())),
                Part::Content => ("content", hex(value)),
                Part::Data => ("data", text(value)),
            };
            shown.additions.push(Addition { kind, value });
        }
        shown
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn target(target: &str) -> String {
    match target.split_once('?') {
        Some((path, rest)) => format!("{path}?{}", query(rest)),
        None => target.into(),
    }
}

/// Parameters by which requests are usually authorised: RFC 6750 §2.3, RFC 6749, signed links, and habits.
const SECRET_PARAMETERS: [&str; 18] = [
    "access_token",
    "api_key",
    "apikey",
    "api-key",
    "auth",
    "client_secret",
    "code",
    "id_token",
    "jwt",
    "key",
    "password",
    "refresh_token",
    "secret",
    "session",
    "sig",
    "signature",
    "token",
    "x-amz-signature",
];

/// A query without the values of parameters that usually authorise, and without what has no value: that is one itself (`/verify?8f3a...`, which may end in
/// the `=` of Base64).
fn query(query: &str) -> String {
    let shown = query.split('&').map(|pair| {
        let Some((name, value)) = pair.split_once('=') else { return nameless(pair) };
        if value.bytes().all(|byte| byte == b'=') {
            return nameless(pair);
        }
        let decoded = form_urlencoded::parse(name.as_bytes()).next().map(|(name, _)| name.to_ascii_lowercase());
        let is_secret = decoded.is_some_and(|name| SECRET_PARAMETERS.contains(&name.as_str()));
        if is_secret { Cow::Owned(format!("{name}={REDACTED}")) } else { Cow::Borrowed(pair) }
    });
    shown.collect::<Vec<_>>().join("&")
}

fn nameless(pair: &str) -> Cow<'_, str> {
    if pair.is_empty() { Cow::Borrowed(pair) } else { Cow::Borrowed(REDACTED) }
}

/// A field of a stored head.
#[derive(Debug, Serialize)]
pub(super) struct Field {
    name: String,
    value: String,
}

/// Fields that may hold what authorises somebody.
const SECRET_FIELDS: [HeaderName; 8] = [
    header::SET_COOKIE,
    header::COOKIE,
    header::AUTHORIZATION,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("set-cookie2"),
    HeaderName::from_static("authentication-info"),
    HeaderName::from_static("proxy-authentication-info"),
    HeaderName::from_static("x-auth-token"),
];

/// The fields of a stored head.
pub(super) fn fields(head: &HeaderMap) -> Vec<Field> {
    let shown = |name: &HeaderName, value: &HeaderValue| match name {
        name if SECRET_FIELDS.contains(name) || value.is_sensitive() => REDACTED.to_owned(),
        &header::LOCATION | &header::CONTENT_LOCATION => target(&String::from_utf8_lossy(value.as_bytes())),
        _ => String::from_utf8_lossy(value.as_bytes()).into_owned(),
    };
    head.iter().map(|(name, value)| Field { name: name.to_string(), value: shown(name, value) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_shows_no_value_that_may_be_a_credential() {
        let mut key = CacheKey::new(
            b"shop.test",
            "/a",
            Some("page=2&access_token=S3CRET&%74oken=S3CRET&S3CRET&&S3CRET=&S3CRET=="),
        );
        for (part, value) in [
            (Part::Scheme, &b"https"[..]),
            (Part::FieldName, b"x-api-key"),
            (Part::FieldLine, b"S3CRET"),
            (Part::CookieName, b"session"),
            (Part::Cookie, b"S3CRET"),
            (Part::Rewritten, b"/b?sig=S3CRET&x=1"),
            (Part::Partition, &[0xAB; 16]),
            (Part::Search, b"the digest of a rule of 32 bytes12345678a=S3CRET"),
        ] {
            key.push(part, value);
        }
        let shown = serde_json::to_value(ShownKey::of(&key)).unwrap();
        assert!(!shown.to_string().contains("S3CRET"), "{shown}");
        assert_eq!((shown["host"].as_str(), shown["path"].as_str()), (Some("shop.test"), Some("/a")));
        assert_eq!(
            shown["query"],
            "page=2&access_token=(redacted)&%74oken=(redacted)&(redacted)&&(redacted)&(redacted)"
        );
        assert_eq!(shown["partition"], "ab".repeat(16));
        let kinds: Vec<_> =
            shown["additions"].as_array().unwrap().iter().map(|part| part["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["scheme", "field", "field-line", "cookie", "cookie-value", "rewritten", "no-vary-search"]);
        assert_eq!(shown["additions"][6]["value"], hex(b"the digest of a rule of 32 bytes"));
        assert_eq!(shown["additions"][5]["value"], "/b?sig=(redacted)&x=1");
    }

    #[test]
    fn a_head_shows_no_cookie() {
        let mut head = HeaderMap::new();
        head.insert("set-cookie", HeaderValue::from_static("session=S3CRET"));
        head.insert("location", HeaderValue::from_static("/next?code=S3CRET"));
        head.insert("content-type", HeaderValue::from_static("text/html"));
        let mut sensitive = HeaderValue::from_static("S3CRET");
        sensitive.set_sensitive(true);
        head.insert("x-own", sensitive);
        let shown = serde_json::to_string(&fields(&head)).unwrap();
        assert!(!shown.contains("S3CRET") && shown.contains("text/html") && shown.contains("/next?code="), "{shown}");
    }
}
