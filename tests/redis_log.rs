//! The purge log over Redis: purges are numbered without a gap, every instance hears of each, and where that can't be proved everything older counts as purged.
#![cfg(feature = "redis")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use larder::PurgeMessage;
use larder::record::ClockShift;
use larder::storage::{PurgeLog, PurgeNews, PurgeSnapshot, RedisStore, Storage};
use larder::{Clock, Moment, SystemClock};
use support::purges::{self, everything};
use support::redis::{RedisServer, Reply, Setup};

const AT_ONCE: Duration = Duration::from_millis(1);

fn log(server: &RedisServer) -> Arc<dyn PurgeLog> {
    log_of(&RedisStore::in_namespace(&server.url(), "shop").expect("a URL"))
}

fn log_of(store: &RedisStore) -> Arc<dyn PurgeLog> {
    store.purge_log().expect("a log")
}

fn glob(pattern: &str) -> PurgeMessage {
    purges::glob(pattern, None)
}

fn soft_glob(pattern: &str, seconds: u64) -> PurgeMessage {
    purges::glob(pattern, Some(seconds))
}

/// When a soft purge makes stale, in whole seconds by the log's clock; zero for a hard one.
fn softened(purge: &PurgeMessage) -> u64 {
    let bytes = purge.to_bytes(ClockShift::NONE);
    let nanoseconds = u64::from_be_bytes(bytes[PurgeMessage::SOFT].try_into().expect("eight bytes"));
    (nanoseconds + 500_000_000) / 1_000_000_000
}

fn told(news: PurgeNews) -> Vec<(u64, PurgeMessage)> {
    match news {
        PurgeNews::Since { purges, .. } => purges,
        other => panic!("{other:?}"),
    }
}

async fn append(log: &Arc<dyn PurgeLog>, purge: &PurgeMessage, known: u64) -> PurgeNews {
    log.append(purge, known).await.expect("appended")
}

async fn follow(log: &Arc<dyn PurgeLog>, known: u64) -> PurgeNews {
    log.follow(known, AT_ONCE).await.expect("an answer")
}

async fn snapshot(log: &Arc<dyn PurgeLog>) -> PurgeSnapshot {
    log.snapshot().await.expect("a snapshot")
}

fn sorted(snapshot: &PurgeSnapshot) -> Vec<(u64, PurgeMessage)> {
    let mut purges = snapshot.purges.clone();
    purges.sort_by_key(|(number, _)| *number);
    purges
}

#[tokio::test]
async fn purges_are_numbered_without_a_gap_and_heard_by_everybody() {
    let Some(server) = RedisServer::start() else { return };
    let (one, other) = (log(&server), log(&server));
    let start = snapshot(&one).await;
    assert_eq!((start.floor, start.purges.len()), (start.current, 0));
    assert!(start.current >> 32 > 1_700_000_000, "epochs begin with the time");
    let number = |n: u64| start.current + n;
    assert_eq!(told(append(&one, &glob("/1"), start.current).await), [(number(1), glob("/1"))]);
    assert_eq!(told(append(&one, &glob("/2"), number(1)).await), [(number(2), glob("/2"))]);
    let all = [(number(1), glob("/1")), (number(2), glob("/2")), (number(3), everything())];
    assert_eq!(told(append(&other, &everything(), start.current).await), all, "with what came meanwhile");
    assert_eq!(told(follow(&one, number(2)).await), all[2..]);
    assert_eq!(told(follow(&one, start.current).await), all);
    assert_eq!(told(follow(&one, number(3)).await), []);
    assert_eq!(append(&other, &glob("/4"), 0).await, PurgeNews::Gap, "a newcomer loads the snapshot");
    assert_eq!(follow(&other, 0).await, PurgeNews::Gap);
}

