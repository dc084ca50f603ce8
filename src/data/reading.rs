//! Values found again: near, where nobody is waited for, and else far, as responses are.
//!
//! ```text
//! near ─┬─ fresh ───────────────> given
//!       └─ anything else ─> far ─┬─ something fresh ──> copied to the near store, and given
//!                                ├─ something stale, or nothing: the newer of both, as far as it is of use
//!                                └─ failed: what is near, likewise
//! ```

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use http::HeaderMap;
use serde::de::DeserializeOwned;

use super::DataCache;
use super::value::{is_none, may_be_near};
use crate::cache::CacheCore;
use crate::clock::Moment;
use crate::drops::Seen;
use crate::error::StorageError;
use crate::form::Form;
use crate::key::CacheKey;
use crate::response::StoredResponse;
use crate::stats::count;
use crate::storage::dynamic::DynStorage;
use crate::storage::{Query, Variants};
use crate::tally::more;
use crate::tiers::{is_newer, is_same};
use crate::used::UsedTags;

/// What there is under a key.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    /// It is fresh.
    Fresh(Arc<StoredResponse>),
    /// Its time is over, and it may still be of use.
    Stale(Arc<StoredResponse>),
    /// Nothing that could be.
    Nothing,
}

/// Values up to this size are read where they lie; what is larger would keep memory from being given back meanwhile.
const IN_PLACE: usize = 64 << 10;

impl Found {
    fn of(stored: Arc<StoredResponse>, weight: Weight) -> Self {
        match weight {
            Weight::Fresh => Self::Fresh(stored),
            Weight::Stale => Self::Stale(stored),
            Weight::Useless | Weight::Foreign => Self::Nothing,
        }
    }

    pub(crate) fn stored(&self) -> Option<&Arc<StoredResponse>> {
        match self {
            Self::Fresh(stored) | Self::Stale(stored) => Some(stored),
            Self::Nothing => None,
        }
    }
}

/// What something stored is worth now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weight {
    Fresh,
    Stale,
    /// It is purged, or too old for anything.
    Useless,
    /// It is of another serialiser.
    Foreign,
}

impl DataCache {
    /// The fresh value under a key; counted. Where there is none, what is made of that bears the tags of the cache, and these.
    pub(super) async fn read<T: DeserializeOwned>(&self, key: &CacheKey, tags: &[Arc<str>]) -> Option<T> {
        // Before anything is read.
        let used = UsedTags::current();
        let value = match self.value_near(key, &used) {
            Some(value) => Some(value),
            None => match self.find(key).await {
                Found::Fresh(stored) => self.value(&stored).ok(),
                Found::Stale(_) | Found::Nothing => None,
            },
        };
        self.note_read(value.is_some());
        let value = value.flatten();
        if value.is_none() {
            self.shape.tags.iter().chain(tags).for_each(|tag| used.add(tag));
        }
        value
    }

    /// Whether there is one.
    pub(super) async fn has(&self, key: &CacheKey) -> bool {
        let used = UsedTags::current();
        let found = self.find(key).await;
        if let Found::Fresh(stored) = &found {
            used.add_stored(stored);
        }
        let has = matches!(&found, Found::Fresh(stored) if !is_none(stored));
        if !has {
            self.shape.tags.iter().for_each(|tag| used.add(tag));
        }
        self.note_read(has);
        has
    }

    pub(super) fn note_read(&self, hit: bool) {
        let counters = self.counters();
        count(if hit { &counters.hits } else { &counters.misses });
    }

    /// The fresh value that is near, read where it lies, without waiting for anybody; `None` if there is no such.
    #[inline]
    pub(super) fn value_near<T: DeserializeOwned>(&self, key: &CacheKey, used: &UsedTags) -> Option<Option<T>> {
        let core = self.live.load();
        let now = core.now();
        self.near(&core)?.read(key, |variants| {
            let stored = variants.first()?;
            let is_at_hand = !matches!(stored.form, Form::Coded { .. }) && stored.body.len() <= IN_PLACE;
            if !is_at_hand || self.weigh(&core, stored, key, now) != Weight::Fresh || !core.is_current(stored, now) {
                return None;
            }
            let value = self.read_as(stored, used).ok()?;
            touch(stored, now);
            Some(value)
        })
    }

