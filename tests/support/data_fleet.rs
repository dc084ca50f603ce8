//! Three instances of one application that share values, under load: values that say what they are, so that of each it can be told whether it was allowed to be given; and numbers that are counted.
#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use larder::{CacheLayer, DataCache, DataError, Selector};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::fleet::{ENOUGH, HANGS, Page};
use super::traffic::{Chance, Zipf};

/// A change may wait for those before it, and for a store that answers late.
const CHANGE_HANGS: Duration = Duration::from_secs(15);

const ITEMS: usize = 40;
const COUNTS: usize = 4;
const READERS: usize = 2;

/// What is kept: which item, of which version, as long as it should be.
type Said = (usize, u64, String);

fn said(item: usize, version: u64) -> Said {
    (item, version, ".".repeat(200))
}

/// The database.
struct Item {
    page: Page,
    /// Who changes it and tells the cache, as in a transaction: what is written under it is what is newest.
    turn: tokio::sync::Mutex<()>,
}

/// A number that is counted, in no database.
#[derive(Default)]
struct Count {
    /// What it is known to have come to.
    least: AtomicI64,
    done: AtomicU64,
    /// Those of which nobody knows whether they were.
    unknown: AtomicU64,
    /// What the answers were.
    answers: Mutex<BTreeSet<i64>>,
}

#[derive(Debug, Default)]
struct Seen {
    answers: AtomicU64,
    purges: AtomicU64,
    purges_failed: AtomicU64,
    writes: AtomicU64,
    counted: AtomicU64,
    refused: AtomicU64,
    hangs: AtomicU64,
    wrong: Mutex<Vec<String>>,
}

impl Seen {
    fn wrong(&self, what: impl Debug) {
        self.wrong.lock().expect("nobody panics").push(format!("{what:?}"));
    }
}

struct Shared {
    items: Vec<Item>,
    counts: [Count; COUNTS],
    loads: AtomicU64,
    seen: Seen,
    is_over: AtomicBool,
    /// What Redis had stays, so that each change is made once.
    keeps: bool,
}

pub struct DataFleet {
    shared: Arc<Shared>,
    caches: [DataCache; 3],
    load: JoinSet<()>,
}

/// How such a fleet is made.
#[derive(Clone, Copy, Default)]
pub struct Plan {
    /// The faults lose nothing that Redis had.
    pub keeps: bool,
    /// This instance makes nothing invalid itself, so that it uses what is stored for as long as it trusts what it hears of the others.
    pub reads_only: Option<usize>,
}

impl Plan {
    /// Starts three instances over these caches, and load on each.
    pub fn start(self, layer: impl Fn(usize) -> CacheLayer) -> DataFleet {
        let item = |_| Item { page: Page::default(), turn: tokio::sync::Mutex::default() };
        let shared = Arc::new(Shared {
            items: (0..ITEMS).map(item).collect(),
            counts: Default::default(),
            loads: AtomicU64::new(0),
            seen: Seen::default(),
            is_over: AtomicBool::new(false),
            keeps: self.keeps,
        });
        let caches = [0, 1, 2].map(|number| layer(number).data("items").ttl(Duration::from_secs(600)));
        let mut fleet = DataFleet { shared, caches, load: JoinSet::new() };
        for number in 0..3 {
            (0..READERS).for_each(|n| fleet.spawn(number, n, Client::read));
            fleet.spawn(number, READERS, Client::count);
            if self.reads_only != Some(number) {
                fleet.spawn(number, READERS + 1, Client::purge);
                fleet.spawn(number, READERS + 2, Client::write);
            }
        }
        fleet
    }
}

