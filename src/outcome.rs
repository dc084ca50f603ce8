//! [`CacheOutcome`]: what the cache did with a request, as one value. The branch taken, `X-Cache`, `Cache-Status` (RFC 9211), spans and
//! statistics all come from it, so they can't disagree.

use std::fmt;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use smallvec::SmallVec;

use crate::head::Places;
use crate::rfc9111::storability::DeclineReason;

pub(crate) const X_CACHE: HeaderName = HeaderName::from_static("x-cache");
pub(crate) const X_CACHE_AGE: HeaderName = HeaderName::from_static("x-cache-age");
pub(crate) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// The fields that are written anew on every answer.
pub(crate) const OWN_FIELDS: [HeaderName; 4] = [header::AGE, X_CACHE, X_CACHE_AGE, CACHE_STATUS];

/// What the cache did with a request; every response that passed the cache has it in its extensions.
///
/// ```
/// use larder::{CacheOutcome, DeclineReason, Outcome};
///
/// /// For a layer outside of the cache: was this worth the handler's time?
/// fn is_avoidable<B>(response: &http::Response<B>) -> bool {
///     let Some(cache) = response.extensions().get::<CacheOutcome>() else { return false };
///     matches!(cache.outcome, Outcome::Miss(_)) && cache.stored == Some(Err(DeclineReason::NoFreshness))
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheOutcome {
    /// What it did.
    pub outcome: Outcome,
    /// The age of a stored response that was sent.
    pub age: Option<Duration>,
    /// Its remaining lifetime in seconds; negative where it is stale.
    pub ttl: Option<i64>,
    /// Whether the response is stored, or why not; `None` where that was no question.
    pub stored: Option<Result<(), DeclineReason>>,
    /// The index of the rule that matched, in the order they were given; `None` for what `otherwise` says.
    pub rule: Option<usize>,
}

/// The things that can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// Answered from the store, fresh.
    Hit,
    /// Answered from the store though stale.
    Stale(StaleReason),
    /// [`Strategy::NetworkFirst`](crate::Strategy::NetworkFirst): the handler failed, answered with a 5xx status or took too long, and what
    /// is stored, still fresh, answered in its place.
    Fallback,
    /// The handler confirmed a stored response (304), which was then sent; with the reason why it was asked.
    Revalidated(ForwardReason),
    /// The handler answered.
    Miss(ForwardReason),
    /// The handler answered another request for the same, which this one waited for (RFC 9211 §2.6); with the reason why it wasn't answered from the
    /// store.
    Collapsed(ForwardReason),
    /// Not looked up; nor stored, but for the answer to a POST where that is [switched on](crate::Policy::store_post).
    Bypass(BypassReason),
}

/// What allowed to send a stale response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StaleReason {
    /// stale-while-revalidate (RFC 5861 §3): it is being refreshed.
    WhileRevalidate,
    /// stale-if-error (RFC 5861 §4): the handler failed, answered 500, 502, 503 or 504, or took too long.
    IfError,
    /// The request's `max-stale` (RFC 9111 §5.2.1.2).
    MaxStale,
    /// A 304 that names another entity tag: sent once more and then forgotten.
    Unconfirmed,
    /// [`Strategy::NetworkFirst`](crate::Strategy::NetworkFirst): the handler failed, answered with a 5xx status or took too long.
    NetworkFirst,
    /// [`Strategy::CacheOnly`](crate::Strategy::CacheOnly): the handler isn't asked, and a stale window allows it.
    CacheOnly,
}

/// Why a request went to the handler; the words of RFC 9211 §2.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ForwardReason {
    /// Nothing is stored for this URI.
    UriMiss,
    /// Something is, but not the variant asked for.
    VaryMiss,
    /// The stored response may not be used without validation, because the request or the response says so.
    Request,
    /// It is stale.
    Stale,
    /// `only-if-cached`, and nothing usable is stored: the cache answered 504 itself, and did not forward.
    OnlyIfCached,
    /// A fresh response is stored, and [`Strategy::NetworkFirst`](crate::Strategy::NetworkFirst) asks the handler all the same.
    NetworkFirst,
    /// [`Strategy::CacheOnly`](crate::Strategy::CacheOnly), and nothing usable is stored: the cache answered 504 itself.
    CacheOnly,
    /// What other instances purged isn't known at the moment ([`CacheLayer::staleness_bound`](crate::CacheLayer::staleness_bound)), so that nothing stored may be used.
    Distrusted,
    /// Too many requests wait for others already ([`CacheLayer::max_waiting`](crate::CacheLayer::max_waiting)): the cache answered 503 itself.
    Crowded,
}

