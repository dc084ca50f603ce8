//! Layers that change or choose content: compression, decompression, files. What is promised inside and outside of the cache.

mod support;

use std::io::{Read, Write};

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::Request;
use http_body_util::BodyExt;
use larder::{CacheLayer, Policy};
use support::exchange::MINUTE;
use support::neighbours::*;
use tower::ServiceExt;
use tower_http::compression::CompressionLayer;
use tower_http::decompression::{DecompressionLayer, RequestDecompressionLayer};
use tower_http::services::{ServeDir, ServeFile};

const GZIP: (&str, &str) = ("accept-encoding", "gzip");

fn text() -> String {
    "content that is worth its compression ".repeat(40)
}

/// A route that always answers the same, with these fields.
fn page(count: &Count, fields: &'static [(&'static str, &'static str)]) -> Router {
    let count = count.clone();
    let answer = move || async move {
        count.up();
        let mut response = http::Response::new(Body::from(text()));
        for (name, value) in fields {
            response.headers_mut().insert(*name, http::HeaderValue::from_static(value));
        }
        response.headers_mut().insert("content-type", http::HeaderValue::from_static("text/plain"));
        response
    };
    Router::new().route("/", get(answer))
}

fn gunzipped(coded: &[u8]) -> String {
    let mut text = String::new();
    GzDecoder::new(coded).read_to_string(&mut text).expect("gzip, and once only");
    text
}

fn gzipped(text: &str) -> Vec<u8> {
    let mut coder = GzEncoder::new(Vec::new(), Compression::default());
    coder.write_all(text.as_bytes()).and_then(|()| coder.finish()).expect("a Vec takes all")
}

/// `X-Cache`, `Content-Encoding`, `ETag`, and the content with its coding taken off.
async fn fetch(app: &Router, path: &str, fields: &[(&str, &str)]) -> (String, String, String, String) {
    let request = support::exchange::request("GET", path, fields).map(|_| Body::empty());
    let response: http::Response<Body> = app.clone().oneshot(request).await.expect("no layer fails");
    let (parts, body) = response.into_parts();
    let content = body.collect().await.expect("a clean end").to_bytes();
    let field = |name: &str| parts.headers.get(name).map_or("", |value| value.to_str().expect("a text")).to_owned();
    let coding = field("content-encoding");
    let text = if coding == "gzip" { gunzipped(&content) } else { String::from_utf8_lossy(&content).into_owned() };
    (field("x-cache"), coding, field("etag"), text)
}

/// Compression inside: compressed answers are stored, one variant for each `Accept-Encoding`, with `ETag`s of larder's own that differ.
#[tokio::test]
async fn compression_inside_is_stored_once_for_each_coding() {
    let count = Count::default();
    let app = page(&count, &[]).layer(CompressionLayer::new()).layer(vouched());
    let mut tags = Vec::new();
    for expected in MISS_HIT {
        for (fields, coding) in [(&[GZIP][..], "gzip"), (&[], "")] {
            let got = fetch(&app, "/", fields).await;
            assert_eq!((got.0.as_str(), got.1.as_str(), &got.3), (expected, coding, &text()));
            if expected == "HIT" {
                tags.push(got.2);
            }
        }
    }
    assert!(tags[0].ends_with("-gzip\"") && tags[0] != tags[1], "{tags:?}");
    assert_eq!(count.get(), 2);
    assert_eq!(get_from(&app, "/", &[GZIP]).await.field("vary"), "accept-encoding");
    // Each coding is confirmed by its own tag, and by no other.
    for (fields, own, other) in [(&[GZIP][..], 0, 1), (&[], 1, 0)] {
        let with = |tag: usize| [fields, &[("if-none-match", tags[tag].as_str())]].concat();
        assert_eq!(get_from(&app, "/", &with(own)).await.status, 304);
        assert_eq!(get_from(&app, "/", &with(other)).await.status, 200);
    }
}

