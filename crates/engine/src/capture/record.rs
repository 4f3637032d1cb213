//! Turns what the hook saw, or a statement's text, into changes that wait to be written. Most statements need less of it, and
//! are recorded by their plan (`by_plan.rs`).

use std::{collections::HashSet, sync::Arc};

use partial_sync_vfs::sqlite::{self, Step, Stmt, ValueRef};

use super::{
    arguments::Arguments,
    cause::Nesting,
    classify::{Ddl, Target, internal},
    given,
    hook::{self, Nested, SEQUENCE, Seen},
    run::{RecordedStatement, Recording, lost_transaction},
    schema::Known,
    units::{UnitChange, Units},
    virtual_rows::VirtualRows,
};
use crate::{
    change::{Cause, ChangeKind, RowOp, StatementChange, StatementKind, Table, Value, tokens::tokens},
    error::{Error, Result},
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

    /// Turns what the hook saw into changes. How many those are.
    fn record_rows(
        &mut self,
        seen: &mut Seen,
        mut nesting: Nesting,
        mut virtual_rows: VirtualRows,
        statement: Option<&RecordedStatement<'_>>,
        except: Option<&str>,
    ) -> Result<u32> {
        if seen.is_empty() && virtual_rows.is_empty() {
            return Ok(0);
        }
        let nested = seen.decode()?;
        let mut units = self.units(statement, seen)?;
        let deep = seen.deep;
        let enforced = deep && self.foreign_keys_enforced()?;
        let mut changes = Vec::with_capacity(nested.len());
        for nested in nested {
            let Nested {
                table, mut op, depth, ..
            } = nested;
            let table = match self.known(&table)? {
                Known::Ordinary(table) => table,
                Known::Shadow(table, part) if statement.is_some() => {
                    virtual_rows.see(&table, part, op, &mut units, &mut changes);
                    continue;
                }
                _ => continue,
            };
            let unit = units.next(depth, matches!(op, RowOp::Delete { .. }));
            hook::fit(&table, &mut op)?;
            self.check_text(&table, &op)?;
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
                    changes.extend(sequence(op).map(|kind| UnitChange { kind, unit }));
                }
                continue;
            }
            if except.is_some_and(|except| except.eq_ignore_ascii_case(&table.name)) {
                continue;
            }
            virtual_rows.content(&table, &op);
            self.who_chose(statement, &table, &mut op, cause)?;
            let kind = ChangeKind::Row { table, op, cause };
            changes.push(UnitChange { kind, unit });
        }
        if let Some(statement) = statement {
            self.finish_virtual_rows(statement, virtual_rows, &mut units, &mut changes)?;
            if !self.is_repeatable(statement, &changes, deep)? {
                for change in &mut changes {
                    match &mut change.kind {
                        ChangeKind::Row { cause, .. } if *cause == Cause::Trigger => {
                            *cause = Cause::Unrepeatable;
                        }
                        _ => {}
                    }
                }
            }
        }
        for change in &mut changes {
            self.say_by_values(&mut change.kind)?;
        }
        let mut count = 0;
        for (kind, back) in units.finish(changes) {
            self.wait(kind, back)?;
            count += 1;
        }
        Ok(count)
    }

    /// How the changes of a statement will be told apart.
    fn units(&mut self, statement: Option<&RecordedStatement<'_>>, seen: &Seen) -> Result<Units> {
        let Some(statement) = statement.filter(|s| s.base == 0) else {
            return Ok(Units::whole());
        };
        for trigger in statement.triggers() {
            let sql = internal(|| self.state.schema.trigger(self.conn, trigger))?;
            let tokens = tokens(&sql);
            let mut own = seen.tables().filter(|table| table.own);
            if own.any(|table| given::fires_before(&tokens, &table.name)) {
                return Ok(Units::whole());
            }
        }
        Ok(Units::of_statement(!given::is_delete(&tokens(statement.sql))))
    }

    /// Marks a change of a row that has perhaps another key on a remote whose triggers fire.
    fn say_by_values(&mut self, change: &mut ChangeKind) -> Result<()> {
        let ChangeKind::Row {
            table,
            op: RowOp::Update { .. } | RowOp::Delete { .. },
            cause,
        } = change
        else {
            return Ok(());
        };
        let by_values = match cause {
            Cause::Statement => Cause::StatementByValues,
            Cause::ForeignKey => Cause::ForeignKeyByValues,
            _ => return Ok(()),
        };
        if !table.is_virtual && internal(|| self.state.schema.has_keys_of_triggers(self.conn, table))? {
            *cause = by_values;
        }
        Ok(())
    }

    /// Notes of a new row whether SQLite gave its key.
    pub(super) fn who_chose(
        &mut self,
        statement: Option<&RecordedStatement<'_>>,
        table: &Arc<Table>,
        op: &mut RowOp,
        cause: Cause,
    ) -> Result<()> {
        if let (RowOp::Insert { after }, Some(statement)) = (&mut *op, statement)
            && self.is_key_given(statement, table, cause)?
        {
            *op = RowOp::Add {
                after: std::mem::take(after),
            };
        }
        Ok(())
    }

    /// Whether SQLite gave new rows of this table their key.
    fn is_key_given(
        &mut self,
        statement: &RecordedStatement<'_>,
        table: &Arc<Table>,
        cause: Cause,
    ) -> Result<bool> {
        let key = match table.is_virtual {
            true => Some(0),
            false => internal(|| self.state.schema.indexes(self.conn, table))?.rowid_key,
        };
        let Some(key) = key else { return Ok(false) };
        if cause == Cause::Statement && statement.inserts_itself(&table.name) {
            let giver = given::by_statement(&tokens(statement.sql), table, key);
            Ok(giver.is_sqlite(statement.arguments))
        } else {
            self.given_by_triggers(statement, table, key)
        }
    }

    fn given_by_triggers(
        &mut self,
        statement: &RecordedStatement<'_>,
        table: &Table,
        key: usize,
    ) -> Result<bool> {
        let mut any = None;
        for trigger in statement.triggers() {
            let sql = internal(|| self.state.schema.trigger(self.conn, trigger))?;
            any = any.max(given::by_trigger(&tokens(&sql), table, key));
        }
        // An upsert of a trigger, a statement that could not be found: rather no row overwritten.
        Ok(any.unwrap_or(true))
    }

    /// Whether a remote that is sent the statement's own rows, and whose triggers fire for them, comes to the same.
    fn is_repeatable(
        &mut self,
        statement: &RecordedStatement<'_>,
        changes: &[UnitChange],
        deep: bool,
    ) -> Result<bool> {
        let rows = |wanted: Cause| {
            changes.iter().filter_map(move |change| match &change.kind {
                ChangeKind::Row { table, op, cause } if *cause == wanted => Some((table, op)),
                _ => None,
            })
        };
        if !deep || rows(Cause::Trigger).next().is_none() {
            return Ok(true);
        }
        if statement.failed {
            // A trigger may have run for the row that failed, which is not there.
            return Ok(false);
        }
        let tokens_ = tokens(statement.sql);
        let inserts = given::is_insert(&tokens_);
        let mut unchanged = false;
        let mut triggers = Vec::new();
        for trigger in statement.triggers() {
            triggers.push(internal(|| self.state.schema.trigger(self.conn, trigger))?);
        }
        let triggers: Vec<_> = triggers.iter().map(|sql| tokens(sql)).collect();
        let fires = |event, table: &Table| triggers.iter().any(|t| given::fires(t, event, &table.name));
        for (table, op) in rows(Cause::Statement) {
            if let RowOp::Update { before, after } = op {
                let set = |name: &str| statement.updates(&table.name, name);
                let same = |i: usize| before[i] == after[i] && set(&table.columns[i].name);
                unchanged |= (0..table.columns.len()).any(same);
                if (inserts && fires("INSERT", table)) || (before == after && fires("UPDATE", table)) {
                    return Ok(false);
                }
            }
        }
        if rows(Cause::Statement).next().is_none() {
            return Ok(false);
        }
        let mut overrides = given::overrides_conflicts(&tokens_);
        if overrides {
            overrides = false;
            for (table, op) in rows(Cause::Trigger) {
                let indexes = internal(|| self.state.schema.indexes(self.conn, table))?;
                let keyed = indexes.rowid_key.is_some() && !matches!(op, RowOp::Add { .. });
                overrides |= !matches!(op, RowOp::Delete { .. }) && (indexes.unique || keyed);
            }
        }
        if overrides || self.pragma("recursive_triggers")? == 1 {
            return Ok(false);
        }
        for tokens in &triggers {
            let pair = |a: &str, b: &str| tokens.windows(2).any(|t| t[0].is(a) && t[1].is(b));
            let ignores = tokens.windows(3).any(|t| t[0].is("RAISE") && t[2].is("IGNORE"));
            if ignores || (unchanged && pair("UPDATE", "OF")) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Text that is not Unicode has no SQL in a database whose text is UTF-16.
    fn check_text(&mut self, table: &Table, op: &RowOp) -> Result<()> {
        let (before, after) = op.images();
        let raw = |value: &Value| matches!(value, Value::RawText(_));
        if !before.into_iter().chain(after).flatten().any(raw) {
            return Ok(());
        }
        let mut stmt = internal(|| self.conn.prepare_one("PRAGMA main.encoding"))?;
        stmt.step()?;
        match stmt.value(0)? {
            ValueRef::Text(b"UTF-8") => Ok(()),
            _ => Err(Error::Unsupported {
                what: format!("text that is not Unicode in table {}", table.name),
                why: "the database keeps its text as UTF-16, and such text cannot be sent; the transaction was rolled \
                      back. Store a blob instead",
            }),
        }
    }

    pub(super) fn known(&mut self, name: &str) -> Result<Known> {
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
    fn pragma(&self, name: &str) -> Result<i64> {
        let mut stmt = internal(|| self.conn.prepare_one(&format!("PRAGMA main.{name}")))?;
        stmt.step()?;
        Ok(match stmt.value(0)? {
            ValueRef::Integer(number) => number,
            _ => 0,
        })
    }
}

/// A counter of an AUTOINCREMENT table was written.
fn sequence(op: RowOp) -> impl Iterator<Item = ChangeKind> {
    let (gone, now) = match op {
        RowOp::Insert { after } | RowOp::Add { after } => (None, Some(after)),
        RowOp::Update { before, after } if before[0] == after[0] => (None, Some(after)),
        RowOp::Update { mut before, after } => (before.drain(..1).next(), Some(after)),
        RowOp::Delete { mut before } => (before.drain(..1).next(), None),
    };
    let args = gone.map(|name| vec![name]).into_iter().chain(now);
    args.map(|args| {
        ChangeKind::Statement(StatementChange {
            sql: String::new(),
            args,
            named: Vec::new(),
            kind: StatementKind::Sequence,
        })
    })
}

/// The statement's text as it is recorded: without what surrounded it in a script.
fn text(stmt: &Stmt) -> String {
    let sql = stmt.sql();
    sql.trim().trim_end_matches(';').trim_end().to_owned()
}
