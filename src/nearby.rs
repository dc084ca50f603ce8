//! [`Nearby`]: small pieces of memory of one kind, side by side.
//!
//! An allocator puts what is stored wherever something has just been freed, so that each piece of an entry lies on a page of its own, among contents of
//! many KiB. A hit then waits for the addresses of pages as well as for the memory. So a row of pieces is taken at once, and each is given back right
//! before its memory is wanted: allocators hand out first what the same thread gave back last. Nothing but time depends on that.

use std::mem::MaybeUninit;
use std::sync::Mutex;

/// Memory for values of the size of `T`.
pub(crate) struct Nearby<T> {
    row: Mutex<Vec<Box<MaybeUninit<T>>>>,
}

/// The bytes of a row.
const ROW: usize = 32 << 10;

impl<T> Nearby<T> {
    /// Gives back the next piece of the row, for the allocation of this size that comes next.
    pub(crate) fn offer(&self) {
        // Who would have to wait gets memory from anywhere.
        let Ok(mut row) = self.row.try_lock() else { return };
        if row.is_empty() {
            row.extend((0..ROW / size_of::<T>().max(1)).map(|_| Box::new_uninit()));
            row.reverse();
        }
        let next = row.pop();
        drop(row);
        drop(next);
    }
}

impl<T> Default for Nearby<T> {
    fn default() -> Self {
        Self { row: Mutex::default() }
    }
}

impl<T> std::fmt::Debug for Nearby<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nearby").finish_non_exhaustive()
    }
}

// Whether an allocator does as it is expected to is for benchmarks to see (`cargo bench --bench hit`): it depends on all that was freed before.
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_given_back_piece_by_piece_and_then_comes_another() {
        let nearby = Nearby::<[u64; 78]>::default();
        let left = || nearby.row.lock().expect("nobody panics").len();
        let row = ROW / size_of::<[u64; 78]>();
        for expected in (0..row).rev().chain((0..row).rev()) {
            nearby.offer();
            assert_eq!(left(), expected);
        }
        let held = nearby.row.lock().expect("nobody panics");
        nearby.offer();
        assert_eq!(held.len(), 0, "nobody waits for a row");
    }
}
