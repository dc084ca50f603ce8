//! Where responses are kept. [`Storage`] is the seam: [`MemoryStore`] is the default, and any other backend can be brought along.

pub(crate) mod backend;
mod breaker;
pub mod contract;
mod deadlines;
pub(crate) mod dynamic;
mod guard;
mod lease;
mod log;
mod memory;
mod policy_key;
#[cfg(feature = "redis")]
mod redis;
pub(crate) mod scan;
mod swap;
pub mod testing;
mod tiered;
mod timeless;

use std::borrow::Borrow;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use smallvec::SmallVec;

pub use self::guard::{Guard, GuardStats, Guarded};
pub use self::lease::{Lease, LeaseToken, Released};
pub use self::log::{LogFuture, PurgeLog, PurgeNews, PurgeSnapshot};
pub use self::memory::{Eviction, MemoryStore};
#[cfg(feature = "redis")]
pub use self::redis::{RedisStats, RedisStore, RedisUrlError};
pub use self::swap::{Expected, Swap, Swapped};
pub use self::tiered::Tiered;
use crate::clock::{Clock, Moment, SystemClock};
use crate::error::StorageError;
use crate::key::CacheKey;
use crate::response::StoredResponse;

/// The responses stored under one key: the variants of a resource (RFC 9111 §4.1), newest first.
pub type Variants = SmallVec<[Arc<StoredResponse>; 1]>;

/// What a store is asked for.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Query<'a> {
    /// The key.
    pub key: &'a CacheKey,
    /// The fields of the request, with which a store that is far away may choose the variant there.
    pub headers: &'a HeaderMap,
    /// When it is asked, by the clock of the cache.
    pub now: Moment,
    /// The answer is about to be changed, so a copy that is nearer than the place where others change it isn't good enough, however fresh it is.
    pub newest: bool,
}

impl<'a> Query<'a> {
    /// A question; for whoever asks a store without a cache.
    pub fn new(key: &'a CacheKey, headers: &'a HeaderMap, now: Moment) -> Self {
        Self { key, headers, now, newest: false }
    }

    /// The same for who changes what is there: see [`newest`](Self::newest).
    #[must_use]
    pub fn for_change(self) -> Self {
        Self { newest: true, ..self }
    }
}

/// A place to keep responses.
///
/// What it does not promise: that what was put can be got (it may be evicted at once), or that a `get` sees a `put` that runs at the same time. What it
/// must keep: once `remove` or `clear` has returned, nothing put before is returned again. Freshness is none of its business: the
/// cache decides that on every read. An error or a missing answer costs a miss, never a failed request.
///
/// A cache puts a [guard](Guarded) before every store, so that one which hangs, fails or panics costs a bounded delay and a miss. An operation that takes too long is
/// dropped where it stands: it may have happened or not, and the store has to go on as well as before. [`contract::check`] tries a store with all of this, and
/// [`testing::Faulty`] makes any store one that fails.
///
/// ```
/// use std::{collections::HashMap, sync::{Arc, Mutex, PoisonError}};
/// use larder::storage::{Query, Storage, StorageUsage, Variants, with_variant};
/// use larder::{CacheKey, CacheLayer, StorageError, StoredResponse};
///
/// /// Keeps everything for ever; for a test, say.
/// #[derive(Default)]
/// struct Hoard(Mutex<HashMap<CacheKey, Variants>>);
///
/// impl Hoard {
///     fn with<R>(&self, use_it: impl FnOnce(&mut HashMap<CacheKey, Variants>) -> R) -> Result<R, StorageError> {
///         Ok(use_it(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner)))
///     }
/// }
///
/// impl Storage for Hoard {
///     async fn get(&self, query: Query<'_>) -> Result<Variants, StorageError> {
///         self.with(|all| all.get(query.key).cloned().unwrap_or_default())
///     }
///     async fn put(&self, key: &CacheKey, response: Arc<StoredResponse>, most: usize) -> Result<(), StorageError> {
///         self.with(|all| {
///             let old = all.remove(key).unwrap_or_default();
///             all.insert(key.clone(), with_variant(&old, response, most));
///         })
///     }
///     async fn remove(&self, key: &CacheKey) -> Result<bool, StorageError> {
///         self.with(|all| all.remove(key).is_some())
///     }
///     async fn clear(&self) -> Result<(), StorageError> {
///         self.with(HashMap::clear)
///     }
///     fn usage(&self) -> StorageUsage {
///         StorageUsage::new(self.with(|all| all.len()).unwrap_or_default() as u64, 0, 0)
///     }
/// }
///
/// let cache = CacheLayer::with_storage(Hoard::default());
/// # drop(cache);
/// ```
pub trait Storage: Send + Sync + 'static {
    /// The variants stored under the key; empty if there is none.
    fn get(&self, query: Query<'_>) -> impl Future<Output = Result<Variants, StorageError>> + Send;

    /// Stores a response. It takes the place of the [same variant](StoredResponse::same_variant); variants that nominate other fields are
    /// dropped, and of more than `most` the oldest go.
    fn put(
        &self,
        key: &CacheKey,
        response: Arc<StoredResponse>,
        most: usize,
    ) -> impl Future<Output = Result<(), StorageError>> + Send;

    /// Drops all variants of the key; tells whether there were any.
    fn remove(&self, key: &CacheKey) -> impl Future<Output = Result<bool, StorageError>> + Send;

    /// Drops all that is stored for one principal, by the digest that stands for them in keys; for stores that several instances share, where none knows
    /// all keys. Takes as long as it takes.
    fn erase(&self, partition: &[u8; 16]) -> impl Future<Output = Result<(), StorageError>> + Send {
        let _ = partition;
        async { Ok(()) }
    }

    /// Puts an entry under a key if what is there is what was expected, in one step: of those who expect the same at the same time, on whatever instance, one finds it. What is there instead
    /// is told, so that who tries again needs no further look.
    ///
    /// What is there is taken as it is: whether its time is over, or it is purged, is judged by the cache, which then expects just that entry. But what isn't found any more, since the store let go of it, is
    /// nothing. Keys with variants can't be swapped.
    ///
    /// # Errors
    /// By default always: that this store has [no atomic operations](StorageError::unsupported). After any other error the entry [may have been put or not](StorageError::may_be_done), unless the error says that
    /// nothing was done.
    fn swap(&self, swap: Swap<'_>) -> impl Future<Output = Result<Swapped, StorageError>> + Send {
        let _ = swap;
        async { Err(StorageError::unsupported("it has no atomic operations")) }
    }

    /// Asks for the lease on a key, for so long at most, so that one instance asks the handler for all of them.
    fn lease(&self, key: &CacheKey, term: Duration) -> impl Future<Output = Result<Lease, StorageError>> + Send {
        let _ = (key, term);
        async { Ok(Lease::Free) }
    }

    /// Ends a lease.
    fn release(
        &self,
        key: &CacheKey,
        token: LeaseToken,
        how: Released,
    ) -> impl Future<Output = Result<(), StorageError>> + Send {
        let _ = (key, token, how);
        async { Ok(()) }
    }

    /// The log over which the instances that share this store tell each other what was purged. Without one, what is stored means something to this process only.
    fn purge_log(&self) -> Option<Arc<dyn PurgeLog>> {
        None
    }

    /// Asks whether the store is there, and nothing else; how a [guard](Guarded) finds out that it is back. Unless it is made otherwise it asks for a response that nobody
    /// stores.
    fn ping(&self) -> impl Future<Output = Result<(), StorageError>> + Send {
        async {
            // Nothing has such a key: every path begins with a slash.
            let (key, headers) = (CacheKey::new(b"", "ping", None), HeaderMap::new());
            let now = SystemClock::default().now();
            self.get(Query::new(&key, &headers, now)).await.map(drop)
        }
    }

    /// Drops everything.
    fn clear(&self) -> impl Future<Output = Result<(), StorageError>> + Send;

    /// How much it holds.
    fn usage(&self) -> StorageUsage;
}

