//! What the cache says it did is what it did, and all places that say it agree.

mod support;

use std::pin::Pin;

use bytes::Bytes;
use http::HeaderMap;
use http::Request;
use http::request::Parts;
use http_body::{Body, Frame};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use larder::{
    Became, BypassReason, CacheLayer, CacheOutcome, Cached, DeclineReason, ForwardReason, Outcome, Policy, StaleReason,
};
use support::exchange::*;
use tower::{Layer, ServiceExt};

/// The extension, `X-Cache` and `Cache-Status` say the same; returns the extension's.
fn agreed(exchange: &Exchange, why: &str) -> CacheOutcome {
    let outcome = exchange.outcome.expect("an outcome in the extensions");
    assert_eq!(exchange.x_cache, outcome.outcome.as_str(), "{why}");
    let detail = match outcome.outcome {
        Outcome::Stale(reason) => Some(reason.as_str()),
        Outcome::Bypass(BypassReason::Method) => None,
        Outcome::Bypass(reason) => Some(reason.as_str()),
        Outcome::Miss(ForwardReason::OnlyIfCached) => Some("only-if-cached"),
        _ => outcome.stored.and_then(Result::err).map(DeclineReason::as_str),
    };
    let said = exchange.cache_status.split("; detail=").nth(1);
    assert_eq!(said, detail, "{why}: {}", exchange.cache_status);
    let ttl = outcome.ttl.map(|ttl| format!("; ttl={ttl}"));
    assert!(ttl.is_none_or(|ttl| exchange.cache_status.contains(&ttl)), "{why}: {}", exchange.cache_status);
    outcome
}

type Fields = &'static [(&'static str, &'static str)];

struct Row {
    why: &'static str,
    answers: fn(&Parts, usize) -> http::Response<Content>,
    /// The fields of a request that comes before, and how many seconds before.
    before: Option<(Fields, u64)>,
    asked: Fields,
    outcome: Outcome,
    cache_status: &'static str,
}

fn fresh(_: &Parts, _: usize) -> http::Response<Content> {
    answer(200, &[("cache-control", "max-age=60")], "a")
}

fn with_etag(head: &Parts, _: usize) -> http::Response<Content> {
    let known = head.headers.get("if-none-match").is_some_and(|tag| tag == "\"a\"");
    answer(
        if known { 304 } else { 200 },
        &[("cache-control", "max-age=60"), ("etag", "\"a\"")],
        if known { "" } else { "a" },
    )
}

