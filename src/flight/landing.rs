//! The end of a flight that brings something: it is stored unless a write or a purge touched it, and no one comes in between.

use std::collections::hash_map::Entry;

use super::{Flight, Shard, Ticket};
use crate::sync::Arc;

impl<T, K> Flight<T, K> {
    /// Stores by calling `put`, unless the flight is sealed or a purge touches what it brought, as `is_valid` tells. No write comes between the look at the seal and the end of
    /// `put`: one that seals afterwards finds in the store what `put` left there. Nor does a purge return in between; and what is stored was held against all purges of which the
    /// number was current.
    pub(crate) fn commit(&self, is_valid: impl FnOnce() -> bool, put: impl FnOnce()) -> bool {
        let _shard = self.flights.shard(self.ticket.path);
        if self.is_sealed() || !is_valid() {
            return false;
        }
        put();
        true
    }

    /// Stores what it `brought` as [`commit`](Self::commit) does, and ends. `put` is told whether anybody waits, and then returns what is for those. Where nobody does, it ends in the
    /// same step: who comes later finds what was put. Those who wait are to be found until they have it, by whatever seals it for them.
    pub(crate) fn land<R>(
        mut self,
        brought: R,
        is_valid: impl FnOnce(&R) -> bool,
        put: impl FnOnce(R, bool) -> Option<T>,
    ) -> bool {
        let mut shard = self.flights.shard(self.ticket.path);
        if self.is_sealed() || !is_valid(&brought) {
            return false;
        }
        let is_followed = !self.ticket.progress().followers.is_empty();
        let given = put(brought, is_followed);
        if !is_followed {
            remove(&mut shard, &self.ticket);
            self.has_landed = true;
        }
        drop(shard);
        given.into_iter().for_each(|given| self.give(given));
        true
    }
}

/// Nobody finds this flight any more.
pub(super) fn remove<T, K>(shard: &mut Shard<T, K>, ticket: &Arc<Ticket<T, K>>) {
    if let Entry::Occupied(mut tickets) = shard.entry(ticket.path) {
        tickets.get_mut().retain(|other| !Arc::ptr_eq(other, ticket));
        if tickets.get().is_empty() {
            tickets.remove();
        }
    }
}
