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
use crate::purge::PurgeIndex;
use crate::regime::Regime;
use crate::response::Stamp;
use crate::sync::{Arc, AtomicU64, Mutex, Ordering};
use crate::tags::Tags;

/// The ways to make invalid what is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Resource,
    Path,
    Tag,
    Partition,
    Everything,
    /// A write: sealed and deleted by key; the number of purges stays.
    Write,
}

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
        let began = Moment { wall: UNIX_EPOCH, monotonic: Duration::ZERO };
        let call = Call { key: key(), regime: Regime::default(), authorization: false, began, expected: None };
        let bounds = Bounds { waiting: usize::MAX, age: Duration::MAX, joinable: true };
        match self.flights.board(&stamp, AUTHORITY, call, bounds, |_, _| true) {
            Seat::Lead(flight) => self.lead(flight, stamp),
            Seat::Follow(follower) => match block_on(follower.landed()) {
                Landed::Given(version) => version,
                Landed::Alone | Landed::Failed | Landed::Again => {
                    self.lead(self.flights.begin(&stamp, AUTHORITY, None), stamp)
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
        let put = || _ = self.store.lock().expect("no thread panics").insert(key(), Arc::new((stamp, version)));
        match self.place {
            Store::Near => _ = flight.commit(put),
            Store::Far if flight.commit(|| {}) => put(),
            Store::Far => {}
        }
        version
    }

    /// A look-up: what is stored, if no purge touches it.
    fn read(&self) -> Option<u64> {
        let found = self.store.lock().expect("no thread panics").get(&key()).cloned();
        found.filter(|found| self.purges.is_valid(&found.0)).map(|found| found.1)
    }

    /// The hash of a resource that shares no place with the one of all others.
    fn elsewhere(&self) -> u64 {
        let stamp = self.purges.stamp(&key(), 0);
        let places =
            [Some(stamp.resource), Some(stamp.path), stamp.partition, Some(TAG)].map(|id| id.map(|id| id % 16));
        (0..16).find(|place| !places.contains(&Some(*place))).expect("four of sixteen are taken")
    }

    /// A client: it is never given what is older than a purge that had returned when it asked.
    fn visit(&self) {
        let acknowledged = self.acknowledged.load(Ordering::SeqCst);
        let version = self.read().unwrap_or_else(|| self.fill());
        assert!(version >= acknowledged, "version {version} after the purge for {acknowledged} had returned");
    }

    /// New content, and the purge that goes with it.
    fn change(&self, way: Way) {
        let version = self.origin.fetch_add(1, Ordering::SeqCst) + 1;
        self.purge(way);
        self.acknowledged.fetch_max(version, Ordering::SeqCst);
    }

    /// In the order of steps that `CacheHandle` and `CacheCore` have.
    fn purge(&self, way: Way) {
        let stamp = self.purges.stamp(&key(), 0);
        let remove = || _ = self.store.lock().expect("no thread panics").remove(&key());
        match way {
            Way::Resource => {
                self.flights.seal_resource(&stamp);
                remove();
                self.purges.purge_resource(stamp.resource);
            }
            Way::Path => {
                self.flights.seal_path(stamp.path);
                self.purges.purge_resource(stamp.path);
            }
            Way::Tag => {
                self.purges.purge_tags(&[TAG]);
                self.flights.seal_tags(Some(AUTHORITY), &[TAG]);
            }
            Way::Partition => {
                let place = stamp.partition.expect("the key has one");
                self.purges.purge_resource(place);
                self.flights.seal_partition(place);
                remove();
            }
            Way::Everything => {
                self.purges.purge_everything();
                self.flights.seal_all();
                self.store.lock().expect("no thread panics").clear();
            }
            Way::Write => {
                self.flights.seal_resource(&stamp);
                remove();
                if self.place == Store::Far {
                    self.purges.purge_resource(stamp.resource);
                }
            }
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
            // A purge of something else: what is valid is held against all purges anew.
            let beside = {
                let world = world.clone();
                Box::new(move || _ = world.purges.purge_resource(world.elsewhere())) as Box<dyn FnOnce() + Send>
            };
            together(ways.iter().map(change).chain(visits).chain([beside]).collect());
            world.visit();
            let newest = ways.len() as u64;
            assert_eq!(world.read().unwrap_or(newest), newest, "all changes are done");
            assert_eq!(world.flights.len(), 0);
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
fn nothing_is_older_than_a_purge_of_everything() {
    nothing_is_older_than(&[Way::Everything; 2]);
}

#[test]
fn nothing_is_older_than_a_write() {
    nothing_is_older_than(&[Way::Write; 2]);
}

#[test]
fn nothing_is_older_than_purges_and_writes_that_race() {
    const PAIRS: [[Way; 2]; 3] =
        [[Way::Write, Way::Everything], [Way::Resource, Way::Tag], [Way::Path, Way::Everything]];
    PAIRS.iter().for_each(|ways| nothing_older_comes_back(60, ways));
}

#[test]
fn no_number_is_given_to_two_purges() {
    explore(20, || {
        let index = Arc::new(PurgeIndex::default());
        let purge = |times| {
            let index = index.clone();
            thread::spawn(move || {
                (0..times).for_each(|_| _ = index.purge_everything());
                index.stamp(&key(), index.current())
            })
        };
        let stamps = [purge(1), purge(2)].map(|thread| thread.join().expect("no thread panics"));
        index.purge_everything();
        assert!(stamps.iter().all(|stamp| !index.is_valid(stamp)), "what is older than the last purge: {stamps:?}");
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
