//! [`Words`]: the terms on which a value is stored; and [`Wanted`], which value that is.

use std::sync::Arc;
use std::time::Duration;

use crate::key::CacheKey;

/// How long a value is good for that nobody says anything about.
const USUAL: Duration = Duration::from_secs(60);

/// The same where it ends by disuse: in any case some day.
const AT_MOST: Duration = Duration::from_secs(366 * 86_400);

/// What an application says about values: about all of a cache, or about one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Words {
    pub(super) ttl: Option<Duration>,
    pub(super) sliding: Option<Duration>,
    pub(super) stale_while_revalidate: Duration,
    pub(super) stale_if_error: Duration,
    pub(super) none_ttl: Option<Duration>,
    pub(super) error_ttl: Option<Duration>,
}

/// One value, and what is said of it.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) key: CacheKey,
    pub(crate) words: Words,
    /// Beside those of its cache.
    pub(crate) tags: Vec<Arc<str>>,
}

impl Words {
    /// The time of disuse that ends it.
    pub(super) fn idle(&self) -> Option<Duration> {
        self.sliding.filter(|idle| !idle.is_zero())
    }

    /// How long a value is good for.
    pub(super) fn lifetime(&self) -> Duration {
        let unsaid = if self.idle().is_some() { AT_MOST } else { USUAL };
        self.ttl.unwrap_or(unsaid)
    }

    /// For how long past that it is of any use.
    pub(super) fn window(&self) -> Duration {
        self.stale_while_revalidate.max(self.stale_if_error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes() {
        let secs = Duration::from_secs;
        // (ttl, sliding, lifetime)
        let rows = [
            (None, None, USUAL),
            (Some(5), None, secs(5)),
            (None, Some(5), AT_MOST),
            (None, Some(0), USUAL),
            (Some(5), Some(9), secs(5)),
        ];
        for (ttl, sliding, expected) in rows {
            let words = Words { ttl: ttl.map(secs), sliding: sliding.map(secs), ..Words::default() };
            assert_eq!(words.lifetime(), expected, "{ttl:?} {sliding:?}");
        }
    }
}
