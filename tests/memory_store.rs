//! The store in memory keeps to its bounds, gives back what it let go, and stays consistent under fire.

mod support;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use larder::storage::{Eviction, MemoryStore, Query, Storage, StorageUsage, Variants};
use larder::{CacheKey, CacheLayer, Policy, Selector, StorageError, StoredResponse};
use support::exchange::*;
use tokio::sync::Semaphore;
use tower::ServiceExt;

type Fields = &'static [(&'static str, &'static str)];

/// A memory store that the test has a hold on as well, and all that was put into it.
#[derive(Clone)]
struct Observed {
    store: Arc<MemoryStore>,
    put: Arc<Mutex<Vec<Put>>>,
}

type Put = (CacheKey, Arc<StoredResponse>);

impl Observed {
    fn new(store: MemoryStore) -> Self {
        Self { store: Arc::new(store), put: Arc::default() }
    }

    /// What the cache stores for these answers.
    fn put(&self) -> Vec<Put> {
        self.put.lock().expect("not poisoned").clone()
    }
}

impl Storage for Observed {
    async fn get(&self, query: Query<'_>) -> Result<Variants, StorageError> {
        self.store.get(query).await
    }

    async fn put(&self, key: &CacheKey, response: Arc<StoredResponse>, most: usize) -> Result<(), StorageError> {
        self.put.lock().expect("not poisoned").push((key.clone(), response.clone()));
        self.store.put(key, response, most).await
    }

    async fn remove(&self, key: &CacheKey) -> Result<bool, StorageError> {
        self.store.remove(key).await
    }

    async fn clear(&self) -> Result<(), StorageError> {
        self.store.clear().await
    }

    fn usage(&self) -> StorageUsage {
        self.store.usage()
    }
}

/// The memory store never waits.
fn now<T>(answer: impl Future<Output = Result<T, StorageError>>) -> T {
    answer.now_or_never().expect("it is in memory").expect("memory doesn't fail")
}

const KIB: usize = 1 << 10;

/// `number` responses under keys of their own, each with `size` bytes of content.
async fn responses(number: usize, size: usize) -> Vec<Put> {
    let observed = Observed::new(MemoryStore::new(1 << 30));
    let handler = Handler::new(move |_, _| answer(200, &[], vec![b'x'; size]));
    let layer = CacheLayer::with_storage(observed.clone()).otherwise(Policy::shared(MINUTE));
    let house = House::around(handler, layer);
    for n in 0..number {
        house.get(&format!("/{n}")).await;
        until(|| observed.put().len() > n).await;
    }
    let put = observed.put();
    assert_eq!(put.len(), number);
    put
}

#[tokio::test]
async fn it_is_bounded_by_bytes_and_by_entries() {
    let all = responses(2000, KIB).await;
    for eviction in [Eviction::TinyLfu, Eviction::Lru] {
        let capacity = 200 * KIB as u64;
        let rows = [
            ("bytes", MemoryStore::new(capacity), capacity, u64::MAX),
            ("entries", MemoryStore::new(capacity).max_entries(20), capacity, 20),
        ];
        for (why, store, bytes, entries) in rows {
            let store = store.eviction(eviction);
            for (key, response) in &all {
                now(store.put(key, response.clone(), 1));
            }
            store.sweep();
            let usage = store.usage();
            assert!(usage.bytes <= bytes && usage.entries <= entries, "{why}, {eviction:?}: {usage:?}");
            assert!(usage.entries >= 10, "{why}, {eviction:?}: it is used: {usage:?}");
            assert_eq!(usage.evictions, 2000 - usage.entries, "{why}, {eviction:?}");
        }
    }
}

/// Heads and keys count as well: small contents can't take more room than they are given.
#[tokio::test]
async fn what_surrounds_the_content_is_counted() {
    let all = responses(500, 1).await;
    let store = MemoryStore::new(64 * KIB as u64);
    for (key, response) in &all {
        now(store.put(key, response.clone(), 1));
    }
    store.sweep();
    assert!(store.usage().entries < 100, "{:?}", store.usage());
}

