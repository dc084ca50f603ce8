//! A configuration in TOML says what the code can say; one with a mistake is refused as a whole, and says where and why.
#![cfg(feature = "config")]

mod support;

use std::sync::Arc;

use http::{HeaderName, StatusCode};
use larder::storage::{Query, Storage, StorageUsage, Variants};
use larder::{
    CacheKey, CacheLayer, Compression, Config, ConfigError, Policy, RequestHead, StorageError, StoredResponse, Strategy,
};
use support::exchange::*;

fn config(text: &str) -> Config {
    text.parse().unwrap_or_else(|error: ConfigError| panic!("{error}"))
}

fn layer(text: &str) -> CacheLayer {
    CacheLayer::from_config(&config(text).principal("user", by_user)).unwrap_or_else(|error| panic!("{error}"))
}

fn by_user(request: &RequestHead<'_>) -> Option<Vec<u8>> {
    request.headers.get("x-user").map(|user| user.as_bytes().to_vec())
}

/// All that is wrong with a text, as it is displayed.
fn wrong(text: &str) -> String {
    match text.parse::<Config>() {
        Ok(_) => panic!("this was taken for right:\n{text}"),
        Err(error) => error.to_string(),
    }
}

fn named(name: &'static str) -> HeaderName {
    HeaderName::from_static(name)
}

/// What a running cache with `before` would have to change to be as `after`; empty if they say the same.
fn difference(before: &CacheLayer, after: &CacheLayer) -> String {
    let reload = before.handle().reconfigure(after).expect("the same store");
    if reload.is_empty() { String::new() } else { reload.to_string() }
}

