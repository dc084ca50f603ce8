//! Two instances that share a log of purges, with a store of one lock between them: what one of them has acknowledged it never serves again, whatever both of them purge and hear at the same time, and
//! whatever can't be written.

use std::time::{Duration, UNIX_EPOCH};

use shuttle::future::block_on;
use shuttle::thread;

use crate::clock::Moment;
use crate::coherence::{Asked, Coherence};
use crate::flight::{Bounds, Call, Flights, Landed, Seat};
use crate::key::CacheKey;
use crate::models::explore;
use crate::naming::Naming;
use crate::purge::PurgeIndex;
use crate::purge_message::PurgeMessage;
use crate::purged::Force;
use crate::regime::Regime;
use crate::response::Stamp;
use crate::storage::{LogFuture, PurgeLog, PurgeNews, PurgeSnapshot};
use crate::sync::{Arc, AtomicU64, Mutex, Ordering};
use crate::target::Target;

const NOW: Moment = Moment { wall: UNIX_EPOCH, monotonic: Duration::ZERO };
const ASKED: Asked = Asked { at: NOW, now: NOW, bound: Duration::from_secs(1) };

/// That there is one is all that is asked of it: the model has the exchanges in hand.
struct Unasked;

impl PurgeLog for Unasked {
    fn append<'a>(&'a self, _: &'a PurgeMessage, _: u64) -> LogFuture<'a, PurgeNews> {
        unreachable!("the model appends")
    }
    fn follow(&self, _: u64, _: Duration) -> LogFuture<'_, PurgeNews> {
        unreachable!("the model follows")
    }
    fn snapshot(&self) -> LogFuture<'_, PurgeSnapshot> {
        unreachable!("the model begins")
    }
}

/// What all instances share.
#[derive(Default)]
struct Shared {
    log: Mutex<Vec<PurgeMessage>>,
    store: Mutex<Option<Arc<(Stamp, u64)>>>,
    /// The version of the content.
    origin: AtomicU64,
}

struct Instance {
    shared: Arc<Shared>,
    index: PurgeIndex,
    flights: Arc<Flights<u64>>,
    coherence: Coherence,
    /// The version of the newest purge that this instance has acknowledged, or that it knows to have failed.
    settled: AtomicU64,
}

fn key() -> CacheKey {
    CacheKey::new(b"host", "/path", None)
}

impl Instance {
    fn new(shared: &Arc<Shared>) -> Arc<Self> {
        let instance = Self {
            shared: shared.clone(),
            index: PurgeIndex::new(Naming::Everywhere),
            flights: Arc::default(),
            coherence: Coherence::new(Some(std::sync::Arc::new(Unasked))),
            settled: AtomicU64::new(0),
        };
        let begun = instance.coherence.begin_again(&instance.index, 0, PurgeSnapshot::default(), ASKED, |_| ());
        begun.expect("it is the first");
        Arc::new(instance)
    }

    /// What the log has since `known`, after `purge` if there is one.
    fn ask(&self, known: u64, purge: Option<PurgeMessage>) -> PurgeNews {
        let mut log = self.shared.log.lock().expect("no thread panics");
        log.extend(purge);
        let numbered = (1..).zip(log.iter().cloned());
        PurgeNews::Since { purges: numbered.skip(known as usize).collect(), floor: 0 }
    }

    fn hear(&self, news: PurgeNews) {
        let heard = self.coherence.hear(&self.index, news, ASKED, |target| self.flights.close(target));
        heard.expect("nothing is missing");
    }

    fn listen(&self) {
        let known = self.index.current();
        self.hear(self.ask(known, None));
    }

    fn append(&self, message: PurgeMessage) {
        let known = self.index.current();
        self.hear(self.ask(known, Some(message)));
    }

    /// New content, and a purge of it, which can be written or not; then it is paid later.
    fn change(&self, can_be_written: bool) {
        let version = self.shared.origin.fetch_add(1, Ordering::SeqCst) + 1;
        let target = Target::place(self.index.stamp(&key(), 0).resource);
        let message = PurgeMessage::of(&target, Force::Hard);
        if can_be_written {
            self.append(message);
        } else {
            self.flights.close(&target);
            self.coherence.owe(message, target);
        }
        self.settled.fetch_max(version, Ordering::SeqCst);
    }

    fn pay(&self) {
        while let Some(owed) = self.coherence.first_owed() {
            self.append(owed.message);
            self.coherence.paid(owed.id, ASKED);
        }
    }

