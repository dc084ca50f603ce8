//! Conditions both ways (RFC 9111 §4.3, RFC 9110 §13): the one that goes upstream for a stale response, what a client's say about a
//! stored one, and what a 304 or a HEAD changes in it.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::list::trim;
use super::{date, fields};

/// An entity tag (RFC 9110 §8.8.3). Values that aren't quoted as they should be are kept as they are, and equal only themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntityTag<'a> {
    /// Whether it is marked as weak.
    pub weak: bool,
    /// What is compared, with its quotes.
    pub opaque: &'a [u8],
}

impl<'a> EntityTag<'a> {
    /// Reads the value of an `ETag` field.
    pub fn parse(value: &'a [u8]) -> Self {
        match value {
            [b'W', b'/', opaque @ ..] => Self { weak: true, opaque },
            opaque => Self { weak: false, opaque },
        }
    }

    /// The tag of a response, if it has exactly one.
    pub fn of(headers: &'a HeaderMap) -> Option<Self> {
        let mut lines = headers.get_all(header::ETAG).iter();
        match (lines.next(), lines.next()) {
            (Some(only), None) => Some(Self::parse(only.as_bytes())),
            _ => None,
        }
    }

    /// "two entity tags are equivalent if both are not weak and their opaque-tags match" (RFC 9110 §8.8.3.2).
    pub fn strongly_equals(self, other: EntityTag<'_>) -> bool {
        !self.weak && !other.weak && self.opaque == other.opaque
    }

    /// "two entity tags are equivalent if their opaque-tags match, regardless of either or both being weak".
    pub fn weakly_equals(self, other: EntityTag<'_>) -> bool {
        self.opaque == other.opaque
    }
}

/// The validators of a stored response as conditions see them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Validators<'a> {
    /// Its entity tag.
    pub etag: Option<EntityTag<'a>>,
    /// Its `Last-Modified`.
    pub last_modified: Option<SystemTime>,
    /// Its `Date`.
    pub date: Option<SystemTime>,
}

impl<'a> Validators<'a> {
    /// Those of a response's head.
    pub fn of(headers: &'a HeaderMap) -> Self {
        Self {
            etag: EntityTag::of(headers),
            last_modified: date::field(headers, header::LAST_MODIFIED),
            date: date::field(headers, header::DATE),
        }
    }
}

/// What a request's conditions say about a 200 response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// Send it; and its `Range`, if any, counts or not.
    Proceed {
        /// Whether `If-Range` lets the `Range` field count; true where there is no `If-Range`.
        range: bool,
    },
    /// 304.
    NotModified,
    /// 412.
    Failed,
}

/// The names of the request fields that [`evaluate`] and [`range`](super::range) read.
pub const CONDITIONS: [HeaderName; 5] =
    [header::IF_MATCH, header::IF_UNMODIFIED_SINCE, header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE, header::IF_RANGE];

/// Evaluates the conditions of a GET or HEAD, in the order of RFC 9110 §13.2.2:
///
/// 1. `If-Match`, else
/// 2. `If-Unmodified-Since`: 412 where they don't hold;
/// 3. `If-None-Match`, else
/// 4. `If-Modified-Since`: 304 where nothing changed;
/// 5. `If-Range`: whether the range counts.
///
/// ```
/// use larder::rfc9111::validation::{evaluate, Precondition, Validators};
/// let mut request = http::HeaderMap::new();
/// request.insert("if-none-match", r#""b", W/"a""#.parse().unwrap());
/// let mut stored = http::HeaderMap::new();
/// stored.insert("etag", r#""a""#.parse().unwrap());
/// assert_eq!(evaluate(&request, Validators::of(&stored)), Precondition::NotModified);
/// ```
pub fn evaluate(request: &HeaderMap, stored: Validators<'_>) -> Precondition {
    if request.contains_key(header::IF_MATCH) {
        let equal = |tag: EntityTag<'_>| stored.etag.is_some_and(|stored| stored.strongly_equals(tag));
        if !any_matches(request, header::IF_MATCH, equal) {
            return Precondition::Failed;
        }
    } else if let Some(since) = date::field(request, header::IF_UNMODIFIED_SINCE)
        && stored.last_modified.is_some_and(|modified| modified > since)
    {
        return Precondition::Failed;
    }
    if request.contains_key(header::IF_NONE_MATCH) {
        let equal = |tag: EntityTag<'_>| stored.etag.is_some_and(|stored| stored.weakly_equals(tag));
        if any_matches(request, header::IF_NONE_MATCH, equal) {
            return Precondition::NotModified;
        }
    } else if let Some(since) = date::field(request, header::IF_MODIFIED_SINCE)
        // RFC 9111 §4.3.2: without Last-Modified, Date takes its place.
        && stored.last_modified.or(stored.date).is_some_and(|modified| modified <= since)
    {
        return Precondition::NotModified;
    }
    Precondition::Proceed { range: if_range_holds(request, stored) }
}

