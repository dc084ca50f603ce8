//! What a hit costs when there is more of something: keys, rules, purges that are remembered, variants, threads, connections. Each curve has a base point; all points of it are measured in
//! turn, round by round, and what counts is the median of the rounds' ratios to the base.
//!
//! ```text
//! cargo bench --bench scaling                      # all curves
//! cargo bench --bench scaling -- keys rules        # some: keys, rules, purges, variants, threads, connections
//! cargo bench --bench scaling -- --json FILE       # and the points as JSON
//! ```
//!
//! A hit is in this process, without a socket, except for the curve of connections: there a process of its own serves over HTTP/1.1, with one thread and with two. Memory latency is taken out of the curve of keys
//! by a handler that answers from as many bodies as there are keys, without a cache: what larder adds to it is what is asked to be flat.

#[path = "support/mod.rs"]
mod support;

use std::convert::Infallible;
use std::fmt::Write as _;
use std::future::Future;
use std::hint::black_box;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::pin::pin;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Barrier;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use larder::{Cache, CacheLayer, Policy, Selector};
use support::client::Client;
use support::report::Report;
use support::{median, median_ratio};
use tokio::runtime::{Builder, Runtime};
use tower::{Layer, Service};

const ROUNDS: usize = 15;
const CALLS: usize = 20_000;
const BODY: usize = 200;
/// So many keys aren't read often in a bench.
const MANY: usize = 1_000_000;
const HOUR: Duration = Duration::from_secs(3600);

fn main() -> ExitCode {
    if std::env::var_os(SERVES).is_some() {
        serve();
        return ExitCode::SUCCESS;
    }
    let (mut json, mut wanted) = (None, Vec::new());
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--json" => json = arguments.next(),
            name => wanted.push(name.to_owned()),
        }
    }
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime of one thread can be built");
    let mut report = Report::default();
    let mut curves = Vec::new();
    let _in_runtime = runtime.enter();
    let all: [(&str, Measure); 6] = [
        ("keys", keys),
        ("rules", rules),
        ("purges", purges),
        ("variants", variants),
        ("threads", threads),
        ("connections", connections),
    ];
    for (name, measure) in all {
        if is_wanted(name) {
            curves.extend(measure(&runtime, &mut report));
        }
    }
    if let Some(file) = json {
        std::fs::write(&file, as_json(&curves)).expect("the file can be written");
    }
    report.finish()
}

type Measure = fn(&Runtime, &mut Report) -> Vec<Curve>;

/// What a hit costs at each point, in nanoseconds, and how much that is of what it costs at the base.
struct Curve {
    name: String,
    points: Vec<Point>,
}

struct Point {
    at: String,
    nanoseconds: f64,
    ratio: f64,
}

impl Curve {
    /// From samples, point by point; the first point is the base.
    fn new(name: &str, labels: &[String], samples: &[Vec<f64>]) -> Self {
        let points = labels.iter().zip(samples).map(|(at, of)| Point {
            at: at.clone(),
            nanoseconds: median(of.clone()),
            ratio: median_ratio(of, &samples[0]),
        });
        let curve = Self { name: name.into(), points: points.collect() };
        println!("{}:", curve.name);
        for Point { at, nanoseconds, ratio } in &curve.points {
            println!("  {at:>10}  {nanoseconds:>8.0} ns  {ratio:.2}");
        }
        curve
    }

    fn last(&self) -> &Point {
        self.points.last().expect("a curve has points")
    }
}

fn as_json(curves: &[Curve]) -> String {
    let mut text = String::from("{\n");
    for (n, curve) in curves.iter().enumerate() {
        let points = curve.points.iter().map(|point| {
            format!(
                "{{\"at\": \"{}\", \"nanoseconds\": {:.1}, \"ratio\": {:.3}}}",
                point.at, point.nanoseconds, point.ratio
            )
        });
        let points: Vec<_> = points.collect();
        let comma = if n + 1 < curves.len() { "," } else { "" };
        let _ = writeln!(text, "  \"{}\": [{}]{comma}", curve.name, points.join(", "));
    }
    text + "}\n"
}

