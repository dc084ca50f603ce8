//! Targeted cache control (RFC 9213): fields such as `CDN-Cache-Control` that speak to some caches only, and then
//! replace `Cache-Control` and `Expires` for them.
//!
//! Such a field is a Dictionary of Structured Fields (RFC 8941 §3.2). One that is empty or can't be parsed is ignored, as
//! §2.1 wants it; of a known directive with a value of the wrong type the strictest reading is taken.

use http::{HeaderMap, HeaderName};

use super::directives::{ResponseDirectives, Value};
use super::list::trim;

/// The directives that are meant for this cache, and the field that gave them: the first of `targets` that is present and well-formed,
/// else `Cache-Control` (and then `None`).
///
/// ```
/// use larder::rfc9111::targeted;
/// let mut headers = http::HeaderMap::new();
/// headers.insert("cache-control", "no-store".parse().unwrap());
/// headers.insert("cdn-cache-control", "max-age=60".parse().unwrap());
/// let targets = [http::HeaderName::from_static("cdn-cache-control")];
/// let (said, field) = targeted::directives(&headers, &targets);
/// assert!(!said.no_store && field == Some(&targets[0]));
/// ```
pub fn directives<'t>(headers: &HeaderMap, targets: &'t [HeaderName]) -> (ResponseDirectives, Option<&'t HeaderName>) {
    for target in targets {
        if let Some(said) = parse(headers, target) {
            return (said, Some(target));
        }
    }
    (ResponseDirectives::parse(headers), None)
}

fn parse(headers: &HeaderMap, target: &HeaderName) -> Option<ResponseDirectives> {
    // The common case first: no allocation where the field is absent.
    headers.get(target)?;
    let lines: Vec<&[u8]> = headers.get_all(target).iter().map(|line| trim(line.as_bytes())).collect();
    let text = lines.join(&b", "[..]);
    let mut said = ResponseDirectives::default();
    let mut parser = Parser(&text);
    let mut members = 0;
    loop {
        let (key, value) = parser.member()?;
        match value {
            Item::False => {}
            Item::True => said.take(key, Value::None),
            Item::Integer(digits) => said.take(key, Value::Text(digits)),
            Item::Other => said.take(key, Value::Text(b"?")),
        }
        members += 1;
        match parser.separator() {
            Separator::End => return (members > 0).then_some(said),
            Separator::Comma => {}
            Separator::Junk => return None,
        }
    }
}

/// The value of a Dictionary member, as far as a cache directive can have use for it.
enum Item<'a> {
    True,
    False,
    Integer(&'a [u8]),
    /// A well-formed value of a type that no directive takes: a string, a token, an inner list, a negative number ...
    Other,
}

enum Separator {
    Comma,
    End,
    Junk,
}

/// The parsing of RFC 8941 §4.2.2, over the rest of the input.
struct Parser<'a>(&'a [u8]);

impl<'a> Parser<'a> {
    fn member(&mut self) -> Option<(&'a [u8], Item<'a>)> {
        let key = self.key()?;
        let value = if self.eat(b'=') { self.value()? } else { Item::True };
        self.parameters()?;
        Some((key, value))
    }

    fn separator(&mut self) -> Separator {
        self.0 = trim(self.0);
        if self.0.is_empty() {
            return Separator::End;
        }
        if !self.eat(b',') {
            return Separator::Junk;
        }
        self.0 = trim(self.0);
        // "A trailing comma fails parsing" (§4.2.2).
        if self.0.is_empty() { Separator::Junk } else { Separator::Comma }
    }

