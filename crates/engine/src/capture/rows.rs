//! Turns the rows that the hook saw into changes, one after the other, so that a statement that changes millions of them needs no
//! memory for each. Where a statement writes to virtual tables its changes are known only at its end, and wait for it in memory.

use std::sync::Arc;

use partial_sync_vfs::sqlite::ValueRef;

use super::{
    cause::Nesting,
    classify::internal,
    given,
    hook::{self, Nested, SEQUENCE, Seen},
    repeatable::Repeats,
    run::{RecordedStatement, Recording},
    schema::Known,
    units::{Back, UnitChange, Units},
    virtual_rows::VirtualRows,
    virtual_tables::{Part, VirtualTable},
};
use crate::{
    change::{Cause, ChangeKind, RowOp, StatementChange, StatementKind, Table, Value, tokens::tokens},
    error::{Error, Result},
};

/// What is known of a statement's rows before the next one of them.
#[derive(Clone)]
struct Look<'s> {
    statement: Option<&'s RecordedStatement<'s>>,
    /// The table whose rows are not recorded.
    except: Option<&'s str>,
    nesting: Nesting,
    units: Units,
    deep: bool,
    enforced: bool,
    /// Of the last row too.
    also: Option<UnitChange>,
}

/// What the next row is.
enum Found {
    Change(UnitChange),
    /// It is of a shadow table.
    Shadow(Arc<VirtualTable>, Part, RowOp),
}

