//! What can go wrong with Redis, in words that say what to do about it. Neither passwords nor keys are in them.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::error::StorageError;

/// Why an operation failed; several may wait for the same connection and get the same.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    message: Arc<str>,
    /// In memory of its own: everything that is waited for has room for a failure.
    source: Option<Box<RedisError>>,
    /// The connection is good for nothing any more.
    pub(super) is_final: bool,
    /// There was no answer, of whatever kind.
    pub(super) was_unanswered: bool,
    /// There was none in time.
    pub(super) was_late: bool,
    /// The server doesn't have the script in its memory.
    pub(super) is_missing_script: bool,
    /// The server said that it didn't do it.
    pub(super) was_refused: bool,
}

impl Failure {
    /// Something that the client knows nothing about.
    pub(super) fn new(message: impl Into<Arc<str>>) -> Self {
        Self {
            message: message.into(),
            source: None,
            is_final: false,
            was_unanswered: false,
            was_late: false,
            is_missing_script: false,
            was_refused: false,
        }
    }

    /// The same where the connection mustn't be used again.
    pub(super) fn of_connection(message: impl Into<Arc<str>>) -> Self {
        Self { is_final: true, ..Self::new(message) }
    }

    /// Something took too long.
    pub(super) fn unanswered(message: impl Into<Arc<str>>) -> Self {
        Self { was_unanswered: true, was_late: true, ..Self::of_connection(message) }
    }

    /// An answer that the scripts and commands of this store don't give.
    pub(super) fn nonsense(what: &str) -> Self {
        Self::of_connection(format!("the server at the other end answers like no Redis: {what}"))
    }

    /// The same, whatever it is, where the connection has ended.
    pub(super) fn for_good(self) -> Self {
        Self { is_final: true, ..self }
    }

    /// The server doesn't take us for who we say we are.
    pub(super) fn of_who_we_are(self) -> Self {
        let is_plain = self.source.as_ref().is_some_and(|error| error.code().is_none_or(|code| code == "ERR"));
        let message = format!("user, password or database are wrong, or it wants none: {}", self.message);
        let message = if is_plain && !self.was_unanswered { message.into() } else { self.message };
        Self { message, is_final: true, ..self }
    }

    /// An error of the client or the server.
    pub(super) fn of(error: RedisError) -> Self {
        let role = matches!(
            error.kind(),
            ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown | ServerErrorKind::BusyLoading)
        );
        Self {
            message: words(&error).into(),
            // Of another role than before: a new connection may find the server that took over.
            is_final: role || error.is_unrecoverable_error() || error.is_timeout(),
            was_unanswered: error.is_io_error(),
            was_late: error.is_timeout(),
            is_missing_script: error.kind() == ErrorKind::Server(ServerErrorKind::NoScript),
            // Each script makes its last step a change, so that one that ends with an error has changed nothing.
            was_refused: matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension),
            source: Some(Box::new(error)),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Failure> for StorageError {
    fn from(failure: Failure) -> Self {
        let message = format!("Redis: {}", failure.message);
        match failure.source {
            Some(source) => Self::with_source(message, Cause::of(*source)),
            None => Self::new(message),
        }
    }
}

/// The system's error where there is one, so that whoever looks for it finds it.
struct Cause;

impl Cause {
    fn of(error: RedisError) -> Box<dyn std::error::Error + Send + Sync> {
        if error.is_connection_refusal() {
            return Box::new(std::io::Error::new(std::io::ErrorKind::ConnectionRefused, error));
        }
        if error.is_timeout() {
            return Box::new(std::io::Error::new(std::io::ErrorKind::TimedOut, error));
        }
        Box::new(error)
    }
}

/// What to do about what a server says, by the first word of it.
const ADVICE: [(&str, &str); 16] = [
    ("NOAUTH", "it wants a password: give one in the URL (`redis://:password@host`)"),
    ("WRONGPASS", "user or password are wrong, or the user is off"),
    ("NOPERM", "the user may not do all that is needed: docs/redis.md has the ACL rule"),
    ("LOADING", "it is still loading what it had on disk; wait"),
    ("READONLY", "it is a replica: give the address of the primary"),
    ("MASTERDOWN", "it is a replica without its primary: give the address of the primary"),
    ("NOREPLICAS", "it has fewer replicas than `min-replicas-to-write` asks for"),
    ("OOM", "its memory is full: set `maxmemory-policy` to `volatile-lfu`, or give it more"),
    ("MISCONF", "it can't write its snapshot to disk, and therefore takes no writes: look at its log"),
    ("BUSY", "a script of somebody else keeps it busy"),
    ("MOVED", "it is a cluster, which isn't supported yet: give the address of a single server"),
    ("CROSSSLOT", "it is a cluster, which isn't supported yet: give the address of a single server"),
    ("CLUSTERDOWN", "it is a cluster, which isn't supported yet: give the address of a single server"),
    ("WRONGTYPE", "another application keeps something else under this namespace: take another namespace"),
    ("NOTBUSY", "a script was ended by somebody"),
    ("UNBLOCKED", "it changed its role while it was waited for"),
];

fn words(error: &RedisError) -> Cow<'static, str> {
    // A script that fails tells the error of its command behind its own.
    let said = error.to_string();
    let named = |word: &str| error.code() == Some(word) || said.contains(&format!("{word} "));
    if let Some((word, advice)) = ADVICE.iter().find(|(word, _)| error.code() == Some(word)) {
        return format!("{advice} ({word})").into();
    }
    if error.is_connection_refusal() {
        return "nobody listens at its address: is it running, and are host and port right?".into();
    }
    if error.is_timeout() {
        return "it doesn't answer".into();
    }
    if error.is_io_error() {
        return format!("the connection broke: {error}").into();
    }
    if error.kind() == ErrorKind::AuthenticationFailed {
        return "user or password are wrong, or it wants none".into();
    }
    match ADVICE.iter().find(|(word, _)| named(word)) {
        Some((word, advice)) => format!("{advice} ({word})").into(),
        None => said.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(line: &str) -> Failure {
        let reply = redis::parse_redis_value(line.as_bytes()).and_then(|value| value.extract_error());
        Failure::of(reply.expect_err("an error"))
    }

    #[test]
    fn each_says_what_to_do() {
        for (word, advice) in ADVICE {
            let said = StorageError::from(failure(&format!("-{word} said the server\r\n"))).to_string();
            assert!(said.contains(advice), "{word}: {said}");
        }
        let inside = failure("-ERR OOM command not allowed script: 0123, on @user_script:3.\r\n");
        assert!(inside.message.contains("maxmemory-policy"), "{}", inside.message);
        assert!(failure("-ERR unknown command\r\n").message.contains("unknown command"));
    }

    #[test]
    fn a_connection_ends_where_another_one_may_find_more() {
        for (line, is_final) in
            [("-READONLY x\r\n", true), ("-LOADING x\r\n", true), ("-OOM x\r\n", false), ("-ERR x\r\n", false)]
        {
            assert_eq!(failure(line).is_final, is_final, "{line}");
        }
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let refused = Failure::of(refused.into());
        assert!(refused.is_final && refused.was_unanswered);
        let error = StorageError::from(refused);
        let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<std::io::Error>());
        assert_eq!(source.map(std::io::Error::kind), Some(std::io::ErrorKind::ConnectionRefused));
    }
}
