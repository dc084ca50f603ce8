//! Responses in Redis: what one instance stores is there for every other, under its own name and nowhere else, and whatever happens to the server costs misses.
#![cfg(feature = "redis")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder::storage::{Expected, Lease, LeaseToken, Query, RedisStore, Released, Storage, Swap, Variants, contract};
use larder::{CacheKey, Clock, Moment, Policy, SystemClock};
use support::fault_proxy::{Fault, FaultProxy};
use support::redis::{RedisServer, Reply, Setup};
use support::shelf::{Made, make, make_as};

const MINUTE: Duration = Duration::from_secs(60);
const TERM: Duration = Duration::from_secs(10);

fn store(server: &RedisServer) -> RedisStore {
    RedisStore::in_namespace(&server.url(), "shop").expect("a URL")
}

async fn get(store: &RedisStore, made: &Made) -> Variants {
    get_at(store, made, SystemClock::default().now()).await
}

async fn get_at(store: &RedisStore, made: &Made, now: Moment) -> Variants {
    store.get(Query::new(&made.key, &made.asked, now)).await.expect("an answer")
}

async fn put(store: &RedisStore, made: &Made) {
    store.put(&made.key, made.response.clone(), 8).await.expect("stored");
}

async fn page(path: &str, content: &str) -> Made {
    make(SystemClock::default(), path, &[], &[], content.to_owned()).await
}

async fn variant(language: &str, content: &str) -> Made {
    let (asked, vary) = ([("accept-language", language)], [("vary", "accept-language")]);
    make(SystemClock::default(), "/page", &asked, &vary, content.to_owned()).await
}

fn bodies(variants: &Variants) -> Vec<String> {
    variants.iter().map(|found| String::from_utf8_lossy(found.body()).into_owned()).collect()
}

/// How often a command ran on the server.
fn calls(server: &RedisServer, command: &str) -> u64 {
    let stats = server.command(&["INFO", "commandstats"]).text();
    let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.map_or(0, |line| line.split(',').next().unwrap_or_default().parse().expect("a number"))
}

fn keys(server: &RedisServer, pattern: &str) -> Vec<String> {
    let Reply::List(keys) = server.command(&["KEYS", pattern]) else { panic!("a list of keys") };
    keys.iter().map(Reply::text).collect()
}

fn only_key(server: &RedisServer, pattern: &str) -> String {
    let keys = keys(server, pattern);
    assert_eq!(keys.len(), 1, "{keys:?}");
    keys[0].clone()
}

#[test]
fn nothing_is_connected_to_before_it_is_used() {
    // Outside of any runtime, and with nobody at the address.
    let store = RedisStore::new("redis://127.0.0.1:1?ns=shop").expect("a URL");
    assert!(store.purge_log().is_some() && store.stats().connections == 0);
}

#[tokio::test]
async fn what_one_instance_stores_every_other_reads() {
    let Some(server) = RedisServer::start() else { return };
    let (one, other) = (store(&server), store(&server));
    let mut answer = http::Response::builder().status(203).header("cache-control", "max-age=60");
    for (name, value) in [("etag", "\"1\""), ("x-many", "a"), ("x-many", "b"), ("content-type", "text/plain")] {
        answer = answer.header(name, value);
    }
    let answer = answer.body(http_body_util::Full::new(Bytes::from("content"))).expect("a response");
    let layer = |catch| larder::CacheLayer::with_storage(catch);
    let made = make_as(layer, SystemClock::default(), "/page?q=1", &[], answer).await;
    assert!(get(&one, &made).await.is_empty());
    put(&one, &made).await;
    let found = get(&other, &made).await;
    assert_eq!(bodies(&found), ["content"]);
    assert_eq!((found[0].status(), found[0].headers()), (made.response.status(), made.response.headers()));
    assert_eq!(found[0].keep(), made.response.keep());
}

