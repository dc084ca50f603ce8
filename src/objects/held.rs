//! [`Held`]: one object as it lies in memory, with what decides on its use; and what may be done with it now.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Moment;
use crate::expiry::Expiry;
use crate::response::Stamp;
use crate::upkeep::Upkeep;

/// What a loader brought.
pub(super) enum Loaded<V> {
    Value(Arc<V>),
    /// It said that there is none.
    Nothing,
    /// An error, of whichever type the loader has.
    Failed(Arc<dyn Any + Send + Sync>),
}

impl<V> Clone for Loaded<V> {
    fn clone(&self) -> Self {
        match self {
            Self::Value(value) => Self::Value(value.clone()),
            Self::Nothing => Self::Nothing,
            Self::Failed(error) => Self::Failed(error.clone()),
        }
    }
}

/// How long something is good for, from its arrival and from its end.
#[derive(Clone, Copy, Default)]
pub(super) struct Terms {
    pub(super) lifetime: Duration,
    pub(super) sliding: Option<Duration>,
    pub(super) while_revalidate: Duration,
    pub(super) if_error: Duration,
}

/// What is kept under a key. It never changes, but for its marks.
pub(super) struct Held<V> {
    pub(super) loaded: Loaded<V>,
    pub(super) received: Moment,
    lifetime: Duration,
    while_revalidate: Duration,
    if_error: Duration,
    /// `None` for most.
    upkeep: Option<Arc<Upkeep>>,
    pub(super) stamp: Stamp,
    /// How many milliseconds after its arrival a loader may be asked again that has failed since.
    rests: AtomicU64,
}

/// What may be done with what is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Fresh,
    /// It may go out while it is loaded anew.
    Stale,
    /// It may stand in for an error.
    StandsIn,
    Over,
}

impl<V> Held<V> {
    pub(super) fn new(loaded: Loaded<V>, received: Moment, terms: Terms, stamp: Stamp) -> Self {
        let Terms { lifetime, sliding, while_revalidate, if_error } = terms;
        let expiry = Expiry { sliding: sliding.filter(|idle| !idle.is_zero()), ..Expiry::default() };
        let upkeep = Upkeep::of(&expiry, true, Duration::ZERO, 0);
        Self { loaded, received, lifetime, while_revalidate, if_error, upkeep, stamp, rests: AtomicU64::new(0) }
    }

    /// As of the last look at purges.
    #[inline]
    pub(super) fn now(&self, now: Moment) -> Use {
        let resident = now.since(self.received);
        if self.upkeep.is_none() && self.stamp.stale_from().is_none() && resident < self.lifetime {
            return Use::Fresh;
        }
        self.weigh(resident)
    }

    #[cold]
    fn weigh(&self, resident: Duration) -> Use {
        let idle_end = self.upkeep.as_ref().and_then(|upkeep| upkeep.idle_end());
        let ends = idle_end.into_iter().chain(self.stamp.stale_from());
        let lifetime = ends.fold(self.lifetime, Duration::min);
        match resident.checked_sub(lifetime) {
            None => {
                self.upkeep.iter().for_each(|upkeep| upkeep.touch(resident));
                Use::Fresh
            }
            Some(past) if past < self.while_revalidate => Use::Stale,
            Some(past) if past < self.if_error => Use::StandsIn,
            Some(_) => Use::Over,
        }
    }

    /// Whether there is nothing that has to be said where it is used.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        self.stamp.tags.is_none() && self.stamp.stale_from().is_none()
    }

    /// A loader has failed: none is asked for so long, where this may stand in.
    pub(super) fn rest(&self, now: Moment, pause: Duration) {
        self.rests.fetch_max(millis(now.since(self.received).saturating_add(pause)), Ordering::Relaxed);
    }

    pub(super) fn is_resting(&self, now: Moment) -> bool {
        millis(now.since(self.received)) < self.rests.load(Ordering::Relaxed)
    }

    /// For how long from its arrival it is of any use.
    pub(super) fn keep(&self) -> Duration {
        self.lifetime.saturating_add(self.while_revalidate.max(self.if_error))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn at(n: u64) -> Moment {
        Moment { wall: UNIX_EPOCH + secs(n), monotonic: secs(n) }
    }

    fn held(terms: Terms) -> Held<()> {
        Held::new(Loaded::Nothing, at(100), terms, Stamp::default())
    }

    #[test]
    fn what_may_be_done_goes_by_the_time_since_its_arrival() {
        let terms = |lifetime, while_revalidate, if_error| Terms {
            lifetime: secs(lifetime),
            sliding: None,
            while_revalidate: secs(while_revalidate),
            if_error: secs(if_error),
        };
        // (terms, resident, use)
        let rows = [
            (terms(10, 0, 0), 9, Use::Fresh),
            (terms(10, 0, 0), 10, Use::Over),
            (terms(10, 5, 0), 10, Use::Stale),
            (terms(10, 5, 0), 15, Use::Over),
            (terms(10, 5, 8), 14, Use::Stale),
            (terms(10, 5, 8), 15, Use::StandsIn),
            (terms(10, 5, 8), 18, Use::Over),
            (terms(0, 0, 0), 0, Use::Over),
            (Terms { lifetime: Duration::MAX, ..Terms::default() }, 1 << 40, Use::Fresh),
        ];
        for (row, (terms, resident, expected)) in rows.into_iter().enumerate() {
            assert_eq!(held(terms).now(at(100 + resident)), expected, "row {row}");
        }
    }

    #[test]
    fn a_use_prolongs_what_slides_up_to_its_lifetime() {
        let held = held(Terms { lifetime: secs(20), sliding: Some(secs(6)), ..Terms::default() });
        for (resident, expected) in [(5, Use::Fresh), (10, Use::Fresh), (15, Use::Fresh), (20, Use::Over)] {
            assert_eq!(held.now(at(100 + resident)), expected, "{resident}");
        }
        let unused = self::held(Terms { lifetime: secs(20), sliding: Some(secs(6)), ..Terms::default() });
        assert_eq!(unused.now(at(106)), Use::Over);
    }

    #[test]
    fn a_soft_purge_ends_its_lifetime_and_not_its_windows() {
        let held = held(Terms { lifetime: secs(60), while_revalidate: secs(5), ..Terms::default() });
        held.stamp.hold(Some(secs(3)), 1);
        let uses = [2, 3, 7, 8].map(|resident| held.now(at(100 + resident)));
        assert_eq!(uses, [Use::Fresh, Use::Stale, Use::Stale, Use::Over]);
    }

    #[test]
    fn after_a_failure_it_rests() {
        let held = held(Terms { if_error: secs(60), ..Terms::default() });
        assert!(!held.is_resting(at(100)));
        held.rest(at(110), secs(5));
        assert_eq!([110, 114, 115].map(|now| held.is_resting(at(now))), [true, true, false]);
    }
}
