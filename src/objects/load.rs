//! [`Load`]: what a look comes to that isn't a plain hit. One of those who ask calls its loader, and the others wait for what that brings.

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::timeout;
use tracing::{Instrument, debug_span};

use super::entry::{KeepIf, Words};
use super::held::{Held, Loaded, Terms, Use};
use super::key::ObjectKey;
use super::shelf::Shelf;
use super::stats::add;
use crate::background::NoPlace;
use crate::clock::Moment;
use crate::flight::{Bounds, Call, Flight, Follower, Landed, Seat};
use crate::handover::Handover;
use crate::regime::Regime;
use crate::response::Stamp;
use crate::stats::count;
use crate::used::{Scope, Sink, Used, UsedTags};

/// After so many loads that brought nothing, each calls its own loader.
const PATIENCE: u32 = 4;

type Answer<V, E> = Result<Option<Arc<V>>, Arc<E>>;
type Flown<K, V> = Flight<Loaded<V>, ObjectKey<K>>;

/// A look, with all that it needs to load.
pub(super) struct Load<K, V> {
    pub(super) shelf: Arc<Shelf<K, V>>,
    pub(super) key: K,
    pub(super) words: Words,
    pub(super) keep_if: Option<KeepIf<V>>,
    /// It may be told that there is nothing.
    pub(super) takes_none: bool,
}

/// What was found.
enum Found<V, E> {
    /// It goes out.
    Answer(Answer<V, E>),
    /// It goes out, and is loaded anew.
    Stale(Arc<V>),
    Nothing,
}

/// Where a look finds itself.
enum Turn<K, V, E> {
    /// Since when.
    Lead(Flown<K, V>, Stamp, Moment),
    Done(Answer<V, E>),
}

