//! Every cache for Rust services, set up around the handler as its documentation says, with as much room and as long lifetimes as the others.

use std::convert::Infallible;
use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::routing::get;
use axum_response_cache::BasicKeyer;
use cached::LruTtlCache;
use http_cache::{MokaCache, MokaManager};
use http_cache_tower_server::{ServerCacheLayer, ServerCacheOptions};
use larder::storage::{MemoryStore, RedisStore};
use larder::{CacheLayer, Compression, Policy, Selector};
use tower::layer::layer_fn;
use tower::{Layer, ServiceExt, service_fn};
use tower_http::compression::CompressionLayer;
use tower_http_cache::backend::CacheBackend;
use tower_http_cache::backend::memory::InMemoryBackend;
use tower_http_cache::backend::redis::RedisBackend;

use crate::handler::Handler;
use crate::setup::{Setup, Subject};

pub type BoxError = Box<dyn Error + Send + Sync>;
type Purging = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

pub const PATH: &str = "/item/{key}";

/// Makes the cache forget the response of a path.
pub type Purge = Arc<dyn Fn(String) -> Purging + Send + Sync>;

pub struct App {
    pub router: Router,
    pub handler: Handler,
    /// Of what is a cache.
    pub purge: Option<Purge>,
}

/// The subject as the setup says, as an axum application.
pub async fn app(setup: &Setup) -> Result<App, BoxError> {
    let handler = handler(setup);
    let answering = handler.clone();
    let route = get(move |request: Request| {
        let handler = answering.clone();
        async move { handler.answer(request).await }
    });
    let bare = Router::new().route(PATH, route);
    let (router, purge) = match setup.subject {
        Subject::Larder | Subject::LarderTiered | Subject::LarderRedis => with_larder(bare, &larder(setup)?),
        Subject::AxumResponseCache => with_axum_response_cache(bare, setup),
        Subject::TowerHttpCache => {
            with_tower_http_cache(handler.clone(), tower_http_cache(setup, InMemoryBackend::new(setup.entries)))
        }
        Subject::TowerHttpCacheRedis => {
            let url = setup.store.as_deref().ok_or("there is no Redis")?;
            let connection = redis::Client::open(url)?.get_connection_manager().await?;
            with_tower_http_cache(handler.clone(), tower_http_cache(setup, RedisBackend::new(connection)))
        }
        Subject::HttpCacheTowerServer => with_http_cache(bare, http_cache(setup)),
        Subject::Bare | Subject::BareOneBody => return Ok(App { router: bare, handler, purge: None }),
        Subject::Varnish | Subject::Nginx => return Err("it is no axum application".into()),
    };
    // Of the Rust caches only larder keeps both forms; the others are right for all clients only if they are compressed behind, each time.
    let router = if setup.gzip && !setup.subject.is_larder() { router.layer(CompressionLayer::new()) } else { router };
    Ok(App { router, handler, purge: Some(purge) })
}

/// The handler of a setup.
pub fn handler(setup: &Setup) -> Handler {
    match setup.subject {
        Subject::Bare if !setup.working => Handler::of_constants(setup),
        Subject::BareOneBody => Handler::of_constants(&Setup { keys: 1, ..setup.clone() }),
        _ => Handler::of_any_key(setup),
    }
}

/// In memory, or in what `store` names, with memory before it or without.
pub fn larder(setup: &Setup) -> Result<CacheLayer, BoxError> {
    let (ttl, swr) = (Duration::from_secs(setup.ttl), Duration::from_secs(setup.swr));
    let policy = match setup.swr {
        0 => Policy::shared(ttl),
        _ => Policy::shared(ttl).stale_while_revalidate(swr),
    };
    let memory = MemoryStore::new(setup.capacity);
    let cache = match (&setup.store, setup.subject) {
        (None, _) => CacheLayer::with_memory(memory),
        (Some(url), Subject::LarderTiered) => CacheLayer::tiered(memory, RedisStore::in_namespace(url, "peers")?),
        (Some(url), _) => CacheLayer::with_storage(RedisStore::in_namespace(url, "peers")?),
    };
    let cache = cache.rule("^/item/", policy);
    Ok(if setup.gzip { cache.compress(Compression::gzip()) } else { cache })
}

