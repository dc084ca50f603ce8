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
    let mut normal = Authority::from_slice(without_default_port(authority, scheme));
    normal.make_ascii_lowercase();
    normal
}

/// `authority` without the default port of `scheme` (`http` if unknown), in the case that it is in.
pub(crate) fn without_default_port<'a>(authority: &'a [u8], scheme: Option<&str>) -> &'a [u8] {
    let port: &[u8] = if scheme.is_some_and(|s| s.eq_ignore_ascii_case("https")) { b":443" } else { b":80" };
    authority.strip_suffix(port).filter(|host| is_host(host)).unwrap_or(authority)
}

/// Whether what is left without the port can be a host: not nothing, and not something that still ends in a port. `h:81:80` is junk, and no
/// other spelling of `h:81`.
fn is_host(rest: &[u8]) -> bool {
    !rest.is_empty() && (rest.ends_with(b"]") || !rest.contains(&b':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_default_port_behind_a_host_goes() {
        // RFC 9110 §4.2.3, RFC 3986 §3.2.2
        let rows: [(&[u8], &[u8]); 10] = [
            (b"H:80", b"h"),
            (b"h:81", b"h:81"),
            (b"h:080", b"h:080"),
            (b"h.", b"h."),
            (b"[::1]:80", b"[::1]"),
            (b"[::1]", b"[::1]"),
            (b"h:81:80", b"h:81:80"),
            (b"h:80:80", b"h:80:80"),
            (b"::1:80", b"::1:80"),
            (b":80", b":80"),
        ];
        for (sent, expected) in rows {
            assert_eq!(normalised(sent, None).as_slice(), expected, "{}", String::from_utf8_lossy(sent));
        }
    }
}
