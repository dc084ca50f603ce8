//! Fills in flight: requests that went to the handler and whose response may be stored. A purge seals the flights it may touch, and what
//! was sealed is never stored. This is also where requests for the same thing will join the fill in progress.

use std::collections::{HashMap, HashSet};

use crate::response::Stamp;
use crate::sync::{Arc, AtomicBool, AtomicUsize, Mutex, MutexGuard, OnceLock, Ordering, PoisonError, sized};

const SHARDS: usize = sized(32, 2);

/// All flights of a cache, by the hash of their path and query.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    shards: [Mutex<HashMap<u64, Vec<Arc<Ticket>>>>; SHARDS],
}

#[derive(Debug)]
struct Ticket {
    resource: u64,
    authority: u64,
    /// What the response can be purged by, beside its URI. Not known until its head is there.
    tags: OnceLock<Option<Arc<[u64]>>>,
    partition: Option<u64>,
    sealed: AtomicBool,
}

/// One fill, from before its handler is called until its response is stored or given up. Dropping it, however that happens, ends the flight.
#[derive(Debug)]
pub(crate) struct Flight {
    flights: Arc<Flights>,
    path: u64,
    ticket: Arc<Ticket>,
}

impl Flights {
    pub(crate) fn begin(self: &Arc<Self>, stamp: &Stamp, authority: u64) -> Flight {
        let (resource, partition, sealed) = (stamp.resource, stamp.partition, AtomicBool::new(false));
        let ticket = Arc::new(Ticket { resource, authority, tags: OnceLock::new(), partition, sealed });
        self.shard(stamp.path).entry(stamp.path).or_default().push(ticket.clone());
        Flight { flights: self.clone(), path: stamp.path, ticket }
    }

    /// Seals the flights to one resource.
    pub(crate) fn seal_resource(&self, stamp: &Stamp) {
        self.seal_where(stamp.path, |ticket| ticket.resource == stamp.resource);
    }

    /// Seals the flights to one path and query, on every authority.
    pub(crate) fn seal_path(&self, path: u64) {
        self.seal_where(path, |_| true);
    }

    /// Seals the flights whose response has one of these tags, and those to the authority (`None`: to any) whose tags aren't known yet.
    pub(crate) fn seal_tags(&self, authority: Option<u64>, purged: &[u64]) {
        self.seal_each(|ticket| match ticket.tags.get() {
            Some(tags) => tags.iter().flat_map(|tags| tags.iter()).any(|tag| purged.contains(tag)),
            None => authority.is_none_or(|authority| authority == ticket.authority),
        });
    }

    /// Seals every flight.
    pub(crate) fn seal_all(&self) {
        self.seal_each(|_| true);
    }

    /// Seals the flights of one principal.
    pub(crate) fn seal_partition(&self, partition: u64) {
        self.seal_each(|ticket| ticket.partition == Some(partition));
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        let count = |shard: &Mutex<HashMap<u64, Vec<_>>>| {
            shard.lock().unwrap_or_else(PoisonError::into_inner).values().map(Vec::len).sum::<usize>()
        };
        self.shards.iter().map(count).sum()
    }

    fn seal_each(&self, which: impl Fn(&Ticket) -> bool) {
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for ticket in shard.values().flatten().filter(|ticket| which(ticket)) {
                ticket.sealed.store(true, Ordering::Release);
            }
        }
    }

    fn seal_where(&self, path: u64, which: impl Fn(&Ticket) -> bool) {
        let shard = self.shard(path);
        for ticket in shard.get(&path).into_iter().flatten().filter(|ticket| which(ticket)) {
            ticket.sealed.store(true, Ordering::Release);
        }
    }

    fn shard(&self, path: u64) -> MutexGuard<'_, HashMap<u64, Vec<Arc<Ticket>>>> {
        self.shards[path as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flight {
    /// The head of the response has arrived, and with it what it can be purged by.
    pub(crate) fn know_tags(&self, tags: Option<Arc<[u64]>>) {
        // A flight has one head, so this is set once.
        let _ = self.ticket.tags.set(tags);
    }

    /// Whether a purge has touched it, so that its response must not be stored.
    pub(crate) fn is_sealed(&self) -> bool {
        self.ticket.sealed.load(Ordering::Acquire)
    }

    /// Stores by calling `put`, unless the flight is sealed. No purge comes between the look at the seal and the end of `put`: a purge
    /// that seals afterwards finds in the store what `put` left there.
    pub(crate) fn commit(&self, put: impl FnOnce()) -> bool {
        let _shard = self.flights.shard(self.path);
        if self.is_sealed() {
            return false;
        }
        put();
        true
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut shard = self.flights.shard(self.path);
        if let Some(tickets) = shard.get_mut(&self.path) {
            tickets.retain(|ticket| !Arc::ptr_eq(ticket, &self.ticket));
            if tickets.is_empty() {
                shard.remove(&self.path);
            }
        }
    }
}

/// The refreshes that run behind stale answers: one for each variant of a key, and a bounded number in all.
#[derive(Debug, Default)]
pub(crate) struct Refreshes {
    running: Mutex<HashSet<u64>>,
}

/// The right to refresh one variant; given back when dropped.
#[derive(Debug)]
pub(crate) struct Refresh {
    refreshes: Arc<Refreshes>,
    id: u64,
}

/// Why a refresh may not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRefresh {
    /// Another one of the same variant is running.
    Running,
    /// Too many are.
    TooMany,
}

