//! What a handler can tell apart is never conflated: not by delimiters inside the parts of a key, and not by the forms that a target,
//! a host or a field may have on the wire.

mod support;

use std::net::SocketAddr;

use http_body_util::Full;
use larder::{Policy, RequestHead};
use proptest::prelude::*;
use support::exchange::*;
use support::sockets::{serve, talk};

/// A request made of what keys are made of, with all that could be taken for a boundary between the parts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    target: String,
    host: String,
    fields: Vec<(&'static str, String)>,
}

/// Few letters and many delimiters, so that collisions would be found.
const VALUE: &str = "[ab,;:= /&?#%|\"\\\\\t\u{80}]{0,4}";

const FIELDS: [&str; 12] = [
    "x-tenant",
    "x-region",
    "x-user",
    "cookie",
    "forwarded",
    "x-forwarded-host",
    "x-forwarded-scheme",
    "x-forwarded-path",
    "x-host",
    "x-script-name",
    "front-end-https",
    "accept-language",
];

fn asked() -> impl Strategy<Value = Asked> {
    let cookie = prop::sample::select(vec![
        "a=1",
        "a=2",
        "b1=1",
        "b=1; a=1",
        "a=1; b1=x",
        "a=\"1; b1=x\"",
        "a",
        "a=",
        "ab=1",
        "c=1",
        "a=1;b1=x",
        "a=1; a=2",
    ]);
    let any_field = (prop::sample::select(FIELDS.to_vec()), VALUE);
    let field = prop_oneof![any_field, cookie.prop_map(|cookie| ("cookie", cookie.to_owned()))];
    let query = "(\\?[abu=&;+/?%20.]{0,5})?";
    let parts = ("/[ab%;:,=&+.]{0,4}", query, "[aAb]{1,2}(:80|:8|\\.)?", prop::collection::vec(field, 0..4));
    let parts = parts.prop_map(|(path, query, host, fields)| Asked { target: path + &query, host, fields });
    parts.prop_filter("a target that http can say", |asked| asked.target.parse::<http::Uri>().is_ok())
}

/// Requests that have nearly all in common, so that what differs is put to the test.
fn alike() -> impl Strategy<Value = Asked> {
    let queries = vec!["", "?", "?a=1", "?a=2", "?b=1&a=1", "?a=1&b=1", "?u=1", "?a=1&u=2", "?a=1&u=3", "?c=1"];
    let field = (prop::sample::select(vec!["x-tenant", "x-region"]), prop::sample::select(vec!["a", "b", ""]));
    let cookies =
        vec!["", "a=1", "a=2", "b1=1", "b2=1", "a=1; b1=1", "a=1; c=1", "a=1; c=2", "c=1", "b1=1; a=1", "a=1; a=2"];
    let parts = (prop::sample::select(queries), prop::collection::vec(field, 0..3), prop::sample::select(cookies));
    parts.prop_map(|(query, fields, cookie)| {
        let mut fields: Vec<_> = fields.into_iter().map(|(name, value)| (name, value.to_owned())).collect();
        if !cookie.is_empty() {
            fields.push(("cookie", cookie.to_owned()));
        }
        Asked { target: format!("/p{query}"), host: "h".to_owned(), fields }
    })
}

impl Asked {
    fn request(&self) -> http::Request<Full<bytes::Bytes>> {
        let mut request = request("GET", &self.target, &[("host", &self.host)]);
        for (name, value) in &self.fields {
            let value = http::HeaderValue::from_bytes(value.as_bytes()).expect("bytes that a value may have");
            request.headers_mut().append(*name, value);
        }
        request
    }
}

fn user(head: &RequestHead<'_>) -> Option<Vec<u8>> {
    let lines: Vec<_> = head.headers.get_all("x-user").iter().map(|line| line.as_bytes().to_vec()).collect();
    Some(lines.join(&b'\n'))
}

/// Tells all that it sees, but for spellings of a host that are the same (RFC 9110 §4.2.3), and the addresses in `Forwarded`.
fn tell_all() -> Handler {
    Handler::new(|head, _| {
        let host = String::from_utf8_lossy(head.headers["host"].as_bytes()).to_ascii_lowercase();
        let host = host.strip_suffix(":80").unwrap_or(&host).to_owned();
        let lines = |name: &str| -> Vec<Vec<u8>> {
            head.headers.get_all(name).iter().map(|line| line.as_bytes().to_vec()).collect()
        };
        let seen: Vec<_> = FIELDS.iter().filter(|name| **name != "forwarded").map(|name| (name, lines(name))).collect();
        answer(200, &[("vary", "accept-language")], format!("{:?} {host} {seen:?}", head.uri.path_and_query()))
    })
}

