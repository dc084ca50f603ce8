//! [`RouteCounters`]: what one route counts. Totals of the cache are sums over its routes, so that nothing is counted twice.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Moment;
use crate::fates::{Became, MissCause};
use crate::histogram::Histogram;
use crate::outcome::{ForwardReason, Outcome, StaleReason};
use crate::rfc9111::storability::DeclineReason;

/// One hit in so many is timed: to read the clock once more on each would be felt.
pub(crate) const SAMPLE: u64 = 64;

/// What a route counted since the cache was made. All counters are relaxed: they say how much, and never in which order.
#[derive(Debug, Default)]
pub(crate) struct RouteCounters {
    hot: Hot,
    /// By [`Outcome::place`]; hits are in `hot`.
    outcomes: Outcomes,
    declined: [AtomicU64; DeclineReason::ALL.len()],
    causes: [AtomicU64; MissCause::ALL.len()],
    pub(crate) stored: AtomicU64,
    pub(crate) handler_bytes: AtomicU64,
    /// What is stored now. Each that was added is taken off once.
    pub(crate) entries: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) evicted: AtomicU64,
    pub(crate) expired: AtomicU64,
    pub(crate) purged: AtomicU64,
    pub(crate) store_errors: AtomicU64,
    /// Answers for which nobody was waited, one in [`SAMPLE`].
    pub(crate) hits: Histogram,
    /// Answers for which the handler was waited for.
    pub(crate) misses: Histogram,
    /// The handler's own time, until the head of its answer.
    pub(crate) handler: Histogram,
}

/// What every hit counts: one cache line, of no other route and of nothing that misses write to. (Two lines, since processors fetch them in pairs.)
#[derive(Debug, Default)]
#[repr(align(128))]
struct Hot {
    hits: AtomicU64,
    store_bytes: AtomicU64,
}

#[derive(Debug)]
struct Outcomes([AtomicU64; Outcome::COUNT]);

impl Default for Outcomes {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; Outcome::COUNT])
    }
}

/// Who was waited for until an answer was there.
enum Waited {
    Nobody,
    Handler,
    /// It isn't the cache's time: it kept out of it, or refused.
    Apart,
}

fn waited(outcome: Outcome) -> Waited {
    match outcome {
        Outcome::Hit
        | Outcome::Stale(StaleReason::WhileRevalidate | StaleReason::MaxStale | StaleReason::CacheOnly) => {
            Waited::Nobody
        }
        Outcome::Miss(ForwardReason::OnlyIfCached | ForwardReason::CacheOnly | ForwardReason::Crowded)
        | Outcome::Bypass(_) => Waited::Apart,
        Outcome::Stale(_) | Outcome::Fallback | Outcome::Revalidated(_) | Outcome::Miss(_) | Outcome::Collapsed(_) => {
            Waited::Handler
        }
    }
}

