//! [`Job`]: compression of what was stored just now, behind the answer that brought it, by few threads at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::boarding::Given;
use crate::cache::CacheCore;
use crate::codec::encode;
use crate::commit::{FarPut, weight};
use crate::flight::Flight;
use crate::form::Form;
use crate::key::CacheKey;
use crate::plainly::Plainly;
use crate::response::StoredResponse;
use crate::stats::{add, count};

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
    /// The far store gets it later than it was committed: what comes between is noticed here.
    flight: Option<Flight<Given>>,
    _place: Place,
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
        let _place = Place { core: core.clone(), bytes };
        let flight = core.far_for(key).map(|_| {
            let flight = core.flights.begin(&stored.stamp, key, core.groups.authority(key.origin().authority), None);
            flight.know_tags(stored.stamp.tags.clone());
            flight
        });
        Some(Self { core: core.clone(), key: key.clone(), stored: stored.clone(), flight, _place })
    }

    /// Does it behind the answer, and gives what came of it to the far store. A shutdown waits for it as for all work of the cache.
    pub(crate) fn spawn(self, far: Option<FarPut>) {
        self.core.clone().spawn(async move {
            let seen = self.core.drops_seen(&self.key);
            let response = self.run().await.unwrap_or_else(|| self.stored.clone());
            // What was removed by key meanwhile bears no number that would keep it from coming back.
            let stays = || self.core.drops.unless_dropped(seen, || ()).is_some();
            if let Some(far) = far
                && stays()
                && self.is_wanted()
            {
                far.run(response).await;
            }
        });
    }

    /// Returns the response in another form, if it has one now.
    async fn run(&self) -> Option<Arc<StoredResponse>> {
        let _turn = self.core.coders.free.acquire().await.ok()?;
        // While it waited, something else may have been stored in its place.
        if self.core.is_closing() || !self.is_still_there() {
            return None;
        }
        let (content, compression) = (self.stored.body.clone(), self.core.settings.compression);
        let coding = self.core.tasks.spawn_blocking(move || encode(&content, &compression));
        // A coder that panics, as none should, leaves the content as it is.
        Some(Arc::new(self.replace(coding.await.ok()?)))
    }

    /// Whether it is worth beginning; memory tells at once.
    fn is_still_there(&self) -> bool {
        match &self.core.settings.backend.near {
            Some(near) => near.read(&self.key, |variants| variants.iter().any(|other| self.is_meant(other))),
            None => self.flight.as_ref().is_none_or(|flight| !flight.is_closed()),
        }
    }

    /// Whether neither a write nor a purge touched it since it was committed.
    fn is_wanted(&self) -> bool {
        let is_valid = || self.core.is_valid(&self.stored, &self.key);
        self.flight.as_ref().is_none_or(|flight| flight.commit(is_valid, || ()))
    }

    /// Whether `other`, which is stored now, has the very content that was compressed, and is of use still. While that is in hand, nothing else can lie at its
    /// place in memory.
    fn is_meant(&self, other: &StoredResponse) -> bool {
        let same = (other.body.as_ptr(), other.body.len()) == (self.stored.body.as_ptr(), self.stored.body.len());
        other.form == Form::Plain && same && self.core.is_valid(other, &self.key)
    }

    /// Puts what was made in the place of what it was made from, if that is still there and no purge has touched it. Returns the response with what was made.
    fn replace(&self, coded: Option<Bytes>) -> StoredResponse {
        let plain = self.stored.body.len();
        let by = self.core.settings.compression.coder();
        let (form, body) = match coded.clone().zip(by) {
            Some((coded, by)) => (Form::Coded { by, length: u32::try_from(plain).unwrap_or(u32::MAX) }, coded),
            None => (Form::Settled, self.stored.body.clone()),
        };
        let in_form = |of: &StoredResponse| of.in_form(form, body.clone(), &self.core.heads);
        let replaced = match &self.core.settings.backend.near {
            Some(near) => near.change_now(&self.key, |other| self.is_meant(other).then(|| in_form(other))),
            // It isn't anywhere yet, and may not be wanted any more.
            None => self.is_wanted().then(|| in_form(&self.stored)),
        };
        let counters = &self.core.counters.compression;
        match (coded, &replaced) {
            (None, _) => count(&counters.not_worth),
            (Some(coded), Some(response)) => {
                if let Some(charge) = &response.charge {
                    self.core.partitions.resize(charge, weight(&self.key, response));
                }
                count(&counters.done);
                add(&counters.plain_bytes, plain as u64);
                add(&counters.coded_bytes, coded.len() as u64);
            }
            (Some(_), None) => count(&counters.skipped),
        }
        replaced.unwrap_or_else(|| in_form(&self.stored))
    }
}
