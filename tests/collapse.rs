//! Requests for the same thing share one fill: one asks the handler, the others read its answer as it streams (RFC 9111 §4), but only where each
//! of them may have it.

mod support;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{join_all, poll_immediate};
use futures_util::task::noop_waker_ref;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use larder::{CacheOutcome, DeclineReason, ForwardReason, Outcome, Policy, Selector};
use support::bodies::*;
use tokio::sync::Semaphore;

const FRESH: (&str, &str) = ("cache-control", "max-age=60");

/// A handler that answers when the gate gives leave, once for each.
fn gated(answer: impl Fn(usize, &http::request::Parts) -> Answer + Send + Sync + 'static) -> (Arc<Semaphore>, Handler) {
    let gate = Arc::new(Semaphore::new(0));
    let (leave, answer) = (gate.clone(), Arc::new(answer));
    let handler = Handler::waiting(move |number, request| {
        let (leave, answer) = (leave.clone(), answer.clone());
        async move {
            leave.acquire().await.expect("never closed").forget();
            answer(number, &request)
        }
    });
    (gate, handler)
}

/// Sends all at once and lets them come as far as they can.
async fn crowd(
    setup: &Setup,
    requests: Vec<Request<Empty<Bytes>>>,
) -> Vec<tokio::task::JoinHandle<Result<Got, Broken>>> {
    use tower::ServiceExt;
    let send = |request| {
        let service = setup.service.clone();
        tokio::spawn(async move { Ok(read(service.oneshot(request).await?).await) })
    };
    let all = requests.into_iter().map(send).collect();
    settle().await;
    all
}

async fn ends(all: Vec<tokio::task::JoinHandle<Result<Got, Broken>>>) -> Vec<Result<Got, Broken>> {
    join_all(all).await.into_iter().map(|joined| joined.expect("no panic")).collect()
}

fn status(got: &Got) -> &str {
    field(&got.headers, "cache-status").expect("Cache-Status")
}

#[tokio::test]
async fn one_request_asks_and_the_others_have_its_answer() {
    let (gate, handler) = gated(|number, _| Ok(fresh(whole(format!("answer {number}")))));
    let setup = around(handler);
    let all = crowd(&setup, (0..100).map(|_| get("/")).collect()).await;
    assert_eq!((setup.stats().waiting, setup.stats().fills_in_flight), (99, 1));
    gate.add_permits(100);
    for (n, got) in ends(all).await.into_iter().enumerate() {
        let got = got.expect("an answer");
        assert_eq!((got.content.as_slice(), got.x_cache.as_str()), (&b"answer 1"[..], "MISS"));
        let expected = if n == 0 { "larder; fwd=uri-miss; stored" } else { "larder; fwd=uri-miss; collapsed; ttl=60" };
        assert_eq!(status(&got), expected);
        assert!(got.headers.contains_key("etag"), "as from the store");
    }
    let stats = setup.stats();
    assert_eq!((setup.handler.calls(), stats.misses, stats.collapsed, stats.stored), (1, 1, 99, 1));
    assert_eq!((stats.waiting, stats.fills_in_flight, stats.fill_bytes), (0, 0, 0));
    assert_eq!(setup.get("/").await.x_cache, "HIT");
}

/// Answers that are alike and are there as a whole are stored in one step (`src/at_once.rs`).
#[tokio::test]
async fn those_who_wait_have_an_answer_that_is_stored_in_one_step() {
    let (gate, handler) = gated(|number, _| {
        let tag = format!("\"{number}\"");
        Ok(answer(&[FRESH, ("etag", tag.as_str())], whole(format!("answer {number}"))))
    });
    let setup = around(handler);
    gate.add_permits(12);
    for n in 0..12 {
        setup.get(&format!("/{n}")).await;
    }
    let all = crowd(&setup, (0..20).map(|_| get("/")).collect()).await;
    assert_eq!((setup.stats().waiting, setup.stats().fills_in_flight), (19, 1));
    gate.add_permits(20);
    for got in ends(all).await {
        let got = got.expect("an answer");
        assert_eq!((got.content.as_slice(), field(&got.headers, "etag")), (&b"answer 13"[..], Some("\"13\"")));
    }
    let stats = setup.stats();
    assert_eq!((setup.handler.calls(), stats.misses, stats.collapsed, stats.stored), (13, 13, 19, 13));
    assert_eq!((stats.waiting, stats.fills_in_flight, stats.fill_bytes), (0, 0, 0));
    assert_eq!(setup.get("/").await.x_cache, "HIT");

    // What is purged meanwhile isn't stored; who waited for it has what was asked for before the purge, or asks anew.
    let all = crowd(&setup, (0..20).map(|_| get("/purged")).collect()).await;
    setup.handle.purge(Selector::Uri("/purged".into())).await.expect("it is done");
    gate.add_permits(20);
    assert!(ends(all).await.iter().all(Result::is_ok));
    let stored = setup.get("/purged").await;
    assert!(setup.stats().fills_in_flight == 0 && stored.content != b"answer 14");
}