#[test]
fn every_field_does_what_its_setter_does() {
    let m = MINUTE;
    let rows: Vec<(&str, Policy)> = vec![
        ("audience = 'from_origin'", Policy::from_origin()),
        ("audience = 'shared'\nttl = '1m'", Policy::shared(m)),
        ("audience = 'guarded'\nttl = '1m'", Policy::guarded(m)),
        ("audience = 'bypass'", Policy::bypass()),
        ("audience = 'shared'\nttl = '1m'\noverride_origin = true", Policy::shared(m).override_origin()),
        ("audience = 'shared'\nttl = '1m'\noverride_origin = false", Policy::shared(m)),
        (
            "audience = 'from_origin'\nstatus_ttl = { 404 = '5s', 410 = '1m' }",
            Policy::from_origin().status_ttl(StatusCode::NOT_FOUND, secs(5)).status_ttl(StatusCode::GONE, m),
        ),
        (
            "audience = 'shared'\nttl = '1m'\nstatuses = [200, 404]",
            Policy::shared(m).statuses([StatusCode::OK, StatusCode::NOT_FOUND]),
        ),
        ("audience = 'shared'\nttl = '1m'\ndownstream = '5s'", Policy::shared(m).downstream(secs(5))),
        (
            "audience = 'shared'\nttl = '1m'\nstale_while_revalidate = '5s'\nstale_if_error = '1h'\nfill_timeout = '2s'",
            Policy::shared(m).stale_while_revalidate(secs(5)).stale_if_error(60 * m).fill_timeout(secs(2)),
        ),
        (
            "audience = 'shared'\nttl = '1m'\njitter = 0.25\nrefresh_ahead = 1.5\nrefresh_within = '10s'",
            Policy::shared(m).jitter(0.25).refresh_ahead(1.5).refresh_within(secs(10)),
        ),
        (
            "audience = 'from_origin'\njitter = 0\nrefresh_ahead = 2\nsliding = '5m'",
            Policy::from_origin().jitter(0.0).refresh_ahead(2.0).sliding(5 * m),
        ),
        ("audience = 'from_origin'\nheuristics = true", Policy::from_origin().heuristics(true)),
        ("audience = 'from_origin'\nstore_post = true", Policy::from_origin().store_post(true)),
        ("audience = 'from_origin'\ndrop_set_cookie = true", Policy::from_origin().drop_set_cookie()),
        ("audience = 'shared'\nttl = '1m'\nstrip_credentials = true", Policy::shared(m).strip_credentials()),
        (
            "audience = 'guarded'\nttl = '1m'\nignore_cookies = ['a', 'b*']",
            Policy::guarded(m).ignore_cookies(["a", "b*"]),
        ),
        (
            "audience = 'shared'\nttl = '1m'\nstrategy = 'network_first'\nnetwork_limit = '2s'",
            Policy::shared(m).network_first(secs(2)),
        ),
        (
            "audience = 'shared'\nttl = '1m'\nstrategy = 'network_first'",
            Policy::shared(m).strategy(Strategy::NetworkFirst { limit: None }),
        ),
        (
            "audience = 'shared'\nttl = '1m'\nstrategy = 'stale_while_revalidate'",
            Policy::shared(m).strategy(Strategy::StaleWhileRevalidate),
        ),
        ("audience = 'shared'\nttl = '1m'\nstrategy = 'cache_only'", Policy::shared(m).cache_only()),
        (
            "audience = 'shared'\nttl = '1m'\nstrategy = 'network_only'",
            Policy::shared(m).strategy(Strategy::NetworkOnly),
        ),
        ("audience = 'shared'\nttl = '1m'\nstrategy = 'cache_first'", Policy::shared(m)),
        ("audience = 'from_origin'\nsort_query = true", Policy::from_origin().sort_query()),
        ("audience = 'from_origin'\nignore_query = ['utm_*']", Policy::from_origin().ignore_query(["utm_*"])),
        ("audience = 'from_origin'\nonly_query = []", Policy::from_origin().only_query([] as [&str; 0])),
        ("audience = 'from_origin'\nonly_query = ['a']", Policy::from_origin().only_query(["a"])),
        ("audience = 'from_origin'\nkey_headers = ['X-A']", Policy::from_origin().key_header(named("x-a"))),
        ("audience = 'from_origin'\nshadow = true", Policy::from_origin().shadow()),
        ("audience = 'from_origin'\nkey_cookies = ['a']", Policy::from_origin().key_cookies(["a"])),
        (
            "audience = 'from_origin'\nkeys = 'k'\nkey_headers = ['x-b']\n[keys.k]\nsort_query = true\nkey_headers = ['x-a']",
            Policy::from_origin().sort_query().key_header(named("x-a")).key_header(named("x-b")),
        ),
        (
            "audience = 'from_origin'\ntags = ['a', 'b:c']\npurges_tags = ['c', 'd$$']\npurges_globs = ['/e*']",
            Policy::from_origin().tag("a").tag("b:c").purges_tag("c").purges_tag("d$$").purges_glob("/e*"),
        ),
        ("audience = 'bypass'\npurges_tags = ['a']", Policy::bypass().purges_tag("a")),
    ];
    let plain = CacheLayer::in_memory(256 << 20);
    for (text, policy) in rows {
        let rule = plain.clone().rule("^/x", policy.clone());
        assert_eq!(difference(&layer(&format!("[[rule]]\npath = '^/x'\n{text}")), &rule), "", "{text}");
        assert_eq!(difference(&layer(&format!("[otherwise]\n{text}")), &plain.clone().otherwise(policy)), "", "{text}");
    }
    type Setter = fn(CacheLayer) -> CacheLayer;
    let rows: [(&str, Setter); 32] = [
        ("", |layer| layer),
        ("strict_rfc = true", |layer| layer.strict_rfc()),
        ("strict_rfc = true\nheuristics = false", |layer| layer.strict_rfc().heuristics(false)),
        ("heuristics = true", |layer| layer.heuristics(true)),
        ("targeted_fields = []", |layer| layer.targeted_fields([])),
        ("targeted_fields = ['X-CC']", |layer| layer.targeted_fields([named("x-cc")])),
        ("[headers]\nforward_tags = true", |layer| layer.forward_tags(true)),
        ("never_store = ['x-a']", |layer| layer.never_store(named("x-a"))),
        ("replay = ['x-a']", |layer| layer.replay(named("x-a"))),
        ("[headers]\nname = 'edge'", |layer| layer.name("edge")),
        ("[headers]\nage = false\nx_cache = false", |layer| layer.age(false).x_cache(false)),
        ("[headers]\nx_cache_age = false\ncache_status = false", |layer| layer.x_cache_age(false).cache_status(false)),
        ("[headers]\nwarning = true", |layer| layer.warning(true)),
        ("[limits]\nmax_body_size = '1MiB'", |layer| layer.max_body_size(1 << 20)),
        ("[limits]\nmax_head_size = 1000", |layer| layer.max_head_size(1000)),
        ("[limits]\nmax_fill_bytes = '2 MB'", |layer| layer.max_fill_bytes(2_000_000)),
        ("[limits]\nmax_variants = 3", |layer| layer.max_variants(3)),
        ("[limits]\nmax_refreshes = 0", |layer| layer.max_refreshes(0)),
        ("[limits]\nmax_waiting = 10", |layer| layer.max_waiting(10)),
        ("[limits]\nmax_lease_wait = '250ms'", |layer| layer.max_lease_wait(secs(1) / 4)),
        ("[limits]\nnear_ttl = '5s'", |layer| layer.near_ttl(secs(5))),
        ("[limits]\nmax_wait = '5s'\nmax_fill_age = '2s'\nstaleness_bound = '3s'", |layer| {
            layer.max_wait(secs(5)).max_fill_age(secs(2)).staleness_bound(secs(3))
        }),
        ("propagate_tags = false", |layer| layer.propagate_tags(false)),
        ("no_vary_search = false", |layer| layer.no_vary_search(false)),
        ("[limits]\nmax_query_content = '1KiB'", |layer| layer.max_query_content(1024)),
        ("[limits]\neager_etag_size = 0x400", |layer| layer.eager_etag_size(1024)),
        ("[compression]\ncoding = 'gzip'", |layer| layer.compress(Compression::gzip())),
        ("[compression]\ncoding = 'br'\nlevel = 9", |layer| layer.compress(Compression::brotli().level(9))),
        ("[compression]\ncoding = 'zstd'\nmin_size = '4KiB'", |layer| {
            layer.compress(Compression::zstd().min_size(4096))
        }),
        ("[compression]\ncoding = 'gzip'\nmin_saving = 25", |layer| layer.compress(Compression::gzip().min_saving(25))),
        ("[compression]\ncoding = 'none'\nlevel = 1", |layer| layer.compress(Compression::off().level(1))),
        ("[store]\nkind = 'memory'\ncapacity = '256MiB'\neviction = 'tiny_lfu'", |layer| layer),
    ];
    for (text, setter) in rows {
        assert_eq!(difference(&layer(text), &setter(plain.clone())), "", "{text}");
        // What a row says is seen at all.
        assert!(
            text.is_empty() || text.contains("[store]") || !difference(&layer(""), &layer(text)).is_empty(),
            "{text}"
        );
    }
}

