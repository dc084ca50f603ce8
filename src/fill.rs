//! [`Fill`]: a response's content on its way into the store. It keeps what streams by, within the limits, and commits only after a clean end;
//! dropped before, it leaves nothing behind but a counted reason.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};

use crate::cache::CacheCore;
use crate::plan::Plan;
use crate::rfc9111::storability::DeclineReason;

/// Chunks from this size on are kept as they are; smaller ones are gathered, for each would keep a whole read buffer in memory.
const KEPT: usize = 4 << 10;

/// How much is gathered before a new piece is begun.
const GATHERED: usize = 64 << 10;

/// Content up to this size is put together and hashed at once; larger content on a thread that may block, so that no client and no other
/// request waits for it.
const AT_ONCE: usize = 64 << 10;

/// A copy in the making.
pub(crate) struct Fill {
    /// `None` once it has ended.
    plan: Option<Plan>,
    chunks: Vec<Bytes>,
    gathered: BytesMut,
    length: usize,
    /// Bytes taken from the budget of all fills.
    held: usize,
}

impl Fill {
    pub(crate) fn new(plan: Plan) -> Self {
        Self { plan: Some(plan), chunks: Vec::new(), gathered: BytesMut::new(), length: 0, held: 0 }
    }

    /// No copy at all: the content only passes.
    pub(crate) fn none() -> Self {
        Self { plan: None, chunks: Vec::new(), gathered: BytesMut::new(), length: 0, held: 0 }
    }

    /// Whether nothing more is kept.
    pub(crate) fn has_ended(&self) -> bool {
        self.plan.is_none()
    }

    /// Whether all that was announced is there. What may still follow decides: the end, or something that makes the copy worthless.
    pub(crate) fn is_complete(&self) -> bool {
        self.plan.as_ref().is_some_and(|plan| plan.announced == Some(self.length as u64))
    }

    /// Keeps a chunk of the content.
    pub(crate) fn push(&mut self, chunk: &Bytes) {
        let Some(plan) = &self.plan else { return };
        let length = self.length + chunk.len();
        let settings = &plan.core.settings;
        if length > settings.max_body_size {
            return self.give_up(DeclineReason::BodyTooLarge);
        }
        if plan.announced.is_some_and(|announced| length as u64 > announced) {
            return self.give_up(DeclineReason::Incomplete);
        }
        if !plan.core.budget.take(chunk.len(), settings.max_fill_bytes) {
            return self.give_up(DeclineReason::FillBudget);
        }
        self.held += chunk.len();
        self.length = length;
        if chunk.len() >= KEPT {
            self.close_gathered();
            self.chunks.push(chunk.clone());
        } else {
            self.gathered.extend_from_slice(chunk);
            if self.gathered.len() >= GATHERED {
                self.close_gathered();
            }
        }
    }

    fn close_gathered(&mut self) {
        if !self.gathered.is_empty() {
            self.chunks.push(self.gathered.split().freeze());
        }
    }

    /// The content has ended cleanly: commits, if it has the length that was announced.
    pub(crate) fn finish(&mut self) {
        let length = self.length as u64;
        if self.plan.as_ref().is_some_and(|plan| plan.announced.is_some_and(|announced| announced != length)) {
            return self.give_up(DeclineReason::Incomplete);
        }
        let Some(plan) = self.plan.take() else { return };
        self.close_gathered();
        let (chunks, length) = (std::mem::take(&mut self.chunks), self.length);
        let core = plan.core.clone();
        // Given back also if the work is abandoned.
        let held = Held { core: core.clone(), bytes: std::mem::take(&mut self.held) };
        let store = move || {
            let content = join(chunks, length);
            let hash = plan.needs_hash().then(|| Sha256::digest(&content).into());
            // A reason not to store is counted where it is found.
            drop(plan.commit(content, hash));
            drop(held);
        };
        if length <= AT_ONCE { store() } else { core.spawn_blocking(store) }
    }

    /// Gives up: nothing will be stored, and the copy's memory is free again.
    pub(crate) fn give_up(&mut self, reason: DeclineReason) {
        if let Some(plan) = self.plan.take() {
            (self.chunks, self.gathered) = (Vec::new(), BytesMut::new());
            plan.core.budget.give_back(std::mem::take(&mut self.held));
            if matches!(reason, DeclineReason::BodyTooLarge | DeclineReason::Trailers) {
                plan.forget_previous();
            }
            plan.core.counters.stored(Err(reason));
            tracing::debug!(key = ?plan.key, reason = reason.as_str(), "not stored");
        }
    }
}

impl Drop for Fill {
    /// A server that has sent all that was announced doesn't ask for the end, so then this is it.
    fn drop(&mut self) {
        if self.is_complete() {
            self.finish();
        }
        self.give_up(DeclineReason::Incomplete);
    }
}

/// Bytes of the budget of all fills.
struct Held {
    core: Arc<CacheCore>,
    bytes: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.core.budget.give_back(self.bytes);
    }
}

/// The content in memory of exactly its size.
fn join(chunks: Vec<Bytes>, length: usize) -> Bytes {
    let mut content = BytesMut::with_capacity(length);
    for chunk in chunks {
        content.extend_from_slice(&chunk);
    }
    content.freeze()
}
