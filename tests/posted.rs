//! The answer to a POST answers a later GET only where somebody switched that on, and where it says itself that it does (RFC 9110 §9.3.3).

mod support;

use http::Request;
use http_body_util::Full;
use larder::{CacheLayer, Policy, Selector};
use support::exchange::*;

type Setup = fn(CacheLayer) -> CacheLayer;
type Fields = &'static [(&'static str, &'static str)];

const FRESH: (&str, &str) = ("cache-control", "max-age=60");
const HERE: (&str, &str) = ("content-location", "/a");

fn post(target: &str, fields: &[(&str, &str)]) -> Request<Full<bytes::Bytes>> {
    let (parts, _) = request("POST", target, fields).into_parts();
    Request::from_parts(parts, Full::from("12345"))
}

/// A handler whose answer to POST has this status and these fields, behind a cache that stores such answers.
fn house(status: u16, fields: Fields, setup: impl FnOnce(CacheLayer) -> CacheLayer) -> House {
    House::with(
        Handler::new(move |head, n| match head.method.as_str() {
            "GET" => answer(200, &[FRESH], format!("got {n}")),
            method => answer(status, fields, format!("{method} {n}")),
        }),
        setup,
    )
}

fn on(layer: CacheLayer) -> CacheLayer {
    layer.otherwise(Policy::from_origin().store_post(true))
}

#[tokio::test]
async fn it_answers_a_get_where_that_is_switched_on() {
    let rows: [(Setup, bool); 4] = [
        (on, true),
        (CacheLayer::strict_rfc, true),
        (|layer| layer.strict_rfc().otherwise(Policy::from_origin().store_post(false)), false),
        (|layer| layer, false),
    ];
    for (setup, stored) in rows {
        let house = house(200, &[FRESH, HERE, ("etag", "\"a\"")], setup);
        assert_eq!(house.get("/a").await.body, "got 1");
        let posted = house.exchange(post("/a", &[])).await;
        let word = if stored { "larder; fwd=method; stored" } else { "larder; fwd=method" };
        assert_eq!(
            (posted.body.as_str(), posted.cache_status.as_str(), posted.x_cache.as_str()),
            ("POST 2", word, "BYPASS")
        );
        house.advance(10);
        let got = house.get("/a").await;
        if stored {
            assert_eq!((got.body.as_str(), got.x_cache.as_str(), got.field("age")), ("POST 2", "HIT", "10"));
            assert_eq!(house.ask("/a", &[("if-none-match", "\"a\"")]).await.status, 304);
        } else {
            assert_eq!((got.body.as_str(), got.x_cache.as_str()), ("got 3", "MISS"));
        }
        let again = house.exchange(post("/a", &[])).await;
        assert_eq!(again.x_cache, "BYPASS", "the handler sees every POST");
    }
}

#[tokio::test]
async fn what_a_response_has_to_say() {
    let rows: [(&str, u16, Fields, bool); 20] = [
        ("the URI itself", 200, &[FRESH, HERE], true),
        ("as an absolute URI", 200, &[FRESH, ("content-location", "http://example.com/a")], true),
        ("relative to itself", 200, &[FRESH, ("content-location", "a")], true),
        ("an empty reference", 200, &[FRESH, ("content-location", "")], true),
        ("by Expires", 200, &[HERE, ("expires", "Thu, 01 Jan 2026 01:00:00 GMT")], true),
        ("and where else", 200, &[FRESH, HERE, ("location", "/a")], true),
        ("another URI", 200, &[FRESH, ("content-location", "/b")], false),
        ("another query", 200, &[FRESH, ("content-location", "/a?b")], false),
        ("another host", 200, &[FRESH, ("content-location", "http://example.org/a")], false),
        ("two", 200, &[FRESH, HERE, HERE], false),
        ("none", 200, &[FRESH], false),
        ("no lifetime", 200, &[HERE, ("last-modified", "Wed, 31 Dec 2025 23:00:00 GMT")], false),
        ("created", 201, &[FRESH, HERE], false),
        ("moved", 301, &[FRESH, HERE, ("location", "/a")], false),
        ("an error", 404, &[FRESH, HERE], false),
        // The judge is that of a GET.
        ("no-store", 200, &[("cache-control", "max-age=60, no-store"), HERE], false),
        ("private", 200, &[("cache-control", "max-age=60, private"), HERE], false),
        ("a cookie", 200, &[FRESH, HERE, ("set-cookie", "a=b")], false),
        ("vary *", 200, &[FRESH, HERE, ("vary", "*")], false),
        ("too large", 200, &[FRESH, HERE, ("content-length", "2000000000")], false),
    ];
    for (why, status, fields, stored) in rows {
        let house = house(status, fields, on);
        assert_eq!(house.exchange(post("/a", &[])).await.status, status, "{why}");
        assert_eq!(house.get("/a").await.x_cache, if stored { "HIT" } else { "MISS" }, "{why}");
        // What is stored under no other name either.
        assert_eq!(house.get("/b").await.x_cache, "MISS", "{why}");
    }
}