#[test]
fn templates_of_a_rule_refer_to_its_pattern() {
    let text = "[[rule]]\npath = '^/(?<kind>[a-z]+)/([0-9]+)'\naudience = 'bypass'\npurges_tags = ['$kind:$2']\npurges_globs = ['/$1*']";
    let policy = Policy::bypass().purges_tag("$kind:$2").purges_glob("/$1*");
    let rule = CacheLayer::in_memory(256 << 20).rule("^/(?<kind>[a-z]+)/([0-9]+)", policy);
    assert_eq!(difference(&layer(text), &rule), "");
}

#[test]
fn the_quota_of_partitions_is_as_the_file_says() {
    let rule = "[otherwise]\naudience = 'per'\nttl = '1m'\nprincipal = { header = 'x-user' }\n";
    let with = |quota: &str| layer(&format!("{rule}{quota}"));
    let rows = [
        ("quota = { bytes = '1MiB', responses = 5 }", "1048576 bytes, 5 responses"),
        ("quota = { bytes = '1MiB' }", "1048576 bytes, 1024 responses"),
        ("quota = { responses = 5 }", "16777216 bytes, 5 responses"),
    ];
    for (text, expected) in rows {
        let difference = difference(&with(""), &with(text));
        assert!(difference.contains(expected), "{text}: {difference}");
    }
    assert_eq!(difference(&with(""), &with("quota = { bytes = '16MiB', responses = 1024 }")), "", "the default");
}

#[test]
fn the_store_is_as_the_file_says() {
    let text = "[store]\ncapacity = '1MiB'\nmax_entries = 10\neviction = 'lru'";
    let store = larder::storage::MemoryStore::new(1 << 20).max_entries(10).eviction(larder::storage::Eviction::Lru);
    assert_eq!(difference(&layer(text), &CacheLayer::with_memory(store)), "");
    let overruled = CacheLayer::from_config(&config("[store]\ncapacity = '1MiB'").capacity(5)).unwrap();
    assert_eq!(difference(&overruled, &CacheLayer::in_memory(5)), "", "code has the last word");
}

