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
    name: Arc<Naming>,
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
        Self { id, name: Arc::new(move |head| principal(head).map(|name| name.as_ref().to_vec())) }
    }

    /// Whom the answer is for; `None` where nobody is named.
    pub(crate) fn name(&self, head: &RequestHead<'_>) -> Option<Vec<u8>> {
        (self.name)(head)
    }

    /// One that is told apart by `id` alone.
    #[cfg(feature = "config")]
    pub(crate) fn named(
        id: String,
        name: impl Fn(&RequestHead<'_>) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        Self { id, name: Arc::new(name) }
    }

    /// The same closure under a name.
    #[cfg(feature = "config")]
    pub(crate) fn known_as(mut self, name: &str) -> Self {
        self.id = format!("{name:?} ({})", self.id);
        self
    }
}
