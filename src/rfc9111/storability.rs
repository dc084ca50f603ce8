//! May this response be stored (RFC 9111 §3), and if not, which named reason forbids it?

use http::{HeaderMap, Method, StatusCode, header};

use super::directives::ResponseDirectives;
use super::fields::connection_options;
use super::freshness::LifetimeSource;
use super::vary::Vary;

/// The answer of [`storability`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storability {
    /// It may be stored, provided that its body ends well.
    Store,
    /// It must not be, for this reason.
    Decline(DeclineReason),
}

/// Why a response is not stored. Its [name](Self::as_str) is what `Cache-Status` shows as `detail`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeclineReason {
    /// Only the answer to a GET is stored (§3, "the request method is understood").
    Method,
    /// 1xx, 206, 304, 412, 416 and switched protocols are no representation that could answer another request whole;
    /// 428, 429, 431 and 511 speak to one client (RFC 6585).
    Status,
    /// An error that a hostile or broken request may have provoked: 400, 401, 406, 407, 408, 411, 413, 414, 415, 417, 421, 425, 426, 5xx. Stored for everybody, it would be
    /// a way to take a page down. (`CacheLayer::strict_rfc` stores them where they carry explicit freshness.)
    ErrorStatus,
    /// `must-understand` and a status whose caching requirements larder doesn't know (§5.2.2.3).
    MustUnderstand,
    /// `no-store` in the response (§5.2.2.5).
    NoStore,
    /// `no-store` in the request (§5.2.1.5).
    RequestNoStore,
    /// `private` (§5.2.2.7).
    Private,
    /// The request had `Authorization`, and nothing in the response or the policy says that the answer is for everybody (§3.5).
    Authorization,
    /// The response sets a cookie. `Policy::drop_set_cookie` stores it without.
    SetCookie,
    /// `Vary: *`, or so malformed that it could mean it (§4.1).
    VaryStar,
    /// `Vary` on `Cookie` or `Authorization`: an answer for one user. `Policy::per` gives each user a partition.
    VaryCredentials,
    /// Nobody said how long it is fresh, and there is no validator with which to ask again (§3).
    NoFreshness,
    /// It was stale when it arrived, and can neither be validated nor served stale.
    AlreadyStale,
    /// The rule doesn't store this status.
    RuleStatus,
    /// The handler said `Cached::no_store`.
    Handler,
    /// `text/event-stream` or switched protocols: endless by nature, so never buffered.
    EndlessStream,
    /// `Connection` names a field that says what the content is (`Content-Encoding`, `Vary` ...). It would have to be left out of what is stored
    /// (RFC 9110 §7.6.1), which would then be something else.
    ConnectionOption,
    /// The head is larger than the limit.
    HeadTooLarge,
    /// The body is larger than the limit.
    BodyTooLarge,
    /// All fills together would hold more bytes than allowed.
    FillBudget,
    /// It alone is more than its principal may have in the store (`Policy::quota`).
    PartitionQuota,
    /// It is for one principal, and the only store is one that several instances share, which have no common secret to name principals by.
    PartitionSecret,
    /// The body didn't end cleanly, or not at its `Content-Length`.
    Incomplete,
    /// The body came with trailers, which a stored response can't repeat.
    Trailers,
    /// Purged while it was on its way, so it may be older than the purge.
    Purged,
    /// The cache is shutting down.
    Shutdown,
}

