//! Instances that share a store and its log of purges: after an acknowledged purge nothing older is served by the instance that made it, and by any other for a second at most; where that can't be
//! known, requests go to the handler.

mod support;

use std::future::IntoFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use http::StatusCode;
use larder::{ForwardReason, Outcome, Policy, PurgeError, Reach, Selector};
use support::exchange::*;
use support::shared_log::{Instance, Line, Server};
use tokio::time::{Instant, sleep, timeout};
use tower::ServiceExt;

const NO_TIME: Duration = Duration::ZERO;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Answers with how many requests it saw, fresh for an hour; tagged by its path.
fn counting() -> Handler {
    Handler::new(|head, n| {
        let tag = head.uri.path().trim_start_matches('/');
        answer(200, &[("cache-control", "max-age=3600"), ("cache-tag", tag)], format!("{} {n}", head.uri))
    })
}

fn uri(target: &str) -> Selector {
    Selector::Uri(target.into())
}

/// Two instances of one server, and the handler behind both, with `pages` stored.
async fn pair(pages: &[&str]) -> (Server, [Instance; 2], Handler) {
    let (server, handler) = (Server::default(), counting());
    let pair = [server.plain(&handler), server.plain(&handler)];
    for page in pages {
        assert_eq!(pair[0].says(page).await, "MISS");
        quiet().await;
    }
    for (instance, page) in pair.iter().flat_map(|instance| pages.iter().map(move |page| (instance, page))) {
        assert_eq!(instance.says(page).await, "HIT", "{page}");
    }
    (server, pair, handler)
}

#[tokio::test(start_paused = true)]
async fn a_purge_counts_here_at_once_and_elsewhere_as_soon_as_it_is_heard() {
    let purges = [uri("/a"), Selector::Tag("a".into()), Selector::Glob("/a*".into()), Selector::Regex("^/a$".into())];
    for selector in purges.into_iter().chain([Selector::Everything]) {
        let (_server, [one, other], _) = pair(&["/a", "/b"]).await;
        let receipt = one.handle.purge(selector.clone()).await.unwrap();
        assert_eq!(receipt.reach, Reach::AllInstances);
        quiet().await;
        let all = matches!(selector, Selector::Everything);
        assert_eq!(other.says("/b").await, if all { "MISS" } else { "HIT" }, "{selector}");
        assert_eq!(other.says("/a").await, "MISS", "{selector}");
        quiet().await;
        assert_eq!(one.says("/a").await, "HIT", "{selector}: what was stored since is good");
        assert_eq!(other.handle.stats().purge_log.unwrap().number, receipt.number);
    }
    let (_server, [one, other], _) = pair(&["/a"]).await;
    other.set_line(Line::Deaf);
    one.handle.purge(uri("/a")).await.unwrap();
    assert_eq!(one.says("/a").await, "MISS", "here it counts at once, whatever others hear");
}

/// The bound: what can't be heard of may have been purged, for a second; and after that it isn't served.
#[tokio::test(start_paused = true)]
async fn an_instance_that_hears_nothing_uses_what_is_stored_for_no_longer_than_the_bound() {
    for line in [Line::Silent, Line::Broken] {
        let (_server, [one, cut], handler) = pair(&["/a", "/b"]).await;
        cut.set_line(line);
        one.handle.purge(uri("/a")).await.unwrap();
        let acknowledged = Instant::now();
        let (mut last, mut served) = (NO_TIME, 0);
        while acknowledged.elapsed() < ms(3000) {
            if cut.says("/a").await == "HIT" {
                (last, served) = (acknowledged.elapsed(), served + 1);
            }
            sleep(ms(10)).await;
        }
        assert!(served > 20, "{line:?}: it is used meanwhile: {served}");
        assert!(last < ms(1000), "{line:?}: {last:?}");
        let calls = handler.calls();
        let got = cut.get("/b").await;
        assert_eq!(got.cache_status, "larder; fwd=miss; stored; detail=distrusted", "{line:?}");
        assert_eq!(got.outcome.unwrap().outcome, Outcome::Miss(ForwardReason::Distrusted));
        assert_eq!(handler.calls(), calls + 1);
        let log = cut.handle.stats().purge_log.unwrap();
        assert!(!log.trusted && log.silence > Some(ms(1000)), "{log:?}");

        cut.set_line(Line::Open);
        sleep(ms(2000)).await;
        assert_eq!(cut.says("/b").await, "HIT", "{line:?}: trust returns, and nothing was emptied");
        assert!(cut.handle.stats().purge_log.unwrap().trusted);
        let body = one.get("/a").await.body;
        quiet().await;
        assert_ne!(body, "/a 1", "{line:?}: what was fetched before the purge never comes back");
        assert_eq!(cut.get("/a").await.body, body);
    }
}

