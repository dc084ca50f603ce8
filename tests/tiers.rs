//! Memory before a far store: what is near is sent without waiting, what is far is copied, and what is invalid is invalid in both.

mod support;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join_all, poll_immediate};
use larder::storage::{Expected, MemoryStore, Query, Storage, Swap, Swapped, Tiered};
use larder::{CacheLayer, Clock, DeclineReason, ManualClock, Policy, RequestHead, Selector, SystemClock};
use support::depot::Depot;
use support::exchange::*;
use support::shelf::make;
use tokio::sync::Semaphore;
use tower::Service;

const FRESH: (&str, &str) = ("cache-control", "max-age=60");

fn near() -> MemoryStore {
    MemoryStore::new(1 << 20)
}

fn tiered(depot: &Depot) -> CacheLayer {
    CacheLayer::tiered(near(), depot.clone())
}

/// Instances over one store, before one handler.
fn instances(depot: &Depot, handler: &Handler, set_up: impl Fn(CacheLayer) -> CacheLayer) -> [House; 2] {
    let clock = Arc::<ManualClock>::default();
    [(), ()].map(|()| House::on(clock.clone(), handler.clone(), set_up(tiered(depot))))
}

fn one(depot: &Depot, handler: Handler, set_up: impl Fn(CacheLayer) -> CacheLayer) -> House {
    House::around(handler, set_up(tiered(depot)))
}

async fn settled(house: &House, target: &str) -> Exchange {
    let answer = house.get(target).await;
    quiet().await;
    answer
}

#[tokio::test]
async fn what_is_near_is_sent_without_waiting_and_without_asking() {
    let depot = Depot::default();
    let mut house = one(&depot, Handler::saying(&[FRESH]), |layer| layer);
    assert_eq!(settled(&house, "/").await.x_cache, "MISS");
    depot.take_journal();
    let answer = poll_immediate(house.service.call(get("/"))).await.expect("at once").expect("an answer");
    assert_eq!(answer.headers()["x-cache"], "HIT");
    assert_eq!(depot.take_journal(), Vec::<&str>::new());
}

#[tokio::test(start_paused = true)] // What waits at a gate must not run out of time on a busy machine.
async fn what_a_handler_answers_goes_to_both_once() {
    let depot = Depot::default();
    let house = one(&depot, Handler::saying(&[FRESH]), |layer| layer);
    let gate = depot.gate("put");
    house.get("/").await;
    assert_eq!(house.get("/").await.x_cache, "HIT", "before the far store has it");
    assert_eq!(depot.len(), 0);
    gate.add_permits(1);
    quiet().await;
    assert_eq!((depot.len(), depot.count("put")), (1, 1));
    assert_eq!(house.handle.stats().fills_in_flight, 0);
}

#[tokio::test]
async fn what_is_far_is_copied_as_it_is() {
    let (depot, handler) = (Depot::default(), Handler::saying(&[FRESH, ("cache-tag", "a")]));
    let [first, second] = instances(&depot, &handler, |layer| layer.rule("^/", Policy::shared(MINUTE)));
    // Its number is one that the second instance never had.
    first.handle.purge(Selector::Tag("other".into())).await.expect("a tag");
    settled(&first, "/").await;
    first.advance(10);
    depot.take_journal();
    let answers = [settled(&second, "/").await, settled(&second, "/").await];
    for answer in answers {
        assert_eq!((answer.x_cache.as_str(), answer.body.as_str(), answer.field("age")), ("HIT", "answer 1", "10"));
    }
    assert_eq!(depot.take_journal(), ["get"], "the second time it is near");
    let stats = second.handle.stats();
    assert_eq!((stats.tiers.promoted, stats.storage.entries, handler.calls()), (1, 1, 1));
    let explained = second.handle.explain(&get("/").map(drop)).await;
    let stored = explained.stored.expect("it is there");
    assert_eq!((stored.number, stored.tags), (1, vec!["a".to_owned()]));
    let entries = |house: &House| house.handle.route_stats().iter().map(|route| route.entries).collect::<Vec<_>>();
    assert_eq!((entries(&first), entries(&second)), (vec![1, 0], vec![1, 0]), "each counts its own");
}

