//! [`Window`]: where what is new stands first, in a queue, before moka hears of it. Most of what is asked for once is never asked for again; to bring that into moka and out of it
//! costs several times what all the rest of storing it does. So who comes to the end of the queue unread goes at once when there is no room, and only its hash is remembered: who comes
//! again while it is goes to moka without standing here. (The small queue of S3-FIFO: Yang and others, "FIFO queues are all you need for cache eviction", SOSP 2023.)

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::{Settings, Token};
use crate::storage::memory::Eviction;
use crate::storage::policy_key::{PolicyKey, Sought};
use crate::sync::{Mutex, MutexGuard, PoisonError};

pub(in crate::storage) struct Window {
    queue: Mutex<Queue>,
    /// The weight that may stand here.
    most: u64,
    unread: Unread,
}

#[derive(Default)]
struct Queue {
    order: VecDeque<Newcomer>,
    weight: u64,
}

/// One who stands in the queue. What it stands for may have been replaced or removed since.
#[derive(Clone)]
pub(super) struct Newcomer {
    pub(super) key: PolicyKey,
    pub(super) token: Token,
    since: Instant,
}

/// One in so many bytes, or in so many entries, is the window's.
const PART: u64 = 20;

impl Window {
    pub(super) fn new(settings: &Settings) -> Self {
        let most = match (settings.eviction, settings.max_entries) {
            // Who was asked for longest ago leaves first, and that is all.
            (Eviction::Lru, _) => 0,
            (_, None) => settings.capacity / settings.unit() / PART,
            // Whole shares, so that as many entries fit as are allowed; and none where only one could stand here, which none may alone. More entries than bytes are no bound.
            (_, Some(entries)) => match entries.min(settings.capacity) / PART {
                0 | 1 => 0,
                shares => shares * u64::from(settings.weight(0)),
            },
        };
        Self {
            queue: Mutex::default(),
            most,
            unread: Unread::new(if most > 0 { settings.capacity } else { 0 }, settings.max_entries),
        }
    }

    /// The weight that is left for moka.
    pub(super) fn rest_of(&self, weight: u64) -> u64 {
        weight.saturating_sub(self.most)
    }

    /// Whether something so heavy may stand here: no single one pushes out all others.
    pub(super) fn admits(&self, token: &Token) -> bool {
        u64::from(token.weight) <= self.most / 2
    }

    /// Whether this key left the queue unread not long ago; to be asked once.
    pub(super) fn was_unread(&self, key: &Sought<'_>) -> bool {
        self.unread.take(key.hash)
    }

    pub(super) fn remember_unread(&self, hash: u64) {
        self.unread.add(hash);
    }

    pub(super) fn enter(&self, key: PolicyKey, token: Token, now: Instant) {
        let newcomer = Newcomer { key, token, since: now };
        let mut queue = self.queue();
        queue.weight += u64::from(token.weight);
        queue.order.push_back(newcomer);
    }

    /// Who has to leave the queue, in front of it: there is no room, or its time is over. It stands there until it [has left](Self::left), so that whoever looks through the store
    /// meanwhile finds it here, if not yet with moka.
    pub(super) fn leaver(&self, now: Instant) -> Option<Newcomer> {
        let queue = self.queue();
        let first = queue.order.front()?;
        (queue.weight > self.most || first.keep(now).is_none()).then(|| first.clone())
    }

    /// Who stood in front has left. Several may have seen it off.
    pub(super) fn left(&self, newcomer: &Newcomer) {
        let mut queue = self.queue();
        if queue.order.front().is_some_and(|first| first.token.number == newcomer.token.number) {
            queue.order.pop_front();
            queue.weight -= u64::from(newcomer.token.weight);
        }
    }

    /// Those whose time is over. They stay where they stand until they come to the front.
    pub(super) fn expired(&self) -> Vec<Newcomer> {
        let now = Instant::now();
        self.queue().order.iter().filter(|newcomer| newcomer.keep(now).is_none()).cloned().collect()
    }

