//! May this stored response answer that request (RFC 9111 §4), as it is, while it is refreshed, or only after validation?

use std::time::Duration;

use super::directives::RequestDirectives;
use super::freshness::LifetimeSource;

/// The terms under which a stored response may be used: what its head, the handler and the rule said, weighed once when it was stored.
// In this order in memory: what decides on what is fresh lies together, and what comes before it is for what is stale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Terms {
    /// For how long past its lifetime it may be served while it is refreshed (RFC 5861 §3).
    pub stale_while_revalidate: Duration,
    /// For how long past its lifetime it may stand in for an error (RFC 5861 §4).
    pub stale_if_error: Duration,
    /// The freshness lifetime (§4.2.1).
    pub lifetime: Duration,
    /// The age on arrival (§4.2.3).
    pub initial_age: Duration,
    /// Who gave the lifetime; `None` if nobody did.
    pub source: Option<LifetimeSource>,
    /// Never without validation (§5.2.2.4).
    pub no_cache: bool,
    /// Never stale (§4.2.4).
    pub no_stale: bool,
    /// A reload needn't ask while it is fresh (RFC 8246).
    pub immutable: bool,
    /// Whether it may answer a request that carries `Authorization`.
    pub for_authorized: bool,
}

impl Terms {
    /// Terms that allow only what both allow. The age on arrival is that of `self`.
    pub fn stricter(self, other: Self) -> Self {
        let source = if other.lifetime < self.lifetime { other.source } else { self.source };
        Self {
            lifetime: self.lifetime.min(other.lifetime),
            source,
            initial_age: self.initial_age,
            no_cache: self.no_cache || other.no_cache,
            no_stale: self.no_stale || other.no_stale,
            immutable: self.immutable && other.immutable,
            stale_while_revalidate: self.stale_while_revalidate.min(other.stale_while_revalidate),
            stale_if_error: self.stale_if_error.min(other.stale_if_error),
            for_authorized: self.for_authorized && other.for_authorized,
        }
    }

    /// How far past its lifetime a response of this age is; zero while it is fresh or just at its end.
    pub fn staleness(&self, age: Duration) -> Duration {
        age.saturating_sub(self.lifetime)
    }

    /// "response_is_fresh = (freshness_lifetime > current_age)" (§4.2).
    pub fn is_fresh(&self, age: Duration) -> bool {
        self.lifetime > age
    }
}

/// What may be done with a stored response whose URI and variant match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// Send it.
    Fresh,
    /// Send it though it is stale, for the request allows that (`max-stale`).
    AllowedStale,
    /// Send it though it is stale, and refresh it behind the answer.
    StaleWhileRevalidate,
    /// Ask first; send it if the origin confirms it.
    Validate(ValidateReason),
}

/// Why a stored response needs the origin's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ValidateReason {
    /// Its lifetime is over (§4.2).
    Stale,
    /// It says `no-cache` (§5.2.2.4).
    NoCache,
    /// The request demands it: `no-cache`, `max-age`, `min-fresh` (§5.2.1).
    Request,
    /// The request has `Authorization`, and the response doesn't say that it is for everybody (§3.5).
    Authorization,
}

impl ValidateReason {
    /// A short name that doesn't change, for logs and explanations.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::NoCache => "no-cache",
            Self::Request => "request",
            Self::Authorization => "authorization",
        }
    }
}

