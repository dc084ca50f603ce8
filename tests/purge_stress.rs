//! A hundred thousand purges of every kind, hard and soft, beside fills, refreshes, followers, writes and sweeps on several threads: nothing that is older than an acknowledged
//! purge comes back, and nothing is fresh that is older than a soft one. `PURGES` in the environment says how many, if not a hundred thousand.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use larder::{Cache, CacheHandle, CacheLayer, Policy, RequestHead, Selector};
use tower::{Layer, Service, ServiceExt};

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
    /// The version that the newest purge of it was made for that has returned, hard or soft.
    outdated: AtomicU64,
    /// The same of hard purges.
    ended: AtomicU64,
}

/// Numbers as good as random.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
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
            let mut response = Response::new(if known { Full::default() } else { Full::from(version.to_string()) });
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
async fn wait(dice: &mut Dice) {
    match dice.below(40) {
        0 => tokio::time::sleep(Duration::from_millis(dice.below(30) as u64)).await,
        1..8 => tokio::task::yield_now().await,
        _ => {}
    }
}

#[derive(Clone)]
struct World {
    all: Arc<Vec<Resource>>,
    cache: Cache<Origin>,
    handle: CacheHandle,
    is_over: Arc<AtomicBool>,
    fresh: Arc<AtomicU64>,
    stale: Arc<AtomicU64>,
}

impl World {
    fn new() -> Self {
        let user = |head: &RequestHead<'_>| head.headers.get("user").map(|name| name.as_bytes().to_vec());
        let lasting = Policy::per(user, Duration::from_secs(60)).stale_while_revalidate(Duration::from_secs(60));
        let layer = CacheLayer::in_memory(64 << 20).rule("^/me/", lasting);
        let mut all = Vec::new();
        for (section, page) in (0..SECTIONS).flat_map(|section| (0..PAGES).map(move |page| (section, page))) {
            let of = |path: String, user| Resource { path, section, user, ..Resource::default() };
            all.push(of(format!("/all/{section}/{page}"), None));
            all.extend((0..USERS.len()).map(|user| of(format!("/me/{section}/{page}"), Some(user))));
        }
        let origin = Origin(Arc::new(all));
        Self {
            all: origin.0.clone(),
            cache: layer.layer(origin),
            handle: layer.handle(),
            is_over: Arc::default(),
            fresh: Arc::default(),
            stale: Arc::default(),
        }
    }

    async fn send(&self, method: Method, resource: &Resource, dice: &mut Dice) -> Response<Bytes> {
        let mut request = Request::builder().method(method).uri(&resource.path).header("host", "larder.test");
        request = request.header("n", (dice.below(1 << 40) + 1).to_string());
        if let Some(user) = resource.user {
            request = request.header("user", USERS[user]);
        }
        let request = request.body(Full::default()).expect("a request");
        let (parts, body) = self.cache.clone().oneshot(request).await.expect("the handler doesn't fail").into_parts();
        Response::from_parts(parts, body.collect().await.expect("nor its content").to_bytes())
    }

    async fn visit(&self, dice: &mut Dice) {
        let resource = &self.all[dice.below(self.all.len())];
        let outdated = resource.outdated.load(Ordering::SeqCst);
        let ended = resource.ended.load(Ordering::SeqCst);
        let response = self.send(Method::GET, resource, dice).await;
        if response.status() == StatusCode::SERVICE_UNAVAILABLE {
            return;
        }
        let version: u64 = std::str::from_utf8(response.body()).expect("text").parse().expect("a number");
        let said = response.headers()["x-cache"].to_str().expect("text").to_owned();
        let path = &resource.path;
        assert!(version >= ended, "{path} is {said} in version {version} after the hard purge for {ended}");
        match said.as_str() {
            "STALE" => _ = self.stale.fetch_add(1, Ordering::Relaxed),
            _ => {
                assert!(version >= outdated, "{path} is {said} in version {version} after the purge for {outdated}");
                self.fresh.fetch_add(u64::from(said == "HIT"), Ordering::Relaxed);
            }
        }
    }

    /// A change, and the purge that goes with it.
    async fn change(&self, dice: &mut Dice) {
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
        let purge = self.handle.purge(selector);
        let purged = if soft { purge.soft().await } else { purge.await };
        purged.expect("the purge is made");
        for (one, version) in versions {
            one.outdated.fetch_max(version, Ordering::SeqCst);
            if !soft {
                one.ended.fetch_max(version, Ordering::SeqCst);
            }
        }
    }

    /// So many patterns, which touch nothing, that sweeps come one after another.
    async fn crowd(&self, count: usize) {
        for n in 0..70 {
            self.handle.purge(Selector::Glob(format!("/{count}/{n}"))).await.expect("the purge is made");
        }
    }

    /// The same by a write, which invalidates.
    async fn write(&self, dice: &mut Dice) {
        let one = &self.all[dice.below(self.all.len())];
        let before = one.version.load(Ordering::SeqCst);
        self.send(Method::PUT, one, dice).await;
        // Its path for everybody: who is stored under it is known by no key.
        one.outdated.fetch_max(before + 1, Ordering::SeqCst);
        one.ended.fetch_max(before + 1, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_thousand_purges_bring_nothing_back() {
    let purges: usize = std::env::var("PURGES").map_or(100_000, |text| text.parse().expect("a number of purges"));
    let (world, began) = (World::new(), Instant::now());
    let purging = (0..3).map(|n| {
        let world = world.clone();
        tokio::spawn(async move {
            let mut dice = Dice(7 + n as u64);
            for count in 0..purges / 3 {
                world.change(&mut dice).await;
                if count % 50 == 0 {
                    world.write(&mut dice).await;
                }
                if count % 500 == 0 {
                    world.crowd(count).await;
                }
                // Now and then something has the time to be a hit.
                if dice.below(20) == 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                tokio::task::yield_now().await;
            }
        })
    });
    let visiting = (0..4).map(|n| {
        let world = world.clone();
        tokio::spawn(async move {
            let mut dice = Dice(1000 + n);
            while !world.is_over.load(Ordering::Relaxed) {
                for _ in 0..2 {
                    world.visit(&mut dice).await;
                }
                tokio::task::yield_now().await;
            }
        })
    });
    let (purging, visiting): (Vec<_>, Vec<_>) = (purging.collect(), visiting.collect());
    for task in purging {
        task.await.expect("no purge fails");
    }
    world.is_over.store(true, Ordering::Relaxed);
    for task in visiting {
        task.await.expect("nothing comes back");
    }
    let stats = world.handle.stats();
    println!("{stats:#?} after {:?}", began.elapsed());
    let [fresh, stale] = [&world.fresh, &world.stale].map(|count| count.load(Ordering::Relaxed));
    // All of it happened, in shorter runs as well.
    assert!(fresh > 100 && stale > 100 && stats.collapsed > 0 && stats.revalidated > 0, "{fresh}, {stale}");
    assert!(stats.swept > 10 && stats.refreshes > 10);
    // What is left to be forgotten is, once nothing is in flight.
    while world.handle.stats().purges_remembered > 0 {
        assert!(began.elapsed() < Duration::from_secs(300));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
