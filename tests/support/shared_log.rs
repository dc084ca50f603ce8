//! A store with a log of purges in memory, which several caches of a process share as instances share a server: each over a line of its own, which can be cut.
#![allow(dead_code)] // Each test uses a part of it.

use std::collections::HashMap;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use larder::storage::{
    LogFuture, MemoryStore, PurgeLog, PurgeNews, PurgeSnapshot, Query, Storage, StorageUsage, Swap, Swapped, Variants,
    with_variant,
};
use larder::{Cache, CacheHandle, CacheKey, CacheLayer, Clock, Moment, PurgeMessage, StorageError, StoredResponse};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tower::{Layer, ServiceExt};

use super::exchange::{Exchange, Handler, get, request};

/// What instances share.
#[derive(Clone)]
pub struct Server(Arc<Shared>);

struct Shared {
    kept: Mutex<HashMap<Vec<u8>, Variants>>,
    log: Mutex<Log>,
    /// How many purges there were.
    news: watch::Sender<u64>,
}

struct Log {
    epoch: u64,
    counter: u64,
    floor: u64,
    /// Those of this epoch.
    all: Vec<(u64, PurgeMessage)>,
    /// How many of them can't be followed any more, and are only in snapshots.
    trimmed: usize,
}

/// What becomes of what an instance sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// It arrives and is answered.
    Open,
    /// It arrives nowhere, and is never answered.
    Silent,
    /// It fails at once.
    Broken,
    /// Purges arrive, and all answers are lost.
    OneWay,
    /// Purges are written and answered; nothing is heard.
    Deaf,
    /// News come late, all else at once.
    Late,
}

impl Default for Server {
    fn default() -> Self {
        let log = Log { epoch: 7, counter: 0, floor: 7 << 32, all: Vec::new(), trimmed: 0 };
        Self(Arc::new(Shared { kept: Mutex::default(), log: Mutex::new(log), news: watch::Sender::new(0) }))
    }
}

impl Server {
    /// One more instance, set up by `set_up`, on a clock that is that of the runtime, and `ahead` in what it says of the day.
    pub fn instance(
        &self,
        handler: &Handler,
        ahead: Duration,
        set_up: impl FnOnce(CacheLayer) -> CacheLayer,
    ) -> Instance {
        let (store, line) = self.open();
        Instance::of(set_up(CacheLayer::with_storage(store)).clock(clock(ahead)), line, handler)
    }

    /// One with memory of its own before what all share.
    pub fn tiered(&self, handler: &Handler) -> Instance {
        self.tiered_with(handler, |layer| layer)
    }

    pub fn tiered_with(&self, handler: &Handler, set_up: impl FnOnce(CacheLayer) -> CacheLayer) -> Instance {
        let (store, line) = self.open();
        let layer = set_up(CacheLayer::tiered(MemoryStore::new(1 << 20), store));
        Instance::of(layer.clock(clock(Duration::ZERO)), line, handler)
    }

    fn open(&self) -> (Store, Arc<watch::Sender<Line>>) {
        let line = Arc::new(watch::Sender::new(Line::Open));
        (Store { shared: self.0.clone(), line: line.clone() }, line)
    }

    /// The store over a line that stays as it is.
    pub fn store(&self, line: Line) -> impl Storage {
        Store { shared: self.0.clone(), line: Arc::new(watch::Sender::new(line)) }
    }

    /// One as it comes.
    pub fn plain(&self, handler: &Handler) -> Instance {
        self.instance(handler, Duration::ZERO, |layer| layer)
    }

    /// How many purges there were in this epoch.
    pub fn purges(&self) -> usize {
        self.log().all.len()
    }

    /// Those so far can't be followed any more.
    pub fn trim(&self) {
        let mut log = self.log();
        log.trimmed = log.all.len();
    }

    /// What it had is lost, and it knows: a new epoch.
    pub fn begin_epoch(&self) {
        let mut log = self.log();
        let epoch = log.epoch + 1;
        *log = Log { epoch, counter: 0, floor: epoch << 32, all: Vec::new(), trimmed: 0 };
        drop(log);
        self.0.news.send_modify(|news| *news += 1);
    }

    /// What it had is lost, and it doesn't know.
    pub fn forget(&self) {
        let mut log = self.log();
        (log.counter, log.trimmed) = (0, 0);
        log.all.clear();
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.0.log.lock().expect("nobody panics while holding it")
    }
}

/// The clock of the runtime, which tests pause: time passes when everybody waits for it.
pub fn clock(ahead: Duration) -> impl Clock {
    let start = Instant::now();
    move || {
        let monotonic = start.elapsed();
        Moment { wall: UNIX_EPOCH + Duration::from_secs(1_767_225_600) + ahead + monotonic, monotonic }
    }
}

/// A cache that shares a store with others.
pub struct Instance {
    line: Arc<watch::Sender<Line>>,
    pub handle: CacheHandle,
    pub service: Cache<Handler>,
}

impl Instance {
    fn of(layer: CacheLayer, line: Arc<watch::Sender<Line>>, handler: &Handler) -> Self {
        Self { line, handle: layer.handle(), service: layer.layer(handler.clone()) }
    }

    pub fn set_line(&self, line: Line) {
        self.line.send_replace(line);
    }

