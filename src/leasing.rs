//! Several instances miss the same at once: one of them asks the handler, and the others wait for what it stores. See [`Lease`].
//!
//! ```text
//! leads its own flight ─> lease, and one more look ─┬─ found ────────────> everybody here has it
//!                              ^                    ├─ granted, or free ─> the handler is asked
//!                              │                    ├─ failed ───────────> the same
//!                              └───── a pause <─────┴─ taken
//! ```
//!
//! A lease that isn't given back, since its holder died, ends by itself; and nobody waits longer than
//! [`max_lease_wait`](crate::CacheLayer::max_lease_wait) in any case.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Poll;
use std::time::Duration;

use http::HeaderMap;

use crate::admission::Ask;
use crate::boarding::{Departure, Given};
use crate::cache::CacheCore;
use crate::key::CacheKey;
use crate::lookup::Lookup;
use crate::outcome::ForwardReason;
use crate::response::StoredResponse;
use crate::stats::count;
use crate::storage::dynamic::DynStorage;
use crate::storage::{Lease, LeaseToken, Released};
use crate::strategy::Strategy;
use crate::tiers::{FarLook, is_newer};

/// The first pause of who waits for another instance. Each is twice as long as the one before, up to the longest.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(5);
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Whose turn it is to ask the handler.
#[derive(Debug)]
pub(crate) enum Turn {
    Ours,
    /// Another instance did, and this is what it stored; or the answer came between the look-up and now.
    Theirs {
        stored: Arc<StoredResponse>,
        waited: bool,
    },
}

/// A lease that this instance has, given back when nobody needs it any more.
pub(crate) struct Lent {
    core: Arc<CacheCore>,
    far: Arc<dyn DynStorage>,
    key: CacheKey,
    token: LeaseToken,
    how: AtomicU8,
}

const FAILED: u8 = 0;
const STORED: u8 = 1;
const DECLINED: u8 = 2;

impl Lent {
    /// The far store has the answer.
    pub(crate) fn is_stored(&self) {
        self.how.store(STORED, Ordering::Relaxed);
    }

    /// The answer never came to its end, so that it says nothing about the next one.
    pub(crate) fn has_failed(&self) {
        self.how.store(FAILED, Ordering::Relaxed);
    }

    /// The answer is nobody else's.
    pub(crate) fn is_declined(&self) {
        self.how.store(DECLINED, Ordering::Relaxed);
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let how = match self.how.load(Ordering::Relaxed) {
            STORED => Released::Stored,
            DECLINED => Released::Declined,
            _ => Released::Failed,
        };
        let (core, far, key, token) = (self.core.clone(), self.far.clone(), self.key.clone(), self.token);
        self.core.spawn(async move {
            let released = far.release(&key, token, how).await;
            core.note_store_error(released, &key);
        });
    }
}

impl std::fmt::Debug for Lent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lent").finish_non_exhaustive()
    }
}

impl CacheCore {
    /// The store that says whose turn it is, where that is worth asking: other requests may have the answer, and nobody insists on one of the handler's own.
    pub(crate) fn lessor(&self, ask: &Ask, why: ForwardReason, departure: &Departure) -> Option<Arc<dyn DynStorage>> {
        let far = self.far_for(&ask.key)?;
        let missed = matches!(why, ForwardReason::UriMiss | ForwardReason::VaryMiss | ForwardReason::Stale);
        let asks_store_first = matches!(ask.strategy, Strategy::CacheFirst | Strategy::StaleWhileRevalidate);
        let is_shared = missed
            && asks_store_first
            && departure.flight.is_joinable()
            && !ask.store_failed
            && !ask.directives.no_cache;
        // Outside of a runtime nobody tells the time.
        let may_wait = is_shared && tokio::runtime::Handle::try_current().is_ok();
        may_wait.then(|| far.clone())
    }

