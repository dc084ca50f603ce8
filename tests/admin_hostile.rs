//! What the hostile send to the admin API over a socket is refused within milliseconds, or harmless.
#![cfg(feature = "admin")]

mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use larder::admin::{self, Access, Token};
use larder::{CacheHandle, CacheLayer};
use support::desk::TOKEN;
use support::exchange::Handler;
use support::sockets::{serve, talk};
use tower::{Layer, ServiceExt};

/// Far more than anything here should take, so that a busy machine fails no test.
const SOON: Duration = Duration::from_secs(1);

/// The API on a socket, over a cache that has one entry.
struct Api {
    address: SocketAddr,
    handle: CacheHandle,
}

impl Api {
    async fn start() -> Self {
        let layer = CacheLayer::in_memory(1 << 20);
        let app = layer.layer(Handler::saying(&[("cache-control", "max-age=60")]));
        app.oneshot(support::exchange::get("/stored/1")).await.expect("an answer");
        let (handle, token) = (layer.handle(), Token::new(TOKEN).expect("a token"));
        assert_eq!(handle.stats().storage.entries, 1);
        Self { address: serve(admin::router(handle.clone(), Access::token(token))).await, handle }
    }

    /// Sends a request with these lines beside those that every one has, and returns the status and the whole answer.
    async fn send(&self, line: &str, fields: &[&str], content: &str) -> (u16, String) {
        let mut request = format!("{line} HTTP/1.1\r\nconnection: close\r\n");
        if !fields.iter().any(|field| field.starts_with("host:")) {
            request += "host: localhost\r\n";
        }
        for field in fields {
            request += &format!("{field}\r\n");
        }
        if !content.is_empty() {
            request += &format!("content-length: {}\r\n", content.len());
        }
        let start = Instant::now();
        let answer = talk(self.address, &format!("{request}\r\n{content}")).await;
        assert!(start.elapsed() < SOON, "{:.80} took {:?}", line, start.elapsed());
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.unwrap_or_else(|| panic!("{line:.80}: {answer}")), answer)
    }

    /// The same from who has the token.
    async fn with_token(&self, line: &str, fields: &[&str], content: &str) -> (u16, String) {
        let token = format!("authorization: Bearer {TOKEN}");
        let fields: Vec<&str> = [token.as_str()].into_iter().chain(fields.iter().copied()).collect();
        self.send(line, &fields, content).await
    }

    /// Whether nothing was purged, and the API still answers who may ask.
    async fn assert_unharmed(&self) {
        assert_eq!(self.handle.stats().purges, 0, "nothing was purged");
        assert_eq!(self.with_token("GET /stats", &[], "").await.0, 200);
    }
}

const PURGE: &str = "POST /invalidate/all";
const JSON: &str = "content-type: application/json";

#[tokio::test]
async fn without_a_token_nothing_is_done() {
    let api = Api::start().await;
    for line in
        [PURGE, "GET /stats", "PUT /config", "GET /entries", "GET /openapi.json", "GET /no/such", "BREW /coffee"]
    {
        let (status, answer) = api.send(line, &[], "").await;
        assert_eq!(status, 401, "{line}");
        assert!(answer.contains("www-authenticate: Bearer") && answer.contains("application/problem+json"), "{answer}");
    }
    api.assert_unharmed().await;
}

#[tokio::test]
async fn a_wrong_token_opens_nothing() {
    let api = Api::start().await;
    let long = format!("authorization: Bearer {}", "x".repeat(60_000));
    for field in [
        "authorization: Bearer 0f9e6a51c4b27d380f9e6a51c4b27d39",
        "authorization: Bearer 0f9e6a51c4b27d380f9e6a51c4b27d3",
        "authorization: Bearer ",
        "authorization: Bearer",
        "authorization: Basic MGY5ZTZhNTFjNGIyN2QzODowZjllNmE1MWM0YjI3ZDM4",
        "authorization: Bearer \u{7f}\u{80}",
        &long,
    ] {
        let (status, answer) = api.send(PURGE, &[field], "").await;
        assert!([400, 401].contains(&status), "{field:.60}: {answer}");
    }
    let twice = format!("authorization: Bearer {TOKEN}");
    assert_eq!(api.send(PURGE, &[&twice, &twice], "").await.0, 401, "two fields");
    api.assert_unharmed().await;
}

