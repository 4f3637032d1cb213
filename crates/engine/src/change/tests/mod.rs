//! Changes recorded on one stock SQLite database and run, as SQL, on another. Changes are recorded by comparing a
//! database before and after each statement, which knows nothing of how the product records them.

mod codec;
mod differential;
mod keys;
mod protocol_table;
mod push;
mod statements;

use std::{collections::BTreeMap, sync::Arc};

use partial_sync_core::ChangeId;
use partial_sync_transport::hrana::{self, Batch, BatchResult, Condition, StmtResult};
use rusqlite::{Connection, ToSql, params_from_iter};

use super::{
    Cause, Change, ChangeKind, Column, Mode, RowOp, StatementChange, StatementKind, Table, Value,
    push::wire_value,
    sql::{SqlStatement, is_duplicate_column, to_sql},
};

/// A database that notes what each statement changed.
struct Recorder {
    conn: Connection,
    log: Vec<Change>,
}

/// Rows by rowid, or by key where there is none.
type Rows = BTreeMap<String, Vec<Value>>;

impl Recorder {
    fn new(schema: &str) -> Self {
        Self {
            conn: database(schema),
            log: Vec::new(),
        }
    }

    /// Runs a statement; every row that it changed is taken as changed by the statement itself.
    fn run(&mut self, sql: &str, args: &[Value]) {
        self.run_with(sql, args, &[]).unwrap();
    }

    /// Runs a statement. Tables are compared in the order named, with the causes named, and the others after them.
    fn run_with(&mut self, sql: &str, args: &[Value], causes: &[(&str, Cause)]) -> rusqlite::Result<()> {
        let before = snapshot(&self.conn);
        self.conn.execute(sql, params_from_iter(args))?;
        let mut after = snapshot(&self.conn);
        let replaces = sql.starts_with("INSERT OR REPLACE");
        let mut tables: Vec<Table> = before.iter().map(|(table, _)| table.clone()).collect();
        tables.sort_by_key(|t| {
            causes
                .iter()
                .position(|(name, _)| *name == t.name)
                .unwrap_or(causes.len())
        });
        for table in tables {
            let cause = causes
                .iter()
                .find(|(name, _)| *name == table.name)
                .map_or(Cause::Statement, |(_, cause)| *cause);
            let of = |all: &[(Table, Rows)]| all.iter().find(|(t, _)| *t == table).unwrap().1.clone();
            let (old, mut new) = (of(&before), of(&after));
            after.retain(|(t, _)| *t != table);
            let table = Arc::new(table);
            let (mut gone, mut updated) = (Vec::new(), Vec::new());
            for (id, before) in old {
                match new.remove(&id) {
                    Some(after) if after == before => {}
                    Some(after) if replaces => {
                        gone.push(before);
                        new.insert(id, after);
                    }
                    Some(after) => updated.push(RowOp::Update { before, after }),
                    None => gone.push(before),
                }
            }
            let mut added: Vec<Vec<Value>> = new.into_values().collect();
            if sql.starts_with("UPDATE") && gone.len() == 1 && added.len() == 1 {
                let (before, after) = (gone.remove(0), added.remove(0));
                updated.push(RowOp::Update { before, after });
            }
            let gone = gone.into_iter().map(|before| RowOp::Delete { before });
            let added = added.into_iter().map(|after| RowOp::Insert { after });
            for op in gone.chain(updated).chain(added) {
                self.note(ChangeKind::Row {
                    table: Arc::clone(&table),
                    op,
                    cause,
                });
            }
        }
        Ok(())
    }

    /// Runs a statement that is recorded as text.
    fn text(&mut self, sql: &str, args: &[Value], kind: StatementKind) {
        self.conn.execute(sql, params_from_iter(args)).unwrap();
        self.note(ChangeKind::Statement(StatementChange {
            sql: sql.to_owned(),
            args: args.to_vec(),
            named: Vec::new(),
            kind,
        }));
    }

    fn note(&mut self, kind: ChangeKind) {
        let id = ChangeId(self.log.len() as i64 + 1);
        self.log.push(Change {
            id,
            time: 100,
            back: 0,
            kind,
        });
    }
}

