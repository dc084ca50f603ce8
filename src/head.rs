//! [`StoredHead`]: the fields of a stored response. Responses of one route mostly differ in a few fields, so the rest is shared by all
//! entries: that saves memory, and on a hit it is in the processor's cache already.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::hint::black_box;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use smallvec::SmallVec;

use crate::nearby::Nearby;
use crate::read_date::ReadDate;
use crate::rfc9111::date::{self, unix_seconds};
use crate::rfc9111::validation::{EntityTag, Validators};
use crate::shared_head::SharedHead;

/// The fields that usually differ between responses of one route.
pub(crate) static OWN: [HeaderName; 6] =
    [header::DATE, header::ETAG, header::LAST_MODIFIED, header::EXPIRES, header::CONTENT_LOCATION, header::LOCATION];

/// What is in a place until it is filled.
static EMPTY: HeaderValue = HeaderValue::from_static("");

/// The values of own fields, in the order of [`OWN`].
type OwnValues = SmallVec<[HeaderValue; 3]>;

/// A head as it goes out, but for what is filled in each time.
///
/// Places to be filled come first in the map, those of the cache and then the own ones, so that filling needs no look-up.
// In this order in memory: what a plain hit reads comes last, next to what it reads behind it in a `StoredResponse`.
#[derive(Clone)]
#[repr(C)]
pub(crate) struct StoredHead {
    /// `Date` and `Last-Modified`, read once, for what is found again and again.
    date: ReadDate,
    last_modified: ReadDate,
    /// If not, they are read where they are asked for: what comes out of a record is mostly sent once, to somebody who has no conditions.
    has_read_dates: bool,
    /// Which of [`OWN`] have a value, by bit.
    has_own: u8,
    /// All fields, with empty values in the places.
    shared: Arc<SharedHead>,
    own: OwnValues,
}

impl StoredHead {
    /// The whole head, with what `fill` puts into the places that were reserved, one after another.
    pub(crate) fn to_map(&self, fill: impl FnOnce(&mut Places<'_>)) -> HeaderMap {
        self.filled(self.shared.map().clone(), fill)
    }

    /// The same for somebody who adds a field.
    pub(crate) fn to_roomy_map(&self, fill: impl FnOnce(&mut Places<'_>)) -> HeaderMap {
        self.filled(self.shared.with_room(), fill)
    }

    fn filled(&self, mut map: HeaderMap, fill: impl FnOnce(&mut Places<'_>)) -> HeaderMap {
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
        self.get_own(name).or_else(|| self.shared.map().get(name))
    }

    /// As [`StoredResponse::approach`](crate::response::StoredResponse::approach).
    #[inline]
    pub(crate) fn approach(&self) {
        black_box((self.own.first().map(HeaderValue::is_sensitive), self.own.last().map(HeaderValue::is_sensitive)));
    }

    /// Name and value bytes of all fields, as if nothing were shared.
    pub(crate) fn size(&self) -> usize {
        self.shared.size() + self.own.iter().map(HeaderValue::len).sum::<usize>()
    }

    fn get_own(&self, name: &HeaderName) -> Option<&HeaderValue> {
        let place = own_place(name).filter(|place| self.has_own & (1 << place) != 0)?;
        let before = self.has_own & ((1 << place) - 1);
        self.own.get(before.count_ones() as usize)
    }

    /// Whether, of what usually differs, it has `Date`, the entity tag and perhaps `Last-Modified`, and nothing else.
    pub(crate) fn has_validators_only(&self) -> bool {
        matches!(self.has_own, 0b011 | 0b111)
    }

    /// The same head with other validators; of `date` at this time. It must have [those only](Self::has_validators_only).
    pub(crate) fn like(
        &self,
        date: &HeaderValue,
        time: SystemTime,
        tag: &HeaderValue,
        last_modified: Option<&HeaderValue>,
    ) -> Self {
        // The answer may have one that isn't kept.
        let last_modified = last_modified.filter(|_| self.has_own & 0b100 != 0);
        let own = [Some(date), Some(tag), last_modified].into_iter().flatten().cloned().collect();
        let modified = match last_modified {
            Some(value) if self.get_own(&header::LAST_MODIFIED) == Some(value) => self.last_modified(),
            value => value.and_then(|value| date::parse(value.as_bytes())),
        };
        let (date, last_modified) = (ReadDate::of(Some(time)), ReadDate::of(modified));
        Self { shared: self.shared.clone(), own, has_own: self.has_own, has_read_dates: true, date, last_modified }
    }

    pub(crate) fn validators(&self) -> Validators<'_> {
        Validators { etag: self.etag(), last_modified: self.last_modified(), date: self.date() }
    }

    /// The entity tag, if there is exactly one.
    pub(crate) fn etag(&self) -> Option<EntityTag<'_>> {
        self.get_own(&header::ETAG).map(|value| EntityTag::parse(value.as_bytes()))
    }

    pub(crate) fn last_modified(&self) -> Option<SystemTime> {
        if self.has_read_dates { self.last_modified.get() } else { self.read_date(&header::LAST_MODIFIED) }
    }

    fn date(&self) -> Option<SystemTime> {
        if self.has_read_dates { self.date.get() } else { self.read_date(&header::DATE) }
    }

    /// A field that comes several times has no place among the own ones, and no date.
    fn read_date(&self, name: &HeaderName) -> Option<SystemTime> {
        self.get_own(name).and_then(|value| date::parse(value.as_bytes()))
    }
}

impl fmt::Debug for StoredHead {
    /// What is known of the dates by now is the same as what the fields say.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shared, own, has_own, .. } = self;
        let mut out = f.debug_struct("StoredHead");
        out.field("shared", shared.map()).field("own", own).field("has_own", has_own);
        out.field("date", &self.date()).field("last_modified", &self.last_modified()).finish()
    }
}

