//! Both ends of a socket, for what only shows on one.
#![allow(dead_code, reason = "each test file uses a part")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower::Service;

/// Serves on a socket until the test's runtime ends: HTTP/1.1 with upgrades, or HTTP/2.
pub async fn serve<S, B>(service: S) -> SocketAddr
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: std::error::Error + Send + Sync + 'static,
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper_util::service::TowerToHyperService::new(service.clone());
            tokio::spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                // A connection that breaks off is what some tests are about.
                drop(server.serve_connection_with_upgrades(TokioIo::new(stream), service).await);
            });
        }
    });
    address
}

/// Sends the bytes of a request and returns those of the response, up to the end of the connection.
pub async fn talk(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("the server listens");
    stream.write_all(request.as_bytes()).await.expect("the server reads");
    let mut response = Vec::new();
    // A connection that is reset has answered all the same.
    drop(stream.read_to_end(&mut response).await);
    String::from_utf8_lossy(&response).into_owned()
}

/// Reads from a socket until what was read ends with `end`.
pub async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut read = Vec::new();
    while !read.ends_with(end.as_bytes()) {
        let mut byte = [0];
        stream.read_exact(&mut byte).await.expect("the peer goes on");
        read.push(byte[0]);
    }
    String::from_utf8_lossy(&read).into_owned()
}

/// An origin on a socket that answers the n-th request with these very bytes and closes the connection.
pub async fn origin(answer: impl Fn(usize) -> Vec<u8> + Send + 'static) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let number = counted.fetch_add(1, Ordering::Relaxed) + 1;
            read_until(&mut stream, "\r\n\r\n").await;
            stream.write_all(&answer(number)).await.expect("the client reads");
        }
    });
    (address, calls)
}

/// A client of the origin at `address` as an inner service, as in a reverse proxy.
pub fn upstream<B>(
    address: SocketAddr,
) -> impl Service<Request<B>, Response = Response<Incoming>, Error = ClientError, Future: Send> + Clone + Send + 'static
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + Unpin + 'static,
{
    // No connection is used twice: the origin closes each.
    let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
    tower::service_fn(move |mut request: Request<B>| {
        let target = format!("http://{address}{}", request.uri().path());
        *request.uri_mut() = Uri::try_from(target).expect("a valid target");
        client.request(request)
    })
}
