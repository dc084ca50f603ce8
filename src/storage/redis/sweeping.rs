//! Sweeping: everything under a prefix goes, in steps that keep the server free for others.

use std::sync::Arc;

use redis::{Cmd, Value};

use super::connection::Connection;
use super::failure::Failure;
use super::replies;
use super::shelf::Shelf;

/// About how many keys of the server are looked at in a step.
const STEP: u32 = 1000;

/// Drops all keys that match any of these patterns, of which each begins with the own prefix. It goes on to the end though nobody waits for it any more.
pub(super) async fn sweep(shelf: &Arc<Shelf>, patterns: Vec<String>) -> Result<(), Failure> {
    let shelf = shelf.clone();
    let task = tokio::spawn(async move {
        for pattern in &patterns {
            shelf.sweep_all(pattern).await?;
        }
        Ok(())
    });
    task.await.unwrap_or_else(|_| Err(Failure::new("the runtime ended while responses were being dropped")))
}

impl Shelf {
    /// What was there when it began is gone when it ends; if the server changes meanwhile, it begins anew.
    async fn sweep_all(&self, pattern: &str) -> Result<(), Failure> {
        let mut cursor = 0;
        let mut generation = self.server.generation();
        loop {
            let at = cursor;
            cursor = self.data.run(|connection| step(connection, pattern, at)).await?;
            let now = self.server.generation();
            if now != generation && at != 0 {
                (cursor, generation) = (0, now);
            } else if cursor == 0 {
                return Ok(());
            }
        }
    }
}

/// One step; returns where to go on, or zero.
async fn step(connection: Arc<Connection>, pattern: &str, cursor: u64) -> Result<u64, Failure> {
    let mut scan = redis::cmd("SCAN");
    scan.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(STEP);
    let [next, keys] = replies::list(connection.ask(&scan).await?)?;
    let keys = replies::values(keys)?.into_iter().map(replies::bytes).collect::<Result<Vec<_>, _>>()?;
    if !keys.is_empty() {
        let unlinked: Value = connection.ask(Cmd::new().arg("UNLINK").arg(&keys)).await?;
        replies::number::<u64>(&unlinked)?;
    }
    replies::number(&next)
}
