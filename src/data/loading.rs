//! Values that are loaded where none is there: by one for all who ask, in this process and among those that share a store.
//!
//! ```text
//! find ─┬─ fresh ────────────────────> given
//!       ├─ stale, in its window ─────> given, and loaded anew behind that
//!       └─ nothing, or older ─> board ─┬─ lead ─┬─ stored meanwhile, here or by another instance ─> given
//!              ^                       │        └─ load ─> stored, and given to all who wait
//!              │                       └─ follow ─┬─ a value, or an error ─> shared
//!              └── again ─────────────────────────┤
//!                                                 └─ nobody else's, or too late: on its own
//! ```

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::job::{Failure, Job, Loaded};
use super::reading::{Found, Weight};
use super::value::Kind;
use super::words::Wanted;
use super::{DataCache, Entry};
use crate::background::NoPlace;
use crate::cache::CacheCore;
use crate::flight::{Bounds, Call, Flight, Follower, Landed, Seat};
use crate::handover::Handover;
use crate::key::CacheKey;
use crate::response::{Stamp, StoredResponse};
use crate::stats::count;
use crate::tiers::is_same;
use crate::used::UsedTags;

/// What a loader gives: a value in any case, or perhaps none.
pub(super) trait Answer: Send + Sized + 'static {
    type Value: Serialize + DeserializeOwned;

    /// The value, to be stored.
    fn value(&self) -> Option<&Self::Value>;

    /// The answer that is stored, if it can be given.
    fn of(stored: Option<Self::Value>) -> Option<Self>;

    /// Whether the application wants it stored.
    fn is_kept(&self) -> bool {
        true
    }
}

pub(super) struct Sure<T>(pub(super) T);

pub(super) struct Perhaps<T>(pub(super) Option<T>);

impl<T: Serialize + DeserializeOwned + Send + 'static> Answer for Sure<T> {
    type Value = T;

    fn value(&self) -> Option<&T> {
        Some(&self.0)
    }

    fn of(stored: Option<T>) -> Option<Self> {
        stored.map(Self)
    }
}

impl<T: Serialize + DeserializeOwned + Send + 'static> Answer for Perhaps<T> {
    type Value = T;

    fn value(&self) -> Option<&T> {
        self.0.as_ref()
    }

    fn of(stored: Option<T>) -> Option<Self> {
        Some(Self(stored))
    }
}

/// What there is for somebody who would load.
enum Look<A> {
    Fresh(A),
    /// It may be given while it is loaded anew.
    Soon(A, Arc<StoredResponse>),
    /// It has to be loaded; what there was may stand in for an error.
    Load(Option<Arc<StoredResponse>>),
}

/// What came of waiting for somebody else's load.
enum Followed<A, E> {
    Answer(A),
    Failed(Failure<E>),
    /// Nothing that is of use: once more from the beginning.
    Again,
    /// Nothing that ever will be.
    Alone,
}

impl Entry<'_> {
    pub(super) async fn load<A, E, F, L>(self, load: F) -> Result<A, Arc<E>>
    where
        A: Answer,
        E: Send + Sync + 'static,
        F: FnOnce() -> L + Send,
        L: Future<Output = Result<A, E>> + Send + 'static,
    {
        let Self { cache, wanted } = self;
        // Before anything is read; and whatever comes of it depends on what that is.
        let outer = UsedTags::current();
        cache.shape.tags.iter().chain(&wanted.tags).for_each(|tag| outer.add(tag));
        if let Some(answer) = cache.answer_near::<A>(&wanted, &outer) {
            return Ok(answer);
        }
        let mut is_noted = false;
        loop {
            let previous = match cache.look(&wanted).await {
                Look::Fresh(answer) => {
                    count(&cache.counters().hits);
                    return Ok(answer);
                }
                Look::Soon(answer, stored) => {
                    count(&cache.counters().stale);
                    cache.refresh(wanted, &stored, load);
                    return Ok(answer);
                }
                Look::Load(previous) => previous,
            };
            let core = cache.core();
            if let Some(error) = cache.remembered::<E>(&core, &wanted.key, core.now()) {
                return cache.in_its_place(&wanted, previous, Failure { error, is_sealed: false });
            }
            if !std::mem::replace(&mut is_noted, true) {
                count(&cache.counters().misses);
            }
            let (seat, stamp) = cache.board(&core, &wanted);
            let mut previous = previous.filter(|stored| cache.is_still_there(&core, &wanted.key, stored));
            let (flight, stamp) = match (seat, stamp) {
                (Seat::Lead(flight), stamp) => (flight, stamp),
                (Seat::Full, _) => cache.depart(&core, &wanted),
                (Seat::Follow(follower), _) => match cache.follow(&core, &wanted, follower, &outer).await {
                    Followed::Answer(answer) => return Ok(answer),
                    Followed::Failed(failure) => return cache.in_its_place(&wanted, previous, failure),
                    Followed::Again => continue,
                    Followed::Alone => {
                        let departed = cache.depart(&core, &wanted);
                        // What was written while it waited has sealed the other flight, and not this one.
                        previous = previous.filter(|stored| cache.is_still_there(&core, &wanted.key, stored));
                        departed
                    }
                },
            };
            let job = Job { cache: cache.clone(), core, wanted: wanted.clone(), flight, stamp };
            return match cache.lead(job, previous.as_ref(), load, &outer).await {
                Ok(answer) => Ok(answer),
                Err(failure) => cache.in_its_place(&wanted, previous, failure),
            };
        }
    }
}

