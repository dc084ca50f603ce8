//! The report says what the handler's answers have taught, with the evidence: what a longer lifetime would save, before anybody sets it; what repeats
//! itself uncached, and for whom; what makes keys many for nothing; what the misses are. Without evidence it says nothing.

mod support;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Response};
use larder::report::{Advice, DimensionKind, RouteReport, TtlOutcome, Uncached, Verdict};
use larder::{BypassReason, CacheLayer, DeclineReason, ManualClock, MissCause, Policy, Selector, Strategy};
use support::exchange::*;
use support::traffic::{Chance, Zipf};

fn house(
    policy: Policy,
    answers: impl Fn(&http::request::Parts, usize) -> Response<Content> + Send + Sync + 'static,
) -> House {
    House::with(Handler::new(answers), |layer| layer.rule("^/", policy))
}

fn route(house: &House) -> RouteReport {
    house.handle.report().routes.into_iter().next().expect("a route with answers")
}

fn words(house: &House) -> Vec<String> {
    house.handle.report().recommendations.into_iter().map(|recommendation| recommendation.word).collect()
}

/// Two hours of requests for pages of which a few are popular, from a cache with this policy. The content changes at noon, so to speak: after an hour.
/// The handler takes 50 ms.
async fn two_hours(policy: Policy, mean_wait: f64) -> House {
    let clock = Arc::new(ManualClock::default());
    let handler = Handler::new({
        let clock = clock.clone();
        move |head, _| {
            clock.advance(Duration::from_millis(50));
            let is_late = larder::Clock::now(&*clock).monotonic > secs(3600);
            answer(200, &[], format!("{} {is_late}", head.uri.path()))
        }
    });
    let house = House::on(clock, handler, CacheLayer::in_memory(64 << 20).rule("^/", policy));
    let (mut chance, pages) = (Chance(7), Zipf::new(200));
    let start = larder::Clock::now(&*house.clock).monotonic;
    let mut at = Duration::ZERO;
    while at < secs(7200) {
        at += Duration::from_millis(chance.wait(mean_wait));
        let page = pages.draw(&mut chance);
        // What the handler took is over when the next request comes, or that one comes late.
        let now = larder::Clock::now(&*house.clock).monotonic - start;
        house.clock.advance(at.saturating_sub(now));
        house.get(&format!("/{page}")).await;
    }
    house
}

fn per_cent(rate: Option<f64>) -> f64 {
    100.0 * rate.expect("there were requests")
}

#[tokio::test]
async fn a_longer_lifetime_does_what_was_predicted_of_it() {
    for (current, wait) in [(10, 600.0), (30, 1500.0)] {
        let before = two_hours(Policy::shared(secs(current)), wait).await;
        let report = before.handle.report();
        let recommendation = report.recommendations.first().unwrap_or_else(|| panic!("{report}"));
        let Advice::LongerTtl { now, outcome, refetches, unchanged } = &recommendation.advice else {
            panic!("{report}")
        };
        assert_eq!((*now, recommendation.rule.as_deref()), (secs(current), Some("^/")));
        assert_eq!(recommendation.word, format!("Policy::shared(Duration::from_secs({}))", outcome.ttl.as_secs()));
        assert!(
            *unchanged <= *refetches && outcome.avoided <= *refetches && outcome.outdated_share <= 0.01,
            "{report}"
        );
        // The shortest that avoids enough, among those that are hardly ever outdated; else the one that avoids most.
        let timely = || report.routes[0].longer.iter().filter(|longer| longer.outdated_share <= 0.01);
        let enough = timely().find(|longer| longer.avoided * 10 >= *unchanged * 8);
        let expected = enough.or_else(|| timely().max_by_key(|longer| longer.avoided));
        assert_eq!(Some(outcome), expected, "{report}");

        // Not only the advised lifetime: others that were reckoned as well.
        let others = [secs(60), secs(600)];
        let is_tried = |tried: &&TtlOutcome| tried.ttl == outcome.ttl || others.contains(&tried.ttl);
        for predicted in report.routes[0].longer.iter().filter(is_tried) {
            let after = two_hours(Policy::shared(predicted.ttl), wait).await;
            let (was, real, foretold) = (
                per_cent(report.routes[0].hit_rate),
                100.0 * after.handle.stats().hit_rate(),
                per_cent(predicted.hit_rate),
            );
            let advised = if predicted.ttl == outcome.ttl { "  <- advised" } else { "" };
            println!(
                "{current} s -> {:>4} s: hit rate {was:.2} %, predicted {foretold:.2} %, real {real:.2} %{advised}",
                predicted.ttl.as_secs()
            );
            assert!((real - foretold).abs() <= 2.0, "{predicted:?}");
            if !advised.is_empty() {
                let spared = before.handler.calls() as f64 - after.handler.calls() as f64;
                let saves = recommendation.saves.as_secs_f64() / 0.05;
                println!("          spared {spared} calls of the handler, predicted {saves:.0}");
                assert!((spared - saves).abs() <= 0.05 * spared, "{spared} {saves}");
            }
        }
    }
}

