//! A caching reverse proxy: the cache layer around a hyper client.
//!
//! ```text
//! cargo run --release --example proxy -- --listen 127.0.0.1:8080 --origin http://127.0.0.1:3000
//! ```

mod arguments;
mod origin;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use larder::{Cache, CacheLayer, Policy, ResponseBody};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tower::{Layer, ServiceExt};

use crate::arguments::{Arguments, USAGE};
use crate::origin::Origin;

/// How long requests and refreshes in progress may take after a signal to stop.
const DEADLINE: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::INFO).init();
    if std::env::args().any(|argument| argument == "--help") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    match serve(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("proxy: {message}");
            ExitCode::FAILURE
        }
    }
}

fn cache(arguments: &Arguments) -> CacheLayer {
    let layer = CacheLayer::in_memory(arguments.capacity);
    let layer = if arguments.strict_rfc { layer.strict_rfc() } else { layer };
    match arguments.default_ttl {
        // Nobody vouches for whom an origin's answers are, so requests with credentials go past the cache.
        Some(ttl) => layer.otherwise(Policy::guarded(ttl)),
        None => layer,
    }
}

async fn serve(arguments: Arguments) -> Result<(), String> {
    let listener = TcpListener::bind(arguments.listen).await.map_err(|error| {
        format!("can't listen on {}: {error}; is another program using the port?", arguments.listen)
    })?;
    let address: SocketAddr = listener.local_addr().map_err(|error| error.to_string())?;
    let layer = cache(&arguments);
    let service = layer.layer(Origin::new(&arguments.origin)?);
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    println!("larder proxy listens on http://{address} for {}", arguments.origin);

    let connections = GracefulShutdown::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let _ = stream.set_nodelay(true);
                    let mut server = auto::Builder::new(TokioExecutor::new());
                    server.http1().timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(30));
                    let service = service.clone();
                    let service = hyper::service::service_fn(move |request| answer(service.clone(), request));
                    let connection = server.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
                    let connection = connections.watch(connection);
                    tokio::spawn(async move { drop(connection.await) });
                }
                // Out of file descriptors, most likely: connections that end will give some back.
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            _ = terminate.recv() => break,
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    drop(listener);
    let _ = tokio::time::timeout(DEADLINE, connections.shutdown()).await;
    layer.handle().shutdown(DEADLINE).await;
    Ok(())
}

type Answer = Response<Either<ResponseBody<Incoming>, Full<Bytes>>>;

/// The cache passes the origin's errors on; here, outside of it, they become a response.
async fn answer(service: Cache<Origin>, request: Request<Incoming>) -> Result<Answer, std::convert::Infallible> {
    Ok(match service.oneshot(request).await {
        Ok(response) => response.map(Either::Left),
        Err(error) => {
            tracing::warn!(%error, "the origin did not answer");
            let mut response = Response::new(Either::Right(Full::from("The origin did not answer.\n")));
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            response
        }
    })
}
