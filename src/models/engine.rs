//! Flights, purges, budget and refreshes, with a store of one lock in place of the real one.

use std::collections::HashMap;
use std::time::{Duration, UNIX_EPOCH};

use shuttle::future::block_on;
use shuttle::thread;

use crate::background::{Background, NoPlace};
use crate::budget::FillBudget;
use crate::clock::Moment;
use crate::flight::{Bounds, Call, Flight, Flights, Landed, Seat};
use crate::key::{CacheKey, Part};
use crate::models::explore;
use crate::pattern::Pattern;
use crate::purge::PurgeIndex;
use crate::purged::Force;
use crate::regime::Regime;
use crate::response::Stamp;
use crate::sync::{Arc, AtomicU64, Mutex, Ordering};
use crate::tags::Tags;
use crate::target::Target;

/// The ways to make invalid what is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Resource,
    Path,
    Tag,
    Partition,
    Pattern,
    Everything,
    /// A soft purge by tag: what is stored stays, and isn't fresh any more.
    SoftTag,
    /// The same of everything.
    SoftEverything,
    /// A write: sealed and deleted by key; the number of purges stays.
    Write,
}

impl Way {
    fn force(self) -> Force {
        match self {
            Self::SoftTag | Self::SoftEverything => Force::Soft(ARRIVAL),
            _ => Force::Hard,
        }
    }
}

/// When everything happens.
const ARRIVAL: Moment = Moment { wall: UNIX_EPOCH, monotonic: Duration::ZERO };

const AUTHORITY: u64 = 1;
const TAG: u64 = 11;

/// Where the store is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Store {
    /// In memory: what is committed is there before the next purge may look.
    #[default]
    Near,
    /// Elsewhere: what is committed gets there later, so that only the numbers hold it against purges.
    Far,
}

#[derive(Default)]
struct World {
    place: Store,
    purges: PurgeIndex,
    flights: Arc<Flights<u64>>,
    store: Mutex<HashMap<CacheKey, Arc<(Stamp, u64)>>>,
    /// The version of the content that a handler answers with.
    origin: AtomicU64,
    /// The version that the newest purge was made for that has returned.
    acknowledged: AtomicU64,
    /// The same of hard purges: what is older isn't even there as stale.
    ended: AtomicU64,
}

fn key() -> CacheKey {
    let mut key = CacheKey::new(b"host", "/path", None);
    key.push(Part::Partition, &[7; 16]);
    key
}

impl World {
    /// A miss: the answer to a request that is on its way already, or one's own.
    fn fill(&self) -> u64 {
        let stamp = self.purges.stamp(&key(), self.purges.current());
        let call = Call { regime: Regime::default(), authorization: false, began: ARRIVAL, expected: None };
        let bounds = Bounds { waiting: usize::MAX, age: Duration::MAX, oldest: Duration::MAX, joinable: true };
        match self.flights.board(&stamp, &key(), AUTHORITY, call, bounds, |_, _| true) {
            Seat::Lead(flight) => self.lead(flight, stamp),
            Seat::Follow(follower) => match block_on(follower.landed()) {
                Landed::Given(version) => version,
                Landed::Alone | Landed::Failed | Landed::Again => {
                    self.lead(self.flights.begin(&stamp, &key(), AUTHORITY, None), stamp)
                }
            },
            Seat::Full => unreachable!("there is no bound"),
        }
    }

    /// From the handler to the store. Returns the version that the handler answered with.
    fn lead(&self, flight: Flight<u64>, mut stamp: Stamp) -> u64 {
        let version = self.origin.load(Ordering::SeqCst);
        // One handler in three fails, and one answer in three is nobody else's.
        match version % 3 {
            2 if flight.is_joinable() => return version,
            1 => flight.decline(),
            _ => flight.give(version),
        }
        stamp.tags = Tags::nameless(&[TAG]);
        flight.know_tags(stamp.tags.clone());
        let stored = Arc::new((stamp, version));
        let put = |stored| _ = self.store.lock().expect("no thread panics").insert(key(), stored);
        match self.place {
            // Every second one as an answer that is there as a whole.
            Store::Near if version.is_multiple_of(2) => {
                let land = |stored, is_followed: bool| {
                    put(stored);
                    is_followed.then_some(version)
                };
                flight.land(stored, |stored| self.is_valid(&stored.0), land);
            }
            Store::Near => _ = flight.commit(|| self.is_valid(&stored.0), || put(stored.clone())),
            Store::Far if flight.commit(|| self.is_valid(&stored.0), || {}) => put(stored),
            Store::Far => {}
        }
        version
    }

