//! [`Explanation`]: what of the requests goes with a change of the answers, where answers under one key differ. Comparisons are counted by which parts of
//! the two requests were different; nothing of what they said is kept.

use std::collections::HashMap;

/// How many parts of requests are told apart by name; one more bit stands for all others.
pub(crate) const NAMES: usize = 48;

/// How many sets of differing parts are counted; what is beyond is counted as not held.
const SETS: usize = 256;

/// How many parts may explain a difference together.
const TOGETHER: usize = 3;

/// Comparisons in which a part was equal, and the answers too, before it is believed that it decides.
const CONFIRMED: u32 = 10;

/// How much of the differences has to be explained: content may change between two answers, and that has no name.
const EXPLAINED: f64 = 0.99;

/// Which parts of two requests differ: a bit for each.
pub(crate) type Parts = u64;

/// Comparisons by what differed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Explanation {
    sets: HashMap<Parts, Counts>,
    /// Comparisons that found no place.
    beyond: Counts,
    all: Counts,
}

/// Comparisons whose answers were the same, and whose weren't.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) same: u32,
    pub(crate) different: u32,
}

impl Counts {
    fn add(&mut self, same: bool) {
        let counter = if same { &mut self.same } else { &mut self.different };
        *counter = counter.saturating_add(1);
    }

    fn more(&mut self, other: Self) {
        self.same = self.same.saturating_add(other.same);
        self.different = self.different.saturating_add(other.different);
    }

    pub(crate) fn both(self) -> u32 {
        self.same.saturating_add(self.different)
    }
}

/// What makes answers differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// These parts together: where all of them were equal, so were the answers.
    Parts(Parts),
    /// One of these, if it is anything in the requests: they differed whenever the answers did, and were hardly ever the same.
    AnyOf(Parts),
    /// Nothing that the requests say.
    Nothing,
}

impl Explanation {
    /// Two requests that differ in `parts` had the same answer, or didn't.
    pub(crate) fn compare(&mut self, parts: Parts, same: bool) {
        self.all.add(same);
        let is_full = self.sets.len() >= SETS;
        match self.sets.get_mut(&parts) {
            Some(counts) => counts.add(same),
            None if is_full => self.beyond.add(same),
            None => self.sets.entry(parts).or_default().add(same),
        }
    }

    /// All comparisons.
    pub(crate) fn all(&self) -> Counts {
        self.all
    }

    /// Comparisons in which any of `parts` differed.
    pub(crate) fn with_any(&self, parts: Parts) -> Counts {
        self.sum(|set| set & parts != 0)
    }

    /// Comparisons of requests that said the same.
    pub(crate) fn of_equal_requests(&self) -> Counts {
        self.sum(|set| set == 0)
    }

    fn without(&self, parts: Parts) -> Counts {
        self.sum(|set| set & parts == 0)
    }

    fn sum(&self, counts: impl Fn(Parts) -> bool) -> Counts {
        let mut sum = Counts::default();
        self.sets.iter().filter(|(set, _)| counts(**set)).for_each(|(_, counts)| sum.more(*counts));
        sum
    }

    /// What makes answers differ; `None` where none did.
    ///
    /// 1. The part whose changes go with changes of the answer most closely, among those whose equality meant equal answers.
    /// 2. Where there is none, two parts of which the same is true together.
    /// 3. Three parts, each of which explains most of what those before it don't.
    pub(crate) fn cause(&self) -> Option<Cause> {
        if self.all.different == 0 {
            return None;
        }
        let all: Vec<Parts> = (0..=NAMES).map(|bit| 1 << bit).filter(|part| self.with_any(*part).both() > 0).collect();
        let pairs = || all.iter().enumerate().flat_map(|(n, one)| all.iter().skip(n + 1).map(move |other| one | other));
        let always = self.always();
        let found = self.closest(all.iter().copied()).or_else(|| self.closest(pairs())).or_else(|| self.together(&all));
        let otherwise = if always == 0 { Cause::Nothing } else { Cause::AnyOf(always) };
        Some(found.map_or(otherwise, Cause::Parts))
    }

    /// The parts that differed whenever the answers did.
    fn always(&self) -> Parts {
        let differing = self.sets.iter().filter(|(_, counts)| counts.different > 0);
        let always = differing.map(|(set, _)| *set).reduce(|one, other| one & other).unwrap_or_default();
        if self.beyond.different > 0 { 0 } else { always }
    }

    /// The one that goes with a change of the answer most closely, of those that explain it.
    fn closest(&self, all: impl Iterator<Item = Parts>) -> Option<Parts> {
        let explaining = all.filter(|parts| self.explains(*parts));
        explaining.max_by(|one, other| self.closeness(*one).total_cmp(&self.closeness(*other)))
    }

