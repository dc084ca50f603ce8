//! Settings that are replaced while the cache runs: what is stored is held against those of now, and a request sees one of both.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::{HeaderName, StatusCode};
use larder::storage::{Eviction, MemoryStore};
use larder::{CacheLayer, Cached, Policy, ReloadError, RequestHead, Selector};
use support::exchange::*;
use tower::{Layer, ServiceExt};

type Fields = &'static [(&'static str, &'static str)];

const FRESH: (&str, &str) = ("cache-control", "max-age=60");

fn layer() -> CacheLayer {
    CacheLayer::in_memory(1 << 20)
}

fn rule(policy: Policy) -> CacheLayer {
    layer().rule("^/", policy)
}

fn by_user(request: &RequestHead<'_>) -> Option<Vec<u8>> {
    request.headers.get("x-user").map(|user| user.as_bytes().to_vec())
}

fn by_tenant(request: &RequestHead<'_>) -> Option<Vec<u8>> {
    request.headers.get("x-tenant").map(|tenant| tenant.as_bytes().to_vec())
}

fn shared() -> Policy {
    Policy::shared(MINUTE)
}

fn guarded() -> Policy {
    Policy::guarded(MINUTE)
}

#[tokio::test]
async fn an_entry_answers_under_the_audience_it_was_made_for_and_no_other() {
    let captured = 7;
    let other = move |_: &RequestHead<'_>| Some(format!("{captured}"));
    // Stored under the first, asked for under the second; whether it may answer.
    let rows: Vec<(Policy, Policy, bool)> = vec![
        (shared(), shared(), true),
        (shared(), guarded(), false),
        (shared(), Policy::from_origin(), false),
        (shared(), Policy::per(by_user, MINUTE), false),
        (shared(), Policy::bypass(), false),
        (guarded(), shared(), false),
        (Policy::from_origin(), guarded(), false),
        (Policy::from_origin(), Policy::from_origin(), true),
        (Policy::per(by_user, MINUTE), shared(), false),
        (Policy::per(by_user, MINUTE), Policy::per(by_user, MINUTE), true),
        // The same name, but of somebody else.
        (Policy::per(by_user, MINUTE), Policy::per(by_tenant, MINUTE), false),
        (Policy::per(other, MINUTE), Policy::per(other, MINUTE), false),
        (shared(), shared().strip_credentials(), false),
        (shared().drop_set_cookie(), shared(), false),
        (guarded().ignore_cookies(["theme"]), guarded(), false),
        (guarded().ignore_cookies(["theme"]), guarded().ignore_cookies(["theme"]).stale_if_error(MINUTE), true),
        (shared(), shared().key_header(HeaderName::from_static("x-user")), false),
        (shared(), shared().key_cookies(["theme"]), false),
        (shared().key_cookies(["theme"]), shared(), false),
        (shared(), shared().sort_query().ignore_query(["utm_*"]), true),
    ];
    for (before, after, answers) in rows {
        let name = format!("{before:?} -> {after:?}, {answers}");
        let house = House::around(Handler::saying(&[FRESH]), rule(before));
        let fields = [("x-user", "me"), ("x-tenant", "me")];
        assert_eq!(house.ask("/a?b=1", &fields).await.body, "answer 1");
        assert_eq!(house.ask("/a?b=1", &fields).await.body, "answer 1");
        house.handle.reconfigure(&rule(after)).expect("the same store");
        let now = house.ask("/a?b=1", &fields).await;
        assert_eq!(now.body == "answer 1", answers, "{name}: {}", now.cache_status);
    }
}

