//! Purges of every kind over values, on one instance or on two that share a store, beside loads, looks, writes and deletions: of each value it can be told whether something should have ended it.
#![allow(dead_code, reason = "each test file uses a part")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use larder::{CacheHandle, CacheLayer, DataCache, Selector};
use tokio::sync::Mutex;

use super::storm::{Dice, Required, wait};

const GROUPS: usize = 4;
const EACH: usize = 6;

/// One row of the database.
#[derive(Default)]
struct Row {
    key: String,
    group: usize,
    version: AtomicU64,
    /// By purges, writes and deletions that have returned.
    required: Required,
    /// Who writes it.
    turn: Mutex<()>,
}

#[derive(Clone)]
struct Instance {
    number: usize,
    values: DataCache,
    handle: CacheHandle,
}

/// What came of a storm.
#[derive(Debug, Default)]
pub struct Seen {
    pub hits: AtomicU64,
    pub loads: AtomicU64,
    pub writes: AtomicU64,
    pub purges: AtomicU64,
    pub purges_failed: AtomicU64,
}

/// The instances of one application, and its database.
#[derive(Clone)]
pub struct DataWorld {
    rows: Arc<Vec<Row>>,
    instances: Vec<Instance>,
    is_over: Arc<AtomicBool>,
    pub seen: Arc<Seen>,
}

impl DataWorld {
    /// Two instances at most.
    pub fn new(layers: impl IntoIterator<Item = CacheLayer>) -> Self {
        let rows =
            (0..GROUPS * EACH).map(|n| Row { key: format!("{}:{n}", n % GROUPS), group: n % GROUPS, ..Row::default() });
        let instances = layers.into_iter().enumerate().map(|(number, layer)| {
            let values = layer.data("rows").stale_while_revalidate(Duration::from_secs(60));
            Instance { number, values, handle: layer.handle() }
        });
        Self {
            instances: instances.collect(),
            rows: Arc::new(rows.collect()),
            is_over: Arc::default(),
            seen: Arc::default(),
        }
    }

    pub fn values(&self, instance: usize) -> &DataCache {
        &self.instances[instance].values
    }