#[tokio::test]
async fn what_is_larger_than_the_store_is_not_kept() {
    let (key, response) = responses(1, 100 * KIB).await.remove(0);
    for capacity in [10 * KIB as u64, 1, 0] {
        for entries in [None, Some(20), Some(u64::MAX)] {
            let store = MemoryStore::new(capacity);
            let store = if let Some(most) = entries { store.max_entries(most) } else { store };
            now(store.put(&key, response.clone(), 1));
            store.sweep();
            assert_eq!((store.usage().entries, store.usage().bytes), (0, 0), "{capacity} {entries:?}");
        }
    }
}

/// Which paths a cache over a store of this eviction still has, out of `paths`.
async fn kept(house: &House, paths: &[&str]) -> Vec<bool> {
    let mut kept = Vec::new();
    for path in paths {
        kept.push(house.ask(path, &[("cache-control", "only-if-cached")]).await.x_cache == "HIT");
    }
    kept
}

/// Once it is full, who asks for something new again and again gets it from the store, though everything there was asked for as well.
#[tokio::test]
async fn what_becomes_popular_takes_the_place_of_what_was() {
    for eviction in [Eviction::TinyLfu, Eviction::Lru] {
        let observed = Observed::new(MemoryStore::new(100 * KIB as u64).eviction(eviction));
        let handler = Handler::new(|_, _| answer(200, &[], vec![b'x'; 10 * KIB]));
        let layer = CacheLayer::with_storage(observed.clone()).otherwise(Policy::shared(MINUTE));
        let house = House::around(handler, layer);
        for folder in ["old", "new"] {
            let mut hits = 0;
            for _ in 0..40 {
                for n in 0..5 {
                    hits += usize::from(house.get(&format!("/{folder}/{n}")).await.x_cache == "HIT");
                    quiet().await;
                }
                observed.store.sweep();
            }
            assert!(hits > 120, "{eviction:?}, {folder}: {hits} of 200 were hits");
        }
    }
}

#[tokio::test]
async fn lru_keeps_what_was_asked_for_last_and_tiny_lfu_what_is_asked_for_most() {
    for eviction in [Eviction::Lru, Eviction::TinyLfu] {
        let observed = Observed::new(MemoryStore::new(100 * KIB as u64).eviction(eviction));
        let handler = Handler::new(|_, _| answer(200, &[], vec![b'x'; 10 * KIB]));
        let layer = CacheLayer::with_storage(observed.clone()).otherwise(Policy::shared(MINUTE));
        let house = House::around(handler, layer);
        // Before it is half full, nobody counts who is asked for.
        for n in 0..6 {
            house.get(&format!("/earlier/{n}")).await;
            quiet().await;
        }
        observed.store.sweep();
        for _ in 0..100 {
            house.get("/popular").await;
            quiet().await;
        }
        observed.store.sweep();
        // A crawler asks for everything once.
        for n in 0..100 {
            house.get(&format!("/{n}")).await;
            quiet().await;
            observed.store.sweep();
        }
        let expected = if eviction == Eviction::Lru { [false, true] } else { [true, false] };
        assert_eq!(kept(&house, &["/popular", "/99"]).await, expected, "{eviction:?}");
    }
}

/// moka's clock is the machine's, and only gives memory back, so this one test waits for real; freshness is decided elsewhere.
#[tokio::test]
async fn what_has_expired_leaves() {
    let observed = Observed::new(MemoryStore::new(1 << 20));
    let policy = Policy::shared(Duration::from_millis(20));
    let layer = CacheLayer::with_storage(observed.clone()).otherwise(policy);
    let house = House::around(Handler::saying(&[]), layer);
    house.get("/").await;
    quiet().await;
    assert_eq!(observed.put().len(), 1);
    let deadline = Instant::now() + Duration::from_secs(20);
    while observed.usage().entries > 0 {
        assert!(Instant::now() < deadline, "still there: {:?}", observed.usage());
        tokio::time::sleep(Duration::from_millis(20)).await;
        observed.store.sweep();
    }
    assert_eq!(observed.usage().bytes, 0);
}

