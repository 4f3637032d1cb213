//! Databases of a folder that are made, copied and removed while the server runs.
//!
//! Each of it is done by the one who has the turn of the name, so that nobody opens what is being made or removed. Whenever the
//! process is killed, there is a whole database of the name, or none: a new one gets its name last, and loses it last.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use partial_sync_vfs::side_file_path;

use super::{Databases, LONGEST_NAME, Root, Slot};
use crate::{
    beside::remove_all,
    database::{Database, Opener},
    error::ServerError,
    lock::DatabaseLock,
    new_file::NewFile,
    restoring::others_use,
};

/// Names with which a path of the server begins or could begin.
const RESERVED: [&str; 9] = [
    "v1",
    "v2",
    "v3",
    "v3-protobuf",
    "pull-updates",
    "health",
    "ready",
    "metrics",
    "default",
];
/// What may be left of a database that is gone: its commits, its revisions.
const LEFTOVERS: [&str; 5] = ["-wal", "-journal", "-history", "-history-wal", "-history-journal"];

/// A database of a folder.
#[derive(Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Listed {
    pub name: String,
    /// It is open now.
    pub open: bool,
}

impl Databases {
    /// The names after `after`, in their order, and whether there are more than `limit`. Blocks.
    pub(crate) fn list(&self, after: &str, limit: usize) -> Result<(Vec<Listed>, bool), ServerError> {
        let mut names = match &self.root {
            Root::Folder(folder) => {
                let entries = std::fs::read_dir(folder).map_err(|e| io("listed", folder, e))?;
                let names = entries.flatten().filter_map(|entry| {
                    let name = entry.file_name();
                    let name = name.to_str()?.strip_suffix(".db")?;
                    self.file(name).map(|_| name.to_owned())
                });
                names.filter(|name| name.as_str() > after).collect()
            }
            Root::File(_) | Root::Memory(_) => {
                let name = self.single().unwrap_or_default().to_owned();
                Vec::from_iter((name.as_str() > after).then_some(name))
            }
        };
        names.sort_unstable();
        let more = names.len() > limit;
        names.truncate(limit);
        let name_of = |db: &Arc<Database>| self.single().unwrap_or(&db.handle().name).to_owned();
        let open: Vec<_> = self.opened().iter().map(name_of).collect();
        let listed = names.into_iter().map(|name| Listed {
            open: open.contains(&name),
            name,
        });
        Ok((listed.collect(), more))
    }

    /// The name of the one database of a server that has no folder.
    pub(crate) fn single(&self) -> Option<&str> {
        self.is_single()
            .then(|| self.single_name.as_deref().unwrap_or("memory"))
    }

    /// Makes an empty database.
    pub(crate) async fn create(&self, name: &str) -> Result<(), ServerError> {
        let path = self.new_path(name)?;
        self.make(name, path, |path| {
            let new = NewFile::beside(path).map_err(|e| io("made", path, e))?;
            let db = rusqlite::Connection::open(new.path()).map_err(|source| failed(path, source))?;
            // The first write makes the header; nothing stays beside the file.
            db.execute_batch("PRAGMA journal_mode=OFF; PRAGMA user_version=1; PRAGMA user_version=0;")
                .map_err(|source| failed(path, source))?;
            drop(db);
            Ok(new)
        })
        .await
    }

    /// Gives a file that has been written the name of a database, if there is none of that name.
    pub(crate) async fn place(&self, name: &str, new: NewFile) -> Result<(), ServerError> {
        let path = self.new_path(name)?;
        self.make(name, path, |_| Ok(new)).await
    }

    /// Removes a database, with all that is beside its file. Who uses it is told.
    pub(crate) async fn delete(&self, name: &str) -> Result<bool, ServerError> {
        let Root::Folder(_) = self.root else {
            return Err(self.has_one("removed"));
        };
        let Some(path) = self.file(name) else {
            return Ok(false);
        };
        self.check_name(name, &path).await?;
        let (slot, opener) = (self.slot(name)?, Arc::clone(&self.opener));
        let (deleted, its_name) = (Arc::clone(&slot), Arc::from(name));
        // A task of its own: a client that gives up does not leave it half done.
        let deleting = tokio::spawn(async move { deleted.delete(&opener, its_name, path).await });
        let deleted = deleting.await.map_err(|_| ServerError::Stopping)?;
        self.forget(name, &slot);
        deleted
    }

    /// Where a new database is to be.
    pub(crate) fn new_path(&self, name: &str) -> Result<PathBuf, ServerError> {
        let Root::Folder(folder) = &self.root else {
            return Err(self.has_one("made"));
        };
        let bad = |reason| ServerError::BadName {
            name: name.chars().take(LONGEST_NAME).collect(),
            reason,
        };
        if !super::is_name(name) {
            return Err(bad(
                "it must have 1 to 200 letters, digits, `-`, `_` and `.`, and not begin with a dot",
            ));
        }
        if RESERVED.contains(&name) {
            return Err(bad("paths of the server begin with it"));
        }
        let path = folder.join(format!("{name}.db"));
        match path.symlink_metadata() {
            Ok(_) => Err(ServerError::Exists {
                name: name.to_owned(),
            }),
            Err(_) => Ok(path),
        }
    }

