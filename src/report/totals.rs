//! [`Totals`]: what is known about one route, in a bounded amount of memory.

use std::time::Duration;

use super::answers::Names;
use super::dimension::Dimensions;
use super::explanation::Explanation;
use super::findings::Uncached;
use super::ladder::{LIFETIMES, Told};
use super::sketch::Sketch;

/// Of one route.
#[derive(Default)]
pub(crate) struct Totals {
    pub(crate) fetches: u64,
    pub(crate) handler_time: Duration,
    /// Lifetimes of what was stored, in milliseconds, and how many.
    lifetimes: u64,
    stored: u64,
    /// Fetches that no client waited for.
    pub(crate) refreshes: u64,
    /// Of what had been stored before, and of what hadn't.
    pub(crate) refetched: LadderTotals,
    pub(crate) uncached: LadderTotals,
    pub(crate) dimensions: Dimensions,
    pub(crate) names: Names,
    pub(crate) compared: Compared,
    pub(crate) repeats: Option<Uncached>,
}

/// What lifetimes would have made of a route's fetches.
#[derive(Clone, Debug, Default)]
pub(crate) struct LadderTotals {
    /// Fetches in the sample, of keys that had been fetched before or not.
    pub(crate) fetches: u64,
    /// All fetches that there were, in the sample or not.
    pub(crate) all: u64,
    /// Those for no other reason than the end of a lifetime.
    pub(crate) ended: u64,
    pub(crate) unchanged: u64,
    pub(crate) rungs: [RungTotals; LIFETIMES.len()],
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RungTotals {
    pub(crate) hits: u64,
    pub(crate) stale: u64,
    pub(crate) earlier: u64,
    /// The handler's time for the hits, in microseconds.
    pub(crate) saved: u64,
}

/// Answers that were held against others.
#[derive(Clone, Default)]
pub(crate) struct Compared {
    pub(crate) answers: u64,
    pub(crate) differing: u64,
    pub(crate) not_storable: u64,
    pub(crate) keys: Sketch,
    pub(crate) explanation: Explanation,
}

impl LadderTotals {
    pub(crate) fn note(&mut self, told: &Told, time: Duration) {
        self.fetches += 1;
        let Some(changed) = told.changed else { return };
        self.ended += 1;
        self.unchanged += u64::from(!changed);
        let time = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        for (rung, would) in self.rungs.iter_mut().zip(&told.would) {
            rung.hits += u64::from(would.hit);
            rung.stale += u64::from(would.stale);
            rung.earlier += u64::from(would.earlier);
            rung.saved += if would.hit { time } else { 0 };
        }
    }
}

impl Totals {
    /// A response was stored for so long.
    pub(crate) fn note_lifetime(&mut self, millis: u64) {
        self.lifetimes = self.lifetimes.saturating_add(millis);
        self.stored += 1;
    }

    /// The average lifetime of what was stored.
    pub(crate) fn lifetime(&self) -> Option<Duration> {
        self.lifetimes.checked_div(self.stored).map(Duration::from_millis)
    }
}
