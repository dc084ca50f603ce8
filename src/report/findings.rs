//! [`Report`]: what the handler's answers have taught, as values.

use std::time::Duration;

pub use super::dimension::DimensionKind;
use crate::fates::MissCause;
use crate::outcome::BypassReason;
use crate::rfc9111::storability::DeclineReason;

/// What the answers of the handler have taught about the rules, since the cache was made or the rule was changed last. See
/// [`CacheHandle::report`](crate::CacheHandle::report). Its `Display` is for people.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Report {
    /// What could be changed; what would have saved most of the handler's time comes first.
    pub recommendations: Vec<Recommendation>,
    /// The evidence, for each route that had an answer of its handler; in the order of the rules.
    pub routes: Vec<RouteReport>,
}

/// Something that could be changed, and why.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Recommendation {
    /// The pattern of the rule; `None` for `otherwise`.
    pub rule: Option<String>,
    /// What, with its evidence.
    pub advice: Advice,
    /// The word that changes it, as it stands in code.
    pub word: String,
    /// How much of the handler's time would have been saved by it so far.
    pub saves: Duration,
}

/// What could be changed.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Advice {
    /// Most of what was fetched again was the same as before: a longer lifetime would have avoided that.
    LongerTtl {
        /// The lifetime that responses had, on average.
        now: Duration,
        /// The one that is advised, and what would have come of it.
        outcome: TtlOutcome,
        /// Sampled fetches for no other reason than that a lifetime was over.
        refetches: u64,
        /// How many of them brought the same content.
        unchanged: u64,
    },
    /// The handler is asked each time, and keeps answering the same.
    Cache {
        /// Why the answers aren't cached.
        why: Uncached,
        /// The lifetime that is advised, and what would have come of it.
        outcome: TtlOutcome,
        /// For whom the answers are.
        comparison: Comparison,
    },
    /// A query parameter or a field makes keys many, and the content never depended on it.
    FewerKeys(KeySpace),
    /// Answers that a rule in [shadow](crate::Policy::shadow) would have shared were the same each time: it may come out of the shadow.
    Safe(Comparison),
    /// Answers that a rule in shadow would have shared were not the same; where they go with something that requests say, that belongs in the key.
    Unsafe(Comparison),
}

/// Why answers aren't cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Uncached {
    /// The request isn't looked up.
    Bypass(BypassReason),
    /// The response isn't stored.
    Declined(DeclineReason),
}

/// What another lifetime would have made of the fetches of a sample of keys.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct TtlOutcome {
    /// The lifetime.
    pub ttl: Duration,
    /// Fetches that it would have spared, less those that it would have needed at other times.
    pub avoided: u64,
    /// Of the answers in their place, those with other content than the handler's.
    pub outdated: u64,
    /// The same as a share of all sampled fetches, from 0 to 1.
    pub outdated_share: f64,
    /// The share of requests for which the handler would not have been asked, from 0 to 1; `None` where no request was counted.
    pub hit_rate: Option<f64>,
    /// The handler's time for what would have been avoided, reckoned from the sample to all keys.
    pub saves: Duration,
}

/// A route.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct RouteReport {
    /// The pattern of the rule; `None` for `otherwise`.
    pub rule: Option<String>,
    /// Answers of the handler to GET that are, or could have been, stored.
    pub fetches: u64,
    /// The time that the handler took for them, up to the head.
    pub handler_time: Duration,
    /// Requests that were looked up.
    pub requests: u64,
    /// The share of them for which the handler was not asked, not behind the answer either, from 0 to 1; `None` before the first.
    pub hit_rate: Option<f64>,
    /// The lifetime that responses had when they were stored, on average.
    pub lifetime: Option<Duration>,
    /// Requests that the store couldn't answer, by what had become of what they asked for; only causes that occurred. What a low hit rate consists of.
    pub missed: Vec<(MissCause, u64)>,
    /// Requests that were not looked up.
    pub bypassed: u64,
    /// Fetches that are in the sample, of responses that had been stored before and whose lifetime was over.
    pub refetches: u64,
    /// How many of them brought the same content.
    pub unchanged: u64,
    /// What longer lifetimes would have made of it, beginning with the shortest.
    pub longer: Vec<TtlOutcome>,
    /// What lifetimes would make of the answers that aren't cached.
    pub uncached: Vec<TtlOutcome>,
    /// What makes keys many.
    pub key_space: Vec<KeySpace>,
    /// Answers that aren't cached, compared with others to the same request.
    pub repeats: Option<Comparison>,
    /// Answers that a rule in [shadow](crate::Policy::shadow) would have shared.
    pub shadow: Option<Comparison>,
}

