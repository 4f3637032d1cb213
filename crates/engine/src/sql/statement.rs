//! Prepared statements, parameters and rows.
//!
//! A [`Statement`] owns what it needs and has no lifetime. One that writes is run to its end when it is first stepped, and so
//! is committed, or fails, before its first row (of `RETURNING`) is given: the rows are kept until they are read.

use std::{fmt, sync::Arc};

use partial_sync_vfs::sqlite::{self, Stmt, codes};
use rusqlite::types::{FromSql, FromSqlResult, ToSql, ToSqlOutput, ValueRef};

use crate::{
    capture::{Arguments, classify::StatementClass},
    change::Value,
    error::{Error, Result},
    sql::{
        kept::Kept,
        shared_connection::{Ran, SharedConnection},
    },
};

impl FromSql for Value {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Ok(value.into())
    }
}

/// A prepared statement.
pub struct Statement {
    stmt: Stmt,
    class: StatementClass,
    /// Copies of the bound values, kept for statements that may be recorded as text.
    arguments: Option<Arguments>,
    /// The rows of a statement that writes and has ended.
    kept: Option<Kept>,
    connection: Arc<SharedConnection>,
}

impl fmt::Debug for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Statement").field(&self.stmt.sql()).finish()
    }
}

impl Statement {
    pub(crate) fn new(connection: Arc<SharedConnection>, stmt: Stmt, class: StatementClass) -> Self {
        let keeps = matches!(class, StatementClass::Write(_)) && stmt.parameter_count() > 0;
        Self {
            arguments: keeps.then(|| Arguments::of(&stmt)),
            stmt,
            class,
            kept: None,
            connection,
        }
    }

    /// Binds the values, runs to the end, and gives the number of rows changed (0 for statements that change none).
    pub fn execute(&mut self, params: impl Params) -> Result<u64> {
        self.start(params)?;
        let before = self.connection.total_changes();
        while self.step()? {}
        self.reset()?;
        let changed = self.connection.total_changes() != before;
        Ok(if changed { self.connection.changes() } else { 0 })
    }

