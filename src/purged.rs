//! [`Purged`]: the purges of one tag, resource or pattern, hard and soft; and what those come to for one response.

use std::time::Duration;

use crate::clock::Moment;

/// How hard a purge is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Force {
    /// What it touches is never served again.
    Hard,
    /// It is stale as of then.
    Soft(Moment),
}

/// The purges of one thing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Purged {
    /// The number of the newest hard one; 0 for none.
    hard: u64,
    /// The soft ones since, in order.
    soft: Box<[Soft]>,
}

#[derive(Clone, Copy, Debug)]
struct Soft {
    number: u64,
    at: Moment,
}

/// How many soft purges of one thing are told apart until the store is swept. Which of them came first after a response decides when its stale windows begin.
const MOST_SOFT: usize = 8;

impl Purged {
    pub(crate) fn new(number: u64, force: Force) -> Self {
        let mut purged = Self::default();
        purged.add(number, force);
        purged
    }

    /// One more, with the largest number so far.
    pub(crate) fn add(&mut self, number: u64, force: Force) {
        match force {
            Force::Hard => *self = Self { hard: number, soft: Box::default() },
            Force::Soft(at) => {
                let mut soft = self.soft.to_vec();
                soft.push(Soft { number, at });
                if soft.len() > MOST_SOFT {
                    // The two oldest become one, which touches what either did, as of the earlier: stale too early, and never too late.
                    let oldest = soft.remove(0);
                    soft[0].at = oldest.at;
                }
                self.soft = soft.into();
            }
        }
    }

    /// The number of the newest.
    pub(crate) fn newest(&self) -> u64 {
        self.soft.last().map_or(self.hard, |soft| soft.number)
    }

    /// Forgets those up to this number; tells whether any are left.
    pub(crate) fn forget(&mut self, number: u64) -> bool {
        if self.soft.first().is_some_and(|soft| soft.number <= number) {
            self.soft = self.soft.iter().filter(|soft| soft.number > number).copied().collect();
        }
        self.newest() > number
    }
}

/// What purges come to for one response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// A hard purge touches it.
    pub(crate) is_purged: bool,
    /// How long after its arrival the first soft purge was that touches it.
    pub(crate) stale_from: Option<Duration>,
}

impl Verdict {
    /// Of what was `received` then, those of these purges count that are newer than `since`.
    pub(crate) fn add(&mut self, purged: Option<&Purged>, since: u64, received: Moment) {
        let Some(purged) = purged else { return };
        self.is_purged |= purged.hard > since;
        let newer = purged.soft.iter().filter(|soft| soft.number > since);
        self.stale_from = newer.map(|soft| soft.at.since(received)).chain(self.stale_from).min();
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment { wall: UNIX_EPOCH + Duration::from_secs(seconds), monotonic: Duration::from_secs(seconds) }
    }

    fn verdict(purged: &Purged, since: u64) -> (bool, Option<u64>) {
        let mut verdict = Verdict::default();
        verdict.add(Some(purged), since, at(100));
        (verdict.is_purged, verdict.stale_from.map(|from| from.as_secs()))
    }

    #[test]
    fn the_first_soft_purge_after_a_response_counts() {
        let mut purged = Purged::new(5, Force::Soft(at(105)));
        purged.add(9, Force::Soft(at(109)));
        let rows = [(4, Some(5)), (5, Some(9)), (8, Some(9)), (9, None)];
        for (since, expected) in rows {
            assert_eq!(verdict(&purged, since), (false, expected), "{since}");
        }
        assert_eq!(purged.newest(), 9);
    }

    #[test]
    fn a_hard_purge_says_all_that_soft_ones_before_it_said() {
        let mut purged = Purged::new(5, Force::Soft(at(105)));
        purged.add(6, Force::Hard);
        purged.add(7, Force::Soft(at(107)));
        assert_eq!(
            [4, 5, 6, 7].map(|since| verdict(&purged, since)),
            [(true, Some(7)), (true, Some(7)), (false, Some(7)), (false, None)]
        );
    }

    #[test]
    fn soft_purges_that_are_too_many_count_early() {
        let mut purged = Purged::new(1, Force::Soft(at(101)));
        (2..=100).for_each(|n| purged.add(n, Force::Soft(at(100 + n))));
        assert_eq!(purged.soft.len(), MOST_SOFT);
        for since in 0..=100 {
            let (_, from) = verdict(&purged, since);
            // Exactly: as of the next purge.
            let exact = (since < 100).then_some(since + 1);
            assert!(from == exact || since < 93 && from < exact, "since {since}: {from:?}");
        }
    }

    #[test]
    fn what_is_forgotten_is_what_is_old() {
        let mut purged = Purged::new(3, Force::Hard);
        purged.add(5, Force::Soft(at(105)));
        purged.add(7, Force::Soft(at(107)));
        assert!(purged.forget(5));
        assert_eq!(verdict(&purged, 5), (false, Some(7)));
        assert!(!purged.forget(7));
        assert!(!Purged::new(3, Force::Hard).forget(3) && Purged::new(4, Force::Hard).forget(3));
    }
}
