//! On the way to the handler: whether a request goes there itself, or waits for the answer to another one that did (RFC 9111 §4, "collapsed").

use std::sync::{Arc, Weak};
use std::time::Duration;

use http::HeaderMap;

use crate::admission::Ask;
use crate::cache::CacheCore;
use crate::clock::Moment;
use crate::flight::{Bounds, Call, Flight, Follower, Seat};
use crate::lookup::Lookup;
use crate::outcome::{ForwardReason, StaleReason};
use crate::response::{Stamp, StoredResponse};
use crate::rfc9111::reuse::{Reuse, reuse};
use crate::rfc9111::storability::DeclineReason;
use crate::strategy::Strategy;
use crate::stream::Stream;
use crate::used::Sink;
use crate::variance::Variance;
use crate::wholes::is_known_to_fit;

/// What a flight brings to those who follow it.
#[derive(Clone)]
pub(crate) enum Given {
    /// It is stored. Followers have it from here, for the store may have evicted it already.
    Stored(Arc<StoredResponse>),
    /// It streams.
    Streaming(Arc<Preview>),
}

/// A response that is still on its way.
pub(crate) struct Preview {
    /// As it will be stored, without its content.
    pub(crate) response: StoredResponse,
    /// The length that its head announces.
    pub(crate) announced: Option<u64>,
    /// Weak, for the stream has the flight, and that has this.
    pub(crate) stream: Weak<Stream>,
}

impl Given {
    pub(crate) fn response(&self) -> &StoredResponse {
        match self {
            Self::Stored(stored) => stored,
            Self::Streaming(preview) => &preview.response,
        }
    }
}

/// What is taken before the handler is asked.
pub(crate) struct Departure {
    pub(crate) flight: Flight<Given>,
    pub(crate) stamp: Stamp,
    /// How many URIs had been purged or written to.
    pub(crate) changes: u64,
    /// By which it is remembered whether the answer may be shared.
    pub(crate) asked: u64,
}

impl Departure {
    /// Where the tags go that its answer is made from.
    pub(crate) fn sink(&self, core: &CacheCore) -> Sink {
        Sink::Flight(self.flight.gatherer(), core.state.clone())
    }
}

/// Where a request finds itself.
pub(crate) enum Boarding {
    Lead(Departure),
    Follow(Follower<Given>),
    Full,
}

/// What may be done with what a flight brought.
pub(crate) enum Share<'a> {
    /// Send it; as stale, where a stale answer is allowed for this reason.
    Send(&'a StoredResponse, Option<StaleReason>),
    /// It is another variant of the resource: which one this request would get is known now.
    OtherVariant(Variance),
    /// It may not be used for this request.
    Not,
}

impl CacheCore {
    /// Joins the fill that is on its way for the same thing, or begins one. `expected` is the variant that the answer will be, if that is known.
    pub(crate) fn board(
        &self,
        ask: &Ask,
        headers: &HeaderMap,
        now: Moment,
        previous: Option<&StoredResponse>,
        expected: Option<Variance>,
    ) -> Boarding {
        let asked = self.asked(ask);
        if ask.is_head || ask.directives.no_store || self.hit_for_miss.has(asked, now) {
            return Boarding::Lead(self.depart(ask));
        }
        let (stamp, changes, authority) = self.before(ask);
        let knows = expected.is_some();
        let authorization = ask.authorization;
        let call = Call { regime: ask.regime, authorization, began: now, expected };
        let follows = !ask.directives.no_cache;
        let fits = |theirs: &Call, given: Option<&Given>| {
            follows
                && match given {
                    Some(given) => matches!(self.share(given, ask, headers, now), Share::Send(..)),
                    // Who knows its variant doesn't wait for one that may be another.
                    None => match &theirs.expected {
                        Some(expected) => expected.matches(headers, self.settings.matching),
                        None => !knows,
                    },
                }
        };
        // A part is of no use for others.
        let joinable = !ask.range || self.wants_whole(ask, previous, now);
        let (waiting, age) = (self.settings.max_waiting, self.settings.max_fill_age);
        // What others purged since it began isn't known while nothing is trusted.
        let trusted = self.coherence.is_trusted(now);
        let oldest = if trusted { Duration::MAX } else { self.settings.staleness_bound };
        let bounds = Bounds { waiting, age, oldest, joinable };
        match self.flights.board(&stamp, &ask.key, authority, call, bounds, fits) {
            Seat::Lead(flight) => Boarding::Lead(Departure { flight, stamp, changes, asked }),
            Seat::Follow(follower) => Boarding::Follow(follower),
            Seat::Full => Boarding::Full,
        }
    }

    /// Whether the handler is asked for the whole, whatever part of it the client wants.
    pub(crate) fn wants_whole(&self, ask: &Ask, previous: Option<&StoredResponse>, now: Moment) -> bool {
        !ask.is_head && (!ask.range || is_known_to_fit(self, ask, previous, now))
    }

    /// On its own: nobody joins it.
    pub(crate) fn depart(&self, ask: &Ask) -> Departure {
        let (stamp, changes, authority) = self.before(ask);
        let flight = self.flights.begin(&stamp, &ask.key, authority, None);
        Departure { flight, stamp, changes, asked: self.asked(ask) }
    }

