//! [`CacheCore`]: what all clones of a layer share, and the three things done with it: look up, commit, invalidate.

use std::borrow::Borrow;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use http::HeaderMap;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::Ask;
use crate::adoption::{NotAdopted, adopt};
use crate::background::Background;
use crate::behind::Behind;
use crate::boarding::Given;
use crate::budget::FillBudget;
use crate::clock::Moment;
use crate::coder::Coders;
use crate::description::regime;
use crate::error::StorageError;
use crate::fates::{Became, Fates};
use crate::flight::{Flight, Flights};
use crate::groups::Groups;
use crate::head::SharedHeads;
use crate::hit_for_miss::HitForMiss;
use crate::hit_status::HitStatus;
use crate::key::{CacheKey, QueryRule};
use crate::ledger::Ledger;
use crate::lookup::{Lookup, weigh};
use crate::outcome::ForwardReason;
use crate::partition::{MakeRoom, Partitions};
use crate::pieces::Pieces;
use crate::policy::Policy;
use crate::purge::PurgeIndex;
use crate::report::Observations;
use crate::response::{Stamp, StoredResponse};
use crate::rfc9111::storability::DeclineReason;
use crate::rfc9111::vary::{Matching, prefers_language};
use crate::rules::Rules;
use crate::search::Searches;
use crate::settings::Settings;
use crate::stats::{Counters, count};
use crate::storage::Variants;
use crate::storage::backend::Backend;
use crate::sweep::Sweeper;
use crate::tally::{RouteCounters, more};
use crate::through::Through;
use crate::variance::SharedVariances;
use crate::wholes::Wholes;

/// A cache as it is set up now, over the state that stays when it is set up anew. Each request keeps the one that it began with, so that it sees
/// the old settings or the new ones, and never some of both.
pub(crate) struct CacheCore {
    pub(crate) settings: Settings,
    pub(crate) rules: Rules,
    pub(crate) hit_status: Arc<HitStatus>,
    /// Counts how often the cache was set up anew.
    pub(crate) generation: u64,
    /// How queries were keyed by earlier generations, whose entries and fills may still be around.
    pub(crate) retired: Vec<QueryRule>,
    pub(crate) state: Arc<State>,
}

/// What all generations of a cache share.
pub(crate) struct State {
    /// Tells its layers from those of other caches.
    pub(crate) mark: u64,
    /// Keys the digests of principals; new for every process.
    pub(crate) secret: [u8; 32],
    pub(crate) counters: Counters,
    pub(crate) ledger: Ledger,
    pub(crate) fates: Arc<Fates>,
    pub(crate) purges: PurgeIndex,
    pub(crate) sweeper: Sweeper,
    pub(crate) groups: Groups,
    pub(crate) searches: Searches,
    pub(crate) wholes: Wholes,
    pub(crate) flights: Arc<Flights<Given>>,
    pub(crate) hit_for_miss: HitForMiss,
    pub(crate) pieces: Pieces,
    pub(crate) behind: Arc<Behind>,
    pub(crate) partitions: Arc<Partitions>,
    pub(crate) budget: FillBudget,
    pub(crate) coders: Coders,
    pub(crate) heads: SharedHeads,
    pub(crate) variances: SharedVariances,
    pub(crate) tasks: TaskTracker,
    /// Cancelled when a shutdown's deadline is over.
    pub(crate) abandon: CancellationToken,
    pub(crate) closing: AtomicBool,
    /// Cancelled when a shutdown begins, for tasks that wait for work.
    pub(crate) closed: CancellationToken,
    /// The way of the cache's own requests, if the application gave one.
    pub(crate) through: Mutex<Option<Through>>,
    /// Some stored key has more than its resource, so a write has to reach keys that it can't name.
    pub(crate) keys_have_additions: AtomicBool,
    pub(crate) background: Arc<Background>,
    pub(crate) hasher: ahash::RandomState,
    pub(crate) observations: Observations,
}

/// More ways to key a query than any sequence of settings has that makes sense.
const MOST_RETIRED: usize = 64;