#[tokio::test]
async fn who_follows_hears_at_once_or_that_there_was_nothing() {
    let Some(server) = RedisServer::start() else { return };
    let (one, other) = (log(&server), log(&server));
    let start = snapshot(&one).await.current;
    let began = std::time::Instant::now();
    assert_eq!(told(one.follow(start, Duration::from_millis(200)).await.expect("an answer")), []);
    assert!(began.elapsed() >= Duration::from_millis(200));
    let following = one.follow(start, Duration::from_secs(30));
    let purging = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        append(&other, &glob("/1"), start).await
    };
    let (heard, _) = tokio::join!(following, purging);
    assert_eq!(told(heard.expect("an answer")), [(start + 1, glob("/1"))]);
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn instances_that_purge_at_the_same_time_are_heard_in_one_order() {
    let Some(server) = RedisServer::start() else { return };
    let start = snapshot(&log(&server)).await.current;
    let purging = (0..4).map(|instance| {
        let log = log(&server);
        async move {
            let mut known = start;
            for n in 0..50 {
                let mine = glob(&format!("/{instance}/{n}"));
                let heard = told(append(&log, &mine, known).await);
                assert_eq!(heard.last().map(|(_, purge)| purge), Some(&mine));
                known = heard.last().expect("at least one's own").0;
            }
        }
    });
    let following = async {
        let (log, mut heard) = (log(&server), Vec::new());
        while heard.len() < 200 {
            let known = start + heard.len() as u64;
            heard.extend(told(log.follow(known, Duration::from_secs(5)).await.expect("an answer")));
        }
        heard
    };
    let (heard, _) = tokio::join!(following, futures_util::future::join_all(purging));
    let numbers: Vec<u64> = heard.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (start + 1..=start + 200).collect::<Vec<_>>());
    assert_eq!(snapshot(&log(&server)).await.purges.len(), 200);
}

#[tokio::test]
async fn a_snapshot_has_the_newest_of_each_thing() {
    let Some(server) = RedisServer::start() else { return };
    let log = log(&server);
    let start = snapshot(&log).await.current;
    let all = [
        glob("/hard"),
        glob("/hard"),
        soft_glob("/soft", 500),
        soft_glob("/soft", 300),
        soft_glob("/soft", 400),
        soft_glob("/both", 100),
        glob("/both"),
        glob("/then-soft"),
        soft_glob("/then-soft", 700),
    ];
    for purge in &all {
        append(&log, purge, 0).await;
    }
    let found = snapshot(&log).await;
    assert_eq!((found.current, found.floor), (start + 9, start));
    let found: Vec<_> = sorted(&found)
        .into_iter()
        .map(|(number, purge)| (number - start, purge.parts()[0].0.clone(), softened(&purge)))
        .collect();
    let expected =
        [(2, "hg/hard", 0), (5, "sg/soft", 300), (7, "hg/both", 0), (8, "hg/then-soft", 0), (9, "sg/then-soft", 700)];
    assert_eq!(found, expected.map(|(number, name, soft)| (number, name.as_bytes().to_vec(), soft)));
    append(&log, &everything(), 0).await;
    let found = snapshot(&log).await;
    assert_eq!(
        (found.current, found.floor, found.purges.len()),
        (start + 10, start + 10, 0),
        "everything is the floor"
    );
}

#[tokio::test]
async fn soft_purges_are_told_by_the_clock_of_the_server() {
    let Some(server) = RedisServer::start() else { return };
    let start = Arc::new(SystemClock::default());
    let log = |ahead: u64| {
        let start = start.clone();
        let clock = move || {
            let now = start.now();
            Moment { wall: now.wall + Duration::from_secs(ahead), ..now }
        };
        log_of(&RedisStore::in_namespace(&server.url(), "shop").expect("a URL").clock(clock))
    };
    let (one, other) = (log(0), log(300));
    let known = snapshot(&one).await.current;
    append(&one, &soft_glob("/a", 1_800_000_000), known).await;
    assert_eq!(
        told(follow(&other, known).await).iter().map(|(_, purge)| softened(purge)).collect::<Vec<_>>(),
        [1_800_000_300]
    );
    assert_eq!(
        snapshot(&other).await.purges.iter().map(|(_, purge)| softened(purge)).collect::<Vec<_>>(),
        [1_800_000_300]
    );
}

/// Does something to a server whose log two instances know, of which one follows; both have to find a new epoch.
async fn begins_anew(server: &mut RedisServer, what: &str, harm: impl FnOnce(&mut RedisServer)) {
    let (one, other) = (log(server), log(server));
    let known = snapshot(&one).await.current;
    let news = append(&one, &glob("/1"), known).await;
    let known = told(news)[0].0;
    assert_eq!(told(follow(&other, known).await), []);
    harm(server);
    assert_eq!(follow(&other, known).await, PurgeNews::Gap, "{what}");
    let (found, again) = (snapshot(&other).await, snapshot(&one).await);
    assert!(found.floor > known, "{what}: {found:?} after {known}");
    assert_eq!((found.current, found.purges.len()), (found.floor, 0), "{what}");
    assert_eq!(found, again, "{what}: it is one epoch for all");
    assert_eq!(append(&one, &glob("/2"), known).await, PurgeNews::Gap, "{what}");
    assert_eq!(told(follow(&other, found.current).await), [(found.current + 1, glob("/2"))], "{what}");
}

