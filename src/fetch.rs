//! [`Errand`]: a request on its way to the handler, and what becomes of the answer: stored, declined, a confirmation of what is stored,
//! or an error that a stale response stands in for.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::response::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body::Body;

use crate::admission::{Ask, InHand};
use crate::body::{Copied, Part, ReadAhead, ResponseBody, read_ahead};
use crate::cache::CacheCore;
use crate::cached::Cached;
use crate::clock::Moment;
use crate::downstream::ensure_private;
use crate::fill::Fill;
use crate::flight::Flight;
use crate::outcome::{CacheOutcome, ForwardReason, Outcome, StaleReason};
use crate::plan::{Draft, Plan, announced_length, fits};
use crate::policy::Policy;
use crate::precedence::{Arrival, Verdict, judge};
use crate::representation::{announce, announce_head};
use crate::respond::{self, Shape, from_handler, note, reshape, wanted};
use crate::response::{REPLACED, Stamp, StoredResponse, ensure_date};
use crate::rfc9111::coding::Accepts;
use crate::rfc9111::date;
use crate::rfc9111::reuse::{Reuse, may_stand_in_for_error, reuse};
use crate::rfc9111::storability::DeclineReason;
use crate::rfc9111::validation::{self, confirms, freshen, head_agrees};
use crate::sending::Sending;

/// One exchange with the handler.
pub(crate) struct Errand {
    core: Arc<CacheCore>,
    ask: Ask,
    why: ForwardReason,
    /// The request's fields as the client sent them.
    asked: HeaderMap,
    /// What the store has, stale or in need of validation.
    previous: Option<Arc<StoredResponse>>,
    flight: Flight,
    stamp: Stamp,
    sent: Moment,
    /// How many URIs had been purged or written to when the handler was asked.
    changes: u64,
    /// The handler was asked whether `previous` is still good.
    conditional: bool,
    /// The handler was asked for content without coding, whatever the client accepts.
    plainly: bool,
    /// Whether a client waits for the answer; else nothing is counted as one.
    attended: bool,
}

impl Errand {
    /// Prepares `request` for the handler:
    ///
    /// 1. From now on purges seal what comes back.
    /// 2. What the key ignores is hidden from the handler.
    /// 3. The client's conditions and range are taken off, so that the answer is the whole, which can be stored. A range stays where
    ///    nothing says that the whole is worth having.
    /// 4. What the store has is asked to be confirmed.
    pub(crate) fn begin<B>(
        core: &Arc<CacheCore>,
        ask: Ask,
        why: ForwardReason,
        previous: Option<Arc<StoredResponse>>,
        request: &mut Request<B>,
    ) -> Self {
        let changes = core.searches.changes();
        let stamp = core.purges.stamp(&ask.key, core.purges.current());
        let flight = core.flights.begin(&stamp, core.groups.authority(ask.key.origin().authority));
        // A purge may have come since the lookup; what it touched must not come back with a new number.
        let previous = previous.filter(|previous| core.purges.is_valid(&previous.stamp));
        let asked = request.headers().clone();
        let policy = &core.rules.get(ask.rule).policy;
        InHand::mark(core, request.extensions_mut());
        policy.prepare_fill(request);
        let plainly = core.coders.plainly.ask(&core.settings, stamp.resource, request.headers_mut());
        let wants_whole = !ask.is_head && (!ask.range || policy.ttl.is_some() || previous.is_some());
        let mut conditional = false;
        if wants_whole {
            let headers = request.headers_mut();
            validation::strip_conditions(headers);
            headers.remove(header::RANGE);
            if let Some(previous) = &previous {
                conditional = validation::make_conditional(headers, &previous.origin_head());
            }
        }
        let sent = core.now();
        let core = core.clone();
        Self { core, ask, why, asked, previous, flight, stamp, sent, changes, conditional, plainly, attended: true }
    }

