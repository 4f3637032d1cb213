//! A connection to a local database or a replica: SQL in, rows out, local writes recorded.
//!
//! Names are rusqlite's where it has them. On a replica every statement goes through the recorder
//! ([`crate::capture`]); nothing here may run a user's statement past it.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use partial_sync_transport::tokens::first;
use partial_sync_vfs::sqlite::{self, Conn};

use crate::{
    error::{Error, Result},
    sql::{
        shared_connection::{ConnectionOptions, SharedConnection},
        statement::{FromRow, Params, Row, Statement},
    },
};

/// A connection. Clones are the same connection. It closes when the last clone and the last of its statements are gone,
/// and an open transaction is then rolled back.
///
/// It may be shared between threads, which then take turns; threads that want to work at the same time, or to have
/// transactions of their own, take a connection each.
#[derive(Clone)]
pub struct Connection {
    inner: Arc<SharedConnection>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connection").field(&self.inner.conn).finish()
    }
}

impl Connection {
    pub(crate) fn open(options: ConnectionOptions) -> Result<Self> {
        Ok(Self {
            inner: Arc::new(SharedConnection::open(options)?),
        })
    }

    pub(crate) fn conn(&self) -> &Conn {
        &self.inner.conn
    }

    /// Compiles the first statement of `sql`; an error when there is none.
    pub fn prepare(&self, sql: &str) -> Result<Statement> {
        match self.prepare_next(sql, true)?.0 {
            Some(statement) => Ok(statement),
            None => Err(sqlite::Error::new(sqlite::codes::MISUSE, "the SQL text holds no statement").into()),
        }
    }

    /// Compiles the first statement of `sql` (`None` when only white space and comments are left), and gives the byte at
    /// which the next one begins: the end of `sql` when none does. What a driver needs to run a script statement by statement.
    pub fn prepare_first(&self, sql: &str) -> Result<(Option<Statement>, usize)> {
        let (statement, tail) = self.prepare_next(sql, false)?;
        let next = first(&sql[tail..]).map_or(sql.len(), |token| tail + token.start);
        Ok((statement, next))
    }

    fn prepare_next(&self, sql: &str, persistent: bool) -> Result<(Option<Statement>, usize)> {
        let (prepared, tail) = self.inner.prepare(sql, persistent)?;
        let statement = prepared.map(|(stmt, class)| Statement::new(self.inner.clone(), stmt, class));
        Ok((statement, tail))
    }

    /// Runs one statement and gives the number of rows it changed.
    pub fn execute(&self, sql: &str, params: impl Params) -> Result<u64> {
        self.prepare(sql)?.execute(params)
    }

    /// Runs every statement of `sql`, throwing rows away; stops at the first error.
    pub fn execute_batch(&self, sql: &str) -> Result<()> {
        let mut rest = sql;
        while !rest.is_empty() {
            let (statement, tail) = self.prepare_next(rest, false)?;
            if let Some(mut statement) = statement {
                statement.execute(())?;
            }
            rest = &rest[tail..];
        }
        Ok(())
    }

