//! A principal's partition is bounded, leaves no trace when nothing is in it, and is erased by one call.

mod support;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use larder::storage::{Query, Storage, StorageUsage, Variants, with_variant};
use larder::{CacheKey, CacheLayer, DeclineReason, Policy, RequestHead, Selector, StorageError, StoredResponse};
use support::exchange::*;
use tokio::sync::Semaphore;

fn user(request: &RequestHead<'_>) -> Option<Vec<u8>> {
    request.headers.get("x-user").map(|user| user.as_bytes().to_vec())
}

fn per_user() -> Policy {
    Policy::per(user, MINUTE)
}

/// Says for whom it answers, in as many bytes as the query asks for, and varies by `x-variant` where that is there.
fn letters() -> Handler {
    Handler::new(|head, _| {
        let user = head.headers["x-user"].to_str().expect("text").to_owned();
        let size = head.uri.query().and_then(|query| query.parse().ok()).unwrap_or(0);
        let vary: &[(&str, &str)] = if head.headers.contains_key("x-variant") { &[("vary", "x-variant")] } else { &[] };
        answer(200, vary, format!("{user}{}", ".".repeat(size)))
    })
}

fn house(policy: Policy) -> House {
    House::with(letters(), |layer| layer.otherwise(policy))
}

async fn ask(house: &House, user: &str, target: &str) -> Exchange {
    let exchange = house.ask(target, &[("x-user", user)]).await;
    assert!(exchange.body.starts_with(user), "{user} got {}", exchange.body);
    exchange
}

async fn is_stored(house: &House, user: &str, target: &str) -> bool {
    let asked = [("x-user", user), ("cache-control", "only-if-cached")];
    house.ask(target, &asked).await.status == 200
}

#[tokio::test]
async fn beyond_its_quota_a_principals_own_oldest_leave() {
    // By number, and by bytes, of which three responses fit and four don't.
    for policy in [per_user().quota(1 << 20, 3), per_user().quota(35_000, 100)] {
        let house = house(policy);
        ask(&house, "b", "/first?10000").await;
        for path in ["/1?10000", "/2?10000", "/3?10000"] {
            ask(&house, "a", path).await;
        }
        assert_eq!(house.handle.stats().quota_evictions, 0);
        ask(&house, "a", "/4?10000").await;
        let kept = [("/1", false), ("/2", true), ("/3", true), ("/4", true)];
        for (path, expected) in kept {
            assert_eq!(is_stored(&house, "a", &format!("{path}?10000")).await, expected, "{path}");
        }
        assert!(is_stored(&house, "b", "/first?10000").await, "nobody else's");
        let stats = house.handle.stats();
        assert_eq!((stats.quota_evictions, stats.storage.entries, stats.partitions), (1, 4, 2));
    }
}

/// A rule is told by its pattern, wherever it stands.
#[tokio::test]
async fn a_quota_holds_through_a_change_of_rules_and_is_of_one_rule() {
    let rules = |patterns: &[(&str, usize)]| {
        let layer = CacheLayer::in_memory(1 << 20);
        patterns.iter().fold(layer, |layer, (pattern, most)| layer.rule(pattern, per_user().quota(1 << 20, *most)))
    };
    let house = House::around(letters(), rules(&[("^/a", 3), ("^/b", 3)]));
    for path in ["/a1", "/a2", "/a3", "/b1", "/b2", "/b3"] {
        ask(&house, "me", path).await;
    }
    house.handle.reconfigure(&rules(&[("^/new", 1), ("^/a", 3), ("^/b", 3)])).expect("the same store");
    ask(&house, "me", "/new").await;
    assert_eq!(house.handle.stats().quota_evictions, 0, "what another rule let in counts elsewhere");
    ask(&house, "me", "/a4").await;
    ask(&house, "me", "/b4").await;
    for (path, expected) in [("/a1", false), ("/a2", true), ("/b1", false), ("/b2", true), ("/new", true)] {
        assert_eq!(is_stored(&house, "me", path).await, expected, "{path}");
    }
}

