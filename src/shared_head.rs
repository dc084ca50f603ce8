//! [`SharedHead`]: what the heads of a route have in common, to be copied for each answer.

use std::sync::{Arc, OnceLock};

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// The fields that entries have in common.
#[derive(Debug)]
pub(crate) struct SharedHead {
    map: HeaderMap,
    /// The bytes of its names and values.
    size: usize,
    /// The same with one field more; made when it is first wanted, and never where only one entry would have it.
    roomy: OnceLock<Option<HeaderMap>>,
}

/// What keeps room for another field, behind all others. It is in no head that is stored, for an answer's length is its own.
static ROOM: HeaderName = header::CONTENT_LENGTH;

impl SharedHead {
    /// Of as many entries as come to it.
    pub(crate) fn of_many(map: HeaderMap) -> Arc<Self> {
        Self::new(map, OnceLock::new())
    }

    /// Of one entry, whose memory isn't worth it.
    pub(crate) fn of_one(map: HeaderMap) -> Arc<Self> {
        Self::new(map, OnceLock::from(None))
    }

    fn new(map: HeaderMap, roomy: OnceLock<Option<HeaderMap>>) -> Arc<Self> {
        let size = map.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        Arc::new(Self { map, size, roomy })
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    pub(crate) fn map(&self) -> &HeaderMap {
        &self.map
    }

    /// A copy with memory for one field more. A clone has none to spare, and whoever adds a field to it makes all of them move into memory of twice the size.
    pub(crate) fn with_room(&self) -> HeaderMap {
        let Some(roomy) = self.roomy.get_or_init(|| roomy(&self.map)) else { return self.map.clone() };
        let mut map = roomy.clone();
        map.remove(&ROOM);
        map
    }
}

fn roomy(map: &HeaderMap) -> Option<HeaderMap> {
    if map.contains_key(&ROOM) {
        return None;
    }
    let mut roomy = map.clone();
    roomy.try_append(&ROOM, HeaderValue::from_static("")).ok().map(|_| roomy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(names: &[&'static str]) -> HeaderMap {
        names.iter().map(|name| (HeaderName::from_static(name), HeaderValue::from_static("x"))).collect()
    }

    #[test]
    fn a_copy_with_room_is_equal_and_takes_a_field_where_it_lies() {
        // As many as fill their memory, and as many as don't.
        for count in 1..26_u16 {
            let mut fields = HeaderMap::new();
            for n in 0..count {
                let name = HeaderName::from_bytes(format!("x-{n}").as_bytes()).expect("it is a name");
                fields.append(name, HeaderValue::from(n));
            }
            fields.append("x-0", HeaderValue::from_static("another line"));
            let shared = SharedHead::of_many(fields.clone());
            for _ in 0..2 {
                let mut copy = shared.with_room();
                assert!(copy == fields && copy.keys().eq(fields.keys()), "{count}");
                let first = std::ptr::from_ref(&copy["x-0"]);
                copy.insert(header::CONTENT_LENGTH, HeaderValue::from(7));
                assert!(std::ptr::eq(first, &copy["x-0"]), "{count}");
                assert_eq!((copy.len(), &copy[header::CONTENT_LENGTH]), (fields.len() + 1, &HeaderValue::from(7)));
            }
        }
    }

    #[test]
    fn a_head_that_has_the_field_keeps_it() {
        let fields = map(&["etag", "content-length", "x-a"]);
        assert_eq!(SharedHead::of_many(fields.clone()).with_room(), fields);
    }

    #[test]
    fn what_only_one_entry_has_is_kept_once() {
        let fields = map(&["etag", "x-a"]);
        let (one, many) = (SharedHead::of_one(fields.clone()), SharedHead::of_many(fields.clone()));
        assert!(one.with_room() == fields && many.with_room() == fields);
        assert_eq!([&one, &many].map(|head| head.roomy.get().is_some_and(Option::is_some)), [false, true]);
    }
}