/// Echoes the field that it varies by; `by` says which for a request.
fn varying(by: &'static str) -> Handler {
    Handler::new(move |head, n| {
        let by = if head.headers.contains_key("x-other-vary") { "x-other-vary" } else { by };
        answer(200, &[("vary", by)], format!("{n} for {:?}", head.headers.get(by)))
    })
}

#[tokio::test]
async fn variants_stand_side_by_side_up_to_a_cap() {
    let house = House::with(varying("x-a"), |layer| layer.otherwise(Policy::shared(MINUTE)).max_variants(3));
    let variants = ["1", "2", "3"].map(|value| [("x-a", value)]);
    for x_cache in ["MISS", "HIT"] {
        for variant in &variants {
            assert_eq!(house.ask("/", variant).await.x_cache, x_cache);
        }
    }
    assert_eq!(house.handle.stats().storage.entries, 1, "one key");
    assert_eq!(house.ask("/", &[("x-a", "4")]).await.x_cache, "MISS");
    for (variant, x_cache) in [("4", "HIT"), ("3", "HIT"), ("2", "HIT"), ("1", "MISS")] {
        assert_eq!(house.ask("/", &[("x-a", variant)]).await.x_cache, x_cache, "{variant}: the oldest has left");
    }
}

#[tokio::test]
async fn a_variant_takes_the_place_of_its_own_kind_only() {
    let house = House::with(varying("x-a"), |layer| layer.otherwise(Policy::shared(MINUTE)));
    house.ask("/", &[("x-a", "1")]).await;
    house.ask("/", &[("x-a", "2")]).await;
    let before = house.handle.stats().storage;
    let anew = house.ask("/", &[("x-a", "1"), ("cache-control", "no-cache")]).await;
    assert_eq!(anew.body, "3 for Some(\"1\")");
    assert_eq!(house.ask("/", &[("x-a", "1")]).await.body, anew.body);
    assert_eq!(house.ask("/", &[("x-a", "2")]).await.body, "2 for Some(\"2\")");
    assert_eq!(house.handle.stats().storage.bytes, before.bytes);
}

/// The newest word on `Vary` counts: an older answer could be taken for what the newer one is meant for.
#[tokio::test]
async fn an_answer_that_varies_by_something_else_replaces_all() {
    let house = House::with(varying("x-a"), |layer| layer.otherwise(Policy::shared(MINUTE)));
    house.ask("/", &[("x-a", "1")]).await;
    house.ask("/", &[("x-a", "2"), ("x-other-vary", "1")]).await;
    assert_eq!(house.ask("/", &[("x-a", "9"), ("x-other-vary", "1")]).await.x_cache, "HIT");
    assert_eq!(house.ask("/", &[("x-a", "1")]).await.cache_status, "larder; fwd=vary-miss; stored");
}

#[tokio::test]
async fn what_goes_leaves_no_bytes_behind() {
    let house = House::with(
        Handler::new(|_, n| answer(200, &[("cache-control", "max-age=60")], vec![b'x'; n * KIB])),
        std::convert::identity,
    );
    let storage = || house.handle.stats().storage;
    for _ in 0..3 {
        house.get("/a").await;
        let first = storage();
        assert_eq!(first.entries, 1);
        house.ask("/a", &[("cache-control", "no-cache")]).await;
        assert_eq!((storage().entries, storage().bytes), (1, first.bytes + KIB as u64), "replaced by one KiB more");
        house.exchange(request("DELETE", "/a", &[])).await;
        assert_eq!((storage().entries, storage().bytes), (0, 0), "written to");
    }
    house.get("/a").await;
    house.handle.purge(Selector::Everything).await.unwrap();
    assert_eq!((storage().entries, storage().bytes), (0, 0), "purged");
}