#[tokio::test]
async fn a_hit_is_one_round_trip_once_it_is_known_what_a_resource_varies_by() {
    let Some(server) = RedisServer::start() else { return };
    let (one, other) = (store(&server), store(&server));
    let (german, english, french) =
        (variant("de", "deutsch").await, variant("en", "english").await, variant("fr", "").await);
    put(&one, &german).await;
    put(&one, &english).await;
    let trips = || calls(&server, "get") + calls(&server, "mget");
    for (round, expected) in [2, 1, 1].into_iter().enumerate() {
        let (before, found) = (trips(), get(&other, &german).await);
        assert_eq!((bodies(&found), trips() - before), (vec!["deutsch".to_owned()], expected), "round {round}");
    }
    assert_eq!(bodies(&get(&other, &english).await), ["english"]);
    assert_eq!(bodies(&get(&other, &french).await), ["english"], "the newest, so that the miss is one for the variant");
    let plain = page("/plain", "plain").await;
    put(&one, &plain).await;
    let (before, found) = (trips(), get(&other, &plain).await);
    assert_eq!((bodies(&found), trips() - before), (vec!["plain".to_owned()], 1));
}

#[tokio::test]
async fn an_only_variant_is_one_round_trip_for_who_knows_nothing_and_stays_when_another_comes() {
    let Some(server) = RedisServer::start() else { return };
    let (one, other) = (store(&server), store(&server));
    let trips = || calls(&server, "get") + calls(&server, "mget");
    let (german, english) = (variant("de", "deutsch").await, variant("en", "english").await);
    put(&one, &german).await;
    let before = trips();
    assert_eq!(bodies(&get(&other, &german).await), ["deutsch"]);
    assert_eq!(
        bodies(&get(&other, &english).await),
        ["deutsch"],
        "the only one, so that the miss is one for the variant"
    );
    assert_eq!(trips() - before, 2);
    let key = only_key(&server, "larder:shop:r:*");
    put(&one, &variant("de", "neu").await).await;
    assert_eq!(
        (bodies(&get(&other, &german).await), only_key(&server, "larder:shop:r:*")),
        (vec!["neu".into()], key.clone())
    );
    server.command(&["PEXPIRE", &key, "30000"]);
    put(&one, &english).await;
    for (made, body) in [(&german, "neu"), (&english, "english"), (&german, "neu")] {
        assert_eq!(
            (bodies(&get(&other, made).await), bodies(&get(&one, made).await)),
            (vec![body.into()], vec![body.into()])
        );
    }
    let all = keys(&server, "larder:shop:r:*");
    let mut left: Vec<_> =
        all.iter().filter(|name| **name != key).map(|name| server.command(&["PTTL", name]).number()).collect();
    left.sort_unstable();
    assert!(
        left.len() == 2 && (1..=30_000).contains(&left[0]) && left[1] > 30_000,
        "each lives as long as before: {left:?}"
    );
    assert_eq!(one.remove(&german.key).await.ok(), Some(true));
    assert!(keys(&server, "larder:shop:r:*").is_empty());
}

#[tokio::test]
async fn an_only_variant_that_is_large_has_a_place_of_its_own() {
    let Some(server) = RedisServer::start() else { return };
    let (one, other) = (store(&server), store(&server));
    let large = "x".repeat(300 << 10);
    for body in [&large, "small", &large] {
        let made = variant("de", body).await;
        put(&one, &made).await;
        assert_eq!(bodies(&get(&other, &made).await), [body]);
        assert_eq!(keys(&server, "larder:shop:r:*").len(), if body == "small" { 1 } else { 2 });
    }
}

#[tokio::test]
async fn an_only_variant_whose_bytes_were_changed_is_a_miss() {
    let Some(server) = RedisServer::start() else { return };
    let store = store(&server);
    let made = variant("de", "deutsch").await;
    put(&store, &made).await;
    let key = only_key(&server, "larder:shop:r:*");
    let Reply::Bytes(Some(whole)) = server.command(&["GET", &key]) else { panic!("a marker") };
    let record = whole.windows(4).position(|part| part == b"LRDR").expect("a record in it");
    for at in (0..whole.len()).filter(|at| [0, 24, 25, 26, 27].contains(at) || *at >= record) {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        server.command(&[b"SET".as_slice(), key.as_bytes(), &changed]);
        assert!(get(&store, &made).await.is_empty(), "byte {at}");
        put(&store, &made).await;
        assert_eq!(bodies(&get(&store, &made).await), ["deutsch"], "byte {at}: it is replaced");
        server.command(&["DEL", &key]);
    }
}

