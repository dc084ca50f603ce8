//! Many values in one call: asked for and written side by side, and told to other instances as one purge.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{DataCache, DataError};
use crate::key::CacheKey;

/// How many operations of a store are under way at a time for one call.
const SIDE_BY_SIDE: usize = 64;

impl DataCache {
    /// The values under these keys, in their order; what [`get`](Self::get) says of each. What isn't near is asked for side by side.
    pub async fn get_many<T: DeserializeOwned + Send>(
        &self,
        keys: impl IntoIterator<Item = impl AsRef<[u8]>>,
    ) -> Vec<Option<T>> {
        let keys: Vec<CacheKey> = keys.into_iter().map(|key| self.key(key.as_ref())).collect();
        all(keys.iter().map(|key| self.read(key, &[])).collect()).await
    }

    /// Stores values, each under its key, as [`set`](Self::set) does. Of two under one key the last one counts.
    ///
    /// # Errors
    /// If one of them can't be serialised, or is too large; then none is stored.
    pub async fn set_many<K: AsRef<[u8]>, T: Serialize>(
        &self,
        values: impl IntoIterator<Item = (K, T)>,
    ) -> Result<(), DataError> {
        let mut drafts = HashMap::new();
        for (key, value) in values {
            drafts.insert(self.key(key.as_ref()), self.draft(&value)?);
        }
        let making = drafts.into_iter().map(|(key, draft)| async {
            let wanted = self.entry_of(key).wanted;
            let made = self.make(&wanted, draft).await;
            (wanted.key, made)
        });
        let made = all(making.collect()).await;
        self.write(made).await;
        Ok(())
    }

    /// Drops the values under these keys; returns of how many something was stored.
    pub async fn delete_many(&self, keys: impl IntoIterator<Item = impl AsRef<[u8]>>) -> usize {
        let keys: Vec<CacheKey> = keys.into_iter().map(|key| self.key(key.as_ref())).collect();
        self.remove(&keys).await
    }
}

/// What all of these come to, in their order. A bounded number is under way at a time.
pub(super) async fn all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut done = Vec::with_capacity(futures.len());
    let mut futures = futures.into_iter();
    loop {
        let step: Vec<F> = futures.by_ref().take(SIDE_BY_SIDE).collect();
        if step.is_empty() {
            return done;
        }
        done.extend(together(step).await);
    }
}

async fn together<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut under_way: Vec<Pin<Box<F>>> = futures.into_iter().map(Box::pin).collect();
    let mut outputs: Vec<Option<F::Output>> = under_way.iter().map(|_| None).collect();
    poll_fn(|cx| {
        let mut waits = false;
        for (future, output) in under_way.iter_mut().zip(&mut outputs).filter(|(_, output)| output.is_none()) {
            match future.as_mut().poll(cx) {
                Poll::Ready(ended) => *output = Some(ended),
                Poll::Pending => waits = true,
            }
        }
        if waits { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    outputs.into_iter().flatten().collect()
}
