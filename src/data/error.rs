//! What can be wrong with what a data cache is asked to do. A store that fails is no error, since it costs a miss; except for atomic operations, which must not be lost or done twice.

use crate::error::{BoxError, StorageError};

/// A value that a data cache can't take, or a change that it couldn't make.
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
    /// The integer would be larger or smaller than an `i64` can be. What is stored is as it was.
    #[error("the integer would be out of range")]
    Overflow,
    /// What is to be counted on is no integer. What is stored is as it was.
    #[error("what is stored is no integer")]
    NotAnInteger,
    /// An atomic operation couldn't be done. What is stored is as it was.
    #[error("nothing was changed: {source}")]
    Unavailable {
        /// What the store says, or what is missing.
        #[source]
        source: StorageError,
    },
    /// An atomic operation may have been done or not: the store didn't answer, or its answer was lost. Who has to know looks at the value.
    #[error("the value may have been changed or not: {source}")]
    Unknown {
        /// What the store says.
        #[source]
        source: StorageError,
    },
}
