//! [`Starts`]: which of many patterns a path matches first. Most patterns say how a path begins, so the few that begin as it does are found by that, and only those are tried: what a
//! path costs depends on how many begin alike, and hardly on how many there are.

use std::collections::BTreeMap;

use regex::{Regex, RegexSet, RegexSetBuilder};
use regex_syntax::hir::{Hir, HirKind, Literal, Look};

/// Patterns in their order, by how a path begins that they match.
#[derive(Debug)]
pub(crate) struct Starts {
    /// Sorted by text, each once.
    starts: Vec<Start>,
}

#[derive(Debug)]
struct Start {
    text: String,
    /// The longest other one that this one begins with.
    within: Option<usize>,
    /// The first pattern that matches whatever begins so.
    prefix: Option<usize>,
    /// The first pattern that matches just this.
    exact: Option<usize>,
    others: Others,
}

/// Patterns that have to be tried, by their places.
#[derive(Debug)]
enum Others {
    Few(Vec<(usize, Regex)>),
    Many(RegexSet, Vec<usize>),
}

/// Up to this many are tried one after another, which costs less than one look into a set.
const FEW: usize = 4;

/// What a pattern comes to.
enum Kind {
    Prefix(String),
    Exact(String),
    Other(String),
}

impl Starts {
    /// Of patterns that are regular expressions; what isn't one matches nothing.
    pub(crate) fn new<'a>(patterns: impl Iterator<Item = &'a str>) -> Self {
        let mut sorted: BTreeMap<String, Vec<(usize, &str, Kind)>> = BTreeMap::new();
        for (place, pattern) in patterns.enumerate() {
            let kind = Kind::of(pattern);
            sorted.entry(kind.start().to_owned()).or_default().push((place, pattern, kind));
        }
        let mut starts: Vec<Start> = Vec::with_capacity(sorted.len());
        for (text, patterns) in sorted {
            let mut within = starts.len().checked_sub(1);
            while let Some(n) = within.filter(|n| !text.starts_with(&starts[*n].text)) {
                within = starts[n].within;
            }
            let first = |is: fn(&Kind) -> bool| patterns.iter().find(|(.., kind)| is(kind)).map(|(place, ..)| *place);
            let others = patterns.iter().filter(|(.., kind)| matches!(kind, Kind::Other(_)));
            starts.push(Start {
                prefix: first(|kind| matches!(kind, Kind::Prefix(_))),
                exact: first(|kind| matches!(kind, Kind::Exact(_))),
                others: Others::new(others.map(|(place, pattern, _)| (*place, *pattern)).collect()),
                text,
                within,
            });
        }
        Self { starts }
    }

    /// The place of the first pattern that matches.
    pub(crate) fn first(&self, path: &str) -> Option<usize> {
        // Whatever the path begins with is not above it, and between the longest of these and the path is nothing that doesn't begin with that.
        let mut next = self.starts.partition_point(|start| start.text.as_str() <= path).checked_sub(1);
        let mut first = usize::MAX;
        while let Some(start) = next.and_then(|n| self.starts.get(n)) {
            if path.starts_with(&start.text) {
                first = first.min(start.first(path, first));
            }
            next = start.within;
        }
        (first < usize::MAX).then_some(first)
    }
}

impl Start {
    /// The place of the first pattern here that matches what begins so, where it is before `bound`; else a larger number.
    fn first(&self, path: &str, bound: usize) -> usize {
        let exact = self.exact.filter(|_| path.len() == self.text.len());
        let bound = [self.prefix, exact].into_iter().flatten().fold(bound, usize::min);
        let other = match &self.others {
            Others::Few(few) => few
                .iter()
                .take_while(|(place, _)| *place < bound)
                .find(|(_, regex)| regex.is_match(path))
                .map(|of| of.0),
            Others::Many(set, places) => set.matches(path).iter().next().and_then(|n| places.get(n)).copied(),
        };
        other.map_or(bound, |other| other.min(bound))
    }
}

impl Others {
    fn new(patterns: Vec<(usize, &str)>) -> Self {
        if patterns.len() > FEW {
            let set = RegexSetBuilder::new(patterns.iter().map(|(_, pattern)| pattern)).size_limit(usize::MAX).build();
            if let Ok(set) = set {
                return Self::Many(set, patterns.into_iter().map(|(place, _)| place).collect());
            }
        }
        Self::Few(
            patterns.into_iter().filter_map(|(place, pattern)| Some((place, Regex::new(pattern).ok()?))).collect(),
        )
    }
}

impl Kind {
    /// Read out of what the pattern is made of, since its text has too many ways to hide what it means. What can't be read doesn't match either.
    fn of(pattern: &str) -> Self {
        let Ok(hir) = regex_syntax::parse(pattern) else { return Self::Other(String::new()) };
        let parts = match hir.kind() {
            HirKind::Concat(parts) => parts.as_slice(),
            _ => std::slice::from_ref(&hir),
        };
        let [first, rest @ ..] = parts else { return Self::Other(String::new()) };
        if *first.kind() != HirKind::Look(Look::Start) {
            return Self::Other(String::new());
        }
        let (text, rest) = literal(rest);
        match rest {
            [] => Self::Prefix(text),
            [end] if *end.kind() == HirKind::Look(Look::End) => Self::Exact(text),
            _ => Self::Other(text),
        }
    }

    fn start(&self) -> &str {
        let (Self::Prefix(text) | Self::Exact(text) | Self::Other(text)) = self;
        text
    }
}

