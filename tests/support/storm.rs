//! Purges of every kind, hard and soft, on one instance or on several that share a store, beside fills, refreshes, followers, writes and sweeps on several threads: of each answer it can be
//! told whether a purge should have ended it.
#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use larder::{Cache, CacheHandle, CacheLayer, Policy, RequestHead, Selector};
use tower::{Layer, Service, ServiceExt};

use super::fleet::BOUND;

const SECTIONS: usize = 4;
/// In each section; as many for everybody as for two users each.
const PAGES: usize = 6;
const USERS: [&str; 2] = ["ann", "bob"];

/// One thing that is stored apart.
#[derive(Default)]
struct Resource {
    path: String,
    section: usize,
    user: Option<usize>,
    /// Of its content.
    version: AtomicU64,
    /// By purges, hard or soft.
    outdated: Required,
    /// By hard purges.
    ended: Required,
}

/// The versions that purges were made for that have returned.
#[derive(Default)]
pub struct Required {
    /// On each instance.
    own: [AtomicU64; 2],
    everywhere: Mutex<Everywhere>,
}

#[derive(Default)]
struct Everywhere {
    /// What was required longer ago than the bound, and so of all.
    settled: u64,
    /// When the later ones were acknowledged; the newest last, with none that is older than the one before.
    recent: VecDeque<(Instant, u64)>,
}

impl Required {
    pub fn require(&self, instance: usize, version: u64) {
        self.own[instance].fetch_max(version, Ordering::SeqCst);
        let mut everywhere = self.everywhere.lock().expect("nobody panics");
        let newest = everywhere.recent.back().map_or(everywhere.settled, |(_, version)| *version);
        everywhere.recent.push_back((Instant::now(), version.max(newest)));
    }

    /// The oldest version that an instance may give for a request that begins now.
    pub fn now(&self, instance: usize) -> u64 {
        let mut everywhere = self.everywhere.lock().expect("nobody panics");
        while everywhere.recent.front().is_some_and(|(at, _)| at.elapsed() > BOUND) {
            let (_, version) = everywhere.recent.pop_front().expect("there is one");
            everywhere.settled = version;
        }
        everywhere.settled.max(self.own[instance].load(Ordering::SeqCst))
    }

    /// How long before a request the first purge was acknowledged that its answer knows nothing of.
    fn lateness(&self, version: u64, began: Instant) -> Duration {
        let everywhere = self.everywhere.lock().expect("nobody panics");
        let missed = everywhere.recent.iter().find(|(_, required)| *required > version);
        missed.map_or(Duration::ZERO, |(at, _)| began.saturating_duration_since(*at))
    }
}

/// Numbers as good as random.
#[derive(Clone)]
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % most
    }
}

/// Answers with the version of the content, which is read when the handler runs, sooner or later.
#[derive(Clone)]
struct Origin(Arc<Vec<Resource>>);

impl Service<Request<Full<Bytes>>> for Origin {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        let all = self.0.clone();
        Box::pin(async move {
            let user = request.headers().get("user").and_then(|user| USERS.iter().position(|name| *name == user));
            let (path, n) = (request.uri().path(), request.headers()["n"].to_str().expect("a number"));
            let mut dice = Dice(n.parse().expect("a number"));
            let resource = all.iter().find(|one| one.path == path && one.user == user).expect("it is there");
            if request.method() != Method::GET {
                resource.version.fetch_add(1, Ordering::SeqCst);
                return Ok(Response::new(Full::default()));
            }
            wait(&mut dice).await;
            let version = resource.version.load(Ordering::SeqCst);
            wait(&mut dice).await;
            let tag = format!("\"{version}\"");
            let known = request.headers().get("if-none-match").is_some_and(|known| *known == tag.as_str());
            let mut response = Response::new(if known {
                Full::default()
            } else {
                Full::from(format!("{version} {}", user.map_or("", |user| USERS[user])))
            });
            if known {
                *response.status_mut() = StatusCode::NOT_MODIFIED;
            }
            if dice.below(12) == 0 {
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            }
            let lasts =
                ["max-age=60", "max-age=60, stale-while-revalidate=60, stale-if-error=60"][resource.section % 2];
            let group = format!("\"section-{}\"", resource.section);
            for (name, value) in [("etag", tag.as_str()), ("cache-control", lasts), ("cache-groups", &group)] {
                response.headers_mut().insert(name, value.parse().expect("a value"));
            }
            Ok(response)
        })
    }
}

/// Mostly not at all, and seldom so long that a sweep comes between.
pub async fn wait(dice: &mut Dice) {
    match dice.below(40) {
        0 => tokio::time::sleep(Duration::from_millis(dice.below(30) as u64)).await,
        1..8 => tokio::task::yield_now().await,
        _ => {}
    }
}

