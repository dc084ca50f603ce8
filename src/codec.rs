//! Content in a coding and back. Only what larder coded itself is decoded, and never to more than it is known to be.

use std::io::{self, Read};

use bytes::buf::Reader;
use bytes::{Buf, Bytes};

use crate::compression::Compression;
use crate::rfc9111::coding::Coding;

/// `content` as `compression` wants it; `None` where that isn't worth it.
pub(crate) fn encode(content: &[u8], compression: &Compression) -> Option<Bytes> {
    let coded: Vec<u8> = match compression.coding? {
        #[cfg(feature = "gzip")]
        Coding::Gzip => {
            let level = flate2::Compression::new(u32::from(compression.level.unwrap_or(6).min(9)));
            read_all(flate2::read::GzEncoder::new(content, level), content.len())
        }
        #[cfg(feature = "brotli")]
        Coding::Brotli => {
            let level = u32::from(compression.level.unwrap_or(5).min(11));
            read_all(brotli::CompressorReader::new(content, 4 << 10, level, 22), content.len())
        }
        #[cfg(feature = "zstd")]
        Coding::Zstd => {
            let level = i32::from(compression.level.unwrap_or(3).clamp(1, 22));
            zstd::bulk::compress(content, level).ok()
        }
        #[cfg(not(all(feature = "gzip", feature = "brotli", feature = "zstd")))]
        _ => None,
    }?;
    // Of exactly its size: it is kept.
    compression.is_worth(content.len(), coded.len()).then(|| Bytes::from(coded.into_boxed_slice()))
}

/// All that the coder gives, unless it is as much as there was.
#[cfg(any(feature = "gzip", feature = "brotli"))]
fn read_all(coder: impl Read, most: usize) -> Option<Vec<u8>> {
    let mut coded = Vec::new();
    coder.take(most as u64).read_to_end(&mut coded).ok()?;
    (coded.len() < most).then_some(coded)
}

/// Stored content that can't be decoded, or not to what it was. The entry is worthless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stored content is corrupt: it can't be decoded to what was stored")]
pub(crate) struct Corrupt;

/// How much is decoded at a time.
const CHUNK: usize = 64 << 10;

/// Content on its way out of a coding, in pieces. It gives exactly as much as was stored, and all of that only after the coding's own end was
/// found right there; anything else is [`Corrupt`].
pub(crate) struct Decoder {
    reader: Box<dyn Read + Send>,
    /// How much has to come.
    left: u64,
    has_failed: bool,
}

impl Decoder {
    /// Of `coded`, that was made from `length` bytes.
    pub(crate) fn new(coding: Coding, coded: Bytes, length: u64) -> Self {
        // Content that can't be decoded here is as good as corrupt: another build of the application may have stored it.
        let reader = reader(coding, coded.reader()).unwrap_or_else(|_| Box::new(io::empty()));
        Self { reader, left: length, has_failed: false }
    }

    /// The next piece; `None` after the last.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, Corrupt> {
        if self.has_failed {
            return Err(Corrupt);
        }
        if self.left == 0 {
            return Ok(None);
        }
        let piece = self.read();
        self.has_failed = piece.is_err();
        piece.map(Some)
    }

    fn read(&mut self) -> Result<Bytes, Corrupt> {
        let wanted = usize::try_from(self.left).unwrap_or(CHUNK).min(CHUNK);
        let mut piece = vec![0; wanted];
        self.reader.read_exact(&mut piece).map_err(|_| Corrupt)?;
        self.left -= wanted as u64;
        // The last piece goes out only if nothing comes after it and the coding's checksum is right.
        if self.left == 0 && !matches!(self.reader.read(&mut [0]), Ok(0)) {
            return Err(Corrupt);
        }
        Ok(piece.into())
    }
}

