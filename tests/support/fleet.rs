//! Three instances of one application that share what they cache, under load, over content that says what it is: of each answer it can be told whether it was allowed to be given.
#![allow(dead_code, reason = "each test file uses a part")]

use std::convert::Infallible;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use larder::{Cache, CacheHandle, CacheLayer, Policy, Selector};
use tokio::task::JoinSet;
use tower::{Layer, Service, ServiceExt};

use super::traffic::{Chance, Zipf};

/// How long after a purge another instance may still give what was purged.
pub const BOUND: Duration = Duration::from_secs(1);

/// Whoever gets no answer for so long hangs.
pub(super) const HANGS: Duration = Duration::from_secs(5);

const READERS: usize = 3;

/// Of fewer answers nothing is learned.
pub(super) const ENOUGH: u64 = 2000;

/// One thing that is cached.
#[derive(Default)]
pub(super) struct Page {
    /// Of its content.
    pub(super) version: AtomicU64,
    /// The versions that purges were made for, and when they were acknowledged; the newest last.
    acknowledged: Mutex<Vec<(Instant, u64)>>,
    /// The same for what each instance itself has purged or written, without the time.
    pub(super) own: [AtomicU64; 3],
}

impl Page {
    /// The oldest version that an instance may give for a request that begins now.
    pub(super) fn required(&self, instance: usize) -> u64 {
        let acknowledged = self.acknowledged.lock().expect("nobody panics");
        let now = Instant::now();
        let elsewhere = acknowledged.iter().rev().find(|(at, _)| now.duration_since(*at) > BOUND);
        elsewhere.map_or(0, |(_, version)| *version).max(self.own[instance].load(Ordering::SeqCst))
    }

    /// An instance has made all that is older than this version invalid, here at once and elsewhere within the bound.
    pub(super) fn acknowledge(&self, instance: usize, version: u64) {
        self.own[instance].fetch_max(version, Ordering::SeqCst);
        let mut acknowledged = self.acknowledged.lock().expect("nobody panics");
        let newest = acknowledged.last().map_or(0, |(_, version)| *version);
        acknowledged.push((Instant::now(), version.max(newest)));
    }
}

/// The application: its answers name the page and the version of its content, and are as long as they should be.
#[derive(Clone)]
pub struct Origin {
    pages: Arc<Vec<Page>>,
    padding: usize,
    calls: Arc<AtomicU64>,
}

impl Origin {
    fn content(&self, page: usize, version: u64) -> String {
        format!("{page} {version} {:.<width$}", "", width = self.padding)
    }
}

impl Service<Request<Full<Bytes>>> for Origin {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        let origin = self.clone();
        Box::pin(async move {
            let page: usize = request.uri().path()[1..].parse().expect("a number");
            if request.method() == Method::POST {
                origin.pages[page].version.fetch_add(1, Ordering::SeqCst);
                return Ok(Response::new(Full::default()));
            }
            let calls = origin.calls.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(calls % 4)).await;
            let content = origin.content(page, origin.pages[page].version.load(Ordering::SeqCst));
            tokio::time::sleep(Duration::from_millis(calls % 3)).await;
            let mut response = Response::new(Full::from(content));
            response.headers_mut().insert("cache-tag", format!("page:{page}").parse().expect("a tag"));
            Ok(response)
        })
    }
}

/// One instance, as its clients and its operator see it.
#[derive(Clone)]
struct Instance {
    number: usize,
    cache: Cache<Origin>,
    handle: CacheHandle,
    hits: Arc<AtomicU64>,
}

/// What came of it.
#[derive(Default)]
pub struct Seen {
    pub answers: AtomicU64,
    pub purges: AtomicU64,
    pub purges_failed: AtomicU64,
    pub writes: AtomicU64,
    pub hangs: AtomicU64,
    pub server_errors: AtomicU64,
    wrong: Mutex<Vec<String>>,
}

/// Three instances under load.
pub struct Fleet {
    instances: [Instance; 3],
    origin: Origin,
    seen: Arc<Seen>,
    is_over: Arc<AtomicBool>,
    load: JoinSet<()>,
}

