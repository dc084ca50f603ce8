//! `/explain`: what the cache would do with a request, and why.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::extract::State;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use serde_json::{Map, Value, json};

use super::parameters::{Parameters, printable};
use super::problem::Problem;
use super::{Admin, Json, content};
use crate::explain::{
    EarlierSettings, ExplainedFill, ExplainedKey, ExplainedResponse, ExplainedVariant, Explanation, KeyPart,
};
use crate::fates::{Became, Fate};
use crate::outcome::{CacheOutcome, Outcome};
use crate::rfc9111::date;
use crate::strategy::Strategy;

/// `GET`: of a request without fields, by its `uri`.
pub(super) async fn by_uri(State(admin): State<Arc<Admin>>, request: Request<Body>) -> Result<Json<Value>, Problem> {
    let (head, _) = request.into_parts();
    let mut parameters = Parameters::read(head.uri.query())?;
    let uri = parameters.text("uri").map(|uri| uri_of(&uri)).transpose()?;
    let mut asked = Asked { uri, ..Asked::default() };
    if let Some(method) = parameters.text("method") {
        asked.method = method_of(&method)?;
    }
    parameters.finish()?;
    admin.explain(asked, &head).await
}

/// `POST`: of any request, with its fields in the content.
pub(super) async fn by_head(State(admin): State<Arc<Admin>>, request: Request<Body>) -> Result<Json<Value>, Problem> {
    let (head, body) = request.into_parts();
    Parameters::read(head.uri.query())?.finish()?;
    let asked = Asked::read(content::object(&content::text(body).await?)?)?;
    admin.explain(asked, &head).await
}

impl Admin {
    async fn explain(&self, asked: Asked, head: &Parts) -> Result<Json<Value>, Problem> {
        let uri = asked.uri.ok_or_else(|| Problem::parameter("uri", "it is missing: what would be asked for"))?;
        let mut request = Request::new(());
        *request.method_mut() = asked.method;
        *request.headers_mut() = asked.headers;
        // Whoever asks about a path means the host that they ask.
        if uri.authority().is_none() && !request.headers().contains_key(header::HOST) {
            let authority = head.uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
            if let Some(host) = authority.or_else(|| head.headers.get(header::HOST).cloned()) {
                request.headers_mut().insert(header::HOST, host);
            }
        }
        *request.uri_mut() = uri;
        Ok(Json(explained(&self.handle.explain(&request).await)))
    }
}

/// The request that is asked about.
#[derive(Default)]
struct Asked {
    method: Method,
    uri: Option<Uri>,
    headers: HeaderMap,
}

impl Asked {
    fn read(fields: Map<String, Value>) -> Result<Self, Problem> {
        let mut asked = Self::default();
        for (name, value) in fields {
            match (name.as_str(), value) {
                ("uri", Value::String(uri)) => asked.uri = Some(uri_of(&uri)?),
                ("method", Value::String(method)) => asked.method = method_of(&method)?,
                ("headers", Value::Object(fields)) => {
                    for (name, value) in fields {
                        asked.add(&name, value)?;
                    }
                }
                ("headers", _) => return Err(Problem::parameter("headers", "it is an object of names and values")),
                ("uri" | "method", _) => return Err(Problem::parameter(&name, "it is a text")),
                _ => {
                    return Err(Problem::parameter(
                        &printable(&name),
                        "unknown field; known here are uri, method, headers",
                    ));
                }
            }
        }
        Ok(asked)
    }

    /// A field with a line or several. Which value is wrong isn't shown: it may be a credential.
    fn add(&mut self, name: &str, value: Value) -> Result<(), Problem> {
        let wrong = |message: &str| Problem::parameter(&format!("headers.{}", printable(name)), message);
        let lines = match value {
            Value::Array(lines) => lines,
            line => vec![line],
        };
        let name: HeaderName = name.parse().map_err(|_| wrong("it is no field name"))?;
        for line in lines {
            let line = line.as_str().and_then(|line| HeaderValue::from_str(line).ok());
            let line = line.ok_or_else(|| wrong("it is no field value, nor a list of them"))?;
            // A head of a request ends long before.
            let added = self.headers.len() < 256 && self.headers.try_append(&name, line).is_ok();
            Some(()).filter(|()| added).ok_or_else(|| wrong("there are too many fields"))?;
        }
        Ok(())
    }
}

fn uri_of(text: &str) -> Result<Uri, Problem> {
    let uri: Option<Uri> = text.parse().ok();
    let uri = uri.filter(|uri| uri.scheme().is_some() || uri.path().starts_with('/'));
    uri.ok_or_else(|| Problem::parameter("uri", "it is a path that begins with a slash, or an absolute URI"))
}

fn method_of(text: &str) -> Result<Method, Problem> {
    text.parse().map_err(|_| Problem::parameter("method", "it is no method"))
}

/// Names as in the type, with times as HTTP dates and durations in seconds.
fn explained(said: &Explanation) -> Value {
    let rule = &said.rule;
    json!({
        "method": said.method.as_str(),
        "target": said.target,
        "at": at(said.at),
        "rule": {
            "index": rule.index,
            "pattern": rule.pattern,
            "audience": rule.audience,
            "strategy": strategy(rule.strategy),
            "settings": rule.settings.iter().map(|(name, value)| (*name, value.as_str())).collect::<BTreeMap<_, _>>(),
        },
        "outcome": said.outcome.as_ref().map(outcome),
        "cache_status": said.cache_status,
        "status": said.status.map(|status| status.as_u16()),
        "key": said.key.as_ref().map(key),
        "variants": said.variants.iter().map(variant).collect::<Vec<_>>(),
        "stored": said.stored.as_ref().map(stored),
        "fate": said.fate.as_ref().map(fate),
        "fill": said.fill.as_ref().map(fill),
        "invalidates": said.invalidates,
        "store_error": said.store_error,
        "text": said.to_string(),
    })
}

