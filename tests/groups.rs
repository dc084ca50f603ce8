//! Cache groups (RFC 9875): a write makes invalid what is in the groups that it names, and what shares a group with its own URI; on its
//! own origin, one step far, and before its client hears of it.

mod support;

use std::sync::Arc;

use http::request::Parts;
use larder::{DeclineReason, Policy, Scheme};
use support::exchange::*;
use tokio::sync::Semaphore;

/// A handler that stores under the groups of the request's query, with commas between them, and whose writes name those of theirs.
fn grouped() -> Handler {
    Handler::new(|head, n| grouping(head, n, 200))
}

fn grouping(head: &Parts, n: usize, status: u16) -> http::Response<Content> {
    let names = head.uri.query().unwrap_or_default().split(',').filter(|name| !name.is_empty());
    let list = names.map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
    // Both fields on every response: which of them counts depends on the method (§3).
    let fields =
        [("cache-control", "max-age=60"), ("cache-groups", list.as_str()), ("cache-group-invalidation", list.as_str())];
    answer(status, if list.is_empty() { &fields[..1] } else { &fields }, format!("answer {n}"))
}

async fn hit(house: &House, target: &str) -> bool {
    match house.get(target).await.x_cache.as_str() {
        "HIT" => true,
        "MISS" => false,
        other => panic!("{target}: {other}"),
    }
}

#[tokio::test]
async fn a_write_takes_the_groups_it_names_and_nothing_else() {
    let rows: [(&str, &str, bool); 8] = [
        ("/a?one", "/w?one", false),
        ("/a?one,two", "/w?two", false),
        ("/a?two", "/w?one,two,three", false),
        ("/a?one", "/w?two", true),
        ("/a?one", "/w?One", true),
        ("/a?one", "/w?on", true),
        ("/a?one", "/w", true),
        ("/a", "/w?one", true),
    ];
    for (read, write, survives) in rows {
        let house = House::new(grouped());
        house.get(read).await;
        assert!(hit(&house, read).await);
        house.exchange(request("POST", write, &[])).await;
        assert_eq!(hit(&house, read).await, survives, "{read}, {write}");
        assert!(hit(&house, read).await, "what was asked for afterwards is good");
        assert_eq!(house.handle.stats().purges, 0);
    }
}

#[tokio::test]
async fn only_a_success_of_an_unsafe_method_counts() {
    let rows = [
        ("POST", 200, false),
        ("DELETE", 204, false),
        ("PATCH", 303, false),
        ("POST", 400, true),
        ("POST", 500, true),
        ("GET", 200, true),
        ("HEAD", 200, true),
        ("OPTIONS", 200, true),
    ];
    for (method, status, survives) in rows {
        let handler =
            Handler::new(move |head, n| grouping(head, n, if head.uri.path() == "/w" { status } else { 200 }));
        let house = House::new(handler);
        house.get("/a?one").await;
        house.exchange(request(method, "/w?one", &[])).await;
        assert_eq!(hit(&house, "/a?one").await, survives, "{method} {status}");
    }
}

#[tokio::test]
async fn groups_are_of_one_origin() {
    let house = House::new(grouped());
    let read = |host: &'static str| request("GET", "/a?one", &[("host", host)]);
    let write = |host: &'static str| request("POST", "/w?one", &[("host", host)]);
    for host in ["one.example", "two.example", "two.example:8080"] {
        house.exchange(read(host)).await;
    }
    house.exchange(write("two.example")).await;
    for (host, expected) in [("one.example", "HIT"), ("two.example", "MISS"), ("two.example:8080", "HIT")] {
        assert_eq!(house.exchange(read(host)).await.x_cache, expected, "{host}");
    }
    // Nobody knows which origin is meant: all of them.
    let mut ambiguous = write("one.example");
    ambiguous.headers_mut().append("host", "two.example".parse().expect("a host"));
    house.exchange(ambiguous).await;
    for host in ["one.example", "two.example", "two.example:8080"] {
        assert_eq!(house.exchange(read(host)).await.x_cache, "MISS", "{host}");
    }
}

#[tokio::test]
async fn a_scheme_that_the_application_knows_is_of_the_origin() {
    let house = House::new(grouped());
    let by = |method: &str, target: &str, scheme| {
        let mut request = request(method, target, &[]);
        request.extensions_mut().insert(Scheme(scheme));
        request
    };
    house.exchange(by("GET", "/a?one", "http")).await;
    house.exchange(by("GET", "/a?one", "https")).await;
    house.exchange(by("POST", "/w?one", "https")).await;
    assert_eq!(house.exchange(by("GET", "/a?one", "http")).await.x_cache, "HIT");
    assert_eq!(house.exchange(by("GET", "/a?one", "https")).await.x_cache, "MISS");
    let mut ambiguous = by("POST", "/w?one", "https");
    ambiguous.headers_mut().append("host", "two.example".parse().expect("a host"));
    house.exchange(ambiguous).await;
    for scheme in ["http", "https"] {
        assert_eq!(house.exchange(by("GET", "/a?one", scheme)).await.x_cache, "MISS", "any origin, {scheme}");
    }
}

