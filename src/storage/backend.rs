//! The stores behind a cache: one in memory, which is *near* and answers at once, any other, which is *far* and waited for, or both: then the near one has copies of what
//! the far one has.

use std::sync::Arc;

use super::dynamic::{DynStorage, Only};
use super::{Guard, GuardStats, MemoryStore, PurgeLog, Storage, StorageUsage};
use crate::fates::Fates;

/// One store or two. The near one isn't paid for with a box, nor with a look at whether there is another one where it has the answer.
#[derive(Clone)]
pub(crate) struct Backend {
    pub(crate) near: Option<Arc<MemoryStore>>,
    pub(crate) far: Option<Arc<dyn DynStorage>>,
}

impl Backend {
    pub(crate) fn memory(store: MemoryStore) -> Self {
        Self { near: Some(Arc::new(store)), far: None }
    }

    pub(crate) fn other(storage: impl Storage) -> Self {
        Self { near: None, far: Some(Arc::new(Only::new(storage))) }
    }

    pub(crate) fn tiered(near: MemoryStore, far: impl Storage) -> Self {
        Self { near: Some(Arc::new(near)), ..Self::other(far) }
    }

    /// The stores for one cache. What is stored means something only together with the purges and the rules of its cache, so no two
    /// caches of a process may share it: each has a memory store of its own, and of any other there is one.
    ///
    /// # Panics
    /// If another cache has the far store already.
    pub(crate) fn of_its_own(&self, fates: &Arc<Fates>) -> Self {
        assert!(
            self.far.as_ref().is_none_or(|far| far.take()),
            "this store belongs to another cache already: call all setters of a `CacheLayer` before it is used or cloned"
        );
        let near = self.near.as_ref().map(|near| Arc::new(near.for_cache(fates)));
        Self { near, far: self.far.clone() }
    }

    /// What of `other` isn't as it is here, as field, value here and value there.
    pub(crate) fn differs(&self, other: &Self) -> Option<(&'static str, String, String)> {
        let same_far = match (&self.far, &other.far) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        if !same_far || self.near.is_some() != other.near.is_some() {
            return Some(("kind", self.kind().into(), other.kind().into()));
        }
        let (one, other) = (self.near.as_ref()?.described(), other.near.as_ref()?.described());
        let pairs = one.into_iter().zip(other);
        pairs.map(|((name, one), (_, other))| (name, one, other)).find(|(_, one, other)| one != other)
    }

    fn kind(&self) -> &'static str {
        match (&self.near, &self.far) {
            (_, None) => "memory",
            (None, Some(_)) => "a store of one's own",
            (Some(_), Some(_)) => "memory before a store of one's own",
        }
    }

    /// How the far store is guarded, before it is first used. The one in memory needs no guard.
    pub(crate) fn guard_by(&self, guard: Guard) {
        self.far.iter().for_each(|far| far.guard_by(guard));
    }

    /// What the guard has seen; `None` where there is none.
    pub(crate) fn guard_stats(&self) -> Option<GuardStats> {
        self.far.as_ref().map(|far| far.guard_stats())
    }

    /// The log of the far store, if several instances share it.
    pub(crate) fn purge_log(&self) -> Option<Arc<dyn PurgeLog>> {
        self.far.as_ref()?.purge_log()
    }

    /// What the cache holds: of two stores, the far one has all, and the near one knows better how much that is in memory.
    pub(crate) fn usage(&self) -> StorageUsage {
        match (&self.near, &self.far) {
            (Some(near), _) => Storage::usage(&**near),
            (None, Some(far)) => far.usage(),
            (None, None) => StorageUsage::default(),
        }
    }
}
