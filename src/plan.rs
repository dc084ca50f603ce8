//! [`Plan`]: a response about to be stored. All is decided when its head has arrived; what is missing is the content.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use smallvec::SmallVec;

use crate::alike::{Alike, Alikes};
use crate::boarding::{Departure, Given};
use crate::cache::CacheCore;
use crate::cached::Cached;
use crate::clock::Moment;
use crate::codec;
use crate::coder;
use crate::downstream::Downstream;
use crate::flight::Flight;
use crate::form::Form;
use crate::kept_head::{Arrived, Head, keep_own_validators};
use crate::key::CacheKey;
use crate::labels::Labels;
use crate::partition::Charge;
use crate::policy::Policy;
use crate::precedence::Verdict;
use crate::regime::Regime;
use crate::report::{Coming, Content, Trail};
use crate::response::{Origin, Stamp, StoredResponse};
use crate::rfc9111::directives::RequestDirectives;
use crate::rfc9111::reuse::{Reuse, reuse};
use crate::rfc9111::storability::{DeclineReason, has_validator};
use crate::rfc9111::vary::{Matching, Vary};
use crate::rfc9111::{date, list};
use crate::sent_fields::SentFields;
use crate::settings::Settings;
use crate::spans;
use crate::tagging::Labelled;
use crate::tally::RouteCounters;
use crate::used::Used;
use crate::variance::Variance;

/// All that is known of a response to be stored, but for its content.
pub(crate) struct Plan {
    pub(crate) core: Arc<CacheCore>,
    pub(crate) flight: Flight<Given>,
    /// By which it is remembered whether the answer may be shared.
    pub(crate) asked: u64,
    pub(crate) key: CacheKey,
    /// The key with the query as it is, where the other one is by a learned rule: what lies there is older, and must not come back when
    /// the rule is forgotten.
    hidden: Option<CacheKey>,
    regime: Regime,
    pub(crate) stamp: Stamp,
    pub(crate) received: Moment,
    pub(crate) verdict: Verdict,
    pub(crate) status: StatusCode,
    /// The head as it will be stored, without validators of the cache's own.
    head: Head,
    variance: Arc<Variance>,
    origin: Origin,
    charge: Option<Arc<Charge>>,
    pub(crate) route: Arc<RouteCounters>,
    /// Of the exchange that brought it; it ends with what becomes of that.
    pub(crate) span: tracing::Span,
    /// What the new response takes the place of.
    previous: Option<Arc<StoredResponse>>,
    /// Where a handler confirmed what is stored: by what that was held against purges, as of when the handler was asked.
    confirmed: Option<Stamp>,
    /// The length that the head announces, or else the body.
    pub(crate) announced: Option<u64>,
    /// The content is coded, and the head doesn't say that this depends on what the client accepts.
    pub(crate) silent_coding: bool,
    /// The form of its content: as it came, and that to stay so or not.
    pub(crate) form: Form,
    /// What is needed to learn from it.
    trail: Option<Trail>,
}

/// What a plan is made from.
pub(crate) struct Draft<'a> {
    pub(crate) core: &'a Arc<CacheCore>,
    pub(crate) key: CacheKey,
    /// The key with the query as it is, where the other one is by a learned rule.
    pub(crate) plain: Option<Box<CacheKey>>,
    pub(crate) regime: Regime,
    pub(crate) received: Moment,
    pub(crate) verdict: Verdict,
    pub(crate) status: StatusCode,
    pub(crate) head: &'a HeaderMap,
    pub(crate) asked: &'a SentFields,
    pub(crate) handler: Option<Cached>,
    pub(crate) policy: &'a Policy,
    pub(crate) route: &'a Arc<RouteCounters>,
    /// By which the rule's quotas are told from those of others.
    pub(crate) account: u64,
    pub(crate) labels: &'a Labels,
    pub(crate) previous: Option<Arc<StoredResponse>>,
    /// The length of the body, where it knows it: a server announces that to the client as well.
    pub(crate) exact: Option<u64>,
    /// The handler was asked for content without coding, whatever the client accepts.
    pub(crate) asked_plainly: bool,
    pub(crate) trail: Option<Trail>,
    pub(crate) alikes: &'a Alikes,
}

