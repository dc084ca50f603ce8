//! A list of things to do, as many axum applications begin: state, a nested router, authentication, CORS and compression. larder came last, in
//! the three lines that say so. `cargo run --example todos`, then:
//!
//! ```sh
//! T='Authorization: Bearer ann'; U=http://127.0.0.1:3000/api/todos
//! curl -si -H "$T" --json '{"text": "buy flour"}' $U        # 201, and its Location
//! curl -si -H "$T" $U/1                                     # MISS; once more: HIT, an Age, an ETag
//! curl -si -H "$T" -X PATCH --json '{"done": true}' $U/1    # a write: the next GET is a MISS
//! curl -si $U/1                                             # 401: authentication is outside of the cache
//! ```
//!
//! The list is another URI than its items, so a PATCH of one wouldn't make it invalid: it isn't cached.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use larder::{CacheLayer, Policy}; // larder: 1 of 3
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tower_http::compression::CompressionLayer;
use tower_http::cors::{Any, CorsLayer};

#[derive(Clone, Serialize)]
struct Todo {
    id: u64,
    text: String,
    done: bool,
}

#[derive(Deserialize)]
struct Change {
    text: Option<String>,
    done: Option<bool>,
}

#[derive(Clone)]
struct User(String);

type Todos = Arc<RwLock<BTreeMap<u64, Todo>>>;

const MINUTE: Duration = Duration::from_secs(60);

fn app() -> Router {
    let cache =
        CacheLayer::in_memory(16 << 20).rule("^/api/todos/", Policy::shared(MINUTE)).otherwise(Policy::bypass()); // larder: 2 of 3
    let api = Router::new()
        .route("/todos", get(list).post(create))
        .route("/todos/{id}", get(show).patch(update).delete(remove))
        .route("/me", get(me))
        .layer(cache) // larder: 3 of 3
        .layer(middleware::from_fn(authenticate))
        .with_state(Todos::default());
    let methods = [Method::GET, Method::POST, Method::PATCH, Method::DELETE];
    let cors = CorsLayer::new().allow_origin(Any).allow_methods(methods).allow_headers([header::AUTHORIZATION]);
    Router::new().route("/", get(|| async { "todos\n" })).nest("/api", api).layer(CompressionLayer::new()).layer(cors)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listen = std::env::args().skip_while(|argument| argument != "--listen").nth(1);
    let listener = TcpListener::bind(listen.as_deref().unwrap_or("127.0.0.1:3000")).await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app()).await?)
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

async fn me(Extension(User(name)): Extension<User>) -> String {
    name
}

async fn list(State(todos): State<Todos>) -> Result<Json<Vec<Todo>>, StatusCode> {
    let todos = todos.read().map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(Json(todos.values().cloned().collect()))
}

async fn create(State(todos): State<Todos>, Json(change): Json<Change>) -> Result<impl IntoResponse, StatusCode> {
    let mut todos = todos.write().map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    let id = todos.last_key_value().map_or(1, |(last, _)| last + 1);
    let todo = Todo { id, text: change.text.unwrap_or_default(), done: change.done.unwrap_or_default() };
    todos.insert(id, todo.clone());
    Ok((StatusCode::CREATED, [(header::LOCATION, format!("/api/todos/{id}"))], Json(todo)))
}

async fn show(State(todos): State<Todos>, Path(id): Path<u64>) -> Result<Json<Todo>, StatusCode> {
    let todos = todos.read().map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    todos.get(&id).cloned().map(Json).ok_or(StatusCode::NOT_FOUND)
}

async fn update(
    State(todos): State<Todos>,
    Path(id): Path<u64>,
    Json(change): Json<Change>,
) -> Result<Json<Todo>, StatusCode> {
    let mut todos = todos.write().map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    let todo = todos.get_mut(&id).ok_or(StatusCode::NOT_FOUND)?;
    todo.text = change.text.unwrap_or_else(|| std::mem::take(&mut todo.text));
    todo.done = change.done.unwrap_or(todo.done);
    Ok(Json(todo.clone()))
}

async fn remove(State(todos): State<Todos>, Path(id): Path<u64>) -> Result<StatusCode, StatusCode> {
    let mut todos = todos.write().map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    todos.remove(&id).map(|_| StatusCode::NO_CONTENT).ok_or(StatusCode::NOT_FOUND)
}
