//! What each word means that the cache has for what it did, where that is written down, and what would change it. `Cache-Status`, metrics and logs have the
//! words; who asks what to do about one finds it here, and so do [explanations](crate::Explanation) and the tables of the guide.
//!
//! A section is one of an RFC; or `safe default`, where larder is stricter than the RFC; `as set`, where a rule or a setting says so; or `limit`.

use crate::fates::MissCause;
use crate::outcome::{BypassReason, ForwardReason, Outcome, StaleReason};
use crate::rfc9111::freshness::LifetimeSource;
use crate::rfc9111::reuse::ValidateReason;
use crate::rfc9111::storability::DeclineReason;

/// A row for each value: what it means, where that is said, and what would change it (empty where nothing would). A value without a row doesn't compile.
macro_rules! meanings {
    ($type:ident: $($value:pat => $meaning:literal, $section:literal, $remedy:literal;)+) => {
        impl $type {
            const fn row(self) -> [&'static str; 3] {
                match self {
                    $($value => [$meaning, $section, $remedy],)+
                }
            }

            /// What it means, in a few words.
            pub const fn meaning(self) -> &'static str {
                self.row()[0]
            }

            /// The section of the RFC that says so; or `safe default`, `as set` (by a rule or a setting), or `limit`.
            pub const fn section(self) -> &'static str {
                self.row()[1]
            }

            /// The directive, field or setting that would change it; `None` where nothing would.
            pub const fn remedy(self) -> Option<&'static str> {
                let remedy = self.row()[2];
                if remedy.is_empty() { None } else { Some(remedy) }
            }
        }
    };
}

meanings! { Outcome:
    Self::Hit => "the store answered, with what is fresh", "RFC 9111 §4.2",
        "`no-cache` in the request's `Cache-Control`; a purge; a shorter lifetime";
    Self::Stale(_) => "the store answered, with what is stale", "RFC 9111 §4.2.4",
        "`must-revalidate` or `no-cache` in the response's `Cache-Control`; a shorter stale window";
    Self::Fallback => "the handler failed or took too long, and the store answered with what is fresh", "as set",
        "a handler that answers; the limit of `Policy::network_first`";
    Self::Revalidated(_) => "the handler confirmed what is stored, with 304", "RFC 9111 §4.3",
        "a longer lifetime; `Policy::stale_while_revalidate`";
    Self::Miss(_) => "the handler was asked", "RFC 9211 §2.2",
        "see the reason why it was asked, and the one why its answer isn't stored";
    Self::Collapsed(_) => "the handler was asked by another request for the same, whose answer did for both", "RFC 9111 §4",
        "`no-cache` in the request's `Cache-Control`";
    Self::Bypass(_) => "the request was not looked up", "RFC 9211 §2.2", "see the reason";
}

meanings! { BypassReason:
    Self::Rule => "the rule is `Policy::bypass`", "as set", "another policy";
    Self::NetworkOnly => "the rule's strategy is `Strategy::NetworkOnly`", "as set", "another `Policy::strategy`";
    Self::Method => "the method is neither GET nor HEAD, nor QUERY where that is cached", "RFC 9111 §3",
        "`CacheLayer::cache_query_method`; `Policy::store_post` for answers to POST";
    Self::Credentials => "the rule is `Policy::guarded`, and the request has `Authorization` or a cookie", "safe default",
        "`Policy::shared` or `Policy::per`; `Policy::ignore_cookies` if the cookie means nothing";
    Self::NoPrincipal => "the rule is `Policy::per`, and its closure found no principal", "safe default",
        "an auth layer outside the cache; another closure";
    Self::QueryContent => "QUERY is cached, and this one has too much content, trailers, or a body that broke off or isn't of the type that was named", "RFC 10008 §2.7",
        "`CacheLayer::max_query_content`";
    Self::RequestContent => "a GET or HEAD has content, which the key hasn't", "safe default", "send none";
    Self::Rerouted => "the request has a field by which some frameworks replace the method or the target", "safe default",
        "take the field off in front of the cache";
    Self::AmbiguousHost => "`Host` is repeated, or disagrees with the request target", "RFC 9112 §3.2",
        "a client that agrees with itself";
    Self::KeyTooLong => "the key has more than 8 KiB", "limit", "`Policy::only_query`, `Policy::ignore_query`";
    Self::Upgrade => "the request has `Upgrade`", "RFC 9110 §7.8", "";
    Self::ConnectionOption => "`Connection` names a field that a proxy inside would take away", "RFC 9110 §7.6.1",
        "a client that doesn't";
    Self::AmbiguousPath => "the rule has a TTL, and a handler may read the path as another one than the rule did", "safe default",
        "`Policy::from_origin` for such paths";
    Self::Shadow => "the rule is in shadow: its answers are only compared", "as set", "the rule without `Policy::shadow`";
    Self::Nested => "another layer of the same cache has the request in hand", "as set", "";
}

