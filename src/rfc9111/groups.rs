//! Cache Groups (RFC 9875): names that responses of one origin share, so that a write can make all of them invalid.

use http::{HeaderMap, HeaderName};

use super::structured;

/// `Cache-Groups` (§2): the groups that a response is in.
pub const CACHE_GROUPS: HeaderName = HeaderName::from_static("cache-groups");

/// `Cache-Group-Invalidation` (§3): the groups that a write makes invalid.
pub const CACHE_GROUP_INVALIDATION: HeaderName = HeaderName::from_static("cache-group-invalidation");

/// The groups that a field names: a List of Strings, compared character by character. Parameters mean nothing. A field that is no such List is ignored as a
/// whole, as RFC 9651 §4.2 wants it.
///
/// Which groups a write makes invalid only counts in the response to an unsafe method (§3); that is for the caller to see to.
///
/// ```
/// use larder::rfc9111::groups::{CACHE_GROUPS, named};
/// let mut headers = http::HeaderMap::new();
/// headers.insert(CACHE_GROUPS, r#""prices", "shop";x"#.parse().unwrap());
/// assert_eq!(named(&headers, &CACHE_GROUPS), ["prices", "shop"]);
/// ```
pub fn named(headers: &HeaderMap, field: &HeaderName) -> Vec<String> {
    if !headers.contains_key(field) {
        return Vec::new();
    }
    structured::strings(&structured::joined(headers, field)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn groups_of_a_response() {
        // RFC 9875 §2, RFC 9651 §4.2
        let rows: &[(&[&str], &[&str])] = &[
            (&[], &[]),
            (&[r#""a""#], &["a"]),
            (&[r#""a", "B""#, r#""c";x=1"#], &["a", "B", "c"]),
            (&[r#""a", "a""#], &["a", "a"]),
            // Any member that is no String makes the field none.
            (&["a"], &[]),
            (&[r#""a""#, "b"], &[]),
            (&[r#""a"; "b""#], &[]),
            (&[""], &[]),
        ];
        for (lines, expected) in rows {
            let mut headers = HeaderMap::new();
            for line in *lines {
                headers.append(CACHE_GROUPS, HeaderValue::from_str(line).unwrap());
            }
            assert_eq!(named(&headers, &CACHE_GROUPS), *expected, "{lines:?}");
            assert!(named(&headers, &CACHE_GROUP_INVALIDATION).is_empty());
        }
    }

    #[test]
    fn at_least_32_groups_of_32_characters() {
        // RFC 9875 §2: what must be supported
        let names: Vec<String> = (0..40).map(|n| format!("{n:040}")).collect();
        let line: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
        let mut headers = HeaderMap::new();
        headers.insert(CACHE_GROUPS, line.join(", ").parse().unwrap());
        assert_eq!(named(&headers, &CACHE_GROUPS), names);
    }
}
