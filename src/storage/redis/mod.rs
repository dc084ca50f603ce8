//! [`RedisStore`]: responses in Redis or Valkey, for several instances at a time, with the log of their purges and the leases of their fills.
//!
//! It trusts nothing that it hasn't asked: on every new connection the first question is whether the log of purges is still the one that was known, and if that can't be
//! proved, everything older counts as purged.

mod connection;
mod entries;
mod failure;
mod hello;
mod keys;
mod leasing;
mod link;
mod log;
mod marker;
mod pipe;
mod reading;
mod replies;
mod script;
mod server;
mod settings;
mod shelf;
mod snapshot;
mod socket;
mod swapping;
mod sweeping;
#[cfg(feature = "redis-tls")]
mod tls;
mod trimming;
mod varies;
mod wire;
mod writing;

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use self::failure::Failure;
use self::log::RedisLog;
use self::server::Server;
pub use self::settings::RedisUrlError;
use self::settings::Settings;
use self::shelf::Shelf;
use super::{Lease, LeaseToken, PurgeLog, Query, Released, Storage, StorageUsage, Swap, Swapped, Variants};
use crate::clock::{Clock, SystemClock};
use crate::error::StorageError;
use crate::key::CacheKey;
use crate::record::RecordFormat;
use crate::response::StoredResponse;

/// Responses in [Redis](https://redis.io) or [Valkey](https://valkey.io), from version 7 on, which any number of instances share.
///
/// Nothing is connected to before it is used, and an application starts whether or not the server is there. The chapter `docs/redis.md` tells what a server
/// needs: its users' rights, its memory, and what is promised when it fails.
///
/// Clones share their connections: keep one to ask for [`stats`](Self::stats).
///
/// ```
/// use std::time::Duration;
/// use larder::CacheLayer;
/// use larder::storage::RedisStore;
///
/// let store = RedisStore::new("redis://shop:secret@cache.internal:6379/0?ns=shop")?.longest(Duration::from_secs(60 * 60));
/// let cache = CacheLayer::with_storage(store);
/// # drop(cache);
/// # Ok::<(), larder::storage::RedisUrlError>(())
/// ```
#[derive(Clone)]
pub struct RedisStore {
    settings: Settings,
    clock: Arc<dyn Clock>,
    format: RecordFormat,
    /// Made on first use, so that the setters can come before.
    inner: Arc<OnceLock<Inner>>,
}

struct Inner {
    shelf: Arc<Shelf>,
    log: Arc<RedisLog>,
}

/// What a [`RedisStore`] has seen since it was first used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedisStats {
    /// Records that were damaged: cut off, changed, or sealed under another key. Each was a miss.
    pub damaged_records: u64,
    /// Whole records that were of no use here: of another release, for example. Each was a miss.
    pub unusable_records: u64,
    /// Connections that were made.
    pub connections: u64,
}

impl RedisStore {
    /// The store at a URL such as `redis://user:password@host:6379/0?ns=shop`; `rediss://` for TLS (feature `redis-tls`). User and password are percent-encoded;
    /// the number behind the slash is that of the database. Parameters:
    ///
    /// - `ns`: the namespace, which has to be there. Instances of one application have the same; nothing of any other is ever touched.
    /// - `client_name`: what `CLIENT LIST` calls the connections; `larder` if it isn't said.
    ///
    /// # Errors
    /// If the URL can't be read, has no namespace, or asks for what isn't built in.
    pub fn new(url: &str) -> Result<Self, RedisUrlError> {
        Self::of(Settings::of(url, None)?)
    }

    /// The same with a namespace that isn't in the URL.
    ///
    /// # Errors
    /// As those of [`new`](Self::new).
    pub fn in_namespace(url: &str, namespace: &str) -> Result<Self, RedisUrlError> {
        Self::of(Settings::of(url, Some(namespace))?)
    }

    fn of(settings: Settings) -> Result<Self, RedisUrlError> {
        Ok(Self {
            settings,
            clock: Arc::new(SystemClock::default()),
            format: RecordFormat::default(),
            inner: Arc::default(),
        })
    }

    /// Seals records under a key, and reads no others, so that who can write to the server can't make up responses; see
    /// [`RecordFormat::mac`]. All instances need the same.
    #[must_use]
    pub fn mac(mut self, key: [u8; 32]) -> Self {
        self.format = RecordFormat::default().mac(key);
        self.anew()
    }

    /// No response is kept longer than this; a day if it isn't said. What was purged is remembered for as long.
    #[must_use]
    pub fn longest(mut self, longest: Duration) -> Self {
        self.settings.longest = longest.clamp(Duration::from_millis(1), LONGEST);
        self.anew()
    }

