//! [`Handover`]: work that goes on when who waits for it goes away. A task of the cache takes it over, as one of its [refreshes](crate::CacheLayer::max_refreshes).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::cache::CacheCore;

pub(crate) struct Handover<T: Send + 'static> {
    core: Arc<CacheCore>,
    /// `None` when it is done, or has panicked.
    work: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
}

impl<T: Send + 'static> Handover<T> {
    pub(crate) fn new(core: Arc<CacheCore>, work: impl Future<Output = T> + Send + 'static) -> Self {
        Self { core, work: Some(Box::pin(work)) }
    }
}

impl<T: Send + 'static> Future for Handover<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        // Taken out: when the work panics, nobody may go on with it.
        let Some(mut work) = self.work.take() else { return Poll::Pending };
        let polled = work.as_mut().poll(cx);
        if polled.is_pending() {
            self.work = Some(work);
        }
        polled
    }
}

impl<T: Send + 'static> Drop for Handover<T> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            self.core.finish_unattended(async move { drop(work.await) });
        }
    }
}
