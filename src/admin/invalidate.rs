//! `POST /invalidate/..`: purges.

use std::sync::Arc;

use axum::extract::State;
use http::StatusCode;
use serde::Serialize;

use super::parameters::{Parameters, Segment};
use super::problem::Problem;
use super::{Admin, Json};
use crate::selector::{PurgeError, Receipt, Selector};

#[derive(Serialize)]
pub(super) struct Purged {
    number: u64,
}

/// A path with query, on every host, or an absolute URI.
pub(super) async fn key(
    State(admin): State<Arc<Admin>>,
    Segment(key): Segment,
    parameters: Parameters,
) -> Result<Json<Purged>, Problem> {
    admin.purge(Selector::Uri(key), parameters).await
}

/// All that is stored for one principal. Its name is in the query or, better, in the content, which no log has.
pub(super) async fn partition(
    State(admin): State<Arc<Admin>>,
    mut parameters: Parameters,
) -> Result<Json<Purged>, Problem> {
    let name = parameters.text("principal").filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| Problem::parameter("principal", "it is missing: whose entries are purged"))?;
    admin.purge(Selector::Partition(name.into_bytes()), parameters).await
}

pub(super) async fn everything(
    State(admin): State<Arc<Admin>>,
    parameters: Parameters,
) -> Result<Json<Purged>, Problem> {
    admin.purge(Selector::Everything, parameters).await
}

impl Admin {
    async fn purge(&self, selector: Selector, parameters: Parameters) -> Result<Json<Purged>, Problem> {
        parameters.finish()?;
        let Receipt { number, .. } = self.handle.purge(selector).await.map_err(|error| refused(&error))?;
        Ok(Json(Purged { number }))
    }
}

fn refused(error: &PurgeError) -> Problem {
    match error {
        PurgeError::Uri { .. } => Problem::parameter("key", error.to_string()),
        PurgeError::Storage(_) => {
            let title = "The store couldn't give the memory back";
            Problem::named(
                StatusCode::BAD_GATEWAY,
                "store",
                title,
                format!("{error}. The purge has taken effect all the same."),
            )
        }
    }
}
