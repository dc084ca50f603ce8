//! An explanation is what happens: it is asked before each request of a random workload, and held against what the answer says. It changes nothing, and shows no
//! credentials.

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderName, Request, StatusCode};
use http_body_util::Full;
use larder::storage::{Eviction, MemoryStore, Query, Storage, StorageUsage, Variants, with_variant};
use larder::{
    Became, CacheKey, CacheLayer, Cached, DeclineReason, EarlierSettings, Explanation, ForwardReason, KeyPart,
    LifetimeSource, MissCause, Outcome, Policy, RequestHead, Selector, StaleReason, StorageError, StoredResponse,
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
struct Seen(Mutex<BTreeMap<String, usize>>);

impl Seen {
    fn note(&self, what: impl std::fmt::Debug) {
        *self.0.lock().unwrap().entry(format!("{what:?}")).or_default() += 1;
    }
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
    let mut counted = missed(house);
    let exchange = house.try_exchange(request).await;
    quiet().await;
    if let Some(fill) = &explanation.fill {
        *counted.entry(format!("{:?}", fill.missed)).or_default() += 1;
        seen.note(fill.missed);
    }
    assert!(explanation.outcome.is_none() || missed(house) == counted, "{explanation}");
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
        Some(Err(reason)) => {
            seen.note(reason);
            let fate = after.fate.map(|fate| fate.became);
            // A POST isn't looked up, and the answer to a HEAD is never stored: it says nothing about what becomes of the key.
            let is_told = ask.method == "HEAD" || after.key.is_none() || fate == Some(Became::Declined(reason));
            assert!(is_told, "{reason}: {explanation}{after}");
        }
        None => {}
    }
}

/// How often requests went to the handler for each cause, on all routes.
fn missed(house: &House) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for (cause, count) in house.handle.route_stats().into_iter().flat_map(|route| route.missed) {
        *all.entry(format!("{cause:?}")).or_default() += count;
    }
    all
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

async fn explain(house: &House, target: &str, fields: &[(&str, &str)]) -> Explanation {
    let explanation = house.handle.explain(&head_of(&request("GET", target, fields))).await;
    shows_no_secrets(&explanation);
    explanation
}

type Fields = &'static [(&'static str, &'static str)];

#[tokio::test]
async fn the_guide_shows_what_is_printed() {
    let handler = Handler::new(|head, _| match head.uri.path() {
        "/login" => answer(200, &[("cache-control", "max-age=300"), ("set-cookie", "session=s3cret")], "hello"),
        _ => answer(200, &[("etag", "\"1-1\"")], "x".repeat(812)),
    });
    let rule = Policy::shared(MINUTE).stale_while_revalidate(secs(20));
    let house = House::with(handler, |layer| layer.rule("^/products", rule));
    let host = [("host", "shop.test")];
    house.ask("/products/1", &host).await;
    house.ask("/login", &host).await;
    house.advance(18);
    let (product, login) = (explain(&house, "/products/1", &host).await, explain(&house, "/login", &host).await);
    let guide = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/guide.md")).unwrap();
    let (_, section) = guide.split_once("\n## Why is this (not) cached?\n").unwrap();
    let shown = section.split("```text\n").nth(1).and_then(|rest| rest.split("```\n").next()).unwrap();
    // How much an entry takes is another matter.
    let size = product.stored.as_ref().map_or(0, |stored| stored.size).to_string();
    assert_eq!(format!("{product}\n{login}").replace(&size, "1741"), shown);
}

