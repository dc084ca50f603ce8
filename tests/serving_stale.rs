//! Stale answers are served where somebody allowed it, for exactly as long, and never where somebody forbade it.

mod support;

use std::sync::Arc;

use larder::{CacheLayer, Cached, Policy, Selector, StaleReason};
use support::exchange::*;
use tokio::sync::{Notify, Semaphore};

type Fields = &'static [(&'static str, &'static str)];

/// A handler whose first answer comes at once, and the others when the gate lets them through.
fn gated(fields: Fields) -> (Handler, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let handler = Handler::waiting({
        let gate = gate.clone();
        move |_, n| {
            let gate = gate.clone();
            async move {
                if n > 1 {
                    gate.acquire().await.expect("never closed").forget();
                }
                Ok(answer(200, fields, format!("answer {n}")))
            }
        }
    });
    (handler, gate)
}

const SWR: Fields = &[("cache-control", "max-age=60, stale-while-revalidate=10")];

const VARIED: Fields = &[SWR[0], ("vary", "accept-language")];

#[tokio::test]
async fn while_a_refresh_runs_all_are_answered_at_once_and_only_one_refresh_runs() {
    let (handler, gate) = gated(SWR);
    let house = House::new(handler);
    house.get("/").await;
    house.advance(65);
    for _ in 0..20 {
        let exchange = house.get("/").await;
        assert_eq!((exchange.x_cache.as_str(), exchange.body.as_str()), ("STALE", "answer 1"));
        quiet().await;
    }
    assert_eq!(house.handler.calls(), 2, "one refresh for twenty clients");
    gate.add_permits(1);
    quiet().await;
    let exchange = house.get("/").await;
    assert_eq!((exchange.x_cache.as_str(), exchange.body.as_str(), exchange.field("age")), ("HIT", "answer 2", "0"));
    assert_eq!(house.handle.stats().refreshes, 1);
    house.advance(65);
    assert_eq!(house.get("/").await.x_cache, "STALE");
    quiet().await;
    assert_eq!(house.handler.calls(), 3, "the next refresh may run once the first has ended");
}

#[tokio::test]
async fn each_variant_has_its_own_refresh() {
    let (handler, gate) = gated(VARIED);
    gate.add_permits(1);
    let house = House::new(handler);
    let languages = ["en", "de"].map(|language| [("accept-language", language)]);
    for language in &languages {
        house.ask("/", language).await;
    }
    house.advance(65);
    for language in languages.iter().chain(&languages) {
        assert_eq!(house.ask("/", language).await.x_cache, "STALE");
        quiet().await;
    }
    assert_eq!(house.handler.calls(), 4);
}

#[tokio::test]
async fn refreshes_are_bounded_in_all() {
    let gate = Arc::new(Notify::new());
    let handler = Handler::waiting({
        let gate = gate.clone();
        move |_, n| {
            let gate = gate.clone();
            async move {
                if n > 5 {
                    gate.notified().await;
                }
                Ok(answer(200, SWR, ""))
            }
        }
    });
    let house = House::with(handler, |layer| layer.max_refreshes(3));
    let paths: Vec<String> = (0..5).map(|n| format!("/{n}")).collect();
    for path in &paths {
        house.get(path).await;
    }
    house.advance(65);
    for path in &paths {
        assert_eq!(house.get(path).await.x_cache, "STALE", "{path}");
    }
    quiet().await;
    assert_eq!(house.handler.calls(), 5 + 3);
    let stats = house.handle.stats();
    assert_eq!((stats.refreshes, stats.refreshes_refused), (3, 2));
    gate.notify_waiters();
    quiet().await;
    assert_eq!(house.get(&paths[4]).await.x_cache, "STALE");
    quiet().await;
    assert_eq!(house.handler.calls(), 9, "there is room again");
}

