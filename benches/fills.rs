//! How much memory the cache takes while a thousand large responses are on their way at once: 1,000 fills of 10 MiB through the example proxy, with
//! a store of 256 MiB and a budget for fills of 64 MiB, beside the same proxy without the cache. How much each process had at most is what the kernel
//! says (`VmHWM`).
//!
//! ```text
//! cargo bench --bench fills
//! ```

#[path = "support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::ListenerExt;
use bytes::Bytes;
use futures_util::stream;
use support::client::{Check, Client, raise_open_files};
use support::content::{self, Hash};
use support::memory::MIB;
use support::proxy::{self, Proxy};
use support::report::Report;
use tokio::net::TcpSocket;
use tokio::sync::Barrier;

/// How many are on their way at once.
const FILLS: usize = 1_000;
/// The bytes of each.
const SIZE: usize = 10 << 20;
/// The store of the proxy, and the budget of all fills, which is the default.
const STORE: u64 = 256 << 20;
const BUDGET: u64 = 64 << 20;
/// How many are asked for before, one after another: more than fit into the store.
const BEFORE: usize = 40;
/// What a process may take above both: what every allocator and every runtime takes.
const MARGIN: f64 = 1.15;

fn main() -> ExitCode {
    raise_open_files(4 * FILLS as u64);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be built");
    let program = proxy::program();
    let mut report = Report::default();
    runtime.block_on(async {
        let expected = hashes().await;
        let bare = Outcome::of(&program, &["--bare"], &expected).await;
        let larder = Outcome::of(&program, &["--capacity", &STORE.to_string()], &expected).await;
        let name = format!("{FILLS} fills of 10 MiB at once");
        for (subject, outcome) in [("bare", &bare), ("larder", &larder)] {
            let whole = FILLS - outcome.wrong.len();
            report.exactly(&format!("{name}, {subject}: whole by SHA-256"), FILLS as u64, whole as u64, "");
            if let Some(wrong) = outcome.wrong.first() {
                println!("  the first of what is wrong: {wrong}");
            }
        }
        let more = larder.peak.saturating_sub(bare.peak) as f64 / MIB;
        let most = (STORE + BUDGET) as f64 * MARGIN / MIB;
        report.at_most(&format!("{name}: peak RSS above the bare proxy's"), most, more, " MiB");
        let peaks = format!("bare {:.0} MiB, larder {:.0} MiB", bare.peak as f64 / MIB, larder.peak as f64 / MIB);
        report.for_information(&format!("{name}: peak RSS of the proxies"), &peaks);
        // Without this the figure would be of a cache that keeps nothing. Not all have room, and an eviction comes before what it is for.
        let room = (STORE as usize / SIZE) as f64;
        report.at_least(
            &format!("{name}: stored in the end, of {room} that have room"),
            room * 0.8,
            larder.stored as f64,
            "",
        );
    });
    report.finish()
}

/// What the contents should be.
async fn hashes() -> Arc<Vec<Hash>> {
    let hashing: Vec<_> =
        (0..FILLS).map(|key| tokio::task::spawn_blocking(move || content::hash(key as u64, SIZE))).collect();
    let mut hashes = Vec::new();
    for hash in hashing {
        hashes.push(hash.await.expect("hashing doesn't panic"));
    }
    Arc::new(hashes)
}

struct Outcome {
    peak: u64,
    wrong: Vec<String>,
    /// How many were in the store afterwards.
    stored: usize,
}

impl Outcome {
    async fn of(program: &Path, options: &[&str], expected: &Arc<Vec<Hash>>) -> Self {
        let origin = origin().await;
        let proxy = Proxy::start(program, origin, options);
        let mut clients = Vec::new();
        for _ in 0..FILLS {
            clients.push(Client::http1_of_many(proxy.address).await);
        }
        // The store is full when they come.
        for key in FILLS..FILLS + BEFORE {
            let response = clients[key % FILLS].get(&before(key), &[]).await.expect("an answer");
            Check::Hash(content::hash(key as u64, SIZE)).read(response).await.expect("the whole content");
        }
        let asking = clients.into_iter().enumerate().map(|(key, mut client)| {
            let expected = expected.clone();
            tokio::spawn(async move {
                let read = match client.get(&path(key), &[]).await {
                    Ok(response) => Check::Hash(expected[key]).read(response).await,
                    Err(error) => Err(error),
                };
                (client, read)
            })
        });
        let (mut wrong, mut clients) = (Vec::new(), Vec::new());
        for task in asking.collect::<Vec<_>>() {
            let (client, read) = task.await.expect("no client panics");
            clients.push(client);
            wrong.extend(read.err());
        }
        // What is committed behind the answers counts as well.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let peak = proxy.peak();
        let mut stored = 0;
        if !options.contains(&"--bare") {
            for path in (0..FILLS).map(path).chain((FILLS..FILLS + BEFORE).map(before)) {
                stored += usize::from(clients[0].is_stored(&path).await);
            }
        }
        Self { peak, wrong, stored }
    }
}

fn before(key: usize) -> String {
    format!("/before/{key}")
}

fn path(key: usize) -> String {
    format!("/download/{key}")
}

/// An origin that lets nobody have a byte before all have asked.
async fn origin() -> SocketAddr {
    let all = Arc::new(Barrier::new(FILLS));
    let app = Router::new()
        .route("/before/{key}", get(|extract::Path(key)| async move { answer(content::chunks(key, SIZE), PROMPT) }))
        .route("/download/{key}", get(move |key| download(key, all.clone())));
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port is free");
    let listener = socket.listen(4096).expect("the port is ours");
    let address = listener.local_addr().expect("a listener has an address");
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

async fn download(extract::Path(key): extract::Path<u64>, all: Arc<Barrier>) -> Response {
    // A cache that lets some of them wait for others may not hang this.
    let _ = tokio::time::timeout(Duration::from_secs(5), all.wait()).await;
    // Everybody gets a chunk before anybody gets the next, and not all at one moment.
    tokio::time::sleep(PACE * key as u32 / FILLS as u32).await;
    answer(content::chunks(key, SIZE), PACE)
}

const PROMPT: Duration = Duration::ZERO;
/// From chunk to chunk: slow enough for two processors, so that what piles up in buffers isn't most of what is measured.
const PACE: Duration = Duration::from_millis(120);

fn answer(chunks: impl Iterator<Item = Bytes> + Send + 'static, pause: Duration) -> Response {
    let body = Body::from_stream(stream::unfold(chunks, move |mut chunks| async move {
        let chunk = chunks.next()?;
        if pause > PROMPT {
            tokio::time::sleep(pause).await;
        }
        Some((Ok::<_, std::io::Error>(chunk), chunks))
    }));
    ([("cache-control", "public, max-age=3600"), ("content-type", "application/octet-stream")], body).into_response()
}
