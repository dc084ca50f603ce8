//! Entity tags and conditions (RFC 9110 §8.8.3, §13; RFC 9111 §4.3): a tag equals itself wherever it stands in a list, and what the
//! cache asks upstream about is what it has.
//!
//! The first line of an input is the stored response's tag, the others are the lines of a list.

use http::header::{CONNECTION, ETAG, IF_MATCH, IF_NONE_MATCH, LAST_MODIFIED};
use http::{HeaderMap, HeaderValue};
use larder::rfc9111::fields::is_hop_by_hop;
use larder::rfc9111::validation::{
    EntityTag, HeadSays, Precondition, Validators, confirms, evaluate, freshen, head_says, make_conditional,
};

pub fn check(data: &[u8]) {
    let lines = super::values(data);
    let Some((tag, list)) = lines.split_first() else { return };
    let stored = super::field(&ETAG, [tag]);
    equality(tag, list);
    upstream(&stored, list);
    in_a_list(&stored, tag, list);
    updates(&lines);
}

/// `[ "W/" ] DQUOTE *etagc DQUOTE`: only such tags can be told apart in a list.
fn is_well_formed(tag: &[u8]) -> bool {
    let opaque = tag.strip_prefix(b"W/").unwrap_or(tag);
    matches!(opaque, [b'"', inner @ .., b'"'] if inner.iter().all(|b| matches!(b, 0x21 | 0x23..=0x7e | 0x80..)))
}

fn equality(tag: &HeaderValue, others: &[HeaderValue]) {
    let own = EntityTag::parse(tag.as_bytes());
    assert!(own.weakly_equals(own) && own.strongly_equals(own) != own.weak, "equality is reflexive");
    for other in others {
        let other = EntityTag::parse(other.as_bytes());
        assert_eq!(own.weakly_equals(other), other.weakly_equals(own), "and symmetric");
        assert_eq!(own.strongly_equals(other), other.strongly_equals(own));
        assert!(own.strongly_equals(other) <= own.weakly_equals(other), "strong implies weak");
    }
}

fn upstream(stored: &HeaderMap, list: &[HeaderValue]) {
    let mut request = super::field(&IF_NONE_MATCH, list);
    assert!(make_conditional(&mut request, stored), "a tag is something to ask with");
    assert_eq!(request.get(IF_NONE_MATCH), stored.get(ETAG), "the client's conditions are gone");
    if is_well_formed(stored[ETAG].as_bytes()) {
        assert_eq!(evaluate(&request, Validators::of(stored)), Precondition::NotModified, "it names what is stored");
    }
    assert!(confirms(stored, stored) && confirms(stored, &HeaderMap::new()), "a 304 with the same tag confirms");
    assert_ne!(head_says(stored, 5, stored), HeadSays::Other, "so does a HEAD");
}

fn in_a_list(stored: &HeaderMap, tag: &HeaderValue, list: &[HeaderValue]) {
    let request = super::field(&IF_NONE_MATCH, list);
    let answer = evaluate(&request, Validators::of(stored));
    let tag = tag.as_bytes();
    let opaque = EntityTag::parse(tag).opaque;
    if answer == Precondition::NotModified {
        let named = |line: &HeaderValue| {
            let line = line.as_bytes();
            line.windows(opaque.len().max(1)).any(|part| part == opaque) || line.contains(&b'*') || opaque.is_empty()
        };
        assert!(list.iter().any(named), "304 only for a tag that the list names: {list:?}");
    }
    if !is_well_formed(tag) || !list.iter().all(|line| is_list(line.as_bytes())) {
        return;
    }
    // Put it in front of each line's members and behind them: it is found.
    for line in list.iter().map(HeaderValue::as_bytes).chain([&b""[..]]) {
        for joined in [[tag, b", ", line].concat(), [line, b",", tag].concat(), [line, b" ,\t, ", tag, b" ,"].concat()]
        {
            let Ok(joined) = HeaderValue::from_bytes(&joined) else { continue };
            let ask = |name| evaluate(&super::field(name, [&joined]), Validators::of(stored));
            assert_eq!(ask(&IF_NONE_MATCH), Precondition::NotModified, "{joined:?}");
            let weak = EntityTag::parse(tag).weak;
            let holds = ask(&IF_MATCH) == Precondition::Proceed { range: true };
            assert!(weak || holds, "If-Match holds for a strong tag in its list: {joined:?}");
        }
    }
}

/// Whether a line is a list of well-formed tags, cut by hand: at each quote that closes.
fn is_list(line: &[u8]) -> bool {
    let mut rest = line;
    loop {
        while let [b' ' | b'\t' | b',', after @ ..] = rest {
            rest = after;
        }
        if rest.is_empty() {
            return true;
        }
        let start = if rest.starts_with(b"W/") { 3 } else { 1 };
        let Some(end) = rest.iter().skip(start).position(|b| *b == b'"').map(|at| start + at + 1) else { return false };
        let (tag, after) = rest.split_at(end);
        rest = after;
        if !is_well_formed(tag) || !matches!(rest.first(), None | Some(b' ' | b'\t' | b',')) {
            return false;
        }
    }
}

/// §3.2: an update happens once, and never touches what names or frames the content.
fn updates(lines: &[HeaderValue]) {
    let mut stored = HeaderMap::new();
    stored.insert(ETAG, HeaderValue::from_static("\"own\""));
    stored.insert("content-length", HeaderValue::from_static("5"));
    stored.insert("x-kept", HeaderValue::from_static("1"));
    let names = ["etag", "content-length", "x-a", "last-modified", "connection", "content-encoding", "keep-alive"];
    let mut update = HeaderMap::new();
    for (name, line) in names.iter().cycle().zip(lines) {
        update.append(*name, line.clone());
    }
    let (mut once, untouched) = (stored.clone(), stored);
    freshen(&mut once, &update);
    let mut twice = once.clone();
    freshen(&mut twice, &update);
    assert_eq!(once, twice, "an update that comes twice changes nothing more");
    for name in ["etag", "content-length", "x-kept", "content-encoding"] {
        assert_eq!(once.get(name), untouched.get(name), "{name} is left as it is");
    }
    assert!(once.keys().all(|name| !is_hop_by_hop(name)), "nothing of one connection is kept");
    let nominates = |name: &str| {
        update.get_all(CONNECTION).iter().any(|line| String::from_utf8_lossy(line.as_bytes()).contains(name))
    };
    if let Some(line) = update.get(LAST_MODIFIED).filter(|_| !nominates("")) {
        assert_eq!(once.get(LAST_MODIFIED), Some(line), "all else is");
    }
}
