//! The store in memory. What is new stands in a queue first (see `window.rs`); of the rest moka decides what stays (TinyLFU or LRU, bounded by weight, expired entries leave); reads don't go through it but
//! through a lock-free index, and tell moka about themselves only now and then, less and less often. That is several times cheaper and changes little in what moka
//! knows: its sketch of frequencies is an estimate in any case. Of what was asked for in vain it hears when that is stored.

mod index;
mod places;
mod swapping;
mod window;

use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use moka::policy::EvictionPolicy;
use smallvec::SmallVec;

use self::index::{Index, Slot};
use self::places::Place;
use self::window::Window;
use super::policy_key::{IndexKey, Known, PolicyKey, Sought};
use super::scan::Scan;
use super::{Query, Storage, StorageUsage, Swap, Swapped, Variants, with_newer};
use crate::error::StorageError;
use crate::fates::{Became, Fates};
use crate::key::CacheKey;
use crate::nearby::Nearby;
use crate::response::StoredResponse;
use crate::sync::{Mutex, MutexGuard, PoisonError, sized};

/// Which entries leave first when there is no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Eviction {
    /// Those that are asked for least, with an entry ticket for newcomers (W-TinyLFU): a crawler can't wash out what is popular.
    #[default]
    TinyLfu,
    /// Those that were asked for longest ago. Every read is told to moka, so reads cost more than with TinyLFU.
    Lru,
}

/// Responses in this process' memory, bounded by bytes (key, head and body counted) and, if wanted, by entries.
///
/// ```
/// use larder::storage::{Eviction, MemoryStore};
/// let store = MemoryStore::new(64 << 20).max_entries(100_000).eviction(Eviction::Lru);
/// ```
pub struct MemoryStore {
    settings: Settings,
    /// Of the cache that it belongs to.
    fates: Option<Arc<Fates>>,
    /// Made on first use, so that the setters can come before.
    inner: std::sync::OnceLock<Inner>,
}

#[derive(Clone, Copy, Debug)]
struct Settings {
    capacity: u64,
    max_entries: Option<u64>,
    eviction: Eviction,
    simulated: Option<Simulated>,
}

/// What a simulation wants otherwise.
#[derive(Clone, Copy, Debug)]
struct Simulated {
    /// Of the hashes, so that the same entries leave on every run.
    seed: u64,
    every_read: bool,
}

pub(super) struct Inner {
    pub(super) index: Arc<Index>,
    pub(super) policy: moka::sync::Cache<PolicyKey, Token, BuildHasherDefault<Known>>,
    /// Before it.
    pub(super) window: Window,
    /// The weight that moka may keep.
    policy_room: u64,
    /// Writers of one key take turns, so that index and policy see them in the same order.
    turns: [Mutex<()>; TURNS],
    hasher: ahash::RandomState,
    next: AtomicU64,
    every_read: bool,
}

const TURNS: usize = sized(64, 2);

/// As many slots that were replaced or removed give their memory back together: to know that nobody reads them any more takes a call of the system, which stops all threads for a moment.
const RETIRED_TOGETHER: usize = 32;

/// With TinyLFU, one read in this many is told to moka; and the first, second, fourth, eighth and so on, which tell what is asked for seldom from what is never.
/// `cargo run --release --example simulate -- --evidence` shows what that costs in hits.
const SAMPLE: u32 = 64;

/// What moka holds for a slot.
#[derive(Clone, Copy)]
pub(super) struct Token {
    number: u64,
    weight: u32,
    keep: Duration,
}

impl MemoryStore {
    /// A store of at most `capacity` bytes. With [`Eviction::TinyLfu`] a twentieth of them is for what is new, so an entry that takes more than the rest is not kept.
    pub fn new(capacity: u64) -> Self {
        let settings = Settings { capacity, max_entries: None, eviction: Eviction::default(), simulated: None };
        Self { settings, fates: None, inner: std::sync::OnceLock::new() }
    }

    /// Bounds the number of keys as well; not bounded by default.
    #[must_use]
    pub fn max_entries(mut self, most: u64) -> Self {
        self.settings.max_entries = Some(most);
        self
    }

    /// Which entries leave first; [`Eviction::TinyLfu`] by default.
    #[must_use]
    pub fn eviction(mut self, eviction: Eviction) -> Self {
        self.settings.eviction = eviction;
        self
    }