#[tokio::test]
async fn a_token_counts_in_no_other_place_than_its_field() {
    let api = Api::start().await;
    for (line, field) in [
        (format!("{PURGE}?access_token={TOKEN}"), "x-a: b".to_owned()),
        (format!("{PURGE}?token={TOKEN}&authorization=Bearer%20{TOKEN}"), "x-a: b".to_owned()),
        (PURGE.to_owned(), format!("cookie: access_token={TOKEN}; authorization=Bearer {TOKEN}")),
        (PURGE.to_owned(), format!("x-api-key: {TOKEN}")),
        (PURGE.to_owned(), format!("proxy-authorization: Bearer {TOKEN}")),
    ] {
        let (status, answer) = api.send(&line, &[&field], "").await;
        assert_eq!(status, 401, "{line} {field}");
        assert!(!answer.contains(TOKEN), "{answer}");
    }
    // And beside a right one it is refused, so that nobody gets used to it.
    assert_eq!(api.with_token(&format!("{PURGE}?access_token={TOKEN}"), &[], "").await.0, 422);
    api.assert_unharmed().await;
}

#[tokio::test]
async fn a_page_from_elsewhere_is_refused_whatever_it_has() {
    let api = Api::start().await;
    for fields in [
        &["origin: http://evil.example"][..],
        &["origin: null"],
        &["origin: http://localhost.evil.example"],
        &["origin: http://localhost:81"],
        &["sec-fetch-site: cross-site"],
        &["sec-fetch-site: same-site"],
        &["origin: http://localhost", "sec-fetch-site: cross-site"],
        &["origin: http://localhost", "origin: http://evil.example"],
    ] {
        assert_eq!(api.with_token(PURGE, fields, "").await.0, 403, "{fields:?}");
    }
    // What a form can send without asking.
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        let field = format!("content-type: {kind}");
        assert_eq!(api.with_token(PURGE, &[&field], "{\"mode\": \"hard\"}").await.0, 415, "{kind}");
    }
    api.assert_unharmed().await;
}

#[tokio::test]
async fn a_foreign_host_is_not_answered() {
    let api = Api::start().await;
    for host in ["evil.example", "localhost.evil.example", "127.0.0.1.nip.example", "user@localhost", "localhost:80:80"]
    {
        let (status, answer) = api.with_token(PURGE, &[&format!("host: {host}")], "").await;
        assert!([400, 421].contains(&status), "{host}: {answer}");
    }
    assert_eq!(api.with_token("POST http://evil.example/invalidate/all", &[], "").await.0, 421, "absolute form");
    assert_eq!(api.with_token(PURGE, &["host: localhost", "host: evil.example"], "").await.0, 400, "two");
    api.assert_unharmed().await;
}

#[tokio::test]
async fn a_pattern_of_a_megabyte_is_refused() {
    let api = Api::start().await;
    let (megabyte, kilobytes) = ("a".repeat(1 << 20), "a".repeat(5000));
    // The server itself refuses such a target.
    let (status, _) = api.with_token(&format!("POST /invalidate/pattern?pattern={megabyte}"), &[], "").await;
    assert!([400, 414, 431].contains(&status), "{status}");
    assert_eq!(
        api.with_token(&format!("POST /invalidate/pattern?pattern={kilobytes}{kilobytes}"), &[], "").await.0,
        414
    );
    assert_eq!(api.with_token(&format!("POST /invalidate/pattern?pattern={kilobytes}"), &[], "").await.0, 422);
    let content = format!("{{\"pattern\": \"{megabyte}\"}}");
    assert_eq!(api.with_token("POST /invalidate/pattern", &[JSON], &content).await.0, 413);
    let content = format!("{{\"regex\": \"{kilobytes}\"}}");
    assert_eq!(api.with_token("POST /invalidate/pattern", &[JSON], &content).await.0, 422);
    api.assert_unharmed().await;
}

