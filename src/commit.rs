//! A response on its way into the stores: the near one has it when this returns, the far one gets it behind that.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::boarding::Given;
use crate::cache::CacheCore;
use crate::coder::Job;
use crate::flight::Flight;
use crate::key::CacheKey;
use crate::leasing::Lent;
use crate::partition::MakeRoom;
use crate::response::{Stamp, StoredResponse};
use crate::rfc9111::storability::DeclineReason;
use crate::stats::count;
use crate::storage::MemoryStore;
use crate::storage::dynamic::DynStorage;

impl CacheCore {
    /// Stores a response, unless a purge touched it or the cache has ended, and gives it to the followers. In memory it is there when this returns. `confirmed` is what the response whose content
    /// it has is held against purges by, where a handler confirmed that. Where it is to be compressed, the far store gets it
    /// behind that, in its last form.
    pub(crate) fn commit(
        self: &Arc<Self>,
        flight: Flight<Given>,
        key: &CacheKey,
        response: &Arc<StoredResponse>,
        confirmed: Option<&Stamp>,
        compression: Option<Job>,
    ) -> Result<(), DeclineReason> {
        let far = match self.put(&flight, key, response, confirmed) {
            Ok(far) => far,
            Err(reason) => {
                // Dropped after a purge, it has failed: one of those who wait asks anew.
                if reason != DeclineReason::Purged {
                    flight.decline();
                }
                return Err(reason);
            }
        };
        flight.give(Given::Stored(response.clone()));
        let far = far.map(|far| far.until_stored(flight));
        match (compression, far) {
            (Some(job), far) => job.spawn(far),
            (None, Some(far)) => self.spawn(far.run(response.clone())),
            (None, None) => {}
        }
        Ok(())
    }

    /// The same of a response for everybody that memory alone is to have, and of which the content came with the head. It goes there as it is, and its flight ends in that step: for
    /// those who don't wait, nothing is made.
    pub(crate) fn commit_at_once(
        &self,
        flight: Flight<Given>,
        key: &CacheKey,
        near: &MemoryStore,
        response: StoredResponse,
    ) -> Result<(), DeclineReason> {
        if self.abandon.is_cancelled() {
            flight.decline();
            return Err(DeclineReason::Shutdown);
        }
        self.note_additions(key);
        let put = |response: StoredResponse, is_followed: bool| {
            let given = is_followed.then(|| Given::Stored(Arc::new(response.clone())));
            self.fates.note_stored_at(key, response.stamp.number, response.received);
            near.put_now(key, response, self.settings.max_variants);
            given
        };
        let is_stored = flight.land(response, |response| self.is_valid(response, key), put);
        // Dropped after a purge, it has failed, as above.
        is_stored.then_some(()).ok_or(DeclineReason::Purged)
    }

    fn note_additions(&self, key: &CacheKey) {
        if key.has_additions() {
            self.keys_have_additions.store(true, Ordering::Release);
        }
    }

    fn put(
        self: &Arc<Self>,
        flight: &Flight<Given>,
        key: &CacheKey,
        response: &Arc<StoredResponse>,
        confirmed: Option<&Stamp>,
    ) -> Result<Option<FarPut>, DeclineReason> {
        if self.abandon.is_cancelled() {
            return Err(DeclineReason::Shutdown);
        }
        if response.charge.as_ref().is_some_and(|charge| weight(key, response) > charge.quota.bytes) {
            // What it was to take the place of isn't good any more.
            self.drop_key(key);
            return Err(DeclineReason::PartitionQuota);
        }
        self.note_additions(key);
        let is_valid =
            || self.is_valid(response, key) && confirmed.is_none_or(|stamp| self.still_holds(stamp, response, key));
        let near = &self.settings.backend.near;
        let mut room = None;
        let put = || room = near.as_ref().map(|near| self.put_near(near, key, StoredResponse::clone(response)));
        if !flight.commit(is_valid, put) {
            return Err(DeclineReason::Purged);
        }
        Ok(self.far_for(key).map(|far| FarPut {
            core: self.clone(),
            far: far.clone(),
            key: key.clone(),
            _until_stored: None,
            lent: flight.lent(),
            room,
        }))
    }

