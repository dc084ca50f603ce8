//! A client may leave at any moment: before each await of an exchange the request is dropped once, and afterwards the cache is as if
//! that client had never been there. The next one gets a whole and right answer, nothing is in flight, no byte of the budget is lost, and a shutdown has
//! nothing to wait for.

mod support;

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::BodyExt;
use larder::{Cache, CacheHandle, CacheLayer, ManualClock, Policy, ResponseBody};
use std::future::poll_fn;
use support::bodies::{Answer, Broken, CAPACITY, Content, Got, Handler, Script, answer, data, read, settle, whole};
use tower::{Layer, ServiceExt};

/// How often the handler is pending before it answers, and then once before each chunk.
const STEPS: usize = 3;

const CHUNK: usize = 10 << 10;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// What the answer is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// There at once, with its length.
    Small,
    /// In chunks that were announced, so many that it is hashed on another thread.
    Announced,
    /// In chunks that weren't.
    Chunked,
}

/// One kind of exchange, and what came before it.
#[derive(Clone, Debug)]
struct Kind {
    name: &'static str,
    shape: Shape,
    policy: Policy,
    /// `Cache-Control` of the handler.
    says: &'static str,
    /// A GET is stored first, and then this time passes.
    stored: Option<u64>,
    /// Then the content changes.
    changed: bool,
    method: &'static str,
    fields: &'static [(&'static str, &'static str)],
    /// What the handler does from the second request on.
    then: Then,
    /// Whether later requests are answered from the store, if the handler does nothing out of the way.
    kept: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Answers,
    Fails,
    /// Takes this many seconds.
    Takes(u64),
}

impl Kind {
    const fn named(name: &'static str, policy: Policy) -> Self {
        Self {
            name,
            shape: Shape::Small,
            policy,
            says: "max-age=10",
            stored: None,
            changed: false,
            method: "GET",
            fields: &[],
            then: Then::Answers,
            kept: true,
        }
    }

    fn all() -> Vec<Self> {
        let origin = Policy::from_origin;
        let named = |name| Self::named(name, origin());
        let (shared, window) = (Policy::shared(secs(10)), "max-age=10, stale-while-revalidate=60, stale-if-error=60");
        vec![
            named("a miss"),
            Self { shape: Shape::Announced, ..named("a miss that streams") },
            Self { shape: Shape::Chunked, ..named("a miss without a length") },
            Self { stored: Some(0), ..named("a hit") },
            Self { stored: Some(20), ..named("a validation that confirms") },
            Self { stored: Some(20), changed: true, ..named("a validation that brings new content") },
            Self { stored: Some(20), changed: true, shape: Shape::Chunked, ..named("new content in chunks") },
            Self { stored: Some(20), says: window, ..named("stale while revalidating") },
            Self { stored: Some(20), says: window, changed: true, ..named("stale while there is new content") },
            Self {
                stored: Some(200),
                says: "max-age=10, stale-if-error=600",
                then: Then::Fails,
                ..named("stale for an error")
            },
            Self {
                stored: Some(200),
                says: "max-age=10, stale-if-error=600",
                then: Then::Takes(5),
                ..Self::named("stale since the handler takes too long", origin().fill_timeout(secs(2)))
            },
            Self {
                stored: Some(5),
                then: Then::Takes(5),
                ..Self::named("the handler first, within a time", shared.clone().network_first(secs(2)))
            },
            Self { method: "HEAD", kept: false, ..named("a HEAD") },
            Self { method: "HEAD", stored: Some(20), ..named("a HEAD that confirms") },
            Self { method: "HEAD", stored: Some(20), changed: true, kept: false, ..named("a HEAD that contradicts") },
            Self { fields: &[("range", "bytes=5-25")], ..Self::named("a range of a miss", shared.clone()) },
            Self {
                fields: &[("range", "bytes=5-25")],
                shape: Shape::Announced,
                ..Self::named("a range of what streams", shared.clone())
            },
            Self {
                fields: &[("range", "bytes=5-25")],
                shape: Shape::Announced,
                says: "no-store",
                kept: false,
                ..named("a range of what isn't stored")
            },
            Self { fields: &[("if-none-match", "\"v0\"")], ..Self::named("a condition that misses", shared.clone()) },
            Self {
                fields: &[("if-none-match", "\"v0\"")],
                shape: Shape::Announced,
                ..Self::named("a condition about what streams", shared)
            },
            Self { method: "PUT", stored: Some(0), kept: false, ..named("a write") },
            Self { says: "no-store", kept: false, ..named("what isn't stored") },
            Self { kept: false, ..Self::named("a bypass", Policy::bypass()) },
            Self { method: "QUERY", kept: false, ..named("a QUERY") },
            Self { method: "QUERY", shape: Shape::Announced, kept: false, ..named("a QUERY that streams") },
        ]
    }

