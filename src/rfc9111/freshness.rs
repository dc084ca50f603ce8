//! How long a response is fresh, and how old it is (RFC 9111 §4.2).

use std::time::{Duration, SystemTime};

use http::{HeaderMap, header};

use super::date;
use super::directives::ResponseDirectives;
use super::list::{digits, members};

/// A freshness lifetime and what gave it (§4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// For how long the response is fresh, counted from its generation.
    pub duration: Duration,
    /// Who said so.
    pub source: LifetimeSource,
}

/// Who decided how long a response is fresh; in the order of precedence, but for what a handler or a rule adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LifetimeSource {
    /// The handler, through an extension of its response.
    Handler,
    /// A rule that overrides what the origin says.
    Override,
    /// A targeted field (RFC 9213).
    Targeted,
    /// `s-maxage` (§5.2.2.10).
    SMaxage,
    /// `max-age` (§5.2.2.1).
    MaxAge,
    /// `Expires` less `Date` (§5.3).
    Expires,
    /// The TTL of a rule, since the origin said nothing.
    Rule,
    /// A tenth of the time since the last modification (§4.2.2).
    Heuristic,
}

impl LifetimeSource {
    /// A short name that doesn't change, for logs and explanations.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Handler => "handler",
            Self::Override => "override",
            Self::Targeted => "targeted",
            Self::SMaxage => "s-maxage",
            Self::MaxAge => "max-age",
            Self::Expires => "expires",
            Self::Rule => "rule",
            Self::Heuristic => "heuristic",
        }
    }
}

/// The longest lifetime that a guess may give: a day, beyond which §4.2.2 wants a warning.
const HEURISTIC_MOST: Duration = Duration::from_secs(24 * 60 * 60);

/// The lifetime that the origin states: targeted field, else `s-maxage`, `max-age`, `Expires`; `None` if it states none.
///
/// `targeted` tells that `said` comes from a targeted field; `Expires` is then ignored (RFC 9213 §2.2). `date` is the response's
/// `Date`, or the time it was received. An `Expires` that is malformed or repeated is in the past (§5.3).
pub fn stated_lifetime(
    said: &ResponseDirectives,
    targeted: bool,
    headers: &HeaderMap,
    date: SystemTime,
) -> Option<Lifetime> {
    let source = |source| if targeted { LifetimeSource::Targeted } else { source };
    if let Some(duration) = said.s_maxage {
        return Some(Lifetime { duration, source: source(LifetimeSource::SMaxage) });
    }
    if let Some(duration) = said.max_age {
        return Some(Lifetime { duration, source: source(LifetimeSource::MaxAge) });
    }
    if targeted || !headers.contains_key(header::EXPIRES) {
        return None;
    }
    let expires = date::field(headers, header::EXPIRES);
    let duration = expires.and_then(|expires| expires.duration_since(date).ok()).unwrap_or_default();
    Some(Lifetime { duration, source: LifetimeSource::Expires })
}

/// A guess from `Last-Modified`: a tenth of the time from then to `date`, a day at most (§4.2.2).
///
/// Whether the status allows a guess is [`storability`](super::storability)'s to say.
pub fn heuristic_lifetime(headers: &HeaderMap, date: SystemTime) -> Option<Lifetime> {
    let modified = date::field(headers, header::LAST_MODIFIED)?;
    let duration = date.duration_since(modified).ok()? / 10;
    Some(Lifetime { duration: duration.min(HEURISTIC_MOST), source: LifetimeSource::Heuristic })
}

/// What the `Age` field of a response says (§5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgeField {
    /// There is none.
    Absent,
    /// That many seconds.
    Seconds(Duration),
    /// It can't be trusted: malformed, repeated, or joined from several lines. The response counts as stale.
    Invalid,
}

/// Reads `Age`.
///
/// Of a list inside one value the first member counts (§5.1). Several lines are two caches that disagree, and a list
/// joined by a comma *and a space* is how an intermediary combines lines (RFC 9110 §5.3): both are invalid, since none
/// of the members is known to be right.
pub fn age_field(headers: &HeaderMap) -> AgeField {
    let mut lines = headers.get_all(header::AGE).iter();
    let line = match (lines.next(), lines.next()) {
        (None, _) => return AgeField::Absent,
        (Some(line), None) => line.as_bytes(),
        (Some(_), Some(_)) => return AgeField::Invalid,
    };
    if line.windows(2).any(|pair| pair == b", ") {
        return AgeField::Invalid;
    }
    match members(line).next().and_then(digits) {
        Some(seconds) => AgeField::Seconds(Duration::from_secs(seconds)),
        None => AgeField::Invalid,
    }
}

/// The age of a response when it arrived (§4.2.3): the larger of what its `Date` and what its `Age` make it.
///
/// `response_delay` is the time from sending the request to receiving the response's head.
pub fn corrected_initial_age(
    age_value: Duration,
    date: SystemTime,
    response_time: SystemTime,
    response_delay: Duration,
) -> Duration {
    // `Date` has whole seconds, so the comparison has to as well: half a second of rounding is no age.
    let apparent_age = date::unix_seconds(response_time).saturating_sub(date::unix_seconds(date));
    Duration::from_secs(apparent_age).max(age_value.saturating_add(response_delay))
}

