//! Layers that add fields or look at who asks: CORS, request ids, tracing, authentication, sessions. What is promised inside and outside of the cache.

mod support;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use larder::{CacheLayer, Policy, RequestHead};
use support::exchange::{Exchange, MINUTE};
use support::neighbours::*;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::trace::TraceLayer;
use tower_http::validate_request::{AcceptHeader, ValidateRequestHeaderLayer};

/// `/` says how many answers there were with this one.
fn app(count: &Count) -> Router {
    let count = count.clone();
    Router::new().route("/", get(move || async move { format!("answer {}", count.up()) }).put(|| async {}))
}

const ONE: (&str, &str) = ("origin", "https://one.example");
const OTHER: (&str, &str) = ("origin", "https://other.example");

fn cors() -> CorsLayer {
    CorsLayer::new().allow_origin(AllowOrigin::mirror_request()).allow_methods([Method::PUT])
}

async fn preflight(app: &Router) -> Exchange {
    send(app, "OPTIONS", "/", &[ONE, ("access-control-request-method", "PUT")]).await
}

/// CORS outside: one entry for all origins, and each answer is for the one that asked. This is the order to choose.
#[tokio::test]
async fn cors_outside_has_one_entry_for_all_origins() {
    let count = Count::default();
    let app = app(&count).layer(vouched()).layer(cors());
    for (origin, x_cache) in [(ONE, "MISS"), (OTHER, "HIT"), (ONE, "HIT")] {
        let got = get_from(&app, "/", &[origin]).await;
        assert_eq!((got.x_cache.as_str(), got.field("access-control-allow-origin")), (x_cache, origin.1));
    }
    assert_eq!(get_from(&app, "/", &[]).await.x_cache, "HIT");
    let preflight = preflight(&app).await;
    assert_eq!((preflight.field("access-control-allow-methods"), preflight.x_cache.as_str()), ("PUT", ""));
    assert_eq!(count.get(), 1);
}

/// CORS inside: right as well, for it says on what it varies, with one entry for each origin; and a preflight passes and is not stored.
#[tokio::test]
async fn cors_inside_has_an_entry_for_each_origin() {
    let count = Count::default();
    let app = app(&count).layer(cors()).layer(vouched());
    for x_cache in MISS_HIT {
        for origin in [ONE, OTHER] {
            let got = get_from(&app, "/", &[origin]).await;
            assert_eq!((got.x_cache.as_str(), got.field("access-control-allow-origin")), (x_cache, origin.1));
        }
        let none = get_from(&app, "/", &[]).await;
        assert_eq!((none.x_cache.as_str(), none.has("access-control-allow-origin")), (x_cache, false));
    }
    for _ in 0..2 {
        let preflight = preflight(&app).await;
        assert_eq!((preflight.field("access-control-allow-methods"), preflight.x_cache.as_str()), ("PUT", "BYPASS"));
    }
    assert_eq!(count.get(), 3);
}

/// Request ids, set and propagated by layers outside: each answer has its own. Inside: a miss has one and a hit has none, for none was given
/// to its request there; in no order is anybody's id replayed to another.
#[tokio::test]
async fn request_ids_are_nobody_elses() {
    let set = || SetRequestIdLayer::x_request_id(MakeRequestUuid);
    let propagate = PropagateRequestIdLayer::x_request_id;
    let count = Count::default();
    let outside = app(&count).layer(vouched()).layer(propagate()).layer(set());
    let between = app(&count).layer(propagate()).layer(vouched()).layer(set());
    let inside = app(&count).layer(propagate()).layer(set()).layer(vouched());
    for (app, hits_have_one) in [(outside, true), (between, false), (inside, false)] {
        let mut ids = Vec::new();
        for (n, x_cache) in ["MISS", "HIT", "HIT"].into_iter().enumerate() {
            let got = get_from(&app, "/", &[]).await;
            assert_eq!((got.x_cache.as_str(), got.has("x-request-id")), (x_cache, n == 0 || hits_have_one));
            ids.extend(got.headers.get("x-request-id").cloned());
        }
        ids.dedup();
        assert_eq!(ids.len(), if hits_have_one { 3 } else { 1 });
    }
}

