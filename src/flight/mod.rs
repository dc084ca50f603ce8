//! Fills in flight: requests that went to the handler and whose response may be stored. Requests for the same thing join the flight that is there and wait for
//! what it brings.
//!
//! - A purge *closes* the flights it may touch, those among them whose tags nobody knows yet: nobody joins any more. Whether it touched what they bring, the purge index
//!   says when that is stored.
//! - A write, which leaves no number behind, *seals* the flights to its URI: what they bring is never stored.
//!
//! ```text
//! Asked ─┬─ give ────> Given    the head has come and may be shared; followers have it at once
//!        ├─ decline ─> Alone    nobody else may have it; followers go on their own
//!        ├─ again ───> Again    it was in the store already; followers look there
//!        └─ drop ────> Failed   no answer, or none that says anything; followers elect a new leader
//! Given ─── decline ─> Alone    it turned out too large to be kept; who has it reads on, nobody else joins
//! ```

mod gather;
mod landing;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use slab::Slab;
use smallvec::{SmallVec, smallvec};
use tracing::Span;

pub(crate) use self::gather::Gatherer;
use self::landing::remove;
use crate::clock::Moment;
use crate::key::CacheKey;
use crate::leasing::Lent;
use crate::pattern::Meant;
use crate::regime::Regime;
use crate::response::Stamp;
use crate::sync::{Arc, AtomicBool, AtomicUsize, Mutex, MutexGuard, OnceLock, Ordering, PoisonError, hasher, sized};
use crate::tags::Tags;
use crate::target::Target;
use crate::used::Used;
use crate::variance::Variance;

const SHARDS: usize = sized(32, 2);

/// All flights of a cache, by the hash of their path and query. `T` is what they bring, and `K` by which they are told apart.
#[derive(Debug)]
pub(crate) struct Flights<T, K = CacheKey> {
    shards: [Mutex<Shard<T, K>>; SHARDS],
    waiting: AtomicUsize,
}

/// Mostly there is one flight to a path.
type Shard<T, K> = HashMap<u64, SmallVec<[Arc<Ticket<T, K>>; 1]>, ahash::RandomState>;

/// What two requests must have in common, beside their key, for one to wait for the answer to the other.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) regime: Regime,
    /// Answers to requests with credentials are judged otherwise (RFC 9111 §3.5).
    pub(crate) authorization: bool,
    pub(crate) began: Moment,
    /// Which variant the answer will be, if it varies as earlier ones did.
    pub(crate) expected: Option<Variance>,
}

#[derive(Debug)]
struct Ticket<T, K> {
    key: K,
    /// The number of the newest purge when it began.
    number: u64,
    resource: u64,
    path: u64,
    authority: u64,
    /// What the response can be purged by, beside its URI. Not known until its head is there.
    tags: OnceLock<Option<Arc<Tags>>>,
    /// Where those come that what it brings is made from; once somebody asked, it may be any.
    used: std::sync::OnceLock<Arc<Used>>,
    partition: Option<u64>,
    closed: AtomicBool,
    sealed: AtomicBool,
    /// Of the request that leads; those that follow say so.
    span: std::sync::OnceLock<Span>,
    /// `None` where nobody may join.
    call: Option<Call>,
    progress: Mutex<Progress<T>>,
}

#[derive(Debug)]
struct Progress<T> {
    stage: Stage<T>,
    followers: Slab<Option<Waker>>,
}

#[derive(Clone, Debug)]
enum Stage<T> {
    Asked,
    Given(T),
    Alone,
    Failed,
    Again,
}

/// One fill, from before its handler is called until its response is stored or given up. Dropping it, however that happens, ends the flight.
#[derive(Debug)]
pub(crate) struct Flight<T, K = CacheKey> {
    flights: Arc<Flights<T, K>>,
    ticket: Arc<Ticket<T, K>>,
    /// Which it has so that other instances wait for it as well.
    lent: Option<std::sync::Arc<Lent>>,
    /// It is under way no more: nobody finds it any longer.
    has_landed: bool,
}

/// A request that waits for what a flight brings.
#[derive(Debug)]
pub(crate) struct Follower<T, K = CacheKey> {
    flights: Arc<Flights<T, K>>,
    ticket: Arc<Ticket<T, K>>,
    place: usize,
}

