//! [`Guarded`]: a store that can't hurt, whatever it does. Each operation has a deadline; one that fails again and again isn't asked any more until a probe in the
//! background finds it back; and writes that it doesn't take are dropped before they are many. It knows nothing of what a store keeps, and retries nothing.

use std::fmt;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep};

use super::breaker::{Backoff, Breaker, Pass, Verdict};
use super::deadlines::{self, Deadline, Deadlines, Unwatched};
use super::timeless::Timeless;
use super::{Lease, LeaseToken, PurgeLog, Query, Released, Storage, StorageUsage, Swap, Swapped, Variants};
use crate::error::StorageError;
use crate::key::CacheKey;
use crate::response::StoredResponse;

/// How a store is guarded that isn't in memory: [`CacheLayer::store_guard`](crate::CacheLayer::store_guard).
///
/// ```
/// use std::time::Duration;
/// use larder::storage::Guard;
/// // A store in another room, that may take its time, and is given up only after ten failures in a row.
/// let guard = Guard::default().deadline(Duration::from_millis(200)).open_after(10);
/// # drop(guard);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    deadline: Duration,
    write_deadline: Duration,
    open_after: u32,
    longest_pause: Duration,
    max_writes: usize,
    max_write_bytes: usize,
}

impl Default for Guard {
    /// As the setters say.
    fn default() -> Self {
        Self {
            deadline: Duration::from_millis(40),
            write_deadline: Duration::from_secs(2),
            open_after: 3,
            longest_pause: Duration::from_millis(250),
            max_writes: 1024,
            max_write_bytes: 64 << 20,
        }
    }
}

impl Guard {
    /// How long a request waits for the store, connecting included: for a response, and for a lease. 40 ms by default, so that a store that stands still costs a request no
    /// more than 50. Time is told in steps of a sixteenth of it: what has taken almost as long may be given up.
    #[must_use]
    pub fn deadline(mut self, longest: Duration) -> Self {
        self.deadline = longest;
        self
    }

    /// How long one write or removal may take, for which no request waits, and one [swap](Storage::swap), for which its caller does; 2 seconds by default.
    #[must_use]
    pub fn write_deadline(mut self, longest: Duration) -> Self {
        self.write_deadline = longest;
        self
    }

    /// After how many failures in a row, missed deadlines among them, the store isn't asked any more; 3 by default, and 1 at least. A store that
    /// [isn't there](StorageError::is_unreachable) isn't asked again at once.
    ///
    /// Reads decide: what fails to be written for another reason than time may be too much for a store that can be read all the same.
    #[must_use]
    pub fn open_after(mut self, failures: u32) -> Self {
        self.open_after = failures.max(1);
        self
    }

    /// The longest pause between two probes of a store that isn't asked any more; 250 ms by default, since all that time nothing is a hit that could be. The first is 50 ms at
    /// most, each later one twice as long, all of them shortened by chance.
    #[must_use]
    pub fn longest_pause(mut self, longest: Duration) -> Self {
        self.longest_pause = longest;
        self
    }

    /// How many writes may be on their way at a time; 1,024 by default. More are dropped.
    #[must_use]
    pub fn max_writes(mut self, most: usize) -> Self {
        self.max_writes = most;
        self
    }

    /// The bytes that all writes on their way may have together; 64 MiB by default. More are dropped; one that is larger by itself goes alone.
    #[must_use]
    pub fn max_write_bytes(mut self, most: usize) -> Self {
        self.max_write_bytes = most;
        self
    }
}

/// What a guard has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GuardStats {
    /// Whether the store isn't asked just now.
    pub is_open: bool,
    /// How often that began.
    pub opened: u64,
    /// Operations that weren't answered in time.
    pub timeouts: u64,
    /// Operations that the store was spared, or that weren't waited for any longer, since it isn't asked just now.
    pub spared: u64,
    /// Writes that were dropped, since too many were on their way.
    pub dropped_writes: u64,
    /// Writes on their way now.
    pub writes_in_flight: u64,
}

/// A store behind a [`Guard`].
///
/// [`CacheLayer::with_storage`](crate::CacheLayer::with_storage) does this to every store by itself. By hand it is for one that is a part of another.
///
/// It needs a tokio runtime with timers. Outside of one there are no deadlines, and nothing is spared.
pub struct Guarded<S> {
    inner: Arc<Inner<S>>,
}