meanings! { ForwardReason:
    Self::UriMiss => "nothing is stored for the URI", "RFC 9211 §2.2",
        "an earlier answer that was stored; see why the last one wasn't";
    Self::VaryMiss => "something is stored for the URI, and not the variant that was asked for", "RFC 9111 §4.1",
        "fewer fields in `Vary`, or fewer values of them";
    Self::Request => "what is stored may not be used without asking: so says the request, or the response itself", "RFC 9111 §5.2",
        "the request's `Cache-Control`; a response without `no-cache`; `public`, `Policy::shared` or `Policy::per` for requests with `Authorization`";
    Self::Stale => "what is stored is stale", "RFC 9111 §4.2", "a longer lifetime; `Policy::stale_while_revalidate`";
    Self::OnlyIfCached => "the request wants an answer from the store or none, and there is none: 504", "RFC 9111 §5.2.1.7",
        "a request without `only-if-cached`";
    Self::NetworkFirst => "what is stored is fresh, and the rule's strategy asks the handler all the same", "as set",
        "another `Policy::strategy`";
    Self::CacheOnly => "the rule's strategy wants an answer from the store or none, and there is none: 504", "as set",
        "another `Policy::strategy`";
    Self::Distrusted => "what other instances purged isn't known at the moment, so that nothing stored may be used", "as set",
        "a store whose log of purges can be reached; `CacheLayer::staleness_bound`; `CacheHandle::serve_near_for`";
    Self::Crowded => "too many requests wait for others: 503", "limit", "`CacheLayer::max_waiting`";
}

meanings! { StaleReason:
    Self::WhileRevalidate => "it is refreshed behind the answer", "RFC 5861 §3",
        "`Policy::stale_while_revalidate` or the directive: a shorter window";
    Self::IfError => "the handler failed, answered 500, 502, 503 or 504, or took longer than `Policy::fill_timeout`", "RFC 5861 §4",
        "a handler that answers; `Policy::stale_if_error` or the directive: a shorter window";
    Self::MaxStale => "the request takes what is stale", "RFC 9111 §5.2.1.2", "a request without `max-stale`";
    Self::Unconfirmed => "the handler's 304 named another `ETag`: sent once more, and forgotten", "RFC 9111 §4.3.4",
        "a handler that answers 200 when the content is another; `CacheLayer::strict_rfc`";
    Self::NetworkFirst => "the handler failed, answered with a 5xx status or took longer than the strategy allows", "as set",
        "a handler that answers; the limit of `Policy::network_first`; a shorter stale window";
    Self::CacheOnly => "the rule's strategy doesn't ask the handler, and a stale window allows it", "as set",
        "another `Policy::strategy`; a shorter stale window";
}

