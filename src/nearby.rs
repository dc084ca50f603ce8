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

// How an allocator goes about it is its own affair; this is what the one of GNU does.
#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_next_lies_in_the_piece_that_was_offered() {
        let nearby = Nearby::<[u64; 78]>::default();
        nearby.offer();
        let address = |piece: &Box<MaybeUninit<[u64; 78]>>| std::ptr::from_ref(&**piece).addr();
        let row: Vec<usize> = nearby.row.lock().expect("nobody panics").iter().rev().map(address).collect();
        let stored: Vec<_> = (0..row.len())
            .map(|n| {
                let content = vec![0_u8; 10 << 10];
                nearby.offer();
                (Box::new([n as u64; 78]), content)
            })
            .collect();
        let in_place = stored.iter().zip(&row).filter(|((piece, _), at)| std::ptr::from_ref(&**piece).addr() == **at);
        assert!(in_place.count() > row.len() * 9 / 10);
    }
}
