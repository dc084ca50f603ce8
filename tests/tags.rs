//! Tags: a purge of one touches what bears it, wherever the tag comes from, and nothing else; clients don't see them.

mod support;

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::FutureExt;
use http::Method;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use larder::storage::{MemoryStore, Query, Storage, StorageUsage, Variants};
use larder::{CacheKey, CacheLayer, Cached, Policy, PurgeError, RuleError, Selector, StorageError, StoredResponse};
use support::exchange::*;
use tokio::sync::Semaphore;
use tower::{Layer, ServiceExt};

const FRESH: (&str, &str) = ("cache-control", "max-age=60");

/// Answers with the field that the query has as `name=value`, `+` standing for a space.
fn by_field() -> Handler {
    Handler::new(|head, n| {
        let (name, value) = head.uri.query().and_then(|query| query.split_once('=')).unwrap_or(("x-none", ""));
        answer(200, &[FRESH, (name, value.replace('+', " ").as_str())], format!("answer {n}"))
    })
}

/// Answers with the tags of the handler that are in the query, with commas between them.
fn by_handler() -> Handler {
    Handler::new(|head, n| {
        let mut response = answer(200, &[], format!("answer {n}"));
        let tags = head.uri.query().unwrap_or_default().split(',');
        response.extensions_mut().insert(tags.fold(Cached::shared(MINUTE), Cached::tag));
        response
    })
}

async fn purge(house: &House, tag: &str) {
    house.handle.purge(Selector::Tag(tag.into())).await.unwrap_or_else(|error| panic!("{tag}: {error}"));
}

/// Whether what is stored for a target survives the purge of a tag; what is asked for afterwards is good in any case.
async fn survives(house: &House, target: &str, tag: &str) -> bool {
    house.get(target).await;
    assert_eq!(house.get(target).await.x_cache, "HIT", "{target} is stored");
    purge(house, tag).await;
    let survives = house.get(target).await.x_cache == "HIT";
    assert_eq!(house.get(target).await.x_cache, "HIT", "{target} after the purge of {tag}");
    survives
}

#[tokio::test]
async fn a_purge_touches_what_bears_the_tag_and_nothing_else() {
    let rows: [(&str, &[&str], &[&str]); 6] = [
        ("/a?cache-tag=a,b:c,+d+e+,a", &["a", "b", "b:c", "d e", "a:"], &["c", "d", "e", "A", "a:b", "b:c:d", "aa"]),
        ("/a?surrogate-key=a+b:c,d++e", &["a", "b", "b:c,d", "e"], &["b:c", "d", "c"]),
        ("/a?x-none=a", &[], &["a", "x-none"]),
        ("/a?cache-tag=", &[], &["a"]),
        ("/a?cache-tag=a::b", &["a", "a::b"], &["b", "a:b"]),
        ("/a?cache-tag=,,:", &[], &["a"]),
    ];
    for (target, touched, untouched) in rows {
        let house = House::new(by_field());
        for tag in untouched {
            assert!(survives(&house, target, tag).await, "{target} and {tag}");
        }
        for tag in touched {
            assert!(!survives(&house, target, tag).await, "{target} and {tag}");
        }
    }
}

#[tokio::test]
async fn groups_are_tags_on_every_origin_and_have_no_parts() {
    let house = House::new(Handler::saying(&[FRESH, ("cache-groups", "\"a\", \"b:c\"")]));
    for host in ["one.example", "two.example"] {
        for (tag, expected) in [("a", "MISS"), ("b:c", "MISS"), ("b", "HIT"), ("c", "HIT")] {
            house.ask("/a", &[("host", host)]).await;
            purge(&house, tag).await;
            assert_eq!(house.ask("/a", &[("host", host)]).await.x_cache, expected, "{tag} on {host}");
        }
    }
}