meanings! { DeclineReason:
    Self::Method => "only the answer to a GET is stored, or to a QUERY where that is cached", "RFC 9111 §3", "";
    Self::Status => "206, 304, 412, 416 and 1xx answer no other request; 428, 429, 431 and 511 speak to one client", "RFC 9111 §3", "";
    Self::ErrorStatus => "400, 401, 406, 407, 408, 411, 413, 414, 415, 417, 421, 425, 426, 5xx: a hostile request may have provoked it", "safe default",
        "`CacheLayer::strict_rfc`, with explicit freshness";
    Self::MustUnderstand => "it says `must-understand`, and has a status that larder doesn't know", "RFC 9111 §5.2.2.3",
        "a response without the directive";
    Self::NoStore => "it says `no-store`, or has a quote that is never closed", "RFC 9111 §5.2.2.5", "a response without the directive";
    Self::RequestNoStore => "the request says `no-store`", "RFC 9111 §5.2.1.5", "a request without the directive";
    Self::Private => "it says `private`, or has a quote that is never closed", "RFC 9111 §5.2.2.7",
        "a response without the directive";
    Self::Authorization => "the request had `Authorization`, and nothing says that the answer is for everybody", "RFC 9111 §3.5",
        "`public` in the response's `Cache-Control`; `Policy::shared`, `Policy::per`, `Cached::shared`";
    Self::SetCookie => "it sets a cookie", "safe default", "`Policy::drop_set_cookie`";
    Self::VaryStar => "`Vary: *`, a malformed `Vary`, or one of more than 20 fields", "RFC 9111 §4.1", "another `Vary`";
    Self::VaryCredentials => "it varies on `Cookie` or `Authorization`", "safe default", "`Policy::per`";
    Self::NoFreshness => "nobody said for how long it is fresh", "RFC 9111 §3",
        "`max-age` in the response's `Cache-Control`; `Policy::shared`, `Policy::per`, `Policy::guarded`, `Cached::shared`; `Policy::heuristics`";
    Self::AlreadyStale => "its `Age` or `Date` make it older than its lifetime, and it has neither a stale window nor a validator", "RFC 9111 §4.2",
        "the clock or `Age` of what is inside; a longer lifetime";
    Self::RuleStatus => "the rule doesn't store this status", "as set", "`Policy::statuses`, `Policy::status_ttl`";
    Self::Handler => "the handler said `Cached::no_store`", "as set", "a handler that doesn't";
    Self::EndlessStream => "`text/event-stream` or switched protocols have no end", "safe default", "";
    Self::ConnectionOption => "`Connection` names `Vary`, `Cache-Control` or a `Content-` field, which a copy would then lack", "RFC 9110 §7.6.1",
        "a handler that doesn't";
    Self::HeadTooLarge => "its head is over the limit", "limit", "`CacheLayer::max_head_size`";
    Self::BodyTooLarge => "its content is over the limit", "limit", "`CacheLayer::max_body_size`";
    Self::FillBudget => "all fills together hold too much", "limit", "`CacheLayer::max_fill_bytes`";
    Self::PartitionQuota => "it alone is more than its principal may have", "limit", "`Policy::quota`";
    Self::PartitionSecret => "it is for one principal, and the instances that share the only store have no common secret", "safe default", "`CacheLayer::partition_secret`";
    Self::Incomplete => "its content broke off, or its length isn't its `Content-Length`", "RFC 9111 §3.3", "a handler that ends what it begins";
    Self::Trailers => "it came with trailers, which a stored response can't repeat", "safe default", "a handler that sends none";
    Self::Purged => "a purge or a write came while it was on its way", "RFC 9111 §4.4", "";
    Self::Shutdown => "the cache is shutting down", "as set", "";
}

meanings! { LifetimeSource:
    Self::Handler => "the handler's `Cached`", "as set", "`Cached::shared` with another lifetime";
    Self::Override => "the rule, which overrides what the origin says", "as set",
        "another TTL; the rule without `Policy::override_origin`";
    Self::Targeted => "a targeted field such as `CDN-Cache-Control`", "RFC 9213 §2.2",
        "another lifetime there; `Cached::shared`, `Policy::override_origin`";
    Self::SMaxage => "`s-maxage`", "RFC 9111 §5.2.2.10", "another `s-maxage`; `Cached::shared`, `Policy::override_origin`";
    Self::MaxAge => "`max-age`", "RFC 9111 §5.2.2.1", "another `max-age`; `Cached::shared`, `Policy::override_origin`";
    Self::Expires => "`Expires`, less `Date`", "RFC 9111 §5.3", "`max-age`; `Cached::shared`, `Policy::override_origin`";
    Self::Rule => "the rule's TTL, since the origin said nothing", "as set", "another TTL; `max-age` in the response's `Cache-Control`";
    Self::Heuristic => "a guess: a tenth of the time since `Last-Modified`", "RFC 9111 §4.2.2",
        "`max-age` in the response's `Cache-Control`; a policy with a TTL";
}

