//! [`Pieces`]: the memory in which large content is gathered while it streams. It is used again and again.
//!
//! Memory that a process has just been given costs a page fault for every 4 KiB of it, which is more than to copy them. And what a thousand fills take and
//! give back in many sizes at once leaves gaps that nothing else fits into.

use bytes::{Bytes, BytesMut};

use crate::sync::{Mutex, MutexGuard, PoisonError};

/// The size of a piece.
pub(crate) const PIECE: usize = 64 << 10;

/// How many are kept at most for those who come next: 16 MiB.
const MOST: usize = 256;

/// Pieces that nobody has at the moment.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    free: Mutex<Vec<BytesMut>>,
}

impl Pieces {
    /// Empty memory of this capacity. Afterwards as much lies free at most as there is `room` for, in bytes.
    pub(crate) fn take(&self, capacity: usize, room: usize) -> BytesMut {
        let mut known = None;
        let may_be_too_many = room < MOST * PIECE;
        if capacity == PIECE || may_be_too_many {
            let mut free = self.free();
            if capacity == PIECE {
                known = free.pop();
            }
            free.truncate(room / PIECE);
        }
        known.unwrap_or_else(|| BytesMut::with_capacity(capacity))
    }

    /// Takes back what is a piece and nobody else has, unless more would lie free then than there is `room` for.
    pub(crate) fn give_back(&self, content: Bytes, room: usize) {
        let Ok(mut piece) = content.try_into_mut() else { return };
        piece.clear();
        // It may be the end of a piece whose beginning somebody had.
        let _ = piece.try_reclaim(PIECE);
        if piece.capacity() != PIECE {
            return;
        }
        let mut free = self.free();
        if free.len() < MOST.min(room / PIECE) {
            free.push(piece);
        }
    }

    fn free(&self) -> MutexGuard<'_, Vec<BytesMut>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(pieces: &Pieces) -> usize {
        pieces.free.lock().unwrap().len()
    }

    #[test]
    fn a_piece_is_used_again_once_nobody_has_it() {
        let pieces = Pieces::default();
        let mut piece = pieces.take(PIECE, usize::MAX);
        piece.extend_from_slice(&[1; PIECE]);
        let (first, last) = (piece.as_ptr(), piece.freeze());
        let read = last.slice(..10);
        pieces.give_back(last, usize::MAX);
        assert_eq!((free(&pieces), &read[..]), (0, &[1; 10][..]), "somebody reads it");
        pieces.give_back(pieces.take(PIECE / 2, usize::MAX).freeze(), usize::MAX);
        pieces.give_back(Bytes::from_static(b"no piece"), usize::MAX);
        assert_eq!(free(&pieces), 0);

        let mut piece = pieces.take(PIECE, usize::MAX);
        piece.extend_from_slice(&[2; PIECE]);
        let place = piece.as_ptr();
        pieces.give_back(piece.freeze(), usize::MAX);
        let again = pieces.take(PIECE, usize::MAX);
        assert_eq!((again.as_ptr(), again.len(), again.capacity()), (place, 0, PIECE));
        assert_ne!(place, first, "what is read isn't written to");

        let mut piece = pieces.take(PIECE, usize::MAX);
        piece.extend_from_slice(&[3; PIECE]);
        let (place, beginning) = (piece.as_ptr(), piece.split_to(100).freeze());
        pieces.give_back(beginning, usize::MAX);
        assert_eq!(free(&pieces), 0, "somebody has its end");
        pieces.give_back(piece.freeze(), usize::MAX);
        assert_eq!(pieces.take(PIECE, usize::MAX).as_ptr(), place);
    }

    #[test]
    fn only_so_many_are_kept() {
        let pieces = Pieces::default();
        let taken: Vec<_> = (0..MOST + 10).map(|_| pieces.take(PIECE, usize::MAX)).collect();
        for mut piece in taken {
            piece.extend_from_slice(b"some");
            pieces.give_back(piece.freeze(), usize::MAX);
        }
        assert_eq!(free(&pieces), MOST);
    }

    /// What lies free is given up as others take what it may be together with them.
    #[test]
    fn only_so_many_are_kept_as_there_is_room_for() {
        let pieces = Pieces::default();
        let taken: Vec<_> = (0..10).map(|_| pieces.take(PIECE, usize::MAX)).collect();
        for mut piece in taken {
            piece.extend_from_slice(b"some");
            pieces.give_back(piece.freeze(), 8 * PIECE);
        }
        assert_eq!(free(&pieces), 8);
        drop(pieces.take(1000, 6 * PIECE));
        assert_eq!(free(&pieces), 6);
        drop(pieces.take(PIECE, 6 * PIECE));
        assert_eq!(free(&pieces), 5, "one of them is taken");
        drop(pieces.take(1000, PIECE - 1));
        assert_eq!(free(&pieces), 0);
    }
}