/// Why the cache kept out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BypassReason {
    /// The rule says so.
    Rule,
    /// The rule's strategy is [`Strategy::NetworkOnly`](crate::Strategy::NetworkOnly).
    NetworkOnly,
    /// The method is not GET or HEAD, nor QUERY where that is [cached](crate::CacheLayer::cache_query_method).
    Method,
    /// `Policy::guarded`, and the request has `Authorization` or a cookie that isn't ignored.
    Credentials,
    /// `Policy::per`, and the request has no principal.
    NoPrincipal,
    /// A QUERY with more content than [`CacheLayer::max_query_content`](crate::CacheLayer::max_query_content), with trailers, or with a body that broke off or
    /// isn't of the type that [`CacheLayer::cache_query_method`](crate::CacheLayer::cache_query_method) names.
    QueryContent,
    /// A GET with content: what the handler makes of it can't be known from the key.
    RequestContent,
    /// A field by which frameworks replace the method or the target, such as `X-HTTP-Method-Override`.
    Rerouted,
    /// `Host` is repeated or disagrees with the request target.
    AmbiguousHost,
    /// The URI or a key part is too long.
    KeyTooLong,
    /// The request wants another protocol.
    Upgrade,
    /// `Connection` names fields that a proxy inside would take away, so that its origin sees another request than the key.
    ConnectionOption,
    /// The path holds dot segments, empty segments, parameters or encoded separators, by which a handler may read another path than the rule
    /// did; or another rule matches it when it is decoded.
    AmbiguousPath,
    /// The rule is in [shadow](crate::Policy::shadow): its answers are compared, and neither stored nor served.
    Shadow,
    /// Another layer of the same cache has this request in hand; that one speaks and counts for both, so this is never seen outside.
    Nested,
}

impl Outcome {
    /// The value of `X-Cache`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit | Self::Fallback => "HIT",
            Self::Stale(_) => "STALE",
            Self::Revalidated(_) => "REVALIDATED",
            Self::Miss(_) | Self::Collapsed(_) => "MISS",
            Self::Bypass(_) => "BYPASS",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl StaleReason {
    /// A short name that doesn't change, for headers, metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WhileRevalidate => "stale-while-revalidate",
            Self::IfError => "stale-if-error",
            Self::MaxStale => "max-stale",
            Self::Unconfirmed => "unconfirmed",
            Self::NetworkFirst => "network-first",
            Self::CacheOnly => "cache-only",
        }
    }
}

impl ForwardReason {
    /// The word of RFC 9211 §2.2, or of the strategy where that is the reason.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Request => "request",
            Self::Stale => "stale",
            Self::OnlyIfCached => "only-if-cached",
            Self::NetworkFirst => "network-first",
            Self::CacheOnly => "cache-only",
            Self::Distrusted => "distrusted",
            Self::Crowded => "crowded",
        }
    }
}

impl BypassReason {
    /// A short name that doesn't change, for headers, metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rule => "rule",
            Self::NetworkOnly => "network-only",
            Self::Method => "method",
            Self::Credentials => "credentials",
            Self::NoPrincipal => "no-principal",
            Self::QueryContent => "query-content",
            Self::RequestContent => "request-content",
            Self::Rerouted => "rerouted",
            Self::AmbiguousHost => "ambiguous-host",
            Self::KeyTooLong => "key-too-long",
            Self::Upgrade => "upgrade",
            Self::ConnectionOption => "connection-option",
            Self::AmbiguousPath => "ambiguous-path",
            Self::Shadow => "shadow",
            Self::Nested => "nested",
        }
    }
}

impl CacheOutcome {
    pub(crate) fn new(outcome: Outcome, rule: Option<usize>) -> Self {
        Self { outcome, age: None, ttl: None, stored: None, rule }
    }

