//! A response is stored when its body has come to a clean end at its announced length, and in no other case.

mod support;

use std::time::Duration;

use futures_util::FutureExt;
use http::{Request, Response};
use http_body_util::BodyExt;
use larder::{Cache, CacheLayer, DeclineReason};
use support::bodies::*;
use support::sockets::*;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tower::{Layer, Service, ServiceExt};

const WHOLE: &[u8; 40] = b"0123456789abcdefghijklmnopqrstuvwxyzABCD";

const ONE_REQUEST: &str = "GET / HTTP/1.1\r\nhost: larder.test\r\nconnection: close\r\n\r\n";

/// How a handler says how long its body is.
#[derive(Clone, Copy, Debug)]
enum Announced {
    Not,
    /// By `Content-Length`.
    Field,
    /// By the body's size hint.
    Hint,
    /// By both, as the bodies of hyper's client do.
    Both,
}

const ANNOUNCED: [Announced; 3] = [Announced::Field, Announced::Hint, Announced::Both];

/// How it is handed over: the size of its chunks, and whether each has to be waited for.
const PACES: [(usize, bool); 4] = [(1, false), (1, true), (7, false), (7, true)];

/// A response that announces `length` and then does what `script` says.
fn announcing(announced: Announced, length: usize, mut script: Script) -> Response<Content> {
    if matches!(announced, Announced::Hint | Announced::Both) {
        script = script.claiming(length as u64);
    }
    let mut response = fresh(script.boxed_unsync());
    if matches!(announced, Announced::Field | Announced::Both) {
        response.headers_mut().insert("content-length", length.into());
    }
    response
}

/// The first answer is `first`'s, each other one is whole.
fn first_then_whole(first: impl Fn() -> Response<Content> + Send + Sync + 'static) -> Setup {
    with_places(64, first)
}

/// The same, where so many fills may go on without their clients.
fn with_places(places: usize, first: impl Fn() -> Response<Content> + Send + Sync + 'static) -> Setup {
    let handler = Handler::new(move |number, _| if number == 1 { first() } else { fresh(whole(&WHOLE[..])) });
    set_up(handler, |layer| layer.max_refreshes(places))
}

/// What a client left was read to its end all the same.
async fn assert_it_was_stored(setup: &Setup, row: &str) {
    settle().await;
    let next = setup.get("/").await;
    assert_eq!((next.x_cache.as_str(), next.content.as_slice()), ("HIT", &WHOLE[..]), "{row}");
    let stats = setup.stats();
    assert_eq!((setup.handler.calls(), stats.stored, stats.fills_handed_over, stats.fill_bytes), (1, 1, 1, 0), "{row}");
}

/// The handler is asked again and its whole answer goes out; that one is stored.
async fn assert_nothing_was_stored(setup: &Setup, reason: Option<DeclineReason>, row: &str) {
    let stats = setup.stats();
    assert_eq!((stats.stored, stats.storage.entries), (0, 0), "{row}");
    assert_eq!(stats.declined, Vec::from_iter(reason.map(|reason| (reason, 1))), "{row}");
    let calls = setup.handler.calls();
    for (expected, calls) in [("MISS", calls + 1), ("HIT", calls + 1)] {
        let next = setup.get("/").await;
        assert_eq!(next.x_cache, expected, "{row}");
        assert_eq!((next.content.as_slice(), &next.end), (&WHOLE[..], &Ok(())), "{row}");
        assert_eq!(setup.handler.calls(), calls, "{row}");
    }
}

#[tokio::test]
async fn a_body_shorter_than_announced_is_not_stored() {
    for (announced, (size, paced)) in pairs(ANNOUNCED, PACES) {
        for sent in 0..WHOLE.len() {
            let row = format!("{announced:?}, chunks of {size}, paced {paced}: {sent} bytes of 40");
            let setup = first_then_whole(move || {
                let script = Script::new(in_chunks(&WHOLE[..sent], size)).paced(paced);
                announcing(announced, WHOLE.len(), script)
            });
            assert_eq!(setup.get("/").await.content, WHOLE[..sent], "{row}");
            assert_nothing_was_stored(&setup, Some(DeclineReason::Incomplete), &row).await;
        }
    }
}

