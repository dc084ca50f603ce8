//! [`CacheCore`]: what all clones of a layer share, and how it finds what is meant among what is stored.

use std::borrow::Borrow;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use http::HeaderMap;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::admission::Ask;
use crate::adoption::{NotAdopted, adopt};
use crate::background::Background;
use crate::behind::Behind;
use crate::boarding::Given;
use crate::budget::FillBudget;
use crate::clock::Moment;
use crate::coder::Coders;
use crate::coherence::Coherence;
#[cfg(feature = "data")]
use crate::data::{Data, Loaded};
use crate::description::regime;
use crate::drops::Drops;
use crate::error::StorageError;
use crate::fates::{Became, Fates};
use crate::flight::Flights;
use crate::groups::Groups;
use crate::head::SharedHeads;
use crate::hit_for_miss::HitForMiss;
use crate::hit_status::HitStatus;
use crate::key::CacheKey;
use crate::ledger::Ledger;
use crate::lookup::{Lookup, weigh};
use crate::naming::Naming;
use crate::outcome::ForwardReason;
use crate::partition::Partitions;
use crate::pieces::Pieces;
use crate::policy::Policy;
use crate::purge::PurgeIndex;
use crate::query_rule::QueryRule;
use crate::report::Observations;
use crate::response::StoredResponse;
use crate::rfc9111::storability::DeclineReason;
use crate::rfc9111::vary::{Matching, prefers_language};
use crate::rules::Rules;
use crate::search::Searches;
use crate::settings::Settings;
use crate::shared_reads::SharedReads;
use crate::shelves::Shelves;
use crate::stats::Counters;
use crate::sweep::Sweeper;
use crate::tally::{RouteCounters, more};
use crate::target::Target;
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
    /// Keys the digests of principals; new for every process unless the application gave one.
    pub(crate) secret: [u8; 32],
    /// What is for one principal may lie in the far store: others that share it make the same digests, or nobody shares it.
    pub(crate) shares_partitions: bool,
    pub(crate) counters: Counters,
    pub(crate) ledger: Ledger,
    pub(crate) fates: Arc<Fates>,
    pub(crate) purges: PurgeIndex,
    pub(crate) coherence: Arc<Coherence>,
    /// Ends the task that listens to the log.
    pub(crate) _end: DropGuard,
    pub(crate) sweeper: Sweeper,
    pub(crate) groups: Groups,
    pub(crate) searches: Searches,
    pub(crate) wholes: Wholes,
    pub(crate) flights: Arc<Flights<Given>>,
    /// What else is purged with what is stored.
    pub(crate) shelves: Shelves,
    /// Values on their way.
    #[cfg(feature = "data")]
    pub(crate) loads: Arc<Flights<Loaded>>,
    #[cfg(feature = "data")]
    pub(crate) data: Data,
    pub(crate) reads: SharedReads,
    pub(crate) drops: Drops,
    /// The far store has granted a lease or refused one.
    pub(crate) leases_are_known: AtomicBool,
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

impl State {
    /// Nobody joins a fill or a load that a purge touches, or may touch. To be called when the purge is in the index.
    pub(crate) fn close_flights(&self, target: &Target) {
        self.flights.close(target);
        #[cfg(feature = "data")]
        self.loads.close(target);
        self.shelves.all().iter().for_each(|shelf| shelf.close(target));
    }

    /// The smallest number that a fill or a load in flight bears. Purges that are newer must be remembered until it has ended.
    pub(crate) fn oldest_flight(&self) -> Option<u64> {
        let oldest = self.flights.oldest();
        #[cfg(feature = "data")]
        let oldest = oldest.into_iter().chain(self.loads.oldest()).min();
        let shelves = self.shelves.all();
        oldest.into_iter().chain(shelves.iter().filter_map(|shelf| shelf.oldest())).min()
    }
}

fn secret_of_this_process() -> [u8; 32] {
    let mut secret = [0; 32];
    // A machine without randomness: a process that can't have a secret key must not pretend to have one.
    getrandom::fill(&mut secret).expect("the operating system provides random numbers");
    secret
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
        let coherence = Arc::new(Coherence::new(settings.backend.purge_log()));
        let naming = if coherence.has_log() { Naming::Everywhere } else { Naming::default() };
        let shares_partitions = settings.partition_secret.is_some() || !coherence.has_log();
        let secret = settings.partition_secret.unwrap_or_else(secret_of_this_process);
        let state = Arc::new(State {
            mark: NEXT.fetch_add(1, Ordering::Relaxed),
            secret,
            shares_partitions,
            counters: Counters::default(),
            ledger: Ledger::default(),
            fates,
            purges: PurgeIndex::new(naming.clone()),
            _end: coherence.stopped.clone().drop_guard(),
            coherence,
            sweeper: Sweeper::default(),
            groups: Groups::new(naming.clone()),
            searches: Searches::new(naming),
            wholes: Wholes::default(),
            flights: Arc::default(),
            shelves: Shelves::default(),
            #[cfg(feature = "data")]
            loads: Arc::default(),
            #[cfg(feature = "data")]
            data: Data::default(),
            reads: SharedReads::default(),
            drops: Drops::default(),
            leases_are_known: AtomicBool::new(false),
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
        // What is stored was named by the one of now.
        settings.partition_secret = self.settings.partition_secret;
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

    /// Whether what was found may still be used: no purge that is known touches it, and none that isn't known can have for long.
    pub(crate) fn is_usable(&self, stored: &StoredResponse, key: &CacheKey, now: Moment) -> bool {
        self.is_valid(stored, key) && self.coherence.allows(&stored.stamp, key, now)
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

    /// An answer was stored, or not: counted, and remembered of its key.
    pub(crate) fn note_stored(&self, route: &RouteCounters, key: &CacheKey, result: Result<(), DeclineReason>) {
        route.stored(result);
        if let Err(reason) = result {
            self.fates.note(key.as_bytes(), Became::Declined(reason));
        }
    }

    /// What a store answered; an error is counted, logged, and as if there were nothing.
    pub(crate) fn note_store_error<T>(&self, answer: Result<T, StorageError>, key: &CacheKey) -> Option<T> {
        answer
            .inspect_err(|error| {
                if error.is_spared() {
                    // The guard has counted it, and said once what is the matter.
                    return;
                }
                let path = String::from_utf8_lossy(key.path());
                more(&self.rules.route(&path).counters.store_errors, 1);
                tracing::warn!(%error, "the cache goes on without its store for this request");
            })
            .ok()
    }
}
