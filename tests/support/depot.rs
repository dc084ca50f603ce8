//! [`Depot`]: a store that several caches of one process share, as instances share one that is far away. It keeps a journal of what it was asked.
#![allow(dead_code)] // Each test uses a part of it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use larder::storage::{
    Lease, LeaseToken, LogFuture, PurgeLog, PurgeNews, PurgeSnapshot, Query, Released, Storage, StorageUsage, Swap,
    Swapped, Variants, with_variant,
};
use larder::{CacheKey, PurgeMessage, StorageError, StoredResponse};
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Clones share what is kept. Each operation takes a turn of the scheduler, as one over a network takes time.
#[derive(Clone, Default)]
pub struct Depot {
    inner: Arc<Mutex<Inner>>,
    /// Where it is set, each operation of that name waits for a permit.
    gates: Arc<Mutex<HashMap<&'static str, Arc<Semaphore>>>>,
    /// It says that it has a log, as one that several instances share does.
    has_log: bool,
}

#[derive(Default)]
struct Inner {
    kept: HashMap<Vec<u8>, Variants>,
    leases: HashMap<Vec<u8>, (LeaseToken, Instant)>,
    /// Whose last answer was nobody else's, until then.
    declined: HashMap<Vec<u8>, Instant>,
    journal: Vec<&'static str>,
    failing: Vec<&'static str>,
    next: u8,
    erased: Vec<[u8; 16]>,
}

impl Depot {
    /// One that says that others share it: it has a log.
    pub fn with_log() -> Self {
        Self { has_log: true, ..Self::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder panics")
    }

    async fn begin(&self, operation: &'static str) -> Result<(), StorageError> {
        self.lock().journal.push(operation);
        let gate = self.gates.lock().expect("no holder panics").get(operation).cloned();
        match gate {
            Some(gate) => gate.acquire().await.expect("never closed").forget(),
            None => tokio::task::yield_now().await,
        }
        let failing = self.lock().failing.contains(&operation);
        if failing { Err(StorageError::new(format!("{operation} is out of order"))) } else { Ok(()) }
    }

    /// From now on these operations fail, and no others.
    pub fn fail(&self, operations: &[&'static str]) {
        self.lock().failing = operations.to_vec();
    }

    /// From now on operations of this name wait for permits.
    pub fn gate(&self, operation: &'static str) -> Arc<Semaphore> {
        let gate = Arc::new(Semaphore::new(0));
        self.gates.lock().expect("no holder panics").insert(operation, gate.clone());
        gate
    }

    /// And no longer.
    pub fn open(&self, operation: &'static str) {
        if let Some(gate) = self.gates.lock().expect("no holder panics").remove(operation) {
            gate.add_permits(1000);
        }
    }

    /// How often it was asked for this.
    pub fn count(&self, operation: &str) -> usize {
        self.lock().journal.iter().filter(|done| **done == operation).count()
    }

    /// What it was asked for since this was asked last.
    pub fn take_journal(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.lock().journal)
    }

    /// How many keys it holds.
    pub fn len(&self) -> usize {
        self.lock().kept.len()
    }

    /// All that is kept.
    pub fn responses(&self) -> Vec<Arc<StoredResponse>> {
        self.lock().kept.values().flatten().cloned().collect()
    }

    /// The keys of what is kept.
    pub fn keys(&self) -> Vec<Vec<u8>> {
        self.lock().kept.keys().cloned().collect()
    }

    /// It loses everything, and nobody knows.
    pub fn lose_all(&self) {
        self.lock().kept.clear();
    }

    /// The digests of which all was erased.
    pub fn erased(&self) -> Vec<[u8; 16]> {
        self.lock().erased.clone()
    }

    /// Somebody who never gives it back has the lease on everything that was ever asked for, for so long.
    pub fn lend_to_the_dead(&self, key: &[u8], term: Duration) {
        self.lock().leases.insert(key.to_vec(), (LeaseToken([255; 16]), Instant::now() + term));
    }

    /// The keys that are on lease.
    pub fn leased(&self) -> Vec<Vec<u8>> {
        let now = Instant::now();
        self.lock().leases.iter().filter(|(_, (_, until))| *until > now).map(|(key, _)| key.clone()).collect()
    }
}

impl Storage for Depot {
    async fn get(&self, query: Query<'_>) -> Result<Variants, StorageError> {
        // Behind a gate, what there was when it was asked: the way back takes long.
        let is_gated = self.gates.lock().expect("no holder panics").contains_key("get");
        let kept = || self.lock().kept.get(query.key.as_bytes()).cloned().unwrap_or_default();
        let before = kept();
        self.begin("get").await?;
        Ok(if is_gated { before } else { kept() })
    }

