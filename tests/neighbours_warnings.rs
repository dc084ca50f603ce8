//! An order of layers that is known to be wrong is said, in debug builds, once for each rule and with what to do about it.
#![cfg(debug_assertions)]

mod support;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use larder::{CacheLayer, Policy, RequestHead};
use support::exchange::{MINUTE, secs};
use support::log::Log;
use support::neighbours::*;
use tower_http::compression::CompressionLayer;

#[derive(Clone)]
struct User(String);

/// Lets in who names themselves.
async fn authenticated(mut request: Request, next: Next) -> Response {
    let Some(user) = request.headers().get("x-user").and_then(|user| user.to_str().ok()).map(str::to_owned) else {
        return StatusCode::UNAUTHORIZED.into_response();
    };
    request.extensions_mut().insert(User(user));
    next.run(request).await
}

async fn session(request: Request, next: Next) -> Response {
    ([("set-cookie", "session=1")], next.run(request).await).into_response()
}

fn app() -> Router {
    Router::new().route("/a", get(|| async { "a" })).route("/b", get(|| async { "b" }))
}

fn by_user(request: &RequestHead<'_>) -> Option<String> {
    request.extensions.get::<User>().map(|user| user.0.clone())
}

/// The lines that speak of an order; each names its rule and a word that leads out.
fn said(log: &Log, words: &[&str]) -> usize {
    let lines = log.lines("layers in the wrong order");
    for line in &lines {
        assert!(line.contains("WARN") && words.iter().all(|word| line.contains(word)), "{line}");
    }
    lines.len()
}

#[tokio::test]
async fn a_session_layer_inside_is_said_once_for_each_rule() {
    let cache =
        || CacheLayer::in_memory(1 << 20).rule("^/a", Policy::shared(MINUTE)).rule("^/b", Policy::guarded(MINUTE));
    let log = Log::new();
    let outside = app().layer(cache()).layer(middleware::from_fn(session));
    let inside = app().layer(middleware::from_fn(session)).layer(cache());
    let no_ttl = app().layer(middleware::from_fn(session)).layer(CacheLayer::in_memory(1 << 20));
    for app in [&outside, &no_ttl] {
        for _ in 0..5 {
            get_from(app, "/a", &[]).await;
        }
    }
    for _ in 0..2 {
        get_from(&inside, "/a", &[]).await;
    }
    assert_eq!(said(&log, &[]), 0, "two answers are no habit, and without a TTL nobody wanted them stored");
    for path in ["/a", "/a", "/a", "/b", "/b", "/b", "/b"] {
        let declined = get_from(&inside, path, &[]).await;
        assert!(declined.cache_status.ends_with("detail=set-cookie"), "{}", declined.cache_status);
    }
    assert_eq!(said(&log, &["outside", "Policy::drop_set_cookie"]), 2);
    assert_eq!(log.lines("^/a").len(), 1);
}

/// A cookie now and then, as at a login, is no session layer.
#[tokio::test]
async fn a_cookie_now_and_then_says_nothing() {
    let count = Count::default();
    let sometimes = move || {
        let odd = count.up() % 3 == 0;
        async move { if odd { "stored".into_response() } else { ([("set-cookie", "a=b")], "not").into_response() } }
    };
    let log = Log::new();
    let app = Router::new().route("/{id}", get(sometimes)).layer(vouched());
    for n in 0..30 {
        get_from(&app, &format!("/{n}"), &[]).await;
    }
    assert_eq!(said(&log, &[]), 0);
}

#[tokio::test]
async fn an_auth_layer_inside_a_shared_rule_is_said() {
    for (first, second) in [(None, Some("me")), (Some("me"), None)] {
        let log = Log::new();
        let clock = std::sync::Arc::new(larder::ManualClock::default());
        let cache = || vouched().clock(clock.clone());
        let inside = app().layer(middleware::from_fn(authenticated)).layer(cache());
        let outside = app().layer(cache()).layer(middleware::from_fn(authenticated));
        let fields = |user: Option<&'static str>| user.map(|user| ("x-user", user));
        for (app, expected) in [(outside, 0), (inside, 1)] {
            for user in [first, second] {
                get_from(&app, "/a", fields(user).as_slice()).await;
                // What the first one got must be asked for again, for the second to come so far.
                clock.advance(secs(61));
            }
            assert_eq!(said(&log, &["outside", "Policy::per", "authorisation"]), expected);
        }
    }
}