    fn key(&mut self) -> Option<&'a [u8]> {
        matches!(self.0.first(), Some(b'a'..=b'z' | b'*')).then_some(())?;
        Some(self.take_while(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b'*')))
    }

    fn value(&mut self) -> Option<Item<'a>> {
        match self.0.first()? {
            b'?' => self.boolean(),
            b'0'..=b'9' | b'-' => self.number(),
            b'"' => self.string(),
            b'(' => self.inner_list(),
            b':' => self.bytes(),
            b if b.is_ascii_alphabetic() || *b == b'*' => {
                self.take_while(|b| {
                    b.is_ascii_graphic()
                        && !matches!(
                            b,
                            b'"' | b'('
                                | b')'
                                | b','
                                | b';'
                                | b'<'
                                | b'='
                                | b'>'
                                | b'?'
                                | b'@'
                                | b'['
                                | b'\\'
                                | b']'
                                | b'{'
                                | b'}'
                        )
                });
                Some(Item::Other)
            }
            _ => None,
        }
    }

    fn boolean(&mut self) -> Option<Item<'a>> {
        let (item, rest) = match self.0 {
            [b'?', b'1', rest @ ..] => (Item::True, rest),
            [b'?', b'0', rest @ ..] => (Item::False, rest),
            _ => return None,
        };
        self.0 = rest;
        Some(item)
    }

    fn number(&mut self) -> Option<Item<'a>> {
        let negative = self.eat(b'-');
        let whole = self.take_while(u8::is_ascii_digit);
        let fraction = if self.eat(b'.') { Some(self.take_while(u8::is_ascii_digit)) } else { None };
        match fraction {
            // §3.3.1, §3.3.2: at most 15 digits, and at most 12 with up to 3 behind the point.
            Some(fraction) => {
                ((1..=12).contains(&whole.len()) && (1..=3).contains(&fraction.len())).then_some(Item::Other)
            }
            None if !(1..=15).contains(&whole.len()) => None,
            None if negative => Some(Item::Other),
            None => Some(Item::Integer(whole)),
        }
    }

    fn string(&mut self) -> Option<Item<'a>> {
        self.0 = &self.0[1..];
        loop {
            match self.0 {
                [b'\\', b'"' | b'\\', rest @ ..] => self.0 = rest,
                [b'"', rest @ ..] => {
                    self.0 = rest;
                    return Some(Item::Other);
                }
                [b' '..=b'[' | b']'..=b'~', rest @ ..] => self.0 = rest,
                _ => return None,
            }
        }
    }

    fn bytes(&mut self) -> Option<Item<'a>> {
        self.0 = &self.0[1..];
        self.take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='));
        self.eat(b':').then_some(Item::Other)
    }

    fn inner_list(&mut self) -> Option<Item<'a>> {
        self.0 = &self.0[1..];
        loop {
            self.take_while(|b| *b == b' ');
            if self.eat(b')') {
                return Some(Item::Other);
            }
            // Inner lists don't nest (§3.1.1), so this recursion is one deep.
            if self.0.first() == Some(&b'(') {
                return None;
            }
            self.value()?;
            self.parameters()?;
        }
    }

    fn parameters(&mut self) -> Option<()> {
        while self.eat(b';') {
            self.take_while(|b| *b == b' ');
            self.key()?;
            if self.eat(b'=') {
                if self.0.first() == Some(&b'(') {
                    return None;
                }
                self.value()?;
            }
        }
        Some(())
    }

    fn eat(&mut self, byte: u8) -> bool {
        match self.0 {
            [first, rest @ ..] if *first == byte => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    fn take_while(&mut self, accept: impl Fn(&u8) -> bool) -> &'a [u8] {
        let end = self.0.iter().position(|b| !accept(b)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest;
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderValue;

    use super::*;

    const CDN: HeaderName = HeaderName::from_static("cdn-cache-control");

    fn cdn(value: &str) -> (ResponseDirectives, bool) {
        let mut headers = HeaderMap::new();
        headers.insert("cache-control", HeaderValue::from_static("max-age=7"));
        headers.insert(CDN, HeaderValue::from_str(value).unwrap());
        let targets = [CDN];
        let (said, field) = directives(&headers, &targets);
        (said, field.is_some())
    }

    #[test]
    fn a_targeted_field_replaces_cache_control() {
        // RFC 9213 §2.1, §2.2
        for (value, seconds) in [
            ("max-age=60", 60),
            ("max-age=60;ext=1", 60),
            ("a=(1 \"x\");q=2.5, max-age=60, b=:aGk=:", 60),
            ("max-age=5, max-age=60", 5),
        ] {
            let (said, used) = cdn(value);
            assert!(used, "{value}");
            assert_eq!(said.max_age, Some(Duration::from_secs(seconds)), "{value}");
        }
        assert!(cdn("no-store").0.no_store && cdn("no-store=?1").0.no_store);
        assert!(!cdn("max-age=1, no-store=?0").0.no_store);
    }

    #[test]
    fn one_that_is_no_dictionary_is_ignored() {
        for value in [
            "",
            "  ",
            "MaX-aGe=60",
            "max-age=60,",
            "max-age=60 no-store",
            "max-age=\"60",
            "max-age=1234567890123456",
            "=",
            "a=((1))",
            "a=?2",
        ] {
            let (said, used) = cdn(value);
            assert!(!used, "{value}");
            assert_eq!(said.max_age, Some(Duration::from_secs(7)), "{value}");
        }
    }

    #[test]
    fn a_value_of_the_wrong_type_is_read_strictly() {
        for value in ["max-age=60.5", "max-age=\"60\"", "max-age=-60", "max-age=abc", "max-age"] {
            assert_eq!(cdn(value).0.max_age, Some(Duration::ZERO), "{value}");
        }
    }

    #[test]
    fn the_first_target_present_wins() {
        let mut headers = HeaderMap::new();
        headers.insert(CDN, HeaderValue::from_static("max-age=60"));
        headers.insert("larder-cache-control", HeaderValue::from_static("max-age=90"));
        let own = HeaderName::from_static("larder-cache-control");
        assert_eq!(directives(&headers, &[own.clone(), CDN]).0.max_age, Some(Duration::from_secs(90)));
        assert_eq!(directives(&headers, &[CDN, own]).0.max_age, Some(Duration::from_secs(60)));
    }
}
