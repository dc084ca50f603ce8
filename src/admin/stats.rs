//! `GET /stats`: what the cache did, and what its store holds.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use axum::extract::State;
use serde::Serialize;

use super::tags::Counted;
use super::{Admin, Json};
use crate::stats::{PurgeLogStats, Stats};
use crate::storage::GuardStats;

/// The first five are what clients know; their names and meanings stay.
#[derive(Serialize)]
pub(super) struct Answer {
    total_entries: u64,
    /// MiB.
    total_size_mb: f64,
    hit_rate: f64,
    compression_ratio: f64,
    tags_count: u64,
    total_size_bytes: u64,
    evictions: u64,
    store_errors: u64,
    guard: Option<Guard>,
    purge_log: Option<PurgeLog>,
    hits: u64,
    stale: u64,
    revalidated: u64,
    collapsed: u64,
    misses: u64,
    bypassed: u64,
    stored: u64,
    declined: BTreeMap<String, u64>,
    refreshes: u64,
    refreshes_refused: u64,
    tags_too_late: u64,
    invalidations: u64,
    purges: u64,
    purges_remembered: u64,
    swept: u64,
    partitions: u64,
    quota_evictions: u64,
    waiting: u64,
    waits_timed_out: u64,
    waits_refused: u64,
    fills_in_flight: u64,
    fill_bytes: u64,
    fills_handed_over: u64,
    fills_abandoned: u64,
    tiers: Tiers,
    compression: Compression,
}

#[derive(Serialize)]
struct Tiers {
    promoted: u64,
    reads_shared: u64,
    leases: u64,
    leases_awaited: u64,
    lease_waits_timed_out: u64,
}

#[derive(Serialize)]
struct Guard {
    is_open: bool,
    opened: u64,
    timeouts: u64,
    spared: u64,
    dropped_writes: u64,
    writes_in_flight: u64,
}

#[derive(Serialize)]
struct PurgeLog {
    trusted: bool,
    number: u64,
    silent_seconds: Option<f64>,
    owed: u64,
    unwritten: u64,
    heard: u64,
    snapshots: u64,
    failures: u64,
}

#[derive(Serialize)]
struct Compression {
    done: u64,
    not_worth: u64,
    skipped: u64,
    corrupt: u64,
    plain_bytes: u64,
    coded_bytes: u64,
}

pub(super) async fn stats(State(admin): State<Arc<Admin>>) -> Json<Answer> {
    let tags_count = admin.count_tags().await;
    Json(Answer::of(&admin.handle.stats(), tags_count))
}

impl Admin {
    /// Distinct tags of what is stored.
    async fn count_tags(&self) -> u64 {
        let core = self.handle.live.load_full();
        let now = core.now();
        let known = *self.tags.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tags) = known.and_then(|counted| counted.tags_at(now)) {
            return tags;
        }
        let counted = Counted::of(&core).await;
        *self.tags.lock().unwrap_or_else(PoisonError::into_inner) = Some(counted);
        counted.tags
    }
}

impl Guard {
    fn of(stats: &GuardStats) -> Self {
        let GuardStats { is_open, opened, timeouts, spared, dropped_writes, writes_in_flight } = *stats;
        Self { is_open, opened, timeouts, spared, dropped_writes, writes_in_flight }
    }
}

impl PurgeLog {
    fn of(stats: &PurgeLogStats) -> Self {
        let PurgeLogStats { trusted, number, silence, owed, unwritten, heard, snapshots, failures } = *stats;
        let silent_seconds = silence.map(|silence| silence.as_secs_f64());
        Self { trusted, number, silent_seconds, owed, unwritten, heard, snapshots, failures }
    }
}

impl Answer {
    fn of(stats: &Stats, tags_count: u64) -> Self {
        let declined = stats.declined.iter().map(|(reason, count)| (reason.to_string(), *count));
        let (tiers, compression) = (&stats.tiers, &stats.compression);
        Self {
            total_entries: stats.storage.entries,
            total_size_mb: stats.storage.bytes as f64 / f64::from(1 << 20),
            hit_rate: stats.hit_rate(),
            compression_ratio: compression.ratio(),
            tags_count,
            total_size_bytes: stats.storage.bytes,
            evictions: stats.storage.evictions,
            store_errors: stats.store_errors,
            guard: stats.guard.as_ref().map(Guard::of),
            purge_log: stats.purge_log.as_ref().map(PurgeLog::of),
            hits: stats.hits,
            stale: stats.stale,
            revalidated: stats.revalidated,
            collapsed: stats.collapsed,
            misses: stats.misses,
            bypassed: stats.bypassed,
            stored: stats.stored,
            declined: declined.collect(),
            refreshes: stats.refreshes,
            refreshes_refused: stats.refreshes_refused,
            tags_too_late: stats.tags_too_late,
            invalidations: stats.invalidations,
            purges: stats.purges,
            purges_remembered: stats.purges_remembered,
            swept: stats.swept,
            partitions: stats.partitions,
            quota_evictions: stats.quota_evictions,
            waiting: stats.waiting,
            waits_timed_out: stats.waits_timed_out,
            waits_refused: stats.waits_refused,
            fills_in_flight: stats.fills_in_flight,
            fill_bytes: stats.fill_bytes,
            fills_handed_over: stats.fills_handed_over,
            fills_abandoned: stats.fills_abandoned,
            tiers: Tiers {
                promoted: tiers.promoted,
                reads_shared: tiers.reads_shared,
                leases: tiers.leases,
                leases_awaited: tiers.leases_awaited,
                lease_waits_timed_out: tiers.lease_waits_timed_out,
            },
            compression: Compression {
                done: compression.done,
                not_worth: compression.not_worth,
                skipped: compression.skipped,
                corrupt: compression.corrupt,
                plain_bytes: compression.plain_bytes,
                coded_bytes: compression.coded_bytes,
            },
        }
    }
}
