//! [`SentFields`]: the fields of a request as its client sent them, for when the request itself is with the handler. Few of them are ever looked at, so they are in one
//! piece of memory: a map is made only where somebody needs one.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use smallvec::SmallVec;

use crate::rfc9111::validation::CONDITIONS;

/// The lines of all fields, in their order.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct SentFields {
    /// Of each line the lengths of name and value, and both.
    lines: SmallVec<[u8; INLINE]>,
    /// Whether there is a condition or a range among them.
    has_conditions: bool,
}

/// How many bytes take no memory of their own.
const INLINE: usize = 256;

/// How many bytes say the two lengths.
const LENGTHS: usize = 8;

impl SentFields {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let size = headers.iter().map(|(name, value)| LENGTHS + name.as_str().len() + value.len()).sum();
        let (mut lines, mut has_conditions) = (SmallVec::with_capacity(size), false);
        for (name, value) in headers {
            has_conditions |= *name == header::RANGE || CONDITIONS_OF_REQUESTS.contains(name);
            let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
            for part in [name, value] {
                // A field of 4 GiB doesn't arrive.
                lines.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
            }
            lines.extend_from_slice(name);
            lines.extend_from_slice(value);
        }
        Self { lines, has_conditions }
    }

    /// Whether the client has conditions or wants a range.
    pub(crate) fn has_conditions(&self) -> bool {
        self.has_conditions
    }

    /// The line of a field, or that there is none; `None` where there are several.
    pub(crate) fn at_most_one_line(&self, name: &HeaderName) -> Option<Option<&[u8]>> {
        let mut lines = self.iter().filter(|(other, _)| *other == name.as_str().as_bytes()).map(|(_, value)| value);
        let first = lines.next();
        lines.next().is_none().then_some(first)
    }

    pub(crate) fn has(&self, name: &HeaderName) -> bool {
        self.at_most_one_line(name) != Some(None)
    }

    /// The same without these.
    pub(crate) fn without(&self, names: &[HeaderName]) -> Self {
        let mut map = self.to_map();
        names.iter().for_each(|name| drop(map.remove(name)));
        Self::of(&map)
    }

    pub(crate) fn to_map(&self) -> HeaderMap {
        let field = |(name, value)| HeaderName::from_bytes(name).ok().zip(HeaderValue::from_bytes(value).ok());
        let mut map = HeaderMap::new();
        self.iter().filter_map(field).for_each(|(name, value)| _ = map.append(name, value));
        map
    }

    fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut rest = &self.lines[..];
        std::iter::from_fn(move || {
            let (name, behind) = rest.split_first_chunk()?;
            let (value, behind) = behind.split_first_chunk()?;
            let [name, value] = [name, value].map(|length| u32::from_le_bytes(*length) as usize);
            let (name, behind) = behind.split_at_checked(name)?;
            let (value, behind) = behind.split_at_checked(value)?;
            rest = behind;
            Some((name, value))
        })
    }
}

impl fmt::Debug for SentFields {
    /// There may be credentials in them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SentFields").field("bytes", &self.lines.len()).finish_non_exhaustive()
    }
}

// In one place: a constant is made anew for each look.
static CONDITIONS_OF_REQUESTS: [HeaderName; 5] = CONDITIONS;

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static [u8])]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        map
    }

    #[test]
    fn they_are_what_the_client_sent() {
        let sent = headers(&[("host", b"h"), ("x-a", b"1"), ("accept", b""), ("x-a", b"\xff2")]);
        let fields = SentFields::of(&sent);
        assert_eq!((fields.to_map(), fields.has_conditions()), (sent, false));
        let line = |name| fields.at_most_one_line(&HeaderName::from_static(name));
        assert_eq!(line("host"), Some(Some(&b"h"[..])));
        assert_eq!(line("accept"), Some(Some(&b""[..])));
        assert_eq!((line("x-b"), line("x-a")), (Some(None), None), "absent, and in two lines");
        let has = |name| fields.has(&HeaderName::from_static(name));
        assert!(has("x-a") && has("accept") && !has("x-b"));
        assert_eq!(SentFields::of(&HeaderMap::new()).to_map(), HeaderMap::new());
    }

    #[test]
    fn conditions_and_ranges_are_known() {
        for name in CONDITIONS.into_iter().chain([header::RANGE]) {
            let mut sent = headers(&[("host", b"h")]);
            sent.insert(&name, HeaderValue::from_static("x"));
            let fields = SentFields::of(&sent);
            assert!(fields.has_conditions(), "{name}");
            assert_eq!(fields.without(&[name]), SentFields::of(&headers(&[("host", b"h")])));
        }
    }
}
