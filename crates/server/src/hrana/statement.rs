//! One SQL text: prepare, bind, run, collect; and what describe and sequence need.
//!
//! A statement that is reported as failed has changed nothing: never leave a half-read writing statement to its reset,
//! which would commit it.

use std::borrow::Cow;

use partial_sync_transport::hrana::{self, Col, Stmt, StmtResult, Value};
use rusqlite::{
    Batch, Statement,
    fallible_iterator::FallibleIterator as _,
    types::{ToSqlOutput, ValueRef},
};

use super::{
    budget::{Budget, in_json},
    connection::SqlConnection,
    error::{code, error, many_statements},
    guard::without_path,
    wire::{DescribeCol, DescribeParam, DescribeResult},
};

/// Why a write to the table of the clients' positions was undone.
const ONE_ROW: &str = "changing several rows of turso_sync_last_change_id is not allowed here: it says how far each client \
                       has pushed, and a client writes its own row only";

/// Runs the one statement of `sql`.
pub(super) fn execute(
    connection: &SqlConnection,
    sql: &str,
    stmt: &Stmt,
    budget: &mut Budget,
) -> Result<StmtResult, hrana::Error> {
    let (mut statement, one_row) = prepare_one(connection, sql)?;
    bind(connection, &mut statement, stmt)?;
    if one_row {
        return in_savepoint(connection, || {
            let result = run(connection, statement, stmt, budget)?;
            match result.affected_row_count {
                0 | 1 => Ok(result),
                _ => Err(error("SQLITE_AUTH", ONE_ROW)),
            }
        });
    }
    run(connection, statement, stmt, budget)
}

/// Keeps what `work` does if it succeeds, undoes it otherwise.
fn in_savepoint<T>(
    connection: &SqlConnection,
    work: impl FnOnce() -> Result<T, hrana::Error>,
) -> Result<T, hrana::Error> {
    let batch = |sql| {
        connection
            .sqlite()
            .execute_batch(sql)
            .map_err(|e| connection.explain(e))
    };
    batch("SAVEPOINT partial_sync_one_row")?;
    let result = work();
    if result.is_err() && !connection.sqlite().is_autocommit() {
        batch("ROLLBACK TO partial_sync_one_row")?;
    }
    match result {
        Err(_) if connection.sqlite().is_autocommit() => result,
        result => batch("RELEASE partial_sync_one_row").and(result),
    }
}

fn run(
    connection: &SqlConnection,
    mut statement: Statement<'_>,
    stmt: &Stmt,
    budget: &mut Budget,
) -> Result<StmtResult, hrana::Error> {
    connection.queue(&statement)?;
    let before = connection.sqlite().total_changes();
    let mut result = StmtResult {
        cols: columns(&statement),
        ..StmtResult::default()
    };
    budget.take(result.cols.iter().map(col_size).sum())?;
    let writes = !statement.readonly();
    let want_rows = stmt.want_rows.unwrap_or(true);
    let mut rows = statement.raw_query();
    let mut first = true;
    while let Some(row) = rows.next().map_err(|e| connection.explain(e))? {
        if std::mem::take(&mut first) {
            // SQLite prepares again when the schema has changed since; then the columns may be others.
            result.cols = columns(row.as_ref());
        }
        if !want_rows {
            continue;
        }
        match read_row(row, &result.cols, budget) {
            Ok(values) => result.rows.push(values),
            Err(failure) => {
                if writes {
                    // Interrupted at its next step, it rolls back; reset as it is, it would commit.
                    connection.interrupt_handle().interrupt();
                    let _ = rows.next();
                }
                return Err(failure);
            }
        }
    }
    drop(rows);
    if connection.sqlite().total_changes() != before {
        result.affected_row_count = connection.sqlite().changes();
        result.last_insert_rowid = Some(connection.sqlite().last_insert_rowid());
    }
    Ok(result)
}

/// Runs every statement of `sql`, one after the other, without their rows, until one or `before_each` fails.
pub(super) fn sequence(
    connection: &SqlConnection,
    sql: &str,
    mut before_each: impl FnMut() -> Result<(), hrana::Error>,
) -> Result<(), hrana::Error> {
    let mut batch = Batch::new(connection.sqlite(), sql);
    loop {
        before_each()?;
        connection.before_prepare();
        let Some(mut statement) = batch.next().map_err(|e| connection.explain(e))? else {
            return Ok(());
        };
        if connection.after_prepare(|| statement.expanded_sql().map(Cow::Owned))? {
            // A push sends single statements.
            return Err(error("SQLITE_AUTH", ONE_ROW));
        }
        connection.queue(&statement)?;
        let mut rows = statement.raw_query();
        while rows.next().map_err(|e| connection.explain(e))?.is_some() {}
    }
}

/// What the one statement of `sql` takes and gives, without running it.
pub(super) fn describe(
    connection: &SqlConnection,
    sql: &str,
    budget: &mut Budget,
) -> Result<DescribeResult, hrana::Error> {
    let (statement, _) = prepare_one(connection, sql)?;
    for index in 1..=statement.parameter_count() {
        budget.take(40 + statement.parameter_name(index).map_or(0, in_json))?;
    }
    let params = (1..=statement.parameter_count())
        .map(|index| DescribeParam {
            name: statement.parameter_name(index).map(str::to_owned),
        })
        .collect();
    let cols = columns(&statement);
    budget.take(cols.iter().map(col_size).sum())?;
    let cols = cols
        .into_iter()
        .map(|col| DescribeCol {
            name: col.name.unwrap_or_default(),
            decltype: col.decltype,
        })
        .collect();
    Ok(DescribeResult {
        params,
        cols,
        is_explain: statement.is_explain() != 0,
        is_readonly: statement.readonly(),
    })
}

