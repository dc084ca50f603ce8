//! [`Parameters`]: what a request says beside its path, in the query or as the fields of a JSON object. What nobody asks for is refused.

use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use http::StatusCode;
use http::request::Parts;
use serde_json::Value;

use super::problem::Problem;
use super::{Admin, content};

/// Names and values, each name once.
#[derive(Debug, Default)]
pub(super) struct Parameters(Vec<(String, String)>);

/// More parameters than any route has.
const MOST: usize = 16;

impl Parameters {
    /// Of a query.
    pub(super) fn read(query: Option<&str>) -> Result<Self, Problem> {
        let mut all = Self::default();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            all.add(&name, value.into_owned())?;
        }
        Ok(all)
    }

    fn add(&mut self, name: &str, value: String) -> Result<(), Problem> {
        if self.0.len() == MOST {
            return Err(Problem::plain(StatusCode::BAD_REQUEST, format!("There are more than {MOST} parameters.")));
        }
        if self.0.iter().any(|(known, _)| known == name) {
            return Err(Problem::parameter(&printable(name), "it is given twice"));
        }
        self.0.push((name.into(), checked(&printable(name), value)?));
        Ok(())
    }

    /// The value of a parameter; of what was taken nobody says that it is unknown.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        let place = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.swap_remove(place).1)
    }

    pub(super) fn flag(&mut self, name: &str) -> Result<bool, Problem> {
        match self.text(name).as_deref() {
            None | Some("false" | "0") => Ok(false),
            // `?dry_run` alone means it.
            Some("" | "true" | "1") => Ok(true),
            Some(_) => Err(Problem::parameter(name, "it is `true` or `false`")),
        }
    }

    /// A number of which the largest is `most`.
    pub(super) fn number(&mut self, name: &str, most: u64) -> Result<Option<u64>, Problem> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let number = text.parse().ok().filter(|number| *number <= most);
        number.map(Some).ok_or_else(|| Problem::parameter(name, format!("it is a number from 0 to {most}")))
    }

    /// Refuses what nobody asked for: a misspelt `dry_run` must not purge.
    pub(super) fn finish(self) -> Result<(), Problem> {
        match self.0.first() {
            Some((name, _)) => Err(Problem::parameter(&printable(name), "there is no such parameter here")),
            None => Ok(()),
        }
    }
}

impl FromRequest<Arc<Admin>> for Parameters {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &Arc<Admin>) -> Result<Self, Problem> {
        let (head, body) = request.into_parts();
        let mut all = Self::read(head.uri.query())?;
        let text = content::text(body).await?;
        if text.is_empty() {
            return Ok(all);
        }
        for (name, value) in content::object(&text)? {
            match value {
                Value::Null => {}
                Value::String(text) => all.add(&name, text)?,
                Value::Bool(_) | Value::Number(_) => all.add(&name, value.to_string())?,
                Value::Array(_) | Value::Object(_) => {
                    return Err(Problem::parameter(&printable(&name), "it is a text, a number or a boolean"));
                }
            }
        }
        Ok(all)
    }
}

/// The last part of a route's path, decoded.
pub(super) struct Segment(pub(super) String);

impl FromRequestParts<Arc<Admin>> for Segment {
    type Rejection = Problem;

    async fn from_request_parts(head: &mut Parts, admin: &Arc<Admin>) -> Result<Self, Problem> {
        let decoded = Path::<String>::from_request_parts(head, admin).await;
        // Bytes that are no UTF-8.
        let Path(text) = decoded.map_err(|_| Problem::parameter("path", NOT_TEXT))?;
        checked("path", text).map(Self)
    }
}

const NOT_TEXT: &str = "it has control characters, or bytes that are no UTF-8";

/// No value has anything that can't be written down.
fn checked(name: &str, value: String) -> Result<String, Problem> {
    // U+FFFD is what stands for bytes that are no UTF-8.
    if value.contains(|c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER) {
        return Err(Problem::parameter(name, NOT_TEXT));
    }
    Ok(value)
}

/// The beginning of a name that somebody made up.
pub(super) fn printable(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_parameter_is_there_once_and_asked_for() {
        let mut all = Parameters::read(Some("a=1&b=%2Fx+y&c&d=true")).unwrap();
        assert_eq!(all.number("a", 9).unwrap(), Some(1));
        assert_eq!(all.text("b").as_deref(), Some("/x y"));
        assert_eq!((all.flag("c").unwrap(), all.flag("d").unwrap(), all.flag("e").unwrap()), (true, true, false));
        assert!(all.text("a").is_none() && all.finish().is_ok());
        assert!(Parameters::read(Some("dryrun=true")).unwrap().finish().is_err());
    }

    #[test]
    fn what_cant_be_meant_is_refused() {
        let many = (0..17).map(|n| format!("p{n}=1&")).collect::<String>();
        for query in ["a=1&a=2", "a=%00", "a=%0d%0a", "a=%FF", "a=%c2%85", many.as_str()] {
            assert!(Parameters::read(Some(query)).is_err(), "{query}");
        }
        for (query, number, flag) in
            [("a=-1", false, false), ("a=10", false, false), ("a=x", false, false), ("a=1", true, true)]
        {
            assert_eq!(Parameters::read(Some(query)).unwrap().number("a", 9).is_ok(), number, "{query}");
            assert_eq!(Parameters::read(Some(query)).unwrap().flag("a").is_ok(), flag, "{query}");
        }
    }
}
