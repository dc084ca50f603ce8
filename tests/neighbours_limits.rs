//! Layers that limit, refuse, time out and catch: what is promised inside and outside of the cache, and what is left behind when they strike.

mod support;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::error_handling::HandleErrorLayer;
use axum::routing::get;
use axum::{BoxError, Router};
use http::{Request, Response, StatusCode};
use larder::{CacheHandle, CacheLayer, ManualClock, Policy};
use support::exchange::{Exchange, MINUTE, quiet, secs};
use support::neighbours::*;
use tokio::sync::Semaphore;
use tower::limit::{ConcurrencyLimitLayer, GlobalConcurrencyLimitLayer, RateLimitLayer};
use tower::load_shed::LoadShedLayer;
use tower::timeout::TimeoutLayer as ErrorTimeoutLayer;
use tower::{ServiceBuilder, ServiceExt};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::TimeoutLayer;

/// A route whose answers wait for a permit each, and say how many there were.
fn waiting(doors: &Arc<Semaphore>, count: &Count) -> Router {
    let (doors, count) = (doors.clone(), count.clone());
    let answer = move || async move {
        let number = count.up();
        doors.acquire().await.expect("never closed").forget();
        format!("answer {number}")
    };
    Router::new().route("/{id}", get(answer.clone())).route("/{id}/late", get(answer))
}

async fn unavailable(_: BoxError) -> StatusCode {
    StatusCode::SERVICE_UNAVAILABLE
}

fn ask(app: &Router, path: &'static str) -> tokio::task::JoinHandle<Exchange> {
    let app = app.clone();
    tokio::spawn(async move { get_from(&app, path, &[]).await })
}

/// A limit inside: while the handler is as busy as it may be, hits need no permit. Outside: they wait for one.
#[tokio::test]
async fn hits_need_no_permit_of_a_limit_inside() {
    for inside in [true, false] {
        let (doors, cache) = (Arc::new(Semaphore::new(1)), vouched());
        let limit = GlobalConcurrencyLimitLayer::new(1);
        let app = waiting(&doors, &Count::default());
        let app = if inside { app.layer(limit).layer(cache) } else { app.layer(cache).layer(limit) };
        get_from(&app, "/kept", &[]).await;
        let slow = ask(&app, "/slow");
        quiet().await;
        let hit = ask(&app, "/kept");
        quiet().await;
        assert_eq!(hit.is_finished(), inside, "inside: {inside}");
        doors.add_permits(1);
        assert_eq!(slow.await.expect("no panic").x_cache, "MISS");
        assert_eq!(hit.await.expect("no panic").x_cache, "HIT");
    }
}

/// The permit of a limit inside is given back when the answer is there, or the client leaves: the cache keeps none.
#[tokio::test]
async fn a_limit_inside_gets_its_permits_back() {
    let doors = Arc::new(Semaphore::new(0));
    let app = waiting(&doors, &Count::default()).layer(ConcurrencyLimitLayer::new(1)).layer(vouched());
    let gone = ask(&app, "/a");
    quiet().await;
    gone.abort();
    assert!(gone.await.expect_err("it was aborted").is_cancelled());
    doors.add_permits(4);
    for path in ["/b", "/c", "/a"] {
        assert_eq!(get_from(&app, path, &[]).await.status, 200);
    }
}

