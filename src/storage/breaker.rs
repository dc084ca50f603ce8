//! [`Breaker`]: whether a store is asked at all, and [`Backoff`]: how often it is tried whether it is back. Both know nothing of stores.
//!
//! ```text
//! Closed ─┬─ answer ───────────────────> Closed, without failures
//!         ├─ failure, not the last ────> Closed, with one more
//!         └─ the last, or nobody there ─> Open ── a probe is answered ──> Closed, without failures
//! ```
//!
//! Requests never try: while it is open, one probe in the background does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// One state in one atomic, so that there is no order of several to get wrong.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    word: AtomicU64,
}

/// That an operation may go ahead. Tells those that began before the breaker opened from those after it closed again: what becomes of the former says nothing about
/// the store as it is now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pass(u32);

/// What became of an operation, as far as it says something about the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Answered,
    Failed,
    /// As bad as the last of several failures.
    Unreachable,
}

impl Breaker {
    /// `None` while it is open.
    pub(super) fn admit(&self) -> Option<Pass> {
        let state = self.state();
        matches!(state.phase, Phase::Closed { .. }).then_some(Pass(state.times_opened))
    }

    /// Whether it hasn't opened since.
    pub(super) fn is_valid(&self, pass: Pass) -> bool {
        self.state().times_opened == pass.0
    }

    /// Takes note of what became of an operation; whether that opened the breaker. It opens at the failure number `limit`.
    pub(super) fn note(&self, pass: Pass, verdict: Verdict, limit: u32) -> bool {
        // Mostly there is nothing to change, and then nothing is written that others read.
        self.change(|state| state.noting(pass, verdict, limit)).is_some_and(|new| new.is_open())
    }

    /// Whether the caller is the one who has to probe from now on.
    pub(super) fn begin_probing(&self) -> bool {
        self.change(|state| state.probed(true)).is_some()
    }

    /// The probe ended without an answer; the next who asks begins another.
    pub(super) fn end_probing(&self) {
        self.change(|state| state.probed(false));
    }

    /// The store is back.
    pub(super) fn close(&self) {
        self.change(State::closed);
    }

    pub(super) fn is_open(&self) -> bool {
        self.state().is_open()
    }

    pub(super) fn times_opened(&self) -> u64 {
        u64::from(self.state().times_opened)
    }

    fn state(&self) -> State {
        State::from_word(self.word.load(Ordering::Acquire))
    }

    /// The new state, if it is another one.
    fn change(&self, step: impl Fn(State) -> State) -> Option<State> {
        let mut changed = None;
        let result = self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
            let (old, new) = (State::from_word(word), step(State::from_word(word)));
            changed = (new != old).then_some(new);
            changed.map(State::to_word)
        });
        changed.filter(|_| result.is_ok())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    /// Wraps around, after some centuries of outages.
    times_opened: u32,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Closed { failures: u32 },
    Open { is_probed: bool },
}

/// Lower halves of words that are no number of failures.
const OPEN: u32 = u32::MAX - 1;
const PROBED: u32 = u32::MAX;

impl State {
    fn from_word(word: u64) -> Self {
        let phase = match word as u32 {
            OPEN => Phase::Open { is_probed: false },
            PROBED => Phase::Open { is_probed: true },
            failures => Phase::Closed { failures },
        };
        Self { times_opened: (word >> 32) as u32, phase }
    }

    fn to_word(self) -> u64 {
        let low = match self.phase {
            Phase::Open { is_probed: false } => OPEN,
            Phase::Open { is_probed: true } => PROBED,
            Phase::Closed { failures } => failures.min(OPEN - 1),
        };
        u64::from(self.times_opened) << 32 | u64::from(low)
    }

    fn is_open(self) -> bool {
        matches!(self.phase, Phase::Open { .. })
    }

    /// Closed => (Closed or Open).
    fn noting(self, pass: Pass, verdict: Verdict, limit: u32) -> Self {
        let Phase::Closed { failures } = self.phase else { return self };
        if pass.0 != self.times_opened {
            return self;
        }
        match verdict {
            Verdict::Answered => self.in_phase(Phase::Closed { failures: 0 }),
            Verdict::Failed if failures.saturating_add(1) < limit => {
                self.in_phase(Phase::Closed { failures: failures + 1 })
            }
            Verdict::Failed | Verdict::Unreachable => {
                Self { times_opened: self.times_opened.wrapping_add(1), phase: Phase::Open { is_probed: false } }
            }
        }
    }

    /// Open => Open.
    fn probed(self, is_probed: bool) -> Self {
        if self.is_open() { self.in_phase(Phase::Open { is_probed }) } else { self }
    }

    /// Open => Closed.
    fn closed(self) -> Self {
        if self.is_open() { self.in_phase(Phase::Closed { failures: 0 }) } else { self }
    }

    fn in_phase(self, phase: Phase) -> Self {
        Self { phase, ..self }
    }
}

/// How long to wait between two probes: twice as long after each that failed, and by chance between nothing and that, so that the instances which lost a store together
/// don't come back to it together.
#[derive(Debug)]
pub(super) struct Backoff {
    longest: Duration,
    failed: u32,
    closed: Option<Instant>,
}

