//! [`Wholes`]: how long the wholes are of which only parts or heads have been seen. It decides whether a range that misses is worth fetching
//! the whole for, and nothing else: what is forgotten, or taken for something else, costs efficiency only.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::admission::Ask;
use crate::cache::CacheCore;
use crate::clock::Moment;
use crate::key::CacheKey;
use crate::response::StoredResponse;

/// How many are remembered, at 8 bytes each. Two that share a place push each other out.
const PLACES: usize = 4096;

/// The unit in which a place says when it was written.
const TICK: Duration = Duration::from_secs(15 * 60);

/// After how many ticks a length isn't believed any more: between three quarters of an hour and one.
const EXPIRED: u64 = 4;

/// One more than the longest length that a place can hold.
const LENGTHS: u64 = 1 << 40;

/// Lengths by the hash of their keys. A place holds 16 more bits of the hash, the time in 8 bits, and the length in 40; zero is an empty place.
pub(crate) struct Wholes {
    places: Box<[AtomicU64]>,
    hasher: ahash::RandomState,
}

impl Default for Wholes {
    fn default() -> Self {
        Self { places: (0..PLACES).map(|_| AtomicU64::new(0)).collect(), hasher: ahash::RandomState::new() }
    }
}

impl Wholes {
    /// The whole of `key` would be stored, and is `length` bytes long.
    pub(crate) fn learn(&self, key: &CacheKey, length: u64, now: Moment) {
        let (place, tag) = self.place(key);
        place.store((tag << 48) | (tick(now) << 40) | length.min(LENGTHS - 1), Ordering::Relaxed);
    }

    /// The whole of `key` turned out not to be storable.
    pub(crate) fn forget(&self, key: &CacheKey) {
        let (place, tag) = self.place(key);
        if place.load(Ordering::Relaxed) >> 48 == tag {
            place.store(0, Ordering::Relaxed);
        }
    }

    /// The length of the whole, if it is known.
    pub(crate) fn length(&self, key: &CacheKey, now: Moment) -> Option<u64> {
        let (place, tag) = self.place(key);
        let held = place.load(Ordering::Relaxed);
        let age = tick(now).wrapping_sub(held >> 40) & 0xff;
        (held != 0 && held >> 48 == tag && age < EXPIRED).then_some(held & (LENGTHS - 1))
    }

    fn place(&self, key: &CacheKey) -> (&AtomicU64, u64) {
        let hash = self.hasher.hash_one(key.as_bytes());
        (&self.places[hash as usize % PLACES], hash >> 48)
    }
}

/// The time in ticks, as far as 8 bits hold it: an old place may look new after two days and a half.
fn tick(now: Moment) -> u64 {
    (now.monotonic.as_secs() / TICK.as_secs()) & 0xff
}

/// Whether the whole that `ask` wants a range of is known to fit into the store, so that it is worth fetching: something stale of this key is
/// there, or an earlier answer has told.
pub(crate) fn is_known_to_fit(core: &CacheCore, ask: &Ask, previous: Option<&StoredResponse>, now: Moment) -> bool {
    let most = core.settings.max_body_size as u64;
    let length = match previous {
        Some(previous) => (previous.status == http::StatusCode::OK).then_some(previous.plain_length()),
        // What this request brings isn't stored, whatever is known (RFC 9111 §5.2.1.5).
        None if ask.directives.no_store => None,
        None => core.wholes.length(&ask.key, now),
    };
    length.is_some_and(|length| length <= most)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn after(minutes: u64) -> Moment {
        Moment { wall: UNIX_EPOCH, monotonic: Duration::from_secs(minutes * 60) }
    }

    #[test]
    fn lengths_are_known_for_most_of_an_hour() {
        let wholes = Wholes::default();
        let (one, other) = (CacheKey::new(b"a", "/1", None), CacheKey::new(b"a", "/2", None));
        assert_eq!(wholes.length(&one, after(0)), None);
        wholes.learn(&one, 10, after(0));
        assert_eq!((wholes.length(&one, after(59)), wholes.length(&one, after(60))), (Some(10), None));
        assert_eq!(wholes.length(&other, after(0)), None);
        wholes.learn(&one, u64::MAX, after(70));
        assert_eq!(wholes.length(&one, after(80)), Some(LENGTHS - 1), "saturates");
        wholes.learn(&one, 0, after(90));
        assert_eq!(wholes.length(&one, after(100)), Some(0));
        wholes.forget(&one);
        assert_eq!(wholes.length(&one, after(100)), None);
    }

    #[test]
    fn memory_is_bounded_and_one_key_is_hardly_ever_taken_for_another() {
        let wholes = Wholes::default();
        let key = |n: u64| CacheKey::new(b"a", &format!("/{n}"), None);
        (0..50_000).for_each(|n| wholes.learn(&key(n), n, after(16)));
        let known = (0..50_000).filter(|n| wholes.length(&key(*n), after(16)).is_some());
        assert!((1000..PLACES + 100).contains(&known.count()));
        let wrong = (0..50_000).filter(|n| wholes.length(&key(*n), after(16)).is_some_and(|length| length != *n));
        assert!(wrong.count() < 50);
    }
}
