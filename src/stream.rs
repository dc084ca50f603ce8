//! [`Stream`]: content that streams from the handler to whoever reads it, and into the store.
//!
//! Nobody is its owner. Whoever is hungry polls the handler's body, and what comes is kept for the others; so a reader that is slow or gone keeps
//! nobody waiting, and as long as only one reads, its own task does all the work. When the last reader leaves, a task of the cache reads the rest.
//!
//! While the content is being kept for the store, each reader goes at its own pace. If it turns out too large for that, only a window of it
//! is kept: then readers wait for the slowest, and one that takes nothing for long is left behind with an error.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame};
use slab::Slab;
use tokio::time::Sleep;

use crate::cache::CacheCore;
use crate::error::{BodyError, BoxError, Broken};
use crate::fill::{Admitted, Fill, Held, give_up, store};
use crate::plan::Plan;
use crate::rfc9111::storability::DeclineReason;

/// Pieces from this size on are kept as they are; smaller ones are copied together, for each would keep a whole read buffer in memory.
const KEPT: usize = 4 << 10;

/// How much is copied together.
const GATHERED: usize = 64 << 10;

/// Content up to this size is put together and hashed at once; larger content on a thread that may block, so that no client and no other
/// request waits for it.
const AT_ONCE: usize = 64 << 10;

/// How far readers may be apart where the content isn't kept.
const WINDOW: usize = 1 << 20;

/// How many frames are taken at most before others may run.
const MOST_AT_ONCE: usize = 64;

/// How long a reader may keep the others waiting there.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) type Source = Pin<Box<dyn Body<Data = Bytes, Error = BoxError> + Send>>;

/// Content on its way.
pub(crate) struct Stream {
    core: Arc<CacheCore>,
    /// Locked before `state`, and only tried: whoever holds it does what the others want.
    source: Mutex<Option<Source>>,
    state: Mutex<State>,
    /// The length that the handler's body knew.
    exact: Option<u64>,
}

struct State {
    /// What was kept, from the piece with the number `first` on.
    pieces: VecDeque<Piece>,
    first: u64,
    /// The bytes of all pieces that are there.
    held: usize,
    /// What they were charged to the budget.
    charged: Held,
    gathered: BytesMut,
    /// Once it is put together.
    whole: Option<Bytes>,
    /// The pieces were taken away to be put together.
    joining: bool,
    ended: Option<Result<Option<HeaderMap>, BodyError>>,
    fill: Fill,
    readers: Slab<Place>,
    /// Somebody wanted to poll the source while somebody else did.
    contended: bool,
}

struct Piece {
    data: Bytes,
    charge: usize,
    /// How many readers have it before them.
    left: usize,
}

#[derive(Default)]
struct Place {
    next: u64,
    waker: Option<Waker>,
    left_behind: bool,
}

/// Someone who reads the content from its first byte.
pub(crate) struct Reader {
    stream: Arc<Stream>,
    place: usize,
    /// How many bytes it has had.
    position: u64,
    /// Came later than the one whose request went to the handler.
    is_follower: bool,
    /// No client reads.
    unattended: bool,
    ended: bool,
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

/// What is left to do when nothing is locked any more.
#[must_use]
#[derive(Default)]
struct After {
    wakers: Vec<Waker>,
    finished: Option<(Plan, Vec<Bytes>, usize)>,
    given_up: Option<(Plan, DeclineReason)>,
}

impl Stream {
    /// Begins with the frames that came already; `exact` is the length of all.
    pub(crate) fn begin(
        core: Arc<CacheCore>,
        source: Source,
        ready: VecDeque<Result<Frame<Bytes>, BoxError>>,
        fill: Fill,
        exact: Option<u64>,
    ) -> Reader {
        let mut readers = Slab::with_capacity(1);
        let place = readers.insert(Place::default());
        let state = State {
            pieces: VecDeque::new(),
            first: 0,
            held: 0,
            charged: Held { core: core.clone(), bytes: 0 },
            gathered: BytesMut::new(),
            whole: None,
            joining: false,
            ended: None,
            fill,
            readers,
            contended: false,
        };
        let stream = Arc::new(Self { core, source: Mutex::new(Some(source)), state: Mutex::new(state), exact });
        let reader = Reader::at(stream, place);
        reader.stream.take_in(ready);
        reader
    }

