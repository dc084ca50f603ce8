//! [`ObjectEntry`]: a key, with words for one call.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use super::ObjectCache;
use super::held::Terms;
use super::load::Load;
use crate::cache::State;
use crate::tags::{Names, Tags};

/// What is said about objects.
#[derive(Clone)]
pub(super) struct Words {
    pub(super) terms: Terms,
    pub(super) none_ttl: Option<Duration>,
    pub(super) error_ttl: Option<Duration>,
    pub(super) tags: Vec<String>,
}

/// How long an object is fresh where nobody says.
const TTL: Duration = Duration::from_secs(60);

impl Default for Words {
    fn default() -> Self {
        Self { terms: Terms { lifetime: TTL, ..Terms::default() }, none_ttl: None, error_ttl: None, tags: Vec::new() }
    }
}

impl Words {
    pub(super) fn tags(&self, state: &State) -> Option<Arc<Tags>> {
        let mut names = Names::default();
        self.tags.iter().for_each(|tag| names.add(tag));
        names.with(|name| state.groups.anywhere(name), &[])
    }
}

/// Whether a value is kept that was loaded.
pub(super) type KeepIf<V> = Box<dyn FnOnce(&V) -> bool + Send + Sync>;

/// A key of an [`ObjectCache`], with words for one call in the place of its defaults. From [`ObjectCache::entry`].
#[must_use = "it says how something would be done"]
pub struct ObjectEntry<'a, K, V> {
    cache: &'a ObjectCache<K, V>,
    key: K,
    words: Words,
    keep_if: Option<KeepIf<V>>,
}

impl<'a, K, V> ObjectEntry<'a, K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    pub(super) fn new(cache: &'a ObjectCache<K, V>, key: K, words: Words) -> Self {
        Self { cache, key, words, keep_if: None }
    }

    /// See [`ObjectCache::ttl`].
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.words.terms.lifetime = ttl;
        self
    }

    /// See [`ObjectCache::sliding`].
    pub fn sliding(mut self, idle: Duration) -> Self {
        self.words.terms.sliding = Some(idle);
        self
    }

    /// See [`ObjectCache::stale_while_revalidate`].
    pub fn stale_while_revalidate(mut self, window: Duration) -> Self {
        self.words.terms.while_revalidate = window;
        self
    }

    /// See [`ObjectCache::stale_if_error`].
    pub fn stale_if_error(mut self, window: Duration) -> Self {
        self.words.terms.if_error = window;
        self
    }

    /// See [`ObjectCache::none_ttl`].
    pub fn none_ttl(mut self, ttl: Duration) -> Self {
        self.words.none_ttl = Some(ttl);
        self
    }

    /// See [`ObjectCache::error_ttl`].
    pub fn error_ttl(mut self, ttl: Duration) -> Self {
        self.words.error_ttl = Some(ttl);
        self
    }

    /// A tag by which the object can be purged. Tags are hierarchical and bounded as those of responses are; see [`Cached::tag`](crate::Cached::tag).
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.words.tags.push(tag.into());
        self
    }

    /// Several of them.
    pub fn tags<T: Into<String>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.words.tags.extend(tags.into_iter().map(Into::into));
        self
    }

    /// Keeps what is loaded only if this says so. Those who wait for it get it in any case.
    pub fn keep_if(mut self, wanted: impl FnOnce(&V) -> bool + Send + Sync + 'static) -> Self {
        self.keep_if = Some(Box::new(wanted));
        self
    }

    /// See [`ObjectCache::get`].
    pub fn get(self) -> Option<Arc<V>> {
        self.cache.get(&self.key)
    }

    /// See [`ObjectCache::insert`].
    pub fn insert(self, value: impl Into<Arc<V>>) -> Arc<V> {
        self.cache.put(self.key, value.into(), &self.words)
    }

    /// See [`ObjectCache::get_or_load`].
    ///
    /// # Errors
    /// Likewise.
    pub async fn get_or_load<E, F, L>(self, load: F) -> Result<Arc<V>, Arc<E>>
    where
        E: Send + Sync + 'static,
        F: FnOnce() -> L + Send,
        L: Future<Output = Result<V, E>> + Send + 'static,
    {
        let load = move || {
            let loading = load();
            async move { loading.await.map(Some) }
        };
        let value = self.load(false).run(load).await?;
        Ok(value.expect("a loader that must bring something has"))
    }

    /// The same with a loader that may find nothing. That is remembered as well, where a [time](Self::none_ttl) is given for it.
    ///
    /// # Errors
    /// Likewise.
    pub async fn get_or_load_option<E, F, L>(self, load: F) -> Result<Option<Arc<V>>, Arc<E>>
    where
        E: Send + Sync + 'static,
        F: FnOnce() -> L + Send,
        L: Future<Output = Result<Option<V>, E>> + Send + 'static,
    {
        self.load(true).run(load).await
    }

    fn load(self, takes_none: bool) -> Load<K, V> {
        let Self { cache, key, words, keep_if } = self;
        Load { shelf: cache.shelf.clone(), key, words, keep_if, takes_none }
    }
}

impl<K: fmt::Debug, V> fmt::Debug for ObjectEntry<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectEntry").field("cache", self.cache).field("key", &self.key).finish_non_exhaustive()
    }
}