fn outcome(said: &CacheOutcome) -> Value {
    let outcome = said.outcome;
    let (reason, meaning, section, remedy) = match outcome {
        Outcome::Hit | Outcome::Fallback => (None, outcome.meaning(), outcome.section(), outcome.remedy()),
        Outcome::Stale(why) => (Some(why.as_str()), why.meaning(), why.section(), why.remedy()),
        Outcome::Revalidated(why) | Outcome::Miss(why) | Outcome::Collapsed(why) => {
            (Some(why.as_str()), why.meaning(), why.section(), why.remedy())
        }
        Outcome::Bypass(why) => (Some(why.as_str()), why.meaning(), why.section(), why.remedy()),
    };
    json!({
        "x_cache": outcome.as_str(),
        "reason": reason,
        "meaning": meaning,
        "section": section,
        "remedy": remedy,
        "age_seconds": said.age.map(|age| age.as_secs()),
        "ttl_seconds": said.ttl,
    })
}

fn key(key: &ExplainedKey) -> Value {
    let part = |part: &KeyPart| match part {
        KeyPart::Scheme(scheme) => json!({"kind": "scheme", "value": scheme}),
        KeyPart::Field { name, lines } => json!({"kind": "field", "name": name, "count": lines}),
        KeyPart::Cookie { name, count } => json!({"kind": "cookie", "name": name, "count": count}),
        KeyPart::Partition => json!({"kind": "partition"}),
        KeyPart::Rewritten(target) => json!({"kind": "rewritten", "value": target}),
        KeyPart::Content => json!({"kind": "content"}),
    };
    json!({
        "authority": key.authority,
        "path": key.path,
        "query": key.query,
        "search": key.search,
        "parts": key.parts.iter().map(part).collect::<Vec<_>>(),
    })
}

fn variant(variant: &ExplainedVariant) -> Value {
    let nominated = |(name, value): &(String, Option<String>)| json!({"name": name, "value": value});
    json!({
        "nominated": variant.nominated.iter().map(nominated).collect::<Vec<_>>(),
        "status": variant.status.as_u16(),
        "age_seconds": variant.age.as_secs(),
        "number": variant.number,
        "valid": variant.valid,
        "chosen": variant.chosen,
        "in_memory": variant.is_near,
    })
}

fn stored(stored: &ExplainedResponse) -> Value {
    let seconds = |duration: Duration| duration.as_secs();
    json!({
        "status": stored.status.as_u16(),
        "received": at(stored.received),
        "age_seconds": seconds(stored.age),
        "lifetime_seconds": seconds(stored.lifetime),
        "source": stored.source.map(|by| word(by.as_str(), by.meaning(), by.section(), by.remedy())),
        "field": stored.field,
        "fresh_until": stored.fresh_until.map(at),
        "unused_until": stored.unused_until.map(at),
        "refreshes_ahead": stored.refreshes_ahead,
        "stale_while_revalidate_seconds": seconds(stored.stale_while_revalidate),
        "stale_if_error_seconds": seconds(stored.stale_if_error),
        "no_stale": stored.no_stale,
        "validate": stored.validate.map(|why| word(why.as_str(), why.meaning(), why.section(), why.remedy())),
        "etag": stored.etag,
        "own_etag": stored.own_etag,
        "last_modified": stored.last_modified,
        "own_last_modified": stored.own_last_modified,
        "groups": stored.groups,
        "tags": stored.tags,
        "bears_every_tag": stored.bears_every_tag,
        "stored_bytes": stored.size,
        "content_bytes": stored.length,
        "coding": stored.coding,
        "number": stored.number,
        "kept_until": stored.kept_until.map(at),
        "earlier_settings": stored.earlier.map(|earlier| match earlier {
            EarlierSettings::Adopted => "adopted",
            EarlierSettings::OtherAudience => "other-audience",
            EarlierSettings::Purged => "purged",
            EarlierSettings::Declined(reason) => reason.as_str(),
        }),
    })
}

/// What last became of the key.
pub(super) fn fate(fate: &Fate) -> Value {
    let detail = match fate.became {
        Became::Purged { number } => number.map(|number| number.to_string()),
        Became::Declined(reason) => Some(reason.as_str().to_owned()),
        _ => None,
    };
    json!({"became": fate.became.as_str(), "detail": detail, "ago_seconds": fate.ago.as_secs()})
}

/// A word with what it means, where that is said, and what would change it.
fn word(word: &str, meaning: &str, section: &str, remedy: Option<&str>) -> Value {
    json!({"word": word, "meaning": meaning, "section": section, "remedy": remedy})
}

fn fill(fill: &ExplainedFill) -> Value {
    let missed = fill.missed;
    json!({
        "missed": word(missed.as_str(), missed.meaning(), missed.section(), missed.remedy()),
        "conditional": fill.conditional,
        "whole": fill.whole,
        "if_it_fails": fill.if_it_fails.map(|outcome| outcome.as_str()),
        "if_unavailable": fill.if_unavailable.map(|outcome| outcome.as_str()),
        "under_way": fill.under_way,
        "alone": fill.alone,
    })
}

fn strategy(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::CacheFirst => "cache_first",
        Strategy::NetworkFirst { .. } => "network_first",
        Strategy::StaleWhileRevalidate => "stale_while_revalidate",
        Strategy::NetworkOnly => "network_only",
        Strategy::CacheOnly => "cache_only",
    }
}

fn at(time: SystemTime) -> String {
    String::from_utf8_lossy(date::format(time).as_bytes()).into_owned()
}