impl DataFleet {
    fn spawn<F: Future<Output = ()> + Send + 'static>(&mut self, number: usize, n: usize, load: fn(Client) -> F) {
        let (shared, cache) = (self.shared.clone(), self.caches[number].clone());
        let chance = Chance((number * 100 + n) as u64);
        self.load.spawn(load(Client { number, shared, cache, zipf: Zipf::new(ITEMS), chance }));
    }

    /// Waits until every instance gives what is stored, purges reach the others, and is counted: everything works.
    pub async fn works(&self) {
        let read = |count: &AtomicU64| count.load(Ordering::SeqCst);
        let seen = &self.shared.seen;
        let now = || {
            let hits = self.caches.iter().map(|cache| cache.stats().hits);
            hits.chain([read(&seen.purges) * 3, read(&seen.counted) * 3]).collect::<Vec<_>>()
        };
        let (before, until) = (now(), Instant::now() + Duration::from_secs(30));
        while !now().into_iter().zip(&before).all(|(now, before)| now > before + 20) {
            assert!(Instant::now() < until, "it doesn't work again: {before:?}, now {:?}; {seen:?}", now());
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Lets the load go on for so long.
    pub async fn goes_on(&self, long: Duration) {
        sleep(long).await;
    }

    /// Ends the load, when there was enough of it to say something. Whatever happened, no value was wrong, each load answered, nobody was left waiting; and where nothing was lost, each change was made once.
    pub async fn ends_well(mut self) {
        let (shared, until) = (self.shared.clone(), Instant::now() + Duration::from_secs(20));
        let read = |count: &AtomicU64| count.load(Ordering::SeqCst);
        while read(&shared.seen.answers) <= ENOUGH && Instant::now() < until {
            sleep(Duration::from_millis(20)).await;
        }
        shared.is_over.store(true, Ordering::SeqCst);
        while let Some(ended) = self.load.join_next().await {
            ended.expect("no client panics");
        }
        if shared.keeps {
            self.counts_are_exact().await;
        }
        let seen = &shared.seen;
        let wrong = seen.wrong.lock().expect("nobody panics");
        assert!(wrong.is_empty(), "{} wrong answers, among them {:#?}", wrong.len(), &wrong[..wrong.len().min(5)]);
        assert_eq!(read(&seen.hangs), 0, "{seen:?}");
        assert!(read(&seen.answers) > ENOUGH && read(&seen.writes) > 20 && read(&seen.counted) > 100, "{seen:?}");
    }

    async fn counts_are_exact(&self) {
        for (n, count) in self.shared.counts.iter().enumerate() {
            let done = count.done.load(Ordering::SeqCst) as i64;
            let unknown = count.unknown.load(Ordering::SeqCst) as i64;
            for cache in &self.caches {
                let now = cache.get::<i64>(key_of_count(n)).await;
                let is_right = now.is_some_and(|now| (done..=done + unknown).contains(&now));
                if !is_right {
                    self.shared.seen.wrong(format!("{now:?} after {done}, and {unknown} that nobody knows of"));
                }
            }
        }
    }
}

/// Who makes a part of the load on one instance.
struct Client {
    number: usize,
    shared: Arc<Shared>,
    cache: DataCache,
    zipf: Zipf,
    chance: Chance,
}

fn key_of_count(n: usize) -> String {
    format!("count:{n}")
}

impl Client {
    fn is_over(&self) -> bool {
        self.shared.is_over.load(Ordering::SeqCst)
    }

    async fn pause(&mut self, mean: f64, most: u64) {
        sleep(Duration::from_millis(self.chance.wait(mean).min(most))).await;
    }

    /// `None`, and counted, if it takes longer than anything may.
    async fn in_time<T>(&self, most: Duration, what: impl Future<Output = T>) -> Option<T> {
        let ended = timeout(most, what).await.ok();
        self.shared.seen.hangs.fetch_add(u64::from(ended.is_none()), Ordering::SeqCst);
        ended
    }

    async fn read(mut self) {
        while !self.is_over() {
            let item = self.zipf.draw(&mut self.chance);
            let required = self.shared.items[item].page.required(self.number);
            // One in eight only looks.
            let given = if self.chance.below(8) == 0 {
                self.in_time(HANGS, self.cache.get::<Said>(item.to_string())).await
            } else {
                let loaded = self.in_time(HANGS, self.load(item)).await;
                loaded.map(|loaded| loaded.inspect_err(|error| self.shared.seen.wrong(error)).ok())
            };
            self.shared.seen.answers.fetch_add(u64::from(given.is_some()), Ordering::SeqCst);
            if let Some(given) = given.flatten()
                && (given.1 < required || given != said(item, given.1))
            {
                let number = self.number;
                self.shared.seen.wrong(format!("instance {number}, {item}, version {required} or newer: {given:?}"));
            }
            sleep(Duration::from_millis(2)).await;
        }
    }

    fn load(&self, item: usize) -> impl Future<Output = Result<Said, Arc<Infallible>>> {
        let (shared, n) = (self.shared.clone(), self.shared.loads.fetch_add(1, Ordering::SeqCst));
        let load = move || async move {
            sleep(Duration::from_millis(n % 4)).await;
            let version = shared.items[item].page.version.load(Ordering::SeqCst);
            sleep(Duration::from_millis(n % 3)).await;
            Ok(said(item, version))
        };
        let entry = self.cache.entry(item.to_string()).tag(format!("item:{item}"));
        entry.get_or_load(load)
    }

    async fn purge(mut self) {
        while !self.is_over() {
            self.pause(25.0, 200).await;
            let item = self.zipf.draw(&mut self.chance);
            let shared = self.shared.clone();
            let Ok(_turn) = shared.items[item].turn.try_lock() else { continue };
            let page = &shared.items[item].page;
            let version = page.version.fetch_add(1, Ordering::SeqCst) + 1;
            let purge = self.cache.purge(Selector::Tag(format!("item:{item}")));
            match self.in_time(HANGS, purge.into_future()).await {
                Some(Ok(_)) => {
                    page.acknowledge(self.number, version);
                    shared.seen.purges.fetch_add(1, Ordering::SeqCst);
                }
                Some(Err(_)) => _ = shared.seen.purges_failed.fetch_add(1, Ordering::SeqCst),
                None => {}
            }
        }
    }

    /// A write is over for its own instance when it has returned. The others learn of it when the log can be written to.
    async fn write(mut self) {
        while !self.is_over() {
            self.pause(40.0, 300).await;
            let item = self.zipf.draw(&mut self.chance);
            let shared = self.shared.clone();
            let Ok(_turn) = shared.items[item].turn.try_lock() else { continue };
            let page = &shared.items[item].page;
            let version = page.version.fetch_add(1, Ordering::SeqCst) + 1;
            let (key, value) = (item.to_string(), said(item, version));
            let written = if self.chance.below(4) == 0 {
                self.in_time(HANGS, self.cache.delete(key)).await.map(|_| Ok(()))
            } else {
                let entry = self.cache.entry(key).tag(format!("item:{item}"));
                self.in_time(HANGS, entry.set(&value)).await
            };
            match written {
                Some(Ok(())) => {
                    page.own[self.number].fetch_max(version, Ordering::SeqCst);
                    shared.seen.writes.fetch_add(1, Ordering::SeqCst);
                }
                Some(Err(error)) => shared.seen.wrong(error),
                None => {}
            }
        }
    }

    /// What is counted is looked at as well: it is never less than what was answered before.
    async fn count(mut self) {
        while !self.is_over() {
            self.pause(8.0, 60).await;
            let n = self.chance.below(COUNTS);
            let shared = self.shared.clone();
            let (count, seen) = (&shared.counts[n], &shared.seen);
            let least = count.least.load(Ordering::SeqCst);
            if self.chance.below(4) == 0 {
                let found = self.in_time(HANGS, self.cache.get::<i64>(key_of_count(n))).await.flatten();
                if shared.keeps && found.is_some_and(|found| found < least) {
                    seen.wrong(format!("instance {}: {found:?} where it was {least} before", self.number));
                }
                continue;
            }
            match self.in_time(CHANGE_HANGS, self.cache.increment(key_of_count(n), 1)).await {
                Some(Ok(number)) => {
                    let is_new = count.answers.lock().expect("nobody panics").insert(number);
                    if shared.keeps && (!is_new || number <= least) {
                        seen.wrong(format!("{number} was counted twice, or after {least}"));
                    }
                    count.least.fetch_max(number, Ordering::SeqCst);
                    count.done.fetch_add(1, Ordering::SeqCst);
                    seen.counted.fetch_add(1, Ordering::SeqCst);
                }
                Some(Err(DataError::Unknown { .. })) => _ = count.unknown.fetch_add(1, Ordering::SeqCst),
                Some(Err(DataError::Unavailable { .. })) => _ = seen.refused.fetch_add(1, Ordering::SeqCst),
                Some(Err(error)) => seen.wrong(error),
                None => _ = count.unknown.fetch_add(1, Ordering::SeqCst),
            }
        }
    }
}
