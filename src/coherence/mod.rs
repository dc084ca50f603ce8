//! [`Coherence`]: what this instance knows of the purges that others make, over the log of a store that they share, and whether that is enough to use what is stored.
//!
//! ```text
//! first use ─> snapshot ─> listening ─┬─ news, or none: all is known up to when that was asked, and trusted for the bound from then
//!                 ^                   ├─ a gap, or another epoch ─┐
//!                 └───────────────────┴───────────────────────────┘
//! ```
//!
//! | what | whose |
//! |---|---|
//! | a purge is written to the log, and applied with all that came before it, before it is acknowledged | `writing.rs` |
//! | one that can't be written is *owed*: nothing stored is used here until it could be | `writing.rs`, [`Coherence::owe`] |
//! | a task listens to the log, pays what is owed, and begins again from a snapshot where it lost the thread | `follower.rs` |
//! | purges as messages | `messages.rs` |
//! | until when all of this is good enough | `trust.rs` |
//!
//! A cache whose store has no log has none of it: it is always trusted, and pays one load for that.

mod follower;
mod messages;
mod trust;
mod writing;

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use self::trust::Trust;
pub(crate) use self::writing::Outdated;
use crate::clock::Moment;
use crate::error::StorageError;
use crate::pattern::Meant;
use crate::purge::PurgeIndex;
use crate::purge_message::PurgeMessage;
use crate::purged::Force;
use crate::response::Stamp;
use crate::stats::PurgeLogStats;
use crate::storage::{PurgeLog, PurgeNews, PurgeSnapshot};
use crate::sync::{AtomicBool, AtomicU64, Mutex, MutexGuard, Ordering, PoisonError, sized};
use crate::target::Target;

/// How many purges may be owed to the log; more become one of everything.
const MOST_OWED: usize = sized(1000, 2);

/// How long a request waits for the first snapshot, so that what others have stored is found by an instance that has just begun.
const PATIENCE: Duration = Duration::from_millis(50);

pub(crate) struct Coherence {
    log: Option<std::sync::Arc<dyn PurgeLog>>,
    trust: Trust,
    thread: Mutex<Thread>,
    /// Until when an operator prefers what is near to the bound, in milliseconds of the monotonic clock.
    near_until: AtomicU64,
    is_following: AtomicBool,
    /// Something is owed.
    owing: Notify,
    /// The first exchange with the log has ended, or takes too long to be waited for.
    began: watch::Sender<bool>,
    /// Cancelled when the cache ends or is shut down.
    pub(crate) stopped: CancellationToken,
    counts: Counts,
}

/// How far this instance follows the log. Whoever changes it, or enters what the log said into the index, holds its lock: so a purge that was found to be entered already has closed its
/// flights as well.
#[derive(Debug, Default)]
struct Thread {
    /// A snapshot was loaded, and nothing is missing since.
    holds: bool,
    /// The last exchange with the log failed.
    fails: bool,
    /// When all was known that had been purged.
    confirmed: Option<Moment>,
    owed: VecDeque<Owed>,
    /// Numbers what is owed.
    next: u64,
}

/// A purge that isn't in the log yet.
#[derive(Clone, Debug)]
pub(crate) struct Owed {
    pub(crate) id: u64,
    pub(crate) message: PurgeMessage,
    target: Target,
}

#[derive(Debug, Default)]
struct Counts {
    heard: AtomicU64,
    snapshots: AtomicU64,
    failures: AtomicU64,
    owed: AtomicU64,
}

/// The thread is lost: a snapshot has to tell how to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lost;

/// When the log was asked for what it then said, when that was heard, and how far behind what is stored may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) at: Moment,
    pub(crate) now: Moment,
    pub(crate) bound: Duration,
}

impl Coherence {
    pub(crate) fn new(log: Option<std::sync::Arc<dyn PurgeLog>>) -> Self {
        let trust = if log.is_some() { Trust::not_yet() } else { Trust::always() };
        Self {
            log,
            trust,
            thread: Mutex::default(),
            near_until: AtomicU64::new(0),
            is_following: AtomicBool::new(false),
            owing: Notify::new(),
            began: watch::Sender::new(false),
            stopped: CancellationToken::new(),
            counts: Counts::default(),
        }
    }

    /// Whether instances tell each other what they purge.
    pub(crate) fn has_log(&self) -> bool {
        self.log.is_some()
    }

    /// Whether what is stored may be used: no purge that was made longer than the bound ago is unknown here, and none of this instance's own is missing in the log.
    #[inline]
    pub(crate) fn is_trusted(&self, now: Moment) -> bool {
        self.trust.holds(now)
    }

    /// Whether an operator wants what is near to be used all the same.
    pub(crate) fn prefers_near(&self, now: Moment) -> bool {
        millis(now.monotonic) < self.near_until.load(Ordering::Acquire)
    }

    pub(crate) fn prefer_near(&self, now: Moment, duration: Duration) {
        let end = if duration.is_zero() { 0 } else { millis(now.monotonic.saturating_add(duration)) };
        self.near_until.store(end, Ordering::Release);
    }

    /// Whether what has this stamp may be used: it is trusted, or near, where that is preferred, and no purge that is owed touches it. Its number says nothing about those, so what
    /// was stored since counts as touched as well.
    pub(crate) fn allows(&self, stamp: &Stamp, key: &impl Meant, now: Moment) -> bool {
        self.is_trusted(now)
            || self.prefers_near(now) && !self.thread().owed.iter().any(|owed| owed.target.touches(stamp, key))
    }

