//! [`Fill`]: what is needed to store a response while its content passes: the plan, and the bytes taken from the budget of all fills.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};

use crate::boarding::is_passing;
use crate::cache::CacheCore;
use crate::pieces::PIECE;
use crate::plan::Plan;
use crate::rfc9111::storability::DeclineReason;
use crate::spans;

/// A response on its way into the store, or only passing.
pub(crate) struct Fill {
    /// `None` where nothing is kept, or nothing more.
    plan: Option<Plan>,
    length: usize,
    /// All that is still to come is in the budget already.
    reserved: usize,
}

/// What becomes of a piece of content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admitted {
    /// It is kept, and in the budget.
    Kept,
    /// It only passes.
    Passes,
    /// Nothing is kept from now on.
    Over(DeclineReason),
}

impl Fill {
    pub(crate) fn new(plan: Plan) -> Self {
        Self { plan: Some(plan), length: 0, reserved: 0 }
    }

    /// No copy at all: the content only passes.
    pub(crate) fn none() -> Self {
        Self { plan: None, length: 0, reserved: 0 }
    }

    /// Whether the content is being kept.
    pub(crate) fn is_keeping(&self) -> bool {
        self.plan.is_some()
    }

    /// The length that was announced.
    pub(crate) fn announced(&self) -> Option<u64> {
        self.plan.as_ref().and_then(|plan| plan.announced)
    }

    /// Whether all that was announced is there. What may still follow decides: the end, or something that makes the copy worthless.
    pub(crate) fn is_complete(&self) -> bool {
        self.plan.as_ref().is_some_and(|plan| plan.announced == Some(self.length as u64))
    }

    /// Looks whether a piece may be kept, for which so much memory is taken. If nothing may from now on, the plan is for [`stop`](Self::stop).
    ///
    /// Where the length is unknown, who needs memory again also takes what it will need next from the budget, a piece at most. So of a crowd of which most have to
    /// give up, they do so when half of the budget is in use, and not with all of it taken in parts that nothing else fits between.
    pub(crate) fn admit(&mut self, piece: usize, memory: usize) -> Admitted {
        let Some(plan) = &self.plan else { return Admitted::Passes };
        let length = self.length + piece;
        let settings = &plan.core.settings;
        if length > settings.max_body_size {
            return Admitted::Over(DeclineReason::BodyTooLarge);
        }
        if plan.announced.is_some_and(|announced| length as u64 > announced) {
            return Admitted::Over(DeclineReason::Incomplete);
        }
        let ahead = if plan.announced.is_none() && memory > 0 && self.length > 0 {
            length.min(PIECE)
        } else {
            self.reserved.saturating_sub(memory)
        };
        if !plan.core.budget.take((memory + ahead).saturating_sub(self.reserved), settings.max_fill_bytes) {
            return Admitted::Over(DeclineReason::FillBudget);
        }
        self.reserved = ahead;
        self.length = length;
        Admitted::Kept
    }

    /// Takes what is still to come from the budget, so that nobody who reads along has to be stopped; where its length is known.
    pub(crate) fn reserve(&mut self) -> bool {
        let Some(plan) = &self.plan else { return false };
        let Some(announced) = plan.announced.and_then(|announced| usize::try_from(announced).ok()) else { return true };
        let wanted = announced.saturating_sub(self.length).saturating_sub(self.reserved);
        let taken = plan.core.budget.take(wanted, plan.core.settings.max_fill_bytes);
        if taken {
            self.reserved += wanted;
        }
        taken
    }

    /// Nothing more is kept. What was reserved is free again; the charges of the pieces go with them.
    pub(crate) fn stop(&mut self) -> Option<Plan> {
        let plan = self.plan.take()?;
        plan.core.budget.give_back(std::mem::take(&mut self.reserved));
        Some(plan)
    }

    /// The content has ended cleanly: what is to be stored, or the reason against it.
    pub(crate) fn finish(&mut self) -> Option<Result<Plan, (Plan, DeclineReason)>> {
        let length = self.length as u64;
        let plan = self.stop()?;
        let is_whole = plan.announced.is_none_or(|announced| announced == length);
        Some(if is_whole { Ok(plan) } else { Err((plan, DeclineReason::Incomplete)) })
    }
}

/// All of a response's content, for the store.
pub(crate) enum Content {
    /// In memory of exactly its size.
    Whole(Bytes),
    /// In pieces, of this length together.
    Pieces(Vec<Bytes>, usize),
}

impl Content {
    pub(crate) fn length(&self) -> usize {
        match self {
            Self::Whole(whole) => whole.len(),
            Self::Pieces(_, length) => *length,
        }
    }
}

/// Puts the content together and stores it. A reason not to store is counted where it is found.
pub(crate) fn store(plan: Plan, content: Content) -> Bytes {
    let mut hash = plan.needs_hash().then(Sha256::new);
    let mut see = |data: &[u8]| hash.iter_mut().for_each(|hash| hash.update(data));
    let whole = match content {
        Content::Whole(whole) => {
            see(&whole);
            whole
        }
        Content::Pieces(pieces, length) => join(&plan.core, pieces, length, see),
    };
    let hash = hash.map(|hash| hash.finalize().into());
    drop(plan.commit(&whole, hash));
    whole
}

/// Nothing will be stored.
pub(crate) fn give_up(plan: Plan, reason: DeclineReason) {
    if matches!(reason, DeclineReason::BodyTooLarge | DeclineReason::Trailers) {
        plan.forget_previous();
        plan.core.remember(plan.asked, false, plan.core.now());
    }
    plan.flight.decline();
    if is_passing(reason) {
        plan.flight.lent().iter().for_each(|lent| lent.has_failed());
    }
    plan.core.note_stored(&plan.route, &plan.key, Err(reason));
    spans::decline(&plan.span, reason);
    tracing::debug!(key = ?plan.key.without_query(), reason = reason.as_str(), "not stored");
}

impl CacheCore {
    /// Empty memory of this capacity, to gather content in.
    pub(crate) fn take_piece(&self, capacity: usize) -> BytesMut {
        self.pieces.take(capacity, self.room_for_free_pieces())
    }

    /// What was gathered is elsewhere now.
    pub(crate) fn give_back_piece(&self, piece: Bytes) {
        self.pieces.give_back(piece, self.room_for_free_pieces());
    }

    /// A part of what fills may still take. So what lies free goes long before they have taken all, and they find room where it lay.
    fn room_for_free_pieces(&self) -> usize {
        self.budget.left(self.settings.max_fill_bytes) / 4
    }
}

/// Bytes of the budget of all fills.
pub(crate) struct Held {
    pub(crate) core: Arc<CacheCore>,
    pub(crate) bytes: usize,
}

impl Held {
    pub(crate) fn give_back(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.core.budget.give_back(bytes);
    }

    pub(crate) fn release(&mut self) {
        self.give_back(self.bytes);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.release();
    }
}

/// The content in memory of exactly its size. Each piece is seen while it is near, and let go as soon as it is copied.
fn join(core: &CacheCore, pieces: Vec<Bytes>, length: usize, mut see: impl FnMut(&[u8])) -> Bytes {
    let mut content = BytesMut::with_capacity(length);
    for piece in pieces {
        content.extend_from_slice(&piece);
        see(&piece);
        core.give_back_piece(piece);
    }
    content.freeze()
}
