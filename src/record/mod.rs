//! Stored responses and purges as bytes, for stores outside of the process: [`RecordFormat`]. It refuses whatever isn't, to the last byte, what a cache wrote
//! for the key that is asked for; and it never allocates more than what is there.
//!
//! The layout is in `docs/record.md`. A record is read where it lies: its content, and those field values that differ from response to response, are slices of it.
//!
//! ```
//! # use std::{collections::HashMap, sync::{Arc, Mutex, PoisonError}};
//! # use bytes::Bytes;
//! use larder::record::{ClockShift, RecordFormat};
//! use larder::storage::{Query, Storage, StorageUsage, Variants};
//! use larder::{CacheKey, CacheLayer, StorageError, StoredResponse};
//!
//! /// One variant of each resource, as bytes, wherever those are kept.
//! #[derive(Default)]
//! struct Shelf {
//!     records: Mutex<HashMap<Vec<u8>, Bytes>>,
//!     format: RecordFormat,
//! }
//! # impl Shelf {
//! #     fn with<R>(&self, use_it: impl FnOnce(&mut HashMap<Vec<u8>, Bytes>) -> R) -> R {
//! #         use_it(&mut self.records.lock().unwrap_or_else(PoisonError::into_inner))
//! #     }
//! # }
//!
//! impl Storage for Shelf {
//!     async fn get(&self, query: Query<'_>) -> Result<Variants, StorageError> {
//!         let record = self.with(|all| all.get(query.key.as_bytes()).cloned());
//!         let Some(record) = record else { return Ok(Variants::new()) };
//!         let response = self.format.decode(record, query.key, query.now, ClockShift::NONE)?;
//!         Ok([Arc::new(response)].into_iter().collect())
//!     }
//!     async fn put(&self, key: &CacheKey, response: Arc<StoredResponse>, _: usize) -> Result<(), StorageError> {
//!         let record = self.format.encode(&response, key, ClockShift::NONE);
//!         self.with(|all| all.insert(key.as_bytes().into(), record.into()));
//!         Ok(())
//!     }
//!     async fn remove(&self, key: &CacheKey) -> Result<bool, StorageError> {
//!         Ok(self.with(|all| all.remove(key.as_bytes()).is_some()))
//!     }
//!     async fn clear(&self) -> Result<(), StorageError> {
//!         Ok(self.with(HashMap::clear))
//!     }
//!     fn usage(&self) -> StorageUsage {
//!         StorageUsage::new(self.with(|all| all.len()) as u64, 0, 0)
//!     }
//! }
//!
//! let cache = CacheLayer::with_storage(Shelf::default());
//! # drop(cache);
//! ```

mod error;
mod frame;
mod head;
mod purge;
mod seal;
mod shift;
mod terms;
#[cfg(all(test, feature = "gzip", feature = "brotli", feature = "zstd"))]
mod tests;
mod variances;
mod wire;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub use self::error::RecordError;
use self::frame::{Ends, HEADER, Header};
use self::head::KnownHeads;
pub use self::purge::MessageError;
use self::seal::{SEAL, Seal};
pub use self::shift::ClockShift;
use self::variances::KnownVariances;
use crate::clock::Moment;
use crate::form::Form;
use crate::key::CacheKey;
use crate::response::StoredResponse;
use crate::rfc9111::coding::Coding;
use crate::tally::RouteCounters;

/// How stored responses are written as records and read back. Clones share what was learned about the records that were read, so keep one for each store.
///
/// By default a record is sealed with a checksum (XXH3-128), by which accidents are noticed. Who may write to the store can still forge responses; with a
/// [key](Self::mac), only who knows that.
#[derive(Clone, Debug, Default)]
pub struct RecordFormat {
    seal: Seal,
    learned: Arc<Learned>,
}

/// What records have in common.
#[derive(Debug, Default)]
struct Learned {
    heads: KnownHeads,
    variances: KnownVariances,
    /// What counts for no route: the cache that reads a record knows to which its response belongs.
    nowhere: Arc<RouteCounters>,
}

/// How much later than now a record may say that it was received. Clocks are never quite the same; but what is in the future is of an age that nobody knows.
const MOST_AHEAD: Duration = Duration::from_secs(2);

/// What a record has beside head, key and content, and is never much larger.
const USUAL: usize = 512;

impl RecordFormat {
    /// Where the [number](crate::Receipt::number) of the newest purge before the response stands in a record: eight bytes, the highest first.
    pub const NUMBER: Range<usize> = frame::NUMBER;

