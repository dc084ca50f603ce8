//! A route's strategy says who is asked first, the store or the handler; and none serves what the response, the request or a purge forbids.

mod support;

use std::collections::HashMap;
use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use larder::storage::{Query, Storage, StorageUsage, Variants, with_variant};
use larder::{CacheKey, CacheLayer, Outcome, Policy, Selector, StorageError, StoredResponse, Strategy};
use support::exchange::*;

/// What the handler does after its first answer.
#[derive(Clone, Copy, Debug)]
enum Later {
    Answers,
    Status(u16),
    Fails,
    Hangs,
}

const LATER: [Later; 4] = [Later::Answers, Later::Status(503), Later::Fails, Later::Hangs];

/// Fresh for a minute, and good for half a minute more if there is an error.
const FIELDS: [(&str, &str); 1] = [("cache-control", "max-age=60, stale-if-error=30")];

fn handler(first: usize, later: Later, fields: &'static [(&'static str, &'static str)]) -> Handler {
    Handler::waiting(move |_, n| async move {
        match later {
            _ if n <= first => Ok(answer(200, fields, format!("answer {n}"))),
            Later::Answers => Ok(answer(200, fields, format!("answer {n}"))),
            Later::Status(status) => Ok(answer(status, &[], "")),
            Later::Fails => Err(Failure),
            Later::Hangs => pending().await,
        }
    })
}

/// What a client gets from the cache: `X-Cache`, its status, and what `Cache-Status` says; or that nobody answers.
async fn told(house: &House, fields: &[(&str, &str)]) -> String {
    let exchange = house.try_exchange(request("GET", "/", fields));
    match tokio::time::timeout(MINUTE, exchange).await {
        Ok(Ok(got)) => format!("{} {} {}", got.x_cache, got.status, got.cache_status.trim_start_matches("larder; ")),
        Ok(Err(Failure)) => "fails".into(),
        Err(_) => "hangs".into(),
    }
}

/// Whether, and how, the store has what is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stored {
    Fresh,
    InWindow,
    Stale,
    Missing,
    Purged,
}

async fn house(strategy: Strategy, stored: Stored, later: Later) -> House {
    let first = usize::from(stored != Stored::Missing);
    let house =
        House::with(handler(first, later, &FIELDS), |layer| layer.otherwise(Policy::from_origin().strategy(strategy)));
    if stored != Stored::Missing {
        house.get("/").await;
    }
    match stored {
        Stored::Fresh | Stored::Missing => house.advance(10),
        Stored::InWindow => house.advance(70),
        Stored::Stale => house.advance(200),
        Stored::Purged => drop(house.handle.purge(Selector::Uri("/".into())).await.expect("a path")),
    }
    house
}

#[tokio::test(start_paused = true)]
async fn every_strategy_with_everything_that_can_be_stored_and_happen() {
    use Stored::*;
    let network_first = Strategy::NetworkFirst { limit: Some(secs(2)) };
    const MISS: [&str; 4] =
        ["MISS 200 fwd=uri-miss; stored", "MISS 503 fwd=uri-miss; detail=error-status", "fails", "hangs"];
    const BYPASS: [&str; 4] =
        ["BYPASS 200 fwd=bypass; detail=network-only", "BYPASS 503 fwd=bypass; detail=network-only", "fails", "hangs"];
    const HIT: [&str; 4] = ["HIT 200 hit; ttl=50"; 4];
    const ASKED: [&str; 4] =
        ["MISS 200 fwd=stale; stored", "MISS 503 fwd=stale; detail=error-status", "fails", "hangs"];
    const IF_ERROR: &str = "STALE 200 fwd=stale; ttl=-10; detail=stale-if-error";
    const FALLBACK: &str = "HIT 200 fwd=bypass; ttl=50; detail=network-first";
    const STALE_FALLBACK: &str = "STALE 200 fwd=stale; ttl=-10; detail=network-first";
    let rows = [
        (Strategy::CacheFirst, Fresh, HIT),
        (Strategy::CacheFirst, InWindow, [ASKED[0], IF_ERROR, IF_ERROR, "hangs"]),
        (Strategy::CacheFirst, Stale, ASKED),
        (Strategy::CacheFirst, Missing, MISS),
        (Strategy::CacheFirst, Purged, MISS),
        (network_first, Fresh, ["MISS 200 fwd=bypass; stored; detail=network-first", FALLBACK, FALLBACK, FALLBACK]),
        (network_first, InWindow, [ASKED[0], STALE_FALLBACK, STALE_FALLBACK, STALE_FALLBACK]),
        (network_first, Stale, ASKED),
        (network_first, Missing, MISS),
        (network_first, Purged, MISS),
        (Strategy::StaleWhileRevalidate, Fresh, HIT),
        (Strategy::StaleWhileRevalidate, InWindow, ["STALE 200 hit; ttl=-10; detail=stale-while-revalidate"; 4]),
        (Strategy::StaleWhileRevalidate, Stale, ["STALE 200 hit; ttl=-140; detail=stale-while-revalidate"; 4]),
        (Strategy::StaleWhileRevalidate, Missing, MISS),
        (Strategy::StaleWhileRevalidate, Purged, MISS),
        (Strategy::NetworkOnly, Missing, BYPASS),
        (Strategy::NetworkOnly, Fresh, BYPASS),
        (Strategy::NetworkOnly, Stale, BYPASS),
        (Strategy::NetworkOnly, Purged, BYPASS),
        (Strategy::CacheOnly, Missing, ["MISS 504 detail=cache-only"; 4]),
    ];
    for (strategy, stored, expected) in rows {
        for (later, expected) in LATER.into_iter().zip(expected) {
            let house = house(strategy, stored, later).await;
            assert_eq!(told(&house, &[]).await, expected, "{strategy:?}, {stored:?}, {later:?}");
        }
    }
}

