//! What a response is made from gives it its tags: through the handle in the request, or by itself inside the handler's task, up to the end of the body.

mod support;

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::Request;
use http::request::Parts;
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use larder::{CacheLayer, Cached, Policy, Selector, UsedTags};
use support::exchange::*;
use tokio::sync::Semaphore;
use tower::{Layer, ServiceExt};

const FRESH: (&str, &str) = ("cache-control", "max-age=60");

/// Asks the database for a product.
async fn product(id: u64) -> String {
    let tags = UsedTags::current();
    tokio::task::yield_now().await;
    tags.add(format!("product:{id}"));
    format!("product {id}")
}

async fn purge(house: &House, tag: &str) {
    house.handle.purge(Selector::Tag(tag.into())).await.unwrap_or_else(|error| panic!("{tag}: {error}"));
}

/// Whether what is stored for a target survives the purge of a tag.
async fn survives(house: &House, target: &str, tag: &str) -> bool {
    house.get(target).await;
    quiet().await;
    assert_eq!(house.get(target).await.x_cache, "HIT", "{target} is stored");
    purge(house, tag).await;
    house.get(target).await.x_cache == "HIT"
}

type Answering = fn(Parts) -> BoxFuture<'static, Answer>;

/// Where and when a handler uses `product:1`.
const WAYS: [(&str, Answering); 7] = [
    ("by its request, before it answers", |head| {
        UsedTags::of(&head.extensions).add("product:1");
        async { Ok(answer(200, &[FRESH], "content")) }.boxed()
    }),
    ("by its request, while the content is ready", |head| {
        let tags = UsedTags::of(&head.extensions);
        let content = async move {
            tags.add("product:1");
            Ok(Frame::data(Bytes::from("content")))
        };
        answered(content)
    }),
    ("by its request, while the content streams", |head| {
        let tags = UsedTags::of(&head.extensions);
        let content = async move {
            tokio::task::yield_now().await;
            tags.add("product:1");
            Ok(Frame::data(Bytes::from("content")))
        };
        answered(content)
    }),
    ("below it", |_| async { Ok(answer(200, &[FRESH], product(1).await)) }.boxed()),
    ("below its body", |_| answered(async { Ok(Frame::data(Bytes::from(product(1).await))) })),
    ("in a task of its own", |_| {
        let task = UsedTags::current().scope(product(1));
        async { Ok(answer(200, &[FRESH], tokio::spawn(task).await.expect("no panic"))) }.boxed()
    }),
    ("beside what it names itself", |_| {
        let answering = async {
            let mut response = answer(200, &[("cache-tag", "own")], product(1).await);
            response.extensions_mut().insert(Cached::shared(MINUTE).tag("own:too"));
            Ok(response)
        };
        answering.boxed()
    }),
];

/// An answer with content that comes when it does.
fn answered(
    content: impl Future<Output = Result<Frame<Bytes>, Failure>> + Send + Sync + 'static,
) -> BoxFuture<'static, Answer> {
    let response = answer(200, &[FRESH], "").map(|_| StreamBody::new(content.into_stream()).boxed());
    async { Ok(response) }.boxed()
}

#[tokio::test]
async fn a_response_bears_the_tags_of_what_it_is_made_from() {
    for (way, answering) in WAYS {
        let house = House::new(Handler::waiting(move |head, _| answering(head)));
        for (tag, expected) in [("product", false), ("product:1", false), ("product:2", true), ("products", true)] {
            assert_eq!(survives(&house, "/a", tag).await, expected, "{way}, {tag}");
        }
        assert_eq!(house.handle.stats().tags_too_late, 0, "{way}");
    }
}

#[tokio::test]
async fn switched_off_nothing_is_heard() {
    for (way, answering) in WAYS {
        let house = House::with(Handler::waiting(move |head, _| answering(head)), |layer| layer.propagate_tags(false));
        assert!(survives(&house, "/a", "product:1").await, "{way}");
    }
}

