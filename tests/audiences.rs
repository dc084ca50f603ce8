//! Who is given an answer: every audience with every kind of credentials and every kind of response, against an oracle that is written from
//! RFC 9111 and the rules of the house, not from the code. Two users ask; neither ever sees what was made for the other unless somebody
//! declared that it is for both.

mod support;

use std::time::Duration;

use larder::{Cached, Outcome, Policy, RequestHead};
use support::exchange::*;

/// For whom the rule says that the answers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    FromOrigin,
    Shared,
    SharedStripped,
    Per,
    Guarded,
    Bypass,
}

/// What the handler says by extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    None,
    Shared,
    NoStore,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Credentials {
    None,
    Authorization,
    Session,
    Analytics,
    Both,
}

/// What the response says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Nothing,
    MaxAge,
    SMaxAge,
    Public,
    MustRevalidate,
    Private,
    NoStore,
    SetCookie,
    VaryCookie,
    VaryAuthorization,
    VaryOther,
    VaryStar,
}

const RULES: [Rule; 6] = [Rule::FromOrigin, Rule::Shared, Rule::SharedStripped, Rule::Per, Rule::Guarded, Rule::Bypass];
const WORDS: [Word; 3] = [Word::None, Word::Shared, Word::NoStore];
const CREDENTIALS: [Credentials; 5] =
    [Credentials::None, Credentials::Authorization, Credentials::Session, Credentials::Analytics, Credentials::Both];
const SAID: [Said; 12] = [
    Said::Nothing,
    Said::MaxAge,
    Said::SMaxAge,
    Said::Public,
    Said::MustRevalidate,
    Said::Private,
    Said::NoStore,
    Said::SetCookie,
    Said::VaryCookie,
    Said::VaryAuthorization,
    Said::VaryOther,
    Said::VaryStar,
];

