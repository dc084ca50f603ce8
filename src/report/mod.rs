//! What the handler's answers teach about the rules: which lifetimes are too short, which routes answer the same again and again uncached, what makes keys
//! many, and, for rules in shadow, whether their answers may be shared at all.
//!
//! It is learned from what goes to the handler; a hit costs nothing. Memory is bounded ([`Observations`]), and no value is ever kept: of contents,
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
pub(crate) use self::fills::{FillSeen, Trail};
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
use crate::purge::PurgeIndex;
use crate::response::Stamp;
use crate::rules::Route;
use crate::sync::{Mutex, MutexGuard, PoisonError, hasher, sized};

/// The most keys whose fetches are followed, at about 400 bytes each.
const TRACKS: usize = sized(4096, 8);

/// The most keys under which answers are compared, at up to 2 KiB each.
const COMPARED: usize = sized(1024, 8);

/// The most routes that are told apart, at up to 40 KiB each.
const ROUTES: usize = 64;

/// A key that wasn't fetched for so long may be forgotten: the longest lifetime that is tried, and a quarter more.
const FORGOTTEN: u64 = 108_000_000;

/// What has been observed. At most 6 MiB, and only as much as there were routes and keys; an idle cache has some 15 KiB of it.
pub(crate) struct Observations {
    routes: Mutex<HashMap<u64, Arc<RouteSeen>>>,
    tracks: Sample<Tracked>,
    answers: Sample<Compared>,
    /// Keys all hashes; new for every process.
    key: ahash::RandomState,
}

/// One route.
pub(crate) struct RouteSeen {
    totals: Mutex<Totals>,
    /// What the route had counted when its observation began.
    before: Requests,
}

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
        let new = || Arc::new(RouteSeen { totals: Mutex::default(), before: Requests::of(&route.counters) });
        (routes.len() < ROUTES).then(|| routes.entry(route.account).or_insert_with(new).clone())
    }

    fn known(&self, account: u64) -> Option<Arc<RouteSeen>> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner).get(&account).cloned()
    }

    /// The rule isn't what it was: what was learned about it says nothing any more.
    pub(crate) fn forget(&self, account: u64) {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner).remove(&account);
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
        let mut fetch = Fetch { asked, received, content, lifetime, ended: false, chance };
        self.tracks.see(seen.tag, received, |known| match known {
            Some(tracked) => {
                // What was purged, written to or evicted would have been fetched whatever its lifetime.
                let is_good = tracked.writes == seen.writes && purges.current() == tracked.stamp.number;
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
            let requests = Requests::of(&route.counters).since(&seen.before);
            let known = Known { pattern: route.pattern(), policy: &route.policy, requests };
            let (of_route, recommendations) = known.report(&seen.totals());
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