    /// Runs a query and maps its first row; [`Error::NoRows`] when there is none.
    pub fn query_row<T>(
        &self,
        sql: &str,
        params: impl Params,
        map: impl FnOnce(&Row<'_>) -> Result<T>,
    ) -> Result<T> {
        self.prepare(sql)?.query_row(params, map)
    }

    /// Runs a query and gives all of its rows as tuples or single values.
    ///
    /// ```no_run
    /// # fn main() -> partial_sync::Result<()> {
    /// # let connection = partial_sync::Database::builder("a.db").connect()?.connection()?;
    /// let towns: Vec<(i64, String)> = connection.query("SELECT id, name FROM towns WHERE country = ?", ["DE"])?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn query<T: FromRow>(&self, sql: &str, params: impl Params) -> Result<Vec<T>> {
        let mut statement = self.prepare(sql)?;
        let mut rows = statement.query(params)?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            all.push(T::from_row(&row)?);
        }
        Ok(all)
    }

    /// Rows that the last finished INSERT, UPDATE or DELETE changed itself.
    pub fn changes(&self) -> u64 {
        self.inner.changes()
    }

    /// Rows changed since the connection was opened, trigger and foreign-key effects included.
    pub fn total_changes(&self) -> u64 {
        self.inner.total_changes()
    }

    /// Rowid of the last row inserted into a table with rowids.
    pub fn last_insert_rowid(&self) -> i64 {
        self.inner.conn.last_insert_rowid()
    }

    /// True outside of transactions. One that SQLite has rolled back by itself counts until it is ended, see
    /// [`is_transaction_lost`](Self::is_transaction_lost).
    pub fn is_autocommit(&self) -> bool {
        let transactions = &self.inner.transactions;
        (self.inner.conn.is_autocommit() || transactions.is_left()) && !transactions.is_lost()
    }

    /// True when SQLite has rolled the transaction back by itself (after a timeout, an interrupt, `OR ROLLBACK`, an I/O error,
    /// a full disk) and it was not ended since. Statements are refused meanwhile
    /// ([`Error::is_transaction_lost`]): `ROLLBACK` ends it, and so does `COMMIT`, which fails.
    pub fn is_transaction_lost(&self) -> bool {
        self.inner.transactions.is_lost()
    }

    /// Takes a transaction that SQLite has rolled back by itself for ended, without the `ROLLBACK` that usually says so: for a
    /// language in which the error of the statement at which that happened is what ends it.
    pub fn end_lost_transaction(&self) {
        self.inner.transactions.end();
    }

    /// Rolls back the transaction that is open, if one is, for a caller who has another error to tell. What an interrupt keeps
    /// from being rolled back now is rolled back before the next statement.
    pub fn undo_transaction(&self) {
        if self.is_autocommit() || self.execute_batch("ROLLBACK").is_ok() {
            return;
        }
        // SQLite may have rolled it back already, and only that could not be said.
        self.end_lost_transaction();
        if !self.inner.conn.is_autocommit() {
            self.inner.transactions.leave();
        }
    }

    /// Undoes what came after a savepoint, and ends the savepoint, for a caller who has another error to tell. What an interrupt
    /// keeps from being undone now is undone before the next statement; nothing happens where the savepoint is gone.
    pub fn undo_after(&self, savepoint: &str) {
        let _ = self.inner.undo_after(savepoint);
    }

    /// Sets how long a statement waits for a lock that another connection holds. Default: 5 seconds.
    pub fn busy_timeout(&self, timeout: Duration) -> Result<()> {
        Ok(self.inner.conn.busy_timeout(timeout)?)
    }

    /// Until when statements may run on this connection. What runs when it passes, network waits and waits for locks
    /// included, fails as interrupted, and so does what begins later. `None`: for ever, as at the start.
    pub fn set_deadline(&self, deadline: Option<Instant>) -> Result<()> {
        Ok(self.inner.conn.set_deadline(deadline)?)
    }

    /// Runs `work`, whose statements on this connection together may take so long, as with [`set_deadline`](Self::set_deadline).
    /// `None`: as long as they like.
    pub fn within<T, E: From<Error>>(
        &self,
        limit: Option<Duration>,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let Some(deadline) = limit.and_then(|limit| Instant::now().checked_add(limit)) else {
            return work();
        };
        self.set_deadline(Some(deadline))?;
        let result = work();
        self.set_deadline(None)?;
        result
    }

    /// Runs `work` on this thread, where nothing may wait: what would wait for a page that is not here, for a lock or for
    /// a pull, or take more than about `steps` of SQLite's virtual machine (or, unless `steps` is `u32::MAX`, have a value of
    /// more than a mebibyte), fails with [`Error::WouldWait`]. The transaction continues and bound values stay; run the statement
    /// again where it may wait.
    ///
    /// For statements that only read: writing to disk is not held back, and a write that fails so may roll back its transaction.
    pub fn without_waiting<T>(&self, steps: u32, work: impl FnOnce() -> Result<T>) -> Result<T> {
        match self.inner.conn.without_waiting(steps, work)? {
            // Also when all went well: `PRAGMA integrity_check` gives a page that it could not have as a row.
            (_, true) => Err(Error::WouldWait),
            (Err(error), _) if steps != u32::MAX && error.sqlite_code() == sqlite::codes::TOOBIG => {
                Err(Error::WouldWait)
            }
            (result, _) => result,
        }
    }

    /// Keeps other threads off this connection until the guard is dropped: many small calls in a row cost less so.
    pub fn hold(&self) -> sqlite::Held<'_> {
        self.inner.conn.hold()
    }

    /// Something that breaks what runs on this connection, network waits included, from any thread.
    pub fn interrupt_handle(&self) -> sqlite::InterruptHandle {
        self.inner.conn.interrupt_handle()
    }

    /// Breaks what runs on this connection now.
    pub fn interrupt(&self) {
        self.inner.conn.interrupt();
    }

    /// Begins a deferred transaction.
    pub fn transaction(&self) -> Result<Transaction<'_>> {
        self.transaction_with(TransactionBehavior::Deferred)
    }

    /// Begins a transaction.
    pub fn transaction_with(&self, behavior: TransactionBehavior) -> Result<Transaction<'_>> {
        self.execute_batch(match behavior {
            TransactionBehavior::Deferred => "BEGIN DEFERRED",
            TransactionBehavior::Immediate => "BEGIN IMMEDIATE",
            TransactionBehavior::Exclusive => "BEGIN EXCLUSIVE",
        })?;
        Ok(Transaction {
            connection: self,
            open: true,
        })
    }

    /// Closes this handle. The connection itself closes when its statements and clones are gone too.
    pub fn close(self) -> Result<()> {
        drop(self);
        Ok(())
    }
}

/// When a transaction takes its locks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TransactionBehavior {
    /// Its snapshot at the first statement, the write lock at the first write.
    #[default]
    Deferred,
    /// Both at once.
    Immediate,
    /// In WAL mode the same as immediate.
    Exclusive,
}

/// A transaction; rolled back when dropped without [`commit`](Self::commit). Use it as the connection that it is on.
#[derive(Debug)]
pub struct Transaction<'c> {
    connection: &'c Connection,
    open: bool,
}

impl Transaction<'_> {
    /// Makes its changes permanent. After an error the transaction is rolled back.
    pub fn commit(mut self) -> Result<()> {
        let committed = self.connection.execute_batch("COMMIT");
        self.open = committed.is_err();
        committed
    }

    /// Undoes its changes.
    pub fn rollback(mut self) -> Result<()> {
        self.open = false;
        self.connection.execute_batch("ROLLBACK")
    }
}

impl std::ops::Deref for Transaction<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if self.open {
            self.connection.undo_transaction();
        }
    }
}

/// For [`Connection::query_row`] where no row is an answer too.
pub trait OptionalRow<T> {
    /// Turns [`Error::NoRows`] into `None`.
    fn optional(self) -> Result<Option<T>>;
}

impl<T> OptionalRow<T> for Result<T> {
    fn optional(self) -> Result<Option<T>> {
        match self {
            Ok(value) => Ok(Some(value)),
            Err(Error::NoRows) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
