//! Contents that differ from key to key, made of blocks that all of them share: handing one out costs its sender nothing but the sending, and
//! the receiver can tell each from every other.

use std::sync::OnceLock;

use bytes::Bytes;
use sha2::{Digest, Sha256};

pub const BLOCK: usize = 64 << 10;
const BLOCKS: usize = 64;

/// The same in every process.
fn blocks() -> &'static [Bytes] {
    static ALL: OnceLock<Vec<Bytes>> = OnceLock::new();
    ALL.get_or_init(|| {
        let mut state = 1;
        let mut block = || (0..BLOCK / 8).flat_map(|_| next(&mut state).to_le_bytes()).collect::<Vec<_>>();
        (0..BLOCKS).map(|_| Bytes::from(block())).collect()
    })
}

/// SplitMix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The content of a key, in chunks of a block at most.
pub fn chunks(key: u64, size: usize) -> impl Iterator<Item = Bytes> {
    let mut state = key.wrapping_mul(0xD6E8_FEB8_6659_FD93);
    (0..size.div_ceil(BLOCK)).map(move |n| {
        let random = next(&mut state);
        let length = BLOCK.min(size - n * BLOCK);
        // A short chunk begins somewhere in its block.
        let start = (random >> 32) as usize % (BLOCK - length + 1);
        blocks()[random as usize % BLOCKS].slice(start..start + length)
    })
}

/// The content of a key in one piece.
pub fn whole(key: u64, size: usize) -> Bytes {
    chunks(key, size).collect::<Vec<_>>().concat().into()
}

pub type Hash = [u8; 32];

/// The SHA-256 of the content of a key.
pub fn hash(key: u64, size: usize) -> Hash {
    let mut hash = Sha256::new();
    chunks(key, size).for_each(|chunk| hash.update(&chunk));
    hash.finalize().into()
}
