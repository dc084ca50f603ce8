//! Two requests and the response to the first: mostly ordinary, each with one or two oddities.

use std::time::{Duration, UNIX_EPOCH};

use larder::rfc9111::date;
use proptest::prelude::*;

use crate::START;

type Fields = Vec<(&'static str, &'static str)>;

/// A story: a request, its response, some time, and another request for the same.
#[derive(Clone, Debug)]
pub struct Case {
    pub first_method: &'static str,
    pub first: Fields,
    pub status: u16,
    pub response: Vec<(&'static str, String)>,
    pub resident: u64,
    pub second_method: &'static str,
    pub second: Fields,
}

impl Case {
    /// The values of a response field, joined and as they are.
    pub fn said(&self, name: &str) -> String {
        let lines = self.response.iter().filter(|(field, _)| *field == name).map(|(_, value)| value.as_str());
        lines.collect::<Vec<_>>().join(", ")
    }

    /// Whether the response has that field.
    pub fn has(&self, name: &str) -> bool {
        self.response.iter().any(|(field, _)| *field == name)
    }

    /// How many lines of it.
    pub fn count(&self, name: &str) -> usize {
        self.response.iter().filter(|(field, _)| *field == name).count()
    }

    /// The members of `Cache-Control`, in lower case, cut at commas outside of quotes.
    pub fn directives(&self) -> Vec<String> {
        members(&self.said("cache-control")).iter().map(|member| member.to_ascii_lowercase()).collect()
    }

    /// Whether the response has this directive, whatever its value.
    pub fn says(&self, directive: &str) -> bool {
        self.directives().iter().any(|member| name(member) == directive)
    }

    /// What the second request's `Cache-Control` has.
    pub fn asked(&self) -> Vec<String> {
        let lines = self.second.iter().filter(|(field, _)| *field == "cache-control").map(|(_, value)| *value);
        members(&lines.collect::<Vec<_>>().join(", ")).iter().map(|member| member.to_ascii_lowercase()).collect()
    }

    /// Whether the second request has this directive.
    pub fn asks(&self, directive: &str) -> bool {
        self.asked().iter().any(|member| name(member) == directive)
    }
}

pub fn name(member: &str) -> &str {
    member.split('=').next().unwrap_or_default().trim()
}

/// Members of a list, with commas in quotes left alone.
pub fn members(list: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    let mut quoted = false;
    for character in list.chars() {
        quoted ^= character == '"';
        match character {
            ',' if !quoted => found.push(String::new()),
            other => found.last_mut().expect("never empty").push(other),
        }
    }
    found.iter().map(|member| member.trim().to_owned()).filter(|member| !member.is_empty()).collect()
}

/// A date so many seconds after the start, or before it, as IMF-fixdate.
fn at(offset: i64) -> String {
    let seconds = START.saturating_add_signed(offset);
    date::format(UNIX_EPOCH + Duration::from_secs(seconds)).to_str().expect("dates are text").to_owned()
}

/// The same as the other two forms, and as mail writes it.
fn odd_date(offset: i64, form: u8) -> String {
    let imf = at(offset);
    let (day, month, year, time) = (&imf[5..7], &imf[8..11], &imf[12..16], &imf[17..25]);
    match form {
        0 => format!("{}day, {day}-{month}-{} {time} GMT", &imf[..3], &year[2..]).replace("Thuday", "Thursday"),
        1 => format!("{} {month} {:>2} {time} {year}", &imf[..3], day.trim_start_matches('0')),
        2 => imf.replace("GMT", "+0000"),
        3 => "0".into(),
        _ => "junk".into(),
    }
}

fn directive() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        12 => prop::sample::select(vec!["max-age=60", "max-age=10", "max-age=0", "max-age=1000", "s-maxage=30", "s-maxage=0", "public"]),
        6 => prop::sample::select(vec![
            "private", "no-store", "no-cache", "must-revalidate", "proxy-revalidate", "no-transform", "immutable", "immutable", "immutable", "must-understand",
            "stale-while-revalidate=50", "stale-if-error=50",
        ]),
        2 => prop::sample::select(vec![
            "Max-Age=60", "NO-STORE", "Private", "max-age=\"60\"", "s-maxage=\"30\"", "private=\"x-a\"", "no-cache=\"x-a, x-b\"",
            "ext=\"a, private, b\"", "ext=\"a, max-age=5, b\"", "ext", "ext=1", "max-age", "max-age=-1", "max-age=1.5", "max-age=x", "max-age=",
            "s-maxage=x", "max-age=99999999999999999999", "max-age=9223372036854775808", "max-age =60", "max-age= 60",
        ]),
    ]
}

fn request_directive() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        6 => prop::sample::select(vec!["max-age=20", "max-age=0", "max-age=0", "min-fresh=20", "max-stale", "max-stale=20", "max-stale=1", "no-cache", "only-if-cached"]),
        1 => prop::sample::select(vec!["no-store", "max-age=x", "min-fresh=x", "max-stale=x", "Max-Age=5", "NO-CACHE", "ext", "max-age=20, max-age=30"]),
    ]
}