    /// How long it may take until a connection can be used; 2 seconds if it isn't said. Requests don't wait for it: they wait as long as the cache says.
    #[must_use]
    pub fn connect_within(mut self, longest: Duration) -> Self {
        self.settings.longest_connecting = longest;
        self.anew()
    }

    /// The clock of the cache, if that isn't the [system's](SystemClock): what the server's clock is compared with.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self.anew()
    }

    /// Certificates in PEM, for a server whose certificate isn't one that the system trusts: the authorities that count instead.
    ///
    /// # Errors
    /// If it has none that can be read.
    #[cfg(feature = "redis-tls")]
    pub fn certificate_authorities(mut self, pem: &[u8]) -> Result<Self, RedisUrlError> {
        self.settings.set_authorities(pem)?;
        Ok(self.anew())
    }

    /// A certificate and its key in PEM, for a server that wants one from its clients.
    ///
    /// # Errors
    /// If they can't be read.
    #[cfg(feature = "redis-tls")]
    pub fn client_certificate(mut self, certificate: &[u8], key: &[u8]) -> Result<Self, RedisUrlError> {
        self.settings.set_client_certificate(certificate, key)?;
        Ok(self.anew())
    }

    /// What it has seen. Clones count together.
    pub fn stats(&self) -> RedisStats {
        let Some(inner) = self.inner.get() else { return RedisStats::default() };
        let (damaged_records, unusable_records) = inner.shelf.counts.now();
        RedisStats { damaged_records, unusable_records, connections: inner.shelf.server.connections() }
    }

    /// With other settings it is another store, which shares nothing with earlier clones.
    fn anew(mut self) -> Self {
        self.inner = Arc::default();
        self
    }

    fn inner(&self) -> &Inner {
        self.inner.get_or_init(|| {
            let server = Arc::new(Server::new(self.settings.clone(), self.clock.clone()));
            let shelf = Arc::new(Shelf::new(server.clone(), self.format.clone()));
            let log = Arc::new(RedisLog::new(server, shelf.data.clone()));
            Inner { shelf, log }
        })
    }

    fn shelf(&self) -> &Arc<Shelf> {
        &self.inner().shelf
    }
}

/// Ten years: what Redis can count from any day that a clock may show.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

impl Storage for RedisStore {
    async fn get(&self, query: Query<'_>) -> Result<Variants, StorageError> {
        Ok(reading::get(self.shelf(), &query).await?)
    }

    async fn put(&self, key: &CacheKey, response: Arc<StoredResponse>, most: usize) -> Result<(), StorageError> {
        Ok(writing::put(self.shelf(), key, &response, most).await?)
    }

    async fn remove(&self, key: &CacheKey) -> Result<bool, StorageError> {
        Ok(writing::remove(self.shelf(), key).await?)
    }

    async fn swap(&self, swap: Swap<'_>) -> Result<Swapped, StorageError> {
        swapping::swap(self.shelf(), &swap).await
    }

    async fn erase(&self, partition: &[u8; 16]) -> Result<(), StorageError> {
        Ok(sweeping::sweep(self.shelf(), vec![self.shelf().keyspace().all_of(partition)]).await?)
    }

    async fn lease(&self, key: &CacheKey, term: Duration) -> Result<Lease, StorageError> {
        Ok(leasing::lease(self.shelf(), key, term).await?)
    }

    async fn release(&self, key: &CacheKey, token: LeaseToken, how: Released) -> Result<(), StorageError> {
        Ok(leasing::release(self.shelf(), key, token, how).await?)
    }

    fn purge_log(&self) -> Option<Arc<dyn PurgeLog>> {
        Some(self.inner().log.clone())
    }

    /// The same question as the first one on a connection: a replica, or a server that takes no writes, isn't there.
    async fn ping(&self) -> Result<(), StorageError> {
        let server = &self.shelf().server;
        Ok(self.shelf().data.run(|at| async move { hello::say(&at, server).await.map(drop) }).await?)
    }

    /// Drops the responses of this namespace, and leaves its purges and leases.
    async fn clear(&self) -> Result<(), StorageError> {
        Ok(sweeping::sweep(self.shelf(), self.shelf().keyspace().all_responses().into()).await?)
    }

    /// Nothing: the server counts by its own lights, and for all who use it. `INFO memory` tells.
    fn usage(&self) -> StorageUsage {
        StorageUsage::default()
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("address", &self.settings.address()).finish_non_exhaustive()
    }
}

/// Sixteen bytes that nobody can guess, and nobody has had before.
fn random() -> Result<[u8; 16], Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| Failure::new("the system gives no random bytes"))?;
    Ok(bytes)
}