/// What makes keys many.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeySpace {
    /// What kind of thing.
    pub kind: DimensionKind,
    /// Its name.
    pub name: String,
    /// About how many values it had, within a tenth.
    pub values: u64,
    /// Pairs of responses that differed in nothing else, and had the same content.
    pub same: u64,
    /// The same, with other content.
    pub different: u64,
}

/// Answers held against earlier ones that a cache could have served instead.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Comparison {
    /// Answers that were compared.
    pub answers: u64,
    /// About how many keys they had.
    pub keys: u64,
    /// Answers that were other than what a cache would have served.
    pub differing: u64,
    /// Pairs of requests with different credentials (`Authorization`, or a cookie that isn't of the usual analytics) that were compared.
    pub across_credentials: u64,
    /// Answers that would not have been shared anyhow, as they say themselves (`no-store`, `Set-Cookie`, an error ...).
    pub not_storable: u64,
    /// What that comes to.
    pub verdict: Verdict,
}

/// What a comparison comes to.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Verdict {
    /// Too little was compared.
    TooFew {
        /// So many more answers have to be.
        missing: u64,
    },
    /// No two answers differed.
    Same,
    /// No two answers differed, but hardly any two requests with different credentials were compared.
    SameForOneUser,
    /// What the requests say in these parts decides.
    DependsOn(Vec<PartEvidence>),
    /// It may be one of these parts that decides: they were other ones whenever the answers were, and two requests that agreed in them were hardly ever
    /// compared.
    MayDependOn(Vec<PartEvidence>),
    /// Nothing in the requests explains it: the answers differ over time or at random.
    OverTime {
        /// Pairs of requests that said the same in everything that was compared.
        equal_requests: u64,
        /// How many of them had different answers.
        different: u64,
    },
}

/// A part of requests, and what was compared.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartEvidence {
    /// The part.
    pub part: RequestPart,
    /// Pairs in which it differed, and the answers too.
    pub both_differ: u64,
    /// Pairs in which it differed, and the answers were the same.
    pub answers_same: u64,
}

/// A part of a request that an answer may depend on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum RequestPart {
    /// A field, by its name.
    Field(String),
    /// A cookie, by its name.
    Cookie(String),
    /// A query parameter that the rule's key ignores.
    Parameter(String),
    /// One of those that there was no room to tell apart.
    Other,
}

impl RequestPart {
    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Self::Field(name) | Self::Cookie(name) | Self::Parameter(name) => name,
            Self::Other => "another part",
        }
    }

    /// Whether it says who asks, as far as names tell.
    pub fn is_credential(&self) -> bool {
        match self {
            Self::Field(name) => matches!(name.as_str(), "authorization" | "proxy-authorization"),
            Self::Cookie(_) => true,
            Self::Parameter(_) | Self::Other => false,
        }
    }
}

impl Uncached {
    /// The short name of the reason, as in `Cache-Status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bypass(reason) => reason.as_str(),
            Self::Declined(reason) => reason.as_str(),
        }
    }
}

impl DimensionKind {
    /// A short name that doesn't change.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Query => "query parameter",
            Self::Vary => "Vary",
            Self::KeyHeader => "key_header",
        }
    }
}

impl KeySpace {
    /// Whether the content ever depended on it.
    pub fn matters(&self) -> bool {
        self.different > 0
    }
}
