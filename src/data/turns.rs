//! [`Turns`]: those of one process who change the same value in a far store take turns, so that they contend with other processes only; and the next one knows what the last one put.

use std::fmt;
use std::sync::{Arc, OnceLock};

use tokio::sync::Mutex;

use crate::key::CacheKey;
use crate::response::StoredResponse;

/// Of so many keys it is remembered whose turn it is. Beyond that two may have the turn of a key, and contend as two processes do.
const MOST: u64 = 10_000;

/// What takes more isn't remembered beyond the turn.
const MOST_BYTES: usize = 1 << 10;

/// The turn of a key: what is likely to be there.
pub(super) type Turn = Mutex<Option<Arc<StoredResponse>>>;

#[derive(Default)]
pub(crate) struct Turns(OnceLock<moka::sync::Cache<CacheKey, Arc<Turn>>>);

impl Turns {
    pub(super) fn of(&self, key: &CacheKey) -> Arc<Turn> {
        self.0.get_or_init(|| moka::sync::Cache::new(MOST)).get_with_by_ref(key, Arc::default)
    }
}

/// What the next one is told.
pub(super) fn remembered(stored: Arc<StoredResponse>) -> Option<Arc<StoredResponse>> {
    Some(stored).filter(|stored| stored.body.len() <= MOST_BYTES)
}

impl fmt::Debug for Turns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turns").finish_non_exhaustive()
    }
}