/// Compression outside: one entry for every coding, compressed anew for each answer; what the cache says stays.
#[tokio::test]
async fn compression_outside_has_one_entry_and_compresses_each_answer() {
    let count = Count::default();
    let cache = vouched();
    let app = page(&count, &[("etag", "\"v1\"")]).layer(cache.clone()).layer(CompressionLayer::new());
    assert_eq!(fetch(&app, "/", &[GZIP]).await.0, "MISS");
    for (fields, coding) in [(&[GZIP][..], "gzip"), (&[], ""), (&[GZIP], "gzip")] {
        let got = fetch(&app, "/", fields).await;
        assert_eq!((got.0.as_str(), got.1.as_str(), &got.3), ("HIT", coding, &text()));
    }
    assert_eq!((count.get(), cache.handle().stats().stored), (1, 1));
    let confirmed = get_from(&app, "/", &[GZIP, ("if-none-match", "\"v1\"")]).await;
    assert_eq!((confirmed.status, confirmed.body.as_str()), (304, ""));
    // A part is of the uncoded content, so it isn't compressed.
    let part = fetch(&app, "/", &[GZIP, ("range", "bytes=0-6")]).await;
    assert_eq!((part.1.as_str(), part.3.as_str()), ("", "content"));
}

/// Compression on both sides: what is compressed isn't compressed again.
#[tokio::test]
async fn compression_inside_and_outside_compresses_once() {
    let app =
        page(&Count::default(), &[]).layer(CompressionLayer::new()).layer(vouched()).layer(CompressionLayer::new());
    for expected in MISS_HIT {
        for (fields, coding) in [(&[GZIP][..], "gzip"), (&[], "")] {
            let got = fetch(&app, "/", fields).await;
            assert_eq!((got.0.as_str(), got.1.as_str(), got.3), (expected, coding, text()));
        }
    }
}

/// A handler that says `no-transform` or codes its answer itself is served as it spoke, in both orders.
#[tokio::test]
async fn a_handlers_own_coding_is_kept() {
    let own = || {
        let coded = gzipped(&text());
        let answer = || async move {
            ([("content-encoding", "gzip"), ("vary", "accept-encoding"), ("content-type", "text/plain")], coded)
        };
        Router::new().route("/", get(answer))
    };
    let inside = own().layer(CompressionLayer::new()).layer(vouched());
    let outside = own().layer(vouched()).layer(CompressionLayer::new());
    for app in [inside, outside] {
        for expected in MISS_HIT {
            let got = fetch(&app, "/", &[GZIP]).await;
            assert_eq!((got.0.as_str(), got.1.as_str(), got.3), (expected, "gzip", text()));
        }
    }
}

/// An answer that is coded and doesn't say on what that depends goes to nobody who asks with another `Accept-Encoding`.
#[tokio::test]
async fn a_coded_answer_that_does_not_vary_is_kept_apart_all_the_same() {
    async fn careless(request: Request<Body>) -> http::Response<Body> {
        if request.headers().contains_key("accept-encoding") {
            let response = http::Response::builder().header("content-encoding", "gzip");
            return response.body(Body::from(gzipped(&text()))).expect("a response");
        }
        http::Response::new(Body::from(text()))
    }
    let app = Router::new().route("/", get(careless)).layer(vouched());
    for expected in MISS_HIT {
        let got = fetch(&app, "/", &[GZIP]).await;
        assert_eq!((got.0.as_str(), got.1.as_str()), (expected, "gzip"));
    }
    let plain = fetch(&app, "/", &[]).await;
    assert_eq!((plain.0.as_str(), plain.1.as_str(), plain.3), ("MISS", "", text()));
}

