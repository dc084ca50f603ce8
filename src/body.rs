//! [`ResponseBody`]: the content of what passes the cache. What is not stored passes untouched; what is stored is read from the stream that also
//! fills the store.

use std::fmt;
use std::future::poll_fn;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http::Response;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::byteranges::Pieces;
use crate::decoded::Decoded;
use crate::error::{BodyError, BoxError};
use crate::head::COPIED_WHEN_STORED;
use crate::report::Watch;
use crate::stream::{Frames, Reader, Source};
use crate::tally::{RouteCounters, more};
use crate::used::Scope;

pin_project! {
    /// The body of a response that passed the cache: the handler's own, content that streams into the store as well, a copy from the store, or
    /// nothing.
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
        Pieces { pieces: Box<Pieces> },
        Untouched { #[pin] body: B, counters: Option<Arc<RouteCounters>>, watch: Option<Box<Watch>> },
        Streaming { reader: Box<Reader> },
        Part { part: Box<Part> },
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

    /// Several parts of what is stored.
    pub(crate) fn pieces(pieces: Pieces) -> Self {
        Self { kind: Kind::Pieces { pieces: Box::new(pieces) } }
    }

    pub(crate) fn untouched(body: B) -> Self {
        Self { kind: Kind::Untouched { body, counters: None, watch: None } }
    }

    /// Where the bytes are counted that pass untouched.
    pub(crate) fn count_in(&mut self, route: &Arc<RouteCounters>) {
        if let Kind::Untouched { counters, .. } = &mut self.kind {
            *counters = Some(route.clone());
        }
    }

    /// How many bytes it has that are in memory as a whole.
    pub(crate) fn in_memory(&self) -> u64 {
        match &self.kind {
            Kind::Stored { content } => content.len() as u64,
            Kind::Pieces { pieces } => pieces.left(),
            Kind::Decoded { decoded } => decoded.left(),
            Kind::Empty | Kind::Untouched { .. } | Kind::Streaming { .. } | Kind::Part { .. } => 0,
        }
    }

    /// The handler's own, of which a hash is taken as it passes; untouched where nobody wants one.
    pub(crate) fn watched(body: B, watch: Option<Watch>) -> Self {
        let Some(watch) = watch.map(Box::new) else { return Self::untouched(body) };
        if body.is_end_stream() {
            watch.end();
            return Self::untouched(body);
        }
        Self { kind: Kind::Untouched { body, counters: None, watch: Some(watch) } }
    }

    pub(crate) fn streaming(reader: Reader) -> Self {
        Self { kind: Kind::Streaming { reader: Box::new(reader) } }
    }

    /// A part of what streams; the rest fills the store all the same.
    pub(crate) fn part(reader: Reader, wanted: Range<u64>) -> Self {
        let part = Part { reader: Some(reader), wanted, position: 0 };
        Self { kind: Kind::Part { part: Box::new(part) } }
    }

    pub(crate) fn decoded(decoded: Decoded) -> Self {
        Self { kind: Kind::Decoded { decoded: Box::new(decoded) } }
    }

    /// What streams, to be read without a client.
    pub(crate) fn into_reader(self) -> Option<Reader> {
        match self.kind {
            Kind::Streaming { reader } => Some(*reader),
            Kind::Part { part } => part.reader,
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
            Kind::Pieces { .. } => "pieces",
            Kind::Untouched { .. } => "untouched",
            Kind::Streaming { .. } => "streaming",
            Kind::Part { .. } => "part",
            Kind::Decoded { .. } => "decoded",
        };
        f.debug_tuple("ResponseBody").field(&kind).finish()
    }
}

impl<B> Body for ResponseBody<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.project().kind.project() {
            KindProjection::Empty => Poll::Ready(None),
            KindProjection::Stored { content } => {
                let content = std::mem::take(content);
                Poll::Ready((!content.is_empty()).then(|| Ok(Frame::data(content))))
            }
            KindProjection::Pieces { pieces } => Poll::Ready(pieces.next().map(|piece| Ok(Frame::data(piece)))),
            KindProjection::Untouched { mut body, counters, watch } => {
                let polled = body.as_mut().poll_frame(cx);
                counters.iter().for_each(|counters| count(counters, &polled));
                Watch::follow(watch, &polled, || body.is_end_stream());
                polled.map_err(BodyError::new)
            }
            KindProjection::Streaming { reader } => reader.poll_frame(cx),
            KindProjection::Part { part } => part.poll_frame(cx),
            KindProjection::Decoded { decoded } => {
                let piece = decoded.next();
                if matches!(&piece, Some(Ok(piece)) if piece.is_empty()) {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Ready(piece.map(|piece| piece.map(Frame::data).map_err(BodyError::new)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Stored { content } => content.is_empty(),
            Kind::Pieces { pieces } => pieces.left() == 0,
            Kind::Untouched { body, .. } => body.is_end_stream(),
            Kind::Streaming { reader } => reader.is_end_stream(),
            Kind::Part { part } => part.left() == 0,
            Kind::Decoded { decoded } => decoded.left() == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Stored { content } => SizeHint::with_exact(content.len() as u64),
            Kind::Pieces { pieces } => SizeHint::with_exact(pieces.left()),
            Kind::Untouched { body, .. } => body.size_hint(),
            Kind::Streaming { reader } => reader.left().map_or_else(SizeHint::default, SizeHint::with_exact),
            Kind::Part { part } => SizeHint::with_exact(part.left()),
            Kind::Decoded { decoded } => SizeHint::with_exact(decoded.left()),
        }
    }
}

/// A part of what streams.
struct Part {
    /// `None` once it has all it wants: the rest is for others, or for a task of the cache.
    reader: Option<Reader>,
    wanted: Range<u64>,
    position: u64,
}

impl Part {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        while let Some(reader) = &mut self.reader {
            if self.position >= self.wanted.end {
                break;
            }
            let frame = match ready!(reader.poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                other => return Poll::Ready(other),
            };
            let Ok(chunk) = frame.into_data() else { continue };
            let start = self.position;
            self.position += chunk.len() as u64;
            let from = self.wanted.start.clamp(start, self.position) - start;
            let to = self.wanted.end.clamp(start, self.position) - start;
            if self.position >= self.wanted.end {
                self.reader = None;
            }
            if from < to {
                return Poll::Ready(Some(Ok(Frame::data(chunk.slice(from as usize..to as usize)))));
            }
        }
        Poll::Ready(None)
    }

    fn left(&self) -> u64 {
        self.wanted.end.saturating_sub(self.position.max(self.wanted.start))
    }
}

/// The handler's body without its type: what reads along has another one. What it is made from while it is read counts for those in `scope`.
pub(crate) fn source<B>(body: B, counters: &Arc<RouteCounters>, scope: Scope) -> Source
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    Box::pin(Untyped { body, counters: counters.clone(), scope: scope.some() })
}

/// Counts the bytes that have come from the handler.
fn count<E>(counters: &RouteCounters, polled: &Poll<Option<Result<Frame<Bytes>, E>>>) {
    if let Poll::Ready(Some(Ok(frame))) = polled
        && let Some(data) = frame.data_ref()
    {
        more(&counters.handler_bytes, data.len() as u64);
    }
}

pin_project! {
    struct Untyped<B> {
        #[pin]
        body: B,
        counters: Arc<RouteCounters>,
        scope: Option<Scope>,
    }
}

impl<B: Body<Data = Bytes, Error: Into<BoxError>>> Body for Untyped<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.project();
        let polled = Scope::within(this.scope, || this.body.poll_frame(cx));
        count(this.counters, &polled);
        polled.map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Reads the content of an answer that no client waits for, so that it is stored.
pub(crate) async fn read_out<B: Body<Data = Bytes>, E>(
    answer: impl Future<Output = Result<Response<ResponseBody<B>>, E>>,
) {
    let reader = answer.await.ok().and_then(|response| response.into_body().into_reader());
    if let Some(reader) = reader {
        reader.finish().await;
    }
}

/// What [`read_ahead`] found.
pub(crate) enum ReadAhead {
    /// The whole content.
    Complete(Bytes),
    /// Some frames, and more to come.
    Streaming(Source, Frames),
}

/// The most frames that are read ahead.
const MOST_READ_AHEAD: usize = 64;

/// Reads what of a body is ready, without waiting, up to `limit` bytes. Who is woken reads on.
pub(crate) fn read_ahead(mut body: Source, limit: usize, waker: &Waker) -> ReadAhead {
    let mut ready = Frames::new();
    let mut length = 0;
    loop {
        if body.is_end_stream() {
            return ReadAhead::Complete(concatenate(ready));
        }
        let frame = match body.as_mut().poll_frame(&mut Context::from_waker(waker)) {
            Poll::Pending => return ReadAhead::Streaming(body, ready),
            Poll::Ready(None) => return ReadAhead::Complete(concatenate(ready)),
            Poll::Ready(Some(frame)) => frame,
        };
        let chunk = frame.as_ref().ok().and_then(Frame::data_ref).map(Bytes::len);
        ready.push(frame);
        length += chunk.unwrap_or_default();
        // A body that is always ready, but has nothing to say, must not keep us here.
        if chunk.is_none() || length > limit || ready.len() > MOST_READ_AHEAD {
            return ReadAhead::Streaming(body, ready);
        }
    }
}

/// That of the task that asks.
pub(crate) async fn waker() -> Waker {
    poll_fn(|cx| Poll::Ready(cx.waker().clone())).await
}

/// All data in one piece.
fn concatenate(mut frames: Frames) -> Bytes {
    // The rule, and needs no copy: small content is copied when it is stored.
    if let [Ok(only)] = frames.as_mut_slice()
        && let Some(data) = only.data_mut().filter(|data| data.len() <= COPIED_WHEN_STORED)
    {
        return std::mem::take(data);
    }
    let chunks = || frames.iter().filter_map(|frame| frame.as_ref().ok()?.data_ref());
    let mut whole = BytesMut::with_capacity(chunks().map(Bytes::len).sum());
    chunks().for_each(|chunk| whole.extend_from_slice(chunk));
    whole.freeze()
}
