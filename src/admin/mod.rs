//! The admin API: what operates a running cache, as an axum router with JSON (feature `admin`). It can't be built without a decision who may use
//! it, and it takes no other credentials than a bearer token.
//!
//! ```
//! use axum::{Router, routing::get};
//! use larder::admin::{self, Access, Token};
//! use larder::CacheLayer;
//!
//! # fn main() -> Result<(), larder::admin::TokenError> {
//! let cache = CacheLayer::in_memory(256 << 20);
//! let token = Token::new("0f9e6a51c4b27d380f9e6a51c4b27d38")?; // from a secret store
//! let app: Router = Router::new()
//!     .route("/products", get(|| async { "the same for everybody" }))
//!     .layer(cache.clone())
//!     .nest("/api/cache", admin::router(cache.handle(), token));
//! # drop(app); drop(Access::denied()); Ok(()) }
//! ```
//!
//! Put it outside of the layer, as here: inside, it works too, and none of its answers is stored, but a rule that hides `Authorization` from handlers
//! closes it. `docs/admin.md` describes each route, and so does `GET /openapi.json`.
//!
//! What guards it: a token in the `Authorization` field, compared in constant time; the `Host` has to be a name that was allowed, `localhost` or an address; pages
//! of other origins are refused; targets, content and its depth are bounded; every answer says `no-store`; every refusal is a problem (RFC 9457).

mod access;
mod content;
#[cfg(feature = "data")]
mod data;
mod entries;
mod explain;
mod guard;
mod health;
mod invalidate;
mod objects;
mod parameters;
mod performance;
mod problem;
mod redaction;
mod report;
mod routes;
mod settings;
mod stats;
mod tags;

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

pub use self::access::{Access, Token, TokenError};
use self::problem::Problem;
use self::tags::Counted;
use crate::compression::Compression;
use crate::config::Lent;
use crate::handle::CacheHandle;

/// The routes of the admin API of a cache, for whom `access` lets in.
pub fn router(handle: CacheHandle, access: impl Into<Access>) -> Router {
    let admin = Arc::new(Admin::new(handle, access.into()));
    let routes = ROUTES.iter().fold(Router::new(), |router, (path, methods)| router.route(path, methods()));
    routes
        .fallback(async || {
            Problem::plain(StatusCode::NOT_FOUND, "There is no such route; /openapi.json has all of them.")
        })
        .method_not_allowed_fallback(async || {
            Problem::plain(StatusCode::METHOD_NOT_ALLOWED, "The route has no such method; Allow has those it has.")
        })
        .layer(from_fn_with_state(admin.clone(), guard::guard))
        .with_state(admin)
}

/// A path, and what makes its methods.
type Route = (&'static str, fn() -> MethodRouter<Arc<Admin>>);

/// All there are. `docs/openapi.json` describes each; a test holds one against the other.
const ROUTES: &[Route] = &[
    ("/stats", || get(stats::stats)),
    ("/stats/routes", || get(routes::routes)),
    #[cfg(feature = "data")]
    ("/stats/data", || get(data::stats)),
    ("/stats/objects", || get(objects::stats)),
    ("/performance", || get(performance::performance)),
    ("/report", || get(report::report)),
    ("/explain", || get(explain::by_uri).post(explain::by_head)),
    #[cfg(feature = "data")]
    ("/explain/data/{*key}", || get(data::explain)),
    ("/health", || get(health::health)),
    ("/invalidate/key/{*key}", || post(invalidate::key)),
    #[cfg(feature = "data")]
    ("/invalidate/data/{*key}", || post(data::delete)),
    ("/invalidate/objects/{name}", || post(objects::purge)),
    ("/invalidate/tag/{*tag}", || post(invalidate::tag)),
    ("/invalidate/pattern", || post(invalidate::pattern)),
    ("/invalidate/partition", || post(invalidate::partition)),
    ("/invalidate/all", || post(invalidate::everything)),
    ("/purge", || post(invalidate::any)),
    ("/entries", || get(entries::list)),
    ("/entries/{id}", || get(entries::inspect)),
    ("/entries/{id}/content", || get(entries::content)),
    ("/config", || get(settings::read).put(settings::write)),
    ("/openapi.json", || get(description)),
];

/// What all routes share.
struct Admin {
    handle: CacheHandle,
    access: Access,
    /// Closures of rules that there were since this was built, by which a configuration can name them again.
    lent: Mutex<Lent>,
    /// How content was compressed before that was switched off here.
    compression: Mutex<Option<Compression>>,
    tags: Mutex<Option<Counted>>,
    /// Makes the ids of entries.
    ids: ahash::RandomState,
}

impl Admin {
    fn new(handle: CacheHandle, access: Access) -> Self {
        Self {
            handle,
            access,
            lent: Mutex::default(),
            compression: Mutex::default(),
            tags: Mutex::default(),
            ids: ahash::RandomState::new(),
        }
    }
}

/// An answer in JSON.
struct Json<T>(T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(content) => content_of("application/json", content),
            // Nothing that is answered here has keys that are no texts.
            Err(_) => {
                let detail = "The answer couldn't be written as JSON.";
                Problem::plain(StatusCode::INTERNAL_SERVER_ERROR, detail).into_response()
            }
        }
    }
}

fn content_of(content_type: &'static str, content: impl Into<Body>) -> Response {
    let mut response = Response::new(content.into());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// OpenAPI 3.1, as it is in the documentation.
async fn description() -> Response {
    content_of("application/json", include_str!("../../docs/openapi.json"))
}
