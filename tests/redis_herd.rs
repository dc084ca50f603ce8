//! A herd that comes to three instances at once for something none of them has is one call of the handler, by a lease in a real Redis; and whatever becomes of who has it, a call for
//! each instance that is left, behind a wait that is bounded.
#![cfg(feature = "redis")]

mod support;

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use larder::storage::{Guard, MemoryStore, RedisStore};
use larder::{Cache, CacheHandle, CacheLayer, Policy};
use support::exchange::{Exchange, Handler, MINUTE, answer, get};
use support::redis::RedisServer;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tower::{Layer, ServiceExt};

const HERD: usize = 1000;
const TAKES: Duration = Duration::from_millis(200);
/// How long an instance waits for another one.
const WAIT: Duration = Duration::from_secs(1);
/// More than any of it takes on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(15);

#[derive(Clone, Copy, Debug)]
enum Kind {
    Tiered,
    FarOnly,
}

const KINDS: [Kind; 2] = [Kind::Tiered, Kind::FarOnly];

/// Set-ups with a name for each.
type Row = (&'static str, fn(CacheLayer) -> CacheLayer);

/// One instance with threads of its own, which all end when it is killed, whatever they have begun.
struct Instance {
    runtime: Option<Runtime>,
    cache: Cache<Handler>,
    handle: CacheHandle,
}

impl Instance {
    fn begin(&self, target: &str) -> JoinHandle<Exchange> {
        let (cache, request) = (self.cache.clone(), get(target));
        let asking = async move { Exchange::read(cache.oneshot(request).await.expect("an answer")).await };
        let runtime = self.runtime.as_ref().expect("it lives");
        runtime.spawn(async move { asking.await.expect("the whole content") })
    }

    fn kill(&mut self) {
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.kill();
    }
}

struct Fleet {
    instances: Vec<Instance>,
    handler: Handler,
}

impl Fleet {
    /// Three instances that are on speaking terms with their store. The handler takes its time, and counts.
    async fn start(kind: Kind, server: &RedisServer, set_up: fn(CacheLayer) -> CacheLayer) -> Self {
        let handler = Handler::waiting(|_, n| async move {
            tokio::time::sleep(TAKES).await;
            Ok(answer(200, &[], format!("answer {n}")))
        });
        server.command(&["FLUSHALL"]);
        let instances = (0..3).map(|_| {
            let far = RedisStore::new(&format!("{}/?ns=herd", server.url())).expect("a URL");
            let layer = match kind {
                Kind::Tiered => CacheLayer::tiered(MemoryStore::new(1 << 20), far),
                Kind::FarOnly => CacheLayer::with_storage(far),
            };
            // What is tried here isn't the guard.
            let layer = layer.store_guard(Guard::default().deadline(PATIENCE)).otherwise(Policy::shared(MINUTE));
            let layer = set_up(layer);
            let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
            Instance { runtime: Some(runtime), cache: layer.layer(handler.clone()), handle: layer.handle() }
        });
        let fleet = Self { instances: instances.collect(), handler };
        for instance in &fleet.instances {
            let until = Instant::now() + PATIENCE;
            while instance.begin("/warm").await.expect("no panic").x_cache != "HIT" {
                assert!(Instant::now() < until, "the store is there, and nothing is a hit");
            }
        }
        fleet
    }

    /// Starts a herd on all instances.
    fn herd(&self) -> Vec<JoinHandle<Exchange>> {
        (0..HERD).map(|n| self.instances[n % 3].begin("/")).collect()
    }

    async fn wait_for_calls(&self, calls: usize) {
        while self.handler.calls() < calls {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

async fn all(herd: Vec<JoinHandle<Exchange>>) -> Vec<Result<Exchange, tokio::task::JoinError>> {
    tokio::time::timeout(PATIENCE, join_all(herd)).await.expect("nobody hangs")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_herd_on_three_instances_is_one_call_of_the_handler() {
    let Some(server) = RedisServer::start() else { return };
    for kind in KINDS {
        let fleet = Fleet::start(kind, &server, |layer| layer.max_lease_wait(PATIENCE)).await;
        let before = fleet.handler.calls();
        let only = format!("answer {}", before + 1);
        for answer in all(fleet.herd()).await {
            let answer = answer.expect("no panic");
            assert_eq!((answer.status, &answer.body), (200, &only), "{kind:?}");
        }
        assert_eq!(fleet.handler.calls(), before + 1, "{kind:?}");
        let total = |count: fn(larder::TierStats) -> u64| {
            fleet.instances.iter().map(|instance| count(instance.handle.stats().tiers)).sum::<u64>()
        };
        let (awaited, timed_out) = (total(|tiers| tiers.leases_awaited), total(|tiers| tiers.lease_waits_timed_out));
        assert!((1..=2).contains(&awaited) && timed_out == 0, "{kind:?}: the others wait");
    }
}

/// Its lease is left to end by itself, which is later than anybody waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn when_the_holder_is_killed_the_others_wait_a_second_and_ask_once_each() {
    let Some(server) = RedisServer::start() else { return };
    for kind in KINDS {
        let mut fleet = Fleet::start(kind, &server, |layer| layer).await;
        let before = fleet.handler.calls();
        let first = fleet.instances[0].begin("/");
        fleet.wait_for_calls(before + 1).await;
        let began = Instant::now();
        let herd = fleet.herd();
        fleet.instances[0].kill();
        drop(first);
        let answered = all(herd).await;
        let took = began.elapsed();
        for (n, answer) in answered.into_iter().enumerate().filter(|(n, _)| n % 3 != 0) {
            assert_eq!(answer.expect("no panic").status, 200, "{kind:?}, {n}");
        }
        let calls = fleet.handler.calls() - before;
        assert!((2..=3).contains(&calls), "{kind:?}: {calls} calls");
        assert!(took >= WAIT, "{kind:?}: {took:?}, so that nobody waited");
        // And all have what was stored then.
        assert_eq!(fleet.instances[1].begin("/").await.expect("no panic").x_cache, "HIT");
    }
}

/// Its client leaves. Either the fill goes on behind it, or the lease is given back and somebody else's turn comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn when_the_holders_client_leaves_one_call_more_is_the_most() {
    let Some(server) = RedisServer::start() else { return };
    let rows: [Row; 2] = [
        ("goes on", |layer| layer.max_lease_wait(PATIENCE)),
        ("ends", |layer| layer.max_lease_wait(PATIENCE).max_refreshes(0)),
    ];
    for (kind, (name, set_up)) in KINDS.into_iter().flat_map(|kind| rows.map(|row| (kind, row))) {
        let fleet = Fleet::start(kind, &server, set_up).await;
        let before = fleet.handler.calls();
        let first = fleet.instances[0].begin("/");
        fleet.wait_for_calls(before + 1).await;
        let herd: Vec<_> = (0..HERD).map(|n| fleet.instances[1 + n % 2].begin("/")).collect();
        first.abort();
        for answer in all(herd).await {
            assert_eq!(answer.expect("no panic").status, 200, "{kind:?}, {name}");
        }
        let calls = fleet.handler.calls() - before;
        assert_eq!(calls, if name == "ends" { 2 } else { 1 }, "{kind:?}, {name}");
    }
}