/// Decompression of a client inside, as in a proxy: the client is asked for gzip, the store has the plain text for everybody who asks alike.
/// Outside: the store keeps what is compressed, and the layer takes the coding off each answer.
#[tokio::test]
async fn decompression_inside_and_outside_gives_plain_text() {
    let count = Count::default();
    let inside = page(&count, &[]).layer(CompressionLayer::new()).layer(DecompressionLayer::new()).layer(vouched());
    let cache = vouched();
    let outside =
        page(&count, &[]).layer(CompressionLayer::new()).layer(cache.clone()).layer(DecompressionLayer::new());
    for app in [inside, outside] {
        for expected in MISS_HIT {
            let got = fetch(&app, "/", &[]).await;
            assert_eq!((got.0.as_str(), got.1.as_str(), got.3), (expected, "", text()));
        }
    }
    assert_eq!(count.get(), 2);
    assert!(cache.handle().stats().storage.bytes < text().len() as u64, "outside of the cache: gzip is stored");
}

/// Requests whose content a layer decompresses are writes, and pass in both orders.
#[tokio::test]
async fn decompressed_requests_pass() {
    let echo = || Router::new().route("/", axum::routing::post(|text: String| async move { text }));
    let inside = echo().layer(RequestDecompressionLayer::new()).layer(vouched());
    let outside = echo().layer(vouched()).layer(RequestDecompressionLayer::new());
    for app in [inside, outside] {
        let request = Request::post("/").header("content-encoding", "gzip").body(Body::from(gzipped("hello")));
        let response: http::Response<Body> = app.oneshot(request.expect("a request")).await.expect("no layer fails");
        assert_eq!(response.headers()["x-cache"], "BYPASS");
        assert_eq!(response.into_body().collect().await.expect("a clean end").to_bytes(), "hello");
    }
}

/// A directory with `page.txt` and its compressed twin, which is deleted in the end.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("larder-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        std::fs::write(path.join("page.txt"), text()).expect("a file");
        std::fs::write(path.join("page.txt.gz"), gzipped(&text())).expect("a file");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// `ServeDir` inside evaluates conditions and ranges itself. It is given the first range, and its answer tells that the whole fits; from then on
/// the cache evaluates both, of the whole that it stores, on requests that fill it as on all others.
#[tokio::test]
async fn conditions_and_ranges_of_files_are_evaluated_by_the_cache() {
    let folder = Folder::new("ranges");
    let files = Router::new().fallback_service(ServeDir::new(&folder.0)).layer(vouched());
    for stored in ["detail=status", "stored"] {
        let part = get_from(&files, "/page.txt", &[("range", "bytes=8-11")]).await;
        assert_eq!((part.status, part.body.as_str(), part.x_cache.as_str()), (206, "that", "MISS"));
        assert_eq!(part.field("content-range"), format!("bytes 8-11/{}", text().len()));
        assert_eq!(part.cache_status, format!("larder; fwd=uri-miss; {stored}"));
    }
    let future = [("if-modified-since", "Fri, 01 Jan 2100 00:00:00 GMT")];
    let unchanged = get_from(&files, "/page.txt.gz", &future).await;
    assert_eq!((unchanged.status, unchanged.cache_status.as_str()), (304, "larder; fwd=uri-miss; stored"));
    // The rest is read behind the answer.
    let whole = loop {
        let whole = get_from(&files, "/page.txt", &[]).await;
        if whole.x_cache == "HIT" {
            break whole;
        }
    };
    assert_eq!(whole.body, text());
    let part = get_from(&files, "/page.txt", &[("range", "bytes=0-6")]).await;
    assert_eq!((part.status, part.body.as_str(), part.x_cache.as_str()), (206, "content", "HIT"));
    let beyond = get_from(&files, "/page.txt", &[("range", "bytes=99999-")]).await;
    assert_eq!((beyond.status, beyond.x_cache.as_str()), (416, "HIT"));
    for condition in [("if-none-match", whole.field("etag")), ("if-modified-since", whole.field("last-modified"))] {
        let same = get_from(&files, "/page.txt", &[condition]).await;
        assert_eq!((same.status, same.x_cache.as_str()), (304, "HIT"), "{condition:?}");
    }
    assert_eq!(get_from(&files, "/nothing.txt", &[]).await.cache_status, "larder; fwd=uri-miss; detail=no-freshness");
}

