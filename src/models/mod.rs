//! Models of what threads do to each other: each is run under many schedules by shuttle, which decides at every lock and every atomic which
//! thread goes on. Built only by `scripts/models`, which gives this crate, and nothing else, the flag `--cfg shuttle`.
//!
//! | models | of |
//! |---|---|
//! | `coherence.rs` | two instances that share a log of purges |
//! | `engine.rs` | flights, the purge index, the fill budget and the refreshes, with a store of one lock |
//! | `streaming.rs` | content that several read while it streams, some of whom leave |
//! | `whole.rs` | the cache as its users have it: service, handle, and a handler whose content changes |
//!
//! A model of one more mechanism is one more file here; [`explore`] runs it. Shuttle tries interleavings and no weaker orders of memory than
//! they have: whether `Release` and `Acquire` stand in the right places is left to whoever reads the code.

mod coherence;
mod engine;
mod streaming;
mod whole;

use std::env;

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner};

/// How many schedules all models are tried with, unless `SHUTTLE_ITERATIONS` says how many.
const SCHEDULES: usize = 100_000;

/// How many changes of thread at the worst moment a fault may need for `PctScheduler` to find it likely.
const DEPTH: usize = 3;

/// Runs a model with its part, in thousandths, of all schedules: half of them at random, half with few changes of thread at any
/// moment, which finds what random schedules seldom do. A schedule that fails is printed, for `shuttle::replay`.
fn explore(thousandths: usize, model: impl Fn() + Clone + Send + Sync + 'static) {
    let all = env::var("SHUTTLE_ITERATIONS").map_or(SCHEDULES, |text| text.parse().expect("a number of schedules"));
    let half = (all * thousandths).div_ceil(2000);
    let mut config = Config::new();
    // The whole cache, unoptimised, needs more than a model of a few locks.
    config.stack_size = 1 << 18;
    // That orders weaker than `SeqCst` are taken for it is said above.
    config.silence_warnings = true;
    let random = Runner::new(RandomScheduler::new(half), config.clone()).run(model.clone());
    let pct = Runner::new(PctScheduler::new(DEPTH, half), config).run(model);
    println!("{} schedules", random + pct);
}
