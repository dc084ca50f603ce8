//! [`Sending`]: the handler's answer on its way to the client and into the store, in the shape that the client's conditions and range want.

use std::sync::Arc;

use bytes::Bytes;
use http::response::Parts;
use http::{HeaderMap, Response, header};
use http_body::Body;
use sha2::{Digest, Sha256};

use crate::boarding::{Given, Preview};
use crate::body::ResponseBody;
use crate::cache::CacheCore;
use crate::clock::Moment;
use crate::fill::Fill;
use crate::outcome::CacheOutcome;
use crate::plan::Plan;
use crate::respond::{Shape, from_handler, reshape, wanted};
use crate::rfc9111::storability::DeclineReason;
use crate::stream::{Frames, Source, Stream};

/// An answer that is stored and sent.
pub(crate) struct Sending {
    pub(crate) core: Arc<CacheCore>,
    pub(crate) parts: Parts,
    /// The request's fields where they have conditions or a range.
    pub(crate) asked: Option<HeaderMap>,
    pub(crate) outcome: CacheOutcome,
    /// Since when a client waits for it, if one does.
    pub(crate) since: Option<Moment>,
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
            plan.flight.decline();
            self.core.note_stored(&plan.route, &plan.key, Err(DeclineReason::Incomplete));
            Err(DeclineReason::Incomplete)
        } else {
            let hash = plan.needs_hash().then(|| Sha256::digest(&content).into());
            plan.commit(&content, hash)
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

    /// The content streams to the client and into the store, and to whoever asks for the same meanwhile.
    pub(crate) fn streamed<B: Body>(mut self, plan: Plan, source: Source, ready: Frames) -> Response<ResponseBody<B>> {
        let preview = plan.flight.announcer().map(|announcer| (announcer, plan.preview()));
        let lengths = (self.exact, self.announced.or(self.exact));
        let reader = Stream::begin(self.core.clone(), source, ready, Fill::new(plan), lengths);
        if let Some((announcer, response)) = preview {
            let stream = Arc::downgrade(reader.stream());
            let preview = Preview { response, announced: self.announced.or(self.exact), stream };
            announcer.announce(Given::Streaming(Arc::new(preview)));
        }
        let body = match self.reshape(self.announced.or(self.exact), Shape::of_a_stream) {
            Shape::Whole | Shape::Parts(_) => ResponseBody::streaming(reader),
            Shape::Part(part) => ResponseBody::part(reader, part),
            // The reader that is dropped here leaves all of it to a task.
            Shape::NotModified | Shape::Failed | Shape::Unsatisfiable => ResponseBody::empty(),
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
        from_handler(&self.core, Response::from_parts(self.parts, body), self.outcome, self.since)
    }
}
