//! [`CacheLayer`]: how a cache is set up and put around a service.

use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderName;
use http_body::Body;
use tower_layer::Layer;

use crate::cache::CacheCore;
use crate::clock::Clock;
use crate::compression::Compression;
#[cfg(feature = "data")]
use crate::data::DataCache;
use crate::error::RuleError;
use crate::handle::CacheHandle;
use crate::live::Live;
use crate::objects::ObjectCache;
use crate::policy::Policy;
use crate::query::{QueryBody, QueryReader};
use crate::rules::{Rule, check};
use crate::service::Cache;
use crate::settings::Settings;
use crate::storage::backend::Backend;
use crate::storage::{Guard, MemoryStore, Storage};

/// A [`Layer`] that answers requests from a cache.
///
/// All clones share one cache, and so does everything they are put around. Set it up first: a setter makes another layer, with an empty cache
/// of its own.
///
/// ```
/// use std::time::Duration;
/// use larder::{CacheLayer, Policy};
///
/// let minute = Duration::from_secs(60);
/// let cache = CacheLayer::in_memory(256 << 20)
///     .rule("^/api/analytics/", Policy::shared(5 * minute).stale_while_revalidate(minute))
///     .rule("^/checkout/", Policy::bypass())
///     .otherwise(Policy::from_origin());
/// # #[cfg(feature = "axum")] {
/// let app: axum::Router = axum::Router::new().layer(cache.clone());
/// # }
/// let handle = cache.handle();
/// # drop(handle);
/// ```
#[derive(Clone)]
#[must_use]
pub struct CacheLayer {
    /// Shared, for axum clones a layer whenever it builds a route.
    settings: Arc<Settings>,
    /// Made when the layer is first used.
    live: Arc<OnceLock<Arc<Live>>>,
}

impl CacheLayer {
    /// A cache in the memory of this process, of at most `capacity` bytes with keys and heads counted.
    pub fn in_memory(capacity: u64) -> Self {
        Self::with_memory(MemoryStore::new(capacity))
    }

    /// A cache in memory with a store that was set up by hand, for another eviction or a bound on the number of entries.
    pub fn with_memory(store: MemoryStore) -> Self {
        Self::over(Backend::memory(store))
    }

    /// A cache over any store. One store serves one cache.
    ///
    /// # Panics
    /// Not here, but when a second cache is made over the store: by a setter after the layer was used.
    pub fn with_storage(storage: impl Storage) -> Self {
        Self::over(Backend::other(storage))
    }

    /// A cache in memory before any store, which may be far away and shared by several instances: what is fresh in memory is sent from there, and all else is asked of the other
    /// store, from which what is fresh is copied to memory. What a handler answers goes to both. Memory needs room for what is asked for often, and no more.
    ///
    /// What instances that share a store purge reaches the memory of all of them over its [purge log](Storage::purge_log). Where a store has none, it should be shared by nobody, or
    /// [`near_ttl`](Self::near_ttl) be set: then that is how long a purge, or a write, elsewhere may go unnoticed here.
    ///
    /// A store that is slow or down costs misses at most: then what is in memory is still sent.
    ///
    /// # Panics
    /// As [`with_storage`](Self::with_storage).
    pub fn tiered(near: MemoryStore, far: impl Storage) -> Self {
        Self::over(Backend::tiered(near, far))
    }

    /// How the store is guarded, if it isn't the one in memory: how long it may take, and when it isn't asked any more. See [`Guard`] for what goes without saying.
    ///
    /// ```
    /// use std::time::Duration;
    /// use larder::CacheLayer;
    /// use larder::storage::{Guard, Storage};
    ///
    /// fn cache(storage: impl Storage) -> CacheLayer {
    ///     CacheLayer::with_storage(storage).store_guard(Guard::default().deadline(Duration::from_millis(10)))
    /// }
    /// ```
    pub fn store_guard(self, guard: Guard) -> Self {
        self.set(|settings| settings.backend.guard_by(guard))
    }

    fn over(backend: Backend) -> Self {
        Self { settings: Arc::new(Settings::new(backend)), live: Arc::default() }
    }