#[tokio::test]
async fn a_hit_rate_in_the_report_is_that_of_the_statistics() {
    let house = two_hours(Policy::shared(secs(60)), 2000.0).await;
    let (report, stats) = (route(&house), house.handle.stats());
    assert!((report.hit_rate.unwrap_or_default() - stats.hit_rate()).abs() < 1e-9);
    assert_eq!(
        (report.requests, report.fetches, report.lifetime),
        (stats.hits + stats.misses, stats.misses, Some(secs(60)))
    );
    assert_eq!(report.handler_time, Duration::from_millis(50) * stats.misses as u32);
}

#[tokio::test]
async fn content_that_changes_as_often_as_it_is_fetched_gets_no_longer_lifetime() {
    let house = house(Policy::shared(secs(10)), |_, n| answer(200, &[], n.to_string()));
    for _ in 0..200 {
        house.get("/").await;
        house.advance(11);
    }
    let report = route(&house);
    assert_eq!((report.refetches, report.unchanged), (199, 0));
    assert!(words(&house).is_empty(), "{}", house.handle.report());
}

#[tokio::test]
async fn nothing_is_recommended_on_little_evidence_or_for_little_gain() {
    // Seconds between the requests, how many of them, and whether that is enough to say something.
    for (gap, requests, expected) in [(11, 51, true), (11, 50, false), (90_000, 200, false)] {
        let house = house(Policy::shared(secs(10)), |_, _| answer(200, &[], "same"));
        for _ in 0..requests {
            house.get("/").await;
            house.advance(gap);
        }
        assert_eq!(!words(&house).is_empty(), expected, "{gap}, {requests}: {}", house.handle.report());
    }
    assert!(House::new(Handler::saying(&[])).handle.report().routes.is_empty());
    let text = House::new(Handler::saying(&[])).handle.report().to_string();
    assert_eq!(text, "Nothing to recommend yet.\n");
}

#[tokio::test]
async fn the_word_for_a_lifetime_is_the_one_that_counts() {
    const STATED: &[(&str, &str)] = &[("cache-control", "max-age=10")];
    let user = |_: &larder::RequestHead<'_>| Some("me");
    type Fields = &'static [(&'static str, &'static str)];
    let rows: [(Policy, Fields, &str); 6] = [
        (Policy::shared(secs(10)), &[], "Policy::shared(Duration::from_secs(60))"),
        (Policy::guarded(secs(10)), &[], "Policy::guarded(Duration::from_secs(60))"),
        (Policy::per(user, secs(10)), &[], "Policy::per(.., Duration::from_secs(60))"),
        (Policy::from_origin(), STATED, "Cache-Control: max-age=60 from the handler"),
        (Policy::shared(secs(300)), STATED, "Policy::shared(Duration::from_secs(60)).override_origin()"),
        (
            Policy::shared(secs(10)).override_origin(),
            &[("cache-control", "max-age=1")],
            "Policy::shared(Duration::from_secs(60))",
        ),
    ];
    for (policy, fields, word) in rows {
        let house = house(policy, |_, _| answer(200, fields, "same"));
        for _ in 0..600 {
            house.get("/").await;
            house.advance(1);
        }
        assert_eq!(words(&house), [word]);
    }
}

