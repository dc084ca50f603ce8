//! What a request has to be before a route of the admin API sees it, and what every answer bears.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use http_body::Body;

use super::Admin;
use super::access::{Access, Entry};
use super::problem::Problem;
use crate::request::RequestHead;
use crate::rfc9111::list;

/// The longest target, in bytes. A pattern or a key with all its bytes percent-encoded fits in.
pub(super) const LONGEST_TARGET: usize = 8 << 10;

/// The largest content of a request, in bytes.
pub(super) const LARGEST_CONTENT: usize = 256 << 10;

/// Lets a request through to its route, in this order:
///
/// 1. Its target isn't too long (414).
/// 2. It is for a name that this is reached under: RFC 9110 §7.4, against DNS rebinding (400, 421).
/// 3. It doesn't come from a page elsewhere (403).
/// 4. It has a token (401), if there is any (403).
/// 5. Its content isn't too large (413), and of a type that is read here (415), which no form of a page can have.
///
/// And seals the answer, whatever it is.
pub(super) async fn guard(State(admin): State<Arc<Admin>>, mut request: Request, next: Next) -> Response {
    let mut response = match check(&admin.access, &request) {
        Ok(()) => {
            // No route needs it, so none can show it.
            request.headers_mut().remove(header::AUTHORIZATION);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    };
    seal(response.headers_mut());
    response
}

fn check<B: Body>(access: &Access, request: &http::Request<B>) -> Result<(), Problem> {
    let head = RequestHead::of(request);
    length(head.uri)?;
    let authority = authority(access, head.uri, head.headers)?;
    page(access, head.headers, authority)?;
    token(access, head.headers)?;
    content(request)
}

fn length(target: &Uri) -> Result<(), Problem> {
    let length = target.path().len() + target.query().map_or(0, str::len);
    if length <= LONGEST_TARGET {
        return Ok(());
    }
    Err(Problem::plain(StatusCode::URI_TOO_LONG, format!("A target has at most {LONGEST_TARGET} bytes.")))
}

/// The authority that the request is for; HTTP/2 names it in the target.
fn authority<'r>(access: &Access, target: &'r Uri, headers: &'r HeaderMap) -> Result<&'r str, Problem> {
    let bad = |detail| Problem::plain(StatusCode::BAD_REQUEST, detail);
    let mut lines = headers.get_all(header::HOST).iter();
    let line = lines.next();
    if lines.next().is_some() {
        return Err(bad("There are two Host fields."));
    }
    let line = line.map(|line| line.to_str().map_err(|_| bad("The Host field is malformed."))).transpose()?;
    let in_target = target.authority().map(http::uri::Authority::as_str);
    let authority = in_target.or(line).ok_or_else(|| bad("There is no Host field."))?;
    let all_known = [in_target, line].into_iter().flatten().all(|name| access.knows_host(name));
    if all_known {
        return Ok(authority);
    }
    Err(Problem::plain(
        StatusCode::MISDIRECTED_REQUEST,
        "This interface isn't reached under that name. Use localhost or an address, or allow the name with `Access::host`.",
    ))
}

/// A browser says from which page a request comes. What a page elsewhere asks is refused, whatever credentials it found.
fn page(access: &Access, headers: &HeaderMap, authority: &str) -> Result<(), Problem> {
    let refused = || {
        Problem::named(
            StatusCode::FORBIDDEN,
            "cross-site",
            "Pages from elsewhere may not use this",
            "The request comes from a page of another origin. `Access::origin` allows one.",
        )
    };
    let mut is_named = false;
    for origin in headers.get_all(header::ORIGIN) {
        let origin = origin.to_str().map_err(|_| refused())?;
        if !access.knows_origin(origin, authority) {
            return Err(refused());
        }
        is_named = access.names_origin(origin);
    }
    // `none`: the user typed the address, or followed a bookmark.
    let is_near = |site: &HeaderValue| matches!(list::trim(site.as_bytes()), b"same-origin" | b"none");
    if is_named || headers.get_all("sec-fetch-site").iter().all(is_near) { Ok(()) } else { Err(refused()) }
}

fn token(access: &Access, headers: &HeaderMap) -> Result<(), Problem> {
    match access.admit(bearer(headers)) {
        Entry::Granted => Ok(()),
        Entry::Denied(remedy) => {
            Err(Problem::named(StatusCode::FORBIDDEN, "closed", "The admin API is closed", remedy))
        }
        Entry::Unknown => {
            tracing::debug!("a request to the admin API without a valid token was refused");
            // RFC 6750 §3.1: who sends no token is told no error.
            let challenge = match headers.contains_key(header::AUTHORIZATION) {
                true => "Bearer realm=\"larder\", error=\"invalid_token\"",
                false => "Bearer realm=\"larder\"",
            };
            let detail = "Send the token as `Authorization: Bearer TOKEN`; nowhere else is one looked for.";
            Err(Problem::plain(StatusCode::UNAUTHORIZED, detail).saying(header::WWW_AUTHENTICATE, challenge))
        }
    }
}

/// The token of the one `Authorization` field (RFC 6750 §2.1). Neither the query nor a cookie is looked at.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut lines = headers.get_all(header::AUTHORIZATION).iter();
    let line = lines.next().filter(|_| lines.next().is_none())?.as_bytes();
    let (scheme, token) = line.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| list::trim(token))
}

