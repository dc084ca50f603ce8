//! [`Target`]: what a purge touches, as hashes and patterns that stored responses and fills in flight are held against.

use http::Uri;
use smallvec::SmallVec;

use crate::cache::CacheCore;
use crate::key::CacheKey;
use crate::partition;
use crate::pattern::{Meant, Pattern};
use crate::policy::digest;
use crate::request::target_of;
use crate::response::Stamp;
use crate::rfc9111::authority::normalised;
use crate::selector::{PurgeError, Selector};

/// What a purge touches.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Hashes(Hashes),
    Pattern(Pattern),
    Everything,
}

/// What has one of these hashes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hashes {
    /// Of [resources](Stamp::resource), [paths](Stamp::path) or [partitions](Stamp::partition).
    pub(crate) places: SmallVec<[u64; 1]>,
    /// [Tags](Stamp::tags).
    pub(crate) tags: SmallVec<[u64; 2]>,
    /// The hash of the only authority whose responses may have such tags; `None` if all may.
    pub(crate) authority: Option<u64>,
}

impl Target {
    /// What has this hash of a resource, a path or a partition.
    pub(crate) fn place(place: u64) -> Self {
        Self::Hashes(Hashes { places: [place].into_iter().collect(), ..Hashes::default() })
    }

    /// What has one of these tags.
    pub(crate) fn tags(tags: &[u64], authority: Option<u64>) -> Self {
        Self::Hashes(Hashes { tags: tags.iter().copied().collect(), authority, ..Hashes::default() })
    }

    /// Whether it touches a response with this stamp, stored under this key.
    pub(crate) fn touches(&self, stamp: &Stamp, key: &impl Meant) -> bool {
        match self {
            Self::Hashes(hashes) => {
                let named = |hash| hashes.all().any(|named| named == hash);
                stamp.hashes().any(named)
            }
            Self::Pattern(pattern) => key.is_meant_by(pattern),
            Self::Everything => true,
        }
    }
}

impl Hashes {
    pub(crate) fn all(&self) -> impl Iterator<Item = u64> {
        self.places.iter().chain(&self.tags).copied()
    }
}

impl CacheCore {
    /// What a selector touches. `spellings` tells the tag of what else may answer a URI.
    pub(crate) fn target(
        &self,
        selector: &Selector,
        spellings: impl Fn(&CacheKey, bool) -> Option<u64>,
    ) -> Result<Target, PurgeError> {
        Ok(match selector {
            Selector::Uri(uri) => self.target_of_uri(&Asked::parse(uri)?, spellings),
            Selector::Tag(name) => self.target_of_tag(name)?,
            Selector::Glob(text) => Target::Pattern(Pattern::glob(text)?),
            Selector::Regex(text) => Target::Pattern(Pattern::regex(text)?),
            Selector::Partition(principal) => Target::place(partition::place(&digest(&self.secret, principal))),
            Selector::Everything => Target::Everything,
        })
    }

    fn target_of_uri(&self, asked: &Asked, spellings: impl Fn(&CacheKey, bool) -> Option<u64>) -> Target {
        let mut hashes = Hashes::default();
        for key in self.resource_keys(asked.authority.as_deref().unwrap_or_default(), &asked.target) {
            let stamp = self.purges.stamp(&key, 0);
            hashes.places.push(if asked.authority.is_none() { stamp.path } else { stamp.resource });
            hashes.tags.extend(spellings(&key, asked.authority.is_none()));
        }
        hashes.authority = asked.authority.as_ref().map(|authority| self.groups.authority(Some(authority)));
        Target::Hashes(hashes)
    }
}

/// The URI of a selector.
struct Asked {
    /// `None` for any.
    authority: Option<Vec<u8>>,
    /// Path and query.
    target: String,
}

impl Asked {
    fn parse(text: &str) -> Result<Self, PurgeError> {
        let malformed = || PurgeError::Uri { uri: text.into() };
        let uri: Uri = text.parse().map_err(|_| malformed())?;
        if uri.scheme().is_none() && !uri.path().starts_with('/') {
            return Err(malformed());
        }
        let authority = uri.authority().map(|a| normalised(a.as_str().as_bytes(), uri.scheme_str()).to_vec());
        Ok(Self { authority, target: target_of(&uri) })
    }
}
