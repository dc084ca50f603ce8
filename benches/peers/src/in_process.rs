//! Calls of a service without a network: every cache for Rust services directly around the handler, and around that of an axum `Router`.

use std::convert::Infallible;
use std::fmt::Debug;
use std::future::poll_fn;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Waker};

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::Request;
use http::Response;
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_http_cache::backend::memory::InMemoryBackend;

use crate::content::mixed;
use crate::handler::Handler;
use crate::setup::{Setup, Subject, Values};
use crate::subjects::{App, BoxError, app, axum_response_cache, handler, http_cache, larder, tower_http_cache};

/// What is called.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Case {
    pub subject: Subject,
    pub keys: u64,
    pub router: bool,
    pub values: Values,
    /// Whether each call asks for a key that is new.
    pub misses: bool,
}

/// What came out of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    pub case: Case,
    pub threads: usize,
    /// Of a call, one number for each round.
    pub nanoseconds: Vec<f64>,
    pub allocations: Option<u64>,
}

pub const SUBJECTS: [Subject; 5] = [
    Subject::Bare,
    Subject::Larder,
    Subject::AxumResponseCache,
    Subject::TowerHttpCache,
    Subject::HttpCacheTowerServer,
];
/// Of a hit's content, and of a miss's.
const HIT: usize = 10 << 10;
const MISS: usize = 1 << 10;

/// All comparisons: in each, the subjects, the bare one first.
pub fn comparisons() -> Vec<Vec<Case>> {
    let mut all = Vec::new();
    for router in [false, true] {
        for keys in [1, 10_000] {
            for values in [Values::Owned, Values::Static] {
                let case = |subject| Case { subject, keys, router, values, misses: false };
                all.push(SUBJECTS.map(case).into());
            }
        }
        let case = |subject| Case { subject, keys: 1, router, values: Values::Owned, misses: true };
        all.push(SUBJECTS.map(case).into());
    }
    all
}

/// One call: takes a request, answers, and reads the answer.
pub type Call = Box<dyn FnMut(Request) + Send>;

impl Case {
    /// As above its table.
    pub fn title(&self) -> String {
        let Self { keys, router, values, misses, .. } = self;
        let place = if *router { "in a Router" } else { "directly" };
        let values = if *values == Values::Owned { "owned" } else { "static" };
        match (misses, keys) {
            (true, _) => format!("Misses in process, {place}, 1 KiB with an ETag, {values} field values"),
            (false, 1) => format!("Hits in process, {place}, 10 KiB, one key, {values} field values"),
            (false, _) => format!("Hits in process, {place}, 10 KiB, 10,000 keys, {values} field values"),
        }
    }

    fn setup(&self) -> Setup {
        let size = if self.misses { MISS } else { HIT };
        let setup = Setup { values: self.values, ..Setup::of(self.subject, size, self.keys) };
        // The bare handler does the same work, and has its contents ready; stores are full before long.
        if self.misses {
            Setup { working: true, rendered: false, capacity: 64 << 20, entries: 20_000, ..setup }
        } else {
            setup
        }
    }

    /// What the thread asks for.
    pub fn requests(&self, thread: u64) -> Requests {
        Requests { keys: (!self.misses).then_some(self.keys), state: (thread + 1) << 40 }
    }

    /// As many calls as there are threads, all of one cache, which has every key. Within a runtime.
    pub fn calls(&self, threads: usize) -> Vec<Call> {
        let setup = self.setup();
        let handler = handler(&setup);
        let service = service_fn(move |request: Request| {
            let handler: Handler = handler.clone();
            async move { Ok::<_, Infallible>(handler.answer(request).await) }
        });
        if self.router {
            let app: Result<App, BoxError> = Handle::current().block_on(app(&setup));
            let app: Router = app.unwrap_or_else(|error| panic!("{}: {error}", self.subject.id())).router;
            // As `axum::serve` does once for all requests.
            return many(app.with_state(()), self.keys, threads);
        }
        match self.subject {
            Subject::Larder => {
                let cache = larder(&setup).expect("memory needs nothing else");
                many(cache.layer(service), self.keys, threads)
            }
            Subject::AxumResponseCache => {
                let answering = service.map_response(|response: Response<_>| response.map(Body::new));
                many(axum_response_cache(&setup).layer(answering), self.keys, threads)
            }
            Subject::TowerHttpCache => {
                let cache = tower_http_cache(&setup, InMemoryBackend::new(setup.entries)).layer;
                many(cache.layer(service), self.keys, threads)
            }
            Subject::HttpCacheTowerServer => many(http_cache(&setup).layer(service), self.keys, threads),
            _ => many(service, self.keys, threads),
        }
    }
}

fn many<S, B>(mut service: S, keys: u64, threads: usize) -> Vec<Call>
where
    S: Service<Request, Response = Response<B>, Error: Debug, Future: Send> + Clone + Send + 'static,
    B: HttpBody<Error: Debug> + Send + 'static,
{
    let runtime = Handle::current();
    for key in 0..keys {
        runtime.block_on(answer(&mut service, request(key)));
        // What stores behind the answer may do so.
        runtime.block_on(tokio::task::yield_now());
    }
    (0..threads).map(|_| one(service.clone())).collect()
}

fn one<S, B>(mut service: S) -> Call
where
    S: Service<Request, Response = Response<B>, Error: Debug, Future: Send> + Send + 'static,
    B: HttpBody<Error: Debug> + Send + 'static,
{
    Box::new(move |request| {
        let mut answer = pin!(answer(&mut service, request));
        // Hits and the handler don't wait. Where a lock is taken, another thread may be asked for more than once.
        while answer.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {}
    })
}

/// To the end of the content: a client that leaves before would be work of another kind.
async fn answer<S, B>(service: &mut S, request: Request)
where
    S: Service<Request, Response = Response<B>, Error: Debug>,
    B: HttpBody<Error: Debug>,
{
    poll_fn(|context| service.poll_ready(context)).await.expect("it is ready");
    let mut body = pin!(service.call(request).await.expect("an answer").into_body());
    while let Some(frame) = body.as_mut().frame().await {
        drop(black_box(frame.expect("a part of the content")));
    }
}

fn request(key: u64) -> Request {
    Request::get(format!("/item/{key}"))
        .header("host", "shop.example")
        .header("accept", "*/*")
        .header("user-agent", "bench")
        .body(Body::empty())
        .expect("the parts are valid")
}

/// Requests without end: for keys in an order that no prefetcher guesses, or each for a new one.
pub struct Requests {
    keys: Option<u64>,
    state: u64,
}

impl Iterator for Requests {
    type Item = Request;

    fn next(&mut self) -> Option<Request> {
        let Some(keys) = self.keys else {
            self.state += 1;
            return Some(request(self.state));
        };
        self.state = mixed(self.state);
        Some(request(self.state % keys))
    }
}