#[tokio::test]
async fn variants_that_are_too_many_or_of_other_fields_leave() {
    let Some(server) = RedisServer::start() else { return };
    let store = store(&server);
    for language in ["de", "en", "fr", "de", "it"] {
        let made = variant(language, language).await;
        store.put(&made.key, made.response, 3).await.expect("stored");
    }
    for (language, found) in [("it", "it"), ("de", "de"), ("fr", "fr"), ("en", "it")] {
        assert_eq!(bodies(&get(&store, &variant(language, "").await).await), [found], "{language}");
    }
    assert_eq!(keys(&server, "larder:shop:r:*").len(), 4, "three variants and their marker");
    let other = [("vary", "accept-encoding")];
    let encoded = make(SystemClock::default(), "/page", &[("accept-encoding", "x")], &other, "encoded").await;
    put(&store, &encoded).await;
    assert_eq!(bodies(&get(&store, &encoded).await), ["encoded"]);
    assert_eq!(
        keys(&server, "larder:shop:r:*").len(),
        1,
        "the newest word on `Vary` counts, and an only variant lies in its marker"
    );
    put(&store, &page("/page", "for all").await).await;
    assert_eq!(bodies(&get(&store, &encoded).await), ["for all"]);
    assert_eq!(keys(&server, "larder:shop:r:*").len(), 1);
    put(&store, &variant("de", "deutsch").await).await;
    assert_eq!(bodies(&get(&store, &variant("de", "").await).await), ["deutsch"]);
}

#[tokio::test]
async fn what_began_later_stays() {
    let Some(server) = RedisServer::start() else { return };
    let store = store(&server);
    let at = |seconds| {
        let start = SystemClock::default().now();
        move || Moment { wall: start.wall - MINUTE + Duration::from_secs(seconds), ..start }
    };
    let (asked, vary) = ([("accept-language", "de")], [("vary", "accept-language")]);
    let old = make(at(1), "/page", &[], &[], "old").await;
    let new = make(at(2), "/page", &[], &[], "new").await;
    let oldest = make(at(0), "/page", &asked, &vary, "oldest").await;
    let german = make(at(4), "/page", &asked, &vary, "deutsch").await;
    let before = make(at(3), "/page", &asked, &vary, "früher").await;
    let rows = [
        (&old, "old"),
        (&new, "new"),
        (&old, "new"),
        (&oldest, "new"),
        (&german, "deutsch"),
        (&before, "deutsch"),
        (&new, "deutsch"),
    ];
    for (row, (made, stays)) in rows.into_iter().enumerate() {
        put(&store, made).await;
        assert_eq!(bodies(&get(&store, &german).await), [stays], "row {row}");
    }
}

#[tokio::test]
async fn what_is_removed_cleared_or_erased_is_gone_and_nothing_else() {
    let Some(server) = RedisServer::start() else { return };
    let (store, stranger) = (store(&server), RedisStore::in_namespace(&server.url(), "shop2").expect("a URL"));
    server.command(&["SET", "larder:shop", "of another application"]);
    let per = |name: &'static str| async move {
        let policy = Policy::per(move |_: &larder::RequestHead<'_>| Some(name), MINUTE);
        let answer = http::Response::new(http_body_util::Full::new(Bytes::from(name)));
        let layer = |catch| larder::CacheLayer::with_storage(catch).rule("^/me", policy);
        make_as(layer, SystemClock::default(), "/me", &[], answer).await
    };
    let (page, german, mine, yours) =
        (page("/plain", "plain").await, variant("de", "deutsch").await, per("me").await, per("you").await);
    for made in [&page, &german, &mine, &yours] {
        put(&store, made).await;
        put(&stranger, made).await;
    }
    let of_mine = only_partition(&server, &store, &mine).await;
    assert_eq!(keys(&server, &format!("larder:shop:p:{}:*", hex(&of_mine))).len(), 1);
    store.erase(&of_mine).await.expect("erased");
    assert!(get(&store, &mine).await.is_empty() && !get(&store, &yours).await.is_empty());
    assert_eq!(store.remove(&german.key).await.ok(), Some(true));
    assert_eq!(store.remove(&german.key).await.ok(), Some(false));
    assert!(get(&store, &german).await.is_empty() && !get(&store, &page).await.is_empty());
    assert_eq!(keys(&server, "larder:shop:*").len(), 2, "variants went with their marker");
    store.clear().await.expect("cleared");
    assert_eq!(keys(&server, "larder:shop:*").len(), 0);
    for made in [&page, &german, &mine, &yours] {
        assert!(get(&store, made).await.is_empty() && !get(&stranger, made).await.is_empty());
    }
    assert_eq!(server.command(&["EXISTS", "larder:shop"]).number(), 1);
}

