//! The forms in which axum takes a layer: what each of them caches, and under which key.

mod support;

use axum::extract::{OriginalUri, Path, Request, State};
use axum::middleware::{self, Next};
use axum::routing::{get, get_service};
use axum::{Router, body::Body};
use larder::{CacheLayer, Policy, Selector};
use support::exchange::MINUTE;
use support::neighbours::*;
use tower::{Layer, ServiceBuilder};

/// Says how many answers there were with this one.
fn counting(count: &Count) -> axum::routing::MethodRouter {
    let count = count.clone();
    get(move || async move { format!("answer {}", count.up()) })
}

/// `Router::layer`: routes and fallback alike, if they were added before it.
#[tokio::test]
async fn a_routers_layer_caches_its_routes_and_its_fallback() {
    let (count, late) = (Count::default(), Count::default());
    let app = Router::new()
        .route("/early", counting(&count))
        .fallback(|| async { ([("cache-control", "max-age=60")], "nothing here") })
        .layer(vouched())
        .route("/late", counting(&late));
    for path in ["/early", "/nowhere"] {
        assert_eq!(twice(&app, path, &[]).await, MISS_HIT, "{path}");
    }
    assert_eq!(twice(&app, "/late", &[]).await, ["", ""], "added after the layer");
    assert_eq!((count.get(), late.get()), (1, 2));
}

/// `Router::route_layer`: what no route matches doesn't come to the cache.
#[tokio::test]
async fn a_route_layer_leaves_what_no_route_matches_alone() {
    let count = Count::default();
    let cache = vouched();
    let app = Router::new().route("/", counting(&count)).route_layer(cache.clone());
    assert_eq!(twice(&app, "/", &[]).await, MISS_HIT);
    let nothing = get_from(&app, "/nowhere", &[]).await;
    assert_eq!((nothing.status, nothing.x_cache.as_str()), (404, ""));
    // A route matches, and has no such method: the cache hears of the write, whose error invalidates nothing.
    let wrong = send(&app, "DELETE", "/", &[]).await;
    assert_eq!((wrong.status, wrong.field("allow")), (405, "GET,HEAD"));
    assert_eq!(get_from(&app, "/", &[]).await.x_cache, "HIT");
}

/// `MethodRouter::layer`: one route, with the methods that it had then.
#[tokio::test]
async fn one_route_has_the_cache_and_its_neighbours_have_none() {
    let (with, without) = (Count::default(), Count::default());
    let app = Router::new().route("/with", counting(&with).layer(vouched())).route("/without", counting(&without));
    assert_eq!(twice(&app, "/with", &[]).await, MISS_HIT);
    assert_eq!(twice(&app, "/without", &[]).await, ["", ""]);
    assert_eq!((with.get(), without.get()), (1, 2));
}

/// A write through a method that was added behind the layer doesn't pass the cache, and so invalidates nothing.
#[tokio::test]
async fn a_write_has_to_pass_the_cache_to_invalidate() {
    for (outside, expected) in [(false, "MISS"), (true, "HIT")] {
        let read = counting(&Count::default());
        let write = || async { "written" };
        let route = if outside { read.layer(vouched()).put(write) } else { read.put(write).layer(vouched()) };
        let app = Router::new().route("/", route);
        get_from(&app, "/", &[]).await;
        send(&app, "PUT", "/", &[]).await;
        assert_eq!(get_from(&app, "/", &[]).await.x_cache, expected, "PUT outside of the cache: {outside}");
    }
}

/// `ServiceBuilder` around a router, inside `Router::layer`, and around a service that is no router.
#[tokio::test]
async fn a_service_builder_takes_the_layer_anywhere() {
    let route = || Router::new().route("/", counting(&Count::default()));
    let outside = ServiceBuilder::new().layer(vouched()).service(route());
    assert_eq!(twice(&outside, "/", &[]).await, MISS_HIT);
    let inside = route().layer(ServiceBuilder::new().layer(vouched()).map_request(|request: Request| request));
    assert_eq!(twice(&inside, "/", &[]).await, MISS_HIT);
    let service =
        tower::service_fn(|_: Request| async { Ok::<_, std::convert::Infallible>(http::Response::new(Body::empty())) });
    let served = Router::new().route("/", get_service(vouched().layer(service)));
    assert_eq!(twice(&served, "/", &[]).await, MISS_HIT);
}

