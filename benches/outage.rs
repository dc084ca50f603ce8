//! What it costs that Redis stands still (`SIGSTOP`) under load: a request before the guard gives up on it, and one after; and how soon all is as it was once Redis goes on, beside an
//! instance that is started then.
//!
//! ```text
//! cargo bench --bench outage
//! ```
//!
//! A real server, in a process of its own; clients and cache are in this one. Requests come at a fixed rate, whatever becomes of those before them, for pages by Zipf's law: those of the lower ranks are all
//! stored, with lifetimes much longer than the outage, and instead of a higher rank something is asked for that nobody has asked for before. So the load never changes.
//!
//! *Added* is what a request takes beyond the time in which a handler was at work on its answer: its own one, or that of the request it waited for.

#[path = "../tests/support/ports.rs"]
#[allow(dead_code)] // This uses a part of it.
mod ports;
#[path = "../tests/support/redis.rs"]
mod redis;
#[path = "support/mod.rs"]
mod support;
#[path = "../tests/support/traffic.rs"]
mod traffic;

use std::convert::Infallible;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use larder::storage::{MemoryStore, RedisStore};
use larder::{Cache, CacheHandle, CacheLayer, Policy};
use redis::RedisServer;
use support::median;
use support::report::Report;
use tokio::task::JoinSet;
use tower::{Layer, Service, ServiceExt};
use traffic::{Chance, Zipf};

/// Pages that are stored, and ranks in all.
const PAGES: usize = 3_000;
const RANKS: usize = 10_000;
/// Between two requests.
const EVERY: Duration = Duration::from_micros(2_500);
const TAKES: Duration = Duration::from_millis(5);
const SIZE: usize = 1_000;
const FRESH: Duration = Duration::from_secs(3600);

const WINDOW: Duration = Duration::from_secs(5);
const OUTAGE: Duration = Duration::from_secs(3);
const ROUNDS: u64 = 3;

#[derive(Clone, Copy)]
enum Kind {
    Tiered,
    FarOnly,
}

fn main() -> ExitCode {
    let mut report = Report::default();
    let Some(server) = RedisServer::start() else {
        report.exactly("outage: `redis-server` is installed", 1, 0, "");
        return report.finish();
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime can be built");
    for (kind, name) in [(Kind::FarOnly, "Redis alone"), (Kind::Tiered, "memory before Redis")] {
        runtime.block_on(measure(kind, name, &server, &mut report));
    }
    report.finish()
}

/// What one round has to say.
struct Round {
    before: Vec<Sample>,
    closed: Vec<Sample>,
    open: Vec<Sample>,
    after: Vec<Sample>,
    warm: Vec<Sample>,
}

/// One request.
#[derive(Clone, Copy)]
struct Sample {
    /// In milliseconds.
    added: f64,
    is_hit: bool,
    /// Whether the guard had given up on the store when it began.
    is_open: bool,
}

async fn measure(kind: Kind, name: &str, server: &RedisServer, report: &mut Report) {
    server.command(&["FLUSHALL"]);
    let instance = Instance::start(kind, server);
    instance.fill().await;
    let mut rounds = Vec::new();
    for seed in 0..ROUNDS {
        rounds.push(round(kind, server, &instance, seed).await);
    }
    let each = |of: fn(&Round) -> f64| median(rounds.iter().map(of).collect());
    let ms = |number: f64| format!("{number:.2} ms");
    let say = |report: &mut Report, what: &str, p99: f64, most: f64| {
        report.for_information(&format!("{name}, {what}: added, p99 and most"), &format!("{}, {}", ms(p99), ms(most)));
    };
    say(report, "before", each(|round| p99(&round.before)), each(|round| most(&round.before)));
    say(report, "until it isn't asked any more", each(|round| p99(&round.closed)), each(|round| most(&round.closed)));
    say(report, "while it isn't asked", each(|round| p99(&round.open)), each(|round| most(&round.open)));
    let longest = rounds.iter().map(|round| most(&round.closed)).fold(0.0, f64::max);
    report.at_most(&format!("{name}: added until it isn't asked any more, most of all rounds"), 50.0, longest, " ms");
    let more = each(|round| p99(&round.open) - p99(&round.before));
    report.at_most(&format!("{name}: added while it isn't asked, p99, less that of before"), 1.0, more, " ms");
    let more = each(|round| most(&round.open) - most(&round.before));
    report.at_most(&format!("{name}: added while it isn't asked, most, less that of before"), 1.0, more, " ms");
    let share = each(|round| 100.0 * hit_rate(&round.after) / hit_rate(&round.before));
    report.at_least(&format!("{name}: hit rate in the 5 s after it goes on, of that of before"), 95.0, share, " %");
    let calls = each(|round| misses(&round.after) / misses(&round.warm));
    report.at_most(&format!("{name}: what isn't a hit in these 5 s, to a warm start's"), 1.2, calls, " x");
    let (before, warm) = (each(|round| hit_rate(&round.before)), each(|round| misses(&round.warm)));
    let what = format!("{name}: hit rate before; what isn't a hit in 5 s of a warm start");
    report.for_information(&what, &format!("{:.1} %, {warm:.0}", 100.0 * before));
}

/// The same requests before the outage, behind it, and at an instance that is started then.
async fn round(kind: Kind, server: &RedisServer, instance: &Instance, seed: u64) -> Round {
    let before = instance.load(WINDOW, seed).await;
    assert!(!instance.is_open(), "Redis isn't asked, though nothing has happened to it: is the machine busy?");
    server.pause();
    let outage = instance.load(OUTAGE, seed).await;
    server.resume();
    let after = instance.load(WINDOW, seed).await;
    let (open, closed) = outage.into_iter().partition(|sample| sample.is_open);
    let warm = Instance::start(kind, server).load(WINDOW, seed).await;
    Round { before, closed, open, after, warm }
}

fn sorted(samples: &[Sample]) -> Vec<f64> {
    let mut added: Vec<f64> = samples.iter().map(|sample| sample.added).collect();
    added.sort_by(f64::total_cmp);
    assert!(!added.is_empty(), "there was no request");
    added
}

fn p99(samples: &[Sample]) -> f64 {
    sorted(samples)[(samples.len() * 99 / 100).min(samples.len() - 1)]
}

fn most(samples: &[Sample]) -> f64 {
    sorted(samples)[samples.len() - 1]
}

fn misses(samples: &[Sample]) -> f64 {
    samples.iter().filter(|sample| !sample.is_hit).count() as f64
}

fn hit_rate(samples: &[Sample]) -> f64 {
    1.0 - misses(samples) / samples.len() as f64
}

/// Takes its time, and says when.
#[derive(Clone)]
struct Handler {
    epoch: Instant,
}

impl Service<Request<Full<Bytes>>> for Handler {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        let epoch = self.epoch;
        Box::pin(async move {
            let began = epoch.elapsed().as_nanos();
            tokio::time::sleep(TAKES).await;
            let ended = epoch.elapsed().as_nanos();
            let content = format!("{} {began} {ended} {:.<SIZE$}", request.uri().path(), "");
            Ok(Response::new(Full::from(content)))
        })
    }
}