/// The digest of the principal for whom something is stored, as it stands in the key's name.
async fn only_partition(server: &RedisServer, store: &RedisStore, made: &Made) -> [u8; 16] {
    let all = keys(server, "larder:shop:p:*");
    store.remove(&made.key).await.expect("removed");
    let left = keys(server, "larder:shop:p:*");
    put(store, made).await;
    let own = all.iter().find(|key| !left.contains(key)).expect("a key of one's own");
    let digits = own.split(':').nth(3).expect("digits");
    std::array::from_fn(|n| u8::from_str_radix(&digits[2 * n..2 * n + 2], 16).expect("digits"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn all_of_a_large_namespace_is_cleared_though_nobody_waits_to_the_end() {
    let Some(server) = RedisServer::start() else { return };
    let store = store(&server);
    let fill = "for i = 1, 20000 do redis.call('SET', 'larder:shop:r:{' .. i .. '}', 'x') end";
    server.command(&["EVAL", fill, "0"]);
    store.ping().await.expect("connected");
    assert!(tokio::time::timeout(Duration::ZERO, store.clear()).await.is_err());
    for _ in 0..1000 {
        if keys(&server, "larder:shop:r:*").is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it isn't cleared");
}

#[tokio::test]
async fn the_server_drops_what_nobody_wants_any_more() {
    let Some(server) = RedisServer::start() else { return };
    let all_day = store(&server);
    let made = make(SystemClock::default(), "/page", &[], &[("cache-control", "max-age=100")], "x").await;
    put(&all_day, &made).await;
    let key = only_key(&server, "larder:shop:r:*");
    let left = |key: &str| server.command(&["PTTL", key]).number();
    assert!((90_000..=100_000).contains(&left(&key)), "{}", left(&key));
    let an_hour = store(&server).longest(Duration::from_secs(50));
    put(&an_hour, &made).await;
    assert!((40_000..=50_000).contains(&left(&key)), "{}", left(&key));
    put(&an_hour, &variant("de", "deutsch").await).await;
    for key in keys(&server, "larder:shop:*") {
        assert!((1..=100_000).contains(&left(&key)), "{key}");
    }
}

#[tokio::test]
async fn what_is_no_record_of_the_key_is_a_miss_and_what_is_damaged_goes() {
    let Some(server) = RedisServer::start() else { return };
    let store = store(&server);
    let (made, other) = (page("/page", "content").await, page("/other", "other").await);
    put(&store, &other).await;
    let others = only_key(&server, "larder:shop:r:*");
    put(&store, &made).await;
    let key = keys(&server, "larder:shop:r:*").into_iter().find(|key| *key != others).expect("the other key");
    let Reply::Bytes(Some(record)) = server.command(&["GET", &key]) else { panic!("a record") };
    let flipped = |at: usize| {
        let mut record = record.clone();
        record[at] ^= 1;
        record
    };
    let last = record.len() - 1;
    let Reply::Bytes(Some(foreign)) = server.command(&["GET", &others]) else { panic!("a record") };
    // What is there, whether it goes, and how it is counted: damaged, or of no use.
    let rows = [
        (flipped(0), true, (0, 1)),
        (flipped(4), false, (0, 1)),
        (flipped(9), true, (1, 0)),
        (flipped(16), true, (1, 0)),
        (flipped(last), true, (1, 0)),
        (record[..last].to_vec(), true, (1, 0)),
        (record[..7].to_vec(), true, (1, 0)),
        ([&record[..], b"x"].concat(), true, (1, 0)),
        (b"".to_vec(), true, (0, 1)),
        (b"LRDM".to_vec(), true, (0, 0)),
        ([b"LRDM".as_slice(), &[0; 20], &[0xff; 70]].concat(), true, (0, 1)),
        ([b"LRDM".as_slice(), &[0; 24], &[0xff; 70]].concat(), true, (0, 0)),
        (foreign, false, (0, 1)),
    ];
    for (row, (bytes, goes, counted)) in rows.into_iter().enumerate() {
        let before = store.stats();
        server.command(&[b"SET".as_slice(), key.as_bytes(), &bytes]);
        assert!(get(&store, &made).await.is_empty(), "row {row}");
        assert_eq!(server.command(&["EXISTS", &key]).number() == 0, goes, "row {row}");
        let after = store.stats();
        let seen = (after.damaged_records - before.damaged_records, after.unusable_records - before.unusable_records);
        assert_eq!(seen, counted, "row {row}");
        put(&store, &page("/page", "later").await).await;
        assert_eq!(bodies(&get(&store, &made).await), ["later"], "row {row}: it is replaced");
    }
    server.command(&["DEL", &key]);
    server.command(&["LPUSH", &key, "a list"]);
    let said =
        store.get(Query::new(&made.key, &made.asked, SystemClock::default().now())).await.expect_err("no string");
    assert!(said.to_string().contains("another namespace"), "{said}");
}

#[tokio::test]
async fn records_under_a_key_are_read_by_those_who_have_it() {
    let Some(server) = RedisServer::start() else { return };
    let made = page("/page", "content").await;
    let (plain, keyed) = (store(&server), store(&server).mac([7; 32]));
    put(&plain, &made).await;
    assert!(get(&keyed, &made).await.is_empty());
    put(&keyed, &page("/page", "sealed").await).await;
    assert_eq!(bodies(&get(&store(&server).mac([7; 32]), &made).await), ["sealed"]);
    assert!(get(&plain, &made).await.is_empty() && get(&store(&server).mac([8; 32]), &made).await.is_empty());
}

#[tokio::test]
async fn one_instance_has_the_lease_until_it_ends_it() {
    let Some(server) = RedisServer::start() else { return };
    let (one, other) = (store(&server), store(&server));
    let key = CacheKey::new(b"h", "/page", None);
    let granted = |lease| match lease {
        Ok(Lease::Granted(token)) => token,
        other => panic!("{other:?}"),
    };
    let token = granted(one.lease(&key, TERM).await);
    assert_eq!(other.lease(&key, TERM).await.ok(), Some(Lease::Taken));
    other.release(&key, LeaseToken([0; 16]), Released::Failed).await.expect("nothing");
    assert_eq!(other.lease(&key, TERM).await.ok(), Some(Lease::Taken), "nobody ends a lease of somebody else");
    one.release(&key, token, Released::Failed).await.expect("ended");
    let token = granted(other.lease(&key, TERM).await);
    other.release(&key, token, Released::Stored).await.expect("ended");
    let token = granted(one.lease(&key, TERM).await);
    one.release(&key, token, Released::Declined).await.expect("ended");
    assert_eq!(other.lease(&key, TERM).await.ok(), Some(Lease::Free), "for a moment nobody waits");
    let left = server.command(&["PTTL", &only_key(&server, "larder:shop:l:*")]).number();
    assert!((1..=1000).contains(&left), "{left}");
    let short = granted(one.lease(&CacheKey::new(b"h", "/b", None), Duration::from_millis(1)).await);
    tokio::time::sleep(Duration::from_millis(20)).await;
    granted(other.lease(&CacheKey::new(b"h", "/b", None), TERM).await);
    one.release(&CacheKey::new(b"h", "/b", None), short, Released::Stored).await.expect("nothing");
    assert_eq!(one.lease(&CacheKey::new(b"h", "/b", None), TERM).await.ok(), Some(Lease::Taken));
}

#[tokio::test]
async fn a_lease_that_nobody_waits_for_is_given_back() {
    let Some(server) = RedisServer::start() else { return };
    let store = store(&server);
    let key = CacheKey::new(b"h", "/page", None);
    store.ping().await.expect("connected");
    server.pause();
    assert!(tokio::time::timeout(Duration::from_millis(20), store.lease(&key, TERM)).await.is_err());
    server.resume();
    for _ in 0..1000 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        if let Ok(Lease::Granted(_)) = store.lease(&key, TERM).await {
            return;
        }
    }
    panic!("it is never given back");
}

#[tokio::test]
async fn who_stops_waiting_takes_no_answer_from_anybody() {
    let Some(server) = RedisServer::start() else { return };
    let store = store(&server);
    let mut pages = Vec::new();
    for n in 0..20 {
        let made = page(&format!("/{n}"), &format!("content {n}")).await;
        put(&store, &made).await;
        pages.push((made, format!("content {n}")));
    }
    for round in 0..60_u64 {
        if round % 20 == 10 {
            server.pause();
        }
        let asking = pages.iter().map(|(made, content)| async {
            let patience = Duration::from_micros(round * 37 % 1000);
            let now = SystemClock::default().now();
            let answer = tokio::time::timeout(patience, store.get(Query::new(&made.key, &made.asked, now))).await;
            if let Ok(Ok(found)) = answer {
                assert_eq!(bodies(&found), std::slice::from_ref(content), "round {round}");
            }
        });
        futures_util::future::join_all(asking).await;
        if round % 20 == 10 {
            server.resume();
        }
    }
    for (made, content) in &pages {
        assert_eq!(bodies(&get(&store, made).await), std::slice::from_ref(content));
    }
    assert_eq!(store.stats().connections, 1, "the connection stays");
}

#[tokio::test]
async fn it_works_again_after_whatever_happened_to_the_server() {
    let Some(mut server) = RedisServer::start() else { return };
    let store = store(&server);
    let made = page("/page", "content").await;
    let works = async |what: &str| {
        put(&store, &made).await;
        assert_eq!(bodies(&get(&store, &made).await), ["content"], "{what}");
    };
    works("at first").await;
    server.command(&["SCRIPT", "FLUSH"]);
    works("scripts were forgotten").await;
    server.command(&["CLIENT", "KILL", "TYPE", "normal"]);
    works("connections were cut").await;
    server.restart();
    works("the server is another one").await;
    server.kill();
    let said = store.ping().await.expect_err("nobody is there").to_string();
    assert!(said.contains("nobody listens"), "{said}");
    server.revive();
    works("it is back").await;
}

#[tokio::test]
async fn a_user_without_a_password_is_who_asks() {
    let Some(server) = Setup::default().user("shop", "on nopass ~* &* +@all").start() else { return };
    let store = RedisStore::in_namespace(&format!("redis://shop@{}", server.address()), "shop").expect("a URL");
    store.ping().await.expect("it is let in");
    assert!(server.command(&["CLIENT", "LIST"]).text().contains("user=shop"));
}

#[tokio::test]
async fn a_connection_that_went_silent_is_replaced_and_one_that_answers_late_stays() {
    let Some(server) = RedisServer::start() else { return };
    let proxy = FaultProxy::before(server.address());
    let store = RedisStore::in_namespace(&format!("redis://{}", proxy.address()), "shop").expect("a URL");
    let made = page("/page", "content").await;
    put(&store, &made).await;
    let leave_and_let_time_pass = async |is_answered_late: bool| {
        proxy.set(Fault::Blackhole);
        for _ in 0..2 {
            assert!(tokio::time::timeout(Duration::from_millis(50), store.ping()).await.is_err());
        }
        if is_answered_late {
            proxy.set(Fault::Pass);
        }
        tokio::time::sleep(Duration::from_millis(1100)).await;
    };
    leave_and_let_time_pass(true).await;
    assert_eq!(bodies(&get(&store, &made).await), ["content"]);
    assert_eq!(store.stats().connections, 1, "answers came, though nobody waited for them");
    leave_and_let_time_pass(false).await;
    let mended = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        proxy.set(Fault::Pass);
    };
    let (found, ()) = tokio::join!(get(&store, &made), mended);
    assert_eq!(bodies(&found), ["content"]);
    assert_eq!(store.stats().connections, 2);
}

#[test]
fn a_runtime_that_ended_leaves_nothing_behind() {
    let Some(server) = RedisServer::start() else { return };
    let store = store(&server);
    for _ in 0..3 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(store.ping()).expect("an answer");
        // One that ends while it is being connected.
        server.command(&["CLIENT", "KILL", "TYPE", "normal"]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        drop(runtime.block_on(async { tokio::time::timeout(Duration::ZERO, store.ping()).await }));
    }
}

#[tokio::test]
async fn instances_whose_clocks_disagree_agree_on_ages() {
    let Some(server) = RedisServer::start() else { return };
    let start = SystemClock::default();
    let start = Arc::new(start);
    let off_by = |seconds: i64| {
        let start = start.clone();
        move || {
            let now = start.now();
            let by = Duration::from_secs(seconds.unsigned_abs());
            Moment { wall: if seconds < 0 { now.wall - by } else { now.wall + by }, ..now }
        }
    };
    let clocks = [off_by(-300), off_by(300)];
    let stores = clocks.clone().map(|clock| store(&server).clock(clock));
    for (writer, path) in [(0, "/a"), (1, "/b")] {
        let made =
            make(clocks[writer].clone(), path, &[], &[("date", ""), ("cache-control", "max-age=600")], "x").await;
        put(&stores[writer], &made).await;
        for (reader, clock) in clocks.iter().enumerate() {
            let found = get_at(&stores[reader], &made, clock()).await;
            assert_eq!(found.len(), 1, "{writer} and {reader}: it isn't taken for one from the future");
        }
    }
}

#[tokio::test]
async fn errors_say_what_to_do() {
    let Some(server) = Setup::default().password("secret").start() else { return };
    let url = |user: &str| format!("redis://{user}{}", server.address());
    let said = async |url: &str| {
        let store = RedisStore::in_namespace(url, "shop").expect("a URL");
        store.ping().await.expect_err("an error").to_string()
    };
    let wrong = said(&url(":hunter2@")).await;
    assert!(wrong.contains("password are wrong") && !wrong.contains("hunter2"), "{wrong}");
    assert!(said(&url("")).await.contains("wants a password"));
    server.command(&["ACL", "SETUSER", "shop", "on", ">pw", "~larder:*", "+get"]);
    assert!(said(&url("shop:pw@")).await.contains("ACL rule"), "{}", said(&url("shop:pw@")).await);
    let Some(replica) = Setup::default().replica_of(&server).set("masterauth", "secret").start() else { return };
    replica.wait_until_synced();
    assert!(said(&replica.url()).await.contains("address of the primary"));
    let web = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = web.local_addr().expect("an address");
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = web.accept().await.expect("a connection");
            drop(tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await);
        }
    });
    said(&format!("redis://{address}")).await;
}

