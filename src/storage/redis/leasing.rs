//! Leases: one of several instances asks the handler, and the others wait for what it stores.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::connection::Connection;
use super::failure::Failure;
use super::keys;
use super::replies;
use super::script::RELEASE;
use super::shelf::Shelf;
use crate::key::CacheKey;
use crate::storage::{Lease, LeaseToken, Released};

/// What lies in the place of a lease after an answer that is nobody else's; no token is that short.
const DECLINED: &[u8] = b"-";

/// For so long after such an answer nobody waits.
const DECLINED_FOR: Duration = Duration::from_secs(1);

/// Asks for the lease. Whoever stops waiting for the answer doesn't have it, so that nobody waits for them either.
pub(super) async fn lease(shelf: &Arc<Shelf>, key: &CacheKey, term: Duration) -> Result<Lease, Failure> {
    let token = LeaseToken(super::random()?);
    let mut asked = Asked { shelf, place: shelf.keyspace().lease(&keys::digest(key)), token, is_over: false };
    let place = &asked.place;
    let there = shelf.data.run(|at| take(at, place, token, term)).await;
    asked.is_over = there.is_ok();
    Ok(match there?.as_deref() {
        None => Lease::Granted(token),
        // It was asked for twice, and the first answer was lost.
        Some(there) if there == token.0 => Lease::Granted(token),
        Some(DECLINED) => Lease::Free,
        Some(_) => Lease::Taken,
    })
}

/// Ends a lease, if it is still that one.
pub(super) async fn release(shelf: &Shelf, key: &CacheKey, token: LeaseToken, how: Released) -> Result<(), Failure> {
    give_back(shelf, &shelf.keyspace().lease(&keys::digest(key)), token, how).await
}

/// Takes the place of the lease if it is free, and tells what lay there.
async fn take(
    connection: Arc<Connection>,
    place: &str,
    token: LeaseToken,
    term: Duration,
) -> Result<Option<Vec<u8>>, Failure> {
    let term = u64::try_from(term.as_millis()).unwrap_or(u64::MAX).max(1);
    let mut set = redis::cmd("SET");
    set.arg(place).arg(&token.0[..]).arg("NX").arg("PX").arg(term).arg("GET");
    replies::optional_bytes(connection.ask(&set).await?)
}

async fn give_back(shelf: &Shelf, place: &str, token: LeaseToken, how: Released) -> Result<(), Failure> {
    let left = if how == Released::Declined { DECLINED } else { b"" };
    let release = &RELEASE.call(&[place]).bytes(token.0).bytes(left).number(DECLINED_FOR.as_millis());
    shelf.data.run(|at| async move { release.run(&at).await }).await.map(drop)
}

/// A lease that was asked for. If nobody hears the answer, it is given back.
struct Asked<'a> {
    shelf: &'a Arc<Shelf>,
    place: String,
    token: LeaseToken,
    is_over: bool,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let Ok(runtime) = Handle::try_current() else { return };
        if !self.is_over {
            let (shelf, place, token) = (self.shelf.clone(), std::mem::take(&mut self.place), self.token);
            // If that fails as well, it ends with its term.
            runtime.spawn(async move { give_back(&shelf, &place, token, Released::Failed).await });
        }
    }
}
