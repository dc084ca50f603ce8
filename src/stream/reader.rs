//! [`Reader`]: one of those who read content while it streams.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, TryLockError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use tokio::time::Sleep;

use super::Stream;
use super::state::{After, Place, WINDOW};
use crate::error::{BodyError, Broken};

/// How many frames are taken at most before others may run.
const MOST_AT_ONCE: usize = 64;

/// How long a reader may keep the others waiting there.
const PATIENCE: Duration = Duration::from_secs(10);

/// Someone who reads the content from its first byte.
pub(crate) struct Reader {
    stream: Arc<Stream>,
    place: usize,
    /// Came later than the one whose request went to the handler.
    pub(super) is_follower: bool,
    /// No client reads.
    unattended: bool,
    ended: bool,
    /// What it has, and hasn't given yet.
    pub(super) own: VecDeque<Bytes>,
    /// Since it waits for others, and for which piece they do.
    waits: Option<(u64, Pin<Box<Sleep>>)>,
}

/// What a reader does next.
enum Step {
    Give(Option<Result<Frame<Bytes>, BodyError>>),
    Drive,
    Wait,
    /// For those who lag behind the piece with this number.
    WaitForOthers(u64),
}

impl Reader {
    pub(super) fn at(stream: Arc<Stream>, place: usize) -> Self {
        Self { stream, place, is_follower: false, unattended: false, ended: false, own: VecDeque::new(), waits: None }
    }

    /// What it reads.
    pub(crate) fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(data) = self.own.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        // A source that is always ready and has nothing to say must not keep us here.
        for _ in 0..MOST_AT_ONCE {
            match self.step(cx) {
                Step::Give(frame) => {
                    self.waits = None;
                    return Poll::Ready(frame);
                }
                Step::Wait => return Poll::Pending,
                Step::WaitForOthers(first) if !self.has_waited_for(first, cx) => return Poll::Pending,
                Step::WaitForOthers(_) => {
                    let wakers = self.stream.state().leave_behind();
                    wakers.into_iter().for_each(Waker::wake);
                }
                Step::Drive => {
                    if let Some(data) = ready!(self.stream.drive(self.place)) {
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn step(&mut self, cx: &Context<'_>) -> Step {
        if self.ended {
            return Step::Give(None);
        }
        let mut guard = self.stream.state();
        let state = &mut *guard;
        let Some(place) = state.readers.get(self.place) else { return Step::Give(None) };
        if place.left_behind {
            self.ended = true;
            return Step::Give(Some(Err(BodyError::new(Broken::TooSlow))));
        }
        let position = place.position;
        if let Some(data) = state.read(position) {
            if let Some(place) = state.readers.get_mut(self.place) {
                place.position += data.len() as u64;
            }
            let wakers = if state.trim() { state.all_wakers() } else { Vec::new() };
            drop(guard);
            wakers.into_iter().for_each(Waker::wake);
            return Step::Give(Some(Ok(Frame::data(data))));
        }
        match &state.ended {
            Some(Ok(trailers)) if position == state.length => {
                self.ended = true;
                let is_short = self.stream.promised.is_some_and(|promised| promised != position);
                return Step::Give(match trailers {
                    // The handler's own client is told by its server; this one wasn't promised anything by the handler.
                    _ if is_short && self.is_follower => Some(Err(BodyError::new(Broken::Length))),
                    Some(trailers) => Some(Ok(Frame::trailers(trailers.clone()))),
                    None => None,
                });
            }
            Some(Err(error)) => {
                self.ended = true;
                return Step::Give(Some(Err(error.clone())));
            }
            _ => {}
        }
        if let Some(place) = state.readers.get_mut(self.place) {
            match &mut place.waker {
                Some(known) => known.clone_from(cx.waker()),
                unknown => *unknown = Some(cx.waker().clone()),
            }
        }
        match state.ended {
            // It is being put together.
            Some(_) => Step::Wait,
            None if state.backlog() >= WINDOW && !state.fill.is_keeping() => {
                Step::WaitForOthers(state.pieces.front().map_or(0, |piece| piece.start))
            }
            None => Step::Drive,
        }
    }

    /// Whether it has waited long enough for those who have the piece at `first` before them.
    fn has_waited_for(&mut self, first: u64, cx: &mut Context<'_>) -> bool {
        if self.waits.as_ref().is_none_or(|(piece, _)| *piece != first) {
            if tokio::runtime::Handle::try_current().is_err() {
                return false;
            }
            self.waits = Some((first, Box::pin(tokio::time::sleep(PATIENCE))));
        }
        self.waits.as_mut().is_some_and(|(_, sleep)| sleep.as_mut().poll(cx).is_ready())
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        let state = self.stream.state();
        let at_end = matches!(state.ended, Some(Ok(None))) && !self.is_follower;
        let has_nothing = self.own.is_empty();
        has_nothing
            && (self.ended
                || at_end && state.readers.get(self.place).is_some_and(|place| place.position == state.length))
    }

    /// How much is still to be read, where the handler's body knew its length.
    pub(crate) fn left(&self) -> Option<u64> {
        let exact = self.stream.exact?;
        let position = self.stream.state().readers.get(self.place).map_or(exact, |place| place.position);
        let own: usize = self.own.iter().map(Bytes::len).sum();
        Some(exact.saturating_sub(position) + own as u64)
    }

    /// Reads on without a client, until the content is in the store or won't be. When all that was announced is there, nothing more is waited for.
    pub(crate) async fn finish(mut self) {
        self.unattended = true;
        loop {
            let next = poll_fn(|cx| match self.poll_frame(cx) {
                Poll::Pending if self.stream.state().fill.is_complete() => Poll::Ready(None),
                next => next,
            });
            let read = next.await;
            if !matches!(read, Some(Ok(_))) || !self.stream.state().fill.is_keeping() {
                break;
            }
        }
    }
}

impl Drop for Reader {
    /// The last reader leaves the rest to a task of the cache. A server that has sent all that was announced doesn't ask for the end, so
    /// then this is it.
    fn drop(&mut self) {
        let mut guard = self.stream.state();
        let state = &mut *guard;
        let Some(place) = state.readers.try_remove(self.place) else { return };
        if !place.left_behind {
            state.forget(place.position);
        }
        state.trim();
        let mut after = After::default();
        let mut heir = None;
        if !state.readers.is_empty() {
            // It may have been the one who would have asked for more.
            after.wakers.extend(state.all_wakers());
        } else if state.ended.is_none() {
            if state.fill.is_complete() {
                after = state.end(Ok(None));
            } else if state.fill.is_keeping() && !self.unattended {
                heir = Some(state.readers.insert(Place { position: state.length, ..Place::default() }));
            } else {
                after = state.end(Err(BodyError::new(Broken::Gone)));
            }
        }
        let is_last = state.readers.is_empty();
        drop(guard);
        if is_last {
            // Its wakers may hold the stream, and it is in the stream.
            match self.stream.source.try_lock() {
                Ok(mut source) => *source = None,
                Err(TryLockError::Poisoned(poisoned)) => *poisoned.into_inner() = None,
                Err(TryLockError::WouldBlock) => {}
            }
        }
        self.stream.see_to(after);
        if let Some(place) = heir {
            let mut heir = Reader::at(self.stream.clone(), place);
            heir.unattended = true;
            self.stream.core.finish_unattended(heir.finish());
        }
    }
}
