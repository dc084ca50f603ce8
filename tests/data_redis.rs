//! Values in a real Redis: what one instance sets or loads is what the others get, as it was, and purged for all.
#![cfg(feature = "redis")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use larder::data::MessagePack;
use larder::storage::{Guard, MemoryStore, RedisStore};
use larder::{CacheLayer, Compression, DataCache, Selector};
use support::redis::RedisServer;

/// How long an instance may take to hear of what another one did.
const BOUND: Duration = Duration::from_secs(1);

/// Two instances with memory of their own, and one without.
fn instances(server: &RedisServer) -> [CacheLayer; 3] {
    let far = || RedisStore::new(&format!("{}/?ns=data", server.url())).expect("a URL");
    let near = || CacheLayer::tiered(MemoryStore::new(4 << 20), far());
    [near(), near(), CacheLayer::with_storage(far())]
}

/// Asks until that is so, and no longer than an instance may take.
async fn soon(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < BOUND, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

type Words = fn(DataCache) -> DataCache;

const WORDS: [(&str, Words); 4] = [
    ("as it comes", |cache| cache),
    ("binary", |cache| cache.serializer(MessagePack)),
    ("compressed", |cache| cache.compress(Compression::gzip().min_size(1))),
    ("sliding", |cache| cache.sliding(Duration::from_secs(60))),
];

#[tokio::test]
async fn what_one_instance_sets_all_get_and_what_one_drops_is_gone() {
    let Some(server) = RedisServer::start() else { return };
    let long = (0..500).map(|n| format!("line {}", n % 7)).collect::<Vec<_>>();
    for (words, set_up) in WORDS {
        let caches = instances(&server).map(|layer| set_up(layer.data("x")));
        let [one, other, _] = &caches;
        for turn in 0..3 {
            one.entry("a").tag("t:1").set(&(turn, &long)).await.unwrap();
            assert_eq!(one.get("a").await, Some((turn, long.clone())), "{words}");
            for cache in &caches {
                soon(words, async || cache.get("a").await == Some((turn, long.clone()))).await;
            }
        }
        other.purge(Selector::Tag("t".into())).await.unwrap();
        assert!(!other.exists("a").await, "{words}");
        for cache in &caches {
            soon(words, async || !cache.exists("a").await).await;
        }
        other.set_many([("a", 1), ("b", 2), ("c", 3)]).await.unwrap();
        for cache in &caches {
            soon(words, async || cache.get_many(["a", "b", "c"]).await == [Some(1), Some(2), Some(3)]).await;
        }
        assert!(one.delete("b").await, "{words}");
        for cache in &caches {
            soon(words, async || cache.get_many(["a", "b", "c"]).await == [Some(1), None, Some(3)]).await;
        }
        assert_eq!(one.stats().store_errors, 0, "{words}");
    }
}

#[tokio::test]
async fn a_herd_before_three_instances_is_one_load() {
    let Some(server) = RedisServer::start() else { return };
    // A busy machine mustn't make the store seem too slow to be waited for.
    let patience = Duration::from_secs(15);
    let patient = |layer: CacheLayer| {
        let guard = Guard::default().deadline(patience);
        layer.store_guard(guard).max_lease_wait(patience).staleness_bound(patience)
    };
    let caches = instances(&server).map(|layer| patient(layer).data("x"));
    for cache in &caches {
        soon("the instances begin", async || {
            cache.exists("nothing").await;
            cache.handle().stats().purge_log.is_some_and(|log| log.trusted)
        })
        .await;
    }
    let loads = Arc::new(AtomicUsize::new(0));
    let asks = (0..3000).map(|n| {
        let (cache, loads) = (caches[n % 3].clone(), loads.clone());
        let load = move || async move {
            tokio::time::sleep(Duration::from_millis(200)).await;
            Ok::<_, ()>(loads.fetch_add(1, Ordering::SeqCst) + 1)
        };
        tokio::spawn(async move { cache.get_or_load("a", load).await })
    });
    for answer in join_all(asks.collect::<Vec<_>>()).await {
        assert_eq!(answer.unwrap(), Ok(1));
    }
    assert_eq!(loads.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn that_there_is_nothing_is_known_to_all() {
    let Some(server) = RedisServer::start() else { return };
    let caches = instances(&server).map(|layer| layer.data("x").none_ttl(Duration::from_secs(60)));
    let loads = Arc::new(AtomicUsize::new(0));
    for cache in &caches {
        let count = loads.clone();
        let load = || async move {
            count.fetch_add(1, Ordering::SeqCst);
            Ok::<Option<u8>, ()>(None)
        };
        assert_eq!(cache.entry("a").get_or_load_option(load).await, Ok(None));
        // It goes to the server behind the answer.
        soon("it is there", async || server.keys() > 0).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(loads.load(Ordering::SeqCst), 1);
}
