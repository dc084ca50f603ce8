//! A refresh purge makes stale, and has the hottest of what it touched asked for once more behind it: through the whole application, by few at a time,
//! and nothing that is for somebody.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use larder::{CacheLayer, NotRefreshed, Policy, Refreshing, RequestHead, Scheme, Selector};
use support::exchange::*;
use tokio::sync::Semaphore;

/// A house whose cache knows the way through it.
fn house(handler: Handler, rules: impl FnOnce(CacheLayer) -> CacheLayer) -> House {
    let house = House::with(handler, rules);
    house.handle.refresh_through(house.service.clone(), Full::<Bytes>::default);
    house
}

fn rules(layer: CacheLayer) -> CacheLayer {
    layer.otherwise(Policy::shared(MINUTE).tag("all"))
}

async fn refresh(house: &House, most: usize) -> Refreshing {
    let receipt = house.handle.purge(Selector::Tag("all".into())).refresh(most).await.expect("a purge");
    receipt.refreshing.expect("it was asked for")
}

/// Of these targets, those that are answered from the store, fresh.
async fn fresh<'t>(house: &House, targets: &[&'t str]) -> Vec<&'t str> {
    let mut fresh = Vec::new();
    for target in targets {
        if house.get(target).await.x_cache == "HIT" {
            fresh.push(*target);
        }
    }
    fresh
}

#[tokio::test]
async fn the_hottest_are_fresh_again_and_the_others_stale() {
    for (most, expected) in
        [(0, &[][..]), (1, &["/c"]), (2, &["/b", "/c"]), (3, &["/a?x=1", "/b", "/c"]), (9, &["/a?x=1", "/b", "/c"])]
    {
        let house = house(Handler::saying(&[]), rules);
        let targets = ["/a?x=1", "/b", "/c"];
        for (target, reads) in targets.iter().zip([2, 5, 9]) {
            for _ in 0..reads {
                house.get(target).await;
            }
        }
        let begun = refresh(&house, most).await;
        assert_eq!((begun.refreshing, begun.skipped, begun.why_none), (expected.len(), 0, None));
        quiet().await;
        assert_eq!(house.handler.calls(), 3 + expected.len());
        assert_eq!(fresh(&house, &targets).await, expected, "of the hottest {most}");
    }
}

#[tokio::test]
async fn only_what_the_purge_touched_is_refreshed_and_conditionally_where_that_is_possible() {
    let handler = Handler::new(|head, _| match head.headers.contains_key("if-none-match") {
        true => answer(304, &[], ""),
        false => answer(200, &[("etag", "\"1\"")], "content"),
    });
    let rules = |layer: CacheLayer| {
        let windows = |policy: Policy| policy.stale_while_revalidate(MINUTE);
        layer.rule("^/a", windows(Policy::shared(MINUTE).tag("all"))).otherwise(windows(Policy::shared(MINUTE)))
    };
    let house = house(handler, rules);
    for target in ["/a", "/b", "/a", "/b"] {
        house.get(target).await;
    }
    assert_eq!(refresh(&house, 10).await.refreshing, 1);
    quiet().await;
    assert_eq!((house.handler.calls(), house.handler.last().uri.path()), (3, "/a"));
    assert_eq!(house.handler.last().headers["if-none-match"], "\"1\"");
    assert_eq!(fresh(&house, &["/a", "/b"]).await, ["/a", "/b"]);
    assert_eq!(house.handle.stats().refreshes, 1);
    assert_eq!(house.handle.stats().revalidated, 0, "no client was answered by it");
}

#[tokio::test]
async fn the_requests_come_to_the_key_and_the_variant_that_they_refresh() {
    let handler = Handler::new(|head, n| {
        let said = head.headers.get("accept-language").map_or("-", |value| value.to_str().expect("text"));
        answer(200, &[("vary", "accept-language")], format!("{said} {n}"))
    });
    let rules = |layer: CacheLayer| {
        layer.otherwise(
            Policy::shared(MINUTE).tag("all").key_header(http::header::ACCEPT).key_cookies(["theme"]).sort_query(),
        )
    };
    let asks: [(&str, &[(&str, &str)]); 6] = [
        ("/a?b=2&a=1", &[]),
        ("/a", &[("accept-language", "de")]),
        ("/a", &[("accept-language", "en")]),
        ("/a", &[("host", "other.example:8080")]),
        ("/a", &[("accept", "text/html"), ("cookie", "id=1")]),
        ("/a", &[("x-forwarded-proto", "https"), ("x-forwarded-host", "front.example")]),
    ];
    for (target, fields) in asks {
        let house = house(handler.clone(), rules);
        let calls = house.handler.calls();
        house.ask(target, fields).await;
        assert_eq!(refresh(&house, 10).await.refreshing, 1, "{target} {fields:?}");
        quiet().await;
        assert_eq!(house.handler.calls(), calls + 2, "{target} {fields:?}");
        assert_eq!(house.ask(target, fields).await.x_cache, "HIT", "{target} {fields:?}");
    }
    // Both variants of one key.
    let house = house(handler, rules);
    for (target, fields) in &asks[1..3] {
        house.ask(target, fields).await;
    }
    assert_eq!(refresh(&house, 10).await.refreshing, 2);
    quiet().await;
    for (target, fields) in &asks[1..3] {
        assert_eq!(house.ask(target, fields).await.x_cache, "HIT");
    }
}

