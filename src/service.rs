//! [`Cache`], the service: a request's way from top to bottom.
//!
//! ```text
//! call ─ admit ─┬─ forward   the cache keeps out of it
//!               ├─ shadow    the same; it is only watched what the rule would make of it
//!               ├─ write     an unsafe method; its success invalidates
//!               ├─ query     its content is read first, where QUERY is cached; then as below
//!               └─ look_up ─ answer ─┬─ hit        fresh: sent from the store, nobody else is asked
//!                                    ├─ ahead      the same; refreshed behind it, since its time is soon over
//!                                    ├─ stale      sent from the store; refreshed behind it, if that is the reason
//!                                    ├─ fetch      the handler is asked, and its answer settled (see `outbound.rs` and `fetch.rs`)
//!                                    └─ refuse     only-if-cached or a cache-only rule, and nothing usable: 504
//! ```

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Extensions, Request, Response, StatusCode};
use http_body::Body;
use tower_service::Service;

use crate::admission::{Admission, Ask, InHand, Write, admit};
use crate::body::{ResponseBody, waker};
use crate::cache::CacheCore;
use crate::clock::Moment;
use crate::course::Course;
use crate::error::BoxError;
use crate::future::ResponseFuture;
use crate::live::Live;
use crate::lookup::Lookup;
use crate::outcome::{BypassReason, CacheOutcome, ForwardReason, Outcome, StaleReason};
use crate::posted::{Posted, Stored};
use crate::query::QueryReader;
use crate::report::Witness;
use crate::request::RequestHead;
use crate::respond::{from_handler, head_of, note, watched, with_head};
use crate::response::StoredResponse;
use crate::through::Unattended;
use crate::used::Scope;
use crate::written::Unanswered;

/// Answers from its store what it may, and asks the inner service for the rest. Made by [`CacheLayer`](crate::CacheLayer).
///
/// It is always ready; the inner service is made ready only when it is called, on the clone that is then called. It has no errors of its
/// own. It needs a tokio runtime for what it does beside answering: refreshes, fills whose clients left, time limits, hashing and compression of what is large.
#[derive(Clone)]
pub struct Cache<S> {
    pub(crate) inner: S,
    pub(crate) live: Arc<Live>,
}

impl<S> Cache<S> {
    pub(crate) fn new(inner: S, live: Arc<Live>) -> Self {
        Self { inner, live }
    }

    /// The service inside.
    pub fn inner(&self) -> &S {
        &self.inner
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for Cache<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    ReqBody: Body + Send + 'static,
    ResBody: Body<Data = Bytes> + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody<ResBody>>;
    type Error = S::Error;
    type Future = ResponseFuture<ResBody, S::Error>;

    /// Always ready: a hit needs nobody's permission.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        // The settings that count for this request, whatever becomes of them meanwhile.
        let core = self.live.load();
        let now = core.now();
        match admit(&core, &request, now) {
            Admission::Forward(outcome) => self.forward(&core, request, outcome, now, None),
            Admission::Shadow(ask) => {
                let (outcome, witness) = Witness::in_shadow(&core, ask, &RequestHead::of(&request));
                self.forward(&core, request, outcome, now, witness)
            }
            Admission::Write(write) => self.write(&core, request, write, now),
            Admission::Lookup(ask) => self.look_up(&core, request, ask, now),
            Admission::Query(ask) => self.query(&core, request, ask),
        }
    }
}

/// What the inner service has to be; a name for the bounds above, so that each step of the way can be read without them.
pub(crate) trait Handler<R>:
    Service<Request<R>, Response = Response<Self::Body>, Error: Send, Future: Send> + Clone + Send + 'static
{
    type Body: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static;
}

impl<S, R, B> Handler<R> for S
where
    S: Service<Request<R>, Response = Response<B>, Error: Send, Future: Send> + Clone + Send + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Body = B;
}

/// The future of a service's answer to requests with the body `R`.
pub(crate) type Answer<S, R> = ResponseFuture<<S as Handler<R>>::Body, <S as Service<Request<R>>>::Error>;

