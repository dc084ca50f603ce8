//! Compression of stored content: how small the answers of the example server get, what a hit costs for a client that takes the coding and for one that
//! doesn't, beside an uncompressed hit of as many stored bytes, and whether a miss takes longer. Interleaved; medians.
//!
//! ```text
//! cargo bench --bench compression
//! ```

use std::convert::Infallible;
use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::process::ExitCode;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use larder::queries::Queries;
use larder::{Cache, CacheHandle, CacheLayer, Compression, DataCache, Policy};
use tower::util::BoxCloneSyncService;
use tower::{Layer, Service, ServiceExt, service_fn};

// The example server, which is an application of its own.
#[allow(dead_code, reason = "the bench has no writes")]
#[path = "../examples/server/analytics.rs"]
mod analytics;
#[path = "../examples/server/carrier.rs"]
mod carrier;
#[allow(dead_code)]
#[path = "../examples/server/database.rs"]
mod database;
#[path = "../examples/server/errors.rs"]
mod errors;
#[path = "../examples/server/notices.rs"]
mod notices;
#[path = "../examples/server/opening.rs"]
mod opening;
#[allow(dead_code)]
#[path = "../examples/server/orders.rs"]
mod orders;
#[allow(dead_code)]
#[path = "../examples/server/outbox.rs"]
mod outbox;
#[path = "../examples/server/seed.rs"]
mod seed;
#[path = "../examples/server/shop.rs"]
mod shop;
#[path = "../examples/server/streams.rs"]
mod streams;
mod support;
#[path = "../examples/server/words.rs"]
mod words;

use support::report::Report;
use support::{median, median_ratio};

const HOUR: Duration = Duration::from_secs(3600);

fn main() -> ExitCode {
    let mut report = Report::default();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be built");
    let listing = runtime.block_on(corpus());
    runtime.block_on(hits(&listing, &mut report));
    // In a task, as a server has its requests.
    runtime.block_on(async { tokio::spawn(async move { misses(&listing).await }).await }).expect("no miss panics");
    report.finish()
}

/// Asks the example server for all that its API has in JSON, through a cache for each coding. Returns one of the larger answers.
async fn corpus() -> Bytes {
    let folder = std::env::temp_dir().join(format!("larder-bench-{}", std::process::id()));
    let path = folder.join("shop.db");
    let pool = opening::open(&path).await.unwrap_or_else(|problem| panic!("{problem}"));
    let (_close, closing) = tokio::sync::watch::channel(false);
    let (outbox, _) = outbox::open(pool.clone());
    let queries = Queries::new(DataCache::in_memory(1 << 20));
    let shop = shop::Shop {
        database: database::Database { pool: pool.clone(), queries },
        shipping: carrier::shipping(&DataCache::in_memory(1 << 20)),
        outbox,
        closing,
    };
    let shop = shop::routes(shop);
    println!("Every answer of the example server's API in JSON, stored compressed:");
    println!("  {:<16} {:>8} {:>12} {:>12} {:>7}", "", "answers", "bytes", "stored", "ratio");
    for (name, compression) in [
        ("gzip", Compression::gzip()),
        #[cfg(feature = "brotli")]
        ("brotli", Compression::brotli()),
        #[cfg(feature = "zstd")]
        ("zstd", Compression::zstd()),
    ] {
        let cache = CacheLayer::in_memory(1 << 30).otherwise(Policy::shared(HOUR)).compress(compression);
        let app = shop.clone().layer(cache.clone());
        let (mut answers, mut bytes, mut eligible) = (0_u64, 0_u64, 0);
        for path in paths() {
            let length = whole(&app, &path).await.len() as u64;
            (answers, bytes) = (answers + 1, bytes + length);
            eligible += u64::from(length >= 1024);
        }
        let stats = all_compressed(&cache.handle(), eligible).await;
        let stored = bytes - stats.plain_bytes + stats.coded_bytes;
        println!("  {name:<16} {answers:>8} {bytes:>12} {stored:>12} {:>7.3}", stored as f64 / bytes as f64);
        println!(
            "  {:<16} {:>8} {:>12} {:>12} {:>7.3}",
            "  of 1 KiB or more",
            stats.done,
            stats.plain_bytes,
            stats.coded_bytes,
            stats.ratio()
        );
    }
    let listing = whole(&shop, "/products?per_page=100").await;
    pool.close().await;
    drop(std::fs::remove_dir_all(folder));
    listing
}

