//! [`DataCache`]: values beside responses. What serde can serialise is kept on the same stores, held against the same purges and found by the same instances; a purge of a
//! tag drops pages and the values behind them in one step.
//!
//! A value is kept as a response is: its bytes are the content, its serialiser the `Content-Type`, its time to live the freshness lifetime. So all that is known of
//! responses holds for values, and what is here is only what is of their own:
//!
//! | what | where |
//! |---|---|
//! | under which key, which no request has | `key.rs` |
//! | as which bytes | `serializer.rs`, `value.rs` |
//! | on which terms: of the cache, and of one call | `words.rs`, `entry.rs` |
//! | found again | `reading.rs` |
//! | in memory of their own, where that is wanted | `own.rs` |
//! | written and deleted, on all instances | `writing.rs` |
//! | changed by many at the same time | `atomic.rs`, `changing.rs`, `turns.rs` |
//! | loaded by one for all who ask | `loading.rs`, `job.rs`, `leasing.rs`, `failures.rs` |
//! | explained | `explained.rs` |
//! | counted | `stats.rs` |

mod atomic;
mod changing;
mod defaults;
mod entry;
mod error;
mod explained;
mod failures;
mod job;
mod judged;
mod key;
mod leasing;
mod loading;
mod many;
mod own;
mod reading;
mod serializer;
mod stats;
mod turns;
mod value;
mod words;
mod writing;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use self::defaults::Defaults;
#[cfg(feature = "config")]
pub(crate) use self::defaults::Serialized;
pub use self::entry::Entry;
pub use self::error::DataError;
pub use self::explained::{ValueExplanation, ValueState};
pub(crate) use self::job::Loaded;
pub(crate) use self::key::{LONGEST, digest, is_name};
#[cfg(feature = "config")]
pub(crate) use self::own::OwnMemory;
use self::serializer::Chosen;
#[cfg(feature = "msgpack")]
pub use self::serializer::MessagePack;
pub use self::serializer::{Json, Place, Serializer, Value};
pub use self::stats::DataStats;
pub(crate) use self::stats::{Counters, Data};
use self::value::Regimes;
use self::words::Words;
use crate::cache::CacheCore;
use crate::compression::Compression;
use crate::key::CacheKey;
use crate::live::Live;
use crate::regime::Regime;
use crate::settings::Settings;
use crate::storage::backend::Backend;
use crate::storage::{MemoryStore, Storage};

/// A cache of values, under a name. Clones share all they have; setters make another one over the same store, and what is stored under the same name is shared.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use std::time::Duration;
/// use larder::{CacheLayer, Selector};
///
/// #[derive(serde::Serialize, serde::Deserialize, Debug, PartialEq)]
/// struct Product { id: u64, name: String }
/// # async fn from_database(id: u64) -> Result<Product, std::io::Error> { Ok(Product { id, name: "jar".into() }) }
///
/// let cache = CacheLayer::in_memory(64 << 20);                    // of responses
/// let products = cache.data("products").ttl(Duration::from_secs(300));
///
/// // Loaded once, however many ask at the same time.
/// let jar = products.entry("17").tag("product:17").get_or_load(|| from_database(17)).await?;
/// assert_eq!(products.get::<Product>("17").await, Some(jar));
///
/// // Pages and values go together.
/// cache.handle().purge(Selector::Tag("product:17".into())).await?;
/// assert_eq!(products.get::<Product>("17").await, None);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
///
/// Keys are texts or bytes of any length. Purges by pattern see the value `17` of the cache `products` as `products:17`, so a pattern that isn't tied to a slash may mean values as well as paths.
#[derive(Clone)]
#[must_use]
pub struct DataCache {
    pub(crate) live: Arc<Live>,
    shape: Arc<Shape>,
}

/// What is set on it.
#[derive(Clone)]
struct Shape {
    name: Arc<str>,
    words: Words,
    tags: Vec<Arc<str>>,
    serializer: Chosen,
    regimes: Regimes,
    compression: Option<Compression>,
    max_value_size: Option<usize>,
    counters: Arc<Counters>,
}

/// The name of a cache that is made without one.
const NAMELESS: &str = "default";