/// Each text with what is said about it, to the letter.
#[test]
fn what_is_wrong_is_said_with_its_place_and_what_would_be_right() {
    let rows: &[(&str, &str)] = &[
        // Unknown fields.
        (
            "[[rule]]\npath = '^/'\naudience = 'shared'\ntll = '5m'\nttl = '5m'",
            "configuration:4:1: rule[0].tll: unknown field; did you mean `ttl`?\n  |\n4 | tll = '5m'\n  | ^^^",
        ),
        (
            "[otherwise]\naudience = 'bypass'\nzzzzzz = 1",
            "configuration:3:1: otherwise.zzzzzz: unknown field; known here are `audience`, `ttl`, `principal`, `quota`, `strategy`, `network_limit`, `override_origin`, `status_ttl`, `statuses`, `downstream`, `stale_while_revalidate`, `stale_if_error`, `fill_timeout`, `jitter`, `sliding`, `refresh_ahead`, `refresh_within`, `heuristics`, `drop_set_cookie`, `store_post`, `strip_credentials`, `ignore_cookies`, `keys`, `sort_query`, `ignore_query`, `only_query`, `key_headers`, `key_cookies`, `tags`, `purges_tags`, `purges_globs`, `shadow`\n  |\n3 | zzzzzz = 1\n  | ^^^^^^",
        ),
        ("[limit]\n", "configuration:1:2: limit: unknown field; did you mean `limits`?\n  |\n1 | [limit]\n  |  ^^^^^"),
        (
            "[store]\nzzzzzz = 1",
            "configuration:2:1: store.zzzzzz: unknown field; known here are `kind`, `eviction`, `capacity`, `max_entries`\n  |\n2 | zzzzzz = 1\n  | ^^^^^^",
        ),
        // Templates.
        (
            "[[rule]]\npath = '^/(a)'\naudience = 'from_origin'\ntags = ['$1', 'x:$2']",
            "configuration:4:15: rule[0].tags[1]: \"x:$2\" can't be followed: the pattern captures no `2`\n  |\n4 | tags = ['$1', 'x:$2']\n  |               ^^^^^^",
        ),
        (
            "[otherwise]\naudience = 'from_origin'\npurges_globs = ['/a/$1']",
            "configuration:3:17: otherwise.purges_globs[0]: \"/a/$1\" can't be followed: `$1` refers to nothing: there is no pattern that would capture it\n  |\n3 | purges_globs = ['/a/$1']\n  |                 ^^^^^^^",
        ),
        (
            "[otherwise]\naudience = 'from_origin'\npurges_tags = [1, '']",
            "configuration:3:16: otherwise.purges_tags[0]: expected a string, found an integer\n  |\n3 | purges_tags = [1, '']\n  |                ^\n\nconfiguration:3:19: otherwise.purges_tags[1]: \"\" can't be followed: it is empty\n  |\n3 | purges_tags = [1, '']\n  |                   ^^",
        ),
        (
            "[otherwise]\naudience = 'bypass'\ntags = ['a']\npurges_tags = ['a']",
            "configuration:3:8: otherwise.tags: has no effect: what bypasses is neither looked up nor stored\n  |\n3 | tags = ['a']\n  |        ^^^^^",
        ),
        // Wrong types and values.
        (
            "[headers]\nage = 'yes'",
            "configuration:2:7: headers.age: expected true or false, found a string\n  |\n2 | age = 'yes'\n  |       ^^^^^",
        ),
        (
            "[otherwise]\naudience = 'shared'\nttl = 60",
            "configuration:3:7: otherwise.ttl: a duration is a string such as \"60s\", \"5m\", \"1h30m\", \"250ms\" or \"7d\"; did you mean \"60s\"?\n  |\n3 | ttl = 60\n  |       ^^",
        ),
        (
            "[otherwise]\naudience = 'shared'\nttl = '5 minutes'",
            "configuration:3:7: otherwise.ttl: \"5 minutes\" is not a duration; write it like \"60s\", \"5m\", \"1h30m\", \"250ms\" or \"7d\"\n  |\n3 | ttl = '5 minutes'\n  |       ^^^^^^^^^^^",
        ),
        (
            "[store]\ncapacity = '64M'",
            "configuration:2:12: store.capacity: this is not a size; write it like \"64MiB\", \"512KiB\", \"1GiB\", \"10MB\", or a number of bytes\n  |\n2 | capacity = '64M'\n  |            ^^^^^",
        ),
        (
            "[limits]\nmax_variants = 0",
            "configuration:2:16: limits.max_variants: it is a whole number of at least 1\n  |\n2 | max_variants = 0\n  |                ^",
        ),
        (
            "[compression]\nmin_saving = 101",
            "configuration:1:1: compression: `coding` is missing: it says how to compress, or \"none\"\n  |\n1 | [compression]\n  | ^^^^^^^^^^^^^\n\nconfiguration:2:14: compression.min_saving: it is at most 100\n  |\n2 | min_saving = 101\n  |              ^^^",
        ),
        (
            "[compression]\ncoding = 'gzipp'",
            "configuration:2:10: compression.coding: \"gzipp\" is not known here; did you mean \"gzip\"?\n  |\n2 | coding = 'gzipp'\n  |          ^^^^^^^",
        ),
        (
            "[limits]\nmax_refreshes = -1",
            "configuration:2:17: limits.max_refreshes: it is a whole number of at least 0\n  |\n2 | max_refreshes = -1\n  |                 ^^",
        ),
        (
            "[headers]\nname = '1'",
            "configuration:2:8: headers.name: it is a token that begins with a letter, such as \"larder\" (RFC 9110 §5.6.2)\n  |\n2 | name = '1'\n  |        ^^^",
        ),
        (
            "never_store = ['x-a', 'x b']",
            "configuration:1:23: never_store[1]: \"x b\" is not the name of a header field\n  |\n1 | never_store = ['x-a', 'x b']\n  |                       ^^^^^",
        ),
        (
            "[otherwise]\naudience = 'share'\n",
            "configuration:2:12: otherwise.audience: \"share\" is not known here; did you mean \"shared\"?\n  |\n2 | audience = 'share'\n  |            ^^^^^^^",
        ),
        (
            "[otherwise]\naudience = 'from_origin'\njitter = 1.0\nrefresh_ahead = -1",
            "configuration:3:10: otherwise.jitter: it is a number from 0 to less than 1: the part of a lifetime that may be cut off\n  |\n3 | jitter = 1.0\n  |          ^^^\n\nconfiguration:4:17: otherwise.refresh_ahead: it is a number above 0 and up to 1000; 1 is usual\n  |\n4 | refresh_ahead = -1\n  |                 ^^",
        ),
        (
            "[otherwise]\naudience = 'from_origin'\njitter = nan\nrefresh_ahead = '1'",
            "configuration:3:10: otherwise.jitter: it is a number from 0 to less than 1: the part of a lifetime that may be cut off\n  |\n3 | jitter = nan\n  |          ^^^\n\nconfiguration:4:17: otherwise.refresh_ahead: expected a number above 0 and up to 1000; 1 is usual, found a string\n  |\n4 | refresh_ahead = '1'\n  |                 ^^^",
        ),
        (
            "[otherwise]\naudience = 'from_origin'\nsliding = '0s'\nrefresh_within = 10",
            "configuration:3:11: otherwise.sliding: it has to be longer than zero\n  |\n3 | sliding = '0s'\n  |           ^^^^\n\nconfiguration:4:18: otherwise.refresh_within: a duration is a string such as \"60s\", \"5m\", \"1h30m\", \"250ms\" or \"7d\"; did you mean \"10s\"?\n  |\n4 | refresh_within = 10\n  |                  ^^",
        ),
        // Rules.
        (
            "\n[[rule]]\npath = '^/a('\naudience = 'bypass'",
            "configuration:3:8: rule[0].path: this is not a regular expression: unclosed group\n  |\n3 | path = '^/a('\n  |        ^^^^^^",
        ),
        (
            "[[rule]]\naudience = 'bypass'",
            "configuration:1:1: rule[0]: `path` is missing: a regular expression over the path, such as \"^/products/\"\n  |\n1 | [[rule]]\n  | ^^^^^^^^",
        ),
        (
            "[[rule]]\npath = '^/é'",
            "configuration:1:1: rule[0]: `audience` is missing: `from_origin`, `shared`, `per`, `guarded` or `bypass`\n  |\n1 | [[rule]]\n  | ^^^^^^^^",
        ),
        (
            "rule = [{ path = '^/é', audience = 'bypass' }, { path = '^/é', audience = 'bypass' }]",
            "configuration:1:57: rule[1].path: rule[0] has the same pattern and comes first, so this one would never count\n  |\n1 | rule = [{ path = '^/é', audience = 'bypass' }, { path = '^/é', audience = 'bypass' }]\n  |                                                         ^^^^^",
        ),
        (
            "[otherwise]\naudience = 'from_origin'\nstatuses = [200, 502]",
            "configuration:3:18: otherwise.statuses[1]: 502 is never stored, since a hostile request may provoke it\n  |\n3 | statuses = [200, 502]\n  |                  ^^^",
        ),
        (
            "[otherwise]\naudience = 'from_origin'\nstatus_ttl = { 600 = '1s', 500 = '1s' }",
            "configuration:3:16: otherwise.status_ttl.600: \"600\" is not a status; they go from 100 to 599\n  |\n3 | status_ttl = { 600 = '1s', 500 = '1s' }\n  |                ^^^\n\nconfiguration:3:28: otherwise.status_ttl.500: 500 is never stored, since a hostile request may provoke it\n  |\n3 | status_ttl = { 600 = '1s', 500 = '1s' }\n  |                            ^^^",
        ),
        (
            "[otherwise]\naudience = 'from_origin'\nignore_query = ['a*b', '']",
            "configuration:3:17: otherwise.ignore_query[0]: it is a name, or the beginning of one with `*` at the end\n  |\n3 | ignore_query = ['a*b', '']\n  |                 ^^^^^\n\nconfiguration:3:24: otherwise.ignore_query[1]: it is a name, or the beginning of one with `*` at the end\n  |\n3 | ignore_query = ['a*b', '']\n  |                        ^^",
        ),
        (
            "[otherwise]\naudience = 'from_origin'\nkeys = 'trackin'\n[keys.tracking]\nignore_query = ['utm_*']",
            "configuration:3:8: otherwise.keys: there is no [keys.trackin]; did you mean \"tracking\"?\n  |\n3 | keys = 'trackin'\n  |        ^^^^^^^^^",
        ),
        (
            "[keys.a]\nsort_query = 1",
            "configuration:2:14: keys.a.sort_query: expected true or false, found an integer\n  |\n2 | sort_query = 1\n  |              ^",
        ),
        // What can't all be meant.
        (
            "[otherwise]\naudience = 'shared'",
            "configuration:1:1: otherwise: `ttl` is missing: how long an answer is good where the handler doesn't say it\n  |\n1 | [otherwise]\n  | ^^^^^^^^^^^",
        ),
        (
            "[otherwise]\naudience = 'from_origin'\nttl = '1m'",
            "configuration:3:7: otherwise.ttl: `from_origin` has no TTL of its own; say for whom the answers are: `shared`, `per` or `guarded`\n  |\n3 | ttl = '1m'\n  |       ^^^^",
        ),
        (
            "[otherwise]\naudience = 'bypass'\nsort_query = true",
            "configuration:3:14: otherwise.sort_query: has no effect: what bypasses is neither looked up nor stored\n  |\n3 | sort_query = true\n  |              ^^^^",
        ),
        (
            "[otherwise]\naudience = 'shared'\nttl = '1m'\nignore_cookies = ['a']",
            "configuration:4:18: otherwise.ignore_cookies: has a meaning only with audience = \"guarded\": to the others cookies don't matter\n  |\n4 | ignore_cookies = ['a']\n  |                  ^^^^^",
        ),
        (
            "[otherwise]\naudience = 'from_origin'\noverride_origin = true",
            "configuration:3:19: otherwise.override_origin: there is nothing to override with: neither `ttl` nor `status_ttl` is set\n  |\n3 | override_origin = true\n  |                   ^^^^",
        ),
        (
            "[otherwise]\naudience = 'shared'\nttl = '1m'\nstrip_credentials = true\nkey_cookies = ['a']",
            "configuration:5:15: otherwise.key_cookies: `strip_credentials` hides these cookies from the handler, so its answer can't depend on them\n  |\n5 | key_cookies = ['a']\n  |               ^^^^^",
        ),
        (
            "[otherwise]\naudience = 'shared'\nttl = '1m'\nquota = { bytes = '1MiB' }",
            "configuration:4:9: otherwise.quota: has a meaning only with audience = \"per\": it bounds what one principal has\n  |\n4 | quota = { bytes = '1MiB' }\n  |         ^^^^^^^^^^^^^^^^^^",
        ),
        (
            "[otherwise]\naudience = 'shared'\nttl = '1m'\nnetwork_limit = '1s'",
            "configuration:4:17: otherwise.network_limit: has a meaning only with strategy = \"network_first\"\n  |\n4 | network_limit = '1s'\n  |                 ^^^^",
        ),
        (
            "[otherwise]\naudience = 'shared'\nttl = '1m'\nstrategy = 'network_first'\nrefresh_ahead = 1.0",
            "configuration:5:17: otherwise.refresh_ahead: has no effect with strategy = \"network_first\": a hit there refreshes nothing\n  |\n5 | refresh_ahead = 1.0\n  |                 ^^^",
        ),
        (
            "[otherwise]\naudience = 'shared'\nttl = '1m'\nstrategy = 'network-first'",
            "configuration:4:12: otherwise.strategy: \"network-first\" is not known here; did you mean \"network_first\"?\n  |\n4 | strategy = 'network-first'\n  |            ^^^^^^^^^^^^^^^",
        ),
        (
            "[otherwise]\naudience = 'per'\nttl = '1m'",
            "configuration:1:1: otherwise: `principal` is missing: a name given in code, { header = \"NAME\" } or { cookie = \"NAME\" }\n  |\n1 | [otherwise]\n  | ^^^^^^^^^^^",
        ),
        (
            "[otherwise]\naudience = 'shared'\nttl = '1m'\nprincipal = 'user'",
            "configuration:4:13: otherwise.principal: has a meaning only with audience = \"per\"\n  |\n4 | principal = 'user'\n  |             ^^^^^^",
        ),
        (
            "[otherwise]\naudience = 'per'\nttl = '1m'\nprincipal = { header = 'a', cookie = 'b' }",
            "configuration:4:13: otherwise.principal: it is either { header = \"NAME\" } or { cookie = \"NAME\" }\n  |\n4 | principal = { header = 'a', cookie = 'b' }\n  |             ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^",
        ),
        (
            "[otherwise]\naudience = 'per'\nttl = '1m'\nprincipal = { headr = 'a' }",
            "configuration:4:13: otherwise.principal: it is either { header = \"NAME\" } or { cookie = \"NAME\" }\n  |\n4 | principal = { headr = 'a' }\n  |             ^^^^^^^^^^^^^^^\n\nconfiguration:4:15: otherwise.principal.headr: unknown field; did you mean `header`?\n  |\n4 | principal = { headr = 'a' }\n  |               ^^^^^",
        ),
    ];
    for (text, expected) in rows {
        assert_eq!(wrong(text), *expected, "\n{text}");
    }
}

