//! The contract of stores: what is shipped keeps it, and a store that doesn't is found, with the promise that it breaks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use larder::storage::testing::{Fault, Faulty, Operation};
use larder::storage::{
    Expected, Guard, Guarded, Lease, LeaseToken, LogFuture, MemoryStore, PurgeLog, PurgeNews, PurgeSnapshot, Query,
    Storage, StorageUsage, Swap, Swapped, Tiered, Variants, contract, with_variant,
};
use larder::{CacheKey, PurgeMessage, StorageError, StoredResponse};

fn store() -> Faulty<MemoryStore> {
    Faulty::new(MemoryStore::new(64 << 20))
}

#[tokio::test]
async fn the_stores_that_are_shipped_keep_the_contract() {
    contract::check(|| MemoryStore::new(64 << 20)).await.unwrap();
    contract::check(store).await.unwrap();
    contract::check(|| Tiered::new(store(), store())).await.unwrap();
    contract::check(|| Guarded::new(store(), Guard::default().deadline(Duration::from_secs(60)))).await.unwrap();
}

/// A contract that a broken store passes would be none.
#[tokio::test]
async fn the_contract_names_the_promise_that_a_store_does_not_keep() {
    // (what goes wrong, a word of the promise)
    let rows = [
        (Operation::Get, Fault::Lie, "what was put"),
        (Operation::Get, Fault::Fail, "never put"),
        (Operation::Put, Fault::Lie, "what was put"),
        (Operation::Remove, Fault::Lie, "never put"),
        (Operation::Clear, Fault::Lie, "cleared"),
        (Operation::Clear, Fault::Fail, "cleared"),
        (Operation::Erase, Fault::Fail, "erasure"),
        (Operation::Lease, Fault::Lie, "lease"),
        (Operation::Ping, Fault::Fail, "is there"),
        (Operation::Swap, Fault::Lie, "a swap is done"),
        (Operation::Swap, Fault::Fail, "a swap is done"),
    ];
    for (operation, fault, expected) in rows {
        let broken = contract::check(|| {
            let store = store();
            store.set(operation, fault);
            store
        });
        let broken = broken.await.expect_err("a broken store");
        assert!(broken.promise().contains(expected), "{operation:?} {fault:?}: {broken}");
    }
}

/// Stores that are wrong in what they keep, and not only in that they fail.
#[tokio::test]
async fn the_contract_finds_stores_that_keep_the_wrong_things() {
    // (flaw, a word of the promise)
    let rows = [
        (Flaw::CutsKeys, "keys never meet"),
        (Flaw::OneVariant, "each variant"),
        (Flaw::LastStays, "`Vary`"),
        (Flaw::TooMany, "oldest go"),
        (Flaw::ErasesAll, "erasure"),
        (Flaw::GrantsAll, "lease"),
        (Flaw::SwapsAll, "a swap is done"),
        (Flaw::KnowsByLength, "a swap is done"),
        (Flaw::SwapsInSteps, "at the same time one does"),
    ];
    for (flaw, expected) in rows {
        let broken = contract::check(|| Flawed { flaw, kept: Mutex::default() }).await;
        let broken = broken.expect_err("a flawed store");
        assert!(broken.promise().contains(expected), "{flaw:?}: {broken}");
    }
}

/// What a log of purges may get wrong.
#[tokio::test(start_paused = true)]
async fn the_contract_finds_logs_that_lose_the_thread() {
    // (flaw, a word of what is said of it)
    let rows = [
        (None, ""),
        (Some(LogFlaw::Forgets), "without those before it"),
        (Some(LogFlaw::Repeats), "known"),
        (Some(LogFlaw::NeverSaysNothing), "longer than it may"),
        (Some(LogFlaw::OneEpoch), "earlier epoch"),
        (Some(LogFlaw::EmptySnapshot), "lacks a purge"),
        (Some(LogFlaw::OldNewest), "calls the newest"),
    ];
    for (flaw, expected) in rows {
        let checked =
            contract::check(|| Logged { inner: MemoryStore::new(64 << 20), log: Arc::new(Log::new(flaw)) }).await;
        match flaw {
            None => checked.unwrap(),
            Some(_) => {
                let broken = checked.expect_err("a flawed log");
                assert!(broken.how().contains(expected), "{flaw:?}: {broken}");
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LogFlaw {
    /// An append doesn't bring what came before.
    Forgets,
    /// All is told again and again.
    Repeats,
    /// It waits for news for ever.
    NeverSaysNothing,
    /// Any earlier number is taken for one of this epoch.
    OneEpoch,
    EmptySnapshot,
    /// The newest number is one from before.
    OldNewest,
}

/// A log in memory, in its third epoch.
struct Log {
    flaw: Option<LogFlaw>,
    all: Mutex<Vec<(u64, PurgeMessage)>>,
}

const EPOCH: u64 = 3 << 32;

impl Log {
    fn new(flaw: Option<LogFlaw>) -> Self {
        Self { flaw, all: Mutex::default() }
    }

    fn all(&self) -> MutexGuard<'_, Vec<(u64, PurgeMessage)>> {
        self.all.lock().expect("no holder panics")
    }

    fn since(&self, known: u64) -> PurgeNews {
        if known < EPOCH && self.flaw != Some(LogFlaw::OneEpoch) {
            return PurgeNews::Gap;
        }
        let repeats = self.flaw == Some(LogFlaw::Repeats);
        let purges = self.all().iter().filter(|(number, _)| repeats || *number > known).cloned().collect();
        PurgeNews::Since { purges, floor: EPOCH }
    }
}

impl PurgeLog for Log {
    fn append<'a>(&'a self, purge: &'a PurgeMessage, known: u64) -> LogFuture<'a, PurgeNews> {
        Box::pin(async move {
            let number = {
                let mut all = self.all();
                let number = EPOCH + all.len() as u64 + 1;
                all.push((number, purge.clone()));
                number
            };
            Ok(self.since(if self.flaw == Some(LogFlaw::Forgets) { number - 1 } else { known }))
        })
    }

    fn follow(&self, known: u64, wait: Duration) -> LogFuture<'_, PurgeNews> {
        Box::pin(async move {
            if self.all().last().map_or(EPOCH, |(number, _)| *number) == known {
                let wait = if self.flaw == Some(LogFlaw::NeverSaysNothing) { Duration::MAX } else { wait };
                tokio::time::sleep(wait).await;
            }
            Ok(self.since(known))
        })
    }

    fn snapshot(&self) -> LogFuture<'_, PurgeSnapshot> {
        Box::pin(async move {
            let mut snapshot = PurgeSnapshot::default();
            snapshot.floor = EPOCH;
            snapshot.current = EPOCH + self.all().len() as u64;
            if self.flaw != Some(LogFlaw::EmptySnapshot) {
                snapshot.purges = self.all().clone();
            }
            Ok(snapshot)
        })
    }

    fn newest(&self) -> LogFuture<'_, u64> {
        Box::pin(async move {
            let newest = if self.flaw == Some(LogFlaw::OldNewest) { 0 } else { self.all().len() as u64 };
            Ok(EPOCH + newest)
        })
    }
}

