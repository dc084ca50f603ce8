use super::*;

fn status(outcome: CacheOutcome) -> String {
    String::from_utf8(outcome.cache_status("larder").to_vec()).unwrap()
}

#[test]
fn cache_status_members() {
    // RFC 9211 §2
    let second = Duration::from_secs(1);
    let new = |outcome| CacheOutcome::new(outcome, None);
    let stored =
        |outcome, age: u32, lifetime: u32| CacheOutcome::of_stored(outcome, None, second * age, second * lifetime);
    let rows = [
        (stored(Outcome::Hit, 18, 60), "larder; hit; ttl=42"),
        (
            stored(Outcome::Stale(StaleReason::WhileRevalidate), 63, 60),
            "larder; hit; ttl=-3; detail=stale-while-revalidate",
        ),
        (stored(Outcome::Stale(StaleReason::IfError), 63, 60), "larder; fwd=stale; ttl=-3; detail=stale-if-error"),
        (stored(Outcome::Revalidated(ForwardReason::Stale), 0, 60), "larder; fwd=stale; fwd-status=304; ttl=60"),
        (new(Outcome::Miss(ForwardReason::UriMiss)).stored(Ok(())), "larder; fwd=uri-miss; stored"),
        (
            new(Outcome::Miss(ForwardReason::VaryMiss)).stored(Err(DeclineReason::SetCookie)),
            "larder; fwd=vary-miss; detail=set-cookie",
        ),
        (new(Outcome::Miss(ForwardReason::OnlyIfCached)), "larder; detail=only-if-cached"),
        (new(Outcome::Miss(ForwardReason::CacheOnly)), "larder; detail=cache-only"),
        (stored(Outcome::Stale(StaleReason::CacheOnly), 63, 60), "larder; hit; ttl=-3; detail=cache-only"),
        (stored(Outcome::Fallback, 18, 60), "larder; fwd=bypass; ttl=42; detail=network-first"),
        (stored(Outcome::Stale(StaleReason::NetworkFirst), 63, 60), "larder; fwd=stale; ttl=-3; detail=network-first"),
        (
            new(Outcome::Miss(ForwardReason::NetworkFirst)).stored(Ok(())),
            "larder; fwd=bypass; stored; detail=network-first",
        ),
        (
            new(Outcome::Miss(ForwardReason::NetworkFirst)).stored(Err(DeclineReason::NoStore)),
            "larder; fwd=bypass; detail=no-store",
        ),
        (
            stored(Outcome::Revalidated(ForwardReason::NetworkFirst), 0, 60),
            "larder; fwd=bypass; fwd-status=304; ttl=60; detail=network-first",
        ),
        (new(Outcome::Miss(ForwardReason::Distrusted)).stored(Ok(())), "larder; fwd=miss; stored; detail=distrusted"),
        (new(Outcome::Bypass(BypassReason::NetworkOnly)), "larder; fwd=bypass; detail=network-only"),
        (new(Outcome::Bypass(BypassReason::Method)), "larder; fwd=method"),
        (new(Outcome::Bypass(BypassReason::Rule)), "larder; fwd=bypass; detail=rule"),
        (new(Outcome::Bypass(BypassReason::Shadow)), "larder; fwd=bypass; detail=shadow"),
    ];
    for (outcome, expected) in rows {
        assert_eq!(status(outcome), expected);
    }
}

#[test]
fn what_most_misses_say_is_what_it_would_be_written_as() {
    for why in [ForwardReason::UriMiss, ForwardReason::VaryMiss] {
        let outcome = CacheOutcome::new(Outcome::Miss(why), None);
        for outcome in [outcome, outcome.stored(Ok(())), outcome.stored(Err(DeclineReason::NoStore))] {
            for name in ["larder", "edge"] {
                let switches = HeaderSwitches { name: name.into(), ..HeaderSwitches::default() };
                assert_eq!(switches.status_value(&outcome).as_bytes(), &*outcome.cache_status(name));
            }
        }
    }
}

#[test]
fn numbers_from_the_table_and_beyond() {
    for n in [0, 1, 9, 10, 99, 100, 999, 1000, 3599, 3600, 2_147_483_648, u64::MAX] {
        assert_eq!(number(n), n.to_string());
    }
}

#[test]
fn extreme_lifetimes_dont_overflow() {
    let outcome = CacheOutcome::of_stored(Outcome::Hit, None, Duration::ZERO, Duration::MAX);
    assert_eq!(outcome.ttl, Some(i64::MAX));
    let outcome = CacheOutcome::of_stored(Outcome::Hit, None, Duration::MAX, Duration::ZERO);
    assert_eq!(status(outcome), format!("larder; hit; ttl={}", -i64::MAX));
}
