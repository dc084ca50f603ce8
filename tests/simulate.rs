//! A simulation foretells what the running cache does: the same trace over HTTP and through `simulate` comes to the same hit rates, and each thing that a trace can say is heeded.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use axum::Router;
use axum::http::Uri;
use axum::serve::ListenerExt;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use larder::simulate::{Access, AccessLog, Client, Eviction, Outcome, Simulation, Sizes, Synthetic};
use larder::storage::{self, MemoryStore, Query, Storage, StorageUsage, Variants};
use larder::{CacheKey, CacheLayer, ManualClock, Policy, RequestHead, StorageError, StoredResponse};
use tokio::net::{TcpListener, TcpStream};

const MINUTE: Duration = Duration::from_secs(60);

/// Requests of a trace that is also asked over HTTP.
const REQUESTS: u64 = 6_000;

fn zipf(exponent: f64) -> Synthetic {
    Synthetic::zipf(1_500, exponent).requests(REQUESTS).seed(5).sizes(Sizes::Between(256, 16 << 10)).rate(100.0)
}

/// Instances that are asked over sockets, and the clock that they go by.
struct Running {
    clients: Vec<SendRequest<Empty<Bytes>>>,
    clock: Arc<ManualClock>,
    asked: Arc<AtomicU64>,
}

impl Running {
    async fn start(
        layers: impl IntoIterator<Item = CacheLayer>,
        clock: Arc<ManualClock>,
        sizes: HashMap<String, u64>,
    ) -> Self {
        let (sizes, asked, mut clients) = (Arc::new(sizes), Arc::new(AtomicU64::new(0)), Vec::new());
        for layer in layers {
            let (sizes, asked) = (sizes.clone(), asked.clone());
            let handler = move |uri: Uri| async move {
                asked.fetch_add(1, Ordering::Relaxed);
                vec![b'x'; sizes[uri.path()] as usize]
            };
            let app = Router::new().fallback(handler).layer(layer);
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
            let address = listener.local_addr().expect("it listens");
            let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
            tokio::spawn(async move { axum::serve(listener, app).await });
            clients.push(connect(address).await);
        }
        Self { clients, clock, asked }
    }

    /// Asks for everything in its order; each request is made to an instance by chance. Returns how many were hits.
    async fn replay(&mut self, trace: Synthetic) -> u64 {
        let (mut hits, mut before, mut chance) = (0, None, 1_u64);
        for access in trace.map(|access| access.expect("it is a path")) {
            let passed = before.map(|before| access.time.duration_since(before).expect("it is later"));
            self.clock.advance(passed.unwrap_or_default());
            before = Some(access.time);
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (chance >> 33) as usize % self.clients.len();
            let request = Request::get(access.uri.path()).header("host", "real").body(Empty::new()).expect("a request");
            let response = self.clients[at].send_request(request).await.expect("an answer");
            hits += u64::from(response.headers()["x-cache"] == "HIT");
            let content = response.into_body().collect().await.expect("a clean end").to_bytes();
            assert_eq!(content.len() as u64, access.bytes);
        }
        hits
    }
}

