//! [`ResponseFuture`]: a hit is there at once and costs no allocation; everything else is awaited.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Response;
use http_body::Body;

use crate::body::ResponseBody;

/// The future of a response that passes the cache.
pub struct ResponseFuture<B: Body, E> {
    state: State<B, E>,
}

type Awaited<B, E> = Pin<Box<dyn Future<Output = Result<Response<ResponseBody<B>>, E>> + Send>>;

enum State<B: Body, E> {
    Ready(Option<Response<ResponseBody<B>>>),
    Awaited(Awaited<B, E>),
}

impl<B: Body, E> ResponseFuture<B, E> {
    pub(crate) fn ready(response: Response<ResponseBody<B>>) -> Self {
        Self { state: State::Ready(Some(response)) }
    }

    pub(crate) fn awaited(future: impl Future<Output = Result<Response<ResponseBody<B>>, E>> + Send + 'static) -> Self {
        Self { state: State::Awaited(Box::pin(future)) }
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
        }
    }
}

impl<B: Body, E> fmt::Debug for ResponseFuture<B, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
