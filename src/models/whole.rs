//! The whole cache under schedules: clients, writes and purges around one resource whose content changes.

use std::convert::Infallible;
use std::sync::Arc as StdArc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use shuttle::future::block_on;
use shuttle::thread;
use tower::{Layer, Service, ServiceExt};

use crate::clock::ManualClock;
use crate::handle::CacheHandle;
use crate::layer::CacheLayer;
use crate::models::explore;
use crate::policy::Policy;
use crate::request::RequestHead;
use crate::selector::Selector;
use crate::service::Cache;
use crate::sync::{Arc, AtomicU64, Ordering};

/// The ways to make invalid what is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Uri,
    Path,
    Partition,
    Pattern,
    Tag,
    Everything,
    /// A soft purge of its tag: what is older isn't sent as fresh, and nothing here may be sent stale.
    Soft,
    Write,
    /// A write elsewhere whose answer names the group.
    Group,
}

/// Answers with the version of its content; what isn't a GET makes a new one.
#[derive(Clone, Default)]
struct Origin {
    version: Arc<AtomicU64>,
    /// Whether its content is in a group: a write to one member of a group makes it invalid by number.
    grouped: bool,
}

impl Service<Request<Empty<Bytes>>> for Origin {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Empty<Bytes>>) -> Self::Future {
        let (version, grouped) = (self.version.clone(), self.grouped);
        Box::pin(async move {
            let mut response = Response::new(Full::default());
            if request.method() == Method::GET {
                *response.body_mut() = version.load(Ordering::SeqCst).to_string().into();
                response.headers_mut().insert("cache-control", "max-age=60".parse().expect("a value"));
                if grouped {
                    response.headers_mut().insert("cache-groups", "\"group\"".parse().expect("a value"));
                }
            } else {
                version.fetch_add(1, Ordering::SeqCst);
                response.headers_mut().insert("cache-group-invalidation", "\"group\"".parse().expect("a value"));
            }
            Ok(response)
        })
    }
}

#[derive(Clone)]
struct World {
    origin: Origin,
    cache: Cache<Origin>,
    handle: CacheHandle,
    /// The version that the newest purge was made for that has returned.
    acknowledged: Arc<AtomicU64>,
}

fn request(method: Method, path: &str) -> Request<Empty<Bytes>> {
    let request = Request::builder().method(method).uri(path).header("host", "larder.test").header("user", "me");
    request.body(Empty::new()).expect("a request")
}

impl World {
    fn new(way: Way) -> Self {
        let mut layer = CacheLayer::in_memory(1 << 20).clock(StdArc::new(ManualClock::default()));
        if way == Way::Partition {
            let user = |head: &RequestHead<'_>| head.headers.get("user").map(|name| name.as_bytes().to_vec());
            layer = layer.otherwise(Policy::per(user, Duration::from_secs(60)));
        }
        let origin = Origin { grouped: matches!(way, Way::Group | Way::Tag | Way::Soft), ..Origin::default() };
        Self { cache: layer.layer(origin.clone()), origin, handle: layer.handle(), acknowledged: Arc::default() }
    }

    fn send(&self, request: Request<Empty<Bytes>>) -> Bytes {
        let answer = self.cache.clone().oneshot(request);
        block_on(async {
            let response = answer.await.expect("the handler doesn't fail");
            response.into_body().collect().await.expect("nor its content").to_bytes()
        })
    }

    /// A client: it is never given what is older than a purge that had returned when it asked.
    fn visit(&self) {
        let acknowledged = self.acknowledged.load(Ordering::SeqCst);
        let content = self.send(request(Method::GET, "/path"));
        let version: u64 = std::str::from_utf8(&content).expect("text").parse().expect("a number");
        assert!(version >= acknowledged, "version {version} after the purge for {acknowledged} had returned");
    }

    /// New content, and what makes the old one invalid.
    fn change(&self, way: Way) {
        let selector = match way {
            Way::Uri => Selector::Uri("http://larder.test/path".into()),
            Way::Path => Selector::Uri("/path".into()),
            Way::Partition => Selector::Partition("me".into()),
            Way::Pattern => Selector::Glob("/pa*".into()),
            Way::Tag | Way::Soft => Selector::Tag("group".into()),
            Way::Everything => Selector::Everything,
            Way::Write | Way::Group => {
                let before = self.origin.version.load(Ordering::SeqCst);
                self.send(request(Method::PUT, if way == Way::Write { "/path" } else { "/other" }));
                self.acknowledged.fetch_max(before + 1, Ordering::SeqCst);
                return;
            }
        };
        let version = self.origin.version.fetch_add(1, Ordering::SeqCst) + 1;
        let purge = self.handle.purge(selector);
        let purge = if way == Way::Soft { purge.soft() } else { purge };
        block_on(purge.into_future()).expect("the purge is made");
        self.acknowledged.fetch_max(version, Ordering::SeqCst);
    }
}

/// A change beside two clients, the first of which comes twice; afterwards the new content is there, and nothing is in flight.
fn nothing_older_comes_back(thousandths: usize, way: Way) {
    explore(thousandths, move || {
        let world = World::new(way);
        let visits = [2, 1].map(|times| {
            let world = world.clone();
            thread::spawn(move || (0..times).for_each(|_| world.visit()))
        });
        world.change(way);
        world.visit();
        visits.into_iter().for_each(|thread| thread.join().expect("no thread panics"));
        world.visit();
        let stats = world.handle.stats();
        assert_eq!((stats.fills_in_flight, stats.fill_bytes), (0, 0));
    });
}

#[test]
fn no_client_gets_what_is_older_than_a_purge_of_its_uri() {
    nothing_older_comes_back(40, Way::Uri);
}

#[test]
fn no_client_gets_what_is_older_than_a_purge_of_its_path() {
    nothing_older_comes_back(40, Way::Path);
}

#[test]
fn no_client_gets_what_is_older_than_a_purge_of_its_partition() {
    nothing_older_comes_back(40, Way::Partition);
}

#[test]
fn no_client_gets_what_is_older_than_a_purge_of_a_pattern() {
    nothing_older_comes_back(40, Way::Pattern);
}

#[test]
fn no_client_gets_what_is_older_than_a_purge_of_its_tag() {
    nothing_older_comes_back(40, Way::Tag);
}

#[test]
fn no_client_gets_what_is_older_than_a_soft_purge() {
    nothing_older_comes_back(40, Way::Soft);
}

#[test]
fn no_client_gets_what_is_older_than_a_purge_of_everything() {
    nothing_older_comes_back(40, Way::Everything);
}

#[test]
fn no_client_gets_what_is_older_than_a_write() {
    nothing_older_comes_back(50, Way::Write);
}

#[test]
fn no_client_gets_what_is_older_than_a_write_to_its_group() {
    nothing_older_comes_back(40, Way::Group);
}
