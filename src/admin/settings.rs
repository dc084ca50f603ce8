//! `/config`: the settings of the running cache, read, changed and replaced. All of a change takes effect at once, or nothing of it.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::guard::Type;
use super::parameters::{Parameters, printable};
use super::problem::{Mistake, Problem};
use super::{Admin, Json, content};
use crate::compression::Compression;
use crate::config::{Config, ConfigError, Written, lent, written};
use crate::description::changes;
use crate::policy::{Audience, Policy};
use crate::reload::{Change, Reload, ReloadError};
use crate::settings::Settings;

/// What clients that know no configuration file read and write.
#[derive(Serialize)]
struct Basics {
    default_ttl_seconds: u64,
    compression_threshold_bytes: usize,
    enable_compression: bool,
}

impl Basics {
    fn of(settings: &Settings) -> Self {
        Self {
            default_ttl_seconds: default_ttl(&settings.otherwise),
            compression_threshold_bytes: settings.compression.min_size,
            enable_compression: settings.compression.is_on(),
        }
    }
}

#[derive(Serialize)]
struct Current {
    #[serde(flatten)]
    basics: Basics,
    generation: u64,
    /// All settings as a text that `PUT` takes.
    toml: String,
    /// What only code can say.
    notes: Vec<String>,
}

/// What a change came to, or would come to.
#[derive(Serialize)]
struct Outcome {
    #[serde(flatten)]
    basics: Basics,
    generation: u64,
    applied: bool,
    changes: Vec<Difference>,
}

/// A change in parts, and as a line for people.
#[derive(Serialize)]
struct Difference {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<String>,
    text: String,
}

impl From<&Change> for Difference {
    fn from(change: &Change) -> Self {
        let text = change.to_string();
        let plain = |kind, place| Self { kind, place, field: None, before: None, after: None, text: text.clone() };
        let rule = |rule: &str| Some(format!("rule {rule:?}"));
        match change {
            Change::Added { rule: pattern, policy } => {
                Self { after: Some(policy.clone()), ..plain("added", rule(pattern)) }
            }
            Change::Removed { rule: pattern } => plain("removed", rule(pattern)),
            Change::Reordered { .. } => plain("reordered", None),
            Change::Set { place, field, before, after } => Self {
                field: Some(field),
                before: Some(before.clone()),
                after: Some(after.clone()),
                ..plain("set", Some(place.clone()))
            },
        }
    }
}

