//! An explanation is what happens: it is asked before each request of a random workload, and held against what the answer says. It changes nothing, and shows no
//! credentials.

mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::FutureExt;
use http::request::Parts;
use http::{HeaderName, Request, Response, StatusCode, header};
use http_body_util::Full;
use larder::storage::{Eviction, MemoryStore, Query, Storage, StorageUsage, Variants};
use larder::{
    BypassReason, CacheKey, CacheLayer, Cached, DeclineReason, EarlierSettings, Explanation, ForwardReason, KeyPart,
    LifetimeSource, ManualClock, Outcome, Policy, RequestHead, Selector, StaleReason, StorageError, StoredResponse,
    ValidateReason,
};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use support::exchange::*;

/// What may not be found in any explanation.
const SECRETS: [&str; 3] = ["hunter2", "s3cret", "pr1ncipal"];

fn principal(request: &RequestHead<'_>) -> Option<String> {
    request.headers.get("x-user").and_then(|user| user.to_str().ok()).map(str::to_owned)
}

/// Rules of every audience and strategy. The second set has the same patterns, and says otherwise about some.
fn layer(changed: bool) -> CacheLayer {
    let long = if changed { secs(20) } else { MINUTE };
    CacheLayer::in_memory(1 << 20)
        .cache_query_method(|body: larder::QueryBody<Full<Bytes>>| {
            let content = http_body_util::BodyExt::collect(body).now_or_never();
            Full::new(content.and_then(Result::ok).map(|content| content.to_bytes()).unwrap_or_default())
        })
        .rule(
            "^/shared",
            Policy::shared(long).stale_while_revalidate(secs(20)).stale_if_error(secs(40)).strip_credentials(),
        )
        .rule("^/per", Policy::per(principal, long))
        .rule("^/guarded", Policy::guarded(long).ignore_cookies(["theme"]).drop_set_cookie())
        .rule("^/bypass", if changed { Policy::shared(MINUTE) } else { Policy::bypass() })
        .rule("^/network", Policy::shared(long).stale_if_error(secs(30)).network_first(secs(1)))
        .rule("^/refreshed", Policy::shared(long).strategy(larder::Strategy::StaleWhileRevalidate))
        .rule("^/only", Policy::from_origin().strategy(larder::Strategy::NetworkOnly))
        .rule(
            "^/stored",
            Policy::shared(long).stale_while_revalidate(secs(30)).strategy(if changed {
                larder::Strategy::CacheOnly
            } else {
                larder::Strategy::CacheFirst
            }),
        )
        .rule(
            "^/keyed",
            Policy::shared(long)
                .key_header(HeaderName::from_static("x-tenant"))
                .key_cookies(["lang"])
                .sort_query()
                .ignore_query(["utm_*"]),
        )
        .rule("^/sliding", Policy::shared(long).sliding(secs(15)).refresh_within(secs(5)).override_origin())
        .otherwise(if changed { Policy::from_origin().heuristics(true) } else { Policy::from_origin() })
}

/// What the cache has to do with is asked for more often than what it keeps out of.
const PATHS: [&str; 20] = [
    "/shared",
    "/shared",
    "/per",
    "/per",
    "/guarded",
    "/guarded",
    "/network",
    "/network",
    "/refreshed",
    "/refreshed",
    "/stored",
    "/stored",
    "/keyed",
    "/sliding",
    "/sliding",
    "/origin",
    "/origin",
    "/bypass",
    "/only",
    "/shared/../x",
];

#[derive(Clone, Debug)]
struct Ask {
    method: &'static str,
    path: &'static str,
    query: &'static str,
    fields: Vec<(&'static str, &'static str)>,
    content: &'static str,
    /// Seconds that pass before it.
    after: u64,
    /// What the handler answers, if it is asked.
    status: u16,
    says: Vec<(&'static str, &'static str)>,
    cached: Option<Option<u64>>,
}

#[derive(Clone, Debug)]
enum Step {
    Ask(Ask),
    Purge(Index),
    Everything,
    /// The settings are those of [`layer`].
    Settings(bool),
    /// The wall clock is set, back or forward, by so many seconds.
    Clock(i64),
}

