//! `POST /invalidate/..` and `POST /purge`: purges, or how much one would touch.

use std::sync::Arc;

use axum::extract::State;
use http::StatusCode;
use serde::Serialize;

use super::parameters::{Parameters, Segment};
use super::problem::Problem;
use super::{Admin, Json};
use crate::events::Logged;
use crate::selector::{DryRun, NotRefreshed, PurgeError, Reach, Receipt, Refreshing, Selector};

/// A purge that was made, or what it would touch.
#[derive(Debug, Serialize)]
pub(super) struct Purged {
    /// In its text form; a partition without whose it is.
    selector: String,
    mode: &'static str,
    dry_run: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reach: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refreshing: Option<Refreshed>,
    #[serde(flatten)]
    would_touch: Option<Touched>,
}

#[derive(Debug, Serialize)]
struct Touched {
    entries: u64,
    responses: u64,
    bytes: u64,
}

/// What is asked for once more behind a purge.
#[derive(Debug, Serialize)]
struct Refreshed {
    responses: usize,
    skipped: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    why_none: Option<&'static str>,
}

type Answer = Result<Json<Purged>, Problem>;

/// A path with query, on every host, or an absolute URI.
pub(super) async fn key(State(admin): State<Arc<Admin>>, Segment(key): Segment, parameters: Parameters) -> Answer {
    admin.purge(Selector::Uri(key), parameters).await
}

pub(super) async fn tag(State(admin): State<Arc<Admin>>, Segment(tag): Segment, parameters: Parameters) -> Answer {
    admin.purge(Selector::Tag(tag), parameters).await
}

/// A glob, or, as the parameter `regex`, a regular expression.
pub(super) async fn pattern(State(admin): State<Arc<Admin>>, mut parameters: Parameters) -> Answer {
    let selector = match (parameters.text("pattern"), parameters.text("regex")) {
        (Some(glob), None) => Selector::Glob(glob),
        (None, Some(regex)) => Selector::Regex(regex),
        (None, None) => return Err(Problem::parameter("pattern", "it is missing: which paths are purged")),
        (Some(_), Some(_)) => return Err(Problem::parameter("regex", "it is given beside `pattern`")),
    };
    admin.purge(selector, parameters).await
}

/// All that is stored for one principal. Its name is in the query or, better, in the content, which no log has.
pub(super) async fn partition(State(admin): State<Arc<Admin>>, mut parameters: Parameters) -> Answer {
    let name = parameters.text("principal").filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| Problem::parameter("principal", "it is missing: whose entries are purged"))?;
    admin.purge(Selector::Partition(name.into_bytes()), parameters).await
}

pub(super) async fn everything(State(admin): State<Arc<Admin>>, parameters: Parameters) -> Answer {
    admin.purge(Selector::Everything, parameters).await
}

/// Any selector, in its text form.
pub(super) async fn any(State(admin): State<Arc<Admin>>, mut parameters: Parameters) -> Answer {
    let text = parameters.text("selector");
    let text =
        text.ok_or_else(|| Problem::parameter("selector", "it is missing: what is purged, as in `tag:products`"))?;
    let selector = text.parse().map_err(|error| refused(&error))?;
    admin.purge(selector, parameters).await
}

/// What becomes of what is purged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Hard,
    Soft,
    /// Soft, and so many of what is asked for most are asked for once more.
    Refresh(usize),
}

/// The most that are refreshed behind one purge, and how many are where nobody says it.
const MOST: u64 = 10_000;
const USUAL: u64 = 100;

impl Mode {
    fn read(parameters: &mut Parameters) -> Result<Self, Problem> {
        match parameters.text("mode").as_deref() {
            None | Some("hard") => Ok(Self::Hard),
            Some("soft") => Ok(Self::Soft),
            Some("refresh") => {
                let most = parameters.number("most", MOST)?.unwrap_or(USUAL);
                Ok(Self::Refresh(usize::try_from(most).unwrap_or(usize::MAX)))
            }
            Some(_) => Err(Problem::parameter("mode", "it is `hard`, `soft` or `refresh`")),
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Hard => "hard",
            Self::Soft => "soft",
            Self::Refresh(_) => "refresh",
        }
    }
}

impl Admin {
    async fn purge(&self, selector: Selector, mut parameters: Parameters) -> Answer {
        let mode = Mode::read(&mut parameters)?;
        let dry_run = parameters.flag("dry_run")?;
        parameters.finish()?;
        let mut answer = Purged {
            selector: shown(&selector),
            mode: mode.as_str(),
            dry_run,
            number: None,
            reach: None,
            refreshing: None,
            would_touch: None,
        };
        let logged = Logged(&selector).to_string();
        let purge = self.handle.purge(selector);
        if dry_run {
            let DryRun { entries, responses, bytes, .. } = purge.dry_run().await.map_err(|error| refused(&error))?;
            answer.would_touch = Some(Touched { entries, responses, bytes });
            return Ok(Json(answer));
        }
        let purge = match mode {
            Mode::Hard => purge,
            Mode::Soft => purge.soft(),
            Mode::Refresh(most) => purge.refresh(most),
        };
        let Receipt { number, reach, refreshing, .. } = purge.await.map_err(|error| refused(&error))?;
        tracing::info!(selector = logged, mode = answer.mode, number, "purged through the admin API");
        answer.number = Some(number);
        answer.reach = Some(match reach {
            Reach::ThisProcess => "this-process",
            Reach::AllInstances => "all-instances",
        });
        answer.refreshing = refreshing.map(Refreshed::of);
        Ok(Json(answer))
    }
}

impl Refreshed {
    fn of(refreshing: Refreshing) -> Self {
        let why_none = refreshing.why_none.map(|why| match why {
            NotRefreshed::NoWay => "no-way",
            NotRefreshed::Unscannable => "unscannable",
            NotRefreshed::Closed => "closed",
        });
        Self { responses: refreshing.refreshing, skipped: refreshing.skipped, why_none }
    }
}

/// Whose partition it is stays between the application and who asks.
fn shown(selector: &Selector) -> String {
    match selector {
        Selector::Partition(_) => "partition".into(),
        other => other.to_string(),
    }
}

pub(super) fn refused(error: &PurgeError) -> Problem {
    match error {
        PurgeError::Uri { .. } => Problem::parameter("key", error.to_string()),
        PurgeError::Pattern { .. } => Problem::parameter("pattern", error.to_string()),
        PurgeError::Tag { .. } => Problem::parameter("tag", error.to_string()),
        PurgeError::Selector { .. } => Problem::parameter("selector", error.to_string()),
        PurgeError::Unscannable => not_walked(),
        PurgeError::Closed => Problem::plain(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
        PurgeError::Log { .. } => not_told(&error.to_string()),
        PurgeError::Storage(_) => {
            let title = "The store couldn't give the memory back";
            let detail = format!("{error}. The purge has taken effect all the same.");
            Problem::named(StatusCode::BAD_GATEWAY, "store", title, detail)
        }
    }
}

/// It is owed to the log.
pub(super) fn not_told(why: &str) -> Problem {
    let title = "The other instances couldn't be told";
    let detail = format!("{why}. Until then this instance uses nothing that is stored.");
    Problem::named(StatusCode::BAD_GATEWAY, "purge-log", title, detail)
}

/// What has to be counted or listed is in a store that can't be walked through.
pub(super) fn not_walked() -> Problem {
    let detail = "This cache has a store of its application's own; only the one in memory can tell what it holds.";
    Problem::plain(StatusCode::NOT_IMPLEMENTED, detail)
}