    /// Where the time stands at which the response arrived, directly behind: milliseconds since 1970 by the store's clock, eight bytes, the highest first.
    ///
    /// Of two records of the same variant, what began later has the larger sixteen bytes from the beginning of [`NUMBER`](Self::NUMBER) to the end of this, and
    /// that is the one that [stays](crate::storage::with_variant).
    pub const RECEIVED: Range<usize> = frame::RECEIVED;

    /// Seals records under a key (HMAC-SHA-256, RFC 2104, cut to 128 bits), and reads no others. All instances that share a store need the same one; use one
    /// key for one store and namespace.
    ///
    /// It costs about as much as hashing the content. What it doesn't prevent: that who may write to the store brings back an earlier record of the same key.
    #[must_use]
    pub fn mac(mut self, key: [u8; 32]) -> Self {
        self.seal = Seal::keyed(&key);
        self
    }

    /// The record of a response that is stored under `key`.
    pub fn encode(&self, response: &StoredResponse, key: &CacheKey, shift: ClockShift) -> Vec<u8> {
        let sections = key.as_bytes().len() + response.head.size() + response.body.len();
        let mut record = Vec::with_capacity(HEADER + sections + USUAL + SEAL);
        record.resize(HEADER, 0);
        record.extend_from_slice(key.as_bytes());
        let key = record.len();
        head::put(&mut record, &response.head);
        let head = record.len();
        terms::put(&mut record, response);
        let terms = record.len();
        record.extend_from_slice(&response.body);
        let header = Header { number: response.stamp.number, received: shift.to_store(response.received.wall) };
        frame::close(&mut record, &header, &Ends { key, head, terms }, &self.seal);
        record
    }

    /// The response of a record, if that belongs to `key`. The response keeps the record's memory, of which its content is a slice.
    ///
    /// # Errors
    /// If the bytes are no record of a response, or not of this key, or damaged, or of a version, flag or coding that isn't known here; or if the response was
    /// received more than two seconds later than now.
    pub fn decode(
        &self,
        record: Bytes,
        key: &CacheKey,
        now: Moment,
        shift: ClockShift,
    ) -> Result<StoredResponse, RecordError> {
        self.read(&record, key, now, shift)
    }

    /// The same of a record that is borrowed: each owner of its memory is counted.
    pub(crate) fn read(
        &self,
        record: &Bytes,
        key: &CacheKey,
        now: Moment,
        shift: ClockShift,
    ) -> Result<StoredResponse, RecordError> {
        let frame = frame::open(record, &self.seal)?;
        if frame.key != key.as_bytes() {
            return Err(RecordError::Key);
        }
        let received = received(shift.to_own(frame.header.received), now).ok_or(RecordError::Future)?;
        let head = self.learned.heads.read(frame.head, record).ok_or(RecordError::Malformed)?;
        let spread = u64::from_be_bytes(std::array::from_fn(|n| frame.seal[n])) ^ now.monotonic.as_nanos() as u64;
        let decided = terms::read(frame.terms, record, frame.header.number, spread, &self.learned.variances)
            .ok_or(RecordError::Malformed)?;
        if !can_decode(decided.form) {
            return Err(RecordError::Coding);
        }
        Ok(StoredResponse {
            status: decided.status,
            head,
            body: record.slice(frame.body),
            form: decided.form,
            terms: decided.terms,
            received,
            variance: decided.variance,
            origin: decided.origin,
            downstream: decided.downstream,
            stamp: decided.stamp,
            regime: decided.regime,
            keep: decided.keep,
            charge: None,
            upkeep: decided.upkeep,
            route: self.learned.nowhere.clone(),
        })
    }
}

/// When a response was received by both clocks of this machine, so that it is as old as the wall clock says, and ages by both. `None` if it is from the future.
fn received(wall: std::time::SystemTime, now: Moment) -> Option<Moment> {
    match now.wall.duration_since(wall) {
        // Where the process is younger than the response, the wall clock alone tells its age.
        Ok(age) => Some(Moment { wall, monotonic: now.monotonic.saturating_sub(age) }),
        Err(ahead) if ahead.duration() <= MOST_AHEAD => Some(Moment { wall, monotonic: now.monotonic }),
        Err(_) => None,
    }
}

/// Whether this build can give the content to those who take no coding.
fn can_decode(form: Form) -> bool {
    match form {
        Form::Fixed | Form::Plain | Form::Settled => true,
        Form::Coded { by, .. } => match by.coding {
            Coding::Gzip => cfg!(feature = "gzip"),
            Coding::Brotli => cfg!(feature = "brotli"),
            Coding::Zstd => cfg!(feature = "zstd"),
        },
    }
}
