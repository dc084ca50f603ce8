//! A handler of axum takes the cache around it as an argument, whatever became of its request; without a cache it says what is missing.
#![cfg(feature = "axum")]

mod support;

use axum::body::Body;
use axum::routing::get;
use axum::{Router, extract::Path};
use http::Request;
use larder::{CacheHandle, CacheLayer, Policy, Selector};
use support::exchange::{Exchange, MINUTE};
use tower::ServiceExt;

/// Purges a tag, and says so.
async fn purges(handle: CacheHandle, Path(tag): Path<String>) -> String {
    let receipt = handle.purge(Selector::Tag(tag)).await.expect("a purge");
    format!("purge {}", receipt.number)
}

async fn is_there(handle: Option<CacheHandle>) -> String {
    handle.is_some().to_string()
}

fn app() -> Router {
    Router::new()
        .route("/products", get(|| async { "products" }))
        .route("/purges/{tag}", get(purges).post(purges))
        .route("/bypass/{tag}", get(purges))
        .route("/there", get(is_there))
}

fn cache() -> CacheLayer {
    CacheLayer::in_memory(1 << 20)
        .rule("^/products", Policy::shared(MINUTE).tag("products"))
        .rule("^/bypass", Policy::bypass())
        .rule("^/there", Policy::shared(MINUTE).stale_while_revalidate(MINUTE))
        .otherwise(Policy::shared(MINUTE))
}

async fn ask(app: &Router, method: &str, target: &str) -> Exchange {
    let request = Request::builder().method(method).uri(target).header("host", "a").body(Body::empty());
    let response = app.clone().oneshot(request.expect("a request")).await.expect("an answer");
    Exchange::read(response).await.expect("a body")
}

#[tokio::test]
async fn the_cache_around_a_handler_is_an_argument_of_it() {
    for (method, target, x_cache) in [
        ("GET", "/purges/products", "MISS"),
        ("POST", "/purges/products", "BYPASS"),
        ("GET", "/bypass/products", "BYPASS"),
    ] {
        let app = app().layer(cache());
        ask(&app, "GET", "/products").await;
        assert_eq!(ask(&app, "GET", "/products").await.x_cache, "HIT");
        let purged = ask(&app, method, target).await;
        assert_eq!((purged.x_cache.as_str(), purged.body.as_str()), (x_cache, "purge 1"), "{method} {target}");
        assert_eq!(ask(&app, "GET", "/products").await.x_cache, "MISS", "{method} {target}");
    }
}

#[tokio::test]
async fn of_several_caches_it_is_the_innermost() {
    let (inner, outer) = (cache(), cache());
    let app = app().layer(inner.clone()).layer(outer.clone());
    ask(&app, "POST", "/purges/products").await;
    assert_eq!((inner.handle().stats().purges, outer.handle().stats().purges), (1, 0));
    // The same cache twice is one.
    let app = self::app().layer(inner.clone()).layer(inner.clone());
    ask(&app, "POST", "/purges/products").await;
    assert_eq!(inner.handle().stats().purges, 2);
}

#[tokio::test]
async fn without_a_cache_the_answer_says_what_is_missing() {
    let app = app();
    let answer = ask(&app, "GET", "/purges/products").await;
    assert_eq!(answer.status, 500);
    assert!(answer.body.contains("CacheHandle") && answer.body.contains("Router::layer(cache)"), "{}", answer.body);
    assert_eq!(ask(&app, "GET", "/there").await.body, "false");
    assert_eq!(ask(&app.layer(cache()), "GET", "/there").await.body, "true");
}

#[tokio::test]
async fn a_route_with_a_layer_of_its_own_has_it_too() {
    let app = Router::new().route("/there", get(is_there).layer(cache())).route("/apart", get(is_there));
    assert_eq!(ask(&app, "GET", "/there").await.body, "true");
    assert_eq!(ask(&app, "GET", "/apart").await.body, "false");
    let nested = Router::new().nest("/api", app);
    assert_eq!(ask(&nested, "GET", "/api/there").await.body, "true");
}
