//! A SQLite connection for SQL from the network: opened with everything that protects the server, watched while it
//! works, and reused only when nothing of one client can be left in it for the next.
//!
//! No instruction of SQLite's virtual machine is to take long, since deadlines are looked at between two: what takes the product
//! of two lengths is limited, or replaced (`linear`).
//!
//! Used on blocking threads only. Never checkpoints: the page history does, when it has seen the frames.

use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use partial_sync_transport::hrana;
use partial_sync_vfs::{
    VFS_NAME, register_vfs,
    sqlite::{
        foreign_keys::{is_violated, take_no_action},
        linear, memory,
    },
    temporary,
};
use rusqlite::{
    Connection, ErrorCode, InterruptHandle, OpenFlags, Statement, TransactionState,
    config::DbConfig,
    ffi,
    functions::FunctionFlags,
    hooks::{AuthContext, Authorization, Wal},
    limits::Limit,
    vtab::series,
};

use super::{
    error::{code, error, from_sqlite, stands},
    guard::{Verdict, judge, judge_keys, judge_text, writes_keys},
    options::HranaOptions,
    writers::{WriteTurn, Writers},
};
use crate::access::{CommitListener, DatabaseHandle};

/// Virtual machine steps between two looks at the clock: some ten microseconds.
const STEPS_BETWEEN_CHECKS: i32 = 2000;
/// The same for a client that may only read, whose memory is looked at too.
const READER_STEPS_BETWEEN_CHECKS: i32 = 100;

/// Bytes of a log that stay on the disk when it starts over: much more is there only if readers kept it from that.
const WAL_KEPT: i64 = 16 << 20;

const NOT_ROWS: &str = "triggers fire in this batch: only a client that may write, and asks for it with \"rows\": true, can \
     have them off";
const READS_ONLY: &str = "this client may not write: its token, or the database, is for reading only";

const TEMPORARY_FULL: &str = "the temporary files of statements take all the space they may: sort or group fewer rows at once, or \
     make an index that has them in order";
const NO_MEMORY: &str =
    "the memory that this server gives to SQLite is used up: try again later, or read less at once";

/// Which limit ended a statement.
pub(super) enum Limited {
    Time,
    /// All statements together have more than so many bytes.
    Memory(u64),
}

/// A connection and what its hooks note down.
pub(super) struct SqlConnection {
    sqlite: Connection,
    notes: Arc<Notes>,
    /// This client may not write.
    read_only: bool,
    /// How long the statement that runs may take.
    limit: Cell<Duration>,
    /// The longest wait for a lock.
    patience: Duration,
    writers: Arc<Writers>,
    /// From the first statement that may write until the transaction ends. After `sqlite`: who is next finds its locks free.
    turn: RefCell<Option<WriteTurn>>,
}

/// Written by SQLite's hooks, read by the code that runs statements.
#[derive(Default)]
struct Notes {
    /// When the statement is to be interrupted; held while it is.
    deadline: Mutex<Option<Instant>>,
    /// The deadline has struck.
    expired: AtomicBool,
    /// The statement was ended because all of them have so many bytes of memory; 0 = it was not.
    starved: AtomicU64,
    /// Anyone who asked has gone.
    cancelled: Mutex<Option<Arc<AtomicBool>>>,
    /// Since when the connection may read the database as it was then.
    reads_since: Mutex<Option<Instant>>,
    /// It writes, or waits to.
    writes: AtomicBool,
    /// What it read was ended: see [`Brake::end_old_read`].
    read_ended: AtomicBool,
    /// Because of that, a transaction was rolled back of which more may come.
    abandoned: AtomicBool,
    /// Something of this client is left in the connection.
    tainted: AtomicBool,
    /// Commits that wrote to the log.
    commits: AtomicU64,
    /// The statement that was prepared last changes the schema.
    changes_schema: AtomicBool,
    /// The statement that was prepared last writes a client's row of the project's table.
    one_row: AtomicBool,
    /// The statement that was prepared last makes or writes the table of keys.
    writes_keys: AtomicBool,
    /// Triggers and foreign-key actions are off: see [`SqlConnection::write_rows`].
    rows: AtomicBool,
    /// Why the guard refused the last statement it refused.
    refusal: Mutex<Option<String>>,
}

