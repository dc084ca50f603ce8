//! [`Deadlines`]: how long each of many operations may take, with one timer for all of them. A timer for each would cost more than what it watches: where no other is due before it, it
//! has to wake up the runtime's driver, with a call of the system.
//!
//! Time is told in steps, so an operation may be given up a little before its deadline, and never behind it. Each runtime tells the time to those that wait in it: one that stands still
//! keeps no others waiting.

use std::panic::catch_unwind;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use slab::Slab;
use smallvec::SmallVec;
use tokio::runtime::{Handle, Id};
use tokio::time::{Instant, Sleep, sleep};

#[derive(Debug, Default)]
pub(super) struct Deadlines {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: Slab<Waiting>,
    /// One for each runtime in which somebody waited lately.
    clocks: SmallVec<[Clock; 1]>,
    /// So many clocks have ever begun to go.
    made: u64,
}

#[derive(Debug)]
struct Waiting {
    runtime: Id,
    due: Instant,
    end: Option<End>,
    waker: Waker,
}

impl State {
    fn is_ticking(&self, runtime: Id) -> bool {
        self.clocks.iter().any(|clock| clock.runtime == runtime)
    }
}

/// That a runtime is told the time.
#[derive(Debug)]
struct Clock {
    runtime: Id,
    /// One that stops late mustn't stop the next one of its runtime.
    number: u64,
    /// So many steps ago somebody waited.
    idle: u32,
}

/// Why somebody doesn't wait any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It took too long.
    Late,
    /// Nobody should wait any longer.
    Released,
}

/// Why nothing ends anybody's waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unwatched {
    /// The runtime was built without timers.
    NoTimers,
    /// There is none, or it has ended.
    NoRuntime,
}

/// So many steps are in the shortest deadline.
const STEPS: u32 = 16;

/// The length of a step, as far as the deadline allows.
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(100);

/// Nobody waits longer, whatever they say; what can't be counted can't be waited for.
const FAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// After so many steps without anybody the clock stops.
const IDLE: u32 = 200;

impl Deadlines {
    /// Who waits for `longest` at most, from when it is first polled. `shortest` is that of all.
    ///
    /// # Errors
    /// If there is nothing that could tell the time.
    pub(super) fn begin(self: &Arc<Self>, longest: Duration, shortest: Duration) -> Result<Deadline<'_>, Unwatched> {
        let step = (shortest / STEPS).clamp(SHORTEST, LONGEST);
        let runtime = Handle::try_current().map_err(|_| Unwatched::NoRuntime)?;
        drop(self.ticking(&runtime, step)?);
        // The step behind it would be too late, and steps are rounded up to whole milliseconds.
        let longest = longest.min(FAR);
        let longest = longest - (step + SHORTEST).min(longest / 4 * 3);
        Ok(Deadline { deadlines: self, runtime, step, longest, place: None })
    }

    /// Ends the waiting of all who wait now.
    pub(super) fn release(&self) {
        self.end(|_| Some(End::Released));
    }

    /// With the clock of a runtime, which begins to go if it doesn't.
    fn ticking(self: &Arc<Self>, runtime: &Handle, step: Duration) -> Result<MutexGuard<'_, State>, Unwatched> {
        let state = self.lock();
        if state.is_ticking(runtime.id()) {
            return Ok(state);
        }
        drop(state);
        self.begin_ticking(runtime, step)?;
        let state = self.lock();
        if state.is_ticking(runtime.id()) { Ok(state) } else { Err(Unwatched::NoRuntime) }
    }

    #[cold]
    fn begin_ticking(self: &Arc<Self>, runtime: &Handle, step: Duration) -> Result<(), Unwatched> {
        // tokio doesn't tell whether a runtime was built with timers, and a request must not panic for it.
        let first = catch_unwind(|| sleep(step)).map_err(|_| Unwatched::NoTimers)?;
        let mut state = self.lock();
        if !state.is_ticking(runtime.id()) {
            state.made += 1;
            let (runtime_id, number) = (runtime.id(), state.made);
            state.clocks.push(Clock { runtime: runtime_id, number, idle: 0 });
            drop(state);
            // A runtime that has ended drops it at once, and with it the clock.
            runtime.spawn(Ticking { deadlines: Arc::downgrade(self), runtime: runtime_id, number }.run(first, step));
        }
        Ok(())
    }

    /// Tells the time. The clock stops, in the same step, if nobody in that runtime has waited for a while; whether it did.
    fn tick(&self, runtime: Id, number: u64) -> bool {
        let now = Instant::now();
        let mut state = self.lock();
        let State { waiting, clocks, .. } = &mut *state;
        let Some(place) = clocks.iter().position(|clock| clock.number == number) else { return true };
        let clock = &mut clocks[place];
        let is_waited = waiting.iter().any(|(_, waiting)| waiting.runtime == runtime);
        clock.idle = if is_waited { 0 } else { clock.idle + 1 };
        let is_over = clock.idle > IDLE;
        if is_over {
            clocks.remove(place);
        }
        drop(state);
        self.end(|waiting| (waiting.runtime == runtime && waiting.due <= now).then_some(End::Late));
        is_over
    }

    fn end(&self, why: impl Fn(&Waiting) -> Option<End>) {
        let mut ended: SmallVec<[Waker; 8]> = SmallVec::new();
        for (_, waiting) in &mut self.lock().waiting {
            if let (None, Some(end)) = (waiting.end, why(waiting)) {
                waiting.end = Some(end);
                ended.push(waiting.waker.clone());
            }
        }
        ended.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who waits. Gives its place back when it is dropped.
pub(super) struct Deadline<'a> {
    deadlines: &'a Arc<Deadlines>,
    runtime: Handle,
    step: Duration,
    longest: Duration,
    place: Option<usize>,
}

