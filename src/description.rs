//! What a policy and the settings say, as names and values: what a reload compares and logs, and what stored responses are held against.
//!
//! A new field of either has to be described here, or it doesn't compile: what it means for responses stored before it changed is a
//! question that must not be forgotten.

use std::collections::HashSet;
use std::time::Duration;

use http::StatusCode;
use sha2::{Digest, Sha256};

use crate::compression::Compression;
use crate::expiry::Expiry;
use crate::outcome::HeaderSwitches;
use crate::policy::{Audience, Policy};
use crate::regime::Regime;
use crate::reload::Change;
use crate::rfc9111::coding::Coding;
use crate::rules::Rule;
use crate::settings::Settings;

/// A setting by its name, with its value; empty where it isn't set.
struct Described {
    name: &'static str,
    value: String,
    matters: Matters,
}

/// What a change of a setting means for what is stored already.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Matters {
    /// It isn't used any more.
    Audience,
    /// It is judged anew.
    Terms,
    /// Nothing: it decides on what is stored from now on, on where it is looked for, or on each answer.
    Ahead,
}

/// The digests of what `policy` and `settings` say.
pub(crate) fn regime(policy: &Policy, settings: &Settings) -> Regime {
    let (all, header) = (of_policy(policy), of_switches(&settings.switches));
    let all: Vec<_> = all.into_iter().chain(header).chain(of_settings(settings)).collect();
    let digest = |counts: fn(Matters) -> bool| {
        let mut digest = Sha256::new();
        for described in all.iter().filter(|described| counts(described.matters)) {
            for part in [described.name, &described.value] {
                digest.update((part.len() as u64).to_le_bytes());
                digest.update(part);
            }
        }
        digest.finalize().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
    };
    Regime {
        whole: digest(|matters| matters != Matters::Ahead),
        audience: digest(|matters| matters == Matters::Audience),
    }
}

/// What is different in `new`, rules first.
pub(crate) fn changes(old: &Settings, new: &Settings) -> Vec<Change> {
    let mut changes = of_rules(&old.rules, &new.rules);
    compare("otherwise", of_policy(&old.otherwise), of_policy(&new.otherwise), &mut changes);
    compare("headers", of_switches(&old.switches), of_switches(&new.switches), &mut changes);
    compare("limits", of_limits(old), of_limits(new), &mut changes);
    compare("compression", of_compression(&old.compression), of_compression(&new.compression), &mut changes);
    compare("cache", of_settings(old), of_settings(new), &mut changes);
    changes
}

fn of_rules(old: &[Rule], new: &[Rule]) -> Vec<Change> {
    let mut changes = Vec::new();
    // Of two rules with the same pattern only the first one ever counts.
    let find = |rules: &'_ [Rule], pattern: &str| rules.iter().position(|rule| rule.pattern == pattern);
    for rule in old.iter().filter(|rule| find(new, &rule.pattern).is_none()) {
        changes.push(Change::Removed { rule: rule.pattern.clone() });
    }
    let mut known = HashSet::new();
    for rule in new.iter().filter(|rule| known.insert(rule.pattern.as_str())) {
        match find(old, &rule.pattern).and_then(|n| old.get(n)) {
            Some(before) => {
                let place = format!("rule {:?}", rule.pattern);
                compare(&place, of_policy(&before.policy), of_policy(&rule.policy), &mut changes);
            }
            None => changes.push(Change::Added { rule: rule.pattern.clone(), policy: summary(&rule.policy) }),
        }
    }
    let places = new.iter().filter_map(|rule| find(old, &rule.pattern));
    if !places.is_sorted() {
        changes.push(Change::Reordered { order: new.iter().map(|rule| rule.pattern.clone()).collect() });
    }
    changes
}

/// A policy in one line: what it sets.
fn summary(policy: &Policy) -> String {
    set_by(policy).map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(", ")
}

/// What a policy sets, its audience first.
pub(crate) fn set_by(policy: &Policy) -> impl Iterator<Item = (&'static str, String)> {
    let plain = of_policy(&Policy::from_origin());
    let said = of_policy(policy)
        .into_iter()
        .zip(plain)
        .filter(|(said, plain)| said.name == "audience" || (!said.value.is_empty() && said.value != plain.value));
    said.map(|(said, _)| (said.name, said.value))
}

fn compare(place: &str, old: Vec<Described>, new: Vec<Described>, changes: &mut Vec<Change>) {
    for (old, new) in old.into_iter().zip(new).filter(|(old, new)| old.value != new.value) {
        changes.push(Change::Set { place: place.into(), field: new.name, before: old.value, after: new.value });
    }
}

/// Whether two policies say the same.
pub(crate) fn is_same(one: &Policy, other: &Policy) -> bool {
    of_policy(one).iter().zip(of_policy(other)).all(|(one, other)| one.value == other.value)
}

