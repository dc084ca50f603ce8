//! A slow query that several pages are made from, called once for all of them: `cargo run --example memoize`.
//!
//! ```sh
//! curl -si http://127.0.0.1:3000/top/books          # MISS, and slow
//! curl -si http://127.0.0.1:3000/top/books          # HIT: the page is there
//! curl -si http://127.0.0.1:3000/best/books         # MISS, and at once: another page, made from the same query
//! curl -si -X POST http://127.0.0.1:3000/sold/books/jar   # what changes drops the query's result and both pages, in one step
//! curl -si http://127.0.0.1:3000/top/books          # MISS, and slow
//! ```

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use larder::{CacheHandle, CacheLayer, Cached, Memoized, Selector};
use tokio::net::TcpListener;

/// A query, and what it asks for.
type TopProducts = Memoized<(String, usize), Vec<String>, SalesError>;

#[derive(Clone)]
struct Shop {
    sales: Sales,
    top_products: TopProducts,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let cache = CacheLayer::in_memory(16 << 20);
    let sales = Sales::default();
    let top_products = {
        let sales = sales.clone();
        cache
            .data("shop")
            .memoize("top_products")
            .ttl(Duration::from_secs(60))
            .stale_while_revalidate(Duration::from_secs(600))
            .tag_by(|(category, _): &(String, usize)| [format!("category:{category}")])
            .cache_if(|products: &Vec<String>| !products.is_empty())
            .wrap(move |category: String, most: usize| sales.clone().top(category, most))
    };
    let app = Router::new()
        .route("/top/{category}", get(top))
        .route("/best/{category}", get(best))
        .route("/sold/{category}/{product}", post(sold))
        .with_state(Shop { sales, top_products })
        .layer(cache);

    let listen = std::env::args().skip_while(|argument| argument != "--listen").nth(1);
    let listener = TcpListener::bind(listen.as_deref().unwrap_or("127.0.0.1:3000")).await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}

async fn top(State(shop): State<Shop>, Path(category): Path<String>) -> Response {
    match shop.top_products.call((category.clone(), 10)).await {
        Ok(products) => (page(&category), products.join("\n") + "\n").into_response(),
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

async fn best(State(shop): State<Shop>, Path(category): Path<String>) -> Response {
    match shop.top_products.call((category.clone(), 10)).await.as_deref() {
        Ok([first, ..]) => (page(&category), format!("{first}\n")).into_response(),
        Ok([]) => StatusCode::NOT_FOUND.into_response(),
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

fn page(category: &str) -> Cached {
    Cached::shared(Duration::from_secs(60)).tag(format!("category:{category}"))
}

async fn sold(
    cache: CacheHandle,
    State(shop): State<Shop>,
    Path((category, product)): Path<(String, String)>,
) -> StatusCode {
    shop.sales.add(&category, product);
    match cache.purge(Selector::Tag(format!("category:{category}"))).await {
        Ok(_) => StatusCode::NO_CONTENT,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// In the place of a database.
#[derive(Clone, Default)]
struct Sales(Arc<Mutex<Vec<(String, String)>>>);

#[derive(Debug)]
enum SalesError {}

impl Sales {
    fn add(&self, category: &str, product: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((category.into(), product));
    }

    /// Takes its time.
    async fn top(self, category: String, most: usize) -> Result<Vec<String>, SalesError> {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let sales = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sold = |product: &String| sales.iter().filter(|(_, sold)| sold == product).count();
        let mut products: Vec<String> =
            sales.iter().filter(|(of, _)| *of == category).map(|(_, product)| product.clone()).collect();
        products.sort();
        products.dedup();
        products.sort_by_key(|product| std::cmp::Reverse(sold(product)));
        products.truncate(most);
        Ok(products)
    }
}
