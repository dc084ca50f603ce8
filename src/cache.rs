//! [`CacheCore`]: what all clones of a layer share, and the three things done with it: look up, commit, invalidate.

use std::borrow::Borrow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use http::HeaderMap;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::{Ask, InHand};
use crate::clock::Moment;
use crate::error::StorageError;
use crate::flight::{FillBudget, Flight, Flights, NoRefresh, Refresh, Refreshes};
use crate::groups::Groups;
use crate::head::SharedHeads;
use crate::key::{CacheKey, Origin};
use crate::outcome::{ForwardReason, StaleReason};
use crate::purge::PurgeIndex;
use crate::response::StoredResponse;
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

/// The shared state of a cache.
pub(crate) struct CacheCore {
    pub(crate) settings: Settings,
    pub(crate) rules: Rules,
    pub(crate) mark: InHand,
    /// Keys the digests of principals; new for every process.
    pub(crate) secret: [u8; 32],
    pub(crate) counters: Counters,
    pub(crate) purges: PurgeIndex,
    pub(crate) groups: Groups,
    pub(crate) searches: Searches,
    pub(crate) flights: Arc<Flights>,
    pub(crate) budget: FillBudget,
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
}

impl<R> Lookup<R> {
    /// The same with the response as `taken` makes it.
    pub(crate) fn map<T>(self, taken: impl FnOnce(R) -> T) -> Lookup<T> {
        match self {
            Self::Fresh(stored) => Lookup::Fresh(taken(stored)),
            Self::Stale(stored, reason) => Lookup::Stale(taken(stored), reason),
            Self::Validate(stored, why) => Lookup::Validate(taken(stored), why),
            Self::Miss(why) => Lookup::Miss(why),
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
        Self {
            rules: Rules::new(&settings.rules, settings.otherwise.clone()),
            searches: Searches::new(settings.no_vary_search),
            settings,
            mark: InHand(NEXT.fetch_add(1, Ordering::Relaxed)),
            secret,
            counters: Counters::default(),
            purges: PurgeIndex::default(),
            groups: Groups::default(),
            flights: Arc::default(),
            budget: FillBudget::default(),
            heads: SharedHeads::default(),
            variances: SharedVariances::default(),
            tasks: TaskTracker::new(),
            abandon: CancellationToken::new(),
            closing: AtomicBool::new(false),
            keys_have_additions: AtomicBool::new(false),
            refreshes: Arc::default(),
            hasher: ahash::RandomState::new(),
        }
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
        match reuse(&stored.terms, stored.age(now), &ask.directives, ask.authorization) {
            Reuse::Fresh => Lookup::Fresh(chosen),
            Reuse::AllowedStale => Lookup::Stale(chosen, StaleReason::MaxStale),
            Reuse::StaleWhileRevalidate => Lookup::Stale(chosen, StaleReason::WhileRevalidate),
            Reuse::Validate(ValidateReason::Stale) => Lookup::Validate(chosen, ForwardReason::Stale),
            Reuse::Validate(_) => Lookup::Validate(chosen, ForwardReason::Request),
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
        if key.has_additions() {
            self.keys_have_additions.store(true, Ordering::Release);
        }
        let most = self.settings.max_variants;
        let committed = match &self.settings.backend {
            Backend::Memory(memory) => flight.commit(|| memory.put_now(key, &response, most)),
            // A purge that comes while the store is at work has a larger number than this response, so that it is never read.
            Backend::Other(other) => flight.commit(|| {
                let (cache, other, key) = (self.clone(), other.clone(), key.clone());
                self.spawn(async move {
                    let put = other.put(&key, response, most).await;
                    cache.note_store_error(put);
                });
            }),
        };
        committed.then_some(()).ok_or(DeclineReason::Purged)
    }

    /// Drops a stored response that turned out to be wrong. Fills in flight began earlier or know no better, so they aren't stored either.
    pub(crate) fn forget(self: &Arc<Self>, key: &CacheKey) {
        self.flights.seal_resource(&self.purges.stamp(key, 0));
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
        let key = self.resource_key(authority.unwrap_or_default(), target);
        let stamp = self.purges.stamp(&key, 0);
        // RFC 9875 §2.2.1: what shares a group with it goes as well, and what shares one with that doesn't.
        if let Some(tags) = self.groups.linked(if authority.is_none() { stamp.path } else { stamp.resource }) {
            self.purge_tags(authority, &tags);
        }
        self.purge_spellings(authority, &key);
        if authority.is_none() {
            self.flights.seal_path(stamp.path);
            self.purges.purge_resource(stamp.path);
            return;
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

    /// The key of a path with query as its rule canonicalises it.
    pub(crate) fn resource_key(&self, authority: &[u8], target: &str) -> CacheKey {
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let query = self.rules.route(path).policy.query(query);
        CacheKey::new(authority, path, query.as_deref())
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

    fn note_store_error<T>(&self, answer: Result<T, StorageError>) -> Option<T> {
        answer
            .inspect_err(|error| {
                count(&self.counters.store_errors);
                tracing::warn!(%error, "the cache goes on without its store for this request");
            })
            .ok()
    }
}
