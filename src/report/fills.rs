//! What is learned from a response on its way into the store.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use super::answers::name_of;
use super::digest::Digest;
use super::dimension::{self, DimensionKind};
use super::totals::Totals;
use super::{AskedSince, KNOWN, ONE_IN, Observation, Observations, RouteSeen, Seen, TURN, as_millis, millis};
use crate::cache::CacheCore;
use crate::clock::Moment;
use crate::key::CacheKey;
use crate::outcome::ForwardReason;
use crate::response::Stamp;
use crate::rfc9111::reuse::Terms;
use crate::sent_fields::SentFields;
use crate::sync::Ordering;
use crate::variance::Variance;

/// Content up to this size is hashed for this alone; of larger content there is an entity tag.
const HASHED: usize = 64 << 10;

/// For how long two answers are taken to be of the same time, where the lifetime is longer or there is none.
const SAME_TIME: Duration = Duration::from_secs(60);

/// How a response that may be stored was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Trail {
    pub(crate) rule: Option<usize>,
    pub(crate) why: ForwardReason,
    pub(crate) sent: Moment,
    /// Whether a client waits for it.
    pub(crate) attended: bool,
    /// What the request said in the fields that the rule adds to the key.
    pub(crate) key_headers: Vec<(HeaderName, u64)>,
}

/// A response that is about to be stored.
#[derive(Clone, Copy)]
pub(crate) struct Coming<'a> {
    pub(crate) key: &'a CacheKey,
    pub(crate) variance: &'a Variance,
    pub(crate) terms: &'a Terms,
    pub(crate) received: Moment,
    pub(crate) stamp: &'a Stamp,
    /// `None` where the handler confirmed what was stored before.
    pub(crate) content: Option<Content<'a>>,
}

/// Content that is there as a whole, with its SHA-256, where that was made, and its entity tag.
#[derive(Clone, Copy)]
pub(crate) struct Content<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) sha: Option<&'a [u8; 32]>,
    pub(crate) tag: Option<&'a HeaderValue>,
}

/// What was seen of a response, until it is known whether it was stored.
pub(crate) struct FillSeen {
    route: Arc<RouteSeen>,
    observation: Observation,
    /// Whether others may be answered with it, if it is stored.
    is_reusable: bool,
}

impl Observations {
    /// The hash of content that is there as a whole: from SHA-256 where that was made, else of the bytes, or of the entity tag where they are many.
    fn content(&self, content: &Content<'_>) -> Seen {
        match (content.sha, content.tag) {
            (Some(sha), _) => Seen::Content(self.hash(sha)),
            (None, _) if content.bytes.len() <= HASHED => Seen::Content(Digest::of(&self.key, content.bytes)),
            (None, Some(tag)) => Seen::Content(self.hash(tag.as_bytes())),
            (None, None) => Seen::Unseen,
        }
    }

    /// By which a response is found among others.
    fn tag(&self, key: &CacheKey, variance: &Variance) -> u64 {
        self.hash((key.as_bytes(), &variance.key))
    }
}

impl CacheCore {
    /// Whether the content of a response on its way into the store is looked at; counted if so. When a route is known well, only what a key that is followed brings, and of all others
    /// one path in [`ONE_IN`].
    fn looks_into(&self, route: &RouteSeen, coming: &Coming<'_>, tag: u64) -> bool {
        let observations = &self.observations;
        let at = millis(coming.received);
        let is_turn = || observations.hash((coming.key.path(), at / TURN)).is_multiple_of(ONE_IN);
        let looks =
            route.looked_into.load(Ordering::Relaxed) < KNOWN || is_turn() || observations.tracks.wants(tag, at);
        if looks {
            route.looked_into.fetch_add(1, Ordering::Relaxed);
        }
        looks
    }

    /// Prepares to learn from what a request to the handler brings; `None` where nothing is learned.
    pub(crate) fn trail(
        &self,
        rule: Option<usize>,
        why: ForwardReason,
        sent: Moment,
        attended: bool,
        asked: &SentFields,
    ) -> Option<Trail> {
        let names = &self.rules.get(rule).policy.key_headers;
        let key_headers = || {
            if names.is_empty() {
                return Vec::new();
            }
            let asked = asked.to_map();
            names.iter().map(|name| (name.clone(), self.observations.lines(&asked, name))).collect()
        };
        self.settings.observe_answers.then(|| Trail { rule, why, sent, attended, key_headers: key_headers() })
    }

