//! The synchronisation that flights, purges and budgets are made of: `std`'s, or under `--cfg shuttle` a model of it, in which every
//! interleaving of threads can be tried (`scripts/models`, `models.rs`). What takes part in a model takes its locks and atomics from here.

#[cfg(not(all(test, shuttle)))]
pub(crate) use std::sync::{
    Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

#[cfg(all(test, shuttle))]
pub(crate) use self::modelled::OnceLock;
#[cfg(all(test, shuttle))]
pub(crate) use shuttle::sync::{
    Arc, Mutex, MutexGuard, PoisonError, Weak,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

/// A number that is large in service and small in a model, where each place costs every schedule.
pub(crate) const fn sized(in_service: usize, in_a_model: usize) -> usize {
    if cfg!(all(test, shuttle)) { in_a_model } else { in_service }
}

/// A hasher that no peer can predict; in a model the same one for every schedule, so that a schedule can be run again.
pub(crate) fn hasher() -> ahash::RandomState {
    if cfg!(all(test, shuttle)) { ahash::RandomState::with_seeds(1, 2, 3, 4) } else { ahash::RandomState::new() }
}

#[cfg(all(test, shuttle))]
mod modelled {
    use super::{AtomicBool, Ordering};

    /// shuttle has none: the value itself is in `std`'s, and a flag makes looking and setting visible to the scheduler.
    #[derive(Debug)]
    pub(crate) struct OnceLock<T> {
        value: std::sync::OnceLock<T>,
        is_set: AtomicBool,
    }

    impl<T> OnceLock<T> {
        pub(crate) fn new() -> Self {
            Self { value: std::sync::OnceLock::new(), is_set: AtomicBool::new(false) }
        }

        pub(crate) fn get(&self) -> Option<&T> {
            if self.is_set.load(Ordering::Acquire) { self.value.get() } else { None }
        }

        pub(crate) fn set(&self, value: T) -> Result<(), T> {
            self.value.set(value)?;
            self.is_set.store(true, Ordering::Release);
            Ok(())
        }
    }
}
