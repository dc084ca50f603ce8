//! What a change of settings while running came to: [`Reload`], the list of changes, or [`ReloadError`].

use std::fmt;

/// What changed when a running cache was set up anew. It displays as one line for each change.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reload {
    /// How often the cache was set up anew so far. A reload without a change doesn't count.
    pub generation: u64,
    /// What changed, rules first; empty if nothing did.
    pub changes: Vec<Change>,
}

/// One change. Its display is a line for people, such as `rule "^/news/": ttl 60s -> 30s`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// A rule that wasn't there before.
    Added {
        /// Its pattern.
        rule: String,
        /// What it says.
        policy: String,
    },
    /// A rule that isn't there any more.
    Removed {
        /// Its pattern.
        rule: String,
    },
    /// Rules that stay are tried in another order.
    Reordered {
        /// The patterns of all rules in their new order.
        order: Vec<String>,
    },
    /// A setting, of a rule or of the cache.
    Set {
        /// `rule "PATTERN"`, `otherwise`, `headers`, `limits`, `compression` or `cache`.
        place: String,
        /// The name of the setting.
        field: &'static str,
        /// Its value before; empty where it wasn't set.
        before: String,
        /// Its value now; empty where it isn't set.
        after: String,
    },
}

/// A change that a running cache can't make; it goes on as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// The store stays as it is until the process ends.
    #[error(
        "store.{field} can't change while the cache runs: it is {running}, and {wanted} is wanted; restart to change it"
    )]
    Store {
        /// `kind`, `capacity`, `max_entries` or `eviction`.
        field: &'static str,
        /// What it is.
        running: String,
        /// What it would have to become.
        wanted: String,
    },
    /// The memory of a data cache that was used stays as it is until the process ends.
    #[cfg(feature = "data")]
    #[error(
        "data.{name}.{field} can't change while the cache runs, once the data cache was used: it is {}, and {} is wanted; restart to change it",
        or_shared(running),
        or_shared(wanted)
    )]
    Data {
        /// Of the data cache.
        name: String,
        /// `capacity`, `max_entries` or `eviction`.
        field: &'static str,
        /// What it is; empty where the data cache has no memory of its own.
        running: String,
        /// What it would have to become; likewise.
        wanted: String,
    },
}

#[cfg(feature = "data")]
fn or_shared(value: &str) -> &str {
    if value.is_empty() { "that of the responses" } else { value }
}

impl Reload {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

impl fmt::Display for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.changes.is_empty() {
            return f.write_str("nothing changed");
        }
        for (n, change) in self.changes.iter().enumerate() {
            write!(f, "{}{change}", if n == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_none = |value: &str| if value.is_empty() { "none".to_owned() } else { value.to_owned() };
        match self {
            Self::Added { rule, policy } => write!(f, "rule {rule:?} is new: {policy}"),
            Self::Removed { rule } => write!(f, "rule {rule:?} is gone"),
            Self::Reordered { order } => write!(f, "rules are tried in another order: {}", order.join(" ")),
            Self::Set { place, field, before, after } => {
                write!(f, "{place}: {field} {} -> {}", or_none(before), or_none(after))
            }
        }
    }
}