/// Patterns that take some engines for ever, or much memory, take this one no time.
#[tokio::test]
async fn a_pattern_that_is_slow_elsewhere_is_harmless() {
    let api = Api::start().await;
    for pattern in ["(a*)*$", "(a%7Ca)*b", "(a%2B)%2B%2B$", "%5E(([a-z])%2B.)%2B%5BA-Z%5D([a-z])%2B$"] {
        let (status, answer) =
            api.with_token(&format!("POST /invalidate/pattern?regex={pattern}&dry_run"), &[], "").await;
        assert!([200, 422].contains(&status), "{pattern}: {answer}");
        let (status, _) = api.with_token(&format!("POST /invalidate/pattern?pattern={pattern}&dry_run"), &[], "").await;
        assert_eq!(status, 200, "as a glob: {pattern}");
    }
    for regex in ["a{1000}{1000}", "\\\\pL{900}", "(((a{100}){100}){100})"] {
        let content = format!("{{\"regex\": \"{regex}\", \"dry_run\": true}}");
        assert_eq!(api.with_token("POST /invalidate/pattern", &[JSON], &content).await.0, 422, "{regex}");
    }
    api.assert_unharmed().await;
}

#[tokio::test]
async fn ten_thousand_stars_are_harmless() {
    let api = Api::start().await;
    let stars = |n: usize| "*".repeat(n);
    assert_eq!(api.with_token(&format!("POST /invalidate/pattern?pattern={}", stars(10_000)), &[], "").await.0, 414);
    let content = format!("{{\"pattern\": \"{}\"}}", stars(10_000));
    assert_eq!(api.with_token("POST /invalidate/pattern", &[JSON], &content).await.0, 422);
    // As many as are let in, against all that is stored; what compiles to too much is refused.
    for (pattern, may_be_refused) in [
        (stars(1000), false),
        (format!("{}b", "*a".repeat(30)), false),
        (format!("{}b", "*a".repeat(500)), true),
        (format!("{}x", "*?".repeat(500)), true),
    ] {
        let content = format!("{{\"pattern\": \"{pattern}\", \"dry_run\": true}}");
        let line = format!("GET /entries?pattern={}", pattern.replace('?', "%3F"));
        for status in [
            api.with_token("POST /invalidate/pattern", &[JSON], &content).await.0,
            api.with_token(&line, &[], "").await.0,
        ] {
            assert!(status == 200 || status == 422 && may_be_refused, "{pattern:.9}: {status}");
        }
    }
    api.assert_unharmed().await;
}

#[tokio::test]
async fn control_bytes_are_refused_in_tags_keys_and_all_else() {
    let api = Api::start().await;
    for bytes in ["%00", "a%0d%0aset-cookie%3Ax", "%1b%5b2J", "%7f", "%c2%85", "%ff%fe", "%c0%af"] {
        for line in [
            format!("POST /invalidate/tag/{bytes}"),
            format!("POST /invalidate/key/%2F{bytes}"),
            format!("POST /invalidate/pattern?pattern={bytes}"),
            format!("POST /purge?selector=tag:{bytes}"),
            format!("POST /invalidate/partition?principal={bytes}"),
            format!("GET /entries?cursor={bytes}"),
            format!("GET /entries/{bytes}"),
            format!("GET /stats?{bytes}={bytes}"),
        ] {
            let (status, answer) = api.with_token(&line, &[], "").await;
            assert!([404, 422].contains(&status) || line.starts_with("GET /stats"), "{line}: {answer}");
            assert!(!answer.contains("set-cookie:") && !answer.contains(['\0', '\u{1b}']), "{answer:?}");
        }
    }
    for content in ["{\"selector\": \"tag:\\u0000\"}", "{\"selector\": \"tag:a\\r\\nb\"}"] {
        assert_eq!(api.with_token("POST /purge", &[JSON], content).await.0, 422, "{content}");
    }
    assert_eq!(api.with_token("POST /purge", &[JSON], "{\"selector\": \"tag:\u{0}\"}").await.0, 400, "no JSON");
    api.assert_unharmed().await;
}

