//! Atomic operations: values that several change at the same time, in tasks, processes and on machines, and of which no change is lost or made twice.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::changing::Step;
use super::{DataCache, DataError, Entry};
use crate::response::StoredResponse;

impl DataCache {
    /// Stores a value where there is none that is fresh, and tells whether it did. Of all who add under one key at the same time, on whatever instance, one does, also right after a
    /// [`delete`](DataCache::delete) on another one: who has added asks the log of purges whether it knows of all that came before.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// let jobs = larder::DataCache::in_memory(1 << 20);
    /// assert!(jobs.add("nightly report", &"worker 1").await?);
    /// assert!(!jobs.add("nightly report", &"worker 2").await?);
    /// # Ok::<(), larder::DataError>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    /// As those of [`set`](Self::set), and [`Unavailable`](DataError::Unavailable) and [`Unknown`](DataError::Unknown) where the store can't say.
    pub async fn add<T: Serialize + Sync + ?Sized>(&self, key: impl AsRef<[u8]>, value: &T) -> Result<bool, DataError> {
        self.entry(key).add(value).await
    }

    /// Adds `by` to an integer, and returns what it comes to. Where there is none that is fresh it is counted from 0. An integer that [`set`](Self::set) or [`add`](Self::add) has stored is counted on.
    ///
    /// It ends when it would have ended without: what is counted anew lives for the [`ttl`](Self::ttl). Only with [`sliding`](Self::sliding) each change, and no look, moves the end.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// let visits = larder::DataCache::in_memory(1 << 20);
    /// assert_eq!(visits.increment("front page", 1).await?, 1);
    /// assert_eq!(visits.increment("front page", 41).await?, 42);
    /// assert_eq!(visits.get::<i64>("front page").await, Some(42));
    /// # Ok::<(), larder::DataError>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    /// [`Overflow`](DataError::Overflow), [`NotAnInteger`](DataError::NotAnInteger), and [`Unavailable`](DataError::Unavailable) where the store can't say: then nothing was changed. Only after
    /// [`Unknown`](DataError::Unknown) it may have been counted or not.
    pub async fn increment(&self, key: impl AsRef<[u8]>, by: i64) -> Result<i64, DataError> {
        self.entry(key).increment(by).await
    }

    /// The same with `by` taken away; below zero as well.
    ///
    /// # Errors
    /// As those of [`increment`](Self::increment).
    pub async fn decrement(&self, key: impl AsRef<[u8]>, by: i64) -> Result<i64, DataError> {
        self.entry(key).decrement(by).await
    }

    /// Stores `new` where the value is `old`, and tells whether it did: nobody has changed the value between the comparison and that. What can't be read as a `T`, or isn't fresh, isn't `old`.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// let orders = larder::DataCache::in_memory(1 << 20);
    /// orders.set("17", &"paid").await?;
    /// assert!(orders.compare_and_set("17", &"paid".to_owned(), &"shipped".to_owned()).await?);
    /// assert!(!orders.compare_and_set("17", &"paid".to_owned(), &"cancelled".to_owned()).await?);
    /// # Ok::<(), larder::DataError>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    /// As those of [`add`](Self::add).
    pub async fn compare_and_set<T>(&self, key: impl AsRef<[u8]>, old: &T, new: &T) -> Result<bool, DataError>
    where
        T: Serialize + DeserializeOwned + PartialEq + Sync,
    {
        self.entry(key).compare_and_set(old, new).await
    }
}

impl Entry<'_> {
    /// As [`DataCache::add`].
    ///
    /// # Errors
    /// As there.
    pub async fn add<T: Serialize + Sync + ?Sized>(self, value: &T) -> Result<bool, DataError> {
        let draft = self.cache.draft(value)?;
        let decide = |there: Option<&StoredResponse>| {
            Ok(if there.is_some() { Step::Leave(false) } else { Step::Put { draft: draft.clone(), then: true } })
        };
        self.cache.change(&self.wanted, false, decide).await
    }

    /// As [`DataCache::increment`]. What is said here counts for what is counted anew; but [`sliding`](Self::sliding) counts for each change.
    ///
    /// # Errors
    /// As there.
    pub async fn increment(self, by: i64) -> Result<i64, DataError> {
        self.count(|count| count.checked_add(by)).await
    }

    /// As [`DataCache::decrement`].
    ///
    /// # Errors
    /// As there.
    pub async fn decrement(self, by: i64) -> Result<i64, DataError> {
        self.count(|count| count.checked_sub(by)).await
    }

    /// As [`DataCache::compare_and_set`]. What is said here counts for the new value.
    ///
    /// # Errors
    /// As there.
    pub async fn compare_and_set<T>(self, old: &T, new: &T) -> Result<bool, DataError>
    where
        T: Serialize + DeserializeOwned + PartialEq + Sync,
    {
        let draft = self.cache.draft(new)?;
        let decide = |there: Option<&StoredResponse>| {
            let there = there.and_then(|there| self.cache.value::<T>(there).ok().flatten());
            let is_old = there.is_some_and(|there| there == *old);
            Ok(if is_old { Step::Put { draft: draft.clone(), then: true } } else { Step::Leave(false) })
        };
        self.cache.change(&self.wanted, false, decide).await
    }

    async fn count(self, next: impl Fn(i64) -> Option<i64> + Sync) -> Result<i64, DataError> {
        let decide = |there: Option<&StoredResponse>| {
            let count = match there {
                Some(there) => self.cache.value::<i64>(there).map_err(|_| DataError::NotAnInteger)?.unwrap_or(0),
                None => 0,
            };
            let next = next(count).ok_or(DataError::Overflow)?;
            Ok(Step::Put { draft: self.cache.draft(&next)?, then: next })
        };
        self.cache.change(&self.wanted, true, decide).await
    }
}
