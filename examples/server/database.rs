//! Asks the shop's database the everyday questions, and writes to it.

use larder::queries::Queries;
use serde::{Deserialize, Serialize};
use sqlx::{FromRow, QueryBuilder, Sqlite, SqlitePool};

use crate::outbox;

#[derive(Serialize, FromRow)]
pub struct Product {
    pub id: i64,
    pub name: String,
    pub category: String,
    pub description: String,
    pub price_cents: i64,
    pub stock: i64,
    /// Rises with every change, so that it can stand for the content in an ETag.
    #[serde(skip)]
    pub version: i64,
}

#[derive(Serialize, FromRow)]
pub struct Category {
    pub slug: String,
    pub name: String,
    pub products: i64,
}

#[derive(Serialize, FromRow)]
pub struct Order {
    pub id: i64,
    pub customer_id: i64,
    pub product_id: i64,
    pub product: String,
    pub quantity: i64,
    pub unit_price_cents: i64,
    pub ordered_at: String,
}

pub struct Listing {
    pub category: Option<String>,
    pub sort: Sort,
    pub limit: i64,
    pub offset: i64,
}

/// What a list may be sorted by: these words become part of the SQL, and no others do.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sort {
    #[default]
    Id,
    Name,
    Price,
    PriceDesc,
    Stock,
}

impl Sort {
    /// The id comes last everywhere, so that equal rows keep their places from page to page.
    fn order_by(self) -> &'static str {
        match self {
            Sort::Id => " ORDER BY id",
            Sort::Name => " ORDER BY name, id",
            Sort::Price => " ORDER BY price_cents, id",
            Sort::PriceDesc => " ORDER BY price_cents DESC, id",
            Sort::Stock => " ORDER BY stock, id",
        }
    }
}

type Answer<T> = Result<T, sqlx::Error>;

#[derive(Clone)]
pub struct Database {
    pub pool: SqlitePool,
    /// The answers to slow questions. Whatever is written goes through this, so that none of them is an old one.
    pub queries: Queries,
}

impl Database {
    pub async fn list(&self, listing: &Listing) -> Answer<Vec<Product>> {
        let mut query = QueryBuilder::<Sqlite>::new("SELECT * FROM catalogue");
        if let Some(category) = &listing.category {
            query.push(" WHERE category = ").push_bind(category);
        }
        query.push(listing.sort.order_by());
        query.push(" LIMIT ").push_bind(listing.limit);
        query.push(" OFFSET ").push_bind(listing.offset);
        query.build_query_as().fetch_all(&self.pool).await
    }

    pub async fn count(&self, category: Option<&str>) -> Answer<i64> {
        sqlx::query_scalar("SELECT count(*) FROM catalogue WHERE ?1 IS NULL OR category = ?1")
            .bind(category)
            .fetch_one(&self.pool)
            .await
    }

    pub async fn product(&self, id: i64) -> Answer<Option<Product>> {
        sqlx::query_as("SELECT * FROM catalogue WHERE id = ?").bind(id).fetch_optional(&self.pool).await
    }

    /// The products that follow `id`, in the order of their ids.
    pub async fn products_after(&self, id: i64, limit: i64) -> Answer<Vec<Product>> {
        sqlx::query_as("SELECT * FROM catalogue WHERE id > ? ORDER BY id LIMIT ?")
            .bind(id)
            .bind(limit)
            .fetch_all(&self.pool)
            .await
    }

    /// What is `None` stays as it is. The answer is the new product, or `None` if there is none.
    pub async fn change(&self, id: i64, price_cents: Option<i64>, stock: Option<i64>) -> Answer<Option<Product>> {
        let mut write = self.queries.begin(&self.pool, ["products"]).await?;
        sqlx::query(
            "UPDATE products
             SET price_cents = coalesce(?2, price_cents), stock = coalesce(?3, stock),
                 version = version + 1
             WHERE id = ?1",
        )
        .bind(id)
        .bind(price_cents)
        .bind(stock)
        .execute(&mut *write)
        .await?;
        write.commit().await?;
        self.product(id).await
    }

    pub async fn categories(&self) -> Answer<Vec<Category>> {
        sqlx::query_as(
            "SELECT c.slug, c.name, count(*) AS products
             FROM categories AS c JOIN products AS p ON p.category_id = c.id
             GROUP BY c.id ORDER BY c.name",
        )
        .fetch_all(&self.pool)
        .await
    }

    pub async fn knows_customer(&self, id: i64) -> Answer<bool> {
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM customers WHERE id = ?)").bind(id).fetch_one(&self.pool).await
    }

    /// Takes the goods from the stock and answers the order's id, or `None` if too few are left. What that changes is noted in the outbox.
    pub async fn place_order(&self, customer_id: i64, product_id: i64, quantity: i64) -> Answer<Option<i64>> {
        let transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let mut write = self.queries.within(transaction, ["orders", "products"]);
        let price_cents: Option<i64> = sqlx::query_scalar(
            "UPDATE products SET stock = stock - ?2, version = version + 1
             WHERE id = ?1 AND stock >= ?2 RETURNING price_cents",
        )
        .bind(product_id)
        .bind(quantity)
        .fetch_optional(&mut *write)
        .await?;
        let Some(price_cents) = price_cents else {
            return Ok(None);
        };
        let placed = sqlx::query(
            "INSERT INTO orders (customer_id, product_id, quantity, unit_price_cents)
             VALUES (?, ?, ?, ?)",
        )
        .bind(customer_id)
        .bind(product_id)
        .bind(quantity)
        .bind(price_cents)
        .execute(&mut *write)
        .await?;
        let of_one = [format!("product:{product_id}"), format!("customer:{customer_id}")];
        // The last two are what the commit drops; here they are for the case that nobody gets to that.
        let of_all = ["products", "analytics", "model:orders", "model:products"].map(String::from);
        for topic in of_one.into_iter().chain(of_all) {
            outbox::note(&mut write, &topic).await?;
        }
        write.commit().await?;
        Ok(Some(placed.last_insert_rowid()))
    }

    pub async fn order(&self, id: i64) -> Answer<Option<Order>> {
        sqlx::query_as("SELECT * FROM order_book WHERE id = ?").bind(id).fetch_optional(&self.pool).await
    }

    pub async fn newest_orders_of(&self, customer_id: i64) -> Answer<Vec<Order>> {
        sqlx::query_as("SELECT * FROM order_book WHERE customer_id = ? ORDER BY id DESC LIMIT 50")
            .bind(customer_id)
            .fetch_all(&self.pool)
            .await
    }

    pub async fn count_orders(&self) -> Answer<i64> {
        sqlx::query_scalar("SELECT count(*) FROM orders").fetch_one(&self.pool).await
    }

    /// The database's clock, to the millisecond; also the shortest proof that it answers.
    pub async fn now(&self) -> Answer<String> {
        sqlx::query_scalar("SELECT strftime('%Y-%m-%dT%H:%M:%fZ', 'now')").fetch_one(&self.pool).await
    }
}
