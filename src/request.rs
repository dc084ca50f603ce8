//! What the cache looks at in a request: its head, and the facts read from its fields in one pass.

use http::{Extensions, HeaderMap, HeaderValue, Method, Request, Uri};

use crate::rfc9111::authority::{Authority, normalised};
use crate::rfc9111::coding::Accepts;
use crate::rfc9111::directives::RequestDirectives;
use crate::rfc9111::list::members;

/// The head of a request, as key parts and principals see it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct RequestHead<'a> {
    /// The method.
    pub method: &'a Method,
    /// The URI as the client sent it: before any `nest` of axum took a prefix away.
    pub uri: &'a Uri,
    /// The fields.
    pub headers: &'a HeaderMap,
    /// What layers outside of the cache attached, such as a session or a user.
    pub extensions: &'a Extensions,
}

impl<'a> RequestHead<'a> {
    /// The head of `request`.
    pub fn of<B>(request: &'a Request<B>) -> Self {
        Self {
            method: request.method(),
            uri: original_uri(request.extensions()).unwrap_or_else(|| request.uri()),
            headers: request.headers(),
            extensions: request.extensions(),
        }
    }
}

/// The target that the service inside is given, where a layer between the router and the cache made it another than the client sent. A `nest`
/// only takes a prefix away, which the client's URI says as well; any other change may depend on what no key has.
#[cfg(feature = "axum")]
pub(crate) fn rewritten<'r, B>(sent: &Uri, request: &'r Request<B>) -> Option<&'r Uri> {
    let seen = request.uri();
    // Without a nest both are one text in memory. A URI that names no path has `/` from elsewhere, so the query is looked at all the same.
    let same_query = sent.query() == seen.query();
    if std::ptr::eq(sent, seen) || same_query && std::ptr::eq(sent.path(), seen.path()) {
        return None;
    }
    let depth = |path: &str| path.split('/').filter(|segment| !segment.is_empty()).count();
    // Who else takes a prefix away may do so for some requests only, so a nest has to have taken all that is missing.
    let is_nested = request.extensions().get::<axum::extract::NestedPath>().is_some_and(|nest| {
        depth(nest.as_str()) + depth(seen.path()) == depth(sent.path())
            && (seen.path() == "/" || sent.path().ends_with(seen.path()))
    });
    let is_same = is_nested || sent.path() == seen.path();
    (!is_same || !same_query).then_some(seen)
}

#[cfg(not(feature = "axum"))]
pub(crate) fn rewritten<'r, B>(_: &Uri, _: &'r Request<B>) -> Option<&'r Uri> {
    None
}

#[cfg(feature = "axum")]
fn original_uri(extensions: &Extensions) -> Option<&Uri> {
    extensions.get::<axum::extract::OriginalUri>().map(|original| &original.0)
}

#[cfg(not(feature = "axum"))]
fn original_uri(_: &Extensions) -> Option<&Uri> {
    None
}

