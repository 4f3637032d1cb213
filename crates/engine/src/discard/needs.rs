//! Whether a later change can stay when others are given up: what it refers to, overwrites or names may not be there then, or
//! otherwise than it takes it for.

use partial_sync_vfs::sqlite::Conn;

use super::{
    given_up::GivenUp,
    rows::{refers, row, unique_values},
    text::{Writes, writes},
};
use crate::{
    capture::{schema::Known, virtual_tables::Kind},
    change::{
        Cause, Change, ChangeKind, StatementChange, StatementKind, Table, Value, sql::key_of, tokens::tokens,
    },
    error::Result,
};

/// Every change is given as what it speaks of is called today ([`Names`](super::names::Names)).
impl GivenUp {
    /// Whether a foreign-key action would have had nothing to do here, for the row will not be there.
    pub(super) fn is_idle(&self, change: &Change) -> bool {
        match &change.kind {
            ChangeKind::Row {
                table,
                op,
                cause: Cause::ForeignKey | Cause::ForeignKeyByValues,
            } => {
                let (before, _) = op.images();
                before.is_some_and(|before| self.rows.get(&row(table, before)) == Some(&false))
            }
            _ => false,
        }
    }

    pub(super) fn is_needed_by(&mut self, conn: &Conn, change: &Change) -> Result<bool> {
        match &change.kind {
            ChangeKind::Row { table, op, .. } => {
                let (before, after) = op.images();
                let was = before.map(|before| row(table, before));
                if was.as_ref().is_some_and(|was| self.rows.contains_key(was)) {
                    return Ok(true);
                }
                if let Some(after) = after {
                    let is = row(table, after);
                    let moves = was.as_ref() != Some(&is);
                    let taken = moves && key_of(table, after).is_some() && self.rows.get(&is) == Some(&true);
                    let held = !self.held.is_empty() && {
                        let unique = self.schema.unique(conn, table)?;
                        let had: Vec<_> = before
                            .into_iter()
                            .flat_map(|before| unique_values(&unique, table, before))
                            .collect();
                        unique_values(&unique, table, after)
                            .any(|v| self.held.contains(&v) && !had.contains(&v))
                    };
                    if taken || held || self.has_no_parent(conn, table, after)? {
                        return Ok(true);
                    }
                }
                match before {
                    Some(before) => self.leaves_child(conn, table, before, after),
                    None => Ok(false),
                }
            }
            ChangeKind::Statement(statement) => self.is_needed_by_text(conn, statement),
        }
    }

    /// Whether a change is one of a table, or speaks of something, that is not what it takes it for, by the name it has then.
    pub(super) fn names(&self, change: &Change) -> bool {
        if self.tables.is_empty() && self.others.is_empty() {
            return false;
        }
        let table = |name: &str| self.tables.contains(&name.to_ascii_lowercase());
        match &change.kind {
            ChangeKind::Row { table: of, .. } => table(&of.name),
            ChangeKind::Statement(statement) => match &statement.kind {
                StatementKind::VirtualTableWrite { table: of } => table(of),
                StatementKind::Reindex {
                    table: of, content, ..
                } => table(of) || table(content),
                StatementKind::Sequence => {
                    matches!(statement.args.first(), Some(Value::Text(name)) if table(name))
                }
                kind => {
                    let all = tokens(&statement.sql);
                    // The arguments of a virtual table name its content as a string.
                    let strings = *kind == StatementKind::CreateTable && all.iter().any(|t| t.is("VIRTUAL"));
                    all.iter()
                        .filter_map(|token| match token.name() {
                            None if strings => Some(token.text.trim_matches('\'').to_owned()),
                            name => name,
                        })
                        .any(|name| table(&name) || self.others.contains(&name.to_ascii_lowercase()))
                }
            },
        }
    }

    /// Whether a statement writes a row into a virtual table that a given-up one wrote, or whose content is given up.
    fn is_needed_by_text(&mut self, conn: &Conn, statement: &StatementChange) -> Result<bool> {
        // A trigger's does what is right for the row, whatever that is.
        if matches!(&statement.kind, StatementKind::Reindex { by_trigger: true, .. }) {
            return Ok(false);
        }
        let Some((table, writes)) = writes(statement) else {
            return Ok(false);
        };
        let content = match self.schema.table(conn, &table)? {
            Known::Virtual(known) => match &known.kind {
                Kind::External { content, .. } => Some(content.to_ascii_lowercase()),
                _ => None,
            },
            _ => None,
        };
        Ok(match writes {
            Writes::None | Writes::All => false,
            Writes::Any => {
                self.overwritten.contains(&table)
                    || self.written.iter().any(|(of, _)| *of == table)
                    || self.rows.keys().any(|(of, _)| Some(of) == content.as_ref())
            }
            Writes::Rows(rows) => {
                self.overwritten.contains(&table)
                    || rows.into_iter().any(|id| {
                        self.written.contains(&(table.clone(), id))
                            || content.as_ref().is_some_and(|content| {
                                self.rows
                                    .contains_key(&(content.clone(), vec![Value::Integer(id)]))
                            })
                    })
            }
        })
    }

    /// Whether a row refers, by a foreign key that its table has now, to one that is given up.
    fn has_no_parent(&mut self, conn: &Conn, table: &Table, after: &[Value]) -> Result<bool> {
        if self.made.rows.is_empty() {
            return Ok(false);
        }
        let keys = self.schema.foreign_keys(conn, table)?;
        Ok(keys.iter().any(|key| self.made.has(key, after)))
    }

    /// Whether a row that is deleted, or gets another key, is one that a row refers to whose change is given up.
    fn leaves_child(
        &mut self,
        conn: &Conn,
        parent: &Table,
        before: &[Value],
        after: Option<&Vec<Value>>,
    ) -> Result<bool> {
        for (child, is, would_be) in &self.left {
            let keys = self.schema.foreign_keys(conn, child)?;
            let to = |child: &[Value], image: &[Value]| refers(&keys, child, parent, image);
            let follows = would_be.as_ref().is_some_and(|would_be| to(would_be, before));
            if to(is, before) && !follows && !after.is_some_and(|after| to(is, after)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
