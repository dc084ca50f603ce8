//! What it costs to write a stored response as a record and to read it back: ten fields and content of 1 KiB, as a hit over a store outside of the process has it.
//! Interleaved, so that all have the same luck.
//!
//! ```text
//! cargo bench --bench records
//! ```

#[path = "support/mod.rs"]
mod support;

use std::convert::Infallible;
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use allocation_counter::measure;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use larder::record::{ClockShift, RecordFormat};
use larder::storage::{Query, Storage, StorageUsage, Variants};
use larder::{CacheKey, CacheLayer, Clock, Moment, Policy, StorageError, StoredResponse, SystemClock};
use support::report::Report;
use support::{median, median_ratio};
use tower::{Layer, ServiceExt, service_fn};

const ROUNDS: usize = 101;
const CALLS: u32 = 2000;

const FIELDS: [(&str, &str); 10] = [
    ("content-type", "application/json"),
    ("content-language", "en"),
    ("cache-control", "public, max-age=3600"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("strict-transport-security", "max-age=31536000"),
    ("etag", "\"0123456789abcdef\""),
    ("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT"),
    ("x-api-version", "2026-01-01"),
];

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be built");
    let (small, large) = (runtime.block_on(stored(1 << 10)), runtime.block_on(stored(1 << 20)));
    let mut report = Report::default();
    let usual = Bench::new(&small, RecordFormat::default());
    let keyed = Bench::new(&small, RecordFormat::default().mac([7; 32]));
    let whole = Bench::new(&large, RecordFormat::default());
    let names: [(&str, &dyn Fn()); 6] = [
        ("a map of these ten fields, made", &|| drop(black_box(fields()))),
        ("a record of 1 KiB is read", &|| drop(black_box(usual.read(&usual.format)))),
        ("the same, with a format that is made for it and knows no head", &|| {
            drop(black_box(usual.read(&RecordFormat::default())))
        }),
        ("the same, under a key", &|| drop(black_box(keyed.read(&keyed.format)))),
        ("a record of 1 KiB is written", &|| drop(black_box(usual.written()))),
        ("a record of 1 MiB is read", &|| drop(black_box(whole.read(&whole.format)))),
    ];
    let mut samples = names.map(|_| Vec::new());
    for round in 0..ROUNDS {
        for n in 0..names.len() {
            let place = (round + n) % names.len();
            let calls = if place + 1 == names.len() { CALLS / 100 } else { CALLS };
            samples[place].push(time(calls, names[place].1));
        }
    }
    let per_map = median_ratio(&samples[1], &samples[0]);
    for ((name, _), samples) in names.iter().zip(samples) {
        report.for_information(name, &format!("{:.0} ns", median(samples)));
    }
    report.at_most("a record of 1 KiB is read, for each time that its fields' map is made", 1.25, per_map, "");
    let allocations = measure(|| drop(usual.read(&usual.format)));
    report.at_most("allocations of reading one", 6.0, allocations.count_total as f64, "");
    report.for_information("the length of the record, beside content and key", &format!("{} B", usual.overhead()));
    report.finish()
}

fn time(calls: u32, what: &dyn Fn()) -> f64 {
    let began = Instant::now();
    (0..calls).for_each(|_| what());
    began.elapsed().as_nanos() as f64 / f64::from(calls)
}

fn fields() -> HeaderMap {
    let mut map = HeaderMap::with_capacity(FIELDS.len());
    for (name, value) in FIELDS {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        map.insert(name, HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
    }
    map
}

/// A stored response, its key, its record, and when it is read.
struct Bench {
    format: RecordFormat,
    key: CacheKey,
    response: Arc<StoredResponse>,
    record: Bytes,
    now: Moment,
}

impl Bench {
    fn new((key, response): &(CacheKey, Arc<StoredResponse>), format: RecordFormat) -> Self {
        let record = Bytes::from(format.encode(response, key, ClockShift::NONE));
        let bench =
            Self { format, key: key.clone(), response: response.clone(), record, now: SystemClock::default().now() };
        assert_eq!(bench.read(&bench.format).headers(), response.headers());
        bench
    }

    fn read(&self, format: &RecordFormat) -> StoredResponse {
        let read = format.decode(self.record.clone(), &self.key, self.now, ClockShift::NONE);
        read.expect("it was written just now")
    }

    fn written(&self) -> Vec<u8> {
        self.format.encode(&self.response, &self.key, ClockShift::NONE)
    }

    fn overhead(&self) -> usize {
        self.record.len() - self.response.body().len() - self.key.as_bytes().len()
    }
}

/// Keeps what it is given last.
#[derive(Clone, Default)]
struct Last(Arc<Mutex<Option<(CacheKey, Arc<StoredResponse>)>>>);

impl Last {
    fn with<R>(&self, use_it: impl FnOnce(&mut Option<(CacheKey, Arc<StoredResponse>)>) -> R) -> R {
        use_it(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Storage for Last {
    async fn get(&self, _: Query<'_>) -> Result<Variants, StorageError> {
        Ok(Variants::new())
    }

    async fn put(&self, key: &CacheKey, response: Arc<StoredResponse>, _: usize) -> Result<(), StorageError> {
        self.with(|last| *last = Some((key.clone(), response)));
        Ok(())
    }

    async fn remove(&self, _: &CacheKey) -> Result<bool, StorageError> {
        Ok(false)
    }

    async fn clear(&self) -> Result<(), StorageError> {
        Ok(())
    }

    fn usage(&self) -> StorageUsage {
        StorageUsage::default()
    }
}

/// A response as a cache stores it.
async fn stored(length: usize) -> (CacheKey, Arc<StoredResponse>) {
    let last = Last::default();
    let layer =
        CacheLayer::with_storage(last.clone()).otherwise(Policy::shared(Duration::from_secs(3600)).tag("products"));
    let handler = service_fn(move |_: Request<Full<Bytes>>| async move {
        let mut response = Response::new(Full::new(Bytes::from(vec![b'x'; length])));
        *response.headers_mut() = fields();
        Ok::<_, Infallible>(response)
    });
    let request = Request::get("http://shop.example/products/1?lang=de").body(Full::default()).expect("a request");
    let response = layer.layer(handler).oneshot(request).await.expect("it can't fail");
    response.into_body().collect().await.expect("a clean end");
    loop {
        if let Some(stored) = last.with(Option::take) {
            return stored;
        }
        tokio::task::yield_now().await;
    }
}
