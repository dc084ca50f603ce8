//! Whatever happens in whatever order: clients that ask, wait, read and leave, a handler that answers when it is told, content that changes,
//! writes, purges, time that passes. After each step a model of what is allowed has its say:
//!
//! - Nothing is older than a purge or a write that had ended when the client asked.
//! - Nothing is staler than its terms allow, unless it was on its way already.
//! - What is for one client is given to no other, and what is of one key to no other key.
//! - A clean end is the end of the whole content.
//! - Whoever waits gets an answer once the handler has given its own, and then nothing is left in flight.
//!
//! The model says what may be answered, and not how often the handler is asked.

mod support;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::request::Parts;
use http::{HeaderMap, Response, StatusCode};
use http_body::Body;
use http_body_util::Empty;
use larder::{
    Cache, CacheHandle, CacheLayer, DeclineReason, ManualClock, Policy, RequestHead, ResponseBody, ResponseFuture,
    Selector, Stats,
};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use support::bodies::{Answer, Broken, CAPACITY, Content, Handler, Step, answer, data, fed, field, settle, whole};
use tokio::sync::{mpsc, oneshot};
use tower::{Layer, Service};

/// What is stored apart: two resources for everybody, and one that two users have each for themselves.
const SLOTS: [(&str, &str); 4] = [("/a", "none"), ("/b", "none"), ("/me", "ann"), ("/me", "bob")];

const MAX_AGE: u64 = 10;
const WINDOW: u64 = 15;

/// What the handler says about a version of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Terms {
    Fresh,
    /// May be served stale while it is revalidated.
    Revalidate,
    /// May be served stale if the handler fails.
    Error,
    NoStore,
}

impl Terms {
    fn field(self) -> String {
        match self {
            Self::Fresh => format!("max-age={MAX_AGE}"),
            Self::Revalidate => format!("max-age={MAX_AGE}, stale-while-revalidate={WINDOW}"),
            Self::Error => format!("max-age={MAX_AGE}, stale-if-error={WINDOW}"),
            Self::NoStore => "no-store".to_owned(),
        }
    }