#[tokio::test]
async fn each_outcome_is_told_in_all_places() {
    let rows = [
        Row {
            why: "nothing is stored",
            answers: fresh,
            before: None,
            asked: &[],
            outcome: Outcome::Miss(ForwardReason::UriMiss),
            cache_status: "larder; fwd=uri-miss; stored",
        },
        Row {
            why: "fresh",
            answers: fresh,
            before: Some((&[], 20)),
            asked: &[],
            outcome: Outcome::Hit,
            cache_status: "larder; hit; ttl=40",
        },
        Row {
            why: "another variant is stored",
            answers: |_, _| answer(200, &[("cache-control", "max-age=60"), ("vary", "accept-language")], "a"),
            before: Some((&[("accept-language", "en")], 0)),
            asked: &[("accept-language", "de")],
            outcome: Outcome::Miss(ForwardReason::VaryMiss),
            cache_status: "larder; fwd=vary-miss; stored",
        },
        Row {
            why: "the client wants it anew",
            answers: fresh,
            before: Some((&[], 0)),
            asked: &[("cache-control", "no-cache")],
            outcome: Outcome::Miss(ForwardReason::Request),
            cache_status: "larder; fwd=request; stored",
        },
        Row {
            why: "its lifetime is over",
            answers: fresh,
            before: Some((&[], 60)),
            asked: &[],
            outcome: Outcome::Miss(ForwardReason::Stale),
            cache_status: "larder; fwd=stale; stored",
        },
        Row {
            why: "the handler confirms it",
            answers: with_etag,
            before: Some((&[], 61)),
            asked: &[],
            outcome: Outcome::Revalidated(ForwardReason::Stale),
            cache_status: "larder; fwd=stale; fwd-status=304; ttl=60",
        },
        Row {
            why: "stale-while-revalidate",
            answers: |_, _| answer(200, &[("cache-control", "max-age=60, stale-while-revalidate=10")], "a"),
            before: Some((&[], 65)),
            asked: &[],
            outcome: Outcome::Stale(StaleReason::WhileRevalidate),
            cache_status: "larder; hit; ttl=-5; detail=stale-while-revalidate",
        },
        Row {
            why: "stale-if-error",
            answers: |_, n| {
                let status = if n == 1 { 200 } else { 503 };
                answer(status, &[("cache-control", "max-age=60, stale-if-error=10")], "a")
            },
            before: Some((&[], 65)),
            asked: &[],
            outcome: Outcome::Stale(StaleReason::IfError),
            cache_status: "larder; fwd=stale; ttl=-5; detail=stale-if-error",
        },
        Row {
            why: "the client takes it stale",
            answers: fresh,
            before: Some((&[], 65)),
            asked: &[("cache-control", "max-stale=10")],
            outcome: Outcome::Stale(StaleReason::MaxStale),
            cache_status: "larder; hit; ttl=-5; detail=max-stale",
        },
        Row {
            why: "a 304 for something else",
            answers: |_, n| {
                let (status, tag) = if n == 1 { (200, "\"a\"") } else { (304, "\"b\"") };
                answer(status, &[("cache-control", "max-age=60"), ("etag", tag)], if n == 1 { "a" } else { "" })
            },
            before: Some((&[], 61)),
            asked: &[],
            outcome: Outcome::Stale(StaleReason::Unconfirmed),
            cache_status: "larder; fwd=stale; ttl=-1; detail=unconfirmed",
        },
        Row {
            why: "only-if-cached, and nothing is",
            answers: fresh,
            before: None,
            asked: &[("cache-control", "only-if-cached")],
            outcome: Outcome::Miss(ForwardReason::OnlyIfCached),
            cache_status: "larder; detail=only-if-cached",
        },
    ];
    for Row { why, answers, before, asked, outcome, cache_status } in rows {
        let house = House::new(Handler::new(answers));
        if let Some((fields, seconds)) = before {
            house.ask("/", fields).await;
            house.advance(seconds);
        }
        let stats = house.handle.stats();
        let exchange = house.ask("/", asked).await;
        assert_eq!(agreed(&exchange, why).outcome, outcome, "{why}");
        assert_eq!(exchange.cache_status, cache_status, "{why}");
        let now = house.handle.stats();
        let counted = [
            ("HIT", now.hits - stats.hits),
            ("STALE", now.stale - stats.stale),
            ("REVALIDATED", now.revalidated - stats.revalidated),
            ("MISS", now.misses - stats.misses),
            ("BYPASS", now.bypassed - stats.bypassed),
        ];
        for (word, count) in counted {
            assert_eq!(count, u64::from(word == exchange.x_cache), "{why}: {word} in the statistics");
        }
        let from_store = !matches!(outcome, Outcome::Miss(_));
        assert_eq!(exchange.has("age"), from_store, "{why}");
        assert_eq!(exchange.has("x-cache-age"), from_store, "{why}");
    }
}

