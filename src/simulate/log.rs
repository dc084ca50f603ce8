//! [`AccessLog`]: the Common and the Combined Log Format, line by line. What it can't read it counts, and goes on.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{Method, StatusCode};

use super::Access;

/// An access log in the Common Log Format, or in one that only adds to its end, such as the Combined one; with the virtual host in front of it or not. It
/// is read as it is asked for, and never held as a whole.
///
/// ```
/// use larder::simulate::AccessLog;
/// let text = r#"192.0.2.1 - ann [10/Oct/2025:13:55:36 +0200] "GET /products/1?page=2 HTTP/1.1" 200 2326
/// a line that is none
/// "#;
/// let mut log = AccessLog::new(text.as_bytes());
/// let access = log.next().unwrap()?;
/// assert_eq!((access.uri.path(), access.bytes, access.user.as_deref()), ("/products/1", 2326, Some("ann")));
/// assert!(log.next().is_none());
/// assert_eq!(log.bad_lines().map(|bad| (bad.count, bad.first)), Some((1, 2)));
/// # Ok::<_, std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct AccessLog<R> {
    from: R,
    line: Vec<u8>,
    number: u64,
    bad: Option<BadLines>,
}

/// Lines of a log that couldn't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BadLines {
    /// How many.
    pub count: u64,
    /// The number of the first of them, counted from one.
    pub first: u64,
}

/// Of a longer line, no server has made more than this with a request in it that anybody caches.
const LONGEST: u64 = 64 << 10;

impl AccessLog<BufReader<File>> {
    /// Reads a file.
    ///
    /// # Errors
    /// If it can't be opened.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        Ok(Self::new(BufReader::with_capacity(1 << 20, File::open(path)?)))
    }
}

impl<R: BufRead> AccessLog<R> {
    /// Reads from anywhere.
    pub fn new(from: R) -> Self {
        Self { from, line: Vec::new(), number: 0, bad: None }
    }

    /// The lines so far that are no accesses, if there were any. Empty lines are none.
    pub fn bad_lines(&self) -> Option<BadLines> {
        self.bad
    }

    /// Reads the next line, without its end; false behind the last one.
    fn read_line(&mut self) -> io::Result<bool> {
        self.line.clear();
        let read = self.from.by_ref().take(LONGEST).read_until(b'\n', &mut self.line)?;
        self.number += u64::from(read > 0);
        if read as u64 == LONGEST && self.line.last() != Some(&b'\n') {
            // No access: what is left of it is passed over, however much that is.
            self.line.clear();
            self.line.push(b'?');
            while !self.skip_to_end()? {}
        }
        Ok(read > 0)
    }

    /// Passes over what is in the reader's memory of a line; true if it ended there.
    fn skip_to_end(&mut self) -> io::Result<bool> {
        let buffer = self.from.fill_buf()?;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let (passed, ended) = (end.map_or(buffer.len(), |end| end + 1), end.is_some() || buffer.is_empty());
        self.from.consume(passed);
        Ok(ended)
    }

    fn note_bad(&mut self) {
        let bad = self.bad.get_or_insert(BadLines { count: 0, first: self.number });
        bad.count += 1;
    }
}

impl<R: BufRead> Iterator for AccessLog<R> {
    type Item = io::Result<Access>;

    fn next(&mut self) -> Option<io::Result<Access>> {
        loop {
            match self.read_line() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some(Err(error)),
            }
            let line = self.line.trim_ascii();
            if line.is_empty() {
                continue;
            }
            match parse(&String::from_utf8_lossy(line)) {
                Some(access) => return Some(Ok(access)),
                None => self.note_bad(),
            }
        }
    }
}

/// `host ident user [time] "METHOD target HTTP/1.1" status bytes`, whatever follows.
fn parse(line: &str) -> Option<Access> {
    let (before, rest) = line.split_once('[')?;
    let (time, rest) = rest.split_once(']')?;
    let mut names = before.split_ascii_whitespace();
    let (first, second, third) = (names.next()?, names.next()?, names.next()?);
    // With the virtual host in front there is one more; with a name of two words as well, but then the second is no `-`.
    let (host, client, user) = match (names.next(), third) {
        (Some(user), "-") => (Some(first), second, user),
        _ => (None, first, third),
    };
    let (request, rest) = quoted(rest.trim_ascii_start())?;
    let mut request = request.split(' ').filter(|word| !word.is_empty());
    let method = Method::from_bytes(request.next()?.as_bytes()).ok()?;
    let uri = request.next()?.parse().ok()?;
    let mut numbers = rest.split_ascii_whitespace();
    let status = StatusCode::from_bytes(numbers.next()?.as_bytes()).ok()?;
    let bytes = match numbers.next()? {
        "-" => 0,
        bytes => bytes.parse().ok()?,
    };
    Some(Access {
        time: parse_time(time)?,
        client: client.into(),
        user: (user != "-").then(|| user.into()),
        host: host.map(Into::into),
        method,
        uri,
        status,
        bytes,
    })
}

