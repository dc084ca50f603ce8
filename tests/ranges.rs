//! Ranges: parts of a stored whole are what was asked for and nothing else, and a range that misses costs the handler no more than it must.

mod support;

use bytes::Bytes;
use http::request::Parts;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use larder::{DeclineReason, Policy};
use support::bodies;
use support::exchange::*;
use support::sockets::{serve, talk};

type Fields = &'static [(&'static str, &'static str)];

const FRESH: (&str, &str) = ("cache-control", "max-age=60");
/// One hour before the clock's start.
const MODIFIED: &str = "Wed, 31 Dec 2025 23:00:00 GMT";
const BEFORE: &str = "Wed, 31 Dec 2025 22:59:59 GMT";

/// A thousand bytes, of which each tells where it stands.
fn thousand() -> String {
    (0..250).map(|n| format!("{n:03};")).collect()
}

/// Stores `content`, with what conditions and ranges need and what must not go out with a part.
async fn filled(content: impl Fn() -> String + Send + Sync + 'static, more: Fields) -> House {
    let house = House::new(Handler::new(move |_, _| {
        let fields = [FRESH, ("etag", "\"a\""), ("last-modified", MODIFIED), ("content-type", "text/plain")];
        answer(200, &[&fields[..], more].concat(), content())
    }));
    house.get("/").await;
    house
}

#[tokio::test]
async fn ranges_of_what_is_stored() {
    let whole = (200, "", "0123456789");
    let rows: [(Fields, (u16, &str, &str)); 24] = [
        (&[("range", "bytes=0-3")], (206, "bytes 0-3/10", "0123")),
        (&[("range", "bytes=8-")], (206, "bytes 8-9/10", "89")),
        (&[("range", "bytes=-2")], (206, "bytes 8-9/10", "89")),
        (&[("range", "bytes=-99")], (206, "bytes 0-9/10", "0123456789")),
        (&[("range", "bytes=3-99")], (206, "bytes 3-9/10", "3456789")),
        (&[("range", "bytes=10-")], (416, "bytes */10", "")),
        (&[("range", "bytes=-0")], (416, "bytes */10", "")),
        (&[("range", "bytes=10-,-0,99-100")], (416, "bytes */10", "")),
        // RFC 9110 §15.3.7.2: what is close together is one part; §14.2: what lies outside is left out
        (&[("range", "bytes=0-0,5-5")], (206, "bytes 0-5/10", "012345")),
        (&[("range", "bytes=20-,5-5")], (206, "bytes 5-5/10", "5")),
        (&[("range", "bytes=5-3")], whole),
        (&[("range", "bytes=0-0,5-3")], whole),
        (&[("range", "lines=1-2")], whole),
        (&[("range", "bytes=0-0"), ("range", "bytes=1-1")], whole),
        // §13.1.5
        (&[("range", "bytes=0-0"), ("if-range", "\"a\"")], (206, "bytes 0-0/10", "0")),
        (&[("range", "bytes=0-0"), ("if-range", "\"b\"")], whole),
        (&[("range", "bytes=0-0"), ("if-range", "W/\"a\"")], whole),
        (&[("range", "bytes=10-"), ("if-range", "\"b\"")], whole),
        (&[("range", "bytes=10-"), ("if-range", "\"a\"")], (416, "bytes */10", "")),
        (&[("range", "bytes=0-0"), ("if-range", MODIFIED)], (206, "bytes 0-0/10", "0")),
        (&[("range", "bytes=0-0"), ("if-range", BEFORE)], whole),
        (&[("if-range", "\"b\"")], whole),
        (&[("range", "bytes=0-0"), ("if-none-match", "\"a\"")], (304, "", "")),
        (&[("range", "bytes=0-0"), ("if-match", "\"b\"")], (412, "", "")),
    ];
    let house = filled(|| "0123456789".into(), &[]).await;
    for (asked, expected) in rows {
        let exchange = house.ask("/", asked).await;
        let got = (exchange.status, exchange.field("content-range"), exchange.body.as_str());
        assert_eq!(got, expected, "{asked:?}");
        assert_eq!(exchange.x_cache, "HIT", "{asked:?}");
    }
    assert_eq!(house.handler.calls(), 1);
}

