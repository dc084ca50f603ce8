//! What the cache would do with a request, and why. It is decided by the functions that decide for a request (`consider`, `choose`, `weigh`,
//! [`Course`], `portion`), so that an explanation can't differ from what happens; and since deciding does nothing, neither does explaining.

mod text;
mod values;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};

pub use self::values::{
    EarlierSettings, ExplainedFill, ExplainedKey, ExplainedResponse, ExplainedRule, ExplainedVariant, Explanation,
    KeyPart,
};
use crate::admission::{Admission, Ask, consider};
use crate::adoption::NotAdopted;
use crate::cache::CacheCore;
use crate::clock::Moment;
use crate::course::Course;
use crate::description::set_by;
use crate::form::Form;
use crate::handle::CacheHandle;
use crate::key::{CacheKey, Part};
use crate::lookup::Lookup;
use crate::outcome::{BypassReason, CacheOutcome, ForwardReason, Outcome};
use crate::query::ContentDigest;
use crate::request::{RequestFacts, RequestHead, target_of};
use crate::respond::portion;
use crate::response::StoredResponse;
use crate::rfc9111::coding::Accepts;
use crate::rfc9111::freshness::LifetimeSource;
use crate::rfc9111::groups::{CACHE_GROUPS, named};
use crate::rfc9111::reuse::{Reuse, reuse};
use crate::rfc9111::{targeted, validation};
use crate::standing_in::{in_its_place, may_stand_in};
use crate::storage::{Query, Variants};
use crate::tiers::Tier;

impl CacheHandle {
    /// What the cache would do with a request, and why: the rule, the key, what is stored for it and on which terms, and what would change that.
    /// It is the decision that a request itself would meet, and nothing else happens: nothing is counted, fetched, refreshed or used, and no
    /// entry looks more wanted than it was. A store of one's own is asked as for a request; the one in memory answers without waiting.
    ///
    /// A request has no content here. A GET that announces some ([`BypassReason::RequestContent`](crate::BypassReason::RequestContent)) and a
    /// QUERY without any are explained as they are. What layers outside of the cache attach to requests, such as a user for
    /// [`Policy::per`](crate::Policy::per), is to be attached to this one.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use larder::{BypassReason, CacheLayer, Outcome, Policy};
    /// let layer = CacheLayer::in_memory(64 << 20).rule("^/checkout/", Policy::bypass());
    /// let request = http::Request::get("/checkout/1").header("host", "shop.test").body(()).unwrap();
    /// let explanation = layer.handle().explain(&request).await;
    /// let outcome = explanation.outcome.unwrap().outcome;
    /// assert_eq!(outcome, Outcome::Bypass(BypassReason::Rule));
    /// println!("{explanation}");
    /// # });
    /// ```
    pub async fn explain(&self, request: &Request<()>) -> Explanation {
        let core = self.live.load_full();
        self.live.keep_coherent();
        if core.coherence.is_beginning() {
            core.coherence.begun().await;
        }
        let now = core.now();
        core.explain(request, now).await
    }
}

/// What the stores have under a key.
struct Peeked {
    /// What a look-up would find.
    found: Lookup,
    /// All of it, with the store that has it.
    variants: Vec<(Arc<StoredResponse>, Tier)>,
    store_error: Option<String>,
}

impl CacheCore {
    async fn explain(&self, request: &Request<()>, now: Moment) -> Explanation {
        match consider(self, request, false, now) {
            Admission::Forward(outcome) => self.explanation(request, outcome.rule, now).with(self, outcome),
            Admission::Shadow(ask) => {
                let outcome = CacheOutcome::new(Outcome::Bypass(BypassReason::Shadow), ask.rule);
                self.explanation(request, ask.rule, now).with(self, outcome)
            }
            Admission::Write(write) => {
                let explanation = self.explanation(request, write.outcome.rule, now).with(self, write.outcome);
                Explanation { invalidates: true, ..explanation }
            }
            Admission::Lookup(ask) => self.explain_look_up(request, ask, now).await,
            Admission::Query(ask) => {
                let explanation = self.explanation(request, ask.rule, now);
                if RequestFacts::read(request.headers()).content {
                    return explanation;
                }
                match ask.with_content(Some(ContentDigest::of_nothing()), request.headers()) {
                    Ok(ask) => self.explain_look_up(request, ask, now).await,
                    Err(outcome) => explanation.with(self, outcome),
                }
            }
        }
    }

