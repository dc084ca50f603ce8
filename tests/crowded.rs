//! Waiting for others is bounded, in number, in time and in memory, and beyond each bound something defined happens.

mod support;

use std::sync::Mutex;
use std::time::Duration;

use futures_util::FutureExt;
use http::Response;
use http_body_util::BodyExt;
use larder::{DeclineReason, Policy};
use support::bodies::*;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

const TEN: Duration = Duration::from_secs(10);

/// A handler whose n-th answer comes when the n-th sender says so.
fn on_demand(answers: usize) -> (Vec<oneshot::Sender<Response<Content>>>, Handler) {
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..answers).map(|_| oneshot::channel()).unzip();
    let receivers: Vec<_> = receivers.into_iter().map(|receiver| Mutex::new(Some(receiver))).collect();
    let handler = Handler::waiting(move |number, _| {
        let answer = receivers[number - 1].lock().expect("no holder panics").take().expect("asked once");
        async move { answer.await.map_err(|_| Broken("no answer")) }
    });
    (senders, handler)
}

/// A handler whose only answer is fed by the test.
fn feeding(fields: &'static [(&'static str, &'static str)]) -> (UnboundedSender<Step>, Handler) {
    let (feed, content) = fed();
    let content = Mutex::new(Some(content));
    let handler = Handler::new(move |number, _| {
        let first = content.lock().expect("no holder panics").take();
        answer(fields, first.unwrap_or_else(|| whole(format!("answer {number}"))))
    });
    (feed, handler)
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_goes_to_the_handler() {
    let (answers, handler) = on_demand(2);
    let setup = set_up(handler, |layer| layer.max_wait(Duration::from_secs(5)));
    let mut answers = answers.into_iter();
    let leader = tokio::spawn(setup.service.clone().oneshot_get("/"));
    settle().await;
    let follower = tokio::spawn(setup.service.clone().oneshot_get("/"));
    settle().await;
    assert_eq!(setup.handler.calls(), 1);
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!((setup.handler.calls(), setup.stats().waits_timed_out), (2, 1));
    let (first, second) = (answers.next().unwrap(), answers.next().unwrap());
    second.send(fresh(whole("second"))).unwrap();
    assert_eq!(follower.await.unwrap().content, b"second");
    first.send(fresh(whole("first"))).unwrap();
    assert_eq!(leader.await.unwrap().content, b"first");
}

#[tokio::test]
async fn a_fill_without_an_answer_is_joined_only_while_it_is_young() {
    let (answers, handler) = on_demand(2);
    let setup = set_up(handler, |layer| layer.max_fill_age(TEN));
    let spawn = || tokio::spawn(setup.service.clone().oneshot_get("/"));
    let mut clients = vec![spawn()];
    settle().await;
    setup.clock.advance(TEN);
    clients.push(spawn());
    settle().await;
    assert_eq!(setup.handler.calls(), 1);
    setup.clock.advance(Duration::from_secs(1));
    clients.push(spawn());
    clients.push(spawn());
    settle().await;
    assert_eq!((setup.handler.calls(), setup.stats().waiting), (2, 2), "one more asks, and the next waits for that");
    answers.into_iter().zip(["one", "two"]).for_each(|(answer, text)| answer.send(fresh(whole(text))).unwrap());
    let mut texts = Vec::new();
    for client in clients {
        texts.push(client.await.unwrap().content);
    }
    assert_eq!(texts, [b"one", b"one", b"two", b"two"]);
}

#[tokio::test]
async fn where_too_many_wait_the_cache_says_503_or_serves_stale() {
    for stale in [false, true] {
        let handler = Handler::waiting(move |number, _| async move {
            if number > 1 || !stale {
                std::future::pending::<()>().await;
            }
            Ok(answer(&[("cache-control", "max-age=1, stale-if-error=60")], whole("old")))
        });
        let setup = set_up(handler, |layer| layer.max_waiting(2));
        if stale {
            setup.get("/").await;
            setup.clock.advance(TEN);
        }
        let waiting: Vec<_> = (0..3).map(|_| tokio::spawn(setup.service.clone().oneshot_get("/"))).collect();
        settle().await;
        assert_eq!(setup.stats().waiting, 2);
        let refused = setup.begin("/").now_or_never().expect("at once");
        if stale {
            let got = read(refused).await;
            assert_eq!((got.x_cache.as_str(), got.content.as_slice()), ("STALE", &b"old"[..]));
        } else {
            assert_eq!(refused.status(), 503);
            assert_eq!(field(refused.headers(), "retry-after"), Some("1"));
            assert_eq!(field(refused.headers(), "cache-control"), Some("no-store"));
            assert_eq!(field(refused.headers(), "cache-status"), Some("larder; detail=crowded"));
        }
        assert_eq!(setup.stats().waits_refused, 1);
        waiting.iter().for_each(|client| client.abort());
    }
}

#[tokio::test(start_paused = true)]
async fn a_follower_waits_no_longer_than_the_rule_where_something_stale_may_stand_in() {
    let handler = Handler::waiting(|number, _| async move {
        if number > 1 {
            std::future::pending::<()>().await;
        }
        Ok(answer(&[], whole("old")))
    });
    let policy = Policy::shared(TEN).stale_if_error(Duration::from_secs(3600)).fill_timeout(Duration::from_secs(2));
    let setup = set_up(handler, |layer| layer.otherwise(policy));
    setup.get("/").await;
    setup.clock.advance(TEN);
    let begin = tokio::time::Instant::now();
    let clients: Vec<_> = (0..5).map(|_| tokio::spawn(setup.service.clone().oneshot_get("/"))).collect();
    for client in clients {
        let got = client.await.unwrap();
        assert_eq!((got.x_cache.as_str(), got.content.as_slice()), ("STALE", &b"old"[..]));
    }
    assert_eq!((setup.handler.calls(), begin.elapsed().as_secs()), (2, 2));
}

#[tokio::test]
async fn who_would_make_a_fill_exceed_the_budget_goes_alone() {
    let (feed, handler) = feeding(&[("cache-control", "max-age=60"), ("content-length", "50000")]);
    let setup = set_up(handler, |layer| layer.max_fill_bytes(60_000));
    let leader = setup.begin("/").await;
    feed.send(data(vec![b'x'; 1000])).unwrap();
    let follower = setup.begin("/").await;
    assert_eq!(
        setup.stats().fill_bytes,
        50_000,
        "all that is to come is taken, so that the follower never has to be stopped"
    );
    feed.send(data(vec![b'x'; 49_000])).unwrap();
    drop(feed);
    assert_eq!(read(follower).await.content.len(), 50_000);
    assert_eq!(read(leader).await.content.len(), 50_000);
    assert_eq!((setup.handler.calls(), setup.stats().fill_bytes), (1, 0));

    let (feed, handler) = feeding(&[("cache-control", "max-age=60"), ("content-length", "50000")]);
    let setup = set_up(handler, |layer| layer.max_fill_bytes(40_000));
    let leader = setup.begin("/").await;
    feed.send(data(vec![b'x'; 1000])).unwrap();
    assert_eq!(setup.get("/").await.content, b"answer 2", "on its own");
    drop((feed, leader));
}

#[tokio::test]
async fn large_content_is_kept_whole_or_not_begun() {
    let (feed, handler) = feeding(&[("cache-control", "max-age=60"), ("content-length", "100000")]);
    let setup = set_up(handler, |layer| layer.max_fill_bytes(99_999));
    let response = setup.begin("/").await;
    assert_eq!(setup.stats().declined, [(DeclineReason::FillBudget, 1)], "before the first byte");
    feed.send(data(vec![b'x'; 100_000])).unwrap();
    drop(feed);
    assert_eq!(read(response).await.content.len(), 100_000);
}

/// A crowd of which most have to give up does so before it has taken all.
#[tokio::test]
async fn who_goes_on_without_a_length_has_what_comes_next_set_aside() {
    for (budget, stored) in [(100, 0), (130, 1)] {
        let (feed, handler) = feeding(&[("cache-control", "max-age=60")]);
        let setup = set_up(handler, |layer| layer.max_fill_bytes(budget));
        let mut response = setup.begin("/").await;
        for held in [20, 40 + 40] {
            feed.send(data(vec![b'x'; 20])).unwrap();
            assert_eq!(chunk(response.body_mut()).await.len(), 20);
            assert_eq!(setup.stats().fill_bytes, held, "the first part is all that there is of most");
        }
        feed.send(data(vec![b'x'; 10])).unwrap();
        drop(feed);
        assert_eq!(read(response).await.content.len(), 10, "{budget}: it passes all the same");
        assert_eq!((setup.stats().stored, setup.stats().fill_bytes), (stored, 0), "{budget}");
    }
}

/// A leader and a follower of content that turns out to be too large to be kept.
async fn too_large() -> (Setup, UnboundedSender<Step>, [Response<larder::ResponseBody<Content>>; 2]) {
    let (feed, handler) = feeding(&[("cache-control", "max-age=60")]);
    let setup = set_up(handler, |layer| layer.max_body_size(100_000));
    let leader = setup.begin("/").await;
    feed.send(data(vec![b'x'; 60_000])).expect("it is read");
    let follower = setup.begin("/").await;
    (setup, feed, [leader, follower])
}

/// The content streams on, perhaps for long, and there may be a thousand like it.
#[test]
fn what_is_not_kept_any_more_takes_no_memory() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (feed, handler) = feeding(&[("cache-control", "max-age=60")]);
    let setup = set_up(handler, |layer| layer.max_body_size(100_000));
    let mut body = runtime.block_on(setup.begin("/")).into_body();
    let mut pass = |length: usize| {
        let memory = allocation_counter::measure(|| {
            feed.send(data(vec![b'x'; length])).unwrap();
            assert_eq!(runtime.block_on(chunk(&mut body)).len(), length);
        });
        memory.bytes_current
    };
    assert!(pass(40_000) + pass(30_000) >= 70_000, "so much is kept");
    assert!(pass(50_000) <= -70_000, "and given back");
    assert_eq!(setup.stats().declined, [(DeclineReason::BodyTooLarge, 1)]);
}

