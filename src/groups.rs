//! Groups of responses (RFC 9875), as tags in the purge index: a group is the hash of its name and its origin, which responses carry in
//! their [stamps](crate::response::Stamp) and writes purge by number. Nothing is listed by group, so nothing has to be cleaned up.

use std::sync::Arc;

use http::HeaderMap;

use crate::key::{CacheKey, Origin};
use crate::naming::{Named, Naming};
use crate::response::Stamp;
use crate::rfc9111::groups::{CACHE_GROUPS, named};

/// A response in more groups than this counts as in every group of its origin: a miss too many, and never a stale answer. (RFC 9875 §2 wants
/// at least 32 to be supported.)
const MOST: usize = 128;

/// The memory, in bytes, in which is remembered in which groups the responses of resources were.
const LINKS: u64 = 4 << 20;

const ANY: Origin<'static> = Origin { authority: None, scheme: None };

/// Makes tags of groups, and knows which groups the responses of a resource were in.
pub(crate) struct Groups {
    naming: Naming,
    /// By the hash of a resource, and of its path: what a write to it makes invalid as well. RFC 9875 §2.2.1 leaves that to the
    /// cache, so what is forgotten here costs no promise.
    links: moka::sync::Cache<u64, Arc<[u64]>>,
}

impl Groups {
    pub(crate) fn new(naming: Naming) -> Self {
        let size = |_: &u64, tags: &Arc<[u64]>| u32::try_from(128 + size_of_val(&**tags)).unwrap_or(u32::MAX);
        Self { naming, links: moka::sync::Cache::builder().weigher(size).max_capacity(LINKS).build() }
    }

    /// The hash of an authority, by which the flights to it are found.
    pub(crate) fn authority(&self, authority: Option<&[u8]>) -> u64 {
        self.naming.hash(Named::Authority, &[authority])
    }

    /// The tags of a response, none for most: of each of its groups on its own origin, and then of each on any origin.
    pub(crate) fn of_response(&self, key: &CacheKey, head: &HeaderMap) -> Option<Arc<[u64]>> {
        let mut names = named(head, &CACHE_GROUPS);
        names.sort_unstable();
        names.dedup();
        let names: Vec<Option<&str>> = match names.len() {
            0 => return None,
            1..=MOST => names.iter().map(|name| Some(name.as_str())).collect(),
            _ => vec![None],
        };
        let on = |origin| names.iter().map(move |name| self.tag(origin, *name));
        Some(on(key.origin()).chain(on(ANY)).collect())
    }

    /// The tags that a write to `origin` purges.
    pub(crate) fn of_write(&self, origin: Origin<'_>, names: &[String]) -> Vec<u64> {
        let origin = if origin.authority.is_none() { ANY } else { origin };
        names.iter().map(|name| self.tag(origin, Some(name))).chain([self.tag(origin, None)]).collect()
    }

    /// The tag of a name on any origin; without one, of what bears every tag. A group is a tag of the application's own there, so that one look finds both.
    pub(crate) fn anywhere(&self, name: Option<&str>) -> u64 {
        self.tag(ANY, name)
    }

    /// The tag of a group, or of the responses in too many.
    fn tag(&self, origin: Origin<'_>, name: Option<&str>) -> u64 {
        self.naming.hash(Named::Tag, &[origin.authority, origin.scheme, name.map(str::as_bytes)])
    }

    /// Remembers the groups of a response by what a write to its resource is known as: its resource, or its path on any authority.
    /// Responses in too many groups share one with it.
    pub(crate) fn link(&self, stamp: &Stamp, origin: Origin<'_>, tags: &[u64]) {
        let (own, any) = tags.split_at(tags.len() / 2);
        for (id, origin, tags) in [(stamp.resource, origin, own), (stamp.path, ANY, any)] {
            let known = self.links.get(&id).unwrap_or_default();
            let too_many = self.tag(origin, None);
            let mut fresh = tags.iter().chain([&too_many]).filter(|tag| !known.contains(tag)).peekable();
            if fresh.peek().is_some() {
                self.links.insert(id, fresh.chain(known.iter()).copied().take(2 * MOST).collect());
            }
        }
    }

    /// The tags that a write to this resource, or to this path on any authority, makes invalid as well.
    pub(crate) fn linked(&self, id: u64) -> Option<Arc<[u64]>> {
        self.links.get(&id)
    }
}
