//! [`Entry`]: one value of a cache, with words that count for one call.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::loading::{Perhaps, Sure};
use super::words::Wanted;
use super::{DataCache, DataError};
use crate::key::CacheKey;

/// One value of a [`DataCache`], and what is said of it for this call, over what the cache says of all.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use std::time::Duration;
/// let rates = larder::DataCache::in_memory(1 << 20);
/// let rate = rates
///     .entry("EUR:USD")
///     .ttl(Duration::from_secs(10))
///     .stale_if_error(Duration::from_secs(600))
///     .tag("currency:EUR")
///     .get_or_load(|| async { Ok::<f64, std::io::Error>(1.08) })
///     .await?;
/// assert_eq!(rate, 1.08);
/// # Ok::<(), std::sync::Arc<std::io::Error>>(()) }).unwrap();
/// ```
#[derive(Clone)]
#[must_use = "nothing is done with an entry before it is asked for something"]
pub struct Entry<'a> {
    pub(crate) cache: &'a DataCache,
    pub(crate) wanted: Wanted,
}

impl<'a> Entry<'a> {
    pub(super) fn new(cache: &'a DataCache, key: CacheKey) -> Self {
        Self { cache, wanted: Wanted { key, words: cache.shape.words, tags: Vec::new() } }
    }

    /// As [`DataCache::ttl`].
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.wanted.words.ttl = Some(ttl);
        self
    }

    /// As [`DataCache::sliding`].
    pub fn sliding(mut self, idle: Duration) -> Self {
        self.wanted.words.sliding = Some(idle);
        self
    }

    /// As [`DataCache::stale_while_revalidate`]. It counts for what is stored now: what was stored before is as stale as was said then.
    pub fn stale_while_revalidate(mut self, window: Duration) -> Self {
        self.wanted.words.stale_while_revalidate = window;
        self
    }

    /// As [`DataCache::stale_if_error`], and likewise for what is stored now.
    pub fn stale_if_error(mut self, window: Duration) -> Self {
        self.wanted.words.stale_if_error = window;
        self
    }

    /// As [`DataCache::none_ttl`].
    pub fn none_ttl(mut self, ttl: Duration) -> Self {
        self.wanted.words.none_ttl = Some(ttl);
        self
    }

    /// As [`DataCache::error_ttl`].
    pub fn error_ttl(mut self, ttl: Duration) -> Self {
        self.wanted.words.error_ttl = Some(ttl);
        self
    }

    /// A tag that the value bears, beside those of its cache. As with responses, what is too much, too long or has control characters makes it bear every tag.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.wanted.tags.push(tag.into().into());
        self
    }

    /// As [`DataCache::get`].
    pub async fn get<T: DeserializeOwned>(self) -> Option<T> {
        self.cache.read(&self.wanted.key, &self.wanted.tags).await
    }

    /// As [`DataCache::set`].
    ///
    /// # Errors
    /// If the value can't be serialised, or is too large.
    pub fn set<T: Serialize + ?Sized>(
        self,
        value: &T,
    ) -> impl Future<Output = Result<(), DataError>> + Send + use<'a, T> {
        // At once, so that the future needs no hold on the value.
        let draft = self.cache.draft(value);
        async move {
            let made = self.cache.make(&self.wanted, draft?).await;
            self.cache.write(vec![(self.wanted.key, made)]).await;
            Ok(())
        }
    }

    /// As [`DataCache::get_or_load`].
    ///
    /// # Errors
    /// That of `load`, shared by all who waited for it.
    pub async fn get_or_load<T, E, F, L>(self, load: F) -> Result<T, Arc<E>>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
        E: Send + Sync + 'static,
        F: FnOnce() -> L + Send,
        L: Future<Output = Result<T, E>> + Send + 'static,
    {
        let load = move || {
            let loaded = load();
            async move { loaded.await.map(Sure) }
        };
        self.load(load).await.map(|Sure(value)| value)
    }

    /// The same where there may be no value. That there is none is remembered for [`none_ttl`](Self::none_ttl), if that is set, and else loaded again by each who asks.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// use std::time::Duration;
    /// let users = larder::DataCache::in_memory(1 << 20).none_ttl(Duration::from_secs(5));
    /// let found = users.entry("nobody").get_or_load_option(|| async { Ok::<Option<String>, std::io::Error>(None) }).await?;
    /// assert_eq!(found, None);
    /// # Ok::<(), std::sync::Arc<std::io::Error>>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    /// That of `load`, shared by all who waited for it.
    pub async fn get_or_load_option<T, E, F, L>(self, load: F) -> Result<Option<T>, Arc<E>>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
        E: Send + Sync + 'static,
        F: FnOnce() -> L + Send,
        L: Future<Output = Result<Option<T>, E>> + Send + 'static,
    {
        let load = move || {
            let loaded = load();
            async move { loaded.await.map(Perhaps) }
        };
        self.load(load).await.map(|Perhaps(value)| value)
    }
}

impl fmt::Debug for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("cache", &self.cache).field("key", &self.wanted.key).finish_non_exhaustive()
    }
}
