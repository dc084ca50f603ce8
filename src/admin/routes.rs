//! `GET /stats/routes`: what each route did, and how long that took.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use serde::Serialize;

use super::{Admin, Json};
use crate::histogram::Latency;
use crate::outcome::Outcome;
use crate::route_stats::RouteStats;

#[derive(Serialize)]
pub(super) struct Routes {
    routes: Vec<Route>,
}

#[derive(Serialize)]
struct Route {
    /// `None` of what `otherwise` says.
    rule: Option<String>,
    requests: u64,
    hit_rate: f64,
    outcomes: Vec<Counted>,
    declined: BTreeMap<&'static str, u64>,
    missed: BTreeMap<&'static str, u64>,
    stored: u64,
    bytes_from_store: u64,
    bytes_from_handler: u64,
    entries: u64,
    bytes: u64,
    evicted: u64,
    expired: u64,
    purged: u64,
    store_errors: u64,
    hit_latency: Times,
    miss_latency: Times,
    handler_latency: Times,
}

#[derive(Serialize)]
struct Counted {
    /// `hit`, `miss` and so on.
    outcome: &'static str,
    reason: Option<&'static str>,
    count: u64,
}

#[derive(Serialize)]
pub(super) struct Times {
    count: u64,
    mean_ms: f64,
    p50_ms: f64,
    p90_ms: f64,
    p99_ms: f64,
}

pub(super) async fn routes(State(admin): State<Arc<Admin>>) -> Json<Routes> {
    Json(Routes { routes: admin.handle.route_stats().iter().map(Route::of).collect() })
}

impl Route {
    fn of(stats: &RouteStats) -> Self {
        Self {
            rule: stats.pattern.clone(),
            requests: stats.requests(),
            hit_rate: stats.hit_rate(),
            outcomes: stats.outcomes.iter().map(Counted::of).collect(),
            declined: stats.declined.iter().map(|(reason, count)| (reason.as_str(), *count)).collect(),
            missed: stats.missed.iter().map(|(cause, count)| (cause.as_str(), *count)).collect(),
            stored: stats.stored,
            bytes_from_store: stats.bytes_from_store,
            bytes_from_handler: stats.bytes_from_handler,
            entries: stats.entries,
            bytes: stats.bytes,
            evicted: stats.evicted,
            expired: stats.expired,
            purged: stats.purged,
            store_errors: stats.store_errors,
            hit_latency: Times::of(&stats.hit_latency),
            miss_latency: Times::of(&stats.miss_latency),
            handler_latency: Times::of(&stats.handler_latency),
        }
    }
}

impl Counted {
    fn of((outcome, count): &(Outcome, u64)) -> Self {
        Self { outcome: outcome.kind(), reason: outcome.reason(), count: *count }
    }
}

impl Times {
    pub(super) fn of(latency: &Latency) -> Self {
        Self {
            count: latency.count,
            mean_ms: milliseconds(latency.mean),
            p50_ms: milliseconds(latency.p50),
            p90_ms: milliseconds(latency.p90),
            p99_ms: milliseconds(latency.p99),
        }
    }
}

pub(super) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