impl DeclineReason {
    /// A short name that doesn't change, for headers, metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Status => "status",
            Self::ErrorStatus => "error-status",
            Self::MustUnderstand => "must-understand",
            Self::NoStore => "no-store",
            Self::RequestNoStore => "request-no-store",
            Self::Private => "private",
            Self::Authorization => "authorization",
            Self::SetCookie => "set-cookie",
            Self::VaryStar => "vary-star",
            Self::VaryCredentials => "vary-credentials",
            Self::NoFreshness => "no-freshness",
            Self::AlreadyStale => "already-stale",
            Self::RuleStatus => "rule-status",
            Self::Handler => "handler",
            Self::EndlessStream => "endless-stream",
            Self::ConnectionOption => "connection-option",
            Self::HeadTooLarge => "head-too-large",
            Self::BodyTooLarge => "body-too-large",
            Self::FillBudget => "fill-budget",
            Self::PartitionQuota => "partition-quota",
            Self::PartitionSecret => "partition-secret",
            Self::Incomplete => "incomplete",
            Self::Trailers => "trailers",
            Self::Purged => "purged",
            Self::Shutdown => "shutdown",
        }
    }

    /// Whether the response itself is the reason, so that what was stored of the same resource before is no longer good either. Others speak
    /// of one request or of this cache's limits, and an error says nothing about what it stands in for.
    pub fn condemns_stored(self) -> bool {
        matches!(
            self,
            Self::MustUnderstand
                | Self::NoStore
                | Self::Private
                | Self::SetCookie
                | Self::VaryStar
                | Self::VaryCredentials
                | Self::NoFreshness
                | Self::AlreadyStale
                | Self::RuleStatus
                | Self::Handler
                | Self::EndlessStream
                | Self::ConnectionOption
                | Self::HeadTooLarge
                | Self::BodyTooLarge
        )
    }

    /// Every reason, for documentation and for statistics.
    pub const ALL: [Self; 26] = [
        Self::Method,
        Self::Status,
        Self::ErrorStatus,
        Self::MustUnderstand,
        Self::NoStore,
        Self::RequestNoStore,
        Self::Private,
        Self::Authorization,
        Self::SetCookie,
        Self::VaryStar,
        Self::VaryCredentials,
        Self::NoFreshness,
        Self::AlreadyStale,
        Self::RuleStatus,
        Self::Handler,
        Self::EndlessStream,
        Self::ConnectionOption,
        Self::HeadTooLarge,
        Self::BodyTooLarge,
        Self::FillBudget,
        Self::PartitionQuota,
        Self::PartitionSecret,
        Self::Incomplete,
        Self::Trailers,
        Self::Purged,
        Self::Shutdown,
    ];
}

impl std::fmt::Display for DeclineReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where the safe defaults are stricter than the RFC: what is left out by default, and allowed to follow it to the letter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leniency {
    /// Store the statuses of [`DeclineReason::ErrorStatus`] where the origin gave explicit freshness.
    pub error_statuses: bool,
    /// Store a response that sets a cookie, cookie included.
    pub set_cookie: bool,
    /// Store a response that varies on `Cookie` or `Authorization`.
    pub vary_credentials: bool,
    /// Let `must-understand` lift `no-store` where the status is understood (§5.2.2.3).
    pub must_understand_lifts_no_store: bool,
}

/// What is known about an exchange when its response's head has arrived.
#[derive(Clone, Copy, Debug)]
pub struct Exchange<'a> {
    /// The request's method.
    pub method: &'a Method,
    /// Whether the request had `Authorization`.
    pub authorization: bool,
    /// Whether the request said `no-store`.
    pub request_no_store: bool,
    /// Whether the application declared who the answer is for, so that the request's credentials don't matter: all (`shared`) or one
    /// partition (`per`).
    pub audience_declared: bool,
    /// The response's status.
    pub status: StatusCode,
    /// The response's fields.
    pub headers: &'a HeaderMap,
    /// What its `Cache-Control` or targeted field says.
    pub said: &'a ResponseDirectives,
    /// Who gave it a lifetime, if anybody did.
    pub lifetime: Option<LifetimeSource>,
}

/// Whether the response of `exchange` may be stored. The reasons are tried in the order of the steps of §3.
pub fn storability(exchange: &Exchange<'_>, leniency: Leniency) -> Storability {
    match decline(exchange, leniency) {
        Some(reason) => Storability::Decline(reason),
        None => Storability::Store,
    }
}

