//! [`Memoize`]: what an async function comes to, kept by its arguments.
//!
//! | what | whose |
//! |---|---|
//! | which functions can be wrapped | `function.rs` |
//! | arguments as keys | `keys.rs`, and as a text that no others have, `arguments.rs` |
//! | where results are kept | `backing.rs` |

#[cfg(feature = "data")]
mod arguments;
mod backing;
mod function;
mod keys;

use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use self::backing::{Backing, Said};
use self::function::Function;
use self::keys::KeyOf;
use self::keys::{AsTheyAre, By};
#[cfg(feature = "data")]
use self::keys::{Named, Serialized};
#[cfg(feature = "data")]
use crate::data::DataCache;
#[cfg(feature = "data")]
use crate::naming::is_data_name;
use crate::objects::ObjectCache;

/// How the results of a function are to be kept; [`wrap`](Self::wrap) then gives the function that does it. From [`DataCache::memoize`](crate::DataCache::memoize) or
/// [`ObjectCache::memoize`].
///
/// The setters say what those of the cache say, for this function. Where the arguments are named in a closure, their type is written there: a tuple, or the one argument itself.
#[must_use = "it wraps no function yet"]
pub struct Memoize<C, A, V, K> {
    cache: C,
    keys: K,
    tags: Vec<TagBy<A>>,
    keep_if: Option<KeepIf<V>>,
}

type TagBy<A> = Box<dyn Fn(&A, &mut Vec<String>) + Send + Sync>;
pub(crate) type KeepIf<V> = Arc<dyn Fn(&V) -> bool + Send + Sync>;

#[cfg(feature = "data")]
impl DataCache {
    /// A function whose results are kept, under a name of its own: with values that serde knows, in whichever store the cache has. Its keys are `NAME:ARGUMENTS`, the arguments in a form that no
    /// other ones have; so a purge of the pattern `CACHE:NAME:*` drops all of its results, with `CACHE` for the name of the cache.
    ///
    /// Arguments that serialise to the same are the same. Those that hold a number which isn't finite have no key: the function is then called each time.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use larder::{CacheLayer, Selector};
    ///
    /// async fn top_products(category: String, most: usize) -> Result<Vec<u64>, std::io::Error> {
    ///     Ok((0..most as u64).collect()) // a slow query
    /// }
    ///
    /// let cache = CacheLayer::in_memory(64 << 20);
    /// let top_products = cache
    ///     .data("shop")
    ///     .memoize("top_products")
    ///     .ttl(Duration::from_secs(60))
    ///     .stale_while_revalidate(Duration::from_secs(600))
    ///     .tag_by(|(category, _): &(String, usize)| [format!("category:{category}")])
    ///     .cache_if(|products: &Vec<u64>| !products.is_empty())
    ///     .wrap(top_products);
    ///
    /// // In a handler:
    /// let products = top_products.call(("books".into(), 10)).await?;
    /// assert_eq!(products.len(), 10);
    ///
    /// // Where something changes: with the pages that were made from it.
    /// cache.handle().purge(Selector::Tag("category:books".into())).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Panics
    /// If the name isn't of 1 to 64 of the letters `a` to `z`, digits, `_` and `-`.
    pub fn memoize<A, V>(&self, name: &str) -> Memoize<Self, A, V, Named<Serialized>> {
        assert!(
            is_data_name(name),
            "{name:?} is no name of a function: it has 1 to 64 of the letters a to z, digits, `_` and `-`"
        );
        Memoize::new(self.clone(), Named::new(name, Serialized))
    }
}

impl<K, V> ObjectCache<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// A function whose results are kept as they are, behind an [`Arc`]. Its arguments are the keys, so a cache is for one function.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use larder::{CacheLayer, Memoized};
    ///
    /// struct Template(String); // nothing that serde knows
    ///
    /// async fn template(name: String, language: String) -> Result<Template, std::io::Error> {
    ///     Ok(Template(format!("{name} in {language}"))) // read and compiled
    /// }
    ///
    /// let cache = CacheLayer::in_memory(64 << 20);
    /// let template: Memoized<(String, String), _, _> = cache.objects("templates").ttl(Duration::from_secs(3600)).memoize().wrap(template);
    /// let found = template.call(("invoice".into(), "en".into())).await?;
    /// assert_eq!(found.0, "invoice in en");
    /// # Ok(()) }
    /// ```
    pub fn memoize<A>(self) -> Memoize<Self, A, V, AsTheyAre> {
        Memoize::new(self, AsTheyAre)
    }
}

impl<C, A, V, K> Memoize<C, A, V, K> {
    fn new(cache: C, keys: K) -> Self {
        Self { cache, keys, tags: Vec::new(), keep_if: None }
    }

    /// Tags of a result, by the arguments: a purge of one of them drops it.
    pub fn tag_by<I>(mut self, tags: impl Fn(&A) -> I + Send + Sync + 'static) -> Self
    where
        I: IntoIterator<Item: Into<String>>,
    {
        self.tags.push(Box::new(move |args, all| all.extend(tags(args).into_iter().map(Into::into))));
        self
    }

    /// A result is kept only if this says so. Those who wait for it get it in any case.
    pub fn cache_if(mut self, wanted: impl Fn(&V) -> bool + Send + Sync + 'static) -> Self {
        self.keep_if = Some(Arc::new(wanted));
        self
    }
}

#[cfg(feature = "data")]
impl<A, V, K> Memoize<DataCache, A, V, Named<K>> {
    /// The key of a result, by the arguments, where not all of them count or they can't be serialised. Different arguments must have different ones.
    pub fn key_by<G: Fn(&A) -> String>(self, key: G) -> Memoize<DataCache, A, V, Named<By<G>>> {
        let Self { cache, keys, tags, keep_if } = self;
        Memoize { cache, keys: keys.with(By(key)), tags, keep_if }
    }
}

impl<K, A, V, B> Memoize<ObjectCache<K, V>, A, V, B> {
    /// The key of a result, by the arguments, where not all of them count. Different arguments must have different ones.
    pub fn key_by<G: Fn(&A) -> K>(self, key: G) -> Memoize<ObjectCache<K, V>, A, V, By<G>> {
        let Self { cache, keys: _, tags, keep_if } = self;
        Memoize { cache, keys: By(key), tags, keep_if }
    }
}

impl<C: Backing<V>, A, V, K> Memoize<C, A, V, K> {
    /// How long a result is fresh; as for anything else in the cache by default.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.cache = self.cache.ttl(ttl);
        self
    }

