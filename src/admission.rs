//! The first look at a request: is it looked up, is it a write that invalidates, or does the cache keep out of it?

use std::sync::Arc;

use http::{Extensions, HeaderMap, Method, Request};
use http_body::Body;
use smallvec::SmallVec;

use crate::cache::CacheCore;
use crate::clock::Moment;
use crate::key::{CacheKey, LONGEST, Part};
use crate::live::Live;
use crate::outcome::{BypassReason, CacheOutcome, Outcome};
use crate::post::would_be_get;
use crate::query::{self, ContentDigest, is_query};
use crate::regime::Regime;
use crate::request::{
    RequestFacts, RequestHead, Scheme, decoded, is_ambiguous_path, is_suspect_path, rewritten, target_of,
};
use crate::rfc9111::authority::{Authority, without_default_port};
use crate::rfc9111::coding::Accepts;
use crate::rfc9111::directives::RequestDirectives;
use crate::rfc9111::invalidation::is_safe;
use crate::rules::Route;
use crate::strategy::Strategy;
use crate::used::{Scope, Sink};

/// Where a request goes.
pub(crate) enum Admission {
    /// To the store first.
    Lookup(Ask),
    /// Its content is read, and then to the store.
    Query(Ask),
    /// To the handler; what the rule would have made of it is only watched.
    Shadow(Ask),
    /// To the handler, and its success invalidates.
    Write(Write),
    /// To the handler, untouched.
    Forward(CacheOutcome),
}

/// What is asked of the store.
#[derive(Debug)]
pub(crate) struct Ask {
    /// When the request came.
    pub(crate) began: Moment,
    pub(crate) key: CacheKey,
    /// The key with the query as it is, where [`key`](Self::key) is by a rule that was learned from `No-Vary-Search`.
    pub(crate) plain: Option<Box<CacheKey>>,
    pub(crate) rule: Option<usize>,
    /// What the rule and the settings say now.
    pub(crate) regime: Regime,
    pub(crate) directives: RequestDirectives,
    pub(crate) is_head: bool,
    pub(crate) authorization: bool,
    pub(crate) conditions: bool,
    pub(crate) range: bool,
    /// A `Router` is around the cache. It adds `Content-Length` to what has none.
    pub(crate) in_router: bool,
    /// Its codings, where they were read with the other fields.
    accepts: Option<Accepts>,
    pub(crate) strategy: Strategy,
    /// The far store couldn't say what it has, so it isn't asked anything else for this request.
    pub(crate) store_failed: bool,
}

/// The target of an unsafe method.
#[derive(Debug)]
pub(crate) struct Write {
    /// `None` where it is ambiguous: then the target is meant on every host.
    pub(crate) authority: Option<Authority>,
    pub(crate) scheme: Option<Scheme>,
    pub(crate) target: String,
    pub(crate) outcome: CacheOutcome,
    /// What the answer could answer as well, if it may be stored.
    pub(crate) would_be_get: Option<Box<Ask>>,
}

/// The caches that have a request in hand, so that another layer of one of them inside passes it through, and handlers find the cache around them.
/// Several, since caches may lie within each other in any order.
#[derive(Clone, Default)]
pub(crate) struct InHand(SmallVec<[Holder; 1]>);

/// One of them.
#[derive(Clone)]
struct Holder {
    mark: u64,
    #[cfg_attr(not(feature = "axum"), expect(dead_code, reason = "only handlers of axum ask for it"))]
    live: Arc<Live>,
    /// Where the tags go that the answer is made from, if it may be stored.
    sink: Option<Sink>,
}

impl InHand {
    /// Adds a cache to a request that goes inside.
    pub(crate) fn mark(live: &Arc<Live>, cache: &CacheCore, extensions: &mut Extensions, sink: Option<Sink>) {
        let sink = sink.filter(|_| cache.settings.propagate_tags);
        extensions.get_or_insert_default::<Self>().0.push(Holder { mark: cache.mark, live: live.clone(), sink });
    }

    fn is_of(&self, cache: &CacheCore) -> bool {
        self.0.iter().any(|holder| holder.mark == cache.mark)
    }

    /// The responses that may be stored of what the handler says.
    pub(crate) fn scope(&self) -> Scope {
        Scope::of(self.0.iter().filter_map(|holder| holder.sink.clone()))
    }

    /// The one that is nearest to the handler.
    #[cfg(feature = "axum")]
    pub(crate) fn innermost(&self) -> Option<Arc<Live>> {
        self.0.last().map(|holder| holder.live.clone())
    }
}

