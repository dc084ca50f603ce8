//! The store behind a cache: the one in memory, which answers at once and isn't paid for with a box, or any other, which is waited for.

use std::sync::Arc;

use super::dynamic::DynStorage;
use super::{MemoryStore, Storage, StorageUsage};

/// A store, its type erased unless it is the memory store.
#[derive(Clone)]
pub(crate) enum Backend {
    Memory(Arc<MemoryStore>),
    Other(Arc<dyn DynStorage>),
}

impl Backend {
    pub(crate) fn other(storage: impl Storage) -> Self {
        Self::Other(Arc::new(storage))
    }

    pub(crate) fn usage(&self) -> StorageUsage {
        match self {
            Self::Memory(memory) => Storage::usage(&**memory),
            Self::Other(other) => other.usage(),
        }
    }
}
