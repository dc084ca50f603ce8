//! Whatever a store does, a request is delayed by so much at most and gets its answer; and a store that isn't there is asked again only by a probe in the background.

mod support;

use std::sync::Arc;
use std::time::Duration;

use larder::storage::testing::{Fault, Faulty, Operation};
use larder::storage::{Guard, GuardStats, MemoryStore};
use larder::{CacheLayer, ManualClock, PurgeError, Selector, StorageError};
use support::bodies::*;
use tokio::time::Instant;
use tower::{Layer, ServiceExt};

type Store = Faulty<MemoryStore>;

const MS: Duration = Duration::from_millis(1);
const DEADLINE: Duration = Duration::from_millis(40);

fn store() -> Store {
    Faulty::new(MemoryStore::new(64 << 20))
}

/// A cache over the store, behind a guard.
fn over(store: &Store, guard: Guard) -> Setup {
    let clock = Arc::new(ManualClock::default());
    let handler = Handler::new(|number, _| fresh(whole(format!("answer {number}"))));
    let layer = CacheLayer::with_storage(store.clone()).store_guard(guard).clock(clock.clone());
    Setup { service: layer.layer(handler.clone()), handle: layer.handle(), handler, clock }
}

fn seen(setup: &Setup) -> GuardStats {
    setup.stats().guard.expect("the store has a guard")
}

/// Sends a request, which has to be answered well, and says from where and how long that took.
async fn asked(setup: &Setup, path: &str) -> (String, Duration) {
    let begun = Instant::now();
    let got = setup.get(path).await;
    assert_eq!((got.status.as_u16(), got.end), (200, Ok(())), "{path}");
    (got.x_cache, begun.elapsed())
}

/// Waits in virtual time until the guard has the store back.
async fn until_back(setup: &Setup) -> Duration {
    let begun = Instant::now();
    while seen(setup).is_open {
        tokio::time::sleep(MS).await;
        assert!(begun.elapsed() < Duration::from_secs(10), "the store is back");
    }
    begun.elapsed()
}