    /// The keys of all who stand here now; that of one who was replaced as well, and so perhaps twice.
    pub(in crate::storage) fn keys(&self) -> Vec<PolicyKey> {
        self.queue().order.iter().map(|newcomer| newcomer.key.clone()).collect()
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Newcomer {
    /// How long it is still worth keeping; `None` when that is over.
    pub(super) fn keep(&self, now: Instant) -> Option<Duration> {
        self.token.keep.checked_sub(now.saturating_duration_since(self.since)).filter(|keep| !keep.is_zero())
    }
}

/// Hashes of keys that left unread, each at a place of its own; what is newer pushes out what shares its place. An estimate, by which nothing is decided but who may stay.
struct Unread {
    /// The half of a hash that doesn't say its place; zero where there is none.
    places: Box<[AtomicU32]>,
}

/// About as many bytes are those of one key.
const BYTES_TO_A_KEY: u64 = 2 << 10;
const MOST_PLACES: u64 = 1 << 20;

impl Unread {
    fn new(capacity: u64, max_entries: Option<u64>) -> Self {
        let entries = (capacity / BYTES_TO_A_KEY).min(max_entries.unwrap_or(u64::MAX));
        let places = entries.min(MOST_PLACES).next_power_of_two();
        Self { places: (0..places).map(|_| AtomicU32::new(0)).collect() }
    }

    fn add(&self, hash: u64) {
        let (place, rest) = self.place(hash);
        place.store(rest, Ordering::Relaxed);
    }

    fn take(&self, hash: u64) -> bool {
        let (place, rest) = self.place(hash);
        let is_known = place.load(Ordering::Relaxed) == rest;
        if is_known {
            place.store(0, Ordering::Relaxed);
        }
        is_known
    }

    fn place(&self, hash: u64) -> (&AtomicU32, u32) {
        (&self.places[hash as usize & (self.places.len() - 1)], (hash >> 32) as u32 | 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStore;

    fn window(store: MemoryStore) -> Window {
        Window::new(&store.settings)
    }

    fn newcomer(n: u64) -> (PolicyKey, Token) {
        let key = Sought { hash: n, bytes: b"key" }.to_key();
        (key, Token { number: n, weight: 1 << 10, keep: Duration::from_secs(if n == 2 { 0 } else { 60 }) })
    }

    #[test]
    fn who_came_first_leaves_first_and_none_before_it_is_full_or_its_time_is_over() {
        let window = window(MemoryStore::new((PART * 3) << 10));
        for n in [1, 3, 4] {
            let (key, token) = newcomer(n);
            assert!(window.admits(&token));
            window.enter(key, token, Instant::now());
            assert!(window.leaver(Instant::now()).is_none());
        }
        for (n, expected) in [(2, 1), (5, 3), (6, 4)] {
            let (key, token) = newcomer(n);
            window.enter(key, token, Instant::now());
            let leaver = window.leaver(Instant::now()).expect("there is no room");
            assert_eq!((leaver.token.number, window.keys().len()), (expected, 4), "it is still to be seen");
            (0..2).for_each(|_| window.left(&leaver));
            assert_eq!(window.keys().len(), 3);
        }
        assert_eq!(window.expired().iter().map(|newcomer| newcomer.token.number).collect::<Vec<_>>(), [2]);
        assert_eq!(window.leaver(Instant::now()).map(|leaver| leaver.token.number), Some(2), "its time is over");
    }

    #[test]
    fn it_takes_a_small_part_of_any_bounds() {
        // (capacity, entries, what may stand here)
        let rows = [
            (1 << 20, None, 52_428),
            (1 << 20, Some(u64::MAX), 52_428),
            (1 << 20, Some(19), 0),
            (1 << 20, Some(39), 0),
            (0, None, 0),
        ];
        for (capacity, entries, most) in rows {
            let store = MemoryStore::new(capacity);
            let window = window(match entries {
                Some(entries) => store.max_entries(entries),
                None => store,
            });
            assert_eq!(window.most, most, "{capacity} {entries:?}");
        }
    }

    #[test]
    fn a_key_that_left_unread_is_remembered_once() {
        let window = window(MemoryStore::new(1 << 20));
        let [one, other] = [1 << 40, 1 << 41].map(|hash| Sought { hash, bytes: b"" });
        window.remember_unread(one.hash);
        assert!(!window.was_unread(&other) && window.was_unread(&one) && !window.was_unread(&one));
    }

    #[test]
    fn lru_has_none() {
        let window = window(MemoryStore::new(1 << 30).eviction(Eviction::Lru));
        assert!(!window.admits(&newcomer(1).1) && window.rest_of(7) == 7);
    }
}
