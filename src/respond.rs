//! Makes the response that a client gets: of a stored response, or of the handler's, whole or in part, or as the client's conditions want it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body::Body;

use crate::body::ResponseBody;
use crate::byteranges::ByteRanges;
use crate::cache::CacheCore;
use crate::clock::Moment;
use crate::head::Places;
use crate::outcome::{CacheOutcome, Outcome};
use crate::report::Witness;
use crate::representation::Representation;
use crate::response::StoredResponse;
use crate::rfc9111::coding::Accepts;
use crate::rfc9111::range::{self, RangeRequest};
use crate::rfc9111::storability::DeclineReason;
use crate::rfc9111::validation::{Precondition, Validators, evaluate};
use crate::spans;
use crate::tags::TAG_FIELDS;

/// What of a 200 response a client gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// All of it.
    Whole,
    /// Nothing: it has it already (304).
    NotModified,
    /// Nothing: its condition doesn't hold (412).
    Failed,
    /// These bytes (206).
    Part(std::ops::Range<u64>),
    /// These bytes, in several parts (206); only of content that is there as a whole.
    Parts(Box<ByteRanges>),
    /// Nothing: its range lies outside (416).
    Unsatisfiable,
}

impl Shape {
    /// The body that has this of `content`.
    pub(crate) fn of<B: Body>(self, content: &Bytes) -> ResponseBody<B> {
        match self {
            Self::Whole => ResponseBody::stored(content.clone()),
            Self::Part(part) => ResponseBody::stored(content.slice(part.start as usize..part.end as usize)),
            Self::Parts(parts) => ResponseBody::pieces(parts.of_content(content)),
            Self::NotModified | Self::Failed | Self::Unsatisfiable => ResponseBody::empty(),
        }
    }

    /// The status of an answer with this of a response of `status`.
    pub(crate) fn status(&self, status: StatusCode) -> StatusCode {
        match self {
            Self::Whole => status,
            Self::NotModified => StatusCode::NOT_MODIFIED,
            Self::Failed => StatusCode::PRECONDITION_FAILED,
            Self::Part(_) | Self::Parts(_) => StatusCode::PARTIAL_CONTENT,
            Self::Unsatisfiable => StatusCode::RANGE_NOT_SATISFIABLE,
        }
    }

    /// The same of content that only passes: several parts would have to be kept until it is their turn, so then it is the whole (§14.2).
    pub(crate) fn of_a_stream(self) -> Self {
        if matches!(self, Self::Parts(_)) { Self::Whole } else { self }
    }
}

/// What the conditions and the range in `asked` want of a response (RFC 9110 §13.2, §14.2). `length` is the content's, if it is known.
pub(crate) fn shape(
    asked: &HeaderMap,
    status: StatusCode,
    validators: Validators<'_>,
    length: Option<u64>,
    is_head: bool,
) -> Shape {
    // §13.2.1: conditions are for what would have been a success; §14.2: a range counts for GET only.
    if status != StatusCode::OK {
        return Shape::Whole;
    }
    let range = match evaluate(asked, validators) {
        Precondition::NotModified => return Shape::NotModified,
        Precondition::Failed => return Shape::Failed,
        Precondition::Proceed { range } => range && !is_head,
    };
    // Two fields are no list, and none of them more right than the other.
    let mut lines = asked.get_all(header::RANGE).iter();
    let (Some(wanted), None, true, Some(length)) = (lines.next(), lines.next(), range, length) else {
        return Shape::Whole;
    };
    match range::parse(wanted.as_bytes(), length) {
        RangeRequest::Whole => Shape::Whole,
        RangeRequest::Part(part) => Shape::Part(part),
        RangeRequest::Parts(parts) => ByteRanges::of(parts).map_or(Shape::Whole, |parts| Shape::Parts(Box::new(parts))),
        RangeRequest::Unsatisfiable => Shape::Unsatisfiable,
    }
}

/// What the client's conditions and range want of a 200 that the handler gave, because they were taken off or because it ignored them.
pub(crate) fn wanted(asked: Option<&HeaderMap>, parts: &Parts, length: Option<u64>) -> Shape {
    asked.map_or(Shape::Whole, |asked| shape(asked, parts.status, Validators::of(&parts.headers), length, false))
}

