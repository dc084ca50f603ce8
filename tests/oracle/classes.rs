//! Why larder and the oracle disagree, where they do.

use larder::{DeclineReason, StaleReason};

use crate::Difference::{self, *};
use crate::cases::{members, name};
use crate::{Compared, Profile};

/// Who follows the RFC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// The oracle follows RFC 7234 or is less exact.
    Larder,
    /// Both do: the RFC leaves the choice.
    Both,
    /// The oracle, and so would larder with `strict_rfc`; the default is stricter on purpose.
    SafeDefault,
}

/// A reason to disagree.
pub struct Class {
    pub name: &'static str,
    pub section: &'static str,
    pub right: Right,
    pub differences: &'static [Difference],
    pub explains: fn(&Compared) -> bool,
}

const STORED_BY_ORACLE: &[Difference] = &[OnlyOracleStores];
const FIGURES_AND_STORING: &[Difference] = &[OnlyOracleStores, OnlyLarderReuses, OnlyOracleReuses, Age, Lifetime];
const FIGURES: &[Difference] = &[OnlyLarderReuses, OnlyOracleReuses, Age, Lifetime];
const ANY: &[Difference] = &[OnlyLarderStores, OnlyOracleStores, OnlyLarderReuses, OnlyOracleReuses, Age, Lifetime];

/// Statuses that the oracle stores.
const KNOWN_TO_THE_ORACLE: [u16; 14] = [200, 203, 204, 300, 301, 302, 303, 307, 308, 404, 405, 410, 414, 501];

