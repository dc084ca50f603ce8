//! [`ResponseBody`]: the content of what passes the cache. What is not stored passes untouched; what is stored is copied as it streams by.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::cache::CacheCore;
use crate::decoded::Decoded;
use crate::fill::Fill;
use crate::head::COPIED_WHEN_STORED;
use crate::rfc9111::storability::DeclineReason;

pin_project! {
    /// The body of a response that passed the cache: the handler's own, a copy from the store, or nothing.
    pub struct ResponseBody<B>
    where
        B: Body,
    {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    // What is large is in a box, so that a hit moves few bytes.
    #[project = KindProjection]
    enum Kind<B>
    where
        B: Body,
    {
        Empty,
        Stored { content: Bytes },
        Untouched { #[pin] body: B },
        Copied { copy: Box<Copied<B>> },
        Part { part: Box<Part<B>> },
        Decoded { decoded: Box<Decoded> },
    }
}

impl<B: Body> ResponseBody<B> {
    pub(crate) fn empty() -> Self {
        Self { kind: Kind::Empty }
    }

    pub(crate) fn stored(content: Bytes) -> Self {
        Self { kind: Kind::Stored { content } }
    }

    pub(crate) fn untouched(body: B) -> Self {
        Self { kind: Kind::Untouched { body } }
    }

    pub(crate) fn copied(copy: Copied<B>) -> Self {
        Self { kind: Kind::Copied { copy: Box::new(copy) } }
    }

    pub(crate) fn part(part: Part<B>) -> Self {
        Self { kind: Kind::Part { part: Box::new(part) } }
    }

    pub(crate) fn decoded(decoded: Decoded) -> Self {
        Self { kind: Kind::Decoded { decoded: Box::new(decoded) } }
    }

    /// The copy in progress, to be finished without a client.
    pub(crate) fn into_copy(self) -> Option<Copied<B>> {
        match self.kind {
            Kind::Copied { copy } => Some(*copy),
            _ => None,
        }
    }
}

impl<B: Body> Default for ResponseBody<B> {
    fn default() -> Self {
        Self::empty()
    }
}

impl<B: Body> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Empty => "empty",
            Kind::Stored { .. } => "stored",
            Kind::Untouched { .. } => "untouched",
            Kind::Copied { .. } => "copied",
            Kind::Part { .. } => "part",
            Kind::Decoded { .. } => "decoded",
        };
        f.debug_tuple("ResponseBody").field(&kind).finish()
    }
}

impl<B> Body for ResponseBody<B>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Send,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project().kind.project() {
            KindProjection::Empty => Poll::Ready(None),
            KindProjection::Stored { content } => {
                let content = std::mem::take(content);
                Poll::Ready((!content.is_empty()).then(|| Ok(Frame::data(content))))
            }
            KindProjection::Untouched { body } => body.poll_frame(cx),
            KindProjection::Copied { copy } => copy.poll_frame(cx),
            KindProjection::Part { part } => part.poll_frame(cx),
            // Content that can't be decoded ends before the length that was announced, which no server takes for a clean end.
            KindProjection::Decoded { decoded } => {
                Poll::Ready(decoded.next().and_then(Result::ok).map(|piece| Ok(Frame::data(piece))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Stored { content } => content.is_empty(),
            Kind::Untouched { body } => body.is_end_stream(),
            Kind::Copied { copy } => copy.is_end_stream(),
            Kind::Part { part } => part.left() == 0,
            Kind::Decoded { decoded } => decoded.left() == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Stored { content } => SizeHint::with_exact(content.len() as u64),
            Kind::Untouched { body } => body.size_hint(),
            Kind::Copied { copy } => copy.size_hint(),
            Kind::Part { part } => SizeHint::with_exact(part.left()),
            Kind::Decoded { decoded } => SizeHint::with_exact(decoded.left()),
        }
    }
}

/// A handler's body that is copied while its chunks pass.
pub(crate) struct Copied<B: Body> {
    body: Pin<Box<B>>,
    /// Frames that were ready before the head went out. Their data is copied when they pass, as that of later ones.
    ready: Frames<B>,
    fill: Fill,
}

pub(crate) type Frames<B> = VecDeque<Result<Frame<Bytes>, <B as Body>::Error>>;

impl<B: Body<Data = Bytes>> Copied<B> {
    pub(crate) fn new(body: Pin<Box<B>>, ready: Frames<B>, fill: Fill) -> Self {
        let mut copy = Self { body, ready, fill };
        copy.finish_if_ended();
        copy
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = match self.ready.pop_front() {
            Some(frame) => Some(frame),
            None => ready!(self.body.as_mut().poll_frame(cx)),
        };
        match &frame {
            Some(Ok(frame)) => match frame.data_ref() {
                Some(chunk) => {
                    self.fill.push(chunk);
                    self.finish_if_ended();
                }
                None => self.fill.give_up(DeclineReason::Trailers),
            },
            Some(Err(_)) => self.fill.give_up(DeclineReason::Incomplete),
            None => self.fill.finish(),
        }
        Poll::Ready(frame)
    }

