//! [`CacheCore`]: what all clones of a layer share, and the three things done with it: look up, commit, invalidate.

use std::borrow::Borrow;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use http::HeaderMap;
use smallvec::SmallVec;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::Ask;
use crate::adoption::adopt;
use crate::clock::Moment;
use crate::coder::Coders;
use crate::description::regime;
use crate::error::StorageError;
use crate::flight::{FillBudget, Flight, Flights, NoRefresh, Refresh, Refreshes};
use crate::groups::Groups;
use crate::head::SharedHeads;
use crate::hit_status::HitStatus;
use crate::key::{CacheKey, Origin, QueryRule};
use crate::outcome::{ForwardReason, StaleReason};
use crate::partition::{self, MakeRoom, Partitions};
use crate::policy::{Policy, digest};
use crate::purge::PurgeIndex;
use crate::response::{Stamp, StoredResponse};
use crate::rfc9111::reuse::{Reuse, ValidateReason, reuse};
use crate::rfc9111::storability::DeclineReason;
use crate::rfc9111::vary::{Matching, prefers_language};
use crate::rules::Rules;
use crate::search::Searches;
use crate::settings::Settings;
use crate::stats::{Counters, count};
use crate::storage::Variants;
use crate::storage::backend::Backend;
use crate::variance::SharedVariances;

/// A cache as it is set up now, over the state that stays when it is set up anew. Each request keeps the one that it began with, so that it sees
/// the old settings or the new ones, and never some of both.
pub(crate) struct CacheCore {
    pub(crate) settings: Settings,
    pub(crate) rules: Rules,
    pub(crate) hit_status: Arc<HitStatus>,
    /// Counts how often the cache was set up anew.
    pub(crate) generation: u64,
    /// How queries were keyed by earlier generations, whose entries and fills may still be around.
    retired: Vec<QueryRule>,
    state: Arc<State>,
}

/// What all generations of a cache share.
pub(crate) struct State {
    /// Tells its layers from those of other caches.
    pub(crate) mark: u64,
    /// Keys the digests of principals; new for every process.
    pub(crate) secret: [u8; 32],
    pub(crate) counters: Counters,
    pub(crate) purges: PurgeIndex,
    pub(crate) groups: Groups,
    pub(crate) searches: Searches,
    pub(crate) flights: Arc<Flights>,
    pub(crate) partitions: Arc<Partitions>,
    pub(crate) budget: FillBudget,
    pub(crate) coders: Coders,
    pub(crate) heads: SharedHeads,
    pub(crate) variances: SharedVariances,
    pub(crate) tasks: TaskTracker,
    /// Cancelled when a shutdown's deadline is over.
    pub(crate) abandon: CancellationToken,
    closing: AtomicBool,
    /// Some stored key has more than its resource, so a write has to reach keys that it can't name.
    keys_have_additions: AtomicBool,
    refreshes: Arc<Refreshes>,
    hasher: ahash::RandomState,
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

fn rules(settings: &Settings) -> Rules {
    Rules::new(&settings.rules, settings.otherwise.clone()).under(|policy| regime(policy, settings))
}

fn queries_of<'a>((pattern, policy): (Option<&'a str>, &'a Policy)) -> (Option<&'a str>, &'a QueryRule) {
    (pattern, &policy.query)
}

/// What the store has for a request; `R` is the response, where it lies or taken along.
#[derive(Debug)]
pub(crate) enum Lookup<R = Arc<StoredResponse>> {
    /// Send it.
    Fresh(R),
    /// Send it though it is stale; refresh it behind the answer if that is the reason.
    Stale(R, StaleReason),
    /// Ask the handler about it.
    Validate(R, ForwardReason),
    /// Ask the handler.
    Miss(ForwardReason),
    /// It was stored under other settings than those of now, and what may be done with it has still to be found out.
    Earlier(R),
}

/// What may be done with `chosen`, which is or holds `stored` (RFC 9111 §4).
fn weigh<R>(chosen: R, stored: &StoredResponse, ask: &Ask, now: Moment) -> Lookup<R> {
    match reuse(&stored.terms, stored.age(now), &ask.directives, ask.authorization) {
        Reuse::Fresh => Lookup::Fresh(chosen),
        Reuse::AllowedStale => Lookup::Stale(chosen, StaleReason::MaxStale),
        Reuse::StaleWhileRevalidate => Lookup::Stale(chosen, StaleReason::WhileRevalidate),
        Reuse::Validate(ValidateReason::Stale) => Lookup::Validate(chosen, ForwardReason::Stale),
        Reuse::Validate(_) => Lookup::Validate(chosen, ForwardReason::Request),
    }
}