/// How a fleet is made.
pub struct Plan {
    pub pages: usize,
    /// How long each answer is, beside what it says.
    pub padding: usize,
    /// This instance makes nothing invalid itself, so that it uses what is stored for as long as it trusts what it hears of the others.
    pub reads_only: Option<usize>,
}

impl Default for Plan {
    fn default() -> Self {
        Self { pages: 40, padding: 200, reads_only: None }
    }
}

impl Plan {
    /// Starts instances over these caches, and load on each.
    pub fn start(self, layer: impl Fn(usize) -> CacheLayer) -> Fleet {
        let pages = (0..self.pages).map(|_| Page::default()).collect();
        let origin = Origin { pages: Arc::new(pages), padding: self.padding, calls: Arc::default() };
        let instances = [0, 1, 2].map(|number| {
            let layer = layer(number).rule("^/", Policy::shared(Duration::from_secs(600)));
            let cache = layer.layer(origin.clone());
            Instance { number, cache, handle: layer.handle(), hits: Arc::default() }
        });
        let mut fleet =
            Fleet { instances, origin, seen: Arc::default(), is_over: Arc::default(), load: JoinSet::new() };
        for instance in fleet.instances.clone() {
            for reader in 0..READERS {
                fleet.spawn(instance.clone(), reader, Client::read);
            }
            if self.reads_only != Some(instance.number) {
                fleet.spawn(instance.clone(), READERS, Client::purge);
                fleet.spawn(instance, READERS + 1, Client::write);
            }
        }
        fleet
    }
}