pub const CLASSES: &[Class] = &[
    // What is read otherwise.
    Class {
        name: "names of directives have no case",
        section: "RFC 9111 §5.2",
        right: Right::Larder,
        differences: ANY,
        explains: |c| {
            let written = [c.case.said("cache-control"), asked(c)].map(|said| members(&said)).concat();
            written.iter().any(|member| name(member).chars().any(char::is_uppercase))
        },
    },
    Class {
        name: "a comma in quotes separates nothing",
        section: "RFC 9110 §5.6.4",
        right: Right::Larder,
        differences: ANY,
        explains: |c| c.case.directives().iter().any(|member| member.contains('"') && member.contains(',')),
    },
    Class {
        name: "a number too large is very large, and not an error",
        section: "RFC 9111 §1.2.2",
        right: Right::Larder,
        differences: &[OnlyLarderStores, OnlyOracleStores, OnlyLarderReuses],
        explains: |c| c.case.says("max-age") && c.case.said("cache-control").contains("99999999999999999999"),
    },
    Class {
        name: "a directive that comes twice: the shortest, or the first and then validation",
        section: "RFC 9111 §4.2.1",
        right: Right::Both,
        differences: ANY,
        explains: |c| repeats(&c.case.directives()) || repeats(&c.case.asked()),
    },
    Class {
        name: "a lifetime without a number is none that could be trusted, and not none at all",
        section: "RFC 9111 §4.2.1",
        right: Right::Larder,
        differences: &[OnlyOracleStores, OnlyOracleReuses],
        explains: |c| c.case.directives().iter().any(|member| member == "max-age" || member == "s-maxage"),
    },
    Class {
        name: "white space around the sign makes junk, which is read strictly",
        section: "RFC 9111 §5.2",
        right: Right::Both,
        differences: &[OnlyOracleStores, OnlyOracleReuses, Lifetime],
        explains: |c| c.case.directives().iter().any(|member| member.contains(" =") || member.contains("= ")),
    },
    Class {
        name: "dates have three forms, and no others",
        section: "RFC 9110 §5.6.7",
        right: Right::Larder,
        differences: ANY,
        explains: |c| ["expires", "date", "last-modified"].iter().any(|field| has_odd_date(c, field)),
    },
    Class {
        name: "an Expires that comes twice is in the past",
        section: "RFC 9111 §5.3",
        right: Right::Both,
        differences: &[OnlyOracleStores, OnlyOracleReuses],
        explains: |c| c.case.count("expires") > 1,
    },
    Class {
        name: "an Age that can't be trusted makes stale; of a list the first counts",
        section: "RFC 9111 §5.1",
        right: Right::Larder,
        differences: FIGURES_AND_STORING,
        explains: |c| c.case.count("age") > 1 || c.case.has("age") && c.case.said("age").parse::<u64>().is_err(),
    },
    Class {
        name: "Pragma is the request's, and only where it has no Cache-Control",
        section: "RFC 9111 §5.4",
        right: Right::Larder,
        differences: &[OnlyLarderReuses, OnlyLarderStores],
        explains: |c| c.case.has("pragma") || has_asked(c, "pragma") && has_asked(c, "cache-control"),
    },
    // What may be stored.
    Class {
        name: "answers to HEAD and POST may be stored, and need not",
        section: "RFC 9111 §3",
        right: Right::Both,
        differences: STORED_BY_ORACLE,
        explains: |c| c.case.first_method != "GET",
    },
    Class {
        name: "who wants an answer from the store or none isn't given another",
        section: "RFC 9111 §5.2.1.7",
        right: Right::Larder,
        differences: STORED_BY_ORACLE,
        explains: |c| c.larder.reason.is_none() && c.case.first.contains(&("cache-control", "only-if-cached")),
    },
    Class {
        name: "any final status may be stored that has explicit freshness",
        section: "RFC 9111 §3",
        right: Right::Larder,
        differences: &[OnlyLarderStores],
        explains: |c| !KNOWN_TO_THE_ORACLE.contains(&c.case.status) && !matches!(c.case.status, 206 | 304 | 416),
    },
    Class {
        name: "errors that a request may have provoked are not stored",
        section: "RFC 9111 §3",
        right: Right::SafeDefault,
        differences: STORED_BY_ORACLE,
        explains: |c| by_default(c, DeclineReason::ErrorStatus) && matches!(c.case.status, 414 | 501),
    },
    Class {
        name: "must-understand lifts no-store where the status is understood",
        section: "RFC 9111 §5.2.2.3",
        right: Right::Larder,
        differences: &[OnlyLarderStores],
        explains: |c| c.profile == Profile::Letter && c.case.says("must-understand") && c.case.says("no-store"),
    },
    Class {
        name: "cookies keep a response out of the store",
        section: "RFC 9111 §7.3",
        right: Right::SafeDefault,
        differences: STORED_BY_ORACLE,
        explains: |c| by_default(c, DeclineReason::SetCookie) && c.case.has("set-cookie"),
    },
    Class {
        name: "cookies don't make a response stale",
        section: "RFC 9111 §7.3",
        right: Right::Larder,
        differences: &[OnlyLarderReuses, Lifetime],
        explains: |c| c.profile == Profile::Letter && c.case.has("set-cookie"),
    },
    Class {
        name: "what varies by credentials is for one user",
        section: "RFC 9111 §4.1",
        right: Right::SafeDefault,
        differences: STORED_BY_ORACLE,
        explains: |c| {
            let vary = c.case.said("vary");
            by_default(c, DeclineReason::VaryCredentials) && (vary.contains("cookie") || vary.contains("authorization"))
        },
    },
    Class {
        name: "what varies by anything is never used, so it needn't be stored",
        section: "RFC 9111 §4.1",
        right: Right::Both,
        differences: STORED_BY_ORACLE,
        explains: |c| {
            let star = c.case.said("vary").contains('*');
            c.larder.reason == Some(DeclineReason::VaryStar) && star && c.oracle.reuses.is_none()
        },
    },
    Class {
        name: "a Vary that is malformed might have been anything",
        section: "RFC 9111 §4.1",
        right: Right::Both,
        differences: STORED_BY_ORACLE,
        explains: |c| c.larder.reason == Some(DeclineReason::VaryStar) && c.case.said("vary").contains(' '),
    },
    Class {
        name: "no lifetime is guessed",
        section: "RFC 9111 §4.2.2",
        right: Right::SafeDefault,
        differences: STORED_BY_ORACLE,
        explains: |c| by_default(c, DeclineReason::NoFreshness) && c.case.has("last-modified") && !is_stated(c),
    },
    Class {
        name: "immutable gives no lifetime",
        section: "RFC 8246 §2",
        right: Right::Larder,
        differences: &[OnlyOracleStores, OnlyOracleReuses, Lifetime],
        explains: |c| c.case.says("immutable") && !c.case.says("max-age") && !c.case.says("s-maxage"),
    },
    Class {
        name: "what can't be used again needn't be stored",
        section: "RFC 9111 §3",
        right: Right::Both,
        differences: STORED_BY_ORACLE,
        explains: |c| is_useless(c) && c.oracle.reuses.is_none(),
    },
    Class {
        name: "nor what only a request that takes stale answers could use",
        section: "RFC 9111 §3",
        right: Right::Both,
        differences: STORED_BY_ORACLE,
        explains: |c| is_useless(c) && c.case.asks("max-stale"),
    },
    // What may be used, and for how long.
    Class {
        name: "a Date in the past is an age",
        section: "RFC 9111 §4.2.3",
        right: Right::Larder,
        differences: &[OnlyOracleStores, OnlyOracleReuses, OnlyLarderReuses, Age],
        explains: |c| c.case.has("date"),
    },
    Class {
        name: "no-cache forbids use without validation, whatever the request takes",
        section: "RFC 9111 §5.2.2.4",
        right: Right::Larder,
        differences: &[OnlyOracleReuses],
        explains: |c| c.case.says("no-cache") && c.case.asks("max-stale"),
    },
    Class {
        name: "s-maxage and proxy-revalidate forbid stale answers",
        section: "RFC 9111 §5.2.2.8, §5.2.2.10",
        right: Right::Larder,
        differences: &[OnlyOracleReuses],
        explains: |c| (c.case.says("s-maxage") || c.case.says("proxy-revalidate")) && c.case.asks("max-stale"),
    },
    Class {
        name: "proxy-revalidate doesn't make stale",
        section: "RFC 9111 §5.2.2.8",
        right: Right::Larder,
        differences: &[OnlyLarderReuses, Lifetime],
        explains: |c| c.case.says("proxy-revalidate"),
    },
    Class {
        name: "stale-while-revalidate",
        section: "RFC 5861 §3",
        right: Right::Larder,
        differences: &[OnlyLarderReuses],
        explains: |c| c.case.says("stale-while-revalidate") && c.larder.stale == Some(StaleReason::WhileRevalidate),
    },
    Class {
        name: "stale by no more than max-stale includes the last second",
        section: "RFC 9111 §5.2.1.2",
        right: Right::Larder,
        differences: &[OnlyLarderReuses],
        explains: |c| c.larder.stale == Some(StaleReason::MaxStale) && c.case.asks("max-stale"),
    },
    Class {
        name: "a number in a request that can't be read is the strictest",
        section: "RFC 9111 §5.2.1",
        right: Right::Both,
        differences: &[OnlyOracleReuses],
        explains: |c| c.case.asked().iter().any(|member| member.ends_with("=x")),
    },
    Class {
        name: "max-age=0 in a request asks for validation, at any age",
        section: "RFC 9111 §5.2.1.1",
        right: Right::Both,
        differences: &[OnlyOracleReuses],
        explains: |c| c.case.asked().contains(&"max-age=0".into()) && c.oracle.reuses.is_some_and(|(age, _)| age == 0),
    },
    Class {
        name: "a reload spares what is immutable",
        section: "RFC 8246 §2",
        right: Right::Larder,
        differences: &[OnlyLarderReuses],
        explains: |c| c.case.says("immutable") && c.case.asks("max-age"),
    },
    Class {
        name: "a HEAD is answered from a stored GET",
        section: "RFC 9110 §9.3.2",
        right: Right::Larder,
        differences: &[OnlyLarderReuses],
        explains: |c| c.case.second_method == "HEAD",
    },
    Class {
        name: "a request with credentials gets only what says that it is for everybody",
        section: "RFC 9111 §3.5",
        right: Right::SafeDefault,
        differences: &[OnlyOracleReuses],
        explains: |c| c.profile == Profile::Default && has_asked(c, "authorization"),
    },
    Class {
        name: "values of nominated fields are compared by their meaning",
        section: "RFC 9111 §4.1",
        right: Right::Larder,
        differences: &[OnlyLarderReuses],
        explains: |c| c.case.said("vary").to_ascii_lowercase().contains("accept") && has_asked(c, "accept"),
    },
    Class {
        name: "a guess is a day at most",
        section: "RFC 9111 §4.2.2",
        right: Right::Both,
        differences: FIGURES,
        explains: |c| c.profile == Profile::Letter && c.case.has("last-modified") && !is_stated(c),
    },
];

