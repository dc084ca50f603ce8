//! What the fuzzers assert holds for their seeds, and for a few thousand inputs around them, on a stable compiler and in no time. `fuzz/` has
//! the same functions as targets that run for as long as one likes.

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::path::Path;
use std::{fmt, fs};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("an entry can be read").path())
        .collect();
    files.sort();
    files.iter().map(|file| fs::read(file).expect("a seed can be read")).collect()
}

#[test]
fn every_target_has_a_binary_and_seeds() {
    let binaries = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
    let count = fs::read_dir(&binaries).expect("the targets can be listed").count();
    assert_eq!(count, targets::TARGETS.len(), "a target is missing here, or there");
    for (name, _) in targets::TARGETS {
        assert!(binaries.join(name).with_extension("rs").exists(), "{name} has a binary");
        assert!(seeds(name).len() >= 3, "{name} has seeds");
    }
}

#[test]
fn seeds_keep_what_the_targets_assert() {
    for (name, check) in targets::TARGETS {
        for seed in seeds(name) {
            println!("{name}: {:?}", String::from_utf8_lossy(&seed));
            check(&seed);
        }
    }
}

struct Input(Vec<u8>);

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

/// Pieces of seeds, cut and joined anew, with some noise between: what a fuzzer does, without its sense of direction.
#[test]
fn so_do_inputs_around_them() {
    for (name, check) in targets::TARGETS {
        let pieces: Vec<Vec<u8>> = seeds(name)
            .iter()
            .flat_map(|seed| seed.split_inclusive(|b| b",;= \n".contains(b)).map(<[u8]>::to_vec).collect::<Vec<_>>())
            .collect();
        let noise = prop_oneof![prop::collection::vec(any::<u8>(), 0..4), "[ -~\n]{0,4}".prop_map(String::into_bytes)];
        let piece = prop_oneof![9 => prop::sample::select(pieces), 1 => noise];
        let input = prop::collection::vec(piece, 0..24).prop_map(|pieces| Input(pieces.concat()));
        let config = Config { cases: 1000, failure_persistence: None, ..Config::default() };
        let run = TestRunner::new(config).run(&input, |input| {
            check(&input.0);
            Ok(())
        });
        run.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}