#[derive(Clone)]
struct Instance {
    cache: Cache<Handler>,
    handle: CacheHandle,
    epoch: Instant,
}

/// For what nobody has asked for before, in any instance.
static NEXT: AtomicU64 = AtomicU64::new(0);

impl Instance {
    fn start(kind: Kind, server: &RedisServer) -> Self {
        let far = RedisStore::new(&format!("{}/?ns=bench", server.url())).expect("a URL");
        let layer = match kind {
            Kind::Tiered => CacheLayer::tiered(MemoryStore::new(64 << 20), far),
            Kind::FarOnly => CacheLayer::with_storage(far),
        };
        let layer = layer.otherwise(Policy::shared(FRESH));
        let epoch = Instant::now();
        Self { cache: layer.layer(Handler { epoch }), handle: layer.handle(), epoch }
    }

    fn is_open(&self) -> bool {
        self.handle.stats().guard.is_some_and(|guard| guard.is_open)
    }

    /// All pages are stored, in Redis too.
    async fn fill(&self) {
        for _ in 0..2 {
            for page in 0..PAGES as u64 {
                self.ask(format!("/page/{page}")).await;
                if page % 100 == 0 {
                    tokio::time::sleep(TAKES).await;
                }
            }
        }
    }

    /// Requests at a fixed rate for so long.
    async fn load(&self, long: Duration, seed: u64) -> Vec<Sample> {
        let (zipf, mut chance, mut tasks) = (Zipf::new(RANKS), Chance(seed), JoinSet::new());
        let began = tokio::time::Instant::now();
        for n in 0..(long.as_nanos() / EVERY.as_nanos()) as u32 {
            tokio::time::sleep_until(began + EVERY * n).await;
            let path = match zipf.draw(&mut chance) {
                page if page < PAGES => format!("/page/{page}"),
                _ => format!("/once/{}", NEXT.fetch_add(1, Ordering::Relaxed)),
            };
            let instance = self.clone();
            tasks.spawn(async move { instance.ask(path).await });
        }
        tasks.join_all().await
    }

    async fn ask(&self, path: String) -> Sample {
        let request = Request::get(&path).header("host", "bench").body(Full::default()).expect("a request");
        let is_open = self.is_open();
        let began = self.epoch.elapsed().as_nanos();
        let Ok(response) = self.cache.clone().oneshot(request).await;
        let is_hit = response.headers()["x-cache"] == "HIT";
        let content = response.into_body().collect().await.expect("the whole content").to_bytes();
        let ended = self.epoch.elapsed().as_nanos();
        let text = std::str::from_utf8(&content).expect("a text");
        let words: Vec<&str> = text.split(' ').collect();
        assert_eq!((words.len(), words[0]), (4, path.as_str()), "the content is the page's");
        let handler = [1, 2].map(|place| words[place].parse::<u128>().expect("a time"));
        // Of what was fetched earlier, or elsewhere, nothing.
        let fetched = if is_hit { 0 } else { handler[1].min(ended).saturating_sub(handler[0].max(began)) };
        let added = (ended - began).saturating_sub(fetched) as f64 / 1e6;
        Sample { added, is_hit, is_open }
    }
}
