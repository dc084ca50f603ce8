//! What several change at the same time is changed by one after another, none twice; and who can't be told whether it was done hears that.

mod support;

use std::sync::Arc;
use std::time::Duration;

use larder::storage::testing::{Fault, Faulty, Operation};
use larder::storage::{Expected, Guard, Guarded, MemoryStore, Query, Storage, Swap, Swapped};
use larder::{Clock, StorageError, SystemClock};
use support::shelf::{Made, make};

async fn entry(content: &str) -> Made {
    make(SystemClock::default(), "/entry", &[], &[], content.to_owned()).await
}

/// What is there.
async fn there(store: &impl Storage, made: &Made) -> Option<String> {
    let found = store.get(Query::new(&made.key, &made.asked, SystemClock::default().now())).await.expect("an answer");
    found.first().map(|found| String::from_utf8_lossy(found.body()).into_owned())
}

async fn asked(store: &impl Storage, expected: Expected<'_>, new: &Made) -> Result<Swapped, StorageError> {
    store.swap(Swap::new(&new.key, expected, new.response.clone(), SystemClock::default().now())).await
}

async fn swap(store: &impl Storage, expected: Expected<'_>, new: &Made) -> Result<bool, StorageError> {
    Ok(matches!(asked(store, expected, new).await?, Swapped::Done))
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_a_swap_or_is_given_up_hears_whether_it_may_be_done() {
    // (what goes wrong, whether it may be done, whether nobody is asked any more)
    let rows = [
        (Fault::Fail, true, false),
        (Fault::Panic, true, false),
        (Fault::Hang, true, false),
        (Fault::Late(Duration::from_secs(3)), true, false),
        (Fault::Unreachable, false, true),
    ];
    let new = entry("new").await;
    for (fault, may_be_done, is_open) in rows {
        let store = Faulty::new(MemoryStore::new(1 << 20));
        let guarded = Guarded::new(store.clone(), Guard::default());
        store.set(Operation::Swap, fault);
        let error = swap(&guarded, Expected::Nothing, &new).await.expect_err("a fault");
        assert_eq!(error.may_be_done(), may_be_done, "{fault:?}: {error}");
        assert_eq!(guarded.stats().is_open, is_open, "{fault:?}");
        store.mend();
        let then = swap(&guarded, Expected::Nothing, &new).await;
        assert_eq!(then.as_ref().is_err_and(|error| !error.may_be_done()), is_open, "{fault:?}: {then:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn when_others_find_that_the_store_is_gone_a_swap_on_its_way_may_be_done() {
    let (new, store) = (entry("new").await, Faulty::new(MemoryStore::new(1 << 20)));
    let guarded = Arc::new(Guarded::new(store.clone(), Guard::default()));
    store.set(Operation::Swap, Fault::Hang);
    let swapping = {
        let (guarded, new) = (guarded.clone(), new.clone());
        tokio::spawn(async move { swap(&*guarded, Expected::Nothing, &new).await.expect_err("nobody waits") })
    };
    tokio::task::yield_now().await;
    store.set(Operation::Ping, Fault::Unreachable);
    guarded.ping().await.expect_err("nobody is there");
    let error = swapping.await.expect("no panic");
    assert!(error.is_spared() && error.may_be_done(), "{error}");
    let error = swap(&*guarded, Expected::Nothing, &new).await.expect_err("it isn't asked");
    assert!(error.is_spared() && !error.may_be_done(), "{error}");
}

#[tokio::test]
async fn a_swap_has_a_place_among_the_writes() {
    let (new, store) = (entry("new").await, Faulty::new(MemoryStore::new(1 << 20)));
    let guarded = Guarded::new(store.clone(), Guard::default().max_writes(0));
    let error = swap(&guarded, Expected::Nothing, &new).await.expect_err("there is no place");
    assert!(error.is_spared() && !error.may_be_done(), "{error}");
    assert_eq!((store.calls(Operation::Swap), guarded.stats().dropped_writes), (0, 1));
}

#[test]
fn an_error_says_whether_something_may_be_done() {
    let io = || std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    let rows = [
        (StorageError::new("no"), true),
        (StorageError::with_source("no", io()), true),
        (StorageError::refused("no"), false),
        (StorageError::unreachable("no"), false),
        (StorageError::unsupported("no"), false),
    ];
    for (error, expected) in rows {
        assert_eq!(error.may_be_done(), expected, "{error:?}");
    }
}

#[tokio::test]
async fn a_swap_counts_for_the_bound_of_the_memory_store() {
    let store = MemoryStore::new(100_000);
    for number in 0..20 {
        let path = format!("/{number}");
        let large = make(SystemClock::default(), &path, &[], &[], vec![0; 20_000]).await;
        assert!(swap(&store, Expected::Nothing, &large).await.expect("no error"));
    }
    let usage = store.usage();
    assert!(usage.bytes <= 100_000 && usage.evictions > 0, "{usage:?}");
}

#[cfg(feature = "redis")]
mod over_redis {
    use larder::storage::RedisStore;

    use super::support::fault_proxy::{Fault, FaultProxy};
    use super::support::redis::{RedisServer, Reply, Setup, wait_until};
    use super::*;

    fn store(server: &RedisServer) -> RedisStore {
        RedisStore::in_namespace(&server.url(), "shop").expect("a URL")
    }

    fn only_key(server: &RedisServer) -> String {
        let Reply::List(keys) = server.command(&["KEYS", "larder:shop:r:*"]) else { panic!("a list of keys") };
        assert_eq!(keys.len(), 1, "{keys:?}");
        keys[0].text()
    }

    /// How often a command ran on the server.
    fn calls(server: &RedisServer, command: &str) -> u64 {
        let stats = server.command(&["INFO", "commandstats"]).text();
        let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
        line.map_or(0, |line| line.split(',').next().unwrap_or_default().parse().expect("a number"))
    }

    /// Waits on the test's own thread, on which the store's tasks run as well.
    async fn until(is_so: impl Fn() -> bool) {
        let waiting = async {
            while !is_so() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("it comes to that");
    }

    #[tokio::test]
    async fn a_swap_is_one_round_trip() {
        let Some(server) = RedisServer::start() else { return };
        let (store, mut last) = (store(&server), entry("0").await);
        assert!(swap(&store, Expected::Nothing, &last).await.expect("no error"));
        let trips = || calls(&server, "evalsha") + calls(&server, "eval") + calls(&server, "get");
        let before = trips();
        for number in 1..=10 {
            let next = entry(&number.to_string()).await;
            assert!(swap(&store, Expected::This(&last.response), &next).await.expect("no error"));
            last = next;
        }
        // The script's own `GET` is counted as well.
        assert_eq!(trips() - before, 2 * 10);
        assert_eq!(there(&store, &last).await.as_deref(), Some("10"));
    }

    /// A connection that breaks behind a swap takes its answer along.
    #[tokio::test]
    async fn a_swap_whose_answer_is_lost_is_done_once() {
        let Some(server) = RedisServer::start() else { return };
        let (old, new, newer) = (entry("old").await, entry("new").await, entry("newer").await);
        for somebody_comes_between in [false, true] {
            let proxy = FaultProxy::before(server.address());
            let far = RedisStore::new(&format!("redis://{}/?ns=shop", proxy.address())).expect("a URL");
            let direct = store(&server);
            direct.clear().await.expect("cleared");
            assert!(swap(&far, Expected::Nothing, &old).await.expect("no error"));
            proxy.set(Fault::Latency(Duration::from_secs(20)));
            let swapping = {
                let (far, old, new) = (far.clone(), old.clone(), new.clone());
                tokio::spawn(async move { swap(&far, Expected::This(&old.response), &new).await })
            };
            let place = only_key(&server);
            let is_done = || {
                let Reply::Bytes(Some(record)) = server.command(&["GET", &place]) else { return false };
                record.windows(3).any(|part| part == b"new")
            };
            until(is_done).await;
            if somebody_comes_between {
                assert!(swap(&direct, Expected::This(&new.response), &newer).await.expect("no error"));
            }
            let connections = proxy.accepted();
            proxy.cut();
            until(|| proxy.accepted() > connections).await;
            proxy.set(Fault::Pass);
            let swapped = swapping.await.expect("no panic");
            let found = there(&direct, &new).await;
            if somebody_comes_between {
                assert!(swapped.as_ref().is_err_and(StorageError::may_be_done), "{swapped:?}");
                assert_eq!(found.as_deref(), Some("newer"));
            } else {
                assert!(swapped.expect("it finds that it was done"));
                assert_eq!(found.as_deref(), Some("new"));
            }
        }
    }

    #[tokio::test]
    async fn what_the_server_refuses_is_not_done() {
        let Some(server) = Setup::default().set("maxmemory-policy", "noeviction").start() else { return };
        let (store, new) = (store(&server), entry("new").await);
        assert!(swap(&store, Expected::Nothing, &new).await.expect("no error"));
        let place = only_key(&server);
        server.command(&["DEL", &place]);
        server.command(&["RPUSH", &place, "of another application"]);
        let error = swap(&store, Expected::Nothing, &new).await.expect_err("a list is there");
        assert!(!error.may_be_done() && error.to_string().contains("another namespace"), "{error}");
        server.command(&["DEL", &place]);
        server.command(&["CONFIG", "SET", "maxmemory", "1"]);
        let error = swap(&store, Expected::Nothing, &new).await.expect_err("memory is full");
        assert!(!error.may_be_done() && error.to_string().contains("maxmemory-policy"), "{error}");
        server.command(&["CONFIG", "SET", "maxmemory", "0"]);
        assert!(swap(&store, Expected::Nothing, &new).await.expect("no error"));
    }

    #[tokio::test]
    async fn what_nobody_can_read_is_nothing_and_what_others_can_is_left_to_them() {
        let Some(server) = RedisServer::start() else { return };
        let (shop, old, new) = (store(&server), entry("old").await, entry("new").await);
        assert!(swap(&shop, Expected::Nothing, &old).await.expect("no error"));
        let place = only_key(&server);
        let Reply::Bytes(Some(record)) = server.command(&["GET", &place]) else { panic!("a record") };
        let changed = |at: usize, to: u8| {
            let mut record = record.clone();
            record[at] = to;
            record
        };
        let end = record.len();
        // (what is there, whether it is in the way)
        let rows: [(Vec<u8>, bool); 8] = [
            (Vec::new(), false),
            (b"?".to_vec(), false),
            (record[..end / 2].to_vec(), false),
            (changed(end - 1, !record[end - 1]), false),
            (changed(0, b'?'), false),
            (changed(4, 9), true),
            (changed(5, 9), true),
            (b"LRDM of variants".to_vec(), true),
        ];
        for (row, (found, is_in_the_way)) in rows.into_iter().enumerate() {
            server.command(&[b"SET".as_slice(), place.as_bytes(), &found]);
            let swapped = swap(&shop, Expected::Nothing, &new).await;
            if is_in_the_way {
                assert!(swapped.as_ref().is_err_and(|error| !error.may_be_done()), "row {row}: {swapped:?}");
                assert_eq!(server.command(&["GET", &place]), Reply::Bytes(Some(found)), "row {row}");
            } else {
                assert!(swapped.expect("no error"), "row {row}");
                assert_eq!(there(&shop, &new).await.as_deref(), Some("new"), "row {row}");
            }
            let swapped = asked(&shop, Expected::This(&old.response), &new).await;
            assert!(!matches!(swapped, Ok(Swapped::Done)), "row {row}: what was expected isn't there");
        }
        // Under another seal it is others' as well.
        server.command(&[b"SET".as_slice(), place.as_bytes(), &record]);
        let sealed = store(&server).mac([7; 32]);
        let swapped = swap(&sealed, Expected::Nothing, &new).await;
        assert!(swapped.as_ref().is_err_and(|error| !error.may_be_done()), "{swapped:?}");
    }

    #[tokio::test]
    async fn instances_whose_clocks_disagree_expect_the_same() {
        let Some(server) = RedisServer::start() else { return };
        let system = Arc::new(SystemClock::default());
        let ahead = move || {
            let now = system.now();
            larder::Moment { wall: now.wall + Duration::from_secs(300), ..now }
        };
        let (here, there_) = (store(&server), store(&server).clock(ahead.clone()));
        let mut last = entry("0").await;
        assert!(swap(&here, Expected::Nothing, &last).await.expect("no error"));
        for number in 1..6 {
            let store = if number % 2 == 0 { &here } else { &there_ };
            let now = if number % 2 == 0 { SystemClock::default().now() } else { ahead() };
            let asked = Swap::new(&last.key, Expected::Nothing, last.response.clone(), now);
            let Ok(Swapped::Not(Some(found))) = store.swap(asked).await else { panic!("it is told what is there") };
            let next = match number % 2 {
                0 => entry(&number.to_string()).await,
                _ => make(ahead.clone(), "/entry", &[], &[], number.to_string()).await,
            };
            assert!(swap(store, Expected::This(&found), &next).await.expect("no error"), "{number}");
            last = next;
        }
        assert_eq!(there(&here, &last).await.as_deref(), Some("5"));
        wait_until("nothing else is there", || server.command(&["KEYS", "larder:shop:r:*"]) != Reply::List(Vec::new()));
    }
}
