//! [`Alikes`]: the answers of one route mostly have one head, but for their validators. What was decided about such a head is decided for the next one that says the same, and isn't
//! found out again: to read it takes longer than all else that is done about a miss.
//!
//! Only heads of which nothing but their words counts are remembered: not those that have a date, an age, a cookie, tags or groups, or that go out in other words than they came. What
//! depends on the request or on the path is looked at each time. A route has its own, and new ones with each change of the settings.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use smallvec::SmallVec;

use crate::cache::CacheCore;
use crate::clock::Moment;
use crate::head::{OFTEN, StoredHead, compact};
use crate::plan::is_coded;
use crate::precedence::Verdict;
use crate::rfc9111::fields::is_of_one_exchange;
use crate::rfc9111::freshness::LifetimeSource;
use crate::rfc9111::groups::CACHE_GROUPS;
use crate::rfc9111::list;
use crate::rfc9111::search::NO_VARY_SEARCH;
use crate::sent_fields::SentFields;
use crate::settings::Settings;
use crate::sync::{Mutex, MutexGuard, PoisonError};
use crate::tags::TAG_FIELDS;
use crate::variance::Variance;

/// How many kinds of answers are told apart in each route.
const KINDS: usize = 4;

/// When so many more were remembered than were of use, only one in as many is.
const IN_VAIN: u32 = 32;

/// What of a route's answers are alike.
#[derive(Debug, Default)]
pub(crate) struct Alikes {
    /// The newest is the first.
    kinds: Mutex<Option<Arc<[Arc<Kind>]>>>,
    /// How many were remembered beyond those that were of use.
    in_vain: AtomicU32,
}

/// Answers that are alike.
#[derive(Debug)]
pub(crate) struct Kind {
    fields: Vec<(HeaderName, Said)>,
    /// What they count against the limit of a head, without what each says for itself.
    size: usize,
    /// How often one was stored before this is relied on: until then the head may move to memory that lasts.
    seen: u32,
    verdict: Verdict,
    head: StoredHead,
    variance: Arc<Variance>,
}

/// What a field says in each of them.
#[derive(Debug)]
enum Said {
    Always(HeaderValue),
    EntityTag,
    LastModified,
    Length,
    /// It is of one exchange, and isn't stored.
    Anything,
}

/// An answer that is like earlier ones.
pub(crate) struct Alike {
    pub(crate) kind: Arc<Kind>,
    pub(crate) head: StoredHead,
}

/// An answer whose head has arrived.
#[derive(Clone, Copy)]
pub(crate) struct Answered<'a> {
    pub(crate) status: StatusCode,
    pub(crate) head: &'a HeaderMap,
    /// The length of the body, where it knows it.
    pub(crate) exact: Option<u64>,
    pub(crate) received: Moment,
    /// How long the handler took.
    pub(crate) delay: Duration,
}

/// What an answer says for itself.
#[derive(Default)]
struct Own<'a> {
    tag: Option<&'a HeaderValue>,
    last_modified: Option<&'a HeaderValue>,
    length: Option<&'a HeaderValue>,
    size: usize,
}

impl Alikes {
    /// On which terms an answer is stored that is like earlier ones. The request must have neither credentials nor `no-store`, and the handler nothing to say beside the head.
    pub(crate) fn judge(&self, core: &CacheCore, answer: Answered<'_>) -> Option<(Verdict, Alike)> {
        let Answered { status, head, exact, received, delay } = answer;
        if status != StatusCode::OK {
            return None;
        }
        let kinds = self.kinds().clone()?;
        let (kind, own) = kinds.iter().find_map(|kind| Some((kind, kind.own(head)?)))?;
        if kind.seen < OFTEN {
            return None;
        }
        let settings = &core.settings;
        let announced = match own.length {
            Some(line) => Some(list::digits(line.as_bytes())?),
            None => exact,
        };
        if own.size > settings.max_head_size || announced.is_some_and(|length| length > settings.max_body_size as u64) {
            return None;
        }
        let verdict = kind.verdict.after(delay, settings)?;
        let head = kind.head.like(&core.heads.date(received.wall), received.wall, own.tag?, own.last_modified);
        // One that is of use makes up for one that wasn't.
        let in_vain = self.in_vain.load(Ordering::Relaxed);
        if in_vain > 0 {
            self.in_vain.store(in_vain - 1, Ordering::Relaxed);
        }
        Some((verdict, Alike { kind: kind.clone(), head }))
    }

