//! [`CacheKey`]: which requests ask for the same thing. A key is a sequence of parts, each with its kind and its length, so that two
//! requests which differ in any part have different keys, whatever bytes the parts hold.

use std::fmt;

use smallvec::SmallVec;

use crate::pattern::{Meant, Pattern};

/// The longest key. A request whose key would be longer is not cached: nobody asks for such a thing twice.
pub(crate) const LONGEST: usize = 8 * 1024;

/// How many bytes of a key take no memory of their own.
const INLINE: usize = 128;

/// What is stored under one name: authority, path and query, and what the rule adds (fields, cookies, the principal).
///
/// ```
/// use larder::CacheKey;
/// let key = CacheKey::new(b"example.com", "/products", Some("page=2"));
/// assert_ne!(key, CacheKey::new(b"example.com", "/products", Some("")));
/// assert_ne!(key, CacheKey::new(b"example.com", "/products?page=2", None));
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CacheKey {
    bytes: SmallVec<[u8; INLINE]>,
    /// Where the path begins: behind the authority.
    path: u32,
    /// Where authority, path and query end, and what the rule adds begins.
    resource: u32,
}

/// The origin of a request (RFC 9110 §4.3.1), as far as the cache knows it. The scheme is known where the application [says](crate::Scheme) it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin<'a> {
    /// `None` where it is ambiguous: then any is meant.
    pub(crate) authority: Option<&'a [u8]>,
    pub(crate) scheme: Option<&'a [u8]>,
}

/// The kinds of parts. Their numbers are written into keys and so never change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Part {
    Authority = 1,
    Path = 2,
    Query = 3,
    FieldName = 4,
    FieldLine = 5,
    CookieName = 6,
    Cookie = 7,
    Forwarded = 8,
    Partition = 9,
    Scheme = 10,
    Rewritten = 11,
    Search = 12,
    Content = 13,
    Data = 14,
}

impl Part {
    const ALL: [Self; 14] = [
        Self::Authority,
        Self::Path,
        Self::Query,
        Self::FieldName,
        Self::FieldLine,
        Self::CookieName,
        Self::Cookie,
        Self::Forwarded,
        Self::Partition,
        Self::Scheme,
        Self::Rewritten,
        Self::Search,
        Self::Content,
        Self::Data,
    ];

    /// What stands before a value: the kind and the length.
    #[inline]
    fn head(self, length: usize) -> [u8; HEAD] {
        let [a, b, c, d] = saturated(length).to_le_bytes();
        [self as u8, a, b, c, d]
    }
}

/// How many bytes stand before a value.
const HEAD: usize = 5;

