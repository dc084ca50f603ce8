//! [`Behind`]: work that keeps a processor busy, such as to hash large content, done behind the answer that it is about.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::cache::CacheCore;
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How long such work waits. When a server has taken the last of an answer, much of it is still in buffers; to send it must not compete with what is
/// done behind it.
const MOMENT: Duration = Duration::from_millis(10);

type Work = Box<dyn FnOnce() + Send>;

/// The work that waits, in order.
///
/// Few workers do it: the other half of the processors is for answers, some of the work takes the memory of its content twice, and each thread that does
/// any keeps memory from what it did. So a worker goes on for as long as there is more.
pub(crate) struct Behind {
    queue: Mutex<Queue>,
    /// How many workers there may be. To ask the system reads files, which is no work for the moment in which an answer ends.
    most: usize,
}

#[derive(Default)]
struct Queue {
    /// Since when it waits.
    waiting: VecDeque<(Instant, Work)>,
    workers: usize,
}

impl CacheCore {
    /// Like [`spawn`](Self::spawn), for work that keeps a processor busy, behind an answer that has just ended: after a moment, and when its turn
    /// comes. Without a runtime it is done here and now.
    pub(crate) fn spawn_behind(&self, work: impl FnOnce() + Send + 'static) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return work() };
        if let Some(worker) = Worker::for_one_more(&self.behind, Box::new(work)) {
            let abandon = self.abandon.clone();
            self.tasks.spawn_blocking_on(move || worker.run(&abandon), &runtime);
        }
    }
}

impl Default for Behind {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self { queue: Mutex::default(), most: (processors / 2).clamp(1, 4) }
    }
}

impl Behind {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One who works until nothing waits any more.
struct Worker {
    behind: Arc<Behind>,
    has_ended: bool,
}

impl Worker {
    /// Puts `work` into the queue; if there may be one more worker, who has to [run](Self::run) then.
    fn for_one_more(behind: &Arc<Behind>, work: Work) -> Option<Self> {
        let mut queue = behind.queue();
        queue.waiting.push_back((Instant::now(), work));
        let may_begin = queue.workers < behind.most;
        queue.workers += usize::from(may_begin);
        may_begin.then(|| Self { behind: behind.clone(), has_ended: false })
    }

    fn run(mut self, abandon: &CancellationToken) {
        while !abandon.is_cancelled()
            && let Some((since, work)) = self.next()
        {
            // This thread may block, and who waits behind this has waited meanwhile.
            std::thread::sleep(MOMENT.saturating_sub(since.elapsed()));
            // As with any task, a panic is the end of that work only. It is reported where it happens.
            let _ = catch_unwind(AssertUnwindSafe(work));
        }
    }

    /// What has waited longest. Where nothing waits, this worker has ended, and whoever comes with more knows it.
    fn next(&mut self) -> Option<(Instant, Work)> {
        let mut queue = self.behind.queue();
        let next = queue.waiting.pop_front();
        if next.is_none() {
            self.has_ended = true;
            queue.workers -= 1;
        }
        next
    }
}

impl Drop for Worker {
    /// Before its end only where a shutdown abandons what is left, or the runtime ends: then nothing may wait for a worker that there isn't.
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        let mut queue = self.behind.queue();
        queue.workers -= 1;
        let abandoned = if queue.workers == 0 { std::mem::take(&mut queue.waiting) } else { VecDeque::new() };
        drop(queue);
        drop(abandoned);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn given(behind: &Arc<Behind>, work: impl FnOnce() + Send + 'static) -> Option<Worker> {
        Worker::for_one_more(behind, Box::new(work))
    }

    #[test]
    fn few_workers_do_all_in_order_and_a_panic_ends_nothing_else() {
        let behind = Arc::new(Behind::default());
        let (done, order) = mpsc::channel();
        let mut workers = Vec::new();
        for n in 0..10 {
            let done = done.clone();
            workers.extend(given(&behind, move || {
                assert_ne!(n, 3, "as it should");
                done.send(n).unwrap();
            }));
        }
        assert_eq!(workers.len(), behind.most);
        let first = workers.remove(0);
        first.run(&CancellationToken::new());
        assert_eq!(order.try_iter().collect::<Vec<_>>(), [0, 1, 2, 4, 5, 6, 7, 8, 9]);
        workers.into_iter().for_each(|worker| worker.run(&CancellationToken::new()));
        let next = given(&behind, move || done.send(10).unwrap()).expect("nobody works any more");
        next.run(&CancellationToken::new());
        assert_eq!(order.try_recv(), Ok(10));
    }

    #[test]
    fn nothing_waits_for_a_worker_that_there_is_not() {
        let behind = Arc::new(Behind::default());
        let held = Arc::new(());
        let work = || {
            let held = held.clone();
            move || drop(held)
        };
        for abandoned in [false, true] {
            let mut workers = Vec::new();
            (0..10).for_each(|_| workers.extend(given(&behind, work())));
            assert_eq!(Arc::strong_count(&held), 11);
            let token = CancellationToken::new();
            if abandoned {
                token.cancel();
                workers.into_iter().for_each(|worker| worker.run(&token));
            } else {
                // The runtime ended.
                drop(workers);
            }
            assert_eq!(Arc::strong_count(&held), 1, "{abandoned}");
        }
    }
}
