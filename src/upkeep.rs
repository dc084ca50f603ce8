//! [`Upkeep`]: what a rule wants done about a stored response while it is fresh: that it ends when nobody asks for it, and that it is refreshed
//! before it ends. Most responses have none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::expiry::{Expiry, STEP, may_refresh, mixed, should_refresh, unit};

/// A refresh that was tried is tried again after this time: one that failed, or found no place, must not be tried by each look.
const RETRY: Duration = Duration::from_secs(1);

/// What is done about a response while it is fresh. Times are as far from its arrival as [`Moment::since`](crate::Moment::since) counts.
#[derive(Debug)]
pub(crate) struct Upkeep {
    sliding: Option<Duration>,
    beta: Option<f64>,
    within: Option<Duration>,
    /// What the handler took for it, in microseconds; at most 71 minutes.
    cost: u32,
    marks: Arc<Marks>,
}

/// What changes while the response stays. All in relaxed order: a mark that is seen late costs a refresh more, or an end a moment early.
#[derive(Debug)]
struct Marks {
    /// When it was used last, in milliseconds from its arrival.
    used: AtomicU64,
    /// From when on a refresh may be tried, likewise.
    retry: AtomicU64,
    /// The state of its source of numbers.
    chance: AtomicU64,
}

/// What is to be done, without what was done so far: what its [record](crate::record) is made of.
#[cfg(feature = "record")]
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Wanted {
    pub(crate) sliding: Option<Duration>,
    pub(crate) beta: Option<f64>,
    pub(crate) within: Option<Duration>,
    pub(crate) cost: u32,
}

#[cfg(feature = "record")]
impl Upkeep {
    pub(crate) fn wanted(&self) -> Wanted {
        let Self { sliding, beta, within, cost, marks: _ } = *self;
        Wanted { sliding, beta, within, cost }
    }

    /// The same for a copy that begins now: it wasn't used yet, and has its own chance. `None` where a rule can't have wanted that.
    pub(crate) fn begun(wanted: Wanted, spread: u64) -> Option<Arc<Self>> {
        let Wanted { sliding, beta, within, cost } = wanted;
        let expiry = Expiry { jitter: None, sliding, refresh_ahead: beta, refresh_within: within };
        let is_wanted = expiry.mistake().is_none();
        let upkeep = Self::of(&expiry, true, Duration::from_micros(cost.into()), spread);
        upkeep.filter(|_| is_wanted)
    }
}

impl Upkeep {
    /// The bytes that it takes, with the counters of references.
    pub(crate) const SIZE: usize = size_of::<Self>() + size_of::<Marks>() + 4 * size_of::<usize>();

    /// What `expiry` wants done about a response that took `cost`, if anything. `is_ours` tells that the application gave the lifetime.
    pub(crate) fn of(expiry: &Expiry, is_ours: bool, cost: Duration, spread: u64) -> Option<Arc<Self>> {
        let sliding = expiry.sliding.filter(|_| is_ours);
        if sliding.is_none() && expiry.refresh_ahead.is_none() && expiry.refresh_within.is_none() {
            return None;
        }
        let (beta, within) = (expiry.refresh_ahead, expiry.refresh_within);
        let cost = u32::try_from(cost.as_micros()).unwrap_or(u32::MAX);
        let chance = AtomicU64::new(spread);
        let marks = Marks { used: AtomicU64::new(0), retry: AtomicU64::new(0), chance };
        Some(Arc::new(Self { sliding, beta, within, cost, marks: Arc::new(marks) }))
    }

    /// The same for a copy of the response, which was used as the response was until now, and has its own turns and its own chance from now on.
    pub(crate) fn copied(&self, spread: u64) -> Arc<Self> {
        let used = AtomicU64::new(self.marks.used.load(Ordering::Relaxed));
        let marks = Marks { used, retry: AtomicU64::new(0), chance: AtomicU64::new(spread) };
        Arc::new(Self { marks: Arc::new(marks), ..*self })
    }

    /// Of a response that was stored with `stored`, and would now have `current`: refreshed as before, and ended by the shorter time of disuse. Its use
    /// is that of the stored response.
    pub(crate) fn stricter(stored: Option<&Arc<Self>>, current: Option<&Arc<Self>>) -> Option<Arc<Self>> {
        let sliding = current.and_then(|current| current.sliding);
        match stored {
            Some(stored) => Some(Arc::new(Self {
                sliding: stored.sliding.into_iter().chain(sliding).min(),
                beta: stored.beta,
                within: stored.within,
                cost: stored.cost,
                marks: stored.marks.clone(),
            })),
            // When it was used last isn't known, and can't be noted in what is stored: it counts from its arrival.
            None => sliding.map(|sliding| {
                let marks = Marks { used: AtomicU64::new(0), retry: AtomicU64::new(0), chance: AtomicU64::new(0) };
                Arc::new(Self { sliding: Some(sliding), beta: None, within: None, cost: 0, marks: Arc::new(marks) })
            }),
        }
    }

    /// How far from its arrival the response ends if nobody asks for it; `None` where that is no matter.
    pub(crate) fn idle_end(&self) -> Option<Duration> {
        let used = Duration::from_millis(self.marks.used.load(Ordering::Relaxed));
        self.sliding.map(|sliding| used.saturating_add(sliding))
    }

    /// The same if it is used now.
    pub(crate) fn idle_end_if_used(&self, resident: Duration) -> Option<Duration> {
        self.sliding.map(|sliding| Duration::from_millis(millis(resident)).saturating_add(sliding))
    }

    /// Whether a look may refresh it before its end.
    pub(crate) fn refreshes(&self) -> bool {
        self.beta.is_some() || self.within.is_some()
    }

