//! How values are keyed: by the name of their cache and a text, in a form that no request has.

use sha2::{Digest, Sha256};

use crate::key::CacheKey;
pub(crate) use crate::naming::is_data_name as is_name;

/// The longest text that is a key as it is, in bytes. Longer ones are known by their digest.
pub(crate) const LONGEST: usize = 1024;

/// What stands in a key behind its text, where that is what the application gave, and where it is a digest. They are written into keys and so never change.
const AS_IT_IS: &[u8] = b"";
const DIGEST: &[u8] = b"sha256";

/// The key of `key` in the cache of this name. What isn't text, or long, is a SHA-256 digest in hexadecimal; no text is ever the same as one.
#[inline]
pub(crate) fn key_of(name: &str, key: &[u8]) -> CacheKey {
    match std::str::from_utf8(key) {
        Ok(text) if text.len() <= LONGEST => CacheKey::of_data(name, text, AS_IT_IS),
        _ => CacheKey::of_data(name, &digest(key), DIGEST),
    }
}

#[cold]
pub(crate) fn digest(key: &[u8]) -> String {
    use std::fmt::Write;
    Sha256::digest(key).iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names() {
        for name in ["a", "products", "top-10_x", &"x".repeat(64)] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "A", "a b", "a:b", "a/b", "ü", &"x".repeat(65)] {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn what_is_long_or_no_text_is_a_digest_that_no_text_is() {
        let long = "x".repeat(LONGEST + 1);
        let hexadecimal = digest(long.as_bytes());
        let keys = [long.as_bytes(), b"\xff", hexadecimal.as_bytes()].map(|key| key_of("a", key));
        assert!(keys.iter().all(|key| key.as_bytes().len() < 128 && key.is_data()));
        assert_ne!(keys[0], keys[2]);
        assert_eq!(keys[0].path(), keys[2].path(), "which a purge by pattern doesn't tell apart");
    }

    proptest! {
        #[test]
        fn keys_are_equal_only_where_name_and_key_are(
            one in ("[a-z]{1,3}", proptest::collection::vec(any::<u8>(), 0..4)),
            other in ("[a-z]{1,3}", proptest::collection::vec(any::<u8>(), 0..4)),
        ) {
            let key = |(name, key): &(String, Vec<u8>)| key_of(name, key);
            prop_assert_eq!(one == other, key(&one) == key(&other));
        }

        #[test]
        fn no_response_has_such_a_key(
            authority in "[a-z:.]{0,8}", path in "[a-z/:*]{0,12}", query in proptest::option::of("[a-z=]{0,4}"),
            name in "[a-z]{1,3}", key in "[a-z/:*]{0,12}",
        ) {
            let stored = key_of(&name, key.as_bytes());
            prop_assert_eq!(CacheKey::from_bytes(stored.as_bytes()), Some(stored.clone()));
            let asked = CacheKey::new(authority.as_bytes(), &path, query.as_deref());
            prop_assert!(stored != asked && stored.as_bytes() != asked.as_bytes() && !asked.is_data());
            // Not even up to where a write invalidates: a request's path begins with a slash, or is `*`.
            prop_assert!(stored.path().first().is_some_and(u8::is_ascii_lowercase) && stored.path_and_query() != b"*");
        }
    }
}
