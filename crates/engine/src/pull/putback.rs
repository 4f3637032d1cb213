//! Runs local changes again on top of a new remote state: the same statements as a push, and writes the log that goes with
//! them. Rows are written as they came out, with triggers and foreign-key actions off. A row whose key SQLite gave, and
//! which belongs to another row in the new state, gets another one here, and the log says so from then on.

use std::collections::HashMap;

use partial_sync_core::ChangeId;
use partial_sync_vfs::sqlite::{Conn, Step, Stmt, ValueRef};
use rusqlite::config::DbConfig;

use crate::{
    change::{
        Change, Mode, Value, codec, is_advice,
        keys::{self, Keys, Summary},
        migration::Migration,
        position::{ASK_KEYS, RemotePosition},
        push::{is_key_taken, subject},
        sql::{ROW_GONE, SqlStatement, is_duplicate_column, is_made_to_fail, quoted},
        transform::{Entries, TransformFn, statements},
    },
    error::{Error, Result},
    log::{self, Chunk, is_no_such_table},
    push::local_keys::{highest, references},
};

/// Prepared statements kept at once; a log speaks of few tables.
const KEPT: usize = 64;

/// Whose changes are put back, and as of which pull their log speaks of keys.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client<'a> {
    pub id: &'a str,
    pub pulls: u64,
}

/// Runs every change of the chunks, in order, in the transaction that is open on `conn`, and appends the chunks to the log
/// there.
pub(crate) fn run(
    conn: &Conn,
    chunks: &[Chunk],
    client: Client<'_>,
    transform: Option<&TransformFn>,
) -> Result<()> {
    let log = || {
        let mut summary = Summary::default();
        for chunk in chunks {
            chunk.changes()?.iter().for_each(|change| summary.add(change));
        }
        Ok(summary)
    };
    let mut put_back = PutBack::new(conn, client, Box::new(log), transform)?;
    chunks.iter().try_for_each(|chunk| put_back.chunk(chunk))
}

/// Says what the whole log that is put back has of keys.
pub(crate) type WholeLog<'a> = Box<dyn Fn() -> Result<Summary> + Send + 'a>;

/// A put-back under way, chunk by chunk. Nobody else may use the connection before it is dropped.
pub(crate) struct PutBack<'a> {
    conn: Conn,
    transform: Option<&'a TransformFn>,
    /// Of the chunk.
    entries: Entries,
    keys: Keys,
    log: WholeLog<'a>,
    /// What `log` said, once it was asked.
    summary: Option<Summary>,
    /// By table: no row that was or will be put back has a higher key, unless it is in the table.
    highest: HashMap<String, i64>,
    mode: Mode,
    kept: HashMap<String, Stmt>,
    append: Option<Stmt>,
}

impl<'a> PutBack<'a> {
    pub(crate) fn new(
        conn: &Conn,
        client: Client<'_>,
        log: WholeLog<'a>,
        transform: Option<&'a TransformFn>,
    ) -> Result<Self> {
        let mut keys = noted_keys(conn, client)?;
        if !keys.is_empty() {
            keys.refer(references(conn)?);
        }
        Ok(Self {
            conn: conn.clone(),
            transform,
            entries: Entries::default(),
            keys,
            log,
            summary: None,
            highest: HashMap::new(),
            mode: Mode::Triggers,
            kept: HashMap::new(),
            append: None,
        })
    }

    /// The log has grown since it was read.
    pub(crate) fn log_grew(&mut self) {
        self.summary = None;
        self.highest.clear();
    }

    /// Runs the changes of one chunk, and appends it to the log.
    pub(crate) fn chunk(&mut self, chunk: &Chunk) -> Result<()> {
        self.switch(chunk.mode())?;
        let mut changes = chunk.changes()?;
        let mut rewritten = false;
        if self.transform.is_some() {
            self.entries = Entries::of(&changes);
        }
        for change in &mut changes {
            self.keys
                .follow(change, chunk.txn)
                .map_err(|stray| conflict(change, stray.to_string()))?;
            if self.keys.meets_own(change) && self.has_row(change)? {
                self.move_row(change, "another of its rows got this key")?;
            }
            // What is noted is the key that later changes in the log speak of.
            let is_rewritten = !self.keys.is_empty() && keys::added(change).is_some();
            let as_logged = is_rewritten.then(|| change.clone());
            rewritten |= self.keys.rewrite(change);
            if let Some(taken) = self.change(change)? {
                if let Some(as_logged) = as_logged {
                    *change = as_logged;
                }
                self.move_row(change, &taken)?;
                rewritten |= self.keys.rewrite(change);
                if let Some(taken) = self.change(change)? {
                    return Err(conflict(change, taken));
                }
            }
            self.follow(change)?;
        }
        if rewritten {
            let body = codec::encode_in(self.mode, &changes).map_err(log::LogError::from)?;
            return self.append(&Chunk {
                body,
                ..chunk.clone()
            });
        }
        self.append(chunk)
    }