    fn is_valid(&self, stamp: &Stamp) -> bool {
        self.purges.is_valid(stamp, ARRIVAL, &key())
    }

    /// A look-up: what is stored, if no purge touches it; and whether it is fresh.
    fn look_up(&self) -> Option<(u64, bool)> {
        let found = self.store.lock().expect("no thread panics").get(&key()).cloned();
        let valid = found.filter(|found| self.is_valid(&found.0));
        valid.map(|found| (found.1, found.0.stale_from().is_none()))
    }

    /// What is stored and fresh.
    fn read(&self) -> Option<u64> {
        self.look_up().filter(|(_, is_fresh)| *is_fresh).map(|(version, _)| version)
    }

    /// A client: it is never given as fresh what is older than a purge that had returned when it asked, nor anything that is older than a hard one. What is
    /// stale is taken along, as if to stand in for an error: a hard purge may come meanwhile.
    fn visit(&self) {
        let (acknowledged, ended) = (self.acknowledged.load(Ordering::SeqCst), self.ended.load(Ordering::SeqCst));
        let stale = match self.look_up() {
            Some((version, true)) => {
                return assert!(version >= acknowledged, "{version} is fresh after the purge for {acknowledged}");
            }
            stale => stale,
        };
        if let Some((version, _)) = stale {
            assert!(version >= ended, "{version} is there after the hard purge for {ended}");
        }
        let version = self.fill();
        assert!(version >= acknowledged, "version {version} after the purge for {acknowledged} had returned");
    }

    /// New content, and the purge that goes with it.
    fn change(&self, way: Way) {
        let version = self.origin.fetch_add(1, Ordering::SeqCst) + 1;
        self.purge(way);
        self.acknowledged.fetch_max(version, Ordering::SeqCst);
        if matches!(way.force(), Force::Hard) {
            self.ended.fetch_max(version, Ordering::SeqCst);
        }
    }

    /// In the order of steps that the sweep has: what is near is held against all purges, and then they are forgotten.
    fn sweep(&self) {
        let current = self.purges.current();
        let oldest = self.flights.oldest().unwrap_or(current);
        let found = self.store.lock().expect("no thread panics").get(&key()).cloned();
        if let Some(found) = found.filter(|found| !self.is_valid(&found.0)) {
            let mut store = self.store.lock().expect("no thread panics");
            if store.get(&key()).is_some_and(|stored| Arc::ptr_eq(stored, &found)) {
                store.remove(&key());
            }
        }
        self.purges.retire(current.min(oldest));
    }

    /// In the order of steps that `CacheHandle` and `CacheCore` have.
    fn purge(&self, way: Way) {
        let stamp = self.purges.stamp(&key(), 0);
        let remove = || _ = self.store.lock().expect("no thread panics").remove(&key());
        let target = match way {
            Way::Resource => Target::place(stamp.resource),
            Way::Path => Target::place(stamp.path),
            Way::Tag | Way::SoftTag => Target::tags(&[TAG], Some(AUTHORITY)),
            Way::Partition => Target::place(stamp.partition.expect("the key has one")),
            Way::Pattern => Target::Pattern(Pattern::glob("/pa*").expect("a pattern")),
            Way::Everything | Way::SoftEverything => Target::Everything,
            Way::Write => {
                self.flights.seal_resource(&stamp);
                remove();
                if self.place == Store::Near {
                    return;
                }
                Target::place(stamp.resource)
            }
        };
        self.purges.purge(&target, way.force());
        self.flights.close(&target);
        match way {
            Way::Resource | Way::Partition => remove(),
            Way::Everything => self.store.lock().expect("no thread panics").clear(),
            _ => {}
        }
    }
}

/// Runs all of `work` at the same time, each in a thread of its own.
fn together(work: Vec<Box<dyn FnOnce() + Send>>) {
    let threads: Vec<_> = work.into_iter().map(|work| thread::spawn(work)).collect();
    threads.into_iter().for_each(|thread| thread.join().expect("no thread panics"));
}

