//! [`CacheHandle`]: the application's hold on a cache, to purge, to look at its counters, and to shut it down.

use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

#[cfg(feature = "data")]
use crate::data::DataCache;
use crate::layer::CacheLayer;
use crate::live::Live;
use crate::objects::ObjectCache;
use crate::purging::Purge;
use crate::reload::{Reload, ReloadError};
use crate::report::Report;
use crate::route_stats::RouteStats;
use crate::selector::Selector;
use crate::stats::{Gauges, Stats};
use crate::through::Through;

/// A hold on a cache; clones hold the same one.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use larder::{CacheLayer, Selector};
/// let layer = CacheLayer::in_memory(64 << 20);
/// let handle = layer.handle();
/// handle.purge(Selector::Uri("/products/1".into())).await?;
/// println!("hit rate {:.2}", handle.stats().hit_rate());
/// # Ok::<(), larder::PurgeError>(()) }).unwrap();
/// ```
#[derive(Clone)]
pub struct CacheHandle {
    pub(crate) live: Arc<Live>,
}

impl CacheHandle {
    pub(crate) fn new(live: Arc<Live>) -> Self {
        Self { live }
    }

    /// Purges: what is returned is awaited to make it so, or given more words first. When it has returned, nothing that was asked from a handler before the call is served
    /// any more, not even by a fill that is still on its way; after a [soft](Purge::soft) one, not as fresh.
    ///
    /// It takes effect at once, however much it touches. Memory is given back behind it, by a walk through the store that the runtime gets to between requests.
    ///
    /// # Errors
    /// [`PurgeError::Uri`](crate::PurgeError::Uri), [`Tag`](crate::PurgeError::Tag) or [`Pattern`](crate::PurgeError::Pattern) if the selector is none; nothing was purged then. [`Log`](crate::PurgeError::Log) if other
    /// instances can't be told. [`Storage`](crate::PurgeError::Storage) if the store couldn't
    /// give the memory back; the purge has taken effect all the same.
    pub fn purge(&self, selector: Selector) -> Purge {
        Purge::new(self.live.clone(), selector)
    }

    /// Prefers what is stored in this process, for so long from now, to the [bound](CacheLayer::staleness_bound) on what others have purged: for an operator who knows that the store which instances share is
    /// out of reach, and that the handler can't bear all requests meanwhile. What this instance itself purged isn't served all the same. `Duration::ZERO` ends it.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # let handle = larder::CacheLayer::in_memory(1 << 20).handle();
    /// handle.serve_near_for(Duration::from_secs(600));
    /// ```
    pub fn serve_near_for(&self, duration: Duration) {
        let core = self.live.load();
        core.coherence.prefer_near(core.now(), duration);
        tracing::warn!(target: "larder", "what is stored in this process is served for {duration:?}, whatever other instances purge");
    }

    /// A cache of values beside the responses, under a name. See [`CacheLayer::data`].
    ///
    /// # Panics
    /// If the name isn't of 1 to 64 of the letters `a` to `z`, digits, `_` and `-`.
    #[cfg(feature = "data")]
    pub fn data(&self, name: &str) -> DataCache {
        DataCache::new(self.live.clone(), name)
    }

    /// What the cache did so far, and what its store holds.
    pub fn stats(&self) -> Stats {
        let cache = self.live.load();
        let now = Gauges {
            purges_remembered: cache.purges.live() as u64,
            partitions: cache.partitions.len() as u64,
            waiting: cache.flights.waiting() as u64,
            fills_in_flight: cache.flights.len() as u64,
            fill_bytes: cache.budget.held() as u64,
            guard: cache.settings.backend.guard_stats(),
            purge_log: cache.coherence.stats(&cache.purges, cache.now()),
        };
        cache.counters.snapshot(&cache.ledger, cache.usage(), now)
    }

    /// Values of any type beside the responses, as [`CacheLayer::objects`] has them.
    ///
    /// # Panics
    /// If the name isn't of 1 to 64 of the signs `a` to `z`, `0` to `9`, `_` and `-`.
    pub fn objects<K, V>(&self, name: &str) -> ObjectCache<K, V>
    where
        K: Hash + Eq + Clone + Send + Sync + 'static,
        V: Send + Sync + 'static,
    {
        ObjectCache::beside(self.live.clone(), name)
    }

    /// What each route did so far, in the order of the rules, and last what `otherwise` says. A rule is known by its pattern, so it counts on through changes
    /// of the settings. What rules counted that aren't there any more is in the sums of [`stats`](Self::stats).
    ///
    /// ```
    /// # use std::time::Duration;
    /// use larder::{CacheLayer, Policy};
    /// let cache = CacheLayer::in_memory(64 << 20).rule("^/news/", Policy::shared(Duration::from_secs(60)));
    /// for route in cache.handle().route_stats() {
    ///     let pattern = route.pattern.as_deref().unwrap_or("otherwise");
    ///     println!("{pattern}: {} requests, hit rate {:.2}", route.requests(), route.hit_rate());
    ///     println!("  99 of 100 misses took no longer than {:?}", route.miss_latency.p99);
    /// }
    /// ```
    pub fn route_stats(&self) -> Vec<RouteStats> {
        self.live.load().ledger.current().iter().map(RouteStats::of).collect()
    }

