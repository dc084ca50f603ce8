//! A partition for each user: `cargo run --example per_user`.
//!
//! ```sh
//! curl -si -H 'Authorization: Bearer ann' http://127.0.0.1:3000/orders   # MISS; once more: HIT
//! curl -si -H 'Authorization: Bearer bob' http://127.0.0.1:3000/orders   # MISS: bob never gets what is ann's
//! curl -si http://127.0.0.1:3000/orders                                  # 401, whatever is stored
//! ```

use std::error::Error;
use std::time::Duration;

use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use larder::{CacheLayer, Policy, RequestHead};
use tokio::net::TcpListener;

#[derive(Clone)]
struct User(String);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let user = |request: &RequestHead<'_>| request.extensions.get::<User>().map(|user| user.0.clone());
    let cache = CacheLayer::in_memory(16 << 20).rule("^/orders", Policy::per(user, Duration::from_secs(30)));
    // Outside of the cache, so after it: each request is authenticated, and the cache knows whose it is.
    let app = Router::new().route("/orders", get(orders)).layer(cache).layer(middleware::from_fn(authenticate));

    let listen = std::env::args().skip_while(|argument| argument != "--listen").nth(1);
    let listener = TcpListener::bind(listen.as_deref().unwrap_or("127.0.0.1:3000")).await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}

async fn orders(Extension(User(name)): Extension<User>) -> String {
    format!("the orders of {name}\n")
}

/// Takes the token for the name; a real one would look it up.
async fn authenticate(mut request: Request, next: Next) -> Response {
    let token = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some(name) = token.and_then(|token| token.strip_prefix("Bearer ")).map(str::to_owned) else {
        return StatusCode::UNAUTHORIZED.into_response();
    };
    request.extensions_mut().insert(User(name));
    next.run(request).await
}