#[tokio::test]
async fn each_reason_to_keep_out_is_told() {
    let long = format!("/{}", "x".repeat(9000));
    let rows: Vec<(BypassReason, Request<Full<Bytes>>)> = vec![
        (BypassReason::Rule, get("/bypass")),
        (BypassReason::Shadow, get("/shadow")),
        (BypassReason::Method, request("OPTIONS", "/", &[])),
        (BypassReason::Method, request("POST", "/", &[])),
        (BypassReason::Credentials, request("GET", "/guarded", &[("cookie", "session=1")])),
        (BypassReason::Credentials, request("GET", "/guarded", &[("authorization", "Basic x")])),
        (BypassReason::NoPrincipal, get("/per")),
        (BypassReason::RequestContent, get("/").map(|_| Full::from("a body"))),
        (BypassReason::RequestContent, request("GET", "/", &[("content-length", "3")])),
        (BypassReason::RequestContent, request("GET", "/", &[("transfer-encoding", "chunked")])),
        (BypassReason::Rerouted, request("GET", "/", &[("x-http-method-override", "DELETE")])),
        (BypassReason::Rerouted, request("GET", "/", &[("x-original-url", "/admin")])),
        (BypassReason::AmbiguousHost, request("GET", "/", &[("host", "a"), ("host", "b")])),
        (BypassReason::AmbiguousHost, request("GET", "http://a/", &[("host", "b")])),
        (BypassReason::KeyTooLong, get(&long)),
        (BypassReason::Upgrade, request("GET", "/", &[("upgrade", "websocket"), ("connection", "upgrade")])),
        (BypassReason::ConnectionOption, request("GET", "/", &[("connection", "host")])),
        (BypassReason::ConnectionOption, request("GET", "/", &[("connection", "close, X-Tenant")])),
        (BypassReason::ConnectionOption, request("GET", "/", &[("connection", "close"), ("connection", "accept")])),
        (BypassReason::AmbiguousPath, get("/guarded/..%2fme")),
        (BypassReason::AmbiguousPath, get("/guarded/../me")),
    ];
    for (reason, request) in rows {
        let shows_content = request.body().is_end_stream();
        let house = House::with(Handler::saying(&[("cache-control", "max-age=60")]), |layer| {
            layer
                .rule("^/bypass", Policy::bypass())
                .rule("^/guarded", Policy::guarded(MINUTE))
                .rule("^/shadow", Policy::shared(MINUTE).shadow())
                .rule("^/per", Policy::per(|_: &_| None::<&str>, MINUTE))
        });
        let why = format!("{reason:?}");
        let explanation = house.handle.explain(&request.clone().map(drop)).await;
        for _ in 0..2 {
            let exchange = house.exchange(request.clone()).await;
            let outcome = agreed(&exchange, &why);
            assert_eq!(outcome.outcome, Outcome::Bypass(reason));
            // Content that no field announces is not in a head.
            assert!(!shows_content || explanation.outcome == Some(outcome), "{explanation}");
            let expected = match reason {
                BypassReason::Method => "larder; fwd=method".into(),
                reason => format!("larder; fwd=bypass; detail={}", reason.as_str()),
            };
            assert_eq!(exchange.cache_status, expected);
        }
        assert_eq!(house.handler.calls(), 2, "{why}: each reaches the handler");
        assert_eq!((house.handle.stats().bypassed, house.handle.stats().stored), (2, 0), "{why}");
    }
}

#[tokio::test]
async fn a_key_of_eight_kib_is_not_too_long() {
    let house = House::new(Handler::saying(&[("cache-control", "max-age=60")]));
    // Host and path, each with five bytes before it, come to exactly that; one byte more is too many.
    let longest = 8 * 1024 - 2 * 5 - "example.com".len();
    for (length, words) in [(longest, ["MISS", "HIT"]), (longest + 1, ["BYPASS", "BYPASS"])] {
        let target = format!("/{}", "a".repeat(length - 1));
        for word in words {
            assert_eq!(house.get(&target).await.x_cache, word, "a path of {length} bytes");
        }
    }
}

#[test]
fn debug_forms_say_what_they_are() {
    let service = CacheLayer::in_memory(1).layer("the handler");
    assert_eq!(format!("{service:?}"), "Cache { inner: \"the handler\", .. }");
    assert_eq!(*service.inner(), "the handler");
    assert!(format!("{:?}", Policy::per(|_: &_| None::<&str>, MINUTE)).starts_with("Policy { audience: \"per\""));
}

