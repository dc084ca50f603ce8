//! What streams or changes the protocol, over real sockets: WebSocket, server-sent events, gRPC; and HTTP/1.1 beside HTTP/2. All of it passes as if
//! there were no cache, with compression inside and outside as well.

mod support;

use std::convert::Infallible;
use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::extract::ws::{Message as ServerMessage, WebSocketUpgrade};
use axum::response::sse::{Event, Sse};
use axum::routing::{any, get};
use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, Version};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use larder::{CacheHandle, CacheLayer, DeclineReason};
use support::neighbours::*;
use support::{bodies, sockets};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_tungstenite::tungstenite::Message;
use tower_http::compression::CompressionLayer;

/// An application with a cache that vouches for everything, alone and with compression on either side of it.
async fn served(app: impl Fn() -> Router) -> Vec<(&'static str, SocketAddr, CacheHandle)> {
    let mut all = Vec::new();
    for order in ["alone", "compression inside", "compression outside"] {
        let cache = vouched();
        let handle = cache.handle();
        let app = match order {
            "alone" => app().layer(cache),
            "compression inside" => app().layer(CompressionLayer::new()).layer(cache),
            _ => app().layer(cache).layer(CompressionLayer::new()),
        };
        all.push((order, sockets::serve(app).await, handle));
    }
    all
}

type Outgoing = UnsyncBoxBody<Bytes, Infallible>;

fn client(http2: bool) -> Client<HttpConnector, Outgoing> {
    Client::builder(TokioExecutor::new()).http2_only(http2).build_http()
}

