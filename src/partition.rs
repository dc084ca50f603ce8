//! [`Partitions`]: what each principal of `Policy::per` has in the store, so that none of them can fill it, and so that all of it can be
//! erased by one call. It knows only what is stored: a principal who has nothing there leaves no trace here.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::key::CacheKey;

/// The keyed digest of a principal's name, as it stands in keys.
pub(crate) type PartitionId = [u8; 16];

/// The part of a digest by which purges know a partition. The digest is as good as random, so any eight bytes are a hash.
pub(crate) fn place(id: &PartitionId) -> u64 {
    let mut place = [0; 8];
    place.copy_from_slice(&id[..8]);
    u64::from_le_bytes(place)
}

/// What one principal may have in the store under one rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quota {
    pub(crate) bytes: u64,
    pub(crate) responses: usize,
}

impl Default for Quota {
    fn default() -> Self {
        Self { bytes: 16 << 20, responses: 1024 }
    }
}

const SHARDS: usize = 16;

/// A principal under a rule, which is told by a hash; rules have quotas of their own.
type Account = (PartitionId, u64);

/// All partitions that have something stored.
#[derive(Debug, Default)]
pub(crate) struct Partitions {
    shards: [Mutex<BTreeMap<Account, Holdings>>; SHARDS],
    next: AtomicU64,
}

/// What is stored for one principal under one rule, in the order in which it was stored.
#[derive(Debug, Default)]
struct Holdings {
    bytes: u64,
    responses: BTreeMap<u64, (CacheKey, u64)>,
}

/// A response's place in the account of its principal. It belongs to the response, and ends with it: however a response leaves the store
/// (evicted, expired, replaced, purged), its account is right again.
#[derive(Debug)]
pub(crate) struct Charge {
    partitions: Arc<Partitions>,
    account: Account,
    pub(crate) number: u64,
    pub(crate) quota: Quota,
}

/// What has to leave the store so that a quota is kept.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct MakeRoom {
    /// The oldest keys of the same principal.
    pub(crate) oldest: Vec<CacheKey>,
    /// Other variants of the key that was stored, since they alone are too much.
    pub(crate) other_variants: bool,
}

impl Partitions {
    /// A place for a response that may be stored; nothing is accounted before it [is](Self::enter).
    pub(crate) fn charge(self: &Arc<Self>, id: PartitionId, rule: u64, quota: Quota) -> Charge {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Charge { partitions: self.clone(), account: (id, rule), number, quota }
    }

    /// The response of `charge` was stored under `key`. What is said to leave is no longer accounted. `stored` tells the
    /// numbers of what is stored under that key now: what was replaced may live on in the hands of who reads it, and counts no more. A store that is
    /// far away doesn't tell.
    pub(crate) fn enter(
        &self,
        charge: &Charge,
        key: &CacheKey,
        bytes: u64,
        stored: impl FnOnce() -> Option<Vec<u64>>,
    ) -> MakeRoom {
        let is_within = {
            let mut shard = self.shard(&charge.account.0);
            let holdings = shard.entry(charge.account).or_default();
            holdings.bytes += bytes;
            holdings.responses.insert(charge.number, (key.clone(), bytes));
            !holdings.exceed(charge.quota)
        };
        let mut room = MakeRoom::default();
        if is_within {
            return room;
        }
        // Not under the lock: who reads the store may be the one who frees what has left it, and that gives back charges of this shard.
        let current = stored();
        let mut shard = self.shard(&charge.account.0);
        let Some(holdings) = shard.get_mut(&charge.account) else { return room };
        if let Some(current) = current {
            holdings.forget(|number, other| number != charge.number && other == key && !current.contains(&number));
        }
        while holdings.exceed(charge.quota) {
            let oldest = holdings.responses.values().find(|(other, _)| other != key).map(|(other, _)| other.clone());
            let Some(oldest) = oldest else {
                room.other_variants = holdings.forget(|number, _| number != charge.number);
                break;
            };
            holdings.forget(|_, other| *other == oldest);
            room.oldest.push(oldest);
        }
        room
    }

    /// What the response of `charge` takes has become less.
    pub(crate) fn resize(&self, charge: &Charge, bytes: u64) {
        let mut shard = self.shard(&charge.account.0);
        let Some(holdings) = shard.get_mut(&charge.account) else { return };
        if let Some((_, counted)) = holdings.responses.get_mut(&charge.number) {
            holdings.bytes = holdings.bytes.saturating_sub(*counted).saturating_add(bytes);
            *counted = bytes;
        }
    }

    /// The keys of everything stored for a principal, under whichever rule. They are no longer accounted.
    pub(crate) fn take(&self, id: &PartitionId) -> Vec<CacheKey> {
        let mut shard = self.shard(id);
        let accounts: Vec<Account> = shard.range((*id, 0)..=(*id, u64::MAX)).map(|(key, _)| *key).collect();
        let taken = accounts.iter().filter_map(|account| shard.remove(account));
        taken.flat_map(|holdings| holdings.responses.into_values().map(|(key, _)| key)).collect()
    }

