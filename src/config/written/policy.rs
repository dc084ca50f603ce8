//! A policy as the fields of a rule's table. What a policy in code says without effect, a text doesn't say: it would be refused there.

use std::time::Duration;

use super::super::lent;
use super::{Lines, Written, list, quoted, set};
use crate::expiry::Expiry;
use crate::partition::Quota;
use crate::policy::{Audience, Policy};
use crate::principal::Called;
use crate::strategy::Strategy;

impl Written {
    /// A policy, with what it is of.
    pub(super) fn policy(&mut self, of: &str, policy: &Policy) -> Lines {
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
        let mut lines = vec![format!("audience = {}", quoted(audience.as_str()))];
        lists(&mut lines, [("purges_tags", purged_tags), ("purges_globs", purged_globs)]);
        // Nothing else means anything there, and a text that says it is refused.
        if matches!(audience, Audience::Bypass) {
            return lines;
        }
        lists(&mut lines, [("tags", tags)]);
        self.durations(of, &mut lines, [("ttl", ttl)]);
        if let Audience::Per(principal) = audience {
            set(
                &mut lines,
                "principal",
                match &principal.called {
                    Some(Called::Header(name)) => format!("{{ header = {} }}", quoted(name.as_str())),
                    Some(Called::Cookie(name)) => format!("{{ cookie = {} }}", quoted(name)),
                    _ => quoted(&lent::name(of, policy).unwrap_or_default()),
                },
            );
            if *quota != Quota::default() {
                let Quota { bytes, responses } = quota;
                let (bytes, responses) = ((*bytes).min(i64::MAX as u64), (*responses).min(i64::MAX as usize));
                set(&mut lines, "quota", format!("{{ bytes = {bytes}, responses = {responses} }}"));
            }
        }
        self.strategy(of, *strategy, &mut lines);
        if *overrides_origin && (ttl.is_some() || !status_ttls.is_empty()) {
            set(&mut lines, "override_origin", true);
        }
        self.statuses(of, policy, &mut lines);
        if let Some(statuses) = statuses {
            let codes: Vec<_> = statuses.iter().map(|status| status.as_u16().to_string()).collect();
            set(&mut lines, "statuses", format!("[{}]", codes.join(", ")));
        }
        let windows = [
            ("downstream", downstream),
            ("stale_while_revalidate", stale_while_revalidate),
            ("stale_if_error", stale_if_error),
            ("fill_timeout", fill_timeout),
            ("sliding", sliding),
        ];
        self.durations(of, &mut lines, windows);
        // With the others a hit refreshes nothing, and a text that says it is refused.
        if matches!(strategy, Strategy::CacheFirst | Strategy::StaleWhileRevalidate) {
            self.durations(of, &mut lines, [("refresh_within", refresh_within)]);
            numbers(&mut lines, [("refresh_ahead", refresh_ahead)]);
        }
        numbers(&mut lines, [("jitter", jitter)]);
        for (name, on) in [("heuristics", heuristics), ("store_post", store_post)] {
            on.iter().for_each(|on| set(&mut lines, name, on));
        }
        for (name, on) in
            [("drop_set_cookie", drop_set_cookie), ("strip_credentials", strip_credentials), ("shadow", shadow)]
        {
            Some(on).filter(|on| **on).into_iter().for_each(|on| set(&mut lines, name, on));
        }
        if matches!(audience, Audience::Guarded) && !policy.named_ignored_cookies().is_empty() {
            set(&mut lines, "ignore_cookies", list(policy.named_ignored_cookies()));
        }
        if query.sorted {
            set(&mut lines, "sort_query", true);
        }
        if let Some(allowed) = &query.allowed {
            set(&mut lines, "only_query", list(allowed));
        }
        let headers: Vec<_> = key_headers.iter().map(http::HeaderName::as_str).collect();
        for (name, names) in [("ignore_query", list(&query.ignored)), ("key_headers", list(&headers))] {
            Some(names).filter(|names| names != "[]").into_iter().for_each(|names| set(&mut lines, name, names));
        }
        if !key_cookies.is_empty() && *strip_credentials {
            self.notes.push(format!("{of}: `key_cookies` beside `strip_credentials`"));
        } else if !key_cookies.is_empty() {
            set(&mut lines, "key_cookies", list(key_cookies));
        }
        lines
    }

    fn strategy(&mut self, of: &str, strategy: Strategy, lines: &mut Lines) {
        let name = match strategy {
            Strategy::CacheFirst => return,
            Strategy::NetworkFirst { .. } => "network_first",
            Strategy::StaleWhileRevalidate => "stale_while_revalidate",
            Strategy::NetworkOnly => "network_only",
            Strategy::CacheOnly => "cache_only",
        };
        set(lines, "strategy", quoted(name));
        if let Strategy::NetworkFirst { limit } = strategy {
            self.durations(of, lines, [("network_limit", &limit)]);
        }
    }

    /// The TTLs of single statuses. Of two for the same the first one counts.
    fn statuses(&mut self, of: &str, policy: &Policy, lines: &mut Lines) {
        let mut named: Vec<(u16, Duration)> = Vec::new();
        for (status, ttl) in &policy.status_ttls {
            if !named.iter().any(|(known, _)| *known == status.as_u16()) {
                named.push((status.as_u16(), *ttl));
            }
        }
        let fields: Vec<_> =
            named.into_iter().map(|(status, ttl)| format!("{status} = {}", self.duration(of, ttl))).collect();
        if !fields.is_empty() {
            set(lines, "status_ttl", format!("{{ {} }}", fields.join(", ")));
        }
    }

    fn durations<const N: usize>(&mut self, of: &str, lines: &mut Lines, all: [(&str, &Option<Duration>); N]) {
        for (name, value) in all {
            if let Some(value) = value {
                let value = self.duration(&format!("{of}: {name}"), *value);
                set(lines, name, value);
            }
        }
    }
}

fn lists<const N: usize>(lines: &mut Lines, all: [(&str, &Vec<String>); N]) {
    for (name, texts) in all.into_iter().filter(|(_, texts)| !texts.is_empty()) {
        set(lines, name, list(texts));
    }
}

fn numbers<const N: usize>(lines: &mut Lines, all: [(&str, &Option<f64>); N]) {
    for (name, value) in all {
        // With a point also where it is whole.
        value.iter().for_each(|value| set(lines, name, format!("{value:?}")));
    }
}