    /// As many changes as that on all instances together, beside so many who ask on each.
    pub async fn storm(&self, changes: usize, askers: usize) {
        const CHANGING: usize = 3;
        for instance in &self.instances {
            // What an instance stores before it has heard of the purges of others counts for nothing.
            instance.values.get::<u64>("nothing").await;
        }
        let each = changes / CHANGING / self.instances.len();
        let changing = self.tasks(CHANGING).map(|(world, instance, n)| {
            tokio::spawn(async move {
                let mut dice = Dice(7 + n);
                for _ in 0..each {
                    world.change(&instance, &mut dice).await;
                    if dice.below(20) == 0 {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    tokio::task::yield_now().await;
                }
            })
        });
        let asking = self.tasks(askers).map(|(world, instance, n)| {
            tokio::spawn(async move {
                let mut dice = Dice(1000 + n);
                while !world.is_over.load(Ordering::Relaxed) {
                    world.ask(&instance, &mut dice).await;
                    tokio::task::yield_now().await;
                }
            })
        });
        let (changing, asking): (Vec<_>, Vec<_>) = (changing.collect(), asking.collect());
        for task in changing {
            task.await.expect("no change fails");
        }
        self.is_over.store(true, Ordering::Relaxed);
        for task in asking {
            task.await.expect("nothing comes back");
        }
    }

    /// So many for each instance, with a number of their own.
    fn tasks(&self, each: usize) -> impl Iterator<Item = (Self, Instance, u64)> {
        let all = self.instances.iter().flat_map(move |instance| (0..each).map(move |n| (instance, n)));
        all.map(move |(instance, n)| (self.clone(), instance.clone(), (instance.number * each + n) as u64))
    }

    async fn ask(&self, instance: &Instance, dice: &mut Dice) {
        let place = dice.below(self.rows.len());
        let row = &self.rows[place];
        let required = row.required.now(instance.number);
        let (version, how) = match dice.below(5) {
            0 => match instance.values.get::<u64>(&row.key).await {
                Some(version) => (version, "got"),
                None => return,
            },
            1 => match instance.values.get_many::<u64>([&row.key, &self.rows[0].key]).await[0] {
                Some(version) => (version, "got with others"),
                None => return,
            },
            _ => (self.load(instance, place, dice).await, "loaded"),
        };
        self.seen.hits.fetch_add(u64::from(how != "loaded"), Ordering::Relaxed);
        let number = instance.number;
        assert!(version >= required, "{} is {how} in version {version} on instance {number} after {required}", row.key);
    }

    async fn load(&self, instance: &Instance, place: usize, dice: &mut Dice) -> u64 {
        let row = &self.rows[place];
        loop {
            // Each load has chances of its own.
            let (rows, seen, mut dice) = (self.rows.clone(), self.seen.clone(), Dice(dice.below(1 << 30) as u64 + 1));
            let load = move || async move {
                seen.loads.fetch_add(1, Ordering::Relaxed);
                wait(&mut dice).await;
                let version = rows[place].version.load(Ordering::SeqCst);
                wait(&mut dice).await;
                if dice.below(20) == 0 { Err("the database is away") } else { Ok(version) }
            };
            let entry = instance.values.entry(&row.key).tag(format!("group:{}", row.group));
            match entry.get_or_load(load).await {
                Ok(version) => return version,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }

    async fn change(&self, instance: &Instance, dice: &mut Dice) {
        let row = &self.rows[dice.below(self.rows.len())];
        if dice.below(4) == 0 {
            return self.write(instance, row, dice).await;
        }
        let (selector, touched): (Selector, Vec<&Row>) = match dice.below(100) {
            0..60 => (Selector::Tag(format!("group:{}", row.group)), self.group(row)),
            60..80 => (Selector::Glob(format!("rows:{}", row.key)), vec![row]),
            80..95 => (Selector::Glob(format!("rows:{}:*", row.group)), self.group(row)),
            _ => (Selector::Everything, self.rows.iter().collect()),
        };
        let versions = self.bump(&touched).await;
        match instance.handle.purge(selector).await {
            Ok(_) => {
                self.seen.purges.fetch_add(1, Ordering::Relaxed);
                let all = touched.into_iter().zip(versions);
                all.for_each(|(row, version)| row.required.require(instance.number, version));
            }
            Err(error) => {
                println!("a purge isn't acknowledged: {error}");
                self.seen.purges_failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Changes rows of the database, while nobody writes them: who did before has stored that as well, and who comes behind stores something newer.
    async fn bump(&self, rows: &[&Row]) -> Vec<u64> {
        let mut turns = Vec::new();
        for row in rows {
            turns.push(row.turn.lock().await);
        }
        rows.iter().map(|row| row.version.fetch_add(1, Ordering::SeqCst) + 1).collect()
    }

    fn group(&self, row: &Row) -> Vec<&Row> {
        self.rows.iter().filter(|other| other.group == row.group).collect()
    }

    /// As behind a transaction: the database first, and one after another.
    async fn write(&self, instance: &Instance, row: &Row, dice: &mut Dice) {
        let _turn = row.turn.lock().await;
        let version = row.version.fetch_add(1, Ordering::SeqCst) + 1;
        let entry = instance.values.entry(&row.key).tag(format!("group:{}", row.group));
        match dice.below(3) {
            0 => drop(instance.values.delete(&row.key).await),
            1 => entry.set(&version).await.expect("it can be stored"),
            _ => {
                // Through a comparison, as who read it before would.
                let old = instance.values.get::<u64>(&row.key).await;
                let written = match old {
                    Some(old) => entry.compare_and_set(&old, &version).await,
                    None => entry.add(&version).await,
                };
                if !matches!(written, Ok(true)) {
                    instance.values.delete(&row.key).await;
                }
            }
        }
        self.seen.writes.fetch_add(1, Ordering::Relaxed);
        row.required.require(instance.number, version);
    }
}
