//! [`Errand`]: a request on its way to the handler, and what becomes of the answer: stored, declined, a confirmation of what is stored,
//! or an error that a stale response stands in for.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, Waker, ready};

use bytes::Bytes;
use http::response::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body::Body;
use tracing::Instrument;

use crate::admission::Ask;
use crate::alike::{Alike, Answered};
use crate::boarding::Departure;
use crate::body::{ReadAhead, ResponseBody, read_ahead, read_out, source, waker};
use crate::cache::CacheCore;
use crate::cached::Cached;
use crate::clock::Moment;
use crate::downstream::ensure_private;
use crate::error::BoxError;
use crate::fill::Fill;
use crate::outcome::{BypassReason, CacheOutcome, ForwardReason, Outcome};
use crate::plainly::parts_are_told_by_date;
use crate::plan::{Draft, Plan, announced_length, fits};
use crate::policy::Policy;
use crate::precedence::{Arrival, Verdict, judge};
use crate::representation::announce;
use crate::respond::{Shape, from_handler, reshape, wanted};
use crate::response::{REPLACED, StoredResponse};
use crate::rfc9111::date;
use crate::rfc9111::storability::DeclineReason;
use crate::rfc9111::validation;
use crate::rules::Route;
use crate::sending::Sending;
use crate::sent_fields::SentFields;
use crate::spans;
use crate::stats::count;
use crate::stream::Stream;
use crate::used::Scope;

/// One exchange with the handler.
pub(crate) struct Errand {
    pub(crate) core: Arc<CacheCore>,
    pub(crate) ask: Ask,
    pub(crate) why: ForwardReason,
    /// The request's fields as the client sent them.
    pub(crate) asked: SentFields,
    /// What the store has, stale or in need of validation.
    pub(crate) previous: Option<Arc<StoredResponse>>,
    pub(crate) departure: Departure,
    pub(crate) sent: Moment,
    /// The handler was asked whether `previous` is still good.
    pub(crate) conditional: bool,
    /// The handler was asked for the whole: without the client's conditions and range. Else its answer may be for this client alone.
    pub(crate) wants_whole: bool,
    /// It was a POST, which was never looked up.
    pub(crate) is_post: bool,
    /// The handler was asked for content without coding, whatever the client accepts.
    pub(crate) plainly: bool,
    /// Whether a client waits for the answer; else nothing is counted as one.
    pub(crate) attended: bool,
    /// Where the tags go that the answer is made from.
    pub(crate) scope: Scope,
}

impl Errand {
    /// Prepares `request` for the handler, for which it has departed, at `sent` or a little later: from then on what comes back is held against purges and writes.
    ///
    /// 1. What the key ignores is hidden from the handler.
    /// 2. The client's conditions and range are taken off, so that the answer is the whole, which can be stored. A range stays, and the
    ///    conditions with it, unless the whole is known to fit into the store.
    /// 3. What the store has is asked to be confirmed.
    pub(crate) fn begin<B>(
        core: &Arc<CacheCore>,
        ask: Ask,
        why: ForwardReason,
        previous: Option<Arc<StoredResponse>>,
        request: &mut Request<B>,
        departure: Departure,
        sent: Moment,
    ) -> Box<Self> {
        // A purge may have come since the lookup; what it touched must not come back with a new number.
        let previous = previous.filter(|previous| core.is_valid(previous, &ask.key));
        let mut asked = SentFields::of(request.headers());
        core.rules.get(ask.rule).policy.prepare_fill(request);
        let plainly = core.coders.plainly.ask(&core.settings, departure.stamp.resource, request.headers_mut());
        if plainly && parts_are_told_by_date(request.headers()) {
            // The date is that of every form: the client may have a part of another one than it would get (RFC 9110 §8.8.1).
            let names = [header::RANGE, header::IF_RANGE];
            names.iter().for_each(|name| drop(request.headers_mut().remove(name)));
            asked = asked.without(&names);
        }
        let (wants_whole, mut conditional) = (core.wants_whole(&ask, previous.as_deref(), sent), false);
        if wants_whole {
            let headers = request.headers_mut();
            if asked.has_conditions() {
                validation::strip_conditions(headers);
                headers.remove(header::RANGE);
            }
            if let Some(previous) = &previous {
                conditional = validation::make_conditional(headers, &previous.origin_head());
            }
        }
        let (core, scope) = (core.clone(), Scope::of_request(request));
        // In a box, since it is handed on from step to step, and each would have a place of its own for it.
        Box::new(Self {
            core,
            ask,
            why,
            asked,
            previous,
            departure,
            sent,
            conditional,
            wants_whole,
            plainly,
            is_post: false,
            attended: true,
            scope,
        })
    }

