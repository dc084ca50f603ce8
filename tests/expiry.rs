//! What was stored together doesn't end together, what is asked for often is refreshed before it ends, and what nobody asks for ends early. None of it
//! lets anything live longer.

mod support;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use http::Response;
use larder::storage::MemoryStore;
use larder::{CacheLayer, Cached, ManualClock, Policy, Selector, Strategy};
use support::exchange::*;
use tokio::sync::Semaphore;

type Fields = &'static [(&'static str, &'static str)];

const MAX_AGE: Fields = &[("cache-control", "max-age=60")];

fn shared() -> Policy {
    Policy::shared(MINUTE)
}

fn house(fields: Fields, policy: Policy) -> House {
    House::with(Handler::saying(fields), |layer| layer.otherwise(policy))
}

/// The store in memory, and the same as if it were another one. That one is [filled](filled) behind the answer.
fn layers() -> [CacheLayer; 2] {
    [CacheLayer::in_memory(1 << 20), CacheLayer::with_storage(MemoryStore::new(1 << 20))]
}

/// Stores what the handler says first.
async fn filled(house: &House) {
    house.get("/").await;
    quiet().await;
}

fn ttl(exchange: &Exchange) -> i64 {
    exchange.outcome.and_then(|outcome| outcome.ttl).expect("it is from the store")
}

/// The seconds of `max-age`.
fn told(exchange: &Exchange) -> u64 {
    let (_, rest) = exchange.field("cache-control").split_once("max-age=").expect("it has one");
    rest.split(',').next().and_then(|number| number.parse().ok()).expect("a number")
}

fn vouched(fields: &[(&str, &str)], cached: Option<Cached>) -> Response<Content> {
    let mut response = answer(200, fields, "content");
    if let Some(cached) = cached {
        response.extensions_mut().insert(cached);
    }
    response
}

#[tokio::test]
async fn jitter_shortens_what_the_application_gives_and_never_what_the_response_says() {
    const DATED: Fields = &[("last-modified", "Wed, 31 Dec 2025 23:50:00 GMT")];
    const EXPIRES: Fields = &[("expires", "Thu, 01 Jan 2026 00:01:00 GMT")];
    let cached = || Some(Cached::shared(MINUTE));
    let rows: [(&str, Fields, Option<Cached>, Policy, bool); 8] = [
        ("rule", &[], None, shared(), true),
        ("override", &[("cache-control", "max-age=7")], None, shared().override_origin(), true),
        ("status", &[], None, Policy::from_origin().status_ttl(http::StatusCode::OK, MINUTE), true),
        ("handler", MAX_AGE, cached(), Policy::from_origin(), true),
        ("max-age", MAX_AGE, None, shared(), false),
        ("targeted", &[("cdn-cache-control", "max-age=60")], None, shared(), false),
        ("Expires", EXPIRES, None, shared(), false),
        ("a guess", DATED, None, Policy::from_origin().heuristics(true), false),
    ];
    for (why, fields, cached, policy, expected) in rows {
        let handler = Handler::new(move |_, _| vouched(fields, cached.clone()));
        let house = House::with(handler, |layer| layer.otherwise(policy.jitter(0.5)));
        let mut lifetimes = HashSet::new();
        for n in 0..200 {
            house.get(&format!("/{n}")).await;
            lifetimes.insert(ttl(&house.get(&format!("/{n}")).await));
        }
        if expected {
            assert!(lifetimes.iter().all(|lifetime| (30..=60).contains(lifetime)), "{why}: {lifetimes:?}");
            assert!(lifetimes.len() > 20, "{why}: spread over nearly each second, {lifetimes:?}");
        } else {
            assert_eq!(lifetimes, HashSet::from([60]), "{why}");
        }
    }
}

