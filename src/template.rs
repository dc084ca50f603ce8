//! [`Template`]: a text with references to what a rule's pattern captured of a path, such as `product:$1`. A reference to what the pattern
//! doesn't capture is refused when the rule is set up, and not found out when it would count.

use std::borrow::Cow;

use regex::{Captures, Regex};
use smallvec::SmallVec;

/// A text whose references were found in a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template(SmallVec<[Piece; 2]>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// What the group with this number captured.
    Group(usize),
}

impl Template {
    /// Reads `$1`, `${1}`, `$name` and `${name}`; `$$` is a dollar. Without a pattern there is nothing to refer to. The error is a sentence.
    pub(crate) fn parse(text: &str, pattern: Option<&Regex>) -> Result<Self, String> {
        let (mut pieces, mut literal, mut rest) = (SmallVec::new(), String::new(), text);
        while let Some(at) = rest.find('$') {
            literal.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                literal.push('$');
                rest = after;
                continue;
            }
            let (name, after) =
                reference(rest).ok_or("a `$` has to be followed by a number or a name; `$$` is a dollar")?;
            rest = after;
            if !literal.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut literal)));
            }
            pieces.push(Piece::Group(group(name, pattern)?));
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal));
        }
        Ok(Self(pieces))
    }

    /// Whether it is another text for each path.
    pub(crate) fn refers(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Group(_)))
    }

    /// The text with what was captured, as `put` puts it; `None` where it refers to what wasn't matched at all. A group that took no part in the
    /// match is empty.
    pub(crate) fn expand(&self, captures: Option<&Captures<'_>>, put: impl Fn(&str) -> Cow<'_, str>) -> Option<String> {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(literal) => text.push_str(literal),
                Piece::Group(n) => text.push_str(&put(captures?.get(*n).map_or("", |part| part.as_str()))),
            }
        }
        Some(text)
    }
}

/// What was captured, as it is.
pub(crate) fn itself(text: &str) -> Cow<'_, str> {
    Cow::Borrowed(text)
}

/// The name or the number that follows a dollar, and what comes behind it.
fn reference(text: &str) -> Option<(&str, &str)> {
    let (name, rest) = match text.strip_prefix('{') {
        Some(braced) => braced.split_once('}')?,
        None => text.split_at(text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len())),
    };
    (!name.is_empty()).then_some((name, rest))
}

/// The number of a group of the pattern.
fn group(name: &str, pattern: Option<&Regex>) -> Result<usize, String> {
    let Some(pattern) = pattern else {
        return Err(format!("`${name}` refers to nothing: there is no pattern that would capture it"));
    };
    let found = match name.parse::<usize>() {
        Ok(number) => Some(number).filter(|number| *number < pattern.captures_len()),
        Err(_) => pattern.capture_names().position(|known| known == Some(name)),
    };
    found.ok_or_else(|| {
        // As in `$1_x`, which is the name `1_x`.
        let number = name.len() - name.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        match name.split_at(number) {
            ("", _) | (_, "") => format!("the pattern captures no `{name}`"),
            (number, rest) => format!("the pattern captures no `{name}`; did you mean `${{{number}}}{rest}`?"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str, pattern: &str, path: &str) -> Result<Option<String>, String> {
        let pattern = Regex::new(pattern).unwrap();
        let template = Template::parse(text, Some(&pattern))?;
        Ok(template.expand(pattern.captures(path).as_ref(), itself))
    }

    #[test]
    fn what_was_captured_is_put_in() {
        let pattern = "^/(?<kind>[a-z]+)/([0-9]+)(/x)?";
        for (text, expected) in [
            ("plain", "plain"),
            ("", ""),
            ("$kind", "shoes"),
            ("${kind}s:$2", "shoess:7"),
            ("$1:$2:all", "shoes:7:all"),
            ("$0", "/shoes/7"),
            ("a$$b$$1", "a$b$1"),
            ("$2$3", "7"),
            ("${2}a", "7a"),
        ] {
            assert_eq!(expanded(text, pattern, "/shoes/7").unwrap().unwrap(), expected, "{text}");
        }
        assert_eq!(expanded("$2", pattern, "/other"), Ok(None));
        assert_eq!(expanded("other", pattern, "/other"), Ok(Some("other".into())));
    }

    #[test]
    fn a_reference_to_nothing_is_refused_with_a_reason() {
        for (text, reason) in [
            ("$2", "the pattern captures no `2`"),
            ("$name", "the pattern captures no `name`"),
            ("$1_x", "the pattern captures no `1_x`; did you mean `${1}_x`?"),
            ("a$", "a `$` has to be followed by a number or a name; `$$` is a dollar"),
            ("$-", "a `$` has to be followed by a number or a name; `$$` is a dollar"),
            ("${1", "a `$` has to be followed by a number or a name; `$$` is a dollar"),
            ("${}", "a `$` has to be followed by a number or a name; `$$` is a dollar"),
            ("$99999999999999999999999", "the pattern captures no `99999999999999999999999`"),
        ] {
            assert_eq!(expanded(text, "^/(a)", "/a"), Err(reason.into()), "{text}");
        }
        let nothing = Template::parse("$1", None).unwrap_err();
        assert!(nothing.contains("there is no pattern"), "{nothing}");
        assert!(!Template::parse("products", None).unwrap().refers());
    }
}