impl SqlConnection {
    /// Opens the database. `read_only` = this client may not write.
    pub(super) fn open(
        database: &DatabaseHandle,
        read_only: bool,
        options: &HranaOptions,
        writers: Arc<Writers>,
    ) -> Result<Self, hrana::Error> {
        let failed = |cause| {
            let path = database.path.display();
            tracing::error!(%path, %cause, "the SQL endpoint cannot open a database");
            let cause = from_sqlite(cause, None);
            hrana::Error {
                // SQLite's text would tell the client where the file is.
                message: "the server cannot open the database file; its log says why".to_owned(),
                ..cause
            }
        };
        let sqlite = Self::open_file(&database.path, database.read_only).map_err(failed)?;
        let stands = || stands(&*database.listener);
        // Before anything is read: what has taken the file's place would be read through the WAL of the file. And after
        // SQLite has opened the WAL, by its name too: it would be that of what has taken the file's place.
        stands()?;
        sqlite
            .busy_timeout(options.busy_timeout)
            .and_then(|()| sqlite.pragma_query_value(None, "schema_version", |_| Ok(())))
            .map_err(failed)?;
        stands()?;
        if !read_only {
            sqlite
                .pragma_update_and_check(None, "journal_size_limit", WAL_KEPT, |_| Ok(()))
                .map_err(failed)?;
        }
        if database.listener.makes_durable() {
            sqlite
                .pragma_update(None, "synchronous", "NORMAL")
                .map_err(failed)?;
        }
        Self::set_up(sqlite, read_only, options, writers).map_err(failed)
    }