    /// The content of a version.
    fn content(&self, version: usize) -> Bytes {
        let times = if self.shape == Shape::Small { 2 } else { 6 << 10 };
        format!("version {version}, ").repeat(times).into()
    }

    fn handler(&self, version: Arc<AtomicUsize>) -> Handler {
        let kind = Arc::new(self.clone());
        Handler::waiting(move |number, request| {
            let (kind, version) = (kind.clone(), version.clone());
            async move {
                steps().await;
                if request.method == "PUT" {
                    version.fetch_add(1, Ordering::Relaxed);
                    steps().await;
                    return Ok(answer(&[], whole("")));
                }
                match kind.then {
                    Then::Fails if number == 2 => return Err(Broken("as told")),
                    Then::Takes(seconds) if number == 2 => tokio::time::sleep(secs(seconds)).await,
                    _ => {}
                }
                kind.answer(version.load(Ordering::Relaxed), &request)
            }
        })
    }

    fn answer(&self, version: usize, request: &http::request::Parts) -> Answer {
        let (tag, content) = (format!("\"v{version}\""), self.content(version));
        let fields = [("cache-control", self.says), ("etag", tag.as_str())];
        if request.headers.get("if-none-match").is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
            let mut confirmed = answer(&fields, whole(""));
            *confirmed.status_mut() = StatusCode::NOT_MODIFIED;
            return Ok(confirmed);
        }
        let length = content.len().to_string();
        let announced = [fields[0], fields[1], ("content-length", length.as_str())];
        let chunks = (0..content.len()).step_by(CHUNK).map(|at| {
            let to = content.len().min(at + CHUNK);
            data(content.slice(at..to))
        });
        let is_head = request.method == "HEAD";
        Ok(match self.shape {
            _ if is_head && self.shape != Shape::Chunked => answer(&announced, whole("")),
            Shape::Small => answer(&fields, whole(content.clone())),
            Shape::Announced => answer(&announced, Script::new(chunks).paced(true).boxed_unsync()),
            Shape::Chunked => answer(&fields, Script::new(chunks).paced(true).boxed_unsync()),
        })
    }

    fn request(&self) -> Request<Content> {
        let mut request = get();
        *request.method_mut() = self.method.parse().expect("a method");
        for (name, value) in self.fields {
            request.headers_mut().insert(*name, value.parse().expect("a value"));
        }
        if self.method == "QUERY" {
            *request.body_mut() = Script::new([data("what "), data("is asked")]).paced(true).boxed_unsync();
            request.headers_mut().insert("content-type", "text/plain".parse().expect("a value"));
        }
        request
    }
}

fn get() -> Request<Content> {
    support::bodies::get("/").map(|_| whole(""))
}

/// Pending a few times, as a handler is that asks others.
async fn steps() {
    for _ in 0..STEPS {
        tokio::task::yield_now().await;
    }
}

struct House {
    service: Cache<Handler>,
    handle: CacheHandle,
    version: Arc<AtomicUsize>,
    clock: Arc<ManualClock>,
}

impl House {
    /// The cache as it is before the exchange.
    async fn before(kind: &Kind) -> Self {
        let (version, clock) = (Arc::<AtomicUsize>::default(), Arc::new(ManualClock::default()));
        let layer = CacheLayer::in_memory(CAPACITY).clock(clock.clone()).otherwise(kind.policy.clone());
        let layer = layer.cache_query_method::<Content>(|body| body.boxed_unsync());
        let house =
            Self { service: layer.layer(kind.handler(version.clone())), handle: layer.handle(), version, clock };
        if let Some(seconds) = kind.stored {
            house.whole(kind).await;
            house.at_rest(kind.name).await;
            house.clock.advance(secs(seconds));
        }
        if kind.changed {
            house.version.fetch_add(1, Ordering::Relaxed);
        }
        house
    }

    fn send(&self, request: Request<Content>) -> impl Future<Output = Result<Response<ResponseBody<Content>>, Broken>> {
        self.service.clone().oneshot(request)
    }

    /// A GET to its end, which is the content of a version.
    async fn whole(&self, kind: &Kind) -> (usize, Got) {
        let got = read(self.send(get()).await.expect("the handler answers")).await;
        let newest = self.version.load(Ordering::Relaxed);
        let version = (0..=newest).find(|version| got.content == kind.content(*version));
        assert_eq!((got.status.as_u16(), &got.end), (200, &Ok(())), "{}", kind.name);
        (version.unwrap_or_else(|| panic!("{}: {} bytes of no version", kind.name, got.content.len())), got)
    }

    /// Waits until nothing is in flight, which it has to be without anybody's help.
    async fn at_rest(&self, what: &str) {
        let mut last = self.handle.stats();
        for _ in 0..1000 {
            settle().await;
            last = self.handle.stats();
            if (last.fills_in_flight, last.fill_bytes) == (0, 0) {
                return;
            }
            // What hashes is on a thread of its own; what waits is woken by the paused clock.
            tokio::time::sleep(secs(1)).await;
        }
        panic!("{what}: {} fills in flight, {} bytes", last.fills_in_flight, last.fill_bytes);
    }
}