/// The text that the parts begin with, and the parts behind it.
fn literal(parts: &[Hir]) -> (String, &[Hir]) {
    let text = parts.first().and_then(|part| match part.kind() {
        HirKind::Literal(Literal(bytes)) => std::str::from_utf8(bytes).ok(),
        _ => None,
    });
    text.map_or((String::new(), parts), |text| (text.to_owned(), &parts[1..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PATTERNS: [&str; 61] = [
        "^/a[|]",
        "^/a[]|(]b|^/x",
        "^/a[^]|]b|^/b",
        "^/a[\\]|]|^/d",
        "^/a[[:alpha:]|]|^/b",
        "^/a\\||^/b",
        "^/ab(?:c|d)",
        "^/a(?x: # (\n)|^/b",
        "^/a(?P<n>b|c)d",
        "^/a(?<n>b|c)?|^/z",
        "^/section/[0-9]+/(x|y)z?$",
        "^/a(b[)]|c)|^/x",
        "^/a/b",
        "^/a/b$",
        "^/a",
        "^/a.b",
        "^/a\\.b$",
        "^",
        "^$",
        "/a",
        "^/a-b_c/",
        "^/a|^/b",
        "^/[ab]$",
        "x$",
        "^/ab?c",
        "^/ab*c",
        "^/ab+c",
        "^/ab{0,1}c",
        "^/a(b|c)d",
        "^/a(b|c)|/d",
        "^/a[(]x|^/b",
        "^/a\\(x|^/b",
        "(?i)^/A",
        "^/a(?i)B",
        "^/section/[0-9]+/(x|y)$",
        "^/section/",
        "^/section/1",
        "b",
        "^/é",
        "^/a/b/c",
        "^/a/",
        "^a",
        "^/A",
        "$",
        "^/x{2}",
        "^/x",
        "^/a[^^]b|^/c[0-9]",
        "^/ab+*c",
        "^/ab+{0}c",
        "^/ab+??c",
        "(?m)^/a",
        "^(?i)/a",
        "^/(?i)a",
        "^/(?x)a b",
        "^/\\x61",
        "^\\pL",
        "\\A/a\\z",
        "^(|/a)b",
        "^(/a|/b)$",
        "^^/a$",
        "^/a||",
    ];

    const PATHS: [&str; 35] = [
        "",
        "/",
        "/a",
        "/b",
        "/a/b",
        "/a/b/",
        "/axb",
        "/a.b",
        "/x/a/b",
        "/a-b_c/d",
        "/a/b\n",
        "/ac",
        "/abc",
        "/abbc",
        "/abd",
        "/acd",
        "/d",
        "/x/d",
        "/a(x",
        "/A",
        "/aB",
        "/section/12/x",
        "/section/12/z",
        "/section/",
        "/section/1",
        "/é",
        "/éa",
        "/a/b/c",
        "/a/b/c/d",
        "a",
        "/xx",
        "/x",
        "b",
        "/zzz",
        "/c1",
    ];

    #[test]
    fn the_first_that_matches_is_the_one_that_trying_all_in_turn_finds() {
        let regexes = PATTERNS.map(|pattern| Regex::new(pattern).expect("it is one"));
        // Any of them stands before any other.
        for turn in 0..PATTERNS.len() {
            for length in [3, PATTERNS.len()] {
                let forwards: Vec<_> = (0..length).map(|n| (turn + n) % PATTERNS.len()).collect();
                let backwards = forwards.iter().rev().copied().collect();
                for order in [forwards, backwards] {
                    let starts = Starts::new(order.iter().map(|n| PATTERNS[*n]));
                    for path in PATHS {
                        let expected = order.iter().position(|n| regexes[*n].is_match(path));
                        assert_eq!(starts.first(path), expected, "{path:?} {order:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn many_that_begin_alike_are_one_set() {
        let patterns: Vec<_> = (0..50).map(|n| format!("^/api/v[0-9]/{n}$")).collect();
        let starts = Starts::new(patterns.iter().map(String::as_str));
        assert_eq!(starts.starts.len(), 1);
        assert_eq!(starts.first("/api/v3/17"), Some(17));
        assert_eq!(starts.first("/api/v3/99"), None);
    }

    /// What patterns are put together of, those among them that none can begin with.
    const PIECES: [&str; 38] = [
        "^", "^", "$", "/", "/", "a", "b", "é", ".", "|", "(", "(?:", "(?i)", "(?i:", "(?m)", "(?x)", "(?-u)", "(?R)",
        "(?s)", ")", ")", "[", "[^", "^]", "]", "]", "?", "*", "+", "??", "{0}", "{0,1}", "{1}", "\\x61", "\\/",
        "\\pL", "\\A", "\\z",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn whatever_a_pattern_is_made_of_it_matches_as_a_regex_does(
            is_anchored: bool,
            pieces in proptest::collection::vec(proptest::sample::select(&PIECES[..]), 0..8),
            paths in proptest::collection::vec("[/abAé ^\n]{0,4}", 8),
        ) {
            let pattern = format!("{}{}", if is_anchored { "^/" } else { "" }, pieces.concat());
            let regex = Regex::new(&pattern).ok();
            let starts = Starts::new([pattern.as_str()].into_iter());
            for path in &paths {
                let expected = regex.as_ref().filter(|regex| regex.is_match(path)).map(|_| 0);
                prop_assert_eq!(starts.first(path), expected, "{} {:?}", pattern, path);
            }
        }
    }
}
