//! Content that several clients read while it streams: whoever is hungry polls the handler's body, and nobody may be left sleeping.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc as StdArc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty};
use shuttle::future::block_on;
use shuttle::thread;
use tower::{Layer, ServiceExt, service_fn};

use crate::clock::ManualClock;
use crate::layer::CacheLayer;
use crate::models::explore;
use crate::sync::{Arc, AtomicUsize, Ordering};

/// Yields its pieces, pending before the first, the third and the end, and ready again at once for the second; perhaps breaks off behind the last.
struct Pieces {
    left: usize,
    waited: bool,
    breaks_off: bool,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.waited = !self.waited && self.left != 2;
        if self.waited {
            // Woken by another thread, as by a connection.
            let waker = cx.waker().clone();
            thread::spawn(move || waker.wake());
            return Poll::Pending;
        }
        if self.left == 0 {
            return Poll::Ready(self.breaks_off.then(|| Err(std::io::Error::other("cut"))));
        }
        self.left -= 1;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static([b"three", b"two..", b"one.."][self.left])))))
    }
}

/// Three clients, of whom the first may leave after so many frames. All others read everything, or are told that it broke off; and nothing
/// is left behind.
fn all_read_everything(thousandths: usize, leaves_after: Option<usize>, breaks_off: bool) {
    explore(thousandths, move || {
        let layer = CacheLayer::in_memory(1 << 20).clock(StdArc::new(ManualClock::default())).max_refreshes(0);
        let calls = Arc::new(AtomicUsize::new(0));
        let called = calls.clone();
        let cache = layer.layer(service_fn(move |_: Request<Empty<Bytes>>| {
            called.fetch_add(1, Ordering::SeqCst);
            let response = Response::builder().header("cache-control", "max-age=60");
            let body = Pieces { left: 3, waited: false, breaks_off };
            async move { Ok::<_, Infallible>(response.body(body).expect("a response")) }
        }));
        let clients = (0..3).map(|number| {
            let cache = cache.clone();
            thread::spawn(move || {
                block_on(async move {
                    let request =
                        Request::get("/").header("host", "larder.test").body(Empty::new()).expect("a request");
                    let mut body = cache.oneshot(request).await.expect("the handler doesn't fail").into_body();
                    if let Some(frames) = leaves_after.filter(|_| number == 0) {
                        for _ in 0..frames {
                            let _ = body.frame().await;
                        }
                        return;
                    }
                    match body.collect().await {
                        Ok(content) => assert!(!breaks_off && content.to_bytes() == "one..two..three"),
                        Err(error) => assert!(breaks_off, "{error}"),
                    }
                })
            })
        });
        let clients: Vec<_> = clients.collect();
        clients.into_iter().for_each(|client| client.join().expect("no thread panics"));
        let stats = layer.handle().stats();
        assert_eq!((stats.fills_in_flight, stats.fill_bytes, stats.waiting), (0, 0, 0));
        let whole = !breaks_off && leaves_after.is_none();
        assert!(!whole || calls.load(Ordering::SeqCst) == 1 && stats.stored == 1, "{stats:?}");
    });
}

#[test]
fn nobody_is_left_sleeping() {
    all_read_everything(60, None, false);
}

#[test]
fn one_who_leaves_leaves_nobody_sleeping() {
    (0..=3).for_each(|frames| all_read_everything(15, Some(frames), false));
}

#[test]
fn everybody_is_told_when_it_breaks_off() {
    all_read_everything(30, None, true);
}
