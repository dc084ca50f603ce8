//! [`Access`]: who may use the admin API, decided when its router is built. There is no default.

use std::fmt;

use http::Uri;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::rfc9111::authority::normalised;

/// A secret that opens the admin API: who sends it in `Authorization: Bearer` may do everything.
///
/// Only its SHA-256 digest is kept, which is compared in constant time, and neither is ever shown or logged.
///
/// ```
/// use larder::admin::Token;
/// assert!(Token::new("0f9e6a51c4b27d38").is_ok());
/// assert!(Token::new("secret").is_err(), "too short to be one");
/// ```
#[derive(Clone)]
pub struct Token([u8; 32]);

impl Token {
    /// The fewest characters of a token. `openssl rand -hex 32` makes one that can't be guessed.
    pub const MIN_LENGTH: usize = 16;

    /// The most characters of a token.
    pub const MAX_LENGTH: usize = 512;

    /// A token of 16 to 512 characters, which have to be letters, digits or `-._~+/=`, as RFC 6750 §2.1 has them.
    ///
    /// # Errors
    /// [`TokenError`] if it has too few or too many characters, or others.
    pub fn new(secret: &str) -> Result<Self, TokenError> {
        let is_sendable = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b);
        if !secret.bytes().all(is_sendable) {
            return Err(TokenError::Characters);
        }
        if !(Self::MIN_LENGTH..=Self::MAX_LENGTH).contains(&secret.len()) {
            return Err(TokenError::Length);
        }
        Ok(Self(digest(secret.as_bytes())))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// A text that can't be a [`Token`]. The text itself is not shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Shorter than [`Token::MIN_LENGTH`], or longer than [`Token::MAX_LENGTH`].
    #[error(
        "the token must have {} to {} characters; `openssl rand -hex 32` makes a good one",
        Token::MIN_LENGTH,
        Token::MAX_LENGTH
    )]
    Length,
    /// It has a character that a bearer token can't have (RFC 6750 §2.1).
    #[error("the token may only have letters, digits and the characters -._~+/=")]
    Characters,
    /// More than two tokens.
    #[error("at most two tokens may be live at once, the new one and the old one")]
    TooMany,
}

/// Who may use the admin API, from which pages, and under which names. [`router`](super::router) can't be built without one.
///
/// ```
/// use larder::admin::{Access, Token};
/// # fn main() -> Result<(), larder::admin::TokenError> {
/// let (new, old) = (Token::new("0f9e6a51c4b27d38")?, Token::new("a1b2c3d4e5f60718")?);
/// let access = Access::token(new)
///     .and_token(old) // until every client has the new one
///     .host("cache.internal")
///     .origin("https://dashboard.example");
/// # drop(access); Ok(()) }
/// ```
#[derive(Clone)]
#[must_use]
pub struct Access {
    gate: Gate,
    /// Names beside those that are always good, in lower case.
    pub(super) hosts: Vec<String>,
    /// Serialised origins beside that of the router itself.
    pub(super) origins: Vec<String>,
}

#[derive(Clone)]
enum Gate {
    /// Two digests always, so that comparing takes the same time whether one token is live or two.
    Tokens([[u8; 32]; 2]),
    Denied(String),
    Open,
}

/// What became of somebody's wish to come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry<'a> {
    Granted,
    /// No token, or a wrong one.
    Unknown,
    /// Nobody may, with what would change that.
    Denied(&'a str),
}

impl Access {
    /// For who sends this token.
    pub fn token(token: Token) -> Self {
        Self::through(Gate::Tokens([token.0; 2]))
    }

    /// A second token that is good as well, so that tokens can be replaced without a moment when clients are locked out. There are never more than
    /// two: a third takes the place of the second. Where nobody may come in, or everybody, it changes nothing.
    pub fn and_token(mut self, token: Token) -> Self {
        if let Gate::Tokens([_, second]) = &mut self.gate {
            *second = token.0;
        }
        self
    }

    /// For nobody: every request is answered 403.
    pub fn denied() -> Self {
        Self::through(Gate::Denied("No token was set up when this interface was built.".into()))
    }

    /// For who sends the token that the environment variable `variable` has, or one of two with a comma between. Where the variable isn't set or is empty,
    /// for nobody; the refusal then names the variable.
    ///
    /// # Errors
    /// [`TokenError`] if the variable has something that isn't a token.
    pub fn from_env(variable: &str) -> Result<Self, TokenError> {
        // What is no Unicode has characters that a token can't have.
        match std::env::var_os(variable).filter(|value| !value.is_empty()) {
            Some(value) => Self::from_list(value.to_str().ok_or(TokenError::Characters)?),
            None => Ok(Self::through(Gate::Denied(format!(
                "No token is set up: restart the program with the environment variable {variable} set to a secret of at least {} characters, \
                 and send it as `Authorization: Bearer SECRET`.",
                Token::MIN_LENGTH
            )))),
        }
    }

