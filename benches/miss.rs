//! What a small miss costs beside the handler that it asks anyway, in process: nanoseconds and allocations over the bare handler's, for 1 KiB with the
//! handler's own entity tag, and without one, where the content is hashed. Each call asks for a key that is new, of a store that is full; the content is
//! read to its end. Interleaved, so that all have the same luck.
//!
//! ```text
//! cargo bench --bench miss
//! cargo bench --bench miss -- profile 100000    # so many misses of a full store and nothing else, for a profiler; callgrind: --toggle-collect='*profiled*'
//! ```

#[allow(dead_code, reason = "hits need more of it")]
#[path = "support/calls.rs"]
mod calls;
#[path = "support/mod.rs"]
mod support;

use std::convert::Infallible;
use std::future::poll_fn;
use std::hint::black_box;
use std::pin::pin;
use std::process::ExitCode;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use calls::{Call, request};
use http::{HeaderValue, Request, Response, header};
use http_body_util::BodyExt;
use larder::{CacheLayer, Policy};
use support::report::Report;
use support::{median, median_ratio};
use tower::{Layer, Service, service_fn};

const SIZE: usize = 1 << 10;
/// Full of some 35,000 of them.
const CAPACITY: u64 = 64 << 20;
const WARM: usize = 50_000;
const ROUNDS: usize = 61;
const CALLS: usize = 2000;
/// Over which allocations are counted: more than the store works off at once.
const COUNTED: usize = 10_000;

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be built");
    let _in_runtime = runtime.enter();
    let mut report = Report::default();
    let mut arguments = std::env::args().skip_while(|argument| argument != "profile").skip(1);
    if std::env::args().any(|argument| argument == "profile") {
        return profile(arguments.next().and_then(|many| many.parse().ok()).unwrap_or(100_000));
    }
    measure(&mut report, SUBJECTS.map(Subject::call));
    report.finish()
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Subject {
    Bare,
    Larder,
    /// The handler gives no entity tag, and the cache makes one.
    LarderHashing,
    BareInRouter,
    LarderInRouter,
}

const SUBJECTS: [Subject; 5] =
    [Subject::Bare, Subject::Larder, Subject::LarderHashing, Subject::BareInRouter, Subject::LarderInRouter];

impl Subject {
    fn call(self) -> Call {
        let cache = CacheLayer::in_memory(CAPACITY).rule("^/products/", Policy::shared(Duration::from_secs(3600)));
        let content: &'static [u8] = vec![b'x'; SIZE].leak();
        let service = move |with_tag: bool| {
            service_fn(move |request: Request<Body>| async move {
                Ok::<_, Infallible>(handler(content, request.uri().path(), with_tag))
            })
        };
        let route = get(move |uri: http::Uri| async move { handler(content, uri.path(), true) });
        let router = Router::new().route("/products/{id}", route);
        match self {
            Self::Bare => calling(service(true)),
            Self::Larder => calling(cache.layer(service(true))),
            Self::LarderHashing => calling(cache.layer(service(false))),
            // As `axum::serve` does once for all requests.
            Self::BareInRouter => calling(router.with_state(())),
            Self::LarderInRouter => calling(router.layer(cache).with_state(())),
        }
    }
}

/// Ten fields, of which the entity tag is the key's, and a content that nobody else has.
fn handler(content: &'static [u8], path: &str, with_tag: bool) -> Response<Body> {
    let mut response = Response::new(Body::from(Bytes::copy_from_slice(content)));
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "application/json"),
        (header::CONTENT_LANGUAGE, "en"),
        (header::CACHE_CONTROL, "public, max-age=3600"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::STRICT_TRANSPORT_SECURITY, "max-age=31536000"),
        (header::LAST_MODIFIED, "Thu, 01 Jan 2026 00:00:00 GMT"),
        (header::VARY, "accept-encoding"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if with_tag {
        let id = path.rsplit('/').next().unwrap_or_default();
        headers.insert(header::ETAG, HeaderValue::try_from(format!("\"{id}\"")).expect("digits"));
    }
    response
}

