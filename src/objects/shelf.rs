//! [`Shelf`]: what all holds on an [`ObjectCache`](super::ObjectCache) share. moka holds the objects and decides which of them stay; whether one may be used is decided here, on every
//! look.

use std::borrow::Borrow;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::ops::compute::Op;

use super::held::{Held, Loaded, Use};
use super::key::{ObjectKey, Place};
use super::stats::Counts;
use crate::cache::{CacheCore, State};
use crate::clock::{Clock, Moment};
use crate::flight::Flights;
use crate::live::Live;
use crate::purge::PurgeIndex;
use crate::response::Stamp;
use crate::shelves::{self, Walk};
use crate::target::Target;
use crate::used::UsedTags;

type Entries<K, V> = moka::sync::Cache<K, Arc<Held<V>>, ahash::RandomState>;

pub(super) struct Shelf<K, V> {
    entries: Entries<K, V>,
    pub(super) flights: Arc<Flights<Loaded<V>, ObjectKey<K>>>,
    pub(super) place: Arc<Place>,
    pub(super) counts: Counts,
    pub(super) live: Arc<Live>,
    /// These two are the same in all generations of the settings.
    pub(super) state: Arc<State>,
    clock: Arc<dyn Clock>,
}

/// How much an object weighs.
pub(super) type Weigher<K, V> = Arc<dyn Fn(&K, &V) -> u32 + Send + Sync>;

impl<K, V> Shelf<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// An empty one beside a cache, with whose responses it is purged.
    pub(super) fn beside(live: Arc<Live>, name: &str, capacity: u64, weigher: Option<Weigher<K, V>>) -> Arc<Self> {
        let core = live.load_full();
        let shelf = Arc::new(Self {
            entries: entries(capacity, weigher, core.hasher.clone()),
            flights: Arc::default(),
            place: Arc::new(Place::new(name, &core.purges)),
            counts: Counts::default(),
            state: core.state.clone(),
            clock: core.settings.clock.clone(),
            live,
        });
        let shelf_of_any: Arc<dyn shelves::Shelf> = shelf.clone();
        core.shelves.add(Arc::downgrade(&shelf_of_any));
        shelf.live.keep_coherent();
        shelf
    }

    pub(super) fn now(&self) -> Moment {
        self.clock.now()
    }

    pub(super) fn core(&self) -> Arc<CacheCore> {
        self.live.load_full()
    }

    /// What is held under a key and may be used, and how.
    #[inline]
    pub(super) fn find<Q>(&self, key: &Q, now: Moment) -> Option<(Arc<Held<V>>, Use)>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let held = self.entries.get(key)?;
        if !self.is_usable(&held, now) {
            return None;
        }
        let may = held.now(now);
        if !held.is_plain() && !self.is_used(&held, now) {
            return None;
        }
        Some((held, may))
    }

    /// What is made from it bears its tags; false if it was purged before that could be said.
    #[cold]
    fn is_used(&self, held: &Held<V>, now: Moment) -> bool {
        let used = UsedTags::current();
        used.add_stamp(&held.stamp);
        // A purge that came before it was said closed no flight that the tags are for now.
        !used.is_heard() || self.is_usable(held, now)
    }

    /// Whether no purge that is known touches it, and none that isn't known can have for long.
    #[inline]
    fn is_usable(&self, held: &Held<V>, now: Moment) -> bool {
        let (purges, coherence) = (&self.state.purges, &self.state.coherence);
        purges.is_valid(&held.stamp, held.received, &*self.place)
            && (coherence.is_trusted(now) || coherence.allows(&held.stamp, &*self.place, now))
    }

    /// Whether no purge touches it.
    pub(super) fn is_valid(&self, held: &Held<V>) -> bool {
        self.state.purges.is_valid(&held.stamp, held.received, &*self.place)
    }

    /// What is loaded or written from now on under a key is held against purges by.
    pub(super) fn stamp<Q: Hash + ?Sized>(&self, key: &Q) -> Stamp {
        Stamp::new(self.state.purges.current(), self.place.hash, self.state.hasher.hash_one(key))
    }

    pub(super) fn put(&self, key: K, held: Arc<Held<V>>) {
        self.entries.insert(key, held);
    }

    pub(super) fn take<Q>(&self, key: &Q) -> Option<Arc<Held<V>>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.entries.remove(key)
    }

    /// How many there are, and what they weigh.
    pub(super) fn size(&self) -> (u64, u64) {
        self.entries.run_pending_tasks();
        (self.entries.entry_count(), self.entries.weighted_size())
    }
}

fn entries<K, V>(capacity: u64, weigher: Option<Weigher<K, V>>, hasher: ahash::RandomState) -> Entries<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    let entries = moka::sync::Cache::builder().max_capacity(capacity).expire_after(Keep);
    let weigher = weigher.map(|weigher| {
        move |key: &K, held: &Arc<Held<V>>| match &held.loaded {
            Loaded::Value(value) => weigher(key, value),
            Loaded::Nothing | Loaded::Failed(_) => 1,
        }
    });
    match weigher {
        Some(weigher) => entries.weigher(weigher).build_with_hasher(hasher),
        None => entries.build_with_hasher(hasher),
    }
}

/// Tells moka when an object is of no more use. Its clock only gives memory back.
struct Keep;

impl<K, V> moka::Expiry<K, Arc<Held<V>>> for Keep {
    fn expire_after_create(&self, _: &K, held: &Arc<Held<V>>, _: Instant) -> Option<Duration> {
        Some(held.keep())
    }

    fn expire_after_update(&self, _: &K, held: &Arc<Held<V>>, _: Instant, _: Option<Duration>) -> Option<Duration> {
        Some(held.keep())
    }
}

impl<K, V> shelves::Shelf for Shelf<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    fn name(&self) -> &str {
        self.place.name()
    }

    #[cfg(any(feature = "admin", feature = "metrics"))]
    fn stats(&self) -> super::ObjectStats {
        self.counts.snapshot(self.size())
    }

    fn close(&self, target: &Target) {
        self.flights.close(target);
    }

    fn oldest(&self) -> Option<u64> {
        self.flights.oldest()
    }

    fn walk(&self) -> Box<dyn Walk + '_> {
        Box::new(Round { shelf: self, entries: self.entries.iter() })
    }

    fn settle(&self) {
        self.entries.run_pending_tasks();
    }
}

struct Round<'a, K, V> {
    shelf: &'a Shelf<K, V>,
    entries: moka::sync::Iter<'a, K, Arc<Held<V>>>,
}

impl<K, V> Walk for Round<'_, K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    fn step(&mut self, most: usize, purges: &PurgeIndex, dropped: &mut u64) -> bool {
        for _ in 0..most {
            let Some((key, held)) = self.entries.next() else { return false };
            if purges.is_valid(&held.stamp, held.received, &*self.shelf.place) {
                continue;
            }
            // Unless something newer has taken its place.
            let is_it = |there: &Arc<Held<V>>| Arc::ptr_eq(there, &held);
            self.shelf.entries.entry((*key).clone()).and_compute_with(|there| match there {
                Some(there) if is_it(there.value()) => Op::Remove,
                _ => Op::Nop,
            });
            *dropped += 1;
        }
        true
    }
}
