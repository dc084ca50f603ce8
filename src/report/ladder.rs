//! [`Track`]: what longer lifetimes would have made of one key. For each lifetime of a ladder it plays a cache of its own on the fetches that really
//! happened: when it would have asked the handler, and whether it would have answered with old content meanwhile.
//!
//! A fetch is seen, a hit isn't, since hits cost nothing. That is enough:
//!
//! - Between the end of a response's lifetime and the next fetch there was no request.
//! - While it was fresh there may have been some. Where a longer lifetime would have ended in that time, one of them would have been a fetch; when, is drawn
//!   from how long requests for this key were in coming after other ends.

/// The lifetimes that are tried, in seconds.
pub(crate) const LIFETIMES: [u32; 16] =
    [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 10_800, 43_200, 86_400];

/// After so many waits the older ones count half, so that a key's habits may change.
const WAITS: u16 = 64;

/// A fetch of one key. Times are in milliseconds of one clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fetch {
    /// When it was asked for.
    pub(crate) asked: u64,
    /// When the answer came.
    pub(crate) received: u64,
    /// Its content, by a hash; `None` where it is the same as before.
    pub(crate) content: Option<u32>,
    /// For how long it is fresh; 0 where it isn't stored.
    pub(crate) lifetime: u64,
    /// The lifetime of what was stored is over, and nothing else is the reason. A purge, a write or a client that wants validation would have led to a
    /// fetch whatever the lifetime.
    pub(crate) ended: bool,
    /// A random number.
    pub(crate) chance: u64,
}

/// What one lifetime would have made of a fetch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Would {
    /// It would have been a hit.
    pub(crate) hit: bool,
    /// With other content than the handler's.
    pub(crate) stale: bool,
    /// One of the hits before it would have been a fetch.
    pub(crate) earlier: bool,
}

/// What a fetch tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Whether the content was another one than before, for the same end; `None` where that isn't known.
    pub(crate) changed: Option<bool>,
    pub(crate) would: [Would; LIFETIMES.len()],
}

#[derive(Debug)]
pub(crate) struct Track {
    content: u32,
    /// When what is stored stops to be fresh.
    ends: u64,
    /// How often a request came after an end, and after how long in all.
    waits: u16,
    waited: u64,
    rungs: [Rung; LIFETIMES.len()],
}

/// What a cache with another lifetime would have.
#[derive(Clone, Copy, Debug)]
struct Rung {
    since: u64,
    content: u32,
}

impl Track {
    /// The first fetch of a key.
    pub(crate) fn begin(fetch: &Fetch) -> Self {
        let content = fetch.content.unwrap_or_default();
        let rung = Rung { since: fetch.received, content };
        let ends = fetch.received.saturating_add(fetch.lifetime);
        Self { content, ends, waits: 0, waited: 0, rungs: [rung; LIFETIMES.len()] }
    }

    /// When what was fetched last stops to be fresh.
    pub(crate) fn ends(&self) -> u64 {
        self.ends
    }

    /// Another fetch.
    pub(crate) fn fetch(&mut self, fetch: &Fetch) -> Told {
        let mut told = Told::default();
        let content = fetch.content.unwrap_or(self.content);
        let rung = Rung { since: fetch.received, content };
        if fetch.ended {
            told.changed = Some(content != self.content);
            self.note_wait(fetch.asked.saturating_sub(self.ends));
            // Where it was refreshed before its end, requests are seen from then on.
            let unseen_until = self.ends.min(fetch.asked);
            for ((would, lifetime), virtually) in told.would.iter_mut().zip(LIFETIMES).zip(&mut self.rungs) {
                let lifetime = u64::from(lifetime) * 1000;
                let mut end = virtually.since.saturating_add(lifetime);
                if end < unseen_until {
                    let earlier = end.saturating_add(drawn(fetch.chance, self.waits, self.waited));
                    if earlier < unseen_until {
                        would.earlier = true;
                        *virtually = Rung { since: earlier, content: self.content };
                        end = earlier.saturating_add(lifetime);
                    }
                }
                would.hit = fetch.asked < end;
                would.stale = would.hit && virtually.content != content;
                if !would.hit {
                    *virtually = rung;
                }
            }
        } else {
            self.rungs = [rung; LIFETIMES.len()];
        }
        self.content = content;
        self.ends = fetch.received.saturating_add(fetch.lifetime);
        told
    }