/// Decides where `request` goes, in this order:
///
/// 1. A request that another layer of this cache has in hand is forwarded.
/// 2. Unsafe methods write; other methods than GET and HEAD, and QUERY if that is switched on, are forwarded.
/// 3. What the key can't speak for is forwarded: content, rerouting fields, upgrades, an ambiguous host or path.
/// 4. What the rule's audience excludes is forwarded.
/// 5. Where the rule is in shadow, it is forwarded and watched.
/// 6. All else is looked up under its key, a QUERY when its content was read.
#[inline(always)] // What is asked is large, and isn't moved so.
pub(crate) fn admit<B: Body>(cache: &CacheCore, request: &Request<B>, now: Moment) -> Admission {
    let mut admission = consider(cache, request, !is_empty(request.body()), now);
    match &mut admission {
        Admission::Lookup(ask) => ask.follow_rule(cache),
        Admission::Query(_) | Admission::Shadow(_) => {}
        Admission::Write(write) => {
            if let Some(ask) = &mut write.would_be_get {
                ask.follow_rule(cache);
            }
        }
        Admission::Forward(outcome) => warn(cache, request, outcome),
    }
    admission
}

/// The decision of [`admit`], without what follows from it: the key has the query as it is, and nobody is warned. `has_content` is what the
/// body says of itself.
#[inline(always)] // As `admit`.
pub(crate) fn consider<B>(cache: &CacheCore, request: &Request<B>, has_content: bool, now: Moment) -> Admission {
    let head = RequestHead::of(request);
    let facts = RequestFacts::read(head.headers);
    let route = cache.rules.route(head.uri.path());
    let forward = |reason| Admission::Forward(CacheOutcome::new(Outcome::Bypass(reason), route.rule));
    if head.extensions.get::<InHand>().is_some_and(|in_hand| in_hand.is_of(cache)) {
        return forward(BypassReason::Nested);
    }
    let asks_with_content = cache.settings.query.is_some() && is_query(head.method);
    if !matches!(*head.method, Method::GET | Method::HEAD) && !asks_with_content {
        return if is_safe(head.method) {
            forward(BypassReason::Method)
        } else {
            write(cache, request, &head, &facts, route, now)
        };
    }
    let obstacle = if facts.upgrade {
        Some(BypassReason::Upgrade)
    } else if !asks_with_content && (facts.content || has_content) {
        Some(BypassReason::RequestContent)
    } else if facts.rerouted {
        Some(BypassReason::Rerouted)
    } else if facts.strips_fields {
        Some(BypassReason::ConnectionOption)
    } else if route.policy.has_ttl() && may_be_another_path(cache, head.uri.path(), route) {
        Some(BypassReason::AmbiguousPath)
    } else {
        route.policy.bypasses(&head, &facts)
    };
    if let Some(reason) = obstacle {
        return forward(reason);
    }
    let mut ask = Ask {
        is_head: *head.method == Method::HEAD,
        authorization: facts.authorization,
        conditions: facts.conditions,
        range: facts.range,
        // It says where the client's URI is.
        in_router: !std::ptr::eq(head.uri, request.uri()),
        accepts: cache.settings.compression.is_on().then(|| facts.accepts()).flatten(),
        ..Ask::plain(route, facts.directives(head.headers), now)
    };
    if let Err(reason) = write_key(&mut ask.key, cache, request, &head, &facts, route) {
        return forward(reason);
    }
    if route.policy.shadow {
        return Admission::Shadow(ask);
    }
    if asks_with_content { Admission::Query(ask) } else { Admission::Lookup(ask) }
}

/// What is said, in the log, about a request that the cache keeps out of.
#[cold]
fn warn<B>(cache: &CacheCore, request: &Request<B>, outcome: &CacheOutcome) {
    let (route, path) = (cache.rules.get(outcome.rule), RequestHead::of(request).uri.path());
    match outcome.outcome {
        Outcome::Bypass(BypassReason::Nested) => route.watch_nested(path),
        Outcome::Bypass(BypassReason::Credentials) => route.warn_of_credentials(path),
        _ => {}
    }
}

/// Whether a handler may read another path than the one that the rule matched. A rule vouches for that one; of another it says nothing.
fn may_be_another_path(cache: &CacheCore, path: &str, route: &Route) -> bool {
    let is_read_otherwise = || decoded(path).is_some_and(|path| cache.rules.route(&path).rule != route.rule);
    is_suspect_path(path) && (is_ambiguous_path(path) || is_read_otherwise())
}

