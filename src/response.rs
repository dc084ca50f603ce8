//! [`StoredResponse`]: what is kept of a response (RFC 9111 §3), in compact memory of its own.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use smallvec::SmallVec;

use crate::cached::Cached;
use crate::clock::Moment;
use crate::downstream::Downstream;
use crate::form::{self, Form};
use crate::head::{SharedHeads, StoredHead, compact};
use crate::outcome::OWN_FIELDS;
use crate::partition::Charge;
use crate::regime::Regime;
use crate::rfc9111::date;
use crate::rfc9111::freshness::current_age;
use crate::rfc9111::reuse::Terms;
use crate::rfc9111::validation::Validators;
use crate::sync::{AtomicU64, Ordering};
use crate::tags::Tags;
use crate::tally::RouteCounters;
use crate::upkeep::Upkeep;
use crate::variance::Variance;

/// A complete response, with what was decided about it when it was stored. It never changes; a newer one takes its place.
// In this order in memory: what a plain hit reads lies together, from the lifetime in the terms to the mark of soft purges in the stamp.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct StoredResponse {
    /// As they were decided when it was stored; [`current_terms`](Self::current_terms) has them as they are now.
    pub(crate) terms: Terms,
    /// What the rule and the settings said when it was stored.
    pub(crate) regime: Regime,
    /// Which variant of its resource it is (§4.1).
    pub(crate) variance: Arc<Variance>,
    /// What is done about it while it is fresh; `None` for most. Copies share it.
    pub(crate) upkeep: Option<Arc<Upkeep>>,
    /// When its head arrived.
    pub(crate) received: Moment,
    pub(crate) body: Bytes,
    /// A `Cache-Control` that is written anew on each answer.
    pub(crate) downstream: Option<Arc<Downstream>>,
    /// Whether the content is coded, by the cache.
    pub(crate) form: Form,
    pub(crate) status: StatusCode,
    pub(crate) origin: Origin,
    /// The head as it goes out, but for what is filled in each time it does (`Age`, `X-Cache` ...).
    pub(crate) head: StoredHead,
    pub(crate) stamp: Stamp,
    /// How long from its arrival it is worth keeping: while it is fresh, may be served stale or can be validated.
    pub(crate) keep: Duration,
    /// Its place in the account of its principal, if it is for one.
    pub(crate) charge: Option<Arc<Charge>>,
    /// What the route counts under which it was stored.
    pub(crate) route: Arc<RouteCounters>,
}

/// What the origin said where the outgoing head says something else, so that a later 304 is merged with the origin's words.
#[derive(Clone, Debug, Default)]
#[repr(C)]
pub(crate) struct Origin {
    /// `ETag` is the cache's own.
    pub(crate) own_etag: bool,
    /// `Last-Modified` is the cache's own.
    pub(crate) own_last_modified: bool,
    /// The last line of `Vary` is the cache's own.
    pub(crate) own_vary: bool,
    /// `Cache-Control`, `Expires` and `Pragma` that were replaced by a downstream lifetime, and what else the head lacks of what decides on its use.
    pub(crate) replaced: Option<Arc<HeaderMap>>,
    /// What the handler said by extension: kept for a 304, which may come without.
    pub(crate) handler: Option<Arc<Cached>>,
}

/// The numbers by which a response is held against purges.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Stamp {
    /// It was held against all purges up to this number: hard ones don't touch it, and soft ones have marked it.
    verified: AtomicU64,
    /// How many nanoseconds after its arrival a soft purge made it stale; the largest number for never. Written before `verified`, so who reads that first sees it.
    stale_from: AtomicU64,
    /// The number of the newest purge when the request went to the handler.
    pub(crate) number: u64,
    /// Hash of authority, path and query.
    pub(crate) resource: u64,
    /// Hash of path and query.
    pub(crate) path: u64,
    /// What else it can be purged by; `None` for most.
    pub(crate) tags: Option<Arc<Tags>>,
    /// Hash of the principal, if it is for one.
    pub(crate) partition: Option<u64>,
    /// How long after its arrival it came to the near store, or was last found in the far one: since then, what happened to it elsewhere may have been missed.
    pub(crate) near_since: Duration,
}

/// Not marked by any soft purge.
const UNMARKED: u64 = u64::MAX;

impl Default for Stamp {
    fn default() -> Self {
        Self::new(0, 0, 0)
    }
}

impl Clone for Stamp {
    fn clone(&self) -> Self {
        // In this order: what is verified is marked.
        let verified = AtomicU64::new(self.verified());
        let stale_from = AtomicU64::new(self.stale_from.load(Ordering::Relaxed));
        Self {
            number: self.number,
            resource: self.resource,
            path: self.path,
            tags: self.tags.clone(),
            partition: self.partition,
            verified,
            near_since: self.near_since,
            stale_from,
        }
    }
}