/// What came of waiting.
#[derive(Clone, Debug)]
pub(crate) enum Landed<T> {
    /// The answer, which may be shared; whether with this request is another question.
    Given(T),
    /// The answer is nobody else's.
    Alone,
    /// There was none, or an error.
    Failed,
    /// The handler wasn't asked: the answer is in the store.
    Again,
}

/// Where a request finds itself.
#[derive(Debug)]
pub(crate) enum Seat<T, K = CacheKey> {
    /// It goes to the handler.
    Lead(Flight<T, K>),
    /// Another one did already.
    Follow(Follower<T, K>),
    /// Too many wait already.
    Full,
}

/// The bounds on joining.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// How many requests may wait, for all flights together.
    pub(crate) waiting: usize,
    /// How old a flight may be for others to join while it has no answer.
    pub(crate) age: Duration,
    /// How old it must not be though it has one.
    pub(crate) oldest: Duration,
    /// Whether others may join the one that is begun.
    pub(crate) joinable: bool,
}

impl<T, K> Default for Flights<T, K> {
    fn default() -> Self {
        let shard = |_| Mutex::new(HashMap::with_hasher(hasher()));
        Self { shards: std::array::from_fn(shard), waiting: AtomicUsize::new(0) }
    }
}

impl<T: Clone, K: Meant + Clone + Eq> Flights<T, K> {
    /// A flight of one's own; others may join if it has a `call`.
    pub(crate) fn begin(self: &Arc<Self>, stamp: &Stamp, key: &K, authority: u64, call: Option<Call>) -> Flight<T, K> {
        self.take_off(&mut self.shard(stamp.path), stamp, key, authority, call)
    }

    /// Joins a flight that was called for the same, if `fits` says that its answer will do or has done; else begins one.
    pub(crate) fn board(
        self: &Arc<Self>,
        stamp: &Stamp,
        key: &K,
        authority: u64,
        call: Call,
        bounds: Bounds,
        fits: impl Fn(&Call, Option<&T>) -> bool,
    ) -> Seat<T, K> {
        let mut shard = self.shard(stamp.path);
        for ticket in shard.get(&stamp.path).into_iter().flatten() {
            let Some(theirs) = ticket.call.as_ref().filter(|_| !ticket.is_closed()) else { continue };
            if ticket.key != *key || theirs.regime != call.regime || theirs.authorization != call.authorization {
                continue;
            }
            let age = call.began.since(theirs.began);
            if age >= bounds.oldest {
                continue;
            }
            let mut progress = ticket.progress();
            let joins = match &progress.stage {
                Stage::Asked => age <= bounds.age && fits(theirs, None),
                Stage::Given(given) => fits(theirs, Some(given)),
                Stage::Alone | Stage::Failed | Stage::Again => false,
            };
            if !joins {
                continue;
            }
            let waiting = self.waiting.fetch_add(1, Ordering::Relaxed);
            if waiting >= bounds.waiting && matches!(progress.stage, Stage::Asked) {
                self.waiting.fetch_sub(1, Ordering::Relaxed);
                return Seat::Full;
            }
            let place = progress.followers.insert(None);
            drop(progress);
            return Seat::Follow(Follower { flights: self.clone(), ticket: ticket.clone(), place });
        }
        Seat::Lead(self.take_off(&mut shard, stamp, key, authority, bounds.joinable.then_some(call)))
    }

    fn take_off(
        self: &Arc<Self>,
        shard: &mut Shard<T, K>,
        stamp: &Stamp,
        key: &K,
        authority: u64,
        call: Option<Call>,
    ) -> Flight<T, K> {
        let ticket = Arc::new(Ticket {
            key: key.clone(),
            number: stamp.number,
            resource: stamp.resource,
            path: stamp.path,
            authority,
            tags: OnceLock::new(),
            used: std::sync::OnceLock::new(),
            partition: stamp.partition,
            closed: AtomicBool::new(false),
            sealed: AtomicBool::new(false),
            span: std::sync::OnceLock::new(),
            call,
            progress: Mutex::new(Progress { stage: Stage::Asked, followers: Slab::new() }),
        });
        match shard.entry(stamp.path) {
            Entry::Occupied(mut others) => others.get_mut().push(ticket.clone()),
            Entry::Vacant(place) => _ = place.insert(smallvec![ticket.clone()]),
        }
        Flight { flights: self.clone(), ticket, lent: None, has_landed: false }
    }
}

