//! The recorder of one connection: says how each statement is to be run, and runs those that are recorded.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;
use partial_sync_vfs::sqlite::{self, Conn, Stmt, codes};
use rusqlite::{config::DbConfig, functions::FunctionFlags};

use super::{
    arguments::Arguments,
    attach,
    classify::{self, StatementClass},
    hook::{self, Buffer},
    run::Recording,
    state::{CaptureOptions, Counters, RecorderState, Shared},
};
use crate::{
    error::Result,
    sql::{kept::Kept, transaction::Control},
};

/// The recorder of one connection.
pub(crate) struct Capture {
    shared: Shared,
    state: Mutex<RecorderState>,
}

impl Capture {
    /// Installs the recorder on a connection that nothing has been prepared on.
    pub(crate) fn install(conn: &Conn, options: CaptureOptions) -> Result<Self> {
        sqlite::check_build()?;
        let buffer = Arc::new(Mutex::new(Buffer::default()));
        let counters = Arc::new(Counters::default());
        conn.set_preupdate_hook(Some(hook::hook(buffer.clone())));
        conn.with_rusqlite(|c| {
            let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_INNOCUOUS;
            let (weak, shared) = (conn.downgrade(), counters.clone());
            c.create_scalar_function("changes", 0, flags, move |_| {
                Ok(weak.upgrade().map_or(0, |conn| shared.changes(&conn) as i64))
            })?;
            let (weak, shared) = (conn.downgrade(), counters.clone());
            c.create_scalar_function("total_changes", 0, flags, move |_| {
                Ok(weak
                    .upgrade()
                    .map_or(0, |conn| shared.total_changes(&conn) as i64))
            })?;
            // The tables behind virtual ones are not recorded, so nobody may write to them past their owner.
            c.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
            c.authorizer(Some(classify::authorize))
        })?;
        Ok(Self {
            shared: Shared {
                buffer,
                counters,
                options,
                is_left: AtomicBool::new(false),
            },
            state: Mutex::new(RecorderState::new(conn)?),
        })
    }

    /// `changes()` as the user is to see it.
    pub(crate) fn changes(&self, conn: &Conn) -> u64 {
        self.shared.counters.changes(conn)
    }

    /// `total_changes()` as the user is to see it.
    pub(crate) fn total_changes(&self, conn: &Conn) -> u64 {
        self.shared.counters.total_changes(conn)
    }

    /// Whether the statement that has just been run has left an open transaction that must not be committed.
    pub(crate) fn take_left(&self) -> bool {
        self.shared.is_left.swap(false, Ordering::Relaxed)
    }

    /// Compiles the first statement of `sql` and says how to run it.
    pub(crate) fn prepare(
        &self,
        conn: &Conn,
        sql: &str,
        persistent: bool,
    ) -> Result<(Option<(Stmt, StatementClass)>, usize)> {
        if let Some(refusal) = classify::refuse_vacuum(sql) {
            return Err(refusal.into());
        }
        let (prepared, observed) = classify::observe(|| conn.prepare(sql, persistent));
        let (stmt, tail) = match (prepared, observed.refusal.clone()) {
            (Err(_), Some(refusal)) => return Err(refusal.into()),
            (prepared, _) => prepared?,
        };
        let stmt = match stmt {
            Some(stmt) => {
                let class = match Control::of(&stmt) {
                    Some(control) => StatementClass::Control(control),
                    None => observed.classify(&stmt.sql(), stmt.readonly(), stmt.is_explain())?,
                };
                Some((stmt, class))
            }
            None => None,
        };
        Ok((stmt, tail))
    }

    /// Runs a statement whose class is not [`StatementClass::Plain`] to its end, recorded, and gives its rows.
    pub(crate) fn run(
        &self,
        conn: &Conn,
        stmt: &mut Stmt,
        class: &mut StatementClass,
        arguments: &Arguments,
    ) -> Result<Kept> {
        // The connection is held, so only a function that a recorded statement calls finds it locked.
        let Some(mut state) = self.state.try_lock() else {
            let message = "a SQL function cannot write or end a transaction on the connection that called it while a \
                           statement that writes to the replica runs there; use another connection";
            return Err(sqlite::Error::new(codes::MISUSE, message).into());
        };
        let mut run = Recording {
            conn,
            shared: &self.shared,
            state: &mut state,
        };
        if conn.is_autocommit() {
            // Whatever waited belonged to a transaction that SQLite rolled back by itself.
            run.forget();
        }
        let rows = match class {
            StatementClass::Plain | StatementClass::Control(Control::Begin | Control::Rollback) => {
                Kept::drain(stmt)
            }
            StatementClass::Control(Control::RollbackTo(_)) => {
                Kept::drain(stmt).inspect(|_| run.forget_waiting())
            }
            StatementClass::Control(Control::Commit | Control::Savepoint(_) | Control::Release(_)) => {
                run.flush().and_then(|()| Kept::drain(stmt))
            }
            StatementClass::Attach => attach::check(conn, stmt).and_then(|()| Kept::drain(stmt)),
            StatementClass::Write(targets) => run.write(stmt, targets, None, arguments),
            StatementClass::Ddl(ddl) => run.write(stmt, &mut Vec::new(), Some(ddl), arguments),
        };
        if conn.is_autocommit() {
            run.forget();
        }
        rows
    }
}
