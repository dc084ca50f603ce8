//! [`Requests`]: what became of a route's requests, from the counters that it has anyhow.

use crate::fates::MissCause;
use crate::outcome::{ForwardReason, Outcome};
use crate::tally::RouteCounters;

/// Requests of a route since some moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Requests {
    /// Looked up.
    pub(crate) all: u64,
    /// Of these, those for which the handler was asked while the client waited.
    pub(crate) fetched: u64,
    /// Not looked up.
    pub(crate) bypassed: u64,
    /// By cause, what the store couldn't answer.
    pub(crate) missed: Vec<(MissCause, u64)>,
}

impl Requests {
    /// All that a route counted.
    pub(crate) fn of(counters: &RouteCounters) -> Self {
        let mut requests = Self::default();
        for outcome in Outcome::all() {
            let count = counters.outcome(outcome);
            match outcome {
                Outcome::Bypass(_) => requests.bypassed += count,
                Outcome::Miss(ForwardReason::OnlyIfCached | ForwardReason::CacheOnly | ForwardReason::Crowded) => {}
                Outcome::Miss(_) | Outcome::Revalidated(_) => {
                    requests.all += count;
                    requests.fetched += count;
                }
                Outcome::Hit | Outcome::Stale(_) | Outcome::Fallback | Outcome::Collapsed(_) => requests.all += count,
            }
        }
        requests.missed = MissCause::ALL.iter().map(|cause| (*cause, counters.cause(*cause))).collect();
        requests
    }

    /// Those that came since `before`.
    pub(crate) fn since(mut self, before: &Self) -> Self {
        for ((_, count), (_, before)) in self.missed.iter_mut().zip(&before.missed) {
            *count = count.saturating_sub(*before);
        }
        self.missed.retain(|(_, count)| *count > 0);
        Self {
            all: self.all.saturating_sub(before.all),
            fetched: self.fetched.saturating_sub(before.fetched),
            bypassed: self.bypassed.saturating_sub(before.bypassed),
            missed: self.missed,
        }
    }

    /// The share of those looked up that would need no fetch, where `more` fetches were made behind answers and `less` were spared.
    pub(crate) fn hit_rate(&self, more: f64, less: f64) -> Option<f64> {
        let share = 1.0 - (self.fetched as f64 + more - less) / self.all as f64;
        (self.all > 0).then(|| share.clamp(0.0, 1.0))
    }
}
