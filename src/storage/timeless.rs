//! [`Timeless`]: in which runtimes nothing can tell the time, so that the others keep their deadlines.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use smallvec::SmallVec;
use tokio::runtime::{Handle, Id};

/// The runtimes that were found to have no timers: to find it out costs a panic.
#[derive(Default)]
pub(super) struct Timeless {
    /// Whether there is any.
    is_any: AtomicBool,
    runtimes: Mutex<SmallVec<[Id; 1]>>,
}

/// So many of them are remembered.
const MOST_TIMELESS: usize = 16;

impl Timeless {
    /// Whether the present runtime is one.
    pub(super) fn is_here(&self) -> bool {
        let is_known = |runtime: Handle| self.lock().contains(&runtime.id());
        self.is_any.load(Ordering::Relaxed) && Handle::try_current().is_ok_and(is_known)
    }

    /// That the present runtime is one; whether that is news.
    pub(super) fn remember(&self) -> bool {
        let Ok(runtime) = Handle::try_current() else { return false };
        let mut runtimes = self.lock();
        if runtimes.contains(&runtime.id()) {
            return false;
        }
        if runtimes.len() == MOST_TIMELESS {
            runtimes.remove(0);
        }
        runtimes.push(runtime.id());
        self.is_any.store(true, Ordering::Relaxed);
        true
    }

    fn lock(&self) -> MutexGuard<'_, SmallVec<[Id; 1]>> {
        self.runtimes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
