//! What values and objects cost beside what they are made of, and beside others: a hit, a cold load, a herd, memory. Interleaved, so that all have the same luck.
//!
//! ```text
//! cargo bench --bench data
//! ```

#[path = "support/product.rs"]
mod product;
#[path = "support/mod.rs"]
mod support;

use std::convert::Infallible;
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use allocation_counter::measure;
use bytes::Bytes;
use cached::macros::cached;
use futures_util::FutureExt;
use larder::{DataCache, Memoized, ObjectCache};
use product::Product;
use support::report::Report;
use support::{median, median_ratio};

const ROUNDS: usize = 101;
const CALLS: u32 = 2000;

/// How many are asked for that aren't there, in a round of cold loads.
const COLD: u64 = 5000;
const COLD_ROUNDS: u64 = 15;

const HERD: usize = 1000;
const HERD_ROUNDS: u64 = 15;

/// How many entries their memory is measured by.
const MANY: u64 = 100_000;

const CAPACITY: u64 = 1_000_000;
const HOUR: Duration = Duration::from_secs(3600);

fn main() -> ExitCode {
    let mut report = Report::default();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let _inside = runtime.enter();
    hits(&mut report);
    cold_loads(&mut report);
    runtime.block_on(herds(&mut report));
    memory(&mut report);
    report.finish()
}

/// A cache, and a function over it, of each kind.
struct Each {
    moka: moka::sync::Cache<u64, Arc<u64>>,
    moka_future: moka::future::Cache<u64, Arc<u64>>,
    objects: ObjectCache<u64, u64>,
    memoized: Memoized<u64, Arc<u64>, Infallible>,
}

impl Each {
    fn new() -> Self {
        let objects = ObjectCache::new("bench", CAPACITY).ttl(HOUR);
        Self {
            moka: moka::sync::Cache::new(CAPACITY),
            moka_future: moka::future::Cache::builder().max_capacity(CAPACITY).time_to_live(HOUR).build(),
            memoized: objects.clone().memoize().wrap(loaded),
            objects,
        }
    }
}

static LOADS: AtomicU64 = AtomicU64::new(0);

async fn loaded(n: u64) -> Result<u64, Infallible> {
    LOADS.fetch_add(1, Ordering::Relaxed);
    Ok(n)
}

/// The macro's cache is a static of its own.
#[cached(ttl = 3600, size = 1_000_000, result = true, sync_writes = "by_key")]
async fn by_macro(n: u64) -> Result<Arc<u64>, Infallible> {
    loaded(n).await.map(Arc::new)
}

/// The same, for who waits a moment.
#[cached(ttl = 3600, size = 1_000_000, result = true, sync_writes = "by_key")]
async fn slow_by_macro(n: u64) -> Result<Arc<u64>, Infallible> {
    slow(n).await.map(Arc::new)
}

async fn slow(n: u64) -> Result<u64, Infallible> {
    tokio::time::sleep(Duration::from_millis(20)).await;
    loaded(n).await
}

fn at_once<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("nobody is waited for")
}

