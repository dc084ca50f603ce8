//! What a purge costs: of a tag that a million stored responses bear, until it has taken effect, and until their memory is given back; and what hits cost while purges are
//! remembered, none, a thousand or a hundred thousand.
//!
//! ```text
//! cargo bench --bench purge
//! ```
//!
//! All in one thread, so that all that is asked of the allocator is counted (`allocation-counter`). Needs 3 GiB.

#[path = "support/mod.rs"]
mod support;

use std::convert::Infallible;
use std::future::pending;
use std::process::ExitCode;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use allocation_counter::measure;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use larder::{Cache, CacheHandle, CacheLayer, Selector};
use support::report::Report;
use support::{median, median_ratio};
use tokio::runtime::Runtime;
use tower::{Layer, Service};

/// Entries that bear the tag, and entries that don't.
const TAGGED: usize = 1_000_000;
const OTHERS: usize = 100_000;
const BODY: usize = 64;
/// More than all entries together.
const CAPACITY: u64 = 8 << 30;

/// Keys that hits are for, and how many hits are one sample.
const KEYS: usize = 10_000;
const HITS: usize = 100_000;
const ROUNDS: usize = 31;

fn main() -> ExitCode {
    let mut report = Report::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime of one thread can be built");
    a_million(&runtime, &mut report);
    hits(&runtime, &mut report);
    report.finish()
}

/// Answers what begins with `/tagged/` under the tag, everything else without, and never what begins with `/slow`.
#[derive(Clone)]
struct Handler;

impl Service<Request<Full<Bytes>>> for Handler {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        let path = request.uri().path();
        if path.starts_with("/slow") {
            return pending().boxed();
        }
        let mut response = Response::new(Full::from(vec![b'x'; BODY]));
        let mut set = |name, value| response.headers_mut().insert(name, http::HeaderValue::from_static(value));
        set("cache-control", "max-age=86400");
        set("content-type", "text/plain");
        if path.starts_with("/tagged/") {
            set("cache-groups", "\"products\"");
        }
        async { Ok(response) }.boxed()
    }
}

struct House {
    cache: Cache<Handler>,
    handle: CacheHandle,
}

impl House {
    fn new() -> Self {
        let layer = CacheLayer::in_memory(CAPACITY);
        Self { cache: layer.layer(Handler), handle: layer.handle() }
    }

    async fn get(&mut self, path: String) -> Response<Bytes> {
        let request = Request::get(path).header("host", "bench").body(Full::default()).expect("a request");
        let Ok(response) = self.cache.call(request).await;
        let (parts, body) = response.into_parts();
        Response::from_parts(parts, body.collect().await.expect("the whole content").to_bytes())
    }

    async fn fill(&mut self, folder: &str, entries: usize) {
        for n in 0..entries {
            self.get(format!("/{folder}/{n:07}")).await;
        }
    }

    async fn said(&mut self, path: &str) -> String {
        let response = self.get(path.to_owned()).await;
        response.headers()["x-cache"].to_str().expect("a text").to_owned()
    }
}

/// One purge of a million entries.
fn a_million(runtime: &Runtime, report: &mut Report) {
    let mut house = House::new();
    // What is there before the first entry isn't of any entry: rules, counters, the tables that have their size from the beginning.
    runtime.block_on(house.fill("warm", 1_000));
    let others = measure(|| runtime.block_on(house.fill("others", OTHERS))).bytes_current;
    let tagged = measure(|| runtime.block_on(house.fill("tagged", TAGGED))).bytes_current;
    assert_eq!(house.handle.stats().storage.entries, (1_000 + OTHERS + TAGGED) as u64);
    let mut took = Duration::ZERO;
    let mut swept = Duration::ZERO;
    let given_back = measure(|| {
        runtime.block_on(async {
            let began = Instant::now();
            house.handle.purge(Selector::Tag("products".into())).await.expect("a purge");
            took = began.elapsed();
            assert_eq!(house.said("/tagged/0000000").await, "MISS");
            assert_eq!(house.said("/others/0000000").await, "HIT");
            while house.handle.stats().purges_remembered > 0 {
                tokio::task::yield_now().await;
            }
            swept = began.elapsed();
        });
    });
    let name = format!("purge of a tag that {TAGGED} entries bear");
    report.at_most(&format!("{name}: has taken effect after"), 1.0, took.as_secs_f64() * 1e3, " ms");
    assert_eq!(house.handle.stats().storage.entries, (1_000 + OTHERS + 1) as u64, "all the rest is there");
    let share = -given_back.bytes_current as f64 / tagged as f64;
    report.at_least(&format!("{name}: live bytes given back by the sweep"), 95.0, share * 100.0, " %");
    let each = |bytes: i64, entries: usize| format!("{:.0} B", bytes as f64 / entries as f64);
    report.for_information(&format!("{name}: live bytes for each before"), &each(tagged, TAGGED));
    report.for_information("entries without it: live bytes for each", &each(others, OTHERS));
    report.for_information(&format!("{name}: swept after"), &format!("{:.2} s", swept.as_secs_f64()));
    // The tables stay as large as they were. Filled again, the entries take no more than before.
    let again = measure(|| runtime.block_on(house.fill("tagged", TAGGED))).bytes_current;
    let more = (tagged + given_back.bytes_current + again) as f64 / tagged as f64;
    report.at_most(&format!("{name}: live bytes when all are stored again"), 102.0, more * 100.0, " % of before");
}

