//! [`Problem`]: why a request was refused, as problem details (RFC 9457).

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;

/// A refusal. Its type is `about:blank` where the status says all, and else names what was wrong.
#[derive(Debug)]
pub(super) struct Problem(Box<Details>);

#[derive(Debug, Serialize)]
struct Details {
    #[serde(rename = "type")]
    kind: String,
    title: String,
    status: u16,
    detail: String,
    /// Several things that are wrong with one text.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<Mistake>,
    #[serde(skip)]
    field: Option<(HeaderName, HeaderValue)>,
}

/// One thing that is wrong in a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Mistake {
    /// Beginning with 1; missing where it isn't known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) line: Option<usize>,
    /// In characters, beginning with 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) column: Option<usize>,
    /// Empty where it isn't about one field.
    pub(super) field: String,
    pub(super) message: String,
}

impl Mistake {
    /// Of a field whose place doesn't matter.
    pub(super) fn of(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { line: None, column: None, field: field.into(), message: message.into() }
    }
}

impl Problem {
    /// What the status says, with what would help.
    pub(super) fn plain(status: StatusCode, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or("Error").to_owned();
        Self(Box::new(Details {
            kind: "about:blank".into(),
            title,
            status: status.as_u16(),
            detail: detail.into(),
            problems: Vec::new(),
            field: None,
        }))
    }

    /// One of a kind that a program may want to tell from others.
    pub(super) fn named(status: StatusCode, name: &str, title: &str, detail: impl Into<String>) -> Self {
        let mut problem = Self::plain(status, detail);
        problem.0.kind = format!("urn:larder:problem:{name}");
        problem.0.title = title.into();
        problem
    }

    /// A parameter, a field of a body or a part of the path that can't be used.
    pub(super) fn parameter(name: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        let problem = Self::named(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid-parameter",
            "A parameter can't be used",
            format!("{name}: {message}"),
        );
        problem.with(vec![Mistake::of(name, message)])
    }

    pub(super) fn with(mut self, problems: Vec<Mistake>) -> Self {
        self.0.problems = problems;
        self
    }

    /// Answered with a field of its own.
    pub(super) fn saying(mut self, name: HeaderName, value: &'static str) -> Self {
        self.0.field = Some((name, HeaderValue::from_static(value)));
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self(details) = self;
        let content = serde_json::to_vec(&details).unwrap_or_default();
        let mut response = Response::new(Body::from(content));
        *response.status_mut() = StatusCode::from_u16(details.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let json = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        if let Some((name, value)) = details.field {
            response.headers_mut().insert(name, value);
        }
        response
    }
}
