//! [`Variance`]: which variant of its resource a stored response is (RFC 9111 §4.1).

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use crate::rfc9111::vary::{Matching, VariantKey, variant_key};
use crate::sent_fields::SentFields;

/// The nominated fields of a response and what the request that it answered said in them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Variance {
    pub(crate) fields: SmallVec<[HeaderName; 2]>,
    /// Their values in the request, normalised.
    pub(crate) key: VariantKey,
    /// The same as they came, or absent: a request that says it alike needs no normalisation. Empty if a field had several lines.
    as_sent: SmallVec<[Option<HeaderValue>; 2]>,
}

impl Variance {
    /// What `asked` says in the fields that a response nominates.
    pub(crate) fn of(fields: SmallVec<[HeaderName; 2]>, asked: &HeaderMap, matching: Matching) -> Self {
        let key = variant_key(&fields, asked, matching);
        let copy = |line: &HeaderValue| HeaderValue::from_bytes(line.as_bytes()).ok();
        let sent = |name| at_most_one_line(asked, name).map(|line| line.and_then(copy));
        let as_sent = fields.iter().map(sent).collect::<Option<_>>().unwrap_or_default();
        Self { fields, key, as_sent }
    }

    /// Whether `asked` says the same, to the byte or once normalised.
    pub(crate) fn matches(&self, asked: &HeaderMap, matching: Matching) -> bool {
        let to_the_byte = !self.as_sent.is_empty() && self.was_said_in(|name| bytes_of(at_most_one_line(asked, name)));
        to_the_byte || variant_key(&self.fields, asked, matching) == self.key
    }

    /// Whether `asked` says the same to the byte; never where a field had several lines.
    pub(crate) fn was_said_by(&self, asked: &SentFields) -> bool {
        self.was_said_in(|name| asked.at_most_one_line(name))
    }

    #[inline]
    fn was_said_in<'a>(&self, line: impl Fn(&HeaderName) -> Option<Option<&'a [u8]>>) -> bool {
        let same = |(name, sent): (&HeaderName, &Option<HeaderValue>)| {
            line(name) == Some(sent.as_ref().map(HeaderValue::as_bytes))
        };
        self.fields.len() == self.as_sent.len() && self.fields.iter().zip(&self.as_sent).all(same)
    }

    /// The nominated fields with what the request said in each, as it came; where a field had several lines, none is known.
    pub(crate) fn said(&self) -> impl Iterator<Item = (&HeaderName, Option<&HeaderValue>)> {
        self.fields.iter().enumerate().map(|(n, name)| (name, self.as_sent.get(n).and_then(Option::as_ref)))
    }

    /// The fields with the line that each had, if it had one; `None` where one had several.
    pub(crate) fn sent(&self) -> Option<impl Iterator<Item = (&HeaderName, Option<&HeaderValue>)>> {
        let lines = self.as_sent.iter().map(Option::as_ref);
        (self.fields.len() == self.as_sent.len()).then(|| self.fields.iter().zip(lines))
    }

    /// What its [record](crate::record) is made of: the lines as they came, or none where a field had several.
    #[cfg(feature = "record")]
    pub(crate) fn as_sent(&self) -> &[Option<HeaderValue>] {
        &self.as_sent
    }

    /// The variance that is made of these.
    #[cfg(feature = "record")]
    pub(crate) fn of_parts(
        fields: SmallVec<[HeaderName; 2]>,
        key: VariantKey,
        as_sent: SmallVec<[Option<HeaderValue>; 2]>,
    ) -> Self {
        Self { fields, key, as_sent }
    }

    /// The bytes of its values.
    pub(crate) fn size(&self) -> usize {
        self.key.len() + self.as_sent.iter().flatten().map(HeaderValue::len).sum::<usize>()
    }
}

/// The line of a field, or that there is none; `None` where there are several.
fn at_most_one_line<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Option<&'a HeaderValue>> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next();
    lines.next().is_none().then_some(first)
}