/// Changes beside two clients that come twice, with either store. Afterwards only the newest is there, and nothing is in flight.
fn nothing_older_comes_back(thousandths: usize, ways: &'static [Way]) {
    for place in [Store::Near, Store::Far] {
        explore(thousandths / 2, move || {
            let world = Arc::new(World { place, ..World::default() });
            let change = |way: &Way| {
                let (world, way) = (world.clone(), *way);
                Box::new(move || world.change(way)) as Box<dyn FnOnce() + Send>
            };
            let visits = [2, 2].map(|times| {
                let world = world.clone();
                Box::new(move || (0..times).for_each(|_| world.visit())) as Box<dyn FnOnce() + Send>
            });
            // A purge of something else: what is valid is held against all purges anew. And a sweep of what is near: all of them are forgotten.
            let beside = {
                let world = world.clone();
                Box::new(move || {
                    world.purges.purge(&Target::place(1), Force::Soft(ARRIVAL));
                    if world.place == Store::Near {
                        world.sweep();
                    }
                }) as Box<dyn FnOnce() + Send>
            };
            together(ways.iter().map(change).chain(visits).chain([beside]).collect());
            world.visit();
            let newest = ways.len() as u64;
            assert_eq!(world.read().unwrap_or(newest), newest, "all changes are done");
            assert_eq!(world.flights.len(), 0);
            if place == Store::Near {
                world.sweep();
                assert_eq!(world.purges.live(), 0, "nothing is in flight, so nothing is remembered");
                assert_eq!(world.read().unwrap_or(newest), newest);
            }
        });
    }
}

/// A purge alone, and two at the same time: the second may hide what the first did wrong.
fn nothing_is_older_than(way: &'static [Way; 2]) {
    nothing_older_comes_back(50, &way[..1]);
    nothing_older_comes_back(30, way);
}

#[test]
fn nothing_is_older_than_a_purge_of_its_resource() {
    nothing_is_older_than(&[Way::Resource; 2]);
}

#[test]
fn nothing_is_older_than_a_purge_of_its_path() {
    nothing_is_older_than(&[Way::Path; 2]);
}

#[test]
fn nothing_is_older_than_a_purge_of_its_tag() {
    nothing_is_older_than(&[Way::Tag; 2]);
}

#[test]
fn nothing_is_older_than_a_purge_of_its_partition() {
    nothing_is_older_than(&[Way::Partition; 2]);
}

#[test]
fn nothing_is_older_than_a_purge_of_a_pattern() {
    nothing_is_older_than(&[Way::Pattern; 2]);
}

#[test]
fn nothing_is_fresh_and_older_than_a_soft_purge() {
    nothing_is_older_than(&[Way::SoftTag; 2]);
    nothing_is_older_than(&[Way::SoftEverything, Way::SoftTag]);
}

#[test]
fn nothing_is_older_than_a_purge_of_everything() {
    nothing_is_older_than(&[Way::Everything; 2]);
}

#[test]
fn nothing_is_older_than_a_write() {
    nothing_is_older_than(&[Way::Write; 2]);
}

#[test]
fn nothing_is_older_than_purges_and_writes_that_race() {
    const PAIRS: [[Way; 2]; 6] = [
        [Way::Write, Way::Everything],
        [Way::Resource, Way::Tag],
        [Way::Path, Way::Everything],
        [Way::SoftTag, Way::Tag],
        [Way::SoftEverything, Way::Pattern],
        [Way::Write, Way::SoftTag],
    ];
    PAIRS.iter().for_each(|ways| nothing_older_comes_back(40, ways));
}

#[test]
fn no_number_is_given_to_two_purges() {
    explore(20, || {
        let index = Arc::new(PurgeIndex::default());
        let purge = |times| {
            let index = index.clone();
            thread::spawn(move || {
                (0..times).for_each(|_| _ = index.purge(&Target::Everything, Force::Hard));
                index.stamp(&key(), index.current())
            })
        };
        let stamps = [purge(1), purge(2)].map(|thread| thread.join().expect("no thread panics"));
        index.purge(&Target::Everything, Force::Hard);
        let is_valid = |stamp: &Stamp| index.is_valid(stamp, ARRIVAL, &key());
        assert!(!stamps.iter().any(is_valid), "what is older than the last purge: {stamps:?}");
    });
}

