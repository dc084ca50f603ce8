//! Caches within caches: the layers of one cache count once, and different caches each keep what they are told.

mod support;

use axum::body::Body;
use larder::{CacheLayer, Cached, Policy, Selector};
use support::exchange::*;
use support::neighbours::*;
use tower::Layer;

/// Inside another layer of the same cache, however many caches are between, a layer passes through: one answer, one count, one key.
#[tokio::test]
async fn a_layer_inside_another_of_the_same_cache_passes_through() {
    type Nest = fn(&CacheLayer, &CacheLayer, Handler) -> axum::Router;
    let rows: [(&str, Nest); 4] = [
        ("A(A)", |a, _, handler| axum::Router::new().fallback_service(a.layer(a.layer(axum_body(handler))))),
        ("A(A(A))", |a, _, handler| {
            axum::Router::new().fallback_service(a.layer(a.layer(a.layer(axum_body(handler)))))
        }),
        ("A(B(A))", |a, b, handler| {
            axum::Router::new().fallback_service(a.layer(b.layer(a.layer(axum_body(handler)))))
        }),
        ("A(B(A(B)))", |a, b, handler| {
            axum::Router::new().fallback_service(a.layer(b.layer(a.layer(b.layer(axum_body(handler))))))
        }),
    ];
    for (order, nest) in rows {
        let (a, b) = (vouched(), vouched());
        let handler = Handler::saying(&[]);
        let app = nest(&a, &b, handler.clone());
        let first = get_from(&app, "/", &[]).await;
        assert_eq!(
            first.headers.get_all("cache-status").iter().count(),
            1 + usize::from(order.contains('B')),
            "{order}"
        );
        assert_eq!(get_from(&app, "/", &[]).await.x_cache, "HIT", "{order}");
        send(&app, "PUT", "/", &[]).await;
        let stats = a.handle().stats();
        let counts = (stats.misses, stats.hits, stats.bypassed, stats.invalidations, stats.stored);
        assert_eq!((counts, handler.calls()), ((1, 1, 1, 1, 1), 2), "{order}");
    }
}

/// A handler whose errors and bodies are axum's.
fn axum_body(
    handler: Handler,
) -> impl tower::Service<
    http::Request<Body>,
    Response = http::Response<Body>,
    Error = std::convert::Infallible,
    Future: Send,
> + Clone
+ Send
+ Sync
+ 'static {
    tower::service_fn(move |request: http::Request<Body>| {
        let mut handler = handler.clone();
        async move {
            let answer = tower::Service::call(&mut handler, request).await;
            Ok(answer.expect("the handler doesn't fail").map(Body::new))
        }
    })
}

/// Outside: what the inner cache says of an answer's age counts, so that two lifetimes don't add up.
#[tokio::test]
async fn the_age_in_the_inner_cache_counts_in_the_outer_one() {
    let inner = House::with(Handler::saying(&[("cache-control", "max-age=60")]), |layer| layer);
    let outer = CacheLayer::in_memory(1 << 20).clock(inner.clock.clone());
    let service = outer.layer(inner.service.clone());
    assert_eq!(inner.get("/").await.x_cache, "MISS");
    inner.advance(40);
    let first = get_from(&service, "/", &[]).await;
    assert_eq!((first.x_cache.as_str(), first.field("age")), ("MISS", "40"), "{first:?}");
    inner.advance(19);
    let second = get_from(&service, "/", &[]).await;
    assert_eq!((second.x_cache.as_str(), second.field("age")), ("HIT", "59"));
    inner.advance(1);
    assert_eq!(get_from(&service, "/", &[]).await.body, "answer 2", "both are over at the same time");
}

/// What the inner cache keeps for one principal, the outer one doesn't keep for all.
#[tokio::test]
async fn a_partition_inside_is_private_to_the_cache_outside() {
    let user = |head: &larder::RequestHead<'_>| head.headers.get("x-user").map(|user| user.as_bytes().to_vec());
    let inner = CacheLayer::in_memory(1 << 20).otherwise(Policy::per(user, MINUTE));
    let handler = Handler::new(|head, _| answer(200, &[], format!("{:?}", head.headers["x-user"])));
    let service = vouched().layer(inner.layer(handler.clone()));
    for _ in 0..2 {
        for user in ["a", "b"] {
            let got = get_from(&service, "/", &[("x-user", user)]).await;
            assert_eq!((got.body, got.x_cache.as_str()), (format!("{user:?}"), "MISS"));
            assert!(got.cache_status.ends_with("detail=private"), "{}", got.cache_status);
        }
    }
    assert_eq!((handler.calls(), inner.handle().stats().hits), (2, 2));
}

/// The handler's word is heard by both, and reaches the outer one in the fields once the inner one answers from its store.
#[tokio::test]
async fn a_handlers_word_reaches_both_caches() {
    let handler = Handler::new(|_, n| {
        let mut response = answer(200, &[], format!("answer {n}"));
        response.extensions_mut().insert(Cached::shared(MINUTE));
        response
    });
    let (inner, outer) = (CacheLayer::in_memory(1 << 20), CacheLayer::in_memory(1 << 20));
    let service = outer.layer(inner.layer(handler.clone()));
    assert_eq!(twice(&service, "/", &[]).await, MISS_HIT);
    outer.handle().purge(Selector::Everything).await.expect("a purge");
    assert_eq!(twice(&service, "/", &[]).await, MISS_HIT);
    assert_eq!((handler.calls(), inner.handle().stats().hits), (1, 1));
}

/// A write invalidates in both; a purge in the cache whose handle it is. So purge the inner one first: the outer one refills from it.
#[tokio::test]
async fn writes_reach_both_caches_and_a_purge_only_its_own() {
    let (inner, outer) = (vouched(), vouched());
    let service = outer.layer(inner.layer(Handler::saying(&[])));
    assert_eq!(get_from(&service, "/", &[]).await.body, "answer 1");
    send(&service, "PUT", "/", &[]).await;
    assert_eq!(get_from(&service, "/", &[]).await.body, "answer 3");
    for (first, second, expected) in [(&outer, &inner, "answer 3"), (&inner, &outer, "answer 4")] {
        first.handle().purge(Selector::Everything).await.expect("a purge");
        get_from(&service, "/", &[]).await;
        second.handle().purge(Selector::Everything).await.expect("a purge");
        assert_eq!(get_from(&service, "/", &[]).await.body, expected);
    }
}
