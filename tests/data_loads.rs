//! Values that aren't there are loaded once for all who ask; whoever leads may leave, fail or panic, and what was there before may stand in.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{join_all, poll_immediate};
use larder::storage::MemoryStore;
use larder::{CacheLayer, DataCache, ManualClock, Selector, UsedTags};
use support::depot::Depot;
use support::exchange::{quiet, secs};
use tokio::sync::Semaphore;

/// A database of one number, which counts how often it is asked, and answers when it is given leave.
#[derive(Clone)]
struct Source {
    asked: Arc<AtomicUsize>,
    leave: Arc<Semaphore>,
}

impl Source {
    /// Answers at once.
    fn quick() -> Self {
        Self { asked: Arc::default(), leave: Arc::new(Semaphore::new(1 << 20)) }
    }

    fn slow() -> Self {
        Self { leave: Arc::new(Semaphore::new(0)), ..Self::quick() }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// How many were asked before.
    async fn ask(self) -> usize {
        let n = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        self.leave.acquire().await.expect("never closed").forget();
        n
    }

    async fn number(self) -> Result<usize, String> {
        Ok(self.ask().await)
    }

    async fn error(self) -> Result<usize, String> {
        let n = self.ask().await;
        Err(format!("error {n}"))
    }

    async fn nothing(self) -> Result<Option<usize>, String> {
        self.ask().await;
        Ok(None)
    }

    fn answer(&self) {
        self.leave.add_permits(1);
    }
}

fn timed(set_up: impl Fn(DataCache) -> DataCache) -> (Arc<ManualClock>, DataCache) {
    let clock = Arc::<ManualClock>::default();
    (clock.clone(), set_up(CacheLayer::in_memory(4 << 20).clock(clock).data("x")))
}

/// Somebody who asks, in a task of their own.
fn begin(cache: &DataCache, source: &Source) -> tokio::task::JoinHandle<Result<usize, Arc<String>>> {
    let (cache, source) = (cache.clone(), source.clone());
    tokio::spawn(async move { cache.get_or_load("a", || source.number()).await })
}

#[tokio::test]
async fn ten_thousand_who_ask_at_once_are_one_load() {
    for cache in [
        DataCache::in_memory(4 << 20),
        DataCache::with_storage(Depot::default()),
        DataCache::tiered(MemoryStore::new(4 << 20), Depot::default()),
    ] {
        let source = Source::slow();
        let all: Vec<_> = (0..10_000).map(|_| begin(&cache, &source)).collect();
        quiet().await;
        source.answer();
        for one in all {
            assert_eq!(one.await.unwrap(), Ok(1));
        }
        assert_eq!(source.asked(), 1);
        let stats = cache.stats();
        assert_eq!((stats.loads, stats.misses, stats.collapsed, stats.hits), (1, 10_000, 9_999, 0));
        assert_eq!(cache.get_or_load("a", || source.clone().number()).await, Ok(1));
        quiet().await;
        assert_eq!(cache.get("a").await, Some(1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_same_on_many_threads() {
    let (cache, source) = (DataCache::in_memory(4 << 20), Source::slow());
    let all: Vec<_> = (0..10_000).map(|_| begin(&cache, &source)).collect();
    while source.asked() == 0 {
        tokio::task::yield_now().await;
    }
    source.answer();
    for one in all {
        assert_eq!(one.await.unwrap(), Ok(1));
    }
    assert_eq!(source.asked(), 1);
}

#[tokio::test]
async fn a_caller_that_leaves_leaves_the_load_to_the_cache() {
    let (cache, source) = (DataCache::in_memory(1 << 20), Source::slow());
    let leads = begin(&cache, &source);
    quiet().await;
    let follows = begin(&cache, &source);
    quiet().await;
    leads.abort();
    assert!(leads.await.unwrap_err().is_cancelled());
    quiet().await;
    source.answer();
    assert_eq!(follows.await.unwrap(), Ok(1));
    assert_eq!((cache.get("a").await, source.asked()), (Some(1), 1));
    assert_eq!(cache.handle().stats().fills_handed_over, 1);
}

#[tokio::test]
async fn a_caller_that_leaves_alone_still_leaves_a_value_behind() {
    let (cache, source) = (DataCache::in_memory(1 << 20), Source::slow());
    let leads = begin(&cache, &source);
    quiet().await;
    leads.abort();
    source.answer();
    quiet().await;
    assert_eq!(cache.get("a").await, Some(1));
}

#[tokio::test]
async fn where_a_load_panics_another_one_of_those_who_wait_loads() {
    let (cache, source) = (DataCache::in_memory(1 << 20), Source::slow());
    let panics = {
        let (cache, source) = (cache.clone(), source.clone());
        tokio::spawn(async move {
            let load = || async move {
                source.ask().await;
                panic!("on purpose");
            };
            cache.get_or_load::<usize, String, _, _>("a", load).await
        })
    };
    quiet().await;
    let all: Vec<_> = (0..10).map(|_| begin(&cache, &source)).collect();
    quiet().await;
    source.answer();
    quiet().await;
    assert_eq!(source.asked(), 2, "one of them, and no more");
    source.answer();
    assert!(panics.await.unwrap_err().is_panic());
    for one in all {
        assert_eq!(one.await.unwrap(), Ok(2));
    }
    assert_eq!(cache.handle().stats().fills_handed_over, 0, "what panicked isn't polled again");
}

#[tokio::test]
async fn an_error_is_shared_by_those_who_wait_and_then_forgotten() {
    let (cache, source) = (DataCache::in_memory(1 << 20), Source::slow());
    let ask = || cache.get_or_load("a", || source.clone().error());
    let (answers, ()) = tokio::join!(join_all((0..10).map(|_| ask())), async {
        quiet().await;
        source.answer();
    });
    let first = answers[0].clone().unwrap_err();
    assert_eq!(*first, "error 1");
    assert!(answers.iter().all(|answer| Arc::ptr_eq(answer.as_ref().unwrap_err(), &first)), "one and the same");
    source.answer();
    assert_eq!(*ask().await.unwrap_err(), "error 2");
    assert_eq!((cache.stats().load_errors, cache.stats().entries), (2, 0));
}

#[tokio::test]
async fn who_waits_for_an_error_of_another_type_loads_itself() {
    let (cache, source) = (DataCache::in_memory(1 << 20), Source::slow());
    let of_numbers = cache.get_or_load::<usize, u8, _, _>("a", || source.clone().ask().map(|_| Err(7)));
    let (one, other, ()) = tokio::join!(of_numbers, cache.get_or_load("a", || source.clone().number()), async {
        quiet().await;
        source.answer();
        source.answer();
    });
    assert_eq!((one.map_err(|error| *error), other), (Err(7), Ok(2)));
}

#[tokio::test]
async fn an_error_is_remembered_where_that_is_wanted_until_something_speaks_against_it() {
    type Against = fn(DataCache, Arc<ManualClock>) -> futures_util::future::BoxFuture<'static, ()>;
    let rows: [(&str, Against, bool); 8] = [
        ("nothing", |_, _| Box::pin(async {}), true),
        ("most of its time", |_, clock| Box::pin(async move { clock.advance(secs(4)) }), true),
        ("its time", |_, clock| Box::pin(async move { clock.advance(secs(5)) }), false),
        ("another purge", |cache, _| Box::pin(async move { purge(&cache, "tag:u").await }), true),
        ("a purge of its tag", |cache, _| Box::pin(async move { purge(&cache, "tag:t").await }), false),
        ("a purge by pattern", |cache, _| Box::pin(async move { purge(&cache, "glob:x:*").await }), false),
        ("a purge of everything", |cache, _| Box::pin(async move { purge(&cache, "everything").await }), false),
        ("a write", |cache, _| Box::pin(async move { _ = cache.delete("a").await }), false),
    ];
    for (against, happens, stays) in rows {
        let (clock, cache) = timed(|cache| cache.error_ttl(secs(5)));
        let source = Source::quick();
        let ask = || cache.entry("a").tag("t").get_or_load(|| source.clone().error());
        assert_eq!(*ask().await.unwrap_err(), "error 1");
        happens(cache.clone(), clock).await;
        let expected = if stays { "error 1" } else { "error 2" };
        assert_eq!(*ask().await.unwrap_err(), expected, "{against}");
        assert_eq!(cache.stats().errors_remembered, u64::from(stays), "{against}");
        // A value is one for all, whatever was remembered.
        cache.set("a", &9).await.unwrap();
        assert_eq!(ask().await, Ok(9), "{against}");
    }
}

/// As a value would: the tags of what the loader used before it failed, and of the entry; and whatever is made of the error depends on them.
#[tokio::test]
async fn an_error_that_is_remembered_bears_the_tags_of_what_it_was_made_from() {
    let rows = [("used", true), ("early", true), ("entry", true), ("cache", true), ("other", false)];
    for (tag, drops) in rows {
        let layer = CacheLayer::in_memory(4 << 20);
        let (inner, outer) = (layer.data("inner"), layer.data("outer"));
        let cache = layer.data("x").error_ttl(secs(60)).tag("cache");
        inner.entry("i").tag("used").set(&1).await.unwrap();
        let source = Source::quick();
        let ask = || {
            let (inner, source) = (inner.clone(), source.clone());
            let load = move || {
                UsedTags::current().add("early");
                async move {
                    inner.get::<u8>("i").await;
                    source.error().await
                }
            };
            cache.entry("a").tag("entry").get_or_load(load)
        };
        assert_eq!(*ask().await.unwrap_err(), "error 1");
        assert_eq!(*ask().await.unwrap_err(), "error 1", "remembered");
        // Made of an error that was remembered.
        let made = outer.get_or_load("o", || {
            let cache = cache.clone();
            async move {
                let failed = cache.get_or_load("a", || async { Err::<usize, _>("another".to_owned()) }).await;
                Ok::<_, String>(failed.unwrap_err().to_string())
            }
        });
        assert_eq!(made.await.unwrap(), "error 1");
        purge(&cache, &format!("tag:{tag}")).await;
        let expected = if drops { "error 2" } else { "error 1" };
        assert_eq!(*ask().await.unwrap_err(), expected, "after a purge of {tag}");
        assert_eq!(outer.get::<String>("o").await.is_none(), drops, "and what was made of it, of {tag}");
    }
}

async fn purge(cache: &DataCache, selector: &str) {
    cache.purge(selector.parse().expect("a selector")).await.expect("it is made");
}

#[tokio::test]
async fn that_there_is_nothing_is_shared_and_remembered_where_that_is_wanted() {
    let (clock, cache) = timed(|cache| cache);
    let source = Source::slow();
    let ask = || cache.entry("a").get_or_load_option(|| source.clone().nothing());
    let (answers, ()) = tokio::join!(join_all((0..10).map(|_| ask())), async {
        quiet().await;
        source.answer();
    });
    assert!(answers.iter().all(|answer| *answer == Ok(None)));
    assert_eq!((source.asked(), cache.stats().entries), (1, 0));
    source.leave.add_permits(100);
    assert_eq!((ask().await, source.asked()), (Ok(None), 2), "nobody said for how long");

    let ask = || cache.entry("a").none_ttl(secs(5)).ttl(secs(50)).get_or_load_option(|| source.clone().nothing());
    for _ in 0..3 {
        assert_eq!((ask().await, source.asked()), (Ok(None), 3));
    }
    assert!(!cache.exists("a").await);
    assert_eq!(cache.get::<usize>("a").await, None);
    assert_eq!(cache.get_or_load("a", || source.clone().number()).await, Ok(4), "who can't do without one loads");
    assert_eq!(ask().await, Ok(Some(4)));
    cache.delete("a").await;
    assert_eq!((ask().await, source.asked()), (Ok(None), 5));
    clock.advance(secs(5));
    assert_eq!((ask().await, source.asked()), (Ok(None), 6));
}

#[tokio::test]
async fn a_stale_value_is_given_at_once_and_loaded_anew_once() {
    for cache in [
        CacheLayer::in_memory(1 << 20),
        CacheLayer::with_storage(Depot::default()),
        CacheLayer::tiered(MemoryStore::new(1 << 20), Depot::default()),
    ] {
        let clock = Arc::<ManualClock>::default();
        let cache = cache.clock(clock.clone()).data("x").ttl(secs(10)).stale_while_revalidate(secs(5));
        let source = Source::slow();
        source.answer();
        assert_eq!(cache.get_or_load("a", || source.clone().number()).await, Ok(1));
        quiet().await;
        clock.advance(secs(12));
        for _ in 0..100 {
            assert_eq!(cache.get_or_load("a", || source.clone().number()).await, Ok(1));
        }
        quiet().await;
        assert_eq!((source.asked(), cache.stats().stale, cache.stats().refreshes), (2, 100, 1));
        assert_eq!(cache.get::<usize>("a").await, None, "who can't load gets nothing stale");
        source.answer();
        quiet().await;
        assert_eq!(cache.get("a").await, Some(2));
        clock.advance(secs(15));
        let waits = cache.get_or_load("a", || source.clone().number());
        assert_eq!(poll_immediate(waits).await, None, "its window is over");
    }
}

#[tokio::test]
async fn a_refresh_that_fails_changes_nothing() {
    let (clock, cache) = timed(|cache| cache.ttl(secs(10)).stale_while_revalidate(secs(50)));
    let source = Source::quick();
    assert_eq!(cache.get_or_load("a", || source.clone().number()).await, Ok(1));
    clock.advance(secs(12));
    for n in 0..3 {
        assert_eq!(cache.get_or_load("a", || source.clone().error()).await, Ok(1));
        quiet().await;
        assert_eq!(source.asked(), 2 + n);
    }
}

#[tokio::test]
async fn a_stale_value_stands_in_for_an_error_unless_it_was_purged_or_written_to() {
    type Happens = fn(DataCache, Arc<ManualClock>) -> futures_util::future::BoxFuture<'static, ()>;
    let rows: [(&str, Happens, bool); 6] = [
        ("nothing", |_, _| Box::pin(async {}), true),
        ("its window ends", |_, clock| Box::pin(async move { clock.advance(secs(50)) }), false),
        ("it is purged", |cache, _| Box::pin(async move { purge(&cache, "tag:t").await }), false),
        ("all is purged", |cache, _| Box::pin(async move { purge(&cache, "everything").await }), false),
        ("it is deleted", |cache, _| Box::pin(async move { _ = cache.delete("a").await }), false),
        (
            "it is purged softly",
            |cache, _| {
                Box::pin(async move { _ = cache.purge(Selector::Tag("t".into())).soft().await.expect("it is made") })
            },
            true,
        ),
    ];
    for (what, happens, stands_in) in rows {
        for during in [false, true] {
            let (clock, cache) = timed(|cache| cache.ttl(secs(10)).stale_if_error(secs(50)));
            let source = Source::slow();
            source.answer();
            let number = cache.entry("a").tag("t").get_or_load(|| source.clone().number()).await;
            assert_eq!(number, Ok(1));
            clock.advance(secs(12));
            if !during {
                happens(cache.clone(), clock.clone()).await;
            }
            let ask = || cache.entry("a").tag("t").get_or_load(|| source.clone().error());
            let (one, other, ()) = tokio::join!(ask(), ask(), async {
                quiet().await;
                if during {
                    happens(cache.clone(), clock.clone()).await;
                }
                source.answer();
                source.answer();
            });
            for answer in [one, other] {
                assert_eq!(answer.is_ok(), stands_in, "{what}, during the load: {during}");
            }
            let stats = cache.stats();
            let looks = (stats.hits, stats.stale, stats.misses, stats.stood_in);
            assert_eq!(looks, (0, 0, 3, if stands_in { 2 } else { 0 }), "{what}: each look is one of the first three");
        }
    }
}

/// Whatever stands in for an error wasn't had without loading; and where the error is remembered, the look is neither a hit nor a miss.
#[tokio::test]
async fn what_stands_in_for_an_error_is_no_hit() {
    for remembered in [false, true] {
        let (clock, cache) = timed(|cache| cache.ttl(secs(10)).stale_if_error(secs(50)));
        let cache = if remembered { cache.error_ttl(secs(5)) } else { cache };
        let source = Source::quick();
        assert_eq!(cache.get_or_load("a", || source.clone().number()).await, Ok(1));
        assert_eq!(cache.get_or_load("a", || source.clone().number()).await, Ok(1));
        clock.advance(secs(12));
        for _ in 0..2 {
            assert_eq!(cache.get_or_load("a", || source.clone().error()).await, Ok(1));
        }
        let stats = cache.stats();
        let expected = if remembered { (2, 1) } else { (3, 0) };
        assert_eq!((stats.misses, stats.errors_remembered), expected, "remembered: {remembered}");
        assert_eq!((stats.hits, stats.stale, stats.stood_in), (1, 0, 2));
        assert_eq!(stats.hit_rate(), 0.25, "one of four looks");
    }
}

#[tokio::test]
async fn what_cannot_be_stored_is_given_to_who_loaded_it() {
    let (_, cache) = timed(|cache| cache.max_value_size(10));
    let source = Source::slow();
    let load = || {
        let asked = source.clone().ask();
        async move {
            asked.await;
            Ok::<_, String>("x".repeat(20))
        }
    };
    let ask = || cache.get_or_load("a", load);
    let (one, other, ()) = tokio::join!(ask(), ask(), async {
        quiet().await;
        source.answer();
        source.answer();
    });
    assert_eq!((one.unwrap().len(), other.unwrap().len(), source.asked()), (20, 20, 2));
    assert_eq!((cache.stats().declined, cache.stats().entries), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn of_several_instances_one_loads() {
    for tiered in [true, false] {
        let (depot, clock) = (Depot::default(), Arc::<ManualClock>::default());
        let instances: Vec<DataCache> = (0..3)
            .map(|_| match tiered {
                true => CacheLayer::tiered(MemoryStore::new(1 << 20), depot.clone()),
                false => CacheLayer::with_storage(depot.clone()),
            })
            .map(|layer| layer.clock(clock.clone()).data("x"))
            .collect();
        let source = Source::slow();
        let all: Vec<_> = (0..300).map(|n| begin(&instances[n % 3], &source)).collect();
        tokio::time::sleep(Duration::from_millis(20)).await;
        source.answer();
        for one in all {
            assert_eq!(one.await.unwrap(), Ok(1), "tiered: {tiered}");
        }
        assert_eq!(source.asked(), 1, "tiered: {tiered}");
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(depot.leased(), Vec::<Vec<u8>>::new(), "tiered: {tiered}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_is_one_for_all_instances() {
    let (depot, clock) = (Depot::default(), Arc::<ManualClock>::default());
    let instance = || CacheLayer::tiered(MemoryStore::new(1 << 20), depot.clone()).clock(clock.clone());
    let instances = [(); 3].map(|()| instance().data("x").ttl(secs(10)).stale_while_revalidate(secs(50)));
    let source = Source::slow();
    source.answer();
    for instance in &instances {
        assert_eq!(instance.get_or_load("a", || source.clone().number()).await, Ok(1));
        quiet().await;
    }
    clock.advance(secs(12));
    for instance in &instances {
        assert_eq!(instance.get_or_load("a", || source.clone().number()).await, Ok(1));
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    source.answer();
    tokio::time::sleep(Duration::from_millis(500)).await;
    for instance in &instances {
        assert_eq!((instance.get("a").await, source.asked()), (Some(2), 2));
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_another_instance_longer_than_is_set() {
    let depot = Depot::default();
    let layer = CacheLayer::tiered(MemoryStore::new(1 << 20), depot.clone());
    let cache = layer.clock(Arc::<ManualClock>::default()).max_lease_wait(Duration::from_millis(300)).data("x");
    let (first, source) = (Source::quick(), Source::quick());
    assert_eq!(cache.get_or_load("a", || first.number()).await, Ok(1));
    quiet().await;
    depot.lend_to_the_dead(&depot.keys()[0], secs(100));
    cache.delete("a").await;
    let began = tokio::time::Instant::now();
    assert_eq!(cache.get_or_load("a", || source.number()).await, Ok(1));
    let waited = began.elapsed().as_millis();
    assert!((300..400).contains(&waited), "{waited}");
}

#[tokio::test]
async fn no_runtime_is_needed_in_memory() {
    std::thread::spawn(|| {
        let (cache, source) = (DataCache::in_memory(1 << 20), Source::quick());
        let load = cache.get_or_load("a", || source.number());
        assert_eq!(futures_util::FutureExt::now_or_never(load), Some(Ok(1)));
        assert_eq!(cache.get("a").now_or_never(), Some(Some(1)));
        assert_eq!(cache.delete("a").now_or_never(), Some(true));
    })
    .join()
    .unwrap();
}

#[tokio::test]
async fn after_a_shutdown_nothing_is_stored_and_loads_are_made_all_the_same() {
    let (cache, source) = (DataCache::in_memory(1 << 20), Source::quick());
    assert!(cache.handle().shutdown(secs(1)).await);
    for n in 1..3 {
        assert_eq!(cache.get_or_load("a", || source.clone().number()).await, Ok(n));
    }
}
