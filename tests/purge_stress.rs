//! A hundred thousand purges of every kind, hard and soft, beside fills, refreshes, followers, writes and sweeps on several threads: nothing that is older than an acknowledged
//! purge comes back, and nothing is fresh that is older than a soft one. `PURGES` in the environment says how many, if not a hundred thousand.

mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use larder::CacheLayer;
use support::storm::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_thousand_purges_bring_nothing_back() {
    let purges: usize = std::env::var("PURGES").map_or(100_000, |text| text.parse().expect("a number of purges"));
    let (world, began) = (World::new([CacheLayer::in_memory(64 << 20)]), Instant::now());
    world.storm(purges, 4).await;
    let stats = world.handle(0).stats();
    println!("{stats:#?} after {:?}", began.elapsed());
    let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
    assert_eq!(count(&world.seen.purges_failed), 0);
    // All of it happened, in shorter runs as well.
    let [fresh, stale] = [&world.seen.fresh, &world.seen.stale].map(count);
    assert!(fresh > 100 && stale > 100 && stats.collapsed > 0 && stats.revalidated > 0, "{fresh}, {stale}");
    assert!(stats.swept > 10 && stats.refreshes > 10);
    // What is left to be forgotten is, once nothing is in flight.
    while world.handle(0).stats().purges_remembered > 0 {
        assert!(began.elapsed() < Duration::from_secs(300));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
