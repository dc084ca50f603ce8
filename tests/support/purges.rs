//! Purges as instances tell each other, made as `docs/record.md` says.
#![allow(dead_code, reason = "each test file uses a part")]

use larder::PurgeMessage;
use larder::record::ClockShift;
use twox_hash::XxHash3_128;

/// Of a pattern; soft as of so many seconds after 1970, or hard.
pub fn glob(pattern: &str, soft: Option<u64>) -> PurgeMessage {
    message(2, soft, pattern.as_bytes())
}

/// Of everything, hard.
pub fn everything() -> PurgeMessage {
    message(4, None, b"")
}

fn message(kind: u8, soft: Option<u64>, rest: &[u8]) -> PurgeMessage {
    let mut bytes = vec![1, kind, u8::from(soft.is_some())];
    bytes.extend_from_slice(&soft.map_or(0, |seconds| seconds * 1_000_000_000).to_be_bytes());
    bytes.extend_from_slice(rest);
    let check = XxHash3_128::oneshot(&bytes).to_be_bytes();
    bytes.extend_from_slice(&check[..8]);
    PurgeMessage::from_bytes(&bytes, ClockShift::NONE).expect("a message")
}