fn paths() -> impl Iterator<Item = String> {
    let lists = ["id", "name", "price", "price-desc", "stock"].into_iter().flat_map(|sort| {
        [20, 50, 100].into_iter().flat_map(move |per_page| {
            (1..=10).map(move |page| format!("/products?sort={sort}&per_page={per_page}&page={page}"))
        })
    });
    let products = (1..=500).flat_map(|id| [format!("/products/{id}"), format!("/products/{id}/related")]);
    let others = ["/categories", "/api/analytics/revenue", "/api/analytics/top-customers", "/api/analytics/price-rank"];
    let orders = (1..=200).map(|id| format!("/orders/{id}"));
    lists.chain(products).chain(others.map(str::to_owned)).chain(orders)
}

async fn whole(app: &Router, path: &str) -> Bytes {
    let request = Request::get(path).header("host", "shop.example").body(Body::empty()).expect("a request");
    let response = app.clone().oneshot(request).await.expect("a router doesn't fail");
    response.into_body().collect().await.expect("a clean end").to_bytes()
}

/// Waits until so many were compressed or found not to be worth it; the queue is never full here.
async fn all_compressed(handle: &CacheHandle, count: u64) -> larder::CompressionStats {
    for _ in 0..5000 {
        let stats = handle.stats().compression;
        if stats.done + stats.not_worth + stats.skipped >= count {
            return stats;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    handle.stats().compression
}

type Handler = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// Always this, as JSON, with three fields.
fn serving(content: Bytes) -> Handler {
    serving_with(content, &[])
}

/// What makes ten fields of the three: as many as most applications and the other measurements have.
const SEVEN_MORE: &[(&str, &str)] = &[
    ("content-language", "en"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("strict-transport-security", "max-age=31536000"),
    ("access-control-allow-origin", "*"),
    ("x-api-version", "2026-01-01"),
];

fn serving_with(content: Bytes, more: &'static [(&'static str, &'static str)]) -> Handler {
    BoxCloneSyncService::new(service_fn(move |_: Request<Body>| {
        let mut response = Response::new(Body::from(content.clone()));
        for (name, value) in
            [("content-type", "application/json"), ("cache-control", "public, max-age=3600"), ("etag", "\"v1\"")]
        {
            response.headers_mut().insert(name, http::HeaderValue::from_static(value));
        }
        for (name, value) in more {
            response.headers_mut().insert(*name, http::HeaderValue::from_static(value));
        }
        std::future::ready(Ok(response))
    }))
}

fn request(path: &str, accept: Option<&'static str>) -> Request<Body> {
    let request =
        Request::get(path).header("host", "shop.example").header("accept", "*/*").header("user-agent", "bench");
    let request = match accept {
        Some(accept) => request.header("accept-encoding", accept),
        None => request,
    };
    request.body(Body::empty()).expect("a request")
}

/// Calls what is ready at once, and reads the content.
fn hit(service: &mut Cache<Handler>, request: Request<Body>) {
    let mut context = Context::from_waker(Waker::noop());
    let Poll::Ready(Ok(response)) = pin!(service.call(request)).poll(&mut context) else { unreachable!("it is a hit") };
    let mut body = pin!(response.into_body());
    while let Poll::Ready(Some(frame)) = http_body::Body::poll_frame(body.as_mut(), &mut context) {
        drop(black_box(frame));
    }
}

/// Hits of compressed content beside hits of content that was stored as it is, and takes as many bytes. The handler's fields are the same; those that
/// say what is coded, and for whom, come on top.
///
/// With ten fields of the handler's that is all the difference. With three, the two more are what makes the copy of a head larger than the pieces that glibc's
/// `malloc` keeps at hand for a thread (1,032 bytes, which are nine fields), and that costs more than all else about them; so these are for information.
async fn hits(listing: &Bytes, report: &mut Report) {
    const ROUNDS: usize = 61;
    const CALLS: usize = 2000;
    const BROWSER: &str = "gzip, deflate, br, zstd";
    let warm = |service: Cache<Handler>| async {
        let response = service.clone().oneshot(request("/", None)).await.expect("it doesn't fail");
        drop(response.into_body().collect().await);
        service
    };
    let plain = |handler| warm(CacheLayer::in_memory(1 << 30).layer(handler));
    let compressing = || CacheLayer::in_memory(1 << 30).compress(Compression::gzip());
    let (three, ten) = (compressing(), compressing());
    let coded = warm(three.layer(serving(listing.clone()))).await;
    let coded_of_ten = warm(ten.layer(serving_with(listing.clone(), SEVEN_MORE))).await;
    let stats = all_compressed(&three.handle(), 1).await;
    assert_eq!(stats, all_compressed(&ten.handle(), 1).await);
    // As many bytes as are stored there, without compression.
    let as_many = Bytes::from(vec![b'x'; stats.coded_bytes as usize]);
    // And with as many fields.
    let alike = &[("x-vary", "accept-encoding"), ("x-content-encoding", "gzip")];
    let mut subjects = [
        ("ten fields, not compressed", plain(serving_with(as_many.clone(), SEVEN_MORE)).await, BROWSER, CALLS),
        ("ten fields, compressed, for gzip", coded_of_ten, BROWSER, CALLS),
        ("three fields, not compressed", plain(serving(as_many.clone())).await, BROWSER, CALLS),
        ("five fields, not compressed", plain(serving_with(as_many, alike)).await, BROWSER, CALLS),
        ("three fields, compressed, for gzip", coded.clone(), BROWSER, CALLS),
        ("three fields, the whole, not compressed", plain(serving(listing.clone())).await, BROWSER, CALLS),
        ("three fields, compressed, for identity", coded, "identity", 50),
    ];
    let mut samples: [Vec<f64>; 7] = Default::default();
    for _ in 0..ROUNDS {
        for ((_, service, accept, calls), samples) in subjects.iter_mut().zip(&mut samples) {
            let requests: Vec<_> = (0..*calls).map(|_| request("/", Some(accept))).collect();
            let start = Instant::now();
            requests.into_iter().for_each(|request| hit(service, request));
            samples.push(start.elapsed().as_nanos() as f64 / *calls as f64);
        }
    }
    println!(
        "\nA hit: {} B of JSON in {} B, medians of {ROUNDS} interleaved rounds:",
        listing.len(),
        stats.coded_bytes
    );
    for ((name, ..), samples) in subjects.iter().zip(&samples) {
        println!("  {name:<40} {:>10.0} ns", median(samples.clone()));
    }
    println!();
    let ratio = |one: usize, other: usize| median_ratio(&samples[one], &samples[other]);
    let what = "a hit for a gzip client, to one as large that isn't compressed, with as many fields of the handler's";
    report.at_most(&format!("{what}: ten"), 1.05, ratio(1, 0), "");
    report.for_information(&format!("{what}: three"), &format!("{:.2}", ratio(4, 2)));
    report.for_information("the same, beside one with the two more fields as well", &format!("{:.2}", ratio(4, 3)));
}

/// The time of a miss up to the end of its content. With one after the other the last one is being compressed meanwhile, on another processor.
async fn misses(listing: &Bytes) {
    const ROUNDS: usize = 401;
    println!("\nA miss: {} B of JSON, medians (and quartiles) of {ROUNDS} interleaved rounds:", listing.len());
    for (name, pause) in [("one at a time", true), ("one after the other", false)] {
        let layers = [Compression::off(), Compression::gzip()]
            .map(|compression| CacheLayer::in_memory(1 << 30).compress(compression));
        let services = layers.each_ref().map(|layer| layer.layer(serving(listing.clone())));
        let mut samples: [Vec<f64>; 2] = Default::default();
        for round in 0..ROUNDS {
            // Whoever comes first has the other's work behind it, so they take turns.
            for subject in [round % 2, (round + 1) % 2] {
                let request = request(&format!("/{round}"), Some("gzip"));
                let start = Instant::now();
                let response = services[subject].clone().oneshot(request).await.expect("it doesn't fail");
                drop(black_box(response.into_body().collect().await));
                samples[subject].push(start.elapsed().as_nanos() as f64 / 1000.0);
                if pause {
                    all_compressed(&layers[1].handle(), (round + subject) as u64).await;
                }
            }
        }
        let [off, on] = samples.map(|mut samples| {
            samples.sort_by(f64::total_cmp);
            [samples[ROUNDS / 4], samples[ROUNDS / 2], samples[ROUNDS * 3 / 4]]
        });
        println!(
            "  {name:<20} without {:>6.1} µs ({:.1} to {:.1})  with {:>6.1} µs ({:.1} to {:.1})",
            off[1], off[0], off[2], on[1], on[0], on[2]
        );
    }
}
