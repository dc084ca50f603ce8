//! A look-up in two stores. What is near is good until it needs another look; then the far store is asked, and what is fresh there is copied to the near one.
//!
//! ```text
//! near ─┬─ fresh ──────────────> sent, and nobody is waited for
//!       └─ anything else ─> far ─┬─ something newer, or the near store had nothing: that counts; where it is fresh, it is copied
//!                                ├─ the same, or something older: what is near counts
//!                                └─ failed: what is near counts, as far as it may without being asked for
//! ```

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, header};

use crate::admission::Ask;
use crate::cache::CacheCore;
use crate::clock::Moment;
use crate::commit::weight;
use crate::drops::Seen;
use crate::key::CacheKey;
use crate::lookup::Lookup;
use crate::outcome::ForwardReason;
use crate::response::StoredResponse;
use crate::shared_reads::Asked;
use crate::stats::count;
use crate::storage::dynamic::DynStorage;
use crate::storage::{Query, Variants};

/// Which of two stores has what counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tier {
    Near,
    Far,
    /// Both have the same; what is near may be used for another while without asking.
    Both,
}

/// Two instances seldom agree on when something arrived to the last bit.
const SAME_TIME: Duration = Duration::from_millis(10);

/// What most responses vary by that vary at all. Requests that differ in it don't wait for each other's reads.
const NEGOTIATION: [HeaderName; 5] =
    [header::ACCEPT, header::ACCEPT_CHARSET, header::ACCEPT_ENCODING, header::ACCEPT_LANGUAGE, header::ORIGIN];

/// A look into the far store. It is handed on by reference: what a hit waits in would have a copy for each that it is handed to otherwise.
pub(crate) struct FarLook<'a> {
    pub(crate) far: &'a Arc<dyn DynStorage>,
    pub(crate) ask: &'a Ask,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) now: Moment,
}

impl CacheCore {
    /// The far store, unless what is under this key is none of its business.
    pub(crate) fn far_for(&self, key: &CacheKey) -> Option<&Arc<dyn DynStorage>> {
        self.settings.backend.far.as_ref().filter(|_| self.shares_partitions || key.partition().is_none())
    }

    /// Whether what is near may be used without asking the far store once more.
    #[inline]
    pub(crate) fn is_current(&self, stored: &StoredResponse, now: Moment) -> bool {
        self.settings.near_ttl.is_none_or(|ttl| stored.is_near_for_less_than(ttl, now))
    }

    /// Whether what was found near is all that is needed.
    pub(crate) fn is_enough(&self, near: &Lookup, now: Moment) -> bool {
        match near {
            Lookup::Fresh(stored) => self.is_current(stored, now),
            // Whatever is stored, the handler has to say so.
            Lookup::Validate(stored, ForwardReason::Request) => self.is_current(stored, now),
            _ => false,
        }
    }

    /// The same with what was stored under other settings weighed by those of now, or taken as missing.
    pub(crate) fn settle(&self, found: Lookup, ask: &Ask, now: Moment) -> Lookup {
        match found {
            Lookup::Earlier(stored) => match self.weigh_earlier(&stored, ask, now) {
                Ok(found) => found,
                Err(_) => Lookup::Miss(ForwardReason::UriMiss),
            },
            found => found,
        }
    }

    /// The same for a request that is answered by it, where that is not weighed yet.
    pub(crate) fn resume(&self, found: Lookup, ask: &Ask, now: Moment) -> Lookup {
        match found {
            Lookup::Earlier(_) => self.settle(found, ask, now).used(ask, now),
            found => found,
        }
    }

    /// Which of the stores counts, by what was found in each.
    pub(crate) fn tier(&self, near: &Lookup, far: &Lookup, now: Moment) -> Tier {
        if matches!((near, far), (Lookup::Miss(ForwardReason::VaryMiss), Lookup::Miss(_))) {
            return Tier::Near;
        }
        match (near.response(), far.response()) {
            (Some(near), Some(far)) if is_same(near, far) => Tier::Both,
            (Some(near), Some(far)) if self.is_current(near, now) && !is_newer(far, near) => Tier::Near,
            (Some(near), None) if self.is_current(near, now) => Tier::Near,
            _ => Tier::Far,
        }
    }

