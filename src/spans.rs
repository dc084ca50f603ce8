//! Spans of what a request does beside being answered at once: a fill, a wait for another one's fill, a refresh. All are of the target `larder` and the level
//! `DEBUG`, and say which rule it was, what came of it, and why.

use tracing::field::Empty;
use tracing::{Span, debug_span};

use crate::outcome::{CacheOutcome, ForwardReason};
use crate::rfc9111::storability::DeclineReason;
use crate::rules::Route;

/// A request that goes to the handler, for all who wait for the same. It ends when what it brought is stored or given up.
pub(crate) fn fill(route: &Route, why: ForwardReason) -> Span {
    let (rule, why) = (route.name(), why.as_str());
    debug_span!(target: "larder", "fill", rule, why, outcome = Empty, reason = Empty, decline = Empty)
}

/// A request that waits for another one's answer. It follows the spans of the fills that it waits for.
pub(crate) fn follow(route: &Route, why: ForwardReason) -> Span {
    let (rule, why) = (route.name(), why.as_str());
    debug_span!(target: "larder", "follow", rule, why, outcome = Empty, reason = Empty, decline = Empty)
}

/// A refresh that no client waits for. It follows what made it necessary, and may outlive it.
pub(crate) fn refresh(route: &Route) -> Span {
    let rule = route.name();
    let span =
        debug_span!(target: "larder", parent: None, "refresh", rule, outcome = Empty, reason = Empty, decline = Empty);
    span.follows_from(Span::current());
    span
}

/// Says in the current span what was done. Known to those above; any other ignores it.
pub(crate) fn say(outcome: &CacheOutcome) {
    let span = Span::current();
    span.record("outcome", outcome.outcome.as_str());
    if let Some(reason) = outcome.outcome.reason() {
        span.record("reason", reason);
    }
    if let Some(Err(reason)) = outcome.stored {
        decline(&span, reason);
    }
}

/// Says that the answer isn't stored.
pub(crate) fn decline(span: &Span, reason: DeclineReason) {
    span.record("decline", reason.as_str());
}