    /// It is used now.
    pub(crate) fn touch(&self, resident: Duration) {
        if self.sliding.is_none() {
            return;
        }
        let now = millis(resident);
        // Written once in a millisecond at most, so that cores don't take it from each other with every hit.
        if self.marks.used.load(Ordering::Relaxed) != now {
            self.marks.used.store(now, Ordering::Relaxed);
        }
    }

    /// Whether this look, at a response that is fresh for `remaining` of `lifetime`, is the one that refreshes it. Others are not for a while, whatever
    /// becomes of that.
    pub(crate) fn is_due(&self, remaining: Duration, lifetime: Duration, resident: Duration) -> bool {
        // Not in the first half: a time that is longer than the lifetime would mean always.
        let by_time = || self.within.is_some_and(|within| remaining < within.min(lifetime / 2));
        (self.is_due_by_chance(remaining) || by_time()) && self.take_turn(millis(resident))
    }

    fn is_due_by_chance(&self, remaining: Duration) -> bool {
        let (Some(beta), cost) = (self.beta, Duration::from_micros(self.cost.into())) else { return false };
        may_refresh(remaining, cost, beta) && {
            let state = self.marks.chance.fetch_add(STEP, Ordering::Relaxed);
            should_refresh(remaining, cost, beta, unit(mixed(state)))
        }
    }

    fn take_turn(&self, now: u64) -> bool {
        let retry = self.marks.retry.load(Ordering::Relaxed);
        let next = now.saturating_add(millis(RETRY));
        // A clock that was set back doesn't put it off for ever.
        let is_open = now >= retry || retry > next;
        is_open && self.marks.retry.compare_exchange(retry, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn upkeep(expiry: Expiry) -> Arc<Upkeep> {
        Upkeep::of(&expiry, true, secs(1), 7).unwrap()
    }

    #[test]
    fn most_responses_have_none() {
        let (plain, sliding) = (Expiry::default(), Expiry { sliding: Some(secs(5)), ..Expiry::default() });
        let jitter = Expiry { jitter: Some(0.5), ..plain };
        assert!(Upkeep::of(&plain, true, secs(1), 0).is_none() && Upkeep::of(&jitter, true, secs(1), 0).is_none());
        assert!(Upkeep::of(&sliding, false, secs(1), 0).is_none(), "the origin's word isn't shortened");
        let both = Expiry { refresh_within: Some(secs(1)), ..sliding };
        assert_eq!(Upkeep::of(&both, false, secs(1), 0).unwrap().idle_end(), None);
    }

    #[test]
    fn each_use_moves_the_end() {
        let upkeep = upkeep(Expiry { sliding: Some(secs(5)), ..Expiry::default() });
        assert_eq!(upkeep.idle_end(), Some(secs(5)));
        upkeep.touch(secs(4));
        assert_eq!(upkeep.idle_end(), Some(secs(9)));
        // A clock that was set forward and back again.
        upkeep.touch(secs(4000));
        upkeep.touch(secs(6));
        assert_eq!(upkeep.idle_end(), Some(secs(11)));
    }

    #[test]
    fn by_time_it_is_due_in_the_last_part_and_never_in_the_first_half() {
        for (within, remaining, expected) in
            [(10, 11, false), (10, 10, false), (10, 9, true), (99, 50, false), (99, 49, true)]
        {
            let upkeep = upkeep(Expiry { refresh_within: Some(secs(within)), ..Expiry::default() });
            assert_eq!(upkeep.is_due(secs(remaining), secs(100), secs(0)), expected, "{within}, {remaining}");
        }
    }

    #[test]
    fn one_look_refreshes_and_the_next_one_a_second_later() {
        let upkeep = upkeep(Expiry { refresh_within: Some(secs(10)), ..Expiry::default() });
        let due = |resident| upkeep.is_due(secs(1), secs(100), Duration::from_millis(resident));
        assert!(due(99_000) && !due(99_000) && !due(99_999) && due(100_000));
        assert!(due(50_000), "after a clock was set back");
    }

    #[test]
    fn by_chance_it_is_due_as_often_as_that_says() {
        // A second left, at a cost of one: 1/e of the looks.
        let looks = |seed| {
            let expiry = Expiry { refresh_ahead: Some(1.0), ..Expiry::default() };
            let upkeep = Upkeep::of(&expiry, true, secs(1), seed).unwrap();
            (0..1000).filter(|n| upkeep.is_due(secs(1), secs(100), secs(*n))).count()
        };
        for seed in 0..20 {
            let looks = looks(seed);
            assert!((300..440).contains(&looks), "{looks}");
        }
        assert_ne!((0..20).map(looks).min(), (0..20).map(looks).max(), "the seed decides");
    }

    #[test]
    fn of_two_settings_the_stricter_one_counts_and_the_use_is_the_stored_ones() {
        let five = upkeep(Expiry { sliding: Some(secs(5)), ..Expiry::default() });
        let nine = upkeep(Expiry { sliding: Some(secs(9)), ..Expiry::default() });
        five.touch(secs(3));
        let end = |stored, current| Upkeep::stricter(stored, current).and_then(|upkeep| upkeep.idle_end());
        assert_eq!(end(Some(&five), Some(&nine)), Some(secs(8)));
        assert_eq!(end(Some(&five), None), Some(secs(8)));
        assert_eq!(end(Some(&nine), Some(&five)), Some(secs(5)));
        assert_eq!(end(None, Some(&five)), Some(secs(5)));
        assert_eq!(end(None, None), None);
        Upkeep::stricter(Some(&five), Some(&nine)).unwrap().touch(secs(4));
        assert_eq!(five.idle_end(), Some(secs(9)), "use under the new settings is use of what is stored");
    }
}
