//! Of several instances that miss the same at once, one asks the handler; the others wait for what it stores, and never long.

mod support;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use larder::storage::MemoryStore;
use larder::{CacheLayer, ManualClock, Policy};
use support::depot::Depot;
use support::exchange::*;
use tokio::sync::Semaphore;

const FRESH: (&str, &str) = ("cache-control", "max-age=60");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tiered,
    FarOnly,
}

/// Instances over one store, before one handler.
struct Fleet {
    depot: Depot,
    handler: Handler,
    houses: Vec<House>,
}

impl Fleet {
    fn new(kind: Kind, size: usize, handler: Handler, set_up: impl Fn(CacheLayer) -> CacheLayer) -> Self {
        let (depot, clock) = (Depot::default(), Arc::<ManualClock>::default());
        let layer = || match kind {
            Kind::Tiered => CacheLayer::tiered(MemoryStore::new(1 << 20), depot.clone()),
            Kind::FarOnly => CacheLayer::with_storage(depot.clone()),
        };
        let houses = (0..size).map(|_| House::on(clock.clone(), handler.clone(), set_up(layer()))).collect();
        Self { depot, handler, houses }
    }

    fn pair(handler: Handler) -> Self {
        Self::new(Kind::Tiered, 2, handler, |layer| layer)
    }

    /// Begins a GET at an instance.
    fn begin(&self, instance: usize, target: &str) -> tokio::task::JoinHandle<Exchange> {
        let (house, target) = (self.houses[instance].clone(), target.to_owned());
        tokio::spawn(async move { house.get(&target).await })
    }
}

/// Answers when it is given leave, once for each.
fn slow(answering: impl Fn(usize) -> Answer + Clone + Send + Sync + 'static) -> (Arc<Semaphore>, Handler) {
    let gate = Arc::new(Semaphore::new(0));
    let leave = gate.clone();
    let handler = Handler::waiting(move |_, n| {
        let (leave, answering) = (leave.clone(), answering.clone());
        async move {
            leave.acquire().await.expect("never closed").forget();
            answering(n)
        }
    });
    (gate, handler)
}

fn number(n: usize) -> Answer {
    Ok(answer(200, &[FRESH], format!("answer {n}")))
}

