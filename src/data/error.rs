//! What can be wrong with what a data cache is asked to do. A store that fails is no error: it costs a miss.

use crate::error::BoxError;

/// A value that a data cache can't take.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The serialiser can't make bytes of the value. What was stored under the key is as it was.
    #[error("the value can't be serialised: {source}")]
    Serialize {
        /// What the serialiser says.
        #[source]
        source: BoxError,
    },
    /// The value is larger than [`max_value_size`](crate::DataCache::max_value_size). What was stored under the key is as it was.
    #[error("the value takes {size} bytes, and {most} are allowed")]
    TooLarge {
        /// The bytes it takes.
        size: usize,
        /// The bytes it may take.
        most: usize,
    },
}