#[tokio::test]
async fn full_memory_is_told_and_still_frees() {
    let setup = Setup::default().set("maxmemory", "4mb").set("maxmemory-policy", "noeviction");
    let Some(server) = setup.start() else { return };
    let store = store(&server);
    let made = make(SystemClock::default(), "/page", &[], &[], vec![0; 100_000]).await;
    let mut said = None;
    for n in 0..100 {
        let key = CacheKey::new(b"h", &format!("/{n}"), None);
        if let Err(error) = store.put(&key, made.response.clone(), 1).await {
            said = Some(error.to_string());
            break;
        }
    }
    assert!(said.as_ref().is_some_and(|said| said.contains("maxmemory-policy")), "{said:?}");
    assert_eq!(store.remove(&CacheKey::new(b"h", "/0", None)).await.ok(), Some(true));
    store.clear().await.expect("cleared");
    put(&store, &made).await;
}

/// The commands that `docs/redis.md` gives to the user.
fn documented_rights() -> Vec<String> {
    let chapter = include_str!("../docs/redis.md");
    let (_, rule) = chapter.split_once("ACL SETUSER shop on >secret ").expect("the rule");
    let rule = rule.split("```").next().unwrap_or_default();
    rule.split_whitespace().map(str::to_owned).collect()
}

