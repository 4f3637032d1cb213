//! Runs query selectors with SQLite on a database that is one past revision: its pages come from a [`RevisionReader`], and the
//! pages that SQLite asks for are the pages that the query touches.
//!
//! Keeps no page: the database file is a view of the reader, so a query over gigabytes takes the memory of SQLite's page
//! cache. Lets through a single SELECT and nothing else.

use std::{
    any::Any,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use parking_lot::Mutex;
use partial_sync_core::{
    PageMap, PageNo, Revision, SegmentSize,
    header::{WAL_MODE, set_versions},
};
use partial_sync_vfs::{
    Base, MemoryStorage, Miss, PageSink, PageSource, Replica, ReplicaConfig, SourceError, Storage,
    StorageFile, VFS_NAME,
    sqlite::{Conn, InterruptHandle, OpenOptions, Step, Stmt, linear, memory},
    temporary,
};
use rusqlite::{
    hooks::{AuthAction, AuthContext, Authorization},
    limits::Limit,
};
use tokio::task::AbortHandle;

use super::{
    query::{QueryError, QueryLimits, QueryRunner},
    reader::RevisionReader,
    touched::Touched,
};

/// SQLite's virtual machine looks at the clock and at its memory every so many instructions.
const LOOK_EVERY: i32 = 100;

/// The [`QueryRunner`] of the server.
#[derive(Clone, Copy, Debug, Default)]
pub struct SnapshotQueries;

impl QueryRunner for SnapshotQueries {
    fn run(
        &self,
        pages: &RevisionReader,
        sql: &str,
        limits: &QueryLimits,
        touched: &Arc<Touched>,
    ) -> Result<(), QueryError> {
        let watch = Arc::new(Watch {
            deadline: Instant::now() + limits.time,
            most: limits.pages,
            touched: Arc::clone(touched),
            failure: Mutex::default(),
        });
        let ran = run(pages, sql, limits, &watch);
        let failure = watch.failure.lock().take();
        match (failure, ran) {
            (Some(failure), _) => Err(failure),
            (None, Err(_)) if temporary::take_refusal() => Err(QueryError::Temporary),
            (None, Err(_)) if Instant::now() >= watch.deadline => Err(QueryError::TooSlow(limits.time)),
            (None, Err(error)) => Err(error),
            (None, Ok(())) => Ok(()),
        }
    }
}

/// What a query has touched, and whether it may continue.
struct Watch {
    deadline: Instant,
    most: u64,
    touched: Arc<Touched>,
    failure: Mutex<Option<QueryError>>,
}

impl Watch {
    fn is_over(&self, most: u64) -> bool {
        let starves = memory::in_statements() > most;
        if starves {
            self.failure.lock().get_or_insert(QueryError::Memory(most));
        }
        starves || self.touched.is_stopped() || Instant::now() >= self.deadline
    }
}

fn run(
    pages: &RevisionReader,
    sql: &str,
    limits: &QueryLimits,
    watch: &Arc<Watch>,
) -> Result<(), QueryError> {
    if pages.at().db_size.0 == 0 {
        return Err(QueryError::Sql("the database is empty at this revision".into()));
    }
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let path = PathBuf::from(format!("/:query:/{}.db", NEXT.fetch_add(1, Ordering::Relaxed)));
    let storage = Arc::new(RevisionStorage {
        path: path.clone(),
        file: Arc::new(RevisionFile(pages.clone())),
        beside: MemoryStorage::default(),
    });
    let at = pages.at();
    let internal = |e: io::Error| QueryError::Sql(format!("the query could not be run: {e}"));
    let replica = Replica::register(ReplicaConfig {
        storage,
        path,
        page_size: pages.page_size(),
        base: Base {
            // Nobody looks at it: the reader knows its revision.
            revision: Revision::new("query").ok_or_else(|| internal(io::ErrorKind::InvalidInput.into()))?,
            size: at.db_size,
        },
        map: PageMap::new(),
        source: Arc::new(Touching {
            reader: pages.clone(),
            watch: watch.clone(),
        }),
        segment: SegmentSize::new(1).map_err(|e| internal(io::Error::other(e)))?,
        prefetch: false,
        wait: limits.time,
        temporary: true,
    })
    .map_err(internal)?;
    let conn = open(&replica, limits, watch)?;
    // Some instructions do not look at the clock, but ask whether they are interrupted.
    let _alarm = Alarm::set(watch, conn.interrupt_handle());
    let mut stmt = prepare(&conn, sql)?;
    while stmt.step().map_err(sql_error)? == Step::Row {}
    Ok(())
}

/// Interrupts a query at its deadline, or when nobody wants to know its pages any more, unless it is dropped before.
struct Alarm(Option<AbortHandle>);

impl Alarm {
    /// Without a runtime there is nobody to do it.
    fn set(watch: &Watch, query: InterruptHandle) -> Self {
        let runtime = tokio::runtime::Handle::try_current().ok();
        let (at, touched) = (watch.deadline, Arc::clone(&watch.touched));
        Self(runtime.map(|runtime| {
            let alarm = runtime.spawn(async move {
                // Either says so.
                let _ = tokio::time::timeout_at(at.into(), touched.stopped()).await;
                query.interrupt();
            });
            alarm.abort_handle()
        }))
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if let Some(alarm) = &self.0 {
            alarm.abort();
        }
    }
}

fn open(replica: &Replica, limits: &QueryLimits, watch: &Arc<Watch>) -> Result<Conn, QueryError> {
    let options = OpenOptions {
        vfs: Some(VFS_NAME.into()),
        create: false,
        ..OpenOptions::default()
    };
    let conn = Conn::open(replica.name(), &options).map_err(sql_error)?;
    let bytes = |bytes: usize| i32::try_from(bytes).unwrap_or(i32::MAX);
    let most = limits
        .memory_bytes
        .or_else(|| memory::limit().map(|limit| limit / 2));
    let most = most.unwrap_or(u64::MAX);
    let watch = watch.clone();
    conn.with_rusqlite(|c| {
        rusqlite::vtab::series::load_module(c)?;
        linear::install(c)?;
        linear::limit_others(c)?;
        c.set_limit(Limit::SQLITE_LIMIT_LENGTH, bytes(limits.value_bytes))?;
        c.set_limit(
            Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH,
            bytes(limits.pattern_bytes),
        )?;
        c.progress_handler(LOOK_EVERY, Some(move || watch.is_over(most)))?;
        c.authorizer(Some(only_reads))
    })
    .map_err(sql_error)?;
    Ok(conn)
}

/// What could reach outside of the database. That the statement only reads is checked on the statement itself, because
/// virtual tables prepare statements of their own that would write if they were run.
fn only_reads(context: AuthContext<'_>) -> Authorization {
    match context.action {
        AuthAction::Attach { .. } | AuthAction::Detach { .. } => Authorization::Deny,
        AuthAction::Function { function_name } if function_name.eq_ignore_ascii_case("load_extension") => {
            Authorization::Deny
        }
        // FTS5 asks for it to notice changes by others.
        AuthAction::Pragma { pragma_name, .. } if !pragma_name.eq_ignore_ascii_case("data_version") => {
            Authorization::Deny
        }
        _ => Authorization::Allow,
    }
}

fn prepare(conn: &Conn, sql: &str) -> Result<Stmt, QueryError> {
    let (stmt, tail) = conn.prepare(sql, false).map_err(|e| match e.code {
        AUTH => QueryError::NotASelect,
        _ => sql_error(e),
    })?;
    let more = conn
        .prepare(&sql[tail..], false)
        .map_or(true, |(rest, _)| rest.is_some());
    match stmt {
        Some(stmt) if !more && stmt.readonly() && !stmt.is_explain() && stmt.column_count() > 0 => Ok(stmt),
        _ => Err(QueryError::NotASelect),
    }
}

/// SQLITE_AUTH: the authorizer said no.
const AUTH: i32 = 23;

fn sql_error(error: partial_sync_vfs::sqlite::Error) -> QueryError {
    QueryError::Sql(error.to_string())
}

/// Notes which pages are asked for.
struct Touching {
    reader: RevisionReader,
    watch: Arc<Watch>,
}

impl Touching {
    fn touch(&self, page: PageNo, sink: &dyn PageSink) -> Result<(), QueryError> {
        if Instant::now() >= self.watch.deadline {
            return Err(QueryError::Sql("out of time".into()));
        }
        if self.watch.touched.note(page) > self.watch.most {
            return Err(QueryError::TooMany(self.watch.most));
        }
        let data = self.reader.read(&[page])?;
        let sent = data.first().map(|bytes| sink.page(page, bytes));
        sent.transpose().map_err(|e| QueryError::Sql(e.to_string()))?;
        Ok(())
    }
}

impl PageSource for Touching {
    fn fetch(&self, miss: Miss, sink: Box<dyn PageSink>) {
        let touched = miss.pages.iter().try_for_each(|&page| self.touch(page, &*sink));
        sink.finish(touched.map_err(|error| {
            let text = io::Error::other(error.to_string());
            if matches!(error, QueryError::TooMany(_) | QueryError::Pages(_)) {
                self.watch.failure.lock().get_or_insert(error);
            }
            Arc::new(text) as SourceError
        }));
    }
}

/// The files of a query's database: the main one is a view, the others (there is a WAL, always empty) are in memory.
struct RevisionStorage {
    path: PathBuf,
    file: Arc<RevisionFile>,
    beside: MemoryStorage,
}

impl Storage for RevisionStorage {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn StorageFile>> {
        match path == self.path {
            true => Ok(self.file.clone()),
            false => self.beside.open(path, create),
        }
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(path == self.path || self.beside.exists(path)?)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.beside.remove(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.beside.rename(from, to)
    }

    fn sync_folder(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, _path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        Ok(Box::new(()))
    }
}

/// The database at the reader's revision, as a file. Writing to it is filling in what it has: nothing happens.
struct RevisionFile(RevisionReader);

impl StorageFile for RevisionFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let size = self.0.page_size();
        let mut done = 0;
        while done < buf.len() {
            let position = offset + done as u64;
            let page = PageNo::containing(position, size).filter(|page| self.0.at().db_size.contains(*page));
            let Some(page) = page else { break };
            let data = self.0.read(&[page]).map_err(io::Error::other)?;
            let Some(data) = data.first() else { break };
            let within = (position % u64::from(size.bytes())) as usize;
            let n = (data.len() - within).min(buf.len() - done);
            buf[done..done + n].copy_from_slice(&data[within..within + n]);
            done += n;
        }
        set_versions(&mut buf[..done], offset, WAL_MODE);
        Ok(done)
    }

    fn write_at(&self, _data: &[u8], _offset: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&self, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.at().db_size.bytes(self.0.page_size()))
    }
}