    /// The policy of the paths that `pattern`, a regular expression, matches. Of several rules that match, the first one given counts. The
    /// path is the one that the client sent, before any `nest`; a pattern is not anchored unless it begins with `^`.
    ///
    /// # Panics
    /// If the rule can't be used, as axum does for a bad route. [`try_rule`](Self::try_rule) returns the error.
    pub fn rule(self, pattern: &str, policy: Policy) -> Self {
        match self.try_rule(pattern, policy) {
            Ok(layer) => layer,
            Err(error) => panic!("{error}"),
        }
    }

    /// Like [`rule`](Self::rule).
    ///
    /// # Errors
    /// [`RuleError`] if the pattern is no regular expression, or the policy names a status that is never stored, has a number out of its range, or a tag that refers
    /// to what the pattern doesn't capture.
    pub fn try_rule(self, pattern: &str, policy: Policy) -> Result<Self, RuleError> {
        let rule = Rule::new(pattern, policy)?;
        Ok(self.set(|settings| settings.rules.push(rule)))
    }

    /// The policy of paths that no rule matches; [`Policy::from_origin`] by default.
    ///
    /// # Panics
    /// If the policy can't be used, as [`rule`](Self::rule) does.
    pub fn otherwise(self, policy: Policy) -> Self {
        if let Err(error) = check("otherwise", None, &policy) {
            panic!("{error}");
        }
        self.set(|settings| settings.otherwise = policy)
    }

    /// RFC 9111 to the letter where a safe default is stricter: error statuses with explicit freshness, responses with `Set-Cookie` (cookie
    /// included) and such that vary on `Cookie` are stored, lifetimes are guessed from `Last-Modified`, variants are
    /// normalised as far as the RFC allows, and stale responses are sent while the handler can't be reached.
    ///
    /// For reverse proxies in front of origins that mean what they say. In front of an application that never thought of shared
    /// caches, the safe defaults are there for a reason.
    pub fn strict_rfc(self) -> Self {
        self.set(Settings::follow_the_letter)
    }

    /// The name under which the cache speaks in `Cache-Status`; `larder` by default.
    ///
    /// # Panics
    /// If it is no token (RFC 9110 §5.6.2): letters, digits, and a few signs such as `-` and `.`, beginning with a letter.
    pub fn name(self, name: &str) -> Self {
        assert!(
            is_cache_name(name),
            "the cache's name {name:?} must be a token that begins with a letter, such as `larder`"
        );
        self.set(|settings| settings.switches.name = name.into())
    }

    /// Whether `X-Cache: HIT | MISS | STALE | REVALIDATED | BYPASS` goes out; on by default.
    pub fn x_cache(self, on: bool) -> Self {
        self.set(|settings| settings.switches.x_cache = on)
    }

    /// Whether `X-Cache-Age`, the age in seconds, goes out with stored responses; on by default.
    pub fn x_cache_age(self, on: bool) -> Self {
        self.set(|settings| settings.switches.x_cache_age = on)
    }

    /// Whether `Age` goes out with stored responses; on by default, as RFC 9111 §5.1 requires.
    pub fn age(self, on: bool) -> Self {
        self.set(|settings| settings.switches.age = on)
    }

    /// Whether `Cache-Status` (RFC 9211) goes out; on by default.
    pub fn cache_status(self, on: bool) -> Self {
        self.set(|settings| settings.switches.cache_status = on)
    }

    /// Whether stale responses carry the old `Warning: 110`; off by default.
    pub fn warning(self, on: bool) -> Self {
        self.set(|settings| settings.switches.warning = on)
    }

    /// Whether responses carry a [`CacheOutcome`](crate::CacheOutcome) in their extensions; on by default.
    pub fn outcome_extension(self, on: bool) -> Self {
        self.set(|settings| settings.outcome_extension = on)
    }

    /// The targeted fields (RFC 9213) that this cache listens to, the first that is present being the one that counts;
    /// `CDN-Cache-Control` by default.
    pub fn targeted_fields(self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        self.set(|settings| settings.targets = names.into_iter().collect())
    }

    /// Whether a lifetime may be guessed from `Last-Modified` where nobody states one (RFC 9111 §4.2.2); off by default.
    pub fn heuristics(self, on: bool) -> Self {
        self.set(|settings| settings.heuristics = on)
    }

