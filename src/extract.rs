//! Extractors of axum: a handler takes the cache that its request came through as an argument ([`CacheHandle`]), and the tags of what it makes ([`UsedTags`]).

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;

use crate::admission::InHand;
use crate::handle::CacheHandle;
use crate::used::UsedTags;

/// A handler wants a [`CacheHandle`], and its request came through no cache. It answers 500, with the sentence that it displays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the handler takes a larder::CacheHandle, but there is no cache around its route: add the layer outside of it, as in `Router::layer(cache)`"
)]
#[non_exhaustive]
pub struct CacheHandleRejection;

impl IntoResponse for CacheHandleRejection {
    fn into_response(self) -> Response {
        tracing::error!(target: "larder", "{self}");
        (StatusCode::INTERNAL_SERVER_ERROR, self.to_string()).into_response()
    }
}

impl CacheHandle {
    /// Of the cache that the request came through; of several, the innermost.
    fn of(parts: &Parts) -> Option<Self> {
        parts.extensions.get::<InHand>()?.innermost().map(Self::new)
    }
}

impl<S: Sync> FromRequestParts<S> for CacheHandle {
    type Rejection = CacheHandleRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Self::of(parts).ok_or(CacheHandleRejection)
    }
}

impl<S: Sync> OptionalFromRequestParts<S> for CacheHandle {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Self::Rejection> {
        Ok(Self::of(parts))
    }
}

/// Where no cache listens, adding does nothing.
impl<S: Sync> FromRequestParts<S> for UsedTags {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self::of(&parts.extensions))
    }
}
