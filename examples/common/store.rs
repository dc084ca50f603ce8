//! Where the examples keep what they cache, as `--store` says.

use larder::CacheLayer;
use larder::storage::{MemoryStore, RedisStore};

/// Has the key under which principals are digested.
const SECRET: &str = "LARDER_PARTITION_SECRET";

/// A cache over the store that `--store` names: `memory` alone, or what is read as the URL of a Redis or Valkey server with `memory` bytes before it. With `near=0` in the URL there is none before it. A URL
/// without a namespace gets `namespace`.
///
/// # Errors
/// In words for whoever started the program. They never show the URL, which may have a password.
pub fn open(store: &str, namespace: &str, memory: u64) -> Result<CacheLayer, String> {
    let layer = match store {
        "memory" => CacheLayer::in_memory(memory),
        url => shared(url, namespace, memory).map_err(|error| format!("--store: {error}"))?,
    };
    Ok(match secret()? {
        Some(secret) => layer.partition_secret(secret),
        None => layer,
    })
}

/// Whether memory lies before the store, or is all that there is: whether `--capacity` means anything.
#[allow(dead_code, reason = "not all examples can be told how much memory they may have")]
pub fn has_memory(store: &str) -> bool {
    store == "memory" || Url::of(store).is_ok_and(|url| url.near)
}

fn shared(url: &str, namespace: &str, memory: u64) -> Result<CacheLayer, String> {
    let url = Url::of(url)?;
    let opened =
        if url.has_namespace { RedisStore::new(&url.rest) } else { RedisStore::in_namespace(&url.rest, namespace) };
    let far = opened.map_err(|error| error.to_string())?;
    if url.near {
        tracing::info!(store = ?far, memory, "what is cached is shared, and in memory as well");
        Ok(CacheLayer::tiered(MemoryStore::new(memory), far))
    } else {
        tracing::info!(store = ?far, "what is cached is shared");
        Ok(CacheLayer::with_storage(far))
    }
}

struct Url {
    /// Without what only the examples understand.
    rest: String,
    near: bool,
    has_namespace: bool,
}

impl Url {
    fn of(url: &str) -> Result<Self, String> {
        if !url.contains("://") {
            return Err("this is neither `memory` nor the URL of a Redis or Valkey server".into());
        }
        let (address, query) = url.split_once('?').unwrap_or((url, ""));
        let mut near = true;
        let mut kept = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=').unwrap_or((pair, "")) {
                ("near", "0") => near = false,
                ("near", _) => return Err("`near` is 0 or left out; --capacity says how much memory there is".into()),
                _ => kept.push(pair),
            }
        }
        let has_namespace = kept.iter().any(|pair| pair.starts_with("ns="));
        let rest = if kept.is_empty() { address.to_owned() } else { format!("{address}?{}", kept.join("&")) };
        Ok(Self { rest, near, has_namespace })
    }
}

/// The key of all instances, if the environment has one.
fn secret() -> Result<Option<[u8; 32]>, String> {
    let Some(text) = std::env::var_os(SECRET) else { return Ok(None) };
    let wrong = || format!("{SECRET} has to be 64 hexadecimal digits; `openssl rand -hex 32` makes them");
    let text = text.to_str().filter(|text| text.len() == 64 && text.bytes().all(|c| c.is_ascii_hexdigit()));
    let text = text.ok_or_else(wrong)?;
    let mut secret = [0; 32];
    for (byte, place) in secret.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&text[place..place + 2], 16).map_err(|_| wrong())?;
    }
    Ok(Some(secret))
}