/// The list without directives that were there already.
fn once_each(list: &[&'static str]) -> Vec<&'static str> {
    let mut kept: Vec<&str> = Vec::new();
    for member in list {
        if kept.iter().all(|other| !name(other).eq_ignore_ascii_case(name(member))) {
            kept.push(member);
        }
    }
    kept
}

/// Offsets in whole tens, so that a tenth of them is whole.
fn offset() -> impl Strategy<Value = i64> {
    prop::sample::select(vec![-2_000_000, -10_000, -600, -100, -30, -10, 0, 10, 30, 60, 600])
}

fn response_fields() -> impl Strategy<Value = Vec<(&'static str, String)>> {
    let some = |weight: f64, name: &'static str, value: BoxedStrategy<String>| {
        prop::option::weighted(weight, value).prop_map(move |value| value.map(|value| (name, value)))
    };
    let plain = |values: Vec<&'static str>| prop::sample::select(values).prop_map(str::to_owned).boxed();
    let directives = |most| {
        let list = (prop::collection::vec(directive(), 1..most), prop::bool::weighted(0.1));
        list.prop_map(|(list, repeats)| if repeats { list.join(", ") } else { once_each(&list).join(", ") }).boxed()
    };
    let dates = || {
        prop_oneof![5 => offset().prop_map(at), 1 => (offset(), 0u8..5).prop_map(|(o, form)| odd_date(o, form))].boxed()
    };
    let etag = || plain(vec!["\"a\"", "W/\"a\""]);
    let vary = || {
        plain(vec![
            "x-a",
            "X-A",
            "accept",
            "accept",
            "accept, x-a",
            "*",
            "x-a, *",
            "cookie",
            "authorization",
            "",
            "bad name",
        ])
    };
    (
        (some(0.85, "cache-control", directives(4)), some(0.04, "cache-control", directives(2))),
        (some(0.25, "expires", dates()), some(0.05, "expires", dates())),
        (some(0.3, "date", dates()), some(0.2, "last-modified", dates())),
        (
            some(0.1, "age", plain(vec!["0", "5", "40", "4,0", "0, 5", "x", "-1", ""])),
            some(0.02, "age", plain(vec!["5"])),
        ),
        (some(0.3, "etag", etag()), some(0.2, "vary", vary()), some(0.05, "set-cookie", plain(vec!["a=b"]))),
        some(0.03, "pragma", plain(vec!["no-cache"])),
    )
        .prop_map(|((a, b), (c, d), (e, f), (g, h), (i, j, k), l)| {
            [a, b, c, d, e, f, g, h, i, j, k, l].into_iter().flatten().collect()
        })
}

fn request_fields(directives: f64) -> impl Strategy<Value = Fields> {
    let some = |weight: f64, name: &'static str, values: Vec<&'static str>| {
        prop::option::weighted(weight, prop::sample::select(values))
            .prop_map(move |value| value.map(|value| (name, value)))
    };
    (
        prop::option::weighted(directives, request_directive())
            .prop_map(|value| value.map(|value| ("cache-control", value))),
        some(0.08, "authorization", vec!["x"]),
        some(0.05, "cookie", vec!["a=1"]),
        some(0.15, "x-a", vec!["1", "2", "1, 2"]),
        some(0.5, "accept", vec!["a/b, c/d", "A/b,c/d", "c/d, a/b"]),
        some(0.03, "pragma", vec!["no-cache"]),
    )
        .prop_map(|(a, b, c, d, e, f)| [a, b, c, d, e, f].into_iter().flatten().collect())
}

fn status() -> impl Strategy<Value = u16> {
    let odd = vec![
        201, 203, 204, 206, 299, 300, 301, 302, 304, 307, 308, 400, 401, 403, 404, 405, 410, 414, 416, 429, 500, 501,
        503, 599,
    ];
    prop_oneof![4 => Just(200u16), 1 => prop::sample::select(odd)]
}

/// Stories with the same second request as the first, for the most part.
pub fn case() -> impl Strategy<Value = Case> {
    let method = |others: Vec<&'static str>| prop_oneof![15 => Just("GET"), 1 => prop::sample::select(others)];
    let second = prop::option::weighted(0.4, request_fields(0.7));
    let resident = prop::sample::select(vec![0u64, 1, 5, 9, 10, 20, 29, 30, 31, 59, 60, 61, 90, 110, 1000, 100_000]);
    let parts = (
        (method(vec!["HEAD", "POST"]), request_fields(0.05), status(), response_fields()),
        (resident, method(vec!["HEAD"]), second),
    );
    parts.prop_map(|((first_method, first, status, response), (resident, second_method, second))| Case {
        first_method,
        // What the first request says to caches is rarely said again.
        second: second.unwrap_or_else(|| first.iter().filter(|(name, _)| *name != "cache-control").copied().collect()),
        first,
        status,
        response,
        resident,
        second_method,
    })
}