impl Refreshes {
    pub(crate) fn begin(self: &Arc<Self>, id: u64, most: usize) -> Result<Refresh, NoRefresh> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.contains(&id) {
            return Err(NoRefresh::Running);
        }
        if running.len() >= most {
            return Err(NoRefresh::TooMany);
        }
        running.insert(id);
        Ok(Refresh { refreshes: self.clone(), id })
    }
}

impl Drop for Refresh {
    fn drop(&mut self) {
        self.refreshes.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

/// Bytes held by all fills together, against a limit.
#[derive(Debug, Default)]
pub(crate) struct FillBudget {
    held: AtomicUsize,
}

impl FillBudget {
    /// Takes `bytes` more, if that stays within `limit`.
    pub(crate) fn take(&self, bytes: usize, limit: usize) -> bool {
        let taken = self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
            held.checked_add(bytes).filter(|sum| *sum <= limit)
        });
        taken.is_ok()
    }

    /// How many are held.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    pub(crate) fn give_back(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_flights_dont_commit_and_others_do() {
        let flights = Arc::new(Flights::default());
        let (one, other) = (Stamp::new(0, 1, 7), Stamp::new(0, 2, 7));
        let (first, second) = (flights.begin(&one, 0), flights.begin(&other, 0));
        flights.seal_resource(&one);
        assert!(!first.commit(|| panic!("sealed")));
        assert!(second.commit(|| {}));
        flights.seal_path(7);
        assert!(second.is_sealed());
        let third = flights.begin(&one, 0);
        assert!(!third.is_sealed(), "a flight that begins after the purge is not sealed");
        let mine = flights.begin(&Stamp::new(0, 1, 7).in_partition(Some(5)), 0);
        flights.seal_partition(5);
        assert!(mine.is_sealed() && !third.is_sealed(), "the flights of one principal, and no other");
        flights.seal_all();
        assert!(third.is_sealed());
        drop((first, second, third, mine));
        assert!(flights.shards.iter().all(|shard| shard.lock().unwrap().is_empty()), "nothing is left behind");
    }

    #[test]
    fn a_purge_by_tag_seals_what_has_it_or_may_have_it() {
        let flights = Arc::new(Flights::default());
        let begin = |authority| flights.begin(&Stamp::new(0, 1, 7), authority);
        let (tagged, otherwise, untagged, unknown, elsewhere) = (begin(1), begin(1), begin(1), begin(1), begin(2));
        tagged.know_tags(Some([11, 22].into()));
        otherwise.know_tags(Some([33].into()));
        untagged.know_tags(None);
        flights.seal_tags(Some(1), &[22]);
        assert!(tagged.is_sealed() && unknown.is_sealed());
        assert!(!otherwise.is_sealed() && !untagged.is_sealed() && !elsewhere.is_sealed());
        flights.seal_tags(None, &[22]);
        assert!(elsewhere.is_sealed() && !untagged.is_sealed());
    }

    #[test]
    fn one_refresh_for_each_variant_and_a_bounded_number() {
        let refreshes = Arc::new(Refreshes::default());
        let first = refreshes.begin(1, 2).unwrap();
        assert_eq!(refreshes.begin(1, 2).unwrap_err(), NoRefresh::Running);
        let _second = refreshes.begin(2, 2).unwrap();
        assert_eq!(refreshes.begin(3, 2).unwrap_err(), NoRefresh::TooMany);
        drop(first);
        assert!(refreshes.begin(1, 2).is_ok());
    }

    #[test]
    fn the_budget_is_never_exceeded() {
        let budget = FillBudget::default();
        assert!(budget.take(60, 100) && !budget.take(41, 100) && budget.take(40, 100));
        budget.give_back(100);
        assert!(budget.take(100, 100) && !budget.take(usize::MAX, usize::MAX));
    }
}