    /// Binds the values and gives the rows, read one at a time.
    pub fn query(&mut self, params: impl Params) -> Result<Rows<'_>> {
        self.start(params)?;
        Ok(Rows {
            statement: self,
            done: false,
        })
    }

    /// Maps the first row; [`Error::NoRows`] when there is none.
    pub fn query_row<T>(
        &mut self,
        params: impl Params,
        map: impl FnOnce(&Row<'_>) -> Result<T>,
    ) -> Result<T> {
        let mut rows = self.query(params)?;
        match rows.next()? {
            Some(row) => map(&row),
            None => Err(Error::NoRows),
        }
    }

    fn start(&mut self, params: impl Params) -> Result<()> {
        self.reset()?;
        params.bind(self)
    }

    /// Binds parameter `index` (from 1).
    pub fn bind(&mut self, index: usize, value: impl ToSql) -> Result<()> {
        let value = value
            .to_sql()
            .map_err(|e| Error::Conversion(format!("parameter {index}: {e}")))?;
        let value = match &value {
            ToSqlOutput::Borrowed(value) => *value,
            ToSqlOutput::Owned(value) => ValueRef::from(value),
            _ => {
                return Err(Error::Conversion(format!(
                    "parameter {index} is of a kind that cannot be bound"
                )));
            }
        };
        self.stmt.bind(index, value)?;
        if let Some(arguments) = &mut self.arguments {
            arguments.set(&self.stmt, index, value.into());
        }
        Ok(())
    }

    /// Binds the parameter called `name`, with its prefix (`:a`, `@a`, `$a`).
    pub fn bind_named(&mut self, name: &str, value: impl ToSql) -> Result<()> {
        match self.stmt.parameter_index(name) {
            Some(index) => self.bind(index, value),
            None => {
                Err(sqlite::Error::new(codes::RANGE, format!("the statement has no parameter {name}")).into())
            }
        }
    }

    /// Makes every parameter NULL.
    pub fn clear_bindings(&mut self) {
        self.stmt.clear_bindings();
        if self.arguments.is_some() {
            self.arguments = Some(Arguments::of(&self.stmt));
        }
    }

    /// Runs until the next row: true when there is one. A statement that writes has run to its end by then, and outside of a
    /// transaction it is committed. After the end it starts over, like SQLite.
    pub fn step(&mut self) -> Result<bool> {
        let Self {
            stmt,
            class,
            arguments,
            kept,
            connection,
        } = self;
        if kept.is_none() {
            match connection.run(stmt, class, arguments.as_ref())? {
                Ran::Row => return Ok(true),
                Ran::Done => return Ok(false),
                Ran::Kept(rows) => *kept = Some(rows),
            }
        }
        let more = kept.as_mut().map_or(Ok(false), Kept::next);
        if !matches!(more, Ok(true)) {
            *kept = None;
        }
        more
    }

    /// Ends the current execution; bound values stay. Fails when what was executed could not be ended well.
    pub fn reset(&mut self) -> Result<()> {
        self.kept = None;
        Ok(self.stmt.reset()?)
    }

    /// Ends the current execution and gives the statement back, like dropping it, and tells what the end failed with.
    pub fn finalize(mut self) -> Result<()> {
        self.reset()
    }

    /// A value of the current row (column from 0).
    pub fn value(&self, column: usize) -> Result<ValueRef<'_>> {
        let Some(kept) = &self.kept else {
            return Ok(self.stmt.value(column)?);
        };
        match kept.value(column) {
            Some(value) => Ok(value.into()),
            None => Err(sqlite::Error::new(codes::RANGE, format!("there is no column {column}")).into()),
        }
    }

    /// Number of columns; 0 for a statement that gives no rows.
    pub fn column_count(&self) -> usize {
        self.stmt.column_count()
    }

    /// Name of a column (from 0).
    pub fn column_name(&self, column: usize) -> Result<String> {
        Ok(self.stmt.column_name(column)?)
    }

    /// Names of all columns.
    pub fn column_names(&self) -> Result<Vec<String>> {
        (0..self.column_count()).map(|i| self.column_name(i)).collect()
    }

    /// Declared type of the table column behind a result column; `None` for expressions.
    pub fn column_decltype(&self, column: usize) -> Result<Option<String>> {
        Ok(self.stmt.column_decltype(column)?)
    }

    /// Number of parameters: the largest index.
    pub fn parameter_count(&self) -> usize {
        self.stmt.parameter_count()
    }

    /// Name of parameter `index` (from 1) with its prefix; `None` for a plain `?`.
    pub fn parameter_name(&self, index: usize) -> Option<String> {
        self.stmt.parameter_name(index)
    }

    /// Index of the parameter called `name`, with its prefix.
    pub fn parameter_index(&self, name: &str) -> Option<usize> {
        self.stmt.parameter_index(name)
    }

    /// True when the statement itself changes nothing in any database.
    pub fn readonly(&self) -> bool {
        self.stmt.readonly()
    }

    /// True for EXPLAIN and EXPLAIN QUERY PLAN.
    pub fn is_explain(&self) -> bool {
        self.stmt.is_explain()
    }

    /// How often SQLite compiled it again because the schema had changed: its columns may be others then.
    pub fn reprepares(&self) -> i32 {
        self.stmt.reprepares()
    }

    /// The SQL text.
    pub fn sql(&self) -> String {
        self.stmt.sql().into_owned()
    }

    /// The SQL text with bound values in place of the parameters.
    pub fn expanded_sql(&self) -> Option<String> {
        self.stmt.expanded_sql()
    }
}

/// The rows of a query, one at a time. Dropping it ends the query; [`finish`](Self::finish) also tells how that went.
#[derive(Debug)]
pub struct Rows<'s> {
    statement: &'s mut Statement,
    done: bool,
}

impl Rows<'_> {
    /// The next row; `None` at the end.
    #[allow(clippy::should_implement_trait)] // a row borrows the statement, like rusqlite's
    pub fn next(&mut self) -> Result<Option<Row<'_>>> {
        if self.done || !self.statement.step().inspect_err(|_| self.done = true)? {
            self.done = true;
            return Ok(None);
        }
        Ok(Some(Row {
            statement: self.statement,
        }))
    }

    /// Ends the query.
    pub fn finish(self) -> Result<()> {
        self.statement.reset()
    }
}

impl Drop for Rows<'_> {
    fn drop(&mut self) {
        // Who wants to know calls `finish`. What a statement has written is committed, or has failed, before its first row.
        let _ = self.statement.reset();
    }
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct Row<'s> {
    statement: &'s Statement,
}

impl Row<'_> {
    /// The value of a column, by index (from 0) or name.
    pub fn get<T: FromSql>(&self, column: impl ColumnIndex) -> Result<T> {
        let column = column.index(self.statement)?;
        T::column_result(self.statement.value(column)?)
            .map_err(|e| Error::Conversion(format!("column {column} of {:?}: {e}", self.statement.sql())))
    }

    /// The value of a column, borrowed.
    pub fn get_ref(&self, column: impl ColumnIndex) -> Result<ValueRef<'_>> {
        self.statement.value(column.index(self.statement)?)
    }

    /// The statement that this is a row of.
    pub fn statement(&self) -> &Statement {
        self.statement
    }
}