fn get_request(address: SocketAddr, path: &str, fields: &[(&str, &str)]) -> Request<Outgoing> {
    let mut request = Request::get(format!("http://{address}{path}"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(Empty::new().boxed_unsync()).expect("a request")
}

/// A WebSocket is upgraded and carries messages both ways, twice; its request bypasses, and a plain GET of the same URI is an ordinary one.
#[tokio::test]
async fn web_sockets_pass_both_ways() {
    async fn shout(upgrade: WebSocketUpgrade) -> axum::response::Response {
        upgrade.on_upgrade(|mut socket| async move {
            while let Some(Ok(ServerMessage::Text(text))) = socket.recv().await {
                let shouted = ServerMessage::Text(text.to_uppercase().into());
                if socket.send(shouted).await.is_err() {
                    return;
                }
            }
        })
    }
    for (order, address, handle) in served(|| Router::new().route("/ws", any(shout))).await {
        for _ in 0..2 {
            let stream = TcpStream::connect(address).await.expect("the server listens");
            let (mut socket, response) =
                tokio_tungstenite::client_async(format!("ws://{address}/ws"), stream).await.expect("an upgrade");
            let head = response.headers();
            assert_eq!((response.status().as_u16(), bodies::field(head, "x-cache")), (101, Some("BYPASS")), "{order}");
            for (said, heard) in [("hello", "HELLO"), ("again", "AGAIN")] {
                futures_util::SinkExt::send(&mut socket, Message::text(said)).await.expect("it is open");
                let message = futures_util::StreamExt::next(&mut socket).await.expect("an answer").expect("it is open");
                assert_eq!(message.into_text().expect("text").as_str(), heard, "{order}");
            }
        }
        let plain = client(false).request(get_request(address, "/ws", &[])).await.expect("an answer");
        assert_eq!((plain.status().as_u16(), bodies::x_cache(&plain)), (400, "MISS"), "{order}");
        assert_eq!((handle.stats().bypassed, handle.stats().stored), (2, 0), "{order}");
    }
}

type Feed = std::sync::Arc<std::sync::Mutex<Vec<UnboundedSender<&'static str>>>>;

/// Server-sent events arrive one by one over both protocols, each before the next is made; a second listener has a stream of its own.
#[tokio::test]
async fn server_sent_events_arrive_one_by_one() {
    async fn events(State(feed): State<Feed>) -> impl axum::response::IntoResponse {
        let (sender, receiver) = unbounded_channel();
        feed.lock().expect("no holder panics").push(sender);
        let next = |mut receiver: UnboundedReceiver<_>| async {
            let data = receiver.recv().await?;
            Some((Ok::<_, Infallible>(Event::default().data(data)), receiver))
        };
        Sse::new(stream::unfold(receiver, next))
    }
    let feed = Feed::default();
    let app = || Router::new().route("/events", get(events)).with_state(feed.clone());
    for (order, address, handle) in served(app).await {
        for http2 in [false, true] {
            let request = get_request(address, "/events", &[("accept-encoding", "gzip")]);
            let mut response = client(http2).request(request).await.expect("an answer");
            assert_eq!(response.headers()["x-cache"], "MISS", "{order}");
            assert!(!response.headers().contains_key("content-encoding"), "{order}");
            let sender = feed.lock().expect("no holder panics").pop().expect("each listener has a stream of its own");
            for event in ["one", "two"] {
                sender.send(event).expect("somebody listens");
                assert_eq!(bodies::chunk(response.body_mut()).await, format!("data: {event}\n\n"), "{order}");
            }
            drop(response);
            sender.closed().await;
        }
        assert_eq!(handle.stats().declined, [(DeclineReason::EndlessStream, 2)], "{order}");
    }
}

/// A gRPC service, by hand: the answers of a server stream, each in a frame of its own, and the status in the trailers.
#[tokio::test]
async fn a_grpc_stream_passes_message_by_message_with_its_trailers() {
    type Steps = std::sync::Arc<std::sync::Mutex<Option<bodies::Content>>>;
    async fn list(State(steps): State<Steps>) -> Response<Body> {
        let content = steps.lock().expect("no holder panics").take().expect("content for each call");
        let response = Response::builder().header("content-type", "application/grpc");
        response.body(Body::new(content)).expect("a response")
    }
    let steps = Steps::default();
    let app = || Router::new().route("/shop.Products/List", axum::routing::post(list)).with_state(steps.clone());
    for (order, address, handle) in served(app).await {
        for _ in 0..2 {
            let (feed, content) = bodies::fed();
            *steps.lock().expect("no holder panics") = Some(content);
            let request = Request::post(format!("http://{address}/shop.Products/List"))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .header("accept-encoding", "gzip")
                .body(Full::new(Bytes::from_static(b"\0\0\0\0\0")).boxed_unsync())
                .expect("a request");
            let mut response = client(true).request(request).await.expect("an answer");
            assert_eq!(response.headers()["x-cache"], "BYPASS", "{order}");
            assert!(!response.headers().contains_key("content-encoding"), "{order}");
            for message in ["\0\0\0\0\x03one", "\0\0\0\0\x03two"] {
                feed.send(bodies::data(message)).expect("somebody listens");
                assert_eq!(bodies::chunk(response.body_mut()).await, message, "{order}");
            }
            feed.send(bodies::trailers("grpc-status", "0")).expect("somebody listens");
            drop(feed);
            let rest = response.into_body().collect().await.expect("a clean end");
            assert_eq!(rest.trailers().expect("trailers")["grpc-status"], "0", "{order}");
        }
        assert_eq!(handle.stats().stored, 0, "{order}");
    }
}

/// HTTP/1.1 names a target without a scheme and HTTP/2 with one; both ask for the same thing, and one's answer serves the other. Fields of
/// one protocol don't reach the other.
#[tokio::test]
async fn both_protocols_share_one_entry() {
    let count = Count::default();
    let app = || {
        let count = count.clone();
        let answer = move || async move { ([("x-kept", "1")], format!("answer {}", count.up())) };
        Router::new().route("/", get(answer))
    };
    for (order, address, handle) in served(app).await {
        let mut content = None;
        for (http2, x_cache) in [(false, "MISS"), (true, "HIT"), (false, "HIT")] {
            let response = client(http2).request(get_request(address, "/", &[])).await.expect("an answer");
            let version = if http2 { Version::HTTP_2 } else { Version::HTTP_11 };
            assert_eq!((response.version(), bodies::x_cache(&response)), (version, x_cache), "{order}");
            for (name, value) in [("x-kept", "1"), ("content-length", "8")] {
                assert_eq!(bodies::field(response.headers(), name), Some(value), "{order}");
            }
            let whole = response.into_body().collect().await.expect("a clean end").to_bytes();
            assert_eq!(*content.get_or_insert_with(|| whole.clone()), whole, "{order}");
        }
        assert_eq!(handle.stats().stored, 1, "{order}");
    }
}

/// HEAD over both protocols: the length of the content, and none of it, so that the connection can be used again.
#[tokio::test]
async fn head_keeps_connections_usable() {
    let cache = CacheLayer::in_memory(1 << 20).otherwise(larder::Policy::shared(support::exchange::MINUTE));
    let route = get(|| async { "content" }).layer(cache);
    let address = sockets::serve(Router::new().route("/", route)).await;
    for http2 in [false, true] {
        let client = client(http2);
        for (method, content) in [("GET", "content"), ("HEAD", ""), ("GET", "content"), ("HEAD", "")] {
            let mut request = get_request(address, "/", &[]);
            *request.method_mut() = method.parse().expect("a method");
            let response = client.request(request).await.expect("an answer");
            assert_eq!(response.headers()["content-length"], "7", "{method}");
            assert_eq!(response.into_body().collect().await.expect("a clean end").to_bytes(), content, "{method}");
        }
    }
}