    /// The same with hashes by a seed, and its policy told of some reads or of every one.
    #[cfg(feature = "simulate")]
    pub(crate) fn simulated(mut self, seed: u64, every_read: bool) -> Self {
        self.settings.simulated = Some(Simulated { seed, every_read });
        self
    }

    /// Its bounds: bytes, keys, and who leaves first.
    #[cfg(feature = "simulate")]
    pub(crate) fn bounds(&self) -> (u64, Option<u64>, Eviction) {
        (self.settings.capacity, self.settings.max_entries, self.settings.eviction)
    }

    /// How many bytes it holds at most.
    #[cfg(feature = "data")]
    pub(crate) fn capacity(&self) -> u64 {
        self.settings.capacity
    }

    /// Its bounds, for people: bytes, keys, and who leaves first.
    pub(crate) fn described(&self) -> [(&'static str, String); 3] {
        let Settings { capacity, max_entries, eviction, .. } = self.settings;
        let entries = max_entries.map_or("none".into(), |most| most.to_string());
        [("capacity", capacity.to_string()), ("max_entries", entries), ("eviction", format!("{eviction:?}"))]
    }

    /// An empty store with the same settings, which tells what becomes of its keys.
    pub(crate) fn for_cache(&self, fates: &Arc<Fates>) -> Self {
        Self { settings: self.settings, fates: Some(fates.clone()), inner: std::sync::OnceLock::new() }
    }

    /// Lets what has expired or been evicted go now. Happens on its own while the store is written to, but for what is new: that goes when all that came before it has.
    pub fn sweep(&self) {
        let inner = self.inner();
        inner.tidy_window();
        inner.policy.run_pending_tasks();
    }

    /// Calls `choose` with the variants of a key, without waiting and without copying them.
    pub(crate) fn read<R>(&self, key: &CacheKey, choose: impl FnOnce(&[StoredResponse]) -> R) -> R {
        let inner = self.inner();
        let slots = inner.index.slots.pin();
        let sought = inner.sought(key.as_bytes());
        let Some(slot) = slots.get(&sought) else { return choose(&[]) };
        if let Some(newest) = slot.variants.first() {
            newest.approach();
        }
        let reads = slot.reads.load(Ordering::Relaxed).wrapping_add(1);
        slot.reads.store(reads, Ordering::Relaxed);
        if inner.every_read || reads % SAMPLE == 0 || reads.is_power_of_two() {
            inner.policy.get(&sought);
        }
        choose(&slot.variants)
    }

    /// The same without being a read: neither who leaves first nor anything else is changed by it.
    pub(crate) fn peek<R>(&self, key: &CacheKey, look: impl FnOnce(&[StoredResponse]) -> R) -> R {
        let inner = self.inner();
        let slots = inner.index.slots.pin();
        look(slots.get(&inner.sought(key.as_bytes())).map_or(&[], |slot| &slot.variants))
    }

    /// Whether memory for what comes is mostly that of what leaves.
    pub(crate) fn is_full(&self) -> bool {
        let (index, capacity) = (&self.inner().index, self.settings.capacity);
        index.evictions.load(Ordering::Relaxed) > 0 && index.bytes.load(Ordering::Relaxed) > capacity - capacity / 16
    }

    pub(crate) fn put_now(&self, key: &CacheKey, response: StoredResponse, most: usize) {
        let (inner, now) = (self.inner(), Instant::now());
        let sought = inner.sought(key.as_bytes());
        let turn = inner.turn(&sought);
        let slots = inner.index.slots.pin();
        let old = slots.get(&sought);
        let variants = with_newer(old.map_or(&[], |slot| &slot.variants), response, most);
        self.set(&sought, variants, old, now);
        drop(turn);
        inner.keep_bounds(self.settings.capacity, now);
    }

    /// Puts another response in the place of the first one for which `change` makes one, if there is any. Nothing is put, removed or purged by key
    /// between the look and the change. Returns what was put.
    pub(crate) fn change_now(
        &self,
        key: &CacheKey,
        change: impl Fn(&StoredResponse) -> Option<StoredResponse>,
    ) -> Option<StoredResponse> {
        let (inner, now) = (self.inner(), Instant::now());
        let sought = inner.sought(key.as_bytes());
        let turn = inner.turn(&sought);
        let slots = inner.index.slots.pin();
        let slot = slots.get(&sought)?;
        let variants = &slot.variants;
        let (place, changed) = variants.iter().enumerate().find_map(|(n, stored)| Some((n, change(stored)?)))?;
        let mut variants = variants.clone();
        variants[place] = changed.clone();
        self.set(&sought, variants, Some(slot), now);
        drop(turn);
        inner.keep_bounds(self.settings.capacity, now);
        Some(changed)
    }

    /// Drops the responses under a key for which `stays` isn't true. Nothing is put, removed or purged by key between the look and that. Returns how many were dropped.
    pub(crate) fn retain_now(&self, key: &CacheKey, stays: impl Fn(&StoredResponse) -> bool) -> usize {
        let (inner, now) = (self.inner(), Instant::now());
        let sought = inner.sought(key.as_bytes());
        let turn = inner.turn(&sought);
        let slots = inner.index.slots.pin();
        let Some(slot) = slots.get(&sought) else { return 0 };
        let staying = slot.variants.iter().filter(|stored| stays(stored)).cloned();
        let staying: SmallVec<[StoredResponse; 1]> = staying.collect();
        let dropped = slot.variants.len() - staying.len();
        if staying.is_empty() {
            inner.index.remove(&sought, Became::Purged { number: None }, |_| true);
            inner.policy.invalidate(&sought);
        } else if dropped > 0 {
            self.set(&sought, staying, Some(slot), now);
        }
        drop(turn);
        inner.keep_bounds(self.settings.capacity, now);
        dropped
    }

    /// Fills the slot of a key, whose turn the caller has; `old` is what it takes the place of.
    fn set(&self, key: &Sought<'_>, variants: SmallVec<[StoredResponse; 1]>, old: Option<&Slot>, now: Instant) {
        let inner = self.inner();
        let slots = inner.index.slots.pin();
        let size = (key.bytes.len() + variants.iter().map(|variant| variant.size()).sum::<usize>()) as u64;
        let token = Token {
            number: inner.next.fetch_add(1, Ordering::Relaxed),
            weight: self.settings.weight(size),
            keep: variants.iter().map(|variant| variant.keep()).max().unwrap_or_default(),
        };
        let place = inner.place(key, &token, old);
        let is_new = AtomicBool::new(place == Place::Window);
        let slot = Slot { number: token.number, bytes: size, variants, reads: AtomicU32::new(0), is_new };
        inner.index.bytes.fetch_add(size, Ordering::Relaxed);
        slot.entered();
        // What left lay side by side as well.
        if !self.is_full() {
            inner.index.room.offer();
        }
        if let Some(old) = slots.insert(key.to_index_key(), slot) {
            inner.index.bytes.fetch_sub(old.bytes, Ordering::Relaxed);
            old.left();
            inner.index.settle(old);
        }
        match place {
            Place::Window => inner.window.enter(key.to_key(), token, now),
            Place::Policy { times } => inner.hand_over(key, token, times),
        }
    }

    pub(crate) fn remove_now(&self, key: &CacheKey) -> bool {
        self.remove_because(key, Became::Dropped)
    }

    /// Removes what is stored under a key, with what that is to be called.
    pub(crate) fn remove_because(&self, key: &CacheKey, became: Became) -> bool {
        let inner = self.inner();
        let sought = inner.sought(key.as_bytes());
        let _turn = inner.turn(&sought);
        let removed = inner.index.remove(&sought, became, |_| true);
        inner.policy.invalidate(&sought);
        removed
    }

    /// Removes everything, since it was purged, under this number if it is known.
    pub(crate) fn clear_now(&self, number: Option<u64>) {
        let inner = self.inner();
        let keys: Vec<IndexKey> = inner.index.slots.pin().keys().cloned().collect();
        // Key by key, under their turns: moka's own `invalidate_all` works by time and would also take what is put right after.
        for key in keys {
            let sought = key.sought();
            let _turn = inner.turn(&sought);
            inner.index.remove(&sought, Became::Purged { number }, |_| true);
            inner.policy.invalidate(&sought);
        }
        inner.policy.run_pending_tasks();
    }

    /// Walks through all entries, in steps between which nothing is held. What comes or goes meanwhile may be seen or not.
    pub(crate) fn scan(&self) -> Scan<'_> {
        Scan::new(self.inner())
    }

