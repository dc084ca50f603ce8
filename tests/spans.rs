//! Fills, those who wait for them, and refreshes have spans, which say what came of them and which of them belong together.

mod support;

use std::sync::Arc;

use bytes::Bytes;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use larder::{CacheLayer, Policy};
use support::exchange::*;
use support::traces::{Span, Traces, listen};
use tokio::sync::Semaphore;
use tower::ServiceExt;
use tracing::Instrument;

const FRESH: (&str, &str) = ("cache-control", "max-age=60");

fn fields(span: &Span) -> Vec<(&str, &str)> {
    span.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

#[tokio::test]
async fn a_fill_says_which_rule_why_and_what_came_of_it() {
    listen();
    type Fields = &'static [(&'static str, &'static str)];
    let rows: [(&str, Fields, Fields); 3] = [
        ("/a", &[FRESH], &[("outcome", "MISS"), ("reason", "uri-miss"), ("rule", "^/a"), ("why", "uri-miss")]),
        ("/b", &[FRESH], &[("outcome", "MISS"), ("reason", "uri-miss"), ("rule", "otherwise"), ("why", "uri-miss")]),
        (
            "/a",
            &[("cache-control", "private")],
            &[
                ("decline", "private"),
                ("outcome", "MISS"),
                ("reason", "uri-miss"),
                ("rule", "^/a"),
                ("why", "uri-miss"),
            ],
        ),
    ];
    for (target, answered, expected) in rows {
        let traces = Traces::new();
        let answered = answered.to_vec();
        let handler = Handler::new(move |_, _| answer(200, &answered, "content"));
        let house = House::with(handler, |layer| layer.rule("^/a", Policy::from_origin()));
        house.get(target).await;
        let [fill] = &traces.spans("fill")[..] else { panic!("one fill") };
        assert_eq!(fields(fill), expected);
        assert!(fill.closed);
    }
}

#[tokio::test]
async fn a_hit_has_no_span() {
    listen();
    let house = House::new(Handler::saying(&[FRESH]));
    house.get("/").await;
    let traces = Traces::new();
    assert_eq!(house.get("/").await.x_cache, "HIT");
    assert!(["fill", "follow", "refresh"].iter().all(|name| traces.spans(name).is_empty()));
    assert_eq!(traces.events().len(), 1);
}

#[tokio::test]
async fn what_comes_to_light_in_the_content_is_said_by_the_span_of_the_fill() {
    listen();
    let traces = Traces::new();
    let handler = Handler::new(|_, _| {
        let frames: [Result<Frame<Bytes>, Failure>; 2] = [Ok(Frame::data(Bytes::from("a"))), Err(Failure)];
        answer(200, &[FRESH], "").map(|_| BodyExt::boxed(StreamBody::new(futures_util::stream::iter(frames))))
    });
    let house = House::with(handler, |layer| layer.eager_etag_size(0));
    let response = house.service.clone().oneshot(get("/")).await.unwrap();
    let [fill] = &traces.spans("fill")[..] else { panic!("one fill") };
    assert!(!fill.closed && !fill.fields.contains_key("decline"), "nobody knows yet");
    assert!(response.into_body().collect().await.is_err());
    let [fill] = &traces.spans("fill")[..] else { panic!("one fill") };
    assert_eq!((fill.closed, fill.fields.get("decline").map(String::as_str)), (true, Some("incomplete")));
}

#[tokio::test]
async fn those_who_wait_follow_the_fill_that_they_wait_for() {
    listen();
    let traces = Traces::new();
    let gate = Arc::new(Semaphore::new(0));
    let leave = gate.clone();
    let handler = Handler::waiting(move |_, _| {
        let leave = leave.clone();
        async move {
            leave.acquire().await.expect("never closed").forget();
            Ok(answer(200, &[FRESH], "content"))
        }
    });
    let house = House::new(handler);
    let all: Vec<_> = (0..3)
        .map(|_| {
            let house = house.clone();
            tokio::spawn(async move { house.get("/").await })
        })
        .collect();
    quiet().await;
    gate.add_permits(1);
    for asked in all {
        asked.await.unwrap();
    }
    let [fill] = &traces.spans("fill")[..] else { panic!("one fill") };
    let followers = traces.spans("follow");
    assert_eq!(followers.len(), 2);
    for follower in &followers {
        assert_eq!(follower.follows, [fill.id]);
        assert_eq!(
            fields(follower),
            [("outcome", "MISS"), ("reason", "uri-miss"), ("rule", "otherwise"), ("why", "uri-miss")]
        );
        assert!(follower.closed);
    }
}

#[tokio::test]
async fn a_refresh_follows_the_request_that_caused_it_and_is_no_part_of_it() {
    listen();
    let house = House::with(Handler::saying(&[("cache-control", "max-age=60, stale-while-revalidate=60")]), |layer| {
        layer.rule("^/news", Policy::from_origin())
    });
    house.get("/news").await;
    house.advance(61);
    let traces = Traces::new();
    let request = tracing::info_span!(target: "larder", "request");
    let id = request.id().expect("it is on").into_u64();
    assert_eq!(house.get("/news").instrument(request).await.x_cache, "STALE");
    let [request] = &traces.spans("request")[..] else { panic!("one request") };
    assert!(request.closed, "it doesn't wait for the refresh");
    quiet().await;
    let [refresh] = &traces.spans("refresh")[..] else { panic!("one refresh") };
    assert_eq!(refresh.follows, [id]);
    assert_eq!(fields(refresh), [("outcome", "MISS"), ("reason", "stale"), ("rule", "^/news")]);
    assert!(refresh.closed);
}

#[tokio::test]
async fn what_goes_on_after_its_time_limit_is_a_refresh() {
    listen();
    let gate = Arc::new(Semaphore::new(1));
    let leave = gate.clone();
    let handler = Handler::waiting(move |_, _| {
        let leave = leave.clone();
        async move {
            leave.acquire().await.expect("never closed").forget();
            Ok(answer(200, &[("cache-control", "max-age=60, stale-if-error=600")], "content"))
        }
    });
    let layer = CacheLayer::in_memory(1 << 20).otherwise(Policy::from_origin().fill_timeout(secs(1)));
    let house = House::around(handler, layer);
    house.get("/").await;
    house.advance(61);
    let traces = Traces::new();
    tokio::time::pause();
    assert_eq!(house.get("/").await.x_cache, "STALE");
    gate.add_permits(1);
    quiet().await;
    let [fill] = &traces.spans("fill")[..] else { panic!("one fill") };
    assert_eq!(fill.fields["reason"], "stale-if-error");
    let [refresh] = &traces.spans("refresh")[..] else { panic!("one refresh") };
    assert_eq!((&refresh.follows[..], refresh.closed), (&[fill.id][..], true));
    assert_eq!(refresh.fields["outcome"], "MISS");
}