    /// For how many seconds it may be served from the store.
    fn longest(self, stale: bool) -> u64 {
        match self {
            Self::NoStore => 0,
            Self::Revalidate | Self::Error if stale => MAX_AGE + WINDOW,
            _ => MAX_AGE,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Well,
    /// Answers 503.
    Unavailable,
    /// Fails without an answer.
    Broken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Get,
    Head,
    /// A GET for whoever doesn't have the newest version yet.
    Conditional,
    /// A GET for the first bytes.
    Range,
    /// Makes a new version.
    Put(Terms),
}

#[derive(Clone, Debug)]
enum Op {
    Ask {
        slot: usize,
        method: Method,
    },
    /// A client goes on: its head, or a frame of its content.
    Poll(prop::sample::Index),
    Leave(prop::sample::Index),
    /// The handler answers a call.
    Answer(prop::sample::Index),
    /// The handler sends a chunk.
    Feed(prop::sample::Index),
    /// The handler's content breaks off.
    Break(prop::sample::Index),
    /// There is new content, and nobody says so.
    Change {
        slot: usize,
        terms: Terms,
    },
    Health {
        slot: usize,
        health: Health,
    },
    /// A purge, mostly of what has new content.
    Purge {
        purge: Purge,
        new: Option<Terms>,
    },
    Pass {
        seconds: u64,
    },
    /// Tasks of the cache run.
    Tasks,
    /// All that was asked is answered and read for a while, as it is most of the time.
    Flow {
        rounds: usize,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purge {
    Path(usize),
    Uri(usize),
    Glob(usize),
    Regex(usize),
    User(usize),
    Everything,
}

fn terms() -> impl Strategy<Value = Terms> {
    prop_oneof![4 => Just(Terms::Fresh), 2 => Just(Terms::Revalidate), 2 => Just(Terms::Error), 1 => Just(Terms::NoStore)]
}

fn op() -> impl Strategy<Value = Op> {
    let slot = || prop_oneof![4 => Just(0), 1 => Just(1), 2 => Just(2), 1 => Just(3)];
    let method = prop_oneof![
        8 => Just(Method::Get), 1 => Just(Method::Head), 1 => Just(Method::Conditional), 1 => Just(Method::Range),
        2 => terms().prop_map(Method::Put)
    ];
    let health = prop_oneof![2 => Just(Health::Well), 1 => Just(Health::Unavailable), 1 => Just(Health::Broken)];
    let purge = prop_oneof![
        slot().prop_map(Purge::Path),
        slot().prop_map(Purge::Uri),
        slot().prop_map(Purge::Glob),
        slot().prop_map(Purge::Regex),
        (2..4_usize).prop_map(Purge::User),
        Just(Purge::Everything)
    ];
    let any = any::<prop::sample::Index>;
    prop_oneof![
        8 => (slot(), method).prop_map(|(slot, method)| Op::Ask { slot, method }),
        10 => any().prop_map(Op::Poll),
        1 => any().prop_map(Op::Leave),
        6 => any().prop_map(Op::Answer),
        6 => any().prop_map(Op::Feed),
        1 => any().prop_map(Op::Break),
        2 => (slot(), terms()).prop_map(|(slot, terms)| Op::Change { slot, terms }),
        1 => (slot(), health).prop_map(|(slot, health)| Op::Health { slot, health }),
        2 => (purge, prop::option::weighted(0.8, terms())).prop_map(|(purge, new)| Op::Purge { purge, new }),
        3 => (1..15_u64).prop_map(|seconds| Op::Pass { seconds }),
        3 => Just(Op::Tasks),
        5 => (1..8_usize).prop_map(|rounds| Op::Flow { rounds }),
    ]
}

// The handler

/// A call of the handler, as it is seen from outside.
struct Call {
    slot: usize,
    /// Of the content when the handler was asked; none, of a write.
    version: usize,
    gate: Option<oneshot::Sender<()>>,
    feed: Option<mpsc::UnboundedSender<Step>>,
    /// What is left of its content; `None` before it has answered.
    chunks: Option<VecDeque<Step>>,
}

impl Call {
    /// Whether anybody waits for the answer or for more of it.
    fn is_in_flight(&self) -> bool {
        let waiting = self.gate.as_ref().is_some_and(|gate| !gate.is_closed());
        waiting || self.feed.as_ref().is_some_and(|feed| !feed.is_closed())
    }

    fn feed(&mut self) {
        let Some(chunks) = &mut self.chunks else { return };
        match (chunks.pop_front(), &self.feed) {
            (Some(chunk), Some(feed)) => _ = feed.send(chunk),
            _ => self.feed = None,
        }
    }
}

/// What the handler has, and how it is.
struct Origin {
    /// The terms of each version, and when the next one came.
    versions: [Vec<(Terms, Option<u64>)>; 4],
    health: [Health; 4],
    calls: Vec<Call>,
    now: u64,
}

impl Origin {
    fn newest(&self, slot: usize) -> usize {
        self.versions[slot].len() - 1
    }

    fn change(&mut self, slot: usize, terms: Terms) {
        let now = self.now;
        if let Some((_, until)) = self.versions[slot].last_mut() {
            *until = Some(now);
        }
        self.versions[slot].push((terms, None));
    }

    /// The slots that a write or a purge of a path touches.
    fn beside(slot: usize) -> impl Iterator<Item = usize> {
        (0..SLOTS.len()).filter(move |other| SLOTS[*other].0 == SLOTS[slot].0)
    }
}

/// What a version consists of; `client` only where it is for one client alone.
fn content(slot: usize, version: usize, terms: Terms, client: usize) -> String {
    let client = if terms == Terms::NoStore { client.to_string() } else { "all".to_owned() };
    format!("slot {slot}, version {version}, for {client}: {}", "content ".repeat(1 + version % 4))
}

fn handler(origin: Arc<Mutex<Origin>>) -> Handler {
    Handler::waiting(move |_, request| {
        let (origin, (gate, told), (feed, body)) = (origin.clone(), oneshot::channel(), fed());
        let user = field(&request.headers, "user").expect("each request has one").to_owned();
        let slot = SLOTS.iter().position(|slot| *slot == (request.uri.path(), user.as_str())).expect("a slot");
        let number = {
            let mut origin = origin.lock().expect("no holder panics");
            let version = if request.method == "PUT" { usize::MAX } else { origin.newest(slot) };
            origin.calls.push(Call { slot, version, gate: Some(gate), feed: Some(feed), chunks: None });
            origin.calls.len() - 1
        };
        async move {
            let _ = told.await;
            let answer = respond(&mut origin.lock().expect("no holder panics"), number, &request, body);
            if request.method == "PUT" {
                // What was written is there already, and its client may leave without having heard of it.
                tokio::task::yield_now().await;
            }
            answer
        }
    })
}

/// The handler's answer, of the version that was newest when it was asked.
fn respond(origin: &mut Origin, number: usize, request: &Parts, body: Content) -> Answer {
    let (slot, version) = (origin.calls[number].slot, origin.calls[number].version);
    let health = origin.health[slot];
    if health != Health::Well {
        origin.calls[number].feed = None;
        let mut unavailable = answer(&[], whole("unavailable"));
        *unavailable.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        return if health == Health::Broken { Err(Broken("as told")) } else { Ok(unavailable) };
    }
    if request.method == "PUT" {
        let terms = request.extensions.get::<Terms>().copied().unwrap_or(Terms::Fresh);
        Origin::beside(slot).for_each(|slot| origin.change(slot, terms));
        origin.calls[number].feed = None;
        return Ok(answer(&[], whole("")));
    }
    let client = field(&request.headers, "client").and_then(|client| client.parse().ok()).expect("a number");
    let (terms, _) = origin.versions[slot][version];
    let (text, tag) = (content(slot, version, terms, client), format!("\"{slot}-{version}\""));
    let (says, length) = (terms.field(), text.len().to_string());
    let mut fields = vec![("cache-control", says.as_str()), ("etag", tag.as_str())];
    if field(&request.headers, "if-none-match") == Some(&tag) {
        origin.calls[number].feed = None;
        let mut confirmed = answer(&fields, whole(""));
        *confirmed.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(confirmed);
    }
    // Some contents are announced, others are not.
    if version.is_multiple_of(2) {
        fields.push(("content-length", length.as_str()));
    }
    if request.method == "HEAD" {
        origin.calls[number].feed = None;
        return Ok(answer(&fields, whole("")));
    }
    origin.calls[number].chunks =
        Some(text.into_bytes().chunks(24).map(|chunk| data(Bytes::copy_from_slice(chunk))).collect());
    Ok(answer(&fields, body))
}

// The clients, and the model of what they may be given

type Future = ResponseFuture<Content, Broken>;

enum Stage {
    Waiting(Pin<Box<Future>>),
    Reading { status: StatusCode, headers: HeaderMap, body: Pin<Box<ResponseBody<Content>>>, read: Vec<u8> },
    Over,
}

struct Client {
    number: usize,
    slot: usize,
    method: Method,
    asked: u64,
    /// The oldest version that it may be given: what was newest at the last purge or write that had ended when it asked.
    oldest: usize,
    /// Versions that were on their way when it asked.
    coming: Vec<usize>,
    stage: Stage,
}

struct World {
    cache: Cache<Handler>,
    handle: CacheHandle,
    clock: Arc<ManualClock>,
    origin: Arc<Mutex<Origin>>,
    clients: Vec<Client>,
    /// The oldest version of each slot that whoever asks now may be given.
    oldest: [usize; 4],
    asked: usize,
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::default());
        let user = |head: &RequestHead<'_>| head.headers.get("user").map(|user| user.as_bytes().to_vec());
        let layer = CacheLayer::in_memory(CAPACITY).clock(clock.clone());
        let layer = layer.rule("^/me", Policy::per(user, Duration::from_secs(MAX_AGE)));
        let versions =
            [Terms::Revalidate, Terms::Error, Terms::Fresh, Terms::Revalidate].map(|terms| vec![(terms, None)]);
        let origin = Origin { versions, health: [Health::Well; 4], calls: Vec::new(), now: 0 };
        let origin = Arc::new(Mutex::new(origin));
        let cache = layer.layer(handler(origin.clone()));
        Self { cache, handle: layer.handle(), clock, origin, clients: Vec::new(), oldest: [0; 4], asked: 0 }
    }

    fn origin(&self) -> std::sync::MutexGuard<'_, Origin> {
        self.origin.lock().expect("no holder panics")
    }

    fn ask(&mut self, slot: usize, method: Method) {
        let (path, user) = SLOTS[slot];
        let number = self.asked;
        self.asked += 1;
        let newest = self.origin().newest(slot);
        let name = match method {
            Method::Head => "HEAD",
            Method::Put(_) => "PUT",
            _ => "GET",
        };
        let mut request = http::Request::builder().method(name).uri(path).header("host", "larder.test");
        request = request.header("user", user).header("client", number.to_string());
        match method {
            Method::Conditional => request = request.header("if-none-match", format!("\"{slot}-{newest}\"")),
            Method::Range => request = request.header("range", "bytes=0-5"),
            Method::Put(terms) => request = request.extension(terms),
            _ => {}
        }
        let coming = {
            let origin = self.origin();
            let here = origin.calls.iter().filter(|call| call.slot == slot && call.is_in_flight());
            here.map(|call| call.version).collect()
        };
        let (asked, oldest) = (self.origin().now, self.oldest[slot]);
        let future = self.cache.call(request.body(Empty::<Bytes>::new()).expect("a request"));
        let stage = Stage::Waiting(Box::pin(future));
        self.clients.push(Client { number, slot, method, asked, oldest, coming, stage });
    }

    /// A purge or a write of these slots has ended: from now on nothing is allowed that is older than what is newest now.
    fn invalidated(&mut self, slots: impl IntoIterator<Item = usize>) {
        for slot in slots {
            let newest = self.origin().newest(slot);
            self.oldest[slot] = newest;
        }
    }

    fn purge(&mut self, purge: Purge, new: Option<Terms>) {
        let touched: Vec<usize> = match purge {
            Purge::Path(slot) | Purge::Uri(slot) | Purge::Glob(slot) | Purge::Regex(slot) => {
                Origin::beside(slot).collect()
            }
            Purge::User(slot) => vec![slot],
            Purge::Everything => (0..SLOTS.len()).collect(),
        };
        if let Some(terms) = new {
            touched.iter().for_each(|slot| self.origin().change(*slot, terms));
        }
        let selector = match purge {
            Purge::Path(slot) => Selector::Uri(SLOTS[slot].0.into()),
            Purge::Uri(slot) => Selector::Uri(format!("http://larder.test{}", SLOTS[slot].0)),
            Purge::Glob(slot) => Selector::Glob(format!("{}*", SLOTS[slot].0)),
            Purge::Regex(slot) => Selector::Regex(format!("^{}$", SLOTS[slot].0)),
            Purge::User(slot) => Selector::Partition(SLOTS[slot].1.into()),
            Purge::Everything => Selector::Everything,
        };
        let purged = self.handle.purge(selector).into_future().now_or_never().expect("the store is in memory");
        purged.expect("nothing fails");
        self.invalidated(touched);
    }

    /// A client goes on by one poll.
    async fn poll(&mut self, at: usize) {
        let mut client = self.clients.swap_remove(at);
        match &mut client.stage {
            Stage::Waiting(future) => match poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await {
                Poll::Pending => {}
                Poll::Ready(answered) => self.answered(&mut client, answered),
            },
            Stage::Reading { body, .. } => match poll_fn(|cx| Poll::Ready(body.as_mut().poll_frame(cx))).await {
                Poll::Pending => {}
                Poll::Ready(frame) => self.arrived(&mut client, frame),
            },
            Stage::Over => {}
        }
        if !matches!(client.stage, Stage::Over) {
            self.clients.push(client);
        }
    }

    /// A head, or an error in its place.
    fn answered(&mut self, client: &mut Client, answered: Result<Response<ResponseBody<Content>>, Broken>) {
        if matches!(client.method, Method::Put(_)) {
            // A write that failed may have happened all the same; 503 says that it has not.
            if !answered.is_ok_and(|response| response.status() == 503) {
                self.invalidated(Origin::beside(client.slot));
            }
            return client.stage = Stage::Over;
        }
        let Ok(response) = answered else { return client.stage = Stage::Over };
        let (head, body) = response.into_parts();
        if head.status == StatusCode::SERVICE_UNAVAILABLE {
            return client.stage = Stage::Over;
        }
        self.check_head(client, &head.headers);
        client.stage =
            Stage::Reading { status: head.status, headers: head.headers, body: Box::pin(body), read: Vec::new() };
    }

    /// Whether this client may be given what the head speaks of.
    fn check_head(&self, client: &Client, headers: &HeaderMap) {
        let (slot, version) = version(headers);
        let (origin, x_cache) = (self.origin(), field(headers, "x-cache").unwrap_or_default());
        let (terms, until) = origin.versions[slot][version];
        let what = format!("client {} was given {x_cache} version {version} of slot {slot}", client.number);
        assert_eq!(slot, client.slot, "{what}: of another key");
        assert!(version >= client.oldest, "{what}: purged before it asked; {} is the oldest", client.oldest);
        let longest = terms.longest(x_cache == "STALE");
        let recent = until.is_none_or(|until| until + longest >= client.asked);
        assert!(
            recent || client.coming.contains(&version),
            "{what}: it ended at {until:?}, and {} asked then",
            client.asked
        );
    }

    /// A frame, an error or the end.
    fn arrived(&mut self, client: &mut Client, frame: Option<Result<http_body::Frame<Bytes>, impl std::fmt::Debug>>) {
        let Stage::Reading { status, headers, read, .. } = &mut client.stage else { return };
        match frame {
            Some(Ok(frame)) => return read.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new())),
            Some(Err(_)) => {}
            None => {
                let (slot, version) = version(headers);
                let (terms, _) = self.origin().versions[slot][version];
                let whole = content(slot, version, terms, client.number);
                let expected = match status.as_u16() {
                    200 if client.method == Method::Head => "",
                    200 => &whole,
                    206 => &whole[..6],
                    304 => "",
                    other => panic!("{other} was not to be expected"),
                };
                assert_eq!(String::from_utf8_lossy(read), expected, "client {}, {status}", client.number);
            }
        }
        client.stage = Stage::Over;
    }

    fn leave(&mut self, at: usize) {
        let client = self.clients.swap_remove(at);
        let called = matches!(client.method, Method::Put(_)) && self.was_called(&client);
        drop(client.stage);
        if called {
            self.invalidated(Origin::beside(client.slot));
        }
    }

    /// Nobody knows whether a write happened whose client left. Only after the handler was called there is something to know.
    fn was_called(&self, client: &Client) -> bool {
        self.cache.inner().heads().iter().any(|head| field(head, "client") == Some(&client.number.to_string()))
    }

    async fn step(&mut self, op: &Op) {
        let count = self.clients.len();
        let calls = self.origin().calls.len();
        match op {
            Op::Ask { slot, method } => self.ask(*slot, *method),
            Op::Poll(client) if count > 0 => self.poll(client.index(count)).await,
            Op::Leave(client) if count > 0 => self.leave(client.index(count)),
            Op::Answer(call) if calls > 0 => drop(self.origin().calls[call.index(calls)].gate.take()),
            Op::Feed(call) if calls > 0 => self.origin().calls[call.index(calls)].feed(),
            Op::Break(call) if calls > 0 => {
                let call = &mut self.origin().calls[call.index(calls)];
                if call.chunks.as_ref().is_some_and(|chunks| !chunks.is_empty())
                    && let Some(feed) = call.feed.take()
                {
                    let _ = feed.send(Err(Broken("as told")));
                }
            }
            Op::Change { slot, terms } => self.origin().change(*slot, *terms),
            Op::Health { slot, health } => self.origin().health[*slot] = *health,
            Op::Purge { purge, new } => self.purge(*purge, *new),
            Op::Pass { seconds } => {
                self.clock.advance(Duration::from_secs(*seconds));
                self.origin().now += seconds;
            }
            Op::Tasks => settle().await,
            Op::Flow { rounds } => {
                for _ in 0..*rounds {
                    self.flow().await;
                }
            }
            _ => {}
        }
    }

    /// The handler answers all that it was asked, or sends one chunk more; every client goes on by one poll, and the cache by its tasks.
    async fn flow(&mut self) {
        for call in &mut self.origin().calls {
            call.gate = None;
            call.feed();
        }
        for at in (0..self.clients.len()).rev() {
            self.poll(at).await;
        }
        settle().await;
    }

    /// The handler answers all it was asked, and every client reads to its end.
    async fn end(mut self) -> Stats {
        let slots = 0..SLOTS.len();
        slots.for_each(|slot| self.ask(slot, Method::Get));
        for round in 0.. {
            assert!(round < 1000, "{} clients wait for ever", self.clients.len());
            self.flow().await;
            let stats = self.handle.stats();
            if self.clients.is_empty() && (stats.fills_in_flight, stats.fill_bytes) == (0, 0) {
                break;
            }
        }
        assert!(self.handle.shutdown(Duration::from_secs(1)).await);
        self.handle.stats()
    }
}