fn decline(exchange: &Exchange<'_>, leniency: Leniency) -> Option<DeclineReason> {
    let Exchange { status, said, headers, .. } = *exchange;
    // "the request method is understood by the cache"
    if *exchange.method != Method::GET {
        return Some(DeclineReason::Method);
    }
    // "the response status code is final", and not one that speaks about a part, a condition or one client (RFC 6585 §3 to §6)
    if !status.is_success() && !status.is_redirection() && !status.is_client_error() && status.as_u16() < 500
        || matches!(status.as_u16(), 206 | 304 | 412 | 416 | 428 | 429 | 431 | 511)
    {
        return Some(DeclineReason::Status);
    }
    // "if the response status code is 206 or 304, or the must-understand directive is present: the cache understands the status"
    if said.must_understand && !is_understood(status) {
        return Some(DeclineReason::MustUnderstand);
    }
    // "the no-store cache directive is not present"
    let lifted = leniency.must_understand_lifts_no_store && said.must_understand;
    if said.no_store && !lifted {
        return Some(DeclineReason::NoStore);
    }
    if exchange.request_no_store {
        return Some(DeclineReason::RequestNoStore);
    }
    // "if the cache is shared: the private response directive is either not present ..."
    if said.private {
        return Some(DeclineReason::Private);
    }
    // "if the cache is shared: the Authorization header field is not present in the request or a response directive allows it" (§3.5)
    if exchange.authorization && !exchange.audience_declared && !said.allows_authorized() {
        return Some(DeclineReason::Authorization);
    }
    if is_provoked_error(status) && !(leniency.error_statuses && is_explicit(exchange.lifetime)) {
        // Even there a guess is allowed only for the statuses that RFC 9110 §15.1 names.
        let guessed = leniency.error_statuses && may_be_guessed(exchange);
        if !guessed {
            return Some(DeclineReason::ErrorStatus);
        }
    }
    if headers.contains_key(header::SET_COOKIE) && !leniency.set_cookie {
        return Some(DeclineReason::SetCookie);
    }
    if nominates_meaning(headers) {
        return Some(DeclineReason::ConnectionOption);
    }
    match Vary::parse(headers) {
        Vary::Any => return Some(DeclineReason::VaryStar),
        Vary::Fields(fields) if !leniency.vary_credentials && !exchange.audience_declared => {
            if fields.iter().any(|name| *name == header::COOKIE || *name == header::AUTHORIZATION) {
                return Some(DeclineReason::VaryCredentials);
            }
        }
        Vary::Fields(_) => {}
    }
    // "the response contains at least one of the following: ..."
    let allowed = is_explicit(exchange.lifetime)
        || exchange.lifetime == Some(LifetimeSource::Heuristic) && may_be_guessed(exchange)
        || exchange.lifetime.is_none() && said.no_cache && has_validator(headers) && is_heuristically_cacheable(status);
    (!allowed).then_some(DeclineReason::NoFreshness)
}

/// Whether `Connection` nominates a field that is there and says what the content is, or for whom.
fn nominates_meaning(headers: &HeaderMap) -> bool {
    connection_options(headers).iter().any(|name| {
        let meaning = name.as_str().starts_with("content-") || matches!(*name, header::VARY | header::CACHE_CONTROL);
        meaning && *name != header::CONTENT_LENGTH && headers.contains_key(name)
    })
}

fn is_explicit(lifetime: Option<LifetimeSource>) -> bool {
    lifetime.is_some_and(|source| source != LifetimeSource::Heuristic)
}

/// §4.2.2: a guess is for statuses "defined as heuristically cacheable", or where the response is `public`.
fn may_be_guessed(exchange: &Exchange<'_>) -> bool {
    exchange.lifetime == Some(LifetimeSource::Heuristic)
        && (is_heuristically_cacheable(exchange.status) || exchange.said.public)
}

/// Whether the response has a validator with which it could be asked for again.
pub fn has_validator(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ETAG) || headers.contains_key(header::LAST_MODIFIED)
}

/// The statuses that may be cached without explicit freshness (RFC 9110 §15.1), less 206, which larder doesn't store.
pub fn is_heuristically_cacheable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// The errors of [`DeclineReason::ErrorStatus`].
pub fn is_provoked_error(status: StatusCode) -> bool {
    matches!(status.as_u16(), 400 | 401 | 406..=408 | 411 | 413..=415 | 417 | 421 | 425 | 426 | 428 | 429 | 431)
        || status.as_u16() >= 500
}