    /// How many principals have something stored, counted once for each rule.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    fn shard(&self, id: &PartitionId) -> MutexGuard<'_, BTreeMap<Account, Holdings>> {
        self.shards[usize::from(id[0]) % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Holdings {
    fn exceed(&self, quota: Quota) -> bool {
        self.bytes > quota.bytes || self.responses.len() > quota.responses
    }

    /// Forgets the responses that `which` names; tells whether there were any.
    fn forget(&mut self, which: impl Fn(u64, &CacheKey) -> bool) -> bool {
        let before = self.responses.len();
        self.responses.retain(|number, (key, bytes)| {
            let goes = which(*number, key);
            if goes {
                self.bytes = self.bytes.saturating_sub(*bytes);
            }
            !goes
        });
        self.responses.len() < before
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut shard = self.partitions.shard(&self.account.0);
        let Some(holdings) = shard.get_mut(&self.account) else { return };
        if let Some((_, bytes)) = holdings.responses.remove(&self.number) {
            holdings.bytes = holdings.bytes.saturating_sub(bytes);
        }
        if holdings.responses.is_empty() {
            shard.remove(&self.account);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: PartitionId = [1; 16];
    const QUOTA: Quota = Quota { bytes: 100, responses: 3 };

    fn key(path: &str) -> CacheKey {
        CacheKey::new(b"h", path, None)
    }

    fn store(partitions: &Arc<Partitions>, path: &str, bytes: u64) -> (Charge, MakeRoom) {
        let charge = partitions.charge(ME, 0, QUOTA);
        let room = partitions.enter(&charge, &key(path), bytes, || None);
        (charge, room)
    }

    #[test]
    fn the_oldest_leave_where_there_is_too_much_or_too_many() {
        let partitions = Arc::<Partitions>::default();
        let (_a, room) = store(&partitions, "/a", 40);
        assert_eq!(room, MakeRoom::default());
        let (_b, room) = store(&partitions, "/b", 60);
        assert_eq!(room, MakeRoom::default(), "as much as is allowed");
        let (_c, room) = store(&partitions, "/c", 1);
        assert_eq!(room.oldest, [key("/a")], "too much");
        let (_d, room) = store(&partitions, "/d", 1);
        assert_eq!(room, MakeRoom::default(), "as many as are allowed");
        let (_e, room) = store(&partitions, "/e", 1);
        assert_eq!(room.oldest, [key("/b")], "too many");
    }

    #[test]
    fn variants_of_one_key_leave_before_the_newest_of_them() {
        let partitions = Arc::<Partitions>::default();
        let (_one, _) = store(&partitions, "/a", 60);
        let (_other, room) = store(&partitions, "/a", 60);
        assert_eq!((room.oldest.len(), room.other_variants), (0, true));
        let (_b, room) = store(&partitions, "/b", 40);
        assert_eq!(room, MakeRoom::default(), "what left is not accounted");
    }

    #[test]
    fn what_was_replaced_counts_no_more_though_somebody_still_reads_it() {
        let partitions = Arc::<Partitions>::default();
        let (_old, _) = store(&partitions, "/a", 60);
        let (_other, _) = store(&partitions, "/b", 40);
        let new = partitions.charge(ME, 0, QUOTA);
        assert_eq!(partitions.enter(&new, &key("/a"), 60, || Some(vec![new.number])), MakeRoom::default());
    }

    #[test]
    fn whoever_looks_into_the_store_may_be_the_one_who_frees_what_left_it() {
        let partitions = Arc::<Partitions>::default();
        let (left, _) = store(&partitions, "/left", 60);
        let (done, is_done) = std::sync::mpsc::channel();
        std::thread::spawn({
            let partitions = partitions.clone();
            move || {
                let new = partitions.charge(ME, 0, QUOTA);
                let stored = || {
                    drop(left);
                    Some(vec![new.number])
                };
                let room = partitions.enter(&new, &key("/new"), 60, stored);
                done.send((new, room)).unwrap();
            }
        });
        let (_new, room) = is_done.recv_timeout(std::time::Duration::from_secs(10)).expect("it waits for itself");
        assert_eq!(room, MakeRoom::default(), "with what left there is room");
    }

    #[test]
    fn others_are_not_touched_and_rules_have_accounts_of_their_own() {
        let partitions = Arc::<Partitions>::default();
        let mine = store(&partitions, "/a", 100);
        for (id, rule) in [([2; 16], 0), ([17; 16], 0), (ME, 1), (ME, u64::MAX)] {
            let charge = partitions.charge(id, rule, QUOTA);
            assert_eq!(partitions.enter(&charge, &key("/x"), 100, || None), MakeRoom::default());
            std::mem::forget(charge);
        }
        assert_eq!(partitions.take(&ME).len(), 3, "all of mine, under every rule");
        assert_eq!(partitions.len(), 2, "and nobody else's");
        drop(mine);
        assert_eq!(partitions.len(), 2, "what was taken is not missed");
    }

    #[test]
    fn who_has_nothing_stored_leaves_no_trace() {
        let partitions = Arc::<Partitions>::default();
        let (charge, _) = store(&partitions, "/a", 1);
        let never_stored = partitions.charge([3; 16], 0, QUOTA);
        assert_eq!(partitions.len(), 1);
        drop((charge, never_stored));
        assert_eq!(partitions.len(), 0);
    }
}