/// A store with a log.
struct Logged {
    inner: MemoryStore,
    log: Arc<Log>,
}

impl Storage for Logged {
    async fn get(&self, query: Query<'_>) -> Result<Variants, StorageError> {
        self.inner.get(query).await
    }

    async fn put(&self, key: &CacheKey, response: Arc<StoredResponse>, most: usize) -> Result<(), StorageError> {
        self.inner.put(key, response, most).await
    }

    async fn remove(&self, key: &CacheKey) -> Result<bool, StorageError> {
        self.inner.remove(key).await
    }

    fn purge_log(&self) -> Option<Arc<dyn PurgeLog>> {
        Some(self.log.clone())
    }

    async fn clear(&self) -> Result<(), StorageError> {
        self.inner.clear().await
    }

    fn usage(&self) -> StorageUsage {
        self.inner.usage()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    /// Only path and query of a key count.
    CutsKeys,
    /// One response for each key.
    OneVariant,
    /// Whatever comes last stays.
    LastStays,
    /// The bound on variants isn't kept.
    TooMany,
    /// The erasure of one principal is that of all.
    ErasesAll,
    /// Leases are granted to everybody.
    GrantsAll,
    /// Whatever is there is what was expected.
    SwapsAll,
    /// Entries are told apart by how long they are.
    KnowsByLength,
    /// It looks first, and puts later.
    SwapsInSteps,
}

struct Flawed {
    flaw: Flaw,
    kept: Mutex<HashMap<Vec<u8>, Variants>>,
}

impl Flawed {
    fn kept(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Variants>> {
        self.kept.lock().expect("no holder panics")
    }

    fn key(&self, key: &CacheKey) -> Vec<u8> {
        if self.flaw == Flaw::CutsKeys { key.resource().to_vec() } else { key.as_bytes().to_vec() }
    }
}

impl Storage for Flawed {
    async fn get(&self, query: Query<'_>) -> Result<Variants, StorageError> {
        Ok(self.kept().get(&self.key(query.key)).cloned().unwrap_or_default())
    }

    async fn put(&self, key: &CacheKey, response: Arc<StoredResponse>, most: usize) -> Result<(), StorageError> {
        let mut kept = self.kept();
        let variants = kept.entry(self.key(key)).or_default();
        *variants = match self.flaw {
            Flaw::OneVariant => with_variant(&[], response, most),
            Flaw::TooMany => with_variant(variants, response, 16),
            Flaw::LastStays => {
                let others = variants.iter().filter(|old| !old.same_variant(&response)).cloned();
                [response.clone()].into_iter().chain(others).take(most).collect()
            }
            _ => with_variant(variants, response, most),
        };
        Ok(())
    }

    async fn remove(&self, key: &CacheKey) -> Result<bool, StorageError> {
        Ok(self.kept().remove(&self.key(key)).is_some())
    }

    async fn erase(&self, _: &[u8; 16]) -> Result<(), StorageError> {
        if self.flaw == Flaw::ErasesAll { self.clear().await } else { Ok(()) }
    }

    async fn swap(&self, swap: Swap<'_>) -> Result<Swapped, StorageError> {
        let there = self.kept().get(&self.key(swap.key)).cloned().unwrap_or_default();
        let answer = swap.answer(&there)?;
        let is_done = match (self.flaw, swap.expected, there.first()) {
            (Flaw::SwapsAll, ..) => true,
            (Flaw::KnowsByLength, Expected::This(expected), Some(there)) => expected.body().len() == there.body().len(),
            _ => answer.is_none(),
        };
        if self.flaw == Flaw::SwapsInSteps {
            tokio::task::yield_now().await;
        }
        if !is_done {
            return Ok(answer.unwrap_or(Swapped::Done));
        }
        self.kept().insert(self.key(swap.key), Variants::from_iter([swap.new]));
        Ok(Swapped::Done)
    }

    async fn lease(&self, _: &CacheKey, _: Duration) -> Result<Lease, StorageError> {
        Ok(if self.flaw == Flaw::GrantsAll { Lease::Granted(LeaseToken([1; 16])) } else { Lease::Free })
    }

    async fn clear(&self) -> Result<(), StorageError> {
        self.kept().clear();
        Ok(())
    }

    fn usage(&self) -> StorageUsage {
        StorageUsage::new(self.kept().len() as u64, 0, 0)
    }
}
