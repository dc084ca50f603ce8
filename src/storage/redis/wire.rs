//! RESP2: commands as they go over the wire, and answers out of what was read so far. Lengths are never trusted: nothing is allocated for what isn't there.

use std::borrow::Cow;

use bytes::{Buf, Bytes};
use redis::Value;
use smallvec::SmallVec;

use super::failure::Failure;

/// A command as it goes over the wire.
pub(super) fn command(words: &[&[u8]]) -> Vec<u8> {
    let length = words.iter().map(|word| word.len() + 16).sum::<usize>();
    let mut command = Vec::with_capacity(length + 16);
    put_length(&mut command, b'*', words.len());
    for word in words {
        put_length(&mut command, b'$', word.len());
        command.extend_from_slice(word);
        command.extend_from_slice(b"\r\n");
    }
    command
}

/// The command that asks for what is at the place that is made of these parts.
pub(super) fn get(place: [&str; 2]) -> Vec<u8> {
    const BEGINNING: &[u8] = b"*2\r\n$3\r\nGET\r\n";
    let length = place.iter().map(|part| part.len()).sum();
    let mut command = Vec::with_capacity(BEGINNING.len() + length + 24);
    command.extend_from_slice(BEGINNING);
    put_length(&mut command, b'$', length);
    place.iter().for_each(|part| command.extend_from_slice(part.as_bytes()));
    command.extend_from_slice(b"\r\n");
    command
}

/// What the bytes that were read begin with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Begun {
    /// An answer of so many bytes.
    Whole(usize),
    /// A part of one; there is no use in looking again before there are so many bytes.
    Part(usize),
}

/// What was found where several places were asked for, in their order.
pub(super) type Contents = SmallVec<[Option<Bytes>; 3]>;

/// The deepest that lists lie in lists: streams, in them entries, in them fields, and as many again.
const DEEPEST: usize = 8;

/// The longest line that isn't content of a told length.
const LONGEST_LINE: usize = 64 << 10;

/// The longest content: what Redis takes as one value unless it is set otherwise.
const LONGEST: usize = 512 << 20;

/// Where the first answer ends, if it is there to the last byte.
pub(super) fn begun(bytes: &[u8]) -> Result<Begun, Failure> {
    match end(bytes, 0, 0) {
        Ok(end) => Ok(Begun::Whole(end)),
        Err(Stop::Short(needed)) => Ok(Begun::Part(needed)),
        Err(Stop::Nonsense) => Err(nonsense()),
    }
}

/// What a whole answer says; an error that the server answers is one here.
pub(super) fn value(answer: &[u8]) -> Result<Value, Failure> {
    value_at(answer, &mut 0)?.extract_error().map_err(Failure::of)
}

/// The same of an answer to a question for what is at one place, in the memory of the answer.
pub(super) fn content(mut answer: Bytes) -> Result<Option<Bytes>, Failure> {
    let (kind, first, next) = line(&answer, 0).map_err(|_| nonsense())?;
    if kind != b'$' {
        return value(&answer).and(Err(Failure::nonsense("no content")));
    }
    let Some(length) = length(first).map_err(|_| nonsense())? else { return Ok(None) };
    if answer.len() < next + length {
        return Err(nonsense());
    }
    answer.truncate(next + length);
    answer.advance(next);
    Ok(Some(answer))
}

/// The same of an answer to a question for contents, which are slices of it.
pub(super) fn contents(answer: &Bytes) -> Result<Contents, Failure> {
    let (kind, first, next) = line(answer, 0).map_err(|_| nonsense())?;
    let (count, mut at) = match kind {
        b'$' => (1, 0),
        b'*' => (length(first).ok().flatten().ok_or_else(nonsense)?, next),
        _ => return value(answer).and(Err(Failure::nonsense("no contents"))),
    };
    (0..count).map(|_| content_at(answer, &mut at)).collect()
}

fn content_at(answer: &Bytes, at: &mut usize) -> Result<Option<Bytes>, Failure> {
    let (kind, first, next) = line(answer, *at).map_err(|_| nonsense())?;
    *at = next;
    let length = length(first).ok().filter(|_| kind == b'$').ok_or_else(|| Failure::nonsense("no content"))?;
    let Some(length) = length else { return Ok(None) };
    *at = next + length + 2;
    Ok(Some(answer.slice(next..next + length)))
}

fn put_length(command: &mut Vec<u8>, kind: u8, length: usize) {
    let mut digits = [0; 20];
    let (mut at, mut rest) = (digits.len(), length);
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    command.push(kind);
    command.extend_from_slice(&digits[at..]);
    command.extend_from_slice(b"\r\n");
}

enum Stop {
    Short(usize),
    Nonsense,
}

fn nonsense() -> Failure {
    Failure::nonsense("no RESP2")
}