    fn note_wait(&mut self, wait: u64) {
        if self.waits >= WAITS {
            (self.waits, self.waited) = (self.waits / 2, self.waited / 2);
        }
        self.waits += 1;
        self.waited += wait.max(1);
    }
}

/// How long one waits for a request, where `waits` took `waited` together: requests that come independently of each other at an unknown rate, which is
/// what these waits say of it (the predictive distribution of an exponential one, after Lomax).
fn drawn(chance: u64, waits: u16, waited: u64) -> u64 {
    if waits == 0 {
        return u64::MAX;
    }
    let unit = (chance >> 11) as f64 / (1_u64 << 53) as f64;
    let factor = (1.0 - unit).powf(-1.0 / f64::from(waits)) - 1.0;
    (waited as f64 * factor) as u64
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn at(seconds: u64, content: u32, lifetime: u64) -> Fetch {
        let at = seconds * 1000;
        let (lifetime, content) = (lifetime * 1000, Some(content));
        Fetch { asked: at, received: at, content, lifetime, ended: true, chance: 1 << 62 }
    }

    fn would(told: &Told, lifetime: u32) -> Would {
        told.would[LIFETIMES.iter().position(|known| *known == lifetime).unwrap()]
    }

    const HIT: Would = Would { hit: true, stale: false, earlier: false };
    const STALE: Would = Would { hit: true, stale: true, earlier: false };
    const FETCH: Would = Would { hit: false, stale: false, earlier: false };

    #[test]
    fn what_is_not_stored_shows_each_request() {
        // When, with which content, and what lifetimes of 5, 10 and 60 seconds make of it.
        let rows = [
            (4, 1, [HIT, HIT, HIT]),
            (5, 1, [FETCH, HIT, HIT]),
            (9, 2, [STALE, STALE, STALE]),
            (10, 2, [FETCH, FETCH, STALE]),
            (20, 2, [FETCH, FETCH, STALE]),
            (61, 2, [FETCH, FETCH, FETCH]),
            (62, 1, [STALE, STALE, STALE]),
        ];
        let mut track = Track::begin(&at(0, 1, 0));
        let mut last = 1;
        for (second, content, expected) in rows {
            let told = track.fetch(&at(second, content, 0));
            assert_eq!([5, 10, 60].map(|lifetime| would(&told, lifetime)), expected, "at {second}");
            assert_eq!(told.changed, Some(content != last));
            last = content;
        }
    }

    #[test]
    fn a_fetch_that_no_lifetime_would_have_spared_begins_all_anew() {
        let mut track = Track::begin(&at(0, 1, 0));
        let told = track.fetch(&Fetch { ended: false, ..at(3, 2, 0) });
        assert_eq!((told.changed, would(&told, 60)), (None, FETCH));
        assert_eq!(would(&track.fetch(&at(4, 2, 0)), 60), HIT, "with the content of after");
        assert_eq!(would(&track.fetch(&at(62, 2, 0)), 60), HIT);
        assert_eq!(would(&track.fetch(&at(63, 2, 0)), 60), FETCH);
        let confirmed = Fetch { content: None, ..at(64, 9, 0) };
        assert_eq!(track.fetch(&confirmed).changed, Some(false));
    }

    #[test]
    fn where_a_longer_lifetime_ends_among_hits_that_nobody_saw_one_of_them_is_a_fetch() {
        let mut track = Track::begin(&at(0, 1, 9));
        assert_eq!(would(&track.fetch(&at(9, 1, 9)), 10), HIT, "and requests come as soon as they can");
        // The one of 10 s ended at 10; the next fetch that was seen is at 18.
        let told = track.fetch(&at(18, 1, 9));
        assert_eq!(would(&told, 10), Would { earlier: true, ..HIT });
        assert_eq!(would(&told, 20), HIT);
        // A key that is asked for once an hour has no hits.
        let mut track = Track::begin(&at(0, 1, 9));
        assert_eq!(would(&track.fetch(&at(3600, 1, 9)), 10), FETCH);
        assert_eq!(would(&track.fetch(&at(3609, 1, 9)), 10), HIT);
        assert_eq!(would(&track.fetch(&at(7200, 1, 9)), 10), FETCH);
    }

    /// Requests for many keys, some often and most seldom, at random times; the same for the same seed. In milliseconds, with the key.
    fn traffic(seed: u64, keys: usize, requests: usize) -> Vec<(u64, usize)> {
        let hasher = ahash::RandomState::with_seeds(seed, 2, 3, 4);
        let unit = |n: usize, what: &str| (hasher.hash_one((n, what)) >> 11) as f64 / (1_u64 << 53) as f64;
        let weights: Vec<f64> = (1..=keys).map(|rank| 1.0 / rank as f64).collect();
        let all: f64 = weights.iter().sum();
        let mut now = 0.0;
        (0..requests)
            .map(|n| {
                now -= 100.0 * (1.0 - unit(n, "when")).ln();
                let mut point = all * unit(n, "what");
                let key = weights.iter().position(|weight| {
                    point -= weight;
                    point < 0.0
                });
                (now as u64, key.unwrap_or_default())
            })
            .collect()
    }

    /// Fetches of a cache with this lifetime; each is shown to `fetched`, with its time and its key.
    fn fetches(traffic: &[(u64, usize)], lifetime: u64, mut fetched: impl FnMut(u64, usize)) -> usize {
        let (mut ends, mut count) = (HashMap::new(), 0);
        for (now, key) in traffic {
            if ends.get(key).is_none_or(|end| now >= end) {
                ends.insert(*key, now + lifetime);
                count += 1;
                fetched(*now, *key);
            }
        }
        count
    }

    #[test]
    fn the_hit_rate_of_every_longer_lifetime_is_predicted_within_half_a_point() {
        for (seed, keys, current) in
            [(1, 50, 5), (2, 50, 10), (3, 500, 10), (4, 500, 30), (5, 5000, 30), (6, 5000, 120), (7, 500, 0)]
        {
            let traffic = traffic(seed, keys, 20_000);
            let mut tracks: HashMap<usize, Track> = HashMap::new();
            let (mut saved, chances) = ([0_i64; LIFETIMES.len()], ahash::RandomState::with_seeds(9, seed, 9, 9));
            let seen = fetches(&traffic, current * 1000, |now, key| {
                let fetch = Fetch { chance: chances.hash_one((now, key)), ..at(0, 1, current) };
                let fetch = Fetch { asked: now, received: now, ..fetch };
                match tracks.get_mut(&key) {
                    Some(track) => {
                        let told = track.fetch(&fetch);
                        for (saved, would) in saved.iter_mut().zip(told.would) {
                            *saved += i64::from(would.hit) - i64::from(would.earlier);
                        }
                    }
                    None => drop(tracks.insert(key, Track::begin(&fetch))),
                }
            });
            for (lifetime, saved) in LIFETIMES.iter().zip(saved).filter(|(lifetime, _)| u64::from(**lifetime) > current)
            {
                let real = fetches(&traffic, u64::from(*lifetime) * 1000, |_, _| ());
                let rate = |fetches: f64| 100.0 * (1.0 - fetches / traffic.len() as f64);
                let (real, predicted) = (rate(real as f64), rate((seen as i64 - saved) as f64));
                let what = format!("{keys} keys, {current} s -> {lifetime} s: {predicted:.2} %, {real:.2} %");
                assert!((predicted - real).abs() <= 0.5, "{what}");
            }
        }
    }
}
