//! Everything that can go wrong in a handler, as one type that answers with JSON.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::http::StatusCode;
use axum::http::header::WWW_AUTHENTICATE;
use axum::response::{IntoResponse, Response};
use serde_json::json;

pub enum AppError {
    /// The request cannot be done; the sentence says why.
    Refused(StatusCode, String),
    NotSignedIn,
    /// Shared by all who waited for the same answer.
    Database(Arc<sqlx::Error>),
}

impl AppError {
    pub fn refused(status: StatusCode, why: impl Into<String>) -> AppError {
        AppError::Refused(status, why.into())
    }

    pub fn not_found(what: &str, id: i64) -> AppError {
        AppError::Refused(StatusCode::NOT_FOUND, format!("there is no {what} {id}"))
    }

    pub fn bad_request(why: &str) -> AppError {
        AppError::Refused(StatusCode::BAD_REQUEST, why.to_owned())
    }

    pub fn unprocessable(why: impl Into<String>) -> AppError {
        AppError::Refused(StatusCode::UNPROCESSABLE_ENTITY, why.into())
    }

    pub fn conflict(why: &str) -> AppError {
        AppError::Refused(StatusCode::CONFLICT, why.to_owned())
    }
}

impl IntoResponse for AppError {
    fn into_response(self) -> Response {
        match self {
            AppError::Refused(status, why) => (status, error(&why)).into_response(),
            AppError::NotSignedIn => {
                let challenge = [(WWW_AUTHENTICATE, "Bearer realm=\"shop\"")];
                let why = error("send the header Authorization: Bearer user-17");
                (StatusCode::UNAUTHORIZED, challenge, why).into_response()
            }
            AppError::Database(cause) => {
                // The details are for the operator; to a stranger they would only be a map.
                tracing::error!(%cause, "the database failed");
                let why = error("something went wrong on our side");
                (StatusCode::INTERNAL_SERVER_ERROR, why).into_response()
            }
        }
    }
}

fn error(why: &str) -> Json<serde_json::Value> {
    Json(json!({ "error": why }))
}

impl From<sqlx::Error> for AppError {
    fn from(cause: sqlx::Error) -> Self {
        AppError::Database(Arc::new(cause))
    }
}

impl From<Arc<sqlx::Error>> for AppError {
    fn from(cause: Arc<sqlx::Error>) -> Self {
        AppError::Database(cause)
    }
}

impl From<PathRejection> for AppError {
    fn from(rejection: PathRejection) -> Self {
        AppError::refused(rejection.status(), "an id is a whole number")
    }
}

impl From<QueryRejection> for AppError {
    fn from(rejection: QueryRejection) -> Self {
        AppError::Refused(rejection.status(), rejection.body_text())
    }
}

impl From<JsonRejection> for AppError {
    fn from(rejection: JsonRejection) -> Self {
        AppError::Refused(rejection.status(), rejection.body_text())
    }
}
