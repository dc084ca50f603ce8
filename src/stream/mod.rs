//! [`Stream`]: content that streams from the handler to whoever reads it, and into the store.
//!
//! Nobody is its owner. Whoever is hungry polls the handler's body, and what comes is kept for the others; so a reader that is slow or gone keeps
//! nobody waiting, and as long as only one reads, its own task does all the work. When the last reader leaves, a task of the cache reads the rest.
//!
//! While the content is being kept for the store, each reader goes at its own pace. If it turns out too large for that, only a window of it
//! is kept: then readers wait for the slowest, and one that takes nothing for long is left behind with an error.

mod reader;
mod state;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, TryLockError};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use http_body::{Body, Frame};
use smallvec::SmallVec;

pub(crate) use self::reader::Reader;
use self::state::{After, State};
use crate::cache::CacheCore;
use crate::error::{BodyError, BoxError, Broken};
use crate::fill::{Fill, give_up, store};
use crate::pieces::PIECE;
use crate::sync::{Mutex, MutexGuard, PoisonError};

/// Content up to this size is put together and hashed at once; larger content on a thread that may block, so that no client and no other
/// request waits for it.
const AT_ONCE: usize = PIECE;

pub(crate) type Source = Pin<Box<dyn Body<Data = Bytes, Error = BoxError> + Send>>;

/// What has come of a source already.
pub(crate) type Frames = SmallVec<[Result<Frame<Bytes>, BoxError>; 1]>;

/// Content on its way.
pub(crate) struct Stream {
    core: Arc<CacheCore>,
    /// Locked before `state`, and only tried: whoever holds it does what the others want.
    source: Mutex<Option<Source>>,
    state: Mutex<State>,
    /// The length that the handler's body knew.
    exact: Option<u64>,
    /// The length that followers are promised.
    promised: Option<u64>,
}

impl Stream {
    /// Begins with the frames that came already; `exact` is the length of all as the body knows it, `promised` as the
    /// head says it.
    pub(crate) fn begin(
        core: Arc<CacheCore>,
        source: Source,
        ready: Frames,
        fill: Fill,
        (exact, promised): (Option<u64>, Option<u64>),
    ) -> Reader {
        let (state, place) = State::begin(core.clone(), fill);
        let stream =
            Arc::new(Self { core, source: Mutex::new(Some(source)), state: Mutex::new(state), exact, promised });
        let mut reader = Reader::at(stream.clone(), place);
        let given_up = stream.state().reserve(AT_ONCE);
        stream.see_to(After { given_up, ..After::default() });
        reader.own = stream.take_in(ready, place);
        reader
    }

    /// What came before there was a stream is passed on behalf of the first reader; returns what that has of it.
    fn take_in(self: &Arc<Self>, ready: Frames, first: usize) -> VecDeque<Bytes> {
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = source.as_ref().is_none_or(|source| source.is_end_stream());
        let many = ready.len();
        let mut own = VecDeque::new();
        for (n, frame) in ready.into_iter().enumerate() {
            let (after, data) = self.pass(&mut source, Some(frame), is_over && n + 1 == many, Some(first));
            own.extend(data);
            self.see_to(after);
        }
        if many == 0 && is_over {
            let (after, _) = self.pass(&mut source, None, true, None);
            self.see_to(after);
        }
        own
    }

