//! [`Tiered`]: one store made of two.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::RwLock;

use super::{Lease, LeaseToken, PurgeLog, Query, Released, Storage, StorageUsage, Swap, Swapped, Variants};
use crate::clock::Moment;
use crate::error::StorageError;
use crate::head::SharedHeads;
use crate::key::CacheKey;
use crate::response::StoredResponse;
use crate::rfc9111::vary::Matching;

/// A store before another one: what is fresh in the near one is answered from there, all else from the far one, and then kept in the near one as well. What is put is put into
/// both. Either may be made of two itself.
///
/// Memory before a store is better set up with [`CacheLayer::tiered`](crate::CacheLayer::tiered), which answers from it without waiting and knows what was purged. This is for what lies behind that: a store
/// on this machine before one that is far away, say. What was purged in the near store hides what the far one has until it is stored anew, since only the cache tells what is purged.
///
/// The log of purges, leases and [`ping`](Storage::ping) are those of the far store, since that is the one that others share.
///
/// ```
/// use larder::CacheLayer;
/// use larder::storage::{MemoryStore, Tiered};
/// # use larder::storage::MemoryStore as Distant;
/// let distant = Distant::new(64 << 20); // or any other store
/// let cache = CacheLayer::tiered(MemoryStore::new(16 << 20), Tiered::new(MemoryStore::new(32 << 20), distant));
/// # drop(cache);
/// ```
#[derive(Debug)]
pub struct Tiered<N, F> {
    near: N,
    far: F,
    /// How many variants the cache keeps of a key, as it said last.
    most: AtomicUsize,
    removals: Removals,
    /// What copies have in common.
    heads: SharedHeads,
}

/// What is removed from both stores mustn't come back to the near one by somebody who read the far one before.
#[derive(Debug, Default)]
struct Removals {
    known: Mutex<Known>,
    /// Read by who keeps something in the near store, so that a removal can wait for them.
    keeping: RwLock<()>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    begun: u64,
    pending: u32,
}

/// A removal that hasn't come to its end.
struct Removal<'a>(&'a Removals);

impl Drop for Removal<'_> {
    fn drop(&mut self) {
        let mut known = self.0.known();
        known.pending -= 1;
        // Who read while it was under way may have read what was there before.
        known.begun += 1;
    }
}

impl Removals {
    fn begin(&self) -> Removal<'_> {
        let mut known = self.known();
        known.begun += 1;
        known.pending += 1;
        Removal(self)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<N: Storage, F: Storage> Tiered<N, F> {
    /// `near` before `far`.
    pub fn new(near: N, far: F) -> Self {
        Self { near, far, most: AtomicUsize::new(1), removals: Removals::default(), heads: SharedHeads::default() }
    }

    /// What the far store has is kept in the near one, where it is of use there; unless something was removed since it had been asked.
    async fn keep(&self, query: Query<'_>, variants: &Variants, begun: u64) {
        // Who removes something waits for who keeps, and not the other way round.
        let Ok(_keeping) = self.removals.keeping.try_read() else { return };
        let known = *self.removals.known();
        if known.begun != begun || known.pending > 0 {
            return;
        }
        let most = self.most.load(Ordering::Relaxed).max(variants.len());
        // The oldest first, so that the order stays.
        for variant in variants.iter().rev().filter(|variant| is_fresh(variant, query.now) && !variant.is_atomic()) {
            // What comes from far may be a small part of the memory that it was read into.
            let copy = Arc::new(variant.in_memory_of_its_own(&self.heads));
            if self.near.put(query.key, copy, most).await.is_err() {
                return;
            }
        }
    }
}

impl<N: Storage, F: Storage> Storage for Tiered<N, F> {
    /// An error of the near store is no more than that it has nothing.
    async fn get(&self, query: Query<'_>) -> Result<Variants, StorageError> {
        // Who is about to change what is there has to know what is there.
        if query.newest {
            return self.far.get(query).await;
        }
        let near = self.near.get(query).await.unwrap_or_default();
        let is_meant = |variant: &Arc<StoredResponse>| variant.variance.matches(query.headers, Matching::Careful);
        if near.iter().any(|variant| is_meant(variant) && is_fresh(variant, query.now)) {
            return Ok(near);
        }
        let begun = self.removals.known().begun;
        match self.far.get(query).await {
            Ok(far) => {
                self.keep(query, &far, begun).await;
                Ok(far)
            }
            // What is stale here may still be sent, or confirmed.
            Err(_) if !near.is_empty() => Ok(near),
            Err(error) => Err(error),
        }
    }

    async fn put(&self, key: &CacheKey, response: Arc<StoredResponse>, most: usize) -> Result<(), StorageError> {
        self.most.store(most, Ordering::Relaxed);
        let near = self.near.put(key, response.clone(), most).await;
        self.far.put(key, response, most).await.and(near)
    }

    async fn remove(&self, key: &CacheKey) -> Result<bool, StorageError> {
        let _removal = self.removals.begin();
        // Both, whatever becomes of the other.
        let far = self.far.remove(key).await;
        let _nobody_keeps = self.removals.keeping.write().await;
        let near = self.near.remove(key).await;
        Ok(far? | near?)
    }

    /// The far store decides, since it is the one that others share. The near one lets go of the entry first, so that nothing older is found there however this ends.
    async fn swap(&self, swap: Swap<'_>) -> Result<Swapped, StorageError> {
        let _removal = self.removals.begin();
        drop(self.removals.keeping.write().await);
        self.near.remove(swap.key).await.map_err(|error| error.after(false))?;
        self.far.swap(swap).await
    }

    async fn erase(&self, partition: &[u8; 16]) -> Result<(), StorageError> {
        let _removal = self.removals.begin();
        let far = self.far.erase(partition).await;
        let _nobody_keeps = self.removals.keeping.write().await;
        self.near.erase(partition).await.and(far)
    }

    async fn lease(&self, key: &CacheKey, term: Duration) -> Result<Lease, StorageError> {
        self.far.lease(key, term).await
    }

    async fn release(&self, key: &CacheKey, token: LeaseToken, how: Released) -> Result<(), StorageError> {
        self.far.release(key, token, how).await
    }

    fn purge_log(&self) -> Option<Arc<dyn PurgeLog>> {
        self.far.purge_log()
    }

    async fn ping(&self) -> Result<(), StorageError> {
        self.far.ping().await
    }

    async fn clear(&self) -> Result<(), StorageError> {
        let _removal = self.removals.begin();
        let far = self.far.clear().await;
        let _nobody_keeps = self.removals.keeping.write().await;
        self.near.clear().await.and(far)
    }

    /// The far store has all; where it can't say how much that is, what the near one has.
    fn usage(&self) -> StorageUsage {
        self.far.usage().or_copies(self.near.usage())
    }
}

fn is_fresh(variant: &StoredResponse, now: Moment) -> bool {
    variant.current_terms().is_fresh(variant.age(now))
}
