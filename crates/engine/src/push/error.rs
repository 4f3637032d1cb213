//! The errors with which a push ends that are not the remote's refusal of a change.

use partial_sync_core::ChangeId;
use partial_sync_transport::{RemoteError, RemoteErrorKind};

use crate::error::Error;

pub(super) fn may_not_write() -> Error {
    Error::Remote(RemoteError::new(
        RemoteErrorKind::Unauthorized,
        "pushing changes: the token may not write, or the remote's database is for reading only; nothing landed and nothing \
         is lost: push with a token that may write",
    ))
}

/// An end of a push that no change is to blame for.
pub(super) fn unclear(message: String) -> Error {
    Error::Unsendable {
        change: None,
        message,
    }
}

pub(super) fn pull_first(change: ChangeId) -> Error {
    Error::Unsendable {
        change: Some(change),
        message: format!(
            "change {change} cannot be sent as it is, because new rows of this replica have other keys on the remote than \
             locally; nothing is lost: pull first, then push again"
        ),
    }
}