/// A stock database in memory that does not enforce foreign keys.
fn database(schema: &str) -> Connection {
    let conn = Connection::open_in_memory().unwrap();
    conn.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
    conn.execute_batch(schema).unwrap();
    conn
}

/// The ordinary tables of a database.
fn tables(conn: &Connection) -> Vec<Table> {
    let mut list = conn
        .prepare("SELECT name, wr FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name")
        .unwrap();
    let found: Vec<(String, bool)> = list
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let mut info = conn
        .prepare("SELECT name, pk, hidden FROM pragma_table_xinfo(?) ORDER BY cid")
        .unwrap();
    found
        .into_iter()
        .map(|(name, without_rowid)| {
            let columns = info
                .query_map([&name], |row| {
                    Ok(Column {
                        name: row.get(0)?,
                        key: row.get(1)?,
                        generated: row.get::<_, i64>(2)? > 1,
                    })
                })
                .unwrap()
                .map(Result::unwrap)
                .collect();
            Table {
                name,
                columns,
                without_rowid,
                is_virtual: false,
            }
        })
        .collect()
}

fn snapshot(conn: &Connection) -> Vec<(Table, Rows)> {
    tables(conn)
        .into_iter()
        .map(|table| {
            let rows = rows(conn, &table);
            (table, rows)
        })
        .collect()
}

fn name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn rows(conn: &Connection, table: &Table) -> Rows {
    let rowid = ["rowid", "_rowid_", "oid"]
        .into_iter()
        .find(|name| !table.columns.iter().any(|c| c.name.eq_ignore_ascii_case(name)))
        .filter(|_| !table.without_rowid);
    let columns: Vec<String> = table
        .columns
        .iter()
        .map(|c| match c.generated {
            true => "NULL".to_owned(),
            false => name(&c.name),
        })
        .collect();
    let order = rowid.map_or(String::new(), |rowid| format!(" ORDER BY {rowid}"));
    let select = |what: &str| format!("SELECT {what} FROM {}{order}", name(&table.name));
    let mut statement = conn.prepare(&select(&columns.join(", "))).unwrap();
    let images = statement.query_map([], |row| {
        Ok((0..columns.len())
            .map(|i| Value::from(row.get_ref(i).unwrap()))
            .collect::<Vec<Value>>())
    });
    let images: Vec<Vec<Value>> = images.unwrap().map(Result::unwrap).collect();
    let key = |image: &Vec<Value>| table.key().iter().map(|&i| format!("{:?}|", image[i])).collect();
    let ids: Vec<String> = match rowid {
        None => images.iter().map(key).collect(),
        Some(rowid) => {
            let mut statement = conn.prepare(&select(rowid)).unwrap();
            let ids = statement.query_map([], |row| row.get::<_, i64>(0)).unwrap();
            ids.map(|id| format!("{:020}", id.unwrap())).collect()
        }
    };
    let count = images.len();
    let rows: Rows = ids.into_iter().zip(images).collect();
    assert_eq!(rows.len(), count);
    rows
}

/// Everything in a database, without rowids; equal for equal databases. Generated columns are read too.
fn contents(conn: &Connection) -> BTreeMap<String, Vec<String>> {
    tables(conn)
        .into_iter()
        .map(|table| {
            let columns: Vec<String> = table.columns.iter().map(|c| name(&c.name)).collect();
            let sql = format!("SELECT {} FROM {}", columns.join(", "), name(&table.name));
            let mut statement = conn.prepare(&sql).unwrap();
            let mut rows: Vec<String> = statement
                .query_map([], |row| {
                    Ok((0..columns.len())
                        .map(|i| format!("{:?} ", Value::from(row.get_ref(i).unwrap())))
                        .collect())
                })
                .unwrap()
                .map(Result::unwrap)
                .collect();
            rows.sort();
            (table.name, rows)
        })
        .collect()
}

/// The changes as SQL, their arguments through JSON and back, on another database.
fn apply(conn: &Connection, changes: &[Change]) {
    for change in changes {
        for statement in to_sql(change, Mode::Triggers).unwrap() {
            apply_one(conn, &statement).unwrap_or_else(|e| panic!("{e}: {statement:?}"));
        }
    }
}

