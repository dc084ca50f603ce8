//! Counters of what a cache did, and [`Stats`], a copy of them to look at.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::histogram::{Histogram, Latency};
use crate::ledger::Ledger;
use crate::outcome::Outcome;
use crate::post::Writes;
use crate::rfc9111::storability::DeclineReason;
use crate::storage::{GuardStats, StorageUsage};

/// What a cache did since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Answers from the store, fresh.
    pub hits: u64,
    /// Answers from the store though stale.
    pub stale: u64,
    /// Answers from the store after the handler confirmed them.
    pub revalidated: u64,
    /// Answers of the handler to requests that were looked up.
    pub misses: u64,
    /// Answers that the handler gave to another request for the same.
    pub collapsed: u64,
    /// Requests that waited for another one's answer and then went to the handler themselves, since it wasn't for them.
    pub followers_alone: u64,
    /// Requests that waited as long as they may ([`CacheLayer::max_wait`](crate::CacheLayer::max_wait)).
    pub waits_timed_out: u64,
    /// Requests that may not wait, since too many did ([`CacheLayer::max_waiting`](crate::CacheLayer::max_waiting)).
    pub waits_refused: u64,
    /// Requests that wait now.
    pub waiting: u64,
    /// Requests that are with the handler, or whose answers are on their way into the store, now.
    pub fills_in_flight: u64,
    /// Bytes on their way into the store now.
    pub fill_bytes: u64,
    /// Fills that went on in the background when their client left.
    pub fills_handed_over: u64,
    /// Fills that ended when their client left, since too much ran in the background.
    pub fills_abandoned: u64,
    /// Requests that were neither looked up nor stored.
    pub bypassed: u64,
    /// Responses stored.
    pub stored: u64,
    /// Responses not stored, by reason; only reasons that occurred.
    pub declined: Vec<(DeclineReason, u64)>,
    /// Refreshes started behind an answer: a stale one, or a fresh one that is soon over.
    pub refreshes: u64,
    /// Refreshes not started since too many were running.
    pub refreshes_refused: u64,
    /// [Tags of what was used](crate::UsedTags) that came when their response was stored already, or given up. It doesn't bear them.
    pub tags_too_late: u64,
    /// Resources made invalid by writes.
    pub invalidations: u64,
    /// Purges by the application or an operator.
    pub purges: u64,
    /// Purges that are still remembered now: one for each tag, URI or pattern. Those that all of the store in memory was held against are forgotten.
    pub purges_remembered: u64,
    /// Responses that left the store in memory because a purge had touched them, when the store was swept.
    pub swept: u64,
    /// Keys that left the store because their principal has a quota (`Policy::quota`).
    pub quota_evictions: u64,
    /// Principals of `Policy::per` that have something stored, counted once for each rule.
    pub partitions: u64,
    /// Operations that a store failed. Those that it was spared are in [`guard`](Self::guard).
    pub store_errors: u64,
    /// What the guard of the store has seen; `None` where that is the one in memory.
    pub guard: Option<GuardStats>,
    /// How long look-ups in the store took, where that isn't the one in memory.
    pub store_latency: Latency,
    /// What happened between a store in memory and another one behind it, or between instances that share one.
    pub tiers: TierStats,
    /// What is known of the log over which instances tell each other what they purge; `None` where the store has none.
    pub purge_log: Option<PurgeLogStats>,
    /// What compression of stored content did.
    pub compression: CompressionStats,
    /// What the store holds; of two, the one in memory.
    pub storage: StorageUsage,
}

impl Stats {
    /// Requests that were spared the handler, or its content, among all that were looked up, from 0 to 1; 0 before the first.
    pub fn hit_rate(&self) -> f64 {
        let answered = self.hits + self.stale + self.revalidated + self.collapsed;
        let all = answered + self.misses;
        if all == 0 { 0.0 } else { answered as f64 / all as f64 }
    }