impl<S> Cache<S> {
    /// To the handler and back, untouched; `witness` looks at what passes.
    fn forward<R>(
        &self,
        core: &Arc<CacheCore>,
        mut request: Request<R>,
        outcome: CacheOutcome,
        began: Moment,
        witness: Option<Witness>,
    ) -> Answer<S, R>
    where
        S: Handler<R>,
        R: Body + Send + 'static,
    {
        let (core, inner) = (core.clone(), self.inner.clone());
        let witness = witness.or_else(|| Witness::of_bypass(&core, &outcome, &RequestHead::of(&request), began));
        InHand::mark(&self.live, &core, request.extensions_mut(), None);
        let is_stranger = outcome.outcome == Outcome::Bypass(BypassReason::NoPrincipal);
        let path = is_stranger.then(|| RequestHead::of(&request).uri.path().to_owned());
        ResponseFuture::awaited(async move {
            let answer = call(inner, request).await;
            let now = core.now();
            // The layer outside says and counts what becomes of it; twice would be once too often.
            let is_nested = outcome.outcome == Outcome::Bypass(BypassReason::Nested);
            if !is_nested {
                core.rules.get(outcome.rule).counters.handled(began, now);
            }
            let response = watched(answer?, witness, now);
            if let Some(path) = path {
                core.rules.get(outcome.rule).watch_stranger(response.status(), &path);
            }
            Ok(if is_nested { response } else { from_handler(&core, response, outcome, Some(began)) })
        })
    }

    /// Reads the content that a QUERY asks with (RFC 10008 §2.7), and then asks the store.
    fn query<R>(&self, core: &Arc<CacheCore>, request: Request<R>, ask: Ask) -> Answer<S, R>
    where
        S: Handler<R>,
        R: Body + Send + 'static,
    {
        let Some(reader) = core.settings.query.as_ref().and_then(QueryReader::of::<R>) else {
            let outcome = CacheOutcome::new(Outcome::Bypass(BypassReason::QueryContent), ask.rule);
            return self.forward(core, request, outcome, ask.began, None);
        };
        let (service, core) = (self.clone(), core.clone());
        ResponseFuture::awaited(async move {
            let (parts, body) = request.into_parts();
            let read = reader.read(body, core.settings.max_query_content).await;
            let request = Request::from_parts(parts, read.body);
            let now = core.now();
            match ask.with_content(read.content, request.headers()) {
                Ok(mut ask) => {
                    ask.follow_rule(&core);
                    service.look_up(&core, request, ask, now).await
                }
                Err(outcome) => service.forward(&core, request, outcome, now, None).await,
            }
        })
    }

    /// To the handler; if that succeeds, what the write touched is invalid before the client hears of it (RFC 9111 §4.4).
    fn write<R>(&self, core: &Arc<CacheCore>, mut request: Request<R>, mut write: Write, began: Moment) -> Answer<S, R>
    where
        S: Handler<R>,
        R: Body + Send + 'static,
    {
        let (live, core, inner) = (self.live.clone(), core.clone(), self.inner.clone());
        ResponseFuture::awaited(async move {
            let outcome = write.outcome;
            let posted = Posted::begin(&core, &mut write, &request);
            let sink = posted.as_ref().map(Posted::sink);
            InHand::mark(&live, &core, request.extensions_mut(), sink);
            let scope = Scope::of_request(&request);
            let unanswered = Unanswered::new(&live, write);
            let answer = scope.clone().around(call(inner, request)).await;
            core.rules.get(outcome.rule).counters.handled(began, core.now());
            let response = answer?;
            let invalidated = unanswered.answered(response.status(), response.headers()).await;
            if let Some(Stored { errand, verdict, handler, received }) =
                posted.and_then(|posted| posted.answered(&response, invalidated, scope))
            {
                return Ok(errand.store(response, verdict, handler, received, &waker().await));
            }
            Ok(from_handler(&core, response.map(ResponseBody::untouched), outcome, Some(began)))
        })
    }

