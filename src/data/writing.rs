//! Values that are set or deleted: writes, which end what is being loaded under their keys, and are told to all instances that share a store before they are made.

use std::sync::Arc;

use super::DataCache;
use super::many::all;
use super::value::{Made, may_be_near};
use crate::cache::CacheCore;
use crate::coherence::Outdated;
use crate::fates::Became;
use crate::key::CacheKey;
use crate::purged::Force;
use crate::response::{Stamp, StoredResponse};
use crate::stats::{add, count};
use crate::target::Target;

impl DataCache {
    /// Stores values in the place of what is there. It returns when the far store has them as well, or has failed.
    pub(crate) async fn write(&self, values: Vec<(CacheKey, Made)>) {
        if values.is_empty() {
            return;
        }
        self.live.keep_coherent();
        let core = self.core();
        let number = self.outdate(&core, values.iter().map(|(key, _)| key)).await;
        let written = values.into_iter().map(|(key, made)| self.write_one(&core, key, made, number));
        all(written.collect()).await;
    }

    async fn write_one(&self, core: &Arc<CacheCore>, key: CacheKey, made: Made, number: Option<u64>) {
        let far = core.far_for(&key).cloned();
        // No copy of what was read before comes to the near store behind this.
        let _until_stored = far.as_ref().map(|_| core.begin_drop(&key));
        count(&self.counters().written);
        let since = made.number.or(number).unwrap_or_else(|| core.purges.current());
        let given = given(core, &key, &made, since);
        let stored = Arc::new(self.stored(core, &key, made, number.unwrap_or(since), core.now()));
        let is_good = core.loads.seal_while(&stored.stamp, || {
            let is_valid = core.purges.is_valid(&given, stored.received, &key);
            // A soft purge leaves no mark on what has a newer number.
            let is_good = is_valid && (number.is_none() || given.stale_from().is_none());
            match is_good {
                true => _ = self.put_near(core, &key, &stored),
                false => _ = self.near(core).map(|near| near.remove_because(&key, Became::Written)),
            }
            is_good
        });
        core.data.failures.forget(&key);
        if let Some(far) = far.filter(|_| is_good) {
            let put = far.put(&key, stored, 1).await;
            self.note_store_error(put);
        }
    }

    /// In the near store, if there is one and it may be there.
    pub(super) fn put_near(&self, core: &Arc<CacheCore>, key: &CacheKey, stored: &StoredResponse) -> bool {
        let is_alone = core.far_for(key).is_none();
        let near = self.near(core).filter(|_| is_alone || may_be_near(stored));
        near.map(|near| core.put_near(near, key, stored.clone())).is_some()
    }

    /// Drops what is stored under these keys; returns of how many there was something.
    pub(super) async fn remove(&self, keys: &[CacheKey]) -> usize {
        self.live.keep_coherent();
        let core = self.core();
        self.outdate(&core, keys.iter()).await;
        let removed = all(keys.iter().map(|key| self.remove_one(&core, key)).collect()).await;
        add(&self.counters().deleted, keys.len() as u64);
        removed.into_iter().filter(|removed| *removed).count()
    }

    async fn remove_one(&self, core: &Arc<CacheCore>, key: &CacheKey) -> bool {
        let far = core.far_for(key).cloned();
        let _until_removed = far.as_ref().map(|_| core.begin_drop(key));
        let near = core.loads.seal_while(&core.purges.stamp(key, 0), || {
            self.near(core).is_some_and(|near| near.remove_because(key, Became::Written))
        });
        core.data.failures.forget(key);
        let far = match far {
            Some(far) => self.note_store_error(far.remove(key).await).unwrap_or_default(),
            None => false,
        };
        near || far
    }

    /// Makes what is stored under these keys, here or in copies elsewhere, invalid by number; returns the number from which on it isn't. In memory alone nothing has to be: what is
    /// written takes the place of what is there, and costs nobody else's reads anything.
    ///
    /// If this is dropped on its way, what was to be told is told behind it.
    pub(crate) async fn outdate(&self, core: &Arc<CacheCore>, keys: impl Iterator<Item = &CacheKey>) -> Option<u64> {
        core.settings.backend.far.as_ref()?;
        let mut outdated = Outdated::new(core);
        for key in keys {
            let place = Target::place(core.purges.stamp(key, 0).resource);
            outdated.purge(place, Force::Hard, Some(key.resource()));
        }
        Some(outdated.write_patiently().await)
    }
}

/// What a value is held against purges by that came since it was given. Its own place isn't among that: it is purged by the writing itself.
fn given(core: &CacheCore, key: &CacheKey, made: &Made, since: u64) -> Stamp {
    let path = core.purges.stamp(key, 0).path;
    let mut stamp = Stamp::new(since, path, path);
    stamp.tags = made.tags.clone();
    stamp
}
