//! What was planted in the example server on purpose is found by the report: an answer that reads a field and doesn't say so, and a lifetime that is
//! too short for what it is given to.
#![cfg(feature = "axum")]

// The example server, which is an application of its own.
#[allow(dead_code, reason = "only some of its routes are asked")]
#[path = "../examples/server/analytics.rs"]
mod analytics;
#[path = "../examples/server/carrier.rs"]
mod carrier;
#[allow(dead_code)]
#[path = "../examples/server/database.rs"]
mod database;
#[path = "../examples/server/errors.rs"]
mod errors;
#[path = "../examples/server/notices.rs"]
mod notices;
#[path = "../examples/server/opening.rs"]
mod opening;
#[allow(dead_code)]
#[path = "../examples/server/orders.rs"]
mod orders;
#[allow(dead_code)]
#[path = "../examples/server/outbox.rs"]
mod outbox;
#[path = "../examples/server/seed.rs"]
mod seed;
#[path = "../examples/server/shop.rs"]
mod shop;
#[path = "../examples/server/streams.rs"]
mod streams;
mod support;
#[path = "../examples/server/words.rs"]
mod words;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::Request;
use larder::queries::Queries;
use larder::report::{Advice, Verdict};
use larder::{CacheHandle, CacheLayer, DataCache, ManualClock, Policy};
use support::traffic::{Chance, Zipf};
use tower::ServiceExt;

const MINUTE: Duration = Duration::from_secs(60);

/// The shop over a new database, in a folder of its own that goes with it.
struct Planted {
    router: Router,
    folder: PathBuf,
    _close: tokio::sync::watch::Sender<bool>,
}

impl Planted {
    async fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("larder-{name}-{}", std::process::id()));
        let pool = opening::open(&folder.join("shop.db")).await.unwrap_or_else(|problem| panic!("{problem}"));
        let (close, closing) = tokio::sync::watch::channel(false);
        // Nobody listens: what is planted doesn't change.
        let (outbox, _) = outbox::open(pool.clone());
        let queries = Queries::new(DataCache::in_memory(1 << 20));
        let database = database::Database { pool, queries };
        let router = shop::routes(shop::Shop {
            database,
            shipping: carrier::shipping(&DataCache::in_memory(1 << 20)),
            outbox,
            closing,
        });
        Self { router, folder, _close: close }
    }

    /// With a cache whose rule for the leaflets has this lifetime; else as in the example.
    fn cached(&self, leaflet: Duration) -> Cached {
        let clock = Arc::new(ManualClock::default());
        let layer = CacheLayer::in_memory(64 << 20)
            .rule("^/banner$", Policy::shared(MINUTE).shadow())
            .rule("^/leaflet/", Policy::shared(leaflet))
            .clock(clock.clone());
        Cached { app: self.router.clone().layer(layer.clone()), handle: layer.handle(), clock }
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

struct Cached {
    app: Router,
    handle: CacheHandle,
    clock: Arc<ManualClock>,
}

impl Cached {
    async fn send(&self, method: &str, path: &str, fields: &[(&str, &str)], content: String) {
        let mut request = Request::builder().method(method).uri(path).header("host", "shop.example");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let response = self.app.clone().oneshot(request.body(Body::from(content)).expect("a request")).await;
        let response = response.expect("a router doesn't fail");
        assert_eq!(response.status(), 200, "{path}");
        axum::body::to_bytes(response.into_body(), usize::MAX).await.expect("a clean end");
    }

    async fn get(&self, path: &str, fields: &[(&str, &str)]) {
        self.send("GET", path, fields, String::new()).await;
    }

    /// An hour in which somebody asks for a leaflet twice a second, and all prices change once.
    async fn an_hour(&self) {
        let (mut chance, leaflets) = (Chance(11), Zipf::new(200));
        let (mut passed, mut changed) = (Duration::ZERO, false);
        while passed < 60 * MINUTE {
            let wait = Duration::from_millis(chance.wait(500.0));
            passed += wait;
            self.clock.advance(wait);
            if passed > 40 * MINUTE && !changed {
                changed = true;
                for id in 1..=200 {
                    let price = format!("{{\"price_cents\": {}}}", 100 + chance.below(900));
                    self.send("PUT", &format!("/products/{id}"), &[("content-type", "application/json")], price).await;
                }
            }
            self.get(&format!("/leaflet/{}", leaflets.draw(&mut chance) + 1), &[]).await;
        }
    }
}

#[tokio::test]
async fn the_undeclared_vary_of_the_banner_is_found_within_a_thousand_requests() {
    let planted = Planted::new("banner").await;
    let cached = planted.cached(MINUTE);
    let mut chance = Chance(3);
    let mut found = None;
    for n in 1..=1000 {
        let browser = format!("browser {}", chance.below(30));
        let language = *chance.one_of(&["de", "de-AT,de", "en", "en-GB", "fr", "nl"]);
        let fields =
            [("user-agent", browser.as_str()), ("accept-language", language), ("x-request-id", &n.to_string())];
        cached.get("/banner", &fields).await;
        cached.clock.advance(Duration::from_millis(chance.wait(500.0)));
        let shadow = cached.handle.report().routes.into_iter().next().and_then(|route| route.shadow);
        if let Some(Verdict::DependsOn(parts)) = shadow.map(|comparison| comparison.verdict) {
            let names: Vec<_> = parts.iter().map(|evidence| evidence.part.to_string()).collect();
            assert_eq!(names, ["the field accept-language"], "after {n} requests");
            found = found.or(Some(n));
        }
    }
    println!("found after {} requests\n{}", found.expect("it was found"), cached.handle.report());
    assert_eq!(cached.handle.stats().stored, 0);
    let recommendations = cached.handle.report().recommendations;
    assert_eq!(recommendations[0].word, ".key_header(\"accept-language\")");
}

#[tokio::test]
async fn the_lifetime_that_is_advised_for_the_leaflet_does_what_was_predicted() {
    let planted = Planted::new("leaflet").await;
    let before = planted.cached(Duration::from_secs(2));
    before.an_hour().await;
    let report = before.handle.report();
    let advice = report.recommendations.first().map(|recommendation| &recommendation.advice);
    let Some(Advice::LongerTtl { outcome, .. }) = advice else { panic!("{report}") };
    println!("{report}");
    let after = planted.cached(outcome.ttl);
    after.an_hour().await;
    let per_cent = |rate: f64| 100.0 * rate;
    let was = per_cent(before.handle.stats().hit_rate());
    let predicted = per_cent(outcome.hit_rate.expect("there were requests"));
    let real = per_cent(after.handle.stats().hit_rate());
    println!("2 s -> {:?}: hit rate {was:.2} %, predicted {predicted:.2} %, real {real:.2} %", outcome.ttl);
    assert!((predicted - real).abs() <= 2.0 && predicted > was + 10.0);
    assert!(outcome.outdated_share <= 0.01);
}
