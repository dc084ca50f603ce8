//! [`Marker`]: what is stored in the place of a response that has variants (RFC 9111 §4.1). It tells by which fields they are told apart, and where they are; an only
//! one is behind it in the same place, so that it is found at once by those who know nothing of the resource yet.
//!
//! Scripts write it, so it has no seal: whoever changes it hides responses or points to others, and each of those tells itself what it is.

use std::ops::Range;

use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use sha2::{Digest, Sha256};
use smallvec::SmallVec;

use super::keys;
use crate::rfc9111::vary::{Matching, variant_key};

/// What it begins with; a record begins otherwise.
const MAGIC: &[u8; 4] = b"LRDM";

/// The length of what a record begins with as well: see `lua/marker.lua`.
const HEADER: usize = 32;

/// Where it says at which byte the record of the only variant begins; zero where there are several, or it has a place of its own.
const RECORD: Range<usize> = 24..28;

/// The length of a generation or a digest, as text.
const DIGEST: usize = 22;

/// Which fields a resource varies by, and what the places of its variants begin with. Another generation is another set of variants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Vary {
    pub(super) fields: SmallVec<[HeaderName; 2]>,
    pub(super) generation: Box<str>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Marker {
    pub(super) vary: Vary,
    /// The variant that was stored last.
    newest: Box<str>,
}

impl Marker {
    /// Whether these bytes are to be a marker.
    pub(super) fn is_one(bytes: &[u8]) -> bool {
        bytes.starts_with(MAGIC)
    }

    /// Whether they are to be one, and the variants are elsewhere.
    pub(super) fn is_alone(bytes: &Bytes) -> bool {
        Self::is_one(bytes) && Self::record(bytes).is_none()
    }

    /// The record of the only variant, if these bytes are a marker that has it. What is no record tells that itself.
    pub(super) fn record(bytes: &Bytes) -> Option<Bytes> {
        let at = bytes.get(RECORD).filter(|_| Self::is_one(bytes))?;
        let at = usize::try_from(u32::from_be_bytes(at.try_into().ok()?)).ok().filter(|at| *at > 0)?;
        Some(bytes.slice(at.min(bytes.len())..))
    }

    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(MAGIC)?.get(HEADER - MAGIC.len()..)?;
        let (generation, rest) = rest.split_at_checked(DIGEST)?;
        let (length, rest) = rest.split_first_chunk()?;
        let (fields, digests) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
        let fields = fields.split(|byte| *byte == b',').map(HeaderName::from_bytes).collect::<Result<_, _>>().ok()?;
        let vary = Vary { fields, generation: text(generation)? };
        Some(Self { vary, newest: text(digests.get(..DIGEST)?)? })
    }

    /// Whether these bytes tell what is known already.
    pub(super) fn tells(bytes: &[u8], known: &Vary) -> bool {
        let told = || {
            let rest = bytes.get(HEADER..)?.strip_prefix(known.generation.as_bytes())?;
            let (length, rest) = rest.split_first_chunk()?;
            rest.get(..u16::from_be_bytes(*length).into())
        };
        told().is_some_and(|fields| {
            let names = known.fields.iter().map(|name| name.as_str().as_bytes());
            fields.split(|byte| *byte == b',').eq(names)
        })
    }

    /// Where the variant is that was stored last, beside the place of the marker.
    pub(super) fn newest(&self, place: &str) -> String {
        self.vary.place(place, &self.newest)
    }
}

impl Vary {
    /// Where the variant may be that a request asks for: however far its fields were normalised when it was stored.
    pub(super) fn places(&self, place: &str, asked: &HeaderMap) -> impl Iterator<Item = String> {
        let [careful, letter] =
            [Matching::Careful, Matching::Letter].map(|matching| variant_key(&self.fields, asked, matching));
        let letter = (letter != careful).then_some(letter);
        [Some(careful), letter].into_iter().flatten().map(move |key| self.place(place, &digest(&key)))
    }

    fn place(&self, place: &str, digest: &str) -> String {
        [place, ":", &self.generation, ":", digest].concat()
    }
}

/// The nominated fields as the marker has them.
pub(super) fn joined(fields: &[HeaderName]) -> String {
    fields.iter().map(HeaderName::as_str).collect::<Vec<_>>().join(",")
}

/// The name of a variant among those of its resource. Two of one name are told apart by the record, which has the values.
pub(super) fn digest(variant: &[u8]) -> String {
    keys::name(&Sha256::digest(variant)[..16])
}

fn text(bytes: &[u8]) -> Option<Box<str>> {
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
    bytes.iter().all(is_name).then(|| String::from_utf8_lossy(bytes).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(fields: &str, digests: &str) -> Vec<u8> {
        let (generation, length) = ("g".repeat(DIGEST), (fields.len() as u16).to_be_bytes());
        let parts =
            [MAGIC, &[0; HEADER - 4][..], generation.as_bytes(), &length, fields.as_bytes(), digests.as_bytes()];
        parts.concat()
    }

    #[test]
    fn it_is_read_or_refused() {
        let newest = "n".repeat(DIGEST);
        let whole = written("accept,origin", &format!("{newest}{}", "o".repeat(DIGEST)));
        let marker = Marker::read(&whole).unwrap();
        assert_eq!(marker.vary.fields.as_slice(), [http::header::ACCEPT, http::header::ORIGIN]);
        assert!(Marker::tells(&whole, &marker.vary));
        for (fields, generation) in [("accept", "g"), ("accept,origin,x", "g"), ("accept,origin", "h")] {
            let mut other = written(fields, &newest);
            other[HEADER..HEADER + DIGEST].fill(generation.as_bytes()[0]);
            assert!(!Marker::tells(&other, &marker.vary), "{fields} {generation}");
        }
        assert!(!Marker::tells(&whole[..HEADER + DIGEST + 3], &marker.vary));
        assert_eq!(marker.newest("k"), format!("k:{}:{newest}", "g".repeat(DIGEST)));
        for length in 0..whole.len() - DIGEST {
            assert_eq!(Marker::read(&whole[..length]), None, "{length}");
        }
        for (fields, digests) in
            [("", &*newest), ("a b", &newest), ("accept", ""), ("accept", "?????????????????????\u{0}")]
        {
            assert_eq!(Marker::read(&written(fields, digests)), None, "{fields:?} {digests:?}");
        }
    }

    #[test]
    fn an_only_variant_is_behind_it() {
        let within = |at: u32| {
            let mut whole = [written("accept", &"n".repeat(DIGEST)), b"record".to_vec()].concat();
            whole[RECORD].copy_from_slice(&at.to_be_bytes());
            Marker::record(&whole.into())
        };
        let begins = written("accept", &"n".repeat(DIGEST)).len() as u32;
        assert_eq!(within(begins).as_deref(), Some(&b"record"[..]));
        assert_eq!((within(0), within(u32::MAX)), (None, Some(Bytes::new())));
        for bytes in [&b"LRDM"[..], b"LRDR 01234567 01234567 ...\0\0\0\x01", b""] {
            assert_eq!(Marker::record(&Bytes::from_static(bytes)), None, "{bytes:?}");
        }
    }

    #[test]
    fn a_variant_is_looked_for_under_each_way_to_normalise() {
        let vary = Vary { fields: [http::header::ACCEPT_LANGUAGE].into_iter().collect(), generation: "g".into() };
        let mut asked = HeaderMap::new();
        assert_eq!(vary.places("k", &asked).count(), 1);
        asked.insert("accept-language", "en, de".parse().unwrap());
        assert_eq!(vary.places("k", &asked).count(), 2, "the order counts, or it doesn't");
    }
}
