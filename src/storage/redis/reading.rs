//! Reading: one round trip where it is known by which fields a resource varies, or that it doesn't; else two.

use std::sync::Arc;

use bytes::Bytes;
use redis::{Cmd, Value};
use smallvec::SmallVec;

use super::connection::Connection;
use super::failure::Failure;
use super::keys::{self, KeyDigest};
use super::marker::{Marker, Vary};
use super::replies;
use super::script::DROP;
use super::shelf::Shelf;
use crate::record::RecordError;
use crate::response::StoredResponse;
use crate::storage::{Query, Variants};

/// How much of what is damaged tells it apart from what may take its place: what a record begins with.
const BEGINNING: usize = 32;

type Places = SmallVec<[String; 2]>;

/// The variant that is asked for. Where there are only others, the newest of them, so that a miss can say that it is for the variant.
pub(super) async fn get(shelf: &Shelf, query: Query<'_>) -> Result<Variants, Failure> {
    let digest = keys::digest(query.key);
    let place = shelf.keyspace().response(query.key, &digest);
    let known = shelf.varies.get(&digest);
    let expected = known.as_ref().map(|vary| vary.places(&place, query.headers)).unwrap_or_default();
    let (first, found) = shelf.fetch_with(&place, &expected).await?;
    let marker = first.as_ref().is_some_and(|first| Marker::is_one(first));
    if known.is_some() && !marker {
        shelf.varies.invalidate(&digest);
    }
    let Some(first) = first else { return Ok(Variants::new()) };
    if !marker {
        return Ok(shelf.read(&query, &place, first).await.into_iter().collect());
    }
    let Some(marker) = Marker::read(&first) else {
        shelf.drop_damaged(&place, &first).await;
        return Ok(Variants::new());
    };
    if known.is_some_and(|known| *known == marker.vary) {
        return shelf.choose(&query, &place, &marker, &expected, found).await;
    }
    shelf.varies.insert(digest, Arc::new(marker.vary.clone()));
    let places = marker.vary.places(&place, query.headers);
    let found = shelf.fetch(&places).await?;
    shelf.choose(&query, &place, &marker, &places, found).await
}

impl Shelf {
    /// What is at these places, in one round trip.
    async fn fetch(&self, places: &[String]) -> Result<Vec<Option<Bytes>>, Failure> {
        self.data.run(|connection| fetch(connection, places)).await
    }

    /// What is at a place, and at others.
    async fn fetch_with(&self, place: &str, others: &[String]) -> Result<(Option<Bytes>, Vec<Option<Bytes>>), Failure> {
        let places: Places = std::iter::once(place.to_owned()).chain(others.iter().cloned()).collect();
        let mut found = self.fetch(&places).await?;
        let first = found.remove(0);
        Ok((first, found))
    }

    /// Of what was found at the places of the right variant, what can be used; else the variant that was stored last.
    async fn choose(
        &self,
        query: &Query<'_>,
        place: &str,
        marker: &Marker,
        places: &[String],
        found: Vec<Option<Bytes>>,
    ) -> Result<Variants, Failure> {
        let newest = [marker.newest(place)];
        let variants = self.read_all(query, places, found).await;
        if !variants.is_empty() || places.contains(&newest[0]) {
            return Ok(variants);
        }
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
            if let Some(record) = record {
                variants.extend(self.read(query, place, record).await);
            }
        }
        variants
    }

    /// The response of a record. One that can't be used is a miss; if it never will be of use to anybody, it goes.
    async fn read(&self, query: &Query<'_>, place: &str, record: Bytes) -> Option<Arc<StoredResponse>> {
        match self.format.decode(record.clone(), query.key, query.now, self.server.shift()) {
            // Of an epoch that isn't known here yet: so isn't what was purged in it.
            Ok(response) if response.stamp.number >> 32 > self.server.known() >> 32 => None,
            Ok(response) => Some(Arc::new(response)),
            Err(error) => {
                self.counts.refused(error);
                tracing::debug!(%error, "a record in Redis can't be used");
                if is_damage(error) {
                    self.drop_damaged(place, &record).await;
                }
                None
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

async fn fetch(connection: Arc<Connection>, places: &[String]) -> Result<Vec<Option<Bytes>>, Failure> {
    let answers = match places {
        [one] => vec![connection.ask(Cmd::new().arg("GET").arg(one)).await?],
        many => replies::values(connection.ask(Cmd::new().arg("MGET").arg(many)).await?)?,
    };
    if answers.len() != places.len() {
        return Err(Failure::nonsense("more or less than it was asked for"));
    }
    answers.into_iter().map(|answer: Value| Ok(replies::optional_bytes(answer)?.map(Bytes::from))).collect()
}

/// What is known of resources that vary, by the digests of their keys.
pub(super) type Varies = moka::sync::Cache<KeyDigest, Arc<Vary>, ahash::RandomState>;
