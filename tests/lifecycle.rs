//! How the cache behaves as a piece of tower: readiness, errors, panics, the end; inside another cache and beside its clones.

mod support;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::task::noop_waker_ref;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Empty};
use larder::storage::MemoryStore;
use larder::{CacheLayer, DeclineReason, Policy, Selector};
use support::bodies::*;
use tokio::sync::Notify;
use tower::limit::ConcurrencyLimit;
use tower::load_shed::error::Overloaded;
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt};

const TEN: Duration = Duration::from_secs(10);
const HOUR: Duration = Duration::from_secs(3600);

type Ask = Request<Empty<Bytes>>;

fn layer() -> CacheLayer {
    CacheLayer::in_memory(CAPACITY)
}

fn content() -> Handler {
    Handler::new(|number, _| fresh(whole(format!("answer {number}"))))
}

fn is_ready<S: Service<Ask>>(service: &mut S) -> bool {
    service.poll_ready(&mut Context::from_waker(noop_waker_ref())).is_ready()
}

// Readiness

/// Ready only while its gate is open, or failed for good.
#[derive(Clone)]
struct Gated {
    open: Arc<AtomicBool>,
    broken: bool,
    inner: Handler,
}

impl Service<Ask> for Gated {
    type Response = Response<Content>;
    type Error = Broken;
    type Future = <Handler as Service<Ask>>::Future;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        match self.open.load(Ordering::Relaxed) {
            true => Poll::Ready(Ok(())),
            false if self.broken => Poll::Ready(Err(Broken("never ready again"))),
            false => Poll::Pending,
        }
    }

    fn call(&mut self, request: Ask) -> Self::Future {
        self.inner.call(request)
    }
}

#[tokio::test]
async fn the_cache_is_ready_and_hits_while_the_handler_is_not() {
    let open = Arc::new(AtomicBool::new(true));
    let mut cache = layer().layer(Gated { open: open.clone(), broken: false, inner: content() });
    assert_eq!(x_cache(&cache.call(get("/")).await.unwrap()), "MISS");
    open.store(false, Ordering::Relaxed);
    assert!(is_ready(&mut cache));
    assert_eq!(x_cache(&cache.call(get("/")).await.unwrap()), "HIT");
    let mut miss = cache.call(get("/other"));
    assert!((&mut miss).now_or_never().is_none(), "a miss waits for the handler");
    assert_eq!(cache.inner().inner.calls(), 1);
    open.store(true, Ordering::Relaxed);
    assert_eq!(x_cache(&miss.await.unwrap()), "MISS");
}

#[tokio::test]
async fn the_error_of_a_handler_that_does_not_get_ready_passes() {
    let mut cache = layer().layer(Gated { open: Arc::default(), broken: true, inner: content() });
    assert!(is_ready(&mut cache));
    for method in [Method::GET, Method::POST, Method::OPTIONS] {
        let mut request = get("/");
        *request.method_mut() = method.clone();
        assert_eq!(cache.call(request).await.unwrap_err(), Broken("never ready again"), "{method}");
    }
}

/// Must be made ready before each call; being cloned, it is not.
struct Picky {
    ready: bool,
    inner: Handler,
}

impl Clone for Picky {
    fn clone(&self) -> Self {
        Self { ready: false, inner: self.inner.clone() }
    }
}

impl Service<Ask> for Picky {
    type Response = Response<Content>;
    type Error = Broken;
    type Future = <Handler as Service<Ask>>::Future;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Ask) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called without having been made ready");
        self.inner.call(request)
    }
}

#[tokio::test]
async fn whoever_is_called_was_made_ready() {
    let clock = Arc::new(larder::ManualClock::default());
    let policy = Policy::shared(TEN).stale_while_revalidate(TEN);
    let layer = layer().clock(clock.clone()).rule("^/bypass", Policy::bypass()).otherwise(policy);
    let handler = Handler::new(|_, _| answer(&[], whole("content")));
    let mut cache = layer.layer(Picky { ready: false, inner: handler.clone() });
    // (method, path, seconds since the request before, X-Cache, calls of the handler by then)
    let rows = [
        (Method::GET, "/", 0, "MISS", 1),
        (Method::GET, "/", 15, "STALE", 2),
        (Method::GET, "/", 60, "MISS", 3),
        (Method::HEAD, "/other", 0, "MISS", 4),
        (Method::GET, "/bypass", 0, "BYPASS", 5),
        (Method::OPTIONS, "/", 0, "BYPASS", 6),
        (Method::POST, "/", 0, "BYPASS", 7),
    ];
    for (method, path, seconds, expected, calls) in rows {
        clock.advance(Duration::from_secs(seconds));
        let mut request = get(path);
        *request.method_mut() = method.clone();
        let response = cache.ready().await.unwrap().call(request).await.unwrap();
        assert_eq!(x_cache(&response), expected, "{method} {path}");
        settle().await;
        assert_eq!(handler.calls(), calls, "{method} {path}: the refresh behind the answer counts as well");
    }
}

