//! Whatever bytes arrive, on either side of the cache, each request is answered, and nothing wrong is stored for the next.

mod support;

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, Version};
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use larder::{Cache, Policy};
use support::exchange::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A server on a real socket, HTTP/1.1 and HTTP/2.
struct Server {
    address: SocketAddr,
    house: House,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn new(handler: Handler) -> Self {
        let house = House::new(handler);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let task = tokio::spawn(serve(listener, house.service.clone()));
        Self { address, house, task }
    }

    /// Sends these bytes on a connection of their own, and returns all that comes back.
    async fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).await.expect("the server listens");
        stream.write_all(bytes).await.expect("the server reads");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("the server closes");
        answer
    }

    /// Sends a request for `target` with these lines.
    async fn send(&self, first: &str, lines: &[&[u8]]) -> Raw {
        let mut bytes = format!("{first} HTTP/1.1\r\nconnection: close\r\n").into_bytes();
        for line in lines {
            bytes.extend_from_slice(line);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        Raw::parse(&self.raw(&bytes).await)
    }

    async fn get(&self, target: &str) -> Raw {
        self.send(&format!("GET {target}"), &[b"host: a"]).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, service: Cache<Handler>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let service = TowerToHyperService::new(service.clone());
        tokio::spawn(async move {
            let server = auto::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// A response as it came over the wire.
#[derive(Debug)]
struct Raw {
    status: u16,
    fields: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl Raw {
    fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole head came back");
        let mut lines = bytes[..end].split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let first = String::from_utf8_lossy(lines.next().expect("a status line")).into_owned();
        let status = first.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let fields = lines.map(|line| {
            let colon = line.iter().position(|b| *b == b':').expect("a field");
            (String::from_utf8_lossy(&line[..colon]).to_lowercase(), line[colon + 1..].trim_ascii().to_vec())
        });
        Self { status, fields: fields.collect(), body: bytes[end + 4..].to_vec() }
    }

    fn bytes(&self, name: &str) -> &[u8] {
        self.fields.iter().find(|(other, _)| other == name).map_or(b"", |(_, value)| value)
    }

    fn field(&self, name: &str) -> &str {
        std::str::from_utf8(self.bytes(name)).expect("a text")
    }

    fn x_cache(&self) -> &str {
        self.field("x-cache")
    }
}

const FRESH: (&str, &str) = ("cache-control", "max-age=60");

/// Tells what it saw: method, target, `Host`, `X-Forwarded-Host`.
fn echo() -> Handler {
    Handler::new(|head, _| {
        let host = head.headers.get("host").map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
        let authority = head.uri.authority().map(|a| a.to_string());
        let forwarded = head.headers.get("x-forwarded-host").map(|host| host.as_bytes().to_vec());
        let target = head.uri.path_and_query().map_or("", |target| target.as_str());
        answer(200, &[FRESH], format!("{} {target} {:?} {forwarded:?}", head.method, host.or(authority)))
    })
}

/// A handler's answer with these bytes in a field.
fn answer_with(lines: &[(&'static str, &[u8])], body: &'static str) -> Response<Content> {
    let mut response = answer(200, &[], body);
    for (name, value) in lines {
        let value = HeaderValue::from_bytes(value).expect("bytes that a field may have");
        response.headers_mut().append(HeaderName::from_static(name), value);
    }
    response
}

#[tokio::test]
async fn malformed_fields_of_requests_are_answered_and_change_nothing_for_others() {
    let long = [b"cookie: ".to_vec(), vec![b'x'; 20_000]].concat();
    let many_ranges = [b"range: bytes=".to_vec(), b"0-0,".repeat(4000)].concat();
    let many_tags = [b"if-none-match: ".to_vec(), b"\"x\",".repeat(4000)].concat();
    let commas = [b"cache-control: ".to_vec(), vec![b','; 20_000]].concat();
    let lines: [&[u8]; 30] = [
        b"cache-control: max-age",
        b"cache-control: max-age=",
        b"cache-control: max-age=-1",
        b"cache-control: max-age=99999999999999999999999999",
        b"cache-control: =,;=\"",
        b"cache-control: \"unterminated",
        b"cache-control: max-age=\xff",
        b"cache-control: min-fresh=x, max-stale=y",
        b"pragma: \xff",
        b"range: bytes=",
        b"range: bytes=--",
        b"range: bytes=99999999999999999999999999-",
        b"range: bytes=5-2",
        b"range: \xff\xfe",
        b"if-range: \xff",
        b"if-none-match: \"",
        b"if-none-match: W/",
        b"if-none-match: \xff",
        b"if-modified-since: Sun, 99 Foo 9999 99:99:99 GMT",
        b"if-modified-since: -1",
        b"if-match: \x80",
        b"accept-encoding: \xff;q=",
        b"cookie: =;;=;\xff=\xff",
        b"authorization: \xff",
        b"forwarded: host=\"unterminated;;=,,",
        b"x-forwarded-host: \xff\xfe",
        &long,
        &many_ranges,
        &many_tags,
        &commas,
    ];
    for line in lines {
        let why = String::from_utf8_lossy(&line[..line.len().min(60)]).into_owned();
        // Whether it fills the store or reads from it.
        let server = Server::new(echo()).await;
        let first = server.send("GET /", &[b"host: a", line]).await;
        assert!(matches!(first.status, 200 | 206 | 304 | 412 | 416), "{why}: {first:?}");
        let second = server.get("/").await;
        assert_eq!(
            (second.status, second.body.starts_with(b"GET / Some(\"a\") None")),
            (200, true),
            "{why}: {second:?}"
        );
        // A range of what is stored may lie outside of it; the handler, which was asked first, knows no ranges.
        let third = server.send("GET /", &[b"host: a", line]).await;
        assert!(matches!(third.status, 200 | 206 | 304 | 412 | 416), "{why}: {third:?}");
        assert!(third.status != 200 || third.body == first.body, "{why}: {third:?}");
    }
}

#[tokio::test]
async fn malformed_fields_of_responses_make_the_cache_careful() {
    const MAX_AGE: (&str, &[u8]) = ("cache-control", b"max-age=60");
    const OK: (&str, &[u8]) = ("etag", b"\"a\"");
    type Lines = &'static [(&'static str, &'static [u8])];
    // Whether the second request is a hit.
    let rows: [(Lines, bool); 24] = [
        (&[MAX_AGE], true),
        (&[("cache-control", b"max-age=60, \"unterminated")], false),
        (&[("cache-control", b"max-age=\"60\"")], true),
        (&[("cache-control", b"max-age=-60")], false),
        (&[("cache-control", b"max-age=6 0")], false),
        (&[("cache-control", b"max-age=60, max-age=x")], false),
        (&[("cache-control", b"max-age=99999999999999999999999")], true),
        (&[("cache-control", b"max-age=60;no-store")], false),
        (&[("cache-control", b"max-age=\xff")], false),
        (&[("cache-control", b"=60, ,,;\xff"), ("expires", b"Thu, 01 Jan 2099 00:00:00 GMT")], true),
        (&[MAX_AGE, ("age", b"-1")], false),
        (&[MAX_AGE, ("age", b"x")], false),
        (&[MAX_AGE, ("age", b"99999999999999999999999999")], false),
        (&[MAX_AGE, ("age", b"1"), ("age", b"2")], false),
        (&[MAX_AGE, ("age", b"\xff")], false),
        (&[MAX_AGE, ("date", b"yesterday")], true),
        (&[MAX_AGE, ("date", b"Sun, 99 Foo 9999 99:99:99 GMT")], true),
        (&[MAX_AGE, ("date", b"Thu, 01 Jan 1970 00:00:00 GMT")], false),
        (&[MAX_AGE, ("etag", b"no quotes")], true),
        (&[MAX_AGE, ("etag", b"\xff"), OK], true),
        (&[MAX_AGE, ("vary", b"\xff")], false),
        (&[MAX_AGE, ("vary", b"a b")], false),
        (&[MAX_AGE, ("vary", b",,,")], true),
        (&[("expires", b"0")], false),
    ];
    for (lines, hit) in rows {
        let server = Server::new(Handler::new(move |_, _| answer_with(lines, "content"))).await;
        let first = server.get("/").await;
        assert_eq!((first.status, first.x_cache(), first.body.as_slice()), (200, "MISS", &b"content"[..]), "{lines:?}");
        let second = server.get("/").await;
        assert_eq!((second.status, second.body.as_slice()), (200, &b"content"[..]), "{lines:?}");
        assert_eq!(second.x_cache() == "HIT", hit, "{lines:?}: {}", second.field("cache-status"));
    }
}

/// A rule gives a lifetime to what says nothing; a slip of the pen that meant to forbid still forbids.
#[tokio::test]
async fn a_word_that_forbids_is_heard_in_junk_where_a_rule_has_a_ttl() {
    let rows: [(&[u8], bool); 18] = [
        (b"private; max-age=0", false),
        (b"private; max-age=60", false),
        (b"no-store; max-age=60", false),
        (b"max-age=60; no-store", false),
        (b"no-store;", false),
        (b"a=b\"c, no-store, d\"e", false),
        (b"no-store max-age=60", false),
        (b"\"no-store\"", false),
        (b"private=", false),
        (b"no-cache;x", false),
        (b"No-Store:true", false),
        (b"\xff;private", false),
        (b"ext=\"open, private", false),
        (b"", true),
        (b"foo; bar", true),
        (b"ext=\"no-store, private\"", true),
        (b"no-storey, unprivate", true),
        (b"ext=\"\\\"private\"", true),
    ];
    for (value, hit) in rows {
        let why = String::from_utf8_lossy(value);
        let handler = Handler::new(move |_, _| answer_with(&[("cache-control", value)], "content"));
        let house = House::with(handler, |layer| layer.otherwise(Policy::shared(MINUTE)));
        assert_eq!(house.get("/").await.x_cache, "MISS", "{why}");
        assert_eq!(house.get("/").await.x_cache == "HIT", hit, "{why}");
        assert_eq!(house.handle.stats().storage.entries, u64::from(hit), "{why}");
    }
}

/// What a rule keeps out stays out, in whatever letters somebody writes it.
#[tokio::test]
async fn a_path_in_other_letters_escapes_no_rule() {
    let handler = || Handler::new(|head, _| answer(200, &[], format!("{:?}", head.headers.get("cookie"))));
    let house = House::with(handler(), |layer| {
        layer
            .rule("^/account", Policy::bypass())
            .rule("^/@", Policy::per(|_: &_| None::<Vec<u8>>, MINUTE))
            .otherwise(Policy::shared(MINUTE))
    });
    for path in ["/%61ccount", "/acc%6Funt/x", "/%40me", "/%61%63%63%6f%75%6e%74"] {
        for user in ["victim", "attacker"] {
            let exchange = house.ask(path, &[("cookie", user)]).await;
            assert_eq!(exchange.cache_status, "larder; fwd=bypass; detail=ambiguous-path", "{path}");
            assert_eq!(exchange.body, format!("Some({user:?})"), "{path}");
        }
    }
    // Other letters for what the same rule matches are another resource, and no danger.
    for path in ["/shop", "/sh%6Fp", "/caf%C3%A9", "/a%20b"] {
        assert_eq!((house.get(path).await.x_cache, house.get(path).await.x_cache), ("MISS".into(), "HIT".into()));
    }
}

/// Web cache deception: a path that the rule takes for a static file and the handler for somebody's page.
#[tokio::test]
async fn a_rule_vouches_for_no_path_that_could_be_read_as_another() {
    let handler = || {
        Handler::new(|head, _| {
            answer(200, &[FRESH], format!("{} for {:?}", head.uri.path(), head.headers.get("cookie")))
        })
    };
    let paths = [
        "/static/..%2fme",
        "/static/..%2Fme",
        "/static/../me",
        "/static/./me",
        "/static/%2e%2e/me",
        "/static/..;/me",
        "/static/..%5cme",
        "/static/..\\me",
        "/me%2f..%2fstatic/",
        "/me%00/static/",
        "/me;/static/",
        "/me%3b/static/",
        "/me%3f/static/",
        "/me%23/static/",
        "/me%0a/static/",
        "/static//../me",
        "/static//me",
        "//me/static/",
        "/static/%252e%252e/me",
    ];
    for path in paths {
        for policy in [
            Policy::shared(MINUTE),
            Policy::guarded(MINUTE),
            Policy::per(|_: &_| Some("all"), MINUTE),
            Policy::from_origin().status_ttl(StatusCode::OK, MINUTE),
            Policy::from_origin().heuristics(true),
        ] {
            let house = House::with(handler(), |layer| layer.rule("/static/", policy.clone()).rule("^/me", policy));
            for user in ["victim", "attacker"] {
                let exchange = house.ask(path, &[("cookie", user)]).await;
                assert_eq!(exchange.cache_status, "larder; fwd=bypass; detail=ambiguous-path", "{path}");
                assert_eq!(exchange.body, format!("{path} for Some({user:?})"));
            }
            assert_eq!(house.handle.stats().storage.entries, 0, "{path}");
        }
        // Where nobody but the handler says that it may be stored, it knows what it speaks of; and each spelling is its own resource.
        let house = House::with(handler(), |layer| layer.rule("^/other", Policy::shared(MINUTE)));
        for x_cache in ["MISS", "HIT"] {
            let exchange = house.get(path).await;
            assert_eq!((exchange.x_cache.as_str(), exchange.body), (x_cache, format!("{path} for None")));
        }
        for other in ["/me", "/static/me"] {
            assert_eq!(house.get(other).await.x_cache, "MISS", "{path} is not {other}");
        }
    }
}

#[tokio::test]
async fn bytes_that_are_no_text_are_replayed_as_they_are() {
    let bytes: Vec<u8> = (0x20..=0xff).filter(|b| *b != 0x7f && *b != b' ').collect();
    let sent = bytes.clone();
    let server = Server::new(Handler::new(move |_, _| {
        let long = vec![b'y'; 20_000];
        answer_with(&[("cache-control", b"max-age=60"), ("x-bytes", &sent), ("x-long", &long)], "")
    }))
    .await;
    for x_cache in ["MISS", "HIT"] {
        let response = server.get("/").await;
        assert_eq!(response.x_cache(), x_cache);
        assert_eq!(response.bytes("x-bytes"), bytes);
        assert_eq!(response.bytes("x-long").len(), 20_000);
    }
}

#[tokio::test]
async fn methods_that_nobody_knows_reach_the_handler_and_are_never_stored() {
    let server = Server::new(echo()).await;
    for method in ["M-FOO", "get", "PURGE", "PROPFIND", "X"] {
        for _ in 0..2 {
            let response = server.send(&format!("{method} /"), &[b"host: a"]).await;
            assert_eq!((response.status, response.x_cache()), (200, "BYPASS"), "{method}");
            assert!(response.body.starts_with(method.as_bytes()), "{method}");
        }
    }
    assert!(server.get("/").await.body.starts_with(b"GET"));
}

#[tokio::test]
async fn hosts() {
    let server = Server::new(echo()).await;
    // The request, and what the cache does with it after the rows above.
    let rows: [(&str, &[&[u8]], &str); 13] = [
        ("GET /", &[], "MISS"),
        ("GET /", &[], "HIT"),
        ("GET /", &[b"host: a"], "MISS"),
        ("GET /", &[b"host: A:80"], "HIT"),
        ("GET /", &[b"host: a:81"], "MISS"),
        ("GET /", &[b"host: a", b"host: a"], "BYPASS"),
        ("GET /", &[b"host: a", b"host: evil"], "BYPASS"),
        ("GET http://a/", &[b"host: a"], "HIT"),
        ("GET http://a:80/", &[b"host: a"], "HIT"),
        ("GET http://evil/", &[b"host: a"], "BYPASS"),
        ("GET http://a/", &[b"host: evil"], "BYPASS"),
        ("GET /", &[b"host: \xff"], "MISS"),
        ("GET /", &[b"host: a"], "HIT"),
    ];
    for (first, lines, x_cache) in rows {
        let response = server.send(first, lines).await;
        assert_eq!(response.status, 200, "{first} {lines:?}");
        assert_eq!(response.x_cache(), x_cache, "{first} {lines:?}");
        if x_cache != "BYPASS" && lines.first().is_some_and(|host| host.eq_ignore_ascii_case(b"host: a")) {
            assert!(response.body.starts_with(b"GET / Some(\"a\")"), "{first} {lines:?}: {response:?}");
        }
    }
}

#[tokio::test]
async fn what_reroutes_a_request_keeps_it_out() {
    let server = Server::new(echo()).await;
    server.get("/").await;
    let rows: [&[u8]; 17] = [
        b"x-http-method-override: DELETE",
        b"x-http-method: PUT",
        b"x-method-override: POST",
        b"X-Original-URL: /admin",
        b"x-rewrite-url: /admin",
        b"x-original-uri: /admin",
        b"upgrade: websocket",
        b"x-original-url:",
        b"x-original-method: DELETE",
        b"x-forwarded-method: DELETE",
        b"x-forwarded-uri: /admin",
        b"x-override-url: /admin",
        b"x-http-path-override: /admin",
        b"x-http-destinationurl: /admin",
        // A proxy in between would take these fields away.
        b"connection: host",
        b"connection: keep-alive, Cookie",
        b"connection: \xff",
    ];
    for line in rows {
        let response = server.send("GET /", &[b"host: a", line]).await;
        assert_eq!(response.x_cache(), "BYPASS", "{}", String::from_utf8_lossy(line));
        let response = server.send("GET /other", &[b"host: a", line]).await;
        assert_eq!(response.x_cache(), "BYPASS", "{}", String::from_utf8_lossy(line));
    }
    assert_eq!(server.house.handle.stats().stored, 1);
    assert_eq!(server.get("/").await.x_cache(), "HIT");
}

#[tokio::test]
async fn a_forged_forwarded_host_poisons_only_itself() {
    let server = Server::new(echo()).await;
    let forged: [&[u8]; 6] = [
        b"x-forwarded-host: evil",
        b"x-forwarded-proto: evil",
        b"x-forwarded-port: 1",
        b"x-forwarded-prefix: /evil",
        b"forwarded: host=evil",
        b"forwarded: for=1.2.3.4;proto=evil",
    ];
    for line in forged {
        let why = String::from_utf8_lossy(line).into_owned();
        assert_eq!(server.send("GET /", &[b"host: a", line]).await.x_cache(), "MISS", "{why}");
        assert_eq!(server.send("GET /", &[b"host: a", line]).await.x_cache(), "HIT", "{why}: it is stored, apart");
    }
    assert_eq!(server.get("/").await.body, b"GET / Some(\"a\") None");
    for line in [&b"x-forwarded-for: 1.2.3.4"[..], b"x-real-ip: 1.2.3.4"] {
        assert_eq!(server.send("GET /", &[b"host: a", line]).await.x_cache(), "HIT", "addresses don't count");
    }
}

#[tokio::test]
async fn a_get_with_content_is_not_looked_up() {
    let server = Server::new(echo()).await;
    server.get("/").await;
    let rows: [&[u8]; 2] = [
        b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 4\r\n\r\nbody",
        b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
    ];
    for bytes in rows {
        let response = Raw::parse(&server.raw(bytes).await);
        assert_eq!((response.status, response.x_cache()), (200, "BYPASS"));
    }
    let empty = server.send("GET /", &[b"host: a", b"content-length: 0"]).await;
    assert_eq!(empty.x_cache(), "HIT", "no content at all");
}

#[tokio::test]
async fn targets_that_are_too_long_keep_out() {
    let server = Server::new(echo()).await;
    for (length, expected) in [(8000, ["MISS", "HIT"]), (8300, ["BYPASS"; 2]), (60_000, ["BYPASS"; 2])] {
        for target in [format!("/{}", "p".repeat(length)), format!("/?{}", "q".repeat(length))] {
            for x_cache in expected {
                let response = server.get(&target).await;
                assert_eq!((response.status, response.x_cache()), (200, x_cache), "{length}");
            }
        }
    }
}

#[tokio::test]
async fn http_1_and_http_2_share_what_is_stored() {
    let server = Server::new(echo()).await;
    let host = format!("localhost:{}", server.address.port());
    let uri = format!("http://{host}/shared?a=1");
    let first = server.send("GET /shared?a=1", &[format!("host: {host}").as_bytes()]).await;
    assert_eq!(first.x_cache(), "MISS");
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build(Fixed(server.address));
    let ask = || async {
        let request = http::Request::get(&uri).version(Version::HTTP_2).body(Empty::<Bytes>::new()).expect("a request");
        let (parts, body) = client.request(request).await.expect("an answer").into_parts();
        (parts, body.collect().await.expect("a body").to_bytes())
    };
    let (parts, body) = ask().await;
    assert_eq!(parts.version, Version::HTTP_2);
    assert_eq!(parts.headers["x-cache"], "HIT");
    assert_eq!(body, first.body);
    // And the other way round.
    server.house.handle.purge(larder::Selector::Everything).await.unwrap();
    assert_eq!(ask().await.0.headers["x-cache"], "MISS");
    assert_eq!(server.send("GET /shared?a=1", &[format!("host: {host}").as_bytes()]).await.x_cache(), "HIT");
}

/// Connects to this address, whatever the URI says.
#[derive(Clone)]
struct Fixed(SocketAddr);

impl tower::Service<http::Uri> for Fixed {
    type Response = TokioIo<TcpStream>;
    type Error = std::io::Error;
    type Future = futures_util::future::BoxFuture<'static, std::io::Result<TokioIo<TcpStream>>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let address = self.0;
        Box::pin(async move { TcpStream::connect(address).await.map(TokioIo::new) })
    }
}

/// Fields of one connection or one exchange are nobody else's.
#[tokio::test]
async fn fields_of_one_exchange_are_not_replayed() {
    let handler = Handler::new(|_, _| {
        let fields = [
            FRESH,
            ("x-request-id", "1"),
            ("traceparent", "1"),
            ("server-timing", "db;dur=1"),
            ("connection", "x-nominated"),
            ("x-nominated", "1"),
            ("proxy-authenticate", "Basic"),
            ("x-kept", "1"),
        ];
        answer(200, &fields, "")
    });
    let server = Server::new(handler).await;
    assert_eq!(server.get("/").await.field("x-request-id"), "1");
    let hit = server.get("/").await;
    assert_eq!((hit.x_cache(), hit.field("x-kept")), ("HIT", "1"));
    for name in ["x-request-id", "traceparent", "server-timing", "x-nominated", "proxy-authenticate"] {
        assert_eq!(hit.field(name), "", "{name}");
    }
}

/// A connection that dies in the middle of a request, or never sends a whole one, costs nobody else anything.
#[tokio::test]
async fn broken_connections_leave_the_server_as_it_was() {
    let server = Server::new(echo()).await;
    let rows: [&[u8]; 5] =
        [b"", b"GET", b"GET / HTTP/1.1\r\nhost:", b"\x00\x01\x02\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"];
    for bytes in rows {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{bytes:?}");
    }
    let smuggled = b"GET /a HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /b HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let _ = tokio::time::timeout(secs(5), server.raw(smuggled)).await;
    for target in ["/a", "/b"] {
        let response = server.get(target).await;
        assert!(response.body.starts_with(format!("GET {target} ").as_bytes()), "{response:?}");
    }
}