/// Answers each path with a body of its own.
#[derive(Clone)]
struct Handler {
    contents: &'static [Bytes],
}

impl Handler {
    fn new(keys: usize) -> Self {
        let contents = (0..keys).map(|key| Bytes::from(vec![b'a' + (key % 26) as u8; BODY])).collect::<Vec<_>>();
        Self { contents: contents.leak() }
    }
}

impl Service<Request<Body>> for Handler {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let key: usize = request.uri().path().rsplit('/').next().and_then(|key| key.parse().ok()).unwrap_or(0);
        let mut response = Response::new(Body::from(self.contents[key % self.contents.len()].clone()));
        for (name, value) in [
            ("content-type", "application/json"),
            ("content-language", "en"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("x-api-version", "2026-01-01"),
        ] {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        if request.headers().contains_key("x-variant") {
            response.headers_mut().insert("vary", HeaderValue::from_static("x-variant"));
        }
        std::future::ready(Ok(response))
    }
}

/// Something that is called, and with what.
struct Subject {
    call: Box<dyn FnMut(Request<Body>)>,
    next: Box<dyn FnMut() -> Request<Body>>,
}

impl Subject {
    fn new<S>(service: S, next: impl FnMut() -> Request<Body> + 'static) -> Self
    where
        S: Service<Request<Body>, Error = Infallible, Future: 'static> + 'static,
    {
        Self { call: calling(service), next: Box::new(next) }
    }

    /// Nanoseconds a call. Requests are made in small batches, outside of what is timed.
    fn time(&mut self, calls: usize) -> f64 {
        let mut spent = Duration::ZERO;
        for _ in 0..calls / 50 {
            let batch: Vec<_> = (0..50).map(|_| (self.next)()).collect();
            let start = Instant::now();
            batch.into_iter().for_each(&mut self.call);
            spent += start.elapsed();
        }
        spent.as_nanos() as f64 / calls as f64
    }
}

fn calling<S>(mut service: S) -> Box<dyn FnMut(Request<Body>)>
where
    S: Service<Request<Body>, Error = Infallible, Future: 'static> + 'static,
{
    Box::new(move |request| {
        let mut answer = pin!(service.call(request));
        // Hits and this handler are ready at once.
        match answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(response)) => drop(black_box(response)),
            Poll::Ready(Err(never)) => match never {},
            Poll::Pending => panic!("it isn't ready, so it is no hit"),
        }
    })
}

/// Samples of all subjects in turn, for as many rounds.
fn interleaved(subjects: &mut [Subject]) -> Vec<Vec<f64>> {
    subjects.iter_mut().for_each(|subject| _ = subject.time(CALLS));
    let mut samples = vec![Vec::new(); subjects.len()];
    for _ in 0..ROUNDS {
        for (subject, samples) in subjects.iter_mut().zip(&mut samples) {
            samples.push(subject.time(CALLS));
        }
    }
    samples
}

fn request(path: String) -> Request<Body> {
    Request::get(path)
        .header("host", "shop.example")
        .header("accept", "*/*")
        .header("user-agent", "bench")
        .body(Body::empty())
        .expect("the parts are valid")
}

/// Keys in an order that no prefetcher guesses.
fn any_of(keys: usize, mut state: u64) -> impl FnMut() -> usize {
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % keys
    }
}

fn of_keys(keys: usize) -> impl FnMut() -> Request<Body> {
    let mut any = any_of(keys, 1);
    move || request(format!("/items/{}", any()))
}

/// A cache that has all of them. The first reads of an entry are told to its eviction policy, fewer and fewer of them; so each is read before, as often as makes the next ones what they are for
/// most of an entry's life.
fn filled(layer: &CacheLayer, keys: usize) -> Cache<Handler> {
    let service = layer.layer(Handler::new(keys));
    let mut call = calling(service.clone());
    let reads = if keys < MANY { 33 } else { 5 };
    for _ in 0..=reads {
        (0..keys).for_each(|key| call(request(format!("/items/{key}"))));
    }
    assert!(layer.handle().stats().storage.entries as usize >= keys, "all are stored");
    service
}