/// RFC 9110 §8.8.2.2: within the second that a `Last-Modified` names, the content might have changed twice.
#[tokio::test]
async fn a_date_that_is_too_young_is_no_strong_validator() {
    for (modified, status) in [("Thu, 01 Jan 2026 00:00:00 GMT", 200), ("Wed, 31 Dec 2025 23:59:59 GMT", 206)] {
        let house = House::new(Handler::new(move |_, _| {
            answer(200, &[FRESH, ("date", "Thu, 01 Jan 2026 00:00:00 GMT"), ("last-modified", modified)], "0123456789")
        }));
        house.get("/").await;
        house.advance(10);
        let exchange = house.ask("/", &[("range", "bytes=0-0"), ("if-range", modified)]).await;
        assert_eq!((exchange.status, exchange.x_cache.as_str()), (status, "HIT"), "{modified}");
    }
}

/// RFC 9110 §15.3.7: what a 200 would have said, less what is true of the whole content only.
#[tokio::test]
async fn the_head_of_a_part_describes_the_part() {
    let digests: Fields = &[
        ("content-digest", "sha-256=:YQ==:"),
        ("content-md5", "YQ=="),
        ("repr-digest", "sha-256=:YQ==:"),
        ("content-range", "bytes 0-1/2"),
        ("vary", "accept"),
        ("content-location", "/other"),
        ("expires", "Fri, 02 Jan 2026 00:00:00 GMT"),
    ];
    let house = filled(thousand, digests).await;
    for (range, is_there) in [("bytes=4-6", true), ("bytes=0-0,999-", true), ("bytes=1000-", false)] {
        let part = house.ask("/", &[("range", range)]).await;
        for name in ["content-digest", "content-md5", "content-length"] {
            assert!(!part.has(name), "{range}: {name}");
        }
        for name in ["etag", "last-modified", "cache-control", "expires", "content-type"] {
            assert_eq!(part.has(name), is_there, "{range}: {name}");
        }
        for name in ["date", "vary", "content-location", "repr-digest"] {
            assert!(part.has(name), "{range}: {name}");
        }
    }
    assert!(house.get("/").await.has("content-digest"));
}

/// The parts of a `multipart/byteranges` as (type, range, content).
fn parts(exchange: &Exchange) -> Vec<(String, String, String)> {
    let content_type = exchange.field("content-type");
    let boundary = content_type.strip_prefix("multipart/byteranges; boundary=").expect("several parts");
    assert!(!exchange.has("content-range"), "which part is which stands in the parts");
    let (open, end) = (format!("--{boundary}\r\n"), format!("\r\n--{boundary}--\r\n"));
    let inner = exchange.body.strip_prefix(&open).expect("it begins").strip_suffix(&end).expect("it ends");
    inner
        .split(&format!("\r\n{open}"))
        .map(|part| {
            let (head, content) = part.split_once("\r\n\r\n").expect("a head");
            let mut fields = head.split("\r\n").map(|line| line.split_once(": ").expect("a field").1.to_owned());
            (fields.next().expect("a type"), fields.next().expect("a range"), content.to_owned())
        })
        .collect()
}

