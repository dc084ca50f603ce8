//! The purge index: every purge has a number, and a stored response is valid only while no purge that touches it has a larger number than
//! was current when its request went to the handler. So a fill that began before a purge can never bring the purged data back.
//!
//! | rule | here |
//! |---|---|
//! | 1. a response carries the number that was current before its handler was called | [`PurgeIndex::current`], [`Stamp`] |
//! | 2. validity is checked on every read | [`PurgeIndex::is_valid`] |
//! | 3. a purge closes the fills in flight that it may touch | [`Flights`](crate::flight::Flights) |
//! | 4. a write deletes by key, without moving the number | [`CacheCore::invalidate`](crate::cache::CacheCore::invalidate) |
//! | 5. what all that is stored was held against is forgotten | [`PurgeIndex::retire`], [`CacheCore::sweep_soon`](crate::cache::CacheCore::sweep_soon) |
//! | 6. hard and soft purges have numbers of their own | [`Purged`] |
//!
//! What is remembered is exact, and bounded: a [`Purged`] for each hash (of a resource, path, partition or tag), and for each pattern. Where there are too many, the
//! *floor* rises to the newest number: what wasn't held against all purges before it counts as purged. That is also how everything is purged, and how what was
//! forgotten stays harmless: a copy of a response that was elsewhere while the store was swept bears a number below the floor.

use std::collections::HashMap;
use std::time::{Duration, UNIX_EPOCH};

use crate::clock::Moment;
use crate::key::CacheKey;
use crate::naming::{Named, Naming};
use crate::partition;
use crate::pattern::{Meant, Pattern};
use crate::purged::{Force, Purged, Verdict};
use crate::response::Stamp;
use crate::sync::{Arc, AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering, PoisonError, hasher, sized};
use crate::target::Target;

/// How many hashes are remembered: 64 MiB or so.
const MOST_HASHES: usize = sized(1 << 20, 64);

/// How many patterns are remembered, each of which every entry has to be held against once.
const MOST_PATTERNS: usize = sized(256, 4);

const SHARDS: usize = sized(64, 2);

#[derive(Debug)]
pub(crate) struct PurgeIndex {
    /// The number of the newest purge.
    number: AtomicU64,
    /// What wasn't held against purges up to this one can't be any more, and counts as purged.
    floor: AtomicU64,
    hashes: [Mutex<HashMap<u64, Purged, ahash::RandomState>>; SHARDS],
    /// How many hashes are in them.
    known: AtomicUsize,
    /// Purges of more than hashes can name. Those who read it take it along, since matching takes its time.
    wide: Mutex<Arc<[Wide]>>,
    /// The number of the newest one of those.
    widest: AtomicU64,
    /// Purges take turns, so that numbers are published in order.
    turn: Mutex<()>,
    naming: Naming,
}

/// Purges of what a pattern means, or of everything.
#[derive(Clone, Debug)]
struct Wide {
    pattern: Option<Pattern>,
    purged: Purged,
}

impl Default for PurgeIndex {
    fn default() -> Self {
        Self::new(Naming::default())
    }
}

impl PurgeIndex {
    pub(crate) fn new(naming: Naming) -> Self {
        let hasher = hasher();
        Self {
            number: AtomicU64::new(0),
            floor: AtomicU64::new(0),
            hashes: std::array::from_fn(|_| Mutex::new(HashMap::with_hasher(hasher.clone()))),
            known: AtomicUsize::new(0),
            wide: Mutex::new([].into()),
            widest: AtomicU64::new(0),
            turn: Mutex::new(()),
            naming,
        }
    }

