//! [`Gatherer`]: the way of the tags that are used while an answer is made to the flight that brings it.

use super::{Flight, Flights, Ticket};
use crate::key::CacheKey;
use crate::sync::{Arc, Weak};
use crate::used::Used;

/// By which the tags of what is used find their flight. It keeps nothing in memory that the flight has.
#[derive(Debug)]
pub(crate) struct Gatherer<T, K = CacheKey>(Weak<Ticket<T, K>>);

impl<T, K> Clone for Gatherer<T, K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T, K> Gatherer<T, K> {
    /// Where they come; `None` where the flight is over. Under the lock of those that purges look at: a purge that doesn't know of it yet has its number before
    /// anything is read.
    pub(crate) fn open(&self, flights: &Flights<T, K>, new: impl FnOnce() -> Arc<Used>) -> Option<Arc<Used>> {
        let ticket = self.0.upgrade()?;
        if let Some(used) = ticket.used.get() {
            return Some(used.clone());
        }
        let _shard = flights.shard(ticket.path);
        Some(ticket.used.get_or_init(new).clone())
    }
}

impl<T, K> Flight<T, K> {
    /// Where the tags come of what its answer is made from, for those who make it.
    pub(crate) fn gatherer(&self) -> Gatherer<T, K> {
        Gatherer(Arc::downgrade(&self.ticket))
    }

    /// Its answer is made already, or is being made, from what comes here.
    pub(crate) fn gather_in(&self, used: Arc<Used>) {
        // Before anybody asks, so this is set once.
        let _ = self.ticket.used.set(used);
    }

    /// What its answer is made from, if anybody asked.
    pub(crate) fn used(&self) -> Option<&Used> {
        self.ticket.used.get().map(|used| &**used)
    }
}

impl<T, K> super::Follower<T, K> {
    /// What the answer that it waits for is made from, if anybody asked.
    pub(crate) fn used(&self) -> Option<&Used> {
        self.ticket.used.get().map(|used| &**used)
    }
}