#[tokio::test]
async fn several_ranges_get_several_parts_in_the_order_asked_for() {
    let house = filled(thousand, &[]).await;
    let rows: [(&str, &[&str]); 4] = [
        ("bytes=0-2,500-502", &["0-2", "500-502"]),
        ("bytes=-3, 0-0, 400-410, 2000-", &["997-999", "0-0", "400-410"]),
        ("bytes=600-699,0-9,690-799", &["600-799", "0-9"]),
        // Sixteen, and no more.
        ("bytes=0-0,900-", &["0-0", "900-999"]),
    ];
    for (asked, expected) in rows {
        let exchange = house.ask("/", &[("range", asked), ("if-range", "\"a\"")]).await;
        assert_eq!(
            (exchange.status, exchange.x_cache.as_str(), exchange.field("etag")),
            (206, "HIT", "\"a\""),
            "{asked}"
        );
        let expected: Vec<_> = expected
            .iter()
            .map(|range| {
                let (first, last) = range.split_once('-').expect("a range");
                let place = first.parse::<usize>().unwrap()..=last.parse::<usize>().unwrap();
                ("text/plain".to_owned(), format!("bytes {range}/1000"), thousand()[place].to_owned())
            })
            .collect();
        assert_eq!(parts(&exchange), expected, "{asked}");
    }
    assert_eq!(house.handler.calls(), 1);
}

/// RFC 9110 §17.15: what little was asked for must not become much, nor many pieces of work.
#[tokio::test]
async fn ranges_cant_be_used_to_ask_for_more_than_the_whole() {
    let house = filled(|| thousand().repeat(8), &[]).await;
    let spread = |n: usize| (0..n).map(|i| format!("{0}-{0}", i * 400)).collect::<Vec<_>>().join(",");
    let rows = [
        (spread(16), 206, 16),
        (spread(17), 200, 0),
        ("0-,".repeat(1000), 200, 0),
        // Overlapping ones are one part, and no byte is sent twice.
        ("0-,".repeat(16), 206, 1),
        ("0-99,50-149,100-199,150-249".into(), 206, 1),
    ];
    for (ranges, status, count) in rows {
        let exchange = house.ask("/", &[("range", &format!("bytes={ranges}"))]).await;
        assert_eq!(exchange.status, status, "{ranges}");
        if count > 1 {
            assert_eq!(parts(&exchange).len(), count, "{ranges}");
        }
        assert!(exchange.body.len() <= 8000 + 200, "{ranges}");
    }
}

/// A server frames the answer by its length, which is that of what is sent.
#[tokio::test]
async fn several_parts_over_a_socket_have_their_own_length() {
    let setup = bodies::around(bodies::Handler::new(|_, _| bodies::fresh(bodies::whole(thousand()))));
    setup.get("/").await;
    let address = serve(setup.service.clone()).await;
    let request = "GET / HTTP/1.1\r\nhost: larder.test\r\nrange: bytes=0-0,-1\r\nconnection: close\r\n\r\n";
    let response = talk(address, request).await;
    let (head, content) = response.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 206 Partial Content\r\n"), "{head}");
    assert!(head.contains(&format!("\r\ncontent-length: {}", content.len())), "{head}");
}

/// A handler that knows ranges: of ten digits, with these fields more.
fn knows_ranges(more: Fields) -> Handler {
    Handler::new(move |head, _| {
        let fields = [&[FRESH, ("etag", "\"a\"")], more].concat();
        let is_first = head.headers.get("range").is_some_and(|range| range == "bytes=0-1");
        if is_first && head.headers.get("if-range").is_none_or(|tag| tag == "\"a\"") {
            return answer(206, &[&fields[..], &[("content-range", "bytes 0-1/10")]].concat(), "01");
        }
        let length = if head.method == "HEAD" { &[("content-length", "10")][..] } else { &[] };
        answer(200, &[&fields[..], length].concat(), if head.method == "HEAD" { "" } else { "0123456789" })
    })
}

/// The ranges that the handler was asked for; empty where it was asked for the whole.
fn saw(house: &House) -> String {
    house.handler.last().headers.get("range").map_or(String::new(), |range| range.to_str().expect("a text").to_owned())
}

const FIRST: (&str, &str) = ("range", "bytes=0-1");

