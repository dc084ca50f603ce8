//! One route of an axum application with a cache, and its neighbours without: `cargo run --example axum_route`.
//!
//! ```sh
//! curl -si http://127.0.0.1:3000/report    # MISS, and slow; once more: HIT, and at once
//! curl -si http://127.0.0.1:3000/time      # never passes the cache
//! ```

use std::error::Error;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::routing::get;
use larder::{CacheLayer, Policy};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // The report is the same for everybody, and may be a minute old.
    let cache = CacheLayer::in_memory(16 << 20).otherwise(Policy::shared(Duration::from_secs(60)));
    let app = Router::new().route("/report", get(report).layer(cache)).route("/time", get(time));

    let listen = std::env::args().skip_while(|argument| argument != "--listen").nth(1);
    let listener = TcpListener::bind(listen.as_deref().unwrap_or("127.0.0.1:3000")).await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}

/// Takes its time.
async fn report() -> String {
    tokio::time::sleep(Duration::from_millis(500)).await;
    format!("a report of {}", time().await)
}

async fn time() -> String {
    httpdate::fmt_http_date(SystemTime::now())
}