/// A value of 4 GiB doesn't arrive: heads are limited long before; lengths are saturated only to be total.
fn saturated(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

impl CacheKey {
    /// The key of a resource, to which nothing is added yet.
    pub fn new(authority: &[u8], path: &str, query: Option<&str>) -> Self {
        let mut key = Self::empty();
        key.write(authority, path, query);
        key
    }

    /// The key of a value in the data cache of this name: no authority, and a path that doesn't begin with a slash, which no request has; `kind` tells
    /// texts from what stands for something else.
    #[cfg(feature = "data")]
    #[inline]
    pub(crate) fn of_data(name: &str, text: &str, kind: &[u8]) -> Self {
        let path = HEAD + name.len() + 1 + text.len();
        let mut bytes = zeros(HEAD + path + HEAD + kind.len());
        // Into its place at once: piece by piece, with a look at the room each time, takes four times as long.
        let rest = written(&mut bytes, &Part::Authority.head(0));
        let rest = written(rest, &Part::Path.head(path - HEAD));
        let rest = written(rest, name.as_bytes());
        let rest = written(rest, b":");
        let rest = written(rest, text.as_bytes());
        let rest = written(rest, &Part::Data.head(kind.len()));
        written(rest, kind);
        Self { bytes, path: saturated(HEAD), resource: saturated(HEAD + path) }
    }

    /// A key that is still to be [written](Self::write).
    pub(crate) fn empty() -> Self {
        Self { bytes: SmallVec::new(), path: 0, resource: 0 }
    }

    /// Names the resource of an [empty](Self::empty) key.
    // Into its place at once: piece by piece, with a look at the room each time, takes several times as long, and every request needs a key.
    #[inline]
    pub(crate) fn write(&mut self, authority: &[u8], path: &str, query: Option<&str>) {
        let path_start = HEAD + authority.len();
        let path_end = path_start + HEAD + path.len();
        let end = query.map_or(path_end, |query| path_end + HEAD + query.len());
        self.bytes = zeros(end);
        let rest = written(&mut self.bytes, &Part::Authority.head(authority.len()));
        let rest = written(rest, authority);
        let rest = written(rest, &Part::Path.head(path.len()));
        let rest = written(rest, path.as_bytes());
        if let Some(query) = query {
            let rest = written(rest, &Part::Query.head(query.len()));
            written(rest, query.as_bytes());
        }
        (self.path, self.resource) = (saturated(path_start), saturated(end));
    }

    /// The same with a host that isn't in lower case yet.
    #[inline]
    pub(crate) fn write_with_host(&mut self, host: &[u8], path: &str, query: Option<&str>) {
        self.write(host, path, query);
        self.bytes[HEAD..HEAD + host.len()].make_ascii_lowercase();
    }

    /// The key that has these [bytes](Self::as_bytes); `None` if they are no key's.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut key = Self { bytes: SmallVec::from_slice(bytes), path: 0, resource: 0 };
        let end = |start: usize, kinds: &[Part]| {
            let (kind, value) = key.part_at(start)?;
            kinds.iter().any(|expected| *expected as u8 == kind).then_some(start + HEAD + value.len())
        };
        let path = end(0, &[Part::Authority])?;
        let path_end = end(path, &[Part::Path])?;
        let resource = end(path_end, &[Part::Query, Part::Search]).unwrap_or(path_end);
        (key.path, key.resource) = (u32::try_from(path).ok()?, u32::try_from(resource).ok()?);
        Some(key)
    }

    /// Adds a part behind the resource.
    pub(crate) fn push(&mut self, part: Part, value: &[u8]) {
        self.bytes.extend_from_slice(&part.head(value.len()));
        self.bytes.extend_from_slice(value);
    }

    /// The whole key.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Authority, path and query: what a write to this URI invalidates.
    pub fn resource(&self) -> &[u8] {
        &self.bytes[..self.resource as usize]
    }

    /// Path and query, on any authority.
    pub(crate) fn path_and_query(&self) -> &[u8] {
        &self.bytes[self.path as usize..self.resource as usize]
    }

    /// The origin, as far as the cache knows it.
    pub(crate) fn origin(&self) -> Origin<'_> {
        let scheme = self.part_at(self.resource as usize).filter(|(part, _)| *part == Part::Scheme as u8);
        Origin { authority: self.part_at(0).map(|(_, authority)| authority), scheme: scheme.map(|(_, scheme)| scheme) }
    }

    /// The kind and the value of the part that begins there.
    fn part_at(&self, start: usize) -> Option<(u8, &[u8])> {
        let (part, rest) = self.bytes.get(start..)?.split_first()?;
        let (length, rest) = rest.split_first_chunk()?;
        Some((*part, rest.get(..u32::from_le_bytes(*length) as usize)?))
    }

    /// All parts in their order.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (Part, &[u8])> {
        let mut start = 0;
        std::iter::from_fn(move || {
            let (kind, value) = self.part_at(start)?;
            start += HEAD + value.len();
            Some((Part::ALL.into_iter().find(|part| *part as u8 == kind)?, value))
        })
    }

    /// The path.
    pub(crate) fn path(&self) -> &[u8] {
        self.part_at(self.path as usize).map_or(&[], |(_, path)| path)
    }

    /// Whether its query was made by what a response said of queries (`No-Vary-Search`), so that it answers others as well.
    pub(crate) fn has_search(&self) -> bool {
        self.part_at(self.path_end()).is_some_and(|(part, _)| part == Part::Search as u8)
    }

    /// The query.
    pub(crate) fn query(&self) -> Option<&str> {
        let (_, query) = self.part_at(self.path_end()).filter(|(part, _)| *part == Part::Query as u8)?;
        std::str::from_utf8(query).ok()
    }

    fn path_end(&self) -> usize {
        self.path as usize + HEAD + self.path().len()
    }

    /// The key of the same request without its query.
    pub(crate) fn without_query(&self) -> Self {
        let mut key = Self { bytes: self.bytes[..self.path_end()].into(), ..*self };
        key.resource = key.length();
        key.bytes.extend_from_slice(&self.bytes[self.resource as usize..]);
        key
    }

    /// The key of the same request with something else in the place of its query.
    pub(crate) fn with_search(&self, search: &[u8]) -> Self {
        let mut key = Self { bytes: self.bytes[..self.path_end()].into(), ..*self };
        key.push(Part::Search, search);
        key.resource = key.length();
        key.bytes.extend_from_slice(&self.bytes[self.resource as usize..]);
        key
    }

    /// Whether anything was added to the resource.
    pub(crate) fn has_additions(&self) -> bool {
        self.bytes.len() > self.resource as usize
    }

    /// Whether it is of a value in a data cache, and of no response.
    #[cfg(any(feature = "admin", all(test, feature = "data")))]
    pub(crate) fn is_data(&self) -> bool {
        self.bytes.get(self.resource as usize) == Some(&(Part::Data as u8))
    }

    /// The partition that it belongs to, if it does.
    pub(crate) fn partition(&self) -> Option<[u8; 16]> {
        let (_, id) = self.parts().find(|(kind, _)| *kind == Part::Partition)?;
        id.try_into().ok()
    }

    fn length(&self) -> u32 {
        saturated(self.bytes.len())
    }
}

