//! [`PurgeSender`]: a bounded channel into a cache, for events that say what changed. A task of the cache makes the purges in the order in which they
//! were sent, and answers each with its receipt, so that who sent it knows when the event may be forgotten.

use std::fmt;
use std::future::IntoFuture;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use crate::handle::CacheHandle;
use crate::selector::{PurgeError, Receipt, Selector};

/// What is sent through a [`PurgeSender`]: a selector, and how it is to be purged. A selector alone is a hard purge.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct PurgeEvent {
    selector: Selector,
    soft: bool,
    refresh: Option<usize>,
}

impl PurgeEvent {
    /// A hard purge.
    pub fn new(selector: Selector) -> Self {
        Self { selector, soft: false, refresh: None }
    }

    /// See [`Purge::soft`](crate::Purge::soft).
    pub fn soft(mut self) -> Self {
        self.soft = true;
        self
    }

    /// See [`Purge::refresh`](crate::Purge::refresh).
    pub fn refresh(mut self, most: usize) -> Self {
        self.refresh = Some(most);
        self
    }

    /// What it is aimed at.
    pub fn selector(&self) -> &Selector {
        &self.selector
    }
}

impl From<Selector> for PurgeEvent {
    fn from(selector: Selector) -> Self {
        Self::new(selector)
    }
}

/// The end of a channel into a cache; clones send into the same one. From [`CacheHandle::purges`].
#[derive(Clone)]
pub struct PurgeSender {
    queue: mpsc::Sender<Order>,
}

/// A purge that was sent and not waited for yet. Awaited, it gives the receipt; dropped, the purge is made all the same.
#[must_use = "awaited, it tells whether the purge was made"]
pub struct PurgeTicket {
    receipt: oneshot::Receiver<Result<Receipt, PurgeError>>,
}

/// A purge that was not sent, with what was to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotSent {
    /// As many wait as may.
    #[error("as many purges wait as may; {} is not among them", Logged(&.0.selector))]
    Full(PurgeEvent),
    /// The cache was shut down.
    #[error("the cache was shut down; {} is not purged", Logged(&.0.selector))]
    Closed(PurgeEvent),
}

/// What logs and errors show of a selector: of a partition not whose it is, and of a URI not its query, in which may be a token.
pub(crate) struct Logged<'a>(pub(crate) &'a Selector);

/// An event in the queue.
struct Order {
    event: PurgeEvent,
    /// `None` when it was answered.
    answer: Option<oneshot::Sender<Result<Receipt, PurgeError>>>,
}

impl CacheHandle {
    /// A channel for events that say what is to be purged, in which at most `capacity` of them wait, at least one. It is for those who learn of changes elsewhere than in a
    /// request: the worker of an outbox, a listener to a database or a message queue.
    ///
    /// Purges are made one after another, in the order in which they were sent. Nothing that was sent is dropped silently: each has an answer. The task that makes them is one of
    /// the cache's own. It ends with its last sender, and with [`shutdown`](Self::shutdown), which first has made what was sent until then, if its deadline allows that.
    ///
    /// To be called within a tokio runtime; without one, what is sent is answered with [`PurgeError::Closed`].
    ///
    /// ```
    /// # async fn changes() -> Vec<(u64, String)> { Vec::new() }
    /// # async fn forget(_: u64) {}
    /// # async fn deliver(handle: larder::CacheHandle) -> Result<(), larder::PurgeError> {
    /// use larder::Selector;
    /// let purges = handle.purges(1024);
    /// for (id, tag) in changes().await {
    ///     purges.send(Selector::Tag(tag)).await?; // it has taken effect
    ///     forget(id).await; // and only now the event may go
    /// }
    /// # Ok(()) }
    /// ```
    pub fn purges(&self, capacity: usize) -> PurgeSender {
        let (queue, orders) = mpsc::channel(capacity.clamp(1, mpsc_most()));
        self.live.load().spawn(serve(self.clone(), orders));
        PurgeSender { queue }
    }
}

/// The most that a channel of tokio takes.
fn mpsc_most() -> usize {
    tokio::sync::Semaphore::MAX_PERMITS
}

