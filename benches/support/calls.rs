//! A handler, the requests for it, and calls of a service without a network and without waiting: what hits are measured with.

use std::convert::Infallible;
use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use tower::Service;

/// The content of each path, of so many bytes; a server that answers from constants has as many as there are keys.
pub fn contents(keys: usize, size: usize) -> &'static [Bytes] {
    (0..keys).map(|key| Bytes::from(vec![b'a' + (key % 26) as u8; size])).collect::<Vec<_>>().leak()
}

/// What an application does at the least: ten fields and a body.
pub fn handler(contents: &[Bytes], path: &str) -> Response<Body> {
    let key: usize = path.rsplit('/').next().and_then(|key| key.parse().ok()).unwrap_or(0);
    let mut response = Response::new(Body::from(contents[key % contents.len()].clone()));
    let headers = response.headers_mut();
    for (name, value) in [
        ("content-type", "application/json"),
        ("content-language", "en"),
        ("cache-control", "public, max-age=3600"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("strict-transport-security", "max-age=31536000"),
        ("access-control-allow-origin", "*"),
        ("x-api-version", "2026-01-01"),
        ("vary", "accept-encoding"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// A service under measurement: takes a request, answers, drops the answer.
pub type Call = Box<dyn FnMut(Request<Body>)>;

pub fn calling<S, B>(mut service: S) -> Call
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + 'static,
    S::Future: 'static,
{
    Box::new(move |request| {
        let mut answer = pin!(service.call(request));
        // Hits and this handler are ready at once; what a runtime adds is the same for all.
        match answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(response)) => drop(black_box(response)),
            Poll::Ready(Err(never)) => match never {},
            Poll::Pending => unreachable!("the handler doesn't wait"),
        }
    })
}

/// Requests without end, in an order that no prefetcher guesses.
pub struct Requests {
    keys: usize,
    state: u64,
}

impl Requests {
    pub fn of(keys: usize) -> Self {
        Self { keys, state: 0x9E37_79B9_7F4A_7C15 }
    }
}

impl Iterator for Requests {
    type Item = Request<Body>;

    fn next(&mut self) -> Option<Request<Body>> {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Some(request((self.state >> 33) as usize % self.keys))
    }
}

pub fn request(key: usize) -> Request<Body> {
    Request::get(format!("/products/{key}"))
        .header("host", "shop.example")
        .header("accept", "*/*")
        .header("accept-encoding", "gzip, br")
        .header("user-agent", "bench")
        .body(Body::empty())
        .expect("the parts are valid")
}

/// Asks for each key: it is stored, and read five times: of an entry's first reads more are told to the eviction policy than of later ones, and the next is the eighth.
pub fn warm(call: &mut Call, keys: usize) {
    for _ in 0..6 {
        (0..keys).for_each(|key| call(request(key)));
    }
}