fn reader(coding: Coding, coded: Reader<Bytes>) -> io::Result<Box<dyn Read + Send>> {
    match coding {
        #[cfg(feature = "gzip")]
        Coding::Gzip => Ok(Box::new(flate2::bufread::GzDecoder::new(coded))),
        #[cfg(feature = "brotli")]
        Coding::Brotli => Ok(Box::new(brotli::Decompressor::new(coded, 4 << 10))),
        #[cfg(feature = "zstd")]
        Coding::Zstd => Ok(Box::new(zstd::stream::read::Decoder::with_buffer(coded)?.single_frame())),
        #[cfg(not(all(feature = "gzip", feature = "brotli", feature = "zstd")))]
        _ => {
            drop(coded);
            Err(io::ErrorKind::Unsupported.into())
        }
    }
}

/// All of the content at once.
pub(crate) fn decode(coding: Coding, coded: Bytes, length: u64) -> Result<Bytes, Corrupt> {
    let mut decoder = Decoder::new(coding, coded, length);
    let mut content = Vec::new();
    while let Some(piece) = decoder.next()? {
        content.extend_from_slice(&piece);
    }
    Ok(content.into())
}

#[cfg(all(test, feature = "gzip", feature = "brotli", feature = "zstd"))]
mod tests {
    use super::*;

    const ALL: [Compression; 3] = [Compression::gzip(), Compression::brotli(), Compression::zstd()];

    fn text(length: usize) -> Vec<u8> {
        (0..).flat_map(|n: u32| format!("line {n} of some text\n").into_bytes()).take(length).collect()
    }

    #[test]
    fn what_is_coded_comes_back() {
        for compression in ALL {
            for length in [1 << 10, CHUNK, CHUNK + 1] {
                for level in [None, Some(0), Some(1)] {
                    let content = text(length);
                    let compression = Compression { level, ..compression };
                    let Some(coded) = encode(&content, &compression) else {
                        assert_eq!(level, Some(0), "level 0 of gzip stores as it is");
                        continue;
                    };
                    assert!(coded.len() < content.len());
                    assert_eq!(decode(compression.coding.unwrap(), coded, length as u64).unwrap(), content);
                }
            }
        }
    }

    #[test]
    fn what_does_not_shrink_is_not_coded() {
        let mut state = 1_u64;
        let noise: Vec<u8> = (0..10_000)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            })
            .collect();
        for compression in ALL {
            assert_eq!(encode(&noise, &compression), None);
            assert_eq!(encode(&[], &compression), None);
        }
    }

    #[test]
    fn another_length_is_no_clean_end() {
        for compression in ALL {
            let coding = compression.coding.unwrap();
            for length in [5_000_u64, 70_000] {
                let coded = encode(&text(length as usize), &compression).unwrap();
                for wrong in [length - 1, length + 1, length / 2, length * 2, 1] {
                    assert_eq!(decode(coding, coded.clone(), wrong), Err(Corrupt), "{coding:?} {length} {wrong}");
                }
                assert_eq!(decode(coding, coded.slice(..coded.len() - 1), length), Err(Corrupt), "{coding:?} cut");
                assert_eq!(decode(coding, Bytes::new(), length), Err(Corrupt));
                let mut more = coded.to_vec();
                more.extend_from_slice(&coded);
                // What follows the end is never part of the content.
                let content = decode(coding, more.into(), length);
                assert!(content.is_err() || content.is_ok_and(|content| content == text(length as usize)));
            }
        }
    }

    #[test]
    fn flipped_bits_of_gzip_are_noticed() {
        let content = text(20_000);
        let coded = encode(&content, &Compression::gzip()).unwrap();
        for at in (10..coded.len()).step_by(31) {
            let mut wrong = coded.to_vec();
            wrong[at] ^= 0x10;
            assert_eq!(decode(Coding::Gzip, wrong.into(), 20_000), Err(Corrupt), "byte {at}");
        }
    }

    #[test]
    fn a_failure_stays_one() {
        let mut decoder = Decoder::new(Coding::Gzip, Bytes::from_static(b"no gzip"), 10);
        assert_eq!((decoder.next(), decoder.next()), (Err(Corrupt), Err(Corrupt)));
    }
}