    /// A server that sees the end coming doesn't ask for another frame, so the copy ends here as well.
    fn finish_if_ended(&mut self) {
        if self.is_end_stream() {
            self.fill.finish();
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ready.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let ahead = |frame: &Result<Frame<Bytes>, B::Error>| {
            frame.as_ref().ok().and_then(Frame::data_ref).map_or(0, |chunk| chunk.len() as u64)
        };
        let ahead: u64 = self.ready.iter().map(ahead).sum();
        let rest = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(ahead));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(ahead)) {
            hint.set_upper(upper);
        }
        hint
    }

    /// Reads on without a client, until the copy has ended well or badly. When all that was announced is there, nothing more is waited for.
    pub(crate) async fn finish(mut self) {
        while !self.fill.has_ended() {
            let next = poll_fn(|cx| match self.poll_frame(cx) {
                Poll::Pending if self.fill.is_complete() => Poll::Ready(None),
                next => next,
            });
            match next.await {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => break,
            }
        }
    }
}

/// A part of a handler's body, while the whole of it is copied.
pub(crate) struct Part<B: Body> {
    core: Arc<CacheCore>,
    /// `None` once the rest was handed to a task of the cache.
    copy: Option<Copied<B>>,
    wanted: Range<u64>,
    position: u64,
}

impl<B: Body<Data = Bytes> + Send + 'static> Part<B>
where
    B::Error: Send,
{
    pub(crate) fn new(core: Arc<CacheCore>, copy: Copied<B>, wanted: Range<u64>) -> Self {
        Self { core, copy: Some(copy), wanted, position: 0 }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        while let Some(copy) = &mut self.copy {
            if self.position >= self.wanted.end {
                break;
            }
            let frame = match ready!(copy.poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                other => return Poll::Ready(other),
            };
            let Ok(chunk) = frame.into_data() else { continue };
            let start = self.position;
            self.position += chunk.len() as u64;
            let from = self.wanted.start.clamp(start, self.position) - start;
            let to = self.wanted.end.clamp(start, self.position) - start;
            if self.position >= self.wanted.end {
                self.hand_over();
            }
            if from < to {
                return Poll::Ready(Some(Ok(Frame::data(chunk.slice(from as usize..to as usize)))));
            }
        }
        Poll::Ready(None)
    }

    /// The client has all it wanted; what is left fills the store.
    fn hand_over(&mut self) {
        if let Some(copy) = self.copy.take() {
            self.core.spawn(copy.finish());
        }
    }
}

impl<B: Body> Part<B> {
    fn left(&self) -> u64 {
        self.wanted.end.saturating_sub(self.position.max(self.wanted.start))
    }
}

/// What [`read_ahead`] found.
pub(crate) enum ReadAhead<B: Body> {
    /// The whole content.
    Complete(Bytes),
    /// Some frames, and more to come.
    Streaming(Pin<Box<B>>, Frames<B>),
}

/// The most frames that are read ahead.
const MOST_READ_AHEAD: usize = 64;

/// Reads what of a body is ready, without waiting, up to `limit` bytes.
pub(crate) async fn read_ahead<B: Body<Data = Bytes>>(mut body: Pin<Box<B>>, limit: usize) -> ReadAhead<B> {
    let mut ready = Frames::<B>::new();
    let mut length = 0;
    let complete = poll_fn(|cx| {
        loop {
            if body.is_end_stream() {
                return Poll::Ready(true);
            }
            let frame = match body.as_mut().poll_frame(cx) {
                Poll::Pending => return Poll::Ready(false),
                Poll::Ready(None) => return Poll::Ready(true),
                Poll::Ready(Some(frame)) => frame,
            };
            let chunk = frame.as_ref().ok().and_then(Frame::data_ref).map(Bytes::len);
            ready.push_back(frame);
            length += chunk.unwrap_or_default();
            // A body that is always ready, but has nothing to say, must not keep us here.
            if chunk.is_none() || length > limit || ready.len() > MOST_READ_AHEAD {
                return Poll::Ready(false);
            }
        }
    })
    .await;
    if complete { ReadAhead::Complete(concatenate(ready)) } else { ReadAhead::Streaming(body, ready) }
}

/// All data in one piece.
fn concatenate<E>(frames: VecDeque<Result<Frame<Bytes>, E>>) -> Bytes {
    let chunks = || frames.iter().filter_map(|frame| frame.as_ref().ok()?.data_ref());
    // The rule, and needs no copy: small content is copied when it is stored.
    if let (1, Some(only)) = (frames.len(), chunks().next().filter(|only| only.len() <= COPIED_WHEN_STORED)) {
        return only.clone();
    }
    let mut whole = BytesMut::with_capacity(chunks().map(Bytes::len).sum());
    chunks().for_each(|chunk| whole.extend_from_slice(chunk));
    whole.freeze()
}