#[tokio::test]
async fn a_range_that_misses_is_forwarded_until_the_whole_is_known_to_fit() {
    for shared in [false, true] {
        let house =
            House::with(
                knows_ranges(&[]),
                |layer| {
                    if shared { layer.otherwise(Policy::shared(MINUTE)) } else { layer }
                },
            );
        let conditions = [FIRST, ("if-range", "\"a\""), ("if-match", "\"a\""), ("if-none-match", "\"b\"")];
        let part = house.ask("/", &conditions).await;
        assert_eq!((part.status, part.body.as_str(), part.field("content-range")), (206, "01", "bytes 0-1/10"));
        assert_eq!(part.cache_status, "larder; fwd=uri-miss; detail=status");
        let seen = house.handler.last().headers;
        assert!(conditions.iter().all(|(name, value)| seen[*name] == *value), "all as the client sent it: {seen:?}");
        // Its answer has told that the whole would be stored, and how long it is.
        for x_cache in ["MISS", "HIT"] {
            let part = house.ask("/", &[FIRST]).await;
            let got = (part.status, part.body.as_str(), part.field("content-range"), part.x_cache.as_str());
            assert_eq!(got, (206, "01", "bytes 0-1/10", x_cache));
            assert_eq!(saw(&house), "");
        }
        assert_eq!(house.get("/").await.body, "0123456789");
        assert_eq!(house.handler.calls(), 2);
    }
}

#[tokio::test]
async fn what_says_nothing_of_a_whole_that_fits_leaves_ranges_to_the_handler() {
    let rows: [(&str, u16, Fields); 12] = [
        ("not to be stored", 206, &[("cache-control", "no-store"), ("content-range", "bytes 0-1/10")]),
        ("not fresh", 206, &[("content-range", "bytes 0-1/10")]),
        ("for one user", 206, &[FRESH, ("set-cookie", "a=b"), ("content-range", "bytes 0-1/10")]),
        ("too large", 206, &[FRESH, ("content-range", "bytes 0-1/21")]),
        ("of unknown size", 206, &[FRESH, ("content-range", "bytes 0-1/*")]),
        // What contradicts itself is believed in nothing.
        ("no range", 206, &[FRESH]),
        ("malformed", 206, &[FRESH, ("content-range", "bytes 0-1")]),
        ("two", 206, &[FRESH, ("content-range", "bytes 0-1/10"), ("content-range", "bytes 0-1/12")]),
        ("outside", 206, &[FRESH, ("content-range", "bytes 9-10/10")]),
        ("another length", 206, &[FRESH, ("content-range", "bytes 0-1/10"), ("content-length", "3")]),
        ("several", 206, &[FRESH, ("content-type", "multipart/byteranges; boundary=x")]),
        ("unsatisfiable", 416, &[FRESH, ("content-range", "bytes */10")]),
    ];
    for (why, status, fields) in rows {
        let handler = Handler::new(move |_, _| answer(status, fields, "01"));
        let house = House::with(handler, |layer| layer.max_body_size(20));
        for n in 1..=3 {
            let part = house.ask("/", &[FIRST]).await;
            assert_eq!((part.status, part.body.as_str(), part.x_cache.as_str()), (status, "01", "MISS"), "{why}");
            assert_eq!((saw(&house).as_str(), house.handler.calls()), ("bytes=0-1", n), "{why}");
        }
        assert_eq!(house.handle.stats().storage.entries, 0, "{why}");
    }
}

/// A part is never stored, and destroys nothing that is, whatever it says of itself.
#[tokio::test]
async fn a_part_takes_no_whole_away() {
    let rows: [Fields; 4] = [
        &[FRESH, ("content-range", "bytes 0-1/10")],
        &[FRESH, ("etag", "\"b\""), ("content-range", "bytes 0-1/12")],
        &[FRESH, ("content-range", "bytes 9-1/1")],
        &[("cache-control", "no-store")],
    ];
    for fields in rows {
        let house = House::new(Handler::new(move |head, _| {
            let is_known = head.headers.contains_key("if-none-match");
            match head.headers.get("x-part") {
                Some(_) => answer(206, fields, "01"),
                None if is_known => answer(304, &[FRESH, ("etag", "\"a\"")], ""),
                None => answer(200, &[FRESH, ("etag", "\"a\"")], "0123456789"),
            }
        }));
        house.get("/").await;
        let part = house.ask("/", &[FIRST, ("cache-control", "no-cache"), ("x-part", "1")]).await;
        assert_eq!((part.status, part.body.as_str()), (206, "01"), "{fields:?}");
        assert_eq!((house.get("/").await.body.as_str(), house.get("/").await.x_cache.as_str()), ("0123456789", "HIT"));
        house.advance(61);
        house.ask("/", &[FIRST, ("x-part", "1")]).await;
        assert_eq!(house.get("/").await.x_cache, "REVALIDATED", "{fields:?}: stale, and still there");
        assert_eq!(house.handle.stats().declined_for(DeclineReason::Status), 2, "{fields:?}");
    }
}

