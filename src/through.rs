//! [`Through`]: the way of the cache's own requests through the whole application, from the outside in. The one place where the type of the
//! application's service is erased.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};

use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

/// Sends a request through the application, and reads the answer to its end.
#[derive(Clone)]
pub(crate) struct Through(Arc<Sending>);

type Sending = dyn Fn(Request<()>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync;

/// Marks a request that the cache makes itself: no client waits for the answer, and a stale one is not enough.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unattended;

impl Through {
    /// `empty` makes the body of a request without content.
    pub(crate) fn new<S, B, R>(service: S, empty: impl Fn() -> B + Send + Sync + 'static) -> Self
    where
        S: Service<Request<B>, Response = Response<R>, Future: Send> + Clone + Send + 'static,
        B: Send + 'static,
        R: Body<Data: Send> + Send + 'static,
    {
        // Not every service is `Sync`; it is only cloned.
        let service = Mutex::new(service);
        Self(Arc::new(move |mut request| {
            request.extensions_mut().insert(Unattended);
            let request = request.map(|()| empty());
            let mut service = service.lock().unwrap_or_else(PoisonError::into_inner).clone();
            Box::pin(async move {
                let ready = poll_fn(|cx| service.poll_ready(cx)).await.is_ok();
                let Some(call) = ready.then(|| service.call(request)) else { return };
                let Ok(response) = call.await else { return };
                let mut content = pin!(response.into_body());
                // What the client of the cache doesn't read isn't stored at once.
                while let Some(Ok(_)) = poll_fn(|cx| content.as_mut().poll_frame(cx)).await {}
            })
        }))
    }

    /// What goes wrong on the way is the application's business: the answer is none, and nothing is stored.
    pub(crate) async fn send(&self, request: Request<()>) {
        (self.0)(request).await;
    }
}
