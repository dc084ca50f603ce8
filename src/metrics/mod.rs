//! Metrics for whatever recorder the application has installed, by the facade crate of the same name: what [`CacheHandle::stats`] and
//! [`CacheHandle::route_stats`] say, under names that Prometheus' users expect. Feature `metrics`.
//!
//! A request pays nothing for it. A [`Publisher`] copies the counters when somebody wants to see them, and only latencies are recorded as they are
//! measured: of each miss, and of one hit in 64. `docs/metrics.md` lists every name with its labels; `docs/grafana.json` is a dashboard over them, and
//! `docs/alerts.yml` has rules for alerts.
//!
//! ```
//! # use std::time::Duration;
//! use larder::{CacheLayer, Policy, metrics};
//!
//! // Here: the recorder is installed, such as that of `metrics-exporter-prometheus`, with `metrics::DURATION_BUCKETS` for what ends in `_seconds`.
//! metrics::describe();
//! let cache = CacheLayer::in_memory(64 << 20).rule("^/news/", Policy::shared(Duration::from_secs(60)));
//! let publisher = metrics::Publisher::new(&cache.handle());
//! // In the handler of `/metrics`, before the recorder renders:
//! publisher.publish();
//! ```

#[cfg(feature = "data")]
mod data;
mod names;
mod objects;
mod routes;

use std::fmt;
use std::sync::{Mutex, PoisonError};

use ::metrics::{Label, SharedString};

use self::names::{self as name, Metric};
pub use self::names::{DURATION_BUCKETS, describe};
use self::routes::Routes;
use crate::fates::MissCause;
use crate::handle::CacheHandle;
use crate::outcome::Outcome;
use crate::rfc9111::storability::DeclineReason;
use crate::stats::{PurgeLogStats, Stats};
use crate::storage::GuardStats;
use crate::tally::{RouteCounters, read};

/// Publishes what one cache counts.
///
/// Install the recorder first: latencies go to the one that is there when a route is published for the first time.
pub struct Publisher {
    handle: CacheHandle,
    cache: SharedString,
    most_routes: usize,
    routes: Mutex<Routes>,
}

impl Publisher {
    /// Of a cache that is called `larder`: the label `cache` of all its metrics.
    pub fn new(handle: &CacheHandle) -> Self {
        Self { handle: handle.clone(), cache: "larder".into(), most_routes: 100, routes: Mutex::default() }
    }

    /// Another value of the label `cache`, to tell several caches of a process apart.
    ///
    /// ```
    /// # let handle = larder::CacheLayer::in_memory(1 << 20).handle();
    /// let publisher = larder::metrics::Publisher::new(&handle).named("sessions");
    /// # drop(publisher);
    /// ```
    #[must_use]
    pub fn named(mut self, cache: impl Into<String>) -> Self {
        self.cache = SharedString::from_owned(cache.into());
        self
    }

    /// How many rules have their pattern as a value of the label `route`, beside `otherwise`; 100 by default. The first ones that are seen, through all
    /// reloads; the rest goes by the name of `other`, so that the number of series is bounded.
    #[must_use]
    pub fn max_routes(mut self, most: usize) -> Self {
        self.most_routes = most;
        self
    }

    /// Sets all counters and gauges to what they are now. To be called before each rendering, or as often as the recorder pushes. A counter of
    /// what never occurred has no series.
    pub fn publish(&self) {
        let core = self.handle.live.load_full();
        let labels = vec![Label::new("cache", self.cache.clone())];
        let stats = self.handle.stats();
        publish_cache(&Sheet { labels: labels.clone() }, &stats);
        core.counters.store_latency.also_in(|| {
            let labels = [labels.clone(), vec![Label::new("operation", "get")]].concat();
            ::metrics::histogram!(name::STORE_DURATION.name, labels)
        });
        #[cfg(feature = "data")]
        core.data.all().iter().for_each(|cache| data::publish(&labels, cache));
        core.shelves.stats().into_iter().for_each(|(cache, stats)| objects::publish(&labels, cache, &stats));
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        for (route, counters) in routes.rows(&core.ledger, self.most_routes) {
            let sheet = Sheet { labels: [labels.clone(), vec![Label::new("route", route)]].concat() };
            publish_route(&sheet, &counters);
        }
        for (route, counters) in routes.measured(&core.ledger) {
            let labels = [labels.clone(), vec![Label::new("route", route)]].concat();
            counters.hits.also_in(|| ::metrics::histogram!(name::HIT_DURATION.name, labels.clone()));
            counters.misses.also_in(|| ::metrics::histogram!(name::MISS_DURATION.name, labels.clone()));
            counters.handler.also_in(|| ::metrics::histogram!(name::HANDLER_DURATION.name, labels.clone()));
        }
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").field("cache", &self.cache).finish_non_exhaustive()
    }
}

/// The labels that a number of metrics have in common.
struct Sheet {
    labels: Vec<Label>,
}

impl Sheet {
    fn with(&self, more: &[(&'static str, &'static str)]) -> Vec<Label> {
        let more = more.iter().map(|(name, value)| Label::from_static_parts(name, value));
        self.labels.iter().cloned().chain(more).collect()
    }

    /// A series that doesn't begin before there is something to count.
    fn counter(&self, metric: &Metric, more: &[(&'static str, &'static str)], value: u64) {
        if value > 0 {
            ::metrics::counter!(metric.name, self.with(more)).absolute(value);
        }
    }