    /// Of a stored response of this age and lifetime.
    pub(crate) fn of_stored(outcome: Outcome, rule: Option<usize>, age: Duration, lifetime: Duration) -> Self {
        let signed = |d: Duration| i64::try_from(d.as_secs()).unwrap_or(i64::MAX);
        let ttl = signed(lifetime).saturating_sub(signed(age));
        Self { outcome, age: Some(age), ttl: Some(ttl), stored: None, rule }
    }

    pub(crate) fn stored(mut self, stored: Result<(), DeclineReason>) -> Self {
        self.stored = Some(stored);
        self
    }

    /// Whether nothing was stored, and something is now.
    fn is_first_miss(&self) -> bool {
        self.outcome == Outcome::Miss(ForwardReason::UriMiss) && self.stored == Some(Ok(())) && self.ttl.is_none()
    }

    /// The member that this cache adds to `Cache-Status` (RFC 9211 §2).
    ///
    /// ```text
    /// larder; hit; ttl=42
    /// larder; fwd=uri-miss; stored
    /// larder; fwd=uri-miss; detail=set-cookie
    /// ```
    pub(crate) fn cache_status(&self, name: &str) -> SmallVec<[u8; 96]> {
        let mut text = SmallVec::from_slice(name.as_bytes());
        let (mut detail, mut strategy) = (None, None);
        match self.outcome {
            Outcome::Hit => text.extend_from_slice(b"; hit"),
            Outcome::Stale(
                reason @ (StaleReason::WhileRevalidate | StaleReason::MaxStale | StaleReason::CacheOnly),
            ) => {
                text.extend_from_slice(b"; hit");
                detail = Some(reason.as_str());
            }
            Outcome::Stale(reason) => {
                text.extend_from_slice(b"; fwd=stale");
                detail = Some(reason.as_str());
            }
            Outcome::Fallback => {
                text.extend_from_slice(b"; fwd=bypass");
                detail = Some(ForwardReason::NetworkFirst.as_str());
            }
            Outcome::Revalidated(reason) => {
                strategy = forwarded(&mut text, reason);
                text.extend_from_slice(b"; fwd-status=304");
            }
            Outcome::Miss(
                reason @ (ForwardReason::OnlyIfCached | ForwardReason::CacheOnly | ForwardReason::Crowded),
            ) => {
                detail = Some(reason.as_str());
            }
            Outcome::Miss(reason) => strategy = forwarded(&mut text, reason),
            Outcome::Collapsed(reason) => {
                strategy = forwarded(&mut text, reason);
                text.extend_from_slice(b"; collapsed");
            }
            Outcome::Bypass(BypassReason::Method) => text.extend_from_slice(b"; fwd=method"),
            Outcome::Bypass(reason) => {
                text.extend_from_slice(b"; fwd=bypass");
                detail = Some(reason.as_str());
            }
        }
        if let Some(ttl) = self.ttl {
            text.extend_from_slice(b"; ttl=");
            append_number(&mut text, ttl);
        }
        match self.stored {
            Some(Ok(())) => text.extend_from_slice(b"; stored"),
            Some(Err(reason)) => detail = detail.or(Some(reason.as_str())),
            None => {}
        }
        // Why something isn't stored says more than the strategy, which the rule knows.
        if let Some(detail) = detail.or(strategy) {
            text.extend_from_slice(b"; detail=");
            text.extend_from_slice(detail.as_bytes());
        }
        text
    }
}

/// Adds the word of RFC 9211 §2.2 for `reason`. It has none for a strategy: "The cache was configured to not handle this request" is the
/// nearest, and the strategy's own name is the detail; nor for distrust, where what is there can't be used to satisfy the request: a "miss".
fn forwarded(text: &mut SmallVec<[u8; 96]>, reason: ForwardReason) -> Option<&'static str> {
    text.extend_from_slice(b"; fwd=");
    let nearest: Option<&[u8]> = match reason {
        ForwardReason::NetworkFirst => Some(b"bypass"),
        ForwardReason::Distrusted => Some(b"miss"),
        _ => None,
    };
    text.extend_from_slice(nearest.unwrap_or(reason.as_str().as_bytes()));
    nearest.map(|_| reason.as_str())
}