#[tokio::test]
async fn a_write_takes_what_shares_a_group_with_its_uri_and_goes_no_further() {
    // §2.2.1; behind a proxy, keys have additions that the write doesn't know.
    for fields in [&[][..], &[("x-forwarded-proto", "https")]] {
        for ambiguous in [false, true] {
            let handler = Handler::new(|head, n| match head.method.as_str() {
                "PUT" => answer(200, &[], ""),
                _ => grouping(head, n, 200),
            });
            let house = House::new(handler);
            let targets = ["/a?one", "/b?one,two", "/c?two", "/d"];
            for target in targets {
                house.ask(target, fields).await;
            }
            let mut write = request("PUT", "/a?one", &[]);
            if ambiguous {
                write.headers_mut().append("host", "two.example".parse().expect("a host"));
            }
            house.exchange(write).await;
            let mut left = Vec::new();
            for target in targets {
                if house.ask(target, fields).await.x_cache == "HIT" {
                    left.push(target);
                }
            }
            assert_eq!(left, ["/c?two", "/d"], "{fields:?}, ambiguous: {ambiguous}");
        }
    }
}

#[tokio::test]
async fn a_fill_on_its_way_doesnt_bring_back_what_a_write_took() {
    // The head of the answer isn't there yet, so nobody knows its groups.
    let gate = Arc::new(Semaphore::new(0));
    let handler = Handler::waiting({
        let gate = gate.clone();
        move |head, n| {
            let gate = gate.clone();
            async move {
                if n == 1 {
                    gate.acquire().await.expect("never closed").forget();
                }
                Ok(grouping(&head, n, 200))
            }
        }
    });
    let house = House::new(handler);
    let slow = tokio::spawn({
        let house = house.clone();
        async move { house.get("/a?one").await }
    });
    quiet().await;
    house.exchange(request("POST", "/w?one", &[])).await;
    gate.add_permits(1);
    let slow = slow.await.expect("no panic");
    assert_eq!((slow.body.as_str(), slow.cache_status.as_str()), ("answer 1", "larder; fwd=uri-miss; detail=purged"));
    assert_eq!(house.handle.stats().declined_for(DeclineReason::Purged), 1);
    assert!(!hit(&house, "/a?one").await);
}

#[tokio::test]
async fn partitions_and_variants_are_taken_as_well() {
    let principal = |head: &larder::RequestHead<'_>| head.headers.get("x-user").map(|user| user.as_bytes().to_vec());
    let policy = Policy::per(principal, MINUTE);
    let house = House::with(grouped(), |layer| layer.rule("^/a", policy));
    for round in ["MISS", "MISS"] {
        for user in ["ada", "bob"] {
            assert_eq!(house.ask("/a?one", &[("x-user", user)]).await.x_cache, round);
            assert_eq!(house.ask("/a?one", &[("x-user", user)]).await.x_cache, "HIT");
        }
        house.exchange(request("POST", "/w?one", &[])).await;
    }
}

#[tokio::test]
async fn a_304_may_change_the_groups() {
    let handler = Handler::new(|head, n| {
        let known = head.headers.contains_key("if-none-match");
        let group = if known { "\"new\"" } else { "\"old\"" };
        let written = format!("\"{}\"", head.uri.query().unwrap_or_default());
        let invalidated = [("cache-group-invalidation", written.as_str())];
        if head.method == "POST" {
            return answer(200, &invalidated, "");
        }
        let fields = [("cache-control", "max-age=60"), ("etag", "\"a\""), ("cache-groups", group)];
        answer(if known { 304 } else { 200 }, &fields, if known { String::new() } else { format!("answer {n}") })
    });
    let house = House::new(handler);
    house.get("/a").await;
    house.advance(61);
    assert_eq!(house.get("/a").await.x_cache, "REVALIDATED");
    house.exchange(request("POST", "/w?old", &[])).await;
    assert!(hit(&house, "/a").await, "it left that group");
    house.exchange(request("POST", "/w?new", &[])).await;
    assert!(!hit(&house, "/a").await);
}

#[tokio::test]
async fn a_response_in_very_many_groups_counts_as_in_all() {
    let most: Vec<String> = (0..32).map(|n| format!("{n:032}")).collect();
    let too_many: Vec<String> = (0..200).map(|n| n.to_string()).collect();
    let (most, too_many) = (format!("/a?{}", most.join(",")), format!("/b?{}", too_many.join(",")));
    let house = House::new(grouped());
    let written = format!("/w?{:032}", 31);
    for (write, most_survives) in [("/w?other", true), (written.as_str(), false)] {
        house.get(&most).await;
        house.get(&too_many).await;
        house.exchange(request("POST", write, &[])).await;
        assert_eq!(hit(&house, &most).await, most_survives, "{write}");
        assert!(!hit(&house, &too_many).await, "{write}");
    }
    // So a write to what is in one of its groups takes it as well, whatever it names itself.
    let handler = Handler::new(|head, n| match head.method.as_str() {
        "PUT" => answer(200, &[], ""),
        _ => grouping(head, n, 200),
    });
    let house = House::new(handler);
    house.get("/c?7").await;
    house.get(&too_many).await;
    house.exchange(request("PUT", "/c?7", &[])).await;
    assert!(!hit(&house, &too_many).await);
}

#[tokio::test]
async fn the_fields_reach_clients() {
    let house = House::new(grouped());
    for _ in 0..2 {
        assert_eq!(house.get("/a?one").await.field("cache-groups"), "\"one\"");
    }
    assert_eq!(house.exchange(request("POST", "/w?one", &[])).await.field("cache-group-invalidation"), "\"one\"");
}
