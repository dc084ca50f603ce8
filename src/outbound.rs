//! On the way to the handler, from several requests and from several instances: who goes, and who waits for another one's answer.
//!
//! ```text
//! fetch ─┬─ follow ──────────────> another request's answer, or lead after all
//!        └─ lead ─┬─ stored meanwhile
//!                 ├─ take_turn ──> another instance's answer
//!                 └─ depart ─────> the handler (see `fetch.rs`)
//! ```

use std::sync::Arc;

use http::{Method, Request};
use http_body::Body;
use tracing::Instrument;

use crate::admission::{Ask, InHand};
use crate::boarding::{Boarding, Departure};
use crate::body::read_out;
use crate::cache::CacheCore;
use crate::clock::Moment;
use crate::fetch::Errand;
use crate::follow::{Followed, Following};
use crate::future::ResponseFuture;
use crate::leasing::Turn;
use crate::outcome::{ForwardReason, Outcome};
use crate::response::StoredResponse;
use crate::service::{Answer, Cache, Handler, call, is_unattended};
use crate::spans;
use crate::stats::count;

impl<S> Cache<S> {
    /// Refreshes what was sent just now, behind the answer.
    pub(crate) fn refresh<R>(
        &self,
        core: &Arc<CacheCore>,
        mut request: Request<R>,
        mut ask: Ask,
        stored: &Arc<StoredResponse>,
    ) where
        S: Handler<R>,
        R: Body + Send + 'static,
    {
        let Some(place) = core.begin_refresh(&ask, stored) else { return };
        // Nobody waits for a part of what a refresh brings, nor for an answer to a condition.
        (ask.range, ask.conditions) = (false, false);
        // What a HEAD found stale is refreshed by a GET: only that can fill the store.
        if std::mem::take(&mut ask.is_head) {
            *request.method_mut() = Method::GET;
        }
        // Where another request is on its way already, its answer will do.
        let expected = core.expected(&ask, request.headers(), ForwardReason::Stale, Some(stored));
        let boarding = core.board(&ask, request.headers(), core.now(), Some(stored), expected);
        let Boarding::Lead(mut departure) = boarding else { return };
        count(&core.counters.refreshes);
        InHand::mark(&self.live, core, request.extensions_mut(), Some(departure.sink(core)));
        let span = spans::refresh(core.rules.get(ask.rule));
        departure.flight.trace(&span);
        let Some(far) = core.lessor(&ask, ForwardReason::Stale, &departure) else {
            let now = core.now();
            let errand =
                Errand::begin(core, ask, ForwardReason::Stale, Some(stored.clone()), &mut request, departure, now);
            let answer = errand.unattended().run(call(self.inner.clone(), request));
            return core.refresh(place, read_out(answer).instrument(span));
        };
        let (inner, cache, stored) = (self.inner.clone(), core.clone(), stored.clone());
        let refreshed = async move {
            let turn = cache.take_turn(&far, &ask, request.headers(), Some(&stored), &mut departure).await;
            if let Turn::Ours = turn {
                let now = cache.now();
                let errand =
                    Errand::begin(&cache, ask, ForwardReason::Stale, Some(stored), &mut request, departure, now);
                read_out(errand.unattended().run(call(inner, request))).await;
            }
        };
        core.refresh(place, refreshed.instrument(span));
    }

    /// To the handler, unless the same is on its way from there: then its answer is waited for. The store was `asked` then.
    pub(crate) fn fetch<R>(
        &self,
        core: &Arc<CacheCore>,
        request: Request<R>,
        ask: Ask,
        why: ForwardReason,
        previous: Option<Arc<StoredResponse>>,
        asked: Moment,
    ) -> Answer<S, R>
    where
        S: Handler<R>,
        R: Body + Send + 'static,
    {
        // Memory took no time to answer.
        let now = if core.settings.backend.far.is_none() { asked } else { core.now() };
        core.note_miss(&ask, why);
        let expected = core.expected(&ask, request.headers(), why, previous.as_deref());
        match core.board(&ask, request.headers(), now, previous.as_deref(), expected) {
            Boarding::Lead(departure) => self.lead(core, request, ask, why, previous, departure, now),
            boarding => {
                let (service, core) = (self.clone(), core.clone());
                ResponseFuture::awaited(async move {
                    let (headers, found) = (request.headers(), previous.as_ref());
                    let following = Following { core: &core, ask: &ask, headers, why, previous: found };
                    match following.run(boarding).await {
                        Followed::Answered(response) => Ok(response),
                        Followed::Leads { departure, previous_is_good } => {
                            let previous = previous.filter(|_| previous_is_good);
                            let now = core.now();
                            service.lead(&core, request, ask, why, previous, departure, now).await
                        }
                    }
                })
            }
        }
    }

    /// To the handler, for all who wait for the same. It is `now` since right before it boarded.
    #[expect(clippy::too_many_arguments, reason = "all that is known of a request goes along")]
    fn lead<R>(
        &self,
        core: &Arc<CacheCore>,
        mut request: Request<R>,
        ask: Ask,
        why: ForwardReason,
        previous: Option<Arc<StoredResponse>>,
        mut departure: Departure,
        now: Moment,
    ) -> Answer<S, R>
    where
        S: Handler<R>,
        R: Body + Send + 'static,
    {
        // Between the look at the store and the departure, the answer to another request may have been stored.
        if let Some(stored) = core.stored_meanwhile(&ask, request.headers(), now, why, &departure) {
            return self.hit(core, &mut request, &ask, now, &stored);
        }
        let Some(far) = core.lessor(&ask, why, &departure) else {
            return self.depart(core, request, ask, why, previous, departure, now);
        };
        let (service, cache) = (self.clone(), core.clone());
        let answer = async move {
            let turn = cache.take_turn(&far, &ask, request.headers(), previous.as_deref(), &mut departure);
            match turn.await {
                Turn::Theirs { stored, waited } => {
                    let outcome = if waited { Outcome::Collapsed(why) } else { Outcome::Hit };
                    Ok(service.send(&cache, &request, &ask, cache.now(), &stored, outcome))
                }
                Turn::Ours => {
                    let now = cache.now();
                    service.depart(&cache, request, ask, why, previous, departure, now).await
                }
            }
        };
        // Others wait for it.
        ResponseFuture::filling(core.clone(), answer)
    }

    #[expect(clippy::too_many_arguments, reason = "all that is known of a request goes along")]
    fn depart<R>(
        &self,
        core: &Arc<CacheCore>,
        mut request: Request<R>,
        ask: Ask,
        why: ForwardReason,
        previous: Option<Arc<StoredResponse>>,
        departure: Departure,
        now: Moment,
    ) -> Answer<S, R>
    where
        S: Handler<R>,
        R: Body + Send + 'static,
    {
        let span = spans::fill(core.rules.get(ask.rule), why);
        departure.flight.trace(&span);
        let outlives_client = departure.flight.is_joinable();
        InHand::mark(&self.live, core, request.extensions_mut(), Some(departure.sink(core)));
        let errand = Errand::begin(core, ask, why, previous, &mut request, departure, now);
        let errand = if is_unattended(&request) { errand.unattended() } else { errand };
        let answer = errand.run(call(self.inner.clone(), request)).instrument(span);
        if outlives_client { ResponseFuture::filling(core.clone(), answer) } else { ResponseFuture::awaited(answer) }
    }
}
