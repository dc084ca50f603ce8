//! [`CacheHandle`]: the application's hold on a cache, to purge, to look at its counters, and to shut it down.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;

use crate::cache::CacheCore;
use crate::request::target_of;
use crate::rfc9111::authority::normalised;
use crate::selector::{PurgeError, Receipt, Selector};
use crate::stats::{Stats, count};
use crate::storage::backend::Backend;

/// A hold on a cache; clones hold the same one.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use larder::{CacheLayer, Selector};
/// let layer = CacheLayer::in_memory(64 << 20);
/// let handle = layer.handle();
/// handle.purge(Selector::Uri("/products/1".into())).await?;
/// println!("hit rate {:.2}", handle.stats().hit_rate());
/// # Ok::<(), larder::PurgeError>(()) }).unwrap();
/// ```
#[derive(Clone)]
pub struct CacheHandle {
    cache: Arc<CacheCore>,
}

impl CacheHandle {
    pub(crate) fn new(cache: Arc<CacheCore>) -> Self {
        Self { cache }
    }

    /// Purges. When it returns, nothing that was asked from a handler before the call is served any more, not even by a fill that is still
    /// on its way.
    ///
    /// # Errors
    /// [`PurgeError::Uri`] if the selector's URI is none; nothing was purged then. [`PurgeError::Storage`] if the store couldn't give the
    /// memory back; the purge has taken effect all the same.
    pub async fn purge(&self, selector: Selector) -> Result<Receipt, PurgeError> {
        let number = match selector {
            Selector::Uri(uri) => self.purge_uri(&uri)?,
            Selector::Everything => self.purge_everything().await?,
        };
        count(&self.cache.counters.purges);
        Ok(Receipt { number })
    }

    fn purge_uri(&self, text: &str) -> Result<u64, PurgeError> {
        let malformed = || PurgeError::Uri { uri: text.into() };
        let uri: Uri = text.parse().map_err(|_| malformed())?;
        if uri.scheme().is_none() && !uri.path().starts_with('/') {
            return Err(malformed());
        }
        let authority = uri.authority().map(|a| normalised(a.as_str().as_bytes(), uri.scheme_str()));
        let key = self.cache.resource_key(authority.as_deref().unwrap_or_default(), &target_of(&uri));
        let stamp = self.cache.purges.stamp(&key, 0);
        self.cache.purge_spellings(authority.as_deref(), &key);
        if authority.is_none() {
            self.cache.flights.seal_path(stamp.path);
            return Ok(self.cache.purges.purge_resource(stamp.path));
        }
        self.cache.flights.seal_resource(&stamp);
        if let Backend::Memory(memory) = &self.cache.settings.backend {
            memory.remove_now(&key);
        }
        Ok(self.cache.purges.purge_resource(stamp.resource))
    }

    async fn purge_everything(&self) -> Result<u64, PurgeError> {
        let number = self.cache.purges.purge_everything();
        self.cache.flights.seal_all();
        match &self.cache.settings.backend {
            Backend::Memory(memory) => memory.clear_now(),
            Backend::Other(other) => other.clear().await?,
        }
        Ok(number)
    }

    /// What the cache did so far, and what its store holds.
    pub fn stats(&self) -> Stats {
        self.cache.counters.snapshot(self.cache.settings.backend.usage())
    }

    /// Ends the cache's own work: no refresh starts any more, nothing more is stored, and what is running is waited for until `deadline`
    /// and then abandoned. Requests are still answered. Returns whether all work ended in time.
    pub async fn shutdown(&self, deadline: Duration) -> bool {
        self.cache.close();
        let ended = tokio::time::timeout(deadline, self.cache.tasks.wait()).await.is_ok();
        self.cache.abandon.cancel();
        self.cache.tasks.wait().await;
        ended
    }
}

impl fmt::Debug for CacheHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheHandle").finish_non_exhaustive()
    }
}