fn of_policy(policy: &Policy) -> Vec<Described> {
    let Policy {
        audience,
        ttl,
        overrides_origin,
        status_ttls,
        statuses,
        downstream,
        stale_while_revalidate,
        stale_if_error,
        fill_timeout,
        expiry: Expiry { jitter, sliding, refresh_ahead, refresh_within },
        heuristics,
        drop_set_cookie,
        store_post,
        strategy,
        quota,
        strip_credentials,
        ignored_cookies: _,
        query,
        key_headers,
        key_cookies,
        tags,
        purged_tags,
        purged_globs,
        shadow,
    } = policy;
    let principal = if let Audience::Per(principal) = audience { principal.id.clone() } else { String::new() };
    // Who has answers for everybody but those with cookies depends on which cookies don't count.
    let cookies = if matches!(audience, Audience::Guarded) { Matters::Audience } else { Matters::Ahead };
    let status_ttls = status_ttls.iter().map(|(status, ttl)| format!("{}={ttl:?}", status.as_u16()));
    let statuses = statuses.as_ref().map(|all| format!("{:?}", all.iter().map(StatusCode::as_u16).collect::<Vec<_>>()));
    let allowed = query.allowed.as_ref().map(|names| format!("{names:?}"));
    vec![
        described("audience", audience.as_str(), Matters::Audience),
        described("principal", principal, Matters::Audience),
        described("ttl", duration(ttl), Matters::Terms),
        described("override_origin", overrides_origin.to_string(), Matters::Terms),
        described("status_ttl", status_ttls.collect::<Vec<_>>().join(" "), Matters::Terms),
        described("statuses", statuses.unwrap_or_default(), Matters::Terms),
        described("downstream", duration(downstream), Matters::Terms),
        described("stale_while_revalidate", duration(stale_while_revalidate), Matters::Terms),
        described("stale_if_error", duration(stale_if_error), Matters::Terms),
        described("fill_timeout", duration(fill_timeout), Matters::Ahead),
        described("jitter", number(jitter), Matters::Terms),
        described("sliding", duration(sliding), Matters::Terms),
        // How a response is refreshed was decided with it, and it soon will be.
        described("refresh_ahead", number(refresh_ahead), Matters::Ahead),
        described("refresh_within", duration(refresh_within), Matters::Ahead),
        described("heuristics", heuristics.map_or(String::new(), |on| on.to_string()), Matters::Terms),
        described("drop_set_cookie", drop_set_cookie.to_string(), Matters::Audience),
        // What was stored said itself that it answers a GET.
        described("store_post", store_post.map_or(String::new(), |on| on.to_string()), Matters::Ahead),
        // It gives a window to what is stored, where nobody else does.
        described("strategy", format!("{strategy:?}"), Matters::Terms),
        described("quota", format!("{} bytes, {} responses", quota.bytes, quota.responses), Matters::Ahead),
        described("strip_credentials", strip_credentials.to_string(), Matters::Audience),
        described("ignore_cookies", listed(policy.named_ignored_cookies()), cookies),
        // What the key takes in, a stored response has in its key; and the handler saw no more of the query than that.
        described("sort_query", query.sorted.to_string(), Matters::Ahead),
        described("ignore_query", listed(&query.ignored), Matters::Ahead),
        described("only_query", allowed.unwrap_or_default(), Matters::Ahead),
        described("key_headers", listed(key_headers), Matters::Ahead),
        described("key_cookies", listed(key_cookies), Matters::Ahead),
        // What is stored bears the tags of then and those of now.
        described("tags", listed(tags), Matters::Terms),
        described("purges_tags", listed(purged_tags), Matters::Ahead),
        described("purges_globs", listed(purged_globs), Matters::Ahead),
        // In shadow nothing is looked up; what was stored before is good again when it is over.
        described("shadow", shadow.to_string(), Matters::Ahead),
    ]
}

/// The fields that go out have places in stored heads.
fn of_switches(switches: &HeaderSwitches) -> Vec<Described> {
    let HeaderSwitches { name, age, x_cache, x_cache_age, cache_status, warning } = switches;
    vec![
        described("name", name, Matters::Ahead),
        described("age", age.to_string(), Matters::Terms),
        described("x_cache", x_cache.to_string(), Matters::Terms),
        described("x_cache_age", x_cache_age.to_string(), Matters::Terms),
        described("cache_status", cache_status.to_string(), Matters::Terms),
        described("warning", warning.to_string(), Matters::Ahead),
    ]
}