#[tokio::test]
async fn nobody_listens_where_nothing_is_stored() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = heard.clone();
    let handler = Handler::new(move |head, _| {
        let [of, current] = [UsedTags::of(&head.extensions), UsedTags::current()].map(|tags| tags.is_heard());
        hears.lock().expect("no panic").push((of, current));
        answer(200, &[FRESH], "content")
    });
    let house = House::with(handler, |layer| layer.rule("^/bypass", Policy::bypass()));
    for (method, target) in [("GET", "/a"), ("GET", "/bypass"), ("POST", "/a"), ("GET", "/b")] {
        house.exchange(request(method, target, &[])).await;
    }
    assert_eq!(*heard.lock().expect("no panic"), [(true, true), (false, false), (false, false), (true, true)]);
    assert!(!UsedTags::current().is_heard(), "outside of a handler");
}

#[tokio::test]
async fn another_task_is_not_heard_unless_it_is_given_the_tags() {
    let handler = Handler::waiting(|_, _| async {
        let read = tokio::spawn(product(1)).await.expect("no panic");
        Ok(answer(200, &[FRESH], read))
    });
    assert!(survives(&House::new(handler), "/a", "product:1").await);
}

#[tokio::test]
async fn what_comes_when_the_response_is_stored_is_ignored_and_counted() {
    for asked_before in [true, false] {
        let kept = Arc::new(Mutex::new(None));
        let keeps = kept.clone();
        let handler = Handler::new(move |head, _| {
            let tags = asked_before.then(|| UsedTags::of(&head.extensions));
            *keeps.lock().expect("no panic") = Some((head.extensions.clone(), tags));
            answer(200, &[FRESH], "content")
        });
        let house = House::new(handler);
        house.get("/a").await;
        let (extensions, tags) = kept.lock().expect("no panic").take().expect("the handler was asked");
        let tags = tags.unwrap_or_else(|| UsedTags::of(&extensions));
        assert!(!tags.is_heard(), "asked before: {asked_before}");
        tags.add("product:1");
        assert_eq!(house.handle.stats().tags_too_late, 1, "asked before: {asked_before}");
        purge(&house, "product:1").await;
        assert_eq!(house.get("/a").await.x_cache, "HIT", "asked before: {asked_before}");
    }
}

/// A handler that uses `product:1`, waits for `gate`, and then answers; its head is there before or behind that.
fn waiting_for(gate: &Arc<Semaphore>, head_first: bool) -> Handler {
    let gate = gate.clone();
    Handler::waiting(move |_, n| {
        let gate = gate.clone();
        async move {
            let wait = async move {
                if n == 1 {
                    gate.acquire().await.expect("never closed").forget();
                }
            };
            if head_first {
                let content = async move {
                    let read = product(1).await;
                    wait.await;
                    Ok(Frame::data(Bytes::from(format!("{read}, read {n}"))))
                };
                // Somebody below the body may want it, which nobody knows yet.
                return answered(content).await;
            }
            let read = product(1).await;
            wait.await;
            Ok(answer(200, &[FRESH], format!("{read}, read {n}")))
        }
    })
}

fn asking(house: &House) -> tokio::task::JoinHandle<Exchange> {
    let house = house.clone();
    tokio::spawn(async move { house.get("/a").await })
}

#[tokio::test]
async fn a_purge_between_use_and_commit_is_not_survived() {
    for head_first in [false, true] {
        for (tag, stays) in [("product:1", false), ("product", false), ("product:2", true)] {
            let gate = Arc::new(Semaphore::new(0));
            let house = House::new(waiting_for(&gate, head_first));
            let leading = asking(&house);
            quiet().await;
            purge(&house, tag).await;
            // Who comes after the purge gets nothing that was read before it.
            let after = asking(&house);
            quiet().await;
            gate.add_permits(1);
            let (leading, after) = (leading.await.expect("no panic"), after.await.expect("no panic"));
            assert_eq!(leading.body, "product 1, read 1");
            if !stays {
                assert_eq!(after.body, "product 1, read 2", "head first: {head_first}, {tag}");
            }
            quiet().await;
            let now = house.get("/a").await;
            assert_eq!(now.x_cache, "HIT", "head first: {head_first}, {tag}");
            assert_eq!(
                now.body.ends_with("read 1"),
                stays && after.body == leading.body,
                "head first: {head_first}, {tag}"
            );
        }
    }
}

