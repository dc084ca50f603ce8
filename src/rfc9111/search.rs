//! `No-Vary-Search` (draft-ietf-httpbis-no-vary-search): which differences between queries mean nothing to a response.

use std::fmt;

use http::{HeaderMap, HeaderName};

use super::structured::{self, Item};

/// The field's name.
pub const NO_VARY_SEARCH: HeaderName = HeaderName::from_static("no-vary-search");

/// A field that names more parameters than this, or longer ones in all, is as good as absent: what is learned from it must have a bound.
const MOST_NAMES: usize = 64;
const LONGEST_NAMES: usize = 4 << 10;

/// How a response varies on the query of its URI (§4: "URL search variance"), where that isn't the default: on all of it, byte by byte.
///
/// ```
/// use larder::rfc9111::search::{NO_VARY_SEARCH, SearchVariance};
/// let mut headers = http::HeaderMap::new();
/// headers.insert(NO_VARY_SEARCH, r#"key-order, params=("utm_source")"#.parse().unwrap());
/// let variance = SearchVariance::of(&headers).expect("a valid field");
/// let same = |one, other| variance.canonical(one) == variance.canonical(other);
/// assert!(same(Some("a=1&b=2&utm_source=x"), Some("b=2&a=1")));
/// assert!(!same(Some("a=1"), Some("a=2")));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchVariance {
    /// Whether parameters in another order make another URI.
    varies_on_order: bool,
    params: Params,
}

/// Which parameters matter; their names decoded, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Params {
    AllBut(Vec<String>),
    Only(Vec<String>),
}

impl SearchVariance {
    /// What a response says (§5.2). `None` for the default, which is also what anything malformed comes to (§5.1).
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        // The common case first: no allocation where the field is absent.
        headers.get(NO_VARY_SEARCH)?;
        let text = structured::joined(headers, &NO_VARY_SEARCH);
        let (mut order, mut params, mut except) = (None, None, None);
        for (key, value) in structured::dictionary(&text)? {
            // Of a key that comes twice, the last counts (RFC 9651 §3.2); of unknown ones, none.
            match key {
                b"key-order" => order = Some(value),
                b"params" => params = Some(value),
                b"except" => except = Some(value),
                _ => {}
            }
        }
        let varies_on_order = match order {
            None => true,
            Some(Item::Boolean(ignored)) => !ignored,
            Some(_) => return None,
        };
        let all = params == Some(Item::Boolean(true));
        let params = match (params, except) {
            (_, Some(except)) if all => Params::Only(names(except)?),
            (_, Some(_)) => return None,
            (_, None) if all => Params::Only(Vec::new()),
            (None | Some(Item::Boolean(_)), None) => Params::AllBut(Vec::new()),
            (Some(list), None) => Params::AllBut(names(list)?),
        };
        let said = Self { varies_on_order, params };
        (said != Self { varies_on_order: true, params: Params::AllBut(Vec::new()) }).then_some(said)
    }

    /// What is left of a query: two URIs with the same path are equivalent (§6) if and only if this is equal.
    pub fn canonical(&self, query: Option<&str>) -> Vec<u8> {
        let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let decoded = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        });
        let mut pairs: Vec<(String, String)> = decoded.filter(|(name, _)| self.matters(name)).collect();
        if !self.varies_on_order {
            // Stable: the order of values under one name goes on to matter.
            pairs.sort_by(|one, other| one.0.cmp(&other.0));
        }
        let mut bytes = Vec::new();
        pairs.iter().for_each(|(name, value)| [name, value].into_iter().for_each(|text| append(&mut bytes, text)));
        bytes
    }

    /// Equal for equal variances, and for no others.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (kind, names) = match &self.params {
            Params::AllBut(names) => (0, names),
            Params::Only(names) => (1, names),
        };
        let mut bytes = vec![u8::from(self.varies_on_order), kind];
        names.iter().for_each(|name| append(&mut bytes, name));
        bytes
    }

    fn matters(&self, name: &str) -> bool {
        let listed = |names: &[String]| names.binary_search_by(|listed| listed.as_str().cmp(name)).is_ok();
        match &self.params {
            Params::AllBut(names) => !listed(names),
            Params::Only(names) => listed(names),
        }
    }
}

