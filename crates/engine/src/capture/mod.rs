//! Records what local transactions change, in the same SQLite transaction.
//!
//! How: SQLite's preupdate hook copies every row that a statement is about to change into a buffer (the hook may not touch
//! the connection). When the statement has ended, the buffer becomes [`Change`]s that wait in memory, and they are written
//! to the log table before anything that could separate them from their statement: before `COMMIT`, before `SAVEPOINT` and
//! `RELEASE`, and when they grow large. `ROLLBACK TO` therefore throws away exactly the waiting ones and SQLite itself the
//! written ones. A statement outside of a transaction is run in one of ours. Everything that changed is recorded as it came
//! out, whatever changed it; rows of virtual tables are told from those of the tables that they are kept in. Schema changes
//! are recorded as their text, and so is a statement on a virtual table whose rows cannot be told, if it does the same
//! wherever it is run.
//!
//! What must never happen here: a change that commits without its record, a record of a change that did not commit, or a
//! change id that is used twice.

mod attach;
pub mod cause;
pub mod classify;
mod failed;
pub mod given;
mod hook;
pub mod pragma;
mod record;
mod run;
pub mod schema;
#[cfg(test)]
mod tests;
mod units;
mod virtual_rows;
pub mod virtual_tables;
mod writer;

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use partial_sync_vfs::sqlite::{self, Conn, Stmt, codes};
use rusqlite::{config::DbConfig, functions::FunctionFlags};

use self::{
    classify::{Plan, internal},
    hook::Buffer,
    run::Run,
    schema::SchemaCache,
};
use crate::{
    change::{Change, Value},
    error::Result,
    kept::Kept,
    transaction::Control,
};

/// What a capturing connection shares with the rest of the replica.
#[derive(Clone)]
pub struct CaptureOptions {
    /// The last change id that is known to have been used, also by changes that have left the log. Whoever deletes from
    /// the log raises it first.
    pub floor: Arc<AtomicI64>,
    /// Called before the log is made, in the transaction that will write its first change.
    pub before_log: Arc<dyn Fn() -> Result<()> + Send + Sync>,
    /// Seconds since 1970.
    pub clock: Arc<dyn Fn() -> i64 + Send + Sync>,
}

impl Default for CaptureOptions {
    fn default() -> Self {
        Self {
            floor: Arc::default(),
            before_log: Arc::new(|| Ok(())),
            clock: Arc::new(|| {
                SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .map_or(0, |since| since.as_secs() as i64)
            }),
        }
    }
}

/// The statement's values, kept because a statement recorded as text is recorded with them.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    pub positional: Vec<Value>,
    pub named: Vec<(String, Value)>,
}

impl Arguments {
    /// The value of a parameter, by its text or its number.
    fn value(&self, text: &str, number: usize) -> Option<&Value> {
        let by_name = self.named.iter().find(|(name, _)| name == text);
        let by_number = number.checked_sub(1).and_then(|i| self.positional.get(i));
        by_name.map(|(_, value)| value).or(by_number)
    }
}

/// The recorder of one connection.
pub struct Capture {
    buffer: Arc<Mutex<Buffer>>,
    counters: Arc<Counters>,
    options: CaptureOptions,
    state: Mutex<State>,
}

struct State {
    begin: Stmt,
    commit: Stmt,
    rollback: Stmt,
    max_id: Option<Stmt>,
    insert: Option<Stmt>,
    /// How often `max_id` had been compiled when `schema` was last emptied.
    compiled: i32,
    schema: SchemaCache,
    temp_triggers: Option<Stmt>,
    waiting: Vec<Change>,
    waiting_bytes: usize,
    /// The id that the next change gets; `None` until the write lock is held and the log was looked at.
    next_id: Option<i64>,
    /// First change id of the transaction, once it has one.
    txn: Option<i64>,
}

/// Makes `changes()` and `total_changes()` answer as if the log did not exist.
#[derive(Default)]
struct Counters {
    /// Rows of the log that `total_changes` has counted.
    hidden: AtomicU64,
    /// What `changes` was before the log was last written, and what the two counters were right after.
    changes: AtomicU64,
    total_after: AtomicU64,
    changes_after: AtomicU64,
}

