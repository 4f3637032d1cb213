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
            HistoryError::Unknown(_) => (StatusCode::BAD_REQUEST, REVISION_UNKNOWN),
            HistoryError::Expired(_) | HistoryError::Lost { .. } => (StatusCode::GONE, REVISION_EXPIRED),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL"),
        };
        if status.is_server_error() {
            tracing::error!(%error, "a request for pages failed");
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
