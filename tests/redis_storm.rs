//! Ten thousand purges of every kind, hard and soft, on two instances that share a Redis, beside fills, refreshes, followers, writes and sweeps: where a purge was made nothing older
//! comes back, and on the other instance nothing later than a second after it. `PURGES` in the environment says how many, if not ten thousand.
#![cfg(feature = "redis")]

mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use larder::CacheLayer;
use larder::storage::{Guard, MemoryStore, RedisStore};
use support::redis::RedisServer;
use support::storm::World;

/// On each instance. What is purged all the time is a hit only where many ask for it between two purges.
const VISITORS: usize = 8;

/// So patient that the store is asked on a busy machine too: what is tried here isn't the guard.
fn guard() -> Guard {
    Guard::default().deadline(Duration::from_secs(2))
}

fn shared(layer: CacheLayer) -> CacheLayer {
    layer.store_guard(guard()).partition_secret([7; 32])
}

async fn storm(name: &str, server: &RedisServer, layer: impl Fn(RedisStore) -> CacheLayer) {
    let purges: usize = std::env::var("PURGES").map_or(10_000, |text| text.parse().expect("a number of purges"));
    let url = format!("{}/?ns=storm", server.url());
    let layers = [(); 2].map(|()| shared(layer(RedisStore::new(&url).expect("a URL"))));
    let (world, began) = (World::new(layers), Instant::now());
    world.storm(purges / 2, VISITORS).await;
    let (seen, stats) = (&world.seen, [0, 1].map(|n| world.handle(n).stats()));
    println!("{name}: {seen:?}, after {:?}", began.elapsed());
    let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
    // All of it happened, in shorter runs as well, on each instance.
    assert!(count(&seen.fresh) > 100 && count(&seen.stale) > 100, "{seen:?}");
    assert!(count(&seen.purges_failed) * 100 <= count(&seen.purges), "{seen:?}");
    let total = |of: fn(&larder::Stats) -> u64| stats.iter().map(of).sum::<u64>();
    assert!(total(|stats| stats.revalidated) > 0 && total(|stats| stats.refreshes) > 10, "{stats:#?}");
    assert!(total(|stats| stats.tiers.leases) > 0, "{stats:#?}");
    for stats in &stats {
        let log = stats.purge_log.expect("there is a log");
        assert!(stats.hits > 50 && log.heard > 100, "{stats:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purges_on_two_instances_bring_nothing_back() {
    let Some(server) = RedisServer::start() else { return };
    storm("tiered", &server, |far| CacheLayer::tiered(MemoryStore::new(64 << 20), far)).await;
    storm("far only", &server, CacheLayer::with_storage).await;
}
