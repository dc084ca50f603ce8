//! [`Form`]: whether stored content lies there coded, or may once do so, and what the head says of that.

use http::{HeaderMap, HeaderValue, header};

use crate::compression::{Coder, Compression};
use crate::rfc9111::coding::{coded_tag, plain_tag};
use crate::rfc9111::vary::Vary;

/// In which form content is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Form {
    /// As the handler sent it. It goes out so, and in no other form.
    #[default]
    Fixed,
    /// Without coding, and it may get one. `Vary` says so to those downstream.
    Plain,
    /// Without coding, since that wasn't worth it. `Vary` is as if it were.
    Settled,
    /// Coded, from so many bytes.
    Coded {
        /// What coded it.
        by: Coder,
        /// The length without coding.
        length: u32,
    },
}

impl Form {
    /// Whether it may go out in more than one form.
    pub(crate) fn is_negotiable(self) -> bool {
        self != Self::Fixed
    }

    /// Makes a head that speaks of content without coding speak of this form.
    pub(crate) fn dress(self, head: &mut HeaderMap) {
        let Self::Coded { by, .. } = self else { return };
        head.insert(header::CONTENT_ENCODING, HeaderValue::from_static(by.coding.name()));
        if let Some(tag) = single_tag(head).and_then(|tag| by.tag(tag)) {
            head.insert(header::ETAG, tag);
        }
    }

    /// Makes a head of this form speak of the content without coding.
    pub(crate) fn undress(self, head: &mut HeaderMap) {
        if !matches!(self, Self::Coded { .. }) {
            return;
        }
        head.remove(header::CONTENT_ENCODING);
        if let Some(tag) = single_tag(head).and_then(plain) {
            head.insert(header::ETAG, tag);
        }
    }

    /// The entity tag of the content without coding, where `tag` is that of this form.
    pub(crate) fn plain_tag(self, tag: &HeaderValue) -> HeaderValue {
        let plain = matches!(self, Self::Coded { .. }).then(|| plain(tag)).flatten();
        plain.unwrap_or_else(|| tag.clone())
    }
}

impl Coder {
    /// The entity tag of what this coder makes, if it has another one than the content without coding, whose tag is `plain`.
    pub(crate) fn tag(self, plain: &HeaderValue) -> Option<HeaderValue> {
        let tag = match self.level {
            // The bytes differ by level, so the tags do (RFC 9110 §8.8.3.3).
            Some(level) => coded_tag(plain.as_bytes(), &format!("{}{level}", self.coding.name())),
            None => coded_tag(plain.as_bytes(), self.coding.name()),
        };
        HeaderValue::try_from(tag?).ok()
    }
}

impl Compression {
    /// What codes, if it is on.
    pub(crate) fn coder(&self) -> Option<Coder> {
        self.coding.map(|coding| Coder { coding, level: self.level })
    }
}

fn plain(tag: &HeaderValue) -> Option<HeaderValue> {
    HeaderValue::try_from(plain_tag(tag.as_bytes())?).ok()
}

/// The only `ETag`. Several are none (RFC 9110 §8.8.3).
fn single_tag(head: &HeaderMap) -> Option<&HeaderValue> {
    let mut lines = head.get_all(header::ETAG).iter();
    lines.next().filter(|_| lines.next().is_none())
}

/// Says that the form depends on what the client accepts (RFC 9110 §12.5.5), unless that is said already. Tells whether it had to.
pub(crate) fn add_vary(head: &mut HeaderMap) -> bool {
    let is_said = match Vary::parse(head) {
        Vary::Any => true,
        Vary::Fields(fields) => fields.contains(&header::ACCEPT_ENCODING),
    };
    if !is_said {
        head.append(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
    !is_said
}

/// Takes away what [`add_vary`] added: the last line.
pub(crate) fn drop_vary(head: &mut HeaderMap) {
    let lines: Vec<HeaderValue> = head.get_all(header::VARY).iter().cloned().collect();
    head.remove(header::VARY);
    for line in lines.iter().take(lines.len().saturating_sub(1)) {
        head.append(header::VARY, line.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rfc9111::coding::Coding;

    fn head(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut head = HeaderMap::new();
        for (name, value) in fields {
            head.append(*name, HeaderValue::from_static(value));
        }
        head
    }

    #[test]
    fn what_a_form_says_of_itself_can_be_taken_back() {
        type Fields = &'static [(&'static str, &'static str)];
        let rows: &[(Option<u8>, Fields, Fields)] = &[
            (None, &[("etag", "\"a\"")], &[("etag", "\"a-gzip\""), ("content-encoding", "gzip")]),
            (Some(9), &[("etag", "\"a\"")], &[("etag", "\"a-gzip9\""), ("content-encoding", "gzip")]),
            (None, &[("etag", "\"a-gzip\"")], &[("etag", "\"a-gzip-gzip\""), ("content-encoding", "gzip")]),
            (None, &[("etag", "W/\"a-b\"")], &[("etag", "W/\"a-b\""), ("content-encoding", "gzip")]),
            (None, &[("etag", "a-b")], &[("etag", "a-b"), ("content-encoding", "gzip")]),
            (
                None,
                &[("etag", "\"a-b\""), ("etag", "\"b\"")],
                &[("etag", "\"a-b\""), ("etag", "\"b\""), ("content-encoding", "gzip")],
            ),
            (None, &[], &[("content-encoding", "gzip")]),
        ];
        for (level, plain, coded) in rows {
            let form = Form::Coded { by: Coder { coding: Coding::Gzip, level: *level }, length: 1 };
            let mut both = head(plain);
            form.dress(&mut both);
            assert_eq!(both, head(coded));
            form.undress(&mut both);
            assert_eq!(both, head(plain));
        }
        for form in [Form::Fixed, Form::Plain, Form::Settled] {
            let mut same = head(&[("etag", "\"a-gzip\""), ("content-encoding", "gzip")]);
            form.dress(&mut same);
            form.undress(&mut same);
            assert_eq!(same, head(&[("etag", "\"a-gzip\""), ("content-encoding", "gzip")]));
        }
    }

    #[test]
    fn vary_is_added_once_and_taken_back() {
        let rows: &[(&[&'static str], bool)] = &[
            (&[], true),
            (&["origin"], true),
            (&["origin, Cookie", "accept"], true),
            (&["accept-encoding"], false),
            (&["origin, Accept-Encoding"], false),
            (&["*"], false),
        ];
        for (lines, added) in rows {
            let before = head(&lines.iter().map(|line| ("vary", *line)).collect::<Vec<_>>());
            let mut after = before.clone();
            assert_eq!(add_vary(&mut after), *added, "{lines:?}");
            if *added {
                assert_eq!(after.get_all("vary").iter().next_back().unwrap(), "accept-encoding");
                assert!(!add_vary(&mut after.clone()), "once");
                drop_vary(&mut after);
            }
            assert_eq!(after, before);
        }
    }
}