impl DataCache {
    /// A cache of values alone, without responses, in the memory of this process: of at most `capacity` bytes, with keys counted. [`CacheLayer::data`](crate::CacheLayer::data) makes
    /// one that shares its store with responses.
    pub fn in_memory(capacity: u64) -> Self {
        Self::over(Backend::memory(MemoryStore::new(capacity)))
    }

    /// A cache of values alone, over any store. One store serves one cache.
    pub fn with_storage(storage: impl Storage) -> Self {
        Self::over(Backend::other(storage))
    }

    /// A cache of values alone, in memory before any store, as [`CacheLayer::tiered`](crate::CacheLayer::tiered) has it.
    pub fn tiered(near: MemoryStore, far: impl Storage) -> Self {
        Self::over(Backend::tiered(near, far))
    }

    fn over(backend: Backend) -> Self {
        Self::new(Arc::new(Live::new(Settings::new(backend))), NAMELESS)
    }

    /// # Panics
    /// If no cache can have this name.
    pub(crate) fn new(live: Arc<Live>, name: &str) -> Self {
        assert!(
            is_name(name),
            "{name:?} is no name of a data cache: it has 1 to 64 of the letters a to z, digits, `_` and `-`"
        );
        let counters = live.load().data.counters(name);
        Self::counted(live, name, counters)
    }

    /// The cache of this name for who deletes something of it, whether there is such a cache or not: a name that somebody made up is remembered nowhere.
    #[cfg(feature = "admin")]
    pub(crate) fn of_any_name(live: Arc<Live>, name: &str) -> Self {
        let counters = live.load().data.counters_if_used(name);
        Self::counted(live, name, counters)
    }

    fn counted(live: Arc<Live>, name: &str, counters: Arc<Counters>) -> Self {
        let defaults = live.load().settings.data.get(name).cloned().unwrap_or_default();
        let serializer = defaults.serializer.chosen();
        let shape = Shape {
            name: counters.name.clone(),
            words: defaults.words(),
            tags: defaults.tags.iter().map(|tag| tag.as_str().into()).collect(),
            regimes: Regimes::of(&serializer),
            serializer,
            compression: None,
            max_value_size: defaults.max_value_size,
            counters,
        };
        Self { live, shape: Arc::new(shape) }
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.shape.name
    }

    /// How long values are good for from when they were set, or from when their loading began; a minute by default.
    pub fn ttl(self, ttl: Duration) -> Self {
        self.set_up(|shape| shape.words.ttl = Some(ttl))
    }

    /// Values end when nobody asks for them for so long, and, where there is a [`ttl`](Self::ttl), at the end of that in any case; not so by default, and zero means that.
    ///
    /// Uses are known to one process: what is read from a store that instances share, and isn't in memory here, ends so long after it was set.
    pub fn sliding(self, idle: Duration) -> Self {
        self.set_up(|shape| shape.words.sliding = Some(idle))
    }

    /// For how long past their end [`get_or_load`](Self::get_or_load) still gives values at once, while they are loaded anew behind that; zero by default.
    pub fn stale_while_revalidate(self, window: Duration) -> Self {
        self.set_up(|shape| shape.words.stale_while_revalidate = window)
    }

    /// For how long past their end values stand in for an error of their loader; zero by default.
    pub fn stale_if_error(self, window: Duration) -> Self {
        self.set_up(|shape| shape.words.stale_if_error = window)
    }

    /// For how long it is remembered that there is no value, where a loader says so ([`Entry::get_or_load_option`]); not at all by default.
    pub fn none_ttl(self, ttl: Duration) -> Self {
        self.set_up(|shape| shape.words.none_ttl = Some(ttl))
    }

    /// For how long the error of a loader is given to all who ask, in this process and without loading again; not at all by default. What waits for a load
    /// shares its error in any case.
    pub fn error_ttl(self, ttl: Duration) -> Self {
        self.set_up(|shape| shape.words.error_ttl = Some(ttl))
    }

    /// A tag that all values bear that are stored through this, beside those of their own: a purge of the tag, or of what it is a part of (`a` of `a:b`), drops them.
    pub fn tag(self, tag: impl Into<String>) -> Self {
        let tag = tag.into();
        self.set_up(|shape| shape.tags.push(tag.into()))
    }