    /// What is known of any request.
    fn explanation(&self, request: &Request<()>, rule: Option<usize>, now: Moment) -> Explanation {
        let head = RequestHead::of(request);
        let pattern = rule.and_then(|n| self.rules.all().nth(n)?.0);
        let policy = &self.rules.get(rule).policy;
        // Which closure names the principals means nothing to people.
        let settings = set_by(policy).filter(|(name, _)| !matches!(*name, "audience" | "principal" | "strategy"));
        Explanation {
            method: head.method.clone(),
            target: target_of(head.uri),
            at: now.wall,
            rule: ExplainedRule {
                index: rule,
                pattern: pattern.map(str::to_owned),
                audience: policy.audience.as_str(),
                strategy: policy.strategy,
                settings: settings.collect(),
            },
            outcome: None,
            cache_status: String::new(),
            status: None,
            key: None,
            variants: Vec::new(),
            stored: None,
            fate: None,
            fill: None,
            invalidates: false,
            store_error: None,
        }
    }

    async fn explain_look_up(&self, request: &Request<()>, mut ask: Ask, now: Moment) -> Explanation {
        let headers = request.headers();
        let learned = if self.settings.no_vary_search { self.searches.peek(&ask.key) } else { None };
        let search = learned.map(|(key, variance)| {
            ask.plain = Some(Box::new(std::mem::replace(&mut ask.key, key)));
            variance.to_string()
        });
        let Peeked { found, variants, store_error } = self.peek(&ask, headers, now).await;
        let is_near = |stored: &Arc<StoredResponse>| {
            variants.iter().any(|(other, tier)| *tier == Tier::Near && Arc::ptr_eq(other, stored))
        };
        let found = match found.response() {
            _ if self.coherence.is_trusted(now) => found,
            Some(stored) if is_near(stored) => self.in_doubt(found, &ask, now),
            _ => Lookup::Miss(ForwardReason::Distrusted),
        };
        let chosen = found.response().cloned();
        let (found, earlier) = match found {
            Lookup::Earlier(stored) => match self.weigh_earlier(&stored, &ask, now) {
                Ok(found) => (found, Some(EarlierSettings::Adopted)),
                Err(why) => (Lookup::Miss(ForwardReason::UriMiss), Some(why.into())),
            },
            found => (found, None),
        };
        let used = found.response().or(chosen.as_ref()).cloned();
        let course = Course::of(found, &ask, now);
        let outcome = course.outcome(&ask, now);
        let key = ask.plain.as_deref().unwrap_or(&ask.key);
        Explanation {
            status: course.status(self, &ask, headers),
            key: Some(explained_key(key, search)),
            variants: variants.iter().map(|stored| self.variant(stored, &ask.key, chosen.as_ref(), now)).collect(),
            stored: used.map(|stored| self.response(&stored, earlier, &ask, now)),
            fate: self.fates.of(&ask.key),
            fill: match &course {
                Course::Fetch(why, previous) => Some(self.fill(*why, previous.as_deref(), &ask, headers, now)),
                _ => None,
            },
            store_error,
            ..self.explanation(request, ask.rule, now).with(self, outcome)
        }
    }

    /// What the stores have, as a look-up would find it, and what went wrong if one couldn't say.
    async fn peek(&self, ask: &Ask, headers: &HeaderMap, now: Moment) -> Peeked {
        let choose = |variants: &Variants| self.choose(variants, ask, headers, now).map(Arc::clone);
        let near = self.settings.backend.near.as_ref();
        let mut variants = near.map(|near| near.peek(&ask.key, |all| all.iter().cloned().map(Arc::new).collect()));
        let variants = variants.take().unwrap_or_default();
        let near = choose(&variants);
        let all = |variants: &Variants, tier| variants.iter().map(|stored| (stored.clone(), tier)).collect::<Vec<_>>();
        let mut peeked = Peeked { found: near, variants: all(&variants, Tier::Near), store_error: None };
        let settled = self.settle(choose(&variants), ask, now);
        let Some(far) = self.far_for(&ask.key).filter(|_| !self.is_enough(&settled, now)) else { return peeked };
        match far.get(Query::new(&ask.key, headers, now)).await {
            Ok(variants) => {
                let found = choose(&variants);
                if self.tier(&settled, &self.settle(choose(&variants), ask, now), now) == Tier::Far {
                    peeked.found = found;
                }
                peeked.variants.extend(all(&variants, Tier::Far));
            }
            Err(error) => {
                peeked.found = self.near_alone(peeked.found, now);
                peeked.store_error = Some(error.to_string());
            }
        }
        peeked
    }