#[tokio::test]
async fn handlers_tag_their_answers() {
    let house = House::new(by_handler());
    for (tag, expected) in [("product", false), ("product:1", false), ("products", false), ("product:2", true)] {
        assert_eq!(survives(&house, "/a?product:1,products", tag).await, expected, "{tag}");
    }
    let rule = |layer: CacheLayer| layer.rule("^/", Policy::shared(2 * MINUTE).tag("rule"));
    let by_rule = Handler::new(|_, n| {
        let mut response = answer(200, &[], format!("answer {n}"));
        response.extensions_mut().insert(Cached::by_rule().tag("handler"));
        response
    });
    let house = House::with(by_rule.clone(), rule);
    assert_eq!(house.get("/a").await.field("cache-control"), "public, max-age=120", "the rule says how long");
    for (tag, expected) in [("rule", false), ("handler", false), ("other", true)] {
        assert_eq!(survives(&house, "/a", tag).await, expected, "{tag}");
    }
    let house = House::new(by_rule);
    house.get("/a").await;
    assert_eq!(house.get("/a").await.x_cache, "MISS", "nobody says that it may be stored");
}

#[tokio::test]
async fn rules_tag_by_what_their_pattern_captures() {
    let rules = |layer: CacheLayer| {
        layer
            .rule("^/(?<kind>[a-z]+)/([^/]+)", Policy::shared(MINUTE).tag("$kind:$2").tag("${kind}s").tag("all$$"))
            .otherwise(Policy::shared(MINUTE).tag("other"))
    };
    let rows: [(&str, &[&str], &[&str]); 5] = [
        ("/shoe/7", &["shoe", "shoe:7", "shoes", "all$"], &["shoe:8", "7", "other", "kind", "all"]),
        ("/shoe/7/size?a=b", &["shoe:7"], &["shoe:7/size"]),
        // As it was sent, and as a handler reads it.
        ("/shoe/%37", &["shoe:%37", "shoe:7"], &["shoe:8"]),
        ("/shoe/gr%C3%BCn", &["shoe:grün", "shoe:gr%C3%BCn"], &["shoe:gr"]),
        ("/", &["other"], &["shoes", "all$"]),
    ];
    for (target, touched, untouched) in rows {
        let house = House::with(Handler::saying(&[]), rules);
        for tag in untouched {
            assert!(survives(&house, target, tag).await, "{target} and {tag}");
        }
        for tag in touched {
            assert!(!survives(&house, target, tag).await, "{target} and {tag}");
        }
    }
}