/// `GET`. The entity tag is for an `If-Match` of who sends it back changed.
pub(super) async fn read(State(admin): State<Arc<Admin>>) -> Response {
    let core = admin.handle.live.load_full();
    let Written { text, notes } = written(&core.settings);
    let tag = etag(&text);
    let current = Current { basics: Basics::of(&core.settings), generation: core.generation, toml: text, notes };
    let mut response = Json(current).into_response();
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// `PUT`: of JSON, what it names is changed; a TOML text takes the place of everything.
pub(super) async fn write(
    State(admin): State<Arc<Admin>>,
    request: Request<Body>,
) -> Result<Json<impl Serialize>, Problem> {
    let (head, body) = request.into_parts();
    let mut parameters = Parameters::read(head.uri.query())?;
    let dry_run = parameters.flag("dry_run")?;
    parameters.finish()?;
    let text = content::text(body).await?;
    let wanted = Wanted::read(&head, text)?;
    let condition = IfMatch::read(&head.headers);
    admin.apply(&wanted, &condition, dry_run).map(Json)
}

/// What somebody wants.
enum Wanted {
    Basics { default_ttl: Option<Duration>, threshold: Option<usize>, compress: Option<bool> },
    Everything(Box<Config>),
}

impl Wanted {
    fn read(head: &Parts, text: String) -> Result<Self, Problem> {
        match Type::of(&head.headers) {
            Some(Type::Toml) => text.parse().map(|config| Self::Everything(Box::new(config))).map_err(refused),
            Some(Type::Json) => Self::basics(content::object(&text)?),
            // Without content there is no type either.
            None => Err(Problem::plain(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "Send `application/json` or `application/toml`.",
            )),
        }
    }

    /// Each field is looked at, so that all that is wrong is said at once.
    fn basics(fields: Map<String, Value>) -> Result<Self, Problem> {
        let (mut ttl, mut threshold, mut compress, mut wrong) = (None, None, None, Vec::new());
        for (name, value) in fields {
            let mut number = |most: u64| {
                let number = value.as_u64().filter(|number| *number <= most);
                if number.is_none() {
                    wrong.push(Mistake::of(&name, format!("it is a whole number from 0 to {most}")));
                }
                number
            };
            match name.as_str() {
                _ if value.is_null() && FIELDS.contains(&name.as_str()) => {}
                "default_ttl_seconds" => ttl = number(LONGEST_TTL).map(Duration::from_secs),
                "compression_threshold_bytes" => {
                    threshold = number(u64::from(u32::MAX)).and_then(|bytes| usize::try_from(bytes).ok());
                }
                "enable_compression" => {
                    compress = value.as_bool();
                    if compress.is_none() {
                        wrong.push(Mistake::of(name, "it is true or false"));
                    }
                }
                _ => wrong.push(Mistake::of(
                    printable(&name),
                    format!("unknown field; known here are {}", FIELDS.join(", ")),
                )),
            }
        }
        if wrong.is_empty() {
            return Ok(Self::Basics { default_ttl: ttl, threshold, compress });
        }
        Err(invalid(wrong))
    }

    /// The settings that come of it.
    fn over(&self, running: &Settings, admin: &Admin) -> Result<Settings, Stop> {
        match self {
            Self::Everything(config) => {
                let lent = admin.lent.lock().unwrap_or_else(PoisonError::into_inner).clone();
                Config::clone(config).lend(&lent).settings_over(running).map_err(|error| Stop::Refused(refused(error)))
            }
            Self::Basics { default_ttl, threshold, compress } => {
                let mut settings = running.clone();
                if let Some(ttl) = default_ttl {
                    settings.otherwise = with_default_ttl(&running.otherwise, *ttl).map_err(Stop::Refused)?;
                }
                if let Some(bytes) = threshold {
                    settings.compression.min_size = *bytes;
                }
                match compress {
                    Some(true) if !running.compression.is_on() => {
                        settings.compression = admin.switched_on(settings.compression)?;
                    }
                    Some(false) => settings.compression.coding = None,
                    _ => {}
                }
                Ok(settings)
            }
        }
    }
}

const FIELDS: [&str; 3] = ["default_ttl_seconds", "compression_threshold_bytes", "enable_compression"];

/// The largest number of seconds that a cache has to understand (RFC 9111 §1.2.2).
const LONGEST_TTL: u64 = 1 << 31;

/// What `otherwise` has as its TTL, in the seconds that clients read and write.
fn default_ttl(otherwise: &Policy) -> u64 {
    otherwise.ttl.unwrap_or_default().as_secs()
}

/// Nobody vouches for whom the answers are that no rule names, so a TTL for them is `guarded`; without one they are what the handler says. All else that
/// `otherwise` says stays, and whom somebody chose its answers for isn't changed by a number.
fn with_default_ttl(running: &Policy, ttl: Duration) -> Result<Policy, Problem> {
    // What was read and sent back is no change.
    if ttl.as_secs() == default_ttl(running) {
        return Ok(running.clone());
    }
    if !matches!(running.audience, Audience::Origin | Audience::Guarded) {
        return Err(chosen(&running.audience));
    }
    let (audience, ttl) = if ttl.is_zero() { (Audience::Origin, None) } else { (Audience::Guarded, Some(ttl)) };
    Ok(Policy { audience, ttl, ..running.clone() })
}

/// `otherwise` is for an audience that only who chose it can change.
fn chosen(audience: &Audience) -> Problem {
    let message = format!(
        "`otherwise` is `{}` here, for which this field says too little: change it in the configuration's text (`PUT` it as `application/toml`, from the `toml` \
         that `GET` has), in the file, or in the program",
        audience.as_str(),
    );
    let title = "The default is more than a TTL";
    let problem =
        Problem::named(StatusCode::CONFLICT, "audience-chosen", title, format!("default_ttl_seconds: {message}."));
    problem.with(vec![Mistake::of("default_ttl_seconds", message)])
}

/// Why a change ends before it is made.
enum Stop {
    Refused(Problem),
    DryRun(Vec<Change>, Basics),
}

impl From<ReloadError> for Stop {
    fn from(error: ReloadError) -> Self {
        Self::Refused(refused(error.into()))
    }
}

impl Admin {
    fn apply(&self, wanted: &Wanted, condition: &IfMatch, dry_run: bool) -> Result<Outcome, Problem> {
        let applied = self.handle.live.reload(|running| {
            condition.check(running).map_err(Stop::Refused)?;
            self.remember(running);
            let settings = wanted.over(running, self)?;
            if dry_run && self.handle.live.load().cannot_become(&settings).is_none() {
                return Err(Stop::DryRun(changes(running, &settings), Basics::of(&settings)));
            }
            Ok(settings)
        });
        let (generation, changes, basics) = match applied {
            Ok(Reload { generation, changes }) => (generation, changes, Basics::of(&self.handle.live.load().settings)),
            Err(Stop::DryRun(changes, basics)) => (self.handle.live.load().generation, changes, basics),
            Err(Stop::Refused(problem)) => return Err(problem),
        };
        Ok(Outcome { basics, generation, applied: !dry_run, changes: changes.iter().map(Difference::from).collect() })
    }

    /// Keeps what the next settings may lack and those after them want again.
    fn remember(&self, running: &Settings) {
        self.lent.lock().unwrap_or_else(PoisonError::into_inner).extend(lent(running));
        if running.compression.is_on() {
            *self.compression.lock().unwrap_or_else(PoisonError::into_inner) = Some(running.compression);
        }
    }

    /// Compression as it was before it was switched off here, else as this build of the application has it.
    fn switched_on(&self, compression: Compression) -> Result<Compression, Stop> {
        let before = *self.compression.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(on) = before.or(first_coding()) else {
            let message = "this build of the application has no coding (features `gzip`, `brotli`, `zstd`)";
            return Err(Stop::Refused(Problem::parameter("enable_compression", message)));
        };
        Ok(Compression { coding: on.coding, level: on.level, ..compression })
    }
}

fn first_coding() -> Option<Compression> {
    let all: [Option<Compression>; 3] = [
        #[cfg(feature = "gzip")]
        Some(Compression::gzip()),
        #[cfg(not(feature = "gzip"))]
        None,
        #[cfg(feature = "brotli")]
        Some(Compression::brotli()),
        #[cfg(not(feature = "brotli"))]
        None,
        #[cfg(feature = "zstd")]
        Some(Compression::zstd()),
        #[cfg(not(feature = "zstd"))]
        None,
    ];
    all.into_iter().flatten().next()
}

/// Whether the settings are still those that somebody read (RFC 9110 §13.1.1).
struct IfMatch(Option<String>);

impl IfMatch {
    fn read(headers: &HeaderMap) -> Self {
        let lines = headers.get_all(header::IF_MATCH).iter().map(|line| String::from_utf8_lossy(line.as_bytes()));
        let lines: Vec<_> = lines.collect();
        Self((!lines.is_empty()).then(|| lines.join(",")))
    }

    fn check(&self, running: &Settings) -> Result<(), Problem> {
        let Some(tags) = &self.0 else { return Ok(()) };
        let current = etag(&written(running).text);
        if tags.split(',').map(str::trim).any(|tag| tag == "*" || tag == current) {
            return Ok(());
        }
        let detail = "The settings were changed since they were read. Read them again, and change those.";
        Err(Problem::plain(StatusCode::PRECONDITION_FAILED, detail))
    }
}

fn etag(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    let hex: String = digest.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{hex}\"")
}

