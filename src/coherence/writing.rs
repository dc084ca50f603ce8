//! Purges on their way into the log: those of an operator, which are acknowledged when they are there, and those of writes, which no client waits long for.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::Asked;
use crate::cache::CacheCore;
use crate::error::StorageError;
use crate::fates::Became;
use crate::purge_message::PurgeMessage;
use crate::purged::Force;
use crate::selector::PurgeError;
use crate::target::{Hashes, Target};

/// How long a purge waits for the log.
const PURGING: Duration = Duration::from_secs(1);

/// How long the client of a write does. What isn't in the log by then is owed.
const WRITING: Duration = Duration::from_millis(40);

/// In such steps, and so many of them, news that somebody else has heard of are waited for, before they are asked for.
#[cfg(feature = "data")]
const STEP: Duration = Duration::from_millis(1);
#[cfg(feature = "data")]
const LISTENING_FOR: u32 = 50;

impl CacheCore {
    /// Purges on all instances; returns the number. It has taken effect here when this returns, and elsewhere within the bound.
    ///
    /// If the log can't be written, the purge has failed, and has the effect here that nothing stored is used until it could be.
    pub(crate) async fn purge_everywhere(&self, target: &Target, force: Force) -> Result<u64, PurgeError> {
        let message = PurgeMessage::of(target, force);
        let appended = match Handle::try_current() {
            Ok(_) => timeout(PURGING, self.append(&message)).await.unwrap_or_else(|_| {
                Err(StorageError::new(format!(
                    "it did not answer within {PURGING:?}, and the purge may be in it or not"
                )))
            }),
            Err(_) => Err(StorageError::new("there is no tokio runtime here")),
        };
        appended.map_err(|source| {
            self.owe(message, target.clone());
            PurgeError::Log { source }
        })
    }

    /// Appends a purge, and applies all that the log has up to it.
    async fn append(&self, message: &PurgeMessage) -> Result<u64, StorageError> {
        let log = self.coherence.log.as_ref().ok_or_else(|| StorageError::new("there is no log of purges"))?;
        if !self.coherence.holds_thread() {
            self.load_purges().await?;
        }
        let (at, known) = (self.now(), self.purges.current());
        let news = log.append(message, known).await?;
        let asked = Asked { at, now: self.now(), bound: self.settings.staleness_bound };
        match self.hear(news, asked) {
            Ok(Some(number)) => Ok(number),
            Ok(None) => Err(StorageError::new("the log of purges does not say which number the purge has")),
            // It is in the log, and so in the snapshot.
            Err(super::Lost) => self.load_purges().await,
        }
    }

    /// All that the log has by now is known here when this returns.
    #[cfg(feature = "data")]
    pub(crate) async fn hear_newest(&self) -> Result<(), StorageError> {
        let Some(log) = &self.coherence.log else { return Ok(()) };
        let silent = |_| StorageError::new(format!("the log of purges did not answer within {PURGING:?}"));
        let newest = timeout(PURGING, log.newest()).await.map_err(silent)??;
        let is_heard = || self.purges.current() >= newest;
        // It is on its way here already.
        let mut patience = LISTENING_FOR;
        while !is_heard() && patience > 0 {
            patience -= 1;
            tokio::time::sleep(STEP).await;
        }
        if !is_heard() {
            self.load_purges().await?;
        }
        match is_heard() {
            true => Ok(()),
            false => Err(StorageError::new("the log of purges has less than it had")),
        }
    }

    /// A purge that isn't in the log yet. Nobody joins a flight that it touches, and nothing stored is used until it is.
    fn owe(&self, message: PurgeMessage, target: Target) {
        self.close_flights(&target);
        self.coherence.owe(message, target);
    }

    /// Appends what is owed, the oldest first.
    pub(super) async fn pay(&self) -> Result<(), StorageError> {
        while let Some(owed) = self.coherence.first_owed() {
            let at = self.now();
            let appended = timeout(PURGING, self.append(&owed.message)).await;
            appended
                .map_err(|_| StorageError::new(format!("the log of purges did not answer within {PURGING:?}")))??;
            let asked = Asked { at, now: self.now(), bound: self.settings.staleness_bound };
            self.coherence.paid(owed.id, asked);
        }
        Ok(())
    }

    /// Purges what nobody waits for: where instances share a log, as soon as that has it.
    pub(crate) fn purge_behind(self: &Arc<Self>, target: Target, force: Force) {
        let mut outdated = Outdated::new(self);
        outdated.purge(target, force, None);
        outdated.write_behind();
    }

    /// Purges here and now; where instances share a log, by trusting nothing until that has it.
    pub(crate) fn purge_at_once(&self, target: &Target, force: Force) {
        if self.coherence.has_log() {
            self.owe(PurgeMessage::of(target, force), target.clone());
        } else {
            self.purge_target(target, force);
        }
    }
}

