//! Why the store couldn't answer a request: what had become of what it asked for.

use crate::admission::Ask;
use crate::cache::CacheCore;
use crate::fates::{Became, MissCause};
use crate::outcome::ForwardReason;

impl CacheCore {
    /// Counts why a request goes to the handler.
    pub(crate) fn note_miss(&self, ask: &Ask, why: ForwardReason) {
        self.rules.get(ask.rule).counters.missed(self.cause(ask, why));
    }

    /// What had become of what a request asks for that isn't answered from the store.
    pub(crate) fn cause(&self, ask: &Ask, why: ForwardReason) -> MissCause {
        match why {
            ForwardReason::VaryMiss => MissCause::Variant,
            ForwardReason::Stale if self.is_softly_purged(ask) => MissCause::Purged,
            ForwardReason::Stale => MissCause::Expired,
            ForwardReason::Request | ForwardReason::NetworkFirst => MissCause::Asked,
            ForwardReason::Distrusted => MissCause::Distrusted,
            ForwardReason::UriMiss
            | ForwardReason::OnlyIfCached
            | ForwardReason::CacheOnly
            | ForwardReason::Crowded => self.cause_of_nothing(ask),
        }
    }

    /// What another store has under a key isn't valid any more: it can't be asked once more when that matters, so it is remembered.
    pub(crate) fn note_invalid(&self, ask: &Ask) {
        let became = self.fates.of(&ask.key).map(|fate| fate.became);
        if !matches!(became, Some(Became::Written | Became::Purged { .. })) {
            self.fates.note(ask.key.as_bytes(), Became::Purged { number: None });
        }
    }

    /// Why nothing was found that may be used.
    fn cause_of_nothing(&self, ask: &Ask) -> MissCause {
        let is_there = self.is_there(ask);
        if is_there == Some(true) {
            return MissCause::Settings;
        }
        match self.fates.of(&ask.key).map(|fate| fate.became) {
            Some(Became::Written) => MissCause::Written,
            Some(Became::Purged { .. }) => MissCause::Purged,
            _ if is_there == Some(false) => MissCause::Purged,
            Some(Became::Evicted) => MissCause::Evicted,
            Some(Became::Expired) => MissCause::Expired,
            Some(Became::Declined(_)) => MissCause::Declined,
            Some(Became::Stored | Became::Dropped) => MissCause::Lost,
            None => MissCause::FirstSeen,
        }
    }

    /// Whether something lies in memory under the key that a soft purge made stale.
    fn is_softly_purged(&self, ask: &Ask) -> bool {
        let Some(memory) = &self.settings.backend.near else { return false };
        memory.peek(&ask.key, |variants| variants.iter().any(|stored| stored.stamp.stale_from().is_some()))
    }

    /// Whether something lies in memory under the key that no purge has touched; `None` where nothing does.
    fn is_there(&self, ask: &Ask) -> Option<bool> {
        let Some(memory) = &self.settings.backend.near else { return None };
        memory.peek(&ask.key, |variants| {
            let valid = variants.iter().any(|stored| self.is_valid(stored, &ask.key));
            (!variants.is_empty()).then_some(valid)
        })
    }
}
