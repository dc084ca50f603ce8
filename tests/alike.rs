//! Answers of a route that are alike but for their validators are judged once (`src/alike.rs`). Nobody may notice: whatever differs in one of them counts, be it the hundredth.

mod support;

use larder::{DeclineReason, Policy, Selector};
use support::exchange::*;

/// So many are alike before it is the turn of the one that isn't.
const MANY: usize = 12;

const MODIFIED: &str = "Wed, 31 Dec 2025 23:00:00 GMT";

type Fields = &'static [(&'static str, &'static str)];

const ALIKE: Fields = &[("content-type", "text/plain"), ("cache-control", "max-age=60"), ("vary", "accept-language")];

/// The answers: alike, but that of `/other` says something else.
fn saying(other: Fields) -> Handler {
    Handler::new(move |head, _| {
        let fields = if head.uri.path() == "/other" { other } else { ALIKE };
        let tag = format!("\"{}\"", head.uri.path());
        let mut answer = answer(200, fields, head.uri.path().to_owned());
        answer.headers_mut().insert("etag", tag.parse().expect("a value"));
        answer
    })
}

async fn fill(house: &House) {
    for n in 0..MANY {
        assert_eq!(house.get(&format!("/{n}")).await.x_cache, "MISS");
    }
}

#[tokio::test]
async fn each_is_stored_with_its_own_validators_and_its_time() {
    let handler = Handler::new(|head, _| {
        let n = head.uri.path().trim_start_matches('/');
        let modified = format!("Wed, 31 Dec 2025 23:00:{n:0>2} GMT");
        let fields = [("last-modified", modified.as_str()), ("cache-control", "max-age=60")];
        let mut answer = answer(200, &fields, format!("content {n}"));
        answer.headers_mut().insert("etag", format!("\"{n}\"").parse().expect("a value"));
        answer.headers_mut().insert("x-request-id", format!("of {n}").parse().expect("a value"));
        answer
    });
    let house = House::new(handler);
    for n in 0..MANY {
        house.get(&format!("/{n}")).await;
        house.advance(1);
    }
    for n in 0..MANY {
        let target = format!("/{n}");
        let hit = house.get(&target).await;
        assert_eq!((hit.x_cache.as_str(), hit.body.as_str()), ("HIT", format!("content {n}").as_str()));
        assert_eq!(
            (hit.field("etag"), hit.field("age")),
            (format!("\"{n}\"").as_str(), (MANY - n).to_string().as_str())
        );
        assert_eq!(hit.field("last-modified"), format!("Wed, 31 Dec 2025 23:00:{n:0>2} GMT"));
        assert_eq!(hit.field("date"), format!("Thu, 01 Jan 2026 00:00:{n:0>2} GMT"));
        assert!(!hit.has("x-request-id"));
        for (condition, value) in
            [("if-none-match", hit.field("etag")), ("if-modified-since", hit.field("last-modified"))]
        {
            assert_eq!(house.ask(&target, &[(condition, value)]).await.status, 304, "{target} {condition}");
        }
    }
    let last = format!("/{}", MANY - 1);
    house.advance(58);
    assert_eq!(house.get(&last).await.x_cache, "HIT");
    house.advance(1);
    assert_ne!(house.get(&last).await.x_cache, "HIT", "a minute is over");
}

#[tokio::test]
async fn what_is_said_otherwise_counts() {
    const TYPE: (&str, &str) = ("content-type", "text/plain");
    const VARY: (&str, &str) = ("vary", "accept-language");
    let rows: [(Fields, Option<DeclineReason>); 6] = [
        (&[TYPE, ("cache-control", "no-store"), VARY], Some(DeclineReason::NoStore)),
        (&[TYPE, ("cache-control", "private"), VARY], Some(DeclineReason::Private)),
        (&[TYPE, ("cache-control", "max-age=60"), ("vary", "*")], Some(DeclineReason::VaryStar)),
        (&[TYPE, ("cache-control", "max-age=60"), VARY, ("set-cookie", "a=b")], Some(DeclineReason::SetCookie)),
        (
            &[("content-type", "text/event-stream"), ("cache-control", "max-age=60"), VARY],
            Some(DeclineReason::EndlessStream),
        ),
        (&[TYPE, ("cache-control", "max-age=61"), VARY], None),
    ];
    for (fields, declined) in rows {
        let house = House::new(saying(fields));
        fill(&house).await;
        house.get("/other").await;
        let said = house.handle.stats().declined;
        assert_eq!(said, declined.map(|reason| (reason, 1)).into_iter().collect::<Vec<_>>(), "{fields:?}");
    }
}