#[tokio::test]
async fn what_was_stored_together_does_not_expire_together_and_clients_are_told_so() {
    let house = house(&[], shared().jitter(0.5));
    let paths: Vec<String> = (0..200).map(|n| format!("/{n}")).collect();
    let mut first = Vec::new();
    for path in &paths {
        first.push(told(&house.get(path).await));
    }
    // By RFC 9111 §4.2 a client has it for as long as it is told, and here it is fresh as long, less than a second more.
    for age in 0..=60 {
        for (path, told) in paths.iter().zip(&first) {
            let fields = [("cache-control", "only-if-cached")];
            let expected = if age <= *told && age < 60 { "HIT" } else { "MISS" };
            let exchange = house.ask(path, &fields).await;
            assert_eq!(exchange.x_cache, expected, "{path}, told {told}, at {age}");
            if expected == "HIT" {
                assert_eq!(self::told(&exchange), *told, "{path}");
            }
        }
        house.advance(1);
    }
    let half = first.iter().filter(|told| **told < 45).count();
    assert!((60..140).contains(&half), "{half} of 200 end in the first half of the time");
}

#[tokio::test]
async fn a_confirmed_response_has_a_lifetime_of_its_own() {
    let handler = Handler::new(|head, _| {
        let status = if head.headers.contains_key("if-none-match") { 304 } else { 200 };
        answer(status, &[("etag", "\"a\"")], "")
    });
    let house = House::with(handler, |layer| layer.otherwise(shared().jitter(0.5)));
    house.get("/").await;
    let mut lifetimes = HashSet::new();
    for _ in 0..50 {
        let confirmed = house.ask("/", &[("cache-control", "no-cache")]).await;
        assert_eq!(confirmed.x_cache, "REVALIDATED");
        lifetimes.insert(ttl(&confirmed));
        house.advance(1);
    }
    assert!(lifetimes.len() > 8 && lifetimes.iter().all(|lifetime| (30..=60).contains(lifetime)), "{lifetimes:?}");
}

/// A cache on whose clock the handler takes 200 ms for its first answer; the others come when the gate lets them through.
fn slow(layer: CacheLayer) -> (House, Arc<Semaphore>) {
    let (gate, clock) = (Arc::new(Semaphore::new(0)), Arc::new(ManualClock::default()));
    let handler = Handler::waiting({
        let (gate, clock) = (gate.clone(), clock.clone());
        move |_, n| {
            let (gate, clock) = (gate.clone(), clock.clone());
            async move {
                if n == 1 {
                    clock.advance(Duration::from_millis(200));
                } else {
                    gate.acquire().await.expect("never closed").forget();
                }
                Ok(answer(200, &[], format!("answer {n}")))
            }
        }
    });
    (House::on(clock, handler, layer), gate)
}