/// Load shedding inside: what is stored goes on being served, and what isn't is refused at once, and not stored. A stale answer stands in where
/// a rule allows that: the refusal is an error, or as a 503 counts as one.
#[tokio::test]
async fn load_shedding_inside_spares_hits_and_lets_stale_answers_stand_in() {
    let clock = Arc::new(ManualClock::default());
    let policy = Policy::shared(MINUTE).stale_if_error(MINUTE);
    let cache = CacheLayer::in_memory(1 << 20).otherwise(policy).clock(clock.clone());
    let doors = Arc::new(Semaphore::new(1));
    let shed = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(unavailable))
        .layer(LoadShedLayer::new())
        .layer(GlobalConcurrencyLimitLayer::new(1));
    let app = waiting(&doors, &Count::default()).layer(shed).layer(cache);
    get_from(&app, "/kept", &[]).await;
    let slow = ask(&app, "/slow");
    quiet().await;
    assert_eq!(get_from(&app, "/kept", &[]).await.x_cache, "HIT");
    let refused = get_from(&app, "/other", &[]).await;
    assert_eq!((refused.status, refused.cache_status.as_str()), (503, "larder; fwd=uri-miss; detail=error-status"));
    clock.advance(secs(70));
    let stale = get_from(&app, "/kept", &[]).await;
    assert_eq!((stale.status, stale.cache_status.as_str()), (200, "larder; fwd=stale; ttl=-10; detail=stale-if-error"));
    doors.add_permits(2);
    assert_eq!(slow.await.expect("no panic").status, 200);
    assert_eq!(get_from(&app, "/kept", &[]).await.x_cache, "MISS", "there is room again");
}

/// Load shedding outside refuses hits as well.
#[tokio::test]
async fn load_shedding_outside_refuses_hits() {
    let doors = Arc::new(Semaphore::new(1));
    let shed = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(unavailable))
        .layer(LoadShedLayer::new())
        .layer(GlobalConcurrencyLimitLayer::new(1));
    let app = waiting(&doors, &Count::default()).layer(vouched()).layer(shed);
    get_from(&app, "/kept", &[]).await;
    let slow = ask(&app, "/slow");
    quiet().await;
    assert_eq!(get_from(&app, "/kept", &[]).await.status, 503);
    doors.add_permits(1);
    assert_eq!(slow.await.expect("no panic").status, 200);
    assert_eq!(get_from(&app, "/kept", &[]).await.x_cache, "HIT");
}

/// A rate limit behind a buffer, which makes it one for all clones. Inside it counts misses; outside it counts hits too.
#[tokio::test(start_paused = true)]
async fn a_rate_limit_counts_what_passes_it() {
    for (inside, expected) in [(true, Duration::ZERO), (false, Duration::from_secs(4))] {
        let handler =
            tower::service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Body::from("x"))) });
        let limit = || RateLimitLayer::new(1, Duration::from_secs(1));
        let app = Router::new();
        let app = if inside {
            let limited = ServiceBuilder::new().layer(vouched()).buffer(8).layer(limit()).service(handler);
            app.fallback_service(limited.map_err(|error| panic!("{error}")).map_err(|never: Infallible| never))
        } else {
            let limited = ServiceBuilder::new().buffer(8).layer(limit()).layer(vouched()).service(handler);
            app.fallback_service(limited.map_err(|error| panic!("{error}")).map_err(|never: Infallible| never))
        };
        get_from(&app, "/", &[]).await;
        let begun = tokio::time::Instant::now();
        for _ in 0..4 {
            assert_eq!(get_from(&app, "/", &[]).await.x_cache, "HIT");
        }
        assert_eq!(begun.elapsed().as_secs(), expected.as_secs(), "inside: {inside}");
    }
}

/// A time limit outside: the client gets its 408, hits are always in time, and nothing half-made is ever served.
#[tokio::test(start_paused = true)]
async fn a_time_limit_outside_drops_the_client() {
    let (doors, count) = (Arc::new(Semaphore::new(0)), Count::default());
    let limit = TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, Duration::from_secs(1));
    let app = waiting(&doors, &count).layer(vouched()).layer(limit);
    let late = get_from(&app, "/a", &[]).await;
    assert_eq!((late.status, late.x_cache.as_str()), (408, ""));
    doors.add_permits(2);
    let next = get_from(&app, "/a", &[]).await;
    assert_eq!((next.status, next.body.starts_with("answer ")), (200, true));
    let hit = get_from(&app, "/a", &[]).await;
    assert_eq!((hit.x_cache, hit.body), ("HIT".into(), next.body));
}

