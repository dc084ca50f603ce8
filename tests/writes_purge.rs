//! A write purges what its rule names beside its URI: tags and patterns, with what was captured of the path; before its client hears of it, and also
//! where there will never be an answer.

mod support;

use std::future::pending;
use std::sync::Arc;

use futures_util::FutureExt;
use larder::{CacheLayer, Policy};
use support::exchange::*;
use tower::ServiceExt;

/// A shop: its pages are tagged, and what changes them is somewhere else.
fn rules(layer: CacheLayer) -> CacheLayer {
    let writes = Policy::bypass().purges_tag("product:$1").purges_tag("products").purges_glob("/search/*/$1*");
    layer
        .rule("^/products/([^/]+)", Policy::shared(MINUTE).tag("product:$1"))
        .rule("^/products$", Policy::shared(MINUTE).tag("products"))
        .rule("^/admin/([^/]+)", writes)
        .rule("^/all$", Policy::from_origin().purges_tag("product"))
        .rule("^/globs$", Policy::from_origin().purges_glob("/search*"))
        .otherwise(Policy::shared(MINUTE))
}

const PAGES: [&str; 6] =
    ["/products/1", "/products/1?lang=de", "/products/2", "/products", "/search/a/1/x", "/search/a/2"];

/// Those of the pages that are still stored.
async fn left(house: &House) -> Vec<&'static str> {
    let mut left = Vec::new();
    for page in PAGES {
        if house.get(page).await.x_cache == "HIT" {
            left.push(page);
        }
    }
    left
}

async fn filled(handler: Handler) -> House {
    let house = House::with(handler, rules);
    left(&house).await;
    assert_eq!(left(&house).await, PAGES);
    house
}

#[tokio::test]
async fn a_write_takes_the_tags_and_patterns_that_its_rule_names() {
    let rows: [(&str, &[&str]); 9] = [
        ("/admin/1", &["/products/2", "/search/a/2"]),
        ("/admin/1/price?now", &["/products/2", "/search/a/2"]),
        ("/admin/2", &["/products/1", "/products/1?lang=de", "/search/a/1/x"]),
        ("/admin/%31", &["/products/2", "/search/a/2"]),
        // What decodes it reads the path of another rule.
        ("/%61dmin/1", &["/products/2", "/search/a/2"]),
        // What was captured stands for itself in a pattern.
        ("/admin/*", &["/products/1", "/products/1?lang=de", "/products/2", "/search/a/1/x", "/search/a/2"]),
        ("/all", &["/products", "/search/a/1/x", "/search/a/2"]),
        ("/globs", &["/products/1", "/products/1?lang=de", "/products/2", "/products"]),
        ("/other", &PAGES),
    ];
    for (target, expected) in rows {
        for method in ["PUT", "POST", "DELETE", "PATCH", "UNHEARD-OF"] {
            let house = filled(Handler::saying(&[])).await;
            house.exchange(request(method, target, &[])).await;
            assert_eq!(left(&house).await, expected, "{method} {target}");
            assert_eq!(house.handle.stats().purges, 0, "it is no purge of an operator's");
        }
    }
}

#[tokio::test]
async fn only_a_success_of_an_unsafe_method_purges() {
    for (method, status, purges) in [
        ("POST", 200, true),
        ("PUT", 204, true),
        ("DELETE", 303, true),
        ("POST", 400, false),
        ("POST", 404, false),
        ("POST", 500, false),
        ("GET", 200, false),
        ("HEAD", 200, false),
        ("OPTIONS", 200, false),
    ] {
        let handler = Handler::new(move |head, _| {
            answer(if head.uri.path().starts_with("/admin") { status } else { 200 }, &[], "")
        });
        let house = filled(handler).await;
        house.exchange(request(method, "/admin/1", &[])).await;
        assert_eq!(left(&house).await == PAGES, !purges, "{method} {status}");
    }
}

#[tokio::test]
async fn what_is_purged_is_gone_before_the_client_hears_of_the_write() {
    let house = filled(Handler::saying(&[])).await;
    // The head is there, and nothing was read or waited for since.
    let response = house.service.clone().oneshot(request("PUT", "/admin/1", &[])).await.expect("an answer");
    assert_eq!(house.get("/products/1").await.x_cache, "MISS");
    drop(response);
}

#[tokio::test]
async fn a_write_that_is_never_answered_purges_as_well() {
    let unanswered: [fn() -> Handler; 3] = [
        || {
            Handler::waiting(|head, _| async move {
                if is_write(&head) { pending().await } else { Ok(answer(200, &[], "")) }
            })
        },
        || Handler::failing(|head, _| if is_write(head) { Err(Failure) } else { Ok(answer(200, &[], "")) }),
        || {
            Handler::waiting(|head, _| async move {
                assert!(!is_write(&head), "on purpose");
                Ok(answer(200, &[], ""))
            })
        },
    ];
    for handler in unanswered {
        let house = filled(handler()).await;
        let write = std::panic::AssertUnwindSafe(house.try_exchange(request("PUT", "/admin/1", &[]))).catch_unwind();
        // The client leaves, or the handler failed already.
        let _ = tokio::time::timeout(std::time::Duration::from_millis(1), write).await;
        assert_eq!(left(&house).await, ["/products/2", "/search/a/2"]);
    }
}

fn is_write(head: &http::request::Parts) -> bool {
    head.uri.path().starts_with("/admin")
}

#[tokio::test]
async fn the_newest_rules_say_what_a_write_purges() {
    let handler = Handler::waiting(|head, _| async move {
        if is_write(&head) {
            head.extensions.get::<Arc<tokio::sync::Notify>>().expect("the test's").notified().await;
        }
        Ok(answer(200, &[], ""))
    });
    let layer = |tag: &str| {
        let pages = Policy::shared(MINUTE).tag("pages");
        CacheLayer::in_memory(1 << 20).rule("^/admin", Policy::bypass().purges_tag(tag)).otherwise(pages)
    };
    let house = House::around(handler, layer("nothing"));
    house.get("/a").await;
    let gate = Arc::new(tokio::sync::Notify::new());
    let mut write = request("PUT", "/admin/1", &[]);
    write.extensions_mut().insert(gate.clone());
    let writing = tokio::spawn(house.service.clone().oneshot(write));
    quiet().await;
    house.handle.reconfigure(&layer("pages")).expect("the same store");
    gate.notify_one();
    writing.await.expect("no panic").expect("an answer");
    assert_eq!(house.get("/a").await.x_cache, "MISS");
}

#[tokio::test]
async fn a_path_too_long_for_a_tag_or_a_pattern_is_no_error_and_purges_rather_too_much() {
    let house = filled(Handler::saying(&[])).await;
    let long = format!("/admin/{}", "1".repeat(2000));
    assert_eq!(house.exchange(request("PUT", &long, &[])).await.status, 200);
    assert_eq!(left(&house).await, ["/products/1", "/products/1?lang=de", "/products/2"]);
}

#[tokio::test]
async fn a_write_through_a_layer_inside_another_counts_once() {
    use tower::Layer;
    let layer = rules(CacheLayer::in_memory(1 << 20));
    let service = layer.layer(layer.layer(Handler::saying(&[])));
    for target in ["/products/1", "/products/1"] {
        service.clone().oneshot(get(target)).await.expect("an answer");
    }
    service.clone().oneshot(request("PUT", "/admin/1", &[])).await.expect("an answer");
    // The URI itself, and what the rule names.
    assert_eq!(layer.handle().stats().invalidations, 2);
}