#[tokio::test]
async fn a_confirmation_is_unchanged_content_and_a_purge_or_a_write_no_fault_of_the_lifetime() {
    let confirming = |head: &http::request::Parts, _| {
        let status = if head.headers.contains_key("if-none-match") { 304 } else { 200 };
        answer(status, &[("etag", "\"a\"")], "")
    };
    let confirmed = house(Policy::shared(secs(10)), confirming);
    for _ in 0..60 {
        confirmed.get("/").await;
        confirmed.advance(11);
    }
    assert_eq!(confirmed.handle.stats().revalidated, 59);
    assert_eq!((route(&confirmed).refetches, route(&confirmed).unchanged), (59, 59));
    for is_purge in [true, false] {
        let house = house(Policy::shared(secs(10)), |_, _| answer(200, &[], "same"));
        for _ in 0..60 {
            house.get("/").await;
            if is_purge {
                house.handle.purge(Selector::Uri("/".into())).await.expect("purged");
            } else {
                house.exchange(request("POST", "/", &[])).await;
            }
            house.advance(11);
        }
        assert_eq!(route(&house).refetches, 0);
        assert!(words(&house).is_empty());
    }
}

#[tokio::test]
async fn what_is_not_cached_and_repeats_itself_gets_the_word_that_is_safe() {
    type Answers = fn(&http::request::Parts, usize) -> Response<Content>;
    fn said<'a>(head: &'a http::request::Parts, name: &str) -> &'a str {
        head.headers.get(name).map_or("", |value| value.to_str().expect("a text"))
    }
    let same: Answers = |_, _| answer(200, &[], "same");
    let by_user: Answers = |head, _| answer(200, &[], said(head, "authorization").to_owned());
    let by_language: Answers = |head, _| answer(200, &[], said(head, "accept-language").to_owned());
    let by_language_and_saying_so: Answers =
        |head, _| answer(200, &[("vary", "Accept-Language")], said(head, "accept-language").to_owned());
    let rows: [(Policy, Answers, bool, Uncached, &[&str]); 10] = [
        (Policy::bypass(), same, false, Uncached::Bypass(BypassReason::Rule), &["Policy::guarded("]),
        (Policy::bypass(), same, true, Uncached::Bypass(BypassReason::Rule), &["Policy::shared("]),
        (Policy::bypass(), by_user, true, Uncached::Bypass(BypassReason::Rule), &["Policy::per("]),
        (
            Policy::bypass(),
            by_language,
            false,
            Uncached::Bypass(BypassReason::Rule),
            &["Policy::guarded(", ".key_header(\"accept-language\")"],
        ),
        (
            Policy::bypass(),
            by_language_and_saying_so,
            false,
            Uncached::Bypass(BypassReason::Rule),
            &["Policy::guarded("],
        ),
        (
            Policy::shared(MINUTE).strategy(Strategy::NetworkOnly),
            same,
            false,
            Uncached::Bypass(BypassReason::NetworkOnly),
            &["Policy::guarded("],
        ),
        (Policy::guarded(MINUTE), by_user, true, Uncached::Bypass(BypassReason::Credentials), &["Policy::per("]),
        (Policy::from_origin(), same, false, Uncached::Declined(DeclineReason::NoFreshness), &["Policy::guarded("]),
        (
            Policy::from_origin(),
            |_, _| answer(200, &[("cache-control", "max-age=60")], "same"),
            true,
            Uncached::Declined(DeclineReason::Authorization),
            &["Policy::shared("],
        ),
        (
            Policy::from_origin(),
            |head, _| {
                answer(
                    200,
                    &[("vary", "Authorization"), ("cache-control", "public, max-age=60")],
                    said(head, "authorization").to_owned(),
                )
            },
            true,
            Uncached::Declined(DeclineReason::VaryCredentials),
            &["Policy::per("],
        ),
    ];
    for (policy, answers, with_credentials, expected, wanted) in rows {
        let house = house(policy, answers);
        for n in 0..400 {
            let (user, language) = (format!("Basic {}", n % 5), ["de", "en"][n / 5 % 2]);
            let credentials = with_credentials.then_some(("authorization", user.as_str()));
            let fields: Vec<_> = credentials.into_iter().chain([("accept-language", language)]).collect();
            house.ask("/page", &fields).await;
            house.advance(1);
        }
        let report = house.handle.report();
        let [recommendation] = &report.recommendations[..] else { panic!("{expected:?}: {report}") };
        let Advice::Cache { why, outcome, .. } = &recommendation.advice else { panic!("{report}") };
        assert_eq!((*why, outcome.outdated), (expected, 0), "{report}");
        assert!(wanted.iter().all(|word| recommendation.word.contains(word)), "{report}");
        assert!(!recommendation.word.contains("shared(") || wanted[0].contains("shared("), "{report}");
        assert!(recommendation.word.ends_with(".shadow() first"));
    }
}