#[tokio::test(start_paused = true)] // What waits at a gate must not run out of time on a busy machine.
async fn a_herd_before_an_empty_near_store_is_one_read() {
    let (depot, handler) = (Depot::default(), Handler::saying(&[FRESH]));
    let [first, second] = instances(&depot, &handler, |layer| layer);
    settled(&first, "/").await;
    depot.take_journal();
    let gate = depot.gate("get");
    let herd: Vec<_> = (0..1000)
        .map(|_| {
            let house = second.clone();
            tokio::spawn(async move { house.get("/").await })
        })
        .collect();
    quiet().await;
    // Who asks for all may leave.
    herd[0].abort();
    quiet().await;
    gate.add_permits(10);
    let answers = join_all(herd).await;
    assert!(answers.into_iter().skip(1).all(|answer| answer.expect("no panic").body == "answer 1"));
    assert_eq!(depot.take_journal(), ["get", "get"], "one of who left, and one for all others");
    let tiers = second.handle.stats().tiers;
    assert_eq!((tiers.promoted, tiers.reads_shared, handler.calls()), (1, 998, 1));
}

#[tokio::test]
async fn variants_are_found_and_copied_each() {
    let depot = Depot::default();
    let handler = Handler::new(|head, _| {
        let said = head.headers.get("x-kind").map_or("none", |kind| kind.to_str().expect("text")).to_owned();
        answer(200, &[FRESH, ("vary", "x-kind")], said)
    });
    let [first, second] = instances(&depot, &handler, |layer| layer);
    for kind in ["a", "b"] {
        first.ask("/", &[("x-kind", kind)]).await;
        quiet().await;
    }
    // Both at once, so that one may wait for the read of the other.
    let ask = |kind| {
        let house = second.clone();
        async move { house.ask("/", &[("x-kind", kind)]).await }
    };
    let (a, b) = futures_util::future::join(ask("a"), ask("b")).await;
    assert_eq!((a.x_cache.as_str(), a.body.as_str(), b.x_cache.as_str(), b.body.as_str()), ("HIT", "a", "HIT", "b"));
    depot.take_journal();
    for kind in ["a", "b"] {
        assert_eq!(ask(kind).await.x_cache, "HIT");
    }
    assert_eq!((depot.take_journal().len(), handler.calls()), (0, 2));
}

#[tokio::test]
async fn what_another_instance_refreshed_is_taken_instead_of_what_is_stale_near() {
    let (depot, handler) = (Depot::default(), Handler::saying(&[FRESH]));
    let [first, second] = instances(&depot, &handler, |layer| layer);
    for house in [&first, &second] {
        settled(house, "/").await;
    }
    first.advance(61);
    assert_eq!(settled(&first, "/").await.body, "answer 2");
    let answer = settled(&second, "/").await;
    assert_eq!((answer.x_cache.as_str(), answer.body.as_str(), handler.calls()), ("HIT", "answer 2", 2));
    depot.take_journal();
    assert_eq!(settled(&second, "/").await.x_cache, "HIT");
    assert_eq!(depot.take_journal(), Vec::<&str>::new(), "it was copied");
}

/// What is stale near and no better in the far store is what it would be without one: confirmed, or standing in.
#[tokio::test]
async fn what_is_stale_in_both_is_confirmed() {
    let depot = Depot::default();
    let handler = Handler::new(|head, n| {
        let confirms = head.headers.contains_key("if-none-match");
        answer(
            if confirms { 304 } else { 200 },
            &[FRESH, ("etag", "\"a\"")],
            if confirms { "".into() } else { format!("{n}") },
        )
    });
    let house = one(&depot, handler, |layer| layer);
    settled(&house, "/").await;
    house.advance(61);
    let answer = settled(&house, "/").await;
    assert_eq!((answer.x_cache.as_str(), answer.body.as_str()), ("REVALIDATED", "1"));
    assert_eq!(depot.count("put"), 2);
}

#[tokio::test]
async fn what_is_near_is_asked_for_once_more_when_its_time_is_over() {
    let depot = Depot::default();
    let house = one(&depot, Handler::saying(&[FRESH]), |layer| layer.near_ttl(secs(5)));
    settled(&house, "/").await;
    depot.take_journal();
    // Seconds that pass, and whether the far store is asked.
    for (seconds, asks) in [(4, false), (1, true), (0, false), (4, false), (2, true)] {
        house.advance(seconds);
        assert_eq!(settled(&house, "/").await.x_cache, "HIT", "it has the same");
        assert_eq!(!depot.take_journal().is_empty(), asks, "after {seconds} s more");
    }
    // What the far store has lost, somebody may have removed.
    depot.lose_all();
    assert_eq!(settled(&house, "/").await.x_cache, "HIT");
    house.advance(5);
    assert_eq!(settled(&house, "/").await.x_cache, "MISS");
    // And what it can't say, it doesn't vouch for.
    depot.fail(&["get"]);
    assert_eq!(settled(&house, "/").await.x_cache, "HIT");
    house.advance(5);
    let answer = settled(&house, "/").await;
    assert_eq!((answer.status, answer.x_cache.as_str()), (200, "MISS"));
}

