//! Two requests through one cache: the second is answered as if it had come alone. Whatever a handler can tell apart, the key tells apart;
//! and whoever has credentials gets nobody else's answer.
//!
//! The first line begins with a digit that chooses the policy. Behind it stands the first request: its target, then its fields, one for each line.
//! After an empty line follows the second one.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{AUTHORIZATION, CACHE_CONTROL, COOKIE, HOST, VARY};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use larder::{CacheLayer, CacheOutcome, Outcome, Policy, RequestHead};
use tower::{Layer, Service, ServiceExt};

/// Fields that an input may have; others are passed over.
const FIELDS: [&str; 14] = [
    "host",
    "authorization",
    "cookie",
    "x-own",
    "x-varied",
    "x-user",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-http-method-override",
    "connection",
];

/// Those of them that any handler may look at, and that no policy takes away.
const LINKS: [&str; 6] = [
    "x-varied",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-http-method-override",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    Origin,
    SortedQuery,
    IgnoredQuery,
    OnlyQuery,
    KeyedFields,
    Stripped,
    Guarded,
    Per,
}

pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let rule = match text.as_bytes().first() {
        Some(b'1') => Rule::SortedQuery,
        Some(b'2') => Rule::IgnoredQuery,
        Some(b'3') => Rule::OnlyQuery,
        Some(b'4') => Rule::KeyedFields,
        Some(b'5') => Rule::Stripped,
        Some(b'6') => Rule::Guarded,
        Some(b'7') => Rule::Per,
        _ => Rule::Origin,
    };
    let mut rest = text.get(1..).unwrap_or_default().splitn(2, "\n\n");
    let (Some(first), Some(second)) = (rest.next().and_then(request), rest.next().and_then(request)) else { return };
    let house = house(rule);
    ask(&house, &first);
    let (answer, together) = ask(&house, &second);
    let (alone, _) = ask(&self::house(rule), &second);
    assert_eq!(answer, alone, "{rule:?}: after {first:?}, {second:?} got the answer to another request");
    let is_hit = matches!(together, Outcome::Hit | Outcome::Stale(_));
    let has = |request: &Request<()>, name| request.headers().contains_key(name);
    if rule == Rule::Per && is_hit {
        assert_eq!(first.headers().get("x-user"), second.headers().get("x-user"), "a partition is for one principal");
    }
    if matches!(rule, Rule::Guarded | Rule::Origin) && has(&second, AUTHORIZATION) {
        assert!(!is_hit, "nothing says that the answer is for everybody");
    }
    // The same request again, without credentials, is what a cache is for.
    let plain = ["host", "x-own", "x-varied", "x-forwarded-host", "x-forwarded-proto"];
    let cacheable = second.headers().keys().all(|name| plain.contains(&name.as_str()));
    let one_host = second.headers().get_all(HOST).iter().count() <= 1;
    let path = second.uri().path();
    if rule != Rule::Per
        && cacheable
        && one_host
        && second.uri().authority().is_none()
        && !path.contains(['%', '.', '\\'])
    {
        assert_eq!(ask(&house, &second).1, Outcome::Hit, "{rule:?}: {second:?} is stored");
    }
}

/// A target and fields; `None` if they can be no request.
fn request(text: &str) -> Option<Request<()>> {
    let mut lines = text.split('\n').filter(|line| !line.is_empty());
    let target = lines.next()?.trim();
    let mut request = Request::new(());
    *request.uri_mut() = target.parse().ok()?;
    if !request.uri().path().starts_with('/') || target.len() > 1000 {
        return None;
    }
    for line in lines.take(super::MOST_LINES) {
        let (name, value) = line.split_once(':')?;
        let name = FIELDS.iter().find(|known| **known == name)?;
        request.headers_mut().append(*name, HeaderValue::from_str(value.trim_matches([' ', '\t'])).ok()?);
    }
    Some(request)
}

type House = larder::Cache<Echo>;

fn house(rule: Rule) -> House {
    let ttl = Duration::from_secs(60);
    let policy = match rule {
        Rule::Origin => Policy::from_origin(),
        Rule::SortedQuery => Policy::shared(ttl).sort_query(),
        Rule::IgnoredQuery => Policy::shared(ttl).ignore_query(["b", "utm_*"]),
        Rule::OnlyQuery => Policy::shared(ttl).only_query(["a"]),
        Rule::KeyedFields => Policy::shared(ttl).key_header(HeaderName::from_static("x-own")).key_cookies(["a", "s*"]),
        Rule::Stripped => Policy::shared(ttl).strip_credentials(),
        Rule::Guarded => Policy::guarded(ttl),
        Rule::Per => {
            let user = |head: &RequestHead<'_>| head.headers.get("x-user").map(|user| user.as_bytes().to_vec());
            Policy::per(user, ttl)
        }
    };
    let clock = larder::ManualClock::default();
    CacheLayer::in_memory(1 << 20).otherwise(policy).clock(clock).layer(Echo(rule))
}