    fn inner(&self) -> &Inner {
        self.inner.get_or_init(|| Inner::new(self.settings, self.fates.clone()))
    }
}

impl Settings {
    /// The weight of an entry of this size. Every entry weighs at least its share of the capacity, so that one bound keeps both limits.
    fn weight(&self, size: u64) -> u32 {
        u32::try_from(size.max(self.share()).div_ceil(self.unit())).unwrap_or(u32::MAX)
    }

    /// The smallest share of which one more than allowed doesn't fit.
    fn share(&self) -> u64 {
        self.max_entries.map_or(0, |most| (self.capacity / most.saturating_add(1)).saturating_add(1))
    }

    /// How many bytes weigh one: more than one only where moka, which weighs in 32 bits, couldn't tell how much a share is.
    fn unit(&self) -> u64 {
        self.share() / u64::from(u32::MAX) + 1
    }
}

impl Inner {
    fn new(settings: Settings, fates: Option<Arc<Fates>>) -> Self {
        let hasher = match settings.simulated {
            Some(Simulated { seed, .. }) => ahash::RandomState::with_seeds(seed, 1, 2, 3),
            None => ahash::RandomState::new(),
        };
        let collector = seize::Collector::new().batch_size(RETIRED_TOGETHER);
        let slots = papaya::HashMap::builder().hasher(BuildHasherDefault::default()).collector(collector).build();
        let index = Arc::new(Index {
            slots,
            room: Nearby::default(),
            bytes: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
            fates,
        });
        let policy = match settings.eviction {
            Eviction::TinyLfu => EvictionPolicy::tiny_lfu(),
            Eviction::Lru => EvictionPolicy::lru(),
        };
        let evicted = index.clone();
        let window = Window::new(&settings);
        let policy_room = window.rest_of(settings.capacity / settings.unit());
        let policy = moka::sync::Cache::builder()
            // Of nothing it would take in what it never tells of again; and no entry weighs as little as one.
            .max_capacity(policy_room.max(1))
            .weigher(|_: &PolicyKey, token: &Token| token.weight)
            .expire_after(Keep)
            .eviction_policy(policy)
            .eviction_listener(move |key: Arc<PolicyKey>, token, cause| evicted.evict(&key.sought(), token, cause))
            .build_with_hasher(BuildHasherDefault::default());
        Self {
            index,
            policy,
            window,
            policy_room,
            turns: std::array::from_fn(|_| Mutex::new(())),
            hasher,
            next: AtomicU64::new(1),
            every_read: settings.eviction == Eviction::Lru
                || settings.simulated.is_some_and(|simulated| simulated.every_read),
        }
    }

