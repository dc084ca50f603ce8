//! What the handler's answers teach about the rules: which lifetimes are too short, which routes answer the same again and again uncached, what makes keys
//! many, and, for rules in shadow, whether their answers may be shared at all.
//!
//! It is learned from what goes to the handler; a hit costs nothing. Memory is bounded (6 MiB at most), and no value is ever kept: of contents,
//! fields, cookies and parameters only hashes under a key of this process.
//!
//! | module | what |
//! |---|---|
//! | `ladder` | virtual caches of one key, with other lifetimes |
//! | `sample` | which keys are remembered |
//! | `answers`, `explanation` | answers under one key compared; which part of the requests makes them differ |
//! | `dimension`, `sketch` | what makes keys many |
//! | `digest` | a hash of content as it passes |
//! | `watch` | answers that pass without being stored |
//! | `totals`, `requests`, `advice` | what is known of a route, and what it comes to |
//! | `findings`, `words` | the report, and how it reads |

mod advice;
mod answers;
mod digest;
mod dimension;
mod explanation;
mod fills;
mod findings;
mod ladder;
mod requests;
mod sample;
mod sketch;
mod totals;
mod watch;
mod words;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use self::advice::Known;
use self::answers::Answers;
pub(crate) use self::fills::{Coming, Content, Trail};
pub use self::findings::{
    Advice, Comparison, DimensionKind, KeySpace, PartEvidence, Recommendation, Report, RequestPart, RouteReport,
    TtlOutcome, Uncached, Verdict,
};
use self::ladder::{Fetch, Told, Track};
use self::requests::Requests;
use self::sample::Sample;
use self::totals::Totals;
pub(crate) use self::watch::{Departed, Watch, Witness};
use crate::cache::CacheCore;
use crate::clock::Moment;
use crate::description::is_same;
use crate::purge::PurgeIndex;
use crate::response::Stamp;
use crate::rules::{Route, Rules};
use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering, PoisonError, hasher, sized};

/// The most keys whose fetches are followed, at about 400 bytes each.
const TRACKS: usize = sized(4096, 8);

/// The most keys under which answers are compared, at up to 2 KiB each.
const COMPARED: usize = sized(1024, 8);

/// The most routes that are told apart, at up to 40 KiB each.
const ROUTES: usize = 64;

/// A key that wasn't fetched for so long may be forgotten: the longest lifetime that is tried, and a quarter more.
const FORGOTTEN: u64 = 108_000_000;

/// What has been observed. At most 6 MiB, and only as much as there were routes and keys; an idle cache has some 40 KiB of it.
pub(crate) struct Observations {
    routes: Mutex<HashMap<u64, Arc<RouteSeen>>>,
    tracks: Sample<Tracked>,
    answers: Sample<Compared>,
    /// Keys all hashes; new for every process.
    key: ahash::RandomState,
}

/// One route.
#[derive(Default)]
pub(crate) struct RouteSeen {
    totals: Mutex<Totals>,
    /// What the route had counted when its observation began.
    before: Requests,
    bypasses: Bypasses,
    /// How many contents were looked at on their way into the store.
    looked_into: AtomicU64,
}

/// How closely the answers to requests that bypass are looked at. A hash of their content costs more than a handler may that does nothing, so when a route
/// is known well, it is taken for one key in [`ONE_IN`] only.
#[derive(Default)]
struct Bypasses {
    looked_at: AtomicU64,
    passed_over: AtomicU64,
}

/// So many answers of a route are looked at before it counts as known.
const KNOWN: u64 = 4096;

/// Of how many keys one is looked at then.
const ONE_IN: u64 = 16;

/// How long these are the same, in milliseconds: long enough to see what lifetimes up to that would do, and then it is others' turn.
const TURN: u64 = 3_600_000;

/// A key whose fetches are followed.
struct Tracked {
    track: Track,
    /// What the last response was held against purges by.
    stamp: Stamp,
    /// How many writes to its path there had been.
    writes: u64,
}

/// Answers under one key.
struct Compared {
    answers: Answers,
    stamp: Stamp,
    writes: u64,
}

/// What is known of an answer of the handler.
pub(crate) struct Observation {
    /// Hash of key and variant.
    pub(crate) tag: u64,
    pub(crate) asked: Moment,
    pub(crate) received: Moment,
    /// Its age on arrival.
    pub(crate) age: Duration,
    pub(crate) content: Seen,
    /// For how long it is fresh, if it is stored.
    pub(crate) lifetime: Option<Duration>,
    pub(crate) asked_since: AskedSince,
    /// Whether a client waited for it.
    pub(crate) attended: bool,
    pub(crate) stamp: Stamp,
    pub(crate) writes: u64,
}

/// Why the handler was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AskedSince {
    /// What is stored was stale.
    Stale,
    /// Nothing was there to answer.
    Nothing,
    /// What was there had to be validated.
    Wanted,
}

/// What content an answer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Content with this hash.
    Content(u64),
    /// The content that is known already.
    Confirmed,
    /// Nobody looked.
    Unseen,
}

impl Default for Observations {
    fn default() -> Self {
        Self {
            routes: Mutex::new(HashMap::new()),
            tracks: Sample::new(TRACKS, FORGOTTEN),
            answers: Sample::new(COMPARED, FORGOTTEN),
            key: hasher(),
        }
    }
}