/// What the head of a response decides about how it is stored.
struct Told {
    variance: Arc<Variance>,
    head: Head,
    replaced: Option<Arc<HeaderMap>>,
    own_vary: bool,
    silent_coding: bool,
    form: Form,
    /// It names neither tags nor groups, nor which queries are the same.
    is_nameless: bool,
}

impl Draft<'_> {
    /// As it was told of answers that are like this one.
    fn told_before(&self, Alike { kind, head }: Alike) -> Told {
        let variance = kind.variance(self.core, self.asked);
        let (replaced, own_vary, silent_coding, is_nameless) = (None, false, false, true);
        Told { variance, head: Head::Laid(head), replaced, own_vary, silent_coding, form: Form::Fixed, is_nameless }
    }

    fn read(&self) -> Result<Told, DeclineReason> {
        let mut fields = self.nominated()?;
        let settings = &self.core.settings;
        let announced = announced_length(self.head).or(self.exact);
        let silent_coding = settings.matching == Matching::Careful
            && is_coded(self.head)
            && self.asked.has(&header::ACCEPT_ENCODING)
            && !fields.contains(&header::ACCEPT_ENCODING);
        if silent_coding {
            // It may have been chosen by what the client accepts, as `ServeDir` does without saying so; not every client can decode it.
            fields.push(header::ACCEPT_ENCODING);
        }
        if self.asked_plainly && !is_coded(self.head) {
            // Everybody who asks gets this one: the handler is always asked alike.
            fields.retain(|field| *field != header::ACCEPT_ENCODING);
        }
        let variance = self.core.variances.of(fields, self.asked, settings.matching);
        let suits = settings.compression.suits(self.status, self.head, announced, &settings.targets);
        let form = if self.asked_plainly && suits { Form::Plain } else { Form::Fixed };
        let drops_cookies = self.policy.drop_set_cookie;
        let arrived = Arrived { head: self.head, status: self.status, drops_cookies, received: self.received };
        let (head, replaced, own_vary) = Head::of(self.core, &arrived, self.verdict.downstream.as_ref(), form);
        if let Head::Laid(laid) = &head
            && self.handler.is_none()
            && !self.asked_plainly
        {
            self.alikes.learn(self.core, (self.status, self.head), &self.verdict, laid, &variance);
        }
        Ok(Told { variance, head, replaced, own_vary, silent_coding, form, is_nameless: false })
    }

    /// The fields that it varies by, or what forbids to store it.
    fn nominated(&self) -> Result<SmallVec<[HeaderName; 2]>, DeclineReason> {
        let far_only = self.core.settings.backend.near.is_none();
        if far_only && !self.core.shares_partitions && self.key.partition().is_some() {
            return Err(DeclineReason::PartitionSecret);
        }
        let announced = announced_length(self.head).or(self.exact);
        let quota = self.policy.partition_quota();
        if quota.is_some_and(|quota| announced.is_some_and(|length| length > quota.bytes)) {
            // What it was to take the place of isn't good any more.
            self.core.drop_key(&self.key);
            return Err(DeclineReason::PartitionQuota);
        }
        match Vary::parse(self.head) {
            Vary::Fields(fields) => Ok(fields),
            Vary::Any => Err(DeclineReason::VaryStar),
        }
    }
}

impl Plan {
    /// Prepares to store; the head alone may forbid it.
    pub(crate) fn new(draft: Draft<'_>, departure: Departure) -> Result<Self, DeclineReason> {
        // Those who wait go on their own at once.
        let told = draft.read().inspect_err(|_| departure.flight.decline())?;
        Ok(Self::of(draft, told, departure))
    }

