//! What has no end to wait for, is too large, or can't be repeated passes as if there were no cache: at once, whole, and not stored.

mod support;

use std::convert::Infallible;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use larder::{CacheLayer, Cached, DeclineReason, Policy};
use support::bodies::*;
use support::sockets::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tower::{Layer, ServiceExt};

const MINUTE: Duration = Duration::from_secs(60);

/// A handler whose n-th answer is the n-th of these.
fn answers(answers: impl IntoIterator<Item = Response<Content>>) -> Handler {
    let answers = Mutex::new(answers.into_iter().collect::<std::collections::VecDeque<_>>());
    Handler::new(move |_, _| answers.lock().expect("no holder panics").pop_front().expect("an answer for each call"))
}

fn event_stream(content_type: &str, content: Content) -> Response<Content> {
    let mut response = answer(&[("content-type", content_type), ("cache-control", "max-age=60")], content);
    response.extensions_mut().insert(Cached::shared(MINUTE));
    response
}

#[tokio::test]
async fn events_arrive_one_by_one_and_are_not_stored() {
    for content_type in ["text/event-stream", "text/event-stream; charset=utf-8", "Text/Event-Stream"] {
        let (feed, first) = fed();
        let (_second_feed, second) = fed();
        let handler = answers([first, second].map(|content| event_stream(content_type, content)));
        let setup = set_up(handler, |layer| layer.otherwise(Policy::shared(MINUTE)));
        let mut events = setup.begin("/").await;
        assert_eq!(x_cache(&events), "MISS", "{content_type}");
        for event in ["data: 1\n\n", "data: 2\n\n"] {
            feed.send(data(event)).unwrap();
            assert_eq!(chunk(events.body_mut()).await, event, "{content_type}");
        }
        assert_eq!(
            x_cache(&setup.begin("/").await),
            "MISS",
            "{content_type}: another listener has a stream of its own"
        );
        drop(feed);
        assert!(events.body_mut().frame().await.is_none(), "{content_type}: the stream ends when the handler ends it");
        let stats = setup.stats();
        assert_eq!((stats.stored, stats.declined), (0, vec![(DeclineReason::EndlessStream, 2)]), "{content_type}");
    }
}

#[tokio::test]
async fn events_reach_a_socket_before_the_next_is_known() {
    let (feed, content) = fed();
    let setup = around(answers([event_stream("text/event-stream", content)]));
    let mut client = TcpStream::connect(serve(setup.service.clone()).await).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: larder.test\r\n\r\n").await.unwrap();
    let head = read_until(&mut client, "\r\n\r\n").await;
    assert!(!head.contains("content-length"), "{head}");
    for event in ["data: 1\n\n", "data: 2\n\n"] {
        feed.send(data(event)).unwrap();
        assert_eq!(read_until(&mut client, "\n\n\r\n").await, format!("9\r\n{event}\r\n"));
    }
    drop(client);
    feed.closed().await;
}

/// Answers 101 and from then on sends every byte back as its upper case.
async fn shouting_echo(mut request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, Infallible> {
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut stream = TokioIo::new(upgrade.await.expect("the client switches"));
        let mut byte = [0];
        while stream.read_exact(&mut byte).await.is_ok() {
            stream.write_all(&byte.map(|byte| byte.to_ascii_uppercase())).await.expect("the client reads");
        }
    });
    let response = Response::builder().status(101).header("connection", "upgrade").header("upgrade", "shout");
    Ok(response.header("cache-control", "max-age=60").body(Empty::new()).expect("a valid response"))
}

