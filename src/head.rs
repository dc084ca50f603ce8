//! [`StoredHead`]: the fields of a stored response. Responses of one route mostly differ in a few fields, so the rest is shared by all
//! entries: that saves memory, and on a hit it is in the processor's cache already.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hint::black_box;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use smallvec::SmallVec;

use crate::nearby::Nearby;
use crate::rfc9111::date;
use crate::rfc9111::validation::{EntityTag, Validators};

/// The fields that usually differ between responses of one route.
pub(crate) const OWN: [HeaderName; 6] =
    [header::DATE, header::ETAG, header::LAST_MODIFIED, header::EXPIRES, header::CONTENT_LOCATION, header::LOCATION];

/// The values of own fields, in the order of [`OWN`].
type OwnValues = SmallVec<[HeaderValue; 3]>;

/// A head as it goes out, but for what is filled in each time.
///
/// Places to be filled come first in the map, those of the cache and then the own ones, so that filling needs no look-up.
#[derive(Clone, Debug)]
pub(crate) struct StoredHead {
    /// All fields, with empty values in the places.
    shared: Arc<HeaderMap>,
    own: OwnValues,
    /// Which of [`OWN`] have a value, by bit.
    has_own: u8,
    /// `Date` and `Last-Modified`, read once.
    date: Option<SystemTime>,
    last_modified: Option<SystemTime>,
}

impl StoredHead {
    /// The whole head, with what `fill` puts into the places that were reserved, one after another.
    pub(crate) fn to_map(&self, fill: impl FnOnce(&mut Places<'_>)) -> HeaderMap {
        let mut map = HeaderMap::clone(&self.shared);
        let mut places = Places(map.values_mut());
        fill(&mut places);
        self.own.iter().for_each(|value| places.put(value.clone()));
        map
    }

    /// The whole head, without what was reserved.
    pub(crate) fn to_map_without(&self, reserved: &[HeaderName]) -> HeaderMap {
        let mut map = self.to_map(|places| reserved.iter().for_each(|_| places.put(HeaderValue::from_static(""))));
        for name in reserved {
            map.remove(name);
        }
        map
    }

    pub(crate) fn get(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.get_own(name).or_else(|| self.shared.get(name))
    }

    /// As [`StoredResponse::approach`](crate::response::StoredResponse::approach).
    #[inline]
    pub(crate) fn approach(&self) {
        black_box((self.own.first().map(HeaderValue::is_sensitive), self.own.last().map(HeaderValue::is_sensitive)));
    }

    /// Name and value bytes of all fields, as if nothing were shared.
    pub(crate) fn size(&self) -> usize {
        let shared: usize = self.shared.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        shared + self.own.iter().map(HeaderValue::len).sum::<usize>()
    }

    fn get_own(&self, name: &HeaderName) -> Option<&HeaderValue> {
        let place = OWN.iter().position(|own| own == name).filter(|place| self.has_own & (1 << place) != 0)?;
        let before = self.has_own & ((1 << place) - 1);
        self.own.get(before.count_ones() as usize)
    }

    pub(crate) fn validators(&self) -> Validators<'_> {
        Validators { etag: self.etag(), last_modified: self.last_modified, date: self.date }
    }

    /// The entity tag, if there is exactly one.
    pub(crate) fn etag(&self) -> Option<EntityTag<'_>> {
        self.get_own(&header::ETAG).map(|value| EntityTag::parse(value.as_bytes()))
    }

    pub(crate) fn last_modified(&self) -> Option<SystemTime> {
        self.last_modified
    }
}

/// What its [record](crate::record) is made of.
#[cfg(feature = "record")]
impl StoredHead {
    /// All fields, with empty values in the places.
    pub(crate) fn shared(&self) -> &HeaderMap {
        &self.shared
    }

    /// Which of [`OWN`] have a value, by bit.
    pub(crate) fn has_own(&self) -> u8 {
        self.has_own
    }