/// Does all that a store does.
async fn do_all(store: &RedisStore) -> Result<(), larder::StorageError> {
    let (plain, german, english) = (page("/plain", "plain").await, variant("de", "").await, variant("en", "").await);
    let log = store.purge_log().expect("a log");
    store.ping().await?;
    for made in [&plain, &german, &english] {
        store.put(&made.key, made.response.clone(), 2).await?;
        let found = store.get(Query::new(&made.key, &made.asked, SystemClock::default().now())).await?;
        assert_eq!(found.len(), 1);
    }
    store.get(Query::new(&english.key, &english.asked, SystemClock::default().now())).await?;
    let now = SystemClock::default().now();
    store.swap(Swap::new(&plain.key, Expected::This(&plain.response), plain.response.clone(), now)).await?;
    store.remove(&english.key).await?;
    if let Lease::Granted(token) = store.lease(&plain.key, TERM).await? {
        store.release(&plain.key, token, Released::Failed).await?;
    }
    store.erase(&[0; 16]).await?;
    store.clear().await?;
    let known = log.snapshot().await?.current;
    let purge = |soft| support::purges::glob("/page", soft);
    for soft in [None, Some(5), Some(3)] {
        log.append(&purge(soft), known).await?;
    }
    log.follow(known, Duration::from_millis(1)).await?;
    log.follow(known + 3, Duration::from_millis(1)).await?;
    log.snapshot().await.map(drop)
}

