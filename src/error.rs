//! What can be wrong with a setting, and what can go wrong in a store. Requests never see either.

use std::sync::Arc;

use http::StatusCode;

/// A rule that can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// The pattern is no regular expression that `regex` takes.
    #[error("rule {rule:?}: the pattern is not a valid regular expression: {source}")]
    Pattern {
        /// The pattern as given.
        rule: String,
        /// What is wrong with it.
        #[source]
        source: Box<regex::Error>,
    },
    /// A number or a time of the policy is one that can't be followed.
    #[error("rule {rule:?}: `{setting}` has to be {wanted}")]
    OutOfRange {
        /// The pattern of the rule.
        rule: String,
        /// The setter.
        setting: &'static str,
        /// What it takes.
        wanted: &'static str,
    },
    /// A tag or a pattern of the policy can't be followed: it refers to what the rule's pattern doesn't capture, or is none.
    #[error("rule {rule:?}: `{setting}({template:?})`: {reason}")]
    Template {
        /// The pattern of the rule.
        rule: String,
        /// The setter.
        setting: &'static str,
        /// What it was given.
        template: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The policy names a status that is never stored.
    #[error(
        "rule {rule:?}: {status} is never stored, since a hostile request may provoke it and would then take the page \
         down for everybody; take {status} out of `status_ttl` or `statuses`"
    )]
    StatusNeverStored {
        /// The pattern of the rule.
        rule: String,
        /// The status.
        status: StatusCode,
    },
}

/// A store that couldn't do what it was asked. The cache counts it, logs it, and goes on without the store.
#[derive(Debug, thiserror::Error)]
#[error("the store failed: {message}")]
pub struct StorageError {
    message: String,
    trouble: Trouble,
    /// It is known that nothing was changed.
    changed_nothing: bool,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What an error says about those that would come after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// Nothing yet.
    Failed,
    /// Nobody is there.
    Unreachable,
    /// There was no answer in time.
    TimedOut,
    /// The store wasn't asked, or not waited for.
    Spared,
    /// The store can't do that at all.
    Unsupported,
}

impl StorageError {
    /// An error that only has a message.
    pub fn new(message: impl Into<String>) -> Self {
        Self::of(Trouble::Failed, message)
    }

    /// The store isn't there, as when a connection is refused: a [guard](crate::storage::Guarded) asks it for nothing more until it is back.
    pub fn unreachable(message: impl Into<String>) -> Self {
        Self::of(Trouble::Unreachable, message)
    }

    pub(crate) fn timed_out(message: impl Into<String>) -> Self {
        Self::of(Trouble::TimedOut, message)
    }

    pub(crate) fn spared(message: impl Into<String>) -> Self {
        Self::of(Trouble::Spared, message)
    }

    fn of(trouble: Trouble, message: impl Into<String>) -> Self {
        let changed_nothing = matches!(trouble, Trouble::Unreachable | Trouble::Spared | Trouble::Unsupported);
        Self { message: message.into(), trouble, changed_nothing, source: None }
    }

    /// The store changed nothing: it is full, or takes no writes, for example. Of an error that doesn't say so it isn't known.
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(message).after(false)
    }

    /// The store has no such operation; nothing was done.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::of(Trouble::Unsupported, message)
    }

    /// Whether what was asked for may have been done all the same: there was no answer, say, or one that doesn't tell. It matters where something must not be
    /// [done twice](crate::storage::Storage::swap).
    pub fn may_be_done(&self) -> bool {
        !self.changed_nothing
    }

    /// Whether the store has no such operation.
    pub fn is_unsupported(&self) -> bool {
        self.trouble == Trouble::Unsupported
    }

    /// The same error, where it is known whether the store was asked for what it could have done.
    pub(crate) fn after(self, something: bool) -> Self {
        Self { changed_nothing: !something, ..self }
    }

    /// Whether nobody is there: it was [said so](Self::unreachable), or the error was caused by a connection that was refused.
    pub fn is_unreachable(&self) -> bool {
        let mut causes = std::iter::successors(std::error::Error::source(self), |cause| cause.source());
        let refused = |cause: &(dyn std::error::Error + 'static)| {
            let io = cause.downcast_ref::<std::io::Error>();
            io.is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused)
        };
        self.trouble == Trouble::Unreachable || causes.any(refused)
    }

    /// Whether a [guard](crate::storage::Guarded) waited for the answer as long as it may.
    pub fn is_timeout(&self) -> bool {
        self.trouble == Trouble::TimedOut
    }

    /// Whether a [guard](crate::storage::Guarded) spared the store this operation, or the caller the wait for it: nothing more was learned about the store.
    pub fn is_spared(&self) -> bool {
        self.trouble == Trouble::Spared
    }

    /// An error that was caused by another.
    pub fn with_source(
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { source: Some(source.into()), ..Self::new(message) }
    }
}

/// Why the content of a response broke off. A server that gets it ends the exchange in a way that its client can tell from a clean end.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{source}")]
pub struct BodyError {
    /// Shared, since all who read the same content get it.
    source: Arc<dyn std::error::Error + Send + Sync>,
}

/// What a body may fail with, as tower and hyper have it.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What makes content break off where the handler's body has no error to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Broken {
    /// The handler's body panicked, for whoever asked it, or the process is ending.
    #[error("its source is gone")]
    Gone,
    /// It had another length than the head says.
    #[error("it has another length than was announced")]
    Length,
    /// One of several readers took nothing for so long that the others would have waited.
    #[error("it was read too slowly, and too large to be kept")]
    TooSlow,
}

impl BodyError {
    pub(crate) fn new(source: impl Into<BoxError>) -> Self {
        Self { source: Arc::from(source.into()) }
    }
}
