//! [`Live`]: the settings that count now, which a reload replaces while requests read them.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Guard};

use crate::cache::CacheCore;
use crate::description::changes;
use crate::purged::Force;
use crate::reload::{Reload, ReloadError};
use crate::settings::Settings;
use crate::target::Target;

/// A cache through all its generations.
pub(crate) struct Live {
    /// The first generation, which most caches stay with. Kept as long as the cache, so that until a reload nothing is written to find it; with it stays what its settings hold,
    /// and its routes are counted each for itself though a reload has removed them.
    first: Arc<CacheCore>,
    is_reloaded: AtomicBool,
    current: ArcSwap<CacheCore>,
    /// Reloads take turns, so that each is compared with the one before it.
    turn: Mutex<()>,
}

/// The generation that a request begins with.
pub(crate) enum Begun<'a> {
    First(&'a Arc<CacheCore>),
    Later(Guard<Arc<CacheCore>>),
}

impl Deref for Begun<'_> {
    type Target = Arc<CacheCore>;

    #[inline]
    fn deref(&self) -> &Arc<CacheCore> {
        match self {
            Self::First(core) => core,
            Self::Later(core) => core,
        }
    }
}

impl Live {
    pub(crate) fn new(settings: Settings) -> Self {
        let first = Arc::new(CacheCore::new(settings));
        let (current, is_reloaded) = (ArcSwap::new(first.clone()), AtomicBool::new(false));
        Self { first, is_reloaded, current, turn: Mutex::new(()) }
    }

    /// The generation of now. Takes no lock and counts no reference; not to be held across an await.
    #[inline]
    pub(crate) fn load(&self) -> Begun<'_> {
        if self.is_reloaded.load(Ordering::Acquire) {
            return Begun::Later(self.current.load());
        }
        Begun::First(&self.first)
    }

    pub(crate) fn load_full(&self) -> Arc<CacheCore> {
        self.current.load_full()
    }

    /// Replaces the settings by what `wanted` makes of the running ones. Requests that began before go on with those.
    pub(crate) fn reload<E: From<ReloadError>>(
        &self,
        wanted: impl FnOnce(&Settings) -> Result<Settings, E>,
    ) -> Result<Reload, E> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let running = self.current.load_full();
        let wanted = wanted(&running.settings)?;
        if let Some(error) = running.cannot_become(&wanted) {
            return Err(error.into());
        }
        let changes = changes(&running.settings, &wanted);
        if changes.is_empty() {
            tracing::info!(generation = running.generation, "settings were reloaded: nothing changed");
            return Ok(Reload { generation: running.generation, changes });
        }
        let next = Arc::new(running.succeeded_by(wanted));
        self.current.store(next.clone());
        self.is_reloaded.store(true, Ordering::Release);
        next.observations.begin_anew(&running.rules, &next.rules);
        if next.has_too_many_retired() {
            next.purge_at_once(&Target::Everything, Force::Hard);
            let number = next.purges.current();
            next.fates.note_all(number);
            next.clear_memories(number);
        }
        for change in &changes {
            tracing::info!(generation = next.generation, "settings were reloaded: {change}");
        }
        Ok(Reload { generation: next.generation, changes })
    }
}

impl CacheCore {
    /// What of these settings a cache that runs can't take over: stores stay as they are.
    pub(crate) fn cannot_become(&self, wanted: &Settings) -> Option<ReloadError> {
        if let Some((field, running, wanted)) = self.settings.backend.differs(&wanted.backend) {
            return Some(ReloadError::Store { field, running, wanted });
        }
        #[cfg(feature = "data")]
        if let Some((name, field, running, wanted)) = self.data.differs(&self.settings.data, &wanted.data) {
            return Some(ReloadError::Data { name, field, running, wanted });
        }
        None
    }
}