/// A time limit inside: its 408 says nothing about the page and isn't stored. 504, or the error of `tower`'s own limit, counts as a failure of the
/// handler, so a stale answer stands in where a rule allows it; a 408 is the client's fault by its name, and stands for itself.
#[tokio::test(start_paused = true)]
async fn a_time_limit_inside_is_a_failure_if_it_says_so() {
    for (status, expected) in [(408, 408), (504, 200)] {
        let clock = Arc::new(ManualClock::default());
        let policy = Policy::shared(MINUTE).stale_if_error(MINUTE);
        let cache = CacheLayer::in_memory(1 << 20).otherwise(policy).clock(clock.clone());
        let status = StatusCode::from_u16(status).expect("a status");
        let doors = Arc::new(Semaphore::new(1));
        let limit = TimeoutLayer::with_status_code(status, Duration::from_secs(1));
        let app = waiting(&doors, &Count::default()).layer(limit).layer(cache.clone());
        get_from(&app, "/a", &[]).await;
        let late = get_from(&app, "/b", &[]).await;
        assert_eq!((late.status, cache.handle().stats().stored), (status.as_u16(), 1));
        assert!(late.cache_status.ends_with("detail=error-status"), "{}", late.cache_status);
        clock.advance(secs(70));
        assert_eq!(get_from(&app, "/a", &[]).await.status, expected);
    }
    let clock = Arc::new(ManualClock::default());
    let policy = Policy::shared(MINUTE).stale_if_error(MINUTE);
    let cache = CacheLayer::in_memory(1 << 20).otherwise(policy).clock(clock.clone());
    let doors = Arc::new(Semaphore::new(1));
    let service = ServiceBuilder::new().layer(cache).layer(ErrorTimeoutLayer::new(Duration::from_secs(1)));
    let service = service.service(waiting(&doors, &Count::default()));
    get_from(&service, "/a", &[]).await;
    clock.advance(secs(70));
    assert_eq!(get_from(&service, "/a", &[]).await.x_cache, "STALE");
}

fn panicking(count: &Count) -> Router {
    let count = count.clone();
    let answer = move || {
        assert_ne!(count.up(), 1, "the first call panics");
        async { "well" }
    };
    Router::new().route("/", get(answer.clone()).put(answer))
}

fn nothing_is_left(handle: &CacheHandle) {
    let stats = handle.stats();
    assert_eq!((stats.stored, stats.storage.entries, stats.hits), (0, 0, 0));
}

/// `CatchPanicLayer` inside: the 500 passes and isn't stored. Outside: the panic passes through the cache, whose fill ends with it. Either way
/// the next request is served and stored.
#[tokio::test]
async fn a_caught_panic_leaves_nothing_behind() {
    for inside in [true, false] {
        let cache = vouched();
        let app = panicking(&Count::default());
        let app = if inside {
            app.layer(CatchPanicLayer::new()).layer(cache.clone())
        } else {
            app.layer(cache.clone()).layer(CatchPanicLayer::new())
        };
        let failed = get_from(&app, "/", &[]).await;
        assert_eq!((failed.status, failed.x_cache.as_str()), (500, if inside { "MISS" } else { "" }));
        nothing_is_left(&cache.handle());
        assert_eq!(twice(&app, "/", &[]).await, MISS_HIT);
    }
}

/// A write that panics may have happened: outside of the cache the panic passes through it, and what is stored is invalid. Inside, a caught
/// panic is an error response, which invalidates nothing (RFC 9111 §4.4).
#[tokio::test]
async fn a_write_that_panics_invalidates_unless_the_cache_sees_an_answer() {
    for (inside, expected) in [(true, "HIT"), (false, "MISS")] {
        let write = || async {
            if true {
                panic!("after the change was made");
            }
        };
        let app = Router::new().route("/", get(|| async { "read" }).put(write));
        let app = if inside {
            app.layer(CatchPanicLayer::new()).layer(vouched())
        } else {
            app.layer(vouched()).layer(CatchPanicLayer::new())
        };
        get_from(&app, "/", &[]).await;
        assert_eq!(send(&app, "PUT", "/", &[]).await.status, 500);
        assert_eq!(get_from(&app, "/", &[]).await.x_cache, expected, "inside: {inside}");
    }
}