    fn take_in(self: &Arc<Self>, ready: VecDeque<Result<Frame<Bytes>, BoxError>>) {
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        let many = ready.len();
        for (n, frame) in ready.into_iter().enumerate() {
            let is_last = n + 1 == many && source.as_ref().is_none_or(|source| source.is_end_stream());
            let after = self.pass(&mut source, Some(frame), is_last);
            self.see_to(after);
        }
        if many == 0 && source.as_ref().is_some_and(|source| source.is_end_stream()) {
            let after = self.pass(&mut source, None, true);
            self.see_to(after);
        }
    }

    /// Someone else who reads it from the beginning; `None` where that isn't there any more, or can't be kept until the end.
    pub(crate) fn join(self: &Arc<Self>) -> Option<Reader> {
        let mut state = self.state();
        let is_there = state.whole.is_some() || state.joining || state.first == 0 && state.is_kept();
        if !is_there || state.fill.is_keeping() && !state.fill.reserve() {
            return None;
        }
        state.pieces.iter_mut().for_each(|piece| piece.left += 1);
        let place = state.readers.insert(Place::default());
        drop(state);
        let mut reader = Reader::at(self.clone(), place);
        reader.is_follower = true;
        Some(reader)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the next frame of the source, if nobody else does that.
    fn drive(self: &Arc<Self>) -> Poll<()> {
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
        let Some(body) = source.as_mut() else { return self.lose(&mut source) };
        let waker = Waker::from(self.clone());
        let polled = body.as_mut().poll_frame(&mut Context::from_waker(&waker));
        let Poll::Ready(frame) = polled else {
            drop(source);
            self.let_others_try();
            return Poll::Pending;
        };
        let is_last = body.is_end_stream();
        let after = self.pass(&mut source, frame, is_last);
        drop(source);
        self.see_to(after);
        Poll::Ready(())
    }

    /// The source is gone, by a panic of its own, or with the process' last reader.
    fn lose(self: &Arc<Self>, source: &mut Option<Source>) -> Poll<()> {
        *source = None;
        let mut state = self.state();
        let mut after = After::default();
        if state.ended.is_none() {
            after = state.end(Err(BodyError::new(Broken::Gone)));
        }
        drop(state);
        self.see_to(after);
        Poll::Ready(())
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
    fn pass(&self, source: &mut Option<Source>, frame: Option<Result<Frame<Bytes>, BoxError>>, is_last: bool) -> After {
        let mut state = self.state();
        if state.ended.is_some() {
            return After::default();
        }
        let end = match frame {
            None => Some(Ok(None)),
            Some(Err(error)) => Some(Err(BodyError::new(error))),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    let given_up = state.push(data);
                    if given_up.is_some() {
                        return After { wakers: state.all_wakers(), finished: None, given_up };
                    }
                    is_last.then_some(Ok(None))
                }
                Err(frame) => match frame.into_trailers() {
                    Ok(trailers) => Some(Ok(Some(trailers))),
                    Err(_) => is_last.then_some(Ok(None)),
                },
            },
        };
        let Some(end) = end else { return After { wakers: state.all_wakers(), ..After::default() } };
        *source = None;
        state.end(end)
    }

    /// Does what has to be done with nothing locked.
    fn see_to(self: &Arc<Self>, after: After) {
        if let Some((plan, reason)) = after.given_up {
            give_up(plan, reason);
        }
        if let Some((plan, pieces, length)) = after.finished {
            if length <= AT_ONCE {
                let whole = store(plan, pieces, length);
                self.put_together(whole);
            } else {
                let joining = Joining(self.clone());
                self.core.clone().spawn_blocking(move || {
                    // One after another: each holds its content twice for a moment.
                    let _turn = joining.0.core.joining.lock().unwrap_or_else(PoisonError::into_inner);
                    let whole = store(plan, pieces, length);
                    joining.0.put_together(whole);
                });
            }
        }
        after.wakers.into_iter().for_each(Waker::wake);
    }