impl fmt::Display for SearchVariance {
    /// As a field would say it; names are shown decoded.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listed = |names: &[String]| names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(" ");
        let params = match &self.params {
            Params::AllBut(names) if names.is_empty() => None,
            Params::AllBut(names) => Some(format!("params=({})", listed(names))),
            Params::Only(names) if names.is_empty() => Some("params".to_owned()),
            Params::Only(names) => Some(format!("params, except=({})", listed(names))),
        };
        let order = (!self.varies_on_order).then(|| "key-order".to_owned());
        f.write_str(&order.into_iter().chain(params).collect::<Vec<_>>().join(", "))
    }
}

/// The Strings of an inner list, each decoded as a name in a query is (§5.3).
fn names(list: Item<'_>) -> Option<Vec<String>> {
    let Item::InnerList(items) = list else { return None };
    let name = |item: Item<'_>| match item {
        Item::String(text) => Some(decode(&text)),
        _ => None,
    };
    let mut names = items.into_iter().map(name).collect::<Option<Vec<_>>>()?;
    names.sort_unstable();
    names.dedup();
    let length: usize = names.iter().map(String::len).sum();
    (names.len() <= MOST_NAMES && length <= LONGEST_NAMES).then_some(names)
}

/// Decodes a name or a value as the parser of `application/x-www-form-urlencoded` does: `+` is a space, `%41` is an A, and what isn't UTF-8 is U+FFFD.
fn decode(text: &str) -> String {
    if !text.contains(['+', '%']) {
        return text.to_owned();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, others @ ..] = rest {
        let digit = |at: usize| others.get(at).and_then(|b| char::from(*b).to_digit(16));
        let encoded = digit(0).zip(digit(1)).filter(|_| *first == b'%');
        bytes.push(match (encoded, first) {
            (Some((high, low)), _) => (high * 16 + low) as u8,
            (None, b'+') => b' ',
            (None, other) => *other,
        });
        rest = if encoded.is_some() { &others[2..] } else { others };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Adds a text with its length, so that no two lists of texts give the same bytes.
fn append(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn variance(line: &str) -> Option<SearchVariance> {
        let mut headers = HeaderMap::new();
        headers.insert(NO_VARY_SEARCH, HeaderValue::from_str(line).unwrap());
        SearchVariance::of(&headers)
    }

    #[test]
    fn what_a_field_says() {
        // §5.2.1: the examples, and some more.
        let list = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        let said = |varies_on_order, params| Some(SearchVariance { varies_on_order, params });
        let rows = [
            ("params", said(true, Params::Only(vec![]))),
            ("params=?1", said(true, Params::Only(vec![]))),
            (r#"params=("a")"#, said(true, Params::AllBut(list(&["a"])))),
            (r#"params=("b" "a" "b")"#, said(true, Params::AllBut(list(&["a", "b"])))),
            (r#"params, except=("x")"#, said(true, Params::Only(list(&["x"])))),
            ("params, except=()", said(true, Params::Only(vec![]))),
            ("key-order", said(false, Params::AllBut(vec![]))),
            (r#"params, key-order, except=("x")"#, said(false, Params::Only(list(&["x"])))),
            (r#"params=("%C3%A9+%E6%B0%97")"#, said(true, Params::AllBut(list(&["\u{e9} \u{6c17}"])))),
            ("key-order, future=(1 2);x", said(false, Params::AllBut(vec![]))),
            ("key-order;x=1", said(false, Params::AllBut(vec![]))),
            (r#"params="x", params"#, said(true, Params::Only(vec![]))),
        ];
        for (line, expected) in rows {
            assert_eq!(variance(line), expected, "{line}");
        }
    }

    #[test]
    fn the_default_and_what_comes_to_it() {
        let rows = [
            "unknown-key",
            r#"key-order="not a boolean""#,
            r#"params="not a boolean or inner list""#,
            "params=(not-a-string)",
            r#"params=("a"), except=("x")"#,
            "params=(), except=()",
            r#"params=?0, except=("x")"#,
            "params, except=(not-a-string)",
            r#"params, except="not an inner list""#,
            "params, except=?1",
            r#"except=("x")"#,
            "except=()",
            "params=?0",
            "params=()",
            "key-order=?0",
            "key-order=?0, params=?0",
            "params,",
            "params params",
            "Params",
            "params=(\"a\"",
            "",
        ];
        for line in rows {
            assert_eq!(variance(line), None, "{line}");
        }
        let many: Vec<String> = (0..65).map(|n| format!("\"{n}\"")).collect();
        assert_eq!(variance(&format!("params=({})", many.join(" "))), None, "too many");
        assert!(variance(&format!("params=({})", many[1..].join(" "))).is_some());
        assert_eq!(variance(&format!("params=(\"{}\")", "a".repeat(5000))), None, "too long");
    }

    #[test]
    fn which_queries_are_the_same() {
        // §6, §6.1
        let rows = [
            ("key-order", "a=1&b=2", "b=2&a=1", true),
            ("key-order", "a=1&a=2", "a=2&a=1", false),
            ("key-order", "a=x", "%61=%78", true),
            ("key-order", "a=%f6", "a=%ef%bf%bd", true),
            ("key-order", "a=x&&&&", "a=x", true),
            ("key-order", "a=", "a", true),
            ("key-order", "a=%20", "a=+", true),
            ("key-order", "a=%2B", "a=+", false),
            ("key-order", "a=%2", "a=%252", true),
            ("key-order", "", "a", false),
            ("key-order", "a=b=c", "a=b%3Dc", true),
            ("key-order", "a=1%26b=2", "a=1&b=2", false),
            ("params", "a=1&b", "", true),
            (r#"params=("a")"#, "a=1&b=2", "b=2&a=3&a", true),
            (r#"params=("a")"#, "a=1&b=2", "b=3", false),
            (r#"params=("a")"#, "b=1&c=2", "c=2&b=1", false),
            (r#"params=("a")"#, "%61=1&b", "b=", true),
            (r#"params, except=("x")"#, "x=1&y=2", "z&x=1", true),
            (r#"params, except=("x")"#, "x=1", "x=2", false),
            (r#"params, except=("x")"#, "X=1", "", true),
        ];
        for (line, one, other, same) in rows {
            let variance = variance(line).unwrap();
            assert_eq!(
                variance.canonical(Some(one)) == variance.canonical(Some(other)),
                same,
                "{line}: {one}, {other}"
            );
        }
        assert_eq!(variance("key-order").unwrap().canonical(None), variance("key-order").unwrap().canonical(Some("")));
    }

    proptest! {
        #[test]
        fn what_matters_is_never_conflated(
            one in proptest::collection::vec(("[ab]{0,2}", "[ab=+%]{0,2}"), 0..4),
            other in proptest::collection::vec(("[ab]{0,2}", "[ab=+%]{0,2}"), 0..4),
        ) {
            let query = |pairs: &[(String, String)]| {
                let encoded = |text: &str| text.replace('%', "%25").replace('=', "%3D").replace('+', "%2B");
                pairs.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect::<Vec<_>>().join("&")
            };
            let sorted = |pairs: &[(String, String)]| {
                let mut pairs = pairs.to_vec();
                pairs.sort_by(|one, other| one.0.cmp(&other.0));
                pairs
            };
            let variance = variance("key-order").unwrap();
            let same = variance.canonical(Some(&query(&one))) == variance.canonical(Some(&query(&other)));
            prop_assert_eq!(same, sorted(&one) == sorted(&other));
        }
    }

    #[test]
    fn variances_have_bytes_of_their_own() {
        let lines = [
            "params",
            "key-order",
            "key-order, params",
            r#"params=("a" "b")"#,
            r#"params=("ab")"#,
            r#"params, except=("a" "b")"#,
        ];
        let all: std::collections::HashSet<_> = lines.iter().map(|line| variance(line).unwrap().to_bytes()).collect();
        assert_eq!(all.len(), lines.len());
        assert_eq!(variance(r#"params=("b" "a")"#).unwrap().to_bytes(), variance(lines[3]).unwrap().to_bytes());
    }
}