#[test]
fn what_is_no_toml_is_refused_where_it_stops_to_be() {
    // The words are those of the parser.
    let error = wrong("age = true\nx = \n");
    assert!(
        error.starts_with("configuration:2:5: this is no TOML: ") && error.ends_with("\n  |\n2 | x = \n  |     ^"),
        "{error}"
    );
    assert!(!error.contains("unknown field"), "one mistake at a time: {error}");
}

#[test]
fn a_file_that_is_not_there_is_an_error_that_names_it() {
    let error = Config::from_file("no/such/larder.toml").unwrap_err();
    assert!(error.to_string().starts_with("no/such/larder.toml: the configuration can't be read: "), "{error}");
    assert!(error.problems().is_empty());
}

#[test]
fn whatever_the_text_is_it_is_no_panic() {
    let good = include_str!("../examples/toml_file/larder.toml");
    for at in (0..good.len()).filter(|at| good.is_char_boundary(*at)) {
        let (before, after) = good.split_at(at);
        for text in [before.to_owned(), format!("{before}\u{e9}\u{0}[{after}")] {
            drop(text.parse::<Config>().map_err(|error| error.to_string()));
        }
    }
}

const PER_USER: &str = "[otherwise]\naudience = 'per'\nttl = '1m'\nprincipal = 'user'";

