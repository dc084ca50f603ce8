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
    pub(crate) private: bool,
    /// Directives of the origin that stay, each with a comma in front.
    pub(crate) kept: String,
}

impl Downstream {
    /// The field value for an answer of this age. Receivers subtract `Age` from `max-age`, so a lifetime that counts from the answer has the
    /// age added.
    pub(crate) fn cache_control(&self, age: Duration) -> HeaderValue {
        self.written(age, self.private)
    }

    /// The field value for an answer that also carries what is meant for one client only, such as a cookie.
    pub(crate) fn private_cache_control(&self) -> HeaderValue {
        self.written(Duration::ZERO, true)
    }

    fn written(&self, age: Duration, private: bool) -> HeaderValue {
        let whom = if private { "private" } else { "public" };
        let age = if self.from_each_answer { age.as_secs() } else { 0 };
        let seconds = self.lifetime.as_secs().saturating_add(age);
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