    fn from_list(list: &str) -> Result<Self, TokenError> {
        let mut tokens = list.split(',').map(|token| Token::new(token.trim()));
        let access = tokens.next().transpose()?.map_or_else(Self::denied, Self::token);
        let access = match tokens.next().transpose()? {
            Some(second) => access.and_token(second),
            None => access,
        };
        if tokens.next().is_some() { Err(TokenError::TooMany) } else { Ok(access) }
    }

    /// For everybody who reaches it, without a token. Dangerous: any program and any user of the machine or its network can purge the cache,
    /// read what is stored and set it up anew. For where something in front has decided already, such as mutual TLS.
    pub fn danger_open() -> Self {
        Self::through(Gate::Open)
    }

    fn through(gate: Gate) -> Self {
        Self { gate, hosts: Vec::new(), origins: Vec::new() }
    }

    /// A name under which the API is reached, with a port or for every port. By default, requests for `localhost`, names below it and addresses are answered,
    /// and others refused, since a page whose name was pointed at this machine (DNS rebinding) comes under its own name.
    pub fn host(mut self, name: &str) -> Self {
        self.hosts.push(name.to_ascii_lowercase());
        self
    }

    /// A page from elsewhere that may use the API in a browser, as `https://dashboard.example`. By default only pages of the same origin may. For the
    /// fields that a browser wants to see beside that, put a CORS layer around the router.
    pub fn origin(mut self, origin: &str) -> Self {
        self.origins.push(origin.trim_end_matches('/').to_ascii_lowercase());
        self
    }

    /// Whether anybody may come in.
    pub fn is_denied(&self) -> bool {
        matches!(self.gate, Gate::Denied(_))
    }

    /// Does the same work whatever is presented, and however much of it is right.
    pub(super) fn admit(&self, presented: Option<&[u8]>) -> Entry<'_> {
        match &self.gate {
            Gate::Open => Entry::Granted,
            Gate::Denied(remedy) => Entry::Denied(remedy),
            Gate::Tokens([one, other]) => {
                let digest = digest(presented.unwrap_or_default());
                let is_known = digest.ct_eq(one) | digest.ct_eq(other);
                let is_known = is_known & Choice::from(u8::from(presented.is_some()));
                if bool::from(is_known) { Entry::Granted } else { Entry::Unknown }
            }
        }
    }

    /// Whether a request for this authority is meant for here.
    pub(super) fn knows_host(&self, authority: &str) -> bool {
        let authority = authority.to_ascii_lowercase();
        let Some(host) = host_of(&authority) else { return false };
        let is_local = host == "localhost" || host.ends_with(".localhost");
        let is_address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok();
        is_local || is_address || self.hosts.iter().any(|known| *known == authority || known == host)
    }

    /// Whether a page of `origin` may ask under this authority.
    pub(super) fn knows_origin(&self, origin: &str, authority: &str) -> bool {
        self.names_origin(origin) || is_same_origin(origin, authority)
    }

    /// Whether pages of `origin` were allowed by name.
    pub(super) fn names_origin(&self, origin: &str) -> bool {
        self.origins.iter().any(|known| known.eq_ignore_ascii_case(origin))
    }
}

impl From<Token> for Access {
    fn from(token: Token) -> Self {
        Self::token(token)
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gate = match self.gate {
            Gate::Tokens(_) => "tokens",
            Gate::Denied(_) => "denied",
            Gate::Open => "open",
        };
        f.debug_struct("Access")
            .field("gate", &gate)
            .field("hosts", &self.hosts)
            .field("origins", &self.origins)
            .finish()
    }
}

fn digest(secret: &[u8]) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// The host of an authority without its port; `None` where it has user information or is none.
fn host_of(authority: &str) -> Option<&str> {
    if authority.is_empty() || authority.contains('@') {
        return None;
    }
    let end = match authority.rfind(':') {
        Some(colon) if !authority[colon..].contains(']') => colon,
        _ => authority.len(),
    };
    let (host, port) = authority.split_at(end);
    let port = port.strip_prefix(':').unwrap_or_default();
    (!host.is_empty() && port.bytes().all(|b| b.is_ascii_digit())).then_some(host)
}

