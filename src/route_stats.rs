//! [`RouteStats`]: a copy of what one route counted, to look at.

use crate::fates::MissCause;
use crate::histogram::Latency;
use crate::ledger::Page;
use crate::outcome::Outcome;
use crate::rfc9111::storability::DeclineReason;
use crate::tally::{RouteCounters, read};

/// What one route did since the cache was made, through all changes of the settings: a rule is known by its pattern. Counters that are read while
/// requests are answered may be of slightly different moments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RouteStats {
    /// The pattern of the rule; `None` for what `otherwise` says.
    pub pattern: Option<String>,
    /// Answers to clients by what was done, with the reason; only what occurred.
    pub outcomes: Vec<(Outcome, u64)>,
    /// Responses stored.
    pub stored: u64,
    /// Responses not stored, by reason; only reasons that occurred.
    pub declined: Vec<(DeclineReason, u64)>,
    /// Requests that the store couldn't answer, by what had become of what they asked for; only causes that occurred.
    pub missed: Vec<(MissCause, u64)>,
    /// Bytes of content that were sent from the store.
    pub bytes_from_store: u64,
    /// Bytes of content that came from the handler, for clients or for the store. What several read as it streams counts once.
    pub bytes_from_handler: u64,
    /// Keys that have something stored now. 0 with another store than that in memory, of which nobody knows.
    pub entries: u64,
    /// Bytes that they take, as the store counts them. 0 likewise.
    pub bytes: u64,
    /// Keys that left the store in memory since there was no room.
    pub evicted: u64,
    /// Keys that left the store in memory when their time was over.
    pub expired: u64,
    /// Stored responses that a purge dropped, at once or when the store was swept for it; not those that something newer had taken the place of before.
    pub purged: u64,
    /// Operations that the store failed.
    pub store_errors: u64,
    /// How long clients waited for answers from the store, from the arrival of the request until the answer was made. One hit in 64 is measured, the
    /// first one included, so its `count` is that of the measurements.
    pub hit_latency: Latency,
    /// How long clients waited for the head of answers for which a handler was asked, by this request or by the one that it waited for: misses,
    /// revalidations, and what stood in for an error. Each is measured.
    pub miss_latency: Latency,
    /// How long the handler took until the head of its answer, also where that was for nobody or the cache kept out of it. Each call is measured that
    /// came to an end.
    pub handler_latency: Latency,
}

impl RouteStats {
    pub(crate) fn of(page: &Page) -> Self {
        let counters: &RouteCounters = &page.counters;
        let outcomes = Outcome::all().map(|outcome| (outcome, counters.outcome(outcome)));
        let declined = DeclineReason::ALL.iter().map(|reason| (*reason, counters.declined(*reason)));
        let missed = MissCause::ALL.iter().map(|cause| (*cause, counters.cause(*cause)));
        Self {
            pattern: page.pattern.as_deref().map(str::to_owned),
            outcomes: outcomes.filter(|(_, count)| *count > 0).collect(),
            stored: read(&counters.stored),
            declined: declined.filter(|(_, count)| *count > 0).collect(),
            missed: missed.filter(|(_, count)| *count > 0).collect(),
            bytes_from_store: counters.store_bytes(),
            bytes_from_handler: read(&counters.handler_bytes),
            entries: read(&counters.entries),
            bytes: read(&counters.bytes),
            evicted: read(&counters.evicted),
            expired: read(&counters.expired),
            purged: read(&counters.purged),
            store_errors: read(&counters.store_errors),
            hit_latency: counters.hits.latency(),
            miss_latency: counters.misses.latency(),
            handler_latency: counters.handler.latency(),
        }
    }

    /// How many answers were of a kind that `which` names.
    ///
    /// ```
    /// # let stats = larder::CacheLayer::in_memory(1 << 20).handle().route_stats().remove(0);
    /// use larder::Outcome;
    /// let stale = stats.count(|outcome| matches!(outcome, Outcome::Stale(_)));
    /// # assert_eq!(stale, 0);
    /// ```
    pub fn count(&self, which: impl Fn(Outcome) -> bool) -> u64 {
        self.outcomes.iter().filter(|(outcome, _)| which(*outcome)).map(|(_, count)| count).sum()
    }

    /// All answers to clients.
    pub fn requests(&self) -> u64 {
        self.count(|_| true)
    }

    /// Requests that were spared the handler, or its content, among all that were looked up, from 0 to 1; 0 before the first. The same as
    /// [`Stats::hit_rate`](crate::Stats::hit_rate), of this route.
    pub fn hit_rate(&self) -> f64 {
        let misses = self.count(|outcome| matches!(outcome, Outcome::Miss(_)));
        let all = self.count(|outcome| !matches!(outcome, Outcome::Bypass(_)));
        if all == 0 { 0.0 } else { (all - misses) as f64 / all as f64 }
    }

    /// How many responses were not stored for this reason.
    pub fn declined_for(&self, reason: DeclineReason) -> u64 {
        of(&self.declined, reason)
    }

    /// How many requests the store couldn't answer for this cause.
    pub fn missed_for(&self, cause: MissCause) -> u64 {
        of(&self.missed, cause)
    }
}

fn of<T: PartialEq>(counts: &[(T, u64)], which: T) -> u64 {
    counts.iter().find(|(other, _)| *other == which).map_or(0, |(_, count)| *count)
}