    /// No client waits any more, or ever did: the conditions and the range of the request have no more say.
    pub(crate) fn unattended(mut self) -> Self {
        (self.ask.conditions, self.ask.range, self.attended) = (false, false, false);
        self
    }

    /// Waits for the handler, but no longer than the rule allows if a stale response can stand in; the handler's answer then comes
    /// too late for this client, and still refreshes the store, as one of the refreshes.
    pub(crate) async fn run<B, E>(
        self,
        call: impl Future<Output = Result<Response<B>, E>> + Send + 'static,
    ) -> Result<Response<ResponseBody<B>>, E>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Send,
        E: Send + 'static,
    {
        let limit = self.ask.strategy.limit().or(self.policy().fill_timeout);
        let limit = limit.filter(|_| self.attended && self.stand_in(false).is_some());
        let Some(limit) = limit else { return self.settle(call.await).await };
        let mut call = Box::pin(call);
        if let Ok(answer) = tokio::time::timeout(limit, &mut call).await {
            return self.settle(answer).await;
        }
        // While the handler took its time, a purge may have come, or the stale window ended.
        let Some(stand_in) = self.stand_in(false) else { return self.settle(call.await).await };
        let response = self.in_its_place(&stand_in);
        // Nobody waits for it any more, so what bounds the clients doesn't bound it. Where there is no place, it ends as if its client had left.
        let Some(refresh) = self.core.begin_refresh(&self.ask, &stand_in) else { return Ok(response) };
        let core = self.core.clone();
        core.spawn(async move {
            let _until_done = refresh;
            finish_unattended(async move { self.unattended().settle(call.await).await }).await;
        });
        Ok(response)
    }

    /// What becomes of the handler's answer:
    ///
    /// - an error, or 500, 502, 503, 504: a stale response stands in, where one may (RFC 5861 §4); with a strategy that asks the handler
    ///   first, a fresh one as well, and for every 5xx;
    /// - 304 to the cache's own condition: the stored response is good (§4.3.4);
    /// - the answer to a HEAD: says something about what is stored (§4.3.5);
    /// - any other: stored or declined.
    async fn settle<B, E>(mut self, answer: Result<Response<B>, E>) -> Result<Response<ResponseBody<B>>, E>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Send,
    {
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
        let received = self.core.now();
        let handler = response.extensions().get::<Cached>().cloned();
        let refused = self.plainly && self.core.coders.plainly.is_refusal(self.stamp.resource, status);
        let verdict = self.judge(status, response.headers(), handler.as_ref(), received);
        let verdict = if refused { Err(DeclineReason::ErrorStatus) } else { verdict };
        let exact = response.body().size_hint().exact();
        match verdict.and_then(|verdict| fits(&self.core.settings, response.headers(), exact).map(|()| verdict)) {
            Ok(verdict) => Ok(self.store(response, verdict, handler, received).await),
            Err(reason) => Ok(self.decline(response, reason)),
        }
    }

    fn policy(&self) -> &Policy {
        &self.core.rules.get(self.ask.rule).policy
    }