#[tokio::test]
async fn a_far_store_that_is_down_costs_only_what_is_not_near() {
    let depot = Depot::default();
    let house = one(&depot, Handler::saying(&[FRESH]), |layer| layer);
    depot.fail(&["get", "put", "remove", "lease", "clear"]);
    for (target, expected) in [("/a", "MISS"), ("/a", "HIT"), ("/b", "MISS"), ("/b", "HIT"), ("/a", "HIT")] {
        let answer = settled(&house, target).await;
        assert_eq!((answer.status, answer.x_cache.as_str()), (200, expected), "{target}");
    }
    assert_eq!(house.handle.stats().store_errors, 4, "a look and a put for each");
}

#[tokio::test]
async fn what_is_purged_does_not_come_back_from_the_far_store() {
    let selectors =
        [Selector::Uri("/a".into()), Selector::Tag("tag".into()), Selector::Glob("/a*".into()), Selector::Everything];
    for selector in selectors {
        let depot = Depot::default();
        let house = one(&depot, Handler::saying(&[FRESH, ("cache-tag", "tag")]), |layer| layer);
        settled(&house, "/a").await;
        depot.fail(&["remove", "clear"]);
        let _ = house.handle.purge(selector.clone()).await;
        assert_eq!(depot.len(), 1, "it has it still");
        let answer = settled(&house, "/a").await;
        assert_eq!((answer.x_cache.as_str(), answer.body.as_str()), ("MISS", "answer 2"), "{selector:?}");
        assert_eq!(settled(&house, "/a").await.x_cache, "HIT");
    }
}

#[tokio::test]
async fn purging_everything_empties_both() {
    let depot = Depot::default();
    let house = one(&depot, Handler::saying(&[FRESH]), |layer| layer);
    settled(&house, "/").await;
    house.handle.purge(Selector::Everything).await.expect("the store is there");
    assert_eq!((depot.len(), house.handle.stats().storage.entries), (0, 0));
}

#[tokio::test]
async fn a_write_makes_both_invalid() {
    let depot = Depot::default();
    let house = one(&depot, Handler::saying(&[FRESH]), |layer| layer);
    settled(&house, "/").await;
    house.exchange(request("PUT", "/", &[])).await;
    assert_eq!(settled(&house, "/").await.body, "answer 3");
}

/// What an answer speaks against is removed by key, which leaves no number behind.
#[tokio::test(start_paused = true)] // What waits at a gate must not run out of time on a busy machine.
async fn what_was_read_before_it_was_removed_is_not_copied_behind_that() {
    let (depot, leave) = (Depot::default(), Arc::new(Semaphore::new(0)));
    let gate = leave.clone();
    let handler = Handler::waiting(move |_, n| {
        let gate = gate.clone();
        async move {
            if n == 1 {
                return Ok(answer(200, &[FRESH], "good"));
            }
            gate.acquire().await.expect("never closed").forget();
            Ok(answer(200, &[("cache-control", "no-store")], "not any more"))
        }
    });
    let [first, second] = instances(&depot, &handler, |layer| layer);
    settled(&first, "/").await;
    let asking = {
        let house = second.clone();
        tokio::spawn(async move { house.ask("/", &[("cache-control", "no-cache")]).await })
    };
    quiet().await;
    // It is with the handler. Meanwhile the same is read.
    depot.gate("get");
    let reading = {
        let house = second.clone();
        tokio::spawn(async move { house.get("/").await })
    };
    quiet().await;
    leave.add_permits(9);
    assert_eq!(asking.await.expect("no panic").body, "not any more");
    quiet().await;
    assert_eq!(depot.len(), 0, "it was removed");
    depot.open("get");
    assert_eq!(reading.await.expect("no panic").body, "good", "as of when it was asked for");
    assert_eq!(second.handle.stats().storage.entries, 0, "it lies nowhere any more");
    assert_eq!(settled(&second, "/").await.body, "not any more");
}