    /// The log of release 0.1 is run as it ran it: triggers fire.
    fn switch(&mut self, mode: Mode) -> Result<()> {
        if self.mode != mode {
            triggers(&self.conn, mode == Mode::Triggers)?;
            self.mode = mode;
        }
        Ok(())
    }

    /// Runs one change. When its new row's key is taken, nothing was done, and SQLite's words are given.
    fn change(&mut self, change: &Change) -> Result<Option<String>> {
        if is_advice(change) {
            return Ok(None);
        }
        let written = statements(change, self.mode, self.transform.map(|f| (f, &self.entries)))
            .map_err(|e| conflict(change, e.to_string()))?;
        for statement in &written {
            if statement.sql.is_empty() {
                continue;
            }
            match execute(&self.conn, &mut self.kept, statement) {
                Err(e) if statement.skip_if_duplicate_column && is_duplicate_column(&e.message) => {}
                // A page that could not be had is not a conflict; it is what it is.
                Err(e) if e.source.is_some() || !is_refusal(e.code) => return Err(e.into()),
                Err(e) if is_key_taken(change, &e.message) => return Ok(Some(e.message)),
                Err(e) if statement.must_find && is_made_to_fail(&e.message) => {
                    return Err(conflict(change, ROW_GONE.into()));
                }
                Err(e) if is_made(&self.conn, change, &e.message)? => {}
                Err(e) => return Err(conflict(change, e.message)),
                Ok(()) => {}
            }
        }
        Ok(None)
    }

    /// After a change of the schema, keys are told apart by what tables and columns are called from then on.
    fn follow(&mut self, change: &Change) -> Result<()> {
        if self.keys.is_empty() || !(keys::reshapes(change) || keys::extends(change)) {
            return Ok(());
        }
        if let Some(Migration::RenameTable { from, to }) = Migration::of_change(change) {
            self.keys.renamed(&from, &to);
        }
        self.highest.clear();
        self.keys.refer(references(&self.conn)?);
        Ok(())
    }

    /// Whether there is a row with the key that the change gives to one.
    fn has_row(&self, change: &Change) -> Result<bool> {
        let Some((table, key, value)) = keys::made(change) else {
            return Ok(false);
        };
        let (table, key) = (quoted(&table.name), quoted(&table.columns[key].name));
        let mut select = self
            .conn
            .prepare_one(&format!("SELECT 1 FROM {table} WHERE {key} = ?1"))?;
        select.bind(1, ValueRef::Integer(value))?;
        Ok(select.step()? == Step::Row)
    }

    /// Finds a free key for the row that the change makes.
    fn move_row(&mut self, change: &Change, taken: &str) -> Result<()> {
        let Some((table, key, from)) = keys::made(change) else {
            return Err(conflict(change, taken.to_owned()));
        };
        if self.keys.is_empty() {
            self.keys.refer(references(&self.conn)?);
        }
        let name = table.name.to_ascii_lowercase();
        let known = match (self.highest.get(&name), &self.summary) {
            (Some(known), _) => *known,
            (None, Some(summary)) => summary.highest(&name).max(self.keys.highest(&name)),
            (None, None) => {
                let summary = (self.log)()?;
                let known = summary.highest(&name).max(self.keys.highest(&name));
                self.summary = Some(summary);
                known
            }
        };
        let highest = highest(&self.conn, &table.name, &table.columns[key].name)?.max(known);
        let to = match highest.checked_add(1) {
            Some(to) => to,
            // Where there is no higher key, SQLite takes one at random; so many are free that it is one of them.
            None => {
                let mut random = self
                    .conn
                    .prepare_one("SELECT 1 + (random() & 4611686018427387902)")?;
                random.step()?;
                match random.value(0)? {
                    ValueRef::Integer(key) => key,
                    _ => return Err(conflict(change, taken.to_owned())),
                }
            }
        };
        self.highest.insert(name, highest.max(to));
        self.keys.moved(&table.name, from, change.id, to);
        Ok(())
    }

    fn append(&mut self, chunk: &Chunk) -> Result<()> {
        let append = match &mut self.append {
            Some(append) => append,
            none => {
                self.conn.execute_batch(log::CREATE_CHANGES)?;
                none.insert(self.conn.prepare_one(log::INSERT)?)
            }
        };
        chunk.bind(append)?;
        let appended = append.execute();
        append.clear_bindings();
        Ok(appended?)
    }
}

impl Drop for PutBack<'_> {
    fn drop(&mut self) {
        // Anyone who uses the connection next expects them to fire.
        let _ = self.switch(Mode::Triggers);
    }
}