/// Gives `head` the status and the fields of `shape`.
pub(crate) fn reshape(shape: &mut Shape, length: Option<u64>, status: &mut StatusCode, head: &mut HeaderMap) {
    if *shape == Shape::Whole {
        return;
    }
    let length = length.map_or_else(|| "*".to_owned(), |length| length.to_string());
    let content_range = |value: String| HeaderValue::try_from(value).unwrap_or(HeaderValue::from_static("bytes */*"));
    *status = shape.status(*status);
    match shape {
        Shape::Whole => {}
        Shape::NotModified => {
            // RFC 9110 §15.4.5: what describes content that isn't sent stays away.
            drop_content_fields(head);
        }
        Shape::Failed => {
            drop_content_fields(head);
            drop_validators(head);
        }
        Shape::Part(part) => {
            drop_whole_fields(head);
            let range = format!("bytes {}-{}/{length}", part.start, part.end - 1);
            head.insert(header::CONTENT_RANGE, content_range(range));
        }
        // §15.3.7.2: which part is which stands in the parts, and not in the head.
        Shape::Parts(parts) => {
            drop_whole_fields(head);
            let content_type = parts.replace_type(head.remove(header::CONTENT_TYPE));
            head.insert(header::CONTENT_TYPE, content_type);
        }
        Shape::Unsatisfiable => {
            drop_content_fields(head);
            drop_validators(head);
            head.insert(header::CONTENT_RANGE, content_range(format!("bytes */{length}")));
        }
    }
}

fn drop_content_fields(head: &mut HeaderMap) {
    drop_whole_fields(head);
    for name in [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::CONTENT_LANGUAGE, header::CONTENT_DISPOSITION]
    {
        head.remove(name);
    }
}

/// A digest of the content (RFC 9530 §2), as opposed to one of the representation, which is the same for a part.
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");

/// What is true of the whole content only.
fn drop_whole_fields(head: &mut HeaderMap) {
    for name in [header::CONTENT_LENGTH, header::CONTENT_RANGE, CONTENT_DIGEST, CONTENT_MD5] {
        head.remove(name);
    }
}

fn drop_validators(head: &mut HeaderMap) {
    head.remove(header::ETAG);
    head.remove(header::LAST_MODIFIED);
    head.remove(header::CACHE_CONTROL);
    head.remove(header::EXPIRES);
}

/// The response that a client gets from the store. `asked` are the request's fields where they have conditions or a range; which codings it accepts is
/// looked at only where that matters.
pub(crate) fn from_store<B: Body>(
    core: &Arc<CacheCore>,
    stored: &StoredResponse,
    now: Moment,
    outcome: CacheOutcome,
    asked: Option<&HeaderMap>,
    accepts: impl FnOnce() -> Accepts,
    is_head: bool,
) -> Response<ResponseBody<B>> {
    let head = head_of(core, stored, now, &outcome, false);
    with_head(core, stored, head, asked, accepts, is_head)
}

/// The same with this head, of [`head_of`].
#[inline]
pub(crate) fn with_head<B: Body>(
    core: &Arc<CacheCore>,
    stored: &StoredResponse,
    head: HeaderMap,
    asked: Option<&HeaderMap>,
    accepts: impl FnOnce() -> Accepts,
    is_head: bool,
) -> Response<ResponseBody<B>> {
    let mut response = Response::new(ResponseBody::empty());
    *response.headers_mut() = head;
    let head = response.headers_mut();
    let (representation, mut shape) = portion(core, stored, asked, accepts, is_head);
    representation.describe(head);
    let (length, mut status) = (representation.length(stored), stored.status);
    reshape(&mut shape, Some(length), &mut status, head);
    *response.body_mut() = match shape {
        Shape::Whole if is_head => {
            announce_length(status, length, response.headers_mut());
            ResponseBody::empty()
        }
        Shape::Whole if representation.streams() => representation.content(core, stored, 0..length),
        Shape::Part(part) if representation.streams() => representation.content(core, stored, part),
        shape => shape.of(&stored.body),
    };
    *response.status_mut() = status;
    response
}

/// In which form a client gets a stored response, and how much of it; `asked`, `accepts` and `is_head` as for [`from_store`].
pub(crate) fn portion(
    core: &CacheCore,
    stored: &StoredResponse,
    asked: Option<&HeaderMap>,
    accepts: impl FnOnce() -> Accepts,
    is_head: bool,
) -> (Representation, Shape) {
    let representation = if stored.form.is_negotiable() {
        Representation::choose(stored, &core.settings.compression, accepts(), asked, is_head)
    } else {
        Representation::default()
    };
    let length = representation.length(stored);
    let shape = asked.map_or(Shape::Whole, |asked| {
        shape(asked, stored.status, representation.validators(stored, Some(asked)), Some(length), is_head)
    });
    let shape = if representation.streams() { shape.of_a_stream() } else { shape };
    (representation, shape)
}

