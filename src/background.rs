//! The cache's own work: refreshes behind stale answers, and fills whose client left. It is bounded, and a shutdown waits for it.

use std::collections::HashSet;
use std::time::Duration;

use crate::admission::Ask;
use crate::cache::CacheCore;
use crate::response::StoredResponse;
use crate::stats::count;
use crate::sync::{Arc, Mutex, Ordering, PoisonError};

/// How long work may take that no client waits for.
pub(crate) const LONGEST: Duration = Duration::from_secs(60);

/// The work that no client waits for: refreshes behind stale answers, one for each variant of a key, and fills whose client left. A bounded number
/// in all.
#[derive(Debug, Default)]
pub(crate) struct Background {
    running: Mutex<Running>,
}

#[derive(Debug, Default)]
struct Running {
    refreshes: HashSet<u64>,
    fills: usize,
}

/// The right to work in the background; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    background: Arc<Background>,
    /// The variant that is refreshed, if it is a refresh.
    id: Option<u64>,
}

/// Why a refresh may not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// Another one of the same variant is running.
    Running,
    /// Too much is.
    TooMany,
}

impl Background {
    /// A place for a refresh of the variant with this `id`, or, without, for the rest of a fill.
    pub(crate) fn begin(self: &Arc<Self>, id: Option<u64>, most: usize) -> Result<Place, NoPlace> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if id.is_some_and(|id| running.refreshes.contains(&id)) {
            return Err(NoPlace::Running);
        }
        if running.refreshes.len() + running.fills >= most {
            return Err(NoPlace::TooMany);
        }
        match id {
            Some(id) => _ = running.refreshes.insert(id),
            None => running.fills += 1,
        }
        Ok(Place { background: self.clone(), id })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut running = self.background.running.lock().unwrap_or_else(PoisonError::into_inner);
        match self.id {
            Some(id) => _ = running.refreshes.remove(&id),
            None => running.fills -= 1,
        }
    }
}

impl CacheCore {
    /// The right to refresh a variant, unless that is being done or too much is.
    pub(crate) fn begin_refresh(&self, ask: &Ask, stored: &StoredResponse) -> Option<Place> {
        if self.is_closing() {
            return None;
        }
        let id = self.hasher.hash_one((ask.key.as_bytes(), &stored.variance.key));
        match self.background.begin(Some(id), self.settings.max_refreshes) {
            Ok(place) => Some(place),
            Err(NoPlace::Running) => None,
            Err(NoPlace::TooMany) => {
                count(&self.counters.refreshes_refused);
                None
            }
        }
    }

    /// Goes on with a fill that no client waits for any more; as one of the refreshes, of which there is a bounded number.
    pub(crate) fn finish_unattended(&self, rest: impl Future<Output = ()> + Send + 'static) {
        let Ok(place) = self.background.begin(None, self.settings.max_refreshes) else {
            count(&self.counters.fills_abandoned);
            return;
        };
        count(&self.counters.fills_handed_over);
        self.refresh(place, rest);
    }

    /// Does in the background what there is a place for. A handler that hangs must not keep its place for ever.
    pub(crate) fn refresh(&self, place: Place, work: impl Future<Output = ()> + Send + 'static) {
        self.spawn(async move {
            let _until_done = place;
            if tokio::time::timeout(LONGEST, work).await.is_err() {
                tracing::warn!(target: "larder", "a fill without a client took longer than {LONGEST:?} and was abandoned");
            }
        });
    }

    /// Runs work of the cache's own, which a shutdown waits for and then abandons.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        // A body may be dropped, and so a fill end, anywhere; to panic there would be worse than to leave the work undone.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            tracing::warn!("there is no tokio runtime here: a refresh is not made, or a response not stored");
            return;
        };
        let abandon = self.abandon.clone();
        let work = async move {
            abandon.run_until_cancelled(work).await;
        };
        self.tasks.spawn_on(work, &runtime);
    }

    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.closed.cancel();
        self.sweeper.end();
        self.coherence.stopped.cancel();
        self.tasks.close();
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_refresh_for_each_variant_and_a_bounded_number_in_all() {
        let background = Arc::new(Background::default());
        let first = background.begin(Some(1), 3).unwrap();
        assert_eq!(background.begin(Some(1), 3).unwrap_err(), NoPlace::Running);
        let _second = background.begin(Some(2), 3).unwrap();
        let fill = background.begin(None, 3).unwrap();
        assert_eq!(background.begin(Some(3), 3).unwrap_err(), NoPlace::TooMany);
        assert_eq!(background.begin(None, 3).unwrap_err(), NoPlace::TooMany);
        drop(fill);
        assert!(background.begin(None, 3).is_ok() && background.begin(Some(3), 3).is_ok());
        drop(first);
        assert!(background.begin(Some(1), 3).is_ok());
    }
}
