//! Without axum: a cache in a `ServiceBuilder`, around a function, served by hyper. `cargo run --example service_builder`.
//!
//! ```sh
//! curl -si http://127.0.0.1:3000/a                     # MISS; once more: HIT
//! curl -si --http2-prior-knowledge http://127.0.0.1:3000/a  # the same entry
//! ```

use std::convert::Infallible;
use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use larder::{CacheLayer, Policy};
use tokio::net::TcpListener;
use tower::ServiceBuilder;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let cache = CacheLayer::in_memory(16 << 20).otherwise(Policy::shared(Duration::from_secs(60)));
    // The limit is inside of the cache: hits don't count.
    let service = ServiceBuilder::new().layer(cache).concurrency_limit(100).service_fn(handle);

    let listen = std::env::args().skip_while(|argument| argument != "--listen").nth(1);
    let listener = TcpListener::bind(listen.as_deref().unwrap_or("127.0.0.1:3000")).await?;
    println!("listening on http://{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        let service = TowerToHyperService::new(service.clone());
        tokio::spawn(async move {
            let server = auto::Builder::new(TokioExecutor::new());
            if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
                eprintln!("a connection ended: {error}");
            }
        });
    }
}

async fn handle(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    eprintln!("asked for {}", request.uri().path());
    Ok(Response::new(Full::from(format!("this is {}\n", request.uri().path()))))
}