impl Counters {
    fn changes(&self, conn: &Conn) -> u64 {
        let (changes, total) = (conn.changes(), conn.total_changes());
        let untouched = total == self.total_after.load(Ordering::Relaxed)
            && changes == self.changes_after.load(Ordering::Relaxed);
        if untouched {
            self.changes.load(Ordering::Relaxed)
        } else {
            changes
        }
    }

    fn total_changes(&self, conn: &Conn) -> u64 {
        conn.total_changes()
            .saturating_sub(self.hidden.load(Ordering::Relaxed))
    }
}

impl Capture {
    /// Installs the recorder on a connection that nothing has been prepared on.
    pub fn install(conn: &Conn, options: CaptureOptions) -> Result<Self> {
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
        let prepare = |sql| internal(|| conn.prepare_one(sql));
        let state = State {
            begin: prepare("BEGIN IMMEDIATE")?,
            commit: prepare("COMMIT")?,
            rollback: prepare("ROLLBACK")?,
            max_id: None,
            insert: None,
            compiled: 0,
            schema: SchemaCache::default(),
            temp_triggers: None,
            waiting: Vec::new(),
            waiting_bytes: 0,
            next_id: None,
            txn: None,
        };
        Ok(Self {
            buffer,
            counters,
            options,
            state: Mutex::new(state),
        })
    }

    /// `changes()` as the user is to see it.
    pub fn changes(&self, conn: &Conn) -> u64 {
        self.counters.changes(conn)
    }

    /// `total_changes()` as the user is to see it.
    pub fn total_changes(&self, conn: &Conn) -> u64 {
        self.counters.total_changes(conn)
    }

    /// Compiles the first statement of `sql` and says how to run it.
    pub fn prepare(&self, conn: &Conn, sql: &str, persistent: bool) -> Result<(Option<(Stmt, Plan)>, usize)> {
        if let Some(refusal) = classify::refuse_vacuum(sql) {
            return Err(refusal.into());
        }
        classify::start();
        let prepared = conn.prepare(sql, persistent);
        let heard = classify::finish();
        let (stmt, tail) = match (prepared, heard.refusal.clone()) {
            (Err(_), Some(refusal)) => return Err(refusal.into()),
            (prepared, _) => prepared?,
        };
        let stmt = match stmt {
            Some(stmt) => {
                let plan = match Control::of(&stmt) {
                    Some(control) => Plan::Control(control),
                    None => heard.plan(&stmt.sql(), stmt.readonly(), stmt.is_explain())?,
                };
                Some((stmt, plan))
            }
            None => None,
        };
        Ok((stmt, tail))
    }

    /// Runs a statement whose plan is not [`Plan::Plain`] to its end, recorded, and gives its rows.
    pub fn run(&self, conn: &Conn, stmt: &mut Stmt, plan: &Plan, arguments: &Arguments) -> Result<Kept> {
        // The connection is held, so only a function that a recorded statement calls finds it locked.
        let Some(mut state) = self.state.try_lock() else {
            let message = "a SQL function cannot write or end a transaction on the connection that called it while a \
                           statement that writes to the replica runs there; use another connection";
            return Err(sqlite::Error::new(codes::MISUSE, message).into());
        };
        let mut run = Run {
            conn,
            capture: self,
            state: &mut state,
        };
        if conn.is_autocommit() {
            // Whatever waited belonged to a transaction that SQLite rolled back by itself.
            run.forget();
        }
        let rows = match plan {
            Plan::Plain | Plan::Control(Control::Begin | Control::Rollback) => Kept::drain(stmt),
            Plan::Control(Control::RollbackTo(_)) => Kept::drain(stmt).inspect(|_| run.forget_waiting()),
            Plan::Control(Control::Commit | Control::Savepoint(_) | Control::Release(_)) => {
                run.flush().and_then(|()| Kept::drain(stmt))
            }
            Plan::Attach => attach::check(conn, stmt).and_then(|()| Kept::drain(stmt)),
            Plan::Write(targets) => run.write(stmt, targets, None, arguments),
            Plan::Ddl(ddl) => run.write(stmt, &[], Some(ddl), arguments),
        };
        if conn.is_autocommit() {
            run.forget();
        }
        rows
    }
}
