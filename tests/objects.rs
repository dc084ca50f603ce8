//! What an `ObjectCache` promises: values of any type as they are, loaded once however many ask, and never given when they were purged or are over.

mod support;

use std::convert::Infallible;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::join_all;
use http::{Request, Response};
use http_body_util::Full;
use larder::{CacheLayer, ManualClock, ObjectCache, Policy, Selector, UsedTags};
use support::bodies::settle;
use support::exchange::*;
use support::log::Log;
use support::shared_log::{Line, Server};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

const MINUTE: Duration = Duration::from_secs(60);

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// No serialiser would take it, and it isn't `Clone`.
#[derive(Debug, PartialEq)]
struct Value(u64, Option<std::time::Instant>);

fn value(n: u64) -> Value {
    Value(n, None)
}

type Values = ObjectCache<u32, Value>;

#[derive(Debug, PartialEq)]
struct Broken(&'static str);

/// A cache of its own on a clock that the test moves.
fn alone() -> (Values, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::default());
    (ObjectCache::with_clock("values", 1000, clock.clone()), clock)
}

/// Counts how often it is asked, and answers with the number of the call.
#[derive(Clone, Default)]
struct Source(Arc<AtomicU64>);

impl Source {
    fn calls(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn ask(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    async fn load(&self, values: &Values, key: u32) -> u64 {
        let source = self.clone();
        let loaded = values.get_or_load(&key, move || async move { Ok::<_, Broken>(value(source.ask())) }).await;
        loaded.expect("a value").0
    }
}

/// A load that ends when the gate gives leave.
fn gated(
    values: &Values,
    source: &Source,
    gate: &Arc<Semaphore>,
    answer: fn(u64) -> Result<Value, Broken>,
) -> JoinHandle<Result<u64, Arc<Broken>>> {
    let (values, source, gate) = (values.clone(), source.clone(), gate.clone());
    tokio::spawn(async move {
        let load = move || async move {
            let n = source.ask();
            gate.acquire().await.expect("never closed").forget();
            answer(n)
        };
        values.entry(1).tag("all").get_or_load(load).await.map(|value| value.0)
    })
}

async fn ended<T: Debug>(task: JoinHandle<T>) -> T {
    task.await.expect("no panic")
}

#[tokio::test]
async fn what_was_put_is_given_as_it_is_until_something_takes_its_place() {
    let (values, _) = alone();
    assert_eq!(values.get(&1), None);
    let put = values.insert(1, value(1));
    let got = values.get(&1).unwrap();
    assert!(Arc::ptr_eq(&put, &got), "nothing is copied");
    let shared = Arc::new(value(2));
    assert!(Arc::ptr_eq(&values.clone().insert(1, shared.clone()), &shared), "clones share what is held");
    assert!(Arc::ptr_eq(&values.get(&1).unwrap(), &shared));
    assert_eq!(values.remove(&1), Some(shared));
    assert_eq!((values.get(&1), values.remove(&1)), (None, None));
    let texts = ObjectCache::<String, u32>::new("texts", 10);
    texts.insert("a".into(), 1);
    assert_eq!(texts.get("a").as_deref(), Some(&1), "keys are looked up as they are borrowed");
}

#[tokio::test]
async fn it_is_given_for_as_long_as_it_may_be() {
    type Setup = fn(Values) -> Values;
    let rows: [(&str, Setup, &[u64], bool); 8] = [
        ("a minute by default", |values| values, &[59], true),
        ("and no longer", |values| values, &[60], false),
        ("what was said", |values| values.ttl(secs(5)), &[5], false),
        ("not at all", |values| values.ttl(Duration::ZERO), &[0], false),
        ("what slides", |values| values.sliding(secs(10)), &[9, 18, 27, 36], true),
        ("what slides and isn't used", |values| values.sliding(secs(10)), &[10], false),
        ("what slides beyond its time", |values| values.sliding(secs(20)), &[19, 38, 57, 60], false),
        ("a stale window needs a loader", |values| values.stale_while_revalidate(MINUTE), &[60], false),
    ];
    for (row, setup, looks, expected) in rows {
        let (values, clock) = alone();
        let values = setup(values);
        values.insert(1, value(1));
        let (mut now, mut found) = (0, false);
        for look in looks {
            clock.advance(secs(look - now));
            (now, found) = (*look, values.get(&1).is_some());
        }
        assert_eq!(found, expected, "{row}");
    }
}

#[tokio::test]
async fn there_are_no_more_than_there_may_be() {
    let (values, _) = alone();
    let values = values.capacity(10);
    (0..1000).for_each(|n| drop(values.insert(n, value(1))));
    assert!(values.stats().entries <= 10);
    let heavy = values.weigher(100, |_, value| value.0 as u32);
    (0..1000).for_each(|n| drop(heavy.insert(n, value(30))));
    let stats = heavy.stats();
    assert!((1..=3).contains(&stats.entries) && stats.weight == stats.entries * 30, "{stats:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_thousand_who_ask_at_once_are_one_load() {
    let values = ObjectCache::new("values", 1000);
    let (source, gate) = (Source::default(), Arc::new(Semaphore::new(0)));
    let all: Vec<_> = (0..10_000).map(|_| gated(&values, &source, &gate, |n| Ok(value(n)))).collect();
    while values.stats().collapsed < 9_999 {
        tokio::task::yield_now().await;
    }
    gate.add_permits(10_000);
    for one in all {
        assert_eq!(ended(one).await, Ok(1));
    }
    assert_eq!(source.calls(), 1);
    let stats = values.stats();
    assert_eq!((stats.loads, stats.collapsed, stats.misses, stats.hits), (1, 9_999, 10_000, 0));
    assert_eq!(source.load(&values, 1).await, 1, "it is kept");
    assert_eq!((source.load(&values, 2).await, values.stats().loads), (2, 2), "another key is another load");
}

#[tokio::test]
async fn an_error_is_shared_by_those_who_wait_and_kept_only_where_a_time_is_given() {
    let (values, clock) = alone();
    let (source, gate) = (Source::default(), Arc::new(Semaphore::new(0)));
    let all: Vec<_> = (0..10).map(|_| gated(&values, &source, &gate, |_| Err(Broken("down")))).collect();
    settle().await;
    gate.add_permits(100);
    let mut errors = Vec::new();
    for one in all {
        errors.push(ended(one).await.unwrap_err());
    }
    assert!(errors.iter().all(|error| Arc::ptr_eq(error, &errors[0])) && *errors[0] == Broken("down"));
    assert_eq!((source.calls(), values.stats().failures), (1, 1));
    ended(gated(&values, &source, &gate, |_| Err(Broken("down")))).await.unwrap_err();
    assert_eq!(source.calls(), 2, "an error isn't kept");

    let kept = values.error_ttl(secs(5));
    for (second, calls) in [(0, 3), (4, 3), (5, 4)] {
        clock.advance(secs(second).saturating_sub(secs(if second == 5 { 4 } else { 0 })));
        assert_eq!(*ended(gated(&kept, &source, &gate, |_| Err(Broken("still")))).await.unwrap_err(), Broken("still"));
        assert_eq!(source.calls(), calls, "after {second} seconds");
    }
    assert_eq!(kept.get(&1), None, "an error is no value");
    let other = kept.get_or_load(&1, || async { Err::<Value, u8>(7) }).await;
    assert_eq!(*other.unwrap_err(), 7, "a loader with another error is called");
    kept.insert(1, value(1));
    assert_eq!(source.load(&kept, 1).await, 1, "a value takes its place");
}

#[tokio::test]
async fn those_who_wait_with_another_type_of_error_load_for_themselves() {
    let (values, _) = alone();
    let (source, gate) = (Source::default(), Arc::new(Semaphore::new(0)));
    let leads = gated(&values, &source, &gate, |_| Err(Broken("down")));
    settle().await;
    let other = values.clone();
    let waits = tokio::spawn(async move { other.get_or_load(&1, || async { Err::<Value, u8>(7) }).await });
    settle().await;
    assert_eq!(values.stats().collapsed, 1);
    gate.add_permits(1);
    assert_eq!(ended(leads).await.unwrap_err(), Arc::new(Broken("down")));
    assert_eq!(ended(waits).await.unwrap_err(), Arc::new(7));
}

#[tokio::test]
async fn that_there_is_none_is_kept_where_a_time_is_given() {
    let (values, clock) = alone();
    let source = Source::default();
    let look = async |values: &Values| {
        let source = source.clone();
        let load = move || async move {
            source.ask();
            Ok::<_, Broken>(None)
        };
        assert_eq!(values.entry(1).tag("none").get_or_load_option(load).await, Ok(None));
    };
    look(&values).await;
    look(&values).await;
    assert_eq!(source.calls(), 2, "by default it isn't");
    let values = values.none_ttl(secs(5));
    look(&values).await;
    look(&values).await;
    assert_eq!(source.calls(), 3);
    assert_eq!(values.get(&1), None);
    clock.advance(secs(5));
    look(&values).await;
    assert_eq!(source.calls(), 4);
    values.purge(Selector::Tag("none".into())).await.unwrap();
    look(&values).await;
    assert_eq!(source.calls(), 5, "it is purged as values are");
    assert_eq!(source.load(&values, 1).await, 6, "who must have one loads it");
    assert_eq!(values.get(&1).unwrap().0, 6);
}

#[tokio::test]
async fn what_is_stale_is_given_at_once_and_loaded_behind_by_one() {
    let (values, clock) = alone();
    let values = values.stale_while_revalidate(secs(30));
    let (source, gate) = (Source::default(), Arc::new(Semaphore::new(1)));
    assert_eq!(ended(gated(&values, &source, &gate, |n| Ok(value(n)))).await, Ok(1));
    clock.advance(MINUTE);
    for _ in 0..5 {
        let stale = gated(&values, &source, &gate, |n| Ok(value(n)));
        settle().await;
        assert_eq!(ended(stale).await, Ok(1), "nobody waits");
    }
    assert_eq!((source.calls(), values.stats().stale), (2, 5));
    gate.add_permits(1);
    settle().await;
    assert_eq!(values.get(&1).unwrap().0, 2);
    clock.advance(secs(90));
    gate.add_permits(1);
    assert_eq!(
        ended(gated(&values, &source, &gate, |n| Ok(value(n)))).await,
        Ok(3),
        "after the window it is waited for"
    );
}

#[tokio::test]
async fn what_is_stale_stands_in_for_an_error() {
    let (values, clock) = alone();
    let values = values.stale_if_error(secs(30));
    let (source, gate) = (Source::default(), Arc::new(Semaphore::new(100)));
    let failing = async |values: &Values| ended(gated(values, &source, &gate, |_| Err(Broken("down")))).await;
    values.insert(1, value(7));
    clock.advance(MINUTE);
    assert_eq!((failing(&values).await, failing(&values).await), (Ok(7), Ok(7)));
    assert_eq!((source.calls(), values.stats().stood_in), (2, 2), "the loader is asked each time");
    let resting = values.clone().error_ttl(secs(10));
    assert_eq!((failing(&resting).await, failing(&resting).await), (Ok(7), Ok(7)));
    assert_eq!(source.calls(), 3, "unless it may rest");
    clock.advance(secs(10));
    assert_eq!(failing(&values).await, Ok(7));
    assert_eq!(source.calls(), 4);
    assert_eq!(values.get(&1), None, "it isn't fresh");
    clock.advance(secs(20));
    assert!(failing(&values).await.is_err(), "after the window");
    let (values, clock) = alone();
    let values = values.stale_if_error(secs(30));
    values.entry(1).tag("a").insert(value(7));
    clock.advance(MINUTE);
    values.purge(Selector::Tag("a".into())).await.unwrap();
    assert!(failing(&values).await.is_err(), "what was purged stands in for nothing");
}

#[tokio::test]
async fn a_purge_drops_what_it_means_and_nothing_else() {
    let tag = |name: &str| Selector::Tag(name.into());
    let glob = |text: &str| Selector::Glob(text.into());
    // (selector, what is left of: values 1 with `product:1`, values 2 with `user`, others 1)
    let rows = [
        (tag("product:1"), [false, true, true]),
        (tag("product"), [false, true, true]),
        (tag("product:1:x"), [true, true, true]),
        (tag("user"), [true, false, true]),
        (tag("everywhere"), [false, false, true]),
        (glob("values:*"), [false, false, true]),
        (glob("values:1"), [false, false, true]),
        (glob("value:*"), [true, true, true]),
        (glob("/*"), [true, true, true]),
        (glob("*"), [false, false, false]),
        (Selector::Uri("/values:1".into()), [true, true, true]),
        (Selector::Regex("^/x".into()), [false, false, false]),
        (Selector::Everything, [false, false, false]),
    ];
    for (selector, expected) in rows {
        for soft in [false, true] {
            let cache = CacheLayer::in_memory(1 << 20);
            let values: Values = cache.objects("values").tag("everywhere");
            let others: Values = cache.handle().objects("others");
            values.entry(1).tags(["product:1", "x"]).insert(value(1));
            values.entry(2).tag("user").insert(value(1));
            others.insert(1, value(1));
            let purge = cache.handle().purge(selector.clone());
            if soft { purge.soft().await } else { purge.await }.unwrap();
            let left = [values.get(&1), values.get(&2), others.get(&1)].map(|value| value.is_some());
            assert_eq!(left, expected, "{selector}, soft: {soft}");
            values.insert(1, value(2));
            assert!(values.get(&1).is_some(), "{selector}: what came since is good");
        }
    }
}

#[tokio::test]
async fn after_a_soft_purge_it_may_still_be_given_as_stale() {
    let (values, clock) = alone();
    let values = values.stale_while_revalidate(secs(30)).tag("a");
    let source = Source::default();
    assert_eq!(source.load(&values, 1).await, 1);
    values.purge(Selector::Tag("a".into())).soft().await.unwrap();
    assert_eq!(values.get(&1), None);
    assert_eq!(source.load(&values, 1).await, 1, "stale");
    settle().await;
    assert_eq!(values.get(&1).unwrap().0, 2, "loaded behind");
    values.purge(Selector::Everything).soft().await.unwrap();
    clock.advance(secs(30));
    assert_eq!(source.load(&values, 1).await, 3, "after the window it is waited for");
}

#[tokio::test]
async fn what_was_loaded_before_a_purge_is_never_given_after_it() {
    let purges = [
        (Selector::Tag("all".into()), true),
        (Selector::Everything, true),
        (Selector::Glob("values:*".into()), true),
        (Selector::Tag("another".into()), false),
    ];
    for (selector, is_touched) in purges {
        let (values, _) = alone();
        let (source, gate) = (Source::default(), Arc::new(Semaphore::new(0)));
        let before = gated(&values, &source, &gate, |n| Ok(value(n)));
        settle().await;
        let waits = gated(&values, &source, &gate, |n| Ok(value(n)));
        settle().await;
        values.purge(selector.clone()).await.unwrap();
        let after = gated(&values, &source, &gate, |n| Ok(value(n)));
        settle().await;
        assert_eq!(source.calls(), 2, "{selector}: nobody joins a load that may be older than a purge");
        gate.add_permits(1);
        assert_eq!(ended(before).await, Ok(1), "who loaded it has it");
        settle().await;
        assert_eq!(values.get(&1).map(|value| value.0), (!is_touched).then_some(1), "{selector}");
        gate.add_permits(2);
        assert_eq!(ended(after).await, Ok(2));
        assert_eq!(ended(waits).await, Ok(if is_touched { 2 } else { 1 }), "{selector}");
        assert_eq!((source.calls(), values.get(&1).unwrap().0), (2, 2), "{selector}");
        assert_eq!(values.stats().declined, u64::from(is_touched), "{selector}");
    }
}

#[tokio::test]
async fn a_write_wins_over_a_load_that_began_before_it() {
    type Write = fn(&Values);
    let rows: [(Write, Option<u64>); 2] =
        [(|values| drop(values.insert(1, value(100))), Some(100)), (|values| drop(values.remove(&1)), None)];
    for (row, (write, expected)) in rows.into_iter().enumerate() {
        let (values, _) = alone();
        let (source, gate) = (Source::default(), Arc::new(Semaphore::new(0)));
        let load = gated(&values, &source, &gate, |n| Ok(value(n)));
        settle().await;
        write(&values);
        gate.add_permits(1);
        assert_eq!(ended(load).await, Ok(1));
        assert_eq!(values.get(&1).map(|value| value.0), expected, "row {row}");
    }
}

#[tokio::test]
async fn a_load_outlives_who_called_it() {
    let (values, _) = alone();
    let (source, gate) = (Source::default(), Arc::new(Semaphore::new(0)));
    let leads = gated(&values, &source, &gate, |n| Ok(value(n)));
    settle().await;
    let waits = gated(&values, &source, &gate, |n| Ok(value(n)));
    settle().await;
    leads.abort();
    settle().await;
    gate.add_permits(1);
    assert_eq!(ended(waits).await, Ok(1));
    assert_eq!((source.calls(), values.get(&1).unwrap().0), (1, 1));
}

#[tokio::test]
async fn when_a_loader_panics_another_one_is_called() {
    let (values, _) = alone();
    let (source, gate) = (Source::default(), Arc::new(Semaphore::new(0)));
    let panics = gated(&values, &source, &gate, |_| panic!("this is a test"));
    settle().await;
    let waits: Vec<_> = (0..10).map(|_| gated(&values, &source, &gate, |n| Ok(value(n)))).collect();
    settle().await;
    gate.add_permits(100);
    assert!(panics.await.unwrap_err().is_panic());
    for got in join_all(waits).await {
        assert_eq!(got.unwrap(), Ok(2));
    }
    assert_eq!(source.calls(), 2);
}

#[tokio::test]
async fn what_nobody_wants_kept_is_given_and_not_kept() {
    let (values, _) = alone();
    for (n, kept) in [(1, false), (2, true)] {
        let load = move || async move { Ok::<_, Broken>(value(n)) };
        let got = values.entry(1).keep_if(|value| value.0 > 1).get_or_load(load).await.unwrap();
        assert_eq!((got.0, values.get(&1).is_some()), (n, kept));
    }
}

/// One step: the page and what it was made from.
#[tokio::test]
async fn a_purge_drops_pages_and_objects_together() {
    let cache = CacheLayer::in_memory(1 << 20);
    let values: Values = cache.objects("values").tag("products");
    let handler =
        Handler::new(|_, n| answer(200, &[("cache-control", "max-age=60"), ("cache-tag", "products")], format!("{n}")));
    let service = tower::Layer::layer(&cache, handler);
    let page =
        async || Exchange::read(tower::ServiceExt::oneshot(service.clone(), get("/")).await.unwrap()).await.unwrap();
    assert_eq!((page().await.x_cache, page().await.x_cache), ("MISS".into(), "HIT".into()));
    values.insert(1, value(1));
    cache.handle().purge(Selector::Tag("products".into())).await.unwrap();
    assert_eq!((page().await.x_cache.as_str(), values.get(&1)), ("MISS", None));
    values.insert(1, value(1));
    values.purge(Selector::Everything).await.unwrap();
    assert_eq!((page().await.x_cache.as_str(), values.get(&1)), ("MISS", None));
}

/// Without a word in the handler: what it found in the cache, and what a loader used.
#[tokio::test]
async fn a_page_bears_the_tags_of_the_objects_that_it_is_made_from() {
    let rows = [
        (["/held", "/held"], "held", true),
        (["/loaded", "/loaded"], "entry", true),
        (["/loaded", "/loaded"], "below", true),
        // A hit brings what the load used.
        (["/loaded", "/again"], "below", true),
        (["/loaded", "/again"], "early", true),
        (["/held", "/held"], "entry", false),
        (["/none", "/none"], "held", false),
    ];
    for ([first, page], tag, drops) in rows {
        let cache = CacheLayer::in_memory(1 << 20).otherwise(Policy::shared(MINUTE));
        let values: Values = cache.objects("values");
        values.entry(1).tag("held").insert(value(1));
        let made_from = values.clone();
        let handler = tower::service_fn(move |request: Request<Full<Bytes>>| {
            let values = made_from.clone();
            async move {
                let load = || {
                    UsedTags::current().add("early");
                    async {
                        UsedTags::current().add("below");
                        Ok::<_, Broken>(value(2))
                    }
                };
                match request.uri().path() {
                    "/held" => drop(values.get(&1)),
                    "/none" => drop(values.get(&7)),
                    _ => drop(values.entry(2).tag("entry").get_or_load(load).await.unwrap()),
                }
                Ok::<_, Infallible>(Response::new(Full::from("made")))
            }
        });
        let service = tower::Layer::layer(&cache, handler);
        let says = async |path| {
            let response = tower::ServiceExt::oneshot(service.clone(), get(path)).await.unwrap();
            Exchange::read(response).await.unwrap().x_cache
        };
        says(first).await;
        says(page).await;
        assert_eq!(says(page).await, "HIT", "{page}");
        cache.handle().purge(Selector::Tag(tag.into())).await.unwrap();
        assert_eq!(says(page).await, if drops { "MISS" } else { "HIT" }, "{page} after a purge of {tag}");
    }
}

#[tokio::test]
async fn the_sweep_gives_the_memory_of_what_was_purged_back_and_keeps_the_rest() {
    let cache = CacheLayer::in_memory(1 << 20);
    let values: Values = cache.objects("values");
    let gone = Arc::new(value(1));
    for n in 0..500 {
        values.entry(n).tag(if n % 2 == 0 { "even" } else { "odd" }).insert(gone.clone());
    }
    let receipt = cache.handle().purge(Selector::Tag("even".into())).await.unwrap();
    while cache.handle().stats().purges_remembered > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!((receipt.number, values.stats().entries, cache.handle().stats().swept), (1, 250, 250));
    while Arc::strong_count(&gone) > 251 {
        // moka frees what others may still look at a little later.
        values.stats();
        tokio::task::yield_now().await;
    }
    assert!(
        (0..500).all(|n| values.get(&n).is_some() == (n % 2 == 1)),
        "what was held against the purge is good though that is forgotten"
    );
}

/// A load that began before a purge is older than it, however long it takes: the purge is remembered for so long.
#[tokio::test(start_paused = true)]
async fn a_purge_is_remembered_for_the_loads_that_are_older() {
    let (values, _) = alone();
    let (source, gate) = (Source::default(), Arc::new(Semaphore::new(0)));
    let load = gated(&values, &source, &gate, |n| Ok(value(n)));
    settle().await;
    values.purge(Selector::Tag("all".into())).await.unwrap();
    tokio::time::sleep(secs(30)).await;
    gate.add_permits(1);
    ended(load).await.unwrap();
    assert_eq!(values.get(&1), None);
}

#[tokio::test(start_paused = true)]
async fn purges_of_other_instances_are_heard_and_without_them_nothing_is_given() {
    let (server, handler) = (Server::default(), Handler::new(|_, n| answer(200, &[], format!("{n}"))));
    let [one, other] = [server.plain(&handler), server.plain(&handler)];
    for instance in [&one, &other] {
        instance.says("/").await;
    }
    let values: Values = other.handle.objects("values").ttl(secs(3600));
    values.entry(1).tag("a").insert(value(1));
    values.entry(2).tag("b").insert(value(2));
    assert!(values.get(&1).is_some());
    one.handle.purge(Selector::Tag("a".into())).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!((values.get(&1).is_some(), values.get(&2).is_some()), (false, true));
    other.set_line(Line::Silent);
    tokio::time::sleep(secs(2)).await;
    assert_eq!(values.get(&2), None, "nobody knows whether it was purged");
    other.handle.serve_near_for(secs(60));
    assert!(values.get(&2).is_some(), "an operator prefers that");
}

/// Loaded before that, it would count as purged.
#[tokio::test(start_paused = true)]
async fn the_first_load_waits_until_the_log_was_heard_and_not_for_long() {
    let (server, handler) = (Server::default(), Handler::new(|_, n| answer(200, &[], format!("{n}"))));
    for (line, is_kept, patience) in [(Line::Open, true, 0), (Line::Silent, false, 50)] {
        let instance = server.plain(&handler);
        instance.set_line(line);
        let (values, source): (Values, _) = (instance.handle.objects("values"), Source::default());
        let began = tokio::time::Instant::now();
        assert_eq!(source.load(&values, 1).await, 1);
        assert_eq!(began.elapsed().as_millis(), patience, "{line:?}");
        assert_eq!(source.load(&values, 1).await, if is_kept { 1 } else { 2 }, "{line:?}");
    }
}

#[test]
fn a_layer_that_is_set_up_further_says_what_it_leaves_behind() {
    let log = Log::new();
    let layer = CacheLayer::in_memory(1 << 20);
    let layer = layer.rule("^/a", Policy::bypass());
    assert!(log.lines("made a cache without them").is_empty(), "nothing is left");
    let values: Values = layer.objects("values");
    #[cfg(feature = "data")]
    drop(layer.data("products"));
    let layer = layer.rule("^/b", Policy::bypass());
    let lines = log.lines("made a cache without them");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("WARN") && lines[0].contains("values"), "{lines:?}");
    #[cfg(feature = "data")]
    assert!(lines[0].contains("products"), "{lines:?}");
    drop((values, layer));
}

#[test]
fn names_are_short_and_plain() {
    for (name, is_good) in
        [("sessions", true), ("a-b_9", true), ("", false), ("A", false), ("a:b", false), ("ü", false)]
    {
        let made = std::panic::catch_unwind(|| ObjectCache::<u8, u8>::new(name, 1));
        assert_eq!(made.is_ok(), is_good, "{name:?}");
    }
    assert!(std::panic::catch_unwind(|| ObjectCache::<u8, u8>::new(&"a".repeat(65), 1)).is_err());
}

#[test]
fn without_a_runtime_there_is_all_but_work_behind() {
    let (values, _) = alone();
    values.insert(1, value(1));
    assert!(values.get(&1).is_some());
    let loaded = values.get_or_load(&2, || async { Ok::<_, Broken>(value(2)) }).now_or_never().unwrap();
    assert_eq!(loaded.unwrap().0, 2);
    assert!(values.purge(Selector::Everything).into_future_now());
    assert_eq!((values.get(&1), values.get(&2)), (None, None));
}

trait Now {
    fn into_future_now(self) -> bool;
}

impl Now for larder::Purge {
    fn into_future_now(self) -> bool {
        std::future::IntoFuture::into_future(self).now_or_never().is_some_and(|purged| purged.is_ok())
    }
}

/// Many threads load, look, write and purge; whoever looks after a purge has nothing that was true only before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_comes_back_behind_a_purge() {
    let cache = CacheLayer::in_memory(1 << 20);
    let values: Values = cache.objects("values").ttl(secs(3600));
    const PURGES: u64 = 3000;
    static KNOWN: AtomicU64 = AtomicU64::new(0);
    let truth = Arc::new(AtomicU64::new(0));
    let (looks, loads) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let purger = {
        let (cache, values, truth) = (cache.handle(), values.clone(), truth.clone());
        async move {
            for n in 1..=PURGES {
                truth.fetch_add(1, Ordering::SeqCst);
                match n % 4 {
                    0 => drop(cache.purge(Selector::Tag("t".into())).await.unwrap()),
                    1 => drop(cache.purge(Selector::Glob("values:*".into())).await.unwrap()),
                    2 => (0..4).for_each(|key| drop(values.remove(&key))),
                    _ => drop(cache.purge(Selector::Everything).await.unwrap()),
                }
                // From here on it is known to all.
                KNOWN.store(truth.load(Ordering::SeqCst), Ordering::SeqCst);
                tokio::task::yield_now().await;
            }
        }
    };
    let readers = (0..6).map(|reader| {
        let (values, truth, looks, loads) = (values.clone(), truth.clone(), looks.clone(), loads.clone());
        tokio::spawn(async move {
            let mut n = 0;
            while KNOWN.load(Ordering::SeqCst) < PURGES {
                n += 1;
                let key = (n + reader) % 4;
                let known = KNOWN.load(Ordering::SeqCst);
                let (truth, loads) = (truth.clone(), loads.clone());
                let load = move || async move {
                    loads.fetch_add(1, Ordering::Relaxed);
                    let now = truth.load(Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    Ok::<_, Broken>(value(now))
                };
                let got = match n % 3 {
                    0 => values.get(&key),
                    _ => Some(values.entry(key).tag("t").get_or_load(load).await.unwrap()),
                };
                looks.fetch_add(1, Ordering::Relaxed);
                assert!(got.as_ref().is_none_or(|got| got.0 >= known), "{got:?} though {known} was known");
                if n % 8 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        })
    });
    let readers: Vec<_> = readers.collect();
    tokio::spawn(purger).await.unwrap();
    for reader in readers {
        reader.await.unwrap();
    }
    let (loads, looks) = (loads.load(Ordering::Relaxed), looks.load(Ordering::Relaxed));
    assert!(loads > 500 && looks > 2 * loads, "{loads} loads and {looks} looks");
}