    /// The same of an answer that is like earlier ones.
    pub(crate) fn of_alike(draft: Draft<'_>, alike: Alike, departure: Departure) -> Self {
        let told = draft.told_before(alike);
        Self::of(draft, told, departure)
    }

    fn of(draft: Draft<'_>, told: Told, departure: Departure) -> Self {
        let Told { variance, head, replaced, own_vary, silent_coding, form, is_nameless } = told;
        let announced = announced_length(draft.head).or(draft.exact);
        let account = draft.policy.partition_quota().zip(draft.key.partition());
        let charge = account.map(|(quota, id)| Arc::new(draft.core.partitions.charge(id, draft.account, quota)));
        let Departure { flight, stamp, changes, asked } = departure;
        let terms = &draft.verdict.terms;
        let shared =
            !matches!(reuse(terms, terms.initial_age, &RequestDirectives::default(), false), Reuse::Validate(_));
        draft.core.remember(asked, shared, draft.received);
        if !shared {
            // Each request has to ask for itself, so nobody need wait.
            flight.decline();
        }
        let used = flight.used().map(Used::so_far);
        let (key, hidden, stamp) = if is_nameless && used.is_none() && draft.plain.is_none() && !draft.labels.has_tags()
        {
            (draft.key, None, stamp)
        } else {
            let used = used.as_ref().map(|used| &used.names);
            let labelled = Labelled { labels: draft.labels, handler: draft.handler.as_ref(), head: draft.head, used };
            placed(draft.core, draft.key, draft.plain, changes, stamp, labelled)
        };
        flight.know_tags(stamp.tags.clone());
        Self {
            core: draft.core.clone(),
            flight,
            asked,
            key,
            hidden,
            regime: draft.regime,
            stamp,
            received: draft.received,
            verdict: draft.verdict,
            status: draft.status,
            head,
            variance,
            origin: Origin { replaced, handler: draft.handler.map(Arc::new), own_vary, ..Origin::default() },
            charge,
            route: draft.route.clone(),
            span: tracing::Span::current(),
            previous: draft.previous,
            announced,
            silent_coding,
            form,
            confirmed: None,
            trail: draft.trail,
        }
    }

    /// Whether a hash of the content is of use: where the handler gave no entity tag, the cache makes one.
    pub(crate) fn needs_hash(&self) -> bool {
        self.status == StatusCode::OK && self.head.etag().is_none()
    }

    /// The content turned out to be such that what it was to replace is no longer good, though it won't be stored itself.
    pub(crate) fn forget_previous(&self) {
        self.core.wholes.forget(&self.key);
        if self.previous.is_some() {
            self.core.forget(&self.key);
        }
    }

    /// The response as it will be stored, but for its content and for what is made of that.
    pub(crate) fn preview(&self) -> StoredResponse {
        let (head, body) = self.head.stored(&self.core, self.form, &Bytes::new());
        let downstream = self.verdict.downstream.clone().filter(Downstream::is_of_each_answer);
        StoredResponse {
            status: self.status,
            head,
            body,
            keep: self.verdict.keep,
            terms: self.verdict.terms,
            received: self.received,
            variance: self.variance.clone(),
            origin: self.origin.clone(),
            downstream: downstream.map(Arc::new),
            stamp: self.stamp.clone(),
            regime: self.regime,
            charge: None,
            form: self.form,
            upkeep: self.verdict.upkeep.clone(),
            route: self.route.clone(),
        }
    }

    /// Stores the response with this content, and tells what was stored.
    pub(crate) fn commit(self, body: &Bytes, hash: Option<[u8; 32]>) -> Result<Arc<StoredResponse>, DeclineReason> {
        self.commit_new(body, hash, false)
    }

