//! Purges take effect at once and for good: on what is stored, in flight, held by somebody, being refreshed or followed. A hard one ends what it touches, a soft one its
//! freshness, and neither anything else. Memory is given back behind them, and what is remembered of them has bounds.

mod support;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use larder::storage::{Query, Storage, StorageUsage, Variants, with_variant};
use larder::{CacheKey, CacheLayer, Policy, PurgeError, Reach, RequestHead, Selector, StorageError, StoredResponse};
use support::exchange::*;
use tokio::sync::Semaphore;

/// What all of this is tried on: it is in the group `things` and in none of the others.
const THING: &str = "/things/1?lang=de";

/// Fresh for a minute, and of use for a while after that.
const FIELDS: &[(&str, &str)] = &[
    ("cache-control", "max-age=60, stale-while-revalidate=30, stale-if-error=90"),
    ("cache-groups", "\"things\", \"all\""),
    ("etag", "\"one\""),
];

/// Selectors that touch the thing.
const TOUCHING: [&str; 11] = [
    "uri:/things/1?lang=de",
    "uri:http://example.com/things/1?lang=de",
    "uri:http://EXAMPLE.com:80/things/1?lang=de",
    "tag:things",
    "glob:/things/*",
    "glob:/things/1",
    "glob:/things/1\\?lang=de",
    "glob:*lang=??",
    "regex:^/things/[0-9]$",
    "regex:lang=de",
    "everything",
];

/// Selectors that come near.
const MISSING: [&str; 12] = [
    "uri:/things/1",
    "uri:/things/1?lang=en",
    "uri:http://example.org/things/1?lang=de",
    "tag:thing",
    "tag:things:1",
    "tag:Things",
    "glob:/things",
    "glob:/things/",
    "glob:things/*",
    "regex:^things",
    "regex:^/things/1\\?lang=en",
    "partition:things",
];

fn selector(text: &str) -> Selector {
    text.parse().expect("a selector")
}

/// A handler whose answers come when the gate lets them through; and the gate.
fn gated() -> (Handler, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let handler = Handler::waiting({
        let gate = gate.clone();
        move |head, n| {
            let gate = gate.clone();
            async move {
                gate.acquire().await.expect("never closed").forget();
                match head.headers.get("fail") {
                    Some(_) => Err(Failure),
                    None => Ok(answer(200, FIELDS, format!("answer {n}"))),
                }
            }
        }
    });
    (handler, gate)
}

/// The thing is stored, as the first answer; the next ones wait at the gate.
async fn stored() -> (House, Arc<Semaphore>) {
    let (handler, gate) = gated();
    gate.add_permits(1);
    let house = House::new(handler);
    assert_eq!(house.get(THING).await.x_cache, "MISS");
    (house, gate)
}

async fn purge(house: &House, text: &str, soft: bool) -> u64 {
    let purge = house.handle.purge(selector(text));
    let receipt = if soft { purge.soft().await } else { purge.await };
    let receipt = receipt.expect("a purge");
    assert_eq!(receipt.reach, Reach::ThisProcess);
    receipt.number
}

/// How it was answered, and by which answer of the handler.
fn said(exchange: &Exchange) -> (&str, &str) {
    (&exchange.x_cache, &exchange.body)
}

#[tokio::test]
async fn a_hard_purge_ends_what_it_touches() {
    for text in TOUCHING {
        let (house, gate) = stored().await;
        let number = purge(&house, text, false).await;
        gate.add_permits(1);
        assert_eq!(said(&house.get(THING).await), ("MISS", "answer 2"), "{text}");
        assert_eq!(said(&house.get(THING).await), ("HIT", "answer 2"), "{text}: what is newer is good");
        assert!(purge(&house, text, false).await > number);
        gate.add_permits(1);
        assert_eq!(said(&house.get(THING).await), ("MISS", "answer 3"), "{text}: once more");
        assert_eq!(house.handle.stats().purges, 2);
    }
}

