//! What to purge, and what is told about it afterwards.

use std::fmt;
use std::str::FromStr;

use crate::pattern::Malformed;

/// What a purge is aimed at.
///
/// A selector has a text form, for logs, tables of events and command lines, and is parsed from it:
///
/// | text | selector |
/// |---|---|
/// | `uri:/products/1?lang=de` | [`Uri`](Self::Uri) |
/// | `tag:product:1` | [`Tag`](Self::Tag) |
/// | `glob:/products/*` | [`Glob`](Self::Glob) |
/// | `regex:^/products/[0-9]+$` | [`Regex`](Self::Regex) |
/// | `partition:user-17` | [`Partition`](Self::Partition); bytes that aren't visible ASCII, and `%`, are percent-encoded |
/// | `everything` | [`Everything`](Self::Everything) |
///
/// ```
/// use larder::Selector;
/// let selector: Selector = "glob:/products/*".parse()?;
/// assert_eq!(selector, Selector::Glob("/products/*".into()));
/// assert_eq!(selector.to_string(), "glob:/products/*");
/// # Ok::<(), larder::PurgeError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Selector {
    /// One resource with all its variants and partitions: a path with query (`/products/1?lang=de`), on every host, or an absolute URI
    /// for one host.
    Uri(String),
    /// All responses with a tag: that a rule ([`Policy::tag`](crate::Policy::tag)), their handler ([`Cached::tag`](crate::Cached::tag)) or their fields `Cache-Tag` and
    /// `Surrogate-Key` gave them, and with all that the tag is a part of: `user` is borne by what is tagged `user:17`. The groups that a response names in
    /// `Cache-Groups` (RFC 9875) are tags as well, on every origin, but have no parts.
    Tag(String),
    /// All responses whose path, or path with query, is matched by a pattern in which `*` stands for any run of characters (`/` is one of
    /// them), `?` for one character, and `\` takes the meaning from what follows. At most 1 KiB, without control characters.
    Glob(String),
    /// All responses in whose path, or path with query, a [regular expression](https://docs.rs/regex) finds a match; `^` and `$` tie it to the ends. It runs in
    /// linear time, whatever it is. At most 1 KiB, without control characters, and bounded in what it compiles to.
    Regex(String),
    /// All that is stored for one principal of [`Policy::per`](crate::Policy::per), under every rule: its name, as the closure returns it.
    /// It is deleted from the store before the purge returns, and not only never served any more.
    ///
    /// ```
    /// # async fn erase(handle: larder::CacheHandle) -> Result<(), larder::PurgeError> {
    /// handle.purge(larder::Selector::Partition("user-17".into())).await?;
    /// # Ok(()) }
    /// ```
    Partition(Vec<u8>),
    /// Everything.
    Everything,
}

/// A purge has taken effect: nothing that was asked from a handler before it is ever served again by this cache; after a soft one, not as fresh. [`Reach`] says what that means for
/// other instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// The purge's number; later purges have larger ones.
    pub number: u64,
    /// How far it reaches.
    pub reach: Reach,
    /// What it set going, if that was asked ([`Purge::refresh`](crate::Purge::refresh)).
    pub refreshing: Option<Refreshing>,
}

/// What is refreshed behind a purge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refreshing {
    /// Responses that are asked for once more.
    pub refreshing: usize,
    /// Responses among the hottest for which the cache can't make the request itself, since their key holds a digest of what was asked, or they vary by somebody's
    /// `Cookie` or `Authorization`. Their next clients refresh them.
    pub skipped: usize,
    /// Why nothing is refreshed, where nothing can be.
    pub why_none: Option<NotRefreshed>,
}

/// Why nothing is refreshed behind a purge; it is a soft one all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotRefreshed {
    /// The cache has no way through the application: [`CacheHandle::refresh_through`](crate::CacheHandle::refresh_through) gives it one.
    NoWay,
    /// The store is one of the application's own, which can't tell what is in it.
    Unscannable,
    /// The cache was shut down.
    Closed,
}

impl Refreshing {
    pub(crate) fn none(why: NotRefreshed) -> Self {
        Self { refreshing: 0, skipped: 0, why_none: Some(why) }
    }
}

/// How far a purge reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reach {
    /// All caches of this process that share the handle's store, and no other instance.
    ThisProcess,
    /// All instances that share the store: here at once, and on any other within [`CacheLayer::staleness_bound`](crate::CacheLayer::staleness_bound) of the receipt.
    AllInstances,
}

/// What a purge would touch now; see [`Purge::dry_run`](crate::Purge::dry_run).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DryRun {
    /// Keys with at least one such response.
    pub entries: u64,
    /// Responses; an entry has one for each variant.
    pub responses: u64,
    /// Bytes that these responses take, as the store counts them.
    pub bytes: u64,
    /// How often these entries were read since they were stored.
    pub reads: u64,
}

