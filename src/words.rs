//! Every value that an outcome can have, and its place among them: what is counted by value, and what tests go through so that no word is left out.

use crate::outcome::{BypassReason, ForwardReason, Outcome, StaleReason};

/// Gives an enum without data its `ALL`. A value that is left out doesn't compile.
macro_rules! every {
    ($type:ident: $($value:ident)+) => {
        impl $type {
            /// Every one, in the order in which they are declared.
            pub const ALL: [Self; [$(stringify!($value)),+].len()] = [$(Self::$value),+];
        }

        const _: fn($type) = |value| match value {
            $($type::$value => ()),+
        };
    };
}

pub(crate) use every;

every!(StaleReason: WhileRevalidate IfError MaxStale Unconfirmed NetworkFirst CacheOnly);
every!(ForwardReason: UriMiss VaryMiss Request Stale OnlyIfCached NetworkFirst CacheOnly Distrusted Crowded);
every!(BypassReason:
    Rule NetworkOnly Method Credentials NoPrincipal QueryContent RequestContent Rerouted AmbiguousHost KeyTooLong Upgrade ConnectionOption
    AmbiguousPath Shadow Nested
);

/// Where the outcomes of each kind begin among all.
const STALE: usize = 2;
const REVALIDATED: usize = STALE + StaleReason::ALL.len();
const MISS: usize = REVALIDATED + ForwardReason::ALL.len();
const COLLAPSED: usize = MISS + ForwardReason::ALL.len();
const BYPASS: usize = COLLAPSED + ForwardReason::ALL.len();

impl Outcome {
    /// How many there are, each with each of its reasons.
    pub(crate) const COUNT: usize = BYPASS + BypassReason::ALL.len();

    /// Its place among [all](Self::all).
    pub(crate) const fn place(self) -> usize {
        match self {
            Self::Hit => 0,
            Self::Fallback => 1,
            Self::Stale(reason) => STALE + reason as usize,
            Self::Revalidated(reason) => REVALIDATED + reason as usize,
            Self::Miss(reason) => MISS + reason as usize,
            Self::Collapsed(reason) => COLLAPSED + reason as usize,
            Self::Bypass(reason) => BYPASS + reason as usize,
        }
    }

    /// Every outcome with each of its reasons, also those that don't come together, such as an answer of the handler's to a request that was refused.
    ///
    /// ```
    /// use larder::Outcome;
    /// assert!(Outcome::all().any(|outcome| outcome == Outcome::Hit));
    /// ```
    pub fn all() -> impl Iterator<Item = Self> {
        let forwarded = |kind: fn(ForwardReason) -> Self| ForwardReason::ALL.into_iter().map(kind);
        [Self::Hit, Self::Fallback]
            .into_iter()
            .chain(StaleReason::ALL.into_iter().map(Self::Stale))
            .chain(forwarded(Self::Revalidated))
            .chain(forwarded(Self::Miss))
            .chain(forwarded(Self::Collapsed))
            .chain(BypassReason::ALL.into_iter().map(Self::Bypass))
    }

    /// What happened without the reason, as a short name that doesn't change, for metrics and logs. It tells apart what `X-Cache` has one word for.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Fallback => "fallback",
            Self::Stale(_) => "stale",
            Self::Revalidated(_) => "revalidated",
            Self::Miss(_) => "miss",
            Self::Collapsed(_) => "collapsed",
            Self::Bypass(_) => "bypass",
        }
    }

    /// The reason as a short name that doesn't change; `None` for a hit, which needs none.
    pub fn reason(self) -> Option<&'static str> {
        match self {
            Self::Hit => None,
            Self::Fallback => Some(ForwardReason::NetworkFirst.as_str()),
            Self::Stale(reason) => Some(reason.as_str()),
            Self::Revalidated(reason) | Self::Miss(reason) | Self::Collapsed(reason) => Some(reason.as_str()),
            Self::Bypass(reason) => Some(reason.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rfc9111::storability::DeclineReason;

    #[test]
    fn each_outcome_has_a_place_of_its_own() {
        let places: Vec<usize> = Outcome::all().map(Outcome::place).collect();
        assert_eq!(places, (0..Outcome::COUNT).collect::<Vec<_>>());
    }

    #[test]
    fn reasons_are_in_the_order_of_their_declaration() {
        let ordered = |places: &mut dyn Iterator<Item = usize>| places.enumerate().all(|(n, place)| n == place);
        assert!(ordered(&mut StaleReason::ALL.iter().map(|reason| *reason as usize)));
        assert!(ordered(&mut ForwardReason::ALL.iter().map(|reason| *reason as usize)));
        assert!(ordered(&mut BypassReason::ALL.iter().map(|reason| *reason as usize)));
        assert!(ordered(&mut DeclineReason::ALL.iter().map(|reason| *reason as usize)));
    }
}
