//! How a value is changed: what is there is judged, what shall be there is put in its place if it is still that, and else all begins anew with what is there instead.
//!
//! ```text
//! what is likely there ─> judged ─┬─ to be changed ─> swap ─┬─ done
//!          ^                      │                         ├─ something else is there ─┐
//!          │                      ├─ to be left ─┬─ sure ─> the answer                  │
//!          │                      │              └─ not ──> a look ─┐                   │
//!          └──────────────────────┴─────────────────────────────────┴───────────────────┘
//! ```
//!
//! What was changed so is an entry of another kind ([`Kind::Counter`]): it lies in the far store alone, where each look sees the newest. So no other instance has to hear of a change. But where a value
//! was there before that others may have near, they hear once that it isn't fresh any more.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};
use tokio::time::{Instant, sleep};

use super::turns::remembered;
use super::value::{Draft, Kind};
use super::words::Wanted;
use super::{DataCache, DataError};
use crate::cache::CacheCore;
use crate::clock::Moment;
use crate::coherence::Outdated;
use crate::error::StorageError;
use crate::fates::Became;
use crate::key::CacheKey;
use crate::purged::Force;
use crate::response::StoredResponse;
use crate::stats::count;
use crate::storage::dynamic::DynStorage;
use crate::storage::{Expected, MemoryStore, Query, Swap, Swapped};
use crate::target::Target;

/// What is to be done about a value.
pub(super) enum Step<R> {
    /// Nothing; this is the answer.
    Leave(R),
    /// This takes its place, and then that is the answer.
    Put { draft: Draft, then: R },
}

/// For so long it is tried, while others are faster.
const PATIENCE: Duration = Duration::from_secs(5);

/// For so long news of the purges of others are waited for.
const LONGEST_SILENCE: Duration = Duration::from_secs(1);

/// So often at once; from then on after pauses, each up to twice as long as the one before, up to the longest.
const AT_ONCE: u32 = 4;
const LONGEST_PAUSE: Duration = Duration::from_millis(64);

impl DataCache {
    /// Changes a value as `decide` says of what is there: of the value that is fresh, if there is one. It is asked again when something else has come there meanwhile. `goes_on` tells that what is put is the
    /// same value further on, so that it ends when that would have ended, and bears its tags.
    pub(super) async fn change<R>(
        &self,
        wanted: &Wanted,
        goes_on: bool,
        decide: impl Fn(Option<&StoredResponse>) -> Result<Step<R>, DataError>,
    ) -> Result<R, DataError> {
        let core = self.core();
        self.live.keep_coherent();
        until_trusted(&core).await;
        let far = core.far_for(&wanted.key).cloned();
        let changing = Changing { cache: self, core: &core, far, wanted, goes_on };
        if changing.far.is_none() {
            return changing.run(&mut changing.look(core.now()).await?, true, decide).await;
        }
        let turn = core.data.turns.of(&wanted.key);
        // Those before may each have to wait for a store that takes its time.
        let Ok(mut known) = tokio::time::timeout(PATIENCE, turn.lock()).await else {
            return Err(changing.failed(StorageError::refused("others are changing the same value")));
        };
        // Whoever stops waiting leaves nothing.
        let mut there = known.take();
        let changed = changing.run(&mut there, false, decide).await;
        *known = there.and_then(remembered);
        changed
    }
}

struct Changing<'a> {
    cache: &'a DataCache,
    core: &'a Arc<CacheCore>,
    far: Option<Arc<dyn DynStorage>>,
    wanted: &'a Wanted,
    goes_on: bool,
}

/// An entry, if there is one.
type There = Option<Arc<StoredResponse>>;