    fn variant(
        &self,
        (stored, tier): &(Arc<StoredResponse>, Tier),
        key: &CacheKey,
        chosen: Option<&Arc<StoredResponse>>,
        now: Moment,
    ) -> ExplainedVariant {
        let nominated = stored.variance.said().map(|(name, said)| {
            let shown = said.filter(|_| is_of_negotiation(name));
            (name.to_string(), shown.map(text))
        });
        ExplainedVariant {
            nominated: nominated.collect(),
            status: stored.status,
            age: stored.age(now),
            number: stored.stamp.number,
            valid: self.is_valid(stored, key),
            chosen: chosen.is_some_and(|chosen| Arc::ptr_eq(chosen, stored)),
            is_near: *tier == Tier::Near,
        }
    }

    fn response(
        &self,
        stored: &StoredResponse,
        earlier: Option<EarlierSettings>,
        ask: &Ask,
        now: Moment,
    ) -> ExplainedResponse {
        let (terms, age) = (stored.current_terms(), stored.age(now));
        let head = stored.origin_head();
        let is_targeted = terms.source == Some(LifetimeSource::Targeted);
        let field = targeted::directives(&head, &self.settings.targets).1.filter(|_| is_targeted);
        let validate = match reuse(&terms, age, &ask.directives, ask.authorization) {
            Reuse::Validate(why) => Some(why),
            _ => None,
        };
        // By the wall clock of now, whatever it said when the response arrived.
        let end = |end: Duration, since: Duration| {
            let left = end.checked_sub(since);
            left.map_or_else(|| now.wall.checked_sub(since - end), |left| now.wall.checked_add(left))
        };
        let resident = now.since(stored.received);
        let idle_end = stored.upkeep.as_ref().and_then(|upkeep| upkeep.idle_end());
        let of_head = |name| stored.head.get(&name).map(text);
        ExplainedResponse {
            status: stored.status,
            received: stored.received.wall,
            age,
            lifetime: terms.lifetime,
            source: terms.source,
            field: field.map(HeaderName::to_string),
            fresh_until: end(terms.lifetime, age),
            unused_until: idle_end.and_then(|idle_end| end(idle_end, resident)),
            refreshes_ahead: stored.upkeep.as_ref().is_some_and(|upkeep| upkeep.refreshes()),
            stale_while_revalidate: terms.stale_while_revalidate,
            stale_if_error: terms.stale_if_error,
            no_stale: terms.no_stale,
            validate,
            etag: of_head(header::ETAG),
            own_etag: stored.origin.own_etag,
            last_modified: of_head(header::LAST_MODIFIED),
            own_last_modified: stored.origin.own_last_modified,
            groups: named(&head, &CACHE_GROUPS),
            tags: stored.tags().map(str::to_owned).collect(),
            bears_every_tag: stored.bears_every_tag(),
            size: stored.size(),
            length: stored.plain_length(),
            coding: match stored.form {
                Form::Coded { by, .. } => Some(by.coding.name()),
                _ => None,
            },
            number: stored.stamp.number,
            kept_until: end(stored.keep, resident),
            earlier,
        }
    }

    fn fill(
        &self,
        why: ForwardReason,
        previous: Option<&StoredResponse>,
        ask: &Ask,
        headers: &HeaderMap,
        now: Moment,
    ) -> ExplainedFill {
        let whole = self.wants_whole(ask, previous, now);
        let confirms =
            |previous: &StoredResponse| validation::make_conditional(&mut headers.clone(), &previous.origin_head());
        let stand_in = |disconnected| {
            let stored = previous.filter(|stored| may_stand_in(ask, stored, now, disconnected))?;
            Some(in_its_place(ask, stored.current_terms().is_fresh(stored.age(now))))
        };
        ExplainedFill {
            missed: self.cause(ask, why),
            conditional: whole && previous.is_some_and(confirms),
            whole,
            if_it_fails: stand_in(self.settings.stale_when_disconnected),
            if_unavailable: stand_in(false),
            under_way: self.flights.under_way(self.purges.stamp(&ask.key, 0).path, &ask.key),
            alone: self.hit_for_miss.has(self.asked(ask), now),
        }
    }
}

