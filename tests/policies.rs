//! What a route's policy declares is what happens: who is given an answer, for how long, and what the handler sees.

mod support;

use std::io::Write;
use std::sync::{Arc, Mutex};

use axum::response::IntoResponse;
use http::{HeaderName, StatusCode};
use larder::{CacheLayer, Cached, Outcome, Policy, RequestHead, RuleError};
use support::exchange::*;
use tower::{Layer, ServiceExt};

type Fields = &'static [(&'static str, &'static str)];

fn by_user(request: &RequestHead<'_>) -> Option<Vec<u8>> {
    request.headers.get("x-user").map(|user| user.as_bytes().to_vec())
}

fn per_user() -> Policy {
    Policy::per(by_user, MINUTE)
}

fn named(name: &'static str) -> HeaderName {
    HeaderName::from_static(name)
}

/// `HIT` if the second of two equal requests is answered from the store, else the reason why not.
async fn second_answer(policy: Policy, asked: Fields, fields: Fields) -> String {
    let house = House::with(Handler::saying(fields), |layer| layer.otherwise(policy));
    let mut all = vec![("x-user", "me")];
    all.extend(asked);
    let first = house.ask("/", &all).await;
    let second = house.ask("/", &all).await;
    if second.x_cache == "HIT" {
        assert_eq!(second.body, first.body);
        return second.x_cache;
    }
    assert_eq!((second.body.as_str(), house.handle.stats().storage.entries), ("answer 2", 0));
    let outcome = second.outcome.expect("an outcome");
    match outcome.outcome {
        Outcome::Bypass(reason) => reason.as_str().into(),
        _ => outcome.stored.expect("it was a question").expect_err("it was declined").to_string(),
    }
}

#[tokio::test]
async fn audiences() {
    const FRESH: (&str, &str) = ("cache-control", "max-age=60");
    // What the request has, what the response says, and what becomes of it: from_origin, shared, per, guarded.
    let rows: [(Fields, Fields, [&str; 4]); 10] = [
        (&[], &[FRESH], ["HIT", "HIT", "HIT", "HIT"]),
        (&[], &[], ["no-freshness", "HIT", "HIT", "HIT"]),
        (&[("authorization", "x")], &[FRESH], ["authorization", "HIT", "HIT", "credentials"]),
        (&[("cookie", "session=1")], &[FRESH], ["HIT", "HIT", "HIT", "credentials"]),
        (&[("cookie", "_ga=1; _ga_X=2")], &[FRESH], ["HIT", "HIT", "HIT", "HIT"]),
        (&[("cookie", "_ga=1; session=2")], &[FRESH], ["HIT", "HIT", "HIT", "credentials"]),
        (&[], &[FRESH, ("set-cookie", "a=b")], ["set-cookie"; 4]),
        (&[], &[FRESH, ("vary", "cookie")], ["vary-credentials", "HIT", "HIT", "vary-credentials"]),
        (&[], &[("cache-control", "max-age=60, private")], ["private"; 4]),
        (&[], &[("cache-control", "max-age=60, no-store")], ["no-store"; 4]),
    ];
    for (asked, fields, expected) in rows {
        let policies = [Policy::from_origin(), Policy::shared(MINUTE), per_user(), Policy::guarded(MINUTE)];
        for (policy, expected) in policies.into_iter().zip(expected) {
            let why = format!("{policy:?}, {asked:?}, {fields:?}");
            assert_eq!(second_answer(policy, asked, fields).await, expected, "{why}");
        }
        assert_eq!(second_answer(Policy::bypass(), asked, fields).await, "rule");
    }
}

/// The shared variants of an answer that varies by cookie are apart, so that even a wrong word doesn't mix users.
#[tokio::test]
async fn a_shared_answer_that_varies_by_cookie_has_a_variant_for_each() {
    let handler = Handler::new(|head, _| answer(200, &[("vary", "cookie")], format!("{:?}", head.headers["cookie"])));
    let house = House::with(handler, |layer| layer.otherwise(Policy::shared(MINUTE)));
    for _ in 0..2 {
        for user in ["a", "b"] {
            assert_eq!(house.ask("/", &[("cookie", user)]).await.body, format!("{user:?}"));
        }
    }
    assert_eq!(house.handler.calls(), 2);
}

