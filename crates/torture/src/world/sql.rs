//! Statements, transactions and reads on a replica, each held against plain SQLite.

use std::sync::Arc;

use partial_sync::{Connection, Error};

use super::World;
use crate::{
    model::{self, Rows, rows_difference},
    oracle::{Excuses, Failure, Outcome, guarded, is_allowed, lab, refused},
    replica::Txn,
};

/// A table of a replica; `None` = there is no such table.
pub(crate) fn read_table(conn: &Connection, table: &str) -> Outcome<Result<Option<Rows>, Error>> {
    Ok(match guarded(|| model::table(conn, table))? {
        Ok(rows) => Ok(Some(rows)),
        Err(Error::Sqlite(e)) if e.message().contains("no such table") => Ok(None),
        Err(e) => Err(e),
    })
}

/// Ends a transaction that SQLite has rolled back by itself: the connection takes nothing else until then.
fn end_lost(conn: &Connection) -> Outcome {
    if conn.is_transaction_lost() {
        guarded(|| conn.execute_batch("ROLLBACK"))?.map_err(lab)?;
    }
    Ok(())
}

impl World {
    /// What may explain an error of a statement on this connection.
    fn excuses(&self, r: usize, c: usize, faults: u64) -> Excuses {
        let replica = &self.replicas[r];
        let reading = replica
            .slots
            .get(&c)
            .is_some_and(|slot| matches!(slot.txn, Txn::Reading(_)));
        let base_expired = replica.base.is_some_and(|base| self.states[base].expired);
        Excuses {
            line: replica.line.faults() != faults,
            expired: base_expired || (reading && self.states.iter().any(|state| state.expired)),
            busy: reading || replica.is_written_by_another(c),
            cancelled: false,
            statement: true,
        }
    }

    pub(super) fn sql(&mut self, r: usize, c: usize, sql: &str) -> Outcome {
        let faults = self.replicas[r].line.faults();
        let excuses = self.excuses(r, c, faults);
        let Some(slot) = self.slot(r, c)? else {
            return Ok(());
        };
        // Outside of a transaction that writes they would begin one.
        let is_savepoint = ["SAVEPOINT", "RELEASE", "ROLLBACK TO"]
            .iter()
            .any(|word| sql.starts_with(word));
        if is_savepoint && !matches!(slot.txn, Txn::Writing(_)) {
            return Ok(());
        }
        let conn = slot.conn.clone();
        let result = guarded(|| conn.execute_batch(sql))?;
        let excuses = Excuses {
            line: self.replicas[r].line.faults() != faults,
            ..excuses
        };
        match result {
            Ok(()) => self.sql_accepted(r, c, sql),
            Err(error) => self.sql_refused(r, c, sql, &error, excuses),
        }
    }

    fn sql_accepted(&mut self, r: usize, c: usize, sql: &str) -> Outcome {
        let replica = &mut self.replicas[r];
        let written_by_another = replica.is_written_by_another(c);
        let slot = replica
            .slots
            .get_mut(&c)
            .ok_or_else(|| lab("a connection has gone"))?;
        if written_by_another {
            return Err(Failure::new("two transactions write at once", sql));
        }
        if let Txn::Reading(states) = &slot.txn {
            if states
                .as_ref()
                .is_some_and(|states| !states.contains(&replica.committed))
            {
                return Err(Failure::new("a transaction writes on an old snapshot", sql));
            }
            replica.view.run("BEGIN").map_err(lab)?;
            slot.txn = Txn::Writing(vec![]);
        }
        if let Err(e) = replica.view.run(sql) {
            return Err(Failure::new(
                "a statement is accepted that plain SQLite refuses",
                format!("{sql}: {e}"),
            ));
        }
        match &mut slot.txn {
            Txn::Writing(statements) => statements.push((sql.to_owned(), true)),
            _ => {
                replica.log.push(vec![(sql.to_owned(), true)]);
                let state = replica.view.state().map_err(lab)?;
                replica.show(state);
            }
        }
        Ok(())
    }