fn hits(report: &mut Report) {
    let (each, product) = (Each::new(), Product::of_1_kib());
    let bytes = Bytes::from(serde_json::to_vec(&product).expect("it is serialised"));
    assert_eq!(bytes.len(), 1024);
    let serialised = moka::sync::Cache::<String, Bytes>::new(CAPACITY);
    let data = DataCache::in_memory(64 << 20).ttl(HOUR);
    let tagged = ObjectCache::<u64, u64>::new("tagged", CAPACITY).ttl(HOUR);
    each.moka.insert(17, Arc::new(17));
    at_once(each.moka_future.insert(17, Arc::new(17)));
    each.objects.insert(17, 17);
    tagged.entry(17).tag("product:17").insert(17);
    serialised.insert("17".into(), bytes);
    at_once(data.set("17", &product)).expect("it is serialised");
    at_once(by_macro(17)).expect("it is");
    assert_eq!(at_once(data.get::<Product>("17")), Some(product.clone()));

    let names: [(&str, &dyn Fn()); 9] = [
        ("moka's `get` of an Arc", &|| drop(black_box(each.moka.get(black_box(&17))))),
        ("ObjectCache::get", &|| drop(black_box(each.objects.get(black_box(&17))))),
        ("moka's `get` of 1 KiB of bytes, and serde_json", &|| {
            let bytes = serialised.get(black_box("17")).expect("it is there");
            drop(black_box(serde_json::from_slice::<Product>(&bytes)));
        }),
        ("DataCache::get of the same", &|| drop(black_box(at_once(data.get::<Product>(black_box("17")))))),
        ("ObjectCache::get of what has a tag", &|| drop(black_box(tagged.get(black_box(&17))))),
        ("ObjectCache::get_or_load", &|| {
            drop(black_box(at_once(each.objects.get_or_load(black_box(&17), || loaded(17)))));
        }),
        ("a memoized function over objects", &|| drop(black_box(at_once(each.memoized.call(black_box(17)))))),
        ("moka's `try_get_with` (future)", &|| {
            let load = async { loaded(17).await.map(Arc::new) };
            drop(black_box(at_once(each.moka_future.try_get_with(black_box(17), load))));
        }),
        ("a function with `cached`'s macro", &|| drop(black_box(at_once(by_macro(black_box(17)))))),
    ];
    let loads = LOADS.load(Ordering::Relaxed);
    let mut samples = names.map(|_| Vec::new());
    for round in 0..ROUNDS {
        for n in 0..names.len() {
            let place = (round + n) % names.len();
            samples[place].push(time(names[place].1));
        }
    }
    assert_eq!(LOADS.load(Ordering::Relaxed), loads, "all of them are hits");
    let more = samples[1].iter().zip(&samples[0]).map(|(ours, bare)| ours - bare).collect();
    let ratio = median_ratio(&samples[3], &samples[2]);
    for ((name, _), samples) in names.iter().zip(samples) {
        report.for_information(&format!("hit: {name}"), &format!("{:.0} ns", median(samples)));
    }
    report.at_most("hit: an object, beyond moka's `get`, clock included", 80.0, median(more), " ns");
    report.at_most("hit: a value of 1 KiB, to moka's `get` and serde_json", 1.2, ratio, "");
}

fn time(what: &dyn Fn()) -> f64 {
    let began = Instant::now();
    (0..CALLS).for_each(|_| what());
    began.elapsed().as_nanos() as f64 / f64::from(CALLS)
}

fn cold_loads(report: &mut Report) {
    let each = Each::new();
    let names: [(&str, &dyn Fn(u64)); 4] = [
        ("ObjectCache::get_or_load", &|n| drop(at_once(each.objects.get_or_load(&n, || loaded(n))))),
        ("a memoized function over objects", &|n| drop(at_once(each.memoized.call(n + CAPACITY)))),
        ("moka's `try_get_with` (future)", &|n| {
            drop(at_once(each.moka_future.try_get_with(n, async move { loaded(n).await.map(Arc::new) })));
        }),
        ("a function with `cached`'s macro", &|n| drop(at_once(by_macro(n + CAPACITY)))),
    ];
    let mut samples = names.map(|_| Vec::new());
    let before = LOADS.load(Ordering::Relaxed);
    for round in 0..COLD_ROUNDS {
        for n in 0..names.len() {
            let place = (round as usize + n) % names.len();
            let began = Instant::now();
            (round * COLD..(round + 1) * COLD).for_each(names[place].1);
            samples[place].push(began.elapsed().as_nanos() as f64 / COLD as f64);
        }
    }
    assert_eq!(
        LOADS.load(Ordering::Relaxed) - before,
        names.len() as u64 * COLD * COLD_ROUNDS,
        "none of them is a hit"
    );
    for ((name, _), samples) in names.iter().zip(samples) {
        report.for_information(&format!("cold load: {name}"), &format!("{:.0} ns", median(samples)));
    }
}