    fn commit_new(
        mut self,
        body: &Bytes,
        hash: Option<[u8; 32]>,
        is_confirmed: bool,
    ) -> Result<Arc<StoredResponse>, DeclineReason> {
        self.core.bear_all(&mut self.stamp, self.flight.used());
        self.add_validators(hash);
        let (head, body) = self.head.stored(&self.core, self.form, body);
        let stored = Arc::new(StoredResponse {
            status: self.status,
            head,
            body,
            form: self.form,
            keep: self.verdict.keep,
            terms: self.verdict.terms,
            received: self.received,
            variance: self.variance,
            origin: self.origin,
            downstream: self.verdict.downstream.filter(Downstream::is_of_each_answer).map(Arc::new),
            stamp: self.stamp,
            regime: self.regime,
            charge: self.charge,
            upkeep: self.verdict.upkeep,
            route: self.route.clone(),
        });
        let seen = self.trail.as_ref().and_then(|trail| {
            let content = Content { bytes: &stored.body, sha: hash.as_ref(), tag: stored.head.get(&header::ETAG) };
            let StoredResponse { variance, terms, received, stamp, .. } = &*stored;
            let content = (!is_confirmed).then_some(content);
            self.core.see_fill(trail, Coming { key: &self.key, variance, terms, received: *received, stamp, content })
        });
        let compression = coder::Job::begin(&self.core, &self.key, &stored);
        let committed = self.core.commit(self.flight, &self.key, &stored, self.confirmed.as_ref(), compression);
        self.core.note_stored(&self.route, &self.key, committed);
        committed.err().into_iter().for_each(|reason| spans::decline(&self.span, reason));
        seen.into_iter().for_each(|seen| self.core.note_fill(seen, committed.is_ok()));
        if let Some(hidden) = self.hidden.filter(|_| committed.is_ok()) {
            self.core.drop_key(&hidden);
        }
        committed.map(|()| stored)
    }

    /// Like [`commit`](Self::commit), with the content of `previous`, which the handler confirmed.
    pub(crate) fn commit_confirmed(mut self, previous: &StoredResponse) -> Result<Arc<StoredResponse>, DeclineReason> {
        let reserved = self.core.settings.switches.names();
        keep_own_validators(self.head.open(&reserved), &mut self.origin, previous);
        let body = match (previous.form, self.form) {
            (Form::Coded { by, length }, Form::Fixed) => {
                // It must not be coded any more, as where the 304 says `no-transform`.
                codec::decode(by.coding, previous.body.clone(), u64::from(length))
                    .map_err(|_| DeclineReason::Incomplete)?
            }
            // Nothing was learned about the content.
            (known @ (Form::Coded { .. } | Form::Settled), _) if self.form.is_negotiable() => {
                self.form = known;
                previous.body.clone()
            }
            _ => previous.body.clone(),
        };
        if let Some(tags) = &previous.stamp.tags {
            // The content is made from what it was made from.
            self.core.bear_used(&mut self.stamp, tags.of_content());
        }
        // What it was purged by while it was being confirmed counts, also where it has other tags now.
        self.confirmed = Some(previous.stamp.as_of(self.stamp.number));
        self.commit_new(&body, None, true)
    }

    /// A strong entity tag from the content where the handler gave none, and, if it gave no validator at all, the time since
    /// when the content has been the same.
    fn add_validators(&mut self, hash: Option<[u8; 32]>) {
        let Some(hash) = hash.filter(|_| self.status == StatusCode::OK) else { return };
        let Head::Open(head) = &mut self.head else { return };
        let bare = !has_validator(head);
        if head.contains_key(header::ETAG) {
            return;
        }
        let tag = entity_tag(&hash, head.get(header::CONTENT_ENCODING));
        let unchanged = self.previous.as_ref().filter(|previous| previous.own_etag().as_ref() == Some(&tag));
        head.insert(header::ETAG, tag);
        self.origin.own_etag = true;
        if bare {
            let since = unchanged
                .filter(|previous| previous.origin.own_last_modified)
                .and_then(|previous| previous.head.get(&header::LAST_MODIFIED).cloned());
            head.insert(header::LAST_MODIFIED, since.unwrap_or_else(|| date::format(self.received.wall)));
            self.origin.own_last_modified = true;
        }
    }
}

