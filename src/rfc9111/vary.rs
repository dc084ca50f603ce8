//! Variants of one URI (RFC 9111 §4.1): which request fields a response depends on, and whether two requests agree in them.
//!
//! Two values may be taken as equal only "in a way that is known to have identical semantics". By default larder goes no further than
//! what a handler can't tell apart or the field's definition makes meaningless: case and white space in the `Accept` family, and the order
//! in `Accept-Encoding`. With [`Matching::Letter`] it uses all that the RFC allows, such as ignoring the order of
//! languages, which a handler that takes the first one would notice.

use http::{HeaderMap, HeaderName, header};
use smallvec::SmallVec;

use super::list::{digits, members, trim};

/// The most fields that a `Vary` may nominate before it counts as `*`: nobody matches twenty fields twice.
const MOST_FIELDS: usize = 20;

/// What `Vary` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vary {
    /// `*`, or something malformed that might have been anything: it never matches.
    Any,
    /// These nominated fields, in order and without repetition; none where the field is absent or empty.
    Fields(SmallVec<[HeaderName; 2]>),
}

impl Vary {
    /// Reads all `Vary` lines of a response.
    pub fn parse(headers: &HeaderMap) -> Self {
        let mut fields = SmallVec::new();
        for line in headers.get_all(header::VARY) {
            for member in members(line.as_bytes()) {
                // `*` isn't valid as a name's only character for a nominated field, but HeaderName would take it.
                let Ok(name) = HeaderName::from_bytes(member) else { return Self::Any };
                if member == b"*" || fields.len() == MOST_FIELDS {
                    return Self::Any;
                }
                if !fields.contains(&name) {
                    fields.push(name);
                }
            }
        }
        Self::Fields(fields)
    }
}

/// How far the values of nominated fields are normalised before they are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Matching {
    /// Only what no handler can have meant differently.
    #[default]
    Careful,
    /// All that RFC 9111 §4.1 allows.
    Letter,
}

/// The values of the nominated fields, normalised, as one string that is equal if and only if the variants are.
pub type VariantKey = SmallVec<[u8; 32]>;

/// The key of the variant that `request` asks for among responses that vary by `fields`.
///
/// Each field is written as absent, or as its length and its value, so that no value can imitate a boundary.
pub fn variant_key(fields: &[HeaderName], request: &HeaderMap, matching: Matching) -> VariantKey {
    let mut key = VariantKey::new();
    for name in fields {
        match normalised(name, request, matching) {
            None => key.push(0),
            Some(value) => {
                key.push(1);
                key.extend_from_slice(&(value.len() as u64).to_le_bytes());
                key.extend_from_slice(&value);
            }
        }
    }
    key
}

/// Whether a stored response in the language `content_language` is what the request prefers above all others, so that it answers though the
/// stored request asked for other languages beside it. Only used with [`Matching::Letter`] and where `Accept-Language` is all that differs.
pub fn prefers_language(request: &HeaderMap, content_language: &[u8]) -> bool {
    let mut ranges: Vec<(u64, Vec<u8>)> = Vec::new();
    for line in request.get_all(header::ACCEPT_LANGUAGE) {
        for member in members(line.as_bytes()) {
            let (name, weight) = split_weight(member);
            ranges.push((weight, name.to_ascii_lowercase()));
        }
    }
    let Some(best) = ranges.iter().map(|(weight, _)| *weight).max() else { return false };
    let mut preferred = ranges.iter().filter(|(weight, _)| *weight == best);
    let only = preferred.next().filter(|_| preferred.next().is_none());
    best > 0 && only.is_some_and(|(_, name)| name.eq_ignore_ascii_case(trim(content_language)))
}

fn normalised(name: &HeaderName, request: &HeaderMap, matching: Matching) -> Option<SmallVec<[u8; 64]>> {
    let mut lines = request.get_all(name).iter().peekable();
    lines.peek()?;
    let mut value = SmallVec::new();
    if *name == header::ACCEPT_ENCODING {
        append_sorted(&mut value, lines.flat_map(|line| members(line.as_bytes()).map(weighted)));
    } else if [header::ACCEPT, header::ACCEPT_LANGUAGE, header::ACCEPT_CHARSET].contains(name) {
        let weighted = lines.flat_map(|line| members(line.as_bytes()).map(weighted));
        match matching {
            Matching::Letter => append_sorted(&mut value, weighted),
            Matching::Careful => weighted.for_each(|member| append(&mut value, &member)),
        }
    } else if matching == Matching::Letter {
        lines.flat_map(|line| members(line.as_bytes())).for_each(|member| append(&mut value, member));
    } else {
        for (n, line) in lines.enumerate() {
            // A line break that no value can contain: a handler that reads the first line sees another value than of a joined list.
            if n > 0 {
                value.push(b'\n');
            }
            value.extend_from_slice(line.as_bytes());
        }
    }
    Some(value)
}