#[tokio::test]
async fn the_quota_is_of_the_house_where_a_policy_names_none() {
    let house = House::around(letters(), CacheLayer::in_memory(64 << 20).otherwise(per_user()));
    for n in 0..1030 {
        ask(&house, "a", &format!("/{n}")).await;
    }
    let stats = house.handle.stats();
    assert_eq!((stats.quota_evictions, stats.storage.entries), (6, 1024));
    house.handle.purge(Selector::Everything).await.unwrap();
    for n in 0..5 {
        ask(&house, "a", &format!("/{n}?{}", 4 << 20)).await;
        until(|| house.handle.stats().stored == 1031 + n).await;
    }
    assert_eq!(house.handle.stats().storage.entries, 3, "16 MiB, with heads and keys counted");
}

#[tokio::test]
async fn what_is_replaced_counts_once() {
    let house = house(per_user().quota(35_000, 100));
    for _ in 0..20 {
        for path in ["/1?10000", "/2?10000", "/3?10000"] {
            let anew = [("x-user", "a"), ("cache-control", "no-cache")];
            assert_eq!(house.ask(path, &anew).await.x_cache, "MISS");
        }
    }
    let stats = house.handle.stats();
    assert_eq!((stats.stored, stats.quota_evictions, stats.storage.entries), (60, 0, 3));
}

#[tokio::test]
async fn variants_count_each_and_the_newest_stays() {
    let house = house(per_user().quota(1 << 20, 2));
    let variant = async |n: usize| house.ask("/", &[("x-user", "a"), ("x-variant", &n.to_string())]).await.x_cache;
    for n in 0..3 {
        assert_eq!(variant(n).await, "MISS");
        assert_eq!(variant(n).await, "HIT", "the newest");
    }
    assert_eq!(variant(0).await, "MISS", "the oldest left");
    ask(&house, "a", "/other").await;
    assert!(house.handle.stats().storage.entries <= 2);
}

#[tokio::test]
async fn a_response_larger_than_the_quota_is_declined_by_name_and_ends_what_it_replaces() {
    let streamed = |body: &'static str| {
        use http_body_util::{BodyExt, StreamBody};
        let frames = [Ok(http_body::Frame::data(bytes::Bytes::from_static(body.as_bytes())))];
        BodyExt::boxed(StreamBody::new(futures_util::stream::iter(frames)))
    };
    const LARGE: &str = large();
    for length_is_known in [true, false] {
        let handler = Handler::new(move |_, n| match (n, length_is_known) {
            (1, _) => answer(200, &[], "a"),
            (_, true) => answer(200, &[], LARGE),
            (_, false) => answer(200, &[], "").map(|_| streamed(LARGE)),
        });
        let house = House::with(handler, |layer| layer.otherwise(per_user().quota(3_000, 10)));
        let asked = [("x-user", "a")];
        assert_eq!(house.ask("/", &asked).await.cache_status, "larder; fwd=uri-miss; stored");
        let anew = house.ask("/", &[("x-user", "a"), ("cache-control", "no-cache")]).await;
        assert_eq!(anew.body, LARGE);
        if length_is_known {
            assert_eq!(anew.cache_status, "larder; fwd=request; detail=partition-quota");
        }
        let stats = house.handle.stats();
        assert_eq!(stats.declined_for(DeclineReason::PartitionQuota), 1, "{length_is_known}");
        assert_eq!((stats.storage.entries, stats.partitions), (0, 0), "{length_is_known}: the old one is gone as well");
    }
}

const fn large() -> &'static str {
    const BYTES: [u8; 4000] = [b'x'; 4000];
    match std::str::from_utf8(&BYTES) {
        Ok(text) => text,
        Err(_) => "",
    }
}

