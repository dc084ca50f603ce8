//! [`Server`]: what all connections know of the server together: which one it is, how far its purge log is, and what its clock says.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::hello::Told;
use super::settings::Settings;
use crate::clock::{Clock, Moment};
use crate::record::ClockShift;

pub(super) struct Server {
    pub(super) settings: Settings,
    clock: Arc<dyn Clock>,
    last: Mutex<Last>,
    /// How many servers were found behind the address, one after another; two connections of one number have found the same.
    generation: AtomicU64,
    /// The newest number of the purge log that was heard of.
    known: AtomicU64,
    /// What its clock is ahead of ours, in nanoseconds.
    ahead: AtomicI64,
    connections: AtomicU64,
}

#[derive(Default)]
struct Last {
    run: Box<[u8]>,
    reading: Option<Reading>,
}

/// What its clock was seen to be ahead of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reading {
    /// In nanoseconds.
    ahead: i64,
    /// How long question and answer took; it was read at any time between.
    trip: Duration,
}

/// So many purges lie between what is known of an epoch and the next one's beginning, or as many as fit into the time; `lua/epoch.lua` has the same.
const APART: u64 = 1 << 20;

/// A reading that took no longer is good enough.
const GOOD: Duration = Duration::from_millis(10);

impl Server {
    pub(super) fn new(settings: Settings, clock: Arc<dyn Clock>) -> Self {
        Self {
            settings,
            clock,
            last: Mutex::default(),
            generation: AtomicU64::new(0),
            known: AtomicU64::new(0),
            ahead: AtomicI64::new(0),
            connections: AtomicU64::new(0),
        }
    }

    pub(super) fn now(&self) -> Moment {
        self.clock.now()
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The newest number of the purge log that was heard of.
    pub(super) fn known(&self) -> u64 {
        self.known.load(Ordering::Acquire)
    }

    /// Whether a purge of this number is of an epoch that was heard of.
    pub(super) fn knows_epoch_of(&self, number: u64) -> bool {
        number < self.known().saturating_add(APART)
    }

    /// How many connections were made.
    pub(super) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    pub(super) fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// What lies between our clock and its.
    pub(super) fn shift(&self) -> ClockShift {
        let ahead = self.ahead.load(Ordering::Relaxed);
        let distance = UNIX_EPOCH + Duration::from_nanos(ahead.unsigned_abs());
        if ahead < 0 { ClockShift::between(distance, UNIX_EPOCH) } else { ClockShift::between(UNIX_EPOCH, distance) }
    }

    /// What it said about itself when it was asked at `asked`. Returns its generation.
    pub(super) fn heard(&self, told: &Told, asked: Moment) -> u64 {
        let answered = self.now();
        self.known.fetch_max(told.number(), Ordering::AcqRel);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        self.measure(&mut last, told.time, asked, answered);
        if *last.run != *told.run {
            last.run = told.run.clone();
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
        self.generation()
    }

    fn measure(&self, last: &mut Last, its_time: SystemTime, asked: Moment, answered: Moment) {
        let trip = answered.monotonic.saturating_sub(asked.monotonic);
        let ours = nanoseconds(answered.wall) - i128::try_from(trip.as_nanos() / 2).unwrap_or_default();
        let ahead = i64::try_from(nanoseconds(its_time) - ours).unwrap_or_default();
        let reading = Reading { ahead, trip }.after(last.reading);
        last.reading = Some(reading);
        self.ahead.store(reading.ahead, Ordering::Relaxed);
    }
}

impl Reading {
    /// The one that counts. An earlier one stays while both may be right, so that times which are told there and back stay the same, unless it was a poor one.
    fn after(self, earlier: Option<Self>) -> Self {
        let stays = |earlier: &Self| {
            let unsure = (self.trip.saturating_add(earlier.trip) / 2).as_nanos();
            let is_good = earlier.trip <= GOOD.max(self.trip.saturating_mul(2));
            is_good && u128::from(self.ahead.abs_diff(earlier.ahead)) <= unsure
        };
        earlier.filter(stays).unwrap_or(self)
    }
}

fn nanoseconds(time: SystemTime) -> i128 {
    let magnitude = |duration: Duration| i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX);
    time.duration_since(UNIX_EPOCH).map_or_else(|before| -magnitude(before.duration()), magnitude)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_of_the_clock_stays_while_it_may_be_right() {
        let reading = |ahead: i64, trip| Reading { ahead: ahead * 1_000_000, trip: Duration::from_millis(trip) };
        let rows = [
            (reading(100, 2), reading(102, 2), reading(100, 2), "both may be right"),
            (reading(100, 2), reading(103, 2), reading(103, 2), "a clock was set"),
            (reading(100, 2), reading(50, 80), reading(50, 80), "far beyond what is unsure"),
            (reading(100, 2), reading(70, 80), reading(100, 2), "a slow answer says little"),
            (reading(100, 80), reading(70, 2), reading(70, 2), "the earlier one was poor"),
            (reading(100, 80), reading(70, 60), reading(100, 80), "and so is the later one"),
        ];
        for (earlier, later, expected, why) in rows {
            assert_eq!(later.after(Some(earlier)), expected, "{why}");
        }
        assert_eq!(reading(-5, 1).after(None), reading(-5, 1));
    }
}