#[tokio::test]
async fn no_purge_touches_anything_else() {
    for text in MISSING {
        let (house, _gate) = stored().await;
        for soft in [false, true] {
            purge(&house, text, soft).await;
            assert_eq!(said(&house.get(THING).await), ("HIT", "answer 1"), "{text}");
            quiet().await;
            assert_eq!(said(&house.get(THING).await), ("HIT", "answer 1"), "{text}, when the store was swept");
        }
    }
}

#[tokio::test]
async fn after_a_soft_purge_the_stale_windows_run_from_its_time() {
    for text in TOUCHING {
        for (later, expected) in [(0, "STALE"), (29, "STALE"), (30, "REVALIDATED")] {
            let house = House::new(Handler::new(|head, n| match head.headers.contains_key("if-none-match") {
                true => answer(304, FIELDS, ""),
                false => answer(200, FIELDS, format!("answer {n}")),
            }));
            house.get(THING).await;
            house.advance(20);
            purge(&house, text, true).await;
            quiet().await;
            house.advance(later);
            let exchange = house.get(THING).await;
            assert_eq!(said(&exchange), (expected, "answer 1"), "{text}, {later} s later");
            if expected == "STALE" {
                let ttl = format!("ttl=-{later}");
                assert!(later == 0 || exchange.cache_status.contains(&ttl), "{text}: {}", exchange.cache_status);
            }
            quiet().await;
            // The handler has confirmed it since.
            assert_eq!(said(&house.get(THING).await), ("HIT", "answer 1"), "{text}, {later} s later");
            house.advance(59);
            assert_eq!(house.get(THING).await.x_cache, "HIT", "its whole lifetime");
        }
    }
}

#[tokio::test]
async fn of_several_soft_purges_the_first_counts() {
    for sweeps in [false, true] {
        let (house, gate) = stored().await;
        for (text, pause) in [("tag:things", 20), ("glob:/things/*", 5), ("tag:things", 4)] {
            purge(&house, text, true).await;
            if sweeps {
                quiet().await;
            }
            house.advance(pause);
        }
        assert_eq!(house.get(THING).await.x_cache, "STALE");
        house.advance(1);
        gate.add_permits(2);
        assert_eq!(house.get(THING).await.x_cache, "MISS", "thirty seconds after the first");
    }
}

#[tokio::test]
async fn what_is_stale_stands_in_for_an_error_after_a_soft_purge_and_never_after_a_hard_one() {
    for (text, soft) in TOUCHING.iter().flat_map(|text| [(text, false), (text, true)]) {
        for (later, within) in [(31, true), (89, true), (90, false)] {
            let (house, gate) = stored().await;
            gate.add_permits(1);
            purge(&house, text, soft).await;
            house.advance(later);
            let exchange = house.try_exchange(request("GET", THING, &[("fail", "1")])).await;
            let stands_in = exchange.is_ok_and(|exchange| said(&exchange) == ("STALE", "answer 1"));
            assert_eq!(stands_in, soft && within, "{text}, soft: {soft}, {later} s later");
        }
    }
}

#[tokio::test]
async fn nobody_joins_a_fill_that_began_before_a_purge_and_it_isnt_served_as_fresh() {
    for (text, soft) in TOUCHING.iter().flat_map(|text| [(text, false), (text, true)]) {
        let (handler, gate) = gated();
        let house = House::new(handler);
        let before = tokio::spawn({
            let house = house.clone();
            async move { house.get(THING).await }
        });
        quiet().await;
        purge(&house, text, soft).await;
        quiet().await;
        gate.add_permits(1);
        assert_eq!(before.await.unwrap().body, "answer 1", "who asked before has what was asked before");
        let after = tokio::spawn({
            let house = house.clone();
            async move { house.get(THING).await }
        });
        quiet().await;
        gate.add_permits(1);
        let after = after.await.unwrap();
        // What was stored before the purge could look would be a hit.
        let expected = if soft { ("STALE", "answer 1") } else { ("MISS", "answer 2") };
        assert_eq!(said(&after), expected, "{text}");
        quiet().await;
        assert_eq!(said(&house.get(THING).await), ("HIT", "answer 2"), "{text}");
    }
}