/// From which second on the answer to a request is no longer stale out of the store, having been stale before.
#[tokio::test]
async fn the_window_ends_on_its_second() {
    let rows: [(&str, Fields, Policy); 3] = [
        ("by field", SWR, Policy::from_origin()),
        ("by policy", &[("cache-control", "max-age=60")], Policy::from_origin().stale_while_revalidate(secs(10))),
        ("by field before policy", SWR, Policy::from_origin().stale_while_revalidate(secs(99))),
    ];
    for (why, fields, policy) in rows {
        for (age, expected) in [(59, "HIT"), (60, "STALE"), (69, "STALE"), (70, "MISS")] {
            let house = House::with(Handler::saying(fields), |layer| layer.otherwise(policy.clone()));
            house.get("/").await;
            house.advance(age);
            let exchange = house.get("/").await;
            assert_eq!(exchange.x_cache, expected, "{why}, at {age}");
            quiet().await;
            assert_eq!(house.handler.calls(), if expected == "HIT" { 1 } else { 2 }, "{why}, at {age}");
        }
    }
}

#[tokio::test]
async fn a_refresh_asks_with_the_handlers_validators_and_for_the_whole() {
    const MODIFIED: &str = "Thu, 01 Jan 2026 00:00:00 GMT";
    let handler = Handler::new(|head, n| {
        let (status, body) = if head.headers.contains_key("if-none-match") { (304, "") } else { (200, "content") };
        answer(status, &[SWR[0], ("etag", "\"a\""), ("last-modified", MODIFIED), ("x-n", &n.to_string())], body)
    });
    let house = House::new(handler);
    house.get("/").await;
    house.advance(65);
    // What this client knows and wants is no business of the refresh.
    let fields = [("if-none-match", "\"other\""), ("range", "bytes=0-0"), ("if-match", "\"a\"")];
    let stale = house.ask("/", &fields).await;
    assert_eq!((stale.x_cache.as_str(), stale.status, stale.body.as_str()), ("STALE", 206, "c"));
    quiet().await;
    let asked = house.handler.last().headers;
    assert_eq!(
        (&asked["if-none-match"], &asked["if-modified-since"]),
        (&"\"a\"".parse().unwrap(), &MODIFIED.parse().unwrap())
    );
    assert!(!asked.contains_key("range") && !asked.contains_key("if-match"));
    let hit = house.get("/").await;
    assert_eq!((hit.x_cache.as_str(), hit.body.as_str(), hit.field("x-n")), ("HIT", "content", "2"));
}

#[tokio::test]
async fn a_validator_of_the_caches_own_is_never_sent_to_the_handler() {
    let house = House::new(Handler::saying(SWR));
    assert!(house.get("/").await.has("etag"), "the cache makes one of the content");
    house.advance(65);
    house.get("/").await;
    quiet().await;
    let asked = house.handler.last().headers;
    assert_eq!(house.handler.calls(), 2);
    assert!(!asked.contains_key("if-none-match") && !asked.contains_key("if-modified-since"));
}

#[tokio::test]
async fn a_head_that_finds_it_stale_has_it_refreshed_by_a_get() {
    let house = House::new(Handler::saying(SWR));
    house.get("/").await;
    house.advance(65);
    assert_eq!(house.exchange(request("HEAD", "/", &[])).await.x_cache, "STALE");
    quiet().await;
    assert_eq!(house.handler.last().method, "GET");
    assert_eq!(house.get("/").await.body, "answer 2");
}

#[tokio::test]
async fn a_refresh_that_fails_leaves_what_is_stored() {
    for bad in [500, 503] {
        let handler = Handler::new(move |_, n| answer(if n == 2 { bad } else { 200 }, SWR, format!("answer {n}")));
        let house = House::new(handler);
        house.get("/").await;
        house.advance(65);
        for body in ["answer 1", "answer 1"] {
            let exchange = house.get("/").await;
            assert_eq!((exchange.x_cache.as_str(), exchange.body.as_str()), ("STALE", body));
            quiet().await;
        }
        assert_eq!(house.get("/").await.body, "answer 3", "the next refresh went well");
    }
}