#[tokio::test]
async fn what_one_user_stored_is_never_another_users() {
    let handler = Handler::new(|head, _| answer(200, &[], format!("{:?}", head.headers.get("x-user"))));
    let house = House::with(handler, |layer| layer.otherwise(per_user()));
    let users = ["", "a", "b", "ab", "a;b", "A"];
    for round in 0..2 {
        for user in users {
            let exchange = house.ask("/", &[("x-user", user)]).await;
            assert_eq!(exchange.body, format!("Some({user:?})"));
            assert_eq!(exchange.x_cache, ["MISS", "HIT"][round]);
        }
    }
    let nobody = house.get("/").await;
    assert_eq!((nobody.x_cache.as_str(), nobody.body.as_str()), ("BYPASS", "None"));
}

/// At which second an answer is no longer served from the store; 0 if it never was.
async fn lifetime(policy: Policy, status: u16, fields: Fields) -> u64 {
    let handler = Handler::new(move |_, _| answer(status, fields, "a"));
    let house = House::with(handler, |layer| layer.otherwise(policy));
    let ask = || house.ask("/", &[("x-user", "me")]);
    ask().await;
    for second in 0..200 {
        if ask().await.x_cache != "HIT" {
            return second;
        }
        house.advance(1);
    }
    panic!("fresh for more than 200 seconds");
}

#[tokio::test]
async fn lifetimes() {
    const MAX_AGE_5: Fields = &[("cache-control", "max-age=5")];
    let shared = || Policy::shared(secs(60));
    let seven_for_404 = || shared().status_ttl(StatusCode::NOT_FOUND, secs(7));
    let only = |statuses: &[u16]| shared().statuses(statuses.iter().map(|s| StatusCode::from_u16(*s).unwrap()));
    let rows: Vec<(&str, Policy, u16, Fields, u64)> = vec![
        ("the rule's", shared(), 200, &[], 60),
        ("the rule's, for one user", per_user(), 200, &[], 60),
        ("the rule's, guarded", Policy::guarded(secs(60)), 200, &[], 60),
        ("the origin's before the rule's", shared(), 200, MAX_AGE_5, 5),
        (
            "targeted before general",
            shared(),
            200,
            &[("cache-control", "max-age=5"), ("cdn-cache-control", "max-age=9")],
            9,
        ),
        ("the rule's where it overrides", shared().override_origin(), 200, MAX_AGE_5, 60),
        ("what forbids is not overridden", shared().override_origin(), 200, &[("cache-control", "no-store")], 0),
        (
            "validation is not overridden",
            shared().override_origin(),
            200,
            &[("cache-control", "no-cache"), ("etag", "\"a\"")],
            0,
        ),
        ("redirects that last", shared(), 301, &[], 60),
        ("redirects that don't", shared(), 302, &[], 0),
        ("errors have none of their own", shared(), 404, &[], 0),
        ("errors that say so", shared(), 404, MAX_AGE_5, 5),
        ("a status of its own", seven_for_404(), 404, &[], 7),
        ("a status of its own, the origin before", seven_for_404(), 404, MAX_AGE_5, 5),
        ("a status of its own leaves others", seven_for_404(), 200, &[], 60),
        (
            "a status of its own on from_origin",
            Policy::from_origin().status_ttl(StatusCode::NOT_FOUND, secs(7)),
            404,
            &[],
            7,
        ),
        ("only these: one of them", only(&[200, 404]), 404, &[], 60),
        ("only these: another", only(&[404]), 200, MAX_AGE_5, 0),
        ("a provoked error, whatever is said", shared(), 500, MAX_AGE_5, 0),
        ("no guess by default", Policy::from_origin(), 200, &[("last-modified", "Wed, 31 Dec 2025 23:50:00 GMT")], 0),
        (
            "a guess",
            Policy::from_origin().heuristics(true),
            200,
            &[("last-modified", "Wed, 31 Dec 2025 23:50:00 GMT")],
            60,
        ),
    ];
    for (why, policy, status, fields, expected) in rows {
        assert_eq!(lifetime(policy, status, fields).await, expected, "{why}");
    }
}