    /// The number of the newest purge; to be read before the handler is called.
    pub(crate) fn current(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    /// The number up to which purges may be forgotten.
    pub(crate) fn floor(&self) -> u64 {
        self.floor.load(Ordering::Acquire)
    }

    /// What the response to a request for `key`, sent to the handler at `number`, is held against purges by.
    pub(crate) fn stamp(&self, key: &CacheKey, number: u64) -> Stamp {
        let of = |named, part: &[u8]| self.naming.hash(named, &[Some(part)]);
        let resource = of(Named::Resource, key.resource());
        let stamp = Stamp::new(number, resource, of(Named::Path, key.path_and_query()));
        stamp.in_partition(key.partition().map(|id| partition::place(&id)))
    }

    /// Whether no hard purge touches what has this stamp, was `received` then and is stored under `key`. Soft ones [mark](Stamp::stale_from) it. One compare, if there was no purge since the
    /// last look.
    pub(crate) fn is_valid(&self, stamp: &Stamp, received: Moment, key: &impl Meant) -> bool {
        self.is_held(stamp, received, |pattern| key.is_meant_by(pattern))
    }

    /// Whether no purge of either kind touches what has this stamp. It isn't in the store, and its key isn't known, so that any pattern may mean it.
    pub(crate) fn is_untouched(&self, stamp: &Stamp) -> bool {
        let received = Moment { wall: UNIX_EPOCH, monotonic: Duration::ZERO };
        self.is_held(stamp, received, |_| true) && stamp.stale_from().is_none()
    }

    #[inline]
    fn is_held(&self, stamp: &Stamp, received: Moment, means: impl Fn(&Pattern) -> bool) -> bool {
        let current = self.current();
        stamp.verified() == current || self.verify(stamp, received, &means, current)
    }

    /// Only what is newer than the last look has to be looked at: what is older would have been found then.
    #[cold]
    fn verify(&self, stamp: &Stamp, received: Moment, means: &dyn Fn(&Pattern) -> bool, current: u64) -> bool {
        let since = stamp.verified();
        let mut verdict = Verdict::default();
        for hash in stamp.hashes() {
            verdict.add(self.shard(hash).get(&hash), since, received);
        }
        if self.widest.load(Ordering::Acquire) > since {
            let wide = lock(&self.wide).clone();
            let newer = wide.iter().filter(|wide| wide.purged.newest() > since);
            for wide in newer.filter(|wide| wide.pattern.as_ref().is_none_or(means)) {
                verdict.add(Some(&wide.purged), since, received);
            }
        }
        // Last: what was forgotten before it could be found above has raised the floor first.
        if verdict.is_purged {
            return false;
        }
        if self.floor.load(Ordering::Acquire) > since {
            // Unless the sweep that forgot them has held this one against them meanwhile.
            return stamp.verified() > since && self.is_held(stamp, received, means);
        }
        stamp.hold(verdict.stale_from, current);
        true
    }

    /// Purges; returns the purge's number.
    pub(crate) fn purge(&self, target: &Target, force: Force) -> u64 {
        let _turn = lock(&self.turn);
        let number = self.number.load(Ordering::Relaxed) + 1;
        self.enter(number, target, force);
        // Who sees the number sees the purge.
        self.number.store(number, Ordering::Release);
        number
    }

    /// Enters a purge that a log has numbered. One that was heard of already is passed over; those come in order, so that none is missing when its number is current.
    pub(crate) fn apply(&self, number: u64, target: &Target, force: Force) {
        let _turn = lock(&self.turn);
        if number > self.number.load(Ordering::Relaxed) {
            self.enter(number, target, force);
            self.number.store(number, Ordering::Release);
        }
    }

    /// Goes on from what a log remembers, in any order, up to `current`. All up to the number of now is known already, and what isn't remembered any more is at or below `floor`.
    pub(crate) fn begin_again(&self, floor: u64, current: u64, mut remembered: Vec<(u64, Target, Force)>) {
        let _turn = lock(&self.turn);
        let known = self.number.load(Ordering::Relaxed);
        // First: nobody may be found valid for want of what was forgotten.
        self.forget(floor);
        remembered.sort_by_key(|(number, ..)| *number);
        for (number, target, force) in remembered.iter().filter(|(number, ..)| *number > known) {
            self.enter(*number, target, *force);
        }
        self.number.store(known.max(current), Ordering::Release);
    }

    fn enter(&self, number: u64, target: &Target, force: Force) {
        let is_remembered = match (target, force) {
            (Target::Hashes(hashes), _) => hashes.all().all(|hash| self.remember(hash, number, force)),
            (Target::Pattern(pattern), _) => self.remember_wide(Some(pattern), number, force),
            (Target::Everything, Force::Soft(_)) => self.remember_wide(None, number, force),
            (Target::Everything, Force::Hard) => false,
        };
        if !is_remembered {
            self.forget(number);
        }
    }

    fn remember(&self, hash: u64, number: u64, force: Force) -> bool {
        let mut shard = self.shard(hash);
        if let Some(purged) = shard.get_mut(&hash) {
            purged.add(number, force);
            return true;
        }
        if self.known.load(Ordering::Relaxed) >= MOST_HASHES {
            return false;
        }
        self.known.fetch_add(1, Ordering::Relaxed);
        shard.insert(hash, Purged::new(number, force));
        true
    }

    fn remember_wide(&self, pattern: Option<&Pattern>, number: u64, force: Force) -> bool {
        let mut wide = lock(&self.wide);
        let mut all = wide.to_vec();
        let known = all.iter().position(|known| known.pattern.as_ref() == pattern);
        match known {
            Some(place) => all[place].purged.add(number, force),
            None if all.len() >= MOST_PATTERNS => return false,
            None => all.push(Wide { pattern: pattern.cloned(), purged: Purged::new(number, force) }),
        }
        *wide = all.into();
        self.widest.store(number, Ordering::Release);
        true
    }

    /// All that is stored was held against the purges up to this one, and no fill in flight is older: they are forgotten.
    pub(crate) fn retire(&self, number: u64) {
        if number > self.floor.load(Ordering::Relaxed) {
            self.forget(number);
        }
    }

    /// Forgets the purges up to this one. From now on what wasn't held against all of them counts as purged.
    fn forget(&self, number: u64) {
        self.floor.fetch_max(number, Ordering::AcqRel);
        for shard in &self.hashes {
            let mut shard = lock(shard);
            let before = shard.len();
            shard.retain(|_, purged| purged.forget(number));
            self.known.fetch_sub(before - shard.len(), Ordering::Relaxed);
            if shard.is_empty() {
                shard.shrink_to_fit();
            }
        }
        let mut wide = lock(&self.wide);
        if !wide.is_empty() {
            *wide = wide.iter().cloned().filter_map(|mut wide| wide.purged.forget(number).then_some(wide)).collect();
        }
    }

    /// How many hashes and patterns are remembered.
    pub(crate) fn live(&self) -> usize {
        self.known.load(Ordering::Relaxed) + self.patterns()
    }

    /// How many patterns are.
    pub(crate) fn patterns(&self) -> usize {
        lock(&self.wide).len()
    }

    /// Whether so many are remembered that the floor may soon rise.
    pub(crate) fn is_crowded(&self) -> bool {
        self.known.load(Ordering::Relaxed) > MOST_HASHES / 2 || self.patterns() > MOST_PATTERNS / 2
    }

    fn shard(&self, hash: u64) -> MutexGuard<'_, HashMap<u64, Purged, ahash::RandomState>> {
        // The low bits choose the place within the shard.
        lock(&self.hashes[(hash >> 32) as usize % SHARDS])
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(path: &str) -> CacheKey {
        CacheKey::new(b"h", path, None)
    }

    fn at(seconds: u64) -> Moment {
        Moment { wall: UNIX_EPOCH + Duration::from_secs(seconds), monotonic: Duration::from_secs(seconds) }
    }

    /// Something stored: its key, and what it is held against purges by.
    struct Stored(CacheKey, Stamp);

    impl Stored {
        fn new(index: &PurgeIndex, key: CacheKey, tags: &[u64]) -> Self {
            let mut stamp = index.stamp(&key, index.current());
            stamp.tags = crate::tags::Tags::nameless(tags);
            Self(key, stamp)
        }

        fn is_valid(&self, index: &PurgeIndex) -> bool {
            index.is_valid(&self.1, at(100), &self.0)
        }
    }

    fn glob(text: &str) -> Target {
        Target::Pattern(Pattern::glob(text).unwrap())
    }

    #[test]
    fn a_purge_touches_what_is_older_and_nothing_newer() {
        let index = PurgeIndex::default();
        let stored = |path: &str| Stored::new(&index, key(path), &[11, 22]);
        type Row = fn(&Stamp) -> Target;
        let rows: [Row; 7] = [
            |stamp| Target::place(stamp.resource),
            |stamp| Target::place(stamp.path),
            |_| Target::tags(&[11, 33], None),
            |_| glob("/a*"),
            |_| glob("/*a"),
            |_| Target::Pattern(Pattern::regex("a$").unwrap()),
            |_| Target::Everything,
        ];
        for (row, target) in rows.into_iter().enumerate() {
            let (old, other) = (stored("/a"), Stored::new(&index, key("/b"), &[22]));
            assert!(old.is_valid(&index));
            let target = target(&old.1);
            let number = index.purge(&target, Force::Hard);
            assert!(!old.is_valid(&index), "row {row}");
            let touches_all = matches!(target, Target::Everything);
            for look in 0..2 {
                assert_eq!(other.is_valid(&index), !touches_all, "row {row}, and so when looked at again: {look}");
            }
            let new = stored("/a");
            assert!(new.is_valid(&index) && new.1.number == number, "row {row}");
        }
    }

    #[test]
    fn a_path_is_purged_on_every_authority() {
        let index = PurgeIndex::default();
        let stored = [b"h1", b"h2"].map(|host| Stored::new(&index, CacheKey::new(host, "/a", None), &[]));
        index.purge(&Target::place(stored[0].1.path), Force::Hard);
        assert!(stored.iter().all(|stored| !stored.is_valid(&index)));
    }

    #[test]
    fn a_partition_is_purged_on_every_resource_and_no_other_is() {
        let index = PurgeIndex::default();
        let of = |path: &str, principal: u8| {
            let mut key = key(path);
            key.push(crate::key::Part::Partition, &[principal; 16]);
            Stored::new(&index, key, &[])
        };
        let all = [of("/a", 1), of("/b", 1), of("/a", 2), Stored::new(&index, key("/a"), &[])];
        index.purge(&Target::place(all[0].1.partition.unwrap()), Force::Hard);
        assert_eq!(all.map(|stored| stored.is_valid(&index)), [false, false, true, true]);
    }

    #[test]
    fn soft_purges_mark_and_hard_ones_end() {
        let index = PurgeIndex::default();
        let stored = Stored::new(&index, key("/a"), &[11]);
        index.purge(&Target::tags(&[11], None), Force::Soft(at(130)));
        index.purge(&glob("/a"), Force::Soft(at(120)));
        assert!(stored.is_valid(&index));
        assert_eq!(stored.1.stale_from(), Some(Duration::from_secs(20)), "of several, the earliest");
        index.purge(&Target::Everything, Force::Soft(at(140)));
        assert!(stored.is_valid(&index));
        assert_eq!(stored.1.stale_from(), Some(Duration::from_secs(20)), "a mark stays as early as it is");
        let newer = Stored::new(&index, key("/a"), &[11]);
        assert!(newer.is_valid(&index) && newer.1.stale_from().is_none(), "asked for since");
        index.purge(&Target::tags(&[11], None), Force::Hard);
        assert!(!stored.is_valid(&index) && !newer.is_valid(&index));
    }

    #[test]
    fn a_hundred_thousand_purges_touch_nothing_else() {
        let index = PurgeIndex::default();
        let old: Vec<_> = (0..1000).map(|n| Stored::new(&index, key(&format!("/old/{n}")), &[n])).collect();
        index.purge(&Target::place(old[0].1.resource), Force::Hard);
        for n in 0..100_000 {
            index.purge(&Target::place(index.stamp(&key(&format!("/new/{n}")), 0).resource), Force::Hard);
        }
        assert_eq!(index.live(), 100_001);
        let valid: Vec<bool> = old.iter().map(|stored| stored.is_valid(&index)).collect();
        assert!(!valid[0] && valid[1..].iter().all(|valid| *valid));
    }

    #[test]
    fn what_was_held_against_purges_outlives_their_retirement_and_all_else_is_purged() {
        let index = PurgeIndex::default();
        let [swept, copied] = [(); 2].map(|()| Stored::new(&index, key("/a"), &[]));
        for target in [Target::place(1), glob("/b*"), Target::Everything] {
            index.purge(&target, Force::Soft(at(120)));
        }
        index.purge(&Target::tags(&[7], None), Force::Hard);
        let number = index.current();
        assert!(swept.is_valid(&index));
        index.retire(number);
        assert_eq!(index.live(), 0);
        assert!(swept.is_valid(&index) && Stored(swept.0, swept.1.clone()).is_valid(&index));
        assert!(!copied.is_valid(&index), "nobody can tell any more");
        index.purge(&Target::place(2), Force::Hard);
        assert_eq!(index.live(), 1, "newer than what was retired");
        index.retire(number);
        assert_eq!(index.live(), 1);
    }

    #[test]
    fn too_many_patterns_or_hashes_raise_the_floor() {
        let index = PurgeIndex::default();
        let stored = Stored::new(&index, key("/a"), &[]);
        (0..MOST_PATTERNS).for_each(|n| _ = index.purge(&glob(&format!("/b{n}")), Force::Hard));
        assert!(stored.is_valid(&index) && index.is_crowded());
        index.purge(&glob("/b1"), Force::Soft(at(120)));
        assert!(stored.is_valid(&index), "one that is known already");
        index.purge(&glob("/c"), Force::Soft(at(120)));
        assert!(!stored.is_valid(&index));
        assert_eq!(index.live(), 0);
        assert!(Stored::new(&index, key("/a"), &[]).is_valid(&index));

        let stored = Stored::new(&index, key("/a"), &[]);
        let many: Vec<u64> = (0..MOST_HASHES as u64).map(|n| n << 20 | 1).collect();
        index.purge(&Target::tags(&many, None), Force::Hard);
        assert!(stored.is_valid(&index) && index.is_crowded());
        index.purge(&Target::place(3), Force::Soft(at(120)));
        assert!(!stored.is_valid(&index));
        assert_eq!(index.live(), 0);
    }
}