/// As `calls::calling`, but that the content is read.
fn calling<S, B>(mut service: S) -> Call
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + 'static,
    S::Future: 'static,
    B: http_body::Body<Data = Bytes, Error: std::fmt::Debug>,
{
    Box::new(move |request| {
        let mut answer = pin!(async {
            poll_fn(|cx| service.poll_ready(cx)).await.expect("it is ready");
            let mut body = pin!(service.call(request).await.expect("it doesn't fail").into_body());
            while let Some(frame) = body.as_mut().frame().await {
                drop(black_box(frame.expect("it doesn't fail")));
            }
        });
        let polled = answer.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(polled, Poll::Ready(()), "nobody waits for anything");
    })
}

fn measure(report: &mut Report, mut calls: [Call; SUBJECTS.len()]) {
    calls.iter_mut().for_each(|call| (0..WARM).for_each(|n| call(request(n))));
    let mut next = WARM;
    let mut nanoseconds: [Vec<f64>; SUBJECTS.len()] = Default::default();
    for round in 0..ROUNDS {
        for n in 0..SUBJECTS.len() {
            // Who goes first changes.
            let place = (n + round) % SUBJECTS.len();
            nanoseconds[place].push(time(&mut calls[place], next));
        }
        next += CALLS;
    }
    let allocations = calls.each_mut().map(|call| allocations(call, next));
    let over = |one: usize, bare: usize| {
        median(nanoseconds[one].iter().zip(&nanoseconds[bare]).map(|(one, bare)| one - bare).collect()) / 1e3
    };
    let more = |one: usize, bare: usize| allocations[one] - allocations[bare];
    report.at_most("a miss of 1 KiB with an entity tag: time over the bare handler's", 2.5, over(1, 0), " us");
    report.at_most("the same: allocations over the bare handler's", 15.0, more(1, 0), "");
    report.at_most("the same in a Router: allocations over the bare one's", 15.0, more(4, 3), "");
    report.for_information("the same in a Router: time over the bare one's", &format!("{:.2} us", over(4, 3)));
    report.for_information("where the content is hashed: time on top", &format!("{:.2} us", over(2, 1)));
    for (n, subject) in SUBJECTS.iter().enumerate() {
        let (took, ratio) = (median(nanoseconds[n].clone()), median_ratio(&nanoseconds[n], &nanoseconds[n / 3 * 3]));
        let what = format!("{subject:?}: median of {ROUNDS} rounds of {CALLS} calls");
        report.for_information(&what, &format!("{took:.0} ns, {ratio:.2} x bare, {:.1} allocations", allocations[n]));
    }
}

/// Nanoseconds of a call. Requests are made in small batches, outside of what is timed.
fn time(call: &mut Call, first: usize) -> f64 {
    let mut spent = Duration::ZERO;
    for batch in 0..CALLS / 50 {
        let first = first + batch * 50;
        let requests: Vec<_> = (first..first + 50).map(request).collect();
        let start = Instant::now();
        requests.into_iter().for_each(&mut *call);
        spent += start.elapsed();
    }
    spent.as_nanos() as f64 / CALLS as f64
}

/// Of one call.
fn allocations(call: &mut Call, first: usize) -> f64 {
    let mut counted = 0;
    for n in first..first + COUNTED {
        let request = request(n);
        counted += allocation_counter::measure(|| call(request)).count_total;
    }
    counted as f64 / COUNTED as f64
}

/// So many misses with an entity tag, of a store that is full by then.
fn profile(many: usize) -> ExitCode {
    let mut call = Subject::Larder.call();
    (0..WARM).for_each(|n| call(request(n)));
    (WARM..WARM + many).for_each(|n| profiled(&mut call, request(n)));
    ExitCode::SUCCESS
}

/// What a profiler counts, by its name.
#[inline(never)]
fn profiled(call: &mut Call, request: Request<Body>) {
    call(request);
}
