//! Handlers that say for themselves how each answer is cached: `cargo run --example handler_policy`.
//!
//! ```sh
//! curl -si http://127.0.0.1:3000/products/1     # MISS, then HIT; clients may keep it for 5 seconds
//! curl -si http://127.0.0.1:3000/products/7     # sold out: fresh for a shorter time
//! curl -si http://127.0.0.1:3000/products/100   # 404, remembered for half a minute
//! curl -si http://127.0.0.1:3000/preview        # never stored
//! ```

use std::error::Error;
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use larder::{CacheLayer, Cached};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // No rules: what a handler doesn't speak of isn't stored.
    let cache = CacheLayer::in_memory(16 << 20);
    let app = Router::new().route("/products/{id}", get(product)).route("/preview", get(preview)).layer(cache);

    let listen = std::env::args().skip_while(|argument| argument != "--listen").nth(1);
    let listener = TcpListener::bind(listen.as_deref().unwrap_or("127.0.0.1:3000")).await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}

async fn product(Path(id): Path<u32>) -> Response {
    let seconds = Duration::from_secs;
    match id {
        0..100 if id % 7 == 0 => (Cached::shared(seconds(20)), format!("product {id}, sold out\n")).into_response(),
        0..100 => {
            let cached = Cached::shared(seconds(60)).downstream(seconds(5)).stale_if_error(seconds(600));
            (cached, format!("product {id}\n")).into_response()
        }
        _ => (StatusCode::NOT_FOUND, Cached::shared(seconds(30)), "no such product\n").into_response(),
    }
}

async fn preview() -> impl IntoResponse {
    (Cached::no_store(), "not yet for the public\n")
}
