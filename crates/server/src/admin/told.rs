//! What becomes of an error of an operation: its status, its code and its text.

use axum::{http::StatusCode, response::Response};
use partial_sync_transport::wire::{REVISION_EXPIRED, REVISION_UNKNOWN};

use crate::{
    app::error,
    error::{HistoryError, ServerError},
};

/// An operation that failed.
#[derive(Debug)]
pub(super) enum Failed {
    /// There is no such database.
    NoDatabase(String),
    /// Who asks may not open it.
    NotOpen,
    /// The database never had that revision.
    NoRevision(String),
    /// What was asked for makes no sense.
    Bad(String),
    /// The server could not do it.
    Server(ServerError),
}

impl From<ServerError> for Failed {
    fn from(error: ServerError) -> Self {
        Self::Server(error)
    }
}

impl From<HistoryError> for Failed {
    fn from(error: HistoryError) -> Self {
        Self::Server(match error {
            HistoryError::Source(error) => *error,
            error => error.into(),
        })
    }
}

impl Failed {
    pub(super) fn answer(self) -> Response {
        let failed = match self {
            Self::NoDatabase(name) => {
                let text = format!("there is no database {name:?} here");
                return error(StatusCode::NOT_FOUND, "NOT_FOUND", &text);
            }
            Self::NotOpen => {
                let text = "the database is not open, and its revisions are told only by opening it, which writes to its folder: ask with \
                            a token that may change things, or when the database is in use";
                return error(StatusCode::CONFLICT, "NOT_OPEN", text);
            }
            Self::NoRevision(revision) => {
                let text =
                    format!("{revision:?} was never a revision of this database: ask for those that it has");
                return error(StatusCode::BAD_REQUEST, REVISION_UNKNOWN, &text);
            }
            Self::Bad(text) => return error(StatusCode::BAD_REQUEST, "BAD_REQUEST", &text),
            Self::Server(failed) => failed,
        };
        let (status, code) = match &failed {
            ServerError::BadName { .. } => (StatusCode::BAD_REQUEST, "BAD_NAME"),
            ServerError::Exists { .. } => (StatusCode::CONFLICT, "EXISTS"),
            ServerError::Leftover { .. } => (StatusCode::CONFLICT, "LEFTOVER"),
            ServerError::OneDatabase { .. } => (StatusCode::CONFLICT, "ONE_DATABASE"),
            ServerError::TwoNames { .. } => (StatusCode::CONFLICT, "TWO_NAMES"),
            ServerError::OpenElsewhere { .. } => (StatusCode::CONFLICT, "OPEN_ELSEWHERE"),
            ServerError::InUse { .. } => (StatusCode::CONFLICT, "SERVED_ELSEWHERE"),
            ServerError::Missing { .. } => (StatusCode::SERVICE_UNAVAILABLE, "DATABASE_MISSING"),
            ServerError::Replaced { .. } => (StatusCode::SERVICE_UNAVAILABLE, "DATABASE_REPLACED"),
            ServerError::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "BUSY"),
            ServerError::History(HistoryError::Expired(_) | HistoryError::Lost { .. }) => {
                (StatusCode::GONE, REVISION_EXPIRED)
            }
            ServerError::History(HistoryError::Unknown(_)) => (StatusCode::BAD_REQUEST, REVISION_UNKNOWN),
            failed if failed.is_of_log() => (StatusCode::SERVICE_UNAVAILABLE, "NOT_REPLICATED"),
            failed if failed.is_full() => (StatusCode::INSUFFICIENT_STORAGE, "DISK_FULL"),
            ServerError::History(history) if history.is_unwritable() => {
                (StatusCode::SERVICE_UNAVAILABLE, "HISTORY_UNWRITABLE")
            }
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL"),
        };
        if status.is_server_error() {
            tracing::error!(error = %failed, "administration failed");
        }
        error(status, code, &failed.for_clients())
    }
}