/// A request to one of these paths: few, so that requests meet what earlier ones have left.
fn ask(paths: Vec<&'static str>) -> impl Strategy<Value = Ask> {
    let method =
        prop_oneof![30 => Just("GET"), 2 => Just("HEAD"), 1 => Just("POST"), 1 => Just("OPTIONS"), 2 => Just("QUERY")];
    let usual = select(vec![
        ("cookie", "lang=hunter2; theme=dark"),
        ("x-user", "pr1ncipal"),
        ("x-user", "pr1ncipal"),
        ("x-tenant", "s3cret"),
        ("accept-language", "de"),
        ("accept-language", "en"),
        ("cache-control", "no-cache"),
        ("cache-control", "max-age=5"),
        ("cache-control", "max-stale=60"),
        ("cache-control", "only-if-cached"),
        ("if-none-match", "\"v1\""),
        ("range", "bytes=0-1"),
    ]);
    let seldom = select(vec![
        ("authorization", "Basic hunter2"),
        ("cookie", "session=s3cret"),
        ("cache-control", "no-store"),
        ("cache-control", "min-fresh=30"),
        ("if-match", "\"v2\""),
        ("range", "bytes=0-1, 300-400"),
        ("range", "bytes=900-"),
        ("if-modified-since", "Thu, 01 Jan 2026 00:00:00 GMT"),
        ("accept-encoding", "gzip"),
        ("x-forwarded-host", "elsewhere.test"),
        ("forwarded", "for=1.2.3.4;host=a, proto=https"),
        ("x-http-method-override", "DELETE"),
        ("upgrade", "websocket"),
        ("connection", "x-tenant"),
        ("host", "a.test"),
        ("content-length", "3"),
    ]);
    let fields = (prop::collection::vec(usual, 0..3), prop::collection::vec(seldom, 0..3), 0..4_u8);
    let fields = fields.prop_map(|(usual, seldom, which)| match which {
        0 => Vec::new(),
        1 => usual.into_iter().chain(seldom).collect(),
        _ => usual,
    });
    let terms = select(vec![
        None,
        Some(("cache-control", "max-age=30")),
        Some(("cache-control", "max-age=10, stale-while-revalidate=15")),
        Some(("cache-control", "max-age=10, stale-if-error=15")),
        Some(("cache-control", "max-age=30, must-revalidate")),
        Some(("cache-control", "no-cache")),
        Some(("cache-control", "public, max-age=40, immutable")),
        Some(("cdn-cache-control", "max-age=25")),
        Some(("expires", "Thu, 01 Jan 2026 00:02:00 GMT")),
        Some(("last-modified", "Mon, 01 Dec 2025 00:00:00 GMT")),
    ]);
    let usual =
        select(vec![("etag", "\"v1\""), ("etag", "\"v2\""), ("vary", "accept-language"), ("cache-groups", "\"g\"")]);
    let seldom = select(vec![
        ("cache-control", "no-store"),
        ("cache-control", "private, max-age=9"),
        ("vary", "cookie"),
        ("vary", "*"),
        ("set-cookie", "session=s3cret"),
        ("age", "7"),
        ("no-vary-search", "params=(\"a\"), key-order"),
        ("content-type", "text/event-stream"),
    ]);
    let says =
        (terms, prop::collection::vec(usual, 0..3), seldom, 0..5_u8).prop_map(|(terms, usual, seldom, which)| {
            terms.into_iter().chain(usual).chain((which == 0).then_some(seldom)).collect::<Vec<_>>()
        });
    let status = prop_oneof![
        14 => Just(200), 5 => Just(304), 3 => Just(503), 3 => Just(0), 1 => Just(404), 1 => Just(301), 1 => Just(206)
    ];
    let cached = prop_oneof![16 => Just(None), 1 => Just(Some(None)), 1 => (1..50_u64).prop_map(|ttl| Some(Some(ttl)))];
    let query = select(vec!["", "", "", "", "", "?a=1", "?a=2", "?b=1&a=3", "?utm_x=1"]);
    let after = prop_oneof![4 => Just(0), 4 => 0..30_u64, 1 => 30..200_u64];
    let content = select(vec!["", "", "", "content"]);
    (method, select(paths), query, fields, content, after, status, says, cached).prop_map(
        |(method, path, query, fields, content, after, status, says, cached)| {
            let content = if method == "GET" || method == "HEAD" { "" } else { content };
            Ask { method, path, query, fields, content, after, status, says, cached }
        },
    )
}

