//! [`Job`]: compression of what was stored just now, behind the answer that brought it, by few threads at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::HeaderMap;
use tokio::sync::Semaphore;

use crate::boarding::Given;
use crate::cache::CacheCore;
use crate::codec::encode;
use crate::commit::weight;
use crate::flight::Flight;
use crate::form::Form;
use crate::key::CacheKey;
use crate::plainly::Plainly;
use crate::response::StoredResponse;
use crate::stats::{add, count};
use crate::storage::Query;

/// Who compresses: as many at a time as there are processors, and content of bounded size waiting for them.
#[derive(Debug)]
pub(crate) struct Coders {
    free: Semaphore,
    /// Bytes that wait or are being compressed. They are in the store, but may leave it meanwhile, and are in memory all the same.
    waiting: AtomicUsize,
    /// How handlers are asked for what will be compressed.
    pub(crate) plainly: Plainly,
}

/// The most bytes that wait, where one content alone isn't more.
const MOST_WAITING: usize = 32 << 20;

impl Default for Coders {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self { free: Semaphore::new(processors), waiting: AtomicUsize::new(0), plainly: Plainly::default() }
    }
}

impl Coders {
    /// A place in the queue for so many bytes.
    fn enter(&self, bytes: usize) -> bool {
        let entered = self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| {
            let sum = waiting.checked_add(bytes)?;
            (waiting == 0 || sum <= MOST_WAITING).then_some(sum)
        });
        entered.is_ok()
    }
}

/// The compression of one stored response.
pub(crate) struct Job {
    core: Arc<CacheCore>,
    key: CacheKey,
    stored: Arc<StoredResponse>,
    /// In a store that isn't in memory the response is looked up and then replaced, and what comes between is noticed here.
    flight: Option<Flight<Given>>,
    place: Place,
}

/// A place in the queue; free again when it is dropped.
struct Place {
    core: Arc<CacheCore>,
    bytes: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.core.coders.waiting.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Job {
    /// For a response that is about to be stored, if there is something to be done about it. A purge from now on is noticed.
    pub(crate) fn begin(core: &Arc<CacheCore>, key: &CacheKey, stored: &Arc<StoredResponse>) -> Option<Self> {
        let bytes = stored.body.len();
        let compression = &core.settings.compression;
        if stored.form != Form::Plain || bytes < compression.min_size || u32::try_from(bytes).is_err() {
            return None;
        }
        if !compression.is_on() || tokio::runtime::Handle::try_current().is_err() || !core.coders.enter(bytes) {
            count(&core.counters.compression.skipped);
            return None;
        }
        let place = Place { core: core.clone(), bytes };
        let flight = core.settings.backend.near.is_none().then(|| {
            let flight = core.flights.begin(&stored.stamp, key, core.groups.authority(key.origin().authority), None);
            flight.know_tags(stored.stamp.tags.clone());
            flight
        });
        Some(Self { core: core.clone(), key: key.clone(), stored: stored.clone(), flight, place })
    }

    /// Does it behind the answer. A shutdown waits for it as for all work of the cache.
    pub(crate) fn spawn(self) {
        self.core.clone().spawn(self.run());
    }

    async fn run(self) {
        let Ok(_turn) = self.core.coders.free.acquire().await else { return };
        // While it waited, something else may have been stored in its place.
        if self.core.is_closing() || !self.is_still_there() {
            return;
        }
        let (content, compression) = (self.stored.body.clone(), self.core.settings.compression);
        let coding = self.core.tasks.spawn_blocking(move || encode(&content, &compression));
        // A coder that panics, as none should, leaves the content as it is.
        let Ok(coded) = coding.await else { return };
        self.replace(coded).await;
        drop(self.place);
    }

    /// Whether it is worth beginning; memory tells at once.
    fn is_still_there(&self) -> bool {
        match &self.core.settings.backend.near {
            Some(near) => near.read(&self.key, |variants| variants.iter().any(|other| self.is_meant(other))),
            None => self.flight.as_ref().is_some_and(|flight| !flight.is_closed()),
        }
    }

    /// Whether `other`, which is stored now, has the very content that was compressed, and is of use still. While that is in hand, nothing else can lie at its
    /// place in memory.
    fn is_meant(&self, other: &StoredResponse) -> bool {
        let same = (other.body.as_ptr(), other.body.len()) == (self.stored.body.as_ptr(), self.stored.body.len());
        other.form == Form::Plain && same && self.core.is_valid(other, &self.key)
    }

    /// Puts what was made in the place of what it was made from, if that is still there and no purge has touched it.
    async fn replace(&self, coded: Option<Bytes>) {
        let plain = self.stored.body.len();
        let by = self.core.settings.compression.coder();
        let (form, body) = match coded.clone().zip(by) {
            Some((coded, by)) => (Form::Coded { by, length: u32::try_from(plain).unwrap_or(u32::MAX) }, coded),
            None => (Form::Settled, self.stored.body.clone()),
        };
        let counters = &self.core.counters.compression;
        let replaced = match &self.core.settings.backend.near {
            Some(near) => near.change_now(&self.key, |other| {
                self.is_meant(other).then(|| other.in_form(form, body.clone(), &self.core.heads))
            }),
            None if coded.is_some() => self.replace_elsewhere(form, body).await,
            None => None,
        };
        match (coded, replaced) {
            (None, _) => count(&counters.not_worth),
            (Some(coded), Some(response)) => {
                if let Some(charge) = &response.charge {
                    self.core.partitions.resize(charge, weight(&self.key, &response));
                }
                count(&counters.done);
                add(&counters.plain_bytes, plain as u64);
                add(&counters.coded_bytes, coded.len() as u64);
            }
            (Some(_), None) => count(&counters.skipped),
        }
    }

    /// In a store that isn't in memory: by its contract nothing that was removed before comes back, and what was purged since this response was
    /// stored has sealed the flight, or will have a larger number than the response.
    async fn replace_elsewhere(&self, form: Form, body: Bytes) -> Option<StoredResponse> {
        let far = self.core.settings.backend.far.as_ref()?;
        let headers = HeaderMap::new();
        let found = far.get(Query { key: &self.key, headers: &headers, now: self.core.now() }).await;
        let variants = self.core.variants_or_none(found, &self.key);
        let is_same = |found: &StoredResponse| {
            let stored = &self.stored;
            found.form == Form::Plain
                && found.received == stored.received
                && found.stamp.number == stored.stamp.number
                && found.same_variant(stored)
                && found.body == stored.body
        };
        let found = variants.iter().find(|found| is_same(found))?;
        let response = Arc::new(found.in_form(form, body, &self.core.heads));
        let flight = self.flight.as_ref()?;
        let (core, store, key) = (self.core.clone(), far.clone(), self.key.clone());
        let coded = response.clone();
        let most = core.settings.max_variants;
        let is_valid = || self.core.is_valid(&response, &self.key);
        let committed = flight.commit(is_valid, || {
            core.clone().spawn(async move {
                core.note_store_error(store.put(&key, coded.clone(), most).await, &key).unwrap_or_default();
                // Erased while the store was at work: it is never read, but it must go as well.
                if coded.charge.is_some() && !core.is_valid(&coded, &key) {
                    core.note_store_error(store.remove(&key).await, &key);
                }
            });
        });
        committed.then(|| StoredResponse::clone(&response))
    }
}
