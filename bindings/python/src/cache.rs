//! Prepared statements of a connection that nobody uses at the moment, by their text.

use std::{collections::HashMap, sync::Arc};

use partial_sync::{Connection, Error, Statement};
use partial_sync_transport::tokens;

use crate::{columns::Columns, program};

/// A statement and what is known about it.
pub(crate) struct Prepared {
    pub statement: Statement,
    pub sql: Arc<str>,
    /// INSERT, UPDATE, DELETE or REPLACE: what an implicit transaction is begun for.
    pub is_dml: bool,
    /// It changes the schema, so it is compiled again for each run.
    is_ddl: bool,
    /// It changes nothing, so its rows can be read one at a time.
    pub reads: bool,
    /// What it does can be undone by a savepoint that it may run in.
    pub can_be_undone: bool,
    pub parameters: usize,
    /// A large value was bound, which should not stay in memory.
    pub heavy: bool,
    columns: Option<Arc<Columns>>,
    reprepares: i32,
    /// Whether it can only end after a row; see [`Self::ends_after_a_row`].
    ends_after_a_row: Option<bool>,
}

impl Prepared {
    pub(crate) fn new(statement: Statement, sql: &str) -> Self {
        let is_dml = begins_with(sql, &["INSERT", "UPDATE", "DELETE", "REPLACE"]);
        Self {
            is_dml,
            is_ddl: begins_with(sql, &["CREATE", "ALTER", "DROP"]),
            // Not PRAGMA, ATTACH and VACUUM.
            can_be_undone: is_dml || begins_with(sql, &["WITH", "CREATE", "REINDEX", "ALTER"]),
            reads: statement.readonly(),
            parameters: statement.parameter_count(),
            sql: sql.into(),
            heavy: false,
            columns: None,
            reprepares: 0,
            ends_after_a_row: None,
            statement,
        }
    }

    /// Whether the statement, once it has given a row, reads nothing more: by a key, or an aggregate over all rows.
    pub(crate) fn ends_after_a_row(&mut self, connection: &Connection) -> Result<bool, Error> {
        match self.ends_after_a_row {
            Some(ends) if self.statement.reprepares() == self.reprepares => Ok(ends),
            _ => {
                let ends = program::ends_after_a_row(connection, &self.sql)?;
                self.ends_after_a_row = Some(ends);
                Ok(ends)
            }
        }
    }

    /// Its columns as they are now: SQLite compiles a statement again when the schema has changed.
    pub(crate) fn columns(&mut self) -> Result<Arc<Columns>, Error> {
        let reprepares = self.statement.reprepares();
        match &self.columns {
            Some(columns) if reprepares == self.reprepares => Ok(columns.clone()),
            _ => {
                let columns = Arc::new(Columns::of(&self.statement)?);
                self.columns = Some(columns.clone());
                self.reprepares = reprepares;
                Ok(columns)
            }
        }
    }
}

/// Whether the first word of a statement is one of these.
pub(crate) fn begins_with(sql: &str, words: &[&str]) -> bool {
    tokens::first(sql).is_some_and(|first| words.iter().any(|word| first.is(word)))
}

/// Keeps the statements that were used last.
pub(crate) struct Cache {
    capacity: usize,
    /// The one that was used last; programs like to run the same statement again.
    last: Option<Prepared>,
    others: HashMap<Arc<str>, (Prepared, u64)>,
    uses: u64,
}

impl Cache {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            last: None,
            others: HashMap::new(),
            uses: 0,
        }
    }

    /// Takes the statement with this text out.
    pub(crate) fn take(&mut self, sql: &str) -> Option<Prepared> {
        if self.last.as_ref().is_some_and(|last| *last.sql == *sql) {
            return self.last.take();
        }
        self.others.remove(sql).map(|(prepared, _)| prepared)
    }

    /// Gives one back, which must have been reset. The one that was used longest ago may have to go for it.
    ///
    /// One that changes the schema is not kept: where SQLite finds only in the middle of a run that the schema has changed, it
    /// keeps the lock to write for as long as other statements of the connection are read.
    pub(crate) fn put(&mut self, mut prepared: Prepared) {
        if prepared.is_ddl {
            return;
        }
        if std::mem::take(&mut prepared.heavy) {
            prepared.statement.clear_bindings();
        }
        if self.capacity == 0 {
            return;
        }
        let Some(before) = self.last.replace(prepared) else {
            return;
        };
        if self.capacity == 1 {
            return;
        }
        self.uses += 1;
        self.others.insert(before.sql.clone(), (before, self.uses));
        if self.others.len() >= self.capacity
            && let Some(oldest) = self
                .others
                .iter()
                .min_by_key(|(_, (_, used))| *used)
                .map(|(sql, _)| sql.clone())
        {
            self.others.remove(&oldest);
        }
    }
}