impl<T, K: Meant + Eq> Flights<T, K> {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        let count = |shard: &Mutex<Shard<T, K>>| {
            shard.lock().unwrap_or_else(PoisonError::into_inner).values().map(SmallVec::len).sum::<usize>()
        };
        self.shards.iter().map(count).sum()
    }

    /// How many have gone to the handler for this key and may still bring what can be stored. `path` is the hash of its path and query.
    pub(crate) fn under_way(&self, path: u64, key: &K) -> usize {
        let is_it = |ticket: &&Arc<Ticket<T, K>>| !ticket.is_sealed() && ticket.call.is_some() && ticket.key == *key;
        self.shard(path).get(&path).into_iter().flatten().filter(is_it).count()
    }

    /// How many requests wait for others.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// The smallest number that one of them bears. Purges that are newer must be remembered until it has ended.
    pub(crate) fn oldest(&self) -> Option<u64> {
        let mut oldest = None;
        self.each(|ticket| oldest = oldest.into_iter().chain([ticket.number]).min());
        oldest
    }

    /// Closes the flights that a purge touches, or may touch. To be called when the purge is in the index.
    pub(crate) fn close(&self, target: &Target) {
        self.each(|ticket| {
            if ticket.may_be_touched_by(target) {
                ticket.closed.store(true, Ordering::Release);
            }
        });
    }

    /// Seals the flights to one resource.
    pub(crate) fn seal_resource(&self, stamp: &Stamp) {
        self.seal_while(stamp, || ());
    }

    /// The same, and changes what is stored of it: none of those that begin later is sealed, or finds what was there before.
    pub(crate) fn seal_while<R>(&self, stamp: &Stamp, change: impl FnOnce() -> R) -> R {
        let shard = self.shard(stamp.path);
        let flights = shard.get(&stamp.path).into_iter().flatten();
        for ticket in flights.filter(|ticket| ticket.resource == stamp.resource) {
            ticket.sealed.store(true, Ordering::Release);
        }
        change()
    }

    fn each(&self, mut visit: impl FnMut(&Ticket<T, K>)) {
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.values().flatten().for_each(|ticket| visit(ticket));
        }
    }
}

impl<T, K> Flights<T, K> {
    fn shard(&self, path: u64) -> MutexGuard<'_, Shard<T, K>> {
        self.shards[path as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T, K: Meant> Ticket<T, K> {
    /// Whether a purge touches it. Where its tags aren't known yet, any tag of its authority may be among them.
    fn may_be_touched_by(&self, target: &Target) -> bool {
        let hashes = match target {
            Target::Hashes(hashes) => hashes,
            Target::Pattern(pattern) => return self.key.is_meant_by(pattern),
            Target::Everything => return true,
        };
        let places = [self.resource, self.path].into_iter().chain(self.partition);
        places.into_iter().any(|place| hashes.places.contains(&place))
            || match self.tags.get() {
                Some(tags) if self.used.get().is_none() => {
                    tags.iter().flat_map(|tags| tags.iter()).any(|tag| hashes.tags.contains(tag))
                }
                _ => !hashes.tags.is_empty() && hashes.authority.is_none_or(|one| one == self.authority),
            }
    }
}

impl<T, K> Ticket<T, K> {
    fn is_sealed(&self) -> bool {
        self.sealed.load(Ordering::Acquire)
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire) || self.is_sealed()
    }

    fn progress(&self) -> MutexGuard<'_, Progress<T>> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves to another stage, if `from` allows it, and tells the followers.
    fn advance(&self, to: Stage<T>, from: impl Fn(&Stage<T>) -> bool) {
        let mut progress = self.progress();
        if !from(&progress.stage) {
            return;
        }
        progress.stage = to;
        let followers: Vec<Waker> = progress.followers.iter_mut().filter_map(|(_, waker)| waker.take()).collect();
        // A waker is somebody else's code.
        drop(progress);
        followers.into_iter().for_each(Waker::wake);
    }
}

impl<T, K> Flight<T, K> {
    /// The head of the response has arrived, and with it what it can be purged by.
    pub(crate) fn know_tags(&self, tags: Option<Arc<Tags>>) {
        // A flight has one head, so this is set once.
        let _ = self.ticket.tags.set(tags);
    }