/// RFC 9110 §13.1.5: a strong tag, or the very date of a `Last-Modified` that is strong in the sense of §8.8.2.2.
fn if_range_holds(request: &HeaderMap, stored: Validators<'_>) -> bool {
    let mut lines = request.get_all(header::IF_RANGE).iter();
    let Some(condition) = lines.next() else { return true };
    if lines.next().is_some() {
        return false; // one condition, or none that anybody could rely on
    }
    let condition = condition.as_bytes();
    match date::parse(condition) {
        Some(since) => stored.last_modified.is_some_and(|modified| {
            let settled = stored.date.is_some_and(|date| date >= modified + Duration::from_secs(1));
            modified == since && settled
        }),
        None => stored.etag.is_some_and(|etag| etag.strongly_equals(EntityTag::parse(condition))),
    }
}

/// Whether `*` or any tag of the request's list field is `equal` to the stored one.
fn any_matches(request: &HeaderMap, name: HeaderName, equal: impl Fn(EntityTag<'_>) -> bool) -> bool {
    request.get_all(name).iter().map(HeaderValue::as_bytes).any(|list| trim(list) == b"*" || tags(list).any(&equal))
}

/// The entity tags of a list. Quotes hide commas, but unlike in a quoted string there are no escapes: `"\"` is a tag (RFC 9110 §8.8.3).
fn tags(list: &[u8]) -> impl Iterator<Item = EntityTag<'_>> {
    let mut rest = list;
    std::iter::from_fn(move || {
        while let [b' ' | b'\t' | b',', after @ ..] = rest {
            rest = after;
        }
        if rest.is_empty() {
            return None;
        }
        let start = if rest.starts_with(b"W/") { 2 } else { 0 };
        let end = match rest.get(start) {
            Some(b'"') => rest[start + 1..].iter().position(|b| *b == b'"').map(|at| start + at + 2),
            _ => rest.iter().position(|b| *b == b','),
        };
        let (tag, after) = rest.split_at(end.unwrap_or(rest.len()));
        rest = after;
        Some(EntityTag::parse(trim(tag)))
    })
}

/// Adds the conditions that ask the origin whether a stored response is still good (§4.3.1), after removing the client's own.
///
/// `stored` is the head as the origin sent it: a validator that the cache made itself would mean nothing there. False if there is none.
pub fn make_conditional(request: &mut HeaderMap, stored: &HeaderMap) -> bool {
    strip_conditions(request);
    let mut conditional = false;
    for (condition, validator) in
        [(header::IF_NONE_MATCH, header::ETAG), (header::IF_MODIFIED_SINCE, header::LAST_MODIFIED)]
    {
        let mut lines = stored.get_all(validator).iter();
        if let (Some(value), None) = (lines.next(), lines.next()) {
            request.insert(condition, value.clone());
            conditional = true;
        }
    }
    conditional
}

/// Removes the client's conditions, which the cache evaluates itself.
pub fn strip_conditions(request: &mut HeaderMap) {
    for name in CONDITIONS {
        request.remove(name);
    }
}

/// Whether a 304 speaks about this stored response (§4.3.4): if it names an entity tag, that must be the stored one's.
pub fn confirms(stored: &HeaderMap, not_modified: &HeaderMap) -> bool {
    match (EntityTag::of(stored), EntityTag::of(not_modified)) {
        (Some(stored), Some(named)) => stored.weakly_equals(named),
        (None, Some(named)) => named.weak,
        (_, None) => true,
    }
}

/// What the answer to a HEAD says about the content of a stored response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadSays {
    /// It is still the same.
    Same,
    /// It is another one now.
    Other,
    /// What it names is the same, but there is no validator among it. §4.3.5 takes that for agreement too; yet a length, or nothing at all, hardly
    /// proves that nothing changed.
    NotMuch,
    /// It isn't about the content.
    Nothing,
}