#[tokio::test]
async fn what_is_said_downstream() {
    let old: Fields =
        &[("expires", "Thu, 01 Dec 1994 16:00:00 GMT"), ("pragma", "x"), ("cache-control", "no-transform")];
    let ours = || Policy::shared(MINUTE).override_origin();
    // The answer that fills the store, and one from there ten seconds later.
    let rows: Vec<(&str, Policy, Fields, &str, &str)> = vec![
        ("the origin's stays", Policy::shared(MINUTE), &[("cache-control", "max-age=50")], "max-age=50", "max-age=50"),
        ("the rule's", Policy::shared(MINUTE), &[], "public, max-age=60", "public, max-age=60"),
        (
            "in place of the origin's",
            ours(),
            old,
            "public, max-age=60, no-transform",
            "public, max-age=60, no-transform",
        ),
        ("of one user's", per_user(), &[], "private, max-age=60", "private, max-age=60"),
        (
            "of one user's, though the handler says otherwise",
            per_user(),
            &[("cache-control", "public, s-maxage=50, must-revalidate"), ("expires", "Thu, 01 Jan 2099 00:00:00 GMT")],
            "private, max-age=50, must-revalidate",
            "private, max-age=50, must-revalidate",
        ),
        (
            "of its own, from each answer",
            ours().downstream(secs(7)),
            old,
            "public, max-age=7, no-transform",
            "public, max-age=17, no-transform",
        ),
    ];
    for (why, policy, fields, first, later) in rows {
        let house = House::with(Handler::saying(fields), |layer| layer.otherwise(policy));
        for (expected, x_cache) in [(first, "MISS"), (later, "HIT")] {
            let exchange = house.ask("/", &[("x-user", "me")]).await;
            assert_eq!((exchange.x_cache.as_str(), exchange.field("cache-control")), (x_cache, expected), "{why}");
            assert!(!exchange.has("expires") && !exchange.has("pragma"), "{why}");
            house.advance(10);
        }
    }
}

#[tokio::test]
async fn queries_that_mean_the_same_share_an_answer_and_the_handler_sees_the_one_form() {
    let plain = || Policy::shared(MINUTE);
    // Two queries, whether they share, and the form that the handler sees of the first.
    let rows: Vec<(Policy, &str, &str, bool, Option<&str>)> = vec![
        (plain(), "?b=2&a=1", "?a=1&b=2", false, Some("b=2&a=1")),
        (plain(), "?", "", false, Some("")),
        (plain().sort_query(), "?b=2&a=1", "?a=1&b=2", true, Some("a=1&b=2")),
        (plain().sort_query(), "?a=2&a=1", "?a=1&a=2", false, Some("a=2&a=1")),
        (plain().ignore_query(["utm_*", "fbclid"]), "?utm_x=1&a=1&fbclid=3", "?a=1&utm_y=2", true, Some("a=1")),
        (plain().ignore_query(["utm_*"]), "?a=1", "?a=2&utm_x=1", false, Some("a=1")),
        (plain().only_query(["a"]), "?b=1&a=1&c=1", "?a=1", true, Some("a=1")),
        (plain().only_query(["a"]), "?a=1", "?a=2", false, Some("a=1")),
        (plain().only_query(["a"]), "?b=1", "?c=1", true, None),
        (plain().ignore_query(["utm_*"]), "?utm_x=1", "", true, None),
        (plain().ignore_query(["utm_*"]), "?", "?utm_x=1", true, None),
    ];
    for (policy, one, other, shared, seen) in rows {
        let why = format!("{one} and {other}");
        let house = House::with(Handler::saying(&[]), |layer| layer.otherwise(policy));
        house.get(&format!("/p{one}")).await;
        let last = house.handler.last();
        assert_eq!((last.uri.path(), last.uri.query()), ("/p", seen), "{why}");
        assert_eq!(house.get(&format!("/p{other}")).await.x_cache == "HIT", shared, "{why}");
    }
}

/// axum hands the original URI to handlers behind a `nest`; it shows the one form as well.
#[tokio::test]
async fn behind_a_nest_the_original_uri_has_the_one_form_too() {
    use axum::extract::OriginalUri;
    let layer = CacheLayer::in_memory(1 << 20).rule("^/api/", Policy::shared(MINUTE).ignore_query(["utm"]));
    let echo = axum::routing::get(|OriginalUri(uri): OriginalUri| async move { uri.to_string() });
    let app = axum::Router::new().nest("/api", axum::Router::new().route("/p", echo).layer(layer));
    let response = app.oneshot(get("/api/p?utm=1&a=2")).await.unwrap();
    assert_eq!(response.headers()["cache-status"], "larder; fwd=uri-miss; stored");
    let body = axum::body::to_bytes(response.into_body(), 100).await.unwrap();
    assert_eq!(body, "/api/p?a=2");
}