    fn sql_refused(&mut self, r: usize, c: usize, sql: &str, error: &Error, excuses: Excuses) -> Outcome {
        let replica = &mut self.replicas[r];
        let slot = replica
            .slots
            .get_mut(&c)
            .ok_or_else(|| lab("a connection has gone"))?;
        if replica.disk.as_ref().is_some_and(|disk| disk.has_stopped()) {
            if matches!(slot.txn, Txn::None) {
                replica.maybe = Some(vec![(sql.to_owned(), true)]);
            }
            return Ok(());
        }
        let writing = matches!(slot.txn, Txn::Writing(_));
        end_lost(&slot.conn)?;
        let ended = slot.conn.is_autocommit() && !matches!(slot.txn, Txn::None);
        if ended {
            slot.txn = Txn::None;
        }
        if is_allowed(error, excuses) {
            if ended && writing {
                replica.view.run("ROLLBACK").map_err(lab)?;
            }
            return Ok(());
        }
        let Error::Sqlite(e) = error else {
            return Err(refused("sql", error));
        };
        // Plain SQLite must refuse it too, with the same code.
        replica.view.run("SAVEPOINT laboratory").map_err(lab)?;
        let expected = replica.view.run(sql);
        if !replica.view.is_autocommit() {
            replica
                .view
                .run("ROLLBACK TO laboratory; RELEASE laboratory")
                .map_err(lab)?;
        }
        if ended && writing && !replica.view.is_autocommit() {
            replica.view.run("ROLLBACK").map_err(lab)?;
        }
        match expected {
            Ok(()) => Err(Failure::new(
                format!(
                    "a statement is refused that plain SQLite accepts: {}",
                    e.message()
                ),
                format!("{sql}: {error}"),
            )),
            Err(rusqlite::Error::SqliteFailure(code, _)) if code.extended_code & 0xff != e.code() => {
                Err(Failure::new(
                    format!(
                        "a statement is refused otherwise than by plain SQLite: {}",
                        e.message()
                    ),
                    format!("{sql}: {error}, expected {code}"),
                ))
            }
            Err(_) => Ok(()),
        }
    }

    /// Writes to another replica's file through ATTACH: refused, or as good as written there.
    pub(super) fn attach(&mut self, r: usize, c: usize, other: usize, sql: &str) -> Outcome {
        let ready = |replica: &crate::replica::Replica| {
            replica.made && !replica.is_written() && replica.spec.real_files
        };
        if other == r
            || other >= self.replicas.len()
            || !ready(&self.replicas[other])
            || !ready(&self.replicas[r])
        {
            return Ok(());
        }
        let path = self.replicas[other].path.display().to_string();
        let Some(slot) = self.slot(r, c)? else {
            return Ok(());
        };
        if !matches!(slot.txn, Txn::None) {
            return Ok(());
        }
        let conn = slot.conn.clone();
        let attached = guarded(|| conn.execute_batch(&format!("ATTACH '{path}' AS other")))?;
        if attached.is_err() {
            return Ok(());
        }
        let result = guarded(|| conn.execute_batch(sql))?;
        guarded(|| conn.execute_batch("DETACH other"))?.map_err(|e| refused("detach", &e))?;
        if result.is_ok() {
            let sql = sql.replace("other.", "");
            let replica = &mut self.replicas[other];
            if replica.view.run(&sql).is_ok() {
                replica.log.push(vec![(sql, true)]);
                let state = replica.view.state().map_err(lab)?;
                replica.show(state);
            }
        }
        Ok(())
    }

    pub(super) fn begin(&mut self, r: usize, c: usize, immediate: bool) -> Outcome {
        let faults = self.replicas[r].line.faults();
        let excuses = self.excuses(r, c, faults);
        let Some(slot) = self.slot(r, c)? else {
            return Ok(());
        };
        if !matches!(slot.txn, Txn::None) {
            return Ok(());
        }
        let conn = slot.conn.clone();
        let result = guarded(|| conn.execute_batch(if immediate { "BEGIN IMMEDIATE" } else { "BEGIN" }))?;
        let replica = &mut self.replicas[r];
        match result {
            Ok(()) if immediate && replica.is_written_by_another(c) => {
                Err(Failure::new("two transactions write at once", "BEGIN IMMEDIATE"))
            }
            Ok(()) => {
                if immediate {
                    replica.view.run("BEGIN").map_err(lab)?;
                }
                if let Some(slot) = replica.slots.get_mut(&c) {
                    slot.txn = if immediate {
                        Txn::Writing(vec![])
                    } else {
                        Txn::Reading(None)
                    };
                }
                Ok(())
            }
            Err(_) if replica.has_stopped() => Ok(()),
            Err(e)
                if is_allowed(
                    &e,
                    Excuses {
                        line: replica.line.faults() != faults,
                        ..excuses
                    },
                ) =>
            {
                Ok(())
            }
            Err(e) => Err(refused("begin", &e)),
        }
    }