/// Whether the answer to a HEAD is about the stored response (§4.3.5): validators, length and coding that it names are the stored ones.
///
/// ```
/// use larder::rfc9111::validation::{HeadSays, head_says};
/// let mut stored = http::HeaderMap::new();
/// stored.insert("etag", "\"a\"".parse().unwrap());
/// assert_eq!(head_says(&stored, 7, &stored), HeadSays::Same);
/// let mut head = stored.clone();
/// head.insert("content-length", "8".parse().unwrap());
/// assert_eq!(head_says(&stored, 7, &head), HeadSays::Other);
/// ```
pub fn head_says(stored: &HeaderMap, stored_length: u64, head: &HeaderMap) -> HeadSays {
    let same = |name: HeaderName| {
        let lines = head.get_all(&name).iter();
        !head.contains_key(&name) || lines.eq(stored.get_all(&name).iter())
    };
    let is_length = |line: &HeaderValue| super::list::digits(line.as_bytes()) == Some(stored_length);
    let agrees = same(header::ETAG)
        && same(header::LAST_MODIFIED)
        // What is coded otherwise is another content, though neither validator nor length may say so.
        && same(header::CONTENT_ENCODING)
        && head.get_all(header::CONTENT_LENGTH).iter().all(is_length);
    let proves = head.contains_key(header::ETAG) || head.contains_key(header::LAST_MODIFIED);
    match (agrees, proves) {
        (false, _) => HeadSays::Other,
        (true, true) => HeadSays::Same,
        (true, false) => HeadSays::NotMuch,
    }
}

/// Updates a stored head with the fields of a 304 or of the answer to a HEAD (§3.2).
///
/// Left as they are: fields that say how the stored content is framed, coded or hashed, since that content stays; and the entity tag,
/// which names it.
pub fn freshen(stored: &mut HeaderMap, update: &HeaderMap) {
    let nominated = fields::connection_options(update);
    for name in update.keys() {
        if describes_content(name) || fields::is_hop_by_hop(name) || nominated.contains(name) {
            continue;
        }
        stored.remove(name);
        for value in update.get_all(name) {
            stored.append(name.clone(), value.clone());
        }
    }
}

