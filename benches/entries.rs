//! What a stored response takes of memory: 100,000 responses of 1 KiB with ten fields each, asked for over HTTP through the example proxy, by how
//! much the proxy has grown; and, in this process, what each byte of it is for.
//!
//! ```text
//! cargo bench --bench entries
//! ```

#[path = "support/mod.rs"]
mod support;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use allocation_counter::{AllocationInfo, measure};
use axum::Router;
use axum::extract;
use axum::routing::get;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use larder::storage::{Query, Storage, StorageUsage, Variants};
use larder::{CacheKey, CacheLayer, StorageError, StoredResponse};
use support::client::{Check, Client, raise_open_files};
use support::content;
use support::proxy::{self, Proxy};
use support::report::Report;
use tower::{Layer, Service, service_fn};

const ENTRIES: u64 = 100_000;
const BODY: usize = 1 << 10;
/// Connections that ask for them.
const CLIENTS: u64 = 32;
/// More than all entries together.
const CAPACITY: u64 = 2 << 30;

fn main() -> ExitCode {
    raise_open_files(1_000);
    let mut report = Report::default();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be built");
    let program = proxy::program();
    let shared = runtime.block_on(growth(&program, false));
    report.at_most(&format!("{ENTRIES} entries of 1 KiB, ten fields: RSS for each"), 2_300.0, shared, " B");
    let own = runtime.block_on(growth(&program, true));
    report.for_information("the same, where one of the fields has another value in each", &format!("{own:.0} B"));
    Account::take().print(&mut report, shared);
    report.finish()
}

/// Ten fields, to which a server adds `Date` and `Content-Length`. Three have another value for each resource, as they would in an application; with
/// `peculiar` a fourth has, of which the cache can't know that it would.
fn fields(key: u64, peculiar: bool) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for (name, value) in [
        ("content-type", "application/json"),
        ("content-language", "en"),
        ("cache-control", "public, max-age=3600"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("strict-transport-security", "max-age=31536000"),
    ] {
        fields.insert(name, HeaderValue::from_static(value));
    }
    let text = |text: String| HeaderValue::from_str(&text).expect("visible characters");
    let last_modified = std::time::UNIX_EPOCH + Duration::from_secs(1_767_225_600 + key);
    fields.insert("etag", text(format!("\"{key:016x}\"")));
    fields.insert("last-modified", text(httpdate::fmt_http_date(last_modified)));
    fields.insert(
        "x-api-version",
        text(if peculiar { format!("2026-01-01/{key:06}") } else { "2026-01-01/000000".into() }),
    );
    fields
}

/// By how much the proxy grows for each entry.
async fn growth(program: &Path, peculiar: bool) -> f64 {
    let origin = origin(peculiar).await;
    let proxy = Proxy::start(program, origin, &["--capacity", &CAPACITY.to_string()]);
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Client::http1(proxy.address).await);
    }
    // Connections, buffers and threads are there before; none of this is stored.
    let clients = ask_all(clients, "warm", CLIENTS * 200).await;
    let before = settled(&proxy).await;
    let clients = ask_all(clients, "entry", ENTRIES).await;
    let after = settled(&proxy).await;
    are_stored(clients).await;
    (after as f64 - before as f64) / ENTRIES as f64
}

async fn origin(peculiar: bool) -> SocketAddr {
    let entry = get(move |extract::Path(key): extract::Path<u64>| async move {
        (fields(key, peculiar), content::whole(key, BODY))
    });
    let warm = get(move |extract::Path(key): extract::Path<u64>| async move {
        let mut fields = fields(key, peculiar);
        fields.insert("cache-control", HeaderValue::from_static("no-store"));
        (fields, content::whole(key, BODY))
    });
    let app = Router::new().route("/entry/{key}", entry).route("/warm/{key}", warm);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("a listener has an address");
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// Asks for each key once, and looks at what comes.
async fn ask_all(clients: Vec<Client>, route: &'static str, keys: u64) -> Vec<Client> {
    let asking = clients.into_iter().enumerate().map(|(n, mut client)| {
        tokio::spawn(async move {
            for key in (n as u64..keys).step_by(CLIENTS as usize) {
                let response = client.get(&path(route, key), &[]).await.expect("an answer");
                let whole = Check::Bytes(content::whole(key, BODY)).read(response).await;
                whole.unwrap_or_else(|wrong| panic!("{route} {key}: {wrong}"));
            }
            client
        })
    });
    let mut clients = Vec::new();
    for task in asking.collect::<Vec<_>>() {
        clients.push(task.await.expect("no client panics"));
    }
    clients
}

fn path(route: &str, key: u64) -> String {
    // A path as an application has them.
    format!("/{route}/{key:08}")
}

/// Memory when it changes no more.
async fn settled(proxy: &Proxy) -> u64 {
    let (mut last, start) = (0, Instant::now());
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = proxy.resident();
        if now == last || start.elapsed() > Duration::from_secs(5) {
            return now;
        }
        last = now;
    }
}

/// All of them are stored, or the figure would be of something else.
async fn are_stored(clients: Vec<Client>) {
    let asking = clients.into_iter().enumerate().map(|(n, mut client)| {
        tokio::spawn(async move {
            for key in (n as u64..ENTRIES).step_by(CLIENTS as usize) {
                assert!(client.is_stored(&path("entry", key)).await, "{key} is stored");
            }
        })
    });
    for task in asking.collect::<Vec<_>>() {
        task.await.expect("all are stored");
    }
}

/// What an entry is made of. All figures are bytes asked of the allocator for each entry, and in how many pieces.
struct Account {
    whole: Share,
    /// What a response holds by references: content and values of its own.
    held: Share,
    /// What moka has: its entry, its queues, its timer wheel, its sketch, the key.
    policy: Share,
    /// What the index has: key and slot, with the response in it, and the table.
    index: Share,
    /// Of a stored key.
    key: usize,
}

