//! What changed and isn't told yet. An event is written in the transaction of its change, so that neither is there without the other; whoever
//! listens is told of it after the commit, and it is struck out when they have acted on it, and not before. What a crash leaves here is told at the next start.

use sqlx::{FromRow, SqliteConnection, SqlitePool};
use tokio::sync::{mpsc, oneshot};

/// Something changed; its topic says what, such as `product:17`.
#[derive(Debug, FromRow)]
pub struct Event {
    pub id: i64,
    pub topic: String,
}

/// Notes an event, to be told if the transaction is committed.
pub async fn note(transaction: &mut SqliteConnection, topic: &str) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO outbox (topic) VALUES (?)").bind(topic).execute(transaction).await?;
    Ok(())
}

/// The side of those who change things.
#[derive(Clone)]
pub struct Outbox {
    bell: mpsc::UnboundedSender<oneshot::Sender<()>>,
}

/// The side of who listens. There is one.
pub struct Listener {
    pool: SqlitePool,
    bell: mpsc::UnboundedReceiver<oneshot::Sender<()>>,
}

pub fn open(pool: SqlitePool) -> (Outbox, Listener) {
    let (ring, bell) = mpsc::unbounded_channel();
    (Outbox { bell: ring }, Listener { pool, bell })
}

impl Outbox {
    /// Waits until what was committed so far is told, so that an answer comes no sooner than its effects; if that goes wrong, no longer: the listener tries again.
    pub async fn told(&self) {
        let (told, until_told) = oneshot::channel();
        if self.bell.send(told).is_ok() {
            let _ = until_told.await;
        }
    }
}

impl Listener {
    /// The event that was committed first, if one is left.
    pub async fn oldest(&self) -> Result<Option<Event>, sqlx::Error> {
        sqlx::query_as("SELECT id, topic FROM outbox ORDER BY id LIMIT 1").fetch_optional(&self.pool).await
    }

    /// Strikes an event out: whoever listens has acted on it.
    pub async fn strike_out(&self, event: &Event) -> Result<(), sqlx::Error> {
        sqlx::query("DELETE FROM outbox WHERE id = ?").bind(event.id).execute(&self.pool).await?;
        Ok(())
    }

    /// Waits until something may have changed; `None` when nobody is left who could change anything. What is returned is dropped when all is told.
    pub async fn rung(&mut self) -> Option<Vec<oneshot::Sender<()>>> {
        let mut waiting = Vec::new();
        let rung = self.bell.recv_many(&mut waiting, usize::MAX).await;
        (rung > 0).then_some(waiting)
    }
}