    /// Remembers what came of an answer that is stored as it came, as `stored` and on the terms of `verdict`.
    pub(crate) fn learn(
        &self,
        core: &CacheCore,
        answer: (StatusCode, &HeaderMap),
        verdict: &Verdict,
        stored: &StoredHead,
        variance: &Arc<Variance>,
    ) {
        let (status, head) = answer;
        let in_vain = self.in_vain.load(Ordering::Relaxed);
        if status != StatusCode::OK || !is_all_said(verdict) || !stored.has_validators_only() || !is_plain(head) {
            return;
        }
        self.in_vain.store(in_vain.wrapping_add(1), Ordering::Relaxed);
        if in_vain >= IN_VAIN && !in_vain.is_multiple_of(IN_VAIN) {
            return;
        }
        let mut kinds = self.kinds();
        let known = kinds.iter().flat_map(|kinds| kinds.iter());
        let same = known.clone().position(|kind| kind.own(head).is_some());
        let seen = same.and_then(|place| known.clone().nth(place)).map_or(0, |kind| kind.seen) + 1;
        let others = known.enumerate().filter(|(place, _)| Some(*place) != same).map(|(_, kind)| kind.clone());
        let mut others: SmallVec<[Arc<Kind>; KINDS]> = others.collect();
        // As it is, its own values may share the buffer that they were read into.
        let stored = core.heads.pack(stored.clone(), &Bytes::new()).0;
        let kind = Kind::new(&core.settings, head, verdict.clone(), stored, variance.clone(), seen);
        // Those that are relied on stay: answers that are never alike would push them out one after another.
        while others.len() >= KINDS {
            let place = others.iter().rposition(|other| other.seen < OFTEN).unwrap_or(others.len() - 1);
            others.remove(place);
        }
        *kinds = Some([Arc::new(kind)].into_iter().chain(others).collect());
    }

    fn kinds(&self) -> MutexGuard<'_, Option<Arc<[Arc<Kind>]>>> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kind {
    fn new(
        settings: &Settings,
        head: &HeaderMap,
        verdict: Verdict,
        stored: StoredHead,
        variance: Arc<Variance>,
        seen: u32,
    ) -> Self {
        let head = compact(head);
        let said = |name: &HeaderName, value: &HeaderValue| match name.as_str() {
            "etag" => Said::EntityTag,
            "last-modified" => Said::LastModified,
            "content-length" => Said::Length,
            _ if is_of_one_exchange(name) && !settings.replayed.contains(name) => Said::Anything,
            _ => Said::Always(value.clone()),
        };
        let fields: Vec<_> = head.iter().map(|(name, value)| (name.clone(), said(name, value))).collect();
        let size = |(name, said): &(HeaderName, Said)| {
            name.as_str().len() + 4 + if let Said::Always(value) = said { value.len() } else { 0 }
        };
        let size = fields.iter().map(size).sum();
        Self { fields, size, seen, verdict, head: stored, variance }
    }

    /// Which variant such an answer to this request is.
    pub(crate) fn variance(&self, core: &CacheCore, asked: &SentFields) -> Arc<Variance> {
        let (variance, matching) = (&self.variance, core.settings.matching);
        match variance.fields.is_empty() || variance.was_said_by(asked) {
            true => variance.clone(),
            false => core.variances.of(variance.fields.clone(), asked, matching),
        }
    }

    /// What an answer says for itself that is of this kind.
    fn own<'a>(&self, head: &'a HeaderMap) -> Option<Own<'a>> {
        if head.len() != self.fields.len() {
            return None;
        }
        let mut own = Own { size: self.size, ..Own::default() };
        for ((name, value), (known, said)) in head.iter().zip(&self.fields) {
            if name != known {
                return None;
            }
            let place = match said {
                Said::Always(said) if said == value && said.is_sensitive() == value.is_sensitive() => continue,
                Said::Always(_) => return None,
                Said::EntityTag => &mut own.tag,
                Said::LastModified => &mut own.last_modified,
                Said::Length => &mut own.length,
                Said::Anything => &mut None,
            };
            *place = Some(value);
            own.size += value.len();
        }
        Some(own)
    }
}

/// Whether the head alone gave the terms, and it goes out as it came.
fn is_all_said(verdict: &Verdict) -> bool {
    let stated = [LifetimeSource::Targeted, LifetimeSource::SMaxage, LifetimeSource::MaxAge];
    let is_stated = verdict.terms.source.is_some_and(|source| stated.contains(&source));
    is_stated && verdict.downstream.is_none() && verdict.upkeep.is_none()
}

/// Whether nothing counts but the words of a head: neither when they were said nor on which path.
fn is_plain(head: &HeaderMap) -> bool {
    let telling: SmallVec<[HeaderName; 8]> =
        [header::DATE, header::AGE, header::SET_COOKIE, CACHE_GROUPS, NO_VARY_SEARCH]
            .into_iter()
            .chain(TAG_FIELDS)
            .collect();
    let repeated = |name: HeaderName| head.get_all(name).iter().count() > 1;
    !telling.iter().any(|name| head.contains_key(name))
        && !is_coded(head)
        && ![header::CONTENT_LENGTH, header::ETAG, header::LAST_MODIFIED].into_iter().any(repeated)
}