#[tokio::test]
async fn it_tells_who_gave_the_lifetime() {
    use LifetimeSource::*;
    let rows: [(&str, Fields, Option<u64>, Option<(LifetimeSource, u64)>, Option<&str>); 9] = [
        ("/rule", &[], None, Some((Rule, 60)), None),
        ("/rule", &[("cache-control", "max-age=30")], None, Some((MaxAge, 30)), None),
        ("/rule", &[("cache-control", "max-age=30, s-maxage=20")], None, Some((SMaxage, 20)), None),
        ("/rule", &[("cdn-cache-control", "max-age=25")], None, Some((Targeted, 25)), Some("cdn-cache-control")),
        ("/rule", &[("expires", "Thu, 01 Jan 2026 00:02:00 GMT")], None, Some((Expires, 120)), None),
        ("/rule", &[("cache-control", "max-age=30")], Some(7), Some((larder::LifetimeSource::Handler, 7)), None),
        ("/override", &[("cache-control", "max-age=30")], None, Some((Override, 60)), None),
        ("/guess", &[("last-modified", "Wed, 31 Dec 2025 23:50:00 GMT")], None, Some((Heuristic, 60)), None),
        ("/guess", &[("cache-control", "no-cache"), ("etag", "\"v1\"")], None, None, None),
    ];
    for (path, says, cached, expected, field) in rows {
        let house = House::with(
            support::exchange::Handler::new(move |_, _| {
                let mut response = answer(200, says, "x");
                if let Some(ttl) = cached {
                    response.extensions_mut().insert(Cached::shared(secs(ttl)));
                }
                response
            }),
            |layer| {
                layer
                    .rule("^/rule", Policy::shared(MINUTE))
                    .rule("^/override", Policy::shared(MINUTE).override_origin())
                    .otherwise(Policy::from_origin().heuristics(true))
            },
        );
        house.get(path).await;
        house.advance(3);
        let stored = explain(&house, path, &[]).await.stored.expect("it is stored");
        let given = stored.source.map(|source| (source, stored.lifetime.as_secs()));
        assert_eq!((given, stored.field.as_deref()), (expected, field), "{path} {says:?}");
        assert_eq!((stored.age, stored.received), (secs(3), UNIX_EPOCH + secs(START)));
        assert_eq!(stored.fresh_until, Some(UNIX_EPOCH + secs(START) + stored.lifetime), "{path} {says:?}");
        let validate = (expected.is_none()).then_some(ValidateReason::NoCache);
        assert_eq!(stored.validate, validate, "{path} {says:?}");
    }
}

/// Where a [`ManualClock`](larder::ManualClock) starts.
const START: u64 = 1_767_225_600;

#[tokio::test]
async fn it_tells_the_key_and_no_secrets_in_it() {
    let house = House::with(Handler::saying(&[("cache-control", "max-age=60")]), |layer| {
        layer
            .rule(
                "^/me",
                Policy::per(principal, MINUTE)
                    .key_header(HeaderName::from_static("x-tenant"))
                    .key_cookies(["lang", "id*"])
                    .sort_query()
                    .ignore_query(["utm_*"]),
            )
            .rule("^/a", Policy::bypass())
    });
    let fields = [
        ("host", "EXAMPLE.com:80"),
        ("x-user", "pr1ncipal"),
        ("x-tenant", "s3cret"),
        ("x-tenant", "hunter2"),
        ("cookie", "lang=hunter2; id1=s3cret; id2=s3cret; other=1"),
        ("x-forwarded-host", "elsewhere.test"),
        ("forwarded", "for=1.2.3.4;host=hunter2, proto=https"),
    ];
    let explanation = explain(&house, "/me/x?b=1&utm_a=2&a=3", &fields).await;
    let key = explanation.key.expect("it is looked up");
    assert_eq!(
        (key.authority.as_str(), key.path.as_str(), key.query.as_deref()),
        ("example.com", "/me/x", Some("a=3&b=1"))
    );
    let field = |name: &str, lines| KeyPart::Field { name: name.into(), lines };
    let cookie = |name: &str, count| KeyPart::Cookie { name: name.into(), count };
    let expected = [
        field("x-forwarded-host", 1),
        field("forwarded", 2),
        field("x-tenant", 2),
        cookie("lang", 1),
        cookie("id*", 2),
        KeyPart::Partition,
    ];
    assert_eq!(key.parts, expected);
    let rule = explanation.rule;
    assert_eq!((rule.index, rule.pattern.as_deref(), rule.audience), (Some(0), Some("^/me"), "per"));
    let ignored = rule.settings.iter().find(|(name, _)| *name == "ignore_query").expect("it is set");
    assert_eq!(ignored.1, "[\"utm_*\"]");
    let bypassed = explain(&house, "/a", &[]).await;
    assert_eq!((bypassed.key, bypassed.rule.audience), (None, "bypass"));
    let otherwise = explain(&house, "/b", &[]).await.rule;
    assert_eq!((otherwise.index, otherwise.pattern, otherwise.audience), (None, None, "from_origin"));
}