#[tokio::test]
async fn a_layer_inside_another_of_the_same_cache_passes_through() {
    let handler = Handler::saying(&[("cache-control", "max-age=60")]);
    let layer = CacheLayer::in_memory(1 << 20);
    let service = layer.layer(layer.layer(handler.clone()));
    let ask = async || service.clone().oneshot(get("/")).await.unwrap();
    let first = ask().await;
    let inner_first: Vec<_> = first.headers().get_all("cache-status").iter().collect();
    assert_eq!(inner_first, ["larder; fwd=uri-miss; stored"], "the one outside speaks for both");
    assert_eq!(first.headers().get_all("x-cache").iter().collect::<Vec<_>>(), ["MISS"]);
    assert_eq!(ask().await.headers()["x-cache"], "HIT");
    assert_eq!(handler.calls(), 1);
}

struct Declined {
    reason: DeclineReason,
    asked: Fields,
    answers: fn() -> http::Response<Content>,
}

const FRESH: (&str, &str) = ("cache-control", "max-age=60");

#[tokio::test]
async fn each_reason_not_to_store_is_told_and_counted() {
    use DeclineReason::*;
    let row = |reason, asked, answers| Declined { reason, asked, answers };
    let rows = [
        row(Status, &[], || answer(206, &[FRESH, ("content-range", "bytes 0-0/2")], "a")),
        // RFC 6585 §3 to §6: spoken to one client.
        row(Status, &[], || answer(428, &[FRESH], "a")),
        row(Status, &[], || answer(429, &[FRESH], "a")),
        row(Status, &[], || answer(431, &[FRESH], "a")),
        row(Status, &[], || answer(511, &[FRESH], "a")),
        row(ErrorStatus, &[], || answer(500, &[FRESH], "a")),
        row(MustUnderstand, &[], || answer(299, &[("cache-control", "max-age=60, must-understand")], "a")),
        row(NoStore, &[], || answer(200, &[("cache-control", "max-age=60, no-store")], "a")),
        row(RequestNoStore, &[("cache-control", "no-store")], || answer(200, &[FRESH], "a")),
        row(Private, &[], || answer(200, &[("cache-control", "max-age=60, private")], "a")),
        row(Authorization, &[("authorization", "x")], || answer(200, &[FRESH], "a")),
        row(SetCookie, &[], || answer(200, &[FRESH, ("set-cookie", "a=b")], "a")),
        row(VaryStar, &[], || answer(200, &[FRESH, ("vary", "*")], "a")),
        row(VaryCredentials, &[], || answer(200, &[FRESH, ("vary", "cookie")], "a")),
        row(NoFreshness, &[], || answer(200, &[], "a")),
        row(AlreadyStale, &[], || answer(200, &[("cache-control", "max-age=0")], "a")),
        row(RuleStatus, &[], || answer(404, &[FRESH], "a")),
        row(Handler, &[], || {
            let mut response = answer(200, &[FRESH], "a");
            response.extensions_mut().insert(Cached::no_store());
            response
        }),
        row(EndlessStream, &[], || answer(200, &[FRESH, ("content-type", "text/event-stream")], "a")),
        row(HeadTooLarge, &[], || answer(200, &[FRESH, ("x-long", &"x".repeat(2000))], "a")),
        row(BodyTooLarge, &[], || answer(200, &[FRESH, ("content-length", "30001")], "x".repeat(30_001))),
        // Neither announced by a field nor streamed: the body itself knows its length.
        row(BodyTooLarge, &[], || answer(200, &[FRESH], "x".repeat(30_001))),
        row(Incomplete, &[], || answer(200, &[FRESH, ("content-length", "5")], "four")),
    ];
    for Declined { reason, asked, answers } in rows {
        let statuses = [200, 206, 299].map(|status| http::StatusCode::from_u16(status).unwrap());
        let house = House::with(self::support::exchange::Handler::new(move |_, _| answers()), |layer| {
            let policy =
                if reason == RuleStatus { Policy::from_origin().statuses(statuses) } else { Policy::from_origin() };
            layer.max_head_size(1000).max_body_size(30_000).otherwise(policy)
        });
        for _ in 0..2 {
            let exchange = house.ask("/", asked).await;
            let outcome = agreed(&exchange, reason.as_str());
            assert_eq!(outcome.outcome, Outcome::Miss(ForwardReason::UriMiss), "{reason}");
            assert_eq!(outcome.stored, Some(Err(reason)), "{reason}");
            assert_eq!(exchange.cache_status, format!("larder; fwd=uri-miss; detail={reason}"));
        }
        let stats = house.handle.stats();
        assert_eq!(stats.declined, [(reason, 2)], "{reason}");
        assert_eq!((stats.stored, stats.storage.entries), (0, 0), "{reason}");
        let explanation = house.handle.explain(&request("GET", "/", asked).map(drop)).await;
        assert_eq!(explanation.fate.map(|fate| fate.became), Some(Became::Declined(reason)), "{explanation}");
        let said = format!(" ago an answer wasn't stored: {reason}, {} ({})", reason.meaning(), reason.section());
        assert!(explanation.to_string().contains(&said), "{explanation}");
    }
}