#[tokio::test]
async fn where_history_may_be_lost_a_new_epoch_begins() {
    let Some(mut server) = Setup::default().durable().start() else { return };
    let head = |server: &RedisServer| server.command(&["HGET", "larder:{shop}:purges", "head"]).text();
    begins_anew(&mut server, "everything was flushed", |server| drop(server.command(&["FLUSHALL"]))).await;
    begins_anew(&mut server, "the head was evicted", |server| drop(server.command(&["DEL", "larder:{shop}:purges"])))
        .await;
    begins_anew(&mut server, "it was started again with all that it had", RedisServer::restart).await;
    begins_anew(&mut server, "the head is none", |server| {
        server.command(&["HSET", "larder:{shop}:purges", "head", "3 what"]);
    })
    .await;
    begins_anew(&mut server, "the head is of another server", |server| {
        let other = head(server)
            .split(' ')
            .enumerate()
            .map(|(n, word)| if n == 4 { "ab12" } else { word }.to_owned())
            .collect::<Vec<_>>();
        server.command(&["HSET", "larder:{shop}:purges", "head", &other.join(" ")]);
    })
    .await;
    begins_anew(&mut server, "the head went back", |server| {
        let back = head(server)
            .split(' ')
            .enumerate()
            .map(|(n, word)| if n == 3 { "0" } else { word }.to_owned())
            .collect::<Vec<_>>();
        server.command(&["HSET", "larder:{shop}:purges", "head", &back.join(" ")]);
    })
    .await;
}

/// Each of the two finds a log that was lost, and has not heard what the other one made of it before it was lost again.
#[tokio::test]
async fn an_epoch_is_later_than_those_that_its_founder_never_heard_of() {
    let Some(server) = RedisServer::start() else { return };
    let (one, other) = (log(&server), log(&server));
    assert_eq!(snapshot(&one).await.current, snapshot(&other).await.current);
    for founder in [&one, &other, &one, &other] {
        server.command(&["FLUSHALL"]);
        let begun = snapshot(founder).await;
        let mut known = begun.current;
        for purge in ["/1", "/2", "/3"] {
            known = told(append(founder, &glob(purge), known).await)[0].0;
        }
        server.command(&["FLUSHALL"]);
        let heir = if std::ptr::eq(founder, &one) { &other } else { &one };
        let found = snapshot(heir).await;
        assert!(found.floor > known, "{found:?}, where {known} was given out before");
        // Who knows the lost ones loses the thread, and doesn't take those of the same place for what it knows.
        for purge in ["/4", "/5", "/6", "/7"] {
            append(heir, &glob(purge), found.current).await;
        }
        assert_eq!(follow(founder, known).await, PurgeNews::Gap);
    }
}

/// Two who know the same begin behind what they know, and yet not at the same place. Its time lies an hour ahead, as if the clock had been set back since.
#[tokio::test]
async fn an_epoch_is_later_than_what_is_known_where_the_clock_is_behind() {
    let Some(server) = RedisServer::start() else { return };
    let (one, other) = (log(&server), log(&server));
    snapshot(&one).await;
    let head = server.command(&["HGET", "larder:{shop}:purges", "head"]).text();
    let mut words: Vec<String> = head.split(' ').map(str::to_owned).collect();
    words[1] = (words[1].parse::<u64>().expect("seconds") + 3600).to_string();
    server.command(&["HSET", "larder:{shop}:purges", "head", &words.join(" ")]);
    let ahead = snapshot(&one).await.current;
    assert_eq!(snapshot(&other).await.current, ahead);
    server.command(&["FLUSHALL"]);
    let known = snapshot(&one).await.current;
    let lost = told(append(&one, &glob("/1"), known).await)[0].0;
    server.command(&["FLUSHALL"]);
    let found = snapshot(&other).await.current;
    assert!(known > ahead && found > ahead && known.abs_diff(found) > 1_000_000, "{ahead}, {known}, {found}");
    for purge in ["/2", "/3"] {
        append(&other, &glob(purge), found).await;
    }
    assert_eq!(follow(&one, lost).await, PurgeNews::Gap);
}

