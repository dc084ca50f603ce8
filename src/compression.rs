//! [`Compression`]: whether stored content is compressed, how, and which.

use http::{HeaderMap, HeaderName, StatusCode, header};

use crate::rfc9111::coding::Coding;
use crate::rfc9111::directives::ResponseDirectives;
use crate::rfc9111::targeted;

/// How stored content is compressed; [off](Self::off) by default.
///
/// A response is stored as it came, and compressed behind the answer, by few threads at a time. One entry then serves every client: who accepts the coding gets
/// the stored bytes, anybody else gets them decoded on the way.
///
/// Compressed are only 200 responses of a type that is text or nearly so, of at least [`min_size`](Self::min_size) bytes, that have no `Content-Encoding`
/// of their own and don't say `no-transform` (RFC 9111 §5.2.2.6); and they stay so only where that saves at least [`min_saving`](Self::min_saving) percent.
///
/// ```
/// # #[cfg(feature = "gzip")] {
/// use larder::{CacheLayer, Compression};
/// let cache = CacheLayer::in_memory(256 << 20).compress(Compression::gzip().level(9).min_size(4 << 10));
/// # drop(cache);
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Compression {
    pub(crate) coding: Option<Coding>,
    /// `None` is the default of the coding.
    pub(crate) level: Option<u8>,
    pub(crate) min_size: usize,
    pub(crate) min_saving: u8,
}

/// What decides on the bytes that content has when it is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Coder {
    pub(crate) coding: Coding,
    /// `None` is the default of the coding.
    pub(crate) level: Option<u8>,
}

impl Default for Compression {
    fn default() -> Self {
        Self::off()
    }
}

impl Compression {
    /// No compression. What is compressed already stays so, and is served.
    pub const fn off() -> Self {
        Self { coding: None, level: None, min_size: 1 << 10, min_saving: 10 }
    }

    /// With gzip (RFC 1952), which every client can read; level 6 by default.
    #[cfg(feature = "gzip")]
    pub const fn gzip() -> Self {
        Self::with(Coding::Gzip)
    }

    /// With Brotli (RFC 7932); level 5 by default.
    #[cfg(feature = "brotli")]
    pub const fn brotli() -> Self {
        Self::with(Coding::Brotli)
    }

    /// With Zstandard (RFC 8878); level 3 by default.
    #[cfg(feature = "zstd")]
    pub const fn zstd() -> Self {
        Self::with(Coding::Zstd)
    }

    #[cfg(any(feature = "gzip", feature = "brotli", feature = "zstd"))]
    pub(crate) const fn with(coding: Coding) -> Self {
        Self { coding: Some(coding), ..Self::off() }
    }

    /// How hard to try: 0 to 9 for gzip, 0 to 11 for Brotli, 1 to 22 for Zstandard; what is beyond counts as the nearest of these.
    pub const fn level(mut self, level: u8) -> Self {
        self.level = Some(level);
        self
    }

    /// The smallest content that is compressed, in bytes; 1 KiB by default.
    pub const fn min_size(mut self, bytes: usize) -> Self {
        self.min_size = bytes;
        self
    }

    /// How much of the content has to be saved so that it is worth decoding it for some, in percent; more than 10 by default.
    pub const fn min_saving(mut self, percent: u8) -> Self {
        self.min_saving = percent;
        self
    }

    pub(crate) const fn is_on(&self) -> bool {
        self.coding.is_some()
    }

    /// Whether a response that came without coding may go out coded as well, as far as its head tells.
    pub(crate) fn suits(
        &self,
        status: StatusCode,
        head: &HeaderMap,
        announced: Option<u64>,
        targets: &[HeaderName],
    ) -> bool {
        self.is_on()
            && status == StatusCode::OK
            // Longer content than a stored form has room to say isn't for a cache in memory.
            && announced.is_none_or(|length| length >= self.min_size as u64 && length <= u64::from(u32::MAX))
            && !head.contains_key(header::CONTENT_ENCODING)
            && !head.contains_key(header::CONTENT_RANGE)
            && !NAMES_BYTES.iter().any(|name| head.contains_key(name))
            && head.get(header::CONTENT_TYPE).is_some_and(|value| is_compressible(value.as_bytes()))
            && !ResponseDirectives::parse(head).no_transform
            && !targeted::directives(head, targets).0.no_transform
    }