fn step(paths: Vec<&'static str>) -> impl Strategy<Value = Step> {
    prop_oneof![
        30 => ask(paths).prop_map(Step::Ask),
        1 => any::<Index>().prop_map(Step::Purge),
        1 => Just(Step::Everything),
        2 => any::<bool>().prop_map(Step::Settings),
        1 => (-50..50_i64).prop_map(Step::Clock),
    ]
}

/// The handler answers what the test tells it to, before each request.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<Option<Ask>>>);

impl Script {
    fn answer(&self) -> Answer {
        let told = self.0.lock().unwrap().clone().expect("a request is on its way");
        if told.status == 0 {
            return Err(Failure);
        }
        let content = if matches!(told.status, 304) { String::new() } else { "x".repeat(500) };
        let mut response = answer(told.status, &told.says, content);
        if let Some(cached) = told.cached {
            response.extensions_mut().insert(cached.map_or(Cached::no_store(), |ttl| Cached::shared(secs(ttl))));
        }
        Ok(response)
    }
}

/// What was seen of the outcomes, so that the workload is known to have had them.
#[derive(Default)]
struct Seen(Mutex<std::collections::BTreeMap<String, usize>>);

impl Seen {
    fn note(&self, what: impl std::fmt::Debug) {
        *self.0.lock().unwrap().entry(format!("{what:?}")).or_default() += 1;
    }
}

async fn explained(house: &House, request: &Request<Full<Bytes>>) -> Explanation {
    house.handle.explain(&head_of(request)).await
}

fn head_of(request: &Request<Full<Bytes>>) -> Request<()> {
    let (parts, _) = request.clone().into_parts();
    let mut head = Request::new(());
    *head.method_mut() = parts.method;
    *head.uri_mut() = parts.uri;
    *head.headers_mut() = parts.headers;
    *head.extensions_mut() = parts.extensions;
    head
}

