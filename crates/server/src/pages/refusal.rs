//! What is answered instead of pages: which status and code an error has.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use partial_sync_transport::wire::{REVISION_EXPIRED, REVISION_UNKNOWN};

use super::query::QueryError;
use crate::error::{HistoryError, ServerError};

/// A request that is not answered with pages.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl Refusal {
    /// The client's mistake.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            code: "BAD_REQUEST",
            message: message.into(),
        }
    }

    pub(super) fn busy(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            code: "BUSY",
            message: message.into(),
        }
    }

    /// Too many long polls of this caller wait, or of everybody.
    pub(super) fn too_many_polls() -> Self {
        Self {
            status: StatusCode::TOO_MANY_REQUESTS,
            code: "TOO_MANY_REQUESTS",
            message:
                "too many long polls with this token, or from this address, are waiting: ask without one"
                    .to_owned(),
        }
    }

    /// The database was replaced while it was asked for.
    pub(super) fn replaced(names_a_revision: bool) -> Self {
        match names_a_revision {
            true => Self::unknown(
                "the database was replaced by another one, which has no such revision: start again from the latest \
                 revision",
            ),
            false => Self::busy("the database was replaced while it was being read: ask again"),
        }
    }

    pub(super) fn unknown(message: impl Into<String>) -> Self {
        Self {
            code: REVISION_UNKNOWN,
            ..Self::bad_request(message)
        }
    }
}

impl From<HistoryError> for Refusal {
    fn from(error: HistoryError) -> Self {
        let (status, code) = match &error {
            HistoryError::Unknown(_) | HistoryError::UnknownElsewhere(_) => {
                (StatusCode::BAD_REQUEST, REVISION_UNKNOWN)
            }
            HistoryError::Expired(_) | HistoryError::ExpiredElsewhere(_) | HistoryError::Lost { .. } => {
                (StatusCode::GONE, REVISION_EXPIRED)
            }
            HistoryError::Forgotten => (StatusCode::SERVICE_UNAVAILABLE, "BUSY"),
            HistoryError::Source(source) if source.is_full() => {
                (StatusCode::INSUFFICIENT_STORAGE, "DISK_FULL")
            }
            HistoryError::Source(source) if source.is_of_log() => {
                (StatusCode::SERVICE_UNAVAILABLE, "NOT_REPLICATED")
            }
            HistoryError::Source(source) if source.is_of_origin() => {
                (StatusCode::BAD_GATEWAY, "ORIGIN_UNREACHABLE")
            }
            _ if error.is_unwritable() => (StatusCode::SERVICE_UNAVAILABLE, "HISTORY_UNWRITABLE"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL"),
        };
        if status.is_server_error() {
            tracing::error!(%error, "a request for pages failed");
        }
        if error.is_unwritable() {
            let message = "the server cannot write its page history, so the latest commits have no revision yet: is its \
                           disk full? Revisions that were made before can be read; try again later";
            return Self {
                status,
                code,
                message: message.to_owned(),
            };
        }
        Self {
            status,
            code,
            message: error.for_clients(),
        }
    }
}

impl From<ServerError> for Refusal {
    fn from(error: ServerError) -> Self {
        HistoryError::from(error).into()
    }
}

impl From<QueryError> for Refusal {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Pages(error) => error.into(),
            error => Self {
                code: "BAD_QUERY",
                ..Self::bad_request(format!("the query selector was refused: {error}"))
            },
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = serde_json::json!({ "code": self.code, "message": self.message });
        (self.status, Json(body)).into_response()
    }
}