impl Stamp {
    pub(crate) fn new(number: u64, resource: u64, path: u64) -> Self {
        let (verified, stale_from) = (AtomicU64::new(number), AtomicU64::new(UNMARKED));
        let near_since = Duration::ZERO;
        Self { number, resource, path, tags: None, partition: None, verified, near_since, stale_from }
    }

    /// The same as if it had been asked for at `number`, and no purge had been looked at since.
    pub(crate) fn as_of(&self, number: u64) -> Self {
        Self { tags: self.tags.clone(), partition: self.partition, ..Self::new(number, self.resource, self.path) }
    }

    /// Bears these tags as well. They are news, so earlier looks at the purges say nothing.
    pub(crate) fn add_tags(&mut self, tags: Arc<Tags>) {
        self.tags = Some(match &self.tags {
            Some(own) => Arc::new(own.joined(&tags)),
            None => tags,
        });
        self.verified = AtomicU64::new(self.number);
    }

    /// Of a response for one principal.
    pub(crate) fn in_partition(mut self, partition: Option<u64>) -> Self {
        self.partition = partition;
        self
    }

    /// All that it is held against purges by.
    pub(crate) fn hashes(&self) -> impl Iterator<Item = u64> {
        let tags = self.tags.iter().flat_map(|tags| tags.iter().copied());
        [self.resource, self.path].into_iter().chain(self.partition).chain(tags)
    }

    pub(crate) fn verified(&self) -> u64 {
        self.verified.load(Ordering::Acquire)
    }

    /// It was held against all purges up to `number`, and is stale from then after its arrival, if not before.
    pub(crate) fn hold(&self, stale_from: Option<Duration>, number: u64) {
        if let Some(stale_from) = stale_from {
            let nanoseconds = u64::try_from(stale_from.as_nanos()).unwrap_or(UNMARKED - 1);
            self.stale_from.fetch_min(nanoseconds, Ordering::Relaxed);
        }
        self.verified.fetch_max(number, Ordering::Release);
    }

    /// How long after its arrival a soft purge made it stale, if one did; as of the last look at purges.
    #[inline]
    pub(crate) fn stale_from(&self) -> Option<Duration> {
        match self.stale_from.load(Ordering::Relaxed) {
            UNMARKED => None,
            nanoseconds => Some(Duration::from_nanos(nanoseconds)),
        }
    }
}

/// What an entry costs beside its bytes: the structures of the store, of a response and of its header map.
const OVERHEAD: usize = 700;

/// What a response for one principal costs more: its key once more, and its place in an account.
const ACCOUNT: usize = 300;

impl StoredResponse {
    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The fields as they are sent, but for `Age` and the cache's own.
    pub fn headers(&self) -> HeaderMap {
        self.head.to_map_without(&self.reserved())
    }

    /// The fields that have places in the head, to be filled on each answer.
    fn reserved(&self) -> SmallVec<[HeaderName; 4]> {
        OWN_FIELDS.into_iter().filter(|name| self.head.get(name).is_some()).collect()
    }

