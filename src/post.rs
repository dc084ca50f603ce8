//! Answers to POST that answer a later GET as well (RFC 9110 §9.3.3): which requests and which responses these are. Off by default, since nobody
//! but the handler knows whether it means that.

use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderMap, Method};

use crate::admission::Ask;
use crate::cache::CacheCore;
use crate::clock::Moment;
use crate::key::CacheKey;
use crate::outcome::BypassReason;
use crate::policy::Policy;
use crate::request::{RequestFacts, RequestHead};
use crate::rfc9111::freshness::stated_lifetime;
use crate::rfc9111::invalidation::is_located_at;
use crate::rfc9111::{date, targeted};
use crate::rules::Route;

impl Policy {
    /// Whether the answer to a POST is stored where it is the answer to a GET of the same URI as well (RFC 9110 §9.3.3): a 200 that states its
    /// lifetime, and whose `Content-Location` is the URI that was posted to. Not by default;
    /// [`strict_rfc`](crate::CacheLayer::strict_rfc) does.
    ///
    /// The POST invalidates what is stored first, as any write does. Answers to requests with credentials, conditions or a range, answers in
    /// partitions, and those that were overtaken by another write or a purge are not stored.
    ///
    /// ```
    /// use larder::Policy;
    /// let policy = Policy::from_origin().store_post(true);
    /// ```
    pub fn store_post(mut self, on: bool) -> Self {
        self.store_post = Some(on);
        self
    }
}

/// How often what is at a path was made invalid by a write; paths that share a place are counted together. Two equal counts mean that there was no
/// write between them.
#[derive(Debug)]
pub(crate) struct Writes {
    counts: Box<[AtomicU64]>,
    hasher: ahash::RandomState,
}

impl Default for Writes {
    fn default() -> Self {
        Self { counts: (0..1024).map(|_| AtomicU64::new(0)).collect(), hasher: ahash::RandomState::new() }
    }
}

impl Writes {
    /// Counts a write to `target`; to be called before it takes effect.
    pub(crate) fn note(&self, target: &str) {
        self.place(target).fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn count(&self, target: &str) -> u64 {
        self.place(target).load(Ordering::SeqCst)
    }

    /// Whether both targets are counted together.
    pub(crate) fn are_one(&self, one: &str, other: &str) -> bool {
        std::ptr::eq(self.place(one), self.place(other))
    }

    /// By the path alone: which queries are the same is for the rules to say, and they may have changed.
    fn place(&self, target: &str) -> &AtomicU64 {
        let path = target.split('?').next().unwrap_or_default();
        &self.counts[self.hasher.hash_one(path) as usize % self.counts.len()]
    }
}

/// What a GET of the target of this POST would ask of the store, with its query as it is, if the answer to the POST may be stored at all. Whatever could make that
/// another answer than a GET's keeps it out: what the key ignores and the handler sees, and who asks.
pub(crate) fn would_be_get(
    cache: &CacheCore,
    head: &RequestHead<'_>,
    facts: &RequestFacts<'_>,
    route: &Route,
    now: Moment,
    write_key: impl FnOnce(&mut CacheKey) -> Result<(), BypassReason>,
) -> Option<Box<Ask>> {
    let policy = &route.policy;
    let is_wanted = policy.store_post.unwrap_or(cache.settings.store_post) && !policy.shadow;
    let is_on = is_wanted && *head.method == Method::POST;
    let is_plain = || !facts.authorization && !facts.cookie && !facts.conditions && !facts.range;
    let speaks_for_itself = || !facts.upgrade && !facts.rerouted && !facts.strips_fields;
    let handler_sees_the_key =
        || !policy.is_partitioned() && policy.query(head.uri.query()).as_deref() == head.uri.query();
    if !is_on
        || !is_plain()
        || !speaks_for_itself()
        || !handler_sees_the_key()
        || policy.bypasses(head, facts).is_some()
    {
        return None;
    }
    let mut ask = Ask::plain(route, facts.directives(head.headers), now);
    write_key(&mut ask.key).ok()?;
    Some(Box::new(ask))
}

/// Whether a 200 to a POST says that it is what a GET of `target` would get, and for how long: "explicit freshness information" and "a
/// Content-Location header field that has the same value as the POST's target URI".
pub(crate) fn is_answer_to_get(cache: &CacheCore, authority: &[u8], target: &str, head: &HeaderMap) -> bool {
    let (said, targeted) = targeted::directives(head, &cache.settings.targets);
    let date = date::field(head, http::header::DATE).unwrap_or_else(|| cache.now().wall);
    stated_lifetime(&said, targeted.is_some(), head, date).is_some() && is_located_at(authority, target, head)
}
