//! Promises of SECURITY.md that no other file of tests is about.

mod support;

use http::HeaderName;
use larder::{CacheLayer, Cached, Policy};
use support::exchange::*;

type Fields = &'static [(&'static str, &'static str)];

const FRESH: (&str, &str) = ("cache-control", "max-age=60");

#[tokio::test]
async fn only_answers_to_get_are_stored_and_head_is_answered_from_them() {
    for method in ["HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "QUERY"] {
        for policy in [Policy::from_origin(), Policy::shared(MINUTE)] {
            let house = House::with(Handler::saying(&[FRESH]), |layer| layer.otherwise(policy));
            let target = if method == "CONNECT" { "example.com:443" } else { "/" };
            for _ in 0..2 {
                house.exchange(request(method, target, &[])).await;
            }
            assert_eq!((house.handler.calls(), house.handle.stats().storage.entries), (2, 0), "{method}");
        }
    }
    let house = House::new(Handler::saying(&[FRESH]));
    house.get("/").await;
    let head = house.exchange(request("HEAD", "/", &[])).await;
    assert_eq!((head.x_cache.as_str(), head.body.as_str(), head.field("content-length")), ("HIT", "", "8"));
}

#[tokio::test]
async fn no_lifetime_is_the_caches_own() {
    const OLD: (&str, &str) = ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT");
    let rows: [Fields; 5] =
        [&[], &[OLD], &[("etag", "\"a\"")], &[OLD, ("etag", "\"a\"")], &[OLD, ("cache-control", "public")]];
    for fields in rows {
        for policy in [Policy::from_origin(), Policy::from_origin().stale_while_revalidate(MINUTE)] {
            let house = House::with(Handler::saying(fields), |layer| layer.otherwise(policy));
            assert_eq!(house.get("/").await.cache_status, "larder; fwd=uri-miss; detail=no-freshness", "{fields:?}");
            assert_eq!(house.get("/").await.body, "answer 2", "{fields:?}");
        }
    }
}

#[tokio::test]
async fn no_store_and_private_beat_every_ttl() {
    let policies = || {
        let named = |policy: Policy| policy.status_ttl(http::StatusCode::OK, MINUTE);
        [
            Policy::from_origin(),
            named(Policy::from_origin()),
            Policy::shared(MINUTE),
            Policy::shared(MINUTE).override_origin(),
            Policy::shared(MINUTE).statuses([http::StatusCode::OK]).override_origin(),
            Policy::per(|_: &_| Some("me"), MINUTE).override_origin(),
            named(Policy::guarded(MINUTE)).override_origin().heuristics(true).drop_set_cookie(),
        ]
    };
    for word in ["no-store", "private", "private=\"x\"", "no store", "max-age=60, No-Store", "s-maxage=60, private"] {
        for policy in policies() {
            for by_handler in [false, true] {
                let handler = Handler::new(move |_, n| {
                    let mut response = answer(200, &[("cache-control", word), ("etag", "\"a\"")], format!("{n}"));
                    by_handler.then(|| response.extensions_mut().insert(Cached::shared(MINUTE)));
                    response
                });
                let why = format!("{word}, {policy:?}, by the handler's word: {by_handler}");
                let house = House::with(handler, |layer| layer.otherwise(policy.clone()));
                for expected in ["1", "2"] {
                    assert_eq!(house.get("/").await.body, expected, "{why}");
                }
                assert_eq!(house.handle.stats().storage.entries, 0, "{why}");
            }
        }
    }
}

#[tokio::test]
async fn nothing_stale_is_served_where_nobody_allowed_it() {
    // With a validator, so that it is still there to be tempted by; and the handler is in trouble.
    for policy in [Policy::from_origin(), Policy::shared(MINUTE), Policy::shared(MINUTE).fill_timeout(secs(1))] {
        for trouble in [200, 500, 502, 503, 504] {
            let handler = Handler::new(move |_, n| match n {
                1 => answer(200, &[FRESH, ("etag", "\"a\"")], "old"),
                _ => answer(trouble, &[], "new"),
            });
            let house = House::with(handler, |layer| layer.otherwise(policy.clone()));
            house.get("/").await;
            house.advance(60);
            let exchange = house.get("/").await;
            assert_eq!((exchange.status, exchange.body.as_str(), exchange.x_cache.as_str()), (trouble, "new", "MISS"));
        }
    }
}

#[tokio::test]
async fn fields_are_kept_or_left_out_by_name_where_somebody_wants_it() {
    let fields: Fields = &[FRESH, ("x-request-id", "1"), ("x-trace-id", "2"), ("x-node", "3"), ("x-kept", "4")];
    let name = HeaderName::from_static;
    let house =
        House::with(Handler::saying(fields), |layer| layer.replay(name("x-trace-id")).never_store(name("x-node")));
    house.get("/").await;
    let hit = house.get("/").await;
    assert_eq!(hit.x_cache, "HIT");
    let got = ["x-request-id", "x-trace-id", "x-node", "x-kept"].map(|name| hit.field(name));
    assert_eq!(got, ["", "2", "", "4"]);
}

#[tokio::test]
async fn the_store_in_memory_compares_whole_keys() {
    let house = House::around(
        Handler::new(|head, _| answer(200, &[FRESH], head.uri.to_string())),
        CacheLayer::in_memory(64 << 20),
    );
    // Long enough for any digest or prefix to be tempting; they differ in one byte, at the front, in the middle or at the end.
    let targets: Vec<String> = (0..300)
        .map(|n| {
            let mut path = vec![b'a'; 2000];
            path[n * 6] = b'b';
            format!("/{}", String::from_utf8(path).expect("text"))
        })
        .collect();
    for x_cache in ["MISS", "HIT"] {
        for target in &targets {
            let exchange = house.get(target).await;
            assert_eq!((exchange.x_cache.as_str(), &exchange.body), (x_cache, target));
        }
    }
}
