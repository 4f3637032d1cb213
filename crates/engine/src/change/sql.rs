//! The one place that turns a change into SQL. Push and put-back both run what [`to_sql`] says, so that a replica and
//! its remote can only come to the same contents.
//!
//! The rules are those of `docs/protocol.md`, "The SQL of a change". What is not obvious from them:
//!
//! - A row is found by its primary key, or by its whole before image where it has none: in a table without a key, and
//!   in a row whose key holds NULL (SQLite allows any number of those in a rowid table). Of several rows that are equal
//!   in every column exactly one is meant, and it does not matter which.
//! - "Equal" is then exact: type and bytes, whatever the column's collation and affinity. One thing SQL cannot tell
//!   apart is `0.0` and `-0.0`, so of two rows that differ in nothing else either may be taken.
//! - Columns in a WHERE are written `"table"."column"`: a bare `"column"` that the remote does not have would silently
//!   become a string, and a DELETE could then match every row.
//! - Arguments are only ever what JSON can carry: NULL, integers, finite floats, text without NUL, blobs. Infinities are
//!   written into the SQL (`9e999`); so are NULs, as `char(0)` in the place of a character that the text does not have,
//!   whatever the database's encoding. Text that is not UTF-8 is sent as a blob and cast, which keeps its bytes in a UTF-8
//!   database; in others there is none.
//! - An update or delete of a row that is found by its values must find it: SQL that does not fails, rather than do nothing
//!   in silence. Of a row that is found by its key, nothing is missed: one that was deleted meanwhile is gone either way.
//! - What a table's constraints say of conflicts (`ON CONFLICT REPLACE`, `IGNORE`) was for the rows that were here: a statement
//!   says `OR ABORT`, so that elsewhere no other row goes and none is left out.
//! - With [`Mode::Triggers`] the key of a row that a trigger made may be another row's; see [`Cause::StatementByValues`].
//! - With [`Mode::Rows`] every change is written as it was recorded. With [`Mode::Triggers`] effects of triggers have no
//!   SQL: the remote's own triggers have them. Effects of foreign-key actions do nothing there where the remote did them
//!   already, so that no trigger fires twice: a delete finds no row, and an update is guarded by the old values of what it
//!   changes. In the log they come after the parent's change, which is right for both kinds of remote: one that enforces
//!   foreign keys has acted by then, one that does not has not objected.

use std::borrow::Cow;

use partial_sync_transport::bookkeeping::is_own;

pub use super::written::{MAX_PARAMETERS, SqlError, SqlStatement};
use super::{
    Cause, Change, ChangeKind, Mode, RowOp, StatementKind, Table, Value, statement,
    tokens::{own_table, tokens},
    written::{excerpt, written},
};

/// Whether a remote's or SQLite's message says that `ALTER TABLE ADD COLUMN` found the column there already.
pub fn is_duplicate_column(message: &str) -> bool {
    message.to_ascii_lowercase().contains("duplicate column name")
}

/// Evaluated where a statement is to fail: when the row that it must find is not there, or the remote is somewhere else than
/// expected. SQL has no other way to fail in an expression that every SQLite understands.
pub(super) const FAIL: &str = "abs(-9223372036854775808)";

/// Whether a message says that a statement failed by what it was given to fail with; one with [`SqlStatement::must_find`] did
/// not find its row then.
pub fn is_made_to_fail(message: &str) -> bool {
    message.to_ascii_lowercase().contains("integer overflow")
}

/// What is said then.
pub const ROW_GONE: &str =
    "no row with exactly these values is there any more, and no key tells which one is meant";