/// The scheme by which a request came, for an application that serves `http` and `https` and answers differently. HTTP/1 doesn't say it and
/// in HTTP/2 it is the client's word, so larder takes it only from this extension, which the side that accepted the connection
/// inserts; it is then part of the key.
///
/// ```
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(larder::Scheme("https"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheme(pub &'static str);

/// What a request's fields say, read in one pass over them.
#[derive(Clone, Debug, Default)]
pub(crate) struct RequestFacts<'a> {
    pub(crate) host: Option<&'a HeaderValue>,
    /// More than one `Host`.
    pub(crate) ambiguous_host: bool,
    pub(crate) authorization: bool,
    pub(crate) cookie: bool,
    /// `Cache-Control` or `Pragma`.
    pub(crate) directives: bool,
    /// Any condition, `If-Range` included.
    pub(crate) conditions: bool,
    pub(crate) range: bool,
    /// Fields of a proxy in front that say how the client addressed it.
    pub(crate) forwarded: bool,
    /// Among them such as few proxies send.
    pub(crate) forwarded_rarely: bool,
    /// Fields with which some frameworks replace the method or the target behind the cache's back.
    pub(crate) rerouted: bool,
    pub(crate) upgrade: bool,
    /// `Connection` names more than connections need.
    pub(crate) strips_fields: bool,
    /// The field lines say that content follows.
    pub(crate) content: bool,
    pub(crate) accept_encoding: Option<&'a HeaderValue>,
    /// More than one `Accept-Encoding`.
    pub(crate) many_accept_encodings: bool,
}

impl<'a> RequestFacts<'a> {
    pub(crate) fn read(headers: &'a HeaderMap) -> Self {
        let mut facts = Self::default();
        for (name, value) in headers {
            match name.as_str() {
                "host" => {
                    facts.ambiguous_host |= facts.host.is_some();
                    facts.host = Some(value);
                }
                "authorization" => facts.authorization = true,
                "cookie" => facts.cookie = true,
                "cache-control" | "pragma" => facts.directives = true,
                "if-match" | "if-none-match" | "if-modified-since" | "if-unmodified-since" | "if-range" => {
                    facts.conditions = true;
                }
                "range" => facts.range = true,
                "accept-encoding" => {
                    facts.many_accept_encodings |= facts.accept_encoding.is_some();
                    facts.accept_encoding = Some(value);
                }
                "forwarded" => facts.forwarded = true,
                "front-end-https" => (facts.forwarded, facts.forwarded_rarely) = (true, true),
                "upgrade" => facts.upgrade = true,
                "connection" => facts.strips_fields |= names_other_fields(value),
                "transfer-encoding" => facts.content = true,
                "content-length" => facts.content |= value.as_bytes() != b"0",
                name => {
                    if let Some(name) = name.strip_prefix("x-") {
                        facts.read_extension(name);
                    }
                }
            }
        }
        facts
    }

    /// A field whose name begins with `x-`.
    fn read_extension(&mut self, name: &str) {
        match name {
            "forwarded-host" | "forwarded-proto" | "forwarded-port" | "forwarded-prefix" => self.forwarded = true,
            // As in `forwarded::RARE`.
            "forwarded-scheme"
            | "forwarded-protocol"
            | "forwarded-ssl"
            | "forwarded-server"
            | "forwarded-path"
            | "host"
            | "original-host"
            | "http-host-override"
            | "scheme"
            | "url-scheme"
            | "script-name"
            | "envoy-original-path" => (self.forwarded, self.forwarded_rarely) = (true, true),
            "original-url"
            | "rewrite-url"
            | "override-url"
            | "original-uri"
            | "forwarded-uri"
            | "http-path-override"
            | "http-destinationurl"
            | "http-method"
            | "http-method-override"
            | "method-override"
            | "original-method"
            | "forwarded-method" => self.rerouted = true,
            _ => {}
        }
    }

    /// Host and port that the request is for; `None` where its parts disagree, so that the handler might see another than the key.
    pub(crate) fn authority(&self, uri: &Uri) -> Option<Authority> {
        if self.ambiguous_host {
            return None;
        }
        let from_host = self.host.map(|host| normalised(host.as_bytes(), None));
        let from_target = uri.authority().map(|authority| normalised(authority.as_str().as_bytes(), uri.scheme_str()));
        match (from_host, from_target) {
            (Some(host), Some(target)) => (host == target).then_some(host),
            (Some(only), None) | (None, Some(only)) => Some(only),
            (None, None) => Some(Authority::new()),
        }
    }

    /// `Host`, as it was sent, where nothing else says what the request is for: so it is in nearly all of HTTP/1.
    pub(crate) fn only_host(&self, uri: &Uri) -> Option<&'a [u8]> {
        self.host.filter(|_| !self.ambiguous_host && uri.authority().is_none()).map(HeaderValue::as_bytes)
    }

    /// The codings that the client accepts, where it says so in one line and without weights, as browsers do.
    pub(crate) fn accepts(&self) -> Option<Accepts> {
        let only = self.accept_encoding.filter(|_| !self.many_accept_encodings)?;
        Accepts::unweighted(only.as_bytes())
    }

    pub(crate) fn directives(&self, headers: &HeaderMap) -> RequestDirectives {
        if self.directives { RequestDirectives::parse(headers) } else { RequestDirectives::default() }
    }
}

/// Whether a `Connection` line nominates a field that means something beyond the connection (RFC 9110 §7.6.1).
fn names_other_fields(line: &HeaderValue) -> bool {
    const USUAL: [&[u8]; 6] = [b"close", b"keep-alive", b"upgrade", b"te", b"http2-settings", b"proxy-connection"];
    members(line.as_bytes()).any(|option| !USUAL.iter().any(|usual| option.eq_ignore_ascii_case(usual)))
}

/// Path and query, as a request in origin form would name them: `http://example.com?q` has the path `/`.
pub(crate) fn target_of(uri: &Uri) -> String {
    uri.query().map_or_else(|| uri.path().to_owned(), |query| format!("{}?{query}", uri.path()))
}

/// Whether a path could be read as another one by who decodes or normalises it: dot segments, empty segments, parameters of segments,
/// backslashes, and encoded bytes by which a path is divided or ended: control characters, `#`, `%`, `.`, `/`, `;`, `?`, `\\`.
pub(crate) fn is_ambiguous_path(path: &str) -> bool {
    path.contains("//")
        || path.contains(['\\', ';'])
        || path.split('/').any(|segment| matches!(segment, "." | ".."))
        || encoded(path).any(|byte| byte < 0x20 || b"#%./;?\\\x7f".contains(&byte))
}

/// Whether a path has any of the bytes by which it could be read as another one; nearly none has.
pub(crate) fn is_suspect_path(path: &str) -> bool {
    let (mut found, mut last) = (0, 0);
    // To the end without a branch for each byte: nearly always all of them are looked at.
    for byte in path.bytes() {
        let kind = KINDS[usize::from(byte)];
        found |= kind & SUSPECT | kind & last & SLASH;
        last = kind;
    }
    found != 0
}

/// A byte by which a path could be read as another one.
const SUSPECT: u8 = 1;
/// One that isn't, unless two of them stand together.
const SLASH: u8 = 2;

/// The kind of each byte.
static KINDS: [u8; 256] = {
    let mut kinds = [0; 256];
    kinds[b'/' as usize] = SLASH;
    let suspect = b".%\\;";
    let mut n = 0;
    while n < suspect.len() {
        kinds[suspect[n] as usize] = SUSPECT;
        n += 1;
    }
    kinds
};

/// The bytes that a path holds in encoded form.
fn encoded(path: &str) -> impl Iterator<Item = u8> {
    path.as_bytes().windows(3).filter_map(decode)
}

/// The byte that `%xy` stands for.
fn decode(code: &[u8]) -> Option<u8> {
    let [b'%', high, low] = *code else { return None };
    let digit = |b: u8| char::from(b).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

/// A path with all that is encoded in it decoded, where that is another one, and text.
pub(crate) fn percent_decoded(path: &str) -> Option<String> {
    let bytes = path.contains('%').then(|| decoded_where(path, |_| true))?;
    String::from_utf8(bytes).ok().filter(|decoded| decoded != path)
}

/// A path as who decodes it reads it, where that is another path in printable ASCII: `/%61dmin` is `/admin` for most.
pub(crate) fn decoded(path: &str) -> Option<String> {
    if !path.contains('%') || !encoded(path).any(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    String::from_utf8(decoded_where(path, u8::is_ascii_graphic)).ok()
}

/// The bytes of a path, those decoded that are `meant`.
fn decoded_where(path: &str, meant: impl Fn(&u8) -> bool) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::with_capacity(path.len()), path.as_bytes());
    while let [first, after @ ..] = rest {
        match rest.get(..3).and_then(decode).filter(&meant) {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority(uri: &'static str, hosts: &[&'static str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append("host", HeaderValue::from_static(host));
        }
        let uri = Uri::from_static(uri);
        let authority = RequestFacts::read(&headers).authority(&uri)?;
        Some(String::from_utf8(authority.to_vec()).unwrap())
    }

    #[test]
    fn the_authority_of_a_request() {
        // RFC 9110 §7.2, RFC 9112 §3.2.2
        assert_eq!(authority("/", &["Example.com:80"]).as_deref(), Some("example.com"));
        assert_eq!(authority("/", &[]).as_deref(), Some(""));
        assert_eq!(authority("/", &["a", "a"]), None, "repeated");
        assert_eq!(authority("http://a/", &["a:80"]).as_deref(), Some("a"), "absolute form");
        assert_eq!(authority("https://a:443/", &["a"]).as_deref(), Some("a"), "HTTP/2");
        assert_eq!(authority("http://a/", &["b"]), None, "they disagree");
    }

    #[cfg(feature = "axum")]
    #[test]
    fn without_a_nest_every_other_target_is_a_rewritten_one() {
        for (sent, seen, expected) in [
            ("/a/b?q", "/a/b?q", false),
            ("/a/b?q", "/b?q", true),
            ("/a/", "/", true),
            ("/a/b", "/a/c", true),
            ("/a/b", "/x/a/b", true),
            ("/a/b", "/", true),
            ("/a?q", "/a", true),
            ("/a?q=1", "/a?q=2", true),
            ("http://x?q=1", "http://x?q=2", true),
        ] {
            let mut request = Request::new(());
            *request.uri_mut() = seen.parse().unwrap();
            assert_eq!(rewritten(&sent.parse().unwrap(), &request).is_some(), expected, "{sent} {seen}");
        }
    }

    #[test]
    fn paths_that_can_be_read_otherwise() {
        for path in [
            "/a/../b",
            "/./a",
            "/a/..",
            "/a/..;x/b",
            "/a%2Fb",
            "/a%2fb",
            "/%2e%2E/",
            "/a%5cb",
            "/a\\b",
            "/a%00",
            "//a",
            "/a//",
            "/a;x",
            "/;/",
            "/a%3bx",
            "/a%3Fb",
            "/a%23b",
            "/a%0ab",
            "/a%252fb",
            "/a%7f",
        ] {
            assert!(is_suspect_path(path) && is_ambiguous_path(path), "{path}");
        }
        for path in ["/", "/a.b/.well-known/x", "/a..b", "/caf%C3%A9", "/a%20b", "/100%", "/%2"] {
            assert!(!is_ambiguous_path(path), "{path}");
        }
    }

    #[test]
    fn what_a_decoder_reads() {
        let rows = [
            ("/a", None),
            ("/caf%C3%A9", None),
            ("/a%20b", None),
            ("/100%", None),
            ("/%zz", None),
            ("/%61dmin", Some("/admin")),
            ("/%41%C3%A9%7E", Some("/A%C3%A9~")),
            ("/%2561", Some("/%61")),
            ("/%40me%", Some("/@me%")),
        ];
        for (path, expected) in rows {
            assert_eq!(decoded(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn connection_names_only_what_connections_need() {
        for (line, expected) in [("keep-alive, Upgrade", false), ("close", false), ("close, host", true), ("x", true)] {
            let mut headers = HeaderMap::new();
            headers.insert("connection", HeaderValue::from_static(line));
            assert_eq!(RequestFacts::read(&headers).strips_fields, expected, "{line}");
        }
    }

    #[test]
    fn one_pass_reads_all() {
        let mut headers = HeaderMap::new();
        for name in ["cookie", "range", "x-http-method-override", "x-forwarded-proto", "if-match", "upgrade"] {
            headers.insert(name, HeaderValue::from_static("x"));
        }
        headers.insert("content-length", HeaderValue::from_static("0"));
        let facts = RequestFacts::read(&headers);
        assert!(facts.cookie && facts.range && facts.rerouted && facts.forwarded && facts.conditions && facts.upgrade);
        assert!(!facts.authorization && !facts.content && !facts.directives);
    }

    /// Where the pass doesn't tell what is accepted, all lines are read again.
    #[test]
    fn codings_are_read_with_the_other_fields_if_one_line_names_them() {
        let rows: [(&[&'static str], bool); 6] = [
            (&["gzip, deflate, br, zstd"], true),
            (&["gzip"], true),
            (&["gzip;q=0.5"], false),
            (&["identity"], false),
            (&["gzip", "br"], false),
            (&[], false),
        ];
        for (lines, expected) in rows {
            let mut headers = HeaderMap::new();
            lines.iter().for_each(|line| _ = headers.append("accept-encoding", HeaderValue::from_static(line)));
            let accepts = RequestFacts::read(&headers).accepts();
            assert_eq!(accepts, expected.then(|| Accepts::of(&headers)), "{lines:?}");
        }
    }
}