impl Deadline<'_> {
    /// Ready when nobody should wait any longer.
    pub(super) fn poll(&mut self, context: &Context<'_>) -> Poll<End> {
        // There were timers when it began. The clock may have stopped since, though, with the task that it was.
        let Ok(mut state) = self.deadlines.ticking(&self.runtime, self.step) else { return Poll::Pending };
        let Some(waiting) = self.place.and_then(|place| state.waiting.get_mut(place)) else {
            // Not by the last step: a runtime that was kept busy may have taken that long ago.
            let (runtime, due) = (self.runtime.id(), Instant::now() + self.longest);
            let waiting = Waiting { runtime, due, end: None, waker: context.waker().clone() };
            self.place = Some(state.waiting.insert(waiting));
            return Poll::Pending;
        };
        if let Some(end) = waiting.end {
            return Poll::Ready(end);
        }
        waiting.waker.clone_from(context.waker());
        Poll::Pending
    }
}

impl Drop for Deadline<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.deadlines.lock().waiting.try_remove(place);
        }
    }
}

/// The task that tells a runtime's time.
struct Ticking {
    deadlines: Weak<Deadlines>,
    runtime: Id,
    number: u64,
}

impl Drop for Ticking {
    /// The runtime has ended, or the time of the clock. Where somebody waits all the same, they begin it anew.
    fn drop(&mut self) {
        let Some(deadlines) = self.deadlines.upgrade() else { return };
        let mut state = deadlines.lock();
        state.clocks.retain(|clock| clock.number != self.number);
        let left = state.waiting.iter().filter(|(_, waiting)| waiting.runtime == self.runtime);
        let left: SmallVec<[Waker; 8]> = left.map(|(_, waiting)| waiting.waker.clone()).collect();
        drop(state);
        left.into_iter().for_each(Waker::wake);
    }
}

