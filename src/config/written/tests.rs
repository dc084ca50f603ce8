//! What is written reads back.

use super::*;
use crate::config::{Config, lent};
use crate::description::changes;
use crate::layer::CacheLayer;
use crate::policy::Policy;
use crate::request::RequestHead;

const SECOND: Duration = Duration::from_secs(1);

fn user(_: &RequestHead<'_>) -> Option<String> {
    Some("me".into())
}

/// What is written of settings, read over them, changes nothing.
fn assert_reads_back(settings: &Settings) -> Written {
    let written = written(settings);
    let config: Config = written.text.parse().unwrap_or_else(|error| panic!("{error}\n\n{}", written.text));
    let read = config.lend(&lent(settings)).settings_over(settings).unwrap();
    let changes: Vec<String> = changes(settings, &read).iter().map(ToString::to_string).collect();
    assert!(changes.is_empty() || !written.notes.is_empty(), "{changes:#?}\n\n{}", written.text);
    assert_eq!(settings.backend.differs(&read.backend), None);
    written
}

#[test]
fn a_file_reads_back_as_it_is() {
    let all = "
        strict_rfc = true
        heuristics = false
        no_vary_search = false
        propagate_tags = false
        targeted_fields = ['Edge-Control', 'CDN-Cache-Control']
        never_store = ['x-a']
        replay = ['x-request-id']
        [store]
        capacity = '1MiB'
        max_entries = 10
        eviction = 'lru'
        [limits]
        max_body_size = '1MiB'
        max_head_size = 1000
        max_fill_bytes = 1001
        max_variants = 4
        max_refreshes = 0
        max_waiting = 3
        max_wait = '1500ms'
        max_fill_age = '1m'
        max_lease_wait = '250ms'
        near_ttl = '5s'
        staleness_bound = '500ms'
        eager_etag_size = 0
        max_query_content = 9
        [compression]
        coding = 'gzip'
        level = 9
        min_size = '2KiB'
        min_saving = 20
        [headers]
        name = 'edge'
        age = false
        x_cache = false
        x_cache_age = false
        cache_status = false
        warning = true
        forward_tags = true
        [data.products]
        ttl = '5m'
        sliding = '90s'
        stale_while_revalidate = '1s'
        stale_if_error = '2s'
        none_ttl = '3s'
        error_ttl = '4s'
        tags = ['shop', 'a:b']
        serializer = 'msgpack'
        max_value_size = '1KiB'
        [data.plain]
        serializer = 'json'
        [keys.a]
        sort_query = true
        only_query = ['b', 'c*']
        [[rule]]
        path = '^/a\"\\d+\\.$'
        audience = 'per'
        principal = 'user'
        ttl = '1h30m'
        keys = 'a'
        quota = { bytes = 5, responses = 6 }
        status_ttl = { 404 = '5s', 410 = '5ms' }
        statuses = [200, 404]
        override_origin = true
        heuristics = true
        drop_set_cookie = true
        store_post = false
        shadow = true
        tags = ['a:$0', 'b']
        purges_tags = ['c']
        purges_globs = ['/d*']
        [[rule]]
        path = '^/header'
        audience = 'per'
        principal = { header = 'x-user' }
        ttl = '0s'
        downstream = '1s'
        stale_while_revalidate = '2s'
        stale_if_error = '3s'
        fill_timeout = '4s'
        jitter = 0.25
        sliding = '5s'
        refresh_ahead = 1
        refresh_within = '6s'
        [[rule]]
        path = '^/cookie'
        audience = 'per'
        principal = { cookie = 'se\"ssion' }
        ttl = '7d'
        strip_credentials = true
        [[rule]]
        path = '^/network'
        audience = 'shared'
        ttl = '1s'
        strategy = 'network_first'
        network_limit = '1s'
        key_headers = ['accept-language']
        key_cookies = ['theme']
        ignore_query = ['utm_*']
        only_query = []
        [[rule]]
        path = '^/bypass'
        audience = 'bypass'
        purges_tags = ['e']
        [otherwise]
        audience = 'guarded'
        ttl = '1s'
        ignore_cookies = ['theme', 'x*']
        strategy = 'cache_only'
    ";
    let example = include_str!("../../../examples/toml_file/larder.toml");
    for text in ["", example, all, "[compression]\ncoding = 'none'\nmin_size = 5", "[otherwise]\naudience = 'bypass'"] {
        let config = text.parse::<Config>().unwrap().principal("user", user);
        let layer = CacheLayer::from_config(&config).unwrap();
        let once = assert_reads_back(layer.settings());
        assert!(once.notes.is_empty(), "{:?}", once.notes);
        let again = once.text.parse::<Config>().unwrap().principal("user", user);
        let again = CacheLayer::from_config(&again).unwrap();
        assert!(changes(layer.settings(), again.settings()).is_empty(), "{}", once.text);
    }
}

#[test]
fn what_code_set_up_reads_back_as_well() {
    let layer = CacheLayer::in_memory(u64::MAX)
        .rule("^/me", Policy::per(user, SECOND))
        .rule("^/me", Policy::bypass())
        .rule("^/b", Policy::bypass().stale_if_error(SECOND))
        .rule(
            "^/o",
            Policy::from_origin().override_origin().ignore_cookies(["a"]).refresh_ahead(2.0).network_first(SECOND),
        )
        .rule("^/s\u{7f}\n\"\\.", Policy::shared(Duration::from_secs(u64::MAX)).strip_credentials())
        .otherwise(Policy::shared(SECOND).status_ttl(http::StatusCode::NOT_FOUND, SECOND));
    let once = assert_reads_back(layer.settings());
    assert!(once.text.contains("principal = \"rule ^/me\""), "{}", once.text);
    assert!(!once.text.contains("[store]"), "no number of TOML is that large");
    assert_eq!(once.notes.len(), 1, "{:?}", once.notes);
}

#[test]
fn what_only_code_can_say_is_said_in_words() {
    let odd = Duration::from_micros(1500);
    let layer = CacheLayer::in_memory(1 << 20)
        .rule("^/a", Policy::shared(odd))
        .rule("^/b", Policy::shared(SECOND).strip_credentials().key_cookies(["a"]));
    let notes = written(layer.settings()).notes;
    assert_eq!(
        notes,
        ["^/a: ttl: 1.5ms, which a text can't say exactly", "^/b: `key_cookies` beside `strip_credentials`"]
    );
}
