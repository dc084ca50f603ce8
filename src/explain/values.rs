//! [`Explanation`]: what the cache would do with a request, and why, as values. They show no credentials: of fields and cookies in a key their
//! names, of a principal that there is one.

use std::time::{Duration, SystemTime};

use http::{Method, StatusCode};

use crate::fates::{Fate, MissCause};
use crate::outcome::{CacheOutcome, Outcome};
use crate::rfc9111::freshness::LifetimeSource;
use crate::rfc9111::reuse::ValidateReason;
use crate::rfc9111::storability::DeclineReason;
use crate::strategy::Strategy;

/// What the cache would do with a request, and why; from [`CacheHandle::explain`](crate::CacheHandle::explain).
///
/// It is decided by the functions that decide for a request, so it is what the next request of the kind finds, unless others come in between.
/// Its `Display` is a text of several lines for a terminal.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Explanation {
    /// The method of the request.
    pub method: Method,
    /// Path and query of the request.
    pub target: String,
    /// The time for which the explanation holds, by the cache's wall clock.
    pub at: SystemTime,
    /// The rule that counts.
    pub rule: ExplainedRule,
    /// What would be done, as [`CacheOutcome`] in the answer would say it. Where the handler would be asked, that is [`Outcome::Miss`]: whether its answer
    /// confirms what is stored, is stored or fails, it alone can say. `None` for a QUERY with content where that is cached: the key isn't known without the content.
    pub outcome: Option<CacheOutcome>,
    /// The member of `Cache-Status` that says the same; empty where there is no [`outcome`](Self::outcome).
    pub cache_status: String,
    /// The status of the answer, where the cache alone decides it.
    pub status: Option<StatusCode>,
    /// The key; `None` where the request isn't looked up.
    pub key: Option<ExplainedKey>,
    /// All that is stored under the key, newest first.
    pub variants: Vec<ExplainedVariant>,
    /// Which of them is meant, in more detail.
    pub stored: Option<ExplainedResponse>,
    /// What last became of the key, as far as that is remembered.
    pub fate: Option<Fate>,
    /// How the handler would be asked, where it would be.
    pub fill: Option<ExplainedFill>,
    /// The request is a write: its success makes invalid what is stored for the URI (RFC 9111 §4.4).
    pub invalidates: bool,
    /// What the store said when it failed; then nothing is known of what it has.
    pub store_error: Option<String>,
}

/// The rule that counts for a request.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ExplainedRule {
    /// Its place in the order given; `None` for what `otherwise` says.
    pub index: Option<usize>,
    /// Its pattern; `None` for what `otherwise` says.
    pub pattern: Option<String>,
    /// For whom its answers are: `from_origin`, `shared`, `per`, `guarded` or `bypass`.
    pub audience: &'static str,
    /// Who is asked first.
    pub strategy: Strategy,
    /// What else it sets, as names and values.
    pub settings: Vec<(&'static str, String)>,
}

/// The key of a request.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ExplainedKey {
    /// Host and port, normalised; empty where the request names none.
    pub authority: String,
    /// The path.
    pub path: String,
    /// The query as it counts, by the rule that matched.
    pub query: Option<String>,
    /// What a stored response of the path said of queries, as `No-Vary-Search` says it. Then requests whose queries are equal by that have one key.
    pub search: Option<String>,
    /// What else is in it.
    pub parts: Vec<KeyPart>,
}

/// A part of a key, beside authority, path and query.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum KeyPart {
    /// The scheme that the application [named](crate::Scheme).
    Scheme(String),
    /// A field, and how many lines of it there are.
    Field {
        /// The name.
        name: String,
        /// The number of lines.
        lines: usize,
    },
    /// A cookie that the rule names, and how many there are of it.
    Cookie {
        /// The name as the rule has it.
        name: String,
        /// The number of cookies.
        count: usize,
    },
    /// The principal: each has a partition of its own.
    Partition,
    /// The target as a layer outside of the cache has rewritten it.
    Rewritten(String),
    /// The content of a QUERY.
    Content,
}

