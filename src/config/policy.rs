//! The policy in a rule's table: the fields of [`Policy`]'s setters under the same names.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use http::{HeaderMap, HeaderName, header};
use regex::Regex;

use super::reader::{Field, Section};
use crate::expiry::{Expiry, JITTER, REFRESH_AHEAD};
use crate::labels::check;
use crate::partition::Quota;
use crate::policy::Policy;
use crate::principal::{Called, Principal};
use crate::request::RequestHead;
use crate::rfc9111::list;
use crate::strategy::Strategy;

/// A policy that may lack its principal, which code gives.
#[derive(Clone)]
pub(super) struct Draft {
    pub(super) policy: Policy,
    pub(super) principal: Option<Named>,
}

/// A principal by name, and where it is named.
#[derive(Clone)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) span: Range<usize>,
    pub(super) field: String,
    pub(super) ttl: Duration,
}

/// Named sets of key settings.
pub(super) type KeySets<'d> = HashMap<String, Section<'d>>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Audience {
    FromOrigin,
    Shared,
    Per,
    Guarded,
    Bypass,
}

const AUDIENCES: [(&str, Audience); 5] = [
    ("from_origin", Audience::FromOrigin),
    ("shared", Audience::Shared),
    ("per", Audience::Per),
    ("guarded", Audience::Guarded),
    ("bypass", Audience::Bypass),
];

/// The fields of a policy that ask a question of their own, beside those that only set something.
struct Questions<'d> {
    audience: Option<Audience>,
    ttl: Option<Field<'d>>,
    principal: Option<Field<'d>>,
    /// All fields of a policy that are there, but for the audience.
    present: Vec<Field<'d>>,
}

const FIELDS: [&str; 31] = [
    "ttl",
    "principal",
    "quota",
    "strategy",
    "network_limit",
    "override_origin",
    "status_ttl",
    "statuses",
    "downstream",
    "stale_while_revalidate",
    "stale_if_error",
    "fill_timeout",
    "jitter",
    "sliding",
    "refresh_ahead",
    "refresh_within",
    "heuristics",
    "drop_set_cookie",
    "store_post",
    "strip_credentials",
    "ignore_cookies",
    "keys",
    "sort_query",
    "ignore_query",
    "only_query",
    "key_headers",
    "key_cookies",
    "tags",
    "purges_tags",
    "purges_globs",
    "shadow",
];

/// What counts for writes, which go to the handler under every policy.
const FOR_WRITES: [&str; 2] = ["purges_tags", "purges_globs"];

/// Reads a policy. `None` where so much is wrong that there is none; what is wrong is in the findings in any case.
/// `pattern` is that of the rule, if it is one.
pub(super) fn read(section: &Section<'_>, sets: &KeySets<'_>, pattern: Option<&Regex>) -> Option<Draft> {
    let audience = match section.field("audience") {
        Some(field) => field.word(&AUDIENCES),
        None => {
            section.wrong("`audience` is missing: `from_origin`, `shared`, `per`, `guarded` or `bypass`");
            None
        }
    };
    let present = FIELDS.iter().filter_map(|name| section.field(name)).collect();
    let questions = Questions { audience, ttl: section.field("ttl"), principal: section.field("principal"), present };
    refuse_contradictions(section, &questions);
    let ttl = section.duration("ttl");
    let principal = questions.principal.as_ref().and_then(|field| principal(field, ttl.unwrap_or_default()));
    // Everything is read, whatever was wrong before it, so that all is reported at once.
    let set = |policy| labels(keys(settings(policy, section), section, sets), section, pattern);
    let (policy, principal) = match (audience?, ttl, principal) {
        (Audience::FromOrigin, ..) => (Policy::from_origin(), None),
        (Audience::Bypass, ..) => (Policy::bypass(), None),
        (Audience::Shared, ttl, _) => (Policy::shared(ttl.unwrap_or_default()), None),
        (Audience::Guarded, ttl, _) => (Policy::guarded(ttl.unwrap_or_default()), None),
        (Audience::Per, ttl, Some(Who::Found(principal))) => {
            (Policy::per_principal(principal, ttl.unwrap_or_default()), None)
        }
        (Audience::Per, _, Some(Who::Named(named))) => (Policy::bypass(), Some(named)),
        (Audience::Per, ttl, None) => (Policy::shared(ttl.unwrap_or_default()), None),
    };
    Some(Draft { policy: set(policy), principal })
}

