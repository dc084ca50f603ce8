//! [`Trust`]: until when what is stored may be used without fear of a purge that was made elsewhere and isn't known here.

use std::time::{Duration, UNIX_EPOCH};

use crate::clock::Moment;
use crate::sync::{AtomicU64, Ordering};

/// Trust is always there, for no other instance purges.
const ALWAYS: u64 = u64::MAX;

/// The end of trust, on both clocks: one of them may stand still while the machine sleeps, and the other be set back. Who reads halves of two writes reads an end that
/// is no later than the later of both.
#[derive(Debug)]
pub(crate) struct Trust {
    /// In nanoseconds, as the next.
    monotonic: AtomicU64,
    wall: AtomicU64,
}

impl Trust {
    /// Where nobody else purges.
    pub(crate) fn always() -> Self {
        Self { monotonic: AtomicU64::new(ALWAYS), wall: AtomicU64::new(ALWAYS) }
    }

    /// Until something is known.
    pub(crate) fn not_yet() -> Self {
        Self { monotonic: AtomicU64::new(0), wall: AtomicU64::new(0) }
    }

    #[inline]
    pub(crate) fn holds(&self, now: Moment) -> bool {
        let monotonic = self.monotonic.load(Ordering::Relaxed);
        monotonic == ALWAYS
            || nanoseconds(now.monotonic) < monotonic
                && nanoseconds(now.wall.duration_since(UNIX_EPOCH).unwrap_or_default())
                    < self.wall.load(Ordering::Relaxed)
    }

    /// All was known at `confirmed`, and what is stored may be behind by `bound`. Those who call this, or [`end`](Self::end), take turns.
    pub(crate) fn extend(&self, confirmed: Moment, bound: Duration) {
        let end = |since: Duration| nanoseconds(since.saturating_add(bound)).min(ALWAYS - 1);
        let wall = end(confirmed.wall.duration_since(UNIX_EPOCH).unwrap_or_default());
        let monotonic = end(confirmed.monotonic);
        // What was confirmed later is heard earlier, now and then; the wall clock may have been set between the two.
        if monotonic >= self.monotonic.load(Ordering::Relaxed) {
            self.wall.store(wall, Ordering::Release);
            self.monotonic.store(monotonic, Ordering::Release);
        }
    }

    /// From now on nothing is trusted.
    pub(crate) fn end(&self) {
        self.monotonic.store(0, Ordering::Release);
        self.wall.store(0, Ordering::Release);
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(duration.subsec_nanos()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(monotonic: u64, wall: u64) -> Moment {
        Moment { monotonic: Duration::from_millis(monotonic), wall: UNIX_EPOCH + Duration::from_millis(wall) }
    }

    #[test]
    fn trust_lasts_as_long_as_the_bound_by_either_clock() {
        let trust = Trust::not_yet();
        assert!(!trust.holds(at(0, 0)));
        trust.extend(at(5_000, 90_000), SECOND);
        // (monotonic, wall, trusted)
        let rows = [
            (5_000, 90_000, true),
            (5_999, 90_999, true),
            (6_000, 90_999, false),
            // The machine slept, and only the wall clock knows.
            (5_999, 91_000, false),
            // The wall clock was set back.
            (5_999, 10, true),
            (6_000, 10, false),
        ];
        for (monotonic, wall, expected) in rows {
            assert_eq!(trust.holds(at(monotonic, wall)), expected, "{monotonic} {wall}");
        }
        trust.extend(at(4_500, 89_500), SECOND);
        assert!(trust.holds(at(5_900, 90_900)), "what was heard late takes nothing back");
        trust.end();
        assert!(!trust.holds(at(5_000, 90_000)));
        trust.extend(at(5_500, 90_500), SECOND);
        assert!(trust.holds(at(6_400, 91_400)));
    }

    #[test]
    fn trust_without_others_has_no_end() {
        let trust = Trust::always();
        assert!(trust.holds(at(u64::MAX / 1_000_000, 1 << 40)));
        let unbounded = Trust::not_yet();
        unbounded.extend(at(1, 1), Duration::MAX);
        assert!(unbounded.holds(at(1 << 40, 1 << 40)) && unbounded.monotonic.into_inner() < ALWAYS);
    }
}