/// The key that a response is stored under; the one with the query as it is, if that is another; and the stamp with all that it can be purged by.
fn placed(
    core: &CacheCore,
    mut key: CacheKey,
    plain: Option<Box<CacheKey>>,
    changes: u64,
    mut stamp: Stamp,
    labelled: Labelled<'_>,
) -> (CacheKey, Option<CacheKey>, Stamp) {
    let head = labelled.head;
    let listened_to = core.settings.no_vary_search.then_some(head);
    let place = core.searches.place(plain.as_deref().unwrap_or(&key), plain.is_some(), changes, listened_to);
    let groups = core.groups.of_response(&key, head);
    if let Some(groups) = &groups {
        // A write knows the URI, and not under which key its responses are.
        core.groups.link(&core.purges.stamp(plain.as_deref().unwrap_or(&key), 0), key.origin(), groups);
    }
    let mut hidden = plain.map(|plain| *plain);
    if let Some(own) = place.key.filter(|own| *own != key) {
        stamp = core.purges.stamp(&own, stamp.number);
        let asked = std::mem::replace(&mut key, own);
        hidden = hidden.or(Some(asked)).filter(|hidden| *hidden != key);
    }
    let spellings = place.tags.iter().flatten();
    let nameless: SmallVec<[u64; 4]> =
        groups.iter().flat_map(|groups| groups.iter()).chain(spellings).copied().collect();
    stamp.tags = core.tags(labelled, key.path(), &nameless);
    (key, hidden, stamp)
}

/// Whether the content is coded, as by compression (RFC 9110 §8.4).
pub(crate) fn is_coded(head: &HeaderMap) -> bool {
    head.get(header::CONTENT_ENCODING).is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// The length that a head announces.
pub(crate) fn announced_length(head: &HeaderMap) -> Option<u64> {
    head.get(header::CONTENT_LENGTH).and_then(|line| lengths(line).next()?)
}

/// The members of a line of `Content-Length`: a list of one number repeated is that number (RFC 9110 §8.6).
fn lengths(line: &HeaderValue) -> impl Iterator<Item = Option<u64>> {
    line.as_bytes().split(|b| *b == b',').map(|member| list::digits(list::trim(member)))
}

/// Whether a head announces several lengths, or what is no length: then nobody knows where the content was to end.
fn contradicts_itself(head: &HeaderMap) -> bool {
    let announced = announced_length(head);
    let mut all = head.get_all(header::CONTENT_LENGTH).iter().flat_map(lengths);
    all.any(|length| length.is_none() || length != announced)
}

/// Whether a response is within the limits, as far as its head and the length of its content tell.
pub(crate) fn fits(settings: &Settings, head: &HeaderMap, exact: Option<u64>) -> Result<(), DeclineReason> {
    let size: usize = head.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if size > settings.max_head_size {
        return Err(DeclineReason::HeadTooLarge);
    }
    if contradicts_itself(head) {
        return Err(DeclineReason::Incomplete);
    }
    let length = announced_length(head).or(exact).unwrap_or_default();
    if length > settings.max_body_size as u64 {
        return Err(DeclineReason::BodyTooLarge);
    }
    Ok(())
}

/// Half of a SHA-256 of the content in hexadecimal; two codings of the same content have different tags (RFC 9110 §8.8.3.3).
pub(crate) fn entity_tag(hash: &[u8; 32], coding: Option<&HeaderValue>) -> HeaderValue {
    use std::fmt::Write;
    let mut tag = String::with_capacity(48);
    tag.push('"');
    for byte in &hash[..16] {
        let _ = write!(tag, "{byte:02x}");
    }
    if let Some(coding) = coding {
        let plain = coding.as_bytes().iter().filter(|b| b.is_ascii_alphanumeric());
        tag.push('-');
        tag.extend(plain.map(|b| char::from(*b)));
    }
    tag.push('"');
    HeaderValue::try_from(tag).unwrap_or(HeaderValue::from_static("\"\""))
}
