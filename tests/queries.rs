//! Results of queries are dropped by what writes to their model, when that is committed and not before; and so is whatever is made from them.
#![cfg(all(feature = "axum", feature = "sqlx"))]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use axum::extract::State;
use axum::{Json, Router, routing};
use futures_util::FutureExt;
use http::Request;
use larder::queries::{Queries, Write};
use larder::{CacheLayer, Policy, Selector};
use sqlx::sqlite::{SqlitePool, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, Sqlite};
use support::exchange::{Exchange, MINUTE, quiet};
use tokio::sync::Semaphore;
use tower::ServiceExt;

/// A shop with a real database, whose queries are counted.
#[derive(Clone)]
struct Shop {
    queries: Queries,
    pool: SqlitePool,
    asked: Arc<AtomicUsize>,
}

impl Shop {
    async fn open(cache: &CacheLayer) -> Self {
        let queries = Queries::new(cache.data("queries").ttl(MINUTE));
        // One connection is one database in memory.
        let pool = SqlitePoolOptions::new().max_connections(1).connect("sqlite::memory:").await.expect("a database");
        for table in ["products", "prices"] {
            let table = format!("CREATE TABLE {table} (name TEXT PRIMARY KEY CHECK (name <> 'none'))");
            sqlx::query(AssertSqlSafe(table)).execute(&pool).await.expect("a table");
        }
        Self { queries, pool, asked: Arc::default() }
    }

    /// What a table has, by way of the cache.
    async fn names(&self, table: &'static str) -> Vec<String> {
        let this = self.clone();
        let model = self.queries.of(table);
        let names = model.get_or_load("names", move || async move { this.read(table).await });
        names.await.expect("the database answers")
    }

    /// The same from both tables.
    async fn all_names(&self) -> Vec<String> {
        let this = self.clone();
        let load = || async move {
            let (products, prices) = (this.read("products").await?, this.read("prices").await?);
            Ok::<_, sqlx::Error>([products, prices].concat())
        };
        self.queries.of("products").also("prices").get_or_load("all", load).await.expect("the database answers")
    }

    async fn read(&self, table: &str) -> Result<Vec<String>, sqlx::Error> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let query = format!("SELECT name FROM {table} ORDER BY name");
        let rows: Vec<(String,)> = sqlx::query_as(AssertSqlSafe(query)).fetch_all(&self.pool).await?;
        Ok(rows.into_iter().map(|(name,)| name).collect())
    }

    fn asked(&self) -> usize {
        self.asked.swap(0, Ordering::Relaxed)
    }

    async fn add(&self, table: &'static str, name: &'static str) -> Result<(), sqlx::Error> {
        self.queries.write(&self.pool, [table], async |write| insert(write, table, name).await).await
    }
}

async fn insert(write: &mut Write<Sqlite>, table: &str, name: &str) -> Result<(), sqlx::Error> {
    let query = format!("INSERT INTO {table} VALUES (?)");
    sqlx::query(AssertSqlSafe(query)).bind(name).execute(&mut **write).await.map(drop)
}

fn cache() -> CacheLayer {
    CacheLayer::in_memory(1 << 20).otherwise(Policy::shared(MINUTE))
}

#[tokio::test]
async fn a_result_is_read_once_until_its_model_is_written_to() {
    let shop = Shop::open(&cache()).await;
    for _ in 0..3 {
        assert!(shop.names("products").await.is_empty() && shop.all_names().await.is_empty());
    }
    assert_eq!(shop.asked(), 3, "once each");
    shop.add("products", "jar").await.expect("it is committed");
    assert_eq!((shop.names("products").await, shop.all_names().await), (vec!["jar".into()], vec!["jar".into()]));
    assert_eq!(shop.asked(), 3);
    shop.names("prices").await;
    shop.add("prices", "1").await.expect("it is committed");
    shop.asked();
    assert_eq!(shop.names("products").await, ["jar"]);
    assert_eq!(shop.asked(), 0, "another model");
    assert_eq!(shop.all_names().await, ["jar", "1"], "it is read from both");
}