impl DataCache {
    /// What is near and fresh.
    fn answer_near<A: Answer>(&self, wanted: &Wanted, used: &UsedTags) -> Option<A> {
        let answer = A::of(self.value_near(&wanted.key, used)?)?;
        count(&self.counters().hits);
        Some(answer)
    }

    async fn look<A: Answer>(&self, wanted: &Wanted) -> Look<A> {
        let found = self.find(&wanted.key).await;
        let Some(stored) = found.stored() else { return Look::Load(None) };
        // What is there can't be read, or says that there is none to somebody who wants one all the same.
        let Some(answer) = self.answer(stored) else { return Look::Load(None) };
        match &found {
            Found::Fresh(_) => Look::Fresh(answer),
            _ if self.may_revalidate(stored) => Look::Soon(answer, stored.clone()),
            _ => Look::Load(Some(stored.clone())),
        }
    }

    fn answer<A: Answer>(&self, stored: &StoredResponse) -> Option<A> {
        A::of(self.value(stored).ok()?)
    }

    fn may_revalidate(&self, stored: &StoredResponse) -> bool {
        let (terms, age) = (stored.current_terms(), stored.age(self.live.load().now()));
        terms.staleness(age) < terms.stale_while_revalidate
    }

    /// Joins the load that is on its way for the same, or begins one.
    fn board(&self, core: &CacheCore, wanted: &Wanted) -> (Seat<Loaded>, Stamp) {
        let stamp = core.purges.stamp(&wanted.key, core.purges.current());
        let now = core.now();
        // What others purged since it began isn't known while nothing is trusted.
        let trusted = core.coherence.is_trusted(now);
        let oldest = if trusted { Duration::MAX } else { core.settings.staleness_bound };
        // Those who wait are the application's own: to turn them away would only send them to its database.
        let bounds = Bounds { waiting: usize::MAX, age: core.settings.max_fill_age, oldest, joinable: true };
        let regime = self.regime(Kind::Value);
        let call = Call { regime, authorization: false, began: now, expected: None };
        let fits = |_: &Call, given: Option<&Loaded>| match given {
            None => true,
            Some(Loaded::Stored(stored)) => self.weigh(core, stored, &wanted.key, now) == Weight::Fresh,
            Some(Loaded::Nothing | Loaded::Failed(_)) => false,
        };
        let authority = core.groups.authority(None);
        let seat = core.loads.board(&stamp, &wanted.key, authority, call, bounds, fits);
        (seat, stamp)
    }

    /// Whether what was found is what there is, as of when the load was joined or begun: what is deleted later ends that. Where there is a far store, a number says so.
    fn is_still_there(&self, core: &CacheCore, key: &CacheKey, stored: &StoredResponse) -> bool {
        let near = self.near(core).filter(|_| core.far_for(key).is_none());
        near.is_none_or(|near| near.peek(key, |variants| variants.iter().any(|other| is_same(other, stored))))
    }

    /// On its own: nobody joins it.
    fn depart(&self, core: &CacheCore, wanted: &Wanted) -> (Flight<Loaded>, Stamp) {
        let stamp = core.purges.stamp(&wanted.key, core.purges.current());
        (core.loads.begin(&stamp, &wanted.key, core.groups.authority(None), None), stamp)
    }

