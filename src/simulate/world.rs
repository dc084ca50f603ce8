//! [`World`]: instances, a far store and an origin, and what they do with each request. Time passes when a request comes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};

use super::origin::SimulatedOrigin;
use super::outcome::{Sizes, Tally};
use super::random::{Random, mix};
use super::shelf::Shelf;
use super::{Access, Client, Eviction, Outcome, Simulation};
use crate::admission::{Admission, Ask, Write, consider};
use crate::cache::CacheCore;
use crate::clock::{ManualClock, Moment};
use crate::coherence::Outdated;
use crate::compression::Compression;
use crate::course::Course;
use crate::form::Form;
use crate::lookup::Lookup;
use crate::outcome::StaleReason;
use crate::precedence::{Arrival, judge};
use crate::response::{Origin, StoredResponse};
use crate::rfc9111::invalidation::invalidates;
use crate::rfc9111::reuse::may_stand_in_for_error;
use crate::rfc9111::storability::DeclineReason;
use crate::storage::MemoryStore;
use crate::storage::backend::Backend;
use crate::tagging::Labelled;
use crate::variance::Variance;

pub(super) struct World {
    clock: Arc<ManualClock>,
    now: Option<SystemTime>,
    /// One for all instances where they share what they purge, else one for each.
    cores: Vec<Arc<CacheCore>>,
    near: Vec<Shelf>,
    far: Option<Shelf>,
    origin: SimulatedOrigin,
    variance: Arc<Variance>,
    random: Random,
    seed: u64,
    has_principals: bool,
    tally: Tally,
    sizes: Sizes,
    /// When the stores looked after themselves last.
    swept: Duration,
    /// No store holds content; all is cut from this.
    blank: Bytes,
}

/// The memory store looks after itself at least so often, when anything happens at all.
const SWEEP: Duration = Duration::from_millis(300);

/// Larger contents aren't kept.
const LARGEST: u64 = 1 << 30;

/// Longer than any trace: what goes by the machine's time must not happen.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// A request, as it goes its way.
struct Passing<'a> {
    access: &'a Access,
    headers: &'a HeaderMap,
    at: usize,
    core: Arc<CacheCore>,
    now: Moment,
}

/// What was found near.
enum Near {
    /// To be sent from where it lies, as most is.
    Hit,
    Other(Lookup),
}

impl World {
    pub(super) fn new(simulation: &Simulation) -> Self {
        let clock = Arc::new(ManualClock::default());
        let mut settings = simulation.settings.clone();
        settings.clock = clock.clone();
        settings.compression = Compression::off();
        settings.query = None;
        // The same digests of principals on every run.
        settings.partition_secret = Some([simulation.seed as u8; 32]);
        let core = || {
            let mut settings = settings.clone();
            settings.backend = Backend::memory(MemoryStore::new(0));
            Arc::new(CacheCore::new(settings))
        };
        let cores = if simulation.far { 1 } else { simulation.instances };
        let seeds = |n: usize| mix(simulation.seed ^ n as u64);
        let shelf = |n| Shelf::new(simulation.capacity, simulation.max_entries, simulation.eviction, seeds(n));
        let far = simulation.far_capacity.unwrap_or(u64::MAX >> 1);
        let policies = settings.rules.iter().map(|rule| &rule.policy).chain([&settings.otherwise]);
        Self {
            clock,
            now: None,
            has_principals: policies.into_iter().any(|policy| policy.is_partitioned()),
            cores: (0..cores).map(|_| core()).collect(),
            near: (1..=simulation.instances).map(shelf).collect(),
            far: simulation.far.then(|| Shelf::new(far, None, Eviction::Lru, seeds(0))),
            origin: SimulatedOrigin::new(simulation),
            variance: Arc::default(),
            random: Random::new(seeds(usize::MAX)),
            seed: simulation.seed,
            tally: Tally::default(),
            sizes: Sizes::default(),
            swept: Duration::ZERO,
            blank: Bytes::new(),
        }
    }

