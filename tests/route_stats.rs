//! Each route counts what it did: outcomes, reasons, bytes, what is stored, why it missed, and how long that took. The totals are the sums.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http_body_util::BodyExt;
use larder::storage::{Eviction, MemoryStore, Query, Storage, StorageUsage, Variants};
use larder::{
    CacheKey, CacheLayer, DeclineReason, ForwardReason, ManualClock, MissCause, Outcome, Policy, RouteStats, Selector,
    StaleReason, StorageError, StoredResponse,
};
use support::exchange::*;

const FRESH: (&str, &str) = ("cache-control", "max-age=60");

fn of(house: &House, pattern: Option<&str>) -> RouteStats {
    let found = house.handle.route_stats().into_iter().find(|route| route.pattern.as_deref() == pattern);
    found.unwrap_or_else(|| panic!("no route {pattern:?}"))
}

fn counts(route: &RouteStats) -> BTreeMap<String, u64> {
    route.outcomes.iter().map(|(outcome, count)| (format!("{outcome:?}"), *count)).collect()
}

fn shop() -> House {
    House::with(Handler::saying(&[FRESH]), |layer| {
        layer.rule("^/a", Policy::from_origin()).rule("^/b", Policy::bypass()).rule("^/a", Policy::bypass())
    })
}

#[tokio::test]
async fn what_a_route_did_is_counted_there_and_nowhere_else() {
    let house = shop();
    for target in ["/a", "/a", "/a", "/b", "/c", "/c"] {
        house.get(target).await;
    }
    let [hit, miss] = ["Hit", "Miss(UriMiss)"].map(str::to_owned);
    assert_eq!(counts(&of(&house, Some("^/a"))), BTreeMap::from([(hit.clone(), 2), (miss.clone(), 1)]));
    assert_eq!(counts(&of(&house, Some("^/b"))), BTreeMap::from([("Bypass(Rule)".to_owned(), 1)]));
    assert_eq!(counts(&of(&house, None)), BTreeMap::from([(hit, 1), (miss, 1)]));
    let patterns: Vec<_> = house.handle.route_stats().into_iter().map(|route| route.pattern).collect();
    assert_eq!(patterns, [Some("^/a".to_owned()), Some("^/b".to_owned()), None], "a pattern that is hidden has no row");
    let stats = house.handle.stats();
    assert_eq!((stats.hits, stats.misses, stats.bypassed, stats.stored), (3, 2, 1, 2));
    assert_eq!(of(&house, Some("^/a")).hit_rate(), 2.0 / 3.0);
}

#[tokio::test]
async fn totals_keep_what_rules_counted_that_are_gone() {
    let house = shop();
    house.get("/a").await;
    house.get("/a").await;
    house.get("/b").await;
    let before = house.handle.stats();
    let otherwise = CacheLayer::in_memory(1 << 20);
    house.handle.reconfigure(&otherwise).unwrap();
    assert_eq!(house.handle.stats(), before);
    assert_eq!(house.handle.route_stats().len(), 1);
    assert_eq!(house.handle.route_stats()[0].requests(), 0);
    house.handle.reconfigure(&otherwise.rule("^/a", Policy::from_origin())).unwrap();
    assert_eq!(of(&house, Some("^/a")).requests(), 2, "known by its pattern");
    house.get("/a").await;
    assert_eq!(of(&house, Some("^/a")).count(|outcome| outcome == Outcome::Hit), 2);
}

#[tokio::test]
async fn bytes_are_those_of_content_from_the_store_and_from_the_handler() {
    let house = House::with(
        Handler::new(|head, _| {
            let fields: &[_] = if head.uri.path() == "/private" { &[("cache-control", "private")] } else { &[FRESH] };
            answer(200, fields, "0123456789")
        }),
        |layer| layer.rule("^/bypass", Policy::bypass()),
    );
    let bytes = |house: &House| (of(house, None).bytes_from_handler, of(house, None).bytes_from_store);
    house.get("/").await;
    assert_eq!(bytes(&house), (10, 0), "stored");
    house.get("/").await;
    assert_eq!(bytes(&house), (10, 10), "a hit");
    house.ask("/", &[("range", "bytes=2-4")]).await;
    assert_eq!(bytes(&house), (10, 13), "a part");
    house.exchange(request("HEAD", "/", &[])).await;
    assert_eq!(bytes(&house), (10, 13), "no content");
    house.get("/private").await;
    assert_eq!(bytes(&house), (20, 13), "declined");
    house.get("/bypass").await;
    house.exchange(request("POST", "/bypass", &[])).await;
    assert_eq!(of(&house, Some("^/bypass")).bytes_from_handler, 20);
    // More than is read ahead.
    let house = House::new(Handler::new(|_, _| answer(200, &[FRESH], vec![b'x'; 100_000])));
    house.get("/").await;
    assert_eq!(bytes(&house), (100_000, 0), "streamed");
}