/// Hits beside purges that stay remembered, since a fill in flight is older.
fn hits(runtime: &Runtime, report: &mut Report) {
    let many = [0, 1_000, 100_000];
    let mut houses = many.map(|purges| runtime.block_on(beside(purges)));
    let mut samples: [Vec<f64>; 3] = Default::default();
    for round in 0..ROUNDS {
        // Each is the first as often as the others.
        for place in 0..many.len() {
            let place = (place + round) % many.len();
            samples[place].push(runtime.block_on(sample(&mut houses[place])));
        }
    }
    let [none, thousand, hundred_thousand] = &samples;
    report.for_information("a hit, no purge remembered", &format!("{:.0} ns", median(none.clone())));
    report.at_most("hits beside 1,000 purges", 1.05, median_ratio(thousand, none), " x");
    report.at_most("hits beside 100,000 purges", 1.05, median_ratio(hundred_thousand, none), " x");
    // The first look at each entry after one more purge.
    for (place, purges) in many.into_iter().enumerate() {
        let house = &mut houses[place];
        let looks = (0..9).map(|n| {
            runtime.block_on(async {
                let purged = house.handle.purge(Selector::Uri(format!("/nothing/{n}"))).await;
                purged.expect("a purge");
                sample_of(house, KEYS).await
            })
        });
        let first = median(looks.collect());
        report.for_information(
            &format!("the first hit after one more purge, beside {purges}"),
            &format!("{first:.0} ns"),
        );
    }
}

async fn beside(purges: usize) -> House {
    let mut house = House::new();
    house.fill("hit", KEYS).await;
    let mut slow = house.cache.clone();
    tokio::spawn(async move {
        let request = Request::get("/slow").header("host", "bench").body(Full::default()).expect("a request");
        slow.call(request).await.map(drop)
    });
    while house.handle.stats().fills_in_flight == 0 {
        tokio::task::yield_now().await;
    }
    for n in 0..purges {
        let selector = match n % 3 {
            0 => Selector::Uri(format!("/purged/{n}")),
            1 => Selector::Uri(format!("http://bench/purged/{n}")),
            _ => Selector::Tag(format!("purged-{n}")),
        };
        let purge = house.handle.purge(selector);
        if n % 2 == 0 { purge.await } else { purge.soft().await }.expect("a purge");
    }
    // A sweep holds all entries against them, and can't forget them.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let remembered = house.handle.stats().purges_remembered;
    assert!(remembered >= purges as u64, "{remembered} of {purges} are remembered");
    house
}

async fn sample(house: &mut House) -> f64 {
    sample_of(house, HITS).await
}

/// Nanoseconds for each of so many hits.
async fn sample_of(house: &mut House, hits: usize) -> f64 {
    let requests: Vec<_> = (0..hits)
        .map(|n| {
            let path = format!("/hit/{:07}", n * 7919 % KEYS);
            Request::get(path).header("host", "bench").body(Full::<Bytes>::default()).expect("a request")
        })
        .collect();
    let before = house.handle.stats().hits;
    let began = Instant::now();
    for request in requests {
        let Ok(response) = house.cache.call(request).await;
        std::hint::black_box(response);
    }
    let took = began.elapsed();
    assert_eq!(house.handle.stats().hits - before, hits as u64, "all of them are hits");
    took.as_nanos() as f64 / hits as f64
}