/// `TraceLayer` outside sees every request; inside only those that go to the handler.
#[tokio::test]
async fn a_trace_layer_sees_hits_only_from_outside() {
    let (inside, outside) = (Count::default(), Count::default());
    let trace = |count: &Count| {
        let count = count.clone();
        TraceLayer::new_for_http().on_request(move |_: &http::Request<_>, _: &tracing::Span| {
            count.up();
        })
    };
    let app = app(&Count::default()).layer(trace(&inside)).layer(vouched()).layer(trace(&outside));
    for _ in 0..3 {
        get_from(&app, "/", &[]).await;
    }
    assert_eq!((inside.get(), outside.get()), (1, 3));
}

/// A layer that sets a field: outside it does so on every answer; inside the field is stored with the answer.
#[tokio::test]
async fn fields_set_inside_are_stored_and_fields_set_outside_are_set_anew() {
    let numbered = || {
        let count = Count::default();
        let number = move |_: &http::Response<_>| HeaderValue::try_from(count.up().to_string()).ok();
        SetResponseHeaderLayer::overriding(HeaderName::from_static("x-number"), number)
    };
    let inside = app(&Count::default()).layer(numbered()).layer(vouched());
    let outside = app(&Count::default()).layer(vouched()).layer(numbered());
    for (app, expected) in [(inside, ["1", "1"]), (outside, ["1", "2"])] {
        for expected in expected {
            assert_eq!(get_from(&app, "/", &[]).await.field("x-number"), expected);
        }
    }
}