    /// Someone else who reads it from the beginning; `None` where that isn't there any more, or can't be kept until the end.
    pub(crate) fn join(self: &Arc<Self>) -> Option<Reader> {
        let mut state = self.state();
        let is_there = state.whole.is_some() || state.joining || state.fill.is_keeping();
        if !is_there || state.fill.is_keeping() && !state.fill.reserve() {
            return None;
        }
        let place = state.enter();
        drop(state);
        let mut reader = Reader::at(self.clone(), place);
        reader.is_follower = true;
        Some(reader)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the next frame of the source for the reader at `place`, if nobody else does that. What has come is its own at once.
    fn drive(self: &Arc<Self>, place: usize) -> Poll<Option<Bytes>> {
        let mut source = match self.source.try_lock() {
            Ok(source) => source,
            Err(TryLockError::Poisoned(poisoned)) => return self.lose(&mut poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => {
                self.state().contended = true;
                // It may have been let go just before that was said.
                match self.source.try_lock() {
                    Ok(source) => source,
                    Err(TryLockError::Poisoned(poisoned)) => return self.lose(&mut poisoned.into_inner()),
                    Err(TryLockError::WouldBlock) => return Poll::Pending,
                }
            }
        };
        let is_at_tip = self.state().is_at_tip(place);
        if !is_at_tip {
            // Somebody else was quicker: what has come since is to be read first.
            drop(source);
            self.let_others_try();
            return Poll::Ready(None);
        }
        let Some(body) = source.as_mut() else { return self.lose(&mut source) };
        let waker = Waker::from(self.clone());
        let polled = body.as_mut().poll_frame(&mut Context::from_waker(&waker));
        let Poll::Ready(frame) = polled else {
            drop(source);
            self.let_others_try();
            return Poll::Pending;
        };
        let is_last = body.is_end_stream();
        let (after, own) = self.pass(&mut source, frame, is_last, Some(place));
        drop(source);
        self.see_to(after);
        self.let_others_try();
        Poll::Ready(own)
    }

    /// The source is gone, by a panic of its own, or with the process' last reader.
    fn lose(self: &Arc<Self>, source: &mut Option<Source>) -> Poll<Option<Bytes>> {
        *source = None;
        let mut state = self.state();
        let mut after = After::default();
        if state.ended.is_none() {
            after = state.end(Err(BodyError::new(Broken::Gone)));
        }
        drop(state);
        self.see_to(after);
        Poll::Ready(None)
    }

    fn let_others_try(&self) {
        let mut state = self.state();
        if std::mem::take(&mut state.contended) {
            let wakers = state.all_wakers();
            drop(state);
            wakers.into_iter().for_each(Waker::wake);
        }
    }

    /// A frame has come, or the end. A server that sees the end coming doesn't ask for another frame, so the copy ends with the last piece.
    fn pass(
        &self,
        source: &mut Option<Source>,
        frame: Option<Result<Frame<Bytes>, BoxError>>,
        is_last: bool,
        driver: Option<usize>,
    ) -> (After, Option<Bytes>) {
        // Dropped with nothing locked: it may be all that holds a reader.
        let _not_waiting;
        let mut state = self.state();
        if state.ended.is_some() {
            return Default::default();
        }
        // The driver has what comes. To be woken as well would have its runtime poll it once more for each frame, and wake a thread that looks for work.
        _not_waiting = driver.and_then(|driver| state.readers.get_mut(driver)?.waker.take());
        let (mut given_up, mut own) = (None, None);
        let end = match frame {
            None => Some(Ok(None)),
            Some(Err(error)) => Some(Err(BodyError::new(error))),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    if !data.is_empty() {
                        given_up = state.push(&data, driver);
                        own = driver.is_some().then_some(data);
                    }
                    is_last.then_some(Ok(None))
                }
                Err(frame) => match frame.into_trailers() {
                    Ok(trailers) => Some(Ok(Some(trailers))),
                    Err(_) => is_last.then_some(Ok(None)),
                },
            },
        };
        let mut after = match end {
            Some(end) => After { gone: source.take(), ..state.end(end) },
            None => After { wakers: state.all_wakers(), ..After::default() },
        };
        after.given_up = after.given_up.or(given_up);
        (after, own)
    }

    /// Does what has to be done with nothing locked.
    fn see_to(self: &Arc<Self>, after: After) {
        if let Some((plan, reason)) = after.given_up {
            give_up(plan, reason);
        }
        if let Some((plan, content)) = after.finished {
            if content.length() <= AT_ONCE {
                let whole = store(plan, content);
                self.put_together(whole);
            } else {
                let joining = Joining(self.clone());
                self.core.spawn_behind(move || {
                    let whole = store(plan, content);
                    joining.0.put_together(whole);
                });
            }
        }
        drop(after.gone);
        after.wakers.into_iter().for_each(Waker::wake);
    }

    /// The whole is there in one piece: it takes the place of the pieces.
    fn put_together(&self, whole: Bytes) {
        let mut state = self.state();
        let pieces = std::mem::take(&mut state.pieces);
        state.charged.release();
        (state.whole, state.joining) = (Some(whole), false);
        let wakers = state.all_wakers();
        drop(state);
        pieces.into_iter().for_each(|piece| self.core.give_back_piece(piece.data));
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// All who wait are told: which of them will poll nobody knows, for a server that waits for its socket doesn't.
impl Wake for Stream {
    fn wake(self: Arc<Self>) {
        let wakers = self.state().all_wakers();
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// Content that is being put together. If that never happens, those who wait for it must know.
struct Joining(Arc<Stream>);

impl Drop for Joining {
    fn drop(&mut self) {
        let mut state = self.0.state();
        if std::mem::take(&mut state.joining) {
            state.ended = Some(Err(BodyError::new(Broken::Gone)));
            let wakers = state.all_wakers();
            drop(state);
            wakers.into_iter().for_each(Waker::wake);
        }
    }
}
