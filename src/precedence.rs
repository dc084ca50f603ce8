//! Who is heard about a response: what forbids to store > the handler's extension > a rule that overrides > the origin's freshness >
//! the rule's TTL > a guess. The result is the terms under which it is stored, or the named reason why not.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use crate::cached::{Cached, Storing};
use crate::downstream::Downstream;
use crate::policy::Policy;
use crate::rfc9111::directives::ResponseDirectives;
use crate::rfc9111::freshness::{
    AgeField, Lifetime, LifetimeSource, age_field, corrected_initial_age, heuristic_lifetime, stated_lifetime,
};
use crate::rfc9111::reuse::Terms;
use crate::rfc9111::storability::{DeclineReason, Exchange, Leniency, Storability, has_validator, storability};
use crate::rfc9111::targeted;
use crate::settings::Settings;
use crate::upkeep::Upkeep;

/// For how long a response that can be validated is kept past its lifetime: long enough to save transfers, and then
/// its memory is worth more to others.
const KEPT_FOR_VALIDATION: Duration = Duration::from_secs(60 * 60);

/// Ten years: beyond, a duration only risks to overflow somebody's clock.
const KEPT_AT_MOST: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// A response's head has arrived: what is known now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival<'a> {
    pub(crate) method: &'a Method,
    pub(crate) authorization: bool,
    pub(crate) request_no_store: bool,
    pub(crate) status: StatusCode,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) handler: Option<&'a Cached>,
    /// Its `Date`, or the time of arrival.
    pub(crate) date: SystemTime,
    pub(crate) received: SystemTime,
    pub(crate) delay: Duration,
    /// Tells it from others that arrive at the same time, as by chance.
    pub(crate) spread: u64,
}

/// The terms of storing.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    pub(crate) terms: Terms,
    pub(crate) keep: Duration,
    /// What is said downstream instead of the origin's `Cache-Control`, if the origin's is not what counts.
    pub(crate) downstream: Option<Downstream>,
    /// What is done about it while it is fresh.
    pub(crate) upkeep: Option<Arc<Upkeep>>,
}

impl Verdict {
    /// The same about a response that says the same, has a validator and neither date nor age, and for which the handler took this time; `None` if it is of no use.
    pub(crate) fn after(&self, delay: Duration, settings: &Settings) -> Option<Self> {
        let terms = Terms { initial_age: delay, ..self.terms };
        let keep = keep(&terms, true, settings)?;
        Some(Self { terms, keep, ..self.clone() })
    }
}

/// Whether and on which terms the response of `arrival` is stored.
pub(crate) fn judge(arrival: &Arrival<'_>, policy: &Policy, settings: &Settings) -> Result<Verdict, DeclineReason> {
    if arrival.handler.is_some_and(|handler| handler.storing == Storing::Never) {
        return Err(DeclineReason::Handler);
    }
    if is_endless(arrival) {
        return Err(DeclineReason::EndlessStream);
    }
    if !policy.stores(arrival.status) {
        return Err(DeclineReason::RuleStatus);
    }
    let (said, target) = targeted::directives(arrival.headers, &settings.targets);
    let lifetime = lifetime(arrival, policy, settings, &said, target.is_some());
    let declared = policy.declares_audience() || arrival.handler.is_some_and(|handler| handler.ttl().is_some());
    let leniency = Leniency { set_cookie: settings.leniency.set_cookie || policy.drop_set_cookie, ..settings.leniency };
    let exchange = Exchange {
        method: arrival.method,
        authorization: arrival.authorization,
        request_no_store: arrival.request_no_store,
        audience_declared: declared,
        status: arrival.status,
        headers: arrival.headers,
        said: &said,
        lifetime: lifetime.map(|lifetime| lifetime.source),
    };
    if let Storability::Decline(reason) = storability(&exchange, leniency) {
        return Err(reason);
    }
    let terms = terms(arrival, policy, settings, &said, lifetime, declared);
    let keep = keep(&terms, has_validator(arrival.headers), settings).ok_or(DeclineReason::AlreadyStale)?;
    let downstream = downstream(arrival, policy, &said, lifetime);
    // From the call of the handler to the head of its answer: mostly that is the work, and how fast a client takes the content has no say in it.
    let upkeep = Upkeep::of(&policy.expiry, lifetime.is_some_and(is_ours), arrival.delay, arrival.spread);
    Ok(Verdict { terms, keep, downstream, upkeep })
}

