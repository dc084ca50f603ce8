//! [`Own`]: the memory that the values of a name have for themselves, if they have one, so that nothing else takes their room, nor they that of anything else. It is a store as
//! the responses have one, under the same purges.

use std::sync::{Arc, OnceLock};

use super::DataCache;
use crate::cache::{CacheCore, State};
use crate::fates::Fates;
use crate::storage::{Eviction, MemoryStore};

/// Where a name has its values in memory: decided by whoever first says it or uses the name, and then for good, since two stores with a value for one key would be two truths.
#[derive(Debug, Default)]
pub(crate) struct Own(OnceLock<Home>);

#[derive(Debug)]
enum Home {
    /// Where the responses are.
    Shared,
    /// In a store of its own, as a file said.
    Said(Arc<MemoryStore>),
    /// The same, as code said: what a file says of it doesn't count.
    Given(Arc<MemoryStore>),
}

/// How large such a store is, as a file says it.
#[cfg_attr(not(feature = "config"), allow(dead_code, reason = "only a file says it so"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OwnMemory {
    pub(crate) capacity: u64,
    pub(crate) max_entries: Option<u64>,
    pub(crate) eviction: Eviction,
}

impl OwnMemory {
    fn store(self) -> MemoryStore {
        let store = MemoryStore::new(self.capacity).eviction(self.eviction);
        match self.max_entries {
            Some(most) => store.max_entries(most),
            None => store,
        }
    }

    /// As the store itself is described.
    pub(crate) fn described(self) -> [(&'static str, String); 3] {
        self.store().described()
    }
}

impl Own {
    /// The store, if it was decided that there is one.
    #[inline]
    pub(crate) fn get(&self) -> Option<&Arc<MemoryStore>> {
        match self.0.get()? {
            Home::Shared => None,
            Home::Said(store) | Home::Given(store) => Some(store),
        }
    }

    /// Decides, if nobody has: as the settings say.
    #[cold]
    fn settle(&self, said: Option<OwnMemory>, fates: &Arc<Fates>) {
        self.0.get_or_init(|| said.map_or(Home::Shared, |said| Home::Said(Arc::new(said.store().for_cache(fates)))));
    }

    /// Decides that it is one like this. False if something else was decided before.
    fn give(&self, store: &MemoryStore, fates: &Arc<Fates>) -> bool {
        self.0.get_or_init(|| Home::Given(Arc::new(store.for_cache(fates))));
        self.get().is_some_and(|own| own.described() == store.described())
    }

    /// What of the settings that are wanted can't be any more: field, what it is, and what it would have to become.
    pub(super) fn differs(&self, wanted: Option<OwnMemory>) -> Option<(&'static str, String, String)> {
        let shared = || [("capacity", String::new()), ("max_entries", "none".into()), ("eviction", String::new())];
        let running = match self.0.get()? {
            Home::Given(_) => return None,
            Home::Shared => shared(),
            Home::Said(store) => store.described(),
        };
        let wanted = wanted.map_or_else(shared, OwnMemory::described);
        let mut pairs = running.into_iter().zip(wanted);
        pairs.find(|(one, other)| one != other).map(|((field, running), (_, wanted))| (field, running, wanted))
    }
}

impl DataCache {
    /// Keeps the values of this name in memory of their own, in a store like this one, and not in that of the responses: neither takes the other's room. Purges reach it as they reach the responses, in the
    /// same step. Where there is a store that instances share, this is the memory before it.
    ///
    /// It is the name's, and so for all that are made under it, and for good: what is said first counts, or that the name is used before anything is said. Who says otherwise later is warned in the log, and changes
    /// nothing. It counts more than `[data.NAME]` of a configuration.
    ///
    /// ```
    /// use larder::CacheLayer;
    /// use larder::storage::MemoryStore;
    ///
    /// let cache = CacheLayer::in_memory(256 << 20);
    /// let sessions = cache.data("sessions").own_memory(MemoryStore::new(64 << 20).max_entries(100_000));
    /// assert_eq!(sessions.stats().own_capacity, Some(64 << 20));
    /// ```
    pub fn own_memory(self, store: MemoryStore) -> Self {
        let core = self.core();
        if !self.counters().own.give(&store, &core.fates) {
            tracing::warn!(target: "larder", cache = self.name(), "the data cache goes on with the memory that it has: it was used, or given another one, before it was given this");
        }
        self
    }

    /// The store in memory that has its values, if one has.
    #[inline]
    pub(crate) fn near<'a>(&'a self, core: &'a CacheCore) -> Option<&'a Arc<MemoryStore>> {
        let own = &self.counters().own;
        if own.0.get().is_none() {
            let said = core.settings.data.get(self.name()).and_then(|said| said.memory);
            own.settle(said, &core.fates);
        }
        own.get().or(core.settings.backend.near.as_ref())
    }
}

impl State {
    /// The stores in memory that names have for themselves.
    pub(crate) fn own_memories(&self) -> Vec<Arc<MemoryStore>> {
        self.data.all().iter().filter_map(|counters| counters.own.get().cloned()).collect()
    }
}
