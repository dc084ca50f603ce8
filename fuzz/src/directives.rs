//! `Cache-Control` (RFC 9111 §5.2): however it is written, one more line never makes a cache less careful.
//!
//! The last line of an input is the one that is added to those before it.

use std::time::{Duration, UNIX_EPOCH};

use http::header::{CACHE_CONTROL, ETAG, LAST_MODIFIED};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use larder::rfc9111::directives::{RequestDirectives, ResponseDirectives};
use larder::rfc9111::freshness::{Lifetime, current_age, stated_lifetime};
use larder::rfc9111::list::{digits, members};
use larder::rfc9111::reuse::{Reuse, Terms, may_stand_in_for_error, reuse};
use larder::rfc9111::storability::{Exchange, Leniency, Storability, storability};

pub fn check(data: &[u8]) {
    let all = super::values(data);
    let Some((extra, base)) = all.split_last() else { return };
    let (before, after) = (super::field(&CACHE_CONTROL, base), super::field(&CACHE_CONTROL, &all));
    response(&before, &after, extra);
    request(&before, &after, extra);
    spelling(&after, &all);
    all.iter().for_each(|line| members(line.as_bytes()).for_each(delta_seconds));
}

/// Whether a line could permit anything at all.
fn names_any(line: &HeaderValue, words: &[&str]) -> bool {
    let line = String::from_utf8_lossy(line.as_bytes()).to_ascii_lowercase();
    words.iter().any(|word| line.contains(word))
}

fn response(before: &HeaderMap, after: &HeaderMap, extra: &HeaderValue) {
    let (said, more) = (ResponseDirectives::parse(before), ResponseDirectives::parse(after));
    for (kept, name) in [
        (said.no_store <= more.no_store, "no-store"),
        (said.no_cache <= more.no_cache, "no-cache"),
        (said.private <= more.private, "private"),
        (said.must_revalidate <= more.must_revalidate, "must-revalidate"),
        (said.proxy_revalidate <= more.proxy_revalidate, "proxy-revalidate"),
        (said.must_understand <= more.must_understand, "must-understand"),
        (said.forbids_stale() <= more.forbids_stale(), "what forbids stale answers"),
        (no_longer(said.max_age, more.max_age), "max-age"),
        (no_longer(said.s_maxage, more.s_maxage), "s-maxage"),
        (no_longer(said.stale_while_revalidate, more.stale_while_revalidate), "stale-while-revalidate"),
        (no_longer(said.stale_if_error, more.stale_if_error), "stale-if-error"),
    ] {
        assert!(kept, "one more line took {name} back: {after:?}");
    }
    let permits =
        ["max-age", "s-maxage", "public", "must-revalidate", "must-understand", "no-cache", "immutable", "stale-"];
    if names_any(extra, &permits) {
        return;
    }
    // §4.2.1: what is no directive gives no lifetime, no permission and no window.
    assert_eq!(lifetime(&said, before), lifetime(&more, after), "junk changed a lifetime");
    for status in [200, 204, 403, 404, 503, 599] {
        for leniency in [Leniency::default(), letter()] {
            for authorization in [false, true] {
                let judge = |headers, said| storable(headers, said, status, leniency, authorization);
                assert!(
                    judge(before, &said) == Storability::Store || judge(after, &more) != Storability::Store,
                    "junk made {status} storable: {after:?}"
                );
            }
        }
    }
}

fn no_longer(before: Option<Duration>, after: Option<Duration>) -> bool {
    before.is_none_or(|before| after.is_some_and(|after| after <= before))
}

fn letter() -> Leniency {
    let mut leniency = Leniency::default();
    leniency.error_statuses = true;
    leniency.set_cookie = true;
    leniency.vary_credentials = true;
    leniency.must_understand_lifts_no_store = true;
    leniency
}

fn lifetime(said: &ResponseDirectives, headers: &HeaderMap) -> Option<Lifetime> {
    stated_lifetime(said, false, headers, UNIX_EPOCH)
}