/// The same where it is read in the middle of a removal, when the far store still has it.
#[tokio::test(start_paused = true)]
async fn what_was_read_while_it_was_removed_is_not_copied_behind_that() {
    let depot = Depot::default();
    let handler = Handler::new(|_, n| match n {
        1 => answer(200, &[FRESH], "good"),
        _ => answer(200, &[("cache-control", "no-store")], "not any more"),
    });
    let [first, second] = instances(&depot, &handler, |layer| layer);
    settled(&first, "/").await;
    depot.gate("remove");
    assert_eq!(second.ask("/", &[("cache-control", "no-cache")]).await.body, "not any more");
    quiet().await;
    assert_eq!(depot.count("remove"), 1, "it waits");
    depot.gate("get");
    let reading = {
        let house = second.clone();
        tokio::spawn(async move { house.get("/").await })
    };
    quiet().await;
    depot.open("remove");
    quiet().await;
    assert_eq!(depot.len(), 0, "it was removed");
    depot.open("get");
    assert_eq!(reading.await.expect("no panic").body, "good", "as of when it was asked for");
    assert_eq!(second.handle.stats().storage.entries, 0, "it lies nowhere any more");
}

#[tokio::test(start_paused = true)]
async fn a_store_of_two_keeps_nothing_near_of_the_memory_that_the_far_one_read_into() {
    let (depot, middle) = (Depot::default(), Depot::default());
    let tiers = Tiered::new(middle.clone(), depot.clone());
    let made = make(SystemClock::default(), "/", &[], &[], "content").await;
    depot.put(&made.key, made.response.clone(), 1).await.expect("stored");
    let query = || Query::new(&made.key, &made.asked, SystemClock::default().now());
    let far = tiers.get(query()).await.expect("an answer");
    let near = middle.get(query()).await.expect("an answer");
    assert_eq!((near[0].body(), near[0].headers()), (far[0].body(), far[0].headers()));
    assert_ne!(near[0].body().as_ptr(), far[0].body().as_ptr());
}

#[tokio::test(start_paused = true)]
async fn a_store_of_two_keeps_nothing_near_that_was_read_while_it_was_removed() {
    let (depot, middle) = (Depot::default(), Depot::default());
    let tiers = Arc::new(Tiered::new(middle.clone(), depot.clone()));
    let made = make(SystemClock::default(), "/", &[], &[], "content").await;
    depot.put(&made.key, made.response.clone(), 1).await.expect("stored");
    let swapped = make(SystemClock::default(), "/", &[], &[], "other content").await;
    for operation in ["remove", "swap"] {
        depot.put(&made.key, made.response.clone(), 1).await.expect("stored");
        depot.gate(operation);
        let changing = {
            let (tiers, made, new) = (tiers.clone(), made.clone(), swapped.response.clone());
            tokio::spawn(async move {
                match operation {
                    "remove" => assert!(tiers.remove(&made.key).await.expect("removed")),
                    _ => {
                        let (expected, now) = (Expected::This(&made.response), SystemClock::default().now());
                        let swapped = tiers.swap(Swap::new(&made.key, expected, new, now)).await;
                        assert!(matches!(swapped, Ok(Swapped::Done)), "{swapped:?}");
                    }
                }
            })
        };
        quiet().await;
        depot.gate("get");
        let reading = {
            let (tiers, made) = (tiers.clone(), made.clone());
            tokio::spawn(async move {
                let found = tiers.get(Query::new(&made.key, &made.asked, SystemClock::default().now())).await;
                assert_eq!(found.expect("an answer")[0].body(), "content", "as of when it was asked for");
            })
        };
        quiet().await;
        depot.open(operation);
        changing.await.expect("no panic");
        depot.open("get");
        reading.await.expect("no panic");
        assert_eq!(middle.len(), 0, "{operation}: what isn't there any more lies near");
    }
}

#[tokio::test]
async fn compressed_content_goes_to_the_far_store_once() {
    let content = "content ".repeat(1000);
    for kind in ["tiered", "far only"] {
        let (depot, clock) = (Depot::default(), Arc::<ManualClock>::default());
        let body = content.clone();
        let handler = Handler::new(move |_, _| answer(200, &[FRESH, ("content-type", "text/plain")], body.clone()));
        let layer = || match kind {
            "tiered" => tiered(&depot),
            _ => CacheLayer::with_storage(depot.clone()),
        };
        let house = || House::on(clock.clone(), handler.clone(), layer().compress(larder::Compression::gzip()));
        let (first, second) = (house(), house());
        first.get("/").await;
        until(|| depot.len() == 1).await;
        assert_eq!(depot.count("put"), 1, "{kind}");
        assert_eq!(first.handle.stats().compression.done, 1, "{kind}");
        let kept = depot.responses();
        assert!(kept[0].body().len() < content.len() / 4, "{kind}: {} bytes", kept[0].body().len());
        for house in [&first, &second] {
            let coded = house.ask("/", &[("accept-encoding", "gzip")]).await;
            assert_eq!((coded.x_cache.as_str(), coded.field("content-encoding")), ("HIT", "gzip"), "{kind}");
            assert_eq!(house.get("/").await.body, content, "{kind}");
        }
        assert_eq!((handler.calls(), depot.count("put")), (1, 1), "{kind}");
    }
}

