//! The one place where the type of a store is erased, so that layers and services need no type parameter for it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::guard::{Guard, GuardStats, Guarded};
use super::{Lease, LeaseToken, PurgeLog, Query, Released, Storage, StorageUsage, Swap, Swapped, Variants};
use crate::error::StorageError;
use crate::key::CacheKey;
use crate::response::StoredResponse;

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StorageError>> + Send + 'a>>;

/// [`Storage`] with boxed futures.
pub(crate) trait DynStorage: Send + Sync {
    fn get<'a>(&'a self, query: Query<'a>) -> Answer<'a, Variants>;
    fn put<'a>(&'a self, key: &'a CacheKey, response: Arc<StoredResponse>, most: usize) -> Answer<'a, ()>;
    fn remove<'a>(&'a self, key: &'a CacheKey) -> Answer<'a, bool>;
    #[cfg_attr(not(feature = "data"), allow(dead_code, reason = "only data is swapped"))]
    fn swap<'a>(&'a self, swap: Swap<'a>) -> Answer<'a, Swapped>;
    fn clear(&self) -> Answer<'_, ()>;
    fn usage(&self) -> StorageUsage;
    fn erase<'a>(&'a self, partition: &'a [u8; 16]) -> Answer<'a, ()>;
    fn lease<'a>(&'a self, key: &'a CacheKey, term: Duration) -> Answer<'a, Lease>;
    fn release<'a>(&'a self, key: &'a CacheKey, token: LeaseToken, how: Released) -> Answer<'a, ()>;
    fn purge_log(&self) -> Option<Arc<dyn PurgeLog>>;
    /// Before it is first used.
    fn guard_by(&self, guard: Guard);
    fn guard_stats(&self) -> GuardStats;
    /// Takes it for one cache; false if another has it.
    fn take(&self) -> bool;
}

/// A store that serves one cache, behind a guard.
pub(crate) struct Only<S> {
    storage: Guarded<S>,
    taken: AtomicBool,
}

impl<S: Storage> Only<S> {
    pub(crate) fn new(storage: S) -> Self {
        Self { storage: Guarded::new(storage, Guard::default()), taken: AtomicBool::new(false) }
    }
}

impl<S: Storage> DynStorage for Only<S> {
    fn get<'a>(&'a self, query: Query<'a>) -> Answer<'a, Variants> {
        Box::pin(Storage::get(&self.storage, query))
    }

    fn put<'a>(&'a self, key: &'a CacheKey, response: Arc<StoredResponse>, most: usize) -> Answer<'a, ()> {
        Box::pin(Storage::put(&self.storage, key, response, most))
    }

    fn remove<'a>(&'a self, key: &'a CacheKey) -> Answer<'a, bool> {
        Box::pin(Storage::remove(&self.storage, key))
    }

    fn swap<'a>(&'a self, swap: Swap<'a>) -> Answer<'a, Swapped> {
        Box::pin(Storage::swap(&self.storage, swap))
    }

    fn clear(&self) -> Answer<'_, ()> {
        Box::pin(Storage::clear(&self.storage))
    }

    fn usage(&self) -> StorageUsage {
        Storage::usage(&self.storage)
    }

    fn erase<'a>(&'a self, partition: &'a [u8; 16]) -> Answer<'a, ()> {
        Box::pin(Storage::erase(&self.storage, partition))
    }

    fn lease<'a>(&'a self, key: &'a CacheKey, term: Duration) -> Answer<'a, Lease> {
        Box::pin(Storage::lease(&self.storage, key, term))
    }

    fn release<'a>(&'a self, key: &'a CacheKey, token: LeaseToken, how: Released) -> Answer<'a, ()> {
        Box::pin(Storage::release(&self.storage, key, token, how))
    }

    fn purge_log(&self) -> Option<Arc<dyn PurgeLog>> {
        Storage::purge_log(&self.storage)
    }

    fn guard_by(&self, guard: Guard) {
        self.storage.guard_by(guard);
    }

    fn guard_stats(&self) -> GuardStats {
        self.storage.stats()
    }

    fn take(&self) -> bool {
        !self.taken.swap(true, Ordering::AcqRel)
    }
}
