//! [`Digest`]: a keyed 64-bit hash of content, the same however the content was cut into pieces.

use std::hash::{BuildHasher, Hasher};

/// The hash takes this much at a time, wherever the pieces end.
const BLOCK: usize = 256;

/// Content being hashed as it passes.
pub(crate) struct Digest {
    hasher: ahash::AHasher,
    /// What doesn't fill a block yet.
    block: [u8; BLOCK],
    held: usize,
}

impl Digest {
    pub(crate) fn new(key: &ahash::RandomState) -> Self {
        Self { hasher: key.build_hasher(), block: [0; BLOCK], held: 0 }
    }

    /// Of content that is there as a whole.
    pub(crate) fn of(key: &ahash::RandomState, content: &[u8]) -> u64 {
        let mut digest = Self::new(key);
        digest.update(content);
        digest.finish()
    }

    /// The next piece.
    pub(crate) fn update(&mut self, mut piece: &[u8]) {
        if self.held > 0 {
            let (first, rest) = piece.split_at(piece.len().min(BLOCK - self.held));
            self.block[self.held..self.held + first.len()].copy_from_slice(first);
            self.held += first.len();
            piece = rest;
            if self.held < BLOCK {
                return;
            }
            self.hasher.write(&self.block);
            self.held = 0;
        }
        let mut blocks = piece.chunks_exact(BLOCK);
        blocks.by_ref().for_each(|block| self.hasher.write(block));
        let rest = blocks.remainder();
        self.block[..rest.len()].copy_from_slice(rest);
        self.held = rest.len();
    }

    pub(crate) fn finish(mut self) -> u64 {
        self.hasher.write(&self.block[..self.held]);
        self.hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_cuts_dont_matter(content in proptest::collection::vec(any::<u8>(), 0..2000), cuts in proptest::collection::vec(0_usize..700, 0..12)) {
            let key = ahash::RandomState::with_seeds(1, 2, 3, 4);
            let (mut digest, mut rest) = (Digest::new(&key), &content[..]);
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                digest.update(piece);
                rest = after;
            }
            digest.update(rest);
            prop_assert_eq!(digest.finish(), Digest::of(&key, &content));
        }

        #[test]
        fn another_byte_or_one_more_is_another_hash(content in proptest::collection::vec(any::<u8>(), 1..600), at in any::<usize>()) {
            let key = ahash::RandomState::with_seeds(1, 2, 3, 4);
            let (mut other, mut longer) = (content.clone(), content.clone());
            other[at % content.len()] ^= 1;
            longer.push(0);
            let of = |content: &[u8]| Digest::of(&key, content);
            prop_assert!(of(&content) != of(&other) && of(&content) != of(&longer));
        }
    }
}