#[tokio::test]
async fn key_headers_keep_answers_apart() {
    let policy = Policy::shared(MINUTE).key_header(named("x-tenant"));
    let handler = Handler::new(|head, _| {
        let all: Vec<_> = head.headers.get_all("x-tenant").iter().collect();
        answer(200, &[], format!("{all:?}"))
    });
    let house = House::with(handler, |layer| layer.otherwise(policy));
    let rows: [(Fields, &str); 5] = [
        (&[], "[]"),
        (&[("x-tenant", "")], "[\"\"]"),
        (&[("x-tenant", "a")], "[\"a\"]"),
        (&[("x-tenant", "a"), ("x-tenant", "b")], "[\"a\", \"b\"]"),
        (&[("x-tenant", "a, b")], "[\"a, b\"]"),
    ];
    for x_cache in ["MISS", "HIT"] {
        for (fields, body) in rows {
            let exchange = house.ask("/", fields).await;
            assert_eq!((exchange.x_cache.as_str(), exchange.body.as_str()), (x_cache, body));
        }
    }
}

#[tokio::test]
async fn key_cookies_keep_answers_apart_and_are_all_that_the_handler_sees() {
    let policy = Policy::shared(MINUTE).key_cookies(["theme", "ab_*"]);
    let handler = Handler::new(|head, _| answer(200, &[], format!("{:?}", head.headers.get("cookie"))));
    let house = House::with(handler, |layer| layer.otherwise(policy));
    let rows = [
        ("session=1; theme=dark", "MISS", "Some(\"theme=dark\")"),
        ("theme=dark; session=2", "HIT", "Some(\"theme=dark\")"),
        ("theme=light", "MISS", "Some(\"theme=light\")"),
        ("theme=dark; ab_1=x", "MISS", "Some(\"theme=dark; ab_1=x\")"),
        ("ab_1=x; theme=dark", "HIT", "Some(\"theme=dark; ab_1=x\")"),
        ("ab_2=x; theme=dark", "MISS", "Some(\"theme=dark; ab_2=x\")"),
        ("session=1", "MISS", "None"),
        ("other=1", "HIT", "None"),
    ];
    for (cookie, x_cache, body) in rows {
        let exchange = house.ask("/", &[("cookie", cookie)]).await;
        assert_eq!((exchange.x_cache.as_str(), exchange.body.as_str()), (x_cache, body), "{cookie}");
    }
}

#[tokio::test]
async fn stripped_credentials_reach_no_handler_whose_answer_is_shared() {
    let house = House::with(Handler::saying(&[]), |layer| layer.otherwise(Policy::shared(MINUTE).strip_credentials()));
    let secret: Fields = &[("cookie", "session=1"), ("authorization", "x"), ("accept", "y")];
    house.ask("/", secret).await;
    let seen = house.handler.last().headers;
    assert!(!seen.contains_key("cookie") && !seen.contains_key("authorization") && seen.contains_key("accept"));
    house.exchange(request("POST", "/", secret)).await;
    assert!(house.handler.last().headers.contains_key("cookie"), "a write is nobody else's business");
}

#[tokio::test]
async fn a_dropped_cookie_goes_to_the_first_client_only() {
    let house = House::with(Handler::saying(&[("set-cookie", "a=b")]), |layer| {
        layer.otherwise(Policy::shared(MINUTE).drop_set_cookie())
    });
    assert_eq!(house.get("/").await.field("set-cookie"), "a=b");
    let hit = house.get("/").await;
    assert_eq!((hit.x_cache.as_str(), hit.has("set-cookie")), ("HIT", false));
}

