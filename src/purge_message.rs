//! [`PurgeMessage`]: a purge as instances tell each other, in terms that mean the same on all of them.

use std::time::SystemTime;

/// What was purged and how hard, without its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PurgeMessage {
    pub(crate) what: PurgedThings,
    /// As of when what it touches is stale; `None` for a hard purge. Of the log's clock, if it has one.
    pub(crate) soft: Option<SystemTime>,
}

/// What a purge touches. Hashes are made by [`Naming::Everywhere`](crate::naming::Naming).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PurgedThings {
    Hashes {
        /// Of resources, paths or partitions.
        places: Vec<u64>,
        tags: Vec<u64>,
        /// The hash of the only authority whose responses may have such tags; `None` if all may.
        authority: Option<u64>,
    },
    Glob(String),
    Regex(String),
    Everything,
}
