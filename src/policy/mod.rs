//! [`Policy`]: how the responses of a route are cached, and above all *for whom*.

mod asked;
mod ends;
mod labels;
mod shadow;

use std::fmt;
use std::time::Duration;

use http::{HeaderName, StatusCode};

pub(crate) use self::asked::{cookies, digest, matches_bytes};
use crate::expiry::Expiry;
use crate::partition::Quota;
use crate::principal::Principal;
use crate::query_rule::QueryRule;
use crate::request::RequestHead;
use crate::strategy::Strategy;

/// What a rule says about its routes. It begins with the audience, since that decides whether caching is safe:
///
/// | | who may be given the answer | freshness |
/// |---|---|---|
/// | [`from_origin`](Self::from_origin) | as RFC 9111 reads the handler's fields | what the handler says |
/// | [`shared`](Self::shared) | everybody: the application vouches for it | `ttl`, where the handler says nothing |
/// | [`per`](Self::per) | the same principal: each has a partition of its own | `ttl`, likewise |
/// | [`guarded`](Self::guarded) | requests without credentials; nobody vouches for others | `ttl`, likewise |
/// | [`bypass`](Self::bypass) | nobody | none |
///
/// Whatever a policy says, a response with `no-store`, `private` or `Set-Cookie` is not stored.
///
/// ```
/// use std::time::Duration;
/// use larder::Policy;
/// let policy = Policy::shared(Duration::from_secs(300))
///     .stale_while_revalidate(Duration::from_secs(60))
///     .sort_query()
///     .ignore_query(["utm_*", "fbclid"]);
/// ```
#[derive(Clone)]
#[must_use]
pub struct Policy {
    pub(crate) audience: Audience,
    pub(crate) ttl: Option<Duration>,
    pub(crate) overrides_origin: bool,
    pub(crate) status_ttls: Vec<(StatusCode, Duration)>,
    pub(crate) statuses: Option<Vec<StatusCode>>,
    pub(crate) downstream: Option<Duration>,
    pub(crate) stale_while_revalidate: Option<Duration>,
    pub(crate) stale_if_error: Option<Duration>,
    pub(crate) fill_timeout: Option<Duration>,
    pub(crate) expiry: Expiry,
    pub(crate) heuristics: Option<bool>,
    pub(crate) drop_set_cookie: bool,
    pub(crate) store_post: Option<bool>,
    pub(crate) strategy: Strategy,
    pub(crate) quota: Quota,
    pub(crate) strip_credentials: bool,
    pub(crate) ignored_cookies: Vec<String>,
    pub(crate) query: QueryRule,
    pub(crate) key_headers: Vec<HeaderName>,
    pub(crate) key_cookies: Vec<String>,
    pub(crate) tags: Vec<String>,
    pub(crate) purged_tags: Vec<String>,
    pub(crate) purged_globs: Vec<String>,
    pub(crate) shadow: bool,
}

#[derive(Clone)]
pub(crate) enum Audience {
    Origin,
    Shared,
    Per(Principal),
    Guarded,
    Bypass,
}

impl Audience {
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Origin => "from_origin",
            Self::Shared => "shared",
            Self::Per(_) => "per",
            Self::Guarded => "guarded",
            Self::Bypass => "bypass",
        }
    }
}

/// Statuses that a rule's TTL applies to without being named: what a route answers when all is well.
const GOOD: [u16; 6] = [200, 203, 204, 300, 301, 308];

/// Cookies that only statistics in the browser use; no handler's answer depends on them.
const ANALYTICS_COOKIES: [&str; 18] = [
    "_ga",
    "_ga_*",
    "_gid",
    "_gat*",
    "_gcl_*",
    "_dc_gtm_*",
    "__utm*",
    "_fbp",
    "_fbc",
    "_hj*",
    "_pk_*",
    "_clck",
    "_clsk",
    "_uet*",
    "_tt_*",
    "ajs_*",
    "amp_*",
    "_scid*",
];

impl Policy {
    fn new(audience: Audience, ttl: Option<Duration>) -> Self {
        Self {
            audience,
            ttl,
            overrides_origin: false,
            status_ttls: Vec::new(),
            statuses: None,
            downstream: None,
            stale_while_revalidate: None,
            stale_if_error: None,
            fill_timeout: None,
            expiry: Expiry::default(),
            heuristics: None,
            drop_set_cookie: false,
            store_post: None,
            strategy: Strategy::CacheFirst,
            quota: Quota::default(),
            strip_credentials: false,
            ignored_cookies: ANALYTICS_COOKIES.map(String::from).to_vec(),
            query: QueryRule::default(),
            key_headers: Vec::new(),
            key_cookies: Vec::new(),
            tags: Vec::new(),
            purged_tags: Vec::new(),
            purged_globs: Vec::new(),
            shadow: false,
        }
    }