#[tokio::test]
async fn a_route_that_is_known_is_looked_at_less_closely_and_counts_as_much() {
    let house = house(Policy::bypass(), |head, _| answer(200, &[], head.uri.path().to_owned()));
    // Three hours, in which each of 100 pages is asked for every 30 seconds.
    let (pages, rounds) = (100, 360);
    for _ in 0..rounds {
        for page in 0..pages {
            house.clock.advance(Duration::from_millis(300));
            house.get(&format!("/{page}")).await;
        }
    }
    let report = house.handle.report();
    let [route] = &report.routes[..] else { panic!("{report}") };
    assert_eq!(route.fetches, pages * rounds);
    let compared = route.repeats.as_ref().map_or(0, |repeats| repeats.answers);
    assert!((4096 - pages..12_000).contains(&compared), "{compared}");
    let [recommendation] = &report.recommendations[..] else { panic!("{report}") };
    let Advice::Cache { outcome, .. } = &recommendation.advice else { panic!("{report}") };
    // Of ten requests in five minutes nine would be hits, of four in two three; the first ones of those that are looked at later are missing.
    let predicted = per_cent(outcome.hit_rate);
    let expected = 100.0 * (1.0 - 30.0 / outcome.ttl.as_secs_f64());
    assert!((expected - 5.0..expected + 5.0).contains(&predicted), "{outcome:?}");
}

#[tokio::test]
async fn what_is_not_cached_for_a_good_reason_is_left_alone() {
    type Answers = fn(&http::request::Parts, usize) -> Response<Content>;
    let rows: [(&str, Policy, Answers); 6] = [
        ("no-store", Policy::from_origin(), |_, _| answer(200, &[("cache-control", "no-store")], "same")),
        ("private", Policy::bypass(), |_, _| answer(200, &[("cache-control", "private")], "same")),
        ("a cookie", Policy::bypass(), |_, _| answer(200, &[("set-cookie", "a=1")], "same")),
        ("changes", Policy::bypass(), |_, n| answer(200, &[], n.to_string())),
        ("an error", Policy::bypass(), |_, _| answer(500, &[], "same")),
        ("large", Policy::bypass(), |_, _| answer(200, &[], vec![b'x'; (64 << 10) + 1])),
    ];
    for (what, policy, answers) in rows {
        let house = house(policy, answers);
        for _ in 0..200 {
            house.get("/").await;
            house.advance(1);
        }
        assert!(words(&house).is_empty(), "{what}: {}", house.handle.report());
    }
}