/// What becomes of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Stored, and given to everybody who asks.
    Shared,
    /// Stored, and given to the same user only.
    Own,
    /// Not stored, for this reason.
    Declined(&'static str),
    /// Neither looked up nor stored, for this reason.
    Bypassed(&'static str),
}

impl Said {
    fn fields(self) -> Vec<(&'static str, &'static str)> {
        const FRESH: (&str, &str) = ("cache-control", "max-age=50");
        match self {
            Said::Nothing => vec![],
            Said::MaxAge => vec![FRESH],
            Said::SMaxAge => vec![("cache-control", "s-maxage=50")],
            Said::Public => vec![("cache-control", "public, max-age=50")],
            Said::MustRevalidate => vec![("cache-control", "must-revalidate, max-age=50")],
            Said::Private => vec![("cache-control", "private, max-age=50")],
            Said::NoStore => vec![("cache-control", "no-store, max-age=50")],
            Said::SetCookie => vec![FRESH, ("set-cookie", "seen=1")],
            Said::VaryCookie => vec![FRESH, ("vary", "Cookie")],
            Said::VaryAuthorization => vec![FRESH, ("vary", "accept, Authorization")],
            Said::VaryOther => vec![FRESH, ("vary", "accept")],
            Said::VaryStar => vec![FRESH, ("vary", "*")],
        }
    }
}

impl Credentials {
    /// Each user's own.
    fn fields(self, user: &'static str) -> Vec<(&'static str, String)> {
        let authorization = ("authorization", format!("Bearer {user}"));
        let session = ("cookie", format!("_ga=GA1.{user}; session={user}"));
        match self {
            Credentials::None => vec![],
            Credentials::Authorization => vec![authorization],
            Credentials::Session => vec![session],
            Credentials::Analytics => {
                vec![("cookie", format!("_ga=GA1.{user}; _gid=1; __utma={user}; _hjSession_1=x"))]
            }
            Credentials::Both => vec![authorization, session],
        }
    }

    fn has_authorization(self) -> bool {
        matches!(self, Credentials::Authorization | Credentials::Both)
    }

    fn has_cookie(self) -> bool {
        matches!(self, Credentials::Session | Credentials::Analytics | Credentials::Both)
    }
}

/// The oracle.
fn fate(rule: Rule, word: Word, credentials: Credentials, said: Said) -> Fate {
    use Fate::{Bypassed, Declined, Own, Shared};
    // Who keeps out of it is heard first: on such a route nothing else counts.
    if rule == Rule::Bypass {
        return Bypassed("rule");
    }
    // Nobody vouches for who is logged in; cookies of the usual analytics are no login.
    if rule == Rule::Guarded && !matches!(credentials, Credentials::None | Credentials::Analytics) {
        return Bypassed("credentials");
    }
    // The handler can always forbid.
    if word == Word::NoStore {
        return Declined("handler");
    }
    // "no-store/private beat any TTL".
    match said {
        Said::NoStore => return Declined("no-store"),
        Said::Private => return Declined("private"),
        _ => {}
    }
    let declared = word == Word::Shared || matches!(rule, Rule::Shared | Rule::SharedStripped | Rule::Per);
    // RFC 9111 §3.5, for what nobody declared: "must-revalidate, public, and s-maxage" allow it.
    let allows = matches!(said, Said::Public | Said::SMaxAge | Said::MustRevalidate);
    if credentials.has_authorization() && !declared && !allows {
        return Declined("authorization");
    }
    // "A response with Set-Cookie is declined", whoever vouches.
    if said == Said::SetCookie {
        return Declined("set-cookie");
    }
    // RFC 9111 §4.1: "*" always fails to match.
    if said == Said::VaryStar {
        return Declined("vary-star");
    }
    // "Vary on Cookie or Authorization is declined unless" somebody declared the audience; then each value has a variant.
    let by_credentials = matches!(said, Said::VaryCookie | Said::VaryAuthorization);
    if by_credentials && !declared {
        return Declined("vary-credentials");
    }
    // Somebody must say for how long.
    if rule == Rule::FromOrigin && word == Word::None && said == Said::Nothing {
        return Declined("no-freshness");
    }
    if rule == Rule::Per {
        return Own;
    }
    let telling = match said {
        Said::VaryCookie => credentials.has_cookie(),
        Said::VaryAuthorization => credentials.has_authorization(),
        _ => false,
    };
    if telling { Own } else { Shared }
}

/// What a receiver downstream reads in `Cache-Control`: who may keep it, and for how long at most.
fn downstream(rule: Rule, word: Word, said: Said, fate: Fate) -> &'static str {
    let untouched = match said {
        Said::Nothing => "",
        Said::SMaxAge => "s-maxage=50",
        Said::Public => "public, max-age=50",
        Said::MustRevalidate => "must-revalidate, max-age=50",
        Said::Private => "private, max-age=50",
        Said::NoStore => "no-store, max-age=50",
        _ => "max-age=50",
    };
    let stored = matches!(fate, Fate::Shared | Fate::Own);
    match (rule, stored) {
        // The lifetime of the handler's word or of the rule goes out as `public`; what restricts stays.
        (Rule::Per, true) => match (word, said) {
            (Word::Shared, Said::MustRevalidate) => "private, max-age=40, must-revalidate",
            (Word::Shared, _) => "private, max-age=40",
            (_, Said::Nothing) => "private, max-age=60",
            (_, Said::MustRevalidate) => "private, max-age=50, must-revalidate",
            (_, _) => "private, max-age=50",
        },
        (_, true) => match (word, said) {
            (Word::Shared, Said::MustRevalidate) => "public, max-age=40, must-revalidate",
            (Word::Shared, _) => "public, max-age=40",
            (_, Said::Nothing) => "public, max-age=60",
            (_, _) => untouched,
        },
        // Nobody downstream knows that the route answers each user differently, so it says so even where nothing is stored.
        (Rule::Per, false) => match said {
            Said::Nothing => "private",
            Said::Private => untouched,
            Said::NoStore => untouched,
            Said::SMaxAge => "s-maxage=50, private",
            Said::Public => "public, max-age=50, private",
            Said::MustRevalidate => "must-revalidate, max-age=50, private",
            _ => "max-age=50, private",
        },
        (_, false) => untouched,
    }
}

/// Names the user by a field that an auth layer outside would set.
fn principal(request: &RequestHead<'_>) -> Option<Vec<u8>> {
    request.headers.get("x-user").map(|user| user.as_bytes().to_vec())
}

fn house(rule: Rule, word: Word, said: Said) -> House {
    let policy = match rule {
        Rule::FromOrigin => Policy::from_origin(),
        Rule::Shared => Policy::shared(MINUTE),
        Rule::SharedStripped => Policy::shared(MINUTE).strip_credentials(),
        Rule::Per => Policy::per(principal, MINUTE),
        Rule::Guarded => Policy::guarded(MINUTE),
        Rule::Bypass => Policy::bypass(),
    };
    let handler = Handler::new(move |head, n| {
        // All that a handler could know a user by.
        let by =
            |name: &str| head.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let mut response = answer(200, &said.fields(), format!("{n}: {:?} {:?}", by("authorization"), by("cookie")));
        match word {
            Word::None => None,
            Word::Shared => response.extensions_mut().insert(Cached::shared(Duration::from_secs(40))),
            Word::NoStore => response.extensions_mut().insert(Cached::no_store()),
        };
        response
    });
    House::with(handler, |layer| layer.otherwise(policy))
}

