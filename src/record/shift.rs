//! [`ClockShift`]: what lies between the clock of this machine and that of a store that several machines share.

use std::time::{Duration, SystemTime};

/// How far the wall clock of a store is ahead of that of this machine, or behind it. Records hold times of the store's clock, so that machines whose clocks
/// disagree agree on ages all the same.
///
/// ```
/// use std::time::{Duration, UNIX_EPOCH};
/// use larder::record::ClockShift;
/// let (own, of_the_store) = (UNIX_EPOCH + Duration::from_secs(100), UNIX_EPOCH + Duration::from_secs(400));
/// let shift = ClockShift::between(own, of_the_store);
/// assert_eq!(shift.to_store(own), of_the_store);
/// assert_eq!(shift.to_own(of_the_store), own);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockShift {
    /// How far they are apart.
    by: Duration,
    /// The store's is the one that is behind.
    is_behind: bool,
}

impl ClockShift {
    /// One clock for both: the store is on this machine, or has no clock.
    pub const NONE: Self = Self { by: Duration::ZERO, is_behind: false };

    /// What lies between two readings of the same moment.
    pub fn between(own: SystemTime, of_the_store: SystemTime) -> Self {
        match of_the_store.duration_since(own) {
            Ok(by) => Self { by, is_behind: false },
            Err(behind) => Self { by: behind.duration(), is_behind: true },
        }
    }

    /// A time of this machine's clock, as the store's clock has it.
    pub fn to_store(self, own: SystemTime) -> SystemTime {
        self.moved(own, !self.is_behind)
    }

    /// A time of the store's clock, as this machine's clock has it.
    pub fn to_own(self, of_the_store: SystemTime) -> SystemTime {
        self.moved(of_the_store, self.is_behind)
    }

    /// A time that can't be moved so far stays where it is; no clock says such a time.
    fn moved(self, time: SystemTime, forward: bool) -> SystemTime {
        let moved = if forward { time.checked_add(self.by) } else { time.checked_sub(self.by) };
        moved.unwrap_or(time)
    }
}
