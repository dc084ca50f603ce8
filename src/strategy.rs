//! [`Strategy`]: who is asked first on a route, the store or the handler. It turns what the store found into what is done with it, and never
//! allows what the response, the request or a purge forbids.

use std::time::Duration;

use crate::admission::Ask;
use crate::clock::Moment;
use crate::lookup::Lookup;
use crate::outcome::{ForwardReason, StaleReason};
use crate::rfc9111::reuse::may_stand_in_for_error;

/// Who is asked first, the store or the handler; set with [`Policy::strategy`](crate::Policy::strategy).
///
/// | | fresh in the store | stale | nothing usable |
/// |---|---|---|---|
/// | [`CacheFirst`](Self::CacheFirst) | store | handler, or the store within a stale window | handler |
/// | [`NetworkFirst`](Self::NetworkFirst) | handler; the store if that fails or takes too long | likewise, within a stale window | handler |
/// | [`StaleWhileRevalidate`](Self::StaleWhileRevalidate) | store | store, and a refresh behind the answer | handler |
/// | [`NetworkOnly`](Self::NetworkOnly) | handler | handler | handler |
/// | [`CacheOnly`](Self::CacheOnly) | store | store within a stale window, else 504 | 504 |
///
/// No strategy serves what was purged, what says `no-cache`, or stale what says `must-revalidate`; and the directives of a request count
/// under all of them. Writes go to the handler and invalidate, whatever the strategy.
///
/// ```
/// use std::time::Duration;
/// use larder::{Policy, Strategy};
///
/// let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
/// let prices = Policy::shared(minute).strategy(Strategy::NetworkFirst { limit: Some(second) });
/// let avatars = Policy::shared(10 * minute).strategy(Strategy::StaleWhileRevalidate);
/// # drop((prices, avatars));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Strategy {
    /// RFC 9111: what is fresh is sent from the store, all else is asked for.
    #[default]
    CacheFirst,
    /// The handler is asked for each request. If it fails, answers with any 5xx status, or takes longer than `limit` (`None`: no limit but
    /// [`Policy::fill_timeout`](crate::Policy::fill_timeout)), the stored response answers if it is fresh or within one of its stale windows
    /// (RFC 5861); an answer that comes too late still refreshes the store, as one of the
    /// [refreshes](crate::CacheLayer::max_refreshes). Where nothing stored may answer, the handler is waited for.
    NetworkFirst {
        /// How long the handler may take before what is stored answers.
        limit: Option<Duration>,
    },
    /// Whatever is stored and not forbidden to be used answers, however stale it is, and what is stale is refreshed behind the answer.
    ///
    /// [`Policy::stale_while_revalidate`](crate::Policy::stale_while_revalidate) or the response's own directive limit how stale it may be.
    StaleWhileRevalidate,
    /// The handler answers, and nothing is stored: a bypass, under a name that says why.
    NetworkOnly,
    /// The store answers or nobody does: 504, as if each request said `only-if-cached` (RFC 9111 §5.2.1.7). What
    /// fills the store must be something else, such as another cache over what is behind a [`Storage`](crate::storage::Storage). Other methods than GET and
    /// HEAD, and requests that bypass, go to the handler as ever.
    CacheOnly,
}

impl Strategy {
    /// What is done with what the store found. Not called for [`CacheFirst`](Self::CacheFirst), so that a hit pays a branch and no more.
    #[cold]
    pub(crate) fn direct(self, found: Lookup, ask: &Ask, now: Moment) -> Lookup {
        match (self, found) {
            // §5.2.1.7: this client wants nothing from the handler.
            (Self::NetworkFirst { .. }, found) if ask.only_if_cached() => found,
            (Self::NetworkFirst { .. }, Lookup::Fresh(stored)) => Lookup::Validate(stored, ForwardReason::NetworkFirst),
            (Self::NetworkFirst { .. }, Lookup::Stale(stored, _)) => Lookup::Validate(stored, ForwardReason::Stale),
            // Nobody refreshes it: the handler isn't asked.
            (Self::CacheOnly, Lookup::Stale(stored, StaleReason::WhileRevalidate)) => {
                Lookup::Stale(stored, StaleReason::CacheOnly)
            }
            (Self::CacheOnly, Lookup::Validate(stored, ForwardReason::Stale))
                if may_stand_in_for_error(&stored.current_terms(), stored.age(now), &ask.directives, false) =>
            {
                Lookup::Stale(stored, StaleReason::CacheOnly)
            }
            (Self::CacheOnly, Lookup::Validate(..) | Lookup::Miss(_)) => Lookup::Miss(ForwardReason::CacheOnly),
            (_, found) => found,
        }
    }

    /// How long the handler may take before what is stored answers, if the strategy says so.
    pub(crate) fn limit(self) -> Option<Duration> {
        match self {
            Self::NetworkFirst { limit } => limit,
            _ => None,
        }
    }

    /// Whether what is stored may answer in the handler's place though it is fresh.
    pub(crate) fn falls_back(self) -> bool {
        matches!(self, Self::NetworkFirst { .. })
    }
}