    fn gauge(&self, metric: &Metric, value: u64) {
        ::metrics::gauge!(metric.name, self.labels.clone()).set(value as f64);
    }
}

fn publish_route(sheet: &Sheet, route: &RouteCounters) {
    for outcome in Outcome::all() {
        let labels = [("outcome", outcome.kind()), ("reason", outcome.reason().unwrap_or_default())];
        sheet.counter(&name::REQUESTS, &labels, route.outcome(outcome));
    }
    for reason in DeclineReason::ALL {
        sheet.counter(&name::DECLINED, &[("reason", reason.as_str())], route.declined(reason));
    }
    for cause in MissCause::ALL {
        sheet.counter(&name::MISSED, &[("cause", cause.as_str())], route.cause(cause));
    }
    sheet.counter(&name::STORED, &[], read(&route.stored));
    sheet.counter(&name::CONTENT_BYTES, &[("source", "store")], route.store_bytes());
    sheet.counter(&name::CONTENT_BYTES, &[("source", "handler")], read(&route.handler_bytes));
    sheet.counter(&name::EVICTIONS, &[("reason", "capacity")], read(&route.evicted));
    sheet.counter(&name::EVICTIONS, &[("reason", "expired")], read(&route.expired));
    sheet.counter(&name::PURGED, &[], read(&route.purged));
    sheet.counter(&name::STORE_ERRORS, &[], read(&route.store_errors));
    sheet.gauge(&name::ENTRIES, read(&route.entries));
    sheet.gauge(&name::ENTRIES_BYTES, read(&route.bytes));
}

fn publish_guard(sheet: &Sheet, guard: &GuardStats) {
    sheet.gauge(&name::STORE_OPEN, guard.is_open.into());
    sheet.gauge(&name::WRITES_IN_FLIGHT, guard.writes_in_flight);
    sheet.counter(&name::STORE_OPENED, &[], guard.opened);
    sheet.counter(&name::STORE_TIMEOUTS, &[], guard.timeouts);
    sheet.counter(&name::STORE_SPARED, &[], guard.spared);
    sheet.counter(&name::WRITES_DROPPED, &[], guard.dropped_writes);
}

fn publish_cache(sheet: &Sheet, stats: &Stats) {
    let counters = [
        (&name::PURGES, stats.purges),
        (&name::INVALIDATIONS, stats.invalidations),
        (&name::QUOTA_EVICTIONS, stats.quota_evictions),
        (&name::STORE_EVICTIONS, stats.storage.evictions),
        (&name::REFRESHES, stats.refreshes),
        (&name::REFRESHES_REFUSED, stats.refreshes_refused),
        (&name::TAGS_TOO_LATE, stats.tags_too_late),
        (&name::FOLLOWERS_ALONE, stats.followers_alone),
        (&name::WAITS_TIMED_OUT, stats.waits_timed_out),
        (&name::WAITS_REFUSED, stats.waits_refused),
        (&name::FILLS_HANDED_OVER, stats.fills_handed_over),
        (&name::FILLS_ABANDONED, stats.fills_abandoned),
        (&name::PROMOTED, stats.tiers.promoted),
        (&name::READS_SHARED, stats.tiers.reads_shared),
        (&name::LEASES, stats.tiers.leases),
        (&name::LEASES_AWAITED, stats.tiers.leases_awaited),
        (&name::LEASE_WAITS_TIMED_OUT, stats.tiers.lease_waits_timed_out),
    ];
    counters.into_iter().for_each(|(metric, value)| sheet.counter(metric, &[], value));
    let gauges = [
        (&name::STORE_ENTRIES, stats.storage.entries),
        (&name::STORE_BYTES, stats.storage.bytes),
        (&name::PARTITIONS, stats.partitions),
        (&name::WAITING, stats.waiting),
        (&name::FILLS_IN_FLIGHT, stats.fills_in_flight),
        (&name::FILL_BYTES, stats.fill_bytes),
    ];
    gauges.into_iter().for_each(|(metric, value)| sheet.gauge(metric, value));
    stats.guard.iter().for_each(|guard| publish_guard(sheet, guard));
    stats.purge_log.iter().for_each(|log| publish_log(sheet, log));
    let compression = &stats.compression;
    let results = [
        ("done", compression.done),
        ("not-worth", compression.not_worth),
        ("skipped", compression.skipped),
        ("corrupt", compression.corrupt),
    ];
    for (result, count) in results {
        sheet.counter(&name::COMPRESSIONS, &[("result", result)], count);
    }
    for (form, bytes) in [("plain", compression.plain_bytes), ("coded", compression.coded_bytes)] {
        sheet.counter(&name::COMPRESSION_BYTES, &[("form", form)], bytes);
    }
}

fn publish_log(sheet: &Sheet, log: &PurgeLogStats) {
    sheet.gauge(&name::PURGE_LOG_TRUSTED, u64::from(log.trusted));
    sheet.gauge(&name::PURGES_OWED, log.owed);
    sheet.counter(&name::PURGE_LOG_SNAPSHOTS, &[], log.snapshots);
    sheet.counter(&name::PURGE_LOG_FAILURES, &[], log.failures);
    sheet.counter(&name::PURGES_HEARD, &[], log.heard);
    sheet.counter(&name::PURGES_UNWRITTEN, &[], log.unwritten);
}
