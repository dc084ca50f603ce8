//! [`Naming`]: how resources, tags and authorities become the hashes that purges know them by.

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

/// What is named. The numbers are hashed along and so never change their meaning.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub(crate) enum Named {
    /// Authority, path and query.
    Resource = 1,
    /// Path and query, on any authority.
    Path = 2,
    Authority = 3,
    /// A tag or a group: authority and scheme, where it is of one origin only, and its name.
    Tag = 4,
    /// All spellings of a query: authority, where it is of one only, and path.
    Spellings = 5,
}

/// Whether caches of data may have this name: of 1 to 64 of the letters `a` to `z`, digits, `_` and `-`.
pub(crate) fn is_data_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    (1..=64).contains(&name.len()) && name.bytes().all(allowed)
}

impl Default for Naming {
    fn default() -> Self {
        Self::Here(hasher())
    }
}

impl Naming {
    /// The hash of what has these parts. One that is missing isn't one that is empty.
    pub(crate) fn hash(&self, named: Named, parts: &[Option<&[u8]>]) -> u64 {
        match self {
            Self::Here(state) => state.hash_one((named, parts)),
            Self::Everywhere => {
                // Written by hand: what `Hash` feeds a hasher may change with the compiler, and depends on the width of `usize`.
                let mut hasher = SipHasher13::new();
                hasher.write(&[named as u8]);
                for part in parts {
                    let Some(part) = part else {
                        hasher.write(&[0]);
                        continue;
                    };
                    hasher.write(&[1]);
                    hasher.write(&(part.len() as u64).to_le_bytes());
                    hasher.write(part);
                }
                hasher.finish()
            }
        }
    }

    /// Whether other instances know things by the same hashes, and so may know what this one doesn't.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self, Self::Everywhere)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Instances of several versions run side by side, so these never change.
    #[test]
    fn shared_names_are_the_same_for_ever() {
        type Row<'a> = (Named, &'a [Option<&'a [u8]>], u64);
        let rows: [Row<'_>; 5] = [
            (Named::Resource, &[Some(b"\x00\x01h/a")], 0x4C0F_2188_F302_650B),
            (Named::Path, &[Some(b"/a")], 0xF98A_662E_3580_37F8),
            (Named::Authority, &[None], 0x6537_95DF_75B3_17D2),
            (Named::Tag, &[None, None, Some(b"user:1")], 0xBFB3_C459_9F96_F383),
            (Named::Spellings, &[Some(b"h"), Some(b"/a")], 0x00D8_1399_FC79_F9D6),
        ];
        for (named, parts, expected) in rows {
            assert_eq!(Naming::Everywhere.hash(named, parts), expected, "{named:?}");
        }
    }

    #[test]
    fn different_things_have_different_names() {
        let all: [(Named, &[Option<&[u8]>]); 8] = [
            (Named::Resource, &[Some(b"ab")]),
            (Named::Path, &[Some(b"ab")]),
            (Named::Tag, &[Some(b"a"), Some(b"b")]),
            (Named::Tag, &[Some(b"ab"), Some(b"")]),
            (Named::Tag, &[Some(b"ab"), None]),
            (Named::Tag, &[None, Some(b"ab")]),
            (Named::Tag, &[None, None]),
            (Named::Tag, &[Some(b""), None]),
        ];
        for naming in [Naming::default(), Naming::Everywhere] {
            let mut hashes: Vec<u64> = all.iter().map(|(named, parts)| naming.hash(*named, parts)).collect();
            hashes.sort_unstable();
            hashes.dedup();
            assert_eq!(hashes.len(), all.len(), "{naming:?}");
        }
    }
}
