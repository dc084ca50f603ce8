//! The task that listens to the log of purges. It begins with the first use of the cache within a runtime, and ends with the shutdown or when nobody has a hold on the cache any more.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{Asked, Coherence, PATIENCE};
use crate::cache::CacheCore;
use crate::error::StorageError;
use crate::live::Live;
use crate::storage::{PurgeLog, PurgeNews};
use crate::sync::Ordering;

/// How long a snapshot may take, which may be of hundreds of thousands of purges.
const LOADING: Duration = Duration::from_secs(10);

/// How much longer than it was asked to wait the log may take to say that there is nothing new.
const ANSWERING: Duration = Duration::from_millis(500);

/// How long the log is asked to wait for news, if the bound doesn't say less. Each instance asks it so often.
const LISTENING: Duration = Duration::from_millis(250);

/// The first pause after a failure, and the longest: a log that fails is asked no more often than one that doesn't, and is soon found to be back.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), LISTENING);

struct Follower {
    live: Weak<Live>,
    coherence: Arc<Coherence>,
    log: Arc<dyn PurgeLog>,
}

impl Live {
    /// Has the log of the store followed, if there is one.
    pub(crate) fn keep_coherent(self: &Arc<Self>) {
        let core = self.load();
        let Some(log) = &core.coherence.log else { return };
        // Without a runtime nothing can be heard: nothing is trusted, and each request looks again whether there is one.
        if core.is_closing()
            || tokio::runtime::Handle::try_current().is_err()
            || core.coherence.is_following.swap(true, Ordering::AcqRel)
        {
            return;
        }
        let follower = Follower { live: Arc::downgrade(self), coherence: core.coherence.clone(), log: log.clone() };
        core.spawn(async move {
            let stopped = follower.coherence.stopped.clone();
            stopped.run_until_cancelled(follower.run()).await;
            // What is owed when the cache is shut down: once more, and that is all that can be done.
            if let Some(core) = follower.core() {
                let _ = core.pay().await;
            }
        });
    }
}

impl Drop for Follower {
    /// Also where the runtime drops its task.
    fn drop(&mut self) {
        self.coherence.began.send_replace(true);
        self.coherence.is_following.store(false, Ordering::Release);
    }
}

impl Follower {
    async fn run(&self) {
        let mut failures = 0;
        loop {
            let exchange = pin!(self.exchange());
            let ended = match self.is_first() {
                true => self.while_others_wait(exchange).await,
                false => exchange.await,
            };
            match ended {
                None => return,
                Some(Ok(())) => failures = 0,
                Some(Err(error)) => {
                    if self.coherence.failed() {
                        tracing::warn!(target: "larder", %error, "the log of purges can't be followed: soon nothing that is stored is used");
                    }
                    sleep(pause(failures)).await;
                    failures = (failures + 1).min(16);
                }
            }
        }
    }

    fn is_first(&self) -> bool {
        !*self.coherence.began.borrow()
    }

    /// Nobody waits for longer than that, whatever comes of it.
    async fn while_others_wait<T>(&self, mut exchange: Pin<&mut impl Future<Output = T>>) -> T {
        let ended = either(exchange.as_mut(), pin!(sleep(PATIENCE))).await;
        self.coherence.began.send_replace(true);
        match ended {
            Either::First(ended) => ended,
            Either::Second(()) => exchange.await,
        }
    }

    /// One step along the log; `None` when nobody has a hold on the cache any more.
    async fn exchange(&self) -> Option<Result<(), StorageError>> {
        let core = self.core()?;
        if !self.coherence.holds_thread() {
            return Some(core.load_purges().await.map(drop));
        }
        if let Err(error) = core.pay().await {
            return Some(Err(error));
        }
        drop(core);
        self.listen().await
    }

