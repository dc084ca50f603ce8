//! Which routes have a label of their own.

use std::sync::Arc;

use ::metrics::SharedString;

use crate::ledger::{Ledger, Page};
use crate::tally::RouteCounters;

/// The label of what `otherwise` says.
const OTHERWISE: &str = "otherwise";

/// The label of the routes that are too many.
const OTHER: &str = "other";

/// The routes that have labels, since they were seen first.
#[derive(Default)]
pub(super) struct Routes {
    known: Vec<Page>,
}

impl Routes {
    /// Each label with what was counted under it, and what all the others counted.
    pub(super) fn rows(&mut self, ledger: &Ledger, most: usize) -> Vec<(SharedString, Arc<RouteCounters>)> {
        for page in ledger.current() {
            let rules = self.known.iter().filter(|page| page.pattern.is_some()).count();
            if !self.knows(&page) && (page.pattern.is_none() || rules < most) {
                self.known.push(page);
            }
        }
        let mut rows: Vec<_> = self.known.iter().map(|page| (label(page), page.counters.clone())).collect();
        let known = |counters: &Arc<RouteCounters>| self.known.iter().any(|page| Arc::ptr_eq(&page.counters, counters));
        if let Some(rest) = ledger.rest(known) {
            rows.push((OTHER.into(), Arc::new(rest)));
        }
        rows
    }

    /// The routes of now, by the label under which their latencies are recorded.
    pub(super) fn measured(&self, ledger: &Ledger) -> Vec<(SharedString, Arc<RouteCounters>)> {
        let current = ledger.current().into_iter();
        current.map(|page| (if self.knows(&page) { label(&page) } else { OTHER.into() }, page.counters)).collect()
    }

    fn knows(&self, page: &Page) -> bool {
        self.known.iter().any(|known| Arc::ptr_eq(&known.counters, &page.counters))
    }
}

fn label(page: &Page) -> SharedString {
    page.pattern.as_ref().map_or(OTHERWISE.into(), |pattern| pattern.clone().into())
}
