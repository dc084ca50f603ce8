//! What a cache stored as a record, another one answers with; and a record in which anything is wrong costs a miss, and never an answer.
#![cfg(feature = "record")]

mod support;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use larder::record::{ClockShift, RecordError, RecordFormat};
use larder::storage::{Query, Storage, StorageUsage, Variants};
use larder::{CacheKey, CacheLayer, Compression, ManualClock, Policy, StorageError, StoredResponse};
use support::exchange::{Exchange, Handler, answer, request};
use tower::{Layer, ServiceExt};

/// Keeps the newest variant of each resource as bytes; several caches may have it.
#[derive(Clone, Default)]
struct Shelf {
    records: Arc<Mutex<HashMap<Vec<u8>, Bytes>>>,
    refused: Arc<Mutex<Vec<RecordError>>>,
    format: RecordFormat,
}

impl Shelf {
    fn sealed_with(&self, key: [u8; 32]) -> Self {
        Self { format: RecordFormat::default().mac(key), ..self.clone() }
    }

    fn records(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Bytes>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the only record.
    fn change(&self, change: impl FnOnce(&mut Vec<u8>)) {
        let mut records = self.records();
        let record = records.values_mut().next().expect("there is one");
        let mut bytes = record.to_vec();
        change(&mut bytes);
        *record = bytes.into();
    }

    fn refused(&self) -> Vec<RecordError> {
        std::mem::take(&mut *self.refused.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Storage for Shelf {
    async fn get(&self, query: Query<'_>) -> Result<Variants, StorageError> {
        let Some(record) = self.records().get(query.key.as_bytes()).cloned() else { return Ok(Variants::new()) };
        let read = self.format.decode(record, query.key, query.now, ClockShift::NONE);
        let response = read.inspect_err(|error| {
            self.refused.lock().unwrap_or_else(PoisonError::into_inner).push(*error);
        })?;
        Ok([Arc::new(response)].into_iter().collect())
    }

    async fn put(&self, key: &CacheKey, response: Arc<StoredResponse>, _: usize) -> Result<(), StorageError> {
        let record = self.format.encode(&response, key, ClockShift::NONE);
        self.records().insert(key.as_bytes().into(), record.into());
        Ok(())
    }

    async fn remove(&self, key: &CacheKey) -> Result<bool, StorageError> {
        Ok(self.records().remove(key.as_bytes()).is_some())
    }

    async fn clear(&self) -> Result<(), StorageError> {
        self.records().clear();
        Ok(())
    }

    fn usage(&self) -> StorageUsage {
        StorageUsage::new(self.records().len() as u64, 0, 0)
    }
}

/// One instance of an application.
struct Instance {
    service: larder::Cache<Handler>,
    handler: Handler,
    handle: larder::CacheHandle,
}

impl Instance {
    fn new(shelf: &Shelf, clock: &Arc<ManualClock>, handler: Handler) -> Self {
        let rule = Policy::shared(Duration::from_secs(100)).tag("pages").stale_while_revalidate(Duration::from_secs(9));
        let layer = CacheLayer::with_storage(shelf.clone())
            .clock(clock.clone())
            .compress(Compression::gzip())
            .rule("^/ruled/", rule);
        Self { service: layer.layer(handler.clone()), handle: layer.handle(), handler }
    }

    async fn ask(&self, target: &str, fields: &[(&str, &str)]) -> Exchange {
        let response =
            self.service.clone().oneshot(request("GET", target, fields)).await.expect("a handler that answers");
        let exchange = Exchange::read(response).await.expect("a clean end");
        // Whatever is done behind an answer.
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        exchange
    }
}

const TEXT: &[(&str, &str)] = &[
    ("content-type", "text/plain"),
    ("cache-control", "max-age=60, stale-if-error=30"),
    ("vary", "accept-language"),
    ("x-kind", "a"),
    ("x-kind", "b"),
    ("set-cookie", "a=b"),
];

#[tokio::test]
async fn what_one_instance_stored_another_answers_with() {
    // (target, fields of the response, fields of the request)
    type Fields = &'static [(&'static str, &'static str)];
    let rows: [(&str, Fields, Fields); 5] = [
        ("/a", &TEXT[..5], &[("accept-language", "de")]),
        ("/b?x=1", &[("cache-control", "max-age=60"), ("etag", "\"a\"")], &[]),
        ("/ruled/c", &[("date", "Thu, 01 Jan 2026 00:00:00 GMT")], &[]),
        (
            "/d",
            &[("expires", "Thu, 01 Jan 2026 00:01:00 GMT"), ("last-modified", "Thu, 01 Jan 2025 00:00:00 GMT")],
            &[],
        ),
        ("/ruled/e", &[("cache-tag", "x, y:z")], &[]),
    ];
    for (target, said, asked) in rows {
        let (shelf, clock) = (Shelf::default(), Arc::new(ManualClock::default()));
        let one = Instance::new(&shelf, &clock, Handler::new(move |_, _| answer(200, said, "content ".repeat(20))));
        let other = Instance::new(&shelf, &clock, Handler::saying_status(500, &[]));
        let (first, own) = (one.ask(target, asked).await, one.ask(target, asked).await);
        assert_eq!((first.x_cache.as_str(), own.x_cache.as_str()), ("MISS", "HIT"), "{target}");
        clock.advance(Duration::from_secs(7));
        let (own, foreign) = (one.ask(target, asked).await, other.ask(target, asked).await);
        assert_eq!((foreign.status, foreign.x_cache.as_str(), other.handler.calls()), (200, "HIT", 0), "{target}");
        assert_eq!((&foreign.headers, &foreign.body), (&own.headers, &own.body), "{target}");
        assert_eq!(foreign.field("age"), "7", "{target}");
        assert!(other.ask("/z", &[]).await.status == 500 && other.handler.calls() == 1, "nothing else");
        assert_eq!(shelf.refused(), [], "{target}");
    }
}

#[tokio::test]
async fn coded_content_stays_coded() {
    let (shelf, clock) = (Shelf::default(), Arc::new(ManualClock::default()));
    let content = "content ".repeat(500);
    let said = content.clone();
    let handler = Handler::new(move |_, _| answer(200, &TEXT[..2], said.clone()));
    let one = Instance::new(&shelf, &clock, handler);
    let other = Instance::new(&shelf, &clock, Handler::saying_status(500, &[]));
    one.ask("/", &[]).await;
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while one.handle.stats().compression.done == 0 {
        assert!(std::time::Instant::now() < deadline, "it is never coded");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(shelf.records().values().all(|record| record.len() < content.len() / 2));
    let coded = other.ask("/", &[("accept-encoding", "gzip")]).await;
    assert_eq!((coded.x_cache.as_str(), coded.field("content-encoding")), ("HIT", "gzip"));
    let plain = other.ask("/", &[]).await;
    assert_eq!((plain.x_cache.as_str(), plain.body.as_str()), ("HIT", content.as_str()));
}

#[tokio::test]
async fn a_record_in_which_anything_is_wrong_costs_a_miss_and_never_an_answer() {
    let (shelf, clock) = (Shelf::default(), Arc::new(ManualClock::default()));
    let instance = Instance::new(&shelf, &clock, Handler::saying(&[("cache-control", "max-age=60")]));
    instance.ask("/", &[]).await;
    let length = shelf.records().values().next().expect("it is stored").len();
    let mut errors = 0;
    for place in 0..length {
        shelf.change(|record| record[place] ^= 0x10);
        let got = instance.ask("/", &[]).await;
        assert_eq!((got.status, got.x_cache.as_str()), (200, "MISS"), "byte {place}");
        assert_eq!(shelf.refused().len(), 1, "byte {place}");
        errors += 1;
        assert_eq!(instance.handle.stats().store_errors, errors, "it is counted");
        assert_eq!(instance.ask("/", &[]).await.x_cache, "HIT", "the next one is whole");
    }
    for cut in 0..length {
        shelf.change(|record| record.truncate(cut));
        assert_eq!(instance.ask("/", &[]).await.x_cache, "MISS", "cut off at {cut}");
        assert_eq!(instance.ask("/", &[]).await.x_cache, "HIT", "the next one is whole");
    }
    shelf.change(|record| record[4] = 2);
    assert_eq!(instance.ask("/", &[]).await.x_cache, "MISS");
    assert_eq!(shelf.refused().last(), Some(&RecordError::Version(2)));
}

#[tokio::test]
async fn a_record_in_the_place_of_another_is_a_miss() {
    let (shelf, clock) = (Shelf::default(), Arc::new(ManualClock::default()));
    let handler = Handler::new(|head, _| answer(200, &[("cache-control", "max-age=60")], head.uri.path().to_owned()));
    let instance = Instance::new(&shelf, &clock, handler);
    instance.ask("/a", &[]).await;
    instance.ask("/b", &[]).await;
    {
        let mut records = shelf.records();
        let mut values: Vec<Bytes> = records.values().cloned().collect();
        values.reverse();
        records.values_mut().zip(values).for_each(|(place, other)| *place = other);
    }
    for path in ["/a", "/b"] {
        let got = instance.ask(path, &[]).await;
        assert_eq!((got.x_cache.as_str(), got.body.as_str()), ("MISS", path));
    }
    assert_eq!(shelf.refused(), [RecordError::Key, RecordError::Key]);
}

#[tokio::test]
async fn who_has_no_key_can_forge_nothing() {
    let (shelf, clock) = (Shelf::default(), Arc::new(ManualClock::default()));
    let handler = || Handler::saying(&[("cache-control", "max-age=60")]);
    let (ours, theirs) = (shelf.sealed_with([1; 32]), [shelf.clone(), shelf.sealed_with([2; 32])]);
    for (theirs, expected) in theirs.into_iter().zip([RecordError::SealKind, RecordError::Seal]) {
        shelf.records().clear();
        Instance::new(&theirs, &clock, handler()).ask("/", &[]).await;
        let instance = Instance::new(&ours, &clock, handler());
        assert_eq!(instance.ask("/", &[]).await.x_cache, "MISS");
        assert_eq!(shelf.refused(), [expected]);
        assert_eq!(instance.ask("/", &[]).await.x_cache, "HIT");
    }
}