meanings! { ValidateReason:
    Self::Stale => "its lifetime is over", "RFC 9111 §4.2", "a longer lifetime; `Policy::stale_while_revalidate`";
    Self::NoCache => "it says `no-cache`", "RFC 9111 §5.2.2.4", "a response without the directive";
    Self::Request => "the request wants it confirmed: `no-cache`, `max-age` or `min-fresh`", "RFC 9111 §5.2.1",
        "a request without the directive; `immutable` in the response's `Cache-Control`, for `max-age`";
    Self::Authorization => "the request has `Authorization`, and the response doesn't say that it is for everybody", "RFC 9111 §3.5",
        "`public` in the response's `Cache-Control`; `Policy::shared` or `Policy::per`";
}

meanings! { MissCause:
    Self::FirstSeen => "nobody asked for it before, as far as is remembered", "RFC 9211 §2.2", "";
    Self::Expired => "its time was over", "RFC 9111 §4.2", "a longer lifetime; `Policy::stale_while_revalidate`";
    Self::Evicted => "it was evicted, since there was no room", "limit", "`CacheLayer::in_memory` with more bytes";
    Self::Purged => "it was purged", "as set", "a purge that takes less";
    Self::Written => "a write made it invalid", "RFC 9111 §4.4", "";
    Self::Variant => "another variant is stored, and not the one that was asked for", "RFC 9111 §4.1",
        "fewer fields in `Vary`, or fewer values of them";
    Self::Declined => "the last answer was not stored", "RFC 9111 §3", "see the reason why it wasn't";
    Self::Settings => "the settings or the rule are other ones now, and forbid to use what is stored", "as set", "";
    Self::Asked => "the client wanted it anew, what is stored wants to be validated on each use, or the strategy asks the handler first", "RFC 9111 §5.2",
        "a request or a response without `no-cache`; another `Policy::strategy`";
    Self::Distrusted => "whether another instance has purged it isn't known, so it wasn't looked for", "as set",
        "a store whose log of purges can be reached; `CacheLayer::staleness_bound`; `CacheHandle::serve_near_for`";
    Self::Lost => "it was stored, and is gone: dropped for what an answer said or for a quota, or a store of one's own let go of it", "limit",
        "`Policy::quota`";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::CacheOutcome;

    fn said(outcome: CacheOutcome) -> String {
        String::from_utf8(outcome.cache_status("larder").to_vec()).unwrap()
    }

    #[test]
    fn cache_status_has_the_reason_of_all_that_is_no_plain_hit() {
        // RFC 9211 §2.2, and §2.8 for what that has no word for.
        let forwarded = |kind: fn(ForwardReason) -> Outcome| {
            ForwardReason::ALL.into_iter().map(move |reason| (kind(reason), reason.as_str()))
        };
        let rows = (StaleReason::ALL.into_iter().map(|reason| (Outcome::Stale(reason), reason.as_str())))
            .chain(forwarded(Outcome::Miss))
            .chain(forwarded(Outcome::Collapsed))
            .chain(forwarded(Outcome::Revalidated))
            .chain(BypassReason::ALL.into_iter().map(|reason| (Outcome::Bypass(reason), reason.as_str())))
            .chain([(Outcome::Fallback, "network-first")]);
        for (outcome, word) in rows {
            let said = said(CacheOutcome::new(outcome, None));
            let words = said.split("; ").filter_map(|said| said.strip_prefix("fwd=").or(said.strip_prefix("detail=")));
            assert!(words.into_iter().any(|said| said == word), "{outcome:?}: {said}");
        }
        for reason in DeclineReason::ALL {
            let said = said(CacheOutcome::new(Outcome::Miss(ForwardReason::NetworkFirst), None).stored(Err(reason)));
            assert_eq!(said, format!("larder; fwd=bypass; detail={reason}"));
        }
    }
}