fn shows_no_secrets(explanation: &Explanation) {
    let text = format!("{explanation}\n{explanation:?}");
    for secret in SECRETS {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

async fn run(steps: Vec<Step>, seen: &Seen) {
    let script = Script::default();
    let handler = Handler::failing({
        let script = script.clone();
        move |_, _| script.answer()
    });
    let house = House::around(handler, layer(false));
    for step in steps {
        match step {
            Step::Ask(ask) => {
                house.advance(ask.after);
                *script.0.lock().unwrap() = Some(ask.clone());
                hold_against_the_answer(&house, &ask, seen).await;
            }
            Step::Purge(path) => {
                let path = format!("{}?a=1", path.get(&PATHS));
                let _ = house.handle.purge(Selector::Uri(path.split('?').next().unwrap().into())).await;
            }
            Step::Everything => _ = house.handle.purge(Selector::Everything).await,
            Step::Settings(changed) => _ = house.handle.reconfigure(&layer(changed)),
            Step::Clock(by) => {
                let wall = larder::Clock::now(&house.clock).wall;
                let by_seconds = secs(by.unsigned_abs());
                house.clock.set_wall(if by < 0 { wall - by_seconds } else { wall + by_seconds });
            }
        }
    }
}

async fn hold_against_the_answer(house: &House, ask: &Ask, seen: &Seen) {
    let request = request(ask.method, &format!("{}{}", ask.path, ask.query), &ask.fields);
    let request = request.map(|_| Full::from(ask.content));
    let mut head = head_of(&request);
    if !ask.content.is_empty() && !head.headers().contains_key("content-length") {
        // What a server tells of the content before it comes.
        head.headers_mut().insert("content-length", http::HeaderValue::from(ask.content.len()));
    }
    let stats = house.handle.stats();
    let explanation = house.handle.explain(&head).await;
    assert_eq!(explanation, house.handle.explain(&head).await, "the first changed nothing");
    assert_eq!(house.handle.stats(), stats, "nothing is counted: {explanation}");
    shows_no_secrets(&explanation);
    let exchange = house.try_exchange(request).await;
    quiet().await;
    let expected = explanation.outcome;
    let Ok(exchange) = exchange else {
        let asked = expected.is_none_or(|expected| matches!(expected.outcome, Outcome::Miss(_) | Outcome::Bypass(_)));
        assert!(asked, "the handler was asked: {explanation}");
        assert_eq!(explanation.fill.and_then(|fill| fill.if_it_fails), None, "nothing stood in");
        return seen.note(format_args!("failed"));
    };
    let outcome = exchange.outcome.expect("an outcome in the extensions");
    seen.note(outcome.outcome);
    let Some(expected) = expected else {
        assert_eq!(ask.method, "QUERY", "{explanation}");
        return;
    };
    assert_eq!(outcome.rule, expected.rule, "{explanation}");
    let whole = larder::CacheOutcome::clone(&outcome);
    match (&explanation.fill, outcome.outcome) {
        (None, _) => {
            let stored = whole.stored.is_some();
            assert!(whole == expected || stored && ask.method == "POST", "{whole:?} was expected to be\n{explanation}");
            if !stored {
                assert_eq!(exchange.cache_status, explanation.cache_status);
            }
            if let Some(status) = explanation.status {
                assert_eq!(exchange.status, status.as_u16(), "{explanation}");
                seen.note(status);
            }
        }
        (Some(fill), Outcome::Revalidated(why)) => {
            assert_eq!(Outcome::Miss(why), expected.outcome, "{explanation}");
            assert!(fill.conditional, "{explanation}");
        }
        (Some(_), Outcome::Stale(StaleReason::Unconfirmed)) => {
            assert!(ask.status == 304 && explanation.stored.is_some(), "{explanation}");
        }
        (Some(fill), Outcome::Stale(_) | Outcome::Fallback) => {
            let stands_in = if ask.status == 0 { fill.if_it_fails } else { fill.if_unavailable };
            assert_eq!(Some(outcome.outcome), stands_in, "{explanation}");
        }
        (Some(fill), _) => {
            assert_eq!(outcome.outcome, expected.outcome, "{explanation}");
            assert!(ask.status != 503 || fill.if_unavailable.is_none(), "nothing stood in: {explanation}");
            let refused_confirmation = ask.status == 304 && exchange.status == 304;
            assert!(!refused_confirmation || !fill.conditional, "{explanation}");
        }
    }
    if let Some(age) = outcome.age.filter(|_| explanation.fill.is_none()) {
        let stored = explanation.stored.as_ref().expect("what was sent is explained");
        assert_eq!(stored.age, age);
        assert_eq!(stored.status == StatusCode::OK || exchange.status == stored.status.as_u16(), true);
    }
    let after = house.handle.explain(&head).await;
    shows_no_secrets(&after);
    match outcome.stored {
        Some(Ok(())) => {
            seen.note(format_args!("stored"));
            // A POST isn't looked up; what it brought is found by a GET.
            assert!(ask.method == "POST" || after.stored.is_some(), "{explanation}{after}");
        }
        Some(Err(reason)) => seen.note(reason),
        None => {}
    }
}

#[test]
fn each_answer_is_what_was_explained_before() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let seen = Seen::default();
    // The same workload each time, so that it is known what is in it; as many others as wanted with `PROPTEST_CASES`.
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = match std::env::var_os("PROPTEST_CASES") {
        Some(_) => TestRunner::new(config),
        None => {
            let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
            TestRunner::new_with_rng(ProptestConfig { cases: 400, ..config }, rng)
        }
    };
    let paths = prop::collection::vec(select(PATHS.to_vec()), 1..3);
    let steps = paths.prop_flat_map(|paths| prop::collection::vec(step(paths), 1..80));
    runner
        .run(&steps, |steps| {
            runtime.block_on(run(steps, &seen));
            Ok(())
        })
        .unwrap_or_else(|failed| panic!("{failed}"));
    let seen = seen.0.into_inner().unwrap();
    println!("{seen:#?}");
    for wanted in [
        "Hit",
        "Fallback",
        "Stale(WhileRevalidate)",
        "Stale(IfError)",
        "Stale(MaxStale)",
        "Stale(Unconfirmed)",
        "Stale(CacheOnly)",
        "Revalidated(Stale)",
        "Revalidated(Request)",
        "Miss(UriMiss)",
        "Miss(VaryMiss)",
        "Miss(Request)",
        "Miss(Stale)",
        "Miss(OnlyIfCached)",
        "Miss(NetworkFirst)",
        "Miss(CacheOnly)",
        "Bypass(Credentials)",
        "Bypass(NoPrincipal)",
        "Bypass(Rerouted)",
        "Bypass(AmbiguousPath)",
        "stored",
        "failed",
        "200",
        "206",
        "304",
        "412",
        "416",
        "504",
    ] {
        assert!(seen.contains_key(wanted), "the workload had no {wanted}: {seen:#?}");
    }
}