#[tokio::test]
async fn of_stored_and_current_freshness_the_smaller_counts() {
    let hour = 60 * MINUTE;
    // The response, the rule when it was stored and the rule now; the remaining lifetime then.
    let rows: Vec<(Fields, Policy, Policy, Option<i64>)> = vec![
        (&[], shared(), Policy::shared(secs(20)), Some(10)),
        (&[], shared(), Policy::shared(secs(10)), None),
        (&[], shared(), Policy::shared(secs(5)), None),
        (&[], shared(), Policy::shared(hour), Some(50)),
        (&[("cache-control", "max-age=40")], shared(), Policy::shared(secs(20)), Some(30)),
        (&[("cache-control", "max-age=40")], shared(), Policy::shared(secs(20)).override_origin(), Some(10)),
        (&[("cache-control", "max-age=40")], shared().override_origin(), shared(), Some(30)),
        (&[("cache-control", "max-age=5")], shared().override_origin(), shared(), None),
        (&[], shared(), shared().statuses([StatusCode::NOT_FOUND]), None),
        (&[], shared(), shared().status_ttl(StatusCode::OK, secs(15)), Some(5)),
        (
            &[("last-modified", "Thu, 01 Jan 1970 00:00:00 GMT")],
            Policy::from_origin().heuristics(true),
            Policy::from_origin(),
            None,
        ),
    ];
    for (fields, before, after, ttl) in rows {
        let name = format!("{fields:?} {before:?} -> {after:?}");
        let house = House::around(Handler::saying(fields), rule(before));
        house.clock.advance(1000 * MINUTE);
        assert_eq!(house.get("/").await.body, "answer 1");
        house.advance(10);
        house.handle.reconfigure(&rule(after)).expect("the same store");
        let now = house.get("/").await;
        assert_eq!((now.x_cache == "HIT").then(|| now.outcome.unwrap().ttl.unwrap()), ttl, "{name}");
    }
}

#[tokio::test]
async fn what_strict_rfc_stored_is_not_used_without_it() {
    let house = House::around(Handler::saying(&[FRESH, ("set-cookie", "session=1")]), layer().strict_rfc());
    house.get("/").await;
    assert!(house.get("/").await.has("set-cookie"));
    house.handle.reconfigure(&layer()).unwrap();
    assert_eq!(house.get("/").await.x_cache, "MISS");
}

/// Whose words count says also whether the answer to somebody who is logged in is for others.
#[tokio::test]
async fn what_targeted_fields_let_others_have_is_not_used_where_others_are_heard() {
    let of_cdn: Fields = &[("cache-control", "max-age=60"), ("cdn-cache-control", "public, max-age=60")];
    let of_all: Fields = &[("cache-control", "public, max-age=60"), ("cdn-cache-control", "max-age=60")];
    let unheard = || layer().targeted_fields([]);
    for (fields, before, after) in [(of_cdn, layer(), unheard()), (of_all, unheard(), layer())] {
        let house = House::around(Handler::saying(fields), before);
        house.ask("/", &[("authorization", "me")]).await;
        assert_eq!(house.get("/").await.x_cache, "HIT", "{fields:?}");
        house.handle.reconfigure(&after).unwrap();
        assert_eq!(house.get("/").await.x_cache, "MISS", "{fields:?}");
    }
}

#[tokio::test]
async fn variants_are_matched_by_the_settings_they_were_stored_under() {
    let vary: Fields = &[FRESH, ("vary", "accept-language")];
    let house = House::around(Handler::saying(vary), layer().strict_rfc());
    house.ask("/", &[("accept-language", "en , de")]).await;
    assert_eq!(house.ask("/", &[("accept-language", "EN, de")]).await.x_cache, "HIT");
    house.handle.reconfigure(&layer()).unwrap();
    assert_eq!(house.ask("/", &[("accept-language", "en, de")]).await.x_cache, "MISS");
}

#[tokio::test]
async fn a_purge_reaches_what_was_stored_under_earlier_settings() {
    let house = House::around(Handler::saying(&[]), rule(shared()));
    house.get("/").await;
    house.handle.reconfigure(&rule(Policy::shared(secs(30)))).unwrap();
    assert_eq!(house.get("/").await.x_cache, "HIT");
    house.exchange(request("PUT", "/", &[])).await;
    assert_eq!(house.get("/").await.x_cache, "MISS");
}

#[tokio::test]
async fn stale_windows_shrink_as_well() {
    let house = House::around(Handler::saying(&[]), rule(shared().stale_while_revalidate(MINUTE)));
    house.get("/").await;
    house.advance(70);
    house.handle.reconfigure(&rule(shared().stale_while_revalidate(secs(5)))).unwrap();
    assert_eq!(house.get("/").await.x_cache, "MISS");
}

#[tokio::test]
async fn what_a_handler_said_by_extension_still_counts() {
    let handler = Handler::new(|_, n| {
        let mut response = answer(200, &[], format!("answer {n}"));
        response.extensions_mut().insert(Cached::shared(secs(30)));
        response
    });
    let house = House::around(handler, rule(shared()));
    house.get("/").await;
    house.handle.reconfigure(&rule(Policy::shared(secs(1)).override_origin())).unwrap();
    house.advance(29);
    assert_eq!(house.get("/").await.x_cache, "HIT");
}