#[tokio::test]
async fn an_expired_response_is_asked_about_once_and_confirmed_for_all() {
    let (gate, handler) = gated(|number, request| {
        let mut response = answer(&[FRESH, ("etag", "\"1\"")], whole("content"));
        if number > 1 {
            assert_eq!(request.headers["if-none-match"], "\"1\"");
            *response.status_mut() = http::StatusCode::NOT_MODIFIED;
        }
        Ok(response)
    });
    let setup = around(handler);
    gate.add_permits(1);
    setup.get("/").await;
    setup.clock.advance(Duration::from_secs(61));
    let all = crowd(&setup, (0..20).map(|_| get("/")).collect()).await;
    gate.add_permits(20);
    let all = ends(all).await;
    assert!(all.iter().all(|got| got.as_ref().expect("an answer").content == b"content"));
    assert_eq!((setup.handler.calls(), setup.stats().revalidated, setup.stats().collapsed), (2, 1, 19));
}

#[tokio::test]
async fn a_follower_reads_from_the_first_byte_as_it_comes_whenever_it_joined() {
    let (feed, content) = fed();
    let content = std::sync::Mutex::new(Some(content));
    let setup = around(Handler::new(move |_, _| fresh(content.lock().unwrap().take().expect("asked once"))));
    let mut leader = setup.begin("/").await.into_body();
    feed.send(data("one ")).unwrap();
    assert_eq!(chunk(&mut leader).await, "one ");
    let mut second = setup.begin("/").await.into_body();
    assert_eq!(chunk(&mut second).await, "one ");
    // The follower is ahead of the leader now, and drives.
    feed.send(data("two ")).unwrap();
    assert_eq!(chunk(&mut second).await, "two ");
    let third = setup.begin("/").await;
    assert_eq!(x_cache(&third), "MISS");
    drop(leader);
    feed.send(data("three")).unwrap();
    drop(feed);
    assert_eq!(second.collect().await.expect("a clean end").to_bytes(), "three");
    assert_eq!(read(third).await.content, b"one two three");
    settle().await;
    assert_eq!(setup.get("/").await.x_cache, "HIT");
    assert_eq!((setup.handler.calls(), setup.stats().fill_bytes), (1, 0));
}

#[tokio::test]
async fn a_reader_that_takes_nothing_keeps_nobody_waiting() {
    let (feed, content) = fed();
    let content = std::sync::Mutex::new(Some(content));
    let setup = around(Handler::new(move |_, _| fresh(content.lock().unwrap().take().expect("asked once"))));
    let sleeping = setup.begin("/").await;
    let follower = tokio::spawn(read(setup.begin("/").await));
    for _ in 0..50 {
        feed.send(data(vec![b'x'; 1000])).unwrap();
        settle().await;
    }
    drop(feed);
    assert_eq!(follower.await.unwrap().content.len(), 50_000);
    assert_eq!(setup.get("/").await.x_cache, "HIT", "it is stored before the first one has read anything");
    assert_eq!(read(sleeping).await.content.len(), 50_000);
    assert_eq!(setup.stats().fill_bytes, 0);
}

#[tokio::test]
async fn content_that_breaks_off_is_an_error_for_all_its_readers() {
    let (feed, content) = fed();
    let content = std::sync::Mutex::new(Some(content));
    let setup = around(Handler::new(move |number, _| match number {
        1 => fresh(content.lock().unwrap().take().expect("asked once")),
        _ => fresh(whole("whole")),
    }));
    let leader = setup.begin("/").await;
    feed.send(data("half")).unwrap();
    let follower = setup.begin("/").await;
    feed.send(Err(Broken("the origin is gone"))).unwrap();
    for response in [leader, follower] {
        let got = read(response).await;
        assert_eq!(got.content, b"half");
        assert_eq!(got.end, Err("the origin is gone".into()));
    }
    assert_eq!(setup.stats().declined, [(DeclineReason::Incomplete, 1)]);
    assert_eq!(setup.get("/").await.content, b"whole");
}

