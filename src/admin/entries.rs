//! `GET /entries`: what is stored, page by page, and one entry in detail. The store is walked through, and keeps nothing for this.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use super::invalidate::not_walked;
use super::parameters::{Parameters, Segment};
use super::problem::Problem;
use super::redaction::{Field, ShownKey, fields};
use super::{Admin, Json, content_of};
use crate::cache::CacheCore;
use crate::clock::Moment;
use crate::codec::Decoder;
use crate::form::Form;
use crate::key::CacheKey;
use crate::pattern::{Meant, Pattern};
use crate::response::StoredResponse;
use crate::storage::scan::Entry;

/// Entries in the order of their ids, which is as good as chance; so one that is there all the time is on exactly one page.
#[derive(Serialize)]
pub(super) struct Page {
    entries: Vec<Summary>,
    /// Of all pages together, as of this one.
    total: u64,
    /// For the next page; missing on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

#[derive(Serialize)]
struct Summary {
    id: String,
    kind: Kind,
    key: ShownKey,
    /// With key and heads, as the store counts them.
    bytes: u64,
    /// Since it was stored; a sample.
    reads: u32,
    responses: usize,
    /// Of the newest response.
    status: u16,
    state: &'static str,
    age_seconds: u64,
    ttl_seconds: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Detail {
    id: String,
    kind: Kind,
    key: ShownKey,
    reads: u32,
    responses: Vec<Stored>,
}

#[derive(Serialize)]
struct Stored {
    status: u16,
    state: &'static str,
    age_seconds: u64,
    ttl_seconds: i64,
    stale_while_revalidate_seconds: u64,
    stale_if_error_seconds: u64,
    /// Names of the fields that it varies on.
    vary: Vec<String>,
    tags: Vec<String>,
    /// A purge of any tag touches it.
    bears_every_tag: bool,
    fields: Vec<Field>,
    content_bytes: u64,
    stored_bytes: usize,
    compressed: bool,
}

/// What an entry is.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    /// Of a handler.
    Response,
    /// Of a data cache.
    Value,
    /// It is remembered that a data cache has no value there.
    None,
    /// A value that an atomic operation stored.
    Atomic,
}

impl Kind {
    const ALL: [(&str, Self); 4] =
        [("response", Self::Response), ("value", Self::Value), ("none", Self::None), ("atomic", Self::Atomic)];

    fn of(entry: &Entry<'_>) -> Self {
        let newest = entry.variants.first();
        match () {
            () if !entry.key.is_data() => Self::Response,
            () if newest.is_some_and(|newest| newest.status == StatusCode::NO_CONTENT) => Self::None,
            () if newest.is_some_and(StoredResponse::is_atomic) => Self::Atomic,
            () => Self::Value,
        }
    }

    fn named(name: &str) -> Result<Self, Problem> {
        let known = Self::ALL.iter().find(|(known, _)| *known == name);
        let unknown = || Problem::parameter("kind", "it is `response`, `value`, `none` or `atomic`");
        known.map(|(_, kind)| *kind).ok_or_else(unknown)
    }
}

/// The most entries of a page.
const MOST: u64 = 500;

/// Entries of a page where nobody says how many.
const USUAL: u64 = 50;

pub(super) async fn list(State(admin): State<Arc<Admin>>, mut parameters: Parameters) -> Result<Json<Page>, Problem> {
    let limit = parameters.number("limit", MOST)?.unwrap_or(USUAL).max(1);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let after = parameters.text("cursor").map(|text| id_of("cursor", &text)).transpose()?;
    let glob = parameters.text("pattern").map(|text| Pattern::glob(&text)).transpose();
    let glob = glob.map_err(|error| Problem::parameter("pattern", error.reason))?;
    let kind = parameters.text("kind").map(|name| Kind::named(&name)).transpose()?;
    parameters.finish()?;

    let core = admin.handle.live.load_full();
    let (now, mut total, mut page) = (core.now(), 0, BTreeMap::new());
    let visit = |entry: Entry<'_>| {
        let is_meant = glob.as_ref().is_none_or(|glob| entry.key.is_meant_by(glob));
        if !is_meant || kind.is_some_and(|kind| kind != Kind::of(&entry)) {
            return;
        }
        total += 1;
        let id = admin.id(&entry);
        let is_behind = after.is_none_or(|after| id > after);
        // One more than fits tells that there is another page.
        let is_near = page.len() <= limit || page.last_key_value().is_some_and(|(last, _)| id < *last);
        if is_behind && is_near {
            page.insert(id, core.summary(id, &entry, now));
            if page.len() > limit + 1 {
                page.pop_last();
            }
        }
    };
    core.walk(visit).await.map_err(|_| not_walked())?;
    let next_cursor = if page.len() > limit {
        page.pop_last();
        page.last_key_value().map(|(id, _)| hex(*id))
    } else {
        None
    };
    Ok(Json(Page { entries: page.into_values().flatten().collect(), total, next_cursor }))
}

pub(super) async fn inspect(
    State(admin): State<Arc<Admin>>,
    Segment(id): Segment,
    parameters: Parameters,
) -> Result<Json<Detail>, Problem> {
    parameters.finish()?;
    let wanted = id_of("id", &id)?;
    let core = admin.handle.live.load_full();
    let now = core.now();
    let found = admin.find(&core, wanted, |entry| Detail {
        id: hex(wanted),
        kind: Kind::of(entry),
        key: ShownKey::of(&entry.key),
        reads: entry.reads,
        responses: entry.variants.iter().map(|stored| core.detail(&entry.key, stored, now)).collect(),
    });
    found.await.map(Json)
}

