//! [`Witness`]: an answer that passes without being stored, since the rule is in shadow, or the request or the answer keeps it out of the cache. What it
//! would have been worth is learned from a hash of its content, taken as that passes.

use std::sync::{Arc, LazyLock};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode, header};
use http_body::{Body, Frame};

use super::answers::{Answered, Names, Said, name_of, said};
use super::digest::Digest;
use super::findings::{RequestPart, Uncached};
use super::{AskedSince, Compared, Observation, Observations, RouteSeen, Seen, as_millis, millis};
use crate::admission::Ask;
use crate::cache::CacheCore;
use crate::cached::Cached;
use crate::clock::Moment;
use crate::key::CacheKey;
use crate::outcome::{BypassReason, CacheOutcome, Outcome};
use crate::plan::fits;
use crate::policy::{Policy, cookies};
use crate::precedence::{Arrival, Verdict, judge};
use crate::request::RequestHead;
use crate::response::Stamp;
use crate::rfc9111::date;
use crate::rfc9111::fields::is_hop_by_hop;
use crate::rfc9111::storability::DeclineReason;
use crate::rfc9111::vary::{Vary, variant_key};
use crate::sent_fields::SentFields;

/// Of what is neither stored nor in shadow, content up to this size is looked at, and only where its length is known.
const LOOKED_AT: u64 = 64 << 10;

/// What a response that isn't cached is judged by, to find out whether it may be: as one for everybody, and for so long.
static WOULD_BE: LazyLock<Policy> = LazyLock::new(|| Policy::shared(Duration::from_secs(60)));

/// Fields that belong to one request, say nothing to a handler, or are in the key as it is. Cookies are told apart by name.
const PASSED_OVER: [header::HeaderName; 11] = [
    header::HOST,
    header::COOKIE,
    header::CONTENT_LENGTH,
    header::RANGE,
    header::IF_RANGE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    header::CACHE_CONTROL,
    header::PRAGMA,
];

/// Fields that say who asks.
const CREDENTIALS: [header::HeaderName; 2] = [header::COOKIE, header::AUTHORIZATION];

/// Why an answer isn't stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    Shadow,
    Uncached(Uncached),
}

/// A request whose answer will be looked at.
pub(crate) struct Witness {
    core: Arc<CacheCore>,
    rule: Option<usize>,
    route: Arc<RouteSeen>,
    key: CacheKey,
    why: Why,
    /// The request's fields.
    asked: HeaderMap,
    /// Hashes of the query parameters that the key ignores, with their names where they have one.
    ignored: Vec<(Option<String>, u32)>,
    authorization: bool,
    request_no_store: bool,
    sent: Moment,
    stamp: Stamp,
    writes: u64,
}

/// What was known before the handler was asked, where something asked for it beside the witness.
pub(crate) struct Departed {
    pub(crate) sent: Moment,
    pub(crate) stamp: Stamp,
}

impl Witness {
    /// Of a request under a rule in shadow: its key is the one that the rule gives. With what is said of it.
    pub(crate) fn in_shadow(core: &Arc<CacheCore>, ask: Ask, head: &RequestHead<'_>) -> (CacheOutcome, Option<Self>) {
        let outcome = CacheOutcome::new(Outcome::Bypass(BypassReason::Shadow), ask.rule);
        let Ask { key, rule, began: sent, directives, .. } = ask;
        if *head.method != Method::GET {
            return (outcome, None);
        }
        let departed = Departed { sent, stamp: core.purges.stamp(&key, core.purges.current()) };
        let mut witness = Self::of(core, rule, key, Why::Shadow, head.headers.clone(), departed);
        if let Some(witness) = &mut witness {
            witness.request_no_store = directives.no_store;
            witness.ignored = ignored(core, &core.rules.get(rule).policy, head);
        }
        (outcome, witness)
    }