    /// What is found near alone, since the far store can't say.
    pub(crate) fn near_alone(&self, near: Lookup, now: Moment) -> Lookup {
        match near.response() {
            Some(stored) if !self.is_current(stored, now) => Lookup::Miss(ForwardReason::UriMiss),
            _ => near,
        }
    }

    /// What both stores have; `near` is what was found in the near one, and wasn't enough.
    pub(crate) async fn look_far(&self, ask: &mut Ask, headers: &HeaderMap, now: Moment, near: Lookup) -> Lookup {
        let Some(far) = self.far_for(&ask.key) else { return near };
        // Where nothing is near, nothing is copied there.
        let seen = self.settings.backend.near.as_ref().map(|_| self.drops_seen(&ask.key));
        let read = self.read_far(&FarLook { far, ask, headers, now }).await;
        self.weigh_tiers(ask, now, near, read, seen)
    }

    /// What counts of what was found near, and of what was read from the far store. Apart, so that nothing of it has a place in what a hit waits in.
    fn weigh_tiers(
        &self,
        ask: &mut Ask,
        now: Moment,
        near: Lookup,
        (variants, found): (Option<Variants>, Lookup),
        seen: Option<Seen>,
    ) -> Lookup {
        let Some(variants) = variants else {
            ask.store_failed = true;
            return self.near_alone(near, now);
        };
        let raw = found.response().cloned();
        let found = self.settle(found, ask, now);
        match self.tier(&near, &found, now) {
            Tier::Near => near,
            Tier::Both => {
                if let (Some(near), Some(seen)) = (near.response(), seen) {
                    self.renew(ask, near, now, seen);
                }
                near
            }
            Tier::Far => {
                let found = found.used(ask, now);
                match (&found, raw) {
                    (Lookup::Fresh(_) | Lookup::Ahead(_), Some(raw)) => {
                        seen.into_iter().for_each(|seen| self.promote(ask, &raw, now, seen));
                    }
                    // Whoever asked anew needs it no more.
                    _ => near.response().iter().for_each(|near| self.let_go(ask, near)),
                }
                if !variants.is_empty() && matches!(found, Lookup::Miss(ForwardReason::UriMiss)) {
                    self.note_invalid(ask);
                }
                found
            }
        }
    }

    /// What the far store has, if it could say, and what of that is meant.
    async fn read_far(&self, look: &FarLook<'_>) -> (Option<Variants>, Lookup) {
        let id = self.read_id(look.ask, look.headers);
        let Asked { variants, is_shared } = self.reads.read(id, &look.ask.key, || self.get(look)).await;
        let found = self.choose_far(&variants, look);
        if is_shared {
            if let Lookup::Miss(ForwardReason::VaryMiss) = found {
                // The store chose for another request. That is seldom, and has memory of its own.
                return Box::pin(self.read_alone(look)).await;
            }
            count(&self.counters.tiers.reads_shared);
        }
        (variants, found)
    }

    /// The same without sharing what others read.
    pub(crate) async fn read_alone(&self, look: &FarLook<'_>) -> (Option<Variants>, Lookup) {
        let variants = self.get(look).await;
        let found = self.choose_far(&variants, look);
        (variants, found)
    }

    fn choose_far(&self, variants: &Option<Variants>, look: &FarLook<'_>) -> Lookup {
        let FarLook { ask, headers, now, .. } = *look;
        self.choose(variants.as_deref().unwrap_or_default(), ask, headers, now).map(Arc::clone)
    }

