//! Reading: one round trip where a resource has one variant, or it is known by which fields it varies; else two.

use std::sync::Arc;

use bytes::Bytes;
use smallvec::{SmallVec, smallvec};

use super::connection::Connection;
use super::failure::Failure;
use super::keys::{self, KeyDigest};
use super::marker::{Marker, Vary};
use super::script::DROP;
use super::shelf::Shelf;
use super::wire::{self, Contents};
use crate::record::RecordError;
use crate::response::StoredResponse;
use crate::storage::{Query, Variants};

/// How much of what is damaged tells it apart from what may take its place: what a record begins with.
const BEGINNING: usize = 32;

/// That of a resource, and those of its variants that may be the right one.
type Places = SmallVec<[String; 3]>;

/// The variant that is asked for. Where there are only others, the newest of them, so that a miss can say that it is for the variant.
pub(super) async fn get(shelf: &Shelf, query: &Query<'_>) -> Result<Variants, Failure> {
    let digest = keys::digest(query.key);
    // What most hits haven't to do is in memory of its own, so that what they wait in is small.
    if let Some(known) = shelf.varies.get(&digest) {
        return Box::pin(shelf.get_variant(query, digest, &known)).await;
    }
    let Some(found) = shelf.fetch_only(query, &digest).await? else { return Ok(Variants::new()) };
    let place = || shelf.keyspace().response(query.key, &digest);
    if Marker::is_alone(&found) {
        return Box::pin(shelf.look_again(query, digest, smallvec![place()], &found)).await;
    }
    match shelf.read(query, &found) {
        Ok(response) => Ok(response.into_iter().collect()),
        Err(Damaged) => {
            Box::pin(async { shelf.drop_damaged(&place(), &found).await }).await;
            Ok(Variants::new())
        }
    }
}

/// What was found is of no use to any instance, and goes.
struct Damaged;

/// Where it may be what is asked for, as far as it is known how the resource varies.
fn places(place: String, vary: &Vary, query: &Query<'_>) -> Places {
    let mut places: Places = vary.places(&place, query.headers).collect();
    places.insert(0, place);
    places
}

impl Shelf {
    /// What is at the place of a resource, in one round trip.
    async fn fetch_only(&self, query: &Query<'_>, digest: &KeyDigest) -> Result<Option<Bytes>, Failure> {
        let ask = |connection: Arc<Connection>| async move {
            connection.ask_for_content(self.keyspace().question(query.key, digest)).await
        };
        self.data.run(ask).await
    }

    /// What is at these places, in one round trip.
    async fn fetch(&self, places: &[String]) -> Result<Contents, Failure> {
        self.data.run(|connection| fetch(connection, places)).await
    }

    /// What is asked for of a resource that varied by `known`.
    async fn get_variant(&self, query: &Query<'_>, digest: KeyDigest, known: &Vary) -> Result<Variants, Failure> {
        let places = places(self.keyspace().response(query.key, &digest), known, query);
        let mut found = self.fetch(&places).await?.into_iter();
        let first = found.next().flatten();
        let Some(marker) = first.as_ref().filter(|first| Marker::is_alone(first)) else {
            self.varies.forget(&digest);
            return Ok(self.read_all(query, &places[..1], [first]).await);
        };
        if Marker::tells(marker, known) {
            let variants = self.read_all(query, &places[1..], found).await;
            if !variants.is_empty() {
                return Ok(variants);
            }
        }
        self.look_again(query, digest, places, marker).await
    }

