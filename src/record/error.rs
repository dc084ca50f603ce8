//! [`RecordError`]: why bytes are no record of a response under this key. Whichever it is, it costs a miss.

/// Why a record can't be used. To a cache each is a miss; which one it was says what to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// It doesn't begin as a record does: something else wrote it.
    #[error("it is no record")]
    Foreign,
    /// Another release of larder wrote it, in a version of the format that this one doesn't know.
    #[error("it is of version {0}, which isn't known here")]
    Version(u8),
    /// It is a record of something else than a response.
    #[error("it is of kind {0}, which isn't that of a response")]
    Kind(u8),
    /// It has flags that aren't known here.
    #[error("it has flags that aren't known here: {0:#06x}")]
    Flags(u16),
    /// It was cut off, or something was appended: its lengths don't add up.
    #[error("its lengths don't add up to that of the whole")]
    Length,
    /// It was damaged, or sealed under another key.
    #[error("its seal is broken")]
    Seal,
    /// It has a seal that anybody can make where one under a key is asked for, or one under a key where none is known.
    #[error("it is sealed with a key where none is known, or without where one is asked for")]
    SealKind,
    /// It belongs to another key of the cache.
    #[error("it belongs to another key")]
    Key,
    /// It says that it was received later than now: the clocks of those who share the store disagree, so its age isn't known.
    #[error("it says that it was received later than now")]
    Future,
    /// Its content is in a coding whose feature isn't switched on in this build.
    #[error("its content is in a coding that this build can't undo")]
    Coding,
    /// Its seal is whole, but what it says makes no response.
    #[error("what it says makes no response")]
    Malformed,
}

impl RecordError {
    /// A short name that doesn't change, for logs and counters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Foreign => "foreign",
            Self::Version(_) => "version",
            Self::Kind(_) => "kind",
            Self::Flags(_) => "flags",
            Self::Length => "length",
            Self::Seal => "seal",
            Self::SealKind => "seal-kind",
            Self::Key => "key",
            Self::Future => "future",
            Self::Coding => "coding",
            Self::Malformed => "malformed",
        }
    }
}

impl From<RecordError> for crate::error::StorageError {
    fn from(error: RecordError) -> Self {
        Self::with_source("a record can't be used", error)
    }
}
