//! A rule in shadow serves and stores nothing, and finds out whether its answers may be shared: how many were the same, or which part of the
//! requests makes them differ. Of what requests and answers say it keeps nothing that could be read.

mod support;

use futures_util::stream;
use http::request::Parts;
use http::{HeaderName, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use larder::report::{Advice, Comparison, RequestPart, Verdict};
use larder::{BypassReason, CacheLayer, Outcome, Policy, RequestHead, Selector};
use support::exchange::*;
use support::traffic::{Chance, Zipf};

fn shadow() -> Policy {
    Policy::shared(MINUTE).shadow()
}

fn house(policy: Policy, answers: impl Fn(&Parts, usize) -> Response<Content> + Send + Sync + 'static) -> House {
    House::with(Handler::new(answers), |layer| layer.rule("^/", policy))
}

/// What was compared so far.
fn compared(house: &House) -> Comparison {
    try_compared(house).expect("something was compared")
}

fn try_compared(house: &House) -> Option<Comparison> {
    house.handle.report().routes.into_iter().next()?.shadow
}

fn said<'a>(head: &'a Parts, name: &str) -> &'a str {
    head.headers.get(name).map_or("", |value| value.to_str().expect("a text"))
}

/// The parts that answers are said to depend on.
fn culprits(comparison: &Comparison) -> Vec<RequestPart> {
    match &comparison.verdict {
        Verdict::DependsOn(parts) => parts.iter().map(|evidence| evidence.part.clone()).collect(),
        _ => Vec::new(),
    }
}

#[tokio::test]
async fn nothing_is_served_from_the_store_or_stored() {
    let house = house(shadow(), |_, n| answer(200, &[("etag", "\"a\"")], n.to_string()));
    for n in 1..=3 {
        let exchange = house.get("/").await;
        assert_eq!(exchange.body, n.to_string());
        assert_eq!(exchange.outcome.map(|outcome| outcome.outcome), Some(Outcome::Bypass(BypassReason::Shadow)));
        assert_eq!(exchange.cache_status, "larder; fwd=bypass; detail=shadow");
        assert_eq!(exchange.field("cache-control"), "", "the handler's answer is as it was");
    }
    let stats = house.handle.stats();
    assert_eq!((stats.bypassed, stats.stored, stats.storage.entries), (3, 0, 0));
    // The request too: what would be hidden or asked otherwise isn't.
    let fields = [("cookie", "a=1"), ("if-none-match", "\"a\""), ("range", "bytes=0-0")];
    let stripped = House::with(Handler::saying(&[]), |layer| {
        layer.otherwise(shadow().strip_credentials().ignore_query(["utm_*"]).sort_query())
    });
    stripped.ask("/?utm_source=x&a=1", &fields).await;
    let seen = stripped.handler.last();
    assert_eq!(seen.uri, "/?utm_source=x&a=1");
    assert!(fields.iter().all(|(name, value)| said(&seen, name) == *value), "{:?}", seen.headers);
}

#[tokio::test]
async fn answers_that_are_the_same_are_safe_after_a_hundred_comparisons() {
    // Keys are counted by keyed hashes, two of ten in one place of 512 in one cache of twelve: those say nine, and another one is asked.
    let mut houses = 0;
    let (house, comparison) = loop {
        let house = house(shadow(), |head, _| answer(200, &[], head.uri.path().to_owned()));
        for n in 0..110 {
            if n == 109 {
                let comparison = compared(&house);
                assert_eq!((comparison.answers, &comparison.verdict), (99, &Verdict::TooFew { missing: 1 }));
                assert!(house.handle.report().recommendations.is_empty());
            }
            house.ask(&format!("/{}", n % 10), &[("user-agent", &format!("browser {n}"))]).await;
        }
        let comparison = compared(&house);
        houses += 1;
        if comparison.keys == 10 || houses == 5 {
            break (house, comparison);
        }
    };
    assert_eq!((comparison.answers, comparison.keys, comparison.differing), (100, 10, 0));
    assert_eq!(comparison.verdict, Verdict::Same);
    let report = house.handle.report();
    let [recommendation] = &report.recommendations[..] else { panic!("{report}") };
    assert_eq!(recommendation.advice, Advice::Safe(comparison));
    assert_eq!(
        (recommendation.rule.as_deref(), recommendation.word.as_str()),
        (Some("^/"), "the rule without .shadow()")
    );
    assert!(report.to_string().contains("safe to share: the same in 100 comparisons over 10 keys"), "{report}");
}