    /// No client waits any more, or ever did: the conditions and the range of the request have no more say.
    pub(crate) fn unattended(mut self: Box<Self>) -> Box<Self> {
        (self.ask.conditions, self.ask.range, self.attended) = (false, false, false);
        self
    }

    /// Waits for the handler, but no longer than the rule allows if a stale response can stand in; the handler's answer then comes
    /// too late for this client, and still refreshes the store, as one of the refreshes.
    pub(crate) async fn run<B, E>(
        self: Box<Self>,
        call: impl Future<Output = Result<Response<B>, E>> + Send + 'static,
    ) -> Result<Response<ResponseBody<B>>, E>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
        E: Send + 'static,
    {
        let call = self.scope.clone().around(call);
        let limit = self.ask.strategy.limit().or(self.policy().fill_timeout);
        let limit = limit.filter(|_| self.attended && self.stand_in(false).is_some());
        // Outside of a runtime nobody tells the time.
        let limit = limit.filter(|_| tokio::runtime::Handle::try_current().is_ok());
        let Some(limit) = limit else {
            let (mut call, mut errand) = (pin!(call), Some(self));
            // In one step with the answer: so neither that nor what is made of it has a place in the future.
            return poll_fn(|cx| {
                let answer = ready!(call.as_mut().poll(cx));
                errand.take().map_or(Poll::Pending, |errand| Poll::Ready(errand.settle(answer, cx.waker())))
            })
            .await;
        };
        let mut call = Box::pin(call);
        if let Ok(answer) = tokio::time::timeout(limit, &mut call).await {
            return self.settle(answer, &waker().await);
        }
        // While the handler took its time, a purge may have come, or the stale window ended.
        let Some(stand_in) = self.stand_in(false) else { return self.settle(call.await, &waker().await) };
        let response = self.in_its_place(&stand_in);
        // Nobody waits for it any more, so what bounds the clients doesn't bound it. Where there is no place, it ends as if its client had left.
        let Some(refresh) = self.core.begin_refresh(&self.ask, &stand_in) else { return Ok(response) };
        let core = self.core.clone();
        count(&core.counters.refreshes);
        let span = spans::refresh(self.route());
        let rest = async move { self.unattended().settle(call.await, &waker().await) };
        core.refresh(refresh, read_out(rest).instrument(span));
        Ok(response)
    }

