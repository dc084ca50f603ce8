//! A store may be slow, fail, forget or refuse to forget: that costs misses, never an answer, and nothing invalid is served.

mod support;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Method;
use larder::storage::{Query, Storage, StorageUsage, Variants, with_variant};
use larder::{CacheKey, CacheLayer, ManualClock, PurgeError, Selector, StorageError, StoredResponse};
use support::bodies::*;
use tower::Layer;

fn content() -> Handler {
    Handler::new(|number, _| fresh(whole(format!("answer {number}"))))
}

/// A store of one's own; operations named in `failing` fail, those in `lazy` do nothing.
#[derive(Clone, Default)]
struct Shelf {
    kept: Arc<Mutex<HashMap<Vec<u8>, Variants>>>,
    failing: &'static [&'static str],
    lazy: &'static [&'static str],
}

impl Shelf {
    /// Whether to do it.
    fn begin(&self, operation: &str) -> Result<bool, StorageError> {
        if self.failing.contains(&operation) {
            return Err(StorageError::new(format!("{operation} is out of order")));
        }
        Ok(!self.lazy.contains(&operation))
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, HashMap<Vec<u8>, Variants>> {
        self.kept.lock().expect("no holder panics")
    }
}

impl Storage for Shelf {
    async fn get(&self, query: Query<'_>) -> Result<Variants, StorageError> {
        tokio::task::yield_now().await;
        let found = self.begin("get")?;
        Ok(self.kept().get(query.key.as_bytes()).filter(|_| found).cloned().unwrap_or_default())
    }

    async fn put(&self, key: &CacheKey, response: Arc<StoredResponse>, most: usize) -> Result<(), StorageError> {
        if self.begin("put")? {
            let mut kept = self.kept();
            let variants = kept.entry(key.as_bytes().to_vec()).or_default();
            *variants = with_variant(variants, response, most);
        }
        Ok(())
    }

    async fn remove(&self, key: &CacheKey) -> Result<bool, StorageError> {
        Ok(self.begin("remove")? && self.kept().remove(key.as_bytes()).is_some())
    }

    async fn clear(&self) -> Result<(), StorageError> {
        if self.begin("clear")? {
            self.kept().clear();
        }
        Ok(())
    }

    fn usage(&self) -> StorageUsage {
        StorageUsage::new(self.kept().len() as u64, 0, 0)
    }
}

fn over(shelf: &Shelf, handler: Handler) -> Setup {
    let clock = Arc::new(ManualClock::default());
    let layer = CacheLayer::with_storage(shelf.clone()).clock(clock.clone());
    Setup { service: layer.layer(handler.clone()), handle: layer.handle(), handler, clock }
}

#[tokio::test]
async fn a_store_of_ones_own_is_used() {
    let shelf = Shelf::default();
    let setup = over(
        &shelf,
        Handler::new(|number, request| {
            let language =
                request.headers.get("accept-language").map_or("", |value| value.to_str().unwrap_or_default());
            let fields = [("cache-control", "max-age=60"), ("vary", "accept-language")];
            answer(&fields, whole(format!("{language} {number}")))
        }),
    );
    // (language, X-Cache, content)
    let rows = [("de", "MISS", "de 1"), ("en", "MISS", "en 2"), ("de", "HIT", "de 1"), ("en", "HIT", "en 2")];
    for (language, expected, content) in rows {
        let got = read(setup.send(get_with("/", &[("accept-language", language)])).await).await;
        assert_eq!((got.x_cache.as_str(), got.content.as_slice()), (expected, content.as_bytes()));
        settle().await;
    }
    assert_eq!(setup.stats().storage.entries, 1, "two variants under one key");
    setup.clock.advance(Duration::from_secs(61));
    assert_eq!(setup.get("/").await.x_cache, "MISS", "freshness is not the store's business");
    settle().await;
    setup.handle.purge(Selector::Everything).await.unwrap();
    assert_eq!(setup.stats().storage.entries, 0);
    assert_eq!(setup.stats().store_errors, 0);
}

#[tokio::test]
async fn a_store_that_fails_costs_misses_and_never_an_answer() {
    // (what fails, X-Cache of three requests in a row, errors by then)
    let rows: [(&'static [&'static str], [&str; 3], u64); 5] = [
        (&[], ["MISS", "HIT", "HIT"], 0),
        (&["get"], ["MISS", "MISS", "MISS"], 3),
        (&["put"], ["MISS", "MISS", "MISS"], 3),
        (&["remove", "clear"], ["MISS", "HIT", "HIT"], 0),
        // After the third look-up the store isn't asked to keep anything any more.
        (&["get", "put", "remove", "clear"], ["MISS", "MISS", "MISS"], 5),
    ];
    for (failing, expected, errors) in rows {
        let setup = over(&Shelf { failing, ..Shelf::default() }, content());
        for expected in expected {
            let got = setup.get("/").await;
            assert_eq!((got.status.as_u16(), got.x_cache.as_str(), got.end), (200, expected, Ok(())), "{failing:?}");
            settle().await;
        }
        assert_eq!(setup.stats().store_errors, errors, "{failing:?}");
    }
}

/// The store may fail to forget, or lie about it: what was purged or written over is not served all the same.
#[tokio::test]
async fn a_store_that_does_not_forget_cannot_bring_back_what_is_invalid() {
    let forgetting: &'static [&'static str] = &["remove", "clear"];
    for (failing, lazy) in [(forgetting, &[][..]), (&[], forgetting)] {
        let shelf = Shelf { failing, lazy, ..Shelf::default() };
        let setup = over(&shelf, content());
        for (number, invalidation) in ["purge of a URI", "purge of everything", "write"].into_iter().enumerate() {
            setup.get("/").await;
            settle().await;
            assert_eq!(setup.get("/").await.x_cache, "HIT", "{invalidation}, failing {failing:?}");
            let purged = match number {
                0 => setup.handle.purge(Selector::Uri("/".into())).await.map(drop),
                1 => setup.handle.purge(Selector::Everything).await.map(drop),
                _ => {
                    let mut write = get("/");
                    *write.method_mut() = Method::PUT;
                    setup.send(write).await;
                    Ok(())
                }
            };
            // Of a store that could not give the memory back, the caller hears.
            let heard = matches!(purged, Err(PurgeError::Storage(_)));
            assert_eq!(heard, number == 1 && !failing.is_empty(), "{invalidation}: {purged:?}");
            assert_eq!(shelf.kept().len(), 1, "{invalidation}: the store still has it");
            assert_eq!(setup.get("/").await.x_cache, "MISS", "{invalidation}, failing {failing:?}");
            settle().await;
        }
    }
}

/// A body that its client leaves when it has all of it, outside of any runtime, still must not panic.
#[test]
fn a_body_let_go_outside_of_a_runtime_is_no_panic() {
    let handler = Handler::new(|_, _| {
        let mut response = fresh(stream([data("content")]));
        response.headers_mut().insert("content-length", 7.into());
        response
    });
    let setup = over(&Shelf::default(), handler);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let response = runtime.block_on(async {
        let mut response = setup.begin("/").await;
        assert_eq!(chunk(response.body_mut()).await, "content");
        response
    });
    drop(response);
}
