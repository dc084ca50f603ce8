//! [`ByteRanges`]: several parts of one content as `multipart/byteranges` (RFC 9110 §14.6). The parts are slices of the content; nothing of
//! it is copied.

use std::fmt::Write;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use http::HeaderValue;

/// Which parts, and what tells them apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ByteRanges {
    ranges: Vec<Range<u64>>,
    /// 128 bits at random: no content that anybody could have written before holds them (RFC 2046 §5.1.1).
    boundary: String,
    /// The type of the content, which each part names.
    content_type: Option<HeaderValue>,
}

impl ByteRanges {
    /// `None` where there is no randomness: then the whole is sent.
    pub(crate) fn of(ranges: Vec<Range<u64>>) -> Option<Self> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).ok()?;
        let boundary = random.iter().fold(String::with_capacity(32), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        Some(Self { ranges, boundary, content_type: None })
    }

    /// Takes over the type of the content, and gives that of the answer (§15.3.7.2).
    pub(crate) fn replace_type(&mut self, content_type: Option<HeaderValue>) -> HeaderValue {
        self.content_type = content_type;
        let own = format!("multipart/byteranges; boundary={}", self.boundary);
        HeaderValue::try_from(own).unwrap_or(HeaderValue::from_static("multipart/byteranges"))
    }

    /// The answer's content, of which `content` is the whole that the ranges lie in.
    pub(crate) fn of_content(&self, content: &Bytes) -> Pieces {
        let length = content.len();
        let mut pieces = Vec::with_capacity(2 * self.ranges.len() + 1);
        for (n, part) in self.ranges.iter().enumerate() {
            pieces.push(self.part_head(n == 0, part, length));
            let place = |at: u64| usize::try_from(at).unwrap_or(length).min(length);
            pieces.push(content.slice(place(part.start)..place(part.end)));
        }
        pieces.push(Bytes::from(format!("\r\n--{}--\r\n", self.boundary)));
        let left = pieces.iter().map(|piece| piece.len() as u64).sum();
        Pieces { pieces: pieces.into_iter(), left }
    }

    /// What stands before a part. An empty line before the first would be a preamble, so there is none.
    fn part_head(&self, is_first: bool, part: &Range<u64>, length: usize) -> Bytes {
        let mut head = BytesMut::with_capacity(160);
        head.extend_from_slice(if is_first { b"--" } else { b"\r\n--" });
        head.extend_from_slice(self.boundary.as_bytes());
        if let Some(content_type) = &self.content_type {
            head.extend_from_slice(b"\r\ncontent-type: ");
            head.extend_from_slice(content_type.as_bytes());
        }
        let range = format!("\r\ncontent-range: bytes {}-{}/{length}\r\n\r\n", part.start, part.end.saturating_sub(1));
        head.extend_from_slice(range.as_bytes());
        head.freeze()
    }
}

/// Content in several pieces, handed out one after the other.
pub(crate) struct Pieces {
    pieces: std::vec::IntoIter<Bytes>,
    left: u64,
}

impl Pieces {
    /// The bytes that are still to come.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let piece = self.pieces.next()?;
        self.left = self.left.saturating_sub(piece.len() as u64);
        Some(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_slices_between_heads() {
        // RFC 9110 §14.6, RFC 2046 §5.1
        let content = Bytes::from_static(b"0123456789");
        let mut ranges = ByteRanges::of(vec![8..10, 0..3]).unwrap();
        let own = ranges.replace_type(Some(HeaderValue::from_static("text/plain")));
        let boundary = own.to_str().unwrap().strip_prefix("multipart/byteranges; boundary=").unwrap().to_owned();
        let pieces = ranges.of_content(&content);
        let announced = pieces.left();
        let pieces: Vec<Bytes> = pieces.collect();
        assert_eq!(pieces[1].as_ptr(), content[8..].as_ptr(), "not copied");
        let text = String::from_utf8(pieces.concat()).unwrap();
        let expected = "--B\r\ncontent-type: text/plain\r\ncontent-range: bytes 8-9/10\r\n\r\n89\
                        \r\n--B\r\ncontent-type: text/plain\r\ncontent-range: bytes 0-2/10\r\n\r\n012\r\n--B--\r\n";
        assert_eq!(text, expected.replace('B', &boundary));
        assert_eq!(announced, text.len() as u64);
    }

    #[test]
    fn content_without_a_type_has_none_in_its_parts() {
        let mut ranges = ByteRanges::of(vec![0..1, 3..4]).unwrap();
        ranges.replace_type(None);
        let text = ranges.of_content(&Bytes::from_static(b"0123")).collect::<Vec<_>>().concat();
        assert!(!String::from_utf8(text).unwrap().contains("content-type"));
    }

    #[test]
    fn no_boundary_is_used_twice() {
        assert_ne!(ByteRanges::of(Vec::new()).unwrap().boundary, ByteRanges::of(Vec::new()).unwrap().boundary);
    }
}
