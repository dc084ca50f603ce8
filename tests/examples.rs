//! The short examples do what they say: each is started, and asked over its socket.

mod support;

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use support::exchange::Exchange;

/// A running example, which ends with this.
struct Example {
    process: Child,
    origin: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Example {
    /// Starts the example and waits until it says where it listens.
    fn start(name: &str) -> Self {
        Self::start_with(name, &[])
    }

    fn start_with(name: &str, arguments: &[&OsStr]) -> Self {
        let program = program(name);
        let mut command = Command::new(&program);
        let process = command.args(["--listen", "127.0.0.1:0"]).args(arguments).stdout(Stdio::piped()).spawn();
        let mut process = process.unwrap_or_else(|error| {
            panic!("{}: {error}. `cargo test` builds the examples; with `--test examples` alone, `cargo build --examples` does.", program.display())
        });
        let mut line = String::new();
        let mut output = BufReader::new(process.stdout.take().expect("it is piped"));
        output.read_line(&mut line).expect("the example says where it listens");
        // The shop says more, and may be read by somebody who goes away.
        let origin = line.trim().trim_start_matches("The shop is open at ").trim_start_matches("listening on ");
        let origin = origin.split(',').next().filter(|origin| origin.starts_with("http://"));
        let origin = origin.unwrap_or_else(|| panic!("{name} said {line:?}")).to_owned();
        Self { process, origin, client: Client::builder(TokioExecutor::new()).build_http() }
    }

    async fn send(&self, method: &str, path: &str, fields: &[(&str, &str)], content: &'static str) -> Exchange {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.origin));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::from(content)).expect("a request");
        Exchange::read(self.client.request(request).await.expect("an answer")).await.expect("a clean end")
    }

    async fn get(&self, path: &str, fields: &[(&str, &str)]) -> Exchange {
        self.send("GET", path, fields, "").await
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Examples lie beside the tests: `target/debug/examples` and `target/debug/deps`.
fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test has a program");
    let profile = test.ancestors().nth(2).expect("it lies in target/PROFILE/deps");
    profile.join("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX))
}

const ANN: (&str, &str) = ("authorization", "Bearer ann");
const BOB: (&str, &str) = ("authorization", "Bearer bob");

#[tokio::test]
async fn one_route_is_cached_and_its_neighbour_is_not() {
    let example = Example::start("axum_route");
    let first = example.get("/report", &[]).await;
    let second = example.get("/report", &[]).await;
    assert_eq!((first.x_cache.as_str(), second.x_cache.as_str(), &second.body), ("MISS", "HIT", &first.body));
    assert_eq!(first.field("cache-control"), "public, max-age=60");
    assert!(!example.get("/time", &[]).await.has("x-cache"));
}

#[tokio::test]
async fn a_service_without_axum_is_cached_for_both_protocols() {
    let mut example = Example::start("service_builder");
    assert_eq!(example.get("/a", &[]).await.x_cache, "MISS");
    example.client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let hit = example.get("/a", &[]).await;
    assert_eq!((hit.x_cache.as_str(), hit.body.as_str()), ("HIT", "this is /a\n"));
    assert_eq!(example.get("/b", &[]).await.body, "this is /b\n");
}

#[tokio::test]
async fn each_user_has_a_partition() {
    let example = Example::start("per_user");
    for x_cache in ["MISS", "HIT"] {
        for (user, name) in [(ANN, "ann"), (BOB, "bob")] {
            let got = example.get("/orders", &[user]).await;
            assert_eq!((got.x_cache.as_str(), &got.body), (x_cache, &format!("the orders of {name}\n")));
            assert_eq!(got.field("cache-control"), "private, max-age=30");
        }
        assert_eq!(example.get("/orders", &[]).await.status, 401);
    }
}

#[cfg(feature = "config")]
#[tokio::test]
async fn rules_come_from_a_file() {
    let example = Example::start("toml_file");
    assert_eq!(example.get("/products", &[]).await.x_cache, "MISS");
    let hit = example.get("/products?utm_source=mail", &[]).await;
    assert_eq!((hit.x_cache.as_str(), hit.body.as_str()), ("HIT", "the same for everybody\n"));
    for x_cache in ["MISS", "HIT"] {
        for user in [ANN, BOB] {
            let got = example.get("/api/me/orders", &[user]).await;
            assert_eq!((got.x_cache.as_str(), got.field("cache-control")), (x_cache, "private, max-age=30"));
        }
    }
    assert_eq!(example.get("/api/me/orders", &[]).await.x_cache, "BYPASS");
}

#[cfg(feature = "axum")]
#[tokio::test]
async fn a_handler_says_how_each_answer_is_cached() {
    let example = Example::start("handler_policy");
    for (path, status, x_cache, cache_control) in [
        ("/products/1", 200, "HIT", "public, max-age=5"),
        ("/products/7", 200, "HIT", "public, max-age=20"),
        ("/products/100", 404, "HIT", "public, max-age=30"),
        ("/preview", 200, "MISS", ""),
    ] {
        assert_eq!(example.get(path, &[]).await.x_cache, "MISS", "{path}");
        let again = example.get(path, &[]).await;
        assert_eq!((again.status, again.x_cache.as_str()), (status, x_cache), "{path}");
        assert_eq!(again.field("cache-control"), cache_control, "{path}");
    }
    assert!(example.get("/preview", &[]).await.cache_status.ends_with("detail=handler"));
}

/// One call of a query for two pages, and one purge for the query and both.
#[cfg(all(feature = "axum", feature = "data"))]
#[tokio::test]
async fn a_query_is_called_once_for_all_pages_that_are_made_from_it() {
    let example = Example::start("memoize");
    let timed = async |path: &'static str| {
        let began = std::time::Instant::now();
        let got = example.get(path, &[]).await;
        (got.x_cache, got.body, began.elapsed() >= std::time::Duration::from_millis(500))
    };
    let is = |x_cache: &str, body: &str, slow: bool| (x_cache.to_owned(), body.to_owned(), slow);
    for product in ["jar", "jar", "box"] {
        assert_eq!(example.send("POST", &format!("/sold/books/{product}"), &[], "").await.status, 204);
    }
    assert_eq!(timed("/top/books").await, is("MISS", "jar\nbox\n", true));
    assert_eq!(timed("/top/books").await, is("HIT", "jar\nbox\n", false));
    assert_eq!(timed("/best/books").await, is("MISS", "jar\n", false));
    for _ in 0..2 {
        example.send("POST", "/sold/books/box", &[], "").await;
    }
    assert_eq!(timed("/best/books").await, is("MISS", "box\n", true));
    assert_eq!(timed("/top/books").await, is("MISS", "box\njar\n", false));
    assert_eq!(timed("/top/toys").await, is("MISS", "\n", true));
}

/// What the README shows of the shop holds for any application that takes larder in: MISS, HIT, 304, a write, BYPASS and its reason.
#[tokio::test]
async fn todos_take_larder_in_with_three_lines() {
    let source = include_str!("../examples/todos.rs");
    assert_eq!(source.lines().filter(|line| line.contains("larder") && !line.starts_with("//!")).count(), 3);

    let example = Example::start("todos");
    let todo = "/api/todos/1";
    let json = ("content-type", "application/json");
    let created = example.send("POST", "/api/todos", &[ANN, json], r#"{"text": "buy flour"}"#).await;
    assert_eq!((created.status, created.field("location"), created.x_cache.as_str()), (201, todo, "BYPASS"));
    assert_eq!(created.cache_status, "larder; fwd=method");

    let first = example.get(todo, &[ANN]).await;
    assert_eq!((first.x_cache.as_str(), first.cache_status.as_str()), ("MISS", "larder; fwd=uri-miss; stored"));
    let hit = example.get(todo, &[BOB]).await;
    assert_eq!((hit.x_cache.as_str(), &hit.body, hit.has("age")), ("HIT", &first.body, true), "the same for everybody");
    let same = example.get(todo, &[ANN, ("if-none-match", hit.field("etag"))]).await;
    assert_eq!((same.status, same.x_cache.as_str(), same.body.as_str()), (304, "HIT", ""));
    let head = example.send("HEAD", todo, &[ANN], "").await;
    assert_eq!((head.x_cache.as_str(), head.field("content-length")), ("HIT", first.body.len().to_string().as_str()));

    assert_eq!(example.get(todo, &[]).await.status, 401, "authentication is outside");
    let allowed = ("access-control-allow-origin", "*");
    assert_eq!(hit.field(allowed.0), allowed.1, "CORS is outside");

    assert_eq!(example.send("PATCH", todo, &[BOB, json], r#"{"done": true}"#).await.status, 200);
    let changed = example.get(todo, &[ANN]).await;
    assert_eq!((changed.x_cache.as_str(), changed.body.contains(r#""done":true"#)), ("MISS", true));
    assert_eq!(example.send("DELETE", todo, &[ANN], "").await.status, 204);
    assert_eq!(example.get(todo, &[ANN]).await.status, 404, "what was deleted isn't served");

    assert_eq!(example.get("/api/todos", &[ANN]).await.x_cache, "BYPASS");
    for (user, name) in [(ANN, "ann"), (BOB, "bob")] {
        let me = example.get("/api/me", &[user]).await;
        assert_eq!((me.body.as_str(), me.cache_status.as_str()), (name, "larder; fwd=bypass; detail=rule"));
    }
}

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("larder-{name}-{}", std::process::id())))
    }

    fn shop(&self) -> Example {
        Example::start_with("server", &["--data".as_ref(), self.database().as_os_str()])
    }

    fn database(&self) -> PathBuf {
        self.0.join("shop.db")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

const JSON: (&str, &str) = ("content-type", "application/json");

/// A write to a product changes what is made of products, by its rule; an order changes it from elsewhere, through the outbox.
#[tokio::test]
async fn what_changes_in_the_shop_is_felt_wherever_it_shows() {
    let folder = Folder::new("changes");
    let shop = folder.shop();
    let ann = ("authorization", "Bearer user-17");
    let pages: [(&str, &[(&str, &str)]); 5] = [
        ("/products/1", &[]),
        ("/products?per_page=1", &[]),
        ("/export.csv", &[]),
        ("/api/analytics/revenue", &[]),
        ("/api/me/orders", &[ann]),
    ];
    let price = r#"{"price_cents": 1234}"#;
    let order = r#"{"customer_id": 17, "product_id": 1, "quantity": 1}"#;
    let other = r#"{"customer_id": 18, "product_id": 2, "quantity": 1}"#;
    for (method, target, content, status, kept) in [
        ("PUT", "/products/1", price, 200, &["/api/me/orders"][..]),
        ("POST", "/orders", order, 201, &[]),
        ("POST", "/orders", other, 201, &["/products/1", "/api/me/orders"]),
        ("POST", "/orders", r#"{"customer_id": 0, "product_id": 1, "quantity": 1}"#, 422, &pages.map(|page| page.0)),
    ] {
        let mut before = Vec::new();
        for (page, fields) in pages {
            let mut stored = shop.get(page, fields).await;
            for _ in 0..500 {
                // What is large is stored a moment after its last byte.
                tokio::time::sleep(std::time::Duration::from_millis(if stored.body.len() > 64 << 10 { 10 } else { 0 }))
                    .await;
                stored = shop.get(page, fields).await;
                if stored.x_cache == "HIT" {
                    break;
                }
            }
            assert_eq!((stored.x_cache.as_str(), stored.has("cache-tag")), ("HIT", false), "{page}");
            before.push(stored.body);
        }
        let written = shop.send(method, target, &[JSON], content).await;
        assert_eq!(written.status, status, "{}", written.body);
        for ((page, fields), before) in pages.into_iter().zip(before) {
            let after = shop.get(page, fields).await;
            let is_kept = kept.contains(&page);
            assert_eq!(after.x_cache, if is_kept { "HIT" } else { "MISS" }, "{page} after {method} {target} {content}");
            // The statistics don't show prices, nor the first product of the list another one's stock.
            if is_kept || (method, page) == ("POST", "/products/1") {
                assert_eq!(after.body == before, is_kept, "{page} after {method} {target} {content}");
            }
        }
    }
}

/// A quote is made anew each time, and the carrier is asked once.
#[tokio::test]
async fn a_page_that_is_not_kept_is_made_from_what_a_memoized_function_keeps() {
    let folder = Folder::new("carrier");
    let shop = folder.shop();
    for _ in 0..3 {
        let quote = shop.get("/checkout/quote?product_id=2", &[]).await;
        assert_eq!((quote.status, &*quote.x_cache), (200, "BYPASS"));
    }
    let metrics = shop.get("/metrics", &[]).await.body;
    for (result, count) in [("hit", 2), ("miss", 1)] {
        let line =
            format!("larder_data_requests_total{{cache=\"larder\",data=\"carrier\",result=\"{result}\"}} {count}\n");
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
}

#[tokio::test]
async fn what_a_crash_left_in_the_outbox_is_purged_at_the_next_start() {
    let folder = Folder::new("crash");
    // Killed, and not asked to stop.
    drop(folder.shop());
    let left =
        events(&folder.database(), "INSERT INTO outbox (topic) VALUES ('products'), ('product:1'), ('\n')").await;
    assert_eq!(left, ["products", "product:1", "\n"]);
    let shop = folder.shop();
    assert_eq!(shop.get("/products/1", &[]).await.status, 200);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !events(&folder.database(), "SELECT 1").await.is_empty() {
        assert!(std::time::Instant::now() < deadline, "the events are still there");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// Does something to the shop's database, and tells which events are in its outbox then.
async fn events(database: &Path, first: &'static str) -> Vec<String> {
    use sqlx::{ConnectOptions, sqlite::SqliteConnectOptions};
    let mut connection = SqliteConnectOptions::new().filename(database).connect().await.expect("it is there");
    sqlx::query(first).execute(&mut connection).await.expect("the database does it");
    sqlx::query_scalar("SELECT topic FROM outbox ORDER BY id")
        .fetch_all(&mut connection)
        .await
        .expect("it has an outbox")
}
