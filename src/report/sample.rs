//! [`Sample`]: something remembered about each of a bounded number of keys. Which keys is decided by their hashes alone, so that what is found out
//! about them holds for the others: neither the popular nor the newest are preferred.

use crate::sync::{Mutex, PoisonError};

/// How many keys share a lock.
const WAYS: usize = 8;

/// A sample of keys.
pub(crate) struct Sample<T> {
    sets: Box<[Mutex<Set<T>>]>,
    /// Who wasn't seen for so long may be replaced by anybody.
    forgotten_after: u64,
}

struct Set<T> {
    /// Apart from what is remembered of them, which is large: most who look here look for a key that isn't in the sample.
    keys: Vec<Held>,
    /// Of each what is remembered; `None` where it is new.
    values: Vec<Option<T>>,
}

struct Held {
    tag: u64,
    /// When it was seen last, in milliseconds.
    seen: u64,
}

impl<T> Default for Set<T> {
    fn default() -> Self {
        Self { keys: Vec::new(), values: Vec::new() }
    }
}

impl<T> Sample<T> {
    /// Of at most so many keys.
    pub(crate) fn new(most: usize, forgotten_after: u64) -> Self {
        Self { sets: (0..most.div_ceil(WAYS)).map(|_| Mutex::new(Set::default())).collect(), forgotten_after }
    }

    /// Whether a key is in the sample, or would be if it were seen now.
    pub(crate) fn wants(&self, tag: u64, now: u64) -> bool {
        let keys = &self.set(tag).lock().unwrap_or_else(PoisonError::into_inner).keys;
        keys.len() < WAYS || keys.iter().any(|held| held.tag == tag) || self.replaced(keys, tag, now).is_some()
    }

    /// Shows what is remembered of a key, if anything, to be changed; `None` where the key isn't in the sample.
    pub(crate) fn see<R>(&self, tag: u64, now: u64, look: impl FnOnce(&mut Option<T>) -> R) -> Option<R> {
        let mut set = self.set(tag).lock().unwrap_or_else(PoisonError::into_inner);
        let Set { keys, values } = &mut *set;
        let place = match keys.iter().position(|held| held.tag == tag) {
            Some(place) => place,
            None if keys.len() < WAYS => {
                keys.push(Held { tag, seen: now });
                values.push(None);
                keys.len() - 1
            }
            None => {
                let place = self.replaced(keys, tag, now)?;
                (keys.get_mut(place)?.tag, *values.get_mut(place)?) = (tag, None);
                place
            }
        };
        keys.get_mut(place)?.seen = now;
        Some(look(values.get_mut(place)?))
    }

    /// Shows all that is remembered.
    pub(crate) fn each(&self, mut look: impl FnMut(&T)) {
        for set in &self.sets {
            let set = set.lock().unwrap_or_else(PoisonError::into_inner);
            set.values.iter().flatten().for_each(&mut look);
        }
    }

    fn set(&self, tag: u64) -> &Mutex<Set<T>> {
        &self.sets[tag as usize % self.sets.len()]
    }

    /// Who has to leave for a new key, if anybody: who wasn't seen for long, else the largest, if it is larger.
    fn replaced(&self, keys: &[Held], tag: u64, now: u64) -> Option<usize> {
        let forgotten = |held: &Held| now.saturating_sub(held.seen) > self.forgotten_after;
        let largest = || {
            let (place, held) = keys.iter().enumerate().max_by_key(|(_, held)| held.tag)?;
            (tag < held.tag).then_some(place)
        };
        keys.iter().position(forgotten).or_else(largest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(sample: &Sample<u64>, tag: u64, now: u64) -> Option<u64> {
        sample.see(tag, now, |count| {
            *count.get_or_insert(0) += 1;
            count.unwrap_or_default()
        })
    }

    #[test]
    fn who_is_in_it_depends_on_the_keys_and_not_on_how_often_or_in_which_order_they_come() {
        let hasher = ahash::RandomState::with_seeds(1, 2, 3, 4);
        let tags: Vec<u64> = (0..1000).map(|n| hasher.hash_one(n)).collect();
        let of = |order: &mut dyn Iterator<Item = &u64>| {
            let sample = Sample::new(64, 1000);
            order.for_each(|tag| {
                let _ = count(&sample, *tag, 0);
            });
            let mut kept: Vec<u64> = tags.iter().copied().filter(|tag| sample.wants(*tag, 0)).collect();
            kept.sort_unstable();
            kept
        };
        let once = of(&mut tags.iter());
        assert_eq!(once.len(), 64);
        assert_eq!(once, of(&mut tags.iter().rev()));
        assert_eq!(once, of(&mut tags.iter().chain(&tags[..100]).chain(&tags[..100])));
    }

    #[test]
    fn what_was_not_seen_for_long_makes_room() {
        let sample = Sample::new(8, 1000);
        (0..8).for_each(|tag| assert_eq!(count(&sample, tag, 0), Some(1)));
        assert_eq!((count(&sample, 9, 1000), sample.wants(9, 1000)), (None, false));
        assert_eq!(count(&sample, 0, 1000), Some(2));
        assert_eq!((sample.wants(9, 1001), count(&sample, 9, 1001)), (true, Some(1)));
        assert_eq!((count(&sample, 0, 1001), count(&sample, 9, 1002)), (Some(3), Some(2)));
    }
}
