//! The purge index: every purge has a number, and a stored response is valid only while no purge that touches it has a larger number than
//! was current when its request went to the handler. So a fill that began before a purge can never bring the purged data back.
//!
//! | rule | here |
//! |---|---|
//! | 1. a response carries the number that was current before its handler was called | [`PurgeIndex::current`], [`Stamp`] |
//! | 2. validity is checked on every read | [`PurgeIndex::is_valid`] |
//! | 3. a purge seals the fills in flight that it may touch | [`Flights`](crate::flight::Flights) |
//! | 4. a write deletes by key, without moving the number | [`CacheCore::invalidate`](crate::cache::CacheCore::invalidate) |
//!
//! Tags, patterns, and soft purges will be further selectors here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::key::CacheKey;
use crate::response::Stamp;

/// How many purged resources are remembered one by one. Beyond, the floor rises: all that is older counts as purged, which is a
/// miss too many and never a stale answer.
const MOST_RESOURCES: usize = 100_000;

#[derive(Debug)]
pub(crate) struct PurgeIndex {
    /// The number of the newest purge.
    number: AtomicU64,
    /// What has a smaller number than this is invalid, whatever it is.
    floor: AtomicU64,
    /// The newest number for each purged resource, by hash. Two resources with one hash are purged together: a miss too many.
    resources: papaya::HashMap<u64, u64, ahash::RandomState>,
    /// Purges take turns, so that numbers are published in order.
    turn: Mutex<()>,
    hasher: ahash::RandomState,
}

impl Default for PurgeIndex {
    fn default() -> Self {
        Self {
            number: AtomicU64::new(0),
            floor: AtomicU64::new(0),
            resources: papaya::HashMap::with_hasher(ahash::RandomState::new()),
            turn: Mutex::new(()),
            hasher: ahash::RandomState::new(),
        }
    }
}

impl PurgeIndex {
    /// The number of the newest purge; to be read before the handler is called.
    pub(crate) fn current(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    /// What the response to a request for `key`, sent to the handler at `number`, is held against purges by.
    pub(crate) fn stamp(&self, key: &CacheKey, number: u64) -> Stamp {
        Stamp::new(number, self.hasher.hash_one(key.resource()), self.hasher.hash_one(key.path_and_query()))
    }

    /// Whether no purge touches it. One compare, if there was no purge since the last look.
    pub(crate) fn is_valid(&self, stamp: &Stamp) -> bool {
        let current = self.current();
        stamp.verified() == current || self.verify(stamp, current)
    }

    #[cold]
    fn verify(&self, stamp: &Stamp, current: u64) -> bool {
        let resources = self.resources.pin();
        let purged = |id: &u64| resources.get(id).is_some_and(|number| *number > stamp.number);
        if purged(&stamp.resource) || purged(&stamp.path) {
            return false;
        }
        // After the resources, never before: who clears them has raised the floor first.
        if self.floor.load(Ordering::SeqCst) > stamp.number {
            return false;
        }
        stamp.set_verified(current);
        true
    }

    /// Purges everything; returns the purge's number.
    pub(crate) fn purge_everything(&self) -> u64 {
        self.publish(|number| {
            self.floor.store(number, Ordering::SeqCst);
            self.resources.pin().clear();
        })
    }

    /// Purges the resources with this hash, of [resource](Stamp::resource) or [path](Stamp::path); returns the purge's number.
    pub(crate) fn purge_resource(&self, id: u64) -> u64 {
        self.publish(|number| {
            let resources = self.resources.pin();
            if resources.len() >= MOST_RESOURCES {
                self.floor.store(number, Ordering::SeqCst);
                resources.clear();
            } else {
                resources.insert(id, number);
            }
        })
    }

    /// Records a purge and only then makes its number current: who sees the number sees the purge.
    fn publish(&self, record: impl FnOnce(u64)) -> u64 {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let number = self.number.load(Ordering::Relaxed) + 1;
        record(number);
        self.number.store(number, Ordering::Release);
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(path: &str) -> CacheKey {
        CacheKey::new(b"h", path, None)
    }

    #[test]
    fn a_purge_touches_what_is_older_and_nothing_newer() {
        let index = PurgeIndex::default();
        let (old, other) = (index.stamp(&key("/a"), index.current()), index.stamp(&key("/b"), index.current()));
        assert!(index.is_valid(&old));
        index.purge_resource(old.resource);
        assert!(!index.is_valid(&old));
        assert!(index.is_valid(&other) && index.is_valid(&other), "and it stays so when looked at again");
        let new = index.stamp(&key("/a"), index.current());
        assert!(index.is_valid(&new));
        index.purge_everything();
        assert!(!index.is_valid(&new) && !index.is_valid(&other));
    }

    #[test]
    fn a_path_is_purged_on_every_authority() {
        let index = PurgeIndex::default();
        let stamps = [b"h1", b"h2"].map(|host| index.stamp(&CacheKey::new(host, "/a", None), 0));
        index.purge_resource(stamps[0].path);
        assert!(!index.is_valid(&stamps[0]) && !index.is_valid(&stamps[1]));
    }

    #[test]
    fn too_many_purges_raise_the_floor_and_lose_none() {
        let index = PurgeIndex::default();
        let stamp = index.stamp(&key("/a"), index.current());
        index.purge_resource(stamp.resource);
        for id in 0..=MOST_RESOURCES as u64 {
            index.purge_resource(id);
        }
        assert!(!index.is_valid(&stamp));
        assert!(index.resources.len() <= MOST_RESOURCES);
        assert!(index.is_valid(&index.stamp(&key("/a"), index.current())));
    }
}
