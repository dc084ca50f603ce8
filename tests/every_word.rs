//! Every value of the enums that say what was done has a row here that produces it, and the same word in each place where it is told: in a field of the
//! answer, in the metrics, in a span or an event, and in the explanation that is given of the request before it is made or afterwards.
//!
//! A new place is one more line in [`PLACES`]; a new word fails until it has a row.

mod support;

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::request::Parts;
use http::{HeaderMap, HeaderName, Request, StatusCode};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{Full, StreamBody};
use larder::metrics::Publisher;
use larder::{
    Became, BypassReason, CacheLayer, Cached, DeclineReason, Explanation, ForwardReason, Outcome, Policy, QueryBody,
    Selector, StaleReason, Strategy,
};
use metrics_exporter_prometheus::PrometheusBuilder;
use support::depot::Depot;
use support::exchange::*;
use support::shared_log::{Line, Server};
use support::traces::Traces;
use tokio::sync::Semaphore;
use tower::{Layer, ServiceExt};

/// A word, in one of the roles in which it is said.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Word {
    Outcome(Outcome),
    /// As the reason of whatever outcome it comes with.
    Forward(ForwardReason),
    Decline(DeclineReason),
}

impl Word {
    fn text(self) -> &'static str {
        match self {
            Self::Outcome(outcome) => outcome.reason().unwrap_or(outcome.kind()),
            Self::Forward(reason) => reason.as_str(),
            Self::Decline(reason) => reason.as_str(),
        }
    }
}

/// What is there to be looked through when the word has been produced.
struct Told {
    exchange: Option<Exchange>,
    metrics: String,
    traces: Traces,
    explained: Vec<Explanation>,
}

type Place = (&'static str, fn(Word, &Told) -> bool);

/// Where each word is to be found.
const PLACES: [Place; 4] = [
    ("X-Cache or Cache-Status", in_a_field),
    ("the metrics", in_the_metrics),
    ("a span or an event", in_a_trace),
    ("an explanation", in_an_explanation),
];

fn in_a_field(word: Word, told: &Told) -> bool {
    let Some(exchange) = &told.exchange else { return false };
    let x_cache = match word {
        Word::Outcome(outcome) => exchange.x_cache == outcome.as_str(),
        _ => true,
    };
    let members: Vec<&str> = exchange.cache_status.split("; ").flat_map(|member| member.split('=')).collect();
    x_cache && (members.contains(&word.text()) || exchange.x_cache.eq_ignore_ascii_case(word.text()))
}

fn in_the_metrics(word: Word, told: &Told) -> bool {
    let has = |name: &str, label: String| {
        told.metrics.lines().any(|line| line.starts_with(name) && line.contains(&label) && !line.ends_with(" 0"))
    };
    match word {
        Word::Outcome(outcome) => {
            let (kind, reason) = (outcome.kind(), outcome.reason().unwrap_or_default());
            has("larder_requests_total{", format!("outcome=\"{kind}\",reason=\"{reason}\""))
        }
        Word::Forward(reason) => has("larder_requests_total{", format!("reason=\"{}\"", reason.as_str())),
        Word::Decline(reason) => has("larder_declined_total{", format!("reason=\"{}\"", reason.as_str())),
    }
}

fn in_a_trace(word: Word, told: &Told) -> bool {
    let traces = &told.traces;
    match word {
        Word::Outcome(outcome) => {
            let said = traces.say("outcome", outcome.as_str());
            said && outcome.reason().is_none_or(|reason| traces.say("reason", reason))
        }
        Word::Forward(reason) => traces.say("reason", reason.as_str()),
        // What comes to light while the body streams is said by the span of the fill alone.
        Word::Decline(reason) => traces.say("decline", reason.as_str()),
    }
}

fn in_an_explanation(word: Word, told: &Told) -> bool {
    told.explained.iter().any(|explanation| {
        let expected = explanation.outcome.map(|outcome| outcome.outcome);
        let stand_in = explanation.fill.as_ref().map(|fill| [fill.if_it_fails, fill.if_unavailable]);
        let fate = explanation.fate.map(|fate| fate.became);
        let confirms = explanation.fill.as_ref().is_some_and(|fill| fill.conditional);
        match word {
            // What the handler is going to say isn't known; that it will be asked to confirm is.
            Word::Outcome(Outcome::Revalidated(reason)) => confirms && expected == Some(Outcome::Miss(reason)),
            Word::Outcome(Outcome::Stale(StaleReason::Unconfirmed)) => confirms,
            Word::Outcome(outcome) => {
                expected == Some(outcome) || stand_in.is_some_and(|all| all.contains(&Some(outcome)))
            }
            Word::Forward(reason) => expected.and_then(Outcome::reason) == Some(reason.as_str()),
            Word::Decline(reason) => fate == Some(Became::Declined(reason)),
        }
    })
}

/// Why a word isn't told in a place.
fn excused(word: Word, place: &str) -> Option<&'static str> {
    use DeclineReason::{FillBudget, Incomplete, Trailers};
    match word {
        Word::Outcome(Outcome::Collapsed(_)) | Word::Forward(ForwardReason::Crowded) if place == PLACES[3].0 => {
            Some("it lies in who else asks: the explanation tells only how many fills are under way")
        }
        Word::Outcome(Outcome::Bypass(BypassReason::QueryContent | BypassReason::RequestContent))
            if place == PLACES[3].0 =>
        {
            Some("a request that is explained has no content")
        }
        Word::Decline(DeclineReason::Method) if place == PLACES[3].0 => {
            Some("a HEAD says nothing of what becomes of the key")
        }
        Word::Decline(FillBudget | Incomplete | Trailers) if place == PLACES[0].0 => {
            Some("it comes to light when the head has gone out, with `stored`")
        }
        _ => None,
    }
}