/// What may be done with a stored response of this `age`, for a request that asked this.
pub fn reuse(terms: &Terms, age: Duration, asked: &RequestDirectives, authorization: bool) -> Reuse {
    if authorization && !terms.for_authorized {
        return Reuse::Validate(ValidateReason::Authorization);
    }
    // §4: "the stored response does not contain the no-cache directive, unless it is successfully validated"
    if terms.no_cache {
        return Reuse::Validate(ValidateReason::NoCache);
    }
    let fresh = terms.is_fresh(age);
    if demands_validation(terms, age, asked, fresh) {
        return Reuse::Validate(ValidateReason::Request);
    }
    if fresh {
        return Reuse::Fresh;
    }
    // §4.2.4: a stale response only where nothing forbids it and somebody allows it
    if terms.no_stale {
        return Reuse::Validate(ValidateReason::Stale);
    }
    let staleness = terms.staleness(age);
    if asked.max_stale.is_some_and(|allowed| staleness <= allowed) {
        return Reuse::AllowedStale;
    }
    if staleness < terms.stale_while_revalidate {
        return Reuse::StaleWhileRevalidate;
    }
    Reuse::Validate(ValidateReason::Stale)
}

fn demands_validation(terms: &Terms, age: Duration, asked: &RequestDirectives, fresh: bool) -> bool {
    if asked.no_cache {
        return true;
    }
    // RFC 8246 §2: a reload (`max-age=0`) needn't ask for what is fresh and immutable; a forced one says `no-cache`.
    let reload_spared = terms.immutable && fresh;
    let too_old = asked.max_age.is_some_and(|most| age > most || most.is_zero()) && !reload_spared;
    let too_stale_soon = asked.min_fresh.is_some_and(|wanted| terms.lifetime.saturating_sub(age) < wanted);
    too_old || too_stale_soon
}

