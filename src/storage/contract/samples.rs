//! Responses to try stores with, and how they are told apart.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use smallvec::SmallVec;

use crate::clock::Moment;
use crate::error::StorageError;
use crate::expiry::Expiry;
use crate::form::Form;
use crate::head::SharedHeads;
use crate::key::CacheKey;
use crate::regime::{ATOMIC, Regime};
use crate::response::{Origin, Stamp, StoredResponse};
use crate::rfc9111::reuse::Terms;
use crate::rfc9111::vary::Matching;
use crate::storage::{Expected, Query, Storage, Swap};
use crate::upkeep::Upkeep;
use crate::variance::Variance;

/// Makes them, each a second later than the one before.
#[derive(Clone)]
pub(super) struct Samples {
    start: Instant,
    made: Arc<AtomicU64>,
}

/// A response, and the fields of the request that it answers.
pub(super) struct Sample {
    pub(super) name: String,
    pub(super) response: Arc<StoredResponse>,
    pub(super) asked: HeaderMap,
}

/// The kinds of values, as data caches tell them: one is kept as responses are, the other is changed by many and is nowhere nearer than where they do that.
const VALUE: u64 = 1;

/// How long a clock has run that samples are older than.
const BEFORE: Duration = Duration::from_secs(7200);

impl Default for Samples {
    fn default() -> Self {
        Self { start: Instant::now(), made: Arc::default() }
    }
}

impl Samples {
    pub(super) fn key(&self, path: &str) -> CacheKey {
        CacheKey::new(b"contract.example", path, None)
    }

    /// One that doesn't vary.
    pub(super) fn plain(&self, name: &str) -> Sample {
        self.begun(name, 7, self.next_second())
    }

    /// One that says so in a field of the request.
    pub(super) fn varying(&self, name: &str, field: &'static str, said: Option<&'static str>) -> Sample {
        let mut asked = HeaderMap::new();
        said.iter().for_each(|said| drop(asked.insert(field, HeaderValue::from_static(said))));
        let fields = SmallVec::from_elem(HeaderName::from_static(field), 1);
        let variance = Arc::new(Variance::of(fields, &asked, Matching::Careful));
        let plain = self.plain(name);
        let response = Arc::new(StoredResponse { variance, ..StoredResponse::clone(&plain.response) });
        Sample { response, asked, ..plain }
    }

    /// One that was asked for behind a purge, and came in this second.
    pub(super) fn begun(&self, name: &str, number: u64, second: u64) -> Sample {
        let content = Bytes::from(format!("the content of {name}"));
        let head = [("content-type", "text/plain"), ("cache-control", "max-age=600"), ("etag", "\"1\"")];
        self.sample(name, Stamp::new(number, 1, 2), second, StatusCode::OK, &head, content)
    }

