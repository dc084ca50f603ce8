//! Walks through the store in memory, off the way of requests: the *sweep*, which gives back the memory of what was purged, and forgets purges that all the
//! rest was held against; and the dry run of a purge.
//!
//! ```text
//! purge ─> a walk at once ─> retire ─┬─ nothing is remembered ─> ended; the next purge begins anew
//!               ^                    └─ purges came meanwhile, or a fill in flight is older than one:
//!               └──── a pause <──────────┘   the shorter, the more is remembered
//! ```
//!
//! A purge needs none of it to take effect: whatever a walk misses is held against purges when it is read, or counts as purged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::Instant;

use crate::cache::{CacheCore, State};
use crate::key::CacheKey;
use crate::response::StoredResponse;
use crate::selector::{DryRun, PurgeError, Selector};
use crate::shelves::Shelf;
use crate::stats::add;
use crate::storage::MemoryStore;
use crate::storage::scan::Entry;

/// How many entries are looked at before others run; fewer where there are patterns to hold each of them against.
const STEP: usize = 64;

/// The pause after a walk is so many times as long as the walk, so that sweeps take a tenth of one processor at most, and a second at least. While too many
/// purges are remembered it is as long as the walk.
const PAUSE: u32 = 9;
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
const CROWDED: Duration = Duration::from_millis(10);

/// After so many pauses without another purge, purges that are remembered only for fills in flight are left to the next sweep.
const PATIENCE: u32 = 60;

/// Whether somebody sweeps.
#[derive(Debug, Default)]
pub(crate) struct Sweeper {
    is_running: AtomicBool,
    /// Too many purges are remembered for a long pause.
    crowded: Notify,
    ended: Notify,
}

impl Sweeper {
    fn begin(&self) -> bool {
        !self.is_running.swap(true, Ordering::AcqRel)
    }

    /// The cache ends: so does the pause of the sweep, whichever it is, and with it the sweep.
    pub(crate) fn end(&self) {
        self.crowded.notify_one();
        self.ended.notify_one();
    }
}

/// The one sweep there is at a time.
struct Sweep {
    state: Arc<State>,
    /// That of the responses.
    memory: Option<Arc<MemoryStore>>,
    is_running: bool,
    /// All that is stored is walked through, so that purges may be forgotten.
    retires: bool,
}

impl Drop for Sweep {
    /// Also where the runtime drops its task.
    fn drop(&mut self) {
        if self.is_running {
            self.state.sweeper.is_running.store(false, Ordering::Release);
        }
    }
}

impl Sweep {
    async fn run(mut self) {
        let (mut swept, mut patience) = (0, PATIENCE);
        while !self.is_closing() && patience > 0 {
            let (began, current) = (Instant::now(), self.state.purges.current());
            // What is in flight now may be stored behind the walk, and held against no more than was current then.
            let oldest = self.state.oldest_flight().unwrap_or(current);
            if swept < current {
                if !self.walk().await {
                    return;
                }
                (swept, patience) = (current, PATIENCE);
            }
            self.state.observations.hold(&self.state.purges);
            // What is elsewhere wasn't walked through: there the bound of what is remembered, or a log, says what is forgotten.
            if self.retires {
                self.state.purges.retire(swept.min(oldest));
            }
            if (!self.retires || self.state.purges.live() == 0) && self.is_done(swept) {
                return;
            }
            patience -= 1;
            self.pause(began.elapsed()).await;
        }
    }

    /// Whether no purge came meanwhile, or somebody else sweeps for it.
    fn is_done(&mut self, swept: u64) -> bool {
        let sweeper = &self.state.sweeper;
        // A swap, as in `begin`: whoever purged before it and found the sweep running is seen here, and whoever comes later begins their own.
        sweeper.is_running.swap(false, Ordering::AcqRel);
        self.is_running = self.state.purges.current() > swept && sweeper.begin();
        !self.is_running
    }

    /// Drops what was purged; all the rest is held against the purges of now. Returns whether that came to its end before the cache did.
    async fn walk(&self) -> bool {
        for shelf in self.state.shelves.all() {
            if !self.walk_along(&*shelf).await {
                return false;
            }
        }
        // One that comes later has nothing yet that was stored before the purges of this walk, but what is in flight.
        for memory in self.memory.iter().cloned().chain(self.state.own_memories()) {
            if !self.walk_through(&memory).await {
                return false;
            }
        }
        true
    }