fn user(request: &RequestHead<'_>) -> Option<Vec<u8>> {
    request.headers.get("x-user").map(|user| user.as_bytes().to_vec())
}

#[tokio::test]
async fn what_is_for_one_principal_is_shared_by_who_names_it_alike_and_else_stays_here() {
    let secret = [7; 32];
    // Whether the store is shared, whether there is a near one and a secret; then whether it is kept, and whether in the far store.
    for (is_shared, is_near, has_secret, kept, far) in [
        (false, true, false, true, true),
        (false, false, false, true, true),
        (true, true, false, true, false),
        (true, false, false, false, false),
        (true, true, true, true, true),
        (true, false, true, true, true),
    ] {
        let row = format!("{is_shared} {is_near} {has_secret}");
        let depot = if is_shared { Depot::with_log() } else { Depot::default() };
        let layer = if is_near { tiered(&depot) } else { CacheLayer::with_storage(depot.clone()) };
        let layer = layer.otherwise(Policy::per(user, MINUTE));
        let house =
            House::around(Handler::saying(&[]), if has_secret { layer.partition_secret(secret) } else { layer });
        let ask = || house.ask("/", &[("x-user", "me")]);
        ask().await;
        quiet().await;
        assert_eq!(ask().await.x_cache == "HIT", kept, "{row}");
        assert_eq!(depot.len() == 1, far, "{row}");
        let declined = house.handle.stats().declined_for(DeclineReason::PartitionSecret);
        assert_eq!(declined > 0, !kept, "{row}");
        if !far {
            assert_eq!(depot.count("put") + depot.count("lease"), 0, "{row}");
        }
        house.handle.purge(Selector::Partition(b"me".to_vec())).await.expect("the store is there");
        assert_eq!((depot.len(), depot.erased().len()), (0, usize::from(far)), "{row}");
        quiet().await;
        assert_eq!(ask().await.x_cache, "MISS", "{row}");
    }
}

#[tokio::test]
async fn with_a_common_secret_a_principal_is_the_same_on_all_instances() {
    let (depot, handler) = (Depot::default(), Handler::saying(&[]));
    let set_up =
        |layer: CacheLayer| layer.otherwise(Policy::per(user, MINUTE).quota(100_000, 2)).partition_secret([7; 32]);
    let [first, second] = instances(&depot, &handler, set_up);
    for target in ["/1", "/2"] {
        first.ask(target, &[("x-user", "me")]).await;
        quiet().await;
        assert_eq!(second.ask(target, &[("x-user", "me")]).await.x_cache, "HIT");
    }
    assert_eq!(second.ask("/1", &[("x-user", "you")]).await.x_cache, "MISS", "nobody else");
    quiet().await;
    assert_eq!(second.handle.stats().partitions, 2, "what is copied is in an account here");
    // It is erased also where this instance knows nothing of it.
    depot.take_journal();
    second.handle.purge(Selector::Partition(b"you".to_vec())).await.expect("the store is there");
    first.handle.purge(Selector::Partition(b"nobody".to_vec())).await.expect("the store is there");
    assert_eq!(depot.count("erase"), 2);
}