/// Where the value ends that begins at a place.
fn end(bytes: &[u8], from: usize, depth: usize) -> Result<usize, Stop> {
    let (kind, line, next) = line(bytes, from)?;
    match kind {
        b'+' | b'-' | b':' => Ok(next),
        b'$' => match length(line)? {
            None => Ok(next),
            Some(length) => {
                let end = next + length + 2;
                match bytes.get(end - 2..end) {
                    None => Err(Stop::Short(end)),
                    Some(b"\r\n") => Ok(end),
                    Some(_) => Err(Stop::Nonsense),
                }
            }
        },
        b'*' if depth < DEEPEST => {
            (0..length(line)?.unwrap_or(0)).try_fold(next, |from, _| end(bytes, from, depth + 1))
        }
        _ => Err(Stop::Nonsense),
    }
}

/// The kind of the value at a place, the rest of its first line, and where the next one begins.
fn line(bytes: &[u8], from: usize) -> Result<(u8, &[u8], usize), Stop> {
    let rest = bytes.get(from..).unwrap_or_default();
    let found = rest.iter().take(LONGEST_LINE).position(|byte| *byte == b'\r');
    let Some(at) = found.filter(|at| at + 1 < rest.len()) else {
        return Err(if rest.len() < LONGEST_LINE { Stop::Short(from + rest.len() + 1) } else { Stop::Nonsense });
    };
    match rest[..at].split_first() {
        Some((kind, line)) if rest[at + 1] == b'\n' => Ok((*kind, line, from + at + 2)),
        _ => Err(Stop::Nonsense),
    }
}

/// `None` for what isn't there at all.
fn length(line: &[u8]) -> Result<Option<usize>, Stop> {
    match number(line) {
        Some(-1) => Ok(None),
        Some(number) => {
            usize::try_from(number).ok().filter(|length| *length <= LONGEST).map(Some).ok_or(Stop::Nonsense)
        }
        None => Err(Stop::Nonsense),
    }
}

fn number(line: &[u8]) -> Option<i64> {
    std::str::from_utf8(line).ok()?.parse().ok()
}

/// The value at a place, which is known to be whole.
fn value_at(bytes: &[u8], at: &mut usize) -> Result<Value, Failure> {
    let from = *at;
    let (kind, line, next) = line(bytes, from).map_err(|_| nonsense())?;
    *at = next;
    Ok(match kind {
        b'$' | b'*' => match (kind, length(line).map_err(|_| nonsense())?) {
            (_, None) => Value::Nil,
            (b'$', Some(length)) => {
                *at = next + length + 2;
                Value::BulkString(bytes.get(next..next + length).ok_or_else(nonsense)?.to_vec())
            }
            (_, Some(count)) => Value::Array((0..count).map(|_| value_at(bytes, at)).collect::<Result<_, _>>()?),
        },
        b':' => Value::Int(number(line).ok_or_else(nonsense)?),
        // Which error that is, the client knows.
        b'-' => redis::parse_redis_value(&without_words(&bytes[from..next])).map_err(Failure::of)?,
        _ => redis::parse_redis_value(&bytes[from..next]).map_err(Failure::of)?,
    })
}

/// A server that doesn't know a command quotes what was sent with it, and that may be a password.
const QUOTING: &[u8] = b", with args beginning with";

