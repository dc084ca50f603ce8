//! [`Pattern`]: which paths are meant by a glob or a regular expression. What it is made from may come from anybody, so its length and what it compiles to are
//! bounded, and it is matched in linear time.

use std::sync::Arc;

use regex::bytes::{Regex, RegexBuilder};

/// The longest pattern, in bytes.
const LONGEST: usize = 1024;

/// What a pattern may compile to, in bytes: more than any that a person writes, and made in a few milliseconds.
const LARGEST: usize = 256 << 10;

/// A glob or a regular expression over paths; clones share what it compiled to. Two are equal if they are written alike.
#[derive(Clone, Debug)]
pub(crate) struct Pattern(Arc<Compiled>);

#[derive(Debug)]
struct Compiled {
    regex: Regex,
    /// As it was written.
    text: Box<str>,
    is_glob: bool,
    /// With what every text that is meant begins; empty where that isn't known.
    prefix: String,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.regex.as_str() == other.0.regex.as_str()
    }
}

/// A pattern that can't be used, and why.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed {
    pub(crate) pattern: String,
    pub(crate) reason: String,
}

impl Pattern {
    /// `*` is any run of characters, `/` too; `?` is one character; `\` takes the meaning from what follows.
    pub(crate) fn glob(text: &str) -> Result<Self, Malformed> {
        let malformed = |reason: String| Malformed { pattern: beginning(text), reason };
        check(text).map_err(malformed)?;
        let (mut regex, mut prefix, mut is_literal) = (String::from(r"(?s)\A"), String::new(), true);
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            let wildcard = match character {
                '*' => {
                    // Any number of them says no more than one.
                    while characters.next_if_eq(&'*').is_some() {}
                    // By bytes, of which there are fewer to tell apart than of characters; what follows begins with one.
                    Some("(?-u:.)*")
                }
                '?' => Some("."),
                _ => None,
            };
            if let Some(wildcard) = wildcard {
                is_literal = false;
                regex.push_str(wildcard);
                continue;
            }
            let literal = match character {
                '\\' => characters.next().ok_or_else(|| malformed("it ends in a lone backslash".into()))?,
                other => other,
            };
            regex.push_str(&regex::escape(literal.encode_utf8(&mut [0; 4])));
            if is_literal {
                prefix.push(literal);
            }
        }
        regex.push_str(r"\z");
        Ok(Self(Arc::new(Compiled {
            regex: compile(&regex).map_err(malformed)?,
            text: text.into(),
            is_glob: true,
            prefix,
        })))
    }

    /// Finds a match anywhere, unless it is tied to an end.
    pub(crate) fn regex(text: &str) -> Result<Self, Malformed> {
        let compiled = check(text).and_then(|()| compile(text));
        let regex = compiled.map_err(|reason| Malformed { pattern: beginning(text), reason })?;
        Ok(Self(Arc::new(Compiled { regex, text: text.into(), is_glob: false, prefix: String::new() })))
    }

    /// As it was written.
    pub(crate) fn text(&self) -> &str {
        &self.0.text
    }

    /// Whether it is a glob; else it is a regular expression.
    pub(crate) fn is_glob(&self) -> bool {
        self.0.is_glob
    }

    /// Whether a text is meant.
    pub(crate) fn is_match(&self, text: &str) -> bool {
        self.0.regex.is_match(text.as_bytes())
    }

    /// Whether some text that begins with `start` may be meant; in doubt it may.
    pub(crate) fn may_continue(&self, start: &str) -> bool {
        self.0.prefix.starts_with(start) || start.starts_with(&self.0.prefix)
    }
}

/// What patterns may mean.
pub(crate) trait Meant {
    /// Whether a pattern means it; in doubt it does.
    fn is_meant_by(&self, pattern: &Pattern) -> bool;
}

fn check(text: &str) -> Result<(), String> {
    if text.len() > LONGEST {
        return Err(format!("it is longer than {LONGEST} bytes"));
    }
    if text.is_empty() {
        return Err("it is empty".into());
    }
    match text.chars().find(|character| character.is_control()) {
        Some(control) => Err(format!("it has the control character {:?}", control)),
        None => Ok(()),
    }
}

fn compile(text: &str) -> Result<Regex, String> {
    let regex = RegexBuilder::new(text).size_limit(LARGEST).dfa_size_limit(LARGEST).nest_limit(50).build();
    regex.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => "what it compiles to is too large".into(),
        other => other.to_string(),
    })
}

