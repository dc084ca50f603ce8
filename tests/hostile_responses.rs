//! Whatever a handler answers, each client gets what the handler said or a copy of it, and nothing half, contradictory or provoked is stored.

mod support;

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use larder::{CacheLayer, Cached, DeclineReason, Outcome, Policy};
use support::exchange::*;

type Fields = &'static [(&'static str, &'static str)];

const FRESH: (&str, &str) = ("cache-control", "max-age=60");

/// A rule that gives everything a lifetime, so that nothing is declined for want of one.
fn greedy() -> Policy {
    Policy::shared(MINUTE)
}

fn around(handler: Handler, policy: Policy) -> House {
    House::with(handler, |layer| layer.otherwise(policy))
}

/// Two equal requests: whether the second is a hit, or else the reason why the first was declined.
async fn second(house: &House) -> String {
    let first = house.get("/").await;
    let second = house.get("/").await;
    assert_eq!((second.status, &second.body), (first.status, &first.body), "the same handler, the same answer");
    match first.outcome.expect("an outcome").stored {
        Some(Err(reason)) => {
            assert_eq!((house.handler.calls(), house.handle.stats().storage.entries), (2, 0), "{reason}");
            reason.to_string()
        }
        _ => second.x_cache,
    }
}

#[tokio::test]
async fn which_statuses_are_stored() {
    // The status, and what becomes of it: from the origin with explicit freshness, and by a rule's TTL without.
    let rows: &[(&[u16], &str, &str)] = &[
        (&[200, 203, 204, 300, 301, 308], "HIT", "HIT"),
        // Explicit freshness counts for every final status that isn't about one request (RFC 9111 §3); a rule's TTL doesn't.
        (&[201, 202, 205, 207, 208, 226, 299, 302, 303, 305, 307, 399], "HIT", "no-freshness"),
        (&[402, 403, 404, 405, 409, 410, 418, 422, 423, 424, 451, 499], "HIT", "no-freshness"),
        // A part, a confirmation, a condition, a range, and what is said to one client.
        (&[206, 304, 412, 416, 428, 429, 431, 511], "status", "status"),
        // A hostile request may have provoked it.
        (&[400, 401, 406, 407, 408, 411, 413, 414, 415, 417, 421, 425, 426], "error-status", "error-status"),
        (&[500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 599, 600, 999], "error-status", "error-status"),
        (&[100, 102, 103, 199], "status", "status"),
        (&[101], "endless-stream", "endless-stream"),
    ];
    for (statuses, explicit, by_rule) in rows {
        for status in *statuses {
            let body = if matches!(status, 204 | 205 | 304) { "" } else { "a" };
            let fresh = Handler::new(move |_, _| answer(*status, &[FRESH], body));
            assert_eq!(second(&around(fresh, Policy::from_origin())).await, *explicit, "{status} max-age");
            let silent = Handler::new(move |_, _| answer(*status, &[], body));
            assert_eq!(second(&around(silent, greedy())).await, *by_rule, "{status} by rule");
        }
    }
}

/// Cache-poisoned denial of service: a request that makes the handler fail must not make it fail for others.
#[tokio::test]
async fn what_a_hostile_request_provokes_is_for_nobody_else() {
    let hostile: Fields = &[
        ("accept", "nothing/at-all"),
        ("content-type", "\"<>"),
        ("expect", "the-impossible"),
        ("x-oversized", "a value that the handler finds too long"),
        ("early-data", "1"),
        ("range", "bytes=9-1"),
        ("accept-encoding", "identity;q=0"),
    ];
    for status in [400u16, 401, 406, 407, 408, 411, 413, 414, 415, 417, 421, 425, 426, 428, 431, 500, 501, 503, 505] {
        for policy in [Policy::from_origin(), greedy(), greedy().override_origin()] {
            for asked in hostile {
                let handler = Handler::new(move |head, _| match head.headers.contains_key(asked.0) {
                    true => answer(status, &[("cache-control", "public, max-age=3600")], "no"),
                    false => answer(200, &[FRESH], "yes"),
                });
                let house = around(handler, policy.clone());
                house.ask("/", &[*asked]).await;
                let next = house.get("/").await;
                assert_eq!((next.status, next.body.as_str()), (200, "yes"), "{status} by {asked:?}");
                // And what is good stays good.
                house.ask("/", &[*asked, ("cache-control", "no-cache")]).await;
                assert_eq!(house.get("/").await.x_cache, "HIT", "{status} by {asked:?}");
            }
        }
    }
}

