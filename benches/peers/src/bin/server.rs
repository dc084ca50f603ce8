//! A subject over HTTP, on one thread: `server '{"subject":"larder",…}'`. Says where it listens, and ends with its standard input.

use std::error::Error;
use std::io::Read;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use larder_peers::setup::Setup;
use larder_peers::subjects::{App, Purge, app};
use tokio::net::TcpListener;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Result<()> {
    let setup: Setup = serde_json::from_str(&std::env::args().nth(1).ok_or("the setup is missing")?)?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(setup))
}

async fn serve(setup: Setup) -> Result<()> {
    let App { router, handler, purge } = app(&setup).await?;
    let calls = move || async move { handler.calls().to_string() };
    let control = Router::new().route("/calls", get(calls)).route("/purge/{key}", post(forget).with_state(purge));
    let (main, aside) = (TcpListener::bind("127.0.0.1:0").await?, TcpListener::bind("127.0.0.1:0").await?);
    println!("{}", serde_json::json!({ "address": main.local_addr()?, "control": aside.local_addr()? }));
    tokio::spawn(async move { axum::serve(aside, control).await });
    let main = main.tap_io(|stream| drop(stream.set_nodelay(true)));
    tokio::spawn(async move { axum::serve(main, router).await });
    Ok(tokio::task::spawn_blocking(|| drop(std::io::stdin().read(&mut [0]))).await?)
}

async fn forget(State(purge): State<Option<Purge>>, Path(key): Path<u64>) -> StatusCode {
    match purge {
        Some(purge) if purge(format!("/item/{key}")).await.is_ok() => StatusCode::NO_CONTENT,
        Some(_) => StatusCode::INTERNAL_SERVER_ERROR,
        None => StatusCode::NOT_IMPLEMENTED,
    }
}
