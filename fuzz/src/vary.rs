//! Variants (RFC 9111 §4.1): what is not normalised is told apart byte by byte, the letter of the RFC tells no more apart than the careful
//! default, and `*` anywhere in `Vary` is never a variant.
//!
//! The first line is `Vary`; those up to an empty one are one request's lines of a field, those behind it another's.

use http::header::{ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, VARY};
use http::{HeaderMap, HeaderName, HeaderValue};
use larder::rfc9111::vary::{Matching, Vary, prefers_language, variant_key};

pub fn check(data: &[u8]) {
    let lines = super::values(data);
    let Some((vary, rest)) = lines.split_first() else { return };
    nominated(vary);
    let cut = rest.iter().position(|line| line.is_empty()).unwrap_or(rest.len());
    let (one, other) = (&rest[..cut], rest.get(cut + 1..).unwrap_or_default());
    let own = HeaderName::from_static("x-own");
    for name in [&own, &ACCEPT, &ACCEPT_LANGUAGE, &ACCEPT_ENCODING] {
        let (a, b) = (super::field(name, one), super::field(name, other));
        let equal = |matching| key(name, &a, matching) == key(name, &b, matching);
        let (careful, letter) = (equal(Matching::Careful), equal(Matching::Letter));
        assert!(one != other || careful, "the same lines are the same variant");
        assert!(careful <= letter, "to the letter, no more is told apart: {name} {one:?} {other:?}");
        assert!(one.is_empty() == other.is_empty() || !letter, "a field that is there is not one that is missing");
        if *name == own {
            assert_eq!(careful, one == other, "what isn't known is told apart byte by byte");
        } else if careful {
            // What is left when everything that may mean nothing is taken away differs only where the requests do.
            assert_eq!(skeleton(one), skeleton(other), "{name}: {one:?} {other:?}");
        }
        padded(name, one);
    }
    let language = other.first().map_or(&b"de"[..], HeaderValue::as_bytes);
    let asked = super::field(&ACCEPT_LANGUAGE, one);
    if prefers_language(&asked, language) {
        let text = one.iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().concat().to_ascii_lowercase();
        let wanted = language.trim_ascii().to_ascii_lowercase();
        assert!(text.windows(wanted.len().max(1)).any(|part| part == wanted), "preferred, and not named");
    }
}

fn key(name: &HeaderName, request: &HeaderMap, matching: Matching) -> Vec<u8> {
    variant_key(std::slice::from_ref(name), request, matching).to_vec()
}

fn nominated(vary: &HeaderValue) {
    let headers = super::field(&VARY, [vary]);
    let star = vary.as_bytes().split(|b| *b == b',').any(|member| member.trim_ascii() == b"*");
    match Vary::parse(&headers) {
        Vary::Any => {
            let mut more = headers.clone();
            more.append(VARY, HeaderValue::from_static("accept"));
            assert_eq!(Vary::parse(&more), Vary::Any, "no line takes a star back");
        }
        Vary::Fields(fields) => {
            assert!(!star && fields.len() <= 20, "a star is never a name: {vary:?}");
            let mut distinct = fields.clone();
            distinct.sort_by(|a, b| a.as_str().cmp(b.as_str()));
            distinct.dedup();
            assert_eq!(distinct.len(), fields.len(), "each name once");
        }
    }
}

/// White space between members means nothing in the `Accept` family.
fn padded(name: &HeaderName, lines: &[HeaderValue]) {
    if name.as_str().starts_with("x-") || lines.iter().any(|line| line.as_bytes().contains(&b'"')) {
        return;
    }
    let pad = |line: &HeaderValue| {
        let text: Vec<u8> = line.as_bytes().split(|b| *b == b',').collect::<Vec<_>>().join(&b" ,\t,  "[..]);
        HeaderValue::from_bytes(&text).expect("white space is a part of values")
    };
    let wide: Vec<_> = lines.iter().map(pad).collect();
    for matching in [Matching::Careful, Matching::Letter] {
        let equal = key(name, &super::field(name, lines), matching) == key(name, &super::field(name, &wide), matching);
        assert!(equal, "white space between members means nothing: {lines:?}");
    }
}

/// Letters and digits but for the weights' ones, sorted.
fn skeleton(lines: &[HeaderValue]) -> Vec<u8> {
    let text = lines.iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b","[..]).to_ascii_lowercase();
    let mut left: Vec<u8> = Vec::new();
    for piece in text.split(|b| matches!(b, b',' | b';')) {
        let piece = piece.trim_ascii();
        if !piece.starts_with(b"q=") {
            left.extend(piece.iter().filter(|b| !b.is_ascii_whitespace()));
        }
    }
    left.sort_unstable();
    left
}
