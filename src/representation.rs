//! [`Representation`]: in which form a client gets stored content that may go out in several: as it is stored, or with its coding taken off
//! (RFC 9110 §12.5.3).
//!
//! Each form has an entity tag of its own (§8.8.3.3). A client may have either, so its conditions are held against all that it accepts, and
//! the form that it has is the one that is meant: a 304 names the very tag that the client named, and a part is of the content that it has
//! a part of already.

use std::ops::Range;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body::Body;

use crate::body::ResponseBody;
use crate::cache::CacheCore;
use crate::compression::Compression;
use crate::decoded::Decoded;
use crate::form::{Form, add_vary};
use crate::plan::announced_length;
use crate::response::StoredResponse;
use crate::rfc9111::coding::Accepts;
use crate::rfc9111::date;
use crate::rfc9111::validation::{EntityTag, Precondition, Validators, evaluate};
use crate::settings::Settings;

/// A stored response as a client gets it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Representation {
    /// Its coding is taken off.
    is_decoded: bool,
    /// Its entity tag, where that isn't the stored one.
    tag: Option<HeaderValue>,
    /// A date doesn't tell its forms apart, so it can't say of which one the client has a part (§8.8.1).
    dates_are_weak: bool,
}

impl Representation {
    /// Chooses for a request that accepts this; `asked` are its fields where they have conditions or a range.
    pub(crate) fn choose(
        stored: &StoredResponse,
        compression: &Compression,
        accepts: Accepts,
        asked: Option<&HeaderMap>,
        is_head: bool,
    ) -> Self {
        match (stored.form, asked) {
            // What most ask for needs nothing that isn't stored.
            (Form::Coded { by, .. }, None) if accepts.prefers(by.coding) => Self::default(),
            (Form::Coded { by, .. }, asked) => {
                let coded_is_welcome = accepts.weight(by.coding) > 0;
                let forms = match (coded_is_welcome, accepts.identity(), accepts.prefers(by.coding)) {
                    // Nothing is acceptable: without coding, everybody can read it.
                    (false, _, _) => [Self::decoded(stored), None],
                    (true, false, _) => [Some(Self::default()), None],
                    (true, true, true) => [Some(Self::default()), Self::decoded(stored)],
                    (true, true, false) => [Self::decoded(stored), Some(Self::default())],
                };
                let forms = forms.map(|form| form.map(|form| Self { dates_are_weak: coded_is_welcome, ..form }));
                Self::meant(forms, stored, asked, is_head)
            }
            (Form::Plain | Form::Settled, Some(asked)) => Self::uncoded(stored, compression, accepts, asked),
            (Form::Plain | Form::Settled, None) | (Form::Fixed, _) => Self::default(),
        }
    }

    fn decoded(stored: &StoredResponse) -> Option<Self> {
        Some(Self { is_decoded: true, tag: stored.plain_etag(), dates_are_weak: false })
    }

    /// What isn't coded (yet) can't go out coded, but a client may have it so, from before it was stored anew.
    fn uncoded(stored: &StoredResponse, compression: &Compression, accepts: Accepts, asked: &HeaderMap) -> Self {
        let Some(by) = compression.coder().filter(|by| accepts.weight(by.coding) > 0) else { return Self::default() };
        let plain = Self { dates_are_weak: true, ..Self::default() };
        let Some(tag) = stored.plain_etag().and_then(|tag| by.tag(&tag)) else { return plain };
        let coded = Self { tag: Some(tag), ..plain.clone() };
        let says = |form: &Self| evaluate(asked, form.validators(stored, Some(asked)));
        if says(&coded) == Precondition::NotModified && says(&plain) != Precondition::NotModified {
            coded
        } else {
            plain
        }
    }

