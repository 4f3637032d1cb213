//! The operations of administration.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use partial_sync_core::{PageSize, Revision};
use partial_sync_vfs::side_file_path;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::{
    copy::copy,
    route::{At, Operation, Whom},
    told::Failed,
};
use crate::{
    access::{Access, CallerId},
    app::App,
    auth::caller_of_subject,
    database::Database,
    databases::Databases,
    error::{HistoryError, ServerError},
    follow::{Current, as_immutable},
    history::{RevisionRecord, Seq},
};

/// Copies that are made at the same time: each reads and writes as fast as the disk lets it.
const COPIES: usize = 2;

/// Characters of an operation that the log is told.
const TOLD: usize = 500;

/// See the module.
pub(super) struct Operations {
    app: Arc<App>,
    databases: Arc<Databases>,
    copies: Semaphore,
}

impl Operations {
    pub(super) fn new(app: Arc<App>, databases: Arc<Databases>) -> Self {
        Self {
            app,
            databases,
            copies: Semaphore::new(COPIES),
        }
    }

    /// Does one, for who may do so much. Operations that change something are told to the log.
    pub(super) async fn run(&self, operation: Operation, access: Access) -> Response {
        let changes = operation.changes().then(|| {
            let told = format!("{operation:?}");
            told.chars().take(TOLD).collect::<String>()
        });
        let done = match operation {
            Operation::List { after, limit } => self.list(after, limit).await,
            Operation::Create { name } => self.create(&name).await,
            Operation::Delete { name } => self.delete(&name).await,
            Operation::Fork { name, to, at } => self.fork(&name, &to, at).await,
            Operation::Stats { name } => self.stats(&name).await,
            Operation::Revisions { name, before, limit } => {
                self.revisions(&name, before, limit, access).await
            }
            Operation::DropHistory { name, before } => self.drop_history(&name, before).await,
            Operation::KickDatabase { name } => self.kick_database(&name).await,
            Operation::KickCaller(whom) => Ok(self.kick_caller(&whom).await),
        };
        if let Some(operation) = changes {
            match &done {
                Ok(_) => tracing::info!(%operation, "administration"),
                Err(error) => tracing::warn!(%operation, ?error, "administration was refused or failed"),
            }
        }
        match done {
            Ok(told) => Json(told).into_response(),
            Err(failed) => failed.answer(),
        }
    }

