//! A [`PurgeMessage`] as bytes, for logs outside of the process; and the single things it touches, as a snapshot keeps them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use twox_hash::XxHash3_128;

use super::shift::ClockShift;
use super::wire::{Reader, put_fixed, put_number, put_option};
use crate::purge_message::{PurgeMessage, PurgedThings};

/// The version of the form that is written, and the only one that is read.
const VERSION: u8 = 1;

/// The length of the checksum at the end: the first half of an XXH3-128.
const CHECK: usize = 8;

const HASHES: u8 = 1;
const GLOB: u8 = 2;
const REGEX: u8 = 3;
const EVERYTHING: u8 = 4;

/// Bytes that are no purge message. Whoever gets them doesn't know what was purged, and has to take it that everything was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// Another release of larder wrote it, in a version that this one doesn't know.
    #[error("it is of version {0}, which isn't known here")]
    Version(u8),
    /// It was damaged, cut off, or is something else.
    #[error("it is damaged, or no purge message")]
    Malformed,
}

impl From<MessageError> for crate::error::StorageError {
    fn from(error: MessageError) -> Self {
        Self::with_source("a purge message can't be read", error)
    }
}

impl PurgeMessage {
    /// Where the time of a soft purge stands in its bytes: nanoseconds since 1970 by the log's clock, eight bytes, the highest first; zero for a hard one. Of two
    /// messages of the same [part](Self::parts), that of the earlier purge has the smaller bytes there.
    pub const SOFT: std::ops::Range<usize> = 3..11;

    /// The message as bytes. `shift` is what lies between the clock of this machine and that of the log, by which soft purges are told.
    pub fn to_bytes(&self, shift: ClockShift) -> Vec<u8> {
        let kind = match self.what {
            PurgedThings::Hashes { .. } => HASHES,
            PurgedThings::Glob(_) => GLOB,
            PurgedThings::Regex(_) => REGEX,
            PurgedThings::Everything => EVERYTHING,
        };
        let mut bytes = vec![VERSION, kind, self.soft.is_some().into()];
        put_fixed(&mut bytes, self.soft.map_or(0, |at| nanoseconds(shift.to_store(at))));
        match &self.what {
            PurgedThings::Hashes { places, tags, authority } => {
                put_option(&mut bytes, *authority, put_fixed);
                for hashes in [places, tags] {
                    put_number(&mut bytes, hashes.len() as u64);
                    hashes.iter().for_each(|hash| put_fixed(&mut bytes, *hash));
                }
            }
            PurgedThings::Glob(text) | PurgedThings::Regex(text) => bytes.extend_from_slice(text.as_bytes()),
            PurgedThings::Everything => {}
        }
        let check = check(&bytes);
        bytes.extend_from_slice(&check);
        bytes
    }

    /// The message that has these bytes.
    ///
    /// # Errors
    /// If they aren't, to the last one, what [`to_bytes`](Self::to_bytes) makes.
    pub fn from_bytes(bytes: &[u8], shift: ClockShift) -> Result<Self, MessageError> {
        let (message, found) = bytes.split_last_chunk::<CHECK>().ok_or(MessageError::Malformed)?;
        match message.first() {
            Some(&VERSION) => {}
            Some(version) => return Err(MessageError::Version(*version)),
            None => return Err(MessageError::Malformed),
        }
        let whole = (check(message) == *found).then_some(message);
        whole.and_then(|message| read(message, shift)).ok_or(MessageError::Malformed)
    }

