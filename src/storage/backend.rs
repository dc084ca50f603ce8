//! The store behind a cache: the one in memory, which answers at once and isn't paid for with a box, or any other, which is waited for.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::dynamic::{DynStorage, Only};
use super::{MemoryStore, Storage, StorageUsage};

/// A store, its type erased unless it is the memory store.
#[derive(Clone)]
pub(crate) enum Backend {
    Memory(Arc<MemoryStore>),
    Other(Arc<dyn DynStorage>),
}

impl Backend {
    pub(crate) fn other(storage: impl Storage) -> Self {
        Self::Other(Arc::new(Only { storage, taken: AtomicBool::new(false) }))
    }

    /// The store for one cache. What is stored means something only together with the purges and the rules of its cache, so no two
    /// caches of a process may share it: each has a memory store of its own, and of any other there is one.
    ///
    /// # Panics
    /// If another cache has the store already.
    pub(crate) fn of_its_own(&self) -> Self {
        match self {
            Self::Memory(memory) => Self::Memory(Arc::new(memory.empty())),
            Self::Other(other) => {
                assert!(
                    other.take(),
                    "this store belongs to another cache already: call all setters of a `CacheLayer` before it is used or cloned"
                );
                self.clone()
            }
        }
    }

    pub(crate) fn usage(&self) -> StorageUsage {
        match self {
            Self::Memory(memory) => Storage::usage(&**memory),
            Self::Other(other) => other.usage(),
        }
    }
}