fn of_limits(settings: &Settings) -> Vec<Described> {
    let sizes = [
        ("max_body_size", settings.max_body_size),
        ("max_head_size", settings.max_head_size),
        ("max_fill_bytes", settings.max_fill_bytes),
        ("max_variants", settings.max_variants),
        ("max_refreshes", settings.max_refreshes),
        ("max_waiting", settings.max_waiting),
        ("eager_etag_size", settings.eager_etag_size),
        ("max_query_content", settings.max_query_content),
    ]
    .map(|(name, value)| (name, value.to_string()));
    let times = [
        ("max_wait", settings.max_wait),
        ("max_fill_age", settings.max_fill_age),
        ("max_lease_wait", settings.max_lease_wait),
        ("staleness_bound", settings.staleness_bound),
    ]
    .map(|(name, value)| (name, format!("{value:?}")));
    let near = [("near_ttl", duration(&settings.near_ttl))];
    sizes.into_iter().chain(times).chain(near).map(|(name, value)| described(name, value, Matters::Ahead)).collect()
}

/// What is stored has the form that it has, and can always be decoded.
fn of_compression(compression: &Compression) -> Vec<Described> {
    let Compression { coding, level, min_size, min_saving } = compression;
    vec![
        described("coding", coding.map_or("none", Coding::name), Matters::Ahead),
        described("level", level.map_or(String::new(), |level| level.to_string()), Matters::Ahead),
        described("min_size", min_size.to_string(), Matters::Ahead),
        described("min_saving", min_saving.to_string(), Matters::Ahead),
    ]
}

/// What the settings say beside rules, switches, limits and compression.
fn of_settings(settings: &Settings) -> Vec<Described> {
    let Settings {
        backend: _,
        clock: _,
        rules: _,
        otherwise: _,
        switches: _,
        max_head_size: _,
        max_body_size: _,
        max_fill_bytes: _,
        max_variants: _,
        max_refreshes: _,
        max_waiting: _,
        max_wait: _,
        max_fill_age: _,
        max_lease_wait: _,
        near_ttl: _,
        // What is stored was named by the one that the cache was made with, and stays so.
        partition_secret: _,
        staleness_bound: _,
        eager_etag_size: _,
        compression: _,
        outcome_extension,
        observe_answers,
        targets,
        heuristics,
        leniency,
        matching,
        stale_when_disconnected,
        authorized_may_share,
        trust_any_304,
        store_post,
        no_vary_search,
        query,
        max_query_content: _,
        never_stored,
        replayed,
        forward_tags,
        propagate_tags,
        #[cfg(feature = "data")]
        data,
    } = settings;
    vec![
        // Of caches that are made from now on; what is stored has its own terms.
        #[cfg(feature = "data")]
        described(
            "data",
            data.iter().map(|(name, said)| format!("{name}: {said:?}")).collect::<Vec<_>>().join(", "),
            Matters::Ahead,
        ),
        described("outcome_extension", outcome_extension.to_string(), Matters::Ahead),
        described("observe_answers", observe_answers.to_string(), Matters::Ahead),
        // Whose words were heard decided also whether the answer to a request with `Authorization` is for others.
        described("targeted_fields", listed(targets), Matters::Audience),
        described("heuristics", heuristics.to_string(), Matters::Terms),
        described("leniency", format!("{leniency:?}"), Matters::Terms),
        // Variants are stored by what makes them equal.
        described("matching", format!("{matching:?}"), Matters::Audience),
        described("stale_when_disconnected", stale_when_disconnected.to_string(), Matters::Terms),
        described("authorized_may_share", authorized_may_share.to_string(), Matters::Terms),
        // What was confirmed by another response's 304 has a head that its content may not go with.
        described("trust_any_304", trust_any_304.to_string(), Matters::Audience),
        described("store_post", store_post.to_string(), Matters::Ahead),
        described("no_vary_search", no_vary_search.to_string(), Matters::Ahead),
        described("cache_query_method", query.is_some().to_string(), Matters::Ahead),
        described("never_store", listed(never_stored), Matters::Terms),
        described("replay", listed(replayed), Matters::Terms),
        // Stored heads have the fields only where they go out.
        described("forward_tags", forward_tags.to_string(), Matters::Terms),
        // Nobody knows any more what a stored response was made from.
        described("propagate_tags", propagate_tags.to_string(), Matters::Ahead),
    ]
}

fn described(name: &'static str, value: impl Into<String>, matters: Matters) -> Described {
    Described { name, value: value.into(), matters }
}

fn duration(value: &Option<Duration>) -> String {
    value.map_or(String::new(), |value| format!("{value:?}"))
}

fn number(value: &Option<f64>) -> String {
    value.map_or(String::new(), |value| value.to_string())
}

fn listed(names: &[impl AsRef<str>]) -> String {
    // Quoted, so that no two lists look alike.
    if names.is_empty() { String::new() } else { format!("{:?}", names.iter().map(AsRef::as_ref).collect::<Vec<_>>()) }
}