    /// Asks for what is new. The cache isn't held meanwhile.
    async fn listen(&self) -> Option<Result<(), StorageError>> {
        let core = self.core()?;
        let (known, at, bound) = (core.purges.current(), core.now(), core.settings.staleness_bound);
        // Until there is trust again, an answer at once is worth more than news.
        let is_trusted = self.coherence.is_trusted(at);
        let wait = if is_trusted { LISTENING.min(bound / 4) } else { Duration::ZERO }.max(Duration::from_millis(1));
        drop(core);
        let began = Instant::now();
        let mut news = pin!(timeout(wait + ANSWERING, self.log.follow(known, wait)));
        let news = loop {
            match either(news.as_mut(), pin!(self.coherence.owing.notified())).await {
                Either::First(news) => break news,
                Either::Second(()) => {
                    if let Err(error) = self.core()?.pay().await {
                        return Some(Err(error));
                    }
                }
            }
        };
        let news = match news {
            Ok(Ok(news)) => news,
            Ok(Err(error)) => return Some(Err(error)),
            Err(_) => return Some(Err(StorageError::new("the log of purges does not answer"))),
        };
        let core = self.core()?;
        let is_over = matches!(news, PurgeNews::Gap) && core.purges.current() != known;
        let is_nothing = matches!(&news, PurgeNews::Since { purges, .. } if purges.is_empty());
        // A gap behind what was known then is none any more, where somebody has loaded a snapshot since. Else the next step does.
        if !is_over {
            let asked = Asked { at, now: core.now(), bound };
            if core.hear(news, asked).is_err() {
                drop(core);
                // What is known is good for a while, and a log that always says so isn't to be asked without a pause.
                sleep(PAUSES.0).await;
                return Some(Ok(()));
            }
        }
        drop(core);
        if is_nothing && is_trusted {
            // It may have answered sooner than it was asked to.
            either(pin!(sleep_until(began + wait)), pin!(self.coherence.owing.notified())).await;
        }
        Some(Ok(()))
    }

    fn core(&self) -> Option<Arc<CacheCore>> {
        self.live.upgrade().map(|live| live.load_full())
    }
}

/// Up to twice as long after each failure, and anything less, so that not all instances come back at once.
fn pause(failures: u32) -> Duration {
    let (first, longest) = PAUSES;
    let most = first.saturating_mul(1 << failures.min(10)).min(longest);
    // Without randomness, the longest.
    let share = getrandom::u64().map_or(1.0, |random| (random >> 11) as f64 / (1_u64 << 53) as f64);
    first.min(most).max(most.mul_f64(share))
}

enum Either<A, B> {
    First(A),
    Second(B),
}

/// Whichever ends first; the other one can be waited for again.
async fn either<A: Future, B: Future>(mut first: Pin<&mut A>, mut second: Pin<&mut B>) -> Either<A::Output, B::Output> {
    poll_fn(|cx| {
        if let Poll::Ready(ended) = first.as_mut().poll(cx) {
            return Poll::Ready(Either::First(ended));
        }
        second.as_mut().poll(cx).map(Either::Second)
    })
    .await
}

impl CacheCore {
    /// Loads what the log remembers. Returns the number of the newest purge then.
    pub(super) async fn load_purges(&self) -> Result<u64, StorageError> {
        let log = self.coherence.log.as_ref().ok_or_else(|| StorageError::new("there is no log of purges"))?;
        let (at, known) = (self.now(), self.purges.current());
        let snapshot = timeout(LOADING, log.snapshot()).await;
        let snapshot = snapshot.map_err(|_| StorageError::new("the snapshot of purges takes too long"))??;
        let asked = Asked { at, now: self.now(), bound: self.settings.staleness_bound };
        let close = |target: &crate::target::Target| self.close_flights(target);
        let floor = snapshot.floor;
        let current = self.coherence.begin_again(&self.purges, known, snapshot, asked, close)?;
        if floor > known {
            self.fates.begin_epoch(floor);
        }
        if current > known {
            tracing::info!(target: "larder", known, current, "the purges of all instances are known, by a snapshot of their log");
            self.sweep_soon();
        }
        Ok(current)
    }

    /// Applies what the log said.
    pub(super) fn hear(&self, news: PurgeNews, asked: Asked) -> Result<Option<u64>, super::Lost> {
        let known = self.purges.current();
        let heard = self.coherence.hear(&self.purges, news, asked, |target| self.close_flights(target));
        if self.purges.current() > known {
            self.sweep_soon();
        }
        heard
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_never_long() {
        for failures in 0..40 {
            let (first, longest) = PAUSES;
            let pause = pause(failures);
            assert!(first <= pause && pause <= longest, "{failures}: {pause:?}");
        }
        assert_eq!(pause(0), PAUSES.0);
    }
}