    /// Loads, unless the value was stored between the look and now, or another instance does.
    async fn lead<A, E, F, L>(
        &self,
        mut job: Job,
        previous: Option<&Arc<StoredResponse>>,
        load: F,
        outer: &UsedTags,
    ) -> Result<A, Failure<E>>
    where
        A: Answer,
        E: Send + Sync + 'static,
        F: FnOnce() -> L + Send,
        L: Future<Output = Result<A, E>> + Send + 'static,
    {
        if job.flight.is_joinable()
            && let Found::Fresh(stored) = self.find_near(&job.core, &job.wanted.key, job.core.now())
            && let Some(answer) = self.answer(&stored)
        {
            job.flight.again();
            return Ok(answer);
        }
        if let Some(stored) = job.take_turn(previous).await
            && let Some(answer) = self.answer(&stored)
        {
            count(&self.counters().collapsed);
            return Ok(answer);
        }
        let (used, scope) = job.gather();
        let loaded = Handover::new(job.core.clone(), job.run(scope.around_made(load))).await;
        outer.add_made(&used);
        loaded
    }

    /// Waits for somebody else's load.
    async fn follow<A: Answer, E: Send + Sync + 'static>(
        &self,
        core: &CacheCore,
        wanted: &Wanted,
        follower: Follower<Loaded>,
        outer: &UsedTags,
    ) -> Followed<A, E> {
        let landed = if tokio::runtime::Handle::try_current().is_ok() {
            let landed = tokio::time::timeout(core.settings.max_wait, follower.landed()).await;
            landed.inspect_err(|_| count(&core.counters.waits_timed_out)).ok()
        } else {
            // Nobody to tell the time; a timer would panic.
            Some(follower.landed().await)
        };
        follower.used().into_iter().for_each(|used| outer.add_made(used));
        let answer = match landed {
            Some(Landed::Given(Loaded::Stored(stored))) => self.answer(&stored),
            Some(Landed::Given(Loaded::Nothing)) => A::of(None),
            Some(Landed::Given(Loaded::Failed(error))) => {
                let is_sealed = follower.is_sealed();
                // Of another type, it is another loader's.
                let error = error.downcast().ok();
                return error.map_or(Followed::Alone, |error| Followed::Failed(Failure { error, is_sealed }));
            }
            Some(Landed::Failed | Landed::Again) => return Followed::Again,
            Some(Landed::Alone) | None => None,
        };
        let Some(answer) = answer else { return Followed::Alone };
        tracing::trace!(target: "larder", cache = self.name(), key = ?wanted.key, "another one's load brought it");
        count(&self.counters().collapsed);
        Followed::Answer(answer)
    }

    /// What there was before, where it may stand in for an error; else the error.
    fn in_its_place<A: Answer, E>(
        &self,
        wanted: &Wanted,
        previous: Option<Arc<StoredResponse>>,
        failure: Failure<E>,
    ) -> Result<A, Arc<E>> {
        let core = self.live.load();
        let now = core.now();
        let may_stand_in = |stored: &Arc<StoredResponse>| {
            let terms = stored.current_terms();
            // A write bears no number that would speak against what was found before it.
            !failure.is_sealed
                && matches!(self.weigh(&core, stored, &wanted.key, now), Weight::Fresh | Weight::Stale)
                && terms.staleness(stored.age(now)) < terms.stale_if_error
        };
        let answer = previous.filter(may_stand_in).and_then(|stored| self.answer(&stored));
        answer.inspect(|_| count(&self.counters().stood_in)).ok_or(failure.error)
    }

    /// Loads behind an answer, unless somebody does already, or too much is done so.
    fn refresh<A, E, F, L>(&self, wanted: Wanted, stored: &Arc<StoredResponse>, load: F)
    where
        A: Answer,
        E: Send + Sync + 'static,
        F: FnOnce() -> L + Send,
        L: Future<Output = Result<A, E>> + Send + 'static,
    {
        let core = self.core();
        if core.is_closing() {
            return;
        }
        let id = core.hasher.hash_one(wanted.key.as_bytes());
        let place = match core.background.begin(Some(id), core.settings.max_refreshes) {
            Ok(place) => place,
            Err(NoPlace::Running) => return,
            Err(NoPlace::TooMany) => return count(&core.counters.refreshes_refused),
        };
        let (Seat::Lead(flight), stamp) = self.board(&core, &wanted) else { return };
        // Somebody has been faster.
        if let Found::Fresh(_) = self.find_near(&core, &wanted.key, core.now()) {
            return flight.again();
        }
        count(&self.counters().refreshes);
        let mut job = Job { cache: self.clone(), core: core.clone(), wanted, flight, stamp };
        let (_, scope) = job.gather();
        let (stored, loading) = (stored.clone(), scope.around_made(load));
        core.refresh(place, async move {
            if job.take_turn(Some(&stored)).await.is_none() {
                _ = job.run(loading).await;
            }
        });
    }
}