fn append(list: &mut SmallVec<[u8; 64]>, member: &[u8]) {
    if !list.is_empty() {
        list.push(b',');
    }
    list.extend_from_slice(member);
}

fn append_sorted(list: &mut SmallVec<[u8; 64]>, members: impl Iterator<Item = SmallVec<[u8; 24]>>) {
    let mut all: SmallVec<[SmallVec<[u8; 24]>; 6]> = members.collect();
    all.sort_unstable();
    all.iter().for_each(|member| append(list, member));
}

/// A member of the `Accept` family: its name and the names of its parameters in lower case, without white space around them, and its
/// weight in thousandths behind a byte that no value can hold. Parameter values stay, for their case may matter (RFC 9110 §8.3.1).
fn weighted(member: &[u8]) -> SmallVec<[u8; 24]> {
    let (rest, weight) = split_weight(member);
    let mut text: SmallVec<[u8; 24]> = SmallVec::new();
    for (n, piece) in pieces(rest).enumerate() {
        let equals = piece.iter().position(|b| *b == b'=');
        let (name, value) = piece.split_at(equals.unwrap_or(piece.len()));
        if n > 0 {
            text.push(b';');
        }
        text.extend(name.iter().map(u8::to_ascii_lowercase));
        text.extend_from_slice(value);
    }
    if weight != 1000 {
        text.push(0);
        text.extend_from_slice(weight.to_string().as_bytes());
    }
    text
}

/// What the semicolons of a member separate, quotes respected, without white space around it.
fn pieces(member: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    member
        .split(move |b| {
            quoted ^= *b == b'"';
            *b == b';' && !quoted
        })
        .map(trim)
}