#[tokio::test(start_paused = true)]
async fn a_herd_on_three_instances_is_one_call_of_the_handler() {
    for kind in [Kind::Tiered, Kind::FarOnly] {
        for takes in [0, 1, 50, 700] {
            let handler = Handler::waiting(move |_, n| async move {
                tokio::time::sleep(Duration::from_millis(takes)).await;
                number(n)
            });
            let fleet = Fleet::new(kind, 3, handler, |layer| layer);
            let all: Vec<_> = (0..1000).map(|n| fleet.begin(n % 3, "/")).collect();
            for answer in join_all(all).await {
                let answer = answer.expect("no panic");
                assert_eq!((answer.status, answer.body.as_str()), (200, "answer 1"), "{kind:?}, {takes} ms");
            }
            assert_eq!(fleet.handler.calls(), 1, "{kind:?}, {takes} ms");
            quiet().await;
            assert_eq!(fleet.depot.leased(), Vec::<Vec<u8>>::new(), "it was given back");
            let leases: u64 = fleet.houses.iter().map(|house| house.handle.stats().tiers.leases).sum();
            assert!(leases >= 1, "{kind:?}, {takes} ms");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_lease_ends_when_the_store_has_the_answer_and_not_before() {
    let fleet = Fleet::pair(Handler::saying(&[FRESH]));
    let gate = fleet.depot.gate("put");
    assert_eq!(fleet.houses[0].get("/").await.x_cache, "MISS");
    quiet().await;
    assert_eq!(fleet.depot.leased().len(), 1, "while it is being put");
    let waiting = fleet.begin(1, "/");
    quiet().await;
    gate.add_permits(1);
    let waited = waiting.await.expect("no panic");
    assert_eq!((waited.x_cache.as_str(), fleet.handler.calls()), ("MISS", 1));
    assert!(waited.cache_status.contains("collapsed"), "{}", waited.cache_status);
    assert_eq!(waited.body, "answer 1");
    quiet().await;
    let journal = fleet.depot.take_journal();
    let place = |operation| journal.iter().position(|done| *done == operation).expect("it was done");
    assert!(place("put") < place("release stored"), "{journal:?}");
    assert_eq!(fleet.houses[1].handle.stats().tiers.leases_awaited, 1);
}

#[tokio::test(start_paused = true)]
async fn who_gets_no_answer_gives_the_lease_back_and_the_next_one_asks() {
    // An answer that fails: by an error of the handler, by a 5xx, by content that breaks off.
    let failures: [fn() -> Answer; 3] = [
        || Err(Failure),
        || Ok(answer(503, &[], "")),
        || {
            let mut response = answer(200, &[FRESH], "");
            *response.body_mut() = support::exchange::broken("begun");
            Ok(response)
        },
    ];
    for (row, failure) in failures.into_iter().enumerate() {
        let (gate, handler) = slow(move |n| if n == 1 { failure() } else { number(n) });
        let fleet = Fleet::pair(handler);
        let (first, house) = (fleet.houses[0].clone(), fleet.houses[1].clone());
        let failing = tokio::spawn(async move { first.try_exchange(get("/")).await.map(|answer| answer.status) });
        quiet().await;
        let waiting = fleet.begin(1, "/");
        quiet().await;
        assert_eq!(fleet.handler.calls(), 1, "row {row}: one asks");
        gate.add_permits(2);
        let _ = failing.await.expect("no panic");
        let answer = waiting.await.expect("no panic");
        assert_eq!((answer.status, answer.body.as_str(), fleet.handler.calls()), (200, "answer 2", 2), "row {row}");
        assert_eq!(fleet.depot.count("release failed"), 1, "row {row}");
        assert_eq!(house.handle.stats().tiers.lease_waits_timed_out, 0, "row {row}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_cancelled_without_a_place_to_go_on_gives_the_lease_back() {
    let (gate, handler) = slow(number);
    let fleet = Fleet::new(Kind::Tiered, 2, handler, |layer| layer.max_refreshes(0));
    let leaving = fleet.begin(0, "/");
    quiet().await;
    leaving.abort();
    quiet().await;
    assert_eq!(fleet.depot.count("release failed"), 1);
    gate.add_permits(1);
    assert_eq!(fleet.houses[1].get("/").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_nobody_elses_sends_the_others_to_the_handler_at_once() {
    let (gate, handler) = slow(|n| Ok(answer(200, &[("cache-control", "private")], format!("answer {n}"))));
    let fleet = Fleet::pair(handler);
    let first = fleet.begin(0, "/");
    quiet().await;
    let waiting = fleet.begin(1, "/");
    quiet().await;
    gate.add_permits(2);
    assert_eq!(first.await.expect("no panic").body, "answer 1");
    assert_eq!(waiting.await.expect("no panic").body, "answer 2");
    assert_eq!(fleet.depot.count("release declined"), 1);
    // For a moment nobody waits for another instance, not even one that never knew.
    let third = House::on(
        Arc::default(),
        fleet.handler.clone(),
        CacheLayer::tiered(MemoryStore::new(1 << 20), fleet.depot.clone()),
    );
    gate.add_permits(1);
    assert_eq!(third.get("/").await.body, "answer 3");
    assert_eq!(third.handle.stats().tiers.leases, 0, "it was free");
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_allowed_for_who_died() {
    for (allowed, set_up) in [
        (1000, (|layer| layer) as fn(CacheLayer) -> CacheLayer),
        (250, |layer| layer.max_lease_wait(Duration::from_millis(250))),
        (0, |layer| layer.max_lease_wait(Duration::ZERO)),
    ] {
        let fleet = Fleet::new(Kind::Tiered, 1, Handler::saying(&[FRESH]), set_up);
        let house = &fleet.houses[0];
        house.get("/").await;
        quiet().await;
        let key = fleet.depot.keys().pop().expect("one was stored");
        fleet.depot.lose_all();
        fleet.depot.lend_to_the_dead(&key, Duration::from_secs(3600));
        house.handle.purge(larder::Selector::Everything).await.expect("the store is there");
        let began = tokio::time::Instant::now();
        let answer = house.get("/").await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "answer 2"));
        assert_eq!(began.elapsed().as_millis(), allowed, "to the millisecond, on this clock");
        assert_eq!(house.handle.stats().tiers.lease_waits_timed_out, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn where_the_store_fails_nobody_waits() {
    for failing in [&["lease"][..], &["get", "lease"], &["release stored"], &["put"]] {
        let fleet = Fleet::pair(Handler::saying(&[FRESH]));
        fleet.depot.fail(failing);
        let began = tokio::time::Instant::now();
        for n in [1, 2] {
            let answer = fleet.houses[n - 1].get("/").await;
            assert_eq!(answer.status, 200, "{failing:?}");
            quiet().await;
        }
        if failing[0] != "release stored" {
            assert!(began.elapsed().is_zero(), "{failing:?}: {:?}", began.elapsed());
        }
    }
    // A store that couldn't say what it has isn't asked for a lease: that would be to wait for it twice.
    let fleet = Fleet::pair(Handler::saying(&[FRESH]));
    fleet.depot.fail(&["get"]);
    fleet.houses[0].get("/").await;
    assert_eq!(fleet.depot.count("lease"), 0);
}

#[tokio::test(start_paused = true)]
async fn no_lease_is_asked_for_what_others_could_not_have() {
    let fleet = Fleet::pair(Handler::saying(&[FRESH]));
    let house = &fleet.houses[0];
    house.exchange(request("HEAD", "/head", &[])).await;
    house.ask("/range", &[("range", "bytes=0-1")]).await;
    house.ask("/no-cache", &[("cache-control", "no-cache")]).await;
    house.ask("/no-store", &[("cache-control", "no-store")]).await;
    house.exchange(request("POST", "/write", &[])).await;
    assert_eq!((fleet.depot.count("lease"), fleet.handler.calls()), (0, 5));
    house.get("/").await;
    assert_eq!(fleet.depot.count("lease"), 1);

    // Nobody waits a second time for what was declined: hit-for-miss.
    let fleet = Fleet::pair(Handler::saying(&[("cache-control", "private")]));
    fleet.houses[0].get("/").await;
    fleet.houses[0].get("/").await;
    assert_eq!((fleet.depot.count("lease"), fleet.handler.calls()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn what_is_stale_on_all_instances_is_refreshed_by_one() {
    let policy = Policy::shared(MINUTE).stale_while_revalidate(MINUTE);
    let (gate, handler) = slow(|n| Ok(answer(200, &[], format!("answer {n}"))));
    let fleet = Fleet::new(Kind::Tiered, 3, handler, |layer| layer.otherwise(policy.clone()));
    gate.add_permits(1);
    for house in &fleet.houses {
        assert_eq!(house.get("/").await.body, "answer 1");
        quiet().await;
    }
    fleet.houses[0].advance(61);
    for house in &fleet.houses {
        assert_eq!(house.get("/").await.x_cache, "STALE");
        quiet().await;
    }
    gate.add_permits(10);
    tokio::time::sleep(Duration::from_millis(500)).await;
    quiet().await;
    assert_eq!(fleet.handler.calls(), 2);
    for house in &fleet.houses {
        let answer = house.get("/").await;
        assert_eq!((answer.x_cache.as_str(), answer.body.as_str()), ("HIT", "answer 2"));
    }
}

#[tokio::test(start_paused = true)]
async fn variants_wait_for_each_other_no_longer_than_it_takes_to_see() {
    let (gate, handler) = {
        let gate = Arc::new(Semaphore::new(0));
        let leave = gate.clone();
        let handler = Handler::waiting(move |head, _| {
            let leave = leave.clone();
            async move {
                leave.acquire().await.expect("never closed").forget();
                let language = head.headers["accept-language"].to_str().expect("text").to_owned();
                Ok(answer(200, &[FRESH, ("vary", "accept-language")], language))
            }
        });
        (gate, handler)
    };
    let fleet = Fleet::pair(handler);
    let ask = |instance: usize, language: &'static str| {
        let house = fleet.houses[instance].clone();
        tokio::spawn(async move { house.ask("/", &[("accept-language", language)]).await })
    };
    let first = ask(0, "de");
    quiet().await;
    let second = ask(1, "en");
    quiet().await;
    gate.add_permits(2);
    assert_eq!(first.await.expect("no panic").body, "de");
    assert_eq!(second.await.expect("no panic").body, "en");
    assert_eq!(fleet.handler.calls(), 2);
    assert_eq!(fleet.houses[1].handle.stats().tiers.lease_waits_timed_out, 0);
}
