//! When the first byte of a streamed 10 MiB miss arrives, and the last, over HTTP on a real socket, with the layer and without. Interleaved;
//! medians and their ratio. What the cache does behind the answer has ended before the next request is sent.
//!
//! ```text
//! cargo bench --bench first_byte
//! ```

#[path = "support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use futures_util::stream;
use larder::{CacheLayer, Policy};
use support::report::Report;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const CHUNK: usize = 64 << 10;
const CHUNKS: usize = 160;
const ROUNDS: usize = 101;

fn main() -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be built");
    let mut report = Report::default();
    runtime.block_on(measure(&mut report));
    report.finish()
}

async fn download() -> Body {
    let chunk = Bytes::from(vec![b'x'; CHUNK]);
    let chunks = (0..CHUNKS).map(move |_| Ok::<_, std::io::Error>(chunk.clone()));
    Body::from_stream(stream::iter(chunks))
}

async fn serve(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("a listener has an address");
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// Times to the first and to the last byte of the content.
async fn fetch(address: SocketAddr, path: &str) -> (Duration, Duration) {
    let mut stream = TcpStream::connect(address).await.expect("the server listens");
    let request = format!("GET {path} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n");
    let start = Instant::now();
    stream.write_all(request.as_bytes()).await.expect("the server reads");
    let mut buffer = vec![0; 256 << 10];
    let (mut read, mut first) = (0, None);
    loop {
        let n = stream.read(&mut buffer).await.expect("the server writes");
        if n == 0 {
            break;
        }
        // A head of a few hundred bytes may come on its own; the content is what counts.
        read += n;
        if first.is_none() && (read > 1024 || buffer[..n].windows(5).any(|w| w == b"\r\n\r\n1")) {
            first = Some(start.elapsed());
        }
    }
    assert!(read > CHUNK * CHUNKS, "the whole content arrived");
    (first.expect("there was content"), start.elapsed())
}

async fn measure(report: &mut Report) {
    let bare = Router::new().route("/{n}", get(download));
    // Larger than all rounds together, so that every miss is stored.
    let cache = CacheLayer::in_memory(4 << 30).rule("^/", Policy::shared(Duration::from_secs(3600)));
    let addresses = [serve(bare.clone()).await, serve(bare.layer(cache.clone())).await];
    let mut samples: [[Vec<f64>; 2]; 2] = Default::default();
    for round in 0..ROUNDS {
        for (address, samples) in addresses.iter().zip(&mut samples) {
            let (first, last) = fetch(*address, &format!("/{round}")).await;
            samples[0].push(first.as_secs_f64() * 1e6);
            samples[1].push(last.as_secs_f64() * 1e6);
        }
        // Large bodies are stored behind the answer. The bare handler isn't to pay for that.
        while cache.handle().stats().stored <= round as u64 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let stats = cache.handle().stats();
    assert_eq!((stats.stored, stats.hits), (ROUNDS as u64, 0), "every request was a miss that was stored");
    println!("a miss of {} MiB, medians of {ROUNDS} interleaved rounds:", (CHUNK * CHUNKS) >> 20);
    for (n, what) in ["first byte", "last byte"].iter().enumerate() {
        let [(bare, low, high), (larder, ..)] = [quartiles(&samples[0][n]), quartiles(&samples[1][n])];
        println!(
            "  {what:<10} bare {bare:>8.0} us (quartiles {low:.0} to {high:.0})  larder {larder:>8.0} us  ratio {:.2}",
            larder / bare
        );
        let (what, unit) = (format!("a miss of 10 MiB, in process: {what}, to the bare one's third quartile"), " us");
        if n == 0 {
            report.at_most(&what, high, larder, unit)
        } else {
            report.for_information(&what, &format!("{:.2} x", larder / high))
        }
    }
}

/// Median, first and third quartile.
fn quartiles(samples: &[f64]) -> (f64, f64, f64) {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |part: usize| sorted[sorted.len() * part / 4];
    (at(2), at(1), at(3))
}
