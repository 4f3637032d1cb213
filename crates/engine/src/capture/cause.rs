//! Why a row changed: the statement itself, a trigger, or a foreign-key action.
//!
//! SQLite's hook tells how deep the change is nested, not what nests it. A nested change is taken for a foreign-key action
//! when it is exactly what an action of the schema would have done to the row, given the change one level above it;
//! otherwise it is a trigger's. When in doubt it is a foreign-key action: those are pushed, and applying one twice changes
//! nothing.

use std::{collections::HashSet, sync::Arc};

use super::{
    classify::{Target, WriteOp},
    schema::{Action, ForeignKey},
};
use crate::change::{Cause, RowOp, Table, Value};

/// What is known about the nesting of one statement.
#[derive(Clone, Default)]
pub(crate) struct Nesting {
    /// 1 for a statement on a view: what its INSTEAD OF trigger does is what the statement does.
    pub base: u32,
    /// (table, operation) pairs that TEMP triggers do and others do not. TEMP triggers exist here alone, so what they do
    /// is recorded as if the statement had done it.
    temporary: HashSet<(String, WriteOp)>,
    /// What is nested directly in the statement is a foreign-key action: the statement fires no triggers.
    only_keys: bool,
    /// The last change seen at each depth.
    above: Vec<Option<Above>>,
}

#[derive(Clone)]
struct Above {
    table: Arc<Table>,
    op: RowOp,
}

impl Nesting {
    pub(crate) fn new(base: u32, targets: &[Target], is_temporary: impl Fn(&str) -> bool) -> Self {
        let (mut temporary, mut others) = (HashSet::new(), HashSet::new());
        for target in targets.iter().filter(|t| t.main) {
            let Some(trigger) = &target.trigger else { continue };
            let pair = (target.table.to_ascii_lowercase(), target.op);
            if is_temporary(trigger) {
                temporary.insert(pair)
            } else {
                others.insert(pair)
            };
        }
        temporary.retain(|pair| !others.contains(pair));
        Self {
            base,
            temporary,
            only_keys: false,
            above: Vec::new(),
        }
    }

    /// `DROP TABLE` deletes the rows first when foreign keys are enforced, without firing the table's triggers.
    pub(crate) fn of_a_dropped_table() -> Self {
        Self {
            only_keys: true,
            ..Self::default()
        }
    }

    /// The cause of the next change of the statement, in the order in which they happened. `keys` are the foreign keys of
    /// `table`, or empty when they are not enforced.
    pub(crate) fn cause(&mut self, table: &Arc<Table>, op: &RowOp, depth: u32, keys: &[ForeignKey]) -> Cause {
        let cause = self.find(table, op, depth, keys);
        let depth = depth as usize;
        self.above.resize_with(depth + 1, || None);
        self.above[depth] = Some(Above {
            table: table.clone(),
            op: op.clone(),
        });
        cause
    }

    fn find(&self, table: &Table, op: &RowOp, depth: u32, keys: &[ForeignKey]) -> Cause {
        if depth <= self.base {
            return Cause::Statement;
        }
        let kind = match op {
            RowOp::Insert { .. } | RowOp::Add { .. } => WriteOp::Insert,
            RowOp::Update { .. } => WriteOp::Update,
            RowOp::Delete { .. } => WriteOp::Delete,
        };
        if !self.temporary.is_empty() && self.temporary.contains(&(table.name.to_ascii_lowercase(), kind)) {
            return Cause::Statement;
        }
        if self.only_keys && depth == 1 {
            return Cause::ForeignKey;
        }
        let above = self.above.get(depth as usize - 1).and_then(Option::as_ref);
        // Also below a trigger: the remote's trigger deletes the parent, but a remote that does not enforce foreign keys
        // leaves the children.
        if let Some(above) = above
            && keys
                .iter()
                .any(|key| key.parent.eq_ignore_ascii_case(&above.table.name) && is_action(key, above, op))
        {
            return Cause::ForeignKey;
        }
        Cause::Trigger
    }
}

/// Whether `key` makes of the parent's change exactly this change of the child.
fn is_action(key: &ForeignKey, above: &Above, child: &RowOp) -> bool {
    let parent = &above.op;
    let (old_parent, action) = match parent {
        RowOp::Delete { before } => (before, key.on_delete),
        RowOp::Update { before, .. } => (before, key.on_update),
        RowOp::Insert { .. } | RowOp::Add { .. } => return false,
    };
    let old_child = match child {
        RowOp::Delete { before } | RowOp::Update { before, .. } => before,
        RowOp::Insert { .. } | RowOp::Add { .. } => return false,
    };
    let shape = match (action, parent, child) {
        (Action::Cascade, RowOp::Delete { .. }, RowOp::Delete { .. }) => true,
        (Action::Cascade, RowOp::Update { .. }, RowOp::Update { before, after })
        | (Action::Set, _, RowOp::Update { before, after }) => before
            .iter()
            .zip(after)
            .enumerate()
            .all(|(i, (old, new))| old == new || key.columns.iter().any(|(column, _)| *column == i)),
        _ => false,
    };
    shape
        && key.columns.iter().all(|(column, to)| {
            let Some(value) = old_child.get(*column) else {
                return false;
            };
            match to {
                // An implicit reference is to the primary key, in order: some column of the parent has the value.
                None => old_parent.iter().any(|old| same_key(old, value)),
                Some(to) => above
                    .table
                    .columns
                    .iter()
                    .position(|column| column.name.eq_ignore_ascii_case(to))
                    .and_then(|i| old_parent.get(i))
                    .is_some_and(|old| same_key(old, value)),
            }
        })
}

/// Whether SQLite could take the two for the same key, under whatever affinity and collation the parent has.
pub(crate) fn same_key(a: &Value, b: &Value) -> bool {
    let number = |value: &Value| match value {
        Value::Integer(n) => Some(*n as f64),
        Value::Real(n) => Some(*n),
        Value::Text(text) => text.trim().parse().ok(),
        _ => None,
    };
    match (a, b) {
        (Value::Null, _) | (_, Value::Null) => false,
        (Value::Integer(a), Value::Integer(b)) => a == b,
        (Value::Text(a), Value::Text(b)) => a.trim_end().eq_ignore_ascii_case(b.trim_end()),
        _ => a == b || number(a).zip(number(b)).is_some_and(|(a, b)| a == b),
    }
}
