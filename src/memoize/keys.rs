//! Arguments as keys.

#[cfg(feature = "data")]
use serde::Serialize;

#[cfg(feature = "data")]
use super::arguments::text;
#[cfg(feature = "data")]
use crate::data::{LONGEST, digest};

/// How arguments become keys; `None` where they have none, so that nothing is kept.
pub trait KeyOf<A, K>: Send + Sync + 'static {
    /// The key of these.
    fn key(&self, arguments: &A) -> Option<K>;
}

/// The arguments themselves are the key.
#[derive(Clone, Copy, Debug)]
pub struct AsTheyAre;

impl<A: Clone> KeyOf<A, A> for AsTheyAre {
    fn key(&self, arguments: &A) -> Option<A> {
        Some(arguments.clone())
    }
}

/// The arguments as a text, which no others have.
#[cfg(feature = "data")]
#[derive(Clone, Copy, Debug)]
pub struct Serialized;

#[cfg(feature = "data")]
impl<A: Serialize> KeyOf<A, String> for Serialized {
    fn key(&self, arguments: &A) -> Option<String> {
        text(arguments)
    }
}

/// What a closure says of them.
#[derive(Clone, Copy, Debug)]
pub struct By<G>(pub(super) G);

impl<A, K, G: Fn(&A) -> K + Send + Sync + 'static> KeyOf<A, K> for By<G> {
    fn key(&self, arguments: &A) -> Option<K> {
        Some((self.0)(arguments))
    }
}

/// Behind the name of the function.
#[cfg(feature = "data")]
#[derive(Clone, Debug)]
pub struct Named<K> {
    start: Box<str>,
    keys: K,
}

#[cfg(feature = "data")]
impl<K> Named<K> {
    pub(super) fn new(name: &str, keys: K) -> Self {
        Self { start: format!("{name}:").into(), keys }
    }

    pub(super) fn with<O>(self, keys: O) -> Named<O> {
        Named { start: self.start, keys }
    }
}

#[cfg(feature = "data")]
impl<A, K: KeyOf<A, String>> KeyOf<A, String> for Named<K> {
    fn key(&self, arguments: &A) -> Option<String> {
        let key = self.keys.key(arguments)?;
        if self.start.len() + key.len() <= LONGEST {
            return Some([&*self.start, &*key].concat());
        }
        // Else all of it would be a digest, and no pattern would see whose result it is. No arguments begin with this sign.
        Some([&*self.start, "\u{1}", &digest(key.as_bytes())].concat())
    }
}
