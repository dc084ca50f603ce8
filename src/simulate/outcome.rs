//! [`Outcome`]: what came of a simulation.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What a cache would have done with a trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// Requests in the trace.
    pub requests: u64,
    /// Bytes of content that clients got.
    pub bytes: u64,
    /// Requests that were answered from the store, fresh.
    pub hits: u64,
    /// Of [`hits`](Self::hits), those that the instance itself didn't have, and the far store did.
    pub far_hits: u64,
    /// Requests that were answered from the store though it was stale: by stale-while-revalidate, or a rule that asks nobody.
    pub stale: u64,
    /// Requests for which the origin confirmed what is stored, without sending it again.
    pub revalidated: u64,
    /// Requests for which the origin made the answer.
    pub misses: u64,
    /// Of [`misses`](Self::misses), those whose answer wasn't stored: no rule gave it a lifetime, say.
    pub declined: u64,
    /// Requests that the cache kept out of: by their rule, their method, or whatever else.
    pub bypassed: u64,
    /// Requests that nobody was asked about (`cache_only`): 504.
    pub refused: u64,
    /// Bytes of content that clients got from the store.
    pub hit_bytes: u64,
    /// Successful writes, each of which invalidated something or could have.
    pub invalidations: u64,
    /// Requests to the origin, with refreshes behind answers.
    pub origin_requests: u64,
    /// Of [`origin_requests`](Self::origin_requests), those behind answers.
    pub refreshes: u64,
    /// Bytes of content that the origin sent.
    pub origin_bytes: u64,
    /// The most requests that the origin got in any second.
    pub origin_peak: u64,
    /// The most requests in any second of the trace: what the origin would get without a cache.
    pub peak: u64,
    /// From the first request to the last one.
    pub duration: Duration,
    /// Entries in the memory of all instances at the end.
    pub entries: u64,
    /// Bytes in the memory of all instances at the end, counted as the store counts them against its capacity.
    pub stored_bytes: u64,
    /// The most bytes that they ever had.
    pub peak_stored_bytes: u64,
    /// Entries that left for want of room.
    pub evictions: u64,
    /// Entries in the far store at the end.
    pub far_entries: u64,
    /// Bytes in the far store at the end, likewise.
    pub far_bytes: u64,
}

impl Outcome {
    /// Of the requests that were looked up, the part that the origin didn't have to make an answer for: as
    /// [`Stats::hit_rate`](crate::Stats::hit_rate) counts in the running cache.
    pub fn hit_rate(&self) -> f64 {
        let answered = self.hits + self.stale + self.revalidated;
        part(answered, answered + self.misses)
    }

    /// Of all bytes that clients got, the part that came from the store.
    pub fn byte_hit_rate(&self) -> f64 {
        part(self.hit_bytes, self.bytes)
    }

    /// How many requests to the origin there were for each request of the trace; without a cache, one.
    pub fn origin_rate(&self) -> f64 {
        part(self.origin_requests, self.requests)
    }
}

fn part(some: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { some as f64 / all as f64 }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.duration.as_secs_f64().max(1.0);
        writeln!(f, "requests        {} in {:.0?}, {} bytes", self.requests, self.duration, self.bytes)?;
        writeln!(f, "hit rate        {:.4}", self.hit_rate())?;
        writeln!(f, "byte hit rate   {:.4}", self.byte_hit_rate())?;
        let Self { hits, far_hits, stale, revalidated, misses, declined, bypassed, refused, .. } = self;
        writeln!(
            f,
            "hits            {hits}, {far_hits} of them from the far store; {stale} stale, {revalidated} confirmed"
        )?;
        writeln!(f, "misses          {misses}, {declined} of them not stored; {bypassed} bypassed, {refused} refused")?;
        let (all, each_second) = (self.origin_requests, self.origin_requests as f64 / seconds);
        writeln!(
            f,
            "origin          {all} requests, {:.4} for each one; {} of them refreshes",
            self.origin_rate(),
            self.refreshes
        )?;
        let (peak, alone) = (self.origin_peak, self.peak);
        writeln!(f, "                {each_second:.2} a second, at most {peak} in one (without a cache {alone})")?;
        writeln!(f, "                {} bytes", self.origin_bytes)?;
        let (entries, bytes, most) = (self.entries, self.stored_bytes, self.peak_stored_bytes);
        write!(f, "memory          {entries} entries, {bytes} bytes, at most {most}; {} evictions", self.evictions)?;
        if self.far_entries > 0 {
            write!(f, "\nfar store       {} entries, {} bytes", self.far_entries, self.far_bytes)?;
        }
        Ok(())
    }
}

/// What is counted while the trace passes.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) outcome: Outcome,
    first: Option<SystemTime>,
    asked: PerSecond,
    origin: PerSecond,
}

/// Requests by second. The one of now is counted until another one begins.
#[derive(Debug, Default)]
struct PerSecond {
    now: (u64, u64),
    most: u64,
}

impl PerSecond {
    fn count(&mut self, time: SystemTime) {
        let second = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if self.now.0 != second {
            self.now = (second, 0);
        }
        self.now.1 += 1;
        self.most = self.most.max(self.now.1);
    }
}

impl Tally {
    pub(super) fn request(&mut self, time: SystemTime, bytes: u64) {
        self.outcome.requests += 1;
        self.outcome.bytes = self.outcome.bytes.saturating_add(bytes);
        self.asked.count(time);
        let first = *self.first.get_or_insert(time);
        self.outcome.duration = time.duration_since(first).unwrap_or_default();
    }

    pub(super) fn hit_bytes(&mut self, bytes: u64) {
        self.outcome.hit_bytes = self.outcome.hit_bytes.saturating_add(bytes);
    }

    pub(super) fn origin(&mut self, time: SystemTime, bytes: u64) {
        self.outcome.origin_requests += 1;
        self.outcome.origin_bytes = self.outcome.origin_bytes.saturating_add(bytes);
        self.origin.count(time);
    }

    pub(super) fn finish(mut self) -> Outcome {
        self.outcome.peak = self.asked.most;
        self.outcome.origin_peak = self.origin.most;
        self.outcome
    }
}

/// The sizes of contents that are known, by a hash of their URI, and what others are guessed to be.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    known: HashMap<u64, u64>,
    sum: u64,
    count: u64,
}

impl Sizes {
    pub(super) fn note(&mut self, resource: u64, bytes: u64) {
        self.known.insert(resource, bytes);
        self.sum = self.sum.saturating_add(bytes);
        self.count += 1;
    }

    pub(super) fn known(&self, resource: u64) -> Option<u64> {
        self.known.get(&resource).copied()
    }

    /// The mean of all.
    pub(super) fn guess(&self) -> u64 {
        self.sum.checked_div(self.count).unwrap_or_default()
    }
}