/// A handler that counts how many of its calls run, and how many did at most; each waits to be let go.
fn counted() -> (Handler, Arc<AtomicUsize>, Arc<Notify>) {
    let (running, most, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let (seen, gate) = (most.clone(), go.clone());
    let handler = Handler::waiting(move |_, request| {
        let (running, most, go) = (running.clone(), most.clone(), gate.clone());
        async move {
            let now = running.fetch_add(1, Ordering::Relaxed) + 1;
            most.fetch_max(now, Ordering::Relaxed);
            if request.uri.path() != "/at-once" {
                go.notified().await;
            }
            running.fetch_sub(1, Ordering::Relaxed);
            Ok(fresh(whole("content")))
        }
    });
    (handler, seen, go)
}

#[tokio::test]
async fn a_concurrency_limit_inside_holds_and_hits_pass_it() {
    let (handler, most, go) = counted();
    let cache = layer().layer(ConcurrencyLimit::new(handler.clone(), 2));
    cache.clone().oneshot(get("/at-once")).await.unwrap();
    let paths = ["/1", "/2", "/3", "/4", "/5"];
    let requests: Vec<_> = paths.map(|path| tokio::spawn(cache.clone().oneshot(get(path)))).into();
    settle().await;
    assert_eq!(handler.calls(), 3, "two of five were let in, after the first");
    assert_eq!(x_cache(&cache.clone().oneshot(get("/at-once")).await.unwrap()), "HIT");
    for request in requests {
        settle().await;
        go.notify_one();
        go.notify_one();
        assert_eq!(x_cache(&request.await.unwrap().unwrap()), "MISS");
    }
    assert_eq!((handler.calls(), most.load(Ordering::Relaxed)), (6, 2));
}

#[tokio::test]
async fn load_shedding_inside_sheds_misses_and_no_hits() {
    let (handler, most, go) = counted();
    let inner = ServiceBuilder::new().load_shed().concurrency_limit(1).service(handler);
    let cache = layer().layer(inner);
    cache.clone().oneshot(get("/at-once")).await.unwrap();
    let first = tokio::spawn(cache.clone().oneshot(get("/1")));
    settle().await;
    let shed: BoxError = cache.clone().oneshot(get("/2")).await.unwrap_err();
    assert!(shed.is::<Overloaded>(), "{shed}");
    assert_eq!(x_cache(&cache.clone().oneshot(get("/at-once")).await.unwrap()), "HIT");
    go.notify_one();
    first.await.unwrap().unwrap();
    go.notify_one();
    assert_eq!(x_cache(&cache.clone().oneshot(get("/2")).await.unwrap()), "MISS", "there is room again");
    assert_eq!(most.load(Ordering::Relaxed), 1);
}

/// No `#[tokio::test]`: there is no runtime here, and none is needed for what happens in memory.
#[test]
fn nothing_needs_a_runtime_before_there_is_work_for_one() {
    let layer = layer().rule("^/", Policy::shared(TEN));
    let handle = layer.handle();
    let mut cache = layer.layer(content());
    assert!(is_ready(&mut cache));
    for expected in ["MISS", "HIT"] {
        let response = cache.call(get("/")).now_or_never().expect("nobody is waited for").unwrap();
        assert_eq!(x_cache(&response), expected);
        assert_eq!(read(response).now_or_never().unwrap().content, b"answer 1");
    }
    handle.purge(Selector::Everything).into_future().now_or_never().expect("memory is purged at once").unwrap();
    assert_eq!(x_cache(&cache.call(get("/")).now_or_never().unwrap().unwrap()), "MISS");
}

// Errors and panics

/// Accepts services whose error is exactly this.
fn error_of<S: Service<Ask, Error = Broken>>(service: S) -> S {
    service
}

#[tokio::test]
async fn errors_of_the_handler_pass_unchanged_and_leave_nothing_behind() {
    for method in [Method::GET, Method::HEAD, Method::POST, Method::OPTIONS] {
        let handler = Handler::waiting(|number, _| async move {
            if number == 1 { Err(Broken("out of order")) } else { Ok(fresh(whole("content"))) }
        });
        let mut cache = error_of(layer().layer(handler));
        let mut request = get("/");
        *request.method_mut() = method.clone();
        assert_eq!(cache.call(request).await.unwrap_err(), Broken("out of order"), "{method}");
        for expected in ["MISS", "HIT"] {
            assert_eq!(x_cache(&cache.call(get("/")).await.unwrap()), expected, "{method}");
        }
    }
}

#[tokio::test]
async fn a_panic_of_the_handler_reaches_the_caller_and_leaves_nothing_behind() {
    for method in [Method::GET, Method::HEAD, Method::POST, Method::OPTIONS] {
        let handler = Handler::waiting(|number, _| async move {
            assert_ne!(number, 1, "expected in this test");
            Ok(fresh(whole("content")))
        });
        let cache = layer().layer(handler);
        let mut request = get("/");
        *request.method_mut() = method.clone();
        let error = tokio::spawn(cache.clone().oneshot(request)).await.unwrap_err();
        assert!(error.is_panic(), "{method}");
        for expected in ["MISS", "HIT"] {
            assert_eq!(x_cache(&cache.clone().oneshot(get("/")).await.unwrap()), expected, "{method}");
        }
    }
}

#[tokio::test]
async fn a_panic_of_the_body_reaches_the_caller_and_leaves_nothing_behind() {
    let handler = Handler::new(|number, _| {
        let steps = (0..4).map(move |at| {
            assert!(number > 1 || at < 2, "expected in this test");
            data("part ")
        });
        fresh(http_body_util::StreamBody::new(futures_util::stream::iter(steps)).boxed_unsync())
    });
    let setup = set_up(handler, |layer| layer.max_fill_bytes(40));
    let response = setup.begin("/").await;
    assert!(tokio::spawn(read(response)).await.unwrap_err().is_panic());
    assert_eq!((setup.stats().stored, setup.stats().declined), (0, vec![(DeclineReason::Incomplete, 1)]));
    for expected in ["MISS", "HIT"] {
        let got = setup.get("/").await;
        assert_eq!((got.x_cache.as_str(), got.content.as_slice()), (expected, &b"part part part part "[..]));
    }
}

#[tokio::test]
async fn a_refresh_that_fails_or_panics_makes_way_for_the_next() {
    for panics in [true, false] {
        let handler = Handler::waiting(move |number, _| async move {
            match number {
                2 if panics => panic!("expected in this test"),
                2 => Err(Broken("out of order")),
                _ => Ok(answer(&[], whole(format!("answer {number}")))),
            }
        });
        let policy = Policy::shared(TEN).stale_while_revalidate(HOUR);
        let setup = set_up(handler, |layer| layer.otherwise(policy));
        setup.get("/").await;
        setup.clock.advance(TEN);
        for (expected, content) in [("STALE", "answer 1"), ("STALE", "answer 1"), ("HIT", "answer 3")] {
            let got = setup.get("/").await;
            assert_eq!(
                (got.x_cache.as_str(), got.content.as_slice()),
                (expected, content.as_bytes()),
                "panics {panics}"
            );
            settle().await;
        }
        assert_eq!(setup.stats().refreshes, 2, "panics {panics}");
    }
}

// The end

/// Stale by now, so that the next request starts a refresh; that takes so long, and tells whether it was abandoned.
async fn with_slow_refresh(takes: Duration) -> (Setup, Arc<AtomicBool>) {
    struct Abandoned(Arc<AtomicBool>, bool);
    impl Drop for Abandoned {
        fn drop(&mut self) {
            self.0.store(!self.1, Ordering::Relaxed);
        }
    }
    let abandoned = Arc::new(AtomicBool::new(false));
    let flag = abandoned.clone();
    let handler = Handler::waiting(move |number, _| {
        let flag = flag.clone();
        async move {
            if number > 1 {
                let mut abandoned = Abandoned(flag, false);
                tokio::time::sleep(takes).await;
                abandoned.1 = true;
            }
            Ok(answer(&[], whole(format!("answer {number}"))))
        }
    });
    let policy = Policy::shared(TEN).stale_while_revalidate(HOUR);
    let setup = set_up(handler, |layer| layer.otherwise(policy));
    setup.get("/").await;
    setup.clock.advance(TEN);
    assert_eq!(setup.get("/").await.x_cache, "STALE");
    settle().await;
    assert_eq!(setup.handler.calls(), 2, "the refresh is running");
    (setup, abandoned)
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_a_refresh_until_its_deadline() {
    // (how long the refresh takes, how long the shutdown takes, whether the refresh ends in time)
    let rows = [(5, 5, true), (9, 9, true), (15, 10, false), (3600, 10, false)];
    for (takes, until, in_time) in rows {
        let (setup, abandoned) = with_slow_refresh(Duration::from_secs(takes)).await;
        let begin = tokio::time::Instant::now();
        assert_eq!(setup.handle.shutdown(TEN).await, in_time, "{takes} seconds");
        assert_eq!(begin.elapsed().as_secs(), until, "{takes} seconds");
        assert_eq!(abandoned.load(Ordering::Relaxed), !in_time, "{takes} seconds");
        let stats = setup.stats();
        let stored = if in_time { 2 } else { 1 };
        assert_eq!(stats.stored, stored, "{takes} seconds: what ends in time is stored, and nothing more");
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_shutdown_requests_are_answered_and_nothing_is_stored() {
    let (setup, _) = with_slow_refresh(Duration::from_secs(1)).await;
    assert!(setup.handle.shutdown(TEN).await);
    let calls = setup.handler.calls();
    setup.clock.advance(TEN);
    for _ in 0..2 {
        let stale = setup.get("/").await;
        assert_eq!((stale.x_cache.as_str(), stale.content.as_slice()), ("STALE", &b"answer 2"[..]));
        settle().await;
    }
    assert_eq!(setup.handler.calls(), calls, "no refresh starts any more");
    for more in 1..=2 {
        let miss = setup.get("/new").await;
        let expected = format!("answer {}", calls + more);
        assert_eq!((miss.x_cache.as_str(), miss.content.as_slice()), ("MISS", expected.as_bytes()));
    }
    let stats = setup.stats();
    // The refresh that was waited for was still stored.
    assert_eq!((stats.stored, stats.declined_for(DeclineReason::Shutdown)), (2, 2));
    assert!(setup.handle.shutdown(TEN).await, "a second shutdown finds nothing to do");
}

#[tokio::test]
async fn a_shutdown_of_an_idle_cache_returns_at_once() {
    let setup = around(content());
    setup.get("/").await;
    assert_eq!(setup.handle.shutdown(HOUR).now_or_never(), Some(true));
    assert_eq!(setup.get("/").await.x_cache, "HIT", "what is stored is still sent");
}

// Beside and inside others

#[tokio::test]
async fn a_layer_inside_another_of_the_same_cache_passes_through() {
    let handler = content();
    let layer = layer().rule("^/bypass", Policy::bypass());
    let mut cache = layer.layer(layer.clone().layer(handler.clone()));
    // (method, path, X-Cache, Cache-Status up to its parameters' values)
    let rows = [
        (Method::GET, "/", "MISS", "larder; fwd=uri-miss; stored"),
        (Method::GET, "/", "HIT", "larder; hit; ttl=60"),
        (Method::GET, "/bypass", "BYPASS", "larder; fwd=bypass; detail=rule"),
        (Method::POST, "/", "BYPASS", "larder; fwd=method"),
    ];
    for (method, path, expected, status) in rows {
        let mut request = get(path);
        *request.method_mut() = method.clone();
        let response = cache.call(request).await.unwrap();
        let all =
            |name| response.headers().get_all(name).iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!(all("x-cache"), [expected], "{method} {path}");
        assert_eq!(all("cache-status"), [status], "{method} {path}");
    }
    let stats = layer.handle().stats();
    assert_eq!((stats.misses, stats.hits, stats.bypassed, stats.stored), (1, 1, 2, 1));
    assert_eq!(stats.invalidations, 1);
    assert_eq!(handler.calls(), 3);
}

#[tokio::test]
async fn two_caches_nest() {
    let handler = content();
    let (outer, inner) = (layer().name("outer"), layer().name("inner"));
    let cache = outer.layer(inner.layer(handler.clone()));
    let statuses = |response: &Response<_>| {
        let all = response.headers().get_all("cache-status").iter();
        all.map(|status| status.to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let first = cache.clone().oneshot(get("/")).await.unwrap();
    assert_eq!(x_cache(&first), "MISS");
    assert_eq!(statuses(&first), ["inner; fwd=uri-miss; stored", "outer; fwd=uri-miss; stored"]);
    outer.handle().purge(Selector::Everything).await.unwrap();
    let second = cache.clone().oneshot(get("/")).await.unwrap();
    assert_eq!(x_cache(&second), "MISS", "the outer cache has the last word");
    assert_eq!(statuses(&second), ["inner; hit; ttl=60", "outer; fwd=uri-miss; stored"]);
    let third = cache.clone().oneshot(get("/")).await.unwrap();
    assert_eq!((x_cache(&third), statuses(&third)), ("HIT", vec!["outer; hit; ttl=60".to_owned()]));
    assert_eq!(read(third).await.content, b"answer 1");
    assert_eq!(handler.calls(), 1);
}

#[tokio::test]
async fn all_clones_share_one_cache() {
    let early = layer();
    let late_clone = early.clone();
    let (one, other) = (early.layer(content()), late_clone.layer(content()));
    assert_eq!(x_cache(&one.clone().oneshot(get("/")).await.unwrap()), "MISS");
    assert_eq!(x_cache(&one.clone().oneshot(get("/")).await.unwrap()), "HIT", "a clone of the service");
    assert_eq!(x_cache(&other.oneshot(get("/")).await.unwrap()), "HIT", "a service of a clone of the layer");
    let latest = late_clone.clone();
    assert_eq!(x_cache(&latest.layer(content()).oneshot(get("/")).await.unwrap()), "HIT", "a clone made in use");
    latest.handle().purge(Selector::Everything).await.unwrap();
    assert_eq!(x_cache(&one.oneshot(get("/")).await.unwrap()), "MISS", "purged through a clone");
    assert_eq!(early.handle().stats(), latest.handle().stats());
}

/// The future of a request that is polled by hand is a plain future: `Send`, and without a lifetime.
#[test]
fn futures_and_bodies_can_move_between_threads() {
    fn is_send<T: Send + 'static>(_: &T) {}
    let mut cache = layer().layer(content());
    let future = cache.call(get("/"));
    is_send(&future);
    let mut future: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(future);
    let response = (&mut future).now_or_never().unwrap().unwrap();
    is_send(response.body());
}

/// Two routes of one application may begin with the same settings and go on with their own.
#[tokio::test]
async fn layers_set_up_further_from_one_base_have_caches_of_their_own() {
    let says = |who: &'static str| Handler::new(move |_, _| answer(&[], whole(who)));
    let base = layer();
    let in_use = base.layer(says("base"));
    let shared = base.clone().rule("^/", Policy::shared(TEN));
    let guarded = base.clone().rule("^/", Policy::guarded(TEN));
    for (layer, who) in [(&shared, "shared"), (&guarded, "guarded")] {
        for expected in ["MISS", "HIT"] {
            let got = read(layer.layer(says(who)).oneshot(get("/")).await.unwrap()).await;
            assert_eq!((got.x_cache.as_str(), got.content.as_slice()), (expected, who.as_bytes()));
        }
    }
    shared.handle().purge(Selector::Everything).await.unwrap();
    assert_eq!(x_cache(&shared.layer(says("shared")).oneshot(get("/")).await.unwrap()), "MISS");
    assert_eq!(x_cache(&guarded.layer(says("guarded")).oneshot(get("/")).await.unwrap()), "HIT", "not its purge");
    assert_eq!(read(in_use.oneshot(get("/")).await.unwrap()).await.content, b"base");
    let stored = [&base, &shared, &guarded].map(|layer| layer.handle().stats().storage.entries);
    assert_eq!(stored, [0, 1, 1]);
}

/// What is stored means nothing without the purges of its cache.
#[tokio::test]
async fn a_store_of_ones_own_serves_one_cache_and_a_second_is_refused() {
    let base = CacheLayer::with_storage(MemoryStore::new(CAPACITY)).name("base");
    let set_up = base.clone().rule("^/", Policy::shared(TEN));
    let handler = Handler::new(|_, _| answer(&[], whole("content")));
    for (layer, expected) in [(&set_up, "MISS"), (&set_up.clone(), "HIT")] {
        assert_eq!(x_cache(&layer.layer(handler.clone()).oneshot(get("/")).await.unwrap()), expected, "clones share");
        settle().await;
    }
    for second in [base, set_up.name("again")] {
        for _ in 0..2 {
            let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| second.handle())).unwrap_err();
            let text = refused.downcast::<&str>().expect("a text");
            assert!(text.contains("belongs to another cache") && text.contains("setters"), "{text}");
        }
    }
}
