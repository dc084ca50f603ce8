//! The `Cache-Status` of a plain hit, made once for each remaining lifetime: nothing else in it differs between hits, and to write it anew is a
//! good part of what a hit costs.

use std::sync::OnceLock;

use bytes::Bytes;
use http::HeaderValue;

use crate::outcome::{CacheOutcome, Outcome};

/// How many are made at a time, and how many times at most: lifetimes of up to 4095 seconds. Of longer ones there are too many.
const CHUNK: usize = 64;

/// Values for one cache name. They live as long as the process, so that cores don't share counters of references to them; that is at most some
/// 100 kB for a name.
#[derive(Debug)]
pub(crate) struct HitStatus {
    name: String,
    chunks: [OnceLock<Box<[HeaderValue]>>; CHUNK],
}

impl HitStatus {
    pub(crate) fn of(name: &str) -> Self {
        Self { name: name.into(), chunks: [const { OnceLock::new() }; CHUNK] }
    }

    /// The name under which the cache speaks.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The value for `outcome`, if it is a plain hit and is one of those that are kept.
    pub(crate) fn get(&self, outcome: &CacheOutcome) -> Option<HeaderValue> {
        if outcome.outcome != Outcome::Hit || outcome.stored.is_some() {
            return None;
        }
        let ttl = usize::try_from(outcome.ttl?).ok()?;
        let chunk = self.chunks.get(ttl / CHUNK)?.get_or_init(|| self.chunk(ttl / CHUNK, outcome));
        chunk.get(ttl % CHUNK).cloned()
    }

    fn chunk(&self, number: usize, outcome: &CacheOutcome) -> Box<[HeaderValue]> {
        let value = |ttl: usize| {
            let outcome = CacheOutcome { ttl: i64::try_from(ttl).ok(), ..*outcome };
            let text: &'static [u8] = Box::leak(outcome.cache_status(&self.name).to_vec().into_boxed_slice());
            HeaderValue::from_maybe_shared(Bytes::from_static(text)).ok()
        };
        (number * CHUNK..(number + 1) * CHUNK).map_while(value).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::outcome::StaleReason;

    #[test]
    fn it_says_what_is_said_without_it() {
        let status = HitStatus::of("edge");
        for ttl in [0, 1, 63, 64, 3599, 4095] {
            let hit = CacheOutcome::of_stored(Outcome::Hit, None, Duration::ZERO, Duration::from_secs(ttl));
            assert_eq!(status.get(&hit).unwrap().as_bytes(), hit.cache_status("edge").as_slice(), "{ttl}");
        }
    }

    #[test]
    fn what_isnt_a_plain_hit_is_not_its_business() {
        let status = HitStatus::of("edge");
        let of = |outcome, ttl| CacheOutcome { ttl, ..CacheOutcome::new(outcome, None) };
        for outcome in [
            of(Outcome::Hit, Some(4096)),
            of(Outcome::Hit, Some(-1)),
            of(Outcome::Hit, None),
            of(Outcome::Hit, Some(1)).stored(Ok(())),
            of(Outcome::Stale(StaleReason::MaxStale), Some(1)),
        ] {
            assert_eq!(status.get(&outcome), None, "{outcome:?}");
        }
    }
}
