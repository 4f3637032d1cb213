//! A plain local database: a SQLite file, or `:memory:`, without a remote. Its connections go through this project's VFS, which
//! refuses to attach a replica.

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use partial_sync_vfs::{
    OpenFile, VFS_NAME, register_vfs,
    sqlite::{Conn, OpenOptions},
};

use crate::{
    error::{Error, Result},
    open::options::Builder,
    sql::{connection::Connection, shared_connection::ConnectionOptions},
};

/// SQLite's VFS of databases in memory that connections share by name.
const SHARED_MEMORY: &str = "memdb";

/// See the module.
pub(crate) struct Local {
    pub(crate) path: PathBuf,
    /// Of a `:memory:` that its connections share: keeps its contents while there is no other connection.
    pub(crate) memory: Option<Conn>,
}

/// Opens it; `path` is a name of its own for a database in memory.
pub(crate) fn open_local(options: &Builder, path: PathBuf, in_memory: bool) -> Result<Local> {
    let mut local = Local { path, memory: None };
    if in_memory && options.shared_memory {
        let shared = OpenOptions {
            vfs: Some(SHARED_MEMORY.into()),
            ..OpenOptions::default()
        };
        local.memory = Some(Conn::open(&local.path, &shared)?);
    } else if in_memory {
        local.path.clone_from(&options.path);
    }
    register_vfs().map_err(|e| Error::storage("open", &local.path, e))?;
    Ok(local)
}

impl Local {
    /// A new connection.
    pub(crate) fn connection(self: &Arc<Self>, busy_timeout: Duration) -> Result<Connection> {
        let Self { path, memory } = &**self;
        let is_file = memory.is_none() && path.as_os_str() != ":memory:";
        let register = || match is_file {
            true => OpenFile::register(path),
            false => Ok(None),
        };
        // Before it is opened, and, as there may be no file yet, again afterwards.
        drop(register()?);
        let keep = Arc::new((self.clone(), OnceLock::new()));
        let connection = Connection::open(ConnectionOptions {
            path: path.clone(),
            vfs: Some(memory.as_ref().map_or(VFS_NAME, |_| SHARED_MEMORY).into()),
            capture: None,
            busy_timeout,
            keep_alive: Some(keep.clone()),
        })?;
        // It is dropped with the connection, after it.
        let _ = keep.1.set(register()?);
        Ok(connection)
    }
}