fn append_number(text: &mut SmallVec<[u8; 96]>, number: i64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = number.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        text.push(b'-');
    }
    text.extend_from_slice(&digits[at..]);
}

/// Which of the cache's own fields go out, and under which name it speaks.
#[derive(Clone, Debug)]
pub(crate) struct HeaderSwitches {
    pub(crate) name: String,
    pub(crate) age: bool,
    pub(crate) x_cache: bool,
    pub(crate) x_cache_age: bool,
    pub(crate) cache_status: bool,
    pub(crate) warning: bool,
}

impl Default for HeaderSwitches {
    fn default() -> Self {
        Self { name: "larder".into(), age: true, x_cache: true, x_cache_age: true, cache_status: true, warning: false }
    }
}

impl HeaderSwitches {
    /// The fields that a stored response goes out with, in the order of [`fill`](Self::fill).
    pub(crate) fn names(&self) -> SmallVec<[HeaderName; 4]> {
        let wanted = [self.age, self.x_cache, self.x_cache_age, self.cache_status];
        OWN_FIELDS.into_iter().zip(wanted).filter(|(_, wanted)| *wanted).map(|(name, _)| name).collect()
    }

    /// Puts what `outcome` says into the places of [`names`](Self::names); `of_hit` is its `Cache-Status`, where that is known.
    pub(crate) fn fill(&self, places: &mut Places<'_>, outcome: &CacheOutcome, of_hit: Option<HeaderValue>) {
        let age = number(outcome.age.unwrap_or_default().as_secs());
        if self.age {
            places.put(age.clone());
        }
        if self.x_cache {
            places.put(HeaderValue::from_static(outcome.outcome.as_str()));
        }
        if self.x_cache_age {
            places.put(age);
        }
        if self.cache_status {
            places.put(of_hit.unwrap_or_else(|| self.status_value(outcome)));
        }
    }

    /// The old warning of a stale answer, if it is wanted (RFC 7234 §5.5.1; RFC 9111 made it obsolete, and some clients still read it).
    pub(crate) fn warn(&self, head: &mut HeaderMap, outcome: &CacheOutcome) {
        if self.warning && outcome.ttl.is_some_and(|ttl| ttl < 0) {
            head.insert(header::WARNING, HeaderValue::from_static("110 - \"Response is Stale\""));
        }
    }

    /// Writes what `outcome` says into the head of a response that comes from the handler.
    pub(crate) fn add(&self, head: &mut HeaderMap, outcome: &CacheOutcome) {
        if self.x_cache {
            head.insert(X_CACHE, HeaderValue::from_static(outcome.outcome.as_str()));
        }
        if self.cache_status {
            // RFC 9211 §2: what caches nearer to the origin said stays in front.
            head.append(CACHE_STATUS, self.status_value(outcome));
        }
    }

    fn status_value(&self, outcome: &CacheOutcome) -> HeaderValue {
        // What most misses say, which takes no memory so.
        if self.name == "larder" && outcome.is_first_miss() {
            return HeaderValue::from_static("larder; fwd=uri-miss; stored");
        }
        HeaderValue::from_bytes(&outcome.cache_status(&self.name)).unwrap_or(HeaderValue::from_static("larder"))
    }
}

/// A number as a field value; small ones, which are the most frequent, come from a table and cost no memory.
pub(crate) fn number(n: u64) -> HeaderValue {
    match usize::try_from(n).ok().and_then(|n| SMALL.get(n)) {
        Some(text) => {
            let start = text.iter().position(|b| *b != b'0').unwrap_or(text.len() - 1);
            HeaderValue::from_static(std::str::from_utf8(&text[start..]).unwrap_or("0"))
        }
        None => HeaderValue::from(n),
    }
}

/// The numbers below 3600, with leading zeros.
static SMALL: [[u8; 4]; 3600] = {
    let mut table = [[0u8; 4]; 3600];
    let mut n = 0;
    while n < table.len() {
        table[n] =
            [b'0' + (n / 1000) as u8, b'0' + (n / 100 % 10) as u8, b'0' + (n / 10 % 10) as u8, b'0' + (n % 10) as u8];
        n += 1;
    }
    table
};

#[cfg(test)]
mod tests;
