//! `No-Vary-Search`: a stored response answers requests whose query differs only in what it says doesn't matter; no others, nobody whom its own
//! URI's response wouldn't answer, and nothing that a purge or a write of any of its spellings has touched.

mod support;

use std::sync::Arc;

use larder::{Policy, Selector};
use support::exchange::*;
use tokio::sync::Semaphore;

type Fields = &'static [(&'static str, &'static str)];

const UTM: Fields = &[("cache-control", "max-age=60"), ("no-vary-search", r#"params=("utm")"#)];
const PLAIN: Fields = &[("cache-control", "max-age=60")];

/// What the second of two requests gets.
async fn second(house: &House, one: &str, other: &str) -> String {
    house.get(one).await;
    house.get(other).await.x_cache
}

#[tokio::test]
async fn what_the_field_calls_equal_is_answered_and_nothing_else() {
    let rows: [(&'static str, &str, &str, &str); 13] = [
        (r#"params=("utm")"#, "/a?utm=1", "/a?utm=2", "HIT"),
        (r#"params=("utm")"#, "/a?id=1&utm=1", "/a?utm=2&id=1", "HIT"),
        (r#"params=("utm")"#, "/a?id=1&utm=1", "/a?id=1", "HIT"),
        (r#"params=("utm")"#, "/a?utm=1", "/a", "HIT"),
        (r#"params=("utm")"#, "/a", "/a?utm=1", "HIT"),
        (r#"params=("utm")"#, "/a?id=1&utm=1", "/a?id=2&utm=1", "MISS"),
        (r#"params=("utm")"#, "/a?utm=1", "/b?utm=1", "MISS"),
        (r#"params, except=("id")"#, "/a?id=1&x=1", "/a?y&id=1", "HIT"),
        (r#"params, except=("id")"#, "/a?id=1", "/a?id=2", "MISS"),
        ("key-order", "/a?a=1&b=2", "/a?b=2&a=1", "HIT"),
        ("key-order", "/a?a=1&a=2", "/a?a=2&a=1", "MISS"),
        ("params=utm", "/a?utm=1", "/a?utm=2", "MISS"),
        ("key-order=?0", "/a?a=1&b=2", "/a?b=2&a=1", "MISS"),
    ];
    for (line, one, other, expected) in rows {
        let handler = Handler::new(move |_, n| {
            answer(200, &[("cache-control", "max-age=60"), ("no-vary-search", line)], n.to_string())
        });
        let house = House::new(handler);
        assert_eq!(second(&house, one, other).await, expected, "{line}: {one}, {other}");
        assert_eq!(house.get(other).await.field("no-vary-search"), line, "clients learn it as well");
        assert_eq!(house.handler.last().uri.to_string(), if expected == "HIT" { one } else { other }, "as it was sent");
    }
}

#[tokio::test]
async fn it_can_be_switched_off() {
    let house = House::with(Handler::saying(UTM), |layer| layer.no_vary_search(false));
    assert_eq!(second(&house, "/a?utm=1", "/a?utm=2").await, "MISS");
    assert_eq!(house.get("/a?utm=1").await.x_cache, "HIT");
}

#[tokio::test]
async fn only_what_is_stored_is_listened_to() {
    let handler = Handler::new(|head, _| {
        let fields = if head.uri.query() == Some("utm=1") {
            [("cache-control", "no-store"), UTM[1]]
        } else {
            [PLAIN[0], ("x-n", "1")]
        };
        answer(200, &fields, "")
    });
    let house = House::new(handler);
    house.get("/a?utm=1").await;
    house.get("/a?utm=2").await;
    assert_eq!(house.get("/a?utm=3").await.x_cache, "MISS");
}

/// The newest word counts, and no response answers whom its own field doesn't let it.
#[tokio::test]
async fn a_response_is_used_by_its_own_word_only() {
    let handler = Handler::new(|head, n| {
        let said = match head.uri.query().unwrap_or_default() {
            query if query.contains("plain") => PLAIN,
            query if query.contains("all") => &[PLAIN[0], ("no-vary-search", "params")],
            _ => UTM,
        };
        answer(200, said, n.to_string())
    });
    let house = House::new(handler);
    for (target, x_cache, body) in [
        ("/a?id=1&utm=1", "MISS", "1"),
        ("/a?id=1&utm=2", "HIT", "1"),
        // Looked up by the rule, but it says nothing itself: it stands for its own URI.
        ("/a?plain&utm=1", "MISS", "2"),
        ("/a?plain&utm=2", "MISS", "3"),
        ("/a?plain&utm=2", "HIT", "3"),
        // Another rule, which this response answers all queries by.
        ("/a?all", "MISS", "4"),
        ("/a?id=1&utm=2", "HIT", "4"),
    ] {
        let got = house.get(target).await;
        assert_eq!((got.x_cache.as_str(), got.body.as_str()), (x_cache, body), "{target}");
    }
}

#[tokio::test]
async fn a_purge_or_a_write_of_any_spelling_reaches_it() {
    let spellings = ["/a?utm=1&id=1", "/a?id=1", "/a?utm=9&id=1", "/a?id=1&utm"];
    for stored in ["/a?utm=1&id=1", "/a?id=1"] {
        for spelling in spellings {
            for how in ["purge", "purge on this host", "PUT", "PUT to an ambiguous host", "Location"] {
                for fields in [&[][..], &[("x-forwarded-proto", "https")]] {
                    let handler = Handler::new(|head, n| match head.method.as_str() {
                        "POST" => answer(201, &[("location", head.headers["x-created"].to_str().expect("text"))], ""),
                        _ => answer(200, UTM, n.to_string()),
                    });
                    let house = House::new(handler);
                    house.ask(stored, fields).await;
                    assert_eq!(house.ask("/a?utm=5&id=1", fields).await.x_cache, "HIT");
                    let mut write = request("PUT", spelling, &[]);
                    match how {
                        "purge" => drop(house.handle.purge(Selector::Uri(spelling.into())).await.expect("a path")),
                        "purge on this host" => {
                            let uri = format!("http://example.com{spelling}");
                            house.handle.purge(Selector::Uri(uri)).await.expect("a URI");
                        }
                        "Location" => {
                            house.exchange(request("POST", "/other", &[("x-created", spelling)])).await;
                        }
                        how => {
                            if how != "PUT" {
                                write.headers_mut().append("host", "two.example".parse().expect("a host"));
                            }
                            house.exchange(write).await;
                        }
                    }
                    let got = house.ask("/a?utm=5&id=1", fields).await;
                    assert_eq!(got.x_cache, "MISS", "{how} of {spelling}, {stored} stored, {fields:?}");
                    assert_eq!(house.ask(stored, fields).await.x_cache, "HIT", "and it is stored again");
                }
            }
        }
    }
}

/// Where a URI's answers are found changes with what they say of its query; the newest one counts all the same.
#[tokio::test]
async fn an_older_answer_never_comes_back_whatever_is_learned_of_its_path() {
    const GONE: Fields = &[("cache-control", "no-store")];
    const ORDER: Fields = &[PLAIN[0], ("no-vary-search", "key-order")];
    // What the handler says of `/a?id=1` at first and then, with what it says of another query before and after that.
    let rows = [
        ("it learns", PLAIN, None, UTM, Some(PLAIN)),
        ("it forgets", UTM, None, PLAIN, Some(UTM)),
        ("the path learned", PLAIN, Some(UTM), UTM, Some(PLAIN)),
        ("the path learned, and it is gone", PLAIN, Some(UTM), GONE, Some(PLAIN)),
        ("another rule", UTM, None, ORDER, Some(UTM)),
        ("the path forgot", UTM, Some(PLAIN), PLAIN, Some(UTM)),
        ("the path forgot, and it is gone", UTM, Some(PLAIN), GONE, Some(UTM)),
    ];
    for (why, first, between, then, after) in rows {
        let says = Arc::new(std::sync::Mutex::new(first));
        let handler = Handler::new({
            let says = says.clone();
            move |_, n| answer(200, *says.lock().expect("no panic"), n.to_string())
        });
        let house = House::new(handler);
        let asked = async |target: &str, fields: Fields, said: Option<Fields>| {
            let Some(said) = said else { return String::new() };
            *says.lock().expect("no panic") = said;
            house.ask(target, fields).await.body
        };
        let old = asked("/a?id=1", &[], Some(first)).await;
        asked("/a?id=2", &[], between).await;
        let new = asked("/a?id=1", &[("cache-control", "no-cache")], Some(then)).await;
        assert_ne!(old, new, "{why}");
        asked("/a?id=3", &[], after).await;
        assert_ne!(house.get("/a?id=1").await.body, old, "{why}");
    }
}

#[tokio::test]
async fn other_paths_and_hosts_keep_what_they_have() {
    let house = House::new(Handler::saying(UTM));
    let elsewhere = || request("GET", "/a?utm=1", &[("host", "two.example")]);
    house.get("/a?utm=1").await;
    house.get("/b?utm=1").await;
    house.exchange(elsewhere()).await;
    house.exchange(request("PUT", "/a?utm=2", &[])).await;
    assert_eq!(house.get("/b?utm=3").await.x_cache, "HIT");
    assert_eq!(house.exchange(elsewhere()).await.x_cache, "HIT");
    assert_eq!(house.get("/a?utm=1").await.x_cache, "MISS");
}

/// While an answer is on its way nobody knows that it will speak for another spelling as well.
#[tokio::test]
async fn a_purge_of_another_spelling_during_a_fill_counts() {
    for already_known in [false, true] {
        for by_write in [false, true] {
            let gate = Arc::new(Semaphore::new(usize::from(already_known)));
            let handler = Handler::waiting({
                let gate = gate.clone();
                move |head, n| {
                    let gate = gate.clone();
                    async move {
                        if head.method == "GET" {
                            gate.acquire().await.expect("never closed").forget();
                        }
                        Ok(answer(200, UTM, n.to_string()))
                    }
                }
            });
            let house = House::new(handler);
            if already_known {
                house.get("/a?id=other").await;
            }
            let slow = tokio::spawn({
                let house = house.clone();
                async move { house.get("/a?utm=1").await.body }
            });
            quiet().await;
            if by_write {
                house.exchange(request("PUT", "/a?utm=2", &[])).await;
            } else {
                house.handle.purge(Selector::Uri("/a?utm=2".into())).await.expect("a path");
            }
            gate.add_permits(9);
            let old = slow.await.expect("no panic");
            let got = house.get("/a?utm=2").await;
            assert_eq!(got.x_cache, "MISS", "known before: {already_known}, by write: {by_write}");
            assert_ne!(got.body, old);
            assert_eq!(house.get("/a?utm=3").await.body, got.body);
        }
    }
}

#[tokio::test]
async fn a_forged_field_teaches_nothing_to_others() {
    // This handler believes what forwarding fields say, and its pages for another host vary on nothing.
    let handler = Handler::new(|head, n| {
        let forged = head.headers.get("x-forwarded-host").is_some_and(|host| host == "evil.example");
        let said = if forged { &[PLAIN[0], ("no-vary-search", "params")][..] } else { PLAIN };
        answer(200, said, n.to_string())
    });
    let house = House::new(handler);
    house.ask("/a?id=1", &[("x-forwarded-host", "evil.example")]).await;
    assert_eq!(house.ask("/a?id=2", &[("x-forwarded-host", "evil.example")]).await.x_cache, "HIT");
    for (target, expected) in [("/a?id=1", "MISS"), ("/a?id=2", "MISS"), ("/a?id=1", "HIT")] {
        assert_eq!(house.get(target).await.x_cache, expected, "{target}");
    }
}

#[tokio::test]
async fn partitions_stay_apart() {
    let principal = |head: &larder::RequestHead<'_>| head.headers.get("x-user").map(|user| user.as_bytes().to_vec());
    let house = House::with(Handler::saying(&UTM[1..]), |layer| layer.otherwise(Policy::per(principal, MINUTE)));
    for user in ["ada", "bob"] {
        assert_eq!(house.ask("/a?utm=1", &[("x-user", user)]).await.x_cache, "MISS");
        assert_eq!(house.ask("/a?utm=2", &[("x-user", user)]).await.x_cache, "HIT");
    }
}

#[tokio::test]
async fn variants_validation_and_refreshes_go_on_as_ever() {
    let handler = Handler::new(|head, n| {
        let known = head.headers.contains_key("if-none-match");
        let fields = [
            ("cache-control", "max-age=60, stale-while-revalidate=10"),
            UTM[1],
            ("vary", "accept-language"),
            ("etag", "\"a\""),
        ];
        answer(if known { 304 } else { 200 }, &fields, if known { String::new() } else { n.to_string() })
    });
    let house = House::new(handler);
    let in_language = |language: &'static str| [("accept-language", language)];
    house.ask("/a?utm=1", &in_language("en")).await;
    assert_eq!(house.ask("/a?utm=2", &in_language("de")).await.cache_status, "larder; fwd=vary-miss; stored");
    assert_eq!(house.ask("/a?utm=3", &in_language("en")).await.x_cache, "HIT");
    house.advance(65);
    assert_eq!(house.ask("/a?utm=4", &in_language("en")).await.x_cache, "STALE");
    quiet().await;
    assert_eq!(house.ask("/a?utm=5", &in_language("en")).await.x_cache, "HIT");
    house.advance(100);
    let got = house.ask("/a?utm=6", &in_language("en")).await;
    assert_eq!((got.x_cache.as_str(), got.body.as_str()), ("REVALIDATED", "1"));
    assert_eq!(house.ask("/a?utm=7", &in_language("en")).await.x_cache, "HIT");
}

#[tokio::test]
async fn a_rule_for_queries_comes_first() {
    let policy = Policy::from_origin().ignore_query(["fbclid"]);
    let house = House::with(Handler::saying(UTM), |layer| layer.otherwise(policy));
    assert_eq!(second(&house, "/a?utm=1&fbclid=1", "/a?fbclid=2&utm=2").await, "HIT");
    assert_eq!(house.handler.last().uri, "/a?utm=1");
}