#[tokio::test]
async fn those_who_waited_have_the_response_with_its_tags() {
    for head_first in [false, true] {
        let gate = Arc::new(Semaphore::new(0));
        let house = House::new(waiting_for(&gate, head_first));
        let all = [asking(&house), asking(&house), asking(&house)];
        quiet().await;
        gate.add_permits(1);
        for one in all {
            assert_eq!(one.await.expect("no panic").body, "product 1, read 1", "head first: {head_first}");
        }
        assert_eq!(house.handler.calls(), 1, "head first: {head_first}");
        assert!(!survives(&house, "/a", "product:1").await, "head first: {head_first}");
    }
}

/// Uses one more product each time.
fn growing() -> Handler {
    Handler::waiting(|head, n| async move {
        let read = product(n as u64).await;
        if head.headers.contains_key("if-none-match") {
            return Ok(answer(304, &[FRESH, ("etag", "\"1\"")], ""));
        }
        Ok(answer(200, &[FRESH, ("etag", "\"1\"")], read))
    })
}

#[tokio::test]
async fn a_refresh_brings_its_own() {
    let policy = Policy::shared(MINUTE).stale_while_revalidate(MINUTE);
    for (tag, expected) in [("product:1", true), ("product:2", false)] {
        let handler = Handler::waiting(|_, n| async move { Ok(answer(200, &[], product(n as u64).await)) });
        let house = House::with(handler, |layer| layer.otherwise(policy.clone()));
        house.get("/a").await;
        house.advance(61);
        assert_eq!(house.get("/a").await.x_cache, "STALE");
        quiet().await;
        assert_eq!(survives(&house, "/a", tag).await, expected, "{tag}");
        assert_eq!(house.handler.calls(), if expected { 2 } else { 3 }, "{tag}");
    }
}

#[tokio::test]
async fn what_a_304_confirms_is_made_from_what_it_was_made_from() {
    for (tag, expected) in [("product:1", false), ("product:2", false), ("product:3", false), ("product:4", true)] {
        let house = House::new(growing());
        house.get("/a").await;
        for _ in 0..2 {
            house.advance(61);
            assert_eq!(house.get("/a").await.x_cache, "REVALIDATED");
        }
        assert_eq!(survives(&house, "/a", tag).await, expected, "{tag}");
    }
}

#[tokio::test]
async fn a_head_brings_no_doubt_about_what_the_content_is_made_from() {
    let handler = Handler::waiting(|head, _| async move {
        let read = if head.method == "GET" { product(1).await } else { String::new() };
        Ok(answer(200, &[FRESH, ("etag", "\"1\""), ("cache-tag", "own")], read))
    });
    let house = House::new(handler);
    house.get("/a").await;
    house.advance(61);
    house.exchange(request("HEAD", "/a", &[])).await;
    assert_eq!(house.get("/a").await.x_cache, "HIT", "freshened");
    assert!(!survives(&house, "/a", "product:1").await);
    assert_eq!(house.handler.calls(), 3);
}

#[tokio::test]
async fn an_answer_to_a_post_that_is_stored_bears_them_as_well() {
    for streams in [false, true] {
        let handler = Handler::waiting(move |head, _| async move {
            let here = [FRESH, ("content-location", "/a"), ("etag", "\"a\"")];
            if head.method == "GET" {
                return Ok(answer(200, &[FRESH], "got"));
            }
            if !streams {
                return Ok(answer(200, &here, product(1).await));
            }
            let content = async { Ok(Frame::data(Bytes::from(product(1).await))) };
            Ok(answer(200, &here, "").map(|_| StreamBody::new(content.into_stream()).boxed()))
        });
        let house = House::with(handler, |layer| layer.otherwise(Policy::from_origin().store_post(true)));
        let post = Request::from_parts(request("POST", "/a", &[]).into_parts().0, Full::from("12345"));
        house.exchange(post).await;
        quiet().await;
        let stored = house.get("/a").await;
        assert_eq!((stored.x_cache.as_str(), stored.body.as_str()), ("HIT", "product 1"), "streams: {streams}");
        purge(&house, "product:1").await;
        assert_eq!(house.get("/a").await.body, "got", "streams: {streams}");
    }
}