/// The policies, each with what it puts into keys. What it doesn't put there the handler must not see, or `Vary` must name.
fn policies() -> [Policy; 3] {
    let named = http::HeaderName::from_static;
    let all =
        |policy: Policy| policy.key_header(named("x-tenant")).key_header(named("x-region")).key_cookies(["a", "b*"]);
    [
        all(Policy::per(user, MINUTE)),
        all(Policy::per(user, MINUTE)).sort_query(),
        all(Policy::per(user, MINUTE)).sort_query().ignore_query(["u*"]).only_query(["a", "b*"]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    /// Each request gets from a cache that has seen all the others what it would get from one that has seen none.
    #[test]
    fn what_others_asked_changes_nothing(
        all in prop_oneof![prop::collection::vec(asked(), 2..8), prop::collection::vec(alike(), 8..24)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            for policy in policies() {
                let shared = House::with(tell_all(), |layer| layer.otherwise(policy.clone()));
                for asked in all.iter().chain(&all) {
                    let alone = House::with(tell_all(), |layer| layer.otherwise(policy.clone()));
                    let expected = alone.exchange(asked.request()).await.body;
                    let exchange = shared.exchange(asked.request()).await;
                    prop_assert_eq!(exchange.body, expected, "{}: {:?} among {:?}", exchange.x_cache, asked, all);
                }
            }
            Ok(())
        })?;
    }
}

/// The request line and `Host` as a handler sees them; `HIT` or `MISS` or `BYPASS`.
async fn told(address: SocketAddr, first: &str, lines: &str) -> (String, String) {
    let bytes = format!("{first} HTTP/1.1\r\n{lines}connection: close\r\n\r\n");
    let response = tokio::time::timeout(secs(20), talk(address, &bytes)).await.expect("an answer");
    let x_cache = response.lines().find_map(|line| line.strip_prefix("x-cache: ")).unwrap_or("none").to_owned();
    let body = response.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    (x_cache, body)
}

/// Tells target and `Host` as it got them.
fn tell_target() -> Handler {
    Handler::new(|head, _| {
        let host = head.headers.get("host").map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
        answer(200, &[("cache-control", "max-age=60")], format!("{} {host:?}", head.uri))
    })
}

#[tokio::test]
async fn forms_of_a_path_and_of_a_query_are_resources_of_their_own() {
    let house = House::new(tell_target());
    let address = serve(house.service.clone()).await;
    let targets = [
        // Paths.
        "/",
        "//",
        "///",
        "/a",
        "/a/",
        "//a",
        "/a//b",
        "/a/b",
        "/a%2Fb",
        "/a%2fb",
        "/a/./b",
        "/a/../b",
        "/b",
        "/a%00",
        "/a%0",
        "/a;x",
        "/a;X",
        "/a%3bx",
        "/a%3Bx",
        "/A",
        "/%61",
        "/%41",
        "/a%20",
        "/a+",
        "/a.",
        "/a%2e",
        "/a\\",
        "/a%5c",
        "/a:80",
        "/a@b",
        "/a%3F",
        "/a%3Fb=c",
        "/a%23",
        "/a,b",
        "/a|b",
        "/caf%C3%A9",
        "/caf%c3%a9",
        "/~a",
        "/%7Ea",
        "/a%252Fb",
        "/a*",
        "/*",
        // Queries.
        "/?",
        "/?a",
        "/?a=",
        "/?a&",
        "/?&a",
        "/?a=&",
        "/?a=1&b=2",
        "/?b=2&a=1",
        "/?a=1;b=2",
        "/?a=1%26b=2",
        "/?a=1&a=2",
        "/?a=2&a=1",
        "/?a+b",
        "/?a%20b",
        "/?a%2Bb",
        "/?a%2bb",
        "/?A",
        "/?%61",
        "/??",
        "/??a",
        "/?/",
        "/?a=/../b",
        "/?a=%00",
        "/?a[]=1",
        "/?a%5B%5D=1",
    ];
    for round in 0..2 {
        for target in targets {
            let (x_cache, told) = told(address, &format!("GET {target}"), "host: h\r\n").await;
            assert_eq!((x_cache.as_str(), told), (["MISS", "HIT"][round], format!("{target} Some(\"h\")")), "{target}");
        }
    }
    assert_eq!(house.handle.stats().storage.entries, targets.len() as u64);
}

#[tokio::test]
async fn forms_of_a_host_are_hosts_of_their_own_but_for_case_and_the_default_port() {
    let house = House::new(tell_target());
    let address = serve(house.service.clone()).await;
    let hosts = [
        "h",
        "h.",
        "h..",
        "h:81",
        "h:8080",
        "h:080",
        "h:0080",
        "h:",
        "g",
        "hh",
        "127.0.0.1",
        "[::1]",
        "[::1]:81",
        "h:81:80",
        "user@h",
        "h,g",
        "h g",
        "h/",
        "h\\g",
        "",
        "h%00",
    ];
    for round in 0..2 {
        for host in hosts {
            let (x_cache, told) = told(address, "GET /", &format!("host: {host}\r\n")).await;
            assert_eq!((x_cache.as_str(), told), (["MISS", "HIT"][round], format!("/ Some({host:?})")), "{host}");
        }
    }
    for same in ["H", "h:80", "H:80"] {
        assert_eq!(told(address, "GET /", &format!("host: {same}\r\n")).await.0, "HIT", "{same}");
    }
    // Absolute form is the same resource where it agrees with `Host` (RFC 9112 §3.2.2), and nobody's where it doesn't.
    let absolute = [
        ("GET http://h/", "host: h\r\n", "HIT"),
        ("GET http://H:80/", "host: h\r\n", "HIT"),
        ("GET HTTP://h/", "host: h\r\n", "HIT"),
        ("GET http://h", "host: h\r\n", "HIT"),
        ("GET http://g/", "host: h\r\n", "BYPASS"),
        ("GET http://h:81/", "host: h\r\n", "BYPASS"),
        ("GET http://h./", "host: h\r\n", "BYPASS"),
        ("GET http://user@h/", "host: h\r\n", "BYPASS"),
        ("GET http://h/", "host: h\r\nhost: h\r\n", "BYPASS"),
        ("GET /", "host: h\r\nhost: g\r\n", "BYPASS"),
        ("GET /", "host: g\r\nhost: h\r\n", "BYPASS"),
    ];
    for (first, lines, expected) in absolute {
        assert_eq!(told(address, first, lines).await.0, expected, "{first} {lines:?}");
    }
    assert_eq!(house.handle.stats().storage.entries, hosts.len() as u64);
}

/// A body, or a field by which a handler may take a GET for something else: neither looked up nor stored, and the next is unharmed.
#[tokio::test]
async fn what_makes_more_of_a_get_than_its_key_says_keeps_it_out() {
    let handler = Handler::new(|head, _| {
        answer(200, &[("cache-control", "max-age=60")], format!("{} {:?}", head.uri, head.headers))
    });
    let house = House::new(handler);
    let address = serve(house.service.clone()).await;
    let plain = told(address, "GET /", "host: h\r\n").await;
    assert_eq!(plain.0, "MISS");
    let rows = [
        "x-http-method-override: DELETE\r\n",
        "X-HTTP-Method: PUT\r\n",
        "x-method-override: POST\r\n",
        "x-original-url: /admin\r\n",
        "x-rewrite-url: /admin\r\n",
        "x-forwarded-uri: /admin\r\n",
        "x-original-url: \r\n",
        "content-length: 00\r\n",
    ];
    for line in rows {
        for target in ["/", "/new"] {
            let response = told(address, &format!("GET {target}"), &format!("host: h\r\n{line}")).await;
            assert_eq!(response.0, "BYPASS", "{line:?}");
        }
    }
    let bodies = [
        "GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: 4\r\n\r\nbody",
        "GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ];
    for bytes in bodies {
        assert!(talk(address, bytes).await.contains("x-cache: BYPASS"), "{bytes:?}");
    }
    assert_eq!(house.handle.stats().storage.entries, 1);
    assert_eq!(told(address, "GET /", "host: h\r\n").await, ("HIT".into(), plain.1));
}

/// A field by which a handler may read how it was addressed: a forged one is answered, and poisons only its own key.
#[tokio::test]
async fn a_forged_address_poisons_only_itself() {
    const NAMES: [&str; 18] = [
        "forwarded",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-forwarded-port",
        "x-forwarded-prefix",
        "x-forwarded-scheme",
        "x-forwarded-protocol",
        "x-forwarded-ssl",
        "x-forwarded-server",
        "x-forwarded-path",
        "x-host",
        "x-original-host",
        "x-http-host-override",
        "x-scheme",
        "x-url-scheme",
        "x-script-name",
        "x-envoy-original-path",
        "front-end-https",
    ];
    let handler = Handler::new(|head, _| {
        let seen: Vec<_> = NAMES.iter().filter_map(|name| head.headers.get(*name)).collect();
        answer(200, &[("cache-control", "max-age=60")], format!("{seen:?}"))
    });
    let house = House::new(handler);
    let address = serve(house.service.clone()).await;
    for name in NAMES {
        let forged = told(address, "GET /", &format!("host: h\r\n{name}: host=evil\r\n")).await;
        assert_eq!(forged, ("MISS".into(), "[\"host=evil\"]".into()), "{name}");
    }
    assert_eq!(told(address, "GET /", "host: h\r\n").await, ("MISS".into(), "[]".into()));
    for name in NAMES {
        let honest = told(address, "GET /", &format!("host: h\r\n{name}: host=h\r\n")).await;
        assert_eq!(honest, ("MISS".into(), "[\"host=h\"]".into()), "{name}");
    }
    for name in ["x-forwarded-for", "x-real-ip"] {
        assert_eq!(told(address, "GET /", &format!("host: h\r\n{name}: 1.2.3.4\r\n")).await.0, "HIT", "{name}");
    }
}
