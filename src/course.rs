//! [`Course`]: what is done with a request that was looked up. Deciding it does nothing yet, so that an explanation decides as an answer does.

use std::sync::Arc;

use crate::admission::Ask;
use crate::clock::Moment;
use crate::lookup::Lookup;
use crate::outcome::{ForwardReason, StaleReason};
use crate::response::StoredResponse;
use crate::strategy::Strategy;

/// What is done with a request.
#[derive(Debug)]
pub(crate) enum Course {
    /// The stored response is sent.
    Hit(Arc<StoredResponse>),
    /// It is sent, and refreshed behind the answer.
    Ahead(Arc<StoredResponse>),
    /// It is sent though it is stale, and refreshed behind the answer if that is the reason.
    Stale(Arc<StoredResponse>, StaleReason),
    /// The handler is asked, about what is stored if anything is, unless another request has asked it already.
    Fetch(ForwardReason, Option<Arc<StoredResponse>>),
    /// Nobody is asked: 504.
    Refuse(ForwardReason),
}

impl Course {
    /// What the store has decides, and what the rule's strategy and the request make of that.
    pub(crate) fn of(found: Lookup, ask: &Ask, now: Moment) -> Self {
        let found = if ask.strategy == Strategy::CacheFirst { found } else { ask.strategy.direct(found, ask, now) };
        match found {
            Lookup::Fresh(stored) => Self::Hit(stored),
            Lookup::Ahead(stored) => Self::Ahead(stored),
            Lookup::Stale(stored, reason) => Self::Stale(stored, reason),
            Lookup::Miss(why @ ForwardReason::CacheOnly) => Self::Refuse(why),
            // §5.2.1.7
            _ if ask.only_if_cached() => Self::Refuse(ForwardReason::OnlyIfCached),
            Lookup::Validate(stored, why) => Self::Fetch(why, Some(stored)),
            Lookup::Miss(why) => Self::Fetch(why, None),
            // Whoever asks has weighed it; what wasn't may not be used.
            Lookup::Earlier(_) => Self::Fetch(ForwardReason::UriMiss, None),
        }
    }
}