/// Without a TTL nothing says that the whole is worth having: `ServeDir` answers the range, and its 206 passes.
#[tokio::test]
async fn ranges_of_files_that_are_not_cached_are_answered_by_the_service() {
    let folder = Folder::new("uncached");
    let files = Router::new().fallback_service(ServeDir::new(&folder.0)).layer(CacheLayer::in_memory(1 << 20));
    for _ in 0..2 {
        let part = get_from(&files, "/page.txt", &[("range", "bytes=8-11")]).await;
        assert_eq!((part.status, part.body.as_str(), part.x_cache.as_str()), (206, "that", "MISS"));
    }
}

/// Precompressed files: chosen by `Accept-Encoding`, which `ServeDir` doesn't say. Nobody gets a coding that they didn't ask for.
#[tokio::test]
async fn precompressed_files_reach_only_who_accepts_them() {
    let folder = Folder::new("precompressed");
    let files = ServeDir::new(&folder.0).precompressed_gzip();
    let app = Router::new().fallback_service(files).layer(vouched());
    for expected in MISS_HIT {
        let got = fetch(&app, "/page.txt", &[GZIP]).await;
        assert_eq!((got.0.as_str(), got.1.as_str(), got.3), (expected, "gzip", text()));
    }
    for expected in MISS_HIT {
        let got = fetch(&app, "/page.txt", &[]).await;
        assert_eq!((got.0.as_str(), got.1.as_str(), got.3), (expected, "", text()));
    }
}

/// Outside of `ServeDir`'s fallback or in it, a single file, with compression between: one test for the forms that sites use.
#[tokio::test]
async fn a_single_page_application_is_served_from_the_store() {
    let folder = Folder::new("spa");
    let files = ServeDir::new(&folder.0).fallback(ServeFile::new(folder.0.join("page.txt")));
    let cache = CacheLayer::in_memory(1 << 20).rule("^/api/", Policy::bypass()).otherwise(Policy::shared(MINUTE));
    let app = Router::new()
        .route("/api/x", get(|| async { "live" }))
        .fallback_service(files)
        .layer(CompressionLayer::new())
        .layer(cache);
    for expected in MISS_HIT {
        for path in ["/page.txt", "/a/view"] {
            let got = fetch(&app, path, &[GZIP]).await;
            assert_eq!((got.0.as_str(), got.1.as_str(), got.3), (expected, "gzip", text()), "{path}");
        }
    }
    assert_eq!(get_from(&app, "/api/x", &[]).await.x_cache, "BYPASS");
}

/// With stored compression, a compressing layer inside has nothing to do: handlers are asked for content without coding, and one entry serves
/// everybody. One outside compresses what isn't coded yet, and leaves alone what is.
#[cfg(feature = "gzip")]
#[tokio::test]
async fn stored_compression_needs_no_layer_inside_and_lets_one_outside_be() {
    for outside in [false, true] {
        let count = Count::default();
        let cache = vouched().compress(larder::Compression::gzip());
        let app = page(&count, &[("etag", "\"v1\"")]).layer(CompressionLayer::new()).layer(cache.clone());
        let app = if outside { app.layer(CompressionLayer::new()) } else { app };
        let miss = fetch(&app, "/", &[GZIP]).await;
        let coding = if outside { "gzip" } else { "" };
        assert_eq!((miss.0.as_str(), miss.1.as_str(), miss.3), ("MISS", coding, text()));
        support::exchange::until(|| cache.handle().stats().compression.done == 1).await;
        for (fields, coding, tag) in [(&[GZIP][..], "gzip", "\"v1-gzip\""), (&[], "", "\"v1\"")] {
            let hit = fetch(&app, "/", fields).await;
            assert_eq!((hit.0.as_str(), hit.1.as_str(), hit.2.as_str(), hit.3), ("HIT", coding, tag, text()));
            let vary = get_from(&app, "/", fields).await.field("vary").to_owned();
            assert_eq!(vary.to_ascii_lowercase(), "accept-encoding", "once");
        }
        assert_eq!(count.get(), 1);
    }
}
