//! After a write or a purge nothing older is served, not even by what was on its way when it came.

mod support;

use std::sync::Arc;

use larder::{CacheLayer, Policy, PurgeError, RequestHead, Selector};
use support::exchange::*;
use tokio::sync::Semaphore;

type Fields = &'static [(&'static str, &'static str)];

const FRESH: (&str, &str) = ("cache-control", "max-age=60");

/// GETs are stored; a write is answered with `status` and `fields`.
fn written(status: u16, fields: Fields) -> Handler {
    Handler::new(move |head, n| match head.method.as_str() {
        "GET" => answer(200, &[FRESH], format!("answer {n}")),
        _ => answer(status, fields, ""),
    })
}

async fn is_stored(house: &House, target: &str) -> bool {
    house.ask(target, &[("cache-control", "only-if-cached")]).await.x_cache == "HIT"
}

#[tokio::test]
async fn a_write_that_succeeds_invalidates_its_target() {
    let rows = [
        ("POST", 200, true),
        ("PUT", 204, true),
        ("DELETE", 303, true),
        ("PATCH", 201, true),
        ("M-FOO", 200, true), // RFC 9111 §4.4: a method whose safety is unknown
        ("POST", 302, true),
        ("POST", 304, true),
        ("POST", 400, false),
        ("PUT", 404, false),
        ("DELETE", 500, false),
        ("M-FOO", 503, false),
        ("OPTIONS", 200, false),
        ("TRACE", 200, false),
        ("QUERY", 200, false), // RFC 10008 §2: safe
    ];
    for (method, status, invalidates) in rows {
        let house = House::new(written(status, &[]));
        for target in ["/a", "/a?q=1", "/b"] {
            house.get(target).await;
        }
        let exchange = house.exchange(request(method, "/a", &[])).await;
        assert_eq!((exchange.status, exchange.x_cache.as_str()), (status, "BYPASS"));
        let why = format!("{method} {status}");
        assert_eq!(!is_stored(&house, "/a").await, invalidates, "{why}");
        assert!(is_stored(&house, "/a?q=1").await && is_stored(&house, "/b").await, "{why}: other resources stay");
        assert_eq!(house.handle.stats().invalidations, u64::from(invalidates), "{why}");
    }
}

#[tokio::test]
async fn hosts_are_told_apart_however_they_are_written() {
    let rows = [
        (&[("host", "EXAMPLE.com:80")][..], true),
        (&[("host", "other.com")], false),
        (&[("host", "example.com:8080")], false),
        // An ambiguous host may mean this one.
        (&[("host", "other.com"), ("host", "Example.com")], true),
        (&[("host", "example.com"), ("host", "example.com")], true),
    ];
    for (fields, invalidates) in rows {
        let house = House::new(written(200, &[]));
        house.get("/a").await;
        house.exchange(request("POST", "/a", fields)).await;
        assert_eq!(!is_stored(&house, "/a").await, invalidates, "{fields:?}");
    }
}

/// Nobody can say which host the handler took it for, so that it may have been any.
#[tokio::test]
async fn a_write_with_an_ambiguous_host_invalidates_on_every_host() {
    const STORED: [&str; 3] = ["http://one.com/a", "http://two.com/a", "http://two.com:8080/a"];
    let rows: [(&str, Fields); 4] = [
        ("/a", &[("host", "one.com"), ("host", "three.com")]),
        ("/a", &[("host", "three.com"), ("host", "three.com")]),
        ("http://one.com/a", &[("host", "three.com")]),
        ("http://three.com/a", &[("host", "four.com")]),
    ];
    for (target, fields) in rows {
        for answered in [true, false] {
            let why = format!("{target}, {fields:?}, answered: {answered}");
            let house = House::new(Handler::failing(move |head, _| match head.method.as_str() {
                "GET" => Ok(answer(200, &[FRESH], "")),
                _ if answered => Ok(answer(200, &[("location", "/b")], "")),
                _ => Err(Failure),
            }));
            for stored in STORED.into_iter().chain(["http://one.com/b", "http://one.com/a?q=1"]) {
                house.get(stored).await;
            }
            assert_eq!(house.try_exchange(request("POST", target, fields)).await.is_ok(), answered, "{why}");
            for stored in STORED {
                assert!(!is_stored(&house, stored).await, "{why}: {stored}");
            }
            assert_eq!(is_stored(&house, "http://one.com/b").await, !answered, "{why}: what it names");
            assert!(is_stored(&house, "http://one.com/a?q=1").await, "{why}: other resources stay");
        }
    }
}

