//! Answers, for `scripts/instructions` to count the instructions of: this program only makes the calls of one case, and callgrind counts what [`measured`]
//! does.
//!
//! ```text
//! scripts/instructions                                 # counts, and compares with benches/instructions/counts.toml
//! cd benches/instructions && cargo run --release       # says which cases there are, and how many calls of each are made
//! cd benches/instructions && cargo run --release hit_1 # makes the calls of one
//! ```

#[path = "../../support/calls.rs"]
mod calls;
#[path = "../../support/product.rs"]
mod product;

use std::convert::Infallible;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use calls::{Call, Requests, calling, contents, handler, request, warm};
use http::{HeaderValue, Request, Response, header};
use larder::{CacheLayer, DataCache, ObjectCache, Policy};
use product::Product;
use tower::{Layer, service_fn};

const MANY: usize = 10_000;

/// Of a content. It isn't copied by a hit, so its size changes nothing, but how long it takes to store as many.
const BODY: usize = 1 << 10;

/// How many calls are counted: enough for what is done once in 64 hits to have its share, and few enough for callgrind.
const CALLS: usize = 2_048;

/// What is counted, by the name under which the file has it. Bare is without a cache: where that has grown as well, it isn't larder's doing.
const CASES: [(&str, fn()); 13] = [
    ("bare_1", || hits(Place::Direct.bare(1), 1)),
    ("bare_10000", || hits(Place::Direct.bare(MANY), MANY)),
    ("bare_router_1", || hits(Place::Router.bare(1), 1)),
    ("bare_router_10000", || hits(Place::Router.bare(MANY), MANY)),
    ("hit_1", || hits(Place::Direct.larder(1), 1)),
    ("hit_10000", || hits(Place::Direct.larder(MANY), MANY)),
    ("hit_router_1", || hits(Place::Router.larder(1), 1)),
    ("hit_router_10000", || hits(Place::Router.larder(MANY), MANY)),
    ("not_modified_1", || calls(Place::Direct.larder(1), 1, Requests::of(1).map(conditional))),
    // Of keys that nobody has asked for.
    ("miss", || calls(Place::Direct.larder(1), 1, (1..).map(request))),
    // Of 1 KiB, as JSON; bare is without a cache as well.
    ("bare_value_1", bare_value),
    ("value_1", value),
    ("object_1", object),
];

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime of one thread can be built");
    let _in_runtime = runtime.enter();
    let wanted = std::env::args().nth(1);
    match CASES.iter().find(|(name, _)| wanted.as_deref() == Some(name)) {
        Some((_, run)) => run(),
        None => CASES.iter().for_each(|(name, _)| println!("{name} {CALLS}")),
    }
}

#[derive(Clone, Copy)]
enum Place {
    Direct,
    Router,
}

impl Place {
    fn bare(self, keys: usize) -> Call {
        let contents = contents(keys, BODY);
        match self {
            Self::Direct => calling(service_fn(move |request| direct(contents, request))),
            // As `axum::serve` does once for all requests.
            Self::Router => calling(router(contents).with_state(())),
        }
    }

    fn larder(self, keys: usize) -> Call {
        let contents = contents(keys, BODY);
        let cache = CacheLayer::in_memory(1 << 30).rule("^/products/", Policy::shared(Duration::from_secs(3600)));
        match self {
            Self::Direct => calling(cache.layer(service_fn(move |request| direct(contents, request)))),
            Self::Router => calling(router(contents).layer(cache).with_state(())),
        }
    }
}

async fn direct(contents: &[Bytes], request: Request<Body>) -> Result<Response<Body>, Infallible> {
    Ok(tagged(contents, request.uri().path()))
}

fn router(contents: &'static [Bytes]) -> Router {
    Router::new().route("/products/{id}", get(move |uri: http::Uri| async move { tagged(contents, uri.path()) }))
}

/// With an entity tag of the handler's: to hash content is a cost of its own.
fn tagged(contents: &[Bytes], path: &str) -> Response<Body> {
    let mut response = handler(contents, path);
    response.headers_mut().insert(header::ETAG, HeaderValue::from_static("\"1\""));
    response
}

/// The client has it already, whatever it is.
fn conditional(mut request: Request<Body>) -> Request<Body> {
    request.headers_mut().insert(header::IF_NONE_MATCH, HeaderValue::from_static("*"));
    request
}

fn hits(call: Call, keys: usize) {
    calls(call, keys, Requests::of(keys));
}

fn calls(mut call: Call, keys: usize, requests: impl Iterator<Item = Request<Body>>) {
    warm(&mut call, keys);
    let mut requests: Vec<_> = requests.take(CALLS).collect();
    measured(&mut || requests.drain(..).for_each(&mut call));
}

fn bare_value() {
    let bytes = serde_json::to_vec(&Product::of_1_kib()).expect("it is serialised");
    often(|| drop(black_box(serde_json::from_slice::<Product>(black_box(&bytes)))));
}

fn value() {
    let values = DataCache::in_memory(1 << 20).ttl(Duration::from_secs(3600));
    at_once(values.set("17", &Product::of_1_kib())).expect("it is serialised");
    often(|| drop(black_box(at_once(values.get::<Product>(black_box("17"))).expect("it is there"))));
}

fn object() {
    let objects = ObjectCache::<u64, u64>::new("objects", 1).ttl(Duration::from_secs(3600));
    objects.insert(17, 17);
    often(|| drop(black_box(objects.get(black_box(&17)).expect("it is there"))));
}

fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(ready) => ready,
        Poll::Pending => unreachable!("nobody is waited for"),
    }
}

/// Counted from the ninth call on, as [`warm`] has it for hits of responses.
fn often(call: impl Fn()) {
    (0..8).for_each(|_| call());
    measured(&mut || (0..CALLS).for_each(|_| call()));
}

/// What callgrind counts, by this name.
#[inline(never)]
fn measured(calls: &mut dyn FnMut()) {
    calls();
}
