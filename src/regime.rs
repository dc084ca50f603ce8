//! [`Regime`]: under which rule and which settings a response was stored. What rules and settings say may change while a cache runs; a stored
//! response is then held against what counts now.

/// Two digests of what a rule and the settings say. Equal digests mean equal words, in this generation of the settings and in any other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Regime {
    /// Of all that has a say in what is stored and how it is answered.
    pub(crate) whole: u64,
    /// Of that part of it which says for whom an answer is. What was stored under another never answers: who it was made for isn't
    /// known any more.
    pub(crate) audience: u64,
}

/// What stands for an audience where an atomic operation put the entry there. The digest of an audience is this by chance in one of 2^64 cases, which then isn't kept near.
pub(crate) const ATOMIC: u64 = 2;

impl Regime {
    /// Whether an atomic operation put it there.
    #[inline]
    pub(crate) fn is_atomic(self) -> bool {
        self.audience == ATOMIC
    }
}
