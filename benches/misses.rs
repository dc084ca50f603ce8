//! A miss of 10 MiB through the example proxy, beside the same proxy without the cache: first byte and throughput. One at a time, interleaved, and with
//! a pause in which the cache ends what it does behind the answer, so that neither pays for the other. Then four at a time without a pause, where
//! hashing competes with sending for the processor's cores.
//!
//! ```text
//! cargo bench --bench misses
//! ```

#[path = "support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::ListenerExt;
use futures_util::stream;
use http::StatusCode;
use http_body_util::BodyExt;
use support::client::Client;
use support::memory::MIB;
use support::proxy::{self, Proxy};
use support::report::Report;
use support::{content, median, median_ratio};

const SIZE: usize = 10 << 20;
const ROUNDS: u64 = 101;
/// At least as long as a content takes to be hashed and committed.
const PAUSE: Duration = Duration::from_millis(40);
/// Of those in parallel: how many, how many each time, and how often.
const PARALLEL: u64 = 4;
const EACH: u64 = 4;
const PARALLEL_ROUNDS: u64 = 7;
/// More than all of them.
const CAPACITY: u64 = 4 << 30;

fn main() -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be built");
    let program = proxy::program();
    let mut report = Report::default();
    runtime.block_on(async {
        let origin = origin().await;
        // Each is alone with its pauses and its connections.
        let options: [&[&str]; 2] = [&["--bare"], &["--capacity", &CAPACITY.to_string()]];
        let proxies = options.map(|options| Proxy::start(&program, origin, options));
        let addresses = [proxies[0].address, proxies[1].address];
        one_at_a_time(&mut report, addresses).await;
        many_at_a_time(&mut report, addresses).await;
    });
    report.finish()
}

async fn one_at_a_time(report: &mut Report, addresses: [SocketAddr; 2]) {
    let mut clients = [Client::http1(addresses[0]).await, Client::http1(addresses[1]).await];
    let mut samples: [[Vec<f64>; 2]; 2] = Default::default();
    for round in 0..ROUNDS {
        // Which goes first changes: what the one leaves in the processor's cache the other finds.
        for place in [round as usize % 2, (round as usize + 1) % 2] {
            let (first, last) = fetch(&mut clients[place], &format!("/one/{round}")).await;
            samples[place][0].push(first.as_secs_f64() * 1e6);
            samples[place][1].push(SIZE as f64 / MIB / last.as_secs_f64());
            tokio::time::sleep(PAUSE).await;
        }
    }
    for round in 0..ROUNDS {
        assert!(clients[1].is_stored(&format!("/one/{round}")).await, "every miss was stored: /one/{round}");
    }
    let [bare, larder] = samples;
    report.at_least("a miss of 10 MiB: throughput, to bare", 0.9, median_ratio(&larder[1], &bare[1]), " x");
    // Within noise: no later than one in four of the bare ones is.
    let (late, first) = (upper_quartile(&bare[0]), median(larder[0].clone()));
    report.at_most("a miss of 10 MiB: first byte, to the bare one's third quartile", late, first, " us");
    let medians = format!(
        "bare {:.0} us, {:.0} MiB/s; larder {first:.0} us, {:.0} MiB/s",
        median(bare[0].clone()),
        median(bare[1].clone()),
        median(larder[1].clone())
    );
    report.for_information(&format!("a miss of 10 MiB: medians of {ROUNDS} rounds"), &medians);
}

async fn many_at_a_time(report: &mut Report, addresses: [SocketAddr; 2]) {
    let mut samples: [Vec<f64>; 2] = Default::default();
    for round in 0..PARALLEL_ROUNDS {
        for place in [round as usize % 2, (round as usize + 1) % 2] {
            let mut clients = Vec::new();
            for _ in 0..PARALLEL {
                clients.push(Client::http1(addresses[place]).await);
            }
            let start = Instant::now();
            let fetching = clients.into_iter().zip(0..).map(|(mut client, n)| {
                tokio::spawn(async move {
                    for key in 0..EACH {
                        fetch(&mut client, &format!("/many/{round}/{n}/{key}")).await;
                    }
                })
            });
            for task in fetching.collect::<Vec<_>>() {
                task.await.expect("no client panics");
            }
            samples[place].push((PARALLEL * EACH) as f64 * SIZE as f64 / MIB / start.elapsed().as_secs_f64());
            tokio::time::sleep(5 * PAUSE).await;
        }
    }
    let ratio = median_ratio(&samples[1], &samples[0]);
    let what = format!("{PARALLEL} misses of 10 MiB at a time, hashing included: throughput, to bare");
    report.for_information(&what, &format!("{ratio:.2} x"));
}

/// Times to the first and to the last byte of the content.
async fn fetch(client: &mut Client, path: &str) -> (Duration, Duration) {
    let start = Instant::now();
    let response = client.get(path, &[]).await.expect("an answer");
    assert_eq!(response.status(), StatusCode::OK);
    let (mut body, mut first, mut read) = (response.into_body(), None, 0);
    while let Some(frame) = body.frame().await {
        let data = frame.expect("a clean end").into_data().unwrap_or_default();
        first = first.or_else(|| (!data.is_empty()).then(|| start.elapsed()));
        read += data.len();
    }
    assert_eq!(read, SIZE, "the whole content arrived");
    (first.expect("there was content"), start.elapsed())
}

fn upper_quartile(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() * 3 / 4]
}

async fn origin() -> SocketAddr {
    let app = Router::new().route("/one/{key}", get(download)).route("/many/{round}/{n}/{key}", get(download));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("a listener has an address");
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

async fn download(extract::OriginalUri(uri): extract::OriginalUri) -> Response {
    let key = uri.path().bytes().fold(0, |key: u64, byte| key.wrapping_mul(31).wrapping_add(byte.into()));
    let chunks = content::chunks(key, SIZE).map(Ok::<_, std::io::Error>);
    let body = Body::from_stream(stream::iter(chunks));
    ([("cache-control", "public, max-age=3600"), ("content-type", "application/octet-stream")], body).into_response()
}
