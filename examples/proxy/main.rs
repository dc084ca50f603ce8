//! A caching reverse proxy: the cache layer around a hyper client.
//!
//! ```text
//! cargo run --release --example proxy -- --listen 127.0.0.1:8080 --origin http://127.0.0.1:3000
//! ```

mod admin;
mod arguments;
mod configuration;
mod origin;
#[path = "../common/store.rs"]
mod store;

use std::convert::Infallible;
use std::error::Error;
use std::fmt::Display;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::body::{Body, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use larder::{CacheHandle, CacheLayer, Policy};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tower::{Layer, Service, ServiceExt};

use crate::admin::Admin;
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

/// The size of the store where nobody says another.
const CAPACITY: u64 = 256 << 20;

/// The cache over `store` as the file says, if there is one, and the other options over that.
fn cache(store: &CacheLayer, arguments: &Arguments) -> Result<CacheLayer, String> {
    let capacity = arguments.capacity.filter(|_| store::has_memory(&arguments.store));
    let layer = match &arguments.config {
        Some(file) => configuration::configured(store.clone(), file, capacity)?,
        None => store.clone(),
    };
    let layer = if arguments.strict_rfc { layer.strict_rfc() } else { layer };
    Ok(match arguments.default_ttl {
        // Nobody vouches for whom an origin's answers are, so requests with credentials go past the cache.
        Some(ttl) => layer.otherwise(Policy::guarded(ttl)),
        None => layer,
    })
}

/// Reads the file anew. What changed is in the log, by the cache itself.
fn reload(store: &CacheLayer, arguments: &Arguments, handle: &CacheHandle) {
    let outcome =
        cache(store, arguments).and_then(|layer| handle.reconfigure(&layer).map_err(|error| error.to_string()));
    if let Err(message) = outcome {
        eprintln!("proxy: the configuration was not reloaded, and all stays as it was:\n{message}");
    }
}

/// Waits for SIGHUP, where there is a file to read anew.
async fn hangup(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

async fn serve(arguments: Arguments) -> Result<(), String> {
    let store = store::open(&arguments.store, "proxy", arguments.capacity.unwrap_or(CAPACITY))?;
    let layer = cache(&store, &arguments)?;
    let listener = TcpListener::bind(arguments.listen).await.map_err(|error| {
        format!("can't listen on {}: {error}; is another program using the port?", arguments.listen)
    })?;
    let origin = Origin::new(&arguments.origin)?;
    if arguments.bare {
        serve_with(origin, listener, &arguments, &store, &layer).await
    } else {
        serve_with(layer.layer(origin), listener, &arguments, &store, &layer).await
    }
}

/// Serves until a signal says to stop.
async fn serve_with<S, B>(
    service: S,
    listener: TcpListener,
    arguments: &Arguments,
    store: &CacheLayer,
    layer: &CacheLayer,
) -> Result<(), String>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error: Display, Future: Send> + Clone + Send + 'static,
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    // Without a file the signal means what it always does.
    let mut hung_up = match &arguments.config {
        Some(_) => Some(signal(SignalKind::hangup()).map_err(|error| error.to_string())?),
        None => None,
    };
    let admin = match arguments.admin {
        Some(address) => Some(Admin::bind(address).await?),
        None => None,
    };
    let address: SocketAddr = listener.local_addr().map_err(|error| error.to_string())?;
    println!("larder proxy listens on http://{address} for {}", arguments.origin);
    let (stop, stopped) = oneshot::channel::<()>();
    let admin = match admin {
        Some(admin) => {
            admin.announce()?;
            Some(tokio::spawn(admin.serve(layer.handle(), async { drop(stopped.await) })))
        }
        None => None,
    };

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
            () = hangup(&mut hung_up) => reload(store, arguments, &layer.handle()),
            _ = terminate.recv() => break,
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    drop((listener, stop));
    let _ = tokio::time::timeout(DEADLINE, connections.shutdown()).await;
    if let Some(admin) = admin {
        // Somebody who keeps a connection open doesn't keep the proxy.
        let _ = tokio::time::timeout(DEADLINE, admin).await;
    }
    layer.handle().shutdown(DEADLINE).await;
    Ok(())
}

/// The cache passes the origin's errors on; here, outside of it, they become a response.
async fn answer<S, B>(service: S, request: Request<Incoming>) -> Result<Response<Either<B, Full<Bytes>>>, Infallible>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error: Display>,
{
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
