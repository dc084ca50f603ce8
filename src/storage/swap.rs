//! What a swap is asked for, and what comes of it: [`Storage::swap`](super::Storage::swap) puts an entry in the place of the one that is expected there, in one step, so that of those
//! who change the same entry at the same time none undoes what another one did.

use std::borrow::Borrow;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Moment;
use crate::error::StorageError;
use crate::key::CacheKey;
use crate::response::StoredResponse;

/// What a store is asked to do in one step.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Swap<'a> {
    /// The key.
    pub key: &'a CacheKey,
    /// What has to be there for the swap to be done.
    pub expected: Expected<'a>,
    /// What takes its place then.
    pub new: Arc<StoredResponse>,
    /// When it is asked, by the clock of the cache.
    pub now: Moment,
}

/// What has to be there for a swap to be done.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Expected<'a> {
    /// Nothing.
    Nothing,
    /// The [same entry](StoredResponse::is_same_entry) as this one.
    This(&'a StoredResponse),
}

/// What came of a swap.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Swapped {
    /// The new entry is there now.
    Done,
    /// Nothing was changed, since this is there instead, or nothing is.
    Not(Option<Arc<StoredResponse>>),
}

impl<'a> Swap<'a> {
    /// A swap; for whoever asks a store without a cache.
    pub fn new(key: &'a CacheKey, expected: Expected<'a>, new: Arc<StoredResponse>, now: Moment) -> Self {
        Self { key, expected, new, now }
    }

    /// What the answer is where these are stored under the key: `None` if the new entry is to take their place. For backends that keep entries as they are, and can look and put under one lock.
    ///
    /// # Errors
    /// If what is there has variants, or the new entry would have.
    pub fn answer<R: Borrow<StoredResponse>>(&self, there: &[R]) -> Result<Option<Swapped>, StorageError> {
        if self.new.varies() || there.iter().any(|one| one.borrow().varies()) {
            return Err(variants());
        }
        let there = there.first().map(R::borrow);
        let is_expected = match (self.expected, there) {
            (Expected::Nothing, None) => true,
            (Expected::This(expected), Some(there)) => expected.is_same_entry(there),
            (Expected::Nothing, Some(_)) | (Expected::This(_), None) => false,
        };
        Ok(if is_expected { None } else { Some(Swapped::Not(there.cloned().map(Arc::new))) })
    }
}

/// The error of who would swap what has variants.
pub(super) fn variants() -> StorageError {
    StorageError::refused("what has variants can't be swapped")
}

/// By so much two readings of one moment may differ, where the clock of the store is another one.
const UNSURE: Duration = Duration::from_millis(10);

impl StoredResponse {
    /// Whether both are one entry, wherever they were read: all that was stored is the same, but for what two clocks make of one moment.
    ///
    /// What is to be told from all that looks like it (a number that was counted up and down again, say) has to have something of its own. Entries that larder swaps in have an `ETag` which is never
    /// given twice.
    pub fn is_same_entry(&self, other: &Self) -> bool {
        let (one, two) = (self.received.wall, other.received.wall);
        let apart = one.duration_since(two).unwrap_or_else(|early| early.duration());
        apart <= UNSURE
            && self.stamp.number == other.stamp.number
            && (self.status, self.regime, self.terms) == (other.status, other.regime, other.terms)
            && self.same_variant(other)
            && self.form == other.form
            && self.body == other.body
            && self.stamp.hashes().eq(other.stamp.hashes())
            && self.headers() == other.headers()
    }

    /// Whether it may have variants beside it: then its key can't be swapped.
    pub(crate) fn varies(&self) -> bool {
        !self.variance.fields.is_empty()
    }

    /// Whether an atomic operation put it there. Then another one may do so at any moment, on any instance, and tell nobody: such an entry must not be copied to a store that is nearer, since every look
    /// at it has to see the newest.
    pub fn is_atomic(&self) -> bool {
        self.regime.is_atomic()
    }
}