#[tokio::test]
async fn what_clients_are_told_is_what_counts_now() {
    let told = |before: Policy, after: Policy, fields: Fields| async move {
        let house = House::around(Handler::saying(fields), rule(before));
        house.get("/").await;
        house.handle.reconfigure(&rule(after)).unwrap();
        let now = house.get("/").await;
        assert_eq!(now.x_cache, "HIT");
        let lines = now.headers.get_all("cache-control").iter().map(|line| line.to_str().unwrap());
        (lines.collect::<Vec<_>>().join("|"), now.has("etag"))
    };
    let overriding = || Policy::shared(secs(300)).override_origin();
    assert_eq!(told(shared(), Policy::shared(secs(20)), &[]).await, ("public, max-age=20".into(), true));
    assert_eq!(
        told(shared(), Policy::shared(secs(90)), &[]).await,
        ("public, max-age=60".into(), true),
        "no longer than it lasts"
    );
    assert_eq!(told(shared(), shared().downstream(secs(5)), &[]).await.0, "public, max-age=5");
    assert_eq!(told(overriding(), Policy::shared(secs(9)), &[FRESH]).await.0, "max-age=60", "the handler's own words");
    assert_eq!(told(shared(), overriding(), &[FRESH]).await.0, "public, max-age=60");
}

#[tokio::test]
async fn heads_stored_before_carry_the_fields_that_are_on_now() {
    type Switch = fn(CacheLayer) -> CacheLayer;
    let switches: [Switch; 7] = [
        |layer| layer,
        |layer| layer.x_cache(false),
        |layer| layer.age(false),
        |layer| layer.cache_status(false),
        |layer| layer.x_cache(false).x_cache_age(false).age(false).cache_status(false),
        |layer| layer.name("other").x_cache_age(false),
        |layer| layer.never_store(HeaderName::from_static("x-of-handler")),
    ];
    const OWN: [&str; 6] = ["age", "x-cache", "x-cache-age", "cache-status", "x-of-handler", "etag"];
    let fields: Fields = &[("x-of-handler", "kept")];
    for before in switches {
        for after in switches {
            let house = House::around(Handler::saying(fields), before(rule(shared())));
            house.get("/").await;
            house.advance(7);
            house.handle.reconfigure(&after(rule(shared()))).unwrap();
            let kept = house.get("/").await;
            // A cache that never had other settings.
            let fresh = House::around(Handler::saying(fields), after(rule(shared())));
            fresh.get("/").await;
            fresh.advance(7);
            let expected = fresh.get("/").await;
            assert_eq!((kept.body.as_str(), house.handler.calls()), ("answer 1", 1));
            for name in OWN.into_iter().filter(|name| *name != "x-of-handler" || !expected.has(name) || kept.has(name))
            {
                assert_eq!(kept.field(name), expected.field(name), "{name}");
            }
            assert!(!kept.has("x-of-handler") || expected.has("x-of-handler"));
        }
    }
}

#[tokio::test]
async fn revalidation_begins_from_what_was_stored_before() {
    let handler = Handler::new(|request, n| {
        let confirmed = request.headers.contains_key("if-none-match");
        answer(if confirmed { 304 } else { 200 }, &[("etag", "\"1\"")], format!("answer {n}"))
    });
    let house = House::around(handler, rule(shared()));
    house.get("/").await;
    house.handle.reconfigure(&rule(Policy::shared(secs(20)))).unwrap();
    house.advance(30);
    let now = house.get("/").await;
    assert_eq!((now.x_cache.as_str(), now.body.as_str()), ("REVALIDATED", "answer 1"));
    house.advance(19);
    assert_eq!(house.get("/").await.x_cache, "HIT");
    house.advance(1);
    assert_eq!(house.get("/").await.x_cache, "REVALIDATED", "on the terms of now");
}

