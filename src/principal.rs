//! [`Principal`]: whom the answers of a partition are for, and how closures that say so are told apart.

use std::any::TypeId;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::request::RequestHead;

type Naming = dyn Fn(&RequestHead<'_>) -> Option<Vec<u8>> + Send + Sync;

/// A closure that names whom the answer to a request is for.
#[derive(Clone)]
pub(crate) struct Principal {
    /// Tells closures apart: two that may name somebody differently never have the same.
    pub(crate) id: String,
    /// What a configuration calls it; nothing where code alone knows it.
    #[cfg(feature = "config")]
    pub(crate) called: Option<Called>,
    name: Arc<Naming>,
}

/// How a configuration says whom an answer is for.
#[cfg(feature = "config")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Called {
    /// A closure under the name that code gave it.
    Name(String),
    /// The value of a field.
    Header(http::HeaderName),
    /// The value of a cookie.
    Cookie(String),
}

impl Principal {
    pub(crate) fn new<P, F>(principal: F) -> Self
    where
        P: AsRef<[u8]>,
        F: Fn(&RequestHead<'_>) -> Option<P> + Send + Sync + 'static,
    {
        // A closure that captures nothing is all in its type, so wherever it is written down it is the same one. Any other may differ from
        // each of its kind.
        let id = if size_of::<F>() == 0 {
            format!("{:?}", TypeId::of::<F>())
        } else {
            static NEXT: AtomicU64 = AtomicU64::new(1);
            format!("closure {}", NEXT.fetch_add(1, Ordering::Relaxed))
        };
        Self {
            id,
            #[cfg(feature = "config")]
            called: None,
            name: Arc::new(move |head| principal(head).map(|name| name.as_ref().to_vec())),
        }
    }

    /// Whom the answer is for; `None` where nobody is named.
    pub(crate) fn name(&self, head: &RequestHead<'_>) -> Option<Vec<u8>> {
        (self.name)(head)
    }

    /// One of a field or a cookie, which is told apart by that alone.
    #[cfg(feature = "config")]
    pub(crate) fn of(
        called: Called,
        name: impl Fn(&RequestHead<'_>) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let id = match &called {
            Called::Name(name) => format!("{name:?}"),
            Called::Header(name) => format!("header {name}"),
            Called::Cookie(name) => format!("cookie {name}"),
        };
        Self { id, called: Some(called), name: Arc::new(name) }
    }

    /// The same closure under a name.
    #[cfg(feature = "config")]
    pub(crate) fn known_as(self, name: &str) -> Self {
        let called = Some(Called::Name(name.into()));
        if self.called == called {
            return self;
        }
        Self { id: format!("{name:?} ({})", self.id), called, ..self }
    }

    /// The same closure, as a configuration may call it that is written for rules which only code made. What is stored under it stays good.
    #[cfg(feature = "admin")]
    pub(crate) fn lent_as(self, name: String) -> Self {
        Self { called: Some(Called::Name(name)), ..self }
    }
}