/// What its [record](crate::record) is made of.
#[cfg(feature = "record")]
impl StoredHead {
    /// All fields, with empty values in the places.
    pub(crate) fn shared(&self) -> &HeaderMap {
        self.shared.map()
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
    pub(crate) fn of_parts(shared: Arc<SharedHead>, own: SmallVec<[HeaderValue; 3]>, has_own: u8) -> Self {
        let none = ReadDate::default();
        Self { shared, own, has_own, has_read_dates: false, date: none, last_modified: none }
    }
}

/// The reserved places of a head, in their order.
pub(crate) struct Places<'a>(http::header::ValuesMut<'a, HeaderValue>);

impl Places<'_> {
    /// Fills the next place.
    #[inline]
    pub(crate) fn put(&mut self, value: HeaderValue) {
        if let Some(place) = self.0.next() {
            let before = std::mem::replace(place, value);
            // [`EMPTY`] has no memory to give back; to let it do so all the same is a call through a pointer, for each place of each hit.
            if before.is_empty() {
                std::mem::forget(before);
            }
        }
    }
}

type Field<'a> = (&'a HeaderName, &'a HeaderValue);

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
    heads: HashMap<u64, (Weak<SharedHead>, u32), ahash::RandomState>,
    /// Heads not shared since the last look for such as can go.
    unshared: usize,
    /// Bytes given away for the life of the process.
    leaked: usize,
    /// What was read last in `Date` and in `Last-Modified`: answers of one second have one date.
    dates: [(SmallVec<[u8; 32]>, Option<SystemTime>); 2],
    /// The date that was written last, and its second.
    written: Option<(u64, HeaderValue)>,
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
    pub(crate) fn store(&self, head: &HeaderMap, reserved: &[HeaderName], content: Bytes) -> (StoredHead, Bytes) {
        self.pack(self.lay(head.iter(), reserved), &content)
    }

    /// A head of these fields as it is stored, but for the memory of its own values. Where its like is stored already, nothing is made.
    pub(crate) fn lay<'a>(&self, fields: impl Iterator<Item = Field<'a>>, reserved: &'a [HeaderName]) -> StoredHead {
        let placed = |(name, value): Field<'a>| (own_place(name), name, value);
        let fields: SmallVec<[(Option<usize>, &HeaderName, &HeaderValue); 16]> = fields.map(placed).collect();
        let (mut own, mut has_own) = ([None; OWN.len()], 0);
        for &(place, _, value) in &fields {
            let Some(place) = place else { continue };
            // A repeated field is junk, or at least nothing usual, and isn't taken apart.
            let is_first = own[place].replace(value).is_none();
            has_own = if is_first { has_own | 1 << place } else { has_own & !(1 << place) };
        }
        let is_own = |place: usize| has_own & 1 << place != 0;
        let own: SmallVec<[(usize, &HeaderValue); OWN.len()]> = own
            .iter()
            .enumerate()
            .filter(|(place, _)| is_own(*place))
            .filter_map(|(n, own)| Some((n, (*own)?)))
            .collect();
        let own_names = own.iter().map(|(place, _)| &OWN[*place]);
        let places = reserved.iter().chain(own_names).map(|name| (name, &EMPTY));
        let others = fields.iter().filter(|(place, ..)| !place.is_some_and(is_own));
        let all: SmallVec<[Field<'_>; 24]> = places.chain(others.map(|(_, name, value)| (*name, *value))).collect();
        let value = |name| own.iter().find(|(place, _)| OWN[*place] == name).map(|(_, value)| *value);
        let mut known = self.known();
        let (date, last_modified) = (known.date(0, value(header::DATE)), known.date(1, value(header::LAST_MODIFIED)));
        let (date, last_modified) = (ReadDate::of(date), ReadDate::of(last_modified));
        let own = own.iter().map(|(_, value)| HeaderValue::clone(value)).collect();
        StoredHead { shared: known.share(&all), own, has_own, has_read_dates: true, date, last_modified }
    }

    /// Gives a head memory of its own for its own values, and for small content; and reads its dates.
    pub(crate) fn pack(&self, head: StoredHead, content: &Bytes) -> (StoredHead, Bytes) {
        self.counters.offer();
        self.pack_anywhere(head, content)
    }

    /// The same where what counts references lies wherever it may.
    pub(crate) fn pack_anywhere(&self, mut head: StoredHead, content: &Bytes) -> (StoredHead, Bytes) {
        (head.date, head.last_modified) = (ReadDate::of(head.date()), ReadDate::of(head.last_modified()));
        head.has_read_dates = true;
        let copied = if content.len() <= COPIED_WHEN_STORED { content.len() } else { 0 };
        let length = head.own.iter().map(HeaderValue::len).sum::<usize>() + copied;
        let mut memory = BytesMut::with_capacity(length);
        head.own.iter().for_each(|value| memory.extend_from_slice(value.as_bytes()));
        memory.extend_from_slice(&content[..copied]);
        let mut memory = memory.freeze();
        for value in &mut head.own {
            if let Ok(kept) = HeaderValue::from_maybe_shared(memory.split_to(value.len())) {
                *value = kept;
            }
        }
        (head, if copied == content.len() { memory } else { content.clone() })
    }

    /// This time as a field value.
    pub(crate) fn date(&self, time: SystemTime) -> HeaderValue {
        let second = unix_seconds(time);
        let mut known = self.known();
        if let Some((_, value)) = known.written.as_ref().filter(|(written, _)| *written == second) {
            return value.clone();
        }
        let value = date::format(time);
        known.written = Some((second, value.clone()));
        value
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of a name in [`OWN`]; by its text, which is quicker than to compare it with one after another.
fn own_place(name: &HeaderName) -> Option<usize> {
    match name.as_str() {
        "date" => Some(0),
        "etag" => Some(1),
        "last-modified" => Some(2),
        "expires" => Some(3),
        "content-location" => Some(4),
        "location" => Some(5),
        _ => None,
    }
}

impl Known {
    /// The date that a value spells, if it spells one; `n` is 0 for `Date`, and 1 for `Last-Modified`.
    fn date(&mut self, n: usize, value: Option<&HeaderValue>) -> Option<SystemTime> {
        let value = value?.as_bytes();
        let (text, time) = &mut self.dates[n];
        if text.as_slice() != value {
            (*text, *time) = (SmallVec::from_slice(value), date::parse(value));
        }
        *time
    }

    /// The map of these fields, in this order.
    fn share(&mut self, fields: &[Field<'_>]) -> Arc<SharedHead> {
        let Self { heads, unshared, leaked, .. } = self;
        let mut hasher = heads.hasher().build_hasher();
        for (name, value) in fields {
            name.hash(&mut hasher);
            value.as_bytes().hash(&mut hasher);
        }
        let id = hasher.finish();
        if heads.len() >= MOST_HEADS && !heads.contains_key(&id) {
            *unshared += 1;
            // Looking through all of them is worth it only now and then.
            if *unshared % MOST_HEADS == 1 {
                heads.retain(|_, (head, _)| head.strong_count() > 0);
            }
            if heads.len() >= MOST_HEADS {
                return SharedHead::of_one(compact(&to_map(fields)));
            }
        }
        match heads.entry(id) {
            Entry::Occupied(mut known) => {
                let (weak, seen) = known.get_mut();
                let Some(mut shared) = weak.upgrade().filter(|shared| shared.map().iter().eq(fields.iter().copied()))
                else {
                    let newer = compact(&to_map(fields));
                    if weak.strong_count() > 0 {
                        return SharedHead::of_one(newer);
                    }
                    let newer = SharedHead::of_many(newer);
                    *weak = Arc::downgrade(&newer);
                    return newer;
                };
                *seen = seen.saturating_add(1);
                if *seen == OFTEN
                    && let Some(lasting) = lasting(shared.map(), leaked, MOST_LEAKED)
                {
                    shared = SharedHead::of_many(lasting);
                    *weak = Arc::downgrade(&shared);
                }
                shared
            }
            Entry::Vacant(place) => {
                let head = to_map(fields);
                let first = lasting(&head, leaked, LEAKED_AT_ONCE).unwrap_or_else(|| compact(&head));
                let first = SharedHead::of_many(first);
                place.insert((Arc::downgrade(&first), 1));
                first
            }
        }
    }
}

fn to_map(fields: &[Field<'_>]) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(fields.len());
    for &(name, value) in fields {
        map.append(name.clone(), value.clone());
    }
    map
}

/// Content up to this size is copied next to the own fields.
pub(crate) const COPIED_WHEN_STORED: usize = 64 << 10;

/// A copy of `head` whose values share one allocation of exactly their size. Values as they arrive are slices of a connection's
/// read buffer, and would keep all of it in memory.
pub(crate) fn compact(head: &HeaderMap) -> HeaderMap {
    let mut memory = BytesMut::with_capacity(head.values().map(HeaderValue::len).sum());
    head.values().for_each(|value| memory.extend_from_slice(value.as_bytes()));
    let mut memory = memory.freeze();
    // What is empty must not hold on to that memory: it may be forgotten in place of dropped.
    copy_with(head, |value| match value.is_empty() {
        true => Some(EMPTY.clone()),
        false => HeaderValue::from_maybe_shared(memory.split_to(value.len())).ok(),
    })
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

#[cfg(test)]
mod tests;
