//! Fills a new database with a made-up pantry shop, the same one on every machine.

use sqlx::query_builder::Separated;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use crate::words::{CATEGORIES, CITIES, FIRST_NAMES, GRAMS, LAST_NAMES, MAKERS, ORIGINS, STORIES};

const PRODUCTS: u64 = 5_000;
const CUSTOMERS: u64 = 400;
const ORDERS: u64 = 40_000;

/// The orders lie between these two moments (2023-01-01 and 2025-01-01), in seconds since 1970.
const FIRST_ORDER: u64 = 1_672_531_200;
const LAST_ORDER: u64 = 1_735_689_600;

/// One INSERT carries this many rows: a statement per row would take several times as long.
const ROWS_PER_INSERT: usize = 500;

const TABLES: &str = "
CREATE TABLE categories (
    id   INTEGER PRIMARY KEY,
    slug TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL
);
CREATE TABLE products (
    id          INTEGER PRIMARY KEY,
    category_id INTEGER NOT NULL REFERENCES categories,
    name        TEXT NOT NULL,
    description TEXT NOT NULL,
    price_cents INTEGER NOT NULL CHECK (price_cents >= 0),
    stock       INTEGER NOT NULL CHECK (stock >= 0),
    version     INTEGER NOT NULL DEFAULT 1
);
CREATE TABLE customers (
    id   INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    city TEXT NOT NULL
);
CREATE TABLE orders (
    id               INTEGER PRIMARY KEY,
    customer_id      INTEGER NOT NULL REFERENCES customers,
    product_id       INTEGER NOT NULL REFERENCES products,
    quantity         INTEGER NOT NULL CHECK (quantity > 0),
    unit_price_cents INTEGER NOT NULL,
    ordered_at       INTEGER NOT NULL DEFAULT (unixepoch())
);
CREATE TABLE outbox (
    id    INTEGER PRIMARY KEY AUTOINCREMENT,
    topic TEXT NOT NULL
);
CREATE VIEW catalogue AS
    SELECT p.id, p.name, c.slug AS category, p.description, p.price_cents, p.stock, p.version
    FROM products AS p JOIN categories AS c ON c.id = p.category_id;
CREATE VIEW order_book AS
    SELECT o.id, o.customer_id, o.product_id, p.name AS product, o.quantity, o.unit_price_cents,
           strftime('%Y-%m-%dT%H:%M:%SZ', o.ordered_at, 'unixepoch') AS ordered_at
    FROM orders AS o JOIN products AS p ON p.id = o.product_id;";

/// Made after the rows are in: filling a table that is already indexed is slower.
const INDEXES: &str = "
CREATE INDEX products_by_category ON products (category_id);
CREATE INDEX orders_by_customer ON orders (customer_id);
CREATE INDEX orders_by_product ON orders (product_id);";

struct Product {
    category: usize,
    name: String,
    description: String,
    price_cents: i64,
    stock: i64,
}

struct Order {
    customer: u64,
    product: u64,
    quantity: i64,
    unit_price_cents: i64,
    ordered_at: i64,
}

/// Makes the tables and their rows. The caller holds the transaction, so that a first start that
/// is interrupted leaves nothing behind.
pub async fn fill(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let mut chance = Chance(2_026);
    let products: Vec<_> = (0..PRODUCTS).map(|n| product(n, &mut chance)).collect();
    let orders: Vec<_> = (0..ORDERS).map(|n| order(n, &products, &mut chance)).collect();

    sqlx::raw_sql(TABLES).execute(&mut *connection).await?;
    fill_categories(connection).await?;
    fill_products(connection, &products).await?;
    fill_customers(connection).await?;
    fill_orders(connection, &orders).await?;
    sqlx::raw_sql(INDEXES).execute(connection).await?;
    Ok(())
}

async fn fill_categories(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let columns = "categories (slug, name)";
    insert(connection, columns, &CATEGORIES, |mut row, category| {
        row.push_bind(category.slug).push_bind(category.name);
    })
    .await
}

