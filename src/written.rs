//! A write whose answer isn't known yet, and what it makes invalid when it is: its URI and what its head names (RFC 9111 §4.4, RFC 9875 §3), and the
//! tags and patterns that its rule names.

use std::sync::Arc;

use http::{HeaderMap, StatusCode};

use crate::admission::Write;
use crate::cache::CacheCore;
use crate::coherence::Outdated;
use crate::key::Origin;
use crate::live::Live;
use crate::request::Scheme;
use crate::rfc9111::groups::{self, CACHE_GROUP_INVALIDATION};
use crate::rfc9111::invalidation::{invalidates, named_targets};

/// A write that is with the handler. If there never is an answer (the client left, the handler panicked or failed), the write may have happened all
/// the same, and what it touched is invalid.
pub(crate) struct Unanswered<'a> {
    live: &'a Arc<Live>,
    write: Option<Write>,
}

impl<'a> Unanswered<'a> {
    pub(crate) fn new(live: &'a Arc<Live>, write: Write) -> Self {
        Self { live, write: Some(write) }
    }

    /// Returns how many writes to the path of the target it is counted as. What it made invalid is so when this returns: on this instance if not in the log of all.
    pub(crate) async fn answered(mut self, status: StatusCode, head: &HeaderMap) -> u64 {
        let Some(write) = self.write.take().filter(|_| invalidates(status)) else { return 0 };
        // By the newest settings: what was stored since is keyed by them, and they know how it was before.
        let core = self.live.load_full();
        let mut outdated = Outdated::new(&core);
        let authority = write.authority.as_deref();
        invalidate(&core, authority, &write.target, &mut outdated);
        let mut count = 1;
        for named in named_targets(authority.unwrap_or_default(), &write.target, head) {
            invalidate(&core, authority, &named, &mut outdated);
            count += u64::from(core.counters.writes.are_one(&named, &write.target));
        }
        let groups = groups::named(head, &CACHE_GROUP_INVALIDATION);
        if !groups.is_empty() {
            let scheme = write.scheme.as_ref().map(|Scheme(scheme)| scheme.as_bytes());
            core.invalidate_groups(Origin { authority, scheme }, &groups, &mut outdated);
        }
        core.purge_by_rule(&write.target, &mut outdated);
        self.live.keep_coherent();
        outdated.write().await;
        count
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if let Some(write) = self.write.take() {
            let core = self.live.load_full();
            let mut outdated = Outdated::new(&core);
            invalidate(&core, write.authority.as_deref(), &write.target, &mut outdated);
            core.purge_by_rule(&write.target, &mut outdated);
            self.live.keep_coherent();
            outdated.write_behind();
        }
    }
}

fn invalidate(core: &CacheCore, authority: Option<&[u8]>, target: &str, outdated: &mut Outdated) {
    core.counters.writes.note(target);
    core.invalidate(authority, target, outdated);
}
