//! QUERY (RFC 10008): forwarded unless it is switched on; then what was asked with the same content is answered from the store, and the handler gets
//! what the client sent in every case.

mod support;

use std::convert::identity;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::BodyExt;
use larder::{CacheHandle, CacheLayer, ManualClock, Policy, QueryBody, Selector};
use support::bodies::{Broken, Content, Got, Script, Step, answer, data, read, settle, stream, trailers, whole};
use support::exchange::secs;
use tower::util::BoxCloneSyncService;
use tower::{Layer, ServiceExt, service_fn};

/// What the handler got of a request's content: all chunks as one, trailers, and how it ended.
#[derive(Clone, Debug, PartialEq)]
struct Asked {
    method: String,
    content: String,
    trailer: Option<String>,
    end: Result<(), Broken>,
}

struct House {
    service: BoxCloneSyncService<Request<Content>, Response<larder::ResponseBody<Content>>, Broken>,
    asked: Arc<Mutex<Vec<Asked>>>,
    clock: Arc<ManualClock>,
    handle: CacheHandle,
}

/// A handler that tells what it was asked, and is good for a minute.
fn house(set_up: impl FnOnce(CacheLayer) -> CacheLayer) -> House {
    let (asked, clock) = (Arc::<Mutex<Vec<Asked>>>::default(), Arc::new(ManualClock::default()));
    let handler = service_fn({
        let asked = asked.clone();
        move |request: Request<Content>| {
            let asked = asked.clone();
            async move {
                let (parts, mut body) = request.into_parts();
                let mut got =
                    Asked { method: parts.method.to_string(), content: String::new(), trailer: None, end: Ok(()) };
                while let Some(frame) = body.frame().await {
                    match frame.map(|frame| frame.into_data()) {
                        Ok(Ok(chunk)) => got.content.push_str(&String::from_utf8_lossy(&chunk)),
                        Ok(Err(frame)) => {
                            let fields = frame.into_trailers().expect("neither data nor trailers?");
                            got.trailer = fields.get("x-end").map(|value| value.to_str().expect("text").to_owned());
                        }
                        Err(error) => {
                            got.end = Err(error);
                            break;
                        }
                    }
                }
                let known = parts.headers.contains_key("if-none-match");
                let mut all = asked.lock().expect("no holder panics");
                all.push(got.clone());
                let fields = [("cache-control", "max-age=60, stale-while-revalidate=10"), ("etag", "\"a\"")];
                let text = format!("{} {}: {}", all.len(), got.method, got.content);
                let mut response = answer(&fields, whole(if known { String::new() } else { text }));
                if known {
                    *response.status_mut() = http::StatusCode::NOT_MODIFIED;
                }
                Ok::<_, Broken>(response)
            }
        }
    });
    let layer = set_up(CacheLayer::in_memory(1 << 20).clock(clock.clone()));
    House { service: BoxCloneSyncService::new(layer.layer(handler)), asked, clock, handle: layer.handle() }
}

/// With QUERY switched on.
fn querying(set_up: impl FnOnce(CacheLayer) -> CacheLayer) -> House {
    house(|layer| set_up(layer.cache_query_method(|body: QueryBody<Content>| body.boxed_unsync())))
}

impl House {
    async fn send(&self, request: Request<Content>) -> Got {
        read(self.service.clone().oneshot(request).await.expect("the handler doesn't fail")).await
    }

    async fn query(&self, target: &str, fields: &[(&str, &str)], content: &'static str) -> Got {
        self.send(request("QUERY", target, fields, whole(content))).await
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no holder panics").clone()
    }
}

fn request(method: &str, target: &str, fields: &[(&str, &str)], content: Content) -> Request<Content> {
    let mut request = Request::builder().method(method).uri(target).header("host", "example.com");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(content).expect("a valid request")
}

type Fields = &'static [(&'static str, &'static str)];

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

#[tokio::test]
async fn by_default_it_is_forwarded_and_invalidates_nothing() {
    let house = house(identity);
    assert_eq!(house.send(request("GET", "/a", &[], whole(""))).await.x_cache, "MISS");
    for _ in 0..2 {
        let got = house.query("/a", &JSON, "q").await;
        assert_eq!(
            (got.x_cache.as_str(), &got.headers["cache-status"]),
            ("BYPASS", &"larder; fwd=method".parse().unwrap())
        );
    }
    assert_eq!(house.send(request("GET", "/a", &[], whole(""))).await.x_cache, "HIT");
    assert_eq!(house.asked().len(), 3);
}

