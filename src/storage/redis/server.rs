//! [`Server`]: what all connections know of the server together: which one it is, how far its purge log is, and what its clock says.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::Client;

use super::hello::Told;
use super::settings::Settings;
use crate::clock::{Clock, Moment};
use crate::record::ClockShift;

pub(super) struct Server {
    pub(super) settings: Settings,
    pub(super) client: Client,
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
    /// How good the measure of its clock is, and when it was taken.
    clock: Option<(Duration, Duration)>,
}

/// For so long a measure of the clock isn't replaced by a worse one.
const GOOD_FOR: Duration = Duration::from_secs(60);

impl Server {
    pub(super) fn new(settings: Settings, client: Client, clock: Arc<dyn Clock>) -> Self {
        Self {
            settings,
            client,
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
        let is_better = last.clock.is_none_or(|(best, at)| {
            trip <= best.saturating_mul(2) || answered.monotonic.saturating_sub(at) > GOOD_FOR
        });
        if is_better {
            last.clock = Some((trip, answered.monotonic));
            let ours = nanoseconds(answered.wall) - i128::try_from(trip.as_nanos() / 2).unwrap_or_default();
            let ahead = nanoseconds(its_time) - ours;
            self.ahead.store(i64::try_from(ahead).unwrap_or_default(), Ordering::Relaxed);
        }
    }
}

fn nanoseconds(time: SystemTime) -> i128 {
    let magnitude = |duration: Duration| i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX);
    time.duration_since(UNIX_EPOCH).map_or_else(|before| -magnitude(before.duration()), magnitude)
}