fn asked(c: &Compared) -> String {
    let lines = c.case.first.iter().chain(&c.case.second).filter(|(field, _)| *field == "cache-control");
    lines.map(|(_, value)| *value).collect::<Vec<_>>().join(", ")
}

fn has_asked(c: &Compared, field: &str) -> bool {
    c.case.second.iter().any(|(name, _)| *name == field)
}

fn repeats(directives: &[String]) -> bool {
    directives
        .iter()
        .enumerate()
        .any(|(n, one)| directives[n + 1..].iter().any(|other| name(one) == name(other) && one != other))
}

fn by_default(c: &Compared, reason: DeclineReason) -> bool {
    c.profile == Profile::Default && c.larder.reason == Some(reason)
}

/// Whether the response says how long it is fresh.
fn is_stated(c: &Compared) -> bool {
    c.case.says("max-age") || c.case.says("s-maxage") || c.case.has("expires")
}

fn is_useless(c: &Compared) -> bool {
    matches!(
        c.larder.reason,
        Some(DeclineReason::NoFreshness | DeclineReason::AlreadyStale | DeclineReason::ErrorStatus)
    )
}

/// Whether a date is written otherwise than as IMF-fixdate, or not at all.
fn has_odd_date(c: &Compared, field: &str) -> bool {
    let mut lines = c.case.response.iter().filter(|(name, _)| *name == field);
    lines.any(|(_, value)| !(value.len() == 29 && value.ends_with("GMT")))
}
