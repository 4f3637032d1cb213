//! A checkpoint of a replica: what is in the WAL goes into the database file, which other programs may read when every page of
//! it is there.

use std::time::Duration;

use crate::{error::Result, open::session::Session};

pub(crate) const OPERATION: &str = "a checkpoint";

/// How long a checkpoint waits for readers so that it can empty the WAL.
const EMPTY_WAL_WAIT: Duration = Duration::from_millis(500);

/// See [`crate::Database::checkpoint`].
pub(crate) fn checkpoint(session: &Session<'_>) -> Result<()> {
    let _sync = session.lock_sync(OPERATION)?;
    let conn = &session.engine_conn;
    let _broken_by_cancel = session.interrupts(conn);
    conn.checkpoint(false)?;
    // Emptying the WAL needs a moment without readers; one that does not come soon is not a failure.
    conn.busy_timeout(EMPTY_WAL_WAIT)?;
    let emptied = conn.checkpoint(true);
    conn.busy_timeout(session.timeout)?;
    emptied?;
    session.make_ordinary(session.unpushed())
}
