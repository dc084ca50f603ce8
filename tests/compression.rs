//! Compression of stored content: one entry serves every coding, no answer waits for it, and what was purged doesn't come back by it.
#![cfg(all(feature = "gzip", feature = "brotli", feature = "zstd"))]

mod support;

use std::collections::HashMap;
use std::io::Read;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::BodyExt;
use larder::storage::{Query, Storage, StorageUsage, Variants, with_variant};
use larder::{
    CacheKey, CacheLayer, Compression, CompressionStats, Policy, RequestHead, Selector, StorageError, StoredResponse,
};
use support::exchange::*;
use tower::ServiceExt;

const TEXT: (&str, &str) = ("content-type", "text/plain");
const FRESH: (&str, &str) = ("cache-control", "max-age=60");
const V1: (&str, &str) = ("etag", "\"v1\"");

/// Text of some 11,000 bytes, which begins with `n`.
fn text(n: usize) -> String {
    (0..400).map(|line| format!("answer {n} in line {line:03} of 400\n")).collect()
}

/// Bytes that can't be compressed.
fn noise(length: usize) -> Bytes {
    let mut state = 7_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// Answers with [`text`] and these fields.
fn telling(fields: &'static [(&'static str, &'static str)]) -> Handler {
    Handler::new(move |_, n| answer(200, fields, text(n)))
}

fn gzip(handler: Handler) -> House {
    House::with(handler, |layer| layer.compress(Compression::gzip()))
}

/// What a client gets, with the bytes as they are sent.
struct Got {
    status: u16,
    head: HeaderMap,
    bytes: Bytes,
}

impl Got {
    fn field(&self, name: &str) -> String {
        let lines = self.head.get_all(name).iter().map(|line| line.to_str().expect("a text"));
        lines.collect::<Vec<_>>().join(", ")
    }

    /// The content with its coding taken off.
    fn text(&self) -> String {
        String::from_utf8(decoded(&self.field("content-encoding"), &self.bytes)).expect("text")
    }
}

fn decoded(coding: &str, bytes: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    match coding {
        "" => content.extend_from_slice(bytes),
        "gzip" => drop(flate2::read::GzDecoder::new(bytes).read_to_end(&mut content).expect("gzip")),
        "br" => drop(brotli::Decompressor::new(bytes, 4096).read_to_end(&mut content).expect("brotli")),
        "zstd" => content = zstd::stream::decode_all(bytes).expect("zstd"),
        other => panic!("{other}"),
    }
    content
}

async fn got(house: &House, method: &str, target: &str, fields: &[(&str, &str)]) -> Got {
    let response = house.service.clone().oneshot(request(method, target, fields)).await.expect("no failure");
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.expect("a clean end").to_bytes();
    Got { status: parts.status.as_u16(), head: parts.headers, bytes }
}

fn stats(house: &House) -> CompressionStats {
    house.handle.stats().compression
}

/// Asks for `/` as a client that accepts nothing, and waits until what was stored is compressed.
async fn stored(house: &House) -> Got {
    let before = stats(house).done;
    let first = got(house, "GET", "/", &[]).await;
    until(|| stats(house).done > before).await;
    first
}

#[tokio::test]
async fn one_entry_serves_every_coding() {
    for (compression, name) in
        [(Compression::gzip(), "gzip"), (Compression::brotli(), "br"), (Compression::zstd(), "zstd")]
    {
        let house = House::with(telling(&[TEXT, FRESH, V1]), |layer| layer.compress(compression));
        let first = got(&house, "GET", "/", &[("accept-encoding", "gzip, br, zstd")]).await;
        assert_eq!((first.field("x-cache").as_str(), first.field("content-encoding").as_str()), ("MISS", ""));
        assert_eq!((first.field("etag").as_str(), first.field("vary").as_str()), ("\"v1\"", "accept-encoding"));
        until(|| stats(&house).done == 1).await;
        let (one, half) = (name.to_owned(), format!("{name};q=0.5"));
        let rows: &[(Option<String>, bool)] = &[
            (None, false),
            (Some(one.clone()), true),
            (Some("gzip, deflate, br, zstd".into()), true),
            (Some(half.clone()), true),
            (Some("*".into()), true),
            (Some(String::new()), false),
            (Some("identity".into()), false),
            (Some("compress, x-unknown".into()), false),
            (Some(format!("{half}, identity")), false),
            (Some(format!("{one};q=0")), false),
            (Some(format!("{one};q=0, *")), false),
            (Some(format!("{one}, identity;q=0")), true),
            // RFC 9110 §12.5.3: nothing is acceptable; what everybody can read is sent.
            (Some("identity;q=0".into()), false),
            (Some("*;q=0".into()), false),
        ];
        let size = house.handle.stats().storage.bytes;
        for (accept, coded) in rows {
            let fields: Vec<_> = accept.iter().map(|accept| ("accept-encoding", accept.as_str())).collect();
            for method in ["GET", "HEAD"] {
                let hit = got(&house, method, "/", &fields).await;
                let coding = if *coded { name } else { "" };
                let tag = if *coded { format!("\"v1-{name}\"") } else { "\"v1\"".into() };
                assert_eq!((hit.status, hit.field("x-cache").as_str()), (200, "HIT"), "{accept:?}");
                assert_eq!(hit.field("content-encoding"), coding, "{accept:?}");
                assert_eq!((hit.field("etag"), hit.field("vary").as_str()), (tag, "accept-encoding"), "{accept:?}");
                if method == "GET" {
                    assert_eq!(hit.text(), text(1), "{accept:?}");
                    assert!(hit.bytes.len() < 2000 || !coded);
                } else {
                    let length = got(&house, "GET", "/", &fields).await.bytes.len();
                    assert_eq!((hit.field("content-length"), hit.bytes.len()), (length.to_string(), 0), "{accept:?}");
                }
            }
        }
        assert_eq!(house.handler.calls(), 1);
        assert_eq!(house.handle.stats().storage.bytes, size, "a hit changes nothing");
    }
}

#[tokio::test]
async fn memory_is_accounted_as_it_is_used() {
    let house = gzip(telling(&[TEXT, FRESH]));
    got(&house, "GET", "/", &[]).await;
    let before = house.handle.stats().storage.bytes;
    until(|| stats(&house).done == 1).await;
    let counted = stats(&house);
    let length = text(1).len() as u64;
    assert_eq!((counted.plain_bytes, counted.not_worth, counted.skipped), (length, 0, 0));
    assert!(
        counted.ratio() < 0.2
            && counted.coded_bytes == got(&house, "GET", "/", &[("accept-encoding", "gzip")]).await.bytes.len() as u64
    );
    let after = house.handle.stats().storage.bytes;
    let saved = length - counted.coded_bytes;
    assert!(before - after > saved - 100 && before - after <= saved, "{before} {after} {saved}");
    house.handle.purge(Selector::Everything).await.unwrap();
    assert_eq!(house.handle.stats().storage.bytes, 0);
}

/// What a request says beside `Accept-Encoding: gzip`, or with another one; status, tag and coding of the answer.
type Condition = (&'static [(&'static str, &'static str)], u16, &'static str, &'static str);

const GZIP: (&str, &str) = ("accept-encoding", "gzip");

#[tokio::test]
async fn conditions_know_the_tags_of_both_forms() {
    let house = gzip(telling(&[TEXT, FRESH, V1, ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")]));
    stored(&house).await;
    let rows: &[Condition] = &[
        (&[GZIP, ("if-none-match", "\"v1-gzip\"")], 304, "\"v1-gzip\"", ""),
        // The client has the plain form: that is still good, and named.
        (&[GZIP, ("if-none-match", "\"v1\"")], 304, "\"v1\"", ""),
        (&[GZIP, ("if-none-match", "\"x\", W/\"v1-gzip\"")], 304, "\"v1-gzip\"", ""),
        (&[GZIP, ("if-none-match", "\"v1\", \"v1-gzip\"")], 304, "\"v1-gzip\"", ""),
        (&[GZIP, ("if-none-match", "*")], 304, "\"v1-gzip\"", ""),
        (&[GZIP, ("if-none-match", "\"v2\"")], 200, "\"v1-gzip\"", "gzip"),
        (&[GZIP, ("if-none-match", "\"v1-br\"")], 200, "\"v1-gzip\"", "gzip"),
        (&[("if-none-match", "\"v1\"")], 304, "\"v1\"", ""),
        // It has what it doesn't accept.
        (&[("if-none-match", "\"v1-gzip\"")], 200, "\"v1\"", ""),
        (&[("if-none-match", "*")], 304, "\"v1\"", ""),
        (&[("accept-encoding", "gzip, identity;q=0"), ("if-none-match", "\"v1\"")], 200, "\"v1-gzip\"", "gzip"),
        (&[GZIP, ("if-match", "\"v1-gzip\"")], 200, "\"v1-gzip\"", "gzip"),
        (&[GZIP, ("if-match", "\"v1\"")], 200, "\"v1\"", ""),
        (&[GZIP, ("if-match", "\"v2\"")], 412, "", ""),
        (&[("if-match", "\"v1-gzip\"")], 412, "", ""),
        (&[GZIP, ("if-modified-since", "Sun, 06 Nov 1994 08:49:37 GMT")], 304, "\"v1-gzip\"", ""),
        (&[GZIP, ("if-none-match", "\"v2\""), ("if-match", "\"v1\"")], 200, "\"v1\"", ""),
    ];
    for (fields, status, tag, coding) in rows {
        let hit = got(&house, "GET", "/", fields).await;
        assert_eq!((hit.status, hit.field("etag").as_str()), (*status, *tag), "{fields:?}");
        assert_eq!(hit.field("content-encoding"), *coding, "{fields:?}");
        assert_eq!(hit.field("vary"), "accept-encoding", "{fields:?}");
        if hit.status == 200 {
            assert_eq!(hit.text(), text(1));
        }
    }
    assert_eq!(house.handler.calls(), 1);
}

#[tokio::test]
async fn a_tag_is_known_while_the_content_is_not_coded() {
    let house = gzip(telling(&[TEXT, FRESH, V1]));
    // Stored anew, as after an eviction: the client has the coded form from before.
    let miss = got(&house, "GET", "/", &[GZIP, ("if-none-match", "\"v1-gzip\"")]).await;
    assert_eq!(
        (miss.status, miss.field("etag").as_str(), miss.field("x-cache").as_str()),
        (304, "\"v1-gzip\"", "MISS")
    );
    assert_eq!(miss.field("vary"), "accept-encoding");
    for (fields, status, tag) in [
        (&[GZIP, ("if-none-match", "\"v1-gzip\"")][..], 304, "\"v1-gzip\""),
        (&[GZIP, ("if-none-match", "\"v1\"")], 304, "\"v1\""),
        (&[("if-none-match", "\"v1-gzip\"")], 200, "\"v1\""),
        (&[GZIP], 200, "\"v1\""),
    ] {
        // No task of the cache has had its turn yet.
        let hit = got(&house, "GET", "/", fields).await;
        assert_eq!((hit.status, hit.field("etag").as_str(), hit.field("content-encoding").as_str()), (status, tag, ""));
        assert_eq!((hit.field("vary").as_str(), stats(&house).done), ("accept-encoding", 0));
    }
}

#[tokio::test]
async fn weak_tags_and_missing_ones_are_the_same_for_both() {
    for (fields, tag) in [(&[TEXT, FRESH, ("etag", "W/\"v1\"")][..], Some("W/\"v1\"")), (&[TEXT, FRESH], None)] {
        let house = gzip(telling(Box::leak(fields.into())));
        stored(&house).await;
        let (plain, coded) = (got(&house, "GET", "/", &[]).await, got(&house, "GET", "/", &[GZIP]).await);
        assert_eq!(coded.field("content-encoding"), "gzip");
        if let Some(tag) = tag {
            assert_eq!((plain.field("etag").as_str(), coded.field("etag").as_str()), (tag, tag));
        } else {
            // Larder's own tag.
            let own = plain.field("etag");
            assert_eq!(coded.field("etag"), format!("{}-gzip\"", own.trim_end_matches('"')));
        }
        let tag = coded.field("etag");
        assert_eq!(got(&house, "GET", "/", &[GZIP, ("if-none-match", &tag)]).await.status, 304);
    }
}

#[tokio::test]
async fn levels_have_tags_of_their_own() {
    let house = House::with(telling(&[TEXT, FRESH, V1]), |layer| layer.compress(Compression::gzip().level(9)));
    stored(&house).await;
    assert_eq!(got(&house, "GET", "/", &[GZIP]).await.field("etag"), "\"v1-gzip9\"");
}

#[tokio::test]
async fn what_is_left_alone() {
    let plain = text(1);
    let long: &'static str = Box::leak(plain.clone().into_boxed_str());
    type Row = (u16, &'static [(&'static str, &'static str)], &'static str);
    let rows: &[Row] = &[
        (200, &[TEXT, ("cache-control", "max-age=60, no-transform")], long),
        (200, &[TEXT, FRESH, ("content-encoding", "br")], long),
        (200, &[TEXT, FRESH], "too short"),
        (200, &[FRESH, ("content-type", "image/png")], long),
        (200, &[FRESH], long),
        (404, &[TEXT, FRESH], long),
        (200, &[TEXT, FRESH, ("content-digest", "sha-256=:AAAA:")], long),
    ];
    for (status, fields, content) in rows {
        let (status, fields, content) = (*status, *fields, *content);
        let house = gzip(Handler::new(move |_, _| answer(status, fields, content)));
        for expected in ["MISS", "HIT"] {
            let got = got(&house, "GET", "/", &[GZIP]).await;
            quiet().await;
            assert_eq!(
                (got.status, got.field("x-cache").as_str(), &got.bytes[..]),
                (status, expected, content.as_bytes())
            );
            let own = fields.iter().find(|(name, _)| *name == "content-encoding").map_or("", |(_, value)| value);
            assert_eq!((got.field("content-encoding").as_str(), got.field("vary").as_str()), (own, ""), "{fields:?}");
        }
        assert_eq!(stats(&house), CompressionStats::default(), "{fields:?}");
    }
}

#[tokio::test]
async fn what_does_not_shrink_stays_as_it_is() {
    let content = noise(5000);
    let sent = content.clone();
    let fields = [TEXT, FRESH, V1];
    let house = gzip(Handler::new(move |head, _| {
        let status = if head.headers.contains_key("if-none-match") { 304 } else { 200 };
        answer(status, &fields, sent.clone())
    }));
    got(&house, "GET", "/", &[GZIP]).await;
    until(|| stats(&house).not_worth == 1).await;
    let hit = got(&house, "GET", "/", &[GZIP]).await;
    assert_eq!(
        (hit.field("content-encoding").as_str(), hit.field("etag").as_str(), hit.bytes),
        ("", "\"v1\"", content)
    );
    assert_eq!(hit.head["vary"], "accept-encoding");
    // Confirmed, it isn't tried again.
    house.advance(61);
    assert_eq!(got(&house, "GET", "/", &[GZIP]).await.field("x-cache"), "REVALIDATED");
    settled().await;
    assert_eq!((stats(&house).not_worth, stats(&house).skipped, stats(&house).done), (1, 0, 0));
}

#[tokio::test]
async fn size_and_saving_are_as_set() {
    let length = text(1).len();
    for (compression, compressed) in [
        (Compression::gzip().min_size(length), true),
        (Compression::gzip().min_size(length + 1), false),
        (Compression::gzip().min_saving(80), true),
        (Compression::gzip().min_saving(99), false),
    ] {
        let house = House::with(telling(&[TEXT, FRESH]), |layer| layer.compress(compression));
        got(&house, "GET", "/", &[]).await;
        if compressed {
            until(|| stats(&house).done == 1).await;
        } else {
            for _ in 0..100 {
                tokio::task::spawn_blocking(|| ()).await.expect("it does nothing");
            }
            assert_eq!(stats(&house).done, 0, "{compression:?}");
        }
    }
}

#[tokio::test]
async fn handlers_are_asked_for_content_without_coding() {
    let asked = |house: &House| house.handler.last().headers.get("accept-encoding").cloned();
    let house = gzip(telling(&[TEXT, FRESH, ("vary", "Accept-Encoding, Origin")]));
    for accept in ["gzip", "br;q=0.3", "identity;q=0"] {
        let got = got(&house, "GET", "/", &[("accept-encoding", accept)]).await;
        assert_eq!(got.field("vary"), "Accept-Encoding, Origin", "said once");
    }
    assert_eq!((house.handler.calls(), asked(&house).unwrap().to_str().unwrap()), (1, "identity"), "one for all");
    got(&house, "GET", "/", &[("origin", "https://a")]).await;
    assert_eq!(house.handler.calls(), 2, "the other field still tells variants apart");
    // Without compression, the client's own word reaches the handler.
    let off = House::new(telling(&[TEXT, FRESH]));
    got(&off, "GET", "/", &[GZIP]).await;
    assert_eq!(asked(&off).unwrap(), "gzip");
}

#[tokio::test]
async fn what_comes_coded_all_the_same_is_a_variant() {
    let house = gzip(Handler::new(|_, n| answer(200, &[TEXT, FRESH, ("content-encoding", "br")], text(n))));
    for (accept, calls) in [("br", 1), ("br", 1), ("gzip", 2), ("br", 2)] {
        let got = got(&house, "GET", "/", &[("accept-encoding", accept)]).await;
        assert_eq!((house.handler.calls(), got.field("content-encoding").as_str()), (calls, "br"));
    }
    quiet().await;
    assert_eq!(stats(&house), CompressionStats::default());
}

#[tokio::test]
async fn a_handler_that_has_nothing_without_coding_is_asked_otherwise() {
    let handler = || {
        Handler::new(|head, _| match head.headers.get("accept-encoding") {
            Some(accept) if accept == "identity" => answer(406, &[FRESH], "no"),
            _ => answer(200, &[TEXT, FRESH, ("content-encoding", "gzip"), ("vary", "accept-encoding")], "as asked"),
        })
    };
    for strict in [false, true] {
        let house = House::with(handler(), |layer| {
            let layer = layer.compress(Compression::gzip());
            if strict { layer.strict_rfc() } else { layer }
        });
        assert_eq!(got(&house, "GET", "/", &[GZIP]).await.status, 406, "nobody could know");
        for expected in ["MISS", "HIT"] {
            let got = got(&house, "GET", "/", &[GZIP]).await;
            assert_eq!((got.status, got.field("x-cache").as_str()), (200, expected), "not stored, and not again");
        }
    }
}

#[tokio::test]
async fn ranges_are_of_the_form_that_the_client_has() {
    let house = gzip(telling(&[TEXT, FRESH, V1, ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")]));
    stored(&house).await;
    let coded = got(&house, "GET", "/", &[GZIP]).await.bytes;
    let plain = Bytes::from(text(1));
    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    for (fields, of_coded, status) in [
        // Nothing says which: what everybody can read.
        (&[GZIP][..], false, 206),
        (&[], false, 206),
        (&[GZIP, ("if-range", "\"v1\"")], false, 206),
        (&[("if-range", "\"v1\"")], false, 206),
        (&[GZIP, ("if-range", "\"v1-gzip\"")], true, 206),
        (&[("accept-encoding", "gzip, identity;q=0")], true, 206),
        // It has a part of what it doesn't accept, or of something else: the whole, in the form that is most welcome.
        (&[("if-range", "\"v1-gzip\"")], false, 200),
        (&[GZIP, ("if-range", "\"v2\"")], true, 200),
        // A date is that of both forms.
        (&[GZIP, ("if-range", DATE)], true, 200),
        (&[("if-range", DATE)], false, 206),
    ] {
        let whole = if of_coded { &coded } else { &plain };
        for (range, part) in
            [("bytes=100-199", 100..200), ("bytes=-7", whole.len() - 7..whole.len()), ("bytes=5-", 5..whole.len())]
        {
            let fields = [fields, &[("range", range)]].concat();
            let hit = got(&house, "GET", "/", &fields).await;
            let (expected, range) = match status {
                206 => (whole.slice(part.clone()), format!("bytes {}-{}/{}", part.start, part.end - 1, whole.len())),
                _ => (whole.clone(), String::new()),
            };
            assert_eq!((hit.status, hit.field("content-range")), (status, range), "{fields:?}");
            assert_eq!(hit.bytes, expected, "{fields:?}");
            let (tag, coding) = if of_coded { ("\"v1-gzip\"", "gzip") } else { ("\"v1\"", "") };
            assert_eq!(
                (hit.field("etag").as_str(), hit.field("content-encoding").as_str()),
                (tag, coding),
                "{fields:?}"
            );
            assert_eq!(hit.field("vary"), "accept-encoding");
        }
    }
    let outside = got(&house, "GET", "/", &[("range", "bytes=20000-")]).await;
    assert_eq!((outside.status, outside.field("content-range")), (416, format!("bytes */{}", plain.len())));
    assert_eq!(house.handler.calls(), 1);
}

#[tokio::test]
async fn large_content_is_decoded_in_pieces() {
    let content: String = (0..40_000).map(|line| format!("this is line {line}\n")).collect();
    let sent = content.clone();
    let house = House::with(Handler::new(move |_, _| answer(200, &[TEXT, FRESH], sent.clone())), |layer| {
        layer.compress(Compression::gzip())
    });
    stored(&house).await;
    let mut body = house.service.clone().oneshot(get("/")).await.unwrap().into_body();
    assert_eq!(http_body::Body::size_hint(&body).exact(), Some(content.len() as u64));
    let mut all = Vec::new();
    while let Some(frame) = body.frame().await {
        let piece = frame.unwrap().into_data().unwrap();
        assert!(piece.len() <= 64 << 10);
        all.extend_from_slice(&piece);
    }
    assert!(all == content.as_bytes());
    let part = got(&house, "GET", "/", &[("range", "bytes=500000-500099")]).await;
    assert!(part.bytes == content.as_bytes()[500_000..500_100]);
}

/// Confirms what it is asked about, if it is asked by its own tag.
fn confirming(update: &'static [(&'static str, &'static str)]) -> Handler {
    Handler::new(move |head, n| match head.headers.get("if-none-match") {
        Some(tag) if tag == "\"v1\"" => answer(304, update, ""),
        Some(other) => panic!("that is not the handler's tag: {other:?}"),
        None => answer(200, &[TEXT, FRESH, V1], text(n)),
    })
}

#[tokio::test]
async fn a_confirmation_keeps_what_is_compressed() {
    let house = gzip(confirming(&[FRESH, V1, ("x-new", "1")]));
    stored(&house).await;
    for accept in [&[GZIP][..], &[]] {
        house.advance(61);
        let got = got(&house, "GET", "/", accept).await;
        assert_eq!((got.field("x-cache").as_str(), got.text()), ("REVALIDATED", text(1)));
        assert_eq!((got.field("x-new").as_str(), got.field("vary").as_str()), ("1", "accept-encoding"));
        assert_eq!(got.field("content-encoding"), if accept.is_empty() { "" } else { "gzip" });
    }
    assert_eq!((stats(&house).done, house.handler.calls()), (1, 3), "not compressed again");
}

#[tokio::test]
async fn a_confirmation_may_forbid_it() {
    let house = gzip(confirming(&[("cache-control", "max-age=60, no-transform")]));
    stored(&house).await;
    house.advance(61);
    for expected in ["REVALIDATED", "HIT"] {
        let got = got(&house, "GET", "/", &[GZIP]).await;
        assert_eq!((got.field("x-cache").as_str(), got.text()), (expected, text(1)));
        assert_eq!(
            (got.field("content-encoding").as_str(), got.field("etag").as_str(), got.field("vary").as_str()),
            ("", "\"v1\"", "")
        );
    }
}

#[tokio::test]
async fn the_same_content_stored_anew_has_the_same_tags() {
    let house = gzip(Handler::new(|_, _| answer(200, &[TEXT, FRESH], text(0))));
    stored(&house).await;
    // Larder's own `Last-Modified` goes out after two seconds.
    house.advance(2);
    let before = got(&house, "GET", "/", &[GZIP]).await;
    house.advance(61);
    stored(&house).await;
    let after = got(&house, "GET", "/", &[GZIP]).await;
    assert_eq!(house.handler.calls(), 2);
    assert_eq!(
        (before.field("etag"), before.field("last-modified")),
        (after.field("etag"), after.field("last-modified"))
    );
    assert!(before.bytes == after.bytes, "and the same bytes");
}

/// A store that isn't in memory, as far as the cache knows.
#[derive(Default)]
struct Elsewhere(Arc<Mutex<HashMap<CacheKey, Variants>>>);

impl Elsewhere {
    fn all(&self) -> std::sync::MutexGuard<'_, HashMap<CacheKey, Variants>> {
        self.0.lock().expect("no holder panics")
    }
}

impl Storage for Elsewhere {
    async fn get(&self, query: Query<'_>) -> Result<Variants, StorageError> {
        Ok(self.all().get(query.key).cloned().unwrap_or_default())
    }

    async fn put(&self, key: &CacheKey, response: Arc<StoredResponse>, most: usize) -> Result<(), StorageError> {
        let mut all = self.all();
        let old = all.remove(key).unwrap_or_default();
        all.insert(key.clone(), with_variant(&old, response, most));
        Ok(())
    }

    async fn remove(&self, key: &CacheKey) -> Result<bool, StorageError> {
        Ok(self.all().remove(key).is_some())
    }

    async fn clear(&self) -> Result<(), StorageError> {
        self.all().clear();
        Ok(())
    }

    fn usage(&self) -> StorageUsage {
        StorageUsage::new(self.all().len() as u64, 0, 0)
    }
}

fn both_stores() -> [CacheLayer; 2] {
    [CacheLayer::in_memory(1 << 20), CacheLayer::with_storage(Elsewhere::default())]
        .map(|layer| layer.compress(Compression::gzip()))
}

#[tokio::test]
async fn another_store_gets_it_compressed_as_well() {
    for layer in both_stores() {
        let house = House::around(telling(&[TEXT, FRESH, V1]), layer);
        stored(&house).await;
        quiet().await;
        for (fields, coding) in [(&[GZIP][..], "gzip"), (&[], "")] {
            let got = got(&house, "GET", "/", fields).await;
            assert_eq!(
                (got.field("x-cache").as_str(), got.field("content-encoding").as_str(), got.text()),
                ("HIT", coding, text(1))
            );
        }
    }
}

/// What happens while the content of `/` is waiting to be compressed.
type Meanwhile = fn(House) -> futures_util::future::BoxFuture<'static, ()>;

/// Runs `test` where nothing is compressed before it drops what it is given.
fn with_busy_coders<F: Future<Output = ()>>(test: impl FnOnce(std::sync::mpsc::Sender<()>) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().expect("a runtime");
    runtime.block_on(async {
        let (release, held) = std::sync::mpsc::channel();
        drop(tokio::task::spawn_blocking(move || held.recv()));
        test(release).await;
    });
}

/// Lets all that was begun come to its end.
async fn settled() {
    for _ in 0..20 {
        quiet().await;
        tokio::task::spawn_blocking(|| ()).await.expect("it does nothing");
    }
}

#[test]
fn nothing_comes_back_that_went_while_it_was_compressed() {
    let meanwhile: [(&str, Meanwhile); 4] = [
        ("a purge of the URI", |house| {
            Box::pin(async move { _ = house.handle.purge(Selector::Uri("http://example.com/".into())).await.unwrap() })
        }),
        ("a purge of all hosts", |house| {
            Box::pin(async move { _ = house.handle.purge(Selector::Uri("/".into())).await.unwrap() })
        }),
        ("a purge of everything", |house| {
            Box::pin(async move { _ = house.handle.purge(Selector::Everything).await.unwrap() })
        }),
        ("a write", |house| Box::pin(async move { drop(got(&house, "POST", "/", &[]).await) })),
    ];
    for (what, meanwhile) in meanwhile {
        for layer in both_stores() {
            with_busy_coders(|busy| async move {
                let house = House::around(telling(&[TEXT, FRESH]), layer);
                got(&house, "GET", "/", &[]).await;
                quiet().await;
                meanwhile(house.clone()).await;
                let calls = house.handler.calls();
                drop(busy);
                settled().await;
                assert_eq!(stats(&house).done, 0, "{what}");
                let got = got(&house, "GET", "/", &[]).await;
                assert_eq!((got.field("x-cache").as_str(), got.text()), ("MISS", text(calls + 1)), "{what}");
            });
        }
    }
}

#[test]
fn what_is_newer_is_not_replaced_by_what_was_compressed() {
    // Another store hears of what was compressed too late, and keeps what is newer.
    for (layer, expected) in both_stores().into_iter().zip([(1, 1), (2, 0)]) {
        with_busy_coders(|busy| async move {
            let house = House::around(telling(&[TEXT, FRESH]), layer);
            got(&house, "GET", "/", &[]).await;
            quiet().await;
            house.advance(1);
            let newer = got(&house, "GET", "/", &[("cache-control", "no-cache")]).await;
            assert_eq!(newer.text(), text(2));
            drop(busy);
            settled().await;
            for fields in [&[GZIP][..], &[]] {
                assert_eq!(got(&house, "GET", "/", fields).await.text(), text(2));
            }
            assert_eq!((stats(&house).done, stats(&house).skipped), expected);
        });
    }
}

#[tokio::test]
async fn it_is_switched_while_the_cache_runs() {
    let off = || CacheLayer::in_memory(1 << 20);
    let house = House::around(telling(&[TEXT, FRESH, V1]), off());
    let first = got(&house, "GET", "/a", &[GZIP]).await;
    assert_eq!(first.field("vary"), "");
    let said = house.handle.reconfigure(&off().compress(Compression::gzip())).unwrap();
    assert_eq!(said.to_string(), "compression: coding none -> gzip");
    let as_before = got(&house, "GET", "/a", &[GZIP]).await;
    assert_eq!(
        (
            as_before.field("x-cache").as_str(),
            as_before.field("content-encoding").as_str(),
            as_before.field("vary").as_str()
        ),
        ("HIT", "", "")
    );
    got(&house, "GET", "/b", &[]).await;
    until(|| stats(&house).done == 1).await;
    house.handle.reconfigure(&off()).unwrap();
    // What is compressed stays so, and goes to everybody.
    for (fields, coding) in [(&[GZIP][..], "gzip"), (&[], "")] {
        let hit = got(&house, "GET", "/b", fields).await;
        assert_eq!(
            (hit.field("x-cache").as_str(), hit.field("content-encoding").as_str(), hit.text()),
            ("HIT", coding, text(2))
        );
    }
    // A change of other terms judges it anew, and leaves its form.
    house.handle.reconfigure(&off().heuristics(true).x_cache_age(false)).unwrap();
    for (fields, coding, tag) in [(&[GZIP][..], "gzip", "\"v1-gzip\""), (&[], "", "\"v1\"")] {
        let hit = got(&house, "GET", "/b", fields).await;
        assert_eq!(
            (hit.field("x-cache").as_str(), hit.field("content-encoding").as_str(), hit.text()),
            ("HIT", coding, text(2))
        );
        assert_eq!((hit.field("etag").as_str(), hit.field("vary").as_str()), (tag, "accept-encoding"));
    }
    house.advance(61);
    let anew = got(&house, "GET", "/b", &[GZIP]).await;
    assert_eq!((anew.field("x-cache").as_str(), anew.field("vary").as_str()), ("MISS", ""));
    assert_eq!(house.handler.last().headers["accept-encoding"], "gzip");
}

#[tokio::test]
async fn a_quota_counts_what_is_really_stored() {
    let user = |request: &RequestHead<'_>| Some(request.headers.get("x-user")?.as_bytes().to_vec());
    let policy = Policy::per(user, MINUTE).quota(20_000, 100);
    let house = House::with(telling(&[TEXT]), |layer| layer.otherwise(policy.clone()).compress(Compression::gzip()));
    for n in 1..=4_u64 {
        got(&house, "GET", &format!("/{n}"), &[("x-user", "me")]).await;
        until(|| stats(&house).done == n).await;
    }
    assert_eq!(house.handle.stats().quota_evictions, 0, "one alone takes more than half of the quota uncompressed");
    for n in 1..=4 {
        let hit = got(&house, "GET", &format!("/{n}"), &[("x-user", "me")]).await;
        assert_eq!((hit.field("x-cache").as_str(), hit.text()), ("HIT", text(n)));
    }
    house.handle.purge(Selector::Partition(b"me".to_vec())).await.unwrap();
    assert_eq!((house.handle.stats().storage.entries, house.handle.stats().partitions), (0, 0));
}

#[tokio::test]
async fn a_shutdown_leaves_nothing_waiting() {
    let house = gzip(telling(&[TEXT, FRESH]));
    got(&house, "GET", "/", &[]).await;
    assert!(house.handle.shutdown(MINUTE).await);
    assert_eq!(got(&house, "GET", "/", &[]).await.text(), text(1), "it answers as before");
}

#[test]
fn more_than_can_wait_is_not_compressed_and_is_counted() {
    with_busy_coders(|busy| async move {
        // Of 32 MiB that may wait, each takes more than half.
        let content = Bytes::from("much of the same ".repeat(1 << 20));
        let handler = Handler::new(move |_, _| answer(200, &[TEXT, FRESH, V1], content.clone()));
        let layer = CacheLayer::in_memory(1 << 30).max_body_size(64 << 20).eager_etag_size(64 << 20);
        let house = House::around(handler, layer.compress(Compression::gzip().level(1)));
        for path in ["/a", "/b"] {
            assert_eq!(got(&house, "GET", path, &[]).await.field("x-cache"), "MISS");
        }
        assert_eq!((stats(&house).skipped, house.handle.stats().stored), (1, 2));
        drop(busy);
        until(|| stats(&house).done == 1).await;
        for (path, coding) in [("/a", "gzip"), ("/b", "")] {
            let hit = got(&house, "GET", path, &[GZIP]).await;
            assert_eq!((hit.field("x-cache").as_str(), hit.field("content-encoding").as_str()), ("HIT", coding));
        }
        // There is room again.
        got(&house, "GET", "/c", &[]).await;
        until(|| stats(&house).done == 2).await;
    });
}

#[tokio::test]
async fn answers_to_head_say_what_those_to_get_do() {
    let house = gzip(telling(&[TEXT, FRESH, V1]));
    let head = got(&house, "HEAD", "/", &[GZIP]).await;
    assert_eq!((head.field("x-cache").as_str(), head.field("vary").as_str()), ("MISS", "accept-encoding"));
    stored(&house).await;
    house.advance(61);
    // The handler's answer agrees with what is stored: that counts as confirmed, whatever its form.
    let confirming = got(&house, "HEAD", "/", &[GZIP]).await;
    assert_eq!(confirming.status, 200);
    let hit = got(&house, "GET", "/", &[GZIP]).await;
    assert_eq!((hit.field("x-cache").as_str(), hit.field("content-encoding").as_str()), ("HIT", "gzip"));
}