    fn before(&self, ask: &Ask) -> (Stamp, u64, u64) {
        let changes = self.searches.changes();
        let stamp = self.purges.stamp(&ask.key, self.purges.current());
        (stamp, changes, self.groups.authority(ask.key.origin().authority))
    }

    /// Answers to requests with credentials are judged otherwise, and so remembered apart.
    pub(crate) fn asked(&self, ask: &Ask) -> u64 {
        self.hasher.hash_one((ask.key.as_bytes(), ask.authorization))
    }

    /// Whether a request may have what a flight brought: the same question as for what is stored.
    pub(crate) fn share<'a>(&self, given: &'a Given, ask: &Ask, headers: &HeaderMap, now: Moment) -> Share<'a> {
        let response = given.response();
        if !self.matches(response, headers) {
            let fields = response.variance.fields.clone();
            return Share::OtherVariant(Variance::of(fields, headers, self.settings.matching));
        }
        // Not by `weigh`: this is no use of the response yet, and draws no lots about refreshing it.
        match reuse(&response.current_terms(), response.age(now), &ask.directives, ask.authorization) {
            Reuse::Fresh => Share::Send(response, None),
            Reuse::AllowedStale => Share::Send(response, Some(StaleReason::MaxStale)),
            Reuse::StaleWhileRevalidate => Share::Send(response, Some(StaleReason::WhileRevalidate)),
            Reuse::Validate(_) => Share::Not,
        }
    }

    /// The variant that the answer to a request will be, where something is stored of the same resource that varies.
    pub(crate) fn expected(
        &self,
        ask: &Ask,
        headers: &HeaderMap,
        why: ForwardReason,
        previous: Option<&StoredResponse>,
    ) -> Option<Variance> {
        let fields = match (previous, &self.settings.backend.near) {
            (Some(previous), _) => Some(previous.variance.fields.clone()),
            (None, Some(memory)) if why == ForwardReason::VaryMiss => {
                memory.read(&ask.key, |variants| variants.first().map(|stored| stored.variance.fields.clone()))
            }
            _ => None,
        };
        let fields = fields.filter(|fields| !fields.is_empty())?;
        Some(Variance::of(fields, headers, self.settings.matching))
    }

    /// What may be used while nothing is trusted: what is near and nothing that this instance purged touches, if an operator prefers that.
    pub(crate) fn find_in_doubt(&self, ask: &Ask, headers: &HeaderMap, now: Moment) -> Lookup {
        let nothing = Lookup::Miss(ForwardReason::Distrusted);
        let Some(memory) = &self.settings.backend.near else { return nothing };
        if !self.coherence.prefers_near(now) {
            return nothing;
        }
        let found = memory
            .read(&ask.key, |variants| self.choose(variants, ask, headers, now).map(|stored| Arc::new(stored.clone())));
        self.in_doubt(found, ask, now)
    }

    /// What was found near, as far as it may be used while nothing is trusted.
    pub(crate) fn in_doubt(&self, found: Lookup, ask: &Ask, now: Moment) -> Lookup {
        match found.response() {
            Some(stored) if self.coherence.allows(&stored.stamp, &ask.key, now) => found,
            _ => Lookup::Miss(ForwardReason::Distrusted),
        }
    }

    /// What was stored between the look at the store and the departure; those who wait look for it as well.
    pub(crate) fn stored_meanwhile(
        &self,
        ask: &Ask,
        headers: &HeaderMap,
        now: Moment,
        why: ForwardReason,
        departure: &Departure,
    ) -> Option<Arc<StoredResponse>> {
        let missed = matches!(why, ForwardReason::UriMiss | ForwardReason::VaryMiss | ForwardReason::Stale);
        let missed = missed && self.coherence.is_trusted(now);
        let memory = self.settings.backend.near.as_ref()?;
        if !missed || ask.strategy != Strategy::CacheFirst || !departure.flight.is_joinable() {
            return None;
        }
        let stored =
            memory.read(&ask.key, |variants| match self.choose(variants, ask, headers, now).used(ask, now) {
                Lookup::Fresh(stored) | Lookup::Ahead(stored) if self.is_current(stored, now) => {
                    Some(Arc::new(stored.clone()))
                }
                _ => None,
            })?;
        departure.flight.again();
        Some(stored)
    }

    /// Whether the answer may be shared is remembered, so that nobody waits in vain again.
    pub(crate) fn remember(&self, asked: u64, shared: bool, now: Moment) {
        if shared { self.hit_for_miss.clear(asked) } else { self.hit_for_miss.mark(asked, now) }
    }

    /// The same of an answer that isn't stored, where the reason says something about the next one.
    pub(crate) fn remember_declined(&self, asked: u64, reason: DeclineReason, now: Moment) {
        if !is_passing(reason) {
            self.remember(asked, false, now);
        }
    }
}

/// Whether the reason lies in one request, in what became of its content, or in an error, which a hostile request may have provoked.
pub(crate) fn is_passing(reason: DeclineReason) -> bool {
    matches!(
        reason,
        DeclineReason::RequestNoStore
            | DeclineReason::ErrorStatus
            | DeclineReason::Status
            | DeclineReason::Incomplete
            | DeclineReason::FillBudget
            | DeclineReason::Purged
            | DeclineReason::Shutdown
    )
}
