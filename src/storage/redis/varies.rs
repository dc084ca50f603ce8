//! [`Varies`]: by which fields resources vary, as far as that was seen, so that the variant that is asked for comes in the same round trip.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::keys::KeyDigest;
use super::marker::Vary;
use crate::sync::hasher;

/// What is known, by the digests of the resources' keys; in parts, so that seldom two ask for the same one.
pub(super) struct Varies(Box<[Mutex<Part>]>);

type Part = HashMap<KeyDigest, Arc<Vary>, ahash::RandomState>;

const PARTS: usize = 64;

/// How many resources a part remembers; all together 16,384.
const MOST: usize = 256;

impl Default for Varies {
    fn default() -> Self {
        Self((0..PARTS).map(|_| Mutex::new(Part::with_hasher(hasher()))).collect())
    }
}

impl Varies {
    pub(super) fn get(&self, resource: &KeyDigest) -> Option<Arc<Vary>> {
        self.part(resource).get(resource).cloned()
    }

    /// Where there is no room, any other is forgotten: that costs one more round trip.
    pub(super) fn insert(&self, resource: KeyDigest, vary: Vary) {
        let mut part = self.part(&resource);
        if part.len() >= MOST
            && !part.contains_key(&resource)
            && let Some(any) = part.keys().next().copied()
        {
            part.remove(&any);
        }
        part.insert(resource, Arc::new(vary));
    }

    pub(super) fn forget(&self, resource: &KeyDigest) {
        self.part(resource).remove(resource);
    }

    fn part(&self, resource: &KeyDigest) -> MutexGuard<'_, Part> {
        let part = &self.0[usize::from(resource[0]) % PARTS];
        part.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_much_is_remembered_as_there_is_room_and_the_newest_always() {
        let varies = Varies::default();
        let vary = |n: u32| Vary { fields: Default::default(), generation: n.to_string().into() };
        let digest = |n: u32| super::super::keys::digest_of(&n.to_be_bytes());
        for n in 0..50_000 {
            varies.insert(digest(n), vary(n));
            assert_eq!(varies.get(&digest(n)).as_deref(), Some(&vary(n)));
        }
        let known = (0..50_000).filter(|n| varies.get(&digest(*n)).is_some()).count();
        assert!(known <= PARTS * MOST && known > PARTS * MOST / 2, "{known}");
        varies.forget(&digest(49_999));
        assert_eq!(varies.get(&digest(49_999)), None);
    }
}