impl Changing<'_> {
    /// `known` is what is likely to be there, and then what is; `is_sure` tells that it was seen.
    async fn run<R>(
        &self,
        known: &mut There,
        mut is_sure: bool,
        decide: impl Fn(Option<&StoredResponse>) -> Result<Step<R>, DataError>,
    ) -> Result<R, DataError> {
        let (begun, mut tries) = (Instant::now(), 0);
        loop {
            let now = self.core.now();
            let (number, alive) = self.judge(known, now)?;
            let begins = alive.is_none();
            let (draft, then) = match decide(alive) {
                Ok(Step::Put { draft, then }) => (draft, then),
                Ok(Step::Leave(then)) if is_sure => return Ok(then),
                Err(error) if is_sure => return Err(error),
                Ok(Step::Leave(_)) | Err(_) => {
                    (*known, is_sure) = (self.look(now).await?, true);
                    continue;
                }
            };
            let new = Arc::new(self.entry(draft, number, alive, now).await?);
            match self.swap(known, alive.is_some(), &new, now).await {
                Ok(Swapped::Done) => {
                    *known = Some(new.clone());
                    if !begins || self.is_known_to_all(&new).await.inspect_err(|_| *known = None)? {
                        count(&self.cache.counters().written);
                        return Ok(then);
                    }
                    is_sure = true;
                }
                Ok(Swapped::Not(there)) => {
                    // Who knew nothing has learned what is there, and nobody was faster.
                    if is_sure || known.is_some() {
                        count(&self.cache.counters().contended);
                    }
                    (*known, is_sure) = (there, true);
                }
                Err(error) => {
                    *known = None;
                    return Err(self.failed(error));
                }
            }
            tries += 1;
            if begun.elapsed() > PATIENCE {
                return Err(
                    self.failed(StorageError::refused("others change the same value, and were faster each time"))
                );
            }
            pause(tries).await;
        }
    }

    /// Whether no purge that the log has by now touches what was put where there was nothing. Another instance may have deleted what was there a moment ago, and take this for something from before that:
    /// then it would put its own in the place, and both would have been the first.
    async fn is_known_to_all(&self, new: &StoredResponse) -> Result<bool, DataError> {
        if self.far.is_none() || !self.core.coherence.has_log() {
            return Ok(true);
        }
        self.core.hear_newest().await.map_err(|error| self.failed(error.after(true)))?;
        Ok(self.core.is_valid(new, &self.wanted.key))
    }

    /// The entry if its value is fresh, and the number of the newest purge that it is held against.
    fn judge<'k>(&self, known: &'k There, now: Moment) -> Result<(u64, Option<&'k StoredResponse>), DataError> {
        // What others have purged may be what is there; and what is put must not be taken along by a purge from before.
        if !self.core.coherence.is_trusted(now) {
            return Err(self.failed(StorageError::refused("it isn't known what other instances have purged")));
        }
        loop {
            let number = self.core.purges.current();
            let alive = known.as_deref().filter(|there| self.cache.is_alive(self.core, there, &self.wanted.key, now));
            if self.core.purges.current() == number {
                // Another instance may have heard of more.
                return Ok((number.max(alive.map_or(0, |alive| alive.stamp.number)), alive));
            }
        }
    }

    /// What is there.
    async fn look(&self, now: Moment) -> Result<There, DataError> {
        let key = &self.wanted.key;
        let Some(far) = &self.far else {
            let near = self.cache.near(self.core);
            return Ok(near.and_then(|near| near.peek(key, |there| there.first().cloned())).map(Arc::new));
        };
        let headers = HeaderMap::new();
        let found = far.get(Query::new(key, &headers, now).for_change()).await;
        // To read changes nothing, whatever becomes of it.
        Ok(found.map_err(|error| self.failed(error.after(false)))?.into_iter().next())
    }

    /// What takes the place of what is there.
    async fn entry(
        &self,
        draft: Draft,
        number: u64,
        alive: Option<&StoredResponse>,
        now: Moment,
    ) -> Result<StoredResponse, DataError> {
        let (cache, core, Wanted { key, words, .. }) = (self.cache, self.core, self.wanted);
        let made = cache.make(self.wanted, draft).await.of_kind(Kind::Counter);
        let mut entry = cache.stored(core, key, made, number, now);
        // There is no such thing as a stale one: who would ask for it, and of whom?
        (entry.terms.stale_while_revalidate, entry.terms.stale_if_error, entry.upkeep) = <_>::default();
        if let Some(before) = alive.filter(|_| self.goes_on) {
            entry.stamp.tags = before.stamp.tags.clone();
            if words.idle().is_none() {
                (entry.received, entry.terms) = (before.received, before.terms);
                (entry.terms.stale_while_revalidate, entry.terms.stale_if_error) = <_>::default();
            }
        }
        if let Some(idle) = words.idle() {
            entry.terms.lifetime = entry.terms.lifetime.min(idle);
        }
        entry.keep = entry.terms.lifetime.saturating_sub(entry.age(now));
        if self.far.is_some() {
            // A script whose answer is lost is known by it to have run.
            let mut head = entry.headers();
            head.insert(header::ETAG, unique().map_err(|error| self.failed(error))?);
            (entry.head, entry.body) = core.heads.store(&head, &[], entry.body);
        }
        Ok(entry)
    }

    /// Puts it there, if what is there is what is known. Loads that began before bring nothing behind that.
    async fn swap(
        &self,
        known: &There,
        is_alive: bool,
        new: &Arc<StoredResponse>,
        now: Moment,
    ) -> Result<Swapped, StorageError> {
        let (core, key) = (self.core, &self.wanted.key);
        let Some(far) = &self.far else {
            let Some(near) = self.cache.near(core) else { return Err(StorageError::refused("there is no store")) };
            let swap = Swap::new(key, expected(known), new.clone(), now);
            core.fates.note_stored(key, new.stamp.number);
            let swapped = core.loads.seal_while(&new.stamp, || near.swap_now(&swap));
            core.data.failures.forget(key);
            return swapped;
        };
        let stores = (self.cache.near(core).cloned(), far.clone());
        let swapping = far_swap(core.clone(), stores, key.clone(), known.clone(), new.clone(), now);
        let may_be_near = is_alive && known.as_ref().is_some_and(|known| !known.is_atomic());
        if !(may_be_near && core.coherence.has_log()) {
            return swapping.await;
        }
        let place = Target::place(new.stamp.resource);
        let core = core.clone();
        // In a task of its own: when it is done, the others have to hear of it, whoever waits.
        let swapped = self.core.tasks.spawn(async move {
            let swapped = swapping.await;
            if matches!(&swapped, Ok(Swapped::Done)) || swapped.as_ref().is_err_and(StorageError::may_be_done) {
                let mut outdated = Outdated::new(&core);
                outdated.purge(place, Force::Soft(now), None);
                outdated.write_patiently().await;
            }
            swapped
        });
        swapped.await.unwrap_or_else(|_| Err(StorageError::new("the task that swapped has ended")))
    }

    /// An error of the store, for who asked.
    fn failed(&self, error: StorageError) -> DataError {
        self.cache.note_store_error::<()>(Err(StorageError::refused(error.to_string())));
        if error.may_be_done() {
            DataError::Unknown { source: error }
        } else {
            DataError::Unavailable { source: error }
        }
    }
}

