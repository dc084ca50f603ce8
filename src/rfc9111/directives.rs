//! `Cache-Control` of responses and requests (RFC 9111 §5.2), read so that junk can only make a cache more careful.
//!
//! Names are case-insensitive, values may be quoted, several lines are one list, unknown directives are ignored. When a
//! directive comes twice or its value is malformed, the strictest reading wins: the shortest lifetime, and zero where
//! a lifetime can't be read. A quote that is never closed may hide anything, so it counts as `no-store`.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};
use smallvec::SmallVec;

use super::list::{digits, members, trim};

/// What a response says to a shared cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResponseDirectives {
    /// `max-age` (§5.2.2.1).
    pub max_age: Option<Duration>,
    /// `s-maxage` (§5.2.2.10).
    pub s_maxage: Option<Duration>,
    /// `no-cache` (§5.2.2.4); its qualified form counts as the plain one.
    pub no_cache: bool,
    /// `no-store` (§5.2.2.5), also where a quote was left open.
    pub no_store: bool,
    /// `private` (§5.2.2.7); its qualified form counts as the plain one.
    pub private: bool,
    /// `public` (§5.2.2.9).
    pub public: bool,
    /// `must-revalidate` (§5.2.2.2).
    pub must_revalidate: bool,
    /// `proxy-revalidate` (§5.2.2.8).
    pub proxy_revalidate: bool,
    /// `must-understand` (§5.2.2.3).
    pub must_understand: bool,
    /// `no-transform` (§5.2.2.6).
    pub no_transform: bool,
    /// `immutable` (RFC 8246).
    pub immutable: bool,
    /// `stale-while-revalidate` (RFC 5861 §3).
    pub stale_while_revalidate: Option<Duration>,
    /// `stale-if-error` (RFC 5861 §4).
    pub stale_if_error: Option<Duration>,
}

impl ResponseDirectives {
    /// Reads every `Cache-Control` line of a response.
    ///
    /// ```
    /// use larder::rfc9111::directives::ResponseDirectives;
    /// let mut headers = http::HeaderMap::new();
    /// headers.append("cache-control", "Max-Age=\"60\", max-age=10".parse().unwrap());
    /// assert_eq!(ResponseDirectives::parse(&headers).max_age, Some(std::time::Duration::from_secs(10)));
    /// ```
    pub fn parse(headers: &HeaderMap) -> Self {
        let mut said = Self::default();
        let closed = each_directive(headers.get_all(header::CACHE_CONTROL), |name, value| said.take(name, value));
        said.no_store |= !closed;
        said
    }

    /// Whether it forbids to use a stale response, whatever the reason (§4.2.4; `s-maxage` implies `proxy-revalidate`).
    pub fn forbids_stale(&self) -> bool {
        self.must_revalidate || self.proxy_revalidate || self.no_cache || self.s_maxage.is_some()
    }

    /// Whether it allows to store the answer to a request with `Authorization` (§3.5).
    pub fn allows_authorized(&self) -> bool {
        self.public || self.must_revalidate || self.s_maxage.is_some()
    }

    /// Records one directive; a value given to a directive that takes none is junk, which only what restricts survives.
    pub(crate) fn take(&mut self, name: &[u8], value: Value<'_>) {
        let bare = matches!(value, Value::None);
        match lowercase(name).as_slice() {
            b"max-age" => shorten(&mut self.max_age, value),
            b"s-maxage" => shorten(&mut self.s_maxage, value),
            b"no-cache" => self.no_cache = true,
            b"no-store" => self.no_store = true,
            b"private" => self.private = true,
            b"public" => self.public |= bare,
            b"must-revalidate" => self.must_revalidate = true,
            b"proxy-revalidate" => self.proxy_revalidate = true,
            b"must-understand" => self.must_understand = true,
            b"no-transform" => self.no_transform = true,
            b"immutable" => self.immutable |= bare,
            b"stale-while-revalidate" => shorten(&mut self.stale_while_revalidate, value),
            b"stale-if-error" => shorten(&mut self.stale_if_error, value),
            _ => {}
        }
    }
}