    /// What becomes of the handler's answer:
    ///
    /// - an error, or 500, 502, 503, 504: a stale response stands in, where one may (RFC 5861 §4); with a strategy that asks the handler
    ///   first, a fresh one as well, and for every 5xx;
    /// - 304 to the cache's own condition: the stored response is good (§4.3.4);
    /// - the answer to a HEAD: says something about what is stored (§4.3.5);
    /// - any other: stored or declined.
    fn settle<B, E>(
        mut self: Box<Self>,
        answer: Result<Response<B>, E>,
        waker: &Waker,
    ) -> Result<Response<ResponseBody<B>>, E>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let received = self.core.now();
        self.route().counters.handled(self.sent, received);
        let response = match answer {
            Ok(response) => response,
            Err(error) => {
                let disconnected = self.core.settings.stale_when_disconnected;
                let stand_in = self.stand_in(disconnected);
                return stand_in.map(|stored| self.in_its_place(&stored)).ok_or(error);
            }
        };
        let status = response.status();
        let failed = matches!(status.as_u16(), 500 | 502 | 503 | 504)
            || status.is_server_error() && self.ask.strategy.falls_back();
        if failed && let Some(stored) = self.stand_in(false) {
            return Ok(self.in_its_place(&stored));
        }
        if status == StatusCode::NOT_MODIFIED
            && self.conditional
            && let Some(previous) = self.previous.take()
        {
            return Ok(self.confirmed(&previous, response.into_parts().0));
        }
        if self.ask.is_head {
            return Ok(self.answered_head(response));
        }
        let handler = response.extensions().get::<Cached>().cloned();
        if status == StatusCode::PARTIAL_CONTENT {
            self.learn_from_part(response.headers(), handler.as_ref(), received);
        }
        let refused = self.plainly
            && self.core.coders.plainly.is_refusal(&self.core.settings, self.departure.stamp.resource, status);
        let exact = response.body().size_hint().exact();
        if handler.is_none() && !self.plainly && !self.ask.authorization && !self.ask.directives.no_store {
            let delay = received.since(self.sent);
            let answer = Answered { status, head: response.headers(), exact, received, delay };
            if let Some((verdict, alike)) = self.route().alikes.judge(&self.core, answer) {
                return Ok(self.store_alike(response, verdict, alike, received, waker));
            }
        }
        let verdict = self.judge(status, response.headers(), handler.as_ref(), received);
        let verdict = if refused { Err(DeclineReason::ErrorStatus) } else { verdict };
        match verdict.and_then(|verdict| fits(&self.core.settings, response.headers(), exact).map(|()| verdict)) {
            Ok(verdict) => Ok(self.store(response, verdict, handler, received, waker)),
            Err(reason) => Ok(self.decline(response, reason)),
        }
    }

    pub(crate) fn route(&self) -> &Route {
        self.core.rules.get(self.ask.rule)
    }

    pub(crate) fn policy(&self) -> &Policy {
        &self.route().policy
    }

    /// Since when a client waits for the answer, if one does.
    pub(crate) fn since(&self) -> Option<Moment> {
        self.attended.then_some(self.ask.began)
    }

    pub(crate) fn judge(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        handler: Option<&Cached>,
        received: Moment,
    ) -> Result<Verdict, DeclineReason> {
        let arrival = Arrival {
            // What a HEAD says is weighed as if it were about the GET that is stored.
            method: &Method::GET,
            authorization: self.ask.authorization,
            request_no_store: self.ask.directives.no_store,
            status,
            headers,
            handler,
            date: date::field(headers, header::DATE).unwrap_or(received.wall),
            received: received.wall,
            delay: received.since(self.sent),
            spread: self.core.spread(&self.ask.key, received),
        };
        judge(&arrival, self.policy(), &self.core.settings)
    }

    pub(crate) fn plan(
        self,
        status: StatusCode,
        head: &HeaderMap,
        verdict: Verdict,
        handler: Option<Cached>,
        received: Moment,
        exact: Option<u64>,
    ) -> Result<Plan, DeclineReason> {
        self.planned(status, head, verdict, handler, received, exact, Plan::new)
    }

    /// The same of an answer that is like earlier ones.
    pub(crate) fn plan_alike(
        self,
        parts: &Parts,
        verdict: Verdict,
        alike: Alike,
        received: Moment,
        exact: Option<u64>,
    ) -> Plan {
        let make = |draft: Draft<'_>, departure| Plan::of_alike(draft, alike, departure);
        self.planned(parts.status, &parts.headers, verdict, None, received, exact, make)
    }

    #[expect(clippy::too_many_arguments, reason = "all that is known of an answer goes along")]
    fn planned<P>(
        self,
        status: StatusCode,
        head: &HeaderMap,
        verdict: Verdict,
        handler: Option<Cached>,
        received: Moment,
        exact: Option<u64>,
        make: impl FnOnce(Draft<'_>, Departure) -> P,
    ) -> P {
        let route = self.core.rules.get(self.ask.rule);
        // A HEAD only confirms what is stored, and a POST wasn't looked up.
        let is_fetch = !self.ask.is_head && !self.is_post;
        let trail =
            is_fetch.then(|| self.core.trail(self.ask.rule, self.why, self.sent, self.attended, &self.asked)).flatten();
        let draft = Draft {
            core: &self.core,
            key: self.ask.key,
            plain: self.ask.plain,
            regime: self.ask.regime,
            received,
            verdict,
            status,
            head,
            asked: &self.asked,
            handler,
            policy: &route.policy,
            route: &route.counters,
            account: route.account,
            labels: &route.labels,
            previous: self.previous,
            exact,
            asked_plainly: self.plainly,
            trail,
            alikes: &route.alikes,
        };
        make(draft, self.departure)
    }

    /// The handler's answer goes to the client and, once it has ended cleanly, into the store.
    pub(crate) fn store<B>(
        self: Box<Self>,
        response: Response<B>,
        verdict: Verdict,
        handler: Option<Cached>,
        received: Moment,
        waker: &Waker,
    ) -> Response<ResponseBody<B>>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let outcome = if self.is_post { Outcome::Bypass(BypassReason::Method) } else { Outcome::Miss(self.why) };
        let (core, outcome, since) = (self.core.clone(), self.outcome(outcome), self.since());
        let (mut parts, body) = response.into_parts();
        let downstream = verdict.downstream.clone();
        let asked = self.client_asks();
        let exact = body.size_hint().exact();
        let one_client = self.speaks_to_one_client(&parts.headers);
        let scope = self.scope.clone();
        let (shared, key) = (self.departure.asked, self.ask.key.clone());
        let plan = match self.plan(parts.status, &parts.headers, verdict, handler, received, exact) {
            Ok(plan) => plan,
            Err(reason) => {
                core.remember_declined(shared, reason, received);
                let route = &core.rules.get(outcome.rule).counters;
                core.note_stored(route, &key, Err(reason));
                let response = Response::from_parts(parts, body);
                return from_handler(&core, response.map(ResponseBody::untouched), outcome.stored(Err(reason)), since);
            }
        };
        announce(&mut parts.headers, plan.form, &core.settings.compression, asked.as_ref());
        core.rules.get(outcome.rule).watch_stored(parts.status, &plan.key, plan.silent_coding);
        if let Some(downstream) = downstream {
            REPLACED.iter().for_each(|name| drop(parts.headers.remove(name)));
            let cache_control = if parts.headers.contains_key(header::SET_COOKIE) {
                downstream.private_cache_control()
            } else {
                downstream.cache_control()
            };
            parts.headers.insert(header::CACHE_CONTROL, cache_control);
        }
        if one_client {
            ensure_private(&mut parts.headers, &core.settings.targets);
        }
        let announced = announced_length(&parts.headers);
        let sending = Sending { core, parts, asked, outcome, since, announced, exact };
        let limit = sending.core.settings.eager_etag_size;
        let body = source(body, &sending.core.rules.get(outcome.rule).counters, scope);
        if exact.is_none_or(|length| length > limit as u64) {
            return sending.streamed(plan, body, Default::default());
        }
        match read_ahead(body, limit, waker) {
            ReadAhead::Complete(content) => sending.complete(plan, content),
            ReadAhead::Streaming(body, ready) => sending.streamed(plan, body, ready),
        }
    }

    /// The handler's answer goes to the client only. What was stored before is dropped if the answer speaks against it: it was good once, and
    /// this answer says that it isn't any more.
    fn decline<B>(self, response: Response<B>, reason: DeclineReason) -> Response<ResponseBody<B>>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        if self.wants_whole {
            self.core.wholes.forget(&self.ask.key);
        }
        if !response.status().is_server_error() {
            // Those who wait go on their own at once. After an error one of them tries first.
            self.departure.flight.decline();
            self.core.remember_declined(self.departure.asked, reason, self.core.now());
        }
        let route = self.route();
        route.watch_declined(response.status(), reason, &self.ask.key, self.previous.is_some());
        if self.condemns(response.status(), reason) {
            // Fills that began earlier are condemned as well, even where nothing is stored yet.
            match &self.previous {
                Some(_) => self.core.forget(&self.ask.key),
                None => self.core.flights.seal_resource(&self.departure.stamp),
            }
            // What a learned rule hides would come back when the rule is forgotten.
            self.ask.plain.iter().for_each(|plain| self.core.forget(plain));
        }
        // Behind what it condemns: of the key this is the last that is to be known.
        self.core.note_stored(&self.route().counters, &self.ask.key, Err(reason));
        let outcome = self.outcome(Outcome::Miss(self.why)).stored(Err(reason));
        let watch = self.witness(reason).and_then(|witness| witness.answered(&response, self.core.now()));
        let (mut parts, body) = response.into_parts();
        if self.speaks_to_one_client(&parts.headers) {
            ensure_private(&mut parts.headers, &self.core.settings.targets);
        }
        let length = announced_length(&parts.headers).or(body.size_hint().exact());
        let mut shape = wanted(self.client_asks().as_ref(), &parts, length).of_a_stream();
        reshape(&mut shape, length, &mut parts.status, &mut parts.headers);
        let body = match shape {
            Shape::Whole | Shape::Parts(_) => ResponseBody::watched(body, watch),
            Shape::Part(part) => {
                let (exact, core) = (body.size_hint().exact(), self.core.clone());
                let passing = Stream::begin(
                    core,
                    source(body, &self.route().counters, Scope::default()),
                    Default::default(),
                    Fill::none(),
                    (exact, exact),
                );
                ResponseBody::part(passing, part)
            }
            Shape::NotModified | Shape::Failed | Shape::Unsatisfiable => ResponseBody::empty(),
        };
        from_handler(&self.core, Response::from_parts(parts, body), outcome, self.since())
    }

    /// Whether an answer that is not stored makes what is stored worthless. Errors say nothing about what they stand in the place of, and an
    /// answer for one user nothing about the one for everybody.
    fn condemns(&self, status: StatusCode, reason: DeclineReason) -> bool {
        let speaks = status.is_success() || status.is_redirection() || matches!(status.as_u16(), 404 | 410);
        let of_one_user = match &self.previous {
            Some(previous) => self.is_for_one_user(previous),
            None => self.ask.authorization,
        };
        reason.condemns_stored() && speaks && !of_one_user
    }

    /// Whether the answer to this request is for one user, where `previous` is for everybody.
    pub(crate) fn is_for_one_user(&self, previous: &StoredResponse) -> bool {
        self.ask.authorization && !previous.terms.for_authorized
    }

    /// Whether the rule says of this answer, or of a cookie in it, that it is for this client and no other. Caches downstream don't know the rule.
    pub(crate) fn speaks_to_one_client(&self, head: &HeaderMap) -> bool {
        let policy = self.policy();
        policy.is_partitioned() || policy.drop_set_cookie && head.contains_key(header::SET_COOKIE)
    }

    pub(crate) fn outcome(&self, outcome: Outcome) -> CacheOutcome {
        CacheOutcome::new(outcome, self.ask.rule)
    }

    /// The client's fields where they have conditions or a range.
    pub(crate) fn client_asks(&self) -> Option<HeaderMap> {
        (!self.ask.is_plain()).then(|| self.asked.to_map())
    }
}