    /// Their values, in that order.
    pub(crate) fn own(&self) -> &[HeaderValue] {
        &self.own
    }

    /// The head that is made of these.
    pub(crate) fn of_parts(shared: Arc<HeaderMap>, own: SmallVec<[HeaderValue; 3]>, has_own: u8) -> Self {
        let mut head = Self { shared, own, has_own, date: None, last_modified: None };
        // A field that comes several times has no place among the own ones, and no date.
        let date = |name| head.get_own(&name).and_then(|value| date::parse(value.as_bytes()));
        (head.date, head.last_modified) = (date(header::DATE), date(header::LAST_MODIFIED));
        head
    }
}

/// The reserved places of a head, in their order.
pub(crate) struct Places<'a>(http::header::ValuesMut<'a, HeaderValue>);

impl Places<'_> {
    /// Fills the next place.
    pub(crate) fn put(&mut self, value: HeaderValue) {
        if let Some(place) = self.0.next() {
            *place = value;
        }
    }
}

/// The heads that entries share.
#[derive(Debug, Default)]
pub(crate) struct SharedHeads {
    known: Mutex<Known>,
    /// As large as what `bytes` counts references in, and knows the memory by.
    counters: Nearby<[usize; 3]>,
}

#[derive(Debug, Default)]
struct Known {
    /// Weak, so that a head goes with its last entry; with how often it was seen.
    heads: HashMap<u64, (Weak<HeaderMap>, u32), ahash::RandomState>,
    /// Heads not shared since the last look for such as can go.
    unshared: usize,
    /// Bytes given away for the life of the process.
    leaked: usize,
}

/// The most shared heads that are remembered.
const MOST_HEADS: usize = 1024;

/// A head that was seen this often gets values that live as long as the process: handing them out touches no counter, and above all none
/// that all cores would contend for.
pub(crate) const OFTEN: u32 = 4;

/// The first heads get such values at once, up to so many bytes: most applications have no more.
const LEAKED_AT_ONCE: usize = 16 << 10;

/// The most bytes that one cache gives away so.
const MOST_LEAKED: usize = 64 << 10;

impl SharedHeads {
    /// The compact form of `head`, with places for `reserved`; and of `content`, which shares memory with it if it is small: a hit then
    /// counts its references in one place.
    pub(crate) fn store(&self, head: HeaderMap, reserved: &[HeaderName], content: Bytes) -> (StoredHead, Bytes) {
        let date = date::field(&head, header::DATE);
        let last_modified = date::field(&head, header::LAST_MODIFIED);
        let (shared, own, has_own, content) = self.split(head, reserved, content);
        (StoredHead { shared: self.share(shared), own, has_own, date, last_modified }, content)
    }

    /// Puts places for the reserved and the own fields in front of all others, and the values of the own ones, with small content, into memory of
    /// their own.
    fn split(&self, head: HeaderMap, reserved: &[HeaderName], content: Bytes) -> (HeaderMap, OwnValues, u8, Bytes) {
        let mut shared = HeaderMap::with_capacity(reserved.len() + head.len());
        reserved.iter().for_each(|name| drop(shared.insert(name.clone(), HeaderValue::from_static(""))));
        // A repeated field is junk, or at least nothing usual, and isn't taken apart.
        let is_own = |name: &HeaderName| OWN.contains(name) && head.get_all(name).iter().count() == 1;
        let mut values: SmallVec<[&HeaderValue; 3]> = SmallVec::new();
        let mut has_own = 0;
        for (place, name) in OWN.iter().enumerate().filter(|(_, name)| is_own(name)) {
            shared.insert(name, HeaderValue::from_static(""));
            values.extend(head.get(name));
            has_own |= 1 << place;
        }
        for (name, value) in head.iter().filter(|(name, _)| !is_own(name)) {
            shared.append(name.clone(), value.clone());
        }
        let copied = if content.len() <= COPIED_WHEN_STORED { content.len() } else { 0 };
        let mut memory = BytesMut::with_capacity(values.iter().map(|value| value.len()).sum::<usize>() + copied);
        values.iter().for_each(|value| memory.extend_from_slice(value.as_bytes()));
        memory.extend_from_slice(&content[..copied]);
        self.counters.offer();
        let mut memory = memory.freeze();
        let mut kept = |value: &&HeaderValue| {
            HeaderValue::from_maybe_shared(memory.split_to(value.len())).unwrap_or_else(|_| HeaderValue::clone(value))
        };
        let own = values.iter().map(&mut kept).collect();
        let content = if copied == content.len() { memory } else { content };
        (shared, own, has_own, content)
    }

