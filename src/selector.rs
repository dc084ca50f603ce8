//! What to purge, and what is told about it afterwards.

/// What a purge is aimed at.
///
/// Tags and patterns will be further selectors.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Selector {
    /// One resource with all its variants and partitions: a path with query (`/products/1?lang=de`), on every host, or an absolute URI
    /// for one host.
    Uri(String),
    /// All that is stored for one principal of [`Policy::per`](crate::Policy::per), under every rule: its name, as the closure returns it.
    /// It is deleted from the store, and not only never served any more.
    ///
    /// ```
    /// # async fn erase(handle: larder::CacheHandle) -> Result<(), larder::PurgeError> {
    /// handle.purge(larder::Selector::Partition("user-17".into())).await?;
    /// # Ok(()) }
    /// ```
    Partition(Vec<u8>),
    /// Everything.
    Everything,
}

/// A purge has taken effect: nothing that was asked from a handler before it is ever served again by this cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// The purge's number; later purges have larger ones.
    pub number: u64,
}

/// A purge that could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PurgeError {
    /// The URI is none.
    #[error("{uri:?} is neither a path that begins with a slash nor an absolute URI")]
    Uri {
        /// As given.
        uri: String,
    },
    /// The store failed to drop what was purged. It is not served any more, but may still take room.
    #[error(transparent)]
    Storage(#[from] crate::error::StorageError),
}