/// The age now (§4.2.3): the age on arrival and the time spent in this cache.
pub fn current_age(corrected_initial_age: Duration, resident_time: Duration) -> Duration {
    corrected_initial_age.saturating_add(resident_time)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn at(seconds: u64) -> SystemTime {
        NOW + Duration::from_secs(1_000_000 + seconds)
    }

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        map
    }

    fn lifetime(fields: &[(&'static str, &str)]) -> Option<(u64, LifetimeSource)> {
        let headers = headers(fields);
        let said = ResponseDirectives::parse(&headers);
        stated_lifetime(&said, false, &headers, at(0)).map(|l| (l.duration.as_secs(), l.source))
    }

    #[test]
    fn stated_lifetimes_in_their_order() {
        use LifetimeSource::{Expires, MaxAge, SMaxage};
        let later = date::format(at(300)).to_str().unwrap().to_owned();
        let earlier = date::format(at(0) - Duration::from_secs(9)).to_str().unwrap().to_owned();
        // §4.2.1, §5.3
        assert_eq!(lifetime(&[("cache-control", "max-age=1, s-maxage=9")]), Some((9, SMaxage)));
        assert_eq!(lifetime(&[("cache-control", "max-age=0"), ("expires", &later)]), Some((0, MaxAge)));
        assert_eq!(lifetime(&[("expires", &later)]), Some((300, Expires)));
        assert_eq!(lifetime(&[("expires", &earlier)]), Some((0, Expires)));
        assert_eq!(lifetime(&[("expires", "0")]), Some((0, Expires)));
        assert_eq!(lifetime(&[("expires", &later), ("expires", &later)]), Some((0, Expires)));
        assert_eq!(lifetime(&[]), None);
    }

    #[test]
    fn a_targeted_field_silences_expires() {
        // RFC 9213 §2.2
        let headers = headers(&[("expires", "Sun, 06 Nov 2094 08:49:37 GMT")]);
        assert_eq!(stated_lifetime(&ResponseDirectives::default(), true, &headers, at(0)), None);
    }

    #[test]
    fn a_guess_is_a_tenth_and_a_day_at_most() {
        // §4.2.2
        let modified =
            |ago: u64| headers(&[("last-modified", date::format(at(0) - Duration::from_secs(ago)).to_str().unwrap())]);
        assert_eq!(heuristic_lifetime(&modified(1000), at(0)).unwrap().duration.as_secs(), 100);
        assert_eq!(heuristic_lifetime(&modified(1_000_000), at(0)).unwrap().duration.as_secs(), 86_400);
        assert_eq!(heuristic_lifetime(&headers(&[("last-modified", "junk")]), at(0)), None);
        assert_eq!(heuristic_lifetime(&modified(10), at(0) - Duration::from_secs(11)), None, "modified in the future");
    }

    #[test]
    fn age_is_trusted_only_where_it_is_plain() {
        // §5.1, §1.2.2
        let rows: &[(&[(&str, &str)], AgeField)] = &[
            (&[], AgeField::Absent),
            (&[("age", "7200")], AgeField::Seconds(Duration::from_secs(7200))),
            (&[("age", "2147483649")], AgeField::Seconds(Duration::from_secs(2_147_483_649))),
            (&[("age", "99999999999999999999")], AgeField::Seconds(Duration::from_secs(u64::MAX))),
            (&[("age", "7200,0")], AgeField::Seconds(Duration::from_secs(7200))),
            (&[("age", "0,7200")], AgeField::Seconds(Duration::ZERO)),
            (&[("age", "0, 0")], AgeField::Invalid),
            (&[("age", "0"), ("age", "0")], AgeField::Invalid),
            (&[("age", "abc")], AgeField::Invalid),
            (&[("age", "-7200")], AgeField::Invalid),
            (&[("age", "7200.0")], AgeField::Invalid),
            (&[("age", "7200;foo=bar")], AgeField::Invalid),
            (&[("age", "")], AgeField::Invalid),
        ];
        for (fields, expected) in rows {
            let mut map = HeaderMap::new();
            for (name, value) in *fields {
                map.append(http::HeaderName::from_static("age"), HeaderValue::from_str(value).unwrap());
                assert_eq!(*name, "age");
            }
            assert_eq!(age_field(&map), *expected, "{fields:?}");
        }
    }

    #[test]
    fn the_initial_age_is_the_larger_of_two_estimates() {
        // §4.2.3
        let second = Duration::from_secs(1);
        assert_eq!(corrected_initial_age(5 * second, at(0), at(3), second), 6 * second);
        assert_eq!(corrected_initial_age(Duration::ZERO, at(0), at(30), second), 30 * second);
        assert_eq!(
            corrected_initial_age(Duration::ZERO, at(9), at(0), Duration::ZERO),
            Duration::ZERO,
            "a fast origin clock"
        );
        assert_eq!(corrected_initial_age(Duration::MAX, at(0), at(0), second), Duration::MAX, "no overflow");
        assert_eq!(current_age(Duration::MAX, second), Duration::MAX);
    }

    #[test]
    fn the_fraction_of_a_second_that_date_cuts_off_is_no_age() {
        let received = at(0) + Duration::from_millis(900);
        assert_eq!(corrected_initial_age(Duration::ZERO, at(0), received, Duration::ZERO), Duration::ZERO);
    }
}
