//! [`Following`]: a request that waits for the answer to another one, and what it does with that: takes it, takes what is stored instead, or goes to
//! the handler after all.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::Body;
use tracing::{Instrument, Span};

use crate::admission::Ask;
use crate::boarding::{Boarding, Departure, Given, Preview, Share};
use crate::body::ResponseBody;
use crate::cache::CacheCore;
use crate::flight::{Follower, Landed};
use crate::outcome::{CacheOutcome, ForwardReason, Outcome};
use crate::plainly::parts_are_told_by_date;
use crate::respond::{self, Shape, from_handler, head_of, note, reshape, shape};
use crate::response::StoredResponse;
use crate::spans;
use crate::standing_in::{in_its_place, may_stand_in};
use crate::stats::count;
use crate::variance::Variance;

/// A request that waits.
pub(crate) struct Following<'a> {
    pub(crate) core: &'a Arc<CacheCore>,
    pub(crate) ask: &'a Ask,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) why: ForwardReason,
    /// What the store has, stale or in need of validation.
    pub(crate) previous: Option<&'a Arc<StoredResponse>>,
}

/// What came of it.
pub(crate) enum Followed<B: Body> {
    /// The answer.
    Answered(Response<ResponseBody<B>>),
    /// It goes to the handler; and whether what was found in the store before is still good.
    Leads { departure: Departure, previous_is_good: bool },
}

/// What there is of another request's answer.
enum Taken<B: Body> {
    Response(Response<ResponseBody<B>>),
    /// It is another variant; the one that this request would get.
    OtherVariant(Variance),
    /// It streamed, and isn't there any more.
    Gone,
    /// It may not be used for this request.
    Nothing,
}

