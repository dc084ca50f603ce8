//! A shop with a cache in front of it: `cargo run --example server`, then try what it prints.
//!
//! Everything about the cache is in this file. The shop itself, in the files beside it, is an
//! ordinary axum application over SQLite and knows nothing of being cached.

mod analytics;
mod arguments;
mod database;
mod errors;
mod measuring;
mod opening;
mod orders;
mod seed;
mod shop;
mod streams;
mod words;

use std::env;
use std::io::{self, IsTerminal, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use axum::Router;
use larder::admin::{self, Access};
use larder::{CacheLayer, Compression, Policy, RequestHead};
use tokio::net::TcpListener;
use tokio::signal;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::arguments::{Arguments, HELP, Wish};
use crate::database::Database;
use crate::shop::Shop;

/// How long answers that are under way may take to end after the server was told to stop.
const GRACE: Duration = Duration::from_secs(10);

/// Has the token of the admin API.
const TOKEN: &str = "LARDER_ADMIN_TOKEN";

const TOUR: &str = r#"Try, in another terminal:

  curl -si {shop}/products/1
      # X-Cache: MISS; once more: HIT, and an Age
  curl -si --etag-save /tmp/tag --etag-compare /tmp/tag {shop}/products/1
      # 200 and an ETag; once more: 304, without a body
  curl -si -X PUT --json '{"price_cents": 1234}' {shop}/products/1
      # a write: the next GET of it is a MISS, with the new price
  curl -so /dev/null -D - -r 0-199 {shop}/export.csv
      # a streamed 600 kB; once it is stored: 206, the first 200 bytes
  curl -so /dev/null -w '%{time_total} s\n' {shop}/api/analytics/revenue
      # a slow query; once more: hardly any time at all
  curl -so /dev/null -D - -H 'Accept-Encoding: gzip' {shop}/products
      # MISS, then HIT with Content-Encoding: gzip; without the field, the same entry as it was
  curl -si {shop}/checkout/quote
      # X-Cache: BYPASS every time, and a new quoted_at
  curl -so /dev/null -D - -H 'Authorization: Bearer user-17' {shop}/api/me/orders
      # MISS, then HIT: customer 17 has a copy of their own
  curl -so /dev/null -D - -H 'Authorization: Bearer user-18' {shop}/api/me/orders
      # MISS: customer 18 never gets the copy of customer 17
  curl -sN {shop}/events
      # the number of orders, every second, past the cache
  curl -s {shop}/metrics
      # what the cache did so far, for Prometheus
"#;

const ADMIN_TOUR: &str = r#"The admin API is open to who has the token of LARDER_ADMIN_TOKEN:

  curl -s -H "Authorization: Bearer $LARDER_ADMIN_TOKEN" {shop}/api/cache/stats
      # what the cache did, and what it holds; docs/admin.md has all the other routes
"#;

const ADMIN_CLOSED: &str =
    "The admin API at {shop}/api/cache is closed: start the server with LARDER_ADMIN_TOKEN set to a
secret of at least 16 characters to open it (openssl rand -hex 32 makes one).
";

/// Which answers may be kept, for how long, and for whom.
fn cache() -> CacheLayer {
    let (half_minute, minute) = (Duration::from_secs(30), Duration::from_secs(60));
    CacheLayer::in_memory(64 << 20)
        .compress(Compression::gzip())
        .rule("^/api/analytics/", Policy::shared(5 * minute).stale_while_revalidate(minute))
        .rule("^/products", Policy::shared(half_minute))
        .rule("^/categories$", Policy::shared(10 * minute))
        .rule("^/api/me/", Policy::per(customer, half_minute))
        .rule("^/(checkout|events|health)", Policy::bypass())
        .otherwise(Policy::from_origin())
}

/// The same reading of the field as the handler's: one customer, one partition.
fn customer(request: &RequestHead<'_>) -> Option<String> {
    orders::signed_in(request.headers).map(|customer| customer.to_string())
}

#[tokio::main]
async fn main() -> ExitCode {
    let colours = io::stderr().is_terminal();
    tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(colours).init();
    let arguments = match arguments::parse(env::args_os().skip(1)) {
        Ok(Wish::Serve(arguments)) => arguments,
        Ok(Wish::Help) => {
            say(HELP);
            return ExitCode::SUCCESS;
        }
        Err(problem) => {
            eprintln!("error: {problem}. See --help.");
            return ExitCode::from(2);
        }
    };
    match run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

async fn run(Arguments { listen, data }: Arguments) -> Result<(), String> {
    let access = Access::from_env(TOKEN).map_err(|error| format!("{TOKEN}: {error}"))?;
    let admin_tour = if access.is_denied() { ADMIN_CLOSED } else { ADMIN_TOUR };
    // The port comes first: when it is taken, there is no point in filling a database.
    let listener = TcpListener::bind(listen).await.map_err(|error| not_bound(listen, &error))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let pool = opening::open(&data)
        .await
        .map_err(|problem| format!("cannot keep the shop in {}: {problem}", data.display()))?;

    let (close, closing) = watch::channel(false);
    let shop = Shop { database: Database { pool: pool.clone() }, closing };
    let cache = cache();
    let metrics = measuring::routes(&cache.handle()).map_err(|error| format!("cannot measure: {error}"))?;
    let app = shop::routes(shop).layer(cache.clone()).merge(metrics);
    // Outside of the layer: nothing of it is ever looked up or stored.
    let app = app.nest("/api/cache", admin::router(cache.handle(), access));

    say(&format!("The shop is open at http://{address}, its data in {}.", data.display()));
    for tour in [TOUR, admin_tour] {
        say(&tour.replace("{shop}", &format!("http://{}", reachable(address))));
    }
    serve(listener, app, close).await.map_err(|error| format!("the server failed: {error}"))?;
    cache.handle().shutdown(Duration::from_secs(1)).await;
    pool.close().await;
    Ok(())
}

/// Unlike `println!`, this survives a reader that has gone away (`server | head`).
fn say(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

fn not_bound(listen: SocketAddr, error: &io::Error) -> String {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "Stop the program that uses it, or choose another with --listen ADDR:PORT \
             (port 0 takes any that is free)."
        }
        io::ErrorKind::PermissionDenied => {
            "Ports below 1024 are often reserved; choose a higher one with --listen ADDR:PORT."
        }
        _ => "Choose an address of this machine with --listen ADDR:PORT.",
    };
    format!("cannot listen on {listen}: {error}. {advice}")
}

async fn serve(listener: TcpListener, app: Router, close: watch::Sender<bool>) -> io::Result<()> {
    let mut closing = close.subscribe();
    let told_to_stop = async move {
        stop_signal().await;
        close.send_replace(true);
    };
    let overdue = async {
        let _ = closing.changed().await;
        sleep(GRACE).await;
    };
    tokio::select! {
        result = axum::serve(listener, app).with_graceful_shutdown(told_to_stop) => result,
        () = overdue => {
            tracing::warn!("some answers did not end in time and were cut off");
            Ok(())
        }
    }
}

/// Ctrl-C, or the SIGTERM of a service manager.
async fn stop_signal() {
    #[cfg(unix)]
    let terminated = async {
        match signal::unix::signal(signal::unix::SignalKind::terminate()) {
            Ok(mut signals) => signals.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    #[cfg(not(unix))]
    let terminated = std::future::pending::<Option<()>>();

    tokio::select! {
        Ok(()) = signal::ctrl_c() => {}
        Some(()) = terminated => {}
        else => std::future::pending().await,
    }
}

/// Nobody can connect to "any address", which is where a server may listen.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}