    /// Everything that happens because of one request.
    pub(super) fn pass(&mut self, access: &Access) {
        let time = self.advance(access.time);
        self.tally.request(time, access.bytes);
        let at = if self.near.len() > 1 { self.random.below(self.near.len() as u64) as usize } else { 0 };
        let core = self.cores[at % self.cores.len()].clone();
        let request = self.request(access);
        let now = core.now();
        let admission = consider(&core, &request, false, now);
        let passing = Passing { access, headers: request.headers(), at, core, now };
        match admission {
            Admission::Lookup(ask) => self.look_up(&passing, &ask),
            Admission::Write(write) => self.write(&passing, &write),
            Admission::Forward(_) | Admission::Shadow(_) | Admission::Query(_) => self.bypass(&passing),
        }
    }

    pub(super) fn end(mut self) -> Outcome {
        self.look_after(true);
        for near in &self.near {
            let usage = near.usage();
            self.tally.outcome.entries += usage.entries;
            self.tally.outcome.evictions += usage.evictions;
        }
        if let Some(far) = &self.far {
            let usage = far.usage();
            (self.tally.outcome.far_entries, self.tally.outcome.far_bytes) = (usage.entries, usage.bytes);
        }
        self.tally.finish()
    }

    /// Time goes on, or stands still; it never goes back. What has come to its end by then goes.
    fn advance(&mut self, time: SystemTime) -> SystemTime {
        match self.now {
            None => {
                self.clock.set_wall(time);
                self.now = Some(time);
            }
            Some(before) => {
                if let Some(passed) = time.duration_since(before).ok().filter(|passed| !passed.is_zero()) {
                    self.clock.advance(passed);
                    self.now = Some(time);
                }
            }
        }
        let now = self.cores[0].now().monotonic;
        self.near.iter_mut().chain(&mut self.far).for_each(|shelf| shelf.expire(now));
        if now.saturating_sub(self.swept) >= SWEEP {
            self.swept = now;
            self.look_after(true);
        } else if self.tally.outcome.requests.is_multiple_of(64) {
            self.look_after(false);
        }
        self.now.unwrap_or(time)
    }

    fn look_after(&mut self, sweeps: bool) {
        if sweeps {
            self.near.iter_mut().chain(&mut self.far).for_each(Shelf::sweep);
        }
        let bytes = self.near.iter().map(|near| near.usage().bytes).sum();
        let outcome = &mut self.tally.outcome;
        (outcome.stored_bytes, outcome.peak_stored_bytes) = (bytes, outcome.peak_stored_bytes.max(bytes));
    }