    /// Whether there is a database of that name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.inner(name).is_ok_and(|inner| self.databases.has(inner))
    }

    /// Opens a database.
    async fn database(&self, name: &str) -> Result<Arc<Database>, Failed> {
        let opened = self.databases.get(self.inner(name)?).await?;
        opened.ok_or_else(|| none(name))
    }

    /// What a database is called in here that has this name for clients: the one of a server of a file goes by the name of the file.
    fn inner<'a>(&self, name: &'a str) -> Result<&'a str, Failed> {
        match self.databases.single() {
            None => Ok(name),
            Some(single) if single == name => Ok(""),
            Some(_) => Err(none(name)),
        }
    }

    async fn list(&self, after: String, limit: usize) -> Result<Value, Failed> {
        let databases = Arc::clone(&self.databases);
        let listed = blocking(move || databases.list(&after, limit)).await?;
        let (names, more) = listed?;
        let next = names.last().filter(|_| more).map(|last| last.name.clone());
        Ok(json!({ "namespaces": names, "next": next }))
    }

    async fn create(&self, name: &str) -> Result<Value, Failed> {
        self.databases.create(name).await?;
        Ok(json!({ "name": name }))
    }

    async fn delete(&self, name: &str) -> Result<Value, Failed> {
        match self.databases.delete(name).await? {
            true => Ok(json!({ "name": name })),
            false => Err(none(name)),
        }
    }

    async fn fork(&self, name: &str, to: &str, at: At) -> Result<Value, Failed> {
        let target = self.databases.new_path(to)?;
        let database = self.database(name).await?;
        // Nobody closes it.
        let _turn = self.copies.acquire().await;
        let (current, record) = revision_at(&database, at).await?;
        let copied = copy(database.follower(), record, &target, self.app.limits.disk_reserve).await;
        // What ended meanwhile is told by its name.
        database.follower().check_open()?;
        self.databases.place(to, copied?).await?;
        let revision = current.generation.revision(record.seq);
        Ok(json!({ "name": to, "from": name, "revision": revision.as_str(), "pages": record.db_size.0 }))
    }

    /// Of one that is not open, what its files say: who opens it writes.
    async fn stats(&self, name: &str) -> Result<Value, Failed> {
        let inner = self.inner(name)?;
        let database = self.databases.open_now(inner);
        let current = match &database {
            Some(database) => Some(database.follower().refresh().await?),
            None => None,
        };
        let path = self.databases.file(inner).ok_or_else(|| none(name))?;
        let databases = Arc::clone(&self.databases);
        let name = name.to_owned();
        let told = blocking(move || {
            let history = match &database {
                Some(database) => Some(database.follower().history().size()?),
                None => None,
            };
            let reach = |size| databases.opener().reach(size).as_secs();
            let len = |suffixes: &[&str]| -> u64 {
                let lens = suffixes
                    .iter()
                    .map(|suffix| bytes_of(&side_file_path(&path, suffix)));
                lens.sum()
            };
            let (file, wal) = (bytes_of(&path), len(&["-wal"]));
            let kept = len(&["-history", "-history-wal"]);
            let (page_size, pages) = match &current {
                Some(current) => (
                    Some(current.snapshot.page_size()),
                    Some(current.snapshot.db_size().0.into()),
                ),
                None => {
                    let size = page_size_in(&path);
                    // The last commits may be in the WAL.
                    (size, size.filter(|_| wal == 0).map(|size| size.pages_for(file)))
                }
            };
            Ok::<_, HistoryError>(json!({
                "name": name,
                "open": database.is_some(),
                "storage_bytes_used": file + wal + kept,
                "file_bytes": file,
                "wal_bytes": wal,
                "history_bytes": kept,
                "page_size": page_size.map(|size| size.bytes()),
                "pages": pages,
                "revision": current.as_ref().map(|current| current.revision().as_str().to_owned()),
                "revisions": history.as_ref().map(|history| history.revisions),
                "history_reach_seconds": history.as_ref().map(reach),
            }))
        });
        Ok(told.await??)
    }

    async fn revisions(
        &self,
        name: &str,
        before: Option<String>,
        limit: usize,
        access: Access,
    ) -> Result<Value, Failed> {
        let inner = self.inner(name)?;
        let database = match self.databases.open_now(inner) {
            Some(database) => database,
            None if access == Access::Full => self.database(name).await?,
            None if self.databases.has(inner) => return Err(Failed::NotOpen),
            None => return Err(none(name)),
        };
        let current = database.follower().refresh().await?;
        let before = match before {
            Some(before) => Some(seq_of(&current, &before)?),
            None => None,
        };
        let follower = Arc::clone(database.follower());
        let listed = blocking(move || follower.history().list(before, limit + 1)).await?;
        database.follower().check_open()?;
        let mut listed = listed?;
        let more = listed.len() > limit;
        listed.truncate(limit);
        let revision = |seq| current.generation.revision(seq).as_str().to_owned();
        let next = listed
            .last()
            .filter(|_| more)
            .map(|last| revision(last.record.seq));
        let told: Vec<_> = listed
            .iter()
            .map(|kept| {
                json!({
                    "revision": revision(kept.record.seq),
                    "time": time_of(kept.unix_ms),
                    "pages": kept.record.db_size.0,
                    "bytes": kept.bytes,
                })
            })
            .collect();
        Ok(json!({ "revisions": told, "next": next }))
    }

    async fn drop_history(&self, name: &str, before: Option<String>) -> Result<Value, Failed> {
        let database = self.database(name).await?;
        let current = database.follower().refresh().await?;
        let oldest = match before {
            Some(before) => seq_of(&current, &before)?,
            None => current.seq,
        };
        loop {
            let follower = Arc::clone(database.follower());
            let more = blocking(move || follower.history().drop_before(oldest)).await?;
            database.follower().check_open()?;
            if !more? {
                break;
            }
        }
        Ok(json!({ "name": name, "oldest": current.generation.revision(oldest).as_str() }))
    }

    async fn kick_database(&self, name: &str) -> Result<Value, Failed> {
        let database = self.database(name).await?;
        let handle = database.handle();
        let kicked = self.app.kicks.kick(|_, of| *of == handle.name);
        self.app.sql.release(handle).await;
        Ok(json!({ "name": name, "page_requests": kicked }))
    }

    async fn kick_caller(&self, whom: &Whom) -> Value {
        let mut ids: Vec<CallerId> = Vec::new();
        if let Some(caller) = &whom.caller {
            ids.extend([CallerId::of_name(caller), caller_of_subject(caller)]);
        }
        ids.extend(whom.address.map(CallerId::of_peer));
        let kicked = self.app.kicks.kick(|caller, _| ids.contains(&caller));
        self.app.connections.close_from(&ids);
        self.app.sql.end_of(ids).await;
        json!({ "page_requests": kicked })
    }
}

