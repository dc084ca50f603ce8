//! The store behind a cache: the one in memory, which answers at once and isn't paid for with a box, or any other, which is waited for.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::dynamic::{DynStorage, Only};
use super::{MemoryStore, PurgeLog, Storage, StorageUsage};
use crate::fates::Fates;

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
    pub(crate) fn of_its_own(&self, fates: &Arc<Fates>) -> Self {
        match self {
            Self::Memory(memory) => Self::Memory(Arc::new(memory.for_cache(fates))),
            Self::Other(other) => {
                assert!(
                    other.take(),
                    "this store belongs to another cache already: call all setters of a `CacheLayer` before it is used or cloned"
                );
                self.clone()
            }
        }
    }

    /// What of `other` isn't as it is here, as field, value here and value there.
    pub(crate) fn differs(&self, other: &Self) -> Option<(&'static str, String, String)> {
        match (self, other) {
            (Self::Memory(one), Self::Memory(other)) => {
                let pairs = one.described().into_iter().zip(other.described());
                pairs.map(|((name, one), (_, other))| (name, one, other)).find(|(_, one, other)| one != other)
            }
            (Self::Other(one), Self::Other(other)) if Arc::ptr_eq(one, other) => None,
            (one, other) => Some(("kind", one.kind().into(), other.kind().into())),
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Memory(_) => "memory",
            Self::Other(_) => "a store of one's own",
        }
    }

    /// The log of the store, if several instances share it.
    pub(crate) fn purge_log(&self) -> Option<Arc<dyn PurgeLog>> {
        match self {
            Self::Memory(_) => None,
            Self::Other(other) => other.purge_log(),
        }
    }

    pub(crate) fn usage(&self) -> StorageUsage {
        match self {
            Self::Memory(memory) => Storage::usage(&**memory),
            Self::Other(other) => other.usage(),
        }
    }
}
