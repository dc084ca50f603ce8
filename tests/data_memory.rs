//! A data cache may have memory of its own beside the responses: neither takes the other's room, and all that purges one reaches the other in the same step.
#![cfg(feature = "data")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use larder::storage::MemoryStore;
use larder::{CacheLayer, DataCache, ManualClock, Policy, Selector};
use support::depot::Depot;
use support::exchange::{Handler, House, MINUTE, answer, quiet};
use support::log::Log;

fn large() -> String {
    "x".repeat(1000)
}

/// A shop's cache, with sessions that have memory of their own.
fn shop() -> (House, DataCache, DataCache) {
    let handler = Handler::new(|_, _| answer(200, &[("cache-tag", "shop")], "page"));
    let house = House::around(handler, CacheLayer::in_memory(1 << 20).otherwise(Policy::shared(MINUTE)));
    let sessions = house.handle.data("sessions").own_memory(MemoryStore::new(64 << 10)).tag("shop");
    let products = house.handle.data("products").tag("shop");
    (house, sessions, products)
}

#[tokio::test]
async fn neither_takes_the_room_of_the_other() {
    let (house, sessions, products) = shop();
    house.get("/").await;
    products.set("1", &large()).await.unwrap();
    for n in 0..2000 {
        sessions.set(format!("{n}"), &large()).await.unwrap();
    }
    let stats = sessions.stats();
    assert!(stats.bytes <= 64 << 10 && stats.entries > 0 && stats.evicted > 1000, "{stats:?}");
    assert_eq!((stats.own_capacity, products.stats().own_capacity), (Some(64 << 10), None));
    assert_eq!(products.stats().evicted, 0);
    assert_eq!((house.get("/").await.x_cache.as_str(), products.exists("1").await), ("HIT", true));
    let all = house.handle.stats().storage;
    assert_eq!(all.entries, stats.entries + 2, "what the cache holds is all of it");
    assert!(all.bytes > stats.bytes && all.evictions >= stats.evicted, "{all:?}");
}

#[tokio::test]
async fn what_purges_responses_purges_it_in_the_same_step() {
    let selectors = ["tag:shop", "everything", "glob:sessions:*", "regex:^(sessions|products):", "glob:sessions:1"];
    for selector in selectors {
        let (_house, sessions, _) = shop();
        sessions.set("1", &large()).await.unwrap();
        let purge = || sessions.purge(selector.parse::<Selector>().unwrap());
        let found = purge().dry_run().await.unwrap();
        assert_eq!((found.entries, found.responses), (1, 1), "{selector}");
        assert!(sessions.exists("1").await, "{selector}: nothing was changed");
        purge().await.unwrap();
        assert!(!sessions.exists("1").await, "{selector}");
        sessions.set("1", &1).await.unwrap();
        assert!(sessions.exists("1").await, "{selector}: what comes later is good");
    }
}

/// The sweep walks through it, and forgets no purge before it has.
#[tokio::test(start_paused = true)]
async fn the_sweep_gives_its_memory_back() {
    let clock = Arc::new(ManualClock::default());
    let layer = CacheLayer::in_memory(1 << 20).clock(clock);
    let sessions = layer.data("sessions").own_memory(MemoryStore::new(1 << 20));
    for n in 0..500 {
        sessions.entry(format!("{n}")).tag(if n % 2 == 0 { "even" } else { "odd" }).set(&n).await.unwrap();
    }
    let handle = layer.handle();
    handle.purge(Selector::Tag("even".into())).await.unwrap();
    assert!(handle.stats().purges_remembered > 0);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!((sessions.stats().entries, handle.stats().purges_remembered), (250, 0));
    for n in 0..500 {
        assert_eq!(sessions.exists(format!("{n}")).await, n % 2 == 1, "{n}");
    }
    handle.purge(Selector::Everything).await.unwrap();
    assert_eq!(sessions.stats().entries, 0, "at once");
}

#[tokio::test]
async fn changes_by_many_are_made_in_it() {
    for layer in [CacheLayer::in_memory(1 << 20), CacheLayer::tiered(MemoryStore::new(1 << 20), Depot::default())] {
        let cache = layer.data("counts").own_memory(MemoryStore::new(1 << 20));
        assert_eq!(cache.increment("a", 2).await.unwrap(), 2);
        cache.set("b", &40).await.unwrap();
        assert_eq!(cache.get("b").await, Some(40));
        assert_eq!(cache.increment("b", 2).await.unwrap(), 42);
        assert_eq!((cache.get("a").await, cache.get("b").await), (Some(2), Some(42)));
        assert!(cache.delete("b").await && !cache.exists("b").await);
    }
}