fn bytes_of(line: Option<Option<&HeaderValue>>) -> Option<Option<&[u8]>> {
    line.map(|line| line.map(HeaderValue::as_bytes))
}

/// The variances that entries share: most clients ask for the same two or three variants of everything.
#[derive(Debug, Default)]
pub(crate) struct SharedVariances {
    known: Mutex<HashMap<u64, Weak<Variance>, ahash::RandomState>>,
    /// By the lines of a request as they came: where they are known, nothing has to be normalised.
    as_sent: Mutex<HashMap<u64, (Matching, Weak<Variance>), ahash::RandomState>>,
}

/// The most that are remembered; others have memory of their own.
const MOST: usize = 1024;

impl SharedVariances {
    /// What `asked` says in the fields that a response nominates, as [`Variance::of`] has it.
    pub(crate) fn of(
        &self,
        fields: SmallVec<[HeaderName; 2]>,
        asked: &SentFields,
        matching: Matching,
    ) -> Arc<Variance> {
        let sent = |name| asked.at_most_one_line(name);
        let mut known = self.as_sent.lock().unwrap_or_else(PoisonError::into_inner);
        let mut hasher = known.hasher().build_hasher();
        for name in &fields {
            (name, sent(name)).hash(&mut hasher);
        }
        let id = hasher.finish();
        let is_it = |one: &Variance| one.fields == fields && one.was_said_by(asked);
        let found = known.get(&id).filter(|(by, _)| *by == matching).and_then(|(_, one)| one.upgrade());
        if let Some(found) = found.filter(|one| is_it(one)) {
            return found;
        }
        let own = self.share(Variance::of(fields, &asked.to_map(), matching));
        if known.len() >= MOST {
            known.retain(|_, (_, variance)| variance.strong_count() > 0);
        }
        if known.len() < MOST {
            known.insert(id, (matching, Arc::downgrade(&own)));
        }
        own
    }

    /// The one that is equal, if it is known.
    pub(crate) fn share(&self, variance: Variance) -> Arc<Variance> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let id = known.hasher().hash_one(&variance);
        if let Some(shared) = known.get(&id).and_then(Weak::upgrade).filter(|shared| **shared == variance) {
            return shared;
        }
        let own = Arc::new(variance);
        if known.len() >= MOST {
            known.retain(|_, variance| variance.strong_count() > 0);
        }
        if known.len() < MOST {
            known.insert(id, Arc::downgrade(&own));
        }
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn what_is_said_alike_matches_and_what_is_not_is_compared_by_meaning() {
        let fields = || SmallVec::from_vec(vec![http::header::ACCEPT_ENCODING, http::header::ORIGIN]);
        let variance = Variance::of(fields(), &headers(&[("accept-encoding", "gzip, br")]), Matching::Careful);
        let matches = |lines| variance.matches(&headers(lines), Matching::Careful);
        assert!(matches(&[("accept-encoding", "gzip, br")]));
        assert!(matches(&[("accept-encoding", "br,gzip")]));
        assert!(matches(&[("accept-encoding", "gzip"), ("accept-encoding", "br")]));
        assert!(!matches(&[("accept-encoding", "gzip, br"), ("origin", "x")]));
        assert!(!matches(&[]));
    }

    #[test]
    fn equal_ones_are_shared_and_memory_is_bounded() {
        let shared = SharedVariances::default();
        let of = |value: &str| {
            let mut asked = HeaderMap::new();
            asked.insert("accept-language", value.parse().unwrap());
            Variance::of(SmallVec::from_vec(vec![http::header::ACCEPT_LANGUAGE]), &asked, Matching::Careful)
        };
        let one = shared.share(of("en"));
        assert!(Arc::ptr_eq(&one, &shared.share(of("en"))));
        let all: Vec<_> = (0..3 * MOST).map(|n| shared.share(of(&format!("x{n}")))).collect();
        assert!(shared.known.lock().unwrap().len() <= MOST && all.len() == 3 * MOST);
    }
}
