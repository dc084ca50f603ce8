//! [`Failures`]: errors of loaders, where the application wants them remembered. They stay in this process, as what they are.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::DataCache;
use crate::cache::CacheCore;
use crate::clock::Moment;
use crate::key::CacheKey;
use crate::response::Stamp;
use crate::used::UsedTags;

/// How many are remembered.
const MOST: u64 = 10_000;

/// An error of whatever type its loader has.
pub(crate) type Shared = Arc<dyn Any + Send + Sync>;

/// The errors that are remembered, by key.
#[derive(Default)]
pub(crate) struct Failures(OnceLock<moka::sync::Cache<CacheKey, Arc<Failure>>>);

struct Failure {
    error: Shared,
    /// A purge of what the value would have been drops it.
    stamp: Stamp,
    at: Moment,
    ttl: Duration,
}

impl Failures {
    fn all(&self) -> &moka::sync::Cache<CacheKey, Arc<Failure>> {
        self.0.get_or_init(|| moka::sync::Cache::new(MOST))
    }

    pub(super) fn remember(&self, key: &CacheKey, error: Shared, stamp: Stamp, at: Moment, ttl: Duration) {
        self.all().insert(key.clone(), Arc::new(Failure { error, stamp, at, ttl }));
    }

    /// There is a value now, or somebody wants to know whether there is.
    pub(super) fn forget(&self, key: &CacheKey) {
        if let Some(all) = self.0.get() {
            all.invalidate(key);
        }
    }
}

impl DataCache {
    /// The error that is remembered of a key, if it is of this type, and not too old or purged.
    pub(super) fn remembered<E: Send + Sync + 'static>(
        &self,
        core: &CacheCore,
        key: &CacheKey,
        now: Moment,
    ) -> Option<Arc<E>> {
        let failure = core.data.failures.0.get()?.get(key)?;
        let is_good = now.since(failure.at) < failure.ttl
            && core.coherence.is_trusted(now)
            && core.purges.is_valid(&failure.stamp, failure.at, key)
            && failure.stamp.stale_from().is_none();
        if !is_good {
            core.data.failures.forget(key);
            return None;
        }
        let error = failure.error.clone().downcast().ok()?;
        // What is made of it is made of what it came from.
        UsedTags::current().add_stamp(&failure.stamp);
        crate::stats::count(&self.counters().failures_given);
        Some(error)
    }
}

impl fmt::Debug for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failures").finish_non_exhaustive()
    }
}
