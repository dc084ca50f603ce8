//! The server that the crowd asks.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::ListenerExt;
use bytes::Bytes;
use futures_util::stream;
use larder::{CacheLayer, ManualClock, Policy};
use tokio::net::TcpSocket;
use tokio::time::sleep;

use super::support::client::SOCKET_BUFFER;
use super::support::content;

/// Bytes of a page, which is ready at once.
pub const PAGE: usize = 10 << 10;
/// Bytes of a download, which is streamed.
pub const DOWNLOAD: usize = 1 << 20;
/// How long the streaming takes.
const STREAMING: Duration = Duration::from_millis(100);
const LIFETIME: Duration = Duration::from_secs(600);

#[derive(Clone, Default)]
struct Application {
    calls: Arc<AtomicU64>,
    clock: Arc<ManualClock>,
}

/// Serves until the process that started this one is gone.
pub async fn serve() {
    let application = Application::default();
    let cache =
        CacheLayer::in_memory(1 << 30).clock(application.clock.clone()).rule("^/larder/", Policy::shared(LIFETIME));
    let control = Router::new()
        .route("/control/calls", get(calls))
        .route("/control/later", get(later))
        .with_state(application.clone());
    let app = routes("bare", &application).merge(routes("larder", &application).layer(cache)).merge(control);

    let socket = TcpSocket::new_v4().expect("a socket");
    // What is accepted has the same.
    socket.set_send_buffer_size(SOCKET_BUFFER).expect("a socket has a buffer");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port is free");
    let listener = socket.listen(4096).expect("the port is ours");
    println!("{}", listener.local_addr().expect("a listener has an address"));
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    tokio::spawn(async move { axum::serve(listener, app).await });
    let gone = tokio::task::spawn_blocking(|| drop(std::io::stdin().read(&mut [0])));
    gone.await.expect("reading doesn't panic");
}

fn routes(subject: &str, application: &Application) -> Router {
    Router::new()
        .route(&format!("/{subject}/page/{{milliseconds}}/{{key}}"), get(page))
        .route(&format!("/{subject}/download/{{milliseconds}}/{{key}}"), get(download))
        .route(&format!("/{subject}/declined/{{milliseconds}}/{{key}}"), get(declined))
        .with_state(application.clone())
}

impl Application {
    async fn work(&self, milliseconds: u64) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_millis(milliseconds)).await;
    }
}

async fn page(State(application): State<Application>, Path((milliseconds, key)): Path<(u64, u64)>) -> Bytes {
    application.work(milliseconds).await;
    content::whole(key, PAGE)
}

async fn download(State(application): State<Application>, Path((milliseconds, key)): Path<(u64, u64)>) -> Body {
    application.work(milliseconds).await;
    let pause = STREAMING / DOWNLOAD.div_ceil(content::BLOCK) as u32;
    let chunks = Box::new(content::chunks(key, DOWNLOAD));
    Body::from_stream(stream::unfold(chunks, move |mut chunks| async move {
        let chunk = chunks.next()?;
        sleep(pause).await;
        Some((Ok::<_, std::io::Error>(chunk), chunks))
    }))
}

async fn declined(State(application): State<Application>, path: Path<(u64, u64)>) -> Response {
    ([("cache-control", "no-store")], page(State(application), path).await).into_response()
}

/// How often handlers were called since this was asked last.
async fn calls(State(application): State<Application>) -> String {
    application.calls.swap(0, Ordering::Relaxed).to_string()
}

/// Everything that is stored is over its lifetime.
async fn later(State(application): State<Application>) {
    application.clock.advance(2 * LIFETIME);
}