#[tokio::test]
async fn an_upgraded_connection_carries_bytes_both_ways() {
    let layer = CacheLayer::in_memory(CAPACITY).otherwise(Policy::shared(MINUTE));
    let address = serve(layer.layer(tower::service_fn(shouting_echo))).await;
    // Twice: nothing of the first must answer the second.
    for _ in 0..2 {
        let mut client = TcpStream::connect(address).await.unwrap();
        let request = "GET / HTTP/1.1\r\nhost: larder.test\r\nconnection: upgrade\r\nupgrade: shout\r\n\r\n";
        client.write_all(request.as_bytes()).await.unwrap();
        let head = read_until(&mut client, "\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("upgrade: shout\r\n"), "{head}");
        assert!(head.contains("x-cache: BYPASS\r\n"), "{head}");
        for word in ["hello", "again"] {
            client.write_all(word.as_bytes()).await.unwrap();
            let mut echo = [0; 5];
            client.read_exact(&mut echo).await.unwrap();
            assert_eq!(echo, word.to_ascii_uppercase().as_bytes());
        }
    }
    let stats = layer.handle().stats();
    assert_eq!((stats.bypassed, stats.stored), (2, 0));
}

/// A cache for bodies of at most 10 bytes, with room for one of them on its way.
fn tight(handler: Handler) -> Setup {
    set_up(handler, |layer| layer.max_body_size(10).max_fill_bytes(10))
}

#[tokio::test]
async fn a_body_that_turns_out_too_large_streams_on_and_frees_its_memory_at_once() {
    let (feed, large) = fed();
    let setup = tight(answers([fresh(large), fresh(stream([data("0123456789")])), fresh(whole("again"))]));
    let mut response = setup.begin("/large").await;
    feed.send(data("01234567")).unwrap();
    assert_eq!(chunk(response.body_mut()).await, "01234567", "the first chunk doesn't wait for the others");
    feed.send(data("89ab")).unwrap();
    assert_eq!(chunk(response.body_mut()).await, "89ab", "neither does the one that is too much");
    assert_eq!(setup.stats().declined, [(DeclineReason::BodyTooLarge, 1)]);
    // The large one is still on its way, and this one needs all the memory there is.
    assert_eq!(setup.get("/small").await.content, b"0123456789");
    assert_eq!(setup.get("/small").await.x_cache, "HIT");
    feed.send(data("cdef")).unwrap();
    drop(feed);
    assert_eq!(read(response).await.content, b"cdef");
    assert_eq!(setup.get("/large").await.x_cache, "MISS");
}

#[tokio::test]
async fn a_body_announced_as_too_large_streams_past_the_copy() {
    let parts = ["01234567", "89abcdef"];
    for (by_field, by_hint) in [(true, false), (false, true), (true, true)] {
        let large = Script::new(parts.map(data)).paced(true);
        let large = if by_hint { large.claiming(16) } else { large };
        let mut large = fresh(large.boxed_unsync());
        if by_field {
            large.headers_mut().insert("content-length", 16.into());
        }
        let setup = tight(answers([large, fresh(stream([data("0123456789")]))]));
        let mut response = setup.begin("/large").await;
        let row = format!("by field {by_field}, by hint {by_hint}");
        let status = field(response.headers(), "cache-status").unwrap();
        assert!(status.contains("detail=body-too-large"), "{row}: {status}");
        for part in parts {
            assert_eq!(chunk(response.body_mut()).await, part, "{row}");
        }
        for expected in ["MISS", "HIT"] {
            assert_eq!(setup.get("/small").await.x_cache, expected, "{row}");
        }
        assert_eq!(setup.stats().declined, [(DeclineReason::BodyTooLarge, 1)], "{row}");
    }
}

#[tokio::test]
async fn fills_beyond_the_memory_for_all_of_them_pass_and_are_counted() {
    for announced in [false, true] {
        let (feeds, contents): (Vec<_>, Vec<_>) = (0..3).map(|_| fed()).unzip();
        let handler = answers(contents.into_iter().map(|content| {
            let mut response = fresh(content);
            if announced {
                response.headers_mut().insert("content-length", 60.into());
            }
            response
        }));
        let setup = set_up(handler, |layer| layer.max_fill_bytes(100));
        let mut first = setup.begin("/first").await;
        let mut second = setup.begin("/second").await;
        for (feed, response) in feeds.iter().zip([&mut first, &mut second]) {
            feed.send(data(vec![b'x'; 60])).unwrap();
            assert_eq!(chunk(response.body_mut()).await.len(), 60, "announced {announced}");
        }
        let declined = [(DeclineReason::FillBudget, 1)];
        assert_eq!(setup.stats().declined, declined, "announced {announced}: two times 60 bytes are more than 100");
        let mut feeds = feeds.into_iter();
        feeds.by_ref().take(2).for_each(drop);
        assert!(read(first).await.end.is_ok() && read(second).await.end.is_ok(), "announced {announced}");
        // With both gone there is room again.
        let third = feeds.next().unwrap();
        third.send(data(vec![b'x'; 60])).unwrap();
        drop(third);
        setup.get("/third").await;
        for (path, calls) in [("/first", 3), ("/third", 3)] {
            assert_eq!(setup.get(path).await.x_cache, "HIT", "announced {announced}: {path}");
            assert_eq!(setup.handler.calls(), calls);
        }
        let stats = setup.stats();
        assert_eq!((stats.stored, stats.declined.as_slice()), (2, &declined[..]), "announced {announced}");
    }
}

#[tokio::test]
async fn one_fill_above_the_memory_for_all_passes_whole() {
    let setup = set_up(answers([fresh(stream([data(vec![b'x'; 101])]))]), |layer| layer.max_fill_bytes(100));
    assert_eq!(setup.get("/").await.content, [b'x'; 101]);
    let stats = setup.stats();
    assert_eq!((stats.stored, stats.declined), (0, vec![(DeclineReason::FillBudget, 1)]));
}

#[tokio::test(start_paused = true)]
async fn a_body_without_end_arrives_as_it_comes() {
    for (paced, claimed) in [(false, None), (true, None), (false, Some(1000)), (true, Some(1000))] {
        let endless = move || {
            let script = Script::new((0..5).map(|_| data("tick"))).paced(paced).endless(true);
            let script = if let Some(size) = claimed { script.claiming(size) } else { script };
            fresh(script.boxed_unsync())
        };
        let setup = around(answers([endless(), endless()]));
        let row = format!("paced {paced}, claimed {claimed:?}");
        for _ in 0..2 {
            let mut response = setup.begin("/").await;
            assert_eq!(x_cache(&response), "MISS", "{row}");
            for _ in 0..5 {
                assert_eq!(chunk(response.body_mut()).await, "tick", "{row}");
            }
            drop(response);
            // When the client has left, a task of the cache waits for the end, and not for ever.
            tokio::time::sleep(Duration::from_secs(61)).await;
        }
        let stats = setup.stats();
        assert_eq!((stats.stored, stats.declined), (0, vec![(DeclineReason::Incomplete, 2)]), "{row}");
    }
}

#[tokio::test]
async fn a_body_without_end_that_is_always_ready_is_not_read_ahead_of_its_client() {
    let chunks = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let made = chunks.clone();
    let setup = around(Handler::new(move |_, _| {
        let made = made.clone();
        let ticks = std::iter::repeat_with(move || {
            made.fetch_add(1, Ordering::Relaxed);
            data("tick")
        });
        fresh(http_body_util::StreamBody::new(futures_util::stream::iter(ticks)).boxed_unsync())
    }));
    let mut response = setup.begin("/").await;
    assert_eq!(chunks.load(Ordering::Relaxed), 0);
    for taken in 1..=1000 {
        assert_eq!(chunk(response.body_mut()).await, "tick");
        assert_eq!(chunks.load(Ordering::Relaxed), taken);
    }
}

#[tokio::test]
async fn trailers_pass_and_what_has_them_is_not_stored() {
    for (announced, paced, claimed) in [
        (false, false, false),
        (false, true, false),
        (true, false, false),
        (true, true, false),
        (true, false, true),
        (false, true, true),
    ] {
        let row = format!("announced {announced}, paced {paced}, claimed {claimed}");
        let setup = around(Handler::new(move |_, _| {
            let script = Script::new([data("content"), trailers("x-checksum", "42")]).paced(paced);
            let script = if claimed { script.claiming(7) } else { script };
            let mut response = fresh(script.boxed_unsync());
            if announced {
                response.headers_mut().insert("content-length", 7.into());
            }
            response
        }));
        for _ in 0..2 {
            let response = setup.begin("/").await;
            assert_eq!(x_cache(&response), "MISS", "{row}");
            let collected = response.into_body().collect().await.unwrap();
            assert_eq!(collected.trailers().unwrap()["x-checksum"], "42", "{row}");
            assert_eq!(collected.to_bytes(), "content", "{row}");
        }
        let stats = setup.stats();
        assert_eq!((stats.stored, stats.declined), (0, vec![(DeclineReason::Trailers, 2)]), "{row}");
    }
}

#[tokio::test]
async fn trailers_of_an_origin_reach_the_socket() {
    let message = "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ntransfer-encoding: chunked\r\ntrailer: x-checksum\r\n\r\n\
                   7\r\ncontent\r\n0\r\nx-checksum: 42\r\n\r\n";
    let (origin, calls) = origin(|_| message.into()).await;
    let layer = CacheLayer::in_memory(CAPACITY);
    let address = serve(layer.layer(upstream::<Incoming>(origin))).await;
    for call in 1..=2 {
        let request = "GET / HTTP/1.1\r\nhost: larder.test\r\nte: trailers\r\nconnection: te, close\r\n\r\n";
        let response = talk(address, request).await;
        assert!(response.ends_with("7\r\ncontent\r\n0\r\nx-checksum: 42\r\n\r\n"), "{response}");
        assert_eq!(calls.load(Ordering::Relaxed), call);
    }
    assert_eq!(layer.handle().stats().declined, [(DeclineReason::Trailers, 2)]);
}

#[tokio::test]
async fn a_remote_procedure_call_gets_its_status_in_trailers() {
    let setup = around(Handler::new(|_, _| {
        let content = stream([data("\0\0\0\0\x02ok"), trailers("grpc-status", "0")]);
        answer(&[("content-type", "application/grpc"), ("cache-control", "max-age=60")], content)
    }));
    let address = serve(setup.service.clone()).await;
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    for _ in 0..2 {
        let request = Request::post(format!("http://{address}/shop.Products/Get"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(Bytes::from_static(b"\0\0\0\0\0")))
            .unwrap();
        let response = client.request(request).await.unwrap();
        assert_eq!(x_cache(&response), "BYPASS");
        let collected = response.into_body().collect().await.unwrap();
        assert_eq!(collected.trailers().unwrap()["grpc-status"], "0");
        assert_eq!(collected.to_bytes(), "\0\0\0\0\x02ok");
    }
    assert_eq!((setup.handler.calls(), setup.stats().stored), (2, 0));
}

/// Trailers on HTTP/2 may follow a body whose length was announced.
#[tokio::test]
async fn trailers_behind_an_announced_length_reach_every_client() {
    let setup = around(Handler::new(|_, _| {
        let content = stream([data("content"), trailers("x-checksum", "42")]);
        answer(&[("content-length", "7"), ("cache-control", "max-age=60")], content)
    }));
    let address = serve(setup.service.clone()).await;
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http::<Empty<Bytes>>();
    for _ in 0..2 {
        let response = client.get(format!("http://{address}/").parse().unwrap()).await.unwrap();
        let collected = response.into_body().collect().await.unwrap();
        assert_eq!(collected.trailers().map(|fields| &fields["x-checksum"]), Some(&"42".parse().unwrap()));
    }
}

#[tokio::test]
async fn a_bypassed_route_streams_as_well() {
    let (feed, content) = fed();
    let setup = set_up(answers([fresh(content)]), |layer| layer.otherwise(Policy::bypass()));
    let mut response = setup.service.clone().oneshot(get("/")).await.unwrap();
    assert_eq!(x_cache(&response), "BYPASS");
    feed.send(data("first")).unwrap();
    assert_eq!(chunk(response.body_mut()).await, "first");
    feed.send(trailers("x-checksum", "42")).unwrap();
    let last = response.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(last.trailers_ref().unwrap()["x-checksum"], "42");
}