    /// RFC 9111 on what the handler says; the policy of every route that no rule names.
    pub fn from_origin() -> Self {
        Self::new(Audience::Origin, None)
    }

    /// The application vouches that the answer is the same for everybody, whatever cookies or `Authorization` a request has.
    ///
    /// [`strip_credentials`](Self::strip_credentials) makes sure of it.
    pub fn shared(ttl: Duration) -> Self {
        Self::new(Audience::Shared, Some(ttl))
    }

    /// The answer is for one principal: `principal` names it, from an extension that an auth layer outside has set, or from a field.
    /// Each has a partition of its own, whose key holds a keyed digest of the name. A request without a principal bypasses the cache.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use larder::{Policy, RequestHead};
    /// struct UserId(String);
    /// let policy = Policy::per(
    ///     |request: &RequestHead<'_>| request.extensions.get::<UserId>().map(|id| id.0.clone()),
    ///     Duration::from_secs(30),
    /// );
    /// ```
    pub fn per<P: AsRef<[u8]>>(
        principal: impl Fn(&RequestHead<'_>) -> Option<P> + Send + Sync + 'static,
        ttl: Duration,
    ) -> Self {
        Self::per_principal(Principal::new(principal), ttl)
    }

    /// How much one principal of [`per`](Self::per) may have in the store under this rule: `bytes` with keys and heads counted, in at most
    /// `responses` responses (each variant is one); 16 MiB and 1,024 by default. Beyond it the principal's own oldest leave, counted in
    /// [`Stats::quota_evictions`](crate::Stats::quota_evictions); a response that alone is larger isn't stored
    /// ([`DeclineReason::PartitionQuota`](crate::DeclineReason::PartitionQuota)). Without effect for other audiences.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use larder::{Policy, RequestHead};
    /// # let user = |_: &RequestHead<'_>| Some("me");
    /// let policy = Policy::per(user, Duration::from_secs(30)).quota(1 << 20, 100);
    /// ```
    pub fn quota(mut self, bytes: u64, responses: usize) -> Self {
        self.quota = Quota { bytes, responses: responses.max(1) };
        self
    }

    /// A TTL for routes where nobody vouches who the answer is for: requests with `Authorization`, or with a cookie that isn't
    /// [ignored](Self::ignore_cookies), bypass the cache. The first that does is logged, with the word that would change it.
    pub fn guarded(ttl: Duration) -> Self {
        Self::new(Audience::Guarded, Some(ttl))
    }

    /// Neither look up nor store.
    pub fn bypass() -> Self {
        Self::new(Audience::Bypass, None)
    }

    /// Let the rule's TTL win over the lifetime that the handler states (`max-age`, `Expires` ...). `no-cache` still means validation.
    pub fn override_origin(mut self) -> Self {
        self.overrides_origin = true;
        self
    }

    /// A TTL for one status: negative caching. Statuses that a hostile request may provoke (400, 406, 413, 414, 431, 5xx) are never
    /// stored; a rule that names one is refused.
    pub fn status_ttl(mut self, status: StatusCode, ttl: Duration) -> Self {
        self.status_ttls.push((status, ttl));
        self
    }

    /// Store these statuses only, and apply the TTL to all of them. By default every status with explicit freshness is stored, and the TTL
    /// applies to 200, 203, 204, 300, 301 and 308.
    pub fn statuses(mut self, statuses: impl IntoIterator<Item = StatusCode>) -> Self {
        self.statuses = Some(statuses.into_iter().collect());
        self
    }

    /// For how long clients and caches downstream may use an answer, if not for the rest of its lifetime here. Purges don't reach
    /// them, so a short time makes purges felt early.
    pub fn downstream(mut self, lifetime: Duration) -> Self {
        self.downstream = Some(lifetime);
        self
    }

    /// For how long past its lifetime a response is served while it is refreshed behind the answer (RFC 5861 §3); none by default.
    pub fn stale_while_revalidate(mut self, window: Duration) -> Self {
        self.stale_while_revalidate = Some(window);
        self
    }

    /// For how long past its lifetime a response stands in when the handler fails, answers 500, 502, 503 or 504, or takes longer than
    /// the [time limit](Self::fill_timeout) (RFC 5861 §4); none by default.
    pub fn stale_if_error(mut self, window: Duration) -> Self {
        self.stale_if_error = Some(window);
        self
    }

    /// How long the handler may take before a stale response stands in, where [`stale_if_error`](Self::stale_if_error) allows one; the
    /// handler's answer still refreshes the store, as one of the [refreshes](crate::CacheLayer::max_refreshes). No limit by default.
    pub fn fill_timeout(mut self, limit: Duration) -> Self {
        self.fill_timeout = Some(limit);
        self
    }

    /// Who is asked first, the store or the handler; [`Strategy::CacheFirst`] by default.
    pub fn strategy(mut self, strategy: Strategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// Ask the handler first; what is stored answers if that fails or takes longer than `limit`: [`Strategy::NetworkFirst`].
    pub fn network_first(self, limit: Duration) -> Self {
        self.strategy(Strategy::NetworkFirst { limit: Some(limit) })
    }

    /// Answer from the store or with 504, and never ask the handler: [`Strategy::CacheOnly`].
    pub fn cache_only(self) -> Self {
        self.strategy(Strategy::CacheOnly)
    }

    /// Whether a lifetime may be guessed from `Last-Modified` (RFC 9111 §4.2.2), for these routes.
    pub fn heuristics(mut self, on: bool) -> Self {
        self.heuristics = Some(on);
        self
    }

    /// Store responses that set cookies, without the cookies. The client whose request filled the cache gets them; no other does.
    pub fn drop_set_cookie(mut self) -> Self {
        self.drop_set_cookie = true;
        self
    }

    /// Take `Cookie` and `Authorization` from what the handler sees when its answer may be stored.
    pub fn strip_credentials(mut self) -> Self {
        self.strip_credentials = true;
        self
    }

    /// Cookies that [`guarded`](Self::guarded) doesn't mind, beside those of the usual analytics; a `*` at the end stands for any rest.
    pub fn ignore_cookies<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.ignored_cookies.extend(names.into_iter().map(Into::into));
        self
    }

    /// Sort the query's parameters by name, so that their order doesn't matter. The handler sees them sorted.
    pub fn sort_query(mut self) -> Self {
        self.query.sorted = true;
        self
    }

    /// Query parameters that don't matter; a `*` at the end stands for any rest. The handler doesn't see them.
    pub fn ignore_query<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.query.ignored.extend(names.into_iter().map(Into::into));
        self
    }