#[tokio::test]
async fn deep_json_and_deep_toml_are_refused() {
    let api = Api::start().await;
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(10_000), close.repeat(10_000));
    for content in [
        deep("[", "]"),
        deep("{\"a\":", "}"),
        format!("{{\"default_ttl_seconds\": {}}}", deep("[", "]")),
        "[".repeat(100_000),
        "{\"a\":".repeat(20_000),
    ] {
        for line in ["PUT /config", "POST /purge"] {
            assert_eq!(api.with_token(line, &[JSON], &content).await.0, 400, "{line} {content:.30}");
        }
    }
    for content in [
        format!("a = {}", deep("[", "]")),
        format!("a = {}1{}", "{a = ".repeat(10_000), "}".repeat(10_000)),
        format!("[{}a]", "a.".repeat(10_000)),
        format!("{}a = 1", "a.".repeat(10_000)),
    ] {
        let (status, answer) = api.with_token("PUT /config", &["content-type: application/toml"], &content).await;
        assert_eq!(status, 422, "{answer:.200}");
    }
    api.assert_unharmed().await;
}

#[tokio::test]
async fn a_huge_body_is_refused_before_it_is_read() {
    let api = Api::start().await;
    let announced = ["content-length: 100000000000", JSON];
    assert_eq!(api.with_token("PUT /config", &announced, "").await.0, 413);
    let chunk = format!("{:x}\r\n{}\r\n", 100_000, " ".repeat(100_000));
    let chunked = format!(
        "PUT /config HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nauthorization: Bearer {TOKEN}\r\n{JSON}\r\ntransfer-encoding: chunked\r\n\r\n{}0\r\n\r\n",
        chunk.repeat(4)
    );
    let start = Instant::now();
    let answer = talk(api.address, &chunked).await;
    assert!(answer.starts_with("HTTP/1.1 413") && start.elapsed() < SOON, "{answer}");
    assert_eq!(api.send("PUT /config", &announced, "").await.0, 401, "and from strangers for another reason");
    api.assert_unharmed().await;
}

#[tokio::test]
async fn a_wrong_content_type_is_refused() {
    let api = Api::start().await;
    for kind in
        ["text/json", "application/jsonp", "application/json, application/toml", "", "application/x-toml", "json"]
    {
        let field = format!("content-type: {kind}");
        assert_eq!(api.with_token("PUT /config", &[&field], "{}").await.0, 415, "{kind:?}");
    }
    assert_eq!(api.with_token("PUT /config", &[JSON, JSON], "{}").await.0, 415, "two");
    assert_eq!(api.with_token("PUT /config", &[JSON, "content-encoding: gzip"], "{}").await.0, 415, "coded");
    api.assert_unharmed().await;
}

#[tokio::test]
async fn unknown_fields_and_parameters_are_refused() {
    let api = Api::start().await;
    for (line, content) in [
        ("POST /invalidate/all?dryrun=true", ""),
        ("POST /invalidate/all?dry_run=maybe", ""),
        ("POST /invalidate/all?mode=hard&mode=soft", ""),
        ("POST /invalidate/all", "{\"dryrun\": true}"),
        ("POST /invalidate/all", "{\"mode\": {\"soft\": true}}"),
        ("PUT /config", "{\"default_ttl\": 1}"),
        ("PUT /config?dryrun", "{}"),
        ("GET /entries?path=/a", ""),
    ] {
        let fields: &[&str] = if content.is_empty() { &[] } else { &[JSON] };
        assert_eq!(api.with_token(line, fields, content).await.0, 422, "{line} {content}");
    }
    let many: String = (0..100).map(|n| format!("p{n}=1&")).collect();
    assert_eq!(api.with_token(&format!("POST /invalidate/all?{many}"), &[], "").await.0, 400);
    api.assert_unharmed().await;
}