#[tokio::test]
async fn what_is_stored_counts_until_it_has_left() {
    let house = House::with(Handler::saying(&[FRESH]), |layer| layer.rule("^/a/", Policy::from_origin()));
    let held = |house: &House| {
        let (a, other, all) = (of(house, Some("^/a/")), of(house, None), house.handle.stats().storage);
        assert_eq!((a.entries + other.entries, a.bytes + other.bytes), (all.entries, all.bytes), "the sum");
        (a.entries, other.entries)
    };
    for target in ["/a/1", "/a/2", "/x", "/a/1"] {
        house.get(target).await;
    }
    assert_eq!(held(&house), (2, 1));
    house.advance(61);
    house.get("/a/1").await;
    assert_eq!(held(&house), (2, 1), "replaced");
    house.handle.purge(Selector::Uri("http://example.com/a/1".into())).await.unwrap();
    until(|| house.handle.stats().swept == 1).await;
    assert_eq!((held(&house), of(&house, Some("^/a/")).purged), ((1, 1), 1));
    house.exchange(request("POST", "/a/2", &[])).await;
    assert_eq!((held(&house), of(&house, Some("^/a/")).purged), ((0, 1), 1), "a write is no purge");
    house.get("/a/3").await;
    house.handle.purge(Selector::Everything).await.unwrap();
    assert_eq!((held(&house), of(&house, Some("^/a/")).purged), ((0, 0), 2));
}

#[tokio::test]
async fn what_had_no_room_counts_as_evicted_where_it_was_stored() {
    let layer = CacheLayer::with_memory(MemoryStore::new(1 << 20).max_entries(20)).rule("^/a/", Policy::from_origin());
    let house = House::around(Handler::saying(&[FRESH]), layer);
    for n in 0..200 {
        house.get(&format!("/a/{n}")).await;
    }
    let (route, all) = (of(&house, Some("^/a/")), house.handle.stats().storage);
    assert!(route.evicted > 100, "{route:?}");
    assert_eq!((route.evicted, route.entries, route.bytes), (all.evictions, all.entries, all.bytes));
    assert_eq!((route.expired, of(&house, None).evicted), (0, 0));
}

/// What is asked first, what happens then, and why the same request misses after that.
type Story = (&'static str, MissCause, fn(CacheLayer) -> CacheLayer, &'static [Step]);