    /// Looks at a response that the handler gave or confirmed, before it is stored; `None` where nothing is learned.
    pub(crate) fn see_fill(&self, trail: &Trail, coming: Coming<'_>) -> Option<FillSeen> {
        let route = self.observations.route(self.rules.get(trail.rule))?;
        let Coming { key, variance, terms, received, stamp, content } = coming;
        let tag = self.observations.tag(key, variance);
        let content = match &content {
            None => Seen::Confirmed,
            Some(content) if self.looks_into(&route, &coming, tag) => self.observations.content(content),
            Some(_) => Seen::Unseen,
        };
        let asked_since = match trail.why {
            ForwardReason::Stale => AskedSince::Stale,
            ForwardReason::VaryMiss | ForwardReason::UriMiss => AskedSince::Nothing,
            _ => AskedSince::Wanted,
        };
        let (lifetime, age) = (terms.lifetime, terms.initial_age);
        // What is to be validated each time is a question of no lifetime.
        let is_reusable = !terms.no_cache && lifetime > age;
        if content != Seen::Confirmed {
            let ends = millis(received).saturating_add(as_millis(lifetime.saturating_sub(age).min(SAME_TIME)));
            let content = if let Seen::Content(content) = content { Some(content) } else { None };
            let answer = Answer { key, variance, received, content, ends };
            answer.note_dimensions(&self.observations, &route, trail);
        }
        // Of what nobody looked at, nothing is compared later.
        let is_followed = content != Seen::Unseen;
        let observation = Observation {
            tag,
            asked: trail.sent,
            received,
            age,
            content,
            lifetime: Some(lifetime),
            asked_since,
            attended: trail.attended,
            stamp: if is_followed { stamp.clone() } else { Stamp::default() },
            writes: if is_followed { self.writes_to(key) } else { 0 },
        };
        Some(FillSeen { route, observation, is_reusable })
    }

    /// Learns from a response that was, or was not, stored.
    pub(crate) fn note_fill(&self, seen: FillSeen, is_stored: bool) {
        let FillSeen { route, mut observation, is_reusable } = seen;
        if !is_stored || !is_reusable {
            (observation.content, observation.lifetime) = (Seen::Unseen, None);
        }
        self.observations.note(&route, &self.purges, observation);
    }

    /// How many writes there were to the path of a key.
    pub(crate) fn writes_to(&self, key: &CacheKey) -> u64 {
        std::str::from_utf8(key.path()).map_or(0, |path| self.counters.writes.count(path))
    }
}

/// A response with what is needed to compare it with others of its route.
struct Answer<'a> {
    key: &'a CacheKey,
    variance: &'a Variance,
    received: Moment,
    content: Option<u64>,
    ends: u64,
}

impl Answer<'_> {
    /// Notes each query parameter and each field that variants or keys are told apart by. All else of the key is the sum of the hashes of
    /// its parts, so that one of them can be taken out of it.
    fn note_dimensions(&self, observations: &Observations, route: &RouteSeen, trail: &Trail) {
        let (query, fields) = (self.key.query().unwrap_or_default(), &self.variance.fields);
        if query.is_empty() && fields.is_empty() && trail.key_headers.is_empty() {
            return;
        }
        let parameters = query.split('&').filter(|pair| !pair.is_empty());
        let parameters = parameters.map(|pair| {
            let name = name_of(pair.as_bytes()).and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default();
            (DimensionKind::Query, name, observations.hash(("query", pair)))
        });
        let fields = self.variance.said().map(|(name, said)| {
            let said = said.map(|line| line.as_bytes());
            (DimensionKind::Vary, name.as_str(), observations.hash((name.as_str(), said)))
        });
        let headers = trail.key_headers.iter().map(|(name, said)| (DimensionKind::KeyHeader, name.as_str(), *said));
        let parts: SmallVec<[_; 8]> = parameters.chain(fields).chain(headers).collect();
        // Only what was looked at is compared with others.
        let path = || observations.hash((self.key.path(), self.key.partition(), self.key.origin().authority));
        let path = if self.content.is_some() { path() } else { 0 };
        let sum = parts.iter().fold(path, |sum: u64, (_, _, hash)| sum.wrapping_add(*hash));
        self.note_all(&mut route.totals(), &parts, sum);
    }

    fn note_all(&self, totals: &mut Totals, parts: &[(DimensionKind, &str, u64)], sum: u64) {
        // What has no name tells answers apart, and can't be named.
        for (kind, name, value) in parts.iter().filter(|(_, name, _)| !name.is_empty()) {
            let rest = sum.wrapping_sub(*value);
            let (content, at, ends) = (self.content, millis(self.received), self.ends);
            totals.dimensions.note(*kind, name, dimension::Seen { value: *value, rest, content, at, ends });
        }
    }
}

impl Observations {
    /// A hash of all lines of a field.
    pub(super) fn lines(&self, headers: &HeaderMap, name: &HeaderName) -> u64 {
        let mut lines = headers.get_all(name).iter();
        match (lines.next(), lines.next()) {
            (None, _) => 0,
            (Some(only), None) => self.hash(only.as_bytes()),
            (Some(_), Some(_)) => {
                let all: Vec<&[u8]> = headers.get_all(name).iter().map(|line| line.as_bytes()).collect();
                self.hash(&all)
            }
        }
    }
}