/// Bytes to be written over, without memory of their own if they are few.
#[inline]
fn zeros(length: usize) -> SmallVec<[u8; INLINE]> {
    if length <= INLINE { SmallVec::from_buf_and_len([0; INLINE], length) } else { SmallVec::from_elem(0, length) }
}

/// Writes a piece where there is room for it, and gives the room behind it.
#[inline]
fn written<'a>(room: &'a mut [u8], piece: &[u8]) -> &'a mut [u8] {
    let (place, rest) = room.split_at_mut(piece.len());
    place.copy_from_slice(piece);
    rest
}

impl Meant for CacheKey {
    /// Whether a pattern means its path, or path and query; where the query is forgotten, whether it may mean that.
    fn is_meant_by(&self, pattern: &Pattern) -> bool {
        let Ok(path) = std::str::from_utf8(self.path()) else { return true };
        if pattern.is_match(path) {
            return true;
        }
        match self.query() {
            Some(query) => pattern.is_match(&format!("{path}?{query}")),
            None => self.has_search() && pattern.may_continue(&format!("{path}?")),
        }
    }
}

impl fmt::Debug for CacheKey {
    /// Shows authority, path and query; additions may hold secrets, so only their number of bytes is shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let additions = self.bytes.len() - self.resource as usize;
        write!(f, "CacheKey({}, +{additions} bytes)", String::from_utf8_lossy(self.resource()).escape_debug())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn keys_are_equal_only_where_their_parts_are(
            one in (any::<Vec<u8>>(), ".*", proptest::option::of(".*"), proptest::collection::vec(any::<Vec<u8>>(), 0..3)),
            other in (any::<Vec<u8>>(), ".*", proptest::option::of(".*"), proptest::collection::vec(any::<Vec<u8>>(), 0..3)),
        ) {
            let key = |(authority, path, query, lines): &(Vec<u8>, String, Option<String>, Vec<Vec<u8>>)| {
                let mut key = CacheKey::new(authority, path, query.as_deref());
                lines.iter().for_each(|line| key.push(Part::FieldLine, line));
                key
            };
            prop_assert_eq!(one == other, key(&one) == key(&other));
            prop_assert_eq!(one == other, key(&one).as_bytes() == key(&other).as_bytes());
        }

        #[test]
        fn a_key_is_known_by_its_bytes(
            authority: Vec<u8>, path in ".*", query in proptest::option::of(".*"), search: bool,
            lines in proptest::collection::vec(any::<Vec<u8>>(), 0..3), junk: Vec<u8>,
        ) {
            let mut key = CacheKey::new(&authority, &path, query.as_deref());
            if search {
                key = key.with_search(b"rule");
            }
            lines.iter().for_each(|line| key.push(Part::FieldLine, line));
            let again = CacheKey::from_bytes(key.as_bytes()).unwrap();
            prop_assert_eq!(&again, &key);
            prop_assert_eq!(again.has_search(), search);
            let _ = CacheKey::from_bytes(&junk);
        }

