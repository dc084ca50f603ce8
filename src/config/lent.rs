//! Closures of running rules under names, so that a text which is written from running settings, and sent back changed, can name them.

use std::collections::HashMap;

use super::Config;
use crate::policy::{Audience, Policy};
use crate::principal::{Called, Principal};
use crate::settings::Settings;

/// Closures by name.
pub(crate) type Lent = HashMap<String, Principal>;

/// Those of `settings`: under the names that they were given, or after their rule where code gave none.
pub(crate) fn lent(settings: &Settings) -> Lent {
    let rules = settings.rules.iter().map(|rule| (rule.pattern.as_str(), &rule.policy));
    let named = |(pattern, policy)| name(pattern, policy).zip(principal(policy));
    let all = rules.chain([("otherwise", &settings.otherwise)]).filter_map(named);
    all.map(|(name, principal)| (name.clone(), principal.clone().lent_as(name))).collect()
}

/// The name of a closure in the text that is written of its rule; `None` where there is no closure.
pub(super) fn name(pattern: &str, policy: &Policy) -> Option<String> {
    match &principal(policy)?.called {
        None => Some(format!("rule {pattern}")),
        Some(Called::Name(name)) => Some(name.clone()),
        Some(Called::Header(_) | Called::Cookie(_)) => None,
    }
}

fn principal(policy: &Policy) -> Option<&Principal> {
    match &policy.audience {
        Audience::Per(principal) => Some(principal),
        _ => None,
    }
}

impl Config {
    /// With these closures, where code gave none of the name.
    pub(crate) fn lend(mut self, lent: &Lent) -> Self {
        for (name, principal) in lent {
            self.principals.entry(name.clone()).or_insert_with(|| principal.clone());
        }
        self
    }
}