impl Observations {
    /// What is known of a route; `None` where there are too many.
    pub(crate) fn route(&self, route: &Route) -> Option<Arc<RouteSeen>> {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = routes.get(&route.account) {
            return Some(known.clone());
        }
        (routes.len() < ROUTES).then(|| routes.entry(route.account).or_default().clone())
    }

    fn known(&self, account: u64) -> Option<Arc<RouteSeen>> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner).get(&account).cloned()
    }

    /// The rules were changed: what was learned about one that isn't what it was says nothing any more, and what is gone makes room.
    pub(crate) fn begin_anew(&self, before: &Rules, now: &Rules) {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        routes.retain(|account, _| now.with_account(*account).is_some());
        for route in now.routes() {
            let is_same =
                before.with_account(route.account).is_some_and(|before| is_same(&before.policy, &route.policy));
            if !is_same && (routes.len() < ROUTES || routes.contains_key(&route.account)) {
                let before = Requests::of(&route.counters);
                routes.insert(route.account, Arc::new(RouteSeen { before, ..RouteSeen::default() }));
            }
        }
    }

    /// Holds what is remembered against purges before these are forgotten: what was held is no worse for that, and the rest counts as purged.
    pub(crate) fn hold(&self, purges: &PurgeIndex) {
        self.tracks.each(|tracked| _ = purges.is_untouched(&tracked.stamp));
        self.answers.each(|compared| _ = purges.is_untouched(&compared.stamp));
    }

    /// Notes an answer of the handler.
    pub(crate) fn note(&self, route: &RouteSeen, purges: &PurgeIndex, seen: Observation) {
        let told = self.follow(purges, &seen);
        let time = seen.received.since(seen.asked);
        let mut totals = route.totals();
        totals.fetches += 1;
        totals.handler_time += time;
        totals.refreshes += u64::from(!seen.attended);
        if let Some(lifetime) = seen.lifetime {
            totals.note_lifetime(as_millis(lifetime));
        }
        let ladder = if seen.lifetime.is_some() { &mut totals.refetched } else { &mut totals.uncached };
        ladder.all += 1;
        if let Some(told) = &told {
            ladder.note(told, time);
        }
    }

    /// Follows a key that is in the sample.
    fn follow(&self, purges: &PurgeIndex, seen: &Observation) -> Option<Told> {
        let content = match seen.content {
            Seen::Content(hash) => Some(hash as u32),
            Seen::Confirmed => None,
            Seen::Unseen => return None,
        };
        let (asked, received) = (millis(seen.asked), millis(seen.received));
        let lifetime = as_millis(seen.lifetime.unwrap_or_default());
        let chance = self.hash((seen.tag, received));
        let born = received.saturating_sub(as_millis(seen.age));
        let mut fetch = Fetch { asked, born, content, lifetime, ended: false, chance };
        self.tracks.see(seen.tag, received, |known| match known {
            Some(tracked) => {
                // What was purged, written to or evicted would have been fetched whatever its lifetime.
                let is_good = tracked.writes == seen.writes && purges.is_untouched(&tracked.stamp);
                let is_over = seen.asked_since == AskedSince::Stale || asked >= tracked.track.ends();
                fetch.ended = is_good && is_over && seen.asked_since != AskedSince::Wanted;
                (tracked.stamp, tracked.writes) = (seen.stamp.clone(), seen.writes);
                tracked.track.fetch(&fetch)
            }
            None => {
                let (track, stamp) = (Track::begin(&fetch), seen.stamp.clone());
                *known = Some(Tracked { track, stamp, writes: seen.writes });
                Told::default()
            }
        })
    }

    /// Whether the answer to a request that bypasses is looked at; counted either way.
    pub(crate) fn looks_at(&self, route: &RouteSeen, target: (&str, Option<&str>), asked: Moment) -> bool {
        let Bypasses { looked_at, passed_over } = &route.bypasses;
        let looks = looked_at.load(Ordering::Relaxed) < KNOWN
            || self.hash((target, millis(asked) / TURN)).is_multiple_of(ONE_IN);
        if looks { looked_at } else { passed_over }.fetch_add(1, Ordering::Relaxed);
        looks
    }

    /// A keyed hash.
    fn hash(&self, of: impl std::hash::Hash) -> u64 {
        self.key.hash_one(of)
    }
}

impl CacheCore {
    /// What was learned about the routes of now.
    pub(crate) fn report(&self) -> Report {
        let mut report = Report::default();
        for route in self.rules.routes() {
            let Some(seen) = self.observations.known(route.account) else { continue };
            let totals = seen.totals();
            if totals.fetches == 0 {
                continue;
            }
            let requests = Requests::of(&route.counters).since(&seen.before);
            let passed_over = seen.bypasses.passed_over.load(Ordering::Relaxed);
            let known = Known { pattern: route.pattern(), policy: &route.policy, requests, passed_over };
            let (of_route, recommendations) = known.report(&totals);
            report.routes.push(of_route);
            report.recommendations.extend(recommendations);
        }
        // Stable: what saves as much stays in the order of the rules.
        report.recommendations.sort_by_key(|recommendation| std::cmp::Reverse(recommendation.saves));
        report
    }
}

impl RouteSeen {
    fn totals(&self) -> MutexGuard<'_, Totals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn millis(moment: Moment) -> u64 {
    as_millis(moment.monotonic)
}

fn as_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