    /// The single things that it touches, each with a name that is the same in all messages, and as a message of its own: what a snapshot keeps the newest of.
    ///
    /// Hard and soft purges of one thing have two names, since both have to be kept: a hard one says all that soft ones before it said, but no later one says what
    /// it said. Whose responses bear a tag isn't kept: it only spares fills in flight, of which a snapshot knows nothing.
    pub fn parts(&self) -> Vec<(Vec<u8>, Self)> {
        let part = |kind: u8, name: &[u8], what| {
            let force = if self.soft.is_some() { b's' } else { b'h' };
            ([&[force, kind], name].concat(), Self { what, soft: self.soft })
        };
        let one = |places: Vec<u64>, tags: Vec<u64>| PurgedThings::Hashes { places, tags, authority: None };
        match &self.what {
            PurgedThings::Hashes { places, tags, .. } => {
                let places = places.iter().map(|hash| part(b'p', &hash.to_be_bytes(), one(vec![*hash], vec![])));
                let tags = tags.iter().map(|hash| part(b't', &hash.to_be_bytes(), one(vec![], vec![*hash])));
                places.chain(tags).collect()
            }
            PurgedThings::Glob(text) => vec![part(b'g', text.as_bytes(), self.what.clone())],
            PurgedThings::Regex(text) => vec![part(b'r', text.as_bytes(), self.what.clone())],
            PurgedThings::Everything => vec![part(b'e', b"", PurgedThings::Everything)],
        }
    }
}

fn read(message: &[u8], shift: ClockShift) -> Option<PurgeMessage> {
    let mut reader = Reader::new(message);
    let [_, kind, is_soft] = reader.array()?;
    let soft = match (is_soft, reader.fixed()?) {
        (0, 0) => None,
        (1, at) => Some(shift.to_own(UNIX_EPOCH.checked_add(Duration::from_nanos(at))?)),
        _ => return None,
    };
    let what = match kind {
        HASHES => {
            let authority = reader.option(Reader::fixed)?;
            PurgedThings::Hashes { places: hashes(&mut reader)?, tags: hashes(&mut reader)?, authority }
        }
        GLOB => PurgedThings::Glob(rest(&mut reader)?),
        REGEX => PurgedThings::Regex(rest(&mut reader)?),
        EVERYTHING => PurgedThings::Everything,
        _ => return None,
    };
    reader.end()?;
    Some(PurgeMessage { what, soft })
}

fn hashes(reader: &mut Reader<'_>) -> Option<Vec<u64>> {
    let count = reader.count(size_of::<u64>())?;
    (0..count).map(|_| reader.fixed()).collect()
}

fn rest(reader: &mut Reader<'_>) -> Option<String> {
    let text = reader.take(reader.left())?;
    std::str::from_utf8(text).ok().map(str::to_owned)
}