#[tokio::test]
async fn what_saves_most_of_the_handlers_time_comes_first() {
    let clock = Arc::new(ManualClock::default());
    let handler = Handler::new({
        let clock = clock.clone();
        move |head, _| {
            clock.advance(Duration::from_millis(if head.uri.path() == "/slow" { 90 } else { 10 }));
            answer(200, &[], "same")
        }
    });
    let layer = CacheLayer::in_memory(1 << 20).rule("^/quick", Policy::bypass()).rule("^/slow", Policy::bypass());
    let house = House::on(clock, handler, layer);
    for _ in 0..200 {
        house.get("/quick").await;
        house.get("/slow").await;
        house.advance(1);
    }
    let report = house.handle.report();
    let rules: Vec<_> = report.recommendations.iter().map(|recommendation| recommendation.rule.as_deref()).collect();
    assert_eq!(rules, [Some("^/slow"), Some("^/quick")], "{report}");
    let saves = report.recommendations[0].saves.as_secs_f64();
    assert!((14.0..=18.0).contains(&saves), "80 % or more of 18 s: {saves}");
}

/// What asks, under which policy, with which fields of the answer, and what is named: kind, name and word.
type Row = (
    &'static str,
    Policy,
    &'static [(&'static str, &'static str)],
    Option<(DimensionKind, &'static str, &'static str)>,
);

#[tokio::test]
async fn parameters_and_fields_that_make_keys_many_for_nothing_are_named() {
    let vary: &'static [(&'static str, &'static str)] = &[("vary", "User-Agent")];
    let header = HeaderName::from_static("x-client");
    let rows: [Row; 5] = [
        (
            "/a?utm_source=",
            Policy::shared(MINUTE),
            &[],
            Some((DimensionKind::Query, "utm_source", ".ignore_query([\"utm_source\"])")),
        ),
        (
            "/a?b=1&utm_source=",
            Policy::shared(MINUTE),
            &[],
            Some((DimensionKind::Query, "utm_source", ".ignore_query([\"utm_source\"])")),
        ),
        ("/a?matters=", Policy::shared(MINUTE), &[], None),
        (
            "/a#",
            Policy::shared(MINUTE),
            vary,
            Some((DimensionKind::Vary, "user-agent", "the handler's Vary without user-agent")),
        ),
        (
            "/a#",
            Policy::shared(MINUTE).key_header(header),
            &[],
            Some((DimensionKind::KeyHeader, "x-client", "the rule without .key_header(\"x-client\")")),
        ),
    ];
    for (target, policy, fields, expected) in rows {
        let house = House::with(
            Handler::new(move |head, _| {
                let query = head.uri.query().filter(|query| query.starts_with("matters"));
                answer(200, fields, query.unwrap_or_default().to_owned())
            }),
            |layer| layer.rule("^/", policy).max_variants(1000),
        );
        for n in 0..300 {
            let value = n.to_string();
            let target = if target.ends_with('#') { "/a".into() } else { format!("{target}{n}") };
            house.ask(&target, &[("user-agent", &value), ("x-client", &value)]).await;
        }
        let report = house.handle.report();
        match expected {
            Some((kind, name, word)) => {
                let space = report.routes[0].key_space.iter().find(|space| space.name == name).expect("it was seen");
                assert_eq!((space.kind, space.different, space.same), (kind, 0, 299), "{report}");
                assert!((250..350).contains(&space.values), "{report}");
                assert_eq!(words(&house), [word]);
                assert_eq!(report.recommendations[0].advice, Advice::FewerKeys(space.clone()));
            }
            None => {
                assert!(report.routes[0].key_space[0].matters() && words(&house).is_empty(), "{report}");
            }
        }
    }
}

#[tokio::test]
async fn misses_are_told_apart_by_cause() {
    let house = house(Policy::shared(secs(10)), |_, _| answer(200, &[("vary", "Accept-Language")], "same"));
    house.get("/a").await;
    house.advance(11);
    house.get("/a").await;
    house.ask("/a", &[("accept-language", "de")]).await;
    house.handle.purge(Selector::Uri("/a".into())).await.expect("purged");
    house.get("/a").await;
    house.get("/a").await;
    let report = route(&house);
    assert_eq!((report.requests, report.fetches), (5, 4));
    for (cause, count) in
        [(MissCause::FirstSeen, 1), (MissCause::Expired, 1), (MissCause::Variant, 1), (MissCause::Purged, 1)]
    {
        assert!(report.missed.contains(&(cause, count)), "{cause:?}: {:?}", report.missed);
    }
    let text = house.handle.report().to_string();
    assert!(text.contains("first-seen 1") && text.contains("variant 1"), "{text}");
}

