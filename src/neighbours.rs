//! [`Neighbours`]: layers that are known to stand in the wrong order, seen by what they do to answers. In debug builds each is said once for each
//! rule, with what to do about it; nothing else depends on it. Hits never come here.

use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use http::StatusCode;

use crate::key::CacheKey;
use crate::rfc9111::storability::DeclineReason;
use crate::rules::Route;

/// An order of layers that can't be meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Misorder {
    /// A layer of a cache inside another one of the same cache.
    Nested = 1,
    /// Each answer sets a cookie: sessions inside.
    CookieOnEach = 2,
    /// What was refused to one was stored for everybody: authorisation inside.
    Refusal = 4,
    /// What a partition needs isn't there when the cache looks: authentication inside.
    LatePrincipal = 8,
    /// Content is coded, and nothing says that it depends on `Accept-Encoding`.
    SilentCoding = 16,
}

impl Misorder {
    fn advice(self) -> &'static str {
        match self {
            Self::Nested => {
                "a layer of this cache is inside another one of it, where it does nothing. Take one of the two away, or give the inner \
                 routes a cache of their own: a setter on the layer makes one"
            }
            Self::CookieOnEach => {
                "every answer sets a cookie, so none is stored. If a session layer does it, put it outside of the cache (with axum, add it \
                 after the cache); if the cookie is the handler's and means nothing, use `Policy::drop_set_cookie`"
            }
            Self::Refusal => {
                "one client was answered 401 or 403, and what another got for the same URI is stored for everybody: hits skip the \
                 authorisation inside. Put that layer outside of the cache (with axum, add it after the cache), use `Policy::per`, or \
                 `Policy::bypass`"
            }
            Self::LatePrincipal => {
                "no request has a principal for `Policy::per`, so none is cached, and yet they are answered well. If a layer inside of the \
                 cache finds out who the user is, put it outside (with axum, add it after the cache)"
            }
            Self::SilentCoding => {
                "an answer has `Content-Encoding` and no `Vary: Accept-Encoding`. Here it is only given to who asks alike; caches downstream \
                 can't know. Let the layer that codes it add the field, or leave the coding to `CompressionLayer`"
            }
        }
    }
}

/// What a rule remembers of its answers, to tell a wrong order from a single odd answer.
pub(crate) struct Neighbours {
    /// The bits of what was said already.
    said: AtomicU8,
    /// Answers in a row that set a cookie, and that a rule with a TTL would have stored otherwise.
    cookies: AtomicU8,
    /// Answers in a row to requests without a principal. Not counted any more once there was one.
    strangers: AtomicU8,
    /// Hashes of the resources that were refused last, each in the place that its hash gives.
    refused: [AtomicU64; PLACES],
}

const PLACES: usize = 16;

/// So many in a row are a habit.
const HABIT: u8 = 3;

/// Strangers aren't counted.
const NEVER: u8 = u8::MAX;

impl Neighbours {
    pub(crate) fn new() -> Self {
        Self {
            said: AtomicU8::new(0),
            cookies: AtomicU8::new(0),
            strangers: AtomicU8::new(0),
            refused: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// An answer was not stored, since it sets a cookie; `true` if that is a habit.
    pub(crate) fn set_cookie(&self) -> bool {
        self.cookies.fetch_add(1, Ordering::Relaxed).saturating_add(1) >= HABIT
    }

    /// A request had no principal and was answered well all the same; `true` if none ever has one.
    pub(crate) fn no_principal(&self) -> bool {
        let one_more = |seen| (seen < HABIT).then(|| seen + 1);
        matches!(self.strangers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more), Ok(seen) if seen + 1 == HABIT)
    }

    /// Somebody was refused this.
    pub(crate) fn refused(&self, key: &CacheKey) {
        let (place, hash) = self.place(key);
        place.store(hash, Ordering::Relaxed);
    }

    /// An answer was stored for everybody; `true` if the same was refused to somebody.
    pub(crate) fn stored(&self, key: &CacheKey, partitioned: bool) -> bool {
        self.cookies.store(0, Ordering::Relaxed);
        if partitioned {
            self.strangers.store(NEVER, Ordering::Relaxed);
        }
        let (place, hash) = self.place(key);
        place.load(Ordering::Relaxed) == hash
    }

    /// Says what is wrong, the first time.
    pub(crate) fn say(&self, misorder: Misorder, rule: &str, path: &str) {
        let bit = misorder as u8;
        if self.said.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            let advice = misorder.advice();
            tracing::warn!(
                target: "larder",
                rule,
                path,
                "layers in the wrong order: {advice}. Said once for each rule, in debug builds; see docs/neighbours.md."
            );
        }
    }

    fn place(&self, key: &CacheKey) -> (&AtomicU64, u64) {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        // 0 stands for none.
        let hash = hasher.finish() | 1;
        (&self.refused[(hash >> 8) as usize % PLACES], hash)
    }
}

/// Whether anybody looks.
const WATCHED: bool = cfg!(debug_assertions);

impl Route {
    /// A layer of this cache is inside another one of it.
    pub(crate) fn watch_nested(&self, path: &str) {
        if WATCHED {
            self.warn_of_order(Misorder::Nested, path);
        }
    }

    /// A request without a principal was answered.
    pub(crate) fn watch_stranger(&self, status: StatusCode, path: &str) {
        if WATCHED && status.is_success() && self.neighbours.no_principal() {
            self.warn_of_order(Misorder::LatePrincipal, path);
        }
    }

    /// An answer is not stored. `replaces` tells that something is, under the same key.
    pub(crate) fn watch_declined(&self, status: StatusCode, reason: DeclineReason, key: &CacheKey, replaces: bool) {
        if !WATCHED {
            return;
        }
        if reason == DeclineReason::SetCookie && self.policy.ttl.is_some() && self.neighbours.set_cookie() {
            self.warn_of_order(Misorder::CookieOnEach, &String::from_utf8_lossy(key.path()));
        }
        let is_refusal = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        // What one principal may have changes with time; that is what the lifetime of a partition is for.
        if is_refusal && !self.policy.is_partitioned() {
            self.neighbours.refused(key);
            if replaces {
                self.warn_of_order(Misorder::Refusal, &String::from_utf8_lossy(key.path()));
            }
        }
    }

    /// An answer is about to be stored.
    pub(crate) fn watch_stored(&self, status: StatusCode, key: &CacheKey, silent_coding: bool) {
        if !WATCHED {
            return;
        }
        if self.neighbours.stored(key, self.policy.is_partitioned()) && status.is_success() {
            self.warn_of_order(Misorder::Refusal, &String::from_utf8_lossy(key.path()));
        }
        if silent_coding {
            self.warn_of_order(Misorder::SilentCoding, &String::from_utf8_lossy(key.path()));
        }
    }
}

impl fmt::Debug for Neighbours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Neighbours").finish_non_exhaustive()
    }
}
