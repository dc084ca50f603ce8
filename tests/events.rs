//! Events from elsewhere purge through a channel: in their order, each with an answer, and none is lost without a word.

mod support;

use futures_util::FutureExt;
use larder::{CacheLayer, NotSent, Policy, PurgeError, PurgeEvent, Selector};
use support::exchange::*;

fn tag(name: &str) -> Selector {
    Selector::Tag(name.into())
}

fn house() -> House {
    let rules =
        |layer: CacheLayer| layer.rule("^/(.*)", Policy::shared(MINUTE).stale_while_revalidate(MINUTE).tag("$1"));
    House::with(Handler::saying(&[]), rules)
}

#[tokio::test]
async fn a_receipt_means_that_the_purge_has_taken_effect() {
    let house = house();
    let purges = house.handle.purges(8);
    house.get("/a").await;
    assert_eq!(house.get("/a").await.x_cache, "HIT");
    let receipt = purges.send(tag("a")).await.expect("a purge");
    assert_eq!(house.get("/a").await.x_cache, "MISS");
    assert!(purges.clone().send(tag("a")).await.expect("a purge").number > receipt.number);
    assert_eq!(house.handle.stats().purges, 2);
}

#[tokio::test]
async fn events_take_effect_in_their_order() {
    let house = house();
    let purges = house.handle.purges(100);
    let tickets: Vec<_> = (0..50).map(|n| purges.try_send(tag(&format!("t{n}"))).expect("there is room")).collect();
    let mut last = 0;
    for ticket in tickets {
        let number = ticket.await.expect("a purge").number;
        assert!(number > last, "{number} after {last}");
        last = number;
    }
}

#[tokio::test]
async fn an_event_that_is_refused_is_answered_with_the_reason_and_the_next_is_made() {
    let purges = house().handle.purges(8);
    let refused = purges.send(Selector::Uri("no path".into())).await;
    assert!(matches!(refused, Err(PurgeError::Uri { .. })), "{refused:?}");
    let refused = purges.send(tag("")).await;
    assert!(matches!(refused, Err(PurgeError::Tag { .. })), "{refused:?}");
    purges.send(tag("a")).await.expect("a purge");
}

#[tokio::test]
async fn where_as_many_wait_as_may_an_event_comes_back_or_waits() {
    let house = house();
    let purges = house.handle.purges(2);
    // The task hasn't run yet.
    let waiting = [purges.try_send(tag("a")).expect("room"), purges.try_send(tag("b")).expect("room")];
    let back = purges.try_send(PurgeEvent::new(tag("c")).soft());
    let Err(NotSent::Full(event)) = back else { panic!("there is no room") };
    assert_eq!((event.selector(), &event), (&tag("c"), &PurgeEvent::new(tag("c")).soft()));
    let third = purges.send(event).await.expect("it waits for its turn");
    for ticket in waiting {
        assert!(ticket.now_or_never().expect("it was before").expect("a purge").number < third.number);
    }
}

#[tokio::test]
async fn what_nobody_waits_for_is_made_all_the_same() {
    let house = house();
    let purges = house.handle.purges(8);
    house.get("/a").await;
    drop(purges.try_send(tag("a")).expect("room"));
    drop(purges);
    quiet().await;
    assert_eq!(house.get("/a").await.x_cache, "MISS");
}

#[tokio::test]
async fn the_task_ends_with_its_last_sender() {
    let house = house();
    let (purges, other) = (house.handle.purges(8), house.handle.purges(8));
    purges.send(tag("a")).await.expect("a purge");
    drop(purges);
    drop(other);
    quiet().await;
    // Nothing is left to be waited for.
    assert!(house.handle.shutdown(std::time::Duration::ZERO).await);
}

#[tokio::test]
async fn a_shutdown_makes_what_was_sent_and_refuses_what_comes_later() {
    let house = house();
    let purges = house.handle.purges(8);
    house.get("/a").await;
    let ticket = purges.try_send(tag("a")).expect("room");
    assert!(house.handle.shutdown(secs(1)).await, "the sender is still there, and the task ended");
    ticket.now_or_never().expect("answered").expect("a purge");
    assert_eq!(house.get("/a").await.x_cache, "MISS");
    let late = purges.send(tag("a")).await;
    assert!(matches!(late, Err(PurgeError::Closed)), "{late:?}");
    let late = purges.try_send(tag("b"));
    assert!(matches!(late, Err(NotSent::Closed(event)) if *event.selector() == tag("b")));
}

#[test]
fn without_a_runtime_every_event_is_answered() {
    let purges = house().handle.purges(8);
    let answer = purges.send(tag("a")).now_or_never().expect("at once");
    assert!(matches!(answer, Err(PurgeError::Closed)), "{answer:?}");
}
