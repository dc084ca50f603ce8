//! [`Queries`]: results of database queries, cached by the model that they read, and dropped by the transaction that writes to it.
//!
//! A result is a value of a data cache that bears the tag of its model, `model:NAME`; a response that is made from it bears that as well. So what a
//! [`Write`] drops when it is committed is one purge: results, the JSON and the pages above them.

mod model;
mod write;

use std::sync::Arc;

use sqlx::{Database, Pool, Transaction};

pub use self::model::Model;
pub use self::write::Write;
use crate::data::DataCache;
use crate::purging::Purge;
use crate::selector::Selector;

/// Results of queries, by model: a table, a view, or whatever name the application gives to what is read and written together. Clones share what they have.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use std::time::Duration;
/// use larder::CacheLayer;
/// use larder::queries::Queries;
/// # let pool = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1).connect("sqlite::memory:").await?;
/// # sqlx::query("CREATE TABLE products (id INTEGER PRIMARY KEY, name TEXT)").execute(&pool).await?;
///
/// let cache = CacheLayer::in_memory(64 << 20);
/// let queries = Queries::new(cache.data("queries").ttl(Duration::from_secs(300)));
///
/// // Asked of the database once, however many want it.
/// let from = pool.clone();
/// let names: Vec<(String,)> = queries
///     .of("products")
///     .get_or_load("names", move || async move {
///         sqlx::query_as("SELECT name FROM products ORDER BY name").fetch_all(&from).await
///     })
///     .await?;
///
/// // When this is committed, all results of the model are gone, and the responses made from them.
/// queries
///     .write(&pool, ["products"], async |transaction| {
///         sqlx::query("INSERT INTO products (name) VALUES ('jar')").execute(&mut **transaction).await.map(drop)
///     })
///     .await?;
/// # assert!(names.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Queries {
    data: DataCache,
}

impl Queries {
    /// Keeps results in this cache, on its terms.
    pub fn new(data: DataCache) -> Self {
        Self { data }
    }

    /// The cache that has the results.
    pub fn data(&self) -> &DataCache {
        &self.data
    }

    /// Results that are read from a model.
    pub fn of(&self, model: &str) -> Model<'_> {
        Model::new(&self.data, model)
    }

    /// Drops all results of a model, and the responses made from them: what is returned is awaited to make it so. For writes that didn't come through
    /// [`write`](Self::write) or [`begin`](Self::begin).
    pub fn invalidate_model(&self, model: &str) -> Purge {
        self.data.purge(Selector::Tag(model::tag_of(model)))
    }

    /// Does something in a transaction that writes to these models, and commits it; then their results are dropped, before this returns. If `work` fails, it is rolled back, and nothing is dropped.
    ///
    /// # Errors
    /// That of `work`; and of the database, if the transaction can't be begun or committed.
    pub async fn write<DB, M, T, E, F>(
        &self,
        pool: &Pool<DB>,
        models: impl IntoIterator<Item = M>,
        work: F,
    ) -> Result<T, E>
    where
        DB: Database,
        M: AsRef<str>,
        E: From<sqlx::Error>,
        F: AsyncFnOnce(&mut Write<DB>) -> Result<T, E>,
    {
        let mut write = self.begin(pool, models).await?;
        match work(&mut write).await {
            Ok(value) => {
                write.commit().await?;
                Ok(value)
            }
            Err(error) => {
                // If that fails, the database does it when the connection ends.
                _ = write.rollback().await;
                Err(error)
            }
        }
    }

    /// Begins a transaction that writes to these models; their results are dropped when it is [committed](Write::commit).
    ///
    /// # Errors
    /// If the database can't begin one.
    pub async fn begin<DB: Database, M: AsRef<str>>(
        &self,
        pool: &Pool<DB>,
        models: impl IntoIterator<Item = M>,
    ) -> Result<Write<DB>, sqlx::Error> {
        Ok(self.within(pool.begin().await?, models))
    }

    /// A transaction that has begun already, perhaps in a way of its own (`BEGIN IMMEDIATE`), writes to these models.
    pub fn within<DB: Database, M: AsRef<str>>(
        &self,
        transaction: Transaction<'static, DB>,
        models: impl IntoIterator<Item = M>,
    ) -> Write<DB> {
        let tags = models.into_iter().map(|model| model::tag_of(model.as_ref())).collect();
        Write::new(Arc::clone(&self.data.live), transaction, tags)
    }
}
