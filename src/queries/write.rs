//! [`Write`]: a transaction that drops what its models' results are when it is committed, and not before.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use sqlx::{Database, Transaction};

use super::model;
use crate::coherence::Outdated;
use crate::live::Live;
use crate::purged::Force;
use crate::target::Target;

/// A transaction that writes to some models. It is used as the connection that it is: `query.execute(&mut *write)`.
///
/// - [Committed](Self::commit), it drops the results of its models, and the responses made from them.
/// - So it does where nobody can tell whether it was committed: the connection broke, or the task that waited for it is gone.
/// - [Rolled back](Self::rollback), or dropped before it was to be committed, it drops nothing.
///
/// A load that began before the commit and read what was there before is never kept: its number is smaller than that of the purge behind the commit.
#[must_use = "a transaction that isn't committed is rolled back"]
pub struct Write<DB: Database> {
    live: Arc<Live>,
    transaction: Transaction<'static, DB>,
    tags: Vec<String>,
}

impl<DB: Database> Write<DB> {
    pub(super) fn new(live: Arc<Live>, transaction: Transaction<'static, DB>, tags: Vec<String>) -> Self {
        Self { live, transaction, tags }
    }

    /// It writes to this model as well.
    pub fn also(&mut self, model: &str) {
        self.tags.push(model::tag_of(model));
    }

    /// Commits it, and drops the results of its models. When this returns, nothing that was read before is given any more: here, and by other instances that share the store within
    /// [`CacheLayer::staleness_bound`](crate::CacheLayer::staleness_bound).
    ///
    /// # Errors
    /// If the database says so, or can't be reached any more. It may be committed all the same, so the results are dropped in this case too.
    pub async fn commit(self) -> Result<(), sqlx::Error> {
        let outcome = Unknown { live: &self.live, tags: &self.tags, is_known: false };
        let committed = self.transaction.commit().await;
        outcome.known().await;
        committed
    }

    /// Ends it without a trace.
    ///
    /// # Errors
    /// If the database can't be reached any more. It is rolled back when the connection ends.
    pub async fn rollback(self) -> Result<(), sqlx::Error> {
        self.transaction.rollback().await
    }
}

/// A transaction that is being committed. Dropped before anybody knows what came of it, it may have been.
struct Unknown<'a> {
    live: &'a Arc<Live>,
    tags: &'a [String],
    is_known: bool,
}

impl Unknown<'_> {
    async fn known(mut self) {
        let outdated = self.outdated();
        self.is_known = true;
        _ = outdated.write().await;
    }

    /// The purge, under one number.
    fn outdated(&self) -> Outdated {
        self.live.keep_coherent();
        let core = self.live.load_full();
        let mut outdated = Outdated::new(&core);
        let targets = self.tags.iter().map(|tag| core.target_of_tag(tag).unwrap_or(Target::Everything));
        targets.for_each(|target| outdated.purge(target, Force::Hard, None));
        outdated
    }
}

impl Drop for Unknown<'_> {
    fn drop(&mut self) {
        if !self.is_known {
            self.outdated().write_behind();
        }
    }
}

impl<DB: Database> Deref for Write<DB> {
    type Target = DB::Connection;

    fn deref(&self) -> &DB::Connection {
        &self.transaction
    }
}

impl<DB: Database> DerefMut for Write<DB> {
    fn deref_mut(&mut self) -> &mut DB::Connection {
        &mut self.transaction
    }
}

impl<DB: Database> fmt::Debug for Write<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Write").field("tags", &self.tags).finish_non_exhaustive()
    }
}
