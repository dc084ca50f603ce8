//! Values that several change at the same time: no change is lost, none is made twice, and each look sees the newest.

mod support;

use std::sync::Arc;
use std::time::Duration;

use larder::storage::testing::{Fault, Faulty, Operation};
use larder::storage::{Guard, MemoryStore, Tiered};
use larder::{CacheLayer, DataCache, DataError, ManualClock, Selector};
use support::depot::Depot;
use support::exchange::{Handler, quiet, secs};
use support::shared_log::{Line, Server};
use tokio::task::JoinSet;

/// A cache in memory, over a store alone, and over both, each by a clock that stands still.
fn everywhere() -> [(&'static str, Arc<ManualClock>, CacheLayer); 3] {
    let near = || MemoryStore::new(4 << 20);
    [
        ("memory", CacheLayer::in_memory(4 << 20)),
        ("far", CacheLayer::with_storage(Depot::default())),
        ("tiered", CacheLayer::tiered(near(), Depot::default())),
    ]
    .map(|(store, layer)| {
        let clock = Arc::<ManualClock>::default();
        (store, clock.clone(), layer.clock(clock))
    })
}

async fn number(cache: &DataCache, key: &str) -> Option<i64> {
    cache.get(key).await
}

#[tokio::test]
async fn one_of_those_who_add_does() {
    for (store, clock, layer) in everywhere() {
        let jobs = layer.data("jobs").ttl(secs(10));
        assert!(jobs.add("a", "first").await.unwrap(), "{store}");
        assert!(!jobs.add("a", "second").await.unwrap(), "{store}");
        assert_eq!(jobs.get::<String>("a").await.as_deref(), Some("first"), "{store}");
        clock.advance(secs(9));
        assert!(!jobs.add("a", "third").await.unwrap(), "{store}: to try prolongs nothing");
        clock.advance(secs(1));
        assert!(jobs.add("a", "fourth").await.unwrap(), "{store}: what is over isn't there");
        assert!(jobs.delete("a").await && jobs.add("a", "fifth").await.unwrap(), "{store}");
        assert_eq!(jobs.get::<String>("a").await.as_deref(), Some("fifth"), "{store}");
        // Also where something else was there.
        jobs.entry("b").ttl(secs(10)).stale_while_revalidate(secs(10)).set("set").await.unwrap();
        assert!(!jobs.add("b", "added").await.unwrap(), "{store}");
        clock.advance(secs(11));
        assert!(jobs.add("b", "added").await.unwrap(), "{store}: what is stale isn't there");
    }
}

/// Who is late to hear of the deletion asks, and doesn't take itself for the first where another one would not.
#[tokio::test(start_paused = true)]
async fn of_those_who_add_after_a_deletion_elsewhere_one_does() {
    let handler = Handler::saying(&[]);
    for tiered in [false, true] {
        let server = Server::default();
        let instances = [(); 2].map(|()| if tiered { server.tiered(&handler) } else { server.plain(&handler) });
        let [one, late] = [0, 1].map(|n| instances[n].handle.data("jobs"));
        for (instance, cache) in instances.iter().zip([&one, &late]) {
            instance.says("/").await;
            cache.exists("lock").await;
        }
        instances[1].set_line(Line::Late);
        quiet().await;
        assert!(one.add("lock", "one").await.unwrap());
        assert!(!late.add("lock", "late").await.unwrap(), "tiered: {tiered}");
        one.delete("lock").await;
        assert!(late.add("lock", "late").await.unwrap(), "tiered: {tiered}");
        assert!(!one.add("lock", "one").await.unwrap(), "tiered: {tiered}: the late one was the first");
        assert_eq!(one.get::<String>("lock").await.as_deref(), Some("late"));
        // A number that is counted from 0 is the same for both.
        one.increment("n", 5).await.unwrap();
        one.delete("n").await;
        assert_eq!(late.increment("n", 1).await.unwrap(), 1, "tiered: {tiered}");
        assert_eq!(one.increment("n", 1).await.unwrap(), 2, "tiered: {tiered}");
    }
}

/// It was added; whether another one takes it for something from before a deletion isn't known.
#[tokio::test(start_paused = true)]
async fn who_cannot_ask_whether_it_was_the_first_says_so() {
    let (server, handler) = (Server::default(), Handler::saying(&[]));
    let instance = server.plain(&handler);
    let jobs = instance.handle.data("jobs");
    jobs.increment("there", 1).await.unwrap();
    instance.set_line(Line::Deaf);
    assert!(matches!(jobs.add("new", "one").await, Err(DataError::Unknown { .. })));
    let again = server.plain(&handler);
    let other = again.handle.data("jobs");
    assert_eq!(other.increment("there", 1).await.unwrap(), 2, "what goes on asks nobody");
    assert!(!other.add("new", "other").await.unwrap());
}

/// A copy that is nearer than the place where others change the value isn't what is compared.
#[tokio::test]
async fn what_is_compared_is_what_is_there_however_many_stores_are_before_it() {
    let depot = Depot::default();
    let [one, other] = [(); 2].map(|()| {
        let near = || MemoryStore::new(4 << 20);
        CacheLayer::with_storage(Tiered::new(near(), depot.clone())).data("x")
    });
    one.set("a", &1).await.unwrap();
    assert_eq!(other.get::<u8>("a").await, Some(1), "and a copy is on its near store");
    one.set("a", &2).await.unwrap();
    assert!(other.compare_and_set("a", &2, &3).await.unwrap(), "that is what is there");
}

#[tokio::test]
async fn numbers_are_counted_on_from_what_is_there() {
    for (store, _, layer) in everywhere() {
        let cache = layer.data("numbers");
        assert_eq!(cache.increment("a", 2).await.unwrap(), 2, "{store}");
        assert_eq!(cache.increment("a", -5).await.unwrap(), -3, "{store}");
        assert_eq!(cache.decrement("a", 4).await.unwrap(), -7, "{store}");
        assert_eq!(cache.decrement("b", 1).await.unwrap(), -1, "{store}");
        cache.set("a", &40).await.unwrap();
        assert_eq!(cache.increment("a", 2).await.unwrap(), 42, "{store}: set, and counted on");
        cache.set("a", &7).await.unwrap();
        assert_eq!(number(&cache, "a").await, Some(7), "{store}: counted, and set");
        assert!(cache.add("c", &5).await.unwrap());
        assert_eq!(cache.increment("c", 1).await.unwrap(), 6, "{store}: added, and counted on");
        assert!(cache.delete("a").await);
        assert_eq!((number(&cache, "a").await, cache.increment("a", 1).await.unwrap()), (None, 1), "{store}");
        let none = cache.entry("n").none_ttl(secs(9));
        assert_eq!(none.get_or_load_option(|| async { Ok::<_, ()>(None::<i64>) }).await, Ok(None));
        assert_eq!(cache.increment("n", 3).await.unwrap(), 3, "{store}: no number is none");
    }
}

#[tokio::test]
async fn what_does_not_fit_or_is_no_number_is_an_error_and_changes_nothing() {
    for (store, _, layer) in everywhere() {
        let cache = layer.data("numbers").max_value_size(100);
        for (there, by) in [(i64::MAX, 1), (i64::MAX - 5, i64::MAX), (i64::MIN, -1)] {
            cache.set("a", &there).await.unwrap();
            let error = cache.increment("a", by).await.unwrap_err();
            assert!(matches!(error, DataError::Overflow), "{store}: {there} and {by}: {error}");
            assert_eq!(number(&cache, "a").await, Some(there), "{store}");
        }
        cache.set("a", &i64::MIN).await.unwrap();
        assert!(matches!(cache.decrement("a", 1).await, Err(DataError::Overflow)), "{store}");
        assert_eq!(cache.decrement("a", i64::MIN).await.unwrap(), 0, "{store}: no intermediate step is out of range");
        for text in ["x", "5"] {
            cache.set("t", text).await.unwrap();
            assert!(matches!(cache.increment("t", 1).await, Err(DataError::NotAnInteger)), "{store}: {text:?}");
            assert_eq!(cache.get::<String>("t").await.as_deref(), Some(text), "{store}");
        }
        cache.set("f", &1.5).await.unwrap();
        assert!(matches!(cache.increment("f", 1).await, Err(DataError::NotAnInteger)), "{store}");
        let large = "x".repeat(100);
        assert!(matches!(cache.add("l", &large).await, Err(DataError::TooLarge { .. })), "{store}");
        assert!(matches!(cache.compare_and_set("t", &"5".to_owned(), &large).await, Err(DataError::TooLarge { .. })));
        assert_eq!(cache.get::<String>("t").await.as_deref(), Some("5"), "{store}");
    }
}

#[tokio::test]
async fn what_is_compared_is_the_value() {
    for (store, clock, layer) in everywhere() {
        let cache = layer.data("states").ttl(secs(10));
        let change = async |old: &str, new: &str| {
            cache.compare_and_set("a", &old.to_owned(), &new.to_owned()).await.expect("no error")
        };
        assert!(!change("", "new").await, "{store}: nothing is no value");
        cache.set("a", "new").await.unwrap();
        assert!(!change("old", "paid").await && change("new", "paid").await, "{store}");
        assert!(!change("new", "lost").await && change("paid", "shipped").await, "{store}");
        assert_eq!(cache.get::<String>("a").await.as_deref(), Some("shipped"), "{store}");
        clock.advance(secs(9));
        assert!(change("shipped", "there").await, "{store}");
        clock.advance(secs(9));
        assert_eq!(cache.get::<String>("a").await.as_deref(), Some("there"), "{store}: it is a new value");
        clock.advance(secs(1));
        assert!(!change("there", "back").await, "{store}: what is over is no value");
        cache.set("a", &5).await.unwrap();
        assert!(!change("5", "6").await, "{store}: nor is what is of another type");
        assert_eq!(number(&cache, "a").await, Some(5), "{store}");
    }
}

#[tokio::test]
async fn what_is_counted_ends_when_it_was_said_and_what_is_sliding_when_nobody_changes_it() {
    for (store, clock, layer) in everywhere() {
        let cache = layer.data("numbers").ttl(secs(10));
        for at in 0..20 {
            assert_eq!(cache.increment("a", 1).await.unwrap(), at % 10 + 1, "{store}: {at}");
            clock.advance(secs(1));
        }
        // What is said of a change counts for what is counted anew.
        cache.entry("b").ttl(secs(3)).increment(1).await.unwrap();
        cache.entry("b").ttl(secs(100)).increment(1).await.unwrap();
        clock.advance(secs(2));
        assert_eq!(number(&cache, "b").await, Some(2), "{store}");
        clock.advance(secs(1));
        assert_eq!(number(&cache, "b").await, None, "{store}");
        // What was set is counted on to its end.
        cache.entry("c").ttl(secs(4)).stale_while_revalidate(secs(100)).set(&5).await.unwrap();
        assert_eq!(cache.increment("c", 1).await.unwrap(), 6, "{store}");
        clock.advance(secs(4));
        assert_eq!(cache.increment("c", 1).await.unwrap(), 1, "{store}");
        let sliding = layer.data("sliding").sliding(secs(5));
        for at in 1..5 {
            assert_eq!(sliding.increment("a", 1).await.unwrap(), at, "{store}");
            clock.advance(secs(4));
        }
        clock.advance(secs(1));
        assert_eq!(sliding.increment("a", 1).await.unwrap(), 1, "{store}");
    }
}

#[tokio::test]
async fn purges_reach_what_is_counted_by_its_tags_its_key_and_its_name() {
    for (store, _, layer) in everywhere() {
        let cache = layer.data("numbers").tag("numbers");
        let selectors = ["tag:shop", "tag:numbers", "glob:numbers:a*", "everything"];
        for selector in selectors {
            cache.entry("a").tag("shop:1").increment(1).await.unwrap();
            // Tags stay through changes that don't name them, and others don't come.
            assert_eq!(cache.entry("a").tag("other").increment(1).await.unwrap(), 2, "{store}");
            layer.handle().purge("tag:other".parse::<Selector>().unwrap()).await.unwrap();
            assert_eq!(number(&cache, "a").await, Some(2), "{store}");
            layer.handle().purge(selector.parse::<Selector>().unwrap()).await.unwrap();
            assert_eq!(number(&cache, "a").await, None, "{store}: {selector}");
            assert_eq!(cache.increment("a", 1).await.unwrap(), 1, "{store}: {selector}");
            assert!(cache.delete("a").await, "{store}");
        }
        assert_eq!(cache.increment("a", 1).await.unwrap(), 1);
        layer.handle().purge(Selector::Everything).soft().await.unwrap();
        assert_eq!(cache.increment("a", 1).await.unwrap(), 2, "{store}: it is never stale");
        cache.set("b", &5).await.unwrap();
        layer.handle().purge(Selector::Everything).soft().await.unwrap();
        assert_eq!(cache.increment("b", 1).await.unwrap(), 1, "{store}: what was set is, and that isn't counted on");
    }
}

/// Before a far store nothing is near that others change there.
#[tokio::test]
async fn each_look_sees_what_is_far() {
    let depot = Depot::default();
    let layers = [(); 2].map(|()| CacheLayer::tiered(MemoryStore::new(1 << 20), depot.clone()));
    let [one, other] = layers.each_ref().map(|layer| layer.data("numbers"));
    one.set("a", &5).await.unwrap();
    assert_eq!(layers[0].handle().stats().storage.entries, 1);
    for at in 6..20 {
        let (changes, looks) = if at % 2 == 0 { (&one, &other) } else { (&other, &one) };
        assert_eq!(changes.increment("a", 1).await.unwrap(), at);
        depot.take_journal();
        assert_eq!((number(looks, "a").await, number(changes, "a").await), (Some(at), Some(at)));
        assert_eq!(depot.take_journal(), ["get", "get"]);
    }
    assert!(layers.iter().all(|layer| layer.handle().stats().storage.entries == 0));
    // A change is one trip where nobody else has changed it.
    one.increment("a", 1).await.unwrap();
    depot.take_journal();
    one.increment("a", 1).await.unwrap();
    assert_eq!(depot.take_journal(), ["swap"]);
}

/// A look that began before a change isn't shared with who comes behind that.
#[tokio::test(start_paused = true)]
async fn who_looks_after_a_change_sees_it() {
    let depot = Depot::default();
    let cache = DataCache::with_storage(depot.clone());
    cache.increment("a", 1).await.unwrap();
    depot.gate("get");
    let early = {
        let cache = cache.clone();
        tokio::spawn(async move { number(&cache, "a").await })
    };
    quiet().await;
    assert_eq!(cache.increment("a", 1).await.unwrap(), 2);
    let late = {
        let cache = cache.clone();
        tokio::spawn(async move { number(&cache, "a").await })
    };
    quiet().await;
    depot.open("get");
    assert_eq!((early.await.unwrap(), late.await.unwrap()), (Some(1), Some(2)));
}

#[tokio::test]
async fn copies_of_what_was_set_are_not_given_any_more_once_it_is_counted() {
    let server = Server::default();
    let [one, other] = [(); 2].map(|()| server.tiered(&Handler::saying(&[])));
    let [here, there] = [&one, &other].map(|instance| instance.handle.data("numbers"));
    assert_eq!((number(&here, "a").await, number(&there, "a").await), (None, None), "both have heard of the log");
    here.set("a", &5).await.unwrap();
    assert_eq!(number(&there, "a").await, Some(5));
    assert_eq!(other.handle.stats().storage.entries, 1, "a copy is near");
    assert_eq!(here.increment("a", 1).await.unwrap(), 6);
    tokio::time::timeout(secs(5), async {
        while number(&there, "a").await != Some(6) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("it hears of it");
    // Counting from there on is nobody's news.
    let purges = server.purges();
    for at in 7..20 {
        assert_eq!((if at % 2 == 0 { &here } else { &there }).increment("a", 1).await.unwrap(), at);
    }
    assert_eq!(server.purges(), purges);
    // Of two who begin to count on the same value, none loses what the other one has counted.
    here.set("b", &100).await.unwrap();
    assert_eq!(number(&there, "b").await, Some(100));
    let (first, second) = tokio::join!(here.increment("b", 1), there.increment("b", 1));
    let mut both = [first.unwrap(), second.unwrap()];
    both.sort_unstable();
    assert_eq!(both, [101, 102]);
    assert_eq!((number(&here, "b").await, number(&there, "b").await), (Some(102), Some(102)));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_held_against_the_purges_of_others_is_not_counted_on() {
    let server = Server::default();
    let instance = server.tiered(&Handler::saying(&[]));
    let cache = instance.handle.data("numbers");
    assert_eq!(cache.increment("a", 1).await.unwrap(), 1);
    instance.set_line(Line::Silent);
    tokio::time::sleep(secs(3)).await;
    let error = cache.increment("a", 1).await.unwrap_err();
    assert!(matches!(error, DataError::Unavailable { .. }), "{error}");
    instance.set_line(Line::Open);
    tokio::time::sleep(secs(3)).await;
    assert_eq!(cache.increment("a", 1).await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_began_to_load_before_takes_nothing_away() {
    for (store, _, layer) in everywhere() {
        let cache = layer.data("numbers");
        let leave = Arc::new(tokio::sync::Semaphore::new(0));
        let loading = {
            let (cache, leave) = (cache.clone(), leave.clone());
            tokio::spawn(async move {
                let load = || async move {
                    leave.acquire().await.expect("never closed").forget();
                    Ok::<i64, ()>(-1)
                };
                cache.get_or_load("a", load).await
            })
        };
        quiet().await;
        assert_eq!(cache.increment("a", 1).await.unwrap(), 1, "{store}");
        leave.add_permits(1);
        assert_eq!(loading.await.unwrap(), Ok(-1), "{store}");
        quiet().await;
        assert_eq!(cache.increment("a", 1).await.unwrap(), 2, "{store}");
    }
}

#[tokio::test]
async fn a_store_that_fails_is_an_error_that_says_whether_it_may_be_done() {
    // (what goes wrong with swaps, whether it may be done)
    let rows = [(Fault::Fail, true), (Fault::Panic, true), (Fault::Hang, true), (Fault::Unreachable, false)];
    for (fault, may_be_done) in rows {
        let store = Faulty::new(MemoryStore::new(1 << 20));
        let guard = Guard::default().write_deadline(Duration::from_millis(50));
        let cache = CacheLayer::with_storage(store.clone()).store_guard(guard).data("numbers");
        assert_eq!(cache.increment("a", 1).await.unwrap(), 1);
        store.set(Operation::Swap, fault);
        let errors = [cache.increment("a", 1).await.unwrap_err(), cache.add("b", &1).await.unwrap_err()];
        let is_unknown = |error: &DataError| matches!(error, DataError::Unknown { .. });
        let is_unavailable = |error: &DataError| matches!(error, DataError::Unavailable { .. });
        assert_eq!(is_unknown(&errors[0]), may_be_done, "{fault:?}: {errors:?}");
        assert!(errors.iter().all(|error| is_unknown(error) || is_unavailable(error)), "{fault:?}: {errors:?}");
        assert_eq!(cache.stats().store_errors, 2, "{fault:?}");
        store.mend();
        tokio::time::timeout(secs(5), async { while cache.increment("a", 1).await.is_err() {} }).await.expect("mended");
        assert_eq!(number(&cache, "a").await, Some(2), "{fault:?}");
    }
}

#[tokio::test]
async fn a_store_without_swaps_says_so() {
    /// A store of the kind that there was before.
    struct Plain(Depot);
    impl larder::storage::Storage for Plain {
        async fn get(
            &self,
            query: larder::storage::Query<'_>,
        ) -> Result<larder::storage::Variants, larder::StorageError> {
            self.0.get(query).await
        }
        async fn put(
            &self,
            key: &larder::CacheKey,
            response: Arc<larder::StoredResponse>,
            most: usize,
        ) -> Result<(), larder::StorageError> {
            self.0.put(key, response, most).await
        }
        async fn remove(&self, key: &larder::CacheKey) -> Result<bool, larder::StorageError> {
            self.0.remove(key).await
        }
        async fn clear(&self) -> Result<(), larder::StorageError> {
            self.0.clear().await
        }
        fn usage(&self) -> larder::storage::StorageUsage {
            self.0.usage()
        }
    }
    let cache = DataCache::with_storage(Plain(Depot::default()));
    let Err(DataError::Unavailable { source }) = cache.increment("a", 1).await else { panic!("an error") };
    assert!(source.is_unsupported(), "{source}");
    cache.set("a", &1).await.unwrap();
    assert_eq!(number(&cache, "a").await, Some(1), "all else is as ever");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_many_count_is_exact() {
    const TASKS: i64 = 8;
    const EACH: i64 = 200;
    let depot = Depot::default();
    let near = || MemoryStore::new(1 << 20);
    let memory = DataCache::in_memory(1 << 20);
    let far = [DataCache::with_storage(depot.clone()), DataCache::tiered(near(), depot.clone())];
    for caches in [[memory.clone(), memory], far] {
        let mut all = JoinSet::new();
        for task in 0..TASKS {
            let cache = caches[task as usize % 2].clone();
            all.spawn(async move {
                let mut last = 0;
                for _ in 0..EACH {
                    let next = cache.increment("a", 1).await.unwrap();
                    assert!(next > last, "{next} after {last}");
                    last = next;
                    // And a value that only one of them can have changed.
                    let old = cache.get::<i64>("b").await.unwrap_or(0);
                    let done = if old == 0 {
                        cache.add("b", &1_i64).await.unwrap()
                    } else {
                        cache.compare_and_set("b", &old, &(old + 1)).await.unwrap()
                    };
                    cache.increment("done", i64::from(done)).await.unwrap();
                }
            });
        }
        while let Some(ended) = all.join_next().await {
            ended.unwrap();
        }
        assert_eq!(number(&caches[0], "a").await, Some(TASKS * EACH));
        assert_eq!(number(&caches[0], "b").await, number(&caches[0], "done").await);
        assert!(number(&caches[0], "b").await > Some(EACH));
    }
}

#[test]
fn no_runtime_is_needed_in_memory() {
    let cache = DataCache::in_memory(1 << 20);
    let all = async {
        assert_eq!(cache.increment("a", 1).await.unwrap(), 1);
        assert!(!cache.add("a", &1).await.unwrap() && cache.compare_and_set("a", &1, &5).await.unwrap());
        number(&cache, "a").await
    };
    assert_eq!(futures_util::FutureExt::now_or_never(all), Some(Some(5)));
}