    /// Of a request that isn't looked up. Only where a word of the rule could change that, and of a route that is known only of some.
    pub(crate) fn of_bypass(
        core: &Arc<CacheCore>,
        outcome: &CacheOutcome,
        head: &RequestHead<'_>,
        sent: Moment,
    ) -> Option<Self> {
        let Outcome::Bypass(reason) = outcome.outcome else { return None };
        let is_its_word = matches!(reason, BypassReason::Rule | BypassReason::NetworkOnly | BypassReason::Credentials);
        if !is_its_word || *head.method != Method::GET || !core.settings.observe_answers {
            return None;
        }
        let route = core.observations.route(core.rules.get(outcome.rule))?;
        if !core.observations.looks_at(&route, (head.uri.path(), head.uri.query()), sent) {
            return None;
        }
        let named = head.uri.authority().map(|authority| authority.as_str().as_bytes());
        let authority = named.or(head.headers.get(header::HOST).map(|host| host.as_bytes()));
        let key = CacheKey::new(authority.unwrap_or_default(), head.uri.path(), head.uri.query());
        let departed = Departed { sent, stamp: core.purges.stamp(&key, core.purges.current()) };
        Self::of(core, outcome.rule, key, Why::Uncached(Uncached::Bypass(reason)), head.headers.clone(), departed)
    }

    /// Of a request whose answer wasn't stored. Only where a word of the rule could change that.
    pub(crate) fn of_declined(
        core: &Arc<CacheCore>,
        rule: Option<usize>,
        key: &CacheKey,
        reason: DeclineReason,
        asked: &SentFields,
        departed: Departed,
    ) -> Option<Self> {
        use DeclineReason::{Authorization, NoFreshness, VaryCredentials};
        if !matches!(reason, Authorization | NoFreshness | VaryCredentials) {
            return None;
        }
        let why = Why::Uncached(Uncached::Declined(reason));
        Self::of(core, rule, key.clone(), why, asked.to_map(), departed)
    }

    fn of(
        core: &Arc<CacheCore>,
        rule: Option<usize>,
        key: CacheKey,
        why: Why,
        asked: HeaderMap,
        Departed { sent, stamp }: Departed,
    ) -> Option<Self> {
        if !core.settings.observe_answers {
            return None;
        }
        let route = core.observations.route(core.rules.get(rule))?;
        let writes = core.writes_to(&key);
        Some(Self {
            core: core.clone(),
            rule,
            route,
            key,
            why,
            ignored: Vec::new(),
            authorization: asked.contains_key(header::AUTHORIZATION),
            request_no_store: false,
            asked,
            sent,
            stamp,
            writes,
        })
    }

    /// The head of the answer has come: what is to be learned when its content has passed.
    pub(crate) fn answered<B: Body>(self, response: &Response<B>, received: Moment) -> Option<Watch> {
        let exact = response.body().size_hint().exact();
        let length = exact.unwrap_or_default();
        let is_small = exact.is_some() && length <= LOOKED_AT;
        let verdict = self.judge(response, received, exact);
        let (lifetime, vary) = match (verdict, Vary::parse(response.headers())) {
            (Ok(verdict), Vary::Fields(fields)) => (verdict.terms.lifetime, fields),
            _ => {
                self.route.totals().compared.not_storable += 1;
                self.note_unseen(received);
                return None;
            }
        };
        if !is_small && self.why != Why::Shadow {
            self.note_unseen(received);
            return None;
        }
        let variant = self.core.observations.hash(variant_key(&vary, &self.asked, self.core.settings.matching));
        let (observations, now) = (&self.core.observations, millis(received));
        let compared = observations.hash((self.key.as_bytes(), "compared"));
        let (said, partition) = {
            let mut totals = self.route.totals();
            totals.varies_by_user |= vary.iter().any(|name| CREDENTIALS.contains(name));
            (self.said(&mut totals.names, &vary), totals.partition)
        };
        // Where answers are known to depend on something, lifetimes are tried as if that were in the key.
        let apart: Vec<_> = said.iter().filter(|(bit, _)| partition & 1 << bit != 0).collect();
        let tag = observations.hash((self.key.as_bytes(), variant, apart));
        if !observations.answers.wants(compared, now) && !observations.tracks.wants(tag, now) {
            self.note_unseen(received);
            return None;
        }
        let digest = Digest::new(&observations.key);
        let most = self.core.settings.max_body_size as u64;
        Some(Watch { witness: self, digest, left: most, said, variant, tag, compared, lifetime, received })
    }

