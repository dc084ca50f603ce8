//! [`Synthetic`]: traces that nobody recorded, the same for the same seed.

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::Uri;

use super::Access;
use super::random::{Random, mix};

/// A trace by a formula: keys whose popularity falls by Zipf's law, or that come round and round; with crawlers between them and with times that change, where that
/// is wanted. The same settings are the same requests, on every machine.
///
/// ```
/// use larder::simulate::{Sizes, Synthetic};
/// let trace = Synthetic::zipf(10_000, 0.9).requests(1000).seed(7).sizes(Sizes::Fixed(4096));
/// assert_eq!(trace.clone().count(), 1000);
/// let paths = |trace: Synthetic| trace.map(|access| Ok(access?.uri)).collect::<Result<Vec<_>, std::io::Error>>();
/// assert_eq!(paths(trace.clone())?, paths(trace)?);
/// # Ok::<_, std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Synthetic {
    order: Order,
    keys: u64,
    left: u64,
    made: u64,
    rate: f64,
    sizes: Sizes,
    seed: u64,
    random: Random,
    /// The part of the requests that a crawler makes, and where it is.
    scan: (f64, u64),
    /// After how many requests another tenth of the keys is popular.
    shift: Option<u64>,
}

#[derive(Clone, Debug)]
enum Order {
    /// By rank, from the most popular one: the sum of what it and those before it are asked for, of one.
    Zipf(std::sync::Arc<[f64]>),
    Loop,
}

/// How large contents are. A key's size is always the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sizes {
    /// All so many bytes.
    Fixed(u64),
    /// Between two bounds, as many between 1 and 2 KiB as between 100 and 200.
    Between(u64, u64),
}

/// 2026-01-01 00:00:00 UTC.
const START: u64 = 1_767_225_600;

impl Synthetic {
    /// Keys of which the n-th most popular one is asked for in proportion to `1 / n^exponent`: 0 is all alike, and what people read on the web has been found
    /// between 0.6 and 1.1. `keys` is one at least; numbers that are none count as zero.
    pub fn zipf(keys: u64, exponent: f64) -> Self {
        let (keys, exponent) = (keys.max(1), if exponent.is_finite() { exponent } else { 0.0 });
        let weight = |rank: u64| (rank as f64).powf(-exponent);
        let total: f64 = (1..=keys).map(weight).sum();
        let mut sum = 0.0;
        let sums = (1..=keys).map(|rank| {
            sum += weight(rank) / total;
            sum
        });
        Self::new(keys, Order::Zipf(sums.collect()))
    }

    /// Keys that are asked for one after another, round and round: what a job does that fetches everything once a day. `keys` is one at least.
    pub fn cyclic(keys: u64) -> Self {
        Self::new(keys.max(1), Order::Loop)
    }

    fn new(keys: u64, order: Order) -> Self {
        Self {
            order,
            keys,
            left: 1_000_000,
            made: 0,
            rate: 1000.0,
            sizes: Sizes::Between(512, 64 << 10),
            seed: 0,
            random: Random::new(0),
            scan: (0.0, 0),
            shift: None,
        }
    }

    /// How many; a million by default.
    pub fn requests(mut self, number: u64) -> Self {
        self.left = number;
        self
    }

    /// Another seed is other chances; zero by default.
    pub fn seed(mut self, seed: u64) -> Self {
        (self.seed, self.random) = (seed, Random::new(seed));
        self
    }

    /// How many requests a second, at even distances; a thousand by default. Counts where something expires.
    pub fn rate(mut self, per_second: f64) -> Self {
        self.rate = if per_second > 0.0 && per_second.is_finite() { per_second } else { 1000.0 };
        self
    }

    /// How large contents are; between 512 bytes and 64 KiB by default.
    pub fn sizes(mut self, sizes: Sizes) -> Self {
        self.sizes = sizes;
        self
    }

    /// A crawler makes this part of the requests (0.2 is every fifth), each for something that nobody else asks for, and it only once.
    pub fn scan(mut self, part: f64) -> Self {
        self.scan.0 = part.clamp(0.0, 1.0);
        self
    }

    /// After every so many requests the most popular tenth of the keys gives its place to others, as news do.
    pub fn shift(mut self, every: u64) -> Self {
        self.shift = (every > 0).then_some(every);
        self
    }