/// The SQL of a change; no statement when there is nothing to do.
pub fn to_sql(change: &Change, mode: Mode) -> Result<Vec<SqlStatement>, SqlError> {
    match &change.kind {
        kind if touches_own(kind) => Ok(Vec::new()),
        ChangeKind::Statement(change) => statement::to_sql(change, mode),
        ChangeKind::Row {
            cause: Cause::Trigger,
            ..
        } if mode == Mode::Triggers => Ok(Vec::new()),
        ChangeKind::Row {
            table,
            cause: Cause::Unrepeatable,
            ..
        } if mode == Mode::Triggers => Err(SqlError::Unrepeatable {
            table: table.name.clone(),
        }),
        ChangeKind::Row { table, op, cause } => {
            check_images(table, op)?;
            let find = Find::of(mode, *cause);
            Ok(match op {
                // Virtual tables have no ON CONFLICT.
                RowOp::Insert { after } if table.is_virtual => {
                    vec![
                        delete(table, after, Find::default())?,
                        insert(table, after, false)?,
                    ]
                }
                RowOp::Insert { after } => vec![insert(table, after, true)?],
                RowOp::Add { after } => vec![insert(table, after, false)?],
                RowOp::Update { before, after } => update(table, before, after, find)?.into_iter().collect(),
                RowOp::Delete { before } => vec![delete(table, before, find)?],
            })
        }
    }
}

/// Whether a change is one of this project's own tables. None is recorded today, but release 0.1.0 let a user drop or write
/// `turso_sync_last_change_id`, and such a change must reach nobody.
fn touches_own(kind: &ChangeKind) -> bool {
    match kind {
        ChangeKind::Row { table, .. } => is_own(&table.name),
        ChangeKind::Statement(s) => match &s.kind {
            StatementKind::VirtualTableWrite { table } => is_own(table),
            StatementKind::Sequence => false,
            _ => tokens(&s.sql).iter().any(|t| own_table(t).is_some()),
        },
    }
}

/// Indexes of the columns that `after` has another value in than `before`; generated ones never count.
pub(super) fn changed_columns(table: &Table, before: &[Value], after: &[Value]) -> Vec<usize> {
    written_columns(table)
        .filter(|&i| before[i] != after[i])
        .collect()
}

/// Indexes of the columns that can be written.
pub(super) fn written_columns(table: &Table) -> impl Iterator<Item = usize> {
    (0..table.columns.len()).filter(|&i| !table.columns[i].generated)
}

/// Indexes of the columns that name this row: its key when it has one without NULLs.
pub(crate) fn key_of(table: &Table, image: &[Value]) -> Option<Vec<usize>> {
    let key = table.key();
    let usable = !key.is_empty() && !key.iter().any(|&i| image[i].is_null());
    usable.then_some(key)
}

pub(super) fn check_images(table: &Table, op: &RowOp) -> Result<(), SqlError> {
    let (before, after) = op.images();
    for image in before.into_iter().chain(after) {
        if image.len() != table.columns.len() {
            return Err(SqlError::Image {
                table: table.name.clone(),
                expected: table.columns.len(),
                found: image.len(),
            });
        }
    }
    Ok(())
}

/// `upsert`: a row with the same key is overwritten, otherwise the statement fails.
fn insert(table: &Table, after: &[Value], upsert: bool) -> Result<SqlStatement, SqlError> {
    let mut out = Writer::new(table);
    let columns: Vec<usize> = written_columns(table).collect();
    out.push(&format!(
        "INSERT {}INTO {} ({}) VALUES (",
        or_abort(table),
        quoted(&table.name),
        out.names(&columns)
    ));
    for (n, &i) in columns.iter().enumerate() {
        out.push(if n == 0 { "" } else { ", " });
        out.column_value(i, &after[i])?;
    }
    out.push(")");
    // A key with a NULL in it conflicts with nothing, so such a row is simply added, as one without a key is.
    if upsert && let Some(key) = key_of(table, after) {
        let others: Vec<String> = columns
            .iter()
            .filter(|i| !key.contains(i))
            .map(|&i| {
                let name = quoted(&table.columns[i].name);
                format!("{name} = excluded.{name}")
            })
            .collect();
        out.push(&format!(" ON CONFLICT ({}) DO ", out.names(&key)));
        match others.is_empty() {
            true => out.push("NOTHING"),
            false => out.push(&format!("UPDATE SET {}", others.join(", "))),
        }
    }
    out.finish()
}

