//! The content of a request: read within limits of size, time and depth.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use http::StatusCode;
use serde_json::{Map, Value};

use super::guard::{LARGEST_CONTENT, too_large};
use super::problem::{Mistake, Problem};

/// How long content may take to arrive.
const LONGEST: Duration = Duration::from_secs(10);

/// How deep objects and lists may lie within each other. Nothing that is meant lies deeper than four.
const DEEPEST: usize = 16;

/// All of it as a text.
pub(super) async fn text(body: Body) -> Result<String, Problem> {
    let read = tokio::time::timeout(LONGEST, to_bytes(body, LARGEST_CONTENT)).await;
    let late = |_| Problem::plain(StatusCode::REQUEST_TIMEOUT, "The content took longer than ten seconds to arrive.");
    // What is too large, and what broke off: of the second nobody hears the answer.
    let bytes = read.map_err(late)?.map_err(|_| too_large())?;
    String::from_utf8(bytes.into()).map_err(|_| malformed("it is not UTF-8", None))
}

/// The fields of a JSON object.
pub(super) fn object(text: &str) -> Result<Map<String, Value>, Problem> {
    if depth(text) > DEEPEST {
        return Err(malformed(&format!("it is nested deeper than {DEEPEST} levels"), None));
    }
    let value = serde_json::from_str(text);
    let value = value.map_err(|error| malformed(&error.to_string(), Some((error.line(), error.column()))))?;
    match value {
        Value::Object(fields) => Ok(fields),
        _ => Err(malformed("it is not an object", None)),
    }
}

fn malformed(message: &str, place: Option<(usize, usize)>) -> Problem {
    let title = "The content can't be read";
    let problem =
        Problem::named(StatusCode::BAD_REQUEST, "malformed-content", title, format!("The content: {message}."));
    // Of an empty text no column is known.
    let (line, column) = place.map(|(line, column)| (line.max(1), column.max(1))).unzip();
    problem.with(vec![Mistake { line, column, ..Mistake::of("", message) }])
}

/// How deep brackets lie within each other; those in strings don't count.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depths() {
        for (text, expected) in [
            ("", 0),
            ("{}", 1),
            ("{\"a\": [1, [2], [3]]}", 3),
            ("\"[[[\"", 0),
            (r#"["\"[["]"#, 1),
            (r#"["\\"]["#, 1),
            ("]]]]{", 1),
        ] {
            assert_eq!(depth(text), expected, "{text}");
        }
        assert!(object(&"[".repeat(100_000)).is_err() && object(&"{\"a\":".repeat(17)).is_err());
    }

    #[test]
    fn only_objects_are_taken() {
        for text in ["", "1", "[]", "null", "{", "{\"a\": }", "{} {}"] {
            assert!(object(text).is_err(), "{text}");
        }
        assert_eq!(object(" {\"a\": 1} ").unwrap()["a"], 1);
    }
}
