//! [`Scope`]: which responses a task is making, as long as it is polled for them.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Request;
use pin_project_lite::pin_project;
use smallvec::SmallVec;

use super::{Used, UsedTags};
use crate::admission::InHand;
use crate::boarding::Given;
use crate::cache::State;
use crate::flight::Gatherer;
use crate::sync::Arc;

thread_local! {
    static CURRENT: Cell<Option<Scope>> = const { Cell::new(None) };
}

/// Where the tags go that a response is made from.
#[derive(Clone)]
pub(crate) enum Sink {
    /// To a flight, which makes a place for them when somebody asks.
    Flight(Gatherer<Given>, std::sync::Arc<State>),
    Own(Arc<Used>),
}

impl Sink {
    fn open(self) -> Arc<Used> {
        match self {
            Self::Flight(gatherer, state) => {
                gatherer.open(&state.flights, || Arc::new(Used::new(&state))).unwrap_or_else(|| {
                    let used = Used::new(&state);
                    used.end();
                    Arc::new(used)
                })
            }
            Self::Own(used) => used,
        }
    }
}

/// The responses that are being made from the same: one for each cache that has the request in hand.
#[derive(Clone, Default)]
pub(crate) struct Scope(SmallVec<[Sink; 1]>);

impl Scope {
    pub(crate) fn of(sinks: impl IntoIterator<Item = Sink>) -> Self {
        Self(sinks.into_iter().collect())
    }

    /// The responses that may be stored of what the handler says to a request.
    pub(crate) fn of_request<B>(request: &Request<B>) -> Self {
        request.extensions().get().map(InHand::scope).unwrap_or_default()
    }

    /// That of this task, if it has one.
    #[inline]
    pub(super) fn current() -> Option<Self> {
        let current = CURRENT.try_with(|current| {
            // Mostly there is none, and then there is nothing to put back.
            let scope = current.take()?;
            current.set(Some(scope.clone()));
            Some(scope)
        });
        // Where the thread is ending there is none.
        current.ok().flatten()
    }

    pub(super) fn open(self) -> UsedTags {
        UsedTags(self.0.into_iter().map(Sink::open).collect())
    }

    pub(crate) fn around<F>(self, future: F) -> Scoped<F> {
        Scoped { scope: self.some(), future }
    }

    /// The same, where what is used on the way to the future counts as well.
    pub(crate) fn around_made<F>(self, make: impl FnOnce() -> F) -> Scoped<F> {
        let mut scope = self.some();
        let future = Self::within(&mut scope, make);
        Scoped { scope, future }
    }

    /// `None` where nobody listens. Then whatever is around it stays.
    pub(crate) fn some(self) -> Option<Self> {
        (!self.0.is_empty()).then_some(self)
    }

    /// Does something while `scope`, if there is one, is that of the task.
    pub(crate) fn within<R>(scope: &mut Option<Self>, work: impl FnOnce() -> R) -> R {
        if scope.is_none() {
            return work();
        }
        let _inside = Inside::enter(scope);
        work()
    }
}

/// Inside of a scope, which is in the thread's place meanwhile; what was there before is in the scope's.
struct Inside<'a>(&'a mut Option<Scope>);

impl<'a> Inside<'a> {
    fn enter(scope: &'a mut Option<Scope>) -> Self {
        let mut inside = Self(scope);
        inside.swap();
        inside
    }

    fn swap(&mut self) {
        let scope = self.0.take();
        let _ = CURRENT.try_with(|current| *self.0 = current.replace(scope));
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.swap();
    }
}

pin_project! {
    /// A future whose tags count.
    pub(crate) struct Scoped<F> {
        #[pin]
        future: F,
        scope: Option<Scope>,
    }
}

impl<F: Future> Future for Scoped<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        Scope::within(this.scope, || this.future.poll(cx))
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::cache::CacheCore;
    use crate::settings::Settings;
    use crate::storage::MemoryStore;
    use crate::storage::backend::Backend;

    fn used() -> Arc<Used> {
        let core = CacheCore::new(Settings::new(Backend::memory(MemoryStore::new(1 << 20))));
        Arc::new(Used::new(&core.state))
    }

    fn names(used: &Used) -> Vec<String> {
        used.so_far().names.used().map(str::to_owned).collect()
    }

    #[test]
    fn what_is_inside_has_the_inner_scope_and_what_comes_after_the_outer_one() {
        let (outer, inner) = (used(), used());
        let [mut one, mut other] = [&outer, &inner].map(|used| Some(Scope::of([Sink::Own(used.clone())])));
        let mut none = Scope::default().some();
        Scope::within(&mut one, || {
            UsedTags::current().add("before");
            Scope::within(&mut other, || UsedTags::current().add("inside"));
            Scope::within(&mut none, || UsedTags::current().add("unheard"));
            let panicked = catch_unwind(AssertUnwindSafe(|| Scope::within(&mut other, || panic!("of the handler"))));
            assert!(panicked.is_err());
            UsedTags::current().add("after");
        });
        UsedTags::current().add("nowhere");
        assert_eq!(
            (names(&outer), names(&inner)),
            (vec!["before".into(), "unheard".into(), "after".into()], vec!["inside".into()])
        );
        assert!(one.is_some() && other.is_some() && !UsedTags::current().is_heard());
    }
}