    fn draw(&mut self) -> (&'static str, u64) {
        if self.scan.0 > 0.0 && self.random.unit() < self.scan.0 {
            self.scan.1 += 1;
            return ("/crawled", self.scan.1);
        }
        let rank = match &self.order {
            Order::Zipf(sums) => {
                let drawn = self.random.unit();
                sums.partition_point(|sum| *sum <= drawn) as u64
            }
            Order::Loop => self.made,
        };
        let shifted = self.shift.map_or(0, |every| self.made / every * (self.keys / 10).max(1));
        ("/items", (rank % self.keys + shifted) % self.keys)
    }

    fn size(&self, kind: &str, key: u64) -> u64 {
        match self.sizes {
            Sizes::Fixed(bytes) => bytes,
            Sizes::Between(least, most) => {
                let (least, most) = (least.max(1) as f64, most.max(1) as f64);
                let own = mix(mix(key ^ (kind.len() as u64) << 56) ^ self.seed) >> 11;
                (least * (most / least).powf(own as f64 / (1_u64 << 53) as f64)).round() as u64
            }
        }
    }
}

impl Iterator for Synthetic {
    type Item = io::Result<Access>;

    fn next(&mut self) -> Option<io::Result<Access>> {
        self.left = self.left.checked_sub(1)?;
        let (kind, key) = self.draw();
        let since = Duration::from_secs_f64((self.made as f64 / self.rate).min(1e9));
        self.made += 1;
        let time: SystemTime = UNIX_EPOCH + Duration::from_secs(START) + since;
        let uri = Uri::try_from(format!("{kind}/{key}")).map_err(io::Error::other);
        Some(uri.map(|uri| Access::get(time, uri, self.size(kind, key))))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn counts(trace: Synthetic) -> HashMap<String, u64> {
        let mut counts = HashMap::new();
        trace.for_each(|access| *counts.entry(access.expect("it is a path").uri.to_string()).or_default() += 1);
        counts
    }

    #[test]
    fn popularity_falls_as_the_law_says() {
        let counts = counts(Synthetic::zipf(100, 1.0).requests(100_000).seed(1));
        let harmonic: f64 = (1..=100).map(|n| 1.0 / f64::from(n)).sum();
        for rank in [1_u32, 2, 10] {
            let expected = 100_000.0 / harmonic / f64::from(rank);
            let counted = counts[&format!("/items/{}", rank - 1)] as f64;
            assert!((counted / expected - 1.0).abs() < 0.1, "{rank}: {counted}, {expected}");
        }
    }

    #[test]
    fn crawlers_and_news_are_what_they_are_called() {
        let counts = counts(Synthetic::zipf(100, 1.0).requests(10_000).scan(0.2));
        let crawled: Vec<_> = counts.iter().filter(|(path, _)| path.starts_with("/crawled")).collect();
        assert!((1900..2100).contains(&crawled.len()) && crawled.iter().all(|(_, count)| **count == 1));
        let mut loops = Synthetic::cyclic(3).requests(7).shift(5);
        let paths: Vec<_> = loops.by_ref().map(|access| access.expect("it is a path").uri.to_string()).collect();
        assert_eq!(paths, ["/items/0", "/items/1", "/items/2", "/items/0", "/items/1", "/items/0", "/items/1"]);
    }

    #[test]
    fn sizes_are_between_their_bounds_and_of_the_key() {
        let trace = Synthetic::zipf(1000, 0.0).requests(10_000).sizes(Sizes::Between(100, 1600));
        let mut sizes = HashMap::new();
        for access in trace.map(|access| access.expect("it is a path")) {
            assert!((100..=1600).contains(&access.bytes), "{}", access.bytes);
            assert_eq!(*sizes.entry(access.uri).or_insert(access.bytes), access.bytes);
        }
        let small = sizes.values().filter(|size| **size < 400).count() as f64 / sizes.len() as f64;
        assert!((0.4..0.6).contains(&small), "half of them are below the middle: {small}");
    }

    #[test]
    fn settings_out_of_range_are_no_panic() {
        let odd =
            Synthetic::zipf(0, f64::NAN).rate(0.0).scan(f64::NAN).shift(0).sizes(Sizes::Between(9, 3)).requests(3);
        assert_eq!(odd.count(), 3);
        assert_eq!(Synthetic::zipf(5, f64::MAX).rate(f64::MIN_POSITIVE).requests(3).count(), 3);
    }
}
