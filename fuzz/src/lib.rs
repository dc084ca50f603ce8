//! What the fuzz targets assert. Each module has one `check`, which takes any bytes and panics where a promise is broken.
//!
//! Inputs are text, cut into lines, so that seeds and findings can be read, but for `records`; they are the same functions that
//! `tests/fuzz_seeds.rs` runs on a stable compiler.

pub mod codings;
#[cfg(feature = "config")]
pub mod configuration;
pub mod dates;
pub mod directives;
pub mod etags;
pub mod keys;
pub mod ranges;
pub mod records;
pub mod references;
pub mod requests;
pub mod targeted;
pub mod vary;

/// Without the feature, there is nothing to check.
#[cfg(not(feature = "config"))]
pub mod configuration {
    pub fn check(_: &[u8]) {}
}

use http::{HeaderMap, HeaderName, HeaderValue};

/// One target's assertions.
pub type Check = fn(&[u8]);

/// All targets by name: that of the binary, of the folder of its seeds, and of its module.
pub const TARGETS: [(&str, Check); 12] = [
    ("codings", codings::check),
    ("configuration", configuration::check),
    ("dates", dates::check),
    ("directives", directives::check),
    ("etags", etags::check),
    ("keys", keys::check),
    ("ranges", ranges::check),
    ("records", records::check),
    ("references", references::check),
    ("requests", requests::check),
    ("targeted", targeted::check),
    ("vary", vary::check),
];

/// More lines than any promise needs to be broken; what is behind them is cut off, so that inputs stay fast.
const MOST_LINES: usize = 16;

/// The lines of an input that can be field values.
fn values(data: &[u8]) -> Vec<HeaderValue> {
    data.split(|b| *b == b'\n').take(MOST_LINES).filter_map(|line| HeaderValue::from_bytes(line).ok()).collect()
}

/// These lines as the lines of one field.
fn field<'a>(name: &HeaderName, lines: impl IntoIterator<Item = &'a HeaderValue>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append(name.clone(), line.clone());
    }
    headers
}

/// A number from the first bytes of an input.
fn number(data: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let length = data.len().min(8);
    bytes[..length].copy_from_slice(&data[..length]);
    u64::from_le_bytes(bytes)
}