/// What can't all be meant.
fn refuse_contradictions(section: &Section<'_>, asked: &Questions<'_>) {
    let Some(audience) = asked.audience else { return };
    let find = |name: &str| asked.present.iter().find(|field| field.path.rsplit('.').next() == Some(name));
    if audience == Audience::Bypass {
        let name = |field: &&Field<'_>| field.path.rsplit('.').next().unwrap_or_default().to_owned();
        for field in asked.present.iter().filter(|field| !FOR_WRITES.contains(&name(field).as_str())) {
            field.wrong("has no effect: what bypasses is neither looked up nor stored");
        }
        return;
    }
    match (audience, &asked.ttl) {
        (Audience::FromOrigin, Some(ttl)) => {
            ttl.wrong(
                "`from_origin` has no TTL of its own; say for whom the answers are: `shared`, `per` or `guarded`",
            );
        }
        (Audience::Shared | Audience::Per | Audience::Guarded, None) => {
            section.wrong("`ttl` is missing: how long an answer is good where the handler doesn't say it");
        }
        _ => {}
    }
    match (audience, &asked.principal) {
        (Audience::Per, None) => section
            .wrong("`principal` is missing: a name given in code, { header = \"NAME\" } or { cookie = \"NAME\" }"),
        (Audience::Per, Some(_)) | (_, None) => {}
        (_, Some(principal)) => principal.wrong("has a meaning only with audience = \"per\""),
    }
    if let Some(field) = find("ignore_cookies").filter(|_| audience != Audience::Guarded) {
        field.wrong("has a meaning only with audience = \"guarded\": to the others cookies don't matter");
    }
    if let Some(field) = find("quota").filter(|_| audience != Audience::Per) {
        field.wrong("has a meaning only with audience = \"per\": it bounds what one principal has");
    }
    let is_network_first = find("strategy").is_some_and(|field| field.text() == Some("network_first"));
    if let Some(field) = find("network_limit").filter(|_| !is_network_first) {
        field.wrong("has a meaning only with strategy = \"network_first\"");
    }
    let asks_store_first = |strategy: &str| !matches!(strategy, "network_first" | "network_only" | "cache_only");
    let strategy = find("strategy").and_then(|field| field.text());
    if let Some(strategy) = strategy.filter(|strategy| !asks_store_first(strategy)) {
        for field in [find("refresh_ahead"), find("refresh_within")].into_iter().flatten() {
            field.wrong(format!("has no effect with strategy = \"{strategy}\": a hit there refreshes nothing"));
        }
    }
    if let Some(field) = find("override_origin").filter(|_| asked.ttl.is_none() && find("status_ttl").is_none()) {
        field.wrong("there is nothing to override with: neither `ttl` nor `status_ttl` is set");
    }
    if let Some(field) = find("key_cookies").filter(|_| section.boolean("strip_credentials") == Some(true)) {
        field.wrong("`strip_credentials` hides these cookies from the handler, so its answer can't depend on them");
    }
}

enum Who {
    Found(Principal),
    Named(Named),
}

/// A name that code gives a closure for, or a field or cookie.
fn principal(field: &Field<'_>, ttl: Duration) -> Option<Who> {
    if !field.is_table() {
        let name = field.text()?.to_owned();
        return Some(Who::Named(Named { name, span: field.span(), field: field.path.clone(), ttl }));
    }
    let section = field.section()?;
    let (by_header, by_cookie) = (section.field("header"), section.field("cookie"));
    section.finish();
    let principal = match (by_header, by_cookie) {
        (Some(name), None) => {
            let name = name.header_name()?;
            let called = Called::Header(name.clone());
            Principal::of(called, move |head| only_line(head.headers, &name).map(<[u8]>::to_vec))
        }
        (None, Some(name)) => {
            let name = name.text()?.to_owned();
            let called = Called::Cookie(name.clone());
            Principal::of(called, move |head| only_cookie(head, &name).map(<[u8]>::to_vec))
        }
        _ => {
            section.wrong("it is either { header = \"NAME\" } or { cookie = \"NAME\" }");
            return None;
        }
    };
    Some(Who::Found(principal))
}

/// The value of a field that has exactly one line and says something: of two lines it isn't known which one the handler goes by.
fn only_line<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut lines = headers.get_all(name).iter();
    let line = lines.next().filter(|_| lines.next().is_none())?;
    Some(list::trim(line.as_bytes())).filter(|value| !value.is_empty())
}

/// The value of a cookie that is there exactly once and says something.
fn only_cookie<'a>(head: &RequestHead<'a>, name: &str) -> Option<&'a [u8]> {
    let pairs = head.headers.get_all(header::COOKIE).into_iter().flat_map(|line| line.as_bytes().split(|b| *b == b';'));
    let mut values = pairs.filter_map(|pair| {
        let mut parts = pair.splitn(2, |b| *b == b'=');
        let is_it = list::trim(parts.next()?) == name.as_bytes();
        is_it.then(|| list::trim(parts.next().unwrap_or_default()))
    });
    let value = values.next().filter(|_| values.next().is_none())?;
    Some(value).filter(|value| !value.is_empty())
}