async fn fill_products(connection: &mut SqliteConnection, products: &[Product]) -> Result<(), sqlx::Error> {
    let columns = "products (category_id, name, description, price_cents, stock)";
    insert(connection, columns, products, |mut row, product| {
        row.push_bind(product.category as i64 + 1);
        row.push_bind(&product.name).push_bind(&product.description);
        row.push_bind(product.price_cents).push_bind(product.stock);
    })
    .await
}

async fn fill_customers(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let customers: Vec<_> = (0..CUSTOMERS).collect();
    let columns = "customers (name, city)";
    insert(connection, columns, &customers, |mut row, &n| {
        let name = format!("{} {}", pick(&FIRST_NAMES, n), pick(&LAST_NAMES, n / 20));
        row.push_bind(name).push_bind(*pick(&CITIES, n / 3));
    })
    .await
}

async fn fill_orders(connection: &mut SqliteConnection, orders: &[Order]) -> Result<(), sqlx::Error> {
    let columns = "orders (customer_id, product_id, quantity, unit_price_cents, ordered_at)";
    insert(connection, columns, orders, |mut row, order| {
        row.push_bind(order.customer as i64 + 1);
        row.push_bind(order.product as i64 + 1);
        row.push_bind(order.quantity);
        row.push_bind(order.unit_price_cents);
        row.push_bind(order.ordered_at);
    })
    .await
}

async fn insert<T>(
    connection: &mut SqliteConnection,
    table_and_columns: &str,
    rows: &[T],
    mut bind: impl FnMut(Separated<'_, Sqlite, &'static str>, &T),
) -> Result<(), sqlx::Error> {
    for part in rows.chunks(ROWS_PER_INSERT) {
        let mut statement = QueryBuilder::new(format!("INSERT INTO {table_and_columns} "));
        statement.push_values(part, &mut bind);
        statement.build().execute(&mut *connection).await?;
    }
    Ok(())
}

fn product(n: u64, chance: &mut Chance) -> Product {
    let category = (n % 12) as usize;
    let kind = &CATEGORIES[category];
    let turn = n / 12;
    let (good, origin) = (pick(&kind.goods, turn), pick(&ORIGINS, turn / 6));
    let grams = pick(&GRAMS, turn / 60);
    let maker = pick(&MAKERS, chance.below(8));
    let story = pick(&STORIES, chance.below(5));
    Product {
        category,
        name: format!("{origin} {good}, {grams} {}", kind.unit),
        description: format!("{good} from {maker}; {story}."),
        price_cents: (120 + grams * kind.cents_per_gram + chance.below(400)) as i64,
        stock: chance.below(200) as i64,
    }
}

/// Real shops sell a few things to nearly everybody and most things seldom, and people have
/// favourites; without both, "customers also bought" would have nothing to find.
fn order(n: u64, products: &[Product], chance: &mut Chance) -> Order {
    let customer = chance.below(CUSTOMERS);
    let even = chance.fraction();
    let popular_first = (PRODUCTS as f64 * even * even * even) as u64;
    let product = if chance.below(10) < 6 {
        let in_favourite_category = popular_first / 12 * 12 + customer % 12;
        in_favourite_category.min(PRODUCTS - 1)
    } else {
        popular_first
    };
    let pause = (LAST_ORDER - FIRST_ORDER) / ORDERS;
    Order {
        customer,
        product,
        quantity: 1 + (chance.below(3) * chance.below(3)) as i64,
        unit_price_cents: products[product as usize].price_cents,
        ordered_at: (FIRST_ORDER + n * pause + chance.below(pause)) as i64,
    }
}

/// The list begins again at its end, so that any number picks something.
fn pick<T>(list: &[T], n: u64) -> &T {
    &list[(n % list.len() as u64) as usize]
}

/// SplitMix64: the same numbers at every first start, without a dependency.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}