#[tokio::test]
async fn within_two_caches_both_have_them() {
    let handler = Handler::waiting(|_, _| async {
        let content = async { Ok(Frame::data(Bytes::from(product(1).await))) };
        let mut response = answer(200, &[FRESH], product(2).await);
        *response.body_mut() = StreamBody::new(content.into_stream()).boxed();
        Ok(response)
    });
    for tag in ["product:1", "product:2"] {
        let [outer, inner] = [(); 2].map(|()| CacheLayer::in_memory(1 << 20));
        let app = outer.layer(inner.layer(handler.clone()));
        let ask = || async {
            Exchange::read(app.clone().oneshot(get("/a")).await.expect("an answer")).await.expect("a body")
        };
        ask().await;
        quiet().await;
        assert_eq!(ask().await.x_cache, "HIT", "{tag}");
        for layer in [&outer, &inner] {
            layer.handle().purge(Selector::Tag(tag.into())).await.expect("a purge");
        }
        let calls = handler.calls();
        ask().await;
        assert_eq!(handler.calls(), calls + 1, "{tag}: neither has it any more");
    }
}

#[tokio::test]
async fn more_than_a_response_may_bear_is_every_tag() {
    let handler = Handler::waiting(|_, _| async {
        let tags = UsedTags::current();
        (0..200).for_each(|id| tags.add(format!("product:{id}")));
        Ok(answer(200, &[FRESH], "all"))
    });
    let house = House::new(handler);
    assert!(!survives(&house, "/a", "product:199").await);
    assert!(!survives(&house, "/a", "something:else").await, "a miss too many, and never a stale answer");
}

/// The allocations of a miss, with all that comes behind it, through a cache set up so.
fn allocations(setup: fn(CacheLayer) -> CacheLayer, handler: fn() -> Handler) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let house = House::with(handler(), setup);
    let miss = |n: usize| {
        let request = get(&format!("/{n:03}"));
        let counted = allocation_counter::measure(|| {
            runtime.block_on(async {
                let response = house.service.clone().oneshot(request).await.expect("an answer");
                response.into_body().collect().await.expect("a body");
                quiet().await;
            });
        });
        counted.count_total
    };
    // What grows now and then isn't counted, nor what is spared now and then.
    let mut counts: Vec<u64> = (0..256).map(miss).collect();
    counts.sort_unstable();
    counts[counts.len() / 2]
}

#[test]
fn a_miss_that_uses_no_tags_allocates_no_more_than_without_them() {
    let plain = || Handler::saying(&[FRESH]);
    let streams = || Handler::waiting(|_, _| answered(async { Ok(Frame::data(Bytes::from("content"))) }));
    for handler in [plain as fn() -> Handler, streams] {
        let [on, off] = [true, false]
            .map(|on| allocations(if on { |layer| layer } else { |layer| layer.propagate_tags(false) }, handler));
        assert_eq!(on, off);
    }
    let uses = || Handler::waiting(|_, _| async { Ok(answer(200, &[FRESH], product(1).await)) });
    assert!(
        allocations(|layer| layer, uses) > allocations(|layer| layer.propagate_tags(false), uses),
        "what is counted is counted"
    );
}

#[cfg(feature = "axum")]
#[tokio::test]
async fn with_axum_they_are_an_argument() {
    use axum::body::Body;
    use axum::{Router, routing};
    async fn handler(tags: UsedTags) -> String {
        tags.add("product:1");
        tags.is_heard().to_string()
    }
    let cache = CacheLayer::in_memory(1 << 20).otherwise(Policy::shared(MINUTE));
    let app = Router::new().route("/a", routing::get(handler));
    let ask = async |app: Router| {
        let request = Request::builder().uri("/a").header("host", "a").body(Body::empty()).expect("a request");
        Exchange::read(app.oneshot(request).await.expect("an answer")).await.expect("a body")
    };
    assert_eq!(ask(app.clone()).await.body, "false", "no cache, and no error");
    let app = app.layer(cache.clone());
    assert_eq!(ask(app.clone()).await.body, "true");
    assert_eq!(ask(app.clone()).await.x_cache, "HIT");
    cache.handle().purge(Selector::Tag("product".into())).await.expect("a purge");
    assert_eq!(ask(app.clone()).await.x_cache, "MISS");
}
