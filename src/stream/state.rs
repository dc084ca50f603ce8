//! [`State`]: what has come of some content, how far each reader is, and what is kept of it for whom.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use slab::Slab;

use super::Source;
use crate::cache::CacheCore;
use crate::error::BodyError;
use crate::fill::{Admitted, Content, Fill, Held};
use crate::pieces::PIECE;
use crate::plan::Plan;
use crate::rfc9111::storability::DeclineReason;

/// What others than the one who polls the source read in smaller amounts than this is copied for them; more is shared.
const SHARED: usize = 4 << 10;

/// How far readers may be apart where the content isn't kept.
pub(super) const WINDOW: usize = 1 << 20;

pub(super) struct State {
    /// What others read, or still have to read; in order and without gaps.
    pub(super) pieces: VecDeque<Piece>,
    /// Where the pieces end, and what was gathered since begins.
    pub(super) shared: u64,
    /// What is kept and nobody else has asked for yet. Small content whose length is known has its place here, next to each other: if nobody
    /// ever asks, it is stored as it is.
    pub(super) gathered: BytesMut,
    /// What has passed.
    pub(super) length: u64,
    /// What all that is kept was charged to the budget.
    pub(super) charged: Held,
    /// Once it is in one piece.
    pub(super) whole: Option<Bytes>,
    /// It is being put together.
    pub(super) joining: bool,
    pub(super) ended: Option<Result<Option<HeaderMap>, BodyError>>,
    pub(super) fill: Fill,
    pub(super) readers: Slab<Place>,
    /// Somebody wanted to poll the source while somebody else did.
    pub(super) contended: bool,
}

pub(super) struct Piece {
    pub(super) start: u64,
    pub(super) data: Bytes,
    /// How many readers have it before them, where it isn't kept.
    pub(super) left: usize,
}

#[derive(Default)]
pub(super) struct Place {
    /// How many bytes it has had.
    pub(super) position: u64,
    pub(super) waker: Option<Waker>,
    pub(super) left_behind: bool,
}

/// What is left to do when nothing is locked any more.
#[must_use]
#[derive(Default)]
pub(super) struct After {
    pub(super) wakers: Vec<Waker>,
    pub(super) finished: Option<(Plan, Content)>,
    pub(super) given_up: Option<(Plan, DeclineReason)>,
    /// The handler's body, whose end may run code of its own.
    pub(super) gone: Option<Source>,
}

impl State {
    /// Nothing has come yet; with the place of the first reader.
    pub(super) fn begin(core: Arc<CacheCore>, fill: Fill) -> (Self, usize) {
        let mut state = Self {
            pieces: VecDeque::new(),
            shared: 0,
            gathered: BytesMut::new(),
            length: 0,
            charged: Held { core, bytes: 0 },
            whole: None,
            joining: false,
            ended: None,
            fill,
            readers: Slab::with_capacity(1),
            contended: false,
        };
        let place = state.enter();
        (state, place)
    }

    /// One more who reads from the beginning.
    pub(super) fn enter(&mut self) -> usize {
        self.readers.insert(Place::default())
    }

    pub(super) fn all_wakers(&mut self) -> Vec<Waker> {
        self.readers.iter_mut().filter_map(|(_, place)| place.waker.take()).collect()
    }

    /// Takes all that will come from the budget if it is more than `small`: to give up halfway helps nobody. The plan is given up where that is refused.
    pub(super) fn reserve(&mut self, small: usize) -> Option<(Plan, DeclineReason)> {
        let is_large = self.fill.announced().is_some_and(|length| length > small as u64);
        let refused = is_large && !self.fill.reserve();
        refused.then(|| self.fill.stop()).flatten().map(|plan| (plan, DeclineReason::FillBudget))
    }

