//! What makes stored responses invalid: writes (RFC 9111 §4.4), the erasure of a principal, and answers that speak against what is stored.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use smallvec::SmallVec;

use crate::cache::CacheCore;
use crate::coherence::Outdated;
use crate::error::StorageError;
use crate::fates::Became;
use crate::key::{CacheKey, Origin};
use crate::policy::digest;
use crate::purged::Force;
use crate::response::Stamp;
use crate::selector::{PurgeError, Reach, Receipt, Selector};
use crate::stats::count;
use crate::target::Target;

impl CacheCore {
    /// Purges what a selector names. It has taken effect before the store is asked to give memory back.
    pub(crate) async fn purge(&self, selector: &Selector, soft: bool) -> Result<Receipt, PurgeError> {
        let target = self.target(selector, |key, any| self.searches.touch(key, any))?;
        let force = if soft { Force::Soft(self.now()) } else { Force::Hard };
        // Others know their principals by keys of their own.
        let is_told =
            self.shares_partitions || !matches!(selector, Selector::Partition(_)) || !self.coherence.has_log();
        let (number, reach) =
            self.purge_with_others(if is_told { &target } else { &Target::Everything }, force).await?;
        if !soft {
            self.erase(selector, number).await?;
        }
        Ok(Receipt { number, reach, refreshing: None })
    }

    /// Purges on all instances, where there are others.
    pub(crate) async fn purge_with_others(&self, target: &Target, force: Force) -> Result<(u64, Reach), PurgeError> {
        let made = match self.coherence.has_log() {
            true => (self.purge_everywhere(target, force).await?, Reach::AllInstances),
            false => (self.purge_target(target, force), Reach::ThisProcess),
        };
        count(&self.counters.purges);
        Ok(made)
    }

    /// Purges by a number of this process. First the purge is in the index, then fills in flight are closed: what is stored in between is held against it. Returns the number.
    pub(crate) fn purge_target(&self, target: &Target, force: Force) -> u64 {
        let number = self.purges.purge(target, force);
        self.close_flights(target);
        self.sweep_soon();
        number
    }

    /// Deletes what is known by key of what was purged, and tells what became of it. The sweep finds all else that is in memory.
    async fn erase(&self, selector: &Selector, number: u64) -> Result<(), StorageError> {
        let purged = Became::Purged { number: Some(number) };
        let (near, far) = (&self.settings.backend.near, &self.settings.backend.far);
        match selector {
            Selector::Partition(principal) => {
                let mut failed = None;
                for key in self.partitions.take(&digest(&self.secret, principal)) {
                    match near {
                        Some(near) => _ = near.remove_because(&key, purged),
                        None => self.fates.note(key.as_bytes(), purged),
                    }
                    // One that fails must not keep the others there.
                    if let Some(far) = far {
                        failed = far.remove(&key).await.err().or(failed);
                    }
                }
                // What other instances have stored there.
                if let Some(far) = far.as_ref().filter(|_| self.shares_partitions) {
                    failed = far.erase(&digest(&self.secret, principal)).await.err().or(failed);
                }
                failed.map_or(Ok(()), Err)
            }
            Selector::Everything => {
                self.fates.note_all(number);
                self.clear_memories(number);
                match far {
                    Some(far) => far.clear().await,
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// Drops a stored response that turned out to be wrong. Fills in flight began earlier or know no better, so they aren't stored either.
    pub(crate) fn forget(self: &Arc<Self>, key: &CacheKey) {
        self.flights.seal_resource(&self.purges.stamp(key, 0));
        self.drop_key(key);
    }

    /// Drops what is stored under a key, and leaves fills in flight alone.
    pub(crate) fn drop_key(self: &Arc<Self>, key: &CacheKey) {
        let backend = &self.settings.backend;
        let dropping = backend.far.as_ref().map(|far| (self.begin_drop(key), far.clone()));
        backend.near.iter().for_each(|near| _ = near.remove_now(key));
        if let Some((dropping, far)) = dropping {
            let (cache, key) = (self.clone(), key.clone());
            self.spawn(async move {
                let _until_removed = dropping;
                let removed = far.remove(&key).await;
                cache.note_store_error(removed, &key);
            });
        }
    }

    /// Makes a resource invalid after a write (§4.4): fills in flight are sealed, what is stored goes.
    ///
    /// In memory the key is deleted and the number of purges stays, so that writes cost readers nothing. That isn't enough where
    /// keys have additions that the write doesn't know, or where the store is far away: there the resource is purged by number, on all instances that share it.
    ///
    /// Without an `authority` the target is meant on every host.
    pub(crate) fn invalidate(&self, authority: Option<&[u8]>, target: &str, outdated: &mut Outdated) {
        count(&self.counters.invalidations);
        for key in self.resource_keys(authority.unwrap_or_default(), target) {
            let stamp = self.purges.stamp(&key, 0);
            self.purge_with(authority, &key, &stamp, outdated);
            if authority.is_none() {
                outdated.purge(Target::place(stamp.path), Force::Hard, Some(key.path_and_query()));
                continue;
            }
            self.flights.seal_resource(&stamp);
            let backend = &self.settings.backend;
            backend.near.iter().for_each(|near| _ = near.remove_because(&key, Became::Written));
            if backend.far.is_some() || self.keys_have_additions.load(Ordering::Acquire) {
                outdated.purge(Target::place(stamp.resource), Force::Hard, Some(key.resource()));
            }
        }
    }

    /// Purges what goes with a resource that is written to: what shares a group with it (RFC 9875 §2.2.1), and not what shares one with that; and
    /// what is stored for other spellings of it.
    fn purge_with(&self, authority: Option<&[u8]>, key: &CacheKey, stamp: &Stamp, outdated: &mut Outdated) {
        if let Some(tags) = self.groups.linked(if authority.is_none() { stamp.path } else { stamp.resource }) {
            outdated.purge(self.tags_on(authority, &tags), Force::Hard, None);
        }
        // What answers this URI though it was stored for another one of its path, by `No-Vary-Search`.
        if let Some(tag) = self.searches.touch(key, authority.is_none()) {
            outdated.purge(self.tags_on(authority, &[tag]), Force::Hard, None);
        }
    }

    /// Makes groups invalid that the response to a write names (RFC 9875 §3). They are of its origin only.
    pub(crate) fn invalidate_groups(&self, origin: Origin<'_>, names: &[String], outdated: &mut Outdated) {
        count(&self.counters.invalidations);
        outdated.purge(self.tags_on(origin.authority, &self.groups.of_write(origin, names)), Force::Hard, None);
    }

    /// What has one of these tags; on the authority only, if there is one.
    fn tags_on(&self, authority: Option<&[u8]>, tags: &[u64]) -> Target {
        Target::tags(tags, authority.map(|authority| self.groups.authority(Some(authority))))
    }

    /// The keys of a path with query: as its rule canonicalises it, and as rules of earlier generations may have.
    pub(crate) fn resource_keys(&self, authority: &[u8], target: &str) -> SmallVec<[CacheKey; 1]> {
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let current = &self.rules.route(path).policy.query;
        let mut keys = SmallVec::new();
        for rule in [current].into_iter().chain(&self.retired) {
            let key = CacheKey::new(authority, path, rule.keyed(query).as_deref());
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        keys
    }
}