#[tokio::test(start_paused = true)]
async fn the_bound_is_as_it_is_set() {
    for bound in [ms(200), ms(5000)] {
        let (server, handler) = (Server::default(), counting());
        let one = server.instance(&handler, NO_TIME, |layer| layer.staleness_bound(bound));
        one.says("/a").await;
        quiet().await;
        sleep(bound * 3).await;
        assert_eq!(one.says("/a").await, "HIT", "{bound:?}: while it is heard");
        one.set_line(Line::Silent);
        sleep(bound / 3).await;
        assert_eq!(one.says("/a").await, "HIT", "{bound:?}");
        sleep(bound * 2 / 3).await;
        assert_eq!(one.says("/a").await, "MISS", "{bound:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_knows_what_was_purged_before_it_came_and_finds_all_else() {
    let (server, [one, _other], handler) = pair(&["/a", "/b", "/c"]).await;
    // It was asked for before the purge, and is put into the store behind it.
    one.handle.purge(uri("/a")).await.unwrap();
    one.handle.purge(Selector::Tag("c".into())).soft().await.unwrap();
    let newcomer = server.plain(&handler);
    assert_eq!(newcomer.says("/b").await, "HIT", "by its first request");
    assert_eq!(newcomer.says("/a").await, "MISS");
    assert_eq!(newcomer.get("/c").await.outcome.unwrap().outcome, Outcome::Miss(ForwardReason::Stale));
}

#[tokio::test(start_paused = true)]
async fn an_instance_whose_log_never_answered_forwards_and_its_first_requests_wait_for_a_moment_only() {
    let (server, handler) = (Server::default(), counting());
    let filled = server.plain(&handler);
    filled.says("/a").await;
    quiet().await;
    let newcomer = server.plain(&handler);
    newcomer.set_line(Line::Silent);
    for patience in [ms(50), NO_TIME] {
        let asked = Instant::now();
        assert_eq!(newcomer.get("/a").await.cache_status, "larder; fwd=miss; stored; detail=distrusted");
        assert!(asked.elapsed() <= patience + ms(1), "{:?}", asked.elapsed());
        quiet().await;
    }
    newcomer.set_line(Line::Open);
    sleep(ms(12_000)).await;
    assert_eq!(newcomer.says("/a").await, "HIT");
}

/// The answer to an append has all that came before it.
#[tokio::test(start_paused = true)]
async fn a_purge_brings_what_others_purged_before_it() {
    let (_server, [one, deaf], _) = pair(&["/a", "/b", "/c"]).await;
    deaf.set_line(Line::Deaf);
    let first = one.handle.purge(uri("/a")).await.unwrap().number;
    assert_eq!(deaf.says("/a").await, "HIT", "it can't know yet");
    let second = deaf.handle.purge(uri("/b")).await.unwrap().number;
    assert_eq!(second, first + 1);
    assert_eq!([deaf.says("/a").await, deaf.says("/b").await, deaf.says("/c").await], ["MISS", "MISS", "HIT"]);
}

#[tokio::test(start_paused = true)]
async fn a_gap_is_filled_from_the_snapshot_and_a_new_epoch_ends_all_that_is_older() {
    let (server, [one, cut], _) = pair(&["/a", "/b"]).await;
    cut.set_line(Line::Broken);
    one.handle.purge(uri("/a")).await.unwrap();
    server.trim();
    one.handle.purge(uri("/x")).await.unwrap();
    sleep(ms(2000)).await;
    cut.set_line(Line::Open);
    sleep(ms(2000)).await;
    assert_eq!([cut.says("/b").await, cut.says("/a").await], ["HIT", "MISS"]);
    assert_eq!(cut.handle.stats().purge_log.unwrap().snapshots, 2);

    quiet().await;
    server.begin_epoch();
    sleep(ms(500)).await;
    for instance in [&one, &cut] {
        assert!(instance.handle.stats().purge_log.unwrap().trusted);
    }
    assert_eq!([one.says("/a").await, cut.says("/b").await], ["MISS", "MISS"], "whatever it was that was lost");
    quiet().await;
    assert_eq!([cut.says("/a").await, one.says("/b").await], ["HIT", "HIT"]);
}

/// A purge that is made while the instance doesn't know of the epoch yet.
#[tokio::test(start_paused = true)]
async fn a_purge_into_a_new_epoch_counts_with_the_epoch() {
    let (server, [one, other], _) = pair(&["/a", "/b"]).await;
    one.set_line(Line::Deaf);
    server.begin_epoch();
    let answer = one.handle.purge(uri("/a")).into_future().now_or_never();
    assert!(answer.is_none(), "without a snapshot nobody knows what else is gone");
    one.set_line(Line::Open);
    let receipt = one.handle.purge(uri("/a")).await.unwrap();
    assert!(receipt.number > 8 << 32, "{receipt:?}");
    assert_eq!([one.says("/a").await, one.says("/b").await], ["MISS", "MISS"]);
    sleep(ms(500)).await;
    assert_eq!(other.handle.stats().purge_log.unwrap().number, receipt.number);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_goes_back_is_not_believed() {
    let (server, [one, other], _) = pair(&["/a"]).await;
    for _ in 0..3 {
        one.handle.purge(uri("/x")).await.unwrap();
    }
    sleep(ms(500)).await;
    server.forget();
    sleep(ms(3000)).await;
    for instance in [&one, &other] {
        assert_eq!(instance.get("/a").await.cache_status, "larder; fwd=miss; stored; detail=distrusted");
        quiet().await;
    }
    server.begin_epoch();
    sleep(ms(3000)).await;
    one.says("/a").await;
    quiet().await;
    assert_eq!(other.says("/a").await, "HIT");
}

/// What couldn't be written has failed, and is never acknowledged; this instance forgets it no more than others will hear of it late.
#[tokio::test(start_paused = true)]
async fn a_purge_that_cannot_be_written_has_failed_and_is_made_as_soon_as_it_can() {
    for line in [Line::Silent, Line::Broken, Line::OneWay] {
        let (server, [one, other], _) = pair(&["/a", "/b"]).await;
        one.set_line(line);
        let asked = Instant::now();
        let failed = one.handle.purge(uri("/a")).await;
        assert!(matches!(failed, Err(PurgeError::Log { .. })), "{line:?}: {failed:?}");
        assert!(asked.elapsed() <= ms(1001), "{line:?}");
        assert_eq!(one.handle.stats().purges, 0, "{line:?}: it isn't one");
        for page in ["/a", "/b"] {
            assert_eq!(one.get(page).await.outcome.unwrap().outcome, Outcome::Miss(ForwardReason::Distrusted));
        }
        assert_eq!(one.handle.stats().purge_log.unwrap().owed, 1);
        if line != Line::OneWay {
            // It holds what was fetched by the other one since, as far as it knows.
            assert_eq!((other.says("/b").await.as_str(), server.purges()), ("HIT", 0));
        }

        one.set_line(Line::Open);
        sleep(ms(3000)).await;
        assert!(server.purges() >= 1, "{line:?}");
        assert_eq!([one.says("/b").await, other.says("/b").await], ["HIT", "HIT"], "{line:?}");
        assert_eq!([other.says("/a").await, one.says("/a").await][0], "MISS", "{line:?}");
        let log = one.handle.stats().purge_log.unwrap();
        assert!(log.trusted && log.owed == 0 && log.unwritten == 1, "{line:?}: {log:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn too_many_purges_that_cannot_be_written_become_one_of_everything() {
    let (server, [one, other], _) = pair(&["/a", "/b"]).await;
    one.set_line(Line::Broken);
    for n in 0..1001 {
        let failed = one.handle.purge(uri(&format!("/{n}"))).await;
        assert!(matches!(failed, Err(PurgeError::Log { .. })));
    }
    assert_eq!(one.handle.stats().purge_log.unwrap().owed, 1);
    one.set_line(Line::Open);
    sleep(ms(3000)).await;
    assert_eq!(server.purges(), 1);
    assert_eq!([one.says("/a").await, other.says("/b").await], ["MISS", "MISS"]);
}

#[tokio::test(start_paused = true)]
async fn what_a_write_makes_invalid_is_so_on_all_instances_before_its_client_hears_of_it() {
    let rules = |layer: larder::CacheLayer| {
        layer.rule("^/a", Policy::from_origin().purges_tag("b").purges_tag("c")).rule("^/x", Policy::bypass())
    };
    let (server, handler) = (Server::default(), counting());
    let [one, other] = [(); 2].map(|()| server.instance(&handler, NO_TIME, rules));
    let pages = ["/a", "/b", "/c", "/d"];
    for page in pages {
        one.says(page).await;
        quiet().await;
        assert_eq!(other.says(page).await, "HIT");
    }
    other.set_line(Line::Deaf);
    assert_eq!(one.send("PUT", "/a").await.status, 200);
    assert_eq!(server.purges(), 1, "all that it names under one number");
    assert_eq!(one.says("/d").await, "HIT");
    for page in ["/a", "/b", "/c"] {
        assert_eq!(one.says(page).await, "MISS", "{page}");
    }
    assert_eq!(other.says("/a").await, "HIT", "what it can't hear of yet");
    other.set_line(Line::Open);
    sleep(ms(1000)).await;
    let bodies = [one.get("/a").await.body, other.get("/a").await.body];
    assert!(bodies[0] == bodies[1] && bodies[0] != "/a 1", "{bodies:?}");
}

/// A write through an instance that never learned that both spellings are one.
#[tokio::test(start_paused = true)]
async fn a_write_reaches_spellings_that_only_another_instance_knows() {
    let handler = Handler::new(|_, n| {
        answer(200, &[("cache-control", "max-age=3600"), ("no-vary-search", "params")], format!("answer {n}"))
    });
    let server = Server::default();
    let [one, other] = [(); 2].map(|()| server.plain(&handler));
    one.says("/a?x=1").await;
    quiet().await;
    assert_eq!(one.says("/a?x=2").await, "HIT");
    other.send("PUT", "/a?x=3").await;
    quiet().await;
    assert_eq!(one.says("/a?x=2").await, "MISS");
}

#[tokio::test(start_paused = true)]
async fn a_write_passes_unharmed_whatever_becomes_of_the_log() {
    for line in [Line::Silent, Line::Broken, Line::OneWay] {
        let (server, [one, other], _) = pair(&["/a"]).await;
        one.set_line(line);
        // The second one knows already that the log is out of reach.
        for longest in [ms(50), ms(1)] {
            let asked = Instant::now();
            let got = one.send("PUT", "/a").await;
            assert_eq!((got.status, got.x_cache.as_str()), (200, "BYPASS"), "{line:?}");
            assert!(asked.elapsed() <= longest, "{line:?}: {:?}", asked.elapsed());
        }
        assert_eq!(one.get("/a").await.outcome.unwrap().outcome, Outcome::Miss(ForwardReason::Distrusted));
        one.set_line(Line::Open);
        sleep(ms(3000)).await;
        assert!(server.purges() >= 2, "{line:?}");
        let body = other.get("/a").await.body;
        assert!(body != "/a 1", "{line:?}");
        quiet().await;
        assert_eq!(one.get("/a").await.body, body, "{line:?}");
    }
}

/// Nobody waits for the answer, and the write may have happened.
#[tokio::test(start_paused = true)]
async fn a_write_whose_client_left_is_told_to_all() {
    let handler = Handler::waiting(|head, n| async move {
        if head.method == "PUT" {
            sleep(ms(10_000)).await;
        }
        Ok(answer(200, &[("cache-control", "max-age=3600")], format!("answer {n}")))
    });
    let server = Server::default();
    let [one, other] = [(); 2].map(|()| server.plain(&handler));
    one.says("/a").await;
    quiet().await;
    assert_eq!(other.says("/a").await, "HIT");
    let write = one.service.clone().oneshot(request("PUT", "/a", &[]));
    assert!(timeout(ms(10), write).await.is_err());
    quiet().await;
    assert_eq!(server.purges(), 1);
    assert_eq!([one.says("/a").await, other.says("/a").await][0], "MISS");
}

#[tokio::test(start_paused = true)]
async fn soft_purges_are_as_of_when_they_were_made_whatever_the_clocks_say() {
    let five = Duration::from_secs(300);
    // (by how much the clock of the one that purges is ahead, and that of the other)
    for (ahead, other_ahead) in [(NO_TIME, NO_TIME), (five, NO_TIME), (NO_TIME, five)] {
        let handler = Handler::new(|_, n| {
            let fields = [("cache-control", "max-age=3600, stale-while-revalidate=60")];
            answer(200, &fields, format!("answer {n}"))
        });
        let server = Server::default();
        let one = server.instance(&handler, ahead, |layer| layer);
        let other = server.instance(&handler, other_ahead, |layer| layer);
        other.says("/a").await;
        quiet().await;
        assert_eq!(other.says("/a").await, "HIT");
        sleep(ms(400_000)).await;
        let receipt = one.handle.purge(uri("/a")).soft().await.unwrap();
        quiet().await;
        assert_eq!(other.handle.stats().purge_log.unwrap().number, receipt.number);
        let got = other.get("/a").await;
        // As of too early is an answer that is asked for anew, and never one that counts as fresh.
        let allowed: &[&str] = if other_ahead > ahead { &["STALE", "MISS"] } else { &["STALE"] };
        assert!(allowed.contains(&got.x_cache.as_str()), "{ahead:?} {other_ahead:?}: {}", got.cache_status);
        sleep(ms(1000)).await;
        assert_eq!(other.get("/a").await.body, "answer 2", "{ahead:?} {other_ahead:?}");
    }
}

/// While nothing is trusted, requests for the same still go to the handler as one, but for no longer than what is stored would be used.
#[tokio::test(start_paused = true)]
async fn in_distrust_requests_still_share_an_answer_and_none_that_is_older_than_the_bound() {
    let handler = Handler::waiting(|_, n| async move {
        sleep(ms(3000)).await;
        Ok(answer(200, &[("cache-control", "max-age=3600")], format!("answer {n}")))
    });
    let server = Server::default();
    let one = server.plain(&handler);
    one.set_line(Line::Broken);
    assert_eq!(one.get("/other").await.status, StatusCode::OK);
    let calls = handler.calls();
    let ask = |wait: u64| {
        let service = one.service.clone();
        async move {
            sleep(ms(wait)).await;
            let response = service.oneshot(get("/a")).await.expect("the handler doesn't fail");
            Exchange::read(response).await.expect("nor does its content").body
        }
    };
    let bodies = futures_util::future::join_all([0, 500, 990, 1100, 2000].map(ask)).await;
    let [first, second] = [calls + 1, calls + 2].map(|n| format!("answer {n}"));
    assert_eq!(bodies, [&first, &first, &first, &second, &second].map(String::as_str));
}

#[tokio::test(start_paused = true)]
async fn what_stands_in_for_an_error_is_trusted_as_well() {
    let handler = Handler::waiting(|_, n| async move {
        if n > 1 {
            sleep(ms(2000)).await;
        }
        let fields = [("cache-control", "max-age=60, stale-if-error=3600")];
        Ok(answer(if n == 1 { 200 } else { 503 }, &fields, format!("answer {n}")))
    });
    let server = Server::default();
    let one = server.plain(&handler);
    one.says("/a").await;
    quiet().await;
    sleep(ms(61_000)).await;
    assert_eq!(one.says("/a").await, "STALE", "while it is");
    one.set_line(Line::Silent);
    assert_eq!(one.get("/a").await.status, 503, "the handler took longer than trust lasts");
}

#[tokio::test(start_paused = true)]
async fn the_log_is_followed_until_nobody_has_a_hold_on_the_cache() {
    let (server, handler) = (Server::default(), counting());
    let instance = server.plain(&handler);
    let line = instance.line();
    quiet().await;
    assert_eq!(line.receiver_count(), 0);
    instance.says("/a").await;
    sleep(ms(5000)).await;
    assert!(Arc::strong_count(&line) > 2);
    // The handler keeps the requests that it saw, and these have the cache in hand.
    drop((instance, handler));
    sleep(ms(100)).await;
    assert_eq!(Arc::strong_count(&line), 1, "neither the store nor the task is left");

    let instance = server.plain(&counting());
    instance.says("/a").await;
    let shut_down = timeout(ms(10), instance.handle.shutdown(ms(5))).await;
    assert_eq!(shut_down, Ok(true), "it doesn't wait for a log that has nothing to say");
    sleep(ms(2000)).await;
    assert_eq!(instance.get("/a").await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn what_is_owed_at_a_shutdown_is_tried_once_more() {
    let (server, [one, other], _) = pair(&["/a"]).await;
    one.set_line(Line::Broken);
    assert!(one.handle.purge(uri("/a")).await.is_err());
    one.set_line(Line::Open);
    assert!(one.handle.shutdown(ms(5000)).await);
    assert_eq!(server.purges(), 1);
    quiet().await;
    assert_eq!(other.says("/a").await, "MISS");
}

/// What lies in an instance's own memory is as good as what is far, and no better.
#[tokio::test(start_paused = true)]
async fn what_is_near_is_held_against_what_others_purge() {
    let (server, handler) = (Server::default(), counting());
    let [one, other] = [(); 2].map(|()| server.tiered(&handler));
    for page in ["/a", "/b", "/c"] {
        one.says(page).await;
        quiet().await;
        assert_eq!([other.says(page).await, other.says(page).await], ["HIT", "HIT"]);
    }
    one.handle.purge(uri("/a")).await.unwrap();
    one.send("PUT", "/b").await;
    quiet().await;
    assert_eq!([other.says("/a").await, other.says("/b").await, other.says("/c").await], ["MISS", "MISS", "HIT"]);
    other.set_line(Line::Broken);
    sleep(ms(1001)).await;
    assert_eq!(other.get("/c").await.outcome.unwrap().outcome, Outcome::Miss(ForwardReason::Distrusted));
}

#[tokio::test(start_paused = true)]
async fn an_operator_may_prefer_what_is_near_but_for_what_the_instance_itself_purged() {
    let (server, handler) = (Server::default(), counting());
    let one = server.tiered(&handler);
    for page in ["/a", "/b", "/c"] {
        one.says(page).await;
        quiet().await;
    }
    one.set_line(Line::Broken);
    sleep(ms(2000)).await;
    assert_eq!(one.says("/a").await, "MISS");
    one.handle.serve_near_for(Duration::from_secs(60));
    assert_eq!([one.says("/a").await, one.says("/b").await], ["HIT", "HIT"]);
    assert!(one.handle.purge(uri("/a")).await.is_err());
    one.send("PUT", "/b").await;
    for look in 0..2 {
        let says = [one.says("/a").await, one.says("/b").await, one.says("/c").await];
        assert_eq!(says, ["MISS", "MISS", "HIT"], "also what was stored since, for it can't be told apart: {look}");
    }
    one.handle.serve_near_for(NO_TIME);
    assert_eq!(one.says("/c").await, "MISS");
    one.handle.serve_near_for(Duration::from_secs(60));
    quiet().await;
    assert_eq!(one.says("/c").await, "HIT");
    sleep(ms(60_001)).await;
    assert_eq!(one.says("/c").await, "MISS", "it ends by itself");
    one.set_line(Line::Open);
    sleep(ms(3000)).await;
    let calls = handler.calls();
    assert_eq!([one.says("/a").await, one.says("/b").await, one.says("/c").await], ["MISS", "MISS", "HIT"]);
    assert_eq!(handler.calls(), calls + 2);
}

/// Nobody but this process knows by which key it digests principals.
#[tokio::test(start_paused = true)]
async fn a_partition_whose_key_others_lack_is_purged_with_everything() {
    // (the key that all have, what is left of another page on the other instance)
    for (secret, expected) in [(None, "MISS"), (Some([7; 32]), "HIT")] {
        let handler = counting();
        let server = Server::default();
        let [one, other] = [(); 2].map(|()| {
            let rules = |layer: larder::CacheLayer| {
                let layer = layer.rule("^/me", Policy::per(|_: &_| Some("ann"), Duration::from_secs(3600)));
                secret.map_or(layer.clone(), |secret| layer.partition_secret(secret))
            };
            server.tiered_with(&handler, rules)
        });
        for instance in [&one, &other] {
            for page in ["/me", "/other"] {
                instance.says(page).await;
                quiet().await;
                assert_eq!(instance.says(page).await, "HIT");
            }
        }
        one.handle.purge(Selector::Partition("ann".into())).await.unwrap();
        quiet().await;
        assert_eq!([other.says("/me").await.as_str(), other.says("/other").await.as_str()], ["MISS", expected]);
    }
}

/// Numbers as good as random.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % most
    }
}

const PAGES: usize = 8;

/// What the handler answers with, and what purges were acknowledged.
#[derive(Default)]
struct Truth {
    version: AtomicU64,
    /// The version that the newest purge was made for that was acknowledged, and by which instance, when.
    acknowledged: std::sync::Mutex<Vec<(u64, usize, Instant)>>,
}

/// Ten thousand purges, made by three instances at random, of which one after another loses its line for a while, beside fills that take their time: none comes back.
#[tokio::test(start_paused = true)]
async fn nothing_that_was_purged_comes_back_whatever_happens_between() {
    let truth: Arc<Vec<Truth>> = Arc::new((0..PAGES).map(|_| Truth::default()).collect());
    let handler = Handler::waiting({
        let truth = truth.clone();
        move |head, n| {
            let truth = truth.clone();
            async move {
                let page: usize = head.uri.path()[1..].parse().expect("a page");
                sleep(ms(n as u64 % 7)).await;
                let version = truth[page].version.load(Ordering::SeqCst);
                sleep(ms(n as u64 % 11)).await;
                let fields = [("cache-control", "max-age=3600"), ("cache-tag", "every")];
                Ok(answer(200, &fields, version.to_string()))
            }
        }
    });
    let server = Server::default();
    let instances = Arc::new([server.tiered(&handler), server.tiered(&handler), server.plain(&handler)]);
    let (served, hits) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let readers = (0..12).map(|n| {
        let (truth, instances) = (truth.clone(), instances.clone());
        let (served, hits) = (served.clone(), hits.clone());
        async move {
            let mut dice = Dice(0x9E37_79B9_7F4A_7C15 ^ n);
            for _ in 0..3000 {
                let (page, own) = (dice.below(PAGES as u64) as usize, dice.below(3) as usize);
                let asked = Instant::now();
                // What must be known to this instance by now.
                let binding = |(version, by, at): &(u64, usize, Instant)| {
                    (*by == own || asked.duration_since(*at) >= ms(1000)).then_some(*version)
                };
                let least = truth[page].acknowledged.lock().unwrap().iter().filter_map(binding).max().unwrap_or(0);
                let got = instances[own].get(&format!("/{page}")).await;
                let version: u64 = got.body.parse().expect("a version");
                assert!(
                    version >= least,
                    "page {page} at instance {own}: {version}, not {least}: {}",
                    got.cache_status
                );
                served.fetch_add(1, Ordering::Relaxed);
                hits.fetch_add(u64::from(got.x_cache == "HIT"), Ordering::Relaxed);
                sleep(ms(dice.below(20))).await;
            }
        }
    });
    let purgers = (0..4).map(|n| {
        let (truth, instances) = (truth.clone(), instances.clone());
        async move {
            let mut dice = Dice(0xD1B5_4A32_D192_ED03 ^ n);
            let mut made = 0;
            while made < 2500 {
                let (page, own) = (dice.below(PAGES as u64) as usize, dice.below(3) as usize);
                let pages = match dice.below(40) {
                    0 => 0..PAGES,
                    _ => page..page + 1,
                };
                let versions: Vec<u64> =
                    pages.clone().map(|page| truth[page].version.fetch_add(1, Ordering::SeqCst) + 1).collect();
                let selector = match (pages.len(), dice.below(3)) {
                    (1, 0) => Selector::Glob(format!("/{page}*")),
                    (1, _) => uri(&format!("/{page}")),
                    (_, 0) => Selector::Everything,
                    (_, _) => Selector::Tag("every".into()),
                };
                if instances[own].handle.purge(selector).await.is_ok() {
                    made += 1;
                    let at = Instant::now();
                    for (page, version) in pages.zip(versions) {
                        truth[page].acknowledged.lock().unwrap().push((version, own, at));
                    }
                }
                sleep(ms(dice.below(40))).await;
            }
        }
    });
    let cutter = {
        let (instances, server) = (instances.clone(), server.clone());
        async move {
            let mut dice = Dice(7);
            for n in 0..40 {
                sleep(ms(500 + dice.below(500))).await;
                let instance = &instances[dice.below(3) as usize];
                let lines = [Line::Silent, Line::Broken, Line::OneWay, Line::Deaf];
                instance.set_line(lines[dice.below(4) as usize]);
                if n % 5 == 0 {
                    server.trim();
                }
                if n % 9 == 8 {
                    server.begin_epoch();
                }
                sleep(ms(dice.below(2500))).await;
                instance.set_line(Line::Open);
            }
        }
    };
    let readers = readers.map(tokio::spawn);
    let readers = futures_util::future::join_all(readers);
    let purgers = futures_util::future::join_all(purgers.map(tokio::spawn));
    let (readers, purgers, cutter) = futures_util::join!(readers, purgers, tokio::spawn(cutter));
    readers.into_iter().chain(purgers).chain([cutter]).for_each(|ended| ended.unwrap());
    let (served, hits) = (served.load(Ordering::Relaxed), hits.load(Ordering::Relaxed));
    assert!(hits > served / 20, "nothing is shown where nothing is used: {hits} of {served}");
}