#[tokio::test]
async fn who_asks_after_a_purge_doesnt_wait_for_who_asked_before() {
    for (text, soft) in TOUCHING.iter().flat_map(|text| [(text, false), (text, true)]) {
        let (handler, gate) = gated();
        let house = House::new(handler);
        let ask = || {
            let house = house.clone();
            tokio::spawn(async move { house.get(THING).await.body })
        };
        let first = ask();
        quiet().await;
        purge(&house, text, soft).await;
        let second = ask();
        quiet().await;
        assert_eq!(house.handler.calls(), 2, "{text}");
        gate.add_permits(2);
        assert_eq!((first.await.unwrap().as_str(), second.await.unwrap().as_str()), ("answer 1", "answer 2"));
        assert_eq!(said(&house.get(THING).await), ("HIT", "answer 2"), "{text}");
    }
}

#[tokio::test]
async fn a_fill_that_a_purge_only_might_have_touched_is_stored() {
    let (handler, gate) = gated();
    let house = House::new(handler);
    let fill = tokio::spawn({
        let house = house.clone();
        async move { house.get(THING).await }
    });
    quiet().await;
    // Nobody knows yet that it isn't in the group.
    purge(&house, "tag:others", false).await;
    quiet().await;
    gate.add_permits(1);
    fill.await.unwrap();
    assert_eq!(said(&house.get(THING).await), ("HIT", "answer 1"));
}

#[tokio::test]
async fn what_was_found_before_a_purge_is_held_against_it_before_it_stands_in() {
    let rows = [("", false, true), ("uri:/other", false, true), ("tag:other", false, true), ("tag:things", true, true)];
    let hard = TOUCHING.map(|text| (text, false, false));
    for (text, soft, expected) in rows.into_iter().chain(hard) {
        let (house, gate) = stored().await;
        house.advance(91);
        let asking = tokio::spawn({
            let house = house.clone();
            async move { house.try_exchange(request("GET", THING, &[("fail", "1")])).await }
        });
        quiet().await;
        assert_eq!(house.handler.calls(), 2);
        if !text.is_empty() {
            purge(&house, text, soft).await;
        }
        quiet().await;
        gate.add_permits(1);
        let stands_in = asking.await.unwrap().is_ok_and(|exchange| said(&exchange) == ("STALE", "answer 1"));
        assert_eq!(stands_in, expected, "{text}");
    }
}

#[tokio::test]
async fn who_follows_is_held_against_it_as_well() {
    for (text, soft, expected) in
        [("tag:things", false, false), ("glob:/things/*", true, true), ("tag:other", false, true)]
    {
        let (house, gate) = stored().await;
        house.advance(91);
        let ask = || {
            let house = house.clone();
            tokio::spawn(async move { house.try_exchange(request("GET", THING, &[("fail", "1")])).await })
        };
        let both = [ask(), ask()];
        quiet().await;
        assert_eq!((house.handler.calls(), house.handle.stats().waiting), (2, 1));
        purge(&house, text, soft).await;
        // One more than there are calls: a follower may lead after the error.
        gate.add_permits(3);
        for asking in both {
            let stands_in = asking.await.unwrap().is_ok_and(|exchange| said(&exchange) == ("STALE", "answer 1"));
            assert_eq!(stands_in, expected, "{text}");
        }
    }
}

/// A handler whose second answer, at the gate, is a 304 with these fields; the thing is stored under the tag `old` and stale.
async fn confirming(fields: &'static [(&'static str, &'static str)]) -> (House, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let leave = gate.clone();
    let handler = Handler::waiting(move |_, n| {
        let leave = leave.clone();
        async move {
            if n == 2 {
                leave.acquire().await.expect("never closed").forget();
                return Ok(answer(304, fields, ""));
            }
            let head = [("cache-control", "max-age=60"), ("etag", "\"1\""), ("cache-tag", "old")];
            Ok(answer(200, &head, format!("answer {n}")))
        }
    });
    let house = House::new(handler);
    house.get("/a").await;
    house.advance(61);
    (house, gate)
}

