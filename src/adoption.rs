//! What was stored under earlier settings, as those of now would have it: the same response on the stricter terms of both, or not at all.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, header};

use crate::admission::Ask;
use crate::cache::CacheCore;
use crate::downstream::Downstream;
use crate::form;
use crate::kept_head::{keep_own_validators, stored_head};
use crate::precedence::{Arrival, judge};
use crate::response::{Origin, StoredResponse};
use crate::rfc9111::date;
use crate::rfc9111::storability::DeclineReason;
use crate::tagging::Labelled;
use crate::upkeep::Upkeep;

/// Why what was stored under earlier settings isn't used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotAdopted {
    /// The answers of the route are for others now, or were made from other requests.
    OtherAudience,
    /// It has other tags now, and one of them was purged.
    Purged,
    /// It wouldn't be stored under the settings of now.
    Declined(DeclineReason),
}

/// `stored` as it may be used under the settings of `core`, or why it may not be.
///
/// It is judged as if it arrived now, and never gains by that: of each lifetime and window the smaller one counts. Its head is made anew, since other
/// fields may go out with it. Nothing is written to the store: between the look-up and that, a write might have invalidated it.
#[cold]
pub(crate) fn adopt(stored: &StoredResponse, ask: &Ask, core: &CacheCore) -> Result<Arc<StoredResponse>, NotAdopted> {
    if stored.regime.audience != ask.regime.audience {
        return Err(NotAdopted::OtherAudience);
    }
    let route = core.rules.get(ask.rule);
    let policy = &route.policy;
    let head = stored.origin_head();
    let arrival = Arrival {
        method: &Method::GET,
        // Both were looked at when it was stored, under the same audience.
        authorization: false,
        request_no_store: false,
        status: stored.status,
        headers: &head,
        handler: stored.origin.handler.as_deref(),
        date: date::field(&head, header::DATE).unwrap_or(stored.received.wall),
        received: stored.received.wall,
        delay: Duration::ZERO,
        spread: core.spread(&ask.key, stored.received),
    };
    let labelled =
        Labelled { labels: &route.labels, handler: stored.origin.handler.as_deref(), head: &head, used: None };
    let stamp = core.relabelled(stored, labelled, ask.key.path());
    if !core.purges.is_valid(&stamp, stored.received, &ask.key) {
        return Err(NotAdopted::Purged);
    }
    let mut verdict = judge(&arrival, policy, &core.settings).map_err(NotAdopted::Declined)?;
    let terms = stored.terms.stricter(verdict.terms);
    if let Some(downstream) = verdict.downstream.as_mut().filter(|downstream| !downstream.from_each_answer) {
        downstream.lifetime = downstream.lifetime.min(terms.lifetime);
    }
    let downstream = verdict.downstream.as_ref();
    let (mut head, replaced) = stored_head(&head, policy.drop_set_cookie, downstream, stored.received, &core.settings);
    let mut origin = Origin { replaced, handler: stored.origin.handler.clone(), ..Origin::default() };
    keep_own_validators(&mut head, &mut origin, stored);
    // Its content is what it is, whatever compression is set to now.
    origin.own_vary = stored.form.is_negotiable() && form::add_vary(&mut head);
    stored.form.dress(&mut head);
    let (head, _) = core.heads.store(&head, &core.settings.switches.names(), Bytes::new());
    Ok(Arc::new(StoredResponse {
        // It is in nobody's account, since it isn't in the store.
        charge: None,
        upkeep: Upkeep::stricter(stored.upkeep.as_ref(), verdict.upkeep.as_ref()),
        status: stored.status,
        head,
        body: stored.body.clone(),
        form: stored.form,
        terms,
        received: stored.received,
        variance: stored.variance.clone(),
        origin,
        downstream: verdict.downstream.filter(Downstream::is_of_each_answer).map(Arc::new),
        stamp,
        regime: ask.regime,
        keep: stored.keep,
        route: stored.route.clone(),
    }))
}
