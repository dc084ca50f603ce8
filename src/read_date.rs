//! [`ReadDate`]: a date of a field, as stored heads keep it.

use std::num::NonZeroU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::rfc9111::date::unix_seconds;

/// A date of a field, in half of the memory: those are seconds since 1970. One more than that, so that nothing else is needed to say that there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReadDate(Option<NonZeroU64>);

impl ReadDate {
    pub(crate) fn of(date: Option<SystemTime>) -> Self {
        Self(date.and_then(|date| NonZeroU64::new(unix_seconds(date).saturating_add(1))))
    }

    pub(crate) fn get(self) -> Option<SystemTime> {
        self.0.and_then(|date| UNIX_EPOCH.checked_add(Duration::from_secs(date.get() - 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_kept_to_the_second_and_those_that_are_none_are_none() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        for date in [None, Some(at(0)), Some(at(784_111_777)), Some(at(253_402_300_799))] {
            assert_eq!(ReadDate::of(date).get(), date);
        }
    }
}