fn without_words(error: &[u8]) -> Cow<'_, [u8]> {
    match error.windows(QUOTING.len()).position(|part| part == QUOTING) {
        Some(at) => [&error[..at], b"\r\n"].concat().into(),
        None => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bulk(bytes: &[u8]) -> Value {
        Value::BulkString(bytes.to_vec())
    }

    #[test]
    fn answers_are_read_as_the_client_reads_them_and_in_any_pieces() {
        let rows: [&[u8]; 13] = [
            b"$5\r\nhello\r\n",
            b"$0\r\n\r\n",
            b"$2\r\n\r\n\r\n",
            b"$-1\r\n",
            b"*-1\r\n",
            b"*0\r\n",
            b":-7\r\n",
            b"+OK\r\n",
            b"-ERR no\r\n",
            b"-OOM full\r\n",
            b"*2\r\n$3\r\nabc\r\n$-1\r\n",
            b"*1\r\n*2\r\n$1\r\nn\r\n*2\r\n:1\r\n+a\r\n",
            b"*7\r\n:1\r\n:2\r\n:3\r\n$1\r\n4\r\n$1\r\n5\r\n$3\r\nrun\r\n$-1\r\n",
        ];
        for row in rows {
            let expected = redis::parse_redis_value(row).unwrap();
            for part in 0..row.len() {
                match begun(&row[..part]).unwrap() {
                    Begun::Part(needed) => assert!(part < needed && needed <= row.len(), "{part} of {row:?}: {needed}"),
                    whole => panic!("{part} of {row:?}: {whole:?}"),
                }
            }
            let behind = [row, b":1\r\n"].concat();
            assert_eq!(begun(&behind).unwrap(), Begun::Whole(row.len()), "{row:?}");
            assert_eq!(value(row).ok(), expected.extract_error().ok(), "{row:?}");
        }
    }

    #[test]
    fn contents_are_slices_of_the_answer() {
        type Found<'a> = Option<&'a [Option<&'a [u8]>]>;
        let rows: [(&'static [u8], Found<'_>); 9] = [
            (b"$5\r\nhello\r\n", Some(&[Some(b"hello")])),
            (b"$-1\r\n", Some(&[None])),
            (b"*0\r\n", Some(&[])),
            (b"*3\r\n$1\r\na\r\n$-1\r\n$0\r\n\r\n", Some(&[Some(b"a"), None, Some(b"")])),
            (b"*-1\r\n", None),
            (b"*1\r\n:1\r\n", None),
            (b"*1\r\n*1\r\n$1\r\na\r\n", None),
            (b"+OK\r\n", None),
            (b":7\r\n", None),
        ];
        for (row, expected) in rows {
            let found = contents(&Bytes::from_static(row));
            let found = found.as_ref().ok().map(|found| found.iter().map(Option::as_deref).collect::<Vec<_>>());
            assert_eq!(found.as_deref(), expected, "{row:?}");
        }
        let refused = contents(&Bytes::from_static(b"-LOADING wait\r\n")).unwrap_err();
        assert!(refused.was_refused && refused.is_final, "what the server says is what went wrong");
    }

    #[test]
    fn content_is_in_the_memory_of_its_answer() {
        type Found<'a> = Option<Option<&'a [u8]>>;
        let rows: [(&'static [u8], Found<'_>); 6] = [
            (b"$5\r\nhello\r\n", Some(Some(b"hello"))),
            (b"$0\r\n\r\n", Some(Some(b""))),
            (b"$-1\r\n", Some(None)),
            (b"$9\r\nhello\r\n", None),
            (b"*1\r\n$1\r\na\r\n", None),
            (b"+OK\r\n", None),
        ];
        for (row, expected) in rows {
            let found = content(Bytes::from_static(row)).ok();
            assert_eq!(found.as_ref().map(Option::as_deref), expected, "{row:?}");
            let place = found.flatten().map(|found| found.as_ptr()).filter(|_| row.len() > 6);
            assert!(place.is_none_or(|place| row.as_ptr_range().contains(&place)), "{row:?}");
        }
        let refused = content(Bytes::from_static(b"-LOADING wait\r\n")).unwrap_err();
        assert!(refused.was_refused && refused.is_final, "what the server says is what went wrong");
    }

    #[test]
    fn commands_are_as_the_client_packs_them() {
        for length in [0, 1, 9, 10, 99, 100, 12_345] {
            let word = vec![b'x'; length];
            let packed = redis::cmd("MGET").arg("a").arg(&word).get_packed_command();
            assert_eq!(command(&[b"MGET", b"a", &word]), packed);
        }
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        let deep = [&b"*1\r\n".repeat(DEEPEST + 1)[..], b":1\r\n"].concat();
        let long = vec![b'+'; LONGEST_LINE];
        let rows: [&[u8]; 13] = [
            b"HTTP/1.1 400 Bad Request\r\n",
            b"\r\n",
            b"$x\r\n",
            b"$-2\r\n",
            b"$99999999999\r\n",
            b"$99999999999999999999\r\n",
            b"$1\r\nab\r\n",
            b"*-2\r\n",
            b"*1\r\n%1\r\n",
            b":\r\n",
            b"+a\rb\r\n",
            &deep,
            &long,
        ];
        for row in rows {
            let is_read = matches!(begun(row), Ok(Begun::Whole(length)) if value(&row[..length]).is_ok());
            assert!(!is_read && !matches!(begun(row), Ok(Begun::Part(_))), "{:?}", String::from_utf8_lossy(row));
        }
    }

    #[test]
    fn what_was_sent_is_not_in_an_error() {
        let said = b"-ERR unknown command 'AUTH', with args beginning with: 'shop' 'secret' \r\n";
        assert_eq!(begun(said).unwrap(), Begun::Whole(said.len()));
        let error = value(said).unwrap_err();
        assert!(format!("{error:?}{error}").contains("unknown command 'AUTH'"), "{error:?}");
        assert!(!format!("{error:?}{error}").contains("secret"), "{error:?}");
    }

    #[test]
    fn nothing_is_allocated_for_what_is_not_there() {
        assert_eq!(begun(b"*536870912\r\n").unwrap(), Begun::Part(13));
        assert_eq!(begun(b"$536870912\r\nabc").unwrap(), Begun::Part(536_870_912 + 14));
    }

    proptest! {
        #[test]
        fn junk_is_an_error_or_a_part(bytes in proptest::collection::vec(prop_oneof![Just(b'*'), Just(b'$'), Just(b'\r'), Just(b'\n'), Just(b'1'), any::<u8>()], 0..64)) {
            if let Ok(Begun::Whole(end)) = begun(&bytes) {
                let whole = Bytes::copy_from_slice(&bytes[..end]);
                drop((value(&whole), contents(&whole), content(whole.clone())));
            }
        }

        #[test]
        fn content_is_whatever_it_is(content: Vec<u8>) {
            let sent = [format!("${}\r\n", content.len()).as_bytes(), &content, b"\r\n"].concat();
            prop_assert_eq!(begun(&sent).unwrap(), Begun::Whole(sent.len()));
            prop_assert_eq!(value(&sent).unwrap(), bulk(&content));
        }
    }
}
