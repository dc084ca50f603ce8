//! Responses as a cache would store them, for tests that put them into a store themselves.
#![allow(dead_code, reason = "each test file uses a part")]

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use larder::storage::{Query, Storage, StorageUsage, Variants};
use larder::{CacheKey, CacheLayer, Clock, StorageError, StoredResponse};
use tower::{Layer, ServiceExt};

/// A key and what is stored under it, and the request that asks for it.
#[derive(Clone)]
pub struct Made {
    pub key: CacheKey,
    pub response: Arc<StoredResponse>,
    pub asked: HeaderMap,
}

/// What a cache stores of an answer with these fields and this content to a request for `path` with those fields. `Cache-Control` is added where there is none.
pub async fn make(
    clock: impl Clock,
    path: &str,
    asked: &[(&str, &str)],
    fields: &[(&str, &str)],
    content: impl Into<Bytes>,
) -> Made {
    let mut answer = Response::builder();
    if !fields.iter().any(|(name, _)| *name == "cache-control") {
        answer = answer.header("cache-control", "max-age=600");
    }
    for (name, value) in fields {
        answer = answer.header(*name, *value);
    }
    let answer = answer.body(Full::new(content.into())).expect("a response");
    make_as(CacheLayer::with_storage, clock, path, asked, answer).await
}

/// The same with a layer of one's own.
pub async fn make_as(
    layer: impl FnOnce(Catch) -> CacheLayer,
    clock: impl Clock,
    path: &str,
    asked: &[(&str, &str)],
    answer: Response<Full<Bytes>>,
) -> Made {
    let caught = Catch::default();
    let answer = Arc::new(Mutex::new(Some(answer)));
    let handler = tower::service_fn(move |_: Request<Full<Bytes>>| {
        let answer = answer.lock().expect("no holder panics").take();
        async move { Ok::<_, std::convert::Infallible>(answer.expect("one request")) }
    });
    let layer = layer(caught.clone()).clock(clock);
    let (service, handle) = (layer.layer(handler), layer.handle());
    let mut request = Request::get(path).header("host", "shop.example");
    for (name, value) in asked {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::default()).expect("a request");
    let asked = request.headers().clone();
    let answer = service.oneshot(request).await.expect("no error");
    answer.into_body().collect().await.expect("a whole body");
    handle.shutdown(std::time::Duration::from_secs(5)).await;
    let (key, response) = caught.0.lock().expect("no holder panics").pop().expect("it is stored");
    Made { key, response, asked }
}

/// Keeps what is put.
#[derive(Clone, Default)]
pub struct Catch(Arc<Mutex<Vec<Stored>>>);

type Stored = (CacheKey, Arc<StoredResponse>);

impl Storage for Catch {
    async fn get(&self, _: Query<'_>) -> Result<Variants, StorageError> {
        Ok(Variants::new())
    }

    async fn put(&self, key: &CacheKey, response: Arc<StoredResponse>, _: usize) -> Result<(), StorageError> {
        self.0.lock().expect("no holder panics").push((key.clone(), response));
        Ok(())
    }

    async fn remove(&self, _: &CacheKey) -> Result<bool, StorageError> {
        Ok(false)
    }

    async fn clear(&self) -> Result<(), StorageError> {
        Ok(())
    }

    fn usage(&self) -> StorageUsage {
        StorageUsage::default()
    }
}
