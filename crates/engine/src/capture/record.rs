//! Records a statement whatever it does: as the rows that it changed (`rows.rs`), or as its text. Most statements need less of it,
//! and are recorded by their plan (`by_plan.rs`).

use std::collections::HashSet;

use partial_sync_vfs::sqlite::{self, Step, Stmt, TxnState, ValueRef};

use super::{
    arguments::Arguments,
    cause::Nesting,
    classify::{Ddl, Target, internal},
    hook::Seen,
    run::{KeysGiven, RecordedStatement, Recording, lost_transaction},
    schema::Known,
    virtual_rows::VirtualRows,
};
use crate::{
    change::{Cause, ChangeKind, RowOp, StatementChange, StatementKind, Value},
    error::Result,
};

impl Recording<'_> {
    pub(super) fn record_write(
        &mut self,
        stmt: &Stmt,
        seen: &mut Seen,
        targets: &[Target],
        arguments: &Arguments,
        failed: bool,
    ) -> Result<()> {
        let mut base = 0;
        for target in targets.iter().filter(|t| t.main && t.trigger.is_none()) {
            if matches!(self.known(&target.table)?, Known::View) {
                base = 1;
            }
        }
        let temporary = match targets.iter().any(|t| t.trigger.is_some()) {
            true => internal(|| self.temp_triggers())?,
            false => HashSet::new(),
        };
        let is_temporary = |name: &str| temporary.contains(&name.to_ascii_lowercase());
        let nesting = Nesting::new(base, targets, is_temporary);
        let sql = text(stmt);
        let statement = RecordedStatement {
            sql: &sql,
            targets,
            arguments,
            base,
            failed,
            keys: KeysGiven::default(),
        };
        let virtual_rows = self.virtual_targets(&statement)?;
        self.record_rows(seen, nesting, virtual_rows, Some(&statement), None)?;
        Ok(())
    }

    pub(super) fn record_ddl(
        &mut self,
        stmt: &Stmt,
        seen: &mut Seen,
        ddl: &Ddl,
        before: Option<i64>,
    ) -> Result<()> {
        if self.conn.txn_state() != TxnState::Write {
            // IF NOT EXISTS, and it does.
            return Ok(());
        }
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
        let mut rows = 0;
        if ddl.kind == StatementKind::DropTable {
            // Foreign keys act on the children of the dropped table's rows; the rows themselves go with the statement.
            let nesting = Nesting::of_a_dropped_table();
            rows = self.record_rows(seen, nesting, VirtualRows::default(), None, Some(&ddl.name))?;
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
        self.wait(ChangeKind::Statement(change), rows)?;
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
            let kind = ChangeKind::Row {
                table: descriptor.clone(),
                op,
                cause: Cause::Statement,
            };
            self.wait(kind, 0)?;
        }
        Ok(())
    }

    pub(super) fn known(&mut self, name: &str) -> Result<Known> {
        Ok(internal(|| self.state.schema.table(self.conn, name))?)
    }

    pub(super) fn foreign_keys_enforced(&self) -> Result<bool> {
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
        stmt.reset()?;
        Ok(names)
    }

    pub(super) fn is_temporary(&mut self, trigger: &str) -> sqlite::Result<bool> {
        Ok(self.temp_triggers()?.contains(&trigger.to_ascii_lowercase()))
    }

    /// What tells whether the statement changed anything: the pragma that it sets, or the schema cookie.
    pub(super) fn number(&self, ddl: &Ddl) -> Result<i64> {
        match ddl.kind {
            StatementKind::Pragma => self.pragma(&ddl.name),
            _ => self.pragma("schema_version"),
        }
    }

    /// A pragma of `main` that is a number.
    pub(super) fn pragma(&self, name: &str) -> Result<i64> {
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