/// `http://example.com?q=1` has the path `/` (RFC 9110 §4.2.3).
#[tokio::test]
async fn a_target_without_a_path_is_the_root() {
    for (target, gone, left) in
        [("http://example.com?q=1", "/?q=1", "/"), ("http://example.com", "/", "/?q=1"), ("/?q=1", "/?q=1", "/")]
    {
        for by_write in [true, false] {
            let house = House::new(written(200, &[]));
            for stored in [gone, left] {
                house.get(stored).await;
            }
            if by_write {
                house.exchange(request("POST", target, &[("host", "example.com")])).await;
            } else {
                house.handle.purge(Selector::Uri(target.into())).await.unwrap();
            }
            assert!(!is_stored(&house, gone).await, "{target}, by write: {by_write}");
            assert!(is_stored(&house, left).await, "{target}, by write: {by_write}");
        }
    }
}

/// Where keys have additions that a write doesn't know, it is remembered by number; many of them must not add up to a purge of everything.
#[tokio::test]
async fn thousands_of_writes_leave_unrelated_entries() {
    let handler = Handler::new(|head, _| match head.method.as_str() {
        "GET" => answer(200, &[FRESH], ""),
        _ => answer(303, &[("location", "/login")], ""),
    });
    let house = House::around(handler, CacheLayer::in_memory(1 << 24));
    let asked = [("x-forwarded-proto", "https")];
    for n in 0..1000 {
        house.ask(&format!("/page/{n}"), &asked).await;
    }
    for n in 0..2000 {
        house.exchange(request("POST", &format!("/item/{n}"), &[])).await;
    }
    house.exchange(request("POST", "/page/0", &[])).await;
    assert_eq!(house.ask("/page/0", &asked).await.x_cache, "MISS", "but what is written to goes");
    let before = house.handle.stats().hits;
    for n in 1..1000 {
        house.ask(&format!("/page/{n}"), &asked).await;
    }
    let left = house.handle.stats().hits - before;
    // Resources share 65,536 places by a random hash, so that about one in seventeen is unlucky.
    assert!(left >= 900, "{left} of 999 are left");
}

#[tokio::test]
async fn what_the_answer_names_on_the_same_origin_is_invalid_too() {
    let rows: [(Fields, &[&str], &[&str]); 7] = [
        (&[("location", "/b")], &["/a/x", "/b"], &["/c"]),
        (&[("content-location", "/b")], &["/a/x", "/b"], &["/c"]),
        (&[("location", "/b"), ("content-location", "/c")], &["/a/x", "/b", "/c"], &[]),
        (&[("location", "http://example.com/b")], &["/a/x", "/b"], &["/c"]),
        (&[("location", "../c")], &["/a/x", "/c"], &["/b"]),
        (&[("location", "http://other.com/b")], &["/a/x"], &["/b", "/c"]),
        (&[("location", "//other.com/b")], &["/a/x"], &["/b", "/c"]),
    ];
    for (fields, gone, left) in rows {
        let house = House::new(written(201, fields));
        for target in ["/a/x", "/b", "/c"] {
            house.get(target).await;
        }
        house.exchange(request("POST", "/a/x", &[])).await;
        for target in gone {
            assert!(!is_stored(&house, target).await, "{fields:?}: {target}");
        }
        for target in left {
            assert!(is_stored(&house, target).await, "{fields:?}: {target}");
        }
    }
}

#[tokio::test]
async fn an_error_that_names_something_invalidates_nothing() {
    let house = House::new(written(409, &[("location", "/b")]));
    house.get("/b").await;
    house.exchange(request("POST", "/a", &[])).await;
    assert!(is_stored(&house, "/b").await);
}