        #[cfg(feature = "data")]
        #[test]
        fn a_key_of_data_is_what_its_parts_make_one_by_one(name in "[a-z]{1,64}", text in ".{0,200}", kind: Vec<u8>) {
            let mut expected = CacheKey::new(b"", &format!("{name}:{text}"), None);
            expected.push(Part::Data, &kind);
            prop_assert_eq!(CacheKey::of_data(&name, &text, &kind), expected);
        }

        #[test]
        fn a_host_in_any_case_makes_the_key_of_its_lower_case(host in "[A-Za-z0-9.:]{0,300}") {
            let mut key = CacheKey::empty();
            key.write_with_host(host.as_bytes(), "/P", Some("Q"));
            let expected = CacheKey::new(host.to_ascii_lowercase().as_bytes(), "/P", Some("Q"));
            prop_assert_eq!(key, expected);
        }
    }

    #[test]
    fn a_key_without_its_query_or_with_another() {
        for query in [None, Some(""), Some("a=1&b")] {
            let mut key = CacheKey::new(b"h", "/p", query);
            key.push(Part::Partition, b"x");
            assert_eq!((key.path(), key.query()), (&b"/p"[..], query));
            let mut bare = CacheKey::new(b"h", "/p", None);
            bare.push(Part::Partition, b"x");
            assert_eq!(key.without_query(), bare);
            let search = key.with_search(b"s");
            assert_eq!((search.path(), search.query()), (&b"/p"[..], None));
            assert_eq!((search.without_query(), search.path_and_query().len()), (bare, 5 + 2 + 5 + 1));
            assert!(search.has_additions() && search.origin() == key.origin());
        }
    }

    #[test]
    fn the_origin_is_read_back_from_the_key() {
        let mut key = CacheKey::new(b"h:8080", "/p", Some("q"));
        assert_eq!(key.origin(), Origin { authority: Some(b"h:8080"), scheme: None });
        key.push(Part::Scheme, b"https");
        key.push(Part::Forwarded, b"x");
        assert_eq!(key.origin(), Origin { authority: Some(b"h:8080"), scheme: Some(b"https") });
        let mut key = CacheKey::new(b"", "/", None);
        key.push(Part::Forwarded, b"x");
        assert_eq!(key.origin(), Origin { authority: Some(b""), scheme: None });
    }

    #[test]
    fn a_partition_is_found_among_other_parts_and_nowhere_else() {
        let mut key = CacheKey::new(b"h", "/p", None);
        assert_eq!(key.partition(), None);
        // Bytes of a field that look like a partition are none.
        let mut looks_like_one = vec![Part::Partition as u8, 16, 0, 0, 0];
        looks_like_one.extend_from_slice(&[7; 16]);
        key.push(Part::FieldLine, &looks_like_one);
        assert_eq!(key.partition(), None);
        key.push(Part::Partition, &[8; 16]);
        assert_eq!(key.partition(), Some([8; 16]));
        key.push(Part::FieldLine, b"behind it");
        assert_eq!(key.partition(), Some([8; 16]));
    }

    #[test]
    fn the_parts_of_a_key_can_be_looked_at() {
        let mut key = CacheKey::new(b"h1", "/p", Some("q"));
        assert_eq!(key.path(), b"/p");
        assert_eq!(key.path_and_query(), b"\x02\x02\0\0\0/p\x03\x01\0\0\0q");
        assert_eq!(key.resource(), [b"\x01\x02\0\0\0h1", key.path_and_query()].concat());
        assert!(!key.has_additions());
        key.push(Part::CookieName, b"");
        assert!(key.has_additions());
        assert_eq!(key.as_bytes(), [key.resource(), b"\x06\0\0\0\0"].concat());
    }

    #[test]
    fn the_debug_form_hides_what_rules_add() {
        let mut key = CacheKey::new(b"h", "/p", None);
        key.push(Part::Partition, b"secret");
        let text = format!("{key:?}");
        assert!(!text.contains("secret") && text.contains("/p") && text.ends_with(", +11 bytes)"), "{text}");
    }
}