/// State, `merge`, and path parameters go on as ever; merged routers with clones of one layer share the cache.
#[tokio::test]
async fn state_and_merged_routers_share_one_cache() {
    async fn product(State(count): State<Count>, Path(id): Path<u64>) -> String {
        format!("product {id}, answer {}", count.up())
    }
    let (count, cache) = (Count::default(), vouched());
    let products: Router<Count> = Router::new().route("/products/{id}", get(product)).layer(cache.clone());
    let offers: Router<Count> = Router::new().route("/offers/{id}", get(product)).layer(cache.clone());
    let app = products.merge(offers).with_state(count.clone());
    for path in ["/products/1", "/products/2", "/offers/1"] {
        assert_eq!(twice(&app, path, &[]).await, MISS_HIT, "{path}");
    }
    assert_eq!((count.get(), cache.handle().stats().stored), (3, 3));
}

/// Inside a `nest` the key, the rule and a purge are of the URI that the client sent.
#[tokio::test]
async fn within_a_nest_the_key_is_the_uri_that_the_client_sent() {
    let echo = |OriginalUri(uri): OriginalUri, seen: http::Uri| async move { format!("{uri} as {seen}") };
    let cache = CacheLayer::in_memory(1 << 20)
        .rule("^/(a|b)/x", Policy::shared(MINUTE))
        .rule("^/a/?$", Policy::shared(MINUTE))
        .otherwise(Policy::bypass());
    let inner = || Router::new().route("/", get(echo)).route("/x", get(echo)).layer(cache.clone());
    let app = Router::new().nest("/a", inner()).nest("/b", Router::new().nest_service("/deep", inner()).merge(inner()));
    for (path, seen) in [("/a/x", "/x"), ("/b/x?q", "/x?q"), ("/a", "/")] {
        let first = get_from(&app, path, &[]).await;
        assert_eq!((first.body.as_str(), first.x_cache.as_str()), (format!("{path} as {seen}").as_str(), "MISS"));
        assert_eq!(get_from(&app, path, &[]).await.body, first.body);
        assert_eq!(get_from(&app, path, &[]).await.x_cache, "HIT", "{path}");
        cache.handle().purge(Selector::Uri(path.into())).await.expect("a purge");
        assert_eq!(get_from(&app, path, &[]).await.x_cache, "MISS", "{path}");
    }
    assert_eq!(get_from(&app, "/b/deep/x", &[]).await.cache_status, "larder; fwd=bypass; detail=rule");
}

/// A layer between the router and the cache that sends requests elsewhere, by a field that no key has: what the handler is asked belongs
/// to the key. Writes and purges of the URI that the client names still reach it.
#[tokio::test]
async fn a_target_rewritten_on_the_way_belongs_to_the_key() {
    async fn by_language(mut request: Request, next: Next) -> axum::response::Response {
        let german = request.headers().get("accept-language").is_some_and(|language| language == "de");
        let target = format!("/{}{}", if german { "de" } else { "en" }, request.uri().path());
        *request.uri_mut() = target.parse().expect("a target");
        next.run(request).await
    }
    let cache = vouched();
    let echo = tower::service_fn(|request: Request| async move {
        Ok::<_, std::convert::Infallible>(http::Response::new(Body::from(request.uri().to_string())))
    });
    let app = Router::new().fallback_service(
        ServiceBuilder::new().layer(middleware::from_fn(by_language)).layer(cache.clone()).service(echo),
    );
    for expected in ["MISS", "HIT"] {
        for language in ["de", "en"] {
            let got = get_from(&app, "/page", &[("accept-language", language)]).await;
            assert_eq!((got.body, got.x_cache.as_str()), (format!("/{language}/page"), expected));
        }
    }
    send(&app, "PUT", "/page", &[]).await;
    cache.handle().purge(Selector::Uri("/other".into())).await.expect("a purge");
    for language in ["de", "en"] {
        assert_eq!(get_from(&app, "/page", &[("accept-language", language)]).await.x_cache, "MISS", "written");
        assert_eq!(get_from(&app, "/page", &[("accept-language", language)]).await.x_cache, "HIT");
    }
    cache.handle().purge(Selector::Uri("/page".into())).await.expect("a purge");
    assert_eq!(get_from(&app, "/page", &[("accept-language", "de")]).await.x_cache, "MISS", "purged");
}

