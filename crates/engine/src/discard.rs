//! Giving up local changes: one that the remote refuses, alone or with those that depend on it. And listing them.
//!
//! What a discarded change did is still in the replica's pages. That it must go is noted in the info file before the log
//! forgets the change, so that the next pull builds the remote's state anew, whether the remote has news or not, with what
//! is left of the log on top.

use std::collections::{BTreeSet, HashSet};

use partial_sync_core::ChangeId;
use partial_sync_vfs::sqlite::Conn;

use crate::{
    capture::schema::SchemaCache,
    change::{
        Change, ChangeKind, RowOp, StatementChange, StatementKind, Table, Value,
        migration::Migration,
        push::what,
        tokens::{Token, tokens},
    },
    error::Result,
    log::Log,
    session::Session,
};

const DOING: &str = "discarding a change";

/// A local change that was not pushed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LocalChange {
    /// Its number: what [`crate::Database::discard_change`] takes, and what the error of a push or pull names.
    pub id: ChangeId,
    /// The number of the first change of its transaction.
    pub transaction: ChangeId,
    /// When it was made, in seconds since 1970.
    pub time: i64,
    /// What it did, for people: `insert into "notes" (id = 7)`, or the statement.
    pub what: String,
}

/// See [`crate::Database::local_changes`].
pub(crate) fn list(open: &Session<'_>, after: ChangeId, limit: usize) -> Result<Vec<LocalChange>> {
    let mut chunks = Log::new(&open.reader).chunks_after(after)?;
    let mut found = vec![];
    while found.len() < limit
        && let Some(chunk) = chunks.next()?
    {
        let transaction = chunk.txn;
        let wanted = chunk.changes()?.into_iter().filter(|change| change.id > after);
        found.extend(wanted.map(|change| LocalChange {
            id: change.id,
            transaction,
            time: change.time,
            what: what(&change),
        }));
    }
    found.truncate(limit);
    Ok(found)
}

/// See [`crate::Database::discard_change`] and [`crate::Database::discard_change_with_dependents`]. The changes that have
/// left the log.
pub(crate) fn discard(open: &Session<'_>, change: ChangeId, with_dependents: bool) -> Result<Vec<ChangeId>> {
    let _sync = open.lock_sync(DOING)?;
    crate::pull::finish_earlier(open)?;
    let keeper = &open.keeper;
    crate::push::begin_immediate(open)?;
    let done = in_transaction(open, change, with_dependents);
    if done.is_err() {
        let _ = keeper.execute_batch("ROLLBACK");
    }
    done
}

fn in_transaction(open: &Session<'_>, change: ChangeId, with_dependents: bool) -> Result<Vec<ChangeId>> {
    let keeper = &open.keeper;
    let log = Log::new(keeper);
    let wanted = match with_dependents {
        true => dependents(keeper, &log, change)?,
        false => BTreeSet::from([change]),
    };
    let gone: Vec<ChangeId> = log.discard(&wanted)?.into_iter().map(|c| c.id).collect();
    if !gone.is_empty() {
        let newest = log.last()?.max(gone.last().copied());
        open.update_info(|info| {
            // So that its number is not given again when it was the newest one.
            info.change_floor = info.change_floor.max(newest.map_or(0, |id| id.0));
            info.rebuild = true;
        })?;
    }
    keeper.execute_batch("COMMIT")?;
    Ok(gone)
}

/// The change and those after it that cannot stay without it: later ones of the same row, rows that refer to it, and for a
/// schema change everything later about what it made or altered. Empty when there is no such change.
fn dependents(conn: &Conn, log: &Log, change: ChangeId) -> Result<BTreeSet<ChangeId>> {
    let mut found = BTreeSet::new();
    let mut given_up = GivenUp::default();
    let mut chunks = log.chunks_after(ChangeId(change.0.saturating_sub(1)))?;
    while let Some(chunk) = chunks.next()? {
        for at in chunk.changes()? {
            let is_it = at.id == change;
            if is_it || (!found.is_empty() && given_up.is_needed_by(conn, &at)?) {
                given_up.add(&at);
                found.insert(at.id);
            } else if found.is_empty() && at.id > change {
                return Ok(found);
            }
        }
    }
    Ok(found)
}

/// What will not be there without the changes that are given up.
#[derive(Default)]
struct GivenUp {
    /// Rows by table and key (all values where there is no key).
    rows: HashSet<(String, Vec<Value>)>,
    /// The same rows, for foreign keys.
    parents: Vec<(std::sync::Arc<Table>, Vec<Value>)>,
    /// Tables and views, in lower case.
    tables: HashSet<String>,
    /// Indexes and triggers, in lower case.
    others: HashSet<String>,
    schema: SchemaCache,
}