/// Polls `work` until it is done or all `polls` are used up; tasks of the cache run meanwhile. `None`: dropped unfinished.
async fn poll_up_to<T>(work: impl Future<Output = T>, polls: &mut usize, gap: Gap) -> Option<T> {
    let mut work = pin!(work);
    while *polls > 0 {
        *polls -= 1;
        if let Poll::Ready(done) = poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await {
            return Some(done);
        }
        match gap {
            Gap::None => {}
            Gap::Tasks => tokio::task::yield_now().await,
            Gap::Time => tokio::time::sleep(Duration::from_millis(500)).await,
        }
    }
    None
}

/// What happens between two polls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gap {
    None,
    /// The tasks of the cache run.
    Tasks,
    /// Half a second passes, and whatever can happen in it does.
    Time,
}

/// The exchange up to so many polls, for head and content together; whether it came to its end.
async fn leave_after(house: &House, kind: &Kind, mut polls: usize, gap: Gap) -> bool {
    let Some(response) = poll_up_to(house.send(kind.request()), &mut polls, gap).await else { return false };
    let mut body = match response {
        Ok(response) => response.into_body(),
        Err(error) => panic!("{}: {error}", kind.name),
    };
    loop {
        if body.is_end_stream() {
            return true;
        }
        let frame = poll_up_to(poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)), &mut polls, gap).await;
        match frame {
            None => return false,
            Some(None) => return true,
            Some(Some(frame)) => _ = frame.unwrap_or_else(|error| panic!("{}: {error}", kind.name)),
        }
    }
}

/// What has to hold after a client of this kind has left.
async fn check_after(house: House, kind: &Kind, what: &str) {
    let newest = house.version.load(Ordering::Relaxed);
    let behind = kind.says.contains("stale") || kind.then != Then::Answers;
    house.at_rest(what).await;
    let (version, _) = house.whole(kind).await;
    // A write that was made is seen, whether or not its client stayed.
    assert!(version == newest || behind, "{what}: version {version} of {newest}");
    house.at_rest(what).await;
    let (again, got) = house.whole(kind).await;
    assert_eq!(again, newest, "{what}: by now the newest version is there");
    assert!(got.x_cache == "HIT" || !kind.kept || kind.then != Then::Answers, "{what}: {}", got.x_cache);
    house.at_rest(what).await;
    if kind.says.contains("while-revalidate") {
        // Whoever left while it was refreshed hasn't kept others from refreshing it.
        house.clock.advance(secs(20));
        house.version.fetch_add(1, Ordering::Relaxed);
        house.whole(kind).await;
        house.at_rest(what).await;
        assert_eq!(house.whole(kind).await.0, newest + 1, "{what}: it was refreshed");
        house.at_rest(what).await;
    }
    ends(&house, what).await;
}

/// A shutdown leaves nothing behind.
async fn ends(house: &House, what: &str) {
    assert!(house.handle.shutdown(secs(60)).await, "{what}: a shutdown has an end");
    let (stats, tasks) = (house.handle.stats(), tokio::runtime::Handle::current().metrics().num_alive_tasks());
    assert_eq!((stats.fills_in_flight, stats.fill_bytes, tasks), (0, 0, 0), "{what}");
}

/// More polls than any exchange here takes.
const MOST: usize = 100;

async fn a_client_may_leave_at_any_moment(gap: Gap) {
    for kind in Kind::all() {
        if gap != Gap::Time && matches!(kind.then, Then::Takes(_)) {
            continue;
        }
        let mut ended = None;
        for polls in 0..MOST {
            let what = format!("{}, left after {polls} polls ({gap:?})", kind.name);
            let house = House::before(&kind).await;
            leave_after(&house, &kind, polls, gap).await;
            // At once, while the cache may still be at work.
            ends(&house, &what).await;
            let house = House::before(&kind).await;
            let whole = leave_after(&house, &kind, polls, gap).await;
            check_after(house, &kind, &what).await;
            if whole {
                ended = Some(polls);
                break;
            }
        }
        let ended = ended.unwrap_or_else(|| panic!("{} ends within {MOST} polls", kind.name));
        let least = if kind.stored.is_some() && ended < STEPS { 1 } else { STEPS + 1 };
        assert!(ended >= least, "{}: {ended} polls, so the client could leave in between", kind.name);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_may_leave_before_any_await() {
    a_client_may_leave_at_any_moment(Gap::None).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_may_leave_while_tasks_of_the_cache_run() {
    a_client_may_leave_at_any_moment(Gap::Tasks).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_may_leave_while_time_passes() {
    a_client_may_leave_at_any_moment(Gap::Time).await;
}
