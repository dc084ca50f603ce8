//! Which of several instances loads, where their store has [leases](crate::storage::Lease); as for responses, one for all.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::job::{Job, Loaded};
use super::reading::Found;
use crate::leasing::{FIRST_PAUSE, LONGEST_PAUSE, both};
use crate::response::StoredResponse;
use crate::stats::count;
use crate::storage::Lease;
use crate::storage::dynamic::DynStorage;
use crate::tiers::is_newer;

impl Job {
    /// Finds out whose turn it is, and waits for what another instance loads, not longer than [`max_lease_wait`](crate::CacheLayer::max_lease_wait). What is there must be newer than
    /// `previous`. Those who wait here have what was found as well. `None` where the turn is ours.
    pub(super) async fn take_turn(&mut self, previous: Option<&Arc<StoredResponse>>) -> Option<Arc<StoredResponse>> {
        let far = self.lessor()?;
        let (mut pause, mut left) = (FIRST_PAUSE, self.core.settings.max_lease_wait);
        loop {
            let (lease, found) = self.lease(&far, previous).await;
            let lent = match lease {
                Some(Lease::Granted(token)) => Some(self.core.lent(&far, &self.wanted.key, token)),
                _ => None,
            };
            if let Some(stored) = found {
                lent.iter().for_each(|lent| lent.is_stored());
                self.flight.give(Loaded::Stored(stored.clone()));
                if pause > FIRST_PAUSE {
                    count(&self.core.counters.tiers.leases_awaited);
                }
                return Some(stored);
            }
            if lease != Some(Lease::Taken) {
                lent.into_iter().for_each(|lent| self.flight.lend(lent));
                return None;
            }
            if left.is_zero() {
                count(&self.core.counters.tiers.lease_waits_timed_out);
                return None;
            }
            let pauses = pause.min(left);
            tokio::time::sleep(pauses).await;
            (pause, left) = ((pause * 2).min(LONGEST_PAUSE), left - pauses);
        }
    }

    /// The store that says whose turn it is, if one can. Outside of a runtime nobody tells the time.
    fn lessor(&self) -> Option<Arc<dyn DynStorage>> {
        let may_wait = self.flight.is_joinable()
            && tokio::runtime::Handle::try_current().is_ok()
            && self.core.coherence.is_trusted(self.core.now());
        self.core.far_for(&self.wanted.key).filter(|_| may_wait).cloned()
    }

    /// Asks for the lease, and looks once more behind that: who gave it back just now had stored its value before.
    async fn lease(
        &self,
        far: &Arc<dyn DynStorage>,
        previous: Option<&Arc<StoredResponse>>,
    ) -> (Option<Lease>, Option<Arc<StoredResponse>>) {
        let lease = far.lease(&self.wanted.key, self.core.settings.max_fill_age);
        let look = self.look_again(far, previous);
        let knows_leases = &self.core.leases_are_known;
        if knows_leases.load(Ordering::Relaxed) {
            let (lease, found) = both(lease, look).await;
            return (self.cache.note_store_error(lease), found);
        }
        // A store that knows no leases needn't be looked into for them.
        let lease = self.cache.note_store_error(lease.await);
        if !matches!(lease, Some(Lease::Granted(_) | Lease::Taken)) {
            return (lease, None);
        }
        knows_leases.store(true, Ordering::Relaxed);
        (lease, look.await)
    }

    /// What is fresh in the far store by now, copied to the near one.
    async fn look_again(
        &self,
        far: &Arc<dyn DynStorage>,
        previous: Option<&Arc<StoredResponse>>,
    ) -> Option<Arc<StoredResponse>> {
        let (seen, key) = (self.core.drops_seen(&self.wanted.key), &self.wanted.key);
        let Found::Fresh(stored) = self.cache.find_alone(&self.core, far, key).await else { return None };
        let now = self.core.now();
        // Those who wait here came when they came: what they get may be behind by no more than what they would have found then.
        let is_news = previous.is_none_or(|previous| is_newer(&stored, previous));
        if !is_news || !self.core.coherence.is_trusted(now) || self.flight.is_closed() {
            return None;
        }
        self.cache.promote(&self.core, key, &stored, now, seen);
        Some(stored)
    }
}