#[tokio::test]
async fn a_scheme_that_the_application_knows_is_said_again() {
    let house = house(Handler::saying(&[]), rules);
    let ask = || {
        let mut request = get("/a");
        request.extensions_mut().insert(Scheme("https"));
        request
    };
    house.exchange(ask()).await;
    assert_eq!(refresh(&house, 10).await.refreshing, 1);
    quiet().await;
    assert_eq!(house.exchange(ask()).await.x_cache, "HIT");
}

#[tokio::test]
async fn what_is_for_somebody_is_left_to_its_next_request() {
    let user = |head: &RequestHead<'_>| head.headers.get("x-user").map(|user| user.as_bytes().to_vec());
    let rules = move |layer: CacheLayer| {
        let shared = Policy::shared(MINUTE).tag("all");
        layer
            .rule("^/me", Policy::per(user, MINUTE).tag("all"))
            .rule("^/session", shared.clone().key_cookies(["session"]))
            .rule("^/token", shared.clone().key_header(http::header::AUTHORIZATION))
            .otherwise(shared)
    };
    let handler = Handler::new(|head, n| {
        let fields = if head.uri.path() == "/varies" { &[("vary", "cookie")][..] } else { &[] };
        answer(200, fields, format!("answer {n}"))
    });
    let house = house(handler, rules);
    house.ask("/me", &[("x-user", "17")]).await;
    house.ask("/varies", &[("cookie", "session=secret")]).await;
    house.ask("/forwarded", &[("forwarded", "host=a;for=b")]).await;
    house.ask("/session", &[("cookie", "session=secret")]).await;
    house.ask("/token", &[("authorization", "Bearer secret")]).await;
    house.get("/a").await;
    let begun = refresh(&house, 10).await;
    // The partition isn't among the hottest; of four others the cache doesn't know all that was asked, or mustn't say it.
    assert_eq!((begun.refreshing, begun.skipped), (1, 4));
    quiet().await;
    assert_eq!((house.handler.calls(), house.handler.last().uri.path()), (7, "/a"));
}

#[tokio::test]
async fn few_are_asked_for_at_a_time_and_no_more_than_may_work_in_the_background() {
    for (most, expected) in [(3, 3), (64, 8)] {
        let (gate, now, top) =
            (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let parts = (gate.clone(), now.clone(), top.clone());
        let handler = Handler::waiting(move |_, n| {
            let (gate, now, top) = parts.clone();
            async move {
                if n > 20 {
                    top.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    gate.acquire().await.expect("never closed").forget();
                    now.fetch_sub(1, Ordering::SeqCst);
                }
                Ok(answer(200, &[], ""))
            }
        });
        let house = house(handler, |layer| rules(layer.max_refreshes(most)));
        for n in 0..20 {
            house.get(&format!("/{n}")).await;
        }
        assert_eq!(refresh(&house, 100).await.refreshing, 20);
        quiet().await;
        assert_eq!((now.load(Ordering::SeqCst), house.handler.calls()), (expected, 20 + expected));
        gate.add_permits(100);
        // Who found no place looks again after a moment.
        tokio::time::timeout(Duration::from_secs(10), async {
            while house.handler.calls() < 40 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("all are refreshed");
        quiet().await;
        assert_eq!((top.load(Ordering::SeqCst), house.handle.stats().refreshes), (expected, 20));
    }
}

#[tokio::test]
async fn a_receipt_says_why_nothing_is_refreshed() {
    // Nobody gave a way through the application.
    let house = House::with(Handler::saying(&[]), rules);
    house.get("/a").await;
    let begun = refresh(&house, 10).await;
    assert_eq!((begun.refreshing, begun.why_none), (0, Some(NotRefreshed::NoWay)));
    assert_eq!(house.get("/a").await.x_cache, "MISS", "it is a soft purge all the same, without a stale window");
    let receipt = house.handle.purge(Selector::Tag("all".into())).soft().await.expect("a purge");
    assert_eq!(receipt.refreshing, None, "nobody asked");
    // The cache was shut down.
    let house = self::house(Handler::saying(&[]), rules);
    house.get("/a").await;
    house.handle.shutdown(secs(1)).await;
    house.handle.refresh_through(house.service.clone(), Full::<Bytes>::default);
    assert_eq!(refresh(&house, 10).await.why_none, Some(NotRefreshed::Closed));
}

#[tokio::test]
async fn a_shutdown_ends_what_is_still_to_be_refreshed_and_lets_go_of_the_application() {
    let held = Arc::new(());
    let holder = held.clone();
    let handler = Handler::new(move |_, _| {
        let _ = &holder;
        answer(200, &[], "")
    });
    let house = house(handler, rules);
    for n in 0..20 {
        house.get(&format!("/{n}")).await;
    }
    refresh(&house, 100).await;
    assert!(house.handle.shutdown(secs(1)).await);
    drop(house);
    assert_eq!(Arc::strong_count(&held), 1, "nothing of the application is left");
}

#[tokio::test]
async fn a_service_that_changes_the_body_of_requests_will_do() {
    // Whatever the application takes: here a body that is no `Default`.
    #[derive(Clone)]
    struct Words(&'static str);
    impl http_body::Body for Words {
        type Data = Bytes;
        type Error = Failure;
        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Failure>>> {
            std::task::Poll::Ready(None)
        }
        fn is_end_stream(&self) -> bool {
            self.0.is_empty()
        }
    }
    let house = House::with(Handler::saying(&[]), rules);
    house.handle.refresh_through::<_, Words, _>(house.service.clone(), || Words(""));
    house.get("/a").await;
    assert_eq!(refresh(&house, 1).await.refreshing, 1);
    quiet().await;
    assert_eq!(house.get("/a").await.x_cache, "HIT");
    drop(Request::new(Words("")));
}