    /// Of the acceptable forms, the most welcome first, the one that the conditions and the range mean.
    fn meant(forms: [Option<Self>; 2], stored: &StoredResponse, asked: Option<&HeaderMap>, is_head: bool) -> Self {
        let [first, second] = forms;
        let first = first.unwrap_or_default();
        let (Some(asked), Some(second)) = (asked, second) else { return first };
        let says = |form: &Self| evaluate(asked, form.validators(stored, Some(asked)));
        let (of_first, of_second) = (says(&first), says(&second));
        let both = [(&first, of_first), (&second, of_second)];
        let any = |wanted: fn(Precondition) -> bool| both.iter().find(|(_, said)| wanted(*said)).map(|(form, _)| *form);
        if let Some(form) = any(|said| said == Precondition::NotModified) {
            return form.clone();
        }
        if asked.contains_key(header::RANGE) && !is_head {
            // Without a word about what it has, a part is of the content that everybody can read.
            let mut parts = both.iter().filter(|(_, said)| *said == Precondition::Proceed { range: true });
            let part = parts.clone().find(|(form, _)| form.is_decoded).or(parts.next());
            if let Some((form, _)) = part {
                return Self::clone(form);
            }
        }
        any(|said| said != Precondition::Failed).unwrap_or(&first).clone()
    }

    /// The validators by which conditions know it.
    pub(crate) fn validators<'a>(&'a self, stored: &'a StoredResponse, asked: Option<&HeaderMap>) -> Validators<'a> {
        let mut validators = stored.validators();
        if let Some(tag) = &self.tag {
            validators.etag = Some(EntityTag::parse(tag.as_bytes()));
        }
        let by_date = |asked: &HeaderMap| {
            asked.get(header::IF_RANGE).is_some_and(|condition| date::parse(condition.as_bytes()).is_some())
        };
        if self.dates_are_weak && validators.last_modified.is_some() && asked.is_some_and(by_date) {
            validators.date = None;
        }
        validators
    }

    /// Makes the stored head speak of it.
    pub(crate) fn describe(&self, head: &mut HeaderMap) {
        if self.is_decoded {
            head.remove(header::CONTENT_ENCODING);
        }
        if let Some(tag) = &self.tag {
            head.insert(header::ETAG, tag.clone());
        }
    }

    /// The length of its content.
    pub(crate) fn length(&self, stored: &StoredResponse) -> u64 {
        if self.is_decoded { stored.plain_length() } else { stored.body.len() as u64 }
    }

    /// Whether its content isn't there as it is sent, but comes piece by piece.
    pub(crate) fn streams(&self) -> bool {
        self.is_decoded
    }

    /// What of content that [`streams`](Self::streams) lies in `wanted`.
    pub(crate) fn content<B: Body>(
        &self,
        core: &Arc<CacheCore>,
        stored: &StoredResponse,
        wanted: Range<u64>,
    ) -> ResponseBody<B> {
        Decoded::new(core, stored, wanted).map_or_else(ResponseBody::empty, ResponseBody::decoded)
    }
}

/// Makes the head of an answer that is just being stored, and is not coded yet, say what a client needs to know of its other form: that there may be
/// one, and, to a client that has it, its tag. `asked` are the client's fields where they have conditions or a range.
pub(crate) fn announce(head: &mut HeaderMap, form: Form, compression: &Compression, asked: Option<&HeaderMap>) {
    if !form.is_negotiable() {
        return;
    }
    add_vary(head);
    let Some(asked) = asked else { return };
    let accepted = compression.coder().filter(|by| Accepts::of(asked).weight(by.coding) > 0);
    let tag = EntityTag::of(head).and_then(|_| head.get(header::ETAG));
    let Some(tag) = accepted.zip(tag).and_then(|(by, tag)| by.tag(tag)) else { return };
    let plain = Validators::of(head);
    let coded = Validators { etag: Some(EntityTag::parse(tag.as_bytes())), ..plain };
    if [coded, plain].map(|form| evaluate(asked, form) == Precondition::NotModified) == [true, false] {
        head.insert(header::ETAG, tag);
    }
}

/// The same for the handler's answer to a HEAD that asked `plainly`: what it says of a GET is said by the cache as well.
pub(crate) fn announce_head(plainly: bool, status: StatusCode, head: &mut HeaderMap, settings: &Settings) {
    if plainly && settings.compression.suits(status, head, announced_length(head), &settings.targets) {
        add_vary(head);
    }
}