#[tokio::test]
async fn what_was_purged_while_it_was_confirmed_comes_back_under_no_other_tags() {
    for (soft, expected) in [(false, "MISS"), (true, "REVALIDATED")] {
        let (house, gate) = confirming(&[("cache-control", "max-age=60"), ("cache-tag", "new")]).await;
        let asked = tokio::spawn({
            let house = house.clone();
            async move { house.get("/a").await }
        });
        quiet().await;
        purge(&house, "tag:old", soft).await;
        gate.add_permits(1);
        assert_eq!(asked.await.expect("no panic").body, "answer 1", "who asked before the purge");
        let next = house.get("/a").await;
        assert_ne!(next.x_cache, "HIT", "soft: {soft}");
        assert!(soft || said(&next) == (expected, "answer 3"), "{next:?}");
    }
}

#[tokio::test]
async fn what_was_purged_or_written_to_is_not_sent_as_unconfirmed() {
    for change in ["nothing", "purge", "write"] {
        let (house, gate) = confirming(&[("etag", "\"2\"")]).await;
        let asked = tokio::spawn({
            let house = house.clone();
            async move { house.get("/a").await }
        });
        quiet().await;
        gate.add_permits(1);
        match change {
            "purge" => _ = purge(&house, "tag:old", false).await,
            "write" => _ = house.exchange(request("POST", "/a", &[])).await,
            _ => {}
        }
        let got = asked.await.expect("no panic");
        assert_eq!(got.status, if change == "nothing" { 200 } else { 504 }, "{change}: {got:?}");
    }
}

#[tokio::test]
async fn what_was_asked_for_behind_a_purge_is_not_replaced_by_what_was_asked_for_before() {
    let gates: [Arc<Semaphore>; 2] = std::array::from_fn(|_| Arc::new(Semaphore::new(0)));
    let handler = Handler::waiting({
        let gates = gates.clone();
        move |_, n| {
            let gate = gates[n - 1].clone();
            async move {
                gate.acquire().await.expect("never closed").forget();
                Ok(answer(200, FIELDS, format!("answer {n}")))
            }
        }
    });
    let house = House::new(handler);
    let ask = || {
        let house = house.clone();
        tokio::spawn(async move { house.get(THING).await })
    };
    let first = ask();
    quiet().await;
    purge(&house, "tag:things", true).await;
    let second = ask();
    quiet().await;
    // The later one's answer comes first.
    gates[1].add_permits(1);
    assert_eq!(said(&second.await.expect("no panic")), ("MISS", "answer 2"));
    house.advance(1);
    gates[0].add_permits(1);
    assert_eq!(said(&first.await.expect("no panic")), ("MISS", "answer 1"));
    assert_eq!(said(&house.get(THING).await), ("HIT", "answer 2"), "it is still there, and fresh");
}

#[tokio::test]
async fn a_refresh_that_began_before_a_purge_makes_nothing_fresh() {
    for (text, soft) in TOUCHING.iter().flat_map(|text| [(text, false), (text, true)]) {
        let (house, gate) = stored().await;
        house.advance(61);
        assert_eq!(house.get(THING).await.x_cache, "STALE");
        quiet().await;
        assert_eq!(house.handler.calls(), 2, "the refresh is on its way");
        purge(&house, text, soft).await;
        quiet().await;
        gate.add_permits(1);
        quiet().await;
        assert_eq!(house.handle.stats().fills_in_flight, 0, "it has ended");
        gate.add_permits(1);
        let expected = if soft { ("STALE", "answer 2") } else { ("MISS", "answer 3") };
        assert_eq!(said(&house.get(THING).await), expected, "{text}");
        quiet().await;
        assert_eq!(said(&house.get(THING).await), ("HIT", "answer 3"), "{text}");
    }
}

#[tokio::test]
async fn a_partition_is_erased_or_made_stale_and_no_other_is() {
    for soft in [false, true] {
        let user = |head: &RequestHead<'_>| head.headers.get("user").map(|name| name.as_bytes().to_vec());
        let house = House::with(Handler::saying(FIELDS), |layer| layer.otherwise(Policy::per(user, MINUTE)));
        let ask = async |user| house.ask("/me", &[("user", user)]).await.x_cache;
        for user in ["ann", "bob"] {
            ask(user).await;
        }
        purge(&house, "partition:ann", soft).await;
        // Before anything else could run.
        assert_eq!(house.handle.stats().storage.entries, if soft { 2 } else { 1 });
        assert_eq!(ask("bob").await, "HIT");
        assert_eq!(ask("ann").await, if soft { "STALE" } else { "MISS" });
    }
}