    /// The content as it is stored, in the coding that [`headers`](Self::headers) names.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The tags by which it can be purged, as its rule, its handler and its fields named them, without what they are a part of (`user:1` is borne as
    /// `user` as well). Groups (RFC 9875) are not among them.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        self.stamp.tags.iter().flat_map(|tags| tags.names())
    }

    /// Whether it was to bear more tags than it may, too long a one, or one that is no text. A purge of any tag then touches it.
    pub fn bears_every_tag(&self) -> bool {
        self.stamp.tags.as_ref().is_some_and(|tags| tags.bears_every())
    }

    /// For how long the response is worth keeping, counted from its storing. A store may drop it earlier, and should not keep it longer.
    pub fn keep(&self) -> Duration {
        self.keep
    }

    /// The bytes it takes: content, head, and a fixed amount for what surrounds them. What a store counts against its bound.
    pub fn size(&self) -> usize {
        let replaced = self.origin.replaced.iter().flat_map(|head| head.values()).map(HeaderValue::len).sum::<usize>();
        let tags = self.stamp.tags.as_ref().map_or(0, |tags| tags.size());
        let said = self.origin.handler.as_ref().map_or(0, |handler| handler.size());
        let account = if self.charge.is_some() { ACCOUNT } else { 0 };
        let upkeep = if self.upkeep.is_some() { Upkeep::SIZE } else { 0 };
        OVERHEAD + account + upkeep + self.head.size() + self.body.len() + self.variance.size() + replaced + tags + said
    }

    /// Reads a little of each cache line that a hit needs, for no other purpose than to have them all on their way at once: found only where each is
    /// needed, they would be waited for one after another. The counter of references to the content lies apart, so it is first.
    #[inline]
    pub(crate) fn approach(&self) {
        let _ = self.body.is_unique();
        black_box((self.received.monotonic.subsec_nanos(), self.terms.no_cache));
        self.head.approach();
        black_box((self.downstream.is_some(), self.stamp.verified.load(Ordering::Relaxed)));
    }

    /// Whether it came to the near store, or was found in the far one, less than `ttl` ago.
    pub(crate) fn is_near_for_less_than(&self, ttl: Duration, now: Moment) -> bool {
        now.since(self.received).saturating_sub(self.stamp.near_since) < ttl
    }

    /// The same, without a byte of the memory that it was read into.
    pub(crate) fn in_memory_of_its_own(&self, heads: &SharedHeads) -> Self {
        let (head, body) = heads.store(&self.headers(), &self.reserved(), self.body.clone());
        let replaced = self.origin.replaced.as_deref().map(|replaced| Arc::new(compact(replaced)));
        let origin = Origin { replaced, ..self.origin.clone() };
        Self { head, body, origin, ..self.clone() }
    }

    /// Whether both answer the same variant of their resource.
    pub fn same_variant(&self, other: &Self) -> bool {
        let (one, other) = (&self.variance, &other.variance);
        Arc::ptr_eq(one, other) || one.fields == other.fields && one.key == other.key
    }

    /// The current age (RFC 9111 §4.2.3).
    pub(crate) fn age(&self, now: Moment) -> Duration {
        current_age(self.terms.initial_age, now.since(self.received))
    }

    /// The freshness lifetime as it is now: a soft purge ends it; and where a rule wants the response to end by disuse, each use makes it longer, up to that
    /// of the [terms](Self::terms).
    #[inline]
    pub(crate) fn lifetime(&self) -> Duration {
        if self.is_as_stored() {
            return self.terms.lifetime;
        }
        self.lifetime_until(self.upkeep.as_ref().and_then(|upkeep| upkeep.idle_end()))
    }

    /// The same if it is used now.
    pub(crate) fn lifetime_if_used(&self, now: Moment) -> Duration {
        let resident = now.since(self.received);
        self.lifetime_until(self.upkeep.as_ref().and_then(|upkeep| upkeep.idle_end_if_used(resident)))
    }

    fn lifetime_until(&self, idle_end: Option<Duration>) -> Duration {
        let ends = idle_end.into_iter().chain(self.stamp.stale_from());
        let ends = ends.map(|end| end.saturating_add(self.terms.initial_age));
        ends.fold(self.terms.lifetime, Duration::min)
    }

    /// Whether the [terms](Self::terms) are as they were when it was stored.
    #[inline]
    pub(crate) fn is_as_stored(&self) -> bool {
        self.upkeep.is_none() && self.stamp.stale_from().is_none()
    }

    /// The terms of its use as they are now.
    pub(crate) fn current_terms(&self) -> Terms {
        Terms { lifetime: self.lifetime(), ..self.terms }
    }

    pub(crate) fn validators(&self) -> Validators<'_> {
        self.head.validators()
    }

    /// The length of the content without coding, if the cache coded it.
    pub(crate) fn plain_length(&self) -> u64 {
        match self.form {
            Form::Coded { length, .. } => u64::from(length),
            _ => self.body.len() as u64,
        }
    }

    /// The same with its content in another form; `coded` is the content then.
    pub(crate) fn in_form(&self, form: Form, coded: Bytes, heads: &SharedHeads) -> Self {
        let mut head = self.headers();
        self.form.undress(&mut head);
        form.dress(&mut head);
        let (head, body) = heads.store(&head, &self.reserved(), coded);
        Self { head, body, form, ..self.clone() }
    }

    /// The head as the origin sent it: without what the cache made, with what it replaced.
    pub(crate) fn origin_head(&self) -> HeaderMap {
        let mut head = self.headers();
        self.form.undress(&mut head);
        if self.origin.own_vary {
            form::drop_vary(&mut head);
        }
        if self.origin.own_etag {
            head.remove(header::ETAG);
        }
        if self.origin.own_last_modified {
            head.remove(header::LAST_MODIFIED);
        }
        if let Some(replaced) = &self.origin.replaced {
            REPLACED.iter().for_each(|name| drop(head.remove(name)));
            for (name, value) in replaced.iter() {
                head.append(name.clone(), value.clone());
            }
        }
        head
    }

    /// The tag that the cache made of the content, if it did; of the content without coding.
    pub(crate) fn own_etag(&self) -> Option<HeaderValue> {
        self.origin.own_etag.then(|| self.plain_etag()).flatten()
    }

    /// The entity tag of the content without coding.
    pub(crate) fn plain_etag(&self) -> Option<HeaderValue> {
        self.head.etag().and_then(|_| self.head.get(&header::ETAG)).map(|tag| self.form.plain_tag(tag))
    }
}

/// The fields that a downstream lifetime replaces.
pub(crate) const REPLACED: [HeaderName; 3] = [header::CACHE_CONTROL, header::EXPIRES, header::PRAGMA];

/// The `Date` of a head; where it is missing or malformed, the time of arrival, which is then added (RFC 9110 §6.6.1).
pub(crate) fn ensure_date(head: &mut HeaderMap, received: Moment) -> std::time::SystemTime {
    date::field(head, header::DATE).unwrap_or_else(|| {
        head.insert(header::DATE, date::format(received.wall));
        received.wall
    })
}