#[tokio::test]
async fn a_replica_that_lost_the_last_purges_begins_anew() {
    let Some(primary) = RedisServer::start() else { return };
    let Some(replica) = Setup::default().replica_of(&primary).start() else { return };
    let on_primary = log(&primary);
    let known = snapshot(&on_primary).await.current;
    append(&on_primary, &glob("/1"), known).await;
    replica.wait_until_synced();
    let said = log(&replica).snapshot().await.expect_err("a replica").to_string();
    assert!(said.contains("address of the primary"), "{said}");
    replica.promote();
    let found = snapshot(&log(&replica)).await;
    assert!(found.floor > known + 1, "{found:?}");
}

#[tokio::test]
async fn a_primary_that_became_a_replica_is_followed_no_more() {
    let (Some(primary), Some(other)) = (RedisServer::start(), RedisServer::start()) else { return };
    let log = log(&primary);
    let known = snapshot(&log).await.current;
    assert_eq!(told(follow(&log, known).await), []);
    primary.command(&["REPLICAOF", "127.0.0.1", &other.port().to_string()]);
    assert!(log.follow(known, AT_ONCE).await.is_err());
    assert!(log.append(&glob("/1"), known).await.is_err());
}

#[tokio::test]
async fn what_the_stream_has_lost_is_a_gap() {
    let Some(server) = RedisServer::start() else { return };
    let log = log(&server);
    let start = snapshot(&log).await.current;
    for n in 0..3 {
        append(&log, &glob(&format!("/{n}")), 0).await;
    }
    server.command(&["XTRIM", "larder:{shop}:log", "MAXLEN", "1"]);
    assert_eq!(follow(&log, start).await, PurgeNews::Gap);
    assert_eq!(told(follow(&log, start + 2).await).len(), 1);
    server.command(&["DEL", "larder:{shop}:log"]);
    assert_eq!(follow(&log, start + 2).await, PurgeNews::Gap);
    assert_eq!(append(&log, &glob("/4"), start + 2).await, PurgeNews::Gap);
    assert_eq!(told(append(&log, &glob("/5"), start + 4).await), [(start + 5, glob("/5"))]);
    assert_eq!(snapshot(&log).await.purges.len(), 5, "the snapshot has all");
}

#[tokio::test]
async fn what_somebody_else_writes_into_the_log_counts_as_everything_or_as_nothing_known() {
    let Some(server) = RedisServer::start() else { return };
    let log = log(&server);
    let start = snapshot(&log).await.current;
    let (high, low) = (start >> 32, start & u64::from(u32::MAX));
    server.command(&["XADD", "larder:{shop}:log", &format!("{high}-{}", low + 1), "m", "junk"]);
    assert_eq!(append(&log, &glob("/1"), start).await, PurgeNews::Gap, "there is another one of this number");
    let begun = start;
    let start = snapshot(&log).await;
    assert!(start.floor > begun && start.current == start.floor + 1, "a new epoch: {start:?}");
    server.command(&["HSET", "larder:{shop}:purges", "hgjunk", "junk"]);
    let found = snapshot(&log).await.purges;
    assert_eq!(found.len(), 2);
    assert!(found.contains(&(start.current, glob("/1"))) && found.contains(&(start.current, everything())));
    let of_a_newer_release = [&(start.current).to_be_bytes()[..], &[0; 8], b"\x02what"].concat();
    server.command(&[b"HSET".as_slice(), b"larder:{shop}:purges", b"hgjunk", &of_a_newer_release]);
    assert!(snapshot(&log).await.purges.contains(&(start.current, everything())));
    // Of times to come, and of times gone by.
    for number in [u64::MAX, start.current + 1, start.floor - 1] {
        let whole = glob("/x").to_bytes(ClockShift::NONE);
        let junk = [&number.to_be_bytes()[..], &[0; 8], &whole].concat();
        server.command(&[b"HSET".as_slice(), b"larder:{shop}:purges", b"hgjunk", &junk]);
        let found = snapshot(&log).await;
        assert!(found.purges.contains(&(start.current, everything())), "{number}: {found:?}");
    }
}

#[tokio::test]
async fn more_things_than_are_remembered_one_by_one_are_everything() {
    let Some(server) = RedisServer::start() else { return };
    let log = log(&server);
    let start = snapshot(&log).await.current;
    append(&log, &glob("/1"), 0).await;
    let fill = "for i = 1, 262144 do redis.call('HSET', KEYS[1], 'hg' .. i, 'x') end";
    server.command(&["EVAL", fill, "1", "larder:{shop}:purges"]);
    let news = append(&log, &glob("/2"), start + 1).await;
    assert_eq!(news, PurgeNews::Since { purges: vec![(start + 2, glob("/2"))], floor: start + 2 });
    let found = snapshot(&log).await;
    assert_eq!((found.current, found.floor, found.purges.len()), (start + 2, start + 2, 1));
}

