//! Whatever happens to Redis: no instance gives a wrong value, each load answers, nobody is left waiting, and no change is lost or made twice unless Redis lost it. Real servers, real failures, three
//! instances under load.
#![cfg(all(feature = "redis", feature = "data"))]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use larder::CacheLayer;
use larder::storage::{MemoryStore, RedisStore};
use support::data_fleet::{DataFleet, Plan};
use support::fault_proxy::{Fault, FaultProxy};
use support::redis::{RedisServer, Reply, Setup};

const MOMENT: Duration = Duration::from_millis(300);
const WHILE: Duration = Duration::from_secs(1);

/// Two of the three instances have a store of their own before Redis.
fn layer(number: usize, address: SocketAddr) -> CacheLayer {
    let store = RedisStore::new(&format!("redis://{address}/?ns=faults")).expect("a URL");
    if number == 2 { CacheLayer::with_storage(store) } else { CacheLayer::tiered(MemoryStore::new(32 << 20), store) }
}

/// A fleet in good health, on a server that has something to lose, and keeps it or not.
async fn healthy(server: &RedisServer, keeps: bool) -> DataFleet {
    let fleet = Plan { keeps, reads_only: None }.start(|number| layer(number, server.address()));
    fleet.works().await;
    fleet
}

async fn recovers(fleet: DataFleet) {
    fleet.works().await;
    fleet.ends_well().await;
}

macro_rules! server {
    () => {
        match Setup::default().start() {
            Some(server) => server,
            None => return,
        }
    };
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_under_load() {
    let mut server = server!();
    let fleet = healthy(&server, false).await;
    for _ in 0..2 {
        server.kill();
        fleet.goes_on(MOMENT).await;
        server.revive();
        fleet.works().await;
    }
    recovers(fleet).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standing_still() {
    let server = server!();
    let fleet = healthy(&server, true).await;
    for pause in [MOMENT, 3 * WHILE] {
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
    let proxy = FaultProxy::before(server.address());
    let fleet = Plan { keeps: true, reads_only: None }.start(|number| layer(number, proxy.address()));
    fleet.works().await;
    for fault in [Fault::Latency(Duration::from_secs(2)), Fault::Blackhole, Fault::Partition, Fault::Refuse] {
        proxy.set(fault);
        fleet.goes_on(WHILE).await;
        proxy.set(Fault::Pass);
        fleet.works().await;
    }
    for _ in 0..5 {
        proxy.cut();
        fleet.goes_on(MOMENT / 6).await;
    }
    recovers(fleet).await;
}

/// The others go on, and purge and write what the one that is cut off still has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_instance_is_cut_off() {
    let server = server!();
    let proxy = FaultProxy::before(server.address());
    let plan = Plan { keeps: true, reads_only: Some(0) };
    let fleet = plan.start(|number| layer(number, if number == 0 { proxy.address() } else { server.address() }));
    fleet.works().await;
    for fault in [Fault::Partition, Fault::Refuse] {
        proxy.set(fault);
        fleet.goes_on(2 * WHILE).await;
        proxy.set(Fault::Pass);
        fleet.works().await;
    }
    recovers(fleet).await;
}

/// What an answer was lost of was done, or not, and who asked knows which or says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_end_and_scripts_are_forgotten() {
    let server = server!();
    let fleet = healthy(&server, true).await;
    let rows: [&[&str]; 2] = [&["SCRIPT", "FLUSH"], &["CLIENT", "KILL", "TYPE", "normal"]];
    for row in rows {
        for pause in [5, 10, 20, 40, 80] {
            // Some of them end the very connection that asks for it.
            drop(server.try_command(row));
            fleet.goes_on(Duration::from_millis(pause)).await;
        }
        fleet.works().await;
    }
    recovers(fleet).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_dropped() {
    let server = server!();
    let fleet = healthy(&server, false).await;
    for pause in [20, 80, 300] {
        drop(server.try_command(&["FLUSHALL"]));
        fleet.goes_on(Duration::from_millis(pause)).await;
    }
    recovers(fleet).await;
}

/// Cut off, changed, exchanged with another one, or something else altogether.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_damaged_or_foreign() {
    let server = server!();
    let fleet = healthy(&server, false).await;
    let mut chance = support::traffic::Chance(7);
    for round in 0..40 {
        let Reply::List(keys) = server.command(&["KEYS", "larder:*faults*:r:*"]) else { panic!("not a list") };
        let keys: Vec<String> = keys.iter().map(Reply::text).collect();
        if !keys.is_empty() {
            let (key, other) = (chance.one_of(&keys).clone(), chance.one_of(&keys).clone());
            let length = server.command(&["STRLEN", &key]).number().max(1) as usize;
            let place = chance.below(length).to_string();
            match round % 4 {
                0 => server.command(&["SETRANGE", &key, &place, "X"]),
                1 => server.command(&["SET", &key, "not a record"]),
                2 => server.command(&["APPEND", &key, "more"]),
                _ => server.command(&["COPY", &key, &other, "REPLACE"]),
            };
        }
        fleet.goes_on(MOMENT / 10).await;
    }
    recovers(fleet).await;
}