#[tokio::test]
async fn a_user_needs_the_documented_rights_and_each_of_them() {
    let Some(server) = RedisServer::start() else { return };
    let rights = documented_rights();
    let store = |user: usize, rights: &[String]| {
        let name = format!("shop{user}");
        let mut words =
            vec!["ACL".to_owned(), "SETUSER".to_owned(), name.clone(), "on".to_owned(), ">secret".to_owned()];
        words.extend_from_slice(rights);
        assert_eq!(server.command(&words), Reply::Status("OK".into()));
        let url = format!("redis://{name}:secret@{}", server.address());
        RedisStore::in_namespace(&url, "shop").expect("a URL")
    };
    do_all(&store(0, &rights)).await.expect("all is allowed");
    assert_eq!(server.command(&["ACL", "LOG"]), Reply::List(Vec::new()), "nothing was refused");
    for (n, right) in rights.iter().enumerate() {
        let without: Vec<String> = rights.iter().filter(|other| *other != right).cloned().collect();
        server.command(&["SCRIPT", "FLUSH"]);
        let done = do_all(&store(n + 1, &without)).await;
        let is_refused = !matches!(server.command(&["ACL", "LOG"]), Reply::List(refused) if refused.is_empty());
        server.command(&["ACL", "LOG", "RESET"]);
        assert!(is_refused, "{right} isn't needed");
        assert!(done.is_err() || right.contains("client"), "without {right}");
    }
}

