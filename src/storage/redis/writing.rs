//! Writing. Each is one script, so that it is done as a whole or not at all, whoever stops waiting for it.

use std::sync::Arc;
use std::time::Duration;

use super::connection::Connection;
use super::failure::Failure;
use super::keys;
use super::marker;
use super::replies;
use super::script::{PUT, REMOVE};
use super::shelf::Shelf;
use crate::key::CacheKey;
use crate::response::StoredResponse;

/// Stores a response, unless one that began later is there.
pub(super) async fn put(shelf: &Shelf, key: &CacheKey, response: &StoredResponse, most: usize) -> Result<(), Failure> {
    let place = shelf.keyspace().response(key, &keys::digest(key));
    let variant = Variant::of(response)?;
    let (place, variant) = (&place, &variant);
    shelf.data.run(|at| put_at(shelf, at, place, key, response, variant, most)).await
}

async fn put_at(
    shelf: &Shelf,
    connection: Arc<Connection>,
    place: &str,
    key: &CacheKey,
    response: &StoredResponse,
    variant: &Variant,
    most: usize,
) -> Result<(), Failure> {
    // Only now is it known what time it is at the server.
    let record = shelf.format.encode(response, key, shelf.server.shift());
    let put = PUT.call(&[place]).bytes(&record).number(lifetime(response, shelf.server.settings.longest));
    let put =
        put.bytes(variant.fields.as_bytes()).bytes(variant.digest.as_bytes()).bytes(variant.generation.as_bytes());
    let stored: u64 = replies::number(&put.number(most.max(1) as u64).run(&connection).await?)?;
    if stored == 0 {
        tracing::trace!("a response that began later is in Redis already");
    }
    Ok(())
}

/// Drops what is stored under a key, with all variants.
pub(super) async fn remove(shelf: &Shelf, key: &CacheKey) -> Result<bool, Failure> {
    let digest = keys::digest(key);
    let place = shelf.keyspace().response(key, &digest);
    let remove = &REMOVE.call(&[&place]);
    let removed = shelf.data.run(|at| async move { remove.run(&at).await }).await?;
    shelf.varies.forget(&digest);
    Ok(replies::number::<u64>(&removed)? > 0)
}

/// Which variant a response is. All are empty where it doesn't vary.
struct Variant {
    fields: String,
    digest: String,
    /// In case that it is the first of its resource.
    generation: String,
}

impl Variant {
    fn of(response: &StoredResponse) -> Result<Self, Failure> {
        let variance = &response.variance;
        if variance.fields.is_empty() {
            return Ok(Self { fields: String::new(), digest: String::new(), generation: String::new() });
        }
        Ok(Self {
            fields: marker::joined(&variance.fields),
            digest: marker::digest(&variance.key),
            generation: keys::name(&super::random()?),
        })
    }
}

/// For how many milliseconds it is kept.
pub(super) fn lifetime(response: &StoredResponse, longest: Duration) -> u64 {
    u64::try_from(response.keep().min(longest).as_millis()).unwrap_or(u64::MAX).max(1)
}