#[tokio::test]
async fn a_store_of_two_is_one_at_any_depth() {
    let (depot, clock, handler) = (Depot::default(), Arc::<ManualClock>::default(), Handler::saying(&[FRESH]));
    let middle = Depot::default();
    let house = || {
        let behind = Tiered::new(middle.clone(), depot.clone());
        House::on(clock.clone(), handler.clone(), CacheLayer::tiered(near(), behind))
    };
    let (first, second) = (house(), house());
    settled(&first, "/").await;
    assert_eq!((middle.len(), depot.len()), (1, 1), "written through");
    middle.lose_all();
    middle.take_journal();
    depot.take_journal();
    assert_eq!(settled(&second, "/").await.x_cache, "HIT");
    assert_eq!((depot.take_journal(), middle.take_journal()), (vec!["get"], vec!["get", "put"]), "kept on the way");
    let third = house();
    assert_eq!(settled(&third, "/").await.x_cache, "HIT");
    assert_eq!(depot.take_journal(), Vec::<&str>::new(), "from the middle");
    // What is stale in the middle is asked for further on.
    clock.advance(secs(61));
    settled(&first, "/").await;
    assert_eq!(settled(&third, "/").await.body, "answer 2");
    // A middle that fails is as if it weren't there.
    middle.fail(&["get", "put"]);
    let fourth = house();
    assert_eq!(settled(&fourth, "/").await.x_cache, "HIT");
    third.handle.purge(Selector::Everything).await.expect("both are there");
    assert_eq!((middle.len(), depot.len()), (0, 0));
}

#[tokio::test]
async fn an_explanation_knows_both_stores() {
    let (depot, handler) = (Depot::default(), Handler::saying(&[FRESH]));
    let [first, second] = instances(&depot, &handler, |layer| layer);
    settled(&first, "/").await;
    let request = get("/").map(drop);
    let places = async |house: &House| {
        let explained = house.handle.explain(&request).await;
        let hit = explained.cache_status.contains("hit");
        (hit, explained.variants.iter().map(|variant| (variant.is_near, variant.chosen)).collect::<Vec<_>>())
    };
    assert_eq!(places(&first).await, (true, vec![(true, true)]), "nobody else is asked");
    assert_eq!(places(&second).await, (true, vec![(false, true)]));
    assert_eq!(second.handle.stats().storage.entries, 0, "to explain is not to copy");
    settled(&second, "/").await;
    assert_eq!(places(&second).await, (true, vec![(true, true)]));
    first.advance(61);
    settled(&first, "/").await;
    assert_eq!(places(&second).await, (true, vec![(true, false), (false, true)]));
    depot.fail(&["get"]);
    let explained = second.handle.explain(&request).await;
    assert!(explained.store_error.is_some() && explained.fill.is_some());
}

/// A near copy of what was stored under earlier settings is adopted as anything that is stored, and needs nobody.
#[tokio::test]
async fn a_change_of_settings_does_not_send_everybody_to_the_far_store() {
    let (depot, handler) = (Depot::default(), Handler::saying(&[]));
    let layer = tiered(&depot).otherwise(Policy::shared(secs(60)));
    let house = House::around(handler, layer.clone());
    settled(&house, "/").await;
    depot.take_journal();
    house.handle.reconfigure(&tiered(&depot)).expect_err("a store is one by itself, not by what it holds");
    house.handle.reconfigure(&layer.otherwise(Policy::shared(secs(30)))).expect("the same stores");
    assert_eq!(settled(&house, "/").await.x_cache, "HIT");
    assert_eq!(depot.take_journal(), Vec::<&str>::new());
}

/// A file sets up the memory, and leaves what is behind it.
#[tokio::test]
async fn a_file_says_how_much_is_near_and_keeps_the_far_store() {
    let (depot, handler) = (Depot::default(), Handler::saying(&[FRESH]));
    let file = "[store]\ncapacity = '2MiB'\n[limits]\nnear_ttl = '5s'".parse().expect("it is right");
    let house = House::around(handler, tiered(&depot).configured(&file).expect("memory stays memory"));
    settled(&house, "/").await;
    assert_eq!((depot.len(), house.handle.stats().storage.entries), (1, 1));
    house.advance(5);
    depot.take_journal();
    settled(&house, "/").await;
    assert_eq!(depot.take_journal(), ["get"]);
    let far_only = CacheLayer::with_storage(depot.clone());
    assert!(far_only.configured(&file).is_err(), "a file puts no memory before a store of code's own");
}

#[tokio::test(start_paused = true)]
async fn a_refresh_ahead_looks_whether_another_instance_was_faster() {
    let depot = Depot::default();
    let handler = Handler::saying(&[]);
    let policy = Policy::shared(MINUTE).refresh_within(secs(10));
    let [first, second] = instances(&depot, &handler, |layer| layer.otherwise(policy.clone()));
    for house in [&first, &second] {
        settled(house, "/").await;
    }
    first.advance(55);
    assert_eq!(settled(&first, "/").await.body, "answer 1", "and refreshed behind it");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(handler.calls(), 2);
    assert_eq!(settled(&second, "/").await.body, "answer 2");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(handler.calls(), 2, "nothing was left to do");
}
