//! [`Plainly`]: where stored content is compressed, handlers are asked for content without coding, so that one entry serves everybody.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::rfc9111::date;
use crate::settings::Settings;

/// Which resources can't be had without coding. RFC 9110 §12.5.3 wants a server to send them so all the same; one that answers 406
/// is asked for what the client accepts for a while. Not for ever: the 406 may have been about something else.
#[derive(Debug, Default)]
pub(crate) struct Plainly {
    any: AtomicBool,
    refused: Mutex<HashMap<u64, Duration>>,
}

/// The most that are remembered. Beyond, all are forgotten: each costs one 406 then.
const MOST: usize = 1024;

/// For how long one is remembered.
const LASTS: Duration = Duration::from_secs(120);

impl Plainly {
    /// Makes a request to the handler ask for content without coding, where compression is on. Tells whether it did.
    pub(crate) fn ask(&self, settings: &Settings, resource: u64, request: &mut HeaderMap) -> bool {
        if !settings.compression.is_on() || self.is_refused(settings, resource) {
            return false;
        }
        request.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        true
    }

    /// Looks at the answer to a request that [asked](Self::ask) so. True where it is an error that the client's own request may not have
    /// provoked: it is never stored.
    pub(crate) fn is_refusal(&self, settings: &Settings, resource: u64, status: StatusCode) -> bool {
        if status != StatusCode::NOT_ACCEPTABLE {
            return false;
        }
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.len() >= MOST {
            refused.clear();
        }
        refused.insert(resource, settings.clock.now().monotonic);
        self.any.store(true, Ordering::Release);
        true
    }

    fn is_refused(&self, settings: &Settings, resource: u64) -> bool {
        if !self.any.load(Ordering::Acquire) {
            return false;
        }
        let since = self.refused.lock().unwrap_or_else(PoisonError::into_inner).get(&resource).copied();
        since.is_some_and(|since| settings.clock.now().monotonic.saturating_sub(since) < LASTS)
    }
}

/// Whether it depends on a date if the client gets a part (RFC 9110 §13.1.5).
pub(crate) fn parts_are_told_by_date(asked: &HeaderMap) -> bool {
    asked.get(header::IF_RANGE).is_some_and(|condition| date::parse(condition.as_bytes()).is_some())
}