/// What a request asks of a cache (§5.2.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequestDirectives {
    /// `max-age` (§5.2.1.1): no older than this.
    pub max_age: Option<Duration>,
    /// `min-fresh` (§5.2.1.3): fresh for at least this much longer.
    pub min_fresh: Option<Duration>,
    /// `max-stale` (§5.2.1.2): stale by at most this; [`Duration::MAX`] without a value.
    pub max_stale: Option<Duration>,
    /// `no-cache` (§5.2.1.4), or `Pragma: no-cache` where there is no `Cache-Control` (§5.4).
    pub no_cache: bool,
    /// `no-store` (§5.2.1.5).
    pub no_store: bool,
    /// `only-if-cached` (§5.2.1.7).
    pub only_if_cached: bool,
    /// `stale-if-error` (RFC 5861 §4).
    pub stale_if_error: Option<Duration>,
}

impl RequestDirectives {
    /// Reads every `Cache-Control` line of a request, or `Pragma` where there is none.
    pub fn parse(headers: &HeaderMap) -> Self {
        let mut asked = Self::default();
        if !headers.contains_key(header::CACHE_CONTROL) {
            each_directive(headers.get_all(header::PRAGMA), |name, _| {
                asked.no_cache |= name.eq_ignore_ascii_case(b"no-cache")
            });
            return asked;
        }
        let closed = each_directive(headers.get_all(header::CACHE_CONTROL), |name, value| asked.take(name, value));
        asked.no_store |= !closed;
        asked
    }

    fn take(&mut self, name: &[u8], value: Value<'_>) {
        match lowercase(name).as_slice() {
            b"max-age" => shorten(&mut self.max_age, value),
            b"min-fresh" => {
                let wanted = value.seconds().unwrap_or(Duration::MAX);
                self.min_fresh = Some(self.min_fresh.map_or(wanted, |other| other.max(wanted)));
            }
            b"max-stale" => {
                let allowed =
                    if matches!(value, Value::None) { Duration::MAX } else { value.seconds().unwrap_or_default() };
                self.max_stale = Some(self.max_stale.map_or(allowed, |other| other.min(allowed)));
            }
            b"no-cache" => self.no_cache = true,
            b"no-store" => self.no_store = true,
            b"only-if-cached" => self.only_if_cached = true,
            b"stale-if-error" => shorten(&mut self.stale_if_error, value),
            _ => {}
        }
    }
}

/// A name as it is compared; the longest that is known has 22 letters.
fn lowercase(name: &[u8]) -> SmallVec<[u8; 24]> {
    let mut lowercase = SmallVec::from_slice(name);
    lowercase.make_ascii_lowercase();
    lowercase
}

/// The argument of a directive.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    /// There is no `=`.
    None,
    /// The text behind `=`, without the quotes around it. What is escaped inside stays escaped: no directive that larder
    /// knows has a use for it, so a value with an escape is simply not a number.
    Text(&'a [u8]),
}

impl Value<'_> {
    fn seconds(self) -> Option<Duration> {
        match self {
            Value::None => None,
            Value::Text(text) => digits(text).map(Duration::from_secs),
        }
    }
}

/// Keeps the shorter of two lifetimes; one that can't be read is zero (§4.2.1 encourages to take it as stale).
fn shorten(lifetime: &mut Option<Duration>, value: Value<'_>) {
    let said = value.seconds().unwrap_or(Duration::ZERO);
    *lifetime = Some(lifetime.map_or(said, |other| other.min(said)));
}

/// Calls `take` for each directive of all lines. False if a line leaves a quote open.
///
/// Of a member that is no directive by the grammar, whatever in it looks like a word that restricts is taken as that word: a semicolon for
/// a comma must not make a cache less careful.
fn each_directive<'a>(
    lines: impl IntoIterator<Item = &'a HeaderValue>,
    mut take: impl FnMut(&[u8], Value<'a>),
) -> bool {
    let mut closed = true;
    for line in lines {
        let mut list = members(line.as_bytes());
        for member in list.by_ref() {
            if !is_directive(member) {
                restricting_words(member).for_each(|word| take(word, Value::None));
            }
            match member.iter().position(|b| *b == b'=') {
                Some(at) => take(trim(&member[..at]), Value::Text(unquote(&member[at + 1..]))),
                None => take(member, Value::None),
            }
        }
        closed &= !list.unterminated();
    }
    closed
}