#[cfg(feature = "redis-tls")]
#[tokio::test]
async fn over_tls_both_ends_are_who_they_say() {
    let files = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tls");
    let read = |name: &str| std::fs::read(format!("{files}/{name}")).expect("a file");
    let port = support::ports::free_port();
    let setup = ["ca-cert-file authority.pem", "cert-file server.pem", "key-file server.key"].iter().fold(
        Setup::default().set("tls-port", &port.to_string()),
        |setup, setting| {
            let (name, file) = setting.split_once(' ').expect("two words");
            setup.set(&format!("tls-{name}"), &format!("{files}/{file}"))
        },
    );
    let Some(_server) = setup.start() else { return };
    let store = |host: &str| RedisStore::in_namespace(&format!("rediss://{host}:{port}"), "shop").expect("a URL");
    let trusting = |host: &str| store(host).certificate_authorities(&read("authority.pem")).expect("certificates");
    let known =
        |host: &str| trusting(host).client_certificate(&read("client.pem"), &read("client.key")).expect("a key");
    let made = page("/page", "content").await;
    for host in ["127.0.0.1", "localhost"] {
        put(&known(host), &made).await;
        assert_eq!(bodies(&get(&known(host), &made).await), ["content"]);
    }
    assert!(store("127.0.0.1").ping().await.is_err(), "the system doesn't trust it");
    assert!(trusting("127.0.0.1").ping().await.is_err(), "the server wants a certificate");
    assert!(store("127.0.0.1").certificate_authorities(b"no certificate").is_err());
    assert!(store("127.0.0.1").client_certificate(b"no", b"key").is_err());
}

#[tokio::test]
async fn it_keeps_the_contract_of_stores() {
    let Some(server) = RedisServer::start() else { return };
    let next = std::sync::atomic::AtomicUsize::new(0);
    let fresh = || {
        let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        RedisStore::in_namespace(&server.url(), &format!("shop{number}")).expect("a URL")
    };
    contract::check(fresh).await.unwrap();
}