/// The revision that is meant, and what is known of it.
async fn revision_at(database: &Arc<Database>, at: At) -> Result<(Arc<Current>, RevisionRecord), Failed> {
    let follower = Arc::clone(database.follower());
    let current = follower.refresh().await?;
    let latest = RevisionRecord {
        seq: current.seq,
        db_size: current.snapshot.db_size(),
    };
    let record = match (at.revision, at.timestamp) {
        (Some(revision), _) => {
            let seq = seq_of(&current, &revision)?;
            match seq == latest.seq {
                true => latest,
                false => blocking(move || follower.history().revision(seq)).await??,
            }
        }
        (None, Some(time)) => {
            let time = unix_ms(&time)?;
            let found = blocking(move || follower.history().at_time(time)).await??;
            found.ok_or(ServerError::History(HistoryError::Expired(Seq::FIRST)))?
        }
        (None, None) => latest,
    };
    database.follower().check_open()?;
    Ok((current, record))
}

fn seq_of(current: &Current, revision: &str) -> Result<Seq, Failed> {
    let parsed = Revision::new(revision).and_then(|revision| current.generation.parse(&revision));
    parsed.filter(|seq| *seq <= current.seq).ok_or_else(|| {
        let revision: String = revision.chars().take(100).collect();
        Failed::NoRevision(revision)
    })
}

/// In milliseconds since 1970, of a time like `2026-11-29T18:00:00Z`; without a zone it is UTC.
fn unix_ms(time: &str) -> Result<i64, Failed> {
    let read = humantime::parse_rfc3339_weak(time);
    let read =
        read.map_err(|e| Failed::Bad(format!("{time:?} is not a time like 2026-11-29T18:00:00Z: {e}")))?;
    let since = read.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

fn time_of(unix_ms: i64) -> String {
    let time = UNIX_EPOCH.checked_add(Duration::from_millis(u64::try_from(unix_ms).unwrap_or(0)));
    humantime::format_rfc3339_millis(time.unwrap_or(SystemTime::UNIX_EPOCH)).to_string()
}

fn none(name: &str) -> Failed {
    Failed::NoDatabase(name.chars().take(200).collect())
}

/// The page size that a file has in its header. Through SQLite, which closes no descriptor while a connection of this process has locks
/// on the file: they would be gone, also those of a database that was opened meanwhile.
fn page_size_in(path: &Path) -> Option<PageSize> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let file = Connection::open_with_flags(as_immutable(path), flags).ok()?;
    // Makes SQLite read the header.
    file.query_row("PRAGMA schema_version", [], |_| Ok(())).ok()?;
    let size = file.query_row("PRAGMA page_size", [], |row| row.get(0)).ok()?;
    PageSize::new(size).ok()
}

fn bytes_of(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |meta| meta.len())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ServerError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| ServerError::Stopping)
}
