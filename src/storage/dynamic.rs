//! The one place where the type of a store is erased, so that layers and services need no type parameter for it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::{Query, Storage, StorageUsage, Variants};
use crate::error::StorageError;
use crate::key::CacheKey;
use crate::response::StoredResponse;

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StorageError>> + Send + 'a>>;

/// [`Storage`] with boxed futures.
pub(crate) trait DynStorage: Send + Sync {
    fn get<'a>(&'a self, query: Query<'a>) -> Answer<'a, Variants>;
    fn put<'a>(&'a self, key: &'a CacheKey, response: Arc<StoredResponse>, most: usize) -> Answer<'a, ()>;
    fn remove<'a>(&'a self, key: &'a CacheKey) -> Answer<'a, bool>;
    fn clear(&self) -> Answer<'_, ()>;
    fn usage(&self) -> StorageUsage;
}

impl<S: Storage> DynStorage for S {
    fn get<'a>(&'a self, query: Query<'a>) -> Answer<'a, Variants> {
        Box::pin(Storage::get(self, query))
    }

    fn put<'a>(&'a self, key: &'a CacheKey, response: Arc<StoredResponse>, most: usize) -> Answer<'a, ()> {
        Box::pin(Storage::put(self, key, response, most))
    }

    fn remove<'a>(&'a self, key: &'a CacheKey) -> Answer<'a, bool> {
        Box::pin(Storage::remove(self, key))
    }

    fn clear(&self) -> Answer<'_, ()> {
        Box::pin(Storage::clear(self))
    }

    fn usage(&self) -> StorageUsage {
        Storage::usage(self)
    }
}
