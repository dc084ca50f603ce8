//! An answer that is like earlier ones and has its content with it: nothing is to be found out about it, and nothing to be waited for, so that it is stored where it came.
//!
//! Most small misses are such. What others need on their way, a [`Plan`](crate::plan::Plan), would be made only to be taken apart in the next step.

use std::sync::Arc;
use std::task::Waker;

use bytes::Bytes;
use http::response::Parts;
use http::{Response, header};
use http_body::Body;

use crate::alike::Alike;
use crate::boarding::Departure;
use crate::body::{ReadAhead, ResponseBody, read_ahead, source};
use crate::clock::Moment;
use crate::error::BoxError;
use crate::fetch::Errand;
use crate::form::Form;
use crate::head::SharedHeads;
use crate::outcome::Outcome;
use crate::plan::announced_length;
use crate::precedence::Verdict;
use crate::report::{Coming, Content};
use crate::respond::from_nameless;
use crate::response::{Origin, StoredResponse};
use crate::rfc9111::directives::RequestDirectives;
use crate::rfc9111::reuse::{Reuse, reuse};
use crate::sending::Sending;
use crate::storage::MemoryStore;
use crate::stream::Frames;

impl Errand {
    /// As [`store`](Self::store), for an answer that is like earlier ones.
    pub(crate) fn store_alike<B>(
        mut self: Box<Self>,
        response: Response<B>,
        verdict: Verdict,
        alike: Alike,
        received: Moment,
        waker: &Waker,
    ) -> Response<ResponseBody<B>>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let (parts, body) = response.into_parts();
        let exact = body.size_hint().exact();
        let announced = announced_length(&parts.headers);
        let limit = self.core.settings.eager_etag_size;
        let scope = std::mem::take(&mut self.scope);
        let body = source(body, &self.route().counters, scope);
        let ahead = match exact {
            Some(length) if length <= limit as u64 => read_ahead(body, limit, waker),
            _ => ReadAhead::Streaming(body, Frames::new()),
        };
        let near = match &ahead {
            ReadAhead::Complete(content) if announced.or(exact) == Some(content.len() as u64) => {
                self.goes_at_once(&verdict).cloned()
            }
            _ => None,
        };
        let ahead = match (near, ahead) {
            (Some(near), ReadAhead::Complete(content)) => {
                return self.store_at_once(&near, parts, content, verdict, alike, received);
            }
            (_, ahead) => ahead,
        };
        let (core, since) = (self.core.clone(), self.since());
        let outcome = self.outcome(Outcome::Miss(self.why));
        let sending = Sending { core, asked: self.client_asks(), parts, outcome, since, announced, exact };
        let plan = self.plan_alike(&sending.parts, verdict, alike, received, exact);
        sending.core.rules.get(outcome.rule).watch_stored(sending.parts.status, &plan.key, plan.silent_coding);
        match ahead {
            ReadAhead::Complete(content) => sending.complete(plan, content),
            ReadAhead::Streaming(body, ready) => sending.streamed(plan, body, ready),
        }
    }

    /// Whether there is nothing but to store an answer on these terms and to send it; and where.
    fn goes_at_once(&self, verdict: &Verdict) -> Option<&Arc<MemoryStore>> {
        let backend = &self.core.settings.backend;
        let (route, terms) = (self.route(), &verdict.terms);
        let is_plain = self.previous.is_none()
            && self.ask.is_plain()
            && self.ask.plain.is_none()
            && !self.is_post
            && !route.labels.has_tags()
            && !route.policy.is_partitioned()
            && self.departure.flight.used().is_none();
        let is_shared =
            || !matches!(reuse(terms, terms.initial_age, &RequestDirectives::default(), false), Reuse::Validate(_));
        backend.near.as_ref().filter(|_| backend.far.is_none() && is_plain && is_shared())
    }

    fn store_at_once<B: Body>(
        self: Box<Self>,
        near: &MemoryStore,
        parts: Parts,
        content: Bytes,
        verdict: Verdict,
        alike: Alike,
        received: Moment,
    ) -> Response<ResponseBody<B>> {
        let (core, key, since) = (&self.core, &self.ask.key, self.since());
        let outcome = self.outcome(Outcome::Miss(self.why));
        let route = core.rules.get(self.ask.rule);
        let trail = core.trail(self.ask.rule, self.why, self.sent, self.attended, &self.asked);
        let variance = alike.kind.variance(core, &self.asked);
        let Departure { flight, stamp, asked, .. } = self.departure;
        core.remember(asked, true, received);
        route.watch_stored(parts.status, key, false);
        let seen = trail.as_ref().and_then(|trail| {
            let content = Some(Content { bytes: &content, sha: None, tag: alike.head.get(&header::ETAG) });
            let (variance, terms, stamp) = (&variance, &verdict.terms, &stamp);
            core.see_fill(trail, Coming { key, variance, terms, received, stamp, content })
        });
        let pack = if near.is_full() { SharedHeads::pack_anywhere } else { SharedHeads::pack };
        let (head, body) = pack(&core.heads, alike.head, &content);
        let stored = StoredResponse {
            status: parts.status,
            head,
            body,
            form: Form::Fixed,
            keep: verdict.keep,
            terms: verdict.terms,
            received,
            variance,
            origin: Origin::default(),
            downstream: None,
            stamp,
            regime: self.ask.regime,
            charge: None,
            upkeep: None,
            route: route.counters.clone(),
        };
        let committed = core.commit_at_once(flight, key, near, stored);
        core.note_stored(&route.counters, key, committed);
        seen.into_iter().for_each(|seen| core.note_fill(seen, committed.is_ok()));
        // Those that are alike name no tags.
        let response = Response::from_parts(parts, ResponseBody::stored(content));
        from_nameless(core, response, outcome.stored(committed), since)
    }
}