impl<K, V> Load<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    pub(super) async fn run<E, F, L>(self, load: F) -> Answer<V, E>
    where
        E: Send + Sync + 'static,
        F: FnOnce() -> L + Send,
        L: Future<Output = Result<Option<V>, E>> + Send + 'static,
    {
        let now = self.shelf.now();
        match self.look::<E>(true, now) {
            Found::Answer(answer) => answer,
            Found::Stale(value) => {
                self.refresh(load);
                Ok(Some(value))
            }
            Found::Nothing => {
                self.begun(now).await;
                // Before anything is read.
                let outer = UsedTags::current();
                self.words.tags.iter().for_each(|tag| outer.add(tag));
                self.load(load, &outer).await
            }
        }
    }

    /// What is loaded before the log of other instances was heard for the first time counts as purged: where that is about to come, it is waited for.
    async fn begun(&self, now: Moment) {
        let coherence = &self.shelf.state.coherence;
        if !coherence.is_trusted(now) {
            self.shelf.live.keep_coherent();
            if coherence.is_beginning() {
                coherence.begun().await;
            }
        }
    }

    async fn load<E, F, L>(self, load: F, outer: &UsedTags) -> Answer<V, E>
    where
        E: Send + Sync + 'static,
        F: FnOnce() -> L + Send,
        L: Future<Output = Result<Option<V>, E>> + Send + 'static,
    {
        match self.turn(outer).await {
            Turn::Done(answer) => answer,
            Turn::Lead(flight, stamp, began) => {
                // Somebody else's may have ended between the look and the departure.
                if let Found::Answer(answer) = self.look(false, began) {
                    flight.again();
                    return answer;
                }
                let (core, (used, scope)) = (self.shelf.core(), self.gather(&flight));
                let loading = scope.clone().around_made(load);
                // In it as well: what stands in for an error brings its tags to all who wait.
                let answer = Handover::new(core, scope.around(self.lead(flight, stamp, began, loading))).await;
                outer.add_made(&used);
                answer
            }
        }
    }

    /// Where the tags come that the loader uses, which its value will bear; and in which scope it has to run for that.
    fn gather(&self, flight: &Flown<K, V>) -> (Arc<Used>, Scope) {
        let used = Arc::new(Used::new(&self.shelf.state));
        flight.gather_in(used.clone());
        let sink = self.shelf.live.load().settings.propagate_tags.then(|| Sink::Own(used.clone()));
        (used, Scope::of(sink))
    }

    /// What is held may be used as it is, as stale, or not. What is found by who looks again isn't counted.
    fn look<E: Send + Sync + 'static>(&self, first: bool, now: Moment) -> Found<V, E> {
        let counts = &self.shelf.counts;
        let found = match self.shelf.find(&self.key, now) {
            None | Some((_, Use::Over)) => Found::Nothing,
            Some((held, Use::Fresh)) => self.answer(&held.loaded).map_or(Found::Nothing, Found::Answer),
            Some((held, may)) => match &held.loaded {
                Loaded::Value(value) if held.is_resting(now) => {
                    add(&counts.stood_in);
                    return Found::Answer(Ok(Some(value.clone())));
                }
                Loaded::Value(value) if may == Use::Stale => Found::Stale(value.clone()),
                _ => Found::Nothing,
            },
        };
        if first {
            match &found {
                Found::Answer(_) => counts.hit(),
                Found::Stale(_) => add(&counts.stale),
                Found::Nothing => counts.miss(),
            }
        }
        found
    }

    /// What was loaded as an answer; `None` where it is none to this call.
    fn answer<E: Send + Sync + 'static>(&self, loaded: &Loaded<V>) -> Option<Answer<V, E>> {
        match loaded {
            Loaded::Value(value) => Some(Ok(Some(value.clone()))),
            Loaded::Nothing => self.takes_none.then_some(Ok(None)),
            Loaded::Failed(error) => error.clone().downcast().ok().map(Err),
        }
    }

    /// Leads, or waits for what another one brings.
    async fn turn<E: Send + Sync + 'static>(&self, outer: &UsedTags) -> Turn<K, V, E> {
        let mut failures = 0;
        loop {
            // Before the loader is called: what is purged from now on isn't what it brings.
            let stamp = self.shelf.stamp(&self.key);
            let now = self.shelf.now();
            let follower = match self.board(&stamp, now, failures < PATIENCE) {
                Seat::Lead(flight) => return Turn::Lead(flight, stamp, now),
                Seat::Follow(follower) => follower,
                Seat::Full => {
                    failures = PATIENCE;
                    continue;
                }
            };
            if failures == 0 {
                add(&self.shelf.counts.collapsed);
            }
            let landed = self.wait(&follower).await;
            follower.used().into_iter().for_each(|used| outer.add_made(used));
            match landed {
                Some(Landed::Given(loaded)) => match self.answer(&loaded) {
                    Some(answer) => return Turn::Done(answer),
                    None => failures = PATIENCE,
                },
                Some(Landed::Again) => match self.look(false, self.shelf.now()) {
                    Found::Answer(answer) => return Turn::Done(answer),
                    Found::Stale(value) => return Turn::Done(Ok(Some(value))),
                    Found::Nothing => failures += 1,
                },
                Some(Landed::Failed) => failures += 1,
                Some(Landed::Alone) | None => failures = PATIENCE,
            }
        }
    }

    fn board(&self, stamp: &Stamp, now: Moment, joins: bool) -> Seat<Loaded<V>, ObjectKey<K>> {
        let shelf = &self.shelf;
        let key = ObjectKey { key: self.key.clone(), place: shelf.place.clone() };
        if !joins {
            return Seat::Lead(shelf.flights.begin(stamp, &key, 0, None));
        }
        let call = Call { regime: Regime::default(), authorization: false, began: now, expected: None };
        let core = shelf.live.load();
        let settings = &core.settings;
        // What others purged since it began isn't known while nothing is trusted.
        let oldest = if core.coherence.is_trusted(now) { Duration::MAX } else { settings.staleness_bound };
        let (waiting, age) = (settings.max_waiting, settings.max_fill_age);
        shelf.flights.board(stamp, &key, 0, call, Bounds { waiting, age, oldest, joinable: true }, |_, _| true)
    }

    /// `None` if it takes too long.
    async fn wait(&self, follower: &Follower<Loaded<V>, ObjectKey<K>>) -> Option<Landed<Loaded<V>>> {
        if Handle::try_current().is_err() {
            // Nobody counts the time.
            return Some(follower.landed().await);
        }
        let longest = self.shelf.live.load().settings.max_wait;
        timeout(longest, follower.landed()).await.ok()
    }

    /// Loads, keeps what that brings, and tells those who wait.
    async fn lead<E, L>(self, flight: Flown<K, V>, stamp: Stamp, began: Moment, load: L) -> Answer<V, E>
    where
        E: Send + Sync + 'static,
        L: Future<Output = Result<Option<V>, E>> + Send + 'static,
    {
        add(&self.shelf.counts.loads);
        let span = debug_span!(target: "larder", "load", cache = self.shelf.place.name());
        let loaded = load.instrument(span).await;
        match loaded {
            Ok(Some(value)) => Ok(Some(self.bring(flight, stamp, began, value))),
            Ok(None) => {
                self.land(flight, stamp, began, Loaded::Nothing, self.words.none_ttl);
                Ok(None)
            }
            Err(error) => self.fail(flight, stamp, began, error),
        }
    }

    fn bring(mut self, flight: Flown<K, V>, stamp: Stamp, began: Moment, value: V) -> Arc<V> {
        let value = Arc::new(value);
        let is_wanted = self.keep_if.take().is_none_or(|wanted| wanted(&value));
        let lifetime = Some(self.words.terms.lifetime).filter(|_| is_wanted);
        self.land(flight, stamp, began, Loaded::Value(value.clone()), lifetime);
        value
    }

    fn fail<E: Send + Sync + 'static>(
        self,
        flight: Flown<K, V>,
        stamp: Stamp,
        began: Moment,
        error: E,
    ) -> Answer<V, E> {
        add(&self.shelf.counts.failures);
        let now = self.shelf.now();
        if let Some(value) = self.stand_in(now) {
            add(&self.shelf.counts.stood_in);
            flight.give(Loaded::Value(value.clone()));
            return Ok(Some(value));
        }
        let error = Arc::new(error);
        self.land(flight, stamp, began, Loaded::Failed(error.clone()), self.words.error_ttl);
        Err(error)
    }

    /// What may be given in the place of an error, and now is for a while.
    fn stand_in(&self, now: Moment) -> Option<Arc<V>> {
        let (held, _) = self.shelf.find(&self.key, now).filter(|(_, may)| *may != Use::Over)?;
        let Loaded::Value(value) = &held.loaded else { return None };
        self.words.error_ttl.iter().for_each(|pause| held.rest(now, *pause));
        Some(value.clone())
    }

    /// Keeps what was loaded for so long, if for any time, and gives it to those who wait; unless a write came meanwhile, or a purge that touches it. Then they ask anew.
    fn land(
        &self,
        flight: Flown<K, V>,
        mut stamp: Stamp,
        began: Moment,
        loaded: Loaded<V>,
        lifetime: Option<Duration>,
    ) {
        stamp.tags = self.words.tags(&self.shelf.state);
        self.shelf.core().bear_all(&mut stamp, flight.used());
        flight.know_tags(stamp.tags.clone());
        let (is_value, lifetime) = (matches!(loaded, Loaded::Value(_)), lifetime.unwrap_or_default());
        // What isn't there stands in for nothing.
        let windows = if is_value { self.words.terms } else { Terms::default() };
        let held = Arc::new(Held::new(loaded.clone(), began, Terms { lifetime, ..windows }, stamp));
        let keeps = !lifetime.is_zero();
        let put = || {
            if keeps {
                self.shelf.put(self.key.clone(), held.clone());
            }
        };
        let is_good = flight.commit(|| self.shelf.is_valid(&held), put);
        if !is_good || is_value && !keeps {
            add(&self.shelf.counts.declined);
        }
        if is_good { flight.give(loaded) } else { flight.again() }
    }

    /// Loads behind what is stale; once at a time.
    fn refresh<E, F, L>(self, load: F)
    where
        E: Send + Sync + 'static,
        F: FnOnce() -> L + Send,
        L: Future<Output = Result<Option<V>, E>> + Send + 'static,
    {
        let core = self.shelf.core();
        if core.is_closing() {
            return;
        }
        let id = core.hasher.hash_one((self.shelf.place.hash, &self.key));
        let place = match core.background.begin(Some(id), core.settings.max_refreshes) {
            Ok(place) => place,
            Err(NoPlace::Running) => return,
            Err(NoPlace::TooMany) => return count(&core.counters.refreshes_refused),
        };
        let stamp = self.shelf.stamp(&self.key);
        let now = self.shelf.now();
        let Seat::Lead(flight) = self.board(&stamp, now, true) else { return };
        // Somebody has been faster.
        if let Found::Answer::<V, E>(_) = self.look(false, now) {
            return flight.again();
        }
        let (_, scope) = self.gather(&flight);
        let loading = scope.clone().around_made(load);
        core.refresh(place, async move {
            let began = self.shelf.now();
            drop(scope.around(self.lead(flight, stamp, began, loading)).await);
        });
    }
}