#[tokio::test]
async fn writes_and_purges_reach_what_earlier_rules_keyed_otherwise() {
    let sorting = || rule(shared().sort_query());
    for by_purge in [false, true] {
        let house = House::around(Handler::saying(&[]), rule(shared()));
        assert_eq!(house.get("/?b=1&a=2").await.body, "answer 1");
        house.handle.reconfigure(&sorting()).unwrap();
        if by_purge {
            house.handle.purge(Selector::Uri("/?b=1&a=2".into())).await.unwrap();
        } else {
            house.exchange(request("PUT", "/?b=1&a=2", &[])).await;
        }
        house.handle.reconfigure(&rule(shared())).unwrap();
        assert_ne!(house.get("/?b=1&a=2").await.body, "answer 1", "by purge: {by_purge}");
    }
}

#[tokio::test]
async fn a_write_that_began_before_the_reload_reaches_what_was_stored_after_it() {
    let (go, gone) = tokio::sync::oneshot::channel::<()>();
    let gone = Arc::new(tokio::sync::Mutex::new(Some(gone)));
    let handler = Handler::waiting(move |head, n| {
        let gone = gone.clone();
        async move {
            if head.method == "PUT" {
                let gone = gone.lock().await.take().expect("one write");
                gone.await.expect("the test lets it go on");
            }
            Ok(answer(200, &[], format!("answer {n}")))
        }
    });
    let house = House::around(handler, rule(shared()));
    let writer = house.clone();
    let write = tokio::spawn(async move { writer.exchange(request("PUT", "/?b=1&a=2", &[])).await });
    quiet().await;
    house.handle.reconfigure(&rule(shared().sort_query())).unwrap();
    assert_eq!(house.get("/?b=1&a=2").await.body, "answer 2");
    go.send(()).unwrap();
    write.await.unwrap();
    assert_eq!(house.get("/?b=1&a=2").await.body, "answer 3");
}

#[tokio::test]
async fn a_fill_that_began_before_the_reload_stores_on_terms_that_the_reload_bounds() {
    for (after, answers) in [(Policy::shared(secs(20)), true), (guarded(), false)] {
        let (go, gone) = tokio::sync::oneshot::channel::<()>();
        let gone = Arc::new(tokio::sync::Mutex::new(Some(gone)));
        let handler = Handler::waiting(move |_, n| {
            let gone = gone.clone();
            async move {
                if let Some(gone) = gone.lock().await.take() {
                    gone.await.expect("the test lets it go on");
                }
                Ok(answer(200, &[], format!("answer {n}")))
            }
        });
        let house = House::around(handler, rule(shared()));
        let reader = house.clone();
        let read = tokio::spawn(async move { reader.get("/").await });
        quiet().await;
        house.handle.reconfigure(&rule(after)).unwrap();
        go.send(()).unwrap();
        assert_eq!(read.await.unwrap().cache_status, "larder; fwd=uri-miss; stored");
        house.advance(10);
        let now = house.get("/").await;
        assert_eq!(now.x_cache == "HIT", answers);
        house.advance(10);
        assert_eq!(house.get("/").await.x_cache == "HIT", !answers, "no longer than the rule of now says");
    }
}

#[tokio::test]
async fn what_changed_is_told_and_logged() {
    let house = House::around(
        Handler::saying(&[]),
        layer().rule("^/a", shared()).rule("^/b", shared()).rule("^/c", Policy::bypass()),
    );
    let next = || {
        let narrow = Policy::guarded(secs(30)).ignore_cookies(["theme"]);
        layer()
            .rule("^/b", shared().status_ttl(StatusCode::NOT_FOUND, secs(1)))
            .rule("^/a", narrow)
            .rule("^/d", Policy::per(by_user, MINUTE).downstream(Duration::from_millis(1500)))
            .otherwise(Policy::bypass())
            .max_variants(3)
            .x_cache(false)
    };
    let reload = house.handle.reconfigure(&next()).unwrap();
    let lines: Vec<String> = reload.to_string().lines().map(str::to_owned).collect();
    let (new, principal) = lines[5].split_once(", principal ").expect("the new rule");
    let (principal, rest) = principal.split_once(", ").expect("a name");
    assert_eq!((new, rest), ("rule \"^/d\" is new: audience per", "ttl 60s, downstream 1.5s"));
    assert!(principal.starts_with("TypeId"), "{principal}");
    assert_eq!(
        lines,
        [
            "rule \"^/c\" is gone",
            "rule \"^/b\": status_ttl none -> 404=1s",
            "rule \"^/a\": audience shared -> guarded",
            "rule \"^/a\": ttl 60s -> 30s",
            "rule \"^/a\": ignore_cookies none -> [\"theme\"]",
            &lines[5],
            "rules are tried in another order: ^/b ^/a ^/d",
            "otherwise: audience from_origin -> bypass",
            "headers: x_cache true -> false",
            "limits: max_variants 16 -> 3",
        ]
        .map(str::to_owned)
    );
    assert_eq!(reload.generation, 1);
    let again = house.handle.reconfigure(&next()).unwrap();
    assert_eq!((again.is_empty(), again.generation, again.to_string().as_str()), (true, 1, "nothing changed"));
}

