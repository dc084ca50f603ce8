//! What of a head is stored (RFC 9111 §3.1), and in which form until its content is there: as fields to be changed, or laid out for the store already.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use smallvec::SmallVec;

use crate::cache::CacheCore;
use crate::clock::Moment;
use crate::downstream::Downstream;
use crate::form::{self, Form};
use crate::head::{StoredHead, compact};
use crate::outcome::OWN_FIELDS;
use crate::response::{Origin, REPLACED, StoredResponse, ensure_date};
use crate::rfc9111::date;
use crate::rfc9111::fields::{connection_options, is_hop_by_hop, is_of_one_exchange};
use crate::rfc9111::groups::CACHE_GROUPS;
use crate::rfc9111::search::NO_VARY_SEARCH;
use crate::settings::Settings;
use crate::tags::TAG_FIELDS;

/// The head of a response to be stored.
pub(crate) enum Head {
    /// As it came, and nothing will be changed any more.
    Laid(StoredHead),
    Open(HeaderMap),
}

/// What has arrived of a response.
#[derive(Clone, Copy)]
pub(crate) struct Arrived<'a> {
    pub(crate) head: &'a HeaderMap,
    pub(crate) status: StatusCode,
    /// The rule says so.
    pub(crate) drops_cookies: bool,
    pub(crate) received: Moment,
}

impl Head {
    /// The head as it will be stored; what of the origin's words it replaces or lacks; and whether a line of its `Vary` is the cache's own.
    pub(crate) fn of(
        core: &CacheCore,
        arrived: &Arrived<'_>,
        downstream: Option<&Downstream>,
        form: Form,
    ) -> (Self, Option<Arc<HeaderMap>>, bool) {
        let as_it_came = downstream.is_none() && !form.is_negotiable();
        if let Some(head) = as_it_came.then(|| laid(core, arrived)).flatten() {
            return (Self::Laid(head), None, false);
        }
        let Arrived { head, drops_cookies, received, .. } = *arrived;
        let (mut head, replaced) = stored_head(head, drops_cookies, downstream, received, &core.settings);
        let own_vary = form.is_negotiable() && form::add_vary(&mut head);
        (Self::Open(head), replaced, own_vary)
    }

    /// In memory of its own, with this content, where it is small.
    pub(crate) fn stored(&self, core: &CacheCore, form: Form, content: &Bytes) -> (StoredHead, Bytes) {
        match self {
            Self::Laid(head) => core.heads.pack(head.clone(), content),
            Self::Open(head) => {
                let mut head = Cow::Borrowed(head);
                if matches!(form, Form::Coded { .. }) {
                    form.dress(head.to_mut());
                }
                core.heads.pack(core.heads.lay(head.iter(), &core.settings.switches.names()), content)
            }
        }
    }

    pub(crate) fn etag(&self) -> Option<&HeaderValue> {
        match self {
            Self::Laid(head) => head.get(&header::ETAG),
            Self::Open(head) => head.get(header::ETAG),
        }
    }

    /// To be changed after all; `reserved` are its places.
    pub(crate) fn open(&mut self, reserved: &[HeaderName]) -> &mut HeaderMap {
        if let Self::Laid(head) = self {
            *self = Self::Open(head.to_map_without(reserved));
        }
        match self {
            Self::Open(head) => head,
            Self::Laid(_) => unreachable!("it was opened just now"),
        }
    }
}

/// What says how a response may be used, beside targeted fields. Where the settings keep it out of what is stored, it is remembered all
/// the same: a 304 that comes without it takes none of it back.
const DECISIVE: [HeaderName; 6] =
    [header::CACHE_CONTROL, header::EXPIRES, header::PRAGMA, header::VARY, CACHE_GROUPS, NO_VARY_SEARCH];