    /// A result that nobody asks for during this time is over.
    pub fn sliding(mut self, idle: Duration) -> Self {
        self.cache = self.cache.sliding(idle);
        self
    }

    /// For how long behind its end a result may still be given, while the function is called behind that.
    pub fn stale_while_revalidate(mut self, window: Duration) -> Self {
        self.cache = self.cache.stale_while_revalidate(window);
        self
    }

    /// For how long behind its end a result is given where the function fails.
    pub fn stale_if_error(mut self, window: Duration) -> Self {
        self.cache = self.cache.stale_if_error(window);
        self
    }

    /// For how long an error of the function is given again before it is called once more; not at all by default.
    pub fn error_ttl(mut self, ttl: Duration) -> Self {
        self.cache = self.cache.error_ttl(ttl);
        self
    }

    /// A tag of all results.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.cache = self.cache.tag(tag.into());
        self
    }

    /// The function itself: `async fn(..) -> Result<V, E>` of up to six arguments, or a closure of the kind. Many who call it at a time with the same arguments are one call of the function; the
    /// others get its result, or its error.
    pub fn wrap<F, M>(self, function: F) -> Memoized<A, C::Given, F::Error>
    where
        A: Send + Sync + 'static,
        F: Function<A, M, Value = V>,
        M: 'static,
        V: 'static,
        K: KeyOf<A, C::Key>,
    {
        Memoized(Arc::new(Wrapped { memoize: self, function, marker: PhantomData }))
    }
}

/// An async function whose results are kept. Clones share them.
///
/// It can be named, so that it has a place in an application's state: `Memoized<(String, usize), Vec<Product>, DbError>`. Results are given as `V` by a
/// [`DataCache`](crate::DataCache), and as [`Arc<V>`](Arc) by an [`ObjectCache`].
pub struct Memoized<A, T, E>(Arc<dyn Calls<A, T, E>>);

impl<A, T, E> Memoized<A, T, E> {
    /// Calls the function with these arguments, unless its result is there: a tuple of them, or the one that there is.
    ///
    /// # Errors
    /// That of the function, shared by all who waited for the same call.
    pub async fn call(&self, arguments: A) -> Result<T, Arc<E>> {
        match self.0.at_once(&arguments) {
            Some(result) => Ok(result),
            None => self.0.call(arguments).await,
        }
    }

    /// Drops the result for these arguments, and what a call that is on its way brings; tells whether anything was kept.
    pub async fn forget(&self, arguments: &A) -> bool {
        self.0.forget(arguments).await
    }
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The one place where the types of a wrapped function and its cache are erased.
trait Calls<A, T, E>: Send + Sync {
    fn at_once(&self, arguments: &A) -> Option<T>;
    fn call(&self, arguments: A) -> Boxed<'_, Result<T, Arc<E>>>;
    fn forget(&self, arguments: &A) -> Boxed<'_, bool>;
}

struct Wrapped<C, A, V, K, F, M> {
    memoize: Memoize<C, A, V, K>,
    function: F,
    marker: PhantomData<fn() -> M>,
}

impl<C, A, V, K, F, M> Calls<A, C::Given, F::Error> for Wrapped<C, A, V, K, F, M>
where
    A: Send + Sync + 'static,
    C: Backing<V>,
    V: 'static,
    K: KeyOf<A, C::Key>,
    F: Function<A, M, Value = V>,
    M: 'static,
{
    fn at_once(&self, arguments: &A) -> Option<C::Given> {
        let Memoize { cache, keys, .. } = &self.memoize;
        cache.at_once(&keys.key(arguments)?)
    }

    fn call(&self, arguments: A) -> Boxed<'_, Result<C::Given, Arc<F::Error>>> {
        let Memoize { cache, keys, tags, keep_if } = &self.memoize;
        let Some(key) = keys.key(&arguments) else {
            let called = self.function.call(arguments);
            return Box::pin(async { called.await.map(C::given).map_err(Arc::new) });
        };
        let mut said = Said { tags: Vec::new(), keep_if: keep_if.clone() };
        tags.iter().for_each(|tag| tag(&arguments, &mut said.tags));
        Box::pin(cache.load(key, said, move || self.function.call(arguments)))
    }

    fn forget(&self, arguments: &A) -> Boxed<'_, bool> {
        let Memoize { cache, keys, .. } = &self.memoize;
        match keys.key(arguments) {
            Some(key) => Box::pin(cache.forget(key)),
            None => Box::pin(std::future::ready(false)),
        }
    }
}

impl<A, T, E> Clone for Memoized<A, T, E> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<A, T, E> fmt::Debug for Memoized<A, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memoized").finish_non_exhaustive()
    }
}

impl<C: fmt::Debug, A, V, K> fmt::Debug for Memoize<C, A, V, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memoize").field("cache", &self.cache).finish_non_exhaustive()
    }
}