/// The lifetime may come from a layer inside, as sites set `Cache-Control` by path; the same layer outside tells clients, and not the cache.
#[tokio::test]
async fn a_layer_that_sets_cache_control_counts_inside() {
    let month = || {
        SetResponseHeaderLayer::overriding(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=2592000"))
    };
    let cache = || CacheLayer::in_memory(1 << 20);
    let inside = app(&Count::default()).layer(month()).layer(cache());
    assert_eq!(twice(&inside, "/", &[]).await, MISS_HIT);
    let outside = app(&Count::default()).layer(cache()).layer(month());
    assert_eq!(twice(&outside, "/", &[]).await, ["MISS", "MISS"]);
    assert_eq!(get_from(&outside, "/", &[]).await.cache_status, "larder; fwd=uri-miss; detail=no-freshness");
}

fn only_json() -> ValidateRequestHeaderLayer<AcceptHeader<Body>> {
    ValidateRequestHeaderLayer::accept("application/json")
}

/// A layer that refuses requests: outside each is looked at; inside it is skipped on a hit, and its refusals are not stored.
#[tokio::test]
async fn a_layer_that_refuses_is_skipped_on_a_hit_if_it_is_inside() {
    let json = [("accept", "application/json")];
    let html = [("accept", "text/html")];
    let outside = app(&Count::default()).layer(vouched()).layer(only_json());
    let inside = app(&Count::default()).layer(only_json()).layer(vouched());
    for (app, refused) in [(outside, 406), (inside, 200)] {
        for _ in 0..2 {
            assert_eq!(get_from(&app, "/", &html).await.status, 406, "and not stored");
        }
        assert_eq!(twice(&app, "/", &json).await, MISS_HIT);
        assert_eq!(get_from(&app, "/", &html).await.status, refused, "on a hit");
    }
}

#[derive(Clone)]
struct User(String);

/// Lets in who has a token, and says who that is.
async fn authenticated(mut request: Request, next: Next) -> Response {
    let token = request.headers().get(header::AUTHORIZATION).and_then(|token| token.to_str().ok());
    let Some(user) = token.and_then(|token| token.strip_prefix("Bearer ")).map(str::to_owned) else {
        return StatusCode::UNAUTHORIZED.into_response();
    };
    request.extensions_mut().insert(User(user));
    next.run(request).await
}

fn greeting(cache: CacheLayer, auth_outside: bool) -> Router {
    let greet = |Extension(User(user)): Extension<User>| async move { format!("hello {user}") };
    let route = Router::new().route("/", get(greet));
    if auth_outside {
        route.layer(cache).layer(middleware::from_fn(authenticated))
    } else {
        route.layer(middleware::from_fn(authenticated)).layer(cache)
    }
}

/// Authentication outside, and a partition for each user: everybody gets their own answer, and strangers none.
#[tokio::test]
async fn authentication_outside_names_the_principal() {
    let by_user = |request: &RequestHead<'_>| request.extensions.get::<User>().map(|user| user.0.clone());
    let app = greeting(CacheLayer::in_memory(1 << 20).otherwise(Policy::per(by_user, MINUTE)), true);
    for x_cache in MISS_HIT {
        for user in ["ann", "bob"] {
            let got = get_from(&app, "/", &[("authorization", &format!("Bearer {user}"))]).await;
            assert_eq!((got.body, got.x_cache.as_str()), (format!("hello {user}"), x_cache));
        }
        assert_eq!(get_from(&app, "/", &[]).await.status, 401);
    }
}

/// Authentication inside: without a word about the audience, and with `guarded`, requests with `Authorization` get their own answers. With
/// `Policy::shared` the application says that the answer is everybody's, and then it is: also of those whom the layer would have refused.
#[tokio::test]
async fn authentication_inside_is_skipped_where_the_rule_vouches() {
    let freshness = || CacheLayer::in_memory(1 << 20);
    let guarded = || freshness().otherwise(Policy::guarded(MINUTE));
    for (cache, words) in [
        (freshness(), ["fwd=uri-miss; detail=authorization"; 2]),
        (guarded(), ["fwd=bypass; detail=credentials"; 2]),
        (vouched(), ["fwd=uri-miss; stored", "hit; ttl=60"]),
    ] {
        let shared = words[0] != words[1];
        let clock = std::sync::Arc::new(larder::ManualClock::default());
        let app = greeting(cache.clock(clock), false);
        for (user, words) in ["ann", "bob"].into_iter().zip(words) {
            let got = get_from(&app, "/", &[("authorization", &format!("Bearer {user}"))]).await;
            let expected = if shared { "ann" } else { user };
            assert_eq!((got.body, got.cache_status), (format!("hello {expected}"), format!("larder; {words}")));
        }
        let stranger = get_from(&app, "/", &[]).await;
        assert_eq!(stranger.status, if shared { 200 } else { 401 });
    }
}

/// A session layer, which sets its cookie on every answer. Outside: the cache works, and everybody gets a cookie of their own. Inside: every
/// answer is declined and nobody gets another's cookie, unless the rule says that the cookie means nothing.
#[tokio::test]
async fn sessions_belong_outside() {
    let sessions = || {
        let count = Count::default();
        middleware::from_fn(move |request: Request, next: Next| {
            let cookie = format!("session={}; HttpOnly", count.up());
            async move { ([(header::SET_COOKIE, cookie)], next.run(request).await).into_response() }
        })
    };
    let count = Count::default();
    let outside = app(&count).layer(vouched()).layer(sessions());
    let inside = app(&count).layer(sessions()).layer(vouched());
    let cookies_dropped = CacheLayer::in_memory(1 << 20).otherwise(Policy::shared(MINUTE).drop_set_cookie());
    let dropped = app(&count).layer(sessions()).layer(cookies_dropped);
    let rows = [
        (outside, [("MISS", "session=1; HttpOnly"), ("HIT", "session=2; HttpOnly")]),
        (inside, [("MISS", "session=1; HttpOnly"), ("MISS", "session=2; HttpOnly")]),
        (dropped, [("MISS", "session=1; HttpOnly"), ("HIT", "")]),
    ];
    for (app, expected) in rows {
        for expected in expected {
            let got = get_from(&app, "/", &[]).await;
            assert_eq!((got.x_cache.as_str(), got.field("set-cookie")), expected);
            assert!(
                got.x_cache == "HIT"
                    || got.cache_status.ends_with("stored")
                    || got.cache_status.ends_with("set-cookie")
            );
        }
    }
}