    /// How values become bytes; [`Json`] by default. What another one has stored is a miss.
    ///
    /// # Panics
    /// If its [`content_type`](Serializer::content_type) can't be the value of a field.
    pub fn serializer(self, serializer: impl Serializer) -> Self {
        let serializer = Chosen::new(serializer);
        let regimes = Regimes::of(&serializer);
        self.set_up(|shape| (shape.serializer, shape.regimes) = (serializer, regimes))
    }

    /// Whether and how values are compressed before they are stored; as responses are ([`CacheLayer::compress`](crate::CacheLayer::compress)) by default. Those that aren't worth it stay as they are; each
    /// use of one that was is paid for by decoding it.
    pub fn compress(self, compression: Compression) -> Self {
        self.set_up(|shape| shape.compression = Some(compression))
    }

    /// How many bytes a value may take; as many as the content of a response ([`CacheLayer::max_body_size`](crate::CacheLayer::max_body_size)) by default.
    pub fn max_value_size(self, bytes: usize) -> Self {
        self.set_up(|shape| shape.max_value_size = Some(bytes))
    }

    fn set_up(mut self, change: impl FnOnce(&mut Shape)) -> Self {
        change(Arc::make_mut(&mut self.shape));
        self
    }

    /// One value of it, for words that count for one call only.
    pub fn entry(&self, key: impl AsRef<[u8]>) -> Entry<'_> {
        self.entry_of(self.key(key.as_ref()))
    }

    /// The value, if there is one that is fresh. What can't be read as a `T` is none, and counted; so is what can't be had since a store failed.
    pub async fn get<T: DeserializeOwned>(&self, key: impl AsRef<[u8]>) -> Option<T> {
        self.read(&self.key(key.as_ref()), &[]).await
    }

    /// Whether there is a value that is fresh.
    pub async fn exists(&self, key: impl AsRef<[u8]>) -> bool {
        self.has(&self.key(key.as_ref())).await
    }

    /// Stores a value in the place of any other. What is being loaded under the key isn't stored any more, and where instances share a store, none of them gives what was there before, once it has heard
    /// of this (within [`CacheLayer::staleness_bound`](crate::CacheLayer::staleness_bound)).
    ///
    /// # Errors
    /// If the value can't be serialised, or is too large. A store that fails is no error.
    pub fn set<T: Serialize + ?Sized>(
        &self,
        key: impl AsRef<[u8]>,
        value: &T,
    ) -> impl Future<Output = Result<(), DataError>> + Send {
        self.entry(key).set(value)
    }

    /// Drops a value, and what is being loaded under the key; tells whether anything was stored.
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> bool {
        self.remove(&[self.key(key.as_ref())]).await > 0
    }

    /// The value; where there is none that is fresh, `load` is asked for it, and what it gives is stored. However many ask at the same time, in this process or in those that share a store with
    /// [leases](crate::storage::Storage::lease), one loads for all; if it fails or panics, another one does.
    ///
    /// It is polled in the task that asks; if that goes away, the rest is done behind it.
    ///
    /// # Errors
    /// That of `load`, shared by all who waited for it.
    pub async fn get_or_load<T, E, F, L>(&self, key: impl AsRef<[u8]>, load: F) -> Result<T, Arc<E>>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
        E: Send + Sync + 'static,
        F: FnOnce() -> L + Send,
        L: Future<Output = Result<T, E>> + Send + 'static,
    {
        self.entry(key).get_or_load(load).await
    }

    /// What was done so far under this name.
    pub fn stats(&self) -> DataStats {
        self.counters().snapshot()
    }
}

/// What the parts of this module, and those above it, work with.
impl DataCache {
    pub(crate) fn key(&self, key: &[u8]) -> CacheKey {
        key::key_of(&self.shape.name, key)
    }

    pub(crate) fn entry_of(&self, key: CacheKey) -> Entry<'_> {
        Entry::new(self, key)
    }

    pub(crate) fn core(&self) -> Arc<CacheCore> {
        self.live.load_full()
    }

    pub(crate) fn counters(&self) -> &Arc<Counters> {
        &self.shape.counters
    }

    pub(crate) fn regime(&self, kind: value::Kind) -> Regime {
        self.shape.regimes.regime(kind)
    }
}

impl fmt::Debug for DataCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataCache").field("name", &self.name()).finish_non_exhaustive()
    }
}