/// The head of a stored response as it goes out; with room for one field more, where it goes to somebody who `adds` one.
pub(crate) fn head_of(
    core: &CacheCore,
    stored: &StoredResponse,
    now: Moment,
    outcome: &CacheOutcome,
    adds: bool,
) -> HeaderMap {
    let of_hit = core.hit_status.get(outcome);
    let fill = |places: &mut Places<'_>| core.settings.switches.fill(places, outcome, of_hit);
    let mut head = if adds { stored.head.to_roomy_map(fill) } else { stored.head.to_map(fill) };
    core.settings.switches.warn(&mut head, outcome);
    if let Some(downstream) = &stored.downstream {
        head.insert(header::CACHE_CONTROL, downstream.of_stored(outcome.age.unwrap_or_default(), stored.lifetime()));
    }
    if stored.origin.own_last_modified && !is_settled(stored, now.wall) {
        head.remove(header::LAST_MODIFIED);
    }
    head
}

/// The answer to a HEAD names the length that a GET would have had (RFC 9110 §9.3.2).
fn announce_length(status: StatusCode, length: u64, head: &mut HeaderMap) {
    if status != StatusCode::NO_CONTENT {
        head.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
}

/// A `Last-Modified` that the cache made itself goes out only when its second, and one more, is over: until then the content might have changed
/// twice under the same date, and a client could not tell (RFC 9110 §8.8.2.2).
fn is_settled(stored: &StoredResponse, now: SystemTime) -> bool {
    let since = stored.head.last_modified().and_then(|since| now.duration_since(since).ok());
    since.is_some_and(|since| since >= Duration::from_secs(2))
}

/// The handler's response, at which `witness` looks as it passes.
pub(crate) fn watched<B: Body>(
    response: Response<B>,
    witness: Option<Witness>,
    received: Moment,
) -> Response<ResponseBody<B>> {
    let watch = witness.and_then(|witness| witness.answered(&response, received));
    response.map(|body| ResponseBody::watched(body, watch))
}

/// Adds what the cache says to a response that comes from the handler, or was made in its place.
pub(crate) fn from_handler<B: Body>(
    core: &CacheCore,
    mut response: Response<ResponseBody<B>>,
    outcome: CacheOutcome,
    since: Option<Moment>,
) -> Response<ResponseBody<B>> {
    if !core.settings.forward_tags {
        TAG_FIELDS.iter().for_each(|name| drop(response.headers_mut().remove(name)));
    }
    response.body_mut().count_in(&core.rules.get(outcome.rule).counters);
    from_nameless(core, response, outcome, since)
}

/// The same of a response that names no tags, with content that is in memory.
pub(crate) fn from_nameless<B: Body>(
    core: &CacheCore,
    mut response: Response<ResponseBody<B>>,
    outcome: CacheOutcome,
    since: Option<Moment>,
) -> Response<ResponseBody<B>> {
    core.settings.switches.add(response.headers_mut(), &outcome);
    note(core, &mut response, outcome, since);
    response
}

/// Counts and traces the outcome of an answer that a client has waited for `since` then, if one does, and leaves it in the response's extensions.
pub(crate) fn note<B: Body>(
    core: &CacheCore,
    response: &mut Response<ResponseBody<B>>,
    outcome: CacheOutcome,
    since: Option<Moment>,
) {
    tracing::debug!(
        target: "larder",
        outcome = outcome.outcome.as_str(),
        status = response.status().as_u16(),
        reason = outcome.outcome.reason(),
        decline = outcome.stored.and_then(Result::err).map(DeclineReason::as_str),
        rule = core.rules.get(outcome.rule).name(),
        age = outcome.age.map(|age| age.as_secs()),
        ttl = outcome.ttl,
        attended = since.is_some(),
        "answered"
    );
    if outcome.outcome != Outcome::Hit {
        spans::say(&outcome);
    }
    if let Some(since) = since {
        let took = || core.now().monotonic.saturating_sub(since.monotonic);
        let counters = &core.rules.get(outcome.rule).counters;
        counters.answered(outcome.outcome, response.body().in_memory(), took);
    }
    if core.settings.outcome_extension {
        response.extensions_mut().insert(outcome);
    }
}
