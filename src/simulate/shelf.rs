//! [`Shelf`]: where a simulated instance keeps what it stores: the very memory store of a cache, or one that only a simulation has.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::Eviction;
use super::queues::Queues;
use crate::key::CacheKey;
use crate::response::StoredResponse;
use crate::storage::{self, MemoryStore, Storage, StorageUsage};

pub(super) struct Shelf {
    store: Store,
    expiries: Expiries,
    /// Reads since the store looked after itself.
    untold: u32,
}

enum Store {
    Memory(Box<MemoryStore>),
    Queues(Box<Queues>),
}

/// The memory store looks after itself when it was written to so often, or a while after it did so last; so it is done here, where that time doesn't pass.
const UNTOLD: u32 = 64;

/// As many keys are kept without a look.
const FEW: usize = 1024;

/// When the time of what is stored is over, in simulated time. The memory store goes by the machine's own.
struct Expiries {
    of: HashMap<CacheKey, Duration>,
    /// One for each key of [`of`](Self::of), at its time or earlier.
    next: BTreeMap<Duration, Vec<CacheKey>>,
    /// With more keys than that, it is looked which of them are stored still.
    most: usize,
}

impl Shelf {
    /// Of so many bytes. Hashes, and with them all that follows, are by `seed`.
    pub(super) fn new(capacity: u64, max_entries: Option<u64>, eviction: Eviction, seed: u64) -> Self {
        let memory = |eviction, every_read| {
            let store = MemoryStore::new(capacity).eviction(eviction).simulated(seed, every_read);
            Store::Memory(Box::new(max_entries.into_iter().fold(store, MemoryStore::max_entries)))
        };
        let store = match eviction {
            Eviction::TinyLfu => memory(storage::Eviction::TinyLfu, false),
            Eviction::TinyLfuEveryRead => memory(storage::Eviction::TinyLfu, true),
            Eviction::Lru => memory(storage::Eviction::Lru, true),
            Eviction::Fifo => Store::Queues(Box::new(Queues::fifo(capacity, max_entries))),
            Eviction::S3Fifo => Store::Queues(Box::new(Queues::s3_fifo(capacity, max_entries))),
        };
        Self { store, expiries: Expiries::default(), untold: 0 }
    }

    /// Calls `choose` with the variants of a key; that counts as a use of it.
    pub(super) fn read<R>(&mut self, key: &CacheKey, choose: impl FnOnce(&[StoredResponse]) -> R) -> R {
        self.untold += 1;
        if self.untold >= UNTOLD {
            self.sweep();
        }
        match &mut self.store {
            Store::Memory(store) => store.read(key, choose),
            Store::Queues(queues) => queues.read(key, choose),
        }
    }

    /// Puts a response in the place of what has the key; it goes at `end` if not before.
    pub(super) fn put(&mut self, key: &CacheKey, response: StoredResponse, end: Duration) {
        self.expiries.set(key, end);
        match &mut self.store {
            Store::Memory(store) => store.put_now(key, response, 1),
            Store::Queues(queues) => queues.put(key, response),
        }
        if self.expiries.of.len() > self.expiries.most {
            self.expiries.forget(|key| match &self.store {
                Store::Memory(store) => store.peek(key, |variants| !variants.is_empty()),
                Store::Queues(queues) => queues.has(key),
            });
        }
    }

    /// When what has this key goes, if nothing removes it before.
    pub(super) fn end(&self, key: &CacheKey) -> Option<Duration> {
        self.expiries.of.get(key).copied()
    }

    pub(super) fn remove(&mut self, key: &CacheKey) {
        match &mut self.store {
            Store::Memory(store) => _ = store.remove_now(key),
            Store::Queues(queues) => queues.remove(key),
        }
    }

    /// Drops what doesn't stay.
    pub(super) fn retain(&mut self, stays: impl Fn(&CacheKey, &StoredResponse) -> bool) {
        let mut gone = Vec::new();
        let mut look = |key: CacheKey, variants: &[StoredResponse]| {
            if !variants.iter().all(|variant| stays(&key, variant)) {
                gone.push(key);
            }
        };
        match &self.store {
            Store::Memory(store) => {
                let mut scan = store.scan();
                while scan.step(1024, |entry| look(entry.key, entry.variants)) {}
            }
            Store::Queues(queues) => queues.entries().for_each(|(key, variants)| look(key.clone(), variants)),
        }
        gone.iter().for_each(|key| self.remove(key));
    }

    /// Drops what has come to its end.
    pub(super) fn expire(&mut self, now: Duration) {
        while let Some(key) = self.expiries.take(now) {
            self.remove(&key);
        }
    }

    /// Does what the store does now and then.
    pub(super) fn sweep(&mut self) {
        self.untold = 0;
        if let Store::Memory(store) = &self.store {
            store.sweep();
        }
    }

    pub(super) fn usage(&self) -> StorageUsage {
        match &self.store {
            Store::Memory(store) => Storage::usage(&**store),
            Store::Queues(queues) => queues.usage(),
        }
    }
}

impl Default for Expiries {
    fn default() -> Self {
        Self { of: HashMap::new(), next: BTreeMap::new(), most: FEW }
    }
}

impl Expiries {
    /// Forgets the keys that aren't stored any more. What is left may double before that is done again.
    fn forget(&mut self, is_stored: impl Fn(&CacheKey) -> bool) {
        self.of.retain(|key, _| is_stored(key));
        self.next.values_mut().for_each(|keys| keys.retain(|key| self.of.contains_key(key)));
        self.next.retain(|_, keys| !keys.is_empty());
        self.most = FEW.max(2 * self.of.len());
    }

    fn set(&mut self, key: &CacheKey, end: Duration) {
        match self.of.get_mut(key) {
            // It is looked at earlier, and then once more.
            Some(known) => *known = end,
            None => {
                self.of.insert(key.clone(), end);
                self.next.entry(end).or_default().push(key.clone());
            }
        }
    }

    /// A key whose end has come.
    fn take(&mut self, now: Duration) -> Option<CacheKey> {
        loop {
            let mut first = self.next.first_entry().filter(|first| *first.key() <= now)?;
            let Some(key) = first.get_mut().pop() else {
                first.remove();
                continue;
            };
            match self.of.get(&key).copied() {
                Some(end) if end > now => self.next.entry(end).or_default().push(key),
                _ => {
                    self.of.remove(&key);
                    return Some(key);
                }
            }
        }
    }
}
