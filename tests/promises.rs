//! Every promise in SECURITY.md names the test that keeps it, and that test exists.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

fn read(path: &str) -> Option<String> {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).ok()
}

/// The items of the list of promises, each in one line.
fn promises() -> Vec<String> {
    let text = read("SECURITY.md").expect("SECURITY.md is there");
    let section = text.split("\n## What is promised by default\n").nth(1).expect("the section is there");
    let section = section.split("\n## ").next().unwrap_or_default();
    let mut items: Vec<String> = Vec::new();
    for line in section.lines() {
        if let Some(item) = line.strip_prefix("- ") {
            items.push(item.to_owned());
        } else if let (Some(rest), Some(item)) = (line.strip_prefix("  "), items.last_mut()) {
            item.push(' ');
            item.push_str(rest);
        }
    }
    items
}

/// The tests that an item names: `file::function` in backticks.
fn named(item: &str) -> Vec<(String, String)> {
    let quoted = item.split('`').skip(1).step_by(2);
    let is_name =
        |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b"_0123456789".contains(&b));
    quoted
        .filter_map(|text| text.split_once("::"))
        .filter(|(file, function)| is_name(file) && is_name(function))
        .map(|(file, function)| (file.to_owned(), function.to_owned()))
        .collect()
}

/// Whether `text` has a test of this name: a function under an attribute that makes it one, or one inside of `proptest!`.
fn has_test(text: &str, function: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.iter().enumerate().any(|(n, line)| {
        let is_it = ["fn ", "async fn "].iter().any(|start| {
            line.strip_prefix(start)
                .is_some_and(|rest| rest.strip_prefix(function).is_some_and(|rest| rest.starts_with('(')))
        });
        let above = lines[..n].iter().rev().take_while(|line| line.starts_with("#[") || line.starts_with("///"));
        is_it && above.into_iter().any(|line| *line == "#[test]" || line.starts_with("#[tokio::test"))
    })
}

#[test]
fn each_promise_names_a_test_of_its_own_that_exists() {
    let items = promises();
    assert!(items.len() >= 30, "the list was found: {}", items.len());
    let mut seen = HashSet::new();
    for item in &items {
        let tests = named(item);
        assert_eq!(tests.len(), 1, "one test for each promise: {item}");
        for (file, function) in tests {
            let text = read(&format!("tests/{file}.rs")).unwrap_or_else(|| panic!("no tests/{file}.rs: {item}"));
            assert!(has_test(&text, &function), "tests/{file}.rs has no test {function}: {item}");
            assert!(seen.insert((file, function)), "named for another promise already: {item}");
        }
    }
}

#[test]
fn a_test_is_told_from_what_only_looks_like_one() {
    let text = "#[test]\nfn one() {}\n\nfn helper() {}\n    #[tokio::test]\n    /// Said.\n    async fn two() {}\n// fn three() {}";
    for (function, expected) in [("one", true), ("two", true), ("helper", false), ("three", false), ("on", false)] {
        assert_eq!(has_test(text, function), expected, "{function}");
    }
    assert_eq!(named("a `b::c` and `Policy::per` and `d`"), [("b".to_owned(), "c".to_owned())]);
}

#[test]
fn the_crate_forbids_unsafe_code() {
    assert!(read("src/lib.rs").expect("src/lib.rs is there").contains("\n#![forbid(unsafe_code)]\n"));
}