/// What is taken along from the store is a copy, with a stamp of its own. The first of these purges makes it stale and the second one ends it; a sweep of the store
/// doesn't see it, and forgets both: then a copy may count as purged where what is stored is stale, and never as better than the purges that have returned.
#[test]
fn a_copy_is_never_taken_for_better_than_what_is_known_of_it() {
    explore(60, || {
        let (index, returned) = (Arc::new(PurgeIndex::default()), Arc::new(AtomicU64::new(0)));
        let stored = Arc::new(index.stamp(&key(), index.current()));
        let copy = Arc::new(Stamp::clone(&stored));
        let looks = |stamp: Arc<Stamp>| {
            let (index, returned) = (index.clone(), returned.clone());
            Box::new(move || {
                // 0 is fresh, 1 stale, 2 purged.
                let is = |stamp: &Stamp| match index.is_valid(stamp, ARRIVAL, &key()) {
                    true => u64::from(stamp.stale_from().is_some()),
                    false => 2,
                };
                for _ in 0..2 {
                    let returned = returned.load(Ordering::SeqCst);
                    let copy = Stamp::clone(&stamp);
                    assert!(is(&copy) >= returned, "{returned} have returned: {copy:?}");
                    assert!(is(&stamp) >= returned, "{returned} have returned: {stamp:?}");
                }
            }) as Box<dyn FnOnce() + Send>
        };
        let looking = [looks(stored.clone()), looks(copy)];
        let purges = Box::new(move || {
            for force in [Force::Soft(ARRIVAL), Force::Hard] {
                let number = index.purge(&Target::place(stored.path), force);
                returned.store(number, Ordering::SeqCst);
                // Only what is stored is held against it.
                let is_valid = index.is_valid(&stored, ARRIVAL, &key());
                assert_eq!(is_valid, matches!(force, Force::Soft(_)));
                index.retire(number);
            }
        }) as Box<dyn FnOnce() + Send>;
        together(looking.into_iter().chain([purges]).collect());
    });
}

#[test]
fn the_budget_is_kept_and_comes_back() {
    const LIMIT: usize = 10;
    explore(50, || {
        let (budget, held) = (Arc::new(FillBudget::default()), Arc::new(Mutex::new(0)));
        let fill = |pieces: &'static [usize]| {
            let (budget, held) = (budget.clone(), held.clone());
            Box::new(move || {
                let mut mine = 0;
                for &piece in pieces {
                    if budget.take(piece, LIMIT) {
                        mine += piece;
                        *held.lock().expect("no thread panics") += piece;
                    }
                    let all = *held.lock().expect("no thread panics");
                    assert!(all <= LIMIT && budget.held() <= LIMIT, "{all} of {LIMIT} bytes");
                }
                *held.lock().expect("no thread panics") -= mine;
                budget.give_back(mine);
            }) as Box<dyn FnOnce() + Send>
        };
        together(vec![fill(&[4, 4]), fill(&[3, 4]), fill(&[6, 1])]);
        assert_eq!(budget.held(), 0);
        assert!(budget.take(LIMIT, LIMIT), "all of it is free again");
    });
}

#[test]
fn one_refresh_of_each_variant_runs_and_not_too_many() {
    const MOST: usize = 2;
    explore(50, || {
        let (refreshes, running) = (Arc::<Background>::default(), Arc::new(Mutex::new(Vec::new())));
        let refresh = |ids: &'static [u64]| {
            let (refreshes, running) = (refreshes.clone(), running.clone());
            Box::new(move || {
                for &id in ids {
                    let Ok(right) = refreshes.begin(Some(id), MOST) else { continue };
                    {
                        let mut running = running.lock().expect("no thread panics");
                        assert!(!running.contains(&id), "two refreshes of {id}");
                        running.push(id);
                        assert!(running.len() <= MOST, "{running:?}");
                    }
                    running.lock().expect("no thread panics").retain(|other| *other != id);
                    drop(right);
                }
            }) as Box<dyn FnOnce() + Send>
        };
        together(vec![refresh(&[1, 2]), refresh(&[1, 3]), refresh(&[2, 1])]);
        let rights = [1, 2].map(|id| refreshes.begin(Some(id), MOST));
        assert!(rights.iter().all(Result::is_ok), "every right came back");
        assert_eq!(refreshes.begin(Some(1), MOST).err(), Some(NoPlace::Running));
    });
}
