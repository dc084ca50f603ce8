//! Handlers whose bodies do as a test tells them, and a cache around them.
#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use larder::{Cache, CacheHandle, CacheLayer, ManualClock, ResponseBody, Stats};
use tokio::sync::mpsc;
use tower::{Layer, Service, ServiceExt};

pub const CAPACITY: u64 = 1 << 20;

/// The error of a body that breaks off, and of a handler that fails.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Broken(pub &'static str);

pub type Content = UnsyncBoxBody<Bytes, Broken>;
pub type Answer = Result<Response<Content>, Broken>;
pub type Step = Result<Frame<Bytes>, Broken>;
type Awaited = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// An inner service that keeps the heads of its requests and answers as it is told; the first request has the number 1.
#[derive(Clone)]
pub struct Handler {
    seen: Arc<Mutex<Vec<Parts>>>,
    answer: Arc<dyn Fn(usize, Parts) -> Awaited + Send + Sync>,
}

impl Handler {
    pub fn new(answer: impl Fn(usize, &Parts) -> Response<Content> + Send + Sync + 'static) -> Self {
        Self::waiting(move |number, request| std::future::ready(Ok(answer(number, &request))))
    }

    pub fn waiting<F>(answer: impl Fn(usize, Parts) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let answer = move |number, request| -> Awaited { Box::pin(answer(number, request)) };
        Self { seen: Arc::default(), answer: Arc::new(answer) }
    }

    pub fn calls(&self) -> usize {
        self.seen().len()
    }

    /// The fields of the requests so far.
    pub fn heads(&self) -> Vec<HeaderMap> {
        self.seen().iter().map(|parts| parts.headers.clone()).collect()
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Vec<Parts>> {
        self.seen.lock().expect("no holder panics")
    }
}

impl<B> Service<Request<B>> for Handler {
    type Response = Response<Content>;
    type Error = Broken;
    type Future = Awaited;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Awaited {
        let parts = request.into_parts().0;
        let number = {
            let mut seen = self.seen();
            seen.push(parts.clone());
            seen.len()
        };
        (self.answer)(number, parts)
    }
}

/// A body that does as it is told, and otherwise yields its frames at once, ends, and doesn't know its size.
#[derive(Default)]
pub struct Script {
    steps: VecDeque<Step>,
    paced: bool,
    waited: bool,
    endless: bool,
    claimed: Option<u64>,
}

impl Script {
    pub fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self { steps: steps.into_iter().collect(), ..Self::default() }
    }

    /// Be pending once before each frame.
    pub fn paced(self, paced: bool) -> Self {
        Self { paced, ..self }
    }

    /// Stay pending instead of ending.
    pub fn endless(self, endless: bool) -> Self {
        Self { endless, ..self }
    }

