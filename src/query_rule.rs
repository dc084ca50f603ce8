//! [`QueryRule`]: what of a query is part of the key.

use std::borrow::Cow;

/// How a rule treats the query of a URI.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct QueryRule {
    /// Sort parameters by name; those of one name keep their order.
    pub(crate) sorted: bool,
    /// Names that don't count; a `*` at the end stands for any rest.
    pub(crate) ignored: Vec<String>,
    /// If set, only these names count.
    pub(crate) allowed: Option<Vec<String>>,
}

impl QueryRule {
    /// The query as it is keyed, and as the handler sees it on a fill, so that both always speak of the same thing.
    pub(crate) fn canonical<'q>(&self, query: &'q str) -> Cow<'q, str> {
        if self.is_plain() {
            return Cow::Borrowed(query);
        }
        let mut pairs: Vec<&str> = query.split('&').filter(|pair| self.counts(name(pair))).collect();
        if self.sorted {
            pairs.sort_by_key(|pair| name(pair));
        }
        Cow::Owned(pairs.join("&"))
    }

    /// The query of a URI as it is keyed; under a rule for queries, one of which nothing is left is none.
    pub(crate) fn keyed<'q>(&self, query: Option<&'q str>) -> Option<Cow<'q, str>> {
        let canonical = query.map(|query| self.canonical(query));
        canonical.filter(|canonical| !canonical.is_empty() || self.is_plain())
    }

    /// Whether a query counts as it was sent.
    pub(crate) fn is_plain(&self) -> bool {
        !self.sorted && self.ignored.is_empty() && self.allowed.is_none()
    }

    /// Whether a parameter of this name is part of the key.
    pub(crate) fn counts(&self, name: &str) -> bool {
        let listed = |list: &[String]| list.iter().any(|pattern| matches_name(pattern, name));
        !listed(&self.ignored) && self.allowed.as_deref().is_none_or(listed)
    }
}

fn name(pair: &str) -> &str {
    pair.split('=').next().unwrap_or_default()
}

/// Whether `name` is `pattern`, or begins with it where the pattern ends in `*`.
pub(crate) fn matches_name(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_canonical_query_is_its_own_canonical_query(query in "[a-c=&]{0,12}") {
            let rule = QueryRule { sorted: true, ignored: vec!["b".into()], allowed: None };
            let once = rule.canonical(&query).into_owned();
            prop_assert_eq!(rule.canonical(&once).into_owned(), once.clone());
        }
    }

    #[test]
    fn queries_by_rule() {
        let rule = |sorted, ignored: &[&str], allowed: Option<&[&str]>| QueryRule {
            sorted,
            ignored: ignored.iter().map(|s| s.to_string()).collect(),
            allowed: allowed.map(|list| list.iter().map(|s| s.to_string()).collect()),
        };
        let rows = [
            (rule(false, &[], None), "b=1&a=2", "b=1&a=2"),
            (rule(true, &[], None), "b=2&a=1&b=1", "a=1&b=2&b=1"),
            (rule(false, &["utm_*"], None), "utm_source=x&a=1&utm=2", "a=1&utm=2"),
            (rule(false, &[], Some(&["a"])), "b=1&a=2&a", "a=2&a"),
            (rule(true, &["a"], Some(&["a", "b"])), "b=1&a=2&c=3", "b=1"),
        ];
        for (rule, query, expected) in rows {
            assert_eq!(rule.canonical(query), expected, "{rule:?}");
        }
    }

    #[test]
    fn a_rule_that_says_nothing_leaves_a_query_as_it_is() {
        let rule = QueryRule::default();
        assert!(rule.is_plain() && matches!(rule.canonical("b=1&&a"), Cow::Borrowed("b=1&&a")));
        for rule in [
            QueryRule { sorted: true, ..rule.clone() },
            QueryRule { ignored: vec!["a".into()], ..rule.clone() },
            QueryRule { allowed: Some(vec![]), ..rule.clone() },
        ] {
            assert!(!rule.is_plain(), "{rule:?}");
        }
    }

    #[test]
    fn a_query_of_which_nothing_is_left_is_none() {
        let (plain, only_a) =
            (QueryRule::default(), QueryRule { allowed: Some(vec!["a".into()]), ..QueryRule::default() });
        let rows = [
            (&plain, Some("b"), Some("b")),
            (&plain, Some(""), Some("")),
            (&plain, None, None),
            (&only_a, Some("b&a"), Some("a")),
            (&only_a, Some("b"), None),
            (&only_a, Some(""), None),
            (&only_a, None, None),
        ];
        for (rule, query, expected) in rows {
            assert_eq!(rule.keyed(query).as_deref(), expected, "{rule:?} {query:?}");
        }
    }
}
