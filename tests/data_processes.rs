//! Three processes over one Redis: what they count together is exact, and what they ask for at the same time is loaded once. `INCREMENTS` in the environment says how many each process makes, if not two thousand.
#![cfg(all(unix, feature = "redis"))]

mod support;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use larder::storage::{Guard, MemoryStore, RedisStore};
use larder::{CacheLayer, DataCache, DataError};
use support::redis::RedisServer;
use tokio::task::JoinSet;

const PROCESSES: i64 = 3;

/// In each process, as many who count at the same time.
const TASKS: i64 = 4;

fn increments() -> i64 {
    std::env::var("INCREMENTS").map_or(2000, |text| text.parse().expect("a number of increments"))
}

/// So patient that nothing is given up on a busy machine: what is tried here isn't the guard.
fn layer(url: &str) -> CacheLayer {
    let guard = Guard::default().deadline(Duration::from_secs(10)).write_deadline(Duration::from_secs(30));
    let layer = CacheLayer::tiered(MemoryStore::new(1 << 20), RedisStore::new(url).expect("a URL"));
    layer.store_guard(guard).max_lease_wait(Duration::from_secs(20))
}

fn cache(layer: &CacheLayer) -> DataCache {
    layer.data("numbers").ttl(Duration::from_secs(3600))
}

/// This test as another process, in which it does `task` and nothing else.
fn start(task: &str, url: &str) -> Child {
    let mut child = Command::new(std::env::current_exe().expect("a path"));
    child.args([&format!("{task}_in_a_process_of_its_own"), "--exact", "--nocapture"]).env("LARDER_TEST_REDIS", url);
    child.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().expect("it starts")
}

/// The sum of what each process has said behind this word.
fn sums(children: Vec<Child>, word: &str) -> i128 {
    let said = children.into_iter().map(|child| {
        let ended = child.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&ended.stdout).into_owned();
        assert!(ended.status.success(), "{said}");
        let line = said.lines().find_map(|line| line.split_once(word)).unwrap_or_else(|| panic!("no {word}: {said}"));
        line.1.trim().parse::<i128>().expect("a number")
    });
    said.sum()
}

/// Whether this is such a process.
fn url_of_a_process() -> Option<String> {
    std::env::var("LARDER_TEST_REDIS").ok()
}

/// Waits until all may begin.
async fn until_all_are_there(cache: &DataCache) {
    increment(cache, "there").await;
    while cache.get::<i64>("there").await != Some(PROCESSES) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn increment(cache: &DataCache, key: &str) -> i64 {
    loop {
        match cache.increment(key, 1).await {
            Ok(count) => return count,
            // Then nothing was counted: on a busy machine the log may be late.
            Err(DataError::Unavailable { .. }) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_processes_count_together_is_exact() {
    let Some(server) = RedisServer::start() else { return };
    let (url, began) = (format!("{}/?ns=shop", server.url()), Instant::now());
    let children: Vec<_> = (0..PROCESSES).map(|_| start("counts", &url)).collect();
    let sum = tokio::task::spawn_blocking(|| sums(children, "sum:")).await.expect("each ends well");
    let all = PROCESSES * increments();
    println!("{all} increments of {PROCESSES} processes took {:?}", began.elapsed());
    assert_eq!(cache(&layer(&url)).get::<i64>("count").await, Some(all));
    // Each number was the answer to one of them.
    assert_eq!(sum, i128::from(all) * i128::from(all + 1) / 2);
}

#[tokio::test]
async fn counts_in_a_process_of_its_own() {
    let Some(url) = url_of_a_process() else { return };
    let (cache, mut all, mut sum) = (cache(&layer(&url)), JoinSet::new(), 0_i128);
    until_all_are_there(&cache).await;
    for task in 0..TASKS {
        let (cache, each) = (cache.clone(), increments() / TASKS + i64::from(task < increments() % TASKS));
        all.spawn(async move {
            let mut sum = 0_i128;
            for _ in 0..each {
                sum += i128::from(increment(&cache, "count").await);
            }
            sum
        });
    }
    while let Some(ended) = all.join_next().await {
        sum += ended.expect("each ends well");
    }
    println!("sum: {sum}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_processes_ask_for_at_the_same_time_is_loaded_once() {
    let Some(server) = RedisServer::start() else { return };
    let url = format!("{}/?ns=shop", server.url());
    let children: Vec<_> = (0..PROCESSES).map(|_| start("loads", &url)).collect();
    let loads = tokio::task::spawn_blocking(|| sums(children, "loads:")).await.expect("each ends well");
    assert_eq!(loads, 1);
}

#[tokio::test]
async fn loads_in_a_process_of_its_own() {
    let Some(url) = url_of_a_process() else { return };
    let layer = layer(&url);
    let cache = cache(&layer);
    until_all_are_there(&cache).await;
    let mut all = JoinSet::new();
    for _ in 0..100 {
        let cache = cache.clone();
        all.spawn(async move {
            let load = || async {
                tokio::time::sleep(Duration::from_millis(500)).await;
                Ok::<_, std::io::Error>("loaded".to_owned())
            };
            cache.get_or_load("value", load).await
        });
    }
    while let Some(ended) = all.join_next().await {
        assert_eq!(ended.expect("no panic").expect("no error"), "loaded");
    }
    // A value goes to Redis behind the answer; a process that just ended would take it along.
    layer.handle().shutdown(Duration::from_secs(10)).await;
    println!("loads: {}", cache.stats().loads);
}