    /// What the handler's answers have taught about the rules: lifetimes that are too short, routes that answer the same again and again and aren't
    /// cached, parameters and fields that make keys many for nothing, what a low hit rate consists of, and whether the rules in
    /// [shadow](crate::Policy::shadow) are safe. Nothing is recommended before there is enough evidence; `docs/report.md` has the formulas.
    ///
    /// It counts from when the cache was made, or the rule was changed last.
    ///
    /// ```
    /// let layer = larder::CacheLayer::in_memory(64 << 20);
    /// println!("{}", layer.handle().report());
    /// ```
    pub fn report(&self) -> Report {
        self.live.load_full().report()
    }

    /// Ends the cache's own work: no refresh starts any more; fills whose client left and refreshes that are running are waited for until `deadline`
    /// and then abandoned. After that nothing more is stored, and no task of the cache is left. Requests are still answered. Returns whether all work
    /// ended in time.
    pub async fn shutdown(&self, deadline: Duration) -> bool {
        let cache = self.live.load_full();
        cache.close();
        let ended = tokio::time::timeout(deadline, cache.tasks.wait()).await.is_ok();
        cache.abandon.cancel();
        cache.tasks.wait().await;
        // It holds the service, and that holds this cache.
        cache.through.lock().unwrap_or_else(PoisonError::into_inner).take();
        ended
    }

    /// Gives the cache a way to make requests itself, for [refresh purges](crate::Purge::refresh): `service` is the whole application with the cache in it, as clients reach it, and
    /// `empty` makes the body of a request without content. The cache holds the service until it is [shut down](Self::shutdown); a later one takes its place.
    ///
    /// The requests come as from a client without credentials, so a layer that asks for some answers in the handler's place, and nothing is refreshed.
    ///
    /// ```
    /// # #[cfg(feature = "axum")] {
    /// use axum::{Router, body::Body, routing::get};
    /// let cache = larder::CacheLayer::in_memory(64 << 20);
    /// let app: Router = Router::new().route("/", get(|| async { "hello" })).layer(cache.clone());
    /// cache.handle().refresh_through(app.clone(), Body::empty);
    /// # }
    /// ```
    pub fn refresh_through<S, B, R>(&self, service: S, empty: impl Fn() -> B + Send + Sync + 'static)
    where
        S: Service<Request<B>, Response = Response<R>, Future: Send> + Clone + Send + 'static,
        B: Send + 'static,
        R: Body<Data: Send> + Send + 'static,
    {
        let through = Through::new(service, empty);
        *self.live.load().through.lock().unwrap_or_else(PoisonError::into_inner) = Some(through);
    }

    /// Sets the running cache up as `layer` is: its rules, limits, header switches and all else take the place of what counted so far. A request
    /// sees the old settings or the new ones, never some of both. What is stored stays, and is held against the new settings on every look-up:
    ///
    /// - A route that bypasses now, or has another key, doesn't find it.
    /// - A route whose answers are for others now, or were made from requests that it wouldn't make them from any more (`strip_credentials`,
    ///   `drop_set_cookie`, `ignore_cookies`), doesn't use it.
    /// - Where rule and settings would store it on other terms today, the smaller of both lifetimes and stale windows counts; where they wouldn't store
    ///   it at all, it isn't used.
    /// - Limits are for what is stored from now on.
    ///
    /// The store and the clock stay those of the running cache. What changed is returned, and logged at `INFO`. With the feature `config`,
    /// `CacheHandle::reload` takes the settings from a file.
    ///
    /// ```
    /// use std::time::Duration;
    /// use larder::{CacheLayer, Policy};
    /// let rules = |ttl| CacheLayer::in_memory(64 << 20).rule("^/news/", Policy::shared(Duration::from_secs(ttl)));
    /// let cache = rules(60);
    /// let handle = cache.handle();
    /// let reload = handle.reconfigure(&rules(30))?;
    /// assert_eq!(reload.to_string(), "rule \"^/news/\": ttl 60s -> 30s");
    /// # Ok::<(), larder::ReloadError>(())
    /// ```
    ///
    /// # Errors
    /// [`ReloadError`] if `layer` has another store, or one of another size; nothing is changed then.
    pub fn reconfigure(&self, layer: &CacheLayer) -> Result<Reload, ReloadError> {
        self.live.reload(|_| Ok(layer.settings().clone()))
    }
}

#[cfg(feature = "data")]
impl DataCache {
    /// A hold on the cache that the values are in, with all that may be beside them: to look at its counters, and to shut it down.
    pub fn handle(&self) -> CacheHandle {
        CacheHandle::new(self.live.clone())
    }

    /// Purges, as [`CacheHandle::purge`] does: what a tag or a pattern means, values and responses alike.
    pub fn purge(&self, selector: Selector) -> Purge {
        Purge::new(self.live.clone(), selector)
    }
}

impl fmt::Debug for CacheHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheHandle").finish_non_exhaustive()
    }
}