#[tokio::test]
async fn the_store_cannot_change_and_a_refused_reload_changes_nothing() {
    let bypass = |store| CacheLayer::with_memory(store).otherwise(Policy::bypass());
    let rows = [
        (MemoryStore::new(2 << 20), "capacity"),
        (MemoryStore::new(1 << 20).max_entries(9), "max_entries"),
        (MemoryStore::new(1 << 20).eviction(Eviction::Lru), "eviction"),
    ];
    let house = House::around(Handler::saying(&[]), rule(shared()));
    house.get("/").await;
    for (store, expected) in rows {
        let error = house.handle.reconfigure(&bypass(store)).unwrap_err();
        assert!(matches!(&error, ReloadError::Store { field, .. } if *field == expected), "{error}");
        assert_eq!(house.get("/").await.x_cache, "HIT");
    }
    house.handle.reconfigure(&bypass(MemoryStore::new(1 << 20))).unwrap();
    assert_eq!(house.get("/").await.x_cache, "BYPASS");
}

/// Two sets of settings that differ in all that an answer shows; each answer has to be of one of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_request_sees_the_old_settings_or_the_new_ones_and_never_some_of_both() {
    let layers = || {
        let one = layer().rule("^/a", shared()).name("one").x_cache(true).x_cache_age(false);
        let two = layer().rule("^/b", shared()).rule("^/a", guarded()).name("two").x_cache(false).x_cache_age(true);
        [one, two]
    };
    let [one, _] = layers();
    let handle = one.handle();
    let service = one.layer(Handler::saying(&[]));
    let (done, content) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let askers: Vec<_> = (0..3)
        .map(|_| {
            let (service, done, content) = (service.clone(), done.clone(), content.clone());
            tokio::spawn(async move {
                let (mut seen, mut hits, mut is_content) = ([0usize; 2], 0usize, false);
                while !done.load(Ordering::Relaxed) {
                    let response = service.clone().oneshot(request("GET", "/a", &[])).await.expect("an answer");
                    let headers = response.headers();
                    let status = headers["cache-status"].to_str().expect("a text");
                    let outcome = response.extensions().get::<larder::CacheOutcome>().expect("an outcome");
                    let of_one = status.starts_with("one");
                    let is_hit = status.contains("; hit");
                    // What another request's answer was is as old as if it came from the store.
                    let has_age = is_hit || status.contains("; collapsed");
                    assert_eq!(headers.contains_key("x-cache"), of_one, "{headers:?}");
                    assert_eq!(headers.contains_key("x-cache-age"), !of_one && has_age, "{headers:?}");
                    assert_eq!(outcome.rule, Some(usize::from(!of_one)));
                    seen[usize::from(!of_one)] += 1;
                    hits += usize::from(is_hit);
                    if seen[0] > 0 && seen[1] > 0 && hits > 0 && !std::mem::replace(&mut is_content, true) {
                        content.fetch_add(1, Ordering::Relaxed);
                    }
                }
                (seen, hits)
            })
        })
        .collect();
    // However seldom a busy machine lets the askers run.
    for n in 0..100_000 {
        if n >= 300 && content.load(Ordering::Relaxed) == askers.len() {
            break;
        }
        let [one, two] = layers();
        handle.reconfigure(if n % 2 == 0 { &two } else { &one }).expect("the same store");
        if n % 4 == 0 {
            tokio::task::yield_now().await;
        }
    }
    done.store(true, Ordering::Relaxed);
    for asker in askers {
        let (seen, hits) = asker.await.expect("no answer was of both");
        assert!(seen[0] > 0 && seen[1] > 0 && hits > 0, "{seen:?}, {hits} hits");
    }
}
