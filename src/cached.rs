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
    pub(crate) storing: Storing,
    pub(crate) downstream: Option<Duration>,
    pub(crate) stale_while_revalidate: Option<Duration>,
    pub(crate) stale_if_error: Option<Duration>,
    pub(crate) tags: Vec<String>,
}

/// Whether the response is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Storing {
    /// For everybody, and so long.
    Shared(Duration),
    /// As if the handler had said nothing.
    ByRule,
    Never,
}

impl Cached {
    /// The answer is the same for everybody, and fresh for `ttl`. Credentials of the request then don't matter (RFC 9111 §3.5).
    pub fn shared(ttl: Duration) -> Self {
        Self::new(Storing::Shared(ttl))
    }

    /// Whether the answer is stored, for whom and for how long is for the rule and the fields to say. For a handler that only has
    /// [tags](Self::tag) to give, or stale windows.
    ///
    /// ```
    /// # #[cfg(feature = "axum")] {
    /// # use axum::{extract::Path, response::IntoResponse};
    /// # use larder::Cached;
    /// async fn product(Path(id): Path<u64>) -> impl IntoResponse {
    ///     (Cached::by_rule().tag(format!("product:{id}")).tag("products"), "as the rule says")
    /// }
    /// # }
    /// ```
    pub fn by_rule() -> Self {
        Self::new(Storing::ByRule)
    }

    /// The answer must not be stored. Unlike `Cache-Control: no-store` this says nothing to the client.
    pub fn no_store() -> Self {
        Self::new(Storing::Never)
    }

    fn new(storing: Storing) -> Self {
        Self { storing, downstream: None, stale_while_revalidate: None, stale_if_error: None, tags: Vec::new() }
    }

    /// A tag by which the answer can be purged ([`Selector::Tag`](crate::Selector::Tag)), beside those of the rule ([`Policy::tag`](crate::Policy::tag)) and of
    /// its fields `Cache-Tag` and `Surrogate-Key`. Several calls give several tags.
    ///
    /// Tags are hierarchical: what is tagged `product:17` is purged by `product` as well. They are compared byte by byte, but for colons at their end.
    /// A tag has at most 256 bytes and no control characters, and a response at most 128 tags, with their prefixes at most 512; what has more, or one that is
    /// none, is purged by every tag.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
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

impl Cached {
    /// The lifetime that the handler gives, if it does.
    pub(crate) fn ttl(&self) -> Option<Duration> {
        if let Storing::Shared(ttl) = self.storing { Some(ttl) } else { None }
    }

    /// The bytes that it takes beside itself.
    pub(crate) fn size(&self) -> usize {
        self.tags.iter().map(|tag| size_of::<String>() + tag.len()).sum()
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
