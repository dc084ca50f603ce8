//! What a [`RedisStore`](super::RedisStore) is told before its first use. Nothing is connected to, and nothing needs a runtime.

use std::time::Duration;

use redis::{ConnectionInfo, IntoConnectionInfo};

use super::keys::Keyspace;
#[cfg(feature = "redis-tls")]
use super::tls::Tls;

/// A URL or a setting of a [`RedisStore`](super::RedisStore) that can't be used. It never shows a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RedisUrlError {
    /// The URL can't be read, or is of another scheme.
    #[error(
        "not the URL of a Redis or Valkey server: {0}; it reads like `redis://user:password@host:6379/0?ns=shop`, `rediss://` for TLS"
    )]
    Url(String),
    /// There is no namespace.
    #[error(
        "a namespace is needed, so that two applications on one server never mix: add `?ns=shop` to the URL, with a name of your own"
    )]
    NoNamespace,
    /// The namespace isn't one.
    #[error("the namespace {0:?} has to be 1 to 64 letters, digits, `-`, `_` and `.`")]
    Namespace(String),
    /// A parameter of the URL that isn't known.
    #[error("the parameter {0:?} isn't known; there are `ns` and `client_name`")]
    Parameter(String),
    /// `rediss://` in a program that was built without TLS.
    #[error("`rediss://` needs the feature `redis-tls` of larder")]
    NoTls,
    /// A certificate or a key that can't be read.
    #[error("the certificates can't be used: {0}")]
    Certificates(String),
}

/// How long it may take until a connection can be used: name, TCP, TLS, who we are, and the first script.
const LONGEST_CONNECTING: Duration = Duration::from_secs(2);

/// The longest that anything is waited for on a connection. Deadlines of requests are shorter; this is for those who set none.
pub(super) const LONGEST_ANSWER: Duration = Duration::from_secs(10);

/// How long bytes may lie unacknowledged before the system gives a connection up.
pub(super) const LONGEST_UNACKNOWLEDGED: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) keyspace: Keyspace,
    pub(super) longest: Duration,
    pub(super) longest_connecting: Duration,
    pub(super) client_name: String,
    pub(super) info: ConnectionInfo,
    /// Where the URL asks for it.
    #[cfg(feature = "redis-tls")]
    pub(super) tls: Option<Tls>,
}

impl Settings {
    /// Reads a URL, and a namespace that takes the place of its own.
    pub(super) fn of(url: &str, namespace: Option<&str>) -> Result<Self, RedisUrlError> {
        let (address, query) = url.split_once('?').unwrap_or((url, ""));
        if address.contains('#') || query.contains('#') {
            return Err(RedisUrlError::Url("it has a fragment".into()));
        }
        let mut named = namespace.map(str::to_owned);
        let mut client_name = "larder".to_owned();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=').unwrap_or((pair, "")) {
                ("ns", value) => named = named.or_else(|| Some(value.to_owned())),
                ("client_name", value) => value.clone_into(&mut client_name),
                (other, _) if other.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_') => {
                    return Err(RedisUrlError::Parameter(other.to_owned()));
                }
                // It may be the rest of a password.
                _ => return Err(RedisUrlError::Url("a `?` in a password is written `%3F`".into())),
            }
        }
        let keyspace = Keyspace::new(&named.ok_or(RedisUrlError::NoNamespace)?)?;
        let (address, _is_over_tls) = without_tls(address)?;
        Ok(Self {
            keyspace,
            longest: Duration::from_secs(24 * 60 * 60),
            longest_connecting: LONGEST_CONNECTING,
            client_name,
            info: connection_info(&address)?,
            #[cfg(feature = "redis-tls")]
            tls: _is_over_tls.then(Tls::default),
        })
    }

    /// The address, without who we are there.
    pub(super) fn address(&self) -> String {
        self.info.addr().to_string()
    }

    #[cfg(feature = "redis-tls")]
    pub(super) fn set_authorities(&mut self, pem: &[u8]) -> Result<(), RedisUrlError> {
        self.tls()?.set_authorities(pem).map_err(RedisUrlError::Certificates)
    }

    #[cfg(feature = "redis-tls")]
    pub(super) fn set_client_certificate(&mut self, certificate: &[u8], key: &[u8]) -> Result<(), RedisUrlError> {
        self.tls()?.set_identity(certificate, key).map_err(RedisUrlError::Certificates)
    }

    #[cfg(feature = "redis-tls")]
    fn tls(&mut self) -> Result<&mut Tls, RedisUrlError> {
        self.tls.as_mut().ok_or_else(|| RedisUrlError::Certificates("TLS needs a URL with `rediss://`".into()))
    }
}

/// The URL of the same server without TLS, and whether TLS is asked for.
fn without_tls(address: &str) -> Result<(String, bool), RedisUrlError> {
    let plain = [("rediss:", "redis:"), ("valkeys:", "valkey:")].into_iter().find_map(|(secure, plain)| {
        let rest = address.strip_prefix(secure)?;
        Some(format!("{plain}{rest}"))
    });
    match plain {
        Some(_) if cfg!(not(feature = "redis-tls")) => Err(RedisUrlError::NoTls),
        Some(plain) => Ok((plain, true)),
        None => Ok((address.to_owned(), false)),
    }
}

fn connection_info(address: &str) -> Result<ConnectionInfo, RedisUrlError> {
    // What the client says of a URL doesn't quote it.
    address.into_connection_info().map_err(|error| RedisUrlError::Url(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_say_where_who_and_which_namespace() {
        let read =
            Settings::of("redis://shop:a%20secret@cache.example:6380/3?ns=shop-1&client_name=web", None).unwrap();
        let redis = read.info.redis_settings();
        assert_eq!(read.address(), "cache.example:6380");
        assert_eq!((redis.username(), redis.password(), redis.db()), (Some("shop"), Some("a secret"), 3));
        assert_eq!(read.client_name, "web");
        assert!(!format!("{read:?}").contains("secret"));
        assert_eq!(Settings::of("redis://h?ns=a", Some("b")).unwrap().keyspace, Keyspace::new("b").unwrap());
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_a_reason_and_without_the_password() {
        let rows = [
            ("redis://h", "namespace is needed"),
            ("redis://h?ns=", "has to be 1 to 64"),
            ("redis://h?ns=a:b", "has to be 1 to 64"),
            ("redis://h?ns=a*", "has to be 1 to 64"),
            ("redis://h?ns={a}", "has to be 1 to 64"),
            ("redis://h?ns=a&nss=b", "\"nss\" isn't known"),
            ("http://:secret@h?ns=a", "not the URL"),
            ("redis://:secret@h/x?ns=a", "not the URL"),
            ("secret", "namespace is needed"),
            ("secret?ns=a", "not the URL"),
            ("rediss://:secret@h/#insecure?ns=a", "fragment"),
            ("redis://:my?secret@h?ns=a", "%3F"),
        ];
        for (url, reason) in rows {
            let said = Settings::of(url, None).unwrap_err().to_string();
            assert!(said.contains(reason) && !said.contains("secret"), "{url}: {said}");
        }
    }

    #[cfg(not(feature = "redis-tls"))]
    #[test]
    fn tls_that_is_not_built_in_is_named() {
        assert_eq!(Settings::of("rediss://h?ns=a", None).unwrap_err(), RedisUrlError::NoTls);
    }
}