#[tokio::test(start_paused = true)]
async fn whatever_a_store_does_a_request_is_delayed_by_the_deadline_at_most() {
    // (what goes wrong with everything, the longest wait of each of five requests, timeouts)
    let rows = [
        (Fault::Fail, [0; 5], 0),
        (Fault::Unreachable, [0; 5], 0),
        (Fault::Panic, [0; 5], 0),
        // It says that another instance asks the handler already: that is waited for as long as `max_lease_wait` says.
        (Fault::Lie, [1000; 5], 0),
        (Fault::Hang, [40, 40, 40, 0, 0], 3),
        (Fault::Late(Duration::from_secs(2)), [40, 40, 40, 0, 0], 3),
        // The look-up, and the question whose turn it is.
        (Fault::Late(10 * MS), [20; 5], 0),
    ];
    for (fault, longest, timeouts) in rows {
        let store = store();
        store.set_all(fault);
        let setup = over(&store, Guard::default());
        for (number, longest) in longest.into_iter().enumerate() {
            let (x_cache, took) = asked(&setup, &format!("/{number}")).await;
            assert_eq!(x_cache, "MISS", "{fault:?}");
            assert!(took.as_millis() <= longest + 1, "{fault:?}: request {number} took {took:?}");
        }
        assert_eq!(seen(&setup).timeouts, timeouts, "{fault:?}");
        assert_eq!(
            seen(&setup).is_open,
            !matches!(fault, Fault::Lie | Fault::Late(Duration::MAX)) && fault != Fault::Late(10 * MS)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_together_are_released_as_soon_as_it_is_clear_that_the_store_is_gone() {
    let store = store();
    let setup = over(&store, Guard::default());
    store.set_all(Fault::Hang);
    let begun = Instant::now();
    let first: Vec<_> =
        (0..3).map(|n| setup.service.clone().oneshot(get(&format!("/{n}")))).map(tokio::spawn).collect();
    tokio::time::sleep(30 * MS).await;
    let late: Vec<_> =
        (3..100).map(|n| setup.service.clone().oneshot(get(&format!("/{n}")))).map(tokio::spawn).collect();
    for task in first.into_iter().chain(late) {
        assert_eq!(task.await.unwrap().unwrap().status(), 200);
    }
    assert!(
        begun.elapsed() <= DEADLINE + MS,
        "{:?}: those who came later didn't wait for their own deadlines",
        begun.elapsed()
    );
    let stats = seen(&setup);
    assert_eq!((stats.timeouts, stats.opened), (3, 1));
    assert!(stats.spared >= 97, "{stats:?}");
}

#[tokio::test(start_paused = true)]
async fn only_one_probe_asks_a_store_that_is_gone_and_less_and_less_often() {
    let store = store();
    let setup = over(&store, Guard::default());
    store.set_all(Fault::Unreachable);
    asked(&setup, "/").await;
    assert!(seen(&setup).is_open, "one refusal is enough");
    let gets = store.calls(Operation::Get);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(60) {
        asked(&setup, "/").await;
        tokio::time::sleep(20 * MS).await;
    }
    assert_eq!(store.calls(Operation::Get), gets, "no request tries");
    let probes = store.calls(Operation::Ping);
    // Pauses are between nothing and a quarter of a second, half of that in the middle.
    assert!((240..1200).contains(&probes), "{probes} probes in a minute");
    assert_eq!(setup.stats().store_errors, 1, "what the store was spared is no error of it");
}

#[tokio::test(start_paused = true)]
async fn when_the_store_is_back_what_it_has_is_used_at_once_and_nobody_fetches_it_anew() {
    let store = store();
    let setup = over(&store, Guard::default());
    for n in 0..50 {
        asked(&setup, &format!("/{n}")).await;
    }
    settle().await;
    store.set_all(Fault::Hang);
    for _ in 0..4 {
        asked(&setup, "/0").await;
    }
    assert!(seen(&setup).is_open);
    tokio::time::sleep(Duration::from_secs(30)).await;
    store.mend();
    let took = until_back(&setup).await;
    // The probe that hangs has a second, the pause behind it a quarter of one, and the second ping comes at once.
    assert!(took <= Duration::from_millis(1350), "{took:?}");
    let calls = setup.handler.calls();
    for n in 0..50 {
        assert_eq!(asked(&setup, &format!("/{n}")).await.0, "HIT", "/{n}");
    }
    assert_eq!(setup.handler.calls(), calls);
}

#[tokio::test(start_paused = true)]
async fn a_store_is_back_only_when_it_answers_as_quickly_as_requests_need_it() {
    let store = store();
    let setup = over(&store, Guard::default());
    store.set_all(Fault::Unreachable);
    asked(&setup, "/").await;
    // Slow, but within the time that a connection may take.
    store.set_all(Fault::Late(500 * MS));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(seen(&setup).is_open);
    store.set_all(Fault::Late(30 * MS));
    until_back(&setup).await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_only_refuses_writes_is_still_read() {
    let store = store();
    let setup = over(&store, Guard::default());
    asked(&setup, "/kept").await;
    settle().await;
    for operation in [Operation::Put, Operation::Remove, Operation::Lease, Operation::Release] {
        store.set(operation, Fault::Fail);
    }
    for n in 0..10 {
        asked(&setup, &format!("/{n}")).await;
        settle().await;
    }
    assert!(!seen(&setup).is_open);
    assert_eq!(asked(&setup, "/kept").await.0, "HIT");
    assert_eq!(setup.stats().store_errors, 20, "a lease and a write for each");
}

#[tokio::test(start_paused = true)]
async fn failures_count_only_in_a_row_and_the_limit_can_be_set() {
    let store = store();
    let setup = over(&store, Guard::default().open_after(5).deadline(10 * MS));
    for round in 0..5 {
        store.set(Operation::Get, Fault::Hang);
        for _ in 0..4 {
            let (_, took) = asked(&setup, "/").await;
            // Time is told in steps, here of a millisecond.
            assert!(took >= 8 * MS && took <= 11 * MS, "{took:?}");
        }
        store.mend();
        asked(&setup, "/").await;
        assert_eq!(seen(&setup).opened, 0, "round {round}");
    }
    store.set(Operation::Get, Fault::Hang);
    for _ in 0..5 {
        asked(&setup, "/").await;
    }
    assert_eq!(seen(&setup).opened, 1);
}

#[tokio::test(start_paused = true)]
async fn writes_that_a_store_does_not_take_are_dropped_before_they_are_many() {
    // (guard, how many of ten writes are on their way)
    let rows = [
        (Guard::default(), 10),
        (Guard::default().max_writes(4), 4),
        (Guard::default().max_write_bytes(3 << 10), 3),
        (Guard::default().max_write_bytes(1), 1),
        (Guard::default().max_writes(0), 0),
    ];
    for (guard, expected) in rows {
        let store = store();
        store.set(Operation::Put, Fault::Hang);
        let setup = over(&store, guard);
        for n in 0..10 {
            asked(&setup, &format!("/{n}")).await;
            settle().await;
        }
        let stats = seen(&setup);
        assert_eq!((stats.writes_in_flight, stats.dropped_writes), (expected, 10 - expected), "{guard:?}");
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(seen(&setup).writes_in_flight, 0, "each has a deadline: {guard:?}");
        assert_eq!(seen(&setup).timeouts, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_purge_of_everything_is_not_held_up_and_its_caller_hears_that_the_store_did_not_forget() {
    let store = store();
    let setup = over(&store, Guard::default());
    asked(&setup, "/").await;
    settle().await;
    store.set_all(Fault::Unreachable);
    asked(&setup, "/other").await;
    let begun = Instant::now();
    let purged = setup.handle.purge(Selector::Everything).await;
    assert!(matches!(purged, Err(PurgeError::Storage(_))), "{purged:?}");
    assert!(begun.elapsed() < MS);
    store.mend();
    until_back(&setup).await;
    assert_eq!(asked(&setup, "/").await.0, "MISS", "it is invalid all the same");
}

/// A probe belongs to the runtime that it was begun in; where that has ended, the next request begins another.
#[test]
fn a_probe_that_ended_with_its_runtime_is_begun_anew() {
    let store = store();
    let setup = over(&store, Guard::default());
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    store.set_all(Fault::Unreachable);
    runtime().block_on(async {
        asked(&setup, "/").await;
        assert!(seen(&setup).is_open);
    });
    store.mend();
    runtime().block_on(async {
        asked(&setup, "/").await;
        until_back(&setup).await;
    });
}

#[test]
fn a_store_without_a_runtime_or_timers_is_asked_without_deadlines() {
    let store = store();
    let setup = over(&store, Guard::default());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        assert_eq!(asked(&setup, "/").await.0, "MISS");
        settle().await;
        assert_eq!(asked(&setup, "/").await.0, "HIT");
    });
    // Another runtime has them all the same.
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(async {
        store.set_all(Fault::Hang);
        asked(&setup, "/other").await;
        assert!(seen(&setup).timeouts > 0);
        store.mend();
        until_back(&setup).await;
    });
    let late = futures_util::FutureExt::now_or_never(setup.get("/"));
    assert_eq!(late.expect("the store is in memory").x_cache, "HIT");
}

#[test]
fn the_error_of_a_refused_connection_is_known_by_its_cause() {
    let refused = || std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
    let reset = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    assert!(StorageError::unreachable("no").is_unreachable());
    assert!(StorageError::with_source("no", refused()).is_unreachable());
    assert!(StorageError::with_source("no", StorageError::with_source("inside", refused())).is_unreachable());
    assert!(!StorageError::with_source("no", reset).is_unreachable());
    assert!(!StorageError::new("no").is_unreachable());
}