    /// Of everything that a response can be.
    pub(super) fn of_all_kinds(&self) -> [Sample; 10] {
        let ok = StatusCode::OK;
        let large =
            Bytes::from((0..300_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect::<Vec<_>>());
        let mut many =
            vec![("set-cookie", "a=1"), ("set-cookie", "b=2"), ("x-empty", ""), ("x-text", "caf\u{e9}, \t\"")];
        let long = "v".repeat(8 << 10);
        many.push(("x-long", &long));
        let make = |name, stamp, status, head: &[(&str, &str)], content| {
            self.sample(name, stamp, self.next_second(), status, head, content)
        };
        let stamp = |number| Stamp::new(number, u64::MAX, 1 << 63);
        [
            self.plain("a plain response"),
            make("one without content", stamp(0), StatusCode::NO_CONTENT, &[], Bytes::new()),
            make("one with much content", stamp(1), ok, &[("content-type", "application/octet-stream")], large),
            make("one with all kinds of fields", stamp(1 << 40), StatusCode::NOT_FOUND, &many, "not found".into()),
            make("one of a principal", stamp(2).in_partition(Some(u64::MAX - 1)), ok, &[], "private".into()),
            self.varying("one that varies", "accept-language", Some("de")),
            self.value("a value of a data cache", "17", VALUE, None),
            self.value("a value that ends by disuse", "17", VALUE, Some(Duration::from_secs(60))),
            self.value("what is remembered of a value that there isn't", "", VALUE, None),
            self.value("a value that an atomic operation put", "18", ATOMIC, None),
        ]
    }

    /// As a data cache stores it.
    fn value(&self, name: &str, content: &'static str, kind: u64, sliding: Option<Duration>) -> Sample {
        let status = if content.is_empty() { StatusCode::NO_CONTENT } else { StatusCode::OK };
        let stamp = Stamp::new(3, 1, 1 << 62);
        let head = [("content-type", "application/json")];
        let sample = self.sample(name, stamp, self.next_second(), status, &head, content.into());
        let expiry = Expiry { sliding, ..Expiry::default() };
        let response = StoredResponse {
            form: Form::Fixed,
            regime: Regime { whole: 13, audience: kind },
            upkeep: Upkeep::of(&expiry, true, Duration::ZERO, 0),
            ..StoredResponse::clone(&sample.response)
        };
        Sample { response: Arc::new(response), ..sample }
    }

    /// What the store has that answers the request of a sample, newest first.
    pub(super) async fn find(
        &self,
        storage: &impl Storage,
        key: &CacheKey,
        sample: &Sample,
    ) -> Result<Vec<Arc<StoredResponse>>, StorageError> {
        let all = storage.get(Query::new(key, &sample.asked, self.now())).await?;
        let answers = |found: &Arc<StoredResponse>| found.variance.matches(&sample.asked, Matching::Careful);
        // What doesn't vary answers everybody, and isn't meant where one is looked for that does.
        Ok(all
            .into_iter()
            .filter(|found| answers(found) && found.variance.fields == sample.response.variance.fields)
            .collect())
    }

    /// A swap that is asked for now.
    pub(super) fn swap<'a>(&self, key: &'a CacheKey, expected: Expected<'a>, new: &Sample) -> Swap<'a> {
        Swap::new(key, expected, new.response.clone(), self.now())
    }

    fn sample(
        &self,
        name: &str,
        stamp: Stamp,
        second: u64,
        status: StatusCode,
        fields: &[(&str, &str)],
        content: Bytes,
    ) -> Sample {
        let mut head = HeaderMap::new();
        for (name, value) in fields {
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_bytes(value.as_bytes())) {
                head.append(name, value);
            }
        }
        let (head, body) = SharedHeads::default().store(&head, &[], content);
        let minute = Duration::from_secs(60);
        let terms = Terms {
            lifetime: 10 * minute,
            initial_age: Duration::from_secs(3),
            no_stale: true,
            stale_if_error: minute,
            for_authorized: true,
            ..Terms::default()
        };
        let response = StoredResponse {
            status,
            head,
            body,
            form: Form::Plain,
            terms,
            received: self.at(second),
            variance: Arc::default(),
            origin: Origin::default(),
            downstream: None,
            stamp,
            regime: Regime { whole: 11, audience: 12 },
            keep: 60 * minute,
            charge: None,
            upkeep: None,
            route: Arc::default(),
        };
        Sample { name: name.into(), response: Arc::new(response), asked: HeaderMap::new() }
    }

    /// The clock that the store is asked by.
    fn now(&self) -> Moment {
        Moment { wall: SystemTime::now(), monotonic: BEFORE + self.start.elapsed() }
    }

    /// A second of the hour before it started.
    fn at(&self, second: u64) -> Moment {
        let (now, before) = (self.now(), self.start.elapsed() + BEFORE / 4);
        let then = Duration::from_secs(second);
        Moment { wall: now.wall - before + then, monotonic: now.monotonic - before + then }
    }

    fn next_second(&self) -> u64 {
        10 + self.made.fetch_add(1, Ordering::Relaxed)
    }
}

/// How far a store may be off that reckons times by another clock.
const NEARLY: Duration = Duration::from_secs(1);

/// What of a response isn't as it was put.
pub(super) fn difference(put: &StoredResponse, got: &StoredResponse) -> Option<&'static str> {
    let idle_end = |response: &StoredResponse| response.upkeep.as_ref().and_then(|upkeep| upkeep.idle_end());
    let tags = |response: &StoredResponse| response.stamp.hashes().collect::<Vec<_>>();
    let apart = |one: Duration, other: Duration| one.abs_diff(other) > NEARLY;
    let wall =
        |response: &StoredResponse| response.received.wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let rows = [
        ("status", put.status != got.status),
        ("head", put.headers() != got.headers()),
        ("content", put.body != got.body),
        ("form", put.form != got.form),
        ("lifetime or other term", put.terms != got.terms),
        ("purge number", put.stamp.number != got.stamp.number),
        ("resource, principal or tag", tags(put) != tags(got)),
        ("variant", !put.same_variant(got)),
        ("regime", put.regime != got.regime),
        ("end by disuse", idle_end(put) != idle_end(got)),
        ("time of arrival", apart(wall(put), wall(got)) || apart(put.received.monotonic, got.received.monotonic)),
        ("time for which it is kept", apart(put.keep, got.keep)),
    ];
    rows.into_iter().find(|(_, differs)| *differs).map(|(what, _)| what)
}
