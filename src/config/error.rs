//! [`ConfigError`]: what is wrong with a configuration, and where.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use crate::reload::ReloadError;

/// A configuration that can't be used. At a reload, the running one stays.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file can't be read.
    #[error("{}: the configuration can't be read: {source}", file.display())]
    Read {
        /// Its path as given.
        file: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The text is wrong, in one place or in several.
    #[error("{}", written(.0))]
    Invalid(Vec<Problem>),
    /// A running cache can't change so.
    #[error(transparent)]
    Reload(#[from] ReloadError),
}

impl ConfigError {
    /// The places that are wrong, in the order of the text; empty where it isn't the text.
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Invalid(problems) => problems,
            Self::Read { .. } | Self::Reload(_) => &[],
        }
    }
}

/// One thing that is wrong. It displays with the line it is in:
///
/// ```text
/// larder.toml:4:1: rule[0].tll: unknown field; did you mean `ttl`?
///   |
/// 4 | tll = "5m"
///   | ^^^
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The file, or `configuration` for a text that came from none.
    pub file: String,
    /// The line, beginning with 1.
    pub line: usize,
    /// The column in characters, beginning with 1.
    pub column: usize,
    /// The field, such as `rule[0].status_ttl.404`; rules are counted from 0, as in `CacheOutcome::rule`. Empty where the text is no TOML.
    pub field: String,
    /// What is wrong, and what would be right.
    pub message: String,
    text: String,
    length: usize,
}

/// A problem in a text, before its place was counted.
pub(super) struct Found {
    pub(super) span: Range<usize>,
    pub(super) field: String,
    pub(super) message: String,
}

impl Problem {
    pub(super) fn locate(file: &str, text: &str, found: Found) -> Self {
        let at = floor(text, found.span.start);
        let end = floor(text, found.span.end).max(at);
        let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let stop = text[at..].find('\n').map_or(text.len(), |newline| at + newline);
        let line = text[start..stop].trim_end_matches('\r');
        Self {
            file: file.into(),
            line: text[..at].matches('\n').count() + 1,
            column: text[start..at].chars().count() + 1,
            field: found.field,
            message: found.message,
            text: line.into(),
            length: text[at..end.min(stop)].chars().count().max(1),
        }
    }
}

/// The nearest place at or before `at` where a character begins.
fn floor(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default()
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, field, message, text, length } = self;
        write!(f, "{file}:{line}:{column}: ")?;
        if !field.is_empty() {
            write!(f, "{field}: ")?;
        }
        let (number, caret) = (line.to_string(), "^".repeat(*length));
        let margin = " ".repeat(number.len());
        // Tabs stay, so that the caret is below its place however wide they are.
        let indent: String = text.chars().take(column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        write!(f, "{message}\n{margin} |\n{number} | {text}\n{margin} | {indent}{caret}")
    }
}

fn written(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n\n")
}
