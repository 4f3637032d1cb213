//! Records what local transactions change, in the same SQLite transaction.
//!
//! How: SQLite's preupdate hook copies every row that a statement is about to change into a buffer (the hook may not touch
//! the connection). When the statement has ended, the buffer becomes [`Change`]s that wait in memory, and they are written
//! to the log table before anything that could separate them from their statement: before `COMMIT`, before `SAVEPOINT` and
//! `RELEASE`, and when they grow large. `ROLLBACK TO` therefore throws away exactly the waiting ones and SQLite itself the
//! written ones. A statement outside of a transaction is run in one of ours. Schema changes and writes to virtual tables
//! are recorded as their text, because they cannot be told from the rows they touch.
//!
//! What must never happen here: a change that commits without its record, a record of a change that did not commit, or a
//! change id that is used twice.

pub mod cause;
pub mod classify;
mod hook;
pub mod schema;
#[cfg(test)]
mod tests;

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use partial_sync_core::ChangeId;
use partial_sync_vfs::sqlite::{self, Conn, Step, Stmt, TxnState, ValueRef, codes};
use rusqlite::functions::FunctionFlags;

use self::{
    cause::Nesting,
    classify::{Ddl, Plan, Target, internal},
    hook::{Buffer, Nested},
    schema::{Known, SchemaCache},
};
use crate::{
    change::{Cause, Change, ChangeKind, RowOp, StatementChange, StatementKind, Value, codec},
    error::{Error, Result},
    log,
};

/// A chunk of the log is closed when the changes in it hold this many bytes.
const CHUNK_BYTES: usize = 1 << 20;
/// Changes wait in memory, inside an explicit transaction, until they hold this many bytes.
const WAITING_BYTES: usize = 64 << 10;

/// What a capturing connection shares with the rest of the replica.
#[derive(Clone)]
pub struct CaptureOptions {
    /// The last change id that is known to have been used, also by changes that have left the log. Whoever deletes from
    /// the log raises it first.
    pub floor: Arc<AtomicI64>,
    /// Seconds since 1970.
    pub clock: Arc<dyn Fn() -> i64 + Send + Sync>,
}

impl Default for CaptureOptions {
    fn default() -> Self {
        Self {
            floor: Arc::default(),
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
        Ok((
            stmt.map(|stmt| {
                let plan = heard.plan(&stmt.sql(), stmt.readonly(), stmt.is_explain());
                (stmt, plan)
            }),
            tail,
        ))
    }

    /// Runs a statement whose plan is not [`Plan::Plain`] to its end, recorded, and gives its rows.
    pub fn run(
        &self,
        conn: &Conn,
        stmt: &mut Stmt,
        plan: &Plan,
        arguments: &Arguments,
    ) -> Result<Vec<Vec<Value>>> {
        let mut state = self.state.lock();
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
            Plan::Plain | Plan::Begin | Plan::Rollback => drain(stmt),
            Plan::Commit | Plan::Savepoint | Plan::Release => run.flush().and_then(|()| drain(stmt)),
            Plan::RollbackTo => drain(stmt).inspect(|_| run.forget_waiting()),
            Plan::Write(targets) => run.write(stmt, targets, None, arguments),
            Plan::Ddl(ddl) => run.write(stmt, &[], Some(ddl), arguments),
        };
        if conn.is_autocommit() {
            run.forget();
        }
        rows
    }
}

/// Steps to the end, keeping the rows. SQLite makes every change of a statement before it gives the first row.
fn drain(stmt: &mut Stmt) -> Result<Vec<Vec<Value>>> {
    let columns = stmt.column_count();
    let mut rows = Vec::new();
    while stmt.step()? == Step::Row {
        let row: sqlite::Result<_> = (0..columns).map(|i| Ok(Value::from(stmt.value(i)?))).collect();
        rows.push(row?);
    }
    stmt.reset();
    Ok(rows)
}

