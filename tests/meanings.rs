//! Each word has a meaning, a section and what would change it; the guide says the same, and what it names exists.

use std::fmt::Debug;
use std::fs;
use std::path::Path;

use larder::{
    BypassReason, DeclineReason, ForwardReason, LifetimeSource, MissCause, Outcome, StaleReason, ValidateReason,
};

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("the file is there")
}

/// A word with its row.
#[derive(Debug)]
struct Row {
    word: &'static str,
    meaning: &'static str,
    section: &'static str,
    remedy: Option<&'static str>,
}

macro_rules! rows {
    ($values:expr) => {
        $values
            .into_iter()
            .map(|value| Row {
                word: value.as_str(),
                meaning: value.meaning(),
                section: value.section(),
                remedy: value.remedy(),
            })
            .collect::<Vec<_>>()
    };
}

/// The tables of the guide by their headings, with the rows that belong there.
fn tables() -> [(&'static str, Vec<Row>); 7] {
    use LifetimeSource::*;
    let sources = [Handler, Override, Targeted, SMaxage, MaxAge, Expires, Rule, Heuristic];
    let reasons =
        [ValidateReason::Stale, ValidateReason::NoCache, ValidateReason::Request, ValidateReason::Authorization];
    [
        ("### Why a request bypasses", rows!(BypassReason::ALL)),
        ("### Why a response isn't stored", rows!(DeclineReason::ALL)),
        ("### Why the handler is asked", rows!(ForwardReason::ALL)),
        ("### Why something stale is sent", rows!(StaleReason::ALL)),
        ("Who gave a stored response its lifetime:", rows!(sources)),
        ("Why it may not be sent without asking the handler", rows!(reasons)),
        ("What had become of what a request asked for", rows!(MissCause::ALL)),
    ]
}

#[test]
fn the_guide_says_of_each_word_what_the_program_says() {
    let guide = read("docs/guide.md");
    for (heading, rows) in tables() {
        let (_, below) = guide.split_once(heading).unwrap_or_else(|| panic!("no {heading}"));
        let table =
            below.split_once("|---|---|---|---|\n").expect("a table").1.split("\n\n").next().unwrap_or_default();
        let said: Vec<Vec<&str>> =
            table.lines().map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect()).collect();
        assert_eq!(said.len(), rows.len(), "{heading}");
        for (said, row) in said.iter().zip(&rows) {
            let [word, meaning, section, remedy] = said[..] else { panic!("{heading}: {said:?}") };
            assert_eq!(word, format!("`{}`", row.word), "{heading}");
            // The guide may say more than a terminal wants to show.
            let more = meaning.strip_prefix(row.meaning).unwrap_or_else(|| panic!("{}: {meaning}", row.word));
            assert!(more.is_empty() || more.starts_with([':', ';', '.']), "{}: {more}", row.word);
            assert_eq!((section, remedy), (row.section, row.remedy.unwrap_or("–")), "{}", row.word);
        }
    }
}

#[test]
fn sections_are_those_of_an_rfc_or_say_who_else_decided() {
    let outcomes = Outcome::all().map(|outcome| (format!("{outcome:?}"), outcome.meaning(), outcome.section()));
    let rows = tables().into_iter().flat_map(|(_, rows)| rows);
    for (word, meaning, section) in outcomes.chain(rows.map(|row| (row.word.to_owned(), row.meaning, row.section))) {
        let of_rfc = section.strip_prefix("RFC ").and_then(|rest| rest.split_once(" §"));
        let is_section = |text: &str| text.split('.').all(|number| number.parse::<u8>().is_ok());
        let known = of_rfc.is_some_and(|(number, section)| number.parse::<u16>().is_ok() && is_section(section))
            || matches!(section, "safe default" | "as set" | "limit");
        assert!(known, "{word}: {section}");
        assert!(!meaning.is_empty() && !meaning.ends_with('.') && meaning.len() < 160, "{word}: {meaning}");
    }
}

#[test]
fn what_a_remedy_names_exists() {
    let files = [
        ("Policy", "src/policy/mod.rs src/policy/ends.rs src/policy/shadow.rs src/post.rs"),
        ("CacheLayer", "src/layer.rs"),
        ("CacheHandle", "src/handle.rs"),
        ("Cached", "src/cached.rs"),
    ];
    let has = |name: &str| {
        let Some((owner, function)) = name.split_once("::") else { return true };
        let known = files.iter().find(|(known, _)| *known == owner);
        let (_, paths) = known.unwrap_or_else(|| panic!("{owner} of {name} isn't known here"));
        paths.split(' ').any(|path| read(path).contains(&format!("pub fn {function}")))
    };
    let remedies = tables().into_iter().flat_map(|(_, rows)| rows).filter_map(|row| row.remedy);
    let remedies = remedies.chain(Outcome::all().filter_map(|outcome| outcome.remedy()));
    let mut named = 0;
    for remedy in remedies {
        for name in remedy.split('`').skip(1).step_by(2) {
            assert!(has(name), "{name}");
            named += usize::from(name.contains("::"));
        }
    }
    assert!(named > 30, "{named}");
}

#[test]
fn each_word_is_told_apart_from_others_of_its_kind() {
    fn distinct<T: Debug + Ord>(values: impl IntoIterator<Item = T>) {
        let mut values: Vec<T> = values.into_iter().collect();
        let count = values.len();
        values.sort();
        values.dedup();
        assert_eq!(values.len(), count, "{values:?}");
    }
    for (_, rows) in tables() {
        distinct(rows.iter().map(|row| row.word));
        distinct(rows.iter().map(|row| row.meaning));
    }
}