type Play = Box<dyn FnOnce(House) -> BoxFuture<'static, Option<Exchange>>>;

/// How a word is produced.
struct Scene {
    handler: Handler,
    set_up: Box<dyn FnOnce(CacheLayer) -> CacheLayer>,
    play: Play,
}

const FRESH: (&str, &str) = ("cache-control", "max-age=60");

/// A GET of a handler that answers like this.
fn scene(answers: impl Fn(&Parts, usize) -> http::Response<Content> + Send + Sync + 'static) -> Scene {
    on(Handler::new(answers))
}

fn on(handler: Handler) -> Scene {
    let scene = Scene { handler, set_up: Box::new(|layer| layer), play: Box::new(|_| async { None }.boxed()) };
    scene.asking(get("/"))
}

fn saying(fields: &'static [(&'static str, &'static str)]) -> Scene {
    scene(move |_, _| answer(200, fields, "content"))
}

impl Scene {
    fn with(mut self, set_up: impl FnOnce(CacheLayer) -> CacheLayer + 'static) -> Self {
        self.set_up = Box::new(set_up);
        self
    }

    fn under(self, policy: Policy) -> Self {
        self.with(|layer| layer.otherwise(policy))
    }

    fn asking(self, request: Request<Full<Bytes>>) -> Self {
        self.playing(async move |house| house.try_exchange(request).await.ok())
    }

    /// The same request once, and again so many seconds later.
    fn later(self, seconds: u64, fields: &'static [(&'static str, &'static str)]) -> Self {
        self.playing(async move |house| {
            house.get("/").await;
            house.advance(seconds);
            Some(house.ask("/", fields).await)
        })
    }

