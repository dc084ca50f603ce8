//! Tags from wherever they come (the rule, the handler, the fields of a response) into stamps, and purges of tags into the purge index.

use std::sync::Arc;

use http::HeaderMap;

use crate::cache::CacheCore;
use crate::cached::Cached;
use crate::labels::Labels;
use crate::response::{Stamp, StoredResponse};
use crate::selector::PurgeError;
use crate::tags::{Names, Tags, tag};
use crate::target::Target;

/// What says which tags a response bears.
#[derive(Clone, Copy)]
pub(crate) struct Labelled<'a> {
    pub(crate) labels: &'a Labels,
    pub(crate) handler: Option<&'a Cached>,
    pub(crate) head: &'a HeaderMap,
}

impl Labelled<'_> {
    /// The names of the tags of a response from this path, as the client sent it.
    fn names(&self, path: &[u8]) -> Names {
        let mut names = Names::default();
        // It came as a part of a URI, and so as text.
        self.labels.tags(std::str::from_utf8(path).unwrap_or_default(), |tag| names.add(tag));
        self.handler.into_iter().flat_map(|handler| &handler.tags).for_each(|tag| names.add(tag));
        names.add_fields(self.head);
        names
    }
}

impl CacheCore {
    /// The tags of a response from this path, with what it can be purged by without a name: its groups, and the spellings of its query.
    pub(crate) fn tags(&self, labelled: Labelled<'_>, path: &[u8], nameless: &[u64]) -> Option<Arc<Tags>> {
        labelled.names(path).with(|name| self.tag(name), nameless)
    }

    /// The hash of a tag; without a name, of what bears every tag.
    fn tag(&self, name: Option<&str>) -> u64 {
        self.hasher.hash_one(("tag", name))
    }

    /// The stamp of a response that was stored under other settings, with the tags that it would have now beside those that it has.
    pub(crate) fn relabelled(&self, stored: &StoredResponse, labelled: Labelled<'_>, path: &[u8]) -> Stamp {
        let mut stamp = stored.stamp.clone();
        if let Some(now) = self.tags(labelled, path, &[]) {
            stamp.add_tags(now);
        }
        stamp
    }

    /// What a purge of a tag touches: what bears it, what bears every tag, and, on every origin, what is in the group of that name.
    pub(crate) fn target_of_tag(&self, text: &str) -> Result<Target, PurgeError> {
        let name = tag(text).map_err(|why| PurgeError::Tag {
            tag: text.chars().take(100).collect(),
            reason: why.to_string(),
        })?;
        let mut hashes = self.groups.on_any_origin(text);
        hashes.extend([self.tag(Some(name)), self.tag(None)]);
        Ok(Target::tags(&hashes, None))
    }
}