/// It is the memory before that store, also where the responses have none.
#[tokio::test]
async fn before_a_store_that_is_far_it_has_copies() {
    let depot = Depot::default();
    let layer = CacheLayer::with_storage(depot.clone());
    let cache = layer.data("x").own_memory(MemoryStore::new(1 << 20));
    cache.set("a", &1).await.unwrap();
    quiet().await;
    assert_eq!((cache.stats().entries, depot.keys().len()), (1, 1));
    assert_eq!(layer.handle().stats().storage.entries, 1, "the copy is none of its own");
    layer.handle().purge(Selector::Glob("x:*".into())).await.unwrap();
    assert!(!cache.exists("a").await);
}

/// It is the name's: what is said first counts, and who says otherwise is told.
#[tokio::test]
async fn all_of_a_name_share_it() {
    let log = Log::new();
    let warned = || log.lines("goes on with the memory that it has").len();
    let layer = CacheLayer::in_memory(1 << 20);
    let one = layer.data("a").own_memory(MemoryStore::new(64 << 10));
    let same = layer.data("a").own_memory(MemoryStore::new(64 << 10));
    one.set("k", &1).await.unwrap();
    assert_eq!((layer.data("a").get("k").await, same.get("k").await, warned()), (Some(1), Some(1), 0));
    let other = layer.data("a").own_memory(MemoryStore::new(32 << 10));
    assert_eq!((other.get("k").await, other.stats().own_capacity, warned()), (Some(1), Some(64 << 10), 1));
    let used = layer.data("b");
    used.set("k", &1).await.unwrap();
    let late = layer.data("b").own_memory(MemoryStore::new(64 << 10));
    assert_eq!((late.get("k").await, late.stats().own_capacity, warned()), (Some(1), None, 2));
}

#[cfg(feature = "config")]
mod in_a_file {
    use larder::{Config, ConfigError};

    use super::*;

    fn config(text: &str) -> Config {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    #[tokio::test]
    async fn it_is_as_the_file_says_and_a_reload_that_would_change_it_is_refused() {
        let text = "[data.a]\ncapacity = \"64KiB\"\nmax_entries = 7\neviction = \"lru\"\n[data.b]\nttl = \"9s\"\n";
        let layer = CacheLayer::from_config(&config(text)).unwrap();
        let (handle, cache) = (layer.handle(), layer.data("a"));
        assert_eq!(cache.stats().own_capacity, None, "before it is used");
        let larger = text.replace("64KiB", "128KiB");
        handle.reload(&config(&larger)).expect("nobody used it");
        for n in 0..100 {
            cache.set(format!("{n}"), &n).await.unwrap();
            layer.data("b").set(format!("{n}"), &n).await.unwrap();
        }
        let stats = cache.stats();
        assert_eq!(stats.own_capacity, Some(128 << 10));
        // moka evicts in batches.
        assert!(stats.evicted > 30, "{stats:?}");
        let rows = [
            (larger.clone(), None),
            (larger.replace("9s", "10s"), None),
            (format!("{larger}[data.c]\ncapacity = 1024\n"), None),
            (
                text.to_owned(),
                Some(
                    "data.a.capacity can't change while the cache runs, once the data cache was used: it is 131072, and 65536 is wanted; restart to change it",
                ),
            ),
            (larger.replace("= 7", "= 8"), Some("data.a.max_entries")),
            (larger.replace("lru", "tiny_lfu"), Some("data.a.eviction")),
            (
                larger.replace("[data.a]\ncapacity = \"128KiB\"\nmax_entries = 7\neviction = \"lru\"", ""),
                Some("and that of the responses is wanted"),
            ),
            (
                larger.replace("ttl = \"9s\"", "capacity = 4096"),
                Some(
                    "data.b.capacity can't change while the cache runs, once the data cache was used: it is that of the responses",
                ),
            ),
        ];
        for (text, refused) in rows {
            match (handle.reload(&config(&text)), refused) {
                (Ok(_), None) => {}
                (Err(ConfigError::Reload(error)), Some(words)) => assert!(error.to_string().contains(words), "{error}"),
                (said, _) => panic!("{text}: {said:?}"),
            }
            assert_eq!(cache.stats(), stats, "nothing is lost by it");
        }
    }

    #[tokio::test]
    async fn code_counts_more() {
        let layer = CacheLayer::from_config(&config("[data.a]\ncapacity = \"64KiB\"\n")).unwrap();
        let cache = layer.data("a").own_memory(MemoryStore::new(1 << 10));
        cache.set("k", &1).await.unwrap();
        assert_eq!(cache.stats().own_capacity, Some(1 << 10));
        layer.handle().reload(&config("[data.a]\ncapacity = \"32KiB\"\n")).expect("it doesn't count");
    }

    #[test]
    fn bounds_without_a_size_are_a_mistake() {
        for word in ["max_entries = 10", "eviction = \"lru\""] {
            let error = format!("[data.a]\n{word}\n").parse::<Config>().unwrap_err().to_string();
            assert!(error.contains("data.a.") && error.contains("`capacity`"), "{error}");
        }
    }
}
