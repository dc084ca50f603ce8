//! The slow questions: each reads most of the orders, which is what makes a cache worth having. Their answers are kept by what they are read from, so that pages that
//! need the same one share it, and an order drops the answer and all pages made from it in one step.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use sqlx::sqlite::SqliteRow;

use crate::database::Database;

type Answer<T> = Result<Vec<T>, Arc<sqlx::Error>>;

#[derive(Serialize, Deserialize, FromRow)]
pub struct Revenue {
    month: String,
    category: String,
    orders: i64,
    customers: i64,
    revenue_cents: i64,
    percent_of_month: f64,
    revenue_so_far_cents: i64,
}

const REVENUE: &str = "
    WITH monthly AS (
        SELECT strftime('%Y-%m', o.ordered_at, 'unixepoch') AS month, c.slug AS category,
               count(*) AS orders, count(DISTINCT o.customer_id) AS customers,
               sum(o.quantity * o.unit_price_cents) AS revenue_cents
        FROM orders AS o
        JOIN products AS p ON p.id = o.product_id
        JOIN categories AS c ON c.id = p.category_id
        GROUP BY month, category
    )
    SELECT *,
           round(100.0 * revenue_cents / sum(revenue_cents) OVER (PARTITION BY month), 2)
               AS percent_of_month,
           sum(revenue_cents) OVER (PARTITION BY category ORDER BY month) AS revenue_so_far_cents
    FROM monthly
    ORDER BY month, category";

#[derive(Serialize, Deserialize, FromRow)]
pub struct TopCustomer {
    place: i64,
    customer_id: i64,
    name: String,
    city: String,
    orders: i64,
    spent_cents: i64,
    favourite_category: String,
    percent_spent_on_favourite: f64,
}

const TOP_CUSTOMERS: &str = "
    WITH by_category AS (
        SELECT o.customer_id, p.category_id, count(*) AS orders,
               sum(o.quantity * o.unit_price_cents) AS cents
        FROM orders AS o JOIN products AS p ON p.id = o.product_id
        GROUP BY o.customer_id, p.category_id
    ),
    ranked AS (
        SELECT customer_id, category_id, cents,
               sum(orders) OVER customer AS orders, sum(cents) OVER customer AS spent_cents,
               row_number() OVER (customer ORDER BY cents DESC) AS favour
        FROM by_category
        WINDOW customer AS (PARTITION BY customer_id)
    )
    SELECT rank() OVER (ORDER BY r.spent_cents DESC) AS place, r.customer_id, u.name, u.city,
           r.orders, r.spent_cents, c.slug AS favourite_category,
           round(100.0 * r.cents / r.spent_cents, 2) AS percent_spent_on_favourite
    FROM ranked AS r
    JOIN customers AS u ON u.id = r.customer_id
    JOIN categories AS c ON c.id = r.category_id
    WHERE r.favour = 1
    ORDER BY place
    LIMIT 20";

#[derive(Serialize, Deserialize, FromRow)]
pub struct PriceRank {
    category: String,
    lowest_paid_cents: i64,
    median_paid_cents: i64,
    ninth_decile_paid_cents: i64,
    highest_paid_cents: i64,
    percent_of_revenue_from_dearest_tenth: f64,
}

const PRICE_RANK: &str = "
    WITH paid AS (
        SELECT p.category_id, o.unit_price_cents AS price, o.quantity * o.unit_price_cents AS cents,
               percent_rank() OVER by_price AS place, ntile(10) OVER by_price AS tenth
        FROM orders AS o JOIN products AS p ON p.id = o.product_id
        WINDOW by_price AS (PARTITION BY p.category_id ORDER BY o.unit_price_cents)
    )
    SELECT c.slug AS category, min(price) AS lowest_paid_cents,
           max(price) FILTER (WHERE place <= 0.5) AS median_paid_cents,
           max(price) FILTER (WHERE place <= 0.9) AS ninth_decile_paid_cents,
           max(price) AS highest_paid_cents,
           round(100.0 * sum(cents) FILTER (WHERE tenth = 10) / sum(cents), 2)
               AS percent_of_revenue_from_dearest_tenth
    FROM paid JOIN categories AS c ON c.id = paid.category_id
    GROUP BY c.id
    ORDER BY c.slug";

#[derive(Serialize, Deserialize, FromRow)]
pub struct Related {
    id: i64,
    name: String,
    category: String,
    price_cents: i64,
    shared_customers: i64,
}

/// Dearer the more popular the product is: its buyers' whole shopping is looked through.
const RELATED: &str = "
    WITH together AS (
        SELECT theirs.product_id, count(DISTINCT theirs.customer_id) AS shared_customers
        FROM orders AS mine
        JOIN orders AS theirs ON theirs.customer_id = mine.customer_id
        WHERE mine.product_id = ?1 AND theirs.product_id <> ?1
        GROUP BY theirs.product_id
    )
    SELECT p.id, p.name, p.category, p.price_cents, t.shared_customers
    FROM together AS t JOIN catalogue AS p ON p.id = t.product_id
    ORDER BY t.shared_customers DESC, p.id
    LIMIT 10";

impl Database {
    pub async fn revenue(&self) -> Answer<Revenue> {
        self.once("revenue", REVENUE, None).await
    }

    pub async fn top_customers(&self) -> Answer<TopCustomer> {
        self.once("top-customers", TOP_CUSTOMERS, None).await
    }

    pub async fn price_rank(&self) -> Answer<PriceRank> {
        self.once("price-rank", PRICE_RANK, None).await
    }

    pub async fn related(&self, product_id: i64) -> Answer<Related> {
        self.once(&format!("related:{product_id}"), RELATED, Some(product_id)).await
    }

    /// Asks the database, unless the answer is known.
    async fn once<T>(&self, name: &str, query: &'static str, argument: Option<i64>) -> Answer<T>
    where
        T: for<'row> FromRow<'row, SqliteRow> + Serialize + DeserializeOwned + Send + Unpin + 'static,
    {
        let pool = self.pool.clone();
        let load = || async move {
            let query = sqlx::query_as(query);
            argument.into_iter().fold(query, |query, argument| query.bind(argument)).fetch_all(&pool).await
        };
        self.queries.of("orders").also("products").get_or_load(name, load).await
    }
}