/// How much a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StorageUsage {
    /// Keys with at least one response.
    pub entries: u64,
    /// Bytes as the store counts them.
    pub bytes: u64,
    /// Responses that left because there was no room or because their time was over.
    pub evictions: u64,
}

impl StorageUsage {
    /// Of a backend of one's own.
    pub fn new(entries: u64, bytes: u64, evictions: u64) -> Self {
        Self { entries, bytes, evictions }
    }

    /// Of two stores together.
    pub(crate) fn and(self, other: Self) -> Self {
        let Self { entries, bytes, evictions } = other;
        Self::new(self.entries + entries, self.bytes + bytes, self.evictions + evictions)
    }

    /// Of a store that has all, and of one that has copies of some.
    pub(crate) fn or_copies(self, copies: Self) -> Self {
        let Self { entries, bytes, evictions } = copies;
        Self::new(self.entries.max(entries), self.bytes.max(bytes), self.evictions + evictions)
    }
}

/// The variants after `newer` was added: it replaces its own variant and those that nominate other fields, and the oldest
/// above `most` leave. For backends that keep the variants of a key together.
///
/// Responses are stored when their content ends, which may be in another order than they began. What began later stays: behind a purge that the other one began before, or with a head that
/// came later.
pub fn with_variant(variants: &[Arc<StoredResponse>], newer: Arc<StoredResponse>, most: usize) -> Variants {
    with_newer(variants, newer, most)
}

fn with_newer<R: Borrow<StoredResponse> + Clone>(variants: &[R], newer: R, most: usize) -> SmallVec<[R; 1]> {
    if variants.is_empty() {
        return SmallVec::from_buf([newer]);
    }
    let newest = newer.borrow();
    let competes = |old: &StoredResponse| old.same_variant(newest) || old.variance.fields != newest.variance.fields;
    let order = |stored: &StoredResponse| (stored.stamp.number, stored.received.monotonic);
    let is_late = |old: &StoredResponse| competes(old) && order(old) > order(newest);
    if variants.iter().any(|old| is_late(old.borrow())) {
        return variants.iter().cloned().collect();
    }
    // A response that varies by other fields could answer a request that the newer one is meant for: the newest word on `Vary` counts.
    let kept = variants.iter().filter(|old| !competes(R::borrow(old))).take(most.saturating_sub(1)).cloned();
    let mut all = SmallVec::with_capacity(1);
    all.extend(kept);
    all.insert(0, newer);
    all
}