/// SSE and switched protocols have no end to wait for.
fn is_endless(arrival: &Arrival<'_>) -> bool {
    let content_type = arrival.headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let event_stream = b"text/event-stream";
    arrival.status == StatusCode::SWITCHING_PROTOCOLS
        || content_type.get(..event_stream.len()).is_some_and(|start| start.eq_ignore_ascii_case(event_stream))
}

fn lifetime(
    arrival: &Arrival<'_>,
    policy: &Policy,
    settings: &Settings,
    said: &ResponseDirectives,
    targeted: bool,
) -> Option<Lifetime> {
    let from = |source| move |duration| Lifetime { duration, source };
    let rule = policy.ttl_for(arrival.status);
    let overriding = rule.filter(|_| policy.overrides_origin);
    let guess = || {
        let allowed = policy.heuristics.unwrap_or(settings.heuristics);
        allowed.then(|| heuristic_lifetime(arrival.headers, arrival.date)).flatten()
    };
    let handler = arrival.handler.and_then(Cached::ttl);
    let lifetime = handler
        .map(from(LifetimeSource::Handler))
        .or(overriding.map(from(LifetimeSource::Override)))
        .or_else(|| stated_lifetime(said, targeted, arrival.headers, arrival.date))
        .or(rule.map(from(LifetimeSource::Rule)))
        .or_else(guess)?;
    // What the origin says isn't made shorter: it would be a surprise, and it is spread already where the handler wants that.
    let lifetime = match is_ours(lifetime) {
        true => Lifetime { duration: policy.expiry.jittered(lifetime.duration, arrival.spread), ..lifetime },
        false => lifetime,
    };
    // RFC 9111 §5.1: with an age that can't be trusted, the response counts as stale.
    let trusted = age_field(arrival.headers) != AgeField::Invalid;
    Some(if trusted { lifetime } else { Lifetime { duration: Duration::ZERO, ..lifetime } })
}

/// Whether the application gave the lifetime, by a rule or by [`Cached`], and not the origin by a field.
fn is_ours(lifetime: Lifetime) -> bool {
    matches!(lifetime.source, LifetimeSource::Handler | LifetimeSource::Override | LifetimeSource::Rule)
}

fn terms(
    arrival: &Arrival<'_>,
    policy: &Policy,
    settings: &Settings,
    said: &ResponseDirectives,
    lifetime: Option<Lifetime>,
    declared: bool,
) -> Terms {
    let age_value = match age_field(arrival.headers) {
        AgeField::Seconds(seconds) => seconds,
        AgeField::Absent | AgeField::Invalid => Duration::ZERO,
    };
    // The lifetime of another than the origin silences the origin's `s-maxage`, also where that would forbid stale answers.
    let own = lifetime.is_some_and(|l| matches!(l.source, LifetimeSource::Handler | LifetimeSource::Override));
    let no_stale = if own { said.must_revalidate || said.proxy_revalidate } else { said.forbids_stale() };
    let window = |handler: Option<Duration>, stated: Option<Duration>, rule: Option<Duration>| {
        let overriding = rule.filter(|_| policy.overrides_origin);
        handler.or(overriding).or(stated).or(rule).unwrap_or_default()
    };
    Terms {
        lifetime: lifetime.map(|l| l.duration).unwrap_or_default(),
        source: lifetime.map(|l| l.source),
        initial_age: corrected_initial_age(age_value, arrival.date, arrival.received, arrival.delay),
        no_cache: said.no_cache,
        no_stale,
        immutable: said.immutable,
        stale_while_revalidate: window(
            arrival.handler.and_then(|h| h.stale_while_revalidate),
            said.stale_while_revalidate,
            policy.stale_window(),
        ),
        stale_if_error: window(
            arrival.handler.and_then(|h| h.stale_if_error),
            said.stale_if_error,
            policy.stale_if_error,
        ),
        for_authorized: declared || settings.authorized_may_share || said.allows_authorized(),
    }
}

/// How long the response is of use; `None` if it never is.
fn keep(terms: &Terms, has_validator: bool, settings: &Settings) -> Option<Duration> {
    let validation = if has_validator { KEPT_FOR_VALIDATION } else { Duration::ZERO };
    let stale = if terms.no_stale || terms.no_cache {
        Duration::ZERO
    } else {
        let alone = if settings.stale_when_disconnected { KEPT_FOR_VALIDATION } else { Duration::ZERO };
        terms.stale_while_revalidate.max(terms.stale_if_error).max(alone)
    };
    let fresh = if terms.no_cache { Duration::ZERO } else { terms.lifetime.saturating_sub(terms.initial_age) };
    let keep = fresh.saturating_add(stale.max(validation)).min(KEPT_AT_MOST);
    // What is already past its stale windows can still be validated; without a validator it is of no use.
    let usable = !fresh.is_zero() || !validation.is_zero() || terms.staleness(terms.initial_age) < stale;
    (usable && !keep.is_zero()).then_some(keep)
}

