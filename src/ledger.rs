//! [`Ledger`]: what each route counts, by its pattern, through all changes of the settings.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::tally::RouteCounters;

/// How many routes that aren't there any more are remembered on their own. What earlier ones counted stays in the sum.
const MOST_REMOVED: usize = 256;

/// The routes that there are and were. A rule that comes back with the same pattern counts on.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pages: Mutex<Pages>,
    /// What the forgotten ones counted.
    past: RouteCounters,
}

#[derive(Debug, Default)]
struct Pages {
    /// The routes of now.
    current: Vec<Page>,
    /// Those of before, the latest last.
    removed: Vec<Page>,
    /// Some are in the sum only.
    forgotten: bool,
}

/// A route; `otherwise` has no pattern.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub(crate) pattern: Option<Arc<str>>,
    pub(crate) counters: Arc<RouteCounters>,
}

impl Ledger {
    /// The counters of these routes, which are the ones of now. Of two with the same pattern only the first one ever counts, so they share theirs.
    pub(crate) fn open<'a>(&self, patterns: impl Iterator<Item = Option<&'a str>>) -> Vec<Arc<RouteCounters>> {
        let mut pages = self.pages();
        let mut before = std::mem::take(&mut *pages);
        let mut known: Vec<Page> = before.removed.drain(..).chain(before.current.drain(..)).collect();
        let mut opened = Vec::new();
        for pattern in patterns {
            let is_same = |page: &Page| page.pattern.as_deref() == pattern;
            if let Some(page) = pages.current.iter().find(|page| is_same(page)) {
                opened.push(page.counters.clone());
                continue;
            }
            let page = match known.iter().position(is_same) {
                Some(place) => known.remove(place),
                None => Page { pattern: pattern.map(Arc::from), counters: Arc::default() },
            };
            opened.push(page.counters.clone());
            pages.current.push(page);
        }
        pages.removed = known;
        pages.forgotten |= before.forgotten | self.forget(&mut pages.removed);
        opened
    }

    /// Adds up those that are too many, the oldest first. Who is still counted on by a request or a stored response stays until that has ended.
    /// Tells whether there were any.
    fn forget(&self, removed: &mut Vec<Page>) -> bool {
        let before = removed.len();
        let mut too_many = before.saturating_sub(MOST_REMOVED);
        removed.retain(|page| {
            let goes = too_many > 0 && Arc::strong_count(&page.counters) == 1;
            if goes {
                too_many -= 1;
                self.past.absorb(&page.counters);
            }
            !goes
        });
        removed.len() < before
    }

    /// The routes of now, in the order of the rules, `otherwise` last.
    pub(crate) fn current(&self) -> Vec<Page> {
        self.pages().current.clone()
    }

    /// The sum over all routes that ever were.
    pub(crate) fn sum(&self, of: impl Fn(&RouteCounters) -> u64) -> u64 {
        let pages = self.pages();
        let all = pages.current.iter().chain(&pages.removed).map(|page| of(&page.counters));
        all.sum::<u64>() + of(&self.past)
    }

    /// What all routes counted that `known` doesn't know; `None` where there are no such routes, and never were.
    #[cfg(feature = "metrics")]
    pub(crate) fn rest(&self, known: impl Fn(&Arc<RouteCounters>) -> bool) -> Option<RouteCounters> {
        let pages = self.pages();
        let rest = RouteCounters::default();
        let mut unknown = pages.current.iter().chain(&pages.removed).filter(|page| !known(&page.counters)).peekable();
        let is_empty = unknown.peek().is_none() && !pages.forgotten;
        unknown.for_each(|page| rest.absorb(&page.counters));
        rest.absorb(&self.past);
        (!is_empty).then_some(rest)
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Outcome;

    fn hit(counters: &RouteCounters) {
        counters.answered(Outcome::Hit, 1, Default::default);
    }

    fn hits(ledger: &Ledger) -> u64 {
        ledger.sum(|counters| counters.outcome(Outcome::Hit))
    }

    #[test]
    fn a_rule_that_comes_back_counts_on() {
        let ledger = Ledger::default();
        let opened = ledger.open([Some("^/a"), Some("^/b"), Some("^/a"), None].into_iter());
        opened.iter().for_each(|counters| hit(counters));
        let counted = |pages: Vec<Page>| {
            let of =
                |page: Page| (page.pattern.map(|pattern| pattern.to_string()), page.counters.outcome(Outcome::Hit));
            pages.into_iter().map(of).collect::<Vec<_>>()
        };
        let (a, b) = (Some("^/a".to_owned()), Some("^/b".to_owned()));
        assert_eq!(counted(ledger.current()), [(a.clone(), 2), (b.clone(), 1), (None, 1)]);
        ledger.open([Some("^/b"), None].into_iter());
        assert_eq!((counted(ledger.current()), hits(&ledger)), (vec![(b, 1), (None, 1)], 4));
        ledger.open([Some("^/a"), Some("otherwise"), None].into_iter());
        assert_eq!(counted(ledger.current()), [(a, 2), (Some("otherwise".into()), 0), (None, 1)]);
    }

    #[test]
    fn a_bounded_number_is_remembered_and_the_sum_is_of_all() {
        let ledger = Ledger::default();
        let all = 3 * MOST_REMOVED;
        let mut held = None;
        for n in 0..all {
            let pattern = format!("^/{n}");
            let opened = ledger.open([Some(pattern.as_str()), None].into_iter());
            hit(&opened[0]);
            if n == 0 {
                held = Some(opened[0].clone());
            }
        }
        assert_eq!(hits(&ledger), all as u64);
        assert_eq!(ledger.pages().removed.len(), MOST_REMOVED, "as many as allowed, and one of them is in use");
        held.iter().for_each(|counters| hit(counters));
        assert_eq!(hits(&ledger), all as u64 + 1, "what somebody still counts on isn't forgotten");
    }
}