    fn judge(
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
        };
        judge(&arrival, self.policy(), &self.core.settings)
    }

    fn plan(
        self,
        status: StatusCode,
        head: &HeaderMap,
        verdict: Verdict,
        handler: Option<Cached>,
        received: Moment,
        exact: Option<u64>,
    ) -> Result<Plan, DeclineReason> {
        let route = self.core.rules.get(self.ask.rule);
        let draft = Draft {
            core: &self.core,
            key: self.ask.key,
            plain: self.ask.plain,
            changes: self.changes,
            regime: self.ask.regime,
            stamp: self.stamp,
            received,
            verdict,
            status,
            head,
            asked: &self.asked,
            handler,
            policy: &route.policy,
            account: route.account,
            previous: self.previous,
            exact,
            asked_plainly: self.plainly,
        };
        Plan::new(draft, self.flight)
    }

    /// The handler's answer goes to the client and, once it has ended cleanly, into the store.
    async fn store<B>(
        self,
        response: Response<B>,
        verdict: Verdict,
        handler: Option<Cached>,
        received: Moment,
    ) -> Response<ResponseBody<B>>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Send,
    {
        let (core, outcome, counted) = (self.core.clone(), self.outcome(Outcome::Miss(self.why)), self.attended);
        let (mut parts, body) = response.into_parts();
        let downstream = verdict.downstream.clone();
        let asked = self.client_asks().cloned();
        let exact = body.size_hint().exact();
        let one_client = self.speaks_to_one_client(&parts.headers);
        let plan = match self.plan(parts.status, &parts.headers, verdict, handler, received, exact) {
            Ok(plan) => plan,
            Err(reason) => {
                core.counters.stored(Err(reason));
                let response = Response::from_parts(parts, body);
                return from_handler(
                    &core,
                    response.map(ResponseBody::untouched),
                    outcome.stored(Err(reason)),
                    counted,
                );
            }
        };
        announce(&mut parts.headers, plan.form, &core.settings.compression, asked.as_ref());
        core.rules.get(outcome.rule).watch_stored(parts.status, &plan.key, plan.silent_coding);
        if let Some(downstream) = downstream {
            REPLACED.iter().for_each(|name| drop(parts.headers.remove(name)));
            let cache_control = if parts.headers.contains_key(header::SET_COOKIE) {
                downstream.private_cache_control()
            } else {
                downstream.cache_control(Duration::ZERO)
            };
            parts.headers.insert(header::CACHE_CONTROL, cache_control);
        }
        if one_client {
            ensure_private(&mut parts.headers, &core.settings.targets);
        }
        let announced = announced_length(&parts.headers);
        let sending = Sending { core, parts, asked, outcome, counted, announced, exact };
        let limit = sending.core.settings.eager_etag_size;
        let body = Box::pin(body);
        if exact.is_none_or(|length| length > limit as u64) {
            return sending.streamed(plan, body, Default::default());
        }
        match read_ahead(body, limit).await {
            ReadAhead::Complete(content) => sending.complete(plan, content),
            ReadAhead::Streaming(body, ready) => sending.streamed(plan, body, ready),
        }
    }

    /// The handler's answer goes to the client only. What was stored before is dropped if the answer speaks against it: it was good once, and
    /// this answer says that it isn't any more.
    fn decline<B>(self, response: Response<B>, reason: DeclineReason) -> Response<ResponseBody<B>>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Send,
    {
        self.core.counters.stored(Err(reason));
        let route = self.core.rules.get(self.ask.rule);
        route.watch_declined(response.status(), reason, &self.ask.key, self.previous.is_some());
        if self.condemns(response.status(), reason) {
            // Fills that began earlier are condemned as well, even where nothing is stored yet.
            match &self.previous {
                Some(_) => self.core.forget(&self.ask.key),
                None => self.core.flights.seal_resource(&self.stamp),
            }
            // What a learned rule hides would come back when the rule is forgotten.
            self.ask.plain.iter().for_each(|plain| self.core.forget(plain));
        }
        let outcome = self.outcome(Outcome::Miss(self.why)).stored(Err(reason));
        let (mut parts, body) = response.into_parts();
        if self.speaks_to_one_client(&parts.headers) {
            ensure_private(&mut parts.headers, &self.core.settings.targets);
        }
        let length = announced_length(&parts.headers).or(body.size_hint().exact());
        let shape = wanted(self.client_asks(), &parts, length);
        reshape(&shape, length, &mut parts.status, &mut parts.headers);
        let body = match shape {
            Shape::Whole => ResponseBody::untouched(body),
            Shape::Part(part) => {
                let passing = Copied::new(Box::pin(body), Default::default(), Fill::none());
                ResponseBody::part(Part::new(self.core.clone(), passing, part))
            }
            Shape::NotModified | Shape::Failed | Shape::Unsatisfiable => ResponseBody::empty(),
        };
        from_handler(&self.core, Response::from_parts(parts, body), outcome, self.attended)
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
    fn is_for_one_user(&self, previous: &StoredResponse) -> bool {
        self.ask.authorization && !previous.terms.for_authorized
    }

    /// Whether the rule says of this answer, or of a cookie in it, that it is for this client and no other. Caches downstream don't know the rule.
    fn speaks_to_one_client(&self, head: &HeaderMap) -> bool {
        let policy = self.policy();
        policy.is_partitioned() || policy.drop_set_cookie && head.contains_key(header::SET_COOKIE)
    }

    /// 304: the stored response is updated (§3.2) and sent, on new terms.
    fn confirmed<B: Body>(self, previous: &Arc<StoredResponse>, mut update: Parts) -> Response<ResponseBody<B>> {
        let received = self.core.now();
        // Without a date of its own the confirmation is of now, and not of the day on which the stored response was made.
        ensure_date(&mut update.headers, received);
        let mut head = previous.origin_head();
        if !confirms(&head, &update.headers) && !self.core.settings.trust_any_304 {
            // It speaks of another representation: this one was not confirmed, and is asked for anew next time.
            self.core.forget(&self.ask.key);
            if previous.terms.no_stale || previous.terms.no_cache {
                // §5.2.2.2: "an error response rather than a stale one".
                let mut response = Response::new(ResponseBody::empty());
                *response.status_mut() = StatusCode::GATEWAY_TIMEOUT;
                return from_handler(&self.core, response, self.outcome(Outcome::Miss(self.why)), self.attended);
            }
            return self.stale(previous, StaleReason::Unconfirmed);
        }
        freshen(&mut head, &update.headers);
        let handler =
            update.extensions.get::<Cached>().cloned().or_else(|| previous.origin.handler.as_deref().cloned());
        let verdict = self.judge(previous.status, &head, handler.as_ref(), received);
        let (core, rule, why, attended) = (self.core.clone(), self.ask.rule, self.why, self.attended);
        let (asked, is_head) = (self.client_asks().cloned(), self.ask.is_head);
        let accepts = Accepts::of(&self.asked);
        let of_one_user = self.is_for_one_user(previous);
        let key = self.ask.key.clone();
        let plan = verdict.and_then(|verdict| self.plan(previous.status, &head, verdict, handler, received, None));
        let stored = match plan {
            Ok(plan) => plan.commit_confirmed(previous),
            Err(reason) => {
                core.counters.stored(Err(reason));
                Err(reason)
            }
        };
        if stored.as_ref().is_err_and(|reason| reason.condemns_stored() && !of_one_user) {
            core.forget(&key);
        }
        // Confirmed a moment ago, so it may be sent once even where it may not be stored any more.
        let sent = stored.as_ref().unwrap_or(previous);
        let age = sent.age(received);
        let outcome = CacheOutcome::of_stored(Outcome::Revalidated(why), rule, age, sent.terms.lifetime);
        let response = respond::from_store(&core, sent, received, outcome, asked.as_ref(), || accepts, is_head);
        note(&core, response, outcome, attended)
    }

    /// A HEAD was forwarded: where its answer agrees with what is stored, that is as good as confirmed; else it is dropped (§4.3.5).
    fn answered_head<B: Body>(mut self, mut response: Response<B>) -> Response<ResponseBody<B>> {
        let one_client = self.speaks_to_one_client(response.headers());
        let outcome = self.outcome(Outcome::Miss(self.why));
        let (core, attended, plainly) = (self.core.clone(), self.attended, self.plainly);
        if let Some(previous) = self.previous.take().filter(|_| response.status() == StatusCode::OK) {
            let mut head = previous.origin_head();
            let agrees =
                previous.status == StatusCode::OK && head_agrees(&head, previous.plain_length(), response.headers());
            let of_one_user = self.is_for_one_user(&previous);
            let key = self.ask.key.clone();
            let updated = agrees.then(|| {
                let received = core.now();
                let mut update = response.headers().clone();
                ensure_date(&mut update, received);
                freshen(&mut head, &update);
                let handler = response
                    .extensions()
                    .get::<Cached>()
                    .cloned()
                    .or_else(|| previous.origin.handler.as_deref().cloned());
                let verdict = self.judge(previous.status, &head, handler.as_ref(), received)?;
                self.plan(previous.status, &head, verdict, handler, received, None)?.commit_confirmed(&previous)
            });
            if !of_one_user && updated.is_none_or(|updated| updated.is_err_and(DeclineReason::condemns_stored)) {
                core.forget(&key);
            }
        }
        if one_client {
            ensure_private(response.headers_mut(), &core.settings.targets);
        }
        announce_head(plainly, response.status(), response.headers_mut(), &core.settings);
        let outcome = outcome.stored(Err(DeclineReason::Method));
        from_handler(&core, response.map(ResponseBody::untouched), outcome, attended)
    }

    /// The stored response, if it may stand in for an error now.
    fn stand_in(&self, disconnected: bool) -> Option<Arc<StoredResponse>> {
        let previous = self.previous.as_ref()?;
        let authorized = !self.ask.authorization || previous.terms.for_authorized;
        let age = previous.age(self.core.now());
        let directives = &self.ask.directives;
        let usable = || !matches!(reuse(&previous.terms, age, directives, self.ask.authorization), Reuse::Validate(_));
        let allowed = self.ask.strategy.falls_back() && usable()
            || may_stand_in_for_error(&previous.terms, age, directives, disconnected);
        // A purge may have come since the lookup.
        (allowed && authorized && self.core.purges.is_valid(&previous.stamp) && !self.flight.is_sealed())
            .then(|| previous.clone())
    }

    /// The stored response, where the handler failed or took too long.
    fn in_its_place<B: Body>(&self, stored: &StoredResponse) -> Response<ResponseBody<B>> {
        if !self.ask.strategy.falls_back() {
            return self.stale(stored, StaleReason::IfError);
        }
        let fresh = stored.terms.is_fresh(stored.age(self.core.now()));
        self.stored(stored, if fresh { Outcome::Fallback } else { Outcome::Stale(StaleReason::NetworkFirst) })
    }

    fn stale<B: Body>(&self, stored: &StoredResponse, reason: StaleReason) -> Response<ResponseBody<B>> {
        self.stored(stored, Outcome::Stale(reason))
    }

    fn stored<B: Body>(&self, stored: &StoredResponse, outcome: Outcome) -> Response<ResponseBody<B>> {
        let now = self.core.now();
        let outcome = CacheOutcome::of_stored(outcome, self.ask.rule, stored.age(now), stored.terms.lifetime);
        let accepts = || Accepts::of(&self.asked);
        let response =
            respond::from_store(&self.core, stored, now, outcome, self.client_asks(), accepts, self.ask.is_head);
        note(&self.core, response, outcome, self.attended)
    }

    fn outcome(&self, outcome: Outcome) -> CacheOutcome {
        CacheOutcome::new(outcome, self.ask.rule)
    }

    /// The client's fields where they have conditions or a range.
    fn client_asks(&self) -> Option<&HeaderMap> {
        (!self.ask.is_plain()).then_some(&self.asked)
    }
}

/// How long an exchange may take that no client waits for.
const LONGEST: Duration = Duration::from_secs(60);

/// Reads the content of an answer that no client waits for, so that it is stored. A handler that hangs must not keep its place for ever.
pub(crate) async fn finish_unattended<B: Body<Data = Bytes>, E>(
    answer: impl Future<Output = Result<Response<ResponseBody<B>>, E>>,
) {
    let whole = async {
        let copy = answer.await.ok().and_then(|response| response.into_body().into_copy());
        if let Some(copy) = copy {
            copy.finish().await;
        }
    };
    if tokio::time::timeout(LONGEST, whole).await.is_err() {
        tracing::warn!(target: "larder", "a refresh took longer than {LONGEST:?} and was abandoned");
    }
}
