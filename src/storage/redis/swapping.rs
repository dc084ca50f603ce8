//! Swapping: one script, which compares what is there with the record that is expected, and puts the new one in its place or tells what is there instead.
//!
//! A script whose answer is lost may have run. It is run once more on a new connection, and finds out by the new record, which is like no other; but if somebody else has swapped that away meanwhile,
//! nobody can tell any more, and the error says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use redis::Value;

use super::connection::Connection;
use super::failure::Failure;
use super::keys;
use super::marker::Marker;
use super::reading::is_damage;
use super::replies;
use super::script::SWAP;
use super::shelf::Shelf;
use super::writing::lifetime;
use crate::error::StorageError;
use crate::response::StoredResponse;
use crate::storage::swap::variants;
use crate::storage::{Expected, Swap, Swapped};

/// Puts a response in the place of the expected one, or of nothing.
pub(super) async fn swap(shelf: &Shelf, swap: &Swap<'_>) -> Result<Swapped, StorageError> {
    if swap.new.varies() {
        return Err(variants());
    }
    let place = shelf.keyspace().response(swap.key, &keys::digest(swap.key));
    let swapping = Swapping { shelf, swap, place: &place, asked: AtomicU32::new(0) };
    // What can't be read by anybody goes, and then there is nothing.
    for _ in 0..MOST_DAMAGED {
        match swapping.run().await? {
            Answer::Done => return Ok(Swapped::Done),
            Answer::Instead(there) => return Ok(Swapped::Not(there)),
            Answer::Damage(record) => shelf.drop_damaged(&place, &record).await,
        }
    }
    Err(StorageError::refused("Redis: what is there is damaged, again and again"))
}

/// How often what is damaged may be in the way.
const MOST_DAMAGED: usize = 3;

struct Swapping<'a> {
    shelf: &'a Shelf,
    swap: &'a Swap<'a>,
    place: &'a str,
    /// How often the server was asked without having said that it doesn't.
    asked: AtomicU32,
}

enum Answer {
    Done,
    Instead(Option<Arc<StoredResponse>>),
    Damage(Bytes),
}

impl Swapping<'_> {
    async fn run(&self) -> Result<Answer, StorageError> {
        let answer = self.shelf.data.run(|at| self.run_at(at)).await;
        let asked = self.asked.swap(0, Ordering::Relaxed);
        let instead = answer.map_err(|failure| StorageError::from(failure).after(asked > 0))?;
        match instead {
            None => Ok(Answer::Done),
            Some(_) if asked > 1 => Err(StorageError::new(
                "Redis: the connection broke, and what became of the swap can't be told any more",
            )),
            Some(None) => Ok(Answer::Instead(None)),
            Some(Some(there)) => self.read(there),
        }
    }

    /// What is there instead, if it wasn't done.
    async fn run_at(&self, connection: Arc<Connection>) -> Result<Option<Option<Bytes>>, Failure> {
        let Self { shelf, swap: Swap { key, expected, new, .. }, .. } = self;
        // Only now is it known what time it is at the server.
        let encode = |response| shelf.format.encode(response, key, shelf.server.shift());
        let expected = match expected {
            Expected::Nothing => Vec::new(),
            Expected::This(expected) => encode(expected),
        };
        let lifetime = lifetime(new, shelf.server.settings.longest);
        let swap = SWAP.call(&[self.place]).bytes(encode(new)).number(lifetime).bytes(expected);
        let again = self.asked.fetch_add(1, Ordering::Relaxed) > 0;
        let answer = swap.number(u8::from(again)).run(&connection).await;
        if answer.as_ref().is_err_and(|failure| failure.was_refused) {
            self.asked.fetch_sub(1, Ordering::Relaxed);
        }
        let mut said = replies::values(answer?)?.into_iter();
        match (said.next(), said.next()) {
            (Some(Value::Int(1)), None) => Ok(None),
            (Some(Value::Int(0)), Some(there)) => Ok(Some(replies::optional_bytes(there)?.map(Bytes::from))),
            _ => Err(Failure::nonsense("no outcome of a swap")),
        }
    }

    /// What others could still read is never taken for nothing.
    fn read(&self, there: Bytes) -> Result<Answer, StorageError> {
        let Shelf { server, format, counts, .. } = self.shelf;
        if Marker::is_one(&there) {
            return Err(variants());
        }
        match format.decode(there.clone(), self.swap.key, self.swap.now, server.shift()) {
            Ok(response) if !server.knows_epoch_of(response.stamp.number) => {
                Err(StorageError::refused("Redis: it isn't known here yet what was purged of late"))
            }
            Ok(response) if response.varies() => Err(variants()),
            Ok(response) => Ok(Answer::Instead(Some(Arc::new(response)))),
            Err(error) => {
                counts.refused(error);
                if is_damage(error) {
                    return Ok(Answer::Damage(there));
                }
                Err(StorageError::with_source("Redis: what is there can't be read here", error).after(false))
            }
        }
    }
}
