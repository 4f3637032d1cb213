//! How a statement is recorded, found out once: most statements write rows of ordinary tables and nothing else does it for them, so
//! that nothing has to be known of any one row, and the bytes that the hook made are those of the log.
//!
//! A plan is true as long as the schema is, and is forgotten with what is known of that. Where a statement turns out to have done
//! more than its plan knows of, it is recorded as any other (`record.rs`).

use std::{collections::HashMap, sync::Arc};

use super::{classify::Target, given::Giver, hook::SeenTable};
use crate::change::{Cause, Table};

/// Plans that are kept.
const KEPT: usize = 256;
/// The longest text of a statement whose plan is kept.
const LONGEST: usize = 4 << 10;

/// The plans of statements, by their text.
#[derive(Default)]
pub(super) struct Plans(HashMap<Box<[u8]>, Arc<Plan>>);

impl Plans {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The plan of a statement, if it is known and was made for a statement that writes these.
    pub(super) fn get(&self, sql: &[u8], targets: &[Target]) -> Option<Arc<Plan>> {
        let plan = self.0.get(sql).filter(|plan| plan.targets == targets);
        plan.cloned()
    }

    pub(super) fn keep(&mut self, sql: &[u8], plan: &Arc<Plan>) {
        if sql.len() > LONGEST {
            return;
        }
        if self.0.len() >= KEPT {
            self.0.clear();
        }
        self.0.insert(sql.into(), Arc::clone(plan));
    }
}

/// How one statement is recorded.
pub(super) struct Plan {
    /// What SQLite said that the statement writes.
    pub targets: Vec<Target>,
    /// It may delete rows that are in the way of others.
    pub displaces: bool,
    /// Rows that were there are perhaps not as the hook gives them; see [`SchemaCache::reals`](super::schema::SchemaCache::reals).
    pub reals: bool,
    pub tables: Vec<PlannedTable>,
}

/// A table that it writes to.
pub(super) struct PlannedTable {
    pub table: Arc<Table>,
    /// Why rows that were there changed.
    pub cause: Cause,
    /// Who gives new rows their key.
    pub giver: Giver,
}

impl Plan {
    /// The table of rows that were seen, when they are as the log has them.
    pub(super) fn table(&self, seen: &SeenTable) -> Option<&PlannedTable> {
        let mut tables = self.tables.iter();
        tables.find(|planned| planned.table.name == *seen.name && planned.table.columns.len() == seen.columns)
    }
}
