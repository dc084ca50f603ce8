//! The handler that every subject has: ten fields and a content, without any work. Bare, it is the limit that caches are held against.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderName, HeaderValue, Request, Response, header};
use http_body_util::Full;

use crate::content;
use crate::setup::{Setup, Values};

/// When a response was made, in milliseconds since 1970.
pub const MADE: HeaderName = HeaderName::from_static("x-made");
/// The fields of every answer beside `ETag`, and beside `Cache-Control`, which the setup says.
pub const FIELDS: [(&str, &str); 8] = [
    ("content-type", "application/json"),
    ("content-language", "en"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("strict-transport-security", "max-age=31536000"),
    ("vary", "accept-encoding"),
    ("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT"),
];

#[derive(Clone)]
pub struct Handler(Arc<Inner>);

struct Inner {
    fields: Vec<(HeaderName, HeaderValue)>,
    contents: Contents,
    size: usize,
    delay: Duration,
    stamped: bool,
    calls: AtomicU64,
}

enum Contents {
    /// In memory of its own each, with its validator.
    Held(Vec<Held>),
    /// Of any key, made when it is asked for, or without any memory for it.
    Any { rendered: bool },
}

struct Held {
    body: Bytes,
    /// Coded ahead: a constant.
    gzip: Option<Bytes>,
    etag: HeaderValue,
}

impl Handler {
    /// Answers from constants: as many contents as the setup has keys. It neither waits nor says when an answer was made.
    pub fn of_constants(setup: &Setup) -> Self {
        let held = (0..setup.keys).map(|key| {
            let body = content::own_body(key, setup.size);
            let gzip = setup.gzip.then(|| gzipped(&body));
            Held { body, gzip, etag: content::etag(key, setup.size) }
        });
        let setup = Setup { delay_ms: 0, stamped: false, ..setup.clone() };
        Self::new(&setup, Contents::Held(held.collect()))
    }

    /// Answers for any key. For an answer it formats the validator and copies the content, and waits, as the setup says.
    pub fn of_any_key(setup: &Setup) -> Self {
        Self::new(setup, Contents::Any { rendered: setup.rendered })
    }

    fn new(setup: &Setup, contents: Contents) -> Self {
        let value = |text: &'static str| match setup.values {
            Values::Owned => HeaderValue::from_str(text).expect("visible characters"),
            Values::Static => HeaderValue::from_static(text),
        };
        let mut fields: Vec<_> =
            FIELDS.iter().map(|(name, text)| (HeaderName::from_static(name), value(text))).collect();
        let cache_control = HeaderValue::from_str(&setup.cache_control()).expect("visible characters");
        fields.push((header::CACHE_CONTROL, cache_control));
        let delay = Duration::from_millis(setup.delay_ms);
        Self(Arc::new(Inner { fields, contents, size: setup.size, delay, stamped: setup.stamped, calls: 0.into() }))
    }

    /// How often it was called.
    pub fn calls(&self) -> u64 {
        self.0.calls.load(Ordering::Relaxed)
    }

    pub async fn answer<B>(&self, request: Request<B>) -> Response<Full<Bytes>> {
        let inner = &*self.0;
        if !inner.delay.is_zero() {
            tokio::time::sleep(inner.delay).await;
        }
        inner.calls.fetch_add(1, Ordering::Relaxed);
        let key: u64 = request.uri().path().rsplit('/').next().and_then(|key| key.parse().ok()).unwrap_or(0);
        let (body, etag, coded) = match &inner.contents {
            Contents::Any { rendered } => {
                let body = if *rendered { content::own_body } else { content::body };
                (body(key, inner.size), content::etag(key, inner.size), false)
            }
            Contents::Held(held) => {
                let held = &held[(key % held.len() as u64) as usize];
                match held.gzip.as_ref().filter(|_| takes_gzip(&request)) {
                    Some(gzip) => (gzip.clone(), held.etag.clone(), true),
                    None => (held.body.clone(), held.etag.clone(), false),
                }
            }
        };
        let mut response = Response::new(Full::new(body));
        let headers = response.headers_mut();
        for (name, value) in &inner.fields {
            headers.insert(name.clone(), value.clone());
        }
        headers.insert(header::ETAG, etag);
        if coded {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        if inner.stamped {
            headers.insert(MADE, HeaderValue::from(milliseconds()));
        }
        response
    }
}

/// Since 1970.
pub fn milliseconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn takes_gzip<B>(request: &Request<B>) -> bool {
    request.headers().get(header::ACCEPT_ENCODING).is_some_and(|value| value.as_bytes().starts_with(b"gzip"))
}

fn gzipped(body: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
    encoder.write_all(body).expect("memory takes whatever is written");
    encoder.finish().expect("memory takes whatever is written").into()
}
