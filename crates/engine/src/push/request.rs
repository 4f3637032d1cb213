//! One request of SQL to the remote.

use partial_sync_transport::hrana::{Batch, BatchResult};

use crate::{error::Result, open::session::Session};

/// What errors say was going on.
pub(super) const OPERATION: &str = "a push";

/// Sends a batch and waits for its answer, or for a cancel of this operation.
pub(super) fn execute(session: &Session<'_>, batch: Batch, operation: &'static str) -> Result<BatchResult> {
    session.wait(operation, async {
        Ok(session
            .remote
            .execute(batch, Some(session.options.timeout))
            .await?)
    })
}
