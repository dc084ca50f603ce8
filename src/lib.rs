//! HTTP response caching for Tower and axum: a [`Layer`](tower_layer::Layer) that answers from its store what RFC 9111 and the
//! application allow, and asks the service inside for the rest. It is a *shared* cache: what it stores may answer anybody, so by
//! default it declines whatever hints at a single user.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use axum::{Router, body::Body, routing::get};
//! use http::Request;
//! use larder::{CacheLayer, Policy};
//! use tower::ServiceExt;
//!
//! let cache = CacheLayer::in_memory(256 << 20)
//!     .rule("^/products", Policy::shared(Duration::from_secs(60)));
//! let app: Router = Router::new()
//!     .route("/products", get(|| async { "the same for everybody" }))
//!     .layer(cache);
//!
//! let ask = || Request::get("/products").body(Body::empty());
//! assert_eq!(app.clone().oneshot(ask()?).await?.headers()["x-cache"], "MISS");
//! assert_eq!(app.clone().oneshot(ask()?).await?.headers()["x-cache"], "HIT");
//! # Ok(()) }
//! ```
//!
//! # Where to begin
//!
//! - [`CacheLayer`] sets a cache up: its store, its rules, its limits, what it says in headers.
//! - [`Policy`] says for whom the answers of a route are, and for how long they are good.
//! - [`Cached`] lets a handler say the same about one response.
//! - [`CacheHandle`] purges ([`Selector`]: URIs, tags, patterns, partitions), counts and shuts down; [`PurgeSender`] takes events from elsewhere.
//! - [`CacheOutcome`], in the extensions of every response, says what the cache did and why.
//! - [`ObjectCache`] keeps values beside responses, as they are; [`Memoize`] what async functions come to.
//! - [`storage::Storage`] is the seam for a store of one's own.
//!
//! # Ideas
//!
//! - **One decision, made once, as a value.** The branch taken, `X-Cache`, `Cache-Status` (RFC 9211), counters and log events come from the
//!   same enums ([`Outcome`], [`DeclineReason`], [`BypassReason`]).
//! - **Safe by default, useful by declaration.** Without a rule, the cache follows what the handler's fields say, and is stricter than the RFC
//!   where applications that never thought of shared caches get hurt. A policy *declares an audience*, so that caching for
//!   logged-in users is one word and not a leak.
//! - **Only what ended well is stored.** A body streams to the client while it is copied, within limits. The entry exists after a clean end, or not
//!   at all.
//! - **Purges have numbers.** A response whose request went to the handler before a purge is never served from the store after it.
//! - **A hit needs nobody's permission.** The cache is always ready; the service inside is made ready only when it is called.
//! - **No errors of its own.** `type Error = S::Error`; a store that fails costs a miss.
//!
//! # Floors
//!
//! Modules depend only on their own floor and those below.
//!
//! | floor | what | modules |
//! |---|---|---|
//! | 5 | surfaces: what operates a cache | `Config` (feature `config`), `admin` (feature `admin`), `metrics` (feature `metrics`), `simulate` (feature `simulate`) |
//! | 4 | tower: the layer, the service, bodies and futures | [`CacheLayer`], [`Cache`], [`ResponseBody`], [`ResponseFuture`], [`CacheHandle`], [`PurgeSender`] |
//! | 3 | the engine: rules, precedence, purges, fills; values | [`Policy`], [`Stats`], [`report`], `DataCache` (feature `data`) |
//! | 2 | stores | [`storage`], `record` (feature `record`) |
//! | 1 | values | [`CacheKey`], [`StoredResponse`], [`CacheOutcome`], [`Cached`], [`Clock`], [`Selector`] |
//! | 0 | the protocol, as pure functions | [`rfc9111`] |
//!
//! # Features
//!
//! - `axum` (on by default): [`Cached`] as a part of an axum response, [`CacheHandle`] as an argument of handlers, and keys that see the path as it was before any `nest`. A plain
//!   tower or hyper service turns it off with `default-features = false`.
//! - `config`: rules and settings from a TOML file, checked as a whole, and replaced while the cache runs: `Config`,
//!   `CacheLayer::from_config`, `CacheHandle::reload`. Adds the crates `toml` and `strsim`.
//! - `admin`: the admin API as an axum router, `admin::router`: statistics, purges, entries, the configuration of the running cache. Adds
//!   `axum` and `config`, and the crates `serde`, `serde_json`, `subtle` and `form_urlencoded`.
//! - `data`: values beside responses, `DataCache`: what serde can serialise, on the same stores, under the same tags and purges. Adds the crates `serde`, `serde_json` and
//!   `erased-serde`. `msgpack` adds MessagePack, and the crate `rmp-serde`.
//! - `metrics`: counters, gauges and latencies for the recorder that the application has installed, such as Prometheus': the module `metrics`. Adds the facade
//!   crate `metrics`.
//! - `simulate`: what a cache would do with an access log or a trace by a formula: the module `simulate`. Adds no crate.
//! - `record`: stored responses and purges as bytes, for stores outside of the process: the module `record`. Adds the crates `twox-hash` and `hmac`.
//! - `redis`: responses in Redis or Valkey, for several instances: `storage::RedisStore`. Adds `record`, and the crate `redis` without its connections. `redis-tls` adds
//!   `rustls`.
//! - `gzip` (on by default), `brotli`, `zstd`: codings in which stored content may be compressed ([`Compression`]). Add the crates `flate2` with
//!   `zlib-rs`, `brotli`, and `zstd`, which builds a C library.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