fn storable(
    headers: &HeaderMap,
    said: &ResponseDirectives,
    status: u16,
    leniency: Leniency,
    authorization: bool,
) -> Storability {
    let mut headers = headers.clone();
    headers.insert(ETAG, HeaderValue::from_static("\"a\""));
    headers.insert(LAST_MODIFIED, HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"));
    let exchange = Exchange {
        method: &Method::GET,
        authorization,
        request_no_store: false,
        audience_declared: false,
        status: StatusCode::from_u16(status).expect("a status"),
        headers: &headers,
        said,
        lifetime: lifetime(said, &headers).map(|lifetime| lifetime.source),
    };
    storability(&exchange, leniency)
}

fn request(before: &HeaderMap, after: &HeaderMap, extra: &HeaderValue) {
    let (asked, more) = (RequestDirectives::parse(before), RequestDirectives::parse(after));
    for (kept, name) in [
        (asked.no_store <= more.no_store, "no-store"),
        (asked.no_cache <= more.no_cache, "no-cache"),
        (asked.only_if_cached <= more.only_if_cached, "only-if-cached"),
        (no_longer(asked.max_age, more.max_age), "max-age"),
        (no_longer(asked.max_stale, more.max_stale), "max-stale"),
        (no_longer(asked.stale_if_error, more.stale_if_error), "stale-if-error"),
        (asked.min_fresh <= more.min_fresh, "min-fresh"),
    ] {
        assert!(kept, "one more line took {name} back: {after:?}");
    }
    let said = ResponseDirectives::parse(after);
    let lifetime = said.max_age.unwrap_or(Duration::from_secs(60));
    for terms in [
        Terms { lifetime, for_authorized: true, ..Terms::default() },
        Terms { lifetime, stale_while_revalidate: Duration::MAX, for_authorized: true, ..Terms::default() },
        Terms { lifetime, no_stale: true, immutable: true, for_authorized: true, ..Terms::default() },
    ] {
        for resident in [0, 1, 59, 60, 61, 1000, u64::MAX] {
            reused(&terms, current_age(Duration::from_secs(1), Duration::from_secs(resident)), &asked, &more, extra);
        }
    }
}

fn reused(terms: &Terms, age: Duration, asked: &RequestDirectives, more: &RequestDirectives, extra: &HeaderValue) {
    let (one, two) = (reuse(terms, age, asked, false), reuse(terms, age, more, false));
    for answer in [one, two] {
        assert!(answer != Reuse::Fresh || terms.lifetime > age, "fresh means that its lifetime is longer than its age");
        assert!(!terms.no_stale || !is_stale(answer), "stale though that is forbidden");
    }
    if !names_any(extra, &["max-stale", "stale-if-error"]) {
        // Nothing but these two lets a request be content with more.
        assert!(
            !matches!(one, Reuse::Validate(_)) || matches!(two, Reuse::Validate(_)),
            "junk in a request made a response usable: {extra:?}"
        );
        assert!(may_stand_in_for_error(terms, age, asked, false) || !may_stand_in_for_error(terms, age, more, false));
    }
}

fn is_stale(answer: Reuse) -> bool {
    matches!(answer, Reuse::AllowedStale | Reuse::StaleWhileRevalidate)
}

/// Case means nothing, and closed lines mean the same when they are joined (RFC 9110 §5.3).
fn spelling(headers: &HeaderMap, lines: &[HeaderValue]) {
    let said = ResponseDirectives::parse(headers);
    let shouted = lines.iter().filter_map(|line| HeaderValue::from_bytes(&line.as_bytes().to_ascii_uppercase()).ok());
    let shouted: Vec<_> = shouted.collect();
    assert_eq!(said, ResponseDirectives::parse(&super::field(&CACHE_CONTROL, &shouted)), "case means nothing");
    let closed = |line: &HeaderValue| {
        let mut list = members(line.as_bytes());
        list.by_ref().for_each(drop);
        !list.unterminated()
    };
    if lines.iter().all(closed) {
        let joined = lines.iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b", "[..]);
        let joined = HeaderValue::from_bytes(&joined).expect("values joined are a value");
        assert_eq!(said, ResponseDirectives::parse(&super::field(&CACHE_CONTROL, [&joined])), "lines are one list");
    } else {
        assert!(said.no_store, "an open quote may hide anything");
    }
}

/// §1.2.2: numbers saturate, and nothing but digits is one.
fn delta_seconds(member: &[u8]) {
    assert!(!member.is_empty() && !member.ends_with(b" ") && !member.starts_with(b"\t"), "members are trimmed");
    let value = member.splitn(2, |b| *b == b'=').nth(1).unwrap_or(member);
    let Some(number) = digits(value) else {
        assert!(value.is_empty() || value.iter().any(|b| !b.is_ascii_digit()), "digits are a number");
        return;
    };
    let text = std::str::from_utf8(value).expect("digits are text").trim_start_matches('0');
    let expected = if text.len() > 30 {
        u64::MAX
    } else {
        text.parse::<u128>().map_or(0, |n| u64::try_from(n).unwrap_or(u64::MAX))
    };
    assert_eq!(number, expected, "numbers saturate");
}
