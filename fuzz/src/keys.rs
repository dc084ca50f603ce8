//! Keys: two resources have the same key only if they are the same.
//!
//! Six lines: authority, path and query of one resource, then of another. A query of `-` is none.

use larder::CacheKey;
use larder::rfc9111::authority::normalised;

pub fn check(data: &[u8]) {
    let mut lines = data.split(|b| *b == b'\n');
    let mut parts = || {
        let authority = lines.next().unwrap_or_default();
        let path = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
        let query = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
        (authority, path, Some(query).filter(|query| query != "-"))
    };
    let (one, other) = (parts(), parts());
    let key =
        |(authority, path, query): &(&[u8], String, Option<String>)| CacheKey::new(authority, path, query.as_deref());
    let (a, b) = (key(&one), key(&other));
    assert_eq!(one == other, a == b, "keys are equal where their parts are");
    assert_eq!(a == b, a.as_bytes() == b.as_bytes(), "and so are their bytes");
    assert_eq!(a.resource(), a.as_bytes(), "nothing was added");
    assert!(
        one == other || !a.as_bytes().starts_with(b.as_bytes()) || (&one.0, &one.1) == (&other.0, &other.1),
        "a key begins as another one only if that has no query"
    );
    // A boundary that moves from one part to its neighbour is another key.
    let moved = CacheKey::new(one.0, &format!("{}?{}", one.1, one.2.clone().unwrap_or_default()), None);
    assert_ne!(a, moved);
    assert_ne!(a, CacheKey::new(&[one.0, one.1.as_bytes()].concat(), &format!("/{}", one.1), one.2.as_deref()));
    authorities(one.0, other.0);
}

/// RFC 9110 §4.2.3: case and the default port mean nothing, and all else does.
fn authorities(one: &[u8], other: &[u8]) {
    for (scheme, port) in [(None, &b":80"[..]), (Some("http"), b":80"), (Some("HTTPS"), b":443")] {
        let (a, b) = (normalised(one, scheme), normalised(other, scheme));
        assert_eq!(normalised(&one.to_ascii_uppercase(), scheme), a, "case means nothing");
        let bare = |text: &[u8]| text.strip_suffix(port).unwrap_or(text).to_ascii_lowercase();
        assert_eq!(a == b, bare(one) == bare(other), "nothing but case and the default port is taken away");
    }
}