/// The head as it is stored: without what is never stored (RFC 9111 §3.1) or belongs to one exchange, with a `Date`,
/// and with the downstream lifetime in place of the origin's. Second, what that replaced, and what else of the origin's words isn't there.
pub(crate) fn stored_head(
    head: &HeaderMap,
    drops_cookies: bool,
    downstream: Option<&Downstream>,
    received: Moment,
    settings: &Settings,
) -> (HeaderMap, Option<Arc<HeaderMap>>) {
    let keeping = Keeping::of(head, drops_cookies, settings);
    let mut kept = HeaderMap::with_capacity(head.len());
    for (name, value) in head.iter().filter(|(name, _)| keeping.keeps(name)) {
        kept.append(name.clone(), value.clone());
    }
    ensure_date(&mut kept, received);
    let hidden = keeping.hidden(head);
    let replaced = (downstream.is_some() || !hidden.is_empty()).then(|| {
        let mut replaced = HeaderMap::new();
        // In a partition targeted fields go as well: for others the answer is not, whatever they say.
        let targets = settings.targets.iter().filter(|_| downstream.is_some_and(|downstream| downstream.private));
        for name in REPLACED.iter().chain(targets.clone()).chain(&hidden) {
            replaced.remove(name);
            replaced.extend(head.get_all(name).iter().map(|value| (name.clone(), value.clone())));
        }
        if let Some(downstream) = downstream {
            REPLACED.iter().chain(targets).for_each(|name| drop(kept.remove(name)));
            kept.insert(header::CACHE_CONTROL, downstream.cache_control());
        }
        Arc::new(compact(&replaced))
    });
    (kept, replaced)
}

/// The same where nothing is replaced, and no validator will be added; without making a map.
fn laid(core: &CacheCore, arrived: &Arrived<'_>) -> Option<StoredHead> {
    let Arrived { head, status, drops_cookies, received } = *arrived;
    let keeping = Keeping::of(head, drops_cookies, &core.settings);
    let has = |name: &HeaderName| head.contains_key(name) && keeping.keeps(name);
    if status == StatusCode::OK && !has(&header::ETAG) || !keeping.hidden(head).is_empty() {
        return None;
    }
    let date = match has(&header::DATE) {
        // Not by a malformed one.
        true => date::field(head, header::DATE).map(|_| None)?,
        false => Some(core.heads.date(received.wall)),
    };
    let kept = head.iter().filter(|(name, _)| keeping.keeps(name));
    let reserved = core.settings.switches.names();
    Some(core.heads.lay(kept.chain(date.iter().map(|date| (&DATE, date))), &reserved))
}

static DATE: HeaderName = header::DATE;

/// Which fields of a head are stored.
struct Keeping<'a> {
    settings: &'a Settings,
    drops_cookies: bool,
    nominated: SmallVec<[HeaderName; 2]>,
}

impl<'a> Keeping<'a> {
    fn of(head: &HeaderMap, drops_cookies: bool, settings: &'a Settings) -> Self {
        Self { settings, drops_cookies, nominated: connection_options(head) }
    }

    fn keeps(&self, name: &HeaderName) -> bool {
        let Self { settings, drops_cookies, nominated } = self;
        let of_one_exchange = || is_of_one_exchange(name) && !settings.replayed.contains(name);
        let dropped = *name == header::CONTENT_LENGTH
            || (*drops_cookies && *name == header::SET_COOKIE)
            || nominated.contains(name)
            || settings.never_stored.contains(name)
            || is_hop_by_hop(name)
            || of_one_exchange()
            || OURS.contains(name)
            || !settings.forward_tags && TAGS.contains(name);
        !dropped
    }

    /// What of `head` isn't stored, and has to be remembered all the same.
    fn hidden(&self, head: &HeaderMap) -> SmallVec<[HeaderName; 2]> {
        let settings = self.settings;
        let decides = |name: &&HeaderName| DECISIVE.contains(name) || settings.targets.contains(name);
        let tags = TAGS.iter().filter(|name| head.contains_key(*name) && !self.keeps(name)).cloned();
        settings.never_stored.iter().filter(decides).cloned().chain(tags).collect()
    }
}

// In one place: a constant is made anew for each look.
static OURS: [HeaderName; 4] = OWN_FIELDS;
static TAGS: [HeaderName; 2] = TAG_FIELDS;

/// Takes over the validators that the cache made of the content of `previous`, which `head` still describes.
pub(crate) fn keep_own_validators(head: &mut HeaderMap, origin: &mut Origin, previous: &StoredResponse) {
    let last_modified = previous.head.get(&header::LAST_MODIFIED).filter(|_| previous.origin.own_last_modified);
    for (name, value) in [(header::ETAG, previous.own_etag()), (header::LAST_MODIFIED, last_modified.cloned())] {
        if let Some(value) = value.filter(|_| !head.contains_key(&name)) {
            head.insert(name, value);
        }
    }
    origin.own_etag = previous.origin.own_etag;
    origin.own_last_modified = previous.origin.own_last_modified;
}