    /// How many responses were not stored for this reason.
    pub fn declined_for(&self, reason: DeclineReason) -> u64 {
        self.declined.iter().find(|(other, _)| *other == reason).map_or(0, |(_, count)| *count)
    }
}

/// What happened between stores, and between instances that share one, since the cache was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TierStats {
    /// Responses that were copied from the other store to the one in memory ([`CacheLayer::tiered`](crate::CacheLayer::tiered)).
    pub promoted: u64,
    /// Look-ups that were answered by what another request was asking the store already.
    pub reads_shared: u64,
    /// Leases that this instance had: requests that went to the handler for all instances.
    pub leases: u64,
    /// Requests that another instance's answer was found for.
    pub leases_awaited: u64,
    /// Requests that waited for another instance as long as they may ([`CacheLayer::max_lease_wait`](crate::CacheLayer::max_lease_wait)).
    pub lease_waits_timed_out: u64,
}

#[derive(Debug, Default)]
pub(crate) struct TierCounters {
    pub(crate) promoted: AtomicU64,
    pub(crate) reads_shared: AtomicU64,
    pub(crate) leases: AtomicU64,
    pub(crate) leases_awaited: AtomicU64,
    pub(crate) lease_waits_timed_out: AtomicU64,
}

impl TierCounters {
    fn snapshot(&self) -> TierStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TierStats {
            promoted: read(&self.promoted),
            reads_shared: read(&self.reads_shared),
            leases: read(&self.leases),
            leases_awaited: read(&self.leases_awaited),
            lease_waits_timed_out: read(&self.lease_waits_timed_out),
        }
    }
}

/// What an instance knows of the log of purges that it shares with others ([`Storage::purge_log`](crate::storage::Storage::purge_log)), and what came of it since the cache was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PurgeLogStats {
    /// What is stored is used now: all purges of others were known less than [`CacheLayer::staleness_bound`](crate::CacheLayer::staleness_bound) ago, and none of this instance's own is owed.
    pub trusted: bool,
    /// The number of the newest purge that is known.
    pub number: u64,
    /// How long ago all purges were known; `None` if that never was so.
    pub silence: Option<std::time::Duration>,
    /// Purges of this instance that aren't in the log yet, now.
    pub owed: u64,
    /// Purges that were not in the log at once.
    pub unwritten: u64,
    /// Purges that were heard of, this instance's own among them.
    pub heard: u64,
    /// How often it began from a snapshot: once at the beginning, and wherever the log had a gap or a new epoch.
    pub snapshots: u64,
    /// Exchanges with the log that failed.
    pub failures: u64,
}

/// What compression of stored content did since the cache was made (`CacheLayer::compress`). The bytes are sums over all responses that were ever
/// compressed; what is stored now is in [`Stats::storage`], where coded content counts as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompressionStats {
    /// Stored responses that were compressed.
    pub done: u64,
    /// Responses that stayed as they were, since too little would have been saved.
    pub not_worth: u64,
    /// Responses that weren't compressed since too much was waiting for that already, or something else was stored in their place meanwhile.
    pub skipped: u64,
    /// Stored responses that couldn't be decoded to what they were, and were dropped.
    pub corrupt: u64,
    /// The bytes of the content of [`done`](Self::done) before.
    pub plain_bytes: u64,
    /// The bytes of the same content compressed.
    pub coded_bytes: u64,
}

impl CompressionStats {
    /// Bytes after compression for each byte before; 1 before anything was compressed.
    pub fn ratio(&self) -> f64 {
        if self.plain_bytes == 0 { 1.0 } else { self.coded_bytes as f64 / self.plain_bytes as f64 }
    }
}

#[derive(Debug, Default)]
pub(crate) struct CompressionCounters {
    pub(crate) done: AtomicU64,
    pub(crate) not_worth: AtomicU64,
    pub(crate) skipped: AtomicU64,
    pub(crate) corrupt: AtomicU64,
    pub(crate) plain_bytes: AtomicU64,
    pub(crate) coded_bytes: AtomicU64,
}

