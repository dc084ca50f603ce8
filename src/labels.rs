//! [`Labels`]: what a rule says about tags, over the paths that it matches: which tags its responses bear, and which tags and patterns its
//! writes purge.

use std::borrow::Cow;

use regex::Regex;

use crate::error::RuleError;
use crate::pattern::Pattern;
use crate::policy::Policy;
use crate::request::percent_decoded;
use crate::template::{Template, itself};

/// The templates of a rule, their references found in its pattern.
#[derive(Debug, Default)]
pub(crate) struct Labels {
    /// `None` where no template refers to it.
    pattern: Option<Regex>,
    tags: Vec<Template>,
    purged_tags: Vec<Template>,
    purged_globs: Vec<Template>,
}

impl Labels {
    /// Of the policy of a rule with this pattern; without one, of `otherwise`.
    pub(crate) fn new(rule: &str, pattern: Option<&Regex>, policy: &Policy) -> Result<Self, RuleError> {
        let parsed = |setting: &'static str, texts: &[String]| {
            let parse = |text: &String| {
                check(setting, text, pattern).map_err(|reason| {
                    let (rule, template) = (rule.into(), text.clone());
                    RuleError::Template { rule, setting, template, reason }
                })
            };
            texts.iter().map(parse).collect::<Result<Vec<_>, _>>()
        };
        let tags = parsed("tag", &policy.tags)?;
        let purged_tags = parsed("purges_tag", &policy.purged_tags)?;
        let purged_globs = parsed("purges_glob", &policy.purged_globs)?;
        let refers = [&tags, &purged_tags, &purged_globs].into_iter().flatten().any(Template::refers);
        Ok(Self { pattern: pattern.filter(|_| refers).cloned(), tags, purged_tags, purged_globs })
    }

    /// Calls `bear` with each tag that a response from this path bears.
    pub(crate) fn tags(&self, path: &str, mut bear: impl FnMut(&str)) {
        self.expand(&self.tags, path, itself, |tag| bear(&tag));
    }

    /// Whether any response bears tags by them.
    pub(crate) fn has_tags(&self) -> bool {
        !self.tags.is_empty()
    }

    /// Whether writes purge more than their URI.
    pub(crate) fn purge(&self) -> bool {
        !self.purged_tags.is_empty() || !self.purged_globs.is_empty()
    }

    /// The tags that a write to this path purges.
    pub(crate) fn purged_tags(&self, path: &str) -> Vec<String> {
        let mut tags = Vec::new();
        self.expand(&self.purged_tags, path, itself, |tag| tags.push(tag));
        tags
    }

    /// The patterns that a write to this path purges. What was captured stands for itself in them, or, where they are to be `few`, any text in its place.
    pub(crate) fn purged_globs(&self, path: &str, few: bool) -> Vec<String> {
        let mut globs = Vec::new();
        for template in &self.purged_globs {
            let before = globs.len();
            self.expand(std::slice::from_ref(template), path, escaped, |glob| globs.push(glob));
            if few || globs[before..].iter().any(|glob| Pattern::glob(glob).is_err()) {
                // What was captured is too long for a pattern, or no text for one: any text takes its place.
                globs.truncate(before);
                self.expand(std::slice::from_ref(template), path, |_| "*".into(), |glob| globs.push(glob));
            }
        }
        globs.sort_unstable();
        globs.dedup();
        globs
    }

    /// The texts that templates come to. A path that can be spelled in other ways means what it says decoded as well: `/products/%31` is the
    /// product 1 for most handlers.
    fn expand(
        &self,
        templates: &[Template],
        path: &str,
        put: impl Fn(&str) -> Cow<'_, str>,
        mut each: impl FnMut(String),
    ) {
        if templates.is_empty() {
            return;
        }
        let decoded = self.pattern.as_ref().and_then(|_| percent_decoded(path));
        for path in [Some(path), decoded.as_deref()].into_iter().flatten() {
            let captures = self.pattern.as_ref().and_then(|pattern| pattern.captures(path));
            templates.iter().filter_map(|template| template.expand(captures.as_ref(), &put)).for_each(&mut each);
        }
    }
}

/// Reads the template of a setting; the error says why it can't be followed.
pub(crate) fn check(setting: &str, text: &str, pattern: Option<&Regex>) -> Result<Template, String> {
    let template = Template::parse(text, pattern)?;
    if setting == "purges_glob" {
        // With any text for what is captured it has to be a pattern.
        Pattern::glob(text).map_err(|malformed| malformed.reason)?;
    } else {
        // What is captured may be anything, and is looked at when it is there.
        crate::tags::tag(text).map_err(|why| why.to_string())?;
    }
    Ok(template)
}

/// A text in a pattern, as itself.
fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(['*', '?', '\\']) {
        return Cow::Borrowed(text);
    }
    let escape = |c| [matches!(c, '*' | '?' | '\\').then_some('\\'), Some(c)].into_iter().flatten();
    Cow::Owned(text.chars().flat_map(escape).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pattern: &str, policy: &Policy) -> Labels {
        Labels::new(pattern, Some(&Regex::new(pattern).unwrap()), policy).unwrap()
    }

    fn tags(labels: &Labels, path: &str) -> Vec<String> {
        let mut tags = Vec::new();
        labels.tags(path, |tag| tags.push(tag.to_owned()));
        tags
    }

    #[test]
    fn a_path_in_other_spellings_has_the_tags_of_all_of_them() {
        let labels = labels("^/p/([^/]*)", &Policy::from_origin().tag("p:$1").tag("all"));
        for (path, expected) in [
            ("/p/1", &["p:1", "all"][..]),
            ("/p/%31", &["p:%31", "all", "p:1", "all"]),
            ("/p/%c3%bc", &["p:%c3%bc", "all", "p:ü", "all"]),
            ("/p/a%2Fb", &["p:a%2Fb", "all", "p:a", "all"]),
            ("/p/%ff", &["p:%ff", "all"]),
            ("/p/1%", &["p:1%", "all"]),
        ] {
            assert_eq!(tags(&labels, path), expected, "{path}");
        }
    }

    #[test]
    fn what_was_captured_is_no_pattern_and_never_too_long_a_one() {
        let labels = labels("(?s)^/p/(.*)", &Policy::bypass().purges_glob("/list/$1*"));
        for (path, expected) in [
            ("/p/1", &["/list/1*"][..]),
            ("/p/a*b?c\\", &["/list/a\\*b\\?c\\\\*"]),
            ("/p/%2a", &["/list/%2a*", "/list/\\**"]),
            ("/p/%0a", &["/list/**"]),
        ] {
            assert_eq!(labels.purged_globs(path, false), expected, "{path}");
        }
        let long = format!("/p/{}", "a".repeat(1024));
        assert_eq!(labels.purged_globs(&long, false), ["/list/**"]);
        assert_eq!(labels.purged_globs("/p/a", true), ["/list/**"], "few of them");
    }

    #[test]
    fn a_rule_that_refers_to_nothing_has_no_pattern_to_match() {
        let policy = Policy::bypass().purges_tag("a").purges_tag("b:c");
        let labels = labels("^/p/(.*)", &policy);
        assert!(labels.pattern.is_none() && labels.purge());
        assert_eq!(labels.purged_tags("/anything"), ["a", "b:c"]);
        assert!(!Labels::new("otherwise", None, &Policy::bypass()).unwrap().purge());
    }
}