    /// What is stored, if it may be used.
    fn read(&self) -> Option<u64> {
        if !self.coherence.is_trusted(NOW) {
            return None;
        }
        let found = self.shared.store.lock().expect("no thread panics").clone()?;
        // Copies of what is far have numbers of their own to say how far they were held.
        let stamp = found.0.as_of(found.0.number);
        self.index.is_valid(&stamp, NOW, &key()).then_some(found.1)
    }

    fn fill(&self) -> u64 {
        let stamp = self.index.stamp(&key(), self.index.current());
        let call = Call { regime: Regime::default(), authorization: false, began: NOW, expected: None };
        let bounds = Bounds { waiting: usize::MAX, age: Duration::MAX, oldest: Duration::MAX, joinable: true };
        let flight = match self.flights.board(&stamp, &key(), 1, call, bounds, |_, _| true) {
            Seat::Lead(flight) => flight,
            Seat::Follow(follower) => match block_on(follower.landed()) {
                Landed::Given(version) => return version,
                Landed::Alone | Landed::Failed | Landed::Again => self.flights.begin(&stamp, &key(), 1, None),
            },
            Seat::Full => unreachable!("there is no bound"),
        };
        let version = self.shared.origin.load(Ordering::SeqCst);
        flight.give(version);
        flight.know_tags(None);
        if flight.commit(|| self.index.is_valid(&stamp, NOW, &key()), || {}) {
            let mut store = self.shared.store.lock().expect("no thread panics");
            // What began later stays.
            if store.as_ref().is_none_or(|stored| stored.0.number <= stamp.number) {
                *store = Some(Arc::new((stamp, version)));
            }
        }
        version
    }

    /// A client: it is never given what is older than a purge that this instance had acknowledged, or reported as failed, when it asked.
    fn visit(&self) {
        let settled = self.settled.load(Ordering::SeqCst);
        let (found, source) = match self.read() {
            Some(version) => (version, "the store"),
            None => (self.fill(), "a fill"),
        };
        assert!(found >= settled, "{found} of {source} after the purge for {settled}");
    }
}

/// What an instance does in one thread.
type Deed = fn(&Instance);

fn whatever_happens_at_once(thousandths: usize, deeds: &'static [(usize, Deed)]) {
    explore(thousandths, move || {
        let shared = Arc::new(Shared::default());
        let instances = [(); 2].map(|()| Instance::new(&shared));
        let threads: Vec<_> = deeds
            .iter()
            .map(|(n, deed)| {
                let instance = instances[*n].clone();
                thread::spawn(move || deed(&instance))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().expect("no thread panics"));
        let newest = shared.origin.load(Ordering::SeqCst);
        for instance in &instances {
            instance.pay();
        }
        for instance in &instances {
            instance.listen();
            assert!(instance.coherence.is_trusted(NOW), "nothing is owed any more");
            assert_eq!(instance.read().unwrap_or(newest), newest, "all is heard");
            assert_eq!(instance.index.current(), shared.log.lock().expect("no thread panics").len() as u64);
        }
    });
}

#[test]
fn purges_of_one_instance_that_bring_each_other() {
    whatever_happens_at_once(
        60,
        &[
            (0, |instance| instance.change(true)),
            (0, |instance| instance.change(true)),
            (0, |instance| (0..2).for_each(|_| instance.visit())),
            (0, Instance::visit),
        ],
    );
}

#[test]
fn purges_of_another_instance_that_are_heard_in_between() {
    whatever_happens_at_once(
        60,
        &[
            (0, |instance| instance.change(true)),
            (1, |instance| instance.change(true)),
            (0, Instance::listen),
            (0, |instance| (0..2).for_each(|_| instance.visit())),
            (1, Instance::visit),
        ],
    );
}

#[test]
fn purges_that_are_owed_and_paid() {
    whatever_happens_at_once(
        60,
        &[
            (0, |instance| instance.change(false)),
            (0, |instance| {
                instance.change(false);
                instance.pay();
            }),
            (0, Instance::listen),
            (0, |instance| (0..2).for_each(|_| instance.visit())),
        ],
    );
}

/// More than may be owed, while what is owed is paid.
#[test]
fn purges_that_become_one_of_everything() {
    whatever_happens_at_once(
        40,
        &[
            (0, |instance| (0..3).for_each(|_| instance.change(false))),
            (0, Instance::pay),
            (0, |instance| (0..2).for_each(|_| instance.visit())),
        ],
    );
}
