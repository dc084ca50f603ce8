//! [`Backing`]: the caches that can keep the results of functions.

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "data")]
use serde::{Serialize, de::DeserializeOwned};

use super::KeepIf;
#[cfg(feature = "data")]
use crate::data::DataCache;
use crate::objects::ObjectCache;

/// What is said of one result.
pub struct Said<V> {
    pub(super) tags: Vec<String>,
    /// Whether it is kept.
    pub(super) keep_if: Option<KeepIf<V>>,
}

/// A cache of results of type `V`.
pub trait Backing<V>: Clone + Send + Sync + 'static {
    /// By what they are known.
    type Key: Send + Sync + 'static;
    /// As what they are given.
    type Given: Send + 'static;

    #[doc(hidden)]
    fn given(value: V) -> Self::Given;

    /// What is fresh and at hand.
    #[doc(hidden)]
    fn at_once(&self, key: &Self::Key) -> Option<Self::Given>;

    #[doc(hidden)]
    fn load<E, L>(
        &self,
        key: Self::Key,
        said: Said<V>,
        load: impl FnOnce() -> L + Send,
    ) -> impl Future<Output = Result<Self::Given, Arc<E>>> + Send
    where
        E: Send + Sync + 'static,
        L: Future<Output = Result<V, E>> + Send + 'static;

    #[doc(hidden)]
    fn forget(&self, key: Self::Key) -> impl Future<Output = bool> + Send;

    #[doc(hidden)]
    fn ttl(self, ttl: Duration) -> Self;
    #[doc(hidden)]
    fn sliding(self, idle: Duration) -> Self;
    #[doc(hidden)]
    fn stale_while_revalidate(self, window: Duration) -> Self;
    #[doc(hidden)]
    fn stale_if_error(self, window: Duration) -> Self;
    #[doc(hidden)]
    fn error_ttl(self, ttl: Duration) -> Self;
    #[doc(hidden)]
    fn tag(self, tag: String) -> Self;
}

/// The setters that both have.
macro_rules! setters {
    () => {
        fn ttl(self, ttl: Duration) -> Self {
            self.ttl(ttl)
        }

        fn sliding(self, idle: Duration) -> Self {
            self.sliding(idle)
        }

        fn stale_while_revalidate(self, window: Duration) -> Self {
            self.stale_while_revalidate(window)
        }

        fn stale_if_error(self, window: Duration) -> Self {
            self.stale_if_error(window)
        }

        fn error_ttl(self, ttl: Duration) -> Self {
            self.error_ttl(ttl)
        }

        fn tag(self, tag: String) -> Self {
            self.tag(tag)
        }
    };
}

impl<K, V> Backing<V> for ObjectCache<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    type Key = K;
    type Given = Arc<V>;

    fn given(value: V) -> Arc<V> {
        Arc::new(value)
    }

    fn at_once(&self, key: &K) -> Option<Arc<V>> {
        self.at_once(key)
    }

    async fn load<E, L>(&self, key: K, said: Said<V>, load: impl FnOnce() -> L + Send) -> Result<Arc<V>, Arc<E>>
    where
        E: Send + Sync + 'static,
        L: Future<Output = Result<V, E>> + Send + 'static,
    {
        let entry = self.entry(key).tags(said.tags);
        let entry = match said.keep_if {
            Some(wanted) => entry.keep_if(move |value| wanted(value)),
            None => entry,
        };
        entry.get_or_load(load).await
    }

    async fn forget(&self, key: K) -> bool {
        self.remove(&key).is_some()
    }

    setters!();
}

#[cfg(feature = "data")]
impl<V: Serialize + DeserializeOwned + Send + Sync + 'static> Backing<V> for DataCache {
    type Key = String;
    type Given = V;

    fn given(value: V) -> V {
        value
    }

    fn at_once(&self, key: &String) -> Option<V> {
        self.at_once(key)
    }

    async fn load<E, L>(&self, key: String, said: Said<V>, load: impl FnOnce() -> L + Send) -> Result<V, Arc<E>>
    where
        E: Send + Sync + 'static,
        L: Future<Output = Result<V, E>> + Send + 'static,
    {
        let entry = said.tags.into_iter().fold(self.entry(key), |entry, tag| entry.tag(tag));
        match said.keep_if {
            Some(wanted) => entry.get_or_load_if(move |value| wanted(value), load).await,
            None => entry.get_or_load(load).await,
        }
    }

    async fn forget(&self, key: String) -> bool {
        self.delete(key).await
    }

    setters!();
}
