//! What a data cache does with values: it keeps them on the terms that were said, finds them again, and never gives what it can't read.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use larder::{CacheLayer, DataCache, ManualClock};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Product {
    id: u64,
    name: String,
}

fn jar() -> Product {
    Product { id: 17, name: "jar".into() }
}

/// A cache by a clock that stands still.
fn timed() -> (Arc<ManualClock>, DataCache) {
    let clock = Arc::<ManualClock>::default();
    let time = clock.clone();
    let layer = CacheLayer::in_memory(1 << 20).clock(move || larder::Clock::now(&*time));
    (clock, layer.data("products"))
}

#[tokio::test]
async fn what_is_set_is_got_until_it_is_deleted_or_its_time_is_over() {
    let (clock, products) = timed();
    assert_eq!(products.get::<Product>("17").await, None);
    products.set("17", &jar()).await.unwrap();
    assert_eq!(products.get("17").await, Some(jar()));
    assert!(products.exists("17").await && !products.exists("18").await);
    assert!(products.delete("17").await && !products.delete("17").await);
    assert_eq!(products.get::<Product>("17").await, None);
    products.entry("17").ttl(Duration::from_secs(5)).set(&jar()).await.unwrap();
    clock.advance(Duration::from_secs(4));
    assert_eq!(products.get("17").await, Some(jar()));
    clock.advance(Duration::from_secs(1));
    assert_eq!(products.get::<Product>("17").await, None);
}

#[tokio::test]
async fn what_is_not_there_is_loaded_once() {
    let (_, products) = timed();
    let loads = Arc::new(AtomicUsize::new(0));
    for _ in 0..3 {
        let loads = loads.clone();
        let load = || async move {
            loads.fetch_add(1, Ordering::Relaxed);
            Ok::<_, std::io::Error>(jar())
        };
        assert_eq!(products.get_or_load("17", load).await.unwrap(), jar());
    }
    assert_eq!(loads.load(Ordering::Relaxed), 1);
    let stats = products.stats();
    assert_eq!((stats.hits, stats.misses, stats.loads, stats.entries), (2, 1, 1, 1));
}
