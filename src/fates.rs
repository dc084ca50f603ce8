//! [`Fates`]: what last became of each key, as far as that is remembered, so that a miss can say why it is one.
//!
//! A hint and no more: nothing is served, stored or purged by it. It is bounded, takes no lock, and what is newer pushes out what shares its place.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::clock::{Clock, Moment};
use crate::key::CacheKey;
use crate::rfc9111::storability::DeclineReason;
use crate::words::every;

/// What last became of a key, and how long ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fate {
    /// What became of it.
    pub became: Became,
    /// How long ago, in whole seconds.
    pub ago: Duration,
}

/// What can become of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Became {
    /// An answer was stored under it.
    Stored,
    /// What was stored had to go, since there was no room.
    Evicted,
    /// What was stored went when it was of no use any more: neither fresh nor to be served stale or validated.
    Expired,
    /// What was stored was purged.
    Purged {
        /// The number of the purge, as in its [`Receipt`](crate::Receipt); `None` where it isn't known.
        number: Option<u64>,
    },
    /// What was stored was made invalid by a write (RFC 9111 §4.4).
    Written,
    /// An answer was not stored.
    Declined(DeclineReason),
    /// What was stored was dropped for another reason: the handler's answer spoke against it, or its principal has a quota.
    Dropped,
}

#[cfg(any(feature = "admin", feature = "data"))]
impl Became {
    /// The word for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Evicted => "evicted",
            Self::Expired => "expired",
            Self::Purged { .. } => "purged",
            Self::Written => "written",
            Self::Declined(_) => "declined",
            Self::Dropped => "dropped",
        }
    }
}

/// Why a request couldn't be answered from the store: what had become of what it asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MissCause {
    /// Nobody asked for it before, as far as is remembered.
    FirstSeen,
    /// Its time was over.
    Expired,
    /// It was evicted since there was no room.
    Evicted,
    /// It was purged.
    Purged,
    /// A write had made it invalid.
    Written,
    /// Another variant is stored, and not the one that was asked for.
    Variant,
    /// The last answer was not stored.
    Declined,
    /// The settings or the rule are other ones now, and forbid to use what is stored.
    Settings,
    /// The client wanted it anew, what is stored wants to be validated on each use, or the strategy asks the handler first.
    Asked,
    /// Whether another instance has purged it isn't known, so it wasn't looked for.
    Distrusted,
    /// It was stored, and is gone: dropped for what an answer said or for a quota, or a store of one's own let go of it without saying why.
    Lost,
}

every!(MissCause: FirstSeen Expired Evicted Purged Written Variant Declined Settings Asked Distrusted Lost);

impl MissCause {
    /// A short name that doesn't change, for metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FirstSeen => "first-seen",
            Self::Expired => "expired",
            Self::Evicted => "evicted",
            Self::Purged => "purged",
            Self::Written => "written",
            Self::Variant => "variant",
            Self::Declined => "declined",
            Self::Settings => "settings",
            Self::Asked => "asked",
            Self::Distrusted => "distrusted",
            Self::Lost => "lost",
        }
    }
}

/// How many keys are remembered, at 16 bytes each: 1 MiB when all are.
const PLACES: usize = 1 << 16;

/// Places are made so many at a time, when the first of them is needed: a cache of a few keys needs little memory for this.
const TOGETHER: usize = 64;

/// The fates of keys, each at the place that its hash gives.
///
/// A place is two words: what became of the key, and that combined with the hash. Who reads two halves of different writes, or what another key left,
/// finds no hash that fits. A wrong answer takes two keys with equal hashes of 64 bits, which nobody outside can make, since the hash has a secret key: among a million
/// keys the odds are one in 37 million that there is such a pair at all.
pub(crate) struct Fates {
    chunks: Box<[OnceLock<Box<[Place; TOGETHER]>>]>,
    /// The number of the newest purge of everything, counted from `base`.
    all: AtomicU64,
    /// Numbers are counted from here: from the beginning of the epoch, where a log numbers purges.
    base: AtomicU64,
    hasher: ahash::RandomState,
    clock: Arc<dyn Clock>,
}

