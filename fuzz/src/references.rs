//! What a write names (RFC 9111 §4.4): whatever `Location` says, only targets of the request's own origin are made invalid.
//!
//! The first line is the request's target, the second its authority, the third and fourth what the response names.

use http::HeaderMap;
use larder::rfc9111::authority::normalised;
use larder::rfc9111::invalidation::named_targets;

pub fn check(data: &[u8]) {
    let lines = super::values(data);
    let [target, authority, named @ ..] = lines.as_slice() else { return };
    let Ok(target) = target.to_str() else { return };
    if !target.starts_with('/') || target.contains('#') {
        return;
    }
    let authority = normalised(authority.as_bytes(), None);
    let mut headers = HeaderMap::new();
    for (name, value) in ["location", "content-location"].iter().zip(named) {
        headers.insert(*name, value.clone());
    }
    let found = named_targets(&authority, target, &headers);
    assert!(found.len() <= headers.len(), "no more than was named");
    for path in &found {
        assert!(path.starts_with('/'), "{path:?} is a target");
        assert!(!path.contains('#'), "{path:?} has no fragment");
    }
    for (path, reference) in found.iter().zip(headers.values()).filter(|_| found.len() == headers.len()) {
        let Ok(text) = reference.to_str() else { continue };
        let text = text.trim_matches([' ', '\t']);
        let before = text.split(['/', '?', '#']).next().unwrap_or_default();
        let absolute = before.is_empty() || before.ends_with(':');
        if let Some(rest) = text[before.len()..].strip_prefix("//").filter(|_| absolute) {
            let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
            let host = host.to_ascii_lowercase();
            let own = String::from_utf8_lossy(&authority).into_owned();
            assert!(host.starts_with(&own), "{text:?} is of another origin than {own:?}, and yet {path:?} was found");
        }
        let named = path.split('?').next().unwrap_or_default();
        let dots = named.split('/').any(|segment| matches!(segment, "." | ".."));
        // An empty reference, or one of a query alone, names the request's own path, as the client sent it.
        assert!(!dots || target.starts_with(named), "{path:?} is resolved");
    }
}
