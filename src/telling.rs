//! What answers tell that can't be stored themselves: the answer to a HEAD about a stored GET (RFC 9111 §4.3.5), a part about its whole, and one that is
//! declined about the rule.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Response, StatusCode};
use http_body::Body;

use crate::boarding::Departure;
use crate::body::ResponseBody;
use crate::cached::Cached;
use crate::clock::Moment;
use crate::downstream::ensure_private;
use crate::fetch::Errand;
use crate::outcome::Outcome;
use crate::plan::announced_length;
use crate::report::{Departed, Witness};
use crate::representation::announce_head;
use crate::respond::from_handler;
use crate::response::{StoredResponse, ensure_date};
use crate::rfc9111::range::size_of_whole;
use crate::rfc9111::storability::DeclineReason;
use crate::rfc9111::validation::{HeadSays, freshen, head_says};

impl Errand {
    /// The handler answered a HEAD. The client gets that answer; what is stored is updated by it, doubted because of it, or left alone. Nothing
    /// is stored that wasn't before.
    pub(crate) fn answered_head<B: Body>(mut self, mut response: Response<B>) -> Response<ResponseBody<B>> {
        let one_client = self.speaks_to_one_client(response.headers());
        let outcome = self.outcome(Outcome::Miss(self.why)).stored(Err(DeclineReason::Method));
        let (core, since, plainly) = (self.core.clone(), self.since(), self.plainly);
        // Of the key nothing is remembered: what it says of GETs is another question.
        core.rules.get(outcome.rule).counters.stored(Err(DeclineReason::Method));
        let handler = response.extensions().get::<Cached>().cloned();
        if response.status() == StatusCode::OK {
            self.learn_from_head(response.headers(), handler.as_ref());
        }
        if let Some(previous) = self.previous.take() {
            let says = match (response.status(), previous.status) {
                (StatusCode::OK, StatusCode::OK) => {
                    head_says(&previous.origin_head(), previous.plain_length(), response.headers())
                }
                (status, stored) => head_status_says(status, stored),
            };
            match says {
                HeadSays::Same => self.freshen_by_head(&previous, response.headers(), handler, true),
                HeadSays::NotMuch => {
                    let is_enough = core.settings.trust_any_304;
                    self.freshen_by_head(&previous, response.headers(), handler, is_enough);
                }
                // An answer for one user says nothing about the one for everybody.
                HeadSays::Other if !self.is_for_one_user(&previous) => self.doubt(&previous),
                HeadSays::Nothing | HeadSays::Other => {}
            }
        }
        if one_client {
            ensure_private(response.headers_mut(), &core.settings.targets);
        }
        announce_head(plainly, response.status(), response.headers_mut(), &core.settings);
        from_handler(&core, response.map(ResponseBody::untouched), outcome, since)
    }

    /// "the cache SHOULD update the stored response": as a 304 does, on the terms that its head now has. Where the answer isn't `enough` to
    /// show that the content is the same, it still counts if it says that such a response must not be stored.
    fn freshen_by_head(
        self,
        previous: &Arc<StoredResponse>,
        update: &HeaderMap,
        handler: Option<Cached>,
        is_enough: bool,
    ) {
        let (core, key, of_one_user) = (self.core.clone(), self.ask.key.clone(), self.is_for_one_user(previous));
        let received = core.now();
        let (mut head, mut update) = (previous.origin_head(), update.clone());
        ensure_date(&mut update, received);
        freshen(&mut head, &update);
        let handler = handler.or_else(|| previous.origin.handler.as_deref().cloned());
        let verdict = self.judge(previous.status, &head, handler.as_ref(), received);
        let updated = verdict.and_then(|verdict| {
            if is_enough {
                self.plan(previous.status, &head, verdict, handler, received, None)?.commit_confirmed(previous)?;
            }
            Ok(())
        });
        if !of_one_user && updated.is_err_and(DeclineReason::condemns_stored) {
            core.forget(&key);
        }
    }

    /// Looks at an answer that isn't stored, if there is something to be learned from it.
    pub(crate) fn witness(&self, reason: DeclineReason) -> Option<Witness> {
        if !self.wants_whole {
            return None;
        }
        let departed = Departed { sent: self.sent, stamp: self.departure.stamp.clone() };
        Witness::of_declined(&self.core, self.ask.rule, &self.ask.key, reason, &self.asked, departed)
    }

    /// "otherwise, the cache SHOULD consider the stored response to be stale". Where others may be chosen for other requests, this one is marked,
    /// so that only validation can make it good again; a response that is alone goes, with its memory.
    fn doubt(self, previous: &StoredResponse) {
        if previous.variance.fields.is_empty() || previous.charge.is_some() {
            return self.core.forget(&self.ask.key);
        }
        let mut doubted = previous.clone();
        doubted.terms.lifetime = Duration::ZERO;
        doubted.terms.stale_while_revalidate = Duration::ZERO;
        doubted.terms.stale_if_error = Duration::ZERO;
        doubted.terms.no_stale = true;
        // If a purge was first, there is nothing left to be marked.
        let Departure { flight, stamp, .. } = self.departure;
        let _ = self.core.commit(flight, &self.ask.key, &Arc::new(doubted), None, None);
        self.core.flights.seal_resource(&stamp);
    }

    /// A whole that would be stored, and how long it is.
    fn learn_from_head(&self, head: &HeaderMap, handler: Option<&Cached>) {
        self.learn(announced_length(head), head, handler, self.core.now());
    }

    /// A part passes as it is; what it says about its whole decides whether the next range that misses is worth the whole.
    pub(crate) fn learn_from_part(&self, head: &HeaderMap, handler: Option<&Cached>, received: Moment) {
        self.learn(size_of_whole(head), head, handler, received);
    }

    fn learn(&self, length: Option<u64>, head: &HeaderMap, handler: Option<&Cached>, received: Moment) {
        let Some(length) = length else { return };
        if self.judge(StatusCode::OK, head, handler, received).is_ok() {
            self.core.wholes.learn(&self.ask.key, length, received);
        }
    }
}

/// What another status than 200 says. That the resource is there no more, or somewhere else, speaks against what is stored; an error says
/// nothing about what it stands in the place of, nor does a 304 or 412 to the client's own condition. A stored redirect or error can't be
/// confirmed by a HEAD, but is, if the status is another one now, not the answer any more.
fn head_status_says(status: StatusCode, stored: StatusCode) -> HeadSays {
    let speaks = status.is_success() || status.is_redirection() || matches!(status.as_u16(), 404 | 410);
    let of_this_request = matches!(status.as_u16(), 206 | 304);
    if speaks && !of_this_request && status != stored { HeadSays::Other } else { HeadSays::Nothing }
}