/// Caches downstream must not give that client's cookie to others.
#[tokio::test]
async fn the_answer_with_a_cookie_that_is_dropped_goes_out_as_private() {
    const COOKIE: (&str, &str) = ("set-cookie", "a=b");
    let policy = || Policy::shared(MINUTE).drop_set_cookie();
    let cached = || Cached::shared(MINUTE);
    // The rule, the handler's word and fields, and what is said with the cookie and without.
    let rows: [(Policy, Option<Cached>, Fields, &str, &str); 6] = [
        (policy(), None, &[COOKIE], "private, max-age=60", "public, max-age=60"),
        (policy().downstream(secs(7)), None, &[COOKIE], "private, max-age=7", "public, max-age=7"),
        (policy(), Some(cached()), &[COOKIE], "private, max-age=60", "public, max-age=60"),
        (
            policy().override_origin(),
            None,
            &[COOKIE, ("cache-control", "public, max-age=5")],
            "private, max-age=60",
            "public, max-age=60",
        ),
        (
            policy(),
            None,
            &[COOKIE, ("cache-control", "public, max-age=50")],
            "public, max-age=50, private",
            "public, max-age=50",
        ),
        (policy(), None, &[("x-a", "b")], "public, max-age=60", "public, max-age=60"),
    ];
    for (policy, cached, fields, first, later) in rows {
        let why = format!("{cached:?}, {fields:?}");
        let handler = Handler::new(move |_, _| {
            let mut response = answer(200, fields, "a");
            cached.clone().map(|cached| response.extensions_mut().insert(cached));
            response
        });
        let house = House::with(handler, |layer| layer.otherwise(policy));
        for (expected, x_cache) in [(first, "MISS"), (later, "HIT")] {
            let exchange = house.get("/").await;
            assert_eq!(
                (exchange.x_cache.as_str(), lines(&exchange, "cache-control")),
                (x_cache, expected.into()),
                "{why}"
            );
        }
    }
}

fn lines(exchange: &Exchange, name: &str) -> String {
    let lines = exchange.headers.get_all(name).iter().map(|line| line.to_str().expect("a text"));
    lines.collect::<Vec<_>>().join(", ")
}

/// A limit of the store is no reason to tell caches downstream that one user's answer is everybody's.
#[tokio::test]
async fn one_users_answer_that_isnt_stored_goes_out_as_private_too() {
    type Then = fn() -> http::Response<Content>;
    const PUBLIC: (&str, &str) = ("cache-control", "public, max-age=60");
    let rows: [(&str, Then, &str); 6] = [
        ("too large", || answer(200, &[PUBLIC], "x".repeat(101)), "public, max-age=60, private"),
        ("with a cookie", || answer(200, &[PUBLIC, ("set-cookie", "a=b")], ""), "public, max-age=60, private"),
        ("an error", || answer(500, &[PUBLIC], ""), "public, max-age=60, private"),
        ("no word", || answer(200, &[("set-cookie", "a=b")], ""), "private"),
        ("private already", || answer(200, &[("cache-control", "private")], ""), "private"),
        ("not to be stored at all", || answer(200, &[("cache-control", "no-store")], ""), "no-store"),
    ];
    for (why, then, expected) in rows {
        for method in ["GET", "HEAD"] {
            let handler = Handler::new(move |_, _| then());
            let house = House::with(handler, |layer| layer.max_body_size(100).otherwise(per_user()));
            let exchange = house.exchange(request(method, "/", &[("x-user", "me")])).await;
            assert_eq!(house.handle.stats().stored, 0, "{why}, {method}");
            assert_eq!(lines(&exchange, "cache-control"), expected, "{why}, {method}");
        }
    }
}

/// A cache downstream that listens to a targeted field wouldn't hear `private` (RFC 9213 §2.2).
#[tokio::test]
async fn a_partition_sends_no_targeted_field() {
    let handler = Handler::saying(&[("cdn-cache-control", "max-age=60"), ("cache-control", "max-age=5")]);
    let house = House::with(handler, |layer| layer.otherwise(per_user()));
    for expected in ["MISS", "HIT"] {
        let exchange = house.ask("/", &[("x-user", "me")]).await;
        assert_eq!(exchange.x_cache, expected);
        assert_eq!(lines(&exchange, "cdn-cache-control"), "", "{expected}");
        assert!(lines(&exchange, "cache-control").starts_with("private, max-age="), "{expected}");
    }
}