fn with_larder(bare: Router, cache: &CacheLayer) -> (Router, Purge) {
    let handle = cache.handle();
    let purge: Purge = Arc::new(move |path| {
        let purge = handle.purge(Selector::Uri(path));
        Box::pin(async move { Ok(purge.await.map(drop)?) })
    });
    (bare.layer(cache.clone()), purge)
}

type AxumResponseCache<C> = axum_response_cache::CacheLayer<C, BasicKeyer>;
type Response = axum_response_cache::CachedResponse;
type Key = axum_response_cache::BasicKey;

/// Without a bound, as its documentation has it.
pub fn axum_response_cache(setup: &Setup) -> AxumResponseCache<cached::TtlCache<Key, Response>> {
    let ttl = Duration::from_secs(setup.ttl);
    axum_response_cache::CacheLayer::with(cached::TtlCache::with_ttl(ttl)).add_response_headers().allow_invalidation()
}

fn with_axum_response_cache(bare: Router, setup: &Setup) -> (Router, Purge) {
    // Where keys never end, a store without a bound would be another thing than the others are.
    let router = if setup.working {
        let store = LruTtlCache::with_size_and_ttl(setup.entries as usize, Duration::from_secs(setup.ttl));
        bare.layer(axum_response_cache::CacheLayer::with(store).add_response_headers())
    } else {
        bare.layer(axum_response_cache(setup))
    };
    let purging = router.clone();
    let purge: Purge = Arc::new(move |path| {
        let router = purging.clone();
        // It purges while it answers.
        Box::pin(async move {
            let request = Request::get(path).header("x-invalidate-cache", "true").body(Body::empty())?;
            Ok(router.oneshot(request).await.map(drop)?)
        })
    });
    (router, purge)
}

pub struct TowerHttpCache<B> {
    pub layer: tower_http_cache::layer::CacheLayer<B>,
    backend: B,
}

pub fn tower_http_cache<B: CacheBackend>(setup: &Setup, backend: B) -> TowerHttpCache<B> {
    let layer = tower_http_cache::layer::CacheLayer::builder(backend.clone())
        .ttl(Duration::from_secs(setup.ttl))
        .stale_while_revalidate(Duration::from_secs(setup.swr))
        .build();
    TowerHttpCache { layer, backend }
}

/// Around the handler itself: this layer takes no body that isn't `Sync`, and axum's isn't.
fn with_tower_http_cache<B: CacheBackend>(handler: Handler, cache: TowerHttpCache<B>) -> (Router, Purge) {
    let TowerHttpCache { layer, backend } = cache;
    let purge: Purge = Arc::new(move |path| {
        let backend = backend.clone();
        Box::pin(async move { Ok(backend.invalidate(&path).await?) })
    });
    let service = service_fn(move |request: Request| {
        let handler = handler.clone();
        async move { Ok::<_, BoxError>(handler.answer(request).await) }
    });
    (Router::new().route_service(PATH, ServiceExt::<Request>::map_err(layer.layer(service), fail)), purge)
}

pub fn http_cache(setup: &Setup) -> ServerCacheLayer<MokaManager> {
    let ttl = Some(Duration::from_secs(setup.ttl));
    let options = ServerCacheOptions { default_ttl: ttl, max_ttl: ttl, ..ServerCacheOptions::default() };
    ServerCacheLayer::new(MokaManager::new(MokaCache::new(setup.entries))).with_options(options)
}

fn with_http_cache(bare: Router, cache: ServerCacheLayer<MokaManager>) -> (Router, Purge) {
    let purging = cache.clone();
    let purge: Purge = Arc::new(move |path| {
        let cache = purging.clone();
        Box::pin(async move { cache.invalidate(&format!("GET {path}")).await })
    });
    (bare.layer(layer_fn(move |route| ServiceExt::<Request>::map_err(cache.layer(route), fail))), purge)
}

/// These layers change the error's type to one that axum doesn't take. None comes.
pub fn fail(error: BoxError) -> Infallible {
    panic!("{error}")
}
