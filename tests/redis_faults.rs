//! Whatever happens to Redis: no instance gives a wrong answer, none makes an error of its own, none lets anybody wait, and all is well again when Redis is. Real servers, real
//! failures, three instances under load, and content that says what it is.
#![cfg(feature = "redis")]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use larder::storage::{MemoryStore, RedisStore};
use larder::{CacheLayer, Clock, Moment, SystemClock};
use support::fault_proxy::{Fault, FaultProxy};
use support::fleet::{Fleet, Plan};
use support::redis::{RedisServer, Reply, Setup};

const MOMENT: Duration = Duration::from_millis(300);
const WHILE: Duration = Duration::from_secs(2);

fn store(address: SocketAddr) -> RedisStore {
    RedisStore::new(&format!("redis://{address}/?ns=faults")).expect("a URL")
}

/// Two of the three instances have a store of their own before Redis.
fn layer(number: usize, store: RedisStore) -> CacheLayer {
    if number == 2 { CacheLayer::with_storage(store) } else { CacheLayer::tiered(MemoryStore::new(32 << 20), store) }
}

fn fleet_on(address: SocketAddr) -> Fleet {
    Plan::default().start(|number| layer(number, store(address)))
}

/// A fleet in good health, on a server that has something to lose.
async fn healthy(server: &RedisServer) -> Fleet {
    let fleet = fleet_on(server.address());
    fleet.works().await;
    fleet
}

/// The same over a proxy.
async fn healthy_behind_a_proxy(server: &RedisServer) -> (Fleet, FaultProxy) {
    let proxy = FaultProxy::before(server.address());
    let fleet = fleet_on(proxy.address());
    fleet.works().await;
    (fleet, proxy)
}

async fn recovers(fleet: Fleet) {
    fleet.works().await;
    fleet.ends_well().await;
}