    /// The right variant, by what the marker says, if it wasn't looked for already; else the one that was stored last.
    async fn look_again(
        &self,
        query: &Query<'_>,
        digest: KeyDigest,
        mut places: Places,
        marker: &Bytes,
    ) -> Result<Variants, Failure> {
        let Some(marker) = Marker::read(marker) else {
            self.drop_damaged(&places[0], marker).await;
            return Ok(Variants::new());
        };
        let newest = marker.newest(&places[0]);
        let then = self::places(places.swap_remove(0), &marker.vary, query);
        self.varies.insert(digest, marker.vary);
        let expected = &then[1..];
        if !expected.iter().all(|expected| places.contains(expected)) {
            let found = self.fetch(expected).await?;
            let variants = self.read_all(query, expected, found).await;
            if !variants.is_empty() {
                return Ok(variants);
            }
        }
        if expected.contains(&newest) {
            return Ok(Variants::new());
        }
        let newest = [newest];
        let found = self.fetch(&newest).await?;
        Ok(self.read_all(query, &newest, found).await)
    }

    async fn read_all(
        &self,
        query: &Query<'_>,
        places: &[String],
        found: impl IntoIterator<Item = Option<Bytes>>,
    ) -> Variants {
        let mut variants = Variants::new();
        for (place, record) in places.iter().zip(found) {
            let Some(record) = record else { continue };
            match self.read(query, &record) {
                Ok(response) => variants.extend(response),
                Err(Damaged) => Box::pin(self.drop_damaged(place, &record)).await,
            }
        }
        variants
    }

    /// The response of what was found at a place: a record, or a marker with one. One that can't be used is a miss; if it never will be of use to anybody, that is the error.
    fn read(&self, query: &Query<'_>, found: &Bytes) -> Result<Option<Arc<StoredResponse>>, Damaged> {
        let behind_marker = Marker::record(found);
        let record = behind_marker.as_ref().unwrap_or(found);
        match self.format.read(record, query.key, query.now, self.server.shift()) {
            // Of an epoch that isn't known here yet: so isn't what was purged in it.
            Ok(response) if !self.server.knows_epoch_of(response.stamp.number) => Ok(None),
            Ok(response) => Ok(Some(Arc::new(response))),
            Err(error) => {
                self.counts.refused(error);
                tracing::debug!(%error, "a record in Redis can't be used");
                if is_damage(error) { Err(Damaged) } else { Ok(None) }
            }
        }
    }

    pub(super) async fn drop_damaged(&self, place: &str, record: &[u8]) {
        let beginning = &record[..record.len().min(BEGINNING)];
        // It would only be found again.
        let call = &DROP.call(&[place]).bytes(beginning);
        drop(self.data.run(|at| async move { call.run(&at).await }).await);
    }
}

/// Whether it is of no use to any instance, whatever its release and its settings.
pub(super) fn is_damage(error: RecordError) -> bool {
    matches!(error, RecordError::Foreign | RecordError::Length | RecordError::Seal | RecordError::Malformed)
}

fn command(places: &[String]) -> Vec<u8> {
    let words: SmallVec<[&[u8]; 4]> = [&b"MGET"[..]].into_iter().chain(places.iter().map(String::as_bytes)).collect();
    wire::command(&words)
}

async fn fetch(connection: Arc<Connection>, places: &[String]) -> Result<Contents, Failure> {
    let found = connection.ask_for_contents(command(places)).await?;
    if found.len() == places.len() { Ok(found) } else { Err(Failure::nonsense("more or less than it was asked for")) }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use crate::clock::{Clock, SystemClock};
    use crate::key::CacheKey;
    use crate::storage::{Guard, Guarded, Query, RedisStore, Storage};

    /// Three times as much where what is seldom done had its place in it. Memory for what is larger than this takes an allocator (glibc's) twice as long.
    const SMALL: usize = 1032;

    #[test]
    fn what_a_hit_waits_in_is_small() {
        let store =
            RedisStore::in_namespace("redis://localhost", "a").map(|store| Guarded::new(store, Guard::default()));
        let (store, key, headers) = (store.expect("a URL"), CacheKey::new(b"h", "/", None), HeaderMap::new());
        let read = store.get(Query::new(&key, &headers, SystemClock::default().now()));
        assert!(size_of_val(&read) <= SMALL, "{}", size_of_val(&read));
    }
}
