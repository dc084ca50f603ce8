//! Values that are kept only if the application wants that, when it has seen them.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::loading::Answer;
use super::{DataCache, Entry};
use crate::stats::count;
use crate::used::UsedTags;

/// A value that was loaded, and whether it is wanted kept.
struct Judged<T> {
    value: T,
    is_kept: bool,
}

impl<T: Serialize + DeserializeOwned + Send + 'static> Answer for Judged<T> {
    type Value = T;

    fn value(&self) -> Option<&T> {
        Some(&self.value)
    }

    fn of(stored: Option<T>) -> Option<Self> {
        stored.map(|value| Self { value, is_kept: true })
    }

    fn is_kept(&self) -> bool {
        self.is_kept
    }
}

impl Entry<'_> {
    /// As [`get_or_load`](Self::get_or_load), and keeps only what is `wanted`. Those who wait for it get it in any case.
    pub(crate) async fn get_or_load_if<T, E, L>(
        self,
        wanted: impl FnOnce(&T) -> bool + Send + 'static,
        load: impl FnOnce() -> L + Send,
    ) -> Result<T, Arc<E>>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
        E: Send + Sync + 'static,
        L: Future<Output = Result<T, E>> + Send + 'static,
    {
        let load = move || {
            let loaded = load();
            async move {
                let value = loaded.await?;
                let is_kept = wanted(&value);
                Ok(Judged { value, is_kept })
            }
        };
        self.load(load).await.map(|judged| judged.value)
    }
}

impl DataCache {
    /// The value that is fresh and near; counted if there is one.
    pub(crate) fn at_once<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        // Before anything is read.
        let used = UsedTags::current();
        let value = self.value_near(&self.key(key.as_bytes()), &used)??;
        count(&self.counters().hits);
        Some(value)
    }
}