    fn open_file(path: &Path, read_only: bool) -> rusqlite::Result<Connection> {
        let access = if read_only {
            OpenFlags::SQLITE_OPEN_READ_ONLY
        } else {
            OpenFlags::SQLITE_OPEN_READ_WRITE
        };
        // Serves the file with SQLite's own, and counts temporary files.
        register_vfs()
            .map_err(|_| rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_ERROR), None))?;
        let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE;
        Connection::open_with_flags_and_vfs(path, flags, VFS_NAME)
    }

    fn set_up(
        mut sqlite: Connection,
        read_only: bool,
        options: &HranaOptions,
        writers: Arc<Writers>,
    ) -> rusqlite::Result<Self> {
        // Raw pages, the schema table and shadow tables are not to be written from the network.
        sqlite.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        sqlite.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        sqlite.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, false)?;
        let bytes = |bytes: usize| i32::try_from(bytes).unwrap_or(i32::MAX);
        let mut value = options.value_bytes;
        if read_only {
            value = value.min(options.reader_value_bytes);
            sqlite.set_limit(
                Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH,
                bytes(options.reader_pattern_bytes),
            )?;
        }
        sqlite.set_limit(Limit::SQLITE_LIMIT_LENGTH, bytes(value))?;
        series::load_module(&sqlite)?;
        linear::install(&sqlite)?;
        if read_only {
            linear::limit_others(&sqlite)?;
            sqlite.pragma_update(None, "query_only", true)?;
        }
        let notes = Arc::new(Notes::default());
        // Also takes the place of SQLite's own automatic checkpoint, which is a log hook.
        let seen = notes.clone();
        sqlite.wal_hook(Some(move |_: &mut Wal, _| {
            seen.commits.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }))?;
        let seen = notes.clone();
        if read_only {
            let most = options
                .reader_memory_bytes
                .or_else(|| memory::limit().map(|limit| limit / 2));
            let most = most.unwrap_or(u64::MAX);
            sqlite.progress_handler(
                READER_STEPS_BETWEEN_CHECKS,
                Some(move || seen.starves(most) || seen.is_over()),
            )?;
        } else {
            sqlite.progress_handler(STEPS_BETWEEN_CHECKS, Some(move || seen.is_over()))?;
        }
        let seen = notes.clone();
        let busy_timeout_ms = u64::try_from(options.busy_timeout.as_millis()).unwrap_or(u64::MAX);
        sqlite.authorizer(Some(move |context: AuthContext<'_>| {
            if seen.rows.load(Ordering::Relaxed) && writes_keys(&context) {
                seen.writes_keys.store(true, Ordering::Relaxed);
                return Authorization::Allow;
            }
            match judge(&context, read_only, busy_timeout_ms) {
                Verdict::Allow => Authorization::Allow,
                Verdict::AllowAndTaint => {
                    seen.tainted.store(true, Ordering::Relaxed);
                    Authorization::Allow
                }
                Verdict::Look => {
                    seen.changes_schema.store(true, Ordering::Relaxed);
                    Authorization::Allow
                }
                Verdict::OneRow => {
                    seen.one_row.store(true, Ordering::Relaxed);
                    Authorization::Allow
                }
                Verdict::Refuse(why) => {
                    *seen.refusal.lock() = Some(why);
                    Authorization::Deny
                }
            }
        }))?;
        let seen = notes.clone();
        let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DIRECTONLY;
        sqlite.create_scalar_function("partial_sync_rows", 0, flags, move |_| {
            match seen.rows.load(Ordering::Relaxed) {
                true => Ok(1),
                false if read_only => Err(rusqlite::Error::UserFunctionError(READS_ONLY.into())),
                false => Err(rusqlite::Error::UserFunctionError(NOT_ROWS.into())),
            }
        })?;
        Ok(Self {
            sqlite,
            notes,
            read_only,
            limit: Cell::default(),
            patience: options.busy_timeout,
            writers,
            turn: RefCell::default(),
        })
    }

    /// To be called before a statement runs: waits until it is this connection's turn to write, if the statement may write. A transaction that has read does not wait:
    /// what it has read would be old when its turn comes, and SQLite says so.
    pub(super) fn queue(&self, statement: &Statement<'_>) -> Result<(), hrana::Error> {
        if self.is_read_ended() {
            return Err(error("SQLITE_INTERRUPT", "interrupted"));
        }
        let mut turn = self.turn.borrow_mut();
        if self.read_only || statement.readonly() || turn.is_some() {
            return Ok(());
        }
        *turn = self.writers.try_take();
        self.notes.writes.store(turn.is_some(), Ordering::Relaxed);
        if turn.is_some() || self.state() != TransactionState::None {
            return Ok(());
        }
        self.notes.writes.store(true, Ordering::Relaxed);
        let asked = self
            .sqlite
            .pragma_query_value(None, "busy_timeout", |row| row.get::<_, u32>(0));
        let patience = self
            .patience
            .min(Duration::from_millis(asked.unwrap_or(0).into()));
        let until = Instant::now() + self.limit.get();
        *turn = self.writers.take(patience, until, || self.notes.is_cancelled());
        if turn.is_none() {
            return Err(error("SQLITE_BUSY", "database is locked"));
        }
        // It waited, it did not run.
        self.start_clock(self.limit.get());
        Ok(())
    }

    /// A statement has ended: lets the next one write, unless there is more to write in the transaction that is open.
    pub(super) fn leave_queue(&self) {
        let state = self.state();
        if state != TransactionState::Write {
            self.turn.take();
        }
        self.notes
            .writes
            .store(state == TransactionState::Write, Ordering::Relaxed);
        if state == TransactionState::None {
            let mut since = self.notes.reads_since.lock();
            *since = None;
            self.notes.read_ended.store(false, Ordering::Relaxed);
        }
    }

    /// Whether what the open transaction reads, or the statement outside of one, was ended because of the log. Nothing runs in it
    /// after that.
    pub(super) fn is_read_ended(&self) -> bool {
        self.notes.read_ended.load(Ordering::Relaxed) || self.notes.abandoned.load(Ordering::Relaxed)
    }

    /// Rolls back the transaction whose reads were ended, if there is one, so that it holds nothing any more.
    pub(super) fn abandon(&self) {
        if self.sqlite.is_autocommit() {
            return;
        }
        self.notes.abandoned.store(true, Ordering::Relaxed);
        if let Err(cause) = self.sqlite.execute_batch("ROLLBACK") {
            tracing::error!(%cause, "a transaction cannot be rolled back before its connection closes");
        }
    }

    fn state(&self) -> TransactionState {
        // It fails only for a database that does not exist.
        let state = self.sqlite.transaction_state(Some("main"));
        state.unwrap_or(TransactionState::None)
    }

    /// Until the guard goes, rows are written as they are: triggers do not fire and foreign keys do not act; they refuse only
    /// if they are to be `enforced`. A client that may not write gets no such thing, and finds out by `partial_sync_rows()`.
    /// Whatever transaction is open when the guard goes is rolled back, so that nobody else's statements ever run so.
    pub(super) fn write_rows(&self, enforced: bool) -> Result<Option<RowsOnly<'_>>, hrana::Error> {
        if self.read_only {
            return Ok(None);
        }
        if !self.sqlite.is_autocommit() {
            return Err(error(
                code::BAD_REQUEST,
                "a batch with `rows` cannot begin inside a transaction: send it in a stream of its own",
            ));
        }
        if enforced && self.notes.tainted.load(Ordering::Relaxed) {
            // SQLite may have kept actions that it compiled.
            return Err(error(
                code::BAD_REQUEST,
                "a batch with `foreign_keys` cannot follow pragmas: send it in a stream of its own",
            ));
        }
        let foreign_keys = self
            .sqlite
            .db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY)
            .map_err(|e| self.explain(e))?;
        let guard = RowsOnly {
            connection: self,
            foreign_keys,
        };
        take_no_action(&self.sqlite, enforced);
        self.act(false, enforced).map_err(|e| self.explain(e))?;
        self.notes.rows.store(true, Ordering::Relaxed);
        Ok(Some(guard))
    }

    fn act(&self, triggers: bool, foreign_keys: bool) -> rusqlite::Result<()> {
        self.sqlite
            .set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, triggers)?;
        self.sqlite
            .set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, foreign_keys)?;
        Ok(())
    }

    /// Whether the open transaction could not be committed as it is, for a foreign key.
    pub(super) fn violates_keys(&self) -> bool {
        is_violated(&self.sqlite)
    }

    /// SQLite's connection.
    pub(super) fn sqlite(&self) -> &Connection {
        &self.sqlite
    }

    /// What breaks the statement that is running.
    pub(super) fn interrupt_handle(&self) -> InterruptHandle {
        self.sqlite.get_interrupt_handle()
    }

    /// What ends the statement that is running, from another thread.
    pub(super) fn brake(&self) -> Brake {
        Brake {
            handle: self.sqlite.get_interrupt_handle(),
            notes: self.notes.clone(),
        }
    }

    /// Commits so far.
    pub(super) fn commits(&self) -> u64 {
        self.notes.commits.load(Ordering::Relaxed)
    }

    /// From here on statements stop when `flag` is set; `None` = nobody can cancel them.
    pub(super) fn watch(&self, flag: Option<Arc<AtomicBool>>) {
        *self.notes.cancelled.lock() = flag;
    }

    /// The statement that runs next may take this long.
    pub(super) fn start_clock(&self, limit: Duration) {
        self.limit.set(limit);
        self.notes.reads_since.lock().get_or_insert_with(Instant::now);
        *self.notes.deadline.lock() = Instant::now().checked_add(limit);
        self.notes.expired.store(false, Ordering::Relaxed);
        self.notes.starved.store(0, Ordering::Relaxed);
        *self.notes.refusal.lock() = None;
        temporary::take_refusal();
    }

    /// No statement runs any more. What ended the last one, if it was one of the limits.
    pub(super) fn stop_clock(&self) -> Option<Limited> {
        *self.notes.deadline.lock() = None;
        match self.notes.starved.load(Ordering::Relaxed) {
            0 if self.notes.expired.load(Ordering::Relaxed) => Some(Limited::Time),
            0 => None,
            bytes => Some(Limited::Memory(bytes)),
        }
    }

    /// Forgets what is known of the statement prepared before.
    pub(super) fn before_prepare(&self) {
        self.notes.changes_schema.store(false, Ordering::Relaxed);
        self.notes.one_row.store(false, Ordering::Relaxed);
        self.notes.writes_keys.store(false, Ordering::Relaxed);
    }

    /// Looks at a statement that was prepared and is about to run, and says whether it may change one row only.
    pub(super) fn after_prepare<'t>(
        &self,
        text: impl FnOnce() -> Option<Cow<'t, str>>,
    ) -> Result<bool, hrana::Error> {
        let noted = |note: &AtomicBool| note.load(Ordering::Relaxed);
        let judge: fn(&str) -> Option<String> = match () {
            () if noted(&self.notes.writes_keys) => judge_keys,
            () if noted(&self.notes.changes_schema) => judge_text,
            () => return Ok(noted(&self.notes.one_row)),
        };
        let why = match text() {
            Some(text) => judge(&text),
            None => Some("the statement is too long to be looked at".to_owned()),
        };
        match why {
            Some(why) => Err(error("SQLITE_AUTH", why)),
            None => Ok(noted(&self.notes.one_row)),
        }
    }

    /// A typed error for what SQLite said.
    pub(super) fn explain(&self, cause: rusqlite::Error) -> hrana::Error {
        let code = cause.sqlite_error_code();
        let mut error = from_sqlite(cause, self.notes.refusal.lock().take());
        match code {
            Some(ErrorCode::DiskFull) if temporary::take_refusal() => {
                error.message = TEMPORARY_FULL.to_owned()
            }
            Some(ErrorCode::OutOfMemory) => error.message = NO_MEMORY.to_owned(),
            _ => {}
        }
        error
    }

    /// Whether the next client would find it as if it had just been opened.
    pub(super) fn is_pristine(&self) -> bool {
        self.sqlite.is_autocommit()
            && self.sqlite.total_changes() == 0
            && !self.notes.tainted.load(Ordering::Relaxed)
            && !self.sqlite.is_busy()
            && !self.is_read_ended()
    }
}