#[tokio::test]
async fn content_shorter_than_announced_is_no_clean_end_for_a_follower() {
    let (feed, content) = fed();
    struct Claiming(Content);
    impl http_body::Body for Claiming {
        type Data = Bytes;
        type Error = Broken;
        fn poll_frame(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Step>> {
            std::pin::Pin::new(&mut self.0).poll_frame(cx)
        }
        fn size_hint(&self) -> http_body::SizeHint {
            http_body::SizeHint::with_exact(40_000)
        }
    }
    let content = std::sync::Mutex::new(Some(Claiming(content).boxed_unsync()));
    let setup = around(Handler::new(move |_, _| fresh(content.lock().unwrap().take().expect("asked once"))));
    let _leader = setup.begin("/").await;
    let follower = setup.begin("/").await;
    assert_eq!(field(follower.headers(), "content-length"), Some("40000"));
    feed.send(data("short")).unwrap();
    drop(feed);
    let got = read(follower).await;
    assert!(got.end.is_err(), "{got:?}");
}

/// What the first answer is, how the next ones are, how many calls that takes for ten requests at once, and whether requests wait for each other the
/// next time.
type Row = (&'static str, fn(usize) -> Answer, usize, bool);

#[tokio::test]
async fn an_answer_that_is_nobody_elses_sends_the_others_on_their_own_at_once_and_is_remembered() {
    fn with(fields: &'static [(&'static str, &'static str)]) -> Answer {
        Ok(answer(fields, whole("mine")))
    }
    let rows: [Row; 7] = [
        ("no-store", |_| with(&[("cache-control", "no-store")]), 10, false),
        ("private", |_| with(&[("cache-control", "private, max-age=60")]), 10, false),
        ("a cookie", |_| with(&[FRESH, ("set-cookie", "a=b")]), 10, false),
        ("no freshness", |_| with(&[]), 10, false),
        ("no-cache", |_| with(&[("cache-control", "no-cache"), ("etag", "\"1\"")]), 10, false),
        ("vary on anything", |_| with(&[FRESH, ("vary", "*")]), 10, false),
        // An error says nothing about the next answer.
        ("an error status", |_| Ok(Response::builder().status(503).body(whole("down")).unwrap()), 10, true),
    ];
    for (row, answer, calls, waits) in rows {
        let (gate, handler) = gated(move |number, _| answer(number));
        let setup = around(handler);
        let all = crowd(&setup, (0..10).map(|_| get("/")).collect()).await;
        assert_eq!(setup.handler.calls(), 1, "{row}: the first burst waits for one");
        gate.add_permits(1);
        settle().await;
        if !waits {
            assert_eq!(setup.handler.calls(), calls, "{row}: all at once, and not one after another");
        }
        gate.add_permits(100);
        ends(all).await.into_iter().for_each(|got| assert!(got.expect("an answer").end.is_ok()));
        assert_eq!(setup.handler.calls(), calls, "{row}");
        let left = gate.available_permits();
        gate.forget_permits(left);
        let next = crowd(&setup, (0..10).map(|_| get("/")).collect()).await;
        let expected = if waits { 11 } else { 20 };
        assert_eq!(setup.handler.calls(), expected, "{row}: the second burst");
        gate.add_permits(100);
        ends(next).await;
        assert_eq!(setup.stats().waiting, 0);
    }
}

#[tokio::test]
async fn a_storable_answer_or_two_minutes_let_requests_wait_again() {
    for storable in [true, false] {
        let (gate, handler) = gated(move |number, _| {
            let control = if number == 2 && storable { "max-age=1" } else { "no-store" };
            Ok(answer(&[("cache-control", control)], whole("a")))
        });
        let setup = around(handler);
        gate.add_permits(1);
        setup.get("/").await;
        if storable {
            gate.add_permits(1);
            setup.get("/").await;
            setup.clock.advance(Duration::from_secs(2));
        } else {
            setup.clock.advance(Duration::from_secs(121));
        }
        let calls = setup.handler.calls();
        let all = crowd(&setup, vec![get("/"), get("/"), get("/")]).await;
        assert_eq!(setup.handler.calls(), calls + 1);
        gate.add_permits(100);
        ends(all).await;
    }
}

#[tokio::test]
async fn after_an_error_one_of_the_others_tries_and_then_all_go_on_their_own() {
    type Fails = fn(usize) -> bool;
    let rows: [(&str, Fails, usize); 2] = [("once", |n| n == 1, 2), ("always", |_| true, 10)];
    for (row, fails, calls) in rows {
        let (gate, handler) = gated(move |n, _| if fails(n) { Err(Broken("no")) } else { Ok(fresh(whole("good"))) });
        let setup = around(handler);
        let all = crowd(&setup, (0..10).map(|_| get("/")).collect()).await;
        gate.add_permits(100);
        let failed = ends(all).await.iter().filter(|got| got.is_err()).count();
        assert_eq!((setup.handler.calls(), failed), (calls, if calls == 2 { 1 } else { 10 }), "{row}");
    }
}

#[tokio::test]
async fn a_handler_that_panics_costs_the_others_one_more_call() {
    let (gate, handler) = gated(|number, _| if number == 1 { panic!("on purpose") } else { Ok(fresh(whole("good"))) });
    let setup = around(handler);
    let mut all = crowd(&setup, (0..5).map(|_| get("/")).collect()).await;
    gate.add_permits(100);
    assert!(all.remove(0).await.unwrap_err().is_panic());
    assert!(ends(all).await.iter().all(|got| got.as_ref().is_ok_and(|got| got.content == b"good")));
    assert_eq!(setup.handler.calls(), 2);
    assert_eq!((setup.stats().fills_in_flight, setup.stats().waiting), (0, 0));
}

#[tokio::test]
async fn a_leader_whose_client_leaves_changes_nothing_for_the_others() {
    let (gate, handler) = gated(|_, _| Ok(fresh(whole("good"))));
    let setup = around(handler);
    let mut all = crowd(&setup, (0..3).map(|_| get("/")).collect()).await;
    let leader = all.remove(0);
    leader.abort();
    let _ = leader.await;
    settle().await;
    gate.add_permits(100);
    assert!(ends(all).await.iter().all(|got| got.as_ref().is_ok_and(|got| got.content == b"good")));
    assert_eq!((setup.handler.calls(), setup.stats().fills_handed_over), (1, 1));
}

#[tokio::test]
async fn each_variant_is_asked_for_once() {
    let (gate, handler) = gated(|_, request| {
        let language = request.headers["accept-language"].to_str().expect("a text");
        Ok(answer(&[FRESH, ("vary", "accept-language")], whole(format!("in {language}"))))
    });
    let setup = around(handler);
    let languages = ["en", "de", "fr"];
    let ask = || (0..30).map(|n| get_with("/", &[("accept-language", languages[n % 3])])).collect();
    let all = crowd(&setup, ask()).await;
    assert_eq!(setup.handler.calls(), 1, "nobody knows yet that it varies");
    gate.add_permits(1);
    settle().await;
    assert_eq!(setup.handler.calls(), 3, "now the first of each goes at once");
    gate.add_permits(100);
    for (n, got) in ends(all).await.into_iter().enumerate() {
        assert_eq!(got.expect("an answer").content, format!("in {}", languages[n % 3]).into_bytes());
    }
    assert_eq!(setup.handler.calls(), 3);
    // With a variant in the store it is known from the beginning.
    setup.handle.purge(Selector::Everything).await.unwrap();
    let left = gate.available_permits();
    gate.forget_permits(left - 1);
    assert_eq!(read(setup.send(get_with("/", &[("accept-language", "en")])).await).await.content, b"in en");
    let others = (0..20).map(|n| get_with("/", &[("accept-language", languages[1 + n % 2])])).collect();
    let all = crowd(&setup, others).await;
    assert_eq!(setup.handler.calls(), 6, "two more, though none has answered");
    gate.add_permits(100);
    ends(all).await;
    assert_eq!(setup.handler.calls(), 6);
}

#[tokio::test]
async fn what_makes_requests_different_keeps_them_apart() {
    type Requests = fn() -> Vec<Request<Empty<Bytes>>>;
    let rows: [(&str, Requests, usize); 7] = [
        ("paths", || vec![get("/a"), get("/b")], 2),
        ("queries", || vec![get("/?a"), get("/?b")], 2),
        ("credentials", || vec![get("/"), get_with("/", &[("authorization", "x")])], 2),
        ("no-cache", || vec![get("/"), get_with("/", &[("cache-control", "no-cache")])], 2),
        ("no-store", || vec![get("/"), get_with("/", &[("cache-control", "no-store")])], 2),
        ("HEAD", || vec![get("/"), Request::head("/").header("host", "larder.test").body(Empty::new()).unwrap()], 2),
        ("conditions", || vec![get("/"), get_with("/", &[("if-none-match", "\"x\"")])], 1),
    ];
    for (row, requests, calls) in rows {
        let (gate, handler) = gated(|_, _| Ok(fresh(whole("a"))));
        let setup = around(handler);
        let all = crowd(&setup, requests()).await;
        assert_eq!(setup.handler.calls(), calls, "{row}");
        gate.add_permits(100);
        ends(all).await;
    }
}

#[tokio::test]
async fn partitions_never_share_a_fill() {
    let (gate, handler) = gated(|_, request| Ok(fresh(whole(request.headers["user"].as_bytes().to_vec()))));
    let per = |request: &larder::RequestHead<'_>| request.headers.get("user").map(|user| user.as_bytes().to_vec());
    let setup = set_up(handler, |layer| layer.otherwise(Policy::per(per, Duration::from_secs(60))));
    let all = crowd(&setup, (0..20).map(|n| get_with("/", &[("user", ["ann", "bob"][n % 2])])).collect()).await;
    assert_eq!(setup.handler.calls(), 2);
    gate.add_permits(100);
    for (n, got) in ends(all).await.into_iter().enumerate() {
        assert_eq!(got.expect("an answer").content, ["ann", "bob"][n % 2].as_bytes());
    }
}

#[tokio::test]
async fn a_follower_gets_no_cookie_that_was_meant_for_the_leader() {
    let (gate, handler) = gated(|_, _| Ok(answer(&[FRESH, ("set-cookie", "session=leader")], whole("a"))));
    let setup = set_up(handler, |layer| layer.otherwise(Policy::shared(Duration::from_secs(60)).drop_set_cookie()));
    let all = crowd(&setup, (0..3).map(|_| get("/")).collect()).await;
    gate.add_permits(1);
    let cookies: Vec<bool> =
        ends(all).await.iter().map(|got| got.as_ref().unwrap().headers.contains_key("set-cookie")).collect();
    assert_eq!(cookies, [true, false, false]);
}

#[tokio::test]
async fn nobody_joins_a_fill_after_a_purge_or_a_write() {
    for way in ["uri", "everything", "write"] {
        let (gate, handler) = gated(|number, _| Ok(fresh(whole(format!("answer {number}")))));
        let setup = around(handler);
        let before = crowd(&setup, vec![get("/"), get("/")]).await;
        match way {
            "uri" => drop(setup.handle.purge(Selector::Uri("/".into())).await.unwrap()),
            "everything" => drop(setup.handle.purge(Selector::Everything).await.unwrap()),
            _ => {
                gate.add_permits(1);
                // The write takes the permit that comes first, since the leader's future asked before: so both are let through.
                gate.add_permits(1);
                let write = Request::post("/").header("host", "larder.test").body(Empty::new()).unwrap();
                read(setup.send(write).await).await;
            }
        }
        let after = crowd(&setup, vec![get("/"), get("/")]).await;
        gate.add_permits(100);
        ends(before).await;
        let after: Vec<_> = ends(after).await.into_iter().map(|got| got.unwrap().content).collect();
        assert_eq!(after[0], after[1], "{way}");
        assert_ne!(after[0], b"answer 1", "{way}");
    }
}

#[tokio::test]
async fn a_follower_has_its_own_conditions_and_its_own_part() {
    let content = "0123456789".repeat(4000);
    let (gate, handler) = {
        let content = content.clone();
        gated(move |_, _| {
            Ok(answer(&[FRESH, ("etag", "\"1\""), ("content-length", "40000")], stream([data(content.clone())])))
        })
    };
    let setup = around(handler);
    let all = crowd(
        &setup,
        vec![get("/"), get_with("/", &[("if-none-match", "\"1\"")]), get_with("/", &[("range", "bytes=5-14")])],
    )
    .await;
    gate.add_permits(1);
    let all: Vec<Got> = ends(all).await.into_iter().map(Result::unwrap).collect();
    assert_eq!((all[0].status.as_u16(), all[0].content.len()), (200, 40_000));
    assert_eq!((all[1].status.as_u16(), all[1].content.len()), (304, 0));
    assert_eq!((all[2].status.as_u16(), all[2].content.as_slice()), (206, &b"5678901234"[..]));
    assert_eq!(setup.handler.calls(), 1);
}

#[tokio::test]
async fn the_outcome_of_a_follower_says_so() {
    let (gate, handler) = gated(|_, _| Ok(fresh(whole("a"))));
    let setup = around(handler);
    let mut leader = pin!(setup.begin("/"));
    assert!(poll_immediate(&mut leader).await.is_none());
    let mut follower = pin!(setup.begin("/"));
    assert!(follower.as_mut().poll(&mut Context::from_waker(noop_waker_ref())).is_pending());
    gate.add_permits(1);
    drop(leader.await);
    let response = follower.await;
    let outcome = response.extensions().get::<CacheOutcome>().expect("in every answer");
    assert_eq!(outcome.outcome, Outcome::Collapsed(ForwardReason::UriMiss));
}