#[tokio::test]
async fn network_first_asks_each_time_and_keeps_what_it_gets() {
    let house = house(Strategy::NetworkFirst { limit: None }, Stored::Fresh, Later::Answers).await;
    for n in 2..5 {
        assert_eq!(house.get("/").await.body, format!("answer {n}"));
    }
    // A client that wants nothing from the handler gets what is stored, as under any strategy.
    let stored = house.ask("/", &[("cache-control", "only-if-cached")]).await;
    assert_eq!((stored.x_cache.as_str(), stored.body.as_str()), ("HIT", "answer 4"));
    assert_eq!(house.handler.calls(), 4);
}

const SWR: [(&str, &str); 1] = [("cache-control", "max-age=60, stale-while-revalidate=30")];

#[tokio::test]
async fn network_first_asks_within_a_window_for_refreshes_too() {
    for (later, expected) in [
        (Later::Answers, "MISS 200 fwd=stale; stored"),
        (Later::Fails, "STALE 200 fwd=stale; ttl=-10; detail=network-first"),
    ] {
        let policy = Policy::from_origin().network_first(MINUTE);
        let house = House::with(handler(1, later, &SWR), |layer| layer.otherwise(policy));
        house.get("/").await;
        house.advance(70);
        assert_eq!(told(&house, &[]).await, expected);
        assert_eq!((house.handler.calls(), house.handle.stats().refreshes), (2, 0));
    }
}

#[tokio::test]
async fn network_first_asks_whether_what_is_stored_is_still_good() {
    let handler = Handler::new(|head, n| {
        let known = head.headers.contains_key("if-none-match");
        answer(if known { 304 } else { 200 }, &[FIELDS[0], ("etag", "\"a\"")], if n == 1 { "content" } else { "" })
    });
    let house = House::with(handler, |layer| layer.otherwise(Policy::from_origin().network_first(MINUTE)));
    house.get("/").await;
    let got = house.get("/").await;
    assert_eq!((got.x_cache.as_str(), got.status, got.body.as_str()), ("REVALIDATED", 200, "content"));
    assert_eq!(got.cache_status, "larder; fwd=bypass; fwd-status=304; ttl=60; detail=network-first");
}

#[tokio::test(start_paused = true)]
async fn network_first_stores_the_answer_that_came_too_late() {
    let handler = Handler::waiting(|_, n| async move {
        tokio::time::sleep(secs(if n == 2 { 5 } else { 0 })).await;
        Ok(answer(200, &FIELDS, format!("answer {n}")))
    });
    let house = House::with(handler, |layer| layer.otherwise(Policy::from_origin().network_first(secs(2))));
    house.get("/").await;
    let began = tokio::time::Instant::now();
    let got = house.get("/").await;
    assert_eq!((got.body.as_str(), began.elapsed()), ("answer 1", secs(2)));
    assert_eq!(got.outcome.map(|outcome| outcome.outcome), Some(Outcome::Fallback));
    tokio::time::sleep(secs(4)).await;
    let stored = house.ask("/", &[("cache-control", "only-if-cached")]).await;
    assert_eq!(stored.body, "answer 2");
    assert_eq!(house.handle.stats().hits, 2, "a fallback that is fresh counts as a hit");
}