#[tokio::test]
async fn an_empty_success_is_stored_only_where_it_was_meant_to_be_empty() {
    let rows: [(u16, Fields, &str); 7] = [
        (200, &[FRESH], "HIT"),
        (200, &[FRESH, ("content-length", "0")], "HIT"),
        (204, &[FRESH], "HIT"),
        (200, &[FRESH, ("content-length", "5")], "incomplete"),
        (200, &[FRESH, ("content-encoding", "gzip"), ("content-length", "20")], "incomplete"),
        (204, &[FRESH, ("content-length", "5")], "incomplete"),
        (200, &[FRESH, ("content-length", "")], "incomplete"),
    ];
    for (status, fields, expected) in rows {
        let house = around(Handler::new(move |_, _| answer(status, fields, "")), Policy::from_origin());
        assert_eq!(second(&house).await, expected, "{status} {fields:?}");
    }
}

#[tokio::test]
async fn a_length_that_contradicts_the_content_or_itself_keeps_it_out() {
    let rows: [(Fields, &str); 12] = [
        (&[FRESH, ("content-length", "4")], "HIT"),
        (&[FRESH, ("content-length", "4, 4")], "HIT"),
        (&[FRESH, ("content-length", "4"), ("content-length", "4")], "HIT"),
        (&[FRESH, ("content-length", "3")], "incomplete"),
        (&[FRESH, ("content-length", "5")], "incomplete"),
        (&[FRESH, ("content-length", "4"), ("content-length", "5")], "incomplete"),
        (&[FRESH, ("content-length", "5"), ("content-length", "4")], "incomplete"),
        (&[FRESH, ("content-length", "4, 5")], "incomplete"),
        (&[FRESH, ("content-length", "+4")], "incomplete"),
        (&[FRESH, ("content-length", "0x4")], "incomplete"),
        (&[FRESH, ("content-length", "four")], "incomplete"),
        (&[FRESH, ("content-length", "99999999999999999999999999")], "body-too-large"),
    ];
    for (fields, expected) in rows {
        for streamed in [false, true] {
            let handler = Handler::new(move |_, _| {
                let frames = futures_util::stream::iter([Ok(http_body::Frame::data(Bytes::from_static(b"four")))]);
                let response = answer(200, fields, "four");
                if streamed { response.map(|_| BodyExt::boxed(StreamBody::new(frames))) } else { response }
            });
            let house = around(handler, Policy::from_origin());
            let why = format!("{fields:?}, streamed: {streamed}");
            if streamed {
                house.get("/").await;
                let hit = house.get("/").await.x_cache == "HIT";
                assert_eq!(hit, expected == "HIT", "{why}");
            } else {
                assert_eq!(second(&house).await, expected, "{why}");
            }
        }
    }
}