    /// Asks the store; the one in memory answers without waiting.
    #[inline] // What is asked is large, and isn't moved so.
    fn look_up<R>(&self, core: &Arc<CacheCore>, mut request: Request<R>, ask: Ask, now: Moment) -> Answer<S, R>
    where
        S: Handler<R>,
        R: Body + Send + 'static,
    {
        if !core.coherence.is_trusted(now) {
            return self.look_up_in_doubt(core, request, ask, now);
        }
        let found = match &core.settings.backend.near {
            // What is fresh is sent from where it lies; what isn't is taken along, for whatever has to be done first.
            Some(near) => near.read(&ask.key, |variants| {
                match core.choose(variants, &ask, request.headers(), now).used(&ask, now) {
                    Lookup::Fresh(stored) if !ask.strategy.falls_back() && core.is_current(stored, now) => {
                        Ok(self.hit(core, &mut request, &ask, now, stored))
                    }
                    other => Err(other.map(|stored| Arc::new(stored.clone()))),
                }
            }),
            None => Err(Lookup::Miss(ForwardReason::UriMiss)),
        };
        found.unwrap_or_else(|found| match &core.settings.backend.far {
            None => self.answer(core, request, ask, now, found),
            Some(_) => self.look_farther(core, request, ask, now, found),
        })
    }

    /// Asks the store that has to be waited for, unless what was found near is enough, or that store isn't to know of it.
    fn look_farther<R>(
        &self,
        core: &Arc<CacheCore>,
        request: Request<R>,
        mut ask: Ask,
        now: Moment,
        near: Lookup,
    ) -> Answer<S, R>
    where
        S: Handler<R>,
        R: Body + Send + 'static,
    {
        let near = core.resume(near, &ask, now);
        if core.far_for(&ask.key).is_none() || core.is_enough(&near, now) {
            return self.answer(core, request, ask, now, near);
        }
        let (service, core) = (self.clone(), core.clone());
        ResponseFuture::awaited(async move {
            let found = core.look_far(&mut ask, request.headers(), now, near).await;
            // The store may have taken longer than trust lasts, or a purge of this instance has failed meanwhile.
            let then = core.now();
            let answer = if core.coherence.is_trusted(then) {
                service.answer(&core, request, ask, now, found)
            } else {
                service.look_up_in_doubt(&core, request, ask, then)
            };
            answer.await
        })
    }

    /// What others have purged isn't known, or not yet: nothing that is stored is used, unless an operator prefers what is near.
    #[cold]
    fn look_up_in_doubt<R>(&self, core: &Arc<CacheCore>, request: Request<R>, ask: Ask, now: Moment) -> Answer<S, R>
    where
        S: Handler<R>,
        R: Body + Send + 'static,
    {
        self.live.keep_coherent();
        if core.coherence.is_beginning() {
            let (service, core) = (self.clone(), core.clone());
            return ResponseFuture::awaited(async move {
                core.coherence.begun().await;
                let now = core.now();
                service.look_up(&core, request, ask, now).await
            });
        }
        let found = core.find_in_doubt(&ask, request.headers(), now).used(&ask, now);
        self.answer(core, request, ask, now, found)
    }

    /// What the store has decides.
    fn answer<R>(
        &self,
        core: &Arc<CacheCore>,
        mut request: Request<R>,
        ask: Ask,
        now: Moment,
        found: Lookup,
    ) -> Answer<S, R>
    where
        S: Handler<R>,
        R: Body + Send + 'static,
    {
        let found = core.resume(found, &ask, now);
        match Course::of(found, &ask, now) {
            Course::Hit(stored) => self.hit(core, &mut request, &ask, now, &stored),
            Course::Ahead(stored) => self.ahead(core, request, ask, now, &stored),
            Course::Stale(stored, reason) => self.stale(core, request, ask, now, &stored, reason),
            Course::Refuse(why) => self.refuse(core, &ask, why),
            Course::Fetch(why, previous) => self.fetch(core, request, ask, why, previous, now),
        }
    }

    /// The request ends here. What its extensions took of memory is what those of the answer need.
    pub(crate) fn hit<R>(
        &self,
        core: &Arc<CacheCore>,
        request: &mut Request<R>,
        ask: &Ask,
        now: Moment,
        stored: &StoredResponse,
    ) -> Answer<S, R>
    where
        S: Handler<R>,
        R: Body + Send + 'static,
    {
        let outcome = said(ask, now, stored, Outcome::Hit);
        let mut response = response(core, request, ask, now, stored, outcome);
        *response.extensions_mut() = emptied(request.extensions_mut());
        note(core, &mut response, outcome, Some(ask.began));
        ResponseFuture::ready(response)
    }