    /// Whether content of `plain` bytes that takes `coded` bytes coded is worth it.
    pub(crate) fn is_worth(&self, plain: usize, coded: usize) -> bool {
        (coded as u128) * 100 < (plain as u128) * u128::from(100_u8.saturating_sub(self.min_saving))
    }
}

/// Fields that speak of the bytes as they are sent: coded, they would be wrong (RFC 9530).
const NAMES_BYTES: [HeaderName; 4] = [
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
];

/// Types that are text, or compress like text, beside `text/*` and what ends in `+json`, `+xml` or `+text`.
const COMPRESSIBLE: [&str; 21] = [
    "application/json",
    "application/javascript",
    "application/ecmascript",
    "application/x-javascript",
    "application/xml",
    "application/xml-dtd",
    "application/wasm",
    "application/graphql",
    "application/manifest",
    "application/toml",
    "application/yaml",
    "application/x-yaml",
    "application/ndjson",
    "application/x-ndjson",
    "application/jsonl",
    "application/rtf",
    "application/x-www-form-urlencoded",
    "application/vnd.ms-fontobject",
    "font/ttf",
    "font/otf",
    "image/bmp",
];

/// Whether content of this type is worth trying.
fn is_compressible(content_type: &[u8]) -> bool {
    let Ok(value) = std::str::from_utf8(content_type) else { return false };
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        // It has no end, and nobody waits for it to be compressed.
        "text/event-stream" => false,
        text if text.starts_with("text/") => true,
        other if ["+json", "+xml", "+text"].iter().any(|suffix| other.ends_with(suffix)) => true,
        other => COMPRESSIBLE.contains(&other),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const ON: Compression = Compression { coding: Some(Coding::Gzip), ..Compression::off() };

    fn head(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut head = HeaderMap::new();
        for (name, value) in fields {
            head.append(*name, HeaderValue::from_static(value));
        }
        head
    }

    #[test]
    fn types() {
        for yes in [
            "text/html; charset=utf-8",
            "TEXT/Plain",
            "application/json",
            "application/problem+json;charset=utf-8",
            "application/xhtml+xml",
            "image/svg+xml",
            "application/wasm",
            "font/ttf",
        ] {
            assert!(is_compressible(yes.as_bytes()), "{yes}");
        }
        for no in [
            "text/event-stream",
            "image/png",
            "font/woff2",
            "application/octet-stream",
            "multipart/byteranges",
            "json",
            "",
        ] {
            assert!(!is_compressible(no.as_bytes()), "{no}");
        }
    }

    #[test]
    fn responses() {
        const TEXT: (&str, &str) = ("content-type", "text/plain");
        type Row = (u16, &'static [(&'static str, &'static str)], Option<u64>, bool);
        let rows: &[Row] = &[
            (200, &[TEXT], Some(1024), true),
            (200, &[TEXT], None, true),
            (200, &[TEXT], Some(1023), false),
            (200, &[TEXT], Some(1 << 40), false),
            (404, &[TEXT], Some(4096), false),
            (200, &[("content-type", "image/png")], Some(4096), false),
            (200, &[], Some(4096), false),
            // RFC 9111 §5.2.2.6
            (200, &[TEXT, ("cache-control", "max-age=60, No-Transform")], Some(4096), false),
            (200, &[TEXT, ("cdn-cache-control", "no-transform")], Some(4096), false),
            (200, &[TEXT, ("content-encoding", "br")], Some(4096), false),
            (200, &[TEXT, ("content-range", "bytes 0-1/2")], Some(4096), false),
            (200, &[TEXT, ("content-digest", "sha-256=:AAAA:")], Some(4096), false),
        ];
        let targets = [HeaderName::from_static("cdn-cache-control")];
        for (status, fields, length, expected) in rows {
            let status = StatusCode::from_u16(*status).unwrap();
            assert_eq!(ON.suits(status, &head(fields), *length, &targets), *expected, "{status} {fields:?} {length:?}");
            assert!(!Compression::off().suits(status, &head(fields), *length, &targets));
        }
    }

    #[test]
    fn what_is_worth_it() {
        for (coded, expected) in [(0, true), (899, true), (900, false), (1000, false), (1100, false)] {
            assert_eq!(ON.is_worth(1000, coded), expected, "{coded}");
        }
        assert!(!ON.min_saving(100).is_worth(1000, 0) && ON.min_saving(0).is_worth(1000, 999));
        assert!(!ON.min_saving(0).is_worth(1000, 1000), "never where it grows");
    }
}