async fn ask(house: &House, user: &'static str, credentials: Credentials) -> Exchange {
    let own = credentials.fields(user);
    let fields: Vec<(&str, &str)> =
        own.iter().map(|(name, value)| (*name, value.as_str())).chain([("x-user", user)]).collect();
    house.ask("/", &fields).await
}

fn cache_control(exchange: &Exchange) -> String {
    let lines = exchange.headers.get_all("cache-control").iter().map(|line| line.to_str().expect("text"));
    lines.collect::<Vec<_>>().join(", ")
}

/// 6 rules, 3 words, 5 kinds of credentials, 12 responses; each asked by A, by A again, and by B.
#[tokio::test]
async fn every_combination_has_the_fate_that_was_declared() {
    let mut seen = 0;
    for rule in RULES {
        for word in WORDS {
            for credentials in CREDENTIALS {
                for said in SAID {
                    let why = format!("{rule:?}, word {word:?}, {credentials:?}, {said:?}");
                    check(rule, word, credentials, said, &why).await;
                    seen += 1;
                }
            }
        }
    }
    assert_eq!(seen, 6 * 3 * 5 * 12);
}

async fn check(rule: Rule, word: Word, credentials: Credentials, said: Said, why: &str) {
    let house = house(rule, word, said);
    let expected = fate(rule, word, credentials, said);
    let first = ask(&house, "A", credentials).await;
    let again = ask(&house, "A", credentials).await;
    let other = ask(&house, "B", credentials).await;
    let outcome = first.outcome.expect("an outcome");
    let (hit_again, hit_other) = match expected {
        Fate::Shared => (true, true),
        Fate::Own => (true, false),
        Fate::Declined(reason) => {
            assert_eq!(outcome.stored.and_then(Result::err).map(|r| r.as_str()), Some(reason), "{why}");
            assert_eq!(first.cache_status, format!("larder; fwd=uri-miss; detail={reason}"), "{why}");
            (false, false)
        }
        Fate::Bypassed(reason) => {
            assert!(matches!(outcome.outcome, Outcome::Bypass(r) if r.as_str() == reason), "{why}: {outcome:?}");
            assert_eq!(first.cache_status, format!("larder; fwd=bypass; detail={reason}"), "{why}");
            (false, false)
        }
    };
    assert_eq!((again.x_cache == "HIT", other.x_cache == "HIT"), (hit_again, hit_other), "{why}");
    // What A gets again is what A got; what B gets is B's own unless it was declared to be for both.
    assert_eq!(again.body == first.body, hit_again, "{why}");
    assert_eq!(other.body == first.body, hit_other, "{why}");
    if !hit_other && !matches!(rule, Rule::SharedStripped) {
        let own = credentials.fields("B");
        assert!(own.iter().all(|(_, value)| other.body.contains(value.as_str())), "{why}: {}", other.body);
    }
    let entries = match (expected, hit_other) {
        (Fate::Shared, _) => 1,
        // One key with two variants, or two keys.
        (Fate::Own, _) => {
            if rule == Rule::Per {
                2
            } else {
                1
            }
        }
        _ => 0,
    };
    assert_eq!(house.handle.stats().storage.entries, entries, "{why}");
    // Downstream, on the way through and from the store.
    for exchange in [&first, &again] {
        assert_eq!(cache_control(exchange), downstream(rule, word, said, expected), "{why}: {}", exchange.x_cache);
    }
    assert_eq!(first.has("set-cookie"), said == Said::SetCookie, "{why}");
}

/// The rows that matter most, literally.
#[tokio::test]
async fn the_rows_that_matter_most() {
    use Credentials as C;
    use Fate::{Bypassed, Declined, Own, Shared};
    let rows = [
        // RFC 9111: a cookie of the request alone forbids nothing; `Authorization` does.
        (Rule::FromOrigin, C::None, Said::MaxAge, Shared),
        (Rule::FromOrigin, C::Session, Said::MaxAge, Shared),
        (Rule::FromOrigin, C::Authorization, Said::MaxAge, Declined("authorization")),
        (Rule::FromOrigin, C::Authorization, Said::Public, Shared),
        (Rule::FromOrigin, C::None, Said::Nothing, Declined("no-freshness")),
        (Rule::FromOrigin, C::Session, Said::VaryCookie, Declined("vary-credentials")),
        // The application vouches.
        (Rule::Shared, C::Both, Said::Nothing, Shared),
        (Rule::Shared, C::Both, Said::Private, Declined("private")),
        (Rule::Shared, C::None, Said::SetCookie, Declined("set-cookie")),
        (Rule::Shared, C::Session, Said::VaryCookie, Own),
        // Nobody sees another's.
        (Rule::Per, C::Both, Said::Public, Own),
        (Rule::Per, C::None, Said::Nothing, Own),
        (Rule::Per, C::None, Said::NoStore, Declined("no-store")),
        // Nobody vouches.
        (Rule::Guarded, C::None, Said::Nothing, Shared),
        (Rule::Guarded, C::Analytics, Said::Nothing, Shared),
        (Rule::Guarded, C::Session, Said::Public, Bypassed("credentials")),
        (Rule::Guarded, C::Authorization, Said::Public, Bypassed("credentials")),
        (Rule::Bypass, C::None, Said::Public, Bypassed("rule")),
    ];
    for (rule, credentials, said, expected) in rows {
        let why = format!("{rule:?}, {credentials:?}, {said:?}");
        assert_eq!(fate(rule, Word::None, credentials, said), expected, "{why}");
        check(rule, Word::None, credentials, said, &why).await;
    }
}