/// While it lives, triggers and foreign-key actions are off, whether or not foreign keys are enforced.
pub(super) struct RowsOnly<'c> {
    connection: &'c SqlConnection,
    /// Whether foreign keys were enforced before.
    foreign_keys: bool,
}

impl Drop for RowsOnly<'_> {
    fn drop(&mut self) {
        let connection = self.connection;
        connection.notes.rows.store(false, Ordering::Relaxed);
        let ended = connection.sqlite.is_autocommit() || connection.sqlite.execute_batch("ROLLBACK").is_ok();
        take_no_action(&connection.sqlite, false);
        let restored = connection.act(true, self.foreign_keys).is_ok();
        if !ended || !restored {
            tracing::error!("a connection could not be made as it was; it is not used for another client");
            connection.notes.tainted.store(true, Ordering::Relaxed);
        }
        connection.leave_queue();
    }
}

impl Notes {
    fn starves(&self, most: u64) -> bool {
        let starves = memory::in_statements() > most;
        if starves {
            self.starved.store(most, Ordering::Relaxed);
        }
        starves
    }

    fn is_over(&self) -> bool {
        if self
            .deadline
            .lock()
            .is_some_and(|deadline| Instant::now() >= deadline)
        {
            self.expired.store(true, Ordering::Relaxed);
            return true;
        }
        self.is_cancelled() || self.read_ended.load(Ordering::Relaxed)
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled
            .lock()
            .as_ref()
            .is_some_and(|flag| flag.load(Ordering::Relaxed))
    }
}