impl GivenUp {
    fn add(&mut self, change: &Change) {
        match &change.kind {
            ChangeKind::Row { table, op, .. } => {
                let images = match op {
                    RowOp::Insert { after } | RowOp::Add { after } => vec![after],
                    RowOp::Update { before, after } => vec![before, after],
                    // What is not deleted is there: nothing needs that it is gone.
                    RowOp::Delete { .. } => vec![],
                };
                for image in images {
                    self.rows.insert(row(table, image));
                    self.parents.push((table.clone(), image.clone()));
                }
            }
            ChangeKind::Statement(statement) => {
                let (tables, others) = objects(statement);
                self.tables.extend(tables);
                self.others.extend(others);
            }
        }
    }

    fn is_needed_by(&mut self, conn: &Conn, change: &Change) -> Result<bool> {
        match &change.kind {
            ChangeKind::Row { table, op, .. } => {
                if self.tables.contains(&table.name.to_ascii_lowercase()) {
                    return Ok(true);
                }
                let (before, after) = op.images();
                if before.is_some_and(|before| self.rows.contains(&row(table, before))) {
                    return Ok(true);
                }
                match after {
                    Some(after) => self.refers(conn, table, after),
                    None => Ok(false),
                }
            }
            ChangeKind::Statement(statement) => match &statement.kind {
                StatementKind::VirtualTableWrite { table } => {
                    Ok(self.tables.contains(&table.to_ascii_lowercase()))
                }
                StatementKind::Sequence => Ok(matches!(
                    statement.args.first(),
                    Some(Value::Text(name)) if self.tables.contains(&name.to_ascii_lowercase())
                )),
                _ => Ok(tokens(&statement.sql)
                    .iter()
                    .filter_map(Token::name)
                    .map(|name| name.to_ascii_lowercase())
                    .any(|name| self.tables.contains(&name) || self.others.contains(&name))),
            },
        }
    }

    /// Whether a row refers, by a foreign key that its table has now, to a row that is given up.
    fn refers(&mut self, conn: &Conn, table: &Table, after: &[Value]) -> Result<bool> {
        if self.parents.is_empty() {
            return Ok(false);
        }
        for key in self.schema.foreign_keys(conn, table)?.iter() {
            let refers = self.parents.iter().any(|(parent, image)| {
                let primary = parent.key();
                parent.name.eq_ignore_ascii_case(&key.parent)
                    && key.columns.iter().enumerate().all(|(i, (child, to))| {
                        let place = match to {
                            Some(to) => parent
                                .columns
                                .iter()
                                .position(|c| c.name.eq_ignore_ascii_case(to)),
                            None => primary.get(i).copied(),
                        };
                        let (child, parent) = (after.get(*child), place.and_then(|place| image.get(place)));
                        child.is_some_and(|child| !child.is_null()) && child == parent
                    })
            });
            if refers {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn row(table: &Table, image: &[Value]) -> (String, Vec<Value>) {
    let key = table.key();
    let values = match key.is_empty() {
        true => image.to_vec(),
        false => key.iter().filter_map(|&i| image.get(i).cloned()).collect(),
    };
    (table.name.to_ascii_lowercase(), values)
}

/// What a schema change makes, alters or drops: tables and views, and indexes and triggers.
fn objects(statement: &StatementChange) -> (Vec<String>, Vec<String>) {
    use StatementKind::*;
    let all = tokens(&statement.sql);
    let renamed = match Migration::of(&all) {
        Some(Migration::RenameTable { to, .. }) => Some(to.to_ascii_lowercase()),
        _ => None,
    };
    const BEFORE: [&str; 13] = [
        "CREATE",
        "DROP",
        "ALTER",
        "TEMP",
        "TEMPORARY",
        "UNIQUE",
        "VIRTUAL",
        "TABLE",
        "INDEX",
        "TRIGGER",
        "VIEW",
        "IF",
        "NOT",
    ];
    let start = all
        .iter()
        .position(|t| !BEFORE.iter().any(|word| t.is(word)) && !t.is("EXISTS"))
        .unwrap_or(all.len());
    let name = match &all[start..] {
        [_, dot, name, ..] if dot.text == "." => name.name(),
        [name, ..] => name.name(),
        [] => None,
    };
    let named = name.map(|name| name.to_ascii_lowercase()).into_iter();
    match &statement.kind {
        CreateTable
        | CreateView
        | DropTable
        | DropView
        | AlterOther
        | AlterLegacy
        | AlterAddColumn { .. } => (named.chain(renamed).collect(), vec![]),
        CreateIndex | CreateTrigger | DropIndex | DropTrigger => (vec![], named.collect()),
        _ => (vec![], vec![]),
    }
}
