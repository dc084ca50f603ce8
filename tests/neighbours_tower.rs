//! Without axum, which gives all bodies one type: the layers of tower and tower-http fit around the cache and inside of it by their types.

mod support;

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::Full;
use larder::ResponseBody;
use support::neighbours::*;
use tower::{ServiceBuilder, ServiceExt};
use tower_http::ServiceBuilderExt;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::CorsLayer;
use tower_http::request_id::MakeRequestUuid;
use tower_http::timeout::TimeoutLayer;

async fn answer(_: Request<Body>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::from("content that is long enough to be compressed, if somebody wants that")))
}

fn timeout() -> TimeoutLayer {
    TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, Duration::from_secs(60))
}

/// Several of these layers make responses of their own, and so need a body that has a default, which `ResponseBody` has.
#[tokio::test]
async fn layers_of_tower_http_fit_outside() {
    let service = ServiceBuilder::new()
        .set_x_request_id(MakeRequestUuid)
        .propagate_x_request_id()
        .trace_for_http()
        .layer(CatchPanicLayer::new())
        .layer(timeout())
        .layer(CorsLayer::permissive())
        .compression()
        .layer(vouched())
        .service_fn(answer);
    for x_cache in MISS_HIT {
        let got = get_from(&service, "/", &[("origin", "https://one.example")]).await;
        assert_eq!((got.x_cache.as_str(), got.field("access-control-allow-origin")), (x_cache, "*"));
        assert!(got.has("x-request-id"));
    }
    assert_eq!(ResponseBody::<Full<Bytes>>::default().size_hint().exact(), Some(0));
}

#[tokio::test]
async fn layers_of_tower_http_fit_inside() {
    let service = ServiceBuilder::new()
        .layer(vouched())
        .set_x_request_id(MakeRequestUuid)
        .propagate_x_request_id()
        .trace_for_http()
        .layer(CatchPanicLayer::new())
        .compression()
        .layer(timeout())
        .layer(CorsLayer::permissive())
        .service_fn(answer);
    assert_eq!(twice(&service, "/", &[("accept-encoding", "gzip")]).await, MISS_HIT);
}

/// Layers that fail make the cache fail alike: it adds no error of its own and hides none.
#[tokio::test]
async fn errors_of_layers_inside_come_out_as_they_are() {
    let failing = tower::service_fn(|_: Request<Body>| async { Err::<Response<Full<Bytes>>, _>("no luck") });
    let service = ServiceBuilder::new().layer(vouched()).load_shed().concurrency_limit(1).service(failing);
    let error = service.oneshot(Request::new(Body::empty())).await.expect_err("it fails");
    assert_eq!(error.to_string(), "no luck");
}