/// A thousand tasks ask for the same, which takes 20 ms; a plain sleep of those is taken off.
async fn herds(report: &mut Report) {
    let objects = ObjectCache::<u64, u64>::new("herd", CAPACITY).ttl(HOUR);
    let memoized: Memoized<u64, Arc<u64>, Infallible> = objects.clone().memoize().wrap(slow);
    let moka = moka::future::Cache::<u64, Arc<u64>>::builder().max_capacity(CAPACITY).time_to_live(HOUR).build();
    let names =
        ["a memoized function over objects", "moka's `try_get_with` (future)", "a function with `cached`'s macro"];
    let mut samples = names.map(|_| Vec::new());
    let mut loads = names.map(|_| 0);
    for round in 0..HERD_ROUNDS {
        for n in 0..names.len() {
            let place = (round as usize + n) % names.len();
            let before = LOADS.load(Ordering::Relaxed);
            let took = match place {
                0 => herd(round, &|n| memoized_call(&memoized, n)).await,
                1 => herd(round, &|n| moka_call(&moka, n)).await,
                _ => herd(round, &slow_by_macro).await,
            };
            loads[place] += LOADS.load(Ordering::Relaxed) - before;
            samples[place].push(took);
        }
    }
    for ((name, samples), loads) in names.iter().zip(samples).zip(loads) {
        let loads = loads as f64 / HERD_ROUNDS as f64;
        let what = format!("herd of {HERD}, beyond its one load of 20 ms: {name}");
        report.for_information(&what, &format!("{:.2} ms, {loads} loads", median(samples)));
    }
}

fn memoized_call(
    function: &Memoized<u64, Arc<u64>, Infallible>,
    n: u64,
) -> impl Future<Output = Result<Arc<u64>, Infallible>> + Send + use<> {
    let function = function.clone();
    async move { function.call(n).await.map_err(|error| *error) }
}

fn moka_call(
    moka: &moka::future::Cache<u64, Arc<u64>>,
    n: u64,
) -> impl Future<Output = Result<Arc<u64>, Infallible>> + Send + use<> {
    let moka = moka.clone();
    async move { moka.try_get_with(n, async move { slow(n).await.map(Arc::new) }).await.map_err(|error| *error) }
}

/// Milliseconds until everybody has it.
async fn herd<L>(n: u64, ask: &dyn Fn(u64) -> L) -> f64
where
    L: Future<Output = Result<Arc<u64>, Infallible>> + Send + 'static,
{
    let began = Instant::now();
    let all: Vec<_> = (0..HERD).map(|_| tokio::spawn(ask(n))).collect();
    for one in all {
        let Ok(got) = one.await.expect("no panic");
        assert_eq!(*got, n);
    }
    began.elapsed().as_secs_f64() * 1e3 - 20.0
}

fn memory(report: &mut Report) {
    let each = Each::new();
    let bare = measure(|| (0..MANY).for_each(|n| each.moka.insert(n, Arc::new(n))));
    let ours = measure(|| (0..MANY).for_each(|n| drop(each.objects.insert(n, n))));
    let theirs = measure(|| (0..MANY).for_each(|n| at_once(each.moka_future.insert(n, Arc::new(n)))));
    let by_macro = measure(|| (0..MANY).for_each(|n| drop(at_once(by_macro(n + 10 * CAPACITY)))));
    for (name, taken) in [
        ("moka", bare.bytes_current),
        ("moka (future) with a time to live", theirs.bytes_current),
        ("ObjectCache", ours.bytes_current),
        ("`cached`'s macro", by_macro.bytes_current),
    ] {
        report.for_information(&format!("memory of an entry: {name}"), &format!("{:.0} B", taken as f64 / MANY as f64));
    }
}
