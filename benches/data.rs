#[path = "support/mod.rs"]
mod support;

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use larder::{Clock, ObjectCache, SystemClock};
use support::median;
use support::report::Report;

const ROUNDS: usize = 201;
const CALLS: u32 = 2000;

fn time(calls: u32, what: &dyn Fn()) -> f64 {
    let began = Instant::now();
    (0..calls).for_each(|_| what());
    began.elapsed().as_nanos() as f64 / f64::from(calls)
}

fn main() -> ExitCode {
    let mut report = Report::default();
    let bare = moka::sync::Cache::<u64, Arc<u64>>::new(10_000);
    let hasher = ahash::RandomState::new();
    let same = moka::sync::Cache::<u64, Arc<u64>>::builder().max_capacity(10_000).build_with_hasher(hasher.clone());
    let objects = ObjectCache::<u64, u64>::new("bench", 10_000);
    for n in 0..5000 {
        bare.insert(n, Arc::new(n));
        same.insert(n, Arc::new(n));
        objects.insert(n, n);
    }
    let clock = SystemClock::default();
    let names: [(&str, &dyn Fn()); 4] = [
        ("bare", &|| drop(black_box(bare.get(black_box(&17))))),
        ("same", &|| drop(black_box(same.get(black_box(&17))))),
        ("objects", &|| drop(black_box(objects.get(black_box(&17))))),
        ("clock", &|| {
            black_box(clock.now());
        }),
    ];
    let mut samples = names.map(|_| Vec::new());
    for round in 0..ROUNDS {
        for n in 0..names.len() {
            let place = (round + n) % names.len();
            samples[place].push(time(CALLS, names[place].1));
        }
    }
    for ((name, _), samples) in names.iter().zip(samples) {
        report.for_information(name, &format!("{:.0} ns", median(samples)));
    }
    report.finish()
}
