//! Which policy a path has: the first rule whose pattern matches, else what `otherwise` says.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use regex::Regex;

use crate::alike::Alikes;
use crate::error::RuleError;
use crate::labels::Labels;
use crate::ledger::Ledger;
use crate::neighbours::{Misorder, Neighbours};
use crate::policy::Policy;
use crate::regime::Regime;
use crate::rfc9111::storability::is_provoked_error;
use crate::starts::Starts;
use crate::tally::RouteCounters;

/// A pattern over the path and the policy of what it matches.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) pattern: String,
    pub(crate) policy: Policy,
}

impl Rule {
    /// Checks pattern and policy.
    pub(crate) fn new(pattern: &str, policy: Policy) -> Result<Self, RuleError> {
        let regex = Regex::new(pattern)
            .map_err(|source| RuleError::Pattern { rule: pattern.into(), source: Box::new(source) })?;
        check(pattern, Some(&regex), &policy)?;
        Ok(Self { pattern: pattern.into(), policy })
    }
}

/// Refuses a policy that would never do what it says: that names a status which is never stored, or a number, time or tag that can't be followed.
pub(crate) fn check(rule: &str, pattern: Option<&Regex>, policy: &Policy) -> Result<(), RuleError> {
    Labels::new(rule, pattern, policy)?;
    if let Some((setting, wanted)) = policy.expiry.mistake() {
        return Err(RuleError::OutOfRange { rule: rule.into(), setting, wanted });
    }
    let named = policy.status_ttls.iter().map(|(status, _)| status).chain(policy.statuses.iter().flatten());
    match named.copied().find(|status| is_provoked_error(*status)) {
        Some(status) => Err(RuleError::StatusNeverStored { rule: rule.into(), status }),
        None => Ok(()),
    }
}

/// All rules. A few are tried in turn; of many, those that begin as the path does. Either way matching takes time linear in the path.
#[derive(Debug)]
pub(crate) struct Rules {
    patterns: Patterns,
    routes: Vec<Route>,
    otherwise: Route,
}

/// Up to this many rules are tried one after another, which costs less than to look for those that may match.
const FEW: usize = 4;

#[derive(Debug)]
enum Patterns {
    Few(Vec<Pattern>),
    Many(Starts),
}

/// A pattern, or what it comes to where it is a plain text with an anchor, as most are.
#[derive(Debug)]
enum Pattern {
    Prefix(String),
    Exact(String),
    Regex(Regex),
}

impl Pattern {
    fn new(pattern: &str) -> Option<Self> {
        let is_plain = |text: &str| {
            regex::escape(text) == text || text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/_-".contains(&b))
        };
        if let Some(rest) = pattern.strip_prefix('^') {
            if is_plain(rest) {
                return Some(Self::Prefix(rest.into()));
            }
            if let Some(exact) = rest.strip_suffix('$').filter(|exact| is_plain(exact)) {
                return Some(Self::Exact(exact.into()));
            }
        }
        Regex::new(pattern).ok().map(Self::Regex)
    }

    fn is_match(&self, path: &str) -> bool {
        match self {
            Self::Prefix(prefix) => path.starts_with(prefix),
            Self::Exact(exact) => path == exact,
            Self::Regex(regex) => regex.is_match(path),
        }
    }
}

/// A policy with what is remembered about it.
#[derive(Debug)]
pub(crate) struct Route {
    /// The rule's place; `None` for `otherwise`.
    pub(crate) rule: Option<usize>,
    pub(crate) policy: Policy,
    pub(crate) regime: Regime,
    pub(crate) labels: Labels,
    /// Tells it from others by its pattern, since its place is another one's after a change of the rules.
    pub(crate) account: u64,
    /// What it counts, through all generations of the settings.
    pub(crate) counters: Arc<RouteCounters>,
    pattern: String,
    warned: AtomicBool,
    pub(crate) neighbours: Neighbours,
    /// What its answers have in common.
    pub(crate) alikes: Alikes,
}

impl Rules {
    pub(crate) fn new(rules: &[Rule], otherwise: Policy) -> Self {
        let patterns = if rules.len() <= FEW {
            Patterns::Few(rules.iter().filter_map(|rule| Pattern::new(&rule.pattern)).collect())
        } else {
            Patterns::Many(Starts::new(rules.iter().map(|rule| rule.pattern.as_str())))
        };
        let route = |(n, rule): (usize, &Rule)| Route::new(Some(n), &rule.pattern, rule.policy.clone());
        Self {
            patterns,
            routes: rules.iter().enumerate().map(route).collect(),
            otherwise: Route::new(None, "otherwise", otherwise),
        }
    }

    /// Each route with the regime that `of` makes of its policy.
    pub(crate) fn under(mut self, of: impl Fn(&Policy) -> Regime) -> Self {
        for route in self.routes.iter_mut().chain([&mut self.otherwise]) {
            route.regime = of(&route.policy);
        }
        self
    }

    /// Each route with the counters that `ledger` has for its pattern.
    pub(crate) fn counting_in(mut self, ledger: &Ledger) -> Self {
        let counters = ledger.open(self.all().map(|(pattern, _)| pattern));
        for (route, counters) in self.routes.iter_mut().chain([&mut self.otherwise]).zip(counters) {
            route.counters = counters;
        }
        self
    }

