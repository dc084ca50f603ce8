//! [`Seal`]: the last bytes of a record, by which damage is noticed, and with a key forgery as well.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use twox_hash::XxHash3_128;

/// The length of a seal: 128 bits either way. An HMAC that is cut to half of its length is as strong as its bits (RFC 2104 §5).
pub(super) const SEAL: usize = 16;

/// How records are sealed.
#[derive(Clone, Debug, Default)]
pub(super) enum Seal {
    /// XXH3-128: notices accidents, and anybody can make it.
    #[default]
    Checksum,
    /// HMAC-SHA-256 (RFC 2104), cut to 128 bits: only who has the key can make it.
    Mac(Box<Hmac<Sha256>>),
}

impl Seal {
    pub(super) fn keyed(key: &[u8]) -> Self {
        // A key of any length is one; the error is for algorithms of which that isn't true.
        Hmac::new_from_slice(key).map_or(Self::Checksum, |mac| Self::Mac(Box::new(mac)))
    }

    pub(super) fn is_keyed(&self) -> bool {
        matches!(self, Self::Mac(_))
    }

    pub(super) fn of(&self, bytes: &[u8]) -> [u8; SEAL] {
        match self {
            Self::Checksum => XxHash3_128::oneshot(bytes).to_be_bytes(),
            Self::Mac(mac) => {
                let whole = Hmac::clone(mac).chain_update(bytes).finalize().into_bytes();
                std::array::from_fn(|n| whole[n])
            }
        }
    }

    /// Whether `seal` is that of these bytes; under a key, in constant time.
    pub(super) fn fits(&self, bytes: &[u8], seal: &[u8]) -> bool {
        match self {
            Self::Checksum => self.of(bytes) == *seal,
            Self::Mac(mac) => {
                seal.len() == SEAL && Hmac::clone(mac).chain_update(bytes).verify_truncated_left(seal).is_ok()
            }
        }
    }
}