#[tokio::test]
async fn a_model_is_invalidated_by_name() {
    let shop = Shop::open(&cache()).await;
    shop.names("products").await;
    shop.names("prices").await;
    sqlx::query("INSERT INTO products VALUES ('jar')").execute(&shop.pool).await.expect("written past the adapter");
    assert!(shop.names("products").await.is_empty());
    shop.queries.invalidate_model("products").await.expect("a purge");
    shop.asked();
    assert_eq!(shop.names("products").await, ["jar"]);
    shop.names("prices").await;
    assert_eq!(shop.asked(), 1, "the other model stays");
    shop.queries.data().purge(Selector::Tag("model".into())).await.expect("a purge");
    shop.names("prices").await;
    assert_eq!(shop.asked(), 1, "all models have a tag in common");
}

#[tokio::test]
async fn what_is_rolled_back_drops_nothing() {
    let cache = cache();
    let shop = Shop::open(&cache).await;
    shop.names("products").await;
    let purges = || cache.handle().stats().purges_remembered;
    let failed = shop.queries.write(&shop.pool, ["products"], async |write| {
        insert(write, "products", "jar").await?;
        insert(write, "products", "none").await
    });
    failed.await.expect_err("the check forbids it");
    let write = shop.queries.begin(&shop.pool, ["products"]).await.expect("a transaction");
    write.rollback().await.expect("it is rolled back");
    let mut write = shop.queries.begin(&shop.pool, ["products"]).await.expect("a transaction");
    insert(&mut write, "products", "jar").await.expect("it is written");
    drop(write);
    shop.asked();
    assert!(shop.names("products").await.is_empty());
    assert_eq!((shop.asked(), purges()), (0, 0));
}

#[tokio::test]
async fn nothing_is_dropped_before_the_commit_and_all_when_it_returns() {
    let shop = Shop::open(&cache()).await;
    shop.names("products").await;
    shop.names("prices").await;
    shop.asked();
    let mut write = shop.queries.begin(&shop.pool, ["products"]).await.expect("a transaction");
    write.also("prices");
    insert(&mut write, "products", "jar").await.expect("it is written");
    insert(&mut write, "prices", "1").await.expect("it is written");
    assert!(shop.names("products").await.is_empty(), "what others see is what is committed");
    write.commit().await.expect("it is committed");
    assert_eq!((shop.names("products").await, shop.names("prices").await), (vec!["jar".into()], vec!["1".into()]));
    assert_eq!(shop.asked(), 2);
}

#[tokio::test]
async fn a_commit_of_which_nobody_knows_the_outcome_drops_all_the_same() {
    let shop = Shop::open(&cache()).await;
    shop.names("products").await;
    shop.asked();
    let mut write = shop.queries.begin(&shop.pool, ["products"]).await.expect("a transaction");
    sqlx::query("ROLLBACK").execute(&mut *write).await.expect("behind its back");
    write.commit().await.expect_err("there is no transaction");
    shop.names("products").await;
    assert_eq!(shop.asked(), 1);
}

#[tokio::test]
async fn a_commit_for_which_nobody_waits_any_more_drops_when_it_is_done_and_not_before() {
    let cache = cache();
    let shop = Shop::open(&cache).await;
    shop.names("products").await;
    let purges = || cache.handle().stats().purges_remembered;
    let mut write = shop.queries.begin(&shop.pool, ["products"]).await.expect("a transaction");
    insert(&mut write, "products", "jar").await.expect("it is written");
    assert!(write.commit().now_or_never().is_none(), "it takes its time");
    assert_eq!(purges(), 0, "what is loaded now is from before the commit");
    while purges() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(shop.names("products").await, ["jar"]);
}

#[tokio::test]
async fn a_load_that_began_before_the_commit_never_stays() {
    let shop = Shop::open(&cache()).await;
    let gate = Arc::new(Semaphore::new(0));
    let (loading, opens) = (shop.clone(), gate.clone());
    let old = tokio::spawn(async move {
        let from = loading.clone();
        let load = || async move {
            let read = from.read("products").await;
            opens.acquire().await.expect("never closed").forget();
            read
        };
        loading.queries.of("products").get_or_load("names", load).await.expect("the database answers")
    });
    quiet().await;
    while shop.asked.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    shop.add("products", "jar").await.expect("it is committed");
    // Who comes behind the write doesn't wait for what was read before it.
    assert_eq!(shop.names("products").await, ["jar"]);
    gate.add_permits(1);
    assert!(old.await.expect("no panic").is_empty(), "who asked before the write");
    assert_eq!(shop.names("products").await, ["jar"], "and it hasn't taken the place of the newer one");
}