/// Content in frames of unknown number, each in its own turn.
fn stream(frames: Vec<Result<Frame<Bytes>, Failure>>) -> Content {
    let frames = futures_util::stream::iter(frames);
    BoxBody::new(StreamBody::new(Box::pin(frames) as Pin<Box<dyn futures_util::Stream<Item = _> + Send + Sync>>))
}

/// What shows only while the body streams comes too late for the head, which has gone out with `stored`; it is counted all the same.
#[tokio::test]
async fn a_reason_found_in_the_body_is_counted() {
    type Frames = Vec<Result<Frame<Bytes>, Failure>>;
    type Row = (DeclineReason, Fields, fn() -> Frames);
    let rows: [Row; 5] = [
        (DeclineReason::BodyTooLarge, &[FRESH], || {
            (0..4).map(|_| Ok(Frame::data(Bytes::from(vec![b'x'; 10_000])))).collect()
        }),
        (DeclineReason::FillBudget, &[FRESH], || vec![Ok(Frame::data(Bytes::from(vec![b'x'; 25_000])))]),
        (DeclineReason::Incomplete, &[FRESH], || vec![Ok(Frame::data(Bytes::from("a"))), Err(Failure)]),
        (DeclineReason::Incomplete, &[FRESH, ("content-length", "5")], || vec![Ok(Frame::data(Bytes::from("four")))]),
        (DeclineReason::Trailers, &[FRESH], || {
            vec![Ok(Frame::data(Bytes::from("a"))), Ok(Frame::trailers(HeaderMap::new()))]
        }),
    ];
    for (reason, fields, frames) in rows {
        let handler = Handler::new(move |_, _| answer(200, fields, "").map(|_| stream(frames())));
        let budget = if reason == DeclineReason::FillBudget { 20_000 } else { 1 << 20 };
        let house = House::with(handler, |layer| layer.max_body_size(30_000).max_fill_bytes(budget));
        let _ = house.try_exchange(get("/")).await;
        assert_eq!(house.handle.stats().declined, [(reason, 1)]);
        let _ = house.try_exchange(get("/")).await;
        assert_eq!(house.handler.calls(), 2, "{reason}: nothing was stored");
    }
}

#[tokio::test]
async fn after_a_shutdown_requests_are_answered_and_nothing_is_stored() {
    let house = House::new(Handler::saying(&[FRESH]));
    assert!(house.handle.shutdown(MINUTE).await);
    let exchange = house.get("/").await;
    assert_eq!(exchange.cache_status, "larder; fwd=uri-miss; detail=shutdown");
    assert_eq!(house.handle.stats().declined_for(DeclineReason::Shutdown), 1);
}