#[derive(Default)]
struct Place {
    said: AtomicU64,
    /// The hash of the key, combined with `said`.
    check: AtomicU64,
}

/// A fate with the number that goes with it, counted from the base: of the newest purge when something was asked for that is stored, or of the purge.
#[derive(Clone, Copy)]
struct Entry {
    became: Became,
    number: u32,
    second: u64,
}

const NUMBER_BITS: u32 = 32;
const SECOND_BITS: u32 = 28;

impl Fates {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let chunks = (0..PLACES / TOGETHER).map(|_| OnceLock::new()).collect();
        Self { chunks, all: AtomicU64::new(0), base: AtomicU64::new(0), hasher: ahash::RandomState::new(), clock }
    }

    /// What last became of a key; `None` where nothing is remembered.
    pub(crate) fn of(&self, key: &CacheKey) -> Option<Fate> {
        let own = self.get(self.id(key.as_bytes()))?;
        // A purge or a write that knew the resource and not its keys.
        let parts = [key.resource(), key.path_and_query()].into_iter().filter(|_| own.became == Became::Stored);
        let later = parts.filter_map(|part| self.get(self.id_of_part(part))).filter(|part| part.number > own.number);
        let entry = later.max_by_key(|part| part.number).unwrap_or(own);
        let ago = Duration::from_secs(second(self.clock.now()).saturating_sub(entry.second));
        let all = self.all.load(Ordering::Relaxed);
        let is_purged = entry.became == Became::Stored && all > u64::from(entry.number);
        let became = if is_purged { Became::Purged { number: Some(all) } } else { entry.became };
        Some(Fate { became: self.as_told(became), ago })
    }

    /// This became of a key.
    pub(crate) fn note(&self, key: &[u8], became: Became) {
        self.set(self.id(key), became, 0);
    }

    /// The sweep found that what is stored under a key had been purged. That is some time ago; what is known to have become of the key since is newer.
    pub(crate) fn note_swept(&self, key: &[u8]) {
        let id = self.id(key);
        if self.get(id).is_none_or(|entry| entry.became == Became::Stored) {
            self.set(id, Became::Purged { number: None }, 0);
        }
    }

    /// Something is stored that was asked for when the newest purge was `number`. To be said before it is there: it may leave at once.
    pub(crate) fn note_stored(&self, key: &CacheKey, number: u64) {
        self.note_stored_at(key, number, self.clock.now());
    }

    /// The same for somebody who knows what time it is.
    pub(crate) fn note_stored_at(&self, key: &CacheKey, number: u64, now: Moment) {
        self.set_at(self.id(key.as_bytes()), Became::Stored, number, now);
    }

    /// This became of whatever has this [resource](CacheKey::resource) or this path and query, and was asked for before purge `number`.
    pub(crate) fn note_part(&self, part: &[u8], became: Became, number: u64) {
        self.set(self.id_of_part(part), became, number);
    }

    /// Everything was purged by `number`.
    pub(crate) fn note_all(&self, number: u64) {
        self.all.fetch_max(u64::from(self.counted(number)), Ordering::Relaxed);
    }

    /// From now on purges have numbers beyond `base`, and what was purged or stored before says nothing of what is there now: all counts as purged.
    pub(crate) fn begin_epoch(&self, base: u64) {
        self.base.store(base, Ordering::Relaxed);
        self.all.store(0, Ordering::Relaxed);
        for place in self.chunks.iter().filter_map(OnceLock::get).flat_map(|chunk| chunk.iter()) {
            place.said.store(0, Ordering::Relaxed);
        }
    }

    fn set(&self, id: u64, became: Became, number: u64) {
        self.set_at(id, became, number, self.clock.now());
    }

    fn set_at(&self, id: u64, became: Became, number: u64, now: Moment) {
        let number = if let Became::Purged { number: Some(number) } = became { number } else { number };
        let number = self.counted(number);
        let said = Entry { became, number, second: second(now) }.packed();
        let place =
            &self.chunk(id).get_or_init(|| Box::new(std::array::from_fn(|_| Place::default())))[id as usize % TOGETHER];
        place.said.store(said, Ordering::Relaxed);
        place.check.store(id ^ said, Ordering::Relaxed);
    }

    fn get(&self, id: u64) -> Option<Entry> {
        let place = &self.chunk(id).get()?[id as usize % TOGETHER];
        let (said, check) = (place.said.load(Ordering::Relaxed), place.check.load(Ordering::Relaxed));
        (said != 0 && check ^ said == id).then(|| Entry::unpacked(said)).flatten()
    }

    fn chunk(&self, id: u64) -> &OnceLock<Box<[Place; TOGETHER]>> {
        &self.chunks[id as usize / TOGETHER % self.chunks.len()]
    }

    fn id(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one((0u8, key))
    }

    fn id_of_part(&self, part: &[u8]) -> u64 {
        self.hasher.hash_one((1u8, part))
    }

    /// Four thousand million purges of an epoch are as far as it counts.
    fn counted(&self, number: u64) -> u32 {
        u32::try_from(number.saturating_sub(self.base.load(Ordering::Relaxed))).unwrap_or(u32::MAX)
    }

    fn as_told(&self, became: Became) -> Became {
        match became {
            Became::Purged { number } => {
                Became::Purged { number: number.map(|number| number.saturating_add(self.base.load(Ordering::Relaxed))) }
            }
            other => other,
        }
    }
}