#[tokio::test]
async fn memory_is_given_back_behind_the_purge_and_the_purge_forgotten() {
    let group = |head: &http::request::Parts| if head.uri.path().ends_with('0') { "\"round\"" } else { "\"other\"" };
    let house = House::with(
        Handler::new(move |head, n| answer(200, &[FIELDS[0], ("cache-groups", group(head))], format!("answer {n}"))),
        |_| CacheLayer::in_memory(16 << 20),
    );
    for n in 0..2000 {
        house.get(&format!("/{n}")).await;
    }
    let before = house.handle.stats().storage;
    assert_eq!(before.entries, 2000);
    let rows = [("tag:round", 200), ("glob:/1??1", 100), ("regex:^/.$", 9), ("uri:/42", 1)];
    let (mut left, mut swept) = (2000, 0);
    for (text, gone) in rows {
        purge(&house, text, false).await;
        quiet().await;
        let stats = house.handle.stats();
        (left, swept) = (left - gone, swept + gone);
        assert_eq!((stats.storage.entries, stats.swept, stats.purges_remembered), (left, swept, 0), "{text}");
    }
    assert!(house.handle.stats().storage.bytes < before.bytes * 9 / 10);
    purge(&house, "glob:*", true).await;
    quiet().await;
    assert_eq!(house.handle.stats().storage.entries, left, "what is stale is of use");
    assert_eq!(house.get("/7777").await.x_cache, "MISS");
    assert_eq!(house.get("/11").await.x_cache, "STALE");
}

#[tokio::test]
async fn of_several_variants_those_go_that_are_touched() {
    let house = House::new(Handler::new(|head, n| {
        let language = head.headers["accept-language"].to_str().unwrap();
        let fields = [
            ("cache-control", "max-age=60"),
            ("vary", "accept-language"),
            ("cache-groups", &format!("\"{language}\"")),
        ];
        answer(200, &fields, format!("answer {n}"))
    }));
    let ask = async |language| house.ask("/", &[("accept-language", language)]).await.x_cache;
    for language in ["de", "en", "fr"] {
        ask(language).await;
    }
    let before = house.handle.stats().storage.bytes;
    purge(&house, "tag:en", false).await;
    quiet().await;
    assert!(house.handle.stats().storage.bytes < before);
    assert_eq!(house.handle.stats().swept, 1);
    assert_eq!([ask("de").await, ask("fr").await, ask("en").await], ["HIT", "HIT", "MISS"]);
}