/// They speak to one client (RFC 6585 §3 to §6): whoever vouches for the route doesn't vouch for them.
#[tokio::test]
async fn what_is_said_to_one_client_is_never_stored_whoever_wants_it() {
    for status in [428, 429, 431, 511] {
        for strict in [false, true] {
            let policies = [Policy::from_origin(), Policy::shared(MINUTE), Policy::shared(MINUTE).override_origin()];
            for (policy, word) in policies.into_iter().flat_map(|policy| [(policy.clone(), false), (policy, true)]) {
                let why = format!("{status}, {policy:?}, strict: {strict}, by the handler's word: {word}");
                let handler = Handler::new(move |_, n| {
                    let mut response =
                        answer(status, &[("cache-control", "public, max-age=60")], format!("answer {n}"));
                    word.then(|| response.extensions_mut().insert(Cached::shared(MINUTE)));
                    response
                });
                let house = House::with(handler, |layer| {
                    let layer = layer.otherwise(policy);
                    if strict { layer.strict_rfc() } else { layer }
                });
                for n in 1..3 {
                    let exchange = house.get("/").await;
                    assert_eq!((exchange.status, exchange.body), (status, format!("answer {n}")), "{why}");
                }
                assert_eq!(house.handle.stats().storage.entries, 0, "{why}");
            }
        }
        let named = StatusCode::from_u16(status).unwrap();
        for policy in [Policy::from_origin().status_ttl(named, MINUTE), Policy::shared(MINUTE).statuses([named])] {
            let error = CacheLayer::in_memory(1).try_rule("^/a", policy).unwrap_err();
            assert!(matches!(error, RuleError::StatusNeverStored { status, .. } if status == named), "{error}");
        }
    }
}

#[tokio::test]
async fn the_first_rule_that_matches_wins() {
    let house = House::with(Handler::saying(&[]), |layer| {
        layer
            .rule("^/a/b", Policy::bypass())
            .rule("^/a", Policy::shared(MINUTE))
            .rule("^/a/c", Policy::bypass())
            .otherwise(Policy::from_origin())
    });
    let rows = [("/a/b", "BYPASS", Some(0)), ("/a/c", "MISS", Some(1)), ("/a/c", "HIT", Some(1)), ("/x", "MISS", None)];
    for (path, x_cache, rule) in rows {
        let exchange = house.get(path).await;
        assert_eq!((exchange.x_cache.as_str(), exchange.outcome.unwrap().rule), (x_cache, rule), "{path}");
    }
}

/// How long, and to whom, by what a handler says in an extension: before the rule, before `Cache-Control`, and behind what forbids.
#[tokio::test]
async fn a_handlers_own_word_counts_before_the_rules() {
    let rows: [(&str, Cached, Fields, Policy, &str); 6] = [
        ("before max-age", Cached::shared(secs(5)), &[("cache-control", "max-age=60")], Policy::from_origin(), "5"),
        ("before a rule", Cached::shared(secs(5)), &[], Policy::shared(MINUTE).override_origin(), "5"),
        (
            "not before no-store",
            Cached::shared(secs(5)),
            &[("cache-control", "no-store")],
            Policy::shared(MINUTE),
            "no-store",
        ),
        (
            "not before private",
            Cached::shared(secs(5)),
            &[("cache-control", "private")],
            Policy::shared(MINUTE),
            "private",
        ),
        ("not before a cookie", Cached::shared(secs(5)), &[("set-cookie", "a")], Policy::shared(MINUTE), "set-cookie"),
        (
            "it can forbid",
            Cached::no_store(),
            &[("cache-control", "max-age=60")],
            Policy::shared(MINUTE).override_origin(),
            "handler",
        ),
    ];
    for (why, cached, fields, policy, expected) in rows {
        let handler = Handler::new(move |_, _| {
            let mut response = answer(200, fields, "a");
            response.extensions_mut().insert(cached.clone());
            response
        });
        let house = House::with(handler, |layer| layer.otherwise(policy));
        // With credentials: the extension also says who the answer is for (RFC 9111 §3.5).
        let asked = [("authorization", "x")];
        let first = house.ask("/", &asked).await;
        let told = match first.outcome.unwrap().stored.unwrap() {
            Err(reason) => reason.to_string(),
            Ok(()) => house.ask("/", &asked).await.outcome.unwrap().ttl.unwrap().to_string(),
        };
        assert_eq!(told, expected, "{why}");
    }
}