fn shared() -> CacheLayer {
    CacheLayer::in_memory(8 << 30).otherwise(Policy::shared(HOUR))
}

fn labels<T: ToString>(points: &[T]) -> Vec<String> {
    points.iter().map(T::to_string).collect()
}

/// A thousand keys to a million, beside a handler that has as many bodies.
fn keys(_: &Runtime, report: &mut Report) -> Vec<Curve> {
    const KEYS: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];
    let mut subjects: Vec<_> = KEYS.iter().map(|keys| Subject::new(filled(&shared(), *keys), of_keys(*keys))).collect();
    subjects.extend(KEYS.iter().map(|keys| Subject::new(Handler::new(*keys), of_keys(*keys))));
    let samples = interleaved(&mut subjects);
    let (hits, bare) = samples.split_at(KEYS.len());
    let (hits, bare) = (Curve::new("keys", &labels(&KEYS), hits), Curve::new("keys, bare", &labels(&KEYS), bare));
    let grows = hits.last().ratio / bare.last().ratio;
    report.at_most("a hit among 1,000,000 keys to one among 1,000, as of bare with as many bodies", 2.0, grows, " x");
    report.for_information("the same, without regard to memory", &format!("{:.2} x", hits.last().ratio));
    vec![hits, bare]
}

/// Rules before the one that matches.
fn rules(_: &Runtime, report: &mut Report) -> Vec<Curve> {
    const RULES: [usize; 6] = [1, 4, 10, 50, 100, 200];
    let with = |rules: usize, pattern: fn(usize) -> String| {
        let layer =
            (1..rules).fold(CacheLayer::in_memory(1 << 30), |layer, n| layer.rule(&pattern(n), Policy::shared(HOUR)));
        let layer = layer.rule("^/items/", Policy::shared(HOUR));
        Subject::new(filled(&layer, 1_000), of_keys(1_000))
    };
    let prefixes = |n: usize| format!("^/section-{n}/");
    let regexes = |n: usize| format!("^/section-{n}/[0-9]+/(reviews|offers)$");
    let mut curves = Vec::new();
    for (name, pattern) in [("rules", prefixes as fn(usize) -> String), ("rules with expressions", regexes)] {
        let mut subjects: Vec<_> = RULES.iter().map(|rules| with(*rules, pattern)).collect();
        let curve = Curve::new(name, &labels(&RULES), &interleaved(&mut subjects));
        let more = curve.last().nanoseconds - curve.points[0].nanoseconds;
        report.at_most(&format!("200 {name}: what a hit costs more than with one"), 300.0, more, " ns");
        curves.push(curve);
    }
    curves
}

/// Purges that are remembered, of tags that nothing read here bears, and of paths.
fn purges(runtime: &Runtime, report: &mut Report) -> Vec<Curve> {
    const PURGES: [usize; 3] = [0, 1_000, 100_000];
    let mut kept = Vec::new();
    let mut with = |purges: usize| {
        let layer = shared();
        // What is on its way holds the purges in memory: else the sweep would forget them.
        let service = filled(&layer, 1_000);
        let handle = layer.handle();
        let slow = layer.layer(Slow);
        let task = runtime.spawn(async move { drop(slow.clone().call(request("/slow".into())).await) });
        runtime.block_on(async {
            tokio::task::yield_now().await;
            for n in 0..purges {
                let purge = handle.purge(Selector::Tag(format!("other:{n}")));
                purge.await.expect("it is a tag");
            }
        });
        let live = layer.handle().stats().purges_remembered as usize;
        assert!(live >= purges, "{live} of {purges} purges are remembered");
        kept.push(task);
        Subject::new(service, of_keys(1_000))
    };
    let mut subjects: Vec<_> = PURGES.iter().map(|purges| with(*purges)).collect();
    let curve = Curve::new("purges", &labels(&PURGES), &interleaved(&mut subjects));
    report.at_most("a hit with 100,000 purges remembered, to one with none", 1.1, curve.last().ratio, " x");
    kept.iter().for_each(|task| task.abort());
    vec![curve]
}

