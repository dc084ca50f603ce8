//! [`ValueExplanation`]: why a look at a key of a data cache comes to what it does, found by what decides on looks, and without changing anything.

use std::fmt;
use std::time::Duration;

use http::{HeaderMap, header};

use super::DataCache;
use super::value::is_none;
use crate::cache::CacheCore;
use crate::clock::Moment;
use crate::fates::Fate;
use crate::key::CacheKey;
use crate::response::StoredResponse;
use crate::storage::Query;

/// What a look at a key would find, and why; from [`DataCache::explain`]. It displays as a text for people.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ValueExplanation {
    /// The key as purges by pattern see it: `products:17`.
    pub key: String,
    /// What is there, and what may be done with it.
    pub state: ValueState,
    /// It lies in the memory of this process, and not only in a store that is far away.
    pub in_memory: bool,
    /// How old it is; `None` where nothing is there, as for the next ones.
    pub age: Option<Duration>,
    /// For how long from when it was stored, or its loading began, it is good.
    pub lifetime: Option<Duration>,
    /// For how long past that it may still be of use.
    pub stale_windows: Option<Duration>,
    /// The number of the newest purge that it was held against when it was stored.
    pub number: Option<u64>,
    /// Its tags.
    pub tags: Vec<String>,
    /// What its serialiser calls what it makes.
    pub content_type: Option<String>,
    /// An [atomic operation](DataCache::add) stored it.
    pub atomic: bool,
    /// Loads of it that are under way in this process.
    pub loading: usize,
    /// What last became of the key here, as far as that is remembered.
    pub fate: Option<Fate>,
    /// What went wrong where a store couldn't say what it has.
    pub store_error: Option<String>,
}

/// What is under a key, and what may be done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ValueState {
    /// A value that is fresh.
    Fresh,
    /// It is remembered that there is no value.
    None,
    /// A value that is over, and still in one of its stale windows.
    Stale,
    /// A value that is over.
    Over,
    /// A value that was purged, or written to elsewhere.
    Purged,
    /// A value of which this instance doesn't know whether others have purged it.
    Distrusted,
    /// A value of another serialiser.
    Foreign,
    /// Nothing.
    Absent,
}

impl ValueState {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::None => "none",
            Self::Stale => "stale",
            Self::Over => "over",
            Self::Purged => "purged",
            Self::Distrusted => "distrusted",
            Self::Foreign => "foreign",
            Self::Absent => "absent",
        }
    }

    /// What it means for who looks.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Fresh => "a value that is fresh: a look is a hit",
            Self::None => "it is remembered that there is no value: who may be told so is, and others load",
            Self::Stale => {
                "a value whose time is over: `get` is a miss, and who loads may be given it meanwhile, or in place of an error, as its windows say"
            }
            Self::Over => "a value whose time is over: a look is a miss",
            Self::Purged => {
                "a value that was purged, deleted or set anew: a look is a miss, and its memory is given back by and by"
            }
            Self::Distrusted => {
                "a value, but what other instances have purged of late isn't known here: a look is a miss until it is"
            }
            Self::Foreign => {
                "a value that another serialiser has made: a look is a miss, and the next load replaces it"
            }
            Self::Absent => "nothing: a look is a miss",
        }
    }
}

impl DataCache {
    /// What a look at a key would find, and why. It changes nothing, and counts nothing.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// use larder::data::ValueState;
    /// let products = larder::DataCache::in_memory(1 << 20);
    /// products.set("17", &"jar").await?;
    /// assert_eq!(products.explain("17").await.state, ValueState::Fresh);
    /// products.delete("17").await;
    /// println!("{}", products.explain("17").await);
    /// # Ok::<(), larder::DataError>(()) }).unwrap();
    /// ```
    pub async fn explain(&self, key: impl AsRef<[u8]>) -> ValueExplanation {
        self.explain_key(&self.key(key.as_ref()), true).await
    }