/// One of the responses under a key.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ExplainedVariant {
    /// The fields that its `Vary` nominates (RFC 9111 §4.1). What the request that it answered said there is shown for the fields of content negotiation only.
    pub nominated: Vec<(String, Option<String>)>,
    /// Its status.
    pub status: StatusCode,
    /// Its age.
    pub age: Duration,
    /// The number of the newest purge when it was asked for.
    pub number: u64,
    /// Whether no purge has touched it since.
    pub valid: bool,
    /// Whether it is the one that the request means.
    pub chosen: bool,
    /// It lies in memory. Where there is a store behind that, what is there is asked for and listed only if what is in memory isn't enough.
    pub is_near: bool,
}

/// The stored response that a request means.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ExplainedResponse {
    /// Its status.
    pub status: StatusCode,
    /// When it arrived.
    pub received: SystemTime,
    /// Its age (RFC 9111 §4.2.3).
    pub age: Duration,
    /// Its freshness lifetime (§4.2.1).
    pub lifetime: Duration,
    /// Who gave the lifetime; `None` if nobody did, and each use needs validation.
    pub source: Option<LifetimeSource>,
    /// The targeted field that did (RFC 9213), where it was one.
    pub field: Option<String>,
    /// When its lifetime is over, or was, by the wall clock; `None` if that lies beyond all clocks.
    pub fresh_until: Option<SystemTime>,
    /// When it ends if nobody asks for it, where the rule wants that ([`Policy::sliding`](crate::Policy::sliding)).
    pub unused_until: Option<SystemTime>,
    /// Whether a hit near its end refreshes it behind the answer.
    pub refreshes_ahead: bool,
    /// For how long past its lifetime it is sent while it is refreshed (RFC 5861 §3).
    pub stale_while_revalidate: Duration,
    /// For how long past its lifetime it stands in for an error (RFC 5861 §4).
    pub stale_if_error: Duration,
    /// It says `must-revalidate` or its like, so it is never sent stale.
    pub no_stale: bool,
    /// Why it may not be sent to this request without asking the handler, if so.
    pub validate: Option<ValidateReason>,
    /// Its entity tag.
    pub etag: Option<String>,
    /// The entity tag is the cache's own.
    pub own_etag: bool,
    /// Its `Last-Modified`.
    pub last_modified: Option<String>,
    /// `Last-Modified` is the cache's own.
    pub own_last_modified: bool,
    /// The groups that it names itself (RFC 9875).
    pub groups: Vec<String>,
    /// The tags that it bears by name, without what they are parts of.
    pub tags: Vec<String>,
    /// It was to bear more tags than it may, or one that is none: a purge of any tag touches it.
    pub bears_every_tag: bool,
    /// The bytes that it takes in the store.
    pub size: usize,
    /// The length of its content without coding by the cache.
    pub length: u64,
    /// The coding that the cache has given it.
    pub coding: Option<&'static str>,
    /// The number of the newest purge when it was asked for: what is purged under a larger number is invalid.
    pub number: u64,
    /// Until when it is worth keeping, by the wall clock.
    pub kept_until: Option<SystemTime>,
    /// It was stored under other settings than those of now, and this is what became of it.
    pub earlier: Option<EarlierSettings>,
}

/// What becomes of a response that was stored under other settings than those of now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EarlierSettings {
    /// It is used, on the stricter terms of then and now.
    Adopted,
    /// It isn't used: the answers of its route are for others now, or were made from other requests.
    OtherAudience,
    /// It isn't used: by the rule of now it has other tags, and one of them was purged.
    Purged,
    /// It isn't used: under the settings of now it wouldn't be stored.
    Declined(DeclineReason),
}

/// How the handler would be asked.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ExplainedFill {
    /// Why the store can't answer, as it would be counted.
    pub missed: MissCause,
    /// Whether it would be asked to confirm what is stored (RFC 9111 §4.3.1).
    pub conditional: bool,
    /// Whether it would be asked for all of it, whatever conditions and range the request has: then the answer can be stored.
    pub whole: bool,
    /// What would stand in if it failed without an answer.
    pub if_it_fails: Option<Outcome>,
    /// What would stand in if it answered 503.
    pub if_unavailable: Option<Outcome>,
    /// How many requests for the same key are with it now, whose answer this one might wait for.
    pub under_way: usize,
    /// The last answer was for one request only, so this one wouldn't wait for another (hit-for-miss).
    pub alone: bool,
}
