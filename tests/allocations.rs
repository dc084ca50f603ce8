//! A hit asks the allocator for what it hands out and nothing beside: the two parts of a header map, and the extensions where the outcome is wanted in them.

use std::convert::Infallible;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::body::Body;
use http::{HeaderValue, Request, Response, header};
use larder::{CacheLayer, CacheOutcome, Outcome, Policy};
use tower::{Layer, Service, service_fn};

/// What a layer outside of the cache left in a request.
#[derive(Clone)]
struct Session;

fn cache(with_outcome: bool) -> CacheLayer {
    let layer = CacheLayer::in_memory(1 << 20).rule("^/", Policy::shared(Duration::from_secs(60)));
    layer.outcome_extension(with_outcome)
}

async fn handler(_: Request<Body>) -> Result<Response<Body>, Infallible> {
    let mut response = Response::new(Body::from("content"));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

fn request(with_session: bool) -> Request<Body> {
    let mut request = Request::get("/page").header("host", "shop.example").body(Body::empty()).expect("it is one");
    if with_session {
        request.extensions_mut().insert(Session);
    }
    request
}

/// The answer, which is there without waiting.
fn ask<S: Service<Request<Body>, Error = Infallible>>(service: &mut S, request: Request<Body>) -> S::Response {
    match pin!(service.call(request)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(answer)) => answer,
        _ => panic!("it should be there at once"),
    }
}

#[tokio::test]
async fn a_hit_allocates_only_what_it_hands_out() {
    // (outcome in the extensions, extensions in the request, the most that a hit allocates)
    let rows = [(false, false, 2), (false, true, 2), (true, false, 5), (true, true, 3)];
    for (with_outcome, with_session, most) in rows {
        let mut service = cache(with_outcome).layer(service_fn(handler));
        (0..3).for_each(|_| drop(ask(&mut service, request(with_session))));
        let asked = request(with_session);
        let mut answer = None;
        let counted = allocation_counter::measure(|| answer = Some(ask(&mut service, asked)));
        assert!(counted.count_total <= most, "{with_outcome} {with_session}: {}", counted.count_total);
        let answer = answer.expect("it was asked");
        assert_eq!(answer.headers()["x-cache"], "HIT");
        let outcome = answer.extensions().get::<CacheOutcome>().map(|cache| cache.outcome);
        assert_eq!(outcome, with_outcome.then_some(Outcome::Hit));
        assert!(answer.extensions().get::<Session>().is_none(), "what was the request's goes with it");
    }
}
