//! [`Sending`]: the handler's answer on its way to the client and into the store, in the shape that the client's conditions and range want.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::response::Parts;
use http::{HeaderMap, Response, header};
use http_body::Body;
use sha2::{Digest, Sha256};

use crate::body::{Copied, Frames, Part, ResponseBody};
use crate::cache::CacheCore;
use crate::fill::Fill;
use crate::outcome::CacheOutcome;
use crate::plan::Plan;
use crate::respond::{Shape, from_handler, reshape, wanted};
use crate::rfc9111::storability::DeclineReason;

/// An answer that is stored and sent.
pub(crate) struct Sending {
    pub(crate) core: Arc<CacheCore>,
    pub(crate) parts: Parts,
    /// The request's fields where they have conditions or a range.
    pub(crate) asked: Option<HeaderMap>,
    pub(crate) outcome: CacheOutcome,
    pub(crate) counted: bool,
    /// The length that the head announces.
    pub(crate) announced: Option<u64>,
    /// The length that the body knows.
    pub(crate) exact: Option<u64>,
}

impl Sending {
    /// The content is there already: it is stored first, so that its entity tag goes out with it.
    pub(crate) fn complete<B: Body>(mut self, plan: Plan, content: Bytes) -> Response<ResponseBody<B>> {
        let length = content.len() as u64;
        let stored = if self.announced.or(self.exact).is_some_and(|announced| announced != length) {
            // The client must be able to tell as well: without the cache, a server would announce what the body claims.
            if let Some(exact) = self.exact.filter(|_| self.announced.is_none()) {
                self.parts.headers.insert(header::CONTENT_LENGTH, exact.into());
            }
            self.core.counters.stored(Err(DeclineReason::Incomplete));
            Err(DeclineReason::Incomplete)
        } else {
            let hash = plan.needs_hash().then(|| Sha256::digest(&content).into());
            plan.commit(content.clone(), hash)
        };
        if let Ok(stored) = &stored
            && stored.origin.own_etag
            && let Some(tag) = stored.head.get(&header::ETAG)
        {
            self.parts.headers.insert(header::ETAG, tag.clone());
        }
        let shape = self.reshape(Some(length), |shape| shape);
        self.outcome = self.outcome.stored(stored.map(drop));
        self.send(shape.of(&content))
    }

    /// The content is copied while it streams to the client, or behind the answer where the client doesn't want all of it.
    pub(crate) fn streamed<B>(mut self, plan: Plan, body: Pin<Box<B>>, ready: Frames<B>) -> Response<ResponseBody<B>>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Send,
    {
        let copy = Copied::new(body, ready, Fill::new(plan));
        let body = match self.reshape(self.announced.or(self.exact), Shape::of_a_stream) {
            Shape::Whole | Shape::Parts(_) => ResponseBody::copied(copy),
            Shape::Part(part) => ResponseBody::part(Part::new(self.core.clone(), copy, part)),
            Shape::NotModified | Shape::Failed | Shape::Unsatisfiable => {
                self.core.spawn(copy.finish());
                ResponseBody::empty()
            }
        };
        self.outcome = self.outcome.stored(Ok(()));
        self.send(body)
    }

    /// Gives the head the form that the client's conditions and range want.
    fn reshape(&mut self, length: Option<u64>, can_be: fn(Shape) -> Shape) -> Shape {
        let mut shape = can_be(wanted(self.asked.as_ref(), &self.parts, length));
        reshape(&mut shape, length, &mut self.parts.status, &mut self.parts.headers);
        shape
    }

    fn send<B: Body>(self, body: ResponseBody<B>) -> Response<ResponseBody<B>> {
        from_handler(&self.core, Response::from_parts(self.parts, body), self.outcome, self.counted)
    }
}