impl<R> Lookup<R> {
    /// The same with the response as `taken` makes it.
    pub(crate) fn map<T>(self, taken: impl FnOnce(R) -> T) -> Lookup<T> {
        match self {
            Self::Fresh(stored) => Lookup::Fresh(taken(stored)),
            Self::Stale(stored, reason) => Lookup::Stale(taken(stored), reason),
            Self::Validate(stored, why) => Lookup::Validate(taken(stored), why),
            Self::Miss(why) => Lookup::Miss(why),
            Self::Earlier(stored) => Lookup::Earlier(taken(stored)),
        }
    }
}

impl CacheCore {
    pub(crate) fn new(mut settings: Settings) -> Self {
        settings.backend = settings.backend.of_its_own();
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let mut secret = [0; 32];
        // A machine without randomness: a process that can't have a secret key must not pretend to have one.
        getrandom::fill(&mut secret).expect("the operating system provides random numbers");
        let state = Arc::new(State {
            mark: NEXT.fetch_add(1, Ordering::Relaxed),
            secret,
            counters: Counters::default(),
            purges: PurgeIndex::default(),
            groups: Groups::default(),
            searches: Searches::default(),
            flights: Arc::default(),
            partitions: Arc::default(),
            budget: FillBudget::default(),
            coders: Coders::default(),
            heads: SharedHeads::default(),
            variances: SharedVariances::default(),
            tasks: TaskTracker::new(),
            abandon: CancellationToken::new(),
            closing: AtomicBool::new(false),
            keys_have_additions: AtomicBool::new(false),
            refreshes: Arc::default(),
            hasher: ahash::RandomState::new(),
        });
        let hit_status = Arc::new(HitStatus::of(&settings.switches.name));
        Self { rules: rules(&settings), settings, hit_status, generation: 0, retired: Vec::new(), state }
    }