#[test]
fn a_principal_is_given_by_code() {
    let error = CacheLayer::from_config(&config(PER_USER)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "configuration:4:13: otherwise.principal: the application gives no principal \"user\"; in code: `Config::principal`\n  |\n4 | principal = 'user'\n  |             ^^^^^^"
    );
    let error = CacheLayer::from_config(&config(PER_USER).principal("users", by_user)).unwrap_err();
    assert!(error.problems()[0].message.ends_with("did you mean \"users\"?"), "{error}");
    let problem = &error.problems()[0];
    assert_eq!((problem.line, problem.column, problem.field.as_str()), (4, 13, "otherwise.principal"));
}

#[tokio::test]
async fn principals_by_name_by_field_and_by_cookie() {
    let per = |principal: &str| format!("[otherwise]\naudience = 'per'\nttl = '1m'\nprincipal = {principal}");
    type Asked<'a> = &'a [(&'a str, &'a str)];
    // Two requests, and what the second one is answered by.
    let rows: &[(&str, Asked<'_>, Asked<'_>, &str)] = &[
        ("'user'", &[("x-user", "a")], &[("x-user", "a")], "HIT"),
        ("'user'", &[("x-user", "a")], &[("x-user", "b")], "MISS"),
        ("'user'", &[], &[], "BYPASS"),
        ("{ header = 'X-User' }", &[("x-user", "a")], &[("x-user", "a")], "HIT"),
        ("{ header = 'X-User' }", &[("x-user", "a")], &[("x-user", "b")], "MISS"),
        ("{ header = 'X-User' }", &[("x-user", "a")], &[("x-user", "a"), ("x-user", "b")], "BYPASS"),
        ("{ header = 'X-User' }", &[], &[("x-user", " ")], "BYPASS"),
        ("{ cookie = 'id' }", &[("cookie", "x=1; id=a")], &[("cookie", "id=a; x=2")], "HIT"),
        ("{ cookie = 'id' }", &[("cookie", "id=a")], &[("cookie", "id=b")], "MISS"),
        ("{ cookie = 'id' }", &[("cookie", "id=a")], &[("cookie", "id=a; id=b")], "BYPASS"),
        ("{ cookie = 'id' }", &[], &[("cookie", "id=; ids=a")], "BYPASS"),
    ];
    for (principal, first, second, expected) in rows {
        let house = House::around(Handler::saying(&[]), layer(&per(principal)));
        house.ask("/", first).await;
        assert_eq!(house.ask("/", second).await.x_cache, *expected, "{principal} {first:?} {second:?}");
    }
}