impl Following<'_> {
    /// Waits, as long as this makes sense:
    ///
    /// - an answer that it may have, it takes, from the first byte on, whatever came of it in the meantime;
    /// - if that is another variant, it boards once more, now that it knows its own;
    /// - after an answer that is nobody else's it goes on its own at once;
    /// - after an error or no answer at all, something stale stands in where one may; else it boards once more, and if that fails as well it goes
    ///   on its own;
    /// - where too many wait, it is turned away.
    pub(crate) async fn run<B: Body>(self, boarding: Boarding) -> Followed<B> {
        let span = spans::follow(self.core.rules.get(self.ask.rule), self.why);
        self.wait_in(&span, boarding).instrument(span.clone()).await
    }

    async fn wait_in<B: Body>(mut self, span: &Span, mut boarding: Boarding) -> Followed<B> {
        let (mut failed, mut knows) = (false, false);
        loop {
            let follower = match boarding {
                Boarding::Lead(departure) => return self.leads(departure),
                Boarding::Full => return Followed::Answered(self.turned_away()),
                Boarding::Follow(follower) => follower,
            };
            let landed = self.wait(&follower).await;
            span.follows_from(follower.leading().and_then(Span::id));
            if follower.is_sealed() {
                // A write deletes by key: what was found before it isn't good any more, and bears no number that says so.
                self.previous = None;
            }
            drop(follower);
            let alone = match &landed {
                Some(Landed::Given(given)) => match self.take(given) {
                    Taken::Response(response) => return Followed::Answered(response),
                    Taken::OtherVariant(expected) if !knows => {
                        knows = true;
                        boarding = self.board(Some(expected));
                        continue;
                    }
                    // It ended just now, so it is in the store, or was given up.
                    Taken::Gone => failed,
                    Taken::OtherVariant(_) | Taken::Nothing => true,
                },
                Some(Landed::Again) => {
                    boarding = self.board(None);
                    continue;
                }
                Some(Landed::Alone) => true,
                Some(Landed::Failed) | None => {
                    if let Some(response) = self.instead() {
                        return Followed::Answered(response);
                    }
                    failed || landed.is_none()
                }
            };
            if alone {
                count(&self.core.counters.followers_alone);
                let departure = self.core.depart(self.ask);
                return self.leads(departure);
            }
            failed = true;
            boarding = self.board(None);
        }
    }

    fn board(&self, expected: Option<Variance>) -> Boarding {
        let previous = self.previous.map(|previous| &**previous);
        self.core.board(self.ask, self.headers, self.core.now(), previous, expected)
    }

    fn leads<B: Body>(&self, departure: Departure) -> Followed<B> {
        Followed::Leads { departure, previous_is_good: self.previous.is_some() }
    }

    /// Waits for the answer, no longer than for one of its own where something stored may stand in.
    async fn wait(&self, follower: &Follower<Given>) -> Option<Landed<Given>> {
        let policy = &self.core.rules.get(self.ask.rule).policy;
        let limit = self.ask.strategy.limit().or(policy.fill_timeout);
        let limit = limit.filter(|_| self.stand_in(false).is_some()).unwrap_or(Duration::MAX);
        if tokio::runtime::Handle::try_current().is_err() {
            // Nobody to tell the time; a timer would panic.
            return Some(follower.landed().await);
        }
        let landed = tokio::time::timeout(limit.min(self.core.settings.max_wait), follower.landed()).await;
        landed.inspect_err(|_| count(&self.core.counters.waits_timed_out)).ok()
    }

    /// The answer to the other request, if this one may have it; else which variant it would get, if it is that.
    fn take<B: Body>(&self, given: &Given) -> Taken<B> {
        let now = self.core.now();
        let (response, stale) = match self.core.share(given, self.ask, self.headers, now) {
            Share::Send(response, stale) => (response, stale),
            Share::OtherVariant(expected) => return Taken::OtherVariant(expected),
            Share::Not => return Taken::Nothing,
        };
        if let Some(upkeep) = &response.upkeep {
            upkeep.touch(now.since(response.received));
        }
        let outcome = stale.map_or(Outcome::Collapsed(self.why), Outcome::Stale);
        let outcome = CacheOutcome::of_stored(outcome, self.ask.rule, response.age(now), response.lifetime());
        let asked = (!self.ask.is_plain()).then_some(self.headers);
        let accepts = || self.ask.accepts(self.headers);
        let mut response = match given {
            Given::Stored(stored) => respond::from_store(self.core, stored, now, outcome, asked, accepts, false),
            Given::Streaming(preview) => match self.of_stream(preview, outcome, asked) {
                Some(response) => response,
                None => return Taken::Gone,
            },
        };
        note(self.core, &mut response, outcome, Some(self.ask.began));
        Taken::Response(response)
    }

    fn of_stream<B: Body>(
        &self,
        preview: &Preview,
        outcome: CacheOutcome,
        asked: Option<&HeaderMap>,
    ) -> Option<Response<ResponseBody<B>>> {
        let reader = preview.stream.upgrade()?.join()?;
        let stored = &preview.response;
        let mut head = head_of(self.core, stored, self.core.now(), &outcome, false);
        let length = preview.announced;
        let mut status = stored.status;
        let shape = asked.map_or(Shape::Whole, |asked| shape(asked, status, stored.validators(), length, false));
        let mut shape = match shape.of_a_stream() {
            // The part it has may be of another form.
            Shape::Part(_) if stored.form.is_negotiable() && asked.is_some_and(parts_are_told_by_date) => Shape::Whole,
            shape => shape,
        };
        reshape(&mut shape, length, &mut status, &mut head);
        let body = match shape {
            Shape::Whole | Shape::Parts(_) => {
                if let Some(length) = length {
                    head.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
                }
                ResponseBody::streaming(reader)
            }
            Shape::Part(part) => ResponseBody::part(reader, part),
            Shape::NotModified | Shape::Failed | Shape::Unsatisfiable => ResponseBody::empty(),
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = head;
        Some(response)
    }

    fn stand_in(&self, disconnected: bool) -> Option<Arc<StoredResponse>> {
        let now = self.core.now();
        let previous = self.previous.filter(|previous| self.core.is_usable(previous, &self.ask.key, now))?;
        may_stand_in(self.ask, previous, now, disconnected).then(|| previous.clone())
    }

    /// What is stored, where the handler failed the other request or took too long.
    fn instead<B: Body>(&self) -> Option<Response<ResponseBody<B>>> {
        let stored = self.stand_in(false)?;
        let now = self.core.now();
        let outcome = in_its_place(self.ask, stored.current_terms().is_fresh(stored.age(now)));
        let outcome = CacheOutcome::of_stored(outcome, self.ask.rule, stored.age(now), stored.lifetime());
        let asked = (!self.ask.is_plain()).then_some(self.headers);
        let accepts = || self.ask.accepts(self.headers);
        let mut response = respond::from_store(self.core, &stored, now, outcome, asked, accepts, self.ask.is_head);
        note(self.core, &mut response, outcome, Some(self.ask.began));
        Some(response)
    }

    /// Too many wait already: what is stored, if it may stand in, and else 503.
    fn turned_away<B: Body>(&self) -> Response<ResponseBody<B>> {
        count(&self.core.counters.waits_refused);
        if let Some(response) = self.instead() {
            return response;
        }
        let mut response = Response::new(ResponseBody::empty());
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let outcome = CacheOutcome::new(Outcome::Miss(ForwardReason::Crowded), self.ask.rule);
        from_handler(self.core, response, outcome, Some(self.ask.began))
    }
}
