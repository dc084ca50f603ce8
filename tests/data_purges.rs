//! Purges, writes and deletions against values on their way: what began before them is never given to who comes after, here or on any other instance.

mod support;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use larder::storage::MemoryStore;
use larder::{CacheLayer, DataCache, Selector};
use proptest::prelude::*;
use support::depot::Depot;
use support::exchange::quiet;
use support::shared_log::{Line, Server, clock};
use tokio::sync::Semaphore;
use tokio::time::sleep;

const NO_TIME: Duration = Duration::ZERO;

fn tag(name: &str) -> Selector {
    Selector::Tag(name.into())
}

/// What a cache may be over; without a log, and with one.
fn everywhere() -> [(&'static str, DataCache); 5] {
    let near = || MemoryStore::new(1 << 20);
    let server = Server::default();
    [
        ("memory", DataCache::in_memory(1 << 20)),
        ("far", DataCache::with_storage(Depot::default())),
        ("tiered", DataCache::tiered(near(), Depot::default())),
        ("far with a log", CacheLayer::with_storage(server.store(Line::Open)).clock(clock(NO_TIME)).data("x")),
        ("tiered with a log", CacheLayer::tiered(near(), server.store(Line::Open)).clock(clock(NO_TIME)).data("y")),
    ]
}

/// A load of "old" that ends when the semaphore says so.
fn load(cache: &DataCache, leave: &Arc<Semaphore>) -> tokio::task::JoinHandle<Result<String, Arc<()>>> {
    let (cache, leave) = (cache.clone(), leave.clone());
    tokio::spawn(async move {
        let load = || async move {
            leave.acquire().await.expect("never closed").forget();
            Ok::<_, ()>("old".to_owned())
        };
        cache.entry("a").tag("t:1").get_or_load(load).await
    })
}

async fn load_new(cache: &DataCache) -> String {
    cache.entry("a").tag("t:1").get_or_load(|| async { Ok::<_, ()>("new".to_owned()) }).await.expect("a value")
}

type Happens = fn(&DataCache) -> BoxFuture<'_, ()>;

/// What may come while a value is loaded, and what is there afterwards.
const HAPPENS: [(&str, Happens, Option<&str>); 8] = [
    ("a purge of its tag", |cache| Box::pin(async { _ = cache.purge(tag("t:1")).await.expect("it is made") }), None),
    (
        "a purge of what its tag is part of",
        |cache| Box::pin(async { _ = cache.purge(tag("t")).await.expect("it is made") }),
        None,
    ),
    (
        "a purge by pattern",
        |cache| Box::pin(async { _ = cache.purge(Selector::Glob("*:a".into())).await.expect("it is made") }),
        None,
    ),
    (
        "a purge of everything",
        |cache| Box::pin(async { _ = cache.purge(Selector::Everything).await.expect("it is made") }),
        None,
    ),
    ("a soft purge", |cache| Box::pin(async { _ = cache.purge(tag("t")).soft().await.expect("it is made") }), None),
    ("a write", |cache| Box::pin(async { cache.set("a", "set").await.expect("it is set") }), Some("set")),
    ("a deletion", |cache| Box::pin(async { _ = cache.delete("a").await }), None),
    (
        "a purge of something else",
        |cache| Box::pin(async { _ = cache.purge(tag("u")).await.expect("it is made") }),
        Some("old"),
    ),
];

#[tokio::test(start_paused = true)]
async fn what_was_loading_when_it_was_purged_or_written_to_is_for_its_caller_alone() {
    for (what, happens, expected) in HAPPENS {
        for (store, cache) in everywhere() {
            let leave = Arc::new(Semaphore::new(0));
            let loads = load(&cache, &leave);
            sleep(Duration::from_millis(100)).await;
            happens(&cache).await;
            leave.add_permits(1);
            assert_eq!(loads.await.unwrap().unwrap(), "old", "{what}, {store}");
            sleep(Duration::from_millis(100)).await;
            assert_eq!(cache.get::<String>("a").await.as_deref(), expected, "{what}, {store}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_comes_after_a_purge_or_a_write_joins_no_load_from_before_it() {
    for (what, happens, expected) in HAPPENS {
        if expected == Some("old") {
            continue;
        }
        for (store, cache) in everywhere() {
            let leave = Arc::new(Semaphore::new(0));
            let loads = load(&cache, &leave);
            sleep(Duration::from_millis(100)).await;
            happens(&cache).await;
            let expected = expected.unwrap_or("new");
            assert_eq!(load_new(&cache).await, expected, "{what}, {store}");
            leave.add_permits(1);
            assert_eq!(loads.await.unwrap().unwrap(), "old", "{what}, {store}");
            sleep(Duration::from_millis(100)).await;
            assert_eq!(cache.get::<String>("a").await.as_deref(), Some(expected), "{what}, {store}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_waited_since_before_a_purge_has_what_is_loaded_after_it() {
    for (store, cache) in everywhere() {
        let leave = Arc::new(Semaphore::new(0));
        let (leads, follows) = (load(&cache, &leave), load(&cache, &leave));
        sleep(Duration::from_millis(100)).await;
        cache.purge(tag("t")).await.unwrap();
        leave.add_permits(1);
        sleep(Duration::from_millis(100)).await;
        let finished = [&leads, &follows].map(|one| usize::from(one.is_finished()));
        assert_eq!(finished.iter().sum::<usize>(), 1, "{store}: the other one loads itself");
        leave.add_permits(1);
        let (leads, follows) = (leads.await.unwrap(), follows.await.unwrap());
        assert_eq!((leads.unwrap(), follows.unwrap()), ("old".into(), "old".into()), "{store}");
        sleep(Duration::from_millis(100)).await;
        assert!(cache.exists("a").await, "{store}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_behind_a_stale_value_is_held_against_purges_as_well() {
    let cache = CacheLayer::in_memory(1 << 20).clock(clock(NO_TIME)).data("x");
    let cache = cache.tag("t").ttl(Duration::from_secs(1)).stale_while_revalidate(Duration::from_secs(60));
    cache.set("a", "old").await.unwrap();
    sleep(Duration::from_secs(2)).await;
    let leave = Arc::new(Semaphore::new(0));
    assert_eq!(load(&cache, &leave).await.unwrap().unwrap(), "old");
    quiet().await;
    cache.purge(tag("t")).await.unwrap();
    assert_eq!(cache.get::<String>("a").await, None);
    leave.add_permits(1);
    sleep(Duration::from_millis(100)).await;
    assert_eq!(cache.get::<String>("a").await, None);
}

#[tokio::test(start_paused = true)]
async fn what_is_made_from_a_value_that_is_stale_by_a_purge_is_stored_as_stale_and_made_once_for_many() {
    let layer = CacheLayer::in_memory(1 << 20).clock(clock(NO_TIME));
    let cache = layer.data("x").ttl(Duration::from_secs(600)).stale_while_revalidate(Duration::from_secs(600));
    cache.entry("a").tag("t:1").set("old").await.unwrap();
    cache.purge(tag("t")).soft().await.unwrap();
    while layer.handle().stats().purges_remembered > 0 {
        sleep(Duration::from_millis(100)).await;
    }
    let (leave, made) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicU64::new(0)));
    let make = || {
        let (cache, leave, made) = (cache.clone(), leave.clone(), made.clone());
        tokio::spawn(async move {
            let from = cache.clone();
            let make = || async move {
                made.fetch_add(1, Ordering::Relaxed);
                let anew = || async move {
                    leave.acquire().await.expect("never closed").forget();
                    Ok::<_, Arc<()>>("new".to_owned())
                };
                let value = from.entry("a").tag("t:1").get_or_load(anew).await.expect("a stale value");
                sleep(Duration::from_millis(100)).await;
                Ok::<_, Arc<()>>(format!("from {value}"))
            };
            cache.get_or_load("b", make).await
        })
    };
    let all: Vec<_> = (0..8).map(|_| make()).collect();
    for one in all {
        assert_eq!(one.await.unwrap().unwrap(), "from old");
    }
    assert_eq!((made.load(Ordering::Relaxed), cache.get::<String>("b").await), (1, None), "it isn't fresh");
    assert_eq!(make().await.unwrap().unwrap(), "from old", "at once, and made anew behind it");
}

#[tokio::test]
async fn a_purge_while_a_value_is_being_written_takes_it_along() {
    let depot = Depot::default();
    let cache = DataCache::tiered(MemoryStore::new(1 << 20), depot.clone()).tag("t");
    let gate = depot.gate("put");
    let sets = {
        let cache = cache.clone();
        tokio::spawn(async move { cache.set("a", &1).await })
    };
    quiet().await;
    assert_eq!(cache.get("a").await, Some(1), "it is near");
    cache.purge(tag("t")).await.unwrap();
    gate.add_permits(1);
    sets.await.unwrap().unwrap();
    assert_eq!(cache.get::<u8>("a").await, None);
}

#[tokio::test]
async fn what_was_read_from_afar_before_a_write_is_not_copied_behind_it() {
    for delete in [false, true] {
        let depot = Depot::default();
        let instance = || DataCache::tiered(MemoryStore::new(1 << 20), depot.clone());
        instance().set("a", &1).await.unwrap();
        let cache = instance();
        let gate = depot.gate("get");
        let reads = {
            let cache = cache.clone();
            tokio::spawn(async move { cache.get::<u8>("a").await })
        };
        quiet().await;
        match delete {
            true => _ = cache.delete("a").await,
            false => cache.set("a", &2).await.unwrap(),
        }
        gate.add_permits(1);
        reads.await.unwrap();
        depot.open("get");
        assert_eq!(cache.get::<u8>("a").await, (!delete).then_some(2), "delete: {delete}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_written_on_one_instance_falls_on_the_others() {
    let server = Server::default();
    let instance = |near: bool| match near {
        true => CacheLayer::tiered(MemoryStore::new(1 << 20), server.store(Line::Open)),
        false => CacheLayer::with_storage(server.store(Line::Open)),
    };
    for (one_is_near, other_is_near) in [(true, true), (false, true), (true, false)] {
        let [one, other] = [one_is_near, other_is_near].map(|near| instance(near).clock(clock(NO_TIME)).data("x"));
        let settled = || sleep(Duration::from_millis(300));
        for n in 0..3 {
            one.set("a", &n).await.unwrap();
            assert_eq!(one.get("a").await, Some(n));
            settled().await;
            assert_eq!(other.get("a").await, Some(n), "near: {one_is_near} {other_is_near}");
        }
        other.set_many([("a", 7), ("b", 8)]).await.unwrap();
        settled().await;
        assert_eq!(one.get_many::<u8>(["a", "b"]).await, [Some(7), Some(8)]);
        one.delete("a").await;
        assert_eq!(one.get::<u8>("a").await, None);
        settled().await;
        assert_eq!(other.get_many::<u8>(["a", "b"]).await, [None, Some(8)]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_the_log_does_not_hear_of_is_owed_and_nothing_is_used_meanwhile() {
    let server = Server::default();
    let near = || MemoryStore::new(1 << 20);
    let layer = CacheLayer::tiered(near(), server.store(Line::Broken)).clock(clock(NO_TIME));
    let cache = layer.data("x");
    cache.set("a", &1).await.unwrap();
    assert_eq!(cache.get::<u8>("a").await, None, "nobody knows what others have purged");
    assert_eq!(cache.get_or_load("a", || async { Ok::<_, ()>(2) }).await, Ok(2));
    assert!(layer.handle().stats().purge_log.unwrap().owed >= 1);
}

/// What happens in a random history. Keys and instances by number; each load takes some steps.
#[derive(Clone, Debug)]
enum Step {
    Load {
        instance: usize,
        key: usize,
        takes: usize,
    },
    Get {
        instance: usize,
        key: usize,
    },
    /// The number changes, and then that is said: by a purge of its tag, by deleting the value, or by setting it.
    Change {
        instance: usize,
        key: usize,
        how: How,
    },
    Wait,
}

#[derive(Clone, Copy, Debug)]
enum How {
    Purge,
    PurgeAll,
    Delete,
    Set,
}

const KEYS: usize = 3;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let place = || (0..2_usize, 0..KEYS);
    let how = prop_oneof![4 => Just(How::Purge), 1 => Just(How::PurgeAll), 3 => Just(How::Delete), 3 => Just(How::Set)];
    let step = prop_oneof![
        4 => (place(), 0..6_usize).prop_map(|((instance, key), takes)| Step::Load { instance, key, takes }),
        3 => place().prop_map(|(instance, key)| Step::Get { instance, key }),
        3 => (place(), how).prop_map(|((instance, key), how)| Step::Change { instance, key, how }),
        2 => Just(Step::Wait),
    ];
    proptest::collection::vec(step, 1..60)
}

/// The application's numbers, which only grow; and those of which it was said that they are old, and by whom.
#[derive(Default)]
struct Truth {
    numbers: [AtomicU64; KEYS],
    said: Mutex<HashMap<(usize, usize), u64>>,
}

impl Truth {
    fn number(&self, key: usize) -> u64 {
        self.numbers[key].load(Ordering::SeqCst)
    }

    /// The oldest number that this instance may give to who asks now.
    fn required(&self, instance: usize, key: usize) -> u64 {
        self.said.lock().expect("nobody panics").get(&(instance, key)).copied().unwrap_or_default()
    }

    fn say(&self, instances: &[usize], key: usize, number: u64) {
        let mut said = self.said.lock().expect("nobody panics");
        for instance in instances {
            let known = said.entry((*instance, key)).or_default();
            *known = number.max(*known);
        }
    }
}

/// Plays a history; whoever gets an answer checks it.
async fn play(instances: Vec<DataCache>, steps: Vec<Step>) {
    let truth = Arc::new(Truth::default());
    // An instance that has heard of no purge yet can't tell which of them came after a value that it is given.
    for cache in &instances {
        cache.exists("anything").await;
    }
    let mut running = Vec::new();
    for (n, step) in steps.into_iter().enumerate() {
        match step {
            Step::Load { instance, key, takes } => {
                let (cache, truth) = (instances[instance].clone(), truth.clone());
                running.push(tokio::spawn(async move {
                    let required = truth.required(instance, key);
                    let source = truth.clone();
                    let load = || async move {
                        let number = source.number(key);
                        for _ in 0..takes {
                            tokio::task::yield_now().await;
                        }
                        Ok::<_, ()>(number)
                    };
                    let entry = cache.entry(key.to_string()).tag(format!("k:{key}"));
                    let number = entry.get_or_load(load).await.expect("a number");
                    assert!(number >= required, "loaded {number} of key {key} at {instance} after {required}");
                }));
            }
            Step::Get { instance, key } => {
                let required = truth.required(instance, key);
                if let Some(number) = instances[instance].get::<u64>(key.to_string()).await {
                    assert!(number >= required, "got {number} of key {key} at {instance} after {required}");
                }
            }
            Step::Change { instance, key, how } => {
                let (cache, truth) = (instances[instance].clone(), truth.clone());
                // Half of the rest while others are at work. Of two that set a value at the same time, either may be the last one.
                let waits = matches!(how, How::Set) || n % 2 == 0;
                let changes = async move {
                    let number = truth.numbers[key].fetch_add(1, Ordering::SeqCst) + 1;
                    match how {
                        How::Purge => _ = cache.purge(tag(&format!("k:{key}"))).await.expect("it is made"),
                        How::PurgeAll => _ = cache.purge(tag("k")).await.expect("it is made"),
                        How::Delete => _ = cache.delete(key.to_string()).await,
                        How::Set => {
                            let entry = cache.entry(key.to_string()).tag(format!("k:{key}"));
                            entry.set(&number).await.expect("it is set");
                        }
                    }
                    truth.say(&[instance], key, number);
                };
                if waits { changes.await } else { running.push(tokio::spawn(changes)) }
            }
            Step::Wait => quiet().await,
        }
    }
    for one in running {
        one.await.expect("no answer was older than it may be");
    }
    // In the end all have heard of everything.
    sleep(Duration::from_secs(2)).await;
    for (instance, cache) in instances.iter().enumerate() {
        for key in 0..KEYS {
            let required = (0..instances.len()).map(|one| truth.required(one, key)).max().unwrap_or_default();
            if let Some(number) = cache.get::<u64>(key.to_string()).await {
                assert!(number >= required, "in the end {number} of key {key} at {instance} after {required}");
            }
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_comes_back_in_memory(steps in steps()) {
        runtime().block_on(async {
            let cache = CacheLayer::in_memory(1 << 20).clock(clock(NO_TIME)).data("x").ttl(Duration::from_secs(600));
            play(vec![cache.clone(), cache], only_here(steps)).await;
        });
    }

    #[test]
    fn nothing_comes_back_before_a_far_store(steps in steps(), near: bool) {
        runtime().block_on(async {
            let layer = match near {
                true => CacheLayer::tiered(MemoryStore::new(1 << 20), Depot::default()),
                false => CacheLayer::with_storage(Depot::default()),
            };
            let cache = layer.clock(clock(NO_TIME)).data("x").ttl(Duration::from_secs(600));
            play(vec![cache.clone(), cache], only_here(steps)).await;
        });
    }

    #[test]
    fn nothing_comes_back_on_instances_that_share_a_log(steps in steps(), near: [bool; 2]) {
        runtime().block_on(async {
            let server = Server::default();
            let clock = Arc::new(clock(NO_TIME));
            let instances = near.iter().map(|near| {
                let layer = match near {
                    true => CacheLayer::tiered(MemoryStore::new(1 << 20), server.store(Line::Open)),
                    false => CacheLayer::with_storage(server.store(Line::Open)),
                };
                layer.clock(clock.clone()).data("x").ttl(Duration::from_secs(600))
            });
            play(instances.collect(), steps).await;
        });
    }
}

/// Of one cache there is one instance.
fn only_here(mut steps: Vec<Step>) -> Vec<Step> {
    for step in &mut steps {
        match step {
            Step::Load { instance, .. } | Step::Get { instance, .. } | Step::Change { instance, .. } => *instance = 0,
            Step::Wait => {}
        }
    }
    steps
}