#[tokio::test]
async fn a_reload_takes_the_file_as_it_is_now() {
    let house = House::around(Handler::saying(&[]), layer(PER_USER).outcome_extension(false));
    let me = [("x-user", "me")];
    house.ask("/", &me).await;
    let reload = |text: &str| house.handle.reload(&config(text).principal("user", by_user));
    let changed = reload(&PER_USER.replace("1m", "40s")).unwrap();
    assert_eq!(changed.to_string(), "otherwise: ttl 60s -> 40s");
    assert_eq!((house.ask("/", &me).await.x_cache.as_str(), house.ask("/", &me).await.outcome), ("HIT", None));
    house.advance(40);
    assert_eq!(house.ask("/", &me).await.x_cache, "MISS");
    // What can't be done changes nothing.
    let error = house.handle.reload(&config(PER_USER)).unwrap_err();
    assert!(error.to_string().contains("no principal"), "{error}");
    let error = reload("[store]\ncapacity = '2MiB'").unwrap_err();
    assert!(matches!(error, ConfigError::Reload(_)), "{error}");
    assert_eq!(house.ask("/", &me).await.x_cache, "HIT");
    assert!(reload("[store]\ncapacity = '256MiB'").is_ok(), "the size that it has");
}

#[test]
fn a_layer_keeps_its_store_unless_the_file_names_another() {
    let own = || CacheLayer::in_memory(5).rule("^/x", Policy::bypass());
    assert_eq!(difference(&own().configured(&config("")).unwrap(), &CacheLayer::in_memory(5)), "");
    let sized = own().configured(&config("[store]\ncapacity = 7")).unwrap();
    assert_eq!(difference(&sized, &CacheLayer::in_memory(7)), "");
    let error = CacheLayer::with_storage(Nothing).configured(&config("[store]")).unwrap_err();
    assert!(error.to_string().starts_with("store.kind can't change"), "{error}");
    let layer = CacheLayer::with_storage(Nothing).configured(&config("heuristics = true")).unwrap();
    assert_eq!(layer.handle().reload(&config("")).unwrap().to_string(), "cache: heuristics true -> false");
}