    /// Keeps what has come, or holds it for those who are behind. The driver has it already.
    pub(super) fn push(&mut self, data: &Bytes, driver: Option<usize>) -> Option<(Plan, DeclineReason)> {
        if let Some(place) = driver.and_then(|driver| self.readers.get_mut(driver)) {
            place.position += data.len() as u64;
        }
        let start = self.length;
        self.length += data.len() as u64;
        let memory = self.memory_for(data.len());
        let charge = if self.fill.announced().is_some() { data.len() } else { memory };
        let given_up = match self.fill.admit(data.len(), charge) {
            Admitted::Kept => {
                self.charged.bytes += charge;
                self.gather(data, memory);
                return None;
            }
            Admitted::Passes => None,
            Admitted::Over(reason) => {
                self.share_all();
                self.count_readers();
                self.fill.stop().map(|plan| (plan, reason))
            }
        };
        self.shared = self.length;
        let left = self.reading().saturating_sub(usize::from(driver.is_some()));
        self.pieces.push_back(Piece { start, data: data.clone(), left });
        self.trim();
        given_up
    }

    fn reading(&self) -> usize {
        self.readers.iter().filter(|(_, place)| !place.left_behind).count()
    }

    /// Whether the reader at `place` has had all that has come, and more may.
    pub(super) fn is_at_tip(&self, place: usize) -> bool {
        let has_all = |place: &Place| place.position == self.length && !place.left_behind;
        self.ended.is_none() && self.readers.get(place).is_some_and(has_all)
    }

    /// How much memory has to be taken to keep so much more, which `length` has in it already. Where nobody knows how much will come, no
    /// more than is kept, or than a piece.
    fn memory_for(&self, more: usize) -> usize {
        let wanted = more.saturating_sub(self.room());
        let kept = self.length as usize - more;
        match self.fill.announced() {
            _ if wanted == 0 => 0,
            _ if wanted >= PIECE => wanted.next_multiple_of(PIECE),
            Some(length) => (length as usize).saturating_sub(kept + self.room()).min(PIECE).max(wanted),
            None => kept.min(PIECE).max(wanted),
        }
    }

    /// How much more fits into the memory that was taken.
    fn room(&self) -> usize {
        self.gathered.capacity() - self.gathered.len()
    }

    /// Copies what has come, into so much memory more.
    fn gather(&mut self, mut data: &[u8], mut memory: usize) {
        loop {
            let (fits, rest) = data.split_at(self.room().min(data.len()));
            self.gathered.extend_from_slice(fits);
            if rest.is_empty() {
                return;
            }
            self.share_all();
            let capacity = memory.clamp(1, PIECE);
            self.gathered = self.charged.core.take_piece(capacity);
            (data, memory) = (rest, memory.saturating_sub(capacity));
        }
    }

    /// Makes a piece of all that was gathered, and of the memory that is left there: so that goes with the piece, and can be used again.
    fn share_all(&mut self) {
        let data = std::mem::take(&mut self.gathered).freeze();
        self.push_piece(data);
    }

    /// Makes a piece of what was gathered, for others to read.
    fn share(&mut self) {
        let data = self.gathered.split().freeze();
        self.push_piece(data);
    }

    fn push_piece(&mut self, data: Bytes) {
        if !data.is_empty() {
            let start = self.shared;
            self.shared += data.len() as u64;
            self.pieces.push_back(Piece { start, data, left: 0 });
        }
    }

    /// What comes at `position`; `None` at the tip, and where it isn't there at the moment.
    pub(super) fn read(&mut self, position: u64) -> Option<Bytes> {
        if position >= self.length {
            return None;
        }
        if let Some(whole) = &self.whole {
            let rest = whole.slice((position as usize).min(whole.len())..);
            return (!rest.is_empty()).then_some(rest);
        }
        if position >= self.shared && self.gathered.len() as u64 > position - self.shared {
            let unread = &self.gathered[(position - self.shared) as usize..];
            if unread.len() < SHARED {
                return Some(Bytes::copy_from_slice(unread));
            }
            self.share();
        }
        let number = self.pieces.partition_point(|piece| piece.start <= position).checked_sub(1)?;
        let piece = self.pieces.get_mut(number)?;
        let inside = (position - piece.start) as usize;
        if inside >= piece.data.len() {
            return None;
        }
        piece.left = piece.left.saturating_sub(1);
        Some(piece.data.slice(inside..))
    }