/// The write may have happened though nobody heard of it.
#[tokio::test]
async fn a_write_whose_answer_never_came_invalidates() {
    let failing =
        Handler::failing(|head, _| if head.method == "GET" { Ok(answer(200, &[FRESH], "")) } else { Err(Failure) });
    let house = House::new(failing);
    house.get("/a").await;
    assert_eq!(house.try_exchange(request("PUT", "/a", &[])).await.unwrap_err(), Failure);
    assert!(!is_stored(&house, "/a").await, "the handler failed");

    let hanging = Handler::waiting(|head, _| async move {
        if head.method != "GET" {
            std::future::pending::<()>().await;
        }
        Ok(answer(200, &[FRESH], ""))
    });
    let house = House::new(hanging);
    house.get("/a").await;
    let write = tokio::spawn({
        let house = house.clone();
        async move { house.exchange(request("PUT", "/a", &[])).await }
    });
    quiet().await;
    assert!(is_stored(&house, "/a").await, "the handler is at work");
    write.abort();
    assert!(write.await.unwrap_err().is_cancelled());
    assert!(!is_stored(&house, "/a").await, "the client left");

    let panicking = Handler::new(|head, _| {
        assert_eq!(head.method, "GET", "a write");
        answer(200, &[FRESH], "")
    });
    let house = House::new(panicking);
    house.get("/a").await;
    let write = tokio::spawn({
        let house = house.clone();
        async move { house.exchange(request("PUT", "/a", &[])).await }
    });
    assert!(write.await.unwrap_err().is_panic());
    assert!(!is_stored(&house, "/a").await, "the handler panicked");
}

fn user(head: &RequestHead<'_>) -> Option<Vec<u8>> {
    head.headers.get("x-user").map(|user| user.as_bytes().to_vec())
}

/// A write knows its target, and neither the other users nor the tenants nor the variants that something is stored for.
#[tokio::test]
async fn a_write_or_purge_reaches_every_entry_of_its_target() {
    let policies = [
        Policy::per(user, MINUTE),
        Policy::shared(MINUTE).key_header("x-user".parse().unwrap()),
        Policy::shared(MINUTE).key_cookies(["user"]),
        Policy::shared(MINUTE).sort_query(),
        Policy::from_origin(),
    ];
    const USERS: [Fields; 3] = [
        &[("x-user", "a"), ("cookie", "user=a"), ("x-forwarded-host", "a"), ("accept", "a")],
        &[("x-user", "b"), ("cookie", "user=b"), ("x-forwarded-host", "b"), ("accept", "b")],
        &[("x-user", "a"), ("cookie", "user=a"), ("x-forwarded-host", "a"), ("accept", "c")],
    ];
    for policy in policies {
        for how in ["write", "purge a path", "purge a URI", "purge everything"] {
            let handler = Handler::new(|head, n| match head.method.as_str() {
                "GET" => answer(200, &[FRESH, ("vary", "accept")], format!("answer {n}")),
                _ => answer(200, &[], ""),
            });
            let house = House::with(handler, |layer| layer.otherwise(policy.clone()));
            for x_cache in ["MISS", "HIT"] {
                for asked in USERS {
                    assert_eq!(house.ask("/a?c=1&b=2", asked).await.x_cache, x_cache);
                }
            }
            let selector = match how {
                "write" => None,
                "purge a path" => Some(Selector::Uri("/a?c=1&b=2".into())),
                "purge a URI" => Some(Selector::Uri("http://Example.com:80/a?c=1&b=2".into())),
                _ => Some(Selector::Everything),
            };
            match selector {
                None => drop(house.exchange(request("POST", "/a?c=1&b=2", &[])).await),
                Some(selector) => assert!(house.handle.purge(selector).await.is_ok()),
            }
            for asked in USERS {
                assert_eq!(house.ask("/a?c=1&b=2", asked).await.x_cache, "MISS", "{how}, {policy:?}");
            }
        }
    }
}

