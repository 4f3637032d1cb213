//! A connection and its recorder, as its handles and statements share them: what runs on it goes through the recorder, and
//! what is known of its transaction.

use std::{any::Any, path::PathBuf, sync::Arc, time::Duration};

use partial_sync_vfs::sqlite::{self, Conn, OpenOptions, Step, Stmt, codes};

use crate::{
    capture::{
        Arguments, Capture, CaptureOptions,
        classify::{self, StatementClass},
    },
    error::Result,
    sql::{
        kept::Kept,
        transaction::{Admitted, Control, Transactions, cannot_be_undone},
    },
};

/// How to open a [`Connection`](crate::Connection).
pub(crate) struct ConnectionOptions {
    pub path: PathBuf,
    /// Name of a registered VFS.
    pub vfs: Option<String>,
    /// Record local changes.
    pub capture: Option<CaptureOptions>,
    pub busy_timeout: Duration,
    /// Lives at least as long as the connection.
    pub keep_alive: Option<Arc<dyn Any + Send + Sync>>,
}

/// See the module.
pub(crate) struct SharedConnection {
    // Statements inside `capture` go before the connection, the connection before what keeps its VFS alive.
    capture: Option<Capture>,
    pub(crate) transactions: Transactions,
    pub(crate) conn: Conn,
    _keep_alive: Option<Arc<dyn Any + Send + Sync>>,
}

/// Loads what SQLite's library does not have built in and users expect: `generate_series`.
pub(crate) fn load_extras(conn: &Conn) -> Result<()> {
    Ok(conn.with_rusqlite(|c| rusqlite::vtab::series::load_module(c))?)
}

/// How a statement came out.
pub(crate) enum Ran {
    /// It stands on a row.
    Row,
    /// It is at its end.
    Done,
    /// It is at its end, and these are its rows.
    Kept(Kept),
}

impl SharedConnection {
    pub(crate) fn open(options: ConnectionOptions) -> Result<Self> {
        let open = OpenOptions {
            vfs: options.vfs,
            busy_timeout: options.busy_timeout,
            ..OpenOptions::default()
        };
        let conn = Conn::open(&options.path, &open)?;
        // The library is built with foreign keys on; SQLite's own default, which users know, is off.
        conn.execute_batch("PRAGMA foreign_keys = OFF")?;
        load_extras(&conn)?;
        let capture = match options.capture {
            Some(options) => Some(Capture::install(&conn, options)?),
            None => None,
        };
        Ok(Self {
            capture,
            transactions: Transactions::default(),
            conn,
            _keep_alive: options.keep_alive,
        })
    }

    /// Compiles the first statement of `sql` and says how to run it.
    pub(crate) fn prepare(
        &self,
        sql: &str,
        persistent: bool,
    ) -> Result<(Option<(Stmt, StatementClass)>, usize)> {
        if let Some(capture) = &self.capture {
            return capture.prepare(&self.conn, sql, persistent);
        }
        let (stmt, tail) = self.conn.prepare(sql, persistent)?;
        let prepared = stmt.map(|stmt| {
            let class = Control::of(&stmt).map_or(StatementClass::Plain, StatementClass::Control);
            (stmt, class)
        });
        Ok((prepared, tail))
    }

    /// Runs a statement to its next row, or, one that writes, to its end.
    pub(crate) fn run(
        &self,
        stmt: &mut Stmt,
        class: &mut StatementClass,
        arguments: Option<&Arguments>,
    ) -> Result<Ran> {
        let Self {
            transactions, conn, ..
        } = self;
        // What is seen of the transaction before and after is this statement's doing.
        let _held = conn.hold();
        if let Some(savepoint) = transactions.take_left_after(stmt) {
            self.undo_after(&savepoint).map_err(|_| cannot_be_undone())?;
        }
        let Admitted::Run(before) = transactions.admit(conn, stmt, class.control())? else {
            return Ok(Ran::Done);
        };
        let ran = self.run_admitted(stmt, class, arguments);
        if ran.is_err() && self.capture.as_ref().is_some_and(Capture::take_left) {
            transactions.leave();
        }
        transactions.ran(conn, &before, class.control(), &ran);
        ran
    }

    /// Undoes what came after a savepoint of the open transaction, and ends the savepoint. Where an interrupt keeps it from that,
    /// it is done before the next statement.
    pub(crate) fn undo_after(&self, savepoint: &str) -> Result<()> {
        let _held = self.conn.hold();
        if self.conn.is_autocommit() || self.transactions.is_left() {
            return Ok(());
        }
        let undone = ["ROLLBACK TO", "RELEASE"].iter().try_for_each(|what| {
            match self.prepare(&format!("{what} \"{savepoint}\""), false)?.0 {
                Some((mut stmt, mut class)) => self.run(&mut stmt, &mut class, None).map(drop),
                None => Ok(()),
            }
        });
        match undone {
            Err(error) if error.is_interrupted() => {
                self.transactions.leave_after(savepoint);
                Err(error)
            }
            // There is no such savepoint.
            _ => Ok(()),
        }
    }

    fn run_admitted(
        &self,
        stmt: &mut Stmt,
        class: &mut StatementClass,
        arguments: Option<&Arguments>,
    ) -> Result<Ran> {
        match &self.capture {
            Some(capture) if !class.is_plain() => {
                let none = Arguments::default();
                let arguments = arguments.unwrap_or(&none);
                capture.run(&self.conn, stmt, class, arguments).map(Ran::Kept)
            }
            _ if stmt.readonly() => Ok(match stmt.step()? {
                Step::Row => Ran::Row,
                Step::Done => Ran::Done,
            }),
            Some(_) => run_unrecorded(&self.conn, stmt).map(Ran::Kept),
            None => Kept::drain(stmt).map(Ran::Kept),
        }
    }

    pub(crate) fn changes(&self) -> u64 {
        match &self.capture {
            Some(capture) => capture.changes(&self.conn),
            None => self.conn.changes(),
        }
    }

    pub(crate) fn total_changes(&self) -> u64 {
        match &self.capture {
            Some(capture) => capture.total_changes(&self.conn),
            None => self.conn.total_changes(),
        }
    }
}

/// Runs a statement that writes, but nothing that is recorded.
fn run_unrecorded(conn: &Conn, stmt: &mut Stmt) -> Result<Kept> {
    if !conn.is_autocommit() {
        // What full-text tables have in memory they write when a savepoint begins, that of this statement perhaps, and would be taken
        // for it. Where a statement that writes is running, as one does whose function runs this, there is no savepoint.
        let _ = classify::internal(|| {
            conn.execute_batch("SAVEPOINT partial_sync_statement; RELEASE partial_sync_statement")
        });
    }
    match classify::without_writing_main(|| Kept::drain(stmt)) {
        Some(rows) => rows,
        None => {
            let _ = stmt.reset();
            let message = "the statement would write to the replica now, and did not when it was prepared: the schema has \
                           changed; prepare it again";
            Err(sqlite::Error::new(codes::SCHEMA, message).into())
        }
    }
}