fn apply_one(conn: &Connection, statement: &SqlStatement) -> rusqlite::Result<()> {
    let args: Vec<hrana::Value> = statement
        .args
        .iter()
        .map(|v| wire_value(v.clone()).unwrap())
        .collect();
    let json = serde_json::to_string(&args).unwrap();
    let args: Vec<hrana::Value> = serde_json::from_str(&json).unwrap();
    assert!(!json.contains("\\u0000"), "no NUL goes over the wire");
    assert!(!statement.sql.trim_end().ends_with(';'));
    match conn.execute(&statement.sql, params_from_iter(args.iter().map(Arg))) {
        Err(e) if statement.skip_if_duplicate_column && is_duplicate_column(&e.to_string()) => Ok(()),
        other => other.map(drop),
    }
}

struct Arg<'a>(&'a hrana::Value);

impl ToSql for Arg<'_> {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        match self.0 {
            hrana::Value::Null => Ok(rusqlite::types::ToSqlOutput::Owned(rusqlite::types::Value::Null)),
            hrana::Value::Integer { value } => value.to_sql(),
            hrana::Value::Float { value } => value.to_sql(),
            hrana::Value::Text { value } => value.to_sql(),
            hrana::Value::Blob { base64 } => base64.to_sql(),
        }
    }
}

/// Runs a batch as a remote does, both ways through JSON.
fn execute(conn: &Connection, batch: &Batch) -> BatchResult {
    let batch: Batch = serde_json::from_str(&serde_json::to_string(batch).unwrap()).unwrap();
    let mut result = BatchResult::default();
    for step in &batch.steps {
        let runs = step.condition.as_ref().is_none_or(|c| holds(conn, &result, c));
        let outcome = runs.then(|| run_step(conn, &step.stmt));
        let (ok, error) = match outcome {
            None => (None, None),
            Some(Ok(rows)) => (Some(rows), None),
            Some(Err(e)) => (None, Some(e)),
        };
        result.step_results.push(ok);
        result.step_errors.push(error);
    }
    serde_json::from_str(&serde_json::to_string(&result).unwrap()).unwrap()
}

fn holds(conn: &Connection, so_far: &BatchResult, condition: &Condition) -> bool {
    match condition {
        Condition::Ok { step } => so_far.step_results[*step as usize].is_some(),
        Condition::Error { step } => so_far.step_errors[*step as usize].is_some(),
        Condition::Not { cond } => !holds(conn, so_far, cond),
        Condition::And { conds } => conds.iter().all(|c| holds(conn, so_far, c)),
        Condition::Or { conds } => conds.iter().any(|c| holds(conn, so_far, c)),
        Condition::IsAutocommit {} => conn.is_autocommit(),
    }
}

fn run_step(conn: &Connection, stmt: &hrana::Stmt) -> Result<StmtResult, hrana::Error> {
    let refused = |e: rusqlite::Error| hrana::Error {
        message: match &e {
            rusqlite::Error::SqliteFailure(_, Some(message)) => message.clone(),
            other => other.to_string(),
        },
        code: e
            .sqlite_error_code()
            .map(|code| format!("SQLITE_{code:?}").to_uppercase()),
        extended_code: None,
    };
    let mut statement = conn
        .prepare(stmt.sql.as_deref().unwrap_or_default())
        .map_err(refused)?;
    let width = statement.column_count();
    let mut rows = statement
        .query(params_from_iter(stmt.args.iter().map(Arg)))
        .map_err(refused)?;
    let mut result = StmtResult::default();
    while let Some(row) = rows.next().map_err(refused)? {
        let values = (0..width).map(|i| wire_value(row.get_ref(i).unwrap().into()).unwrap());
        result.rows.push(values.collect());
    }
    Ok(result)
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn int(value: i64) -> Value {
    Value::Integer(value)
}

/// The one statement of a change.
fn one(change: &Change) -> SqlStatement {
    let mut statements = to_sql(change, Mode::Triggers).unwrap();
    assert_eq!(statements.len(), 1, "{change:?}");
    statements.remove(0)
}