#[tokio::test]
async fn a_client_can_tell_a_body_that_is_shorter_than_announced() {
    for (announced, paced) in pairs(ANNOUNCED, [false, true]) {
        let setup = first_then_whole(move || {
            announcing(announced, WHOLE.len(), Script::new(in_chunks(&WHOLE[..15], 7)).paced(paced))
        });
        let response = talk(serve(setup.service.clone()).await, ONE_REQUEST).await;
        // The server may find out before it has sent anything.
        let is_cut = response.is_empty() || response.contains("content-length: 40\r\n");
        assert!(is_cut, "{announced:?}, paced {paced}: {response}");
    }
}

#[tokio::test]
async fn a_body_longer_than_announced_is_not_stored() {
    for (announced, (size, paced)) in pairs(ANNOUNCED, PACES) {
        for length in 0..WHOLE.len() {
            let row = format!("{announced:?}, chunks of {size}, paced {paced}: 40 bytes instead of {length}");
            let setup = first_then_whole(move || {
                announcing(announced, length, Script::new(in_chunks(WHOLE, size)).paced(paced))
            });
            setup.get("/").await;
            assert_nothing_was_stored(&setup, Some(DeclineReason::Incomplete), &row).await;
        }
    }
}

#[tokio::test]
async fn a_body_that_ends_with_an_error_is_not_stored() {
    for (announced, (size, paced)) in pairs([Announced::Not, Announced::Field, Announced::Hint, Announced::Both], PACES)
    {
        for sent in 0..=WHOLE.len() {
            let row = format!("{announced:?}, chunks of {size}, paced {paced}: an error after {sent} bytes");
            let setup = first_then_whole(move || {
                let steps = in_chunks(&WHOLE[..sent], size).chain([Err(Broken("cut"))]);
                announcing(announced, WHOLE.len(), Script::new(steps).paced(paced))
            });
            let got = setup.get("/").await;
            assert_eq!((&got.content[..], got.end), (&WHOLE[..sent], Err("cut".to_owned())), "{row}");
            assert_nothing_was_stored(&setup, Some(DeclineReason::Incomplete), &row).await;
        }
    }
}

