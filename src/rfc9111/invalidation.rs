//! What a write makes invalid (RFC 9111 §4.4): its target, and what `Location` and `Content-Location` name on the same origin.

use http::{HeaderMap, Method, StatusCode, Uri, header};

use super::authority;
use super::list::trim;

/// Whether the method is one that RFC 9110 §9.2.1 calls safe, or QUERY (RFC 10008 §2). Unknown methods are not: §4.4 speaks of "unsafe methods
/// or methods of unknown safety".
pub fn is_safe(method: &Method) -> bool {
    matches!(method.as_str(), "GET" | "HEAD" | "OPTIONS" | "TRACE" | "QUERY")
}

/// "a non-error response is one with a 2xx or 3xx status code" (§4.4).
pub fn invalidates(status: StatusCode) -> bool {
    status.is_success() || status.is_redirection()
}

/// The paths with query, on the origin of the request, that `Location` and `Content-Location` name.
///
/// `authority` is the request's, as normalised for its key; `target` is the path and query of the request, which relative references
/// are resolved against. What names another origin is left out: §4.4 forbids to invalidate it.
pub fn named_targets(authority: &[u8], target: &str, response: &HeaderMap) -> Vec<String> {
    [header::LOCATION, header::CONTENT_LOCATION]
        .iter()
        .filter_map(|name| response.get(name))
        .filter_map(|value| resolve(authority, target, std::str::from_utf8(trim(value.as_bytes())).ok()?))
        .collect()
}

/// Whether `Content-Location` says that the content is what is found at the target of the request itself (RFC 9110 §8.7). The parameters
/// are as for [`named_targets`].
pub fn is_located_at(authority: &[u8], target: &str, response: &HeaderMap) -> bool {
    let mut lines = response.get_all(header::CONTENT_LOCATION).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return false };
    let reference = std::str::from_utf8(trim(line.as_bytes())).ok();
    reference.and_then(|reference| resolve(authority, target, reference)).as_deref() == Some(target)
}

/// Resolves a reference (RFC 3986 §5.2); `None` if it leads to another origin or is none.
fn resolve(authority: &[u8], base: &str, reference: &str) -> Option<String> {
    let reference = reference.split('#').next().unwrap_or_default();
    let first = reference.split(['/', '?']).next().unwrap_or_default();
    if reference.starts_with("//") || first.ends_with(':') && reference[first.len()..].starts_with("//") {
        return same_origin(authority, reference);
    }
    if first.contains(':') {
        return None; // another scheme, such as `mailto:`
    }
    let (base_path, base_query) = split_query(base);
    let (path, query) = split_query(reference);
    let (path, query) = match path {
        "" => (base_path.to_owned(), query.or(base_query)),
        absolute if absolute.starts_with('/') => (remove_dot_segments(absolute), query),
        relative => {
            let folder = base_path.rfind('/').map_or("/", |slash| &base_path[..=slash]);
            (remove_dot_segments(&format!("{folder}{relative}")), query)
        }
    };
    Some(join(path, query))
}

fn same_origin(own: &[u8], reference: &str) -> Option<String> {
    let absolute = if reference.starts_with("//") { format!("http:{reference}") } else { reference.to_owned() };
    let uri: Uri = absolute.parse().ok()?;
    let named = authority::normalised(uri.authority()?.as_str().as_bytes(), uri.scheme_str());
    (named.as_slice() == own).then(|| join(remove_dot_segments(uri.path()), uri.query()))
}

fn split_query(text: &str) -> (&str, Option<&str>) {
    text.split_once('?').map_or((text, None), |(path, query)| (path, Some(query)))
}

fn join(path: String, query: Option<&str>) -> String {
    query.map_or(path.clone(), |query| format!("{path}?{query}"))
}

/// RFC 3986 §5.2.4, for a path that starts with a slash.
fn remove_dot_segments(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut folder = false;
    for segment in path.split('/').skip(1) {
        folder = matches!(segment, "." | "..");
        match segment {
            "." => {}
            ".." => drop(kept.pop()),
            other => kept.push(other),
        }
    }
    if folder {
        kept.push("");
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn references_are_resolved_on_the_same_origin_only() {
        // RFC 9111 §4.4, RFC 3986 §5.4
        let rows = [
            ("/x", Some("/x")),
            ("x?q=1#frag", Some("/a/x?q=1")),
            ("", Some("/a/b?base=1")),
            ("?q", Some("/a/b?q")),
            ("../x/./y", Some("/x/y")),
            ("../../../x", Some("/x")),
            ("./", Some("/a/")),
            ("..", Some("/")),
            ("http://Example.com:80/x", Some("/x")),
            ("//example.com/x?y", Some("/x?y")),
            ("http://other.com/x", None),
            ("http://example.com:8080/x", None),
            ("mailto:x@example.com", None),
            ("/x:y", Some("/x:y")),
            ("x//y", Some("/a/x//y")),
            ("http:", None),
            ("http:x", None),
            ("/x?ref=http://a", Some("/x?ref=http://a")),
        ];
        for (reference, expected) in rows {
            assert_eq!(resolve(b"example.com", "/a/b?base=1", reference).as_deref(), expected, "{reference}");
        }
    }

    #[test]
    fn both_fields_count_and_junk_does_not() {
        let mut headers = HeaderMap::new();
        headers.insert("location", HeaderValue::from_static("/one"));
        headers.insert("content-location", HeaderValue::from_bytes(b"\xff").unwrap());
        assert_eq!(named_targets(b"h", "/", &headers), ["/one"]);
        headers.insert("content-location", HeaderValue::from_static("two"));
        assert_eq!(named_targets(b"h", "/", &headers), ["/one", "/two"]);
    }

    #[test]
    fn unknown_methods_are_unsafe() {
        assert!(is_safe(&Method::HEAD) && !is_safe(&Method::POST));
        assert!(!is_safe(&Method::from_bytes(b"M-SEARCH").unwrap()));
        assert!(is_safe(&Method::from_bytes(b"QUERY").unwrap()) && !is_safe(&Method::from_bytes(b"query").unwrap()));
        assert!(invalidates(StatusCode::SEE_OTHER) && !invalidates(StatusCode::INTERNAL_SERVER_ERROR));
    }
}
