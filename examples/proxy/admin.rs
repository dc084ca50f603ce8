//! The admin API on a listener of its own, away from what clients reach.

use std::future::Future;
use std::net::SocketAddr;

use axum::Router;
use larder::CacheHandle;
use larder::admin::{self, Access};
use tokio::net::TcpListener;

/// Has the token.
const TOKEN: &str = "LARDER_ADMIN_TOKEN";

/// Ready to serve.
pub struct Admin {
    listener: TcpListener,
    access: Access,
}

impl Admin {
    pub async fn bind(address: SocketAddr) -> Result<Self, String> {
        let access = Access::from_env(TOKEN).map_err(|error| format!("{TOKEN}: {error}"))?;
        let listener = TcpListener::bind(address).await.map_err(|error| {
            format!("--admin {address}: can't listen there: {error}; is another program using the port?")
        })?;
        Ok(Self { listener, access })
    }

    /// Says where it listens, and to whom.
    pub fn announce(&self) -> Result<(), String> {
        let address = self.listener.local_addr().map_err(|error| error.to_string())?;
        let closed =
            if self.access.is_denied() { format!("; it is closed, since {TOKEN} is not set") } else { String::new() };
        println!("larder admin API listens on http://{address}/api/cache{closed}");
        Ok(())
    }

    /// Serves until `stopped`.
    pub async fn serve(self, handle: CacheHandle, stopped: impl Future<Output = ()> + Send + 'static) {
        let app = Router::new().nest("/api/cache", admin::router(handle, self.access));
        if let Err(error) = axum::serve(self.listener, app).with_graceful_shutdown(stopped).await {
            tracing::error!(%error, "the admin API ended");
        }
    }
}