impl CompressionCounters {
    fn snapshot(&self) -> CompressionStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CompressionStats {
            done: read(&self.done),
            not_worth: read(&self.not_worth),
            skipped: read(&self.skipped),
            corrupt: read(&self.corrupt),
            plain_bytes: read(&self.plain_bytes),
            coded_bytes: read(&self.coded_bytes),
        }
    }
}

/// What the cache counts that is of no route.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) followers_alone: AtomicU64,
    pub(crate) waits_timed_out: AtomicU64,
    pub(crate) waits_refused: AtomicU64,
    pub(crate) fills_handed_over: AtomicU64,
    pub(crate) fills_abandoned: AtomicU64,
    pub(crate) refreshes: AtomicU64,
    pub(crate) refreshes_refused: AtomicU64,
    pub(crate) tags_too_late: AtomicU64,
    /// How often each path was written to.
    pub(crate) writes: Writes,
    pub(crate) invalidations: AtomicU64,
    pub(crate) purges: AtomicU64,
    pub(crate) swept: AtomicU64,
    pub(crate) quota_evictions: AtomicU64,
    /// Look-ups in a store that isn't in memory.
    pub(crate) store_latency: Histogram,
    pub(crate) tiers: TierCounters,
    pub(crate) compression: CompressionCounters,
}

/// So many more of something.
pub(crate) fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

/// What there is now, beside what was counted.
pub(crate) struct Gauges {
    pub(crate) purges_remembered: u64,
    pub(crate) partitions: u64,
    pub(crate) waiting: u64,
    pub(crate) fills_in_flight: u64,
    pub(crate) fill_bytes: u64,
    pub(crate) guard: Option<GuardStats>,
    pub(crate) purge_log: Option<PurgeLogStats>,
}

/// One more of something.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    pub(crate) fn snapshot(&self, routes: &Ledger, storage: StorageUsage, now: Gauges) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let outcomes = |which: fn(&Outcome) -> bool| {
            let those: Vec<Outcome> = Outcome::all().filter(which).collect();
            routes.sum(|route| those.iter().map(|outcome| route.outcome(*outcome)).sum())
        };
        let declined = DeclineReason::ALL.iter().map(|reason| (*reason, routes.sum(|route| route.declined(*reason))));
        Stats {
            hits: outcomes(|outcome| matches!(outcome, Outcome::Hit | Outcome::Fallback)),
            stale: outcomes(|outcome| matches!(outcome, Outcome::Stale(_))),
            revalidated: outcomes(|outcome| matches!(outcome, Outcome::Revalidated(_))),
            misses: outcomes(|outcome| matches!(outcome, Outcome::Miss(_))),
            collapsed: outcomes(|outcome| matches!(outcome, Outcome::Collapsed(_))),
            followers_alone: read(&self.followers_alone),
            waits_timed_out: read(&self.waits_timed_out),
            waits_refused: read(&self.waits_refused),
            waiting: now.waiting,
            fills_in_flight: now.fills_in_flight,
            fill_bytes: now.fill_bytes,
            purge_log: now.purge_log,
            fills_handed_over: read(&self.fills_handed_over),
            fills_abandoned: read(&self.fills_abandoned),
            bypassed: outcomes(|outcome| matches!(outcome, Outcome::Bypass(_))),
            stored: routes.sum(|route| read(&route.stored)),
            declined: declined.filter(|(_, count)| *count > 0).collect(),
            refreshes: read(&self.refreshes),
            refreshes_refused: read(&self.refreshes_refused),
            tags_too_late: read(&self.tags_too_late),
            invalidations: read(&self.invalidations),
            purges: read(&self.purges),
            purges_remembered: now.purges_remembered,
            swept: read(&self.swept),
            quota_evictions: read(&self.quota_evictions),
            partitions: now.partitions,
            store_errors: routes.sum(|route| read(&route.store_errors)),
            guard: now.guard,
            store_latency: self.store_latency.latency(),
            tiers: self.tiers.snapshot(),
            compression: self.compression.snapshot(),
            storage,
        }
    }
}
