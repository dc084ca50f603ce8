//! What a cache would do with requests that were made once, or might be: [`Simulation`] replays a [trace](Access) against the settings of a layer, and counts hits, bytes, what
//! the origin gets, and memory. A day's log takes seconds, since time is that of the trace; contents take no memory, so a large cache can be tried on a small machine.
//!
//! It refuses to guess: the rules, the keys, what may be stored and when it is stale, and for [`Eviction::TinyLfu`] and [`Eviction::Lru`] who leaves the memory store, are decided by the very code that
//! decides in the running cache. What a trace doesn't know is missing: `Cache-Control` and other fields (see [`origin_max_age`](Simulation::origin_max_age)), `Vary`, compression, quotas of principals, and how long the origin
//! takes: an answer is there at once, where in the running cache those who ask for it meanwhile wait for it, and are counted as collapsed.
//!
//! ```
//! use std::time::Duration;
//! use larder::simulate::{Simulation, Synthetic};
//! use larder::{CacheLayer, Policy};
//!
//! let layer = CacheLayer::in_memory(16 << 20).otherwise(Policy::shared(Duration::from_secs(60)));
//! let trace = || Synthetic::zipf(2_000, 0.9).requests(20_000);
//! let one = Simulation::new(&layer).run(trace())?;
//! // What would three instances behind a balancer cost the origin, and what would a store bring that they share?
//! let three = Simulation::new(&layer).instances(3).run(trace())?;
//! let shared = Simulation::new(&layer).instances(3).far(true).run(trace())?;
//! assert!(one.hit_rate() > three.hit_rate() && shared.origin_requests <= one.origin_requests);
//! println!("{shared}");
//! # Ok::<_, std::io::Error>(())
//! ```

mod access;
mod log;
mod origin;
mod outcome;
mod queues;
mod random;
mod shelf;
mod synthetic;
mod world;

use std::fmt;
use std::io;
use std::time::Duration;

pub use self::access::{Access, Client};
pub use self::log::{AccessLog, BadLines};
pub use self::outcome::Outcome;
pub use self::synthetic::{Sizes, Synthetic};
use self::world::World;
use crate::layer::CacheLayer;
use crate::settings::Settings;
use crate::storage;

/// Which entries leave first when there is no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Eviction {
    /// As [`storage::Eviction::TinyLfu`], by the memory store itself.
    #[default]
    TinyLfu,
    /// The same if its policy were told of every read and not of some: what it costs not to be.
    TinyLfuEveryRead,
    /// As [`storage::Eviction::Lru`], by the memory store itself.
    Lru,
    /// Those that came first.
    Fifo,
    /// Those that came first, apart from what was read since; newcomers on trial in a small queue of their own (Yang and others, SOSP 2023).
    S3Fifo,
}

impl From<storage::Eviction> for Eviction {
    fn from(eviction: storage::Eviction) -> Self {
        match eviction {
            storage::Eviction::TinyLfu => Self::TinyLfu,
            storage::Eviction::Lru => Self::Lru,
        }
    }
}

/// A cache to be, with its instances and what is behind them.
#[derive(Clone)]
#[must_use]
pub struct Simulation {
    settings: Settings,
    capacity: u64,
    max_entries: Option<u64>,
    eviction: Eviction,
    instances: usize,
    far: bool,
    far_capacity: Option<u64>,
    origin_max_age: Option<Duration>,
    origin_validates: bool,
    seed: u64,
}

/// Of an instance whose layer has no store in memory.
const CAPACITY: u64 = 256 << 20;

impl Simulation {
    /// Of a cache that is set up as `layer` is: its rules and settings, its store in memory (or one of 256 MiB where it has none), and a far store where it has one.
    /// The layer itself isn't used, and its store isn't touched.
    pub fn new(layer: &CacheLayer) -> Self {
        let settings = layer.settings().clone();
        let bounds = settings.backend.near.as_ref().map(|near| near.bounds());
        let (capacity, max_entries, eviction) = bounds.unwrap_or((CAPACITY, None, storage::Eviction::default()));
        Self {
            capacity,
            max_entries,
            eviction: eviction.into(),
            instances: 1,
            far: settings.backend.far.is_some(),
            far_capacity: None,
            origin_max_age: None,
            origin_validates: false,
            seed: 0,
            settings,
        }
    }

    /// The bytes that each instance may hold in memory.
    pub fn capacity(mut self, bytes: u64) -> Self {
        self.capacity = bytes;
        self
    }

    /// Which entries leave first.
    pub fn eviction(mut self, eviction: Eviction) -> Self {
        self.eviction = eviction;
        self
    }

    /// Every rule that has a TTL has this one, and so has what no rule matches.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        let policies = self.settings.rules.iter_mut().map(|rule| &mut rule.policy);
        for policy in policies.chain([&mut self.settings.otherwise]).filter(|policy| policy.ttl.is_some()) {
            policy.ttl = Some(ttl);
        }
        self
    }

    /// How many instances share the requests, each of which gets any with the same chance; one by default.
    pub fn instances(mut self, number: usize) -> Self {
        self.instances = number.max(1);
        self
    }

    /// Whether they share a far store, and with it what they purge. Without one, a write is noticed by the instance that it comes to and by no other.
    pub fn far(mut self, on: bool) -> Self {
        self.far = on;
        self
    }

    /// The bytes that the far store may hold, of which those that were asked for longest ago leave first; without bound by default.
    pub fn far_capacity(mut self, bytes: u64) -> Self {
        self.far_capacity = Some(bytes);
        self
    }

    /// What the origin's answers say of their lifetime: `Cache-Control: max-age`, which a trace doesn't know. Nothing by default, so that only rules with a TTL store anything.
    pub fn origin_max_age(mut self, lifetime: Duration) -> Self {
        self.origin_max_age = Some(lifetime);
        self
    }

    /// Whether the origin's answers have validators, so that it confirms what is stale without sending it again, while its size is the same; off by default.
    pub fn origin_validates(mut self, on: bool) -> Self {
        self.origin_validates = on;
        self
    }

    /// Decides all chances; zero by default. With the same one the same trace has the same outcome, on machines of one kind.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Replays a trace, which is read as it goes.
    ///
    /// # Errors
    /// That of the trace, if it ends with one.
    pub fn run(&self, trace: impl IntoIterator<Item = io::Result<Access>>) -> io::Result<Outcome> {
        let mut world = World::new(self);
        for access in trace {
            world.pass(&access?);
        }
        Ok(world.end())
    }
}

impl fmt::Debug for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulation")
            .field("capacity", &self.capacity)
            .field("eviction", &self.eviction)
            .field("instances", &self.instances)
            .field("far", &self.far)
            .finish_non_exhaustive()
    }
}