    /// Pattern and policy of all, in their order, `otherwise` last and with none.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Option<&str>, &Policy)> {
        let rules = self.routes.iter().map(|route| (Some(route.pattern.as_str()), &route.policy));
        rules.chain([(None, &self.otherwise.policy)])
    }

    /// All routes in their order, `otherwise` last.
    pub(crate) fn routes(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter().chain([&self.otherwise])
    }

    /// The first route of this account.
    pub(crate) fn with_account(&self, account: u64) -> Option<&Route> {
        self.routes().find(|route| route.account == account)
    }

    /// The route of a path, as the client sent it.
    pub(crate) fn route(&self, path: &str) -> &Route {
        let first = match &self.patterns {
            Patterns::Few(patterns) => patterns.iter().position(|pattern| pattern.is_match(path)),
            Patterns::Many(starts) => starts.first(path),
        };
        first.and_then(|n| self.routes.get(n)).unwrap_or(&self.otherwise)
    }

    /// The route with this place.
    pub(crate) fn get(&self, rule: Option<usize>) -> &Route {
        rule.and_then(|n| self.routes.get(n)).unwrap_or(&self.otherwise)
    }
}

impl Route {
    fn new(rule: Option<usize>, pattern: &str, policy: Policy) -> Self {
        let (warned, neighbours) = (AtomicBool::new(false), Neighbours::new());
        let mut account = DefaultHasher::new();
        (rule.is_some(), pattern).hash(&mut account);
        let (regime, account) = (Regime::default(), account.finish());
        let counters = Arc::default();
        let regex = rule.and_then(|_| Regex::new(pattern).ok());
        // It was checked when the rule was given; one that is none bears no tags.
        let labels = Labels::new(pattern, regex.as_ref(), &policy).unwrap_or_default();
        let alikes = Alikes::default();
        Self { rule, policy, regime, labels, account, counters, pattern: pattern.into(), warned, neighbours, alikes }
    }

    /// The rule's pattern; `None` for `otherwise`.
    pub(crate) fn pattern(&self) -> Option<&str> {
        self.rule.map(|_| self.pattern.as_str())
    }

    /// The pattern of the rule, or `otherwise`.
    pub(crate) fn name(&self) -> &str {
        &self.pattern
    }

    /// Says once for each rule, in debug builds, that layers stand in the wrong order.
    pub(crate) fn warn_of_order(&self, misorder: Misorder, path: &str) {
        self.neighbours.say(misorder, &self.pattern, path);
    }

    /// Says once for each rule that credentials keep its requests from the cache, and what would change that.
    pub(crate) fn warn_of_credentials(&self, path: &str) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::info!(
                rule = self.pattern,
                path,
                "requests with Authorization or cookies bypass this rule (`Policy::guarded`). If the answer is the same for everybody, \
                 use `Policy::shared`; if it is for one user, `Policy::per`; if only a cookie without meaning is in the way, \
                 `Policy::ignore_cookies`. Logged once for each rule."
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::StatusCode;

    use super::*;

    #[test]
    fn the_first_rule_that_matches_wins() {
        let rule = |pattern: &str| Rule::new(pattern, Policy::from_origin()).unwrap();
        let few = [rule("^/a/b"), rule("^/a"), rule("x$")];
        let many: Vec<Rule> = few.iter().cloned().chain((0..FEW).map(|n| rule(&format!("^/z{n}")))).collect();
        for rules in [Rules::new(&few, Policy::bypass()), Rules::new(&many, Policy::bypass())] {
            for (path, expected) in [("/a/b/x", Some(0)), ("/a/x", Some(1)), ("/x", Some(2)), ("/y", None), ("", None)]
            {
                assert_eq!(rules.route(path).rule, expected, "{path}");
            }
        }
        assert_eq!(Rules::new(&[], Policy::bypass()).route("/a").rule, None);
    }

    #[test]
    fn plain_patterns_match_as_their_regular_expression_does() {
        for pattern in ["^/a/b", "^/a/b$", "^/a.b", "^/a\\.b$", "^", "^$", "/a", "^/a-b_c/", "^/a|^/b", "^/[ab]$"] {
            let (plain, regex) = (Pattern::new(pattern).unwrap(), Regex::new(pattern).unwrap());
            for path in ["", "/", "/a", "/b", "/a/b", "/a/b/", "/axb", "/a.b", "/x/a/b", "/a-b_c/d", "/a/b\n"] {
                assert_eq!(plain.is_match(path), regex.is_match(path), "{pattern} {path:?}");
            }
        }
    }

    #[test]
    fn a_bad_rule_says_what_is_wrong() {
        let error = Rule::new("^/a(", Policy::from_origin()).unwrap_err().to_string();
        assert!(error.contains("^/a(") && error.contains("unclosed group"), "{error}");
        let never = Policy::from_origin().status_ttl(StatusCode::BAD_GATEWAY, Duration::from_secs(1));
        let error = Rule::new("^/a", never).unwrap_err().to_string();
        assert!(error.contains("502") && error.contains("never stored"), "{error}");
    }
}