#[tokio::test]
async fn what_a_client_leaves_before_the_end_is_stored_whole_or_not_at_all() {
    for (announced, places) in pairs([Announced::Not, Announced::Field, Announced::Hint, Announced::Both], [0, 1]) {
        for taken in 0..WHOLE.len() {
            let row = format!("{announced:?}, {places} places: gone after {taken} bytes");
            let setup = with_places(places, move || {
                announcing(announced, WHOLE.len(), Script::new(in_chunks(WHOLE, 1)).paced(true))
            });
            let mut response = setup.begin("/").await;
            for at in 0..taken {
                assert_eq!(chunk(response.body_mut()).await, WHOLE[at..=at], "{row}");
            }
            drop(response);
            if places == 0 {
                assert_nothing_was_stored(&setup, Some(DeclineReason::Incomplete), &row).await;
            } else {
                assert_it_was_stored(&setup, &row).await;
            }
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_before_the_head_leaves_the_answer_or_nothing_behind() {
    let handler = || {
        Handler::waiting(|_, _| async move {
            tokio::task::yield_now().await;
            Ok(fresh(whole(&WHOLE[..])))
        })
    };
    let setup = around(handler());
    assert!(setup.service.clone().oneshot(get("/")).now_or_never().is_none(), "the handler is waited for");
    assert_it_was_stored(&setup, "before the head").await;

    let setup = set_up(handler(), |layer| layer.max_refreshes(0));
    let mut request = Box::pin(setup.service.clone().oneshot(get("/")));
    assert!((&mut request).now_or_never().is_none(), "the handler is waited for");
    assert_eq!(setup.handler.calls(), 1);
    drop(request);
    assert_nothing_was_stored(&setup, None, "before the head").await;
}

#[tokio::test]
async fn a_connection_that_closes_before_the_end_leaves_the_whole_or_nothing_behind() {
    for (taken, places) in pairs([0, 1, 20, 39], [0, 1]) {
        let (feed, content) = fed();
        let content = std::sync::Mutex::new(Some(content));
        let handler = Handler::new(move |_, _| {
            let first = content.lock().expect("no holder panics").take();
            fresh(first.unwrap_or_else(|| whole(&WHOLE[..])))
        });
        let setup = set_up(handler, |layer| layer.max_refreshes(places));
        let address = serve(setup.service.clone()).await;
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: larder.test\r\n\r\n").await.unwrap();
        read_until(&mut client, "\r\n\r\n").await;
        for at in 0..taken {
            feed.send(data(&WHOLE[at..=at])).unwrap();
            read_until(&mut client, &format!("1\r\n{}\r\n", char::from(WHOLE[at]))).await;
        }
        drop(client);
        let row = format!("closed after {taken} bytes, {places} places");
        if places == 0 {
            // The server has noticed when it lets go of the body.
            feed.closed().await;
            assert_nothing_was_stored(&setup, Some(DeclineReason::Incomplete), &row).await;
        } else {
            while setup.stats().fills_handed_over == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            feed.send(data(&WHOLE[taken..])).unwrap();
            drop(feed);
            assert_it_was_stored(&setup, &row).await;
        }
    }
}

#[tokio::test]
async fn a_shutdown_while_the_body_streams_leaves_nothing_behind_and_the_client_undisturbed() {
    for announced in [Announced::Not, Announced::Field, Announced::Hint, Announced::Both] {
        for taken in 0..WHOLE.len() {
            let row = format!("{announced:?}: shut down after {taken} bytes");
            let setup = around(Handler::new(move |_, _| {
                announcing(announced, WHOLE.len(), Script::new(in_chunks(WHOLE, 1)).paced(true))
            }));
            let mut response = setup.begin("/").await;
            let mut content = Vec::new();
            for _ in 0..taken {
                content.extend_from_slice(&chunk(response.body_mut()).await);
            }
            assert!(setup.handle.shutdown(Duration::ZERO).await, "{row}: the cache has no work of its own");
            let rest = response.into_body().collect().await.expect("the rest arrives").to_bytes();
            content.extend_from_slice(&rest);
            assert_eq!(content, WHOLE, "{row}");
            let next = setup.get("/").await;
            assert_eq!((next.x_cache.as_str(), next.content.as_slice()), ("MISS", &WHOLE[..]), "{row}");
            let stats = setup.stats();
            assert_eq!((stats.stored, stats.storage.entries), (0, 0), "{row}");
            assert_eq!(stats.declined, [(DeclineReason::Shutdown, 2)], "{row}");
        }
    }
}

#[tokio::test]
async fn a_body_that_ends_as_announced_is_stored() {
    for (announced, (size, paced)) in pairs([Announced::Not, Announced::Field, Announced::Hint, Announced::Both], PACES)
    {
        for length in [0_usize, 1, 7, 39, 40] {
            // An empty chunk says nothing, and certainly not that this is the end.
            for empty_at in [None, Some(0), Some(length.div_ceil(size))] {
                let row =
                    format!("{announced:?}, {length} bytes in chunks of {size}, paced {paced}, empty at {empty_at:?}");
                let setup = around(Handler::new(move |_, _| {
                    let mut steps: Vec<Step> = in_chunks(&WHOLE[..length], size).collect();
                    if let Some(at) = empty_at {
                        steps.insert(at, data(""));
                    }
                    announcing(announced, length, Script::new(steps).paced(paced))
                }));
                for expected in ["MISS", "HIT"] {
                    let got = setup.get("/").await;
                    assert_eq!(got.x_cache, expected, "{row}");
                    assert_eq!((got.content.as_slice(), got.end), (&WHOLE[..length], Ok(())), "{row}");
                }
                let stats = setup.stats();
                assert_eq!((setup.handler.calls(), stats.stored, stats.declined), (1, 1, vec![]), "{row}");
            }
        }
    }
}

/// A server stops to read a body when it has sent what was announced: it never sees the end, nor need there be one.
#[tokio::test]
async fn a_body_whose_end_the_server_does_not_wait_for_is_stored() {
    for announced in [Announced::Field, Announced::Both] {
        for (length, endless) in pairs([0, 1, 40], [false, true]) {
            let row = format!("{announced:?}: {length} bytes, endless {endless}");
            let setup = around(Handler::new(move |_, _| {
                let script = Script::new(in_chunks(&WHOLE[..length], 7)).paced(true).endless(endless);
                announcing(announced, length, script)
            }));
            let address = serve(setup.service.clone()).await;
            for expected in ["MISS", "HIT"] {
                let response = talk(address, ONE_REQUEST).await;
                assert!(response.contains(&format!("x-cache: {expected}\r\n")), "{row}: {response}");
                let content = response.split_once("\r\n\r\n").map(|(_, content)| content.as_bytes());
                assert_eq!(content, Some(&WHOLE[..length]), "{row}");
            }
        }
    }
}

/// A cache around a client of an origin that answers with these bytes first, and whole afterwards.
struct Gateway<S> {
    cache: Cache<S>,
    layer: CacheLayer,
    calls: std::sync::Arc<std::sync::atomic::AtomicUsize>,
}

type Plain = Request<http_body_util::Empty<bytes::Bytes>>;

async fn gateway(
    first: Vec<u8>,
) -> Gateway<
    impl Service<Plain, Response = Response<hyper::body::Incoming>, Error: std::fmt::Debug + Send, Future: Send>
    + Clone
    + Send
    + 'static,
> {
    let (address, calls) = origin(move |number| if number == 1 { first.clone() } else { with_length(40) }).await;
    let layer = CacheLayer::in_memory(CAPACITY);
    Gateway { cache: layer.layer(upstream(address)), layer, calls }
}

/// The bytes of a response with a `Content-Length`.
fn with_length(length: usize) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: {length}\r\n\r\n");
    [head.as_bytes(), WHOLE].concat()
}

/// The bytes of a response in chunks of seven.
fn chunked() -> Vec<u8> {
    let mut bytes = b"HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for chunk in WHOLE.chunks(7) {
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

/// Without any framing, the end of the connection is the end of the body (RFC 9112 §6.3).
fn until_closed() -> Vec<u8> {
    [b"HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\n\r\n", &WHOLE[..]].concat()
}

#[tokio::test]
async fn a_message_cut_anywhere_on_its_way_from_an_origin_is_not_stored() {
    for (name, message) in [("a length", with_length(40)), ("chunks", chunked())] {
        let head = message.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        for cut in 0..message.len() {
            let row = format!("{name}, cut at {cut} of {}, head {head}", message.len());
            let gateway = gateway(message[..cut].to_vec()).await;
            match gateway.cache.clone().oneshot(get("/")).await {
                Ok(response) => assert!(read(response).await.end.is_err(), "{row}: the client sees that it is cut"),
                Err(_) => assert!(cut < head, "{row}: a cut head is the client's error"),
            }
            let stats = gateway.layer.handle().stats();
            assert_eq!((stats.stored, stats.storage.entries), (0, 0), "{row}");
            let declined = stats.declined_for(DeclineReason::Incomplete);
            assert_eq!(declined, u64::from(cut >= head), "{row}");
            for expected in ["MISS", "HIT"] {
                let next = read(gateway.cache.clone().oneshot(get("/")).await.unwrap()).await;
                assert_eq!((next.x_cache.as_str(), next.content.as_slice()), (expected, &WHOLE[..]), "{row}");
            }
            assert_eq!(gateway.calls.load(std::sync::atomic::Ordering::Relaxed), 2, "{row}");
        }
    }
}

#[tokio::test]
async fn a_message_that_is_whole_by_its_framing_is_stored() {
    let surplus = [with_length(40), b"surplus".to_vec()].concat();
    for (name, message) in [
        ("a length", with_length(40)),
        ("chunks", chunked()),
        ("until closed", until_closed()),
        ("what follows is no part of it", surplus),
    ] {
        let gateway = gateway(message).await;
        for expected in ["MISS", "HIT"] {
            let got = read(gateway.cache.clone().oneshot(get("/")).await.unwrap()).await;
            assert_eq!((got.x_cache.as_str(), got.content.as_slice()), (expected, &WHOLE[..]), "{name}");
        }
        assert_eq!(gateway.calls.load(std::sync::atomic::Ordering::Relaxed), 1, "{name}");
        assert_eq!(gateway.layer.handle().stats().stored, 1, "{name}");
    }
}

fn pairs<A: Copy, B: Copy, const N: usize, const M: usize>(one: [A; N], other: [B; M]) -> impl Iterator<Item = (A, B)> {
    one.into_iter().flat_map(move |a| other.into_iter().map(move |b| (a, b)))
}