    /// The next generation, with the same store and clock, and the state that lasts.
    pub(crate) fn succeeded_by(&self, mut settings: Settings) -> Self {
        settings.backend = self.settings.backend.clone();
        settings.clock = self.settings.clock.clone();
        let (rules, state) = (rules(&settings), self.state.clone());
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

    /// Chooses among the variants of a key and says what may be done with the choice (RFC 9111 §4).
    pub(crate) fn choose<'v, R: Borrow<StoredResponse>>(
        &self,
        variants: &'v [R],
        ask: &Ask,
        headers: &HeaderMap,
        now: Moment,
    ) -> Lookup<&'v R> {
        let mut valid = variants.iter().filter(|stored| self.purges.is_valid(&R::borrow(stored).stamp)).peekable();
        if valid.peek().is_none() {
            return Lookup::Miss(ForwardReason::UriMiss);
        }
        let Some(chosen) = valid.find(|stored| self.matches(R::borrow(stored), headers)) else {
            return Lookup::Miss(ForwardReason::VaryMiss);
        };
        let stored = chosen.borrow();
        if stored.regime != ask.regime {
            return Lookup::Earlier(chosen);
        }
        weigh(chosen, stored, ask, now)
    }

    /// What may be done with a response that was stored under earlier settings.
    #[cold]
    pub(crate) fn weigh_earlier(&self, stored: &StoredResponse, ask: &Ask, now: Moment) -> Lookup {
        match adopt(stored, ask, self) {
            Some(adopted) => weigh(adopted.clone(), &adopted, ask, now),
            None => Lookup::Miss(ForwardReason::UriMiss),
        }
    }

    fn matches(&self, stored: &StoredResponse, request: &HeaderMap) -> bool {
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

    /// Stores a response, unless a purge touched it or the cache is closing. In memory it is there when this returns.
    pub(crate) fn commit(
        self: &Arc<Self>,
        flight: &Flight,
        key: &CacheKey,
        response: Arc<StoredResponse>,
    ) -> Result<(), DeclineReason> {
        if self.is_closing() {
            return Err(DeclineReason::Shutdown);
        }
        if response.charge.as_ref().is_some_and(|charge| weight(key, &response) > charge.quota.bytes) {
            // What it was to take the place of isn't good any more.
            self.drop_key(key);
            return Err(DeclineReason::PartitionQuota);
        }
        if key.has_additions() {
            self.keys_have_additions.store(true, Ordering::Release);
        }
        let most = self.settings.max_variants;
        let committed = match &self.settings.backend {
            Backend::Memory(memory) => flight.commit(|| {
                memory.put_now(key, &response, most);
                let numbers = |variants: &[StoredResponse]| {
                    variants.iter().filter_map(|variant| Some(variant.charge.as_ref()?.number)).collect()
                };
                let room = self.keep_quota(key, &response, || Some(memory.read(key, numbers)));
                for oldest in &room.oldest {
                    memory.remove_now(oldest);
                }
                if room.other_variants {
                    memory.remove_now(key);
                    memory.put_now(key, &response, most);
                }
            }),
            // A purge that comes while the store is at work has a larger number than this response, so that it is never read.
            Backend::Other(other) => flight.commit(|| {
                let (cache, other, key) = (self.clone(), other.clone(), key.clone());
                self.spawn(async move {
                    let put = other.put(&key, response.clone(), most).await;
                    cache.note_store_error(put);
                    let mut room = cache.keep_quota(&key, &response, || None);
                    // Erased while the store was at work: it is never read, but it must go as well.
                    if response.charge.is_some() && !cache.purges.is_valid(&response.stamp) {
                        room.oldest.push(key.clone());
                    }
                    for key in room.oldest.iter().chain(room.other_variants.then_some(&key)) {
                        let removed = other.remove(key).await;
                        cache.note_store_error(removed);
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

    /// Erases all that is stored for a principal: what is on its way into the store is sealed, and what is there is deleted. Returns the
    /// purge's number.
    pub(crate) async fn erase(&self, principal: &[u8]) -> Result<u64, StorageError> {
        let id = digest(&self.secret, principal);
        let number = self.purges.purge_resource(partition::place(&id));
        self.flights.seal_partition(partition::place(&id));
        let mut failed = None;
        for key in self.partitions.take(&id) {
            match &self.settings.backend {
                Backend::Memory(memory) => _ = memory.remove_now(&key),
                // One that fails must not keep the others there.
                Backend::Other(other) => failed = other.remove(&key).await.err().or(failed),
            }
        }
        failed.map_or(Ok(number), Err)
    }

    /// Drops a stored response that turned out to be wrong. Fills in flight began earlier or know no better, so they aren't stored either.
    pub(crate) fn forget(self: &Arc<Self>, key: &CacheKey) {
        self.flights.seal_resource(&self.purges.stamp(key, 0));
        self.drop_key(key);
    }

    /// Drops what is stored under a key, and leaves fills in flight alone.
    pub(crate) fn drop_key(self: &Arc<Self>, key: &CacheKey) {
        match &self.settings.backend {
            Backend::Memory(memory) => drop(memory.remove_now(key)),
            Backend::Other(other) => {
                let (cache, other, key) = (self.clone(), other.clone(), key.clone());
                self.spawn(async move {
                    let removed = other.remove(&key).await;
                    cache.note_store_error(removed);
                });
            }
        }
    }

    /// Makes a resource invalid after a write (§4.4): fills in flight are sealed, what is stored goes.
    ///
    /// In memory the key is deleted and the number of purges stays, so that writes cost readers nothing. That isn't enough where
    /// keys have additions that the write doesn't know, or where the store is far away: there the resource is purged by number.
    ///
    /// Without an `authority` the target is meant on every host.
    pub(crate) fn invalidate(&self, authority: Option<&[u8]>, target: &str) {
        count(&self.counters.invalidations);
        for key in self.resource_keys(authority.unwrap_or_default(), target) {
            let stamp = self.purges.stamp(&key, 0);
            self.purge_with(authority, &key, &stamp);
            if authority.is_none() {
                self.flights.seal_path(stamp.path);
                self.purges.purge_resource(stamp.path);
                continue;
            }
            self.flights.seal_resource(&stamp);
            let by_key = match &self.settings.backend {
                Backend::Memory(memory) => {
                    memory.remove_now(&key);
                    !self.keys_have_additions.load(Ordering::Acquire)
                }
                Backend::Other(_) => false,
            };
            if !by_key {
                self.purges.purge_resource(stamp.resource);
            }
        }
    }

    /// Purges what goes with a resource that is written to: what shares a group with it (RFC 9875 §2.2.1), and not what shares one with that; and
    /// what is stored for other spellings of it.
    fn purge_with(&self, authority: Option<&[u8]>, key: &CacheKey, stamp: &Stamp) {
        if let Some(tags) = self.groups.linked(if authority.is_none() { stamp.path } else { stamp.resource }) {
            self.purge_tags(authority, &tags);
        }
        self.purge_spellings(authority, key);
    }

    /// Makes groups invalid that the response to a write names (RFC 9875 §3). They are of its origin only.
    pub(crate) fn invalidate_groups(&self, origin: Origin<'_>, names: &[String]) {
        count(&self.counters.invalidations);
        self.purge_tags(origin.authority, &self.groups.of_write(origin, names));
    }

    /// Purges what answers this URI though it was stored for another one of its path, by `No-Vary-Search`.
    pub(crate) fn purge_spellings(&self, authority: Option<&[u8]>, key: &CacheKey) {
        if let Some(tag) = self.searches.touch(key, authority.is_none()) {
            self.purge_tags(authority, &[tag]);
        }
    }

    /// Purges by tag, under one number, and seals the fills whose tags are among these or may be.
    fn purge_tags(&self, authority: Option<&[u8]>, tags: &[u64]) {
        self.purges.purge_tags(tags);
        self.flights.seal_tags(authority.map(|authority| self.groups.authority(Some(authority))), tags);
    }

    /// The keys of a path with query: as its rule canonicalises it, and as rules of earlier generations may have.
    pub(crate) fn resource_keys(&self, authority: &[u8], target: &str) -> SmallVec<[CacheKey; 1]> {
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let current = &self.rules.route(path).policy.query;
        let mut keys = SmallVec::new();
        for rule in [current].into_iter().chain(&self.retired) {
            let key = CacheKey::new(authority, path, rule.keyed(query).as_deref());
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        keys
    }

    /// The right to refresh a variant, unless that is being done or too much is.
    pub(crate) fn begin_refresh(&self, ask: &Ask, stored: &StoredResponse) -> Option<Refresh> {
        if self.is_closing() {
            return None;
        }
        let id = self.hasher.hash_one((ask.key.as_bytes(), &stored.variance.key));
        match self.refreshes.begin(id, self.settings.max_refreshes) {
            Ok(refresh) => {
                count(&self.counters.refreshes);
                Some(refresh)
            }
            Err(NoRefresh::Running) => None,
            Err(NoRefresh::TooMany) => {
                count(&self.counters.refreshes_refused);
                None
            }
        }
    }

    /// Runs work of the cache's own, which a shutdown waits for and then abandons.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        // A body may be dropped, and so a fill end, anywhere; to panic there would be worse than to leave the work undone.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            tracing::warn!("there is no tokio runtime here: a refresh is not made, or a response not stored");
            return;
        };
        let abandon = self.abandon.clone();
        let work = async move {
            abandon.run_until_cancelled(work).await;
        };
        self.tasks.spawn_on(work, &runtime);
    }

    /// Like [`spawn`](Self::spawn), for work that keeps a processor busy. Without a runtime it is done here and now.
    pub(crate) fn spawn_blocking(&self, work: impl FnOnce() + Send + 'static) {
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(self.tasks.spawn_blocking_on(work, &runtime)),
            Err(_) => work(),
        }
    }

    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.tasks.close();
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// What a store answered; an error is counted, logged, and as if there were nothing.
    pub(crate) fn variants_or_none(&self, answer: Result<Variants, StorageError>) -> Variants {
        self.note_store_error(answer).unwrap_or_default()
    }

    pub(crate) fn note_store_error<T>(&self, answer: Result<T, StorageError>) -> Option<T> {
        answer
            .inspect_err(|error| {
                count(&self.counters.store_errors);
                tracing::warn!(%error, "the cache goes on without its store for this request");
            })
            .ok()
    }
}

/// What a stored response counts against a quota.
pub(crate) fn weight(key: &CacheKey, response: &StoredResponse) -> u64 {
    (key.as_bytes().len() + response.size()) as u64
}