/// Only a `nest` takes a prefix away without further ado; a layer that does it by a field makes of one URI two.
#[tokio::test]
async fn a_prefix_that_a_layer_takes_away_belongs_to_the_key_as_well() {
    async fn into_beta(mut request: Request, next: Next) -> axum::response::Response {
        if request.headers().contains_key("x-beta") {
            let target = request.uri().path().replacen("/try", "", 1);
            *request.uri_mut() = target.parse().expect("a target");
        }
        next.run(request).await
    }
    let echo = tower::service_fn(|request: Request| async move {
        Ok::<_, std::convert::Infallible>(http::Response::new(Body::from(request.uri().to_string())))
    });
    let inner = || {
        let service = ServiceBuilder::new().layer(middleware::from_fn(into_beta)).layer(vouched()).service(echo);
        Router::new().fallback_service(service)
    };
    let app = inner().nest("/nested/{tenant}", inner()).nest_service("/served", inner());
    for prefix in ["", "/nested/a", "/served"] {
        for expected in ["MISS", "HIT"] {
            for (fields, seen) in [(&[("x-beta", "1")][..], "/page"), (&[], "/try/page")] {
                let got = get_from(&app, &format!("{prefix}/try/page"), fields).await;
                assert_eq!((got.body.as_str(), got.x_cache.as_str()), (seen, expected), "{prefix} {fields:?}");
            }
        }
    }
}

/// The same for a query, as a layer adds it that finds out the tenant.
#[tokio::test]
async fn a_query_that_is_rewritten_belongs_to_the_key_too() {
    async fn with_tenant(mut request: Request, next: Next) -> axum::response::Response {
        let tenant = request.headers()["x-tenant"].to_str().expect("a text").to_owned();
        *request.uri_mut() = format!("/page?tenant={tenant}").parse().expect("a target");
        next.run(request).await
    }
    let route = Router::new().route("/page", get(|uri: http::Uri| async move { uri.to_string() }));
    let app = route.layer(vouched()).layer(middleware::from_fn(with_tenant));
    for expected in ["MISS", "HIT"] {
        for tenant in ["a", "b"] {
            let got = get_from(&app, "/page", &[("x-tenant", tenant)]).await;
            assert_eq!((got.body, got.x_cache.as_str()), (format!("/page?tenant={tenant}"), expected));
        }
    }
}

/// axum takes the content of an answer to HEAD away at its top level only; the cache answers HEAD rightly at every level.
#[tokio::test]
async fn head_is_answered_from_the_store_at_every_level() {
    let count = Count::default();
    let top = Router::new().route("/x", counting(&count)).layer(vouched());
    let route = Router::new().route("/x", counting(&count).layer(vouched()));
    let nested = Router::new().nest("/a", Router::new().route("/x", counting(&count)).layer(vouched()));
    let around = ServiceBuilder::new().layer(vouched()).service(Router::new().route("/x", counting(&count)));
    let around = Router::new().fallback_service(around);
    for (level, app, path) in
        [("top", top, "/x"), ("route", route, "/x"), ("nest", nested, "/a/x"), ("around a router", around, "/x")]
    {
        let unfilled = send(&app, "HEAD", path, &[]).await;
        assert_eq!((unfilled.x_cache.as_str(), unfilled.body.as_str()), ("MISS", ""), "{level}");
        let whole = get_from(&app, path, &[]).await;
        assert_eq!(whole.x_cache, "MISS", "{level}: a HEAD stores nothing");
        let head = send(&app, "HEAD", path, &[]).await;
        assert_eq!((head.x_cache.as_str(), head.body.as_str()), ("HIT", ""), "{level}");
        assert_eq!(head.field("content-length"), whole.body.len().to_string(), "{level}");
        assert_eq!(head.field("etag"), whole.field("etag"), "{level}");
    }
}
