//! [`Faulty`]: a store for tests that fails when it is told to, and remembers what it was asked.

use std::collections::HashMap;
use std::fmt;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Lease, LeaseToken, PurgeLog, Query, Released, Storage, StorageUsage, Swap, Swapped, Variants};
use crate::error::StorageError;
use crate::key::CacheKey;
use crate::response::StoredResponse;

/// A store that does what the one inside does, unless a [`Fault`] is set. Clones share everything, so that a test can keep one.
///
/// ```
/// use larder::CacheLayer;
/// use larder::storage::MemoryStore;
/// use larder::storage::testing::{Fault, Faulty, Operation};
///
/// let store = Faulty::new(MemoryStore::new(1 << 20));
/// let cache = CacheLayer::with_storage(store.clone());
/// store.set(Operation::Get, Fault::Hang); // from now on
/// // .. requests ..
/// assert_eq!(store.calls(Operation::Get), 0);
/// store.mend();
/// # drop(cache);
/// ```
pub struct Faulty<S> {
    shared: Arc<Shared<S>>,
}

struct Shared<S> {
    storage: S,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    faults: HashMap<Operation, Fault>,
    journal: Vec<Call>,
}

/// What a store can be asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "they are the methods of `Storage`")]
#[non_exhaustive]
pub enum Operation {
    Get,
    Put,
    Remove,
    Erase,
    Clear,
    Lease,
    Release,
    Ping,
    Swap,
}

impl Operation {
    const ALL: [Self; 9] = [
        Self::Get,
        Self::Put,
        Self::Remove,
        Self::Erase,
        Self::Clear,
        Self::Lease,
        Self::Release,
        Self::Ping,
        Self::Swap,
    ];
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// An error at once.
    Fail,
    /// An error at once that says that [nobody is there](StorageError::unreachable).
    Unreachable,
    /// Never an answer.
    Hang,
    /// The right answer, so much later.
    Late(Duration),
    /// A lie: it says that it was done, or that there is nothing, and does nothing.
    Lie,
    /// A panic.
    Panic,
}

/// What it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Call {
    /// To do what.
    pub operation: Operation,
    /// With which key, if it is about one.
    pub key: Option<CacheKey>,
}

impl<S> Faulty<S> {
    /// A store without faults yet.
    pub fn new(storage: S) -> Self {
        Self { shared: Arc::new(Shared { storage, state: Mutex::default() }) }
    }

    /// From now on, whenever it is asked to do this.
    pub fn set(&self, operation: Operation, fault: Fault) {
        self.state().faults.insert(operation, fault);
    }

    /// From now on, whatever it is asked.
    pub fn set_all(&self, fault: Fault) {
        self.state().faults.extend(Operation::ALL.map(|operation| (operation, fault)));
    }

    /// From now on nothing is wrong. What hangs goes on hanging.
    pub fn mend(&self) {
        self.state().faults.clear();
    }

    /// How often it was asked to do this.
    pub fn calls(&self, operation: Operation) -> usize {
        self.state().journal.iter().filter(|call| call.operation == operation).count()
    }

    /// All that it was asked, in order.
    pub fn journal(&self) -> Vec<Call> {
        self.state().journal.clone()
    }

    /// The store inside.
    pub fn inner(&self) -> &S {
        &self.shared.storage
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether to do it.
    async fn begin(&self, operation: Operation, key: Option<&CacheKey>) -> Result<bool, StorageError> {
        let fault = {
            let mut state = self.state();
            state.journal.push(Call { operation, key: key.cloned() });
            state.faults.get(&operation).copied()
        };
        match fault {
            None => Ok(true),
            Some(Fault::Lie) => Ok(false),
            Some(Fault::Fail) => Err(StorageError::new(format!("{operation:?} is out of order"))),
            Some(Fault::Unreachable) => Err(StorageError::unreachable("nobody is there")),
            Some(Fault::Hang) => pending().await,
            Some(Fault::Late(late)) => {
                tokio::time::sleep(late).await;
                Ok(true)
            }
            Some(Fault::Panic) => panic!("{operation:?} panics, as it was told"),
        }
    }
}

impl<S: Storage> Storage for Faulty<S> {
    async fn get(&self, query: Query<'_>) -> Result<Variants, StorageError> {
        let goes_on = self.begin(Operation::Get, Some(query.key)).await?;
        if goes_on { self.inner().get(query).await } else { Ok(Variants::new()) }
    }

    async fn put(&self, key: &CacheKey, response: Arc<StoredResponse>, most: usize) -> Result<(), StorageError> {
        let goes_on = self.begin(Operation::Put, Some(key)).await?;
        if goes_on { self.inner().put(key, response, most).await } else { Ok(()) }
    }

    async fn remove(&self, key: &CacheKey) -> Result<bool, StorageError> {
        let goes_on = self.begin(Operation::Remove, Some(key)).await?;
        if goes_on { self.inner().remove(key).await } else { Ok(true) }
    }

    async fn erase(&self, partition: &[u8; 16]) -> Result<(), StorageError> {
        let goes_on = self.begin(Operation::Erase, None).await?;
        if goes_on { self.inner().erase(partition).await } else { Ok(()) }
    }

    async fn lease(&self, key: &CacheKey, term: Duration) -> Result<Lease, StorageError> {
        let goes_on = self.begin(Operation::Lease, Some(key)).await?;
        if goes_on { self.inner().lease(key, term).await } else { Ok(Lease::Taken) }
    }

    async fn release(&self, key: &CacheKey, token: LeaseToken, how: Released) -> Result<(), StorageError> {
        let goes_on = self.begin(Operation::Release, Some(key)).await?;
        if goes_on { self.inner().release(key, token, how).await } else { Ok(()) }
    }

    async fn swap(&self, swap: Swap<'_>) -> Result<Swapped, StorageError> {
        let goes_on = self.begin(Operation::Swap, Some(swap.key)).await?;
        if goes_on { self.inner().swap(swap).await } else { Ok(Swapped::Done) }
    }

    fn purge_log(&self) -> Option<Arc<dyn PurgeLog>> {
        self.inner().purge_log()
    }

    async fn ping(&self) -> Result<(), StorageError> {
        let goes_on = self.begin(Operation::Ping, None).await?;
        if goes_on { self.inner().ping().await } else { Ok(()) }
    }

    async fn clear(&self) -> Result<(), StorageError> {
        let goes_on = self.begin(Operation::Clear, None).await?;
        if goes_on { self.inner().clear().await } else { Ok(()) }
    }

    fn usage(&self) -> StorageUsage {
        self.inner().usage()
    }
}

impl<S> Clone for Faulty<S> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<S> fmt::Debug for Faulty<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faulty").field("faults", &self.state().faults).finish_non_exhaustive()
    }
}
