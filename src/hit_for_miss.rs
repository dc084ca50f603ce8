//! [`HitForMiss`]: which keys had answers that nobody else may have, so that requests for them don't wait for each other in vain.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Moment;

/// How many keys are remembered. Keys that share a place displace each other: one wait too many, and never a wrong answer.
const PLACES: usize = 1 << 13;

/// For how long. A storable answer clears the mark at once; an answer that isn't, renews it.
const LASTS: Duration = Duration::from_secs(120);

/// The marks of keys. A mark only keeps requests from waiting; it never keeps an answer from being stored.
#[derive(Debug)]
pub(crate) struct HitForMiss {
    /// Half of the key's hash, and the second at which the mark ends.
    places: Box<[AtomicU64]>,
}

impl Default for HitForMiss {
    fn default() -> Self {
        Self { places: (0..PLACES).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl HitForMiss {
    /// The key's answer was for one request only.
    pub(crate) fn mark(&self, key: u64, now: Moment) {
        let ends = seconds(now.monotonic.saturating_add(LASTS)).max(1);
        self.place(key).store(key & !u64::from(u32::MAX) | ends, Ordering::Relaxed);
    }

    /// The key's answer may be shared.
    pub(crate) fn clear(&self, key: u64) {
        let place = self.place(key);
        if place.load(Ordering::Relaxed) >> 32 == key >> 32 {
            place.store(0, Ordering::Relaxed);
        }
    }

    /// Whether a request for the key had better not wait for another one.
    pub(crate) fn has(&self, key: u64, now: Moment) -> bool {
        let mark = self.place(key).load(Ordering::Relaxed);
        mark != 0 && mark >> 32 == key >> 32 && seconds(now.monotonic) < mark & u64::from(u32::MAX)
    }

    fn place(&self, key: u64) -> &AtomicU64 {
        &self.places[key as usize % PLACES]
    }
}

fn seconds(time: Duration) -> u64 {
    time.as_secs() & u64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment { wall: UNIX_EPOCH, monotonic: Duration::from_secs(seconds) }
    }

    #[test]
    fn a_mark_lasts_until_a_storable_answer_or_its_end() {
        let marks = HitForMiss::default();
        let (key, neighbour) = (7 << 40 | 3, 8 << 40 | 3);
        assert!(!marks.has(key, at(0)));
        marks.mark(key, at(5));
        assert!(marks.has(key, at(5)) && marks.has(key, at(124)) && !marks.has(key, at(125)));
        assert!(!marks.has(neighbour, at(5)), "it shares the place");
        marks.clear(neighbour);
        assert!(marks.has(key, at(5)));
        marks.clear(key);
        assert!(!marks.has(key, at(5)));
        marks.mark(key, at(5));
        marks.mark(neighbour, at(5));
        assert!(marks.has(neighbour, at(5)) && !marks.has(key, at(5)), "the newer mark stays");
    }
}
