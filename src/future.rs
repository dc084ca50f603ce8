//! [`ResponseFuture`]: a hit is there at once and costs no allocation; everything else is awaited. A fill outlives its client.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http_body::Body;

use crate::body::{ResponseBody, read_out};
use crate::cache::CacheCore;

/// The future of a response that passes the cache.
pub struct ResponseFuture<B: Body, E> {
    state: State<B, E>,
}

type Awaited<B, E> = Pin<Box<dyn Future<Output = Result<Response<ResponseBody<B>>, E>> + Send>>;

enum State<B: Body, E> {
    Ready(Option<Response<ResponseBody<B>>>),
    Awaited(Awaited<B, E>),
    Filling(Filling<B, E>),
}

/// An answer that others may wait for, or that may be stored.
struct Filling<B: Body, E> {
    core: Arc<CacheCore>,
    /// `None` when it is there.
    answer: Option<Awaited<B, E>>,
    /// What becomes of it when the client leaves.
    finish: fn(&CacheCore, Awaited<B, E>),
}

impl<B: Body, E> Drop for Filling<B, E> {
    fn drop(&mut self) {
        if let Some(answer) = self.answer.take() {
            (self.finish)(&self.core, answer);
        }
    }
}

impl<B: Body, E> ResponseFuture<B, E> {
    pub(crate) fn ready(response: Response<ResponseBody<B>>) -> Self {
        Self { state: State::Ready(Some(response)) }
    }

    pub(crate) fn awaited(future: impl Future<Output = Result<Response<ResponseBody<B>>, E>> + Send + 'static) -> Self {
        Self { state: State::Awaited(Box::pin(future)) }
    }

    /// When it is dropped before its end, a task of the cache goes on with it.
    pub(crate) fn filling(
        core: Arc<CacheCore>,
        answer: impl Future<Output = Result<Response<ResponseBody<B>>, E>> + Send + 'static,
    ) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        E: Send + 'static,
    {
        let finish = |core: &CacheCore, answer| core.finish_unattended(read_out(answer));
        let filling = Filling { core, answer: Some(Box::pin(answer)), finish };
        Self { state: State::Filling(filling) }
    }
}

// Nothing is ever pinned in place: what needs it is in a box.
impl<B: Body, E> Unpin for ResponseFuture<B, E> {}

impl<B: Body, E> Future for ResponseFuture<B, E> {
    type Output = Result<Response<ResponseBody<B>>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.state {
            State::Ready(response) => {
                Poll::Ready(Ok(response.take().expect("a future isn't polled after it is ready")))
            }
            State::Awaited(future) => future.as_mut().poll(cx),
            State::Filling(filling) => {
                // Taken out: when the handler panics, nobody may go on with it.
                let mut answer = filling.answer.take().expect("a future isn't polled after it is ready");
                let polled = answer.as_mut().poll(cx);
                if polled.is_pending() {
                    filling.answer = Some(answer);
                }
                polled
            }
        }
    }
}

impl<B: Body, E> fmt::Debug for ResponseFuture<B, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
