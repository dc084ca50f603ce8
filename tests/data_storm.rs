//! Purges, writes and deletions of values, beside loads and looks on several threads, on one instance and on two over one Redis: where one was made nothing older comes back, and on the other instance nothing
//! later than a second after it. `PURGES` in the environment says how many, if not ten thousand in memory and two thousand over Redis.

mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use larder::CacheLayer;
use support::data_storm::DataWorld;

fn changes(usual: usize) -> usize {
    std::env::var("PURGES").map_or(usual, |text| text.parse().expect("a number of purges"))
}

async fn storm(name: &str, world: &DataWorld, changes: usize, askers: usize) {
    let began = Instant::now();
    world.storm(changes, askers).await;
    let (seen, stats) = (&world.seen, world.values(0).stats());
    println!("{name}: {seen:?}, after {:?}: {stats:#?}", began.elapsed());
    let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
    // All of it happened, in shorter runs as well.
    assert!(count(&seen.hits) > 100 && count(&seen.loads) > 100 && count(&seen.writes) > 100, "{seen:?}");
    assert!(stats.hits > 100 && stats.collapsed > 0, "{stats:#?}");
    assert!(count(&seen.purges_failed) * 100 <= count(&seen.purges), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn purges_in_memory_bring_no_value_back() {
    storm("memory", &DataWorld::new([CacheLayer::in_memory(64 << 20)]), changes(10_000), 4).await;
}

#[cfg(feature = "redis")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purges_on_two_instances_bring_no_value_back() {
    use std::time::Duration;

    use larder::storage::{Guard, MemoryStore, RedisStore};

    let Some(server) = support::redis::RedisServer::start() else { return };
    type Over = fn(RedisStore) -> CacheLayer;
    let tiered: Over = |far| CacheLayer::tiered(MemoryStore::new(64 << 20), far);
    for (name, over) in [("tiered", tiered), ("far", CacheLayer::with_storage)] {
        let url = format!("{}/?ns={name}", server.url());
        // So patient that the store is asked on a busy machine too: what is tried here isn't the guard.
        let guard = Guard::default().deadline(Duration::from_secs(2));
        let layers = [(); 2].map(|()| over(RedisStore::new(&url).expect("a URL")).store_guard(guard));
        storm(name, &DataWorld::new(layers), changes(2_000), 6).await;
    }
}
