//! Content codings (RFC 9110 §8.4.1): which of them a client accepts (§12.5.3), and the entity tags of coded content (§8.8.3.3).

use http::{HeaderMap, header};

use super::list::{members, trim};
use super::vary::split_weight;

/// A coding that larder knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Coding {
    /// `gzip` (RFC 1952).
    Gzip,
    /// `br` (RFC 7932).
    Brotli,
    /// `zstd` (RFC 8878).
    Zstd,
}

impl Coding {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Gzip, Self::Brotli, Self::Zstd];

    /// Its name in `Content-Encoding` and `Accept-Encoding`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }
}

/// What a client accepts: a weight in thousandths for each coding, 0 where it accepts none.
///
/// ```
/// use larder::rfc9111::coding::{Accepts, Coding};
/// let mut request = http::HeaderMap::new();
/// request.insert("accept-encoding", "br;q=0.5, gzip".parse().unwrap());
/// let accepts = Accepts::of(&request);
/// assert_eq!((accepts.weight(Coding::Gzip), accepts.weight(Coding::Brotli), accepts.weight(Coding::Zstd)), (1000, 500, 0));
/// assert!(accepts.prefers(Coding::Brotli));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepts {
    /// In the order of [`Coding::ALL`].
    codings: [u16; 3],
    identity: Option<u16>,
}

impl Accepts {
    /// Reads all `Accept-Encoding` lines of a request.
    ///
    /// - Where there are none, the RFC lets a server send any coding; larder sends what everybody can read.
    /// - `*` stands for all that isn't named.
    /// - Of a coding that is named twice, the smaller weight counts, and a weight that can't be read is no acceptance.
    pub fn of(request: &HeaderMap) -> Self {
        let mut lines = request.get_all(header::ACCEPT_ENCODING).iter();
        if let (Some(only), None) = (lines.next(), lines.next())
            && let Some(accepts) = Self::unweighted(only.as_bytes())
        {
            return accepts;
        }
        let (mut named, mut identity, mut rest) = ([None; 3], None, None);
        for member in request.get_all(header::ACCEPT_ENCODING).iter().flat_map(|line| members(line.as_bytes())) {
            let (name, weight) = split_weight(member);
            let weight = weight as u16;
            let place = match name {
                _ if is(name, b"gzip") || is(name, b"x-gzip") => &mut named[0],
                _ if is(name, b"br") => &mut named[1],
                _ if is(name, b"zstd") => &mut named[2],
                _ if is(name, b"identity") => &mut identity,
                b"*" => &mut rest,
                _ => {
                    // What is no weight left the parameter where it was.
                    unreadable(name, &mut named, &mut identity);
                    continue;
                }
            };
            *place = Some(place.map_or(weight, |other: u16| other.min(weight)));
        }
        Self { codings: named.map(|weight| weight.or(rest).unwrap_or(0)), identity: identity.or(rest) }
    }

    /// What browsers send: names in lower case, and nothing else.
    pub(crate) fn unweighted(line: &[u8]) -> Option<Self> {
        // Word for word, for it is read on every hit of what is coded.
        let mut codings = match line {
            b"gzip, deflate, br, zstd" => return Some(Self { codings: [1000; 3], identity: None }),
            b"gzip, deflate, br" => return Some(Self { codings: [1000, 1000, 0], identity: None }),
            _ => [0; 3],
        };
        for member in line.split(|b| *b == b',') {
            match member.trim_ascii() {
                b"gzip" => codings[0] = 1000,
                b"br" => codings[1] = 1000,
                b"zstd" => codings[2] = 1000,
                b"deflate" | b"" => {}
                _ => return None,
            }
        }
        Some(Self { codings, identity: None })
    }

    /// The weight of a coding; 0 if it isn't accepted.
    pub fn weight(&self, coding: Coding) -> u16 {
        self.codings[coding as usize]
    }

    /// Whether content without coding may be sent; so unless it is ruled out by `identity;q=0`, or by `*;q=0`.
    pub fn identity(&self) -> bool {
        self.identity != Some(0)
    }

    /// Whether content in this coding is at least as welcome as content without any. Where `identity` isn't named, whatever is
    /// named is more welcome.
    pub fn prefers(&self, coding: Coding) -> bool {
        let weight = self.weight(coding);
        weight > 0 && self.identity.is_none_or(|identity| weight >= identity)
    }
}

fn is(name: &[u8], known: &[u8]) -> bool {
    name.eq_ignore_ascii_case(known)
}

/// A coding with a parameter that is no weight: it is taken as not accepted.
#[cold]
fn unreadable(member: &[u8], named: &mut [Option<u16>; 3], identity: &mut Option<u16>) {
    let name = trim(member.split(|b| *b == b';').next().unwrap_or_default());
    for (coding, place) in Coding::ALL.into_iter().zip(named) {
        if is(name, coding.name().as_bytes()) {
            *place = Some(0);
        }
    }
    if is(name, b"identity") {
        // It can't be ruled out by what can't be read.
        *identity = identity.or(Some(1));
    }
}

/// The entity tag of content in a coding, made from that of the content without: strong tags have to differ (§8.8.3.3), weak ones need
/// not. `suffix` names the coding and what else decides on its bytes. Values that aren't quoted as they should be stay as they are.
///
/// ```
/// use larder::rfc9111::coding::{coded_tag, plain_tag};
/// assert_eq!(coded_tag(b"\"v1\"", "gzip").as_deref(), Some(&b"\"v1-gzip\""[..]));
/// assert_eq!(coded_tag(b"W/\"v1\"", "gzip"), None);
/// assert_eq!(plain_tag(b"\"v1-gzip\""), Some(b"\"v1\"".to_vec()));
/// ```
pub fn coded_tag(tag: &[u8], suffix: &str) -> Option<Vec<u8>> {
    let [b'"', .., b'"'] = tag else { return None };
    let opaque = &tag[..tag.len() - 1];
    Some([opaque, b"-", suffix.as_bytes(), b"\""].concat())
}