#[tokio::test]
async fn something_stale_of_the_same_key_is_validated_whole_if_it_fits() {
    let handler = || {
        Handler::new(|head: &Parts, _| match head.headers.get("if-none-match") {
            Some(_) => answer(304, &[FRESH, ("etag", "\"a\"")], ""),
            None => answer(200, &[FRESH, ("etag", "\"a\"")], "0123456789"),
        })
    };
    let house = House::new(handler());
    house.get("/").await;
    house.advance(61);
    let part = house.ask("/", &[FIRST, ("if-range", "\"a\"")]).await;
    assert_eq!((part.status, part.body.as_str(), part.x_cache.as_str()), (206, "01", "REVALIDATED"));
    let seen = house.handler.last().headers;
    assert!(!seen.contains_key("range") && !seen.contains_key("if-range") && seen["if-none-match"] == "\"a\"");

    // Limits that were lowered since: it would not be stored again.
    let house = House::new(handler());
    house.get("/").await;
    house.advance(61);
    let lowered = larder::CacheLayer::in_memory(1 << 20).max_body_size(5);
    house.handle.reconfigure(&lowered).expect("the same store");
    house.ask("/", &[FIRST]).await;
    assert_eq!(saw(&house), "bytes=0-1");
}

#[tokio::test]
async fn a_head_tells_that_the_whole_fits_and_a_whole_that_doesnt_is_forgotten() {
    let house = House::new(knows_ranges(&[]));
    house.exchange(request("HEAD", "/", &[])).await;
    assert_eq!((house.ask("/", &[FIRST]).await.body.as_str(), saw(&house).as_str()), ("01", ""));

    // What the head announced was wrong: the whole is too large, or may not be stored.
    let rows: [(Fields, &str); 2] =
        [(&[FRESH], "0123456789 and more"), (&[("cache-control", "no-store")], "0123456789")];
    for (fields, content) in rows {
        for announces in [true, false] {
            let house = House::with(
                Handler::new(move |head, _| match head.method.as_str() {
                    "HEAD" => answer(200, &[FRESH, ("content-length", "10")], ""),
                    _ if announces => answer(200, fields, content),
                    _ => {
                        let mut whole = answer(200, fields, "");
                        let frames = [Ok::<_, Failure>(http_body::Frame::data(content.into()))];
                        let stream = http_body_util::StreamBody::new(futures_util::stream::iter(frames));
                        *whole.body_mut() = http_body_util::BodyExt::boxed(stream);
                        whole
                    }
                }),
                |layer| layer.max_body_size(12).eager_etag_size(0),
            );
            house.exchange(request("HEAD", "/", &[])).await;
            for range in ["", "bytes=0-1"] {
                house.ask("/", &[FIRST]).await;
                assert_eq!(saw(&house), range, "{fields:?} {announces}");
            }
        }
    }
}

/// RFC 9111 §5.2.1.5: what a request with `no-store` brings isn't stored, so it is never worth the whole.
#[tokio::test]
async fn who_wants_nothing_stored_gets_no_more_than_asked_for() {
    let house = House::new(knows_ranges(&[]));
    for _ in 0..3 {
        house.ask("/", &[FIRST, ("cache-control", "no-store")]).await;
        assert_eq!(saw(&house), "bytes=0-1");
    }
    house.exchange(request("HEAD", "/", &[])).await;
    house.ask("/", &[FIRST, ("cache-control", "no-store")]).await;
    assert_eq!(saw(&house), "bytes=0-1");
}