#[tokio::test]
async fn what_no_record_is_older_than_is_forgotten_and_the_floor_says_so() {
    let Some(server) = RedisServer::start() else { return };
    let store = RedisStore::in_namespace(&server.url(), "shop").expect("a URL").longest(Duration::from_millis(400));
    let log = log_of(&store);
    let start = snapshot(&log).await.current;
    append(&log, &glob("/1"), 0).await;
    append(&log, &glob("/2"), 0).await;
    tokio::time::sleep(Duration::from_millis(450)).await;
    append(&log, &glob("/3"), 0).await;
    follow(&log, start + 3).await;
    let PurgeNews::Since { floor, .. } = follow(&log, start + 3).await else { panic!("a gap") };
    assert_eq!(floor, start + 2);
    let found = snapshot(&log).await;
    assert_eq!((found.floor, sorted(&found)), (start + 2, vec![(start + 3, glob("/3"))]));
    // An instance whose records live longer is heard by all.
    let patient = RedisStore::in_namespace(&server.url(), "shop").expect("a URL");
    patient.ping().await.expect("an answer");
    tokio::time::sleep(Duration::from_millis(600)).await;
    for _ in 0..3 {
        follow(&log, start + 3).await;
    }
    assert_eq!(snapshot(&log).await.purges.len(), 1);
}

#[tokio::test]
async fn purges_work_when_memory_is_full() {
    let setup = Setup::default().set("maxmemory", "3mb").set("maxmemory-policy", "noeviction");
    let Some(server) = setup.start() else { return };
    let log = log(&server);
    let start = snapshot(&log).await.current;
    let fill = "for i = 1, 100000 do if redis.pcall('SET', 'x' .. i, string.rep('x', 1000)).err then break end end";
    server.command(&["EVAL", fill, "0"]);
    assert!(matches!(server.command(&["SET", "x", &"x".repeat(100_000)]), Reply::Error(said) if said.contains("OOM")));
    assert_eq!(told(append(&log, &glob("/1"), start).await), [(start + 1, glob("/1"))]);
    assert_eq!(told(follow(&log, start).await).len(), 1);
    assert_eq!(snapshot(&log).await.purges.len(), 1);
}

#[tokio::test]
async fn who_follows_survives_what_happens_to_connections_and_scripts() {
    let Some(server) = RedisServer::start() else { return };
    let (one, other) = (log(&server), log(&server));
    let start = snapshot(&one).await.current;
    let harm = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        server.command(&["CLIENT", "KILL", "TYPE", "normal"]);
        server.command(&["SCRIPT", "FLUSH"]);
        append(&other, &glob("/1"), start).await
    };
    let (heard, _) = tokio::join!(one.follow(start, Duration::from_secs(10)), harm);
    assert_eq!(told(heard.expect("an answer")).len(), 1);
    // Who stops following is in nobody's way.
    assert!(
        tokio::time::timeout(Duration::from_millis(50), one.follow(start + 1, Duration::from_secs(30))).await.is_err()
    );
    let began = std::time::Instant::now();
    assert_eq!(told(follow(&one, start).await).len(), 1);
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_server_that_stands_still_is_noticed_by_who_follows() {
    let Some(server) = RedisServer::start() else { return };
    let log = log(&server);
    let start = snapshot(&log).await.current;
    assert_eq!(told(follow(&log, start).await), []);
    server.pause();
    let answer = tokio::time::timeout(Duration::from_secs(8), log.follow(start, Duration::from_millis(100))).await;
    server.resume();
    assert!(answer.expect("in time").is_err());
    assert_eq!(told(append(&log, &glob("/1"), start).await).len(), 1);
    assert_eq!(told(follow(&log, start).await).len(), 1);
}

#[tokio::test]
async fn two_namespaces_have_two_logs() {
    let Some(server) = RedisServer::start() else { return };
    let (one, other) = (log(&server), log_of(&RedisStore::in_namespace(&server.url(), "shop2").expect("a URL")));
    let (of_one, of_other) = (snapshot(&one).await, snapshot(&other).await);
    append(&one, &everything(), of_one.current).await;
    assert_eq!(told(follow(&other, of_other.current).await), []);
}
