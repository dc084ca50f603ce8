//! `GET /stats/objects`: what each cache of objects did, by name; and `POST /invalidate/objects/{name}`, which drops all that those of a name hold.

use std::sync::Arc;

use axum::extract::State;
use serde::Serialize;

use super::invalidate::refused;
use super::parameters::{Parameters, Segment};
use super::problem::Problem;
use super::{Admin, Json};
use crate::naming::is_data_name;
use crate::objects::ObjectStats;

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
    loads: u64,
    load_errors: u64,
    inserted: u64,
    declined: u64,
    entries: u64,
    weight: u64,
}

#[derive(Serialize)]
pub(super) struct Dropped {
    name: String,
    /// Of the purge.
    number: u64,
    /// How many objects lay there before, as far as that is known here.
    entries: u64,
}

/// Those of this process that somebody has a hold on.
pub(super) async fn stats(State(admin): State<Arc<Admin>>) -> Json<Caches> {
    let stats = admin.handle.live.load().shelves.stats();
    Json(Caches { caches: stats.into_iter().map(|(name, stats)| Cache::of(name, &stats)).collect() })
}

/// By name, since nobody knows what the keys of objects are called. A name that nobody uses here may be used by another instance.
pub(super) async fn purge(
    State(admin): State<Arc<Admin>>,
    Segment(name): Segment,
    parameters: Parameters,
) -> Result<Json<Dropped>, Problem> {
    parameters.finish()?;
    if !is_data_name(&name) {
        return Err(Problem::parameter("name", "it is the name of a cache of objects, such as `templates`"));
    }
    let live = &admin.handle.live;
    live.keep_coherent();
    let core = live.load_full();
    let entries = core.shelves.stats().get(&name).map_or(0, |stats| stats.entries);
    let number = core.purge_objects(&name).await.map_err(|error| refused(&error))?;
    tracing::info!(objects = ?name, number, "purged through the admin API");
    Ok(Json(Dropped { name, number, entries }))
}

impl Cache {
    fn of(name: String, stats: &ObjectStats) -> Self {
        Self {
            hit_rate: stats.hit_rate(),
            name,
            hits: stats.hits,
            stale: stats.stale,
            misses: stats.misses,
            stood_in: stats.stood_in,
            collapsed: stats.collapsed,
            loads: stats.loads,
            load_errors: stats.failures,
            inserted: stats.inserted,
            declined: stats.declined,
            entries: stats.entries,
            weight: stats.weight,
        }
    }
}
