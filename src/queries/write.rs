//! [`Write`]: a transaction that drops what its models' results are when it is committed, and not before.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use sqlx::{Database, Transaction};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tracing::Instrument;

use super::model;
use crate::coherence::Outdated;
use crate::live::Live;
use crate::purged::Force;
use crate::target::Target;

/// A transaction that writes to some models. It is used as the connection that it is: `query.execute(&mut *write)`.
///
/// - [Committed](Self::commit), it drops the results of its models, and the responses made from them.
/// - So it does where nobody can tell whether it was committed: the connection broke, or the cache was shut down meanwhile. If only who waits for it is gone, it is committed all the same, and drops
///   them then.
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
    /// If the database says so, or can't be reached any more. It may be committed all the same, so the results are dropped in this case too. [`WorkerCrashed`](sqlx::Error::WorkerCrashed) if the driver
    /// panics, or a shutdown of the cache doesn't wait for it.
    pub async fn commit(self) -> Result<(), sqlx::Error> {
        let Self { live, transaction, tags } = self;
        let core = live.load_full();
        let outcome = Unknown { live, tags, is_known: false };
        let (tell, told) = oneshot::channel();
        let work = async move {
            let committed = transaction.commit().await;
            outcome.known().await;
            // Nobody may be there any more to hear it.
            _ = tell.send(committed);
        };
        // A task of the cache's own goes on when who waits here leaves: else the purge would come before what it is for, as the commit is on its way already.
        if Handle::try_current().is_ok() && !core.abandon.is_cancelled() {
            core.spawn(work.in_current_span());
        } else {
            work.await;
        }
        told.await.unwrap_or(Err(sqlx::Error::WorkerCrashed))
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
struct Unknown {
    live: Arc<Live>,
    tags: Vec<String>,
    is_known: bool,
}

impl Unknown {
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

impl Drop for Unknown {
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