/// A refresh behind a stale answer has no client that wants a part.
#[tokio::test]
async fn a_refresh_asks_for_the_whole() {
    let house = House::with(
        Handler::new(|_, n| {
            answer(200, &[("cache-control", "max-age=60, stale-while-revalidate=60")], format!("answer {n}"))
        }),
        |layer| layer,
    );
    house.get("/").await;
    house.advance(61);
    let part = house.ask("/", &[("range", "bytes=0-5")]).await;
    assert_eq!((part.status, part.body.as_str(), part.x_cache.as_str()), (206, "answer", "STALE"));
    quiet().await;
    assert_eq!(saw(&house), "");
    assert_eq!(house.get("/").await.body, "answer 2");
    // Also of what is too large by now, so that a range that misses would be forwarded.
    house.advance(61);
    house.handle.reconfigure(&larder::CacheLayer::in_memory(1 << 20).max_body_size(5)).expect("the same store");
    assert_eq!(house.ask("/", &[("range", "bytes=0-5")]).await.x_cache, "STALE");
    quiet().await;
    assert_eq!((house.handler.calls(), saw(&house).as_str()), (3, ""));
}

/// A part of the handler's own passes with the trailers behind it, over HTTP/1.1 and HTTP/2.
#[tokio::test]
async fn a_forwarded_part_passes_with_its_trailers() {
    let setup = bodies::around(bodies::Handler::new(|_, _| {
        let content = bodies::stream([bodies::data("01"), bodies::trailers("x-checksum", "42")]);
        let fields = [("cache-control", "max-age=60"), ("content-range", "bytes 0-1/10"), ("trailer", "x-checksum")];
        let mut part = bodies::answer(&fields, content);
        *part.status_mut() = http::StatusCode::PARTIAL_CONTENT;
        part
    }));
    let address = serve(setup.service.clone()).await;
    let request =
        "GET / HTTP/1.1\r\nhost: larder.test\r\nrange: bytes=0-1\r\nte: trailers\r\nconnection: te, close\r\n\r\n";
    let response = talk(address, request).await;
    assert!(
        response.starts_with("HTTP/1.1 206 ") && response.contains("\r\ncontent-range: bytes 0-1/10\r\n"),
        "{response}"
    );
    assert!(response.ends_with("2\r\n01\r\n0\r\nx-checksum: 42\r\n\r\n"), "{response}");

    let http2 = Client::builder(TokioExecutor::new()).http2_only(true).build_http::<Empty<Bytes>>();
    let request = http::Request::get(format!("http://{address}/other")).header("range", "bytes=0-1");
    let response = http2.request(request.body(Empty::new()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 206);
    let collected = response.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().expect("trailers")["x-checksum"], "42");
    assert_eq!(collected.to_bytes(), "01");
}

/// Of content that only passes, several parts would have to be kept until it is their turn: the client gets the whole (RFC 9110 §14.2).
#[tokio::test]
async fn several_ranges_of_a_stream_get_the_whole() {
    let content = "0123456789".repeat(100);
    let setup = bodies::set_up(
        bodies::Handler::new(move |_, _| {
            let fields = [("cache-control", "max-age=60"), ("content-length", "1000")];
            bodies::answer(&fields, bodies::stream([bodies::data(content.clone())]))
        }),
        |layer| layer.eager_etag_size(0),
    );
    let several = [("range", "bytes=0-0,900-")];
    let got = bodies::read(setup.send(bodies::get_with("/", &several)).await).await;
    assert_eq!((got.status.as_u16(), got.content.len()), (200, 1000));
    bodies::settle().await;
    let got = bodies::read(setup.send(bodies::get_with("/", &several)).await).await;
    assert_eq!((got.status.as_u16(), got.x_cache.as_str()), (206, "HIT"));
    assert!(got.content.len() < 500);
}