    fn has_one(&self, what: &'static str) -> ServerError {
        ServerError::OneDatabase { what }
    }

    async fn make(
        &self,
        name: &str,
        path: PathBuf,
        write: impl FnOnce(&Path) -> Result<NewFile, ServerError> + Send + 'static,
    ) -> Result<(), ServerError> {
        let (slot, opener) = (self.slot(name)?, Arc::clone(&self.opener));
        let (made, its_name) = (Arc::clone(&slot), name.to_owned());
        let making = tokio::spawn(async move {
            let stopped = made.turn.lock().await;
            if *stopped {
                return Err(ServerError::Stopping);
            }
            made.end_replaced(&opener, &path).await?;
            let put = tokio::task::spawn_blocking(move || put(its_name, &path, write));
            put.await.map_err(|_| ServerError::Stopping)?
        });
        let made = making.await.map_err(|_| ServerError::Stopping)?;
        self.forget(name, &slot);
        made
    }
}

impl Slot {
    /// `false` = there was nothing.
    async fn delete(&self, opener: &Arc<Opener>, name: Arc<str>, path: PathBuf) -> Result<bool, ServerError> {
        let stopped = self.turn.lock().await;
        if *stopped {
            return Err(ServerError::Stopping);
        }
        let good = self.good();
        let opened = match good {
            Some(database) => Ok(database),
            None => {
                self.end_replaced(opener, &path).await?;
                // Somebody else may have deleted it, and opening would make it.
                if path.symlink_metadata().is_err() {
                    return Ok(false);
                }
                Database::open(opener, name, path.clone()).await
            }
        };
        let deleted = match opened {
            Ok(database) => self.delete_open(opener, &database).await,
            Err(error) => Err(error),
        };
        match deleted {
            Err(error) if error.is_damage() => {
                let removed = tokio::task::spawn_blocking(move || remove_damaged(&path, &error));
                removed.await.map_err(|_| ServerError::Stopping)??;
            }
            other => other?,
        }
        self.served.store(true, Relaxed);
        Ok(true)
    }

    async fn delete_open(&self, opener: &Opener, database: &Arc<Database>) -> Result<(), ServerError> {
        // Anyone who finds it from here on finds one that has ended, and waits for the turn.
        *self.database.lock() = Some(Arc::clone(database));
        let deleted = database.delete(&*opener.sql).await;
        if deleted.is_ok() || database.retire(&*opener.sql).await? {
            self.database.lock().take();
        }
        deleted
    }

    /// Ends a database that was open and is not there any more.
    async fn end_replaced(&self, opener: &Opener, path: &Path) -> Result<(), ServerError> {
        let old = self.database.lock().clone();
        if let Some(old) = old {
            if !old.retire(&*opener.sql).await? {
                return Err(ServerError::Missing {
                    path: path.to_owned(),
                });
            }
            self.database.lock().take();
        }
        Ok(())
    }
}

/// Removes a database that cannot be opened, or not be closed in good order. To be called by who has the turn.
fn remove_damaged(path: &Path, damage: &ServerError) -> Result<(), ServerError> {
    let _lock = DatabaseLock::take(path)?;
    if others_use(path) {
        return Err(ServerError::OpenElsewhere {
            path: path.to_owned(),
        });
    }
    remove_all(path)?;
    tracing::warn!(path = %path.display(), %damage, "a damaged database was deleted");
    Ok(())
}

/// To be called by who has the turn.
fn put(
    name: String,
    path: &Path,
    write: impl FnOnce(&Path) -> Result<NewFile, ServerError>,
) -> Result<(), ServerError> {
    // A server that has another process may be about to do the same.
    let _lock = DatabaseLock::take(path)?;
    if path.symlink_metadata().is_ok() {
        return Err(ServerError::Exists { name });
    }
    let left = LEFTOVERS.iter().map(|suffix| side_file_path(path, suffix));
    let left = left
        .into_iter()
        .find(|path| path.metadata().is_ok_and(|meta| meta.len() > 0));
    if let Some(left) = left {
        return Err(ServerError::Leftover { path: left });
    }
    let new = write(path)?;
    new.finish(path, false).map_err(|e| match e.kind() {
        std::io::ErrorKind::AlreadyExists => ServerError::Exists { name },
        _ => io("made", path, e),
    })
}

fn io(operation: &'static str, path: &Path, source: std::io::Error) -> ServerError {
    ServerError::Io {
        operation,
        path: path.to_owned(),
        source,
    }
}

fn failed(path: &Path, source: rusqlite::Error) -> ServerError {
    ServerError::Sqlite {
        path: path.to_owned(),
        source,
    }
}