/// Whether a page of `origin` comes from where its request goes. The scheme isn't known here: behind a proxy that ends TLS it isn't the one that the browser
/// sees, so host and port decide.
fn is_same_origin(origin: &str, authority: &str) -> bool {
    let Ok(uri) = origin.parse::<Uri>() else { return false };
    let (Some(scheme @ ("http" | "https")), Some(of)) = (uri.scheme_str(), uri.authority()) else { return false };
    let of = normalised(of.as_str().as_bytes(), Some(scheme));
    of == normalised(authority.as_bytes(), Some(scheme))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "0f9e6a51c4b27d38";
    const OTHER: &str = "a1b2c3d4e5f60718";

    #[test]
    fn what_can_be_a_token() {
        let long = "x".repeat(513);
        let rows = [
            (ONE, None),
            ("abcDEF012-._~+/==", None),
            ("", Some(TokenError::Length)),
            ("fifteen-letters", Some(TokenError::Length)),
            (&long, Some(TokenError::Length)),
            ("sixteen letters..", Some(TokenError::Characters)),
            ("sixteen\nletters..", Some(TokenError::Characters)),
            ("sechzehn-zeichén", Some(TokenError::Characters)),
        ];
        for (text, expected) in rows {
            assert_eq!(Token::new(text).err(), expected, "{text:?}");
        }
    }

    #[test]
    fn tokens_let_in_who_has_one_of_them_and_nobody_else() {
        let token = |text| Token::new(text).unwrap();
        let (single, both) = (Access::token(token(ONE)), Access::token(token(ONE)).and_token(token(OTHER)));
        let rows: [(Option<&[u8]>, bool, bool); 7] = [
            (Some(ONE.as_bytes()), true, true),
            (Some(OTHER.as_bytes()), false, true),
            (Some(b""), false, false),
            (None, false, false),
            (Some(b"0f9e6a51c4b27d3"), false, false),
            (Some(b"0f9e6a51c4b27d380"), false, false),
            (Some(b"0F9E6A51C4B27D38"), false, false),
        ];
        for (presented, one, two) in rows {
            assert_eq!(single.admit(presented) == Entry::Granted, one, "{presented:?}");
            assert_eq!(both.admit(presented) == Entry::Granted, two, "{presented:?}");
            assert!(matches!(Access::denied().and_token(token(ONE)).admit(presented), Entry::Denied(_)));
            assert_eq!(Access::danger_open().admit(presented), Entry::Granted);
        }
    }

    #[test]
    fn a_list_has_one_token_or_two() {
        let both = format!("{ONE}, {OTHER}");
        assert_eq!(Access::from_list(&both).unwrap().admit(Some(OTHER.as_bytes())), Entry::Granted);
        assert_eq!(Access::from_list(&format!("{both},{ONE}")).err(), Some(TokenError::TooMany));
        assert_eq!(Access::from_list(&format!("{ONE},")).err(), Some(TokenError::Length));
        assert_eq!(Access::from_list("short").err(), Some(TokenError::Length));
    }

    #[test]
    fn nothing_that_is_secret_is_shown() {
        let access = Access::token(Token::new(ONE).unwrap());
        let (shown, error) = (format!("{access:?} {:?}", Token::new(ONE)), Token::new("hunter2").unwrap_err());
        assert!(!shown.contains(ONE) && !shown.contains(&format!("{:?}", digest(ONE.as_bytes()))), "{shown}");
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }

    #[test]
    fn hosts() {
        let access = Access::denied().host("Cache.Internal").host("other.internal:8443");
        let rows = [
            ("localhost", true),
            ("LocalHost:3000", true),
            ("shop.localhost:3000", true),
            ("127.0.0.1:3000", true),
            ("192.168.1.9", true),
            ("[::1]:3000", true),
            ("[::1]", true),
            ("cache.internal", true),
            ("cache.internal:9000", true),
            ("other.internal:8443", true),
            ("other.internal", false),
            ("other.internal:8444", false),
            ("evil.example", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("evil.example:80", false),
            ("user@localhost", false),
            ("localhost:80:80", false),
            ("localhost:x", false),
            ("", false),
            (":80", false),
        ];
        for (authority, expected) in rows {
            assert_eq!(access.knows_host(authority), expected, "{authority}");
        }
    }

    #[test]
    fn origins() {
        let access = Access::denied().origin("https://Dashboard.example/");
        let rows = [
            ("http://localhost:3000", "localhost:3000", true),
            ("http://LOCALHOST:3000", "localhost:3000", true),
            ("https://cache.internal", "cache.internal:443", true),
            ("http://cache.internal", "cache.internal:80", true),
            ("https://dashboard.example", "localhost:3000", true),
            ("https://dashboard.example:444", "localhost:3000", false),
            ("http://dashboard.example", "localhost:3000", false),
            ("http://localhost:3001", "localhost:3000", false),
            ("http://evil.example", "localhost:3000", false),
            ("null", "localhost:3000", false),
            ("file://", "localhost:3000", false),
            ("localhost:3000", "localhost:3000", false),
            ("", "localhost:3000", false),
        ];
        for (origin, authority, expected) in rows {
            assert_eq!(access.knows_origin(origin, authority), expected, "{origin} {authority}");
        }
    }
}