#[tokio::test]
async fn what_only_one_user_was_answered_is_not_called_safe_for_all() {
    let house = house(shadow(), |_, _| answer(200, &[], "always"));
    for _ in 0..200 {
        house.ask("/", &[("authorization", "Basic x"), ("cookie", "_ga=1")]).await;
    }
    assert_eq!(compared(&house).verdict, Verdict::SameForOneUser);
    assert!(house.handle.report().recommendations.is_empty());
    for n in 0..30 {
        house.ask("/", &[("authorization", &format!("Basic {n}"))]).await;
    }
    let comparison = compared(&house);
    assert!(comparison.across_credentials >= 30, "{comparison:?}");
    assert_eq!(comparison.verdict, Verdict::Same);
}

/// What a visitor's requests say, with what changes from one to the next.
fn visitor(chance: &mut Chance, n: usize) -> Vec<(&'static str, String)> {
    let browser = chance.below(40);
    let languages = ["de", "en", "en-GB,en;q=0.8", "fr", "it,en"];
    let mut cookies = format!("session={:x}; seen={}", chance.number(), chance.below(3));
    if browser.is_multiple_of(3) {
        cookies += "; theme=dark";
    }
    let mut fields = vec![
        ("user-agent", format!("browser {browser}")),
        ("accept-language", chance.one_of(&languages).to_string()),
        ("x-request-id", n.to_string()),
        ("accept-encoding", chance.one_of(&["gzip", "gzip, br", ""]).to_string()),
        ("cookie", cookies),
    ];
    if browser.is_multiple_of(4) {
        fields.push(("dnt", "1".into()));
    }
    fields
}

#[tokio::test]
async fn an_undeclared_vary_is_named_within_a_thousand_requests() {
    type Answers = fn(&Parts) -> String;
    let field = |name: &str| RequestPart::Field(name.into());
    let cookie = |name: &str| RequestPart::Cookie(name.into());
    let parameter = |name: &str| RequestPart::Parameter(name.into());
    let rows: [(Answers, Vec<RequestPart>, &str); 6] = [
        (
            |head| said(head, "accept-language").into(),
            vec![field("accept-language")],
            ".key_header(\"accept-language\")",
        ),
        // Many values mean the same.
        (
            |head| said(head, "accept-language").starts_with("de").to_string(),
            vec![field("accept-language")],
            ".key_header(\"accept-language\")",
        ),
        (|head| said(head, "cookie").contains("theme=dark").to_string(), vec![cookie("theme")], "Policy::per(..)"),
        (|head| said(head, "dnt").into(), vec![field("dnt")], ".key_header(\"dnt\")"),
        (
            |head| head.uri.query().unwrap_or_default().contains("utm_source=mail").to_string(),
            vec![parameter("utm_source")],
            ", without ignoring the query parameter \"utm_source\"",
        ),
        (
            |head| format!("{}{}", said(head, "accept-language").starts_with("de"), said(head, "dnt")),
            vec![field("accept-language"), field("dnt")],
            ".key_header(\"accept-language\").key_header(\"dnt\")",
        ),
    ];
    for (answers, expected, word) in rows {
        for seed in 0..5 {
            let policy = shadow().ignore_query(["utm_*"]);
            let house = house(policy, move |head, _| answer(200, &[], answers(head)));
            let (mut chance, pages) = (Chance(seed), Zipf::new(20));
            let mut found = None;
            for n in 0..1000 {
                let fields = visitor(&mut chance, n);
                let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
                let from = chance.one_of(&["", "?utm_source=mail", "?utm_source=web"]);
                house.ask(&format!("/{}{from}", pages.draw(&mut chance)), &fields).await;
                house.clock.advance(std::time::Duration::from_millis(chance.wait(200.0)));
                let mut named = if n % 50 == 49 { culprits(&compared(&house)) } else { Vec::new() };
                named.sort();
                if named == expected {
                    found = found.or(Some(n + 1));
                } else if !named.is_empty() || n == 999 {
                    // Later evidence may speak against a first suspicion, and at the end it has to be the right one.
                    found = None;
                }
            }
            let report = house.handle.report();
            println!("{expected:?}, seed {seed}: found after {found:?} requests");
            assert!(found.is_some(), "{expected:?}, seed {seed}: {report}");
            assert_eq!(report.recommendations[0].word, word);
            assert!(matches!(report.recommendations[0].advice, Advice::Unsafe(_)));
        }
    }
}

