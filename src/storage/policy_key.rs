//! [`PolicyKey`]: a key of the memory store as moka has it, in one piece of memory with its hash. moka hashes its keys again and again, as its tables
//! are tidied behind what left; then each would be read from wherever it lies, and hashed anew. [`IndexKey`]: the same as the index has it. Both know it by one hash,
//! which is made once for all that is done about a key.

use std::hash::{Hash, Hasher};

use papaya::Equivalent;
use smallvec::SmallVec;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PolicyKey {
    hash: u64,
    bytes: SmallVec<[u8; 48]>,
}

impl PolicyKey {
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn sought(&self) -> Sought<'_> {
        Sought { hash: self.hash, bytes: &self.bytes }
    }
}

/// Keys beside their slots, so that comparing one isn't another way through memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::storage) struct IndexKey {
    hash: u64,
    bytes: SmallVec<[u8; 88]>,
}

impl IndexKey {
    pub(super) fn sought(&self) -> Sought<'_> {
        Sought { hash: self.hash, bytes: &self.bytes }
    }
}

impl Hash for IndexKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Hash for PolicyKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// A key to be looked for, with its hash.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sought<'a> {
    pub(super) hash: u64,
    pub(super) bytes: &'a [u8],
}

impl Sought<'_> {
    pub(super) fn to_key(self) -> PolicyKey {
        PolicyKey { hash: self.hash, bytes: SmallVec::from_slice(self.bytes) }
    }

    pub(super) fn to_index_key(self) -> IndexKey {
        IndexKey { hash: self.hash, bytes: SmallVec::from_slice(self.bytes) }
    }
}

impl Hash for Sought<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Equivalent<PolicyKey> for Sought<'_> {
    fn equivalent(&self, key: &PolicyKey) -> bool {
        self.hash == key.hash && self.bytes == key.as_bytes()
    }
}

impl Equivalent<IndexKey> for Sought<'_> {
    fn equivalent(&self, key: &IndexKey) -> bool {
        self.hash == key.hash && self.bytes == key.bytes.as_slice()
    }
}

/// Takes the hash that a key has as it is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known(u64);

impl Hasher for Known {
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, bytes: &[u8]) {
        // Nothing but keys is hashed by this, and they write one number.
        self.0 = bytes.iter().fold(self.0, |hash, byte| hash.rotate_left(8) ^ u64::from(*byte));
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