/// Never answers.
#[derive(Clone)]
struct Slow;

impl Service<Request<Body>> for Slow {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = std::future::Pending<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        std::future::pending()
    }
}

/// Variants of each URI, of which any is asked for. As many entries at each point, so that memory is the same.
fn variants(_: &Runtime, report: &mut Report) -> Vec<Curve> {
    const VARIANTS: [usize; 5] = [1, 4, 16, 32, 64];
    const ALL: usize = 1_024;
    let varied = |uri: usize, variant: usize| {
        let mut request = request(format!("/items/{uri}"));
        request.headers_mut().insert("x-variant", HeaderValue::from_str(&variant.to_string()).expect("a number"));
        request
    };
    let with = |variants: usize| {
        let layer = shared().max_variants(64);
        let service = layer.layer(Handler::new(ALL));
        let uris = ALL / variants;
        let mut call = calling(service.clone());
        for _ in 0..34 {
            (0..ALL).for_each(|n| call(varied(n % uris, n / uris)));
        }
        assert_eq!(layer.handle().stats().misses as usize, ALL, "each was stored once");
        let mut any = any_of(ALL, 1);
        Subject::new(service, move || {
            let n = any();
            varied(n % uris, n / uris)
        })
    };
    let mut subjects: Vec<_> = VARIANTS.iter().map(|variants| with(*variants)).collect();
    let curve = Curve::new("variants", &labels(&VARIANTS), &interleaved(&mut subjects));
    let each = (curve.last().nanoseconds - curve.points[0].nanoseconds) / 32.0;
    report.for_information("each variant that is looked at before the one that is meant", &format!("{each:.0} ns"));
    vec![curve]
}

/// One thread and two, on as many keys and on one; beside the bare handler, whose shared bodies don't scale either.
fn threads(_: &Runtime, report: &mut Report) -> Vec<Curve> {
    let mut curves = Vec::new();
    for (keys, asked) in [(10_000, 0.95), (1, 0.8)] {
        let service = filled(&shared(), keys);
        let bare = Handler::new(keys);
        let mut samples = vec![Vec::new(); 4];
        for _ in 0..ROUNDS {
            samples[0].push(on(1, &service, keys));
            samples[1].push(on(2, &service, keys));
            samples[2].push(on(1, &bare, keys));
            samples[3].push(on(2, &bare, keys));
        }
        let labels = labels(&[1, 2]);
        let ours = Curve::new(&format!("threads, {keys} key(s)"), &labels, &samples[..2]);
        let bare = Curve::new(&format!("threads, {keys} key(s), bare"), &labels, &samples[2..]);
        // Time a call of each thread: the smaller, the better it scales.
        let scaling = bare.last().ratio / ours.last().ratio;
        report.at_least(&format!("2 threads, {keys} key(s): of how bare scales"), asked, scaling, " x");
        curves.extend([ours, bare]);
    }
    curves
}

/// Nanoseconds a call of each of so many threads at once.
fn on<S>(threads: usize, service: &S, keys: usize) -> f64
where
    S: Service<Request<Body>, Error = Infallible, Future: 'static> + Clone + Send + 'static,
{
    let start = Barrier::new(threads);
    std::thread::scope(|scope| {
        let each = |n: usize| {
            let (service, start) = (service.clone(), &start);
            scope.spawn(move || {
                let mut any = any_of(keys, n as u64 + 1);
                let mut subject = Subject::new(service, move || request(format!("/items/{}", any())));
                subject.time(1_000);
                start.wait();
                subject.time(CALLS)
            })
        };
        let all: Vec<_> = (0..threads).map(each).collect();
        all.into_iter().map(|thread| thread.join().expect("it doesn't panic")).sum::<f64>() / threads as f64
    })
}