macro_rules! server {
    () => {
        server!(Setup::default())
    };
    ($setup:expr) => {
        match $setup.start() {
            Some(server) => server,
            None => return,
        }
    };
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn down_at_the_start() {
    let mut server = server!();
    server.kill();
    let fleet = fleet_on(server.address());
    fleet.goes_on(WHILE).await;
    server.revive();
    recovers(fleet).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_under_load() {
    let mut server = server!();
    let fleet = healthy(&server).await;
    for _ in 0..2 {
        server.kill();
        fleet.goes_on(MOMENT).await;
        server.revive();
        fleet.works().await;
    }
    recovers(fleet).await;
}

/// What was on disk is there again; whether something is missing, nobody can tell.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_with_its_data_on_disk() {
    let mut server = server!(Setup::default().durable());
    let fleet = healthy(&server).await;
    server.restart();
    recovers(fleet).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standing_still() {
    let server = server!();
    let fleet = healthy(&server).await;
    for pause in [MOMENT, WHILE] {
        server.pause();
        fleet.goes_on(pause).await;
        server.resume();
        fleet.works().await;
    }
    recovers(fleet).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_broken_off_and_flapping_networks() {
    let server = server!();
    let (fleet, proxy) = healthy_behind_a_proxy(&server).await;
    for fault in [
        Fault::Latency(Duration::from_secs(2)),
        Fault::Trickle(Duration::from_secs(1)),
        Fault::Blackhole,
        Fault::Partition,
        Fault::Refuse,
    ] {
        proxy.set(fault);
        fleet.goes_on(WHILE).await;
        proxy.set(Fault::Pass);
        fleet.works().await;
    }
    for _ in 0..10 {
        proxy.set(Fault::Refuse);
        fleet.goes_on(MOMENT / 2).await;
        proxy.set(Fault::Pass);
        fleet.goes_on(MOMENT).await;
    }
    recovers(fleet).await;
}

/// The others go on, and purge what the one that is cut off still has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_instance_is_cut_off() {
    let server = server!();
    let proxy = FaultProxy::before(server.address());
    let fleet = Plan { reads_only: Some(0), ..Plan::default() }
        .start(|number| layer(number, store(if number == 0 { proxy.address() } else { server.address() })));
    fleet.works().await;
    for fault in [Fault::Partition, Fault::Blackhole, Fault::Refuse] {
        proxy.set(fault);
        fleet.goes_on(WHILE).await;
        proxy.set(Fault::Pass);
        fleet.works().await;
    }
    recovers(fleet).await;
}

/// Either nothing more is stored, or what is stored goes, purges and all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_full() {
    for policy in ["noeviction", "allkeys-lru", "allkeys-random"] {
        let server = server!(Setup::default().set("maxmemory", "3mb").set("maxmemory-policy", policy));
        let plan = Plan { pages: 1500, padding: 4000, ..Plan::default() };
        let fleet = plan.start(|number| layer(number, store(server.address())));
        fleet.goes_on(3 * WHILE).await;
        server.command(&["CONFIG", "SET", "maxmemory", "0"]);
        recovers(fleet).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_takes_no_writes_and_is_promoted() {
    let primary = server!();
    let replica = server!(Setup::default().replica_of(&primary));
    replica.wait_until_synced();
    let fleet = fleet_on(replica.address());
    fleet.goes_on(WHILE).await;
    replica.promote();
    recovers(fleet).await;
}

/// The replica has stopped listening before the last purges, and takes over as if there had been none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_lost_the_last_writes_is_promoted() {
    let mut primary = server!();
    let replica = server!(Setup::default().replica_of(&primary));
    let (fleet, proxy) = healthy_behind_a_proxy(&primary).await;
    replica.wait_until_synced();
    replica.promote();
    fleet.goes_on(WHILE).await;
    proxy.move_to(replica.address());
    primary.kill();
    recovers(fleet).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_loads_its_data() {
    let mut server = server!(Setup::default().durable().set("key-load-delay", "20000"));
    let fleet = healthy(&server).await;
    server.kill();
    server.revive_at_once();
    fleet.goes_on(WHILE).await;
    recovers(fleet).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_password_is_wrong() {
    let server = server!(Setup::default().user("shop", "on >right ~* &* +@all"));
    let url = format!("redis://shop:wrong@{}/?ns=faults", server.address());
    let fleet = Plan::default().start(|number| layer(number, RedisStore::new(&url).expect("a URL")));
    fleet.goes_on(WHILE).await;
    server.command(&["ACL", "SETUSER", "shop", ">wrong"]);
    fleet.works().await;
    server.command(&["ACL", "SETUSER", "shop", "<wrong"]);
    server.command(&["CLIENT", "KILL", "TYPE", "normal"]);
    fleet.goes_on(WHILE).await;
    server.command(&["ACL", "SETUSER", "shop", ">wrong"]);
    recovers(fleet).await;
}

/// Scripts are forgotten, connections end, and everything is dropped: each again and again, and at any moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_flush_and_kill() {
    let server = server!();
    let fleet = healthy(&server).await;
    let rows: [&[&str]; 5] = [
        &["SCRIPT", "FLUSH"],
        &["CLIENT", "KILL", "TYPE", "normal"],
        &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"],
        &["FLUSHALL"],
        &["FLUSHALL", "ASYNC"],
    ];
    for row in rows {
        for pause in [10, 20, 40, 80, 160] {
            // Some of them end the very connection that asks for it.
            drop(server.try_command(row));
            fleet.goes_on(Duration::from_millis(pause)).await;
        }
        fleet.works().await;
    }
    recovers(fleet).await;
}

/// Instances find it one after another, and make something of it that is lost again before the others heard.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flushed_again_before_everybody_knows() {
    let server = server!();
    let fleet = healthy(&server).await;
    for n in 0..60 {
        drop(server.try_command(&["FLUSHALL"]));
        fleet.goes_on(Duration::from_millis([20, 40, 60, 120, 30, 200, 70][n % 7])).await;
    }
    recovers(fleet).await;
}

/// Only the log of purges is lost, or only its state.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_of_what_is_known_of_purges_is_lost() {
    let server = server!();
    let fleet = healthy(&server).await;
    for _ in 0..4 {
        let Reply::List(keys) = server.command(&["KEYS", "larder:*faults*"]) else { panic!("not a list") };
        let keys: Vec<String> =
            keys.iter().map(Reply::text).filter(|key| !key.contains(":r:") && !key.contains(":p:")).collect();
        assert!(!keys.is_empty());
        for key in keys {
            server.command(&["DEL", &key]);
            fleet.goes_on(MOMENT).await;
        }
        fleet.works().await;
    }
    recovers(fleet).await;
}

/// The machines' clocks are five minutes apart, one of them is set while it runs, and Redis' is a third.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_are_minutes_apart() {
    let server = server!();
    let fleet = Plan::default().start(|number| {
        let clock = Skewed(SystemClock::default(), [-300, 0, 300][number]);
        let clock = std::sync::Arc::new(clock);
        layer(number, store(server.address()).clock(clock.clone())).clock(clock)
    });
    fleet.works().await;
    fleet.goes_on(WHILE).await;
    recovers(fleet).await;
}