/// A purge that could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PurgeError {
    /// The URI is none.
    #[error("{uri:?} is neither a path that begins with a slash nor an absolute URI")]
    Uri {
        /// As given.
        uri: String,
    },
    /// No response can bear the tag by name: it is empty, longer than 256 bytes, or has control characters.
    #[error("{tag:?} is no tag: {reason}")]
    Tag {
        /// As given, or its beginning if it is long.
        tag: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The pattern is too long, or can't be compiled.
    #[error("the pattern {pattern:?} can't be used: {reason}")]
    Pattern {
        /// As given, or its beginning if it is long.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The text is no selector.
    #[error("{text:?} is no selector: it begins with uri:, tag:, glob:, regex: or partition:, or is `everything`")]
    Selector {
        /// As given, or its beginning if it is long.
        text: String,
    },
    /// The cache has a store of its application's own, whose entries can't be walked through.
    #[error("only the store in memory can tell what it holds")]
    Unscannable,
    /// The cache was shut down before the purge was made.
    #[error("the cache was shut down before the purge was made")]
    Closed,
    /// The purge isn't in the log over which instances tell each other what they purge, so that others may still serve what it touches. It is tried again in the background, and until it is there
    /// this instance uses nothing that is stored.
    #[error("the purge is not in the log that all instances read, and is tried again: {source}")]
    Log {
        /// What went wrong.
        source: crate::error::StorageError,
    },
    /// The store failed to drop what was purged. It is not served any more, but may still take room.
    #[error(transparent)]
    Storage(#[from] crate::error::StorageError),
}

impl From<Malformed> for PurgeError {
    fn from(Malformed { pattern, reason }: Malformed) -> Self {
        Self::Pattern { pattern, reason }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uri(uri) => write!(f, "uri:{uri}"),
            Self::Tag(tag) => write!(f, "tag:{tag}"),
            Self::Glob(pattern) => write!(f, "glob:{pattern}"),
            Self::Regex(pattern) => write!(f, "regex:{pattern}"),
            Self::Partition(name) => {
                f.write_str("partition:")?;
                name.iter().try_for_each(|byte| match byte {
                    b'!'..=b'~' if *byte != b'%' => write!(f, "{}", char::from(*byte)),
                    _ => write!(f, "%{byte:02X}"),
                })
            }
            Self::Everything => f.write_str("everything"),
        }
    }
}

impl FromStr for Selector {
    type Err = PurgeError;

    fn from_str(text: &str) -> Result<Self, PurgeError> {
        if text == "everything" {
            return Ok(Self::Everything);
        }
        let unknown = || PurgeError::Selector { text: text.chars().take(100).collect() };
        let (kind, rest) = text.split_once(':').ok_or_else(unknown)?;
        match kind {
            "uri" => Ok(Self::Uri(rest.into())),
            "tag" => Ok(Self::Tag(rest.into())),
            "glob" => Ok(Self::Glob(rest.into())),
            "regex" => Ok(Self::Regex(rest.into())),
            "partition" => decoded(rest).map(Self::Partition).ok_or_else(unknown),
            _ => Err(unknown()),
        }
    }
}

/// The bytes that percent-encoded text stands for.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        let digit = |at: usize| char::from(digits[at]).to_digit(16);
        bytes.push(u8::try_from(digit(0)? * 16 + digit(1)?).ok()?);
        rest = after;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_forms() {
        let rows = [
            (Selector::Uri("/a?b=1:2".into()), "uri:/a?b=1:2"),
            (Selector::Tag("user:1:profile".into()), "tag:user:1:profile"),
            (Selector::Glob("/a/*".into()), "glob:/a/*"),
            (Selector::Regex("^/a(?:b|c)$".into()), "regex:^/a(?:b|c)$"),
            (Selector::Partition(b"me@home".to_vec()), "partition:me@home"),
            (Selector::Partition(b"a b%\xff\n".to_vec()), "partition:a%20b%25%FF%0A"),
            (Selector::Everything, "everything"),
        ];
        for (selector, text) in rows {
            assert_eq!(selector.to_string(), text);
            assert_eq!(text.parse::<Selector>().unwrap(), selector, "{text}");
        }
    }

    #[test]
    fn what_is_no_selector() {
        for text in
            ["", "/a", "all", "Everything", "everything:", "key:/a", "partition:%4", "partition:%zz", "partition:%+1"]
        {
            assert!(matches!(text.parse::<Selector>(), Err(PurgeError::Selector { .. })), "{text}");
        }
    }
}
