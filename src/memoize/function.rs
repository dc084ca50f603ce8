//! [`Function`]: what can be wrapped: a function or closure of up to six arguments, whose future is a result.

/// An async function with arguments `A`: a tuple of them, or the one that there is. `M` tells functions of different numbers of arguments apart; nobody has to name it.
pub trait Function<A, M>: Send + Sync + 'static {
    /// What it comes to.
    type Value;
    /// Or not.
    type Error: Send + Sync + 'static;
    /// On its way.
    type Future: Future<Output = Result<Self::Value, Self::Error>> + Send + 'static;

    /// Calls it.
    fn call(&self, arguments: A) -> Self::Future;
}

impl<F, L, V, E> Function<(), ()> for F
where
    F: Fn() -> L + Send + Sync + 'static,
    L: Future<Output = Result<V, E>> + Send + 'static,
    E: Send + Sync + 'static,
{
    type Value = V;
    type Error = E;
    type Future = L;

    fn call(&self, (): ()) -> L {
        self()
    }
}

impl<F, L, V, E, A> Function<A, (A,)> for F
where
    F: Fn(A) -> L + Send + Sync + 'static,
    L: Future<Output = Result<V, E>> + Send + 'static,
    E: Send + Sync + 'static,
{
    type Value = V;
    type Error = E;
    type Future = L;

    fn call(&self, argument: A) -> L {
        self(argument)
    }
}

macro_rules! functions {
    ($($argument:ident $name:ident),+) => {
        impl<F, L, V, E, $($argument),+> Function<($($argument,)+), ($($argument,)+)> for F
        where
            F: Fn($($argument),+) -> L + Send + Sync + 'static,
            L: Future<Output = Result<V, E>> + Send + 'static,
            E: Send + Sync + 'static,
        {
            type Value = V;
            type Error = E;
            type Future = L;

            fn call(&self, ($($name,)+): ($($argument,)+)) -> L {
                self($($name),+)
            }
        }
    };
}

functions!(A a, B b);
functions!(A a, B b, C c);
functions!(A a, B b, C c, D d);
functions!(A a, B b, C c, D d, G g);
functions!(A a, B b, C c, D d, G g, H h);
