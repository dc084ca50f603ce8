//! [`Shelves`]: what lies in this process beside the store and is purged with it. The cache knows nothing of it but how to hold it against purges.

use std::sync::{Arc, Mutex, PoisonError, Weak};

#[cfg(any(feature = "admin", feature = "metrics"))]
use crate::objects::ObjectStats;
use crate::purge::PurgeIndex;
use crate::target::Target;

/// All shelves of a cache. They are their owners', and forgotten when those are gone.
#[derive(Default)]
pub(crate) struct Shelves(Mutex<Vec<Weak<dyn Shelf>>>);

/// What is held in memory, with what is on its way there.
pub(crate) trait Shelf: Send + Sync {
    /// By which people know it; another shelf may have the same.
    fn name(&self) -> &str;

    /// What was done with it so far, and what is held.
    #[cfg(any(feature = "admin", feature = "metrics"))]
    fn stats(&self) -> ObjectStats;

    /// Keeps those who come later from what is on its way and may be touched by a purge. To be called when the purge is in the index.
    fn close(&self, target: &Target);

    /// The smallest number of what is on its way.
    fn oldest(&self) -> Option<u64>;

    /// A walk through all that is held.
    fn walk(&self) -> Box<dyn Walk + '_>;

    /// Gives the memory of what was dropped back.
    fn settle(&self);
}

/// A walk that goes on where it was left.
pub(crate) trait Walk: Send {
    /// Holds the next things against purges, `most` at most, and drops what one has touched. Adds to `dropped` how many those were; false when there are no more.
    fn step(&mut self, most: usize, purges: &PurgeIndex, dropped: &mut u64) -> bool;
}

impl Shelves {
    pub(crate) fn add(&self, shelf: Weak<dyn Shelf>) {
        let mut shelves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shelves.retain(|shelf| shelf.strong_count() > 0);
        shelves.push(shelf);
    }

    /// What was done under each name, by name: of those that are still there, and together where several have one name.
    #[cfg(any(feature = "admin", feature = "metrics"))]
    pub(crate) fn stats(&self) -> std::collections::BTreeMap<String, ObjectStats> {
        let mut stats = std::collections::BTreeMap::<String, ObjectStats>::new();
        for shelf in self.all() {
            stats.entry(shelf.name().to_owned()).or_default().add(&shelf.stats());
        }
        stats
    }

    /// Those that are still there.
    pub(crate) fn all(&self) -> Vec<Arc<dyn Shelf>> {
        let shelves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shelves.iter().filter_map(Weak::upgrade).collect()
    }
}
