//! What a data cache does with values: it keeps them on the terms that were said, finds them again, and never gives what it can't read.

mod support;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use larder::data::{Json, MessagePack, Place, Serializer, Value, ValueState};
use larder::storage::MemoryStore;
use larder::{CacheLayer, Compression, DataCache, DataError, ManualClock, Selector};
use serde::{Deserialize, Serialize};
use support::depot::Depot;
use support::exchange::{Handler, House, answer, quiet, request};
use support::traces::{Traces, listen};

type Failed = Box<dyn std::error::Error + Send + Sync>;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Product {
    id: u64,
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    price: Option<f64>,
    tags: Vec<String>,
}

fn jar() -> Product {
    Product { id: 17, name: "jar".into(), price: Some(2.5), tags: vec!["glass".into(), "ü".into()] }
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A layer in memory by a clock that stands still.
fn timed() -> (Arc<ManualClock>, CacheLayer) {
    let clock = Arc::<ManualClock>::default();
    (clock.clone(), CacheLayer::in_memory(4 << 20).clock(clock))
}

/// A cache in memory, over a store alone, and over both.
fn everywhere() -> [(&'static str, DataCache); 3] {
    let near = || MemoryStore::new(4 << 20);
    [
        ("memory", DataCache::in_memory(4 << 20)),
        ("far", DataCache::with_storage(Depot::default())),
        ("tiered", DataCache::tiered(near(), Depot::default())),
    ]
}

#[tokio::test]
async fn what_is_set_is_got_until_it_is_deleted() {
    for (store, products) in everywhere() {
        assert_eq!(products.get::<Product>("17").await, None, "{store}");
        products.set("17", &jar()).await.unwrap();
        assert_eq!(products.get("17").await, Some(jar()), "{store}");
        assert!(products.exists("17").await && !products.exists("18").await, "{store}");
        let other = Product { id: 18, ..jar() };
        products.set("17", &other).await.unwrap();
        assert_eq!(products.get("17").await, Some(other), "{store}");
        assert!(products.delete("17").await && !products.delete("17").await, "{store}");
        assert_eq!(products.get::<Product>("17").await, None, "{store}");
        let stats = products.stats();
        assert_eq!((stats.hits, stats.misses, stats.written, stats.deleted), (3, 3, 2, 2), "{store}");
        assert_eq!((stats.entries, stats.bytes), (0, 0), "{store}");
    }
}

#[tokio::test]
async fn what_has_no_size_and_what_borrows_can_be_set() {
    let texts = DataCache::in_memory(1 << 20);
    texts.set("a", "text").await.unwrap();
    texts.set("b", &["x", "y"][..]).await.unwrap();
    assert_eq!(texts.get::<String>("a").await.as_deref(), Some("text"));
    assert_eq!(texts.get::<Vec<String>>("b").await, Some(vec!["x".into(), "y".into()]));
}

#[tokio::test]
async fn values_end_when_it_was_said() {
    type Words = fn(DataCache) -> DataCache;
    /// When it is asked for, in seconds from when it was set, and whether it is there.
    type Row = (&'static str, Words, &'static [(u64, bool)]);
    let rows: [Row; 5] = [
        ("a minute, where nothing is said", |cache| cache, &[(59, true), (60, false)]),
        ("the ttl", |cache| cache.ttl(secs(5)), &[(4, true), (5, false)]),
        ("disuse", |cache| cache.sliding(secs(5)), &[(4, true), (8, true), (12, true), (300, false)]),
        ("disuse, or the ttl", |cache| cache.sliding(secs(5)).ttl(secs(9)), &[(4, true), (8, true), (9, false)]),
        ("a window is for those who load", |cache| cache.ttl(secs(5)).stale_while_revalidate(secs(9)), &[(5, false)]),
    ];
    for (name, words, looks) in rows {
        for store in [CacheLayer::in_memory(1 << 20), CacheLayer::with_storage(Depot::default())] {
            let clock = Arc::<ManualClock>::default();
            let cache = words(store.clock(clock.clone()).data("x"));
            cache.set("a", &1).await.unwrap();
            let mut now = 0;
            for (at, expected) in looks {
                clock.advance(secs(at - now));
                now = *at;
                assert_eq!(cache.get::<u8>("a").await.is_some(), *expected, "{name}, after {at}");
            }
        }
    }
}

#[tokio::test]
async fn an_entry_is_heard_before_its_cache() {
    let (clock, layer) = timed();
    let cache = layer.data("x").ttl(secs(100)).sliding(secs(50));
    cache.entry("a").ttl(secs(5)).set(&1).await.unwrap();
    cache.entry("b").sliding(Duration::ZERO).set(&2).await.unwrap();
    cache.set("c", &3).await.unwrap();
    clock.advance(secs(60));
    assert_eq!(cache.get_many::<u8>(["a", "b", "c"]).await, [None, Some(2), None]);
}

/// JSON, but it has a name of its own.
struct Own(&'static str);

impl Serializer for Own {
    fn content_type(&self) -> &str {
        self.0
    }

    fn serialize(&self, value: Value<'_>) -> Result<Vec<u8>, Failed> {
        Ok(serde_json::to_vec_pretty(&value)?)
    }

    fn deserialize(&self, bytes: &[u8], place: Place<'_>) -> Result<(), Failed> {
        place.fill(&mut serde_json::Deserializer::from_slice(bytes))
    }
}

/// It forgets what it was asked for.
struct Idle;

impl Serializer for Idle {
    fn content_type(&self) -> &str {
        "text/idle"
    }

    fn serialize(&self, _: Value<'_>) -> Result<Vec<u8>, Failed> {
        Ok(Vec::new())
    }

    fn deserialize(&self, _: &[u8], _: Place<'_>) -> Result<(), Failed> {
        Ok(())
    }
}

/// The same cache with each of the serialisers.
fn serializers(layer: &CacheLayer) -> [DataCache; 4] {
    let data = || layer.data("x");
    [data(), data().serializer(Json), data().serializer(MessagePack), data().serializer(Own("text/own"))]
}

#[tokio::test]
async fn each_serializer_reads_what_it_wrote_and_nothing_else() {
    for layer in [CacheLayer::in_memory(1 << 20), CacheLayer::with_storage(Depot::default())] {
        let all = serializers(&layer);
        for (written_by, writer) in all.iter().enumerate() {
            writer.set("17", &jar()).await.unwrap();
            for (read_by, reader) in all.iter().enumerate() {
                let same = written_by == read_by || written_by < 2 && read_by < 2;
                let before = reader.stats().mismatched;
                let expected = same.then(jar);
                assert_eq!(reader.get::<Product>("17").await, expected, "{written_by} {read_by}");
                assert_eq!(reader.stats().mismatched - before, u64::from(!same), "{written_by} {read_by}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_of_another_type_is_a_miss_and_counted() {
    let (_, layer) = timed();
    for (n, cache) in serializers(&layer).into_iter().enumerate() {
        let before = cache.stats().mismatched;
        cache.set("17", &jar()).await.unwrap();
        assert_eq!(cache.get::<Vec<u8>>("17").await, None, "{n}");
        assert_eq!(cache.stats().mismatched - before, 1, "{n}");
        let loaded = cache.get_or_load("17", || async { Ok::<_, ()>(vec![1_u8]) }).await;
        assert_eq!(loaded, Ok(vec![1]), "{n}");
        assert_eq!(cache.get::<Vec<u8>>("17").await, Some(vec![1]), "{n}");
    }
    let idle = layer.data("x").serializer(Idle);
    idle.set("17", &jar()).await.unwrap();
    assert_eq!(idle.get::<Product>("17").await, None);
}

#[tokio::test]
async fn a_struct_that_has_changed_since_is_read_right_or_not_at_all() {
    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Before {
        height: u32,
        width: u32,
    }
    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Swapped {
        width: u32,
        height: u32,
    }
    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Grown {
        depth: u32,
        height: u32,
        width: u32,
    }
    let (_, layer) = timed();
    for cache in serializers(&layer) {
        cache.set("box", &Before { height: 1, width: 2 }).await.unwrap();
        assert_eq!(cache.get("box").await, Some(Swapped { width: 2, height: 1 }));
        assert_eq!(cache.get::<Grown>("box").await, None);
    }
}

#[tokio::test]
async fn what_cannot_be_stored_is_an_error_and_changes_nothing() {
    let cache = DataCache::in_memory(1 << 20).max_value_size(10);
    cache.set("a", &1).await.unwrap();
    let no_json = HashMap::from([((1, 2), 3)]);
    assert!(matches!(cache.set("a", &no_json).await, Err(DataError::Serialize { .. })));
    let long = "x".repeat(9);
    let error = cache.set("a", &long).await.unwrap_err();
    assert!(matches!(error, DataError::TooLarge { size: 11, most: 10 }), "{error}");
    assert!(cache.set_many([("a", "y"), ("b", &long)]).await.is_err());
    assert_eq!((cache.get("a").await, cache.get::<String>("b").await), (Some(1), None));
    cache.set("a", "xxxxxxxx").await.unwrap();
}

#[tokio::test]
async fn compressed_values_take_less_and_are_what_they_were() {
    let long = |length: usize| (0..length).map(|n| format!("{} ", n % 100)).collect::<Vec<_>>();
    for compression in [Compression::gzip(), Compression::brotli(), Compression::zstd()] {
        for layer in [CacheLayer::in_memory(64 << 20), CacheLayer::with_storage(Depot::default())] {
            let plain = layer.data("plain");
            let coded = layer.data("coded").serializer(MessagePack).compress(compression);
            for length in [10, 1000, 100_000] {
                plain.set("a", &long(length)).await.unwrap();
                coded.set("a", &long(length)).await.unwrap();
                assert_eq!(coded.get("a").await, Some(long(length)), "{compression:?} {length}");
            }
            // A store that isn't in memory counts for itself.
            let (plain, coded) = (plain.stats().bytes, coded.stats().bytes);
            assert!(coded <= plain / 4, "{compression:?}: {coded} of {plain}");
        }
        let shared = CacheLayer::in_memory(64 << 20).compress(compression);
        shared.data("x").set("a", &long(1000)).await.unwrap();
        assert_eq!(shared.handle().stats().compression.done, 1, "as responses, if nothing is said");
        shared.data("x").compress(Compression::off()).set("a", &long(1000)).await.unwrap();
        assert_eq!(shared.handle().stats().compression.done, 1);
        assert_eq!(shared.data("x").get("a").await, Some(long(1000)));
    }
}

#[tokio::test]
async fn many_are_as_one_after_another() {
    for (store, cache) in everywhere() {
        let all = (0..200).map(|n| (n.to_string(), n));
        cache.set_many(all.chain([("7".into(), 700)])).await.unwrap();
        let got = cache.get_many::<u32>((0..201).rev().map(|n| n.to_string())).await;
        let expected: Vec<_> = (0..201).rev().map(|n| (n < 200).then_some(if n == 7 { 700 } else { n })).collect();
        assert_eq!(got, expected, "{store}");
        assert_eq!(cache.delete_many(["1", "2", "x"]).await, 2, "{store}");
        assert_eq!(cache.get_many::<u32>(["1", "2", "3"]).await, [None, None, Some(3)], "{store}");
        assert_eq!(cache.get_many::<u32>([""; 0]).await, [], "{store}");
        cache.set_many([("", 1); 0]).await.unwrap();
    }
}

#[tokio::test]
async fn caches_of_one_name_are_one_and_of_two_names_are_two() {
    let (_, layer) = timed();
    let (one, same, other) = (layer.data("a"), layer.handle().data("a").ttl(secs(9)), layer.data("a-b"));
    one.set("x", &1).await.unwrap();
    other.set("x", &2).await.unwrap();
    assert_eq!((same.get("x").await, other.get("x").await), (Some(1), Some(2)));
    assert_eq!((same.stats().written, other.stats().written, other.name()), (1, 1, "a-b"));
    assert_eq!(one.stats().hits, 1, "counted together");
}

#[tokio::test]
async fn keys_are_any_bytes() {
    let cache = DataCache::in_memory(1 << 20);
    let long = "x".repeat(100_000);
    let keys: [&[u8]; 9] =
        [b"", b":", b"a", b"a:b", b"\xff", b"\0", "ü".as_bytes(), long.as_bytes(), &long.as_bytes()[1..]];
    for (n, key) in keys.iter().enumerate() {
        cache.set(key, &n).await.unwrap();
    }
    for (n, key) in keys.iter().enumerate() {
        assert_eq!(cache.get(key).await, Some(n), "{:?}", key.escape_ascii().to_string().get(..9));
    }
    assert!(cache.stats().bytes < 20_000, "a long key costs no more than its digest");
}

#[test]
fn a_name_that_is_none_is_refused() {
    for name in ["", "Products", "a b", "a/b", "a:b"] {
        let made = std::panic::catch_unwind(|| drop(CacheLayer::in_memory(1 << 20).data(name)));
        assert!(made.is_err(), "{name:?}");
    }
}

#[tokio::test]
async fn what_purges_pages_purges_values() {
    let selectors = [
        (Selector::Tag("products".into()), [false, false, true]),
        (Selector::Tag("products:17".into()), [false, true, true]),
        (Selector::Tag("catalogue".into()), [false, false, false]),
        (Selector::Glob("p:1*".into()), [false, true, true]),
        (Selector::Glob("*".into()), [false, false, false]),
        (Selector::Regex("^p:".into()), [false, false, true]),
        (Selector::Regex("^/".into()), [true, true, true]),
        (Selector::Uri("/p:17".into()), [true, true, true]),
        (Selector::Everything, [false, false, false]),
    ];
    for (selector, expected) in selectors {
        for (store, alone) in everywhere() {
            let layer = alone.handle();
            let (products, others) = (layer.data("p").tag("catalogue"), layer.data("q").tag("catalogue"));
            products.entry("17").tag("products:17").set(&17).await.unwrap();
            products.entry("20").tag("products:20").tag("x").set(&20).await.unwrap();
            others.set("17", &1).await.unwrap();
            alone.purge(selector.clone()).await.unwrap();
            let there = [
                products.get::<u8>("17").await.is_some(),
                products.get::<u8>("20").await.is_some(),
                others.get::<u8>("17").await.is_some(),
            ];
            assert_eq!(there, expected, "{selector} {store}");
        }
    }
}

#[tokio::test]
async fn no_request_finds_a_value_and_no_write_drops_one() {
    let page = [("cache-control", "max-age=60")];
    let handler = Handler::new(move |_, _| answer(200, &page, "a page"));
    for layer in [CacheLayer::in_memory(1 << 20), CacheLayer::with_storage(Depot::default())] {
        let house = House::around(handler.clone(), layer);
        let data = house.handle.data("products");
        data.set("17", "a secret").await.unwrap();
        let hosts = ["", "products:17"].map(|host| [("host", host)]);
        for (target, host) in
            ["/products:17", "/", "*", "//products:17", "/?products:17"].iter().zip(hosts.iter().cycle())
        {
            let found = house.ask(target, host).await;
            assert_eq!(found.body, "a page", "{target} {host:?}");
            house.exchange(request("POST", target, host)).await;
        }
        assert_eq!(data.get::<String>("17").await.as_deref(), Some("a secret"));
    }
}

#[tokio::test]
async fn what_is_far_is_copied_near_and_what_is_near_is_not_asked_for() {
    let depot = Depot::default();
    let instance = || CacheLayer::tiered(MemoryStore::new(1 << 20), depot.clone()).data("x");
    let (one, other) = (instance(), instance());
    one.set("a", &1).await.unwrap();
    depot.take_journal();
    for _ in 0..3 {
        assert_eq!((one.get("a").await, other.get("a").await), (Some(1), Some(1)));
    }
    assert_eq!(depot.take_journal(), ["get"], "by the other one, once");
    assert_eq!((other.stats().entries, other.handle().stats().tiers.promoted), (1, 1));
    let all = futures_util::future::join_all((0..50).map(|_| absent(&other))).await;
    assert!(all.iter().all(Option::is_none));
    assert_eq!(depot.take_journal(), ["get"], "a herd is one read");
}

async fn absent(cache: &DataCache) -> Option<u8> {
    cache.get("nothing").await
}

#[tokio::test]
async fn a_store_that_fails_costs_misses_and_is_counted() {
    let [far, near] = [(); 2].map(|()| Depot::default());
    for (store, cache, depot, is_near) in [
        ("far", DataCache::with_storage(far.clone()), far, false),
        ("tiered", DataCache::tiered(MemoryStore::new(1 << 20), near.clone()), near, true),
    ] {
        cache.set("a", &1).await.unwrap();
        depot.fail(&["get", "put", "remove"]);
        assert_eq!(cache.get::<u8>("a").await.is_some(), is_near, "{store}");
        cache.set("b", &2).await.unwrap();
        assert_eq!(cache.get::<u8>("b").await.is_some(), is_near, "{store}");
        assert_eq!(cache.get_or_load("c", || async { Ok::<_, ()>(3) }).await, Ok(3), "{store}");
        assert_eq!(cache.delete("a").await, is_near, "{store}");
        depot.fail(&[]);
        assert_eq!(cache.get::<u8>("a").await, None, "{store}: it is there, and deleted all the same");
        assert!(cache.stats().store_errors > 0, "{store}");
    }
}

#[tokio::test]
async fn loads_have_spans_that_say_what_came_of_them() {
    listen();
    let traces = Traces::new();
    let cache = DataCache::in_memory(1 << 20);
    _ = cache.get_or_load("a", || async { Ok::<_, ()>(1) }).await;
    _ = cache.get_or_load("b", || async { Err::<u8, _>(()) }).await;
    _ = cache.entry("c").get_or_load_option(|| async { Ok::<Option<u8>, ()>(None) }).await;
    let said: Vec<_> = traces.spans("load").iter().map(|span| span.fields["outcome"].clone()).collect();
    assert_eq!(said, ["stored", "error", "none"]);
    assert!(traces.spans("load").iter().all(|span| span.fields["cache"] == "default" && span.closed));
}

#[tokio::test]
async fn what_a_look_would_find_is_explained_wherever_it_lies() {
    let clock = Arc::<ManualClock>::default();
    let depot = Depot::default();
    let layer = CacheLayer::tiered(MemoryStore::new(4 << 20), depot.clone()).clock(clock.clone());
    let cache = layer.data("x").ttl(secs(10));
    let state = async |cache: &DataCache, key| cache.explain(key).await.state;
    cache.set("a", &1).await.unwrap();
    quiet().await;
    let near = cache.explain("a").await;
    assert_eq!((near.state, near.in_memory, near.lifetime), (ValueState::Fresh, true, Some(secs(10))));
    let elsewhere = CacheLayer::tiered(MemoryStore::new(4 << 20), depot).clock(clock.clone()).data("x");
    let far = elsewhere.explain("a").await;
    assert_eq!((far.state, far.in_memory), (ValueState::Fresh, false));
    assert_eq!(elsewhere.stats().entries, 0, "nothing was copied by it");
    assert_eq!(state(&layer.data("x").serializer(MessagePack), "a").await, ValueState::Foreign);
    clock.advance(secs(10));
    assert_eq!(state(&cache, "a").await, ValueState::Over);
}
