//! Rules from a file: an application whose cache reads `larder.toml`, and reads it anew on SIGHUP.
//!
//! ```text
//! cargo run --example toml_file
//! curl -si http://127.0.0.1:3000/products | grep -i cache
//! # change examples/toml_file/larder.toml, and then
//! kill -HUP $(pgrep toml_file)
//! ```

use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::{Router, routing::get};
use larder::{CacheHandle, CacheLayer, Config, ConfigError, RequestHead};
use tokio::signal::unix::{SignalKind, signal};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/toml_file/larder.toml");

/// Who is logged in.
#[derive(Clone)]
struct UserId(String);

/// The file, and whom its `principal = "user"` means.
fn config() -> Result<Config, ConfigError> {
    let user = |request: &RequestHead<'_>| request.extensions.get::<UserId>().map(|id| id.0.clone());
    Ok(Config::from_file(FILE)?.principal("user", user))
}

/// Stands for the auth layer of a real application. It is outside the cache, so it runs on hits, too.
async fn authenticate(mut request: Request, next: Next) -> Response {
    let user = request.headers().get("authorization").and_then(|value| value.to_str().ok()).map(str::to_owned);
    if let Some(user) = user {
        request.extensions_mut().insert(UserId(user));
    }
    next.run(request).await
}

async fn reload_on_hangup(handle: CacheHandle) -> std::io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    while hangup.recv().await.is_some() {
        match config().and_then(|config| handle.reload(&config)) {
            Ok(reload) => println!("{reload}"),
            Err(error) => eprintln!("all stays as it was:\n{error}"),
        }
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cache = CacheLayer::from_config(&config().unwrap_or_else(|error| {
        eprintln!("{error}");
        std::process::exit(2)
    }))?;
    tokio::spawn(reload_on_hangup(cache.handle()));
    let app = Router::new()
        .route("/products", get(|| async { "the same for everybody\n" }))
        .route("/api/me/orders", get(|| async { "for you alone\n" }))
        .layer(cache)
        .layer(middleware::from_fn(authenticate));
    let listen = std::env::args().skip_while(|argument| argument != "--listen").nth(1);
    let listener = tokio::net::TcpListener::bind(listen.as_deref().unwrap_or("127.0.0.1:3000")).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}