/// A time before 1970 is 1970, and one after 2554 is then.
fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn check(message: &[u8]) -> [u8; CHECK] {
    let whole = XxHash3_128::oneshot(message).to_be_bytes();
    std::array::from_fn(|n| whole[n])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn messages() -> impl Strategy<Value = PurgeMessage> {
        let hashes = || prop::collection::vec(any::<u64>(), 0..5);
        let what = prop_oneof![
            (hashes(), hashes(), any::<Option<u64>>()).prop_map(|(places, tags, authority)| PurgedThings::Hashes {
                places,
                tags,
                authority
            }),
            ".{0,40}".prop_map(PurgedThings::Glob),
            ".{0,40}".prop_map(PurgedThings::Regex),
            Just(PurgedThings::Everything),
        ];
        let soft = prop::option::of((0..u64::MAX / 2).prop_map(|at| UNIX_EPOCH + Duration::from_nanos(at)));
        (what, soft).prop_map(|(what, soft)| PurgeMessage { what, soft })
    }

    proptest! {
        #[test]
        fn a_message_is_read_as_it_was_written(message in messages(), ahead in 0..1_000_000_u64, junk: u8) {
            let epoch_there = UNIX_EPOCH + Duration::from_secs(ahead);
            let shift = ClockShift::between(UNIX_EPOCH, epoch_there);
            let bytes = message.to_bytes(shift);
            prop_assert_eq!(PurgeMessage::from_bytes(&bytes, shift), Ok(message));
            for place in 0..bytes.len() {
                prop_assert!(PurgeMessage::from_bytes(&bytes[..place], shift).is_err());
                let mut damaged = bytes.clone();
                damaged[place] = junk;
                prop_assert!(junk == bytes[place] || PurgeMessage::from_bytes(&damaged, shift).is_err());
            }
            prop_assert!(PurgeMessage::from_bytes(&[&bytes[..], &[junk]].concat(), shift).is_err());
        }

        #[test]
        fn what_a_message_touches_its_parts_touch_together(message in messages()) {
            let parts = message.parts();
            let names: std::collections::HashSet<_> = parts.iter().map(|(name, _)| name.clone()).collect();
            let mut touched = (vec![], vec![]);
            for (name, part) in &parts {
                prop_assert_eq!(part.soft, message.soft);
                prop_assert_eq!(part.parts(), [(name.clone(), part.clone())], "a part is one thing");
                if let PurgedThings::Hashes { places, tags, authority: None } = &part.what {
                    touched.0.extend(places);
                    touched.1.extend(tags);
                }
            }
            match &message.what {
                PurgedThings::Hashes { places, tags, .. } => prop_assert_eq!(touched, (places.clone(), tags.clone())),
                other => prop_assert_eq!(&parts[0].1.what, other),
            }
            prop_assert!(names.len() <= parts.len());
        }
    }

    #[test]
    fn things_and_forces_have_names_of_their_own() {
        let hash = |places: &[u64], tags: &[u64]| PurgedThings::Hashes {
            places: places.into(),
            tags: tags.into(),
            authority: Some(1),
        };
        let things = [
            hash(&[1], &[]),
            hash(&[], &[1]),
            hash(&[2], &[]),
            PurgedThings::Glob("a".into()),
            PurgedThings::Regex("a".into()),
            PurgedThings::Everything,
        ];
        let messages = things
            .into_iter()
            .flat_map(|what| [None, Some(UNIX_EPOCH)].map(|soft| PurgeMessage { what: what.clone(), soft }));
        let mut names: Vec<_> = messages.flat_map(|message| message.parts()).map(|(name, _)| name).collect();
        assert_eq!(names.len(), 12);
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 12);
    }

    #[test]
    fn of_two_soft_ones_the_earlier_is_smaller_where_scripts_look() {
        let at = |seconds| {
            let soft = Some(UNIX_EPOCH + Duration::from_secs(seconds));
            PurgeMessage { what: PurgedThings::Everything, soft }.to_bytes(ClockShift::NONE)[PurgeMessage::SOFT]
                .to_vec()
        };
        assert!(at(1) < at(2) && at(2) < at(300) && at(300) < at(1_767_225_600));
        assert_eq!(
            PurgeMessage { what: PurgedThings::Everything, soft: None }.to_bytes(ClockShift::NONE)[PurgeMessage::SOFT],
            [0; 8]
        );
    }

    /// As they are in logs since version 1: they are read for ever.
    #[test]
    fn messages_of_version_1() {
        let soft = Some(UNIX_EPOCH + Duration::from_nanos(0x0102_0304_0506_0708));
        let things = |places: &[u64], tags: &[u64], authority| PurgedThings::Hashes {
            places: places.into(),
            tags: tags.into(),
            authority,
        };
        let rows = [
            (things(&[1], &[], None), None, "01010000000000000000000001000000000000000100300893b1012ea228"),
            (
                things(&[1], &[2, 3], Some(4)),
                soft,
                "010101010203040506070801000000000000000401000000000000000102000000000000000200000000000000033d8738c3547c7296",
            ),
            (PurgedThings::Glob("/a/*".into()), None, "01020000000000000000002f612f2ab0012339d0472ce5"),
            (PurgedThings::Regex("^/\u{fc}$".into()), soft, "01030101020304050607085e2fc3bc243935a0180e5c1886"),
            (PurgedThings::Everything, None, "0104000000000000000000812568c20754769e"),
        ];
        for (what, soft, expected) in rows {
            let message = PurgeMessage { what, soft };
            let bytes = message.to_bytes(ClockShift::NONE);
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, expected, "{message:?}");
            assert_eq!(PurgeMessage::from_bytes(&bytes, ClockShift::NONE), Ok(message));
        }
    }

    #[test]
    fn a_message_of_another_version_says_so() {
        let mut bytes = PurgeMessage { what: PurgedThings::Everything, soft: None }.to_bytes(ClockShift::NONE);
        bytes[0] = 2;
        assert_eq!(PurgeMessage::from_bytes(&bytes, ClockShift::NONE), Err(MessageError::Version(2)));
        assert_eq!(PurgeMessage::from_bytes(&[], ClockShift::NONE), Err(MessageError::Malformed));
    }
}