    /// The same for who may not know which serialiser the application has.
    pub(crate) async fn explain_key(&self, key: &CacheKey, knows_serializer: bool) -> ValueExplanation {
        let core = self.core();
        self.begun(&core).await;
        let now = core.now();
        let state = |stored: &StoredResponse| self.state(&core, stored, key, now, knows_serializer);
        let near = self.near(&core).and_then(|near| near.peek(key, |stored| stored.first().cloned()));
        let is_enough = near.as_ref().is_some_and(|near| state(near).is_given() && core.is_current(near, now));
        let mut store_error = None;
        let far = match core.far_for(key).filter(|_| !is_enough) {
            None => None,
            Some(far) => {
                let found = far.get(Query::new(key, &HeaderMap::new(), now)).await;
                let found = found.inspect_err(|error| store_error = Some(error.to_string()));
                found.ok().and_then(|found| found.into_iter().next()).map(|found| StoredResponse::clone(&found))
            }
        };
        let in_memory = near.is_some() && far.as_ref().is_none_or(|far| !state(far).is_given());
        let stored = if in_memory { near } else { far };
        let of = |what: fn(&StoredResponse) -> Duration| stored.as_ref().map(what);
        ValueExplanation {
            key: String::from_utf8_lossy(key.path()).into_owned(),
            state: stored.as_ref().map_or(ValueState::Absent, state),
            in_memory,
            age: stored.as_ref().map(|stored| stored.age(now)),
            lifetime: of(StoredResponse::lifetime),
            stale_windows: of(|stored| stored.terms.stale_while_revalidate.max(stored.terms.stale_if_error)),
            number: stored.as_ref().map(|stored| stored.stamp.number),
            tags: stored.iter().flat_map(StoredResponse::tags).map(str::to_owned).collect(),
            content_type: stored.as_ref().and_then(content_type),
            atomic: stored.as_ref().is_some_and(StoredResponse::is_atomic),
            loading: core.loads.under_way(core.purges.stamp(key, 0).path, key),
            fate: core.fates.of(key),
            store_error,
        }
    }

    /// As [`weigh`](Self::weigh) has it, with the reason.
    fn state(
        &self,
        core: &CacheCore,
        stored: &StoredResponse,
        key: &CacheKey,
        now: Moment,
        knows_serializer: bool,
    ) -> ValueState {
        let terms = if stored.is_atomic() { stored.terms } else { stored.current_terms() };
        let (age, windows) = (stored.age(now), terms.stale_while_revalidate.max(terms.stale_if_error));
        match () {
            () if knows_serializer && !self.shape.regimes.reads(stored) => ValueState::Foreign,
            () if !core.is_valid(stored, key) => ValueState::Purged,
            () if !core.coherence.allows(&stored.stamp, key, now) => ValueState::Distrusted,
            () if terms.is_fresh(age) && is_none(stored) => ValueState::None,
            () if terms.is_fresh(age) => ValueState::Fresh,
            () if terms.staleness(age) < windows => ValueState::Stale,
            () => ValueState::Over,
        }
    }
}

impl ValueState {
    fn is_given(self) -> bool {
        matches!(self, Self::Fresh | Self::None)
    }
}

fn content_type(stored: &StoredResponse) -> Option<String> {
    let value = stored.head.get(&header::CONTENT_TYPE)?;
    Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
}

impl fmt::Display for ValueExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.state.meaning())?;
        if let (Some(age), Some(lifetime)) = (self.age, self.lifetime) {
            let place = if self.in_memory { "in memory" } else { "in the store that is far" };
            write!(f, "\n{place}, {} s old, good for {} s", age.as_secs(), lifetime.as_secs())?;
        }
        if !self.tags.is_empty() {
            write!(f, "\ntags: {}", self.tags.join(", "))?;
        }
        if self.loading > 0 {
            write!(f, "\nit is being loaded")?;
        }
        if let Some(Fate { became, ago }) = self.fate {
            write!(f, "\nlast it was {}, {} s ago", became.as_str(), ago.as_secs())?;
        }
        self.store_error.iter().try_for_each(|error| write!(f, "\nthe store couldn't say what it has: {error}"))
    }
}
