//! [`ObjectCache`]: values of one type in memory, as they are.
//!
//! | what | whose |
//! |---|---|
//! | what is kept, and what may be done with it now | `held.rs` |
//! | where it lies | `shelf.rs` |
//! | a load that many wait for, or that runs behind what is stale | `load.rs` |
//! | words for one call | `entry.rs` |

mod entry;
mod held;
mod key;
mod load;
mod shelf;
mod stats;

use std::borrow::Borrow;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

pub use self::entry::ObjectEntry;
use self::entry::Words;
use self::held::{Held, Loaded, Use};
use self::shelf::{Shelf, Weigher};
pub use self::stats::ObjectStats;
use self::stats::add;
use crate::clock::{Clock, SystemClock};
use crate::live::Live;
use crate::naming::is_data_name;
use crate::purging::Purge;
use crate::selector::Selector;
use crate::settings::Settings;
use crate::storage::MemoryStore;
use crate::storage::backend::Backend;

/// How many objects there may be where nobody says.
const CAPACITY: u64 = 10_000;

/// Values of any type in the memory of this process, as they are: a hit gives an [`Arc`] of what was put there. Clones share what is held.
///
/// It is made [beside](crate::CacheLayer::objects) a cache of responses, with which it is then purged: a purge of a tag drops the pages and what they were made from in one step, and what was
/// loaded before a purge is never given after it, whenever the load ends. Or it is [alone](Self::new).
///
/// What is stale, how often something is loaded, and what is remembered, goes by its setters, which are the defaults for all its entries; [`entry`](Self::entry) says otherwise for one.
///
/// ```
/// # #[derive(Debug, PartialEq)] struct Product { id: u64 }
/// # #[derive(Clone)] struct Db;
/// # impl Db { async fn product(&self, id: u64) -> Result<Product, std::io::Error> { Ok(Product { id }) } }
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let db = Db;
/// use std::time::Duration;
/// use larder::{CacheLayer, Selector};
/// use larder::ObjectCache;
///
/// let cache = CacheLayer::in_memory(64 << 20);
/// let products: ObjectCache<u64, Product> = cache
///     .objects("products")
///     .ttl(Duration::from_secs(60))
///     .stale_while_revalidate(Duration::from_secs(600));
///
/// // However many ask for it at a time, it is loaded once.
/// let product = products
///     .entry(17)
///     .tag("products")
///     .tag("product:17")
///     .get_or_load({
///         let db = db.clone();
///         move || async move { db.product(17).await }
///     })
///     .await?;
/// assert_eq!(products.get(&17), Some(product));
///
/// cache.handle().purge(Selector::Tag("product:17".into())).await?;
/// assert_eq!(products.get(&17), None);
/// # Ok(()) }
/// ```
///
/// # Keys and values
///
/// Purges know an object by its tags and by the name of its cache. What its key is called they don't know: a [pattern](Selector::Glob) that may mean anything that begins with `NAME:`
/// drops all that the cache holds, and so does any regular expression. [`remove`](Self::remove) is for one key, in this process.
///
/// `Hash`, `Eq` and `Drop` of keys and values, and what is given as a weigher, must not come back to the cache: a lock may be held while they run.
pub struct ObjectCache<K, V> {
    shelf: Arc<Shelf<K, V>>,
    words: Words,
}

impl<K, V> Clone for ObjectCache<K, V> {
    fn clone(&self) -> Self {
        Self { shelf: self.shelf.clone(), words: self.words.clone() }
    }
}