    /// Enters what the log said into the index, if that continues what is known; `close` then keeps those who come later from the flights that a purge touches. Returns the number of the last
    /// purge that was said, if any.
    pub(crate) fn hear(
        &self,
        index: &PurgeIndex,
        news: PurgeNews,
        asked: Asked,
        close: impl Fn(&Target),
    ) -> Result<Option<u64>, Lost> {
        let mut thread = self.thread();
        let heard = match news {
            PurgeNews::Since { purges, floor } if thread.holds => self.enter(index, &purges, floor, asked.now, close),
            PurgeNews::Since { .. } | PurgeNews::Gap => Err(Lost),
        };
        match heard {
            Ok(_) => self.confirm(&mut thread, asked),
            // What is known is as good as it was, and isn't confirmed any more.
            Err(Lost) => thread.holds = false,
        }
        heard
    }

    fn enter(
        &self,
        index: &PurgeIndex,
        purges: &[(u64, PurgeMessage)],
        floor: u64,
        now: Moment,
        close: impl Fn(&Target),
    ) -> Result<Option<u64>, Lost> {
        for (number, message) in purges {
            let known = index.current();
            if *number <= known {
                continue;
            }
            if *number != known + 1 {
                return Err(Lost);
            }
            let (target, force) = message.heard(now);
            index.apply(*number, &target, force);
            close(&target);
            self.counts.heard.fetch_add(1, Ordering::Relaxed);
        }
        index.retire(floor);
        Ok(purges.last().map(|(number, _)| *number))
    }

    /// Goes on from a snapshot, which was asked for when `known` was the newest number here.
    pub(crate) fn begin_again(
        &self,
        index: &PurgeIndex,
        known: u64,
        snapshot: PurgeSnapshot,
        asked: Asked,
        close: impl Fn(&Target),
    ) -> Result<u64, StorageError> {
        let PurgeSnapshot { current, floor, purges } = snapshot;
        if current < known {
            return Err(StorageError::new(format!(
                "the log of purges has forgotten number {known}, and ends with {current}, without a new epoch"
            )));
        }
        let mut thread = self.thread();
        if thread.holds && current <= index.current() {
            // Somebody else was faster.
            return Ok(current);
        }
        if current < index.current() {
            return Err(StorageError::new("the snapshot of purges came too late"));
        }
        let heard = |(number, message): (u64, PurgeMessage)| {
            let (target, force) = message.heard(asked.now);
            (number, target, force)
        };
        index.begin_again(floor, current, purges.into_iter().map(heard).collect());
        close(&Target::Everything);
        thread.holds = true;
        self.counts.snapshots.fetch_add(1, Ordering::Relaxed);
        self.confirm(&mut thread, asked);
        Ok(current)
    }

    fn confirm(&self, thread: &mut Thread, asked: Asked) {
        thread.fails = false;
        if thread.confirmed.is_none_or(|confirmed| confirmed.monotonic < asked.at.monotonic) {
            thread.confirmed = Some(asked.at);
        }
        if thread.owed.is_empty() {
            self.trust.extend(asked.at, asked.bound);
        }
    }

    /// A purge couldn't be written. Nothing that is stored is trusted until it could.
    pub(crate) fn owe(&self, message: PurgeMessage, target: Target) {
        let mut thread = self.thread();
        let owed = if thread.owed.len() < MOST_OWED {
            (message, target)
        } else {
            thread.owed.clear();
            (PurgeMessage::of(&Target::Everything, Force::Hard), Target::Everything)
        };
        let id = thread.next;
        thread.next += 1;
        thread.owed.push_back(Owed { id, message: owed.0, target: owed.1 });
        self.trust.end();
        drop(thread);
        self.counts.owed.fetch_add(1, Ordering::Relaxed);
        self.owing.notify_one();
    }

    /// The purge that has been owed longest.
    pub(crate) fn first_owed(&self) -> Option<Owed> {
        self.thread().owed.front().cloned()
    }

    /// It is in the log, and in the index.
    pub(crate) fn paid(&self, id: u64, asked: Asked) {
        let mut thread = self.thread();
        if thread.owed.front().is_some_and(|owed| owed.id == id) {
            thread.owed.pop_front();
        }
        if thread.holds {
            self.confirm(&mut thread, asked);
        }
    }

    fn holds_thread(&self) -> bool {
        self.thread().holds
    }

    /// An exchange with the log failed; tells whether the one before did not.
    fn failed(&self) -> bool {
        self.counts.failures.fetch_add(1, Ordering::Relaxed);
        !std::mem::replace(&mut self.thread().fails, true)
    }

    /// Whether it makes no sense to wait for the log.
    pub(crate) fn is_out_of_reach(&self) -> bool {
        let thread = self.thread();
        thread.fails || !thread.owed.is_empty()
    }

    /// Whether this instance hasn't heard of the log yet, and is about to.
    pub(crate) fn is_beginning(&self) -> bool {
        self.is_following.load(Ordering::Acquire) && !*self.began.borrow()
    }

    /// Waits until it has, or for as long as a request may wait for that.
    pub(crate) async fn begun(&self) {
        // It is never closed while `self` is there.
        let _ = self.began.subscribe().wait_for(|began| *began).await;
    }

    /// What is known of the log; `None` where there is none.
    pub(crate) fn stats(&self, index: &PurgeIndex, now: Moment) -> Option<PurgeLogStats> {
        self.log.as_ref()?;
        let thread = self.thread();
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Some(PurgeLogStats {
            trusted: self.is_trusted(now),
            number: index.current(),
            silence: thread.confirmed.map(|confirmed| now.since(confirmed)),
            owed: thread.owed.len() as u64,
            unwritten: read(&self.counts.owed),
            heard: read(&self.counts.heard),
            snapshots: read(&self.counts.snapshots),
            failures: read(&self.counts.failures),
        })
    }

    fn thread(&self) -> MutexGuard<'_, Thread> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Coherence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coherence").field("has_log", &self.has_log()).finish_non_exhaustive()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