    /// Finds out whose turn it is, and waits for the other one's answer, not longer than [`max_lease_wait`](crate::CacheLayer::max_lease_wait). What is there must be newer
    /// than `previous`. Those who wait here have what was found as well.
    pub(crate) async fn take_turn(
        self: &Arc<Self>,
        far: &Arc<dyn DynStorage>,
        ask: &Ask,
        headers: &HeaderMap,
        previous: Option<&StoredResponse>,
        departure: &mut Departure,
    ) -> Turn {
        let (mut pause, mut left) = (FIRST_PAUSE, self.settings.max_lease_wait);
        loop {
            let (lease, found) = self.lease(far, ask, headers, previous).await;
            let lent = match lease {
                Some(Lease::Granted(token)) => Some(self.lent(far, &ask.key, token)),
                _ => None,
            };
            if let Some(stored) = found {
                lent.iter().for_each(Lent::is_stored);
                departure.flight.give(Given::Stored(stored.clone()));
                let waited = pause > FIRST_PAUSE;
                waited.then(|| count(&self.counters.tiers.leases_awaited));
                return Turn::Theirs { stored, waited };
            }
            if lease != Some(Lease::Taken) {
                lent.into_iter().for_each(|lent| departure.flight.lend(lent));
                return Turn::Ours;
            }
            if left.is_zero() {
                count(&self.counters.tiers.lease_waits_timed_out);
                return Turn::Ours;
            }
            let pauses = pause.min(left);
            tokio::time::sleep(pauses).await;
            (pause, left) = ((pause * 2).min(LONGEST_PAUSE), left - pauses);
        }
    }

    /// Asks for the lease, and looks once more *behind that*: who gave it back just now had stored its answer before. A store that has answers to both at once is asked
    /// for both at once, in this order.
    async fn lease(
        self: &Arc<Self>,
        far: &Arc<dyn DynStorage>,
        ask: &Ask,
        headers: &HeaderMap,
        previous: Option<&StoredResponse>,
    ) -> (Option<Lease>, Option<Arc<StoredResponse>>) {
        // As long as nobody wants to wait for a fill, no lease need last longer.
        let lease = far.lease(&ask.key, self.settings.max_fill_age);
        let look = self.look_again(far, ask, headers, previous);
        if self.leases_are_known.load(Ordering::Relaxed) {
            let (lease, found) = both(lease, look).await;
            return (self.note_store_error(lease, &ask.key), found);
        }
        // A store that knows no leases needn't be looked into for them.
        let lease = self.note_store_error(lease.await, &ask.key);
        if !matches!(lease, Some(Lease::Granted(_) | Lease::Taken)) {
            return (lease, None);
        }
        self.leases_are_known.store(true, Ordering::Relaxed);
        (lease, look.await)
    }

    /// What is fresh in the far store by now, copied to the near one.
    async fn look_again(
        self: &Arc<Self>,
        far: &Arc<dyn DynStorage>,
        ask: &Ask,
        headers: &HeaderMap,
        previous: Option<&StoredResponse>,
    ) -> Option<Arc<StoredResponse>> {
        let (seen, now) = (self.drops_seen(&ask.key), self.now());
        // By itself: what another request began to read earlier may be what was there earlier.
        let found = self.read_alone(&FarLook { far, ask, headers, now }).await.1;
        // Those who wait here came when they came: what they get may be behind by no more than what they would have found then.
        if !self.coherence.is_trusted(self.now()) {
            return None;
        }
        let raw = found.response().cloned()?;
        let Lookup::Fresh(stored) = self.settle(found, ask, now) else { return None };
        if previous.is_some_and(|previous| !is_newer(&raw, previous)) {
            return None;
        }
        if let Some(upkeep) = &raw.upkeep {
            upkeep.touch(now.since(raw.received));
        }
        self.promote(ask, &raw, now, seen);
        Some(stored)
    }

    pub(crate) fn lent(self: &Arc<Self>, far: &Arc<dyn DynStorage>, key: &CacheKey, token: LeaseToken) -> Lent {
        count(&self.counters.tiers.leases);
        Lent { core: self.clone(), far: far.clone(), key: key.clone(), token, how: AtomicU8::new(FAILED) }
    }
}

/// Waits for both; the first one is asked first.
pub(crate) async fn both<A, B>(first: impl Future<Output = A>, second: impl Future<Output = B>) -> (A, B) {
    let (mut first, mut second) = (pin!(first), pin!(second));
    let (mut one, mut other) = (None, None);
    std::future::poll_fn(|cx| {
        if one.is_none()
            && let Poll::Ready(answer) = first.as_mut().poll(cx)
        {
            one = Some(answer);
        }
        if other.is_none()
            && let Poll::Ready(answer) = second.as_mut().poll(cx)
        {
            other = Some(answer);
        }
        if one.is_some() && other.is_some() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    one.zip(other).expect("both have answered")
}
