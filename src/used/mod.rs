//! [`UsedTags`]: through it what a response is made from gives the response its tags, while a handler makes it.
//!
//! Nothing is made for a handler that uses none: its request refers to the flight that is there anyway ([`Sink`]), and only who asks makes a
//! [`Used`]. From then on purges of any tag close the flight, since which tags it will bear isn't known before its end.

mod scope;

use std::fmt;

use http::Extensions;
use smallvec::SmallVec;

use crate::admission::InHand;
use crate::cache::State;
use crate::response::Stamp;
#[cfg(feature = "data")]
use crate::response::StoredResponse;
use crate::stats::count;
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};
use crate::tags::Names;

pub(crate) use self::scope::{Scope, Sink};

/// The tags of the response that is being made: what is added here, a purge of that tag touches, as if the handler had named it with [`Cached::tag`](crate::Cached::tag).
/// So whatever reads something on the way to a response can say what that was, however deep in the application it is.
///
/// A handler finds it in its request ([`of`](Self::of); with axum it is an argument), code below it without being given anything ([`current`](Self::current)). Reads of
/// the data cache add the tags of what they found by themselves.
///
/// - Take it *before* you read what the tag stands for. From then on the response isn't given to requests that come after a purge of whichever tag.
/// - What is added before the response's head or while its body streams counts; what comes when it is stored already is ignored, and counted ([`Stats::tags_too_late`](crate::Stats::tags_too_late)).
/// - Where nothing can be stored (a route that bypasses the cache, a write, no cache at all, [switched off](crate::CacheLayer::propagate_tags)), adding does nothing.
/// - The task of the handler, its body included, has it. Another task has it if it is given: [`scope`](Self::scope).
/// - What the response that is stored was made from stays with it when a 304 confirms it, whatever that was made from.
/// - Within two caches both get the tags of what the inner one asks its handler for. What the inner one has stored already brings none to the outer one; let its
///   [fields](crate::CacheLayer::forward_tags) name them.
///
/// ```
/// use larder::UsedTags;
/// # async fn read(_: u64) -> String { String::new() }
/// // Somewhere below a handler, which knows nothing of it.
/// async fn product(id: u64) -> String {
///     let tags = UsedTags::current();
///     let product = read(id).await;
///     tags.add(format!("product:{id}"));
///     product
/// }
/// ```
#[derive(Clone, Debug, Default)]
pub struct UsedTags(SmallVec<[Arc<Used>; 1]>);

impl UsedTags {
    /// Of the response to the request that has these extensions.
    pub fn of(extensions: &Extensions) -> Self {
        extensions.get().map(|in_hand: &InHand| in_hand.scope().open()).unwrap_or_default()
    }

    /// Of the response that this task makes.
    #[inline]
    pub fn current() -> Self {
        Scope::current().map(Scope::open).unwrap_or_default()
    }

    /// The response bears this tag as well. What is too long, or has control characters, makes it bear every tag.
    pub fn add(&self, tag: impl AsRef<str>) {
        self.0.iter().for_each(|used| used.gather(|gathered| gathered.names.add_used(tag.as_ref())));
    }

    /// Whether anybody listens: a response is being made that may be stored.
    pub fn is_heard(&self) -> bool {
        self.0.iter().any(|used| !used.lock().is_over)
    }

    /// Goes with `future`, for a task of its own: what that uses counts as used by the response here.
    ///
    /// ```
    /// # async fn handler() {
    /// use larder::UsedTags;
    /// let stock = tokio::spawn(UsedTags::current().scope(async {
    ///     UsedTags::current().add("stock");
    ///     17
    /// }));
    /// # let _ = stock.await; }
    /// ```
    pub fn scope<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        Scope::of(self.0.iter().cloned().map(Sink::Own)).around(future)
    }

    /// What is stored was used: its tags count. Where a soft purge has made it stale, what is made from it was asked for no later than it was.
    #[cfg(feature = "data")]
    #[inline]
    pub(crate) fn add_stored(&self, stored: &StoredResponse) {
        self.add_stamp(&stored.stamp);
    }

    /// The same of what has this stamp.
    pub(crate) fn add_stamp(&self, stamp: &Stamp) {
        let tags = stamp.tags.as_deref();
        let number = stamp.stale_from().map(|_| stamp.number);
        if tags.is_some() || number.is_some() {
            let add = |gathered: &mut Gathered| {
                tags.iter().for_each(|tags| gathered.names.add_all(tags));
                gathered.add_number(number);
            };
            self.0.iter().for_each(|used| used.gather(add));
        }
    }

    /// What was made from something else was used.
    pub(crate) fn add_made(&self, made: &Used) {
        if !self.0.is_empty() {
            let made = made.so_far();
            let add = |gathered: &mut Gathered| {
                gathered.names.add_gathered(&made.names);
                gathered.add_number(made.number);
            };
            self.0.iter().for_each(|used| used.gather(add));
        }
    }
}

/// What one response, or value, was made from so far.
pub(crate) struct Used {
    state: std::sync::Arc<State>,
    gathered: Mutex<Gathered>,
}

/// What has come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gathered {
    pub(crate) names: Names,
    /// The number of the oldest thing that was stale by a soft purge when it was used. What is made from it is as old: purges since then are held against both.
    pub(crate) number: Option<u64>,
    /// What is made is stored, or won't be.
    is_over: bool,
}

impl Gathered {
    fn add_number(&mut self, number: Option<u64>) {
        self.number = self.number.into_iter().chain(number).min();
    }
}

impl Used {
    pub(crate) fn new(state: &std::sync::Arc<State>) -> Self {
        Self { state: state.clone(), gathered: Mutex::default() }
    }

    /// What has come so far.
    pub(crate) fn so_far(&self) -> Gathered {
        self.lock().clone()
    }

    /// All that has come. What comes now is too late.
    pub(crate) fn close(&self) -> Gathered {
        let mut gathered = self.lock();
        gathered.is_over = true;
        gathered.clone()
    }

    /// Nothing of what comes counts.
    pub(crate) fn end(&self) {
        self.lock().is_over = true;
    }

    fn gather(&self, add: impl FnOnce(&mut Gathered)) {
        let mut gathered = self.lock();
        if gathered.is_over {
            drop(gathered);
            count(&self.state.counters.tags_too_late);
            tracing::debug!(target: "larder", "a tag came when its response was stored already, or given up");
        } else {
            add(&mut gathered);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Gathered> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Used {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Used").field(&*self.lock()).finish()
    }
}
