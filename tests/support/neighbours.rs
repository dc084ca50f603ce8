//! A cache among other layers: any service can be asked, and handlers count their calls.
#![allow(dead_code, reason = "each test file uses a part")]

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use larder::{CacheLayer, Policy};
use tower::{Service, ServiceExt};

use super::exchange::{Exchange, MINUTE, request};

/// A cache that keeps every good answer for a minute, since the application vouches for it.
pub fn vouched() -> CacheLayer {
    CacheLayer::in_memory(1 << 20).otherwise(Policy::shared(MINUTE))
}

/// How often something happened.
#[derive(Clone, Default)]
pub struct Count(Arc<AtomicUsize>);

impl Count {
    /// Once more; tells how often that makes.
    pub fn up(&self) -> usize {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// Sends a request without content, and reads the answer.
pub async fn send<S, B>(service: &S, method: &str, target: &str, fields: &[(&str, &str)]) -> Exchange
where
    S: Service<Request<Body>, Response = Response<B>, Error: Debug> + Clone,
    B: http_body::Body<Data = Bytes, Error: Debug>,
{
    let request = request(method, target, fields).map(|_| Body::empty());
    let response = service.clone().oneshot(request).await.expect("no layer fails");
    Exchange::read(response).await.expect("the body ends well")
}

pub async fn get_from<S, B>(service: &S, target: &str, fields: &[(&str, &str)]) -> Exchange
where
    S: Service<Request<Body>, Response = Response<B>, Error: Debug> + Clone,
    B: http_body::Body<Data = Bytes, Error: Debug>,
{
    send(service, "GET", target, fields).await
}

/// `X-Cache` of two equal requests, one after the other.
pub async fn twice<S, B>(service: &S, target: &str, fields: &[(&str, &str)]) -> [String; 2]
where
    S: Service<Request<Body>, Response = Response<B>, Error: Debug> + Clone,
    B: http_body::Body<Data = Bytes, Error: Debug>,
{
    let first = get_from(service, target, fields).await.x_cache;
    [first, get_from(service, target, fields).await.x_cache]
}

/// What [`twice`] tells of what is cached.
pub const MISS_HIT: [&str; 2] = ["MISS", "HIT"];