#[tokio::test]
async fn a_rule_that_is_changed_begins_anew_and_others_go_on() {
    let layer = |ttl| {
        CacheLayer::in_memory(1 << 20).rule("^/a", Policy::shared(secs(ttl))).rule("^/b", Policy::shared(secs(10)))
    };
    let house = House::around(Handler::new(|_, _| answer(200, &[], "same")), layer(10));
    for _ in 0..100 {
        house.get("/a").await;
        house.get("/b").await;
        house.advance(11);
    }
    assert_eq!(words(&house).len(), 2);
    house.handle.reconfigure(&layer(60)).expect("the same store");
    let report = house.handle.report();
    assert_eq!(report.routes.len(), 1);
    assert_eq!(report.recommendations[0].rule.as_deref(), Some("^/b"));
    house.get("/a").await;
    house.get("/a").await;
    let report = house.handle.report();
    assert_eq!((report.routes[0].requests, report.routes[0].fetches), (2, 1), "{report}");
}

#[tokio::test]
async fn nothing_is_learned_where_that_is_switched_off() {
    let layer = CacheLayer::in_memory(1 << 20).rule("^/", Policy::shared(secs(10))).otherwise(Policy::bypass());
    let house = House::around(Handler::new(|_, _| answer(200, &[], "same")), layer.observe_answers(false));
    for _ in 0..100 {
        house.get("/?a=1").await;
        house.advance(11);
    }
    assert_eq!(house.handle.report(), larder::Report::default());
}

#[tokio::test]
async fn answers_for_one_user_at_a_time_are_never_called_the_same_for_all() {
    let house = house(Policy::bypass(), |_, _| answer(200, &[], "same"));
    for _ in 0..400 {
        house.ask("/", &[("cookie", "session=1")]).await;
        house.advance(1);
    }
    let comparison = route(&house).repeats.expect("it repeats itself");
    assert_eq!((comparison.verdict, comparison.across_credentials), (Verdict::SameForOneUser, 0));
    assert!(words(&house)[0].starts_with("Policy::per("));
}

#[tokio::test]
async fn what_has_no_value_is_no_name() {
    let ignoring = || Policy::shared(MINUTE).ignore_query(["*"]).shadow();
    let rows: [(&str, Policy, &str, &str); 6] = [
        ("a parameter", Policy::shared(MINUTE), "/verify?S3CRET", ""),
        ("with the end of Base64", Policy::shared(MINUTE), "/verify?S3CRET==", ""),
        ("beside one with a name", Policy::shared(MINUTE), "/verify?a=1&S3CRET", ""),
        ("an ignored parameter", ignoring(), "/verify?S3CRET", ""),
        ("a cookie", Policy::bypass(), "/verify", "S3CRET"),
        ("a cookie with the end of Base64", Policy::bypass(), "/verify", "theme=dark; S3CRET="),
    ];
    for (what, policy, target, cookie) in rows {
        let house = house(policy, |head, _| {
            let said = head.headers.get("cookie").map_or("", |value| value.to_str().expect("a text"));
            answer(200, &[], format!("{:?}{said}", head.uri.query()))
        });
        for n in 0..400 {
            let secret = format!("S3CRET{}", n % 3);
            let cookie = cookie.replace("S3CRET", &secret);
            let fields: &[(&str, &str)] = if cookie.is_empty() { &[] } else { &[("cookie", &cookie)] };
            house.ask(&target.replace("S3CRET", &secret), fields).await;
            house.advance(1);
        }
        let report = house.handle.report();
        assert!(!report.routes.is_empty() && !format!("{report}{report:?}").contains("S3CRET"), "{what}: {report:?}");
        assert!(!report.to_string().contains("Policy::shared("), "{what}: {report}");
    }
}