    /// The only query parameters that matter. The handler sees no others.
    pub fn only_query<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.query.allowed.get_or_insert_default().extend(names.into_iter().map(Into::into));
        self
    }

    /// Fields of the request whose values belong to the key, as if every response varied on them.
    pub fn key_header(mut self, name: HeaderName) -> Self {
        self.key_headers.push(name);
        self
    }

    /// Cookies whose values belong to the key. The handler sees no others.
    pub fn key_cookies<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.key_cookies.extend(names.into_iter().map(Into::into));
        self
    }
}

impl Policy {
    pub(crate) fn per_principal(principal: Principal, ttl: Duration) -> Self {
        Self::new(Audience::Per(principal), Some(ttl))
    }

    /// The same for the principals of another closure.
    #[cfg(feature = "config")]
    pub(crate) fn with_principal(self, principal: Principal, ttl: Duration) -> Self {
        Self { audience: Audience::Per(principal), ttl: Some(ttl), ..self }
    }

    /// The rule's TTL for a status.
    pub(crate) fn ttl_for(&self, status: StatusCode) -> Option<Duration> {
        if let Some((_, ttl)) = self.status_ttls.iter().find(|(named, _)| *named == status) {
            return Some(*ttl);
        }
        let applies = match &self.statuses {
            Some(statuses) => statuses.contains(&status),
            None => GOOD.contains(&status.as_u16()),
        };
        self.ttl.filter(|_| applies)
    }

    /// Whether the rule gives any answer a lifetime that its handler didn't.
    pub(crate) fn has_ttl(&self) -> bool {
        self.ttl.is_some() || !self.status_ttls.is_empty() || self.heuristics == Some(true)
    }

    /// Whether the rule stores this status at all.
    pub(crate) fn stores(&self, status: StatusCode) -> bool {
        let named = self.status_ttls.iter().any(|(named, _)| *named == status);
        named || self.statuses.as_ref().is_none_or(|statuses| statuses.contains(&status))
    }

    /// Whether the application said who the answers are for.
    pub(crate) fn declares_audience(&self) -> bool {
        matches!(self.audience, Audience::Shared | Audience::Per(_))
    }

    /// For how long past its lifetime the rule serves a response while it is refreshed, where nobody else says so.
    pub(crate) fn stale_window(&self) -> Option<Duration> {
        let always = (self.strategy == Strategy::StaleWhileRevalidate).then_some(Duration::MAX);
        self.stale_while_revalidate.or(always)
    }

    /// The ignored cookies that were named, beside those of the usual analytics.
    pub(crate) fn named_ignored_cookies(&self) -> &[String] {
        self.ignored_cookies.get(ANALYTICS_COOKIES.len()..).unwrap_or_default()
    }

    pub(crate) fn is_partitioned(&self) -> bool {
        matches!(self.audience, Audience::Per(_))
    }

    /// What a principal may have in the store, where there are principals.
    pub(crate) fn partition_quota(&self) -> Option<Quota> {
        self.is_partitioned().then_some(self.quota)
    }
}

impl Default for Policy {
    /// [`Policy::from_origin`].
    fn default() -> Self {
        Self::from_origin()
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy")
            .field("audience", &self.audience.as_str())
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}