impl Recording<'_> {
    /// Records what the hook saw. How many changes that is.
    pub(super) fn record_rows(
        &mut self,
        seen: &mut Seen,
        nesting: Nesting,
        virtual_rows: VirtualRows,
        statement: Option<&RecordedStatement<'_>>,
        except: Option<&str>,
    ) -> Result<u32> {
        if seen.is_empty() && virtual_rows.is_empty() {
            return Ok(0);
        }
        let look = Look {
            statement,
            except,
            nesting,
            units: self.units(statement, seen)?,
            deep: seen.deep,
            enforced: seen.deep && self.foreign_keys_enforced()?,
            also: None,
        };
        match statement {
            Some(statement) if !virtual_rows.is_empty() => {
                self.record_at_once(seen, look, virtual_rows, statement)
            }
            _ => self.record_in_turn(seen, look),
        }
    }

    fn record_in_turn(&mut self, seen: &mut Seen, look: Look<'_>) -> Result<u32> {
        let mut repeatable = true;
        if let Some(statement) = look.statement.filter(|_| look.deep) {
            let triggers = self.trigger_texts(statement)?;
            let mut repeats = Repeats::new(statement, &triggers);
            let mut look = look.clone();
            seen.rewind();
            while let Some(found) = self.next_found(seen, &mut look)? {
                if let Found::Change(change) = found {
                    repeats.see(self, &change.kind)?;
                }
            }
            repeatable = repeats.are_repeatable(self)?;
        }
        let (mut look, mut back, mut count) = (look, Back::default(), 0);
        seen.rewind();
        while let Some(found) = self.next_found(seen, &mut look)? {
            if let Found::Change(UnitChange { kind, unit }) = found {
                self.wait_found(kind, back.of(unit), repeatable)?;
                count += 1;
            }
        }
        Ok(count)
    }

    fn record_at_once(
        &mut self,
        seen: &mut Seen,
        mut look: Look<'_>,
        mut virtual_rows: VirtualRows,
        statement: &RecordedStatement<'_>,
    ) -> Result<u32> {
        let mut changes = Vec::new();
        seen.rewind();
        while let Some(found) = self.next_found(seen, &mut look)? {
            match found {
                Found::Change(change) => {
                    if let ChangeKind::Row { table, op, .. } = &change.kind {
                        virtual_rows.content(table, op);
                    }
                    changes.push(change);
                }
                Found::Shadow(table, part, op) => {
                    virtual_rows.see(&table, part, op, &mut look.units, &mut changes);
                }
            }
        }
        self.finish_virtual_rows(statement, virtual_rows, &mut look.units, &mut changes)?;
        let mut repeatable = true;
        if look.deep {
            let triggers = self.trigger_texts(statement)?;
            let mut repeats = Repeats::new(statement, &triggers);
            for change in &changes {
                repeats.see(self, &change.kind)?;
            }
            repeatable = repeats.are_repeatable(self)?;
        }
        let mut count = 0;
        for (kind, back) in look.units.finish(changes) {
            self.wait_found(kind, back, repeatable)?;
            count += 1;
        }
        Ok(count)
    }

    /// The next row that is recorded; `None` at the end.
    fn next_found(&mut self, seen: &mut Seen, look: &mut Look<'_>) -> Result<Option<Found>> {
        if let Some(also) = look.also.take() {
            return Ok(Some(Found::Change(also)));
        }
        while let Some(nested) = seen.next_nested()? {
            let Nested {
                table, mut op, depth, ..
            } = nested;
            let table = match self.known(&table)? {
                Known::Ordinary(table) => table,
                Known::Shadow(table, part) => return Ok(Some(Found::Shadow(table, part, op))),
                _ => continue,
            };
            let unit = look.units.next(depth, matches!(op, RowOp::Delete { .. }));
            let reals = internal(|| self.state.schema.reals(self.conn, &table))?;
            hook::fit(&table, &reals, &mut op)?;
            if seen.raw_text {
                self.check_text(&table, &op)?;
            }
            let cause = if look.deep {
                let keys = match look.enforced {
                    true => internal(|| self.state.schema.foreign_keys(self.conn, &table))?,
                    false => [].into(),
                };
                look.nesting.cause(&table, &op, depth, &keys)
            } else {
                Cause::Statement
            };
            if table.name == SEQUENCE {
                // DROP TABLE deletes its row, there as here, and so do the triggers of a remote.
                if look.except.is_none() && cause == Cause::Statement {
                    let mut kinds = sequence(op).map(|kind| UnitChange { kind, unit });
                    let first = kinds.next();
                    look.also = kinds.next();
                    if let Some(change) = first {
                        return Ok(Some(Found::Change(change)));
                    }
                }
                continue;
            }
            if look
                .except
                .is_some_and(|except| except.eq_ignore_ascii_case(&table.name))
            {
                continue;
            }
            self.who_chose(look.statement, &table, &mut op, cause)?;
            let kind = ChangeKind::Row { table, op, cause };
            return Ok(Some(Found::Change(UnitChange { kind, unit })));
        }
        Ok(None)
    }

    /// Adds a change to those that wait; whether a remote whose triggers fire comes to what the triggers here did.
    fn wait_found(&mut self, mut kind: ChangeKind, back: u32, repeatable: bool) -> Result<()> {
        if let ChangeKind::Row { cause, .. } = &mut kind
            && !repeatable
            && *cause == Cause::Trigger
        {
            *cause = Cause::Unrepeatable;
        }
        self.say_by_values(&mut kind)?;
        self.wait(kind, back)
    }

    /// How the changes of a statement will be told apart.
    fn units(&mut self, statement: Option<&RecordedStatement<'_>>, seen: &Seen) -> Result<Units> {
        let Some(statement) = statement.filter(|s| s.base == 0) else {
            return Ok(Units::whole());
        };
        for sql in self.trigger_texts(statement)? {
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
        let (RowOp::Insert { after }, Some(statement)) = (&mut *op, statement) else {
            return Ok(());
        };
        let itself = cause == Cause::Statement && statement.inserts_itself(&table.name);
        let given = match statement.keys.get(table, itself) {
            Some(given) => given,
            None => {
                let given = self.is_key_given(statement, table, itself)?;
                statement.keys.note(table, itself, given);
                given
            }
        };
        if given {
            let after = std::mem::take(after);
            *op = RowOp::Add { after };
        }
        Ok(())
    }

    /// Whether SQLite gave new rows of this table their key, where the statement `itself` made them, or others.
    fn is_key_given(
        &mut self,
        statement: &RecordedStatement<'_>,
        table: &Arc<Table>,
        itself: bool,
    ) -> Result<bool> {
        let key = match table.is_virtual {
            true => Some(0),
            false => internal(|| self.state.schema.indexes(self.conn, table))?.rowid_key,
        };
        let Some(key) = key else { return Ok(false) };
        if itself {
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
        let triggers = self.trigger_texts(statement)?;
        let by_each = triggers
            .iter()
            .filter_map(|sql| given::by_trigger(&tokens(sql), table, key));
        // An upsert of a trigger, a statement that could not be found: rather no row overwritten.
        Ok(by_each.max().unwrap_or(true))
    }

    /// The texts of the triggers whose programs may have run.
    fn trigger_texts(&mut self, statement: &RecordedStatement<'_>) -> Result<Vec<Arc<str>>> {
        let text = |trigger| Ok(internal(|| self.state.schema.trigger(self.conn, trigger))?);
        statement.triggers().into_iter().map(text).collect()
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
