//! Turns what the hook saw, or a statement's text, into changes that wait to be written.

use std::collections::HashSet;

use partial_sync_core::ChangeId;
use partial_sync_vfs::sqlite::{self, Step, Stmt, ValueRef};

use super::{
    Arguments,
    cause::Nesting,
    classify::{Ddl, Target, internal},
    hook::{self, Nested, SEQUENCE},
    run::{Run, lost_transaction},
    schema::Known,
    writer::{CHUNK_BYTES, size},
};
use crate::{
    change::{Cause, Change, ChangeKind, RowOp, StatementChange, StatementKind, Value},
    error::{Error, Result},
};

impl Run<'_> {
    pub fn record_write(
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

    pub fn record_ddl(
        &mut self,
        stmt: &Stmt,
        nested: Vec<Nested>,
        ddl: &Ddl,
        before: Option<i64>,
    ) -> Result<()> {
        let after = match ddl.kind {
            StatementKind::Analyze => None,
            _ => Some(self.number(ddl)?),
        };
        if before.is_some() && before == after {
            // IF NOT EXISTS, and it does; a pragma that is set to what it was.
            return Ok(());
        }
        self.look_at_log()?;
        self.state.schema.clear();
        if ddl.kind == StatementKind::DropTable {
            // Foreign keys act on the children of the dropped table's rows; the rows themselves go with the statement.
            self.record_rows(nested, Nesting::of_a_dropped_table(), Some(&ddl.name))?;
        }
        let mut kind = ddl.kind.clone();
        let sql = match (&kind, after) {
            // As SQLite understood the value.
            (StatementKind::Pragma, Some(value)) => format!("PRAGMA {} = {value}", ddl.name),
            _ if ddl.as_select => self.created_sql(&ddl.name)?,
            _ => text(stmt),
        };
        if kind == StatementKind::AlterOther && self.pragma("legacy_alter_table")? == 1 {
            kind = StatementKind::AlterLegacy;
        }
        let change = StatementChange {
            sql,
            args: Vec::new(),
            named: Vec::new(),
            kind,
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
            if table.name == SEQUENCE {
                // DROP TABLE deletes its row, there as here, and so do the triggers of a remote.
                if except.is_none() && cause == Cause::Statement {
                    self.record_sequence(op);
                }
            } else if except.is_none_or(|except| !except.eq_ignore_ascii_case(&table.name)) {
                self.wait(ChangeKind::Row { table, op, cause });
            }
        }
        Ok(())
    }

    fn record_sequence(&mut self, op: RowOp) {
        let (gone, now) = match op {
            RowOp::Insert { after } => (None, Some(after)),
            RowOp::Update { before, after } if before[0] == after[0] => (None, Some(after)),
            RowOp::Update { mut before, after } => (before.drain(..1).next(), Some(after)),
            RowOp::Delete { mut before } => (before.drain(..1).next(), None),
        };
        for args in gone.map(|name| vec![name]).into_iter().chain(now) {
            self.wait(ChangeKind::Statement(StatementChange {
                sql: String::new(),
                args,
                named: Vec::new(),
                kind: StatementKind::Sequence,
            }));
        }
    }

    fn known(&mut self, name: &str) -> Result<Known> {
        Ok(internal(|| self.state.schema.table(self.conn, name))?)
    }

    fn foreign_keys_enforced(&self) -> Result<bool> {
        Ok(self.pragma("foreign_keys")? == 1)
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

    /// What tells whether the statement changed anything: the pragma that it sets, or the schema cookie.
    pub fn number(&self, ddl: &Ddl) -> Result<i64> {
        match ddl.kind {
            StatementKind::Pragma => self.pragma(&ddl.name),
            _ => self.pragma("schema_version"),
        }
    }

    /// A pragma of `main` that is a number.
    fn pragma(&self, name: &str) -> Result<i64> {
        let mut stmt = internal(|| self.conn.prepare_one(&format!("PRAGMA main.{name}")))?;
        stmt.step()?;
        Ok(match stmt.value(0)? {
            ValueRef::Integer(number) => number,
            _ => 0,
        })
    }
}

/// The statement's text as it is recorded: without what surrounded it in a script.
fn text(stmt: &Stmt) -> String {
    let sql = stmt.sql();
    sql.trim().trim_end_matches(';').trim_end().to_owned()
}