    /// The request as the layer would have got it, as far as a trace knows it.
    fn request(&self, access: &Access) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = access.method.clone();
        *request.uri_mut() = access.uri.clone();
        let host = access.host.as_deref().and_then(|host| HeaderValue::from_str(host).ok());
        request.headers_mut().insert(header::HOST, host.unwrap_or(HeaderValue::from_static("simulated")));
        if access.user.is_some() {
            request.headers_mut().insert(header::AUTHORIZATION, HeaderValue::from_static("Basic simulated"));
        }
        if self.has_principals {
            let client = Client { address: access.client.clone(), user: access.user.clone() };
            request.extensions_mut().insert(client);
        }
        request
    }

    fn bypass(&mut self, passing: &Passing<'_>) {
        self.tally.outcome.bypassed += 1;
        self.tally.origin(passing.now.wall, passing.access.bytes);
    }

    /// What it invalidates goes, on this instance, and on all where they hear of it.
    fn write(&mut self, passing: &Passing<'_>, write: &Write) {
        self.bypass(passing);
        if !invalidates(passing.access.status) {
            return;
        }
        self.tally.outcome.invalidations += 1;
        let core = &passing.core;
        let authority = write.authority.as_deref();
        let mut outdated = Outdated::new(core);
        core.invalidate(authority, &write.target, &mut outdated);
        core.purge_by_rule(&write.target, &mut outdated);
        drop(outdated);
        let keys = core.resource_keys(authority.unwrap_or_default(), &write.target);
        let is_shared = self.far.is_some();
        let near = self.near.iter_mut().enumerate().filter(|(n, _)| is_shared || *n == passing.at);
        let is_crowded = core.purges.is_crowded();
        for shelf in near.map(|(_, near)| near).chain(&mut self.far) {
            keys.iter().for_each(|key| shelf.remove(key));
            if is_crowded {
                shelf.retain(|key, stored| core.is_valid(stored, key));
            }
        }
        if is_crowded {
            // Nothing is on its way, so nothing can be older.
            core.purges.retire(core.purges.current());
        }
    }

    fn look_up(&mut self, passing: &Passing<'_>, ask: &Ask) {
        let (core, now, bytes) = (&passing.core, passing.now, passing.access.bytes);
        let found = match self.find_near(passing, ask) {
            Near::Hit => return self.hit(bytes),
            Near::Other(found) => found,
        };
        let (found, is_far) = match self.far.is_some() && !core.is_enough(&found, now) {
            true => self.find_far(passing, ask, found),
            false => (found, false),
        };
        self.tally.outcome.far_hits += u64::from(is_far);
        match Course::of(found, ask, now) {
            Course::Hit(_) => self.hit(bytes),
            Course::Ahead(stored) => {
                self.hit(bytes);
                self.refresh(passing, ask, stored);
            }
            Course::Stale(stored, reason) => {
                self.stale(bytes);
                if reason == StaleReason::WhileRevalidate {
                    self.refresh(passing, ask, stored);
                }
            }
            Course::Refuse(_) => self.tally.outcome.refused += 1,
            Course::Fetch(_, previous) => self.fetch(passing, ask, previous, true),
        }
    }

    fn find_near(&mut self, passing: &Passing<'_>, ask: &Ask) -> Near {
        let (core, now) = (&passing.core, passing.now);
        self.near[passing.at].read(&ask.key, |variants| {
            match core.choose(variants, ask, passing.headers, now).used(ask, now) {
                Lookup::Fresh(stored) if !ask.strategy.falls_back() && core.is_current(stored, now) => Near::Hit,
                other => Near::Other(other.map(|stored| Arc::new(stored.clone()))),
            }
        })
    }

    /// What the far store has, if that is better; fresh, it is copied. Tells whether it answers.
    fn find_far(&mut self, passing: &Passing<'_>, ask: &Ask, near: Lookup) -> (Lookup, bool) {
        let (core, now) = (&passing.core, passing.now);
        let Some(far) = &mut self.far else { return (near, false) };
        let found = far.read(&ask.key, |variants| {
            let found = core.choose(variants, ask, passing.headers, now);
            found.map(|stored| Arc::new(stored.clone())).used(ask, now)
        });
        match &found {
            Lookup::Fresh(stored) | Lookup::Ahead(stored) => {
                let mut copy = StoredResponse::clone(stored);
                copy.stamp.near_since = now.since(stored.received);
                let end = far.end(&ask.key).unwrap_or(now.monotonic);
                self.near[passing.at].put(&ask.key, copy, end);
                let answers = !ask.strategy.falls_back();
                (found, answers)
            }
            _ if near.response().is_some_and(|near| core.is_current(near, now)) => (near, false),
            _ => (found, false),
        }
    }

    fn hit(&mut self, bytes: u64) {
        self.tally.outcome.hits += 1;
        self.tally.hit_bytes(bytes);
    }

    fn stale(&mut self, bytes: u64) {
        self.tally.outcome.stale += 1;
        self.tally.hit_bytes(bytes);
    }

    /// Behind the answer.
    fn refresh(&mut self, passing: &Passing<'_>, ask: &Ask, stored: Arc<StoredResponse>) {
        self.tally.outcome.refreshes += 1;
        self.fetch(passing, ask, Some(stored), false);
    }

    /// Asks the origin, for a client or for nobody.
    fn fetch(&mut self, passing: &Passing<'_>, ask: &Ask, previous: Option<Arc<StoredResponse>>, attended: bool) {
        let (core, now, access) = (&passing.core, passing.now, passing.access);
        let resource = core.purges.stamp(&ask.key, 0).resource;
        let Some((status, size)) = self.whole(access, resource) else {
            // A part of something whose size isn't known, or a head: the origin's answer is for this client.
            self.tally.origin(now.wall, access.bytes);
            self.tally.outcome.misses += u64::from(attended);
            self.tally.outcome.declined += u64::from(attended);
            return;
        };
        let stands_in = |stored: &StoredResponse| {
            let (terms, disconnected) = (stored.current_terms(), core.settings.stale_when_disconnected);
            may_stand_in_for_error(&terms, stored.age(now), &ask.directives, disconnected)
        };
        let fails = matches!(status.as_u16(), 500 | 502 | 503 | 504);
        if fails && previous.as_deref().is_some_and(stands_in) {
            self.tally.origin(now.wall, 0);
            if attended {
                self.stale(access.bytes);
            }
            return;
        }
        let is_same = |previous: &Arc<StoredResponse>| {
            self.origin.validates && status == StatusCode::OK && previous.body.len() as u64 == size
        };
        let confirmed = previous.as_ref().is_some_and(is_same);
        self.tally.origin(now.wall, if confirmed { 0 } else { size });
        let stored = self.store(passing, ask, status, size);
        if !attended {
            return;
        }
        let outcome = &mut self.tally.outcome;
        if confirmed {
            outcome.revalidated += 1;
            self.tally.hit_bytes(access.bytes);
        } else {
            outcome.misses += 1;
            outcome.declined += u64::from(stored.is_err());
        }
    }

    /// Status and size of the origin's whole answer; `None` if only a part of it was asked for, or is known.
    fn whole(&mut self, access: &Access, resource: u64) -> Option<(StatusCode, u64)> {
        match access.status {
            _ if access.method == Method::HEAD => None,
            StatusCode::NOT_MODIFIED => {
                Some((StatusCode::OK, self.sizes.known(resource).unwrap_or_else(|| self.sizes.guess())))
            }
            StatusCode::PARTIAL_CONTENT => Some((StatusCode::OK, self.sizes.known(resource)?)),
            status => {
                if status == StatusCode::OK {
                    self.sizes.note(resource, access.bytes);
                }
                Some((status, access.bytes))
            }
        }
    }

    /// Puts the origin's answer into the stores, or says why not.
    fn store(&mut self, passing: &Passing<'_>, ask: &Ask, status: StatusCode, size: u64) -> Result<(), DeclineReason> {
        let Passing { core, now, at, .. } = passing;
        let route = core.rules.get(ask.rule);
        if size > LARGEST.min(core.settings.max_body_size as u64) {
            return Err(DeclineReason::BodyTooLarge);
        }
        let arrival = Arrival {
            method: &Method::GET,
            authorization: ask.authorization,
            request_no_store: ask.directives.no_store,
            status,
            headers: &self.origin.head,
            handler: None,
            date: now.wall,
            received: now.wall,
            delay: Duration::ZERO,
            spread: mix(self.seed ^ self.tally.outcome.requests),
        };
        let verdict = judge(&arrival, &route.policy, &core.settings)?;
        let labelled = Labelled { labels: &route.labels, handler: None, head: &self.origin.head, used: None };
        let mut stamp = core.purges.stamp(&ask.key, core.purges.current());
        if let Some(tags) = core.tags(labelled, ask.key.path(), &[]) {
            stamp.add_tags(tags);
        }
        if ask.key.has_additions() {
            core.keys_have_additions.store(true, Ordering::Release);
        }
        let response = StoredResponse {
            regime: ask.regime,
            variance: self.variance.clone(),
            upkeep: verdict.upkeep,
            received: *now,
            terms: verdict.terms,
            body: self.content(size),
            head: self.origin.stored_head(core, *now),
            downstream: None,
            form: Form::Fixed,
            status,
            origin: Origin::default(),
            stamp,
            keep: FOREVER,
            charge: None,
            route: route.counters.clone(),
        };
        let end = now.monotonic.saturating_add(verdict.keep);
        if let Some(far) = &mut self.far {
            far.put(&ask.key, response.clone(), end);
        }
        self.near[*at].put(&ask.key, response, end);
        Ok(())
    }

    /// So many bytes, of which nobody reads one: they take no memory.
    fn content(&mut self, size: u64) -> Bytes {
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        if self.blank.len() < size {
            self.blank = vec![0; size.next_power_of_two()].into();
        }
        self.blank.slice(..size)
    }
}
