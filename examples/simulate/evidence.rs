//! The comparison of eviction policies: the same traces, the same room, and who leaves differs.

use std::io;
use std::time::Duration;

use larder::simulate::{Eviction, Simulation, Synthetic};
use larder::{CacheLayer, Policy};

const POLICIES: [(&str, Eviction); 5] = [
    ("TinyLFU", Eviction::TinyLfu),
    ("told of every read", Eviction::TinyLfuEveryRead),
    ("LRU", Eviction::Lru),
    ("FIFO", Eviction::Fifo),
    ("S3-FIFO", Eviction::S3Fifo),
];

const KEYS: u64 = 20_000;

/// What all keys together take, about.
const ALL: u64 = 277 << 20;

/// A table in Markdown of the hit rate and the byte hit rate.
pub fn print(requests: u64) -> io::Result<()> {
    let names: Vec<_> = POLICIES.iter().map(|(name, _)| *name).collect();
    println!("| trace | room | {} |\n|---|---|{}", names.join(" | "), "---|".repeat(names.len()));
    for (name, trace) in traces(requests) {
        for (room, capacity) in [("1 %", ALL / 100), ("10 %", ALL / 10)] {
            let layer = CacheLayer::in_memory(capacity).otherwise(Policy::shared(Duration::from_secs(3600)));
            let mut row = format!("| {name} | {room} |");
            for (_, eviction) in POLICIES {
                let outcome = Simulation::new(&layer).eviction(eviction).run(trace(capacity))?;
                row += &format!(" {:.1} ({:.1}) |", 100.0 * outcome.hit_rate(), 100.0 * outcome.byte_hit_rate());
            }
            println!("{row}");
        }
    }
    Ok(())
}

type Made = Box<dyn Fn(u64) -> Synthetic>;

fn traces(requests: u64) -> Vec<(&'static str, Made)> {
    let zipf = move |exponent| Synthetic::zipf(KEYS, exponent).requests(requests).seed(1);
    vec![
        ("Zipf 0.7", Box::new(move |_| zipf(0.7))),
        ("Zipf 0.9", Box::new(move |_| zipf(0.9))),
        ("Zipf 1.1", Box::new(move |_| zipf(1.1))),
        ("Zipf 0.9, a fifth is a crawler's", Box::new(move |_| zipf(0.9).scan(0.2))),
        ("Zipf 0.9, half is a crawler's", Box::new(move |_| zipf(0.9).scan(0.5))),
        ("Zipf 0.9, other keys are popular ten times", Box::new(move |_| zipf(0.9).shift(requests / 10))),
        (
            "all in turn, a tenth more than there is room for",
            Box::new(move |capacity| {
                Synthetic::cyclic((capacity as f64 / ALL as f64 * KEYS as f64 * 1.1) as u64).requests(requests).seed(1)
            }),
        ),
    ]
}
