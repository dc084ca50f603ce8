//! Numbers, times and texts as bytes, and back. Reading never trusts a length: what isn't there isn't allocated for.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A length or a count: seven bits a byte, the lowest first; the highest bit says that more follow (LEB128).
pub(super) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

pub(super) fn put_fixed(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_be_bytes());
}

/// Bytes behind their length.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(super) fn put_duration(out: &mut Vec<u8>, duration: Duration) {
    put_number(out, duration.as_secs());
    put_number(out, duration.subsec_nanos().into());
}

/// Zero for nothing, one before something.
pub(super) fn put_option<T>(out: &mut Vec<u8>, option: Option<T>, put: impl FnOnce(&mut Vec<u8>, T)) {
    out.push(option.is_some().into());
    if let Some(value) = option {
        put(out, value);
    }
}

/// Milliseconds since 1970 and the nanoseconds beyond; a time before 1970 is 1970.
pub(super) fn split_time(time: SystemTime) -> (u64, u32) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    (u64::try_from(since.as_millis()).unwrap_or(u64::MAX), since.subsec_nanos() % 1_000_000)
}

pub(super) fn joined_time(milliseconds: u64, nanoseconds: u32) -> Option<SystemTime> {
    let nanoseconds = (nanoseconds < 1_000_000).then_some(nanoseconds)?;
    UNIX_EPOCH.checked_add(Duration::from_millis(milliseconds))?.checked_add(Duration::from_nanos(nanoseconds.into()))
}

/// What is still to be read. `None` means that it isn't there, or isn't what is asked for.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn left(&self) -> usize {
        self.0.len()
    }

    /// What `pass` passes by.
    pub(super) fn part(&mut self, pass: impl FnOnce(&mut Self) -> Option<()>) -> Option<&'a [u8]> {
        let all = self.0;
        pass(self)?;
        all.get(..all.len() - self.0.len())
    }

    /// Nothing may be left.
    pub(super) fn end(self) -> Option<()> {
        self.0.is_empty().then_some(())
    }

    pub(super) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn fixed(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// In its shortest form only, so that everything has one spelling.
    pub(super) fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            number |= bits << shift;
            if byte & 0x80 == 0 {
                let is_shortest = byte != 0 || shift == 0;
                return (is_shortest && bits << shift >> shift == bits).then_some(number);
            }
        }
        None
    }

    /// How many things follow, of at least `size` bytes each.
    pub(super) fn count(&mut self, size: usize) -> Option<usize> {
        let count = usize::try_from(self.number()?).ok()?;
        (count <= self.left() / size).then_some(count)
    }

    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        self.take(length)
    }

    pub(super) fn text(&mut self) -> Option<&'a str> {
        self.bytes().and_then(|bytes| std::str::from_utf8(bytes).ok())
    }

    pub(super) fn duration(&mut self) -> Option<Duration> {
        let (seconds, nanoseconds) = (self.number()?, u32::try_from(self.number()?).ok()?);
        (nanoseconds < 1_000_000_000).then(|| Duration::new(seconds, nanoseconds))
    }

    pub(super) fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        match self.byte()? {
            0 => Some(None),
            1 => read(self).map(Some),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_number_is_read_as_it_was_written_and_has_one_spelling(number: u64, bits in 0..64_u32, junk: Vec<u8>) {
            let number = number >> bits;
            let mut bytes = Vec::new();
            put_number(&mut bytes, number);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!((reader.number(), reader.left()), (Some(number), 0));
            let mut reader = Reader::new(&junk);
            if let Some(number) = reader.number() {
                let mut again = Vec::new();
                put_number(&mut again, number);
                prop_assert_eq!(&again[..], &junk[..junk.len() - reader.left()]);
            }
        }
    }

    #[test]
    fn what_is_no_number() {
        let rows: [&[u8]; 5] =
            [&[], &[0x80], &[0x80, 0], &[0xff; 11], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]];
        for bytes in rows {
            assert_eq!(Reader::new(bytes).number(), None, "{bytes:x?}");
        }
    }

    #[test]
    fn a_count_is_no_larger_than_what_is_there() {
        assert_eq!(Reader::new(&[3, 0, 0, 0, 0, 0, 0]).count(2), Some(3));
        assert_eq!(Reader::new(&[3, 0, 0, 0, 0, 0]).count(2), None);
    }

    #[test]
    fn times_are_read_as_they_were_written() {
        for nanoseconds in [0, 1, 999_999, 1_000_000, 1_767_225_600_123_456_789] {
            let time = UNIX_EPOCH + Duration::from_nanos(nanoseconds);
            let (milliseconds, beyond) = split_time(time);
            assert_eq!(joined_time(milliseconds, beyond), Some(time));
        }
        assert_eq!(split_time(UNIX_EPOCH - Duration::from_secs(1)), (0, 0));
        assert_eq!(joined_time(0, 1_000_000), None);
        let _ = joined_time(u64::MAX, 999_999);
    }
}
