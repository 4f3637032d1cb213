//! Rows that a statement writes into virtual tables: told from their shadow tables (`virtual_tables.rs`), or recorded as
//! the statement's text where that does the same wherever it is run, or refused.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use partial_sync_vfs::sqlite::{Step, ValueRef};

use super::{
    classify::internal,
    given,
    run::{RecordedStatement, Recording},
    schema::Known,
    units::{UnitChange, Units},
    virtual_tables::{Kind, Part, Spatial, VirtualTable, reindex},
};
use crate::{
    change::{
        Cause, ChangeKind, RowOp, StatementChange, StatementKind, Table, Value, sql::quoted, tokens::tokens,
    },
    error::{Error, Result},
};

/// How the writes of a statement into one virtual table are recorded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// As the rows that it wrote.
    Rows(Cause),
    /// As its text; the rows are not looked at.
    Text,
}

/// What was seen of virtual tables while a statement ran.
#[derive(Default)]
pub(super) struct VirtualRows {
    written: HashMap<String, How>,
    /// The statement itself writes to the virtual table, not a trigger.
    direct: bool,
    text: Option<String>,
    spatial: Vec<(Arc<VirtualTable>, Spatial)>,
    indexed: Vec<(Arc<VirtualTable>, Indexed)>,
    /// Rows of ordinary tables that were there before.
    before: Vec<(Arc<Table>, Vec<Value>)>,
    refused: Option<String>,
}

/// Rows of external content that were taken out of an index or put in, in order, and the unit of each.
#[derive(Default)]
struct Indexed {
    touched: Vec<i64>,
    units: HashMap<i64, usize>,
}

impl VirtualRows {
    pub(super) fn is_empty(&self) -> bool {
        self.written.is_empty()
    }

    fn how(&self, table: &VirtualTable) -> Option<How> {
        self.written.get(&table.name.to_ascii_lowercase()).copied()
    }

    /// A row of a shadow table changed.
    pub(super) fn see(
        &mut self,
        table: &Arc<VirtualTable>,
        part: Part,
        op: RowOp,
        units: &mut Units,
        changes: &mut Vec<UnitChange>,
    ) {
        let Some(How::Rows(cause)) = self.how(table) else {
            return;
        };
        let direct = self.direct;
        match (&table.kind, part) {
            (Kind::Content(rows), Part::Content) => {
                let unit = match direct {
                    true => units.next(0, matches!(op, RowOp::Delete { .. })),
                    false => units.inner(false),
                };
                content_row(rows, op, cause, unit, changes);
            }
            (Kind::Spatial(..), Part::RowId | Part::Node) => {
                entry(&mut self.spatial, table).see(part, op, direct, units);
            }
            (Kind::External { .. }, Part::DocSize) => {
                let (before, after) = op.images();
                if let Some(Value::Integer(id)) = before.or(after).and_then(|image| image.first()) {
                    let seen = entry(&mut self.indexed, table);
                    match seen.units.get(id) {
                        Some(&unit) if !direct => {
                            let here = units.inner(false);
                            units.join(unit, here);
                        }
                        Some(_) => {}
                        None => {
                            seen.units.insert(*id, units.inner(direct));
                            seen.touched.push(*id);
                        }
                    }
                }
            }
            (Kind::Contentless | Kind::Other, _) => self.refused = Some(table.name.clone()),
            _ => {}
        }
    }

    /// A row of an ordinary table changed; it may be the content of an index.
    pub(super) fn content(&mut self, table: &Arc<Table>, op: &RowOp) {
        let external = self.written.values().any(|how| matches!(how, How::Rows(_)));
        if let (true, (Some(before), _)) = (external, op.images()) {
            self.before.push((table.clone(), before.clone()));
        }
    }
}

fn entry<'v, T: Default>(all: &'v mut Vec<(Arc<VirtualTable>, T)>, table: &Arc<VirtualTable>) -> &'v mut T {
    let at = match all.iter().position(|(of, _)| of.name == table.name) {
        Some(at) => at,
        None => {
            all.push((table.clone(), T::default()));
            all.len() - 1
        }
    };
    &mut all[at].1
}

/// A row of a `_content` table: the id, the columns, and perhaps more.
fn content_row(table: &Arc<Table>, mut op: RowOp, cause: Cause, unit: usize, changes: &mut Vec<UnitChange>) {
    for image in op.images_mut() {
        image.truncate(table.columns.len());
        image.resize(table.columns.len(), Value::Null);
    }
    // FTS5 changes a row by deleting it and inserting it.
    if let RowOp::Insert { after } = &op
        && let Some(UnitChange {
            kind:
                ChangeKind::Row {
                    table: last,
                    op: RowOp::Delete { before },
                    ..
                },
            unit: same,
        }) = changes.last()
        && *same == unit
        && Arc::ptr_eq(last, table)
        && before.first() == after.first()
    {
        let (before, after) = (before.clone(), after.clone());
        changes.pop();
        if before == after {
            return;
        }
        op = RowOp::Update { before, after };
    }
    let table = table.clone();
    let kind = ChangeKind::Row { table, op, cause };
    changes.push(UnitChange { kind, unit });
}