impl Deref for CacheCore {
    type Target = State;

    #[inline]
    fn deref(&self) -> &State {
        &self.state
    }
}

fn rules(settings: &Settings, ledger: &Ledger) -> Rules {
    let rules = Rules::new(&settings.rules, settings.otherwise.clone());
    rules.under(|policy| regime(policy, settings)).counting_in(ledger)
}

fn queries_of<'a>((pattern, policy): (Option<&'a str>, &'a Policy)) -> (Option<&'a str>, &'a QueryRule) {
    (pattern, &policy.query)
}

impl CacheCore {
    pub(crate) fn new(mut settings: Settings) -> Self {
        let fates = Arc::new(Fates::new(settings.clock.clone()));
        settings.backend = settings.backend.of_its_own(&fates);
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let mut secret = [0; 32];
        // A machine without randomness: a process that can't have a secret key must not pretend to have one.
        getrandom::fill(&mut secret).expect("the operating system provides random numbers");
        let state = Arc::new(State {
            mark: NEXT.fetch_add(1, Ordering::Relaxed),
            secret,
            counters: Counters::default(),
            ledger: Ledger::default(),
            fates,
            purges: PurgeIndex::default(),
            sweeper: Sweeper::default(),
            groups: Groups::default(),
            searches: Searches::default(),
            wholes: Wholes::default(),
            flights: Arc::default(),
            hit_for_miss: HitForMiss::default(),
            pieces: Pieces::default(),
            behind: Arc::default(),
            partitions: Arc::default(),
            budget: FillBudget::default(),
            coders: Coders::default(),
            heads: SharedHeads::default(),
            variances: SharedVariances::default(),
            tasks: TaskTracker::new(),
            abandon: CancellationToken::new(),
            closing: AtomicBool::new(false),
            closed: CancellationToken::new(),
            through: Mutex::default(),
            keys_have_additions: AtomicBool::new(false),
            background: Arc::default(),
            hasher: ahash::RandomState::new(),
            observations: Observations::default(),
        });
        let hit_status = Arc::new(HitStatus::of(&settings.switches.name));
        Self { rules: rules(&settings, &state.ledger), settings, hit_status, generation: 0, retired: Vec::new(), state }
    }

    /// The next generation, with the same store and clock, and the state that lasts.
    pub(crate) fn succeeded_by(&self, mut settings: Settings) -> Self {
        settings.backend = self.settings.backend.clone();
        settings.clock = self.settings.clock.clone();
        let (rules, state) = (rules(&settings, &self.ledger), self.state.clone());
        let retired = self.retired_for(&rules);
        let known = self.hit_status.name() == settings.switches.name;
        let hit_status = if known { self.hit_status.clone() } else { Arc::new(HitStatus::of(&settings.switches.name)) };
        Self { settings, rules, hit_status, generation: self.generation + 1, retired, state }
    }

    /// The ways to key a query that entries may have and the rules of the next generation don't account for.
    fn retired_for(&self, next: &Rules) -> Vec<QueryRule> {
        // When they were too many, all that was stored under them was purged.
        let mut retired = if self.has_too_many_retired() { Vec::new() } else { self.retired.clone() };
        let same = self.rules.all().map(queries_of).eq(next.all().map(queries_of));
        let first = &self.rules.get(None).policy.query;
        let one_for_all = self.rules.all().chain(next.all()).all(|(_, policy)| policy.query == *first);
        if !same && !one_for_all {
            for (_, policy) in self.rules.all() {
                if !retired.contains(&policy.query) {
                    retired.push(policy.query.clone());
                }
            }
        }
        retired
    }

    /// Whether so many ways to key a query have been in use that nobody should try them all on every write. Then all that was stored has to
    /// go, and the next generation forgets them.
    pub(crate) fn has_too_many_retired(&self) -> bool {
        self.retired.len() > MOST_RETIRED
    }

    pub(crate) fn now(&self) -> Moment {
        self.settings.clock.now()
    }

