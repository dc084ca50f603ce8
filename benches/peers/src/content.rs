//! What is served: every key has a content of its own, which any process can tell from every other.

use std::fmt::Write as _;
use std::sync::OnceLock;

use bytes::Bytes;
use http::HeaderValue;

/// Text from which contents are cut. Larger than the processor's caches, so that many keys are many places in memory.
const POOL: usize = 16 << 20;

/// The content of a key: a piece of the pool, which costs nothing to hand out.
pub fn body(key: u64, size: usize) -> Bytes {
    let pool = pool();
    let start = (mixed(key) % (POOL - size) as u64) as usize;
    pool.slice(start..start + size)
}

/// The content of a key in memory of its own.
pub fn own_body(key: u64, size: usize) -> Bytes {
    Bytes::copy_from_slice(&body(key, size))
}

pub fn etag(key: u64, size: usize) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{size:x}-{key:016x}\"")).expect("visible characters")
}

/// Lines of JSON about products that don't exist; it compresses as such text does.
fn pool() -> &'static Bytes {
    static POOL_OF_TEXT: OnceLock<Bytes> = OnceLock::new();
    POOL_OF_TEXT.get_or_init(|| {
        const WORDS: [&str; 16] = [
            "amber", "birch", "copper", "dusk", "ember", "flint", "gorse", "heron", "iris", "juniper", "kelp", "larch",
            "maple", "nettle", "oak", "plum",
        ];
        let mut text = String::with_capacity(POOL + 256);
        let mut n = 0;
        while text.len() < POOL {
            let random = mixed(n);
            let word = |shift: u64| WORDS[(random >> shift) as usize % WORDS.len()];
            let (price, stock) = (random >> 40 & 0xffff, random >> 56);
            writeln!(
                text,
                r#"{{"id":{n},"name":"{} {}","category":"{}","price_cents":{price},"stock":{stock}}},"#,
                word(0),
                word(8),
                word(16)
            )
            .expect("a string takes whatever is written");
            n += 1;
        }
        text.truncate(POOL);
        Bytes::from(text)
    })
}

/// SplitMix64.
pub fn mixed(key: u64) -> u64 {
    let z = key.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