async fn connect(address: SocketAddr) -> SendRequest<Empty<Bytes>> {
    let stream = TcpStream::connect(address).await.expect("the server listens");
    stream.set_nodelay(true).expect("TCP can do without delay");
    let (client, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
    tokio::spawn(connection);
    client
}

fn sizes(trace: Synthetic) -> HashMap<String, u64> {
    trace.map(|access| access.expect("it is a path")).map(|access| (access.uri.path().into(), access.bytes)).collect()
}

/// The same store behind several instances.
#[derive(Clone)]
struct Shared(Arc<MemoryStore>);

impl Storage for Shared {
    async fn get(&self, query: Query<'_>) -> Result<Variants, StorageError> {
        self.0.get(query).await
    }

    async fn put(&self, key: &CacheKey, response: Arc<StoredResponse>, most: usize) -> Result<(), StorageError> {
        self.0.put(key, response, most).await
    }

    async fn remove(&self, key: &CacheKey) -> Result<bool, StorageError> {
        self.0.remove(key).await
    }

    async fn clear(&self) -> Result<(), StorageError> {
        self.0.clear().await
    }

    fn usage(&self) -> StorageUsage {
        self.0.usage()
    }
}

fn off(simulated: u64, real: u64) -> f64 {
    simulated.abs_diff(real) as f64 / REQUESTS as f64
}

fn is_near(what: &str, simulated: u64, real: u64) {
    let off = off(simulated, real);
    assert!(off <= 0.02, "{what}: {simulated} simulated, {real} in the running cache, of {REQUESTS} requests");
}

#[tokio::test]
async fn the_hit_rate_is_that_of_the_running_cache_within_two_points() {
    let (tiny, lru) = (storage::Eviction::TinyLfu, storage::Eviction::Lru);
    let hour = 60 * MINUTE;
    for (what, eviction, capacity, ttl, trace) in [
        ("TinyLFU, little room", tiny, 200 << 10, hour, zipf(0.9)),
        ("TinyLFU, more room", tiny, 1_500 << 10, hour, zipf(0.9)),
        ("LRU, little room", lru, 200 << 10, hour, zipf(0.9)),
        ("LRU, more room", lru, 1_500 << 10, hour, zipf(0.9)),
        ("TinyLFU, lifetimes of a twelfth of the trace", tiny, 1_500 << 10, Duration::from_secs(5), zipf(1.0)),
        ("TinyLFU, beside a crawler", tiny, 500 << 10, hour, zipf(0.9).scan(0.3)),
        ("TinyLFU, when others are popular", tiny, 500 << 10, hour, zipf(0.9).shift(REQUESTS / 4)),
        ("LRU, all in turn", lru, 1 << 20, hour, Synthetic::cyclic(100).requests(REQUESTS).sizes(Sizes::Fixed(2000))),
    ] {
        let layer = |clock| {
            let store = MemoryStore::new(capacity).eviction(eviction);
            CacheLayer::with_memory(store).otherwise(Policy::shared(ttl)).clock(clock)
        };
        let simulation = layer(Arc::new(ManualClock::default()));
        let simulated = Simulation::new(&simulation).run(trace.clone()).expect("the trace has no errors");
        assert_eq!(simulated.requests, REQUESTS);
        let mut runs: Vec<(u64, u64, f64)> = Vec::new();
        // A store that runs has its own hashes, and does its housekeeping when the machine comes to it: of a few hundred entries others stay each time. So where one run is
        // far off, the middle one of five counts.
        while runs.len() < 5 && !matches!(&runs[..], [(hits, ..)] if off(simulated.hits, *hits) <= 0.015) {
            let clock = Arc::new(ManualClock::default());
            let layer = layer(clock.clone());
            let mut running = Running::start([layer.clone()], clock, sizes(trace.clone())).await;
            let hits = running.replay(trace.clone()).await;
            runs.push((hits, running.asked.load(Ordering::Relaxed), layer.handle().stats().hit_rate()));
        }
        runs.sort_by_key(|(hits, ..)| *hits);
        let (hits, asked, hit_rate) = runs[runs.len() / 2];
        is_near(what, simulated.hits, hits);
        is_near(what, simulated.origin_requests, asked);
        assert!(simulated.hits > REQUESTS / 10 && (simulated.hit_rate() - hit_rate).abs() <= 0.02, "{what}");
        assert!(simulated.peak_stored_bytes <= capacity + (16 << 10), "{what}: {}", simulated.peak_stored_bytes);
    }
}

#[tokio::test]
async fn instances_before_a_store_that_they_share_are_foretold_as_well() {
    let clock = Arc::new(ManualClock::default());
    let far = Shared(Arc::new(MemoryStore::new(64 << 20)));
    let trace = zipf(0.9);
    let tiered = |_| {
        let near = MemoryStore::new(200 << 10);
        CacheLayer::tiered(near, far.clone()).otherwise(Policy::shared(60 * MINUTE)).clock(clock.clone())
    };
    let layers: Vec<_> = (0..3).map(tiered).collect();
    let simulated = Simulation::new(&layers[0]).instances(3).run(trace.clone()).expect("the trace has no errors");
    let mut running = Running::start(layers.clone(), clock.clone(), sizes(trace.clone())).await;
    let hits = running.replay(trace).await;
    is_near("hits", simulated.hits, hits);
    is_near("the origin", simulated.origin_requests, running.asked.load(Ordering::Relaxed));
    let promoted: u64 = layers.iter().map(|layer| layer.handle().stats().tiers.promoted).sum();
    is_near("from the far store", simulated.far_hits, promoted);
    assert!(simulated.far_hits > REQUESTS / 10 && simulated.far_entries > 250, "{simulated}");
}

#[test]
fn the_same_trace_and_seed_have_the_same_outcome() {
    let layer = CacheLayer::in_memory(256 << 10).otherwise(Policy::shared(MINUTE / 4).jitter(0.5));
    for eviction in [Eviction::TinyLfu, Eviction::TinyLfuEveryRead, Eviction::Lru, Eviction::Fifo, Eviction::S3Fifo] {
        let run = |seed| {
            let simulation = Simulation::new(&layer).eviction(eviction).instances(2).far(true).seed(seed);
            simulation.run(zipf(0.9).scan(0.1).requests(2_000)).expect("the trace has no errors")
        };
        assert_eq!(run(3), run(3), "{eviction:?}");
        assert_ne!(run(3), run(4), "{eviction:?}: chances differ");
    }
}

#[test]
fn policies_differ_as_it_is_said_of_them() {
    let layer = CacheLayer::in_memory(1 << 20).otherwise(Policy::shared(60 * MINUTE));
    let hits = |eviction, trace: Synthetic| {
        let outcome = Simulation::new(&layer).eviction(eviction).run(trace).expect("the trace has no errors");
        assert!(outcome.peak_stored_bytes <= 1 << 20, "{eviction:?}: {}", outcome.peak_stored_bytes);
        outcome.hits
    };
    let [every_read, tiny, lru, fifo, s3_fifo] =
        [Eviction::TinyLfuEveryRead, Eviction::TinyLfu, Eviction::Lru, Eviction::Fifo, Eviction::S3Fifo];
    let popular = |eviction| hits(eviction, zipf(0.9));
    assert!(popular(tiny) > popular(lru) && popular(lru) > popular(fifo) && popular(s3_fifo) > popular(lru));
    assert!(popular(every_read).abs_diff(popular(tiny)) < REQUESTS / 25, "some reads say nearly as much as all");
    // One fifth more than there is room for: whoever goes by age alone has always just lost what is asked for next.
    let in_turn = |eviction| hits(eviction, Synthetic::cyclic(450).requests(REQUESTS).sizes(Sizes::Fixed(2000)));
    assert_eq!([in_turn(lru), in_turn(fifo)], [0, 0]);
    assert!(in_turn(tiny) > REQUESTS / 2);
}

/// Lines of a log, a minute apart where none says otherwise.
fn log(lines: &[&str]) -> String {
    let line = |(n, line): (usize, &&str)| format!("192.0.2.1 - - [10/Oct/2025:13:{n:02}:00 +0000] {line}\n");
    lines.iter().enumerate().map(line).collect()
}

fn replay(simulation: &Simulation, text: &str) -> Outcome {
    simulation.run(AccessLog::new(text.as_bytes())).expect("it is in memory")
}

/// Hits, stale, revalidated, misses, bypassed; requests to the origin, bytes from it, bytes from the store.
fn counts(outcome: &Outcome) -> [u64; 8] {
    let Outcome { hits, stale, revalidated, misses, bypassed, origin_requests, origin_bytes, hit_bytes, .. } = *outcome;
    [hits, stale, revalidated, misses, bypassed, origin_requests, origin_bytes, hit_bytes]
}

#[test]
fn each_line_means_what_it_would_have_meant_to_the_layer() {
    let shared = || CacheLayer::in_memory(1 << 20).otherwise(Policy::shared(90 * MINUTE));
    let rules = || shared().rule("^/bypassed", Policy::bypass()).rule("^/short", Policy::shared(MINUTE / 2));
    let get = r#""GET /a HTTP/1.1" 200 100"#;
    for (what, layer, lines, expected) in [
        ("a second look is a hit", shared(), &[get, get][..], [1, 0, 0, 1, 0, 1, 100, 100]),
        ("HEAD too", shared(), &[get, r#""HEAD /a HTTP/1.1" 200 0"#], [1, 0, 0, 1, 0, 1, 100, 0]),
        ("a write invalidates", shared(), &[get, r#""PUT /a HTTP/1.1" 204 -"#, get], [0, 0, 0, 2, 1, 3, 200, 0]),
        ("a failed one doesn't", shared(), &[get, r#""PUT /a HTTP/1.1" 500 -"#, get], [1, 0, 0, 1, 1, 2, 100, 100]),
        (
            "what a client had already is of the size that it is known to have",
            shared(),
            &[r#""GET /b HTTP/1.1" 200 700"#, r#""DELETE /b HTTP/1.1" 200 0"#, r#""GET /b HTTP/1.1" 304 0"#],
            [0, 0, 0, 2, 1, 3, 1400, 0],
        ),
        (
            "a part of what isn't known is nobody else's",
            shared(),
            &[r#""GET /c HTTP/1.1" 206 10"#, r#""GET /c HTTP/1.1" 206 10"#],
            [0, 0, 0, 2, 0, 2, 20, 0],
        ),
        (
            "rules by path",
            rules(),
            &[r#""GET /bypassed HTTP/1.1" 200 5"#, r#""GET /short HTTP/1.1" 200 7"#, r#""GET /short HTTP/1.1" 200 7"#],
            [0, 0, 0, 2, 1, 3, 19, 0],
        ),
        (
            "stale while it is refreshed",
            CacheLayer::in_memory(1 << 20).otherwise(Policy::shared(MINUTE / 2).stale_while_revalidate(10 * MINUTE)),
            &[get, get, get],
            [0, 2, 0, 1, 0, 3, 300, 200],
        ),
        (
            "stale in place of an error",
            CacheLayer::in_memory(1 << 20).otherwise(Policy::shared(MINUTE / 2).stale_if_error(10 * MINUTE)),
            &[get, r#""GET /a HTTP/1.1" 503 0"#],
            [0, 1, 0, 1, 0, 2, 100, 0],
        ),
        (
            "tags that a rule purges",
            shared()
                .rule("^/list", Policy::shared(90 * MINUTE).tag("all"))
                .rule("^/one", Policy::shared(90 * MINUTE).purges_tag("all")),
            &[r#""GET /list HTTP/1.1" 200 9"#, r#""POST /one HTTP/1.1" 201 0"#, r#""GET /list HTTP/1.1" 200 9"#],
            [0, 0, 0, 2, 1, 3, 18, 0],
        ),
        (
            "errors and larger contents than are kept aren't stored",
            shared().max_body_size(1000),
            &[r#""GET /e HTTP/1.1" 500 5"#, r#""GET /e HTTP/1.1" 500 5"#, r#""GET /l HTTP/1.1" 200 99999999999999"#],
            [0, 0, 0, 3, 0, 3, 10 + 99_999_999_999_999, 0],
        ),
    ] {
        let outcome = replay(&Simulation::new(&layer), &log(lines));
        assert_eq!(counts(&outcome), expected, "{what}: {outcome}");
    }
}

#[test]
fn what_a_trace_does_not_know_can_be_said() {
    let get = r#""GET /a HTTP/1.1" 200 100"#;
    let lines = log(&[get, get, get]);
    let from_origin = Simulation::new(&CacheLayer::in_memory(1 << 20));
    let nothing = replay(&from_origin, &lines);
    assert_eq!((nothing.hits, nothing.declined), (0, 3), "no rule, no field: no lifetime");
    assert_eq!(replay(&from_origin.clone().origin_max_age(10 * MINUTE), &lines).hits, 2);
    let confirmed = from_origin.origin_max_age(MINUTE / 2).origin_validates(true);
    assert_eq!(counts(&replay(&confirmed, &lines)), [0, 0, 2, 1, 0, 3, 100, 200]);
}

#[test]
fn users_have_partitions_of_their_own() {
    let user = |request: &RequestHead<'_>| request.extensions.get::<Client>().and_then(|client| client.user.clone());
    let layer = CacheLayer::in_memory(1 << 20)
        .rule("^/me", Policy::per(user, 90 * MINUTE))
        .otherwise(Policy::guarded(90 * MINUTE));
    let of =
        |user: &str, path: &str| format!("::1 - {user} [10/Oct/2025:13:00:00 +0000] \"GET {path} HTTP/1.1\" 200 10\n");
    let log = |lines: &[(&str, &str)]| lines.iter().map(|(user, path)| of(user, path)).collect::<String>();
    let simulation = Simulation::new(&layer);
    let mine = replay(&simulation, &log(&[("ann", "/me"), ("bob", "/me"), ("ann", "/me"), ("-", "/me")]));
    assert_eq!((mine.hits, mine.misses, mine.bypassed), (1, 2, 1));
    let guarded = replay(&simulation, &log(&[("-", "/x"), ("-", "/x"), ("ann", "/x")]));
    assert_eq!((guarded.hits, guarded.misses, guarded.bypassed), (1, 1, 1));
}

#[test]
fn a_write_reaches_all_instances_where_they_share_a_store_and_one_where_not() {
    let layer = CacheLayer::in_memory(1 << 20).otherwise(Policy::shared(90 * MINUTE));
    let get = r#""GET /a HTTP/1.1" 200 100"#;
    let many = [get; 20];
    let lines = log(&[&many[..], &[r#""PUT /a HTTP/1.1" 204 -"#], &many[..]].concat());
    let alone = replay(&Simulation::new(&layer).instances(2), &lines);
    assert_eq!(alone.misses, 3, "each fills its own, and one of them once more: {alone}");
    let shared = replay(&Simulation::new(&layer).instances(2).far(true), &lines);
    assert_eq!((shared.misses, shared.far_hits), (2, 2), "one fills for both, before and behind the write: {shared}");
}

#[test]
fn many_purges_are_forgotten_and_take_nothing_along() {
    let layer = CacheLayer::in_memory(16 << 20)
        .rule("^/kept", Policy::shared(90 * MINUTE))
        .rule("^/of/(.*)", Policy::shared(90 * MINUTE).purges_glob("/of/$1/*"));
    let kept = r#""GET /kept HTTP/1.1" 200 100"#.to_owned();
    let mut lines = vec![kept.clone()];
    for n in 0..2000 {
        lines.push(format!(r#""PUT /of/{n} HTTP/1.1" 204 -"#));
        lines.push(kept.clone());
    }
    let text: String = lines.iter().map(|line| format!("::1 - - [10/Oct/2025:13:00:00 +0000] {line}\n")).collect();
    let outcome = replay(&Simulation::new(&layer), &text);
    assert_eq!((outcome.hits, outcome.misses, outcome.invalidations), (2000, 1, 2000));
}

#[test]
fn time_is_that_of_the_trace_and_never_goes_back() {
    let layer = CacheLayer::in_memory(1 << 20).otherwise(Policy::shared(MINUTE));
    let at = |seconds: u64| {
        let access = Access::get(UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds), Uri::from_static("/a"), 10);
        Ok(access)
    };
    let outcome = Simulation::new(&layer).run([at(0), at(59), at(0), at(61), at(100)]).expect("no line is an error");
    assert_eq!((outcome.hits, outcome.misses), (3, 2));
    assert_eq!((outcome.peak, outcome.origin_peak, outcome.duration), (2, 1, Duration::from_secs(100)));
    let broken = Simulation::new(&layer).run([at(0), Err(io::Error::other("the disk is gone"))]);
    assert_eq!(broken.expect_err("the trace ends with one").to_string(), "the disk is gone");
}

#[test]
fn what_has_expired_leaves_its_room_to_others() {
    let layer = CacheLayer::in_memory(1 << 20).otherwise(Policy::shared(MINUTE));
    let trace = |keys| Synthetic::cyclic(keys).requests(1000).rate(1.0).sizes(Sizes::Fixed(1000));
    for eviction in [Eviction::TinyLfu, Eviction::Lru, Eviction::Fifo, Eviction::S3Fifo] {
        let outcome = Simulation::new(&layer).eviction(eviction).run(trace(1000)).expect("the trace has no errors");
        assert!(outcome.entries <= 62, "{eviction:?}: {outcome}");
        assert!(outcome.peak_stored_bytes < 150_000, "{eviction:?}: {outcome}");
    }
}
