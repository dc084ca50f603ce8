//! What a refresh purge sets going: of what it made stale, the responses that were asked for most are asked for once more, behind it and by few at a time, so
//! that clients find them fresh again.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, header};
use tokio::time::{sleep, timeout};

use crate::admission::{Admission, admit};
use crate::background::{LONGEST, Place};
use crate::cache::CacheCore;
use crate::key::{CacheKey, Part};
use crate::request::Scheme;
use crate::selector::{NotRefreshed, Refreshing};
use crate::stats::count;
use crate::target::Target;
use crate::through::Through;
use crate::variance::Variance;

/// How many are refreshed at a time by one purge.
const AT_A_TIME: usize = 8;

/// How long a refresh waits for a place in the background, and how often it looks.
const PATIENCE: (Duration, u32) = (Duration::from_millis(50), 100);

/// A response that a refresh would bring back; ordered by how often it was asked for.
struct Candidate {
    reads: u32,
    key: CacheKey,
    variance: Arc<Variance>,
}

impl CacheCore {
    /// Refreshes the hottest of what the purge with this number made stale, `most` at most. What is for one principal is left to its next request.
    pub(crate) async fn refresh_hottest(self: &Arc<Self>, target: &Target, number: u64, most: usize) -> Refreshing {
        let through = self.through.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(through) = through else { return Refreshing::none(NotRefreshed::NoWay) };
        if self.is_closing() || tokio::runtime::Handle::try_current().is_err() {
            return Refreshing::none(NotRefreshed::Closed);
        }
        let Ok(hottest) = self.hottest(target, number, most).await else {
            return Refreshing::none(NotRefreshed::Unscannable);
        };
        let all = hottest.len();
        let requests: Vec<_> = hottest.iter().filter_map(|candidate| candidate.request(self)).collect();
        let begun = Refreshing { refreshing: requests.len(), skipped: all - requests.len(), why_none: None };
        let requests = Arc::new(Mutex::new(requests.into_iter()));
        for _ in 0..begun.refreshing.min(AT_A_TIME) {
            self.spawn(self.clone().refresh_in_turn(requests.clone(), through.clone()));
        }
        begun
    }

    async fn hottest(
        &self,
        target: &Target,
        number: u64,
        most: usize,
    ) -> Result<Vec<Candidate>, crate::selector::PurgeError> {
        let mut hottest = BinaryHeap::new();
        self.walk(|entry| {
            if entry.key.partition().is_some() {
                return;
            }
            let least = hottest.peek().map_or(0, |Reverse(Candidate { reads, .. })| *reads);
            if hottest.len() == most && entry.reads <= least {
                return;
            }
            for stored in entry.variants {
                let is_meant = stored.stamp.number < number && target.touches(&stored.stamp, &entry.key);
                if is_meant && self.is_valid(stored, &entry.key) {
                    let (key, variance) = (entry.key.clone(), stored.variance.clone());
                    hottest.push(Reverse(Candidate { reads: entry.reads, key, variance }));
                    if hottest.len() > most {
                        hottest.pop();
                    }
                }
            }
        })
        .await?;
        // The hottest first.
        Ok(hottest.into_sorted_vec().into_iter().map(|Reverse(candidate)| candidate).collect())
    }

    /// One refresh after another, until none is left or the cache is shut down.
    async fn refresh_in_turn(self: Arc<Self>, requests: Arc<Mutex<std::vec::IntoIter<Request<()>>>>, through: Through) {
        let next = || requests.lock().unwrap_or_else(PoisonError::into_inner).next();
        while let Some(request) = next().filter(|_| !self.is_closing()) {
            let Some(_place) = self.place_in_time().await else {
                count(&self.counters.refreshes_refused);
                continue;
            };
            count(&self.counters.refreshes);
            if timeout(LONGEST, through.send(request)).await.is_err() {
                tracing::warn!(target: "larder", "a refresh after a purge took longer than {LONGEST:?} and was abandoned");
            }
        }
    }

    async fn place_in_time(&self) -> Option<Place> {
        let (pause, tries) = PATIENCE;
        for _ in 0..tries {
            match self.background.begin(None, self.settings.max_refreshes) {
                Ok(place) => return Some(place),
                Err(_) if self.is_closing() || self.settings.max_refreshes == 0 => return None,
                Err(_) => sleep(pause).await,
            }
        }
        None
    }
}

impl Candidate {
    /// A request that is answered by this response and no other, if its key and its nominated fields say enough.
    fn request(&self, core: &CacheCore) -> Option<Request<()>> {
        let mut request = request_of(&self.key)?;
        self.nominate(request.headers_mut())?;
        // Whatever was missed on the way: it has to come to the same key and variant.
        let looks_up = match admit(core, &request.clone().map(|()| String::new()), core.now()) {
            Admission::Lookup(ask) => ask.key == self.key,
            _ => false,
        };
        let matches = self.variance.matches(request.headers(), core.settings.matching);
        (looks_up && matches).then_some(request)
    }

    /// Adds the nominated fields as they were sent. Those of somebody's own are not for the cache to use.
    fn nominate(&self, headers: &mut HeaderMap) -> Option<()> {
        for (name, sent) in self.variance.sent()? {
            if *name == header::COOKIE || *name == header::AUTHORIZATION {
                return None;
            }
            if let Some(value) = sent.filter(|_| !headers.contains_key(name)) {
                headers.insert(name, value.clone());
            }
        }
        Some(())
    }
}

/// The request that a key speaks of; `None` where the key has only a part of what was asked.
fn request_of(key: &CacheKey) -> Option<Request<()>> {
    let mut request = Request::new(());
    let (mut field, mut target) = (None, Vec::new());
    for (kind, value) in key.parts() {
        match kind {
            Part::Authority if value.is_empty() => {}
            Part::Authority => {
                request.headers_mut().insert(header::HOST, HeaderValue::from_bytes(value).ok()?);
            }
            Part::Path => target.extend_from_slice(value),
            Part::Query => {
                target.push(b'?');
                target.extend_from_slice(value);
            }
            Part::FieldName => {
                let name = HeaderName::from_bytes(value).ok()?;
                field = Some(name).filter(|name| !matches!(*name, header::AUTHORIZATION | header::COOKIE));
                field.as_ref()?;
            }
            Part::FieldLine => {
                request.headers_mut().append(field.clone()?, HeaderValue::from_bytes(value).ok()?);
            }
            // A key in which no such cookie was sent speaks of nobody.
            Part::CookieName => {}
            Part::Scheme => {
                let known = ["http", "https"].into_iter().find(|known| known.as_bytes() == value)?;
                request.extensions_mut().insert(Scheme(known));
            }
            // Somebody's own: it isn't for the cache to use.
            Part::Cookie => return None,
            Part::Forwarded | Part::Partition | Part::Rewritten | Part::Search | Part::Content | Part::Data => {
                return None;
            }
        }
    }
    *request.uri_mut() = Uri::try_from(target).ok()?;
    Some(request)
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.reads == other.reads
    }
}

impl Eq for Candidate {}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.reads.cmp(&other.reads)
    }
}