    async fn walk_along(&self, shelf: &dyn Shelf) -> bool {
        let mut walk = shelf.walk();
        let mut goes_on = true;
        while goes_on {
            if self.is_closing() {
                return false;
            }
            let mut dropped = 0;
            goes_on = walk.step(self.step(), &self.state.purges, &mut dropped);
            add(&self.state.counters.swept, dropped);
            yield_now().await;
        }
        drop(walk);
        shelf.settle();
        true
    }

    async fn walk_through(&self, memory: &MemoryStore) -> bool {
        let mut scan = memory.scan();
        let mut purged: Vec<CacheKey> = Vec::new();
        let mut goes_on = true;
        while goes_on {
            if self.is_closing() {
                return false;
            }
            goes_on = scan.step(self.step(), |entry| {
                // All of them, for each is marked as held.
                let valid = entry.variants.iter().filter(|stored| self.is_valid(stored, &entry.key)).count();
                if valid < entry.variants.len() {
                    purged.push(entry.key);
                }
            });
            for key in purged.drain(..) {
                let dropped = memory.retain_now(&key, |stored| self.is_valid(stored, &key));
                add(&self.state.counters.swept, dropped as u64);
            }
            yield_now().await;
        }
        memory.sweep();
        true
    }

    /// How many entries are looked at before others run.
    fn step(&self) -> usize {
        STEP / (1 + self.state.purges.patterns() / 32)
    }

    async fn pause(&self, took: Duration) {
        let sweeper = &self.state.sweeper;
        let (pause, woken) = match self.state.purges.is_crowded() {
            false => ((took * PAUSE).clamp(SHORTEST, LONGEST), sweeper.crowded.notified()),
            true => (took.max(CROWDED), sweeper.ended.notified()),
        };
        let _ = tokio::time::timeout(pause, woken).await;
    }

    fn is_valid(&self, stored: &StoredResponse, key: &CacheKey) -> bool {
        self.state.purges.is_valid(&stored.stamp, stored.received, key)
    }

    fn is_closing(&self) -> bool {
        self.state.closing.load(Ordering::Acquire)
    }
}

impl CacheCore {
    /// Has the store swept, now or after the pause of the sweep that is running.
    pub(crate) fn sweep_soon(&self) {
        let backend = &self.settings.backend;
        if self.memories().next().is_none() && self.shelves.all().is_empty() {
            return;
        }
        // Outside of a runtime nobody sweeps: entries go when they are replaced or evicted, and the floor bounds what is remembered.
        if self.is_closing() || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        if !self.sweeper.begin() {
            if self.purges.is_crowded() {
                self.sweeper.crowded.notify_one();
            }
            return;
        }
        let (retires, memory) = (backend.far.is_none(), backend.near.clone());
        let sweep = Sweep { state: self.state.clone(), memory, is_running: true, retires };
        self.spawn(sweep.run());
    }

    /// Counts what a purge would touch, as far as it is valid now.
    pub(crate) async fn dry_run(&self, selector: &Selector) -> Result<DryRun, PurgeError> {
        let target = self.target(selector, |key, any| self.searches.known_tag(key, any))?;
        let mut found = DryRun::default();
        self.walk(|entry| {
            let valid = entry.variants.iter().filter(|stored| self.is_valid(stored, &entry.key));
            let touched = valid.filter(|stored| target.touches(&stored.stamp, &entry.key));
            let (responses, bytes) = touched.fold((0, 0), |(n, bytes), stored| (n + 1, bytes + stored.size() as u64));
            if responses == 0 {
                return;
            }
            found.entries += 1;
            found.reads += u64::from(entry.reads);
            found.responses += responses;
            found.bytes += bytes;
        })
        .await?;
        Ok(found)
    }

    /// Visits all that is stored, in steps between which others run.
    pub(crate) async fn walk(&self, mut visit: impl FnMut(Entry<'_>) + Send) -> Result<(), PurgeError> {
        if self.settings.backend.near.is_none() {
            return Err(PurgeError::Unscannable);
        }
        for memory in self.memories() {
            let mut scan = memory.scan();
            while scan.step(STEP, &mut visit) {
                yield_now().await;
            }
        }
        Ok(())
    }
}