fn content<B: Body>(request: &http::Request<B>) -> Result<(), Problem> {
    let size = request.body().size_hint();
    if request.body().is_end_stream() || size.exact() == Some(0) {
        return Ok(());
    }
    if size.lower() > LARGEST_CONTENT as u64 {
        return Err(too_large());
    }
    match Type::of(request.headers()) {
        Some(_) => Ok(()),
        None => {
            let detail = "Content is `application/json`, or `application/toml` for a whole configuration.";
            Err(Problem::plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail))
        }
    }
}

pub(super) fn too_large() -> Problem {
    Problem::plain(StatusCode::PAYLOAD_TOO_LARGE, format!("The content has at most {LARGEST_CONTENT} bytes."))
}

/// What content may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Json,
    Toml,
}

impl Type {
    /// As the one `Content-Type` says, whatever its parameters. Coded content has none.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut lines = headers.get_all(header::CONTENT_TYPE).iter();
        let line =
            lines.next().filter(|_| lines.next().is_none() && !headers.contains_key(header::CONTENT_ENCODING))?;
        let essence = line.to_str().ok()?.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            "application/json" => Some(Self::Json),
            "application/toml" => Some(Self::Toml),
            _ => None,
        }
    }
}

/// No cache keeps an answer, this crate's own included, and no browser takes it for something else than it says.
fn seal(headers: &mut HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

#[cfg(test)]
mod tests {
    use http_body_util::{Empty, Full};

    use super::*;
    use crate::admin::access::Token;

    const TOKEN: &str = "0f9e6a51c4b27d38";

    fn access() -> Access {
        Access::token(Token::new(TOKEN).unwrap()).origin("https://dash.example")
    }

    type Fields = &'static [(&'static str, &'static str)];

    fn status(target: &str, fields: Fields) -> u16 {
        let mut request = http::Request::get(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(Empty::<bytes::Bytes>::new()).unwrap();
        let problem = check(&access(), &request).err();
        problem.map_or(200, |problem| problem.into_response().status().as_u16())
    }

    #[test]
    fn who_comes_in() {
        const HOST: (&str, &str) = ("host", "localhost:3000");
        const GOOD: (&str, &str) = ("authorization", "Bearer 0f9e6a51c4b27d38");
        let rows: &[(Fields, u16)] = &[
            (&[HOST, GOOD], 200),
            (&[HOST, ("authorization", "bearer   0f9e6a51c4b27d38 ")], 200),
            (&[HOST], 401),
            (&[HOST, GOOD, GOOD], 401),
            (&[HOST, ("authorization", "Basic 0f9e6a51c4b27d38")], 401),
            (&[HOST, ("authorization", "Bearer")], 401),
            (&[HOST, ("authorization", "Bearer ")], 401),
            (&[HOST, ("authorization", "Bearer wrong-wrong-wrong")], 401),
            (&[HOST, ("cookie", "token=0f9e6a51c4b27d38"), ("x-token", TOKEN)], 401),
            (&[GOOD], 400),
            (&[HOST, HOST, GOOD], 400),
            (&[("host", "evil.example"), GOOD], 421),
            (&[HOST, GOOD, ("origin", "http://localhost:3000"), ("sec-fetch-site", "same-origin")], 200),
            (&[HOST, GOOD, ("sec-fetch-site", "none")], 200),
            (&[HOST, GOOD, ("sec-fetch-site", "cross-site")], 403),
            (&[HOST, GOOD, ("sec-fetch-site", "same-site")], 403),
            (&[HOST, GOOD, ("origin", "http://evil.example")], 403),
            (&[HOST, GOOD, ("origin", "null")], 403),
            (&[HOST, GOOD, ("origin", "http://localhost:3000"), ("origin", "http://evil.example")], 403),
            (&[HOST, GOOD, ("origin", "https://dash.example"), ("sec-fetch-site", "cross-site")], 200),
        ];
        for (fields, expected) in rows {
            assert_eq!(status("/stats", fields), *expected, "{fields:?}");
        }
        assert_eq!(status(&format!("/stats?token={TOKEN}&access_token={TOKEN}"), &[HOST]), 401);
        assert_eq!(status("http://localhost/stats", &[GOOD]), 200, "HTTP/2");
        assert_eq!(status("http://evil.example/stats", &[GOOD, HOST]), 421);
        assert_eq!(status("http://localhost/stats", &[GOOD, ("host", "evil.example")]), 421);
    }

    #[test]
    fn content_has_a_type_and_a_size() {
        let ask = |kind: Option<&str>, length: usize| {
            let mut request = http::Request::post("/purge").header("host", "localhost");
            request = request.header("authorization", format!("Bearer {TOKEN}"));
            if let Some(kind) = kind {
                request = request.header("content-type", kind);
            }
            let request = request.body(Full::new(bytes::Bytes::from(vec![b' '; length]))).unwrap();
            check(&access(), &request).err().map_or(200, |problem| problem.into_response().status().as_u16())
        };
        for (kind, length, expected) in [
            (Some("application/json"), 1, 200),
            (Some("Application/JSON; charset=utf-8"), 1, 200),
            (Some("application/toml"), LARGEST_CONTENT, 200),
            (Some("application/json"), LARGEST_CONTENT + 1, 413),
            (Some("text/plain"), 1, 415),
            (Some("application/x-www-form-urlencoded"), 1, 415),
            (None, 1, 415),
            (None, 0, 200),
            (Some("application/x-www-form-urlencoded"), 0, 200),
        ] {
            assert_eq!(ask(kind, length), expected, "{kind:?} {length}");
        }
    }
}
