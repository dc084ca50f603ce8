//! [`FillBudget`]: how many bytes all fills may hold together.

use crate::sync::{AtomicUsize, Ordering};

/// Bytes held by all fills together, against a limit.
#[derive(Debug, Default)]
pub(crate) struct FillBudget {
    held: AtomicUsize,
}

impl FillBudget {
    /// Takes `bytes` more, if that stays within `limit`.
    pub(crate) fn take(&self, bytes: usize, limit: usize) -> bool {
        let taken = self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
            held.checked_add(bytes).filter(|sum| *sum <= limit)
        });
        taken.is_ok()
    }

    pub(crate) fn give_back(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// How many more may be held.
    pub(crate) fn left(&self, limit: usize) -> usize {
        limit.saturating_sub(self.held())
    }

    /// How many bytes are held.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_never_exceeded() {
        let budget = FillBudget::default();
        assert!(budget.take(60, 100) && !budget.take(41, 100) && budget.take(40, 100));
        budget.give_back(100);
        assert!(budget.take(100, 100) && !budget.take(usize::MAX, usize::MAX));
    }
}