    fn share(&self, head: HeaderMap) -> Arc<HeaderMap> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Known { heads, unshared, leaked } = &mut *known;
        let id = heads.hasher().hash_one(Fields(&head));
        if heads.len() >= MOST_HEADS && !heads.contains_key(&id) {
            *unshared += 1;
            // Looking through all of them is worth it only now and then.
            if *unshared % MOST_HEADS == 1 {
                heads.retain(|_, (head, _)| head.strong_count() > 0);
            }
            if heads.len() >= MOST_HEADS {
                return Arc::new(compact(&head));
            }
        }
        match heads.entry(id) {
            Entry::Occupied(mut known) => {
                let (weak, seen) = known.get_mut();
                let Some(mut shared) = weak.upgrade().filter(|shared| **shared == head) else {
                    let newer = Arc::new(compact(&head));
                    if weak.strong_count() == 0 {
                        *weak = Arc::downgrade(&newer);
                    }
                    return newer;
                };
                *seen = seen.saturating_add(1);
                if *seen == OFTEN
                    && let Some(lasting) = lasting(&shared, leaked, MOST_LEAKED)
                {
                    shared = Arc::new(lasting);
                    *weak = Arc::downgrade(&shared);
                }
                shared
            }
            Entry::Vacant(place) => {
                let first = Arc::new(lasting(&head, leaked, LEAKED_AT_ONCE).unwrap_or_else(|| compact(&head)));
                place.insert((Arc::downgrade(&first), 1));
                first
            }
        }
    }
}

/// Content up to this size is copied next to the own fields.
pub(crate) const COPIED_WHEN_STORED: usize = 64 << 10;

/// A copy of `head` whose values share one allocation of exactly their size. Values as they arrive are slices of a connection's
/// read buffer, and would keep all of it in memory.
pub(crate) fn compact(head: &HeaderMap) -> HeaderMap {
    let mut memory = BytesMut::with_capacity(head.values().map(HeaderValue::len).sum());
    head.values().for_each(|value| memory.extend_from_slice(value.as_bytes()));
    let mut memory = memory.freeze();
    copy_with(head, |value| HeaderValue::from_maybe_shared(memory.split_to(value.len())).ok())
}

/// A copy of `head` that lives as long as the process, unless more than `most` would then be given away.
pub(crate) fn lasting(head: &HeaderMap, leaked: &mut usize, most: usize) -> Option<HeaderMap> {
    let size: usize = head.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    let texts = head.values().all(|value| value.to_str().is_ok());
    if !texts || *leaked + size > most {
        return None;
    }
    *leaked += size;
    let forever = |text: &str| -> &'static str { Box::leak(text.into()) };
    let mut copy = HeaderMap::with_capacity(head.len());
    for (name, value) in head {
        let mut kept = HeaderValue::from_static(forever(value.to_str().unwrap_or_default()));
        kept.set_sensitive(value.is_sensitive());
        copy.append(HeaderName::from_static(forever(name.as_str())), kept);
    }
    Some(copy)
}