fn triggers(conn: &Conn, fire: bool) -> Result<()> {
    let fire = conn.with_rusqlite(|c| c.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, fire));
    Ok(fire.map(drop)?)
}

/// Which rows of this client got other keys on the remote since its last pull, as the new state says.
fn noted_keys(conn: &Conn, client: Client<'_>) -> Result<Keys> {
    let mut keys = Keys::default();
    let mut select = match conn.prepare_one(ASK_KEYS) {
        Ok(select) => select,
        Err(e) if is_no_such_table(&e) => return Ok(keys),
        Err(e) => return Err(e.into()),
    };
    select.bind(1, ValueRef::Text(client.id.as_bytes()))?;
    select.bind(2, ValueRef::Integer(client.pulls as i64))?;
    while select.step()? == Step::Row {
        if let (
            ValueRef::Text(table),
            ValueRef::Integer(from),
            ValueRef::Integer(since),
            ValueRef::Integer(to),
        ) = (
            select.value(0)?,
            select.value(1)?,
            select.value(2)?,
            select.value(3)?,
        ) {
            keys.moved(&String::from_utf8_lossy(table), from, ChangeId(since), to);
        }
    }
    Ok(keys)
}

/// Whether the new state has this `ALTER TABLE` already, which is why it was refused.
fn is_made(conn: &Conn, change: &Change, message: &str) -> Result<bool> {
    let Some(migration) = Migration::of_change(change).filter(|m| m.may_explain(message)) else {
        return Ok(false);
    };
    let mut columns = Vec::new();
    for table in migration.tables() {
        let mut stmt = conn.prepare_one(&Migration::question(table))?;
        let mut names = Vec::new();
        while stmt.step()? == Step::Row {
            if let ValueRef::Text(name) = stmt.value(1)? {
                names.push(String::from_utf8_lossy(name).into_owned());
            }
        }
        columns.push(names);
    }
    Ok(migration.is_made(&columns))
}

/// Whether SQLite refuses the statement itself: an error in it, or a constraint.
fn is_refusal(code: i32) -> bool {
    const ERROR: i32 = 1;
    const TOO_BIG: i32 = 18;
    const CONSTRAINT: i32 = 19;
    const MISMATCH: i32 = 20;
    matches!(code, ERROR | TOO_BIG | CONSTRAINT | MISMATCH)
}

fn execute(
    conn: &Conn,
    kept: &mut HashMap<String, Stmt>,
    statement: &SqlStatement,
) -> partial_sync_vfs::sqlite::Result<()> {
    if kept.len() >= KEPT && !kept.contains_key(&statement.sql) {
        kept.clear();
    }
    let stmt = match kept.entry(statement.sql.clone()) {
        std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
        std::collections::hash_map::Entry::Vacant(entry) => entry.insert(conn.prepare_one(&statement.sql)?),
    };
    for (index, value) in statement.args.iter().enumerate() {
        stmt.bind(index + 1, value.into())?;
    }
    stmt.execute()
}

fn conflict(change: &Change, message: String) -> Error {
    let (table, key) = subject(change);
    let what = match table {
        None => "the schema".to_owned(),
        Some(table) if key.is_empty() => format!("table {table:?}"),
        Some(table) => {
            let row: Vec<String> = key
                .iter()
                .map(|(name, value)| format!("{name} = {}", shown(value)))
                .collect();
            format!("the row of table {table:?} with {}", row.join(", "))
        }
    };
    Error::PullConflict {
        change: change.id,
        what,
        message,
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "NULL".into(),
        Value::Integer(value) => value.to_string(),
        Value::Real(value) => format!("{value:?}"),
        Value::Text(text) => format!("{:?}", text.chars().take(60).collect::<String>()),
        Value::RawText(bytes) => format!("{} bytes of text", bytes.len()),
        Value::Blob(bytes) => format!("{} bytes", bytes.len()),
    }
}

/// How far the changes of `client_id` have come in the state that `conn` shows.
pub(crate) fn position(conn: &Conn, client_id: &str) -> Result<RemotePosition> {
    let sql = "SELECT pull_gen, change_id FROM main.turso_sync_last_change_id WHERE client_id = ?";
    let mut stmt = match conn.prepare_one(sql) {
        Ok(stmt) => stmt,
        Err(e) if is_no_such_table(&e) => return Ok(RemotePosition::default()),
        Err(e) => return Err(e.into()),
    };
    stmt.bind(1, ValueRef::Text(client_id.as_bytes()))?;
    if stmt.step()? == Step::Done {
        return Ok(RemotePosition::default());
    }
    let integer = |column| match stmt.value(column)? {
        ValueRef::Integer(number) => Ok::<_, Error>(Some(number)),
        _ => Ok(None),
    };
    Ok(RemotePosition {
        pull_gen: integer(0)?,
        change_id: integer(1)?.map(ChangeId),
    })
}
