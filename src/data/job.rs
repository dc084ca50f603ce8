//! [`Job`]: one load, for all who ask for the same: from the loader to the stores, and to those who wait.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use tracing::{Instrument, Span};

use super::DataCache;
use super::failures::Shared;
use super::loading::Answer;
use super::value::{Draft, Made};
use super::words::Wanted;
use crate::cache::CacheCore;
use crate::clock::Moment;
use crate::flight::Flight;
use crate::key::CacheKey;
use crate::response::{Stamp, StoredResponse};
use crate::stats::count;
use crate::used::{Scope, Sink, Used};

/// What a load brings to those who wait for it.
#[derive(Clone)]
pub(crate) enum Loaded {
    /// A value, or that there is none. Mostly it is stored; those who wait have it from here.
    Stored(Arc<StoredResponse>),
    /// There is no value, and that isn't remembered.
    Nothing,
    /// An error.
    Failed(Shared),
}

/// A load: what is loaded, and what it is held against purges and writes by that come meanwhile.
pub(super) struct Job {
    pub(super) cache: DataCache,
    pub(super) core: Arc<CacheCore>,
    pub(super) wanted: Wanted,
    pub(super) flight: Flight<Loaded>,
    /// By the number of the newest purge before it began.
    pub(super) stamp: Stamp,
}

/// An error, and whether what was found before the load is still what was there.
pub(super) struct Failure<E> {
    pub(super) error: Arc<E>,
    pub(super) is_sealed: bool,
}

impl Job {
    /// Where the tags come that the loader uses, which the value will bear; and in which scope it has to run for that.
    pub(super) fn gather(&self) -> (Arc<Used>, Scope) {
        let used = Arc::new(Used::new(&self.core.state));
        self.flight.gather_in(used.clone());
        let sink = self.core.settings.propagate_tags.then(|| Sink::Own(used.clone()));
        (used, Scope::of(sink))
    }

    /// Loads, stores what comes of it, and tells those who wait.
    pub(super) async fn run<A: Answer, E, L>(self, load: L) -> Result<A, Failure<E>>
    where
        E: Send + Sync + 'static,
        L: Future<Output = Result<A, E>>,
    {
        let span = self.span();
        self.flight.trace(&span);
        self.run_in(load).instrument(span).await
    }

    async fn run_in<A: Answer, E, L>(self, load: L) -> Result<A, Failure<E>>
    where
        E: Send + Sync + 'static,
        L: Future<Output = Result<A, E>>,
    {
        let began = self.core.now();
        count(&self.cache.counters().loads);
        let loaded = load.await;
        self.cache.counters().load_latency.record(self.core.now().monotonic.saturating_sub(began.monotonic));
        match loaded {
            Ok(answer) => {
                let draft = answer.value().map(|value| self.draft(value));
                self.keep(draft, answer.is_kept(), began).await;
                Ok(answer)
            }
            Err(error) => Err(self.fail(Arc::new(error), began)),
        }
    }

    fn span(&self) -> Span {
        tracing::debug_span!(target: "larder", "load", cache = self.cache.name(), outcome = tracing::field::Empty)
    }

    /// The bytes of what was loaded; `None` for what can't be stored.
    fn draft<T: Serialize>(&self, value: &T) -> Option<Draft> {
        let draft = self.cache.draft(value);
        draft.map_err(|error| tracing::warn!(target: "larder", cache = self.cache.name(), %error, "a value that was loaded isn't stored")).ok()
    }

    async fn keep(self, draft: Option<Option<Draft>>, is_kept: bool, began: Moment) {
        let made = match draft {
            Some(Some(draft)) => self.cache.make(&self.wanted, draft).await,
            Some(None) => return self.decline(),
            None => match self.cache.make_none(&self.wanted, self.stamp.number) {
                Some(made) => made,
                None => {
                    Span::current().record("outcome", "none");
                    return self.flight.give(Loaded::Nothing);
                }
            },
        };
        if is_kept { self.commit(made, began) } else { self.share(made, began) }
    }

    /// Nobody else can have it.
    fn decline(self) {
        Span::current().record("outcome", "declined");
        count(&self.cache.counters().declined);
        self.flight.decline();
    }

    /// Gives it to those who wait, and stores it nowhere.
    fn share(self, made: Made, began: Moment) {
        Span::current().record("outcome", "unwanted");
        let Self { cache, core, wanted, flight, stamp } = self;
        count(&cache.counters().declined);
        let stored = Arc::new(cache.stored(&core, &wanted.key, made, stamp.number, began));
        if flight.commit(|| core.is_valid(&stored, &wanted.key), || ()) {
            flight.give(Loaded::Stored(stored));
        }
    }

    /// Stores it, unless a write or a purge came meanwhile; then who waits asks anew.
    fn commit(self, made: Made, began: Moment) {
        let Self { cache, core, wanted, flight, stamp } = self;
        let mut stored = cache.stored(&core, &wanted.key, made, stamp.number, began);
        core.bear_all(&mut stored.stamp, flight.used());
        let stored = Arc::new(stored);
        let committed = cache.commit(&core, flight, &wanted.key, &stored);
        Span::current().record("outcome", if committed { "stored" } else { "purged" });
    }

    fn fail<E: Send + Sync + 'static>(self, error: Arc<E>, began: Moment) -> Failure<E> {
        Span::current().record("outcome", "error");
        count(&self.cache.counters().load_errors);
        if let Some(ttl) = self.wanted.words.error_ttl {
            let mut stamp = self.stamp.as_of(self.stamp.number);
            stamp.tags = self.cache.tags(&self.core, &self.wanted);
            self.core.bear_all(&mut stamp, self.flight.used());
            let remember = || self.core.data.failures.remember(&self.wanted.key, error.clone(), stamp, began, ttl);
            // Unless a write has ended it.
            self.flight.commit(|| true, remember);
        }
        let is_sealed = self.flight.is_sealed();
        self.flight.give(Loaded::Failed(error.clone()));
        Failure { error, is_sealed }
    }
}

impl DataCache {
    /// Stores what was loaded, unless a write or a purge touched it since the load began, or the cache has ended; and gives it to those who wait. In memory it is there when this
    /// returns, and in the far store behind that.
    pub(crate) fn commit(
        &self,
        core: &Arc<CacheCore>,
        flight: Flight<Loaded>,
        key: &CacheKey,
        stored: &Arc<StoredResponse>,
    ) -> bool {
        let flight = Arc::new(flight);
        let mut is_near = false;
        let is_committed = !core.abandon.is_cancelled()
            && flight.commit(|| core.is_valid(stored, key), || is_near = self.put_near(core, key, stored));
        if !is_committed {
            count(&self.counters().declined);
            return false;
        }
        core.data.failures.forget(key);
        if let Some(far) = core.far_for(key).cloned() {
            let (cache, key, stored, lent) = (self.clone(), key.clone(), stored.clone(), flight.lent());
            // Until a store has it, those who come have it from the flight.
            let until_stored = (!is_near).then(|| flight.clone());
            core.spawn(async move {
                let put = far.put(&key, stored, 1).await;
                if cache.note_store_error(put).is_some() {
                    lent.iter().for_each(|lent| lent.is_stored());
                }
                drop(until_stored);
            });
        }
        flight.give(Loaded::Stored(stored.clone()));
        true
    }
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stored(_) => "Stored",
            Self::Nothing => "Nothing",
            Self::Failed(_) => "Failed",
        })
    }
}