impl Recording<'_> {
    /// The virtual tables that a statement writes to, itself or by triggers, and how that is recorded.
    pub(super) fn virtual_targets(&mut self, statement: &RecordedStatement<'_>) -> Result<VirtualRows> {
        let mut rows = VirtualRows::default();
        for target in statement.targets.iter().filter(|t| t.main) {
            let Known::Virtual(table) = self.known(&target.table)? else {
                continue;
            };
            let name = table.name.to_ascii_lowercase();
            rows.direct |= target.trigger.is_none();
            let cause = match &target.trigger {
                None => Cause::Statement,
                Some(trigger) => self.cause_of_trigger(statement, trigger)?,
            };
            if target.trigger.is_some() && matches!(table.kind, Kind::Other) {
                rows.refused = Some(table.name.clone());
            }
            let how = match cause {
                Cause::Statement if target.trigger.is_none() => self.how_recorded(statement, &table)?,
                cause => How::Rows(cause),
            };
            let how = match rows.written.get(&name) {
                None => how,
                Some(before) if *before == how => how,
                // The statement itself and its triggers: a remote whose triggers fire would do only part of it.
                Some(_) => How::Rows(Cause::Unrepeatable),
            };
            if how == How::Text {
                rows.text = Some(table.name.clone());
            }
            rows.written.insert(name, how);
        }
        Ok(rows)
    }

    fn cause_of_trigger(&mut self, statement: &RecordedStatement<'_>, trigger: &str) -> Result<Cause> {
        // What an INSTEAD OF trigger and a TEMP trigger do counts as the statement.
        let here = statement.base > 0 || internal(|| self.is_temporary(trigger))?;
        Ok(if here { Cause::Statement } else { Cause::Trigger })
    }

    /// How a statement that itself writes to this table is recorded.
    fn how_recorded(&mut self, statement: &RecordedStatement<'_>, table: &VirtualTable) -> Result<How> {
        let tokens = tokens(statement.sql);
        let command = given::is_command(&tokens, &table.name);
        let plain = given::is_plain_values(&tokens);
        let refuse = |why| {
            Err(Error::Unsupported {
                what: format!("this statement on the virtual table {}", table.name),
                why,
            })
        };
        match &table.kind {
            Kind::Content(_) | Kind::Spatial(..) if !command => Ok(How::Rows(Cause::Statement)),
            Kind::External { columns, .. } if !command => {
                let of = described(&table.name, columns);
                let chosen = !given::by_statement(&tokens, &of, 0).is_sqlite(statement.arguments);
                Ok(match plain && chosen {
                    true => How::Text,
                    false => How::Rows(Cause::Statement),
                })
            }
            Kind::External { .. } if !plain => Ok(How::Rows(Cause::Statement)),
            _ if command && plain => Ok(How::Text),
            _ if command => refuse("a command must be one row of values; the transaction was rolled back"),
            Kind::Contentless if plain => {
                let of = described(&table.name, &[]);
                match given::by_statement(&tokens, &of, 0).is_sqlite(statement.arguments) {
                    false => Ok(How::Text),
                    true => refuse(
                        "the table keeps no content, so a new row needs its rowid; the transaction was rolled back",
                    ),
                }
            }
            _ if plain || given::is_plain_change(&tokens) => Ok(How::Text),
            _ => refuse(
                "what it writes cannot be told from the table, so only statements with nothing but literal or bound \
                 values can be recorded; the transaction was rolled back",
            ),
        }
    }

    /// Adds what is known only when the statement has ended.
    pub(super) fn finish_virtual_rows(
        &mut self,
        statement: &RecordedStatement<'_>,
        mut rows: VirtualRows,
        units: &mut Units,
        changes: &mut Vec<UnitChange>,
    ) -> Result<()> {
        for change in changes.iter_mut() {
            if let ChangeKind::Row { table, op, cause } = &mut change.kind
                && table.is_virtual
            {
                let (table, cause) = (table.clone(), *cause);
                self.who_chose(Some(statement), &table, op, cause)?;
            }
        }
        if let Some(name) = rows.refused.take() {
            return Err(Error::Unsupported {
                what: format!("writing to the virtual table {name} from a trigger"),
                why: "the table keeps no content, so what was written cannot be recorded; the transaction was rolled back. \
                      Give it content, or write to it by a statement with literal or bound values",
            });
        }
        for (table, seen) in std::mem::take(&mut rows.spatial) {
            self.spatial_rows(statement, &table, &seen, &rows, units, changes)?;
        }
        for (table, seen) in std::mem::take(&mut rows.indexed) {
            self.indexed_rows(&table, &seen, &rows, changes)?;
        }
        if let Some(table) = rows.text {
            for statement in self.as_text(statement, table)? {
                let unit = units.inner(true);
                let kind = ChangeKind::Statement(statement);
                changes.push(UnitChange { kind, unit });
            }
        }
        Ok(())
    }

    /// A statement on a full-text table as it was written: each row that it writes under a key by itself, because what has
    /// that key may get another one on the remote.
    fn as_text(&mut self, statement: &RecordedStatement<'_>, table: String) -> Result<Vec<StatementChange>> {
        let (content, columns) = match self.known(&table)? {
            Known::Virtual(of) => match &of.kind {
                Kind::External { content, columns, .. } => (Some(content.clone()), columns.clone()),
                Kind::Contentless => (Some(String::new()), Vec::new()),
                _ => (None, Vec::new()),
            },
            _ => (None, Vec::new()),
        };
        if let Some(content) = content
            && given::is_plain_values(&tokens(statement.sql))
            && let Some(rows) = given::rows_by_key(
                statement.sql,
                &described(&table, &columns),
                0,
                statement.arguments,
            )
        {
            self.check_rows_have_numbers(&table)?;
            let change = |(sql, args)| StatementChange {
                sql,
                args,
                named: Vec::new(),
                kind: StatementKind::Reindex {
                    table: table.clone(),
                    content: content.clone(),
                    by_trigger: false,
                },
            };
            return Ok(rows.into_iter().map(change).collect());
        }
        Ok(vec![StatementChange {
            sql: statement.sql.to_owned(),
            args: statement.arguments.positional.clone(),
            named: statement.arguments.named.clone(),
            kind: StatementKind::VirtualTableWrite { table },
        }])
    }

    fn spatial_rows(
        &mut self,
        statement: &RecordedStatement<'_>,
        table: &VirtualTable,
        seen: &Spatial,
        rows: &VirtualRows,
        units: &mut Units,
        changes: &mut Vec<UnitChange>,
    ) -> Result<()> {
        let (Kind::Spatial(columns, coordinates), Some(How::Rows(cause))) = (&table.kind, rows.how(table))
        else {
            return Ok(());
        };
        for (id, touched_by) in &seen.touched {
            let id = *id;
            let before = internal(|| seen.before(self.conn, columns, *coordinates, id));
            let after = self.row_of(&table.name, &columns.columns[0].name, id)?;
            let mut op = match (before, after) {
                (None, Some(after)) => RowOp::Insert { after },
                (Some(before), Some(after)) if before == after => continue,
                (Some(before), Some(after)) => RowOp::Update { before, after },
                (Some(before), None) => RowOp::Delete { before },
                (None, None) => continue,
            };
            self.who_chose(Some(statement), columns, &mut op, cause)?;
            let unit = touched_by[0];
            touched_by.iter().for_each(|other| units.join(unit, *other));
            let table = columns.clone();
            let kind = ChangeKind::Row { table, op, cause };
            changes.push(UnitChange { kind, unit });
        }
        Ok(())
    }

    /// Rows of external content: out of the index as the content was before the statement, into it as it is after. A row
    /// that is gone is put in, too: nothing happens then, unless its deletion is left out where the change is run.
    fn indexed_rows(
        &mut self,
        table: &VirtualTable,
        seen: &Indexed,
        rows: &VirtualRows,
        changes: &mut Vec<UnitChange>,
    ) -> Result<()> {
        let (
            Kind::External {
                content,
                rowid,
                columns,
            },
            Some(How::Rows(cause)),
        ) = (&table.kind, rows.how(table))
        else {
            return Ok(());
        };
        if !seen.touched.is_empty() {
            self.check_rows_have_numbers(&table.name)?;
        }
        let (out, into) = reindex(&table.name, content, rowid, columns);
        let change = |sql: &str, id: i64, unit: usize| UnitChange {
            unit,
            kind: ChangeKind::Statement(StatementChange {
                sql: sql.to_owned(),
                args: vec![Value::Integer(id)],
                named: Vec::new(),
                kind: StatementKind::Reindex {
                    table: table.name.clone(),
                    content: content.clone(),
                    by_trigger: cause != Cause::Statement,
                },
            }),
        };
        let is_content = |of: &Table| of.name.eq_ignore_ascii_case(content);
        let number = |of: &Table, image: &[Value]| {
            let key = of.columns.iter().position(|c| c.name.eq_ignore_ascii_case(rowid));
            match image.get(key.or_else(|| of.key().first().copied())?) {
                Some(Value::Integer(id)) => Some(*id),
                _ => None,
            }
        };
        // `None`: the table has no column for its rowid.
        let before: HashSet<Option<i64>> = rows
            .before
            .iter()
            .filter(|(of, _)| is_content(of))
            .map(|(of, image)| number(of, image))
            .collect();
        // Their keys may be other rows' there, which are not to be taken out.
        let added: HashSet<i64> = changes
            .iter()
            .filter_map(|change| match &change.kind {
                ChangeKind::Row {
                    table,
                    op: RowOp::Add { after },
                    ..
                } if is_content(table) => number(table, after),
                _ => None,
            })
            .collect();
        let mut first = Vec::with_capacity(seen.touched.len());
        for &id in &seen.touched {
            let unit = seen.units[&id];
            let was = before.contains(&Some(id)) || before.contains(&None);
            let is = self.row_of(content, rowid, id)?.is_some();
            let indexed = self
                .row_of(&format!("{}_docsize", table.name), "id", id)?
                .is_some();
            if !is && (indexed || !was) {
                return Err(Error::Unsupported {
                    what: format!("writing row {id} to the full-text index {}", table.name),
                    why: "its content table has no such row, so what was indexed cannot be told; the transaction was rolled \
                          back. Write the values literally or bound, with the rowid",
                });
            }
            if !added.contains(&id) {
                first.push(change(&out, id, unit));
            }
            if indexed || !is {
                changes.push(change(&into, id, unit));
            }
        }
        changes.splice(0..0, first);
        Ok(())
    }

    /// Rows that an index names by a number which is nowhere in them may have other numbers on the remote.
    fn check_rows_have_numbers(&mut self, index: &str) -> Result<()> {
        let Known::Virtual(table) = self.known(index)? else {
            return Ok(());
        };
        let Kind::External { content, rowid, .. } = &table.kind else {
            return Ok(());
        };
        let Known::Ordinary(content) = self.known(content)? else {
            return Ok(());
        };
        let hidden = ["rowid", "oid", "_rowid_"].contains(&&*rowid.to_ascii_lowercase())
            && content
                .columns
                .iter()
                .all(|c| !c.name.eq_ignore_ascii_case(rowid));
        if !hidden || self.has_integer_key(&content)? {
            return Ok(());
        }
        Err(Error::Unsupported {
            what: format!(
                "writing to the full-text index {index}, whose content table {} has no INTEGER PRIMARY KEY",
                content.name
            ),
            why: "its rows may have other rowids on the remote, so the index would name other rows there; the transaction \
                  was rolled back. Give the content table an INTEGER PRIMARY KEY and name it as content_rowid",
        })
    }

    /// Whether the table's key is its rowid: any other key has an index.
    fn has_integer_key(&mut self, table: &Table) -> Result<bool> {
        if table.without_rowid || table.key().len() != 1 {
            return Ok(false);
        }
        internal(|| {
            let mut select = self
                .conn
                .prepare_one("SELECT 1 FROM pragma_index_list(?1, 'main') WHERE origin = 'pk'")?;
            select.bind(1, ValueRef::Text(table.name.as_bytes()))?;
            Ok(select.step()? == Step::Done)
        })
    }

    /// The row with this key, now.
    fn row_of(&mut self, table: &str, key: &str, id: i64) -> Result<Option<Vec<Value>>> {
        let key = if key.eq_ignore_ascii_case("rowid") {
            key.to_owned()
        } else {
            quoted(key)
        };
        let sql = format!("SELECT * FROM main.{} WHERE {key} = ?1", quoted(table));
        internal(|| {
            let mut select = self.conn.prepare_one(&sql)?;
            select.bind(1, ValueRef::Integer(id))?;
            if select.step()? == Step::Done {
                return Ok(None);
            }
            let row: partial_sync_vfs::sqlite::Result<_> = (0..select.column_count())
                .map(|i| Ok(Value::from(select.value(i)?)))
                .collect();
            Ok(Some(row?))
        })
    }
}

/// A full-text table as the reader of `INSERT` statements wants it.
fn described(name: &str, columns: &[String]) -> Table {
    let column = |name: &str, key| crate::change::Column {
        name: name.to_owned(),
        key,
        generated: false,
    };
    Table {
        name: name.to_owned(),
        columns: std::iter::once(column("rowid", 1))
            .chain(columns.iter().map(|c| column(c, 0)))
            .collect(),
        without_rowid: false,
        is_virtual: true,
    }
}