#[tokio::test]
async fn a_herd_at_the_end_of_a_lifetime_never_waits_and_the_handler_is_asked_once() {
    let policies = [
        shared().refresh_ahead(1.0),
        shared().refresh_within(secs(2)),
        shared().refresh_ahead(1.0).refresh_within(secs(1)),
    ];
    for policy in policies {
        for layer in layers() {
            let (house, gate) = slow(layer.otherwise(policy.clone()));
            filled(&house).await;
            house.advance(58);
            // 200 ms of its age are the handler's: it ends 59.8 s after its head arrived.
            for _ in 0..179 {
                for _ in 0..20 {
                    let exchange = house.get("/").await;
                    assert_eq!((exchange.x_cache.as_str(), exchange.body.as_str()), ("HIT", "answer 1"));
                }
                quiet().await;
                house.clock.advance(Duration::from_millis(10));
            }
            assert_eq!(house.handler.calls(), 2, "one refresh for 3,580 clients");
            assert_eq!(house.handle.stats().refreshes, 1);
            gate.add_permits(1);
            quiet().await;
            house.advance(1);
            let exchange = house.get("/").await;
            assert_eq!(
                (exchange.x_cache.as_str(), exchange.body.as_str()),
                ("HIT", "answer 2"),
                "past the first's end"
            );
            assert_eq!(house.handle.stats().misses, 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_herd_on_several_threads_makes_one_refresh_as_well() {
    let (house, gate) = slow(CacheLayer::in_memory(1 << 20).otherwise(shared().refresh_ahead(1.0)));
    house.get("/").await;
    house.clock.advance(Duration::from_millis(59_700));
    let ask = |house: House| async move {
        for _ in 0..500 {
            assert_eq!(house.get("/").await.x_cache, "HIT");
        }
    };
    let asked: Vec<_> = (0..8).map(|_| tokio::spawn(ask(house.clone()))).collect();
    for asked in asked {
        asked.await.expect("all were hits");
    }
    assert_eq!(house.handle.stats().refreshes, 1);
    gate.add_permits(1);
    until(|| house.handle.stats().stored == 2).await;
    assert_eq!(house.handler.calls(), 2);
}

#[tokio::test]
async fn what_is_far_from_its_end_or_cost_nothing_is_not_refreshed() {
    // 36.8 times 200 ms are 7.4 s; nothing that chance can give is more.
    let rows = [(true, 1.0, 52), (true, 0.5, 56), (false, 1000.0, 59)];
    for (is_slow, beta, age) in rows {
        let layer = CacheLayer::in_memory(1 << 20).otherwise(shared().refresh_ahead(beta));
        let house = if is_slow { slow(layer).0 } else { House::around(Handler::saying(&[]), layer) };
        house.get("/").await;
        house.advance(age);
        for _ in 0..1000 {
            assert_eq!(house.get("/").await.x_cache, "HIT");
        }
        quiet().await;
        assert_eq!(house.handler.calls(), 1, "{beta}, at {age}");
    }
}

#[tokio::test]
async fn a_lifetime_that_the_response_states_may_be_refreshed_early_too() {
    for (age, expected) in [(50, 1), (51, 2)] {
        let house = house(MAX_AGE, Policy::from_origin().refresh_within(secs(10)));
        house.get("/").await;
        house.advance(age);
        assert_eq!(house.get("/").await.x_cache, "HIT");
        quiet().await;
        assert_eq!(house.handler.calls(), expected, "at {age}");
    }
}

#[tokio::test]
async fn a_refresh_takes_the_whole_whatever_the_client_wanted_of_it() {
    let rows: [(&str, Fields, u16); 4] = [
        ("GET", &[], 200),
        ("HEAD", &[], 200),
        ("GET", &[("range", "bytes=0-0"), ("if-match", "*")], 206),
        ("GET", &[("if-none-match", "*")], 304),
    ];
    for (method, fields, status) in rows {
        let house = house(&[], shared().refresh_within(secs(10)));
        house.get("/").await;
        house.advance(55);
        let exchange = house.exchange(request(method, "/", fields)).await;
        assert_eq!((exchange.x_cache.as_str(), exchange.status), ("HIT", status), "{method} {fields:?}");
        quiet().await;
        let asked = house.handler.last();
        assert_eq!((asked.method.as_str(), asked.headers.len()), ("GET", 1), "{:?}", asked.headers);
        let exchange = house.get("/").await;
        assert_eq!((exchange.body.as_str(), exchange.field("age")), ("answer 2", "0"), "{method} {fields:?}");
    }
}

#[tokio::test]
async fn who_wants_nothing_stored_or_nobody_asked_refreshes_nothing() {
    let plain = || shared().refresh_within(secs(10));
    let rows: [(Fields, Policy, usize); 5] = [
        (&[], plain(), 2),
        (&[("cache-control", "no-store")], plain(), 1),
        (&[("cache-control", "only-if-cached")], plain(), 1),
        (&[], plain().strategy(Strategy::StaleWhileRevalidate), 2),
        (&[], plain().cache_only(), 1),
    ];
    for (fields, policy, calls) in rows {
        let house = house(&[], plain());
        house.get("/").await;
        // What is cache-only is filled by somebody else: here by the rule before.
        house.handle.reconfigure(&CacheLayer::in_memory(1 << 20).otherwise(policy.clone())).expect("the same store");
        house.advance(55);
        assert_eq!(house.ask("/", fields).await.x_cache, "HIT");
        quiet().await;
        assert_eq!(house.handler.calls(), calls, "{fields:?}, {policy:?}");
    }
}

#[tokio::test]
async fn a_refresh_that_fails_leaves_what_is_stored_and_is_tried_again_later() {
    for fails in [true, false] {
        let handler = Handler::failing(move |_, n| match n {
            1 => Ok(answer(200, &[], "answer 1")),
            _ if fails => Err(Failure),
            _ => Ok(answer(503, &[], "")),
        });
        let house = House::with(handler, |layer| layer.otherwise(shared().refresh_within(secs(10))));
        house.get("/").await;
        house.advance(55);
        for (second, calls) in [(55, 2), (56, 3), (57, 4), (58, 5), (59, 6)] {
            for _ in 0..10 {
                let exchange = house.get("/").await;
                assert_eq!((exchange.x_cache.as_str(), exchange.body.as_str()), ("HIT", "answer 1"), "at {second}");
                quiet().await;
            }
            assert_eq!(house.handler.calls(), calls, "once in a second, at {second}");
            house.advance(1);
        }
        // At its end the handler speaks for itself.
        assert_eq!(house.try_exchange(get("/")).await.map(|exchange| exchange.status).ok(), (!fails).then_some(503));
    }
}

#[tokio::test]
async fn a_refresh_that_says_no_store_takes_what_is_stored() {
    let handler = Handler::new(|_, n| {
        let fields: &[_] = if n == 1 { &[] } else { &[("cache-control", "no-store")] };
        answer(200, fields, "")
    });
    let house = House::with(handler, |layer| layer.otherwise(shared().refresh_within(secs(10))));
    house.get("/").await;
    house.advance(55);
    assert_eq!(house.get("/").await.x_cache, "HIT");
    quiet().await;
    assert_eq!(house.get("/").await.x_cache, "MISS");
}

#[tokio::test]
async fn a_purge_while_it_is_refreshed_keeps_old_and_new_away() {
    for layer in layers() {
        let (house, gate) = slow(layer.otherwise(shared().refresh_within(secs(10))));
        filled(&house).await;
        house.advance(55);
        assert_eq!(house.get("/").await.x_cache, "HIT");
        quiet().await;
        house.handle.purge(Selector::Everything).await.expect("purged");
        gate.add_permits(2);
        quiet().await;
        assert_eq!(house.handle.stats().declined_for(larder::DeclineReason::Purged), 1);
        let exchange = house.get("/").await;
        assert_eq!((exchange.x_cache.as_str(), exchange.body.as_str()), ("MISS", "answer 3"));
    }
}

#[tokio::test]
async fn a_response_lives_while_it_is_asked_for_and_no_longer() {
    // Seconds that pass before each request, and what it gets. The TTL is 60 s.
    let rows: [(&[u64], &[&str]); 4] = [
        (&[9, 9, 9, 9, 9, 9, 5], &["HIT", "HIT", "HIT", "HIT", "HIT", "HIT", "HIT"]),
        (&[9, 9, 9, 9, 9, 9, 6], &["HIT", "HIT", "HIT", "HIT", "HIT", "HIT", "MISS"]),
        (&[10], &["MISS"]),
        (&[9, 10, 9], &["HIT", "MISS", "HIT"]),
    ];
    for (passing, expected) in rows {
        for layer in layers() {
            let house = House::around(Handler::saying(&[]), layer.otherwise(shared().sliding(secs(10))));
            filled(&house).await;
            let mut got = Vec::new();
            for seconds in passing {
                house.advance(*seconds);
                got.push(house.get("/").await.x_cache);
                quiet().await;
            }
            assert_eq!(got, expected, "{passing:?}");
        }
    }
}

#[tokio::test]
async fn however_often_it_is_asked_for_it_ends() {
    // With the age at which it ends at the earliest.
    let rows = [
        (shared().sliding(secs(50)), 60),
        (shared().sliding(600 * MINUTE), 60),
        (shared().sliding(secs(2)).jitter(0.1), 54),
        (shared().sliding(secs(50)).refresh_ahead(1000.0).refresh_within(secs(50)), 60),
    ];
    for (policy, earliest) in rows {
        // One that is refreshed in vain ends as well.
        let handler = Handler::new(|_, n| answer(if n == 1 { 200 } else { 503 }, &[], ""));
        let house = House::with(handler, |layer| layer.otherwise(policy.clone()));
        house.get("/").await;
        for age in 1..=60 {
            house.advance(1);
            let exchange = house.get("/").await;
            if age < earliest {
                assert_eq!((exchange.x_cache.as_str(), exchange.field("age")), ("HIT", age.to_string().as_str()));
            }
            assert!(age < 60 || exchange.x_cache == "MISS", "{policy:?} at {age}");
            quiet().await;
        }
    }
}

#[tokio::test]
async fn what_the_response_says_itself_does_not_end_by_disuse() {
    let cached = Some(Cached::shared(MINUTE));
    for (fields, cached, expected) in [(MAX_AGE, None, "HIT"), (&[], None, "MISS"), (MAX_AGE, cached, "MISS")] {
        let handler = Handler::new(move |_, _| vouched(fields, cached.clone()));
        let house = House::with(handler, |layer| layer.otherwise(shared().sliding(secs(10))));
        house.get("/").await;
        house.advance(30);
        let exchange = house.get("/").await;
        assert_eq!(exchange.x_cache, expected, "{fields:?}");
        assert_eq!(told(&exchange), if expected == "HIT" { 60 } else { 10 }, "{fields:?}");
    }
}

#[tokio::test]
async fn every_kind_of_hit_is_a_use_and_a_stale_answer_is_none() {
    let rows: [(&str, Fields); 4] =
        [("GET", &[]), ("HEAD", &[]), ("GET", &[("range", "bytes=0-0")]), ("GET", &[("if-none-match", "*")])];
    for (method, fields) in rows {
        let house = house(&[], shared().sliding(secs(10)));
        house.get("/").await;
        for _ in 0..5 {
            house.advance(9);
            assert_eq!(house.exchange(request(method, "/", fields)).await.x_cache, "HIT", "{method} {fields:?}");
        }
    }
    let (house, _gate) =
        slow(CacheLayer::in_memory(1 << 20).otherwise(shared().sliding(secs(10)).stale_while_revalidate(secs(5))));
    house.get("/").await;
    // The windows count from where it ended: 10 s after its arrival, and 5 s more.
    for (passing, expected, ttl) in [(12, "STALE", -2), (2, "STALE", -4)] {
        house.advance(passing);
        let exchange = house.get("/").await;
        assert_eq!((exchange.x_cache.as_str(), self::ttl(&exchange)), (expected, ttl));
        assert!(told(&exchange) <= 10, "what is stale here is stale for clients: {}", told(&exchange));
        quiet().await;
    }
    house.advance(1);
    let fields = [("cache-control", "only-if-cached")];
    assert_eq!(house.ask("/", &fields).await.status, 504);
}

#[tokio::test]
async fn errors_are_covered_from_where_it_ended_by_disuse() {
    for (age, expected) in [(9, "HIT"), (10, "STALE"), (14, "STALE"), (15, "MISS")] {
        let handler = Handler::new(|_, n| answer(if n == 1 { 200 } else { 503 }, &[], ""));
        let policy = shared().sliding(secs(10)).stale_if_error(secs(5));
        let house = House::with(handler, |layer| layer.otherwise(policy));
        house.get("/").await;
        house.advance(age);
        assert_eq!(house.get("/").await.x_cache, expected, "at {age}");
    }
}

#[tokio::test]
async fn clients_are_told_the_time_that_is_left_if_nobody_asks() {
    // (age, what clients are told, `ttl`): `max-age` less `Age` is what a client may use it for.
    let rows = [
        (shared().sliding(secs(10)), [(0, 10, 10), (9, 19, 10), (18, 28, 10)]),
        (shared().sliding(secs(45)), [(0, 45, 45), (20, 60, 40), (50, 60, 10)]),
        (shared().sliding(secs(45)).downstream(secs(5)), [(0, 5, 45), (20, 25, 40), (50, 55, 10)]),
    ];
    for (policy, looks) in rows {
        let house = house(&[], policy.clone());
        assert_eq!(told(&house.get("/").await), looks[0].1, "the first answer");
        let mut before = 0;
        for (age, expected, left) in looks {
            house.advance(age - before);
            before = age;
            let exchange = house.get("/").await;
            assert_eq!((exchange.x_cache.as_str(), exchange.field("age")), ("HIT", age.to_string().as_str()));
            assert_eq!((told(&exchange), ttl(&exchange)), (expected, left), "{policy:?} at {age}");
        }
    }
}

#[tokio::test]
async fn a_purge_takes_what_was_used_a_moment_ago() {
    for layer in layers() {
        let house = House::around(Handler::saying(&[]), layer.otherwise(shared().sliding(secs(10))));
        filled(&house).await;
        house.advance(9);
        assert_eq!(house.get("/").await.x_cache, "HIT");
        house.handle.purge(Selector::Uri("/".into())).await.expect("purged");
        assert_eq!(house.get("/").await.x_cache, "MISS");
    }
}

#[tokio::test]
async fn a_confirmed_response_begins_anew() {
    let handler = Handler::new(|head, _| {
        let status = if head.headers.contains_key("if-none-match") { 304 } else { 200 };
        answer(status, &[("etag", "\"a\"")], "")
    });
    let house = House::with(handler, |layer| layer.otherwise(shared().sliding(secs(10))));
    house.get("/").await;
    house.advance(9);
    assert_eq!(house.get("/").await.x_cache, "HIT");
    house.advance(41);
    // The store has kept it for the whole of its TTL, so it can be asked about.
    assert_eq!(house.get("/").await.x_cache, "REVALIDATED");
    house.advance(10);
    assert_eq!(house.get("/").await.x_cache, "REVALIDATED", "use before the confirmation counts no more");
    for _ in 0..6 {
        house.advance(9);
        assert_eq!(house.get("/").await.x_cache, "HIT");
    }
}

#[tokio::test]
async fn under_new_settings_the_shorter_time_counts_and_use_is_remembered() {
    let plain = shared();
    let sliding = |seconds| shared().sliding(secs(seconds));
    // Stored under one policy, asked for after 8 s under another, and then after each of these times.
    let rows: [(Policy, Policy, &[u64], &[&str]); 5] = [
        (sliding(10), sliding(20), &[8, 9, 9], &["HIT", "HIT", "HIT"]),
        (sliding(10), sliding(20), &[8, 10], &["HIT", "MISS"]),
        (sliding(10), plain.clone(), &[8, 10], &["HIT", "MISS"]),
        (sliding(20), sliding(10), &[8, 9, 10], &["HIT", "HIT", "MISS"]),
        // When it was used can't be noted in what was stored without: it counts from its arrival.
        (plain, sliding(10), &[8, 1, 1], &["HIT", "HIT", "MISS"]),
    ];
    for (before, after, passing, expected) in rows {
        for layer in layers() {
            let house = House::around(Handler::saying(&[]), layer.clone().otherwise(before.clone()));
            filled(&house).await;
            house.handle.reconfigure(&layer.otherwise(after.clone())).expect("the same store");
            let mut got = Vec::new();
            for seconds in passing {
                house.advance(*seconds);
                got.push(house.get("/").await.x_cache);
                quiet().await;
            }
            assert_eq!(got, expected, "{before:?}, then {after:?}: {passing:?}");
        }
    }
}

#[tokio::test]
async fn jitter_that_is_switched_on_cuts_what_is_stored_once() {
    let house = house(&[], shared());
    for n in 0..50 {
        house.get(&format!("/{n}")).await;
    }
    let mut lifetimes: Vec<Vec<i64>> = Vec::new();
    // Then less of it: of the lifetimes then and now the shorter one counts, and what is stored was never cut.
    for fraction in [0.5, 0.5, 0.25] {
        house
            .handle
            .reconfigure(&CacheLayer::in_memory(1 << 20).otherwise(shared().jitter(fraction)))
            .expect("the same store");
        let mut now = Vec::new();
        for n in 0..50 {
            let exchange = house.get(&format!("/{n}")).await;
            assert_eq!(told(&exchange) as i64, ttl(&exchange), "clients are told");
            now.push(ttl(&exchange));
        }
        lifetimes.push(now);
    }
    assert_eq!(lifetimes[0], lifetimes[1], "the same chance for the same response");
    assert!(
        lifetimes[0].iter().collect::<HashSet<_>>().len() > 10
            && lifetimes[0].iter().all(|ttl| (30..=60).contains(ttl))
    );
    for (half, quarter) in lifetimes[0].iter().zip(&lifetimes[2]) {
        assert!((quarter - (60 + half) / 2).abs() <= 1, "half as much is cut: {half}, {quarter}");
    }
}

#[test]
fn a_number_that_cant_be_followed_is_refused() {
    let rows = [
        (shared().jitter(1.0), "jitter"),
        (shared().jitter(f64::NAN), "jitter"),
        (shared().refresh_ahead(0.0), "refresh_ahead"),
        (shared().sliding(Duration::ZERO), "sliding"),
        (shared().refresh_within(Duration::ZERO), "refresh_within"),
    ];
    for (policy, named) in rows {
        let refused = CacheLayer::in_memory(1 << 20).try_rule("^/", policy).map(drop).expect_err(named).to_string();
        assert!(refused.starts_with(&format!("rule \"^/\": `{named}` has to be ")), "{refused}");
    }
}