fn settings(mut policy: Policy, section: &Section<'_>) -> Policy {
    let on = |name| section.boolean(name) == Some(true);
    if on("override_origin") {
        policy = policy.override_origin();
    }
    if on("drop_set_cookie") {
        policy = policy.drop_set_cookie();
    }
    if on("shadow") {
        policy = policy.shadow();
    }
    if on("strip_credentials") {
        policy = policy.strip_credentials();
    }
    if let Some(on) = section.boolean("heuristics") {
        policy = policy.heuristics(on);
    }
    if let Some(on) = section.boolean("store_post") {
        policy = policy.store_post(on);
    }
    if let Some(lifetime) = section.duration("downstream") {
        policy = policy.downstream(lifetime);
    }
    if let Some(window) = section.duration("stale_while_revalidate") {
        policy = policy.stale_while_revalidate(window);
    }
    if let Some(window) = section.duration("stale_if_error") {
        policy = policy.stale_if_error(window);
    }
    if let Some(limit) = section.duration("fill_timeout") {
        policy = policy.fill_timeout(limit);
    }
    policy = ends(policy, section);
    if let Some(field) = section.field("statuses") {
        policy = policy.statuses(field.list(Field::storable_status));
    }
    if let Some(strategy) = strategy(section) {
        policy = policy.strategy(strategy);
    }
    if let Some(quota) = section.field("quota").and_then(|field| field.section()) {
        let (bytes, responses) = (quota.size("bytes"), quota.field("responses").and_then(|field| field.number(1)));
        quota.finish();
        let responses = responses.map(|responses| usize::try_from(responses).unwrap_or(usize::MAX));
        let usual = Quota::default();
        policy = policy.quota(bytes.unwrap_or(usual.bytes), responses.unwrap_or(usual.responses));
    }
    for (status, ttl) in status_ttls(section) {
        policy = policy.status_ttl(status, ttl);
    }
    policy.ignore_cookies(section.texts("ignore_cookies"))
}

/// When responses end, beside how long they live.
fn ends(mut policy: Policy, section: &Section<'_>) -> Policy {
    if let Some(fraction) = section.field("jitter").and_then(|field| field.decimal(Expiry::is_jitter, JITTER)) {
        policy = policy.jitter(fraction);
    }
    if let Some(idle) = section.field("sliding").and_then(|field| field.duration_above_zero()) {
        policy = policy.sliding(idle);
    }
    let beta = section.field("refresh_ahead");
    if let Some(beta) = beta.and_then(|field| field.decimal(Expiry::is_refresh_ahead, REFRESH_AHEAD)) {
        policy = policy.refresh_ahead(beta);
    }
    if let Some(remaining) = section.field("refresh_within").and_then(|field| field.duration_above_zero()) {
        policy = policy.refresh_within(remaining);
    }
    policy
}

fn strategy(section: &Section<'_>) -> Option<Strategy> {
    let limit = section.duration("network_limit");
    section.field("strategy")?.word(&[
        ("cache_first", Strategy::CacheFirst),
        ("network_first", Strategy::NetworkFirst { limit }),
        ("stale_while_revalidate", Strategy::StaleWhileRevalidate),
        ("network_only", Strategy::NetworkOnly),
        ("cache_only", Strategy::CacheOnly),
    ])
}

fn status_ttls(section: &Section<'_>) -> Vec<(http::StatusCode, Duration)> {
    let Some(table) = section.field("status_ttl").and_then(|field| field.section()) else { return Vec::new() };
    let entry = |(name, field): (_, Field<'_>)| {
        let status = field.storable_status_named(name);
        let ttl = field.duration();
        status.zip(ttl)
    };
    table.free().into_iter().filter_map(entry).collect()
}

/// The key settings of the rule, and those of the set that it names.
fn keys(mut policy: Policy, section: &Section<'_>, sets: &KeySets<'_>) -> Policy {
    if let Some(field) = section.field("keys")
        && let Some(name) = field.text()
    {
        match sets.get(name) {
            Some(set) => policy = own_keys(policy, set),
            None => {
                let names: Vec<_> = sets.keys().map(String::as_str).collect();
                let near = super::reader::nearest(name, &names);
                let hint = near.map_or(String::new(), |near| format!("; did you mean \"{near}\"?"));
                field.wrong(format!("there is no [keys.{}]{hint}", name.escape_debug()));
            }
        }
    }
    own_keys(policy, section)
}

/// The tags of the rule's responses, and what its writes purge. References are looked up in the rule's pattern.
fn labels(mut policy: Policy, section: &Section<'_>, pattern: Option<&Regex>) -> Policy {
    for (name, setting, set) in [
        ("tags", "tag", Policy::tag as fn(Policy, String) -> Policy),
        ("purges_tags", "purges_tag", Policy::purges_tag),
        ("purges_globs", "purges_glob", Policy::purges_glob),
    ] {
        let template = |field: &Field<'_>| {
            let text = field.text()?;
            match check(setting, text, pattern) {
                Ok(_) => Some(text.to_owned()),
                Err(reason) => {
                    field.wrong(format!("\"{}\" can't be followed: {reason}", text.escape_debug()));
                    None
                }
            }
        };
        let templates = section.field(name).map(|field| field.list(template)).unwrap_or_default();
        policy = templates.into_iter().fold(policy, set);
    }
    policy
}

/// Reads the key settings of a table.
pub(super) fn own_keys(mut policy: Policy, section: &Section<'_>) -> Policy {
    if section.boolean("sort_query") == Some(true) {
        policy = policy.sort_query();
    }
    if section.field("only_query").is_some() {
        policy = policy.only_query(section.texts("only_query"));
    }
    for name in section.header_names("key_headers").unwrap_or_default() {
        policy = policy.key_header(name);
    }
    policy.ignore_query(section.texts("ignore_query")).key_cookies(section.texts("key_cookies"))
}
