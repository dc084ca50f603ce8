//! Dependencies point down the floors: a file of `src/` uses only modules of its own floor and of those below.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The floors from the ground up, as `ARCHITECTURE.md` shows them. A name is a module of the crate's root.
const FLOORS: [&[&str]; 6] = [
    &["rfc9111"],
    &[
        "byteranges",
        "cached",
        "clock",
        "codec",
        "compression",
        "downstream",
        "error",
        "expiry",
        "fates",
        "form",
        "forwarded",
        "head",
        "shared_head",
        "histogram",
        "hit_status",
        "key",
        "meanings",
        "naming",
        "nearby",
        "outcome",
        "partition",
        "pattern",
        "principal",
        "purge_message",
        "query_rule",
        "read_date",
        "regime",
        "reload",
        "request",
        "response",
        "selector",
        "sent_fields",
        "sync",
        "tally",
        "tags",
        "template",
        "upkeep",
        "variance",
        "words",
    ],
    &["record", "storage"],
    &[
        "admission",
        "adoption",
        "alike",
        "background",
        "behind",
        "boarding",
        "budget",
        "cache",
        "coder",
        "commit",
        "coherence",
        "course",
        "data",
        "description",
        "drops",
        "fill",
        "flight",
        "groups",
        "handover",
        "hit_for_miss",
        "hottest",
        "invalidate",
        "kept_head",
        "labels",
        "leasing",
        "ledger",
        "live",
        "lookup",
        "memoize",
        "memories",
        "missing",
        "neighbours",
        "objects",
        "pieces",
        "plainly",
        "kept_head",
        "plan",
        "policy",
        "post",
        "precedence",
        "purge",
        "purged",
        "purging",
        "queries",
        "query",
        "report",
        "route_stats",
        "rules",
        "search",
        "settings",
        "shared_reads",
        "shelves",
        "spans",
        "starts",
        "stats",
        "strategy",
        "stream",
        "sweep",
        "tagging",
        "target",
        "through",
        "tiers",
        "used",
        "wholes",
    ],
    &[
        "body",
        "decoded",
        "events",
        "explain",
        "extract",
        "confirmed",
        "fetch",
        "follow",
        "future",
        "handle",
        "layer",
        "outbound",
        "posted",
        "representation",
        "respond",
        "at_once",
        "sending",
        "service",
        "standing_in",
        "telling",
        "written",
    ],
    &["admin", "config", "metrics", "models", "simulate"],
];

fn floor_of(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("an entry can be read").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The root modules that a file names as `crate::module`, outside of its tests.
fn used(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let names = lines.flat_map(|line| line.split("crate::").skip(1).map(str::to_owned).collect::<Vec<_>>());
    names.map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()).collect()
}

#[test]
fn dependencies_point_down_the_floors() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut wrong = BTreeMap::new();
    for file in &files {
        let inside = file.strip_prefix(&root).unwrap();
        let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
        let module = first.trim_end_matches(".rs");
        if module == "lib" {
            continue;
        }
        let floor = floor_of(module)
            .unwrap_or_else(|| panic!("src/{first} has no floor: give it one here and in ARCHITECTURE.md"));
        for name in used(&fs::read_to_string(file).unwrap()) {
            // Names that are no modules are what `lib.rs` exports; inside the crate they are used by their modules.
            let below = floor_of(&name).is_some_and(|other| other <= floor);
            if !below {
                wrong.entry(inside.display().to_string()).or_insert_with(Vec::new).push(name);
            }
        }
    }
    assert!(wrong.is_empty(), "these files use modules of a floor above, or none: {wrong:#?}");
    assert!(files.len() > 30, "the files were found");
}

#[test]
fn the_engine_reads_no_clock_and_does_no_io() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/rfc9111"), &mut files);
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for word in ["::now()", "async ", ".await", "std::net", "std::fs", "tokio", "tracing"] {
            assert!(!code.contains(word), "{} contains {word:?}", file.display());
        }
    }
}

#[test]
fn files_can_be_read_in_one_sitting() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    for file in files {
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines <= 500, "{} has {lines} lines: split it by idea", file.display());
    }
}
