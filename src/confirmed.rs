//! The handler confirms what is stored (RFC 9111 §4.3.4).

use std::sync::Arc;

use http::response::Parts;
use http::{Response, StatusCode};
use http_body::Body;

use crate::body::ResponseBody;
use crate::cached::Cached;
use crate::fates::Became;
use crate::fetch::Errand;
use crate::outcome::{CacheOutcome, Outcome, StaleReason};
use crate::respond::{self, from_handler, note};
use crate::response::{StoredResponse, ensure_date};
use crate::rfc9111::coding::Accepts;
use crate::rfc9111::validation::{confirms, freshen};

impl Errand {
    /// 304: the stored response is updated (§3.2) and sent, on new terms.
    pub(crate) fn confirmed<B: Body>(
        self,
        previous: &Arc<StoredResponse>,
        mut update: Parts,
    ) -> Response<ResponseBody<B>> {
        let received = self.core.now();
        // Without a date of its own the confirmation is of now, and not of the day on which the stored response was made.
        ensure_date(&mut update.headers, received);
        let mut head = previous.origin_head();
        if !confirms(&head, &update.headers) && !self.core.settings.trust_any_304 {
            // It speaks of another representation: this one was not confirmed, and is asked for anew next time.
            let is_good = self.is_good(previous);
            self.departure.flight.decline();
            self.core.forget(&self.ask.key);
            if previous.terms.no_stale || previous.terms.no_cache || !is_good {
                // §5.2.2.2: "an error response rather than a stale one".
                let mut response = Response::new(ResponseBody::empty());
                *response.status_mut() = StatusCode::GATEWAY_TIMEOUT;
                return from_handler(&self.core, response, self.outcome(Outcome::Miss(self.why)), self.since());
            }
            return self.stale(previous, StaleReason::Unconfirmed);
        }
        freshen(&mut head, &update.headers);
        let handler =
            update.extensions.get::<Cached>().cloned().or_else(|| previous.origin.handler.as_deref().cloned());
        let verdict = self.judge(previous.status, &head, handler.as_ref(), received);
        if let Err(reason) = verdict {
            self.departure.flight.decline();
            self.core.remember_declined(self.departure.asked, reason, received);
        }
        let (core, rule, why, since) = (self.core.clone(), self.ask.rule, self.why, self.since());
        let (asked, is_head) = (self.client_asks(), self.ask.is_head);
        let accepts = Accepts::of(&self.asked.to_map());
        let of_one_user = self.is_for_one_user(previous);
        let key = self.ask.key.clone();
        let plan = verdict.and_then(|verdict| self.plan(previous.status, &head, verdict, handler, received, None));
        let stored = match plan {
            Ok(plan) => plan.commit_confirmed(previous),
            Err(reason) => {
                core.note_stored(&core.rules.get(rule).counters, &key, Err(reason));
                Err(reason)
            }
        };
        if let Err(reason) = &stored
            && reason.condemns_stored()
            && !of_one_user
        {
            core.forget(&key);
            core.fates.note(key.as_bytes(), Became::Declined(*reason));
        }
        // Confirmed a moment ago, so it may be sent once even where it may not be stored any more.
        let sent = stored.as_ref().unwrap_or(previous);
        let age = sent.age(received);
        let outcome = CacheOutcome::of_stored(Outcome::Revalidated(why), rule, age, sent.lifetime());
        let mut response = respond::from_store(&core, sent, received, outcome, asked.as_ref(), || accepts, is_head);
        note(&core, &mut response, outcome, since);
        response
    }
}