/// Whether the stored response may stand in when the origin can't answer (RFC 5861 §4).
///
/// `disconnected` tells that the origin couldn't be reached at all and that stale answers are then allowed without
/// anybody's word (§4.2.4: "unless it is disconnected"); `no-cache` in the request still forbids it.
pub fn may_stand_in_for_error(terms: &Terms, age: Duration, asked: &RequestDirectives, disconnected: bool) -> bool {
    if terms.is_fresh(age) && !terms.no_cache {
        // Fresh, but the client wanted it confirmed; better than an error only where errors may be covered at all.
        return !asked.no_cache && (disconnected || !terms.stale_if_error.is_zero());
    }
    if terms.no_stale || terms.no_cache || asked.no_cache {
        return false;
    }
    let window = terms.stale_if_error.max(asked.stale_if_error.unwrap_or_default());
    disconnected || terms.staleness(age) < window
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;

    const fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn asked(text: &str) -> RequestDirectives {
        let mut headers = HeaderMap::new();
        if !text.is_empty() {
            headers.insert("cache-control", HeaderValue::from_str(text).unwrap());
        }
        RequestDirectives::parse(&headers)
    }

    fn terms() -> Terms {
        Terms { lifetime: secs(60), for_authorized: true, ..Terms::default() }
    }

    #[test]
    fn each_directive_of_both_sides() {
        use ValidateReason::{NoCache, Request, Stale};
        let swr = Terms { stale_while_revalidate: secs(30), ..terms() };
        let rows = [
            ("§4.2", terms(), 59, "", Reuse::Fresh),
            ("§4.2 strictly larger", terms(), 60, "", Reuse::Validate(Stale)),
            ("§5.2.2.4", Terms { no_cache: true, ..terms() }, 0, "max-stale", Reuse::Validate(NoCache)),
            ("§5.2.1.4", terms(), 0, "no-cache", Reuse::Validate(Request)),
            ("§5.2.1.1", terms(), 11, "max-age=10", Reuse::Validate(Request)),
            ("§5.2.1.1", terms(), 10, "max-age=10", Reuse::Fresh),
            ("§5.2.1.1 reload", terms(), 0, "max-age=0", Reuse::Validate(Request)),
            ("RFC 8246 §2", Terms { immutable: true, ..terms() }, 10, "max-age=0", Reuse::Fresh),
            ("RFC 8246 §2 forced", Terms { immutable: true, ..terms() }, 10, "no-cache", Reuse::Validate(Request)),
            ("RFC 8246 §2 stale", Terms { immutable: true, ..terms() }, 70, "max-age=0", Reuse::Validate(Request)),
            ("§5.2.1.3", terms(), 41, "min-fresh=20", Reuse::Validate(Request)),
            ("§5.2.1.3", terms(), 40, "min-fresh=20", Reuse::Fresh),
            ("§5.2.1.2", terms(), 70, "max-stale=10", Reuse::AllowedStale),
            ("§5.2.1.2", terms(), 71, "max-stale=10", Reuse::Validate(Stale)),
            ("§5.2.1.2", terms(), 9999, "max-stale", Reuse::AllowedStale),
            ("§5.2.2.2", Terms { no_stale: true, ..swr }, 61, "max-stale", Reuse::Validate(Stale)),
            ("RFC 5861 §3", swr, 60, "", Reuse::StaleWhileRevalidate),
            ("RFC 5861 §3", swr, 89, "", Reuse::StaleWhileRevalidate),
            ("RFC 5861 §3, the window's end", swr, 90, "", Reuse::Validate(Stale)),
            ("§5.2.1.1 beats the window", swr, 70, "max-age=65", Reuse::Validate(Request)),
            ("§1.2.2", Terms { lifetime: Duration::MAX, ..terms() }, u64::MAX, "", Reuse::Fresh),
        ];
        for (why, terms, age, request, expected) in rows {
            assert_eq!(reuse(&terms, secs(age), &asked(request), false), expected, "{why}: age {age}, {request}");
        }
    }

    #[test]
    fn the_stricter_of_two_terms_counts_in_each_of_them() {
        let loose = Terms {
            lifetime: secs(60),
            source: Some(LifetimeSource::Rule),
            initial_age: secs(1),
            no_cache: false,
            no_stale: false,
            immutable: true,
            stale_while_revalidate: secs(50),
            stale_if_error: secs(40),
            for_authorized: true,
        };
        assert_eq!(loose.stricter(loose), loose);
        // The age on arrival is the stored response's own.
        for strict in [
            Terms { lifetime: secs(5), source: Some(LifetimeSource::MaxAge), ..loose },
            Terms { no_cache: true, ..loose },
            Terms { no_stale: true, ..loose },
            Terms { immutable: false, ..loose },
            Terms { stale_while_revalidate: secs(0), ..loose },
            Terms { stale_if_error: secs(0), ..loose },
            Terms { for_authorized: false, ..loose },
        ] {
            assert_eq!(loose.stricter(Terms { initial_age: secs(9), ..strict }), strict);
            assert_eq!(strict.stricter(Terms { initial_age: secs(9), ..loose }), strict);
        }
    }

    #[test]
    fn authorization_needs_a_response_for_everybody() {
        // §3.5
        let terms = Terms { for_authorized: false, ..terms() };
        assert_eq!(reuse(&terms, secs(0), &asked(""), true), Reuse::Validate(ValidateReason::Authorization));
        assert_eq!(reuse(&terms, secs(0), &asked(""), false), Reuse::Fresh);
    }

    #[test]
    fn standing_in_for_an_error() {
        // RFC 5861 §4, RFC 9111 §4.2.4
        let window = Terms { stale_if_error: secs(30), ..terms() };
        let rows = [
            (window, 89, "", false, true),
            (window, 90, "", false, false),
            (terms(), 89, "", false, false),
            (terms(), 89, "stale-if-error=60", false, true),
            (terms(), 9999, "", true, true),
            (Terms { no_stale: true, ..window }, 61, "", true, false),
            (Terms { no_cache: true, ..window }, 1, "", true, false),
            (window, 61, "no-cache", true, false),
            (window, 1, "max-age=0", false, true),
            (terms(), 1, "max-age=0", false, false),
        ];
        for (terms, age, request, disconnected, expected) in rows {
            assert_eq!(
                may_stand_in_for_error(&terms, secs(age), &asked(request), disconnected),
                expected,
                "{age} {request}"
            );
        }
    }
}
