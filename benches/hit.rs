//! What a hit costs, beside the handler that it spares: nanoseconds and allocations, alone and inside an axum `Router`, with one key and
//! with 10,000. First an interleaved comparison with the ratio of the medians, then criterion's own report.
//!
//! ```text
//! cargo bench --bench hit              # both
//! cargo bench --bench hit -- --quick   # the comparison, and a short report
//! cargo bench --bench hit -- profile 10000 100    # hits among so many keys beside the bare handler alone, in so many rounds: for a profiler, or to compare two builds
//! ```

#[path = "support/calls.rs"]
mod calls;

use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use calls::{Call, Requests, calling, contents, handler, request, warm};
use criterion::{BenchmarkId, Criterion};
use http::Request;
use larder::{CacheLayer, Policy};
use tower::{Layer, service_fn};

const BODY: usize = 10 << 10;
const MANY: usize = 10_000;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime of one thread can be built");
    let _in_runtime = runtime.enter();
    let mut arguments = std::env::args().skip_while(|argument| argument != "profile").skip(1);
    if std::env::args().any(|argument| argument == "profile") {
        let mut number = |otherwise| arguments.next().and_then(|number| number.parse().ok()).unwrap_or(otherwise);
        return profile(number(MANY), number(41));
    }
    compare(1);
    compare(MANY);
    let mut criterion = Criterion::default().configure_from_args();
    report(&mut criterion, 1);
    report(&mut criterion, MANY);
    criterion.final_summary();
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Subject {
    Bare,
    Larder,
    /// Without the `CacheOutcome` in the extensions; the headers are the same.
    LarderOnlyHeaders,
    BareInRouter,
    LarderInRouter,
    LarderOnlyHeadersInRouter,
}

const SUBJECTS: [Subject; 6] = [
    Subject::Bare,
    Subject::Larder,
    Subject::LarderOnlyHeaders,
    Subject::BareInRouter,
    Subject::LarderInRouter,
    Subject::LarderOnlyHeadersInRouter,
];

impl Subject {
    fn call(self, contents: &'static [Bytes]) -> Call {
        let cache = CacheLayer::in_memory(1 << 30).rule("^/products/", Policy::shared(Duration::from_secs(3600)));
        let service = service_fn(move |request: Request<Body>| async move {
            Ok::<_, Infallible>(handler(contents, request.uri().path()))
        });
        let route = get(move |uri: http::Uri| async move { handler(contents, uri.path()) });
        let router = Router::new().route("/products/{id}", route);
        match self {
            Self::Bare => calling(service),
            Self::Larder => calling(cache.layer(service)),
            Self::LarderOnlyHeaders => calling(cache.outcome_extension(false).layer(service)),
            // As `axum::serve` does once for all requests.
            Self::BareInRouter => calling(router.with_state(())),
            Self::LarderInRouter => calling(router.layer(cache).with_state(())),
            Self::LarderOnlyHeadersInRouter => calling(router.layer(cache.outcome_extension(false)).with_state(())),
        }
    }
}

/// The time of `count` calls. Requests are made in small batches, outside of what is timed: a server has parsed a request just before it is
/// answered, so it lies in the processor's cache, and thousands made ahead would push out what is measured.
fn time(call: &mut Call, requests: &mut Requests, count: usize) -> Duration {
    let (mut left, mut spent) = (count, Duration::ZERO);
    while left > 0 {
        let batch: Vec<_> = requests.by_ref().take(left.min(50)).collect();
        left -= batch.len();
        let start = Instant::now();
        for request in batch {
            call(request);
        }
        spent += start.elapsed();
    }
    spent
}

fn compare(keys: usize) {
    const ROUNDS: usize = 41;
    const CALLS: usize = 5_000;
    let contents = contents(keys, BODY);
    let mut calls = SUBJECTS.map(|subject| subject.call(contents));
    // So often that what follows is what it is for most of an entry's life.
    (0..7).for_each(|_| calls.iter_mut().for_each(|call| warm(call, keys)));
    let mut nanoseconds: [Vec<f64>; 6] = Default::default();
    let mut requests = SUBJECTS.map(|_| Requests::of(keys));
    for _ in 0..ROUNDS {
        for ((call, requests), samples) in calls.iter_mut().zip(&mut requests).zip(&mut nanoseconds) {
            samples.push(time(call, requests, CALLS).as_nanos() as f64 / CALLS as f64);
        }
    }
    let medians = nanoseconds.map(median);
    println!("{keys} key(s), {BODY} B, medians of {ROUNDS} interleaved rounds of {CALLS} calls:");
    for (n, subject) in SUBJECTS.iter().enumerate() {
        let bare = medians[n / 3 * 3];
        let allocations = allocations(&mut calls[n]);
        println!("  {subject:<26?} {:>6.0} ns  {:.2} x bare  {allocations} allocations", medians[n], medians[n] / bare);
    }
}

fn profile(keys: usize, rounds: usize) {
    const CALLS: usize = 5_000;
    let contents = contents(keys, BODY);
    let mut subjects =
        [Subject::Bare, Subject::Larder].map(|subject| (subject.call(contents), Requests::of(keys), vec![]));
    (0..7).for_each(|_| subjects.iter_mut().for_each(|(call, ..)| warm(call, keys)));
    for _ in 0..rounds {
        for (call, requests, samples) in &mut subjects {
            samples.push(time(call, requests, CALLS).as_nanos() as f64 / CALLS as f64);
        }
    }
    let [bare, larder] = subjects.map(|(_, _, samples)| median(samples));
    println!("{keys} key(s): bare {bare:.0} ns, larder {larder:.0} ns, {:.3} x bare", larder / bare);
}

fn allocations(call: &mut Call) -> u64 {
    let request = request(0);
    let counted = allocation_counter::measure(|| call(request));
    counted.count_total
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

fn report(criterion: &mut Criterion, keys: usize) {
    let contents = contents(keys, BODY);
    let mut group = criterion.benchmark_group(format!("hit/{keys}"));
    for subject in SUBJECTS {
        let mut call = subject.call(contents);
        warm(&mut call, keys);
        let mut requests = Requests::of(keys);
        group.bench_function(BenchmarkId::from_parameter(format!("{subject:?}")), |bencher| {
            bencher.iter_custom(|iterations| time(&mut call, &mut requests, iterations as usize));
        });
    }
    group.finish();
}