fn write<B>(
    cache: &CacheCore,
    request: &Request<B>,
    head: &RequestHead<'_>,
    facts: &RequestFacts<'_>,
    route: &Route,
    now: Moment,
) -> Admission {
    let outcome = CacheOutcome::new(Outcome::Bypass(BypassReason::Method), route.rule);
    let (authority, scheme) = (facts.authority(head.uri), head.extensions.get().copied());
    let would_be_get =
        would_be_get(cache, head, facts, route, now, |key| write_key(key, cache, request, head, facts, route))
            .filter(|_| !route.policy.has_ttl() || !may_be_another_path(cache, head.uri.path(), route));
    Admission::Write(Write { authority, scheme, target: target_of(head.uri), outcome, would_be_get })
}

fn is_empty<B: Body>(body: &B) -> bool {
    body.is_end_stream() || body.size_hint().exact() == Some(0)
}

/// Writes the key of a request into an empty one, where it stays: to move it as often as it is handed on would cost more than to write it.
fn write_key<B>(
    key: &mut CacheKey,
    cache: &CacheCore,
    request: &Request<B>,
    head: &RequestHead<'_>,
    facts: &RequestFacts<'_>,
    route: &Route,
) -> Result<(), BypassReason> {
    let (path, query) = (head.uri.path(), route.policy.query(head.uri.query()));
    match facts.only_host(head.uri) {
        Some(host) => key.write_with_host(without_default_port(host, None), path, query.as_deref()),
        None => key.write(&facts.authority(head.uri).ok_or(BypassReason::AmbiguousHost)?, path, query.as_deref()),
    }
    if let Some(Scheme(scheme)) = head.extensions.get() {
        key.push(Part::Scheme, scheme.as_bytes());
    }
    if facts.forwarded {
        crate::forwarded::extend_key(key, head.headers, facts.forwarded_rarely);
    }
    if let Some(rewritten) = rewritten(head.uri, request) {
        key.push(Part::Rewritten, target_of(rewritten).as_bytes());
    }
    route.policy.extend_key(key, head, &cache.secret)?;
    if key.as_bytes().len() > LONGEST { Err(BypassReason::KeyTooLong) } else { Ok(()) }
}

impl Ask {
    /// Of a GET without credentials, conditions and range, whose key is still to be written.
    #[inline(always)] // As `admit`.
    pub(crate) fn plain(route: &Route, directives: RequestDirectives, began: Moment) -> Self {
        Self {
            began,
            key: CacheKey::empty(),
            plain: None,
            rule: route.rule,
            regime: route.regime,
            directives,
            is_head: false,
            authorization: false,
            conditions: false,
            range: false,
            in_router: false,
            accepts: None,
            strategy: route.policy.strategy,
            store_failed: false,
        }
    }

    /// Under the key that a rule learned from `No-Vary-Search` gives, if there is one.
    pub(crate) fn follow_rule(&mut self, cache: &CacheCore) {
        if cache.settings.no_vary_search
            && let Some(key) = cache.searches.find(&self.key)
        {
            self.plain = Some(Box::new(std::mem::replace(&mut self.key, key)));
        }
    }

    /// Of a QUERY, whose content is known now; its query is as it is. An error is the reason to forward it.
    pub(crate) fn with_content(
        mut self,
        content: Option<ContentDigest>,
        headers: &HeaderMap,
    ) -> Result<Self, CacheOutcome> {
        let forward = |reason| CacheOutcome::new(Outcome::Bypass(reason), self.rule);
        let content = content.ok_or(forward(BypassReason::QueryContent))?;
        query::extend_key(&mut self.key, content, headers);
        if self.key.as_bytes().len() > LONGEST { Err(forward(BypassReason::KeyTooLong)) } else { Ok(self) }
    }

    /// Whether the client has neither conditions nor a range, so that a response for it needs no second look.
    pub(crate) fn is_plain(&self) -> bool {
        !self.conditions && !self.range
    }

    /// The codings that the client accepts; `headers` are its fields.
    pub(crate) fn accepts(&self, headers: &HeaderMap) -> Accepts {
        self.accepts.unwrap_or_else(|| Accepts::of(headers))
    }

    /// Whether the client wants an answer from the store or none (§5.2.1.7).
    pub(crate) fn only_if_cached(&self) -> bool {
        self.directives.only_if_cached
    }
}
