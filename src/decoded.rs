//! [`Decoded`]: stored content on its way to a client that doesn't take its coding.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::cache::CacheCore;
use crate::codec::{Corrupt, Decoder};
use crate::form::Form;
use crate::purged::Force;
use crate::response::StoredResponse;
use crate::stats::count;
use crate::target::Target;

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
        if self.left > 0 {
            let mut piece = match self.decoder.next() {
                Ok(Some(piece)) => piece,
                Ok(None) | Err(_) => return Some(Err(self.give_up())),
            };
            let skipped = self.skip.min(piece.len() as u64);
            self.skip -= skipped;
            drop(piece.split_to(skipped as usize));
            piece.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
            self.left -= piece.len() as u64;
            // Empty where all of it lies before what is wanted: then others may run before the next is decoded.
            return Some(Ok(piece));
        }
        None
    }

    /// By number, so that it is gone from whatever store it is in.
    #[cold]
    fn give_up(&self) -> Corrupt {
        count(&self.core.counters.compression.corrupt);
        self.core.purge_behind(Target::place(self.resource), Force::Hard);
        tracing::warn!(target: "larder", "a stored response can't be decoded, and is dropped");
        Corrupt
    }
}

#[cfg(all(test, feature = "gzip"))]
mod tests {
    use http::{HeaderMap, StatusCode};

    use super::*;
    use crate::clock::Clock;
    use crate::compression::{Coder, Compression};
    use crate::key::CacheKey;
    use crate::layer::CacheLayer;
    use crate::response::Origin;
    use crate::rfc9111::coding::Coding;
    use crate::settings::Settings;

    fn key() -> CacheKey {
        CacheKey::new(b"h", "/", None)
    }

    fn core() -> Arc<CacheCore> {
        Arc::new(CacheCore::new(Settings::clone(CacheLayer::in_memory(1 << 20).settings())))
    }

    fn stored(core: &CacheCore, body: Bytes, length: u32) -> StoredResponse {
        let (head, body) = core.heads.store(&HeaderMap::new(), &[], body);
        StoredResponse {
            status: StatusCode::OK,
            head,
            body,
            form: Form::Coded { by: Coder { coding: Coding::Gzip, level: None }, length },
            terms: Default::default(),
            received: core.settings.clock.now(),
            variance: Arc::default(),
            origin: Origin::default(),
            downstream: None,
            stamp: core.purges.stamp(&key(), core.purges.current()),
            regime: Default::default(),
            keep: Default::default(),
            charge: None,
            upkeep: None,
            route: Arc::default(),
        }
    }

    #[test]
    fn a_part_is_decoded_only_as_far_as_it_is_wanted() {
        let content: Vec<u8> = (0..300_000_u32).map(|n| (n / 7 % 251) as u8).collect();
        let coded = crate::codec::encode(&content, &Compression::gzip()).unwrap();
        let core = core();
        // What comes behind isn't looked at.
        let mut broken = coded.to_vec();
        let last = broken.len() - 1;
        broken[last] ^= 1;
        let entry = stored(&core, broken.into(), 300_000);
        for part in [0..1, 5..70_000, 65_536..65_537, 100..131_072] {
            let mut decoded = Decoded::new(&core, &entry, part.clone()).unwrap();
            let mut all = Vec::new();
            while let Some(piece) = decoded.next() {
                all.extend_from_slice(&piece.unwrap());
                assert_eq!(all.len() as u64 + decoded.left(), part.end - part.start);
            }
            assert_eq!(all, content[part.start as usize..part.end as usize]);
        }
        assert!(core.is_valid(&entry, &key()));
    }

    #[test]
    fn a_corrupt_entry_is_an_error_and_is_dropped() {
        let content = vec![b'x'; 200_000];
        let coded = crate::codec::encode(&content, &Compression::gzip()).unwrap();
        for (bytes, length) in [(coded.slice(..coded.len() - 4), 200_000), (coded.clone(), 199_999), (coded, 200_001)] {
            let core = core();
            let entry = stored(&core, bytes, length);
            let mut decoded = Decoded::new(&core, &entry, 0..u64::from(length)).unwrap();
            let mut pieces = 0;
            let end = loop {
                match decoded.next() {
                    Some(Ok(_)) => pieces += 1,
                    end => break end,
                }
            };
            assert_eq!((end, pieces), (Some(Err(Corrupt)), 3), "all but the last piece");
            assert!(!core.is_valid(&entry, &key()), "dropped");
            assert!(decoded.left() > 0, "never a clean end");
        }
    }
}