    fn playing<F>(mut self, play: impl FnOnce(House) -> F + 'static) -> Self
    where
        F: Future<Output = Option<Exchange>> + Send + 'static,
    {
        self.play = Box::new(|house| play(house).boxed());
        self
    }
}

fn stream(frames: Vec<Result<Frame<Bytes>, Failure>>) -> Content {
    let frames = futures_util::stream::iter(frames);
    BoxBody::new(StreamBody::new(Box::pin(frames) as Pin<Box<dyn futures_util::Stream<Item = _> + Send + Sync>>))
}

/// A handler that answers the first request, and no other before it is given leave.
fn slow() -> (Arc<Semaphore>, Handler) {
    let gate = Arc::new(Semaphore::new(0));
    let leave = gate.clone();
    let handler = Handler::waiting(move |_, _| {
        let leave = leave.clone();
        async move {
            leave.acquire().await.expect("never closed").forget();
            Ok(answer(200, &[FRESH], "content"))
        }
    });
    (gate, handler)
}

/// Two requests for the same at once; the second one's answer.
fn together() -> Scene {
    let (gate, handler) = slow();
    on(handler).playing(async move |house| {
        let first = tokio::spawn({
            let house = house.clone();
            async move { house.get("/").await }
        });
        quiet().await;
        let second = tokio::spawn(async move { house.get("/").await });
        quiet().await;
        gate.add_permits(2);
        first.await.ok()?;
        second.await.ok()
    })
}

fn confirming(_: &Parts, n: usize) -> http::Response<Content> {
    answer(if n == 1 { 200 } else { 304 }, &[FRESH, ("etag", "\"a\"")], if n == 1 { "content" } else { "" })
}

fn failing(fields: &'static [(&'static str, &'static str)]) -> Scene {
    scene(move |_, n| answer(if n == 1 { 200 } else { 503 }, fields, "content"))
}

fn network_first() -> Policy {
    Policy::from_origin().strategy(Strategy::NetworkFirst { limit: None })
}

fn of_outcome(outcome: Outcome) -> Option<Scene> {
    Some(match outcome {
        Outcome::Hit => saying(&[FRESH]).later(1, &[]),
        Outcome::Fallback => failing(&[FRESH]).under(network_first()).later(1, &[]),
        Outcome::Revalidated(ForwardReason::Stale) => scene(confirming).later(61, &[]),
        Outcome::Miss(ForwardReason::UriMiss) => saying(&[FRESH]),
        Outcome::Collapsed(ForwardReason::UriMiss) => together(),
        Outcome::Stale(reason) => of_stale(reason),
        Outcome::Bypass(reason) => return of_bypass(reason),
        // Their reasons have rows of their own.
        Outcome::Revalidated(_) | Outcome::Miss(_) | Outcome::Collapsed(_) => return None,
        other => panic!("no row for {other:?}"),
    })
}

fn of_stale(reason: StaleReason) -> Scene {
    match reason {
        StaleReason::WhileRevalidate => {
            saying(&[("cache-control", "max-age=60, stale-while-revalidate=9")]).later(65, &[])
        }
        StaleReason::IfError => failing(&[("cache-control", "max-age=60, stale-if-error=9")]).later(65, &[]),
        StaleReason::MaxStale => saying(&[FRESH]).later(65, &[("cache-control", "max-stale=9")]),
        StaleReason::Unconfirmed => scene(|_, n| {
            let (status, tag) = if n == 1 { (200, "\"a\"") } else { (304, "\"b\"") };
            answer(status, &[FRESH, ("etag", tag)], if n == 1 { "content" } else { "" })
        })
        .later(61, &[]),
        StaleReason::NetworkFirst => {
            failing(&[("cache-control", "max-age=60, stale-while-revalidate=9")]).under(network_first()).later(65, &[])
        }
        StaleReason::CacheOnly => {
            saying(&[("cache-control", "max-age=60, stale-while-revalidate=9")]).playing(async move |house| {
                house.get("/").await;
                house.advance(65);
                let only =
                    CacheLayer::in_memory(1 << 20).otherwise(Policy::from_origin().strategy(Strategy::CacheOnly));
                house.handle.reconfigure(&only).ok()?;
                Some(house.get("/").await)
            })
        }
        other => panic!("no row for {other:?}"),
    }
}

fn of_forward(reason: ForwardReason) -> Scene {
    match reason {
        ForwardReason::UriMiss => saying(&[FRESH]),
        ForwardReason::VaryMiss => saying(&[FRESH, ("vary", "accept-language")]).later(1, &[("accept-language", "de")]),
        ForwardReason::Request => saying(&[FRESH]).later(1, &[("cache-control", "no-cache")]),
        ForwardReason::Stale => saying(&[FRESH]).later(61, &[]),
        ForwardReason::OnlyIfCached => {
            saying(&[FRESH]).asking(request("GET", "/", &[("cache-control", "only-if-cached")]))
        }
        ForwardReason::NetworkFirst => saying(&[FRESH]).under(network_first()).later(1, &[]),
        ForwardReason::CacheOnly => saying(&[FRESH]).under(Policy::from_origin().strategy(Strategy::CacheOnly)),
        ForwardReason::Distrusted => saying(&[FRESH]).with(|_| cut_off()),
        ForwardReason::Crowded => together().with(|layer| layer.max_waiting(0)),
        other => panic!("no row for {other:?}"),
    }
}

/// A cache over a store whose log of purges can't be reached.
fn cut_off() -> CacheLayer {
    CacheLayer::with_storage(Server::default().store(Line::Broken))
}

/// The body's type is as in [`House`].
fn with_query(layer: CacheLayer) -> CacheLayer {
    layer.cache_query_method(|_: QueryBody<Full<Bytes>>| Full::default()).max_query_content(1)
}

fn of_bypass(reason: BypassReason) -> Option<Scene> {
    let asking = |request: Request<Full<Bytes>>| saying(&[FRESH]).asking(request);
    let with = |fields: &[(&str, &str)]| asking(request("GET", "/", fields));
    Some(match reason {
        BypassReason::Rule => saying(&[FRESH]).under(Policy::bypass()),
        BypassReason::NetworkOnly => saying(&[FRESH]).under(Policy::from_origin().strategy(Strategy::NetworkOnly)),
        BypassReason::Method => asking(request("POST", "/", &[])),
        BypassReason::Credentials => with(&[("authorization", "Basic x")]).under(Policy::guarded(MINUTE)),
        BypassReason::NoPrincipal => saying(&[FRESH]).under(Policy::per(|_: &_| None::<&str>, MINUTE)),
        BypassReason::QueryContent => {
            asking(request("QUERY", "/", &[("content-type", "text/plain")]).map(|_| Full::from("too much")))
                .with(with_query)
        }
        BypassReason::RequestContent => asking(get("/").map(|_| Full::from("content"))),
        BypassReason::Rerouted => with(&[("x-http-method-override", "DELETE")]),
        BypassReason::AmbiguousHost => with(&[("host", "a"), ("host", "b")]),
        BypassReason::KeyTooLong => asking(get(&format!("/{}", "x".repeat(9000)))),
        BypassReason::Upgrade => with(&[("upgrade", "websocket"), ("connection", "upgrade")]),
        BypassReason::ConnectionOption => with(&[("connection", "x-tenant")]),
        BypassReason::AmbiguousPath => asking(get("/a/../b")).under(Policy::shared(MINUTE)),
        BypassReason::Shadow => saying(&[FRESH]).under(Policy::shared(MINUTE).shadow()),
        // The layer outside speaks and counts for both: see `a_layer_inside_another_says_nothing`.
        BypassReason::Nested => return None,
        other => panic!("no row for {other:?}"),
    })
}

fn of_decline(reason: DeclineReason) -> Scene {
    use DeclineReason::*;
    let streaming = |fields: &'static [(&'static str, &'static str)],
                     frames: fn() -> Vec<Result<Frame<Bytes>, Failure>>| {
        scene(move |_, _| answer(200, fields, "").map(|_| stream(frames())))
    };
    match reason {
        Method => saying(&[FRESH]).asking(request("HEAD", "/", &[])),
        Status => scene(|_, _| answer(206, &[FRESH, ("content-range", "bytes 0-0/2")], "a")),
        ErrorStatus => scene(|_, _| answer(500, &[FRESH], "")),
        MustUnderstand => scene(|_, _| answer(299, &[("cache-control", "max-age=60, must-understand")], "")),
        NoStore => saying(&[("cache-control", "no-store")]),
        RequestNoStore => saying(&[FRESH]).asking(request("GET", "/", &[("cache-control", "no-store")])),
        Private => saying(&[("cache-control", "private")]),
        Authorization => saying(&[FRESH]).asking(request("GET", "/", &[("authorization", "x")])),
        SetCookie => saying(&[FRESH, ("set-cookie", "a=b")]),
        VaryStar => saying(&[FRESH, ("vary", "*")]),
        VaryCredentials => saying(&[FRESH, ("vary", "cookie")]),
        NoFreshness => saying(&[]),
        AlreadyStale => saying(&[("cache-control", "max-age=0")]),
        RuleStatus => saying(&[FRESH]).under(Policy::from_origin().statuses([StatusCode::NOT_FOUND])),
        Handler => scene(|_, _| {
            let mut response = answer(200, &[FRESH], "");
            response.extensions_mut().insert(Cached::no_store());
            response
        }),
        EndlessStream => saying(&[FRESH, ("content-type", "text/event-stream")]),
        ConnectionOption => saying(&[FRESH, ("connection", "vary"), ("vary", "accept")]),
        HeadTooLarge => saying(&[FRESH, ("x-long", "a head of more than that")]).with(|layer| layer.max_head_size(20)),
        BodyTooLarge => saying(&[FRESH]).with(|layer| layer.max_body_size(3)),
        FillBudget => streaming(&[FRESH], || vec![Ok(Frame::data(Bytes::from("too much at once")))])
            .with(|layer| layer.max_fill_bytes(3).eager_etag_size(0)),
        PartitionQuota => saying(&[FRESH]).under(Policy::per(|_: &_| Some("me"), MINUTE).quota(3, 9)),
        PartitionSecret => saying(&[FRESH])
            .with(|_| CacheLayer::with_storage(Depot::with_log()).otherwise(Policy::per(|_: &_| Some("me"), MINUTE))),
        Incomplete => streaming(&[FRESH], || vec![Ok(Frame::data(Bytes::from("a"))), Err(Failure)]),
        Trailers => {
            streaming(&[FRESH], || vec![Ok(Frame::data(Bytes::from("a"))), Ok(Frame::trailers(HeaderMap::new()))])
        }
        Purged => {
            let (gate, handler) = slow();
            on(handler).playing(async move |house| {
                let asked = tokio::spawn({
                    let house = house.clone();
                    async move { house.get("/").await }
                });
                quiet().await;
                house.handle.purge(Selector::Everything).await.ok()?;
                gate.add_permits(1);
                asked.await.ok()
            })
        }
        Shutdown => saying(&[FRESH]).playing(async move |house| {
            house.handle.shutdown(MINUTE).await;
            Some(house.get("/").await)
        }),
        other => panic!("no row for {other:?}"),
    }
}

/// Plays a scene, and collects what is told.
async fn told(scene: Scene) -> Told {
    let recorder = PrometheusBuilder::new().build_recorder();
    let traces = Traces::new();
    let house = House::with(scene.handler, scene.set_up);
    explain_all();
    let exchange = (scene.play)(house.clone()).await;
    quiet().await;
    let explained = explained();
    metrics::with_local_recorder(&recorder, || Publisher::new(&house.handle).publish());
    Told { exchange, metrics: recorder.handle().render(), traces, explained }
}

#[tokio::test]
async fn every_word_is_told_in_every_place() {
    let outcomes = Outcome::all().filter_map(|outcome| Some((Word::Outcome(outcome), of_outcome(outcome)?)));
    let forwards = ForwardReason::ALL.map(|reason| (Word::Forward(reason), of_forward(reason)));
    let declines = DeclineReason::ALL.map(|reason| (Word::Decline(reason), of_decline(reason)));
    let rows: Vec<(Word, Scene)> = outcomes.chain(forwards).chain(declines).collect();
    let expected =
        5 + StaleReason::ALL.len() + BypassReason::ALL.len() - 1 + ForwardReason::ALL.len() + DeclineReason::ALL.len();
    assert_eq!(rows.len(), expected, "only words that are rows elsewhere have none");
    let mut missing = Vec::new();
    for (word, scene) in rows {
        let told = told(scene).await;
        for (place, tells) in PLACES {
            match excused(word, place) {
                None if !tells(word, &told) => {
                    let fields = told.exchange.as_ref().map(|exchange| (&exchange.x_cache, &exchange.cache_status));
                    missing.push(format!("{word:?} in {place}: {fields:?}"));
                }
                Some(excuse) if tells(word, &told) => missing.push(format!("{word:?} is in {place} though {excuse}")),
                None | Some(_) => {}
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[tokio::test]
async fn a_layer_inside_another_says_nothing() {
    let layer = CacheLayer::in_memory(1 << 20);
    let recorder = PrometheusBuilder::new().build_recorder();
    let traces = Traces::new();
    let service = layer.layer(layer.layer(Handler::saying(&[FRESH])));
    let response = service.oneshot(get("/")).await.expect("the handler doesn't fail");
    let word = BypassReason::Nested.as_str();
    let said = response.headers().get(HeaderName::from_static("cache-status")).expect("the layer outside says it");
    assert!(!said.to_str().unwrap().contains(word));
    metrics::with_local_recorder(&recorder, || Publisher::new(&layer.handle()).publish());
    assert!(!recorder.handle().render().contains(word) && !traces.say("reason", word));
}