struct Skewed(SystemClock, i64);

impl Clock for Skewed {
    fn now(&self) -> Moment {
        let mut now = self.0.now();
        let by = Duration::from_secs(self.1.unsigned_abs());
        now.wall = if self.1 < 0 { now.wall - by } else { now.wall + by };
        now
    }
}

/// Of another release, cut off, changed, exchanged with another one, or something else altogether.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_damaged_or_foreign() {
    let server = server!();
    let fleet = healthy(&server).await;
    let mut chance = support::traffic::Chance(7);
    for round in 0..60 {
        let Reply::List(keys) = server.command(&["KEYS", "larder:*faults*:r:*"]) else { panic!("not a list") };
        let keys: Vec<String> = keys.iter().map(Reply::text).collect();
        if keys.len() < 2 {
            fleet.goes_on(MOMENT / 10).await;
            continue;
        }
        let (key, other) = (chance.one_of(&keys).clone(), chance.one_of(&keys).clone());
        let length = server.command(&["STRLEN", &key]).number().max(1) as usize;
        let place = chance.below(length).to_string();
        match round % 6 {
            // The byte behind the magic, whichever it is, and any other.
            0 => server.command(&["SETRANGE", &key, "4", "\u{7f}"]),
            1 => server.command(&["SETRANGE", &key, &place, "X"]),
            2 => server.command(&["SET", &key, "not a record"]),
            3 => server.command(&[
                "EVAL",
                "return redis.call('SET', KEYS[1], string.sub(redis.call('GET', KEYS[1]) or '', 1, ARGV[1]))",
                "1",
                &key,
                &place,
            ]),
            4 => server.command(&[
                "EVAL",
                "return redis.call('SET', KEYS[1], (redis.call('GET', KEYS[1]) or '') .. 'more')",
                "1",
                &key,
            ]),
            _ => server.command(&["COPY", &key, &other, "REPLACE"]),
        };
        fleet.goes_on(MOMENT / 10).await;
    }
    recovers(fleet).await;
}

/// Somebody else's data lies where ours should be: lists, sets, hashes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_have_another_type() {
    let server = server!();
    let fleet = healthy(&server).await;
    for _ in 0..10 {
        let Reply::List(keys) = server.command(&["KEYS", "larder:*faults*"]) else { panic!("not a list") };
        for key in keys.iter().map(Reply::text) {
            server.command(&["DEL", &key]);
            server.command(&["LPUSH", &key, "what"]);
        }
        fleet.goes_on(MOMENT).await;
    }
    server.command(&["FLUSHALL"]);
    recovers(fleet).await;
}