#[tokio::test]
async fn the_same_question_is_answered_from_the_store_and_no_other() {
    // RFC 10008 §2.7
    let rows: [(&str, Fields, &'static str, &str); 11] = [
        ("/a", &JSON, "one", "MISS"),
        ("/a", &JSON, "one", "HIT"),
        ("/a", &JSON, "two", "MISS"),
        ("/a", &JSON, "one ", "MISS"),
        ("/a", &JSON, "", "MISS"),
        ("/a?x", &JSON, "one", "MISS"),
        ("/b", &JSON, "one", "MISS"),
        ("/a", &[("content-type", "text/plain")], "one", "MISS"),
        ("/a", &[], "one", "MISS"),
        ("/a", &[JSON[0], ("content-encoding", "gzip")], "one", "MISS"),
        ("/a", &[JSON[0], ("content-language", "de")], "one", "MISS"),
    ];
    let house = querying(identity);
    for (target, fields, content, expected) in rows {
        let got = house.query(target, fields, content).await;
        assert_eq!(got.x_cache, expected, "{target} {fields:?} {content:?}");
    }
    for (target, fields, content, _) in rows {
        let got = house.query(target, fields, content).await;
        assert_eq!(got.x_cache, "HIT", "each has a place of its own: {target} {fields:?} {content:?}");
        assert!(String::from_utf8_lossy(&got.content).ends_with(&format!("QUERY: {content}")));
    }
    for method in ["HEAD", "GET"] {
        assert_eq!(house.send(request(method, "/a", &[], whole(""))).await.x_cache, "MISS", "{method} asks otherwise");
    }
}

#[tokio::test]
async fn the_handler_gets_what_the_client_sent() {
    let rows: Vec<(Vec<Step>, Asked, &str)> = vec![
        (vec![data("a"), data("b"), data("c")], asked("abc", None, Ok(())), "HIT"),
        (vec![], asked("", None, Ok(())), "HIT"),
        (vec![data("12345678")], asked("12345678", None, Ok(())), "HIT"),
        (vec![data("123456789")], asked("123456789", None, Ok(())), "BYPASS"),
        (vec![data("1234"), data("56789"), data("more")], asked("123456789more", None, Ok(())), "BYPASS"),
        (vec![data("a"), trailers("x-end", "1")], asked("a", Some("1"), Ok(())), "BYPASS"),
        (vec![data("1234"), data("56789"), trailers("x-end", "2")], asked("123456789", Some("2"), Ok(())), "BYPASS"),
        (vec![data("a"), Err(Broken("gone"))], asked("a", None, Err(Broken("gone"))), "BYPASS"),
        (vec![data("123456789"), Err(Broken("late"))], asked("123456789", None, Err(Broken("late"))), "BYPASS"),
    ];
    for (steps, expected, second) in rows {
        for paced in [false, true] {
            let house = querying(|layer| layer.max_query_content(8));
            for round in ["first", second] {
                let steps: Vec<Step> = steps.iter().map(again).collect();
                let got =
                    house.send(request("QUERY", "/a", &JSON, Script::new(steps).paced(paced).boxed_unsync())).await;
                if round != "first" {
                    assert_eq!(got.x_cache, second, "{expected:?}");
                }
                if second == "BYPASS" {
                    assert_eq!(got.headers["cache-status"], "larder; fwd=bypass; detail=query-content");
                }
            }
            let all = house.asked();
            assert!(all.iter().all(|asked| *asked == expected), "{all:?}, not {expected:?}");
            assert_eq!(all.len(), if second == "HIT" { 1 } else { 2 });
        }
    }
}

fn asked(content: &str, trailer: Option<&str>, end: Result<(), Broken>) -> Asked {
    Asked { method: "QUERY".into(), content: content.into(), trailer: trailer.map(str::to_owned), end }
}

fn again(step: &Step) -> Step {
    match step {
        Ok(frame) => match (frame.data_ref(), frame.trailers_ref()) {
            (Some(chunk), _) => data(chunk.clone()),
            (_, Some(_)) => {
                trailers("x-end", if frame.trailers_ref().is_some_and(|t| t["x-end"] == "1") { "1" } else { "2" })
            }
            _ => unreachable!("a frame has data or trailers"),
        },
        Err(broken) => Err(broken.clone()),
    }
}

#[tokio::test]
async fn content_that_says_it_is_too_large_isnt_waited_for() {
    let house = querying(|layer| layer.max_query_content(8));
    // Announced before a byte of it has arrived: it is handed on as it is.
    let slow = Script::new([data("123456789")]).claiming(9).paced(true).boxed_unsync();
    let got = house.send(request("QUERY", "/a", &JSON, slow)).await;
    assert_eq!((got.x_cache.as_str(), house.asked()[0].content.as_str()), ("BYPASS", "123456789"));
}

#[tokio::test]
async fn the_size_of_what_the_handler_gets_is_as_exact_as_what_the_client_sent() {
    let sizes = Arc::<Mutex<Vec<(u64, Option<u64>)>>>::default();
    let handler = service_fn({
        let sizes = sizes.clone();
        move |request: Request<Content>| {
            let hint = request.body().size_hint();
            sizes.lock().expect("no holder panics").push((hint.lower(), hint.upper()));
            std::future::ready(Ok::<_, Broken>(answer(&[], whole(""))))
        }
    });
    let layer = CacheLayer::in_memory(1 << 20).max_query_content(8);
    let layer = layer.cache_query_method(|body: QueryBody<Content>| body.boxed_unsync());
    let service = layer.layer(handler);
    for body in [whole("12345678"), stream([data("12")]), whole("123456789"), stream([data("1234"), data("56789")])] {
        service.clone().oneshot(request("QUERY", "/", &[], body)).await.expect("it answers");
    }
    assert_eq!(*sizes.lock().expect("no holder panics"), [(8, Some(8)), (2, Some(2)), (9, Some(9)), (9, None)]);
}

#[tokio::test]
async fn bodies_of_another_type_are_forwarded() {
    type Other = http_body_util::Full<Bytes>;
    let house = house(|layer| layer.cache_query_method(|_: QueryBody<Other>| unreachable!("this type isn't used")));
    for _ in 0..2 {
        let got = house.query("/a", &JSON, "q").await;
        assert_eq!(
            (got.x_cache.as_str(), &got.headers["cache-status"]),
            ("BYPASS", &"larder; fwd=bypass; detail=query-content".parse().unwrap())
        );
    }
    assert_eq!(house.asked()[1], asked("q", None, Ok(())));
}

#[tokio::test]
async fn conditions_and_ranges_are_those_of_a_get() {
    // RFC 10008 §2: conditional QUERY and ranges are about the result
    let house = querying(identity);
    house.query("/a", &JSON, "q").await;
    let got = house.query("/a", &[JSON[0], ("if-none-match", "\"a\"")], "q").await;
    assert_eq!((got.x_cache.as_str(), got.status.as_u16()), ("HIT", 304));
    let got = house.query("/a", &[JSON[0], ("range", "bytes=0-0")], "q").await;
    assert_eq!((got.x_cache.as_str(), got.status.as_u16(), &got.content[..]), ("HIT", 206, &b"1"[..]));
    house.clock.advance(secs(100));
    assert_eq!(house.query("/a", &JSON, "q").await.x_cache, "REVALIDATED");
    assert_eq!(house.asked()[1], asked("q", None, Ok(())), "the condition goes with the question");
}

#[tokio::test]
async fn a_refresh_asks_the_same_question() {
    let house = querying(identity);
    house.query("/a", &JSON, "q").await;
    house.clock.advance(secs(65));
    assert_eq!(house.query("/a", &JSON, "q").await.x_cache, "STALE");
    settle().await;
    assert_eq!(house.asked()[1], asked("q", None, Ok(())));
    assert_eq!(house.query("/a", &JSON, "q").await.x_cache, "HIT");
}

#[tokio::test]
async fn a_write_or_a_purge_of_the_uri_takes_all_its_answers() {
    for by_write in [false, true] {
        let house = querying(identity);
        house.query("/a", &JSON, "one").await;
        house.query("/a", &JSON, "two").await;
        house.query("/b", &JSON, "one").await;
        if by_write {
            house.send(request("PUT", "/a", &[], whole(""))).await;
        } else {
            house.handle.purge(Selector::Uri("/a".into())).await.expect("a path");
        }
        for (target, content, expected) in [("/a", "one", "MISS"), ("/a", "two", "MISS"), ("/b", "one", "HIT")] {
            assert_eq!(house.query(target, &JSON, content).await.x_cache, expected, "{target}, by write: {by_write}");
        }
    }
}

#[tokio::test]
async fn what_keeps_a_get_out_keeps_a_query_out_before_its_content_is_read() {
    let house =
        querying(|layer| layer.rule("^/checkout", Policy::bypass()).rule("^/guarded", Policy::guarded(secs(9))));
    let rows: [(&str, Fields, &str); 3] = [
        ("/checkout", &[], "rule"),
        ("/guarded", &[("cookie", "session=1")], "credentials"),
        ("/a", &[("x-http-method-override", "PUT")], "rerouted"),
    ];
    for (target, fields, detail) in rows {
        // More than would be read: it isn't looked at.
        let got = house.send(request("QUERY", target, fields, whole(vec![b'x'; 100_000]))).await;
        assert_eq!(got.headers["cache-status"], format!("larder; fwd=bypass; detail={detail}").as_str());
    }
}

#[cfg(feature = "axum")]
#[tokio::test]
async fn an_axum_router_says_it_in_one_word() {
    use axum::Router;
    use axum::body::Body as AxumBody;
    use axum::routing::any;
    let app: Router = Router::new()
        .route("/a", any(|content: String| async move { ([("cache-control", "max-age=60")], content) }))
        .layer(CacheLayer::in_memory(1 << 20).cache_query_method(AxumBody::new));
    for expected in ["MISS", "HIT"] {
        let query = Request::builder().method("QUERY").uri("/a").body(AxumBody::from("q")).expect("a request");
        let response = app.clone().oneshot(query).await.expect("infallible");
        assert_eq!(response.headers()["x-cache"], expected);
        assert_eq!(response.into_body().collect().await.expect("a body").to_bytes(), "q");
    }
}