/// The longest pause before the first probe.
const FIRST: Duration = Duration::from_millis(50);

/// A store that fails again before this time is over wasn't back: the pauses go on where they were.
const STEADY: Duration = Duration::from_secs(1);

impl Backoff {
    pub(super) fn new(longest: Duration) -> Self {
        Self { longest, failed: 0, closed: None }
    }

    /// The breaker opened.
    pub(super) fn begin(&mut self, now: Instant) {
        let was_steady = self.closed.is_none_or(|closed| now.saturating_duration_since(closed) >= STEADY);
        if was_steady {
            self.failed = 0;
        }
    }

    /// The next pause, with `chance` from 0 to 1.
    pub(super) fn pause(&mut self, chance: f64) -> Duration {
        let most = FIRST.saturating_mul(1 << self.failed.min(16)).min(self.longest);
        self.failed = self.failed.saturating_add(1);
        most.mul_f64(chance.clamp(0.0, 1.0))
    }

    /// The breaker closed.
    pub(super) fn end(&mut self, now: Instant) {
        self.closed = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_hold_every_state() {
        for phase in [
            Phase::Closed { failures: 0 },
            Phase::Closed { failures: 7 },
            Phase::Open { is_probed: false },
            Phase::Open { is_probed: true },
        ] {
            let state = State { times_opened: 0xfedc_ba98, phase };
            assert_eq!(State::from_word(state.to_word()), state);
        }
        assert_eq!(State::from_word(0), State { times_opened: 0, phase: Phase::Closed { failures: 0 } });
    }

    #[test]
    fn transitions_are_those_of_the_table() {
        use Verdict::{Answered, Failed, Unreachable};
        let closed = |failures| Phase::Closed { failures };
        let (open, probed) = (Phase::Open { is_probed: false }, Phase::Open { is_probed: true });
        // (phase, what became of an operation of now, phase then), with a limit of three
        let rows = [
            (closed(0), Answered, closed(0)),
            (closed(0), Failed, closed(1)),
            (closed(1), Failed, closed(2)),
            (closed(2), Answered, closed(0)),
            (closed(2), Failed, open),
            (closed(0), Unreachable, open),
            (open, Answered, open),
            (open, Unreachable, open),
            (probed, Answered, probed),
            (probed, Failed, probed),
        ];
        for (phase, verdict, expected) in rows {
            let before = State { times_opened: 5, phase };
            let after = before.noting(Pass(5), verdict, 3);
            assert_eq!(after.phase, expected, "{phase:?} {verdict:?}");
            assert_eq!(after.times_opened, 5 + u32::from(!before.is_open() && after.is_open()));
            assert_eq!(before.noting(Pass(4), verdict, 3), before, "of before the last opening: {verdict:?}");
        }
        // (phase, phase when a probe begins, when it is given up, when the store is back)
        let rows = [
            (closed(1), closed(1), closed(1), closed(1)),
            (open, probed, open, closed(0)),
            (probed, probed, open, closed(0)),
        ];
        for (phase, begun, given_up, back) in rows {
            let state = State { times_opened: 1, phase };
            assert_eq!(
                [state.probed(true), state.probed(false), state.closed()].map(|state| state.phase),
                [begun, given_up, back]
            );
        }
    }

    #[test]
    fn one_of_many_opens_it_and_one_probes() {
        let breaker = Breaker::default();
        let pass = breaker.admit().expect("closed");
        let opened: Vec<_> = (0..5).map(|_| breaker.note(pass, Verdict::Failed, 3)).collect();
        assert_eq!(opened, [false, false, true, false, false]);
        assert!(breaker.admit().is_none());
        assert_eq!([(); 3].map(|()| breaker.begin_probing()), [true, false, false]);
        breaker.end_probing();
        assert!(breaker.begin_probing(), "a probe that was given up is begun anew");
        breaker.close();
        assert!(!breaker.begin_probing());
        assert!(!breaker.note(pass, Verdict::Unreachable, 3), "what began before says nothing any more");
        assert!(breaker.admit().is_some());
        assert_eq!(breaker.times_opened(), 1);
    }

    #[test]
    fn pauses_double_and_begin_anew_only_behind_a_steady_time() {
        let begin = Instant::now();
        let mut backoff = Backoff::new(Duration::from_secs(1));
        backoff.begin(begin);
        let pauses = [(); 7].map(|()| backoff.pause(1.0).as_millis());
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1000, 1000]);
        backoff.end(begin);
        backoff.begin(begin + STEADY / 2);
        assert_eq!(backoff.pause(1.0).as_millis(), 1000, "it wasn't back");
        backoff.end(begin + STEADY);
        backoff.begin(begin + 2 * STEADY);
        assert_eq!(backoff.pause(0.5).as_millis(), 25);
        assert_eq!(backoff.pause(0.0).as_millis(), 0);
        for failed in 0..200 {
            assert!(backoff.pause(2.0) <= Duration::from_secs(1), "{failed}");
        }
    }
}