#[tokio::test]
async fn what_a_request_must_not_have() {
    let rows: [Fields; 10] = [
        &[("authorization", "Basic x")],
        &[("cookie", "session=1")],
        &[("cache-control", "no-store")],
        &[("if-match", "\"a\"")],
        &[("if-range", "\"a\""), ("range", "bytes=0-1")],
        &[("range", "bytes=0-1")],
        &[("x-http-method-override", "PUT")],
        &[("connection", "x-a")],
        &[("upgrade", "h2c")],
        &[("host", "example.com"), ("host", "example.org")],
    ];
    for fields in rows {
        for policy in [Policy::from_origin(), Policy::shared(MINUTE)] {
            let house = house(200, &[("cache-control", "public, max-age=60"), HERE], |layer| {
                layer.otherwise(policy.store_post(true))
            });
            house.exchange(post("/a", fields)).await;
            assert_eq!(house.handle.stats().stored, 0, "{fields:?}");
            assert_eq!(house.get("/a").await.body, "got 2", "{fields:?}");
        }
    }
    // Only POST is defined so.
    for method in ["PUT", "PATCH", "DELETE"] {
        let house = house(200, &[FRESH, HERE], on);
        house.exchange(request(method, "/a", &[])).await;
        assert_eq!(house.get("/a").await.x_cache, "MISS", "{method}");
    }
}

/// A rule under which the handler of a GET would see another request, or for one user.
#[tokio::test]
async fn where_the_key_is_not_all_that_the_handler_saw_nothing_is_stored() {
    let rows: [(&str, Policy, bool); 5] = [
        ("/a?x=1", Policy::shared(MINUTE), true),
        ("/a?x=1", Policy::shared(MINUTE).ignore_query(["x"]), false),
        ("/a?y=1&x=1", Policy::shared(MINUTE).sort_query(), false),
        ("/a?x=1", Policy::per(|_: &larder::RequestHead<'_>| Some("me"), MINUTE), false),
        ("/a?x=1", Policy::bypass(), false),
    ];
    for (target, policy, stored) in rows {
        let house =
            house(200, &[FRESH, ("content-location", "")], |layer| layer.otherwise(policy.clone().store_post(true)));
        house.exchange(post(target, &[])).await;
        let x_cache = house.get(target).await.x_cache;
        assert_eq!(x_cache == "HIT", stored, "{target} {policy:?}: {x_cache}");
    }
}

/// The variant that the request's own fields choose.
#[tokio::test]
async fn it_is_the_variant_that_was_asked_for() {
    let house = house(200, &[FRESH, HERE, ("vary", "accept")], on);
    house.exchange(post("/a", &[("accept", "text/html")])).await;
    assert_eq!(house.ask("/a", &[("accept", "text/html")]).await.body, "POST 1");
    assert_eq!(house.ask("/a", &[("accept", "text/plain")]).await.x_cache, "MISS");
}

/// The POST invalidates first: what was stored, and every fill that was on its way before it ended. And if another write or a purge came while it was
/// with the handler, nobody knows which of the two is newer.
#[tokio::test]
async fn what_was_overtaken_is_not_stored() {
    #[derive(Clone, Copy, Debug)]
    enum Meanwhile {
        Nothing,
        WriteElsewhere,
        Write,
        WriteOfAQuery,
        WriteThatNames,
        Purge,
        PurgeAll,
    }
    let all = [
        Meanwhile::Nothing,
        Meanwhile::WriteElsewhere,
        Meanwhile::Write,
        Meanwhile::WriteOfAQuery,
        Meanwhile::WriteThatNames,
        Meanwhile::Purge,
        Meanwhile::PurgeAll,
    ];
    for meanwhile in all {
        let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
        let inside = gate.clone();
        let handler = Handler::waiting(move |head, n| {
            let gate = inside.clone();
            async move {
                if head.headers.contains_key("x-wait") {
                    drop(gate.acquire().await);
                }
                let named = if head.uri.path() == "/names" { "/a" } else { "" };
                Ok(answer(200, &[FRESH, ("content-location", named)], format!("{} {n}", head.method)))
            }
        });
        let house = House::with(handler, on);
        let (slow, waits) = (house.clone(), [("x-wait", "1")]);
        let posting = tokio::spawn(async move { slow.exchange(post("/a", &waits)).await });
        quiet().await;
        match meanwhile {
            Meanwhile::Nothing => {}
            Meanwhile::WriteElsewhere => drop(house.exchange(request("DELETE", "/b", &[])).await),
            Meanwhile::Write => drop(house.exchange(request("DELETE", "/a", &[])).await),
            // A rule may say that it is the same resource, or may have said so.
            Meanwhile::WriteOfAQuery => drop(house.exchange(request("DELETE", "/a?x", &[])).await),
            Meanwhile::WriteThatNames => drop(house.exchange(request("DELETE", "/names", &[])).await),
            Meanwhile::Purge => {
                house.handle.purge(Selector::Uri("http://example.com/a".into())).await.expect("purged");
            }
            Meanwhile::PurgeAll => {
                house.handle.purge(Selector::Everything).await.expect("purged");
            }
        }
        let stored = house.handle.stats().stored;
        gate.add_permits(100);
        let posted = posting.await.unwrap();
        assert_eq!(posted.body, "POST 1");
        let kept = matches!(meanwhile, Meanwhile::Nothing | Meanwhile::WriteElsewhere);
        assert_eq!((house.get("/a").await.x_cache == "HIT"), kept, "{meanwhile:?} {stored}");
    }
}
