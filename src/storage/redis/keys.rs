//! Where things are in Redis. All keys of a namespace begin alike, so that a user's rights end there, and so that what is scanned is never anybody else's.
//!
//! What goes together has one *hash tag* (the part in braces), by which a cluster would put it into one slot.

use std::borrow::Cow;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use super::settings::RedisUrlError;
use super::wire;
use crate::key::CacheKey;
use crate::partition::PartitionId;

/// The longest name of a namespace.
const LONGEST: usize = 64;

/// The keys of one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Keyspace {
    namespace: Box<str>,
    /// What the places of the responses for everybody begin with.
    responses: Box<str>,
}

/// The SHA-256 of a whole key. What is found under it has the whole key in it, so that no collision is ever taken for the same.
pub(super) type KeyDigest = [u8; 32];

impl Keyspace {
    /// The name is part of patterns that Redis matches, and of hash tags: it may have nothing that means something there.
    pub(super) fn new(namespace: &str) -> Result<Self, RedisUrlError> {
        let is_fine = |c: u8| c.is_ascii_alphanumeric() || b"-_.".contains(&c);
        if namespace.is_empty() || namespace.len() > LONGEST || !namespace.bytes().all(is_fine) {
            return Err(RedisUrlError::Namespace(namespace.chars().take(LONGEST).collect()));
        }
        Ok(Self { namespace: namespace.into(), responses: format!("larder:{namespace}:r:").into() })
    }

    /// Where the response to a key is, or the marker of its variants.
    pub(super) fn response(&self, key: &CacheKey, digest: &KeyDigest) -> String {
        let mut tag = [0; TAG];
        [&self.beginning(key), tag_of(digest, &mut tag)].concat()
    }

    /// The question what is there. Each hit asks it: in one piece of memory.
    pub(super) fn question(&self, key: &CacheKey, digest: &KeyDigest) -> Vec<u8> {
        let mut tag = [0; TAG];
        wire::get([&self.beginning(key), tag_of(digest, &mut tag)])
    }

    fn beginning(&self, key: &CacheKey) -> Cow<'_, str> {
        match key.partition() {
            None => Cow::Borrowed(&self.responses),
            Some(partition) => Cow::Owned(self.partition(&partition)),
        }
    }

    /// Who asks the handler for a key.
    pub(super) fn lease(&self, digest: &KeyDigest) -> String {
        format!("larder:{}:l:{{{}}}", self.namespace, name(digest))
    }

    /// The state of the purge log and what it remembers of each thing; in one slot with [`log`](Self::log).
    pub(super) fn purges(&self) -> String {
        format!("larder:{{{}}}:purges", self.namespace)
    }

    /// The newest purges, in order.
    pub(super) fn log(&self) -> String {
        format!("larder:{{{}}}:log", self.namespace)
    }

    /// Patterns that match the responses of everybody.
    pub(super) fn all_responses(&self) -> [String; 2] {
        ["r", "p"].map(|kind| format!("larder:{}:{kind}:*", self.namespace))
    }

    /// A pattern that matches the responses of one principal.
    pub(super) fn all_of(&self, partition: &PartitionId) -> String {
        format!("{}*", self.partition(partition))
    }

    fn partition(&self, partition: &PartitionId) -> String {
        let digits: String = partition.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("larder:{}:p:{digits}:", self.namespace)
    }
}

/// The length of the hash tag of a response.
const TAG: usize = 45;

/// The digest as a hash tag, in this memory.
fn tag_of<'a>(digest: &KeyDigest, tag: &'a mut [u8; TAG]) -> &'a str {
    (tag[0], tag[TAG - 1]) = (b'{', b'}');
    // It is as long as a digest becomes, and what is in it is ASCII.
    let _ = BASE64_URL_SAFE_NO_PAD.encode_slice(digest, &mut tag[1..TAG - 1]);
    std::str::from_utf8(tag).unwrap_or_default()
}

pub(super) fn digest(key: &CacheKey) -> KeyDigest {
    digest_of(key.as_bytes())
}

pub(super) fn digest_of(bytes: &[u8]) -> KeyDigest {
    Sha256::digest(bytes).into()
}

/// Bytes as a part of a key's name.
pub(super) fn name(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Part;

    #[test]
    fn keys_are_where_their_namespace_their_principal_and_their_slot_say() {
        let keyspace = Keyspace::new("shop").unwrap();
        let mut key = CacheKey::new(b"h", "/", None);
        let place = keyspace.response(&key, &digest(&key));
        let (prefix, tag) = place.split_at("larder:shop:r:".len());
        assert_eq!(prefix, "larder:shop:r:");
        assert_eq!((tag.len(), &tag[..1], &tag[44..]), (45, "{", "}"));
        assert_eq!(keyspace.question(&key, &digest(&key)), wire::command(&[b"GET", place.as_bytes()]));
        assert!(keyspace.lease(&digest(&key)).ends_with(tag), "in the same slot");
        key.push(Part::Partition, &[0xab; 16]);
        let place = keyspace.response(&key, &digest(&key));
        let prefix = format!("larder:shop:p:{}:", "ab".repeat(16));
        assert_eq!(keyspace.question(&key, &digest(&key)), wire::command(&[b"GET", place.as_bytes()]));
        assert!(place.starts_with(&prefix) && keyspace.all_of(&[0xab; 16]) == format!("{prefix}*"), "{place}");
        assert_eq!((keyspace.purges(), keyspace.log()), ("larder:{shop}:purges".into(), "larder:{shop}:log".into()));
    }
}