impl<K, V> ObjectCache<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// A cache of its own, of at most `capacity` objects.
    ///
    /// # Panics
    /// If the name isn't of 1 to 64 of the signs `a` to `z`, `0` to `9`, `_` and `-`.
    pub fn new(name: &str, capacity: u64) -> Self {
        Self::with_clock(name, capacity, SystemClock::default())
    }

    /// The same by another clock than that of the machine.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    pub fn with_clock(name: &str, capacity: u64, clock: impl Clock) -> Self {
        // A cache without responses. Its store is there for the sweep alone.
        let mut settings = Settings::new(Backend::memory(MemoryStore::new(0)));
        settings.clock = Arc::new(clock);
        settings.observe_answers = false;
        Self::beside(Arc::new(Live::new(settings)), name).capacity(capacity)
    }

    /// A cache beside one of responses.
    pub(crate) fn beside(live: Arc<Live>, name: &str) -> Self {
        assert!(
            is_data_name(name),
            "{name:?} is no name of a cache of objects: it has 1 to 64 of the letters a to z, digits, `_` and `-`"
        );
        Self { shelf: Shelf::beside(live, name, CAPACITY, None), words: Words::default() }
    }

    /// How many objects it holds at most; 10,000 by default. Which of them stay is decided by how often and how recently they were asked for (TinyLFU).
    ///
    /// It makes another cache, which is empty.
    pub fn capacity(self, most: u64) -> Self {
        self.anew(most, None)
    }

    /// What each object weighs, and what all of them may weigh together, say bytes.
    ///
    /// It makes another cache, which is empty.
    ///
    /// ```
    /// use larder::ObjectCache;
    /// let pages = ObjectCache::<u64, String>::new("pages", 0).weigher(64 << 20, |_, page| page.len() as u32);
    /// # drop(pages);
    /// ```
    pub fn weigher(self, most: u64, weigher: impl Fn(&K, &V) -> u32 + Send + Sync + 'static) -> Self {
        self.anew(most, Some(Arc::new(weigher)))
    }

    fn anew(self, most: u64, weigher: Option<Weigher<K, V>>) -> Self {
        let shelf = Shelf::beside(self.shelf.live.clone(), self.name(), most, weigher);
        Self { shelf, words: self.words }
    }

    /// How long an object is fresh, from when it was inserted, or its loading began; one minute by default. With zero nothing is kept.
    pub fn ttl(self, ttl: Duration) -> Self {
        self.say(|words| words.terms.lifetime = ttl)
    }

    /// An object that nobody asks for during this time is over, before its [`ttl`](Self::ttl) is; not so by default, and zero means that.
    pub fn sliding(self, idle: Duration) -> Self {
        self.say(|words| words.terms.sliding = Some(idle))
    }

    /// For how long behind its end an object may still be given while it is loaded anew; zero by default. One load runs for each key, and nobody waits for it.
    pub fn stale_while_revalidate(self, window: Duration) -> Self {
        self.say(|words| words.terms.while_revalidate = window)
    }

    /// For how long behind its end an object is given where its loader fails; zero by default.
    pub fn stale_if_error(self, window: Duration) -> Self {
        self.say(|words| words.terms.if_error = window)
    }

    /// For how long it is remembered that there is [none](ObjectEntry::get_or_load_option); not at all by default.
    pub fn none_ttl(self, ttl: Duration) -> Self {
        self.say(|words| words.none_ttl = Some(ttl))
    }

    /// For how long an error of a loader is given again before the next one is called; not at all by default. Where something [stale](Self::stale_if_error) stands in, for so long no loader is
    /// called either.
    pub fn error_ttl(self, ttl: Duration) -> Self {
        self.say(|words| words.error_ttl = Some(ttl))
    }

    /// A tag of all objects that are kept from now on, beside those of their [entries](ObjectEntry::tag).
    pub fn tag(self, tag: impl Into<String>) -> Self {
        self.say(|words| words.tags.push(tag.into()))
    }

    fn say(mut self, change: impl FnOnce(&mut Words)) -> Self {
        change(&mut self.words);
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.shelf.place.name()
    }

    /// What is fresh under a key.
    pub fn get<Q>(&self, key: &Q) -> Option<Arc<V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let fresh = self.shelf.find(key, self.shelf.now()).and_then(|(held, may)| match &held.loaded {
            Loaded::Value(value) if may == Use::Fresh => Some(value.clone()),
            _ => None,
        });
        match fresh {
            Some(_) => self.shelf.counts.hit(),
            None => self.shelf.counts.miss(),
        }
        fresh
    }

    /// Puts a value under a key, in the place of what is there. What is being loaded for the key isn't kept. Returns the value as it lies there.
    ///
    /// A purge doesn't touch what is inserted after it, though it may have been made before. [`get_or_load`](Self::get_or_load) has no such gap. Beside a store that instances share, what is inserted
    /// before its log was heard for the first time isn't kept.
    pub fn insert(&self, key: K, value: impl Into<Arc<V>>) -> Arc<V> {
        self.put(key, value.into(), &self.words)
    }

    fn put(&self, key: K, value: Arc<V>, words: &Words) -> Arc<V> {
        let shelf = &self.shelf;
        add(&shelf.counts.inserted);
        let mut stamp = shelf.stamp(&key);
        stamp.tags = words.tags(&shelf.state);
        let seal = stamp.clone();
        let held = Arc::new(Held::new(Loaded::Value(value.clone()), shelf.now(), words.terms, stamp));
        shelf.flights.seal_while(&seal, || match words.terms.lifetime.is_zero() {
            true => drop(shelf.take(&key)),
            false => shelf.put(key, held),
        });
        value
    }

    /// Drops what is under a key, and returns it if it was fresh. What is being loaded for the key isn't kept.
    pub fn remove<Q>(&self, key: &Q) -> Option<Arc<V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let shelf = &self.shelf;
        let found = shelf.find(key, shelf.now()).filter(|(_, may)| *may == Use::Fresh);
        shelf.flights.seal_while(&shelf.stamp(key), || drop(shelf.take(key)));
        found.and_then(|(held, _)| match &held.loaded {
            Loaded::Value(value) => Some(value.clone()),
            Loaded::Nothing | Loaded::Failed(_) => None,
        })
    }

    /// What is under a key, or else what `load` brings, which is then kept. Those who ask meanwhile wait for the same load, and get its value or its error.
    ///
    /// If who called it goes away, a task of the cache goes on with the load for those who wait, within the bound on [refreshes](crate::CacheLayer::max_refreshes). If the loader panics, one of
    /// those who wait calls theirs.
    ///
    /// # Errors
    /// That of the loader, where nothing [stands in](Self::stale_if_error). Where different loaders of one key have different types of errors, each gets its own.
    pub async fn get_or_load<E, F, L>(&self, key: &K, load: F) -> Result<Arc<V>, Arc<E>>
    where
        E: Send + Sync + 'static,
        F: FnOnce() -> L + Send,
        L: Future<Output = Result<V, E>> + Send + 'static,
    {
        match self.at_once(key) {
            Some(value) => Ok(value),
            None => self.entry(key.clone()).get_or_load(load).await,
        }
    }

    /// The same without anything that has to be done or told: what most calls come to.
    #[inline]
    pub(crate) fn at_once(&self, key: &K) -> Option<Arc<V>> {
        let (held, may) = self.shelf.find(key, self.shelf.now())?;
        match &held.loaded {
            Loaded::Value(value) if may == Use::Fresh => {
                self.shelf.counts.hit();
                Some(value.clone())
            }
            _ => None,
        }
    }

    /// A key with words for one call.
    pub fn entry(&self, key: K) -> ObjectEntry<'_, K, V> {
        ObjectEntry::new(self, key, self.words.clone())
    }

    /// Purges, as [`CacheHandle::purge`](crate::CacheHandle::purge) does: here, and in all that belongs to the same cache.
    pub fn purge(&self, selector: Selector) -> Purge {
        Purge::new(self.shelf.live.clone(), selector)
    }

    /// What it did so far, and what it holds.
    pub fn stats(&self) -> ObjectStats {
        self.shelf.counts.snapshot(self.shelf.size())
    }
}

impl<K, V> fmt::Debug for ObjectCache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectCache").field("name", &self.shelf.place.name()).finish_non_exhaustive()
    }
}