impl RouteCounters {
    /// A client was answered, with so many bytes that were in memory as a whole; `took` says how long it waited, and isn't asked on most hits.
    #[inline]
    pub(crate) fn answered(&self, outcome: Outcome, bytes: u64, took: impl FnOnce() -> Duration) {
        let before = self.counter(outcome).fetch_add(1, Ordering::Relaxed);
        if bytes > 0 && !matches!(outcome, Outcome::Miss(_) | Outcome::Bypass(_)) {
            self.hot.store_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        if outcome == Outcome::Hit && !before.is_multiple_of(SAMPLE) {
            return;
        }
        match waited(outcome) {
            Waited::Nobody if before.is_multiple_of(SAMPLE) => self.hits.record(took()),
            Waited::Handler => self.misses.record(took()),
            Waited::Nobody | Waited::Apart => {}
        }
    }

    fn counter(&self, outcome: Outcome) -> &AtomicU64 {
        if outcome == Outcome::Hit { &self.hot.hits } else { &self.outcomes.0[outcome.place()] }
    }

    /// The handler had a request between these.
    pub(crate) fn handled(&self, began: Moment, ended: Moment) {
        self.handler.record(ended.monotonic.saturating_sub(began.monotonic));
    }

    /// An answer was stored, or not.
    pub(crate) fn stored(&self, result: Result<(), DeclineReason>) {
        match result {
            Ok(()) => more(&self.stored, 1),
            Err(reason) => more(&self.declined[reason as usize], 1),
        }
    }

    /// A request couldn't be answered from the store.
    pub(crate) fn missed(&self, cause: MissCause) {
        more(&self.causes[cause as usize], 1);
    }

    /// A key has something stored from now on, of so many bytes.
    pub(crate) fn entered(&self, bytes: u64) {
        more(&self.entries, 1);
        more(&self.bytes, bytes);
    }

    /// What [entered](Self::entered) isn't there any more.
    pub(crate) fn left(&self, bytes: u64) {
        self.entries.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// What was stored has come to this.
    pub(crate) fn became(&self, fate: Became) {
        match fate {
            Became::Evicted => more(&self.evicted, 1),
            Became::Expired => more(&self.expired, 1),
            Became::Purged { .. } => more(&self.purged, 1),
            Became::Stored | Became::Written | Became::Declined(_) | Became::Dropped => {}
        }
    }

    pub(crate) fn outcome(&self, outcome: Outcome) -> u64 {
        read(self.counter(outcome))
    }

    pub(crate) fn declined(&self, reason: DeclineReason) -> u64 {
        read(&self.declined[reason as usize])
    }

    pub(crate) fn cause(&self, cause: MissCause) -> u64 {
        read(&self.causes[cause as usize])
    }

    pub(crate) fn store_bytes(&self) -> u64 {
        read(&self.hot.store_bytes)
    }

    /// Adds what `other` counted, but for its latencies: nobody asks for those of several routes together.
    pub(crate) fn absorb(&self, other: &Self) {
        for outcome in Outcome::all() {
            more(self.counter(outcome), other.outcome(outcome));
        }
        let pairs = [
            (&self.hot.store_bytes, &other.hot.store_bytes),
            (&self.stored, &other.stored),
            (&self.handler_bytes, &other.handler_bytes),
            (&self.evicted, &other.evicted),
            (&self.expired, &other.expired),
            (&self.purged, &other.purged),
            (&self.store_errors, &other.store_errors),
            (&self.entries, &other.entries),
            (&self.bytes, &other.bytes),
        ];
        let arrays = self.declined.iter().zip(&other.declined).chain(self.causes.iter().zip(&other.causes));
        for (mine, theirs) in pairs.into_iter().chain(arrays) {
            more(mine, read(theirs));
        }
    }
}

/// So many more.
pub(crate) fn more(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

pub(crate) fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hits_write_has_cache_lines_of_its_own() {
        assert_eq!(align_of::<RouteCounters>(), 128);
        assert!(size_of::<RouteCounters>() <= 1536, "docs/metrics.md says so");
        let counters = RouteCounters::default();
        let place = |part: *const u8| part as usize;
        let (hot, others) = (place((&raw const counters.hot).cast()), place((&raw const counters.outcomes).cast()));
        assert_eq!((hot % 128, hot.abs_diff(others) >= 128), (0, true));
    }

    #[test]
    fn one_hit_in_many_is_timed_and_each_miss_is() {
        let counters = RouteCounters::default();
        let asked = std::cell::Cell::new(0);
        let took = || {
            asked.set(asked.get() + 1);
            Duration::from_millis(1)
        };
        (0..2 * SAMPLE + 1).for_each(|_| counters.answered(Outcome::Hit, 0, took));
        assert_eq!(
            (asked.get(), counters.hits.latency().count, counters.outcome(Outcome::Hit)),
            (3, 3, 2 * SAMPLE + 1)
        );
        (0..5).for_each(|_| counters.answered(Outcome::Miss(ForwardReason::UriMiss), 0, took));
        counters.answered(Outcome::Miss(ForwardReason::Crowded), 0, took);
        assert_eq!((asked.get(), counters.misses.latency().count), (8, 5));
    }

    #[test]
    fn what_is_absorbed_is_not_lost() {
        let (all, one) = (RouteCounters::default(), RouteCounters::default());
        for _ in 0..2 {
            Outcome::all().for_each(|outcome| one.answered(outcome, 3, Duration::default));
            DeclineReason::ALL.iter().for_each(|reason| one.stored(Err(*reason)));
            MissCause::ALL.iter().for_each(|cause| one.missed(*cause));
            one.stored(Ok(()));
            let fates = [Became::Evicted, Became::Expired, Became::Purged { number: Some(1) }];
            fates.into_iter().for_each(|fate| one.became(fate));
        }
        all.absorb(&one);
        assert!(Outcome::all().all(|outcome| all.outcome(outcome) == 2));
        assert!(DeclineReason::ALL.iter().all(|reason| all.declined(*reason) == 2));
        assert!(MissCause::ALL.iter().all(|cause| all.cause(*cause) == 2));
        let counts = [&all.stored, &all.evicted, &all.expired, &all.purged].map(read);
        assert_eq!(
            (counts, all.store_bytes()),
            ([2; 4], 6 * (2 + StaleReason::ALL.len() + 2 * ForwardReason::ALL.len()) as u64)
        );
    }
}