/// Has the number of threads of the process that serves.
const SERVES: &str = "LARDER_SCALING_SERVES";

/// Connections over which hits are asked for one after another, on all of them at once; of a server with one thread, and with two.
fn connections(_: &Runtime, report: &mut Report) -> Vec<Curve> {
    const CONNECTIONS: [usize; 5] = [1, 8, 64, 256, 1_024];
    const REQUESTS: usize = 4_096;
    const ROUNDS: usize = 9;
    drop(rlimit::increase_nofile_limit(8_192));
    let clients = Builder::new_current_thread().enable_all().build().expect("a runtime of one thread can be built");
    let mut curves = Vec::new();
    for threads in [1, 2] {
        let server = Server::start(threads);
        let curve = |subject: &str| {
            let mut groups: Vec<Vec<Client>> =
                CONNECTIONS.iter().map(|n| clients.block_on(open(&server, *n))).collect();
            let path = format!("/{subject}/items/1");
            let mut samples = vec![Vec::new(); CONNECTIONS.len()];
            for round in 0..=ROUNDS {
                for (group, samples) in groups.iter_mut().zip(&mut samples) {
                    let times = REQUESTS / group.len();
                    let start = Instant::now();
                    clients.block_on(ask(group, &path, times));
                    let nanoseconds = start.elapsed().as_nanos() as f64 / REQUESTS as f64;
                    // The first round is for warming up.
                    if round > 0 {
                        samples.push(nanoseconds);
                    }
                }
            }
            Curve::new(&format!("connections, {threads} thread(s), {subject}"), &labels(&CONNECTIONS), &samples)
        };
        let (ours, bare) = (curve("larder"), curve("bare"));
        let grows = ours.last().ratio / bare.last().ratio;
        let what = format!("1,024 connections to one, {threads} thread(s), as of bare");
        report.at_most(&what, 1.15, grows, " x");
        curves.extend([ours, bare]);
    }
    curves
}

async fn open(server: &Server, number: usize) -> Vec<Client> {
    let mut clients = Vec::with_capacity(number);
    for _ in 0..number {
        clients.push(Client::http1_of_many(server.address).await);
    }
    clients
}

/// Every client asks so often, one request after another.
async fn ask(clients: &mut [Client], path: &str, times: usize) {
    let each = clients.iter_mut().map(async |client| {
        for _ in 0..times {
            assert_eq!(client.text(path).await.map(|text| text.len()), Ok(BODY), "the content is whole");
        }
    });
    futures_util::future::join_all(each).await;
}

struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    fn start(threads: usize) -> Self {
        let program = std::env::current_exe().expect("this program is somewhere");
        let mut command = Command::new(program);
        let command = command.env(SERVES, threads.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("this program can be started once more");
        let mut line = String::new();
        let output = process.stdout.take().expect("it is piped");
        BufReader::new(output).read_line(&mut line).expect("the server says where it listens");
        let address = line.trim().parse().expect("an address");
        Self { process, address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Serves until the process that started this one is gone.
fn serve() {
    let threads = std::env::var(SERVES).ok().and_then(|threads| threads.parse().ok()).unwrap_or(1);
    drop(rlimit::increase_nofile_limit(8_192));
    let runtime = Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    let runtime = runtime.expect("a runtime can be built");
    runtime.block_on(async {
        let page = get(|| async { vec![b'x'; BODY] });
        let larder = Router::new().route("/larder/items/{id}", page.clone()).layer(shared());
        let app = Router::new().route("/bare/items/{id}", page).merge(larder);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        println!("{}", listener.local_addr().expect("a listener has an address"));
        tokio::spawn(async move { axum::serve(listener, app).await });
        let gone = tokio::task::spawn_blocking(|| drop(std::io::stdin().read(&mut [0])));
        gone.await.expect("reading doesn't panic");
    });
}
