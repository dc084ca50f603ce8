//! The names of all metrics, with what they mean: `docs/metrics.md` has the same table with the labels.

use ::metrics::Unit;

/// Where the classes of durations end that dashboard and alerts expect of a recorder, in seconds: from the microsecond that a hit takes to the ten seconds
/// after which a handler counts as hanging.
pub const DURATION_BUCKETS: [f64; 22] = [
    1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0,
];

/// A metric and its meaning.
pub(super) struct Metric {
    pub(super) name: &'static str,
    kind: Kind,
    unit: Unit,
    help: &'static str,
}

enum Kind {
    Counter,
    Gauge,
    Histogram,
}

const fn counter(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, unit: Unit::Count, help }
}

const fn gauge(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, unit: Unit::Count, help }
}

const fn seconds(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Histogram, unit: Unit::Seconds, help }
}

const fn bytes(metric: Metric) -> Metric {
    Metric { unit: Unit::Bytes, ..metric }
}

/// Names each metric once: as a constant, and among all.
macro_rules! metrics {
    ($($constant:ident = $metric:expr;)+) => {
        $(pub(super) const $constant: Metric = $metric;)+

        const ALL: [Metric; [$(stringify!($constant)),+].len()] = [$($constant),+];
    };
}

metrics! {
    REQUESTS = counter("larder_requests_total", "Answers to clients, by what the cache did and why");
    DECLINED = counter("larder_declined_total", "Responses not stored, by reason");
    STORED = counter("larder_stored_total", "Responses stored");
    MISSED = counter("larder_missed_total", "Requests that the store couldn't answer, by what had become of what they asked for");
    CONTENT_BYTES = bytes(counter("larder_content_bytes_total", "Bytes of content, by where they came from"));
    EVICTIONS = counter("larder_evictions_total", "Keys that left the store in memory, for want of room or because their time was over");
    PURGED = counter("larder_purged_total", "Stored responses that purges made useless");
    STORE_ERRORS = counter("larder_store_errors_total", "Operations that the store failed");
    STORE_OPEN = gauge("larder_store_guard_open", "Whether the store isn't asked just now, since it failed: 1, else 0");
    STORE_OPENED = counter("larder_store_guard_opened_total", "How often that began");
    STORE_TIMEOUTS = counter("larder_store_timeouts_total", "Operations that the store didn't answer in time");
    STORE_SPARED = counter("larder_store_spared_total", "Operations that the store was spared since it isn't asked just now");
    WRITES_DROPPED = counter("larder_store_writes_dropped_total", "Writes that were dropped, since too many were on their way");
    WRITES_IN_FLIGHT = gauge("larder_store_writes_in_flight", "Writes on their way into a store that isn't in memory");
    ENTRIES = gauge("larder_entries", "Keys that have something stored in memory");
    ENTRIES_BYTES = bytes(gauge("larder_entries_bytes", "Bytes that they take"));
    HIT_DURATION = seconds("larder_hit_duration_seconds", "How long clients waited for answers from the store; one hit in 64 is measured");
    MISS_DURATION = seconds("larder_miss_duration_seconds", "How long clients waited for the head of answers for which a handler was asked");
    HANDLER_DURATION = seconds("larder_handler_duration_seconds", "How long the handler took until the head of its answer");
    STORE_DURATION = seconds("larder_store_duration_seconds", "How long a store that isn't in memory took");
    PURGES = counter("larder_purges_total", "Purges by the application or an operator");
    INVALIDATIONS = counter("larder_invalidations_total", "Resources made invalid by writes");
    QUOTA_EVICTIONS = counter("larder_quota_evictions_total", "Keys that left the store because their principal has a quota");
    STORE_EVICTIONS = counter("larder_store_evictions_total", "What the store as a whole says that it let go");
    REFRESHES = counter("larder_refreshes_total", "Refreshes started behind an answer");
    REFRESHES_REFUSED = counter("larder_refreshes_refused_total", "Refreshes not started since too many were running");
    DATA_REQUESTS = counter("larder_data_requests_total", "Values that were asked for, by what came of it");
    DATA_LOADS = counter("larder_data_loads_total", "Loads of values, by how they ended");
    DATA_WRITES = counter("larder_data_writes_total", "Values that were set or deleted");
    DATA_DECLINED = counter("larder_data_declined_total", "Values that were loaded and not stored");
    DATA_MISMATCHED = counter("larder_data_mismatched_total", "Values that could not be read as what they were asked for as");
    DATA_ENTRIES = gauge("larder_data_entries", "Values in memory");
    DATA_BYTES = bytes(gauge("larder_data_bytes", "Bytes that they take"));
    DATA_LOAD_DURATION = seconds("larder_data_load_duration_seconds", "How long loads of values took");
    OBJECT_REQUESTS = counter("larder_objects_requests_total", "Objects that were asked for, by what came of it");
    OBJECT_LOADS = counter("larder_objects_loads_total", "Loads of objects, by how they ended");
    OBJECT_INSERTS = counter("larder_objects_inserted_total", "Objects that were inserted");
    OBJECTS_DECLINED = counter("larder_objects_declined_total", "Objects that were loaded and not kept");
    OBJECTS = gauge("larder_objects_entries", "Objects that are held");
    OBJECTS_WEIGHT = gauge("larder_objects_weight", "What they weigh, as the application weighs them");
    TAGS_TOO_LATE = counter("larder_tags_too_late_total", "Tags of what was used that came when their response was stored already, or given up");
    FOLLOWERS_ALONE = counter("larder_followers_alone_total", "Requests that waited for another one's answer in vain, and then went to the handler");
    WAITS_TIMED_OUT = counter("larder_waits_timed_out_total", "Requests that waited for another one's answer as long as they may");
    WAITS_REFUSED = counter("larder_waits_refused_total", "Requests that may not wait since too many did");
    FILLS_HANDED_OVER = counter("larder_fills_handed_over_total", "Fills that went on in the background when their client left");
    FILLS_ABANDONED = counter("larder_fills_abandoned_total", "Fills that ended when their client left, since too much ran in the background");
    PROMOTED = counter("larder_promoted_total", "Responses copied from the far store to the one in memory");
    READS_SHARED = counter("larder_reads_shared_total", "Look-ups in the far store that were answered by what another request was asking it");
    LEASES = counter("larder_leases_total", "Requests that went to the handler for all instances that share the store");
    LEASES_AWAITED = counter("larder_leases_awaited_total", "Requests that another instance's answer was found for");
    LEASE_WAITS_TIMED_OUT = counter("larder_lease_waits_timed_out_total", "Requests that waited for another instance as long as they may");
    STORE_ENTRIES = gauge("larder_store_entries", "Keys with something stored, as the store says");
    STORE_BYTES = bytes(gauge("larder_store_bytes", "Bytes in the store, as it counts them"));
    PARTITIONS = gauge("larder_partitions", "Principals that have something stored");
    WAITING = gauge("larder_waiting", "Requests that wait for another one's answer");
    FILLS_IN_FLIGHT = gauge("larder_fills_in_flight", "Requests that are with the handler, or whose answers are on their way into the store");
    FILL_BYTES = bytes(gauge("larder_fill_bytes", "Bytes on their way into the store"));
    PURGE_LOG_TRUSTED = gauge("larder_purge_log_trusted", "1 while what is stored is used; 0 while the log of purges is silent, or a purge isn't in it yet");
    PURGE_LOG_SNAPSHOTS = counter("larder_purge_log_snapshots_total", "How often the purges of all instances were loaded anew");
    PURGE_LOG_FAILURES = counter("larder_purge_log_failures_total", "Exchanges with the log of purges that failed");
    PURGES_HEARD = counter("larder_purges_heard_total", "Purges that came over the log");
    PURGES_OWED = gauge("larder_purges_owed", "Purges that aren't in the log yet");
    PURGES_UNWRITTEN = counter("larder_purges_unwritten_total", "Purges that were not in the log at once");
    COMPRESSIONS = counter("larder_compressions_total", "Stored responses that were looked at for compression, by what came of it");
    COMPRESSION_BYTES = bytes(counter("larder_compression_bytes_total", "Bytes of what was compressed, before and after"));
}

/// Tells the recorder what each metric means, and its unit. Once, when the recorder is there.
pub fn describe() {
    for Metric { name, kind, unit, help } in ALL {
        match kind {
            Kind::Counter => ::metrics::describe_counter!(name, unit, help),
            Kind::Gauge => ::metrics::describe_gauge!(name, unit, help),
            Kind::Histogram => ::metrics::describe_histogram!(name, unit, help),
        }
    }
}