    pub(super) fn end(&mut self, r: usize, c: usize, commit: bool) -> Outcome {
        let faults = self.replicas[r].line.faults();
        let excuses = self.excuses(r, c, faults);
        let replica = &mut self.replicas[r];
        let Some(slot) = replica.slots.get_mut(&c) else {
            return Ok(());
        };
        let txn = std::mem::take(&mut slot.txn);
        if matches!(txn, Txn::None) {
            return Ok(());
        }
        let sql = if commit { "COMMIT" } else { "ROLLBACK" };
        let conn = slot.conn.clone();
        let result = guarded(|| conn.execute_batch(sql))?;
        let Txn::Writing(statements) = txn else {
            return match result {
                Err(e) if !replica.has_stopped() => Err(refused("end", &e)),
                _ => Ok(()),
            };
        };
        match result {
            Ok(()) => {
                if let Err(e) = replica.view.run(sql) {
                    return Err(Failure::new(
                        "a commit is accepted that plain SQLite refuses",
                        e.to_string(),
                    ));
                }
                if commit && !statements.is_empty() {
                    replica.log.push(statements);
                    let state = replica.view.state().map_err(lab)?;
                    replica.show(state);
                }
                Ok(())
            }
            Err(_) if replica.has_stopped() => {
                replica.view.run("ROLLBACK").map_err(lab)?;
                replica.maybe = commit.then_some(statements);
                Ok(())
            }
            Err(e) => {
                // FTS5 writes at the commit, and may need pages for it. Then SQLite has rolled back.
                let excuses = Excuses {
                    line: replica.line.faults() != faults,
                    ..excuses
                };
                if !commit || !is_allowed(&e, excuses) {
                    return Err(refused("end", &e));
                }
                end_lost(&conn)?;
                if !conn.is_autocommit() {
                    guarded(|| conn.execute_batch("ROLLBACK"))?.map_err(|e| refused("rollback", &e))?;
                }
                replica.view.run("ROLLBACK").map_err(lab)?;
                Ok(())
            }
        }
    }

    pub(super) fn read(&mut self, r: usize, c: usize, table: &str) -> Outcome {
        let faults = self.replicas[r].line.faults();
        let excuses = self.excuses(r, c, faults);
        let Some(slot) = self.slot(r, c)? else {
            return Ok(());
        };
        let conn = slot.conn.clone();
        let rows = read_table(&conn, table)?;
        let replica = &mut self.replicas[r];
        let slot = replica
            .slots
            .get_mut(&c)
            .ok_or_else(|| lab("a connection has gone"))?;
        let rows = match rows {
            Ok(rows) => rows,
            Err(_) if replica.disk.as_ref().is_some_and(|disk| disk.has_stopped()) => return Ok(()),
            Err(e) => {
                end_lost(&conn)?;
                if conn.is_autocommit() && matches!(std::mem::take(&mut slot.txn), Txn::Writing(_)) {
                    replica.view.run("ROLLBACK").map_err(lab)?;
                }
                let excuses = Excuses {
                    line: replica.line.faults() != faults,
                    ..excuses
                };
                return match is_allowed(&e, excuses) {
                    true => Ok(()),
                    false => Err(refused("read", &e)),
                };
            }
        };
        let wrong = |expected: Option<&Rows>| {
            Err(Failure::new(
                format!("a read of {table} differs"),
                rows_difference(rows.as_ref(), expected),
            ))
        };
        match &mut slot.txn {
            Txn::Writing(_) => {
                let expected = replica.view.table(table).ok();
                if rows != expected {
                    return wrong(expected.as_ref());
                }
            }
            // A statement that fails when it is prepared pins no snapshot.
            Txn::Reading(None) if rows.is_none() => {
                if replica.committed.tables.contains_key(table) {
                    return wrong(replica.committed.tables.get(table));
                }
            }
            Txn::Reading(states) => {
                let states = states.get_or_insert_with(|| vec![replica.committed.clone()]);
                let before = states[0].clone();
                states.retain(|state| state.tables.get(table) == rows.as_ref());
                if states.is_empty() {
                    return wrong(before.tables.get(table));
                }
            }
            Txn::None => {
                let committed: Arc<_> = replica.committed.clone();
                if committed.tables.get(table) != rows.as_ref() {
                    return wrong(committed.tables.get(table));
                }
            }
        }
        Ok(())
    }
}