    async fn get(&self, look: &FarLook<'_>) -> Option<Variants> {
        let began = self.now().monotonic;
        let got = look.far.get(Query::new(&look.ask.key, look.headers, look.now)).await;
        self.counters.store_latency.record(self.now().monotonic.saturating_sub(began));
        self.note_store_error(got, &look.ask.key)
    }

    fn read_id(&self, ask: &Ask, headers: &HeaderMap) -> u64 {
        let fields = NEGOTIATION.each_ref().map(|name| headers.get(name));
        self.hasher.hash_one((ask.key.as_bytes(), fields))
    }

    /// Copies what the far store has to the near one, as it is: the number that it is held against purges by stays.
    pub(crate) fn promote(&self, ask: &Ask, stored: &StoredResponse, now: Moment, seen: Seen) {
        let Some(near) = &self.settings.backend.near else { return };
        // Of those who shared a read, one is enough.
        if near
            .peek(&ask.key, |variants| variants.iter().any(|near| is_same(near, stored) && self.is_current(near, now)))
        {
            return;
        }
        let Some(copy) = self.near_copy(ask, stored, now) else { return };
        if self.drops.unless_dropped(seen, || self.put_near(near, &ask.key, copy)).is_some() {
            count(&self.counters.tiers.promoted);
        }
    }

    /// What lies in the near store: in memory of its own, and in the accounts of this instance. `None` for what is more than its principal may have.
    fn near_copy(&self, ask: &Ask, stored: &StoredResponse, now: Moment) -> Option<StoredResponse> {
        let route = self.rules.get(ask.rule);
        let mut copy = stored.in_memory_of_its_own(&self.heads);
        copy.variance = self.variances.share((*copy.variance).clone());
        copy.route = route.counters.clone();
        copy.upkeep = stored.upkeep.as_ref().map(|upkeep| upkeep.copied(self.spread(&ask.key, now)));
        copy.stamp.near_since = now.since(stored.received);
        let account = route.policy.partition_quota().zip(ask.key.partition());
        copy.charge = account.map(|(quota, id)| Arc::new(self.partitions.charge(id, route.account, quota)));
        let fits = copy.charge.as_ref().is_none_or(|charge| weight(&ask.key, &copy) <= charge.quota.bytes);
        fits.then_some(copy)
    }

    /// The far store has the same, so what is near is good for another while.
    fn renew(&self, ask: &Ask, stored: &StoredResponse, now: Moment, seen: Seen) {
        let Some(near) = self.settings.backend.near.as_ref().filter(|_| self.settings.near_ttl.is_some()) else {
            return;
        };
        let renewed = |other: &StoredResponse| {
            is_same(other, stored).then(|| {
                let mut renewed = other.clone();
                renewed.stamp.near_since = now.since(other.received);
                renewed
            })
        };
        self.drops.unless_dropped(seen, || near.change_now(&ask.key, renewed));
    }

    /// The far store doesn't have it any more: neither has the near one.
    fn let_go(&self, ask: &Ask, stored: &StoredResponse) {
        if let Some(near) = &self.settings.backend.near {
            near.retain_now(&ask.key, |other| !is_same(other, stored));
        }
    }
}

/// Whether one is a copy of the other, wherever it was read.
pub(crate) fn is_same(one: &StoredResponse, other: &StoredResponse) -> bool {
    let apart = one.received.wall.duration_since(other.received.wall).unwrap_or_else(|late| late.duration());
    one.stamp.number == other.stamp.number
        && apart <= SAME_TIME
        && one.same_variant(other)
        && one.plain_length() == other.plain_length()
        && one.plain_etag() == other.plain_etag()
}

/// Whether `far` began later than `near`; the near one may have been stored a moment ago, and not be in the far store yet.
pub(crate) fn is_newer(far: &StoredResponse, near: &StoredResponse) -> bool {
    let later = far.received.wall.duration_since(near.received.wall).is_ok_and(|by| by > SAME_TIME);
    far.stamp.number > near.stamp.number || far.stamp.number == near.stamp.number && later
}
