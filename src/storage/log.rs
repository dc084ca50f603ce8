//! [`PurgeLog`]: how instances that share a store tell each other what was purged.
//!
//! Purges are numbered densely within an *epoch*. A new one begins when the log can't prove that nothing of its history was lost, and with a number that is larger than any that was
//! ever given out, also than those that are lost and that whoever begins it never heard of: so what was stored earlier counts as purged, whoever stored it.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::error::StorageError;
use crate::purge_message::PurgeMessage;

/// The future of an operation on a log.
pub type LogFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StorageError>> + Send + 'a>>;

/// A log of purges beside a store that several instances share.
pub trait PurgeLog: Send + Sync + 'static {
    /// Appends a purge in one atomic step, and answers with what came since `known`, up to the appended one, which is the last.
    fn append<'a>(&'a self, purge: &'a PurgeMessage, known: u64) -> LogFuture<'a, PurgeNews>;

    /// What came since `known`; if that is nothing, waits for something, not longer than `wait`. No news then means: there was nothing when this was asked.
    fn follow(&self, known: u64, wait: Duration) -> LogFuture<'_, PurgeNews>;

    /// All that is remembered. Where an instance begins, and where it has lost the thread.
    fn snapshot(&self) -> LogFuture<'_, PurgeSnapshot>;

    /// The number of the newest purge, whoever waits for news meanwhile. Asked often where values are changed by many; that of a [snapshot](Self::snapshot) by default.
    fn newest(&self) -> LogFuture<'_, u64> {
        Box::pin(async move { Ok(self.snapshot().await?.current) })
    }
}

/// What came since an instance last heard.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PurgeNews {
    /// These purges, in order and without a gap; and the number up to which purges are forgotten, since nothing is kept that long.
    Since {
        /// Number and purge.
        purges: Vec<(u64, PurgeMessage)>,
        /// What wasn't held against the purges up to this one counts as purged.
        floor: u64,
    },
    /// Something in between is missing, or the epoch is another one: the [snapshot](PurgeLog::snapshot) tells how to go on.
    Gap,
}

/// The state of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PurgeSnapshot {
    /// The number of the newest purge.
    pub current: u64,
    /// What wasn't held against the purges up to this one counts as purged.
    pub floor: u64,
    /// The newest purges of each thing, with their numbers, in any order.
    pub purges: Vec<(u64, PurgeMessage)>,
}