    async fn put(&self, key: &CacheKey, response: Arc<StoredResponse>, most: usize) -> Result<(), StorageError> {
        self.begin("put").await?;
        let mut inner = self.lock();
        let variants = inner.kept.entry(key.as_bytes().to_vec()).or_default();
        *variants = with_variant(variants, response, most);
        Ok(())
    }

    async fn remove(&self, key: &CacheKey) -> Result<bool, StorageError> {
        self.begin("remove").await?;
        Ok(self.lock().kept.remove(key.as_bytes()).is_some())
    }

    async fn swap(&self, swap: Swap<'_>) -> Result<Swapped, StorageError> {
        self.begin("swap").await?;
        let mut inner = self.lock();
        let kept = inner.kept.entry(swap.key.as_bytes().to_vec()).or_default();
        if let Some(answer) = swap.answer(kept)? {
            return Ok(answer);
        }
        *kept = Variants::from_iter([swap.new]);
        Ok(Swapped::Done)
    }

    async fn erase(&self, partition: &[u8; 16]) -> Result<(), StorageError> {
        self.begin("erase").await?;
        self.lock().erased.push(*partition);
        self.lock().kept.retain(|key, _| !key.windows(16).any(|part| part == partition));
        Ok(())
    }

    async fn lease(&self, key: &CacheKey, term: Duration) -> Result<Lease, StorageError> {
        self.begin("lease").await?;
        let (key, now) = (key.as_bytes().to_vec(), Instant::now());
        let mut inner = self.lock();
        if inner.declined.get(&key).is_some_and(|until| *until > now) {
            return Ok(Lease::Free);
        }
        if inner.leases.get(&key).is_some_and(|(_, until)| *until > now) {
            return Ok(Lease::Taken);
        }
        inner.next += 1;
        let token = LeaseToken([inner.next; 16]);
        inner.leases.insert(key, (token, now + term));
        Ok(Lease::Granted(token))
    }

    async fn release(&self, key: &CacheKey, token: LeaseToken, how: Released) -> Result<(), StorageError> {
        self.begin(match how {
            Released::Stored => "release stored",
            Released::Declined => "release declined",
            _ => "release failed",
        })
        .await?;
        let mut inner = self.lock();
        if inner.leases.get(key.as_bytes()).is_some_and(|(holder, _)| *holder == token) {
            inner.leases.remove(key.as_bytes());
            if how == Released::Declined {
                inner.declined.insert(key.as_bytes().to_vec(), Instant::now() + Duration::from_secs(1));
            }
        }
        Ok(())
    }

    fn purge_log(&self) -> Option<Arc<dyn PurgeLog>> {
        self.has_log.then(|| Arc::new(Lonely::default()) as Arc<dyn PurgeLog>)
    }

    async fn clear(&self) -> Result<(), StorageError> {
        self.begin("clear").await?;
        self.lock().kept.clear();
        Ok(())
    }

    fn usage(&self) -> StorageUsage {
        StorageUsage::new(self.len() as u64, 0, 0)
    }
}

/// A log that nobody but this instance writes to.
#[derive(Default)]
struct Lonely(AtomicU64);

impl PurgeLog for Lonely {
    fn append<'a>(&'a self, purge: &'a PurgeMessage, _: u64) -> LogFuture<'a, PurgeNews> {
        let number = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        Box::pin(async move { Ok(PurgeNews::Since { purges: vec![(number, purge.clone())], floor: 0 }) })
    }

    fn follow(&self, _: u64, wait: Duration) -> LogFuture<'_, PurgeNews> {
        Box::pin(async move {
            tokio::time::sleep(wait).await;
            Ok(PurgeNews::Since { purges: Vec::new(), floor: 0 })
        })
    }

    fn snapshot(&self) -> LogFuture<'_, PurgeSnapshot> {
        Box::pin(async { Ok(PurgeSnapshot::default()) })
    }
}
