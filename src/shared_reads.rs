//! [`SharedReads`]: who asks the far store for what it is being asked already waits for that answer, so that a herd before an empty near store is one read.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::Semaphore;

use crate::key::CacheKey;
use crate::storage::Variants;

/// The reads that are under way, by a number for all that the answer may depend on.
#[derive(Debug, Default)]
pub(crate) struct SharedReads {
    under_way: Mutex<HashMap<u64, Read, ahash::RandomState>>,
}

#[derive(Debug)]
struct Read {
    key: CacheKey,
    /// Made by the first who waits for it. Most reads are over before there is one.
    awaited: Option<Arc<Awaited>>,
}

#[derive(Debug)]
struct Awaited {
    /// What the store had; `None` where it failed.
    answer: OnceLock<Option<Variants>>,
    /// Closed when the read is over, with an answer or without. Nobody ever gets a permit.
    over: Semaphore,
}

/// What came of asking.
#[derive(Debug)]
pub(crate) struct Asked {
    /// What the store had; `None` where it failed.
    pub(crate) variants: Option<Variants>,
    /// The answer was to another request, whose fields may have been others.
    pub(crate) is_shared: bool,
}

enum Seat<'a> {
    Leads(Leading<'a>),
    Follows(Arc<Awaited>),
    /// Something else has the number.
    Alone,
}

/// Who asks for all. However it ends, the others are told.
struct Leading<'a> {
    reads: &'a SharedReads,
    id: u64,
    /// Who asks has heard nothing yet.
    is_asking: bool,
}

impl Leading<'_> {
    fn ends_with(mut self, variants: &Option<Variants>) {
        self.is_asking = false;
        if let Some(awaited) = self.end() {
            // Only who leads sets it.
            let _ = awaited.answer.set(variants.clone());
            awaited.over.close();
        }
    }

    /// Who comes now asks anew; then nobody is left who could wait for this one.
    fn end(&self) -> Option<Arc<Awaited>> {
        self.reads.lock().remove(&self.id)?.awaited
    }
}

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        if self.is_asking
            && let Some(awaited) = self.end()
        {
            awaited.over.close();
        }
    }
}

impl SharedReads {
    /// Asks, or waits for who asks for the same already. If that one leaves before its answer, the next of those who wait asks.
    pub(crate) async fn read<F>(&self, id: u64, key: &CacheKey, ask: impl Fn() -> F) -> Asked
    where
        F: Future<Output = Option<Variants>>,
    {
        loop {
            match self.seat(id, key) {
                Seat::Leads(leading) => {
                    let variants = ask().await;
                    leading.ends_with(&variants);
                    return Asked { variants, is_shared: false };
                }
                Seat::Follows(read) => {
                    // An error means that it was closed, which is what is waited for.
                    let _ = read.over.acquire().await;
                    if let Some(variants) = read.answer.get() {
                        return Asked { variants: variants.clone(), is_shared: true };
                    }
                }
                Seat::Alone => return Asked { variants: ask().await, is_shared: false },
            }
        }
    }

    fn seat(&self, id: u64, key: &CacheKey) -> Seat<'_> {
        match self.lock().entry(id) {
            Entry::Occupied(mut read) if read.get().key == *key => {
                let new = || Arc::new(Awaited { answer: OnceLock::new(), over: Semaphore::new(0) });
                Seat::Follows(read.get_mut().awaited.get_or_insert_with(new).clone())
            }
            Entry::Occupied(_) => Seat::Alone,
            Entry::Vacant(place) => {
                place.insert(Read { key: key.clone(), awaited: None });
                Seat::Leads(Leading { reads: self, id, is_asking: true })
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Read, ahash::RandomState>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn a_herd_is_one_read_and_the_next_request_is_another() {
        let (reads, asked, answers) = (Arc::new(SharedReads::default()), Arc::new(AtomicUsize::new(0)), Notify::new());
        let (key, answers) = (CacheKey::new(b"h", "/a", None), Arc::new(answers));
        let read = || {
            let (reads, asked, answers, key) = (reads.clone(), asked.clone(), answers.clone(), key.clone());
            tokio::spawn(async move {
                let ask = || async {
                    asked.fetch_add(1, Ordering::Relaxed);
                    answers.notified().await;
                    Some(Variants::new())
                };
                reads.read(1, &key, ask).await.is_shared
            })
        };
        let herd: Vec<_> = (0..10).map(|_| read()).collect();
        tokio::task::yield_now().await;
        answers.notify_one();
        let mut shared = 0;
        for one in herd {
            shared += usize::from(one.await.unwrap());
        }
        assert_eq!((asked.load(Ordering::Relaxed), shared), (1, 9));
        answers.notify_one();
        assert!(!read().await.unwrap(), "what is over is asked anew");
        assert!(reads.lock().is_empty());
    }

    #[tokio::test]
    async fn when_who_asks_leaves_another_one_asks() {
        let reads = Arc::new(SharedReads::default());
        let key = CacheKey::new(b"h", "/a", None);
        let hanging = {
            let (reads, key) = (reads.clone(), key.clone());
            tokio::spawn(async move { reads.read(1, &key, std::future::pending).await.is_shared })
        };
        tokio::task::yield_now().await;
        let waiting = {
            let (reads, key) = (reads.clone(), key.clone());
            tokio::spawn(async move { reads.read(1, &key, async || Some(Variants::new())).await })
        };
        tokio::task::yield_now().await;
        hanging.abort();
        let answer = waiting.await.unwrap();
        assert!(!answer.is_shared && answer.variants.is_some());
    }

    #[tokio::test]
    async fn what_has_the_same_number_by_chance_is_asked_for_itself() {
        let reads = SharedReads::default();
        let (one, other) = (CacheKey::new(b"h", "/a", None), CacheKey::new(b"h", "/b", None));
        let inner = async || Some(reads.read(1, &other, async || None).await).and_then(|asked| asked.variants);
        assert!(reads.read(1, &one, inner).await.variants.is_none(), "it waits for itself");
    }
}