    /// Whether a cache would have stored it: one with this rule, where that is in shadow; else one for whose every user it is.
    fn judge<B: Body>(
        &self,
        response: &Response<B>,
        received: Moment,
        exact: Option<u64>,
    ) -> Result<Verdict, DeclineReason> {
        if response.status() != StatusCode::OK {
            return Err(DeclineReason::Status);
        }
        let settings = &self.core.settings;
        let policy = match self.why {
            Why::Shadow => &self.core.rules.get(self.rule).policy,
            Why::Uncached(_) => &WOULD_BE,
        };
        let mut head = response.headers();
        let without_vary;
        if self.why == Why::Uncached(Uncached::Declined(DeclineReason::VaryCredentials)) {
            let mut copy = head.clone();
            copy.remove(header::VARY);
            without_vary = copy;
            head = &without_vary;
        }
        let arrival = Arrival {
            method: &Method::GET,
            authorization: self.authorization,
            request_no_store: self.request_no_store,
            status: response.status(),
            headers: head,
            handler: response.extensions().get::<Cached>(),
            date: date::field(head, header::DATE).unwrap_or(received.wall),
            received: received.wall,
            delay: received.since(self.sent),
            spread: 0,
        };
        let verdict = judge(&arrival, policy, settings)?;
        fits(settings, response.headers(), exact).map(|()| verdict)
    }

    /// What the request says, apart from what the answer nominates itself, and from what is no matter to a handler.
    fn said(&self, names: &mut Names, nominated: &[http::HeaderName]) -> Said {
        let observations = &self.core.observations;
        let counts =
            |name: &&http::HeaderName| !PASSED_OVER.contains(name) && !is_hop_by_hop(name) && !nominated.contains(name);
        let fields: Vec<_> = self.asked.keys().filter(counts).collect();
        let mut parts = Vec::with_capacity(fields.len() + 4);
        for name in fields {
            let bit = names.bit(RequestPart::Field, name.as_str());
            parts.push((bit, observations.lines(&self.asked, name) as u32));
        }
        let nominates_cookies = nominated.contains(&header::COOKIE);
        for (_, pair) in cookies(&self.asked).filter(|_| !nominates_cookies) {
            let name = name_of(pair).map(String::from_utf8_lossy);
            let bit = name.map_or(Names::nameless(), |name| names.bit(RequestPart::Cookie, &name));
            parts.push((bit, observations.hash(pair) as u32));
        }
        for (name, hash) in &self.ignored {
            let name = name.as_deref();
            parts.push((name.map_or(Names::nameless(), |name| names.bit(RequestPart::Parameter, name)), *hash));
        }
        said(parts)
    }

    /// It counts, though its content wasn't looked at.
    fn note_unseen(self, received: Moment) {
        let (observations, purges) = (&self.core.observations, &self.core.purges);
        let seen = self.observation(0, received, Seen::Unseen);
        observations.note(&self.route, purges, seen);
    }

    fn observation(&self, tag: u64, received: Moment, content: Seen) -> Observation {
        Observation {
            tag,
            asked: self.sent,
            received,
            age: received.since(self.sent),
            content,
            lifetime: None,
            asked_since: AskedSince::Nothing,
            attended: true,
            stamp: self.stamp.clone(),
            writes: self.writes,
        }
    }
}