fn second(now: Moment) -> u64 {
    now.monotonic.as_secs().min((1 << SECOND_BITS) - 1)
}

impl Entry {
    /// Never zero: that is an empty place.
    fn packed(self) -> u64 {
        let (kind, number) = match self.became {
            Became::Stored => (1, self.number),
            Became::Evicted => (2, 0),
            Became::Expired => (3, 0),
            Became::Purged { .. } => (4, self.number),
            Became::Written => (5, self.number),
            Became::Declined(reason) => (6, reason as u32),
            Became::Dropped => (7, 0),
        };
        kind << (NUMBER_BITS + SECOND_BITS) | self.second << NUMBER_BITS | u64::from(number)
    }

    fn unpacked(said: u64) -> Option<Self> {
        let number = said as u32;
        let became = match said >> (NUMBER_BITS + SECOND_BITS) {
            1 => Became::Stored,
            2 => Became::Evicted,
            3 => Became::Expired,
            4 => Became::Purged { number: Some(u64::from(number)).filter(|_| !matches!(number, 0 | u32::MAX)) },
            5 => Became::Written,
            6 => Became::Declined(*DeclineReason::ALL.get(number as usize)?),
            7 => Became::Dropped,
            _ => return None,
        };
        Some(Self { became, number, second: said >> NUMBER_BITS & ((1 << SECOND_BITS) - 1) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::key::Part;

    fn fates() -> (Fates, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::default());
        (Fates::new(clock.clone()), clock)
    }

    fn key(path: &str) -> CacheKey {
        CacheKey::new(b"h", path, None)
    }

    #[test]
    fn each_fate_is_remembered_with_its_time() {
        let (fates, clock) = fates();
        let all =
            [Became::Evicted, Became::Expired, Became::Written, Became::Dropped, Became::Purged { number: Some(7) }]
                .into_iter()
                .chain(DeclineReason::ALL.map(Became::Declined));
        assert_eq!(fates.of(&key("/a")), None);
        for became in all {
            fates.note(key("/a").as_bytes(), became);
            clock.advance(Duration::from_millis(90_500));
            assert_eq!(fates.of(&key("/a")).map(|fate| fate.became), Some(became));
            // Whole seconds at both ends: up to one more.
            assert!(fates.of(&key("/a")).is_some_and(|fate| (90..=91).contains(&fate.ago.as_secs())));
        }
        assert_eq!(fates.of(&key("/b")), None);
    }

    #[test]
    fn a_purge_of_a_resource_counts_for_what_was_asked_for_before_it() {
        let (fates, _) = fates();
        let mut with_field = key("/a");
        with_field.push(Part::Partition, &[1; 16]);
        fates.note_stored(&with_field, 4);
        assert_eq!(fates.of(&with_field).map(|fate| fate.became), Some(Became::Stored));
        fates.note_part(key("/a").resource(), Became::Written, 5);
        assert_eq!(fates.of(&with_field).map(|fate| fate.became), Some(Became::Written));
        fates.note_part(key("/a").resource(), Became::Purged { number: None }, 6);
        assert_eq!(fates.of(&with_field).map(|fate| fate.became), Some(Became::Purged { number: Some(6) }));
        fates.note_stored(&with_field, 6);
        assert_eq!(fates.of(&with_field).map(|fate| fate.became), Some(Became::Stored), "asked for after it");
        fates.note_part(key("/a").path_and_query(), Became::Written, 7);
        assert_eq!(fates.of(&with_field).map(|fate| fate.became), Some(Became::Written), "on every host");
        fates.note_all(8);
        fates.note_stored(&with_field, 7);
        assert_eq!(fates.of(&with_field).map(|fate| fate.became), Some(Became::Purged { number: Some(8) }));
        fates.note(with_field.as_bytes(), Became::Evicted);
        fates.note_part(key("/a").resource(), Became::Written, 9);
        assert_eq!(fates.of(&with_field).map(|fate| fate.became), Some(Became::Evicted), "it was gone before");
    }

    #[test]
    fn many_keys_are_remembered_rightly_or_not_at_all() {
        let (fates, _) = fates();
        let path = |n: usize| format!("/{n}");
        let became = |n: usize| Became::Declined(DeclineReason::ALL[n % DeclineReason::ALL.len()]);
        let many = 3 * PLACES;
        (0..many).for_each(|n| fates.note(key(&path(n)).as_bytes(), became(n)));
        let known = (0..many).filter_map(|n| fates.of(&key(&path(n))).map(|fate| (n, fate.became)));
        let (right, wrong): (Vec<_>, Vec<_>) = known.partition(|(n, said)| *said == became(*n));
        assert!(wrong.is_empty(), "{wrong:?}");
        assert!(right.len() > PLACES / 2, "{} of {PLACES} places are in use", right.len());
        assert!((many..2 * many).all(|n| fates.of(&key(&path(n))).is_none()), "never seen");
    }

    #[test]
    fn who_reads_while_others_write_gets_what_one_of_them_wrote() {
        let (fates, _) = fates();
        // Two keys that share a place.
        let place = |key: &CacheKey| fates.id(key.as_bytes()) as usize % PLACES;
        let first = key("/0");
        let second = (1..).map(|n| key(&format!("/{n}"))).find(|other| place(other) == place(&first)).expect("endless");
        std::thread::scope(|scope| {
            for (key, became) in [(&first, Became::Evicted), (&second, Became::Expired)] {
                let fates = &fates;
                scope.spawn(move || (0..20_000).for_each(|_| fates.note(key.as_bytes(), became)));
            }
            for _ in 0..20_000 {
                assert!(fates.of(&first).is_none_or(|fate| fate.became == Became::Evicted));
                assert!(fates.of(&second).is_none_or(|fate| fate.became == Became::Expired));
            }
        });
    }

    #[test]
    fn an_epoch_begins_with_nothing_and_numbers_are_told_in_whole() {
        let (fates, _) = fates();
        let [early, late] = [(7 << 32) + 4_000_000_000, 8 << 32];
        fates.begin_epoch(early);
        fates.note_stored(&key("/a"), early + 2);
        fates.note_all(early + 3);
        let purged = |number| Some(Became::Purged { number: Some(number) });
        assert_eq!(fates.of(&key("/a")).map(|fate| fate.became), purged(early + 3));
        fates.begin_epoch(late);
        assert_eq!(fates.of(&key("/a")), None);
        fates.note_stored(&key("/a"), late + 1);
        assert_eq!(fates.of(&key("/a")).map(|fate| fate.became), Some(Became::Stored));
        fates.note_part(key("/a").resource(), Became::Purged { number: Some(late + 5) }, late + 5);
        assert_eq!(fates.of(&key("/a")).map(|fate| fate.became), purged(late + 5));
    }
}