/// One instance, as its clients and its operator see it.
#[derive(Clone)]
struct Instance {
    number: usize,
    cache: Cache<Origin>,
    handle: CacheHandle,
}

/// What came of a storm.
#[derive(Debug, Default)]
pub struct Seen {
    /// Hits of what no purge had touched.
    pub fresh: AtomicU64,
    pub stale: AtomicU64,
    pub purges: AtomicU64,
    pub purges_failed: AtomicU64,
    /// The longest time behind a purge on another instance that something was given as fresh which it had touched, in milliseconds.
    pub latest: AtomicU64,
}

/// The instances of one application, and what it has to say.
#[derive(Clone)]
pub struct World {
    all: Arc<Vec<Resource>>,
    instances: Vec<Instance>,
    is_over: Arc<AtomicBool>,
    pub seen: Arc<Seen>,
}

impl World {
    /// Two instances at most.
    pub fn new(layers: impl IntoIterator<Item = CacheLayer>) -> Self {
        let user = |head: &RequestHead<'_>| head.headers.get("user").map(|name| name.as_bytes().to_vec());
        let lasting = Policy::per(user, Duration::from_secs(60)).stale_while_revalidate(Duration::from_secs(60));
        let mut all = Vec::new();
        for (section, page) in (0..SECTIONS).flat_map(|section| (0..PAGES).map(move |page| (section, page))) {
            let of = |path: String, user| Resource { path, section, user, ..Resource::default() };
            all.push(of(format!("/all/{section}/{page}"), None));
            all.extend((0..USERS.len()).map(|user| of(format!("/me/{section}/{page}"), Some(user))));
        }
        let origin = Origin(Arc::new(all));
        let instances = layers.into_iter().enumerate().map(|(number, layer)| {
            let layer = layer.rule("^/me/", lasting.clone());
            Instance { number, cache: layer.layer(origin.clone()), handle: layer.handle() }
        });
        Self { instances: instances.collect(), all: origin.0, is_over: Arc::default(), seen: Arc::default() }
    }

    pub fn handle(&self, instance: usize) -> &CacheHandle {
        &self.instances[instance].handle
    }

    /// As many purges as that on all instances together, beside so many visitors on each.
    pub async fn storm(&self, purges: usize, visitors: usize) {
        const PURGING: usize = 3;
        let purging = self.clients(PURGING).map(|(world, instance, n)| {
            let each = purges / PURGING / self.instances.len();
            tokio::spawn(async move { world.purge(&instance, each, n).await })
        });
        let visiting = self.clients(visitors);
        let visiting =
            visiting.map(|(world, instance, n)| tokio::spawn(async move { world.visit(&instance, n).await }));
        let (purging, visiting): (Vec<_>, Vec<_>) = (purging.collect(), visiting.collect());
        for task in purging {
            task.await.expect("no purge fails");
        }
        self.is_over.store(true, Ordering::Relaxed);
        for task in visiting {
            task.await.expect("nothing comes back");
        }
    }

    /// So many for each instance, with a number of their own.
    fn clients(&self, each: usize) -> impl Iterator<Item = (Self, Instance, u64)> {
        let all = self.instances.iter().flat_map(move |instance| (0..each).map(move |n| (instance, n)));
        all.map(move |(instance, n)| (self.clone(), instance.clone(), (instance.number * each + n) as u64))
    }