#[tokio::test(start_paused = true)]
async fn a_purge_is_remembered_while_a_fill_is_older() {
    let (house, gate) = stored().await;
    let fill = tokio::spawn({
        let house = house.clone();
        async move { house.get("/slow").await }
    });
    quiet().await;
    purge(&house, "uri:/elsewhere", false).await;
    purge(&house, "glob:/slow*", true).await;
    tokio::time::sleep(secs(5)).await;
    assert_eq!(house.handle.stats().purges_remembered, 2);
    assert_eq!(house.get(THING).await.x_cache, "HIT");
    gate.add_permits(1);
    fill.await.unwrap();
    tokio::time::sleep(secs(5)).await;
    assert_eq!(house.handle.stats().purges_remembered, 0);
    assert_eq!(house.get("/slow").await.x_cache, "STALE", "it was stored as what it is");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_doesnt_wait_for_a_sweep_that_waits() {
    let (house, _gate) = stored().await;
    let fill = tokio::spawn({
        let house = house.clone();
        async move { house.get("/slow").await }
    });
    quiet().await;
    purge(&house, "uri:/elsewhere", false).await;
    tokio::time::sleep(secs(1)).await;
    let began = tokio::time::Instant::now();
    assert!(house.handle.shutdown(secs(30)).await);
    assert!(began.elapsed() < secs(1));
    purge(&house, "tag:things", false).await;
    assert_eq!(house.handle.stats().storage.entries, 1, "nobody sweeps any more");
    fill.abort();
}

#[tokio::test]
async fn what_is_remembered_has_a_bound_and_beyond_it_too_much_is_purged() {
    let (house, gate) = stored().await;
    // In one go: nobody sweeps in between.
    for n in 0..256 {
        purge(&house, &format!("glob:/other/{n}"), false).now_or_never().expect("memory is purged at once");
    }
    assert_eq!(house.get(THING).await.x_cache, "HIT");
    let (house_of_many, gate_of_many) = stored().await;
    for n in 0..257 {
        purge(&house_of_many, &format!("glob:/other/{n}"), true).now_or_never().expect("memory is purged at once");
    }
    gate.add_permits(1);
    gate_of_many.add_permits(1);
    assert_eq!(house_of_many.get(THING).await.x_cache, "MISS");
    assert_eq!(house_of_many.get(THING).await.x_cache, "HIT");
    quiet().await;
    assert_eq!(house_of_many.handle.stats().purges_remembered, 0);
    // With sweeps in between there is no bound on how many there are.
    for n in 0..1000 {
        purge(&house, &format!("glob:/other/{n}"), false).await;
        if n % 100 == 0 {
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
    }
    assert_eq!(house.get(THING).await.x_cache, "HIT");
}

#[test]
fn outside_of_a_runtime_a_purge_takes_effect_all_the_same() {
    let house = House::new(Handler::saying(FIELDS));
    let get = || house.get(THING).now_or_never().expect("all is ready").x_cache;
    assert_eq!([get(), get()], ["MISS", "HIT"]);
    house.handle.purge(selector("tag:things")).into_future().now_or_never().expect("memory is purged at once").unwrap();
    assert_eq!([get(), get()], ["MISS", "HIT"]);
    assert!(house.handle.stats().purges_remembered > 0, "nobody sweeps");
}

#[tokio::test]
async fn a_dry_run_counts_and_changes_nothing() {
    let house = House::new(Handler::new(|head, _| {
        let vary = [FIELDS[0], FIELDS[1], ("vary", "accept-language")];
        answer(200, if head.uri.path() == "/v" { &vary } else { FIELDS }, "x".repeat(1000))
    }));
    for target in ["/a", "/a?b", "/c"] {
        house.get(target).await;
    }
    for language in ["de", "en"] {
        house.ask("/v", &[("accept-language", language)]).await;
    }
    let dry = async |text: &str| {
        let dry = house.handle.purge(selector(text)).dry_run().await.expect("a dry run");
        (dry.entries, dry.responses, dry.bytes, dry.reads)
    };
    house.get("/c").await;
    assert_eq!((dry("uri:/c").await.3, dry("uri:/a").await.3, dry("glob:*").await.3), (1, 0, 1));
    let all = dry("everything").await;
    assert_eq!((all.0, all.1), (4, 5));
    assert!(all.2 > 5000 && all.2 < house.handle.stats().storage.bytes, "{}", all.2);
    for (text, entries, responses) in [
        ("glob:/a*", 2, 2),
        ("uri:/a", 1, 1),
        ("uri:http://example.org/a", 0, 0),
        ("tag:things", 4, 5),
        ("regex:v", 1, 2),
        ("partition:x", 0, 0),
    ] {
        let found = dry(text).await;
        assert_eq!((found.0, found.1), (entries, responses), "{text}");
        assert_eq!(found.2 > 0, entries > 0);
    }
    assert_eq!(house.get("/a").await.x_cache, "HIT");
    purge(&house, "uri:/a", false).await;
    assert_eq!(dry("glob:/a*").await.0, 1, "what is purged already doesn't count");
}

#[tokio::test]
async fn what_is_no_selector_is_refused_at_once_and_nothing_is_purged() {
    let (house, _gate) = stored().await;
    let rows = [
        Selector::Uri("things".into()),
        Selector::Glob("x".repeat(1 << 20)),
        Selector::Glob("*".repeat(10_000)),
        Selector::Glob("/a\n*".into()),
        Selector::Glob("/a\\".into()),
        Selector::Glob(String::new()),
        Selector::Regex("(".into()),
        Selector::Regex("x".repeat(1 << 20)),
        Selector::Regex("(\\w{500}){500}".into()),
    ];
    for selector in rows {
        let began = Instant::now();
        let refused = house.handle.purge(selector.clone()).await.unwrap_err();
        assert!(began.elapsed() < Duration::from_millis(500));
        let text = refused.to_string();
        assert!(matches!(refused, PurgeError::Uri { .. } | PurgeError::Pattern { .. }) && text.len() < 500, "{text}");
        assert!(house.handle.purge(selector.clone()).soft().await.is_err());
        assert!(house.handle.purge(selector).dry_run().await.is_err());
    }
    assert_eq!((house.get(THING).await.x_cache.as_str(), house.handle.stats().purges), ("HIT", 0));
    for text in ["regex:(a*)*$", &format!("glob:{}", "*a".repeat(500))] {
        let began = Instant::now();
        purge(&house, text, false).await;
        quiet().await;
        assert!(began.elapsed() < Duration::from_millis(500), "{text:.20}");
    }
}

/// A store of one's own, which nobody sweeps.
#[derive(Default)]
struct Shelf(Mutex<HashMap<CacheKey, Variants>>);

impl Shelf {
    fn with<R>(&self, use_it: impl FnOnce(&mut HashMap<CacheKey, Variants>) -> R) -> Result<R, StorageError> {
        Ok(use_it(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Storage for Shelf {
    async fn get(&self, query: Query<'_>) -> Result<Variants, StorageError> {
        self.with(|all| all.get(query.key).cloned().unwrap_or_default())
    }

    async fn put(&self, key: &CacheKey, response: Arc<StoredResponse>, most: usize) -> Result<(), StorageError> {
        self.with(|all| {
            let old = all.remove(key).unwrap_or_default();
            all.insert(key.clone(), with_variant(&old, response, most));
        })
    }

    async fn remove(&self, key: &CacheKey) -> Result<bool, StorageError> {
        self.with(|all| all.remove(key).is_some())
    }

    async fn clear(&self) -> Result<(), StorageError> {
        self.with(HashMap::clear)
    }

    fn usage(&self) -> StorageUsage {
        StorageUsage::new(self.with(|all| all.len()).unwrap_or_default() as u64, 0, 0)
    }
}

#[tokio::test]
async fn with_a_store_of_ones_own_purges_are_remembered_and_hold() {
    for (text, soft) in TOUCHING.iter().flat_map(|text| [(text, false), (text, true)]) {
        let house = House::around(Handler::saying(FIELDS), CacheLayer::with_storage(Shelf::default()));
        for target in [THING, "/other"] {
            house.get(target).await;
            quiet().await;
            assert_eq!(house.get(target).await.x_cache, "HIT");
        }
        purge(&house, text, soft).await;
        quiet().await;
        let forgotten = *text == "everything" && !soft;
        assert_eq!(house.handle.stats().purges_remembered == 0, forgotten, "{text}");
        assert_eq!(house.get(THING).await.x_cache, if soft { "STALE" } else { "MISS" }, "{text}");
        quiet().await;
        assert_eq!(house.get(THING).await.x_cache, "HIT", "{text}");
        let dry = house.handle.purge(selector(text)).dry_run().await;
        assert!(matches!(dry, Err(PurgeError::Unscannable)));
    }
}

#[tokio::test]
async fn a_pattern_reaches_what_answers_for_other_queries() {
    let fields = &[("cache-control", "max-age=60"), ("no-vary-search", "params=(\"utm\")")];
    for (text, touches) in [("glob:/a\\?utm=2", true), ("glob:/a", true), ("regex:utm=2", true), ("glob:/b*", false)] {
        let house = House::new(Handler::saying(fields));
        for target in ["/a?utm=1", "/a?utm=1"] {
            house.get(target).await;
        }
        assert_eq!(house.get("/a?utm=2").await.x_cache, "HIT", "the same to the handler");
        purge(&house, text, false).await;
        assert_eq!(house.get("/a?utm=2").await.x_cache, if touches { "MISS" } else { "HIT" }, "{text}");
    }
}