impl Ticking {
    async fn run(self, first: Sleep, step: Duration) {
        let mut timer = pin!(first);
        loop {
            timer.as_mut().await;
            match self.deadlines.upgrade() {
                Some(deadlines) if !deadlines.tick(self.runtime, self.number) => {
                    timer.as_mut().reset(Instant::now() + step)
                }
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// How long somebody waits who began so long after the clock, and why it ended.
    async fn waited(deadlines: &Arc<Deadlines>, longest: Duration) -> (Duration, End) {
        let began = Instant::now();
        let mut deadline = deadlines.begin(longest, 40 * MS).expect("timers");
        let end = poll_fn(|context| deadline.poll(context)).await;
        (began.elapsed(), end)
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_longer_than_the_deadline_nor_much_shorter() {
        let deadlines = Arc::new(Deadlines::default());
        let kept = deadlines.begin(Duration::MAX, 40 * MS);
        for pause in 0..40 {
            sleep(pause * MS / 4).await;
            for longest in [5 * MS, 40 * MS, 2000 * MS] {
                let (took, end) = waited(&deadlines, longest).await;
                assert_eq!(end, End::Late);
                assert!(took <= longest && took + 8 * MS >= longest, "{took:?} of {longest:?}");
            }
        }
        drop(kept);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_released_waits_no_longer() {
        let deadlines = Arc::new(Deadlines::default());
        let releasing = deadlines.clone();
        tokio::spawn(async move {
            sleep(10 * MS).await;
            releasing.release();
        });
        let (took, end) = waited(&deadlines, 40 * MS).await;
        assert_eq!((took.as_millis(), end), (10, End::Released));
        assert_eq!(waited(&deadlines, 40 * MS).await.1, End::Late, "who comes later isn't");
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_stops_when_nobody_waits_and_goes_again() {
        let deadlines = Arc::new(Deadlines::default());
        let mut early = deadlines.begin(40 * MS, 40 * MS).expect("timers");
        assert_eq!(deadlines.lock().clocks.len(), 1);
        sleep(10_000 * MS).await;
        assert!(deadlines.lock().clocks.is_empty(), "nobody waits");
        assert_eq!(poll_fn(|context| early.poll(context)).await, End::Late, "who began before waits after it");
        drop(early);
        assert_eq!(waited(&deadlines, 40 * MS).await.1, End::Late);
        assert!(deadlines.lock().waiting.is_empty());
    }

    #[tokio::test]
    async fn a_runtime_that_was_kept_busy_takes_nothing_off() {
        let deadlines = Arc::new(Deadlines::default());
        let kept = deadlines.begin(Duration::MAX, 40 * MS);
        sleep(5 * MS).await;
        std::thread::sleep(60 * MS);
        let (took, _) = waited(&deadlines, 40 * MS).await;
        assert!(took >= 35 * MS, "{took:?}");
        drop(kept);
    }

    #[tokio::test]
    async fn a_clock_that_stops_leaves_the_next_one_going() {
        let deadlines = Arc::new(Deadlines::default());
        let kept = deadlines.begin(40 * MS, 40 * MS).expect("timers");
        let runtime = kept.runtime.id();
        drop(Ticking { deadlines: Arc::downgrade(&deadlines), runtime, number: 0 });
        assert!(deadlines.lock().is_ticking(runtime));
    }

    #[test]
    fn each_runtime_has_its_own_time_and_may_end() {
        let deadlines = Arc::new(Deadlines::default());
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        assert_eq!(deadlines.begin(MS, MS).err(), Some(Unwatched::NoRuntime));
        let without_timers = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        without_timers.block_on(async { assert_eq!(deadlines.begin(MS, MS).err(), Some(Unwatched::NoTimers)) });
        for _ in 0..2 {
            let ended = runtime().block_on(waited(&deadlines, 2 * MS)).1;
            assert_eq!(ended, End::Late);
        }
        let ended = runtime();
        let handle = ended.handle().clone();
        drop(ended);
        let _inside = handle.enter();
        assert!(deadlines.begin(MS, MS).is_err(), "it has ended");
        assert!(deadlines.lock().clocks.is_empty(), "those of runtimes that have ended are gone");
    }
}