#[tokio::test]
async fn nothing_is_found_after_remove_or_clear() {
    let all = responses(10, KIB).await;
    let store = MemoryStore::new(1 << 20);
    for (key, response) in &all {
        now(store.put(key, response.clone(), 1));
    }
    assert!(now(store.remove(&all[0].0)));
    assert!(!now(store.remove(&all[0].0)), "there is nothing any more");
    assert_eq!(store.usage().entries, 9);
    now(store.clear());
    assert_eq!((store.usage().entries, store.usage().bytes, store.usage().evictions), (0, 0, 0));
    assert!(!now(store.remove(&all[1].0)));
    now(store.put(&all[1].0, all[1].1.clone(), 1));
    store.sweep();
    assert_eq!(store.usage().entries, 1, "a clear takes nothing that comes after it");
}

#[tokio::test]
async fn writers_at_once_leave_index_and_policy_in_step() {
    let all = responses(64, KIB).await;
    let weight = {
        let store = MemoryStore::new(1 << 20);
        now(store.put(&all[0].0, all[0].1.clone(), 1));
        store.usage().bytes
    };
    for eviction in [Eviction::TinyLfu, Eviction::Lru] {
        // Room for half of them, so that evictions go on all the time.
        let capacity = 32 * weight;
        let store = MemoryStore::new(capacity).eviction(eviction);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (store, all) = (&store, &all);
                scope.spawn(move || {
                    // A fixed sequence per thread; their interleaving is what differs from run to run.
                    let mut random = 0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(thread + 1);
                    for step in 0..20_000 {
                        random ^= random << 13;
                        random ^= random >> 7;
                        random ^= random << 17;
                        let (key, response) = &all[random as usize % all.len()];
                        match random >> 60 {
                            0..=3 => drop(now(store.remove(key))),
                            4 if step % 50 == 0 => now(store.clear()),
                            _ => now(store.put(key, response.clone(), 2)),
                        }
                    }
                });
            }
        });
        store.sweep();
        let usage = store.usage();
        assert!(usage.bytes <= capacity, "{eviction:?}: {usage:?}");
        assert!(
            usage.bytes.abs_diff(usage.entries * weight) <= usage.entries * 2,
            "{eviction:?}: {usage:?}, {weight} each"
        );
        // What the policy lost sight of would never leave: what comes now pushes out all that it knows.
        now(store.clear());
        store.sweep();
        assert_eq!((store.usage().entries, store.usage().bytes), (0, 0), "{eviction:?}");
        for (key, response) in all.iter().chain(&all) {
            now(store.put(key, response.clone(), 1));
        }
        store.sweep();
        let usage = store.usage();
        assert!(usage.bytes <= capacity && usage.entries >= 16, "{eviction:?}: room for half of them: {usage:?}");
    }
}

/// moka evicts now and then; between two puts there is never more than what came last beyond the bound.
#[tokio::test]
async fn the_bound_holds_right_after_a_burst_of_large_puts() {
    let all = responses(40, 128 * KIB).await;
    for eviction in [Eviction::TinyLfu, Eviction::Lru] {
        let capacity = KIB as u64 * KIB as u64;
        let store = MemoryStore::new(capacity).eviction(eviction);
        for (n, (key, response)) in all.iter().enumerate() {
            now(store.put(key, response.clone(), 1));
            let held = store.usage().bytes;
            assert!(held <= capacity + response.size() as u64, "{eviction:?}: {held} bytes after {n} puts");
        }
        store.sweep();
        let usage = store.usage();
        assert!(usage.bytes <= capacity && usage.entries >= 5, "{eviction:?}: {usage:?}");
    }
}