/// `token [ "=" ( token / quoted-string ) ]` (RFC 9111 §5.2).
fn is_directive(member: &[u8]) -> bool {
    let is_token = |text: &[u8]| !text.is_empty() && text.iter().all(|b| is_token_byte(*b));
    match member.iter().position(|b| *b == b'=') {
        None => is_token(member),
        Some(at) => {
            let (name, value) = (&member[..at], &member[at + 1..]);
            let quoted = matches!(value, [b'"', inner @ .., b'"'] if !has_bare_quote(inner));
            is_token(name) && (quoted || is_token(value))
        }
    }
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether a quote in the inside of a quoted string isn't escaped.
fn has_bare_quote(inner: &[u8]) -> bool {
    let mut escaped = false;
    inner.iter().any(|b| {
        let bare = *b == b'"' && !escaped;
        escaped = *b == b'\\' && !escaped;
        bare
    })
}

/// The words in junk that forbid to store or to use. `no store` is one of them: nobody writes it who means something else.
fn restricting_words(junk: &[u8]) -> impl Iterator<Item = &'static [u8]> {
    let private = junk.split(|b| !is_token_byte(*b)).any(|word| word.eq_ignore_ascii_case(b"private"));
    let parts = || junk.split(|b| !b.is_ascii_alphanumeric()).filter(|part| !part.is_empty());
    let follows_no = |wanted: &[u8]| {
        let mut pairs = parts().zip(parts().skip(1));
        pairs.any(|(no, word)| no.eq_ignore_ascii_case(b"no") && word.eq_ignore_ascii_case(wanted))
    };
    let found: [(bool, &[u8]); 3] =
        [(private, b"private"), (follows_no(b"store"), b"no-store"), (follows_no(b"cache"), b"no-cache")];
    found.into_iter().filter_map(|(found, word)| found.then_some(word))
}

