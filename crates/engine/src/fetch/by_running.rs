//! What a query touches, where the remote cannot tell, as a bucket cannot: the query is run on the replica, and what it misses is fetched
//! as for any other query.
//!
//! What must never happen here: that a statement is run that writes, for nobody would record it.

use partial_sync_transport::{RemoteError, RemoteErrorKind, tokens::first};
use partial_sync_vfs::sqlite::Step;

use crate::{
    error::{Error, Result},
    fetch::statement_prefetch::is_select,
    open::{options::Bootstrap, plain::open_plain, session::Session},
};

/// SQLite's code for an error in a statement.
const SQLITE_ERROR: i32 = 1;

/// Runs a query to its end. `each` is called for each of its rows.
pub(crate) fn run_query(session: &Session<'_>, sql: &str, mut each: impl FnMut()) -> Result<()> {
    let conn = open_plain(&session.replica, session.options.timeout)?;
    let _broken_by_cancel = session.interrupts(&conn);
    let (query, end) = match is_select(sql) {
        true => conn.prepare(sql, false)?,
        false => (None, 0),
    };
    let reads = query.filter(|query| query.readonly());
    let Some(mut query) = reads.filter(|_| first(&sql[end..]).is_none()) else {
        let message = "the query must be a single SELECT that only reads";
        return Err(RemoteError::new(RemoteErrorKind::Refused, message).into());
    };
    while matches!(query.step()?, Step::Row) {
        each();
    }
    Ok(())
}

/// What the first fetch has left, if the bootstrap is a query and the remote could not tell what it touches.
pub(crate) fn run_bootstrap_query(session: &Session<'_>) -> Result<()> {
    let bootstrap = session
        .options
        .partial
        .as_ref()
        .and_then(|p| p.bootstrap.as_ref());
    let Some(Bootstrap::Query { query }) = bootstrap.filter(|_| !session.remote.runs_sql()) else {
        return Ok(());
    };
    run_query(session, query, || {}).map_err(|error| match error {
        Error::Sqlite(e) if e.code() == SQLITE_ERROR => Error::BootstrapQuery {
            message: e.to_string(),
        },
        Error::Remote(e) if e.kind == RemoteErrorKind::Refused => {
            Error::BootstrapQuery { message: e.message }
        }
        other => other,
    })
}