struct Inner<S> {
    storage: S,
    /// What [`Terms`] are made of when it is first used.
    wanted: Mutex<Guard>,
    terms: OnceLock<Terms>,
    breaker: Breaker,
    deadlines: Arc<Deadlines>,
    counters: Counters,
    timeless: Timeless,
}

struct Terms {
    guard: Guard,
    writes: Semaphore,
    /// In KiB.
    write_bytes: Semaphore,
    backoff: Mutex<Backoff>,
}

#[derive(Default)]
struct Counters {
    timeouts: AtomicU64,
    spared: AtomicU64,
    dropped_writes: AtomicU64,
}

/// How long what is for many keys may take.
const SWEEPING: Duration = Duration::from_secs(60);

/// How long a probe may take that has to connect first.
const CONNECTING: Duration = Duration::from_secs(1);

impl<S: Storage> Guarded<S> {
    /// Does nothing yet, and needs no runtime.
    pub fn new(storage: S, guard: Guard) -> Self {
        let inner = Inner {
            storage,
            wanted: Mutex::new(guard),
            terms: OnceLock::new(),
            breaker: Breaker::default(),
            deadlines: Arc::default(),
            counters: Counters::default(),
            timeless: Timeless::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// What it has seen so far.
    pub fn stats(&self) -> GuardStats {
        let Inner { breaker, counters, terms, .. } = &*self.inner;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let free = |terms: &Terms| terms.guard.most_writes().saturating_sub(terms.writes.available_permits());
        GuardStats {
            is_open: breaker.is_open(),
            opened: breaker.times_opened(),
            timeouts: read(&counters.timeouts),
            spared: read(&counters.spared),
            dropped_writes: read(&counters.dropped_writes),
            writes_in_flight: terms.get().map_or(0, free) as u64,
        }
    }

    /// Another guard, before the store is first used; afterwards it stays as it is.
    pub(super) fn guard_by(&self, guard: Guard) {
        *self.inner.wanted.lock().unwrap_or_else(PoisonError::into_inner) = guard;
    }
}

impl<S: Storage> Storage for Guarded<S> {
    async fn get(&self, query: Query<'_>) -> Result<Variants, StorageError> {
        // Where it is: each hit would move it otherwise.
        let read = pin!(async { self.inner.storage.get(query).await });
        self.inner.guarded(Kind::Read, read).await
    }

    async fn put(&self, key: &CacheKey, response: Arc<StoredResponse>, most: usize) -> Result<(), StorageError> {
        let _place = self.inner.place(key, &response)?;
        self.inner.guarded(Kind::Write, async { self.inner.storage.put(key, response, most).await }).await
    }

    async fn remove(&self, key: &CacheKey) -> Result<bool, StorageError> {
        self.inner.guarded(Kind::Write, async { self.inner.storage.remove(key).await }).await
    }

    async fn erase(&self, partition: &[u8; 16]) -> Result<(), StorageError> {
        self.inner.guarded(Kind::Sweep, async { self.inner.storage.erase(partition).await }).await
    }

    async fn lease(&self, key: &CacheKey, term: Duration) -> Result<Lease, StorageError> {
        self.inner.guarded(Kind::Lease, async { self.inner.storage.lease(key, term).await }).await
    }

    async fn release(&self, key: &CacheKey, token: LeaseToken, how: Released) -> Result<(), StorageError> {
        self.inner.guarded(Kind::Lease, async { self.inner.storage.release(key, token, how).await }).await
    }

    async fn swap(&self, swap: Swap<'_>) -> Result<Swapped, StorageError> {
        let _place = self.inner.place(swap.key, &swap.new)?;
        let is_under_way = AtomicBool::new(false);
        let work = async {
            is_under_way.store(true, Ordering::Relaxed);
            let swapped = self.inner.storage.swap(swap).await;
            is_under_way.store(false, Ordering::Relaxed);
            swapped
        };
        let swapped = self.inner.guarded(Kind::Write, work).await;
        // Who stops waiting for it doesn't know what becomes of it.
        swapped.map_err(|error| if is_under_way.into_inner() { error.after(true) } else { error })
    }

    fn purge_log(&self) -> Option<Arc<dyn PurgeLog>> {
        self.inner.storage.purge_log()
    }

    async fn ping(&self) -> Result<(), StorageError> {
        self.inner.guarded(Kind::Read, async { self.inner.storage.ping().await }).await
    }

    async fn clear(&self) -> Result<(), StorageError> {
        self.inner.guarded(Kind::Sweep, async { self.inner.storage.clear().await }).await
    }

    fn usage(&self) -> StorageUsage {
        self.inner.storage.usage()
    }
}

/// What an operation is to those who wait for it, and to the breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Read,
    /// A request waits for it; but what a store refuses here, for lack of memory perhaps, says nothing about reads.
    Lease,
    Write,
    Sweep,
}

/// How an operation ended.
enum End<T> {
    Answered(Result<T, StorageError>),
    TimedOut,
    /// Others found that the store isn't there.
    Opened,
}

impl<S: Storage> Inner<S> {
    fn terms(&self) -> &Terms {
        self.terms.get_or_init(|| Terms::of(*self.wanted.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Does it, if the store is asked at all, and not longer than its deadline or until the breaker opens.
    async fn guarded<T>(
        self: &Arc<Self>,
        kind: Kind,
        work: impl Future<Output = Result<T, StorageError>> + Send,
    ) -> Result<T, StorageError> {
        let mut work = pin!(caught(work));
        let guard = &self.terms().guard;
        let deadline = guard.deadline_of(kind);
        let Some(mut waiting) = self.waiting(deadline) else { return work.await };
        let Some(pass) = self.breaker.admit() else {
            // The one before may have ended with its runtime.
            self.probe();
            return self.spared();
        };
        let ended = poll_fn(|context| {
            if let Poll::Ready(result) = work.as_mut().poll(context) {
                return Poll::Ready(End::Answered(result));
            }
            let end = waiting.poll(context).map(|end| match end {
                deadlines::End::Late => End::TimedOut,
                deadlines::End::Released => End::Opened,
            });
            // It may have opened before this was among those who are released.
            if end.is_pending() && !self.breaker.is_valid(pass) { Poll::Ready(End::Opened) } else { end }
        });
        match ended.await {
            End::Answered(result) => {
                if let Some(verdict) = kind.verdict(&result) {
                    self.note(pass, verdict);
                }
                result
            }
            End::TimedOut => {
                self.counters.timeouts.fetch_add(1, Ordering::Relaxed);
                self.note(pass, Verdict::Failed);
                Err(StorageError::timed_out(format!("no answer in {deadline:?}")))
            }
            End::Opened => self.spared(),
        }
    }

    /// A place among the writes on their way.
    fn place(&self, key: &CacheKey, response: &StoredResponse) -> Result<[SemaphorePermit<'_>; 2], StorageError> {
        self.terms().place(key.as_bytes().len() + response.size()).ok_or_else(|| {
            self.counters.dropped_writes.fetch_add(1, Ordering::Relaxed);
            StorageError::spared("too many writes are on their way to it")
        })
    }

    fn spared<T>(&self) -> Result<T, StorageError> {
        self.counters.spared.fetch_add(1, Ordering::Relaxed);
        Err(StorageError::spared("it isn't asked until it is back"))
    }

    fn note(self: &Arc<Self>, pass: Pass, verdict: Verdict) {
        let terms = self.terms();
        if self.breaker.note(pass, verdict, terms.guard.open_after) {
            self.deadlines.release();
            tracing::warn!(why = ?verdict, "the cache goes on without its store until that is back");
            terms.backoff().begin(Instant::now());
            self.probe();
        }
    }

    /// Tries in the background whether the store is back, unless that is under way.
    fn probe(self: &Arc<Self>) {
        let Ok(runtime) = Handle::try_current() else { return };
        if !self.breaker.begin_probing() {
            return;
        }
        let probing = Probing(Arc::downgrade(self));
        runtime.spawn(async move {
            while let Some(pause) = probing.0.upgrade().map(|guarded| guarded.terms().next_pause()) {
                sleep(pause).await;
                // Nobody uses it any more: then nobody needs to know.
                let Some(guarded) = probing.0.upgrade() else { return };
                if guarded.is_back().await {
                    guarded.terms().backoff().end(Instant::now());
                    // Before it closes: when it opens the next time, that has a probe of its own.
                    probing.end();
                    guarded.breaker.close();
                    tracing::info!("the store is back");
                    return;
                }
            }
        });
    }

    /// Asks twice: the first time it may have to connect, the second time it has to be as quick as for a request.
    async fn is_back(&self) -> bool {
        for longest in [CONNECTING, self.terms().guard.deadline] {
            let ping = caught(async { self.storage.ping().await });
            if !matches!(tokio::time::timeout(longest, ping).await, Ok(Ok(()))) {
                return false;
            }
        }
        true
    }

    /// `None` where there are no timers.
    fn waiting(&self, longest: Duration) -> Option<Deadline<'_>> {
        if self.timeless.is_here() {
            return None;
        }
        let guard = &self.terms().guard;
        let begun = self.deadlines.begin(longest, guard.deadline.min(guard.write_deadline));
        if begun.as_ref().err() == Some(&Unwatched::NoTimers) && self.timeless.remember() {
            tracing::error!("this tokio runtime has no timers (`enable_time`), so the store has no deadlines in it");
        }
        begun.ok()
    }
}

/// That somebody probes; whatever ends that, the next one may.
struct Probing<S>(Weak<Inner<S>>);

impl<S> Probing<S> {
    /// With an answer.
    fn end(mut self) {
        self.0 = Weak::new();
    }
}

impl<S> Drop for Probing<S> {
    fn drop(&mut self) {
        if let Some(guarded) = self.0.upgrade() {
            guarded.breaker.end_probing();
        }
    }
}

impl Kind {
    /// What the end of an operation says about the store, if anything.
    fn verdict<T>(self, result: &Result<T, StorageError>) -> Option<Verdict> {
        match result {
            Err(error) if error.is_unreachable() => Some(Verdict::Unreachable),
            // Of a guard inside: what it thinks is known there.
            Err(error) if error.is_spared() => None,
            Err(_) => (self == Self::Read).then_some(Verdict::Failed),
            Ok(_) => matches!(self, Self::Read | Self::Lease).then_some(Verdict::Answered),
        }
    }
}

impl Guard {
    fn deadline_of(&self, kind: Kind) -> Duration {
        match kind {
            Kind::Read | Kind::Lease => self.deadline,
            Kind::Write => self.write_deadline,
            Kind::Sweep => SWEEPING.max(self.write_deadline),
        }
    }

    fn most_writes(&self) -> usize {
        self.max_writes.min(Semaphore::MAX_PERMITS)
    }

    /// In KiB.
    fn most_write_bytes(&self) -> u32 {
        u32::try_from(self.max_write_bytes / 1024).unwrap_or(u32::MAX).clamp(1, Semaphore::MAX_PERMITS as u32)
    }
}

impl Terms {
    fn of(guard: Guard) -> Self {
        Self {
            writes: Semaphore::new(guard.most_writes()),
            write_bytes: Semaphore::new(guard.most_write_bytes() as usize),
            backoff: Mutex::new(Backoff::new(guard.longest_pause)),
            guard,
        }
    }

    /// A place for a write of so many bytes, if there is one.
    fn place(&self, bytes: usize) -> Option<[SemaphorePermit<'_>; 2]> {
        let amount = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX).min(self.guard.most_write_bytes());
        Some([self.writes.try_acquire().ok()?, self.write_bytes.try_acquire_many(amount).ok()?])
    }

    fn next_pause(&self) -> Duration {
        // Without chance the pauses are as long as they may be.
        let chance = getrandom::u64().map_or(1.0, |random| random as f64 / u64::MAX as f64);
        self.backoff().pause(chance)
    }

    fn backoff(&self) -> MutexGuard<'_, Backoff> {
        self.backoff.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A panic of the store is an error like any other.
async fn caught<T>(work: impl Future<Output = Result<T, StorageError>>) -> Result<T, StorageError> {
    let mut work = pin!(work);
    poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context)));
        polled.unwrap_or_else(|_| Poll::Ready(Err(StorageError::new("it panicked"))))
    })
    .await
}

impl<S> fmt::Debug for Guarded<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded").field("is_open", &self.inner.breaker.is_open()).finish_non_exhaustive()
    }
}