/// How the row of a change is found.
#[derive(Clone, Copy, Default)]
struct Find {
    /// The database may have done the same by itself: then there is nothing left to find.
    repeated: bool,
    /// The key does not tell.
    by_values: bool,
}

impl Find {
    fn of(mode: Mode, cause: Cause) -> Self {
        use Cause::{ForeignKey, ForeignKeyByValues, StatementByValues};
        match mode {
            Mode::Rows | Mode::Enforced => Self::default(),
            Mode::Triggers => Self {
                repeated: matches!(cause, ForeignKey | ForeignKeyByValues),
                by_values: matches!(cause, StatementByValues | ForeignKeyByValues),
            },
        }
    }
}

fn update(
    table: &Table,
    before: &[Value],
    after: &[Value],
    find: Find,
) -> Result<Option<SqlStatement>, SqlError> {
    let changed = changed_columns(table, before, after);
    if changed.is_empty() {
        return Ok(None);
    }
    let mut out = Writer::new(table);
    out.push(&format!("UPDATE {}{} SET ", or_abort(table), quoted(&table.name)));
    for (n, &i) in changed.iter().enumerate() {
        let separator = if n == 0 { "" } else { ", " };
        out.push(&format!("{separator}{} = ", quoted(&table.columns[i].name)));
        out.column_value(i, &after[i])?;
    }
    out.this_row(before, if find.repeated { &changed } else { &[] }, find)?;
    out.finish().map(Some)
}

fn delete(table: &Table, before: &[Value], find: Find) -> Result<SqlStatement, SqlError> {
    let mut out = Writer::new(table);
    out.push(&format!("DELETE FROM {}", quoted(&table.name)));
    out.this_row(before, &[], find)?;
    out.finish()
}

/// Nothing but a statement's own words overrides what a constraint says; a virtual table has none that say anything.
const fn or_abort(table: &Table) -> &'static str {
    if table.is_virtual { "" } else { "OR ABORT " }
}

/// A name between double quotes.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A statement under construction: arguments are added in the order of their parameters in the text.
struct Writer<'t> {
    table: &'t Table,
    sql: String,
    args: Vec<Value>,
    must_find: bool,
}

impl<'t> Writer<'t> {
    fn new(table: &'t Table) -> Self {
        Self {
            table,
            sql: String::new(),
            args: Vec::new(),
            must_find: false,
        }
    }

    fn push(&mut self, sql: &str) {
        self.sql.push_str(sql);
    }

    fn names(&self, columns: &[usize]) -> String {
        let names: Vec<String> = columns
            .iter()
            .map(|&i| quoted(&self.table.columns[i].name))
            .collect();
        names.join(", ")
    }

