//! A shop with a cache in front of it: `cargo run --example server`, then try what it prints.
//!
//! All that is said of cached answers is in this file. The shop itself, in the files beside it, is an
//! ordinary axum application over SQLite and knows nothing of that; only its slow queries
//! (`analytics.rs`) and what it writes go through a `Queries`, which keeps their results, and
//! what a slow service says (`carrier.rs`) through a memoized function.

mod analytics;
mod arguments;
mod carrier;
mod database;
mod errors;
mod measuring;
mod notices;
mod opening;
mod orders;
mod outbox;
mod seed;
mod shop;
#[path = "../common/store.rs"]
mod store;
mod streams;
mod words;

use std::env;
use std::io::{self, IsTerminal, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use larder::admin::{self, Access};
use larder::queries::Queries;
use larder::{CacheLayer, Compression, Policy, PurgeError, PurgeSender, RequestHead, Selector};
use tokio::net::TcpListener;
use tokio::signal;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::arguments::{Arguments, HELP, Wish};
use crate::database::Database;
use crate::outbox::{Event, Listener};
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
  curl -si --json '{"customer_id": 17, "product_id": 1, "quantity": 1}' {shop}/orders
      # an order: the product, all lists and the statistics are a MISS, since their stock and sales changed
  curl -so /dev/null -D - -r 0-199 {shop}/export.csv
      # a streamed 600 kB; once it is stored: 206, the first 200 bytes
  curl -so /dev/null -w '%{time_total} s\n' {shop}/api/analytics/revenue
      # a slow query; once more: hardly any time at all
  curl -so /dev/null -D - -H 'Accept-Encoding: gzip' {shop}/products
      # MISS, then HIT with Content-Encoding: gzip; without the field, the same entry as it was
  curl -so /dev/null -w '%{time_total} s\n' '{shop}/products/1/related?from=mail'
      # a MISS under its URI, but {shop}/products/1/related has asked the database already: its result is kept too,
      # and an order drops both, and everything else made from it
  curl -si {shop}/checkout/quote
      # X-Cache: BYPASS every time, and a new quoted_at; only the first takes as long as the carrier does to say
      # what it wants for the parcel, for that is kept (a memoized function)
  curl -so /dev/null -D - -H 'Authorization: Bearer user-17' {shop}/api/me/orders
      # MISS, then HIT: customer 17 has a copy of their own
  curl -so /dev/null -D - -H 'Authorization: Bearer user-18' {shop}/api/me/orders
      # MISS: customer 18 never gets the copy of customer 17
  for n in $(seq 200); do curl -so /dev/null -H "Accept-Language: $(shuf -n1 -e de fr en)" {shop}/banner; done
      # its rule is in shadow: BYPASS, and the report names the field that the answer depends on
  curl -s {shop}/report
      # what the cache has learned about its rules
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

/// What is kept in memory, in bytes.
const MEMORY: u64 = 64 << 20;

/// Which answers may be kept, for how long, and for whom.
fn cache(store: CacheLayer) -> CacheLayer {
    let (half_minute, minute) = (Duration::from_secs(30), Duration::from_secs(60));
    store
        .compress(Compression::gzip())
        .rule("^/api/analytics/", Policy::shared(5 * minute).stale_while_revalidate(minute).tag("analytics"))
        .rule("^/products/([0-9]+)", product(half_minute))
        .rule("^/products", Policy::shared(half_minute).tag("products"))
        .rule("^/categories$", Policy::shared(10 * minute))
        .rule("^/api/me/", Policy::per(customer, half_minute))
        // Nobody is sure yet whether everybody gets the same: watched, and not served.
        .rule("^/banner$", Policy::shared(minute).shadow())
        // Far too short for what changes once a week; the report says so.
        .rule("^/leaflet/", Policy::shared(Duration::from_secs(2)))
        .rule("^/(checkout|events|health)", Policy::bypass())
        .otherwise(Policy::from_origin())
}

/// The pages of a product; a write to one of them changes the lists and the statistics as well.
fn product(ttl: Duration) -> Policy {
    Policy::shared(ttl).tag("product:$1").purges_tag("product:$1").purges_tag("products").purges_tag("analytics")
}

/// Purges what the shop's outbox says changed, in its order. An event is struck out only when its purge has taken effect, so that a crash at any moment
/// loses none: what it left there is purged first of all.
async fn purge_what_changed(mut outbox: Listener, purges: PurgeSender) {
    let mut waiting = Vec::new();
    loop {
        match purge_all(&outbox, &purges).await {
            Ok(()) => {}
            Err(problem) => {
                match problem {
                    Problem::Database(cause) => tracing::error!(%cause, "the outbox can't be read; it is tried again"),
                    Problem::Store(cause) => tracing::warn!(%cause, "an event stays in the outbox; it is tried again"),
                    Problem::Closed => return,
                }
                waiting.clear();
                sleep(Duration::from_secs(1)).await;
                continue;
            }
        }
        // Those who waited have their answers.
        waiting.clear();
        // Who changed something may have left before they rang.
        match timeout(Duration::from_secs(1), outbox.rung()).await {
            Ok(Some(rung)) => waiting = rung,
            Ok(None) => return,
            Err(_) => {}
        }
    }
}

enum Problem {
    /// The cache was shut down; what is left is for the next start.
    Closed,
    Database(sqlx::Error),
    /// The other servers of the shop can't be told. Until they can, this one uses nothing that is stored.
    Store(PurgeError),
}

async fn purge_all(outbox: &Listener, purges: &PurgeSender) -> Result<(), Problem> {
    while let Some(event) = outbox.oldest().await.map_err(Problem::Database)? {
        purge(&event, purges).await?;
        outbox.strike_out(&event).await.map_err(Problem::Database)?;
    }
    Ok(())
}

/// The topics of the shop are the cache's tags.
async fn purge(event: &Event, purges: &PurgeSender) -> Result<(), Problem> {
    match purges.send(Selector::Tag(event.topic.clone())).await {
        Ok(receipt) => tracing::info!(topic = event.topic, number = receipt.number, "purged"),
        Err(PurgeError::Closed) => return Err(Problem::Closed),
        Err(error @ (PurgeError::Log { .. } | PurgeError::Storage(_))) => return Err(Problem::Store(error)),
        Err(error) => {
            // It would be refused for ever, and all that come after it would wait: rather too much than too little.
            tracing::error!(%error, "an event can't be understood, so everything is purged");
            purges.send(Selector::Everything).await.map_err(Problem::Store)?;
        }
    }
    Ok(())
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

async fn run(Arguments { listen, data, store }: Arguments) -> Result<(), String> {
    let access = Access::from_env(TOKEN).map_err(|error| format!("{TOKEN}: {error}"))?;
    let admin_tour = if access.is_denied() { ADMIN_CLOSED } else { ADMIN_TOUR };
    let store = store::open(&store, "server", MEMORY)?;
    // The port comes first: when it is taken, there is no point in filling a database.
    let listener = TcpListener::bind(listen).await.map_err(|error| not_bound(listen, &error))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let pool = opening::open(&data)
        .await
        .map_err(|problem| format!("cannot keep the shop in {}: {problem}", data.display()))?;

    let (close, closing) = watch::channel(false);
    let (outbox, changes) = outbox::open(pool.clone());
    let cache = cache(store);
    let queries = Queries::new(cache.data("queries").ttl(Duration::from_secs(300)));
    let database = Database { pool: pool.clone(), queries };
    let shop = Shop { database, shipping: carrier::shipping(&cache.data("carrier")), outbox, closing };
    let handle = cache.handle();
    let metrics = measuring::routes(&handle).map_err(|error| format!("cannot measure: {error}"))?;
    tokio::spawn(purge_what_changed(changes, handle.purges(16)));
    let report = axum::routing::get(async move || handle.report().to_string());
    let app = shop::routes(shop).layer(cache.clone()).merge(metrics).route("/report", report);
    // By which the admin API can have purged pages asked for once more.
    cache.handle().refresh_through(app.clone(), Body::empty);
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