impl Course {
    /// What the answer would say of itself, as far as it is known before the handler is asked.
    fn outcome(&self, ask: &Ask, now: Moment) -> CacheOutcome {
        let of_stored = |outcome, stored: &StoredResponse, lifetime| {
            CacheOutcome::of_stored(outcome, ask.rule, stored.age(now), lifetime)
        };
        match self {
            Self::Hit(stored) | Self::Ahead(stored) => of_stored(Outcome::Hit, stored, stored.lifetime_if_used(now)),
            Self::Stale(stored, reason) => of_stored(Outcome::Stale(*reason), stored, stored.lifetime()),
            Self::Fetch(why, _) | Self::Refuse(why) => CacheOutcome::new(Outcome::Miss(*why), ask.rule),
        }
    }

    fn status(&self, core: &CacheCore, ask: &Ask, headers: &HeaderMap) -> Option<StatusCode> {
        match self {
            Self::Hit(stored) | Self::Ahead(stored) | Self::Stale(stored, _) => {
                let asked = (!ask.is_plain()).then_some(headers);
                let (_, shape) = portion(core, stored, asked, || Accepts::of(headers), ask.is_head);
                Some(shape.status(stored.status))
            }
            Self::Refuse(_) => Some(StatusCode::GATEWAY_TIMEOUT),
            Self::Fetch(..) => None,
        }
    }
}

impl Explanation {
    /// With what would be done.
    fn with(self, core: &CacheCore, outcome: CacheOutcome) -> Self {
        let status = outcome.cache_status(&core.settings.switches.name);
        Self { outcome: Some(outcome), cache_status: String::from_utf8_lossy(&status).into_owned(), ..self }
    }
}

impl From<NotAdopted> for EarlierSettings {
    fn from(why: NotAdopted) -> Self {
        match why {
            NotAdopted::OtherAudience => Self::OtherAudience,
            NotAdopted::Purged => Self::Purged,
            NotAdopted::Declined(reason) => Self::Declined(reason),
        }
    }
}

fn explained_key(key: &CacheKey, search: Option<String>) -> ExplainedKey {
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (mut authority, mut path, mut query, mut parts) = (String::new(), String::new(), None, Vec::new());
    for (kind, value) in key.parts() {
        match kind {
            Part::Authority => authority = lossy(value),
            Part::Path => path = lossy(value),
            Part::Query => query = Some(lossy(value)),
            Part::Scheme => parts.push(KeyPart::Scheme(lossy(value))),
            Part::Rewritten => parts.push(KeyPart::Rewritten(lossy(value))),
            Part::Partition => parts.push(KeyPart::Partition),
            Part::Content => parts.push(KeyPart::Content),
            Part::FieldName => add_field(&mut parts, lossy(value)),
            Part::FieldLine | Part::Forwarded => {
                if let Some(KeyPart::Field { lines, .. }) = parts.last_mut() {
                    *lines += 1;
                }
            }
            Part::CookieName => parts.push(KeyPart::Cookie { name: lossy(value), count: 0 }),
            Part::Cookie => {
                if let Some(KeyPart::Cookie { count, .. }) = parts.last_mut() {
                    *count += 1;
                }
            }
            // By a learned rule; `search` says which. And of a value, nobody asks by a request.
            Part::Search | Part::Data => {}
        }
    }
    ExplainedKey { authority, path, query, search, parts }
}

/// A field that has several lines is named before each of them.
fn add_field(parts: &mut Vec<KeyPart>, field: String) {
    if !matches!(parts.last(), Some(KeyPart::Field { name, .. }) if *name == field) {
        parts.push(KeyPart::Field { name: field, lines: 0 });
    }
}

/// Whether a field says only what a client can read.
fn is_of_negotiation(name: &HeaderName) -> bool {
    matches!(*name, header::ACCEPT | header::ACCEPT_CHARSET | header::ACCEPT_ENCODING | header::ACCEPT_LANGUAGE)
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}
