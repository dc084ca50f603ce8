//! [`Lease`]: which of several instances asks the handler for what none of them has.

/// What became of asking for a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lease {
    /// This instance asks the handler, and says [when it is over](super::Storage::release).
    Granted(LeaseToken),
    /// Another one does.
    Taken,
    /// Whoever wants may: the store knows no leases, or the last answer was nobody else's.
    Free,
}

/// Proves who has a lease, so that nobody ends one that isn't theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseToken(pub [u8; 16]);

/// How a lease ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Released {
    /// The answer is in the store.
    Stored,
    /// The answer can't be shared: those who wait go on their own, and for a moment nobody waits again.
    Declined,
    /// There was no answer; one of those who wait asks anew.
    Failed,
}