/// Users with different kinds of credentials at one URI: what is stored for who has none is for everybody, and never the reverse.
#[tokio::test]
async fn what_was_made_for_who_is_logged_in_is_never_given_to_who_is_not() {
    for rule in [Rule::FromOrigin, Rule::Guarded, Rule::Per] {
        for said in [Said::Nothing, Said::MaxAge, Said::VaryCookie, Said::VaryAuthorization] {
            for credentials in [Credentials::Authorization, Credentials::Session, Credentials::Both] {
                // RFC 9111 leaves it to the handler to say that its answer depends on a cookie.
                if rule == Rule::FromOrigin && said == Said::MaxAge && credentials == Credentials::Session {
                    continue;
                }
                let house = house(rule, Word::None, said);
                let why = format!("{rule:?}, {credentials:?}, {said:?}");
                ask(&house, "A", credentials).await;
                for nobody in ["", "B"] {
                    let exchange = ask(&house, nobody, Credentials::None).await;
                    assert!(exchange.body.ends_with("None None"), "{why}: {}", exchange.body);
                }
            }
        }
    }
}

/// The list of cookies that mean nothing: the usual analytics, and what a rule adds; no name that only looks like one.
#[tokio::test]
async fn analytics_cookies_are_no_login_and_nothing_else_is_taken_for_one() {
    let ignored = [
        "_ga=1",
        "_ga_ABC123=1",
        "_gid=1",
        "_gat=1",
        "_gat_UA-1=1",
        "_gcl_au=1",
        "_dc_gtm_UA-1=1",
        "__utma=1",
        "__utmz=1",
        "_fbp=1",
        "_fbc=1",
        "_hjid=1",
        "_hjSessionUser_1=1",
        "_pk_id.1.2=1",
        "_pk_ses=1",
        "_clck=1",
        "_clsk=1",
        "_uetsid=1",
        "_tt_enable=1",
        "ajs_user_id=1",
        "amp_abc=1",
        "_scid=1",
        "_scid_r=1",
        "theme=dark",
        "ab_test_7=x",
        "_ga=1; theme=dark; ab_1=1",
        "",
        ";;",
        " ; ",
    ];
    let telling = [
        "session=1",
        "_ga=1; session=1",
        "session=1; _ga=1",
        "_GA=1",
        "_gax=1",
        "x_ga=1",
        "themes=1",
        "Theme=1",
        "ab=1",
        "ga=1",
        "=_ga",
        "_gid2=1",
        "_fbpx=1",
        "session",
        "_ga=1;session=1",
        "_ga=1,session=1; s=1",
        "\"_ga\"=1",
    ];
    let handler = || Handler::saying(&[]);
    let policy = || Policy::guarded(MINUTE).ignore_cookies(["theme", "ab_*"]);
    for cookie in ignored {
        let house = House::with(handler(), |layer| layer.otherwise(policy()));
        let first = house.ask("/", &[("cookie", cookie)]).await;
        assert_eq!(first.cache_status, "larder; fwd=uri-miss; stored", "{cookie:?}");
    }
    for cookie in telling {
        let house = House::with(handler(), |layer| layer.otherwise(policy()));
        let first = house.ask("/", &[("cookie", cookie)]).await;
        assert_eq!(first.cache_status, "larder; fwd=bypass; detail=credentials", "{cookie:?}");
    }
    // Several lines are one list (HTTP/2 sends a line for each cookie), and one telling cookie in any of them counts.
    let house = House::with(handler(), |layer| layer.otherwise(policy()));
    let split = [("cookie", "_ga=1"), ("cookie", "session=1")];
    assert_eq!(house.ask("/", &split).await.cache_status, "larder; fwd=bypass; detail=credentials");
}
