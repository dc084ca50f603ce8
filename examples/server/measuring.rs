//! `/metrics`: what the cache counts, for Prometheus. It stands outside of the cache, so that asking for it isn't counted.

use std::sync::Arc;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use larder::CacheHandle;
use larder::metrics::{DURATION_BUCKETS, Publisher, describe};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};

pub fn routes(cache: &CacheHandle) -> Result<Router, BuildError> {
    let seconds = Matcher::Suffix("_seconds".into());
    let prometheus = PrometheusBuilder::new().set_buckets_for_metric(seconds, &DURATION_BUCKETS)?.install_recorder()?;
    describe();
    let publisher = Arc::new(Publisher::new(cache));
    // From now on latencies are recorded.
    publisher.publish();
    let render = move || {
        publisher.publish();
        prometheus.run_upkeep();
        prometheus.render()
    };
    let metrics = get(async move || ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], render()));
    Ok(Router::new().route("/metrics", metrics))
}
