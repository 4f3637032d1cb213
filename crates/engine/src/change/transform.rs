//! The `transform` callback: an application may leave out or rewrite each row change before it is sent and before it is
//! put back after a pull. Both go through [`statements`], so both see the same decision.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    Change, ChangeKind, Mode, RowOp, StatementKind, Table, Value,
    sql::{SqlError, SqlStatement, changed_columns, check_images, custom, key_of, to_sql, written_columns},
    tokens::{Token, tokens},
};

/// A row by column name; generated columns are left out.
pub type RowValues = BTreeMap<String, Value>;

/// What happened to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChangeType {
    /// A new row.
    Insert,
    /// A row changed.
    Update,
    /// A row is gone.
    Delete,
}

/// A row change as the callback sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransformMutation {
    /// When it was made, in seconds since 1970.
    pub change_time: i64,
    /// The table.
    pub table_name: String,
    /// The row's key where that is one integer: before the change, or of the new row.
    pub id: Option<i64>,
    /// What happened.
    pub change_type: ChangeType,
    /// The row before, unless it is new.
    pub before: Option<RowValues>,
    /// The row after, unless it is gone.
    pub after: Option<RowValues>,
    /// Of an update: the new values of the columns that changed.
    pub updates: Option<RowValues>,
}

/// What the callback decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transform {
    /// The change is sent as it is.
    Keep,
    /// The change is left out.
    Skip,
    /// This statement takes its place.
    Rewrite {
        /// One statement.
        sql: String,
        /// The values of its positional parameters.
        values: Vec<Value>,
    },
    /// The callback could not decide: the push or the put-back stops with this message.
    Fail(String),
}

/// The callback.
pub type TransformFn = dyn Fn(&TransformMutation) -> Transform + Send + Sync;

/// The SQL of a change after the callback has seen it. It sees every row that is written, each by itself: what triggers did
/// only where that is sent. Entries of an index over another table's rows follow those and are not shown, nor is what is
/// recorded as a statement.
pub fn statements(
    change: &Change,
    mode: Mode,
    transform: Option<(&TransformFn, &Entries)>,
) -> Result<Vec<SqlStatement>, SqlError> {
    let sql = to_sql(change, mode)?;
    let (Some((transform, entries)), ChangeKind::Row { table, op, .. }) = (transform, &change.kind) else {
        return Ok(sql);
    };
    if sql.is_empty() {
        return Ok(sql);
    }
    match transform(&mutation(change.time, table, op)?) {
        Transform::Keep => Ok(sql),
        Transform::Skip => Ok(Vec::new()),
        Transform::Rewrite { sql, values } => {
            let rewritten = custom(&sql, &values)?;
            let entries = entries.of_new_row(table, &rewritten.sql, mode);
            Ok(std::iter::once(rewritten).chain(entries).collect())
        }
        Transform::Fail(message) => Err(SqlError::Transform {
            table: table.name.clone(),
            message,
        }),
    }
}

/// The indexes over rows of other tables that some changes write, so that a new row that takes the place of another one is
/// found, whatever its number is: what the changes say of the index is for the number that the row had here.
#[derive(Debug, Default)]
pub struct Entries(HashMap<String, BTreeSet<String>>);

impl Entries {
    /// Those of these changes.
    pub fn of(changes: &[Change]) -> Self {
        let mut entries = Self::default();
        for change in changes {
            if let ChangeKind::Statement(statement) = &change.kind
                && let StatementKind::Reindex { content, .. } = &statement.kind
                && let Some((head, tail)) = statement.sql.rsplit_once(" = ? AND NOT EXISTS ")
            {
                let sql = format!("{head} = last_insert_rowid() AND NOT EXISTS {tail}");
                entries
                    .0
                    .entry(content.to_ascii_lowercase())
                    .or_default()
                    .insert(sql);
            }
        }
        entries
    }

    /// What puts the row that a rewritten change has inserted into the indexes of its table. Where triggers fire, they do.
    fn of_new_row(&self, table: &Table, sql: &str, mode: Mode) -> Vec<SqlStatement> {
        let Some(entries) = self.0.get(&table.name.to_ascii_lowercase()) else {
            return Vec::new();
        };
        let tokens = tokens(sql);
        let inserts = tokens.first().is_some_and(|t| t.is("INSERT") || t.is("REPLACE"));
        let names = |token: &Token<'_>| {
            token
                .name()
                .is_some_and(|name| name.eq_ignore_ascii_case(&table.name))
        };
        if !mode.is_rows() || !inserts || !tokens.iter().any(names) {
            return Vec::new();
        }
        let statement = |sql: &String| SqlStatement {
            sql: sql.clone(),
            args: Vec::new(),
            skip_if_duplicate_column: false,
            must_find: false,
        };
        entries.iter().map(statement).collect()
    }
}

fn mutation(change_time: i64, table: &Table, op: &RowOp) -> Result<TransformMutation, SqlError> {
    check_images(table, op)?;
    let row = |image: &[Value], columns: &[usize]| -> RowValues {
        columns
            .iter()
            .map(|&i| (table.columns[i].name.clone(), image[i].clone()))
            .collect()
    };
    let all: Vec<usize> = written_columns(table).collect();
    let (change_type, named_by, before, after, updates) = match op {
        RowOp::Insert { after } | RowOp::Add { after } => {
            (ChangeType::Insert, after, None, Some(row(after, &all)), None)
        }
        RowOp::Delete { before } => (ChangeType::Delete, before, Some(row(before, &all)), None, None),
        RowOp::Update { before, after } => (
            ChangeType::Update,
            before,
            Some(row(before, &all)),
            Some(row(after, &all)),
            Some(row(after, &changed_columns(table, before, after))),
        ),
    };
    let id = match key_of(table, named_by).as_deref() {
        Some(&[only]) => match named_by[only] {
            Value::Integer(id) => Some(id),
            _ => None,
        },
        _ => None,
    };
    Ok(TransformMutation {
        change_time,
        table_name: table.name.clone(),
        id,
        change_type,
        before,
        after,
        updates,
    })
}
