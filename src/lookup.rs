//! [`Lookup`]: what the store has for a request, and what may be done with it.

use std::ops::Deref;
use std::sync::Arc;

use crate::admission::Ask;
use crate::clock::Moment;
use crate::outcome::{ForwardReason, StaleReason};
use crate::response::StoredResponse;
use crate::rfc9111::reuse::{Reuse, ValidateReason, reuse};
use crate::strategy::Strategy;
use crate::upkeep::Upkeep;

/// What the store has for a request; `R` is the response, where it lies or taken along.
#[derive(Debug)]
pub(crate) enum Lookup<R = Arc<StoredResponse>> {
    /// Send it.
    Fresh(R),
    /// Send it, and refresh it behind the answer: its lifetime is soon over.
    Ahead(R),
    /// Send it though it is stale; refresh it behind the answer if that is the reason.
    Stale(R, StaleReason),
    /// Ask the handler about it.
    Validate(R, ForwardReason),
    /// Ask the handler.
    Miss(ForwardReason),
    /// It was stored under other settings than those of now, and what may be done with it has still to be found out.
    Earlier(R),
}

/// What may be done with `chosen`, which is or holds `stored` (RFC 9111 §4). This only looks: a response that goes out is [used](Lookup::used) as well.
pub(crate) fn weigh<R>(chosen: R, stored: &StoredResponse, ask: &Ask, now: Moment) -> Lookup<R> {
    let current;
    let terms = if stored.is_as_stored() {
        &stored.terms
    } else {
        current = stored.current_terms();
        &current
    };
    match reuse(terms, stored.age(now), &ask.directives, ask.authorization) {
        Reuse::Fresh => Lookup::Fresh(chosen),
        Reuse::AllowedStale => Lookup::Stale(chosen, StaleReason::MaxStale),
        Reuse::StaleWhileRevalidate => Lookup::Stale(chosen, StaleReason::WhileRevalidate),
        Reuse::Validate(ValidateReason::Stale) => Lookup::Validate(chosen, ForwardReason::Stale),
        Reuse::Validate(_) => Lookup::Validate(chosen, ForwardReason::Request),
    }
}

impl<R: Deref<Target = StoredResponse>> Lookup<R> {
    /// The same for a request that is answered by it: what is done about the response while it is fresh is done.
    pub(crate) fn used(self, ask: &Ask, now: Moment) -> Self {
        match self {
            Self::Fresh(stored) => match &stored.upkeep {
                Some(upkeep) if is_due(upkeep, &stored, ask, now) => Self::Ahead(stored),
                _ => Self::Fresh(stored),
            },
            found => found,
        }
    }
}

/// A fresh response is used: notes that, and tells whether this use refreshes it.
fn is_due(upkeep: &Upkeep, stored: &StoredResponse, ask: &Ask, now: Moment) -> bool {
    let resident = now.since(stored.received);
    upkeep.touch(resident);
    let asks_store_first = matches!(ask.strategy, Strategy::CacheFirst | Strategy::StaleWhileRevalidate);
    // The answer to a request with `no-store` isn't stored, and with `only-if-cached` the handler isn't to be asked (§5.2.1).
    let may_fill = !ask.directives.no_store && !ask.only_if_cached();
    let lifetime = stored.terms.lifetime;
    let remaining = lifetime.saturating_sub(stored.age(now));
    asks_store_first && may_fill && upkeep.is_due(remaining, lifetime, resident)
}

impl<R> Lookup<R> {
    /// What is stored and meant, whatever may be done with it.
    pub(crate) fn response(&self) -> Option<&R> {
        match self {
            Self::Fresh(stored)
            | Self::Ahead(stored)
            | Self::Stale(stored, _)
            | Self::Validate(stored, _)
            | Self::Earlier(stored) => Some(stored),
            Self::Miss(_) => None,
        }
    }

    /// The same with the response as `taken` makes it.
    pub(crate) fn map<T>(self, taken: impl FnOnce(R) -> T) -> Lookup<T> {
        match self {
            Self::Fresh(stored) => Lookup::Fresh(taken(stored)),
            Self::Ahead(stored) => Lookup::Ahead(taken(stored)),
            Self::Stale(stored, reason) => Lookup::Stale(taken(stored), reason),
            Self::Validate(stored, why) => Lookup::Validate(taken(stored), why),
            Self::Miss(why) => Lookup::Miss(why),
            Self::Earlier(stored) => Lookup::Earlier(taken(stored)),
        }
    }
}
