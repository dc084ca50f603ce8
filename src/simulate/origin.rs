//! [`SimulatedOrigin`]: what an answer says beside its status and size, which is all that a trace knows.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};

use super::Simulation;
use crate::cache::CacheCore;
use crate::clock::Moment;
use crate::head::StoredHead;
use crate::response::ensure_date;

pub(super) struct SimulatedOrigin {
    /// As it comes.
    pub(super) head: HeaderMap,
    pub(super) validates: bool,
    /// As it is stored, when it was first.
    stored: Option<StoredHead>,
}

/// As long as those that the cache makes.
const ETAG: HeaderValue = HeaderValue::from_static("\"00000000000000000000000000000000\"");

impl SimulatedOrigin {
    pub(super) fn new(simulation: &Simulation) -> Self {
        let mut head = HeaderMap::new();
        head.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        if let Some(lifetime) = simulation.origin_max_age {
            let value = HeaderValue::from_str(&format!("max-age={}", lifetime.as_secs()));
            head.extend(value.ok().map(|value| (header::CACHE_CONTROL, value)));
        }
        if simulation.origin_validates {
            head.insert(header::ETAG, ETAG);
        }
        Self { head, validates: simulation.origin_validates, stored: None }
    }

    /// The head as it lies in the store, where nearly all of it is shared, with the validators that the cache adds.
    pub(super) fn stored_head(&mut self, core: &CacheCore, now: Moment) -> StoredHead {
        let make = || {
            let mut head = self.head.clone();
            ensure_date(&mut head, now);
            let date = head.get(header::DATE).cloned();
            head.entry(header::ETAG).or_insert(ETAG);
            head.extend(date.map(|date| (header::LAST_MODIFIED, date)));
            head.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("public, max-age=60"));
            core.heads.store(&head, &core.settings.switches.names(), Bytes::new()).0
        };
        self.stored.get_or_insert_with(make).clone()
    }
}