    /// In which span it is.
    pub(crate) fn trace(&self, span: &Span) {
        // A flight is led by one request, so this is set once.
        let _ = self.ticket.span.set(span.clone());
    }

    /// Other instances wait for what it brings. The lease ends with the flight, unless somebody keeps it longer.
    pub(crate) fn lend(&mut self, lent: Lent) {
        self.lent = Some(std::sync::Arc::new(lent));
    }

    /// The lease that it has, if it has one.
    pub(crate) fn lent(&self) -> Option<std::sync::Arc<Lent>> {
        self.lent.clone()
    }

    /// Whether others may join it.
    pub(crate) fn is_joinable(&self) -> bool {
        self.ticket.call.is_some()
    }

    /// With which the first part of an answer can be given when the flight itself is elsewhere; `None` where nobody may join.
    pub(crate) fn announcer(&self) -> Option<Announcer<T, K>> {
        self.is_joinable().then(|| Announcer(self.ticket.clone()))
    }

    /// Whether a write has touched it, so that its response must not be stored, nor what was found before it be used.
    pub(crate) fn is_sealed(&self) -> bool {
        self.ticket.is_sealed()
    }

    /// Whether a write has touched it, or a purge may have.
    pub(crate) fn is_closed(&self) -> bool {
        self.ticket.is_closed()
    }

    /// The answer has come, or more of it, and may be shared.
    pub(crate) fn give(&self, given: T) {
        self.ticket.advance(Stage::Given(given), |stage| matches!(stage, Stage::Asked | Stage::Given(_)));
    }

    /// The answer is for nobody else.
    pub(crate) fn decline(&self) {
        self.lent.iter().for_each(|lent| lent.is_declined());
        self.ticket.advance(Stage::Alone, |_| true);
    }

    /// The answer was in the store already. Those who wait look there themselves: whoever came after a purge must not have what was looked up before it.
    pub(crate) fn again(&self) {
        self.ticket.advance(Stage::Again, |stage| matches!(stage, Stage::Asked));
    }
}

/// Says what a flight brings before all of it is there.
#[derive(Debug)]
pub(crate) struct Announcer<T, K = CacheKey>(Arc<Ticket<T, K>>);

impl<T, K> Announcer<T, K> {
    /// The answer has come, unless more is known already.
    pub(crate) fn announce(self, given: T) {
        self.0.advance(Stage::Given(given), |stage| matches!(stage, Stage::Asked));
    }
}

impl<T, K> Drop for Flight<T, K> {
    fn drop(&mut self) {
        if !self.has_landed {
            remove(&mut self.flights.shard(self.ticket.path), &self.ticket);
        }
        self.ticket.used.get().into_iter().for_each(|used| used.end());
        self.ticket.advance(Stage::Failed, |stage| matches!(stage, Stage::Asked));
    }
}

impl<T: Clone, K> Follower<T, K> {
    /// Waits for what the flight brings.
    pub(crate) async fn landed(&self) -> Landed<T> {
        poll_fn(|cx| self.poll_landed(cx)).await
    }

    /// Whether a write came while it waited.
    pub(crate) fn is_sealed(&self) -> bool {
        self.ticket.is_sealed()
    }

    /// The span of the request that leads.
    pub(crate) fn leading(&self) -> Option<&Span> {
        self.ticket.span.get()
    }

    fn poll_landed(&self, cx: &Context<'_>) -> Poll<Landed<T>> {
        let mut progress = self.ticket.progress();
        match &progress.stage {
            Stage::Asked => {}
            Stage::Given(given) => return Poll::Ready(Landed::Given(given.clone())),
            Stage::Alone => return Poll::Ready(Landed::Alone),
            Stage::Failed => return Poll::Ready(Landed::Failed),
            Stage::Again => return Poll::Ready(Landed::Again),
        }
        if let Some(waker) = progress.followers.get_mut(self.place) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl<T, K> Drop for Follower<T, K> {
    fn drop(&mut self) {
        self.ticket.progress().followers.try_remove(self.place);
        self.flights.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