fn unquote(text: &[u8]) -> &[u8] {
    match text {
        [b'"', inner @ .., b'"'] => inner,
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(lines: &[&[u8]]) -> ResponseDirectives {
        ResponseDirectives::parse(&headers("cache-control", lines))
    }

    fn request(line: &str) -> RequestDirectives {
        RequestDirectives::parse(&headers("cache-control", &[line.as_bytes()]))
    }

    fn headers(name: &'static str, lines: &[&[u8]]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for line in lines {
            map.append(name, HeaderValue::from_bytes(line).unwrap());
        }
        map
    }

    const fn secs(n: u64) -> Option<Duration> {
        Some(Duration::from_secs(n))
    }

    #[test]
    fn max_age_takes_the_strictest_reading() {
        // RFC 9111 §1.2.2, §4.2.1, §5.2.2.1
        let rows: &[(&[&[u8]], Option<Duration>)] = &[
            (&[b"max-age=3600"], secs(3600)),
            (&[b"MaX-aGe=3600"], secs(3600)),
            (&[b"max-age=\"3600\""], secs(3600)),
            (&[b"max-age=003600"], secs(3600)),
            (&[b"foobar, max-age=3600"], secs(3600)),
            (&[b"max-age=3600", b"max-age=1"], secs(1)),
            (&[b"max-age=1, max-age=3600"], secs(1)),
            (&[b"max-age=99999999999999999999999"], secs(u64::MAX)),
            (&[b"extension=\"max-age=3600\", max-age=1"], secs(1)),
            (&[b"extension=\"max-age=3600\""], None),
            (&[b"max-age=-3600"], secs(0)),
            (&[b"max-age='3600'"], secs(0)),
            (&[b"max-age=3600.0"], secs(0)),
            (&[b"max-age= 3600"], secs(0)),
            (&[b"max-age"], secs(0)),
            (&[b"max-age=abc, max-age=60"], secs(0)),
            (&[b""], None),
        ];
        for (lines, expected) in rows {
            assert_eq!(response(lines).max_age, *expected, "{lines:?}");
        }
    }

    #[test]
    fn what_restricts_survives_junk_and_what_permits_does_not() {
        // §5.2.2: qualified forms are read as the plain ones, `public` with a value is nothing known.
        let said =
            response(&[b"no-store=1, private=\"x\", no-cache=\"set-cookie\", public=yes, immutable=1, NO-TRANSFORM"]);
        assert!(said.no_store && said.private && said.no_cache && said.no_transform);
        assert!(!said.public && !said.immutable);
    }

    #[test]
    fn an_open_quote_counts_as_no_store() {
        assert!(response(&[b"max-age=60, ext=\"oops, no-cache"]).no_store);
        assert!(!response(&[b"max-age=60, ext=\"fine, no-store\""]).no_store);
    }

    #[test]
    fn junk_never_makes_it_less_careful() {
        for junk in [
            "private; max-age=0",
            "max-age=60; private",
            "\"private\"",
            "a=b\"c, private, d\"e",
            "x y private",
            "PRIVATE;",
            "x=\"a\" private \"b\"",
        ] {
            assert!(response(&[junk.as_bytes()]).private, "{junk}");
        }
        for fine in ["extension=\"private\"", "extension=\"a, private; b\"", "x=\"\\\"private\""] {
            assert!(!response(&[fine.as_bytes()]).private, "{fine}");
        }
    }

    #[test]
    fn a_space_for_a_hyphen_forbids_as_well() {
        for junk in ["no store", "No  Store", "max-age=60 no store", "no\tstore", "no- store", "foo; no store"] {
            assert!(response(&[junk.as_bytes()]).no_store, "{junk}");
            assert!(request(junk).no_store, "{junk}");
        }
        assert!(response(&[b"no cache"]).no_cache && !response(&[b"no cache"]).no_store);
        for fine in ["no, store", "no-storey", "ext=\"no store\"", "know store; x", "store no"] {
            assert!(!response(&[fine.as_bytes()]).no_store, "{fine}");
        }
    }

    #[test]
    fn each_directive_of_a_response_has_its_place() {
        // §5.2.2, RFC 5861 §3 and §4, RFC 8246
        let said = response(&[b"immutable, immutable, stale-while-revalidate=5, stale-if-error=6, must-understand"]);
        assert!(said.immutable && said.must_understand && !said.must_revalidate && !said.public);
        assert_eq!((said.stale_while_revalidate, said.stale_if_error), (secs(5), secs(6)));
        assert_eq!((said.max_age, said.s_maxage), (None, None));
    }

    #[test]
    fn what_forbids_stale_answers() {
        // §4.2.4, §5.2.2.10
        for (line, expected) in [
            ("must-revalidate", true),
            ("proxy-revalidate", true),
            ("no-cache", true),
            ("s-maxage=5", true),
            ("max-age=5, public, private, no-transform", false),
            ("", false),
        ] {
            assert_eq!(response(&[line.as_bytes()]).forbids_stale(), expected, "{line}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_harmless() {
        assert_eq!(response(&[b"\xff\xfe=\xfd, max-age=5"]).max_age, secs(5));
    }

    #[test]
    fn request_directives_are_read() {
        // §5.2.1
        assert_eq!(request("max-age=5").max_age, secs(5));
        assert_eq!(request("min-fresh=5, min-fresh=7").min_fresh, secs(7));
        assert_eq!(request("min-fresh=x").min_fresh, Some(Duration::MAX));
        assert_eq!(request("max-stale").max_stale, Some(Duration::MAX));
        assert_eq!(request("max-stale=7, max-stale=5").max_stale, secs(5));
        assert_eq!(request("max-stale=x").max_stale, secs(0));
        assert!(
            request("No-Cache").no_cache && request("no-store").no_store && request("only-if-cached").only_if_cached
        );
        assert_eq!(request("stale-if-error=9").stale_if_error, secs(9));
        assert!(request("max-age=5, ext=\"open").no_store && !request("max-age=5, ext=\"closed\"").no_store);
    }

    #[test]
    fn pragma_counts_only_without_cache_control() {
        // §5.4
        assert!(RequestDirectives::parse(&headers("pragma", &[b"no-cache"])).no_cache);
        let mut both = headers("pragma", &[b"no-cache"]);
        both.append("cache-control", HeaderValue::from_static("max-stale=1"));
        assert!(!RequestDirectives::parse(&both).no_cache);
    }
}