async fn page(State(shop): State<Shop>) -> String {
    format!("<h1>{}</h1>", shop.names("products").await.join(", "))
}

async fn json(State(shop): State<Shop>) -> Json<Vec<String>> {
    Json(shop.names("products").await)
}

/// Content that asks while it streams.
async fn streamed(State(shop): State<Shop>) -> Body {
    let content = async move { Ok::<_, std::io::Error>(shop.all_names().await.join("\n")) };
    Body::from_stream(content.into_stream())
}

async fn prices(State(shop): State<Shop>) -> String {
    shop.names("prices").await.join(", ")
}

async fn add(State(shop): State<Shop>) -> &'static str {
    shop.add("products", "jar").await.map_or("failed", |()| "added")
}

#[tokio::test]
async fn page_json_and_result_fall_in_one_step() {
    let cache = cache();
    let shop = Shop::open(&cache).await;
    let app = Router::new()
        .route("/page", routing::get(page))
        .route("/json", routing::get(json))
        .route("/streamed", routing::get(streamed))
        .route("/prices", routing::get(prices))
        .route("/add", routing::post(add))
        .with_state(shop.clone())
        .layer(cache.clone());
    let ask = async |method: &str, path: &str| {
        let request = Request::builder().method(method).uri(path).header("host", "a").body(Body::empty());
        let response = app.clone().oneshot(request.expect("a request")).await.expect("an answer");
        Exchange::read(response).await.expect("a body")
    };
    let paths = ["/page", "/json", "/streamed", "/prices"];
    for x_cache in ["MISS", "HIT"] {
        for path in paths {
            assert_eq!(ask("GET", path).await.x_cache, x_cache, "{path}");
            quiet().await;
        }
    }
    assert_eq!(shop.asked(), 4, "products, both, and prices");
    assert_eq!(ask("POST", "/add").await.body, "added");
    let expected = [("<h1>jar</h1>", "MISS"), ("[\"jar\"]", "MISS"), ("jar", "MISS"), ("", "HIT")];
    for (path, (body, x_cache)) in paths.into_iter().zip(expected) {
        let got = ask("GET", path).await;
        assert_eq!((got.body.as_str(), got.x_cache.as_str()), (body, x_cache), "{path}");
    }
}

#[tokio::test]
async fn what_a_soft_purge_made_stale_makes_no_page_that_counts_as_fresh() {
    let cache = CacheLayer::in_memory(1 << 20).otherwise(Policy::shared(MINUTE).stale_while_revalidate(MINUTE));
    let mut shop = Shop::open(&cache).await;
    shop.queries = Queries::new(cache.data("queries").ttl(MINUTE).stale_while_revalidate(MINUTE));
    let app = Router::new().route("/page", routing::get(page)).with_state(shop.clone()).layer(cache.clone());
    let ask = async || {
        let request = Request::builder().uri("/page").header("host", "a").body(Body::empty()).expect("a request");
        Exchange::read(app.clone().oneshot(request).await.expect("an answer")).await.expect("a body")
    };
    ask().await;
    sqlx::query("INSERT INTO products VALUES ('jar')").execute(&shop.pool).await.expect("written past the adapter");
    shop.queries.invalidate_model("products").soft().await.expect("a purge");
    assert_eq!(ask().await.x_cache, "STALE", "the page, which is refreshed from the stale result");
    // That is refreshed as well; and a page that was made from it is asked for until it was.
    let mut asked = 0;
    loop {
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        let got = ask().await;
        if got.x_cache == "HIT" {
            assert_eq!(got.body, "<h1>jar</h1>");
            break;
        }
        asked += 1;
        assert!(asked < 1000, "{got:?}");
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}