fn describes_content(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "content-length"
            | "content-encoding"
            | "content-range"
            | "content-md5"
            | "content-digest"
            | "repr-digest"
            | "digest"
            | "etag"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &[u8])]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        map
    }

    const EARLY: &[u8] = b"Sun, 06 Nov 1994 08:49:37 GMT";
    const LATE: &[u8] = b"Sun, 06 Nov 1994 08:59:37 GMT";
    const NEXT: &[u8] = b"Sun, 06 Nov 1994 08:49:38 GMT";
    const EARLY_850: &[u8] = b"Sunday, 06-Nov-94 08:49:37 GMT";
    const LATE_850: &[u8] = b"Sunday, 06-Nov-94 08:59:37 GMT";

    #[test]
    fn conditions_of_a_client() {
        use Precondition::{Failed, NotModified};
        const SEND: Precondition = Precondition::Proceed { range: true };
        const SEND_WHOLE: Precondition = Precondition::Proceed { range: false };
        type Fields = &'static [(&'static str, &'static [u8])];
        let rows: &[(Fields, Fields, Precondition)] = &[
            // RFC 9110 §13.1.2: lists, weakness, `*`
            (&[("if-none-match", b"\"a\"")], &[("etag", b"\"a\"")], NotModified),
            (&[("if-none-match", b"\"b\", W/\"a\" ,\"c\"")], &[("etag", b"\"a\"")], NotModified),
            (&[("if-none-match", b"\"b\""), ("if-none-match", b"\"a\"")], &[("etag", b"W/\"a\"")], NotModified),
            (&[("if-none-match", b"\"a,b\"")], &[("etag", b"\"a,b\"")], NotModified),
            (&[("if-none-match", b"\"\\\", \"a\"")], &[("etag", b"\"a\"")], NotModified),
            (&[("if-none-match", b"*")], &[], NotModified),
            (&[("if-none-match", b"\"b\"")], &[("etag", b"\"a\"")], SEND),
            (&[("if-none-match", b"\"ab\"")], &[("etag", b"\"a\"")], SEND),
            (&[("if-none-match", b"\"a\"")], &[], SEND),
            (&[("if-none-match", b"\"\xfc\"")], &[("etag", b"\"\xfc\"")], NotModified),
            (&[("if-none-match", b", ,\"a")], &[("etag", b"\"a\"")], SEND),
            (&[("if-none-match", b"junk, \"a\"")], &[("etag", b"\"a\"")], NotModified),
            // §13.1.3, §13.2.2: If-None-Match has precedence
            (&[("if-modified-since", EARLY)], &[("last-modified", EARLY)], NotModified),
            (&[("if-modified-since", LATE)], &[("last-modified", EARLY)], NotModified),
            (&[("if-modified-since", LATE_850)], &[("last-modified", LATE)], NotModified),
            (&[("if-modified-since", EARLY)], &[("last-modified", LATE)], SEND),
            (&[("if-modified-since", b"junk")], &[("last-modified", EARLY)], SEND),
            (
                &[("if-modified-since", LATE), ("if-none-match", b"\"b\"")],
                &[("last-modified", EARLY), ("etag", b"\"a\"")],
                SEND,
            ),
            // RFC 9111 §4.3.2: Date instead of Last-Modified
            (&[("if-modified-since", LATE)], &[("date", EARLY)], NotModified),
            (&[("if-modified-since", EARLY)], &[("date", LATE)], SEND),
            // §13.1.1, §13.1.4
            (&[("if-match", b"\"a\"")], &[("etag", b"\"a\"")], SEND),
            (&[("if-match", b"\"a\"")], &[("etag", b"W/\"a\"")], Failed),
            (&[("if-match", b"\"b\"")], &[("etag", b"\"a\"")], Failed),
            (&[("if-match", b"*")], &[], SEND),
            (&[("if-unmodified-since", EARLY)], &[("last-modified", LATE)], Failed),
            (&[("if-unmodified-since", LATE)], &[("last-modified", EARLY)], SEND),
            (&[("if-unmodified-since", EARLY)], &[("last-modified", EARLY)], SEND),
            (&[("if-unmodified-since", b"junk")], &[("last-modified", EARLY)], SEND),
            (
                &[("if-match", b"\"a\""), ("if-unmodified-since", EARLY)],
                &[("etag", b"\"a\""), ("last-modified", LATE)],
                SEND,
            ),
            // §13.1.5
            (&[("if-range", b"\"a\"")], &[("etag", b"\"a\"")], SEND),
            (&[("if-range", b"\"b\"")], &[("etag", b"\"a\"")], SEND_WHOLE),
            (&[("if-range", b"W/\"a\"")], &[("etag", b"W/\"a\"")], SEND_WHOLE),
            (&[("if-range", EARLY)], &[("last-modified", EARLY), ("date", LATE)], SEND),
            (&[("if-range", EARLY)], &[("last-modified", EARLY), ("date", EARLY)], SEND_WHOLE),
            (&[("if-range", LATE)], &[("last-modified", EARLY), ("date", LATE)], SEND_WHOLE),
            (&[("if-range", b"\"a\"")], &[("etag", b"W/\"a\"")], SEND_WHOLE),
            (&[("if-range", b"\"a\"")], &[("last-modified", EARLY), ("date", LATE)], SEND_WHOLE),
            (&[("if-range", b"\"a\", \"b\"")], &[("etag", b"\"a\"")], SEND_WHOLE),
            (&[("if-range", b"\"a\""), ("if-range", b"\"a\"")], &[("etag", b"\"a\"")], SEND_WHOLE),
            (&[("if-range", b"*")], &[("etag", b"\"a\"")], SEND_WHOLE),
            (&[("if-range", b"")], &[], SEND_WHOLE),
            // §8.8.2.2: strong only from a second on after the Last-Modified, by the Date of the same response
            (&[("if-range", EARLY)], &[("last-modified", EARLY), ("date", NEXT)], SEND),
            (&[("if-range", EARLY)], &[("last-modified", EARLY)], SEND_WHOLE),
            (&[("if-range", EARLY_850)], &[("last-modified", EARLY), ("date", LATE)], SEND),
        ];
        for (request, stored, expected) in rows {
            let (request, stored) = (headers(request), headers(stored));
            assert_eq!(evaluate(&request, Validators::of(&stored)), *expected, "{request:?} {stored:?}");
        }
    }

    #[test]
    fn the_condition_upstream_replaces_the_clients() {
        // RFC 9111 §4.3.1
        let mut request = headers(&[("if-none-match", b"\"x\""), ("if-range", b"\"x\""), ("accept", b"*/*")]);
        assert!(make_conditional(&mut request, &headers(&[("etag", b"W/\"a\""), ("last-modified", EARLY)])));
        assert_eq!(
            request,
            headers(&[("accept", b"*/*"), ("if-none-match", b"W/\"a\""), ("if-modified-since", EARLY)])
        );
        assert!(!make_conditional(&mut request, &HeaderMap::new()));
        assert_eq!(request, headers(&[("accept", b"*/*")]));
        assert!(!make_conditional(&mut request, &headers(&[("etag", b"\"a\""), ("etag", b"\"b\"")])));
    }

    #[test]
    fn a_304_must_speak_of_the_stored_response() {
        // §4.3.4
        let stored = headers(&[("etag", b"\"a\"")]);
        assert!(confirms(&stored, &HeaderMap::new()));
        assert!(confirms(&stored, &headers(&[("etag", b"\"a\"")])));
        assert!(confirms(&stored, &headers(&[("etag", b"W/\"a\"")])));
        assert!(!confirms(&stored, &headers(&[("etag", b"W/\"b\"")])));
        assert!(!confirms(&stored, &headers(&[("etag", b"\"b\"")])));
        assert!(!confirms(&HeaderMap::new(), &headers(&[("etag", b"\"b\"")])));
    }

    #[test]
    fn freshening_keeps_what_describes_the_content() {
        // §3.2
        let mut stored = headers(&[
            ("etag", b"\"a\""),
            ("content-length", b"5"),
            ("content-type", b"a/b"),
            ("x", b"1"),
            ("y", b"1"),
        ]);
        let update = headers(&[
            ("etag", b"\"b\""),
            ("content-length", b"9"),
            ("content-encoding", b"gzip"),
            ("content-type", b"c/d"),
            ("x", b"2"),
            ("x", b"3"),
            ("connection", b"close, z"),
            ("z", b"1"),
            ("transfer-encoding", b"chunked"),
        ]);
        freshen(&mut stored, &update);
        let expected = headers(&[
            ("etag", b"\"a\""),
            ("content-length", b"5"),
            ("content-type", b"c/d"),
            ("x", b"2"),
            ("x", b"3"),
            ("y", b"1"),
        ]);
        assert_eq!(stored, expected);
    }

    #[test]
    fn a_head_agrees_or_not() {
        // §4.3.5
        let stored = headers(&[("etag", b"\"a\""), ("last-modified", EARLY)]);
        type Fields = &'static [(&'static str, &'static [u8])];
        let rows: &[(Fields, HeadSays)] = &[
            (&[], HeadSays::NotMuch),
            (&[("content-length", b"5")], HeadSays::NotMuch),
            (&[("etag", b"\"a\""), ("content-length", b"5")], HeadSays::Same),
            (&[("etag", b"\"a\"")], HeadSays::Same),
            (&[("content-length", b"6")], HeadSays::Other),
            (&[("content-length", b"5"), ("content-length", b"6")], HeadSays::Other),
            (&[("content-length", b"x")], HeadSays::Other),
            (&[("etag", b"\"b\"")], HeadSays::Other),
            (&[("etag", b"W/\"a\"")], HeadSays::Other),
            (&[("etag", b"\"a\""), ("etag", b"\"b\"")], HeadSays::Other),
            (&[("last-modified", LATE)], HeadSays::Other),
            (&[("etag", b"\"a\""), ("content-encoding", b"gzip")], HeadSays::Other),
        ];
        for (head, expected) in rows {
            assert_eq!(head_says(&stored, 5, &headers(head)), *expected, "{head:?}");
        }
        let coded = headers(&[("etag", b"\"a\""), ("content-encoding", b"gzip")]);
        assert_eq!(head_says(&coded, 5, &coded), HeadSays::Same);
        assert_eq!(
            head_says(&coded, 5, &headers(&[("etag", b"\"a\"")])),
            HeadSays::Same,
            "what it doesn't name, it doesn't deny"
        );
    }
}