    /// The client gets the fresh response at once, as ever; its request goes on to refresh it before its lifetime is over.
    fn ahead<R>(
        &self,
        core: &Arc<CacheCore>,
        request: Request<R>,
        ask: Ask,
        now: Moment,
        stored: &Arc<StoredResponse>,
    ) -> Answer<S, R>
    where
        S: Handler<R>,
        R: Body + Send + 'static,
    {
        let response = self.send(core, &request, &ask, now, stored, Outcome::Hit);
        self.refresh(core, request, ask, stored);
        ResponseFuture::ready(response)
    }

    /// The client gets the stale response at once; its request goes on to refresh it.
    fn stale<R>(
        &self,
        core: &Arc<CacheCore>,
        request: Request<R>,
        ask: Ask,
        now: Moment,
        stored: &Arc<StoredResponse>,
        reason: StaleReason,
    ) -> Answer<S, R>
    where
        S: Handler<R>,
        R: Body + Send + 'static,
    {
        if reason == StaleReason::WhileRevalidate && is_unattended(&request) {
            return self.fetch(core, request, ask, ForwardReason::Stale, Some(stored.clone()), now);
        }
        let response = self.send(core, &request, &ask, now, stored, Outcome::Stale(reason));
        if reason == StaleReason::WhileRevalidate {
            self.refresh(core, request, ask, stored);
        }
        ResponseFuture::ready(response)
    }

    /// RFC 9111 §5.2.1.7, at the request's word or the rule's.
    fn refuse<R>(&self, core: &Arc<CacheCore>, ask: &Ask, why: ForwardReason) -> Answer<S, R>
    where
        S: Handler<R>,
        R: Body + Send + 'static,
    {
        let outcome = CacheOutcome::new(Outcome::Miss(why), ask.rule);
        let mut response = Response::new(ResponseBody::empty());
        *response.status_mut() = StatusCode::GATEWAY_TIMEOUT;
        ResponseFuture::ready(from_handler(core, response, outcome, Some(ask.began)))
    }

    pub(crate) fn send<R>(
        &self,
        core: &Arc<CacheCore>,
        request: &Request<R>,
        ask: &Ask,
        now: Moment,
        stored: &StoredResponse,
        outcome: Outcome,
    ) -> Response<ResponseBody<S::Body>>
    where
        S: Handler<R>,
        R: Body + Send + 'static,
    {
        let outcome = said(ask, now, stored, outcome);
        let mut response = response(core, request, ask, now, stored, outcome);
        note(core, &mut response, outcome, Some(ask.began));
        response
    }
}

/// What is said of an answer from the store.
fn said(ask: &Ask, now: Moment, stored: &StoredResponse, outcome: Outcome) -> CacheOutcome {
    CacheOutcome::of_stored(outcome, ask.rule, stored.age(now), stored.lifetime())
}

/// The stored response as this request gets it.
#[inline]
fn response<R, B: Body>(
    core: &Arc<CacheCore>,
    request: &Request<R>,
    ask: &Ask,
    now: Moment,
    stored: &StoredResponse,
    outcome: CacheOutcome,
) -> Response<ResponseBody<B>> {
    let asked = (!ask.is_plain()).then(|| request.headers());
    let accepts = || ask.accepts(request.headers());
    let head = head_of(core, stored, now, &outcome, ask.in_router);
    with_head(core, stored, head, asked, accepts, ask.is_head)
}

/// Nothing, in the memory of what was there.
fn emptied(extensions: &mut Extensions) -> Extensions {
    let mut emptied = std::mem::take(extensions);
    emptied.clear();
    emptied
}

/// Whether it is a request of the cache's own.
pub(crate) fn is_unattended<R>(request: &Request<R>) -> bool {
    request.extensions().get::<Unattended>().is_some()
}

/// Calls the service that was made ready.
pub(crate) async fn call<S, R>(mut service: S, request: R) -> Result<S::Response, S::Error>
where
    S: Service<R>,
{
    poll_fn(|cx| service.poll_ready(cx)).await?;
    service.call(request).await
}

impl<S: fmt::Debug> fmt::Debug for Cache<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("inner", &self.inner).finish_non_exhaustive()
    }
}