/// What is wrong with a configuration, as a problem.
fn refused(error: ConfigError) -> Problem {
    match &error {
        ConfigError::Invalid(problems) => {
            let mistake = |problem: &crate::config::Problem| Mistake {
                line: Some(problem.line),
                column: Some(problem.column),
                field: problem.field.clone(),
                message: problem.message.clone(),
            };
            invalid(problems.iter().map(mistake).collect())
        }
        ConfigError::Reload(ReloadError::Store { field, .. }) => needs_restart(format!("store.{field}"), &error),
        #[cfg(feature = "data")]
        ConfigError::Reload(ReloadError::Data { name, field, .. }) => {
            needs_restart(format!("data.{name}.{field}"), &error)
        }
        ConfigError::Read { .. } => {
            Problem::plain(StatusCode::INTERNAL_SERVER_ERROR, "The configuration can't be read.")
        }
    }
}

fn needs_restart(field: String, error: &ConfigError) -> Problem {
    let title = "A running cache can't change so";
    let problem = Problem::named(StatusCode::CONFLICT, "needs-restart", title, error.to_string());
    problem.with(vec![Mistake::of(field, error.to_string())])
}

fn invalid(problems: Vec<Mistake>) -> Problem {
    let detail = match problems.len() {
        1 => "One thing is wrong; nothing was changed.".to_owned(),
        several => format!("{several} things are wrong; nothing was changed."),
    };
    let title = "The configuration can't be used";
    Problem::named(StatusCode::UNPROCESSABLE_ENTITY, "invalid-configuration", title, detail).with(problems)
}
