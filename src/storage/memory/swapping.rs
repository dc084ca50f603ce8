//! A swap in memory: the look and the change are one, since writers of a key take turns.

use std::time::Instant;

use smallvec::smallvec;

use super::MemoryStore;
use crate::error::StorageError;
use crate::response::StoredResponse;
use crate::storage::{Swap, Swapped};

impl MemoryStore {
    /// Puts an entry in the place of the expected one. Nothing is put, removed or purged by key between the look and the change.
    pub(crate) fn swap_now(&self, swap: &Swap<'_>) -> Result<Swapped, StorageError> {
        let (inner, now) = (self.inner(), Instant::now());
        let key = inner.sought(swap.key.as_bytes());
        let turn = inner.turn(&key);
        let slots = inner.index.slots.pin();
        let old = slots.get(&key);
        let there = old.map_or(&[][..], |slot| &slot.variants);
        if let Some(answer) = swap.answer(there)? {
            return Ok(answer);
        }
        self.set(&key, smallvec![StoredResponse::clone(&swap.new)], old, now);
        drop(turn);
        inner.keep_bounds(self.settings.capacity, now);
        Ok(Swapped::Done)
    }
}