    /// Whether requests that were equal in `parts` had equal answers, and often enough to believe that.
    fn explains(&self, parts: Parts) -> bool {
        let equal = self.without(parts);
        // What found no place may have differed in anything.
        let unexplained = f64::from(equal.different) + f64::from(self.beyond.different);
        equal.same >= CONFIRMED && unexplained <= (1.0 - EXPLAINED) * f64::from(self.all.different)
    }

    /// How often the answer was another one where any of the parts was.
    fn closeness(&self, parts: Parts) -> f64 {
        let differing = self.with_any(parts);
        f64::from(differing.different) / f64::from(differing.both().max(1))
    }

    /// The part that explains most, and then the one that explains most of the rest.
    fn together(&self, all: &[Parts]) -> Option<Parts> {
        let mut parts = 0;
        for _ in 0..TOGETHER {
            let left = |part: &Parts| {
                let rest = self.without(parts | part);
                // A part that always differs leaves nothing to compare.
                if rest.same < CONFIRMED { u32::MAX } else { rest.different }
            };
            let next = all.iter().copied().filter(|part| parts & part == 0).min_by_key(left)?;
            parts |= next;
            if self.explains(parts) {
                return Some(parts);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Compares all pairs of requests, of which each part has a value, where `answer` says what a request gets.
    fn compared<const N: usize>(requests: &[[u8; N]], answer: impl Fn(&[u8; N], usize) -> u64) -> Explanation {
        let mut explanation = Explanation::default();
        for (n, one) in requests.iter().enumerate() {
            for (m, other) in requests.iter().enumerate().skip(n + 1) {
                let differing = (0..N).filter(|part| one[*part] != other[*part]).fold(0, |set, part| set | 1 << part);
                explanation.compare(differing, answer(one, n) == answer(other, m));
            }
        }
        explanation
    }

    proptest! {
        #[test]
        fn the_part_that_decides_is_found_among_others(requests in proptest::collection::vec(proptest::array::uniform6(0_u8..4), 60..80)) {
            // Of the last one each value is another one.
            let requests: Vec<_> = requests.into_iter().enumerate().map(|(n, mut request)| { request[5] = n as u8; request }).collect();
            let explanation = compared(&requests, |request, _| u64::from(request[2]));
            prop_assert_eq!(explanation.cause(), Some(Cause::Parts(1 << 2)));
            let explanation = compared(&requests, |request, _| u64::from(request[1] / 2));
            prop_assert_eq!(explanation.cause(), Some(Cause::Parts(1 << 1)), "values that mean the same don't hide it");
            let explanation = compared(&requests, |request, _| u64::from(request[0] / 2 * 10 + request[3] / 2));
            prop_assert_eq!(explanation.cause(), Some(Cause::Parts(1 | 1 << 3)), "two together");
            let explanation = compared(&requests, |_, n| n as u64);
            // The last part is another one each time, so it might be that.
            prop_assert_eq!(explanation.cause(), Some(Cause::AnyOf(1 << 5)), "each request has its own answer");
            let without: Vec<[u8; 2]> = requests.iter().map(|request| [request[0], request[1]]).collect();
            prop_assert_eq!(compared(&without, |_, n| n as u64).cause(), Some(Cause::Nothing));
            prop_assert_eq!(compared(&requests, |_, _| 7).cause(), None);
        }
    }

    #[test]
    fn a_rare_change_of_the_content_hides_nothing() {
        let mut explanation = Explanation::default();
        (0..990).for_each(|_| explanation.compare(1, false));
        (0..100).for_each(|_| explanation.compare(0, true));
        (0..10).for_each(|_| explanation.compare(0, false));
        assert_eq!(explanation.cause(), Some(Cause::Parts(1)));
        (0..10).for_each(|_| explanation.compare(0, false));
        assert_eq!(explanation.cause(), Some(Cause::Nothing));
        assert_eq!(explanation.of_equal_requests(), Counts { same: 100, different: 20 });
    }

    #[test]
    fn a_few_comparisons_explain_nothing() {
        let mut explanation = Explanation::default();
        (0..9).for_each(|_| explanation.compare(2, true));
        explanation.compare(1, false);
        assert_eq!(explanation.cause(), Some(Cause::AnyOf(1)));
        explanation.compare(2, true);
        assert_eq!(explanation.cause(), Some(Cause::Parts(1)));
    }

    #[test]
    fn memory_is_bounded_and_what_found_no_place_explains_nothing() {
        let mut explanation = Explanation::default();
        (0..10_000).for_each(|n| explanation.compare(1 | n << 1, false));
        (0..100).for_each(|_| explanation.compare(0, true));
        assert!(explanation.sets.len() <= SETS);
        assert_eq!((explanation.cause(), explanation.all().both()), (Some(Cause::Nothing), 10_100));
    }
}
