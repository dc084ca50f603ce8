//! QUERY (RFC 10008) asks with its content. To look it up the content has to be read, within a limit; the handler then gets it all the same.
//!
//! Nobody but the application can say how a body that was read becomes one of the type that its handlers take, so it says that where it
//! switches this on.

use std::any::Any;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, header};
use http_body::{Body, Frame, SizeHint};
use sha2::{Digest, Sha256};

use crate::key::{CacheKey, Part};

/// Whether a request asks with its content.
pub(crate) fn is_query(method: &Method) -> bool {
    method.as_str() == "QUERY"
}

/// The body of a QUERY of which the cache has read the beginning, or all: it yields the same data, trailers and errors as the body it was made from,
/// in other chunks. See [`CacheLayer::cache_query_method`](crate::CacheLayer::cache_query_method).
pub struct QueryBody<B: Body> {
    /// What was read.
    read: Bytes,
    /// What was read behind it: trailers or an error.
    then: Option<Result<Frame<Bytes>, B::Error>>,
    /// What is still to be read.
    rest: Option<Pin<Box<B>>>,
}

impl<B: Body<Data = Bytes>> Body for QueryBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if !self.read.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.read)))));
        }
        if let Some(then) = self.then.take() {
            return Poll::Ready(Some(then));
        }
        match &mut self.rest {
            Some(rest) => rest.as_mut().poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty() && self.then.is_none() && self.rest.as_ref().is_none_or(|rest| rest.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let read = self.read.len() as u64;
        let rest = self.rest.as_ref().map_or(SizeHint::with_exact(0), |rest| rest.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(read));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(read)) {
            hint.set_upper(upper);
        }
        hint
    }
}

// Nothing is ever pinned in place: what needs it is in a box.
impl<B: Body> Unpin for QueryBody<B> {}

impl<B: Body> fmt::Debug for QueryBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryBody").field("read", &self.read.len()).finish_non_exhaustive()
    }
}

/// How the content of a QUERY is read, for the one type of body that the application named.
#[derive(Clone)]
pub(crate) struct QueryReader {
    /// A [`Reader`] of that type.
    reader: Arc<dyn Any + Send + Sync>,
}

/// Reads a body up to a limit.
pub(crate) struct Reader<B>(Arc<Reading<B>>);

type Reading<B> = dyn Fn(B, usize) -> Pin<Box<dyn Future<Output = Read<B>> + Send>> + Send + Sync;

/// A body of which something was read, and the digest of its content if that was all of it.
pub(crate) struct Read<B> {
    pub(crate) body: B,
    pub(crate) content: Option<ContentDigest>,
}

/// SHA-256 of a request's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ContentDigest([u8; 32]);

impl ContentDigest {
    /// Of no content at all.
    pub(crate) fn of_nothing() -> Self {
        Self(Sha256::digest([]).into())
    }
}

impl QueryReader {
    pub(crate) fn new<B>(rebuild: impl Fn(QueryBody<B>) -> B + Send + Sync + 'static) -> Self
    where
        B: Body<Data = Bytes, Error: Send> + Send + 'static,
    {
        let rebuild = Arc::new(rebuild);
        let reading: Arc<Reading<B>> = Arc::new(move |body, limit| {
            let rebuild = rebuild.clone();
            Box::pin(async move {
                let (body, content) = read(body, limit).await;
                Read { body: rebuild(body), content }
            })
        });
        Self { reader: Arc::new(Reader(reading)) }
    }

    /// The reader of bodies of this type; `None` if the application named another one.
    pub(crate) fn of<B: 'static>(&self) -> Option<Reader<B>> {
        self.reader.downcast_ref().map(|Reader(reading): &Reader<B>| Reader(reading.clone()))
    }
}

impl<B> Reader<B> {
    /// Reads all of a body, if it has no more than `limit` bytes of content, no trailers and a clean end; else less.
    pub(crate) async fn read(&self, body: B, limit: usize) -> Read<B> {
        (self.0)(body, limit).await
    }
}

async fn read<B: Body<Data = Bytes>>(body: B, limit: usize) -> (QueryBody<B>, Option<ContentDigest>) {
    let mut body = Box::pin(body);
    let mut content = BytesMut::new();
    let then = loop {
        if (content.len() as u64).saturating_add(body.size_hint().lower()) > limit as u64 {
            break None;
        }
        let end = poll_fn(|cx| match body.is_end_stream() {
            true => Poll::Ready(None),
            false => body.as_mut().poll_frame(cx),
        });
        match end.await {
            None => {
                let digest = ContentDigest(Sha256::digest(&content).into());
                return (QueryBody { read: content.freeze(), then: None, rest: None }, Some(digest));
            }
            Some(Ok(frame)) => match frame.into_data() {
                // Gathered, so that content in a thousand small chunks doesn't pin a thousand read buffers.
                Ok(chunk) => content.extend_from_slice(&chunk),
                Err(trailers) => break Some(Ok(trailers)),
            },
            Some(Err(error)) => break Some(Err(error)),
        }
    };
    (QueryBody { read: content.freeze(), then, rest: Some(body) }, None)
}

/// Adds to a key what a QUERY asks with: "The cache key for a QUERY request MUST incorporate the request content and related metadata" (RFC 10008 §2.7). Nothing is
/// normalised.
pub(crate) fn extend_key(key: &mut CacheKey, content: ContentDigest, headers: &HeaderMap) {
    key.push(Part::Content, &content.0);
    for name in [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::CONTENT_LANGUAGE] {
        key.push(Part::FieldName, name.as_str().as_bytes());
        headers.get_all(name).iter().for_each(|line| key.push(Part::FieldLine, line.as_bytes()));
    }
}
