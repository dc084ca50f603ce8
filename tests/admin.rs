//! The admin API does what it says, and answers as it is described.
#![cfg(feature = "admin")]

mod support;

use std::collections::HashSet;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::Request;
use larder::admin::{self, Access, Token};
use larder::storage::MemoryStore;
use larder::{CacheLayer, Compression, ObjectCache, Policy, RequestHead};
use serde_json::{Value, json};
use support::desk::{Desk, TOKEN, description, request};
use support::exchange::{Exchange, Handler, House, MINUTE, answer, secs, until};
use support::log::Log;
use support::shared_log::{Line, Server};
use tower::ServiceExt;

const FRESH: &[(&str, &str)] = &[("cache-control", "max-age=60"), ("content-type", "text/plain")];

fn plain() -> Desk {
    Desk::new(Handler::saying(FRESH), CacheLayer::in_memory(1 << 20))
}

fn user(request: &RequestHead<'_>) -> Option<String> {
    request.headers.get("x-user").and_then(|user| user.to_str().ok()).map(str::to_owned)
}

/// A response with tags.
fn tagged() -> Handler {
    Handler::saying(&[("cache-control", "max-age=60"), ("cache-tag", "user:1:profile,all")])
}

#[tokio::test]
async fn the_statistics_have_the_fields_that_clients_know() {
    let desk = plain();
    let before = desk.get("/stats").await;
    let fixed = ["total_entries", "total_size_mb", "hit_rate", "compression_ratio", "tags_count"];
    for name in fixed {
        assert!(before.json[name].is_number(), "{name}: {}", before.json);
    }
    assert_eq!((&before.json["total_entries"], &before.json["compression_ratio"]), (&json!(0), &json!(1.0)));
    for target in ["/a", "/a", "/a", "/b"] {
        desk.house.get(target).await;
    }
    let after = desk.get("/stats").await.json;
    assert_eq!((&after["total_entries"], &after["hit_rate"], &after["hits"]), (&json!(2), &json!(0.5), &json!(2)));
    let bytes = after["total_size_bytes"].as_u64().unwrap();
    assert!(bytes > 0 && after["total_size_mb"].as_f64() == Some(bytes as f64 / f64::from(1 << 20)), "{after}");
}

#[cfg(feature = "gzip")]
#[tokio::test]
async fn the_compression_ratio_is_what_is_left_of_each_byte() {
    let handler = Handler::new(|_, _| answer(200, FRESH, "a".repeat(10_000)));
    let desk = Desk::new(handler, CacheLayer::in_memory(1 << 20).compress(Compression::gzip()));
    desk.house.get("/a").await;
    until(|| desk.handle.stats().compression.done == 1).await;
    let ratio = desk.get("/stats").await.json["compression_ratio"].as_f64().unwrap();
    assert!(ratio > 0.0 && ratio < 0.1, "{ratio}");
}

#[tokio::test]
async fn a_key_is_a_percent_encoded_path_with_its_query() {
    let desk = plain();
    for target in ["/a?b=1&c", "/a?b=2", "/a", "/caf%C3%A9"] {
        desk.house.get(target).await;
    }
    let purged = desk.post("/invalidate/key/%2Fa%3Fb%3D1%26c").await;
    assert_eq!((purged.status, &purged.json["selector"]), (200, &json!("uri:/a?b=1&c")));
    assert!(purged.json["number"].as_u64() > Some(0) && purged.json["reach"] == "this-process", "{}", purged.json);
    for (target, expected) in [("/a?b=1&c", "MISS"), ("/a?b=2", "HIT"), ("/a", "HIT"), ("/caf%C3%A9", "HIT")] {
        assert_eq!(desk.house.get(target).await.x_cache, expected, "{target}");
    }
    // A proxy on the way may have decoded the slash; and a key that was encoded itself is encoded twice.
    for (target, key) in [("/invalidate/key//a", "/a"), ("/invalidate/key/%2Fcaf%25C3%25A9", "/caf%C3%A9")] {
        assert_eq!(desk.post(target).await.status, 200, "{target}");
        assert_eq!(desk.house.get(key).await.x_cache, "MISS", "{key}");
    }
    let absolute = desk.post("/invalidate/key/http%3A%2F%2Fother.test%2Fa").await;
    assert_eq!((absolute.status, desk.house.get("/a").await.x_cache), (200, "HIT".into()), "another host");
    let wrong = desk.post("/invalidate/key/a").await;
    assert_eq!((wrong.status, Desk::problems(&wrong)[0].0.as_str()), (422, "key"));
}

#[tokio::test]
async fn a_tag_takes_what_bears_it() {
    let desk = Desk::new(tagged(), CacheLayer::in_memory(1 << 20));
    desk.house.get("/a").await;
    assert_eq!(desk.get("/stats").await.json["tags_count"], 2, "user:1:profile, all");
    for (tag, expected) in [("user:2", "HIT"), ("user%3A1", "MISS"), ("all", "MISS"), ("a%2Fb", "HIT")] {
        let purged = desk.post(&format!("/invalidate/tag/{tag}")).await;
        assert_eq!(purged.status, 200, "{}", purged.json);
        assert_eq!(desk.house.get("/a").await.x_cache, expected, "{tag}");
    }
}

#[tokio::test]
async fn a_pattern_is_a_glob_or_a_regular_expression() {
    let desk = plain();
    let rows = [
        ("pattern=/a/*", "/a/b/c", "/b"),
        ("pattern=%2Fa%2F%3F", "/a/b", "/a/bc"),
        ("regex=%5E/a/%5B0-9%5D%2B%24", "/a/17", "/a/x"),
        ("pattern=*page%3D2*", "/a?page=2", "/a?page=3"),
    ];
    for (query, purged, left) in rows {
        desk.house.get(purged).await;
        desk.house.get(left).await;
        let answer = desk.post(&format!("/invalidate/pattern?{query}")).await;
        assert_eq!(answer.status, 200, "{}", answer.json);
        assert_eq!(desk.house.get(purged).await.x_cache, "MISS", "{query}");
        assert_eq!(desk.house.get(left).await.x_cache, "HIT", "{query}");
    }
    for query in ["", "?pattern=/a&regex=/a", "?regex=(", "?pattern=%00"] {
        let refused = desk.post(&format!("/invalidate/pattern{query}")).await;
        assert_eq!(refused.status, 422, "{query} {}", refused.json);
    }
}

