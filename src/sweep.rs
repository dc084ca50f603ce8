//! Walks through the store in memory: what a purge would touch.

use tokio::task::yield_now;

use crate::cache::CacheCore;
use crate::selector::{DryRun, PurgeError, Selector};
use crate::storage::backend::Backend;
use crate::storage::scan::Entry;

/// How many entries are looked at before others run.
const STEP: usize = 256;

impl CacheCore {
    /// Counts what a purge would touch, as far as it is valid now.
    pub(crate) async fn dry_run(&self, selector: &Selector) -> Result<DryRun, PurgeError> {
        let target = self.target(selector, |key, any| self.searches.known_tag(key, any))?;
        let mut found = DryRun::default();
        self.walk(|entry| {
            let is_touched = |stamp| target.touches(stamp, &entry.key) && self.purges.is_valid(stamp);
            let touched = entry.variants.iter().filter(|stored| is_touched(&stored.stamp));
            let (responses, bytes) = touched.fold((0, 0), |(n, bytes), stored| (n + 1, bytes + stored.size() as u64));
            found.entries += u64::from(responses > 0);
            found.responses += responses;
            found.bytes += bytes;
        })
        .await?;
        Ok(found)
    }

    /// Visits all that is stored, in steps between which others run.
    pub(crate) async fn walk(&self, mut visit: impl FnMut(Entry<'_>) + Send) -> Result<(), PurgeError> {
        let Backend::Memory(memory) = &self.settings.backend else { return Err(PurgeError::Unscannable) };
        let mut scan = memory.scan();
        while scan.step(STEP, &mut visit) {
            yield_now().await;
        }
        Ok(())
    }
}