fn downstream(
    arrival: &Arrival<'_>,
    policy: &Policy,
    said: &ResponseDirectives,
    lifetime: Option<Lifetime>,
) -> Option<Downstream> {
    let stated = arrival.handler.and_then(|handler| handler.downstream).or(policy.downstream);
    let ours = lifetime.filter(|lifetime| is_ours(*lifetime));
    // What a partition holds is for one principal; caches downstream have no partitions.
    let private = policy.is_partitioned();
    if ours.is_none() && stated.is_none() && !private {
        return None;
    }
    let kept = [
        (said.no_cache, "no-cache"),
        (said.must_revalidate, "must-revalidate"),
        (said.proxy_revalidate, "proxy-revalidate"),
        (said.no_transform, "no-transform"),
        (said.immutable, "immutable"),
    ];
    Some(Downstream {
        lifetime: stated.or(lifetime.map(|lifetime| lifetime.duration)).unwrap_or_default(),
        from_each_answer: stated.is_some(),
        sliding: policy.expiry.sliding.filter(|_| ours.is_some()),
        private,
        kept: kept.iter().filter(|(set, _)| *set).map(|(_, name)| format!(", {name}")).collect(),
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::storage::MemoryStore;
    use crate::storage::backend::Backend;

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn verdict(
        fields: &[(&'static str, &'static str)],
        handler: Option<Cached>,
        policy: &Policy,
    ) -> Result<Verdict, DeclineReason> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let arrival = Arrival {
            method: &Method::GET,
            authorization: false,
            request_no_store: false,
            status: StatusCode::OK,
            headers: &headers,
            handler: handler.as_ref(),
            date: SystemTime::UNIX_EPOCH,
            received: SystemTime::UNIX_EPOCH,
            delay: Duration::ZERO,
            spread: 0,
        };
        judge(&arrival, policy, &Settings::new(Backend::memory(MemoryStore::new(1))))
    }

    #[test]
    fn who_was_heard_is_remembered() {
        let of = |fields: &[(&'static str, &'static str)], handler, policy: &Policy| {
            verdict(fields, handler, policy).unwrap().terms.source
        };
        let (shared, max_age) = (Policy::shared(secs(3)), ("cache-control", "max-age=2"));
        let expires = ("expires", "Thu, 01 Jan 1970 00:01:00 GMT");
        let modified = ("last-modified", "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(of(&[max_age], Some(Cached::shared(secs(5))), &shared), Some(LifetimeSource::Handler));
        assert_eq!(of(&[max_age], None, &shared.clone().override_origin()), Some(LifetimeSource::Override));
        assert_eq!(of(&[max_age, ("cdn-cache-control", "max-age=9")], None, &shared), Some(LifetimeSource::Targeted));
        assert_eq!(of(&[("cache-control", "max-age=2, s-maxage=9")], None, &shared), Some(LifetimeSource::SMaxage));
        assert_eq!(of(&[max_age], None, &shared), Some(LifetimeSource::MaxAge));
        assert_eq!(of(&[expires], None, &shared), Some(LifetimeSource::Expires));
        assert_eq!(of(&[], None, &shared), Some(LifetimeSource::Rule));
        let no_cache = [("cache-control", "no-cache"), ("etag", "\"a\"")];
        assert_eq!(of(&no_cache, None, &Policy::from_origin()), None);
        let guessing = Policy::from_origin().heuristics(true);
        assert_eq!(of(&[modified], None, &guessing), Some(LifetimeSource::Heuristic));
    }

    /// The lifetime in seconds, or the reason of the decline.
    fn lifetime(
        fields: &[(&'static str, &'static str)],
        handler: Option<Cached>,
        policy: &Policy,
    ) -> Result<u64, DeclineReason> {
        verdict(fields, handler, policy).map(|verdict| verdict.terms.lifetime.as_secs())
    }

    #[test]
    fn who_is_heard() {
        let handler = || Some(Cached::shared(secs(5)));
        let shared = Policy::shared(secs(3));
        let overriding = Policy::shared(secs(4)).override_origin();
        let max_age = ("cache-control", "max-age=2");
        let cdn = ("cdn-cache-control", "max-age=9");
        assert_eq!(
            lifetime(&[("cache-control", "no-store, max-age=2")], handler(), &overriding),
            Err(DeclineReason::NoStore)
        );
        assert_eq!(lifetime(&[("cache-control", "private")], handler(), &overriding), Err(DeclineReason::Private));
        assert_eq!(lifetime(&[("set-cookie", "a")], handler(), &overriding), Err(DeclineReason::SetCookie));
        assert_eq!(lifetime(&[max_age], Some(Cached::no_store()), &shared), Err(DeclineReason::Handler));
        assert_eq!(lifetime(&[], Some(Cached::by_rule()), &shared), Ok(3));
        assert_eq!(lifetime(&[], Some(Cached::by_rule()), &Policy::from_origin()), Err(DeclineReason::NoFreshness));
        assert_eq!(lifetime(&[max_age, cdn], handler(), &overriding), Ok(5));
        assert_eq!(lifetime(&[max_age, cdn], None, &overriding), Ok(4));
        assert_eq!(lifetime(&[max_age, cdn], None, &shared), Ok(9));
        assert_eq!(lifetime(&[max_age], None, &shared), Ok(2));
        assert_eq!(lifetime(&[], None, &shared), Ok(3));
        assert_eq!(lifetime(&[], None, &Policy::from_origin()), Err(DeclineReason::NoFreshness));
        assert_eq!(lifetime(&[("cache-control", "max-age=0")], None, &shared), Err(DeclineReason::AlreadyStale));
        assert_eq!(
            lifetime(&[("cache-control", "max-age=9"), ("age", "x")], None, &shared),
            Err(DeclineReason::AlreadyStale)
        );
        assert_eq!(
            lifetime(&[("content-type", "Text/Event-Stream; x"), max_age], None, &shared),
            Err(DeclineReason::EndlessStream)
        );
    }

    #[test]
    fn what_is_said_downstream() {
        let said = |fields: &[(&'static str, &'static str)], handler, policy: &Policy| {
            verdict(fields, handler, policy).unwrap().downstream.map(|d| d.of_stored(secs(10), secs(300)))
        };
        let per = Policy::per(|_: &_| Some("me"), secs(3));
        assert_eq!(said(&[("cache-control", "max-age=2")], None, &Policy::shared(secs(3))), None);
        assert_eq!(said(&[], None, &Policy::shared(secs(3))).unwrap(), "public, max-age=3");
        assert_eq!(said(&[("cache-control", "no-transform")], None, &per).unwrap(), "private, max-age=3, no-transform");
        assert_eq!(said(&[("cache-control", "public, max-age=2")], None, &per).unwrap(), "private, max-age=2");
        let own = Policy::shared(secs(300)).downstream(secs(7));
        assert_eq!(
            said(&[], None, &own).unwrap(),
            "public, max-age=17",
            "7 seconds from an answer that is 10 seconds old"
        );
        assert_eq!(said(&[], Some(Cached::shared(secs(1)).downstream(secs(2))), &own).unwrap(), "public, max-age=12");
    }

    #[test]
    fn what_ends_by_disuse_is_kept_for_its_whole_lifetime_and_clients_are_told_less() {
        let sliding = Policy::shared(secs(60)).sliding(secs(10));
        let of = |fields: &[(&'static str, &'static str)]| verdict(fields, None, &sliding).unwrap();
        let ours = of(&[]);
        assert_eq!((ours.terms.lifetime, ours.keep), (secs(60), secs(60)));
        assert_eq!(ours.upkeep.and_then(|upkeep| upkeep.idle_end()), Some(secs(10)));
        let downstream = ours.downstream.unwrap();
        assert_eq!(downstream.cache_control(), "public, max-age=10");
        assert_eq!(downstream.of_stored(secs(5), secs(15)), "public, max-age=15");
        let stated = of(&[("cache-control", "max-age=60")]);
        assert!(stated.upkeep.is_none() && stated.downstream.is_none());
    }

    #[test]
    fn windows_from_all_three() {
        let policy = Policy::shared(secs(3)).stale_while_revalidate(secs(30)).stale_if_error(secs(31));
        let windows = |fields: &[(&'static str, &'static str)], handler, policy: &Policy| {
            let terms = verdict(fields, handler, policy).unwrap().terms;
            (terms.stale_while_revalidate.as_secs(), terms.stale_if_error.as_secs())
        };
        let stated = ("cache-control", "max-age=1, stale-while-revalidate=20, stale-if-error=21");
        assert_eq!(windows(&[], None, &policy), (30, 31));
        assert_eq!(windows(&[stated], None, &policy), (20, 21));
        assert_eq!(windows(&[stated], None, &policy.clone().override_origin()), (30, 31));
        assert_eq!(windows(&[stated], Some(Cached::shared(secs(1)).stale_if_error(secs(11))), &policy), (20, 11));
    }
}