/// As much of a pattern as an error may repeat.
fn beginning(text: &str) -> String {
    let mut end = text.len().min(100);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].into()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn globs() {
        let rows = [
            ("/a", "/a", true),
            ("/a", "/ab", false),
            ("/a", "x/a", false),
            ("/a*", "/a", true),
            ("/a*", "/a/b/c?d=e", true),
            ("/a/*/c", "/a/b/b/c", true),
            ("/a/*/c", "/a/c", false),
            ("*", "", true),
            ("*.css", "/x/y.css", true),
            ("*.css", "/x/y.css?v=1", false),
            ("*.css*", "/x/y.css?v=1", true),
            ("/a?", "/ab", true),
            ("/a?", "/a?", true),
            ("/a?", "/a", false),
            ("/a\\?b=*", "/a?b=1", true),
            ("/a\\?b=*", "/axb=1", false),
            ("/a\\*", "/a*", true),
            ("/a\\*", "/ab", false),
            ("/a\\\\b", "/a\\b", true),
            ("/(a|b)+", "/(a|b)+", true),
            ("/(a|b)+", "/a", false),
            ("/[ab]", "/[ab]", true),
            ("/^a$", "/^a$", true),
            ("/\u{e4}?", "/\u{e4}\u{f6}", true),
            ("*a*", "\n\na\n", true),
        ];
        for (glob, text, expected) in rows {
            assert_eq!(Pattern::glob(glob).unwrap().is_match(text), expected, "{glob:?} on {text:?}");
        }
    }

    #[test]
    fn regular_expressions() {
        let rows = [("^/a", "/ab", true), ("/b$", "/a/b", true), ("/b$", "/b/a", false), ("b=1", "/a?b=12", true)];
        for (regex, text, expected) in rows {
            assert_eq!(Pattern::regex(regex).unwrap().is_match(text), expected, "{regex:?} on {text:?}");
        }
    }

    #[test]
    fn how_a_match_may_go_on() {
        let rows = [
            ("/a\\?x=*", "/a?", true),
            ("/a\\?x=*", "/b?", false),
            ("/a*", "/a/b?", true),
            ("*", "/a?", true),
            ("/a?x", "/a?", true),
        ];
        for (glob, start, expected) in rows {
            assert_eq!(Pattern::glob(glob).unwrap().may_continue(start), expected, "{glob:?} after {start:?}");
        }
        assert!(Pattern::regex("^/a$").unwrap().may_continue("/b?"), "nobody knows");
    }

    #[test]
    fn what_is_refused_is_refused_with_its_reason_and_at_once() {
        let rows: [(&str, String, &str); 10] = [
            ("glob", "a".repeat(1 << 20), "longer than 1024"),
            ("glob", "*".repeat(10_000), "longer than 1024"),
            ("glob", "/a\\".into(), "lone backslash"),
            ("glob", "/a\nb".into(), "control character '\\n'"),
            ("glob", String::new(), "empty"),
            ("regex", "a".repeat(1 << 20), "longer than 1024"),
            ("regex", "/a\0".into(), "control character '\\0'"),
            ("regex", "(".into(), "unclosed group"),
            ("regex", r"(\pL{100}){100}".into(), "too large"),
            ("regex", "(".repeat(500) + &")".repeat(500), "nest"),
        ];
        for (kind, text, expected) in rows {
            let began = Instant::now();
            let made = if kind == "glob" { Pattern::glob(&text) } else { Pattern::regex(&text) };
            let Malformed { pattern, reason } = made.unwrap_err();
            assert!(reason.contains(expected), "{reason:?} instead of {expected:?}");
            assert!(text.starts_with(&pattern) && pattern.len() <= 100);
            assert!(began.elapsed() < Duration::from_secs(5), "{expected} took {:?}", began.elapsed());
        }
    }

    #[test]
    fn what_looks_dangerous_and_is_allowed_is_harmless() {
        let path = format!("/{}b", "a".repeat(8000));
        let stars = "*a".repeat(500) + "c";
        let rows = [
            ("regex", "(a*)*$", true),
            ("regex", "^/(a|a)*$", false),
            ("regex", "(a?){50}a{50}c", false),
            ("glob", &stars, false),
            ("glob", &"*".repeat(1024), true),
        ];
        for (kind, text, expected) in rows {
            let began = Instant::now();
            let made = if kind == "glob" { Pattern::glob(text) } else { Pattern::regex(text) };
            assert_eq!(made.unwrap().is_match(&path), expected, "{text:.20}");
            assert!(began.elapsed() < Duration::from_secs(5), "{text:.20} took {:?}", began.elapsed());
        }
    }

    /// As simple as a glob can be read.
    fn naive(glob: &[char], text: &[char]) -> bool {
        match (glob, text) {
            ([], _) => text.is_empty(),
            (['*', rest @ ..], _) => (0..=text.len()).any(|skipped| naive(rest, &text[skipped..])),
            (['\\', escaped, rest @ ..], [first, after @ ..]) => escaped == first && naive(rest, after),
            (['\\', ..], _) => false,
            (['?', rest @ ..], [_, after @ ..]) => naive(rest, after),
            ([literal, rest @ ..], [first, after @ ..]) => literal == first && naive(rest, after),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn a_glob_matches_what_the_naive_reading_does(glob in r"([ab/.+*?]|\\[ab*?\\]){1,8}", text in r"[ab/.+*?\\]{0,8}") {
            let characters = |text: &str| text.chars().collect::<Vec<_>>();
            let pattern = Pattern::glob(&glob).unwrap();
            let expected = naive(&characters(&glob), &characters(&text));
            prop_assert_eq!(pattern.is_match(&text), expected, "{:?} on {:?}", glob, text);
            for end in 0..=text.len() {
                prop_assert!(!expected || pattern.may_continue(&text[..end]), "{:?} after {:?}", glob, &text[..end]);
            }
        }
    }
}