/// The final statuses that RFC 9110 defines, whose caching requirements larder therefore knows.
fn is_understood(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200..=205 | 300..=303 | 307 | 308 | 400..=411 | 413..=415 | 417 | 421 | 422 | 426 | 500..=505
    )
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    struct Row {
        why: &'static str,
        status: u16,
        fields: &'static [(&'static str, &'static str)],
        authorization: bool,
        declared: bool,
        expected: Storability,
    }

    const STORE: Storability = Storability::Store;
    const fn decline(reason: DeclineReason) -> Storability {
        Storability::Decline(reason)
    }

    fn judge(row: &Row, leniency: Leniency) -> Storability {
        let mut headers = HeaderMap::new();
        for (name, value) in row.fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let said = ResponseDirectives::parse(&headers);
        let lifetime = if said.s_maxage.or(said.max_age).is_some() {
            Some(LifetimeSource::MaxAge)
        } else if headers.contains_key("last-modified") {
            Some(LifetimeSource::Heuristic)
        } else {
            None
        };
        let exchange = Exchange {
            method: &Method::GET,
            authorization: row.authorization,
            request_no_store: false,
            audience_declared: row.declared,
            status: StatusCode::from_u16(row.status).unwrap(),
            headers: &headers,
            said: &said,
            lifetime,
        };
        storability(&exchange, leniency)
    }

    macro_rules! row {
        ($why:literal, $status:literal, [$($field:expr),*], $expected:expr $(, auth = $auth:literal)? $(, declared = $declared:literal)?) => {
            Row { why: $why, status: $status, fields: &[$($field),*], authorization: false $(|| $auth)?, declared: false $(|| $declared)?, expected: $expected }
        };
    }

    const FRESH: (&str, &str) = ("cache-control", "max-age=60");
    const OLD: (&str, &str) = ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT");

    #[test]
    fn by_default() {
        use DeclineReason::*;
        let rows = [
            row!("§3 explicit freshness", 200, [FRESH], STORE),
            row!("§3 explicit freshness, any final status", 299, [FRESH], STORE),
            row!("§3 nothing said", 200, [], decline(NoFreshness)),
            row!("§4.2.2 a guess", 200, [OLD], STORE),
            row!("§4.2.2 no guess for this status", 403, [OLD], decline(NoFreshness)),
            row!("§4.2.2 public allows the guess", 403, [OLD, ("cache-control", "public")], STORE),
            row!("§3.3 partial", 206, [FRESH], decline(Status)),
            row!("RFC 9110 §14.4 means nothing here", 200, [FRESH, ("content-range", "bytes 0-0/2")], STORE),
            row!("RFC 9110 §7.6.1", 200, [FRESH, ("connection", "vary"), ("vary", "x")], decline(ConnectionOption)),
            row!("RFC 9110 §7.6.1 of a field that isn't there", 200, [FRESH, ("connection", "vary")], STORE),
            row!("RFC 9110 §7.6.1 of any other field", 200, [FRESH, ("connection", "x-a"), ("x-a", "1")], STORE),
            row!("§4.3.4 not modified", 304, [FRESH], decline(Status)),
            row!("RFC 9110 §15.5.17", 416, [FRESH], decline(Status)),
            row!("RFC 9110 §15.2.2", 101, [FRESH], decline(Status)),
            row!("§5.2.2.5", 200, [("cache-control", "max-age=60, no-store")], decline(NoStore)),
            row!("§5.2.2.7", 200, [("cache-control", "max-age=60, private")], decline(Private)),
            row!("§5.2.2.7 qualified", 200, [("cache-control", "max-age=60, private=\"x\"")], decline(Private)),
            row!("§5.2.2.4 with a validator", 200, [("cache-control", "no-cache"), ("etag", "\"a\"")], STORE),
            row!("§5.2.2.4 without", 200, [("cache-control", "no-cache")], decline(NoFreshness)),
            row!("§3.5", 200, [FRESH], decline(Authorization), auth = true),
            row!("§3.5 declared", 200, [FRESH], STORE, auth = true, declared = true),
            row!("§3.5 public", 200, [("cache-control", "max-age=60, public")], STORE, auth = true),
            row!("§3.5 s-maxage", 200, [("cache-control", "s-maxage=60")], STORE, auth = true),
            row!("§3.5 must-revalidate", 200, [("cache-control", "max-age=6, must-revalidate")], STORE, auth = true),
            row!("safe default", 200, [FRESH, ("set-cookie", "a=b")], decline(SetCookie)),
            row!("safe default", 400, [FRESH], decline(ErrorStatus)),
            row!("safe default", 500, [FRESH], decline(ErrorStatus)),
            row!("safe default", 503, [FRESH], decline(ErrorStatus)),
            row!("safe default", 200, [FRESH, ("vary", "Accept, Cookie")], decline(VaryCredentials)),
            row!("safe default", 200, [FRESH, ("vary", "Authorization")], decline(VaryCredentials)),
            row!("§4.1 nothing telling", 200, [FRESH, ("vary", "Accept, X-Cookie")], STORE),
            row!("safe default, a partition", 200, [FRESH, ("vary", "Cookie")], STORE, declared = true),
            row!("§4.1", 200, [FRESH, ("vary", "accept, *")], decline(VaryStar)),
            row!("§5.2.2.3", 599, [("cache-control", "max-age=60, must-understand")], decline(MustUnderstand)),
            row!("§5.2.2.3", 200, [("cache-control", "max-age=60, no-store, must-understand")], decline(NoStore)),
            row!("RFC 6585 §4", 429, [FRESH], decline(Status)),
            row!("safe default", 401, [FRESH], decline(ErrorStatus)),
            row!("negative caching", 404, [FRESH], STORE),
        ];
        for row in &rows {
            assert_eq!(judge(row, Leniency::default()), row.expected, "{}: {} {:?}", row.why, row.status, row.fields);
        }
    }

    #[test]
    fn to_the_letter() {
        use DeclineReason::*;
        let letter = Leniency {
            error_statuses: true,
            set_cookie: true,
            vary_credentials: true,
            must_understand_lifts_no_store: true,
        };
        let rows = [
            row!("§3", 503, [FRESH], STORE),
            row!("§3", 599, [FRESH], STORE),
            row!("§4.2.2", 501, [OLD], STORE),
            row!("§4.2.2", 502, [OLD], decline(ErrorStatus)),
            row!("§4.2.2", 599, [OLD, ("cache-control", "public")], STORE),
            row!("§7.3", 200, [FRESH, ("set-cookie", "a=b")], STORE),
            row!("§4.1", 200, [FRESH, ("vary", "Cookie")], STORE),
            row!("§5.2.2.3", 200, [("cache-control", "max-age=60, no-store, must-understand")], STORE),
            row!("§5.2.2.3", 599, [("cache-control", "max-age=60, must-understand")], decline(MustUnderstand)),
            row!("§5.2.2.5", 200, [("cache-control", "max-age=60, no-store")], decline(NoStore)),
        ];
        for row in &rows {
            assert_eq!(judge(row, letter), row.expected, "{}: {} {:?}", row.why, row.status, row.fields);
        }
    }

    #[test]
    fn names_are_distinct_and_all_is_complete() {
        let names: std::collections::HashSet<_> = DeclineReason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(names.len(), DeclineReason::ALL.len());
        assert!(DeclineReason::ALL.iter().all(|reason| reason.to_string() == reason.as_str()));
    }

    #[test]
    fn a_response_that_speaks_against_itself_condemns_what_was_stored() {
        for (reason, expected) in [
            (DeclineReason::NoStore, true),
            (DeclineReason::SetCookie, true),
            (DeclineReason::BodyTooLarge, true),
            (DeclineReason::ErrorStatus, false),
            (DeclineReason::RequestNoStore, false),
            (DeclineReason::Purged, false),
        ] {
            assert_eq!(reason.condemns_stored(), expected, "{reason}");
        }
    }
}