/// One recorded run, with everything at hand.
struct Run<'r> {
    conn: &'r Conn,
    capture: &'r Capture,
    state: &'r mut State,
}

impl Run<'_> {
    /// Forgets what belongs to the transaction, which is over.
    fn forget(&mut self) {
        self.forget_waiting();
        self.state.txn = None;
    }

    /// Forgets what is not in the log yet, and what was known of the log: part of it may have been rolled back.
    fn forget_waiting(&mut self) {
        self.state.waiting.clear();
        self.state.waiting_bytes = 0;
        self.state.next_id = None;
    }

    fn write(
        &mut self,
        stmt: &mut Stmt,
        targets: &[Target],
        ddl: Option<&Ddl>,
        arguments: &Arguments,
    ) -> Result<Vec<Vec<Value>>> {
        let ours = self.conn.is_autocommit();
        if ours {
            internal(|| self.state.begin.execute())?;
        }
        // A trigger can RAISE(FAIL), and a statement OR FAIL, before any row of the statement itself has changed: then
        // nothing tells whether the effects of triggers stay. With a savepoint it is decided: they go.
        let guarded = !ours && targets.iter().any(|t| t.trigger.is_some());
        if guarded {
            self.batch("SAVEPOINT partial_sync_statement")?;
        }
        let version = match ddl {
            // Asking takes a snapshot, which must not be older than the write lock.
            Some(_) if self.conn.txn_state() == TxnState::Write => Some(self.schema_version()?),
            _ => None,
        };
        self.capture.buffer.lock().start();
        classify::start();
        let outcome = drain(stmt);
        let recompiled = classify::finish().into_targets();
        let changed = self.conn.changes();
        let nested = self.capture.buffer.lock().finish();
        // Only OR FAIL leaves changes behind an error; SQLite answers 0 for a statement that it has undone.
        let fail_kept =
            ddl.is_none() && changed > 0 && nested.as_ref().is_ok_and(|nested| !nested.is_empty());
        if self.conn.is_autocommit() {
            // The transaction is gone: OR ROLLBACK, a full disk, an interrupt.
            return outcome.and_then(|_| Err(lost_transaction()));
        }
        let kept = match &outcome {
            Ok(_) => true,
            Err(Error::Sqlite(e)) if e.code() == codes::CONSTRAINT => fail_kept,
            Err(_) => false,
        };
        let recorded = match nested {
            Ok(nested) if kept && ddl.is_none() => {
                let all: Vec<Target>;
                let targets = if recompiled.is_empty() {
                    targets
                } else {
                    all = targets.iter().cloned().chain(recompiled).collect();
                    &all
                };
                self.record_write(stmt, nested, targets, arguments)
            }
            Ok(nested) if kept => match ddl {
                Some(ddl) => self.record_ddl(stmt, nested, ddl, version),
                None => Ok(()),
            },
            Ok(_) => Ok(()),
            Err(broken) => Err(broken),
        };
        if let Err(error) = recorded {
            // What cannot be recorded must not commit.
            self.undo_transaction();
            return Err(error);
        }
        if guarded && !kept {
            self.batch("ROLLBACK TO partial_sync_statement")?;
        }
        if guarded {
            self.batch("RELEASE partial_sync_statement")?;
        }
        let finished = if ours && kept {
            self.flush()
                .and_then(|()| Ok(internal(|| self.state.commit.execute())?))
        } else if self.state.waiting_bytes > WAITING_BYTES {
            self.flush()
        } else {
            Ok(())
        };
        if ours && (!kept || finished.is_err()) {
            self.undo_transaction();
        }
        finished.and(outcome)
    }

    /// Rolls back the transaction, whatever state it is in.
    fn undo_transaction(&mut self) {
        if !self.conn.is_autocommit() {
            let _ = internal(|| self.state.rollback.execute());
        }
        self.forget();
    }

    fn batch(&self, sql: &str) -> Result<()> {
        Ok(internal(|| self.conn.execute_batch(sql))?)
    }

    fn schema_version(&self) -> Result<i64> {
        let mut stmt = internal(|| self.conn.prepare_one("PRAGMA main.schema_version"))?;
        stmt.step()?;
        Ok(match stmt.value(0)? {
            ValueRef::Integer(version) => version,
            _ => 0,
        })
    }

    /// Makes sure, with the write lock held, that the log exists, that the next id is known, and that what is known of
    /// the schema is true.
    fn look_at_log(&mut self) -> Result<i64> {
        if let Some(next) = self.state.next_id {
            return Ok(next);
        }
        let max = match internal(|| self.max_id()) {
            Err(e) if log::is_no_such_table(&e) => {
                self.state.max_id = None;
                self.state.insert = None;
                self.batch(log::CREATE_CHANGES)?;
                internal(|| self.max_id())?
            }
            max => max?,
        };
        let next = max.max(self.capture.options.floor.load(Ordering::SeqCst)) + 1;
        self.state.next_id = Some(next);
        Ok(next)
    }

    fn max_id(&mut self) -> sqlite::Result<i64> {
        let fresh = self.state.max_id.is_none();
        let stmt = match &mut self.state.max_id {
            Some(stmt) => stmt,
            none => none.insert(self.conn.prepare_one(log::MAX_ID)?),
        };
        stmt.step()?;
        let max = match stmt.value(0)? {
            ValueRef::Integer(max) => max,
            _ => 0,
        };
        stmt.reset();
        // SQLite compiles it anew exactly when the schema is not the one it was compiled for.
        let compiled = stmt.reprepares();
        if fresh || compiled != self.state.compiled {
            self.state.compiled = compiled;
            self.state.schema.clear();
        }
        Ok(max)
    }

    fn record_write(
        &mut self,
        stmt: &Stmt,
        nested: Vec<Nested>,
        targets: &[Target],
        arguments: &Arguments,
    ) -> Result<()> {
        self.look_at_log()?;
        let own: Vec<&Target> = targets.iter().filter(|t| t.main && t.trigger.is_none()).collect();
        let (mut base, mut virtual_table) = (0, None);
        for target in own {
            match self.known(&target.table)? {
                Known::View => base = 1,
                Known::Virtual => virtual_table = Some(target.table.clone()),
                Known::Ordinary(_) | Known::Ignored => {}
            }
        }
        let temporary = match targets.iter().any(|t| t.trigger.is_some()) {
            true => internal(|| self.temp_triggers())?,
            false => HashSet::new(),
        };
        let is_temporary = |name: &str| temporary.contains(&name.to_ascii_lowercase());
        let lost = targets
            .iter()
            .find(|t| t.main && t.trigger.as_deref().is_some_and(is_temporary));
        let nesting = Nesting::new(base, targets, is_temporary);
        if let Some(target) = lost
            && matches!(self.known(&target.table)?, Known::Virtual)
        {
            return Err(Error::Unsupported {
                what: format!(
                    "writing to the virtual table {} from a TEMP trigger",
                    target.table
                ),
                why: "it cannot be recorded; the transaction was rolled back. Make the trigger a permanent one",
            });
        }
        self.record_rows(nested, nesting, None)?;
        if let Some(table) = virtual_table {
            let change = StatementChange {
                sql: text(stmt),
                args: arguments.positional.clone(),
                named: arguments.named.clone(),
                kind: StatementKind::VirtualTableWrite { table },
            };
            self.wait(ChangeKind::Statement(change));
        }
        Ok(())
    }

    fn record_ddl(
        &mut self,
        stmt: &Stmt,
        nested: Vec<Nested>,
        ddl: &Ddl,
        version: Option<i64>,
    ) -> Result<()> {
        if version.is_some_and(|version| self.schema_version().is_ok_and(|now| now == version)) {
            // IF NOT EXISTS, and it does.
            return Ok(());
        }
        self.look_at_log()?;
        self.state.schema.clear();
        if ddl.kind == StatementKind::DropTable {
            // Foreign keys act on the children of the dropped table's rows; the rows themselves go with the statement.
            self.record_rows(nested, Nesting::of_a_dropped_table(), Some(&ddl.name))?;
        }
        let mut sql = text(stmt);
        if ddl.as_select {
            sql = self.created_sql(&ddl.name)?;
        }
        let change = StatementChange {
            sql,
            args: Vec::new(),
            named: Vec::new(),
            kind: ddl.kind.clone(),
        };
        self.wait(ChangeKind::Statement(change));
        if ddl.as_select {
            self.record_contents(&ddl.name)?;
        }
        Ok(())
    }

    /// The `CREATE TABLE` that SQLite wrote for a `CREATE TABLE ... AS SELECT`.
    fn created_sql(&mut self, table: &str) -> Result<String> {
        let sql = "SELECT sql FROM main.sqlite_schema WHERE type = 'table' AND lower(name) = lower(?1)";
        let mut select = internal(|| self.conn.prepare_one(sql))?;
        select.bind(1, ValueRef::Text(table.as_bytes()))?;
        select.step()?;
        match select.value(0)? {
            ValueRef::Text(sql) => Ok(String::from_utf8_lossy(sql).into_owned()),
            _ => Err(lost_transaction()),
        }
    }

    /// Records every row of a table that was just made, as inserts.
    fn record_contents(&mut self, table: &str) -> Result<()> {
        let Known::Ordinary(descriptor) = self.known(table)? else {
            return Ok(());
        };
        let sql = format!("SELECT * FROM main.\"{}\"", table.replace('"', "\"\""));
        let mut select = internal(|| self.conn.prepare_one(&sql))?;
        while internal(|| select.step())? == Step::Row {
            let after: sqlite::Result<_> = (0..select.column_count())
                .map(|i| Ok(Value::from(select.value(i)?)))
                .collect();
            let op = RowOp::Insert { after: after? };
            self.wait(ChangeKind::Row {
                table: descriptor.clone(),
                op,
                cause: Cause::Statement,
            });
            if self.state.waiting_bytes > CHUNK_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Turns what the hook saw into changes.
    fn record_rows(&mut self, nested: Vec<Nested>, mut nesting: Nesting, except: Option<&str>) -> Result<()> {
        if nested.is_empty() {
            return Ok(());
        }
        self.look_at_log()?;
        let deep = nested.iter().any(|n| n.depth > 0);
        let enforced = deep && self.foreign_keys_enforced()?;
        for Nested { table, mut op, depth } in nested {
            let Known::Ordinary(table) = self.known(&table)? else {
                continue;
            };
            hook::fit(&table, &mut op)?;
            let cause = if deep {
                let keys = match enforced {
                    true => internal(|| self.state.schema.foreign_keys(self.conn, &table))?,
                    false => [].into(),
                };
                nesting.cause(&table, &op, depth, &keys)
            } else {
                Cause::Statement
            };
            if except.is_none_or(|except| !except.eq_ignore_ascii_case(&table.name)) {
                self.wait(ChangeKind::Row { table, op, cause });
            }
        }
        Ok(())
    }

    fn known(&mut self, name: &str) -> Result<Known> {
        Ok(internal(|| self.state.schema.table(self.conn, name))?)
    }

    fn foreign_keys_enforced(&self) -> Result<bool> {
        let mut stmt = internal(|| self.conn.prepare_one("PRAGMA foreign_keys"))?;
        stmt.step()?;
        Ok(stmt.value(0)? == ValueRef::Integer(1))
    }

    fn temp_triggers(&mut self) -> sqlite::Result<HashSet<String>> {
        let sql = "SELECT lower(name) FROM temp.sqlite_schema WHERE type = 'trigger'";
        let stmt = match &mut self.state.temp_triggers {
            Some(stmt) => stmt,
            none => none.insert(self.conn.prepare_one(sql)?),
        };
        let mut names = HashSet::new();
        while stmt.step()? == Step::Row {
            if let ValueRef::Text(name) = stmt.value(0)? {
                names.insert(String::from_utf8_lossy(name).into_owned());
            }
        }
        stmt.reset();
        Ok(names)
    }

    fn wait(&mut self, kind: ChangeKind) {
        self.state.waiting_bytes += size(&kind);
        // The id is given when the change is written: what is rolled back before that uses none.
        self.state.waiting.push(Change {
            id: ChangeId(0),
            time: (self.capture.options.clock)(),
            kind,
        });
    }

    /// Writes what waits to the log, hidden from `changes()`, `total_changes()` and `last_insert_rowid()`.
    fn flush(&mut self) -> Result<()> {
        if self.state.waiting.is_empty() {
            return Ok(());
        }
        let counters = &self.capture.counters;
        let (seen, rowid) = (counters.changes(self.conn), self.conn.last_insert_rowid());
        let before = self.conn.total_changes();
        let written = internal(|| self.write_waiting());
        self.conn.set_last_insert_rowid(rowid);
        let after = self.conn.total_changes();
        counters.hidden.fetch_add(after - before, Ordering::Relaxed);
        counters.changes.store(seen, Ordering::Relaxed);
        counters.total_after.store(after, Ordering::Relaxed);
        counters
            .changes_after
            .store(self.conn.changes(), Ordering::Relaxed);
        written
    }

    fn write_waiting(&mut self) -> Result<()> {
        let mut next = self.look_at_log()?;
        while !self.state.waiting.is_empty() {
            let (mut count, mut bytes) = (0, 0);
            for change in &mut self.state.waiting {
                change.id = ChangeId(next + count as i64);
                count += 1;
                bytes += size(&change.kind);
                if bytes >= CHUNK_BYTES {
                    break;
                }
            }
            let changes = &self.state.waiting[..count];
            let (first, last) = (changes[0].id, changes[count - 1].id);
            let chunk = log::Chunk {
                first,
                last,
                txn: ChangeId(*self.state.txn.get_or_insert(first.0)),
                time: changes[0].time,
                count: count as u64,
                body: codec::encode(changes).map_err(log::LogError::from)?,
            };
            let insert = match &mut self.state.insert {
                Some(insert) => insert,
                none => none.insert(self.conn.prepare_one(log::INSERT)?),
            };
            chunk.bind(insert)?;
            insert.execute()?;
            insert.clear_bindings();
            // From here on these are in the log, also if a later chunk fails.
            self.state.waiting.drain(..count);
            self.state.waiting_bytes = self.state.waiting_bytes.saturating_sub(bytes);
            next = last.0 + 1;
            self.state.next_id = Some(next);
        }
        Ok(())
    }
}

/// The statement's text as it is recorded: without what surrounded it in a script.
fn text(stmt: &Stmt) -> String {
    let sql = stmt.sql();
    sql.trim().trim_end_matches(';').trim_end().to_owned()
}

fn lost_transaction() -> Error {
    sqlite::Error::new(codes::ABORT, "the transaction was rolled back").into()
}

/// How much memory and log a change takes, about.
fn size(kind: &ChangeKind) -> usize {
    let values = |values: &[Value]| values.iter().map(Value::size).sum::<usize>();
    16 + match kind {
        ChangeKind::Row {
            op: RowOp::Insert { after: row } | RowOp::Delete { before: row },
            ..
        } => values(row),
        ChangeKind::Row {
            op: RowOp::Update { before, after },
            ..
        } => values(before) + values(after),
        ChangeKind::Statement(statement) => {
            statement.sql.len()
                + values(&statement.args)
                + statement
                    .named
                    .iter()
                    .map(|(name, value)| name.len() + value.size())
                    .sum::<usize>()
        }
    }
}
