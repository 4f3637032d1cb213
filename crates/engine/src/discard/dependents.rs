//! Which changes are given up with one: its unit, and those after it that cannot stay without it. The log is read in order, and
//! again from its unit on when an earlier part of it turns out to go too.

use std::collections::BTreeSet;

use partial_sync_core::ChangeId;
use partial_sync_vfs::sqlite::Conn;

use super::{given_up::GivenUp, names::Names, text::objects};
use crate::{
    change::{Cause, Change, ChangeKind, StatementKind},
    error::Result,
    log::{Log, LogError},
};

/// The change's unit, and with dependents those after it that cannot stay without it: later ones of the same row, rows that
/// refer to it, what could be written only because a row was gone, and for a schema change everything later about what it
/// made or altered. Empty when there is no such change.
pub(super) fn changes_to_give_up(
    conn: &Conn,
    log: &Log,
    change: ChangeId,
    with_dependents: bool,
) -> Result<BTreeSet<ChangeId>> {
    let Some(chunk) = log.chunks_after(ChangeId(change.0.saturating_sub(1)))?.next()? else {
        return Ok(BTreeSet::new());
    };
    let (txn, changes) = (chunk.txn, chunk.changes()?);
    let Some(unit) = changes.iter().find(|at| at.id == change).map(Change::unit) else {
        return Ok(BTreeSet::new());
    };
    let mut units = BTreeSet::from([unit]);
    let mut names = match with_dependents {
        true => Names::read(log, ChangeId(unit.0.saturating_sub(1)))?,
        false => Names::default(),
    };
    loop {
        let mut found = BTreeSet::new();
        let mut given_up = GivenUp::default();
        let mut again = false;
        let mut chunks = log.chunks_after(ChangeId(unit.0.saturating_sub(1)))?;
        let mut read = || -> Result<_> {
            let chunk = chunks.next()?;
            Ok(chunk
                .map(|chunk| Ok::<_, LogError>((chunk.txn, chunk.changes()?)))
                .transpose()?)
        };
        let mut next = read()?;
        while let Some((in_txn, changes)) = next.take() {
            // A unit lies in one transaction.
            if !with_dependents && in_txn > txn {
                break;
            }
            next = read()?;
            let continues = next
                .as_ref()
                .and_then(|(_, changes)| changes.first())
                .map(Change::unit);
            for (i, at) in changes.iter().enumerate() {
                if found.contains(&at.id) {
                    continue;
                }
                let now = names.today(at);
                let idles = || {
                    with_dependents
                        && given_up.is_idle(&now)
                        && continues != Some(at.unit())
                        && fires_nothing(&changes, at.unit())
                };
                if units.contains(&at.unit()) || idles() {
                    if with_dependents {
                        given_up.add(conn, &now)?;
                        given_up.add_objects(at);
                    }
                    found.insert(at.id);
                } else if with_dependents && (given_up.names(at) || given_up.is_needed_by(conn, &now)?) {
                    // What came before it in its unit goes, too, and what that is needed by.
                    units.insert(at.unit());
                    again |= at.unit() < changes[0].id;
                    let from = changes.partition_point(|earlier| earlier.id < at.unit());
                    for earlier in changes[from..=i].iter().filter(|c| c.unit() == at.unit()) {
                        given_up.add(conn, &names.today(earlier))?;
                        given_up.add_objects(earlier);
                        found.insert(earlier.id);
                    }
                } else if with_dependents {
                    given_up.keep(&now);
                    if let ChangeKind::Statement(statement) = &at.kind
                        && statement.kind == StatementKind::DropTable
                    {
                        for table in objects(statement).0 {
                            given_up.dropped(&names.name(at.id, &table));
                        }
                    }
                }
            }
        }
        if !again {
            return Ok(found);
        }
    }
}

/// Whether nothing of a unit is a trigger's: it may be one that followed from any of the other changes.
fn fires_nothing(changes: &[Change], unit: ChangeId) -> bool {
    let from = changes.partition_point(|change| change.id < unit);
    let mut of_unit = changes[from..].iter().filter(|change| change.unit() == unit);
    of_unit.all(|change| {
        let by_trigger = |cause: &Cause| matches!(cause, Cause::Trigger | Cause::Unrepeatable);
        matches!(&change.kind, ChangeKind::Row { cause, .. } if !by_trigger(cause))
    })
}
