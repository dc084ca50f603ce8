//! [`Plainly`]: where stored content is compressed, handlers are asked for content without coding, so that one entry serves everybody.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::settings::Settings;

/// Which resources can't be had without coding. RFC 9110 §12.5.3 wants a server to send them so all the same; one that answers 406
/// is asked for what the client accepts from then on.
#[derive(Debug, Default)]
pub(crate) struct Plainly {
    any: AtomicBool,
    refused: Mutex<HashSet<u64>>,
}

/// The most that are remembered. Beyond, all are forgotten: each costs one 406 then.
const MOST: usize = 1024;

impl Plainly {
    /// Makes a request to the handler ask for content without coding, where compression is on. Tells whether it did.
    pub(crate) fn ask(&self, settings: &Settings, resource: u64, request: &mut HeaderMap) -> bool {
        if !settings.compression.is_on() || self.is_refused(resource) {
            return false;
        }
        request.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        true
    }

    /// Looks at the answer to a request that [asked](Self::ask) so. True where it is an error that the client's own request may not have
    /// provoked: it is never stored.
    pub(crate) fn is_refusal(&self, resource: u64, status: StatusCode) -> bool {
        if status != StatusCode::NOT_ACCEPTABLE {
            return false;
        }
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.len() >= MOST {
            refused.clear();
        }
        refused.insert(resource);
        self.any.store(true, Ordering::Release);
        true
    }

    fn is_refused(&self, resource: u64) -> bool {
        self.any.load(Ordering::Acquire)
            && self.refused.lock().unwrap_or_else(PoisonError::into_inner).contains(&resource)
    }
}
