//! Which spellings of host and port name the same origin (RFC 9110 §4.2.3).

use smallvec::SmallVec;

/// A normalised authority; nearly always short enough to need no memory of its own.
pub type Authority = SmallVec<[u8; 64]>;

/// `authority` in lower case and without the default port of `scheme` (`http` if unknown).
///
/// Nothing else is changed: a trailing dot, user information or a port of `:0080` stay, since an application can tell them apart.
///
/// ```
/// use larder::rfc9111::authority::normalised;
/// assert_eq!(normalised(b"Example.COM:80", None).as_slice(), b"example.com");
/// assert_eq!(normalised(b"example.com:443", Some("https")).as_slice(), b"example.com");
/// assert_eq!(normalised(b"example.com:443", Some("http")).as_slice(), b"example.com:443");
/// ```
pub fn normalised(authority: &[u8], scheme: Option<&str>) -> Authority {
    let port: &[u8] = if scheme.is_some_and(|s| s.eq_ignore_ascii_case("https")) { b":443" } else { b":80" };
    let host = authority.strip_suffix(port).unwrap_or(authority);
    let mut normal = Authority::from_slice(host);
    normal.make_ascii_lowercase();
    normal
}