/// Whatever way a response leaves the store, its principal's account ends with it.
#[tokio::test]
async fn principals_with_nothing_stored_leave_no_trace() {
    let store = || larder::storage::MemoryStore::new(100_000);
    let house = House::around(letters(), CacheLayer::with_memory(store()).otherwise(per_user()));
    for n in 0..1000 {
        ask(&house, &format!("user-{n}"), "/?2000").await;
    }
    let stats = house.handle.stats();
    assert!(stats.storage.entries < 50 && stats.partitions <= stats.storage.entries, "evicted: {stats:?}");
    house.handle.purge(Selector::Everything).await.unwrap();
    assert_eq!(house.handle.stats().partitions, 0, "purged");
    ask(&house, "a", "/").await;
    assert_eq!(house.handle.stats().partitions, 1);
    house.exchange(request("POST", "/", &[("x-user", "a")])).await;
    assert!(!is_stored(&house, "a", "/").await);
    ask(&house, "a", "/").await;
    ask(&house, "a", "/").await;
    house.handle.purge(Selector::Partition("a".into())).await.unwrap();
    assert_eq!(house.handle.stats().partitions, 0, "erased");
    let shared = House::with(Handler::saying(&[]), |layer| layer.otherwise(Policy::shared(MINUTE)));
    shared.get("/").await;
    assert_eq!(shared.handle.stats().partitions, 0, "no principal");
}

#[tokio::test]
async fn one_call_erases_all_of_a_principal_and_nothing_of_others() {
    let house = House::with(letters(), |layer| {
        layer.rule("^/one/", per_user()).rule("^/two/", per_user()).otherwise(Policy::shared(MINUTE))
    });
    let targets = ["/one/a", "/one/a?1", "/one/b", "/two/a"];
    for user in ["me", "mee", "m", "ME"] {
        for target in targets {
            ask(&house, user, target).await;
        }
    }
    house.ask("/one/a", &[("x-user", "me"), ("x-variant", "1")]).await;
    ask(&house, "me", "/shared").await;
    let before = house.handle.stats();
    let receipt = house.handle.purge(Selector::Partition("me".into())).await.unwrap();
    assert_eq!(receipt.number, 1);
    let after = house.handle.stats();
    assert_eq!(before.storage.entries - after.storage.entries, 4, "deleted, and not only hidden");
    assert!(after.storage.bytes < before.storage.bytes);
    assert_eq!((before.partitions, after.partitions), (8, 6));
    for target in targets {
        assert!(!is_stored(&house, "me", target).await, "{target}");
        for other in ["mee", "m", "ME"] {
            assert!(is_stored(&house, other, target).await, "{target} of {other}");
        }
    }
    assert!(is_stored(&house, "me", "/shared").await, "what is for everybody is not one principal's");
    assert_eq!(ask(&house, "me", "/one/a").await.x_cache, "MISS");
    assert_eq!(ask(&house, "me", "/one/a").await.x_cache, "HIT", "and life goes on");
}

#[tokio::test]
async fn a_fill_of_the_principal_that_was_on_its_way_is_not_stored_after_the_erasure() {
    let gate = Arc::new(Semaphore::new(0));
    let opened = gate.clone();
    let handler = Handler::waiting(move |head, _| {
        let gate = opened.clone();
        async move {
            gate.acquire().await.expect("open").forget();
            Ok(answer(200, &[], format!("{:?}", head.headers["x-user"])))
        }
    });
    let house = House::with(handler, |layer| layer.otherwise(per_user()));
    let fill = |user: &'static str| {
        let house = house.clone();
        tokio::spawn(async move { house.ask("/", &[("x-user", user)]).await })
    };
    let (mine, other) = (fill("me"), fill("other"));
    quiet().await;
    assert_eq!(house.handler.calls(), 2);
    house.handle.purge(Selector::Partition("me".into())).await.unwrap();
    gate.add_permits(2);
    assert_eq!(mine.await.unwrap().cache_status, "larder; fwd=uri-miss; detail=purged");
    assert_eq!(other.await.unwrap().cache_status, "larder; fwd=uri-miss; stored");
    assert!(!is_stored(&house, "me", "/").await && is_stored(&house, "other", "/").await);
}

/// A store of somebody's own that forgets nothing unless told, and whose writes wait for a permit.
#[derive(Clone, Default)]
struct Shelf {
    kept: Arc<Mutex<HashMap<CacheKey, Variants>>>,
    slow: Option<Arc<Semaphore>>,
    fails: bool,
}

impl Shelf {
    fn entries(&self) -> usize {
        self.kept.lock().expect("not poisoned").len()
    }
}

impl Storage for Shelf {
    async fn get(&self, query: Query<'_>) -> Result<Variants, StorageError> {
        Ok(self.kept.lock().expect("not poisoned").get(query.key).cloned().unwrap_or_default())
    }

