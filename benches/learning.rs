//! What it costs to learn from the handler's answers: a miss, a fetch of what was fetched before, and a bypass, with the report and without it, beside a
//! handler that does nothing but hand out 1 KiB. Interleaved, so that both have the same luck.
//!
//! ```text
//! cargo bench --bench learning
//! ```

#[path = "support/mod.rs"]
mod support;

use std::convert::Infallible;
use std::future::ready;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use larder::{Cache, CacheLayer, Policy};
use support::report::Report;
use support::{median, median_ratio};
use tower::util::BoxCloneSyncService;
use tower::{Layer, ServiceExt, service_fn};

type Handler = BoxCloneSyncService<Request<Full<Bytes>>, Response<Full<Bytes>>, Infallible>;

const ROUNDS: usize = 61;
const CALLS: usize = 2000;

/// What is asked for, and how many keys there are of it.
struct What {
    name: &'static str,
    path: &'static str,
    keys: usize,
}

const KINDS: [What; 4] = [
    What { name: "a miss", path: "/stored/", keys: usize::MAX },
    What { name: "a miss with two query parameters", path: "/stored?sort=name&page=", keys: usize::MAX },
    What { name: "a fetch of what was fetched before", path: "/short/", keys: 1000 },
    What { name: "a bypass", path: "/bypass/", keys: 1000 },
];

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be built");
    let mut report = Report::default();
    runtime.block_on(async {
        for what in KINDS {
            measure(&mut report, what).await;
        }
    });
    report.finish()
}

async fn measure(report: &mut Report, what: What) {
    let services = [service(false), service(true)];
    let mut samples: [Vec<f64>; 2] = Default::default();
    let mut next = 0;
    for round in 0..ROUNDS {
        for place in [round % 2, (round + 1) % 2] {
            let requests: Vec<_> = (next..next + CALLS).map(|n| request(&what, n % what.keys)).collect();
            let start = Instant::now();
            for request in requests {
                let response = services[place].clone().oneshot(request).await.expect("it doesn't fail");
                drop(response.into_body().collect().await);
            }
            samples[place].push(start.elapsed().as_secs_f64() * 1e9 / CALLS as f64);
        }
        next += CALLS;
    }
    let ratio = median_ratio(&samples[1], &samples[0]);
    let [without, with] = samples.map(median);
    report.at_most(&format!("{}, learned from: time, to one that isn't", what.name), 1.25, ratio, " x");
    report.for_information(&format!("{}: medians", what.name), &format!("{without:.0} ns, learned from {with:.0} ns"));
}

fn service(learns: bool) -> Cache<Handler> {
    let content = Bytes::from(vec![b'x'; 1024]);
    let handler = service_fn(move |_: Request<_>| ready(Ok(Response::new(Full::new(content.clone())))));
    CacheLayer::in_memory(64 << 20)
        .rule("^/bypass/", Policy::bypass())
        // Over as soon as it is stored.
        .rule("^/short/", Policy::shared(Duration::from_nanos(1)))
        .otherwise(Policy::shared(Duration::from_secs(3600)))
        .observe_answers(learns)
        .layer(BoxCloneSyncService::new(handler))
}

fn request(what: &What, n: usize) -> Request<Full<Bytes>> {
    let request = Request::get(format!("{}{n}", what.path)).header("host", "example.com");
    let request = request.header("user-agent", "bench").header("accept", "*/*").header("accept-language", "en");
    request.body(Full::default()).expect("a request")
}