#[derive(Clone, Copy)]
struct Share {
    bytes: f64,
    pieces: f64,
}

impl Share {
    fn of(info: &AllocationInfo) -> Self {
        Self { bytes: info.bytes_current as f64 / ENTRIES as f64, pieces: info.count_current as f64 / ENTRIES as f64 }
    }

    fn less(self, other: Self) -> Self {
        Self { bytes: self.bytes - other.bytes, pieces: self.pieces - other.pieces }
    }
}

impl Account {
    fn take() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime of one thread can be built");
        let cache = CacheLayer::in_memory(CAPACITY);
        let whole = Share::of(&measure(|| fill(&cache, &runtime)));
        let kept = Kept::default();
        kept.responses.lock().expect("nobody panicked").reserve_exact(ENTRIES as usize);
        let cache = CacheLayer::with_storage(kept.clone());
        let in_arcs = Share::of(&measure(|| fill(&cache, &runtime)));
        let key = kept.length.load(Ordering::Relaxed);
        // The store in memory has responses by value, without the two counters of an `Arc`.
        let held = in_arcs.less(Share { bytes: (size_of::<StoredResponse>() + 16) as f64, pieces: 1.0 });
        let policy = policy(key);
        Self { whole, held, policy, index: whole.less(held).less(policy), key }
    }

    fn print(&self, report: &mut Report, resident: f64) {
        let fields = fields(0, false);
        let own = fields["etag"].len() + fields["last-modified"].len() + 29;
        let held = self.held.bytes - (BODY + own) as f64;
        let rest = self.index.bytes - size_of::<StoredResponse>() as f64;
        let pieces = self.whole.pieces;
        for (what, bytes) in [
            ("content", BODY as f64),
            ("values of Date, ETag and Last-Modified", own as f64),
            ("counters of references, and what heads don't share", held),
            ("the response's own structure, in its slot", size_of::<StoredResponse>() as f64),
            (&format!("key ({} B), slot and place in the index", self.key), rest),
            ("moka: key, entry, queues, timer, sketch", self.policy.bytes),
            (&format!("the allocator: its part of {pieces:.1} pieces, and gaps"), resident - self.whole.bytes),
        ] {
            report.for_information(&format!("an entry: {what}"), &format!("{bytes:.0} B"));
        }
    }
}

/// Answers each key once, in a runtime of one thread, so that all that is allocated is counted.
fn fill(cache: &CacheLayer, runtime: &tokio::runtime::Runtime) {
    let handler = service_fn(|request: Request<Full<Bytes>>| async move {
        let key = request.uri().path().rsplit('/').next().and_then(|key| key.parse().ok()).expect("a key");
        let mut response = Response::new(Full::new(content::whole(key, BODY)));
        *response.headers_mut() = fields(key, false);
        response.headers_mut().insert("content-length", BODY.into());
        Ok::<_, Infallible>(response)
    });
    let mut service = cache.layer(handler);
    runtime.block_on(async {
        for key in 0..ENTRIES {
            let request = Request::get(path("entry", key)).header("host", "127.0.0.1:49152");
            let answer = service.call(request.body(Full::default()).expect("a request")).await;
            let Ok(response) = answer;
            assert!(response.into_body().collect().await.is_ok(), "the whole answer");
            // A store that isn't in memory is written to behind the answer.
            while cache.handle().stats().storage.entries <= key {
                tokio::task::yield_now().await;
            }
        }
    });
}

/// What moka takes for as many keys of this length, set up as the store does it.
fn policy(key: usize) -> Share {
    #[derive(Clone)]
    struct Token(#[expect(dead_code, reason = "it takes as much as the store's own")] u64, u32, Duration);
    struct Keep;
    impl moka::Expiry<Arc<[u8]>, Token> for Keep {
        fn expire_after_create(&self, _: &Arc<[u8]>, token: &Token, _: Instant) -> Option<Duration> {
            Some(token.2)
        }
    }
    let cache = moka::sync::Cache::builder()
        .max_capacity(CAPACITY)
        .weigher(|_: &Arc<[u8]>, token: &Token| token.1)
        .expire_after(Keep)
        .eviction_listener(|_, _, _| {})
        .build_with_hasher(ahash::RandomState::new());
    Share::of(&measure(|| {
        for n in 0..ENTRIES {
            let mut bytes = vec![0; key];
            bytes[..8].copy_from_slice(&n.to_le_bytes());
            cache.insert(bytes.into(), Token(n, 2_000, Duration::from_secs(3600)));
        }
        cache.run_pending_tasks();
    }))
}

/// A store that keeps responses, and nothing around them, and knows how long a key is.
#[derive(Clone, Default)]
struct Kept {
    responses: Arc<Mutex<Vec<Arc<StoredResponse>>>>,
    /// Of a key.
    length: Arc<AtomicUsize>,
}

impl Storage for Kept {
    async fn get(&self, _: Query<'_>) -> Result<Variants, StorageError> {
        Ok(Variants::new())
    }

    async fn put(&self, key: &CacheKey, response: Arc<StoredResponse>, _: usize) -> Result<(), StorageError> {
        self.responses.lock().expect("nobody panicked").push(response);
        self.length.store(key.as_bytes().len(), Ordering::Relaxed);
        Ok(())
    }

    async fn remove(&self, _: &CacheKey) -> Result<bool, StorageError> {
        Ok(false)
    }

    async fn clear(&self) -> Result<(), StorageError> {
        Ok(())
    }

    fn usage(&self) -> StorageUsage {
        StorageUsage::new(self.responses.lock().expect("nobody panicked").len() as u64, 0, 0)
    }
}