    /// Whether nobody holds the store any more.
    pub fn line(&self) -> Arc<watch::Sender<Line>> {
        self.line.clone()
    }

    pub async fn get(&self, target: &str) -> Exchange {
        self.exchange(get(target)).await
    }

    pub async fn send(&self, method: &str, target: &str) -> Exchange {
        self.exchange(request(method, target, &[])).await
    }

    pub async fn exchange(&self, request: Request<Full<Bytes>>) -> Exchange {
        let response = self.service.clone().oneshot(request).await.expect("the handler doesn't fail");
        Exchange::read(response).await.expect("nor does its content")
    }

    /// `X-Cache` of a request.
    pub async fn says(&self, target: &str) -> String {
        self.get(target).await.x_cache
    }
}

/// The store as one instance reaches it. Responses always can be; it is the log that is cut off.
struct Store {
    shared: Arc<Shared>,
    line: Arc<watch::Sender<Line>>,
}

impl Store {
    fn kept(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Variants>> {
        self.shared.kept.lock().expect("nobody panics while holding it")
    }
}

impl Storage for Store {
    async fn get(&self, query: Query<'_>) -> Result<Variants, StorageError> {
        Ok(self.kept().get(query.key.as_bytes()).cloned().unwrap_or_default())
    }

    async fn put(&self, key: &CacheKey, response: Arc<StoredResponse>, most: usize) -> Result<(), StorageError> {
        let mut kept = self.kept();
        let variants = kept.entry(key.as_bytes().to_vec()).or_default();
        *variants = with_variant(variants, response, most);
        Ok(())
    }

    async fn remove(&self, key: &CacheKey) -> Result<bool, StorageError> {
        Ok(self.kept().remove(key.as_bytes()).is_some())
    }

    async fn swap(&self, swap: Swap<'_>) -> Result<Swapped, StorageError> {
        let mut kept = self.kept();
        let variants = kept.entry(swap.key.as_bytes().to_vec()).or_default();
        if let Some(answer) = swap.answer(variants)? {
            return Ok(answer);
        }
        *variants = Variants::from_iter([swap.new]);
        Ok(Swapped::Done)
    }

    async fn clear(&self) -> Result<(), StorageError> {
        self.kept().clear();
        Ok(())
    }

    fn usage(&self) -> StorageUsage {
        StorageUsage::new(self.kept().len() as u64, 0, 0)
    }

    fn purge_log(&self) -> Option<Arc<dyn PurgeLog>> {
        Some(Arc::new(Connection { shared: self.shared.clone(), line: self.line.clone() }))
    }
}

/// The log as one instance reaches it.
struct Connection {
    shared: Arc<Shared>,
    line: Arc<watch::Sender<Line>>,
}

impl Connection {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.shared.log.lock().expect("nobody panics while holding it")
    }

    /// Ends where the line lets `what` through, and fails or never ends where it doesn't.
    async fn pass(&self, appends: bool) -> Result<(), StorageError> {
        let line = *self.line.borrow();
        match line {
            Line::Open | Line::Late => Ok(()),
            Line::Deaf | Line::OneWay if appends => Ok(()),
            Line::Broken => Err(StorageError::new("the line is broken")),
            Line::Silent | Line::Deaf | Line::OneWay => pending().await,
        }
    }
}

impl Log {
    fn current(&self) -> u64 {
        self.epoch << 32 | self.counter
    }

    fn since(&self, known: u64) -> PurgeNews {
        let oldest = self.epoch << 32 | self.trimmed as u64;
        if known < oldest || known > self.current() {
            return PurgeNews::Gap;
        }
        let newer = self.all.iter().filter(|(number, _)| *number > known);
        PurgeNews::Since { purges: newer.cloned().collect(), floor: self.floor }
    }
}

impl PurgeLog for Connection {
    fn append<'a>(&'a self, purge: &'a PurgeMessage, known: u64) -> LogFuture<'a, PurgeNews> {
        Box::pin(async move {
            self.pass(true).await?;
            let news = {
                let mut log = self.log();
                log.counter += 1;
                let number = log.current();
                log.all.push((number, purge.clone()));
                log.since(known)
            };
            self.shared.news.send_modify(|news| *news += 1);
            match *self.line.borrow() {
                Line::OneWay => {}
                _ => return Ok(news),
            }
            pending().await
        })
    }

    fn follow(&self, known: u64, wait: Duration) -> LogFuture<'_, PurgeNews> {
        Box::pin(async move {
            self.pass(false).await?;
            let mut news = self.shared.news.subscribe();
            let nothing = |news: &PurgeNews| matches!(news, PurgeNews::Since { purges, .. } if purges.is_empty());
            let first = self.log().since(known);
            if nothing(&first) {
                let _ = timeout(wait, news.changed()).await;
            }
            if *self.line.borrow() == Line::Late {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            // What was asked on an open line may find it cut.
            self.pass(false).await?;
            Ok(self.log().since(known))
        })
    }

    fn snapshot(&self) -> LogFuture<'_, PurgeSnapshot> {
        Box::pin(async move {
            self.pass(false).await?;
            let log = self.log();
            let mut snapshot = PurgeSnapshot::default();
            (snapshot.current, snapshot.floor, snapshot.purges) = (log.current(), log.floor, log.all.clone());
            // In any order.
            snapshot.purges.reverse();
            Ok(snapshot)
        })
    }
}
