//! [`Purge`]: what an application wants purged and how, until it is awaited.

use std::fmt;
use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::live::Live;
use crate::selector::{DryRun, PurgeError, Receipt, Selector};

/// A purge that is made when it is awaited; from [`CacheHandle::purge`](crate::CacheHandle::purge).
///
/// ```
/// # async fn purge(handle: larder::CacheHandle) -> Result<(), larder::PurgeError> {
/// use larder::Selector;
/// let products = Selector::Glob("/products/*".into());
/// println!("it will touch {} entries", handle.purge(products.clone()).dry_run().await?.entries);
/// let receipt = handle.purge(products).soft().await?;
/// println!("purge number {}", receipt.number);
/// # Ok(()) }
/// ```
#[must_use = "a purge is made when it is awaited"]
pub struct Purge {
    live: Arc<Live>,
    selector: Selector,
    soft: bool,
    refresh: Option<usize>,
}

impl Purge {
    pub(crate) fn new(live: Arc<Live>, selector: Selector) -> Self {
        Self { live, selector, soft: false, refresh: None }
    }

    /// Marks what it touches as stale instead of dropping it, as of now: it may still be served while it is refreshed or in place of an error, for as long as its stale windows say, and
    /// be confirmed by a 304. Nothing that is sent after the purge returned counts as fresh unless the handler was asked since.
    ///
    /// Values that `DataCache::add`, `increment`, `decrement` or `compare_and_set` have stored are never stale: they are there or not, so this passes them by; a hard purge doesn't.
    pub fn soft(mut self) -> Self {
        self.soft = true;
        self
    }

    /// A [soft](Self::soft) purge, behind which the hottest responses that it touches are asked for once more, so that clients find them fresh: those that were read most since they were stored,
    /// `most` at most. They are requested through the whole application, which has to be [given](crate::CacheHandle::refresh_through) once; a few at a time, each as one of the
    /// [refreshes](crate::CacheLayer::max_refreshes). [`Receipt::refreshing`] says how many these are, or why there are none.
    ///
    /// What is for one principal isn't among them, nor what the cache can't ask for itself ([`Refreshing::skipped`](crate::Refreshing::skipped)): their next clients refresh them.
    ///
    /// ```
    /// # async fn reprice(handle: larder::CacheHandle) -> Result<(), larder::PurgeError> {
    /// let receipt = handle.purge(larder::Selector::Tag("products".into())).refresh(100).await?;
    /// if let Some(refreshing) = receipt.refreshing {
    ///     println!("{} pages are on their way", refreshing.refreshing);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn refresh(mut self, most: usize) -> Self {
        self.refresh = Some(most);
        self.soft()
    }

    /// Makes the purge.
    async fn make(self) -> Result<Receipt, PurgeError> {
        let core = self.live.load_full();
        self.live.keep_coherent();
        let mut receipt = core.purge(&self.selector, self.soft).await?;
        if let Some(most) = self.refresh {
            let target = core.target(&self.selector, |key, any| core.searches.known_tag(key, any))?;
            receipt.refreshing = Some(core.refresh_hottest(&target, receipt.number, most).await);
        }
        Ok(receipt)
    }

    /// Counts what the purge would touch, and changes nothing.
    ///
    /// The store is walked through in steps between which others run, so what comes or goes meanwhile may be counted or not. Fills in flight aren't
    /// counted.
    ///
    /// # Errors
    /// As the purge, and [`PurgeError::Unscannable`] where the cache has another store than the one in memory.
    pub async fn dry_run(self) -> Result<DryRun, PurgeError> {
        self.live.load_full().dry_run(&self.selector).await
    }
}

impl IntoFuture for Purge {
    type Output = Result<Receipt, PurgeError>;
    type IntoFuture = PurgeFuture;

    fn into_future(self) -> PurgeFuture {
        PurgeFuture(Box::pin(self.make()))
    }
}

impl fmt::Debug for Purge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Purge").field("selector", &self.selector).field("soft", &self.soft).finish_non_exhaustive()
    }
}

/// The future of a [`Purge`].
#[must_use = "futures do nothing unless they are awaited"]
pub struct PurgeFuture(Pin<Box<dyn Future<Output = Result<Receipt, PurgeError>> + Send>>);

impl Future for PurgeFuture {
    type Output = Result<Receipt, PurgeError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for PurgeFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PurgeFuture").finish_non_exhaustive()
    }
}