    /// Give this as the exact size.
    pub fn claiming(self, size: u64) -> Self {
        Self { claimed: Some(size), ..self }
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Step>> {
        if self.paced && !self.waited {
            self.waited = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.waited = false;
        if self.steps.is_empty() && self.endless {
            return Poll::Pending;
        }
        let step = self.steps.pop_front();
        if let (Some(claimed), Some(Ok(frame))) = (self.claimed, &step) {
            self.claimed = Some(claimed.saturating_sub(frame.data_ref().map_or(0, Bytes::len) as u64));
        }
        Poll::Ready(step)
    }

    fn size_hint(&self) -> SizeHint {
        self.claimed.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

pub fn data(chunk: impl Into<Bytes>) -> Step {
    Ok(Frame::data(chunk.into()))
}

pub fn trailers(name: &'static str, value: &'static str) -> Step {
    let mut fields = HeaderMap::new();
    fields.insert(name, HeaderValue::from_static(value));
    Ok(Frame::trailers(fields))
}

/// The data of `content` in chunks of `size` bytes.
pub fn in_chunks(content: &'static [u8], size: usize) -> impl Iterator<Item = Step> {
    content.chunks(size).map(data)
}

/// A body that is there as a whole and knows its size.
pub fn whole(content: impl Into<Bytes>) -> Content {
    Full::new(content.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body that doesn't know its size, whose frames are all ready.
pub fn stream(steps: impl IntoIterator<Item = Step>) -> Content {
    Script::new(steps).boxed_unsync()
}

/// A body that a test feeds while it is read. It ends when the feed is dropped.
pub fn fed() -> (mpsc::UnboundedSender<Step>, Content) {
    struct Fed(mpsc::UnboundedReceiver<Step>);
    impl Body for Fed {
        type Data = Bytes;
        type Error = Broken;
        fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Step>> {
            self.0.poll_recv(cx)
        }
    }
    let (feed, steps) = mpsc::unbounded_channel();
    (feed, Fed(steps).boxed_unsync())
}

/// 200, with these fields.
pub fn answer(fields: &[(&'static str, &str)], content: Content) -> Response<Content> {
    let mut response = Response::new(content);
    for (name, value) in fields {
        response.headers_mut().append(*name, value.parse().expect("a valid field"));
    }
    response
}

/// 200, fresh for a minute.
pub fn fresh(content: Content) -> Response<Content> {
    answer(&[("cache-control", "max-age=60")], content)
}

pub fn get(path: &str) -> Request<Empty<Bytes>> {
    get_with(path, &[])
}

pub fn get_with(path: &str, fields: &[(&'static str, &str)]) -> Request<Empty<Bytes>> {
    let mut request = Request::builder().uri(path).header("host", "larder.test");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(Empty::new()).expect("a valid request")
}

/// What `X-Cache` says.
pub fn x_cache<B>(response: &Response<B>) -> &str {
    field(response.headers(), "x-cache").expect("X-Cache")
}

pub fn field<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// A response to its end.
#[derive(Debug)]
pub struct Got {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub x_cache: String,
    /// What arrived.
    pub content: Vec<u8>,
    /// How it ended.
    pub end: Result<(), String>,
}

/// Reads a response until it ends, well or badly.
pub async fn read<B>(response: Response<B>) -> Got
where
    B: Body<Data = Bytes, Error: fmt::Display> + Unpin,
{
    let x_cache = x_cache(&response).to_owned();
    let (parts, mut body) = response.into_parts();
    let mut got = Got { status: parts.status, headers: parts.headers, x_cache, content: Vec::new(), end: Ok(()) };
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => got.content.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new())),
            Err(error) => {
                got.end = Err(error.to_string());
                break;
            }
        }
    }
    got
}

/// The next chunk of a body that has one.
pub async fn chunk<B: Body<Data = Bytes, Error: fmt::Debug> + Unpin>(body: &mut B) -> Bytes {
    let frame = body.frame().await.expect("the body goes on").expect("without an error");
    frame.into_data().expect("data")
}

/// Lets the tasks of the cache run until each has ended or waits for something that isn't there yet.
pub async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// A cache with a clock of its own around a handler.
pub struct Setup {
    pub service: Cache<Handler>,
    pub handler: Handler,
    pub clock: Arc<ManualClock>,
    pub handle: CacheHandle,
}

pub fn around(handler: Handler) -> Setup {
    set_up(handler, |layer| layer)
}

pub fn set_up(handler: Handler, settings: impl FnOnce(CacheLayer) -> CacheLayer) -> Setup {
    let clock = Arc::new(ManualClock::default());
    let layer = settings(CacheLayer::in_memory(CAPACITY).clock(clock.clone()));
    Setup { service: layer.layer(handler.clone()), handle: layer.handle(), handler, clock }
}

impl Setup {
    pub async fn send(&self, request: Request<Empty<Bytes>>) -> Response<ResponseBody<Content>> {
        self.service.clone().oneshot(request).await.expect("the handler doesn't fail")
    }

    /// The response's head, at least; its body is still to be read.
    pub async fn begin(&self, path: &str) -> Response<ResponseBody<Content>> {
        self.send(get(path)).await
    }

    pub async fn get(&self, path: &str) -> Got {
        read(self.begin(path).await).await
    }

    pub fn stats(&self) -> Stats {
        self.handle.stats()
    }
}