/// What is to be purged since something was written. Without a log that is done at once. With one, it is gathered under as few numbers as possible, and
/// [written](Self::write) before the client hears of its write; whatever happens before it is written, it is owed.
#[must_use]
pub(crate) struct Outdated {
    core: Arc<CacheCore>,
    hashes: Hashes,
    /// Some of the hashes are tags that any authority may have.
    is_anybodys: bool,
    /// Patterns, what is soft, and everything.
    apart: Vec<(Target, Force)>,
    /// Parts of keys that were written to.
    notes: SmallVec<[Vec<u8>; 1]>,
    /// The number of the last purge that was made.
    last: Option<u64>,
}

impl Outdated {
    pub(crate) fn new(core: &Arc<CacheCore>) -> Self {
        Self {
            core: core.clone(),
            hashes: Hashes::default(),
            is_anybodys: false,
            apart: Vec::new(),
            notes: SmallVec::new(),
            last: None,
        }
    }

    /// Adds a purge. `part` is that of the keys that were written to, where it is known.
    pub(crate) fn purge(&mut self, target: Target, force: Force, part: Option<&[u8]>) {
        if !self.core.coherence.has_log() {
            let number = self.core.purge_target(&target, force);
            self.last = Some(number);
            part.into_iter().for_each(|part| self.core.fates.note_part(part, Became::Written, number));
            return;
        }
        self.notes.extend(part.map(<[u8]>::to_vec));
        match (target, force) {
            (Target::Hashes(hashes), Force::Hard) => self.add(hashes),
            apart => self.apart.push(apart),
        }
    }

    fn add(&mut self, Hashes { places, tags, authority }: Hashes) {
        self.hashes.places.extend(places);
        if tags.is_empty() {
            return;
        }
        // The authority only says of whom it can't be told yet whether they have such a tag.
        let is_first = self.hashes.tags.is_empty();
        self.is_anybodys |= authority.is_none() || !is_first && self.hashes.authority != authority;
        self.hashes.authority = authority.filter(|_| !self.is_anybodys);
        self.hashes.tags.extend(tags);
    }

    /// Waits until all of it is in the log, for a moment at most: the answer to a write passes whatever becomes of the log. Returns the number of the last purge, or of the newest that is
    /// known: what is stored under it isn't touched by what is in the log now, but may be by what is owed.
    pub(crate) async fn write(self) -> u64 {
        self.write_within(WRITING).await
    }

    /// The same for those who wait for the store as well, and to whom a purge that comes late is of no use: it would take along what they are about to store.
    #[cfg(feature = "data")]
    pub(crate) async fn write_patiently(self) -> u64 {
        self.write_within(PURGING).await
    }

    async fn write_within(mut self, longest: Duration) -> u64 {
        self.close_up();
        let core = self.core.clone();
        if self.apart.is_empty() || core.coherence.is_out_of_reach() || Handle::try_current().is_err() {
            return self.last.unwrap_or_else(|| core.purges.current());
        }
        let all = async {
            while let Some((target, force)) = self.apart.first().cloned() {
                let number = core.append(&PurgeMessage::of(&target, force)).await?;
                self.notes.drain(..).for_each(|part| core.fates.note_part(&part, Became::Written, number));
                self.apart.remove(0);
                self.last = Some(number);
            }
            Ok::<_, StorageError>(())
        };
        match timeout(longest, all).await {
            Ok(Ok(())) => return self.last.unwrap_or_else(|| core.purges.current()),
            Ok(Err(error)) => {
                tracing::warn!(target: "larder", %error, "what a write made invalid isn't in the log yet")
            }
            Err(_) => {
                tracing::warn!(target: "larder", "what a write made invalid isn't in the log within {longest:?}");
            }
        }
        core.coherence.failed();
        core.purges.current()
    }

    /// The same without anybody who waits.
    pub(crate) fn write_behind(mut self) {
        self.close_up();
        if !self.apart.is_empty() && Handle::try_current().is_ok() {
            let core = self.core.clone();
            core.spawn(async move { _ = self.write().await });
        }
    }

    /// The hashes are the first of what is written.
    fn close_up(&mut self) {
        let hashes = std::mem::take(&mut self.hashes);
        if hashes.all().next().is_some() {
            self.apart.insert(0, (Target::Hashes(hashes), Force::Hard));
        }
    }
}

impl Drop for Outdated {
    fn drop(&mut self) {
        self.close_up();
        for (target, force) in self.apart.drain(..) {
            self.core.owe(PurgeMessage::of(&target, force), target);
        }
    }
}
