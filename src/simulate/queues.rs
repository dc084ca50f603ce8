//! [`Queues`]: FIFO and S3-FIFO, to be compared with what the memory store does. One thread, exact bounds, and nothing that isn't needed to know who leaves.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::key::CacheKey;
use crate::response::StoredResponse;
use crate::storage::StorageUsage;

/// A store in which entries stand in queues.
///
/// FIFO has one, the main one. S3-FIFO (Yang and others, "FIFO queues are all you need for cache eviction", SOSP 2023) has a small one before it, for a tenth of the
/// bytes: who isn't read there twice goes, and only its hash is remembered; who comes again while it is goes to the main one at once. There, who was read stands
/// behind once more.
pub(super) struct Queues {
    capacity: u64,
    max_entries: u64,
    /// Of the small queue; zero where there is none.
    small_part: u64,
    entries: HashMap<CacheKey, Entry>,
    small: Queue,
    main: Queue,
    ghosts: Ghosts,
    numbers: u64,
    evictions: u64,
}

struct Entry {
    response: StoredResponse,
    bytes: u64,
    reads: u8,
    is_small: bool,
    /// Tells it from what had its key before and still stands in a queue.
    number: u64,
}

#[derive(Default)]
struct Queue {
    order: VecDeque<(CacheKey, u64)>,
    bytes: u64,
}

/// Hashes of keys that left the small queue, as many as there are entries in the main one.
#[derive(Default)]
struct Ghosts {
    order: VecDeque<u64>,
    hashes: HashSet<u64>,
}

/// Of S3-FIFO: more reads than that say no more.
const MOST_READS: u8 = 3;

/// So many places that nobody stands in matter to nobody.
const FEW: usize = 64;

impl Queues {
    pub(super) fn fifo(capacity: u64, max_entries: Option<u64>) -> Self {
        Self {
            capacity,
            max_entries: max_entries.unwrap_or(u64::MAX),
            small_part: 0,
            entries: HashMap::new(),
            small: Queue::default(),
            main: Queue::default(),
            ghosts: Ghosts::default(),
            numbers: 0,
            evictions: 0,
        }
    }

    pub(super) fn s3_fifo(capacity: u64, max_entries: Option<u64>) -> Self {
        Self { small_part: (capacity / 10).max(1), ..Self::fifo(capacity, max_entries) }
    }

    pub(super) fn read<R>(&mut self, key: &CacheKey, choose: impl FnOnce(&[StoredResponse]) -> R) -> R {
        let Some(entry) = self.entries.get_mut(key) else { return choose(&[]) };
        entry.reads = (entry.reads + 1).min(MOST_READS);
        choose(std::slice::from_ref(&entry.response))
    }

    /// What has the key already stays where it stands.
    pub(super) fn put(&mut self, key: &CacheKey, response: StoredResponse) {
        let bytes = (key.as_bytes().len() + response.size()) as u64;
        if bytes > self.capacity {
            return self.remove(key);
        }
        if let Some(entry) = self.entries.get_mut(key) {
            let queue = if entry.is_small { &mut self.small } else { &mut self.main };
            queue.bytes = queue.bytes - entry.bytes + bytes;
            (entry.response, entry.bytes) = (response, bytes);
        } else {
            let is_small = self.small_part > 0 && !self.ghosts.take(hash(key));
            self.enter(key.clone(), Entry { response, bytes, reads: 0, is_small, number: 0 });
        }
        while self.small.bytes + self.main.bytes > self.capacity || self.entries.len() as u64 > self.max_entries {
            self.evict();
        }
    }

    pub(super) fn remove(&mut self, key: &CacheKey) {
        if let Some(entry) = self.entries.remove(key) {
            self.queue(entry.is_small).bytes -= entry.bytes;
            self.close_ranks();
        }
    }

    /// Those who were removed leave their places, when most places are theirs.
    fn close_ranks(&mut self) {
        let places = self.small.order.len() + self.main.order.len();
        if places > 2 * self.entries.len() + FEW {
            let entries = &self.entries;
            let stands =
                |(key, number): &(CacheKey, u64)| entries.get(key).is_some_and(|entry| entry.number == *number);
            self.small.order.retain(stands);
            self.main.order.retain(stands);
        }
    }

    pub(super) fn has(&self, key: &CacheKey) -> bool {
        self.entries.contains_key(key)
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (&CacheKey, &[StoredResponse])> {
        self.entries.iter().map(|(key, entry)| (key, std::slice::from_ref(&entry.response)))
    }

    pub(super) fn usage(&self) -> StorageUsage {
        StorageUsage {
            entries: self.entries.len() as u64,
            bytes: self.small.bytes + self.main.bytes,
            evictions: self.evictions,
        }
    }

    fn queue(&mut self, is_small: bool) -> &mut Queue {
        if is_small { &mut self.small } else { &mut self.main }
    }

    fn enter(&mut self, key: CacheKey, mut entry: Entry) {
        self.numbers += 1;
        entry.number = self.numbers;
        let queue = if entry.is_small { &mut self.small } else { &mut self.main };
        queue.bytes += entry.bytes;
        queue.order.push_back((key.clone(), entry.number));
        self.entries.insert(key, entry);
    }

    /// Takes a step towards room: one who stands in front leaves, or stands behind once more.
    fn evict(&mut self) {
        let is_small = self.small_part > 0 && (self.small.bytes > self.small_part || self.main.order.is_empty());
        let Some((key, number)) = self.queue(is_small).order.pop_front() else { return };
        let is_meant = |entry: &Entry| entry.number == number;
        let Some(mut entry) = self.entries.get(&key).is_some_and(is_meant).then(|| self.entries.remove(&key)).flatten()
        else {
            return;
        };
        self.queue(is_small).bytes -= entry.bytes;
        if is_small && entry.reads > 1 {
            (entry.is_small, entry.reads) = (false, 0);
            self.enter(key, entry);
        } else if !is_small && self.small_part > 0 && entry.reads > 0 {
            entry.reads -= 1;
            self.enter(key, entry);
        } else {
            self.evictions += 1;
            if is_small {
                self.ghosts.add(hash(&key), self.main.order.len());
            }
        }
    }
}

impl Ghosts {
    fn add(&mut self, hash: u64, most: usize) {
        if self.hashes.insert(hash) {
            self.order.push_back(hash);
        }
        while self.order.len() > most {
            let first = self.order.pop_front();
            first.iter().for_each(|hash| _ = self.hashes.remove(hash));
        }
    }

    /// Whether it was there; it isn't any more. Its place in the order stays until its turn.
    fn take(&mut self, hash: u64) -> bool {
        self.hashes.remove(&hash)
    }
}

/// The same on every run.
fn hash(key: &CacheKey) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}