    /// Whether responses may say with `No-Vary-Search` (draft-ietf-httpbis-no-vary-search) which differences between queries mean nothing; on by
    /// default. The stored response then answers requests whose query differs in nothing else.
    ///
    /// ```
    /// # #[cfg(feature = "axum")] {
    /// async fn landing() -> impl axum::response::IntoResponse {
    ///     ([("no-vary-search", r#"params=("utm_source" "utm_medium")"#), ("cache-control", "max-age=60")], "welcome")
    /// }
    /// # drop(axum::Router::<()>::new().route("/", axum::routing::get(landing)));
    /// # }
    /// ```
    pub fn no_vary_search(self, on: bool) -> Self {
        self.set(|settings| settings.no_vary_search = on)
    }

    /// Looks up QUERY (RFC 10008), and stores what answers it, as with GET; by default QUERY is forwarded. The key then has a digest of the request's content, its
    /// `Content-Type`, `Content-Encoding` and `Content-Language`.
    ///
    /// For that the content is read before the store is asked, up to [`max_query_content`](Self::max_query_content); a QUERY with more, with trailers, or
    /// with a body that breaks off goes to the handler as it is. The handler gets the same content in any case. `rebuild` makes of it a body of the type that
    /// the handler takes; requests with bodies of another type are forwarded.
    ///
    /// ```
    /// # #[cfg(feature = "axum")] {
    /// use axum::body::Body;
    /// use larder::CacheLayer;
    /// let cache = CacheLayer::in_memory(256 << 20).cache_query_method(Body::new);
    /// # drop(cache);
    /// # }
    /// ```
    pub fn cache_query_method<B>(self, rebuild: impl Fn(QueryBody<B>) -> B + Send + Sync + 'static) -> Self
    where
        B: Body<Data = Bytes, Error: Send> + Send + 'static,
    {
        self.set(|settings| settings.query = Some(QueryReader::new(rebuild)))
    }

    /// The largest content of a QUERY that is read to look it up, in bytes; 64 KiB by default. One with more bypasses.
    pub fn max_query_content(self, bytes: usize) -> Self {
        self.set(|settings| settings.max_query_content = bytes)
    }

    /// A field that is never stored, beside those that belong to one connection or one exchange.
    pub fn never_store(self, name: HeaderName) -> Self {
        self.set(|settings| settings.never_stored.push(name))
    }

    /// Stores and replays a field that by default is taken as of one exchange: request ids, `Server-Timing`, `traceparent` and their kin.
    pub fn replay(self, name: HeaderName) -> Self {
        self.set(|settings| settings.replayed.push(name))
    }

    /// Whether clients get `Cache-Tag` and `Surrogate-Key`, the fields by which handlers name [tags](crate::Cached::tag); off by default, since they tell what an
    /// answer was made from. For a cache in front of this one that goes by them. Without it they are taken off every answer, stored or not.
    pub fn forward_tags(self, on: bool) -> Self {
        self.set(|settings| settings.forward_tags = on)
    }

    /// Whether responses bear the tags of what they are made from ([`UsedTags`](crate::UsedTags)); on by default. It costs nothing where nobody asks for the handle. What is stored
    /// already stays as it is.
    pub fn propagate_tags(self, on: bool) -> Self {
        self.set(|settings| settings.propagate_tags = on)
    }

    /// The largest content that is stored, in bytes; 10 MiB by default. Larger ones pass through.
    pub fn max_body_size(self, bytes: usize) -> Self {
        self.set(|settings| settings.max_body_size = bytes)
    }

    /// The largest head that is stored, in bytes; 32 KiB by default.
    pub fn max_head_size(self, bytes: usize) -> Self {
        self.set(|settings| settings.max_head_size = bytes)
    }

    /// The bytes that all responses on their way into the store may hold together; 64 MiB by default. What would exceed it passes through. Where the length
    /// isn't known, 64 KiB at most of what is still to come count as well.
    pub fn max_fill_bytes(self, bytes: usize) -> Self {
        self.set(|settings| settings.max_fill_bytes = bytes)
    }

    /// The most variants of one URI (RFC 9111 §4.1); 16 by default. Of more, the oldest go.
    pub fn max_variants(self, most: usize) -> Self {
        self.set(|settings| settings.max_variants = most.max(1))
    }

    /// The most refreshes that run behind stale answers at a time, with those answers of handlers that came too late, and fills whose client
    /// left; 64 by default. Beyond, stale answers go out without a refresh, and what a client left isn't stored.
    pub fn max_refreshes(self, most: usize) -> Self {
        self.set(|settings| settings.max_refreshes = most)
    }

    /// The most requests that may wait for the answers to others at a time, for all keys together; 65,536 by default. Beyond, a stale response stands in
    /// where one may, and else the cache answers 503 itself, with `Retry-After`.
    pub fn max_waiting(self, most: usize) -> Self {
        self.set(|settings| settings.max_waiting = most)
    }

    /// How long a request waits for the head of the answer to another one before it goes to the handler on its own; 30 seconds by default. Where a
    /// stale response may stand in, the rule's time limit counts ([`Policy::fill_timeout`], [`Strategy::NetworkFirst`](crate::Strategy::NetworkFirst)).
    pub fn max_wait(self, longest: Duration) -> Self {
        self.set(|settings| settings.max_wait = longest)
    }

    /// How long after a request went to the handler others still wait for its answer; 10 seconds by default. Who comes later while there is none
    /// goes to the handler as well, and those after it wait for that one.
    pub fn max_fill_age(self, longest: Duration) -> Self {
        self.set(|settings| settings.max_fill_age = longest)
    }

    /// How long what is in memory before [another store](Self::tiered) may be sent before that is asked once more; for as long as it is fresh by default. Then it is sent on only if that store
    /// has the same. Without effect where there is one store.
    pub fn near_ttl(self, longest: Duration) -> Self {
        self.set(|settings| settings.near_ttl = Some(longest))
    }

    /// How long a request waits for the answer to one of another instance, where instances share a store that has [leases](crate::storage::Lease); one second by default. Then it goes to the
    /// handler as well. With zero nobody waits.
    pub fn max_lease_wait(self, longest: Duration) -> Self {
        self.set(|settings| settings.max_lease_wait = longest)
    }

    /// The key under which principals are digested ([`Policy::per`]), to be the same random bytes on all instances that share a store, and secret: who knows it can find out for whom
    /// something is stored by trying names.
    ///
    /// By default each process makes its own. Then what is for one principal is kept in memory only, where the store is shared: nobody else could find it there, nor erase it later. Without
    /// memory before the store it isn't kept at all ([`DeclineReason::PartitionSecret`](crate::DeclineReason::PartitionSecret)).
    ///
    /// It can't be changed while the cache runs.
    pub fn partition_secret(self, secret: [u8; 32]) -> Self {
        self.set(|settings| settings.partition_secret = Some(secret))
    }

    /// How long after a purge was acknowledged on another instance this one may still serve what it touched, where the store has a [log of purges](Storage::purge_log); 1 second by default. Where the log has been
    /// silent for longer, nothing that is stored is used, and requests go to the handler ([`ForwardReason::Distrusted`](crate::ForwardReason::Distrusted)).
    ///
    /// The log is asked four times within it, and four times a second at least. Less than a tenth of a second asks more of a network than it may give: then hits come and go.
    pub fn staleness_bound(self, longest: Duration) -> Self {
        self.set(|settings| settings.staleness_bound = longest)
    }

    /// The largest content that gets an `ETag` already on the first answer, if the handler has it ready as a whole, in bytes; 16 KiB by default. Larger
    /// ones get it from the first hit on.
    pub fn eager_etag_size(self, bytes: usize) -> Self {
        self.set(|settings| settings.eager_etag_size = bytes)
    }

    /// How stored content is compressed; not at all by default. See [`Compression`].
    ///
    /// Handlers are then asked for content without coding (`Accept-Encoding: identity`), so that one stored response serves every client: a compressing
    /// layer inside has nothing to do any more, and one outside compresses what isn't stored.
    pub fn compress(self, compression: Compression) -> Self {
        self.set(|settings| settings.compression = compression)
    }

    /// Whether the cache learns from the answers of the handler what [`CacheHandle::report`] then says; it does by default. A hit costs nothing for it, a
    /// miss some hashing (`cargo bench --bench learning`), and the memory is 6 MiB at most.
    pub fn observe_answers(self, on: bool) -> Self {
        self.set(|settings| settings.observe_answers = on)
    }

    /// Where time comes from; the machine's clocks by default.
    pub fn clock(self, clock: impl Clock) -> Self {
        self.set(|settings| settings.clock = Arc::new(clock))
    }

    /// A hold on the cache, to purge it, to look at its counters, and to shut it down.
    pub fn handle(&self) -> CacheHandle {
        CacheHandle::new(self.live())
    }

    /// Values of any type in the memory of this process, which are purged together with the responses: see [`ObjectCache`]. Caches of different names have nothing in common, nor have two of one
    /// name, but that a purge by that name touches both.
    ///
    /// To be called when the layer is set up: a setter makes another layer.
    ///
    /// ```
    /// use larder::CacheLayer;
    /// use larder::ObjectCache;
    /// let cache = CacheLayer::in_memory(64 << 20);
    /// let sessions: ObjectCache<String, Vec<u8>> = cache.objects("sessions").capacity(100_000);
    /// # drop(sessions);
    /// ```
    ///
    /// # Panics
    /// If the name isn't of 1 to 64 of the signs `a` to `z`, `0` to `9`, `_` and `-`.
    pub fn objects<K, V>(&self, name: &str) -> ObjectCache<K, V>
    where
        K: Hash + Eq + Clone + Send + Sync + 'static,
        V: Send + Sync + 'static,
    {
        ObjectCache::beside(self.live(), name)
    }

    /// A cache of values beside the responses, under a name: in the same store, under the same tags and purges. All that are made under one name share what they store. It
    /// makes the layer's cache, so set that up first. Where a configuration has a `[data.NAME]`, it begins with what that says.
    ///
    /// ```
    /// use std::time::Duration;
    /// let cache = larder::CacheLayer::in_memory(64 << 20);
    /// let products = cache.data("products").ttl(Duration::from_secs(300));
    /// # drop(products);
    /// ```
    ///
    /// # Panics
    /// If the name isn't of 1 to 64 of the letters `a` to `z`, digits, `_` and `-`.
    #[cfg(feature = "data")]
    pub fn data(&self, name: &str) -> DataCache {
        DataCache::new(self.live(), name)
    }

    fn set(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.settings));
        if let Some(left) = self.live.get() {
            warn_of_what_is_left(&left.load());
        }
        self.live = Arc::default();
        self
    }

    fn live(&self) -> Arc<Live> {
        self.live.get_or_init(|| Arc::new(Live::new(Settings::clone(&self.settings)))).clone()
    }

    /// What was set so far.
    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// This layer with all settings replaced.
    #[cfg(feature = "config")]
    pub(crate) fn with_settings(self, settings: Settings) -> Self {
        self.set(|all| *all = settings)
    }
}

/// What was made beside the cache of a layer stays with that one, when the layer is set up further: purges of the new one don't reach it.
fn warn_of_what_is_left(core: &CacheCore) {
    let names = core.shelves.all().into_iter().map(|shelf| shelf.name().to_owned());
    #[cfg(feature = "data")]
    let names = names.chain(core.data.all().into_iter().map(|cache| cache.name.to_string()));
    let names: Vec<String> = names.collect();
    if !names.is_empty() {
        tracing::warn!(target: "larder", ?names, "a setter after `data` or `objects` made a cache without them: what that purges stays in them; set the layer up first");
    }
}

/// Whether the cache may speak under this name: a token (RFC 9110 §5.6.2) of the letters that `Cache-Status` has for one.
pub(crate) fn is_cache_name(name: &str) -> bool {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"-._~!#$%&'*+^`|:/".contains(&b);
    name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.bytes().all(token)
}

impl<S> Layer<S> for CacheLayer {
    type Service = Cache<S>;

    fn layer(&self, inner: S) -> Cache<S> {
        Cache::new(inner, self.live())
    }
}

impl fmt::Debug for CacheLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheLayer").finish_non_exhaustive()
    }
}