#[tokio::test]
async fn who_asks_and_for_what_counts() {
    let house = House::new(saying(ALIKE));
    fill(&house).await;
    // Credentials, a request that wants nothing stored, another variant.
    assert_eq!(house.ask("/a", &[("authorization", "Basic x")]).await.x_cache, "MISS");
    assert_eq!(house.get("/a").await.x_cache, "MISS", "it wasn't stored");
    house.ask("/b", &[("cache-control", "no-store")]).await;
    assert_eq!(house.get("/b").await.x_cache, "MISS", "it wasn't stored");
    house.ask("/c", &[("accept-language", "de")]).await;
    assert_eq!(house.ask("/c", &[("accept-language", "de")]).await.x_cache, "HIT");
    assert_eq!(house.ask("/c", &[("accept-language", "fr")]).await.x_cache, "MISS");
}

#[tokio::test]
async fn a_length_that_is_wrong_or_too_large_is_noticed() {
    let handler = Handler::new(|head, _| {
        let length = if head.uri.path() == "/other" { "100" } else { "7" };
        answer(200, &[("etag", "\"a\""), ("cache-control", "max-age=60"), ("content-length", length)], "content")
    });
    let house = House::new(handler);
    fill(&house).await;
    house.get("/other").await;
    assert_eq!(house.handle.stats().declined, [(DeclineReason::Incomplete, 1)]);

    let handler = Handler::new(|head, _| {
        let tag = format!("\"{}\"", "a".repeat(if head.uri.path() == "/other" { 1000 } else { 10 }));
        answer(200, &[("etag", &tag), ("cache-control", "max-age=60")], "content")
    });
    let house = House::with(handler, |layer| layer.max_head_size(500));
    fill(&house).await;
    house.get("/other").await;
    assert_eq!(house.handle.stats().declined, [(DeclineReason::HeadTooLarge, 1)]);

    let house = House::with(saying(ALIKE), |layer| layer.max_body_size(6));
    fill(&house).await;
    house.get("/a-long-one").await;
    assert_eq!(house.handle.stats().declined, [(DeclineReason::BodyTooLarge, 1)]);
}

#[tokio::test]
async fn tags_of_a_rule_are_those_of_each_path() {
    let policy = Policy::from_origin().tag("page:$1");
    let house = House::with(saying(ALIKE), |layer| layer.rule("^/(.*)$", policy));
    fill(&house).await;
    let purged = format!("page:{}", MANY - 1);
    house.handle.purge(Selector::Tag(purged)).await.unwrap();
    assert_eq!(house.get(&format!("/{}", MANY - 1)).await.x_cache, "MISS");
    assert_eq!(house.get(&format!("/{}", MANY - 2)).await.x_cache, "HIT");
}

#[tokio::test]
async fn a_date_that_is_not_kept_has_no_place() {
    let rows: [(Fields, bool); 2] = [
        (&[("content-type", "text/plain"), ("cache-control", "max-age=60"), ("last-modified", MODIFIED)], true),
        (
            &[
                ("content-type", "text/plain"),
                ("cache-control", "max-age=60"),
                ("connection", "last-modified"),
                ("last-modified", MODIFIED),
            ],
            false,
        ),
    ];
    for (fields, never) in rows {
        let handler = Handler::new(move |head, _| {
            let mut answer = answer(200, fields, head.uri.path().to_owned());
            answer.headers_mut().insert("etag", "\"a\"".parse().expect("a value"));
            answer
        });
        let house =
            House::with(handler, |layer| if never { layer.never_store(http::header::LAST_MODIFIED) } else { layer });
        fill(&house).await;
        let hit = house.get(&format!("/{}", MANY - 1)).await;
        assert_eq!(hit.x_cache, "HIT");
        assert_eq!((hit.field("content-type"), hit.has("last-modified")), ("text/plain", false), "{fields:?}");
    }
}

#[tokio::test]
async fn answers_that_are_never_alike_do_not_spoil_those_that_are() {
    let handler = Handler::new(|head, _| {
        let path = head.uri.path();
        let own = if path.starts_with("/own") { path } else { "none" };
        answer(200, &[("etag", "\"a\""), ("cache-control", "max-age=60"), ("x-own", own)], path.to_owned())
    });
    let house = House::new(handler);
    for n in 0..MANY {
        for target in [format!("/{n}"), format!("/own/{n}"), format!("/own/{n}/again")] {
            house.get(&target).await;
            let hit = house.get(&target).await;
            let own = if target.starts_with("/own") { target.as_str() } else { "none" };
            assert_eq!((hit.x_cache.as_str(), hit.field("x-own"), hit.body.as_str()), ("HIT", own, target.as_str()));
        }
    }
}