fn copy_with(head: &HeaderMap, mut keep: impl FnMut(&HeaderValue) -> Option<HeaderValue>) -> HeaderMap {
    let mut copy = HeaderMap::with_capacity(head.len());
    for (name, value) in head {
        let Some(mut kept) = keep(value) else { continue };
        kept.set_sensitive(value.is_sensitive());
        // A name of the standard's is a number; any other is copied, for it may share the read buffer as well.
        let name = HeaderName::from_bytes(name.as_str().as_bytes()).unwrap_or_else(|_| name.clone());
        copy.append(name, kept);
    }
    copy
}

/// The fields of a head, to be hashed in their order.
struct Fields<'a>(&'a HeaderMap);

impl std::hash::Hash for Fields<'_> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        for (name, value) in self.0 {
            name.hash(state);
            value.as_bytes().hash(state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        map
    }

    #[test]
    fn a_stored_head_is_equal_and_shares_no_read_buffer() {
        let buffer = Bytes::from(vec![b'x'; 4096]);
        let mut original = head(&[("etag", "\"a\""), ("date", "Sun, 06 Nov 1994 08:49:37 GMT"), ("content-type", "")]);
        original.append("x-a", HeaderValue::from_maybe_shared(buffer.slice(..10)).unwrap());
        original.append("x-a", HeaderValue::from_bytes(b"\xfftext").unwrap());
        original.append("location", HeaderValue::from_maybe_shared(buffer.slice(10..20)).unwrap());
        let reserved = [header::AGE, HeaderName::from_static("x-cache")];
        let (stored, content) = SharedHeads::default().store(original.clone(), &reserved, buffer.slice(..100));
        assert_eq!(stored.to_map_without(&reserved), original);
        assert_eq!(content, buffer.slice(..100));
        let filled = stored.to_map(|places| {
            places.put(HeaderValue::from(7));
            places.put(HeaderValue::from_static("HIT"));
        });
        assert_eq!(
            (&filled["age"], &filled["x-cache"], &filled["etag"]),
            (&"7".parse().unwrap(), &"HIT".parse().unwrap(), &"\"a\"".parse().unwrap())
        );
        let size: usize = original.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        assert_eq!(stored.size(), size + "agex-cache".len());
        drop(original);
        assert!(buffer.is_unique());
    }

    #[test]
    fn heads_that_differ_in_own_fields_are_shared_and_others_not() {
        let heads = SharedHeads::default();
        let store = |fields: &[(&'static str, &str)]| heads.store(head(fields), &[], Bytes::new()).0;
        let one = store(&[("etag", "\"a\""), ("x", "1")]);
        let same = store(&[("etag", "\"b\""), ("x", "1")]);
        let other = store(&[("etag", "\"b\""), ("x", "2")]);
        assert!(Arc::ptr_eq(&one.shared, &same.shared) && !Arc::ptr_eq(&one.shared, &other.shared));
        assert_eq!(same.get(&header::ETAG).unwrap(), "\"b\"");
        let often: Vec<_> = (0..9).map(|n| store(&[("etag", &n.to_string()), ("x", "1")])).collect();
        assert_eq!(often[8].to_map(|_| ()), head(&[("etag", "8"), ("x", "1")]), "also with values that last");
    }

    #[test]
    fn memory_that_is_given_away_is_bounded() {
        let heads = SharedHeads::default();
        for n in 0..5000 {
            let value = format!("{n}-{}", "x".repeat(100));
            for _ in 0..OFTEN {
                heads.store(head(&[("x", &value)]), &[], Bytes::new());
            }
        }
        let known = heads.known.lock().unwrap();
        assert!(known.leaked <= MOST_LEAKED && known.heads.len() <= MOST_HEADS);
    }

    #[test]
    fn repeated_validators_are_none() {
        let (stored, _) =
            SharedHeads::default().store(head(&[("etag", "\"a\""), ("etag", "\"b\"")]), &[], Bytes::new());
        assert_eq!(stored.etag(), None);
        assert_eq!(stored.to_map(|_| ()).get_all("etag").iter().count(), 2);
    }
}
