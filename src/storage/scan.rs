//! [`Scan`]: a walk through all that the memory store holds, off the way of those who read it. The window tells its keys, all at once, and moka the others, some at a time; each is looked
//! up in the index, so between two steps nothing is held that would keep the memory of what leaves the store.

use std::collections::HashSet;
use std::hash::BuildHasherDefault;

use super::memory::{Inner, Token};
use super::policy_key::{Known, PolicyKey};
use crate::key::CacheKey;
use crate::response::StoredResponse;

/// A walk that goes on where it was left.
pub(crate) struct Scan<'a> {
    inner: &'a Inner,
    /// Taken first: who leaves the window meanwhile for moka would be missed otherwise.
    new: std::vec::IntoIter<PolicyKey>,
    /// Those of them that were visited: each may stand there twice, or be with moka by now.
    seen: HashSet<PolicyKey, BuildHasherDefault<Known>>,
    keys: moka::sync::Iter<'a, PolicyKey, Token>,
}

/// One key with what is stored under it.
pub(crate) struct Entry<'a> {
    pub(crate) key: CacheKey,
    /// Newest first.
    pub(crate) variants: &'a [StoredResponse],
    /// How often it was read since it was stored.
    pub(crate) reads: u32,
}

impl<'a> Scan<'a> {
    pub(super) fn new(inner: &'a Inner) -> Self {
        let new = inner.window.keys().into_iter();
        Self { inner, new, seen: HashSet::default(), keys: inner.policy.iter() }
    }

    /// Visits the next entries, `most` at most; false when there are no more.
    pub(crate) fn step(&mut self, most: usize, mut visit: impl FnMut(Entry<'_>)) -> bool {
        let slots = self.inner.index.slots.pin();
        for _ in 0..most {
            let mut look = |key: &PolicyKey| {
                if let (Some(slot), Some(key)) = (slots.get(&key.sought()), CacheKey::from_bytes(key.as_bytes())) {
                    visit(Entry { key, variants: &slot.variants, reads: slot.reads() });
                }
            };
            if let Some(key) = self.new.next() {
                if !self.seen.contains(&key) {
                    look(&key);
                    self.seen.insert(key);
                }
            } else if let Some((key, _)) = self.keys.next() {
                if !self.seen.contains(&*key) {
                    look(&key);
                }
            } else {
                return false;
            }
        }
        true
    }
}