    /// The text of a column's value; its argument is added.
    fn value(&mut self, column: usize, value: &Value) -> Result<Cow<'static, str>, SqlError> {
        let (sql, arg) = written(value).ok_or_else(|| SqlError::NotANumber {
            place: format!(
                "column {:?} of table {:?}",
                self.table.columns[column].name, self.table.name
            ),
        })?;
        self.args.extend(arg);
        Ok(sql)
    }

    fn column_value(&mut self, column: usize, value: &Value) -> Result<(), SqlError> {
        let sql = self.value(column, value)?;
        self.push(&sql);
        Ok(())
    }

    /// `WHERE` exactly this row; and, of a row found by its key, only while the guarded columns are as they were. A row
    /// that is found by its values must be there, or the statement fails.
    fn this_row(&mut self, before: &[Value], guarded: &[usize], find: Find) -> Result<(), SqlError> {
        let key = key_of(self.table, before).filter(|_| !find.by_values);
        if let Some(key) = key {
            let mut terms = Vec::with_capacity(key.len() + guarded.len());
            for &i in &key {
                terms.push(self.same_key(i, &before[i])?);
            }
            for &i in guarded {
                terms.push(self.same_value(i, &before[i])?);
            }
            self.push(&format!(" WHERE {}", all_of(terms)));
            return Ok(());
        }
        let rowid = self.rowid()?;
        let columns: Vec<usize> = written_columns(self.table).collect();
        let terms = columns
            .into_iter()
            .map(|i| self.same_value(i, &before[i]))
            .collect::<Result<Vec<_>, _>>()?;
        let row = format!(
            "(SELECT {rowid} FROM {} WHERE {} LIMIT 1)",
            quoted(&self.table.name),
            all_of(terms)
        );
        self.must_find = !find.repeated;
        self.push(&match self.must_find {
            true => format!(" WHERE {rowid} = coalesce({row}, {FAIL})"),
            false => format!(" WHERE {rowid} = {row}"),
        });
        Ok(())
    }

    /// A name of the rowid that no column hides.
    fn rowid(&self) -> Result<&'static str, SqlError> {
        let hidden = |name: &str| {
            self.table
                .columns
                .iter()
                .any(|column| column.name.eq_ignore_ascii_case(name))
        };
        ["rowid", "_rowid_", "oid"]
            .into_iter()
            .find(|name| !self.table.without_rowid && !hidden(name))
            .ok_or_else(|| SqlError::NoRowIdentity {
                table: self.table.name.clone(),
            })
    }

    fn column(&self, i: usize) -> String {
        format!(
            "{}.{}",
            quoted(&self.table.name),
            quoted(&self.table.columns[i].name)
        )
    }

    /// The column holds this key value as the key's own index compares.
    fn same_key(&mut self, i: usize, value: &Value) -> Result<String, SqlError> {
        let sql = self.value(i, value)?;
        // A virtual table finds its row by `=` only; its rowid is never NULL.
        let is = if self.table.is_virtual { "=" } else { "IS" };
        Ok(format!("{} {is} {sql}", self.column(i)))
    }

    /// The column holds this value, of this type and with these bytes; never NULL.
    fn same_value(&mut self, i: usize, value: &Value) -> Result<String, SqlError> {
        let column = self.column(i);
        if value.is_null() {
            return Ok(format!("{column} IS NULL"));
        }
        let sql = self.value(i, value)?;
        Ok(match value {
            Value::Integer(_) => format!("{column} IS {sql} AND typeof({column}) = 'integer'"),
            Value::Real(_) => format!("{column} IS {sql} AND typeof({column}) = 'real'"),
            Value::Text(_) | Value::RawText(_) => {
                format!("{column} COLLATE BINARY IS {sql} AND typeof({column}) = 'text'")
            }
            Value::Null | Value::Blob(_) => format!("{column} IS {sql}"),
        })
    }

    fn finish(self) -> Result<SqlStatement, SqlError> {
        if self.args.len() > MAX_PARAMETERS {
            return Err(SqlError::TooManyParameters {
                table: self.table.name.clone(),
                count: self.args.len(),
            });
        }
        Ok(SqlStatement {
            sql: self.sql,
            args: self.args,
            skip_if_duplicate_column: false,
            must_find: self.must_find,
        })
    }
}

/// The terms joined by AND. SQLite refuses expressions deeper than 1000, and a chain of ANDs is as deep as it is long:
/// a long one is written in groups.
fn all_of(terms: Vec<String>) -> String {
    const GROUP: usize = 50;
    if terms.len() <= GROUP {
        return terms.join(" AND ");
    }
    let groups = terms
        .chunks(GROUP)
        .map(|group| format!("({})", group.join(" AND ")))
        .collect();
    all_of(groups)
}

/// A statement that someone else wrote, with values for its positional parameters, brought into the same form.
pub fn custom(sql: &str, args: &[Value]) -> Result<SqlStatement, SqlError> {
    statement::plain(sql, args, &[]).map_err(|e| match e {
        SqlError::NotAStatement { .. } => SqlError::NotAStatement {
            expected: "a rewritten change",
            sql: excerpt(sql),
        },
        other => other,
    })
}