/// Of which slot and version a head speaks.
fn version(headers: &HeaderMap) -> (usize, usize) {
    let tag = field(headers, "etag").expect("all content has a tag").trim_matches('"');
    let (slot, version) = tag.split_once('-').expect("of two numbers");
    (slot.parse().expect("a number"), version.parse().expect("a number"))
}

fn run(ops: &[Op]) -> Stats {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let mut world = World::new();
        for op in ops {
            world.step(op).await;
        }
        world.end().await
    })
}

#[test]
fn only_what_is_allowed_is_answered() {
    let config = ProptestConfig { failure_persistence: None, max_shrink_iters: 20_000, ..ProptestConfig::default() };
    let (cases, all) = (config.cases, Mutex::new(Vec::new()));
    let ran = TestRunner::new(config).run(&prop::collection::vec(op(), 1..80), |ops| {
        all.lock().expect("no holder panics").push(run(&ops));
        Ok(())
    });
    ran.unwrap_or_else(|failure| panic!("{failure}"));
    let all = all.into_inner().expect("no holder panics");
    // What never happened has not been tried.
    let declined = |reason| move |stats: &Stats| stats.declined_for(reason);
    type Count<'a> = &'a dyn Fn(&Stats) -> u64;
    let rows: [(&str, Count); 11] = [
        ("hits", &|stats| stats.hits),
        ("stale answers", &|stats| stats.stale),
        ("confirmations", &|stats| stats.revalidated),
        ("misses", &|stats| stats.misses),
        ("writes", &|stats| stats.bypassed),
        ("refreshes", &|stats| stats.refreshes),
        ("purges", &|stats| stats.purges),
        ("what a purge sealed", &declined(DeclineReason::Purged)),
        ("what broke off, or whose client left", &declined(DeclineReason::Incomplete)),
        ("what may not be stored", &declined(DeclineReason::NoStore)),
        ("what was stored", &|stats| stats.stored),
    ];
    for (what, count) in rows {
        let count: u64 = all.iter().map(count).sum();
        println!("{what}: {count}");
        assert!(count > 0 || cases < 100, "{what} never occurred in {cases} cases");
    }
}