/// A route that refuses some URIs, and stores others, is nobody's mistake; and who logs in and out under a partition gets what they may.
#[tokio::test]
async fn refusals_of_other_uris_and_in_partitions_say_nothing() {
    let log = Log::new();
    let guard = |request: Request, next: Next| async move {
        if request.uri().path() == "/a" { StatusCode::FORBIDDEN.into_response() } else { next.run(request).await }
    };
    let one_uri = app().layer(middleware::from_fn(guard)).layer(vouched());
    let count = Count::default();
    let at_times = move || {
        let odd = count.up() == 1;
        async move { if odd { StatusCode::FORBIDDEN.into_response() } else { "yours".into_response() } }
    };
    let me = |_: &RequestHead<'_>| Some("me");
    let partition = CacheLayer::in_memory(1 << 20).otherwise(Policy::per(me, MINUTE));
    let partitioned = Router::new().route("/a", get(at_times.clone())).route("/b", get(at_times)).layer(partition);
    for app in [&one_uri, &partitioned] {
        for path in ["/a", "/b", "/a", "/b"] {
            get_from(app, path, &[]).await;
        }
    }
    assert_eq!(said(&log, &[]), 0);
}

#[tokio::test]
async fn a_principal_that_comes_too_late_is_said() {
    let cache = || CacheLayer::in_memory(1 << 20).otherwise(Policy::per(by_user, MINUTE));
    let log = Log::new();
    let outside = app().layer(cache()).layer(middleware::from_fn(authenticated));
    let inside = app().layer(middleware::from_fn(authenticated)).layer(cache());
    for (app, x_cache, expected) in [(outside, "HIT", 0), (inside, "BYPASS", 1)] {
        for _ in 0..5 {
            get_from(&app, "/a", &[]).await;
            get_from(&app, "/a", &[("x-user", "me")]).await;
        }
        assert_eq!(get_from(&app, "/a", &[("x-user", "me")]).await.x_cache, x_cache);
        assert_eq!(said(&log, &["Policy::per", "outside"]), expected);
    }
}

/// A route that serves visitors and users: once a principal was seen, visitors are no sign of anything.
#[tokio::test]
async fn visitors_among_users_say_nothing() {
    async fn optional(mut request: Request, next: Next) -> Response {
        if request.headers().contains_key("x-user") {
            request.extensions_mut().insert(User("me".into()));
        }
        next.run(request).await
    }
    let log = Log::new();
    let cache = CacheLayer::in_memory(1 << 20).otherwise(Policy::per(by_user, MINUTE));
    let app = app().layer(cache).layer(middleware::from_fn(optional));
    get_from(&app, "/a", &[("x-user", "me")]).await;
    for _ in 0..5 {
        assert_eq!(get_from(&app, "/a", &[]).await.cache_status, "larder; fwd=bypass; detail=no-principal");
    }
    assert_eq!(said(&log, &[]), 0);
}

#[tokio::test]
async fn a_layer_inside_another_of_the_same_cache_is_said() {
    let (cache, log) = (vouched(), Log::new());
    let twice = app().layer(cache.clone()).layer(cache);
    let apart = app().layer(vouched()).layer(vouched());
    for (app, expected) in [(apart, 0), (twice, 1)] {
        for path in ["/a", "/b", "/a"] {
            get_from(&app, path, &[]).await;
        }
        assert_eq!(said(&log, &["a cache of their own", "otherwise"]), expected);
    }
}

#[tokio::test]
async fn a_coding_without_vary_is_said() {
    let log = Log::new();
    let silent = || async { ([("content-encoding", "gzip")], "coded") };
    let coded = Router::new().route("/a", get(silent)).layer(vouched());
    let text = || async { "text ".repeat(100) };
    let compressed = Router::new().route("/a", get(text)).layer(CompressionLayer::new()).layer(vouched());
    for (app, expected) in [(compressed, 0), (coded, 1)] {
        for accepted in ["gzip", "gzip, br"] {
            get_from(&app, "/a", &[("accept-encoding", accepted)]).await;
        }
        assert_eq!(said(&log, &["Vary: Accept-Encoding", "CompressionLayer"]), expected);
    }
}
