//! HEAD is answered from a stored GET; one that goes to the handler says something about what is stored, and never fills it.

mod support;

use larder::Policy;
use support::exchange::*;

type Fields = &'static [(&'static str, &'static str)];

const FRESH: (&str, &str) = ("cache-control", "max-age=60");
const TAG: (&str, &str) = ("etag", "\"a\"");
/// One hour before the clock's start.
const MODIFIED: &str = "Wed, 31 Dec 2025 23:00:00 GMT";
const BEFORE: &str = "Wed, 31 Dec 2025 22:59:59 GMT";

fn head(fields: &[(&str, &str)]) -> http::Request<http_body_util::Full<bytes::Bytes>> {
    request("HEAD", "/", fields)
}

#[tokio::test]
async fn it_is_answered_from_the_stored_get() {
    let house = House::new(Handler::new(|_, _| answer(200, &[FRESH, ("x-other", "1")], "0123456789")));
    house.get("/").await;
    let exchange = house.exchange(head(&[("range", "bytes=0-0")])).await;
    assert_eq!((exchange.status, exchange.x_cache.as_str(), exchange.body.as_str()), (200, "HIT", ""));
    assert_eq!((exchange.field("content-length"), exchange.field("x-other")), ("10", "1"));
    assert_eq!(house.handler.calls(), 1);
}

/// Whatever it says of itself, and also where it comes with content.
#[tokio::test]
async fn alone_it_stores_nothing() {
    let rows: [(Fields, &'static str); 4] = [
        (&[FRESH], ""),
        (&[FRESH, TAG, ("content-length", "10")], ""),
        (&[FRESH], "0123456789"),
        (&[FRESH, ("content-length", "0")], ""),
    ];
    for (fields, content) in rows {
        for policy in [Policy::from_origin(), Policy::shared(MINUTE)] {
            let handler = Handler::new(move |head, _| match head.method.as_str() {
                "HEAD" => answer(200, fields, content),
                _ => answer(200, &[FRESH], "0123456789"),
            });
            let house = House::with(handler, |layer| layer.otherwise(policy.clone()));
            for _ in 0..2 {
                assert_eq!(house.exchange(head(&[])).await.x_cache, "MISS");
            }
            assert_eq!(house.handle.stats().storage.entries, 0);
            let whole = house.get("/").await;
            assert_eq!((whole.body.as_str(), whole.x_cache.as_str()), ("0123456789", "MISS"));
        }
    }
}

/// What becomes of a stored response.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// Fresh again, with the new fields.
    Updated,
    /// Gone, so that the next request has the handler asked without a condition.
    Gone,
    /// As it was: stale.
    Left,
}

/// RFC 9111 §4.3.5, and where the safe default asks for more: a validator has to agree.
#[tokio::test]
async fn what_is_stored_is_freshened_where_it_agrees_and_dropped_where_it_doesnt() {
    use Fate::{Gone, Left, Updated};
    let rows: [(&str, u16, Fields, Fate, Fate); 22] = [
        ("agrees", 200, &[FRESH, TAG, ("content-length", "7"), ("x-n", "2")], Updated, Updated),
        ("agrees by its tag", 200, &[FRESH, TAG, ("x-n", "2")], Updated, Updated),
        ("agrees by its date", 200, &[FRESH, ("last-modified", MODIFIED), ("x-n", "2")], Updated, Updated),
        ("agrees in its coding", 200, &[FRESH, TAG, ("content-encoding", "br"), ("x-n", "2")], Updated, Updated),
        ("names no validator", 200, &[FRESH, ("x-n", "2")], Left, Updated),
        ("names a length only", 200, &[FRESH, ("content-length", "7"), ("x-n", "2")], Left, Updated),
        ("another length", 200, &[FRESH, ("content-length", "8")], Gone, Gone),
        ("another length with the same tag", 200, &[FRESH, TAG, ("content-length", "8")], Gone, Gone),
        ("the length of nothing", 200, &[FRESH, TAG, ("content-length", "0")], Gone, Gone),
        ("no length at all", 200, &[FRESH, TAG, ("content-length", "x")], Gone, Gone),
        ("another tag", 200, &[FRESH, ("etag", "\"b\"")], Gone, Gone),
        ("a weak tag", 200, &[FRESH, ("etag", "W/\"a\"")], Gone, Gone),
        ("another date", 200, &[FRESH, TAG, ("last-modified", BEFORE)], Gone, Gone),
        ("another coding", 200, &[FRESH, TAG, ("content-encoding", "gzip")], Gone, Gone),
        ("not to be stored", 200, &[("cache-control", "no-store"), TAG], Gone, Gone),
        ("not to be stored, without a validator", 200, &[("cache-control", "no-store")], Gone, Gone),
        ("not there any more", 404, &[FRESH], Gone, Gone),
        ("gone", 410, &[], Gone, Gone),
        ("somewhere else", 302, &[("location", "/other")], Gone, Gone),
        ("not understood", 405, &[], Left, Left),
        ("an error", 500, &[], Left, Left),
        ("not modified, to the client's condition", 304, &[FRESH, TAG], Left, Left),
    ];
    for (why, status, fields, by_default, to_the_letter) in rows {
        for (strict, expected) in [(false, by_default), (true, to_the_letter)] {
            let why = format!("{why}, strict {strict}");
            let handler = Handler::new(move |head, _| {
                if head.method == "HEAD" {
                    return answer(status, fields, "");
                }
                let known = head.headers.contains_key("if-none-match");
                let fields = [FRESH, TAG, ("last-modified", MODIFIED), ("content-encoding", "br"), ("x-n", "1")];
                answer(if known { 304 } else { 200 }, &fields, if known { "" } else { "content" })
            });
            let house = House::with(handler, |layer| if strict { layer.strict_rfc() } else { layer });
            house.get("/").await;
            house.advance(61);
            let exchange = house.exchange(head(&[])).await;
            assert_eq!((exchange.status, exchange.x_cache.as_str()), (status, "MISS"), "{why}");
            let exchange = house.get("/").await;
            match expected {
                Updated => assert_eq!((exchange.x_cache.as_str(), exchange.field("x-n")), ("HIT", "2"), "{why}"),
                Gone => assert_eq!(exchange.cache_status, "larder; fwd=uri-miss; stored", "{why}"),
                Left => assert_eq!(exchange.x_cache, "REVALIDATED", "{why}"),
            }
            assert_eq!((exchange.body.as_str(), exchange.field("content-encoding")), ("content", "br"), "{why}");
        }
    }
}