impl PurgeSender {
    /// Sends an event, waits for its turn, and returns when the purge has taken effect.
    ///
    /// If this is dropped while it waits for room, nothing was sent; if later, the purge is made all the same.
    ///
    /// # Errors
    /// As [`CacheHandle::purge`]; and [`PurgeError::Closed`] if the cache was shut down before the purge was made.
    pub async fn send(&self, event: impl Into<PurgeEvent>) -> Result<Receipt, PurgeError> {
        let (order, ticket) = Order::new(event.into());
        // What comes back is answered by nobody else.
        self.queue.send(order).await.map_err(|returned| returned.0.give_back()).map_err(|_| PurgeError::Closed)?;
        ticket.await
    }

    /// Sends an event without waiting, from wherever: it is in the queue, or it comes back.
    ///
    /// # Errors
    /// [`NotSent`], with the event.
    pub fn try_send(&self, event: impl Into<PurgeEvent>) -> Result<PurgeTicket, NotSent> {
        let (order, ticket) = Order::new(event.into());
        match self.queue.try_send(order) {
            Ok(()) => Ok(ticket),
            Err(TrySendError::Full(order)) => Err(NotSent::Full(order.give_back())),
            Err(TrySendError::Closed(order)) => Err(NotSent::Closed(order.give_back())),
        }
    }
}

/// Makes the purges that are sent, until nobody can send any more or the cache is shut down; then those that were sent already.
async fn serve(handle: CacheHandle, mut orders: mpsc::Receiver<Order>) {
    let closed = handle.live.load().closed.clone();
    while let Some(Some(order)) = closed.run_until_cancelled(orders.recv()).await {
        order.carry_out(&handle).await;
    }
    orders.close();
    while let Some(order) = orders.recv().await {
        order.carry_out(&handle).await;
    }
}

impl Order {
    fn new(event: PurgeEvent) -> (Self, PurgeTicket) {
        let (answer, receipt) = oneshot::channel();
        (Self { event, answer: Some(answer) }, PurgeTicket { receipt })
    }

    async fn carry_out(mut self, handle: &CacheHandle) {
        let PurgeEvent { selector, soft, refresh } = self.event.clone();
        let mut purge = handle.purge(selector);
        if soft {
            purge = purge.soft();
        }
        if let Some(most) = refresh {
            purge = purge.refresh(most);
        }
        let made = purge.into_future().await;
        let unheard = match self.answer.take() {
            Some(answer) => answer.send(made).err(),
            None => None,
        };
        if let Some(Err(error)) = unheard {
            tracing::error!(target: "larder", %error, selector = %Logged(&self.event.selector), "a purge failed that nobody waits for");
        }
    }

    fn give_back(mut self) -> PurgeEvent {
        self.answer = None;
        self.event.clone()
    }
}

impl Drop for Order {
    fn drop(&mut self) {
        // Who waits is told by the end of the channel.
        if self.answer.as_ref().is_some_and(oneshot::Sender::is_closed) {
            tracing::error!(target: "larder", selector = %Logged(&self.event.selector), "the cache was shut down before a purge was made that nobody waits for");
        }
    }
}

impl Future for PurgeTicket {
    type Output = Result<Receipt, PurgeError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.receipt).poll(cx).map(|answer| answer.unwrap_or(Err(PurgeError::Closed)))
    }
}

impl fmt::Display for Logged<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Selector::Partition(_) => f.write_str("partition"),
            Selector::Uri(uri) => match uri.split_once('?') {
                Some((path, _)) => write!(f, "uri:{path}?(query)"),
                None => self.0.fmt(f),
            },
            other => other.fmt(f),
        }
    }
}

impl fmt::Debug for PurgeSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PurgeSender").field("room", &self.queue.capacity()).finish_non_exhaustive()
    }
}

impl fmt::Debug for PurgeTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PurgeTicket").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_and_errors_show_neither_whose_a_partition_is_nor_a_query() {
        let rows = [
            (Selector::Partition(b"user-17".to_vec()), "partition"),
            (Selector::Uri("/reset?token=S3CRET".into()), "uri:/reset?(query)"),
            (Selector::Uri("https://shop.test/a".into()), "uri:https://shop.test/a"),
            (Selector::Tag("product:1".into()), "tag:product:1"),
            (Selector::Everything, "everything"),
        ];
        for (selector, shown) in rows {
            assert_eq!(Logged(&selector).to_string(), shown);
            for error in [NotSent::Full(selector.clone().into()), NotSent::Closed(selector.into())] {
                let text = error.to_string();
                let is_shown = text.contains(&format!("; {shown} is not "));
                assert!(is_shown && !text.contains("user-17") && !text.contains("S3CRET"), "{text}");
            }
        }
    }
}