#[tokio::test]
async fn it_tells_all_variants_and_which_one_is_meant() {
    let handler = Handler::saying(&[
        ("cache-control", "max-age=60"),
        ("vary", "accept-language, x-tenant"),
        ("cache-groups", "\"g\""),
    ]);
    let house = House::new(handler);
    let (de, en) = ([("accept-language", "de"), ("x-tenant", "s3cret")], [("accept-language", "en")]);
    house.ask("/", &de).await;
    house.advance(5);
    house.ask("/", &en).await;
    let explanation = explain(&house, "/", &de).await;
    let text = |name: &str, said: Option<&str>| (name.to_owned(), said.map(str::to_owned));
    let told: Vec<_> = explanation
        .variants
        .iter()
        .map(|variant| (variant.nominated.clone(), variant.age.as_secs(), variant.chosen))
        .collect();
    let of = |language: &str| vec![text("accept-language", Some(language)), text("x-tenant", None)];
    assert_eq!(told, [(of("en"), 0, false), (of("de"), 5, true)]);
    assert_eq!(explanation.stored.map(|stored| stored.groups), Some(vec!["g".to_owned()]));
    let other = explain(&house, "/", &[("accept-language", "fr")]).await;
    assert_eq!(other.outcome.map(|outcome| outcome.outcome), Some(Outcome::Miss(ForwardReason::VaryMiss)));
    assert!(other.stored.is_none() && other.variants.iter().all(|variant| variant.valid && !variant.chosen));
    let receipt = house.handle.purge(Selector::Everything).await.unwrap();
    let purged = explain(&house, "/", &de).await;
    assert_eq!(purged.outcome.map(|outcome| outcome.outcome), Some(Outcome::Miss(ForwardReason::UriMiss)));
    assert_eq!(purged.fill.map(|fill| fill.missed), Some(MissCause::Purged));
    assert!(purged.variants.iter().all(|variant| !variant.valid && variant.number < receipt.number));
}

#[tokio::test]
async fn it_tells_the_spelling_that_was_learned() {
    let house = House::new(Handler::saying(&[
        ("cache-control", "max-age=60"),
        ("no-vary-search", "params=(\"utm\"), key-order"),
    ]));
    house.get("/a?x=1&utm=2&b=1").await;
    let explanation = explain(&house, "/a?b=1&x=1", &[]).await;
    assert_eq!(explanation.outcome.map(|outcome| outcome.outcome), Some(Outcome::Hit));
    let key = explanation.key.expect("it is looked up");
    assert_eq!((key.query.as_deref(), key.search.as_deref()), (Some("b=1&x=1"), Some("key-order, params=(\"utm\")")));
}

#[tokio::test]
async fn it_tells_what_becomes_of_what_was_stored_under_other_settings() {
    let rules = |policy: Policy| CacheLayer::in_memory(1 << 20).rule("^/", policy);
    let rows = [
        (Policy::shared(secs(20)), Some(EarlierSettings::Adopted), Outcome::Hit),
        (Policy::guarded(MINUTE), Some(EarlierSettings::OtherAudience), Outcome::Miss(ForwardReason::UriMiss)),
        (
            Policy::shared(MINUTE).statuses([StatusCode::NOT_FOUND]),
            Some(EarlierSettings::Declined(DeclineReason::RuleStatus)),
            Outcome::Miss(ForwardReason::UriMiss),
        ),
        (Policy::shared(MINUTE), None, Outcome::Hit),
    ];
    for (policy, expected, outcome) in rows {
        let house = House::around(Handler::saying(&[]), rules(Policy::shared(MINUTE)));
        house.get("/").await;
        house.handle.reconfigure(&rules(policy)).unwrap();
        let explanation = explain(&house, "/", &[]).await;
        assert_eq!(explanation.stored.and_then(|stored| stored.earlier), expected);
        assert_eq!(explanation.outcome.map(|outcome| outcome.outcome), Some(outcome));
        assert_eq!(house.get("/").await.outcome.map(|outcome| outcome.outcome), Some(outcome));
    }
}

#[tokio::test]
async fn it_is_no_use_of_what_is_stored() {
    let store = MemoryStore::new(2400).eviction(Eviction::Lru);
    let house = House::around(
        Handler::saying(&[]),
        CacheLayer::with_memory(store).rule("^/", Policy::shared(MINUTE).sliding(secs(10))),
    );
    for path in ["/a", "/b"] {
        house.get(path).await;
    }
    house.advance(6);
    for _ in 0..100 {
        let unused_until = explain(&house, "/a", &[]).await.stored.and_then(|stored| stored.unused_until);
        assert_eq!(unused_until, Some(UNIX_EPOCH + secs(START + 10)), "nobody has asked for it");
    }
    house.get("/b").await;
    house.get("/c").await;
    assert_eq!(house.handle.stats().storage.entries, 2);
    assert!(explain(&house, "/a", &[]).await.stored.is_none(), "the one that nobody has asked for leaves first");
    assert!(explain(&house, "/b", &[]).await.stored.is_some());
    house.advance(9);
    assert_eq!(explain(&house, "/b", &[]).await.outcome.map(|outcome| outcome.outcome), Some(Outcome::Hit));
    house.advance(2);
    let explanation = explain(&house, "/b", &[]).await;
    assert_eq!(explanation.outcome.map(|outcome| outcome.outcome), Some(Outcome::Miss(ForwardReason::Stale)));
    assert_eq!(house.handler.calls(), 3);
}

