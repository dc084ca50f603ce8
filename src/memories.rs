//! All stores in memory that a cache has: the one of the responses, and those that [data caches](crate::DataCache::own_memory) have for themselves.

use std::sync::Arc;

use crate::cache::CacheCore;
use crate::storage::{MemoryStore, Storage, StorageUsage};

#[cfg(not(feature = "data"))]
impl crate::cache::State {
    pub(crate) fn own_memories(&self) -> Vec<Arc<MemoryStore>> {
        Vec::new()
    }
}

impl CacheCore {
    /// Of now: one that comes later has nothing yet.
    pub(crate) fn memories(&self) -> impl Iterator<Item = Arc<MemoryStore>> + use<> {
        self.settings.backend.near.clone().into_iter().chain(self.own_memories())
    }

    /// Gives the memory of everything back, which was purged under this number.
    pub(crate) fn clear_memories(&self, number: u64) {
        self.memories().for_each(|memory| memory.clear_now(Some(number)));
    }

    /// What the cache holds. What is in memory before a store that is far is a copy.
    pub(crate) fn usage(&self) -> StorageUsage {
        let backend = &self.settings.backend;
        let own = self.own_memories().iter().fold(StorageUsage::default(), |all, own| all.and(Storage::usage(&**own)));
        let theirs = backend.usage();
        if backend.near.is_none() && backend.far.is_some() { theirs.or_copies(own) } else { theirs.and(own) }
    }
}