#[tokio::test(start_paused = true)]
async fn readers_of_what_is_too_large_to_be_kept_wait_for_the_slowest() {
    let (setup, feed, [mut slow, mut quick]) = too_large().await;
    for _ in 0..3 {
        feed.send(data(vec![b'x'; 600_000])).unwrap();
    }
    drop(feed);
    let mut had = 0;
    while let Some(frame) = quick.body_mut().frame().now_or_never() {
        had += frame.expect("it goes on").expect("without an error").into_data().expect("data").len();
    }
    assert_eq!(had, 1_260_000, "no further than a window before the other one");
    assert_eq!(setup.stats().declined, [(DeclineReason::BodyTooLarge, 1)]);
    let mut slowly = 0;
    while slowly < 60_000 {
        slowly += chunk(slow.body_mut()).await.len();
    }
    let (slow, quick) = tokio::join!(read(slow), read(quick));
    assert_eq!((slowly + slow.content.len(), had + quick.content.len()), (1_860_000, 1_860_000));
    assert!(slow.end.is_ok() && quick.end.is_ok());
    assert_eq!(setup.stats().fill_bytes, 0);
    assert_eq!(setup.get("/").await.content, b"answer 2", "and nobody joins what isn't kept");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_nothing_of_it_is_left_behind_with_an_error() {
    let (setup, feed, [asleep, quick]) = too_large().await;
    for _ in 0..5 {
        feed.send(data(vec![b'x'; 600_000])).unwrap();
    }
    drop(feed);
    let begin = tokio::time::Instant::now();
    let quick = read(quick).await;
    assert_eq!((quick.content.len(), quick.end), (3_060_000, Ok(())));
    assert!(begin.elapsed() >= TEN, "it was waited for");
    let asleep = read(asleep).await;
    assert!(asleep.end.is_err_and(|error| error.contains("too slowly")) && asleep.content.len() < 3_060_000);
    assert_eq!(setup.stats().fill_bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_drains_what_clients_left_or_abandons_it_and_leaves_no_task() {
    for (ends, in_time) in [(true, true), (false, false)] {
        let (feed, handler) = feeding(&[("cache-control", "max-age=60")]);
        let setup = around(handler);
        drop(setup.begin("/").await);
        settle().await;
        assert_eq!((setup.stats().fills_handed_over, setup.stats().fills_in_flight), (1, 1));
        let handle = setup.handle.clone();
        let shutdown = tokio::spawn(async move { handle.shutdown(TEN).await });
        settle().await;
        feed.send(data("content")).unwrap();
        let feed = if ends {
            drop(feed);
            None
        } else {
            Some(feed)
        };
        assert_eq!(shutdown.await.unwrap(), in_time);
        let stats = setup.stats();
        assert_eq!((stats.stored, stats.fills_in_flight, stats.fill_bytes), (u64::from(in_time), 0, 0));
        if let Some(feed) = feed {
            assert!(feed.is_closed(), "nobody reads it any more");
        }
    }
}

trait Get {
    fn oneshot_get(self, path: &'static str) -> impl Future<Output = Got> + Send;
}

impl Get for larder::Cache<Handler> {
    async fn oneshot_get(self, path: &'static str) -> Got {
        read(tower::ServiceExt::oneshot(self, get(path)).await.expect("the handler doesn't fail")).await
    }
}
