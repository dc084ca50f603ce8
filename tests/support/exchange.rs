//! A cache around a handler, on a clock that tests move, and exchanges with both.
#![allow(dead_code)] // Each test uses a part of it.

use std::cell::RefCell;
use std::convert::identity;
use std::future::ready;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::request::Parts;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use larder::{Cache, CacheHandle, CacheLayer, CacheOutcome, Explanation, ManualClock};
use tower::{Layer, Service, ServiceExt};

/// What goes wrong in a handler, or in its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure;

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the handler failed")
    }
}

impl std::error::Error for Failure {}

pub type Content = BoxBody<Bytes, Failure>;
pub type Answer = Result<Response<Content>, Failure>;

type Answering = dyn Fn(Parts, usize) -> BoxFuture<'static, Answer> + Send + Sync;

/// A handler that keeps the heads of the requests it saw. Clones share them.
#[derive(Clone)]
pub struct Handler {
    answer: Arc<Answering>,
    seen: Arc<Mutex<Vec<Parts>>>,
}

impl Handler {
    /// Answers at once. The closure is given the request, and how many there were including it.
    pub fn new(answer: impl Fn(&Parts, usize) -> Response<Content> + Send + Sync + 'static) -> Self {
        Self::failing(move |head, n| Ok(answer(head, n)))
    }

    /// Answers or fails at once.
    pub fn failing(answer: impl Fn(&Parts, usize) -> Answer + Send + Sync + 'static) -> Self {
        Self::waiting(move |head, n| ready(answer(&head, n)))
    }

    /// Answers when its future does.
    pub fn waiting<F>(answer: impl Fn(Parts, usize) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let answer: Arc<Answering> = Arc::new(move |head, n| answer(head, n).boxed());
        Self { answer, seen: Arc::default() }
    }

    /// Always the same.
    pub fn saying(fields: &'static [(&'static str, &'static str)]) -> Self {
        Self::saying_status(200, fields)
    }

    /// Always the same, with this status.
    pub fn saying_status(status: u16, fields: &'static [(&'static str, &'static str)]) -> Self {
        Self::new(move |_, n| answer(status, fields, format!("answer {n}")))
    }

    /// How many requests it saw.
    pub fn calls(&self) -> usize {
        self.lock().len()
    }

    /// The request that it saw last.
    pub fn last(&self) -> Parts {
        self.lock().last().expect("the handler was called").clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Parts>> {
        self.seen.lock().expect("nobody panics while holding it")
    }
}

impl<B> Service<Request<B>> for Handler {
    type Response = Response<Content>;
    type Error = Failure;
    type Future = BoxFuture<'static, Answer>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let head = request.into_parts().0;
        let n = {
            let mut seen = self.lock();
            seen.push(head.clone());
            seen.len()
        };
        (self.answer)(head, n)
    }
}

/// A handler's response.
pub fn answer(status: u16, fields: &[(&str, &str)], body: impl Into<Bytes>) -> Response<Content> {
    let mut response = Response::new(full(body));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    for (name, value) in fields {
        response.headers_mut().append(field_name(name), value.parse().expect("a value"));
    }
    response
}

/// Content that is ready as a whole.
pub fn full(body: impl Into<Bytes>) -> Content {
    Full::new(body.into()).map_err(|never| match never {}).boxed()
}

/// Content that breaks off.
pub fn broken(begun: &'static str) -> Content {
    let frames = [Ok(Frame::data(Bytes::from_static(begun.as_bytes()))), Err(Failure)];
    StreamBody::new(futures_util::stream::iter(frames)).boxed()
}

/// A request to `example.com`, unless `fields` name another host.
pub fn request(method: &str, target: &str, fields: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::default());
    *request.method_mut() = method.parse().expect("a method");
    *request.uri_mut() = target.parse().expect("a target");
    for (name, value) in fields {
        request.headers_mut().append(field_name(name), value.parse().expect("a value"));
    }
    if request.uri().authority().is_none() && !request.headers().contains_key("host") {
        request.headers_mut().insert("host", "example.com".parse().expect("a host"));
    }
    request
}

pub fn get(target: &str) -> Request<Full<Bytes>> {
    request("GET", target, &[])
}

fn field_name(name: &str) -> http::HeaderName {
    name.parse().expect("a name")
}

