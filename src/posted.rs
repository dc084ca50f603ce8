//! [`Posted`]: a POST whose answer may be stored for later GETs. What it invalidates goes first; and if anything else was invalidated meanwhile,
//! nobody knows which of the two is newer, so nothing is stored.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body;

use crate::admission::{Ask, Write};
use crate::boarding::Departure;
use crate::cache::CacheCore;
use crate::cached::Cached;
use crate::clock::Moment;
use crate::fetch::Errand;
use crate::outcome::ForwardReason;
use crate::plan::fits;
use crate::post::is_answer_to_get;
use crate::precedence::Verdict;
use crate::response::Stamp;
use crate::sent_fields::SentFields;
use crate::used::{Scope, Sink, Used};

/// What was known before the handler was asked.
pub(crate) struct Posted {
    core: Arc<CacheCore>,
    ask: Ask,
    authority: Vec<u8>,
    target: String,
    asked: SentFields,
    stamp: Stamp,
    /// How many writes to its path there had been.
    writes: u64,
    changes: u64,
    sent: Moment,
    /// The tags that its answer is made from. There is no flight before that is there.
    used: Arc<Used>,
}

impl Posted {
    /// `None` where the answer isn't to be stored, whatever it is.
    pub(crate) fn begin<B>(core: &Arc<CacheCore>, write: &mut Write, request: &Request<B>) -> Option<Self> {
        let ask = *write.would_be_get.take()?;
        let authority = write.authority.as_ref()?.to_vec();
        // Before anything else: what comes after it must be noticed.
        let writes = core.counters.writes.count(&write.target);
        let changes = core.searches.changes();
        let stamp = core.purges.stamp(&ask.key, core.purges.current());
        let (target, asked, sent) = (write.target.clone(), SentFields::of(request.headers()), core.now());
        let used = Arc::new(Used::new(&core.state));
        Some(Self { core: core.clone(), ask, authority, target, asked, stamp, writes, changes, sent, used })
    }

    /// Where the tags go that its answer is made from.
    pub(crate) fn sink(&self) -> Sink {
        Sink::Own(self.used.clone())
    }

    /// The errand on which the answer is stored, and on which terms; `own` is how many writes it counts for itself, and they have taken effect.
    pub(crate) fn answered<B>(self, response: &Response<B>, own: u64, scope: Scope) -> Option<Stored>
    where
        B: Body<Data = Bytes>,
    {
        let head = response.headers();
        if response.status() != StatusCode::OK || !is_answer_to_get(&self.core, &self.authority, &self.target, head) {
            return None;
        }
        let core = self.core;
        let authority = core.groups.authority(self.ask.key.origin().authority);
        let flight = core.flights.begin(&self.stamp, &self.ask.key, authority, None);
        flight.gather_in(self.used);
        let asked = core.asked(&self.ask);
        let departure = Departure { flight, stamp: self.stamp, changes: self.changes, asked };
        // From here on a write seals the flight, and what it brings is held against purges. One that came before has been counted, or has a larger number than the stamp.
        let is_alone = core.counters.writes.count(&self.target) == self.writes + own;
        let errand = Box::new(Errand {
            core: core.clone(),
            ask: self.ask,
            why: ForwardReason::UriMiss,
            asked: self.asked,
            previous: None,
            departure,
            sent: self.sent,
            conditional: false,
            wants_whole: false,
            plainly: false,
            is_post: true,
            scope,
            attended: true,
        });
        let (received, handler) = (core.now(), response.extensions().get::<Cached>().cloned());
        let verdict = errand.judge(StatusCode::OK, head, handler.as_ref(), received).ok().filter(|_| is_alone)?;
        fits(&core.settings, head, response.body().size_hint().exact()).ok()?;
        Some(Stored { errand, verdict, handler, received })
    }
}

/// An answer that will be stored.
pub(crate) struct Stored {
    pub(crate) errand: Box<Errand>,
    pub(crate) verdict: Verdict,
    pub(crate) handler: Option<Cached>,
    pub(crate) received: Moment,
}