    /// Whether no hard purge touched what `response` confirms, since the handler was asked; a soft one marks it.
    fn still_holds(&self, confirmed: &Stamp, response: &StoredResponse, key: &CacheKey) -> bool {
        let is_valid = self.purges.is_valid(confirmed, response.received, key);
        // What was held against purges is what it was: the mark says nothing about them.
        response.stamp.hold(confirmed.stale_from(), response.stamp.verified());
        is_valid
    }

    /// Returns what left it, so that a quota is kept.
    pub(crate) fn put_near(&self, near: &MemoryStore, key: &CacheKey, response: StoredResponse) -> MakeRoom {
        let most = self.settings.max_variants;
        self.fates.note_stored(key, response.stamp.number);
        if response.charge.is_none() {
            near.put_now(key, response, most);
            return MakeRoom::default();
        }
        near.put_now(key, response.clone(), most);
        let numbers = |variants: &[StoredResponse]| {
            variants.iter().filter_map(|variant| Some(variant.charge.as_ref()?.number)).collect()
        };
        let room = self.keep_quota(key, &response, || Some(near.read(key, numbers)));
        for oldest in &room.oldest {
            near.remove_now(oldest);
        }
        if room.other_variants {
            near.remove_now(key);
            self.fates.note_stored(key, response.stamp.number);
            near.put_now(key, response, most);
        }
        room
    }

    /// Accounts a response that was stored for its principal, and says what has to leave so that the quota is kept. `stored` is as for
    /// [`Partitions::enter`](crate::partition::Partitions::enter).
    fn keep_quota(
        &self,
        key: &CacheKey,
        response: &StoredResponse,
        stored: impl FnOnce() -> Option<Vec<u64>>,
    ) -> MakeRoom {
        let Some(charge) = &response.charge else { return MakeRoom::default() };
        let room = self.partitions.enter(charge, key, weight(key, response), stored);
        room.oldest.iter().for_each(|_| count(&self.counters.quota_evictions));
        room
    }
}

/// What is to be put into the far store, behind the answer.
pub(crate) struct FarPut {
    core: Arc<CacheCore>,
    far: Arc<dyn DynStorage>,
    key: CacheKey,
    /// What left the near store, if there is one.
    room: Option<MakeRoom>,
    _until_stored: Option<Flight<Given>>,
    lent: Option<Arc<Lent>>,
}

impl FarPut {
    /// Until a store has it, those who come have it from the flight.
    fn until_stored(self, flight: Flight<Given>) -> Self {
        Self { _until_stored: self.room.is_none().then_some(flight), ..self }
    }

    /// A purge that comes while the store is at work has a larger number than this response, so that it is never read.
    pub(crate) async fn run(self, response: Arc<StoredResponse>) {
        let (core, far, key) = (&self.core, &self.far, &self.key);
        let is_near = self.room.is_some();
        if !is_near {
            core.fates.note_stored(key, response.stamp.number);
        }
        // The account is of what is near, where that is a copy of its own.
        let apart = StoredResponse { charge: None, ..StoredResponse::clone(&response) };
        let kept = if is_near { Arc::new(apart) } else { response.clone() };
        let put = far.put(key, kept, core.settings.max_variants).await;
        if core.note_store_error(put, key).is_some() {
            self.lent.iter().for_each(|lent| lent.is_stored());
        }
        let mut room = self.room.unwrap_or_else(|| core.keep_quota(key, &response, || None));
        // Erased while the store was at work: it is never read, but it must go as well.
        if response.charge.is_some() && !core.is_valid(&response, key) {
            room.oldest.push(key.clone());
        }
        for key in room.oldest.iter().chain(room.other_variants.then_some(key)) {
            let removed = far.remove(key).await;
            core.note_store_error(removed, key);
        }
    }
}

/// What a stored response counts against a quota.
pub(crate) fn weight(key: &CacheKey, response: &StoredResponse) -> u64 {
    (key.as_bytes().len() + response.size()) as u64
}