    async fn put(&self, key: &CacheKey, response: Arc<StoredResponse>, most: usize) -> Result<(), StorageError> {
        if let Some(slow) = &self.slow {
            slow.acquire().await.expect("open").forget();
        }
        let mut kept = self.kept.lock().expect("not poisoned");
        let old = kept.remove(key).unwrap_or_default();
        kept.insert(key.clone(), with_variant(&old, response, most));
        Ok(())
    }

    async fn remove(&self, key: &CacheKey) -> Result<bool, StorageError> {
        if self.fails {
            return Err(StorageError::new("no"));
        }
        Ok(self.kept.lock().expect("not poisoned").remove(key).is_some())
    }

    async fn clear(&self) -> Result<(), StorageError> {
        self.kept.lock().expect("not poisoned").clear();
        Ok(())
    }

    fn usage(&self) -> StorageUsage {
        StorageUsage::new(self.entries() as u64, 0, 0)
    }
}

#[tokio::test]
async fn over_a_store_of_ones_own_quota_and_erasure_are_the_same() {
    let shelf = Shelf::default();
    let house =
        House::around(letters(), CacheLayer::with_storage(shelf.clone()).otherwise(per_user().quota(1 << 20, 2)));
    for path in ["/1", "/2", "/3"] {
        ask(&house, "me", path).await;
        quiet().await;
    }
    ask(&house, "other", "/1").await;
    quiet().await;
    assert_eq!((shelf.entries(), house.handle.stats().quota_evictions), (3, 1));
    house.handle.purge(Selector::Partition("me".into())).await.unwrap();
    assert_eq!((shelf.entries(), house.handle.stats().partitions), (1, 1));
    for path in ["/2", "/3"] {
        assert!(!is_stored(&house, "me", path).await, "{path}");
    }
}

#[tokio::test]
async fn what_a_slow_store_keeps_only_after_the_erasure_is_not_served_and_is_deleted() {
    let slow = Arc::new(Semaphore::new(0));
    let shelf = Shelf { slow: Some(slow.clone()), ..Shelf::default() };
    let house = House::around(letters(), CacheLayer::with_storage(shelf.clone()).otherwise(per_user()));
    ask(&house, "me", "/").await;
    quiet().await;
    house.handle.purge(Selector::Partition("me".into())).await.unwrap();
    slow.add_permits(1);
    quiet().await;
    assert_eq!((shelf.entries(), house.handle.stats().partitions), (0, 0));
    assert!(!is_stored(&house, "me", "/").await);
}

#[tokio::test]
async fn a_store_that_fails_to_delete_is_said_and_what_is_erased_is_not_served() {
    let shelf = Shelf { fails: true, ..Shelf::default() };
    let house = House::around(letters(), CacheLayer::with_storage(shelf.clone()).otherwise(per_user()));
    for path in ["/1", "/2"] {
        ask(&house, "me", path).await;
        quiet().await;
        assert!(is_stored(&house, "me", path).await);
    }
    assert!(house.handle.purge(Selector::Partition("me".into())).await.is_err());
    for path in ["/1", "/2"] {
        assert!(!is_stored(&house, "me", path).await, "{path}");
    }
}

/// Who can look into a store, or at a key in a log, doesn't learn whose it is; and what one process wrote means nothing to the next.
#[tokio::test]
async fn keys_hold_no_names_of_principals() {
    let keys = async || {
        let shelf = Shelf::default();
        let house = House::around(letters(), CacheLayer::with_storage(shelf.clone()).otherwise(per_user()));
        ask(&house, "alice@example.com", "/").await;
        quiet().await;
        let kept = shelf.kept.lock().expect("not poisoned");
        kept.keys().map(|key| key.as_bytes().to_vec()).collect::<Vec<_>>()
    };
    let (one, other) = (keys().await, keys().await);
    for key in one.iter().chain(&other) {
        assert!(!key.windows(5).any(|part| part == b"alice"), "{key:?}");
    }
    assert_eq!((one.len(), other.len()), (1, 1));
    assert_ne!(one, other, "the digest's key is made anew");
}