/// Nobody waits for them any more, so what bounds clients doesn't bound them.
#[tokio::test(start_paused = true)]
async fn answers_that_come_too_late_are_waited_for_within_the_bounds_of_refreshes() {
    struct Running(Arc<AtomicUsize>);
    impl Drop for Running {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
    let policies = [Policy::from_origin().network_first(secs(1)), Policy::from_origin().fill_timeout(secs(1))];
    for policy in policies {
        let running = Arc::new(AtomicUsize::new(0));
        let handler = Handler::waiting({
            let running = running.clone();
            move |_, n| {
                running.fetch_add(1, Ordering::Relaxed);
                let running = Running(running.clone());
                async move {
                    let _running = running;
                    if n > 5 {
                        pending::<()>().await;
                    }
                    Ok(answer(200, &FIELDS, ""))
                }
            }
        });
        let house = House::with(handler, |layer| layer.otherwise(policy).max_refreshes(3));
        for n in 0..5 {
            house.get(&format!("/{n}")).await;
        }
        house.advance(65);
        for n in 0..20 {
            assert_eq!(house.get(&format!("/{}", n % 5)).await.x_cache, "STALE");
        }
        quiet().await;
        assert_eq!(running.load(Ordering::Relaxed), 3);
    }
}

#[tokio::test]
async fn every_5xx_makes_network_first_fall_back_and_no_other_status_does() {
    for (status, expected) in [(500, 200), (501, 200), (507, 200), (599, 200), (404, 404), (429, 429)] {
        let house = house(Strategy::NetworkFirst { limit: None }, Stored::Fresh, Later::Status(status)).await;
        assert_eq!(house.get("/").await.status, expected, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_forbids_to_use_a_response_holds_under_every_strategy() {
    type Fields = &'static [(&'static str, &'static str)];
    let network_first = Strategy::NetworkFirst { limit: Some(secs(2)) };
    let rows: [(Strategy, Fields, Fields, u64, &str); 8] = [
        // RFC 9111 §5.2.2.4
        (network_first, &[("cache-control", "max-age=60, no-cache"), ("etag", "\"a\"")], &[], 1, "fails"),
        // §5.2.2.2
        (network_first, &[("cache-control", "max-age=60, must-revalidate, stale-if-error=60")], &[], 70, "fails"),
        (Strategy::StaleWhileRevalidate, &[("cache-control", "max-age=60, must-revalidate")], &[], 70, "fails"),
        (
            Strategy::StaleWhileRevalidate,
            &[("cache-control", "max-age=60, no-cache"), ("etag", "\"a\"")],
            &[],
            1,
            "fails",
        ),
        // RFC 5861 §3: the response's own window, where it names one
        (
            Strategy::StaleWhileRevalidate,
            &[("cache-control", "max-age=60, stale-while-revalidate=5")],
            &[],
            70,
            "fails",
        ),
        // RFC 9111 §5.2.1.4, §5.2.1.1
        (network_first, &FIELDS, &[("cache-control", "no-cache")], 1, "fails"),
        (
            Strategy::StaleWhileRevalidate,
            &[("cache-control", "max-age=60")],
            &[("cache-control", "max-age=5")],
            10,
            "fails",
        ),
        // §3.5
        (network_first, &FIELDS, &[("authorization", "Basic YTpi")], 1, "fails"),
    ];
    for (strategy, fields, asked, seconds, expected) in rows {
        let house = House::with(handler(1, Later::Fails, fields), |layer| {
            layer.otherwise(Policy::from_origin().strategy(strategy))
        });
        house.get("/").await;
        house.advance(seconds);
        assert_eq!(told(&house, asked).await, expected, "{strategy:?}, {fields:?}, {asked:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_purge_or_a_write_took_doesnt_stand_in_for_a_handler_that_hangs() {
    for by_write in [false, true] {
        let house = house(Strategy::NetworkFirst { limit: Some(secs(2)) }, Stored::Fresh, Later::Hangs).await;
        let asking = tokio::spawn({
            let house = house.clone();
            async move { told(&house, &[]).await }
        });
        quiet().await;
        if by_write {
            // Without an answer the write may have happened.
            let write = house.try_exchange(request("PUT", "/", &[]));
            assert!(tokio::time::timeout(secs(1), write).await.is_err(), "the handler hangs");
        } else {
            house.handle.purge(Selector::Everything).await.expect("the memory store doesn't fail");
        }
        assert_eq!(asking.await.expect("no panic"), "hangs", "by a write: {by_write}");
    }
}

#[tokio::test]
async fn stale_while_revalidate_refreshes_behind_the_answer_and_only_what_is_stale() {
    let house = house(Strategy::StaleWhileRevalidate, Stored::Stale, Later::Answers).await;
    assert_eq!(house.get("/").await.body, "answer 1");
    quiet().await;
    let got = house.get("/").await;
    assert_eq!((got.x_cache.as_str(), got.body.as_str(), house.handler.calls()), ("HIT", "answer 2", 2));
}

#[tokio::test]
async fn the_rules_own_window_bounds_stale_while_revalidate() {
    for (age, expected) in [(69, "STALE"), (70, "MISS")] {
        let policy = Policy::shared(MINUTE).strategy(Strategy::StaleWhileRevalidate).stale_while_revalidate(secs(10));
        let house = House::with(Handler::saying(&[]), |layer| layer.otherwise(policy));
        house.get("/").await;
        house.advance(age);
        assert_eq!(house.get("/").await.x_cache, expected);
    }
}

/// A store that two caches share.
#[derive(Clone, Default)]
struct Common(Arc<Mutex<HashMap<CacheKey, Variants>>>);

impl Common {
    fn all(&self) -> MutexGuard<'_, HashMap<CacheKey, Variants>> {
        self.0.lock().expect("no holder panics")
    }
}

impl Storage for Common {
    async fn get(&self, query: Query<'_>) -> Result<Variants, StorageError> {
        Ok(self.all().get(query.key).cloned().unwrap_or_default())
    }
    async fn put(&self, key: &CacheKey, response: Arc<StoredResponse>, most: usize) -> Result<(), StorageError> {
        let mut all = self.all();
        let old = all.remove(key).unwrap_or_default();
        all.insert(key.clone(), with_variant(&old, response, most));
        Ok(())
    }
    async fn remove(&self, key: &CacheKey) -> Result<bool, StorageError> {
        Ok(self.all().remove(key).is_some())
    }
    async fn clear(&self) -> Result<(), StorageError> {
        self.all().clear();
        Ok(())
    }
    fn usage(&self) -> StorageUsage {
        StorageUsage::default()
    }
}

#[tokio::test]
async fn cache_only_never_asks_the_handler() {
    let rows = [
        (10, "", "HIT 200 hit; ttl=50"),
        (70, "", "STALE 200 hit; ttl=-10; detail=cache-only"),
        (71, "", "STALE 200 hit; ttl=-11; detail=cache-only"),
        (200, "", "MISS 504 detail=cache-only"),
        (200, "max-stale=200", "STALE 200 hit; ttl=-140; detail=max-stale"),
        (10, "no-cache", "MISS 504 detail=cache-only"),
        (70, "no-cache", "MISS 504 detail=cache-only"),
    ];
    for (age, directives, expected) in rows {
        let store = Common::default();
        // By age, a window for errors or one for refreshes: none is made.
        let fields = if age == 71 { &SWR } else { &FIELDS };
        let filler = House::around(handler(1, Later::Fails, fields), CacheLayer::with_storage(store.clone()));
        filler.get("/").await;
        quiet().await;
        let reader = Handler::saying(&[]);
        let layer = CacheLayer::with_storage(store).otherwise(Policy::from_origin().cache_only());
        let house = House::around(reader.clone(), layer);
        house.advance(age);
        let fields = [("cache-control", directives)];
        assert_eq!(told(&house, if directives.is_empty() { &[] } else { &fields }).await, expected, "{age}");
        quiet().await;
        assert_eq!(reader.calls(), 0, "nor to refresh");
        house.handle.purge(Selector::Everything).await.expect("this store doesn't fail");
        assert_eq!(told(&house, &[]).await, "MISS 504 detail=cache-only", "purged");
        assert_eq!(house.exchange(request("PUT", "/", &[])).await.x_cache, "BYPASS", "writes go through");
        assert_eq!(reader.calls(), 1);
    }
}