#[tokio::test]
async fn purges_hit_what_they_name_and_nothing_else() {
    let targets = ["http://one.com/a", "http://two.com/a", "http://one.com/a?q=1", "http://one.com/b"];
    let rows: [(Selector, [bool; 4]); 6] = [
        (Selector::Uri("/a".into()), [false, false, true, true]),
        (Selector::Uri("http://one.com/a".into()), [false, true, true, true]),
        (Selector::Uri("https://ONE.com:443/a".into()), [false, true, true, true]),
        (Selector::Uri("/a?q=1".into()), [true, true, false, true]),
        (Selector::Uri("/nothing".into()), [true; 4]),
        (Selector::Everything, [false; 4]),
    ];
    for (selector, left) in rows {
        let house = House::new(written(200, &[]));
        for target in targets {
            house.get(target).await;
        }
        house.handle.purge(selector.clone()).await.unwrap();
        for (target, left) in targets.into_iter().zip(left) {
            assert_eq!(is_stored(&house, target).await, left, "{selector:?}: {target}");
        }
        for target in targets {
            house.get(target).await;
            assert!(is_stored(&house, target).await, "{selector:?}: {target} can be stored again");
        }
    }
}

#[tokio::test]
async fn receipts_are_numbered_and_purges_counted() {
    let house = House::new(written(200, &[]));
    let mut last = 0;
    for selector in
        [Selector::Uri("/a".into()), Selector::Uri("/a".into()), Selector::Everything, Selector::Uri("/b".into())]
    {
        let receipt = house.handle.purge(selector).await.unwrap();
        assert!(receipt.number > last);
        last = receipt.number;
    }
    assert_eq!(house.handle.stats().purges, 4);
}

#[tokio::test]
async fn a_purge_of_junk_says_so_and_purges_nothing() {
    let house = House::new(written(200, &[]));
    house.get("/a").await;
    for junk in ["", "a", "*", "http://", "example.com", "/a b", "\u{7f}", "mailto:a@example.com"] {
        let error = house.handle.purge(Selector::Uri(junk.into())).await.expect_err(junk);
        assert!(matches!(&error, PurgeError::Uri { uri } if uri == junk), "{error}");
    }
    assert_eq!(house.handle.stats().purges, 0);
    assert!(is_stored(&house, "/a").await);
}

/// What may come while a handler is at work. Each makes its answer too old to be kept.
const EVENTS: [&str; 5] = ["write", "failed write", "purge a path", "purge a URI", "purge everything"];

async fn happen(house: &House, event: &str) {
    let selector = match event {
        "write" => return drop(house.exchange(request("POST", "/a", &[])).await),
        "failed write" => return assert!(house.try_exchange(request("PUT", "/a", &[])).await.is_err()),
        "purge a path" => Selector::Uri("/a".into()),
        "purge a URI" => Selector::Uri("http://example.com/a".into()),
        _ => Selector::Everything,
    };
    house.handle.purge(selector).await.expect("a purge in memory");
}

/// The GETs after the first `open` wait at the gate with their answer in hand: it is as old as their arrival.
fn gated(open: usize, fields: Fields) -> (Handler, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let handler = Handler::waiting({
        let gate = gate.clone();
        move |head, n| {
            let gate = gate.clone();
            async move {
                match head.method.as_str() {
                    "GET" => {}
                    "PUT" => return Err(Failure),
                    _ => return Ok(answer(200, &[], "")),
                }
                let conditional = head.headers.contains_key("if-none-match");
                let answer = answer(
                    if conditional { 304 } else { 200 },
                    fields,
                    if conditional { String::new() } else { format!("answer {n}") },
                );
                if n == open + 1 {
                    gate.acquire().await.expect("never closed").forget();
                }
                Ok(answer)
            }
        }
    });
    (handler, gate)
}

