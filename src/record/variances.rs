//! [`KnownVariances`]: the variances that records have in common. Most records of a route have one of few, which is recognised by its bytes and needn't be taken apart again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderName, HeaderValue};

use super::wire::{Reader, put_bytes, put_number, put_option};
use crate::variance::Variance;

/// By the bytes of a record that say it.
#[derive(Debug, Default)]
pub(super) struct KnownVariances(Mutex<HashMap<Box<[u8]>, Arc<Variance>, ahash::RandomState>>);

/// The most that are remembered; if there are more, all are forgotten.
const MOST: usize = 1024;

/// The longest that is; together they take 2 MiB or so.
const LONGEST: usize = 1 << 10;

pub(super) fn put(out: &mut Vec<u8>, variance: &Variance) {
    put_number(out, variance.fields.len() as u64);
    variance.fields.iter().for_each(|name| put_bytes(out, name.as_str().as_bytes()));
    put_bytes(out, &variance.key);
    put_number(out, variance.as_sent().len() as u64);
    variance
        .as_sent()
        .iter()
        .for_each(|line| put_option(out, line.as_ref(), |out, line| put_bytes(out, line.as_bytes())));
}

impl KnownVariances {
    pub(super) fn read(&self, reader: &mut Reader<'_>) -> Option<Arc<Variance>> {
        let bytes = reader.part(pass)?;
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(variance) = known.get(bytes) {
            return Some(variance.clone());
        }
        let variance = Arc::new(variance(&mut Reader::new(bytes))?);
        if bytes.len() <= LONGEST {
            if known.len() >= MOST {
                known.clear();
            }
            known.insert(bytes.into(), variance.clone());
        }
        Some(variance)
    }
}

/// Passes by what [`variance`] reads.
fn pass(reader: &mut Reader<'_>) -> Option<()> {
    for _ in 0..reader.count(1)? {
        reader.bytes()?;
    }
    reader.bytes()?;
    for _ in 0..reader.count(1)? {
        reader.option(Reader::bytes)?;
    }
    Some(())
}

/// With values of its own: who has it must not keep a record in memory for it.
fn variance(reader: &mut Reader<'_>) -> Option<Variance> {
    let names = reader.count(1)?;
    let names = (0..names).map(|_| HeaderName::from_lowercase(reader.bytes()?).ok()).collect::<Option<_>>()?;
    let key = reader.bytes()?.into();
    let lines = reader.count(1)?;
    let line = |reader: &mut Reader<'_>| HeaderValue::from_bytes(reader.bytes()?).ok();
    let lines = (0..lines).map(|_| reader.option(line)).collect::<Option<_>>()?;
    Some(Variance::of_parts(names, key, lines))
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, header};

    use super::*;
    use crate::rfc9111::vary::Matching;

    fn of(language: &str) -> Variance {
        let mut asked = HeaderMap::new();
        asked.insert(header::ACCEPT_LANGUAGE, language.parse().unwrap());
        Variance::of([header::ACCEPT_LANGUAGE, header::ORIGIN].into_iter().collect(), &asked, Matching::Careful)
    }

    fn written(variance: &Variance) -> Vec<u8> {
        let mut bytes = Vec::new();
        put(&mut bytes, variance);
        bytes
    }

    #[test]
    fn what_was_read_before_is_the_same_and_memory_is_bounded() {
        let known = KnownVariances::default();
        let read = |variance: &Variance| {
            let bytes = [written(variance), b"rest".to_vec()].concat();
            let mut reader = Reader::new(&bytes);
            let read = known.read(&mut reader).unwrap();
            assert_eq!((&*read, reader.left()), (variance, 4));
            read
        };
        assert!(Arc::ptr_eq(&read(&of("de")), &read(&of("de"))));
        assert!(Arc::ptr_eq(&read(&Variance::default()), &read(&Variance::default())));
        (0..3 * MOST).for_each(|n| drop(read(&of(&n.to_string()))));
        read(&of(&"x".repeat(LONGEST)));
        let known = known.0.lock().unwrap();
        assert!(known.len() <= MOST && known.keys().all(|bytes| bytes.len() <= LONGEST));
    }

    #[test]
    fn what_is_none_is_refused_and_not_remembered() {
        let known = KnownVariances::default();
        let whole = written(&of("de"));
        for length in 0..whole.len() {
            assert!(known.read(&mut Reader::new(&whole[..length])).is_none(), "{length}");
        }
        for junk in [&[1, 1, b' ', 0, 0][..], &[1, 1, b'a', 0, 1, 2], &[1, 1, b'a', 0, 1, 1, 1, b'\n']] {
            assert!(known.read(&mut Reader::new(junk)).is_none(), "{junk:?}");
        }
        assert!(known.0.lock().unwrap().is_empty());
    }
}
