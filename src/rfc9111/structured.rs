//! Structured Fields (RFC 9651), as far as fields about caching need them: Dictionaries, and Lists of Strings. What doesn't parse to its last
//! byte is no field at all: §4.2 wants it ignored as a whole.

use http::{HeaderMap, HeaderName};

use super::list::trim;

/// The value of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item<'a> {
    Boolean(bool),
    /// The digits of a number that isn't negative.
    Integer(&'a [u8]),
    /// Without quotes and escapes.
    String(String),
    InnerList(Vec<Item<'a>>),
    /// A well-formed value of a type that no field about caching takes: a token, a negative number, a date ...
    Other,
}

/// All lines of a field as one (§4.2).
pub(super) fn joined(headers: &HeaderMap, name: &HeaderName) -> Vec<u8> {
    let lines: Vec<&[u8]> = headers.get_all(name).iter().map(|line| trim(line.as_bytes())).collect();
    lines.join(&b", "[..])
}

/// The members of a Dictionary in the order given (§4.2.2); of a key that comes twice, both. `None` if it is empty or none.
pub(super) fn dictionary(text: &[u8]) -> Option<Vec<(&[u8], Item<'_>)>> {
    Parser(text).members(Parser::member)
}

/// The Strings of a List (§4.2.1), without their parameters. `None` if it is empty, none, or has a member of another type.
pub(super) fn strings(text: &[u8]) -> Option<Vec<String>> {
    Parser(text).members(|parser| {
        let item = parser.value()?;
        parser.parameters()?;
        match item {
            Item::String(text) => Some(text),
            _ => None,
        }
    })
}

enum Separator {
    Comma,
    End,
    Junk,
}

/// The parsing of §4.2, over the rest of the input.
struct Parser<'a>(&'a [u8]);

impl<'a> Parser<'a> {
    fn members<T>(mut self, member: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        self.0 = trim(self.0);
        let mut all = Vec::new();
        loop {
            all.push(member(&mut self)?);
            match self.separator() {
                Separator::End => return Some(all),
                Separator::Comma => {}
                Separator::Junk => return None,
            }
        }
    }

    fn member(&mut self) -> Option<(&'a [u8], Item<'a>)> {
        let key = self.key()?;
        let value = if self.eat(b'=') { self.value()? } else { Item::Boolean(true) };
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
            b'@' => self.date(),
            b'%' => self.display_string(),
            b if b.is_ascii_alphabetic() || *b == b'*' => {
                self.take_while(|b| b.is_ascii_graphic() && !br#""(),;<=>?@[\]{}"#.contains(b));
                Some(Item::Other)
            }
            _ => None,
        }
    }

    fn boolean(&mut self) -> Option<Item<'a>> {
        let (item, rest) = match self.0 {
            [b'?', b'1', rest @ ..] => (Item::Boolean(true), rest),
            [b'?', b'0', rest @ ..] => (Item::Boolean(false), rest),
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
        let mut text = String::new();
        loop {
            let (byte, rest) = match self.0 {
                [b'\\', byte @ (b'"' | b'\\'), rest @ ..] => (byte, rest),
                [b'"', rest @ ..] => {
                    self.0 = rest;
                    return Some(Item::String(text));
                }
                [byte @ (b' '..=b'[' | b']'..=b'~'), rest @ ..] => (byte, rest),
                _ => return None,
            };
            text.push(char::from(*byte));
            self.0 = rest;
        }
    }