/// The query parameters that the key doesn't have.
fn ignored(core: &CacheCore, policy: &Policy, head: &RequestHead<'_>) -> Vec<(Option<String>, u32)> {
    let pairs = head.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| (pair, pair.split('=').next().unwrap_or_default()))
        .filter(|(_, name)| !policy.query.counts(name))
        .map(|(pair, _)| {
            let name = name_of(pair.as_bytes()).map(|name| String::from_utf8_lossy(name).into_owned());
            (name, core.observations.hash(pair) as u32)
        })
        .collect()
}

/// Content that is hashed as it passes.
pub(crate) struct Watch {
    witness: Witness,
    digest: Digest,
    /// How much more content may come.
    left: u64,
    said: Said,
    variant: u64,
    tag: u64,
    compared: u64,
    /// For how long a cache would have served it.
    lifetime: Duration,
    received: Moment,
}

impl Watch {
    /// Follows what a body yields; `is_over` tells whether nothing comes behind it. Content that breaks off, grows too large or has trailers teaches nothing.
    pub(crate) fn follow<E>(
        watch: &mut Option<Box<Self>>,
        polled: &Poll<Option<Result<Frame<Bytes>, E>>>,
        is_over: impl FnOnce() -> bool,
    ) {
        let Some(mut watching) = watch.take() else { return };
        match polled {
            Poll::Pending => *watch = Some(watching),
            Poll::Ready(None) => watching.end(),
            Poll::Ready(Some(Err(_))) => {}
            Poll::Ready(Some(Ok(frame))) => {
                let Some(data) = frame.data_ref() else { return };
                let Some(left) = watching.left.checked_sub(data.len() as u64) else { return };
                watching.left = left;
                watching.digest.update(data);
                if is_over() { watching.end() } else { *watch = Some(watching) }
            }
        }
    }

    /// All of it has passed.
    pub(crate) fn end(self: Box<Self>) {
        let Self { witness, digest, said, variant, tag, compared, lifetime, received, .. } = *self;
        let (core, content) = (&witness.core, digest.finish());
        let now = millis(received);
        // Before the comparison, which may find that from now on more belongs into the key.
        let seen = witness.observation(tag, received, Seen::Content(content));
        core.observations.note(&witness.route, &core.purges, seen);
        let answered = Answered { variant, content, said, ends: now.saturating_add(as_millis(lifetime)) };
        core.observations.compare(&witness, compared, answered, now);
    }
}

impl Observations {
    /// Holds an answer against those that were given under the same key.
    fn compare(&self, witness: &Witness, tag: u64, answered: Answered, now: u64) {
        let mut pairs = Vec::new();
        let purges = &witness.core.purges;
        let served = self.answers.see(tag, now, |known| {
            let fresh =
                || Compared { answers: Default::default(), stamp: witness.stamp.clone(), writes: witness.writes };
            let compared = known.get_or_insert_with(fresh);
            if compared.writes != witness.writes || !purges.is_untouched(&compared.stamp) {
                compared.answers.clear();
            }
            (compared.stamp, compared.writes) = (witness.stamp.clone(), witness.writes);
            compared.answers.compare(answered, now, |parts, same| pairs.push((parts, same)))
        });
        let Some(served) = served else { return };
        let mut totals = witness.route.totals();
        if let Why::Uncached(why) = witness.why {
            totals.repeats = Some(why);
        }
        let compared = &mut totals.compared;
        compared.keys.add(tag);
        pairs.into_iter().for_each(|(parts, same)| compared.explanation.compare(parts, same));
        if let Some(same) = served {
            compared.answers += 1;
            compared.differing += u64::from(!same);
            // It takes a moment, and finds the same for long: so seldom.
            if compared.answers >= 32 && (compared.answers.is_power_of_two() || compared.answers.is_multiple_of(1024)) {
                totals.find_partition();
            }
        }
    }
}
