//! [`Decoded`]: stored content on its way to a client that doesn't take its coding.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::cache::CacheCore;
use crate::codec::{Corrupt, Decoder};
use crate::form::Form;
use crate::response::StoredResponse;
use crate::stats::count;

/// A part of coded content, or all of it, decoded piece by piece as it is asked for, and only as far as it is wanted.
pub(crate) struct Decoded {
    core: Arc<CacheCore>,
    decoder: Decoder,
    /// By which the entry is dropped if it turns out to be worthless.
    resource: u64,
    skip: u64,
    left: u64,
}

impl Decoded {
    /// What of the content of `stored` lies in `wanted`.
    pub(crate) fn new(core: &Arc<CacheCore>, stored: &StoredResponse, wanted: Range<u64>) -> Option<Self> {
        let Form::Coded { by, length } = stored.form else { return None };
        Some(Self {
            core: core.clone(),
            decoder: Decoder::new(by.coding, stored.body.clone(), u64::from(length)),
            resource: stored.stamp.resource,
            skip: wanted.start,
            left: wanted.end - wanted.start,
        })
    }

    /// How much has still to come.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    /// The next piece; `None` after the last.
    ///
    /// # Errors
    /// Where the entry can't be decoded to what it was. It is dropped then, and counted.
    pub(crate) fn next(&mut self) -> Option<Result<Bytes, Corrupt>> {
        while self.left > 0 {
            let mut piece = match self.decoder.next() {
                Ok(Some(piece)) => piece,
                Ok(None) | Err(_) => return Some(Err(self.give_up())),
            };
            let skipped = self.skip.min(piece.len() as u64);
            self.skip -= skipped;
            drop(piece.split_to(skipped as usize));
            piece.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
            if !piece.is_empty() {
                self.left -= piece.len() as u64;
                return Some(Ok(piece));
            }
        }
        None
    }

    /// By number, so that it is gone from whatever store it is in.
    #[cold]
    fn give_up(&self) -> Corrupt {
        count(&self.core.counters.compression.corrupt);
        self.core.purges.purge_resource(self.resource);
        tracing::warn!(target: "larder", "a stored response can't be decoded, and is dropped");
        Corrupt
    }
}