#[tokio::test]
async fn a_fill_that_was_on_its_way_is_not_served_afterwards() {
    for event in EVENTS {
        for policy in [Policy::from_origin(), Policy::per(|_: &_| Some("me"), MINUTE)] {
            let (handler, gate) = gated(0, &[FRESH]);
            let house = House::with(handler, |layer| layer.otherwise(policy));
            let filling = tokio::spawn({
                let house = house.clone();
                async move { house.get("/a").await }
            });
            quiet().await;
            happen(&house, event).await;
            gate.add_permits(1);
            let filled = filling.await.unwrap();
            assert_eq!(filled.body, "answer 1", "{event}: its own client gets what it asked for");
            assert_eq!(filled.cache_status, "larder; fwd=uri-miss; detail=purged", "{event}");
            let next = house.get("/a").await;
            assert_eq!(next.x_cache, "MISS", "{event}");
            assert_ne!(next.body, "answer 1", "{event}");
            assert_eq!(house.get("/a").await.x_cache, "HIT", "{event}: what came afterwards is kept");
        }
    }
}

#[tokio::test]
async fn a_refresh_that_was_on_its_way_is_not_served_afterwards() {
    const PLAIN: Fields = &[("cache-control", "max-age=60, stale-while-revalidate=60")];
    const TAGGED: Fields = &[PLAIN[0], ("etag", "\"a\"")];
    for (event, fields) in EVENTS.iter().flat_map(|event| [(event, PLAIN), (event, TAGGED)]) {
        let (handler, gate) = gated(1, fields);
        let house = House::new(handler);
        house.get("/a").await;
        house.advance(61);
        assert_eq!(house.get("/a").await.x_cache, "STALE");
        quiet().await;
        assert_eq!(house.handler.calls(), 2, "the refresh waits at the gate");
        happen(&house, event).await;
        gate.add_permits(1);
        quiet().await;
        assert!(!is_stored(&house, "/a").await, "{event}, {fields:?}");
        assert_eq!(house.get("/a").await.x_cache, "MISS", "{event}, {fields:?}");
    }
}

/// What a purge took away doesn't come back as a stand-in for an error.
#[tokio::test]
async fn what_was_purged_stands_in_for_nothing() {
    for event in EVENTS {
        let gate = Arc::new(Semaphore::new(0));
        let waits = gate.clone();
        let handler = Handler::waiting(move |head, n| {
            let gate = waits.clone();
            async move {
                match (head.method.as_str(), n) {
                    ("GET", 1) => Ok(answer(200, &[("cache-control", "max-age=60, stale-if-error=600")], "old")),
                    ("GET", _) => {
                        gate.acquire().await.expect("never closed").forget();
                        Ok(answer(503, &[], "down"))
                    }
                    ("PUT", _) => Err(Failure),
                    _ => Ok(answer(200, &[], "")),
                }
            }
        });
        let house = House::new(handler);
        house.get("/a").await;
        house.advance(61);
        let asking = tokio::spawn({
            let house = house.clone();
            async move { house.get("/a").await }
        });
        quiet().await;
        happen(&house, event).await;
        gate.add_permits(9);
        assert_eq!(asking.await.unwrap().body, "down", "{event}: though it asked before");
        assert_eq!(house.get("/a").await.body, "down", "{event}");
    }
}

/// A body may take longer than the purge.
#[tokio::test]
async fn a_body_that_was_on_its_way_is_not_kept() {
    use bytes::Bytes;
    use http_body::Frame;
    use http_body_util::{BodyExt, StreamBody};
    use tower::ServiceExt;

    for event in EVENTS {
        let gate = Arc::new(Semaphore::new(0));
        let waits = gate.clone();
        let handler = Handler::failing(move |head, _| {
            match head.method.as_str() {
                "GET" => {}
                "PUT" => return Err(Failure),
                _ => return Ok(answer(200, &[], "")),
            }
            let gate = waits.clone();
            let rest = futures_util::stream::once(async move {
                gate.acquire().await.expect("never closed").forget();
                Ok(Frame::data(Bytes::from("old")))
            });
            Ok(answer(200, &[FRESH], "").map(|_| Content::new(StreamBody::new(Box::pin(rest)))))
        });
        let house = House::new(handler);
        let response = house.service.clone().oneshot(get("/a")).await.unwrap();
        happen(&house, event).await;
        gate.add_permits(9);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "old");
        assert!(!is_stored(&house, "/a").await, "{event}");
        assert_eq!(house.handle.stats().declined_for(larder::DeclineReason::Purged), 1, "{event}");
    }
}