    async fn purge(&self, instance: &Instance, purges: usize, n: u64) {
        let mut dice = Dice(7 + n);
        for count in 0..purges {
            self.change(instance, &mut dice).await;
            if count % 50 == 0 {
                self.write(instance, &mut dice).await;
            }
            if count % 500 == 0 {
                self.crowd(instance, count).await;
            }
            // Now and then something has the time to be a hit.
            if dice.below(20) == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn visit(&self, instance: &Instance, n: u64) {
        let mut dice = Dice(1000 + n);
        while !self.is_over.load(Ordering::Relaxed) {
            for _ in 0..2 {
                self.look(instance, &mut dice).await;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn send(&self, instance: &Instance, method: Method, resource: &Resource, dice: &mut Dice) -> Response<Bytes> {
        let mut request = Request::builder().method(method).uri(&resource.path).header("host", "larder.test");
        request = request.header("n", (dice.below(1 << 40) + 1).to_string());
        if let Some(user) = resource.user {
            request = request.header("user", USERS[user]);
        }
        let request = request.body(Full::default()).expect("a request");
        let answered = instance.cache.clone().oneshot(request).await;
        let (parts, body) = answered.expect("the handler doesn't fail").into_parts();
        Response::from_parts(parts, body.collect().await.expect("nor its content").to_bytes())
    }

    async fn look(&self, instance: &Instance, dice: &mut Dice) {
        let resource = &self.all[dice.below(self.all.len())];
        let (outdated, ended) = (resource.outdated.now(instance.number), resource.ended.now(instance.number));
        let began = Instant::now();
        let response = self.send(instance, Method::GET, resource, dice).await;
        if response.status() == StatusCode::SERVICE_UNAVAILABLE {
            return;
        }
        let (said, user) = content(response.body());
        let version: u64 = said.parse().expect("a number");
        let (path, number) = (&resource.path, instance.number);
        assert_eq!(user, resource.user.map_or("", |user| USERS[user]), "{path} is for whom it is for");
        let said = response.headers()["x-cache"].to_str().expect("text").to_owned();
        let status = &response.headers()["cache-status"];
        let what = format!("{path} is {said} in version {version} on instance {number} ({status:?})");
        assert!(version >= ended, "{what} after the hard purge for {ended}");
        if said == "STALE" {
            self.seen.stale.fetch_add(1, Ordering::Relaxed);
            return;
        }
        assert!(version >= outdated, "{what} after the purge for {outdated}");
        self.seen.fresh.fetch_add(u64::from(said == "HIT"), Ordering::Relaxed);
        let late = resource.outdated.lateness(version, began).as_millis() as u64;
        self.seen.latest.fetch_max(late, Ordering::Relaxed);
    }

    /// A change, and the purge that goes with it.
    async fn change(&self, instance: &Instance, dice: &mut Dice) {
        let one = &self.all[dice.below(self.all.len())];
        let (section, page) = (one.section, one.path.rsplit('/').next().expect("a page"));
        let n = dice.below(20);
        type Touches<'a> = Box<dyn Fn(&Resource) -> bool + Send + 'a>;
        let same_path: Touches<'_> = Box::new(|other| other.path == one.path);
        let (selector, touches): (Selector, Touches<'_>) = match dice.below(200) {
            0..70 => (Selector::Uri(one.path.clone()), same_path),
            70..120 => (Selector::Uri(format!("http://larder.test{}", one.path)), same_path),
            120..180 => (Selector::Tag(format!("section-{section}")), Box::new(|other| other.section == one.section)),
            180..184 => (
                Selector::Glob(format!("/*/{section}/{page}")),
                Box::new(|other| other.path.ends_with(&one.path[one.path.len() - 4..])),
            ),
            184..188 => {
                let pattern = format!("^/me/{section}/[0-9]$|^{n}$");
                (Selector::Regex(pattern), Box::new(|other| other.section == one.section && other.user.is_some()))
            }
            188..199 => {
                let user = one.user.unwrap_or_default();
                (Selector::Partition(USERS[user].into()), Box::new(move |other| other.user == Some(user)))
            }
            _ => (Selector::Everything, Box::new(|_| true)),
        };
        let soft = dice.below(2) == 0;
        let touched = self.all.iter().filter(|other| touches(other));
        let versions: Vec<_> = touched.map(|one| (one, one.version.fetch_add(1, Ordering::SeqCst) + 1)).collect();
        let purge = instance.handle.purge(selector);
        if let Err(error) = if soft { purge.soft().await } else { purge.await } {
            println!("a purge isn't acknowledged: {error}");
            self.seen.purges_failed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.seen.purges.fetch_add(1, Ordering::Relaxed);
        for (one, version) in versions {
            one.outdated.require(instance.number, version);
            if !soft {
                one.ended.require(instance.number, version);
            }
        }
    }

    /// So many patterns, which touch nothing, that sweeps come one after another.
    async fn crowd(&self, instance: &Instance, count: usize) {
        for n in 0..70 {
            let purged = instance.handle.purge(Selector::Glob(format!("/{count}/{n}"))).await;
            self.seen.purges_failed.fetch_add(u64::from(purged.is_err()), Ordering::Relaxed);
        }
    }

    /// The same by a write, which invalidates.
    async fn write(&self, instance: &Instance, dice: &mut Dice) {
        let one = &self.all[dice.below(self.all.len())];
        let before = one.version.load(Ordering::SeqCst);
        self.send(instance, Method::PUT, one, dice).await;
        // Its path for everybody: who is stored under it is known by no key.
        one.outdated.require(instance.number, before + 1);
        one.ended.require(instance.number, before + 1);
    }
}

/// A version, and whom it is for.
fn content(body: &Bytes) -> (&str, &str) {
    std::str::from_utf8(body).ok().and_then(|text| text.split_once(' ')).expect("a version and a user")
}