/// The tag of the content without coding, from one that [`coded_tag`] made.
pub fn plain_tag(tag: &[u8]) -> Option<Vec<u8>> {
    let [b'"', .., b'"'] = tag else { return None };
    let end = tag.iter().rposition(|b| *b == b'-')?;
    Some([&tag[..end], b"\""].concat())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn accepts(lines: &[&str]) -> Accepts {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("accept-encoding", HeaderValue::from_str(line).unwrap());
        }
        Accepts::of(&headers)
    }

    #[test]
    fn weights() {
        // RFC 9110 §12.4.2, §12.5.3: gzip, br, zstd, whether identity may be sent, whether gzip is preferred to it
        let rows: &[(&[&str], [u16; 3], bool, bool)] = &[
            (&[], [0, 0, 0], true, false),
            (&[""], [0, 0, 0], true, false),
            (&["identity"], [0, 0, 0], true, false),
            (&["gzip"], [1000, 0, 0], true, true),
            (&["GZip , br;q=0.5"], [1000, 500, 0], true, true),
            (&["x-gzip"], [1000, 0, 0], true, true),
            (&["gzip", "zstd;q=0.001"], [1000, 0, 1], true, true),
            (&["gzip, deflate, br, zstd"], [1000, 1000, 1000], true, true),
            (&["gzip;q=0"], [0, 0, 0], true, false),
            (&["gzip;q=0.000, *"], [0, 1000, 1000], true, false),
            (&["*"], [1000, 1000, 1000], true, true),
            (&["*;q=0"], [0, 0, 0], false, false),
            (&["gzip, *;q=0"], [1000, 0, 0], false, true),
            (&["identity;q=0, gzip;q=0.1"], [100, 0, 0], false, true),
            (&["identity;q=0"], [0, 0, 0], false, false),
            (&["identity, gzip;q=0.9"], [900, 0, 0], true, false),
            (&["identity;q=0.9, gzip;q=0.9"], [900, 0, 0], true, true),
            (&["identity;q=0.5, gzip"], [1000, 0, 0], true, true),
            (&["*;q=0.5, gzip;q=0.2"], [200, 500, 500], true, false),
            (&["*;q=0, identity;q=0.5"], [0, 0, 0], true, false),
            // Junk accepts nothing, and rules nothing out.
            (&["gzip;q=high"], [0, 0, 0], true, false),
            (&["gzip;q=1.0001"], [0, 0, 0], true, false),
            (&["gzip;level=9"], [0, 0, 0], true, false),
            (&["gzip;q=5, *"], [0, 1000, 1000], true, false),
            (&["identity;q=x"], [0, 0, 0], true, false),
            (&["gzip, gzip;q=0"], [0, 0, 0], true, false),
            (&["gzip;q=0.2, gzip;q=0.1"], [100, 0, 0], true, true),
            (&["gzipped, notgzip, gzi"], [0, 0, 0], true, false),
            (&["\"gzip, br"], [0, 0, 0], true, false),
            (&["deflate, compress"], [0, 0, 0], true, false),
        ];
        for (lines, weights, identity, gzip) in rows {
            let accepts = accepts(lines);
            assert_eq!(Coding::ALL.map(|coding| accepts.weight(coding)), *weights, "{lines:?}");
            assert_eq!((accepts.identity(), accepts.prefers(Coding::Gzip)), (*identity, *gzip), "{lines:?}");
        }
    }

    #[test]
    fn tags() {
        // RFC 9110 §8.8.3
        let rows: &[(&str, Option<&str>)] = &[
            ("\"a\"", Some("\"a-gzip\"")),
            ("\"\"", Some("\"-gzip\"")),
            ("\"a-gzip\"", Some("\"a-gzip-gzip\"")),
            ("W/\"a\"", None),
            ("a", None),
            ("\"", None),
            ("\"a", None),
            ("", None),
        ];
        for (plain, coded) in rows {
            let made = coded_tag(plain.as_bytes(), "gzip");
            assert_eq!(made.as_deref(), coded.map(str::as_bytes), "{plain}");
            let back = made.as_deref().and_then(plain_tag);
            assert_eq!(back.as_deref(), coded.map(|_| plain.as_bytes()), "{plain}");
        }
    }

    proptest! {
        /// Whatever is said: weights are weights, what is preferred is accepted, and the order of members means nothing.
        #[test]
        fn any_list(mut list in prop::collection::vec("(gzip|br|zstd|identity|\\*|x)(;q=(0|1|0\\.[0-9]{1,4}|2|))?", 0..6)) {
            let one = accepts(&[&list.join(", ")]);
            for coding in Coding::ALL {
                prop_assert!(one.weight(coding) <= 1000);
                prop_assert!(!one.prefers(coding) || one.weight(coding) > 0);
            }
            let lines: Vec<&str> = list.iter().map(String::as_str).collect();
            prop_assert_eq!(one, accepts(&lines));
            list.reverse();
            let turned = accepts(&[&list.join(",")]);
            prop_assert_eq!(one.codings, turned.codings);
            prop_assert_eq!(one.identity(), turned.identity());
        }

        #[test]
        fn any_tag(opaque in "[!#-~]{0,20}", suffix in "gzip|br|zstd|gzip9") {
            let tag = format!("\"{opaque}\"");
            let coded = coded_tag(tag.as_bytes(), &suffix).unwrap();
            prop_assert_ne!(&coded, tag.as_bytes());
            prop_assert_eq!(plain_tag(&coded).unwrap(), tag.as_bytes());
        }
    }
}
