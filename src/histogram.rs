//! [`Histogram`]: how long things took, counted without a lock in classes of nearly equal length, and [`Latency`], what is read from that.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How many classes there are between a time and its double.
const STEPS: u64 = 1 << STEP_BITS;
const STEP_BITS: u32 = 3;

/// The longest time that is told from a longer one: 137 s, in nanoseconds.
const LONGEST: u64 = (1 << 37) - 1;

const CLASSES: usize = class(LONGEST) + 1;

/// Times in classes. Up to eight nanoseconds each has its own; from there a class is an eighth of the power of two that it begins from, so that its middle
/// is never further from a time in it than a sixteenth of that time.
///
/// Made on the first record, since many routes are hardly used.
#[derive(Default)]
pub(crate) struct Histogram {
    classes: OnceLock<Box<Classes>>,
    /// Where the times go as well.
    #[cfg(feature = "metrics")]
    published: OnceLock<::metrics::Histogram>,
}

struct Classes {
    counts: [AtomicU64; CLASSES],
    total: AtomicU64,
}

impl Histogram {
    pub(crate) fn record(&self, time: Duration) {
        let classes = self.classes.get_or_init(|| {
            Box::new(Classes { counts: [const { AtomicU64::new(0) }; CLASSES], total: AtomicU64::new(0) })
        });
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).min(LONGEST);
        classes.counts[class(nanoseconds)].fetch_add(1, Ordering::Relaxed);
        classes.total.fetch_add(nanoseconds, Ordering::Relaxed);
        #[cfg(feature = "metrics")]
        self.published.get().into_iter().for_each(|published| published.record(time.as_secs_f64()));
    }

    /// From now on each time is recorded there as well, unless it already is elsewhere.
    #[cfg(feature = "metrics")]
    pub(crate) fn also_in(&self, published: impl FnOnce() -> ::metrics::Histogram) {
        self.published.get_or_init(published);
    }

    /// What was recorded so far. Records that are made meanwhile may be in a part of it.
    pub(crate) fn latency(&self) -> Latency {
        let Some(classes) = self.classes.get() else { return Latency::default() };
        let counts: Vec<u64> = classes.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let count: u64 = counts.iter().sum();
        if count == 0 {
            return Latency::default();
        }
        let total = classes.total.load(Ordering::Relaxed);
        let at = |share: f64| Duration::from_nanos(percentile(&counts, count, share));
        Latency {
            count,
            total: Duration::from_nanos(total),
            mean: Duration::from_nanos(total / count),
            p50: at(0.50),
            p90: at(0.90),
            p99: at(0.99),
        }
    }
}

impl std::fmt::Debug for Histogram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.latency().fmt(f)
    }
}

/// How long something took, over all times that it was measured since the cache was made. Times are counted in classes, so a percentile is within
/// 1/16 (6.25 %) of a time that was measured; mean and total are exact. Times over 137 seconds count as that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Latency {
    /// How often it was measured.
    pub count: u64,
    /// All measured times together.
    pub total: Duration,
    /// The mean; zero before the first.
    pub mean: Duration,
    /// The median: half of the times were at most so long.
    pub p50: Duration,
    /// Nine of ten were at most so long.
    pub p90: Duration,
    /// Ninety-nine of a hundred were at most so long.
    pub p99: Duration,
}

/// The class of a time in nanoseconds.
const fn class(time: u64) -> usize {
    if time < STEPS {
        return time as usize;
    }
    let power = u64::BITS - 1 - time.leading_zeros();
    let step = (time >> (power - STEP_BITS)) & (STEPS - 1);
    ((power - STEP_BITS + 1) as u64 * STEPS + step) as usize
}

/// The middle of a class.
fn middle(class: usize) -> u64 {
    let (power, step) = (class as u64 / STEPS, class as u64 % STEPS);
    if power == 0 {
        return step;
    }
    let width = 1 << (power - 1);
    (STEPS + step) * width + (width - 1) / 2
}

/// The middle of the class in which the smallest time lies that `share` of all don't exceed.
fn percentile(counts: &[u64], all: u64, share: f64) -> u64 {
    let wanted = ((all as f64 * share).ceil() as u64).clamp(1, all);
    let mut seen = 0;
    let reaches = |count: &u64| {
        seen += count;
        seen >= wanted
    };
    middle(counts.iter().position(reaches).unwrap_or(CLASSES - 1))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn classes_follow_each_other_without_gaps() {
        let mut last = 0;
        for time in (0..4096).chain((12..37).flat_map(|power| [(1 << power) - 1, 1 << power, (1 << power) + 1])) {
            let class = class(time);
            assert!(class == last || class == last + 1 || time > 4096, "{time}");
            assert!(class >= last);
            last = class;
        }
        assert_eq!(class(LONGEST), CLASSES - 1);
        assert!(size_of::<Classes>() <= 2560, "docs/metrics.md says so");
    }

    #[test]
    fn nothing_measured_is_no_time_and_what_is_too_long_counts_as_the_longest() {
        let histogram = Histogram::default();
        assert_eq!(histogram.latency(), Latency::default());
        histogram.record(Duration::MAX);
        let latency = histogram.latency();
        assert_eq!((latency.count, latency.total), (1, Duration::from_nanos(LONGEST)));
    }

    /// Times of every magnitude.
    fn times() -> impl Strategy<Value = Vec<u64>> {
        let time = (0..=37u32, any::<u64>()).prop_map(|(power, any)| (any & ((1 << power) - 1)).min(LONGEST));
        vec(time, 1..400)
    }

    proptest! {
        #[test]
        fn percentiles_are_within_a_sixteenth(mut times in times()) {
            let histogram = Histogram::default();
            times.iter().for_each(|time| histogram.record(Duration::from_nanos(*time)));
            let latency = histogram.latency();
            times.sort_unstable();
            for (share, said) in [(0.5, latency.p50), (0.9, latency.p90), (0.99, latency.p99)] {
                let rank = ((times.len() as f64 * share).ceil() as usize).clamp(1, times.len());
                let (exact, said) = (times[rank - 1], said.as_nanos() as u64);
                prop_assert!(said.abs_diff(exact) * 16 <= exact, "{said} for {exact}");
            }
            let total: u64 = times.iter().sum();
            prop_assert_eq!(latency.count, times.len() as u64);
            prop_assert_eq!(latency.total, Duration::from_nanos(total));
            prop_assert_eq!(latency.mean, Duration::from_nanos(total / times.len() as u64));
        }
    }
}
