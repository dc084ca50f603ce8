//! [`Drops`]: what is removed by key bears no number that says so. A copy that was read from the far store before that mustn't come to the near one behind it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::cache::CacheCore;
use crate::key::CacheKey;

/// Keys that fall together only keep a copy from being made that could have been.
const PLACES: usize = 256;

/// For each of some groups of keys, what was removed of them.
#[derive(Debug)]
pub(crate) struct Drops {
    places: [Mutex<Place>; PLACES],
}

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// How many removals have begun, or ended.
    begun: u64,
    /// How many of those the far store hasn't been through with.
    pending: u32,
}

/// What was known of removals when something was read, or was about to be written.
#[derive(Clone, Copy, Debug, Hash)]
pub(crate) struct Seen {
    place: usize,
    begun: u64,
}

/// A removal until the far store is through with it.
pub(crate) struct Dropping {
    core: Arc<CacheCore>,
    place: usize,
}

impl Drop for Dropping {
    fn drop(&mut self) {
        let mut dropped = self.core.drops.lock(self.place);
        // What was read meanwhile may be what was there before.
        dropped.begun += 1;
        dropped.pending -= 1;
    }
}

impl Default for Drops {
    fn default() -> Self {
        Self { places: std::array::from_fn(|_| Mutex::default()) }
    }
}

impl Drops {
    /// To be asked before the far store is.
    pub(crate) fn seen(&self, hash: u64) -> Seen {
        let place = hash as usize % PLACES;
        Seen { place, begun: self.lock(place).begun }
    }

    /// Calls `put` unless a removal began since, or wasn't through then. None begins meanwhile.
    pub(crate) fn unless_dropped<R>(&self, seen: Seen, put: impl FnOnce() -> R) -> Option<R> {
        let place = self.lock(seen.place);
        (place.begun == seen.begun && place.pending == 0).then(put)
    }

    fn lock(&self, place: usize) -> MutexGuard<'_, Place> {
        self.places[place].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CacheCore {
    /// To be called before the key is removed from the near store, and kept until it is from the far one.
    pub(crate) fn begin_drop(self: &Arc<Self>, key: &CacheKey) -> Dropping {
        let place = self.hash(key) as usize % PLACES;
        let mut dropped = self.drops.lock(place);
        dropped.begun += 1;
        dropped.pending += 1;
        drop(dropped);
        Dropping { core: self.clone(), place }
    }

    /// What was removed of a key so far.
    pub(crate) fn drops_seen(&self, key: &CacheKey) -> Seen {
        self.drops.seen(self.hash(key))
    }

    fn hash(&self, key: &CacheKey) -> u64 {
        self.hasher.hash_one(key.as_bytes())
    }
}