enum Step {
    Ask(&'static str, &'static [(&'static str, &'static str)]),
    Wait(u64),
    Write(&'static str),
    Purge(&'static str),
    PurgeAll,
    Crowd,
    Reload(fn(CacheLayer) -> CacheLayer),
}

#[tokio::test]
async fn each_miss_has_its_cause() {
    use Step::*;
    let plain: fn(CacheLayer) -> CacheLayer = |layer| layer;
    let by_field: fn(CacheLayer) -> CacheLayer =
        |layer| layer.otherwise(Policy::from_origin().key_header(http::HeaderName::from_static("x-tenant")));
    let stories: &[Story] = &[
        ("nobody asked", MissCause::FirstSeen, plain, &[]),
        ("its lifetime is over", MissCause::Expired, plain, &[Ask("/", &[]), Wait(61)]),
        ("no room", MissCause::Evicted, |layer| layer, &[Ask("/", &[]), Crowd]),
        ("its URI was purged", MissCause::Purged, plain, &[Ask("/", &[]), Purge("http://example.com/")]),
        ("on every host", MissCause::Purged, plain, &[Ask("/", &[]), Purge("/")]),
        ("all was purged", MissCause::Purged, plain, &[Ask("/", &[]), PurgeAll]),
        ("purged by number", MissCause::Purged, by_field, &[Ask("/", &[]), Purge("http://example.com/")]),
        ("a write", MissCause::Written, plain, &[Ask("/", &[]), Write("/")]),
        ("a write by number", MissCause::Written, by_field, &[Ask("/", &[]), Write("/")]),
        ("another variant", MissCause::Variant, plain, &[Ask("/vary", &[("accept-language", "de")])]),
        ("not stored", MissCause::Declined, plain, &[Ask("/private", &[])]),
        (
            "for others now",
            MissCause::Settings,
            plain,
            &[Ask("/", &[]), Reload(|layer| layer.otherwise(Policy::guarded(MINUTE)))],
        ),
        (
            "not at all now",
            MissCause::Settings,
            plain,
            &[
                Ask("/", &[]),
                Reload(|layer| layer.otherwise(Policy::from_origin().statuses([http::StatusCode::NOT_FOUND]))),
            ],
        ),
    ];
    for (why, cause, setup, steps) in stories {
        let handler = Handler::new(|head, _| match head.uri.path() {
            "/vary" => answer(200, &[FRESH, ("vary", "accept-language")], "a"),
            "/private" => answer(200, &[("cache-control", "private")], "a"),
            _ => answer(200, &[FRESH], "a"),
        });
        // With the other eviction a crowd has no right to the place of what was there first.
        let memory = || MemoryStore::new(1 << 20).max_entries(10).eviction(Eviction::Lru);
        let store = || CacheLayer::with_memory(memory());
        let house = House::around(handler, setup(store()));
        let mut target = "/";
        for step in *steps {
            match step {
                Ask(path, fields) => {
                    target = path;
                    house.ask(path, fields).await;
                }
                Wait(seconds) => house.advance(*seconds),
                Write(path) => drop(house.exchange(request("POST", path, &[])).await),
                Purge(uri) => _ = house.handle.purge(Selector::Uri((*uri).into())).await.unwrap(),
                PurgeAll => _ = house.handle.purge(Selector::Everything).await.unwrap(),
                Crowd => {
                    for n in 0..100 {
                        house.get(&format!("/crowd/{n}")).await;
                    }
                }
                Reload(change) => drop(house.handle.reconfigure(&change(store())).unwrap()),
            }
        }
        let before = of(&house, None);
        let exchange = house.get(target).await;
        assert_eq!(exchange.x_cache, "MISS", "{why}");
        let after = of(&house, None);
        for other in MissCause::ALL {
            let more = after.missed_for(other) - before.missed_for(other);
            assert_eq!(more, u64::from(other == *cause), "{why}: {} instead of {}", other.as_str(), cause.as_str());
        }
    }
}

#[tokio::test]
async fn what_the_client_wants_anew_is_its_own_cause() {
    let house = House::new(Handler::saying(&[FRESH]));
    house.get("/").await;
    house.ask("/", &[("cache-control", "no-cache")]).await;
    assert_eq!(of(&house, None).missed_for(MissCause::Asked), 1);
}

#[tokio::test]
async fn latencies_are_of_the_clock_and_apart_for_hits_and_misses() {
    let clock = Arc::new(ManualClock::default());
    let slow = {
        let clock = clock.clone();
        Handler::new(move |_, n| {
            clock.advance(Duration::from_millis(100 * n as u64));
            answer(200, &[FRESH], "a")
        })
    };
    let house = House::on(clock, slow, CacheLayer::in_memory(1 << 20).rule("^/b", Policy::bypass()));
    for n in 0..9 {
        house.get(&format!("/{n}")).await;
    }
    house.get("/b").await;
    let route = of(&house, None);
    for latency in [route.miss_latency, route.handler_latency] {
        assert_eq!((latency.count, latency.total), (9, Duration::from_millis(4500)));
        assert_eq!(latency.mean, Duration::from_millis(500));
        for (said, exact) in [(latency.p50, 500), (latency.p90, 900), (latency.p99, 900)] {
            let exact = Duration::from_millis(exact);
            assert!(said.abs_diff(exact) <= exact / 16, "{said:?} for {exact:?}");
        }
    }
    assert_eq!(route.hit_latency.count, 0);
    let bypassed = of(&house, Some("^/b"));
    assert_eq!((bypassed.handler_latency.total, bypassed.miss_latency.count), (Duration::from_secs(1), 0));
    for _ in 0..130 {
        house.get("/0").await;
    }
    let route = of(&house, None);
    assert_eq!((route.hit_latency.count, route.hit_latency.total), (3, Duration::ZERO), "one of 64");
}

#[tokio::test]
async fn a_follower_and_who_gets_something_stale_in_its_place_waited_as_well() {
    let clock = Arc::new(ManualClock::default());
    let failing = {
        let clock = clock.clone();
        Handler::new(move |_, n| {
            clock.advance(Duration::from_secs(1));
            answer(if n == 1 { 200 } else { 503 }, &[("cache-control", "max-age=60, stale-if-error=60")], "a")
        })
    };
    let house = House::on(clock, failing, CacheLayer::in_memory(1 << 20));
    house.get("/").await;
    house.advance(61);
    assert_eq!(house.get("/").await.x_cache, "STALE");
    let route = of(&house, None);
    assert_eq!(route.count(|outcome| outcome == Outcome::Stale(StaleReason::IfError)), 1);
    assert_eq!((route.miss_latency.count, route.miss_latency.total), (2, Duration::from_secs(2)));
    assert_eq!(route.hit_latency.count, 0);
}

/// A store that is out of order.
struct Broken;

impl Storage for Broken {
    async fn get(&self, _: Query<'_>) -> Result<Variants, StorageError> {
        Err(StorageError::new("out of order"))
    }
    async fn put(&self, _: &CacheKey, _: Arc<StoredResponse>, _: usize) -> Result<(), StorageError> {
        Err(StorageError::new("out of order"))
    }
    async fn remove(&self, _: &CacheKey) -> Result<bool, StorageError> {
        Err(StorageError::new("out of order"))
    }
    async fn clear(&self) -> Result<(), StorageError> {
        Err(StorageError::new("out of order"))
    }
    fn usage(&self) -> StorageUsage {
        StorageUsage::default()
    }
}

#[tokio::test]
async fn a_store_that_fails_is_counted_where_it_was_asked() {
    let house =
        House::around(Handler::saying(&[FRESH]), CacheLayer::with_storage(Broken).rule("^/a", Policy::from_origin()));
    house.get("/a").await;
    house.get("/x").await;
    quiet().await;
    let [a, other] = [of(&house, Some("^/a")), of(&house, None)].map(|route| route.store_errors);
    assert_eq!((a, other, house.handle.stats().store_errors), (2, 2, 4), "each a look and a write");
}

#[tokio::test]
async fn declined_answers_are_counted_by_reason() {
    let house = House::new(Handler::saying(&[("cache-control", "no-store")]));
    house.get("/").await;
    let response = tower::ServiceExt::oneshot(house.service.clone(), get("/")).await.unwrap();
    response.into_body().collect().await.unwrap();
    let route = of(&house, None);
    assert_eq!(route.declined, [(DeclineReason::NoStore, 2)]);
    assert_eq!(route.missed_for(MissCause::Declined), 1);
    assert_eq!(route.count(|outcome| outcome == Outcome::Miss(ForwardReason::UriMiss)), 2);
}

/// Keeps what it is given, and forgets nothing, whatever it is told.
#[derive(Default)]
struct Hoard(std::sync::Mutex<std::collections::HashMap<Vec<u8>, Variants>>);

impl Storage for Hoard {
    async fn get(&self, query: Query<'_>) -> Result<Variants, StorageError> {
        Ok(self.0.lock().expect("no holder panics").get(query.key.as_bytes()).cloned().unwrap_or_default())
    }
    async fn put(&self, key: &CacheKey, response: Arc<StoredResponse>, _: usize) -> Result<(), StorageError> {
        self.0.lock().expect("no holder panics").insert(key.as_bytes().to_vec(), Variants::from_elem(response, 1));
        Ok(())
    }
    async fn remove(&self, _: &CacheKey) -> Result<bool, StorageError> {
        Ok(true)
    }
    async fn clear(&self) -> Result<(), StorageError> {
        Ok(())
    }
    fn usage(&self) -> StorageUsage {
        StorageUsage::default()
    }
}

#[tokio::test]
async fn causes_and_latencies_are_told_of_another_store_as_well() {
    type Act = fn(&House) -> BoxFuture<'_, ()>;
    let rows: [(MissCause, Act); 3] = [
        (MissCause::Purged, |house| async { _ = house.handle.purge(Selector::Everything).await.unwrap() }.boxed()),
        (MissCause::Purged, |house| async { _ = house.handle.purge(Selector::Uri("/".into())).await.unwrap() }.boxed()),
        (MissCause::Written, |house| house.exchange(request("POST", "/", &[])).map(drop).boxed()),
    ];
    for (cause, act) in rows {
        let house = House::around(Handler::saying(&[FRESH]), CacheLayer::with_storage(Hoard::default()));
        house.get("/").await;
        quiet().await;
        assert_eq!(house.get("/").await.x_cache, "HIT");
        act(&house).await;
        assert_eq!(house.get("/").await.x_cache, "MISS");
        let route = of(&house, None);
        assert_eq!((route.missed_for(cause), route.missed_for(MissCause::FirstSeen)), (1, 1), "{}", cause.as_str());
        assert_eq!(house.handle.stats().store_latency.count, 3);
    }
}