/// What came back, read to its end.
#[derive(Clone, Debug)]
pub struct Exchange {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
    /// Empty where the field is missing, as the next.
    pub x_cache: String,
    pub cache_status: String,
    pub outcome: Option<CacheOutcome>,
}

impl Exchange {
    /// Reads a response to its end.
    pub async fn read<B: Body<Data = Bytes>>(response: Response<B>) -> Result<Self, B::Error> {
        let (parts, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        let text = |name: &str| {
            let lines = parts.headers.get_all(name).iter().map(|line| line.to_str().expect("a text"));
            lines.collect::<Vec<_>>().join(", ")
        };
        Ok(Self {
            status: parts.status.as_u16(),
            x_cache: text("x-cache"),
            cache_status: text("cache-status"),
            body: String::from_utf8_lossy(&body).into_owned(),
            outcome: parts.extensions.get().copied(),
            headers: parts.headers,
        })
    }

    /// A field's value; empty where it is missing.
    pub fn field(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a text"))
    }

    pub fn has(&self, name: &str) -> bool {
        self.headers.contains_key(name)
    }
}

/// A cache, its clock, its handle, and the handler inside.
#[derive(Clone)]
pub struct House {
    pub clock: Arc<ManualClock>,
    pub handle: CacheHandle,
    pub handler: Handler,
    pub service: Cache<Handler>,
}

impl House {
    /// As it comes.
    pub fn new(handler: Handler) -> Self {
        Self::with(handler, identity)
    }

    /// A MiB of memory, set up by `setup`.
    pub fn with(handler: Handler, setup: impl FnOnce(CacheLayer) -> CacheLayer) -> Self {
        Self::around(handler, setup(CacheLayer::in_memory(1 << 20)))
    }

    pub fn around(handler: Handler, layer: CacheLayer) -> Self {
        Self::on(Arc::default(), handler, layer)
    }

    /// On a clock that the handler may have as well.
    pub fn on(clock: Arc<ManualClock>, handler: Handler, layer: CacheLayer) -> Self {
        let layer = layer.clock(clock.clone());
        let service = layer.layer(handler.clone());
        Self { clock, handle: layer.handle(), handler, service }
    }

    /// `seconds` pass.
    pub fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    pub async fn get(&self, target: &str) -> Exchange {
        self.exchange(get(target)).await
    }

    /// A GET with these fields.
    pub async fn ask(&self, target: &str, fields: &[(&str, &str)]) -> Exchange {
        self.exchange(request("GET", target, fields)).await
    }

    pub async fn exchange(&self, request: Request<Full<Bytes>>) -> Exchange {
        self.try_exchange(request).await.expect("the handler doesn't fail")
    }

    pub async fn try_exchange(&self, request: Request<Full<Bytes>>) -> Result<Exchange, Failure> {
        let head = EXPLAINED.with_borrow(Option::is_some).then(|| request.clone().map(drop));
        self.note_explanation(head.as_ref()).await;
        let answer = match self.service.clone().oneshot(request).await {
            Ok(response) => Exchange::read(response).await.map_err(|_| Failure),
            Err(failure) => Err(failure),
        };
        self.note_explanation(head.as_ref()).await;
        answer
    }

    async fn note_explanation(&self, head: Option<&Request<()>>) {
        let Some(head) = head else { return };
        let explanation = self.handle.explain(head).await;
        EXPLAINED.with_borrow_mut(|all| all.iter_mut().for_each(|all| all.push(explanation.clone())));
    }
}

thread_local! {
    static EXPLAINED: RefCell<Option<Vec<Explanation>>> = const { RefCell::new(None) };
}

/// From now on each request of this thread is explained before it is made and after it was answered.
pub fn explain_all() {
    EXPLAINED.set(Some(Vec::new()));
}

/// What was explained since.
pub fn explained() -> Vec<Explanation> {
    EXPLAINED.take().unwrap_or_default()
}

/// Lets the cache's own tasks run until they wait for something that the test has in hand. Enough on a single thread, where a task that
/// can run does so within one turn.
pub async fn quiet() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}

/// Waits until work that was given to a thread of its own has made `done` true; fails if it never does.
pub async fn until(done: impl Fn() -> bool) {
    for _ in 0..100_000 {
        if done() {
            return;
        }
        // A round trip to such a thread: what was given before has had its chance.
        let _ = tokio::task::spawn_blocking(std::thread::yield_now).await;
    }
    panic!("what was waited for never came");
}

pub const MINUTE: Duration = Duration::from_secs(60);

pub fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}