#[tokio::test]
async fn what_differs_at_random_has_no_culprit() {
    let house = house(shadow(), |_, n| answer(200, &[], n.to_string()));
    for n in 0..200 {
        house.ask("/", &[("accept-language", ["de", "en"][n % 2])]).await;
    }
    let comparison = compared(&house);
    assert_eq!((comparison.answers, comparison.differing), (199, 199));
    let Verdict::OverTime { equal_requests, different } = comparison.verdict else { panic!("{comparison:?}") };
    assert!(equal_requests > 50 && equal_requests == different, "{comparison:?}");
    let report = house.handle.report().to_string();
    assert!(
        report.contains("not safe to share: 199 of 199 answers were different, over time or at random"),
        "{report}"
    );
}

#[tokio::test]
async fn where_no_two_requests_agree_it_says_in_what() {
    let house = house(shadow(), |head, _| answer(200, &[], format!("for {}", said(head, "cookie"))));
    for n in 0..200 {
        let cookie = format!("session={n}");
        house.ask("/", &[("cookie", &cookie), ("accept-language", ["de", "en"][n % 2])]).await;
    }
    let report = house.handle.report();
    assert!(report.to_string().contains("perhaps depending on the cookie session"), "{report}");
    assert_eq!(report.recommendations[0].word, "Policy::per(..)");
}

#[tokio::test]
async fn what_the_key_or_the_answer_tells_apart_is_no_difference() {
    let by_language = |fields: &'static [(&'static str, &'static str)]| {
        move |head: &Parts, _| answer(200, fields, said(head, "accept-language").to_owned())
    };
    let language = HeaderName::from_static("accept-language");
    let user = |head: &RequestHead<'_>| head.headers.get("accept-language").map(|value| value.as_bytes().to_vec());
    let houses = [
        house(shadow(), by_language(&[("vary", "Accept-Language")])),
        house(shadow().key_header(language), by_language(&[])),
        house(Policy::per(user, MINUTE).shadow(), by_language(&[])),
    ];
    for house in houses {
        for n in 0..300 {
            house.ask("/", &[("accept-language", ["de", "en", "fr"][n % 3])]).await;
        }
        let comparison = compared(&house);
        assert_eq!((comparison.answers, comparison.differing, &comparison.verdict), (297, 0, &Verdict::Same));
    }
}

#[tokio::test]
async fn an_answer_is_compared_only_with_what_would_still_be_served() {
    enum Between {
        Seconds(u64),
        Purge(Selector),
        Write,
    }
    use Between::{Purge, Seconds, Write};
    // What happens between the two answers, which differ; and whether a cache would have served the first.
    let rows = [
        (Seconds(0), true),
        (Seconds(59), true),
        (Seconds(60), false),
        (Purge(Selector::Uri("/a".into())), false),
        (Purge(Selector::Everything), false),
        (Purge(Selector::Uri("/b".into())), true),
        (Write, false),
    ];
    for (n, (between, served)) in rows.into_iter().enumerate() {
        let house = house(shadow(), |_, n| answer(200, &[], n.to_string()));
        house.get("/a").await;
        match between {
            Seconds(seconds) => house.advance(seconds),
            Purge(selector) => drop(house.handle.purge(selector).await.expect("purged")),
            Write => drop(house.exchange(request("PUT", "/a", &[])).await),
        }
        house.get("/a").await;
        let differing = try_compared(&house).map_or(0, |comparison| comparison.differing);
        assert_eq!(differing == 1, served, "row {n}");
    }
}

#[tokio::test]
async fn what_would_not_be_stored_is_not_compared() {
    let rows: [(u16, &[(&str, &str)]); 7] = [
        (200, &[("cache-control", "no-store")]),
        (200, &[("cache-control", "private")]),
        (200, &[("set-cookie", "a=1")]),
        (200, &[("vary", "*")]),
        (200, &[("content-type", "text/event-stream")]),
        (304, &[]),
        (500, &[]),
    ];
    for (status, fields) in rows {
        let house = house(shadow(), move |_, n| answer(status, fields, n.to_string()));
        for _ in 0..3 {
            house.get("/").await;
        }
        assert_eq!(try_compared(&house), None, "{status} {fields:?}");
        assert_eq!(house.handle.report().routes[0].fetches, 3);
    }
    let head_only = house(shadow(), |_, n| answer(200, &[], n.to_string()));
    for _ in 0..3 {
        head_only.exchange(request("HEAD", "/", &[])).await;
    }
    assert!(head_only.handle.report().routes.is_empty());
}

