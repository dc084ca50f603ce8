//! What a cache of objects counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// What an [`ObjectCache`](super::ObjectCache) did so far, and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObjectStats {
    /// Looks that found something fresh.
    pub hits: u64,
    /// Looks that found nothing that may be used.
    pub misses: u64,
    /// Looks that were answered with what is stale, while it was loaded anew.
    pub stale: u64,
    /// Errors in whose place something stale was given.
    pub stood_in: u64,
    /// How often a loader was called.
    pub loads: u64,
    /// Loads that ended with an error.
    pub failures: u64,
    /// Looks that waited for the load of another one.
    pub collapsed: u64,
    /// What was loaded and not kept, since something was purged or written meanwhile or the application didn't want it.
    pub declined: u64,
    /// Values that were [inserted](super::ObjectCache::insert).
    pub inserted: u64,
    /// How many objects are held now, with what is remembered as absent or failed.
    pub entries: u64,
    /// What they weigh; as many where the application weighs nothing.
    pub weight: u64,
}

impl ObjectStats {
    /// Adds what another one of the same name did.
    #[cfg(any(feature = "admin", feature = "metrics"))]
    pub(crate) fn add(&mut self, other: &Self) {
        let Self { hits, misses, stale, stood_in, loads, failures, collapsed, declined, inserted, entries, weight } =
            other;
        self.hits += hits;
        self.misses += misses;
        self.stale += stale;
        self.stood_in += stood_in;
        self.loads += loads;
        self.failures += failures;
        self.collapsed += collapsed;
        self.declined += declined;
        self.inserted += inserted;
        self.entries += entries;
        self.weight += weight;
    }

    /// The part of all looks that nobody had to wait for a loader for, from 0 to 1.
    pub fn hit_rate(&self) -> f64 {
        let good = self.hits + self.stale;
        let all = good + self.misses;
        if all == 0 { 0.0 } else { good as f64 / all as f64 }
    }
}

/// All relaxed: they say how much, and never in which order.
#[derive(Default)]
pub(super) struct Counts {
    hits: Hot,
    misses: AtomicU64,
    pub(super) stale: AtomicU64,
    pub(super) stood_in: AtomicU64,
    pub(super) loads: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) collapsed: AtomicU64,
    pub(super) declined: AtomicU64,
    pub(super) inserted: AtomicU64,
}

/// What every hit writes to has a cache line of its own. (Two, since processors fetch them in pairs.)
#[derive(Default)]
#[repr(align(128))]
struct Hot(AtomicU64);

impl Counts {
    #[inline]
    pub(super) fn hit(&self) {
        add(&self.hits.0);
    }

    pub(super) fn miss(&self) {
        add(&self.misses);
    }

    pub(super) fn snapshot(&self, (entries, weight): (u64, u64)) -> ObjectStats {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        ObjectStats {
            hits: read(&self.hits.0),
            misses: read(&self.misses),
            stale: read(&self.stale),
            stood_in: read(&self.stood_in),
            loads: read(&self.loads),
            failures: read(&self.failures),
            collapsed: read(&self.collapsed),
            declined: read(&self.declined),
            inserted: read(&self.inserted),
            entries,
            weight,
        }
    }
}

#[inline]
pub(super) fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}
