//! `GET /performance`: how well the cache does, and what would make it do better.

use std::sync::Arc;

use axum::extract::State;
use serde::Serialize;

use super::routes::milliseconds;
use super::{Admin, Json};
use crate::handle::CacheHandle;
use crate::stats::Stats;

/// What clients know; the names and meanings stay.
#[derive(Serialize)]
pub(super) struct Performance {
    service_metrics: ServiceMetrics,
    middleware_metrics: MiddlewareMetrics,
    /// Each in a sentence or two; `/report` has the evidence.
    recommendations: Vec<String>,
}

#[derive(Serialize)]
struct ServiceMetrics {
    hit_rate: f64,
    avg_response_time_ms: f64,
}

/// `hits` and `misses` are those that `hit_rate` is of.
#[derive(Serialize)]
struct MiddlewareMetrics {
    total_requests: u64,
    hits: u64,
    misses: u64,
    bypassed: u64,
}

pub(super) async fn performance(State(admin): State<Arc<Admin>>) -> Json<Performance> {
    let stats = admin.handle.stats();
    let advice = admin.handle.report().recommendations;
    Json(Performance {
        service_metrics: ServiceMetrics {
            hit_rate: stats.hit_rate(),
            avg_response_time_ms: average_response_time(&admin.handle),
        },
        middleware_metrics: MiddlewareMetrics::of(&stats),
        recommendations: advice.iter().map(ToString::to_string).collect(),
    })
}

impl MiddlewareMetrics {
    fn of(stats: &Stats) -> Self {
        let hits = stats.hits + stats.stale + stats.revalidated + stats.collapsed;
        let total_requests = hits + stats.misses + stats.bypassed;
        Self { total_requests, hits, misses: stats.misses, bypassed: stats.bypassed }
    }
}

/// Of requests that were looked up, in milliseconds until the head of the answer was there; 0 before the first. Answers from the store are measured by a sample,
/// which stands for all of them.
fn average_response_time(handle: &CacheHandle) -> f64 {
    let (mut time, mut answers) = (0.0, 0.0);
    for route in handle.route_stats() {
        let looked_up = route.count(|outcome| !matches!(outcome, crate::outcome::Outcome::Bypass(_)));
        let from_store = looked_up.saturating_sub(route.miss_latency.count) as f64;
        time += from_store * milliseconds(route.hit_latency.mean) + milliseconds(route.miss_latency.total);
        answers += from_store + route.miss_latency.count as f64;
    }
    if answers == 0.0 { 0.0 } else { time / answers }
}