#[tokio::test]
async fn with_axum_a_handlers_word_stands_in_the_tuple() {
    async fn handler() -> impl IntoResponse {
        (Cached::shared(secs(30)).downstream(secs(3)).stale_if_error(secs(9)), [("x-a", "1")], "text")
    }
    let app = axum::Router::new().route("/", axum::routing::get(handler)).layer(CacheLayer::in_memory(1 << 20));
    let first = app.clone().oneshot(get("/")).await.unwrap();
    assert_eq!(first.headers()["cache-control"], "public, max-age=3");
    let second = app.oneshot(get("/")).await.unwrap();
    assert_eq!(
        (&second.headers()["x-cache"], &second.headers()["x-a"]),
        (&"HIT".parse().unwrap(), &"1".parse().unwrap())
    );
    assert_eq!(second.headers()["cache-status"], "larder; hit; ttl=30");
}

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("not poisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_guarded_rule_says_once_what_keeps_its_requests_out() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let house = House::with(Handler::saying(&[]), |layer| {
        layer.rule("^/one/", Policy::guarded(MINUTE)).rule("^/two/", Policy::guarded(MINUTE).ignore_cookies(["cart"]))
    });
    for path in ["/one/a", "/one/b", "/two/a", "/two/b"] {
        for cookie in ["_ga=1", "session=secret-1", "session=secret-2"] {
            house.ask(path, &[("cookie", cookie)]).await;
        }
    }
    assert_eq!(house.ask("/two/a", &[("cookie", "cart=1")]).await.x_cache, "HIT", "an ignored cookie");
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("Policy::guarded")).collect();
    assert_eq!(lines.len(), 2, "{text}");
    for (line, rule) in lines.iter().zip(["^/one/", "^/two/"]) {
        assert!(line.contains(rule) && line.contains("Policy::shared") && line.contains("Policy::per"), "{line}");
    }
    assert!(!text.contains("secret"), "{text}");
}

#[test]
fn a_rule_that_cant_be_used_is_refused() {
    let layer = || CacheLayer::in_memory(1);
    let error = layer().try_rule("^/a(", Policy::bypass()).unwrap_err();
    assert!(matches!(&error, RuleError::Pattern { rule, .. } if rule == "^/a("), "{error}");
    assert!(error.to_string().contains("unclosed group"), "{error}");
    let provoked = || Policy::from_origin().status_ttl(StatusCode::SERVICE_UNAVAILABLE, MINUTE);
    let error = layer().try_rule("^/a", provoked()).unwrap_err();
    assert!(matches!(error, RuleError::StatusNeverStored { status: StatusCode::SERVICE_UNAVAILABLE, .. }), "{error}");
    let named = Policy::shared(MINUTE).statuses([StatusCode::OK, StatusCode::BAD_GATEWAY]);
    let error = layer().try_rule("^/a", named).unwrap_err();
    assert!(error.to_string().contains("502"), "{error}");
    assert!(layer().try_rule("^/a", Policy::bypass()).is_ok());
    for (pattern, policy) in [("^/a(", Policy::bypass()), ("^/a", provoked())] {
        let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| layer().rule(pattern, policy)));
        let text = refused.unwrap_err().downcast::<String>().unwrap();
        assert!(text.contains(pattern), "{text}");
    }
}

#[tokio::test]
async fn clones_of_a_layer_share_one_cache() {
    let handler = Handler::saying(&[]);
    let layer = CacheLayer::in_memory(1 << 20).otherwise(Policy::shared(MINUTE));
    let (one, other) = (layer.clone().layer(handler.clone()), layer.layer(handler.clone()));
    one.oneshot(get("/")).await.unwrap();
    assert_eq!(other.oneshot(get("/")).await.unwrap().headers()["x-cache"], "HIT");
    assert_eq!(layer.handle().stats().hits, 1);
}

#[tokio::test]
async fn a_status_with_a_ttl_of_its_own_is_stored_beside_those_that_a_rule_names() {
    let rows = [(200, "HIT"), (404, "HIT"), (410, "MISS"), (301, "MISS")];
    for (status, word) in rows {
        let handler = Handler::saying_status(status, &[("cache-control", "max-age=60")]);
        let house = House::with(handler, |layer| {
            let policy = Policy::shared(MINUTE).statuses([StatusCode::OK]).status_ttl(StatusCode::NOT_FOUND, MINUTE);
            layer.otherwise(policy)
        });
        house.get("/").await;
        assert_eq!(house.get("/").await.x_cache, word, "{status}");
    }
}