/// Not one less, and not one more.
#[tokio::test]
async fn a_bound_on_entries_is_that_number_of_small_ones() {
    let all = responses(120, 1).await;
    let bytes: u64 = all.iter().map(|(key, response)| (key.as_bytes().len() + response.size()) as u64).sum();
    for eviction in [Eviction::TinyLfu, Eviction::Lru] {
        for capacity in [2 * bytes, 1 << 20, 1 << 40, u64::MAX] {
            for most in [1, 2, 3, 7, 20, 39, 40, 64, 100, 119, u64::MAX] {
                let store = MemoryStore::new(capacity).eviction(eviction).max_entries(most);
                for (n, (key, response)) in all.iter().enumerate() {
                    now(store.put(key, response.clone(), 1));
                    store.sweep();
                    let expected = most.min(n as u64 + 1);
                    assert_eq!(store.usage().entries, expected, "{eviction:?}, {capacity} bytes, at most {most}");
                }
            }
        }
    }
}

/// What began first may end last: a slow client, or a slow handler.
#[tokio::test]
async fn what_began_earlier_is_not_stored_after_a_later_word_against_it() {
    let gate = Arc::new(Semaphore::new(0));
    let opens = gate.clone();
    let handler = Handler::new(move |_, n| {
        if n > 1 {
            return answer(200, &[("cache-control", "no-store")], "new");
        }
        let gate = opens.clone();
        let body = futures_util::stream::once(async move {
            gate.acquire().await.expect("never closed").forget();
            Ok(Frame::data(Bytes::from("old")))
        });
        answer(200, &[], "").map(|_| Content::new(StreamBody::new(Box::pin(body))))
    });
    let house = House::with(handler, |layer| layer.otherwise(Policy::shared(MINUTE)));
    let slow = house.service.clone().oneshot(get("/")).await.unwrap();
    // It has the handler asked for itself, and doesn't wait for the slow one.
    assert_eq!(house.ask("/", &[("cache-control", "no-cache")]).await.body, "new");
    gate.add_permits(1);
    assert_eq!(slow.into_body().collect().await.unwrap().to_bytes(), "old");
    assert_eq!((house.get("/").await.body.as_str(), house.handle.stats().stored), ("new", 0));
}

#[tokio::test]
async fn what_began_later_stays_when_what_began_earlier_ends() {
    let rows: [(&str, Fields, Fields); 4] = [
        ("one variant", &[], &[]),
        ("the same variant", &[("vary", "x-a")], &[("vary", "x-a")]),
        ("the newer varies", &[], &[("vary", "x-a")]),
        ("the older varied", &[("vary", "x-a")], &[]),
    ];
    for (why, older, newer) in rows {
        for size in [1, 100 * KIB] {
            let gate = Arc::new(Semaphore::new(0));
            let opens = gate.clone();
            let handler = Handler::new(move |_, n| {
                if n > 1 {
                    return answer(200, newer, "new");
                }
                let gate = opens.clone();
                let body = futures_util::stream::once(async move {
                    gate.acquire().await.expect("never closed").forget();
                    Ok(Frame::data(Bytes::from(vec![b'o'; size])))
                });
                answer(200, older, "").map(|_| Content::new(StreamBody::new(Box::pin(body))))
            });
            let house = House::with(handler, |layer| layer.otherwise(Policy::shared(MINUTE)));
            let slow = house.service.clone().oneshot(get("/")).await.unwrap();
            house.advance(1);
            assert_eq!(house.ask("/", &[("cache-control", "no-cache")]).await.body, "new", "{why}");
            gate.add_permits(1);
            assert_eq!(slow.into_body().collect().await.unwrap().to_bytes().len(), size);
            until(|| house.handle.stats().stored == 2).await;
            let exchange = house.get("/").await;
            assert_eq!((exchange.x_cache.as_str(), exchange.body.as_str()), ("HIT", "new"), "{why}, {size} bytes");
        }
    }
}