/// A member without its weight, and the weight in thousandths (RFC 9110 §12.4.2). What is no weight stays part of the member.
pub(super) fn split_weight(member: &[u8]) -> (&[u8], u64) {
    let Some(at) = member.iter().rposition(|b| *b == b';') else { return (member, 1000) };
    let parameter = trim(&member[at + 1..]);
    let [b'q' | b'Q', b'=', value @ ..] = parameter else { return (member, 1000) };
    let (whole, fraction) = match value.iter().position(|b| *b == b'.') {
        Some(dot) => (&value[..dot], &value[dot + 1..]),
        None => (value, &b""[..]),
    };
    let valid = matches!(whole, b"0" | b"1") && fraction.len() <= 3 && fraction.iter().all(u8::is_ascii_digit);
    if !valid {
        return (member, 1000);
    }
    let scale = [1000, 100, 10, 1][fraction.len()];
    let thousandths = digits(whole).unwrap_or(0) * 1000 + digits(fraction).unwrap_or(0) * scale;
    (trim(&member[..at]), thousandths.min(1000))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(fields: &[(&'static str, &[u8])]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        map
    }

    #[test]
    fn vary_names_fields_or_anything() {
        // §4.1
        let any: &[&[u8]] = &[b"*", b"*, *", b", *", b"*, foo", b"foo, *", b"foo bar", b"\"foo\"", b"f\xff"];
        for value in any {
            assert_eq!(Vary::parse(&headers(&[("vary", value)])), Vary::Any, "{value:?}");
        }
        assert_eq!(Vary::parse(&headers(&[("vary", b""), ("vary", b"*")])), Vary::Any);
        let Vary::Fields(fields) = Vary::parse(&headers(&[("vary", b"Foo,, bar"), ("vary", b"FOO")])) else { panic!() };
        assert_eq!(fields.as_slice(), ["foo", "bar"]);
        assert_eq!(Vary::parse(&HeaderMap::new()), Vary::Fields(SmallVec::new()));
    }

    #[test]
    fn ten_thousand_fields_are_any() {
        let mut map = HeaderMap::new();
        for n in 0..10_000 {
            map.append("vary", HeaderValue::from_str(&format!("x-{n}")).unwrap());
        }
        assert_eq!(Vary::parse(&map), Vary::Any);
    }

    /// Whether two requests ask for the same variant: (carefully, to the letter).
    fn same(name: &'static str, one: &[&[u8]], other: &[&[u8]]) -> (bool, bool) {
        let map = |lines: &[&[u8]]| headers(&lines.iter().map(|line| (name, *line)).collect::<Vec<_>>());
        let fields = [HeaderName::from_static(name)];
        let equal = |matching| variant_key(&fields, &map(one), matching) == variant_key(&fields, &map(other), matching);
        (equal(Matching::Careful), equal(Matching::Letter))
    }

    #[test]
    fn normalisation_by_field() {
        type Lines = &'static [&'static [u8]];
        let rows: &[(&'static str, Lines, Lines, (bool, bool))] = &[
            ("accept-encoding", &[b"gzip, br"], &[b"br,GZIP;q=1.0"], (true, true)),
            ("accept-encoding", &[b"gzip, br"], &[b"gzip", b"br"], (true, true)),
            ("accept-encoding", &[b"gzip"], &[b"gzip;q=0"], (false, false)),
            ("accept-encoding", &[b"gzip;q=0.5"], &[b"gzip;q=0.500"], (true, true)),
            ("accept-language", &[b"en, de"], &[b" eN ,   De"], (true, true)),
            ("accept-language", &[b"en, de"], &[b"de, en"], (false, true)),
            ("accept", &[b"text/html; level=\"A b\""], &[b"TEXT/html;level=\"A b\""], (true, true)),
            ("accept", &[b"text/html;level=\"A b\""], &[b"text/html;level=\"ab\""], (false, false)),
            ("accept", &[b"a/b;q=0.9"], &[b"a/b;q=900"], (false, false)),
            ("accept", &[b"a/b;v=A"], &[b"a/b;v=a"], (false, false)),
            ("accept", &[b"a/b;V=A"], &[b"A/b ; v=A"], (true, true)),
            ("accept", &[b"a/b;q=0.5"], &[b"a/b;q=0.4"], (false, false)),
            ("accept", &[b"a/b;q=2"], &[b"a/b"], (false, false)),
            ("accept", &[b"a/b;q=1.0"], &[b"a/b"], (true, true)),
            ("accept", &[b"a/b;q=0.1234"], &[b"a/b;q=0.123"], (false, false)),
            ("accept", &[b"a/b;v=\"x\";W=y"], &[b"a/b;v=\"x\";w=y"], (true, true)),
            ("accept", &[b"a/b;v=\"x;B=c\""], &[b"a/b;v=\"x;b=c\""], (false, false)),
            ("accept", &[b"a;b"], &[b"ab"], (false, false)),
            ("accept", &[b"a, b"], &[b"ab"], (false, false)),
            ("accept", &[b"a=B"], &[b"a=b"], (false, false)),
            ("accept-language", &[b"e n"], &[b"en"], (false, false)),
            ("foo", &[b"1, 2"], &[b"1", b"2"], (false, true)),
            ("foo", &[b"1,2"], &[b" 1, 2 "], (false, true)),
            ("foo", &[b"1"], &[b"2"], (false, false)),
            ("foo", &[b"1", b"2"], &[b"12"], (false, false)),
            ("foo", &[b"A"], &[b"a"], (false, false)),
            ("foo", &[], &[b""], (false, false)),
            ("foo", &[], &[], (true, true)),
        ];
        for (name, one, other, expected) in rows {
            assert_eq!(same(name, one, other), *expected, "{name}: {one:?} {other:?}");
        }
    }

    #[test]
    fn the_form_of_a_key() {
        let of = |name: &'static str, lines: &[&[u8]]| {
            let lines: Vec<_> = lines.iter().map(|line| (name, *line)).collect();
            variant_key(&[HeaderName::from_static(name)], &headers(&lines), Matching::Careful).to_vec()
        };
        assert_eq!(of("foo", &[]), [0]);
        assert_eq!(of("foo", &[b"a", b"b"]), b"\x01\x03\0\0\0\0\0\0\0a\nb");
        assert_eq!(of("accept", &[b"A/b ; V=C, d;q=0.5"]), b"\x01\x0d\0\0\0\0\0\0\0a/b;v=C,d\x00500");
    }

    #[test]
    fn a_value_cant_imitate_a_boundary() {
        let fields = [HeaderName::from_static("a"), HeaderName::from_static("b")];
        let one = variant_key(&fields, &headers(&[("a", b"x\t"), ("b", b"y")]), Matching::Careful);
        let other = variant_key(&fields, &headers(&[("a", b"x"), ("b", b"\ty")]), Matching::Careful);
        assert_ne!(one, other);
    }

    #[test]
    fn a_language_is_preferred_alone() {
        let ask = |value: &[u8]| headers(&[("accept-language", value)]);
        assert!(prefers_language(&ask(b"fr;q=0.5, DE;q=1.0"), b"de"));
        assert!(!prefers_language(&ask(b"fr, de"), b"de"));
        assert!(!prefers_language(&ask(b"de;q=0"), b"de"));
        assert!(!prefers_language(&HeaderMap::new(), b"de"));
    }
}
