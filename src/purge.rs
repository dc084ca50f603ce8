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
//! Beside its resource and its path a response may have tags, hashes of what else it can be purged by. The groups of RFC 9875 are such tags
//! ([`Groups`](crate::groups::Groups)). Tags of the application's own, patterns, and soft purges will be further selectors here.

use crate::clock::Moment;
use crate::key::CacheKey;
use crate::partition;
use crate::response::Stamp;
use crate::sync::{AtomicU64, Mutex, Ordering, PoisonError, hasher, sized};

/// In how many places purged resources are remembered. Resources that share a place are purged together: a miss too many, and
/// never a stale answer; and however many purges there are, they take no more memory.
const PLACES: usize = sized(1 << 16, 16);

#[derive(Debug)]
pub(crate) struct PurgeIndex {
    /// The number of the newest purge.
    number: AtomicU64,
    /// What has a smaller number than this is invalid, whatever it is.
    floor: AtomicU64,
    /// The number of the newest purge in each place.
    resources: Box<[AtomicU64]>,
    /// Purges take turns, so that numbers are published in order.
    turn: Mutex<()>,
    hasher: ahash::RandomState,
}

/// How hard a purge is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Force {
    /// What it touches is never served again.
    Hard,
    /// It is stale as of then.
    Soft(Moment),
}

impl Default for PurgeIndex {
    fn default() -> Self {
        Self {
            number: AtomicU64::new(0),
            floor: AtomicU64::new(0),
            resources: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
            turn: Mutex::new(()),
            hasher: hasher(),
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
        let of = |part: &[u8]| self.hasher.hash_one(part);
        let stamp = Stamp::new(number, of(key.resource()), of(key.path_and_query()));
        stamp.in_partition(key.partition().map(|id| partition::place(&id)))
    }

    /// Whether no purge touches it. One compare, if there was no purge since the last look.
    pub(crate) fn is_valid(&self, stamp: &Stamp) -> bool {
        let current = self.current();
        stamp.verified() == current || self.verify(stamp, current)
    }

    #[cold]
    fn verify(&self, stamp: &Stamp, current: u64) -> bool {
        let newest = |id: &u64| self.place(*id).load(Ordering::Acquire) > stamp.number;
        let is_purged = newest(&stamp.resource)
            || newest(&stamp.path)
            || self.floor.load(Ordering::Acquire) > stamp.number
            || stamp.partition.is_some_and(|id| newest(&id))
            || stamp.tags.iter().flat_map(|tags| tags.iter()).any(newest);
        if is_purged {
            return false;
        }
        stamp.set_verified(current);
        true
    }

    /// Purges everything; returns the purge's number.
    pub(crate) fn purge_everything(&self) -> u64 {
        self.publish(|number| self.floor.store(number, Ordering::Release))
    }

    /// Purges what has this hash, of [resource](Stamp::resource), [path](Stamp::path) or [partition](Stamp::partition); returns the
    /// purge's number.
    pub(crate) fn purge_resource(&self, id: u64) -> u64 {
        self.publish(|number| self.place(id).store(number, Ordering::Release))
    }

    /// Purges all responses with one of these [tags](Stamp::tags), under one number; returns it.
    pub(crate) fn purge_tags(&self, tags: &[u64]) -> u64 {
        self.publish(|number| tags.iter().for_each(|tag| self.place(*tag).store(number, Ordering::Release)))
    }

    fn place(&self, id: u64) -> &AtomicU64 {
        &self.resources[id as usize % PLACES]
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
    fn a_tag_purges_what_has_it_and_is_older() {
        let index = PurgeIndex::default();
        let tagged = |path: &str, tags: &[u64]| {
            let mut stamp = index.stamp(&key(path), index.current());
            stamp.tags = Some(tags.into());
            stamp
        };
        let (both, one, none) = (tagged("/a", &[11, 22]), tagged("/b", &[22]), index.stamp(&key("/c"), 0));
        index.purge_tags(&[11, 33]);
        assert!(!index.is_valid(&both));
        assert!(index.is_valid(&one) && index.is_valid(&none));
        let newer = tagged("/a", &[11, 22]);
        assert!(index.is_valid(&newer));
        index.purge_tags(&[22]);
        assert!(!index.is_valid(&newer) && !index.is_valid(&one), "looked at before, and now again");
        assert!(index.is_valid(&none));
    }

    #[test]
    fn a_partition_is_purged_on_every_resource_and_no_other_is() {
        let index = PurgeIndex::default();
        let of = |path: &str, principal: u8| {
            let mut key = key(path);
            key.push(crate::key::Part::Partition, &[principal; 16]);
            index.stamp(&key, 0)
        };
        let (mine, also_mine, other, shared) = (of("/a", 1), of("/b", 1), of("/a", 2), index.stamp(&key("/a"), 0));
        index.purge_resource(mine.partition.unwrap());
        assert!(!index.is_valid(&mine) && !index.is_valid(&also_mine));
        assert!(index.is_valid(&other) && index.is_valid(&shared));
    }

    #[test]
    fn many_purges_lose_none_and_hit_few() {
        let index = PurgeIndex::default();
        let old: Vec<Stamp> = (0..1000).map(|n| index.stamp(&key(&format!("/old/{n}")), index.current())).collect();
        index.purge_resource(old[0].resource);
        for n in 0..1000 {
            index.purge_resource(index.stamp(&key(&format!("/new/{n}")), 0).resource);
        }
        assert!(!index.is_valid(&old[0]));
        let hit = old[1..].iter().filter(|stamp| !index.is_valid(stamp)).count();
        assert!(hit < 100, "{hit} of 999 share a place with a thousand purges");
    }
}