/// See [`SqlConnection::brake`].
pub(super) struct Brake {
    handle: InterruptHandle,
    notes: Arc<Notes>,
}

impl Brake {
    pub(super) fn interrupt(&self) {
        self.handle.interrupt();
    }

    /// Ends what is read if it keeps a log from being emptied that has become too large; says whether it did. A short read may.
    /// Nothing runs in its transaction after it.
    pub(super) fn end_old_read(&self, log: &dyn CommitListener, options: &HranaOptions) -> bool {
        // While this is locked, no other read begins, which would be the one that is ended.
        let since = self.notes.reads_since.lock();
        let ends = since.is_some_and(|since| since.elapsed() >= options.read_grace)
            && !self.notes.writes.load(Ordering::Relaxed)
            && log.wal_bytes() > options.wal_bytes;
        if ends {
            self.notes.read_ended.store(true, Ordering::Relaxed);
            self.handle.interrupt();
        }
        ends
    }

    /// Ends the statement if it should have ended. It looks at the clock itself, but some instructions only ask whether they were
    /// interrupted.
    pub(super) fn end_what_is_late(&self) {
        // While this is locked, no other statement begins, which would be the one that is interrupted.
        let deadline = self.notes.deadline.lock();
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            self.notes.expired.store(true, Ordering::Relaxed);
            self.handle.interrupt();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v1_a_statement_that_does_not_look_at_the_clock_is_ended_from_outside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.db");
        Connection::open(&path).unwrap();
        let file = SqlConnection::open_file(&path, false).unwrap();
        let connection =
            SqlConnection::set_up(file, false, &HranaOptions::default(), Arc::default()).unwrap();
        let brake = connection.brake();
        // Too few steps for a look at the clock.
        let mut statement = connection.sqlite().prepare("VALUES (1), (2), (3)").unwrap();
        let mut rows = statement.query([]).unwrap();
        connection.start_clock(Duration::from_secs(600));
        rows.next().unwrap().unwrap();
        brake.end_what_is_late();
        rows.next().unwrap().unwrap();
        connection.start_clock(Duration::ZERO);
        brake.end_what_is_late();
        let ended = connection.explain(rows.next().unwrap_err());
        assert_eq!(ended.code.as_deref(), Some("SQLITE_INTERRUPT"));
        assert!(matches!(connection.stop_clock(), Some(Limited::Time)));
        // And nothing that runs later.
        drop(rows);
        brake.end_what_is_late();
        connection.start_clock(Duration::from_secs(600));
        assert_eq!(statement.query_row([], |row| row.get::<_, i64>(0)).unwrap(), 1);
        assert!(connection.stop_clock().is_none());
    }
}
