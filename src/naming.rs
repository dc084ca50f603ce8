//! [`Naming`]: how resources, tags and principals become the hashes that purges know them by.

use std::hash::{Hash, Hasher};

use siphasher::sip::SipHasher13;

use crate::sync::hasher;

/// How hashes are made. A collision costs a miss, and never a stale answer.
#[derive(Clone, Debug)]
pub(crate) enum Naming {
    /// Keyed by the process: fast, and nobody outside can tell which names collide.
    Here(ahash::RandomState),
    /// The same in every process and on every machine, for stores and logs that several instances share.
    Everywhere,
}

impl Default for Naming {
    fn default() -> Self {
        Self::Here(hasher())
    }
}

impl Naming {
    pub(crate) fn hash_one<T: Hash>(&self, named: T) -> u64 {
        match self {
            Self::Here(state) => state.hash_one(named),
            Self::Everywhere => {
                let mut hasher = SipHasher13::new();
                named.hash(&mut hasher);
                hasher.finish()
            }
        }
    }
}
