//! Conditions are answered from what is stored as the handler would have, and what the handler confirms is good again.

mod support;

use http::request::Parts;
use larder::{Outcome, Policy, StaleReason};
use support::exchange::*;

type Fields = &'static [(&'static str, &'static str)];

const FRESH: (&str, &str) = ("cache-control", "max-age=60");
/// One hour before the clock's start.
const MODIFIED: &str = "Wed, 31 Dec 2025 23:00:00 GMT";
const BEFORE: &str = "Wed, 31 Dec 2025 22:59:59 GMT";

fn ten_digits() -> House {
    House::new(Handler::new(|_, _| {
        let fields =
            [FRESH, ("etag", "\"a\""), ("last-modified", MODIFIED), ("content-type", "text/plain"), ("x-other", "1")];
        answer(200, &fields, "0123456789")
    }))
}

#[tokio::test]
async fn conditions_of_a_client_get_what_they_ask_for() {
    let rows: [(Fields, u16); 19] = [
        // RFC 9110 §13.1.2: weak comparison
        (&[("if-none-match", "\"a\"")], 304),
        (&[("if-none-match", "W/\"a\"")], 304),
        (&[("if-none-match", "\"b\", W/\"a\" , \"c\"")], 304),
        (&[("if-none-match", "\"b\""), ("if-none-match", "\"a\"")], 304),
        (&[("if-none-match", "*")], 304),
        (&[("if-none-match", "\"b\"")], 200),
        (&[("if-none-match", "a")], 200),
        // §13.1.3, and that it yields to If-None-Match
        (&[("if-modified-since", MODIFIED)], 304),
        (&[("if-modified-since", "Thu, 01 Jan 2026 00:00:00 GMT")], 304),
        (&[("if-modified-since", BEFORE)], 200),
        (&[("if-modified-since", "yesterday")], 200),
        (&[("if-modified-since", MODIFIED), ("if-none-match", "\"b\"")], 200),
        (&[("if-modified-since", BEFORE), ("if-none-match", "\"a\"")], 304),
        // §13.1.1: strong comparison, and §13.1.4
        (&[("if-match", "\"a\"")], 200),
        (&[("if-match", "*")], 200),
        (&[("if-match", "W/\"a\"")], 412),
        (&[("if-match", "\"b\"")], 412),
        (&[("if-unmodified-since", MODIFIED)], 200),
        (&[("if-unmodified-since", BEFORE)], 412),
    ];
    for (asked, status) in rows {
        let house = ten_digits();
        // The same, whether the answer comes from the store or fills it.
        for x_cache in ["MISS", "HIT"] {
            for method in if x_cache == "HIT" { &["GET", "HEAD"][..] } else { &["GET"] } {
                let why = format!("{x_cache} {method} {asked:?}");
                let exchange = house.exchange(request(method, "/", asked)).await;
                assert_eq!((exchange.status, exchange.x_cache.as_str()), (status, x_cache), "{why}");
                let content = if status == 200 && *method == "GET" { "0123456789" } else { "" };
                assert_eq!(exchange.body, content, "{why}");
                assert_eq!(exchange.has("content-type"), status == 200, "{why}");
                // §15.4.5: a 304 repeats what identifies and governs the representation.
                for name in ["etag", "cache-control"] {
                    assert_eq!(exchange.has(name), status != 412, "{why}: {name}");
                }
            }
        }
        assert_eq!(house.handler.calls(), 1);
        let asked = house.handler.last().headers;
        let conditions = ["if-match", "if-none-match", "if-modified-since", "if-unmodified-since"];
        assert!(conditions.iter().all(|name| !asked.contains_key(*name)), "the fill asks for the whole");
    }
}

#[tokio::test]
async fn conditions_are_for_what_would_have_been_a_success() {
    let house = House::new(Handler::saying_status(404, &[FRESH, ("etag", "\"a\"")]));
    for x_cache in ["MISS", "HIT"] {
        let exchange = house.ask("/", &[("if-none-match", "\"a\""), ("range", "bytes=0-0")]).await;
        assert_eq!((exchange.status, exchange.x_cache.as_str()), (404, x_cache), "RFC 9110 §13.2.1");
    }
}