    /// The whole is there in one piece: it takes the place of the pieces.
    fn put_together(&self, whole: Bytes) {
        let mut state = self.state();
        let pieces = std::mem::take(&mut state.pieces);
        state.first += pieces.len() as u64;
        state.charged.release();
        (state.whole, state.joining) = (Some(whole), false);
        let wakers = state.all_wakers();
        drop(state);
        drop(pieces);
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

impl State {
    /// Whether what has passed is there for those who come later.
    fn is_kept(&self) -> bool {
        self.fill.is_keeping()
    }

    fn all_wakers(&mut self) -> Vec<Waker> {
        self.readers.iter_mut().filter_map(|(_, place)| place.waker.take()).collect()
    }

    fn push(&mut self, data: Bytes) -> Option<(Plan, DeclineReason)> {
        if data.is_empty() {
            return None;
        }
        let (charge, over) = match self.fill.admit(data.len()) {
            Admitted::Kept(charge) => (charge, None),
            Admitted::Passes => (0, None),
            Admitted::Over(reason) => (0, self.fill.stop().map(|plan| (plan, reason))),
        };
        let data = if charge > 0 && data.len() < KEPT { self.gather(&data) } else { data };
        self.held += data.len();
        self.charged.bytes += charge;
        self.pieces.push_back(Piece { data, charge, left: self.readers.len() });
        over
    }

    fn gather(&mut self, data: &Bytes) -> Bytes {
        if self.gathered.capacity() < data.len() {
            self.gathered = BytesMut::with_capacity(GATHERED);
        }
        self.gathered.extend_from_slice(data);
        self.gathered.split().freeze()
    }

    /// Ends, well or badly.
    fn end(&mut self, end: Result<Option<HeaderMap>, BodyError>) -> After {
        let mut after = After::default();
        match &end {
            Ok(None) => match self.fill.finish() {
                Some(Ok(plan)) => {
                    let length = self.held;
                    let pieces = if length > AT_ONCE && self.all_have_read() {
                        // Nobody needs the pieces any more, so that each can go as soon as it is copied.
                        self.take_pieces()
                    } else {
                        self.pieces.iter().map(|piece| piece.data.clone()).collect()
                    };
                    self.joining = true;
                    after.finished = Some((plan, pieces, length));
                }
                Some(Err(given_up)) => after.given_up = Some(given_up),
                None => {}
            },
            Ok(Some(_)) => after.given_up = self.fill.stop().map(|plan| (plan, DeclineReason::Trailers)),
            Err(_) => after.given_up = self.fill.stop().map(|plan| (plan, DeclineReason::Incomplete)),
        }
        self.ended = Some(end);
        after.wakers = self.all_wakers();
        after
    }

    /// Whether nobody reads any more, but for the last piece.
    fn all_have_read(&self) -> bool {
        self.pieces.iter().rev().skip(1).all(|piece| piece.left == 0)
    }

    /// The pieces for putting them together. The last one stays, for those who are about to read it.
    fn take_pieces(&mut self) -> Vec<Bytes> {
        let last = self.pieces.pop_back();
        let mut taken: Vec<Bytes> = self.pieces.drain(..).map(|piece| piece.data).collect();
        self.first += taken.len() as u64;
        if let Some(last) = last {
            taken.push(last.data.clone());
            self.pieces.push_back(last);
        }
        taken
    }

    /// Lets go of what everybody has read, where it isn't kept. Returns those who waited for that.
    fn trim(&mut self) -> Vec<Waker> {
        if self.is_kept() || self.joining {
            return Vec::new();
        }
        let was_full = self.held >= WINDOW;
        while self.pieces.front().is_some_and(|piece| piece.left == 0)
            && let Some(piece) = self.pieces.pop_front()
        {
            self.first += 1;
            self.held -= piece.data.len();
            self.charged.give_back(piece.charge);
        }
        if was_full && self.held < WINDOW { self.all_wakers() } else { Vec::new() }
    }

    /// Takes a reader away who won't read what it has before it.
    fn forget(&mut self, next: u64) {
        let unread = next.saturating_sub(self.first) as usize;
        self.pieces.iter_mut().skip(unread).for_each(|piece| piece.left -= 1);
    }

    /// Those who wait for nobody else go on without those who have the piece with this number before them.
    fn leave_behind(&mut self, number: u64) {
        let slow = |place: &&mut Place| place.next <= number && !place.left_behind;
        let mut left_behind = Vec::new();
        for place in self.readers.iter_mut().map(|(_, place)| place).filter(slow) {
            place.left_behind = true;
            left_behind.push(place.next);
        }
        left_behind.into_iter().for_each(|next| self.forget(next));
    }
}

impl Reader {
    fn at(stream: Arc<Stream>, place: usize) -> Self {
        Self { stream, place, position: 0, is_follower: false, unattended: false, ended: false, waits: None }
    }

    /// What it reads.
    pub(crate) fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        // A source that is always ready and has nothing to say must not keep us here.
        for _ in 0..MOST_AT_ONCE {
            match self.step(cx) {
                Step::Give(frame) => {
                    self.waits = None;
                    return Poll::Ready(frame);
                }
                Step::Wait => return Poll::Pending,
                Step::WaitForOthers(first) if !self.has_waited_for(first, cx) => return Poll::Pending,
                Step::WaitForOthers(first) => {
                    let mut state = self.stream.state();
                    state.leave_behind(first);
                    state.trim();
                    let wakers = state.all_wakers();
                    drop(state);
                    wakers.into_iter().for_each(Waker::wake);
                }
                Step::Drive => {
                    if self.stream.drive().is_pending() {
                        return Poll::Pending;
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
        let tip = state.first + state.pieces.len() as u64;
        let Some(place) = state.readers.get_mut(self.place) else { return Step::Give(None) };
        if place.left_behind {
            self.ended = true;
            return Step::Give(Some(Err(BodyError::new(Broken::TooSlow))));
        }
        if let Some(whole) = &state.whole {
            let rest = whole.slice((self.position as usize).min(whole.len())..);
            if !rest.is_empty() {
                self.position = whole.len() as u64;
                return Step::Give(Some(Ok(Frame::data(rest))));
            }
        } else if let Some(piece) = place.next.checked_sub(state.first).and_then(|n| state.pieces.get_mut(n as usize)) {
            piece.left -= 1;
            place.next += 1;
            let data = piece.data.clone();
            self.position += data.len() as u64;
            let wakers = state.trim();
            drop(guard);
            wakers.into_iter().for_each(Waker::wake);
            return Step::Give(Some(Ok(Frame::data(data))));
        }
        let at_tip = state.whole.is_some() || place.next == tip;
        match &state.ended {
            Some(Ok(trailers)) if at_tip => {
                self.ended = true;
                let is_short = self.stream.exact.is_some_and(|exact| exact != self.position);
                let is_short = self.is_follower && is_short;
                return Step::Give(match trailers {
                    _ if is_short => Some(Err(BodyError::new(Broken::Length))),
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
        match &mut place.waker {
            Some(known) => known.clone_from(cx.waker()),
            unknown => *unknown = Some(cx.waker().clone()),
        }
        match state.ended {
            Some(_) => Step::Wait,
            None if !state.is_kept() && state.held >= WINDOW => Step::WaitForOthers(state.first),
            None => Step::Drive,
        }
    }

    /// Whether it has waited long enough for those who have the piece `first` before them.
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
        let tip = state.first + state.pieces.len() as u64;
        let at_tip = match &state.whole {
            Some(whole) => self.position == whole.len() as u64,
            None => state.readers.get(self.place).is_some_and(|place| place.next == tip),
        };
        self.ended || at_tip && !self.is_follower && matches!(state.ended, Some(Ok(None)))
    }

    /// How much is still to be read, where the handler's body knew its length.
    pub(crate) fn left(&self) -> Option<u64> {
        self.stream.exact.map(|exact| exact.saturating_sub(self.position))
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
            state.forget(place.next);
        }
        let mut after = After { wakers: state.trim(), ..After::default() };
        let mut heir = None;
        if !state.readers.is_empty() {
            // It may have been the one who would have asked for more.
            after.wakers.extend(state.all_wakers());
        } else if state.ended.is_none() {
            if state.fill.is_complete() {
                after = state.end(Ok(None));
            } else if state.fill.is_keeping() && !self.unattended {
                let next = state.first + state.pieces.len() as u64;
                heir = Some(state.readers.insert(Place { next, ..Place::default() }));
            } else {
                after = state.end(Err(BodyError::new(Broken::Gone)));
            }
        }
        let is_last = state.readers.is_empty();
        drop(guard);
        if is_last && let Ok(mut source) = self.stream.source.try_lock() {
            // Its wakers may hold the stream, and it is in the stream.
            *source = None;
        }
        self.stream.see_to(after);
        if let Some(place) = heir {
            let mut heir = Reader::at(self.stream.clone(), place);
            (heir.unattended, heir.position) = (true, self.position);
            self.stream.core.finish_unattended(heir.finish());
        }
    }
}
