//! [`Shelf`]: what the operations on stored responses share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::keys::Keyspace;
use super::link::Link;
use super::server::Server;
use super::varies::Varies;
use crate::record::{RecordError, RecordFormat};

pub(super) struct Shelf {
    pub(super) server: Arc<Server>,
    /// The connection for everything but following the log.
    pub(super) data: Arc<Link>,
    pub(super) format: RecordFormat,
    pub(super) varies: Varies,
    pub(super) counts: Counts,
}

#[derive(Default)]
pub(super) struct Counts {
    damaged: AtomicU64,
    unusable: AtomicU64,
}

impl Shelf {
    pub(super) fn new(server: Arc<Server>, format: RecordFormat) -> Self {
        Self { data: Link::new(server.clone()), server, format, varies: Varies::default(), counts: Counts::default() }
    }

    pub(super) fn keyspace(&self) -> &Keyspace {
        &self.server.settings.keyspace
    }
}

impl Counts {
    pub(super) fn refused(&self, error: RecordError) {
        let is_damaged = matches!(error, RecordError::Length | RecordError::Seal | RecordError::Malformed);
        let counter = if is_damaged { &self.damaged } else { &self.unusable };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// How many were damaged, and how many whole ones were of no use.
    pub(super) fn now(&self) -> (u64, u64) {
        (self.damaged.load(Ordering::Relaxed), self.unusable.load(Ordering::Relaxed))
    }
}