    /// What there is under a key in any store.
    pub(crate) async fn find(&self, key: &CacheKey) -> Found {
        let core = self.core();
        let mut now = core.now();
        if !core.coherence.is_trusted(now) {
            self.begun(&core).await;
            now = core.now();
        }
        let near = self.find_near(&core, key, now);
        let is_enough = matches!(&near, Found::Fresh(stored) if core.is_current(stored, now));
        // While nothing is trusted, only what is near may be used, if anything.
        let far = core.far_for(key).filter(|_| !is_enough && core.coherence.is_trusted(now)).cloned();
        let found = match far {
            Some(far) => self.find_far(&core, &far, key, near).await,
            None => near,
        };
        if let Found::Fresh(stored) = &found {
            touch(stored, core.now());
        }
        found
    }

    /// What others purge is heard, and waited for where that is about to begin.
    pub(super) async fn begun(&self, core: &CacheCore) {
        self.live.keep_coherent();
        if core.coherence.is_beginning() {
            core.coherence.begun().await;
        }
    }

    /// What is near.
    pub(super) fn find_near(&self, core: &CacheCore, key: &CacheKey, now: Moment) -> Found {
        let Some(near) = self.near(core) else { return Found::Nothing };
        near.read(key, |variants| match variants.first() {
            None => Found::Nothing,
            Some(stored) => match self.weigh(core, stored, key, now) {
                weight @ (Weight::Fresh | Weight::Stale) => Found::of(Arc::new(stored.clone()), weight),
                weight => {
                    // What is far as well is counted there.
                    self.note_foreign(weight, core.far_for(key).is_none());
                    Found::Nothing
                }
            },
        })
    }

    async fn find_far(&self, core: &Arc<CacheCore>, far: &Arc<dyn DynStorage>, key: &CacheKey, near: Found) -> Found {
        let seen = core.drops_seen(key);
        // Who comes after a write waits for no read from before it.
        let id = core.hasher.hash_one((key.as_bytes(), seen));
        let asked = core.reads.read(id, key, || self.ask(core, far, key)).await;
        if asked.is_shared {
            count(&core.counters.tiers.reads_shared);
        }
        let found = self.choose(core, asked.variants.as_deref(), key);
        let now = core.now();
        let has_failed = asked.variants.is_none();
        let near = match near.stored() {
            Some(stored) if core.is_current(stored, now) => self.weighed(core, stored, key, now),
            Some(stored) if !has_failed && found.stored().is_none() => {
                self.let_go(core, key, stored);
                Found::Nothing
            }
            _ => Found::Nothing,
        };
        match (&found, near) {
            (Found::Fresh(stored), _) => {
                // Before the copy takes its marks.
                touch(stored, now);
                self.promote(core, key, stored, now, seen);
                found
            }
            (Found::Stale(far), Found::Stale(near)) if !is_newer(far, &near) => Found::Stale(near),
            (Found::Stale(_), _) => found,
            (Found::Nothing, near) => near,
        }
    }

    /// What the far store has, without sharing what others read.
    pub(super) async fn find_alone(&self, core: &Arc<CacheCore>, far: &Arc<dyn DynStorage>, key: &CacheKey) -> Found {
        let variants = self.ask(core, far, key).await;
        self.choose(core, variants.as_deref(), key)
    }

    async fn ask(&self, core: &CacheCore, far: &Arc<dyn DynStorage>, key: &CacheKey) -> Option<Variants> {
        let (began, headers) = (core.now(), HeaderMap::new());
        let got = far.get(Query::new(key, &headers, began)).await;
        core.counters.store_latency.record(core.now().monotonic.saturating_sub(began.monotonic));
        self.note_store_error(got)
    }

