//! What data caches do, counted under their names, and [`DataStats`], a copy of it to look at.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::defaults::Defaults;
use super::failures::Failures;
use super::own::Own;
use super::turns::Turns;
use crate::histogram::{Histogram, Latency};
use crate::tally::{RouteCounters, read};

/// What the data caches over one store have in common.
#[derive(Debug, Default)]
pub(crate) struct Data {
    names: Mutex<BTreeMap<Arc<str>, Arc<Counters>>>,
    pub(super) failures: Failures,
    pub(super) turns: Turns,
}

impl Data {
    /// The counters of a cache, which are those of all under its name.
    pub(super) fn counters(&self, name: &str) -> Arc<Counters> {
        let mut names = self.names();
        if let Some(known) = names.get(name) {
            return known.clone();
        }
        let counters = Arc::new(Counters::new(name));
        names.insert(counters.name.clone(), counters.clone());
        counters
    }

    /// The same for who only looks whether there is something: the counters under a name that nobody has used are nowhere to be seen.
    #[cfg(feature = "admin")]
    pub(super) fn counters_if_used(&self, name: &str) -> Arc<Counters> {
        self.names().get(name).cloned().unwrap_or_else(|| Arc::new(Counters::new(name)))
    }

    /// Those of all names that were ever used, by name.
    pub(crate) fn all(&self) -> Vec<Arc<Counters>> {
        self.names().values().cloned().collect()
    }

    /// What of the settings that are wanted can't be any more: name, field, what it is, and what it would have to become.
    pub(crate) fn differs(
        &self,
        running: &BTreeMap<String, Defaults>,
        wanted: &BTreeMap<String, Defaults>,
    ) -> Option<(String, &'static str, String, String)> {
        self.all().iter().find_map(|counters| {
            let [running, said] = [running, wanted].map(|said| said.get(&*counters.name).and_then(|said| said.memory));
            // What isn't to become another one is no mistake of this reload, whatever the memory was when it was first used.
            if running == said {
                return None;
            }
            let (field, running, wanted) = counters.own.differs(said)?;
            Some((counters.name.to_string(), field, running, wanted))
        })
    }

    fn names(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Arc<Counters>>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is counted under one name.
#[derive(Debug)]
pub(crate) struct Counters {
    pub(crate) name: Arc<str>,
    /// What the stores count: what is there, and what became of it.
    pub(crate) route: Arc<RouteCounters>,
    /// Where they lie in memory.
    pub(super) own: Own,
    pub(super) hits: AtomicU64,
    pub(super) stale: AtomicU64,
    pub(super) misses: AtomicU64,
    pub(super) stood_in: AtomicU64,
    pub(super) collapsed: AtomicU64,
    pub(super) failures_given: AtomicU64,
    pub(super) loads: AtomicU64,
    pub(super) load_errors: AtomicU64,
    pub(super) refreshes: AtomicU64,
    pub(super) written: AtomicU64,
    pub(super) deleted: AtomicU64,
    pub(super) contended: AtomicU64,
    pub(super) declined: AtomicU64,
    pub(super) mismatched: AtomicU64,
    pub(crate) load_latency: Histogram,
}

/// What was done under one name since the cache was made, in this process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DataStats {
    /// The name.
    pub name: String,
    /// Values that were there, and fresh; and where it was remembered that there is none.
    pub hits: u64,
    /// Values that were given at once though their time was over, while they were loaded anew.
    pub stale: u64,
    /// Values that were asked for and not there, or not fresh.
    pub misses: u64,
    /// Of these, those that another one's load brought, or another instance's.
    pub collapsed: u64,
    /// Values that stood in for an error though their time was over. Where their loader was asked, each was a miss; where its error was remembered, it is among those.
    pub stood_in: u64,
    /// Looks that met an error that was remembered ([`DataCache::error_ttl`](crate::DataCache::error_ttl)), and loaded nothing.
    pub errors_remembered: u64,
    /// Loads that were begun, refreshes among them.
    pub loads: u64,
    /// Loads that failed.
    pub load_errors: u64,
    /// Loads behind a stale value.
    pub refreshes: u64,
    /// Values that were set, or changed by atomic operations.
    pub written: u64,
    /// Values that were deleted.
    pub deleted: u64,
    /// Atomic operations that were tried once more, since somebody else had changed the value meanwhile.
    pub contended: u64,
    /// Values that were loaded and not stored: they are too large, or can't be serialised, or were purged or written to meanwhile, or the application didn't want them
    /// ([`cache_if`](crate::Memoize::cache_if)).
    pub declined: u64,
    /// Values that could not be read as what they were asked for as: of another type, or of another serialiser. Each was a miss.
    pub mismatched: u64,
    /// Values that are in memory now.
    pub entries: u64,
    /// Bytes that they take, as the store counts them.
    pub bytes: u64,
    /// Bytes that the memory may hold which they have for themselves ([`DataCache::own_memory`](crate::DataCache::own_memory)); `None` where they share that of the responses.
    pub own_capacity: Option<u64>,
    /// Values that left memory since there was no room.
    pub evicted: u64,
    /// Values that left memory since their time was over.
    pub expired: u64,
    /// Values that left memory since they were purged.
    pub purged: u64,
    /// Operations that a store failed.
    pub store_errors: u64,
    /// How long loads took.
    pub load_latency: Latency,
}

impl DataStats {
    /// Values that were had without loading, among all that were asked for, from 0 to 1; 0 before the first. What stood in for an error isn't among them.
    pub fn hit_rate(&self) -> f64 {
        let had = self.hits + self.stale + self.collapsed;
        let all = self.hits + self.stale + self.misses + self.errors_remembered;
        if all == 0 { 0.0 } else { (had as f64 / all as f64).min(1.0) }
    }
}

impl Counters {
    fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            route: Arc::default(),
            own: Own::default(),
            hits: AtomicU64::new(0),
            stale: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            stood_in: AtomicU64::new(0),
            collapsed: AtomicU64::new(0),
            failures_given: AtomicU64::new(0),
            loads: AtomicU64::new(0),
            load_errors: AtomicU64::new(0),
            refreshes: AtomicU64::new(0),
            written: AtomicU64::new(0),
            deleted: AtomicU64::new(0),
            contended: AtomicU64::new(0),
            declined: AtomicU64::new(0),
            mismatched: AtomicU64::new(0),
            load_latency: Histogram::default(),
        }
    }

    pub(crate) fn snapshot(&self) -> DataStats {
        DataStats {
            name: self.name.to_string(),
            hits: read(&self.hits),
            stale: read(&self.stale),
            misses: read(&self.misses),
            stood_in: read(&self.stood_in),
            collapsed: read(&self.collapsed),
            errors_remembered: read(&self.failures_given),
            loads: read(&self.loads),
            load_errors: read(&self.load_errors),
            refreshes: read(&self.refreshes),
            written: read(&self.written),
            deleted: read(&self.deleted),
            contended: read(&self.contended),
            declined: read(&self.declined),
            mismatched: read(&self.mismatched),
            entries: read(&self.route.entries),
            bytes: read(&self.route.bytes),
            own_capacity: self.own.get().map(|own| own.capacity()),
            evicted: read(&self.route.evicted),
            expired: read(&self.route.expired),
            purged: read(&self.route.purged),
            store_errors: read(&self.route.store_errors),
            load_latency: self.load_latency.latency(),
        }
    }
}