#[tokio::test]
async fn a_partition_and_everything_go_and_nobody_is_named() {
    let desk = Desk::new(Handler::saying(&[]), CacheLayer::in_memory(1 << 20).rule("^/me", Policy::per(user, MINUTE)));
    for name in ["ann", "bob"] {
        desk.house.ask("/me", &[("x-user", name)]).await;
    }
    let purged = desk.post_json("/invalidate/partition", r#"{"principal": "ann"}"#).await;
    assert_eq!((purged.status, &purged.json["selector"]), (200, &json!("partition")));
    for (name, expected) in [("ann", "MISS"), ("bob", "HIT")] {
        assert_eq!(desk.house.ask("/me", &[("x-user", name)]).await.x_cache, expected);
    }
    assert_eq!(desk.post("/invalidate/partition").await.status, 422);
    assert_eq!(desk.post("/invalidate/all").await.status, 200);
    assert_eq!(desk.house.ask("/me", &[("x-user", "bob")]).await.x_cache, "MISS");
}

#[tokio::test]
async fn logs_of_purges_have_no_query_and_no_principal() {
    let (desk, log) = (plain(), Log::new());
    assert_eq!(desk.post("/invalidate/key/%2Freset%3Ftoken%3DS3CRET").await.status, 200);
    assert_eq!(desk.post_json("/invalidate/partition", r#"{"principal": "S3CRET"}"#).await.status, 200);
    let lines = log.lines("purged through the admin API");
    assert!(lines.len() == 2 && lines[0].contains("uri:/reset?(query)"), "{lines:?}");
    assert!(!lines.concat().contains("S3CRET"), "{lines:?}");
}

#[tokio::test]
async fn any_selector_can_be_purged_in_its_text_form() {
    let desk = plain();
    for (target, content) in [
        ("/purge?selector=glob:/a*", ""),
        ("/purge", r#"{"selector": "uri:/a", "mode": "hard", "dry_run": false}"#),
        ("/purge?mode=hard", r#"{"selector": "everything"}"#),
    ] {
        desk.house.get("/a").await;
        assert_eq!(desk.post_json(target, content).await.status, 200, "{target}");
        assert_eq!(desk.house.get("/a").await.x_cache, "MISS", "{target} {content}");
    }
    for content in [
        r#"{"selector": "all"}"#,
        r#"{"selector": "uri:/a", "mode": "gentle"}"#,
        r#"{"selector": "uri:/a", "dryrun": true}"#,
        r#"{"selector": ["uri:/a"]}"#,
        "{}",
    ] {
        assert_eq!(desk.post_json("/purge", content).await.status, 422, "{content}");
    }
    assert_eq!(desk.post_json("/purge?mode=hard", r#"{"mode": "hard"}"#).await.status, 422, "given twice");
    assert_eq!(desk.house.get("/a").await.x_cache, "HIT", "what was refused purged nothing");
}

#[tokio::test]
async fn a_soft_purge_leaves_what_is_stale_and_a_refresh_says_what_becomes_of_it() {
    let layer = CacheLayer::in_memory(1 << 20).rule("^/", Policy::shared(MINUTE).stale_while_revalidate(MINUTE));
    let desk = Desk::new(Handler::saying(&[]), layer);
    for (mode, refreshing) in [("soft", None), ("refresh&most=5", Some("no-way"))] {
        desk.house.get("/a").await;
        assert_eq!(desk.house.get("/a").await.x_cache, "HIT", "{mode}");
        let purged = desk.post(&format!("/invalidate/key/%2Fa?mode={mode}")).await.json;
        assert_eq!(purged["refreshing"]["why_none"].as_str(), refreshing, "{purged}");
        assert_eq!(desk.get("/entries").await.json["entries"][0]["state"], "stale");
        assert_eq!(desk.house.get("/a").await.x_cache, "STALE", "{mode}");
        support::exchange::quiet().await;
    }
    assert_eq!(desk.post("/invalidate/all?mode=refresh&most=10001").await.status, 422);
    assert_eq!(desk.post("/invalidate/all?mode=soft&most=1").await.status, 422, "it has no meaning there");
    assert_eq!(desk.post(&format!("/invalidate/tag/{}", "a".repeat(300))).await.status, 422, "no response can bear it");
}

#[tokio::test]
async fn a_dry_run_counts_and_changes_nothing() {
    let desk = plain();
    for target in ["/a/1", "/a/2", "/b"] {
        desk.house.get(target).await;
    }
    for (target, entries) in [
        ("/invalidate/pattern?pattern=/a/*&dry_run=true", 2),
        ("/invalidate/key/%2Fb?dry_run", 1),
        ("/invalidate/tag/none?dry_run=1", 0),
        ("/invalidate/all?dry_run=true", 3),
    ] {
        let counted = desk.post(target).await.json;
        assert_eq!((&counted["entries"], &counted["dry_run"]), (&json!(entries), &json!(true)), "{target}");
        assert!(counted.get("number").is_none(), "{counted}");
    }
    for target in ["/a/1", "/a/2", "/b"] {
        assert_eq!(desk.house.get(target).await.x_cache, "HIT", "{target}");
    }
}

#[tokio::test]
async fn some_settings_change_without_a_file() {
    let desk = Desk::new(Handler::saying(&[]), CacheLayer::in_memory(1 << 20));
    let read = desk.get("/config").await.json;
    assert_eq!(read["default_ttl_seconds"], 0);
    assert_eq!((&read["compression_threshold_bytes"], &read["enable_compression"]), (&json!(1024), &json!(false)));

    // A TTL for what no rule names, and for whom nobody vouches: not for those who are logged in.
    let changed = desk.put("/config", "json", r#"{"default_ttl_seconds": 30}"#).await.json;
    assert_eq!((&changed["applied"], &changed["default_ttl_seconds"]), (&json!(true), &json!(30)));
    let texts: Vec<_> =
        changed["changes"].as_array().unwrap().iter().map(|change| change["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["otherwise: audience from_origin -> guarded", "otherwise: ttl none -> 30s"]);
    for expected in ["MISS", "HIT"] {
        assert_eq!(desk.house.get("/a").await.x_cache, expected);
        assert_eq!(desk.house.ask("/a", &[("cookie", "session=1")]).await.x_cache, "BYPASS");
    }
    desk.house.advance(31);
    assert_eq!(desk.house.get("/a").await.x_cache, "MISS");

    let on = r#"{"enable_compression": true, "compression_threshold_bytes": 2048, "default_ttl_seconds": null}"#;
    let changed = desk.put("/config", "json", on).await.json;
    assert_eq!((&changed["enable_compression"], &changed["compression_threshold_bytes"]), (&json!(true), &json!(2048)));
    assert_eq!(changed["default_ttl_seconds"], 30, "null leaves it");
    assert!(
        changed["changes"]
            .as_array()
            .unwrap()
            .iter()
            .any(|change| change["before"] == "none" && change["after"] == "gzip")
    );

    let changed = desk.put("/config", "json", r#"{"default_ttl_seconds": 0, "enable_compression": false}"#).await.json;
    assert_eq!((&changed["default_ttl_seconds"], &changed["enable_compression"]), (&json!(0), &json!(false)));
    assert_eq!(desk.house.get("/b").await.x_cache, "MISS");
    assert_eq!(desk.house.get("/b").await.x_cache, "MISS", "what the handler says, which is nothing");
    let nothing = desk.put("/config", "json", "{}").await.json;
    assert_eq!((&nothing["changes"], &nothing["generation"]), (&json!([]), &changed["generation"]));
}

#[tokio::test]
async fn compression_is_switched_on_again_as_it_was() {
    let layer = CacheLayer::in_memory(1 << 20).compress(Compression::zstd().level(7));
    let desk = Desk::new(Handler::saying(FRESH), layer);
    desk.put("/config", "json", r#"{"enable_compression": false}"#).await;
    desk.put("/config", "json", r#"{"enable_compression": true}"#).await;
    let text = desk.get("/config").await.json["toml"].as_str().unwrap().to_owned();
    assert!(text.contains("coding = \"zstd\"\nlevel = 7\n"), "{text}");
}

#[tokio::test]
async fn a_guarded_default_keeps_what_else_it_says() {
    let policy = Policy::guarded(MINUTE).ignore_cookies(["theme"]).stale_if_error(MINUTE);
    let desk = Desk::new(Handler::saying(&[]), CacheLayer::in_memory(1 << 20).otherwise(policy));
    let changed = desk.put("/config", "json", r#"{"default_ttl_seconds": 5}"#).await.json;
    assert_eq!(changed["changes"][0]["text"], "otherwise: ttl 60s -> 5s");
    assert_eq!(changed["changes"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_default_ttl_changes_nothing_else_of_what_no_rule_names() {
    type Put = (u64, u16, &'static [&'static str]);
    const UNCHANGED_ONLY: &[Put] = &[(60, 200, &[]), (30, 409, &[]), (0, 409, &[])];
    const TO_GUARDED: Put = (30, 200, &["otherwise: audience from_origin -> guarded", "otherwise: ttl none -> 30s"]);
    const TO_ORIGIN: Put = (0, 200, &["otherwise: audience guarded -> from_origin", "otherwise: ttl 60s -> none"]);
    let tenant = || "x-tenant".parse().unwrap();
    let rows: [(&str, Policy, u64, &[Put]); 6] = [
        ("bypass", Policy::bypass(), 0, &[(0, 200, &[]), (30, 409, &[])]),
        ("per", Policy::per(user, MINUTE), 60, UNCHANGED_ONLY),
        ("shared", Policy::shared(MINUTE), 60, UNCHANGED_ONLY),
        ("from_origin", Policy::from_origin().key_header(tenant()), 0, &[(0, 200, &[]), TO_GUARDED]),
        (
            "from_origin in shadow",
            Policy::from_origin().ignore_query(["utm"]).strip_credentials().tag("all").shadow(),
            0,
            &[TO_GUARDED],
        ),
        ("guarded", Policy::guarded(MINUTE).key_header(tenant()), 60, &[(60, 200, &[]), TO_ORIGIN]),
    ];
    for (name, otherwise, reported, puts) in rows {
        let desk = Desk::new(Handler::saying(&[]), CacheLayer::in_memory(1 << 20).otherwise(otherwise));
        let before = desk.get("/config").await.json;
        assert_eq!(before["default_ttl_seconds"], reported, "{name}");
        for (ttl, status, expected) in puts {
            let content = format!("{{\"default_ttl_seconds\": {ttl}}}");
            let answer = desk.put("/config", "json", &content).await;
            assert_eq!(answer.status, *status, "{name} {ttl} {}", answer.json);
            if *status == 409 {
                assert_eq!(answer.json["type"], "urn:larder:problem:audience-chosen", "{name} {ttl}");
                assert!(answer.json["detail"].as_str().unwrap().contains("application/toml"), "{name} {ttl}");
                assert_eq!(Desk::problems(&answer)[0].0, "default_ttl_seconds", "{name} {ttl}");
            } else {
                let changes = answer.json["changes"].as_array().unwrap();
                let texts: Vec<_> = changes.iter().map(|change| change["text"].as_str().unwrap()).collect();
                assert_eq!(texts, *expected, "{name} {ttl}");
            }
            if expected.is_empty() {
                assert_eq!(desk.get("/config").await.json, before, "{name} {ttl}");
            }
        }
    }
}

#[tokio::test]
async fn of_a_change_with_a_mistake_nothing_is_made_and_all_that_is_wrong_is_said() {
    let desk = Desk::new(Handler::saying(&[]), CacheLayer::in_memory(1 << 20));
    let content =
        r#"{"default_ttl_seconds": 30, "compression_threshold_bytes": -1, "enable_compression": "yes", "defualt": 1}"#;
    let refused = desk.put("/config", "json", content).await;
    assert_eq!((refused.status, &refused.json["type"]), (422, &json!("urn:larder:problem:invalid-configuration")));
    let fields: HashSet<_> = Desk::problems(&refused).into_iter().map(|(field, _)| field).collect();
    assert_eq!(fields, ["compression_threshold_bytes", "enable_compression", "defualt"].map(String::from).into());
    assert_eq!(desk.get("/config").await.json["default_ttl_seconds"], 0);
    for (content, status) in [
        (r#"{"default_ttl_seconds": 1.5}"#, 422),
        (r#"{"default_ttl_seconds": 2147483649}"#, 422),
        (r#"{"default_ttl_seconds": 1e400}"#, 400),
        (r#"{"default_ttl_seconds": [1]}"#, 422),
        ("[]", 400),
        ("", 400),
        ("{", 400),
    ] {
        assert_eq!(desk.put("/config", "json", content).await.status, status, "{content}");
    }
}

#[tokio::test]
async fn a_whole_configuration_is_checked_and_takes_effect_at_once() {
    let desk = Desk::new(Handler::saying(&[]), CacheLayer::in_memory(1 << 20).rule("^/old", Policy::shared(MINUTE)));
    let wrong = "[[rule]]\npath = '^/a'\naudience = 'shard'\nttl = '5 minutes'\n[limit]\n";
    let refused = desk.put("/config", "toml", wrong).await;
    assert_eq!(refused.status, 422);
    let problems = refused.json["problems"].as_array().unwrap().iter();
    let places: Vec<_> =
        problems.map(|at| (at["line"].as_u64(), at["column"].as_u64(), at["field"].as_str())).collect();
    assert_eq!(
        places,
        [
            (Some(3), Some(12), Some("rule[0].audience")),
            (Some(4), Some(7), Some("rule[0].ttl")),
            (Some(5), Some(2), Some("limit")),
        ]
    );
    assert_eq!(desk.put("/config", "toml", "[[rule").await.status, 422, "no TOML");

    let right = "[[rule]]\npath = '^/a'\naudience = 'shared'\nttl = '5m'\n";
    let tried = desk.put("/config?dry_run=true", "toml", right).await.json;
    assert_eq!((&tried["applied"], tried["changes"].as_array().unwrap().len()), (&json!(false), 2));
    assert_eq!(desk.house.get("/a").await.x_cache, "MISS");
    assert_eq!(desk.house.get("/a").await.x_cache, "MISS", "a dry run changes nothing");

    let changed = desk.put("/config", "toml", right).await.json;
    assert_eq!((&changed["applied"], &changed["changes"]), (&json!(true), &tried["changes"]));
    let kinds: Vec<_> =
        changed["changes"].as_array().unwrap().iter().map(|change| change["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["removed", "added"]);
    assert_eq!(desk.house.get("/a").await.x_cache, "MISS");
    assert_eq!(desk.house.get("/a").await.x_cache, "HIT");

    let needs_restart = desk.put("/config", "toml", "[store]\ncapacity = '5MiB'\n").await;
    assert_eq!((needs_restart.status, Desk::problems(&needs_restart)[0].0.as_str()), (409, "store.capacity"));
    assert_eq!(desk.put("/config?dry_run", "toml", "[store]\ncapacity = '5MiB'\n").await.status, 409);
}

/// Also where a rule has a closure that only code knows: what was stored for its principals stays theirs.
#[tokio::test]
async fn what_was_read_back_changes_nothing_and_can_be_changed() {
    let layer = CacheLayer::in_memory(1 << 20)
        .rule("^/me", Policy::per(user, MINUTE))
        .rule("^/b", Policy::bypass())
        .strict_rfc()
        .max_variants(3);
    let desk = Desk::new(Handler::saying(&[]), layer);
    let me = || desk.house.ask("/me", &[("x-user", "ann")]);
    me().await;
    let read = desk.get("/config").await;
    let text = read.json["toml"].as_str().unwrap().to_owned();
    let back = desk.put("/config", "toml", &text).await;
    assert_eq!(back.json["changes"], json!([]), "{text}");

    let without = text.replace("path = \"^/me\"", "path = \"^/mine\"");
    desk.put("/config", "toml", &without).await;
    assert_eq!(me().await.x_cache, "MISS", "no rule");
    let again = desk.put("/config", "toml", &text).await;
    assert_eq!((again.status, me().await.x_cache), (200, "HIT".into()), "the closure of a rule that was gone is known");
}

#[tokio::test]
async fn who_changes_what_somebody_else_changed_meanwhile_is_told() {
    let desk = plain();
    let tag = desk.get("/config").await.exchange.field("etag").to_owned();
    let put = |tag: String, ttl: u32| {
        let request = request("PUT", "/config").header("content-type", "application/json").header("if-match", tag);
        desk.send(request.body(Body::from(format!("{{\"default_ttl_seconds\": {ttl}}}"))).unwrap())
    };
    assert_eq!(put(tag.clone(), 5).await.status, 200);
    assert_eq!(put(tag, 6).await.status, 412);
    let current = desk.get("/config").await;
    assert_eq!(current.json["default_ttl_seconds"], 5);
    assert_eq!(put(format!("\"x\", {}", current.exchange.field("etag")), 6).await.status, 200);
    assert_eq!(put("*".into(), 7).await.status, 200);
}

#[tokio::test]
async fn each_entry_is_on_one_page() {
    let desk = plain();
    for n in 0..23 {
        desk.house.get(&format!("/a/{n}")).await;
    }
    desk.house.get("/b").await;
    let (mut seen, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = desk.get(&format!("/entries?limit=5&pattern=/a/*{cursor}")).await.json;
        assert_eq!(page["total"], 23);
        let entries = page["entries"].as_array().unwrap();
        assert!(entries.len() <= 5);
        seen.extend(entries.iter().map(|entry| entry["key"]["path"].as_str().unwrap().to_owned()));
        pages += 1;
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let distinct: HashSet<_> = seen.iter().collect();
    assert_eq!((pages, seen.len(), distinct.len()), (5, 23, 23));
    let all = desk.get("/entries").await.json;
    assert_eq!((all["entries"].as_array().unwrap().len(), all.get("next_cursor")), (24, None));
    for query in ["limit=501", "limit=x", "cursor=zz", "cursor=1", "page=2"] {
        assert_eq!(desk.get(&format!("/entries?{query}")).await.status, 422, "{query}");
    }
}

#[tokio::test]
async fn an_entry_shows_what_it_is_and_no_credentials() {
    let handler = Handler::new(|_, _| {
        let fields = [("cache-control", "max-age=60"), ("set-cookie", "session=S3CRET"), ("vary", "cookie")];
        answer(200, &fields, "the content")
    });
    // The letter of the RFC stores cookies.
    let layer = CacheLayer::in_memory(1 << 20)
        .strict_rfc()
        .rule("^/", Policy::per(user, MINUTE).key_header("x-api-key".parse().unwrap()).key_cookies(["session"]));
    let desk = Desk::new(handler, layer);
    let fields = [("cookie", "session=S3CRET"), ("x-api-key", "S3CRET"), ("x-user", "S3CRET")];
    desk.house.ask("/a?token=S3CRET&page=2", &fields).await;
    assert_eq!(desk.house.ask("/a?token=S3CRET&page=2", &fields).await.x_cache, "HIT");
    let page = desk.get("/entries").await;
    let entry = &page.json["entries"][0];
    assert_eq!((&entry["status"], &entry["state"], &entry["ttl_seconds"]), (&json!(200), &json!("fresh"), &json!(60)));
    let detail = desk.get(&format!("/entries/{}", entry["id"].as_str().unwrap())).await;
    assert_eq!(detail.json["responses"][0]["vary"], json!(["cookie"]));
    assert_eq!(detail.json["responses"][0]["content_bytes"], 11);
    for shown in [&page.exchange.body, &detail.exchange.body] {
        assert!(!shown.contains("S3CRET") && shown.contains("\"partition\""), "{shown}");
    }
    assert!(!detail.exchange.body.contains("the content"), "only on request");
    assert_eq!(desk.get("/entries/0000000000000000").await.status, 404);
    assert_eq!(desk.get("/entries/x").await.status, 422);
}

#[tokio::test]
async fn a_response_with_too_many_tags_is_said_to_bear_every_one() {
    let many: &str = (0..5000).map(|n| format!("t{n}")).collect::<Vec<_>>().join(",").leak();
    for (tags, every) in [("a", false), (many, true)] {
        let handler =
            Handler::new(move |_, _| answer(200, &[("cache-control", "max-age=60"), ("cache-tag", tags)], ""));
        let desk = Desk::new(handler, CacheLayer::in_memory(1 << 20));
        desk.house.get("/a").await;
        let id = desk.get("/entries").await.json["entries"][0]["id"].as_str().unwrap().to_owned();
        let detail = desk.get(&format!("/entries/{id}")).await.json;
        let explained = desk.get("/explain?uri=http://example.com/a").await.json;
        for said in [&detail["responses"][0]["bears_every_tag"], &explained["stored"]["bears_every_tag"]] {
            assert_eq!(said, &json!(every));
        }
    }
}

#[tokio::test]
async fn the_statistics_tell_what_is_remembered_of_purges_and_what_was_swept() {
    let desk = Desk::new(tagged(), CacheLayer::in_memory(1 << 20));
    desk.house.get("/a").await;
    desk.post("/invalidate/tag/all").await;
    until(|| desk.handle.stats().swept == 1).await;
    let (stats, said) = (desk.handle.stats(), desk.get("/stats").await.json);
    assert_eq!((&said["swept"], &said["purges_remembered"]), (&json!(1), &json!(stats.purges_remembered)));
}

#[tokio::test]
async fn an_entry_shows_nothing_of_a_query_that_no_name_tells_to_be_harmless() {
    let handler = Handler::saying(&[("cache-control", "max-age=60"), ("no-vary-search", "key-order")]);
    let desk = Desk::new(handler, CacheLayer::in_memory(1 << 20));
    for target in ["/a?token=S3CRET&page=2", "/a?page=2&token=S3CRET", "/verify?S3CRET", "/verify?UzNDUkVU=="] {
        desk.house.get(target).await;
    }
    let page = desk.get("/entries").await;
    let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let entries = page.json["entries"].as_array().unwrap();
    assert!(entries.iter().any(|entry| entry["key"]["additions"][0]["kind"] == "no-vary-search"), "{}", page.json);
    for entry in entries {
        let detail = desk.get(&format!("/entries/{}", entry["id"].as_str().unwrap())).await;
        for shown in [&page.exchange.body, &detail.exchange.body] {
            for secret in ["S3CRET", "UzNDUkVU"] {
                assert!(!shown.contains(secret) && !shown.contains(&hex(secret)), "{shown}");
            }
        }
    }
}

#[cfg(feature = "gzip")]
#[tokio::test]
async fn content_is_shown_on_request_up_to_a_limit_and_without_coding() {
    let handler = Handler::new(|_, _| answer(200, FRESH, "abc".repeat(100_000)));
    let desk = Desk::new(handler, CacheLayer::in_memory(2 << 20).compress(Compression::gzip()));
    desk.house.get("/a").await;
    until(|| desk.handle.stats().compression.done == 1).await;
    let id = desk.get("/entries").await.json["entries"][0]["id"].as_str().unwrap().to_owned();
    for (query, length) in [("", 65_536), ("?max_bytes=7", 7), ("?max_bytes=1048576", 300_000), ("?response=0", 65_536)]
    {
        let shown = desk.get(&format!("/entries/{id}/content{query}")).await.exchange;
        assert_eq!((shown.body.len(), &shown.body[..7]), (length, "abcabca"), "{query}");
        assert_eq!(shown.field("content-type"), "application/octet-stream");
        assert_eq!(shown.field("content-disposition"), "attachment");
    }
    for query in ["?max_bytes=1048577", "?response=1", "?response=-1"] {
        assert_eq!(desk.get(&format!("/entries/{id}/content{query}")).await.status, 422, "{query}");
    }
}

#[tokio::test]
async fn statistics_have_what_is_known_of_the_log_of_purges() {
    assert_eq!(plain().get("/stats").await.json["purge_log"], Value::Null, "instances share nothing");
    let desk = Desk::new(Handler::saying(FRESH), CacheLayer::with_storage(Server::default().store(Line::Open)));
    desk.house.get("/a").await;
    assert_eq!(desk.post("/invalidate/tag/x").await.status, 200);
    let log = desk.get("/stats").await.json["purge_log"].clone();
    let said = [&log["trusted"], &log["heard"], &log["owed"], &log["unwritten"], &log["snapshots"], &log["failures"]];
    assert_eq!(said.map(Value::to_string), ["true", "1", "0", "0", "1", "0"], "{log}");
    assert!(log["number"].as_u64() > Some(0) && log["silent_seconds"].as_f64() < Some(1.0), "{log}");
}

#[tokio::test]
async fn health_tells_a_shutdown() {
    let desk = plain();
    let well = desk.get("/health").await;
    assert_eq!((well.status, &well.json["status"], &well.json["store"]), (200, &json!("ok"), &json!("reachable")));
    assert_eq!(well.json["guard"], "none");
    desk.handle.shutdown(Duration::ZERO).await;
    let ill = desk.get("/health").await;
    assert_eq!((ill.status, &ill.json["status"]), (503, &json!("shutting_down")));
}

mod out_of_reach {
    use std::sync::Arc;

    use larder::storage::{Query, Storage, StorageUsage, Variants};
    use larder::{CacheKey, StorageError, StoredResponse};

    /// A store that nobody answers for.
    pub struct Gone;

    impl Storage for Gone {
        async fn get(&self, _: Query<'_>) -> Result<Variants, StorageError> {
            Err(StorageError::new("gone"))
        }

        async fn put(&self, _: &CacheKey, _: Arc<StoredResponse>, _: usize) -> Result<(), StorageError> {
            Err(StorageError::new("gone"))
        }

        async fn remove(&self, _: &CacheKey) -> Result<bool, StorageError> {
            Err(StorageError::new("gone"))
        }

        async fn clear(&self) -> Result<(), StorageError> {
            Err(StorageError::new("gone"))
        }

        fn usage(&self) -> StorageUsage {
            StorageUsage::default()
        }
    }
}

#[tokio::test]
async fn a_store_out_of_reach_is_said_and_what_needs_to_walk_through_it_is_refused() {
    let desk = Desk::new(Handler::saying(FRESH), CacheLayer::with_storage(out_of_reach::Gone));
    let ill = desk.get("/health").await;
    assert_eq!((ill.status, &ill.json["status"]), (503, &json!("store_unreachable")));
    assert_eq!(ill.json["guard"], "closed");
    for _ in 0..2 {
        desk.get("/health").await;
    }
    assert_eq!(desk.get("/health").await.json["guard"], "open", "three failures are enough");
    let stats = desk.get("/stats").await;
    assert_eq!((&stats.json["guard"]["is_open"], &stats.json["guard"]["opened"]), (&json!(true), &json!(1)));
    assert_eq!(desk.get("/stats").await.status, 200);
    for status in [desk.get("/entries").await.status, desk.post("/invalidate/all?dry_run").await.status] {
        assert_eq!(status, 501);
    }
    assert_eq!(desk.post("/invalidate/all").await.status, 502, "it has taken effect, and the store failed");
}

#[tokio::test]
async fn every_route_is_described_and_every_description_is_answered() {
    let desk = plain();
    let described: HashSet<_> = desk.description.operations().into_iter().collect();
    for (path, method) in &described {
        let path = path.replace("{key}", "%2Fa").replace("{tag}", "a").replace("{id}", "0000000000000000");
        let answer = desk.send(request(method, &path).body(Body::empty()).unwrap()).await;
        let known = answer.status != 405 && (answer.status != 404 || path.starts_with("/entries/"));
        assert!(known, "{method} {path}: {}", answer.json);
    }
    let source = include_str!("../src/admin/mod.rs");
    let table = source.split("const ROUTES").nth(1).and_then(|rest| rest.split("];").next()).expect("the table");
    let routes = table.lines().filter_map(|line| line.trim().strip_prefix("(\""));
    let routes: Vec<_> = routes.filter_map(|line| line.split_once("\", || ")).collect();
    assert!(routes.len() > 10, "the table was found");
    for (path, methods) in routes {
        for (word, method) in [("get(", "GET"), ("post(", "POST"), ("put(", "PUT"), ("delete(", "DELETE")] {
            let operation = (path.replace("{*", "{"), method.to_owned());
            assert_eq!(methods.contains(word), described.contains(&operation), "{operation:?}");
        }
    }
    assert_eq!(desk.get("/openapi.json").await.json, description().0);
}

#[tokio::test]
async fn every_refusal_is_a_problem() {
    let desk = plain();
    let with = |method: &str, target: &str, name: &str, value: &str, content: &'static str| {
        request(method, target).header(name, value).body(Body::from(content)).unwrap()
    };
    let bare = |target: &str| Request::get(target).header("host", "localhost").body(Body::empty()).unwrap();
    let long = format!("/stats?{}", "x".repeat(10_000));
    let rows = [
        (bare("/stats"), 401, "Unauthorized"),
        (bare("/no/such/route"), 401, "Unauthorized"),
        (with("GET", "/stats", "origin", "http://evil.example", ""), 403, "Pages from elsewhere may not use this"),
        (with("GET", "/no/such/route", "x-a", "b", ""), 404, "Not Found"),
        (with("GET", "/", "x-a", "b", ""), 404, "Not Found"),
        (with("DELETE", "/stats", "x-a", "b", ""), 405, "Method Not Allowed"),
        (with("PUT", "/config", "content-length", "99999999", "{"), 413, "Payload Too Large"),
        (with("GET", &long, "x-a", "b", ""), 414, "URI Too Long"),
        (with("PUT", "/config", "content-type", "text/plain", "{}"), 415, "Unsupported Media Type"),
        (with("PUT", "/config", "x-a", "b", ""), 415, "Unsupported Media Type"),
        (with("PUT", "/config", "content-type", "application/json", "{]"), 400, "The content can't be read"),
        (with("GET", "/entries?limit=x", "x-a", "b", ""), 422, "A parameter can't be used"),
    ];
    for (request, status, title) in rows {
        let target = request.uri().to_string();
        let request = if status == 413 {
            let mut request = request;
            *request.body_mut() = Body::from("x".repeat(300_000));
            request
        } else {
            request
        };
        let reply = desk.send(request).await;
        assert_eq!((reply.status, reply.json["title"].as_str()), (status, Some(title)), "{target} {}", reply.json);
        assert_eq!(reply.exchange.field("content-type"), "application/problem+json", "{target}");
        assert_eq!(reply.exchange.has("www-authenticate"), status == 401);
        assert_eq!(reply.exchange.field("allow"), if status == 405 { "GET,HEAD" } else { "" });
    }
    let misdirected = Request::get("/stats").header("host", "evil.example").body(Body::empty()).unwrap();
    assert_eq!(desk.send(misdirected).await.status, 421);
}

#[tokio::test]
async fn two_tokens_may_be_live_at_once() {
    let other = "a1b2c3d4e5f60718";
    let access = Access::token(Token::new(TOKEN).unwrap()).and_token(Token::new(other).unwrap());
    let desk = Desk::guarded(Handler::saying(FRESH), CacheLayer::in_memory(1 << 20), access);
    for (token, expected) in [(TOKEN, 200), (other, 200), ("a1b2c3d4e5f60719", 401)] {
        let request =
            Request::get("/stats").header("host", "localhost").header("authorization", format!("Bearer {token}"));
        assert_eq!(desk.send(request.body(Body::empty()).unwrap()).await.status, expected, "{token}");
    }
}

#[tokio::test]
async fn without_a_token_everything_is_closed_and_says_how_to_open_it() {
    let access = Access::from_env("LARDER_NO_SUCH_VARIABLE").unwrap();
    assert!(access.is_denied());
    let desk = Desk::guarded(Handler::saying(FRESH), CacheLayer::in_memory(1 << 20), access);
    for (path, method) in desk.description.operations() {
        let path = path.replace("{key}", "%2Fa").replace("{tag}", "a").replace("{id}", "0000000000000000");
        let reply = desk.send(request(&method, &path).body(Body::empty()).unwrap()).await;
        assert_eq!(reply.status, 403, "{method} {path}");
        assert!(reply.json["detail"].as_str().unwrap().contains("LARDER_NO_SUCH_VARIABLE"), "{}", reply.json);
    }
}

/// Whatever a rule says, and however the two are put together.
#[tokio::test]
async fn no_cache_keeps_an_answer_of_the_admin_api() {
    let cache = CacheLayer::in_memory(1 << 20).strict_rfc().rule("^/", Policy::shared(MINUTE).override_origin());
    let access = Access::token(Token::new(TOKEN).unwrap());
    let app: Router = Router::new()
        .route("/a", get(|| async { "content" }))
        .nest("/api/cache", admin::router(cache.handle(), access))
        .layer(cache.clone());
    for _ in 0..2 {
        for (path, status) in [("stats", 200), ("config", 200), ("openapi.json", 200), ("no/such", 404)] {
            let asked = app.clone().oneshot(request("GET", &format!("/api/cache/{path}")).body(Body::empty()).unwrap());
            let answer = Exchange::read(asked.await.unwrap()).await.unwrap();
            assert_eq!((answer.status, answer.field("cache-control")), (status, "no-store"), "{path}");
            assert_ne!(answer.x_cache, "HIT", "{path}");
            assert!(!answer.cache_status.contains("stored"), "{path} {}", answer.cache_status);
        }
    }
    // Nor is it ever an answer for who has no token.
    let bare = Request::get("/api/cache/stats").header("host", "localhost").body(Body::empty()).unwrap();
    assert_eq!(app.clone().oneshot(bare).await.unwrap().status(), 401);
    assert_eq!(cache.handle().stats().storage.entries, 0);
}

#[tokio::test]
async fn it_can_be_nested_anywhere() {
    let cache = CacheLayer::in_memory(1 << 20);
    let api = || admin::router(cache.handle(), Token::new(TOKEN).unwrap());
    let apps: [Router; 3] = [
        Router::new().nest("/api/cache", api()).fallback(|| async { "the application" }),
        Router::new().nest_service("/api/cache", api()),
        Router::new().nest("/api", Router::new().nest_service("/cache", api())),
    ];
    for app in apps {
        for (method, path, status) in
            [("GET", "/stats", 200), ("POST", "/invalidate/key/%2Fa", 200), ("GET", "/x", 404), ("POST", "/stats", 405)]
        {
            let request = request(method, &format!("/api/cache{path}")).body(Body::empty()).unwrap();
            let answer = Exchange::read(app.clone().oneshot(request).await.unwrap()).await.unwrap();
            assert_eq!((answer.status, answer.field("cache-control")), (status, "no-store"), "{path}");
            let json: Value = serde_json::from_str(&answer.body).unwrap();
            assert!(json.is_object());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn content_that_never_comes_is_not_waited_for() {
    let desk = plain();
    let endless = Body::from_stream(futures_util::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
    let request = request("PUT", "/config").header("content-type", "application/json").body(endless).unwrap();
    let start = tokio::time::Instant::now();
    assert_eq!(desk.send(request).await.status, 408);
    assert!(start.elapsed() <= secs(11));
}

#[tokio::test]
async fn an_explanation_says_what_the_next_request_finds() {
    let layer =
        CacheLayer::in_memory(1 << 20).rule("^/bypass", Policy::bypass()).rule("^/me", Policy::per(user, MINUTE));
    let desk = Desk::new(Handler::saying(FRESH), layer);
    let miss = desk.get("/explain?uri=http://example.com/a").await.json;
    assert_eq!((&miss["outcome"]["x_cache"], &miss["outcome"]["reason"]), (&json!("MISS"), &json!("uri-miss")));
    desk.house.get("/a").await;
    let hit = desk.get("/explain?uri=http://example.com/a").await.json;
    assert_eq!((&hit["outcome"]["x_cache"], &hit["stored"]["lifetime_seconds"]), (&json!("HIT"), &json!(60)));
    assert_eq!(hit["stored"]["source"]["section"], "RFC 9111 §5.2.2.1");
    // A path is on the host that is asked.
    assert_eq!(desk.get("/explain?uri=/a").await.json["key"]["authority"], "localhost");

    let content = r#"{"uri": "/a", "headers": {"host": "example.com", "cache-control": ["no-cache", "no-store"]}}"#;
    assert_eq!(desk.post_json("/explain", content).await.json["outcome"]["reason"], "request");
    let content = r#"{"uri": "/me", "headers": {"x-user": "S3CRET", "authorization": "Bearer S3CRET"}}"#;
    let me = desk.post_json("/explain", content).await;
    assert_eq!(me.json["key"]["parts"], json!([{"kind": "partition"}]));
    assert!(!me.exchange.body.contains("S3CRET"), "{}", me.exchange.body);
    let write = desk.post_json("/explain", r#"{"uri": "/a", "method": "DELETE"}"#).await.json;
    assert_eq!((&write["invalidates"], &write["outcome"]["x_cache"]), (&json!(true), &json!("BYPASS")));
    for (content, status) in [
        ("{}", 422),
        (r#"{"uri": "a"}"#, 422),
        (r#"{"uri": "/a", "method": "G T"}"#, 422),
        (r#"{"uri": "/a", "headers": ["a"]}"#, 422),
        (r#"{"uri": "/a", "headers": {"a b": "c"}}"#, 422),
        (r#"{"uri": "/a", "headers": {"a": "b\nc"}}"#, 422),
        (r#"{"uri": "/a", "body": "x"}"#, 422),
    ] {
        assert_eq!(desk.post_json("/explain", content).await.status, status, "{content}");
    }
    assert_eq!(desk.handle.stats().misses, 1, "explaining asks nobody");
}

#[tokio::test]
async fn the_performance_has_the_fields_that_clients_know() {
    let layer = CacheLayer::in_memory(1 << 20).rule("^/bypass", Policy::bypass());
    let desk = Desk::new(Handler::saying(FRESH), layer);
    let before = desk.get("/performance").await.json;
    assert_eq!(before["service_metrics"], json!({"hit_rate": 0.0, "avg_response_time_ms": 0.0}));
    for target in ["/a", "/a", "/a", "/b", "/bypass"] {
        desk.house.get(target).await;
    }
    let after = desk.get("/performance").await.json;
    assert_eq!(after["service_metrics"]["hit_rate"], 0.5);
    assert_eq!(after["middleware_metrics"], json!({"total_requests": 5, "hits": 2, "misses": 2, "bypassed": 1}));
    assert!(after["recommendations"].is_array(), "{after}");
}

/// The handler takes 300 ms and the store none.
#[tokio::test]
async fn the_average_response_time_is_of_hits_and_misses() {
    let clock = std::sync::Arc::new(larder::ManualClock::default());
    let time = clock.clone();
    let handler = Handler::new(move |_, _| {
        time.advance(Duration::from_millis(300));
        answer(200, FRESH, "slow")
    });
    let house = House::on(clock, handler, CacheLayer::in_memory(1 << 20));
    let api = admin::router(house.handle.clone(), Token::new(TOKEN).unwrap());
    for _ in 0..3 {
        house.get("/a").await;
    }
    let asked = api.oneshot(request("GET", "/performance").body(Body::empty()).unwrap());
    let answer = Exchange::read(asked.await.unwrap()).await.unwrap();
    let json: Value = serde_json::from_str(&answer.body).unwrap();
    let average = json["service_metrics"]["avg_response_time_ms"].as_f64().unwrap();
    assert!((95.0..105.0).contains(&average), "{average}");
}

#[tokio::test]
async fn each_data_cache_has_statistics_and_its_values_can_be_dropped() {
    let desk = Desk::new(Handler::saying(&[]), CacheLayer::in_memory(1 << 20));
    let products = desk.house.handle.data("products");
    products.set("17", "jar").await.unwrap();
    products.get::<String>("17").await.unwrap();
    let caches = desk.get("/stats/data").await.json;
    let caches = caches["caches"].as_array().unwrap();
    let expected = [("name", json!("products")), ("hits", json!(1)), ("written", json!(1)), ("entries", json!(1))];
    for (field, value) in expected {
        assert_eq!(caches[0][field], value, "{field}");
    }
    let found = json!({"name": "products", "found": true});
    assert_eq!(desk.post("/invalidate/data/products%3A17").await.json, found);
    assert_eq!(products.get::<String>("17").await, None);
    let nothing = json!({"name": "made-up", "found": false});
    assert_eq!(desk.post("/invalidate/data/made-up%3A17").await.json, nothing);
    assert_eq!(desk.get("/stats/data").await.json["caches"].as_array().unwrap().len(), 1, "no name is remembered");
    for nothing in ["products", "Products%3A17", "%3A17"] {
        assert_eq!(desk.post(&format!("/invalidate/data/{nothing}")).await.status, 422, "{nothing}");
    }
}

#[tokio::test]
async fn each_cache_of_objects_has_statistics_and_what_it_holds_can_be_dropped() {
    let desk = Desk::new(Handler::saying(&[]), CacheLayer::in_memory(1 << 20));
    assert_eq!(desk.get("/stats/objects").await.json, json!({"caches": []}));
    let handle = &desk.house.handle;
    let templates: ObjectCache<u8, String> =
        handle.objects("templates").weigher(1000, |_, text: &String| text.len() as u32);
    let [one, other]: [ObjectCache<u8, u8>; 2] = [handle.objects("numbers"), handle.objects("numbers")];
    templates.insert(1, "four".to_owned());
    assert!(templates.get(&1).is_some() && templates.get(&2).is_none());
    one.insert(1, 1);
    other.insert(1, 1);
    let caches = desk.get("/stats/objects").await.json;
    let caches = caches["caches"].as_array().unwrap();
    assert_eq!(caches.len(), 2, "{caches:?}");
    let row =
        |n: usize| ["name", "hits", "misses", "inserted", "entries", "weight"].map(|field| caches[n][field].clone());
    assert_eq!(row(0), [json!("numbers"), json!(0), json!(0), json!(2), json!(2), json!(2)], "of one name together");
    assert_eq!(row(1), [json!("templates"), json!(1), json!(1), json!(1), json!(1), json!(4)]);
    let values = handle.data("numbers");
    values.set("1", &1).await.unwrap();
    let dropped = desk.post("/invalidate/objects/numbers").await;
    assert_eq!((dropped.status, &dropped.json["entries"]), (200, &json!(2)), "{}", dropped.json);
    assert_eq!((one.get(&1), other.get(&1), templates.get(&1).is_some()), (None, None, true), "those of the name");
    assert!(values.exists("1").await, "and nothing else");
    assert_eq!(desk.post("/invalidate/objects/nobody").await.json["entries"], 0);
    assert_eq!(desk.post("/invalidate/objects/No%20name").await.status, 422);
    drop((one, other, templates));
    assert_eq!(desk.get("/stats/objects").await.json, json!({"caches": []}), "nobody has a hold on them");
}

#[tokio::test]
async fn a_look_at_a_value_is_explained() {
    let desk = plain();
    let data = desk.house.handle.data("data").ttl(secs(60)).stale_while_revalidate(secs(60));
    let explain = async |key: &str| desk.get(&format!("/explain/data/data%3A{key}")).await.json;
    for key in ["fresh", "purged", "old"] {
        data.entry(key).tag(format!("t:{key}")).set(&1).await.unwrap();
    }
    data.increment("count", 1).await.unwrap();
    let nothing = data.entry("nothing").none_ttl(MINUTE).get_or_load_option(async || Ok::<Option<u8>, ()>(None));
    nothing.await.unwrap();
    desk.handle.purge("tag:t:purged".parse().unwrap()).await.unwrap();
    desk.handle.purge("tag:t:old".parse().unwrap()).soft().await.unwrap();
    data.set("deleted", &1).await.unwrap();
    data.delete("deleted").await;
    let rows = [
        ("fresh", "fresh"),
        ("count", "fresh"),
        ("nothing", "none"),
        ("old", "stale"),
        ("purged", "purged"),
        ("deleted", "absent"),
        ("never", "absent"),
    ];
    for (key, state) in rows {
        let before = data.stats();
        let said = explain(key).await;
        assert_eq!(said["state"], state, "{key}: {said}");
        assert_eq!(said["atomic"], key == "count", "{key}");
        assert_eq!(data.explain(key).await.to_string(), said["text"].as_str().unwrap(), "{key}");
        assert_eq!(data.stats(), before, "{key}: nothing is counted");
        assert_eq!(data.exists(key).await, state == "fresh", "{key}: as it was said");
    }
    assert_eq!(
        (&explain("fresh").await["tags"], &explain("deleted").await["fate"]["became"]),
        (&json!(["t:fresh"]), &json!("written"))
    );
    assert_eq!(desk.get("/explain/data/nobody%3Ax").await.json["state"], "absent");
    assert_eq!(desk.get("/explain/data/data").await.status, 422);
}

#[tokio::test]
async fn entries_say_of_what_kind_they_are_and_are_listed_by_it() {
    let desk = plain();
    desk.house.get("/page").await;
    let data = desk.house.handle.data("data");
    data.set("value", &1).await.unwrap();
    data.increment("count", 1).await.unwrap();
    let nothing = data.entry("nothing").none_ttl(MINUTE).get_or_load_option(async || Ok::<Option<u8>, ()>(None));
    nothing.await.unwrap();
    let own = desk.house.handle.data("own").own_memory(MemoryStore::new(1 << 20));
    own.set("value", &1).await.unwrap();
    let rows: [(&str, &[&str]); 4] = [
        ("response", &["/page"]),
        ("value", &["data:value", "own:value"]),
        ("none", &["data:nothing"]),
        ("atomic", &["data:count"]),
    ];
    for (kind, paths) in rows {
        let page = desk.get(&format!("/entries?kind={kind}")).await.json;
        let entries = page["entries"].as_array().unwrap();
        let mut found: Vec<_> = entries.iter().map(|entry| entry["key"]["path"].as_str().unwrap()).collect();
        found.sort_unstable();
        assert_eq!((found.as_slice(), &page["total"]), (paths, &json!(paths.len())), "{kind}");
        for entry in entries {
            let detail = desk.get(&format!("/entries/{}", entry["id"].as_str().unwrap())).await.json;
            assert_eq!((&entry["kind"], &detail["kind"]), (&json!(kind), &json!(kind)));
        }
    }
    assert_eq!(desk.get("/entries?kind=value&pattern=own:*").await.json["total"], 1, "both count");
    assert_eq!(desk.get("/entries?kind=object").await.status, 422);
}

/// The value is gone here, and who asked has to know that it may still be given elsewhere.
#[tokio::test(start_paused = true)]
async fn a_value_whose_dropping_the_others_could_not_be_told_is_a_bad_gateway() {
    let server = Server::default();
    for (line, status) in [(Line::Open, 200), (Line::Broken, 502)] {
        let instance = server.plain(&Handler::saying(&[]));
        let products = instance.handle.data("products");
        products.set("17", "jar").await.unwrap();
        instance.set_line(line);
        let api = admin::router(instance.handle.clone(), Token::new(TOKEN).unwrap());
        let asked = request("POST", "/invalidate/data/products%3A17").body(Body::empty()).unwrap();
        let answer = Exchange::read(api.oneshot(asked).await.unwrap()).await.unwrap();
        assert_eq!(answer.status, status, "{line:?}: {}", answer.body);
        let said: Value = serde_json::from_str(&answer.body).unwrap();
        let kind = said["type"].as_str().unwrap_or_default();
        assert_eq!((kind.ends_with("purge-log"), said["found"] == true), (status == 502, status == 200), "{said}");
        assert_eq!(products.get::<String>("17").await, None, "{line:?}");
    }
}

#[tokio::test]
async fn each_route_has_statistics_of_its_own() {
    let layer = CacheLayer::in_memory(1 << 20).rule("^/a", Policy::shared(MINUTE)).rule("^/bypass", Policy::bypass());
    let desk = Desk::new(Handler::saying(&[]), layer);
    for target in ["/a", "/a", "/a", "/other", "/bypass"] {
        desk.house.get(target).await;
    }
    let routes = desk.get("/stats/routes").await.json;
    let routes = routes["routes"].as_array().unwrap();
    let rules: Vec<_> = routes.iter().map(|route| route["rule"].as_str()).collect();
    assert_eq!(rules, [Some("^/a"), Some("^/bypass"), None]);
    let outcomes = |n: usize| routes[n]["outcomes"].as_array().unwrap().clone();
    assert!(outcomes(0).contains(&json!({"outcome": "hit", "reason": null, "count": 2})), "{:?}", outcomes(0));
    assert!(outcomes(0).contains(&json!({"outcome": "miss", "reason": "uri-miss", "count": 1})), "{:?}", outcomes(0));
    assert_eq!(outcomes(1), [json!({"outcome": "bypass", "reason": "rule", "count": 1})]);
    assert_eq!(routes[2]["declined"], json!({"no-freshness": 1}));
    assert_eq!(
        (&routes[0]["requests"], &routes[0]["entries"], &routes[0]["stored"]),
        (&json!(3), &json!(1), &json!(1))
    );
    assert_eq!(routes[0]["miss_latency"]["count"], 1);
}

#[tokio::test]
async fn the_report_has_its_evidence() {
    let desk = Desk::new(Handler::new(|_, _| answer(200, &[], "the same")), {
        CacheLayer::in_memory(1 << 20)
            .rule("^/a", Policy::shared(secs(1)))
            .rule("^/shadow", Policy::shared(MINUTE).shadow())
    });
    for n in 0..400 {
        desk.house.get("/a").await;
        desk.house.ask("/shadow", &[("authorization", if n % 2 == 0 { "Basic one" } else { "Basic other" })]).await;
        desk.house.advance(2);
    }
    let report = desk.get("/report").await.json;
    let kinds: HashSet<_> =
        report["recommendations"].as_array().unwrap().iter().map(|said| said["kind"].as_str().unwrap()).collect();
    assert!(kinds.contains("longer-ttl"), "{report:#}");
    let routes = report["routes"].as_array().unwrap();
    assert!(
        routes.iter().any(|route| route["rule"] == "^/shadow" && route["shadow"]["verdict"].is_string()),
        "{report:#}"
    );
    let texts = desk.get("/performance").await.json["recommendations"].as_array().unwrap().len();
    assert_eq!(texts, report["recommendations"].as_array().unwrap().len());
    assert!(report["text"].as_str().unwrap().contains("^/a"));
}

/// The `curl` lines of the documentation, as requests.
fn documented() -> Vec<Request<Body>> {
    let lines = include_str!("../docs/admin.md").lines().filter_map(|line| line.strip_prefix("curl -s "));
    lines.map(as_request).collect()
}

/// Reads the options of `curl` that the documentation uses.
fn as_request(line: &str) -> Request<Body> {
    let (mut words, mut quote) = (vec![String::new()], None);
    for c in line.chars() {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            (None, ' ') => words.push(String::new()),
            _ => words.last_mut().expect("there is always one").push(c),
        }
    }
    let (mut method, mut target, mut fields, mut content) = (None, String::new(), Vec::new(), None);
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().expect("a value");
        match word.as_str() {
            "-X" => method = Some(value()),
            "-H" => fields.push(value()),
            "-d" => content = Some(value()),
            "--json" => {
                content = Some(value());
                fields.push("Content-Type: application/json".into());
            }
            url => target = url.strip_prefix("$CACHE").unwrap_or_else(|| panic!("{line}")).to_owned(),
        }
    }
    let method = method.unwrap_or_else(|| if content.is_some() { "POST".into() } else { "GET".into() });
    let mut request = Request::builder().method(method.as_str()).uri(target.replace('^', "%5E").replace('|', "%7C"));
    request = request.header("host", "127.0.0.1:3000");
    for field in fields {
        let (name, value) = field.split_once(": ").unwrap_or(("authorization", "token"));
        let token = format!("Bearer {TOKEN}");
        request = request.header(name, if name == "authorization" { &token } else { value });
    }
    request.body(Body::from(content.unwrap_or_default())).expect("a request")
}

#[tokio::test]
async fn each_documented_line_works_and_each_route_has_one() {
    let layer = CacheLayer::in_memory(1 << 20).rule("^/api/me/", Policy::per(user, MINUTE));
    let desk = Desk::new(Handler::saying(FRESH), layer);
    let (mut lines, mut seen) = (0, HashSet::new());
    for request in documented() {
        let line = format!("{} {}", request.method(), request.uri());
        seen.extend(desk.template(request.method().as_str(), request.uri().path()).map(str::to_owned));
        let answer = desk.send(request).await;
        assert_eq!(answer.status, 200, "{line}: {}", answer.json);
        lines += 1;
    }
    let all: HashSet<_> = desk.description.operations().into_iter().map(|(path, _)| path).collect();
    // An id isn't known before there is an entry.
    let without: HashSet<_> = all.difference(&seen).filter(|path| !path.starts_with("/entries/")).collect();
    assert!(lines > 15 && without.is_empty(), "no line for {without:?}");
}
