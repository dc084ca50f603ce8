//! Everything that can be set on a cache, with its defaults.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use crate::clock::{Clock, SystemClock};
use crate::compression::Compression;
use crate::outcome::HeaderSwitches;
use crate::policy::Policy;
use crate::query::QueryReader;
use crate::rfc9111::storability::Leniency;
use crate::rfc9111::vary::Matching;
use crate::rules::Rule;
use crate::storage::backend::Backend;

#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) backend: Backend,
    /// How long what is near may be used before the far store is asked once more; `None` for as long as it is fresh.
    pub(crate) near_ttl: Option<Duration>,
    /// How long a request waits for another instance's answer.
    pub(crate) max_lease_wait: Duration,
    /// Keys the digests of principals on all instances.
    pub(crate) partition_secret: Option<[u8; 32]>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) otherwise: Policy,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) switches: HeaderSwitches,
    pub(crate) outcome_extension: bool,
    /// Targeted fields (RFC 9213) in the order they count.
    pub(crate) targets: Vec<HeaderName>,
    /// Guess lifetimes from `Last-Modified`.
    pub(crate) heuristics: bool,
    pub(crate) leniency: Leniency,
    pub(crate) matching: Matching,
    /// Serve stale, without anybody's word, where the handler can't be reached (RFC 9111 §4.2.4).
    pub(crate) stale_when_disconnected: bool,
    /// Use a stored response that doesn't say it is for everybody for requests with `Authorization` (§3.5 forbids only the reverse).
    pub(crate) authorized_may_share: bool,
    /// Take as a confirmation what doesn't prove to be one: a 304 that names another validator, as the public test suite expects, and the
    /// answer to a HEAD that names none (§4.3.5).
    pub(crate) trust_any_304: bool,
    /// Store the answer to a POST where it answers a GET of the same URI as well (RFC 9110 §9.3.3).
    pub(crate) store_post: bool,
    /// Listen to `No-Vary-Search`.
    pub(crate) no_vary_search: bool,
    /// How the content of a QUERY is read; `None` where QUERY is not looked up.
    pub(crate) query: Option<QueryReader>,
    pub(crate) max_query_content: usize,
    /// Never stored, beside what the RFC forbids.
    pub(crate) never_stored: Vec<HeaderName>,
    /// Stored though by default they are taken as of one exchange.
    pub(crate) replayed: Vec<HeaderName>,
    /// Clients get the fields that name tags.
    pub(crate) forward_tags: bool,
    /// Responses bear the tags of what they are made from.
    pub(crate) propagate_tags: bool,
    pub(crate) max_head_size: usize,
    pub(crate) max_body_size: usize,
    pub(crate) max_fill_bytes: usize,
    pub(crate) max_variants: usize,
    pub(crate) max_refreshes: usize,
    /// How many requests may wait for fills, for all of them together.
    pub(crate) max_waiting: usize,
    pub(crate) max_wait: Duration,
    /// How old a fill without an answer may be for others to wait for it.
    pub(crate) max_fill_age: Duration,
    /// How long what others purged may still be served, where instances share a log.
    pub(crate) staleness_bound: Duration,
    /// Bodies up to this size are complete, hashed and stored before the first answer goes out, if the handler has them ready.
    pub(crate) eager_etag_size: usize,
    pub(crate) compression: Compression,
    /// Learn from the handler's answers, for the report.
    pub(crate) observe_answers: bool,
    /// Of data caches, by name.
    #[cfg(feature = "data")]
    pub(crate) data: std::collections::BTreeMap<String, crate::data::Defaults>,
}

impl Settings {
    pub(crate) fn new(backend: Backend) -> Self {
        Self {
            backend,
            near_ttl: None,
            max_lease_wait: Duration::from_secs(1),
            partition_secret: None,
            rules: Vec::new(),
            otherwise: Policy::from_origin(),
            clock: Arc::new(SystemClock::default()),
            switches: HeaderSwitches::default(),
            outcome_extension: true,
            targets: vec![HeaderName::from_static("cdn-cache-control")],
            heuristics: false,
            leniency: Leniency::default(),
            matching: Matching::Careful,
            stale_when_disconnected: false,
            authorized_may_share: false,
            trust_any_304: false,
            store_post: false,
            no_vary_search: true,
            query: None,
            max_query_content: 64 << 10,
            never_stored: Vec::new(),
            replayed: Vec::new(),
            forward_tags: false,
            propagate_tags: true,
            max_head_size: 32 << 10,
            max_body_size: 10 << 20,
            max_fill_bytes: 64 << 20,
            max_variants: 16,
            max_refreshes: 64,
            max_waiting: 65_536,
            max_wait: Duration::from_secs(30),
            max_fill_age: Duration::from_secs(10),
            staleness_bound: Duration::from_secs(1),
            eager_etag_size: 16 << 10,
            compression: Compression::off(),
            observe_answers: true,
            #[cfg(feature = "data")]
            data: Default::default(),
        }
    }

    /// RFC 9111 to the letter where a safe default is stricter.
    pub(crate) fn follow_the_letter(&mut self) {
        self.heuristics = true;
        self.leniency = Leniency {
            error_statuses: true,
            set_cookie: true,
            vary_credentials: true,
            must_understand_lifts_no_store: true,
        };
        self.matching = Matching::Letter;
        self.stale_when_disconnected = true;
        self.authorized_may_share = true;
        self.trust_any_304 = true;
        self.store_post = true;
    }
}