    fn bytes(&mut self) -> Option<Item<'a>> {
        self.0 = &self.0[1..];
        let digits = self.take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/')).len();
        let padding = self.take_while(|b| *b == b'=').len();
        // §4.2.7: padding may be left out, but there can't be too much of it; and a single digit of base64 is no byte.
        let decodes = match digits % 4 {
            0 => padding == 0,
            1 => false,
            over => over + padding <= 4,
        };
        (self.eat(b':') && decodes).then_some(Item::Other)
    }

    /// §4.2.9: an Integer behind the sign.
    fn date(&mut self) -> Option<Item<'a>> {
        self.0 = &self.0[1..];
        self.eat(b'-');
        let digits = self.take_while(u8::is_ascii_digit);
        ((1..=15).contains(&digits.len()) && self.0.first() != Some(&b'.')).then_some(Item::Other)
    }

    /// §4.2.10, but for whether it is UTF-8 once decoded: nobody here looks into it.
    fn display_string(&mut self) -> Option<Item<'a>> {
        let mut rest = self.0.strip_prefix(b"%\"")?;
        loop {
            rest = match rest {
                [b'%', b'0'..=b'9' | b'a'..=b'f', b'0'..=b'9' | b'a'..=b'f', rest @ ..] => rest,
                [b'"', rest @ ..] => {
                    self.0 = rest;
                    return Some(Item::Other);
                }
                [b' '..=b'$' | b'&'..=b'~', rest @ ..] => rest,
                _ => return None,
            };
        }
    }

    fn inner_list(&mut self) -> Option<Item<'a>> {
        self.0 = &self.0[1..];
        let mut items = Vec::new();
        loop {
            let spaces = self.take_while(|b| *b == b' ');
            if self.eat(b')') {
                return Some(Item::InnerList(items));
            }
            // Inner lists don't nest (§3.1.1), so this recursion is one deep; and what is in them is set apart by spaces.
            if self.0.first() == Some(&b'(') || !items.is_empty() && spaces.is_empty() {
                return None;
            }
            items.push(self.value()?);
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
    use super::*;

    #[test]
    fn lists_of_strings() {
        // RFC 9651 §4.2.1, §4.2.5
        let rows: &[(&str, Option<&[&str]>)] = &[
            (r#""a""#, Some(&["a"])),
            (r#" "a" ,	"b,c""#, Some(&["a", "b,c"])),
            (r#""a;b";x;y="z";w=?0, "c""#, Some(&["a;b", "c"])),
            (r#""\"\\""#, Some(&[r#""\"#])),
            (r#""""#, Some(&[""])),
            (r#""a";x=@-17;y=%"f%c3%bc""#, Some(&["a"])),
            ("", None),
            (r#""a","#, None),
            (r#""a" "b""#, None),
            (r#""a"#, None),
            (r#""\a""#, None),
            ("\"\u{e9}\"", None),
            (r#""a", b"#, None),
            (r#"("a")"#, None),
            (r#""a";X"#, None),
            (r#""a";x=@1.5"#, None),
            (r#""a";x=@"#, None),
            (r#""a";x=@1234567890123456"#, None),
            (r#""a";y=%"%C3""#, None),
        ];
        for (text, expected) in rows {
            let strings = strings(text.as_bytes());
            let expected = expected.map(|all| all.iter().map(|s| s.to_string()).collect::<Vec<_>>());
            assert_eq!(strings, expected, "{text}");
        }
    }

    #[test]
    fn dictionaries() {
        // §4.2.2, §4.2.1.2
        let string = |text: &str| Item::String(text.into());
        let rows = [
            ("a, b=?0", Some(vec![(&b"a"[..], Item::Boolean(true)), (b"b", Item::Boolean(false))])),
            (
                r#"a=("x"  "y";p ) , b=1"#,
                Some(vec![(b"a", Item::InnerList(vec![string("x"), string("y")])), (b"b", Item::Integer(b"1"))]),
            ),
            ("a=(), a=t", Some(vec![(b"a", Item::InnerList(vec![])), (b"a", Item::Other)])),
            (r#"a=("x""y")"#, None),
            (r#"a=(("x"))"#, None),
            (r#"a=("x""#, None),
            ("a=", None),
            ("A", None),
        ];
        for (text, expected) in rows {
            assert_eq!(dictionary(text.as_bytes()), expected, "{text}");
        }
    }
}