/// The most bytes of content that are shown.
const MOST_CONTENT: u64 = 1 << 20;

/// Bytes of content where nobody says how many.
const USUAL_CONTENT: u64 = 64 << 10;

/// The beginning of a response's content, without the cache's own coding. As bytes, so that no browser makes a page of it.
pub(super) async fn content(
    State(admin): State<Arc<Admin>>,
    Segment(id): Segment,
    mut parameters: Parameters,
) -> Result<Response, Problem> {
    let number = parameters.number("response", u64::from(u16::MAX))?.unwrap_or(0);
    let most = parameters.number("max_bytes", MOST_CONTENT)?.unwrap_or(USUAL_CONTENT);
    parameters.finish()?;
    let wanted = id_of("id", &id)?;
    let core = admin.handle.live.load_full();
    let number = usize::try_from(number).unwrap_or(usize::MAX);
    let stored =
        admin.find(&core, wanted, |entry| entry.variants.get(number).map(|stored| (stored.form, stored.body.clone())));
    let (form, body) = stored.await?.ok_or_else(|| Problem::parameter("response", "the entry has fewer"))?;
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let shown = match form {
        Form::Coded { by, length } => {
            let mut decoder = Decoder::new(by.coding, body, u64::from(length));
            let mut content = Vec::new();
            while content.len() < most {
                match decoder.next() {
                    Ok(Some(piece)) => content.extend_from_slice(&piece),
                    Ok(None) => break,
                    Err(_) => {
                        let detail =
                            "The stored content can't be decoded. Who asks for it next gets it from the handler.";
                        return Err(Problem::plain(StatusCode::INTERNAL_SERVER_ERROR, detail));
                    }
                }
            }
            content.truncate(most);
            content.into()
        }
        _ => body.slice(..body.len().min(most)),
    };
    let mut response = content_of("application/octet-stream", shown);
    let attachment = HeaderValue::from_static("attachment");
    response.headers_mut().insert(header::CONTENT_DISPOSITION, attachment);
    Ok(response)
}

impl Admin {
    /// The same for the same key as long as the router lives, and no way back to the key.
    fn id(&self, entry: &Entry<'_>) -> u64 {
        self.ids.hash_one(entry.key.as_bytes())
    }

    /// What `look` makes of the entry with this id.
    async fn find<T: Send>(
        &self,
        core: &CacheCore,
        wanted: u64,
        look: impl Fn(&Entry<'_>) -> T + Send + Sync,
    ) -> Result<T, Problem> {
        let mut found = None;
        let visit = |entry: Entry<'_>| {
            if self.id(&entry) == wanted {
                found = Some(look(&entry));
            }
        };
        core.walk(visit).await.map_err(|_| not_walked())?;
        found.ok_or_else(|| Problem::plain(StatusCode::NOT_FOUND, "There is no such entry, or there is none any more."))
    }
}

impl CacheCore {
    /// `None` of an entry without a response, which no store has.
    fn summary(&self, id: u64, entry: &Entry<'_>, now: Moment) -> Option<Summary> {
        let newest = entry.variants.first()?;
        let size: usize = entry.variants.iter().map(StoredResponse::size).sum();
        let content_type = newest.head.get(&header::CONTENT_TYPE);
        Some(Summary {
            id: hex(id),
            kind: Kind::of(entry),
            key: ShownKey::of(&entry.key),
            bytes: (entry.key.as_bytes().len() + size) as u64,
            reads: entry.reads,
            responses: entry.variants.len(),
            status: newest.status.as_u16(),
            state: self.state(&entry.key, newest, now),
            age_seconds: newest.age(now).as_secs(),
            ttl_seconds: ttl(newest, now),
            content_type: content_type.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()),
        })
    }

    fn detail(&self, key: &CacheKey, stored: &StoredResponse, now: Moment) -> Stored {
        let terms = stored.current_terms();
        Stored {
            status: stored.status.as_u16(),
            state: self.state(key, stored, now),
            age_seconds: stored.age(now).as_secs(),
            ttl_seconds: ttl(stored, now),
            stale_while_revalidate_seconds: terms.stale_while_revalidate.as_secs(),
            stale_if_error_seconds: terms.stale_if_error.as_secs(),
            vary: stored.variance.fields.iter().map(ToString::to_string).collect(),
            tags: stored.tags().map(str::to_owned).collect(),
            bears_every_tag: stored.bears_every_tag(),
            fields: fields(&stored.headers()),
            content_bytes: stored.plain_length(),
            stored_bytes: stored.size(),
            compressed: matches!(stored.form, Form::Coded { .. }),
        }
    }

    /// By itself; what a request would get is explained by `/explain`.
    fn state(&self, key: &CacheKey, stored: &StoredResponse, now: Moment) -> &'static str {
        match () {
            () if !self.is_valid(stored, key) => "purged",
            () if stored.current_terms().is_fresh(stored.age(now)) => "fresh",
            () => "stale",
        }
    }
}

/// The remaining lifetime; negative where it is over.
fn ttl(stored: &StoredResponse, now: Moment) -> i64 {
    let seconds = |duration: std::time::Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    seconds(stored.lifetime()).saturating_sub(seconds(stored.age(now)))
}

fn hex(id: u64) -> String {
    format!("{id:016x}")
}

fn id_of(name: &str, text: &str) -> Result<u64, Problem> {
    let is_hex = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let id = is_hex.then(|| u64::from_str_radix(text, 16).ok()).flatten();
    id.ok_or_else(|| Problem::parameter(name, "it is no id of 16 hexadecimal digits, as a page has them"))
}