// Floor 5: surfaces.
#[cfg(feature = "admin")]
pub mod admin;
#[cfg(feature = "config")]
mod config;
#[cfg(feature = "metrics")]
pub mod metrics;
#[cfg(all(test, shuttle))]
mod models;
#[cfg(feature = "simulate")]
pub mod simulate;

// Floor 4: tower.
mod body;
mod confirmed;
mod decoded;
mod events;
mod explain;
#[cfg(feature = "axum")]
mod extract;
mod fetch;
mod follow;
mod future;
mod handle;
mod layer;
mod outbound;
mod posted;
mod representation;
mod respond;
mod sending;
mod sent_fields;
mod service;
mod standing_in;
mod telling;
mod written;

// Floor 3: the engine.
mod admission;
mod adoption;
mod alike;
mod at_once;
mod background;
mod behind;
mod boarding;
mod budget;
mod cache;
mod coder;
mod coherence;
mod commit;
mod course;
#[cfg(feature = "data")]
pub mod data;
mod description;
mod drops;
mod fill;
mod flight;
mod groups;
mod handover;
mod hit_for_miss;
mod hottest;
mod invalidate;
mod labels;
mod leasing;
mod ledger;
mod live;
mod lookup;
mod memoize;
mod missing;
mod neighbours;
mod objects;
mod pieces;
mod plainly;
mod plan;
mod policy;
mod post;
mod precedence;
mod purge;
mod purged;
mod purging;
#[cfg(feature = "sqlx")]
pub mod queries;
mod query;
pub mod report;
mod route_stats;
mod rules;
mod search;
mod settings;
mod shared_reads;
mod shelves;
mod spans;
mod starts;
mod stats;
mod strategy;
mod stream;
mod sweep;
mod tagging;
mod target;
mod through;
mod tiers;
mod used;
mod wholes;

// Floor 2: stores.
#[cfg(feature = "record")]
pub mod record;
pub mod storage;

// Floor 1: values.
mod byteranges;
mod cached;
mod clock;
mod codec;
mod compression;
mod downstream;
mod error;
mod expiry;
mod fates;
mod form;
mod forwarded;
mod head;
mod histogram;
mod hit_status;
mod kept_head;
mod key;
mod meanings;
mod memories;
mod naming;
mod nearby;
mod outcome;
mod partition;
mod pattern;
mod principal;
mod purge_message;
mod query_rule;
mod read_date;
mod regime;
mod reload;
mod request;
mod response;
mod selector;
mod shared_head;
mod sync;
mod tags;
mod tally;
mod template;
mod upkeep;
mod variance;
mod words;

// Floor 0: the protocol.
pub mod rfc9111;

