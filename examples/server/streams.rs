//! The two answers that are streams: one that never ends, and one that is large.

use std::convert::Infallible;
use std::fmt::Write;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE, HeaderName};
use axum::response::IntoResponse;
use axum::response::sse::{Event, Sse};
use futures_util::{Stream, TryStreamExt, stream};
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::database::{Database, Product};
use crate::shop::Shop;

const CSV_HEAD: &str = "id,name,category,description,price_cents,stock\r\n";
const ROWS_PER_CHUNK: i64 = 500;

pub async fn events(State(shop): State<Shop>) -> impl IntoResponse {
    let mut seconds = interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Sse::new(order_counts(shop, seconds))
}

fn order_counts(shop: Shop, seconds: Interval) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold((shop, seconds), async |(mut shop, mut seconds)| {
        tokio::select! {
            _ = shop.closing.changed() => return None,
            _ = seconds.tick() => {}
        }
        match shop.database.count_orders().await {
            Ok(count) => {
                let event = Event::default().event("orders").data(count.to_string());
                Some((Ok(event), (shop, seconds)))
            }
            Err(cause) => {
                tracing::error!(%cause, "the event stream lost the database");
                None
            }
        }
    })
}

/// It says itself how long it may be kept, for a cache that follows its origin, and what it is made from.
pub async fn export(State(shop): State<Shop>) -> impl IntoResponse {
    let chunks = csv_chunks(shop.database).inspect_err(|cause| tracing::error!(%cause, "the export was cut off"));
    let headers = [
        (CONTENT_TYPE, "text/csv; charset=utf-8; header=present"),
        (CONTENT_DISPOSITION, "attachment; filename=\"products.csv\""),
        (CACHE_CONTROL, "public, max-age=300"),
        (HeaderName::from_static("cache-tag"), "products"),
    ];
    (headers, Body::from_stream(chunks))
}

/// Every chunk is a query of its own, so that a slow reader never keeps a connection busy.
fn csv_chunks(database: Database) -> impl Stream<Item = Result<String, sqlx::Error>> {
    stream::try_unfold((database, 0), async |(database, last_id)| {
        let products = database.products_after(last_id, ROWS_PER_CHUNK).await?;
        let Some(last) = products.last() else {
            return Ok(None);
        };
        let mut chunk = String::from(if last_id == 0 { CSV_HEAD } else { "" });
        let next = last.id;
        for product in &products {
            push_row(&mut chunk, product);
        }
        Ok(Some((chunk, (database, next))))
    })
}

fn push_row(csv: &mut String, product: &Product) {
    let Product { id, price_cents, stock, .. } = product;
    let [name, category, description] =
        [&product.name, &product.category, &product.description].map(|text| quoted(text));
    // Writing to a String cannot fail.
    let _ = write!(csv, "{id},{name},{category},{description},{price_cents},{stock}\r\n");
}

/// Texts are always quoted: some contain commas.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}
