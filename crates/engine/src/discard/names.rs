//! What the tables and columns that a change speaks of are called today: there may have been `ALTER TABLE` since.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use partial_sync_core::ChangeId;

use crate::{
    change::{Change, ChangeKind, StatementKind, Table, migration::Migration},
    error::Result,
    log::Log,
};

/// The changes of names in a log, in order.
#[derive(Default)]
pub(super) struct Names {
    migrations: Vec<(ChangeId, Migration)>,
    /// By a table as it was, and how many of `migrations` come before.
    known: HashMap<(Arc<Table>, usize), Today>,
}

/// A table as it is called today, and its places that are columns still.
type Today = (Arc<Table>, Vec<usize>);

impl Names {
    pub(super) fn read(log: &Log, after: ChangeId) -> Result<Self> {
        let mut migrations = vec![];
        let mut chunks = log.chunks_after(after)?;
        while let Some(chunk) = chunks.next()? {
            let changes = chunk.changes()?;
            migrations.extend(
                changes
                    .iter()
                    .filter_map(|c| Some((c.id, Migration::of_change(c)?))),
            );
        }
        Ok(Self {
            migrations,
            known: HashMap::new(),
        })
    }

    fn before(&self, at: ChangeId) -> usize {
        self.migrations.partition_point(|(id, _)| *id <= at)
    }

    /// What the table is called today that is called so at this change.
    pub(super) fn name(&self, at: ChangeId, name: &str) -> String {
        let later = &self.migrations[self.before(at)..];
        later
            .iter()
            .fold(name.to_owned(), |name, (_, migration)| match migration {
                Migration::RenameTable { from, to } if from.eq_ignore_ascii_case(&name) => to.clone(),
                _ => name,
            })
    }

    /// The change as it would be written today.
    pub(super) fn today<'c>(&mut self, change: &'c Change) -> Cow<'c, Change> {
        if self.before(change.id) == self.migrations.len() {
            return Cow::Borrowed(change);
        }
        let mut change = change.clone();
        let at = change.id;
        match &mut change.kind {
            ChangeKind::Row { table, op, .. } => {
                let (today, places) = self.table(at, table);
                if places.len() != table.columns.len() {
                    for image in op.images_mut() {
                        *image = places.iter().map(|&i| image[i].clone()).collect();
                    }
                }
                *table = today;
            }
            ChangeKind::Statement(statement) => match &mut statement.kind {
                StatementKind::Reindex { table, content, .. } => {
                    *table = self.name(at, table);
                    *content = self.name(at, content);
                }
                StatementKind::VirtualTableWrite { table } => *table = self.name(at, table),
                _ => {}
            },
        }
        Cow::Owned(change)
    }

    fn table(&mut self, at: ChangeId, table: &Arc<Table>) -> Today {
        let before = self.before(at);
        let key = (table.clone(), before);
        if let Some(today) = self.known.get(&key) {
            return today.clone();
        }
        let mut today = Table::clone(table);
        let mut places: Vec<usize> = (0..today.columns.len()).collect();
        for (_, migration) in &self.migrations[before..] {
            let of = |name: &str| name.eq_ignore_ascii_case(&today.name);
            match migration {
                Migration::RenameTable { from, to } if of(from) => today.name.clone_from(to),
                Migration::RenameColumn { table, from, to } if of(table) => {
                    let column = today
                        .columns
                        .iter_mut()
                        .find(|c| c.name.eq_ignore_ascii_case(from));
                    column.into_iter().for_each(|column| column.name.clone_from(to));
                }
                Migration::DropColumn { table, column } if of(table) => {
                    let at = today
                        .columns
                        .iter()
                        .position(|c| c.name.eq_ignore_ascii_case(column));
                    if let Some(at) = at {
                        today.columns.remove(at);
                        places.remove(at);
                    }
                }
                _ => {}
            }
        }
        let today = (Arc::new(today), places);
        self.known.insert(key, today.clone());
        today
    }
}