#[tokio::test]
async fn a_part_is_never_taken_for_the_whole() {
    let rows: [(u16, Fields); 4] = [
        // Nobody asked for it; with a range of its own, without one, and with one that makes no sense.
        (206, &[FRESH, ("content-range", "bytes 0-3/10")]),
        (206, &[FRESH]),
        (206, &[FRESH, ("content-range", "bytes 0-3/4"), ("content-length", "4")]),
        (206, &[FRESH, ("content-type", "multipart/byteranges; boundary=x")]),
    ];
    for (status, fields) in rows {
        for asked in [&[][..], &[("range", "bytes=0-3")], &[("range", "bytes=5-9"), ("if-range", "\"a\"")]] {
            for policy in [Policy::from_origin(), greedy()] {
                let house = around(Handler::new(move |_, _| answer(status, fields, "0123")), policy);
                let first = house.ask("/", asked).await;
                assert!(matches!(first.status, 200 | 206 | 416), "{fields:?}: {first:?}");
                assert_eq!(house.handle.stats().storage.entries, 0, "{fields:?} {asked:?}");
                assert_eq!(house.get("/").await.x_cache, "MISS", "{fields:?} {asked:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_304_that_nobody_asked_for_confirms_nothing() {
    // Nothing is stored: it passes. With a client's condition, without one.
    for asked in [&[][..], &[("if-none-match", "\"a\"")]] {
        for policy in [Policy::from_origin(), greedy()] {
            let house = around(Handler::new(|_, _| answer(304, &[FRESH, ("etag", "\"a\"")], "")), policy);
            let exchange = house.ask("/", asked).await;
            assert_eq!((exchange.status, exchange.cache_status.as_str()), (304, "larder; fwd=uri-miss; detail=status"));
            assert_eq!(house.handle.stats().storage.entries, 0);
        }
    }
    // Something is stored that has no validator, so the cache did not ask: it doesn't renew that.
    let handler = Handler::new(|_, n| match n {
        1 => answer(404, &[FRESH], "old"),
        _ => answer(304, &[FRESH], ""),
    });
    let house = House::new(handler);
    house.get("/").await;
    house.advance(61);
    for _ in 0..2 {
        let exchange = house.get("/").await;
        assert_eq!((exchange.status, exchange.x_cache.as_str(), exchange.body.as_str()), (304, "MISS", ""));
    }
}

#[tokio::test]
async fn a_304_changes_neither_framing_nor_coding() {
    const ETAG: (&str, &str) = ("etag", "\"a\"");
    let first: Fields = &[
        FRESH,
        ETAG,
        ("content-type", "text/plain"),
        ("content-encoding", "br"),
        ("content-md5", "old"),
        ("content-digest", "old"),
        ("repr-digest", "old"),
    ];
    // What the 304 says, and the field as a client sees it afterwards.
    let rows: [(Fields, &str, &str); 12] = [
        (&[("content-length", "999")], "content-length", ""),
        (&[("content-length", "0")], "content-length", ""),
        (&[("content-encoding", "gzip")], "content-encoding", "br"),
        (&[("transfer-encoding", "chunked")], "transfer-encoding", ""),
        (&[("content-range", "bytes 0-1/2")], "content-range", ""),
        (&[("content-md5", "new")], "content-md5", "old"),
        (&[("content-digest", "new")], "content-digest", "old"),
        (&[("repr-digest", "new")], "repr-digest", "old"),
        (&[("trailer", "x")], "trailer", ""),
        (&[("connection", "content-type, x-a"), ("content-type", "a/b")], "content-type", "text/plain"),
        (&[("connection", "close"), ("keep-alive", "1")], "keep-alive", ""),
        // What the content is called is not how it is framed, and a 304 may correct it (RFC 9111 §3.2).
        (&[("content-type", "text/html")], "content-type", "text/html"),
    ];
    for (update, name, expected) in rows {
        let handler = Handler::new(move |_, n| match n {
            1 => answer(200, first, "content"),
            _ => answer(304, &[&[FRESH, ETAG], update].concat(), ""),
        });
        let house = House::new(handler);
        house.get("/").await;
        house.advance(61);
        for x_cache in ["REVALIDATED", "HIT"] {
            let exchange = house.get("/").await;
            assert_eq!(exchange.x_cache, x_cache, "{update:?}");
            assert_eq!((exchange.status, exchange.body.as_str()), (200, "content"), "{update:?}");
            assert_eq!(exchange.field(name), expected, "{update:?}");
        }
        let head = house.exchange(request("HEAD", "/", &[])).await;
        assert_eq!(head.field("content-length"), "7", "{update:?}");
        let part = house.ask("/", &[("range", "bytes=0-2")]).await;
        assert_eq!((part.status, part.body.as_str(), part.field("content-range")), (206, "con", "bytes 0-2/7"));
    }
}

/// A confirmation that makes it one user's, or nobody's, ends the storing.
#[tokio::test]
async fn a_304_that_forbids_is_heard() {
    let rows: [(Fields, DeclineReason); 5] = [
        (&[("cache-control", "private, max-age=60")], DeclineReason::Private),
        (&[("cache-control", "no store, max-age=60")], DeclineReason::NoStore),
        (&[FRESH, ("set-cookie", "session=1")], DeclineReason::SetCookie),
        (&[FRESH, ("vary", "*")], DeclineReason::VaryStar),
        (&[FRESH, ("vary", "cookie")], DeclineReason::VaryCredentials),
    ];
    for (update, reason) in rows {
        let handler = Handler::new(move |_, n| match n {
            1 => answer(200, &[FRESH, ("etag", "\"a\"")], "content"),
            _ => answer(304, update, ""),
        });
        let house = House::new(handler);
        house.get("/").await;
        house.advance(61);
        let exchange = house.get("/").await;
        assert_eq!((exchange.status, exchange.body.as_str(), exchange.has("set-cookie")), (200, "content", false));
        let stats = house.handle.stats();
        assert_eq!((stats.declined_for(reason), stats.storage.entries), (1, 0), "{update:?}");
    }
}

#[tokio::test]
async fn fields_of_one_connection_stay_with_it_whatever_connection_names() {
    let rows: [(Fields, &str, &str); 9] = [
        (&[("connection", "x-a"), ("x-a", "1")], "HIT", "x-a"),
        (&[("connection", "close, X-A ,x-b"), ("x-a", "1"), ("x-b", "1")], "HIT", "x-a"),
        (&[("connection", "not a name, x-a"), ("x-a", "1")], "HIT", "x-a"),
        (&[("connection", "x-b"), ("connection", "x-a"), ("x-a", "1")], "HIT", "x-a"),
        (&[("keep-alive", "timeout=5")], "HIT", "keep-alive"),
        (&[("proxy-authenticate", "Basic")], "HIT", "proxy-authenticate"),
        (&[("transfer-encoding", "chunked")], "HIT", "transfer-encoding"),
        // Without these the stored copy would be something else than what was said.
        (&[("connection", "content-encoding"), ("content-encoding", "br")], "connection-option", ""),
        (&[("connection", "Vary"), ("vary", "accept")], "connection-option", ""),
    ];
    for (fields, expected, dropped) in rows {
        let handler = Handler::new(move |_, _| answer(200, &[&[FRESH], fields].concat(), "a"));
        let house = around(handler, Policy::from_origin());
        assert_eq!(second(&house).await, expected, "{fields:?}");
        if expected == "HIT" {
            let hit = house.get("/").await;
            assert!(!hit.has(dropped) && !hit.has("connection"), "{fields:?}: {hit:?}");
        }
    }
    // What forbids is heard, whoever calls it a matter of the connection.
    let hidden: [(Fields, &str); 3] = [
        (&[("connection", "cache-control"), ("cache-control", "no-store")], "no-store"),
        (&[("connection", "set-cookie"), ("set-cookie", "a=b")], "set-cookie"),
        (&[("connection", "cache-control"), ("cache-control", "must-revalidate")], "connection-option"),
    ];
    for (fields, expected) in hidden {
        let house = around(Handler::new(move |_, _| answer(200, fields, "a")), greedy());
        assert_eq!(second(&house).await, expected, "{fields:?}");
    }
}

/// The types of `http` refuse bytes that would end a field or a head, so no store can hand them over, and no handler say them.
#[test]
fn no_field_can_hold_what_ends_a_field() {
    for byte in (0u8..=0x1f).filter(|b| *b != b'\t').chain([0x7f]) {
        let value = [b'a', byte, b'b'];
        assert!(http::HeaderValue::from_bytes(&value).is_err(), "{byte:#x} in a value");
        assert!(http::HeaderName::from_bytes(&value).is_err(), "{byte:#x} in a name");
    }
}

#[tokio::test]
async fn huge_heads_pass_and_are_not_kept() {
    // One long field, many short ones, many lines of one.
    type Then = fn() -> http::Response<Content>;
    let rows: [(&str, Then, bool); 6] = [
        ("fits", || answer(200, &[FRESH, ("x-a", &"a".repeat(32_000))], ""), true),
        ("long", || answer(200, &[FRESH, ("x-a", &"a".repeat(33_000))], ""), false),
        ("many lines", || answer(200, &[&[FRESH][..], &[("x-a", "a"); 5000]].concat(), ""), false),
        ("many cookies", || answer(200, &[&[FRESH][..], &[("set-cookie", "a=b"); 2000]].concat(), ""), false),
        ("many tags", || answer(200, &[&[FRESH][..], &[("etag", "\"a\""); 5000]].concat(), ""), false),
        (
            "many names",
            || {
                let names: Vec<String> = (0..4000).map(|n| format!("x-{n}")).collect();
                let fields: Vec<_> = [FRESH].into_iter().chain(names.iter().map(|name| (name.as_str(), "a"))).collect();
                answer(200, &fields, "")
            },
            false,
        ),
    ];
    for (why, then, kept) in rows {
        let house = House::new(Handler::new(move |_, _| then()));
        let lines = house.get("/").await.headers.len();
        assert!(lines >= then().headers().len(), "{why}: all of it reaches the client");
        assert_eq!(house.handle.stats().storage.entries, u64::from(kept), "{why}");
        assert_eq!(house.get("/").await.x_cache == "HIT", kept, "{why}");
    }
}

#[tokio::test]
async fn vary_cant_make_a_uri_grow() {
    // Ten thousand values of one field: as many variants as are allowed, and each client has its own answer.
    let handler = Handler::new(|head, _| {
        answer(200, &[FRESH, ("vary", "x-value")], format!("{:?}", head.headers.get("x-value")))
    });
    let house = House::new(handler);
    for n in 0..10_000 {
        let value = n.to_string();
        let exchange = house.ask("/", &[("x-value", &value)]).await;
        assert_eq!(exchange.body, format!("Some({value:?})"));
    }
    let stats = house.handle.stats();
    assert_eq!(stats.storage.entries, 1);
    assert!(stats.storage.bytes < 16 * 2000, "{stats:?}");
    let mut kept = 0;
    for n in (0..10_000).step_by(100).chain(9_900..10_000) {
        let asked = [("x-value", &*n.to_string()), ("cache-control", "only-if-cached")];
        kept += usize::from(house.ask("/", &asked).await.status == 200);
    }
    assert_eq!(kept, 16);
    // Ten thousand names in one `Vary`, in one line and in many.
    let names: Vec<String> = (0..10_000).map(|n| format!("x-{n}")).collect();
    let lines: Vec<(&str, &str)> =
        [FRESH].into_iter().chain(names.iter().map(|name| ("vary", name.as_str()))).collect();
    for fields in [vec![FRESH, ("vary", &*names.join(", "))], lines] {
        let response = answer(200, &fields, "");
        let head = response.headers().clone();
        let handler = Handler::new(move |_, _| {
            let mut response = answer(200, &[], "");
            *response.headers_mut() = head.clone();
            response
        });
        let house = House::with(handler, |layer| layer.max_head_size(usize::MAX));
        assert_eq!(second(&house).await, "vary-star");
    }
}

#[tokio::test]
async fn absurd_times_are_never_an_error_and_never_for_ever() {
    // For how many seconds it is fresh; the clock stands at the first of January 2026.
    let years = 365 * 24 * 60 * 60;
    let rows: [(Fields, u64, u64); 14] = [
        (&[("expires", "0")], 0, 0),
        (&[("expires", "-1")], 0, 0),
        (&[("expires", "never")], 0, 0),
        (&[("expires", "")], 0, 0),
        (&[("expires", "Thu, 01 Jan 1970 00:00:00 GMT")], 0, 0),
        (&[("expires", "Mon, 01 Jan 0001 00:00:00 GMT")], 0, 0),
        (&[("expires", "Fri, 31 Dec 9999 23:59:59 GMT")], 9 * years, u64::MAX),
        (&[("expires", "Sat, 01 Jan 10000 00:00:00 GMT")], 0, 0),
        (&[("expires", "Thu, 99 Foo 2099 99:99:99 GMT")], 0, 0),
        (&[("expires", "Fri, 01 Jan 2027 00:00:00 GMT"), ("expires", "Thu, 01 Jan 1970 00:00:00 GMT")], 0, 0),
        (&[("cache-control", "max-age=18446744073709551615")], 9 * years, u64::MAX),
        (&[("cache-control", "max-age=99999999999999999999999999999")], 9 * years, u64::MAX),
        (
            &[("cache-control", "s-maxage=18446744073709551616, stale-if-error=18446744073709551616")],
            9 * years,
            u64::MAX,
        ),
        (&[("cache-control", "max-age=18446744073709551615"), ("age", "18446744073709551615")], 0, 0),
    ];
    for (fields, at_least, at_most) in rows {
        let house = around(Handler::saying(fields), Policy::from_origin());
        let first = house.get("/").await;
        assert_eq!(first.status, 200, "{fields:?}");
        let fresh = house.get("/").await.x_cache == "HIT";
        assert_eq!(fresh, at_most > 0, "{fields:?}");
        if at_least > 0 {
            house.advance(at_least);
            assert_eq!(house.get("/").await.x_cache, "HIT", "{fields:?}");
            house.advance(u64::from(u32::MAX));
            assert_eq!(house.get("/").await.status, 200, "{fields:?}");
        }
    }
    // A rule's, and a handler's.
    for ttl in [std::time::Duration::MAX, std::time::Duration::from_secs(u64::MAX)] {
        let word = Handler::new(move |_, _| {
            let mut response = answer(200, &[], "a");
            response.extensions_mut().insert(Cached::shared(ttl).stale_while_revalidate(ttl).downstream(ttl));
            response
        });
        let rule = Policy::shared(ttl).stale_if_error(ttl).stale_while_revalidate(ttl).downstream(ttl);
        for house in [House::new(word), around(Handler::saying(&[]), rule)] {
            for x_cache in ["MISS", "HIT"] {
                let exchange = house.get("/").await;
                assert_eq!((exchange.status, exchange.x_cache.as_str()), (200, x_cache));
            }
        }
    }
}

/// What a handler says of the cache's own is not believed by the next.
#[tokio::test]
async fn a_handler_cant_speak_in_the_caches_name() {
    let forged: Fields =
        &[FRESH, ("x-cache", "HIT"), ("x-cache-age", "7"), ("cache-status", "larder; hit"), ("age", "7")];
    let house = House::around(Handler::saying(forged), CacheLayer::in_memory(1 << 20));
    let first = house.get("/").await;
    assert_eq!((first.x_cache.as_str(), first.outcome.unwrap().outcome.as_str()), ("MISS", "MISS"));
    assert!(first.cache_status.ends_with("larder; fwd=uri-miss; stored"), "{}", first.cache_status);
    let hit = house.get("/").await;
    assert_eq!(hit.outcome.unwrap().outcome, Outcome::Hit);
    assert_eq!((hit.x_cache.as_str(), hit.cache_status.as_str()), ("HIT", "larder; hit; ttl=53"));
    assert_eq!((hit.field("age"), hit.field("x-cache-age")), ("7", "7"));
}