/// A store of one's own, which may be out of order.
#[derive(Clone, Default)]
struct Shelf {
    kept: Arc<Mutex<BTreeMap<Vec<u8>, Variants>>>,
    broken: Arc<AtomicBool>,
}

impl Storage for Shelf {
    async fn get(&self, query: Query<'_>) -> Result<Variants, StorageError> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(StorageError::new("out of order"));
        }
        Ok(self.kept.lock().unwrap().get(query.key.as_bytes()).cloned().unwrap_or_default())
    }

    async fn put(&self, key: &CacheKey, response: Arc<StoredResponse>, most: usize) -> Result<(), StorageError> {
        let mut kept = self.kept.lock().unwrap();
        let variants = kept.entry(key.as_bytes().to_vec()).or_default();
        *variants = with_variant(variants, response, most);
        Ok(())
    }

    async fn remove(&self, key: &CacheKey) -> Result<bool, StorageError> {
        Ok(self.kept.lock().unwrap().remove(key.as_bytes()).is_some())
    }

    async fn clear(&self) -> Result<(), StorageError> {
        self.kept.lock().unwrap().clear();
        Ok(())
    }

    fn usage(&self) -> StorageUsage {
        StorageUsage::default()
    }
}

#[tokio::test]
async fn another_store_is_asked_and_its_failure_is_told_and_not_counted() {
    let shelf = Shelf::default();
    let house =
        House::around(Handler::saying(&[("cache-control", "max-age=60")]), CacheLayer::with_storage(shelf.clone()));
    house.get("/").await;
    quiet().await;
    // It can be awaited anywhere.
    let handle = house.handle.clone();
    let request = head_of(&get("/"));
    let explanation = tokio::spawn(async move { handle.explain(&request).await }).await.unwrap();
    assert_eq!(explanation.outcome.map(|outcome| outcome.outcome), Some(Outcome::Hit));
    assert_eq!(explanation.stored.map(|stored| stored.lifetime), Some(MINUTE));
    shelf.broken.store(true, Ordering::Relaxed);
    let explanation = explain(&house, "/", &[]).await;
    assert_eq!(explanation.store_error.as_deref(), Some("the store failed: out of order"));
    assert_eq!(explanation.outcome.map(|outcome| outcome.outcome), Some(Outcome::Miss(ForwardReason::UriMiss)));
    assert_eq!(house.handle.stats().store_errors, 0);
}

#[tokio::test]
async fn what_a_request_waits_for_is_told() {
    let gate = Arc::new(tokio::sync::Notify::new());
    let handler = Handler::waiting({
        let gate = gate.clone();
        move |_, _| {
            let gate = gate.clone();
            async move {
                gate.notified().await;
                Ok(answer(200, &[("cache-control", "private")], "x"))
            }
        }
    });
    let house = House::new(handler);
    let fill = async |house: &House| explain(house, "/", &[]).await.fill.expect("the handler would be asked");
    assert_eq!((fill(&house).await.under_way, fill(&house).await.alone), (0, false));
    let first = tokio::spawn({
        let house = house.clone();
        async move { house.get("/").await }
    });
    quiet().await;
    assert_eq!(fill(&house).await.under_way, 1);
    gate.notify_one();
    first.await.unwrap();
    let after = fill(&house).await;
    assert_eq!((after.under_way, after.alone, after.missed), (0, true, MissCause::Declined));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_head_is_a_panic(
        method in "[A-Z]{1,8}", path in "/[!$-;=?-~\u{80}-\u{ff}]{0,40}", changed: bool,
        fields in prop::collection::vec((select(vec![
            "host", "cookie", "authorization", "cache-control", "range", "if-range", "if-none-match", "if-modified-since", "x-user",
            "x-tenant", "forwarded", "x-forwarded-host", "accept-encoding", "accept-language", "connection", "content-length", "age", "upgrade",
        ]), prop::collection::vec(any::<u8>(), 0..30)), 0..8),
    ) {
        let house = House::around(Handler::saying(&[("vary", "accept-language, x-user"), ("cache-control", "max-age=60")]), layer(changed));
        let mut head = Request::new(());
        *head.method_mut() = method.parse().unwrap();
        let Ok(uri) = path.parse() else { return Ok(()) };
        *head.uri_mut() = uri;
        for (name, value) in fields {
            if let Ok(value) = http::HeaderValue::from_bytes(&value) {
                head.headers_mut().append(name, value);
            }
        }
        let explained = house.handle.explain(&head).now_or_never().expect("the store in memory answers at once");
        let text = explained.to_string();
        prop_assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
        let request = head.map(|()| Full::<Bytes>::default());
        let _ = house.try_exchange(request.clone()).now_or_never();
        let _ = house.handle.explain(&head_of(&request)).now_or_never().expect("and again").to_string();
    }
}
