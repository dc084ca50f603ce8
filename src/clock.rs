//! Where time comes from. The cache reads its [`Clock`] once for each request and passes the [`Moment`] on.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A point in time on both of a machine's clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Wall-clock time: what dates in fields are compared with. It may be set back or forward.
    pub wall: SystemTime,
    /// Time since some fixed start. It never goes back, but may stand still while the machine sleeps.
    pub monotonic: Duration,
}

impl Moment {
    /// How long ago `earlier` was: the larger of what the two clocks say, so that neither a clock set back nor a sleeping machine makes
    /// anything younger than it is.
    ///
    /// ```
    /// use std::time::{Duration, UNIX_EPOCH};
    /// use larder::Moment;
    /// let earlier = Moment { wall: UNIX_EPOCH + Duration::from_secs(100), monotonic: Duration::from_secs(1) };
    /// let set_back = Moment { wall: UNIX_EPOCH, monotonic: Duration::from_secs(4) };
    /// assert_eq!(set_back.since(earlier), Duration::from_secs(3));
    /// ```
    pub fn since(&self, earlier: Moment) -> Duration {
        let wall = self.wall.duration_since(earlier.wall).unwrap_or_default();
        wall.max(self.monotonic.saturating_sub(earlier.monotonic))
    }
}

/// A source of time. Closures that return a [`Moment`] are clocks.
pub trait Clock: Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> Moment;
}

impl<F: Fn() -> Moment + Send + Sync + 'static> Clock for F {
    fn now(&self) -> Moment {
        self()
    }
}

/// The machine's clocks; the default.
///
/// It reads the monotonic clock each time and the wall clock ten times a second at most, since reading both would be a tenth of what a hit
/// costs. A wall clock that is set is noticed after a tenth of a second.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
    /// When the wall clock was last read, in nanoseconds since `start`; zero if never.
    read: AtomicU64,
    /// What it would have said at `start`, in nanoseconds since 1970.
    wall_at_start: AtomicU64,
}

/// How long a reading of the wall clock is good for, in nanoseconds.
const GOOD_FOR: u64 = 100_000_000;

impl Default for SystemClock {
    fn default() -> Self {
        Self { start: Instant::now(), read: AtomicU64::new(0), wall_at_start: AtomicU64::new(0) }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Moment {
        let monotonic = self.start.elapsed();
        let nanoseconds = u64::try_from(monotonic.as_nanos()).unwrap_or(u64::MAX);
        let read = self.read.load(Ordering::Acquire);
        if read == 0 || nanoseconds.saturating_sub(read) > GOOD_FOR {
            let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let at_start = u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX).saturating_sub(nanoseconds);
            self.wall_at_start.store(at_start, Ordering::Relaxed);
            self.read.store(nanoseconds.max(1), Ordering::Release);
        }
        let wall = self.wall_at_start.load(Ordering::Relaxed).saturating_add(nanoseconds);
        Moment { wall: UNIX_EPOCH + Duration::from_nanos(wall), monotonic }
    }
}

/// A clock for tests: it stands still until it is told to move.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use larder::{CacheLayer, ManualClock};
/// let clock = Arc::new(ManualClock::default());
/// let layer = CacheLayer::in_memory(1 << 20).clock(clock.clone());
/// clock.advance(Duration::from_secs(60)); // everything stored is a minute older
/// # drop(layer);
/// ```
#[derive(Debug)]
pub struct ManualClock(Mutex<Moment>);

impl Default for ManualClock {
    /// Starts at 2026-01-01 00:00:00 UTC.
    fn default() -> Self {
        let wall = UNIX_EPOCH + Duration::from_secs(1_767_225_600);
        Self(Mutex::new(Moment { wall, monotonic: Duration::ZERO }))
    }
}

impl ManualClock {
    /// Moves both clocks forward.
    pub fn advance(&self, by: Duration) {
        self.with(|now| {
            now.wall += by;
            now.monotonic += by;
        });
    }

    /// Sets the wall clock, back or forward, as an operator or NTP would.
    pub fn set_wall(&self, wall: SystemTime) {
        self.with(|now| now.wall = wall);
    }

    fn with<R>(&self, change: impl FnOnce(&mut Moment) -> R) -> R {
        change(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Moment {
        self.with(|now| *now)
    }
}

impl<C: Clock + ?Sized> Clock for std::sync::Arc<C> {
    fn now(&self) -> Moment {
        (**self).now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_is_close_to_the_machines() {
        let clock = SystemClock::default();
        let (first, second) = (clock.now(), clock.now());
        assert!(second.monotonic >= first.monotonic && second.wall >= first.wall);
        let off = SystemTime::now().duration_since(second.wall).unwrap_or_else(|early| early.duration());
        assert!(off < Duration::from_secs(5), "{off:?}");
    }

    #[test]
    fn neither_clock_alone_makes_anything_younger() {
        let clock = ManualClock::default();
        let before = clock.now();
        clock.advance(Duration::from_secs(5));
        clock.set_wall(before.wall - Duration::from_secs(1000));
        assert_eq!(clock.now().since(before), Duration::from_secs(5));
        clock.set_wall(before.wall + Duration::from_secs(1000));
        assert_eq!(clock.now().since(before), Duration::from_secs(1000));
    }
}