fn ask(house: &House, request: &Request<()>) -> (String, Outcome) {
    let mut asked = Request::new(Full::<Bytes>::default());
    *asked.uri_mut() = request.uri().clone();
    *asked.headers_mut() = request.headers().clone();
    let exchange = async {
        let response = house.clone().oneshot(asked).await.expect("the handler doesn't fail");
        let outcome = *response.extensions().get::<CacheOutcome>().expect("every response has one");
        let body = response.into_body().collect().await.expect("the body doesn't fail").to_bytes();
        (String::from_utf8_lossy(&body).into_owned(), outcome.outcome)
    };
    exchange.now_or_never().expect("nothing waits: the store is in memory, and the handler answers at once")
}

/// A handler whose answer is all that it may have used of the request.
#[derive(Clone)]
struct Echo(Rule);

impl Service<Request<Full<Bytes>>> for Echo {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        let mut response = Response::new(Full::from(used(self.0, &request)));
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("max-age=60"));
        response.headers_mut().insert(VARY, HeaderValue::from_static("x-varied"));
        ready(Ok(response))
    }
}

fn lines(headers: &HeaderMap, name: &str) -> Vec<String> {
    headers.get_all(name).iter().map(|line| String::from_utf8_lossy(line.as_bytes()).into_owned()).collect()
}

/// What a handler under this rule may make its answer of: the target as it sees it, the host, what proxies say, and what the rule put into
/// the key or took away.
fn used(rule: Rule, request: &Request<Full<Bytes>>) -> String {
    let headers = request.headers();
    let mut used = format!("{:?} {}", request.uri().path_and_query(), host(request));
    for name in LINKS {
        used += &format!("\n{name} {:?}", lines(headers, name));
    }
    used += &format!("\nforwarded {:?}", forwarded(&lines(headers, "forwarded")));
    if matches!(rule, Rule::Origin | Rule::Guarded) {
        used += &format!("\nauthorization {:?}", lines(headers, "authorization"));
    }
    let cookies = cookies(headers);
    match rule {
        Rule::KeyedFields => {
            used += &format!("\nx-own {:?}", lines(headers, "x-own"));
            let named = |name: &str| cookies.iter().filter(|pair| cookie_name(pair) == name).collect::<Vec<_>>();
            let begun: Vec<_> = cookies.iter().filter(|pair| cookie_name(pair).starts_with('s')).collect();
            used += &format!("\ncookies {:?} {begun:?}", named("a"));
            let other = cookies.iter().any(|pair| cookie_name(pair) != "a" && !cookie_name(pair).starts_with('s'));
            assert!(!other || has_obstacle(request), "what isn't keyed is hidden from the handler: {cookies:?}");
        }
        Rule::Stripped => {
            let stripped = !headers.contains_key(COOKIE) && !headers.contains_key(AUTHORIZATION);
            assert!(stripped || has_obstacle(request), "credentials are hidden from the handler");
        }
        Rule::Guarded => {
            let telling = cookies
                .iter()
                .filter(|pair| !pair.starts_with(['_']) && !pair.starts_with("aj") && !pair.starts_with("am"));
            used += &format!("\ncookies {:?}", telling.collect::<Vec<_>>());
        }
        Rule::Per => used += &format!("\nuser {:?}", headers.get("x-user")),
        Rule::Origin | Rule::SortedQuery | Rule::IgnoredQuery | Rule::OnlyQuery => {}
    }
    used
}

/// Whether the request bypasses the cache, so that the handler sees it as it came.
fn has_obstacle(request: &Request<Full<Bytes>>) -> bool {
    let headers = request.headers();
    headers.contains_key("connection")
        || headers.contains_key("x-http-method-override")
        || headers.get_all(HOST).iter().count() > 1
        || request.uri().authority().is_some() && headers.contains_key(HOST)
        || request.uri().path().contains(['%', '.', '\\'])
}

/// As RFC 9110 §4.2.3 compares it.
fn host(request: &Request<Full<Bytes>>) -> String {
    let target = request.uri().authority().map(|authority| authority.as_str().to_owned());
    let host = lines(request.headers(), "host").first().cloned().or(target).unwrap_or_default().to_ascii_lowercase();
    let port = if request.uri().scheme_str() == Some("https") { ":443" } else { ":80" };
    host.strip_suffix(port).unwrap_or(&host).to_owned()
}

/// What servers commonly read of `Forwarded`: of the first and of the last element, the host and the protocol.
fn forwarded(lines: &[String]) -> [[Option<String>; 2]; 2] {
    let read = |element: Option<&str>| {
        ["host", "proto"].map(|wanted| {
            element.unwrap_or_default().split(';').find_map(|pair| {
                let (name, value) = pair.split_once('=')?;
                name.trim().eq_ignore_ascii_case(wanted).then(|| value.trim().to_owned())
            })
        })
    };
    let first = lines.first().and_then(|line| line.split(',').next());
    let last = lines.last().and_then(|line| line.rsplit(',').next());
    [read(first), read(last)]
}

fn cookies(headers: &HeaderMap) -> Vec<String> {
    let lines = lines(headers, "cookie");
    let pairs = lines.iter().flat_map(|line| line.split(';')).map(str::trim).filter(|pair| !pair.is_empty());
    pairs.map(str::to_owned).collect()
}

fn cookie_name(pair: &str) -> &str {
    pair.split('=').next().unwrap_or_default().trim()
}