#[tokio::test]
async fn requests_that_the_policy_would_not_look_up_bypass_as_ever() {
    let house = house(Policy::guarded(MINUTE).shadow(), |_, n| answer(200, &[], n.to_string()));
    for n in 0..200 {
        let exchange = house.ask("/", &[("authorization", &format!("Basic {n}"))]).await;
        assert_eq!(exchange.cache_status, "larder; fwd=bypass; detail=credentials");
    }
    house.get("/").await;
    house.get("/").await;
    assert_eq!(house.handle.report().routes[0].fetches, 202);
}

/// Content in pieces that are ready one after another.
fn pieces(content: &str, size: usize, breaks: bool) -> Content {
    let pieces: Vec<_> = content.as_bytes().chunks(size).map(|piece| Ok(Frame::data(piece.to_vec().into()))).collect();
    let end = breaks.then_some(Err(Failure));
    StreamBody::new(stream::iter(pieces.into_iter().chain(end))).boxed()
}

#[tokio::test]
async fn content_that_streams_is_hashed_as_it_passes() {
    let content = "0123456789".repeat(1000);
    // The size of the pieces changes from one answer to the next.
    for (path, size, expected) in [
        ("/same", 10_000, Some((9, 0))),
        ("/changes", 20_000, Some((9, 9))),
        ("/breaks", 10_000, None),
        ("/large", 9_999, None),
    ] {
        let content = content.clone();
        let handler = Handler::new(move |head, n| {
            let content = if head.uri.path() == "/changes" { format!("{content}{n}") } else { content.clone() };
            Response::new(pieces(&content, 7 * n + 1, head.uri.path() == "/breaks"))
        });
        let house = House::with(handler, |layer| layer.otherwise(shadow()).max_body_size(size));
        for _ in 0..10 {
            let exchange = house.try_exchange(get(path)).await;
            assert_eq!(exchange.is_ok(), path != "/breaks");
        }
        let counted = try_compared(&house).map(|comparison| (comparison.answers, comparison.differing));
        assert_eq!(counted, expected, "{path}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_halfway_teaches_nothing() {
    let house = house(shadow(), |_, n| Response::new(pieces(&format!("{n}{}", "x".repeat(1000)), 100, false)));
    for _ in 0..10 {
        use tower::ServiceExt;
        let mut response = house.service.clone().oneshot(get("/")).await.expect("an answer");
        assert!(response.body_mut().frame().await.is_some_and(|frame| frame.is_ok()));
    }
    assert_eq!(try_compared(&house), None);
}

#[tokio::test]
async fn another_key_begins_anew_and_out_of_the_shadow_it_is_served() {
    let layer = |policy: Policy| CacheLayer::in_memory(1 << 20).rule("^/", policy);
    let by_language = Handler::new(|head, _| answer(200, &[], said(head, "accept-language").to_owned()));
    let house = House::around(by_language, layer(shadow()));
    let ask = async |count: usize| {
        for n in 0..count {
            house.ask("/", &[("accept-language", ["de", "en"][n % 2])]).await;
        }
    };
    ask(200).await;
    assert_eq!(culprits(&compared(&house)), [RequestPart::Field("accept-language".into())]);
    let keyed = Policy::shared(MINUTE).key_header(HeaderName::from_static("accept-language"));
    house.handle.reconfigure(&layer(keyed.clone().shadow())).expect("the same store");
    assert!(house.handle.report().routes.is_empty());
    ask(200).await;
    assert_eq!(compared(&house).verdict, Verdict::Same);
    house.handle.reconfigure(&layer(keyed)).expect("the same store");
    ask(200).await;
    assert_eq!((house.handle.stats().hits, house.handle.stats().misses), (198, 2));
}

#[tokio::test]
async fn of_what_was_said_nothing_is_kept_but_names() {
    let house = house(shadow().ignore_query(["token"]), |head, _| {
        answer(200, &[("x-secret", "hunter2")], format!("for {}", said(head, "cookie")))
    });
    for n in 0..100 {
        let cookie = format!("session=hunter2{n}");
        house.ask("/?token=hunter2", &[("cookie", &cookie), ("authorization", "Bearer hunter2")]).await;
    }
    let report = house.handle.report();
    let text = format!("{report} {report:?}");
    assert!(text.contains("the cookie session"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

#[tokio::test]
async fn nothing_is_observed_where_that_is_switched_off() {
    let house = House::with(Handler::saying(&[]), |layer| layer.otherwise(shadow()).observe_answers(false));
    house.get("/").await;
    assert_eq!(house.get("/").await.cache_status, "larder; fwd=bypass; detail=shadow");
    assert!(house.handle.report().routes.is_empty());
}