impl Fleet {
    fn spawn<F: Future<Output = ()> + Send + 'static>(&mut self, instance: Instance, n: usize, load: fn(Client) -> F) {
        let zipf = Zipf::new(self.origin.pages.len());
        let chance = Chance((instance.number * 100 + n) as u64);
        let (origin, seen, is_over) = (self.origin.clone(), self.seen.clone(), self.is_over.clone());
        self.load.spawn(load(Client { instance, origin, seen, is_over, zipf, chance }));
    }

    /// How often each instance answered from what is stored.
    pub fn hits(&self) -> [u64; 3] {
        [0, 1, 2].map(|n| self.instances[n].hits.load(Ordering::SeqCst))
    }

    /// How often the handler was called.
    pub fn calls(&self) -> u64 {
        self.origin.calls.load(Ordering::SeqCst)
    }

    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    pub fn handle(&self, instance: usize) -> &CacheHandle {
        &self.instances[instance].handle
    }

    /// Waits until every instance answers from what is stored, and purges reach the others: everything works.
    pub async fn works(&self) {
        let (hits, purges) = (self.hits(), self.seen.purges.load(Ordering::SeqCst));
        let until = Instant::now() + Duration::from_secs(30);
        let enough = || {
            let more = self.hits().into_iter().zip(hits).all(|(now, then)| now > then + 20);
            more && self.seen.purges.load(Ordering::SeqCst) > purges + 6
        };
        while !enough() {
            assert!(
                Instant::now() < until,
                "it doesn't work again: hits {hits:?}, now {:?}; {:?}",
                self.hits(),
                self.seen
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Lets the load go on for so long.
    pub async fn goes_on(&self, long: Duration) {
        tokio::time::sleep(long).await;
    }

    /// Ends the load, when there was enough of it to say something. Whatever happened, no answer was wrong, none was an error, and nobody was left without one.
    pub async fn ends_well(mut self) {
        let until = Instant::now() + Duration::from_secs(20);
        while self.seen.answers.load(Ordering::SeqCst) <= ENOUGH && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.is_over.store(true, Ordering::SeqCst);
        while let Some(ended) = self.load.join_next().await {
            ended.expect("no client panics");
        }
        let wrong = self.seen.wrong.lock().expect("nobody panics");
        assert!(wrong.is_empty(), "{} wrong answers, among them {:#?}", wrong.len(), &wrong[..wrong.len().min(5)]);
        let count = |count: &AtomicU64| count.load(Ordering::SeqCst);
        assert_eq!((count(&self.seen.server_errors), count(&self.seen.hangs)), (0, 0), "{:?}", self.seen);
        assert!(count(&self.seen.answers) > ENOUGH, "{:?}", self.seen);
    }
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |count: &AtomicU64| count.load(Ordering::SeqCst);
        write!(
            f,
            "{} answers, {} purges and {} that failed, {} writes, {} hangs, {} server errors",
            count(&self.answers),
            count(&self.purges),
            count(&self.purges_failed),
            count(&self.writes),
            count(&self.hangs),
            count(&self.server_errors)
        )
    }
}

/// Who makes a part of the load on one instance.
struct Client {
    instance: Instance,
    origin: Origin,
    seen: Arc<Seen>,
    is_over: Arc<AtomicBool>,
    zipf: Zipf,
    chance: Chance,
}

impl Client {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    async fn read(mut self) {
        while !self.is_over() {
            let page = self.zipf.draw(&mut self.chance);
            let required = self.origin.pages[page].required(self.instance.number);
            if let Some(response) = self.ask(Method::GET, page).await {
                self.check(page, required, response).await;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn check(&self, page: usize, required: u64, response: Response<Bytes>) {
        let is_hit = response.headers().get("x-cache").is_some_and(|word| word == "HIT");
        self.instance.hits.fetch_add(u64::from(is_hit), Ordering::SeqCst);
        let content = String::from_utf8_lossy(response.body());
        let version = content.split(' ').nth(1).and_then(|version| version.parse::<u64>().ok());
        let is_right =
            version.is_some_and(|version| version >= required && content == self.origin.content(page, version));
        if !is_right {
            let (number, shown) = (self.instance.number, content.chars().take(40).collect::<String>());
            let wrong = format!(
                "instance {number}, page {page}, version {required} or newer: {shown:?}, {:?}",
                response.headers()
            );
            self.seen.wrong.lock().expect("nobody panics").push(wrong);
        }
    }

    async fn purge(mut self) {
        while !self.is_over() {
            tokio::time::sleep(Duration::from_millis(self.chance.wait(25.0).min(200))).await;
            let page = self.zipf.draw(&mut self.chance);
            let known = &self.origin.pages[page];
            let version = known.version.fetch_add(1, Ordering::SeqCst) + 1;
            let purge = self.instance.handle.purge(Selector::Tag(format!("page:{page}")));
            match tokio::time::timeout(HANGS, purge.into_future()).await {
                Ok(Ok(_)) => {
                    known.acknowledge(self.instance.number, version);
                    self.seen.purges.fetch_add(1, Ordering::SeqCst);
                }
                Ok(Err(_)) => _ = self.seen.purges_failed.fetch_add(1, Ordering::SeqCst),
                Err(_) => _ = self.seen.hangs.fetch_add(1, Ordering::SeqCst),
            }
        }
    }

    /// A write is over for its own instance when it is answered. The others learn of it when the log can be written to.
    async fn write(mut self) {
        while !self.is_over() {
            tokio::time::sleep(Duration::from_millis(self.chance.wait(60.0).min(400))).await;
            let page = self.zipf.draw(&mut self.chance);
            let known = &self.origin.pages[page];
            let before = known.version.load(Ordering::SeqCst);
            if self.ask(Method::POST, page).await.is_some() {
                known.own[self.instance.number].fetch_max(before + 1, Ordering::SeqCst);
                self.seen.writes.fetch_add(1, Ordering::SeqCst);
            }
        }
    }

    async fn ask(&self, method: Method, page: usize) -> Option<Response<Bytes>> {
        let request = Request::builder().method(method).uri(format!("/{page}")).header("host", "fleet");
        let request = request.body(Full::default()).expect("a request");
        let cache = self.instance.cache.clone();
        let answered = async move {
            let (head, body) = cache.oneshot(request).await.expect("the handler never fails").into_parts();
            Response::from_parts(head, body.collect().await.expect("its content never breaks off").to_bytes())
        };
        let Ok(response) = tokio::time::timeout(HANGS, answered).await else {
            self.seen.hangs.fetch_add(1, Ordering::SeqCst);
            return None;
        };
        if response.status().is_server_error() {
            self.seen.server_errors.fetch_add(1, Ordering::SeqCst);
            return None;
        }
        self.seen.answers.fetch_add(1, Ordering::SeqCst);
        Some(response)
    }
}
