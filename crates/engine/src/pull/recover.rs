//! What opening does about a pull that was cut off.

use super::{
    finish::{finish, move_base_at_open},
    intent, legacy,
};
use crate::{
    error::{Error, Result},
    open::{plain::integer, session::Session, side_files::temporary_files},
};

/// Sees to what a pull left that was cut off. For a replica that is being opened; needs no network.
pub(crate) fn recover(session: &Session<'_>) -> Result<()> {
    let path = session.replica.name();
    for file in temporary_files(path) {
        session
            .storage
            .remove(&file)
            .map_err(|e| Error::storage("remove", &file, e))?;
    }
    let sealed = intent::path(session);
    let Some(intent) = intent::Intent::load(session)? else {
        return match session.storage.exists(&sealed) {
            Ok(true) => legacy::finish_pull(session, &sealed),
            Ok(false) => Ok(()),
            Err(error) => Err(Error::storage("look for", &sealed, error)),
        };
    };
    let cookie = integer(&session.engine_conn, "PRAGMA schema_version")? as u32;
    let noted = session.info.lock().pulled;
    if !intent.is_committed(cookie) || noted == Some(intent.cookie) {
        return intent::remove(session);
    }
    move_base_at_open(session, &intent.base, intent.stay, intent.committed)?;
    let began_since = session.info.lock().log_since == Some(intent.cookie);
    finish(
        session,
        &intent.base,
        intent.cookie,
        intent.has_log || began_since,
    )
}
