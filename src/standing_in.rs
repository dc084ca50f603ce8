//! What is stored stands in for an answer of the handler's that failed, came too late or was an error (RFC 9111 §4.2.4, RFC 5861 §4).

use std::sync::Arc;

use http::Response;
use http_body::Body;

use crate::admission::Ask;
use crate::body::ResponseBody;
use crate::clock::Moment;
use crate::fetch::Errand;
use crate::outcome::{CacheOutcome, Outcome, StaleReason};
use crate::respond::{self, note};
use crate::response::StoredResponse;
use crate::rfc9111::coding::Accepts;
use crate::rfc9111::reuse::{Reuse, may_stand_in_for_error, reuse};

/// Whether what is stored may stand in for an answer of the handler. Purges are another question.
pub(crate) fn may_stand_in(ask: &Ask, stored: &StoredResponse, now: Moment, disconnected: bool) -> bool {
    let authorized = !ask.authorization || stored.terms.for_authorized;
    let age = stored.age(now);
    let terms = stored.current_terms();
    let usable = || !matches!(reuse(&terms, age, &ask.directives, ask.authorization), Reuse::Validate(_));
    authorized
        && (ask.strategy.falls_back() && usable() || may_stand_in_for_error(&terms, age, &ask.directives, disconnected))
}

/// What it is called when it does.
pub(crate) fn in_its_place(ask: &Ask, fresh: bool) -> Outcome {
    match (ask.strategy.falls_back(), fresh) {
        (false, _) => Outcome::Stale(StaleReason::IfError),
        (true, true) => Outcome::Fallback,
        (true, false) => Outcome::Stale(StaleReason::NetworkFirst),
    }
}

impl Errand {
    /// The stored response, if it may stand in for an error now.
    pub(crate) fn stand_in(&self, disconnected: bool) -> Option<Arc<StoredResponse>> {
        let previous = self.previous.as_ref()?;
        (self.is_good(previous) && may_stand_in(&self.ask, previous, self.core.now(), disconnected))
            .then(|| previous.clone())
    }

    /// Whether what was stored may still be used. That what others purge is known is asked again; a purge may have come since the lookup, and is remembered while this flight is there; a write leaves no number
    /// behind, and seals.
    pub(crate) fn is_good(&self, previous: &StoredResponse) -> bool {
        self.core.is_usable(previous, &self.ask.key, self.core.now()) && !self.departure.flight.is_sealed()
    }

    /// The stored response, where the handler failed or took too long.
    pub(crate) fn in_its_place<B: Body>(&self, stored: &StoredResponse) -> Response<ResponseBody<B>> {
        let fresh = stored.current_terms().is_fresh(stored.age(self.core.now()));
        self.stored(stored, in_its_place(&self.ask, fresh))
    }

    pub(crate) fn stale<B: Body>(&self, stored: &StoredResponse, reason: StaleReason) -> Response<ResponseBody<B>> {
        self.stored(stored, Outcome::Stale(reason))
    }

    fn stored<B: Body>(&self, stored: &StoredResponse, outcome: Outcome) -> Response<ResponseBody<B>> {
        let now = self.core.now();
        let outcome = CacheOutcome::of_stored(outcome, self.ask.rule, stored.age(now), stored.lifetime());
        let accepts = || Accepts::of(&self.asked.to_map());
        let asked = self.client_asks();
        let mut response =
            respond::from_store(&self.core, stored, now, outcome, asked.as_ref(), accepts, self.ask.is_head);
        note(&self.core, &mut response, outcome, self.since());
        response
    }
}
