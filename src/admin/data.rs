//! `GET /stats/data`: what each data cache did, by name; `GET /explain/data/{key}`: what a look at a value would find, and why; and `POST /invalidate/data/{key}`, which drops one value.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use serde::Serialize;
use serde_json::{Value, json};

use super::explain::fate;
use super::invalidate::not_told;
use super::parameters::{Parameters, Segment};
use super::problem::Problem;
use super::routes::Times;
use super::{Admin, Json};
use crate::data::{DataCache, DataStats, is_name};

#[derive(Serialize)]
pub(super) struct Caches {
    caches: Vec<Cache>,
}

#[derive(Serialize)]
struct Cache {
    name: String,
    hit_rate: f64,
    hits: u64,
    stale: u64,
    misses: u64,
    stood_in: u64,
    collapsed: u64,
    errors_remembered: u64,
    loads: u64,
    load_errors: u64,
    refreshes: u64,
    written: u64,
    deleted: u64,
    declined: u64,
    mismatched: u64,
    entries: u64,
    bytes: u64,
    own_capacity: Option<u64>,
    evicted: u64,
    expired: u64,
    purged: u64,
    store_errors: u64,
    load_latency: Times,
}

#[derive(Serialize)]
pub(super) struct Deleted {
    name: String,
    /// Whether there was a value.
    found: bool,
}

pub(super) async fn stats(State(admin): State<Arc<Admin>>) -> Json<Caches> {
    let caches = admin.handle.live.load().data.all();
    Json(Caches { caches: caches.iter().map(|counters| Cache::of(counters.snapshot())).collect() })
}

/// What a look at `NAME:KEY` would find, and why. Which serialiser the application reads it with isn't known here.
pub(super) async fn explain(
    State(admin): State<Arc<Admin>>,
    Segment(named): Segment,
    parameters: Parameters,
) -> Result<Json<Value>, Problem> {
    parameters.finish()?;
    let (name, key) = named_key(&named)?;
    let cache = DataCache::of_any_name(admin.handle.live.clone(), name);
    let said = cache.explain_key(&cache.key(key.as_bytes()), false).await;
    let seconds = |duration: Option<Duration>| duration.map(|duration| duration.as_secs());
    Ok(Json(json!({
        "key": said.key,
        "state": said.state.as_str(),
        "meaning": said.state.meaning(),
        "in_memory": said.in_memory,
        "age_seconds": seconds(said.age),
        "lifetime_seconds": seconds(said.lifetime),
        "stale_seconds": seconds(said.stale_windows),
        "number": said.number,
        "tags": said.tags,
        "content_type": said.content_type,
        "atomic": said.atomic,
        "loading": said.loading,
        "fate": said.fate.as_ref().map(fate),
        "store_error": said.store_error,
        "text": said.to_string(),
    })))
}

fn named_key(named: &str) -> Result<(&str, &str), Problem> {
    let parts = named.split_once(':').filter(|(name, _)| is_name(name));
    let why = "it is the name of a data cache, a colon and the key, such as `products:17`";
    parts.ok_or_else(|| Problem::parameter("key", why))
}

/// `NAME:KEY`, as patterns see it. The value is dropped as [`DataCache::delete`](crate::DataCache::delete) does it.
pub(super) async fn delete(
    State(admin): State<Arc<Admin>>,
    Segment(named): Segment,
    parameters: Parameters,
) -> Result<Json<Deleted>, Problem> {
    parameters.finish()?;
    let (name, key) = named_key(&named)?;
    let live = &admin.handle.live;
    let found = DataCache::of_any_name(live.clone(), name).delete(key).await;
    // Deleting waits for the log for a moment, and goes on without it.
    if live.load().coherence.first_owed().is_some() {
        return Err(not_told("the value is deleted here, and the log of purges has yet to hear of it"));
    }
    tracing::info!(value = ?named, "purged through the admin API");
    Ok(Json(Deleted { name: name.into(), found }))
}

impl Cache {
    fn of(stats: DataStats) -> Self {
        Self {
            hit_rate: stats.hit_rate(),
            load_latency: Times::of(&stats.load_latency),
            name: stats.name,
            hits: stats.hits,
            stale: stats.stale,
            misses: stats.misses,
            stood_in: stats.stood_in,
            collapsed: stats.collapsed,
            errors_remembered: stats.errors_remembered,
            loads: stats.loads,
            load_errors: stats.load_errors,
            refreshes: stats.refreshes,
            written: stats.written,
            deleted: stats.deleted,
            declined: stats.declined,
            mismatched: stats.mismatched,
            entries: stats.entries,
            bytes: stats.bytes,
            own_capacity: stats.own_capacity,
            evicted: stats.evicted,
            expired: stats.expired,
            purged: stats.purged,
            store_errors: stats.store_errors,
        }
    }
}