    fn choose(&self, core: &CacheCore, variants: Option<&[Arc<StoredResponse>]>, key: &CacheKey) -> Found {
        let now = core.now();
        let Some(stored) = variants.and_then(|variants| variants.first()) else { return Found::Nothing };
        let weight = self.weigh(core, stored, key, now);
        self.note_foreign(weight, true);
        Found::of(stored.clone(), weight)
    }

    fn note_foreign(&self, weight: Weight, counts: bool) {
        if weight == Weight::Foreign && counts {
            count(&self.counters().mismatched);
        }
    }

    fn weighed(&self, core: &CacheCore, stored: &Arc<StoredResponse>, key: &CacheKey, now: Moment) -> Found {
        Found::of(stored.clone(), self.weigh(core, stored, key, now))
    }

    /// What may be done with what is stored under `key`: no purge touches it, as far as is known here, and this cache can read it.
    pub(crate) fn weigh(&self, core: &CacheCore, stored: &StoredResponse, key: &CacheKey, now: Moment) -> Weight {
        if !self.shape.regimes.reads(stored) {
            return Weight::Foreign;
        }
        if !core.is_valid(stored, key) || !core.coherence.allows(&stored.stamp, key, now) {
            return Weight::Useless;
        }
        // What atomic operations made is never stale: soft purges of its place are for copies of what was there before.
        let terms = if stored.is_atomic() { stored.terms } else { stored.current_terms() };
        let age = stored.age(now);
        if terms.is_fresh(age) {
            Weight::Fresh
        } else if terms.staleness(age) < terms.stale_while_revalidate.max(terms.stale_if_error) {
            Weight::Stale
        } else {
            Weight::Useless
        }
    }

    /// Whether what is stored is a value that is fresh, as far as is known here.
    pub(super) fn is_alive(&self, core: &CacheCore, stored: &StoredResponse, key: &CacheKey, now: Moment) -> bool {
        self.weigh(core, stored, key, now) == Weight::Fresh && !is_none(stored)
    }

    /// Copies what the far store has to the near one, as it is: the number that it is held against purges by stays.
    pub(super) fn promote(
        &self,
        core: &Arc<CacheCore>,
        key: &CacheKey,
        stored: &StoredResponse,
        now: Moment,
        seen: Seen,
    ) {
        let Some(near) = self.near(core).filter(|_| may_be_near(stored)) else { return };
        // Of those who shared a read, one is enough.
        let is_there =
            |near: &[StoredResponse]| near.iter().any(|near| is_same(near, stored) && core.is_current(near, now));
        if near.peek(key, is_there) {
            return;
        }
        let mut copy = stored.in_memory_of_its_own(&core.heads);
        copy.variance = core.variances.share((*copy.variance).clone());
        copy.route = self.counters().route.clone();
        copy.upkeep = stored.upkeep.as_ref().map(|upkeep| upkeep.copied(core.spread(key, now)));
        copy.stamp.near_since = now.since(stored.received);
        if core.drops.unless_dropped(seen, || core.put_near(near, key, copy)).is_some() {
            count(&core.counters.tiers.promoted);
        }
    }

    /// The far store doesn't have it any more: neither has the near one.
    fn let_go(&self, core: &CacheCore, key: &CacheKey, stored: &StoredResponse) {
        if let Some(near) = self.near(core) {
            near.retain_now(key, |other| !is_same(other, stored));
        }
    }

    /// What a store answered; an error is counted, logged, and as if there were nothing.
    pub(super) fn note_store_error<T>(&self, answer: Result<T, StorageError>) -> Option<T> {
        answer
            .inspect_err(|error| {
                // What the store was spared, its guard has counted, and said once what is the matter.
                if !error.is_spared() {
                    let errors: &AtomicU64 = &self.counters().route.store_errors;
                    more(errors, 1);
                    tracing::warn!(target: "larder", cache = self.name(), %error, "the data cache goes on without its store");
                }
            })
            .ok()
    }
}

/// It is used now.
fn touch(stored: &StoredResponse, now: Moment) {
    if let Some(upkeep) = &stored.upkeep {
        upkeep.touch(now.since(stored.received));
    }
}
