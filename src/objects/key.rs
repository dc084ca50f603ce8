//! How purges see what an [`ObjectCache`](super::ObjectCache) holds: by the name of the cache, since what its keys are called nobody knows.

use std::sync::Arc;

#[cfg(feature = "admin")]
use crate::cache::CacheCore;
use crate::key::CacheKey;
use crate::pattern::{Meant, Pattern};
use crate::purge::PurgeIndex;
#[cfg(feature = "admin")]
use crate::purged::Force;
#[cfg(feature = "admin")]
use crate::selector::PurgeError;
#[cfg(feature = "admin")]
use crate::target::Target;

/// The cache among others.
pub(super) struct Place {
    /// What the names of all it holds begin with.
    start: Box<str>,
    /// By which the index of purges knows it.
    pub(super) hash: u64,
}

impl Place {
    pub(super) fn new(name: &str, purges: &PurgeIndex) -> Self {
        let start = format!("{name}:").into_boxed_str();
        // Real paths begin with a slash, so no request can name it.
        let hash = purges.stamp(&CacheKey::new(b"", &start, None), 0).resource;
        Self { start, hash }
    }

    pub(super) fn name(&self) -> &str {
        self.start.trim_end_matches(':')
    }
}

#[cfg(feature = "admin")]
impl CacheCore {
    /// Purges all that caches of objects of this name hold, on all instances, and nothing else; returns its number. What is on its way there isn't kept.
    pub(crate) async fn purge_objects(&self, name: &str) -> Result<u64, PurgeError> {
        let place = Target::place(Place::new(name, &self.purges).hash);
        self.purge_with_others(&place, Force::Hard).await.map(|(number, _)| number)
    }
}

impl Meant for Place {
    fn is_meant_by(&self, pattern: &Pattern) -> bool {
        pattern.may_continue(&self.start)
    }
}

/// By which loads in flight are told apart.
#[derive(Clone)]
pub(super) struct ObjectKey<K> {
    pub(super) key: K,
    pub(super) place: Arc<Place>,
}

impl<K: PartialEq> PartialEq for ObjectKey<K> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl<K: Eq> Eq for ObjectKey<K> {}

impl<K> Meant for ObjectKey<K> {
    fn is_meant_by(&self, pattern: &Pattern) -> bool {
        self.place.is_meant_by(pattern)
    }
}