/// §4.3.5: "each of its stored GET responses that could have been chosen for that request".
#[tokio::test]
async fn of_several_variants_it_speaks_of_the_one_that_was_chosen() {
    let english = [("accept-language", "en")];
    let german = [("accept-language", "de")];
    let rows: [(Fields, &str); 3] = [
        (&[FRESH, TAG], "HIT"),
        (&[FRESH, ("etag", "\"b\"")], "REVALIDATED"),
        (&[FRESH, TAG, ("content-length", "99")], "REVALIDATED"),
    ];
    for (says, then) in rows {
        let house = House::new(Handler::new(move |head, _| {
            let language = head.headers["accept-language"].to_str().unwrap();
            if head.method == "HEAD" {
                return answer(200, &[says, &[("vary", "accept-language")]].concat(), "");
            }
            let known = head.headers.contains_key("if-none-match");
            let age = if language == "en" { FRESH } else { ("cache-control", "max-age=600") };
            let content = if known { String::new() } else { format!("in {language}") };
            answer(if known { 304 } else { 200 }, &[age, TAG, ("vary", "accept-language")], content)
        }));
        house.ask("/", &english).await;
        house.ask("/", &german).await;
        house.advance(61);
        assert_eq!(house.exchange(head(&english)).await.x_cache, "MISS", "{says:?}");
        assert_eq!(house.ask("/", &german).await.x_cache, "HIT", "{says:?}: the other one is as good as before");
        let chosen = house.ask("/", &english).await;
        assert_eq!((chosen.x_cache.as_str(), chosen.body.as_str()), (then, "in en"), "{says:?}");
    }
}

/// A variant that was found to have changed isn't served stale, though a window would allow it; and a HEAD for a variant that isn't stored says
/// nothing about the others.
#[tokio::test]
async fn a_doubted_variant_is_never_served_without_validation() {
    let house = House::new(Handler::new(|head, _| {
        let fields = [("cache-control", "max-age=60, stale-if-error=600"), ("vary", "accept")];
        match (head.method.as_str(), head.headers.contains_key("x-fail")) {
            ("HEAD", _) => answer(200, &[&fields[..], &[("etag", "\"b\"")]].concat(), ""),
            (_, true) => answer(500, &[], "failed"),
            _ => answer(200, &[&fields[..], &[TAG]].concat(), "content"),
        }
    }));
    let accept = ("accept", "text/html");
    house.ask("/", &[accept]).await;
    house.exchange(head(&[("accept", "text/plain")])).await;
    assert_eq!(house.ask("/", &[accept]).await.x_cache, "HIT", "another variant");
    house.exchange(head(&[accept, ("cache-control", "no-cache")])).await;
    let exchange = house.ask("/", &[accept, ("x-fail", "1")]).await;
    assert_eq!((exchange.status, exchange.x_cache.as_str()), (500, "MISS"));
    assert_eq!(house.handler.last().headers["if-none-match"], "\"a\"", "it is still there to be asked about");
    let calls = house.handler.calls();
    house.ask("/", &[accept, ("cache-control", "max-stale"), ("x-fail", "1")]).await;
    assert_eq!(house.handler.calls(), calls + 1, "nor does a client's word allow it");
}
