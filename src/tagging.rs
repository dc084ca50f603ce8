//! Tags from wherever they come (the rule, the handler, the fields of a response) into stamps, and purges of tags into the purge index.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use smallvec::SmallVec;

use crate::cache::CacheCore;
use crate::cached::Cached;
use crate::coherence::Outdated;
use crate::labels::Labels;
use crate::purged::Force;
use crate::request::percent_decoded;
use crate::response::{Stamp, StoredResponse};
use crate::selector::{PurgeError, Selector};
use crate::stats::count;
use crate::tags::{Names, Tags, tag};
use crate::target::Target;
use crate::used::Used;

/// What says which tags a response bears.
#[derive(Clone, Copy)]
pub(crate) struct Labelled<'a> {
    pub(crate) labels: &'a Labels,
    pub(crate) handler: Option<&'a Cached>,
    pub(crate) head: &'a HeaderMap,
    /// Of what it was made from.
    pub(crate) used: Option<&'a Names>,
}

impl Labelled<'_> {
    /// The names of the tags of a response from this path, as the client sent it.
    fn names(&self, path: &[u8]) -> Names {
        let mut names = Names::default();
        // It came as a part of a URI, and so as text.
        self.labels.tags(std::str::from_utf8(path).unwrap_or_default(), |tag| names.add(tag));
        self.handler.into_iter().flat_map(|handler| &handler.tags).for_each(|tag| names.add(tag));
        names.add_fields(self.head);
        self.used.into_iter().for_each(|used| names.add_gathered(used));
        names
    }
}

impl CacheCore {
    /// The tags of a response from this path, with what it can be purged by without a name: its groups, and the spellings of its query.
    pub(crate) fn tags(&self, labelled: Labelled<'_>, path: &[u8], nameless: &[u64]) -> Option<Arc<Tags>> {
        labelled.names(path).with(|name| self.groups.anywhere(name), nameless)
    }

    /// The stamp bears all that was `used`, the last of it included. What comes now is too late.
    pub(crate) fn bear_all(&self, stamp: &mut Stamp, used: Option<&Used>) {
        let Some(used) = used.map(Used::close) else { return };
        self.bear_used(stamp, used.names);
        if let Some(number) = used.number.filter(|number| *number < stamp.number) {
            // The sweep has held what was used against all that it forgot. Elsewhere a number is all that says that it is stale, and has to be as old.
            let swept = self.settings.backend.far.is_none().then(|| self.purges.floor());
            let number = swept.unwrap_or_default().clamp(number, stamp.number);
            *stamp = stamp.as_of(number);
            stamp.hold(Some(Duration::ZERO), number);
        }
    }

    /// The stamp bears the tags of what the response was made from as well.
    pub(crate) fn bear_used(&self, stamp: &mut Stamp, used: Names) {
        if stamp.tags.as_ref().is_none_or(|borne| !borne.has_used(&used)) {
            let used = used.with(|name| self.groups.anywhere(name), &[]);
            used.into_iter().for_each(|used| stamp.add_tags(used));
        }
    }

    /// The stamp of a response that was stored under other settings, with the tags that it would have now beside those that it has.
    pub(crate) fn relabelled(&self, stored: &StoredResponse, labelled: Labelled<'_>, path: &[u8]) -> Stamp {
        let mut stamp = stored.stamp.clone();
        let borne = stamp.tags.as_deref().map_or(&[][..], |tags| tags);
        // Where nothing is new, it has been held against all purges already; else those that were forgotten since it was stored may have touched it.
        if let Some(now) = self.tags(labelled, path, &[]).filter(|now| now.iter().any(|tag| !borne.contains(tag))) {
            stamp.add_tags(now);
        }
        stamp
    }

    /// What a purge of a tag touches: what bears it, what bears every tag, and, on every origin, what is in the group of that name.
    pub(crate) fn target_of_tag(&self, text: &str) -> Result<Target, PurgeError> {
        let name = tag(text)
            .map_err(|why| PurgeError::Tag { tag: text.chars().take(100).collect(), reason: why.to_string() })?;
        // The name of a group is what it is, to the last colon.
        let group = (name != text).then(|| self.groups.anywhere(Some(text)));
        let hashes: SmallVec<[u64; 3]> = self.touched_by(name).into_iter().chain(group).collect();
        Ok(Target::tags(&hashes, None))
    }

    fn touched_by(&self, name: &str) -> [u64; 2] {
        [Some(name), None].map(|name| self.groups.anywhere(name))
    }

    /// Purges what the rule of a path says that writes to it purge; where a handler that decodes the path may have read one of another rule, what that says as well.
    pub(crate) fn purge_by_rule(&self, target: &str, outdated: &mut Outdated) {
        let path = target.split('?').next().unwrap_or_default();
        let route = self.rules.route(path);
        let decoded = percent_decoded(path).map(|decoded| self.rules.route(&decoded));
        for route in [Some(route), decoded.filter(|other| other.rule != route.rule)].into_iter().flatten() {
            if route.labels.purge() {
                self.purge_labelled(&route.labels, path, outdated);
            }
        }
    }

    /// The tags under one number. There is nobody to hear of an error: what is too long for a tag is what only those bear that bear every tag, and what is no
    /// pattern, as none should be, is everything.
    fn purge_labelled(&self, labels: &Labels, path: &str, outdated: &mut Outdated) {
        count(&self.counters.invalidations);
        let named = labels.purged_tags(path);
        let named = named.iter().map(|name| name.trim_end_matches(':')).filter(|name| !name.is_empty());
        let hashes: Vec<u64> = named.flat_map(|name| self.touched_by(name)).collect();
        if !hashes.is_empty() {
            outdated.purge(Target::tags(&hashes, None), Force::Hard, None);
        }
        // Anybody may write to many paths: so many patterns that all counts as purged mustn't come of it.
        for glob in labels.purged_globs(path, self.purges.is_crowded()) {
            let target = self.target(&Selector::Glob(glob), |_, _| None);
            outdated.purge(target.unwrap_or(Target::Everything), Force::Hard, None);
        }
    }
}