/// The second answer goes wrong: whether the first stands in for it. `None`: the handler fails altogether.
async fn after_trouble(
    layer: CacheLayer,
    fields: Fields,
    trouble: Option<u16>,
    age: u64,
    asked: Fields,
) -> Result<Exchange, Failure> {
    let handler = Handler::failing(move |_, n| match (n, trouble) {
        (1, _) => Ok(answer(200, fields, "good")),
        (_, None) => Err(Failure),
        (_, Some(status)) => Ok(answer(status, &[], "bad")),
    });
    let house = House::around(handler, layer);
    house.get("/").await;
    house.advance(age);
    let outcome = house.try_exchange(request("GET", "/", asked)).await;
    assert_eq!(house.handler.calls(), 2, "the handler was asked first");
    outcome
}

fn memory() -> CacheLayer {
    CacheLayer::in_memory(1 << 20)
}

#[tokio::test]
async fn a_stale_answer_stands_in_for_trouble() {
    const SIE: Fields = &[("cache-control", "max-age=60, stale-if-error=10")];
    const FRESH: Fields = &[("cache-control", "max-age=60")];
    fn policy() -> CacheLayer {
        memory().otherwise(Policy::from_origin().stale_if_error(secs(10)))
    }
    let anybody: Fields = &[];
    type Row = (&'static str, fn() -> CacheLayer, Fields, Fields);
    let rows: [Row; 3] = [
        ("by field", memory, SIE, anybody),
        ("by policy", policy, FRESH, anybody),
        ("by request", memory, FRESH, &[("cache-control", "stale-if-error=10")]),
    ];
    let (stale, bad) = ((200, "good"), "bad");
    for (why, layer, fields, asked) in rows {
        for trouble in [500, 502, 503, 504] {
            for (age, expected) in [(60, stale), (69, stale), (70, (trouble, bad))] {
                let exchange = after_trouble(layer(), fields, Some(trouble), age, asked).await.unwrap();
                assert_eq!((exchange.status, exchange.body.as_str()), expected, "{why}, {trouble} at {age}");
                assert_eq!(exchange.x_cache == "STALE", expected == stale, "{why}, {trouble} at {age}");
            }
        }
        for (status, why_not) in [(501, "says that it can't"), (404, "is an answer"), (429, "is an answer")] {
            let exchange = after_trouble(layer(), fields, Some(status), 61, asked).await.unwrap();
            assert_eq!(exchange.status, status, "{why}: {status} {why_not}");
        }
        let exchange = after_trouble(layer(), fields, None, 61, asked).await.expect("the error is covered");
        assert_eq!((exchange.x_cache.as_str(), exchange.body.as_str()), ("STALE", "good"), "{why}");
        assert!(after_trouble(layer(), fields, None, 70, asked).await.is_err(), "{why}: not past its window");
    }
}

#[tokio::test]
async fn what_forbids_stale_answers_is_heard() {
    // Without the directive in the last column the stale answer is served: see the first row.
    let rows: [(&str, bool); 6] = [
        ("max-age=60, stale-if-error=99, stale-while-revalidate=99", true),
        ("max-age=60, stale-if-error=99, stale-while-revalidate=99, must-revalidate", false),
        ("max-age=60, stale-if-error=99, stale-while-revalidate=99, proxy-revalidate", false),
        ("s-maxage=60, stale-if-error=99, stale-while-revalidate=99", false),
        ("max-age=60, stale-if-error=99, stale-while-revalidate=99, no-cache", false),
        ("max-age=60, stale-if-error=99, stale-while-revalidate=99, no-cache=\"x\"", false),
    ];
    let policies =
        [Policy::from_origin(), Policy::from_origin().stale_if_error(secs(99)).stale_while_revalidate(secs(99))];
    for (said, served) in rows {
        for (policy, strict) in policies.iter().flat_map(|policy| [(policy, false), (policy, true)]) {
            let handler = Handler::failing(move |_, n| match n {
                1 => Ok(answer(200, &[("cache-control", said), ("etag", "\"a\"")], "good")),
                _ => Err(Failure),
            });
            let layer = memory().otherwise(policy.clone());
            let house = House::around(handler, if strict { layer.strict_rfc() } else { layer });
            house.get("/").await;
            house.advance(61);
            for asked in [&[][..], &[("cache-control", "max-stale")]] {
                let answered = house.try_exchange(request("GET", "/", asked)).await;
                assert_eq!(answered.is_ok(), served, "{said}, {policy:?}, strict: {strict}, {asked:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_client_that_wants_no_stale_answer_gets_none() {
    const SIE: Fields = &[("cache-control", "max-age=60, stale-if-error=10")];
    let exchange = after_trouble(memory(), SIE, Some(503), 61, &[("cache-control", "no-cache")]).await.unwrap();
    assert_eq!((exchange.status, exchange.x_cache.as_str()), (503, "MISS"));
}

/// RFC 9111 §4.2.4 lets a disconnected cache serve stale answers without anybody's word.
#[tokio::test]
async fn to_the_letter_a_handler_out_of_reach_is_reason_enough() {
    const PLAIN: Fields = &[("cache-control", "max-age=60"), ("etag", "\"a\"")];
    let strict = || memory().strict_rfc();
    assert!(after_trouble(memory(), PLAIN, None, 61, &[]).await.is_err(), "not by default");
    let exchange = after_trouble(strict(), PLAIN, None, 1000, &[]).await.unwrap();
    assert_eq!((exchange.x_cache.as_str(), exchange.body.as_str()), ("STALE", "good"));
    let exchange = after_trouble(strict(), PLAIN, Some(503), 61, &[]).await.unwrap();
    assert_eq!(exchange.status, 503, "a handler that answers is in reach");
}

/// The handler answers at once, and from the second time on after `slow` seconds.
fn slow(seconds: u64, later: u16) -> House {
    let handler = Handler::waiting(move |_, n| async move {
        if n > 1 {
            tokio::time::sleep(secs(seconds)).await;
        }
        Ok(answer(if n == 1 { 200 } else { later }, &[("cache-control", "max-age=60")], format!("answer {n}")))
    });
    let policy = Policy::from_origin().stale_if_error(secs(600)).fill_timeout(secs(2));
    House::with(handler, |layer| layer.otherwise(policy))
}

#[tokio::test(start_paused = true)]
async fn a_stale_answer_stands_in_when_the_handler_takes_too_long_and_the_late_answer_is_stored() {
    let house = slow(5, 200);
    house.get("/").await;
    house.advance(61);
    let began = tokio::time::Instant::now();
    let exchange = house.get("/").await;
    assert_eq!(exchange.outcome.unwrap().outcome, larder::Outcome::Stale(StaleReason::IfError));
    assert_eq!((exchange.body.as_str(), began.elapsed()), ("answer 1", secs(2)));
    tokio::time::sleep(secs(2)).await;
    assert_eq!(house.handle.stats().stored, 1, "not before it is there");
    tokio::time::sleep(secs(2)).await;
    let exchange = house.get("/").await;
    assert_eq!((exchange.x_cache.as_str(), exchange.body.as_str()), ("HIT", "answer 2"));
    assert_eq!(house.handler.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_late_error_changes_nothing() {
    let house = slow(5, 503);
    house.get("/").await;
    house.advance(61);
    assert_eq!(house.get("/").await.x_cache, "STALE");
    tokio::time::sleep(secs(10)).await;
    assert_eq!(house.get("/").await.body, "answer 1");
}

#[tokio::test(start_paused = true)]
async fn without_anything_that_stands_in_there_is_no_time_limit() {
    let handler = Handler::waiting(|_, _| async {
        tokio::time::sleep(secs(500)).await;
        Ok(answer(200, &[("cache-control", "max-age=60")], "late"))
    });
    let policy = Policy::from_origin().stale_if_error(secs(600)).fill_timeout(secs(2));
    let house = House::with(handler, |layer| layer.otherwise(policy));
    assert_eq!(house.get("/").await.body, "late");
}

#[tokio::test]
async fn a_handler_can_set_the_windows_of_its_answer() {
    let handler = Handler::failing(|_, n| {
        if n > 1 {
            return Err(Failure);
        }
        let mut response = answer(200, &[], "good");
        response
            .extensions_mut()
            .insert(Cached::shared(secs(5)).stale_while_revalidate(secs(5)).stale_if_error(secs(10)));
        Ok(response)
    });
    let house = House::new(handler);
    for (passed, expected) in [(0, Ok("MISS")), (4, Ok("HIT")), (5, Ok("STALE")), (5, Ok("STALE")), (1, Err(Failure))] {
        house.advance(passed);
        let answered = house.try_exchange(get("/")).await.map(|exchange| exchange.x_cache);
        assert_eq!(answered.as_deref(), expected.as_deref(), "after {passed} more");
        quiet().await;
    }
}

#[tokio::test]
async fn a_clock_set_back_makes_nothing_fresh_again() {
    let house = House::new(Handler::saying(&[("cache-control", "max-age=60")]));
    house.get("/").await;
    house.advance(61);
    house.clock.set_wall(std::time::UNIX_EPOCH);
    assert_eq!(house.get("/").await.x_cache, "MISS");
}

/// It was good once, and the handler says that it isn't any more: nothing old is served beside an answer that can't be stored.
#[tokio::test]
async fn an_answer_that_cant_be_stored_ends_the_stale_ones() {
    type Then = fn() -> http::Response<Content>;
    let rows: [(&str, Then); 5] = [
        ("no-store", || answer(200, &[("cache-control", "no-store")], "new")),
        ("gone", || answer(410, &[], "new")),
        ("head too large", || answer(200, &[SWR[0], ("x-long", &"x".repeat(2000))], "new")),
        ("body too large", || answer(200, SWR, "x".repeat(30_001))),
        ("body announced as too large", || answer(200, &[SWR[0], ("content-length", "30001")], "new")),
    ];
    for (why, then) in rows {
        let handler = Handler::new(move |_, n| if n == 1 { answer(200, SWR, "old") } else { then() });
        let house = House::with(handler, |layer| layer.max_head_size(1000).max_body_size(30_000));
        house.get("/").await;
        house.advance(65);
        assert_eq!(house.get("/").await.body, "old", "{why}: while it is being refreshed");
        quiet().await;
        let exchange = house.get("/").await;
        assert_eq!((exchange.x_cache.as_str(), exchange.body != "old"), ("MISS", true), "{why}");
    }
}

/// The counterpart: an error says nothing about what it stands in the place of, and an answer for one user nothing about the one for all.
#[tokio::test]
async fn what_speaks_of_an_error_or_of_one_user_evicts_nothing() {
    const FOR_ALL: Fields = &[("cache-control", "max-age=60"), ("etag", "\"a\"")];
    const PUBLIC: Fields = &[("cache-control", "public, max-age=60"), ("etag", "\"a\"")];
    const RELOAD: Fields = &[("cache-control", "no-cache")];
    const AUTHORIZED: Fields = &[("authorization", "x")];
    const BOTH: Fields = &[RELOAD[0], AUTHORIZED[0]];
    const NO_STORE: Fields = &[("cache-control", "no-store")];
    const PRIVATE: Fields = &[("cache-control", "private, max-age=60")];
    const MINE: Fields = &[PRIVATE[0], ("etag", "\"mine\"")];
    // What is stored; the request that reaches the handler all the same, and its answer; whether what was stored is still there.
    let rows: [(Fields, &str, Fields, u16, Fields, bool); 17] = [
        (FOR_ALL, "GET", RELOAD, 503, NO_STORE, true),
        (FOR_ALL, "GET", RELOAD, 500, PRIVATE, true),
        (FOR_ALL, "GET", RELOAD, 401, NO_STORE, true),
        (FOR_ALL, "GET", RELOAD, 429, NO_STORE, true),
        (FOR_ALL, "GET", AUTHORIZED, 401, NO_STORE, true),
        (FOR_ALL, "GET", AUTHORIZED, 200, PRIVATE, true),
        (FOR_ALL, "GET", AUTHORIZED, 200, NO_STORE, true),
        (FOR_ALL, "GET", AUTHORIZED, 404, PRIVATE, true),
        (FOR_ALL, "GET", AUTHORIZED, 304, PRIVATE, true),
        (FOR_ALL, "HEAD", AUTHORIZED, 200, PRIVATE, true),
        (FOR_ALL, "HEAD", AUTHORIZED, 200, MINE, true),
        (FOR_ALL, "HEAD", AUTHORIZED, 401, NO_STORE, true),
        // What does speak of it.
        (FOR_ALL, "GET", RELOAD, 200, NO_STORE, false),
        (FOR_ALL, "GET", RELOAD, 200, PRIVATE, false),
        (FOR_ALL, "GET", RELOAD, 410, NO_STORE, false),
        (FOR_ALL, "HEAD", RELOAD, 200, PRIVATE, false),
        (PUBLIC, "GET", BOTH, 200, PRIVATE, false),
    ];
    for (stored, method, asked, status, fields, stays) in rows {
        let why = format!("{stored:?}, then {method} {asked:?}: {status} {fields:?}");
        let handler = Handler::new(move |_, n| match n {
            1 => answer(200, stored, "for all"),
            _ => answer(status, fields, ""),
        });
        let house = House::new(handler);
        house.get("/").await;
        let exchange = house.exchange(request(method, "/", asked)).await;
        assert_eq!(house.handler.calls(), 2, "{why}");
        assert!(status == 304 || exchange.status == status, "{why}: {exchange:?}");
        let now = house.ask("/", &[("cache-control", "only-if-cached")]).await;
        assert_eq!(now.x_cache == "HIT" && now.body == "for all", stays, "{why}: {now:?}");
    }
}

/// A reload shows that the resource has outgrown the store: what it was before is not served again.
#[tokio::test]
async fn a_reload_that_finds_it_too_large_drops_what_was_stored() {
    use bytes::Bytes;
    use http_body::Frame;
    use http_body_util::StreamBody;

    const MAX_AGE: (&str, &str) = ("cache-control", "max-age=600");
    type Then = fn() -> http::Response<Content>;
    let rows: [(&str, Then); 3] = [
        ("announced", || answer(200, &[MAX_AGE, ("content-length", "20")], "x".repeat(20))),
        ("known to the body", || answer(200, &[MAX_AGE], "x".repeat(20))),
        ("found while it streams", || {
            let frames = (0..4).map(|_| Ok(Frame::data(Bytes::from("xxxxx"))));
            answer(200, &[MAX_AGE], "").map(|_| Content::new(StreamBody::new(futures_util::stream::iter(frames))))
        }),
    ];
    for (why, then) in rows {
        for policy in [Policy::from_origin(), Policy::shared(MINUTE)] {
            let handler = Handler::new(move |_, n| if n == 1 { answer(200, &[MAX_AGE], "old") } else { then() });
            let house = House::with(handler, |layer| layer.max_body_size(10).otherwise(policy));
            house.get("/").await;
            assert_eq!(house.get("/").await.x_cache, "HIT", "{why}");
            let reloaded = house.ask("/", &[("cache-control", "no-cache")]).await;
            assert_eq!((reloaded.x_cache.as_str(), reloaded.body.len()), ("MISS", 20), "{why}");
            let next = house.get("/").await;
            assert_eq!((next.x_cache.as_str(), next.body.len()), ("MISS", 20), "{why}");
            assert_eq!(house.handle.stats().storage.entries, 0, "{why}");
        }
    }
}

/// The stale answer was there when the wait began; it has to be there when the wait ends.
#[tokio::test(start_paused = true)]
async fn what_is_purged_or_too_old_after_the_wait_does_not_stand_in() {
    // What happens during the wait, and what the client gets.
    let rows = [
        ("nothing", "STALE", "answer 1"),
        ("purge of everything", "MISS", "answer 2"),
        ("purge of the URI", "MISS", "answer 2"),
        ("the window ends", "MISS", "answer 2"),
    ];
    for (event, x_cache, body) in rows {
        let house = slow(5, 200);
        house.get("/").await;
        house.advance(61);
        let began = tokio::time::Instant::now();
        let asking = tokio::spawn({
            let house = house.clone();
            async move { house.get("/").await }
        });
        tokio::time::sleep(secs(1)).await;
        assert_eq!(house.handler.calls(), 2, "{event}: the handler is at work");
        match event {
            "purge of everything" => drop(house.handle.purge(Selector::Everything).await.unwrap()),
            "purge of the URI" => drop(house.handle.purge(Selector::Uri("/".into())).await.unwrap()),
            "the window ends" => house.advance(600),
            _ => {}
        }
        let exchange = asking.await.unwrap();
        assert_eq!((exchange.x_cache.as_str(), exchange.body.as_str()), (x_cache, body), "{event}");
        assert_eq!(began.elapsed(), secs(if x_cache == "STALE" { 2 } else { 5 }), "{event}");
    }
}

/// Nobody waits for a refresh, so nobody would notice.
#[tokio::test(start_paused = true)]
async fn a_refresh_that_hangs_gives_its_place_back_after_a_minute() {
    use http_body_util::StreamBody;

    for hangs_in in ["head", "body"] {
        let handler = Handler::waiting(move |_, n| async move {
            let fresh = answer(200, &[], format!("answer {n}"));
            match (n, hangs_in) {
                (3, "head") => std::future::pending().await,
                (3, _) => Ok(fresh.map(|_| Content::new(StreamBody::new(futures_util::stream::pending())))),
                _ => Ok(fresh),
            }
        });
        let policy = Policy::shared(MINUTE).stale_while_revalidate(secs(3600));
        let house = House::with(handler, |layer| layer.max_refreshes(1).otherwise(policy));
        house.get("/hangs").await;
        house.get("/other").await;
        house.advance(61);
        for target in ["/hangs", "/other"] {
            assert_eq!(house.get(target).await.x_cache, "STALE");
            quiet().await;
        }
        tokio::time::sleep(secs(59)).await;
        for (target, body) in [("/other", "answer 2"), ("/hangs", "answer 1")] {
            let exchange = house.get(target).await;
            assert_eq!((exchange.x_cache.as_str(), exchange.body.as_str()), ("STALE", body), "{hangs_in}");
            quiet().await;
        }
        assert_eq!(house.handler.calls(), 3, "{hangs_in}: the only place is taken");
        tokio::time::sleep(secs(2)).await;
        for (target, body) in [("/other", "answer 4"), ("/hangs", "answer 5")] {
            assert_eq!(house.get(target).await.x_cache, "STALE", "{hangs_in}");
            quiet().await;
            let exchange = house.get(target).await;
            assert_eq!((exchange.x_cache.as_str(), exchange.body.as_str()), ("HIT", body), "{hangs_in}");
        }
        let stats = house.handle.stats();
        assert_eq!((stats.refreshes, stats.refreshes_refused), (3, 2), "{hangs_in}");
    }
}