#[tokio::test]
async fn each_field_has_its_switch() {
    type Switch = fn(CacheLayer) -> CacheLayer;
    let rows: [(&str, Switch); 4] = [
        ("x-cache", |layer| layer.x_cache(false)),
        ("x-cache-age", |layer| layer.x_cache_age(false)),
        ("age", |layer| layer.age(false)),
        ("cache-status", |layer| layer.cache_status(false)),
    ];
    for (off, switch) in rows {
        let house = House::with(Handler::saying(&[FRESH]), switch);
        let (miss, hit) = (house.get("/").await, house.get("/").await);
        let bypassed = house.exchange(request("OPTIONS", "/", &[])).await;
        for (name, _) in rows {
            assert_eq!(hit.has(name), name != off, "{name} of a hit, {off} being off");
            let always = matches!(name, "x-cache" | "cache-status");
            assert_eq!(miss.has(name), always && name != off, "{name} of a miss, {off} being off");
            assert_eq!(bypassed.has(name), always && name != off, "{name} of a bypass, {off} being off");
        }
    }
    let house = House::with(Handler::saying(&[FRESH]), |layer| layer.outcome_extension(false));
    for _ in 0..2 {
        assert_eq!(house.get("/").await.outcome, None);
    }
}

#[tokio::test]
async fn the_cache_speaks_under_its_name_behind_those_nearer_to_the_origin() {
    let handler = Handler::saying(&[FRESH, ("cache-status", "inner; hit")]);
    let house = House::with(handler, |layer| layer.name("Edge-1"));
    assert_eq!(house.get("/").await.cache_status, "inner; hit, Edge-1; fwd=uri-miss; stored");
    assert_eq!(house.get("/").await.cache_status, "Edge-1; hit; ttl=60");
}

#[test]
fn a_name_that_is_no_token_is_refused() {
    for name in ["", "1st", "a b", "a;b", "ä"] {
        assert!(std::panic::catch_unwind(|| CacheLayer::in_memory(1).name(name)).is_err(), "{name:?}");
    }
}

#[tokio::test]
async fn stale_answers_carry_the_old_warning_where_it_is_wanted() {
    let house = House::with(Handler::saying(&[FRESH]), |layer| layer.warning(true));
    house.get("/").await;
    assert!(!house.get("/").await.has("warning"), "fresh");
    house.advance(61);
    let stale = house.ask("/", &[("cache-control", "max-stale")]).await;
    assert_eq!(stale.field("warning"), "110 - \"Response is Stale\"");
    let house = House::new(Handler::saying(&[FRESH]));
    house.get("/").await;
    house.advance(61);
    assert!(!house.ask("/", &[("cache-control", "max-stale")]).await.has("warning"), "off by default");
}

#[tokio::test]
async fn ages_follow_the_clock_and_what_was_spent_before() {
    for (before, fields) in [(0, &[FRESH][..]), (7, &[FRESH, ("age", "7")])] {
        let fields = fields.to_vec();
        let house = House::new(Handler::new(move |_, _| answer(200, &fields, "a")));
        house.get("/").await;
        for passed in [0, 1, 30, 52] {
            let hit = house.get("/").await;
            assert_eq!(hit.x_cache, "HIT");
            let expected = (before + passed).to_string();
            assert_eq!((hit.field("age"), hit.field("x-cache-age")), (&*expected, &*expected));
            assert_eq!(hit.outcome.unwrap().age, Some(secs(before + passed)));
            let next = [1, 30, 52, 52].into_iter().find(|next| *next > passed).unwrap_or(passed);
            house.advance(next - passed);
        }
    }
}

/// The body's type is told only to those who look inside.
#[tokio::test]
async fn a_hit_says_how_long_it_is() {
    let house = House::new(Handler::saying(&[FRESH]));
    house.get("/").await;
    let hit = house.service.clone().oneshot(get("/")).await.unwrap();
    assert_eq!(http_body::Body::size_hint(hit.body()).exact(), Some(8));
    assert_eq!(hit.into_body().collect().await.unwrap().to_bytes(), "answer 1");
}
