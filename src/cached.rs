//! [`Cached`]: what a handler says about its response, beside or instead of header fields.

use std::time::Duration;

/// How the response that carries it is to be cached; put it into the response's extensions, or, with axum, before the body in a tuple.
///
/// It takes precedence over the rule of the route and over the freshness in `Cache-Control`, but not over what forbids to store
/// (`no-store`, `private`, `Set-Cookie`). On a route whose rule bypasses the cache it has no effect.
///
/// ```
/// # #[cfg(feature = "axum")] {
/// use std::time::Duration;
/// use axum::response::IntoResponse;
/// use larder::Cached;
///
/// async fn product() -> impl IntoResponse {
///     let minute = Duration::from_secs(60);
///     (Cached::shared(minute).stale_while_revalidate(minute), "the same for everybody")
/// }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Cached {
    /// `None`: don't store.
    pub(crate) ttl: Option<Duration>,
    pub(crate) downstream: Option<Duration>,
    pub(crate) stale_while_revalidate: Option<Duration>,
    pub(crate) stale_if_error: Option<Duration>,
}

impl Cached {
    /// The answer is the same for everybody, and fresh for `ttl`. Credentials of the request then don't matter (RFC 9111 §3.5).
    pub fn shared(ttl: Duration) -> Self {
        Self { ttl: Some(ttl), downstream: None, stale_while_revalidate: None, stale_if_error: None }
    }

    /// The answer must not be stored. Unlike `Cache-Control: no-store` this says nothing to the client.
    pub fn no_store() -> Self {
        Self { ttl: None, downstream: None, stale_while_revalidate: None, stale_if_error: None }
    }

    /// For how long clients and caches downstream may use the answer, if not for the rest of its lifetime here.
    pub fn downstream(mut self, lifetime: Duration) -> Self {
        self.downstream = Some(lifetime);
        self
    }

    /// For how long past its lifetime it may be served while it is refreshed (RFC 5861 §3).
    pub fn stale_while_revalidate(mut self, window: Duration) -> Self {
        self.stale_while_revalidate = Some(window);
        self
    }

    /// For how long past its lifetime it may stand in for an error (RFC 5861 §4).
    pub fn stale_if_error(mut self, window: Duration) -> Self {
        self.stale_if_error = Some(window);
        self
    }
}

#[cfg(feature = "axum")]
impl axum::response::IntoResponseParts for Cached {
    type Error = std::convert::Infallible;

    fn into_response_parts(
        self,
        mut parts: axum::response::ResponseParts,
    ) -> Result<axum::response::ResponseParts, Self::Error> {
        parts.extensions_mut().insert(self);
        Ok(parts)
    }
}
