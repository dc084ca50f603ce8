//! `GET /health`: whether the store can be reached, and whether the cache is shutting down.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde::Serialize;

use super::{Admin, Json};
use crate::key::CacheKey;
use crate::storage::Query;

#[derive(Serialize)]
struct Health {
    status: &'static str,
    store: &'static str,
    guard: &'static str,
    shutting_down: bool,
    generation: u64,
}

/// How long a store may take before it counts as out of reach.
const LONGEST: Duration = Duration::from_secs(1);

/// Answers 200 while all is well, and 503 where a request to the cache couldn't be answered from its store.
pub(super) async fn health(State(admin): State<Arc<Admin>>) -> Response {
    let core = admin.handle.live.load_full();
    let is_reachable = match &core.settings.backend.far {
        None => true,
        Some(far) => {
            // Nothing has such a key: every path begins with a slash.
            let (key, headers) = (CacheKey::new(b"", "health", None), HeaderMap::new());
            let asked = tokio::time::timeout(LONGEST, far.get(Query::new(&key, &headers, core.now()))).await;
            matches!(asked, Ok(Ok(_)))
        }
    };
    let guard = match core.settings.backend.guard_stats() {
        None => "none",
        Some(guard) if guard.is_open => "open",
        Some(_) => "closed",
    };
    let shutting_down = core.closing.load(Ordering::Acquire);
    let status = match (is_reachable, shutting_down) {
        (_, true) => "shutting_down",
        (false, false) => "store_unreachable",
        (true, false) => "ok",
    };
    let store = if is_reachable { "reachable" } else { "unreachable" };
    let mut response =
        Json(Health { status, store, guard, shutting_down, generation: core.generation }).into_response();
    if status != "ok" {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}
