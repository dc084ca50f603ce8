//! [`Downstream`]: the `Cache-Control` that goes out where it isn't the origin's that counts.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::rfc9111::directives::ResponseDirectives;

/// A `Cache-Control` of the cache's own, for clients and caches downstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Downstream {
    pub(crate) lifetime: Duration,
    /// The lifetime counts from each answer, not from the response's generation.
    pub(crate) from_each_answer: bool,
    /// The response ends when it isn't asked for during this time. What those downstream use doesn't ask here, so they may use it no longer.
    pub(crate) sliding: Option<Duration>,
    pub(crate) private: bool,
    /// Directives of the origin that stay, each with a comma in front.
    pub(crate) kept: String,
}

impl Downstream {
    /// Whether the field value is another one for each answer; else that of the first is good for all.
    pub(crate) fn is_of_each_answer(&self) -> bool {
        self.from_each_answer || self.sliding.is_some()
    }

    /// The field value for the first answer.
    pub(crate) fn cache_control(&self) -> HeaderValue {
        self.written(self.first(), self.private)
    }

    /// The field value for an answer from the store, of this age and with this lifetime here. Receivers subtract `Age` from `max-age`, so a lifetime
    /// that counts from the answer has the age added.
    pub(crate) fn of_stored(&self, age: Duration, lifetime: Duration) -> HeaderValue {
        let most = if self.from_each_answer { self.lifetime.saturating_add(age) } else { self.lifetime.min(lifetime) };
        self.written(most, self.private)
    }

    /// The field value for an answer that also carries what is meant for one client only, such as a cookie.
    pub(crate) fn private_cache_control(&self) -> HeaderValue {
        self.written(self.first(), true)
    }

    fn first(&self) -> Duration {
        let sliding = self.sliding.filter(|_| !self.from_each_answer);
        sliding.map_or(self.lifetime, |sliding| self.lifetime.min(sliding))
    }

    fn written(&self, lifetime: Duration, private: bool) -> HeaderValue {
        let whom = if private { "private" } else { "public" };
        let seconds = lifetime.as_secs();
        HeaderValue::try_from(format!("{whom}, max-age={seconds}{}", self.kept))
            .unwrap_or(HeaderValue::from_static("no-cache"))
    }
}

/// Tells caches downstream that the answer is for one client, where the handler doesn't; of what it says otherwise, `private` is stricter. The
/// targeted fields go, for they would silence `Cache-Control` (RFC 9213 §2.2).
pub(crate) fn ensure_private(head: &mut HeaderMap, targets: &[HeaderName]) {
    targets.iter().for_each(|target| drop(head.remove(target)));
    let said = ResponseDirectives::parse(head);
    if !said.private && !said.no_store {
        head.append(header::CACHE_CONTROL, HeaderValue::from_static("private"));
    }
}