/// A store that keeps nothing.
struct Nothing;

impl Storage for Nothing {
    async fn get(&self, _: Query<'_>) -> Result<Variants, StorageError> {
        Ok(Variants::new())
    }
    async fn put(&self, _: &CacheKey, _: Arc<StoredResponse>, _: usize) -> Result<(), StorageError> {
        Ok(())
    }
    async fn remove(&self, _: &CacheKey) -> Result<bool, StorageError> {
        Ok(false)
    }
    async fn clear(&self) -> Result<(), StorageError> {
        Ok(())
    }
    fn usage(&self) -> StorageUsage {
        StorageUsage::default()
    }
}

/// Every TOML block of the reference and of the guide, and the sample: they are what they claim to be.
#[test]
fn what_the_documents_show_is_right() {
    let reference = include_str!("../docs/configuration.md");
    let blocks: Vec<&str> =
        reference.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(blocks.len() > 5, "the blocks were found");
    for block in blocks.into_iter().chain([include_str!("../examples/toml_file/larder.toml")]) {
        drop(layer(block));
    }
    // Each message that it shows.
    let shown: Vec<&str> = reference.split("```text\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    let text = "[[rule]]\npath = \"^/products\"\naudience = \"shared\"\ntll = \"5m\"\nttl = \"5 minutes\"\n";
    assert_eq!(wrong(text).replace("configuration:", "larder.toml:"), shown[0].trim_end());
}

/// Every field that is known is in the reference.
#[test]
fn the_reference_names_every_field() {
    let reference = include_str!("../docs/configuration.md");
    for text in [
        "zzzzzz = 1",
        "[store]\nzzzzzz = 1",
        "[limits]\nzzzzzz = 1",
        "[headers]\nzzzzzz = 1",
        "[compression]\ncoding = 'none'\nzzzzzz = 1",
        "[[rule]]\nzzzzzz = 1",
        "[keys.a]\nzzzzzz = 1",
    ] {
        let error = wrong(text);
        let known = error.split("known here are ").nth(1).expect("a list").lines().next().expect("a line");
        for field in known.split(", ") {
            assert!(
                reference.contains(&format!("| {field} |"))
                    || reference.contains(&format!("[{}", field.replace('`', ""))),
                "{field} is missing"
            );
        }
    }
}
