//! Data beside responses: what functions, queries and computations come to, purged together with the responses that were made from it.
//!
//! [`ObjectCache`] keeps values in the memory of this process as they are, behind an [`Arc`](std::sync::Arc): nothing is serialised, so any type will do, and a hit is a look into
//! moka, the clock, and one compare with the number of purges.

mod handover;
mod objects;

pub use self::objects::{ObjectCache, ObjectEntry, ObjectStats};

/// Whether caches of data may have this name. It is a part of their keys, and of metrics.
pub(crate) fn is_data_name(name: &str) -> bool {
    let sign = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    (1..=64).contains(&name.len()) && name.bytes().all(sign)
}