/// Names a column: an index from 0, or a name.
pub trait ColumnIndex {
    /// The index.
    fn index(&self, statement: &Statement) -> Result<usize>;
}

impl ColumnIndex for usize {
    fn index(&self, _: &Statement) -> Result<usize> {
        Ok(*self)
    }
}

impl ColumnIndex for &str {
    fn index(&self, statement: &Statement) -> Result<usize> {
        for column in 0..statement.column_count() {
            if statement.column_name(column)?.eq_ignore_ascii_case(self) {
                return Ok(column);
            }
        }
        Err(sqlite::Error::new(codes::RANGE, format!("there is no column {self}")).into())
    }
}

/// Values for the parameters of a statement: `()`, an array, a tuple, a slice or vector, `rusqlite::params![..]`, or, in
/// [`Named`], pairs of name and value.
pub trait Params {
    /// Binds the values.
    fn bind(self, statement: &mut Statement) -> Result<()>;
}

fn expect(statement: &Statement, given: usize) -> Result<()> {
    let wanted = statement.parameter_count();
    if wanted == given {
        return Ok(());
    }
    let message = format!("the statement has {wanted} parameters, {given} values were given");
    Err(sqlite::Error::new(codes::RANGE, message).into())
}

impl Params for () {
    fn bind(self, statement: &mut Statement) -> Result<()> {
        expect(statement, 0)
    }
}

impl<T: ToSql> Params for &[T] {
    fn bind(self, statement: &mut Statement) -> Result<()> {
        expect(statement, self.len())?;
        self.iter()
            .enumerate()
            .try_for_each(|(i, value)| statement.bind(i + 1, value))
    }
}

impl<T: ToSql, const N: usize> Params for [T; N] {
    fn bind(self, statement: &mut Statement) -> Result<()> {
        self.as_slice().bind(statement)
    }
}

impl<T: ToSql, const N: usize> Params for &[T; N] {
    fn bind(self, statement: &mut Statement) -> Result<()> {
        self.as_slice().bind(statement)
    }
}

impl<T: ToSql> Params for Vec<T> {
    fn bind(self, statement: &mut Statement) -> Result<()> {
        self.as_slice().bind(statement)
    }
}

impl<T: ToSql> Params for &Vec<T> {
    fn bind(self, statement: &mut Statement) -> Result<()> {
        self.as_slice().bind(statement)
    }
}

/// Parameters by name. Those that are not named are NULL.
#[derive(Clone, Copy, Debug)]
pub struct Named<'p, T>(pub &'p [(&'p str, T)]);

impl<T: ToSql> Params for Named<'_, T> {
    fn bind(self, statement: &mut Statement) -> Result<()> {
        statement.clear_bindings();
        self.0
            .iter()
            .try_for_each(|(name, value)| statement.bind_named(name, value))
    }
}

/// Something that a row can be turned into: a value, or a tuple of values.
pub trait FromRow: Sized {
    /// Reads the columns from the first one on.
    fn from_row(row: &Row<'_>) -> Result<Self>;
}

macro_rules! tuples {
    ($($count:literal: $($name:ident $index:tt)+;)+) => {$(
        impl<$($name: ToSql),+> Params for ($($name,)+) {
            fn bind(self, statement: &mut Statement) -> Result<()> {
                expect(statement, $count)?;
                $(statement.bind($index + 1, self.$index)?;)+
                Ok(())
            }
        }

        impl<$($name: FromSql),+> FromRow for ($($name,)+) {
            fn from_row(row: &Row<'_>) -> Result<Self> {
                Ok(($(row.get::<$name>($index)?,)+))
            }
        }
    )+};
}

tuples! {
    1: A 0;
    2: A 0 B 1;
    3: A 0 B 1 C 2;
    4: A 0 B 1 C 2 D 3;
    5: A 0 B 1 C 2 D 3 E 4;
    6: A 0 B 1 C 2 D 3 E 4 F 5;
    7: A 0 B 1 C 2 D 3 E 4 F 5 G 6;
    8: A 0 B 1 C 2 D 3 E 4 F 5 G 6 H 7;
}

impl FromRow for Vec<Value> {
    fn from_row(row: &Row<'_>) -> Result<Self> {
        (0..row.statement.column_count()).map(|i| row.get(i)).collect()
    }
}
