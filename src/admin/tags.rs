//! How many tags what is stored has. Nothing lists them, so the store is walked through, not more often than every few seconds, and of very many
//! tags the number is an estimate.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::cache::CacheCore;
use crate::clock::Moment;
use crate::response::StoredResponse;

/// A count, and when it was made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted {
    pub(super) tags: u64,
    at: Moment,
}

/// For how long a count is good.
const GOOD_FOR: Duration = Duration::from_secs(5);

impl Counted {
    pub(super) fn tags_at(self, now: Moment) -> Option<u64> {
        (now.since(self.at) < GOOD_FOR).then_some(self.tags)
    }

    /// Counts; 0 in a store that can't be walked through.
    pub(super) async fn of(core: &CacheCore) -> Self {
        let (mut distinct, hasher) = (Distinct::default(), ahash::RandomState::new());
        let walked = core.walk(|entry| {
            let tags = entry.variants.iter().flat_map(StoredResponse::tags);
            tags.for_each(|tag| distinct.add(hasher.hash_one(tag)));
        });
        let tags = if walked.await.is_ok() { distinct.count() } else { 0 };
        Self { tags, at: core.now() }
    }
}

/// How many hashes of a kind were smallest is how many there were: the k-minimum-values sketch (Bar-Yossef and others, "Counting Distinct
/// Elements in a Data Stream", 2002). Exact below [`KEPT`], and then right within a few percent.
#[derive(Default)]
struct Distinct(BTreeSet<u64>);

/// At 8 bytes each; the error is about one in the root of this.
const KEPT: usize = 4096;

impl Distinct {
    fn add(&mut self, hash: u64) {
        let is_small = self.0.len() < KEPT || self.0.last().is_some_and(|last| hash < *last);
        if is_small && self.0.insert(hash) && self.0.len() > KEPT {
            self.0.pop_last();
        }
    }

    fn count(&self) -> u64 {
        match self.0.last() {
            Some(last) if self.0.len() == KEPT => {
                let share = *last as f64 / u64::MAX as f64;
                ((KEPT - 1) as f64 / share).round() as u64
            }
            _ => self.0.len() as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_counted_and_many_estimated() {
        let hasher = ahash::RandomState::with_seeds(1, 2, 3, 4);
        for (tags, error) in [(0_u64, 0.0), (1, 0.0), (4095, 0.0), (5000, 0.08), (100_000, 0.08)] {
            let mut distinct = Distinct::default();
            (0..tags).chain(0..tags).for_each(|tag| distinct.add(hasher.hash_one(tag)));
            let counted = distinct.count();
            assert!(counted.abs_diff(tags) as f64 <= tags as f64 * error, "{counted} of {tags}");
        }
    }
}