/// What is between quotation marks, of which those with a backslash before them are none; and what follows.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let text = text.strip_prefix('"')?;
    let mut escaped = false;
    let end = text.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })?;
    Some((&text[..end], &text[end + 1..]))
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// `10/Oct/2025:13:55:36 +0200`; nothing before 1970.
fn parse_time(text: &str) -> Option<SystemTime> {
    let (moment, zone) = text.split_once(' ')?;
    let mut parts = moment.split(['/', ':']);
    let mut number = |least: i64, most: i64| {
        let part = parts.next()?;
        let number = match MONTHS.iter().position(|month| *month == part) {
            Some(month) => month as i64 + 1,
            None => part.parse().ok()?,
        };
        (least..=most).contains(&number).then_some(number)
    };
    let (day, month, year) = (number(1, 31)?, number(1, 12)?, number(1970, 9999)?);
    let (hour, minute, second) = (number(0, 23)?, number(0, 59)?, number(0, 60)?);
    let (sign, zone) = zone.split_at_checked(1)?;
    let zone: i64 = zone.parse().ok().filter(|zone| (0..=2400).contains(zone))?;
    let east = (zone / 100 * 60 + zone % 100) * if sign == "-" { -60 } else { 60 };
    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - east;
    Some(UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).ok()?))
}

/// In the Gregorian calendar, for years from 1970. Years are counted from March, so that the day that some of them have more is their last one.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(text: &str) -> Option<u64> {
        parse_time(text).map(|time| time.duration_since(UNIX_EPOCH).expect("it is later").as_secs())
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (text, expected) in [
            ("01/Jan/1970:00:00:00 +0000", Some(0)),
            ("29/Feb/2000:12:00:00 +0000", Some(951_825_600)),
            ("10/Oct/2000:13:55:36 -0700", Some(971_211_336)),
            ("01/Mar/2024:00:00:00 +0530", Some(1_709_231_400)),
            ("31/Dec/2026:23:59:60 +0000", Some(1_798_761_600)),
            ("01/Jan/1970:00:00:00 +0100", None),
            ("32/Jan/2020:00:00:00 +0000", None),
            ("10/Okt/2020:00:00:00 +0000", None),
            ("10/Oct/2020:24:00:00 +0000", None),
            ("10/Oct/2020:00:00:00", None),
            ("10/Oct/2020:00:00:00 é000", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }

    #[test]
    fn both_formats_and_what_servers_make_of_them() {
        let common = r#"192.0.2.1 - - [10/Oct/2000:13:55:36 -0700] "GET /a?b=c HTTP/1.0" 200 2326"#;
        let combined =
            r#"2001:db8::1 - ann [10/Oct/2000:13:55:36 -0700] "POST /a HTTP/1.1" 201 - "http://x/\"q\"" "curl [7]""#;
        let with_host =
            r#"shop.example:443 192.0.2.1 - - [10/Oct/2000:13:55:36 -0700] "HEAD / HTTP/2.0" 304 0 "-" "-""#;
        let escaped = r#"192.0.2.1 - - [10/Oct/2000:13:55:36 -0700] "GET /\"x HTTP/1.1" 404 10"#;
        let read = |line| parse(line).map(|a| (a.host, a.client, a.user, a.method, a.uri, a.status.as_u16(), a.bytes));
        let uri = |text: &str| text.parse::<http::Uri>().expect("it is one");
        assert_eq!(read(common), Some((None, "192.0.2.1".into(), None, Method::GET, uri("/a?b=c"), 200, 2326)));
        let ann = Some("ann".into());
        assert_eq!(read(combined), Some((None, "2001:db8::1".into(), ann, Method::POST, uri("/a"), 201, 0)));
        let host = Some("shop.example:443".into());
        assert_eq!(read(with_host), Some((host, "192.0.2.1".into(), None, Method::HEAD, uri("/"), 304, 0)));
        assert_eq!(read(escaped).map(|read| read.5), uri_or_none(r#"/\"x"#).map(|_| 404), "or no URI at all");
    }

    fn uri_or_none(text: &str) -> Option<http::Uri> {
        text.parse().ok()
    }

    #[test]
    fn lines_that_are_none_are_counted() {
        let good = r#"::1 - - [10/Oct/2000:13:55:36 -0700] "GET / HTTP/1.0" 200 1"#;
        let long = "x".repeat(3 * LONGEST as usize);
        let at_limit = "y".repeat(LONGEST as usize - 1);
        let text = format!("{good}\n\n{long}\n{good}\n{at_limit}\n\"\n[] \"\" 0 0\n\u{0}\n- - - [x] \"é\" 1 1\n{good}");
        let mut log = AccessLog::new(io::BufReader::with_capacity(100, text.as_bytes()));
        assert_eq!(log.by_ref().filter(Result::is_ok).count(), 3);
        assert_eq!(log.bad_lines(), Some(BadLines { count: 6, first: 3 }));
        let end_within = format!("{good}\n{long}");
        let mut log = AccessLog::new(end_within.as_bytes());
        assert_eq!(log.by_ref().count(), 1);
        assert_eq!(log.bad_lines(), Some(BadLines { count: 1, first: 2 }));
    }
}
