//! Splits comma-separated field values (RFC 9110 §5.6.1) without being fooled by commas in quoted strings.

/// The members of one field line, each without surrounding white space; empty ones are skipped.
///
/// A quote that is never closed takes the rest of the line into its member; [`Members::unterminated`] tells.
///
/// ```
/// let members: Vec<_> = larder::rfc9111::list::members(br#"a, "b,c" ,,d"#).collect();
/// assert_eq!(members, [&b"a"[..], br#""b,c""#, b"d"]);
/// ```
pub fn members(line: &[u8]) -> Members<'_> {
    Members { rest: line, unterminated: false }
}

/// Iterator of [`members`].
#[derive(Clone, Debug)]
pub struct Members<'a> {
    rest: &'a [u8],
    unterminated: bool,
}

impl Members<'_> {
    /// Whether a quote was opened and never closed in what was read so far.
    pub fn unterminated(&self) -> bool {
        self.unterminated
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while !self.rest.is_empty() {
            let (end, unterminated) = member_end(self.rest);
            self.unterminated |= unterminated;
            let member = trim(&self.rest[..end]);
            self.rest = self.rest.get(end + 1..).unwrap_or_default();
            if !member.is_empty() {
                return Some(member);
            }
        }
        None
    }
}

/// Where the first member ends, and whether a quote was still open there.
fn member_end(line: &[u8]) -> (usize, bool) {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in line.iter().enumerate() {
        match (quoted, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => quoted = !quoted,
            (false, b',') => return (at, false),
            _ => {}
        }
    }
    (line.len(), quoted)
}

/// `bytes` without optional white space (RFC 9110 §5.6.3) around it.
pub fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// One or more digits as a number that saturates (RFC 9111 §1.2.2: a value too large to represent is treated as
/// very large, never as an error). `None` for anything else, a sign and white space included.
pub fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(text.iter().fold(0u64, |n, d| n.saturating_mul(10).saturating_add(u64::from(d - b'0'))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_escapes_hide_commas() {
        let rows: &[(&[u8], &[&[u8]])] = &[
            (b"", &[]),
            (b" , ,", &[]),
            (b"a,b", &[b"a", b"b"]),
            (b"a=\"x, y\", b", &[b"a=\"x, y\"", b"b"]),
            (br#"a="x\", y", b"#, &[br#"a="x\", y""#, b"b"]),
            (b"a=\"open, b", &[b"a=\"open, b"]),
        ];
        for (line, expected) in rows {
            assert_eq!(members(line).collect::<Vec<_>>(), *expected, "{:?}", String::from_utf8_lossy(line));
        }
    }

    #[test]
    fn an_open_quote_is_reported() {
        let mut open = members(b"a, b=\"c, d");
        assert_eq!(open.by_ref().count(), 2);
        assert!(open.unterminated());
    }

    #[test]
    fn numbers_saturate_and_take_no_junk() {
        assert_eq!(digits(b"003600"), Some(3600));
        assert_eq!(digits(b"99999999999999999999999"), Some(u64::MAX));
        for junk in [&b""[..], b"-1", b"+1", b"1.0", b" 1", b"1;a", b"'1'"] {
            assert_eq!(digits(junk), None);
        }
    }
}