    /// Ends, well or badly.
    pub(super) fn end(&mut self, end: Result<Option<HeaderMap>, BodyError>) -> After {
        let mut after = After::default();
        match &end {
            Ok(None) => match self.fill.finish() {
                Some(Ok(plan)) => {
                    let content = self.content(plan.announced.is_some());
                    after.finished = Some((plan, content));
                }
                Some(Err(given_up)) => after.given_up = Some(given_up),
                None => {}
            },
            Ok(Some(_)) => after.given_up = self.fill.stop().map(|plan| (plan, DeclineReason::Trailers)),
            Err(_) => after.given_up = self.fill.stop().map(|plan| (plan, DeclineReason::Incomplete)),
        }
        if after.given_up.is_some() {
            self.share_all();
            self.count_readers();
            self.trim();
        }
        self.ended = Some(end);
        after.wakers = self.all_wakers();
        after
    }

    /// All that was kept, for the store.
    fn content(&mut self, is_exact: bool) -> Content {
        if is_exact && self.pieces.is_empty() {
            let whole = self.gathered.split().freeze();
            self.whole = Some(whole.clone());
            return Content::Whole(whole);
        }
        self.share_all();
        self.joining = true;
        let nobody_reads = self.readers.iter().all(|(_, place)| place.position == self.length);
        let pieces = if nobody_reads {
            // So that each can go as soon as it is copied.
            self.pieces.drain(..).map(|piece| piece.data).collect()
        } else {
            self.pieces.iter().map(|piece| piece.data.clone()).collect()
        };
        Content::Pieces(pieces, self.length as usize)
    }

    /// From now on nothing is kept but for those who have it before them.
    fn count_readers(&mut self) {
        for piece in &mut self.pieces {
            let end = piece.start + piece.data.len() as u64;
            piece.left = self.readers.iter().filter(|(_, place)| place.position < end && !place.left_behind).count();
        }
    }

    /// How much is held for those who are behind.
    pub(super) fn backlog(&self) -> usize {
        self.pieces.front().map_or(0, |piece| (self.shared - piece.start) as usize)
    }

    /// Lets go of what everybody has read, where it isn't kept. Tells whether somebody may have waited for that.
    pub(super) fn trim(&mut self) -> bool {
        if self.fill.is_keeping() || self.joining {
            return false;
        }
        let was_full = self.backlog() >= WINDOW;
        while self.pieces.front().is_some_and(|piece| piece.left == 0) {
            self.pieces.pop_front();
        }
        let kept = self.charged.bytes.min(self.backlog());
        self.charged.give_back(self.charged.bytes - kept);
        was_full && self.backlog() < WINDOW
    }

    /// Takes a reader away who won't read what it has before it.
    pub(super) fn forget(&mut self, position: u64) {
        for piece in self.pieces.iter_mut().filter(|piece| piece.start + piece.data.len() as u64 > position) {
            piece.left = piece.left.saturating_sub(1);
        }
    }

    /// Those who wait for nobody else go on without those who have the first piece before them.
    pub(super) fn leave_behind(&mut self) -> Vec<Waker> {
        let Some(first) = self.pieces.front() else { return Vec::new() };
        let end = first.start + first.data.len() as u64;
        let slow = |place: &&mut Place| place.position < end && !place.left_behind;
        let mut left_behind = Vec::new();
        for place in self.readers.iter_mut().map(|(_, place)| place).filter(slow) {
            place.left_behind = true;
            left_behind.push(place.position);
        }
        // Nobody is: then nobody has it before them, and it must go.
        if left_behind.is_empty() {
            self.count_readers();
        }
        left_behind.into_iter().for_each(|position| self.forget(position));
        self.trim();
        self.all_wakers()
    }
}