pub use self::body::ResponseBody;
pub use self::cached::Cached;
pub use self::clock::{Clock, ManualClock, Moment, SystemClock};
pub use self::compression::Compression;
#[cfg(feature = "config")]
pub use self::config::{Config, ConfigError, Problem};
#[cfg(feature = "data")]
pub use self::data::{DataCache, DataError, DataStats};
pub use self::error::{BodyError, RuleError, StorageError};
pub use self::events::{NotSent, PurgeEvent, PurgeSender, PurgeTicket};
pub use self::explain::{
    EarlierSettings, ExplainedFill, ExplainedKey, ExplainedResponse, ExplainedRule, ExplainedVariant, Explanation,
    KeyPart,
};
#[cfg(feature = "axum")]
pub use self::extract::CacheHandleRejection;
pub use self::fates::{Became, Fate, MissCause};
pub use self::future::ResponseFuture;
pub use self::handle::CacheHandle;
pub use self::histogram::Latency;
pub use self::key::CacheKey;
pub use self::layer::CacheLayer;
pub use self::memoize::{Memoize, Memoized};
pub use self::objects::{ObjectCache, ObjectEntry, ObjectStats};
pub use self::outcome::{BypassReason, CacheOutcome, ForwardReason, Outcome, StaleReason};
pub use self::policy::Policy;
pub use self::purge_message::PurgeMessage;
pub use self::purging::{Purge, PurgeFuture};
pub use self::query::QueryBody;
pub use self::reload::{Change, Reload, ReloadError};
pub use self::report::Report;
pub use self::request::{RequestHead, Scheme};
pub use self::response::StoredResponse;
pub use self::rfc9111::freshness::LifetimeSource;
pub use self::rfc9111::reuse::ValidateReason;
pub use self::rfc9111::storability::DeclineReason;
pub use self::route_stats::RouteStats;
pub use self::selector::{DryRun, NotRefreshed, PurgeError, Reach, Receipt, Refreshing, Selector};
pub use self::service::Cache;
pub use self::stats::{CompressionStats, PurgeLogStats, Stats, TierStats};
pub use self::strategy::Strategy;
pub use self::used::UsedTags;

/// The examples in the README, as doc tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// The examples in the reference of the configuration, as doc tests.
#[cfg(all(doctest, feature = "config"))]
#[doc = include_str!("../docs/configuration.md")]
struct Configuration;

/// The examples in the chapter on the report, as doc tests.
#[cfg(doctest)]
#[doc = include_str!("../docs/report.md")]
struct ReportChapter;

/// The examples among the neighbours, as doc tests.
#[cfg(all(doctest, feature = "axum"))]
#[doc = include_str!("../docs/neighbours.md")]
struct NeighboursChapter;

/// The examples among the metrics, as doc tests.
#[cfg(all(doctest, feature = "axum", feature = "metrics"))]
#[doc = include_str!("../docs/metrics.md")]
struct MetricsChapter;

/// The examples in the chapter on Redis, as doc tests.
#[cfg(all(doctest, feature = "redis"))]
#[doc = include_str!("../docs/redis.md")]
struct RedisChapter;

/// The example in the chapter on values, as a doc test.
#[cfg(all(doctest, feature = "data"))]
#[doc = include_str!("../docs/data.md")]
struct DataChapter;

/// The examples in the chapter on objects and functions, as doc tests.
#[cfg(all(doctest, feature = "data"))]
#[doc = include_str!("../docs/objects.md")]
struct ObjectsChapter;

/// The examples in the guide, as doc tests.
#[cfg(all(doctest, feature = "axum"))]
#[doc = include_str!("../docs/guide.md")]
struct Guide;

/// The examples in the chapter on the admin API, as doc tests.
#[cfg(all(doctest, feature = "admin"))]
#[doc = include_str!("../docs/admin.md")]
struct AdminChapter;

/// The example in the chapter on simulations, as a doc test.
#[cfg(all(doctest, feature = "simulate"))]
#[doc = include_str!("../docs/simulate.md")]
struct SimulateChapter;

/// The example in the chapter on records, as a doc test.
#[cfg(all(doctest, feature = "record"))]
#[doc = include_str!("../docs/record.md")]
struct RecordChapter;