/// Waits for news of what others have purged, where they are late and may still come.
async fn until_trusted(core: &CacheCore) {
    let begun = Instant::now();
    let is_late = || !core.coherence.is_trusted(core.now()) && !core.coherence.is_out_of_reach();
    let mut tries = 0;
    while is_late() && begun.elapsed() < LONGEST_SILENCE && tokio::runtime::Handle::try_current().is_ok() {
        tries += 1;
        pause(AT_ONCE + tries).await;
    }
}

/// A swap in the far store, while nothing is near, and nothing comes there that was read before.
async fn far_swap(
    core: Arc<CacheCore>,
    (near, far): (Option<Arc<MemoryStore>>, Arc<dyn DynStorage>),
    key: CacheKey,
    known: There,
    new: Arc<StoredResponse>,
    now: Moment,
) -> Result<Swapped, StorageError> {
    let _until_swapped = core.begin_drop(&key);
    core.loads.seal_while(&new.stamp, || {
        let near = near.as_ref().filter(|near| near.peek(&key, |there| !there.is_empty()));
        near.map(|near| near.remove_because(&key, Became::Written))
    });
    core.data.failures.forget(&key);
    let swapped = far.swap(Swap::new(&key, expected(&known), new.clone(), now)).await;
    // Those that have begun meanwhile, and what they have stored.
    core.loads.seal_while(&new.stamp, || near.as_ref().map(|near| near.remove_because(&key, Became::Written)));
    swapped
}

fn expected(known: &There) -> Expected<'_> {
    known.as_deref().map_or(Expected::Nothing, Expected::This)
}

/// An entity tag that nothing else ever has.
fn unique() -> Result<HeaderValue, StorageError> {
    let random = || getrandom::u64().map_err(|_| StorageError::refused("the system gives no random numbers"));
    let tag = format!("\"{:016x}{:016x}\"", random()?, random()?);
    HeaderValue::from_maybe_shared(tag).map_err(|_| StorageError::refused("no tag"))
}

/// Lets others go first, for a time of chance.
async fn pause(tries: u32) {
    tokio::task::yield_now().await;
    if tries <= AT_ONCE || tokio::runtime::Handle::try_current().is_err() {
        return;
    }
    let longest = Duration::from_millis(1 << (tries - AT_ONCE).min(6)).min(LONGEST_PAUSE);
    let chance = getrandom::u32().map_or(1.0, |random| f64::from(random) / f64::from(u32::MAX));
    // A runtime without timers has none of it.
    if let Ok(sleep) = std::panic::catch_unwind(|| sleep(longest.mul_f64(chance))) {
        sleep.await;
    }
}