    fn sought<'a>(&self, key: &'a [u8]) -> Sought<'a> {
        Sought { hash: self.hasher.hash_one(key), bytes: key }
    }

    fn turn(&self, key: &Sought<'_>) -> MutexGuard<'_, ()> {
        self.turns[key.hash as usize % TURNS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells moka when an entry is of no more use. Its clock only gives memory back; freshness is decided elsewhere, on every read.
struct Keep;

impl moka::Expiry<PolicyKey, Token> for Keep {
    fn expire_after_create(&self, _: &PolicyKey, token: &Token, _: Instant) -> Option<Duration> {
        Some(token.keep)
    }

    fn expire_after_update(&self, _: &PolicyKey, token: &Token, _: Instant, _: Option<Duration>) -> Option<Duration> {
        Some(token.keep)
    }
}

impl Storage for MemoryStore {
    async fn get(&self, query: Query<'_>) -> Result<Variants, StorageError> {
        Ok(self.read(query.key, |variants| variants.iter().cloned().map(Arc::new).collect()))
    }

    async fn put(&self, key: &CacheKey, response: Arc<StoredResponse>, most: usize) -> Result<(), StorageError> {
        self.put_now(key, Arc::unwrap_or_clone(response), most);
        Ok(())
    }

    async fn remove(&self, key: &CacheKey) -> Result<bool, StorageError> {
        Ok(self.remove_now(key))
    }

    async fn swap(&self, swap: Swap<'_>) -> Result<Swapped, StorageError> {
        self.swap_now(&swap)
    }

    async fn clear(&self) -> Result<(), StorageError> {
        self.clear_now(None);
        Ok(())
    }

    fn usage(&self) -> StorageUsage {
        let index = &self.inner().index;
        StorageUsage {
            entries: index.slots.len() as u64,
            bytes: index.bytes.load(Ordering::Relaxed),
            evictions: index.evictions.load(Ordering::Relaxed),
        }
    }
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryStore").field("settings", &self.settings).finish_non_exhaustive()
    }
}