/// Prepares the one statement of a text. (Not with `Connection::prepare`, which calls itself for what follows the
/// first statement: a long enough text would use up the stack.)
///
/// Also says whether it may change one row only.
fn prepare_one<'c>(connection: &'c SqlConnection, sql: &str) -> Result<(Statement<'c>, bool), hrana::Error> {
    let sql = without_path(sql);
    connection.before_prepare();
    let mut batch = Batch::new(connection.sqlite(), sql);
    let Some(statement) = batch.next().map_err(|e| connection.explain(e))? else {
        return Err(error(code::NO_STATEMENT, "the SQL text has no statement in it"));
    };
    let one_row = connection.after_prepare(|| Some(Cow::Borrowed(sql)))?;
    match batch.next().map_err(|e| connection.explain(e))? {
        None => Ok((statement, one_row)),
        Some(_) => Err(many_statements()),
    }
}

fn columns(statement: &Statement<'_>) -> Vec<Col> {
    statement
        .columns()
        .map(|column| Col {
            name: Some(column.name().to_owned()),
            decltype: column.decl_type().map(str::to_owned),
        })
        .collect()
}

fn col_size(col: &Col) -> usize {
    40 + col.name.as_deref().map_or(0, in_json) + col.decltype.as_deref().map_or(0, in_json)
}

/// Binds by position, then by name; a named argument wins. Every parameter must get a value, and every value must
/// have a parameter.
fn bind(connection: &SqlConnection, statement: &mut Statement<'_>, stmt: &Stmt) -> Result<(), hrana::Error> {
    let count = statement.parameter_count();
    let invalid = |message: String| error(code::ARGS_INVALID, message);
    if stmt.args.len() > count {
        return Err(invalid(format!(
            "the statement has {count} parameters, but {} positional arguments came",
            stmt.args.len()
        )));
    }
    let mut bound = vec![false; count];
    for (index, value) in stmt.args.iter().enumerate() {
        statement
            .raw_bind_parameter(index + 1, Arg(value))
            .map_err(|e| connection.explain(e))?;
        bound[index] = true;
    }
    for named in &stmt.named_args {
        let index = parameter_index(statement, &named.name)
            .ok_or_else(|| invalid(format!("the statement has no parameter named {:?}", named.name)))?;
        statement
            .raw_bind_parameter(index, Arg(&named.value))
            .map_err(|e| connection.explain(e))?;
        bound[index - 1] = true;
    }
    match bound.iter().position(|b| !b) {
        None => Ok(()),
        Some(index) => {
            let name = statement.parameter_name(index + 1).unwrap_or("?");
            Err(invalid(format!(
                "parameter {} ({name}) of the statement has no argument",
                index + 1
            )))
        }
    }
}

/// The index of a named parameter; without a prefix, the prefix is guessed.
fn parameter_index(statement: &Statement<'_>, name: &str) -> Option<usize> {
    let find = |name: &str| statement.parameter_index(name).ok().flatten();
    if name.starts_with([':', '@', '$', '?']) {
        return find(name);
    }
    [':', '@', '$', '?']
        .into_iter()
        .find_map(|prefix| find(&format!("{prefix}{name}")))
}

/// An argument, bound without a copy.
struct Arg<'v>(&'v Value);

impl rusqlite::ToSql for Arg<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self.0 {
            Value::Null => ValueRef::Null,
            Value::Integer { value } => ValueRef::Integer(*value),
            Value::Float { value } => ValueRef::Real(*value),
            Value::Text { value } => ValueRef::Text(value.as_bytes()),
            Value::Blob { base64 } => ValueRef::Blob(base64),
        }))
    }
}

fn read_row(row: &rusqlite::Row<'_>, cols: &[Col], budget: &mut Budget) -> Result<Vec<Value>, hrana::Error> {
    // What it takes in memory, which for small values is more than their JSON.
    budget.take(40)?;
    let mut values = Vec::with_capacity(cols.len());
    for (index, col) in cols.iter().enumerate() {
        let value = row
            .get_ref(index)
            .map_err(|e| error("SQLITE_ERROR", e.to_string()))?;
        values.push(read_value(value, col, budget)?);
    }
    Ok(values)
}

fn read_value(value: ValueRef<'_>, col: &Col, budget: &mut Budget) -> Result<Value, hrana::Error> {
    let name = || col.name.as_deref().unwrap_or_default();
    Ok(match value {
        ValueRef::Null => {
            budget.take(32)?;
            Value::Null
        }
        ValueRef::Integer(value) => {
            budget.take(54)?;
            Value::Integer { value }
        }
        ValueRef::Real(value) => {
            budget.take(52)?;
            Value::Float { value }
        }
        ValueRef::Text(bytes) => {
            let text = std::str::from_utf8(bytes).map_err(|_| {
                error(
                    code::TEXT_NOT_UTF8,
                    format!(
                        "column {:?} has text that is not UTF-8: select CAST({} AS BLOB) instead",
                        name(),
                        name()
                    ),
                )
            })?;
            budget.take(48 + in_json(text))?;
            Value::Text {
                value: text.to_owned(),
            }
        }
        ValueRef::Blob(bytes) => {
            budget.take(48 + bytes.len().div_ceil(3) * 4)?;
            Value::Blob {
                base64: bytes.to_vec(),
            }
        }
    })
}