#[test]
fn a_reference_that_leads_nowhere_is_refused_when_the_rule_is_set_up() {
    let policy = Policy::shared(MINUTE);
    for (policy, setting, reason) in [
        (policy.clone().tag("product:$2"), "tag", "captures no `2`"),
        (policy.clone().tag("$1_x"), "tag", "did you mean `${1}_x`?"),
        (policy.clone().purges_tag("a:$name"), "purges_tag", "captures no `name`"),
        (policy.clone().purges_glob("/a/$2"), "purges_glob", "captures no `2`"),
        (policy.clone().tag(""), "tag", "it is empty"),
        (policy.clone().tag("a\n"), "tag", "control characters"),
        (policy.clone().tag("a".repeat(257)), "tag", "longer than 256 bytes"),
        (policy.clone().purges_glob("a".repeat(2000)), "purges_glob", ""),
    ] {
        let error = CacheLayer::in_memory(1).try_rule("^/(a)", policy).expect_err("it is refused");
        assert!(matches!(error, RuleError::Template { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("^/(a)") && text.contains(setting) && text.contains(reason), "{text}");
    }
    let otherwise = || CacheLayer::in_memory(1).otherwise(Policy::shared(MINUTE).tag("a:$1"));
    assert!(std::panic::catch_unwind(otherwise).is_err(), "there is no pattern");
}

#[tokio::test]
async fn more_than_a_response_may_bear_is_every_tag() {
    let numbers = |most: usize| (0..most).map(|n| format!("t{n}")).collect::<Vec<_>>().join(",");
    for (tags, survives_any) in [
        (numbers(128), true),
        (numbers(129), false),
        ("a".repeat(256), true),
        ("a".repeat(257), false),
        (":a".repeat(120), true),
        ((0..6).map(|n| format!("t{n}{}", ":a".repeat(100))).collect::<Vec<_>>().join(","), false),
    ] {
        let house = House::new(by_handler());
        let target = format!("/a?{tags}");
        assert_eq!(survives(&house, &target, "nobody-bears-this").await, survives_any, "{}", tags.len());
    }
    let house = House::new(Handler::new(|_, _| {
        let mut response = answer(200, &[], "");
        response.extensions_mut().insert(Cached::shared(MINUTE).tag("a\nb"));
        response
    }));
    assert!(!survives(&house, "/a", "nobody-bears-this").await, "what is no text");
}

#[tokio::test]
async fn what_is_no_tag_is_not_purged_and_the_error_says_why() {
    let house = House::new(Handler::saying(&[FRESH]));
    house.get("/a").await;
    for (tag, reason) in [("", "empty"), ("::", "empty"), ("a\u{7f}", "control"), (&*"a".repeat(1 << 20), "256")] {
        let error = house.handle.purge(Selector::Tag(tag.into())).await.expect_err("it is refused");
        assert!(matches!(error, PurgeError::Tag { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(reason) && text.len() < 300, "{text}");
    }
    assert_eq!(house.get("/a").await.x_cache, "HIT");
    assert_eq!(house.handle.stats().purges, 0);
}

const TAGGED: [(&str, &str); 4] = [FRESH, ("cache-tag", "secret"), ("surrogate-key", "secret"), ("etag", "\"1\"")];

/// A tagged answer, or a 304 to who has it already.
fn tagged() -> Handler {
    Handler::new(|head, _| match head.headers.contains_key("if-none-match") {
        true => answer(304, &TAGGED, ""),
        false => answer(200, &TAGGED, "content"),
    })
}

/// Method, target, fields; status and `X-Cache`.
type Step = (&'static str, &'static str, &'static [(&'static str, &'static str)], u16, &'static str);

#[tokio::test]
async fn clients_see_no_tags_whatever_becomes_of_their_request() {
    let rules = |forward: bool| {
        move |layer: CacheLayer| {
            layer
                .forward_tags(forward)
                .rule("^/bypass", Policy::bypass())
                .rule("^/declined", Policy::from_origin().statuses([http::StatusCode::NOT_FOUND]))
                .rule("^/shared", Policy::shared(MINUTE).override_origin())
                .otherwise(Policy::from_origin().stale_while_revalidate(MINUTE))
        }
    };
    for forward in [false, true] {
        let house = House::with(tagged(), rules(forward));
        let steps: [Step; 11] = [
            ("GET", "/a", &[], 200, "MISS"),
            ("GET", "/a", &[], 200, "HIT"),
            ("HEAD", "/a", &[], 200, "HIT"),
            ("GET", "/a", &[("if-none-match", "\"1\"")], 304, "HIT"),
            ("GET", "/a", &[("cache-control", "no-cache")], 200, "REVALIDATED"),
            ("HEAD", "/b", &[], 200, "MISS"),
            ("GET", "/bypass", &[], 200, "BYPASS"),
            ("GET", "/declined", &[], 200, "MISS"),
            ("GET", "/shared", &[], 200, "MISS"),
            ("GET", "/shared", &[], 200, "HIT"),
            ("POST", "/c", &[], 200, "BYPASS"),
        ];
        for (method, target, fields, status, x_cache) in steps {
            let got = house.exchange(request(method, target, fields)).await;
            assert_eq!((got.status, got.x_cache.as_str()), (status, x_cache), "{method} {target} {fields:?}");
            for name in ["cache-tag", "surrogate-key"] {
                assert_eq!(got.has(name), forward, "{name} of {method} {target} {fields:?}");
            }
        }
        house.advance(90);
        let stale = house.get("/a").await;
        assert_eq!((stale.x_cache.as_str(), stale.has("cache-tag")), ("STALE", forward));
    }
}

#[tokio::test]
async fn who_waits_for_anothers_answer_sees_no_tags_either() {
    let gate = Arc::new(Semaphore::new(0));
    let opened = gate.clone();
    let handler = Handler::waiting(move |_, _| {
        let gate = opened.clone();
        async move {
            gate.acquire().await.expect("never closed").forget();
            Ok(answer(200, &TAGGED, "content"))
        }
    });
    let house = House::new(handler);
    let both = async { tokio::join!(house.get("/a"), house.get("/a")) };
    let open = async {
        quiet().await;
        gate.add_permits(2);
    };
    let ((one, other), ()) = tokio::join!(both, open);
    assert_eq!(house.handler.calls(), 1, "one waited for the other");
    for got in [one, other] {
        assert!(!got.has("cache-tag") && !got.has("surrogate-key"));
    }
}

#[tokio::test]
async fn a_304_brings_new_tags_and_without_any_the_old_ones_stay() {
    for (confirmed, old, new) in [(&[][..], false, true), (&[("cache-tag", "new")][..], true, false)] {
        let handler = Handler::new(move |head, _| match head.headers.contains_key("if-none-match") {
            true => answer(304, confirmed, ""),
            false => {
                answer(200, &[FRESH, ("etag", "\"1\""), ("cache-tag", "old"), ("surrogate-key", "kept")], "content")
            }
        });
        let house = House::new(handler);
        // Freshened, and then purged by this tag: does it go?
        for (tag, survives) in [("old", old), ("new", new), ("kept", false)] {
            house.handle.purge(Selector::Everything).await.expect("a purge");
            house.get("/a").await;
            house.advance(61);
            assert_eq!(house.get("/a").await.x_cache, "REVALIDATED");
            purge(&house, tag).await;
            assert_eq!(house.get("/a").await.x_cache == "HIT", survives, "{tag} after {confirmed:?}");
        }
    }
}

#[tokio::test]
async fn what_was_stored_before_a_rule_had_the_tag_bears_it_all_the_same() {
    let rules = |tag: &str| CacheLayer::in_memory(1 << 20).rule("^/a/(.*)", Policy::shared(MINUTE).tag(tag));
    let house = House::around(Handler::saying(&[]), rules("before:$1"));
    for (tag, expected) in [("after:1", false), ("before:1", false), ("after:2", true), ("after:1", false)] {
        house.handle.reconfigure(&rules("before:$1")).expect("the same store");
        house.handle.purge(Selector::Everything).await.expect("a purge");
        house.get("/a/1").await;
        let reload = house.handle.reconfigure(&rules("after:$1")).expect("the same store");
        assert!(reload.to_string().contains("tags"), "{reload}");
        assert_eq!(house.get("/a/1").await.x_cache, "HIT");
        purge(&house, tag).await;
        assert_eq!(house.get("/a/1").await.x_cache == "HIT", expected, "{tag}");
    }
}

#[tokio::test]
async fn a_change_of_forwarding_is_felt_by_what_is_stored() {
    let layer = |forward| CacheLayer::in_memory(1 << 20).forward_tags(forward);
    let house = House::around(tagged(), layer(true));
    assert!(house.get("/a").await.has("cache-tag"));
    house.handle.reconfigure(&layer(false)).expect("the same store");
    let hidden = house.get("/a").await;
    assert_eq!((hidden.x_cache.as_str(), hidden.has("cache-tag")), ("HIT", false));
    house.get("/b").await;
    house.handle.reconfigure(&layer(true)).expect("the same store");
    let shown = house.get("/b").await;
    assert_eq!((shown.x_cache.as_str(), shown.field("cache-tag")), ("HIT", "secret"));
}

/// Content that comes when the gate opens.
fn gated(gate: Arc<Semaphore>) -> Content {
    let content = async move {
        gate.acquire().await.expect("never closed").forget();
        Ok(Frame::data(Bytes::from("content")))
    };
    StreamBody::new(content.into_stream()).boxed()
}

#[tokio::test]
async fn a_fill_on_its_way_is_not_stored_when_its_tag_is_purged() {
    // Whether its head was there when the purge came, or not.
    for (head_first, tag, stored) in [(false, "a", false), (false, "b", true), (true, "a", false), (true, "b", true)] {
        let gate = Arc::new(Semaphore::new(usize::from(head_first)));
        let opened = gate.clone();
        let handler = Handler::waiting(move |_, n| {
            let gate = opened.clone();
            async move {
                if n == 1 {
                    gate.acquire().await.expect("never closed").forget();
                }
                let head = answer(200, &[FRESH, ("cache-tag", "a"), ("content-length", "7")], "");
                Ok(head.map(|_| if n == 1 { gated(gate) } else { full("content") }))
            }
        });
        let house = House::new(handler);
        let filling = tokio::spawn({
            let house = house.clone();
            async move { house.get("/a").await }
        });
        quiet().await;
        purge(&house, tag).await;
        gate.add_permits(2);
        assert_eq!(filling.await.expect("no panic").body, "content");
        quiet().await;
        assert_eq!(house.get("/a").await.x_cache == "HIT", stored, "head first: {head_first}, {tag}");
    }
}

/// A memory store that keeps what was put into it.
#[derive(Clone)]
struct Watched {
    store: Arc<MemoryStore>,
    put: Arc<Mutex<Vec<Arc<StoredResponse>>>>,
}

impl Storage for Watched {
    async fn get(&self, query: Query<'_>) -> Result<Variants, StorageError> {
        self.store.get(query).await
    }

    async fn put(&self, key: &CacheKey, response: Arc<StoredResponse>, most: usize) -> Result<(), StorageError> {
        self.put.lock().expect("not poisoned").push(response.clone());
        self.store.put(key, response, most).await
    }

    async fn remove(&self, key: &CacheKey) -> Result<bool, StorageError> {
        self.store.remove(key).await
    }

    async fn clear(&self) -> Result<(), StorageError> {
        self.store.clear().await
    }

    fn usage(&self) -> StorageUsage {
        self.store.usage()
    }
}

#[tokio::test]
async fn tags_can_be_looked_at_and_their_bytes_are_counted() {
    let watched = Watched { store: Arc::new(MemoryStore::new(1 << 20)), put: Arc::default() };
    let handler = Handler::new(|head, _| {
        let mut response = answer(200, &[("cache-tag", "field, b:1")], "content");
        if head.uri.path() == "/plain" {
            response.headers_mut().remove("cache-tag");
        } else {
            response.extensions_mut().insert(Cached::by_rule().tag("handler").tag("b:1"));
        }
        response
    });
    let layer = CacheLayer::with_storage(watched.clone())
        .rule("^/tagged/(.*)", Policy::shared(MINUTE).tag("rule:$1"))
        .otherwise(Policy::shared(MINUTE));
    let house = House::around(handler, layer);
    house.get("/tagged/7").await;
    house.get("/plain").await;
    house.get("/tagged/").await;
    quiet().await;
    let put = watched.put.lock().expect("not poisoned");
    assert_eq!(put[0].tags().collect::<Vec<_>>(), ["rule:7", "handler", "b:1", "field"]);
    assert_eq!((put[1].tags().count(), put[1].bears_every_tag()), (0, false));
    let names: usize = put[0].tags().map(str::len).sum();
    let more = put[0].size() - put[1].size();
    assert!((names + 6 * 8..names + 300).contains(&more), "{more} bytes for {names} bytes of names and six hashes");
    assert!(!put[0].headers().contains_key("cache-tag"));
}

#[tokio::test]
async fn a_layer_inside_another_of_the_same_cache_leaves_the_tags_for_it() {
    let layer = CacheLayer::in_memory(1 << 20);
    let handle = layer.handle();
    let service = layer.layer(layer.layer(tagged()));
    let ask = || async {
        Exchange::read(service.clone().oneshot(get("/a")).await.expect("an answer")).await.expect("a body")
    };
    assert!(!ask().await.has("cache-tag"));
    assert_eq!(ask().await.x_cache, "HIT");
    handle.purge(Selector::Tag("secret".into())).await.expect("a purge");
    assert_eq!(ask().await.x_cache, "MISS");
}

#[tokio::test]
async fn all_variants_and_methods_of_a_key_bear_their_own_tags() {
    let handler = Handler::new(|head, n| {
        let language = head.headers.get("accept-language").map_or("none", |value| value.to_str().expect("text"));
        answer(200, &[FRESH, ("vary", "accept-language"), ("cache-tag", language)], format!("answer {n}"))
    });
    let house = House::new(handler);
    let ask = |language: &'static str| {
        let house = house.clone();
        async move { house.exchange(request(Method::GET.as_str(), "/a", &[("accept-language", language)])).await.x_cache }
    };
    for language in ["en", "de"] {
        assert_eq!((ask(language).await, ask(language).await), ("MISS".into(), "HIT".into()));
    }
    purge(&house, "de").await;
    assert_eq!((ask("en").await, ask("de").await), ("HIT".into(), "MISS".into()));
}