#[tokio::test]
async fn a_tag_of_the_caches_own_serves_conditions() {
    let house = House::new(Handler::new(|_, _| answer(200, &[FRESH], "text")));
    let tag = house.get("/").await.field("etag").to_owned();
    assert!(tag.starts_with('"'), "{tag}");
    let exchange = house.ask("/", &[("if-none-match", &tag)]).await;
    assert_eq!((exchange.status, exchange.x_cache.as_str()), (304, "HIT"));
}

/// 304 to its own tag, with what `update` says; else 200.
fn confirming(update: Fields) -> Handler {
    Handler::new(move |head, n| {
        if head.headers.get("if-none-match").is_some_and(|tag| tag == "\"a\"") {
            return answer(304, update, "");
        }
        let fields =
            [FRESH, ("etag", "\"a\""), ("content-encoding", "br"), ("x-old", "old"), ("x-both", "1"), ("x-both", "2")];
        answer(200, &fields, format!("content {n}"))
    })
}

#[tokio::test]
async fn a_304_updates_the_fields_and_keeps_what_describes_the_content() {
    let house = House::new(confirming(&[
        ("cache-control", "max-age=100"),
        ("etag", "W/\"a\""),
        ("content-encoding", "gzip"),
        ("content-length", "3"),
        ("x-both", "3"),
        ("x-new", "new"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
    ]));
    house.get("/").await;
    house.advance(61);
    for (x_cache, age) in [("REVALIDATED", 0), ("HIT", 99), ("REVALIDATED", 1)] {
        house.advance(age);
        let exchange = house.get("/").await;
        assert_eq!((exchange.status, exchange.x_cache.as_str(), exchange.body.as_str()), (200, x_cache, "content 1"));
        let fields = ["cache-control", "etag", "content-encoding", "x-old", "x-both", "x-new", "x-hop", "connection"];
        let values = fields.map(|name| {
            exchange.headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>().join("|")
        });
        assert_eq!(values, ["max-age=100", "\"a\"", "br", "old", "3", "new", "", ""], "{x_cache}");
        assert!(!exchange.has("content-length") || exchange.field("content-length") == "9", "{x_cache}");
    }
}

#[tokio::test]
async fn a_304_answers_the_clients_own_conditions() {
    let rows: [(Fields, u16, &str); 4] = [
        (&[("if-none-match", "\"a\"")], 304, ""),
        (&[("if-none-match", "\"b\"")], 200, "content 1"),
        (&[("if-match", "\"b\"")], 412, ""),
        (&[("range", "bytes=0-2")], 206, "con"),
    ];
    for (asked, status, body) in rows {
        let house = House::new(confirming(&[FRESH]));
        house.get("/").await;
        house.advance(61);
        let exchange = house.ask("/", asked).await;
        assert_eq!(
            (exchange.status, exchange.body.as_str(), exchange.x_cache.as_str()),
            (status, body, "REVALIDATED"),
            "{asked:?}"
        );
        assert_eq!(house.get("/").await.x_cache, "HIT", "{asked:?}");
    }
}

#[tokio::test]
async fn a_304_that_forbids_to_store_ends_the_storing() {
    let house = House::new(confirming(&[("cache-control", "no-store")]));
    house.get("/").await;
    house.advance(61);
    let exchange = house.get("/").await;
    assert_eq!((exchange.status, exchange.x_cache.as_str(), exchange.body.as_str()), (200, "REVALIDATED", "content 1"));
    assert_eq!(house.handle.stats().storage.entries, 0);
}

#[tokio::test]
async fn a_304_that_names_another_tag_is_not_believed() {
    let answers = |head: &Parts, n: usize| match head.headers.get("if-none-match") {
        Some(_) => answer(304, &[FRESH, ("etag", "\"b\"")], ""),
        None => answer(200, &[FRESH, ("etag", "\"a\"")], format!("content {n}")),
    };
    let house = House::new(Handler::new(answers));
    house.get("/").await;
    house.advance(61);
    let exchange = house.get("/").await;
    assert_eq!(exchange.outcome.unwrap().outcome, Outcome::Stale(StaleReason::Unconfirmed));
    assert_eq!(exchange.body, "content 1");
    let exchange = house.get("/").await;
    assert_eq!((exchange.x_cache.as_str(), exchange.body.as_str()), ("MISS", "content 3"), "it was forgotten");

    let strict = House::with(Handler::new(answers), |layer| layer.strict_rfc());
    strict.get("/").await;
    strict.advance(61);
    assert_eq!(strict.get("/").await.x_cache, "REVALIDATED", "to the letter it is");
}

/// Weak or strong; and where stale answers are forbidden, there is none to send (RFC 9111 §5.2.2.2).
#[tokio::test]
async fn a_304_that_names_another_tag_confirms_nothing() {
    const STRICT: &str = "max-age=60, must-revalidate";
    // The stored tag, the one named by the 304, what is said of both, and what the client gets.
    let rows = [
        ("W/\"a\"", "W/\"b\"", "max-age=60", (200, "STALE")),
        ("\"a\"", "W/\"b\"", "max-age=60", (200, "STALE")),
        ("W/\"a\"", "\"b\"", "max-age=60", (200, "STALE")),
        ("W/\"a\"", "W/\"b\"", STRICT, (504, "MISS")),
        ("\"a\"", "\"b\"", STRICT, (504, "MISS")),
        ("\"a\"", "\"b\"", "max-age=60, proxy-revalidate", (504, "MISS")),
        ("\"a\"", "\"b\"", "s-maxage=60", (504, "MISS")),
        ("\"a\"", "\"b\"", "max-age=60, no-cache", (504, "MISS")),
        ("\"a\"", "W/\"a\"", STRICT, (200, "REVALIDATED")),
        ("W/\"a\"", "\"a\"", STRICT, (200, "REVALIDATED")),
    ];
    for (tag, named, said, expected) in rows {
        let why = format!("{tag}, {named}, {said}");
        let house = House::new(Handler::new(move |head, n| match head.headers.get("if-none-match") {
            Some(_) => answer(304, &[("etag", named)], ""),
            None => answer(200, &[("cache-control", said), ("etag", tag)], format!("content {n}")),
        }));
        house.get("/").await;
        house.advance(61);
        let exchange = house.get("/").await;
        assert_eq!((exchange.status, exchange.x_cache.as_str()), expected, "{why}");
        assert_eq!(exchange.body, if expected.0 == 200 { "content 1" } else { "" }, "{why}");
        let kept = house.handle.stats().storage.entries == 1;
        assert_eq!(kept, exchange.x_cache == "REVALIDATED", "{why}: it is forgotten");
        if !kept {
            assert_eq!(house.get("/").await.body, "content 3", "{why}: and asked for anew");
        }
    }
}

#[tokio::test]
async fn a_304_that_nobody_asked_for_passes_and_leaves_nothing() {
    let house = House::new(Handler::saying_status(304, &[FRESH, ("etag", "\"a\"")]));
    for _ in 0..2 {
        let exchange = house.get("/").await;
        assert_eq!((exchange.status, exchange.x_cache.as_str()), (304, "MISS"));
    }
}

#[tokio::test]
async fn a_new_answer_takes_the_old_ones_place() {
    let handler = Handler::new(|_, n| answer(200, &[FRESH, ("etag", &format!("\"{n}\""))], format!("content {n}")));
    let house = House::new(handler);
    house.get("/").await;
    house.advance(61);
    assert_eq!(house.get("/").await.cache_status, "larder; fwd=stale; stored");
    assert_eq!(house.handler.last().headers["if-none-match"], "\"1\"");
    assert_eq!(house.get("/").await.body, "content 2");
}

/// A 304 or the answer to a HEAD may come from a layer that knows nothing of the extension.
#[tokio::test]
async fn a_handlers_word_outlives_a_confirmation_without_it() {
    for method in ["GET", "HEAD"] {
        let house = House::new(Handler::new(|head, n| {
            let known = head.headers.contains_key("if-none-match");
            let mut response =
                answer(if known { 304 } else { 200 }, &[("etag", "\"a\"")], if known { "" } else { "content" });
            if n == 1 {
                response.extensions_mut().insert(larder::Cached::shared(MINUTE));
            }
            response
        }));
        house.get("/").await;
        house.advance(61);
        house.exchange(request(method, "/", &[])).await;
        assert_eq!(house.get("/").await.x_cache, "HIT", "{method}");
    }
}

/// The handler was asked for the whole, which turned out to be too large to keep: the client gets what it asked for all the same.
#[tokio::test]
async fn conditions_and_ranges_count_for_what_is_too_large_to_store() {
    let rows: [(Fields, (u16, &str, &str)); 9] = [
        (&[], (200, "", "0123456789")),
        (&[("if-none-match", "\"a\"")], (304, "", "")),
        (&[("if-none-match", "\"b\"")], (200, "", "0123456789")),
        (&[("if-modified-since", MODIFIED)], (304, "", "")),
        (&[("if-match", "\"b\"")], (412, "", "")),
        (&[("range", "bytes=0-1")], (206, "bytes 0-1/10", "01")),
        (&[("range", "bytes=-2")], (206, "bytes 8-9/10", "89")),
        (&[("range", "bytes=10-")], (416, "bytes */10", "")),
        (&[("range", "bytes=0-1"), ("if-range", "\"b\"")], (200, "", "0123456789")),
    ];
    // By the field, or by the body alone.
    for announced in [&[][..], &[("content-length", "10")]] {
        for (asked, expected) in rows {
            let why = format!("{announced:?}, {asked:?}");
            let handler = Handler::new(move |_, _| {
                let fields = [&[("etag", "\"a\""), ("last-modified", MODIFIED)][..], announced].concat();
                answer(200, &fields, "0123456789")
            });
            let policy = larder::Policy::shared(MINUTE);
            let house = House::with(handler, |layer| layer.max_body_size(9).otherwise(policy));
            for _ in 0..2 {
                let exchange = house.ask("/", asked).await;
                let got = (exchange.status, exchange.field("content-range"), exchange.body.as_str());
                assert_eq!(got, expected, "{why}");
                assert_eq!(exchange.cache_status, "larder; fwd=uri-miss; detail=body-too-large", "{why}");
            }
            assert_eq!(house.handle.stats().storage.entries, 0, "{why}");
        }
    }
}

/// What isn't to go out from the store is decided by all the same, also after a 304 that doesn't repeat it.
#[tokio::test]
async fn a_field_that_is_never_stored_counts_after_a_304_as_before() {
    let rows: [(&str, Fields, &str); 4] = [
        ("vary", &[("cache-control", "max-age=60"), ("vary", "accept-language")], "MISS"),
        ("cache-control", &[("cache-control", "no-cache")], "REVALIDATED"),
        ("cdn-cache-control", &[("cdn-cache-control", "no-cache")], "REVALIDATED"),
        ("cache-groups", &[("cache-control", "max-age=60"), ("cache-groups", "\"a\"")], "MISS"),
    ];
    for (name, fields, expected) in rows {
        let handler = Handler::new(move |head, n| match head.method.as_str() {
            "POST" => answer(200, &[("cache-group-invalidation", "\"a\"")], ""),
            _ if head.headers.contains_key("if-none-match") => answer(304, &[("etag", "\"v\"")], ""),
            _ => answer(200, &[fields, &[("etag", "\"v\"")]].concat(), format!("answer {n}")),
        });
        let house = House::with(handler, |layer| {
            layer.otherwise(Policy::shared(MINUTE)).never_store(name.parse().expect("a name"))
        });
        house.ask("/", &[("accept-language", "de")]).await;
        let confirmed = house.ask("/", &[("accept-language", "de"), ("cache-control", "no-cache")]).await;
        assert_eq!(confirmed.x_cache, "REVALIDATED", "{name}");
        // Where the rule gives the lifetime, `Cache-Control` is the cache's own.
        assert!(name == "cache-control" || !confirmed.has(name), "{name}");
        house.exchange(request("POST", "/other", &[])).await;
        assert_eq!(house.ask("/", &[("accept-language", "en")]).await.x_cache, expected, "{name}");
    }
}