    /// A number by which responses that arrive together are told apart, so that they don't end together; the same for the same response.
    pub(crate) fn spread(&self, key: &CacheKey, received: Moment) -> u64 {
        self.hasher.hash_one((key.as_bytes(), received.monotonic))
    }

    /// Chooses among the variants of a key and says what may be done with the choice (RFC 9111 §4).
    pub(crate) fn choose<'v, R: Borrow<StoredResponse>>(
        &self,
        variants: &'v [R],
        ask: &Ask,
        headers: &HeaderMap,
        now: Moment,
    ) -> Lookup<&'v R> {
        match self.select(variants, &ask.key, headers) {
            Err(why) => Lookup::Miss(why),
            Ok(chosen) if chosen.borrow().regime != ask.regime => Lookup::Earlier(chosen),
            Ok(chosen) => weigh(chosen, chosen.borrow(), ask, now),
        }
    }

    /// The variant of a key that is meant (RFC 9111 §4.1), or why there is none.
    pub(crate) fn select<'v, R: Borrow<StoredResponse>>(
        &self,
        variants: &'v [R],
        key: &CacheKey,
        headers: &HeaderMap,
    ) -> Result<&'v R, ForwardReason> {
        let mut valid = variants.iter().filter(|stored| self.is_valid(R::borrow(stored), key)).peekable();
        if valid.peek().is_none() {
            return Err(ForwardReason::UriMiss);
        }
        valid.find(|stored| self.matches(R::borrow(stored), headers)).ok_or(ForwardReason::VaryMiss)
    }

    /// What may be done with a response that was stored under earlier settings, or why it isn't there for those of now.
    #[cold]
    pub(crate) fn weigh_earlier(&self, stored: &StoredResponse, ask: &Ask, now: Moment) -> Result<Lookup, NotAdopted> {
        adopt(stored, ask, self).map(|adopted| weigh(adopted.clone(), &adopted, ask, now))
    }

    /// Whether no hard purge touches what is stored, or was, under `key`. As of now it is as stale as soft ones made it.
    #[inline]
    pub(crate) fn is_valid(&self, stored: &StoredResponse, key: &CacheKey) -> bool {
        self.purges.is_valid(&stored.stamp, stored.received, key)
    }

    pub(crate) fn matches(&self, stored: &StoredResponse, request: &HeaderMap) -> bool {
        if stored.variance.fields.is_empty() {
            return true;
        }
        let matching = self.settings.matching;
        stored.variance.matches(request, matching)
            || matching == Matching::Letter && self.speaks_preferred_language(stored, request)
    }

    fn speaks_preferred_language(&self, stored: &StoredResponse, request: &HeaderMap) -> bool {
        let only_language = stored.variance.fields.as_slice() == [http::header::ACCEPT_LANGUAGE];
        let language = stored.head.get(&http::header::CONTENT_LANGUAGE);
        only_language && language.is_some_and(|language| prefers_language(request, language.as_bytes()))
    }

    /// Stores a response, unless a purge touched it or the cache has ended, and gives it to the followers. In memory it is there when this returns. `confirmed` is what the response whose content
    /// it has is held against purges by, where a handler confirmed that.
    pub(crate) fn commit(
        self: &Arc<Self>,
        flight: Flight<Given>,
        key: &CacheKey,
        response: &Arc<StoredResponse>,
        confirmed: Option<&Stamp>,
    ) -> Result<(), DeclineReason> {
        let flight = Arc::new(flight);
        let committed = self.put(&flight, key, response, confirmed);
        match committed {
            Ok(()) => flight.give(Given::Stored(response.clone())),
            // Dropped, it has failed: one of those who wait asks anew.
            Err(DeclineReason::Purged) => {}
            Err(_) => flight.decline(),
        }
        committed
    }

    /// Whether no hard purge touched what `response` confirms, since the handler was asked; a soft one marks it.
    fn still_holds(&self, confirmed: &Stamp, response: &StoredResponse, key: &CacheKey) -> bool {
        let is_valid = self.purges.is_valid(confirmed, response.received, key);
        // What was held against purges is what it was: the mark says nothing about them.
        response.stamp.hold(confirmed.stale_from(), response.stamp.verified());
        is_valid
    }

    fn put(
        self: &Arc<Self>,
        flight: &Arc<Flight<Given>>,
        key: &CacheKey,
        response: &Arc<StoredResponse>,
        confirmed: Option<&Stamp>,
    ) -> Result<(), DeclineReason> {
        if self.abandon.is_cancelled() {
            return Err(DeclineReason::Shutdown);
        }
        if response.charge.as_ref().is_some_and(|charge| weight(key, response) > charge.quota.bytes) {
            // What it was to take the place of isn't good any more.
            self.drop_key(key);
            return Err(DeclineReason::PartitionQuota);
        }
        if key.has_additions() {
            self.keys_have_additions.store(true, Ordering::Release);
        }
        let most = self.settings.max_variants;
        let is_valid =
            || self.is_valid(response, key) && confirmed.is_none_or(|stamp| self.still_holds(stamp, response, key));
        let committed = match &self.settings.backend {
            Backend::Memory(memory) => flight.commit(is_valid, || {
                self.fates.note_stored(key, response.stamp.number);
                memory.put_now(key, response, most);
                let numbers = |variants: &[StoredResponse]| {
                    variants.iter().filter_map(|variant| Some(variant.charge.as_ref()?.number)).collect()
                };
                let room = self.keep_quota(key, response, || Some(memory.read(key, numbers)));
                for oldest in &room.oldest {
                    memory.remove_now(oldest);
                }
                if room.other_variants {
                    memory.remove_now(key);
                    self.fates.note_stored(key, response.stamp.number);
                    memory.put_now(key, response, most);
                }
            }),
            // A purge that comes while the store is at work has a larger number than this response, so that it is never read.
            Backend::Other(other) => flight.commit(is_valid, || {
                let (cache, other, key, response) = (self.clone(), other.clone(), key.clone(), response.clone());
                // Until the store has it, those who come have it from the flight.
                let until_stored = flight.clone();
                self.spawn(async move {
                    let _until_stored = until_stored;
                    cache.fates.note_stored(&key, response.stamp.number);
                    let put = other.put(&key, response.clone(), most).await;
                    cache.note_store_error(put, &key);
                    let mut room = cache.keep_quota(&key, &response, || None);
                    // Erased while the store was at work: it is never read, but it must go as well.
                    if response.charge.is_some() && !cache.is_valid(&response, &key) {
                        room.oldest.push(key.clone());
                    }
                    for key in room.oldest.iter().chain(room.other_variants.then_some(&key)) {
                        let removed = other.remove(key).await;
                        cache.note_store_error(removed, key);
                    }
                });
            }),
        };
        committed.then_some(()).ok_or(DeclineReason::Purged)
    }

    /// Accounts a response that was stored for its principal, and says what has to leave so that the quota is kept. `stored` is as for
    /// [`Partitions::enter`].
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

    /// An answer was stored, or not: counted, and remembered of its key.
    pub(crate) fn note_stored(&self, route: &RouteCounters, key: &CacheKey, result: Result<(), DeclineReason>) {
        route.stored(result);
        if let Err(reason) = result {
            self.fates.note(key.as_bytes(), Became::Declined(reason));
        }
    }

    /// What a store answered; an error is counted, logged, and as if there were nothing.
    pub(crate) fn variants_or_none(&self, answer: Result<Variants, StorageError>, key: &CacheKey) -> Variants {
        self.note_store_error(answer, key).unwrap_or_default()
    }

    pub(crate) fn note_store_error<T>(&self, answer: Result<T, StorageError>, key: &CacheKey) -> Option<T> {
        answer
            .inspect_err(|error| {
                let path = String::from_utf8_lossy(key.path());
                more(&self.rules.route(&path).counters.store_errors, 1);
                tracing::warn!(%error, "the cache goes on without its store for this request");
            })
            .ok()
    }
}

/// What a stored response counts against a quota.
pub(crate) fn weight(key: &CacheKey, response: &StoredResponse) -> u64 {
    (key.as_bytes().len() + response.size()) as u64
}
